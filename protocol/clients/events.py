"""Events and results that a client delivers to its application.

They are NamedTuples made from checked messages of the wire. A room yields `RoomEvent`, `Client.events` yields
`ClientEvent`. Texts and payloads are written by other users: show them as text, never as markup.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..codes import ErrorCode, Lane, LeaveReason, Outcome, Role
from ..messages import Account, Direct, FirstResult, Joined, RoomPulse, State
from ..payloads import DanmakuPayload, EmotePayload
from ..resume import StreamPosition as Position

__all__ = [
    "ActivityCounters",
    "BatchState",
    "CallLost",
    "CallRefused",
    "CertificateRefused",
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
    "RecentJoin",
    "Refusal",
    "Rejoined",
    "RoomEvent",
    "RoomLeft",
    "RoomRefused",
    "State",
    "StreamEvent",
    "TickAccount",
    "TokenRefused",
    "TopLiker",
]


class PostResult(NamedTuple):
    """Result of one POST.

    ``outcome`` None: unknown, because the link ended or the timeout passed before the broker's answer. Then ``sent``
    False means that the post did not arrive; True means that it may have, and a second attempt is safe only with the
    same ``client_msg_id``. A known outcome is final except LIMITED and UNAVAILABLE (post again after
    ``retry_after_ms``) and HELD (a moderator decides: `PostDecided` follows).
    """

    outcome: Outcome | None
    client_msg_id: str
    offset: int = 0
    """Offset of an accepted event of lanes 0-2 in the room's stream."""
    counted: int = 0
    """Likes that an accepted LIKE added."""
    retry_after_ms: int = 0
    error_code: int = 0
    """`ErrorCode` of a REJECTED post; may be newer than this client."""
    field: str = ""
    """Field whose rule was broken, where the broker named one."""
    message: str = ""
    """What is wrong, or why the platform has refused it, for the user."""
    sent: bool = True
    first: FirstResult | None = None
    """Where the key was used before; None: this was its first use."""

    @property
    def is_lost(self) -> bool:
        return self.outcome is None

    @property
    def error(self) -> str:
        """Name of ``error_code``, or its number."""
        return ErrorCode(self.error_code).name if self.error_code in _ERROR_CODES else str(self.error_code)


_ERROR_CODES = frozenset(int(code) for code in ErrorCode)


class BatchState(NamedTuple):
    """Result of a batch of must-deliver messages: of these users, those who got it now, and those who had it before;
    and the messages of the whole batch by their state.
    """

    batch: str
    sent: int = 0
    repeated: int = 0
    pending: int = 0
    acked: int = 0
    expired: int = 0
    cancelled: int = 0


# ---- from a room ----------------------------------------------------------------------------------


class Danmaku(NamedTuple):
    """One shown danmaku, emote or custom message of lane 3; ``count`` equal ones were merged into it."""

    type: int
    user_id: str
    name: str
    payload: Any
    """`DanmakuPayload` or `EmotePayload`; custom types: any value."""
    count: int  # type: ignore[assignment]  # hides tuple.count
    senders: tuple[str, ...]
    """Up to three further user ids."""
    at_ms: int
    tick: int
    role: Role = Role.VIEWER
    """Of the first sender, in this room."""

    @property
    def text(self) -> str:
        """The text of a danmaku, the id of an emote, "" for a type this client does not know."""
        if isinstance(self.payload, DanmakuPayload):
            return self.payload.text
        return self.payload.emote_id if isinstance(self.payload, EmotePayload) else ""


class StreamEvent(NamedTuple):
    """One event of lanes 0-2; each comes once and in order of ``offset``."""

    offset: int
    lane: Lane
    type: int
    at_ms: int
    user_id: str
    name: str
    payload: Any
    """Record of the type in `protocol.payloads`, as `AnnouncementPayload` or `DeletedPayload`; an `ActivityEvent` for
    the type ACTIVITY; custom types: any value."""


class ActivityCounters(NamedTuple):
    """Counters of an activity; a newer one of the same name and id replaces an older one.

    ``data``: the record of the event in `protocol.activities`.
    """

    at_ms: int
    name: str
    id: str
    data: Any


class TopLiker(NamedTuple):
    """Entry of ``State.top_likers``."""

    user_id: str
    likes: int


class RecentJoin(NamedTuple):
    """Entry of ``State.joins``."""

    user_id: str
    name: str


