"""The micro benches: their bytes follow the protocol, their goals are evaluated, and they run."""

from __future__ import annotations

import importlib
from inspect import signature
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest
import trio.lowlevel
from hypothesis import example, given
from hypothesis import strategies as st

from bench.load.sockets import server_message
from bench.micro import BENCHES, run
from bench.micro.clients import PHRASES
from bench.micro.harness import BrokerLoopMonitor, config, serving
from bench.micro.result import Result, median, table
from bench.micro.wire import (
    STAMP_CHARS,
    GiftTemplate,
    Template,
    body_of,
    frame,
    frames_in,
    hello_auth_join,
    masked,
    read_stamp,
    text_of,
    ws_messages,
)
from broker.core.moderation.detectors import detect
from broker.net.transport import Framing
from broker.rooms.encoding import Content, prepare, variant_of
from protocol.codes import Codec, Lane, Opcode, Tier
from protocol.connection import NEED_DATA, Connection, Frame
from protocol.messages import Account, Auth, Join, Post, Side, Tick, TickEntry
from protocol.payloads import GiftPayload


def read_by_the_broker(data: bytes) -> list[Frame]:
    connection = Connection(Side.SERVER)
    connection.receive_data(data)
    frames = []
    while (event := connection.next_event()) is not NEED_DATA:
        assert isinstance(event, Frame)
        frames.append(event)
    assert not connection.mid_frame
    return frames


def test_joining_is_three_frames_that_the_broker_parses() -> None:
    hello, auth, join = read_by_the_broker(hello_auth_join("dev:ann", "stage"))
    assert hello.opcode is Opcode.HELLO
    assert auth.message == Auth("dev:ann")
    assert join.message == Join("stage", Tier.FULL)
    assert join.sequence == 1


@given(st.sampled_from(PHRASES), st.integers(0, 2**40 - 1), st.integers(0, 2**31 - 1))
def test_a_stamped_danmaku_is_one_post_and_reports_when_it_was_due(phrase: str, due_us: int, count: int) -> None:
    message = Template(phrase, 7, False).message(due_us, count)
    *_, post = read_by_the_broker(hello_auth_join(None, "stage") + message)
    assert (post.opcode, post.room, post.sequence) == (Opcode.POST, 7, count)
    assert isinstance(post.message, Post)
    text = post.message.payload.text
    assert text.startswith(phrase)
    assert read_stamp(text) == due_us
    assert masked(message)[6:] == Template(phrase, 7, True).message(due_us, count)[6:] == message


@given(st.integers(0, 2**40 - 1), st.integers(0, 2**24 - 1))
@example(0xFFFFF13800, 0x138000)
def test_no_detector_finds_anything_in_a_stamp(due_us: int, count: int) -> None:
    message = Template("来了来了", 7, False).message(due_us, count)
    assert detect(message[-STAMP_CHARS:].decode()) == []


def test_a_gift_of_the_template_is_one_post_with_an_order_of_its_own() -> None:
    template = GiftTemplate("1-", 7)
    *_, first, second = read_by_the_broker(
        hello_auth_join(None, "stage") + template.message(0, 3) + template.message(0, 4)
    )
    for post in first, second:
        assert (post.opcode, post.room) == (Opcode.POST, 7)
        assert isinstance(post.message, Post)
        assert isinstance(post.message.payload, GiftPayload)
    assert isinstance(first.message, Post)
    assert isinstance(second.message, Post)
    assert first.message.payload.order_id != second.message.payload.order_id


def test_a_text_without_a_stamp_has_no_time() -> None:
    assert read_stamp("来了来了") == read_stamp("no stamp, but as long as one") == -1


