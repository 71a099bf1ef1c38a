"""Client process: many clients on one epoll, controlled by commands on standard input.

Most links only drain: their bytes are read into one buffer and counted. Links opened with ``read`` true are parsed:
acks are counted by outcome, and the latency of stamped danmaku is recorded. Publishers send on a fixed schedule
whatever the answers are (open loop), so a slow broker cannot slow down its load.

Commands: `open`, `flood`, `count`, `watch`, `arrivals`, `stall`, `close`; each is answered by one event line. The
process ends with its parent.
"""

from __future__ import annotations

import select
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.load.child import CommandReader, emit, set_alarm
from bench.load.client_link import ClientLink, LinkState
from bench.load.sockets import raise_descriptors, source_address
from bench.micro.wire import (
    GiftTemplate,
    Template,
    body_of,
    frames_in,
    hello_auth_join,
    masked,
    read_stamp,
    text_of,
    ws_messages,
)
from protocol.codes import Opcode

__all__ = ["main"]

LIFETIME_S = 3600.0
PHRASES = (
    "来了来了，前排围观", "主播今天状态真好", "这个价格可以", "已下单坐等发货", "画质好清晰！", "有没有大码",
    "笑死我了hhh", "love this song", "what a play", "how long is the show today", "good evening everyone",
)  # fmt: skip
IN_FLIGHT = 256
"""Links that connect at the same time."""


class Client(ClientLink):
    """One client. ``payload``: the frames that join its room; ``room``: the room's number, 0 until it has joined."""

    __slots__ = ("buffer", "fd", "payload", "reads", "room")

    def __init__(self, websocket: bool, payload: bytes, reads: bool) -> None:
        super().__init__(websocket)
        self.payload = masked(payload) if websocket else payload
        self.reads = reads
        self.buffer = bytearray()
        self.room = 0
        self.fd = -1


