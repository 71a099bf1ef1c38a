"""The viewer process: thousands of links on one epoll, cheap enough to share two cores with the broker.

There is no task, no buffer and no object for each frame: one shared buffer, a parser of headers, one dict look-up and
one number for each frame (`accounting`). Links connect, authenticate and join, over TCP or WebSocket, from several
loopback addresses; some may read slowly or not at all. The process checks the order of every link itself.

With ``shared`` in its spec the process does not use the protocol: each socket stands for several viewers in the broker
process (`shared_sockets`), and every copy is counted and timed here.

Commands on standard input: the spec, then ``begin``, ``cut``, ``report``, ``stop`` (`child`).
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

from bench.load.accounting import FLOOR_SEQUENCE, STREAM_EVENT, STREAM_STATE, STREAM_TICK, FrameRecord, ViewerAccounting
from bench.load.child import CommandReader, emit, read_spec, set_alarm
from bench.load.client_link import LinkState
from bench.load.links import (
    FEATURES,
    Link,
    ReadMode,
    ViewerSpec,
    check_final_state,
    check_sequence,
    join_bytes,
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
from protocol.message_rules import reader_of
from protocol.messages import Direct, ErrorReply, GoAway, Joined, Resumed, Side

__all__ = ["Viewers", "main"]

BUFFER_BYTES = 512 * 1024
MAINTENANCE_US = 100_000
IDLE_US = 300_000
"""Time without a frame after which everything has arrived."""
MAX_ATTEMPTS = 20

_key_at = struct.Struct("!16s").unpack_from
_BROADCAST = frozenset({Opcode.EVENT, Opcode.TICK, Opcode.STATE})


class Viewers:
    """All links of one process; `run` returns on ``stop``."""

    def __init__(self, spec: ViewerSpec) -> None:
        raise_descriptors()
        self.spec = spec
        self.accounting = ViewerAccounting(spec.origin_us, time.time_ns() // 1000 - now_us())
        self.commands = CommandReader()
        self._rng = random.Random(spec.seed)
        self._epoll = select.epoll()
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._by_fd: dict[int, Link] = {}
        self._throttled: list[Link] = []
        self._waiting: list[tuple[int, int]] = []
        """Heap of links to connect: (when, index in ``links``)."""
        self._in_flight = 0
        self._begun = False
        self._running = True
        self._ready_sent = False
        self._report_due = 0
        self._next_ping = 0.0
        self._pinged = 0
        self._fault_armed = bool(spec.fault)
        self.unicast_frames: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._cpu_at_begin = 0.0
        self.links = self._make_links()
        self._pings = {flag: ping_bytes(flag) for flag in (False, True)}

    def _make_links(self) -> list[Link]:
        spec = self.spec
        tier = Tier(spec.tier)
        healthy = {flag: self.accounting.group(tier, slow=False) for flag in (False, True)}
        slow = {flag: self.accounting.group(tier, slow=True) for flag in (False, True)}
        tokens = TokenMaker(spec.auth, spec.secret)
        every = round(1 / spec.verify_share) if spec.verify_share > 0 else 0
        links = []
        for place in range(spec.links):
            index = spec.first_index + place
            websocket = (place * 0.618034) % 1.0 < spec.websocket_share
            read_mode = ReadMode.HEALTHY
            if place < spec.stalled:
                read_mode = ReadMode.STALLED
            elif place < spec.stalled + spec.throttled:
                read_mode = ReadMode.THROTTLED
            verifies = read_mode is ReadMode.HEALTHY and bool(every) and (place % every == 0 or place == spec.links - 1)
            group = (slow if read_mode else healthy)[websocket]
            room = "" if spec.shared else spec.rooms[index % len(spec.rooms)]
            token = None if spec.shared else tokens.viewer(f"viewer-{index}")
            links.append(
                Link(index, room, group, websocket=websocket, read_mode=read_mode, verifies=verifies, token=token)
            )
        return links

    # ---- the loop

    def run(self) -> None:
        """Connect all links, then read until the command ``stop``."""
        self._epoll.register(self.commands.fd, select.EPOLLIN)
        begun = now_us()
        step_us = 1e6 / self.spec.connect_per_s if self.spec.connect_per_s else 0.0
        self._waiting = [(begun + int(place * step_us), place) for place in range(len(self.links))]
        maintenance_at = begun
        received_at = begun
        read_ready, poll = self._read_ready, self._epoll.poll
        while self._running:
            ready = poll(0, 512)
            if not ready:
                self.accounting.count_old(now_us(), 2000)
                ready = poll(0.02, 512)
            read_ready(ready)
            now = now_us()
            if ready:
                received_at = now
            if now >= maintenance_at:
                maintenance_at = now + MAINTENANCE_US
                self._run_maintenance(now)
            if self._waiting and self._waiting[0][0] <= now:
                self._connect_some(now)
            if self._report_due and (now - received_at > IDLE_US or now >= self._report_due):
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
                    if self.spec.shared:
                        self._reset()
                    self._cpu_at_begin = time.process_time()
                case "cut":
                    self._cut(command["share"], command["away_s"], command["over_s"])
                case "report":
                    self._report_due = now_us() + 5_000_000
                case "rooms":
                    self._name_rooms(command["rooms"])
                case "volume":
                    connecting = len(self._waiting) + self._in_flight
                    emit("volume", bytes=self.accounting.received_bytes(), connecting=connecting)
                case "stop":
                    self._running = False
        if self.commands.ended:
            self._running = False

    # ---- connecting

    def _connect_some(self, now: int) -> None:
        spec = self.spec
        while self._waiting and self._waiting[0][0] <= now and self._in_flight < spec.in_flight:
            _, place = heapq.heappop(self._waiting)
            link = self.links[place]
            source = source_address(link.index, spec.sources)
            small = spec.slow_receive_bytes if link.read_mode else 0
            try:
                fd = link.connect((spec.host, spec.port), source, small)
            except OSError as error:
                self.errors[f"connect: {error.strerror}"] += 1
                self._reconnect_later(link, 200_000)
                continue
            link.begun_us = now
            link.attempts += 1
            self._in_flight += 1
            self._by_fd[fd] = link
            self._epoll.register(fd, select.EPOLLOUT)

    def _reconnect_later(self, link: Link, delay_us: int) -> None:
        """Schedule a new attempt for this link, up to `MAX_ATTEMPTS`."""
        if link.attempts >= MAX_ATTEMPTS:
            self.errors["gave up"] += 1
            return
        place = link.index - self.spec.first_index
        heapq.heappush(self._waiting, (now_us() + delay_us + self._rng.randrange(100_000), place))

    def _continue_connecting(self, link: Link) -> None:
        """Take the next step of a link that connects: its socket is ready."""
        assert link.sock is not None
        try:
            if link.state is LinkState.CONNECTING:
                link.check_connected()
                self._epoll.modify(link.sock.fileno(), select.EPOLLIN)
                if self.spec.shared:
                    link.sock.send(struct.pack("!I", link.index))
                    self._on_ready(link)
                elif link.websocket:
                    link.request_upgrade(f"{self.spec.host}:{self.spec.port}")
                else:
                    self._send_join(link)
            elif link.is_upgraded(link.sock.recv(4096)):
                self._send_join(link)
        except OSError as error:
            self.errors[f"connecting: {error.strerror}"] += 1
            self._close_link(link)
            self._reconnect_later(link, 300_000)

    def _send_join(self, link: Link) -> None:
        assert link.sock is not None
        link.state = LinkState.JOINING
        link.sock.send(join_bytes(link, FEATURES[self.spec.features], Tier(self.spec.tier)))

    def _on_ready(self, link: Link, latency_name: str = "join") -> None:
        """Record that the link has joined; ``latency_name``: the histogram of its join."""
        link.state = LinkState.READY
        if not link.verifies and link.sock is not None:
            link.receive = link.sock.recv_into
        self._in_flight -= 1
        now = now_us()
        self.accounting.latencies(latency_name).record(now - link.begun_us)
        if link.cut_us:
            self.accounting.latencies("back").record(now - link.cut_us)
            link.cut_us = 0
        link.attempts = 0
        if link.read_mode and link.sock is not None:
            self._epoll.unregister(link.sock.fileno())
            if link.read_mode is ReadMode.THROTTLED:
                self._throttled.append(link)

    def _close_link(self, link: Link) -> None:
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
        """Cut a share of the healthy links; they reconnect with their positions after ``away_s``, spread over
        ``over_s``."""
        healthy = [link for link in self.links if link.state is LinkState.READY and not link.read_mode]
        # One link of each room stays and records what the room was shown meanwhile.
        observers = {link.room_name: link for link in healthy}
        others = [link for link in healthy if observers[link.room_name] is not link]
        chosen = self._rng.sample(others, round(share * len(others)))
        now = now_us()
        for link in chosen:
            self._close_link(link)
            link.positions[STREAM_TICK] = -1
            link.positions[STREAM_STATE] = -1
            link.cut_us = now
            due = now + int((away_s + self._rng.uniform(0, over_s)) * 1e6)
            heapq.heappush(self._waiting, (due, link.index - self.spec.first_index))
        self._ready_sent = False
        emit("cut", links=len(chosen))

    # ---- reading

    def _read_ready(self, ready: list[tuple[int, int]]) -> None:
        """Read every ready link once. The hot loop.

        A read is nearly always one whole frame, the next one of its stream, that other links have received too: it is
        counted here without a further Python call. Everything else takes the slow path (`_read`, `_parse`).
        """
        buffer, view, link_of, shared = self._buffer, self._view, self._by_fd.get, self.spec.shared
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
                    self._continue_connecting(link)
                continue
            try:
                end = receive(view)
            except BlockingIOError:
                continue
            except OSError as error:
                self._on_lost(link, error.strerror or "reset")
                continue
            begin = (4 if buffer[1] == 126 else 2) if link.websocket else 0
            record = link.seen.get(_key_at(buffer, begin)[0])
            # A read shorter than a header leaves older bytes in the buffer; then the length does not match.
            if record is not None and record.length == end - begin:
                positions, stream = link.positions, record.stream
                if positions[stream] == record.before and record.room == link.room:
                    positions[stream] = record.sequence
                    record.arrivals.append(monotonic_ns())
                    continue
                if shared:
                    positions[stream] += 1
                    record.arrivals.append(monotonic_ns())
                    continue
            self._parse(link, end)

    def _read(self, link: Link) -> None:
        """Read once, append to the rest of the last read, and parse whole frames."""
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
            self._on_lost(link, error.strerror or "reset")
            return
        self._parse(link, size + end if end else 0)

    def _parse(self, link: Link, end: int) -> None:
        """Parse the buffer up to ``end``; 0 = the other side has closed."""
        if not end:
            self._on_lost(link, "closed")
            return
        view = self._view
        now = monotonic_ns()
        position = self._parse_messages(link, end, now) if link.websocket else self._parse_frames(link, 0, end, now)
        link.rest = bytes(view[position:end]) if position < end else b""

    def _parse_messages(self, link: Link, end: int, now: int) -> int:
        """Parse whole WebSocket messages and return where the next one begins."""
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
                if self._parse_frames(link, begin, stop, now) != stop:
                    self.accounting.report_violation(f"{link}: a WebSocket message does not end with a frame")
            else:
                self.unicast_frames[f"websocket {kind & 15}"] += 1
            position = stop
        return position

    def _parse_frames(self, link: Link, position: int, end: int, now: int) -> int:
        """Parse whole frames and return where the next one begins. Hot: one look-up and one number a frame."""
        buffer, positions, room = self._buffer, link.positions, link.room
        get = link.seen.get
        while end - position >= HEADER_BYTES:
            (key,) = _key_at(buffer, position)
            record = get(key)
            if record is None:
                stop = position + int.from_bytes(key[:4], "big")
                if stop > end:
                    break
                record = self._decode_new(link, key, bytes(self._view[position:stop]), now // 1000)
                position = stop
                if record is None:
                    positions, room = link.positions, link.room
                    continue
            else:
                stop = position + record.length
                if stop > end:
                    break
                if link.verifies and not self._compare(link, record, position, stop):
                    position = stop
                    continue
                position = stop
            stream = record.stream
            number = record.sequence
            if number == positions[stream] + 1 and record.room == room:
                positions[stream] = number
                record.arrivals.append(now)
            elif self.spec.shared:
                positions[stream] += 1
                record.arrivals.append(now)
            else:
                live, violation = check_sequence(link, record)
                room = link.room
                if violation:
                    self.accounting.report_violation(violation)
                if live:
                    record.arrivals.append(now)
        return position

    def _compare(self, link: Link, record: FrameRecord, position: int, stop: int) -> bool:
        """Compare the whole copy of a verifying link. False: the injected fault drops this frame."""
        self.accounting.compare(record, bytes(self._view[position:stop]))
        if self._fault_armed and self._begun and record.stream in (STREAM_TICK, STREAM_EVENT) and link.index % 2 == 0:
            self._fault_armed = False
            return False
        return True

    def _decode_new(self, link: Link, key: bytes, raw: bytes, now: int) -> FrameRecord | None:
        """Take a frame with a new header: the first copy of a broadcast (its record) or a frame for this link
        (None)."""
        try:
            header = parse_header(raw)
        except RemoteProtocolError as error:
            self.accounting.report_violation(f"{link}: a frame's header is wrong: {error}")
            return None
        if header.opcode in _BROADCAST or (header.opcode is Opcode.PONG and header.sequence >= FLOOR_SEQUENCE):
            return self.accounting.decode_first(link.group, key, raw, now)
        self.unicast_frames[header.opcode.name] += 1
        try:
            message = reader_of(Side.SERVER, header.opcode)(unpack_body(raw[HEADER_BYTES:]))
        except (RemoteProtocolError, FieldError) as error:
            self.accounting.report_violation(f"{link}: a {header.opcode.name} does not decode: {error}")
            return None
        match message:
            case Joined():
                self._on_joined(link, header.room, message)
            case Resumed():
                self._on_resumed(link, header.room, message)
            case Direct() if message.type == MessageType.MISSED:
                link.reported_missed += message.payload[0]
                link.gaps += 1
            case GoAway():
                link.code = message.code
            case ErrorReply() if link.state is LinkState.JOINING:
                self.errors[f"join refused: {message.message}"] += 1
                self._close_link(link)
                self._reconnect_later(link, max(200, message.retry_after_ms) * 1000)
        return None

    def _on_joined(self, link: Link, room: int, snapshot: Joined) -> None:
        self.accounting.joined(room, snapshot)
        if snapshot.room_name != link.room_name:
            self.accounting.report_violation(f"{link} asked for {link.room_name} and joined {snapshot.room_name}")
        link.room = link.room_number = room
        link.epoch = snapshot.epoch
        link.positions = [snapshot.offset, -1 if self._begun else 0, -1, 0]
        self._on_ready(link)

    def _on_resumed(self, link: Link, room: int, answer: Resumed) -> None:
        snapshot = answer.snapshot
        self.accounting.joined(room, snapshot)
        link.room_number = room
        self.unicast_frames["recovered" if answer.recovered else "not recovered"] += 1
        position = link.positions[STREAM_EVENT]
        if answer.recovered and snapshot.offset < position:
            self.accounting.report_violation(
                f"{link} resumed at offset {snapshot.offset}, but had received {position} already"
            )
        if answer.recovered and snapshot.offset > position:
            link.room, link.replay_until = -1, snapshot.offset
        else:
            link.room = room
            link.missed_events += max(0, snapshot.offset - position)
            link.positions[STREAM_EVENT] = snapshot.offset
        link.epoch = snapshot.epoch
        self._on_ready(link, "rejoin")

    def _on_lost(self, link: Link, why: str) -> None:
        was_connecting = link.state < LinkState.READY
        self._close_link(link)
        if was_connecting:
            self.errors[f"connecting: {why}"] += 1
            self._reconnect_later(link, 300_000)
        elif not link.code:
            link.code = CloseCode.CLOSED_BY_PEER

    # ---- maintenance

    def _run_maintenance(self, now: int) -> None:
        self._read_throttled()
        if not self.spec.shared:
            self._ping_some()
        if not self._ready_sent and not self._waiting and not self._in_flight:
            self._ready_sent = True
            emit("ready", **link_report(self.links), errors=self.errors)

    def _read_throttled(self) -> None:
        for link in self._throttled:
            link.allowance += self.spec.throttle_bytes_per_s * MAINTENANCE_US / 1e6
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
                self._on_lost(link, "closed")
                continue
            link.allowance -= count
            end = size + count
            now = monotonic_ns()
            position = self._parse_messages(link, end, now) if link.websocket else self._parse_frames(link, 0, end, now)
            link.rest = bytes(self._view[position:end])

    def _ping_some(self) -> None:
        """Send heartbeats, spread evenly over the links."""
        self._next_ping += len(self.links) * MAINTENANCE_US / 1e6 / self.spec.heartbeat_s
        while self._next_ping >= 1 and self.links:
            self._next_ping -= 1
            self._pinged = (self._pinged + 1) % len(self.links)
            link = self.links[self._pinged]
            if link.state is LinkState.READY and link.sock is not None:
                try:
                    link.sock.send(self._pings[link.websocket])
                except OSError:
                    self.unicast_frames["ping not sent"] += 1

    # ---- report

    def _name_rooms(self, rooms: dict[str, str]) -> None:
        """Set the rooms' names, which the parent sends: on shared sockets no link joins."""
        for number, name in rooms.items():
            self.accounting.name_room(int(number), name)

    def _reset(self) -> None:
        """Drop what arrived while viewers entered one after another: counting starts when all have entered."""
        self.accounting.reset()
        for link in self.links:
            link.positions = [0, 0, 0, 0]

    def _report(self) -> None:
        cpu_s = time.process_time() - self._cpu_at_begin
        if not self.spec.shared:
            for link in self.links:
                self._check_final_state(link)
        report = self.accounting.report()
        report |= link_report(self.links)
        report["unicast_frames"] = self.unicast_frames
        report["errors"] = self.errors
        report["cpu_s"] = cpu_s
        report["holes"] = sum(bool(link.holes) for link in self.links)
        report["reported_missed"] = sum(link.reported_missed for link in self.links)
        report["events_missed"] = sum(link.missed_events for link in self.links if not link.read_mode)
        report["events_repeated"] = sum(link.repeated_events for link in self.links if not link.read_mode)
        if self.spec.shared:
            report["per_socket"] = [link.positions[:3] for link in self.links]
            report["per_record"] = self.accounting.copies_by_room()
        emit("report", **report)

    def _check_final_state(self, link: Link) -> None:
        check_final_state(self.accounting, link)


def main() -> None:
    """Read the spec and run the process."""
    fields = read_spec()
    if fields is not None:
        spec = msgspec.convert(fields, ViewerSpec)
        set_alarm(spec.lifetime_s)
        Viewers(spec).run()


if __name__ == "__main__":
    main()
