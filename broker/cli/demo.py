"""``roomcast demo``: a broker, a lively room full of real clients, and the proof that nothing is lost uncounted.

In a terminal it is a screen to look at; elsewhere progress lines on standard error. Either way the counts of the broker
are compared with those of its clients at the end, and the exit code says whether they agree.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import trio

from broker.config.schema import LogConfig
from broker.telemetry.logs import configure

if TYPE_CHECKING:
    from broker.demo.runner import DemoResult, Runner
    from broker.demo.screen import Snapshot

__all__ = ["demo"]

FRAME_S = 0.2
LINE_S = 2.0
"""A progress line comes with each new phase, and this often."""


@click.command("demo")
@click.option(
    "--seconds", type=click.FloatRange(min=3, max=3600), default=120, show_default=True, help="Length of the show."
)
@click.option(
    "--viewers", type=click.IntRange(min=20, max=5000), default=300, show_default=True, help="Clients in the room."
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON line on standard output; no screen.")
@click.option("--seed", type=int, default=1, show_default=True, help="What people say depends on it.")
def demo(seconds: float, viewers: int, as_json: bool, seed: int) -> None:
    """Run a broker with a lively room to look at: quiet, flood, gift storm, a stalled viewer, a reconnect wave.

    All viewers are real clients on real sockets, over TCP and WebSocket. At the end the broker's accounts are compared
    with what senders were told and viewers saw; exit code 1 if they differ. Ctrl-C ends the show early.
    """
    configure(LogConfig(level="error", format="text"))
    outcome = trio.run(_show, seconds, viewers, seed, sys.stdout.isatty() and not as_json)
    if outcome is None:
        raise SystemExit(130)
    if as_json:
        click.echo(json.dumps(outcome.to_json(), ensure_ascii=False))
    else:
        _summarize(outcome)
    if not outcome.balanced:
        raise SystemExit(1)


async def _show(seconds: float, viewers: int, seed: int, on_screen: bool) -> DemoResult | None:
    """The outcome, or None if even the counting was interrupted."""
    from broker.demo.runner import Runner

    runner = Runner(seconds, viewers, seed)
    outcome: DemoResult | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hurry_on_signal, runner, nursery)
        nursery.start_soon(_draw if on_screen else _tell, runner)
        outcome = await runner.run()
        nursery.cancel_scope.cancel()
    return outcome


async def _hurry_on_signal(runner: Runner, nursery: trio.Nursery) -> None:
    """The first Ctrl-C ends the acts and lets the counting follow; the second ends everything."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if runner.end_early.is_set():
                nursery.cancel_scope.cancel()
                return
            runner.end_early.set()


async def _pictures(runner: Runner, every_s: float, show: Callable[[Snapshot], object]) -> None:
    while True:
        if runner.broker is not None:
            show(runner.snapshot())
        await trio.sleep(every_s)


async def _draw(runner: Runner) -> None:
    from rich.console import Console
    from rich.live import Live

    from broker.demo.screen import draw

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        await _pictures(
            runner,
            FRAME_S,
            lambda snapshot: live.update(draw(snapshot, console.width, console.height), refresh=True),
        )


async def _tell(runner: Runner) -> None:
    from broker.demo.screen import progress_line

    def tell(snapshot: Snapshot) -> None:
        click.echo(progress_line(snapshot), err=True)

    runner.on_phase = lambda: tell(runner.snapshot())
    await _pictures(runner, LINE_S, tell)


def _summarize(outcome: DemoResult) -> None:
    """Print what the show has shown."""
    from rich.console import Console
    from rich.text import Text

    from broker.demo.screen import lanes_table

    console = Console(highlight=False)
    summary = outcome.to_json()
    latency, links = summary["latency_ms"], summary["reconnects"]
    console.print(lanes_table(outcome.accounts), width=min(console.width, 70))
    console.print(
        f"{outcome.viewers} viewers, {outcome.seconds:.0f} s: {summary['offered']:,} messages offered, "
        f"{outcome.received:,} delivered; latency p50 {latency['p50']} ms, p99 {latency['p99']} ms"
    )
    console.print(
        f"{links['cut']} links cut, {links['back']} back, {links['recovered']} without a gap; "
        f"{outcome.likes:,} likes, {outcome.accounting.gifts:,} gifts; highest overload stage {outcome.peak_stage}"
    )
    if outcome.balanced:
        text = "balanced: broker, senders and viewers count the same in every lane"
        console.print(Text(text, style="bold green"))
    else:
        console.print(Text("NOT balanced:", style="bold red"))
        for line in outcome.differences:
            console.print(Text(f"  {line}", style="red"))
