"""Effects: what a room decides and its task performs. `RoomState` returns them and never acts itself.

``T`` is the caller's reply address of one POST, handed back untouched.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from broker.core.commerce.activity import AnswerHeld, ShowPost
from broker.core.commerce.gifts import GiftCombo, GiftOrder
from broker.core.commerce.room_activities import ActivityBatch, AnswerCommand, PushCounter, RecordBatch, StartActions
from broker.core.moderation.screening import ScreenResult
from broker.core.rooms.idempotency import FirstUse, OperationKey
from broker.core.rooms.rules import Author
from protocol.activities.audiences import Audience
from protocol.activities.reviews import HeldBy, ReviewFinding
from protocol.codes import ErrorCode, Lane, LeaveReason, MessageType, Outcome
from protocol.messages import Event, Post, State, Tick

__all__ = [
    "Effect",
    "End",
    "Flagged",
    "Hold",
    "Outcomes",
    "PendingReply",
    "Publish",
    "Record",
    "RefusePost",
    "Reply",
    "ShowToSender",
    "ShowToStaff",
    "TickOut",
]

T = TypeVar("T")

_GIFT = MessageType.GIFT


class Reply(NamedTuple, Generic[T]):
    """Answer one POST at once. ``detail`` as in `AckResult`; ``first``: its key was used there before."""

    ticket: T
    outcome: Outcome
    detail: int = 0
    first: FirstUse | None = None


class Hold(NamedTuple, Generic[T]):
    """Put a post into the review queue of the room; its ticket is answered with HELD when that is durable, and a second
    time when the message is decided.

    ``lane``: of its type; ``reason``: of the platform, for the author and reviewers; ``findings``: of a filter.
    """

    ticket: T
    author: Author
    post: Post
    lane: Lane
    held_by: HeldBy
    reason: str = ""
    findings: tuple[ReviewFinding, ...] = ()


class Outcomes(NamedTuple, Generic[T]):
    """Answer the POSTs of a tick, which has this number."""

    outcomes: list[tuple[T, Outcome]]
    number: int = 0


class Publish(NamedTuple):
    """Send one event of lanes 0-2 to every member now; ``offset`` is its place in the room's stream.

    ``audience``: the part of the room that it is for, None = all; the others get NOT_ADDRESSED. ``packed``: the packed
    event, where it is known already.
    """

    event: Event
    lane: Lane
    offset: int
    audience: Audience | None = None
    packed: bytes = b""


class TickOut(NamedTuple):
    """Send a tick: ``ticks[i]`` is for the i-th of the tiers, widest first; equal ones are one object. ``state`` may
    ride along, and so may ``counters``.

    ``ticks`` is empty where only state or counters are due. ``waited_s``: how long the oldest danmaku shown has waited,
    without the delay of the room; ``is_delayed``: staff have seen it.
    """

    number: int
    ticks: tuple[Tick, ...]
    state: State | None
    state_number: int
    counters: tuple[PushCounter, ...] = ()
    waited_s: float = 0.0
    is_delayed: bool = False


class ShowToSender(NamedTuple, Generic[T]):
    """Show a danmaku to the links of its sender alone, and answer its POST with ``outcome``, as if all had seen it;
    None: it is answered already.

    ``tick``: holds the danmaku; ``number``: that of the room's last tick. It is in no history, account or ranking.
    """

    ticket: T
    tick: Tick
    number: int
    outcome: Outcome | None = Outcome.ACCEPTED


class RefusePost(NamedTuple, Generic[T]):
    """Refuse one POST. ``wait_ms``: until it would be taken, 0 = not known; ``reason``: in words for its sender."""

    ticket: T
    code: ErrorCode
    wait_ms: int = 0
    reason: str = ""


class Flagged(NamedTuple):
    """Report a message in which words or detectors have found something. ``payload``: as it was posted, or as it is
    shown (Any: that of its type)."""

    user_id: str
    name: str
    type: int
    payload: Any
    verdict: ScreenResult


class ShowToStaff(NamedTuple):
    """Show a tick to the staff of the room, before its viewers."""

    tick: Tick
    number: int


class End(NamedTuple):
    """End the room: remove all members and stop its task."""

    reason: LeaveReason


class PendingReply(NamedTuple, Generic[T]):
    """Whom a recorded event answers, and how once it is durable. ``key`` makes a repetition harmless.

    ``gift``: what was ordered, of a gift or highlight. A combo answers several orders.
    """

    ticket: T
    outcome: Outcome
    key: OperationKey | None = None
    gift: GiftOrder | None = None


class Record(NamedTuple, Generic[T]):
    """Make an event durable; only then answer its requests, publish it and perform ``then``.

    ``combo``: that of a gift event after it, None once it has ended; ``left``: orders of highlights that are held no
    more, in the event of one; ``audience``: as in `Publish`; ``packed``: the packed event, empty where it has one.

    The task calls `RoomState.committed`, `repeated` or `refused` with the ledger's result, in the order of the records.
    ``batches``: of activities, in the same transaction.
    """

    event: Event
    lane: Lane
    asked: tuple[PendingReply[T], ...]
    then: tuple[Effect[T], ...]
    batches: tuple[ActivityBatch, ...] = ()
    combo: GiftCombo | None = None
    left: tuple[str, ...] = ()
    audience: Audience | None = None
    packed: bytes = b""

    @property
    def weight(self) -> int:
        """Messages inside: the orders of a gift event, none in an end that adds nothing; else one."""
        return len(self.asked) if self.event.type == _GIFT else max(1, len(self.asked))


Effect = (
    Reply[T]
    | RefusePost[T]
    | ShowToSender[T]
    | ShowToStaff
    | Hold[T]
    | Outcomes[T]
    | Publish
    | Record[T]
    | TickOut
    | End
    | Flagged
    | AnswerCommand
    | RecordBatch
    | PushCounter
    | StartActions
    | ShowPost
    | AnswerHeld
)
