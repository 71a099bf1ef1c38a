"""Metrics: every counter of the code has its row, every row can be read, and the text format is Prometheus'."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.server import Broker
from broker.telemetry.metrics import METRICS, Metric, MetricValue, Stats, collect, render
from protocol.codes import Lane, MessageType
from protocol.messages import Ack
from protocol.operations import BY_NAME, KeyUse
from tests.support.broker import joined_link, running_broker
from tests.support.durable import durable_broker
from tests.support.tenants import backend
from tests.support.until import until

ROOT = Path(__file__).parents[2]

_POLLER = "broker.net.poller"

NOT_COUNTERS = {
    "broker.core.chat.coalesce:count": "part of one message",
    "broker.core.chat.coalesce:senders": "part of one message",
    "broker.core.commerce.gifts:in_flight": "part of one combo",
    "broker.core.commerce.gifts:seq": "part of one combo",
    "broker.core.commerce.gifts:total": "part of one combo",
    "broker.core.commerce.gifts:waiting": "combos of one room",
    "broker.core.commerce.rankings:ranked": "users of one ranking",
    "broker.core.commerce.rankings:total": "state that a room publishes",
    "broker.core.commerce.gifts:waiting_count": "part of one combo",
    "broker.core.commerce.gifts:pending": "in roomcast_messages_held of the paid lane",
    "broker.core.net.send_queue:critical_frames": "length of one queue",
    "broker.core.net.send_queue:critical_nbytes": "length of one queue",
    "broker.core.net.send_queue:frames": "length of one queue",
    "broker.core.net.send_queue:nbytes": "length of one queue; all together are roomcast_queue_bytes",
    "broker.core.rooms.traces:used": "posts that are traced, which have a bound",
    "broker.core.structures.histogram:counts": "part of one histogram",
    "broker.core.structures.histogram:sum": "part of one histogram",
    "broker.core.rooms.counters:number": "number of a state",
    "broker.core.rooms.history:last_offset": "position in a stream",
    "broker.core.rooms.history:nbytes": "length of one history",
    "broker.core.rooms.likes:delta": "state that a room publishes",
    "broker.core.rooms.likes:total": "state that a room publishes",
    "broker.core.rooms.presence:joined": "part of the rates of one room",
    "broker.core.rooms.presence:online": "state that a room publishes",
    "broker.core.commerce.sale_claims:confirmed": "units of one sale",
    "broker.core.commerce.sale_claims:reserved": "units of one sale",
    "broker.core.commerce.sale_claims:waiting": "claims of one sale",
    "broker.core.commerce.sale_facts:price_version": "version of a price",
    "broker.core.commerce.sale_facts:stock": "units of one sale",
    "broker.core.commerce.sale_window:count": "claims of one window",
    "broker.core.rooms.stream:open_cents": "cents of one room in flight",
    "broker.core.rooms.presence:users": "state that a room publishes",
    "broker.net.websocket:body": "part of one message",
    "broker.net.websocket:fragments": "part of one message",
    "broker.net.websocket:size": "part of one message",
    "broker.rooms.fanout:cost_s": "part of one sweep",
    "broker.rooms.fanout:queued": "part of one sweep",
    "broker.rooms.fanout:refused": "part of one sweep",
    "broker.rooms.fanout:written": "part of one sweep",
    "broker.rooms.fanout:published": "number of a content",
    "broker.rooms.journal:pending": "records of one room in flight",
    "broker.rooms.node_sender:number": "number of a batch",
    "broker.rooms.node_sender:nbytes": "records for one node in flight",
    "broker.rooms.shared_ledger:nbytes": "records of one room in flight",
    "broker.sessions.relays:posts": "posts of one link in flight",
    "broker.sessions.waiting:count": "posts of one link in flight",
    "broker.sessions.waiting:nbytes": "posts of one link in flight",
    "broker.ledger.rows:rows": "part of one checksum",
    "broker.ledger.rows:states": "rows of one table by state",
    "broker.ledger.rows:sum": "part of one checksum",
    "broker.ledger.inbox_rows:last_id": "number of a message to a user",
    "broker.ledger.transaction:last_offset": "position in a stream",
    "broker.engine.dataset:expired": "state of an inbox that readers get",
    "broker.engine.dataset:last": "number of a message to a user",
    "broker.ledger.stream_rows:next_number": "number of a stream",
    "broker.core.users.conversations:next": "offset in a conversation",
    "broker.core.users.conversations:unread": "state that a user gets",
    "broker.core.users.conversations:written": "state that decides who sees whom",
    "broker.core.nodes.restarts:total": "processes of a supervisor, which has no broker",
}
"""Public attributes that grow by additions and count nothing that an operator would watch."""
NOT_OF_THE_BROKER = (
    "broker.demo", "broker.cli", "broker.ledger.replay", "broker.core.reports", "broker.rooms.show_reports",
    "broker.rooms.room_replay",
)  # fmt: skip
"""Commands and folds with counters of their own."""


def incremented(module: str, source: str) -> set[str]:
    """Return ``module:attribute`` of every public attribute that the source increments: by ``x.a += n``,
    ``x.a[k] += n``, ``x.a = x.a + n`` or ``x.a[k] = x.a.get(k, 0) + n``.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        targets: list[ast.expr] = []
        read: str | None = None
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            targets = [node.target]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.Add):
            targets, read = node.targets, ast.unparse(node.value)
        for target in targets:
            while isinstance(target, ast.Subscript):
                target = target.value
            if not isinstance(target, ast.Attribute) or target.attr.startswith("_"):
                continue
            if read is None or ast.unparse(target) in read:
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


