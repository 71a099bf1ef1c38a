"""One connection to a Redis or Valkey server that comes back by itself: RESP3, pipelined, on Trio.

Whatever is submitted between two wake-ups of the writer goes out in one write; answers come in order. A request that
was never written fails with `EngineUnavailable`, one that was written and has no answer with `OutcomeUnknown`. A
cancelled caller leaves its place in the line, and its answer is dropped.

Nothing is kept over a reconnection: what depends on the connection (scripts, subscriptions) is in the handshake.
"""

from __future__ import annotations

import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import hiredis
import trio

from broker.config.redis_url import Address
from broker.engine.base import EngineError, EngineFull, EngineRefused, EngineUnavailable, OutcomeUnknown

__all__ = [
    "Command",
    "LinkLimits",
    "RedisLink",
    "Reply",
    "ReplyHandler",
    "ScriptUnknown",
    "SlotElsewhere",
    "SlotInMotion",
    "ask_once",
    "error_of",
    "pack",
    "tls_context",
]

Command = tuple[str | bytes | int, ...]
Reply = Any  # what a server answers: text, numbers, lists and maps of them
ReplyHandler = Callable[[Reply], None]
"""Gets an answer, or an `EngineError`."""

RECEIVE_BYTES = 64 * 1024
WRITE_BYTES = 256 * 1024
"""One write takes about so much, so that a large backlog is no single copy."""
INCOMPLETE = object()
UNAVAILABLE = ("LOADING", "READONLY", "NOREPLICAS", "MISCONF", "MASTERDOWN", "BUSY", "CLUSTERDOWN")
REFUSED = ("NOAUTH", "WRONGPASS", "NOPERM", "NOPROTO", "DENIED")


class ScriptUnknown(EngineError):
    """The server does not have the script; nothing was done."""


class SlotElsewhere(EngineError):
    """Another server of the Cluster has the slot; nothing was done. ``is_once``: of this command only, for the slot is
    on its way there."""

    def __init__(self, text: str, asked: Address) -> None:
        super().__init__(f"the engine answered {text}")
        kind, slot, where = text.split(" ")[:3]
        host, _, port = where.rpartition(":")
        self.is_once = kind == "ASK"
        self.slot = int(slot)
        self.address: Address = host or asked[0], int(port)


class SlotInMotion(EngineUnavailable):
    """The keys of a command are in part on another server of the Cluster already; nothing was done."""


class LinkDown(Exception):
    """The connection has ended, and why."""


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """Deadlines and bounds of one link."""

    connect_timeout_s: float = 3.0
    """From the name to the answers of the handshake."""
    ping_timeout_s: float = 1.0
    """A server from which nothing has come for so long after a PING is gone."""
    retry_min_s: float = 0.02
    retry_max_s: float = 0.5
    """The pause before a new connection is drawn from this range, and grows with the failures in a row."""
    max_items: int = 20_000
    """Requests without an answer."""
    max_bytes: int = 32 * 1024 * 1024
    """Of them together."""


class UnansweredRequest(NamedTuple):
    """One request without an answer. ``on_reply`` None: the answer is dropped."""

    on_reply: ReplyHandler | None
    nbytes: int


