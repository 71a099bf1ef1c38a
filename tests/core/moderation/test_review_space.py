"""The space of review queues: a bound of each tenant, over any order of changes of its rooms."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, tuples

from broker.core.moderation.review_space import ReviewSpace
from broker.core.tenants.names import qualify
from tests.support.examples import examples

ROOMS = [qualify(tenant, room) for tenant in ("", "acme") for room in ("one", "two")]


@examples(100)
@given(lists(tuples(sampled_from(ROOMS), integers(0, 5), integers(0, 500)), max_size=20))
def test_a_tenant_is_full_by_what_its_rooms_hold_now(changes: list[tuple[str, int, int]]) -> None:
    space = ReviewSpace(max_items=6, max_bytes=600)
    held: dict[str, tuple[int, int]] = {}
    for room, items, nbytes in changes:
        held[room] = items, nbytes if items else 0
        space.use(room, *held[room])
        assert space.rooms == {name: each for name, each in held.items() if each[0]}
        for tenant in (ROOMS[:2], ROOMS[2:]):
            sums = [sum(held.get(name, (0, 0))[part] for name in tenant) for part in (0, 1)]
            assert space.is_full(tenant[0]) == space.is_full(tenant[1]) == (sums[0] >= 6 or sums[1] >= 600)
