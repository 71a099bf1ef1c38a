"""Result of a run: one plain structure for the report, the comparison and a reader's own scripts.

It holds everything measured, encoded histograms too, so that no run has to be repeated for another analysis. The
headline is a list of named figures (`metrics`), some with a goal.

The load on the generator is part of it: where the generator was the limit, a note says so.
"""

from __future__ import annotations

import itertools
from statistics import median
from typing import Any

from bench.cpu_parts import by_part_us
from bench.load.accounting import LANES
from bench.measure import merge_series, summarise
from bench.report.metrics import METRICS
from bench.report.notes import run_notes
from bench.scenario import Scenario

__all__ = ["FORMAT", "assemble"]

FORMAT = 1
LEAST_DELIVERIES_PER_S = 10_000
"""With fewer deliveries the other work of a viewer process would be counted as receiving."""

Result = dict[str, Any]
"""JSON. Any: see `assemble` for the fields."""


def assemble(
    scenario: Scenario, evidence: dict[str, Any], machine: dict[str, Any], reference: Result | None = None
) -> Result:
    """Return the result of one run from the reports of its processes (`run`), compared with its reference run.

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
    encoded["durable"] = publisher["durable"]
    for activity in evidence.get("activities", {}).values():
        encoded |= activity.get("latencies", {})
    latencies = {name: summarise([text]).summary() for name, text in encoded.items()}
    floor = _floor_figures(evidence["floor"])
    headline = _headline(scenario, evidence, latencies, floor)
    if reference is not None:
        p99_ms = reference["headline"].get("chat_p99_ms")
        if p99_ms and "chat_p99_ms" in headline:
            headline["chat_p99_vs_reference"] = round(headline["chat_p99_ms"] / p99_ms, 4)
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
        "targets": _targets(scenario, headline, evidence["own_size"]),
        "own_size": evidence["own_size"],
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
        "ledger": _ledger(evidence),
        "invariants": {"checked": findings.checked, "violations": findings.violations},
        "reference": None
        if reference is None
        else {part: reference[part] for part in ("headline", "latencies", "invariants")},
        "notes": run_notes(scenario, evidence, headline, machine["cores"]),
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
                "repeated_share": stream.repeated_share,
                "count": stream.count,
            }
            for stream in scenario.streams
        ],
        "sent": sum(count for _, _, count in evidence["publisher"]["sent"]),
    }
    shared = evidence["final"]["shared"]
    if shared is not None:
        size["sockets"] = shared["sockets"]
        size["viewers_per_socket"] = round(shared["viewers"] / shared["sockets"], 2)
    return size


# ---- figures


def _floor_figures(sweeps: list[dict[str, Any]]) -> dict[str, float]:
    """Return medians over the sweeps of each loop: us a send by wall and by CPU time, ms a sweep."""
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
    writes = after["writes"] - before["writes"]
    busy_s = after["busy_s"] - before["busy_s"]
    cpu_s = after["cpu_s"] - before["cpu_s"]
    found: dict[str, float] = {}
    if deliveries:
        found["write_us"] = busy_s / writes * 1e6
        found["deliveries_a_write"] = deliveries / writes
        found["cpu_delivery_us"] = cpu_s / deliveries * 1e6
        by_part = by_part_us(before.get("cpu_parts", {}), after.get("cpu_parts", {}), deliveries)
        found |= {f"cpu_{part}_us": value for part, value in by_part.items()}
        if scenario.viewers:
            found["packets_per_viewer_s"] = writes / window_s / scenario.viewers
        if "python_wall_us" in floor:
            found["raw_python_us"] = floor["python_wall_us"]
            found["fanout_ratio"] = found["write_us"] / floor["python_wall_us"]
            found["cpu_ratio"] = found["cpu_delivery_us"] / floor["python_cpu_us"]
        if "c_wall_us" in floor:
            found["raw_c_us"] = floor["c_wall_us"]
            found["fanout_ratio_c"] = found["write_us"] / floor["c_wall_us"]
    for metric, name, percentile in (
        ("chat_p50_ms", "chat", "p50_ms"),
        ("chat_p99_ms", "chat", "p99_ms"),
        ("control_p99_ms", "control", "p99_ms"),
        ("paid_p99_ms", "paid", "p99_ms"),
        ("ambient_p99_ms", "ambient", "p99_ms"),
        ("ack_p99_ms", "ack", "p99_ms"),
        ("join_p99_ms", "join", "p99_ms"),
        ("rejoin_p99_ms", "rejoin", "p99_ms"),
        ("window_p50_ms", "sale window", "p50_ms"),
        ("window_p99_ms", "sale window", "p99_ms"),
        ("claim_p50_ms", "sale claim", "p50_ms"),
        ("claim_p99_ms", "sale claim", "p99_ms"),
        ("grab_p99_ms", "packet grab", "p99_ms"),
        ("entry_p99_ms", "lottery entry", "p99_ms"),
        ("slow_chat_p99_ms", "slow chat", "p99_ms"),
        ("late_p99_ms", "lateness", "p99_ms"),
        *_DURABLE[: 2 * scenario.durable],
    ):
        value = latencies.get(name, {}).get(percentile)
        if value is not None:
            found[metric] = value
    sweep_ms = floor.get("python_sweep_ms", 0.0)
    if scenario.rooms == 1 and sweep_ms:
        if "control_p99_ms" in found:
            found["control_over_sweep"] = found["control_p99_ms"] / sweep_ms
        interval_ms = max((row["interval_ms"] for row in _pulse(evidence["reports"])), default=0.0)
        if "chat_p99_ms" in found and interval_ms:
            found["chat_over_bound"] = found["chat_p99_ms"] / (2 * interval_ms + sweep_ms)
    danmaku = sum(report["danmaku_copies"] for report in evidence["reports"])
    if danmaku:
        found["danmaku_per_s"] = danmaku / window_s
    if danmaku and cpu_s > 0:
        found["danmaku_per_core_s"] = danmaku / cpu_s
    found["deliveries_per_s"] = deliveries / window_s
    found["posts_per_s"] = (after["posts"] - before["posts"]) / window_s
    found["broker_cores"] = cpu_s / window_s
    found |= _activities(evidence)
    if scenario.durable:
        found |= _durable(scenario, evidence)
    if scenario.cuts:
        found["back_s"] = latencies.get("back", {}).get("max_ms", 0.0) / 1000
        found["events_missed"] = sum(report["events_missed"] for report in evidence["reports"])
        found["events_repeated"] = sum(report["events_repeated"] for report in evidence["reports"])
    joining = evidence["joining"]
    if scenario.way == "sockets" and joining["broker_cpu_s"] > 0:
        found["joins_per_core_s"] = scenario.viewers / joining["broker_cpu_s"]
    found["kib_per_viewer"] = (joining["rss_full_mib"] - joining["rss_empty_mib"]) * 1024 / scenario.viewers
    found |= _memory(evidence)
    found |= _generator(evidence, 0.0 if scenario.cuts else found["deliveries_per_s"])
    if "machine_spent_s" in evidence:
        names = {row["name"] for row in evidence["resources"]}
        own = sum(_cores(evidence, name) or 0.0 for name in names)
        found["others_cores"] = max(0.0, sum(evidence["machine_spent_s"].values()) / window_s - own)
    if scenario.way == "memory":
        found = {name: value for name, value in found.items() if name in _WITHOUT_SOCKETS}
    return {name: round(value, 4) for name, value in found.items()}


_DURABLE = (("durable_p50_ms", "durable", "p50_ms"), ("durable_p99_ms", "durable", "p99_ms"))


def _durable(scenario: Scenario, evidence: dict[str, Any]) -> dict[str, float]:
    """Return what was synced and acknowledged within the schedule, beside the rate of the disk alone."""
    per_s: float = evidence["publisher"]["durable_in_time"] / scenario.seconds
    floor = evidence["sync_floor"]
    return {
        "durable_per_s": per_s,
        "sync_per_s": floor["per_s"],
        "sync_p99_ms": floor["p99_ms"],
        "durable_over_syncs": per_s / floor["per_s"],
    }


def _ledger(evidence: dict[str, Any]) -> dict[str, Any] | None:
    """Return the ledger's counters over the schedule, its verified totals and the disk alone; None without a ledger."""
    if "ledger" not in evidence:
        return None
    before, after = evidence["before"]["ledger"], evidence["after"]["ledger"]
    spent = {part: after[part] - before[part] for part in ("submissions", "failed", "refused", "commits", "commit_s")}
    commits = max(1, spent["commits"])
    return {
        **spent,
        "events_a_commit": round(spent["submissions"] / commits, 1),
        "mean_commit_ms": round(spent["commit_s"] / commits * 1e3, 3),
        "slowest_commit_ms": round(after["slowest_commit_s"] * 1e3, 1),
        "verified": evidence["ledger"],
        "sync_floor": evidence["sync_floor"],
    }


