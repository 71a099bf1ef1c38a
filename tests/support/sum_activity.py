"""An activity that adds up numbers, for tests of what drives activities."""

from __future__ import annotations

from typing import Any, NamedTuple

from broker.core.commerce.activity import (
    Activity,
    ActivityRefusal,
    ActivityStep,
    Fact,
    Requester,
    RoomEvent,
    UserMessage,
)
from protocol.codes import ErrorCode

__all__ = ["MAX_SUM", "WINDOW_MS", "Sum", "Total"]

WINDOW_MS = 100
MAX_SUM = 1000


class Total(NamedTuple):
    """What has been added so far."""

    total: int


class Sum(Activity[int]):
    """Adds numbers up to a bound; -ms adds 1 after so long.

    Those of one window are added at its end; a total of a hundred is an event.
    """

    kind = "sums"

    def __init__(self, id: str = "s") -> None:
        super().__init__(id)
        self.total = 0
        self.parts: list[int] = []
        self.shown = 0
        self.is_over = False
        self.timer: int | None = None
        self._window: list[tuple[int, int]] = []
        self._due: int | None = None

    @property
    def exists(self) -> bool:
        return bool(self.parts)

    def decide(self, command: Any, requester: Requester, ticket: int, now_ms: int) -> ActivityStep[int] | None:
        amount, waits = command
        if amount < 0:
            return ActivityStep((Fact("scheduled", (self.timer, now_ms - amount)),), self.total)
        if self.total + amount > MAX_SUM:
            return ActivityStep(answer=ActivityRefusal(ErrorCode.CLOSED, "has enough"))
        if waits:
            self._window.append((ticket, amount))
            self._due = self._due or now_ms + WINDOW_MS
            return None
        total = self.total + amount
        return ActivityStep(
            (Fact("added", (amount,)),), total, messages=(UserMessage(requester.user, "sums.added", Total(total)),)
        )

    def next_due(self) -> int | None:
        if self.total // 100 > self.shown:
            return 0
        return min((due for due in (self._due, self.timer) if due is not None), default=None)

    def due(self, now_ms: int) -> ActivityStep[int] | None:
        if self.total // 100 > self.shown:
            return ActivityStep(
                (Fact("shown", (self.shown, self.total // 100)),), event=RoomEvent("sums.grew", Total(self.total))
            )
        if self.timer is not None and now_ms >= self.timer:
            return ActivityStep((Fact("added", (1,)), Fact("scheduled", (self.timer, None))))
        if self._due is None or now_ms < self._due:
            return None
        window, self._window, self._due = self._window, [], None
        facts: list[Fact] = []
        answers: list[tuple[int, Any]] = []
        total = self.total
        for ticket, amount in window:
            if total + amount > MAX_SUM:
                answers.append((ticket, ActivityRefusal(ErrorCode.CLOSED, "has enough")))
                continue
            total += amount
            facts.append(Fact("added", (amount,)))
            answers.append((ticket, total))
        return ActivityStep(tuple(facts), answers=tuple(answers))

    def apply(self, fact: Fact) -> None:
        if fact.name == "added":
            self.parts.append(fact.data[0])
            self.total += fact.data[0]
        elif fact.name == "ended":
            self.is_over = True
        elif fact.name == "scheduled":
            self.timer = fact.data[1]
        else:
            self.shown = fact.data[1]

    def undo(self, fact: Fact) -> None:
        if fact.name == "added":
            self.total -= self.parts.pop()
        elif fact.name == "ended":
            self.is_over = False
        elif fact.name == "scheduled":
            self.timer = fact.data[0]
        else:
            self.shown = fact.data[0]

    def dump(self) -> tuple[Any, ...]:
        return self.total, tuple(self.parts), self.shown, self.is_over, self.timer

    def view(self, is_staff: bool) -> Any:
        return Total(self.total)

    def own_view(self, user: str) -> Any:
        return Total(len(self.parts)) if user == "ann" else None

    def counter(self) -> RoomEvent | None:
        return RoomEvent("sums.counter", Total(self.total))

    def ended(self, now_ms: int) -> ActivityStep[int] | None:
        return ActivityStep((Fact("ended"),))
