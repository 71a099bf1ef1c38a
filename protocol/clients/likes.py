"""Likes of one room: summed, posted at most once a second, never posted twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import trio

from ..codes import Outcome
from ..errors import LocalProtocolError
from ..payloads import MAX_LIKES_PER_POST
from .events import ClientClosed, PostResult

__all__ = ["LikeSender", "Likes"]

LIKE_INTERVAL_S = 1.0
"""At most one LIKE post in this time; likes in between are summed."""
FLUSH_TIMEOUT_S = 2.0
"""Timeout for sending the remaining likes before LEAVE."""


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


class LikeRoom(Protocol):
    """Interface of a membership to its likes."""

    name: str
    changed: trio.lowlevel.ParkingLot

    @property
    def is_joined(self) -> bool: ...

    @property
    def is_active(self) -> bool: ...

    async def post_likes(self, count: int) -> PostResult: ...

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None: ...


class LikeSender:
    """Sender of the likes of one room. ``counts`` are the likes so far."""

    def __init__(self, room: LikeRoom) -> None:
        self.counts = Likes()
        self._room = room
        self._is_running = False
        self._flushing = trio.Event()
        self._idle = trio.lowlevel.ParkingLot()

    def add(self, count: int) -> None:
        """See `JoinedRoom.like`."""
        if type(count) is not int or not 1 <= count <= MAX_LIKES_PER_POST:
            raise LocalProtocolError(f"count must be an integer from 1 to {MAX_LIKES_PER_POST}")
        if self._flushing.is_set() or not self._room.is_active:
            raise LocalProtocolError(f"room {self._room.name} was left")
        self.counts = self.counts._replace(waiting=self.counts.waiting + count)
        if not self._is_running:
            self._is_running = True
            self._room.spawn(self._run)

    async def _run(self) -> None:
        """Post the summed likes, once in LIKE_INTERVAL_S, until none are waiting."""
        try:
            while self.counts.waiting and self._room.is_active:
                with trio.move_on_after(LIKE_INTERVAL_S):
                    await self._flushing.wait()
                wait_s = await self._post()
                if wait_s and self._flushing.is_set():
                    return
                with trio.move_on_after(wait_s):
                    await self._flushing.wait()
        finally:
            self._is_running = False
            if self.counts.waiting and (self._flushing.is_set() or not self._room.is_active):
                self.counts = self.counts._replace(waiting=0, unsent=self.counts.unsent + self.counts.waiting)
            self._idle.unpark_all()

    async def _post(self) -> float:
        """Post one sum and count its result; return the seconds to wait before the next.

        Never twice: likes have no idempotency key, so the broker would count them again.
        """
        room = self._room
        while room.is_active and not room.is_joined:
            await room.changed.park()
        count = min(self.counts.waiting, MAX_LIKES_PER_POST)
        outcome, result = None, PostResult(None, "")  # the values after a cancellation
        try:
            result = await room.post_likes(count)
            outcome = result.outcome
        except ClientClosed:
            result = PostResult(None, "", sent=False)
        finally:
            if outcome is None and result.sent:
                waiting, unknown = self.counts.waiting - count, self.counts.unknown + count
                self.counts = self.counts._replace(waiting=waiting, unknown=unknown)
        if outcome is Outcome.LIMITED:
            return max(result.retry_after_ms / 1000, LIKE_INTERVAL_S)
        if outcome is not None and result.sent:
            counts = self.counts
            is_counted = outcome in (Outcome.ACCEPTED, Outcome.MERGED)
            counted = min(count, result.counted) if outcome is Outcome.ACCEPTED else count * is_counted
            self.counts = counts._replace(
                waiting=counts.waiting - count,
                counted=counts.counted + counted,
                refused=counts.refused + count - counted,
            )
        return 0.0

    async def flush(self) -> None:
        """Post the waiting likes within FLUSH_TIMEOUT_S; later likes are refused."""
        self._flushing.set()
        with trio.move_on_after(FLUSH_TIMEOUT_S):
            while self._is_running:
                await self._idle.park()
