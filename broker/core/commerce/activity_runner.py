"""Drives one activity: commands and timers become batches, and no answer leaves before its batch is durable."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from broker.core.commerce.activity import (
    LATER_MS,
    Activity,
    ActivityRefusal,
    ActivityStep,
    Batch,
    ErasedUser,
    Requester,
    move_to_pseudonym,
)
from protocol.codes import ErrorCode

__all__ = [
    "FIRST_RETRY_MS", "MAX_BATCH_ANSWERS", "MAX_BATCH_FACTS", "MAX_RETRY_MS", "MAX_WAITING", "MAX_WAITING_OF_ONE",
    "ActivityRunner",
]  # fmt: skip

T = TypeVar("T")

MAX_BATCH_FACTS = 256
"""Facts of one batch; one step may add more of its own."""
MAX_BATCH_ANSWERS = 512
"""Answers of one batch, and of one turn of a room's task: writing them takes about 5 ms; one step may add more."""
MAX_WAITING = 10_000
"""Commands that wait while a batch is under way."""
MAX_WAITING_OF_ONE = 8
"""Of one user."""
FIRST_RETRY_MS = 100
MAX_RETRY_MS = 5000
"""When what is due is tried again after the ledger refused it: doubled each time up to this."""


class _Waiting(NamedTuple, Generic[T]):
    command: Any
    requester: Requester
    ticket: T
    at_ms: int


