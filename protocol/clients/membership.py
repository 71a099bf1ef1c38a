"""Membership of one room: its state (a table), its position in the stream, its inbox and its running totals.

An event of lanes 0-2 at or before the position is a duplicate and is dropped; an event beyond the next offset proves
that events are missing, and the application gets a `Gap`. One membership lasts over any number of links; it never uses
the network: its `MembershipOwner` (the client) does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Protocol

import trio

from ..activities import activity_event, activity_view, received_payload
from ..codes import Lane, LeaveReason, MessageType, RoomPhase, Tier
from ..errors import LocalProtocolError
from ..messages import Account, Event, Joined, Left, PinnedMessage, Resumed, RoomPulse, State, Tick
from ..payloads import KeysPayload, LikePayload, PhasePayload, PinsPayload, payload_record
from ..resume import Arrival, arrival, full_offset, missing
from .events import (
    ActivityCounters,
    Danmaku,
    Gap,
    Position,
    PostResult,
    RecentJoin,
    Rejoined,
    RoomEvent,
    RoomLeft,
    StreamEvent,
    TickAccount,
    TopLiker,
)
from .inbox import Inbox
from .keys import RoomMap
from .likes import LikeSender

__all__ = ["MEMBERSHIPS", "Membership", "MembershipOwner", "RoomMembership", "RoomSignal"]

LIKE_TIMEOUT_S = 30.0
"""Timeout of one LIKE post."""


class Membership(Enum):
    """State of a client's membership of a room."""

    WANTED = "wanted"
    """To be requested on this or the next link."""
    REQUESTED = "requested"
    """JOIN or RESUME is open."""
    JOINED = "joined"
    CANCELLED = "cancelled"
    """Requested, and given up before the answer: LEAVE follows when the number is known."""
    LEAVING = "leaving"
    ENDED = "ended"


class RoomSignal(Enum):
    """Event of a membership."""

    REQUEST = "request"
    ADMITTED = "admitted"
    REFUSED = "refused"
    DEFERRED = "deferred"
    """Refused for now, or removed because the room crashed: to be requested again later."""
    LEAVE = "leave"
    """The application leaves."""
    LEFT = "left"
    LINK_LOST = "link lost"
    CLOSE = "close"
    """The client has ended, or LEAVE got no answer in time."""


_WANTED, _REQUESTED, _JOINED, _CANCELLED, _LEAVING, _ENDED = Membership
MEMBERSHIPS: dict[tuple[Membership, RoomSignal], Membership] = {
    (_WANTED, RoomSignal.REQUEST): _REQUESTED,
    (_WANTED, RoomSignal.LEAVE): _ENDED,
    (_WANTED, RoomSignal.LINK_LOST): _WANTED,
    (_REQUESTED, RoomSignal.ADMITTED): _JOINED,
    (_REQUESTED, RoomSignal.REFUSED): _ENDED,
    (_REQUESTED, RoomSignal.DEFERRED): _WANTED,
    (_REQUESTED, RoomSignal.LEAVE): _CANCELLED,
    (_REQUESTED, RoomSignal.LINK_LOST): _WANTED,
    (_JOINED, RoomSignal.LEFT): _ENDED,
    (_JOINED, RoomSignal.DEFERRED): _WANTED,
    (_JOINED, RoomSignal.LEAVE): _LEAVING,
    (_JOINED, RoomSignal.LINK_LOST): _WANTED,
    (_CANCELLED, RoomSignal.ADMITTED): _LEAVING,
    (_CANCELLED, RoomSignal.REFUSED): _ENDED,
    (_CANCELLED, RoomSignal.DEFERRED): _ENDED,
    (_CANCELLED, RoomSignal.LINK_LOST): _ENDED,
    (_LEAVING, RoomSignal.LEFT): _ENDED,
    (_LEAVING, RoomSignal.DEFERRED): _ENDED,
    (_LEAVING, RoomSignal.REFUSED): _ENDED,
    (_LEAVING, RoomSignal.LINK_LOST): _ENDED,
    **{(membership, RoomSignal.CLOSE): _ENDED for membership in Membership},
}
"""``MEMBERSHIPS[membership, signal]``; a missing key is refused."""


