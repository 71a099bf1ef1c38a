"""Python client: rooms, posts and events over one link that reconnects by itself.

    async with open_client("roomcast://127.0.0.1:7400", token=token) as client:
        room = await client.join("lobby")
        result = await room.post_danmaku("好看")
        async for event in room:
            ...

One task runs links one after another, as the state machine `protocol.reconnect` decides. On each new link the client
requests every room again, in the same write as HELLO and AUTH: by RESUME with the last position, so that the
application gets each event of lanes 0-2 exactly once, or a `Gap` that names those that are lost.

What the peer or the network does never raises an exception in the application's task; it is an event, a result, or
(once the client has ended) ClientClosed. Every request has a timeout, and the end of a link ends every open request.

The rooms share one link. When the inbox of one room is full of events that may not be dropped, the client stops reading
for all of them: an application has to read every room that it joins, or leave it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from ..codes import CloseCode, ErrorCode, MessageType, Opcode, Outcome, Tier
from ..connection import Connection, Frame
from ..errors import LocalProtocolError
from ..messages import (
    Ack,
    Auth,
    Authenticated,
    BatchState,
    Direct,
    ErrorReply,
    Join,
    Pong,
    Post,
    Resume,
    SendDirect,
    ServerHello,
    Side,
)
from ..reconnect import Reconnect, ReconnectState, Signal
from .batches import BATCH_TIMEOUT_S, BatchSender
from .credentials import Credentials
from .directs import ClientEvents, Directs
from .events import (
    ClientClosed,
    ClientEvent,
    Connected,
    Disconnected,
    Fault,
    MessagesMissed,
    Position,
    PostResult,
    Pulse,
)
from .inbox import Inbox
from .link import Ending, Hello, Link
from .posts import Posts, Waiter
from .room import JoinedRoom
from .room_table import RoomTable
from .transports import Address, Connector, PipeLost

__all__ = ["Client"]

JOIN_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 3.0
"""Timeout for sending the remaining likes and GOAWAY, also under cancellation."""


class Client:
    """Client of one user: a link to a broker and the rooms on it. `connect.open_client` creates it."""

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        hello: Hello,
        connect: Connector,
        *,
        reconnect: bool,
        rng: random.Random,
        wall_ms: Callable[[], int],
        handshake_timeout_s: float,
        inbox_items: int,
        inbox_bytes: int,
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._hello = hello
        self._connect = connect
        self._may_reconnect = reconnect
        self._rng = rng
        self._wall_ms = wall_ms
        self._handshake_timeout_s = handshake_timeout_s
        self._inbox_size = inbox_items, inbox_bytes
        self._machine = Reconnect(rng)
        self._checker = Connection(Side.CLIENT)
        self._link: Link | None = None
        self._posts = Posts()
        self._rooms = RoomTable(self._posts, rng, self._spawn)
        self._batches = BatchSender(self, rng)
        self._message_ids = 0
        self._nonce = f"{rng.getrandbits(64):016x}"
        self._inbox: Inbox[ClientEvent] = Inbox(inbox_items, inbox_bytes)
        self._directs = Directs(self._inbox, self._acknowledge)
        self._stopped = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()
        self.closed: ClientClosed | None = None
        """Why the client has ended, None while it is running."""
        self.user: Authenticated | None = None
        """Identity that the broker reported at the last authentication, None before the first."""
        self.server: ServerHello | None = None
        self.clock_offset_ms = 0.0
        """Estimate of the broker's clock minus the local one, in milliseconds."""
        self.has_crashed = False
        """Whether a task of the client has raised, which is a bug: the ``async with`` block raises it as a group."""
        self._is_closing = False
        self._background = trio.CancelScope(shield=True)

    # ---- public

    @property
    def is_connected(self) -> bool:
        """Whether a link is open and authenticated."""
        return self._machine.state is ReconnectState.OPEN

    @property
    def rooms(self) -> Mapping[str, JoinedRoom]:
        """Rooms by name, including those that are being left."""
        return self._rooms.by_name

    @property
    def dropped(self) -> int:
        """Events of `events` that were dropped because the application did not read them in time."""
        return self._inbox.dropped

    def server_ms(self) -> int:
        """Return the estimated time of the broker in Unix milliseconds, for countdowns to one of its deadlines."""
        return round(self._wall_ms() + self.clock_offset_ms)

    @property
    def unexpected_frames(self) -> int:
        """Frames that belong to no joined room, and answers to no open request."""
        return self._rooms.unexpected_frames

    @property
    def dropped_directs(self) -> int:
        """DIRECT messages not taken because the application does not read `events`; the broker keeps them."""
        return self._directs.dropped

    def set_token(self, token: str | None) -> None:
        """Send ``token`` on the next link (an open one keeps its identity). Raises LocalProtocolError."""
        self._checker.check(Auth(token))
        self._credentials = Credentials(token)

    async def wait_connected(self) -> None:
        """Wait until a link is open and authenticated. Raises ClientClosed."""
        await trio.lowlevel.checkpoint()
        while not self.is_connected:
            if self.closed is not None:
                raise ClientClosed(self.closed.code, self.closed.reason)
            await self._changed.park()

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
        self._checker.check(Join(room_name, tier) if position is None else Resume(room_name, tier, *position))
        with trio.fail_after(timeout_s):
            await trio.lowlevel.checkpoint()
            while (leaving := self.rooms.get(room_name)) is not None:
                if leaving.is_active:
                    raise LocalProtocolError("JOIN.room_name: is a room this client is in")
                await leaving.wait_ended()
            if self.closed is not None:
                raise ClientClosed(self.closed.code, self.closed.reason)
            room = JoinedRoom(self, room_name, tier, position, Inbox(*self._inbox_size))
            try:
                self._rooms.add(room)
                await room.wait_joined()
            except BaseException:
                self.leave(room)
                raise
        if room.snapshot is None:
            raise room.end_error or ClientClosed(None, "closed by this side")
        return room

    def events(self) -> ClientEvents:
        """Return the events outside the rooms: Direct, Connected, Disconnected, Pulse, MessagesMissed, Fault.

        After the first call a full inbox of DIRECT messages stops the client from reading the link; before it they
        are kept only while there is space (``dropped_directs`` counts the rest).
        """
        self._directs.has_reader = True
        return ClientEvents(self._inbox, self._directs)

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
        whole batch. Raises LocalProtocolError with nothing sent, naming the user or field and the rule; BatchRefused,
        trio.TooSlowError and ClientClosed, where a part may have been sent.
        """
        return await self._batches.send(template, values, batch, type, expires_s, timeout_s)

    async def batch_state(self, batch: str, *, timeout_s: float = BATCH_TIMEOUT_S) -> BatchState:
        """Return how many messages of a batch are pending, acknowledged and expired. Raises as `send_direct`."""
        return await self._batches.state(batch, timeout_s)

    # ---- `batches.BatchOwner`

    def check(self, message: SendDirect) -> None:
        """See `Connection.check`."""
        self._checker.check(message)

    async def wait_link(self) -> Link:
        """Return the authenticated link once there is one. Raises ClientClosed."""
        while True:
            await self.wait_connected()
            if self._link is not None and self._link.is_open:
                return self._link
            await self._changed.park()  # the link is ending; the state machine gets its signal next

    def next_sequence(self) -> int:
        """Return a request number of this client."""
        return self._rooms.next_sequence()

    # ---- `room.RoomOwner`

    async def post(
        self, room: JoinedRoom, type: int, payload: Any, client_msg_id: str | None, retry: bool, timeout_s: float
    ) -> PostResult:
        """See `JoinedRoom.post`."""
        if client_msg_id is None:
            self._message_ids += 1
            client_msg_id = f"{self._nonce}-{self._message_ids}"
        message = Post(int(type), client_msg_id, payload)
        self._checker.check(message)
        if self.closed is not None:
            raise ClientClosed(self.closed.code, self.closed.reason)
        await trio.lowlevel.checkpoint()
        is_sent, result = False, None
        with trio.move_on_after(timeout_s):
            while room.is_active:
                link = self._link
                if link is None or not link.is_open or not room.is_joined:
                    if not retry:
                        break
                    await room.changed.park()
                    continue
                await link.wait_writable()
                if link is not self._link or not link.is_open or not room.is_joined:
                    continue
                sequence = self._rooms.next_sequence()
                link.send(message, room.number, sequence)
                is_sent = True
                result = await self._posts.wait(sequence, Waiter(room, message.type, client_msg_id))
                if retry and result is not None and result.error_code == ErrorCode.NOT_JOINED and room.is_active:
                    result = None  # the room has crashed and is being rejoined: this says nothing about the post
                elif result is not None or not retry:
                    break
        if result is not None:
            return result
        if not is_sent and not room.is_active and self.closed is None:
            return PostResult(Outcome.REJECTED, client_msg_id, error_code=ErrorCode.NOT_JOINED, sent=False)
        return PostResult(None, client_msg_id, sent=is_sent)

    def leave(self, room: JoinedRoom) -> None:
        """Send LEAVE for ``room``; the answer ends it. Never waits."""
        self._rooms.leave(room)

    def forget(self, room: JoinedRoom) -> None:
        """End a room without the broker's answer."""
        self._rooms.forget(room)

    def start_likes(self, room: JoinedRoom) -> None:
        """Start the task that sends the room's likes."""
        self._spawn(room.run_likes)

    def _spawn(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        self._nursery.start_soon(task, *args)

    # ---- links

    async def _run(self) -> None:
        """Run links one after another until the state machine is closed."""
        machine = self._machine
        self._signal(Signal.START)
        ending = Ending(Signal.LOST, None, "closed by this side")
        while True:
            if machine.state is ReconnectState.CONNECTING:
                ending = self._credentials.classify(await self._run_link())
                self._on_link_closed(ending)
            elif machine.state is ReconnectState.WAITING and self._may_reconnect:
                await trio.sleep(machine.delay_s)
                self._signal(Signal.TIMER)
            else:
                break
        self._close(ending.code, ending.reason)

    def _signal(self, signal: Signal, ending: Ending | None = None) -> None:
        """Pass a signal to the state machine, unless the application has closed it."""
        now = trio.current_time()
        if self._machine.state is ReconnectState.CLOSED:
            return
        if ending is None:
            self._machine.handle(signal, now)
        else:
            self._machine.handle(
                signal,
                now,
                code=ending.code,
                retry_after_ms=ending.retry_after_ms,
                jitter_ms=ending.jitter_ms,
                hosts=ending.hosts,
            )

    async def _run_link(self) -> Ending:
        """Connect, run one link and return its ending."""
        try:
            address = self._address.at(self._machine.host)
        except ValueError as error:
            return Ending(Signal.LOST, None, str(error))
        async with trio.open_nursery() as nursery:
            ending = await self._connect_and_run(nursery, address)
            nursery.cancel_scope.cancel()
        return ending

    async def _connect_and_run(self, nursery: trio.Nursery, address: Address) -> Ending:
        token = await self._next_token()
        if isinstance(token, Ending):
            return token
        try:
            with trio.fail_after(self._handshake_timeout_s):
                pipe = await self._connect(nursery, address)
        except PipeLost as lost:
            return Ending.of_pipe(lost)
        except trio.TooSlowError:
            return Ending(Signal.LOST, None, f"no connection within {self._handshake_timeout_s:g} s")
        except (OSError, trio.BrokenResourceError) as error:  # from the application's connector
            return Ending(Signal.LOST, None, f"no connection: {type(error).__name__}")
        self._signal(Signal.CONNECTED)
        link = Link(
            pipe,
            self._hello._replace(token=token),
            self,
            rng=self._rng,
            wall_ms=self._wall_ms,
            handshake_timeout_s=self._handshake_timeout_s,
        )
        try:
            return await link.run()
        finally:
            self._link = None

    async def _next_token(self) -> str | Ending | None:
        """Return the token for the next link; a failure of the application's call counts as a failed connection."""
        try:
            with trio.fail_after(self._handshake_timeout_s):
                token = await self._credentials.next(trio.current_time())
            self._checker.check(Auth(token))
        except trio.TooSlowError:
            return Ending(Signal.LOST, None, f"no token within {self._handshake_timeout_s:g} s")
        except Exception as error:  # the application's: retried like a failed connection
            return Ending(Signal.LOST, None, f"no token: {type(error).__name__}: {error}")
        return token

    def _on_link_closed(self, ending: Ending) -> None:
        """Resolve every open request of the link and pass its ending to the state machine."""
        self._signal(ending.signal, ending)
        self._posts.resolve_unknown()
        self._batches.resolve_unknown()
        self._directs.link_closed()
        self._rooms.link_closed()
        comes_back = self._machine.state is ReconnectState.WAITING and self._may_reconnect
        retry_in_s = self._machine.delay_s if comes_back else None
        self._inbox.put_lossy(Disconnected(ending.code, ending.reason, retry_in_s))
        self._changed.unpark_all()

    def _close(self, code: int | None, reason: str) -> None:
        """End the client: every room's iteration ends, with an error unless the application closed the client."""
        if self.closed is not None:
            return
        self.closed = ClientClosed(code, reason)
        self._signal(Signal.CLOSE)
        self._rooms.close(lambda: None if self._is_closing else ClientClosed(code, reason))
        self._inbox.close()
        self._changed.unpark_all()
        self._stopped.set()

    async def run_background(self) -> None:
        """Run the nursery with every task of this client.

        It is shielded: the tasks that send GOAWAY have to outlive a cancelled application. `shut_down` ends them.
        """
        try:
            with self._background:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._run)
        except BaseException:
            self.has_crashed = True
            raise

    async def shut_down(self) -> None:
        """Send the remaining likes and GOAWAY, then end. At most CLOSE_TIMEOUT_S, even when cancelled."""
        self._is_closing = True
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            async with trio.open_nursery() as nursery:
                for room in self._rooms:
                    room.stop_reading()
                    nursery.start_soon(room.flush_likes)
            self._signal(Signal.CLOSE)
            if self._link is not None:
                self._link.finish(CloseCode.CLIENT_DONE, "the client is done")
                await self._stopped.wait()
        self._close(None, "closed by this side")
        self._background.cancel()

    # ---- `link.Receiver`

    def link_opened(self, link: Link) -> None:
        self._link = link
        self._rooms.link_opened(link)

    def link_authenticated(self, link: Link) -> None:
        assert link.user is not None
        attempts = self._machine.attempt
        self._signal(Signal.AUTHENTICATED)
        self.user, self.server = link.user, link.hello
        self._credentials.accepted(link.user, trio.current_time())
        link.renew_at = self._credentials.renew_at()
        self.clock_offset_ms = link.clock.offset_ms
        server = link.hello.server if link.hello is not None else ""
        self._inbox.put_lossy(Connected(link.user.user_id, link.user.name, link.user.expires_at_ms, server, attempts))
        self._changed.unpark_all()

    async def before_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.DIRECT:
            if self._directs.has_reader:
                await self._inbox.wait_space()
        else:
            await self._rooms.wait_space(frame)

    def on_pong(self, pong: Pong, rtt_s: float | None) -> None:
        self._rooms.on_pulse(pong.rooms)
        if pong.ticket and self._link is not None:
            self._credentials.on_ticket(pong.ticket, trio.current_time())
            self._link.renew_at = self._credentials.renew_at()
        if rtt_s is not None and self._link is not None:
            self.clock_offset_ms = self._link.clock.offset_ms
            self._inbox.put_lossy(
                Pulse(pong.server_ms, rtt_s * 1000, self.clock_offset_ms, pong.rooms, pong.missed_chat)
            )

    def on_frame(self, link: Link, frame: Frame) -> None:
        message = frame.message
        if isinstance(message, Ack):
            for result in message.results:
                self._rooms.unexpected_frames += not self._posts.on_result(result)
        elif isinstance(message, ErrorReply):
            sequence = frame.sequence
            if not (
                self._posts.on_error(sequence, message)
                or self._rooms.on_error(sequence, message)
                or self._batches.on_answer(sequence, message)
            ):
                self._inbox.put_lossy(Fault(message.code, message.message, message.field, message.retry_after_ms))
        elif isinstance(message, BatchState):
            self._rooms.unexpected_frames += not self._batches.on_answer(frame.sequence, message)
        elif not isinstance(message, Direct):
            self._rooms.on_frame(frame)
        elif message.type == MessageType.MISSED and not message.direct_id:
            self._on_missed(message.payload)
        else:
            self._directs.on_direct(message)

    def _on_missed(self, payload: Any) -> None:
        """Process the payload of a DIRECT of type MISSED: `messages.Missed`, or any value (hence Any)."""
        if isinstance(payload, tuple) and payload and all(type(each) is int for each in payload[:2]):
            missed = MessagesMissed(payload[0], payload[1] if len(payload) > 1 else 0, is_local=False)
            self._inbox.put_lossy(missed, missed.chat, missed.ambient)
        else:
            self._rooms.unexpected_frames += 1

    def _acknowledge(self, direct_id: int) -> None:
        if self._link is not None:
            self._link.acknowledge_direct(direct_id)
