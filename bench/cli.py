"""``roomcast bench``: list, run, compare, micro. The terminal shows a short form; the report has everything.

Exit status: 0 all well, 1 an invariant was violated (the first difference is named), 2 it could not be run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import trio
from rich.markup import escape
from rich.table import Table

from bench.extra import require_extra
from bench.plan import about, rough_s
from bench.report.compare import compare_files, comparison_table
from bench.report.metrics import METRICS
from bench.report.terminal import bound_text, wide_console
from bench.scenario import ScenarioError, Sizes, Target, load_scenario, scenario_names

__all__ = ["bench"]

FAULTS = ("drop-frame", "drop-entry")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure a broker and check its totals; fail if one is wrong.

    Every run starts its own broker, viewers and publishers on the loopback interface and ends them.
    """


@bench.command("list")
def list_() -> None:
    """List the scenarios."""
    table = Table(box=None, pad_edge=False)
    for column in ("scenario", "way", "viewers", "rooms", "duration"):
        table.add_column(column, no_wrap=True)
    table.add_column("what it measures, and its goals", overflow="fold")
    for name in scenario_names():
        scenario = load_scenario(name)
        lines = [scenario.purpose, *(f"goal: {_goal(target)}" for target in scenario.targets), ""]
        table.add_row(
            name, _WAYS[scenario.way], f"{scenario.viewers:,}", f"{scenario.rooms:,}", about(rough_s(scenario)),
            escape("\n".join(lines)),
        )  # fmt: skip
    table.add_row(
        "real-100k", "links", "100,000", "1", "2 min",
        "Announcements of one room over six processes and a real Redis, each viewer a socket. Smaller: --viewers,\n"
        "--viewer-processes (so many serve, and so many receive).\ngoal: p99 at most 1.3 x a raw sweep",
    )  # fmt: skip
    wide_console().print(table)


def _goal(target: Target) -> str:
    metric = METRICS[target.metric]
    return f"{metric.label} {target.kind} {bound_text(target.bound)} {metric.unit}".rstrip()


_WAYS = {"sockets": "a: links", "shared": "b: shared", "memory": "c: memory"}


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
    "--budget", type=click.FloatRange(0.1), metavar="MINUTES", help="Shorten schedules so that all runs fit in."
)
@click.option(
    "--ledger-place",
    type=click.Path(exists=True, file_okay=False, writable=True),
    envvar="ROOMCAST_BENCH_DIR",
    help="Directory for the ledgers of durable scenarios [$ROOMCAST_BENCH_DIR].",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of all random choices.")
@click.option("--against", default="", help="Comparators, with commas: websockets,redis,nats,nchan,centrifugo.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here.")
@click.option("--html", "html_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the first plot here (.svg, .png)."
)
@click.option("--fault", type=click.Choice(FAULTS), help="Inject a fault, to see that the checks fail.")
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
    require_extra("bench run")
    from bench.real_sockets import NAME, run_real

    if NAME in names:
        if len(names) > 1:
            raise click.UsageError(f"{NAME} takes the whole machine: run it alone")
        viewers = sizes["viewers"] or (1_000 if sizes["smoke"] else 100_000)
        processes = sizes["viewer_processes"] or (2 if sizes["smoke"] else 6)
        try:
            sys.exit(trio.run(run_real, viewers, processes, json_path))
        except (ValueError, OSError) as error:
            raise click.UsageError(str(error)) from None
    from bench.batch import BatchOptions, run_batch

    options = BatchOptions(
        names=names, sizes=Sizes(**sizes), repeat=repeat, corpus=corpus, budget_min=budget, ledger_place=ledger_place,
        seed=seed, against=against, json_path=json_path, html_path=html_path, picture=picture, fault=fault or "",
    )  # fmt: skip
    try:
        status = run_batch(options)
    except (ScenarioError, ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    sys.exit(status)


@bench.command()
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(before: Path, after: Path) -> None:
    """Compare two results (--json of `run`), with the noise band of their repeated runs."""
    try:
        comparisons = compare_files(before, after)
    except (ValueError, OSError, KeyError, msgspec.DecodeError) as error:
        raise click.ClickException(f"not two results of bench run: {error}") from None
    console = wide_console()
    for comparison in comparisons:
        console.print(comparison_table(comparison))
        for note in comparison.notes:
            console.print(f"  {note}", highlight=False)


@bench.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def micro(arguments: tuple[str, ...]) -> None:
    """Measure one hot path at a time, seconds each, with floors (see `python -m bench.micro --help`)."""
    import runpy

    sys.argv = ["bench.micro", *arguments]
    runpy.run_module("bench.micro", run_name="__main__")
