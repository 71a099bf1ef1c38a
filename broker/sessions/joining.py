"""JOIN and RESUME of a room: admission, waiting for the ledger, membership, missed events.

A request waits for the platform where it is asked who may enter, and for the ledger in two cases: the room's epoch is
not durable yet (a position in an epoch that a crash would forget is worth nothing), or a RESUME needs events that the
room's in-memory history has no longer. A connection that waits is not yet a member: what is published meanwhile would
arrive before what was missed. Once the ledger has answered, membership begins in the same synchronous step in which
the newest events are taken from the room, so nothing comes twice and nothing is skipped.

Nothing here waits by itself: every wait is a callback, and the connection may have ended when it comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from broker.auth.grants import Grant, RoomGrant
from broker.core.limits.overload import STAGE_RULES
from broker.core.rooms.deletions import without_deleted
from broker.core.rooms.stream import StoredEvent, kept_bytes
from broker.core.tenants.names import plain_name
from broker.core.webhooks.questions import Answer, Start
from broker.rooms.room import Room
from broker.sessions.context import SessionContext
from broker.sessions.room_member import RoomMember
from protocol.activities.moderation import SanctionKind
from protocol.codes import ErrorCode, Lane, MessageType, Role, Tier
from protocol.frames import HEADER_BYTES, pack_body
from protocol.messages import Join, Message, Resume, Resumed
from protocol.resume import StreamPosition, gap_from

__all__ = ["Joiner", "PendingJoin"]

RETRY_MS = 1000
"""When to send the request again if the ledger could not be asked, or did not answer."""
ROOM_FULL_RETRY_MS = 5000
MAX_BAN_WAIT_MS = 86_400_000
MAX_EVENT_BYTES = 5 * 1024
"""Above what one event can take, but for changes of keys; fewer events than this allows are not measured."""
_KEYS = MessageType.KEYS_CHANGED


class Joiner(Protocol):
    """What joining needs of a session."""

    memberships: tuple[RoomMember, ...]
    pending_joins: tuple[str, ...]
    """Names of the rooms whose JOIN or RESUME waits for the ledger."""
    free_returns: int
    """JOINs and RESUMEs of this link that cost nothing if they return to a room."""

    @property
    def grant(self) -> Grant | None:
        """What the token grants; None before AUTH."""

    @property
    def address(self) -> str:
        """The client's address."""

    @property
    def is_open(self) -> bool:
        """Whether the connection still exists."""

    def send(self, message: Message, room: int = 0, sequence: int = 0, lane: Lane | None = None) -> None:
        """Frame and write a message."""

    def refuse(self, code: ErrorCode, message: str, sequence: int, field: str = "", wait_ms: int = 0) -> None:
        """Answer a failed request."""

    def replying(self) -> AbstractContextManager[None]:
        """Collect the replies inside the block into one write; an exception ends this session alone."""

    def new_member(self, room: Room, room_grant: RoomGrant, tier: Tier) -> RoomMember:
        """Return a member for this session in the form in which it receives."""


