"""What a run says in the end: one plain structure that the report, the comparison and a reader's own scripts share.

Everything measured goes in, encoded histograms too, so that nothing has to be run again to be looked at
differently. The headline is a short list of named figures, each with its unit and direction, and with the target it
has to reach, if any.

It also judges the generator: where that was the limit, the figures are not the broker's, and the result says so.
"""

from __future__ import annotations

import itertools
from statistics import median
from typing import Any, NamedTuple

from bench.books import LANES
from bench.measure import merge_series, summarise
from bench.scenario import Scenario

__all__ = ["FORMAT", "METRICS", "Metric", "assemble", "headline_value"]

FORMAT = 1

Result = dict[str, Any]
"""JSON. Any: see `assemble` for the fields."""


class Metric(NamedTuple):
    """How one figure is named, shown and judged."""

    label: str
    unit: str
    lower_is_better: bool


METRICS: dict[str, Metric] = {
    "fanout_ratio": Metric("fan-out against the raw Python loop", "x", True),
    "fanout_ratio_c": Metric("fan-out against the raw C loop", "x", True),
    "cpu_ratio": Metric("whole broker's CPU a delivery, against the raw Python loop", "x", True),
    "delivery_us": Metric("fan-out, one delivery", "us", True),
    "raw_python_us": Metric("raw Python loop, one send", "us", True),
    "raw_c_us": Metric("raw C loop, one send", "us", True),
    "cpu_delivery_us": Metric("whole broker's CPU, one delivery", "us", True),
    "chat_p50_ms": Metric("danmaku, publish to arrival, p50", "ms", True),
    "chat_p99_ms": Metric("danmaku, publish to arrival, p99", "ms", True),
    "chat_over_bound": Metric("danmaku p99 over two ticks and a sweep", "x", True),
    "chat_p99_vs_twin": Metric("danmaku p99 against the twin run without what is special here", "x", True),
    "control_p99_ms": Metric("announcements (lane 0), p99", "ms", True),
    "control_over_sweep": Metric("announcements p99 over the raw sweep", "x", True),
    "paid_p99_ms": Metric("gifts (lane 2), p99", "ms", True),
    "ambient_p99_ms": Metric("counters (lane 4), broker to arrival, p99", "ms", True),
    "ack_p99_ms": Metric("a POST, due to answered, p99", "ms", True),
    "danmaku_per_s": Metric("danmaku delivered a second", "/s", False),
    "danmaku_per_core_s": Metric("danmaku delivered a second and core of the broker", "/s", False),
    "deliveries_per_s": Metric("deliveries a second", "/s", False),
    "posts_per_s": Metric("posts taken a second", "/s", False),
    "joins_per_core_s": Metric("connect, auth and join a second and core", "/s", False),
    "join_p99_ms": Metric("connect to joined, p99", "ms", True),
    "rejoin_p99_ms": Metric("cut link, connect to resumed, p99", "ms", True),
    "kib_per_viewer": Metric("broker's memory a viewer", "KiB", True),
    "rss_peak_mib": Metric("broker's memory, peak", "MiB", True),
    "rss_growth_mib": Metric("broker's memory, end against the first fifth", "MiB", True),
    "slow_chat_p99_ms": Metric("danmaku at slow viewers, p99", "ms", True),
    "broker_cores": Metric("broker's CPU", "cores", True),
    "generator_cores": Metric("busiest viewer process", "cores", True),
    "generator_us_per_frame": Metric("viewer process, CPU a frame", "us", True),
    "late_p99_ms": Metric("generator's own lateness, p99", "ms", True),
}
"""Every figure a headline may have, in the order in which it is shown."""


def headline_value(result: Result, metric: str) -> float | None:
    """One figure of a result, None where the run has none."""
    value = result["headline"].get(metric)
    return None if value is None else float(value)


