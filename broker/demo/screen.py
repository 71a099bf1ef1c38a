"""Terminal screen of the demo: drawn by rich from a `Snapshot` and nothing else.

On the left the room as a viewer sees it; on the right the outcomes of all messages by lane and by sender, and the
state of the broker. The screen fits 80 columns and 24 lines; from 26 lines on its parts have boxes. Texts of the room
are shown as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from broker.demo.users import StalledState
from protocol.clients.events import Danmaku, StreamEvent
from protocol.codes import Lane
from protocol.messages import Account
from protocol.payloads import AnnouncementPayload, GiftPayload, HighlightPayload
from protocol.text import plain

__all__ = ["MAX_WIDTH", "Snapshot", "draw", "lanes_table", "progress_line", "senders_table"]

MAX_WIDTH = 100
SCREEN_WIDTH = 36
RIGHT_WIDTH = 60
"""The tables' least width with numbers of five digits."""
HEADER_LINES = 2
BODY_LINES = 21
"""Height of the three tables on the right, each with a title line."""
BOXED_LINES = BODY_LINES + 3
"""The same with boxes around the tables."""
_LANE_STYLES = {
    Lane.CONTROL: "yellow",
    Lane.COMMERCE: "yellow",
    Lane.PAID: "magenta",
    Lane.CHAT: "cyan",
    Lane.AMBIENT: "blue",
}
_COLUMNS = {
    "posted": None,
    "shown": ("accepted",),
    "merged": ("merged",),
    "sampled": ("sampled_out",),
    "expired": ("expired",),
    "limited": ("limited",),
    "refused": ("rejected", "held", "unknown"),
}
"""Columns of the senders' table and the outcomes that each one sums; None = all."""


class Snapshot(NamedTuple):
    """State of the demo at one moment. Counts are totals since the start, except those that end in ``_per_s``."""

    status: str
    """Title of the phase, or what happens before and after the phases."""
    phase_number: int
    """Number of the phase, from 1; 0 before the first, above ``phases`` after the last."""
    phases: int
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
    """Of the last seconds: from the creation of a tick or event to its arrival."""
    interval_ms: int
    stage: int
    likes: int
    """Likes counted; one message carries several."""
    gifts: int
    """Gifts in accepted orders; one order (one message) carries several."""
    gift_messages: int
    cut: int
    back: int
    recovered: int
    stalled: StalledState
    accounts: tuple[Account, ...] = (Account(),) * len(Lane)
    senders: Mapping[str, Mapping[str, int]] = {}
    """Messages by group of senders and outcome, without likes."""
    screen: tuple[Danmaku | StreamEvent, ...] = ()
    """The latest last."""
    pages: tuple[str, ...] = ()
    """Addresses for a browser."""


