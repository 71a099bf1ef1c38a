from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, cast

import pytest
import trio
import trio.testing

from broker.demo.accounting import Accounting, Latency
from broker.demo.load_process import LoadProcess, LoadShare, LoadViewer, Report, read_lines, round_robin
from broker.demo.scenario import PhaseRates
from broker.demo.users import CuttableConnector, PausableConnector, PausablePipe, SmallBuffers
from protocol.clients import (
    Address,
    BytePipe,
    Danmaku,
    Gap,
    MessagesMissed,
    PipeLost,
    Rejoined,
    State,
    StreamEvent,
    TickAccount,
)
from protocol.codes import Lane, MessageType, Role, RoomPhase, Tier
from protocol.messages import Account, Joined

SHARE = LoadShare(1, "lobby", 0, 100, 7)
JOINED = Joined("lobby", 1, 9, Role.VIEWER, RoomPhase.LIVE, Tier.FULL, 100, 0, 0, 0, 0, 0)


class EndlessPipe:
    """A pipe that always has a byte."""

    def __init__(self) -> None:
        self.closed = 0

    async def send(self, data: bytes) -> None:
        raise NotImplementedError

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"x"

    async def aclose(self, code: int | None = None) -> None:
        self.closed += 1
        await trio.lowlevel.checkpoint()


async def test_a_paused_connector_reads_nothing_until_it_is_resumed(autojump_clock: trio.testing.MockClock) -> None:
    connector = PausableConnector()
    pipe = PausablePipe(EndlessPipe(), connector)
    assert await pipe.receive() == b"x"
    connector.pause()
    with trio.move_on_after(5) as scope:
        await pipe.receive()
    assert scope.cancelled_caught
    connector.resume()
    assert await pipe.receive() == b"x"


async def test_a_refused_connection_is_a_lost_pipe() -> None:
    connector = PausableConnector()
    async with trio.open_nursery() as nursery:
        with pytest.raises(PipeLost):
            await connector(nursery, Address("roomcast", "127.0.0.1", 1))


async def test_a_connection_is_cut_once_and_a_second_cut_does_nothing() -> None:
    pipe = EndlessPipe()

    async def connect(nursery: trio.Nursery, address: Address) -> BytePipe:
        return pipe

    connector = CuttableConnector(connect)
    await connector.cut()
    async with trio.open_nursery() as nursery:
        assert await connector(nursery, Address("roomcast", "127.0.0.1", 1)) is pipe
    await connector.cut()
    await connector.cut()
    assert pipe.closed == 1


async def test_clients_have_small_receive_buffers_from_the_beginning() -> None:
    made = SmallBuffers().socket(socket.AF_INET, socket.SOCK_STREAM)
    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 3 * 4096
    made.close()


def viewer(wall_ms: float = 1000.0) -> tuple[LoadViewer, Latency]:
    latency = Latency()
    return LoadViewer(SHARE, 3, latency, lambda: wall_ms), latency


def event(offset: int, at_ms: int) -> StreamEvent:
    return StreamEvent(offset, Lane.PAID, MessageType.GIFT, at_ms, "", "", ())


def test_a_viewer_measures_latency_from_the_creation_to_the_arrival_of_ticks_and_events() -> None:
    one, latency = viewer(1000.0)
    one.on_event(TickAccount(1, 990, 100, 0, Account(1, 1)))
    one.on_event(event(1, 950))
    assert latency.take() == {10: 1, 50: 1}


def test_a_replayed_event_is_no_latency_sample() -> None:
    one, latency = viewer()
    one.on_event(Rejoined(JOINED, True))
    one.on_event(event(9, 10))
    assert latency.take() == {}
    one.on_event(event(10, 990))
    assert latency.take() == {10: 1}
    assert (one.back, one.recovered, one.received) == (1, 1, 2)


def test_a_viewer_counts_what_it_received_and_what_it_missed() -> None:
    one, _ = viewer()
    one.on_event(Danmaku(1, "u", "", ("x", None), 5, (), 0, 1))
    one.on_event(State(0, RoomPhase.LIVE, 0, 100, 1, 1, 1, 1, 0))
    one.on_event(Gap(1, 2))
    one.on_event(MessagesMissed(3, 1, True))
    one.on_event(Rejoined(JOINED, False))
    assert (one.received, one.holes, one.missed, one.back, one.recovered) == (2, 1, 4, 1, 0)


def test_a_load_process_runs_its_share_of_the_viewers_on_both_transports() -> None:
    process = LoadProcess(SHARE)
    assert len({each.member.user for each in process.viewers}) == 100
    assert sum(each.member.is_websocket for each in process.viewers) == 25
    assert {each.member.tier for each in process.viewers} == set(Tier)
    assert process.report() == Report(accounting=process.accounting.to_json())


def test_silent_and_absent_viewers_are_left_out_of_the_round_robin() -> None:
    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name
            self.silent = False
            self.member = self
            self.is_joined = True

    one, two, three = fakes = [Fake("one"), Fake("two"), Fake("three")]
    turns: Iterator[Any] = round_robin(cast(Any, fakes))
    assert [next(turns) for _ in range(4)] == [one, two, three, one]
    two.silent, three.is_joined = True, False
    assert [next(turns) for _ in range(2)] == [one, one]
    one.silent = True
    assert next(turns) is None
    two.silent = False
    assert next(turns) is two
    assert next(round_robin([])) is None


async def commands(*lines: str) -> AsyncGenerator[str, None]:
    for line in lines:
        await trio.lowlevel.checkpoint()
        yield line


async def test_a_load_process_ends_on_the_command_and_when_its_input_ends() -> None:
    rates = json.dumps({"do": "rates", "at_s": 1.0, "rates": PhaseRates(chat_per_viewer=2.0)})
    for lines in ((rates, '{"do": "leave"}', rates), (rates,)):
        written: list[str] = []
        process = LoadProcess(SHARE._replace(size=0))
        with trio.fail_after(10):
            async with aclosing(commands(*lines)) as given:
                await process.run(given, written.append)
        assert process.rates.chat_per_viewer == 2.0
        assert Report(*json.loads(written[-1])) == Report(latency=[], accounting=Accounting().to_json())  # type: ignore[arg-type]


async def test_observers_only_watch() -> None:
    process = LoadProcess(SHARE._replace(size=0, posts=False))
    lines = [
        json.dumps({"do": "rates", "at_s": 1.0, "rates": PhaseRates(2.0)}),
        '{"do": "cut", "share": 1.0}',
        '{"do": "stop"}',
    ]
    written: list[str] = []
    await process.run(commands(*lines), written.append)
    assert process.rates == PhaseRates()
    assert Report(*json.loads(written[-1])).all_answered


async def test_lines_are_whole_however_they_are_split() -> None:
    send, receive = trio.testing.memory_stream_one_way_pair()
    for piece in ('{"a": "你'.encode()[:-1], "你".encode()[-1:] + b'"}', b"\nsecond\nrest"):
        await send.send_all(piece)
    await send.aclose()
    assert [line async for line in read_lines(receive)] == ['{"a": "你"}', "second"]