class Clients:
    """All clients of the process."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.links: dict[int, Client] = {}
        self.drains: dict[int, Callable[[memoryview], int]] = {}
        self.host = ""
        self.opening: Iterator[tuple[Any, ...]] | None = None
        self.in_flight = 0
        self.opened = 0
        self.wanted = 0
        self.begun = 0.0
        self.bytes = 0
        self.marker = b""
        """Text whose arrival is noted on each link that only drains, b"" = none."""
        self.arrivals_ns: list[int] = []
        self.lost = 0
        self.failures = 0
        self.sent = 0
        self.outcomes: Counter[int] = Counter()
        self.latencies_us: list[int] = []
        self.shown = 0
        self.ticks = 0
        self.flood: Flood | None = None
        self.floods = 0
        """Floods of gifts so far: part of their order ids."""
        self.buffer = memoryview(bytearray(256 * 1024))

    def run(self) -> None:
        """Execute commands until the parent ends."""
        reader = CommandReader()
        self.epoll.register(reader.fd, select.EPOLLIN)
        emit("ready")
        drains, buffer, poll = self.drains, self.buffer, self.epoll.poll
        while not reader.ended:
            timeout = -1.0
            if self.flood is not None:
                timeout = self.flood.step(time.monotonic_ns() // 1000)
                if timeout < 0:
                    self.sent += self.flood.done * self.flood.burst
                    self.flood = None
            for fd, events in poll(timeout, 1024):
                receive = drains.get(fd)
                if receive is not None:
                    try:
                        size = receive(buffer)
                    except OSError:
                        size = 0
                    if not size:
                        self.on_lost(fd)
                    self.bytes += size
                    if self.marker and self.marker in bytes(buffer[:size]):
                        self.arrivals_ns.append(time.monotonic_ns())
                elif fd == reader.fd:
                    for command in reader.read():
                        getattr(self, "do_" + command.pop("do"))(**command)
                elif fd in self.links:  # it may have been closed by a command of the same batch
                    self.on_event(self.links[fd], events)

    # ---- commands

    def do_open(
        self,
        links: int,
        port: int,
        rooms: list[str],
        websocket: bool = False,
        tokens: list[str] | None = None,
        prefix: str = "dev:u",
        host: str = "127.0.0.1",
        sources: int = 8,
        read: bool = False,
        features: int = 0,
        receive_bytes: int = 0,
    ) -> None:
        """Open ``links`` links, spread over ``rooms``; answered when all of them have joined."""

        def each() -> Iterator[tuple[Any, ...]]:
            base = len(self.links)
            for index in range(links):
                token = tokens[index] if tokens else f"{prefix}{base + index}"
                payload = hello_auth_join(token, rooms[index % len(rooms)], features)
                yield (host, port), source_address(index, sources), receive_bytes, websocket, payload, read

        self.host = host
        self.opening = each()
        self.opened, self.wanted, self.in_flight = 0, links, 0
        self.begun = time.monotonic()
        self.open_more()

    def open_more(self) -> None:
        while self.opening is not None and self.in_flight < IN_FLIGHT:
            try:
                address, source, receive_bytes, websocket, payload, read = next(self.opening)
            except StopIteration:
                self.opening = None
                return
            link = Client(websocket, payload, read)
            link.fd = link.connect(address, source, receive_bytes)
            self.links[link.fd] = link
            self.in_flight += 1
            self.epoll.register(link.fd, select.EPOLLOUT)

    def do_flood(
        self, per_s: float, seconds: float, burst: int = 1, first: int = 0, count: int = 0, gifts: bool = False
    ) -> None:
        """Publish ``per_s`` danmaku, or gifts, a second for ``seconds``, ``burst`` to a write, over links in turn; see
        `Flood`."""
        links = list(self.links.values())[first:]
        links = links[:count] if count else links
        templates: list[Template | GiftTemplate]
        if gifts:
            self.floods += 1
            templates = [GiftTemplate(f"{self.floods}-", link.room) for link in links]
        else:
            phrases = (PHRASES[index % len(PHRASES)] for index in range(len(links)))
            templates = [
                Template(phrase, link.room, link.websocket) for phrase, link in zip(phrases, links, strict=True)
            ]
        self.flood = Flood(links, templates, per_s, seconds, burst)

    def do_count(self, reset: bool = False) -> None:
        """Report what has arrived."""
        emit(
            "counted", bytes=self.bytes, lost=self.lost, outcomes=dict(self.outcomes), latencies_us=self.latencies_us,
            shown=self.shown, ticks=self.ticks, unanswered=self.sent - sum(self.outcomes.values()),
        )  # fmt: skip
        if reset:
            self.latencies_us = []
            self.outcomes.clear()
            self.bytes = self.shown = self.ticks = self.sent = 0

    def do_watch(self, marker: str) -> None:
        """Note from now on when a text arrives."""
        self.marker, self.arrivals_ns = marker.encode(), []
        emit("watching")

    def do_arrivals(self, times: bool = False) -> None:
        """Report how often the text has arrived, and when: nanoseconds of the monotonic clock."""
        emit("arrivals", count=len(self.arrivals_ns), times_ns=self.arrivals_ns if times else [])

    def do_stall(self, links: int) -> None:
        """Stop reading on the first ``links`` links."""
        for fd in list(self.links)[:links]:
            self.epoll.modify(fd, 0)
        emit("stalled", links=links)

    def do_close(self, links: int = 0) -> None:
        """Close the newest ``links`` links, 0 = all."""
        fds = list(self.links)
        for fd in fds[-links:] if links else fds:
            self.close_link(fd)
        emit("closed", links=len(self.links))

    # ---- links

    def report_failure(self, words: str) -> None:
        """Write why a link could not join to standard error, three times at most."""
        self.failures += 1
        if self.failures <= 3:
            print(words, file=sys.stderr)

    def on_lost(self, fd: int) -> None:
        self.lost += 1
        self.close_link(fd)

    def close_link(self, fd: int) -> None:
        link = self.links.pop(fd)
        self.drains.pop(fd, None)
        if link.sock is not None:
            link.sock.close()

    def on_event(self, link: Client, events: int) -> None:
        assert link.sock is not None
        if link.state is LinkState.CONNECTING:
            if events & (select.EPOLLERR | select.EPOLLHUP):
                self.report_failure("connection refused")
                self.on_lost(link.fd)
                return
            self.epoll.modify(link.fd, select.EPOLLIN)
            if link.websocket:
                link.request_upgrade(self.host)
            else:
                self.join(link)
            return
        try:
            size = link.sock.recv_into(self.buffer)
        except OSError:
            size = 0
        if not size:
            self.on_lost(link.fd)
            return
        self.bytes += size
        data = self.buffer[:size]
        if link.state is LinkState.UPGRADING:
            try:
                if not link.is_upgraded(bytes(data)):
                    return
            except OSError as error:
                self.report_failure(f"upgrade refused: {error.strerror}")
                self.on_lost(link.fd)
                return
            self.join(link)
            link.buffer += link.rest
        else:
            link.buffer += data
        frames = frames_in(ws_messages(link.buffer) if link.websocket else link.buffer)
        for opcode, codec, room, body in frames:
            if link.state is LinkState.JOINING:
                if opcode == Opcode.JOIN:
                    link.state = LinkState.READY
                    link.room = room
                    self.joined(link)
                elif opcode in (Opcode.ERROR, Opcode.GOAWAY):
                    self.report_failure(str(body_of(codec, body)))
            elif opcode == Opcode.ACK:
                self.outcomes.update([result[1] for result in body_of(codec, body)[0]])  # type: ignore[attr-defined]
            elif opcode == Opcode.TICK:
                self.record_tick(body_of(codec, body)[3])

    def record_tick(self, entries: Any) -> None:
        """Record the latency of every stamped danmaku of a tick."""
        now = time.monotonic_ns() // 1000 & 0xFF_FFFF_FFFF
        self.ticks += 1
        self.shown += len(entries)
        for entry in entries:
            due = read_stamp(text_of(entry))
            if due >= 0:
                self.latencies_us.append((now - due) & 0xFF_FFFF_FFFF)

    def join(self, link: Client) -> None:
        assert link.sock is not None
        link.state = LinkState.JOINING
        link.sock.send(link.payload)

    def joined(self, link: Client) -> None:
        link.payload = b""
        if not link.reads and link.sock is not None:
            self.drains[link.fd] = link.sock.recv_into
        self.opened += 1
        self.in_flight -= 1
        self.open_more()
        if self.opened == self.wanted:
            rooms = sorted({each.room for each in self.links.values()})
            emit("opened", links=self.opened, seconds=time.monotonic() - self.begun, rooms=rooms)


class Flood:
    """Messages on a fixed schedule. Bytes that a full socket refused are sent later, with their original stamp."""

    def __init__(
        self,
        links: list[Client],
        templates: Sequence[Template | GiftTemplate],
        per_s: float,
        seconds: float,
        burst: int,
    ) -> None:
        self.links = deque((link.sock, template) for link, template in zip(links, templates, strict=True))
        self.burst = burst
        self.interval_us = 1e6 * burst / per_s
        self.writes = round(per_s * seconds / burst)
        self.done = 0
        self.begun_us = time.monotonic_ns() // 1000 + 1000
        self.unsent: dict[Any, bytearray] = {}
        self.blocked = 0
        self.late_us = 0
        self.cpu_s = time.process_time()

    def step(self, now_us: int) -> float:
        """Send what is due and return the seconds until the next step, negative at the end."""
        unsent = self.unsent
        for sock, rest in list(unsent.items()):
            try:
                del rest[: sock.send(rest)]
            except BlockingIOError:
                continue
            if not rest:
                del unsent[sock]
        links, burst, interval_us = self.links, self.burst, self.interval_us
        # Bounded, so that the links are read in between.
        for _ in range(min(self.writes - self.done, 256)):
            due_us = int(self.begun_us + self.done * interval_us)
            if due_us > now_us:
                return min(0.001, (due_us - now_us) / 1e6) if due_us - now_us > 100 else 0.0
            if now_us - due_us > self.late_us:
                self.late_us = now_us - due_us
            sock, template = links[0]
            links.rotate(-1)
            first = self.done * burst
            if burst == 1:
                data = template.message(due_us, first)
            else:
                message = template.message
                data = b"".join([message(due_us, count) for count in range(first, first + burst)])
            self.done += 1
            self.send(sock, data)
        if self.done < self.writes or unsent:
            return 0.0 if self.done < self.writes else 0.001
        emit(
            "flooded", sent=self.done * self.burst, late_ms=self.late_us / 1000, blocked=self.blocked,
            seconds=time.monotonic() - self.begun_us / 1e6, cpu_s=time.process_time() - self.cpu_s,
        )  # fmt: skip
        return -1.0

    def send(self, sock: Any, data: bytes) -> None:
        """Send a message, after the bytes that the socket has not accepted yet."""
        if sock in self.unsent:
            self.unsent[sock] += data
            return
        try:
            sent = sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent != len(data):
            self.blocked += 1
            self.unsent[sock] = bytearray(data[sent:])


def main() -> None:
    """Run one client process."""
    set_alarm(LIFETIME_S)
    raise_descriptors()
    Clients().run()


if __name__ == "__main__":
    main()
