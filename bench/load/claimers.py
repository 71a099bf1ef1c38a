"""Buyers of a flash sale: thousands of links claim at the same moment, and the platform confirms over HTTP.

Every buyer joins the room and claims several times within `ClaimerSpec.over_s` seconds from the opening on, on a
schedule that does not wait for answers. Each claim has a key of its own, so the broker decides each. Three parties are
compared: what buyers were answered, what the platform has confirmed, and the counts of the sale at its end.
"""

from __future__ import annotations

import http.client
import json
import queue
import select
import threading
import time
from collections import Counter
from typing import Any

import msgspec

from bench.load.child import CommandReader, emit, read_spec, set_alarm
from bench.load.client_link import ClientLink, LinkState
from bench.load.sockets import close_all, raise_descriptors, source_address
from bench.load.tokens import TokenMaker
from bench.measure import Latencies, now_us
from protocol.activities.sales import ClaimState
from protocol.codes import ErrorCode, Feature, Lane, Opcode, Tier
from protocol.connection import encode
from protocol.frames import HEADER_BYTES, header_fields, unpack_body
from protocol.messages import MAGIC, VERSION, Auth, Call, ClientHello, Join, Message, Ping
from protocol.operations import BY_NAME

__all__ = ["ClaimerSpec", "Claimers", "main"]

SALE = "flash"
PRICE_CENTS = 1990
LEAD_MS = 1000
"""How long before its opening the sale is created."""
OPENING_MS = 5
"""Buyers begin so long after the opening: a claim before it would be refused."""
ANSWER_S = 60.0
"""Longest wait for the last answer."""
CONNECT_AT_ONCE = 100
PING_S = 20.0
LAST_EVENTS_S = 5.0
"""After the sale is closed, so that its last events arrive."""
READ_BYTES = 1 << 18
_ANSWERS = (Opcode.RESULT, Opcode.ERROR)
_CLAIM = BY_NAME["sales.claim"].number


class ClaimerSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Spec of the process. ``room``: that has the sale."""

    host: str
    port: int
    api_host: str
    api_port: int
    room: str
    buyers: int
    claims: int
    stock: int
    over_s: float
    first_window_ms: int
    auth: str
    secret: str | None
    lifetime_s: float


class _Buyer(ClientLink):
    """One link. ``room``: number of the room, 0 = it has not joined."""

    __slots__ = ("index", "room")

    def __init__(self, index: int) -> None:
        super().__init__(websocket=False)
        self.index = index
        self.room = 0


class _Platform(threading.Thread):
    """Confirms reservations over one connection of the control API, in the order in which they come."""

    def __init__(self, spec: ClaimerSpec) -> None:
        super().__init__(daemon=True)
        self.reserved: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.answers: Counter[str] = Counter()
        self._room = spec.room
        self._connection = http.client.HTTPConnection(spec.api_host, spec.api_port, timeout=30)

    def call(self, operation: str, **fields: Any) -> Any:
        """Return the result of an operation; its problem where it is refused. Any: its JSON."""
        path = f"/v1/{operation.replace('.', '/')}"
        body = json.dumps({"room": self._room, **fields})
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        return json.loads(self._connection.getresponse().read())

    def run(self) -> None:
        while (number := self.reserved.get()) > 0:
            answer = self.call("sales.confirm", id=SALE, number=number, order=f"order-{number}")
            self.answers[answer.get("state") or answer["code"]] += 1


class Claimers:
    """All buyers, in one loop."""

    def __init__(self, spec: ClaimerSpec) -> None:
        raise_descriptors()
        self.spec = spec
        self.platform = _Platform(spec)
        self.codes: Counter[str] = Counter()
        self.latencies = {"window": Latencies(), "refused": Latencies()}
        self.offered: Counter[int] = Counter()
        """Answers to each claim, by its index."""
        self.events = 0
        """Events of the sale that the first buyer has seen."""
        self._epoll = select.epoll()
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._by_fd: dict[int, _Buyer] = {}
        self._tokens = TokenMaker(spec.auth, spec.secret)
        self._opened_us = self._last_us = 0
        self._pinged = time.monotonic()

    # ---- joining

    def join_all(self) -> None:
        """Connect all buyers and wait until each has joined."""
        waiting = [_Buyer(index) for index in range(self.spec.buyers)]
        deadline = time.monotonic() + 120
        joined = 0
        while joined < self.spec.buyers:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {joined} of {self.spec.buyers} buyers joined")
            while waiting and len(self._by_fd) - joined < CONNECT_AT_ONCE:
                buyer = waiting.pop()
                fd = buyer.connect((self.spec.host, self.spec.port), source_address(buyer.index, 4))
                self._by_fd[fd] = buyer
                self._epoll.register(fd, select.EPOLLOUT)
            for fd, ready in self._epoll.poll(0.1, 512):
                buyer = self._by_fd[fd]
                if buyer.state is LinkState.CONNECTING and ready & select.EPOLLOUT:
                    self._greet(fd, buyer)
                elif ready & select.EPOLLIN:
                    before = buyer.room
                    self._read(buyer)
                    joined += bool(buyer.room) - bool(before)

    def _greet(self, fd: int, buyer: _Buyer) -> None:
        buyer.check_connected()
        assert buyer.sock is not None
        messages: tuple[Message, ...] = (
            ClientHello(MAGIC, VERSION, VERSION, int(Feature.CALL), "roomcast-bench"),
            Auth(self._tokens.viewer(f"buyer-{buyer.index}")),
            Join(self.spec.room, Tier.LOW),
        )
        buyer.sock.send(b"".join(encode(each, 0, number, Lane.CONTROL) for number, each in enumerate(messages, 1)))
        buyer.state = LinkState.JOINING
        self._epoll.modify(fd, select.EPOLLIN)

    # ---- the sale

    def create(self) -> None:
        """Create the sale, which opens after `LEAD_MS`."""
        open_at_ms = time.time_ns() // 1_000_000 + LEAD_MS
        spec = self.spec
        view = self.platform.call(
            "sales.create", id=SALE, sku="mug", stock=spec.stock, price_cents=PRICE_CENTS, open_at_ms=open_at_ms,
            close_at_ms=open_at_ms + 600_000, first_window_ms=spec.first_window_ms,
        )  # fmt: skip
        if "code" in view:
            raise RuntimeError(f"the sale cannot be created: {view}")
        self._opened_us = now_us() + (open_at_ms + OPENING_MS) * 1000 - time.time_ns() // 1000

    def claim_all(self) -> None:
        """Send every claim when it is due, and read until each is answered."""
        spec = self.spec
        buyers = sorted(self._by_fd.values(), key=lambda buyer: buyer.index)
        self.platform.start()
        sent = 0
        deadline = self._opened_us + int((spec.over_s + ANSWER_S) * 1e6)
        while len(self.offered) < spec.claims and now_us() < deadline:
            due = spec.claims if now_us() >= self._due(spec.claims) else self._index_at(now_us())
            for index in range(sent, due):
                self._claim(buyers[index % spec.buyers], index)
            sent = max(sent, due)
            self._read_ready(0.001 if sent < spec.claims else 0.02)
        self.platform.reserved.put(0)
        self.platform.join()

    def _due(self, index: int) -> int:
        """Return when a claim is due: microseconds."""
        return self._opened_us + int(self.spec.over_s * 1e6 * index / self.spec.claims)

    def _index_at(self, at_us: int) -> int:
        elapsed = max(0, at_us - self._opened_us)
        return min(self.spec.claims, int(elapsed * self.spec.claims / (self.spec.over_s * 1e6)))

    def _claim(self, buyer: _Buyer, index: int) -> None:
        assert buyer.sock is not None
        key = f"claim-{index // self.spec.buyers}"
        call = encode(Call(_CLAIM, key, (self.spec.room, SALE)), 0, index + 1, Lane.CONTROL)
        buyer.sock.send(call)

    def close(self) -> dict[str, Any]:
        """End the sale and return its last view, as soon as nothing is reserved any more."""
        self.platform.call("sales.close", id=SALE)
        view: dict[str, Any]
        (view,) = self.platform.call("sales.list")["items"]
        return view

    def watch(self, until: float | None = None) -> None:
        """Read what the room sends until a time (monotonic seconds), or until the parent ends this process."""
        commands = CommandReader()
        while not commands.ended and (until is None or time.monotonic() < until):
            self._read_ready(0.05)
            commands.read()
            self._ping()

    def _read_ready(self, timeout_s: float) -> None:
        for fd, _ in self._epoll.poll(timeout_s, 1024):
            self._read(self._by_fd[fd])

    def _ping(self) -> None:
        if time.monotonic() < self._pinged + PING_S:
            return
        self._pinged = time.monotonic()
        ping = encode(Ping(0), 0, 0, Lane.CONTROL)
        for buyer in self._by_fd.values():
            assert buyer.sock is not None
            buyer.sock.send(ping)

    # ---- reading

    def _read(self, buyer: _Buyer) -> None:
        """Take the bytes that have arrived, and every whole answer in them."""
        assert buyer.sock is not None
        rest = buyer.rest
        try:
            count = buyer.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        if not count:
            raise ConnectionError(f"buyer {buyer.index} was cut")
        data = rest + bytes(self._view[:count]) if rest else bytes(self._view[:count])
        start = 0
        while len(data) - start >= HEADER_BYTES:
            length, _, flags, opcode, room, sequence = header_fields(data, start)
            if len(data) - start < length:
                break
            if opcode in _ANSWERS:
                self._answered(sequence - 1, opcode, data[start + HEADER_BYTES : start + length])
            elif opcode == Opcode.JOIN:
                buyer.room = room
                buyer.state = LinkState.READY
            elif opcode == Opcode.EVENT and not buyer.index:
                self.events += flags >> 4 == Lane.COMMERCE
            start += length
        buyer.rest = data[start:]

    def _answered(self, index: int, opcode: int, body: bytes) -> None:
        at_us = self._last_us = now_us()
        fields = unpack_body(body)
        self.offered[index] += 1
        due_us = self._due(index)
        if opcode == Opcode.RESULT:
            claim = fields[1]
            state = ClaimState(claim[1])
            self.codes[state.name] += 1
            if state is ClaimState.RESERVED:
                self.platform.reserved.put(claim[0])
        else:
            self.codes[ErrorCode(fields[0]).name] += 1
        window_end = self._opened_us - OPENING_MS * 1000 + self.spec.first_window_ms * 1000
        if index < self.spec.buyers and due_us < window_end:
            self.latencies["window"].record(at_us - window_end)
        else:
            self.latencies["refused"].record(at_us - due_us)

    def report(self, view: dict[str, Any]) -> dict[str, Any]:
        """Return everything for the parent."""
        return {
            "codes": dict(self.codes),
            "answered_once": sum(count == 1 for count in self.offered.values()),
            "confirmations": dict(self.platform.answers),
            "latencies": {name: each.encode() for name, each in self.latencies.items()},
            "took_s": (self._last_us - self._opened_us) / 1e6,
            "events": self.events,
            "view": view,
        }

    def end(self) -> None:
        close_all([buyer.sock for buyer in self._by_fd.values() if buyer.sock is not None])


def main() -> None:
    """Wait for the spec, join, wait for the command to start, play the sale and report."""
    fields = read_spec()
    if fields is None:
        return
    set_alarm(fields["lifetime_s"])
    claimers = Claimers(msgspec.convert(fields, ClaimerSpec))
    claimers.join_all()
    emit("ready")
    start = read_spec()
    if start is None:
        return
    claimers.watch(time.monotonic() + start["after_s"])
    claimers.create()
    claimers.claim_all()
    view = claimers.close()
    claimers.watch(time.monotonic() + LAST_EVENTS_S)
    emit("done", report=claimers.report(view))
    claimers.watch()
    claimers.end()


if __name__ == "__main__":
    main()
