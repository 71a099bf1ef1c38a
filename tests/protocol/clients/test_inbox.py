"""The bounded inbox: what may be dropped is dropped and counted, what may not is kept, and both in order."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol.clients import MessagesMissed
from protocol.clients.inbox import Inbox, size_of
from tests.support.examples import examples


class InboxMachine(RuleBasedStateMachine):
    """Against a plain list as the model."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox: Inbox[Any] = Inbox(max_items=6, max_bytes=900)
        self.model: list[tuple[bool, str]] = []
        self.serial = 0
        self.put_chat = self.taken_chat = self.missed_chat = 0

    def text(self, size: int) -> str:
        self.serial += 1
        return f"{self.serial:04}" + "x" * size

    @precondition(lambda self: not self.inbox.is_full)
    @rule(size=st.integers(0, 400))
    def put(self, size: int) -> None:
        text = self.text(size)
        self.inbox.put(text)
        self.model.append((True, text))

    @rule(size=st.integers(0, 400), count=st.integers(1, 5))
    def put_lossy(self, size: int, count: int) -> None:
        text = self.text(size)
        self.inbox.put_lossy((text, count), chat=count)
        self.put_chat += count
        self.model.append((False, text))

    @rule()
    def take(self) -> None:
        found = self.inbox.take_nowait()
        if found is None:
            assert len(self.inbox) == 0
        elif isinstance(found, MessagesMissed):
            assert found.is_local
            self.missed_chat += found.chat
        elif isinstance(found, str):
            # No reliable event is skipped, and those before it were taken or dropped.
            kept = [text for must, text in self.model if must]
            assert found == kept[0]
            self.model = self.model[self.model.index((True, found)) + 1 :]
        else:
            text, count = found
            self.taken_chat += count
            skipped = self.model[: self.model.index((False, text))]
            assert not any(must for must, _ in skipped)
            self.model = self.model[len(skipped) + 1 :]

    @invariant()
    def bounded(self) -> None:
        lossy = self.inbox._lossy
        if lossy:
            assert len(self.inbox) <= 6
            assert self.inbox.held_bytes <= 900
        assert self.inbox.held_bytes == sum(w for _, w, _ in self.inbox._reliable) + sum(w for _, w, _, _, _ in lossy)

    @invariant()
    def every_danmaku_is_accounted_for(self) -> None:
        waiting = sum(chat for _, _, _, chat, _ in self.inbox._lossy)
        unreported = self.inbox._missed_chat
        assert self.put_chat == self.taken_chat + waiting + unreported + self.missed_chat


TestInbox = InboxMachine.TestCase
TestInbox.settings = examples(40, steps=40)


def test_the_oldest_danmaku_goes_first_and_is_reported_first() -> None:
    inbox: Inbox[Any] = Inbox(max_items=3)
    inbox.put("keep")
    for number in range(5):
        inbox.put_lossy(number, chat=10)
    assert inbox.dropped == 3
    found = [inbox.take_nowait() for _ in range(5)]
    assert found == [MessagesMissed(30, 0, is_local=True), "keep", 3, 4, None]


def test_events_that_must_be_kept_displace_all_danmaku_and_then_fill_it() -> None:
    inbox: Inbox[Any] = Inbox(max_items=2)
    inbox.put_lossy("chat", chat=1)
    full = []
    for number in (1, 2):
        inbox.put(number)
        full.append(inbox.is_full)
    assert full == [False, True]
    assert [inbox.take_nowait() for _ in range(3)] == [MessagesMissed(1, 0, is_local=True), 1, 2]


@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.tuples(inner, inner), max_leaves=8))
def test_size_grows_with_every_part(value: Any) -> None:
    assert size_of((value,)) > size_of(value)
    assert size_of({"key": value}) > size_of(value)


@pytest.mark.parametrize("size", [(0, 1), (1, 0)])
def test_an_inbox_without_space_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Inbox(*size)


async def test_take_waits_and_wakes(autojump_clock: Any) -> None:
    inbox: Inbox[int] = Inbox()
    found: list[Any] = []

    async def taker() -> None:
        found.append(await inbox.take())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(taker)
        await trio.testing.wait_all_tasks_blocked()
        inbox.put(1)
        inbox.put(2)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(found) == [1, 2]
        inbox.close()
    assert found[2] is None


async def test_a_cancelled_take_takes_nothing() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.take()
    assert len(inbox) == 1


async def test_closing_wakes_every_task_that_waits_for_space() -> None:
    inbox: Inbox[int] = Inbox(max_items=1)
    inbox.put(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.wait_space)
        await trio.testing.wait_all_tasks_blocked()
        inbox.close()
    inbox.put(2)
    inbox.put_lossy(3)
    assert [await inbox.take(), await inbox.take()] == [1, None]
