"""The viewer process: thousands of links on one epoll, cheap enough to share two cores with the broker.

No task, no buffer and no object per frame: one shared buffer, a walk over headers, one dict look-up and one number
per frame (`books`). Links really connect, authenticate and join, over TCP or WebSocket, from several loopback
addresses; some of them may read slowly or not at all. The process judges every link's order itself and reports the
rest.

With ``crowd`` in its orders the process does not speak the protocol: each socket stands for several viewers of a broker
process that holds them all (`members`), and every copy is counted and timed here.

Commands on standard input: the spec, then ``begin``, ``cut``, ``report``, ``stop`` (`child`). Ends by itself.
"""

from __future__ import annotations

import gc
import heapq
import random
import select
import struct
import time
from collections import Counter
from time import monotonic_ns

import msgspec

from bench.load.books import FLOOR_SEQUENCE, STREAM_EVENT, STREAM_TICK, Books, Record
from bench.load.child import CommandReader, emit, first_order, set_alarm
from bench.load.client_link import LinkState
from bench.load.links import (
    FEATURES,
    Link,
    Manner,
    ViewerSpec,
    entrance,
    judge,
    judge_end,
    link_report,
    ping_bytes,
)
from bench.load.sockets import raise_descriptors, source_address
from bench.load.tokens import TokenMaker
from bench.measure import now_us
from protocol.codes import CloseCode, MessageType, Opcode, Tier
from protocol.errors import RemoteProtocolError
from protocol.fields import FieldError
from protocol.frames import HEADER_BYTES, parse_header, unpack_body
from protocol.messages import Direct, ErrorReply, GoAway, Joined, Resumed, Side, reader_of

__all__ = ["Viewers", "main"]

BUFFER_BYTES = 512 * 1024
HOUSE_US = 100_000
IDLE_US = 300_000
"""So long without a frame means that everything has arrived."""
MAX_ATTEMPTS = 20

_key_at = struct.Struct("!16s").unpack_from
_BROADCAST = frozenset({Opcode.EVENT, Opcode.TICK, Opcode.STATE})
_TICK = int(Opcode.TICK)


