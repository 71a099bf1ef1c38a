"""Posts: sending, repeating, and which answer belongs to which POST.

A result comes as an entry of an ACK, in any order, or as an ERROR; both contain the number of the POST. When a link
ends, `resolve_unknown` ends the open posts with an unknown result.

A post is sent again in two cases: with ``retry`` on the next link when the result is unknown, and with a key (the
application's ``client_msg_id``, or the ``order_id`` of a gift) after LIMITED. Without a key the application gets
LIMITED at once, because only it knows whether the message is still worth sending.
"""

from __future__ import annotations

import itertools
import random
from typing import Any, Protocol

import trio

from ..codes import TRY_AGAIN, ErrorCode, MessageType, Outcome
from ..messages import AckReason, AckResult, ErrorReply, FirstResult, Message, Post
from ..payloads import ORDER_TYPES
from ..reconnect import backoff_s
from .events import PostResult
from .link import Link

__all__ = ["LIMITED_RETRIES", "PostOwner", "PostSender", "PostTarget", "Posts", "UnjoinedTarget", "Waiter"]

MAX_HELD = 1000
LIMITED_RETRIES = 8
"""Most repetitions of a post with a key after LIMITED."""
LIMITED_JITTER = 0.1
"""Random part that is added to the broker's wait, so that posts limited together do not come back together."""


class PostTarget(Protocol):
    """Room that posts go to."""

    @property
    def room_name(self) -> str | None:
        """Name for the body of a POST; None where the header's number says the room."""

    @property
    def number(self) -> int: ...

    @property
    def is_active(self) -> bool:
        """Whether the room can be posted to, now or after a reconnect."""

    @property
    def is_joined(self) -> bool:
        """Whether the room can be posted to now."""

    @property
    def changed(self) -> trio.lowlevel.ParkingLot:
        """Woken by every change of these."""


class Waiter:
    """One open POST. When ``done`` is set, ``result`` is its result, None = unknown."""

    __slots__ = ("client_msg_id", "done", "result", "room", "type")

    def __init__(self, room: PostTarget, type: int, client_msg_id: str) -> None:
        self.room = room
        self.type = type
        self.client_msg_id = client_msg_id
        self.done = trio.Event()
        self.result: PostResult | None = None

    def resolve(self, result: PostResult) -> None:
        self.result = result
        self.done.set()


class Posts:
    """Open POSTs by number; as many as the application has posting tasks."""

    __slots__ = ("_held", "_waiters")

    def __init__(self) -> None:
        self._waiters: dict[int, Waiter] = {}
        self._held: dict[int, Waiter] = {}
        """Posts that wait for a reviewer, the last `MAX_HELD` of this link."""

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, sequence: int, waiter: Waiter) -> PostResult | None:
        """Wait for the result of the POST that was sent as ``sequence``."""
        self._waiters[sequence] = waiter
        try:
            await waiter.done.wait()
        finally:
            self._waiters.pop(sequence, None)
        return waiter.result

    def on_result(self, entry: AckResult, first: FirstResult | None = None, reason: AckReason | None = None) -> bool:
        """Process one entry of an ACK; False if no POST waits for it.

        ``first``: the first use of its key, if any; ``reason``: why, if the broker says so.
        """
        waiter = self._waiters.get(entry.sequence)
        if waiter is None:
            return False
        if entry.outcome is Outcome.HELD:
            self._held[entry.sequence] = waiter
            if len(self._held) > MAX_HELD:
                del self._held[next(iter(self._held))]
        waiter.resolve(_result_of(waiter, entry, first, reason))
        return True

    def on_decided(self, entry: AckResult, reason: AckReason | None = None) -> PostResult | None:
        """Return the second result of a POST that was HELD; None where there is no such POST."""
        waiter = self._held.pop(entry.sequence, None)
        return None if waiter is None else _result_of(waiter, entry, None, reason)

    def on_error(self, sequence: int, error: ErrorReply) -> bool:
        """Process an ERROR; False if no POST waits for it."""
        waiter = self._waiters.get(sequence)
        if waiter is None:
            return False
        outcome = Outcome.LIMITED if error.code == ErrorCode.RATE_LIMITED else Outcome.REJECTED
        waiter.resolve(
            PostResult(
                outcome,
                waiter.client_msg_id,
                retry_after_ms=error.retry_after_ms,
                error_code=error.code,
                field=error.field,
                message=error.message,
            )
        )
        return True

    def resolve_unknown(self, room: PostTarget | None = None) -> None:
        """End the open POSTs of ``room``, or all of them, with an unknown result."""
        if room is None:
            self._held.clear()
        for waiter in self._waiters.values():
            if room is None or waiter.room is room:
                waiter.done.set()


