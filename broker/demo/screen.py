"""Terminal screen of the demo: drawn by rich from a `Snapshot` and nothing else.

On the left the room as a viewer sees it; on the right what became of every message, by lane and by sender, and the
state of the broker. Texts of the room are shown as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from broker.demo.users import StalledState
from protocol.clients.events import Danmaku, StreamEvent
from protocol.codes import Lane, MessageType
from protocol.messages import Account
from protocol.text import plain

__all__ = ["MAX_WIDTH", "Snapshot", "draw", "lanes_table", "progress_line", "senders_table"]

MAX_WIDTH = 100
SCREEN_WIDTH = 36
RIGHT_WIDTH = 60
"""The tables' least width with numbers of five digits."""
RIGHT_LINES = 23
"""Height of the three panels on the right."""
_LANE_STYLES = {
    Lane.CONTROL: "yellow",
    Lane.COMMERCE: "yellow",
    Lane.PAID: "magenta",
    Lane.CHAT: "cyan",
    Lane.AMBIENT: "blue",
}
_COLUMNS = {
    "said": None,
    "shown": ("accepted",),
    "merged": ("merged",),
    "sampled": ("sampled_out",),
    "expired": ("expired",),
    "limited": ("limited",),
    "refused": ("rejected", "held", "unknown"),
}
"""Columns of the senders' table and the outcomes they sum; None = all."""


class Snapshot(NamedTuple):
    """One moment. Counts are totals since the beginning unless they say ``_per_s``."""

    phase: str
    act: int
    """Number of the act, 1 on; 0 before the first, above ``acts`` after the last."""
    acts: int
    elapsed_s: float
    seconds: float
    port: int
    viewers: int
    tcp: int
    websocket: int
    online: int
    offered_per_s: float
    deliveries_per_s: float
    p50_ms: int | None
    p99_ms: int | None
    """Of the last seconds: from the making of a tick or event to its arrival."""
    interval_ms: int
    stage: int
    likes: int
    cut: int
    back: int
    recovered: int
    stalled: StalledState
    accounts: tuple[Account, ...] = (Account(),) * len(Lane)
    senders: Mapping[str, Mapping[str, int]] = {}
    """Fates by group and outcome, likes left out."""
    screen: tuple[Danmaku | StreamEvent, ...] = ()
    """The latest last."""


