"""The publisher process: an open loop on a fixed schedule, over native TCP.

The schedule alone decides when a message is sent, never the speed of the broker's answers. A message that leaves late
carries the time at which it was due, so a slow broker (or a slow generator) cannot hide its own delay. Every POST has
exactly one answer, and every answer is counted by room, kind and outcome.

Each link is a user: most post danmaku and likes as viewers do, a few belong to the platform (role app) and post gifts,
announcements and commerce events. A link is in up to four rooms and receives the smallest tier.

Commands on standard input: the spec, then ``start`` (with the time to begin), ``report``, ``stop``.
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import time
from collections import Counter, deque
from typing import Any

import msgspec

from bench.load.child import CommandReader, emit, read_spec, set_alarm
from bench.load.links import client_bytes
from bench.load.sockets import connect_from, raise_descriptors, source_address
from bench.load.texts import PHRASES, REPEATED_PHRASES, base36, stamped
from bench.load.tokens import TokenMaker
from bench.measure import Latencies, now_us
from protocol.codes import CUSTOM_TYPE_MIN, ErrorCode, Lane, MessageType, Opcode, Outcome, Role, Tier
from protocol.connection import encode
from protocol.frames import HEADER_BYTES, build_frame, header_fields, pack_body, unpack_body
from protocol.messages import MAGIC, VERSION, Auth, ClientHello, Join, Ping

__all__ = ["APP_KINDS", "COMMERCE_TYPE", "PublisherSpec", "Publishers", "StreamSpec", "main"]

APP_KINDS = frozenset({"gift", "announcement", "commerce"})
"""Streams of the platform; their acknowledged messages must not be lost."""
COMMERCE_TYPE = CUSTOM_TYPE_MIN
"""Message type of the stream ``commerce``: a custom type on lane 1."""
ROOMS_PER_LINK = 4
"""Below the 16 rooms of a link, because a user may join only five rooms in a burst."""
_PINGS_EVERY_S = 20.0
RECEIVE_BYTES = 256 * 1024


class StreamSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One stream of messages. ``phases``: [seconds, messages a second] one after the other, over all rooms."""

    kind: str
    """``danmaku``, ``like``, ``gift``, ``announcement`` or ``commerce``."""
    phases: list[tuple[float, float]]
    repeated_share: float = 0.0
    """Share of the danmaku that are one of a few equal texts, so that they merge."""
    hot_room_share: float = 0.0
    """Share of the messages that go to the first room."""
    count: int = 1
    """Likes or gifts in one message."""


class PublisherSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Spec of one publisher process."""

    host: str
    port: int
    rooms: list[str]
    users: int
    """Links that post as viewers; each is one user."""
    streams: list[StreamSpec]
    sources: int = 4
    auth: str = "token"
    secret: str | None = None
    chat_role: str = "viewer"
    origin_us: int = 0
    lifetime_s: float = 900.0
    seed: int = 1
    phrases: list[str] = []
    answer_timeout_s: float = 10.0
    """Longest wait for answers after the last message."""


class Sender:
    """One publishing link."""

    __slots__ = ("app", "numbers", "pending", "rest", "rooms", "sequence", "sock", "unanswered", "waiting")

    def __init__(self, sock: socket.socket, rooms: list[int], app: bool) -> None:
        self.sock = sock
        self.rooms = rooms
        """Indexes of its rooms."""
        self.app = app
        self.numbers: dict[int, int] = {}
        """Room index -> room number, from the answer to JOIN."""
        self.rest = b""
        self.sequence = 100
        self.unanswered: dict[int, tuple[str, int, int]] = {}
        """POSTs without an answer: sequence -> (kind, room index, count)."""
        self.waiting: deque[bytes] = deque()
        self.pending = 0
        """Bytes in ``waiting``."""


class Schedule:
    """Due times of one stream: exponential gaps, as independent senders have."""

    def __init__(self, spec: StreamSpec, start_us: int, rng: random.Random) -> None:
        self.spec = spec
        self._rng = rng
        self._phases = deque(spec.phases)
        self._phase_end = start_us
        self._rate = 0.0
        self._at = float(start_us)

    def next_due(self) -> int | None:
        """Return the next due time in us; None at the end of the stream."""
        while True:
            if self._rate > 0:
                self._at += self._rng.expovariate(self._rate) * 1e6
                if self._at < self._phase_end:
                    return int(self._at)
            if not self._phases:
                return None
            self._at = float(self._phase_end)
            seconds, self._rate = self._phases.popleft()
            self._phase_end += int(seconds * 1e6)


class Publishers:
    """All publishing links of one process."""

    def __init__(self, spec: PublisherSpec) -> None:
        raise_descriptors()
        self.spec = spec
        self.commands = CommandReader()
        self._rng = random.Random(spec.seed)
        self._epoll = select.epoll()
        self._senders: dict[int, Sender] = {}
        self._in_room: dict[tuple[int, bool], list[Sender]] = {}
        self._turn: Counter[tuple[int, bool]] = Counter()
        self._phrases = spec.phrases or PHRASES
        self._running = True
        self._heap: list[tuple[int, int, Schedule]] = []
        self._number = 0
        self._sending_since = 0
        self._ends_at = 0
        self._finished_at = 0
        self._done_sent = False
        self._pinged_at = time.monotonic()
        self.sent: Counter[tuple[str, int]] = Counter()
        self.answers: Counter[tuple[str, int, str]] = Counter()
        """(kind, room index, outcome) -> messages."""
        self.amounts: Counter[tuple[str, int, str]] = Counter()
        """The same in likes or gifts; for accepted likes the number that the broker counted."""
        self.reasons: Counter[str] = Counter()
        self.problems: list[str] = []
        self.lateness = Latencies()
        """Delay of sends against the schedule, caused by the generator itself."""
        self.answered = Latencies()
        """From due to answered."""
        self.durable = Latencies()
        """From due to acknowledged, events of lanes 0 to 2 only: with a ledger they are on the disk then."""
        self.durable_in_time = 0
        """Those of them that were acknowledged before the end of the schedule."""
        self._due: dict[tuple[int, int], int] = {}

    # ---- the loop

    def run(self) -> None:
        """Join all rooms, then publish on schedule until the command ``stop``."""
        self._epoll.register(self.commands.fd, select.EPOLLIN)
        self._join_all()
        emit("ready", links=len(self._senders))
        command_fd = self.commands.fd
        while self._running:
            timeout = 0.02
            if self._heap:
                timeout = min(timeout, max(0.0, (self._heap[0][0] - now_us()) / 1e6))
            for fd, events in self._epoll.poll(timeout, 256):
                sender = self._senders.get(fd)
                if sender is None:
                    if fd == command_fd:
                        self._on_commands()
                    continue
                if events & select.EPOLLOUT:
                    self._flush(sender)
                if events & ~select.EPOLLOUT:
                    self._receive(sender)
            if self._heap:
                self._send_due()
            elif self._sending_since and not self._done_sent:
                self._check_done()
            if time.monotonic() - self._pinged_at > _PINGS_EVERY_S:
                self._ping()
        for sender in self._senders.values():
            sender.sock.close()

    def _on_commands(self) -> None:
        for command in self.commands.read():
            match command["command"]:
                case "start":
                    self._start(command["at_us"])
                case "report":
                    self._report()
                case "stop":
                    self._running = False
        if self.commands.ended:
            self._running = False

    # ---- connecting

    def _join_all(self) -> None:
        """Connect and join every link with blocking calls: nothing is measured yet."""
        spec = self.spec
        tokens = TokenMaker(spec.auth, spec.secret)
        rooms = len(spec.rooms)
        kinds = {stream.kind for stream in spec.streams}
        apps = bool(kinds & APP_KINDS)
        plans: list[tuple[str, Role, list[int]]] = []
        blocks = -(-rooms // ROOMS_PER_LINK)
        for index in range(max(spec.users, blocks) if kinds - APP_KINDS else 0):
            first = (index % blocks) * ROOMS_PER_LINK
            role = Role[spec.chat_role.upper()]
            plans.append((f"user-{index}", role, list(range(first, min(first + ROOMS_PER_LINK, rooms)))))
        for block in range(blocks if apps else 0):
            first = block * ROOMS_PER_LINK
            plans.append((f"platform-{block}", Role.APP, list(range(first, min(first + ROOMS_PER_LINK, rooms)))))
        for index, (user_id, role, wanted) in enumerate(plans):
            self._join(index, tokens.user(user_id, role), wanted, role is Role.APP)
            if self.commands.ended:
                return

    def _join(self, index: int, token: str, wanted: list[int], app: bool) -> None:
        spec = self.spec
        sock = connect_from((spec.host, spec.port), source_address(index, spec.sources))
        sock.settimeout(30)
        sender = Sender(sock, wanted, app)
        hello = ClientHello(MAGIC, VERSION, VERSION, 0, "roomcast-bench")
        data = encode(hello, 0, 1, Lane.CONTROL) + encode(Auth(token), 0, 2, Lane.CONTROL)
        for place, room in enumerate(wanted):
            data += encode(Join(spec.rooms[room], Tier.LOW), 0, 3 + place, Lane.CONTROL)
        select.select([], [sock], [], 30)
        sock.sendall(client_bytes(data, False))
        while len(sender.numbers) < len(wanted):
            received = sock.recv(65_536)
            if not received:
                raise ConnectionError(f"the broker closed {token[:12]}... while it joined: {self.problems}")
            self._parse_frames(sender, received)
            if self.problems:
                raise ConnectionError(self.problems[0])
        sock.setblocking(False)
        self._senders[sock.fileno()] = sender
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        for room in wanted:
            self._in_room.setdefault((room, app), []).append(sender)

    # ---- sending

    def _start(self, at_us: int) -> None:
        self._sending_since = at_us
        longest_s = max((sum(seconds for seconds, _ in stream.phases) for stream in self.spec.streams), default=0.0)
        self._ends_at = at_us + int(longest_s * 1e6)
        for order, stream in enumerate(self.spec.streams):
            schedule = Schedule(stream, at_us, self._rng)
            due = schedule.next_due()
            if due is not None:
                heapq.heappush(self._heap, (due, order, schedule))

    def _send_due(self) -> None:
        """Send every message that is due, in order; at most 256 at once so that answers are read."""
        heap = self._heap
        for _ in range(256):
            if not heap:
                break
            due, order, schedule = heap[0]
            now = now_us()
            if due > now:
                break
            self._post(schedule.spec, due)
            self.lateness.record(now - due)
            following = schedule.next_due()
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (following, order, schedule))
        if not heap:
            self._finished_at = now_us()

    def _post(self, stream: StreamSpec, due: int) -> None:
        rng = self._rng
        rooms = len(self.spec.rooms)
        self._number += 1
        number = self._number
        room = 0 if rng.random() < stream.hot_room_share else number % rooms
        kind = stream.kind
        app = kind in APP_KINDS
        place = (room, app)
        self._turn[place] += 1
        senders = self._in_room[place]
        sender = senders[self._turn[place] % len(senders)]
        offset = due - self.spec.origin_us
        payload: tuple[Any, ...]
        message_type: int
        amount = 1
        match kind:
            case "danmaku":
                message_type = MessageType.DANMAKU
                if stream.repeated_share and rng.random() < stream.repeated_share:
                    payload = (rng.choice(REPEATED_PHRASES),)
                else:
                    payload = (stamped(rng.choice(self._phrases), room, number, offset),)
            case "like":
                message_type, amount = MessageType.LIKE, stream.count
                payload = (amount,)
            case "gift":
                message_type, amount = MessageType.GIFT, stream.count
                order_id = f"order~{base36(room)}.{base36(number)}.{base36(offset)}"
                giver = f"giver-{rng.randrange(50)}"
                payload = (order_id, giver, giver, f"gift-{rng.randrange(8)}", amount, 100, "")
            case _:
                message_type = MessageType.ANNOUNCEMENT if kind == "announcement" else COMMERCE_TYPE
                payload = (stamped(kind, room, number, offset),)
        sender.sequence += 1
        sequence = sender.sequence
        sender.unanswered[sequence] = (kind, room, amount)
        self._due[(id(sender), sequence)] = due
        self.sent[(kind, room)] += 1
        body = pack_body((int(message_type), "", payload))
        self._write(sender, build_frame(Opcode.POST, 0, sender.numbers[room], sequence, body))

    def _write(self, sender: Sender, data: bytes) -> None:
        if not sender.waiting:
            try:
                sent = sender.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._problem(f"a publisher's link broke: {error.strerror}")
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._epoll.modify(sender.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
        sender.waiting.append(data)
        sender.pending += len(data)

    def _flush(self, sender: Sender) -> None:
        data = b"".join(sender.waiting)
        try:
            sent = sender.sock.send(data)
        except BlockingIOError:
            return
        except OSError as error:
            self._problem(f"a publisher's link broke: {error.strerror}")
            sender.waiting.clear()
            return
        sender.waiting.clear()
        if sent < len(data):
            sender.waiting.append(data[sent:])
        else:
            self._epoll.modify(sender.sock.fileno(), select.EPOLLIN)

    def _ping(self) -> None:
        self._pinged_at = time.monotonic()
        data = encode(Ping(0), 0, 0, Lane.CONTROL)
        for sender in self._senders.values():
            self._write(sender, data)

    # ---- answers

    def _receive(self, sender: Sender) -> None:
        try:
            data = sender.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            data = b""
            self._problem(f"a publisher's link broke: {error.strerror}")
        if not data:
            self._problem("the broker closed a publisher's link")
            self._epoll.unregister(sender.sock.fileno())
            return
        self._parse_frames(sender, data)

    def _parse_frames(self, sender: Sender, data: bytes) -> None:
        if sender.rest:
            data = sender.rest + data
        position, end = 0, len(data)
        while end - position >= HEADER_BYTES:
            length, _, _, opcode, room, sequence = header_fields(data, position)
            if position + length > end:
                break
            if opcode == Opcode.ACK:
                (results,) = unpack_body(data[position + HEADER_BYTES : position + length])[:1]
                for number, outcome, detail in (result[:3] for result in results):
                    self._answer(sender, number, Outcome(outcome).name.lower(), detail)
            elif opcode in (Opcode.JOIN, Opcode.ERROR, Opcode.GOAWAY):
                self._on_single(
                    sender, opcode, room, sequence, unpack_body(data[position + HEADER_BYTES : position + length])
                )
            position += length
        sender.rest = data[position:]

    def _on_single(self, sender: Sender, opcode: int, room: int, sequence: int, body: tuple[Any, ...]) -> None:
        if opcode == Opcode.JOIN:
            sender.numbers[sender.rooms[sequence - 3]] = room
        elif opcode == Opcode.GOAWAY:
            self._problem(f"the broker sent GOAWAY to a publisher: {body[0]} {body[1]}")
        elif sequence in sender.unanswered:
            self._answer(sender, sequence, "error", body[0])
        else:
            self._problem(f"a publisher's request failed: {body[0]} {body[1]}")

    def _answer(self, sender: Sender, sequence: int, outcome: str, detail: int) -> None:
        request = sender.unanswered.pop(sequence, None)
        if request is None:
            self._problem(f"an answer ({outcome}) to request {sequence}, which has none open")
            return
        kind, room, amount = request
        due = self._due.pop((id(sender), sequence))
        now = now_us()
        self.answered.record(now - due)
        if kind in APP_KINDS and outcome in ("accepted", "merged"):
            self.durable.record(now - due)
            self.durable_in_time += now <= self._ends_at
        self.answers[(kind, room, outcome)] += 1
        self.amounts[(kind, room, outcome)] += detail if kind == "like" and outcome == "accepted" else amount
        if outcome in ("rejected", "error"):
            try:
                self.reasons[f"{kind}: {ErrorCode(detail).name.lower()}"] += 1
            except ValueError:
                self.reasons[f"{kind}: {detail}"] += 1

    def _problem(self, sentence: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(sentence)

    # ---- report

    def _check_done(self) -> None:
        """Report once that everything is sent and answered, or that the timeout has passed."""
        open_requests = sum(len(sender.unanswered) for sender in self._senders.values())
        if not open_requests or now_us() - self._finished_at > self.spec.answer_timeout_s * 1e6:
            self._done_sent = True
            emit("done", unanswered=open_requests)

    def _report(self) -> None:
        unanswered = [
            f"{kind} {sequence} to room {room}"
            for sender in self._senders.values()
            for sequence, (kind, room, _) in sender.unanswered.items()
        ]
        emit(
            "report",
            sent=[[*key, count] for key, count in self.sent.items()],
            answers=[[*key, count, self.amounts[key]] for key, count in self.answers.items()],
            reasons=self.reasons,
            unanswered=len(unanswered),
            first_unanswered=unanswered[:5],
            problems=self.problems,
            lateness=self.lateness.encode(),
            answered=self.answered.encode(),
            durable=self.durable.encode(),
            durable_in_time=self.durable_in_time,
            links=len(self._senders),
            cpu_s=time.process_time(),
        )


def main() -> None:
    """Read the spec and run the process."""
    fields = read_spec()
    if fields is None:
        return
    spec = msgspec.convert(fields, PublisherSpec)
    set_alarm(spec.lifetime_s)
    try:
        Publishers(spec).run()
    except ConnectionError as error:
        emit("failed", why=str(error))


if __name__ == "__main__":
    main()
