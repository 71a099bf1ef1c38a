"""Rooms of a client: dispatch of frames to rooms, and the requests JOIN, RESUME and LEAVE with their answers.

A room has a fixed name, and a number for the length of one link. On every new link each wanted room is requested again:
by JOIN the first time, by RESUME once there is a position. An answer is matched by the request's number, or by name for
a broker that repeats no numbers. A room that the broker refuses for now (3xx), or that has crashed, is requested again
with backoff; rooms that are refused because of a rate limit are requested one after another, each after the time that
the broker named. Any other refusal is final.

Everything here is synchronous; delays run in the client's nursery.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import trio

from ..codes import ErrorCode, LeaveReason, Opcode
from ..connection import Frame
from ..messages import ErrorReply, Event, Join, Joined, Leave, Left, Resume, Resumed, RoomPulse, State, Tick
from ..reconnect import MAX_PEER_DELAY_S, MIN_BACKOFF_S, Signal, backoff_s
from .events import RoomRefused
from .link import Ending, Link
from .membership import Membership, RoomMembership, RoomSignal
from .posts import Posts

__all__ = ["RoomTable"]


class _PendingJoin(NamedTuple):
    """Open JOIN, RESUME or LEAVE."""

    room: RoomMembership
    opcode: Opcode


class RoomTable:
    """Rooms of one client. ``spawn`` starts a task in the client's nursery."""

    def __init__(self, posts: Posts, rng: random.Random, spawn: Callable[..., None]) -> None:
        self._posts = posts
        self._rng = rng
        self._spawn = spawn
        self._link: Link | None = None
        self._by_name: dict[str, RoomMembership] = {}
        self._by_number: dict[int, RoomMembership] = {}
        self._pending: dict[int, _PendingJoin] = {}
        self._sequence = 0
        self._next_request_at = 0.0
        """When the last of the rooms refused because of a rate limit is requested again (monotonic seconds)."""
        self.unexpected_frames = 0
        """Frames that belong to no joined room, and answers to no open request."""

    def __iter__(self) -> Iterator[RoomMembership]:
        return iter(list(self._by_name.values()))

    @property
    def by_name(self) -> Mapping[str, RoomMembership]:
        return MappingProxyType(self._by_name)

    @property
    def open_requests(self) -> int:
        """JOIN, RESUME and LEAVE without an answer."""
        return len(self._pending)

    def next_sequence(self) -> int:
        """Return a request number, never 0; unique among the open requests."""
        self._sequence += 1
        return (self._sequence - 1) % 0xFFFF_FFFF + 1

    # ---- called for the application

    def add(self, room: RoomMembership) -> None:
        """Request a room, now or on the next link. No other room may have its name."""
        self._by_name[room.name] = room
        self._request(room)

    def leave(self, room: RoomMembership) -> None:
        """Send LEAVE; the answer ends the room."""
        if not room.is_active:
            return
        number = room.number
        if room.signal(RoomSignal.LEAVE) is Membership.LEAVING:
            self._send_leave(room, number)
        self._remove_if_ended(room)

    def forget(self, room: RoomMembership) -> None:
        """End a room without the broker's answer."""
        if room.state is not Membership.ENDED:
            room.signal(RoomSignal.CLOSE)
            self._remove_if_ended(room)

    def _remove_if_ended(self, room: RoomMembership, *, answers_follow: bool = False) -> None:
        """Remove a room that has ended; the result of its open posts is unknown, or follows (``answers_follow``)."""
        if room.state is Membership.ENDED:
            if self._by_name.get(room.name) is room:
                del self._by_name[room.name]
            for number in [number for number, other in self._by_number.items() if other is room]:
                del self._by_number[number]
            # An unanswered JOIN is kept: its answer must not be matched with a later request.
            for known in [known for known, pending in self._pending.items() if pending == (room, Opcode.LEAVE)]:
                del self._pending[known]
            if not answers_follow:
                self._posts.resolve_unknown(room)

    # ---- links

    def link_opened(self, link: Link) -> None:
        """Request every wanted room on a new link."""
        self._link = link
        for room in self:
            self._request(room)

    def link_closed(self) -> None:
        """Drop the numbers of the link; wanted rooms stay wanted."""
        self._link = None
        self._next_request_at = 0.0
        self._pending.clear()
        self._by_number.clear()
        for room in self:
            room.signal(RoomSignal.LINK_LOST)
            self._remove_if_ended(room)

    def close(self, error_of: Callable[[], Exception | None]) -> None:
        """End every room; ``error_of`` returns the exception that ends its iteration."""
        for room in self:
            room.signal(RoomSignal.CLOSE, error_of())
            self._remove_if_ended(room)

    def _request(self, room: RoomMembership) -> None:
        if self._link is None or room.state is not Membership.WANTED:
            return
        sequence = self.next_sequence()
        room.signal(RoomSignal.REQUEST)
        if room.position is None:
            self._pending[sequence] = _PendingJoin(room, Opcode.JOIN)
            self._link.send(Join(room.name, room.tier), 0, sequence)
        else:
            self._pending[sequence] = _PendingJoin(room, Opcode.RESUME)
            self._link.send(Resume(room.name, room.tier, *room.position), 0, sequence)

    def _request_later(self, room: RoomMembership, retry_after_ms: int) -> None:
        if room.state is Membership.WANTED:
            delay_s = max(min(retry_after_ms / 1000, MAX_PEER_DELAY_S), backoff_s(room.refusals, self._rng))
            room.refusals += 1
            self._spawn(self._request_after, room, self._link, delay_s)

    def _request_in_turn(self, room: RoomMembership, retry_after_ms: int) -> None:
        """Request again after all other rate-limited rooms: at once, all but one would be refused again."""
        if room.state is Membership.WANTED:
            now = trio.current_time()
            peer_s = max(MIN_BACKOFF_S, min(retry_after_ms / 1000, MAX_PEER_DELAY_S))
            self._next_request_at = max(now, self._next_request_at) + peer_s
            self._spawn(self._request_after, room, self._link, self._next_request_at - now)

    async def _request_after(self, room: RoomMembership, link: Link | None, delay_s: float) -> None:
        await trio.sleep(delay_s)
        if link is self._link:  # a newer link has requested the room already
            self._request(room)

    def _send_leave(self, room: RoomMembership, number: int) -> None:
        if self._link is not None:
            sequence = self.next_sequence()
            self._pending[sequence] = _PendingJoin(room, Opcode.LEAVE)
            self._link.send(Leave(), number, sequence)

    # ---- frames of the broker

    async def wait_space(self, frame: Frame) -> None:
        """Wait until the room of ``frame`` has space for it."""
        room = self._by_number.get(frame.room)
        if room is None and isinstance(frame.message, (Joined, Resumed)):
            room = self._room_requested(frame.sequence, frame.message)
        if room is not None:
            await room.wait_space()

    def on_frame(self, frame: Frame) -> None:
        """Process a frame of a room."""
        message = frame.message
        if isinstance(message, (Joined, Resumed)):
            self._on_joined(frame.room, frame.sequence, message)
            return
        room = self._by_number.get(frame.room)
        if room is not None and isinstance(message, Left):
            self._on_left(room, frame.room, message)
        elif room is None or not room.is_joined:
            self.unexpected_frames += 1
        elif isinstance(message, Event):
            room.on_event(frame.lane, frame.sequence, message)
        elif isinstance(message, Tick):
            room.on_tick(frame.sequence, message)
        elif isinstance(message, State):
            room.on_state(message)

    def on_error(self, sequence: int, error: ErrorReply) -> bool:
        """Process an ERROR; False if it answers none of the rooms' requests."""
        pending = self._pending.pop(sequence, None)
        if pending is None:
            return False
        room = pending.room
        if room.state is Membership.ENDED:
            self.unexpected_frames += 1
        elif pending.opcode is not Opcode.LEAVE and error.code == ErrorCode.RATE_LIMITED:
            room.signal(RoomSignal.DEFERRED)
            self._request_in_turn(room, error.retry_after_ms)
        elif pending.opcode is not Opcode.LEAVE and 300 <= error.code < 400 and room.snapshot is not None:
            room.signal(RoomSignal.DEFERRED)
            self._request_later(room, error.retry_after_ms)
        else:
            refusal = RoomRefused(error.code, error.message, error.field, error.retry_after_ms)
            room.signal(RoomSignal.REFUSED, refusal if room.is_active else None)
        self._remove_if_ended(room)
        return True

    def on_pulse(self, pulses: tuple[RoomPulse, ...]) -> None:
        """Process the rooms' counters of a PONG."""
        for pulse in pulses:
            if (room := self._by_number.get(pulse.room)) is not None:
                room.on_pulse(pulse)

    def _room_requested(self, sequence: int, answer: Joined | Resumed) -> RoomMembership | None:
        """Return the room whose JOIN or RESUME is answered."""
        pending = self._pending.get(sequence)
        if pending is not None and pending.opcode is not Opcode.LEAVE:
            return pending.room
        snapshot = answer.snapshot if isinstance(answer, Resumed) else answer
        return self._by_name.get(snapshot.room_name)

    def _on_joined(self, number: int, sequence: int, answer: Joined | Resumed) -> None:
        room = self._room_requested(sequence, answer)
        if room is None or room.state not in (Membership.REQUESTED, Membership.CANCELLED):
            self.unexpected_frames += 1
            if number not in self._by_number and self._link is not None:
                self._link.send(Leave(), number, self.next_sequence())  # the client no longer wants this room
            return
        if number in self._by_number and self._link is not None:
            self._link.end(Ending(Signal.LOST, None, "the peer gave two rooms one number"))
            return
        for known in [known for known, pending in self._pending.items() if pending.room is room]:
            del self._pending[known]
        self._by_number[number] = room
        if room.state is Membership.REQUESTED:
            room.on_joined(number, answer)
        if room.signal(RoomSignal.ADMITTED) is Membership.LEAVING:
            self._send_leave(room, number)

    def _on_left(self, room: RoomMembership, number: int, left: Left) -> None:
        del self._by_number[number]
        room.on_left(left)
        # After a requested LEAVE the broker still answers the posts before it: results belong to the link.
        answers_follow = left.reason is LeaveReason.REQUESTED
        if not answers_follow:
            self._posts.resolve_unknown(room)
        self._request_later(room, retry_after_ms=0)
        self._remove_if_ended(room, answers_follow=answers_follow)
