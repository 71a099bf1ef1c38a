"""Room: one room of a client, over any number of links.

It keeps the membership (a table, below), the position in the stream of lanes 0-2, the inbox and the running totals.
An event at or before the position is a duplicate and is dropped; an event beyond the next offset proves that events are
missing, and the application gets a `Gap`. Likes are summed here and sent as sums.

The room never uses the network: its `RoomOwner` (the client) does.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple, Protocol

import trio

from ..codes import Lane, LeaveReason, MessageType, Outcome, RoomPhase, Tier
from ..errors import LocalProtocolError
from ..messages import Account, Event, Joined, Left, Resumed, RoomPulse, State, Tick
from ..payloads import MAX_LIKES_PER_POST, AnnouncementPayload, DanmakuPayload, EmotePayload, LikePayload
from ..resume import Arrival, arrival, full_offset, missing
from .events import (
    ClientClosed,
    Danmaku,
    Gap,
    Position,
    PostResult,
    Rejoined,
    RoomEvent,
    RoomLeft,
    StreamEvent,
    TickAccount,
)
from .inbox import Inbox

__all__ = ["MEMBERSHIPS", "JoinedRoom", "Likes", "Membership", "RoomOwner", "RoomSignal"]

LIKE_INTERVAL_S = 1.0
"""At most one LIKE post in this time; taps in between are summed."""
FLUSH_TIMEOUT_S = 2.0
"""Timeout for sending the remaining likes before LEAVE."""
LEAVE_TIMEOUT_S = 5.0
"""Timeout of the answer to LEAVE; the room ends without it."""
POST_TIMEOUT_S = 30.0
"""Default timeout of a post: far longer than a tick."""


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


class Likes(NamedTuple):
    """Counts of the likes given to `JoinedRoom.like`: each like is in one of these five."""

    waiting: int = 0
    """Not sent yet, or sent and not answered."""
    counted: int = 0
    refused: int = 0
    """The broker did not count them (paused room, its own caps)."""
    unknown: int = 0
    """Sent and never answered. They are not sent again, because they may have been counted."""
    unsent: int = 0
    """The room was left before they could be sent."""


class RoomOwner(Protocol):
    """Interface of the client to its rooms."""

    async def post(
        self, room: JoinedRoom, type: int, payload: Any, client_msg_id: str | None, retry: bool, timeout_s: float
    ) -> PostResult: ...

    def leave(self, room: JoinedRoom) -> None: ...

    def forget(self, room: JoinedRoom) -> None: ...

    def start_likes(self, room: JoinedRoom) -> None: ...


class JoinedRoom:
    """A room of a client, returned by `Client.join`; iterate over it for its events.

    The iteration ends when the client leaves; it raises ClientClosed or RoomRefused where that is the reason.
    """

    def __init__(
        self, owner: RoomOwner, name: str, tier: Tier, position: Position | None, inbox: Inbox[RoomEvent]
    ) -> None:
        self.name = name
        self.tier = tier
        self.membership = _WANTED
        self.number = 0
        """Number of the room on this link, 0 while not joined."""
        self.position = position
        """Last event of lanes 0-2 that was put in the inbox."""
        self.snapshot: Joined | None = None
        """Answer to the last JOIN or RESUME."""
        self.recovered: bool | None = None
        """Whether the last RESUME recovered every event; None if there was none."""
        self.account = Account()
        """Sum of the accounts of the ticks that this client received."""
        self.likes = Likes()
        self.online = 0
        self.interval_ms = 0
        self.phase = RoomPhase.LIVE
        self.duplicates = 0
        """Events dropped because they were received before."""
        self.gaps = 0
        self.refusals = 0
        """Refusals for now, in a row."""
        self.changed = trio.lowlevel.ParkingLot()
        """Woken by every change of the membership."""
        self.end_error: Exception | None = None
        self._inbox = inbox
        self._owner = owner
        self._likes_running = False
        self._likes_flushing = trio.Event()
        self._likes_idle = trio.lowlevel.ParkingLot()

    # ---- public

    @property
    def is_joined(self) -> bool:
        return self.membership is _JOINED

    @property
    def is_active(self) -> bool:
        """Whether the room is joined, or will be once there is a link."""
        return self.membership in (_WANTED, _REQUESTED, _JOINED)

    @property
    def dropped(self) -> int:
        """Events dropped because the application read this room too slowly."""
        return self._inbox.dropped

    async def post_danmaku(
        self,
        text: str,
        style: tuple[int, int, int] | None = None,
        *,
        client_msg_id: str | None = None,
        retry: bool = False,
        timeout_s: float = POST_TIMEOUT_S,
    ) -> PostResult:
        """Post a danmaku of 1 to 100 characters; ``style``: (mode 0-2, color 0xRRGGBB, size 0-2). See `post`."""
        payload = DanmakuPayload(text, style)
        return await self.post(
            MessageType.DANMAKU, payload, client_msg_id=client_msg_id, retry=retry, timeout_s=timeout_s
        )

    async def post_emote(self, emote_id: str, *, timeout_s: float = POST_TIMEOUT_S) -> PostResult:
        """Post an emote by its id. See `post`."""
        return await self.post(MessageType.EMOTE, EmotePayload(emote_id), timeout_s=timeout_s)

    async def post_announcement(self, text: str, *, timeout_s: float = POST_TIMEOUT_S) -> PostResult:
        """Post an announcement (staff only). See `post`."""
        return await self.post(MessageType.ANNOUNCEMENT, AnnouncementPayload(text), timeout_s=timeout_s)

    async def post(
        self,
        type: int,
        payload: Any,
        *,
        client_msg_id: str | None = None,
        retry: bool = False,
        timeout_s: float = POST_TIMEOUT_S,
    ) -> PostResult:
        """Post one message and return its result.

        ``payload``: the record of `protocol.payloads` for ``type``, any msgpack value for types 128-255. Without
        ``retry`` the end of the link gives a result whose outcome is None; with it the same ``client_msg_id``
        (generated if not given) is posted again on the next link. There is a result within ``timeout_s``.

        Raises LocalProtocolError, with nothing sent, naming the field and the rule that the message breaks, and
        ClientClosed after the client's end. When cancelled, the message may or may not have been sent.
        """
        return await self._owner.post(self, type, payload, client_msg_id, retry, timeout_s)

    def like(self, count: int = 1) -> None:
        """Add ``count`` likes. Never waits: likes are summed and sent at most once a second; see ``likes``.

        Raises LocalProtocolError for a count outside 1-1000 or a room that was left.
        """
        if type(count) is not int or not 1 <= count <= MAX_LIKES_PER_POST:
            raise LocalProtocolError(f"count must be an integer from 1 to {MAX_LIKES_PER_POST}")
        if self._likes_flushing.is_set() or not self.is_active:
            raise LocalProtocolError(f"room {self.name} was left")
        self.likes = self.likes._replace(waiting=self.likes.waiting + count)
        if not self._likes_running:
            self._likes_running = True
            self._owner.start_likes(self)

    async def leave(self) -> None:
        """Send the remaining likes and LEAVE, and wait some seconds for the answer. Idempotent.

        When cancelled, it sends LEAVE without waiting.
        """
        self.stop_reading()
        try:
            await self.flush_likes()
        finally:
            self._owner.leave(self)
        with trio.move_on_after(LEAVE_TIMEOUT_S):
            await self.wait_ended()
        self._owner.forget(self)

    def __aiter__(self) -> JoinedRoom:
        return self

    async def __anext__(self) -> RoomEvent:
        event = await self._inbox.take()
        if event is not None:
            return event
        if self.end_error is not None:
            raise self.end_error.with_traceback(None)
        raise StopAsyncIteration

    # ---- for the client (internal)

    def signal(self, signal: RoomSignal, error: Exception | None = None) -> Membership:
        """Change the membership. Raises LocalProtocolError where the table has no key.

        A room that has ended accepts no more events; ``error`` is raised at the end of its iteration.
        """
        after = MEMBERSHIPS.get((self.membership, signal))
        if after is None:
            raise LocalProtocolError(f"{signal.name} may not come when {self.membership.value}")
        if after is not self.membership:
            self.membership = after
            if after is _ENDED:
                self.end_error = error
                self._inbox.close()
            if after not in (_JOINED, _LEAVING):
                self.number = 0
            self.changed.unpark_all()
        return after

    def stop_reading(self) -> None:
        """Accept no more events, so that a full inbox does not delay the remaining answers."""
        self._inbox.close()

    async def wait_ended(self) -> None:
        """Wait until the room has ended."""
        await trio.lowlevel.checkpoint()
        while self.membership is not _ENDED:
            await self.changed.park()

    async def wait_joined(self) -> None:
        """Wait until the room is joined or has ended."""
        await trio.lowlevel.checkpoint()
        while self.membership not in (_JOINED, _ENDED):
            await self.changed.park()

    async def wait_space(self) -> None:
        """Wait until the inbox has space for an event that may not be dropped."""
        await self._inbox.wait_space()

    def on_joined(self, number: int, answer: Joined | Resumed) -> None:
        """Process the answer to JOIN or RESUME: the snapshot, and perhaps a gap."""
        snapshot = answer.snapshot if isinstance(answer, Resumed) else answer
        before, is_first = self.position, self.snapshot is None
        now = Position(snapshot.epoch, snapshot.offset)
        claimed = isinstance(answer, Resumed) and answer.recovered
        lost = None if before is None else missing(before, now, claimed)
        recovered = claimed and lost is None
        self.number = number
        self.snapshot = snapshot
        self.online, self.interval_ms, self.phase = snapshot.online, snapshot.interval_ms, snapshot.phase
        self.refusals = 0
        if before is not None:
            self.recovered = recovered
        if not recovered:
            self.position = now
        if not is_first:
            self._inbox.put(Rejoined(snapshot, recovered))
        if lost is not None:
            self._put_gap(lost.first, lost.last, lost.epoch_changed)

    def on_event(self, lane: Lane, sequence: int, event: Event) -> None:
        """Process an event of lanes 0-2: once, and in order. ``sequence``: the low 32 bits of its offset."""
        if self.position is None:
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
        self._inbox.put(StreamEvent(offset, lane, event.type, event.at_ms, event.user_id, event.name, event.payload))

    def _put_gap(self, first: int, last: int, epoch_changed: bool) -> None:
        self.gaps += 1
        self._inbox.put(Gap(first, last, epoch_changed))

    def on_tick(self, number: int, tick: Tick) -> None:
        """Process one frame of a tick."""
        for type, user_id, name, payload, count, senders in tick.entries:
            self._inbox.put_lossy(Danmaku(type, user_id, name, payload, count, senders, tick.at_ms, number), chat=count)
        self.interval_ms = tick.interval_ms
        if any(tick.account):
            self.account = Account(*map(sum, zip(self.account, tick.account, strict=True)))
            self._inbox.put_lossy(TickAccount(number, tick.at_ms, tick.interval_ms, tick.stage, tick.account))

    def on_state(self, state: State) -> None:
        """Process the newest counters."""
        self.online, self.interval_ms, self.phase = state.online, state.interval_ms, state.phase
        self._inbox.put_lossy(state, ambient=1)

    def on_pulse(self, pulse: RoomPulse) -> None:
        """Process the room's counters of a PONG."""
        self.online, self.interval_ms = pulse.online, pulse.interval_ms

    def on_left(self, left: Left) -> None:
        """Process the broker's LEAVE. The client requests a crashed room again."""
        rejoins = left.reason is LeaveReason.ROOM_CRASHED and self.membership is _JOINED
        if self.membership is _JOINED:
            self._inbox.put(RoomLeft(left.reason, left.message, is_final=not rejoins))
        self.signal(RoomSignal.DEFERRED if rejoins else RoomSignal.LEFT)

    # ---- likes

    async def run_likes(self) -> None:
        """Post the summed likes, once in LIKE_INTERVAL_S, until none are waiting. Started by the client."""
        try:
            while self.likes.waiting and self.is_active:
                with trio.move_on_after(LIKE_INTERVAL_S):
                    await self._likes_flushing.wait()
                wait_s = await self._send_likes()
                if wait_s and self._likes_flushing.is_set():
                    return
                with trio.move_on_after(wait_s):
                    await self._likes_flushing.wait()
        finally:
            self._likes_running = False
            if self.likes.waiting and (self._likes_flushing.is_set() or not self.is_active):
                self.likes = self.likes._replace(waiting=0, unsent=self.likes.unsent + self.likes.waiting)
            self._likes_idle.unpark_all()

    async def _send_likes(self) -> float:
        """Post one sum and count its result; return the seconds to wait before the next.

        Never twice: likes have no idempotency key, so the broker would count them again.
        """
        while self.membership in (_WANTED, _REQUESTED):
            await self.changed.park()
        count = min(self.likes.waiting, MAX_LIKES_PER_POST)
        outcome, result = None, PostResult(None, "")  # the values after a cancellation
        try:
            result = await self._owner.post(self, MessageType.LIKE, LikePayload(count), None, False, POST_TIMEOUT_S)
            outcome = result.outcome
        except ClientClosed:
            result = PostResult(None, "", sent=False)
        finally:
            if outcome is None and result.sent:
                waiting, unknown = self.likes.waiting - count, self.likes.unknown + count
                self.likes = self.likes._replace(waiting=waiting, unknown=unknown)
        if outcome is Outcome.LIMITED:
            return max(result.retry_after_ms / 1000, LIKE_INTERVAL_S)
        if outcome is not None and result.sent:
            likes = self.likes
            is_counted = outcome in (Outcome.ACCEPTED, Outcome.MERGED)
            counted = min(count, result.counted) if outcome is Outcome.ACCEPTED else count * is_counted
            self.likes = likes._replace(
                waiting=likes.waiting - count,
                counted=likes.counted + counted,
                refused=likes.refused + count - counted,
            )
        return 0.0

    async def flush_likes(self) -> None:
        """Post the waiting likes within FLUSH_TIMEOUT_S; later likes are refused."""
        self._likes_flushing.set()
        with trio.move_on_after(FLUSH_TIMEOUT_S):
            while self._likes_running:
                await self._likes_idle.park()
