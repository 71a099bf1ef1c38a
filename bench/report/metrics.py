"""Table of the figures of a result: label, unit and direction of each.

It imports no package of the extra ``bench``, so that ``bench list`` and ``bench compare`` need none of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["METRICS", "Metric", "headline_value"]

Result = dict[str, Any]
"""JSON of one run. Any: see `bench.report.results.assemble` for the fields."""


class Metric(NamedTuple):
    """Label, unit and direction of one figure."""

    label: str
    unit: str
    lower_is_better: bool


METRICS: dict[str, Metric] = {
    "fanout_ratio": Metric("fan-out against the raw Python loop", "x", True),
    "fanout_ratio_c": Metric("fan-out against the raw C loop", "x", True),
    "cpu_ratio": Metric("whole broker's CPU a delivery, against the raw Python loop", "x", True),
    "write_us": Metric("fan-out, one write", "us", True),
    "deliveries_a_write": Metric("contents joined in a write", "", False),
    "raw_python_us": Metric("raw Python loop, one send", "us", True),
    "raw_c_us": Metric("raw C loop, one send", "us", True),
    "cpu_delivery_us": Metric("whole broker's CPU, one delivery", "us", True),
    "cpu_network_us": Metric("of these: poller, transports, WebSocket", "us", True),
    "cpu_sessions_us": Metric("sessions, log-ins, operations", "us", True),
    "cpu_rooms_us": Metric("rooms: limits, ticks, encoding", "us", True),
    "cpu_fanout_us": Metric("fan-out, with the kernel's part of its sends", "us", True),
    "cpu_ledger_us": Metric("ledger, with its thread", "us", True),
    "cpu_other_us": Metric("Trio, and what is in none of them", "us", True),
    "packets_per_viewer_s": Metric("packets a second and viewer (writes of the fan-out)", "/s", True),
    "chat_p50_ms": Metric("danmaku, publish to arrival, p50", "ms", True),
    "chat_p99_ms": Metric("danmaku, publish to arrival, p99", "ms", True),
    "chat_over_bound": Metric("danmaku p99 over two ticks and a raw sweep", "x", True),
    "chat_p99_vs_reference": Metric("danmaku p99 over that of the reference run", "x", True),
    "control_p99_ms": Metric("announcements (lane 0), p99", "ms", True),
    "control_over_sweep": Metric("announcements p99 over the raw sweep", "x", True),
    "paid_p99_ms": Metric("gifts (lane 2), p99", "ms", True),
    "ambient_p99_ms": Metric("counters (lane 4), broker to arrival, p99", "ms", True),
    "ack_p99_ms": Metric("a POST, due to answered, p99", "ms", True),
    "claims_per_s": Metric("claims of a sale answered a second, from the opening", "/s", False),
    "claims_sold": Metric("units of a sale that were confirmed", "", False),
    "window_p50_ms": Metric("claims of the first window, from its end to the answer, p50", "ms", True),
    "window_p99_ms": Metric("claims of the first window, from its end to the answer, p99", "ms", True),
    "claim_p50_ms": Metric("other claims, due to answered, p50", "ms", True),
    "claim_p99_ms": Metric("other claims, due to answered, p99", "ms", True),
    "grabs_per_s": Metric("shares of packets taken a second, durable, from the opening", "/s", False),
    "grab_p99_ms": Metric("grabs, due to answered, p99", "ms", True),
    "lottery_entries": Metric("entries of a lottery", "", False),
    "entry_p99_ms": Metric("entries by CALL, due to answered, p99", "ms", True),
    "draw_s": Metric("lottery, from its close to the event of its draw", "s", True),
    "longest_step_ms": Metric("longest step of the broker's event loop, CPU", "ms", True),
    "durable_per_s": Metric("durable events acknowledged a second", "/s", False),
    "durable_p50_ms": Metric("durable event, due to acknowledged, p50", "ms", True),
    "durable_p99_ms": Metric("durable event, due to acknowledged, p99", "ms", True),
    "sync_per_s": Metric("the disk alone, serial fdatasync a second", "/s", False),
    "sync_p99_ms": Metric("the disk alone, one fdatasync, p99", "ms", True),
    "durable_over_syncs": Metric("durable events for each sync of the disk alone", "x", False),
    "danmaku_per_s": Metric("danmaku delivered a second", "/s", False),
    "danmaku_per_core_s": Metric("danmaku delivered a second and core of the broker", "/s", False),
    "deliveries_per_s": Metric("deliveries a second", "/s", False),
    "posts_per_s": Metric("posts accepted a second", "/s", False),
    "joins_per_core_s": Metric("connect, auth and join a second and core", "/s", False),
    "join_p99_ms": Metric("connect to joined, p99", "ms", True),
    "rejoin_p99_ms": Metric("cut link, connect to resumed, p99", "ms", True),
    "back_s": Metric("cut links, from the cut until the last has rejoined", "s", True),
    "events_missed": Metric("events of lanes 0 to 2 missed, over all links", "", True),
    "events_repeated": Metric("events of lanes 0 to 2 received more than once", "", True),
    "kib_per_viewer": Metric("broker's memory a viewer", "KiB", True),
    "rss_peak_mib": Metric("broker's memory, peak", "MiB", True),
    "rss_growth_mib": Metric("broker's memory, end against the first fifth", "MiB", True),
    "slow_chat_p99_ms": Metric("danmaku at slow viewers, p99", "ms", True),
    "broker_cores": Metric("broker's CPU", "cores", True),
    "generator_cores": Metric("busiest viewer process", "cores", True),
    "publisher_cores": Metric("publisher process", "cores", True),
    "generator_us_per_frame": Metric("viewer process, CPU a frame", "us", True),
    "generator_cores_at_100k": Metric("viewer process, at 100,000 deliveries a second", "cores", True),
    "late_p99_ms": Metric("generator's own lateness, p99", "ms", True),
    "others_cores": Metric("other work on this machine during the run", "cores", True),
}
"""Every figure of a headline, in the order of display."""


def headline_value(result: Result, metric: str) -> float | None:
    """Return one figure of a result, None if the run has none."""
    value = result["headline"].get(metric)
    return None if value is None else float(value)
