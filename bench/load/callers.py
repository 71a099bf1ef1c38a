"""Links of users that all call operations: they join one room and call on a schedule; the platform calls over HTTP.

The schedule does not wait for answers. `Callers` is the base of the processes that play a flash sale, red packets and a
lottery (`claimers`, `grabbers`, `entrants`); each compares what its users were answered with what the broker counts.
"""

from __future__ import annotations

import http.client
import json
import select
import time
from abc import ABC, abstractmethod
from collections import Counter
from typing import Any

import msgspec

from bench.load.child import CommandReader, emit, read_spec, set_alarm
from bench.load.client_link import ClientLink, LinkState
from bench.load.sockets import close_all, raise_descriptors, source_address
from bench.load.tokens import TokenMaker
from bench.measure import now_us
from protocol.codes import Feature, Lane, MessageType, Opcode, Tier
from protocol.connection import encode
from protocol.frames import HEADER_BYTES, header_fields, unpack_body
from protocol.messages import MAGIC, VERSION, Auth, Call, ClientHello, Join, Message, Ping

__all__ = ["LEAD_MS", "CallerSpec", "Callers", "ControlApi", "play"]

LEAD_MS = 1000
"""How long before its opening an activity is created."""
OPENING_MS = 5
"""Calls begin so long after the opening: one before it would be refused."""
ANSWER_S = 60.0
"""Longest wait for the last answer."""
CONNECT_AT_ONCE = 100
PING_S = 20.0
LAST_EVENTS_S = 5.0
"""After the activity is over, so that its last events arrive."""
IDLE_S = 5.0
"""After so long without a request the broker may have closed the connection of the platform."""
READ_BYTES = 1 << 18
_ANSWERS = (Opcode.RESULT, Opcode.ERROR)


class CallerSpec(msgspec.Struct, kw_only=True):
    """Spec of a process. ``room``: that has the activity; ``links``: users; ``over_s``: in which they call, from the
    opening on; ``calls``: of all of them together."""

    host: str
    port: int
    api_host: str
    api_port: int
    room: str
    links: int
    calls: int
    over_s: float
    auth: str
    secret: str | None
    lifetime_s: float


class _Link(ClientLink):
    """One link. ``room``: number of the room, 0 = it has not joined."""

    __slots__ = ("index", "room")

    def __init__(self, index: int) -> None:
        super().__init__(websocket=False)
        self.index = index
        self.room = 0


class ControlApi:
    """Calls of the platform over one connection of the control API."""

    def __init__(self, spec: CallerSpec) -> None:
        self._room = spec.room
        self._connection = http.client.HTTPConnection(spec.api_host, spec.api_port, timeout=30)
        self._used_at = 0.0

    def call(self, operation: str, key: str = "", **fields: Any) -> Any:
        """Return the result of an operation; its problem where it is refused. Any: its JSON."""
        path = f"/v1/{operation.replace('.', '/')}"
        body = json.dumps({"room": self._room, **fields})
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        if time.monotonic() > self._used_at + IDLE_S:
            self._connection.close()  # the next request opens it again
        self._used_at = time.monotonic()
        self._connection.request("POST", path, body, headers)
        return json.loads(self._connection.getresponse().read())

    def create(self, operation: str, key: str = "", **fields: Any) -> None:
        """Create an activity. RuntimeError where it is refused."""
        created = self.call(operation, key, **fields)
        if "code" in created:
            raise RuntimeError(f"{operation} is refused: {created}")