class MembershipOwner(Protocol):
    """Interface of the client to its memberships."""

    async def post(
        self, room: RoomMembership, type: int, payload: Any, client_msg_id: str | None, retry: bool, timeout_s: float
    ) -> PostResult: ...

    def leave(self, room: RoomMembership) -> None: ...

    def forget(self, room: RoomMembership) -> None: ...

    def spawn(self, task: Callable[..., Awaitable[None]], *args: object) -> None: ...


class RoomMembership:
    """Membership of the room ``name``. `room.JoinedRoom` documents the fields."""

    def __init__(
        self, owner: MembershipOwner, name: str, tier: Tier, position: Position | None, inbox: Inbox[RoomEvent]
    ) -> None:
        self.owner = owner
        self.name = name
        self.tier = tier
        self.position = position
        self.inbox = inbox
        self.likes = LikeSender(self)
        self.handle: Any = None
        """`room.JoinedRoom` of the application. Any: its module imports this one."""
        self.room_name = None
        """A POST says the room by its number."""
        self.state = _WANTED
        self.number = 0
        self.snapshot: Joined | None = None
        self.recovered: bool | None = None
        self.account = Account()
        self.online = 0
        self.users = 0
        self.interval_ms = 0
        self.phase = RoomPhase.LIVE
        self.keys = RoomMap()
        self.pinned: tuple[PinnedMessage, ...] = ()
        self.duplicates = 0
        self.gaps = 0
        self.refusals = 0
        """Refusals for now, in a row."""
        self.changed = trio.lowlevel.ParkingLot()
        """Woken by every change of the state."""
        self.end_error: Exception | None = None
        """Exception at the end of the iteration; None: the application has left."""

    @property
    def is_joined(self) -> bool:
        return self.state is _JOINED

    @property
    def is_active(self) -> bool:
        """Whether the room is joined, or will be once there is a link."""
        return self.state in (_WANTED, _REQUESTED, _JOINED)

    async def post_likes(self, count: int) -> PostResult:
        """Post a sum of likes once; see `likes.LikeSender`."""
        return await self.owner.post(self, MessageType.LIKE, LikePayload(count), None, False, LIKE_TIMEOUT_S)

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start a task that ends with the client at the latest."""
        self.owner.spawn(task)

    def signal(self, signal: RoomSignal, error: Exception | None = None) -> Membership:
        """Change the state. Raises LocalProtocolError where the table has no key.

        A room that has ended accepts no more events; ``error`` is raised at the end of its iteration.
        """
        after = MEMBERSHIPS.get((self.state, signal))
        if after is None:
            raise LocalProtocolError(f"{signal.name} may not come when {self.state.value}")
        if after is not self.state:
            self.state = after
            if after is _ENDED:
                self.end_error = error
                self.inbox.close()
            if after not in (_JOINED, _LEAVING):
                self.number = 0
            self.changed.unpark_all()
        return after

    def stop_reading(self) -> None:
        """Accept no more events, so that a full inbox does not delay the remaining answers."""
        self.inbox.close()

    async def wait_ended(self) -> None:
        """Wait until the room has ended."""
        await trio.lowlevel.checkpoint()
        while self.state is not _ENDED:
            await self.changed.park()

    async def wait_joined(self) -> None:
        """Wait until the room has been joined once, or has ended.

        It may be lost again by then: the snapshot of the JOIN is whole, that of the RESUME which follows is not.
        """
        await trio.lowlevel.checkpoint()
        while self.snapshot is None and self.state is not _ENDED:
            await self.changed.park()

    async def wait_space(self) -> None:
        """Wait until the inbox has space for an event that may not be dropped."""
        await self.inbox.wait_space()

    def on_joined(self, number: int, answer: Joined | Resumed) -> None:
        """Process the answer to JOIN or RESUME: the snapshot, and perhaps a gap."""
        snapshot = _with_records(answer.snapshot if isinstance(answer, Resumed) else answer)
        before, is_first = self.position, self.snapshot is None
        now = Position(snapshot.epoch, snapshot.offset)
        claimed = isinstance(answer, Resumed) and answer.recovered
        lost = None if before is None else missing(before, now, claimed)
        recovered = claimed and lost is None
        self.number = number
        self.snapshot = snapshot
        self.online, self.users = snapshot.online, snapshot.users
        self.interval_ms, self.phase = snapshot.interval_ms, snapshot.phase
        self.refusals = 0
        if before is not None:
            self.recovered = recovered
        if not recovered:
            self.position = now
        if not recovered or is_first:
            self.keys.restart(snapshot.keys, snapshot.keys_more)
            self.pinned = snapshot.pinned
        if not is_first:
            self.inbox.put(Rejoined(snapshot, recovered))
        if lost is not None:
            self._put_gap(lost.first, lost.last, lost.epoch_changed)

    def on_event(self, lane: Lane, sequence: int, event: Event) -> None:
        """Process an event of lanes 0-2: once, and in order. ``sequence``: the low 32 bits of its offset. One of lane 4
        has counters and no offset."""
        if self.position is None:
            return
        if lane is Lane.AMBIENT:
            counters = activity_event(event.payload)
            if counters is not None:
                self.inbox.put_lossy(ActivityCounters(event.at_ms, *counters), ambient=1)
            return
        last = self.position.offset
        offset = full_offset(last, sequence)
        relation = arrival(last, offset)
        if relation is Arrival.DUPLICATE:
            self.duplicates += 1
            return
        if relation is Arrival.AFTER_GAP:
            self._put_gap(last + 1, offset - 1, epoch_changed=False)
        self.position = Position(self.position.epoch, offset)
        if event.type == MessageType.NOT_ADDRESSED:
            return
        payload = received_payload(event.type, event.payload)
        if event.type == MessageType.ROOM_PHASE and isinstance(payload, PhasePayload):
            self.phase = payload.phase
        elif isinstance(payload, KeysPayload):
            self.keys.apply(payload.changes)
        elif isinstance(payload, PinsPayload):
            self.pinned = payload.pinned
        self.inbox.put(StreamEvent(offset, lane, event.type, event.at_ms, event.user_id, event.name, payload))

    def _put_gap(self, first: int, last: int, epoch_changed: bool) -> None:
        self.gaps += 1
        self.inbox.put(Gap(first, last, epoch_changed))

    def on_tick(self, number: int, tick: Tick) -> None:
        """Process one frame of a tick."""
        for type, user_id, name, payload, count, senders, role in tick.entries:
            record = payload_record(type, payload)
            danmaku = Danmaku(type, user_id, name, record, count, senders, tick.at_ms, number, role)
            self.inbox.put_lossy(danmaku, chat=count)
        self.interval_ms = tick.interval_ms
        if any(tick.account):
            self.account = Account(*map(sum, zip(self.account, tick.account, strict=True)))
            self.inbox.put_lossy(TickAccount(number, tick.at_ms, tick.interval_ms, tick.stage, tick.account))

    def on_state(self, state: State) -> None:
        """Process the newest counters."""
        self.online, self.users = state.online, state.users
        self.interval_ms, self.phase = state.interval_ms, state.phase
        top_likers, joins = tuple(map(TopLiker._make, state.top_likers)), tuple(map(RecentJoin._make, state.joins))
        self.inbox.put_lossy(state._replace(top_likers=top_likers, joins=joins), ambient=1)

    def on_pulse(self, pulse: RoomPulse) -> None:
        """Process the room's counters of a PONG."""
        self.online, self.interval_ms = pulse.online, pulse.interval_ms

    def on_left(self, left: Left) -> None:
        """Process the broker's LEAVE. The client requests a crashed room again."""
        rejoins = left.reason is LeaveReason.ROOM_CRASHED and self.state is _JOINED
        if self.state is _JOINED:
            self.inbox.put(RoomLeft(left.reason, left.message, is_final=not rejoins))
        self.signal(RoomSignal.DEFERRED if rejoins else RoomSignal.LEFT)


def _with_records(snapshot: Joined) -> Joined:
    """Return ``snapshot`` with the payloads of its recent danmaku and pinned messages as records."""
    recent = tuple(entry._replace(payload=payload_record(entry.type, entry.payload)) for entry in snapshot.recent)
    activities = tuple(activity_view(each, is_own=False) for each in snapshot.activities)
    own = tuple(activity_view(each, is_own=True) for each in snapshot.own_activities)
    pinned = tuple(pin._replace(payload=payload_record(pin.type, pin.payload)) for pin in snapshot.pinned)
    return snapshot._replace(recent=recent, pinned=pinned, activities=activities, own_activities=own)
