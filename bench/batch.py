"""A sequence of runs: plan them, run one after the other, write the results.

This module and what it imports need the packages of the extra ``bench``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from bench.against import COMPARATORS
from bench.against.fanout import run_against
from bench.load.texts import load_corpus
from bench.plan import about, fitted, rough_s, slowness
from bench.process import BenchFailure
from bench.report.report import write_html, write_picture
from bench.report.terminal import print_against, print_result
from bench.run import RunOptions, run_scenario
from bench.scenario import Scenario, Sizes, has_own_size, load_scenario, resize
from bench.scripted_links import run_memory

__all__ = ["BatchOptions", "run_batch"]


class BatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of ``bench run``. ``names``: scenarios, by name or path."""

    names: tuple[str, ...]
    sizes: Sizes
    repeat: int = 1
    corpus: Path | None = None
    budget_min: float | None = None
    ledger_place: str | None = None
    seed: int = 1
    against: str = ""
    json_path: Path | None = None
    html_path: Path | None = None
    picture: Path | None = None
    fault: str = ""


class _Batch:
    """State of one sequence of runs."""

    def __init__(self, options: BatchOptions, console: Console) -> None:
        """Plan the runs. ScenarioError, ValueError and OSError where an option makes no sense."""
        self.options = options
        self.console = console
        self.begun = time.monotonic()
        self.scenarios = [
            resize(load_scenario(name), options.sizes) for name in options.names for _ in range(options.repeat)
        ]
        self.comparators = _comparators(options.against)
        self.run_options = RunOptions(
            phrases=load_corpus(options.corpus) if options.corpus is not None else (), seed=options.seed,
            fault=options.fault, ledger_place=options.ledger_place,
        )  # fmt: skip
        self.needed = about(sum(map(rough_s, self.scenarios)))
        self.budget_s = None if options.budget_min is None else options.budget_min * 60
        if self.budget_s is not None and fitted(self.scenarios, self.budget_s) is None:
            raise ValueError(f"these need about {self.needed}: too much for {options.budget_min:g} minutes")
        self.runs: list[dict[str, Any]] = []
        self.compared: list[dict[str, Any]] = []

    def run_all(self) -> None:
        """Run every scenario, then the comparators. BenchFailure if one cannot be run; ``runs`` has those before it."""
        slower = 1.0
        repeat = self.options.repeat
        for place, scenario in enumerate(self.scenarios):
            shortened = scenario
            if self.budget_s is not None:
                left_s = self.budget_s - (time.monotonic() - self.begun)
                plan = fitted(self.scenarios[place:], left_s, slower)
                if plan is None:
                    raise BenchFailure(
                        f"the budget of {self.options.budget_min:g} minutes is not enough for {scenario.name}"
                    )
                shortened = plan[0]
            label = scenario.name + (f" ({place % repeat + 1} of {repeat})" if repeat > 1 else "")
            defined = load_scenario(self.options.names[place // repeat])
            self.runs.append(self._run_one(label, defined, scenario, shortened))
            slower = max(slower, slowness(shortened, self.runs[-1]["took_s"]))
        if self.comparators:
            with self.console.status("comparators") as status:
                self.compared = run_against(
                    self.comparators, self.scenarios[0], self.run_options,
                    lambda text: status.update(f"against: {text}"),
                )  # fmt: skip

    def _run_one(self, label: str, defined: Scenario, wanted: Scenario, scenario: Scenario) -> dict[str, Any]:
        """Run ``scenario``: ``defined`` as its file says, ``wanted`` by flags, shortened where a budget requires it."""
        options = msgspec.structs.replace(self.run_options, own_size=has_own_size(defined, scenario))
        begun = time.monotonic()
        with self.console.status(label) as status:
            run = run_memory if scenario.way == "memory" else run_scenario
            result = run(scenario, options, lambda text: status.update(f"[bold]{label}[/bold]: {text}"))
        result["took_s"] = round(time.monotonic() - begun, 1)
        if scenario.seconds < wanted.seconds:
            note = f"shortened from {wanted.seconds:g} s to {scenario.seconds:g} s to keep the budget"
            result["notes"].insert(0, note)
        checks = result["invariants"]
        word = "[red]VIOLATED[/red]" if checks["violations"] else "[green]hold[/green]"
        self.console.print(
            f"{label}: {checks['checked']:,} equations {word}, {result['took_s']:.0f} s", highlight=False
        )  # fmt: skip
        return result

    def write(self) -> None:
        """Print the results and write the files that the options name."""
        options, console = self.options, self.console
        document = {"roomcast_bench": 1, "runs": self.runs, "against": self.compared}
        for result in self.runs:
            print_result(result)
        if self.compared:
            print_against(self.compared)
        if options.json_path is not None:
            options.json_path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
            console.print(f"wrote {options.json_path}")
        if options.html_path is not None:
            write_html(document, options.html_path)
            console.print(f"wrote {options.html_path}")
        if options.picture is not None:
            write_picture(document, options.picture)
            console.print(f"wrote {options.picture}")

    def print_violations(self) -> bool:
        """Print the violations of all runs, the first ones in full; return whether there are any."""
        console = self.console
        violations = [
            f"{result['scenario']}: {each}" for result in self.runs for each in result["invariants"]["violations"]
        ]
        if violations:
            console.print(f"[bold red]INVARIANT VIOLATED[/bold red] {violations[0]}", highlight=False, soft_wrap=True)
        for each in violations[1:10]:
            console.print(f"  also: {each}", highlight=False, soft_wrap=True)
        if len(violations) > 10:
            console.print(f"  and {len(violations) - 10} more")
        return bool(violations)


def run_batch(options: BatchOptions) -> int:
    """Run the scenarios, print and write the results, and return the exit status of ``bench run``.

    ScenarioError, ValueError and OSError, before anything runs, where an option makes no sense.
    """
    console = Console(stderr=True)
    batch = _Batch(options, console)
    console.print(f"this takes about {batch.needed}", highlight=False)
    failed = False
    try:
        batch.run_all()
    except (BenchFailure, KeyboardInterrupt) as error:
        failed = True
        console.print(f"[red]cannot run:[/red] {escape(str(error)) or 'interrupted'}", highlight=False)
        if not batch.runs:
            return 2
        console.print("the results of the runs before it follow")
    batch.write()
    violation_count = batch.print_violations()
    took_s = time.monotonic() - batch.begun
    late = batch.budget_s is not None and took_s > batch.budget_s
    more = f", more than the budget of {options.budget_min:g}" if late else ""
    console.print(f"took {took_s / 60:.1f} minutes{more}")
    return 1 if violation_count else 2 if failed or late else 0


def _comparators(against: str) -> list[str]:
    wanted = [name.strip() for name in against.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in COMPARATORS]
    if unknown:
        raise ValueError(f"--against accepts {', '.join(COMPARATORS)}, not {', '.join(unknown)}")
    return wanted
