"""Result of a micro bench: a figure, the floor of the same run, and its goal.

Absolute times vary on a shared machine. So each figure is shown beside a floor: the cost of the kernel, or of the bare
library call, for the same bytes, measured in the same run and interleaved with it.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Result", "machine", "median", "table"]


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    ``goal``: bound of ``value``, from above with ``less_is_better``, else from below; None = for comparison only.
    ``floor``: the bare loop of the same run in the same unit. ``detail``: how it was measured.
    """

    bench: str
    figure: str
    value: float
    unit: str
    goal: float | None = None
    less_is_better: bool = True
    floor: float | None = None
    floor_name: str = ""
    goal_of: str = "value"
    """What the goal applies to: "value", or "ratio" of value and floor."""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Value over floor, or its inverse, so that 1 is the floor and more is worse."""
        if not self.floor or not self.value:
            return None
        return self.value / self.floor if self.less_is_better else self.floor / self.value

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        if self.goal_of == "ratio":
            return self.ratio is not None and self.ratio <= self.goal
        return self.value <= self.goal if self.less_is_better else self.value >= self.goal

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON, with the ratio and whether the goal is met."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met}


def machine() -> dict[str, Any]:
    """Return facts about this machine."""
    models = (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cpu": next(models, platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": int(memory) // 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "load_1_min": round(os.getloadavg()[0], 2),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def median(values: Sequence[float]) -> float:
    """Return the median, of an even number the mean of the middle two; 0.0 without values."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return 0.0
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def table(results: Sequence[Result]) -> str:
    """Return the results as a text table, one line each."""
    rows = [("bench", "figure", "value", "floor", "ratio", "goal", "")]
    for result in results:
        sign = "<=" if result.less_is_better or result.goal_of == "ratio" else ">="
        goal = (
            "" if result.goal is None else f"{sign} {_number(result.goal)}{' x' if result.goal_of == 'ratio' else ''}"
        )
        rows.append(
            (
                result.bench,
                result.figure,
                f"{_number(result.value)} {result.unit}",
                "" if result.floor is None else f"{_number(result.floor)} ({result.floor_name})",
                "" if result.ratio is None else f"{result.ratio:.2f}",
                goal,
                {True: "met", False: "MISSED", None: ""}[result.met],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