class Callers(ABC):
    """All links of one process, in one loop. ``prefix``: of the ids of their users."""

    prefix: str

    def __init__(self, spec: CallerSpec) -> None:
        raise_descriptors()
        self.calls = spec
        self.api = ControlApi(spec)
        self.codes: Counter[str] = Counter()
        """Answers, by state or error code."""
        self.offered: Counter[int] = Counter()
        """Answers to each call, by its index."""
        self.events: Counter[str] = Counter()
        """Events that the first link has seen, by id of the activity."""
        self.opened_us = self.last_us = 0
        """When calls begin, and when the last answer came."""
        self._epoll = select.epoll()
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._by_fd: dict[int, _Link] = {}
        self._links: list[_Link] = []
        self._tokens = TokenMaker(spec.auth, spec.secret)
        self._pinged = time.monotonic()

    # ---- what an activity adds

    @abstractmethod
    def play(self) -> dict[str, Any]:
        """Create the activity, call, wait for its end, and return the report for the parent."""

    @abstractmethod
    def request(self, index: int) -> Call:
        """Return the call of this index; the link is that of ``index`` modulo the number of links."""

    @abstractmethod
    def answered(self, index: int, opcode: int, fields: Any, at_us: int) -> None:
        """Take an answer. ``fields``: the unpacked body (Any: of a RESULT or an ERROR)."""

    def on_event(self, fields: Any, at_us: int) -> None:
        """Take an event of an activity that the first link has received. Any: its unpacked body."""
        return

    # ---- joining

    def join_all(self) -> None:
        """Connect all links and wait until each has joined."""
        count = self.calls.links
        waiting = [_Link(index) for index in range(count)]
        deadline = time.monotonic() + 120
        joined = 0
        while joined < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {joined} of {count} {self.prefix} links joined")
            while waiting and len(self._by_fd) - joined < CONNECT_AT_ONCE:
                link = waiting.pop()
                fd = link.connect((self.calls.host, self.calls.port), source_address(link.index, 4))
                self._by_fd[fd] = link
                self._epoll.register(fd, select.EPOLLOUT)
            for fd, ready in self._epoll.poll(0.1, 512):
                link = self._by_fd[fd]
                if link.state is LinkState.CONNECTING and ready & select.EPOLLOUT:
                    self._greet(fd, link)
                elif ready & select.EPOLLIN:
                    before = link.room
                    self._read(link)
                    joined += bool(link.room) - bool(before)
        self._links = sorted(self._by_fd.values(), key=lambda link: link.index)

    def _greet(self, fd: int, link: _Link) -> None:
        link.check_connected()
        assert link.sock is not None
        messages: tuple[Message, ...] = (
            ClientHello(MAGIC, VERSION, VERSION, int(Feature.CALL), "roomcast-bench"),
            Auth(self._tokens.viewer(f"{self.prefix}-{link.index}")),
            Join(self.calls.room, Tier.LOW),
        )
        link.sock.send(b"".join(encode(each, 0, number, Lane.CONTROL) for number, each in enumerate(messages, 1)))
        link.state = LinkState.JOINING
        self._epoll.modify(fd, select.EPOLLIN)

    # ---- calling

    def opening(self) -> int:
        """Return when an activity that is created now opens, Unix milliseconds; calls are due from then on."""
        open_at_ms = time.time_ns() // 1_000_000 + LEAD_MS
        self.opened_us = now_us() + (open_at_ms + OPENING_MS) * 1000 - time.time_ns() // 1000
        return open_at_ms

    def call_all(self) -> None:
        """Send every call when it is due, and read until each is answered."""
        spec = self.calls
        sent = 0
        deadline = self.opened_us + int((spec.over_s + ANSWER_S) * 1e6)
        while len(self.offered) < spec.calls and now_us() < deadline:
            due = self._due_by(now_us())
            for index in range(sent, due):
                sock = self._links[index % spec.links].sock
                assert sock is not None
                sock.send(encode(self.request(index), 0, index + 1, Lane.CONTROL))
            sent = due
            self.read_ready(0.001 if sent < spec.calls else 0.02)

    def due_us(self, index: int) -> int:
        """Return when a call is due, microseconds."""
        return self.opened_us + int(self.calls.over_s * 1e6 * index / self.calls.calls)

    def _due_by(self, at_us: int) -> int:
        elapsed = max(0, at_us - self.opened_us)
        return min(self.calls.calls, int(elapsed * self.calls.calls / (self.calls.over_s * 1e6)))

    def watch(self, until: float | None = None) -> None:
        """Read what the room sends until a time (monotonic seconds), or until the parent ends this process."""
        commands = CommandReader()
        while not commands.ended and (until is None or time.monotonic() < until):
            self.read_ready(0.05)
            commands.read()

    def read_ready(self, timeout_s: float) -> None:
        """Read what has arrived, and keep the links alive."""
        for fd, _ in self._epoll.poll(timeout_s, 1024):
            self._read(self._by_fd[fd])
        if time.monotonic() >= self._pinged + PING_S:
            self._pinged = time.monotonic()
            ping = encode(Ping(0), 0, 0, Lane.CONTROL)
            for link in self._by_fd.values():
                assert link.sock is not None
                link.sock.send(ping)

    # ---- reading

    def _read(self, link: _Link) -> None:
        """Take the bytes that have arrived, and every whole answer in them."""
        assert link.sock is not None
        rest = link.rest
        try:
            count = link.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        if not count:
            raise ConnectionError(f"{self.prefix} {link.index} was cut")
        data = rest + bytes(self._view[:count]) if rest else bytes(self._view[:count])
        start = 0
        while len(data) - start >= HEADER_BYTES:
            length, _, flags, opcode, room, sequence = header_fields(data, start)
            if len(data) - start < length:
                break
            if opcode in _ANSWERS:
                self._on_answer(sequence - 1, opcode, data[start + HEADER_BYTES : start + length])
            elif opcode == Opcode.JOIN:
                link.room = room
                link.state = LinkState.READY
            elif opcode == Opcode.EVENT and not link.index and flags >> 4 == Lane.COMMERCE:
                self._on_event(data[start + HEADER_BYTES : start + length])
            start += length
        link.rest = data[start:]

    def _on_answer(self, index: int, opcode: int, body: bytes) -> None:
        self.last_us = now_us()
        self.offered[index] += 1
        self.answered(index, opcode, unpack_body(body), self.last_us)

    def _on_event(self, body: bytes) -> None:
        fields = unpack_body(body)
        if fields[0] == MessageType.ACTIVITY:
            self.events[fields[4][1]] += 1
            self.on_event(fields, now_us())

    def report(self, *activities: str, **more: Any) -> dict[str, Any]:
        """Return what every process reports, and ``more``. ``activities``: ids of its own."""
        return {
            "codes": dict(self.codes),
            "answered_once": sum(count == 1 for count in self.offered.values()),
            "took_s": max(0.0, (self.last_us - self.opened_us) / 1e6),
            "events": sum(self.events[id] for id in activities),
            **more,
        }

    def end(self) -> None:
        """Close all links."""
        close_all([link.sock for link in self._by_fd.values() if link.sock is not None])


def play(make: type[Callers], kind: type[CallerSpec]) -> None:
    """Wait for the spec, join, wait for the command to start, play the activity and report: the whole process."""
    fields = read_spec()
    if fields is None:
        return
    set_alarm(fields["lifetime_s"])
    callers = make(msgspec.convert(fields, kind))
    callers.join_all()
    emit("ready")
    start = read_spec()
    if start is None:
        return
    callers.watch(time.monotonic() + start["after_s"])
    report = callers.play()
    emit("done", report=report)
    callers.watch()
    callers.end()