def draw(snapshot: Snapshot, width: int = MAX_WIDTH, height: int = 25) -> RenderableType:
    """The whole screen, at most `MAX_WIDTH` columns and ``height`` lines."""
    width = min(width, MAX_WIDTH)
    left = min(SCREEN_WIDTH, max(width // 4, width - RIGHT_WIDTH))
    right = Group(
        Panel(lanes_table(snapshot.accounts), title="what became of it, by lane", border_style="dim", padding=(0, 1)),
        Panel(senders_table(snapshot), title="and by sender", border_style="dim", padding=(0, 1)),
        Panel(_broker_panel(snapshot), title="the broker", border_style="dim", padding=(0, 1)),
    )
    rows = max(4, min(height - 2, RIGHT_LINES) - 2)
    seen = Panel(
        Group(*_screen(snapshot.screen, rows, left - 4)),
        title="what a viewer sees",
        border_style="dim",
        width=left,
        height=rows + 2,
    )
    body = Table.grid()
    body.add_column(width=left)
    body.add_column(width=width - left)
    body.add_row(seen, right)
    return Group(_header(snapshot, width), body)


def _header(snapshot: Snapshot, width: int) -> RenderableType:
    title = Text.assemble(
        ("roomcast ", "bold"),
        ("demo", "bold cyan"),
        f"  {min(max(snapshot.act, 1), snapshot.acts)}/{snapshot.acts}  ",
        (snapshot.phase, "bold"),
    )
    clock = Text(f"{_clock(snapshot.elapsed_s)} of {_clock(snapshot.seconds)}", style="dim")
    line = Table.grid()
    line.add_column(width=width - 16)
    line.add_column(width=16, justify="right")
    line.add_row(title, clock)
    done = min(snapshot.elapsed_s, snapshot.seconds)
    bar = Table.grid()
    bar.add_row(ProgressBar(total=snapshot.seconds, completed=done, width=width, complete_style="cyan"))
    return Group(line, bar)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _screen(events: Iterable[Danmaku | StreamEvent], rows: int, width: int) -> list[Text]:
    lines = [_line(event, width) for event in events][-rows:]
    return lines or [Text("nobody has said anything yet", style="dim italic")]


def _line(event: Danmaku | StreamEvent, width: int) -> Text:
    if isinstance(event, StreamEvent):
        line = _event_line(event)
        line.truncate(width, overflow="ellipsis")
        return line
    line = Text()
    if event.count > 1:
        line.append(f"×{event.count}", style="bold bright_white" if event.count >= 10 else "bold cyan")
        line.append(" ")
    line.append(plain(event.text), style="bold" if event.count >= 10 else "")
    line.append(f"  {plain(event.name or event.user_id)}", style="dim")
    line.truncate(width, overflow="ellipsis")
    return line


def _event_line(event: StreamEvent) -> Text:
    payload = event.payload if isinstance(event.payload, tuple) else (event.payload,)
    if event.type == MessageType.GIFT and len(payload) >= 7:
        _, user_id, name, gift_id, count, *_ = payload
        line = Text("◆ ", style="bold magenta")
        line.append(f"{plain(str(name or user_id))} ", style="magenta")
        line.append(f"{plain(str(gift_id))} ×{count}", style="bold magenta")
        return line
    text = plain(str(payload[0])) if payload else ""
    return Text.assemble(("▌", "bold yellow"), (text, "bold yellow"))


def lanes_table(accounts: tuple[Account, ...]) -> Table:
    """The five lanes' accounts."""
    table = _table(("lane", *Account._fields))
    for lane, account in zip(Lane, accounts, strict=True):
        style = _LANE_STYLES[lane] if account.admitted else "dim"
        table.add_row(Text(lane.name.lower(), style=style), *map(_number, account))
    return table


def senders_table(snapshot: Snapshot) -> Table:
    """What each group of senders was told."""
    table = _table(("", *_COLUMNS))
    for group, fates in snapshot.senders.items():
        cells = [
            sum(fates.values()) if outcomes is None else sum(fates.get(outcome, 0) for outcome in outcomes)
            for outcomes in _COLUMNS.values()
        ]
        table.add_row(Text(group), *map(_number, cells))
    return table


def _table(columns: tuple[str, ...]) -> Table:
    table = Table.grid(padding=(0, 0, 0, 1), expand=True)
    for name in columns:
        table.add_column(justify="right" if name != columns[0] else "left", no_wrap=True)
    table.add_row(*(Text(name, style="dim") for name in columns))
    return table


def _number(number: int) -> Text:
    return Text(f"{number:,}" if number else "·", style="" if number else "dim")


def _broker_panel(snapshot: Snapshot) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True, min_width=8)
    table.add_column(no_wrap=True)

    def row(name: str, *words: str | tuple[str, str]) -> None:
        table.add_row(name, Text.assemble(*words))

    stage_style = "green" if snapshot.stage == 0 else "yellow" if snapshot.stage < 3 else "red"
    row("viewers", f"{snapshot.tcp} TCP, {snapshot.websocket} WebSocket; {snapshot.online} online")
    row(
        "traffic",
        f"{snapshot.offered_per_s:,.0f} offered/s, ",
        (f"{snapshot.deliveries_per_s:,.0f} delivered/s", "bold"),
    )
    if snapshot.p50_ms is None or snapshot.p99_ms is None:
        row("latency", ("nothing has arrived lately", "dim"))
    else:
        row("latency", f"p50 {snapshot.p50_ms} ms, ", (f"p99 {snapshot.p99_ms} ms", "bold"))
    row(
        "broker",
        f"tick {snapshot.interval_ms} ms, overload stage ",
        (str(snapshot.stage), stage_style),
        f", {snapshot.likes:,} likes",
    )
    if snapshot.cut:
        back = "green" if snapshot.back >= snapshot.cut else "yellow"
        row(
            "wave",
            f"{snapshot.cut} cut, ",
            (f"{snapshot.back} back", back),
            f", {snapshot.recovered} without a gap",
        )
    else:
        row("wave", ("not yet", "dim"))
    row("stalled", *_stalled(snapshot.stalled))
    return table


def _stalled(stalled: StalledState) -> Iterable[str | tuple[str, str]]:
    style = "green" if stalled.is_back else "red" if stalled.was_cut else "yellow" if stalled.queued_frames else ""
    yield stalled.state, style
    if stalled.queued_frames:
        yield f"; {stalled.queued_frames} frames wait"
    if stalled.is_back:
        yield f"; {stalled.events} events late" + ("" if stalled.recovered else ", with a gap")


def progress_line(snapshot: Snapshot) -> str:
    """The picture in one line, for where there is no terminal."""
    p99 = "-" if snapshot.p99_ms is None else f"{snapshot.p99_ms} ms"
    return (
        f"[{snapshot.elapsed_s:5.1f} s] {snapshot.phase}: {snapshot.tcp + snapshot.websocket} viewers, "
        f"{snapshot.offered_per_s:.0f} offered/s, {snapshot.deliveries_per_s:.0f} delivered/s, p99 {p99}, "
        f"stage {snapshot.stage}"
    )
