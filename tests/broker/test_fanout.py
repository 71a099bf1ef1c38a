"""The sweep: everybody gets the bytes of their own form once, urgent things first, and a full socket hurts nobody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from broker.audience import GONE, TIERS, Audience, Content, Member, Prepared, prepare, variant_of
from broker.core.overload import ByteBudget
from broker.core.send_queue import QueueLimits
from broker.fanout import FanOut, Outbox, Sweep
from broker.poller import Poller
from broker.transport import Framing, TcpTransport
from protocol.codes import Codec, Lane, Role, Tier
from protocol.connection import NEED_DATA, Connection, Frame
from protocol.messages import Account, Event, Side, Tick, TickEntry
from protocol.state import LinkState

Pair = tuple[Member, socket.socket]


class Seat:
    """The least a room needs of a session."""

    def __init__(self, transport: TcpTransport) -> None:
        self.transport = transport
        self.closed: list[int] = []
        transport.owner = self

    def on_data(self, data: bytes) -> None: ...
    def on_text(self, text: str) -> None: ...
    def on_caught_up(self, missed: Any) -> None: ...
    def on_left(self, room: Any, reason: Any, message: str) -> None: ...
    def reply_acks(self, room: int, results: Any) -> None: ...

    def on_overflow(self) -> None:
        self.transport.close(4001, "slow")

    def on_closed(self, code: int, reason: str) -> None:
        self.closed.append(code)


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller(
        queue_limits=QueueLimits(),
        budget=ByteBudget(1 << 30),
        write_timeout_s=10,
        on_due=lambda transport: None,
        on_gone=lambda transport: None,
        clock=lambda: 1.0,
    )
    yield made
    for transport in list(made._transports.values()):
        transport.release()
    made._epoll.close()


def a_member(poller: Poller, tier: Tier = Tier.FULL, codec: Codec = Codec.PLAIN, buffer: int = 0) -> Pair:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    if buffer:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    transport = TcpTransport(ours, poller, "test")
    poller.add(transport, 1e9)
    seat = Seat(transport)
    variant = variant_of(Framing.TCP, codec, tier)
    return Member(seat, "u", "U", Role.VIEWER, frozenset(), variant), theirs


def open_client() -> Connection:
    link = Connection(Side.CLIENT)
    link.our_state = link.peer_state = LinkState.OPEN
    return link


def received(sock: socket.socket, link: Connection | None = None) -> list[Frame]:
    """What has arrived; give one ``link`` where a frame may come in pieces."""
    sock.setblocking(False)
    link = link or open_client()
    frames = []
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


def prepared(audience: Audience, contents: list[Content]) -> Prepared:
    return prepare(audience.variants(), [contents] * len(TIERS), 5)


def run_all(fanout: FanOut) -> None:
    while (outbox := fanout._take()) is not None:
        fanout._slice(outbox)


def test_each_member_gets_its_own_tier_and_codec(poller: Poller) -> None:
    pairs = {
        (tier, codec): a_member(poller, tier, codec) for tier in TIERS for codec in (Codec.PLAIN, Codec.LZ4_DICT_1)
    }
    audience, fanout = Audience(), FanOut()
    for member, _ in pairs.values():
        audience.add(member)
    entries = [TickEntry(1, f"user-{n}", "viewer", (f"好看 {n}",)) for n in range(20)]
    by_tier = [
        [Content(Tick(1, 100, 0, tuple(entries[:tier]), Account(20, int(tier), 0, 20 - int(tier))), Lane.CHAT, 1)]
        for tier in TIERS
    ]
    fanout.submit(Outbox(), prepare(audience.variants(), by_tier, 5), audience)
    run_all(fanout)
    for (tier, _), (_, sock) in pairs.items():
        (frame,) = received(sock)
        assert frame.message == by_tier[TIERS.index(tier)][0].message
        sock.close()
    assert fanout.deliveries == len(pairs)


def test_forms_nobody_needs_are_not_encoded(poller: Poller) -> None:
    member, sock = a_member(poller, Tier.LOW)
    audience = Audience()
    audience.add(member)
    made = prepared(audience, event(1))
    assert [index for index, frame in enumerate(made.frames) if frame is not None] == [member.variant]
    sock.close()


def test_a_tick_above_the_frame_cap_is_split_and_its_last_part_has_the_account(poller: Poller) -> None:
    member, sock = a_member(poller, buffer=1 << 20)
    audience, fanout = Audience(), FanOut()
    audience.add(member)
    entries = tuple(TickEntry(1, f"user-{n}", "n" * 60, ("文" * 100,)) for n in range(500))
    tick = Tick(1, 100, 0, entries, Account(500, 500))
    fanout.submit(Outbox(), prepared(audience, [Content(tick, Lane.CHAT, 3, 500)]), audience)
    run_all(fanout)
    frames = [frame.message for frame in received(sock)]
    assert len(frames) > 1
    assert all(isinstance(each, Tick) for each in frames)
    assert tuple(entry for each in frames for entry in each.entries) == entries  # type: ignore[union-attr]
    assert [each.account.admitted for each in frames] == [0] * (len(frames) - 1) + [500]  # type: ignore[union-attr]
    sock.close()


def test_who_has_left_gets_nothing_more_and_who_came_later_neither(poller: Poller) -> None:
    pairs = [a_member(poller) for _ in range(3)]
    late = a_member(poller)
    audience, fanout = Audience(), FanOut()
    for member, _ in pairs:
        audience.add(member)
    fanout.submit(Outbox(), prepared(audience, event(1)), audience)
    audience.remove(pairs[1][0])
    audience.add(late[0])
    run_all(fanout)
    assert [len(received(sock)) for _, sock in [*pairs, late]] == [1, 0, 1, 0]
    assert pairs[1][0].variant == GONE
    for _, sock in [*pairs, late]:
        sock.close()


def test_lanes_0_to_2_of_a_room_keep_their_order_and_overtake_its_chat(poller: Poller) -> None:
    member, sock = a_member(poller)
    audience, fanout, outbox = Audience(), FanOut(), Outbox()
    audience.add(member)
    fanout.submit(outbox, prepared(audience, [Content(Tick(1, 100, 0, ()), Lane.CHAT, 1)]), audience)
    fanout.submit(outbox, prepared(audience, event(1, Lane.PAID)), audience)
    fanout.submit(outbox, prepared(audience, event(2, Lane.CONTROL)), audience)
    run_all(fanout)
    assert [(frame.lane, frame.sequence) for frame in received(sock)] == [
        (Lane.PAID, 1),
        (Lane.CONTROL, 2),
        (Lane.CHAT, 1),
    ]
    sock.close()


def test_a_sale_in_one_room_overtakes_the_chat_sweep_of_another(poller: Poller) -> None:
    order: list[str] = []
    fanout = FanOut(clock=lambda: 0.0)
    rooms = {}
    for name, lane in (("chat", Lane.CHAT), ("sale", Lane.COMMERCE)):
        member, sock = a_member(poller)
        audience = rooms[name] = Audience()
        audience.add(member)
        contents = event(1, lane) if name == "sale" else [Content(Tick(1, 100, 0, ()), lane, 1)]
        fanout.submit(Outbox(), prepared(audience, contents), audience, lambda cost, name=name: order.append(name))  # type: ignore[misc]
        sock.close()
    run_all(fanout)
    assert order == ["sale", "chat"]


def test_a_large_sweep_is_cut_into_slices_and_reaches_everybody_once(poller: Poller) -> None:
    pairs = [a_member(poller) for _ in range(150)]
    audience = Audience()
    for member, _ in pairs:
        audience.add(member)
    ticking = iter(range(10_000))
    sweep = Sweep(prepared(audience, event(1)), audience.snapshot(), 149, None)
    slices = 0
    while not sweep.run(deadline=0.0, clock=lambda: float(next(ticking))):
        slices += 1
    assert slices >= 2
    assert [len(received(sock)) for _, sock in pairs] == [1] * 150
    for _, sock in pairs:
        sock.close()


def test_a_full_socket_queues_and_the_others_do_not_notice(poller: Poller) -> None:
    slow, slow_sock = a_member(poller, buffer=4096)
    fast, fast_sock = a_member(poller, buffer=1 << 20)
    audience, fanout, outbox = Audience(), FanOut(), Outbox()
    audience.add(slow)
    audience.add(fast)
    for number in range(1, 31):
        fanout.submit(outbox, prepared(audience, event(number, text="y" * 1000)), audience)
    run_all(fanout)
    assert [frame.sequence for frame in received(fast_sock)] == list(range(1, 31))
    assert slow.transport.queue is not None
    assert poller.budget.used_bytes == slow.transport.queue.nbytes > 0
    link = open_client()
    got = received(slow_sock, link)
    while slow.transport.queue is not None:
        slow.transport.on_writable()
        got += received(slow_sock, link)
    assert [frame.sequence for frame in got] == list(range(1, 31))
    assert poller.budget.used_bytes == 0
    slow_sock.close()
    fast_sock.close()


def test_a_viewer_that_never_reads_is_closed_when_commerce_no_longer_fits(poller: Poller) -> None:
    dead, sock = a_member(poller, buffer=4096)
    audience, fanout, outbox = Audience(), FanOut(), Outbox()
    audience.add(dead)
    for number in range(1, 400):
        fanout.submit(outbox, prepared(audience, event(number, Lane.COMMERCE, "y" * 4000)), audience)
        run_all(fanout)
    assert dead.session.closed == [4001]  # type: ignore[attr-defined]
    assert poller.budget.used_bytes == 0
    assert len(poller) == 0
    sock.close()


def test_a_peer_that_has_gone_is_taken_out_by_the_sweep(poller: Poller) -> None:
    gone, sock = a_member(poller)
    sock.close()
    audience, fanout = Audience(), FanOut()
    audience.add(gone)
    fanout.submit(Outbox(), prepared(audience, event(1)), audience)
    run_all(fanout)
    assert len(gone.session.closed) == 1  # type: ignore[attr-defined]
    assert len(poller) == 0


@given(st.lists(st.integers(0, 30), max_size=60))
def test_the_audience_is_the_set_of_those_who_came_and_did_not_leave(moves: list[int]) -> None:
    class Anybody:
        transport = None

    members: dict[int, Member] = {}
    audience = Audience()
    for move in moves:
        if move in members:
            audience.remove(members.pop(move))
        else:
            member = members[move] = Member(Anybody(), "u", "U", Role.VIEWER, frozenset(), move % 27)  # type: ignore[arg-type]
            audience.add(member)
        assert set(audience.snapshot()) == set(members.values())
        assert all(audience.snapshot()[member.index] is member for member in members.values())
        assert audience.variants() == sorted({member.variant for member in members.values()})


async def test_the_scheduler_serves_what_is_submitted_while_it_sleeps(poller: Poller) -> None:
    member, sock = a_member(poller)
    audience, fanout = Audience(), FanOut()
    audience.add(member)
    async with trio.open_nursery() as nursery:
        await nursery.start(fanout.run)
        for number in (1, 2):
            done = trio.Event()
            fanout.submit(Outbox(), prepared(audience, event(number)), audience, lambda cost, done=done: done.set())  # type: ignore[misc]
            with trio.fail_after(10):
                await done.wait()
        nursery.cancel_scope.cancel()
    assert [frame.sequence for frame in received(sock)] == [1, 2]
    sock.close()
