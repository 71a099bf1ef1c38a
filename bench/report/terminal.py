"""Tables of results for the terminal: figures of a run, comparisons with other servers."""

from __future__ import annotations

from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.report.metrics import METRICS

__all__ = ["bound_text", "print_against", "print_result", "wide_console"]

WIDTH = 160
"""Columns where standard output is no terminal."""


def wide_console() -> Console:
    """Return a console on standard output; in a file or a pipe it is so wide that no table is cut off, whatever
    COLUMNS says."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def print_result(result: dict[str, Any]) -> None:
    """Print the figures and notes of one run. Any: see `bench.report.results.assemble`."""
    console = wide_console()
    size = result["size"]
    where = f"{size['viewers']:,} viewers, {size['rooms']:,} room{'s' * (size['rooms'] > 1)}, {size['seconds']:g} s"
    if "viewers_per_socket" in size:
        where += f"; {size['sockets']:,} shared sockets, {size['viewers_per_socket']:g} viewers per socket"
    if result["way"] == "memory":
        where += "; SIMULATED LINKS IN MEMORY, no sockets: policies only, not comparable with real links"
    console.print(f"\n[bold]{result['title']}[/bold] ({result['scenario']}: {where})", highlight=False)
    targets = {target["metric"]: target for target in result["targets"]}
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    columns: tuple[Literal["left", "right"], ...] = ("right", "left", "left")
    for justify in columns:
        table.add_column(justify=justify, no_wrap=True)
    for name, metric in METRICS.items():
        if name in result["headline"]:
            target = targets.get(name)
            reached_text = ""
            if target is not None:
                colour = "green" if target["reached"] else "yellow"
                state = "reached" if target["reached"] else "missed"
                reached_text = f"[{colour}]{state}[/{colour}] ({target['kind']} {bound_text(target['bound'])})"
            table.add_row(metric.label, figure_text(result["headline"][name]), metric.unit, reached_text)
    console.print(table)
    for note in result["notes"]:
        console.print(f"  note: {escape(note)}", highlight=False, soft_wrap=True)


def bound_text(bound: float) -> str:
    """Return a goal as it is written in the scenario, with thousands grouped."""
    return f"{bound:,.10g}"


def figure_text(value: float) -> str:
    """Return a figure with three or four significant digits."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def print_against(rows: list[dict[str, Any]]) -> None:
    """Print the rows of `bench.against.fanout.run_against`. Any: plain JSON."""
    table = Table(title="the same viewers and messages against other servers", box=None)
    for column in (
        "server",
        "viewers",
        "messages/s",
        "p50 ms",
        "p99 ms",
        "CPU us a delivery",
        "against raw loop",
        "note",
    ):
        table.add_column(column, justify="left" if column in ("server", "note") else "right")
    for row in rows:
        if row.get("absent"):
            table.add_row(row["name"], *[""] * 6, f"absent: {row['absent']}")
        else:
            table.add_row(
                row["name"], f"{row['viewers']:,}", figure_text(row["messages_per_s"]), figure_text(row["p50_ms"]),
                figure_text(row["p99_ms"]), figure_text(row["cpu_us"]), figure_text(row["ratio"]), row.get("note", ""),
            )  # fmt: skip
    wide_console().print(table)
