"""Two results side by side: the ratio of each figure, and whether it is more than noise.

Repeated runs show how much a figure varies by itself. The noise band is that variation of both sides together, and
wider the fewer runs there are: a ratio within it is "no difference". Single runs show no variation, so a wide band is
assumed and the table says so.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from rich.table import Table

from bench.report.metrics import METRICS, headline_value
from broker.config.files import read_text_of

__all__ = ["Comparison", "Row", "compare_files", "compare_runs", "comparison_table"]

ASSUMED_BAND = 0.25
"""For single runs: on shared machines the same build varies by this much from run to run."""
ENVIRONMENT_METRICS = frozenset(
    {
        "raw_python_us", "raw_c_us", "sync_per_s", "sync_p99_ms", "generator_cores", "publisher_cores",
        "generator_us_per_frame", "generator_cores_at_100k", "late_p99_ms", "others_cores",
    }
)  # fmt: skip
"""Figures of the machine and of the generator: shown because they explain the others, neither better nor worse."""
LEAST_BAND = 0.03
"""Smallest band: three runs may agree by chance."""
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Standard errors within which noise stays 19 times of 20, by degrees of freedom (Student's t, two-sided 95 %)."""
_STUDENT_MANY = 2.1


class Row(NamedTuple):
    """One figure of both sides. ``ratio`` is after / before; ``band``: the share by which noise alone may change it."""

    metric: str
    before: float
    after: float
    ratio: float
    band: float
    change: str


class Comparison(NamedTuple):
    """One scenario on both sides."""

    scenario: str
    runs_before: int
    runs_after: int
    rows: list[Row]
    notes: list[str]


def compare_files(before: Path, after: Path) -> list[Comparison]:
    """Compare two files of ``bench run --json``. ValueError if they share no scenario."""
    sides = [json.loads(read_text_of(path))["runs"] for path in (before, after)]
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
            continue  # both 0, or no base for a ratio; a count that must be 0 is compared
        ratio, band = _ratio_and_band(values[0], values[1])
        if name in ENVIRONMENT_METRICS:
            change = "environment"
        elif 1 / (1 + band) <= ratio <= 1 + band:
            change = "no difference"
        else:
            change = "better" if (ratio < 1) is metric.lower_is_better else "worse"
        rows.append(Row(name, old, new, ratio, band, change))
    notes = []
    if min(len(before), len(after)) < 2:
        notes.append(f"a side has a single run: a noise band of {ASSUMED_BAND:.0%} is assumed (use --repeat 3 or more)")
    for what, pick in (
        ("size", lambda run: {k: v for k, v in run["size"].items() if k != "sent"}),
        ("processor", lambda run: run["machine"]["cpu"]),
        ("way", lambda run: run["way"]),
    ):
        if pick(before[0]) != pick(after[0]):
            notes.append(f"the two sides differ in {what}: the ratios are not meaningful")
    return Comparison(scenario, len(before), len(after), rows, notes)


def _ratio_and_band(before: list[float], after: list[float]) -> tuple[float, float]:
    """Return after / before, and the band: noise alone explains factors up to 1 + band, either way.

    Of logarithms, since noise multiplies: other load makes a run three times as long, not 50 ms longer.
    Where a value is not positive, of the values themselves.
    """
    is_single = min(len(before), len(after)) < 2
    if min(*before, *after) > 0:
        logs = [[math.log(value) for value in side] for side in (before, after)]
        ratio = math.exp(fmean(logs[1]) - fmean(logs[0]))
        spread = 0.0 if is_single else _spread(logs)
        band = math.expm1(spread)
    else:
        old = fmean(before)
        ratio = fmean(after) / old if old else math.inf
        band = 0.0 if is_single or not old else _spread([before, after]) / abs(old)
    return ratio, ASSUMED_BAND if is_single else max(LEAST_BAND, band)


def _spread(sides: list[list[float]]) -> float:
    """Return by how much the means of the two sides may differ by noise alone."""
    freedom = sum(map(len, sides)) - 2
    errors = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _STUDENT_MANY
    return errors * math.sqrt(sum(stdev(side) ** 2 / len(side) for side in sides))


def comparison_table(comparison: Comparison) -> Table:
    """Return the comparison as a table for the terminal."""
    title = f"{comparison.scenario}: {comparison.runs_before} run(s) before, {comparison.runs_after} after"
    table = Table(title=title, box=None, title_justify="left")
    for column in ("figure", "before", "after", "after/before", "noise", "change"):
        table.add_column(column, justify="left" if column in ("figure", "change") else "right")
    colours = {"better": "green", "worse": "red", "no difference": "dim", "environment": "dim"}
    for row in comparison.rows:
        metric = METRICS[row.metric]
        colour = colours[row.change]
        table.add_row(
            f"{metric.label} [{metric.unit}]".replace("[", r"\["), f"{row.before:,.4g}", f"{row.after:,.4g}",
            f"{row.ratio:.3f}", f"×{1 + row.band:.2f}", f"[{colour}]{row.change}[/{colour}]",
        )  # fmt: skip
    return table