def assemble(
    scenario: Scenario, evidence: dict[str, Any], machine: dict[str, Any], twin: Result | None = None
) -> Result:
    """Make the result of one run from what its processes said (`run`), beside its twin's if there is one.

    Any: their JSON.
    """
    reports = evidence["reports"]
    names = sorted({name for report in reports for name in report["latencies"]})
    encoded = {
        name: summarise(each for report in reports if (each := report["latencies"].get(name))).encode()
        for name in names
    }
    publisher = evidence["publisher"]
    encoded["ack"] = publisher["answered"]
    encoded["lateness"] = publisher["lateness"]
    latencies = {name: summarise([text]).summary() for name, text in encoded.items()}
    floor = _floor_figures(evidence["floor"])
    headline = _headline(scenario, evidence, latencies, floor)
    if twin is not None:
        p99_ms = twin["headline"].get("chat_p99_ms")
        if p99_ms and "chat_p99_ms" in headline:
            headline["chat_p99_vs_twin"] = round(headline["chat_p99_ms"] / p99_ms, 4)
    findings = evidence["findings"]
    result: Result = {
        "format": FORMAT,
        "scenario": scenario.name,
        "title": scenario.title,
        "purpose": scenario.purpose,
        "way": scenario.way,
        "size": _size(scenario, evidence),
        "machine": machine,
        "headline": {name: headline[name] for name in METRICS if name in headline},
        "targets": _targets(scenario, headline),
        "latencies": latencies,
        "histograms": encoded,
        "series": merge_series(report["series"] for report in reports),
        "begins_s": round((evidence["start_us"] - evidence["origin_us"]) / 1e6, 3),
        "pulse": _pulse(reports),
        "lanes": _lanes(evidence),
        "answers": _answers(publisher),
        "refusals": publisher["reasons"],
        "floor": {"sweeps": evidence["floor"], **floor},
        "samples": _samples(evidence),
        "resources": _resources(evidence),
        "joining": evidence["joining"],
        "links": _links(reports),
        "invariants": {"checked": findings.checked, "violations": findings.violations},
        "twin": None if twin is None else {part: twin[part] for part in ("headline", "latencies", "invariants")},
        "notes": [*_size_notes(scenario), *evidence["notes"], *_generator_notes(headline)],
    }
    return result


def _size(scenario: Scenario, evidence: dict[str, Any]) -> dict[str, Any]:
    size: dict[str, Any] = {
        "viewers": scenario.viewers,
        "rooms": scenario.rooms,
        "seconds": scenario.seconds,
        "transport": scenario.transport,
        "features": scenario.features,
        "publishers": evidence["publisher"]["links"],
        "viewer_processes": scenario.viewer_processes,
        "broker": scenario.broker,
        "streams": [
            {
                "kind": stream.kind,
                "peak_per_s": stream.peak,
                "refrain_share": stream.refrain_share,
                "count": stream.count,
            }
            for stream in scenario.streams
        ],
        "sent": sum(count for _, _, count in evidence["publisher"]["sent"]),
    }
    crowd = evidence["final"]["crowd"]
    if crowd is not None:
        size["sockets"] = crowd["sockets"]
        size["viewers_per_socket"] = round(crowd["viewers"] / crowd["sockets"], 2)
    return size


# ---- figures


