"""How many posts of one link may wait for the ledger: a model, and a link that fills its share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given

from broker.sessions import waiting
from broker.sessions.waiting import MAX_BYTES, MAX_POSTS, WaitingPosts
from protocol.codes import MessageType, Outcome
from protocol.messages import Ack, Post
from tests.support.broker import joined_link, running_broker

keys = st.tuples(st.integers(0, 2), st.integers(0, 3))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), keys, st.integers(0, 4096)),
        st.tuples(st.just("answer"), keys, st.just(0)),
        st.tuples(st.just("forget"), keys, st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_what_waits_is_what_was_added_and_not_answered(steps: list[tuple[str, tuple[int, int], int]]) -> None:
    posts = WaitingPosts()
    model: list[tuple[tuple[int, int], int]] = []
    for step, key, size in steps:
        if step == "add":
            assert posts.add(*key, size)
            model.append((key, size))
        elif step == "answer":
            posts.answered(*key)
            newest = max((at for at, (each, _) in enumerate(model) if each == key), default=None)
            if newest is not None:
                del model[newest]
        else:
            posts.forget(key[0])
            model = [entry for entry in model if entry[0][0] != key[0]]
        assert (posts.count, posts.nbytes) == (len(model), sum(size for _, size in model))


def test_posts_and_bytes_are_bounded() -> None:
    many, large = WaitingPosts(), WaitingPosts()
    assert sum(many.add(1, number % 7, 1) for number in range(MAX_POSTS + 5)) == MAX_POSTS
    assert sum(large.add(1, number, 4096) for number in range(MAX_POSTS)) == MAX_BYTES // 4096
    many.answered(1, 3)
    assert many.add(2, 3, 1)


@pytest.mark.integration
async def test_a_link_with_too_many_posts_before_the_ledger_is_limited_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MAX_POSTS", 3)
    overrides: dict[str, Any] = {"ledger": {"data_dir": str(tmp_path / "data")}}
    async with (
        running_broker(**overrides) as broker,
        joined_link(broker, "dev:shop:app") as (app, room),
        joined_link(broker, "dev:max:host") as (host, _),
    ):
        # All in one read: no result of the ledger can come in between.
        gifts = [Post(MessageType.GIFT, f"m{n}", (f"order-{n}", f"u{n}", "Ann", "rose", 1, 1, "")) for n in range(5)]
        await app.send(*[(gift, room, n) for n, gift in enumerate(gifts)], (_danmaku(), room, 9))
        outcomes: dict[int, Outcome] = {}
        with trio.fail_after(20):
            while len(outcomes) < 6:
                for result in (await app.expect(Ack))[1].results:
                    assert result.sequence not in outcomes, "one answer each"
                    outcomes[result.sequence] = result.outcome
                    if result.outcome is Outcome.LIMITED:
                        assert result.detail > 0
        danmaku = outcomes.pop(9)  # it needs no ledger; beside a machine that stalls for seconds it expires
        assert danmaku in (Outcome.ACCEPTED, Outcome.EXPIRED)
        assert Counter(outcomes.values()) == {Outcome.ACCEPTED: 3, Outcome.LIMITED: 2}
        assert (outcomes[3], outcomes[4]) == (Outcome.LIMITED, Outcome.LIMITED)
        await host.post(room, 1, MessageType.ANNOUNCEMENT, ("another link has a share of its own",))
        assert (await host.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED
        await app.send((gifts[3], room, 20))
        assert (await app.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED


def _danmaku() -> Post:
    return Post(MessageType.DANMAKU, "d", ("hello", None))
