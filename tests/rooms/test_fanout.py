"""The sweep: every member gets the bytes of its variant once, urgent ones first, and a full socket delays no other."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.rooms.traces import Publication
from broker.net.poller import Poller
from broker.net.transport import Framing, Part, TcpTransport, Transport, TransportSettings
from broker.rooms.encoding import TIERS, Bundle, Content, Prepared, prepare, variant_of
from broker.rooms.fanout import MAX_JOINED_BYTES, FanOut, Outbox
from broker.rooms.members import SLOW_PATH, Member, Members
from protocol.codes import Codec, Lane, Role, Tier
from protocol.connection import NEED_DATA, Connection, Frame
from protocol.messages import Account, Event, Side, Tick, TickEntry
from protocol.state import LinkState
from tests.support.examples import examples
from tests.support.poller import transport_settings

Pair = tuple[Member, socket.socket]


class Subscriber:
    """The least a room needs of a session."""

    def __init__(self, transport: TcpTransport) -> None:
        self.transport: Transport = transport
        self.closed: list[int] = []
        self.added: list[tuple[Members, Member]] = []
        transport.owner = self

    def join(self, members: Members, member: Member) -> None:
        members.add(member)
        self.added.append((members, member))

    def on_data(self, data: bytes) -> None: ...
    def on_text(self, text: str) -> None: ...
    def on_backlog(self) -> None:
        for members, member in self.added:
            members.use_slow_path(member)

    def on_drained(self, missed: Any) -> None: ...
    def on_left(self, room: Any, reason: Any, message: str) -> None: ...
    def reply_acks(self, room: int, results: Any, firsts: Any = ()) -> None: ...
    def reply_with_reason(self, room: int, result: Any, reason: str, retry_after_ms: int = 0) -> None: ...
    def on_deadline(self, now: float) -> None: ...

    def on_overflow(self) -> None:
        self.transport.close(4001, "slow")

    def on_closed(self, code: int, reason: str) -> None:
        self.closed.append(code)
        for members, member in self.added:
            members.remove(member)


@pytest.fixture
def transports() -> Iterator[TransportSettings]:
    made = Poller(write_timeout_s=10, clock=lambda: 1.0)
    yield transport_settings(made)
    for transport in made:
        transport.release()
    made.close()


def a_member(
    transports: TransportSettings, tier: Tier = Tier.FULL, codec: Codec = Codec.PLAIN, buffer: int = 0
) -> Pair:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    if buffer:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    transport = TcpTransport(ours, transports, "test")
    transports.poller.add(transport, 1e9)
    subscriber = Subscriber(transport)
    variant = variant_of(Framing.TCP, codec, tier)
    return Member(subscriber, "u", "U", Role.VIEWER, frozenset(), variant), theirs


def add_all(members: Members, *others: Member) -> None:
    """Let members in."""
    for member in others:
        assert isinstance(member.session, Subscriber)
        member.session.join(members, member)


def open_client() -> Connection:
    link = Connection(Side.CLIENT)
    link.local_state = link.peer_state = LinkState.OPEN
    return link


def received(sock: socket.socket, link: Connection | None = None) -> list[Frame]:
    """What has arrived; give one ``link`` where a frame may come in pieces."""
    sock.setblocking(False)
    link = link or open_client()
    frames: list[Frame] = []
    while True:
        try:
            data = sock.recv(1 << 20)
        except BlockingIOError:
            return frames
        if not data:
            return frames
        link.receive_data(data)
        while (event := link.next_event()) is not NEED_DATA:
            assert isinstance(event, Frame)
            frames.append(event)


def event(number: int, lane: Lane = Lane.CONTROL, text: str = "x") -> list[Content]:
    return [Content(Event(4, 1, "u", "U", (text,)), lane, number)]


def prepared(members: Members, contents: list[Content]) -> Prepared:
    return prepare(members.variants(), [contents] * len(TIERS), 5)


def run_all(fanout: FanOut, outbox: Outbox | None = None, contents: list[Content] | None = None) -> None:
    """Write until nothing is left, after publishing ``contents`` if there are any."""
    if outbox is not None and contents is not None:
        fanout.submit(outbox, prepared(outbox.members, contents))
    while fanout.turn():
        pass


def test_each_member_gets_its_own_tier_and_codec(transports: TransportSettings) -> None:
    pairs = {
        (tier, codec): a_member(transports, tier, codec) for tier in TIERS for codec in (Codec.PLAIN, Codec.LZ4_DICT_1)
    }
    members, fanout = Members(), FanOut()
    add_all(members, *(member for member, _ in pairs.values()))
    entries = [TickEntry(1, f"user-{n}", "viewer", (f"好看 {n}",)) for n in range(20)]
    by_tier = [
        [Content(Tick(1, 100, 0, tuple(entries[:tier]), Account(20, int(tier), 0, 20 - int(tier))), Lane.CHAT, 1)]
        for tier in TIERS
    ]
    fanout.submit(Outbox(members), prepare(members.variants(), by_tier, 5))
    run_all(fanout)
    for (tier, _), (_, sock) in pairs.items():
        (frame,) = received(sock)
        assert frame.message == by_tier[TIERS.index(tier)][0].message
        sock.close()
    assert fanout.deliveries == len(pairs)


def test_forms_nobody_needs_are_not_encoded(transports: TransportSettings) -> None:
    member, sock = a_member(transports, Tier.LOW)
    members = Members()
    add_all(members, member)
    made = prepared(members, event(1))
    assert [index for index, frame in enumerate(made.frames) if frame is not None] == [member.variant]
    sock.close()


def test_a_tick_above_the_frame_cap_is_split_and_its_last_part_has_the_account(transports: TransportSettings) -> None:
    member, sock = a_member(transports, buffer=1 << 20)
    members, fanout = Members(), FanOut()
    add_all(members, member)
    entries = tuple(TickEntry(1, f"user-{n}", "n" * 60, ("文" * 100,)) for n in range(500))
    tick = Tick(1, 100, 0, entries, Account(500, 500))
    fanout.submit(Outbox(members), prepared(members, [Content(tick, Lane.CHAT, 3, 500)]))
    run_all(fanout)
    frames = [frame.message for frame in received(sock)]
    assert len(frames) > 1
    assert all(isinstance(each, Tick) for each in frames)
    assert tuple(entry for each in frames for entry in each.entries) == entries  # type: ignore[union-attr]
    assert [each.account.admitted for each in frames] == [0] * (len(frames) - 1) + [500]  # type: ignore[union-attr]
    sock.close()


def test_who_has_left_gets_nothing_more_and_who_came_later_neither(transports: TransportSettings) -> None:
    pairs = [a_member(transports) for _ in range(3)]
    late = a_member(transports)
    members, fanout = Members(), FanOut()
    add_all(members, *(member for member, _ in pairs))
    fanout.submit(Outbox(members), prepared(members, event(1)))
    members.remove(pairs[1][0])
    add_all(members, late[0])
    run_all(fanout)
    assert [len(received(sock)) for _, sock in [*pairs, late]] == [1, 0, 1, 0]
    for _, sock in [*pairs, late]:
        sock.close()


def test_lanes_0_to_2_of_a_room_keep_their_order_and_overtake_its_chat(transports: TransportSettings) -> None:
    member, sock = a_member(transports)
    members, fanout = Members(), FanOut()
    outbox = Outbox(members)
    add_all(members, member)
    fanout.submit(outbox, prepared(members, [Content(Tick(1, 100, 0, ()), Lane.CHAT, 1)]))
    fanout.submit(outbox, prepared(members, event(1, Lane.PAID)))
    fanout.submit(outbox, prepared(members, event(2, Lane.CONTROL)))
    run_all(fanout)
    assert [(frame.lane, frame.sequence) for frame in received(sock)] == [
        (Lane.PAID, 1),
        (Lane.CONTROL, 2),
        (Lane.CHAT, 1),
    ]
    sock.close()


def test_a_sale_in_one_room_overtakes_the_chat_sweep_of_another(transports: TransportSettings) -> None:
    order: list[str] = []
    fanout = FanOut(clock=lambda: 0.0)
    rooms = {}
    for name, lane in (("chat", Lane.CHAT), ("sale", Lane.COMMERCE)):
        member, sock = a_member(transports)
        members = rooms[name] = Members()
        add_all(members, member)
        contents = event(1, lane) if name == "sale" else [Content(Tick(1, 100, 0, ()), lane, 1)]
        fanout.submit(Outbox(members), prepared(members, contents), lambda cost, name=name: order.append(name))  # type: ignore[misc]
        sock.close()
    run_all(fanout)
    assert order == ["sale", "chat"]


def test_a_large_sweep_is_cut_into_slices_and_reaches_everybody_once(transports: TransportSettings) -> None:
    pairs = [a_member(transports) for _ in range(150)]
    members = Members()
    add_all(members, *(member for member, _ in pairs))
    outbox = Outbox(members)
    outbox.put(prepared(members, event(1)), None)
    ticking = iter(range(10_000))
    slices = 0
    while len(outbox):
        outbox.write_slots(deadline=0.0, clock=lambda: float(next(ticking)))
        slices += 1
    assert slices >= 3
    assert [len(received(sock)) for _, sock in pairs] == [1] * 150
    for _, sock in pairs:
        sock.close()


def test_an_announcement_joins_the_tick_in_flight_and_is_everywhere_one_pass_later(
    transports: TransportSettings,
) -> None:
    pairs = [a_member(transports) for _ in range(256)]
    members, fanout = Members(), FanOut(clock=lambda: 1.0)
    add_all(members, *(member for member, _ in pairs))
    outbox = Outbox(members)
    run_all(fanout, outbox, event(1))  # every member is up to date
    done: list[str] = []
    fanout.submit(
        outbox, prepared(members, [Content(Tick(1, 100, 0, ()), Lane.CHAT, 1)]), lambda cost: done.append("tick")
    )
    assert outbox.write_slots(0.0, lambda: 1.0).writes == 64
    fanout.submit(outbox, prepared(members, event(2)), lambda cost: done.append("announcement"))
    before = fanout.writes
    run_all(fanout)
    assert done == ["tick", "announcement"]
    assert fanout.writes - before == 256, "one round for the rest of the tick and the whole announcement"
    for _, sock in pairs:
        assert sorted(frame.lane for frame in received(sock)) == [Lane.CONTROL, Lane.CONTROL, Lane.CHAT]
        sock.close()


def test_contents_that_do_not_fit_into_one_write_go_one_after_the_other(transports: TransportSettings) -> None:
    member, sock = a_member(transports, buffer=1 << 20)
    members, fanout = Members(), FanOut()
    add_all(members, member)
    outbox = Outbox(members)
    for number in range(1, 11):
        fanout.submit(outbox, prepared(members, event(number, text="y" * (MAX_JOINED_BYTES // 4))))
    run_all(fanout)
    assert [frame.sequence for frame in received(sock)] == list(range(1, 11))
    assert (fanout.sweeps, fanout.deliveries) == (10, 10)
    assert fanout.writes == 4, "three fit into a write"
    sock.close()


def test_a_full_socket_queues_and_the_others_do_not_notice(transports: TransportSettings) -> None:
    slow, slow_sock = a_member(transports, buffer=4096)
    fast, fast_sock = a_member(transports, buffer=1 << 20)
    members, fanout = Members(), FanOut()
    outbox = Outbox(members)
    add_all(members, slow)
    add_all(members, fast)
    for number in range(1, 31):
        fanout.submit(outbox, prepared(members, event(number, text="y" * 1000)))
    run_all(fanout)
    assert [frame.sequence for frame in received(fast_sock)] == list(range(1, 31))
    assert slow.session.transport.queue is not None
    assert transports.budget.used_bytes == slow.session.transport.queue.nbytes > 0
    link = open_client()
    got = received(slow_sock, link)
    while slow.session.transport.queue is not None:
        slow.session.transport.on_writable()
        got += received(slow_sock, link)
    assert [frame.sequence for frame in got] == list(range(1, 31))
    assert transports.budget.used_bytes == 0
    slow_sock.close()
    fast_sock.close()


def test_a_traced_content_says_how_many_sockets_took_it(transports: TransportSettings) -> None:
    """Of three members one is behind; its queue takes ticks until it is full, then none."""
    slow, slow_sock = a_member(transports, buffer=4096)
    pairs = [a_member(transports, buffer=1 << 20) for _ in range(2)]
    members, fanout = Members(), FanOut()
    outbox = Outbox(members)
    add_all(members, slow, *(member for member, _ in pairs))
    run_all(fanout, outbox, [Content(Tick(1, 100, 0, (entry("y" * 40_000),)), Lane.CHAT, 1)])
    assert slow.session.transport.queue is not None
    found: list[tuple[int, int, int]] = []
    for number in range(2, 50):
        publication = Publication(0.0, len(members))
        tick = Tick(number, 100, 0, (entry("x"),))
        fanout.submit(outbox, prepared(members, [Content(tick, Lane.CHAT, number)]), None, (publication,))
        assert publication.took_s is None
        run_all(fanout)
        assert publication.took_s is not None
        found.append((publication.written, publication.queued, publication.refused))
    assert set(found) == {(2, 1, 0), (2, 1, 1)}
    assert found == sorted(found), "once it is in keyframe mode, it takes no more"
    for sock in (slow_sock, *(sock for _, sock in pairs)):
        sock.close()


def entry(text: str) -> TickEntry:
    return TickEntry(1, "ann", "Ann", (text,), 1, (), Role.VIEWER)


def test_a_viewer_that_never_reads_is_closed_when_commerce_no_longer_fits(transports: TransportSettings) -> None:
    dead, sock = a_member(transports, buffer=4096)
    members, fanout = Members(), FanOut()
    outbox = Outbox(members)
    add_all(members, dead)
    for number in range(1, 400):
        fanout.submit(outbox, prepared(members, event(number, Lane.COMMERCE, "y" * 4000)))
        run_all(fanout)
    assert dead.session.closed == [4001]  # type: ignore[attr-defined]
    assert transports.budget.used_bytes == 0
    assert len(transports.poller) == 0
    sock.close()


def test_a_peer_that_has_gone_is_taken_out_by_the_sweep(transports: TransportSettings) -> None:
    gone, sock = a_member(transports)
    sock.close()
    members, fanout = Members(), FanOut()
    add_all(members, gone)
    fanout.submit(Outbox(members), prepared(members, event(1)))
    run_all(fanout)
    assert len(gone.session.closed) == 1  # type: ignore[attr-defined]
    assert len(transports.poller) == 0


class Sink:
    """A transport whose socket takes everything, nothing, or a part, as the test wants."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.refuses = False
        self.queue: list[int] | None = None
        self.session: Any = None
        self.sock = self

    def send(self, data: bytes) -> int:
        assert self.queue is None, "written past a queue"
        if self.refuses:
            raise BlockingIOError
        self.got += self.read(data)
        return len(data)

    @staticmethod
    def read(data: bytes) -> list[int]:
        return [int(number) for number in data.split()]

    def start_backlog(self, parts: tuple[Part, ...], sent: int) -> None:
        assert sent == 0
        self.queue = []
        self.session.on_backlog()
        self.enqueue(parts)

    def enqueue(self, parts: tuple[Part, ...]) -> None:
        assert self.queue is not None
        for part in parts:
            self.queue += self.read(part.data)

    def write_parts(self, parts: tuple[Part, ...]) -> None:
        if not parts:
            return
        data = b"".join(part.data for part in parts)
        try:
            self.send(data)
        except BlockingIOError:
            self.start_backlog(parts, 0)

    def catch_up(self) -> None:
        self.refuses = False
        self.got += self.queue or []
        self.queue = None