def _result_of(waiter: Waiter, entry: AckResult, first: FirstResult | None, reason: AckReason | None) -> PostResult:
    result = PostResult(entry.outcome, waiter.client_msg_id, first=first)
    if reason is not None:
        result = result._replace(message=reason.text, retry_after_ms=reason.retry_after_ms)
    if entry.outcome in TRY_AGAIN:
        return result._replace(retry_after_ms=entry.detail)
    if entry.outcome is Outcome.REJECTED:
        return result._replace(error_code=entry.detail)
    if entry.outcome is Outcome.ACCEPTED and waiter.type == MessageType.LIKE:
        return result._replace(counted=entry.detail)
    if entry.outcome in (Outcome.ACCEPTED, Outcome.MERGED, Outcome.MASKED):
        return result._replace(offset=entry.detail)  # of a gift in a combo: that of its event
    return result


class PostOwner(Protocol):
    """Interface of the client to its posts."""

    @property
    def link(self) -> Link | None: ...

    @property
    def is_closed(self) -> bool: ...

    @property
    def is_connected(self) -> bool: ...

    @property
    def changed(self) -> trio.lowlevel.ParkingLot:
        """Woken by every change of the link."""

    def raise_if_closed(self) -> None:
        """Raise ClientClosed after the end of the client."""

    def check(self, message: Message) -> None:
        """Check a message against the rules of the wire; LocalProtocolError."""

    def next_sequence(self) -> int:
        """Return a request number."""


class UnjoinedTarget:
    """Target of posts that name their room: it is there as long as the link is."""

    number = 0

    def __init__(self, owner: PostOwner, room_name: str) -> None:
        self._owner = owner
        self.room_name = room_name

    @property
    def is_active(self) -> bool:
        return not self._owner.is_closed

    @property
    def is_joined(self) -> bool:
        return self._owner.is_connected

    @property
    def changed(self) -> trio.lowlevel.ParkingLot:
        return self._owner.changed


class PostSender:
    """Sender of the posts of one client. ``rng`` makes the generated ids unique and spreads repetitions."""

    def __init__(self, owner: PostOwner, posts: Posts, rng: random.Random) -> None:
        self._owner = owner
        self._posts = posts
        self._rng = rng
        self._nonce = f"{rng.getrandbits(64):016x}"
        self._generated_ids = 0

    async def post(
        self, room: PostTarget, type: int, payload: Any, client_msg_id: str | None, retry: bool, timeout_s: float
    ) -> PostResult:
        """See `JoinedRoom.post`. Any: a payload is any value."""
        has_key = client_msg_id is not None or type in ORDER_TYPES
        if client_msg_id is None:
            self._generated_ids += 1
            client_msg_id = f"{self._nonce}-{self._generated_ids}"
        message = Post(int(type), client_msg_id, payload, room.room_name)
        self._owner.check(message)
        self._owner.raise_if_closed()
        await trio.lowlevel.checkpoint()
        deadline = trio.current_time() + timeout_s
        for repetition in itertools.count():
            result = await self._send(room, message, retry, deadline)
            if not has_key or result.outcome not in TRY_AGAIN or repetition == LIMITED_RETRIES:
                break
            wait_s = result.retry_after_ms / 1000 or backoff_s(repetition, self._rng)
            wait_s *= self._rng.uniform(1, 1 + LIMITED_JITTER)
            if trio.current_time() + wait_s >= deadline:
                break
            await trio.sleep(wait_s)
        return result

    async def _send(self, room: PostTarget, message: Post, retry: bool, deadline: float) -> PostResult:
        """Send ``message`` until it has a result, with ``retry`` on any number of links."""
        owner = self._owner
        is_sent, result = False, None
        with trio.CancelScope(deadline=deadline):
            while room.is_active:
                link = owner.link
                if link is None or not link.is_open or not room.is_joined:
                    if not retry:
                        break
                    await room.changed.park()
                    continue
                await link.wait_writable()
                if link is not owner.link or not link.is_open or not room.is_joined:
                    continue
                sequence = owner.next_sequence()
                link.send(message, room.number, sequence)
                is_sent = True
                result = await self._posts.wait(sequence, Waiter(room, message.type, message.client_msg_id))
                is_left = result is not None and result.error_code == ErrorCode.NOT_JOINED and not message.room_name
                if retry and is_left and room.is_active:
                    result = None  # the room has crashed and is being rejoined: this says nothing about the post
                elif result is not None or not retry:
                    break
        if result is not None:
            return result
        if not is_sent and not room.is_active and not owner.is_closed:
            return PostResult(Outcome.REJECTED, message.client_msg_id, error_code=ErrorCode.NOT_JOINED, sent=False)
        return PostResult(None, message.client_msg_id, sent=is_sent)