def without_row(found: set[str]) -> set[str]:
    return found - sources() - set(NOT_COUNTERS)


def test_every_counter_of_the_code_has_its_row() -> None:
    assert without_row(all_incremented()) == set()


def test_no_row_and_no_exception_names_what_is_not_there() -> None:
    found = all_incremented()
    assert sources() - found == set()
    assert set(NOT_COUNTERS) - found == set()
    assert set(NOT_COUNTERS) & sources() == set()


PLANTED = """
def on(self, accounts, n):
    self.stats.lost += 1
    self._own += 1
    self.by[3][n] += 2
    accounts.spent += n
    self.seen[n] = self.seen.get(n, 0) + 1
    self.grown = self.grown + n
    self.end = self.start + n
    self.left -= 1
    local = n + 1
    local += 1
    self.crashes += 1
"""


def test_a_counter_without_a_row_is_found() -> None:
    found = incremented(_POLLER, PLANTED)
    assert found == {f"{_POLLER}:{name}" for name in ("lost", "by", "spent", "seen", "grown", "crashes")}
    assert without_row(all_incremented() | found) == found - {f"{_POLLER}:crashes"}


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
        rows = {name for name in read if name.startswith("roomcast_room_")}
        assert rows == {f"roomcast_room_{name}_total" for name in broker.hub.totals().events}


class CountedReads:
    """A hub that counts how often its rooms are summed."""

    def __init__(self, broker: Broker) -> None:
        self.broker, self.reads = broker, 0

    def __len__(self) -> int:
        return len(self.broker.hub)

    def __getattr__(self, name: str) -> Any:
        self.reads += name in {"totals", "totals_in_steps"}
        return getattr(self.broker.hub, name)


@pytest.mark.integration
async def test_rooms_are_summed_once_for_all_rows() -> None:
    async with running_broker() as broker:
        hub = CountedReads(broker)
        parts = SimpleNamespace(**{**vars(broker), "hub": hub, "log_file": SimpleNamespace(dropped=7)})
        read = {metric.name: samples for metric, samples in collect(parts)}
        assert hub.reads == 1
        assert read["roomcast_log_lines_dropped_total"] == [MetricValue(7.0)]
        assert Stats.of(parts) == broker.stats()
        assert hub.reads == 2


@pytest.mark.integration
async def test_a_room_is_read_again_only_when_something_has_happened_in_it() -> None:
    async with (
        running_broker() as broker,
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob"),
    ):
        (opened,) = broker.hub
        await until(lambda: opened.state.next_due(0.0) is None)
        first = broker.hub.totals()
        reading = opened.reading
        assert broker.hub.totals().accounts == first.accounts
        assert opened.reading is reading is not None
        await ann.post(room, 1, MessageType.DANMAKU, ("a text", None))
        await ann.expect(Ack)
        assert opened.reading is None
        assert broker.hub.totals().accounts[Lane.CHAT].shown == first.accounts[Lane.CHAT].shown + 1