def draw(snapshot: Snapshot, width: int = MAX_WIDTH, height: int = HEADER_LINES + BOXED_LINES) -> RenderableType:
    """Return the whole screen, at most `MAX_WIDTH` columns and ``height`` lines (from 23 on)."""
    width = min(width, MAX_WIDTH)
    left = min(SCREEN_WIDTH, max(width // 4, width - RIGHT_WIDTH))
    addresses = _pages(snapshot, width)
    head = HEADER_LINES + len(addresses)
    is_boxed = height >= head + BOXED_LINES
    tables = Group(
        _part("messages by lane", lanes_table(snapshot.accounts), is_boxed),
        _part("messages by sender", senders_table(snapshot), is_boxed),
        _part("the broker", _broker_table(snapshot), is_boxed),
    )
    lines = max(6, min(height - head, BOXED_LINES if is_boxed else BODY_LINES))
    rows = lines - (2 if is_boxed else 1)
    seen = Group(*_screen(snapshot.screen, rows, left - (4 if is_boxed else 1)))
    body = Table.grid()
    body.add_column(width=left)
    body.add_column(width=width - left)
    body.add_row(_part("viewer's screen", seen, is_boxed, lines if is_boxed else None), tables)
    return Group(_header(snapshot, width), *addresses, body)


def _pages(snapshot: Snapshot, width: int) -> list[Text]:
    """Return the line of addresses for a browser."""
    if not snapshot.pages:
        return []
    room, host, console = snapshot.pages
    line = Text(f"{room}  {host[host.index('/host/') :]}  {console}", style="cyan", no_wrap=True)
    line.truncate(width, overflow="ellipsis")
    return [line]


def _part(title: str, content: RenderableType, is_boxed: bool, height: int | None = None) -> RenderableType:
    """Return ``content`` with its title, in a box or below a line."""
    if is_boxed:
        return Panel(content, title=title, border_style="dim", padding=(0, 1), height=height)
    return Group(Rule(title, style="dim"), content)


def _header(snapshot: Snapshot, width: int) -> RenderableType:
    title = Text.assemble(
        ("roomcast ", "bold"),
        ("demo", "bold cyan"),
        f"  {min(max(snapshot.phase_number, 1), snapshot.phases)}/{snapshot.phases}  ",
        (snapshot.status, "bold"),
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
    return lines or [Text("no messages yet", style="dim italic")]


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
    payload = event.payload
    if isinstance(payload, GiftPayload):
        line = Text("◆ ", style="bold magenta")
        line.append(f"{plain(payload.name or payload.user_id)} ", style="magenta")
        line.append(f"{plain(payload.gift_id)} ×{payload.count}", style="bold magenta")
        if payload.seq > 1:
            line.append(f"  combo {payload.total}", style="magenta")
        return line
    if isinstance(payload, HighlightPayload):
        line = Text("★ ", style="bold magenta")
        line.append(f"{plain(payload.name or payload.user_id)} {payload.cents / 100:.2f}  ", style="magenta")
        line.append(plain(payload.text), style="bold")
        return line
    text = plain(payload.text if isinstance(payload, AnnouncementPayload) else str(payload))
    return Text.assemble(("▌", "bold yellow"), (text, "bold yellow"))


def lanes_table(accounts: tuple[Account, ...]) -> Table:
    """Return the accounts of the five lanes, in messages."""
    table = _table(("lane", *Account._fields))
    for lane, account in zip(Lane, accounts, strict=True):
        style = _LANE_STYLES[lane] if account.admitted else "dim"
        table.add_row(Text(lane.name.lower(), style=style), *map(_number, account))
    return table


def senders_table(snapshot: Snapshot) -> Table:
    """Return the outcomes that each group of senders received, in messages."""
    table = _table(("sender", *_COLUMNS))
    for group, counts in snapshot.senders.items():
        cells = [
            sum(counts.values()) if outcomes is None else sum(counts.get(outcome, 0) for outcome in outcomes)
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


def _broker_table(snapshot: Snapshot) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True, min_width=8)
    table.add_column(no_wrap=True)

    def row(name: str, *texts: str | tuple[str, str]) -> None:
        table.add_row(name, Text.assemble(*texts))

    stage_style = "green" if snapshot.stage == 0 else "yellow" if snapshot.stage < 3 else "red"
    row("viewers", f"{snapshot.tcp} TCP, {snapshot.websocket} WebSocket; {snapshot.online} online")
    row(
        "traffic",
        f"{snapshot.offered_per_s:,.0f} offered/s, ",
        (f"{snapshot.deliveries_per_s:,.0f} delivered/s", "bold"),
    )
    if snapshot.p50_ms is None or snapshot.p99_ms is None:
        row("latency", ("no messages in the last 3 s", "dim"))
    else:
        row("latency", f"p50 {snapshot.p50_ms} ms, ", (f"p99 {snapshot.p99_ms} ms", "bold"))
    row(
        "broker",
        f"tick {snapshot.interval_ms} ms, overload stage ",
        (str(snapshot.stage), stage_style),
    )
    row("totals", f"{snapshot.gifts:,} gifts in {snapshot.gift_messages:,} messages, {snapshot.likes:,} likes")
    if snapshot.cut:
        back = "green" if snapshot.back >= snapshot.cut else "yellow"
        row(
            "wave",
            f"{snapshot.cut} cut, ",
            (f"{snapshot.back} back", back),
            f", {snapshot.recovered} without a gap",
        )
    else:
        row("wave", ("no links cut yet", "dim"))
    row("stalled", *_stalled(snapshot.stalled))
    return table


def _stalled(stalled: StalledState) -> Iterable[str | tuple[str, str]]:
    style = "green" if stalled.is_back else "red" if stalled.was_cut else "yellow" if stalled.queued_frames else ""
    yield stalled.state, style
    if stalled.queued_frames:
        yield f"; {stalled.queued_frames} frames queued"
    if stalled.is_back:
        yield f"; {stalled.events} events replayed" + ("" if stalled.recovered else ", with a gap")


def progress_line(snapshot: Snapshot) -> str:
    """Return the state in one line, where there is no terminal to draw on."""
    p99 = "-" if snapshot.p99_ms is None else f"{snapshot.p99_ms} ms"
    return (
        f"[{snapshot.elapsed_s:5.1f} s] {snapshot.status}: {snapshot.tcp + snapshot.websocket} viewers, "
        f"{snapshot.offered_per_s:.0f} messages/s offered, {snapshot.deliveries_per_s:.0f} messages/s delivered, "
        f"p99 {p99}, overload stage {snapshot.stage}"
    )
