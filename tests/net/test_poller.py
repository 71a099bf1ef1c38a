from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
import structlog.testing
import trio

from broker.net.poller import BATCH, GATHER_S, TURN_S, Poller
from broker.net.transport import TcpTransport, Transport
from protocol.codes import CloseCode, Lane
from tests.support.poller import (
    Harness,
    RecordingOwner,
    connection_harness,
    descriptors,
    transport_settings,
)


@pytest.fixture
def harness() -> Iterator[Harness]:
    with connection_harness() as found:
        yield found


def test_a_turn_gives_way_when_its_time_is_over(harness: Harness) -> None:
    links = [harness.add(TcpTransport) for _ in range(2 * BATCH + 10)]
    for transport, owner, client in links:
        assert transport.fd >= 0
        owner.on_data_do = lambda _: setattr(harness.clock, "now", harness.clock.now + TURN_S / BATCH)
        client.send(b"x")
    harness.turn()
    served = sum(bool(owner.data) for _, owner, _ in links)
    assert served == BATCH, "one batch took the whole turn"
    harness.turn(2)
    assert all(owner.data == b"x" for _, owner, _ in links)
    assert harness.poller.turns == 3
    assert harness.poller.turn_s == pytest.approx(TURN_S * (2 + 10 / BATCH))


def test_a_long_read_leaves_room_for_the_next_link(harness: Harness) -> None:
    _, greedy, client = harness.add(TcpTransport)
    _, modest, other = harness.add(TcpTransport)
    client.send(bytes(200_000))
    other.send(b"x")
    harness.until(lambda: greedy.data)
    harness.until(lambda: modest.data)
    assert len(greedy.data) < 200_000


def test_deadlines_ask_the_owner_of_the_poller_and_may_be_moved(harness: Harness) -> None:
    transport, owner, _ = harness.add(TcpTransport)
    asked: list[float] = []

    def on_deadline(now: float) -> None:
        asked.append(now)
        if len(asked) < 3:
            harness.poller.rewheel(transport, now + 10.0)
        else:
            transport.close(CloseCode.HEARTBEAT_MISSED, "silent")

    owner.on_deadline = on_deadline  # type: ignore[method-assign]
    begun = harness.clock.now
    harness.poller.rewheel(transport, begun + 5.0)
    harness.later(60.0)
    assert len(asked) == 3
    for expected, found in zip((5.0, 15.0, 25.0), asked, strict=True):
        assert expected <= found - begun < expected + 3 * 0.75
    assert owner.closed == [(CloseCode.HEARTBEAT_MISSED, "silent")]


def stand_still(harness: Harness, seconds: float) -> None:
    """The process is stopped for so long and goes on: maintenance may run before the first read."""
    harness.clock.now += seconds
    harness.poller.run_timers()


def test_time_in_which_the_loop_was_paused_counts_against_no_connection(harness: Harness) -> None:
    transport, owner, client = harness.add(TcpTransport)
    cut_s = 20.0

    def on_deadline(now: float) -> None:
        silent_until = transport.heard_at + cut_s
        if silent_until <= now:
            transport.close(CloseCode.HEARTBEAT_MISSED, "silent")
        else:
            harness.poller.rewheel(transport, silent_until)

    owner.on_deadline = on_deadline  # type: ignore[method-assign]
    harness.poller.rewheel(transport, harness.clock.now + cut_s)
    harness.later(15.0)
    client.send(b"ping")
    with structlog.testing.capture_logs() as lines:
        stand_still(harness, 600.0)
    assert [(line["paused_s"], line["connections"]) for line in lines] == [(599.75, 1)]
    assert not owner.closed
    harness.later(19.0)
    assert owner.data == b"ping"
    assert not owner.closed
    harness.later(3.0)
    assert owner.closed == [(CloseCode.HEARTBEAT_MISSED, "silent")], "from then on silence is silence again"


def test_a_handshake_under_way_is_finished_after_the_loop_stood_still(harness: Harness) -> None:
    greeting, client = harness.greet()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    harness.later(1.0)
    stand_still(harness, 60.0)
    harness.later(3.5)
    assert greeting.fd >= 0
    client.send(b"\r\n")
    assert harness.read_all(client).startswith(b"HTTP/1.1 426 ")
    late, _ = harness.greet()
    harness.later(6.0)
    assert late.fd == -1, "a new one has its five seconds and no more"