@pytest.mark.integration
async def test_what_an_ended_room_has_counted_stays_counted() -> None:
    async with running_broker(room={"idle_close_s": 0.1}) as broker:
        async with joined_link(broker, "dev:ann") as (ann, room):
            for sequence in (1, 2):
                await ann.post(room, sequence, MessageType.DANMAKU, ("the same text", None))
                await ann.expect(Ack)
            before = broker.hub.totals().events
            assert before["duplicates"] == 1
        await until(lambda: len(broker.hub) == 0)
        assert broker.hub.totals().events == before


@pytest.mark.integration
async def test_units_money_and_codes_of_activities_are_summed_by_state(directory: Path) -> None:
    async with durable_broker(directory) as broker:

        def read() -> dict[str, dict[str, float]]:
            names = "roomcast_sale_units", "roomcast_packet_cents", "roomcast_coupons"
            return {
                metric.name: {sample.labels[0][1]: sample.value for sample in samples}
                for metric, samples in collect(broker)
                if metric.name in names
            }

        async def invoke(name: str, **request: Any) -> Any:
            key = name if BY_NAME[name].key is KeyUse.REQUIRED else ""
            return (await broker.operations.call(backend("", key), BY_NAME[name], request))[0]

        assert {value for values in read().values() for value in values.values()} == {0}
        for room in ("live-1", "live-2"):
            await invoke(
                "sales.create", room=room, id="s", sku="mug", stock=5, price_cents=1, open_at_ms=0,
                close_at_ms=4_102_444_800_000,
            )  # fmt: skip
        await invoke("packets.create", room="live-1", id="p", order_id="o-1", total_cents=700, count=7)
        await invoke(
            "rains.create", room="live-1", id="r", order_id="o-2", total_cents=900, drops=3, count=3, span_ms=9000
        )
        await invoke("coupons.create", room="live-1", id="c", count=4)
        await invoke("coupons.issue", room="live-1", id="c", user="ann")
        assert read() == {
            "roomcast_sale_units": {"available": 10, "reserved": 0, "confirmed": 0},
            "roomcast_packet_cents": {"open": 1600, "taken": 0, "returned": 0},
            "roomcast_coupons": {"issued": 1, "left": 3},
        }
        await invoke("packets.cancel", room="live-1", id="p")
        await invoke("coupons.close", room="live-1", id="c")
        assert read()["roomcast_packet_cents"] == {"open": 900, "taken": 0, "returned": 700}
        assert read()["roomcast_coupons"] == {"issued": 1, "left": 0}


LINE = re.compile(r'[a-z_:][a-z0-9_:]*(\{[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"\})? \S+')


def test_the_text_format_to_the_letter() -> None:
    gauge = Metric("roomcast_x", "gauge", 'Back\\slash,\nline and "quotes".', lambda reading: 0)
    counter = Metric("roomcast_y_total", "counter", "Y.", lambda reading: 0, (), "code")
    samples = [MetricValue(float("inf"), (("code", 'a"b\\c\nd'),)), MetricValue(2.5, (("code", "e"),))]
    nothing = counter._replace(name="roomcast_z_total")
    assert render([(gauge, [MetricValue(3.0)]), (counter, samples), (nothing, [])]) == (
        '# HELP roomcast_x Back\\\\slash,\\nline and "quotes".\n'
        "# TYPE roomcast_x gauge\n"
        "roomcast_x 3.0\n"
        "# HELP roomcast_y_total Y.\n"
        "# TYPE roomcast_y_total counter\n"
        'roomcast_y_total{code="a\\"b\\\\c\\nd"} +Inf\n'
        'roomcast_y_total{code="e"} 2.5\n'
        "# HELP roomcast_z_total Y.\n"
        "# TYPE roomcast_z_total counter\n"
    )
    assert render([(gauge, [MetricValue(float("nan"))])]).endswith("roomcast_x NaN\n")


@given(st.text(), st.text(), st.floats(allow_nan=False))
def test_the_text_format_holds_for_any_text(help_text: str, label: str, value: float) -> None:
    metric = Metric("roomcast_x_total", "counter", help_text, lambda reading: 0, (), "name")
    text = render([(metric, [MetricValue(value, (("name", label),))])])
    lines = text.split("\n")
    assert lines[0].startswith("# HELP roomcast_x_total ")
    assert lines[1] == "# TYPE roomcast_x_total counter"
    assert LINE.fullmatch(lines[2])
    assert float(lines[2].rsplit(" ", 1)[1]) == value
    assert lines[3:] == [""]
