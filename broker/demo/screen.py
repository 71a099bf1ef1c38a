"""The picture of the show in a terminal: one screen, drawn by rich from a `Picture` and nothing else.

On the left the room as a viewer sees it; on the right what became of everything that was said, by lane and by sender,
and how the house is doing. Every text of the room is shown as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from broker.demo.picture import Picture, Stalled
from protocol.clients.events import Danmaku, Event
from protocol.codes import Lane, MessageType
from protocol.messages import Account
from protocol.text import plain

__all__ = ["MAX_WIDTH", "draw", "lanes_table", "progress_line", "senders_table"]

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


def draw(picture: Picture, width: int = MAX_WIDTH, height: int = 25) -> RenderableType:
    """The whole screen, at most `MAX_WIDTH` columns and ``height`` lines."""
    width = min(width, MAX_WIDTH)
    left = min(SCREEN_WIDTH, max(width // 4, width - RIGHT_WIDTH))
    right = Group(
        Panel(lanes_table(picture.accounts), title="what became of it, by lane", border_style="dim", padding=(0, 1)),
        Panel(senders_table(picture), title="and by sender", border_style="dim", padding=(0, 1)),
        Panel(_house(picture), title="the house", border_style="dim", padding=(0, 1)),
    )
    rows = max(4, min(height - 2, RIGHT_LINES) - 2)
    seen = Panel(
        Group(*_screen(picture.screen, rows, left - 4)),
        title="what a viewer sees",
        border_style="dim",
        width=left,
        height=rows + 2,
    )
    body = Table.grid()
    body.add_column(width=left)
    body.add_column(width=width - left)
    body.add_row(seen, right)
    return Group(_header(picture, width), body)


def _header(picture: Picture, width: int) -> RenderableType:
    title = Text.assemble(
        ("roomcast ", "bold"),
        ("demo", "bold cyan"),
        f"  {min(max(picture.act, 1), picture.acts)}/{picture.acts}  ",
        (picture.phase, "bold"),
    )
    clock = Text(f"{_clock(picture.elapsed_s)} of {_clock(picture.seconds)}", style="dim")
    line = Table.grid()
    line.add_column(width=width - 16)
    line.add_column(width=16, justify="right")
    line.add_row(title, clock)
    done = min(picture.elapsed_s, picture.seconds)
    bar = Table.grid()
    bar.add_row(ProgressBar(total=picture.seconds, completed=done, width=width, complete_style="cyan"))
    return Group(line, bar)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _screen(events: Iterable[Danmaku | Event], rows: int, width: int) -> list[Text]:
    lines = [_line(event, width) for event in events][-rows:]
    return lines or [Text("nobody has said anything yet", style="dim italic")]


def _line(event: Danmaku | Event, width: int) -> Text:
    if isinstance(event, Event):
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


def _event_line(event: Event) -> Text:
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


def senders_table(picture: Picture) -> Table:
    """What each group of senders was told."""
    table = _table(("", *_COLUMNS))
    for group, fates in picture.senders.items():
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


def _house(picture: Picture) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True, min_width=8)
    table.add_column(no_wrap=True)

    def row(name: str, *words: str | tuple[str, str]) -> None:
        table.add_row(name, Text.assemble(*words))

    stage_style = "green" if picture.stage == 0 else "yellow" if picture.stage < 3 else "red"
    row("viewers", f"{picture.tcp} TCP, {picture.websocket} WebSocket; {picture.online} online")
    row(
        "traffic",
        f"{picture.offered_per_s:,.0f} offered/s, ",
        (f"{picture.deliveries_per_s:,.0f} delivered/s", "bold"),
    )
    if picture.p50_ms is None or picture.p99_ms is None:
        row("latency", ("nothing has arrived lately", "dim"))
    else:
        row("latency", f"p50 {picture.p50_ms} ms, ", (f"p99 {picture.p99_ms} ms", "bold"))
    row(
        "broker",
        f"tick {picture.interval_ms} ms, overload stage ",
        (str(picture.stage), stage_style),
        f", {picture.likes:,} likes",
    )
    if picture.cut:
        back = "green" if picture.back >= picture.cut else "yellow"
        row(
            "wave",
            f"{picture.cut} cut, ",
            (f"{picture.back} back", back),
            f", {picture.recovered} without a gap",
        )
    else:
        row("wave", ("not yet", "dim"))
    row("stalled", *_stalled(picture.stalled))
    return table


def _stalled(stalled: Stalled) -> Iterable[str | tuple[str, str]]:
    style = "green" if stalled.is_back else "red" if stalled.was_cut else "yellow" if stalled.queued_frames else ""
    yield stalled.state, style
    if stalled.queued_frames:
        yield f"; {stalled.queued_frames} frames wait"
    if stalled.is_back:
        yield f"; {stalled.events} events late" + ("" if stalled.recovered else ", with a gap")


def progress_line(picture: Picture) -> str:
    """The picture in one line, for where there is no terminal."""
    p99 = "-" if picture.p99_ms is None else f"{picture.p99_ms} ms"
    return (
        f"[{picture.elapsed_s:5.1f} s] {picture.phase}: {picture.tcp + picture.websocket} viewers, "
        f"{picture.offered_per_s:.0f} offered/s, {picture.deliveries_per_s:.0f} delivered/s, p99 {p99}, "
        f"stage {picture.stage}"
    )