class Rounds(RuleBasedStateMachine):
    """Members come, go, fall behind and catch up while contents walk: each gets what was published while it was there,
    once; lanes 0-2 in their order, the others in theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.members = Members()
        self.outbox = Outbox(self.members)
        self.now = 0.0
        self.number = 0
        self.lanes: dict[int, Lane] = {}
        self.here: dict[Member, list[int]] = {}
        """Members, and what has been published since each came."""
        self.done: list[int] = []

    def clock(self) -> float:
        self.now += 1.0
        return self.now

    @rule(count=st.sampled_from([1, 3, 70, 150]), variant=st.integers(0, 26))
    def come(self, count: int, variant: int) -> None:
        for _ in range(count):
            sink = Sink()
            session = SimpleNamespace(transport=sink)
            member = Member(session, "u", "U", Role.VIEWER, frozenset(), variant)
            session.on_backlog = partial(self.members.use_slow_path, member)
            sink.session = session
            self.members.add(member)
            self.here[member] = []

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        members = list(self.here)
        share = data.draw(st.sampled_from([1, len(members) // 2 + 1, len(members)]))
        begin = data.draw(st.integers(0, len(members) - share))
        for member in members[begin : begin + share]:
            self.members.remove(member)
            del self.here[member]

    @precondition(lambda self: self.here)
    @rule(variant=st.integers(0, 26), data=st.data())
    def change_variant(self, variant: int, data: st.DataObject) -> None:
        for member in data.draw(st.lists(st.sampled_from(list(self.here)), max_size=3)):
            self.members.change_variant(member, variant)

    @rule(lane=st.sampled_from(Lane), size=st.sampled_from([8, 400, MAX_JOINED_BYTES - 400, 2 * MAX_JOINED_BYTES]))
    def publish(self, lane: Lane, size: int) -> None:
        variants = self.members.variants()
        if not variants:
            return
        self.number += 1
        self.lanes[self.number] = lane
        data = f"{self.number:<{size}}".encode()
        part = Part(data, lane, 0, 1)
        frames: list[bytes | None] = [None] * (SLOW_PATH + 1)
        bundles: dict[int, Bundle] = {}
        for variant in variants:
            frames[variant], bundles[variant] = data, Bundle(data, (part,))
        self.outbox.put(Prepared(lane, frames, bundles), lambda cost, number=self.number: self.done.append(number))  # type: ignore[misc]
        for due in self.here.values():
            due.append(self.number)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def stall(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(list(self.here))).session.transport.refuses = True  # type: ignore[attr-defined]

    @precondition(lambda self: any(member.session.transport.queue is not None for member in self.here))
    @rule()
    def catch_up(self) -> None:
        for member in self.here:
            if member.session.transport.queue is not None:
                member.session.transport.catch_up()  # type: ignore[attr-defined]

    @rule(steps=st.integers(1, 5))
    def write_slots(self, steps: int) -> None:
        for sweep in self.outbox.write_slots(self.now + steps, self.clock).finished:
            assert sweep.on_done is not None
            sweep.on_done(sweep.cost_s)

    @invariant()
    def places_are_right(self) -> None:
        assert len(self.members) == len(self.here)
        assert set(self.members.all()) == set(self.here)
        assert all(self.members.slots[member.index] is member for member in self.here)
        assert self.members.variants() == tuple(sorted({member.variant for member in self.here}))

    def teardown(self) -> None:
        while len(self.outbox):
            self.write_slots(5)
        assert sorted(self.done) == list(range(1, self.number + 1))
        for member, due in self.here.items():
            sink: Any = member.session.transport
            sink.catch_up()
            got = sink.got
            for relaxed in (False, True):
                wanted = [number for number in due if (self.lanes[number] > Lane.PAID) == relaxed]
                assert [number for number in got if (self.lanes[number] > Lane.PAID) == relaxed] == wanted
            assert len(got) == len(due)


TestRounds = Rounds.TestCase
TestRounds.settings = examples(50, steps=30)


async def test_the_scheduler_serves_what_is_submitted_while_it_sleeps(transports: TransportSettings) -> None:
    member, sock = a_member(transports)
    members, fanout = Members(), FanOut()
    add_all(members, member)
    async with trio.open_nursery() as nursery:
        await nursery.start(fanout.run)
        for number in (1, 2):
            done = trio.Event()
            fanout.submit(Outbox(members), prepared(members, event(number)), lambda cost, done=done: done.set())  # type: ignore[misc]
            with trio.fail_after(10):
                await done.wait()
        nursery.cancel_scope.cancel()
    assert [frame.sequence for frame in received(sock)] == [1, 2]
    sock.close()