class TickAccount(NamedTuple):
    """Account of a tick that had messages: how many were shown, merged, sampled out, expired and held in this tier."""

    tick: int
    at_ms: int
    interval_ms: int
    stage: int
    account: Account


class Rejoined(NamedTuple):
    """The room was joined again after a lost link; ``recovered``: no event of lanes 0-2 was missed."""

    snapshot: Joined
    recovered: bool


class Gap(NamedTuple):
    """Events ``first``..``last`` of lanes 0-2 are lost to this client: fetch what they changed from the platform.

    ``epoch_changed``: the room has started a new stream, earlier offsets are invalid, and how many events of the old
    stream were lost is unknown; the range is that of the new one, empty if ``first`` is above ``last``.
    """

    first: int
    last: int
    epoch_changed: bool = False


class MessagesMissed(NamedTuple):
    """Danmaku and counters that this client did not get because it was too slow.

    ``is_local``: this process did not read this room (or `Client.events`) in time. Otherwise the broker dropped them
    for a slow link, over all its rooms; this is one of the client's events.
    """

    chat: int
    ambient: int
    is_local: bool


class RoomLeft(NamedTuple):
    """The broker removed the client from the room. ``is_final``: no further events; else the client joins again."""

    reason: LeaveReason
    message: str
    is_final: bool


RoomEvent = Danmaku | StreamEvent | ActivityCounters | State | TickAccount | Rejoined | Gap | MessagesMissed | RoomLeft


# ---- from the client ------------------------------------------------------------------------------


class Connected(NamedTuple):
    """A link is open and authenticated. ``expires_at_ms``: end of the token, 0 = never."""

    user_id: str
    name: str
    expires_at_ms: int
    server: str
    attempts: int
    """Failed attempts since the last link that lasted `reconnect.STABLE_S`."""


class Disconnected(NamedTuple):
    """A link has ended or could not be opened. ``retry_in_s`` None: the client is closed."""

    code: int | None
    """The close code the broker sent."""
    reason: str
    retry_in_s: float | None
    certificate: str = ""
    """Why the broker's certificate was not accepted; "" for every other reason."""


class Pulse(NamedTuple):
    """A heartbeat was answered: round trip, broker's clock minus the local one (estimate), counters of the rooms."""

    server_ms: int
    rtt_ms: float
    clock_offset_ms: float
    rooms: tuple[RoomPulse, ...]
    missed_chat: int
    """Danmaku that the broker did not send to this slow link since it was opened."""


class Fault(NamedTuple):
    """ERROR of the broker that answers no open request, or why a dictionary cannot be used (field ``dictionaries``,
    code 0 where it is not the one that was named)."""

    code: int
    message: str
    field: str
    retry_after_ms: int


class PostDecided(NamedTuple):
    """A message that was HELD is decided: shown (ACCEPTED), or REJECTED with the reviewer's reason as its ``message``.

    It comes while the link lasts that has posted it. ``client_msg_id`` of the result says which message it is.
    """

    result: PostResult


ClientEvent = Direct | Connected | Disconnected | Pulse | Fault | MessagesMissed | PostDecided


# ---- refusals --------------------------------------------------------------------------------------


class ClientClosed(Exception):
    """The client has ended. ``code``: the terminal close code, None where none was the reason."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(reason if code is None else f"{code}: {reason}")
        self.code = code
        self.reason = reason


class CertificateRefused(Exception):
    """The first connection found a certificate of the broker that this machine does not accept.

    ``open_client`` raises it at once, because such a certificate is a matter of configuration; a client that had a
    link before tries again.
    """


class Refusal(Exception):
    """The broker refused a request; ``code`` is an `ErrorCode` (3xx: refused for now)."""

    def __init__(self, code: int, message: str, field: str = "", retry_after_ms: int = 0) -> None:
        super().__init__(f"{code}: {field + ': ' if field else ''}{message}")
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_ms = retry_after_ms


class RoomRefused(Refusal):
    """The broker refused to let the client join a room."""


class TokenRefused(Refusal):
    """The broker refused a new token for an open link, which keeps the one it has."""


class CallRefused(Refusal):
    """The broker refused a call of an operation; ``rule`` says which rule ``field`` breaks."""

    @property
    def rule(self) -> str:
        """The rule in words."""
        return self.message


class CallLost(Exception):
    """The link ended before the answer to a call without a key: whether it had an effect is unknown."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"{operation}: the link ended before the answer; give a key to repeat a call safely")
        self.operation = operation
