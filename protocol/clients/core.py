"""Core of a client: one task runs links one after another, as the state machine `protocol.reconnect` decides.

On each new link the client requests every room again, in the same write as HELLO and AUTH: by RESUME with the last
position, so that the application gets each event of lanes 0-2 exactly once, or a `Gap` that names those that are lost.

What the peer or the network does never raises an exception in the application's task; it is an event, a result, or
(once the client has ended) ClientClosed. Every request has a timeout, and the end of a link ends every open request.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from ..codes import CloseCode, MessageType, Opcode, Tier
from ..connection import Connection, Frame
from ..messages import (
    Ack,
    Auth,
    Authenticated,
    Direct,
    ErrorReply,
    Message,
    Pong,
    Result,
    ServerHello,
    Side,
)
from ..reconnect import Reconnect, ReconnectState, Signal
from .batches import BatchSender
from .calls import CallSender
from .credentials import Credentials
from .dictionary_fetch import DictionaryError, fetch_dictionary
from .directs import Directs
from .events import (
    CertificateRefused,
    ClientClosed,
    ClientEvent,
    Connected,
    Disconnected,
    Fault,
    MessagesMissed,
    Position,
    PostDecided,
    PostResult,
    Pulse,
    TokenRefused,
)
from .inbox import Inbox
from .link import Ending, Hello, Link
from .membership import RoomMembership
from .posts import Posts, PostSender
from .renewal import TokenRenewal
from .room_table import RoomTable
from .transports import Address, Connector, PipeLost

__all__ = ["ClientCore"]

CLOSE_TIMEOUT_S = 3.0
"""Timeout for sending the remaining likes and GOAWAY, also under cancellation."""


class ClientCore:
    """Links, rooms and requests of one user. `client.Client` is what the application holds of it."""

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
        self.link: Link | None = None
        self.posts = Posts()
        self.post_sender = PostSender(self, self.posts, rng)
        self.rooms = RoomTable(self.posts, rng, self.spawn)
        self.calls = CallSender(self)
        self.batches = BatchSender(self.calls, rng)
        self._renewal = TokenRenewal(self, partial(self._next_token, renews=True), rng)
        self.inbox: Inbox[ClientEvent] = Inbox(inbox_items, inbox_bytes)
        self.directs = Directs(self.inbox, self._acknowledge)
        self._failure: Ending | None = None
        """Ending of the last link."""
        self._stopped = trio.Event()
        self.changed = trio.lowlevel.ParkingLot()
        """Woken by every change of the link."""
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

    @property
    def is_connected(self) -> bool:
        """Whether a link is open and authenticated."""
        return self._machine.state is ReconnectState.OPEN

    @property
    def is_closed(self) -> bool:
        return self.closed is not None

    def server_ms(self) -> int:
        """See `Client.server_ms`."""
        return round(self._wall_ms() + self.clock_offset_ms)

    def set_token(self, token: str | None) -> None:
        """See `Client.set_token`."""
        self.check(Auth(token))
        self._credentials = Credentials(token)

    async def change_token(self, token: str, timeout_s: float) -> Authenticated:
        """See `Client.change_token`."""
        self.check(Auth(token))
        with trio.fail_after(timeout_s):
            while True:
                link = await self.wait_link()
                answer = await self.calls.request(link, Auth(token))
                if isinstance(answer, Authenticated):
                    self._credentials.changed(token)
                    return answer
                if isinstance(answer, ErrorReply):
                    raise TokenRefused(answer.code, answer.message, answer.field, answer.retry_after_ms)
                await trio.lowlevel.checkpoint()

    async def wait_opened(self, timeout_s: float) -> None:
        """Wait for the first link. Raises ClientClosed, CertificateRefused, and trio.TooSlowError with the reason."""
        with trio.move_on_after(timeout_s):
            await trio.lowlevel.checkpoint()
            while not self.is_connected:
                self.raise_if_closed()
                if self._failure is not None and self._failure.certificate:
                    raise CertificateRefused(f"{self._address.host_and_port}: {self._failure.reason}")
                await self.changed.park()
            return
        why = self._failure.reason if self._failure is not None else "no attempt has ended"
        raise trio.TooSlowError(f"no link to {self._address.host_and_port} within {timeout_s:g} s: {why}")

    async def wait_connected(self) -> None:
        """Wait until a link is open and authenticated. Raises ClientClosed."""
        await trio.lowlevel.checkpoint()
        while not self.is_connected:
            self.raise_if_closed()
            await self.changed.park()

    def raise_if_closed(self) -> None:
        """Raise ClientClosed after the end of the client."""
        if self.closed is not None:
            raise ClientClosed(self.closed.code, self.closed.reason)

    def new_membership(self, room_name: str, tier: Tier, position: Position | None) -> RoomMembership:
        """Return a membership that is not requested yet."""
        return RoomMembership(self, room_name, tier, position, Inbox(*self._inbox_size))

    # ---- `calls.CallOwner`, `posts.PostOwner`

    def check(self, message: Message) -> None:
        """See `Connection.check`."""
        self._checker.check(message)

    async def wait_link(self) -> Link:
        """Return the authenticated link once there is one. Raises ClientClosed."""
        while True:
            await self.wait_connected()
            if self.link is not None and self.link.is_open:
                return self.link
            await self.changed.park()  # the link is ending; the state machine gets its signal next

    def next_sequence(self) -> int:
        """Return a request number of this client."""
        return self.rooms.next_sequence()

    # ---- `membership.MembershipOwner`

    async def post(
        self, room: RoomMembership, type: int, payload: Any, client_msg_id: str | None, retry: bool, timeout_s: float
    ) -> PostResult:
        """See `JoinedRoom.post`."""
        return await self.post_sender.post(room, type, payload, client_msg_id, retry, timeout_s)

    def leave(self, room: RoomMembership) -> None:
        """Send LEAVE for ``room``; the answer ends it. Never waits."""
        self.rooms.leave(room)

    def forget(self, room: RoomMembership) -> None:
        """End a room without the broker's answer."""
        self.rooms.forget(room)

    def spawn(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that ends with the client at the latest."""
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
        self.close(ending.code, ending.reason)

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
            self.link = None

    async def _next_token(self, *, renews: bool = False) -> str | Ending | None:
        """Return the token for the next link, or a newer one for this link (``renews``).

        A failure of the application's call counts as a failed connection.
        """
        credentials = self._credentials
        try:
            with trio.fail_after(self._handshake_timeout_s):
                token = await (credentials.newer() if renews else credentials.next(trio.current_time()))
            self._checker.check(Auth(token))
        except trio.TooSlowError:
            return Ending(Signal.LOST, None, f"no token within {self._handshake_timeout_s:g} s")
        except Exception as error:  # the application's: retried like a failed connection
            return Ending(Signal.LOST, None, f"no token: {type(error).__name__}: {error}")
        return token

    def _on_link_closed(self, ending: Ending) -> None:
        """Resolve every open request of the link and pass its ending to the state machine."""
        self._failure = ending
        self._signal(ending.signal, ending)
        self.posts.resolve_unknown()
        self.calls.resolve_unknown()
        self.directs.link_closed()
        self.rooms.link_closed()
        comes_back = self._machine.state is ReconnectState.WAITING and self._may_reconnect
        retry_in_s = self._machine.delay_s if comes_back else None
        self.inbox.put_lossy(Disconnected(ending.code, ending.reason, retry_in_s, ending.certificate))
        self.changed.unpark_all()

    def close(self, code: int | None, reason: str) -> None:
        """End the client: every room's iteration ends, with an error unless the application closed the client."""
        if self.closed is not None:
            return
        self.closed = ClientClosed(code, reason)
        self._signal(Signal.CLOSE)
        self.rooms.close(lambda: None if self._is_closing else ClientClosed(code, reason))
        self.inbox.close()
        self.changed.unpark_all()
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
                for room in self.rooms:
                    room.stop_reading()
                    nursery.start_soon(room.likes.flush)
            self._signal(Signal.CLOSE)
            if self.link is not None:
                self.link.finish(CloseCode.CLIENT_DONE, "the client is done")
                await self._stopped.wait()
        self.close(None, "closed by this side")
        self._background.cancel()

    # ---- `link.Receiver`

    def link_opened(self, link: Link) -> None:
        self.link = link
        self.rooms.link_opened(link)

    def link_authenticated(self, link: Link) -> None:
        assert link.user is not None
        attempts = self._machine.attempt
        self._signal(Signal.AUTHENTICATED)
        self.user, self.server = link.user, link.hello
        self._credentials.accepted(link.user, trio.current_time())
        if self._credentials.wants_tickets:
            link.spawn(self._renewal.run, link, link.user.expires_at_ms, self._handshake_timeout_s)
        if link.hello is not None and link.hello.dictionaries:
            link.spawn(self._fetch_dictionary, link)
        link.renew_at = self._credentials.renew_at()
        self.clock_offset_ms = link.clock.offset_ms
        server = link.hello.server if link.hello is not None else ""
        self.inbox.put_lossy(Connected(link.user.user_id, link.user.name, link.user.expires_at_ms, server, attempts))
        self.changed.unpark_all()

    async def _fetch_dictionary(self, link: Link) -> None:
        """Get a dictionary for this link; a failure is a Fault, and the link goes on without it."""
        if self._hello.dictionaries is not None:
            try:
                await fetch_dictionary(link, self.calls, self._hello.dictionaries, self._rng)
            except DictionaryError as error:
                self.inbox.put_lossy(Fault(error.code, str(error), "dictionaries", 0))

    async def before_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.DIRECT:
            if self.directs.has_reader:
                await self.inbox.wait_space()
        else:
            await self.rooms.wait_space(frame)

    def on_pong(self, pong: Pong, rtt_s: float | None) -> None:
        self.rooms.on_pulse(pong.rooms)
        if self._renewal.on_pong(pong) and self.user is not None:
            self.user = self.user._replace(expires_at_ms=pong.expires_at_ms)
            self._credentials.renewed()
        if pong.ticket and self.link is not None:
            self._credentials.on_ticket(pong.ticket, trio.current_time())
            self.link.renew_at = self._credentials.renew_at()
        if rtt_s is not None and self.link is not None:
            self.clock_offset_ms = self.link.clock.offset_ms
            self.inbox.put_lossy(
                Pulse(pong.server_ms, rtt_s * 1000, self.clock_offset_ms, pong.rooms, pong.missed_chat)
            )

    def on_frame(self, link: Link, frame: Frame) -> None:
        message = frame.message
        if isinstance(message, Ack):
            firsts = {first.sequence: first for first in message.firsts}
            reasons = {reason.sequence: reason for reason in message.reasons}
            for result in message.results:
                sequence = result.sequence
                if self.posts.on_result(result, firsts.get(sequence), reasons.get(sequence)):
                    continue
                decided = self.posts.on_decided(result, reasons.get(sequence))
                if decided is None:
                    self.rooms.unexpected_frames += 1
                else:
                    self.inbox.put_lossy(PostDecided(decided))
        elif isinstance(message, ErrorReply):
            sequence = frame.sequence
            if not (
                self.posts.on_error(sequence, message)
                or self.rooms.on_error(sequence, message)
                or self.calls.on_answer(sequence, message)
                or self._renewal.on_error(sequence, message)
            ):
                self.inbox.put_lossy(Fault(message.code, message.message, message.field, message.retry_after_ms))
        elif isinstance(message, Result):
            self.rooms.unexpected_frames += not self.calls.on_answer(frame.sequence, message)
        elif isinstance(message, Authenticated):
            self._on_new_rights(link, frame.sequence, message)
        elif not isinstance(message, Direct):
            self.rooms.on_frame(frame)
        elif message.type == MessageType.MISSED and not message.direct_id:
            self._on_missed(message.payload)
        else:
            self.directs.on_direct(message)

    def _on_new_rights(self, link: Link, sequence: int, user: Authenticated) -> None:
        """Process the answer to AUTH on an open link: what it says counts from now on."""
        if not self.calls.on_answer(sequence, user):
            self.rooms.unexpected_frames += 1
            return
        self.user = link.user = user
        self._credentials.accepted(user, trio.current_time())
        self._renewal.on_changed(user.expires_at_ms)
        link.renew_at = self._credentials.renew_at()

    def _on_missed(self, payload: Any) -> None:
        """Process the payload of a DIRECT of type MISSED: `messages.Missed`, or any value (hence Any)."""
        if isinstance(payload, tuple) and payload and all(type(each) is int for each in payload[:2]):
            missed = MessagesMissed(payload[0], payload[1] if len(payload) > 1 else 0, is_local=False)
            self.inbox.put_lossy(missed, missed.chat, missed.ambient)
        else:
            self.rooms.unexpected_frames += 1

    def _acknowledge(self, direct_id: int) -> None:
        if self.link is not None:
            self.link.acknowledge_direct(direct_id)
