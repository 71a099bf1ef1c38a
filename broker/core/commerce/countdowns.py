"""Countdowns: a label and a deadline that every member sees. Clients count by themselves; no tick is sent."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from broker.core.commerce.activity import Activity, ActivityStep, Fact, Requester, RoomEvent, refused
from broker.core.commerce.schedules import MAX_AHEAD_MS
from protocol.activities.schedules import CountdownMoved, CountdownStarted, CountdownStopped
from protocol.codes import ErrorCode
from protocol.operations.schedules import CountdownState

__all__ = ["Countdown", "MoveCountdown", "StartCountdown", "StopCountdown"]

T = TypeVar("T")


class StartCountdown(NamedTuple):
    """Begin a countdown."""

    label: str
    deadline_ms: int


class MoveCountdown(NamedTuple):
    """Give a countdown another deadline. ``known_ms``: the one that the caller knows."""

    deadline_ms: int
    known_ms: int


class StopCountdown(NamedTuple):
    """End a countdown before its deadline."""


class Countdown(Activity[T]):
    """One countdown of a room."""

    kind = "countdowns"

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self._started: CountdownStarted | None = None
        self._ended_at: int | None = None

    @property
    def exists(self) -> bool:
        return self._started is not None

    @property
    def removable_at(self) -> int | None:
        return self._ended_at

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        match command:
            case StartCountdown():
                return self._start(command, now_ms)
            case MoveCountdown():
                return self._move(command, now_ms)
            case StopCountdown():
                return self._stop(now_ms)
        raise TypeError(command)

    def _start(self, command: StartCountdown, now_ms: int) -> ActivityStep[T]:
        started = CountdownStarted(*command)
        if self._started is not None:
            if started == self._started:
                return ActivityStep(answer=self.state())
            return refused(ErrorCode.KEY_REUSED, "was used before with another content", "id")
        if not _is_ahead(command.deadline_ms, now_ms):
            return refused(ErrorCode.BAD_FIELD, f"must be within {MAX_AHEAD_MS} ms from now", "deadline_ms")
        state = CountdownState(self.id, *command, is_over=False)
        return ActivityStep((Fact("started", tuple(started)),), state, event=RoomEvent("countdowns.started", started))

    def _move(self, command: MoveCountdown, now_ms: int) -> ActivityStep[T]:
        if self._started is None:
            return refused(ErrorCode.UNKNOWN_ACTIVITY, "names no countdown of this room", "id")
        if self._ended_at is not None:
            return refused(ErrorCode.OUT_OF_STATE, "is over", "id")
        known_ms = self._started.deadline_ms
        if command.deadline_ms == known_ms:
            return ActivityStep(answer=self.state())
        if command.known_ms != known_ms:
            return refused(ErrorCode.STALE, "has another deadline by now", "known_ms")
        if not _is_ahead(command.deadline_ms, now_ms):
            return refused(ErrorCode.BAD_FIELD, f"must be within {MAX_AHEAD_MS} ms from now", "deadline_ms")
        state = self.state()._replace(deadline_ms=command.deadline_ms)
        event = RoomEvent("countdowns.moved", CountdownMoved(command.deadline_ms))
        return ActivityStep((Fact("moved", (command.deadline_ms, known_ms)),), state, event=event)

    def _stop(self, now_ms: int) -> ActivityStep[T]:
        if self._started is None:
            return refused(ErrorCode.UNKNOWN_ACTIVITY, "names no countdown of this room", "id")
        if self._ended_at is not None:
            return ActivityStep(answer=self.state())
        event = RoomEvent("countdowns.stopped", CountdownStopped())
        return ActivityStep((Fact("ended", (now_ms,)),), self.state()._replace(is_over=True), event=event)

    def next_due(self) -> int | None:
        return self._started.deadline_ms if self._started is not None and self._ended_at is None else None

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        due = self.next_due()
        return None if due is None or now_ms < due else ActivityStep((Fact("ended", (now_ms,)),))

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        return None if self._ended_at is not None else ActivityStep((Fact("ended", (now_ms,)),))

    def apply(self, fact: Fact) -> None:
        if fact.name == "started":
            self._started = CountdownStarted(*fact.data)
        elif fact.name == "moved":
            self._go_to(fact.data[0])
        else:
            self._ended_at = fact.data[0]

    def undo(self, fact: Fact) -> None:
        if fact.name == "started":
            self._started = None
        elif fact.name == "moved":
            self._go_to(fact.data[1])
        else:
            self._ended_at = None

    def _go_to(self, deadline_ms: int) -> None:
        assert self._started is not None
        self._started = self._started._replace(deadline_ms=deadline_ms)

    def dump(self) -> tuple[Any, ...]:
        return self._started, self._ended_at

    def view(self, is_staff: bool) -> CountdownStarted | None:
        return None if self._ended_at is not None else self._started

    def state(self) -> CountdownState:
        """Return the record of the countdown; it must exist."""
        assert self._started is not None
        return CountdownState(self.id, *self._started, is_over=self._ended_at is not None)


def _is_ahead(deadline_ms: int, now_ms: int) -> bool:
    return now_ms < deadline_ms <= now_ms + MAX_AHEAD_MS
