"""``roomcast bench``: list, run, compare, micro. What it prints is the short form; the report has everything.

Exit status: 0 all well, 1 an invariant was violated (the first difference is named), 2 it could not be run.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.load.texts import load_corpus
from bench.plan import about, fitted, rough_s, slowness
from bench.process import BenchFailure
from bench.report.compare import compare_files, verdict_table
from bench.report.results import METRICS
from bench.run import RunOptions, run_scenario
from bench.scenario import (
    Scenario,
    ScenarioError,
    Sizes,
    Target,
    has_own_size,
    load_scenario,
    resize,
    scenario_names,
)
from bench.scripted_links import run_memory

__all__ = ["bench"]

FAULTS = ("drop-frame", "lose-entry")
WIDE = 160
"""Columns where standard output is no terminal."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure a broker, and fail when a sum is off.

    Every run starts its own broker, viewers and publishers on the loopback interface and ends them.
    """


@bench.command("list")
def list_() -> None:
    """Say which scenarios there are."""
    table = Table(box=None, pad_edge=False)
    for column in ("scenario", "way", "viewers", "rooms", "takes about"):
        table.add_column(column, no_wrap=True)
    table.add_column("what one learns, and what it has to reach", overflow="fold")
    for name in scenario_names():
        scenario = load_scenario(name)
        words = [scenario.purpose, *(f"goal: {_goal(target)}" for target in scenario.targets), ""]
        table.add_row(
            name, _WAYS[scenario.way], f"{scenario.viewers:,}", f"{scenario.rooms:,}", about(rough_s(scenario)),
            escape("\n".join(words)),
        )  # fmt: skip
    _wide_console().print(table)


def _goal(target: Target) -> str:
    metric = METRICS[target.metric]
    return f"{metric.label} {target.kind} {bound_text(target.bound)} {metric.unit}".rstrip()


_WAYS = {"sockets": "a: links", "crowd": "b: crowd", "memory": "c: memory"}


@bench.command()
@click.argument("names", nargs=-1, required=True, metavar="SCENARIO...")
@click.option("--viewers", type=click.IntRange(1), help="Viewers over all rooms.")
@click.option("--rooms", type=click.IntRange(1), help="Rooms.")
@click.option("--rate", type=click.FloatRange(0), help="Danmaku (else gifts) a second at the peak, over all rooms.")
@click.option("--seconds", type=click.FloatRange(1), help="Length of the schedule; phases stretch with it.")
@click.option("--transport", type=click.Choice(["tcp", "websocket", "mixed"]), help="How viewers connect.")
@click.option("--viewer-processes", type=click.IntRange(1, 16), help="Processes that receive.")
@click.option("--smoke", is_flag=True, help="The scenario's smallest size: seconds instead of minutes.")
@click.option("--repeat", type=click.IntRange(1, 50), default=1, show_default=True, help="Runs of each scenario.")
@click.option("--corpus", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Danmaku, one a line.")
@click.option(
    "--budget", type=click.FloatRange(0.1), metavar="MINUTES", help="Shorten schedules so that all of it fits in."
)
@click.option(
    "--ledger-place",
    type=click.Path(exists=True, file_okay=False, writable=True),
    envvar="ROOMCAST_BENCH_DIR",
    help="Directory on the disk that durable scenarios shall use [$ROOMCAST_BENCH_DIR].",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of everything random.")
@click.option("--against", default="", help="Comparators, with commas: websockets,redis,nchan.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here.")
@click.option("--html", "html_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the first plot here (.svg, .png)."
)
@click.option("--fault", type=click.Choice(FAULTS), help="Break an invariant on purpose, to see the run fail.")
def run(
    names: tuple[str, ...],
    repeat: int,
    corpus: Path | None,
    budget: float | None,
    ledger_place: str | None,
    seed: int,
    against: str,
    json_path: Path | None,
    html_path: Path | None,
    picture: Path | None,
    fault: str | None,
    **sizes: Any,
) -> None:
    """Run scenarios one after the other; write JSON and a self-contained HTML report.

    Any scenario of `bench list`, or a TOML file of your own.
    """
    # Any: click's values, named as the fields of Sizes.
    console = Console(stderr=True)
    begun = time.monotonic()
    try:
        chosen = [resize(load_scenario(name), Sizes(**sizes)) for name in names for _ in range(repeat)]
        comparators = _comparators(against)
        options = RunOptions(
            phrases=load_corpus(corpus) if corpus is not None else (), seed=seed, fault=fault or "",
            ledger_place=ledger_place,
        )  # fmt: skip
        if budget is not None and fitted(chosen, budget * 60) is None:
            raise ValueError(f"these need about {about(sum(map(rough_s, chosen)))}: too much for {budget:g} minutes")
    except (ScenarioError, ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    console.print(f"this takes about {about(sum(map(rough_s, chosen)))}", highlight=False)
    runs: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    failure: BenchFailure | KeyboardInterrupt | None = None
    slower = 1.0
    try:
        for place, scenario in enumerate(chosen):
            shorter = scenario
            if budget is not None:
                plan = fitted(chosen[place:], budget * 60 - (time.monotonic() - begun), slower)
                if plan is None:
                    raise BenchFailure(f"the budget of {budget:g} minutes does not suffice for {scenario.name}")
                shorter = plan[0]
            label = scenario.name + (f" ({place % repeat + 1} of {repeat})" if repeat > 1 else "")
            runs.append(_run_one(console, label, load_scenario(names[place // repeat]), scenario, shorter, options))
            slower = max(slower, slowness(shorter, runs[-1]["took_s"]))
        if comparators:
            compared = _run_against(console, comparators, chosen, options)
    except (BenchFailure, KeyboardInterrupt) as error:
        failure = error
        console.print(f"[red]cannot run:[/red] {escape(str(error)) or 'interrupted'}", highlight=False)
        if not runs:
            sys.exit(2)
        console.print("what follows is what was run before")
    document = {"roomcast_bench": 1, "runs": runs, "against": compared}
    for result in runs:
        _print_result(result)
    if compared:
        _print_against(compared)
    if json_path is not None:
        json_path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        console.print(f"wrote {json_path}")
    if html_path is not None or picture is not None:
        from bench.report.report import write_html, write_picture

        if html_path is not None:
            write_html(document, html_path)
            console.print(f"wrote {html_path}")
        if picture is not None:
            write_picture(document, picture)
            console.print(f"wrote {picture}")
    violations = [f"{result['scenario']}: {each}" for result in runs for each in result["invariants"]["violations"]]
    if violations:
        console.print(f"[bold red]INVARIANT VIOLATED[/bold red] {violations[0]}", highlight=False, soft_wrap=True)
        for each in violations[1:10]:
            console.print(f"  also: {each}", highlight=False, soft_wrap=True)
        if len(violations) > 10:
            console.print(f"  and {len(violations) - 10} more")
    took_s = time.monotonic() - begun
    late = budget is not None and took_s > budget * 60
    console.print(f"took {took_s / 60:.1f} minutes" + (f", more than the {budget:g} it was given" if late else ""))
    if violations:
        sys.exit(1)
    if failure is not None or late:
        sys.exit(2)


def _run_one(
    console: Console, label: str, own: Scenario, wanted: Scenario, scenario: Scenario, options: RunOptions
) -> dict[str, Any]:
    """Run ``scenario``: ``own`` as it is defined, ``wanted`` by flags, shortened where a budget demands it."""
    options = msgspec.structs.replace(options, own_size=has_own_size(own, scenario))
    begun = time.monotonic()
    with console.status(label) as status:
        run_way = run_memory if scenario.way == "memory" else run_scenario
        result = run_way(scenario, options, lambda text: status.update(f"[bold]{label}[/bold]: {text}"))
    result["took_s"] = round(time.monotonic() - begun, 1)
    if scenario.seconds < wanted.seconds:
        result["notes"].insert(0, f"shortened from {wanted.seconds:g} s to {scenario.seconds:g} s to keep the budget")
    good = not result["invariants"]["violations"]
    mark = "[green]hold[/green]" if good else "[red]VIOLATED[/red]"
    equations = f"{result['invariants']['checked']:,} equations"
    console.print(f"{label}: {equations} {mark}, {result['took_s']:.0f} s", highlight=False)
    return result


def _comparators(against: str) -> list[str]:
    from bench.against import COMPARATORS

    wanted = [name.strip() for name in against.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in COMPARATORS]
    if unknown:
        raise ValueError(f"--against knows {', '.join(COMPARATORS)}, not {', '.join(unknown)}")
    return wanted


def _run_against(
    console: Console, comparators: list[str], scenarios: list[Scenario], options: RunOptions
) -> list[dict[str, Any]]:
    from bench.against.fanout import run_against

    with console.status("comparators") as status:
        rows: list[dict[str, Any]] = run_against(
            comparators, scenarios[0], options, lambda text: status.update(f"against: {text}")
        )
    return rows


def _print_result(result: dict[str, Any]) -> None:
    console = _wide_console()
    size = result["size"]
    where = f"{size['viewers']:,} viewers, {size['rooms']:,} room{'s' * (size['rooms'] > 1)}, {size['seconds']:g} s"
    if "viewers_per_socket" in size:
        where += f"; a crowd on {size['sockets']:,} sockets, {size['viewers_per_socket']:g} viewers per socket"
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
            judged = ""
            if target is not None:
                colour = "green" if target["reached"] else "yellow"
                word = "reached" if target["reached"] else "missed"
                judged = f"[{colour}]{word}[/{colour}] ({target['kind']} {bound_text(target['bound'])})"
            table.add_row(metric.label, figure(result["headline"][name]), metric.unit, judged)
    console.print(table)
    for note in result["notes"]:
        console.print(f"  note: {escape(note)}", highlight=False, soft_wrap=True)


def bound_text(bound: float) -> str:
    """A goal as it is written in the scenario, thousands grouped."""
    return f"{bound:,.10g}"


def figure(value: float) -> str:
    """A figure with three or four significant digits."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _print_against(rows: list[dict[str, Any]]) -> None:
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
                row["name"], f"{row['viewers']:,}", figure(row["messages_per_s"]), figure(row["p50_ms"]),
                figure(row["p99_ms"]), figure(row["cpu_us"]), figure(row["ratio"]), row.get("note", ""),
            )  # fmt: skip
    _wide_console().print(table)


def _wide_console() -> Console:
    """Standard output; in a file or a pipe so wide that no table is cut off, whatever COLUMNS says."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


@bench.command()
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(before: Path, after: Path) -> None:
    """Compare two results (--json of `run`), with the noise band of their repeated runs."""
    try:
        comparisons = compare_files(before, after)
    except (ValueError, KeyError, msgspec.DecodeError) as error:
        raise click.ClickException(f"these are not two results of bench run: {error}") from None
    console = _wide_console()
    for comparison in comparisons:
        console.print(verdict_table(comparison))
        for note in comparison.notes:
            console.print(f"  {note}", highlight=False)


@bench.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def micro(arguments: tuple[str, ...]) -> None:
    """Measure one hot path at a time, seconds each, with floors (see `python -m bench.micro --help`)."""
    import runpy

    sys.argv = ["bench.micro", *arguments]
    runpy.run_module("bench.micro", run_name="__main__")
