"""``roomcast demo``: a broker, a busy room of real clients, and a check that every message was counted.

In a terminal it draws a screen. Where standard output is no terminal, or one that cannot move its cursor (TERM=dumb),
it prints progress lines on standard error. Either way the counts of the broker are compared with those of its clients
at the end, and the exit status says whether they agree.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import trio

from broker.config.schema import LogConfig
from broker.telemetry.logs import configure

if TYPE_CHECKING:
    from broker.demo.runner import DemoResult, Runner
    from broker.demo.screen import Snapshot
    from broker.demo.shop import ShopDemo

__all__ = ["demo", "run_demo"]

FRAME_S = 0.2
LINE_S = 2.0
"""Interval of progress lines; each new phase begins with one."""


@click.command("demo")
@click.option(
    "--scene",
    type=click.Choice(["room", "shop"]),
    default="room",
    show_default=True,
    help="A busy room, or the service desk of a shop over a day.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=3, max=3600),
    default=None,
    help="Length of the demo.  [default: 120, of a shop 180]",
)
@click.option(
    "--viewers", type=click.IntRange(min=20, max=5000), default=300, show_default=True, help="Clients in the room."
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON line on standard output; no screen.")
@click.option("--stay", is_flag=True, help="Begin anew after the last phase, until Ctrl-C: time to look at the pages.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the messages and their times.")
def demo(scene: str, seconds: float | None, viewers: int, as_json: bool, stay: bool, seed: int) -> None:
    """Run a broker with a busy room: quiet, flood, gift storm, a stalled viewer, a reconnect wave, and a shop.

    All viewers are real clients on real sockets, over TCP and WebSocket. At the end the broker's accounts are compared
    with the acknowledgements of senders and the messages of viewers; exit status 1 if they differ. Ctrl-C ends early.

    It prints three addresses for a browser: the live room, the host desk and the console. What a person does there
    is in no account of the demo, so after a visit nothing is compared.

    Scene shop: 200 buyers ask the service desk, a bot answers first and 8 agents do the rest, one of them loses its
    link; at the end each question must have one answer, and receipts must have come in order.
    """
    configure(LogConfig(level="error", format="text"))
    try:
        if scene == "shop":
            _shop(seconds or 180, as_json, seed)
            return
        result = trio.run(run_demo, seconds or 120, viewers, seed, not as_json and _can_draw(), stay)
    except BaseExceptionGroup as group:
        slow, others = group.split(trio.TooSlowError)
        if slow is None or others is not None:
            raise
        raise click.ClickException(
            "this machine is too busy for the demo: the broker did not answer a client in time. End other work, or use"
            " fewer --viewers"
        ) from group
    if result is None:
        raise SystemExit(130)
    if as_json:
        click.echo(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        _summarize(result)
    if not (result.balanced and result.reconciled):
        raise SystemExit(1)


def _shop(seconds: float, as_json: bool, seed: int) -> None:
    """Run the scene of a shop; exit status 1 where something is not as it must be, 130 where it was interrupted."""
    from broker.demo.shop import ShopDemo, ShopResult

    scene = ShopDemo(seconds, seed=seed)

    async def run() -> ShopResult:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_print_shop, scene)
            found = await scene.run()
            nursery.cancel_scope.cancel()
        return found

    try:
        result = trio.run(run)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if as_json:
        click.echo(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        click.echo(f"{result.questions} questions, {result.answers} answers, {result.by_bot} of them by the bot")
        click.echo(f"{result.transfers} handed over, {result.ratings} rated, in {result.seconds} s")
        for line in result.differences:
            click.echo(f"DIFFERENT: {line}")
        if not result.differences:
            click.echo("each question has one answer, each message came once, receipts came in order")
    if result.differences:
        raise SystemExit(1)


async def _print_shop(scene: ShopDemo) -> None:
    while True:
        await trio.sleep(LINE_S)
        click.echo(scene.progress, err=True)


def _can_draw() -> bool:
    """Return whether standard output is a terminal that can show a screen."""
    from rich.console import Console

    console = Console()
    return console.is_terminal and not console.is_dumb_terminal


async def run_demo(seconds: float, viewers: int, seed: int, on_screen: bool, stays: bool = False) -> DemoResult | None:
    """Return the result, or None if a second signal interrupted the counting."""
    from broker.demo.runner import Runner

    runner = Runner(seconds, viewers, seed, stays=stays)
    result: DemoResult | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal, runner, nursery)
        nursery.start_soon(_draw if on_screen else _print_progress, runner)
        result = await runner.run()
        nursery.cancel_scope.cancel()
    return result


async def _end_on_signal(runner: Runner, nursery: trio.Nursery) -> None:
    """End the phases at the first Ctrl-C, with the counting to follow; end everything at the second."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if runner.end_early.is_set():
                nursery.cancel_scope.cancel()
                return
            runner.end_early.set()