class PendingJoin:
    """One JOIN or RESUME on its way. `proceed` answers it, now or after the ledger has."""

    __slots__ = (
        "_context",
        "_events",
        "_has_waited",
        "_history_ended",
        "_is_allowed",
        "_is_signed",
        "_joiner",
        "_request",
        "_sequence",
    )

    def __init__(
        self, joiner: Joiner, context: SessionContext, request: Join | Resume, sequence: int, *, is_signed: bool = False
    ) -> None:
        """``is_signed``: the position of a RESUME is one that this broker gave."""
        self._joiner = joiner
        self._context = context
        self._request = request
        self._sequence = sequence
        self._is_signed = is_signed
        self._has_waited = False
        self._is_allowed = context.questions is None or context.questions.join is None
        """Whether the platform has allowed it, or is not asked."""
        self._events: tuple[StoredEvent, ...] = ()
        """Missed events that the ledger has given so far."""
        self._history_ended = False
        """The ledger has no more of them."""

    def proceed(self) -> None:
        """Answer the request, or wait for the ledger and be called again."""
        admitted = self._admit()
        if admitted is None:
            return
        room, room_grant = admitted
        if room.journal.when_durable(self._on_durable):
            self._wait()
            return
        request = self._request
        if isinstance(request, Join):
            member = self._enter(room, room_grant)
            self._joiner.send(room.views.snapshot(member), room.number, self._sequence)
            return
        events: Sequence[StoredEvent] | None = None
        # A guest's position cannot be trusted: any guest could read the room's past with an offset of 0. One that is
        # signed can, for as long as the room has the events in memory.
        is_guest = room_grant.role is Role.GUEST
        if not self._history_ended and (self._is_signed or not is_guest):
            newest = room.missing(request.epoch, request.offset + len(self._events), self._context.poller.now)
            if newest is not None:
                # What the ledger gave first may have been deleted since, by an event of what is newer.
                events = without_deleted((*self._events, *newest)) if self._events else newest
            elif not is_guest and self._read_history(room, request):
                return
        if events is not None and not _fits(events, self._context.resume_bytes):
            events = None  # they would fill the queue and end the link, and the next RESUME would be the same
        member = self._enter(room, room_grant)
        snapshot = room.views.snapshot(member)
        if events is not None:
            events = room.views.events_for(member, events)
            # The client has them, or they are among the events.
            left_out = len(snapshot.keys) + snapshot.keys_more
            snapshot = snapshot._replace(
                announcement=None, keys=(), keys_more=left_out, pinned=(), activities=(),
                own_activities=tuple(each for each in snapshot.own_activities if each.kind == "moderation"),
                activities_more=len(snapshot.activities) + snapshot.activities_more,
            )  # fmt: skip
        first = gap_from(StreamPosition(request.epoch, request.offset), snapshot.epoch)
        self._joiner.send(Resumed(events is not None, first, snapshot), room.number, self._sequence)
        for event in events or ():
            self._joiner.send(event.event, room.number, event.offset, event.lane)

    # ---- waiting for the ledger

    def _wait(self) -> None:
        self._has_waited = True
        self._joiner.pending_joins = (*self._joiner.pending_joins, self._request.room_name)

    def _stop_waiting(self) -> bool:
        """Return whether the connection still exists."""
        name = self._request.room_name
        self._joiner.pending_joins = tuple(other for other in self._joiner.pending_joins if other != name)
        return self._joiner.is_open

    def _on_durable(self) -> None:
        """The room's epoch is durable, or cannot be made so now: the room is open all the same."""
        if self._stop_waiting():
            self._context.poller.refresh_clock()
            with self._joiner.replying():
                self.proceed()

    def _read_history(self, room: Room, request: Resume) -> bool:
        """Ask the ledger for what the room has no longer; False where that cannot help, else it will be answered."""
        history, found = self._context.history, len(self._events)
        after, last = request.offset + found, room.state.first_offset - 1
        if history is None or request.epoch != room.state.epoch or after >= last or found >= history.max_events:
            return False
        if history.read(room.name, request.epoch, after, last, self._on_history):
            self._wait()
        else:
            self._refuse_for_now()
        return True

    def _on_history(self, events: Sequence[StoredEvent] | None) -> None:
        """The ledger has answered. The room has gone on meanwhile: `proceed` takes what is newer from it."""
        if not self._stop_waiting():
            return
        self._context.poller.refresh_clock()
        history = self._context.history
        with self._joiner.replying():
            if events is None and history is not None and history.may_recover:
                self._refuse_for_now()
                return
            self._events += tuple(events or ())
            self._history_ended = not events
            self.proceed()

    def _refuse_for_now(self) -> None:
        """The missing events exist and cannot be read now: answering with a gap would be wrong."""
        self._joiner.refuse(ErrorCode.OVERLOADED, "the ledger cannot be read now", self._sequence, wait_ms=RETRY_MS)

    # ---- admission

    def _admit(self) -> tuple[Room, RoomGrant] | None:
        """Return the room and what the token grants there; else answer why not, or have it asked elsewhere or later.

        In overload, a RESUME is admitted where a JOIN is refused. A request that has waited is not charged again.
        """
        context, joiner, grant = self._context, self._joiner, self._joiner.grant
        assert grant is not None, "the connection's state table accepts JOIN only after AUTH"
        hub, config, name = context.hub, context.config, self._request.room_name
        room_grant = grant.room_grant(name)
        busy_s = STAGE_RULES[hub.stage].join_retry_after_s
        taken = len(joiner.memberships) + len(joiner.pending_joins)
        refusal: tuple[ErrorCode, str, int] | None = None
        if room_grant is None:
            refusal = ErrorCode.ROOM_NOT_GRANTED, "the token does not grant this room", 0
        elif hub.sanctions.has_bans and (ban := self._ban(name, grant.user_id, room_grant.role)) is not None:
            refusal = ban
        elif taken >= config.rooms_per_connection:
            refusal = ErrorCode.TOO_MANY_ROOMS, f"at most {config.rooms_per_connection} rooms a link", 0
        elif busy_s and isinstance(self._request, Join) and room_grant.role < Role.MODERATOR:
            refusal = ErrorCode.OVERLOADED, "the broker takes no more viewers now", math.ceil(busy_s * 1000)
        elif taken and (any(each.room.name == name for each in joiner.memberships) or name in joiner.pending_joins):
            refusal = ErrorCode.ALREADY_JOINED, "this link is in that room", 0
        elif not self._has_waited:
            wait_s = self._charge(grant.user_id, room_grant.role)
            if wait_s:
                refusal = ErrorCode.RATE_LIMITED, "too many joins", math.ceil(wait_s * 1000)
        if refusal is None and not self._is_allowed:
            assert room_grant is not None
            start = self._ask(grant, room_grant.role)
            if start is Start.ASK:
                self._wait()
                return None
            refusal = self._refusal_of(start)
        if refusal is None:
            assert room_grant is not None
            opened = hub.open(name, joining=room_grant.role, address=joiner.address)
            if opened is ErrorCode.ROOM_ENDED:
                refusal = opened, "the room has ended", 0
            elif opened is ErrorCode.RATE_LIMITED:
                refusal = (
                    opened,
                    "too many new rooms of one address",
                    math.ceil(hub.new_room_wait_s(joiner.address) * 1000),
                )
            elif opened is ErrorCode.OVERLOADED:
                if context.nodes is not None and context.nodes.join_elsewhere(joiner, self._request, self._sequence):
                    return None
                refusal = opened, "the room cannot be opened now", RETRY_MS
            elif isinstance(opened, ErrorCode):
                refusal = opened, "the room cannot be opened", 0
            elif context.max_viewers and room_grant.role is not Role.APP and opened.state.online >= context.max_viewers:
                refusal = ErrorCode.ROOM_FULL, f"at most {context.max_viewers} viewers", ROOM_FULL_RETRY_MS
            else:
                return opened, room_grant
        code, message, wait_ms = refusal
        joiner.refuse(code, message, self._sequence, "room_name", wait_ms)
        return None

    def _ban(self, room: str, user: str, role: Role) -> tuple[ErrorCode, str, int] | None:
        """Return the refusal of a user who is banned from a room, or from all."""
        hub = self._context.hub
        now_ms = hub.trusted.continued_ms()
        ban = hub.sanctions.find(SanctionKind.BAN, room, user, role, now_ms)
        if ban is None:
            return None
        return ErrorCode.BANNED, f"banned: {ban.reason}"[:256], min(ban.left_ms(now_ms), MAX_BAN_WAIT_MS)

    def _ask(self, grant: Grant, role: Role) -> Start:
        """Ask the platform whether the user may enter."""
        questions = self._context.questions
        assert questions is not None
        room_name = plain_name(self._request.room_name)
        return questions.ask_join(grant.tenant, room_name, grant.plain_id, grant.name, role, self._on_answer)

    def _refusal_of(self, start: Start) -> tuple[ErrorCode, str, int] | None:
        """Return why a request is refused that was not asked about; None: it goes on."""
        if start is Start.BUSY:
            return ErrorCode.RATE_LIMITED, "too many joins wait for the platform", RETRY_MS
        if start is Start.EXEMPT or self._is_allowed_on_failure:
            self._is_allowed = True
            return None
        return ErrorCode.OVERLOADED, "the platform does not answer now", RETRY_MS

    @property
    def _is_allowed_on_failure(self) -> bool:
        questions = self._context.questions
        return questions is None or questions.join is None or questions.join.allows_on_failure

    def _on_answer(self, answer: Answer | None) -> None:
        """The platform has answered, or has not in time."""
        if not self._stop_waiting():
            return
        self._context.poller.refresh_clock()
        with self._joiner.replying():
            if answer is None and not self._is_allowed_on_failure:
                why = "the platform does not answer now"
                self._joiner.refuse(ErrorCode.OVERLOADED, why, self._sequence, "room_name", RETRY_MS)
            elif answer is not None and not answer.is_allowed:
                why = answer.reason or "the platform does not allow it"
                self._joiner.refuse(ErrorCode.NOT_ALLOWED, why, self._sequence, "room_name")
            else:
                self._is_allowed = True
                self.proceed()

    def _charge(self, user_id: str, role: Role) -> float:
        """Take one join of the user, or one of the link's free returns; returns the seconds to wait."""
        request, now, hub = self._request, self._context.poller.now, self._context.hub
        is_free = False
        if self._joiner.free_returns:
            is_free = (isinstance(request, Resume) and request.epoch == hub.epoch_of(request.room_name)) or (
                hub.join_limit.is_return(user_id, request.room_name, now)
            )
            self._joiner.free_returns -= is_free
        return hub.join_limit.wait_s(user_id, role, now, is_free=is_free)

    def _enter(self, room: Room, room_grant: RoomGrant) -> RoomMember:
        """Make the session a member: what is published from now on reaches it."""
        member = self._joiner.new_member(room, room_grant, self._request.tier)
        self._joiner.memberships = (*self._joiner.memberships, member)
        request = self._request
        resumes = isinstance(request, Resume) and request.epoch == room.state.epoch
        room.enter(member, self._context.poller.now, resumes)
        return member


def _fits(events: Sequence[StoredEvent], max_bytes: int) -> bool:
    """Return whether the packed events are at most ``max_bytes``. O(events), and only for many."""
    most = sum(kept_bytes(each.event) if each.event.type == _KEYS else MAX_EVENT_BYTES for each in events)
    if most <= max_bytes:
        return True
    return sum(len(pack_body(each.event)) + HEADER_BYTES for each in events) <= max_bytes
