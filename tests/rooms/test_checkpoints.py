"""Checkpoints of rooms that the ledger could not take are written as soon as it can."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from broker.core.commerce.activity import Fact
from broker.core.commerce.room_activities import ActivityKind, RoomActivities
from broker.core.rooms.effects import Record
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from broker.ledger import (
    Committed,
    FailureKind,
    Ledger,
    LedgerError,
    LedgerResult,
    RecordPut,
    RoomCheckpointed,
    RoomEnded,
    SubmitResult,
)
from broker.rooms.journal import SUBMIT_AGAIN_S, RoomJournal
from broker.rooms.room_checkpoints import RoomCheckpoint
from broker.rooms.room_store import RoomStore
from protocol.codes import MessageType, Role, RoomPhase
from protocol.frames import pack_body, unpack_body
from protocol.messages import Post
from tests.support.rooms import Person
from tests.support.sum_activity import Sum

FAILURE = LedgerError(FailureKind.DISK_FULL, "made by a test")


class FailingLedger:
    """Ledger that refuses a submission (``refuses``), or answers it with ``result``."""

    def __init__(self) -> None:
        self.refuses = False
        self.result: LedgerResult = Committed(())
        self.written: list[Any] = []
        self._waiting: list[Callable[[LedgerResult], None]] = []

    def record(
        self, items: Sequence[Any], on_done: Callable[[LedgerResult], None], keys: Sequence[Any] = ()
    ) -> SubmitResult:
        if self.refuses:
            return SubmitResult.UNAVAILABLE
        if isinstance(self.result, Committed):
            self.written += items
        self._waiting.append(on_done)
        return SubmitResult.QUEUED

    def deliver(self) -> None:
        """Report the results, which a ledger never does within `record`."""
        waiting, self._waiting = self._waiting, []
        for on_done in waiting:
            on_done(self.result)


def fail(ledger: FailingLedger, how: str) -> None:
    ledger.refuses = how == "refused"
    ledger.result = FAILURE if how == "failed" else Committed(())


@pytest.mark.parametrize("how", ["refused", "failed"])
def test_totals_that_were_not_written_are_written_by_the_next_checkpoint(how: str) -> None:
    ledger = FailingLedger()
    state: RoomState[str] = RoomState(RoomRules(policy_from("roomcast"), {}, durable=True), 7, random.Random(1), 0.0)
    journal = RoomJournal(
        RoomStore(cast(Ledger, ledger), lambda: 1000), "lobby", state, lambda: 0.0,
        perform=lambda effects: None, on_due=lambda now: None, on_crash=lambda: None,
        defer=lambda flush: False,
    )  # fmt: skip
    state.post("a", Person("ann", Role.VIEWER), Post(MessageType.LIKE, "", (3,)), 0.0, 1000)
    fail(ledger, how)
    journal.checkpoint()
    ledger.deliver()
    assert ledger.written == []
    assert not journal.is_written
    fail(ledger, "")
    journal.checkpoint()
    assert journal.is_written
    assert ledger.written == [
        RoomCheckpointed("lobby", 7, 1000, state.totals()),
        RecordPut("room.score", "lobby", "7 likes ann", 1000, pack_body((3, 0))),
    ]
    journal.checkpoint()
    assert len(ledger.written) == 2, "unchanged totals and scores are written once"


def test_a_room_that_waits_for_a_deadline_is_not_idle_for_the_ledger() -> None:
    ledger = FailingLedger()
    at = [0.0]
    activities: RoomActivities[Any] = RoomActivities({"sums": ActivityKind("sums", Sum, 1, 1)})
    activities.fold(("sums", "s"), [Fact("scheduled", (None, 10**15))])
    state: RoomState[str] = RoomState(
        RoomRules(policy_from("roomcast"), {}, durable=True), 7, random.Random(1), 0.0, activities=activities
    )
    journal = RoomJournal(
        RoomStore(cast(Ledger, ledger), lambda: 1000), "lobby", state, lambda: at[0],
        perform=lambda effects: None, on_due=lambda now: None, on_crash=lambda: None,
        defer=lambda flush: False,
    )  # fmt: skip
    journal.checkpoint()
    for at[0] in (1.0, SUBMIT_AGAIN_S - 1, SUBMIT_AGAIN_S, SUBMIT_AGAIN_S + 1, 2 * SUBMIT_AGAIN_S):
        ledger.deliver()
        journal.checkpoint()
    assert len(ledger.written) == 3, "the first one, and one each time that it is due"


@pytest.mark.parametrize("how", ["refused", "failed"])
def test_the_last_row_of_a_closed_room_is_written_again(how: str) -> None:
    ledger = FailingLedger()
    store = RoomStore(cast(Ledger, ledger), lambda: 1000)
    fail(ledger, how)
    store.close("idle", RoomCheckpoint(7, 3, b"totals"))
    store.close("reopened", RoomCheckpoint(8, 3, b"old"))
    store.end("ended", 9, unused=False)
    ledger.deliver()
    store.take("reopened")
    store.write_again()
    ledger.deliver()
    fail(ledger, "")
    store.write_again()
    assert ledger.written == [RoomCheckpointed("idle", 7, 1000, b"totals"), RoomEnded("ended", 9, 1000)]
    store.write_again()
    assert len(ledger.written) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_a_checkpoint_does_not_bring_back_the_phase_before_one_that_is_on_its_way(fails: bool) -> None:
    ledger = FailingLedger()
    state: RoomState[str] = RoomState(RoomRules(policy_from("roomcast"), {}, durable=True), 7, random.Random(1), 0.0)
    journal = RoomJournal(
        RoomStore(cast(Ledger, ledger), lambda: 1000), "lobby", state, lambda: 0.0,
        perform=lambda effects: None, on_due=lambda now: None, on_crash=lambda: None,
        defer=lambda flush: False,
    )  # fmt: skip

    def phases() -> list[int]:
        return [unpack_body(item.totals)[1] for item in ledger.written if isinstance(item, RoomCheckpointed)]

    host = Person("max", Role.HOST)
    (record,) = state.post("a", host, Post(MessageType.ROOM_PHASE, "k", (RoomPhase.PAUSED,)), 0.0, 1000)
    assert isinstance(record, Record)
    journal.record(record)
    state.post("b", Person("ann", Role.VIEWER), Post(MessageType.LIKE, "", (3,)), 0.0, 1000)
    journal.checkpoint()
    journal.write_totals(lambda is_durable: None)
    assert phases() == [RoomPhase.PAUSED] * 2, "with the event, and with the totals that had to be written"
    ledger.result = FAILURE if fails else Committed((1,))
    ledger.deliver()
    ledger.result = Committed(())
    journal.checkpoint()
    assert phases()[2:] == ([RoomPhase.LIVE] if fails else [])
