"""Python client: rooms, posts and events over one link that reconnects by itself.

    async with open_client("roomcast://127.0.0.1:7400", token=token) as client:
        room = await client.join("lobby")
        result = await room.post_danmaku("好看")
        async for event in room:
            ...

The rooms share one link. When the inbox of one room is full of events that may not be dropped, the client stops reading
for all of them: an application has to read every room that it joins, or leave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import trio

from ..codes import MessageType, Tier
from ..errors import LocalProtocolError
from ..messages import Authenticated, Join, Resume, ServerHello
from ..operations.directs import DirectProgress
from .batches import BATCH_TIMEOUT_S
from .calls import CALL_TIMEOUT_S, request_of
from .core import ClientCore
from .directs import ClientEvents
from .events import BatchState, ClientClosed, Position
from .posts import UnjoinedTarget
from .room import JoinedRoom
from .room_posts import UnjoinedRoom
from .typed_calls import typed

__all__ = ["Client", "core_of"]

JOIN_TIMEOUT_S = 30.0


class Client:
    """Client of one user: a link to a broker and the rooms on it. `connect.open_client` creates it."""

    __slots__ = ("_core",)

    def __init__(self, core: ClientCore) -> None:
        self._core = core

    @property
    def closed(self) -> ClientClosed | None:
        """Why the client has ended, None while it is running."""
        return self._core.closed

    @property
    def user(self) -> Authenticated | None:
        """Identity that the broker reported at the last authentication, None before the first."""
        return self._core.user

    @property
    def server(self) -> ServerHello | None:
        """HELLO of the broker on the last link, None before the first."""
        return self._core.server

    @property
    def clock_offset_ms(self) -> float:
        """Estimate of the broker's clock minus the local one, in milliseconds."""
        return self._core.clock_offset_ms

    @property
    def is_connected(self) -> bool:
        """Whether a link is open and authenticated."""
        return self._core.is_connected

    @property
    def rooms(self) -> Mapping[str, JoinedRoom]:
        """Rooms by name, including those that are being left."""
        handles = {room.name: room.handle for room in self._core.rooms}
        return MappingProxyType(handles)

    @property
    def dropped(self) -> int:
        """Events of `events` that were dropped because the application did not read them in time."""
        return self._core.inbox.dropped

    def server_ms(self) -> int:
        """Return the estimated time of the broker in Unix milliseconds, for countdowns to one of its deadlines."""
        return self._core.server_ms()

    @property
    def unexpected_frames(self) -> int:
        """Frames that belong to no joined room, and answers to no open request."""
        return self._core.rooms.unexpected_frames

    @property
    def dropped_directs(self) -> int:
        """DIRECT messages not taken because the application does not read `events`; the broker keeps them."""
        return self._core.directs.dropped

    def set_token(self, token: str | None) -> None:
        """Send ``token`` on the next link (an open one keeps its identity). Raises LocalProtocolError."""
        self._core.set_token(token)

    async def change_token(self, token: str, *, timeout_s: float = CALL_TIMEOUT_S) -> Authenticated:
        """Give the open link a new token of the same user, which may grant other rights; return what the broker says of
        it, with the client's roles in its rooms.

        The rooms that it does not grant end (LEFT with the reason NOT_GRANTED). The links that follow send this token
        too. Within ``timeout_s`` the request survives lost links.

        Raises TokenRefused, and the link keeps the token that it has; trio.TooSlowError, ClientClosed, and
        LocalProtocolError for what cannot be a token.
        """
        return await self._core.change_token(token, timeout_s)

    async def wait_connected(self) -> None:
        """Wait until a link is open and authenticated. Raises ClientClosed."""
        await self._core.wait_connected()

    async def join(
        self,
        room_name: str,
        tier: Tier = Tier.FULL,
        *,
        position: Position | None = None,
        timeout_s: float = JOIN_TIMEOUT_S,
    ) -> JoinedRoom:
        """Join a room and return its handle, with the broker's snapshot.

        ``position`` continues where an earlier handle (of any process) stopped: the room's ``recovered`` then says
        whether every event since then follows. Within ``timeout_s`` the request survives lost links.

        Raises RoomRefused, ClientClosed, trio.TooSlowError after ``timeout_s``, and LocalProtocolError for a bad
        argument or a room that this client is in. When cancelled, it leaves the room.
        """
        core = self._core
        core.check(Join(room_name, tier) if position is None else Resume(room_name, tier, *position))
        with trio.fail_after(timeout_s):
            await trio.lowlevel.checkpoint()
            while (leaving := core.rooms.by_name.get(room_name)) is not None:
                if leaving.is_active:
                    raise LocalProtocolError("JOIN.room_name: is a room this client is in")
                await leaving.wait_ended()
            core.raise_if_closed()
            room = core.new_membership(room_name, tier, position)
            handle = room.handle = JoinedRoom(room)
            try:
                core.rooms.add(room)
                await room.wait_joined()
            except BaseException:
                core.leave(room)
                raise
        if room.snapshot is None:
            raise room.end_error or ClientClosed(None, "closed by this side")
        return handle

    def room(self, room_name: str) -> UnjoinedRoom:
        """Return a room to post to without joining it, for a client with the role APP. LocalProtocolError for the name.

        A backend posts gifts this way: it is not counted in the room, and `max_rooms` does not limit it.
        """
        self._core.check(Join(room_name))
        return UnjoinedRoom(self._core.post_sender, UnjoinedTarget(self._core, room_name))

    def events(self) -> ClientEvents:
        """Return the events outside the rooms: Direct, Connected, Disconnected, Pulse, MessagesMissed, Fault,
        PostDecided.

        After the first call a full inbox of DIRECT messages stops the client from reading the link; before it they
        are kept only while there is space (``dropped_directs`` counts the rest).
        """
        core = self._core
        core.directs.has_reader = True
        return ClientEvents(core.inbox, core.directs)

    @typed
    async def call(
        self,
        operation: str | tuple[Any, ...],
        /,
        *,
        key: str | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        **arguments: Any,
    ) -> Any:
        """Call an operation and return its result record: ``await client.call("rooms.get", room="live-1")``, or with a
        request record, ``client.call(GetRoom("live-1"))`` (`protocol.operations`).

        ``key``: idempotency key, up to 128 characters. Within ``timeout_s`` a call that only reads, or has a key,
        survives lost links: it is sent again with the same key. (Any: each operation has records of its own, which
        type checkers know from `TypedCall`.)

        Raises CallRefused with ``code``, ``field``, ``rule`` and ``retry_after_ms``; CallLost where the link of a call
        without a key ended before the answer; trio.TooSlowError, ClientClosed, and LocalProtocolError for arguments
        that the operation does not take.
        """
        row, request = request_of(operation, arguments)
        return await self._core.calls.call(row, request, key, timeout_s)

    async def send_direct(
        self,
        template: Any,
        values: Mapping[str, Mapping[str, str]],
        *,
        batch: str,
        type: int = MessageType.ANNOUNCEMENT,
        expires_s: int | None = None,
        timeout_s: float = BATCH_TIMEOUT_S,
    ) -> BatchState:
        """Send each user a must-deliver message with values of its own; return when all are on the broker's disk.

        ``template``: a payload of ``type`` in whose strings ``{name}`` stands for a value; ``values``: the values of
        each user, by user id. The role must be APP. A user gets one message of a ``batch``, ever; so after any failure
        sending it again is safe, and sends what is missing. Within ``timeout_s`` for each part of some hundred users
        the call survives lost links.

        The result counts these users (``sent`` now, ``repeated``: had it before) and, in the last three numbers, the
        whole batch. Raises LocalProtocolError with nothing sent, naming the user or field and the rule; CallRefused,
        trio.TooSlowError and ClientClosed, where a part may have been sent.
        """
        return await self._core.batches.send(template, values, batch, type, expires_s, timeout_s)

    async def batch_state(self, batch: str, *, timeout_s: float = BATCH_TIMEOUT_S) -> DirectProgress:
        """Return how many messages of a batch are in each state. Raises as `send_direct`."""
        return await self._core.batches.progress(batch, timeout_s)


def core_of(client: Client) -> ClientCore:
    """Return the internals of ``client``: for `connect` and for tests."""
    return client._core
