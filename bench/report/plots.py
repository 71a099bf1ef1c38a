"""Plots of the report, as SVG text inside the page: no files, no scripts, English labels.

A lane has one colour in all plots. Each function takes a result (`results`) and returns a figure, or None where the run
has no data for it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from bench.measure import summarise

__all__ = [
    "PLOTS",
    "floor_bars",
    "lane_totals",
    "latency_over_time",
    "latency_percentiles",
    "load",
    "save",
    "svg",
    "ticks_and_stage",
]

Result = dict[str, Any]
"""JSON of one run. Any: see `results.assemble`."""

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
LANE_COLOURS = {
    "control": "#c0392b",
    "commerce": "#8e44ad",
    "paid": "#d68910",
    "chat": "#2471a3",
    "ambient": "#229954",
    "slow chat": "#85c1e9",
    "slow paid": "#f5cba7",
    "slow control": "#f1948a",
    "floor": "#2c3e50",
    "join": "#7b8794",
    "rejoin": "#b7950b",
    "ack": "#5d6d7e",
    "durable": "#117864",
}
OUTCOME_COLOURS = {
    "shown": "#2471a3", "merged": "#7fb3d5", "sampled": "#f0b27a", "expired": "#cb4335", "held": "#bdc3c7",
}  # fmt: skip
_LANES = ("control", "commerce", "paid", "chat", "ambient")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def _figure(height: float = 3.1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.4, height), layout="constrained")
    made = figure.subplots(rows, 1, sharex=rows > 1, squeeze=False)
    return figure, [row[0] for row in made]


def svg(figure: Figure) -> str:
    """Return the figure as an ``<svg>`` element without its XML prologue."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    found = text.getvalue()
    return found[found.index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Write one figure to a file, in the format of its ending (.svg, .png)."""
    figure.savefig(path, dpi=160)


def styled() -> Any:
    """Return the context manager with the style of all figures. Any: matplotlib's own."""
    return matplotlib.rc_context(_STYLE)


def _milliseconds(value: float, _: Any = None) -> str:
    if value >= 1000:
        return f"{value / 1000:g} s"
    return f"{value:g} ms" if value >= 1 else f"{value * 1000:g} us"


def _log_ms(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(_milliseconds))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend_below(figure: Figure, axes: Axes) -> None:
    """Place the legend below the plot."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=8.5)


def floor_bars(result: Result) -> Figure | None:
    """Plot the cost of one delivery: the raw loops, the fan-out, the whole broker."""
    headline = result["headline"]
    bars = [
        (label, headline[name], colour)
        for label, name, colour in (
            ("raw loop in C", "raw_c_us", "#aeb6bf"),
            ("raw loop in Python", "raw_python_us", "#7b8794"),
            ("fan-out, one write", "write_us", LANE_COLOURS["chat"]),
            ("whole broker, CPU a delivery", "cpu_delivery_us", INK),
        )
        if name in headline
    ]
    if len(bars) < 3:
        return None
    figure, (axes,) = _figure(2.4)
    names, values, colours = zip(*bars, strict=True)
    axes.barh(names, values, color=colours, height=0.6)
    for place, value in enumerate(values):
        axes.text(value, place, f"  {value:.1f} us", va="center", size=9)
    axes.set_xlim(0, max(values) * 1.18)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title("One delivery, same sockets, same run")
    axes.set_xlabel("microseconds")
    return figure


def latency_percentiles(result: Result) -> Figure | None:
    """Plot latency by percentile and lane, both scales logarithmic to show the tail."""
    more = ("slow chat", "durable", "floor") if result.get("ledger") else ("slow chat", "floor")
    wanted = [name for name in (*_LANES, *more) if name in result["histograms"]]
    if not wanted:
        return None
    figure, (axes,) = _figure(3.4)
    points = [0, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 99.995, 99.999]
    for name in wanted:
        latencies = summarise([result["histograms"][name]])
        shown = [p for p in points if p < 100 * (1 - 1 / max(2, latencies.count))]
        label = {
            "floor": "raw loop", "ambient": "ambient (broker to viewer)", "durable": "durable (due to acknowledged)"
        }.get(name, name)  # fmt: skip
        axes.plot(
            [1 / (1 - p / 100) for p in shown],
            [latencies.percentile_us(p) / 1000 for p in shown],
            label=label, color=LANE_COLOURS.get(name, FAINT), linewidth=1.8,
            linestyle="--" if name == "floor" else "-",
        )  # fmt: skip
    axes.set_xscale("log")
    ticks = [1, 2, 10, 100, 1000, 10_000]
    axes.set_xticks(ticks, ["min", "p50", "p90", "p99", "p99.9", "p99.99"])
    axes.xaxis.set_minor_formatter(NullFormatter())
    _log_ms(axes)
    axes.set_title("Latency by percentile and lane")
    axes.set_ylabel("publish to arrival")
    _legend_below(figure, axes)
    return figure


def latency_over_time(result: Result) -> Figure | None:
    """Plot p50 and p99 of every second, by lane."""
    series = {name: rows for name, rows in result["series"].items() if name in (*_LANES, "slow chat") and rows}
    if not series:
        return None
    figure, (axes,) = _figure(3.1)
    origin = result["begins_s"]
    for name, every in series.items():
        rows = [row for row in every if row["second"] >= int(origin)]
        seconds = [row["second"] - origin for row in rows]
        colour = LANE_COLOURS.get(name, FAINT)
        axes.plot(seconds, [row["p99_ms"] for row in rows], color=colour, linewidth=1.7, label=f"{name} p99")
        axes.plot(seconds, [row["p50_ms"] for row in rows], color=colour, linewidth=1, linestyle=":", alpha=0.8)
    _log_ms(axes)
    axes.set_title("Latency over time (dotted: p50)")
    axes.set_xlabel("seconds since the first message")
    _legend_below(figure, axes)
    return figure


def lane_totals(result: Result) -> Figure | None:
    """Plot the outcomes of every lane's messages, as shares of those admitted."""
    lanes = [(name, row) for name, row in result["lanes"].items() if row["admitted"]]
    if not lanes:
        return None
    figure, (axes,) = _figure(0.9 + 0.42 * len(lanes))
    names = [f"{name}\n{row['admitted']:,}" for name, row in lanes]
    left = [0.0] * len(lanes)
    for outcome, colour in OUTCOME_COLOURS.items():
        parts = [100 * row[outcome] / row["admitted"] for _, row in lanes]
        if any(parts):
            axes.barh(names, parts, left=left, color=colour, label=outcome, height=0.62)
            for place, (part, start) in enumerate(zip(parts, left, strict=True)):
                if part > 9:
                    axes.text(start + part / 2, place, f"{part:.0f} %", ha="center", va="center", color="white", size=8)
        left = [start + part for start, part in zip(left, parts, strict=True)]
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_title("Outcomes of admitted messages")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=5, fontsize=8.5)
    return figure