def pack(command: Command) -> bytes:
    """Return a command as it is written."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its hint says one argument
    return packed


def error_of(reply: hiredis.ReplyError, asked: Address = ("", 0)) -> EngineError:
    """Return what an error of the server means for the caller. ``asked``: the server, one of a Cluster perhaps."""
    text = str(reply)
    code = text.partition(" ")[0]
    if code == "OOM":
        return EngineFull("the engine is at its bound of memory")
    if code in UNAVAILABLE:
        return EngineUnavailable(f"the engine cannot write now: {text}")
    if code in REFUSED:
        return EngineRefused(f"the engine refuses this: {text}")
    if code == "NOSCRIPT":
        return ScriptUnknown(text)
    if code in ("MOVED", "ASK"):
        return SlotElsewhere(text, asked)
    if code == "TRYAGAIN":
        return SlotInMotion(f"the engine cannot do this now: {text}")
    return EngineError(f"the engine answered {text}")


async def ask_once(stream: trio.abc.Stream, commands: Sequence[Command]) -> list[Reply]:
    """Send commands on a connection that is used for nothing else, and return the answers.

    EngineError: the first of the server's errors. trio.BrokenResourceError: the server has closed it, or is none.
    """
    await stream.send_all(b"".join(map(pack, commands)))
    reader = hiredis.Reader(notEnoughData=INCOMPLETE)
    replies: list[Reply] = []
    while len(replies) < len(commands):
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise trio.BrokenResourceError("the server closed the connection")
        reader.feed(bytes(data))
        try:
            while (reply := reader.gets()) is not INCOMPLETE:
                if type(reply) is hiredis.ReplyError:
                    raise error_of(reply)
                replies.append(reply)
        except hiredis.ProtocolError as error:
            raise trio.BrokenResourceError(str(error)) from error
    return replies


class RedisLink:
    """A connection that `run` keeps up. ``name``: for messages; ``address``: of a server of a Cluster.

    ``connect`` opens the stream; ``handshake`` returns the commands that each connection begins with; ``on_up`` gets
    their answers (errors among them as `hiredis.ReplyError`) and raises EngineRefused or EngineUnavailable where the
    connection is of no use; ``on_down`` gets the reason; ``on_push`` what the server pushes; ``on_moved`` that a
    command of `send` was refused, for another server has its slot.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[trio.abc.Stream]],
        handshake: Callable[[], Sequence[Command]],
        *,
        on_up: Callable[[Sequence[Reply]], None],
        on_down: Callable[[str], None],
        on_push: Callable[[Sequence[Reply]], None] = lambda push: None,
        on_moved: Callable[[SlotElsewhere], None] | None = None,
        address: Address = ("", 0),
        limits: LinkLimits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self._connect = connect
        self._handshake = handshake
        self._on_up = on_up
        self._on_down = on_down
        self._on_push = on_push
        self._on_moved = on_moved
        self._limits = limits or LinkLimits()
        self._rng = rng or random.Random()
        self.is_up = False
        self._unsent: deque[tuple[bytes, UnansweredRequest | None]] = deque()
        """None: the command has no answer."""
        self._sent: deque[UnansweredRequest] = deque()
        self._nbytes = 0
        """Of requests without an answer."""
        self._wake = trio.Event()
        self._heard_at = 0.0
        """When the server last sent something: Trio's time."""
        self._scope: trio.CancelScope | None = None
        self._reason = "it has not connected yet"

    # ---- requests

    def submit(self, command: Command, on_reply: ReplyHandler | None = None) -> None:
        """Send a command; ``on_reply`` gets its answer or an `EngineError`, exactly once, from the task of `run`.

        EngineUnavailable: the link is down, or at its bounds; nothing was sent.
        """
        packed = self._packed(command)
        self._nbytes += len(packed)
        self._unsent.append((packed, UnansweredRequest(on_reply, len(packed))))
        self._wake.set()

    def send(self, command: Command) -> None:
        """Send a command that the server answers with pushes only. EngineUnavailable as for `submit`."""
        self._unsent.append((self._packed(command), None))
        self._wake.set()

    def _packed(self, command: Command) -> bytes:
        """Return a command as it is written, if it may be."""
        if not self.is_up:
            raise EngineUnavailable(f"the {self.name} link is down: {self._reason}")
        packed = pack(command)
        limits = self._limits
        if len(self._unsent) + len(self._sent) >= limits.max_items or self._nbytes + len(packed) > limits.max_bytes:
            raise EngineUnavailable(f"too much waits for the {self.name} link")
        return packed

    async def request(self, *command: str | bytes | int) -> Reply:
        """Send a command and return its answer. Raises the `EngineError` of a refusal."""
        answered = trio.Event()
        replies: list[Reply] = []

        def take(reply: Reply) -> None:
            replies.append(reply)
            answered.set()

        try:
            self.submit(command, take)
        except EngineUnavailable:
            await trio.lowlevel.checkpoint()
            raise
        await answered.wait()
        reply = replies[0]
        if isinstance(reply, EngineError):
            raise reply
        return reply

    async def exchange(self, *command: str | bytes | int) -> tuple[Reply, RedisLink]:
        """Send a command; return its answer, and the link over which it came."""
        return await self.request(*command), self

    def link_of(self, key: str | bytes) -> RedisLink | None:
        """Return the link to the server that has a key: this one has all."""
        return self

    @property
    def reason(self) -> str:
        """Why the link is down, or was last."""
        return self._reason

    def reconnect(self, reason: str) -> None:
        """End the connection; `run` opens another."""
        self._reason = reason
        if self._scope is not None:
            self._scope.cancel()

    # ---- the connection

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the connection up until cancelled; started once the first is up. EngineRefused: at the first one."""
        failures = 0
        is_started = False
        while True:
            was_up = False
            try:
                async with await self._open() as stream:
                    was_up = True
                    if not is_started:
                        is_started = True
                        task_status.started()
                    await self._serve(stream)
            except EngineRefused as error:
                if not is_started:
                    raise
                self._reason = str(error)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, LinkDown) as error:
                self._reason = str(error) or ("no answer in time" if isinstance(error, trio.TooSlowError) else "broken")
            except (EngineUnavailable, hiredis.HiredisError) as error:
                self._reason = str(error)
            finally:
                self._fail_all()
            failures = 0 if was_up else failures + 1
            limits = self._limits
            most = min(limits.retry_max_s, limits.retry_min_s * 2 ** min(failures, 10))
            await trio.sleep(self._rng.uniform(limits.retry_min_s, max(most, limits.retry_min_s * 2)))

    async def _open(self) -> trio.abc.Stream:
        """Connect and do the handshake; the link is up with the answers."""
        with trio.fail_after(self._limits.connect_timeout_s):
            stream = await self._connect()
            try:
                commands = self._handshake()
                await stream.send_all(b"".join(map(pack, commands)))
                self._reader = hiredis.Reader(notEnoughData=INCOMPLETE)
                replies: list[Reply] = []
                while len(replies) < len(commands):
                    data = await stream.receive_some(RECEIVE_BYTES)
                    if not data:
                        raise LinkDown("the server closed the connection in the handshake")
                    self._reader.feed(bytes(data))
                    while len(replies) < len(commands) and (reply := self._reader.gets()) is not INCOMPLETE:
                        replies.append(reply)
                self.is_up = True
                self._heard_at = trio.current_time()
                self._on_up(replies)
            except BaseException:
                self.is_up = False
                await trio.aclose_forcefully(stream)
                raise
        return stream

    async def _serve(self, stream: trio.abc.Stream) -> None:
        """Write, read and watch until one of them ends."""
        errors: list[Exception] = []

        async def until_end(serve: Callable[[trio.abc.Stream], Awaitable[None]]) -> None:
            try:
                await serve(stream)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, hiredis.HiredisError) as error:
                errors.append(error)
            except LinkDown as error:
                errors.append(error)
            nursery.cancel_scope.cancel()

        self._reason = ""
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            for serve in (self._write, self._read, self._watch):
                nursery.start_soon(until_end, serve)
        self._scope = None
        raise LinkDown(self._reason or (str(errors[0]) if errors else "") or "the connection broke")

    async def _write(self, stream: trio.abc.Stream) -> None:
        while True:
            if not self._unsent:
                self._wake = trio.Event()
                await self._wake.wait()
            parts, size = [], 0
            while self._unsent and size < WRITE_BYTES:
                packed, waiting = self._unsent.popleft()
                parts.append(packed)
                size += len(packed)
                if waiting is not None:
                    self._sent.append(waiting)
            await stream.send_all(b"".join(parts))

    async def _read(self, stream: trio.abc.Stream) -> None:
        reader = self._reader
        while True:
            while (reply := reader.gets()) is not INCOMPLETE:
                if type(reply) is hiredis.PushNotification:
                    self._on_push(reply)
                    continue
                error = error_of(reply, self.address) if type(reply) is hiredis.ReplyError else None
                if self._on_moved is not None and isinstance(error, SlotElsewhere):
                    self._on_moved(error)
                    continue
                if not self._sent:
                    raise LinkDown(f"the server answered what was not asked: {reply!r:.200}")
                waiting = self._sent.popleft()
                self._nbytes -= waiting.nbytes
                if waiting.on_reply is not None:
                    waiting.on_reply(reply if error is None else error)
            data = await stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise LinkDown("the server closed the connection")
            self._heard_at = trio.current_time()
            reader.feed(bytes(data))

    async def _watch(self, stream: trio.abc.Stream) -> None:
        """Ask where nothing was heard for a while; end the connection where nothing comes."""
        limit_s = self._limits.ping_timeout_s
        while True:
            await trio.sleep(limit_s)
            if trio.current_time() - self._heard_at >= limit_s:
                asked_at = trio.current_time()
                self._unsent.append((pack(("PING",)), UnansweredRequest(None, 0)))
                self._wake.set()
                await trio.sleep(limit_s)
                if self._heard_at < asked_at:
                    raise LinkDown(f"the server has not answered for {limit_s:g} s")

    def _fail_all(self) -> None:
        """End the life of a connection: every request hears of it."""
        was_up, self.is_up = self.is_up, False
        sent, unsent = list(self._sent), list(self._unsent)
        self._sent, self._unsent, self._nbytes = deque(), deque(), 0
        reason = self._reason
        if was_up:
            self._on_down(reason)
        unknown = f"the {self.name} link broke before the answer: {reason}"
        unavailable = f"the {self.name} link broke: {reason}"
        for waiting in sent:
            if waiting.on_reply is not None:
                waiting.on_reply(OutcomeUnknown(unknown))
        for _, never_sent in unsent:
            if never_sent is not None and never_sent.on_reply is not None:
                never_sent.on_reply(EngineUnavailable(unavailable))


def tls_context(ca_file: str = "", cert_file: str = "", key_file: str = "") -> ssl.SSLContext:
    """Return the context of a client. ``ca_file`` "": the system's authorities. OSError, ssl.SSLError for bad files."""
    context = ssl.create_default_context(cafile=ca_file or None)
    if cert_file:
        context.load_cert_chain(cert_file, key_file or None)
    return context
