"""Metrics: every counter of the code has its row, every row can be read, and the text format is Prometheus'."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from broker.telemetry.metrics import METRICS, Metric, MetricValue, Stats, collect, render
from protocol.codes import MessageType
from protocol.messages import Ack
from tests.support.broker import joined_link, running_broker

ROOT = Path(__file__).parents[2]

NOT_COUNTERS = {
    "broker.core.chat.coalesce:count": "part of one message",
    "broker.core.chat.coalesce:senders": "part of one message",
    "broker.core.commerce.gifts:count": "part of one combo",
    "broker.core.commerce.gifts:pending": "in roomcast_messages_held of the paid lane",
    "broker.core.net.send_queue:critical_frames": "length of one queue",
    "broker.core.net.send_queue:critical_nbytes": "length of one queue",
    "broker.core.net.send_queue:frames": "length of one queue",
    "broker.core.net.send_queue:nbytes": "length of one queue; all together are roomcast_queue_bytes",
    "broker.core.rooms.history:last_offset": "position in a stream",
    "broker.core.rooms.history:nbytes": "length of one history",
    "broker.core.rooms.likes:delta": "state that a room publishes",
    "broker.core.rooms.likes:total": "state that a room publishes",
    "broker.core.rooms.presence:online": "state that a room publishes",
    "broker.core.rooms.presence:users": "state that a room publishes",
    "broker.core.rooms.accounts:admitted": "a sum of what is counted already",
    "broker.net.websocket:body": "part of one message",
    "broker.net.websocket:fragments": "part of one message",
    "broker.net.websocket:size": "part of one message",
    "broker.rooms.fanout:cost_s": "part of one sweep",
    "broker.rooms.fanout:published": "number of a content",
    "broker.rooms.room_store:pending": "records of one room in flight",
    "broker.ledger.store:next_stream": "number of a stream",
}
"""Public attributes that grow by ``+=`` and count nothing that an operator would watch."""
NOT_OF_THE_BROKER = ("broker.demo", "broker.cli", "broker.ledger.replay")
"""Commands with counters of their own."""


def incremented(module: str, source: str) -> set[str]:
    """``module:attribute`` of every public attribute that the source increments."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            target = node.target.value if isinstance(node.target, ast.Subscript) else node.target
            if isinstance(target, ast.Attribute) and not target.attr.startswith("_"):
                found.add(f"{module}:{target.attr}")
    return found


def all_incremented() -> set[str]:
    found = set()
    for path in (ROOT / "broker").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if not module.startswith(NOT_OF_THE_BROKER):
            found |= incremented(module, path.read_text())
    return found


def sources() -> set[str]:
    return {source for metric in METRICS for source in metric.sources}


def test_every_counter_of_the_code_has_its_row() -> None:
    assert all_incremented() - sources() - set(NOT_COUNTERS) == set()


def test_no_row_and_no_exception_names_what_is_not_there() -> None:
    found = all_incremented()
    assert sources() - found == set()
    assert {each for each in NOT_COUNTERS if each not in found} <= {"broker.core.rooms.accounts:admitted"}


def test_a_counter_without_a_row_is_found() -> None:
    source = "def on(self):\n    self.stats.lost += 1\n    self._own += 1\n    self.by[3] += 2\n"
    assert incremented("broker.net.link", source) == {"broker.net.link:lost", "broker.net.link:by"}


def test_names_follow_the_conventions_and_are_unique() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"roomcast_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.help.endswith("."), metric.name


@pytest.mark.integration
@pytest.mark.parametrize("is_durable", [False, True])
async def test_every_row_is_read_from_a_running_broker(tmp_path: Path, is_durable: bool) -> None:
    ledger = {"data_dir": str(tmp_path)} if is_durable else {}
    async with running_broker(ledger=ledger) as broker, joined_link(broker, "dev:max:host") as (host, room):
        await host.post(room, 1, MessageType.ANNOUNCEMENT, ("hello",))
        await host.expect(Ack)
        read = {metric.name: samples for metric, samples in collect(broker)}
        assert len(read) == len(METRICS)
        assert read["roomcast_connections"] == [MetricValue(1.0)]
        assert read["roomcast_posts_total"] == [MetricValue(1.0)]
        assert MetricValue(1.0, (("lane", "control"),)) in read["roomcast_messages_shown_total"]
        assert read["roomcast_ledger_submissions_total"][0].value == (2.0 if is_durable else 0.0)
        assert MetricValue(1.0, (("protocol", "native"),)) in read["roomcast_connections_detected_total"]
        assert broker.stats() == Stats.of(broker)
        assert broker.stats().accounts[0].shown == 1


@pytest.mark.integration
async def test_what_an_ended_room_has_counted_stays_counted() -> None:
    async with running_broker(room={"idle_close_s": 0.1}) as broker:
        async with joined_link(broker, "dev:ann") as (ann, room):
            for sequence in (1, 2):
                await ann.post(room, sequence, MessageType.DANMAKU, ("the same text", None))
                await ann.expect(Ack)
            before = broker.hub.counters()
            assert before["duplicates"] == 1
        with trio.fail_after(20):
            while len(broker.hub):  # noqa: ASYNC110 - the hub has no event
                await trio.sleep(0.001)
        assert broker.hub.counters() == before


LINE = re.compile(r'[a-z_:][a-z0-9_:]*(\{[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"\})? \S+')


@given(st.text(), st.text(), st.floats(allow_nan=False))
def test_the_text_format_holds_for_any_text(help_text: str, label: str, value: float) -> None:
    metric = Metric("roomcast_x_total", "counter", help_text, lambda broker: 0, (), "name")
    text = render([(metric, [MetricValue(value, (("name", label),))])])
    lines = text.split("\n")
    assert lines[0].startswith("# HELP roomcast_x_total ")
    assert lines[1] == "# TYPE roomcast_x_total counter"
    assert LINE.fullmatch(lines[2])
    assert float(lines[2].rsplit(" ", 1)[1]) == value
    assert lines[3:] == [""]
