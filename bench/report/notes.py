"""Notes of a run: sentences in the report and on the terminal that qualify its figures.

Above all they say whether the broker determined the figures, or the generator or the machine.
"""

from __future__ import annotations

from typing import Any

from bench.scenario import Scenario

__all__ = ["FEW_VIEWERS", "GENERATOR_GOAL_CORES", "run_notes"]

FEW_VIEWERS = 500
"""With fewer viewers the cost of a tick itself outweighs its deliveries."""
FAST_DISK_PER_S = 100_000.0
"""No disk syncs at this rate: the directory is in memory."""
GENERATOR_GOAL_CORES = 0.6
"""Goal for the cost of receiving 100,000 deliveries a second."""
EVALUATED_FROM_PER_S = 50_000.0
"""With fewer deliveries the other work of the process distorts the figure."""
BUSY_CORES = 0.9
"""A single-threaded process above this share of a core is at its limit."""
BUSY_MACHINE = 0.95
"""Share of all cores above which processes wait for each other."""
SHARED_CORES = 0.15
"""The command itself and an idle system use less."""
LATE_MS = 50.0


def run_notes(scenario: Scenario, evidence: dict[str, Any], headline: dict[str, float], cores: int) -> list[str]:
    """Return the notes on one run. Any: see `results.assemble`."""
    notes: list[str] = []
    if scenario.viewers < FEW_VIEWERS:
        notes.append(f"only {scenario.viewers} viewers: the cost of a delivery is not meaningful")
    notes += evidence["notes"]
    notes += _on_resumes(evidence)
    floor = evidence.get("sync_floor")
    if floor is not None and floor["per_s"] > FAST_DISK_PER_S:
        notes.append("a sync costs nothing in the ledger's directory (in memory?): a disk would be slower")
    notes += _on_goals(scenario, headline, evidence["own_size"])
    return notes + _on_generator(headline, cores)


def _on_resumes(evidence: dict[str, Any]) -> list[str]:
    """Return where resumed links got the events that they had missed."""
    counts = {"recovered": 0, "not recovered": 0}
    for report in evidence["reports"]:
        for name in counts:
            counts[name] += report["unicast_frames"].get(name, 0)
    if not any(counts.values()):
        return []
    before, after = evidence["before"].get("ledger"), evidence["final"].get("ledger")
    by_ledger = asked = 0
    if before and after:
        asked = after["histories"] - before["histories"]
        by_ledger = min(counts["recovered"], after["by_ledger"] - before["by_ledger"])
    source = f"{by_ledger:,} from the ledger (in {asked:,} queries)" if after else "there is no ledger in this run"
    return [
        f"{sum(counts.values()):,} resumes: {counts['recovered'] - by_ledger:,} from the rooms' history, {source}, "
        f"{counts['not recovered']:,} could not be served and were reported as not recovered"
    ]


def _on_goals(scenario: Scenario, headline: dict[str, float], own_size: bool) -> list[str]:
    notes = []
    if scenario.targets and not own_size:
        notes.append("not the scenario's own size: its goals are not evaluated")
    elif missing := [target.metric for target in scenario.targets if target.metric not in headline]:
        notes.append(f"goals without a measured figure: {', '.join(missing)}")
    return notes


def _on_generator(headline: dict[str, float], cores: int) -> list[str]:
    notes = []
    for metric, what in (("generator_cores", "a viewer process"), ("publisher_cores", "the publisher process")):
        busy = headline.get(metric, 0.0)
        if busy > BUSY_CORES:
            notes.append(f"the generator was the limit: {what} used {busy:.0%} of a core")
    at_100k = headline.get("generator_cores_at_100k", 0.0)
    received = headline.get("deliveries_per_s", 0.0)
    if round(at_100k, 2) > GENERATOR_GOAL_CORES and received >= EVALUATED_FROM_PER_S:
        notes.append(
            f"receiving costs {at_100k:.0%} of a core at 100,000 deliveries a second, above its goal of "
            f"{GENERATOR_GOAL_CORES:.0%} (here: {received:,.0f} deliveries a second)"
        )
    others = headline.get("others_cores", 0.0)
    if others > SHARED_CORES:
        notes.append(
            f"other work on the machine (or its host) took {others:.2f} of its {cores} cores; "
            "totals and ratios hold, times do not"
        )
    used = sum(headline.get(metric, 0.0) for metric in ("broker_cores", "generator_cores", "publisher_cores"))
    if used > BUSY_MACHINE * cores:
        notes.append(f"the machine was the limit: the processes of this run used {used:.2f} of its {cores} cores")
    late = headline.get("late_p99_ms", 0.0)
    if late > LATE_MS:
        notes.append(f"the publishers were late by {late:.0f} ms (p99); the latencies contain that")
    return notes