_WITHOUT_SOCKETS = frozenset(
    {"chat_p50_ms", "chat_p99_ms", "control_p99_ms", "paid_p99_ms", "ack_p99_ms", "slow_chat_p99_ms"}
)
"""Figures that are meaningful for simulated links: delays caused by rules and scripts."""


def _rows(evidence: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the resource samples of one process within the schedule."""
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


def _cores(evidence: dict[str, Any], name: str) -> float | None:
    """Return the cores that one process used during the schedule, as counted by the kernel."""
    rows = _rows(evidence, name)
    if len(rows) < 2:
        return None
    spent: float = rows[-1]["cpu_s"] - rows[0]["cpu_s"]
    elapsed: float = (rows[-1]["at_us"] - rows[0]["at_us"]) / 1e6
    return spent / elapsed


def _generator(evidence: dict[str, Any], deliveries_per_s: float) -> dict[str, float]:
    """Return the load of the generator and its cost of receiving one delivery (where it does little else)."""
    names = {row["name"] for row in evidence["resources"]}
    viewers = [cores for name in names if name.startswith("viewers") and (cores := _cores(evidence, name)) is not None]
    found: dict[str, float] = {}
    published = _cores(evidence, "publishers")
    if published is not None:
        found["publisher_cores"] = published
    if viewers:
        found["generator_cores"] = max(viewers)
        if deliveries_per_s > LEAST_DELIVERIES_PER_S:
            found["generator_us_per_frame"] = sum(viewers) / deliveries_per_s * 1e6
            found["generator_cores_at_100k"] = sum(viewers) / deliveries_per_s * 1e5
    return found


def _targets(scenario: Scenario, headline: dict[str, float], own_size: bool) -> list[dict[str, Any]]:
    evaluated = []
    for target in scenario.targets:
        value = headline.get(target.metric)
        if value is None or (target.full_size_only and not own_size):
            continue
        reached = value <= target.bound if target.at_most is not None else value >= target.bound
        evaluated.append(
            {
                "metric": target.metric,
                "bound": target.bound,
                "kind": target.kind,
                "value": value,
                "reached": reached,
            }
        )
    return evaluated


# ---- over time, and totals


def _pulse(reports: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return the longest tick interval and highest overload stage of each second, as viewers received them."""
    by_second: dict[int, list[int]] = {}
    for report in reports:
        for second, (interval, stage) in report["pulse"].items():
            row = by_second.setdefault(int(second), [0, 0])
            row[0], row[1] = max(row[0], interval), max(row[1], stage)
    return [
        {"second": second, "interval_ms": row[0], "stage": row[1]}
        for second, row in sorted(by_second.items())
        if second >= 0
    ]


def _lanes(evidence: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return the outcomes of every lane's messages at the broker, and the frames that viewers received."""
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


def _activities(evidence: dict[str, Any]) -> dict[str, float]:
    """Return the figures of the activities that were played."""
    found: dict[str, float] = {}
    reports = evidence.get("activities", {})
    sale, packets, lottery = (reports.get(name, {}) for name in ("sale", "packets", "lottery"))
    if sale:
        found["claims_per_s"] = sale["answered_once"] / sale["took_s"]
        found["claims_sold"] = sale["view"]["confirmed"]
    if packets.get("shares"):
        found["grabs_per_s"] = packets["shares"] / packets["took_s"]
    if "draw_s" in lottery:
        found["lottery_entries"] = lottery["closed_entries"]
        found["draw_s"] = lottery["draw_s"]
    if reports:
        found["longest_step_ms"] = evidence["after"]["longest_step_s"] * 1000
    return found


def _answers(publisher: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return kind -> outcome -> messages."""
    found: dict[str, dict[str, int]] = {}
    for kind, _, outcome, count, _ in publisher["answers"]:
        row = found.setdefault(kind, {})
        row[outcome] = row.get(outcome, 0) + count
    return found


def _samples(evidence: dict[str, Any]) -> list[dict[str, float]]:
    """Return the broker's samples as rates; seconds count from the start of the schedule."""
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
                "backlogged": this["backlogged"],
                "queue_mib": round(this["queue_bytes"] / 2**20, 3),
                "connections": this["connections"],
            }
        )
    return rows


def _resources(evidence: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Return CPU and memory of every process over time; seconds count from the start of the schedule."""
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
    """Return states, close codes, errors and missed messages of links, over all viewer processes."""
    found: dict[str, Any] = {"reported_missed": 0, "with_holes": 0, "compared": 0}
    for report in reports:
        for part in ("states", "close_codes", "errors", "unicast_frames"):
            mine = found.setdefault(part, {})
            for name, count in report[part].items():
                mine[name] = mine.get(name, 0) + count
        found["reported_missed"] += report["reported_missed"]
        found["with_holes"] += report["holes"]
        found["compared"] += report["compared"]
    return found
