"""``roomcast bench``: list, run, compare, micro. What it prints is the short form; the report has everything.

Exit status: 0 all well, 1 an invariant was violated (the first difference is named), 2 it could not be run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
from rich.console import Console
from rich.table import Table

from bench.compare import compare_files, verdict_table
from bench.memory import run_memory
from bench.process import BenchFailure
from bench.results import METRICS
from bench.run import RunOptions, run_scenario
from bench.scenario import Scenario, ScenarioError, Sizes, load_scenario, resize, scenario_names
from bench.texts import load_corpus

__all__ = ["bench"]

FAULTS = ("drop-frame",)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure a broker, and fail when a sum is off.

    Every run starts its own broker, viewers and publishers on the loopback interface and ends them.
    """


@bench.command("list")
def list_() -> None:
    """Say which scenarios there are."""
    table = Table(box=None, pad_edge=False)
    for column in ("scenario", "way", "viewers", "rooms", "seconds", "what one learns"):
        table.add_column(column, overflow="fold")
    for name in scenario_names():
        scenario = load_scenario(name)
        table.add_row(
            name, _WAYS[scenario.way], f"{scenario.viewers:,}", f"{scenario.rooms:,}", f"{scenario.seconds:g}",
            scenario.purpose,
        )  # fmt: skip
    Console().print(table)


_WAYS = {"sockets": "a: links", "crowd": "b: crowd", "memory": "c: memory"}


@bench.command()
@click.argument("names", nargs=-1, required=True, metavar="SCENARIO...")
@click.option("--viewers", type=click.IntRange(1), help="Viewers over all rooms.")
@click.option("--rooms", type=click.IntRange(1), help="Rooms.")
@click.option("--rate", type=click.FloatRange(0), help="Danmaku a second at the peak, over all rooms.")
@click.option("--seconds", type=click.FloatRange(1), help="Length of the schedule; phases stretch with it.")
@click.option("--transport", type=click.Choice(["tcp", "websocket", "mixed"]), help="How viewers connect.")
@click.option("--viewer-processes", type=click.IntRange(1, 16), help="Processes that receive.")
@click.option("--smoke", is_flag=True, help="The scenario's smallest size: seconds instead of minutes.")
@click.option("--repeat", type=click.IntRange(1, 50), default=1, show_default=True, help="Runs of each scenario.")
@click.option("--corpus", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Danmaku, one a line.")
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
    try:
        chosen = [resize(load_scenario(name), Sizes(**sizes)) for name in names]
        comparators = _comparators(against)
        options = RunOptions(phrases=load_corpus(corpus) if corpus is not None else (), seed=seed, fault=fault or "")
    except (ScenarioError, ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    runs: list[dict[str, Any]] = []
    try:
        for scenario in chosen:
            for number in range(repeat):
                label = scenario.name + (f" ({number + 1} of {repeat})" if repeat > 1 else "")
                runs.append(_run_one(console, label, scenario, options))
        compared = _run_against(console, comparators, chosen, options) if comparators else []
    except (BenchFailure, KeyboardInterrupt) as error:
        console.print(f"[red]cannot run:[/red] {error or 'interrupted'}", highlight=False)
        sys.exit(2)
    document = {"roomcast_bench": 1, "runs": runs, "against": compared}
    for result in runs:
        _print_result(result)
    if compared:
        _print_against(compared)
    if json_path is not None:
        json_path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        console.print(f"wrote {json_path}")
    if html_path is not None or picture is not None:
        from bench.report import write_html, write_picture

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
        sys.exit(1)


def _run_one(console: Console, label: str, scenario: Scenario, options: RunOptions) -> dict[str, Any]:
    with console.status(label) as status:
        run_way = run_memory if scenario.way == "memory" else run_scenario
        result = run_way(scenario, options, lambda text: status.update(f"[bold]{label}[/bold]: {text}"))
    good = not result["invariants"]["violations"]
    mark = "[green]holds[/green]" if good else "[red]VIOLATED[/red]"
    console.print(f"{label}: {result['invariants']['checked']} equations, {mark}")
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
    columns: tuple[Literal["left", "right"], ...] = ("left", "right", "left", "left")
    for justify in columns:
        table.add_column(justify=justify, no_wrap=True)
    for name, metric in METRICS.items():
        if name in result["headline"]:
            target = targets.get(name)
            judged = ""
            if target is not None:
                colour = "green" if target["reached"] else "yellow"
                word = "reached" if target["reached"] else "missed"
                judged = f"[{colour}]{word}[/{colour}] ({target['kind']} {target['bound']:g})"
            table.add_row(metric.label, figure(result["headline"][name]), metric.unit, judged)
    console.print(table)
    for note in result["notes"]:
        console.print(f"  note: {note}", highlight=False)


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
    """Standard output; wide enough for the tables where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=130)


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