class Viewers:
    """All links of one process. `run` is the whole life."""

    def __init__(self, spec: ViewerSpec) -> None:
        raise_descriptors()
        self.spec = spec
        self.books = Books(spec.origin_us, time.time_ns() // 1000 - now_us())
        self.commands = CommandReader()
        self._rng = random.Random(spec.seed)
        self._epoll = select.epoll()
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._by_fd: dict[int, Link] = {}
        self._throttled: list[Link] = []
        self._waiting: list[tuple[int, int]] = []
        """Links to connect: (when, place in ``links``), a heap."""
        self._in_flight = 0
        self._begun = False
        self._running = True
        self._ready_told = False
        self._report_due = 0
        self._next_ping = 0.0
        self._pinged = 0
        self._fault_armed = bool(spec.fault)
        self.singles: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._cpu_at_begin = 0.0
        self.links = self._make_links()
        self._pings = {flag: ping_bytes(flag) for flag in (False, True)}

    def _make_links(self) -> list[Link]:
        spec = self.spec
        tier = Tier(spec.tier)
        healthy = {flag: self.books.form(tier, slow=False) for flag in (False, True)}
        slow = {flag: self.books.form(tier, slow=True) for flag in (False, True)}
        tokens = TokenMaker(spec.auth, spec.secret)
        every = round(1 / spec.careful_share) if spec.careful_share > 0 else 0
        links = []
        for place in range(spec.links):
            index = spec.first_index + place
            websocket = (place * 0.618034) % 1.0 < spec.websocket_share
            manner = Manner.HEALTHY
            if place < spec.stalled:
                manner = Manner.STALLED
            elif place < spec.stalled + spec.throttled:
                manner = Manner.THROTTLED
            careful = manner is Manner.HEALTHY and bool(every) and (place % every == 0 or place == spec.links - 1)
            form = (slow if manner else healthy)[websocket]
            room = "" if spec.crowd else spec.rooms[index % len(spec.rooms)]
            token = None if spec.crowd else tokens.viewer(f"viewer-{index}")
            links.append(Link(index, room, form, websocket=websocket, manner=manner, careful=careful, token=token))
        return links

    # ---- the loop

    def run(self) -> None:
        """Connect everybody, then read until told to stop."""
        self._epoll.register(self.commands.fd, select.EPOLLIN)
        begun = now_us()
        step_us = 1e6 / self.spec.connect_per_s if self.spec.connect_per_s else 0.0
        self._waiting = [(begun + int(place * step_us), place) for place in range(len(self.links))]
        house_at = begun
        heard_at = begun
        take, poll = self._take, self._epoll.poll
        while self._running:
            ready = poll(0, 512)
            if not ready:
                self.books.settle(now_us(), 2000)
                ready = poll(0.02, 512)
            take(ready)
            now = now_us()
            if ready:
                heard_at = now
            if now >= house_at:
                house_at = now + HOUSE_US
                self._run_maintenance(now)
            if self._waiting and self._waiting[0][0] <= now:
                self._connect_some(now)
            if self._report_due and (now - heard_at > IDLE_US or now >= self._report_due):
                self._report_due = 0
                self._report()
        for link in self.links:
            if link.sock is not None:
                link.sock.close()

    def _on_commands(self) -> None:
        for command in self.commands.read():
            match command["command"]:
                case "begin":
                    self._begun = True
                    gc.collect()
                    gc.freeze()
                    gc.disable()  # nothing here makes cycles, and a collection would be measured as latency
                    if self.spec.crowd:
                        self._forget()
                    self._cpu_at_begin = time.process_time()
                case "cut":
                    self._cut(command["share"], command["away_s"], command["over_s"])
                case "report":
                    self._report_due = now_us() + 5_000_000
                case "rooms":
                    self._name_rooms(command["rooms"])
                case "volume":
                    emit("volume", bytes=self.books.volume_bytes(), coming_in=len(self._waiting) + self._in_flight)
                case "stop":
                    self._running = False
        if self.commands.ended:
            self._running = False

    # ---- coming in

    def _connect_some(self, now: int) -> None:
        spec = self.spec
        while self._waiting and self._waiting[0][0] <= now and self._in_flight < spec.in_flight:
            _, place = heapq.heappop(self._waiting)
            link = self.links[place]
            source = source_address(link.index, spec.sources)
            small = spec.slow_receive_bytes if link.manner else 0
            try:
                fd = link.connect((spec.host, spec.port), source, small)
            except OSError as error:
                self.errors[f"connect: {error.strerror}"] += 1
                self._again(link, 200_000)
                continue
            link.begun_us = now
            link.attempts += 1
            self._in_flight += 1
            self._by_fd[fd] = link
            self._epoll.register(fd, select.EPOLLOUT)

    def _again(self, link: Link, delay_us: int) -> None:
        """Connect this link again later, a bounded number of times."""
        if link.attempts >= MAX_ATTEMPTS:
            self.errors["gave up"] += 1
            return
        place = link.index - self.spec.first_index
        heapq.heappush(self._waiting, (now_us() + delay_us + self._rng.randrange(100_000), place))

    def _advance(self, link: Link) -> None:
        """A link that is coming in has something to do: it stands, or its upgrade has been answered."""
        assert link.sock is not None
        try:
            if link.state is LinkState.CONNECTING:
                link.check_connected()
                self._epoll.modify(link.sock.fileno(), select.EPOLLIN)
                if self.spec.crowd:
                    link.sock.send(struct.pack("!I", link.index))
                    self._seat(link)
                elif link.websocket:
                    link.request_upgrade(f"{self.spec.host}:{self.spec.port}")
                else:
                    self._enter(link)
            elif link.is_upgraded(link.sock.recv(4096)):
                self._enter(link)
        except OSError as error:
            self.errors[f"coming in: {error.strerror}"] += 1
            self._drop(link)
            self._again(link, 300_000)

    def _enter(self, link: Link) -> None:
        assert link.sock is not None
        link.state = LinkState.JOINING
        link.sock.send(entrance(link, FEATURES[self.spec.features], Tier(self.spec.tier)))

    def _seat(self, link: Link, came_by: str = "join") -> None:
        """The link is in its room."""
        link.state = LinkState.READY
        if not link.careful and link.sock is not None:
            link.receive = link.sock.recv_into
        self._in_flight -= 1
        now = now_us()
        self.books.latencies(came_by).record(now - link.begun_us)
        if link.cut_us:
            self.books.latencies("back").record(now - link.cut_us)
            link.cut_us = 0
        link.attempts = 0
        if link.manner and link.sock is not None:
            self._epoll.unregister(link.sock.fileno())
            if link.manner is Manner.THROTTLED:
                self._throttled.append(link)

    def _drop(self, link: Link) -> None:
        """Close a link's socket."""
        if link.sock is None:
            return
        if link.state < LinkState.READY:
            self._in_flight -= 1
        self._by_fd.pop(link.sock.fileno(), None)
        link.sock.close()
        link.sock = link.receive = None
        link.state = LinkState.CLOSED

    def _cut(self, share: float, away_s: float, over_s: float) -> None:
        """Break healthy links off and let them come back with their positions, spread over a time."""
        healthy = [link for link in self.links if link.state is LinkState.READY and not link.manner]
        # One link of each room stays, or nobody could say what the room was shown meanwhile.
        witnesses = {link.named_room: link for link in healthy}
        others = [link for link in healthy if witnesses[link.named_room] is not link]
        chosen = self._rng.sample(others, round(share * len(others)))
        now = now_us()
        for link in chosen:
            self._drop(link)
            link.marks[STREAM_TICK] = -1
            link.marks[2] = -1
            link.cut_us = now
            due = now + int((away_s + self._rng.uniform(0, over_s)) * 1e6)
            heapq.heappush(self._waiting, (due, link.index - self.spec.first_index))
        self._ready_told = False
        emit("cut", links=len(chosen))

    # ---- reading

    def _take(self, ready: list[tuple[int, int]]) -> None:
        """Read every ready link once. The hot loop.

        What comes is nearly always one whole frame, the next one of its stream, that others have got too: it is taken
        here without a further call of ours. Everything else goes the long way (`_read`, `_walk_on`).
        """
        buffer, view, link_of, crowd = self._buffer, self._view, self._by_fd.get, self.spec.crowd
        for fd, _ in ready:
            link = link_of(fd)
            if link is None:
                if fd == self.commands.fd:
                    self._on_commands()
                continue
            receive = link.receive
            if receive is None or link.rest:
                if link.state >= LinkState.JOINING:
                    self._read(link)
                else:
                    self._advance(link)
                continue
            try:
                end = receive(view)
            except BlockingIOError:
                continue
            except OSError as error:
                self._lost(link, error.strerror or "reset")
                continue
            begin = (4 if buffer[1] == 126 else 2) if link.websocket else 0
            record = link.seen.get(_key_at(buffer, begin)[0])
            # Where less has come than a header, what stands there is older; but then no length fits.
            if record is not None and record.length == end - begin:
                marks, stream = link.marks, record.stream
                if marks[stream] == record.before and record.room == link.room:
                    marks[stream] = record.sequence
                    record.arrivals.append(monotonic_ns())
                    continue
                if crowd:
                    marks[stream] += 1
                    record.arrivals.append(monotonic_ns())
                    continue
            self._walk_on(link, end)

    def _read(self, link: Link) -> None:
        """Read once, after what was left of the last time, and walk over the frames that are there."""
        rest = link.rest
        sock = link.sock
        assert sock is not None
        size = len(rest)
        self._buffer[:size] = rest
        try:
            end = sock.recv_into(self._view[size:])
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(link, error.strerror or "reset")
            return
        self._walk_on(link, size + end if end else 0)

    def _walk_on(self, link: Link, end: int) -> None:
        """Walk over what stands in the buffer up to ``end``, 0 = the other side has closed."""
        if not end:
            self._lost(link, "closed")
            return
        view = self._view
        now = monotonic_ns()
        position = self._walk_messages(link, end, now) if link.websocket else self._walk(link, 0, end, now)
        link.rest = bytes(view[position:end]) if position < end else b""

    def _walk_messages(self, link: Link, end: int, now: int) -> int:
        """Walk over whole WebSocket messages; returns where the next one begins."""
        buffer = self._buffer
        position = 0
        while end - position >= 2:
            kind, size = buffer[position], buffer[position + 1]
            begin = position + 2
            if size == 126:
                begin += 2
                if begin > end:
                    break
                size = (buffer[position + 2] << 8) | buffer[position + 3]
            elif size == 127:
                begin += 8
                if begin > end:
                    break
                size = int.from_bytes(buffer[position + 2 : begin], "big")
            stop = begin + size
            if stop > end:
                break
            if kind == 0x82:
                if self._walk(link, begin, stop, now) != stop:
                    self.books.violate(f"{link}: a WebSocket message does not end with a frame")
            else:
                self.singles[f"websocket {kind & 15}"] += 1
            position = stop
        return position

    def _walk(self, link: Link, position: int, end: int, now: int) -> int:
        """Walk over whole frames; returns where the next one begins. The hot loop: one look-up and one number a
        frame."""
        buffer, marks, room = self._buffer, link.marks, link.room
        get = link.seen.get
        while end - position >= HEADER_BYTES:
            (key,) = _key_at(buffer, position)
            record = get(key)
            if record is None:
                stop = position + int.from_bytes(key[:4], "big")
                if stop > end:
                    break
                record = self._new(link, key, bytes(self._view[position:stop]), now // 1000)
                position = stop
                if record is None:
                    marks, room = link.marks, link.room
                    continue
            else:
                stop = position + record.length
                if stop > end:
                    break
                if link.careful and not self._compare(link, record, position, stop):
                    position = stop
                    continue
                position = stop
            stream = record.stream
            number = record.sequence
            if number == marks[stream] + 1 and record.room == room:
                marks[stream] = number
                record.arrivals.append(now)
            elif self.spec.crowd:
                marks[stream] += 1
                record.arrivals.append(now)
            else:
                live, wrong = judge(link, record)
                room = link.room
                if wrong:
                    self.books.violate(wrong)
                if live:
                    record.arrivals.append(now)
        return position

    def _compare(self, link: Link, record: Record, position: int, stop: int) -> bool:
        """A careful link's copy: compare the whole bytes. False: the fault that was asked for eats this frame."""
        self.books.compare(record, bytes(self._view[position:stop]))
        if self._fault_armed and self._begun and record.stream in (STREAM_TICK, STREAM_EVENT) and link.index % 2 == 0:
            self._fault_armed = False
            return False
        return True

    def _new(self, link: Link, key: bytes, raw: bytes, now: int) -> Record | None:
        """A header that was not seen before: a first copy (then its record), or a frame for this link alone."""
        try:
            header = parse_header(raw)
        except RemoteProtocolError as error:
            self.books.violate(f"{link}: a frame's header is wrong: {error}")
            return None
        if header.opcode in _BROADCAST or (header.opcode is Opcode.PONG and header.sequence >= FLOOR_SEQUENCE):
            return self.books.first(link.form, key, raw, now)
        self.singles[header.opcode.name] += 1
        try:
            message = reader_of(Side.SERVER, header.opcode)(unpack_body(raw[HEADER_BYTES:]))
        except (RemoteProtocolError, FieldError) as error:
            self.books.violate(f"{link}: a {header.opcode.name} does not decode: {error}")
            return None
        match message:
            case Joined():
                self._on_joined(link, header.room, message)
            case Resumed():
                self._on_resumed(link, header.room, message)
            case Direct() if message.type == MessageType.MISSED:
                link.told += message.payload[0]
                link.gaps += 1
            case GoAway():
                link.code = message.code
            case ErrorReply() if link.state is LinkState.JOINING:
                self.errors[f"join refused: {message.message}"] += 1
                self._drop(link)
                self._again(link, max(200, message.retry_after_ms) * 1000)
        return None

    def _on_joined(self, link: Link, room: int, snapshot: Joined) -> None:
        self.books.joined(room, snapshot)
        if snapshot.room_name != link.named_room:
            self.books.violate(f"{link} asked for {link.named_room} and came into {snapshot.room_name}")
        link.room = link.seat = room
        link.epoch = snapshot.epoch
        link.marks = [snapshot.offset, -1 if self._begun else 0, -1, 0]
        self._seat(link)

    def _on_resumed(self, link: Link, room: int, answer: Resumed) -> None:
        snapshot = answer.snapshot
        self.books.joined(room, snapshot)
        link.seat = room
        self.singles["recovered" if answer.recovered else "not recovered"] += 1
        mark = link.marks[STREAM_EVENT]
        if answer.recovered and snapshot.offset < mark:
            self.books.violate(f"{link} came back to offset {snapshot.offset}, but it had heard {mark} already")
        if answer.recovered and snapshot.offset > mark:
            link.room, link.replay_until = -1, snapshot.offset
        else:
            link.room = room
            link.missed += max(0, snapshot.offset - mark)
            link.marks[STREAM_EVENT] = snapshot.offset
        link.epoch = snapshot.epoch
        self._seat(link, "rejoin")

    def _lost(self, link: Link, why: str) -> None:
        coming_in = link.state < LinkState.READY
        self._drop(link)
        if coming_in:
            self.errors[f"coming in: {why}"] += 1
            self._again(link, 300_000)
        elif not link.code:
            link.code = CloseCode.CLOSED_BY_PEER

    # ---- housekeeping

    def _run_maintenance(self, now: int) -> None:
        self._read_throttled()
        if not self.spec.crowd:
            self._ping_some()
        if not self._ready_told and not self._waiting and not self._in_flight:
            self._ready_told = True
            emit("ready", **link_report(self.links), errors=self.errors)

    def _read_throttled(self) -> None:
        for link in self._throttled:
            link.allowance += self.spec.throttle_bytes_per_s * HOUSE_US / 1e6
            if link.allowance < 256 or link.sock is None:
                continue
            size = len(link.rest)
            self._buffer[:size] = link.rest
            try:
                count = link.sock.recv_into(self._view[size : size + int(link.allowance)])
            except BlockingIOError:
                link.allowance = min(link.allowance, self.spec.throttle_bytes_per_s)
                continue
            except OSError:
                count = 0
            if not count:
                self._lost(link, "closed")
                continue
            link.allowance -= count
            end = size + count
            now = monotonic_ns()
            position = self._walk_messages(link, end, now) if link.websocket else self._walk(link, 0, end, now)
            link.rest = bytes(self._view[position:end])

    def _ping_some(self) -> None:
        """Heartbeats, spread evenly over the links."""
        self._next_ping += len(self.links) * HOUSE_US / 1e6 / self.spec.heartbeat_s
        while self._next_ping >= 1 and self.links:
            self._next_ping -= 1
            self._pinged = (self._pinged + 1) % len(self.links)
            link = self.links[self._pinged]
            if link.state is LinkState.READY and link.sock is not None:
                try:
                    link.sock.send(self._pings[link.websocket])
                except OSError:
                    self.singles["ping not sent"] += 1

    # ---- the end

    def _name_rooms(self, rooms: dict[str, str]) -> None:
        """In a crowd nobody joins, so the rooms' names come from the parent."""
        for number, name in rooms.items():
            self.books.name_room(int(number), name)

    def _forget(self) -> None:
        """A crowd's viewers sat down one after the other: what counts begins now, when everybody is there."""
        self.books.forget()
        for link in self.links:
            link.marks = [0, 0, 0, 0]

    def _report(self) -> None:
        cpu_s = time.process_time() - self._cpu_at_begin
        if not self.spec.crowd:
            for link in self.links:
                self._judge_end(link)
        report = self.books.report()
        report |= link_report(self.links)
        report["singles"] = self.singles
        report["errors"] = self.errors
        report["cpu_s"] = cpu_s
        report["holes"] = sum(bool(link.holes) for link in self.links)
        report["told_missed"] = sum(link.told for link in self.links)
        report["events_missed"] = sum(link.missed for link in self.links if not link.manner)
        report["events_twice"] = sum(link.twice for link in self.links if not link.manner)
        if self.spec.crowd:
            report["per_socket"] = [link.marks[:3] for link in self.links]
            report["per_record"] = self.books.copies_by_room()
        emit("report", **report)

    def _judge_end(self, link: Link) -> None:
        judge_end(self.books, link)


def main() -> None:
    """Read the spec, live, end."""
    orders = first_order()
    if orders is not None:
        spec = msgspec.convert(orders, ViewerSpec)
        set_alarm(spec.lifetime_s)
        Viewers(spec).run()


if __name__ == "__main__":
    main()
