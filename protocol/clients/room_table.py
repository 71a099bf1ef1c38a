"""Rooms of a client: which room a frame is for, what is asked of the broker, what becomes of its answers.

A room has a name for ever and a number for the length of one link. On every new link each wanted room is asked for
again: JOIN the first time, RESUME once there is a position. An answer is matched by the request's number, and by
name for a broker that repeats no numbers. A room that the broker refuses "for now" (3xx), or that crashed, is asked for
again with backoff; those refused because of their rate one after another, each after the time that the broker named.
Any other refusal is final.

Everything here is synchronous; what waits (a delay before asking again) runs in the client's nursery.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import trio

from ..codes import ErrorCode, Opcode
from ..connection import Frame
from ..messages import ErrorReply, Event, Join, Joined, Leave, Left, Resume, Resumed, RoomPulse, State, Tick
from ..reconnect import MAX_PEER_DELAY_S, MIN_BACKOFF_S, Signal, backoff_s
from .events import RoomRefused
from .link import Ending, Link
from .posts import Posts
from .room import JoinedRoom, Membership, RoomSignal

__all__ = ["RoomTable"]


class _PendingJoin(NamedTuple):
    """A JOIN, RESUME or LEAVE under way."""

    room: JoinedRoom
    opcode: Opcode


class RoomTable:
    """The rooms of one client. ``spawn`` starts a task that lives as long as the client."""

    def __init__(self, posts: Posts, rng: random.Random, spawn: Callable[..., None]) -> None:
        self._posts = posts
        self._rng = rng
        self._spawn = spawn
        self._link: Link | None = None
        self._by_name: dict[str, JoinedRoom] = {}
        self._by_number: dict[int, JoinedRoom] = {}
        self._asked: dict[int, _PendingJoin] = {}
        self._sequence = 0
        self._next_ask_at = 0.0
        """When the last of the rooms is asked for that the broker refused because of their rate (monotonic seconds)."""
        self.strays = 0
        """Frames for rooms, and answers to requests, that we have given up."""

    def __iter__(self) -> Iterator[JoinedRoom]:
        return iter(list(self._by_name.values()))

    @property
    def by_name(self) -> Mapping[str, JoinedRoom]:
        return MappingProxyType(self._by_name)

    def next_sequence(self) -> int:
        """A request number, never 0; unique among what can be under way."""
        self._sequence += 1
        return (self._sequence - 1) % 0xFFFF_FFFF + 1

    # ---- what the application wants

    def add(self, room: JoinedRoom) -> None:
        """Ask for a room, now or on the next link. Its name must be free."""
        self._by_name[room.name] = room
        self._ask(room)

    def leave(self, room: JoinedRoom) -> None:
        """Begin to leave; the answer makes it gone."""
        if not room.is_live:
            return
        number = room.number
        if room.signal(RoomSignal.LEAVE) is Membership.LEAVING:
            self._send_leave(room, number)
        self._settle(room)

    def forget(self, room: JoinedRoom) -> None:
        """Be done with a room whose answer does not come."""
        room.signal(RoomSignal.CLOSE)
        self._settle(room)

    def _settle(self, room: JoinedRoom) -> None:
        """Forget a room if it is gone; its posts under way are answered with "nobody knows"."""
        if room.membership is Membership.GONE:
            if self._by_name.get(room.name) is room:
                del self._by_name[room.name]
            for number in [number for number, other in self._by_number.items() if other is room]:
                del self._by_number[number]
            # A JOIN that is still unanswered is kept: its answer must not be taken for that of a later one.
            for known in [known for known, asked in self._asked.items() if asked == (room, Opcode.LEAVE)]:
                del self._asked[known]
            self._posts.give_up(room)

    # ---- links

    def link_opened(self, link: Link) -> None:
        """Ask for every wanted room on a new link."""
        self._link = link
        for room in self:
            self._ask(room)

    def link_over(self) -> None:
        """Forget the numbers of the link; what was wanted still is."""
        self._link = None
        self._next_ask_at = 0.0
        self._asked.clear()
        self._by_number.clear()
        for room in self:
            room.signal(RoomSignal.LINK_LOST)
            self._settle(room)

    def close(self, error_of: Callable[[], Exception | None]) -> None:
        """End every room; ``error_of`` makes what its iteration ends with."""
        for room in self:
            room.signal(RoomSignal.CLOSE, error_of())
            self._settle(room)

    def _ask(self, room: JoinedRoom) -> None:
        if self._link is None or room.membership is not Membership.WANTED:
            return
        sequence = self.next_sequence()
        room.signal(RoomSignal.ASK)
        if room.position is None:
            self._asked[sequence] = _PendingJoin(room, Opcode.JOIN)
            self._link.send(Join(room.name, room.tier), 0, sequence)
        else:
            self._asked[sequence] = _PendingJoin(room, Opcode.RESUME)
            self._link.send(Resume(room.name, room.tier, *room.position), 0, sequence)

    def _ask_later(self, room: JoinedRoom, retry_after_ms: int) -> None:
        if room.membership is Membership.WANTED:
            delay_s = max(min(retry_after_ms / 1000, MAX_PEER_DELAY_S), backoff_s(room.asks, self._rng))
            room.asks += 1
            self._spawn(self._ask_after, room, self._link, delay_s)

    def _ask_in_turn(self, room: JoinedRoom, retry_after_ms: int) -> None:
        """Ask again after all other rooms that the rate has refused: asked at once, all but one would be refused."""
        if room.membership is Membership.WANTED:
            now = trio.current_time()
            peer_s = max(MIN_BACKOFF_S, min(retry_after_ms / 1000, MAX_PEER_DELAY_S))
            self._next_ask_at = max(now, self._next_ask_at) + peer_s
            self._spawn(self._ask_after, room, self._link, self._next_ask_at - now)

    async def _ask_after(self, room: JoinedRoom, link: Link | None, delay_s: float) -> None:
        await trio.sleep(delay_s)
        if link is self._link:  # a newer link has asked already
            self._ask(room)

    def _send_leave(self, room: JoinedRoom, number: int) -> None:
        if self._link is not None:
            sequence = self.next_sequence()
            self._asked[sequence] = _PendingJoin(room, Opcode.LEAVE)
            self._link.send(Leave(), number, sequence)

    # ---- what the broker says

    async def wait_space(self, frame: Frame) -> None:
        """Wait until the room that ``frame`` is for can take it."""
        room = self._by_number.get(frame.room)
        if room is None and isinstance(frame.message, (Joined, Resumed)):
            room = self._room_asked(frame.sequence, frame.message)
        if room is not None:
            await room.wait_space()

    def on_frame(self, frame: Frame) -> None:
        """Take a frame of a room."""
        message = frame.message
        if isinstance(message, (Joined, Resumed)):
            self._on_joined(frame.room, frame.sequence, message)
            return
        room = self._by_number.get(frame.room)
        if room is not None and isinstance(message, Left):
            self._on_left(room, frame.room, message)
        elif room is None or not room.is_joined:
            self.strays += 1
        elif isinstance(message, Event):
            room.on_event(frame.lane, frame.sequence, message)
        elif isinstance(message, Tick):
            room.on_tick(frame.sequence, message)
        elif isinstance(message, State):
            room.on_state(message)

    def on_error(self, sequence: int, error: ErrorReply) -> bool:
        """Take an ERROR; False where it answers none of the rooms' requests."""
        asked = self._asked.pop(sequence, None)
        if asked is None:
            return False
        room = asked.room
        if room.membership is Membership.GONE:
            self.strays += 1
        elif asked.opcode is not Opcode.LEAVE and error.code == ErrorCode.RATE_LIMITED:
            room.signal(RoomSignal.NOT_NOW)
            self._ask_in_turn(room, error.retry_after_ms)
        elif asked.opcode is not Opcode.LEAVE and 300 <= error.code < 400 and room.snapshot is not None:
            room.signal(RoomSignal.NOT_NOW)
            self._ask_later(room, error.retry_after_ms)
        else:
            refusal = RoomRefused(error.code, error.message, error.field, error.retry_after_ms)
            room.signal(RoomSignal.REFUSED, refusal if room.is_live else None)
        self._settle(room)
        return True

    def on_pulse(self, pulses: tuple[RoomPulse, ...]) -> None:
        """Take the rooms' numbers of a heartbeat."""
        for pulse in pulses:
            if (room := self._by_number.get(pulse.room)) is not None:
                room.on_pulse(pulse)

    def _room_asked(self, sequence: int, answer: Joined | Resumed) -> JoinedRoom | None:
        """The room whose JOIN or RESUME this answers."""
        asked = self._asked.get(sequence)
        if asked is not None and asked.opcode is not Opcode.LEAVE:
            return asked.room
        snapshot = answer.snapshot if isinstance(answer, Resumed) else answer
        return self._by_name.get(snapshot.room_name)

    def _on_joined(self, number: int, sequence: int, answer: Joined | Resumed) -> None:
        room = self._room_asked(sequence, answer)
        if room is None or room.membership not in (Membership.ASKED, Membership.UNWANTED):
            self.strays += 1
            if number not in self._by_number and self._link is not None:
                self._link.send(Leave(), number, self.next_sequence())  # we are in a room nobody wants
            return
        if number in self._by_number and self._link is not None:
            self._link.end(Ending(Signal.LOST, None, "the peer gave two rooms one number"))
            return
        for known in [known for known, asked in self._asked.items() if asked.room is room]:
            del self._asked[known]
        self._by_number[number] = room
        if room.membership is Membership.ASKED:
            room.on_joined(number, answer)
        if room.signal(RoomSignal.ADMITTED) is Membership.LEAVING:
            self._send_leave(room, number)

    def _on_left(self, room: JoinedRoom, number: int, left: Left) -> None:
        del self._by_number[number]
        room.on_left(left)
        self._posts.give_up(room)
        self._ask_later(room, retry_after_ms=0)
        self._settle(room)
