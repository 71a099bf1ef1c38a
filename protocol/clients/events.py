"""Events and results: what an application gets out of a client.

Plain NamedTuples, made from checked messages of the wire. A room yields `RoomEvent`, `Client.events` yields
`ClientEvent`. Text and payloads come from other people: show them as text, never as markup.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..codes import ErrorCode, Lane, LeaveReason, MessageType, Outcome
from ..messages import Account, Direct, Joined, RoomPulse, State
from ..resume import StreamPosition as Position

__all__ = [
    "BatchRefused",
    "ClientClosed",
    "ClientEvent",
    "Connected",
    "Danmaku",
    "Direct",
    "Disconnected",
    "Fault",
    "Gap",
    "MessagesMissed",
    "Position",
    "PostResult",
    "Pulse",
    "Refusal",
    "Rejoined",
    "RoomEvent",
    "RoomLeft",
    "RoomRefused",
    "State",
    "StreamEvent",
    "TickAccount",
]


class PostResult(NamedTuple):
    """What became of one POST.

    ``outcome`` None: nobody knows. The link ended, or the deadline passed, before the broker told the fate. Then
    ``sent`` False means it certainly did not arrive; True means it may have, and only the same ``client_msg_id``
    makes a second try safe. A known outcome is final except LIMITED (come again after ``retry_after_ms``) and
    HELD (a human decides).
    """

    outcome: Outcome | None
    client_msg_id: str
    offset: int = 0
    """Place in the room's stream of an accepted event of lanes 0-2."""
    counted: int = 0
    """Likes that an accepted LIKE added."""
    retry_after_ms: int = 0
    error_code: int = 0
    """`ErrorCode` of a REJECTED post; may be newer than this client."""
    field: str = ""
    """Field whose rule was broken, where the broker named one."""
    message: str = ""
    sent: bool = True

    @property
    def is_lost(self) -> bool:
        return self.outcome is None

    @property
    def error(self) -> str:
        """Name of ``error_code``, or its number."""
        return ErrorCode(self.error_code).name if self.error_code in _ERROR_CODES else str(self.error_code)


_ERROR_CODES = frozenset(int(code) for code in ErrorCode)


# ---- from a room ----------------------------------------------------------------------------------


class Danmaku(NamedTuple):
    """One shown danmaku, emote or custom message of lane 3; ``count`` equal ones were merged into it."""

    type: int
    user_id: str
    name: str
    payload: Any
    """Danmaku: (text, style or nil); emote: (emote_id,); custom types: any value."""
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    senders: tuple[str, ...]
    """Up to three further user ids."""
    at_ms: int
    tick: int

    @property
    def text(self) -> str:
        """The text of a danmaku, the id of an emote, "" for a type this client does not know."""
        if self.type in (MessageType.DANMAKU, MessageType.EMOTE) and type(self.payload) is tuple and self.payload:
            first = self.payload[0]
            return first if isinstance(first, str) else ""
        return ""


class StreamEvent(NamedTuple):
    """One event of lanes 0-2; each comes once and in order of ``offset``."""

    offset: int
    lane: Lane
    type: int
    at_ms: int
    user_id: str
    name: str
    payload: Any


class TickAccount(NamedTuple):
    """End of a tick in which somebody said something: what became of it in this tier."""

    tick: int
    at_ms: int
    interval_ms: int
    stage: int
    account: Account


class Rejoined(NamedTuple):
    """The room is entered again after a lost link; ``recovered``: no event of lanes 0-2 was missed."""

    snapshot: Joined
    recovered: bool


class Gap(NamedTuple):
    """Events ``first``..``last`` of lanes 0-2 were missed for good: fetch what they changed elsewhere.

    ``epoch_changed``: the room's stream began anew, offsets before this event mean nothing any more, and what was
    missed of the old stream is unknown; the range is that of the new one, empty if ``first`` is above ``last``.
    """

    first: int
    last: int
    epoch_changed: bool = False


class MessagesMissed(NamedTuple):
    """Danmaku and counters that others saw and we did not, because this end was too slow.

    ``is_local``: this process did not read this room (or `Client.events`) in time. Else the broker dropped them for
    a slow link, over all its rooms; that comes among the client's events.
    """

    chat: int
    ambient: int
    is_local: bool


class RoomLeft(NamedTuple):
    """The broker took us out of the room. ``is_final``: no further events; else the client asks to come back."""

    reason: LeaveReason
    message: str
    is_final: bool


RoomEvent = Danmaku | StreamEvent | State | TickAccount | Rejoined | Gap | MessagesMissed | RoomLeft


# ---- from the client ------------------------------------------------------------------------------


class Connected(NamedTuple):
    """A link stands. ``expires_at_ms``: end of the token, 0 = never."""

    user_id: str
    name: str
    expires_at_ms: int
    server: str
    attempts: int
    """Failed attempts since the last link that stood for a while."""


class Disconnected(NamedTuple):
    """A link has ended or could not be made. ``retry_in_s`` None: the client is closed."""

    code: int | None
    """The close code the broker sent."""
    reason: str
    retry_in_s: float | None


class Pulse(NamedTuple):
    """A heartbeat was answered: round trip, estimated clock of the broker minus ours, and numbers of the rooms."""

    server_ms: int
    rtt_ms: float
    clock_offset_ms: float
    rooms: tuple[RoomPulse, ...]
    missed_chat: int
    """Danmaku that others were shown and this slow link was not, since it opened."""


class Fault(NamedTuple):
    """The broker refused something that nobody waits for any more."""

    code: int
    message: str
    field: str
    retry_after_ms: int


ClientEvent = Direct | Connected | Disconnected | Pulse | Fault | MessagesMissed


# ---- refusals --------------------------------------------------------------------------------------


class ClientClosed(Exception):
    """The client has ended. ``code``: the terminal close code, None where none was the reason."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(reason if code is None else f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Refusal(Exception):
    """The broker says no to a request; ``code`` is an `ErrorCode` (3xx: later perhaps)."""

    def __init__(self, code: int, message: str, field: str = "", retry_after_ms: int = 0) -> None:
        super().__init__(f"{code}: {field + ': ' if field else ''}{message}")
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_ms = retry_after_ms


class RoomRefused(Refusal):
    """The broker does not let us into a room."""


class BatchRefused(Refusal):
    """The broker does not send a batch, or a part of it: what was sent before stays sent."""
