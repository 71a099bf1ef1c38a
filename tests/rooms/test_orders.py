"""Orders: each is a fact in the ledger, one order is one order everywhere, and a repetition learns of the first."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.ledger import as_json_line
from broker.core.rooms.effects import Record, Reply
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from broker.ledger import Entry, Ledger, Reader, StoredEntry, SubmitResult, database_path
from broker.ledger.orders import ORDER_KIND, Order, order_of
from broker.ledger.replay import replay
from broker.rooms.room_store import RoomStore
from protocol.codes import ErrorCode, MessageType, Outcome, Role
from protocol.frames import unpack_body
from protocol.messages import Ack, AckResult, FirstResult, Post
from protocol.payloads import GiftPayload
from tests.support.broker import RawLink, joined_link, raw_link, running_broker
from tests.support.durable import durable_broker, gift
from tests.support.examples import examples
from tests.support.rooms import CUSTOM, Person

APP = Person("shop", Role.APP)


class WrittenEntries:
    """Stands in for the ledger: keeps what is submitted."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def record(self, items: Sequence[Any], on_result: Callable[[Any], None], keys: Sequence[Any]) -> SubmitResult:
        self.entries += [item for item in items if isinstance(item, Entry)]
        return SubmitResult.QUEUED


_gifts = st.tuples(
    st.integers(0, 40),
    st.sampled_from("ab"),
    st.sampled_from(["rose", "car"]),
    st.integers(1, 9),
    st.sampled_from([5, 9]),
)


@examples(100)
@given(st.lists(st.tuples(_gifts, st.sampled_from([0.0, 0.05, 1.0])), max_size=80), st.sampled_from([0, 1, 10]))
def test_every_order_is_a_fact_beside_the_event_that_shows_it_and_the_sums_are_equal(
    said: list[tuple[tuple[int, str, str, int, int], float]], paid_budget_per_s: int
) -> None:
    rules = RoomRules(policy_from("roomcast", {"paid_budget_per_s": paid_budget_per_s}), CUSTOM, durable=True)
    room: RoomState[int] = RoomState(rules, 7, random.Random(1), 0.0, "show")
    written = WrittenEntries()
    store = RoomStore(cast("Ledger", written), lambda: 0)
    answered: dict[int, Outcome] = {}
    ordered: dict[str, tuple[str, str, int, int]] = {}
    first_tickets: list[int] = []

    def perform(effects: Any) -> None:
        for effect in effects:
            if isinstance(effect, Reply):
                assert effect.ticket not in answered
                answered[effect.ticket] = effect.outcome
            elif isinstance(effect, Record):
                store.record("show", 7, effect, b"", lambda _: None)
                perform(room.committed(effect, room.last_offset + 1, now))

    now = 1.0
    for ticket, ((number, user, kind, count, price), wait_s) in enumerate(said):
        now += wait_s
        content = user, kind, count, price
        if ordered.setdefault(f"o{number}", content) == content:
            first_tickets.append(ticket)
        perform(room.post(ticket, APP, Post(5, "", GiftPayload(f"o{number}", user, user, kind, count, price)), now, 5))
        perform(room.tick(now, 5))
    perform(room.tick(now, 5, last=True))

    assert set(answered) == set(range(len(said)))
    assert all(
        (answered[ticket] in (Outcome.ACCEPTED, Outcome.MERGED)) == (ticket in first_tickets) for ticket in answered
    )
    facts = [Order(*unpack_body(entry.body)) for entry in written.entries if entry.kind == ORDER_KIND]
    assert {each.order_id: (each.user_id, each.gift_id, each.count, each.price_cents) for each in facts} == ordered
    assert len(facts) == len(ordered), "each is there once"
    shown = Counter[str]()
    for each in facts:
        shown[each.shown_as] += each.count
    events = [unpack_body(entry.body)[4] for entry in written.entries if entry.kind == MessageType.GIFT]
    assert dict(shown) == {payload[0]: payload[4] for payload in events if payload[4]}


async def give(link: RawLink, room: str, sequence: int, payload: Any) -> Ack:
    await link.send((Post(MessageType.GIFT, "", payload, room), 0, sequence))
    return (await link.expect(Ack))[1]


@pytest.mark.integration
@pytest.mark.parametrize("is_durable", [False, True])
async def test_a_repetition_learns_of_the_first_and_other_content_is_refused(tmp_path: Path, is_durable: bool) -> None:
    running = durable_broker(tmp_path) if is_durable else running_broker()
    async with running as broker, raw_link(broker) as app:
        await app.login("dev:shop:app")
        accepted = await give(app, "one", 1, gift("o1"))
        assert accepted == Ack((AckResult(1, Outcome.ACCEPTED, 1),))
        one = broker.hub.find("one")
        assert one is not None
        first = "one", one.state.epoch, 1
        again = await give(app, "one", 2, gift("o1"))
        assert again == Ack((AckResult(2, Outcome.ACCEPTED, 1),), (FirstResult(2, *first),))
        for number, (room, payload) in enumerate(
            [("two", gift("o1")), ("one", gift("o1", "bob")), ("one", gift("o1", count=99))], 3
        ):
            refused = await give(app, room, number, payload)
            assert refused == Ack(
                (AckResult(number, Outcome.REJECTED, ErrorCode.KEY_REUSED),), (FirstResult(number, *first),)
            )


@pytest.mark.integration
async def test_an_order_is_known_after_a_restart_with_its_room_and_in_the_export(tmp_path: Path) -> None:
    async with durable_broker(tmp_path) as broker, joined_link(broker, "dev:shop:app", "one") as (app, room):
        for number in range(1, 31):
            await app.post(room, number, MessageType.GIFT, gift(f"o{number}", "ann", number))
        results: list[AckResult] = []
        while len(results) < 30:
            results += (await app.expect(Ack))[1].results
        assert {each.outcome for each in results} <= {Outcome.ACCEPTED, Outcome.MERGED}
        state = broker.hub.find("one")
        assert state is not None
        epoch = state.state.epoch
    offsets = {each.sequence: each.detail for each in results}
    async with durable_broker(tmp_path) as broker, raw_link(broker) as app:
        await app.login("dev:shop:app")
        again = await give(app, "one", 2, gift("o7", "ann", 7))
        assert again.firsts == (FirstResult(2, "one", epoch, offsets[7]),)
        other = await give(app, "two", 3, gift("o7", "ann", 7))
        assert other.results == (AckResult(3, Outcome.REJECTED, ErrorCode.KEY_REUSED),)
        assert other.firsts == (FirstResult(3, "one", epoch, offsets[7]),)
    entries = stored_entries(tmp_path)
    orders = {order.order_id: order for entry in entries if (order := order_of(entry)) is not None}
    assert {name: order.count for name, order in orders.items()} == {f"o{n}": n for n in range(1, 31)}
    found = replay(entries)["one", epoch]
    assert (found.orders, found.order_units, found.order_cents) == (30, 465, 46_500)
    assert (found.gift_units, found.gift_cents) == (465, 46_500)
    lines = [as_json_line(entry) for entry in entries]
    (line,) = [line for line in lines if line.get("order", {}).get("order_id") == "o7"]
    assert (line["room"], line["order"]["user_id"], line["order"]["price_cents"]) == ("one", "ann", 100)


def stored_entries(directory: Path) -> list[StoredEntry]:
    reader = Reader(database_path(directory))
    try:
        return [entry for entry, *_ in reader.entries(0)]
    finally:
        reader.close()