async def _take_snapshots(runner: Runner, every_s: float, use: Callable[[Snapshot], object]) -> None:
    while True:
        if runner.broker is not None:
            use(runner.snapshot())
        await trio.sleep(every_s)


async def _print_pages(runner: Runner) -> None:
    """Print the addresses for a browser as soon as there are any."""
    await runner.serves.wait()
    for name, address in zip(("live room", "host desk", "console"), runner.pages, strict=True):
        click.echo(f"{name}: {address}", err=True)


async def _draw(runner: Runner) -> None:
    await _print_pages(runner)
    from rich.console import Console
    from rich.live import Live

    from broker.demo.screen import draw

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        await _take_snapshots(
            runner,
            FRAME_S,
            lambda snapshot: live.update(draw(snapshot, console.width, console.height), refresh=True),
        )


async def _print_progress(runner: Runner) -> None:
    from broker.demo.screen import progress_line

    def print_line(snapshot: Snapshot) -> None:
        click.echo(progress_line(snapshot), err=True)

    click.echo(
        f"{runner.viewers} viewers, {runner.seconds:g} s in {len(runner.phases)} phases; a line every {LINE_S:g} s and "
        "at each phase, the comparison of all counts at the end; Ctrl-C ends early",
        err=True,
    )
    await _print_pages(runner)
    runner.on_status = lambda: print_line(runner.snapshot())
    await _take_snapshots(runner, LINE_S, print_line)


def _summarize(result: DemoResult) -> None:
    """Print the result as text."""
    from rich.console import Console
    from rich.text import Text

    from broker.demo.screen import lanes_table

    console = Console(highlight=False)
    summary = result.to_json()
    latency, links, accounting = summary["latency_ms"], summary["reconnects"], result.accounting
    console.print("messages by lane:", soft_wrap=True)
    console.print(lanes_table(result.accounts), width=min(console.width, 70))
    console.print(
        f"{result.viewers} viewers, {result.seconds:.0f} s: {summary['offered']:,} messages offered, "
        f"{result.received:,} delivered; latency p50 {latency['p50']} ms, p99 {latency['p99']} ms",
        soft_wrap=True,
    )
    console.print(
        f"a message can carry several: {accounting.gifts:,} gifts in {accounting.gift_messages:,} messages, "
        f"{result.likes:,} likes in {accounting.like_messages:,} messages",
        soft_wrap=True,
    )
    console.print(
        f"{links['cut']} links cut, {links['back']} back, {links['recovered']} without a gap; "
        f"highest overload stage {result.peak_stage}",
        soft_wrap=True,
    )
    for name, sums in result.commerce.items():
        said = ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in sums.items())
        console.print(f"{name}: {said}", soft_wrap=True)
    if result.visited:
        console.print("somebody has come by a page: what a person did there is in no account, so nothing is compared")
        return
    if result.reconciled:
        text = "reconciled: money, stock, codes, votes and entries agree in the ledger, the broker and the clients"
        console.print(Text(text, style="bold green"))
    else:
        console.print(Text("NOT reconciled:", style="bold red"))
        for line in result.commerce_differences:
            console.print(Text(f"  {line}", style="red"))
    if result.balanced:
        text = "balanced: the counts of broker, senders and viewers agree in every lane"
        console.print(Text(text, style="bold green"))
    else:
        console.print(Text("NOT balanced:", style="bold red"))
        for line in result.differences:
            console.print(Text(f"  {line}", style="red"))
