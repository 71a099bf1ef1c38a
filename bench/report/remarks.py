"""What a reader must know before believing a figure: said in the report and on the terminal, in words.

Above all whether the figures are the broker's own, or those of the generator and of the machine that all of them share.
"""

from __future__ import annotations

from typing import Any

from bench.scenario import Scenario

__all__ = ["FEW_VIEWERS", "GENERATOR_GOAL_CORES", "remarks"]

FEW_VIEWERS = 500
"""With fewer, a tick's own cost outweighs its deliveries."""
FAST_DISK_PER_S = 100_000.0
"""No disk syncs so often: the directory is in memory."""
GENERATOR_GOAL_CORES = 0.6
"""What receiving 100,000 deliveries a second may cost."""
JUDGED_FROM_PER_S = 50_000.0
"""With fewer deliveries the process's other work weighs too much to speak of 100,000."""
BUSY_CORES = 0.9
"""A process of one thread that uses more of a core is at its limit."""
BUSY_MACHINE = 0.95
"""Part of all cores above which processes wait for each other."""
SHARED_CORES = 0.15
"""What the command itself and a quiet system use is less."""
LATE_MS = 50.0


def remarks(scenario: Scenario, evidence: dict[str, Any], headline: dict[str, float], cores: int) -> list[str]:
    """Every remark on one run. Any: see `results.assemble`."""
    notes: list[str] = []
    if scenario.viewers < FEW_VIEWERS:
        notes.append(f"only {scenario.viewers} viewers: what a delivery costs here says little")
    notes += evidence["notes"]
    notes += _on_resumes(evidence)
    floor = evidence.get("sync_floor")
    if floor is not None and floor["per_s"] > FAST_DISK_PER_S:
        notes.append("a sync costs nothing in the ledger's directory (memory?): a disk would be slower")
    notes += _on_goals(scenario, headline, evidence["own_size"])
    return notes + _on_generator(headline, cores)


def _on_resumes(evidence: dict[str, Any]) -> list[str]:
    """Where those who came back got what they had missed."""
    counts = {"recovered": 0, "not recovered": 0}
    for report in evidence["reports"]:
        for name in counts:
            counts[name] += report["singles"].get(name, 0)
    if not any(counts.values()):
        return []
    before, after = evidence["before"].get("ledger"), evidence["final"].get("ledger")
    by_ledger = asked = 0
    if before and after:
        asked = after["histories"] - before["histories"]
        by_ledger = min(counts["recovered"], after["by_ledger"] - before["by_ledger"])
    words = f"{by_ledger:,} from the ledger (in {asked:,} questions)" if after else "there is no ledger in this run"
    return [
        f"{sum(counts.values()):,} resumes: {counts['recovered'] - by_ledger:,} from the rooms' memory, {words}, "
        f"{counts['not recovered']:,} could not be served and were told so"
    ]


def _on_goals(scenario: Scenario, headline: dict[str, float], own_size: bool) -> list[str]:
    notes = []
    if scenario.targets and not own_size:
        notes.append("not the scenario's own size: its goals are not judged")
    elif missing := [target.metric for target in scenario.targets if target.metric not in headline]:
        notes.append(f"goals that could not be judged, because nothing was measured: {', '.join(missing)}")
    return notes


def _on_generator(headline: dict[str, float], cores: int) -> list[str]:
    notes = []
    for metric, what in (("generator_cores", "a viewer process"), ("publisher_cores", "the publisher process")):
        busy = headline.get(metric, 0.0)
        if busy > BUSY_CORES:
            notes.append(f"the generator was the limit: {what} used {busy:.0%} of a core")
    at_100k = headline.get("generator_cores_at_100k", 0.0)
    received = headline.get("deliveries_per_s", 0.0)
    if round(at_100k, 2) > GENERATOR_GOAL_CORES and received >= JUDGED_FROM_PER_S:
        notes.append(
            f"receiving costs {at_100k:.0%} of a core at 100,000 deliveries a second, above its goal of "
            f"{GENERATOR_GOAL_CORES:.0%} (here: {received:,.0f} deliveries a second)"
        )
    others = headline.get("others_cores", 0.0)
    if others > SHARED_CORES:
        notes.append(
            f"the machine was shared: other work (or its host) took {others:.2f} of its {cores} cores; "
            "trust sums and ratios, not times"
        )
    used = sum(headline.get(metric, 0.0) for metric in ("broker_cores", "generator_cores", "publisher_cores"))
    if used > BUSY_MACHINE * cores:
        notes.append(f"the machine was the limit: the processes of this run used {used:.2f} of its {cores} cores")
    late = headline.get("late_p99_ms", 0.0)
    if late > LATE_MS:
        notes.append(f"the publishers were late by {late:.0f} ms (p99); the latencies contain that")
    return notes
