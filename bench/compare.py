"""Two results side by side: the ratio of each figure, and whether it is more than noise.

Runs that were repeated show how much a figure moves by itself. The band is that movement, of both sides together, and
wider the fewer runs there are: a ratio within it is "no difference", whatever it looks like. Two single runs show no
movement, so a wide band is assumed and the table says so.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from rich.table import Table

from bench.results import METRICS, headline_value

__all__ = ["Comparison", "Row", "compare_files", "compare_runs", "verdict_table"]

ASSUMED_BAND = 0.25
"""For single runs: on shared machines the same build differs by so much from run to run."""
CIRCUMSTANCES = frozenset(
    {
        "raw_python_us", "raw_c_us", "sync_per_s", "sync_p99_ms", "generator_cores", "publisher_cores",
        "generator_us_per_frame", "generator_cores_at_100k", "late_p99_ms", "others_cores",
    }
)  # fmt: skip
"""Figures of the machine and of the generator: shown, because they explain the others, but neither better nor worse."""
LEAST_BAND = 0.03
"""Three runs may agree by luck; nothing below this is ever called a difference."""
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Standard errors within which noise stays 19 times of 20, by degrees of freedom (Student's t, two-sided 95 %)."""
_STUDENT_MANY = 2.1


class Row(NamedTuple):
    """One figure on both sides. ``ratio`` is after / before; ``band`` the part by which it may differ by noise."""

    metric: str
    before: float
    after: float
    ratio: float
    band: float
    verdict: str


class Comparison(NamedTuple):
    """One scenario on both sides."""

    scenario: str
    runs_before: int
    runs_after: int
    rows: list[Row]
    notes: list[str]


def compare_files(before: Path, after: Path) -> list[Comparison]:
    """Compare two files of ``bench run --json``. ValueError if they share no scenario."""
    sides = [json.loads(path.read_text(encoding="utf-8"))["runs"] for path in (before, after)]
    names = [name for name in dict.fromkeys(run["scenario"] for run in sides[0]) if _of(sides[1], name)]
    if not names:
        raise ValueError("they have no scenario in common")
    return [compare_runs(name, _of(sides[0], name), _of(sides[1], name)) for name in names]


def _of(runs: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [run for run in runs if run["scenario"] == name]


def compare_runs(scenario: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Comparison:
    """Compare the runs of one scenario. Any: results as `results.assemble` makes them."""
    rows = []
    for name, metric in METRICS.items():
        values = [[v for run in side if (v := headline_value(run, name)) is not None] for side in (before, after)]
        if not all(values):
            continue
        old, new = fmean(values[0]), fmean(values[1])
        if not old and (not new or metric.unit):
            continue  # nothing against nothing; a measure without a base has no ratio, a count that must be 0 has
        ratio = new / old if old else math.inf
        band = _band(values[0], values[1])
        if name in CIRCUMSTANCES:
            verdict = "circumstance"
        elif abs(ratio - 1) <= band:
            verdict = "no difference"
        else:
            verdict = "better" if (ratio < 1) is metric.lower_is_better else "worse"
        rows.append(Row(name, old, new, ratio, band, verdict))
    notes = []
    if min(len(before), len(after)) < 2:
        notes.append(f"a side has a single run: a noise band of {ASSUMED_BAND:.0%} is assumed (use --repeat 3 or more)")
    for what, pick in (
        ("size", lambda run: {k: v for k, v in run["size"].items() if k != "sent"}),
        ("processor", lambda run: run["machine"]["cpu"]),
        ("way", lambda run: run["way"]),
    ):
        if pick(before[0]) != pick(after[0]):
            notes.append(f"the two sides differ in {what}: the ratios say little")
    return Comparison(scenario, len(before), len(after), rows, notes)


def _band(before: list[float], after: list[float]) -> float:
    """The relative difference that noise alone explains."""
    if min(len(before), len(after)) < 2:
        return ASSUMED_BAND
    parts: list[float] = [(stdev(side) / fmean(side)) ** 2 / len(side) for side in (before, after) if fmean(side)]
    freedom = len(before) + len(after) - 2
    spreads = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _STUDENT_MANY
    return max(LEAST_BAND, spreads * math.sqrt(sum(parts)))


def verdict_table(comparison: Comparison) -> Table:
    """The comparison as a table for the terminal."""
    title = f"{comparison.scenario}: {comparison.runs_before} run(s) before, {comparison.runs_after} after"
    table = Table(title=title, box=None, title_justify="left")
    for column in ("figure", "before", "after", "after/before", "noise", "verdict"):
        table.add_column(column, justify="left" if column in ("figure", "verdict") else "right")
    colours = {"better": "green", "worse": "red", "no difference": "dim", "circumstance": "dim"}
    for row in comparison.rows:
        metric = METRICS[row.metric]
        colour = colours[row.verdict]
        table.add_row(
            f"{metric.label} [{metric.unit}]".replace("[", r"\["), f"{row.before:,.4g}", f"{row.after:,.4g}",
            f"{row.ratio:.3f}", f"±{row.band:.1%}", f"[{colour}]{row.verdict}[/{colour}]",
        )  # fmt: skip
    return table