class ActivityRunner(Generic[T]):
    """Commands and timers of one activity, as batches for the ledger.

    The owner calls `command`, `wake` or `end`, then `next_batch` until it is None: a batch without facts is answered
    at once, one with facts is submitted, and its result reported by `committed` or `refused`.
    """

    __slots__ = (
        "_activity",
        "_answer_count",
        "_erased_as",
        "_fact_count",
        "_is_resuming",
        "_is_taken_back",
        "_now_ms",
        "_of_one",
        "_readers",
        "_retry_at_ms",
        "_retry_ms",
        "_under_way",
        "_waiting",
    )

    def __init__(self, activity: Activity[T]) -> None:
        self._activity = activity
        self._is_taken_back = False
        """Whether the facts of the batch under way are undone, as somebody has looked at the activity."""
        self._waiting: deque[_Waiting[T]] = deque()
        self._of_one: dict[str, int] = {}
        self._readers: list[Callable[[Activity[T]], None]] = []
        """What waits for the result of the batch under way."""
        self._under_way: Batch[T] | None = None
        self._erased_as = ""
        """What stands for the user who was erased last."""
        self._now_ms = 0
        self._retry_at_ms: int | None = None
        self._retry_ms = FIRST_RETRY_MS
        self._fact_count = 0
        self._answer_count = 0
        self._is_resuming = False
        """Whether what a restart brings about is not durable yet."""

    @property
    def activity(self) -> Activity[T]:
        """The activity as durable facts have made it. The first look while a batch is under way undoes its facts, which
        are applied again when the ledger has taken them; other batches cost nothing."""
        if self._under_way is not None and not self._is_taken_back:
            self._take_back(self._under_way)
        return self._activity

    @property
    def is_idle(self) -> bool:
        """Whether no batch is under way and no command waits."""
        return self._under_way is None and not self._waiting

    @property
    def is_under_way(self) -> bool:
        """Whether a batch is under way: until its result everything else waits."""
        return self._under_way is not None

    def command(self, command: Any, requester: Requester, ticket: T, at_ms: int) -> ActivityRefusal | None:
        """Take a command; its answer comes with a batch. A refusal: too many wait."""
        share = self._of_one.get(requester.user, 0)
        if len(self._waiting) >= MAX_WAITING or (share >= MAX_WAITING_OF_ONE and not requester.is_platform):
            return ActivityRefusal(ErrorCode.OVERLOADED, "too many requests wait for this activity", "", LATER_MS)
        self._of_one[requester.user] = share + 1
        self._waiting.append(_Waiting(command, requester, ticket, at_ms))
        return None

    def read(self, reader: Callable[[Activity[T]], None]) -> None:
        """Call ``reader`` with the activity when everything in it is durable: now, or when the ledger has answered the
        batch under way."""
        if self._under_way is None:
            reader(self._activity)
        else:
            self._readers.append(reader)

    def erase(self, erased: ErasedUser) -> bool:
        """Keep nothing of a user any more: now, or when the ledger has answered the batch under way; return whether
        that is done. Else call again."""
        if self._under_way is None:
            self._erase(erased)
        elif self._erased_as != erased.pseudonym:
            self._readers.append(lambda activity: self._erase(erased))
        return self._erased_as == erased.pseudonym

    def next_due(self) -> int | None:
        """Return when `next_batch` should be called, None = only after a command; 0 = at once."""
        if self._under_way is not None:
            return None
        if self._waiting:
            return 0
        due = 0 if self._is_resuming else self._activity.next_due()
        if due is None or self._retry_at_ms is None:
            return due
        return max(due, self._retry_at_ms)

    def next_batch(self, now_ms: int) -> Batch[T] | None:
        """Decide what waits and what is due; None = nothing to do now, or a batch is under way."""
        if self._under_way is not None:
            return None
        steps: list[ActivityStep[T]] = []
        answers: list[tuple[T, Any]] = []
        self._fact_count = self._answer_count = 0
        has_room = True
        if self._is_resuming:
            if not self._waiting and now_ms < (self._retry_at_ms or 0):
                return None
            self._resume(steps, now_ms)
        while has_room and self._waiting:
            first = self._waiting[0]
            at_ms = self._advance(min(first.at_ms, now_ms))
            has_room = self._perform_due(steps, at_ms)
            if not has_room:
                break
            self._take(first)
            step = self._activity.decide(first.command, first.requester, first.ticket, at_ms)
            if step is not None:
                if step.answer is not None:
                    answers.append((first.ticket, step.answer))
                has_room = self._add(steps, step)
        if has_room:
            self._perform_due(steps, self._advance(now_ms))
        return self._as_batch(steps, answers)

    def end(self) -> Batch[T] | None:
        """Return what the end of the room brings about, with refusals for all who wait; None = nothing.

        No batch may be under way.
        """
        gone = ActivityRefusal(ErrorCode.ROOM_ENDED, "has ended", "room")
        answers = [(each.ticket, gone) for each in self._waiting]
        self._waiting.clear()
        self._of_one.clear()
        self._fact_count = self._answer_count = 0
        steps: list[ActivityStep[T]] = []
        step = self._activity.ended(self._now_ms)
        if step is not None:
            self._add(steps, step)
        return self._as_batch(steps, answers)

    @property
    def has_something_to_do(self) -> bool:
        """Whether there is something to do at a time, outside of the room, or as the process has just begun."""
        activity = self.activity
        return self.next_due() is not None or bool(activity.pending_actions) or activity.resumed(0) is not None

    def resume(self, now_ms: int) -> Batch[T] | None:
        """Return what a restart brings about; call it once, before anything else."""
        self.activity.settled()
        self._fact_count = self._answer_count = 0
        steps: list[ActivityStep[T]] = []
        self._resume(steps, now_ms)
        return self._as_batch(steps, ())

    def committed(self) -> Batch[T]:
        """Return the batch under way, which is durable: its answers may go out."""
        batch = self._under_way
        if batch is None:
            raise ValueError("no batch is under way")
        if self._is_taken_back:
            self._is_taken_back = False
            for fact in batch.facts:
                self._activity.apply(fact)
        self._under_way = None
        self.activity.settled()
        self._is_resuming = False
        self._retry_at_ms = None
        self._retry_ms = FIRST_RETRY_MS
        self._read_waiting()
        return batch

    def refused(self, now_ms: int) -> Batch[T]:
        """Undo the batch under way, which the ledger has refused; return it with what its callers hear instead."""
        batch = self._under_way
        if batch is None:
            raise ValueError("no batch is under way")
        if not self._is_taken_back:
            self._take_back(batch)
        self._is_taken_back = False
        self._under_way = None
        self._retry_at_ms = self._advance(now_ms) + self._retry_ms
        self._retry_ms = min(2 * self._retry_ms, MAX_RETRY_MS)
        self._read_waiting()
        later = ActivityRefusal(ErrorCode.OVERLOADED, "the ledger cannot take it now", "", LATER_MS)
        return Batch((), tuple((ticket, later) for ticket, _ in batch.answers), None, (), ())

    # ---- inside

    def _take_back(self, batch: Batch[T]) -> None:
        for fact in reversed(batch.facts):
            self._activity.undo(fact)
        self._is_taken_back = True

    def _erase(self, erased: ErasedUser) -> None:
        self._activity.erase(erased)
        self._erased_as = erased.pseudonym
        self._waiting = deque(
            each._replace(requester=each.requester._replace(user=erased.pseudonym, name=""))
            if each.requester.user == erased.user
            else each
            for each in self._waiting
        )
        move_to_pseudonym(self._of_one, erased)

    def _advance(self, now_ms: int) -> int:
        self._now_ms = max(self._now_ms, now_ms)
        return self._now_ms

    def _read_waiting(self) -> None:
        readers, self._readers = self._readers, []
        for reader in readers:
            reader(self._activity)

    def _take(self, first: _Waiting[T]) -> None:
        self._waiting.popleft()
        left = self._of_one.pop(first.requester.user) - 1
        if left:
            self._of_one[first.requester.user] = left

    def _resume(self, steps: list[ActivityStep[T]], now_ms: int) -> None:
        """Do what a restart brings about; where the ledger refuses it, it comes first in the next batch."""
        step = self._activity.resumed(self._advance(now_ms))
        self._is_resuming = step is not None
        if step is not None:
            self._add(steps, step)

    def _perform_due(self, steps: list[ActivityStep[T]], now_ms: int) -> bool:
        """Do what is due; return whether the batch takes more."""
        if self._retry_at_ms is not None and now_ms < self._retry_at_ms:
            return True
        while (step := self._activity.due(now_ms)) is not None:
            if not self._add(steps, step):
                return False
        return True

    def _add(self, steps: list[ActivityStep[T]], step: ActivityStep[T]) -> bool:
        for fact in step.facts:
            self._activity.apply(fact)
        self._fact_count += step.weight or len(step.facts)
        self._answer_count += len(step.answers) + (step.answer is not None)
        steps.append(step)
        has_event = step.event is not None or step.post is not None
        return not has_event and self._fact_count < MAX_BATCH_FACTS and self._answer_count < MAX_BATCH_ANSWERS

    def _as_batch(self, steps: Sequence[ActivityStep[T]], answers: Iterable[tuple[T, Any]]) -> Batch[T] | None:
        answers = (*answers, *(answer for step in steps for answer in step.answers))
        facts = tuple(fact for step in steps for fact in step.facts)
        if not facts and not answers:
            return None
        batch = Batch(
            facts,
            answers,
            next((step.event for step in steps if step.event is not None), None),
            tuple(message for step in steps for message in step.messages),
            tuple(report for step in steps for report in step.reports),
            next((step.post for step in steps if step.post is not None), None),
            tuple(effect for step in steps for effect in step.then),
        )
        if facts:
            self._under_way = batch
        return batch