@given(st.lists(st.binary(max_size=300), max_size=5), st.lists(st.integers(0, 2000), max_size=5))
def test_frames_and_messages_are_whole_however_they_are_split(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(server_message(frame(Opcode.TICK, body, room=number)) for number, body in enumerate(bodies))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    outer, inner, seen = bytearray(), bytearray(), []
    for start, stop in pairwise(edges):
        outer += stream[start:stop]
        inner += ws_messages(outer)
        seen += [(room, body) for _, _, room, body in frames_in(inner)]
    assert seen == list(enumerate(bodies))
    assert not outer
    assert not inner


@pytest.mark.parametrize("codec", [Codec.PLAIN, Codec.LZ4, Codec.LZ4_DICT_1])
def test_the_viewers_read_a_tick_in_every_codec(codec: Codec) -> None:
    entries = tuple(TickEntry(1, f"user-{number}", "Ann", ("来了来了",), number % 2 + 1) for number in range(30))
    tick = Tick(1, 100, 0, entries, Account(30, 30))
    variant = variant_of(Framing.WEBSOCKET, codec, Tier.FULL)
    sent = prepare([variant], [[Content(tick, Lane.CHAT, 1, 30)]] * 3, 5).frames[variant]
    assert sent is not None
    [(opcode, used, room, body)] = frames_in(ws_messages(bytearray(sent)))
    assert (opcode, used, room) == (Opcode.TICK, codec, 5)
    shown = body_of(used, body)[3]
    assert isinstance(shown, list)
    assert [text_of(entry) for entry in shown] == ["来了来了"] * 30


@pytest.mark.parametrize(
    ("result", "met", "ratio"),
    [
        (Result("b", "f", 9.0, "us", 1.15, floor=8.0, goal_of="ratio"), True, 1.125),
        (Result("b", "f", 10.0, "us", 1.15, floor=8.0, goal_of="ratio"), False, 1.25),
        (Result("b", "f", 10.0, "us", 1.15, goal_of="ratio"), False, None),
        (Result("b", "f", 1500.0, "B", 1536.0), True, None),
        (Result("b", "f", 40_000.0, "/s", 50_000.0, False, 100_000.0), False, 2.5),
        (Result("b", "f", 60_000.0, "/s", 50_000.0, False, 120_000.0), True, 2.0),
        (Result("b", "f", 1.0, "us"), None, None),
    ],
)
def test_a_goal_applies_to_the_value_or_to_the_ratio(result: Result, met: bool | None, ratio: float | None) -> None:
    assert result.met is met
    assert result.ratio == ratio
    assert ("MISSED" in table([result])) is (met is False)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=9))
def test_the_median_has_as_many_above_as_below(values: list[int]) -> None:
    middle = median(values)
    assert sum(value < middle for value in values) <= len(values) / 2
    assert sum(value > middle for value in values) <= len(values) / 2


def test_every_bench_of_the_table_exists_and_has_a_smoke_size() -> None:
    for module, function, words in BENCHES.values():
        bench = getattr(importlib.import_module(f"bench.micro.{module}"), function)
        assert next(iter(signature(bench).parameters)) == "smoke"
        assert words


def test_an_unknown_bench_is_named() -> None:
    with pytest.raises(ValueError, match="no such bench: nonsense"):
        run(["core", "nonsense"], smoke=True)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("name", ["connect-tcp", "inbound", "core"])
def test_a_smoke_run_succeeds(name: str) -> None:
    results = run([name], smoke=True)
    assert results
    assert all(result.bench == name and result.value > 0 for result in results)


@pytest.mark.parametrize(("name", "slow_steps"), [("broker.net.poller.Poller.run", 1), ("bench.micro.memory.main", 0)])
def test_long_steps_of_the_broker_are_reported_and_not_those_of_the_bench(name: str, slow_steps: int) -> None:
    times = iter([0.0, 1.0, 2.0, 2.0])
    monitor = BrokerLoopMonitor(clock=lambda: next(times), cpu_clock=lambda: 0.0)
    task = cast(trio.lowlevel.Task, SimpleNamespace(name=name))
    monitor.before_task_step(task)
    monitor.after_task_step(task)
    assert monitor.slow_steps == slow_steps


@pytest.mark.integration
async def test_a_bench_is_not_warned_of_the_limits_that_it_switches_off(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving(config(paid_budget_per_s=0.0)):
        pass
    assert "switch limits off" not in "".join(capfd.readouterr())
