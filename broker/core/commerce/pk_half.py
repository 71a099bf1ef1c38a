"""What goes into and out of a room's half of a PK: its commands, the messages to the other half, and its state."""

from __future__ import annotations

from typing import Any, NamedTuple

from protocol.activities.pk import PkMeasure, PkOutcome, PkPhase, PkState
from protocol.codes import ErrorCode

__all__ = [
    "AnswerInvitation",
    "CancelPk",
    "Delivered",
    "InviteRoom",
    "OtherScored",
    "PkHalf",
    "PkHandled",
    "PkMessage",
    "ReceiveMessage",
    "Scored",
]


class InviteRoom(NamedTuple):
    """The host invites another room, by its name without the tenant."""

    pk: str
    other_room: str
    duration_ms: int
    measure: PkMeasure = PkMeasure.GIFTS


class AnswerInvitation(NamedTuple):
    """The host of the invited room accepts or declines."""

    pk: str
    accepts: bool


class CancelPk(NamedTuple):
    """The host takes its invitation back, or gives up a PK that runs."""

    pk: str


class Scored(NamedTuple):
    """Viewers of the room have given something. ``amount``: cents of gifts, or likes; ``at_ms``: time of the event;
    ``offset``: of it in the stream of the room, so that it counts once; 0 = it has none."""

    amount: int
    at_ms: int
    offset: int = 0


class PkMessage(NamedTuple):
    """What one half says to the other. ``data``: plain values (Any: each kind has its own)."""

    kind: str
    pk: str
    data: tuple[Any, ...] = ()


class ReceiveMessage(NamedTuple):
    """A message has come. ``room``: from which, by its name without the tenant."""

    room: str
    message: PkMessage


class Delivered(NamedTuple):
    """The other room has answered a message. ``code``: of its refusal, None = it has handled it."""

    pk: str
    kind: str
    code: ErrorCode | None = None


class OtherScored(NamedTuple):
    """The other room's score so far, for display."""

    pk: str
    score: int


class PkHandled(NamedTuple):
    """Answer to a command of the broker itself."""


class PkHalf(NamedTuple):
    """A room's half of one PK. ``counted_to``: offset of the last event in ``score``; ``is_final``: the score is
    complete; ``has_given_up``: this room has, and waits for the result."""

    pk: str
    other: str
    is_inviting: bool
    measure: int
    duration_ms: int
    phase: int
    deadline_ms: int | None
    starts_at_ms: int | None = None
    ends_at_ms: int | None = None
    score: int = 0
    counted_to: int = 0
    is_final: bool = False
    has_given_up: bool = False
    other_score: int | None = None
    outcome: int | None = None
    is_forfeit: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it has no outcome yet."""
        return self.outcome is None

    @property
    def is_accepted(self) -> bool:
        return self.starts_at_ms is not None

    @property
    def takes_score(self) -> bool:
        """Whether what viewers give may still count."""
        return self.is_accepted and self.is_open and not self.is_final

    def content(self) -> tuple[Any, ...]:
        """What an invitation of the same id must have too."""
        return self.other, self.is_inviting, self.measure, self.duration_ms

    def state(self, other_shown: int | None = None) -> PkState:
        """Return the record of it. ``other_shown``: score of the other room so far, for display before the end."""
        return PkState(
            self.pk,
            PkPhase(self.phase),
            self.other,
            self.is_inviting,
            PkMeasure(self.measure),
            self.duration_ms,
            None if self.is_accepted else self.deadline_ms,
            self.starts_at_ms,
            self.ends_at_ms,
            self.score,
            other_shown if self.other_score is None and self.outcome is None else self.other_score,
            None if self.outcome is None else PkOutcome(self.outcome),
            self.is_forfeit,
        )