def test_a_viewer_that_is_behind_is_not_cut_for_our_own_absence(harness: Harness) -> None:
    server, _ = harness.narrow_pair()
    transport = TcpTransport(server, harness.transports, "127.0.0.1")
    harness.adopt(transport)
    owner = harness.owners[-1]
    while transport.queue is None:
        transport.write(bytes(1000))
    harness.later(5.0)
    stand_still(harness, 60.0)
    harness.later(4.0)
    assert not owner.overflows
    harness.later(2.0)
    assert owner.overflows == 1


def test_a_link_that_leaves_takes_its_deadline_and_its_pause_along(harness: Harness) -> None:
    transport, _, _ = harness.add(TcpTransport)
    harness.poller.pause_reading(transport, harness.clock.now + 5.0)
    transport.abort("gone")
    assert not harness.poller.paused
    assert transport.wheel_before is None
    harness.later(100.0)


def test_reading_can_be_resumed_before_its_time(harness: Harness) -> None:
    transport, owner, client = harness.add(TcpTransport)
    harness.poller.pause_reading(transport, harness.clock.now + 100.0)
    client.send(b"x")
    harness.turn(3)
    assert owner.data == b""
    harness.poller.resume_reading(transport)
    harness.until(lambda: owner.data)


def test_a_paused_link_whose_client_resets_is_still_freed(harness: Harness) -> None:
    transport, owner, client = harness.add(TcpTransport)
    harness.poller.pause_reading(transport, harness.clock.now + 100.0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    harness.until(lambda: owner.closed)


def test_a_paused_link_is_written_to(harness: Harness) -> None:
    server, client = harness.narrow_pair()
    transport = TcpTransport(server, harness.transports, "127.0.0.1")
    harness.adopt(transport)
    harness.poller.pause_reading(transport, harness.clock.now + 100.0)
    for n in range(100):
        transport.write(struct.pack("!I", n) * 250, Lane.CONTROL)
    assert transport.queue is not None
    got = harness.read(client, 100_000)
    assert got[-4:] == struct.pack("!I", 99)


def test_a_replaced_link_keeps_what_it_waited_for(harness: Harness) -> None:
    old, _, client = harness.add(TcpTransport)
    harness.poller.pause_reading(old, harness.clock.now + 100.0)
    new = TcpTransport(old.sock, harness.transports, old.address)
    owner = RecordingOwner(new)
    new.owner = owner
    harness.poller.replace(old, new)
    client.send(b"x")
    harness.until(lambda: owner.data)
    harness.poller.rewheel(new, harness.clock.now + 5.0)
    old.abort("forgotten")
    assert harness.gone == []
    assert len(harness.poller) == 1
    assert not owner.closed


def test_a_descriptor_that_is_used_again_within_a_batch_belongs_to_the_new_connection(
    harness: Harness,
) -> None:
    (_, first, first_client), (victim, second, second_client) = harness.add(TcpTransport), harness.add(TcpTransport)
    number = victim.fd
    found: list[RecordingOwner] = []

    def replace_the_second(_: object) -> None:
        server, _ = harness.pair()
        victim.abort("kicked")
        os.dup2(server.fileno(), number)
        server.close()
        harness.adopt(TcpTransport(socket.socket(fileno=number), harness.transports, "127.0.0.1"))
        found.append(harness.owners[-1])

    first.on_data_do = replace_the_second
    first_client.send(b"x")
    second_client.send(b"meant for the second")
    harness.until(lambda: found)
    assert second.data == b"", "both were ready in one batch"
    harness.turn(3)
    assert found[0].data == b""
    assert found[0].closed == []
    assert second.closed == [(CloseCode.CLOSED_BY_PEER, "kicked")]


@pytest.mark.parametrize("where", ["on_deadline", "on_overflow", "on_closed", "on_released"])
def test_a_failure_of_ours_ends_one_link_and_frees_it(harness: Harness, where: str) -> None:
    server, client = harness.narrow_pair()
    transport = TcpTransport(server, harness.transports, "127.0.0.1")
    harness.adopt(transport)
    owner = harness.owners[-1]
    _, bystander, other = harness.add(TcpTransport)

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    release = harness.transports.on_released
    if where == "on_deadline":
        setattr(owner, where, fail)
        harness.poller.rewheel(transport, harness.clock.now)
    elif where == "on_overflow":
        setattr(owner, where, fail)
        while transport.queue is None:
            transport.write(bytes(1000))
    elif where == "on_closed":
        setattr(owner, where, fail)
        client.close()
    else:
        harness.transports.on_released = fail
        client.close()
    with structlog.testing.capture_logs() as lines:
        harness.later(11.0)
        harness.until(lambda: transport.fd == -1)
    assert harness.poller.crashes == len(lines) == 1
    assert server.fileno() == -1, "the descriptor is free"
    assert len(harness.poller) == 1
    harness.poller.crashes = 0
    harness.transports.on_released = release
    if where == "on_released":
        harness.connection_limits.leave("127.0.0.1", authenticated=False)
    other.send(b"fine")
    harness.until(lambda: bystander.data == b"fine")


def test_a_socket_that_cannot_be_polled_leaves_no_trace(harness: Harness) -> None:
    server, _ = harness.pair()
    transport = TcpTransport(server, harness.transports, "127.0.0.1")
    server.close()
    with pytest.raises(OSError, match=r"\S"):
        harness.poller.add(transport, harness.clock.now + 1.0)
    assert len(harness.poller) == 0
    assert transport.wheel_before is None


class Sitters:
    """A few owned links on a running poller."""

    def __init__(self, poller: Poller, count: int) -> None:
        self.gone: list[Transport] = []
        transports = transport_settings(poller, budget_bytes=1 << 20, on_released=self.gone.append)
        self.clients: list[socket.socket] = []
        self.owners: list[RecordingOwner] = []
        for _ in range(count):
            server, client = socket.socketpair()
            server.setblocking(False)
            transport = TcpTransport(server, transports, "127.0.0.1")
            transport.owner = RecordingOwner(transport)
            self.owners.append(transport.owner)
            self.clients.append(client)
            poller.add(transport, trio.current_time() + 60.0)


async def test_when_the_poller_ends_every_link_has_ended() -> None:
    before = descriptors()
    with trio.fail_after(10), structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            poller = Poller(write_timeout_s=10.0)
            await nursery.start(poller.run)
            sitters = Sitters(poller, 5)
            sitters.owners[2].on_closed = None  # type: ignore[assignment]  # one of them fails even at the end
            sitters.clients[0].send(b"hello")
            while not sitters.owners[0].data:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    closed = [owner.closed for owner in sitters.owners]
    assert (
        closed
        == [[(CloseCode.GOING_AWAY, "broker stopped")]] * 2 + [[]] + [[(CloseCode.GOING_AWAY, "broker stopped")]] * 2
    )
    assert len(sitters.gone) == 5
    assert len(poller) == 0
    for client in sitters.clients:
        client.close()
    assert descriptors() <= before


async def test_events_that_come_fast_gather_and_those_that_do_not_are_served_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        poller = Poller(write_timeout_s=10.0)
        await nursery.start(poller.run)
        sitters = Sitters(poller, 1)
        for rest_s, waits in ((1.0, False), (0.0, True), (1.0, False)):
            await trio.sleep(rest_s)
            sent_at, had = trio.current_time(), len(sitters.owners[0].data)
            sitters.clients[0].send(b"x")
            while len(sitters.owners[0].data) == had:
                await trio.lowlevel.checkpoint() if not waits else await trio.sleep(GATHER_S / 4)
            assert (trio.current_time() - sent_at >= GATHER_S) is waits
        nursery.cancel_scope.cancel()
    sitters.clients[0].close()


async def test_deadlines_are_kept_without_any_traffic(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        poller = Poller(write_timeout_s=10.0)
        await nursery.start(poller.run)
        sitters = Sitters(poller, 1)
        await trio.sleep(59.9)
        assert not sitters.owners[0].closed
        await trio.sleep(1.0)
        assert sitters.owners[0].closed == [(CloseCode.HANDSHAKE_TIMEOUT, "too late")]
        nursery.cancel_scope.cancel()
    sitters.clients[0].close()
