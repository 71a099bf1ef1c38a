"""Room of a client as an application holds it: what it can post, its events, and its live counters."""

from __future__ import annotations

from typing import Any

import trio

from ..codes import RoomPhase, Tier
from ..messages import Account, Joined, PinnedMessage
from .events import Position, PostResult, RoomEvent
from .keys import RoomMap
from .likes import Likes
from .membership import Membership, RoomMembership
from .room_posts import POST_TIMEOUT_S, RoomPosts

__all__ = ["JoinedRoom"]

LEAVE_TIMEOUT_S = 5.0
"""Timeout of the answer to LEAVE; the room ends without it."""


class JoinedRoom(RoomPosts):
    """A room of a client, returned by `Client.join`; iterate over it for its events.

    The iteration ends when the client leaves; it raises ClientClosed or RoomRefused where that is the reason.
    """

    __slots__ = ("_membership",)

    def __init__(self, membership: RoomMembership) -> None:
        self._membership = membership

    # ---- state

    @property
    def name(self) -> str:
        return self._membership.name

    @property
    def tier(self) -> Tier:
        return self._membership.tier

    @property
    def membership(self) -> Membership:
        """State of the membership."""
        return self._membership.state

    @property
    def is_joined(self) -> bool:
        return self._membership.is_joined

    @property
    def is_active(self) -> bool:
        """Whether the room is joined, or will be once there is a link."""
        return self._membership.is_active

    @property
    def number(self) -> int:
        """Number of the room on this link, as in the broker's logs; 0 while not joined."""
        return self._membership.number

    @property
    def position(self) -> Position | None:
        """Epoch and offset of the last event of lanes 0-2 that was put in the inbox; see `Client.join`."""
        return self._membership.position

    @property
    def snapshot(self) -> Joined | None:
        """Answer to the last JOIN or RESUME. It does not change; `online`, `users` and `phase` are live."""
        return self._membership.snapshot

    @property
    def recovered(self) -> bool | None:
        """Whether the last RESUME recovered every event; None if there was none."""
        return self._membership.recovered

    @property
    def online(self) -> int:
        """Links in the room: the newest count of JOIN, STATE and PONG, whether or not events are read."""
        return self._membership.online

    @property
    def users(self) -> int:
        """Logged-in users in the room: the newest count of JOIN and STATE."""
        return self._membership.users

    @property
    def phase(self) -> RoomPhase:
        """Newest phase of the room."""
        return self._membership.phase

    @property
    def interval_ms(self) -> int:
        """Newest interval between ticks."""
        return self._membership.interval_ms

    @property
    def keys(self) -> RoomMap:
        """Live map of the room's keys."""
        return self._membership.keys

    @property
    def pinned(self) -> tuple[PinnedMessage, ...]:
        """Messages that are pinned now, oldest pin first."""
        return self._membership.pinned

    @property
    def account(self) -> Account:
        """Sum of the accounts of the ticks that this client received."""
        return self._membership.account

    @property
    def likes(self) -> Likes:
        """Counts of the likes given to `like`."""
        return self._membership.likes.counts

    @property
    def duplicates(self) -> int:
        """Events dropped because they were received before."""
        return self._membership.duplicates

    @property
    def gaps(self) -> int:
        """`Gap` events so far."""
        return self._membership.gaps

    @property
    def dropped(self) -> int:
        """Events dropped because the application read this room too slowly."""
        return self._membership.inbox.dropped

    # ---- posts

    async def post(
        self,
        type: int,
        payload: Any,
        *,
        client_msg_id: str | None = None,
        retry: bool = False,
        timeout_s: float = POST_TIMEOUT_S,
    ) -> PostResult:
        """Post one message and return its result. See `RoomPosts.post`."""
        membership = self._membership
        return await membership.owner.post(membership, type, payload, client_msg_id, retry, timeout_s)

    def like(self, count: int = 1) -> None:
        """Add ``count`` likes. Never waits: likes are summed and sent at most once a second; see ``likes``.

        Raises LocalProtocolError for a count outside 1-1000 or a room that was left.
        """
        self._membership.likes.add(count)

    # ---- events

    def __aiter__(self) -> JoinedRoom:
        return self

    async def __anext__(self) -> RoomEvent:
        membership = self._membership
        event = await membership.inbox.take()
        if event is not None:
            return event
        if membership.end_error is not None:
            raise membership.end_error.with_traceback(None)
        raise StopAsyncIteration

    async def leave(self) -> None:
        """Send the remaining likes and LEAVE, and wait some seconds for the answer. Idempotent.

        When cancelled, it sends LEAVE without waiting.
        """
        membership = self._membership
        membership.stop_reading()
        try:
            await self._membership.likes.flush()
        finally:
            membership.owner.leave(membership)
        with trio.move_on_after(LEAVE_TIMEOUT_S):
            await membership.wait_ended()
        membership.owner.forget(membership)