def _floor_figures(sweeps: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the sweeps of each loop: us a send by wall and by CPU time, ms a sweep."""
    figures: dict[str, float] = {}
    for loop in ("python", "c"):
        mine = [sweep for sweep in sweeps if sweep["loop"] == loop and sweep["sends"]]
        if mine:
            figures[f"{loop}_wall_us"] = median(each["wall_s"] / each["sends"] for each in mine) * 1e6
            figures[f"{loop}_cpu_us"] = median(each["cpu_s"] / each["sends"] for each in mine) * 1e6
            figures[f"{loop}_sweep_ms"] = median(each["wall_s"] for each in mine) * 1e3
            figures[f"{loop}_refused"] = sum(each["refused"] for each in mine)
    if sweeps:
        figures["size_bytes"] = sweeps[0]["size_bytes"]
    return {name: round(value, 3) for name, value in figures.items()}


def _headline(
    scenario: Scenario, evidence: dict[str, Any], latencies: dict[str, dict[str, float]], floor: dict[str, float]
) -> dict[str, float]:
    before, after = evidence["before"], evidence["after"]
    window_s = (evidence["end_us"] - evidence["start_us"]) / 1e6
    deliveries = after["deliveries"] - before["deliveries"]
    busy_s = after["busy_s"] - before["busy_s"]
    cpu_s = after["cpu_s"] - before["cpu_s"]
    found: dict[str, float] = {}
    if deliveries:
        found["delivery_us"] = busy_s / deliveries * 1e6
        found["cpu_delivery_us"] = cpu_s / deliveries * 1e6
        if "python_wall_us" in floor:
            found["raw_python_us"] = floor["python_wall_us"]
            found["fanout_ratio"] = found["delivery_us"] / floor["python_wall_us"]
            found["cpu_ratio"] = found["cpu_delivery_us"] / floor["python_cpu_us"]
        if "c_wall_us" in floor:
            found["raw_c_us"] = floor["c_wall_us"]
            found["fanout_ratio_c"] = found["delivery_us"] / floor["c_wall_us"]
    for metric, name, percentile in (
        ("chat_p50_ms", "chat", "p50_ms"),
        ("chat_p99_ms", "chat", "p99_ms"),
        ("control_p99_ms", "control", "p99_ms"),
        ("paid_p99_ms", "paid", "p99_ms"),
        ("ambient_p99_ms", "ambient", "p99_ms"),
        ("ack_p99_ms", "ack", "p99_ms"),
        ("join_p99_ms", "join", "p99_ms"),
        ("rejoin_p99_ms", "rejoin", "p99_ms"),
        ("slow_chat_p99_ms", "slow chat", "p99_ms"),
        ("late_p99_ms", "lateness", "p99_ms"),
    ):
        value = latencies.get(name, {}).get(percentile)
        if value is not None:
            found[metric] = value
    sweep_ms = floor.get("python_sweep_ms", 0.0)
    if scenario.rooms == 1 and sweep_ms:
        if "control_p99_ms" in found:
            found["control_over_sweep"] = found["control_p99_ms"] / sweep_ms
        interval_ms = max((beat["interval_ms"] for beat in _pulse(evidence["reports"])), default=0.0)
        if "chat_p99_ms" in found and interval_ms:
            found["chat_over_bound"] = found["chat_p99_ms"] / (2 * interval_ms + sweep_ms)
    danmaku = sum(report["danmaku_copies"] for report in evidence["reports"])
    found["danmaku_per_s"] = danmaku / window_s
    if cpu_s > 0:
        found["danmaku_per_core_s"] = danmaku / cpu_s
    found["deliveries_per_s"] = deliveries / window_s
    found["posts_per_s"] = (after["posts"] - before["posts"]) / window_s
    found["broker_cores"] = cpu_s / window_s
    joining = evidence["joining"]
    if scenario.way == "sockets" and joining["broker_cpu_s"] > 0:
        found["joins_per_core_s"] = scenario.viewers / joining["broker_cpu_s"]
    found["kib_per_viewer"] = (joining["rss_full_mib"] - joining["rss_empty_mib"]) * 1024 / scenario.viewers
    found |= _memory(evidence)
    found |= _generator(evidence)
    if scenario.way == "memory":
        found = {name: value for name, value in found.items() if name in _WITHOUT_SOCKETS}
    return {name: round(value, 4) for name, value in found.items()}


_WITHOUT_SOCKETS = frozenset(
    {"chat_p50_ms", "chat_p99_ms", "control_p99_ms", "paid_p99_ms", "ack_p99_ms", "slow_chat_p99_ms"}
)
"""Figures that mean something for simulated links: delays that rules and scripts make."""


def _rows(evidence: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Resource samples of one process within the schedule."""
    return [
        row
        for row in evidence["resources"]
        if row["name"] == name and evidence["start_us"] <= row["at_us"] <= evidence["end_us"]
    ]


def _memory(evidence: dict[str, Any]) -> dict[str, float]:
    rows = [row["rss_mib"] for row in _rows(evidence, "broker")]
    if len(rows) < 5:
        return {}
    fifth = max(1, len(rows) // 5)
    return {"rss_peak_mib": max(rows), "rss_growth_mib": median(rows[-fifth:]) - median(rows[:fifth])}


def _generator(evidence: dict[str, Any]) -> dict[str, float]:
    """How busy the generator was, by the kernel's own counting."""
    shares: list[float] = []
    cpu_s = 0.0
    for name in {row["name"] for row in evidence["resources"] if row["name"].startswith("viewers")}:
        rows = _rows(evidence, name)
        if len(rows) >= 2:
            spent = rows[-1]["cpu_s"] - rows[0]["cpu_s"]
            elapsed = (rows[-1]["at_us"] - rows[0]["at_us"]) / 1e6
            shares.append(spent / elapsed)
            cpu_s += spent / elapsed * (evidence["end_us"] - evidence["start_us"]) / 1e6
    found: dict[str, float] = {}
    if shares:
        found["generator_cores"] = max(shares)
        frames = sum(
            count for report in evidence["reports"] for kind, count in report["copies"].items() if "floor" not in kind
        )
        if frames > 1000:
            found["generator_us_per_frame"] = cpu_s / frames * 1e6
    return found


def _size_notes(scenario: Scenario) -> list[str]:
    if scenario.viewers < 500:
        return ["so few viewers show that everything works; what they cost and how fast they are says little"]
    return []


def _generator_notes(headline: dict[str, float]) -> list[str]:
    notes = []
    busy = headline.get("generator_cores", 0.0)
    if busy > 0.9:
        notes.append(f"the generator was the limit: a viewer process used {busy:.0%} of a core")
    late = headline.get("late_p99_ms", 0.0)
    if late > 50:
        notes.append(f"the publishers were late by {late:.0f} ms (p99); the latencies contain that")
    return notes


def _targets(scenario: Scenario, headline: dict[str, float]) -> list[dict[str, Any]]:
    judged = []
    for target in scenario.targets:
        value = headline.get(target.metric)
        bound = target.at_most if target.at_most is not None else target.at_least
        if value is None or bound is None:
            continue
        reached = value <= bound if target.at_most is not None else value >= bound
        judged.append(
            {
                "metric": target.metric,
                "bound": bound,
                "kind": "at most" if target.at_most is not None else "at least",
                "value": value,
                "reached": reached,
            }
        )
    return judged


# ---- over time, and totals


def _pulse(reports: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Longest tick interval and highest overload stage of each second, as viewers were told."""
    beats: dict[int, list[int]] = {}
    for report in reports:
        for second, (interval, stage) in report["pulse"].items():
            beat = beats.setdefault(int(second), [0, 0])
            beat[0], beat[1] = max(beat[0], interval), max(beat[1], stage)
    return [
        {"second": second, "interval_ms": beat[0], "stage": beat[1]}
        for second, beat in sorted(beats.items())
        if second >= 0
    ]


def _lanes(evidence: dict[str, Any]) -> dict[str, dict[str, int]]:
    """What became of every lane's messages, at the broker, and the frames that viewers got."""
    copies: dict[str, int] = {}
    for report in evidence["reports"]:
        for kind, count in report["copies"].items():
            lane = kind.partition("/")[2]
            copies[lane] = copies.get(lane, 0) + count
    parts = ("admitted", "shown", "merged", "sampled", "expired", "held")
    lanes = {
        lane: {**dict(zip(parts, account, strict=True)), "frames_delivered": copies.get(lane, 0)}
        for lane, account in zip(LANES, evidence["final"]["accounts"], strict=True)
    }
    lanes["chat"]["danmaku_delivered"] = sum(report["danmaku_copies"] for report in evidence["reports"])
    lanes["chat"]["danmaku_missed_by_slow_viewers"] = evidence["final"]["missed_chat"]
    return lanes


def _answers(publisher: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Kind -> outcome -> messages."""
    found: dict[str, dict[str, int]] = {}
    for kind, _, outcome, count, _ in publisher["answers"]:
        row = found.setdefault(kind, {})
        row[outcome] = row.get(outcome, 0) + count
    return found


def _samples(evidence: dict[str, Any]) -> list[dict[str, float]]:
    """The broker's own samples as rates, seconds since the schedule's begin."""
    rows = []
    samples = evidence["samples"]
    for last, this in itertools.pairwise(samples):
        elapsed = (this["at_us"] - last["at_us"]) / 1e6
        if elapsed <= 0:
            continue
        rows.append(
            {
                "second": round((this["at_us"] - evidence["start_us"]) / 1e6, 2),
                "cores": round((this["cpu_s"] - last["cpu_s"]) / elapsed, 3),
                "deliveries_per_s": round((this["deliveries"] - last["deliveries"]) / elapsed),
                "interval_ms": this["interval_ms"],
                "stage": this["stage"],
                "behind": this["behind"],
                "queue_mib": round(this["queue_bytes"] / 2**20, 3),
                "connections": this["connections"],
            }
        )
    return rows


def _resources(evidence: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """CPU and memory of every process over time, seconds since the schedule's begin."""
    found: dict[str, list[dict[str, float]]] = {}
    last: dict[str, Any] = {}
    for row in evidence["resources"]:
        name = row["name"]
        before = last.get(name)
        last[name] = row
        if before is None:
            continue
        elapsed = (row["at_us"] - before["at_us"]) / 1e6
        found.setdefault(name, []).append(
            {
                "second": round((row["at_us"] - evidence["start_us"]) / 1e6, 2),
                "cores": round((row["cpu_s"] - before["cpu_s"]) / elapsed, 3),
                "rss_mib": row["rss_mib"],
            }
        )
    return found


def _links(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """States, close codes, errors and what slow links missed, over all viewer processes."""
    found: dict[str, Any] = {"told_missed": 0, "with_holes": 0, "compared": 0}
    for report in reports:
        for part in ("states", "close_codes", "errors", "singles"):
            mine = found.setdefault(part, {})
            for name, count in report[part].items():
                mine[name] = mine.get(name, 0) + count
        found["told_missed"] += report["told_missed"]
        found["with_holes"] += report["holes"]
        found["compared"] += report["compared"]
    return found