def _during(result: Result, rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Return the rows from 3 s before the schedule to its end."""
    return [row for row in rows if -3 <= row["second"] <= result["size"]["seconds"] + 1]


def ticks_and_stage(result: Result) -> Figure | None:
    """Plot the broker's tick interval, its overload stage, and the number of backlogged viewers."""
    rows = _during(result, result["samples"])
    if len(rows) < 2:
        return None
    figure, (upper, lower) = _figure(3.6, 2)
    seconds = [row["second"] for row in rows]
    upper.step(seconds, [row["interval_ms"] for row in rows], where="post", color=LANE_COLOURS["chat"], linewidth=1.7)
    upper.set_ylim(bottom=0)
    upper.set_ylabel("tick interval, ms")
    upper.set_title("Tick interval, overload stage, viewers backlogged")
    lower.fill_between(
        seconds, [row["backlogged"] for row in rows], color="#d5dbdb", step="post", label="viewers backlogged"
    )
    lower.set_ylabel("viewers backlogged")
    lower.set_ylim(0, max(1, *[row["backlogged"] for row in rows]) * 1.15)
    lower.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    stage = lower.twinx()
    stage.step(seconds, [row["stage"] for row in rows], where="post", color=LANE_COLOURS["control"], linewidth=1.7)
    stage.set_ylim(-0.1, 4.2)
    stage.set_yticks(range(5))
    stage.set_ylabel("stage (0-4)", color=LANE_COLOURS["control"])
    stage.spines["right"].set_visible(True)
    stage.grid(visible=False)
    lower.set_xlabel("seconds since the first message")
    return figure


def load(result: Result) -> Figure | None:
    """Plot the CPU of every process and the broker's memory over time."""
    processes = {name: _during(result, rows) for name, rows in result["resources"].items()}
    if len(processes.get("broker", ())) < 2:
        return None
    figure, (upper, lower) = _figure(3.6, 2)
    for name, rows in sorted(processes.items()):
        mine = name == "broker"
        upper.plot(
            [row["second"] for row in rows], [row["cores"] for row in rows], label=name,
            color=INK if mine else None, linewidth=1.9 if mine else 1.1, alpha=1 if mine else 0.8,
        )  # fmt: skip
    upper.set_ylabel("cores")
    upper.set_ylim(bottom=0)
    upper.set_title("CPU by process, broker's memory")
    upper.legend(loc="upper right", fontsize=8.5, ncols=3)
    broker = processes["broker"]
    memory = [row["rss_mib"] for row in broker]
    lower.plot([row["second"] for row in broker], memory, color=INK, linewidth=1.7)
    low, high = min(memory), max(memory)
    lower.set_ylim(max(0, low - max(5, 0.1 * low)), high + max(5, 0.1 * high))
    lower.set_ylabel("broker, MiB")
    lower.set_xlabel("seconds since the first message")
    return figure


PLOTS = (floor_bars, latency_percentiles, latency_over_time, lane_totals, ticks_and_stage, load)
"""All plots of a run, in the order of the report."""
