"""``roomcast tail``: print what happens in a room, line by line.

It prints what a viewer's screen would show: danmaku with their counts, events of lanes 0 to 2, counters when they
change. It also prints what was not shown: the account of a tick that dropped something, gaps, lost links. ``--json``
prints the same as one object a line, for scripts.

The client reconnects a broken link for as long as the command runs; only the first attempt must succeed at once.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from math import inf
from typing import Any

import click
import trio

from broker.cli.client import client_options, connected_client, join_room, run_command
from protocol import json_values
from protocol.activities import ActivityEvent
from protocol.activities.moderation import Hint
from protocol.clients.events import (
    ActivityCounters,
    ClientClosed,
    ClientEvent,
    Connected,
    Danmaku,
    Direct,
    Disconnected,
    Fault,
    Gap,
    MessagesMissed,
    Pulse,
    RecentJoin,
    Rejoined,
    RoomEvent,
    RoomLeft,
    RoomRefused,
    State,
    StreamEvent,
    TickAccount,
    TopLiker,
)
from protocol.codes import CloseCode, KeyCause, Lane, LeaveReason, MessageType, Role, RoomPhase, Tier
from protocol.messages import Account, Joined, PinnedMessage
from protocol.payloads import (
    PAYLOAD_KINDS,
    AnnouncementPayload,
    DeletedPayload,
    GiftPayload,
    HighlightPayload,
    KeyChange,
    KeysPayload,
    MediaPayload,
    PhasePayload,
    PinsPayload,
)
from protocol.text import plain

__all__ = ["EventPrinter", "as_json", "tail"]

_REMOVED = frozenset({LeaveReason.KICKED, LeaveReason.BANNED, LeaveReason.NOT_GRANTED})
"""The command ends by them, with exit status 1; by the end of the room, with 0."""
TailEvent = RoomEvent | ClientEvent | Joined
"""Everything that the command prints."""


@click.command("tail")
@click.argument("room")
@client_options
@click.option(
    "--tier",
    type=click.Choice([str(int(tier)) for tier in Tier]),
    default=str(int(Tier.FULL)),
    show_default=True,
    help="Tier: most danmaku a second.",
)
@click.option("--json", "as_objects", is_flag=True, help="One JSON object a line.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=inf, help="End after this time.")
def tail(room: str, url: str, token: str | None, ca: str | None, tier: str, as_objects: bool, seconds: float) -> None:
    """Print the messages of ROOM until Ctrl-C. Without a token it joins as a guest, if the broker admits guests.

    A line has the local time and a mark: none for danmaku, ** announcement or phase, $$ gift, * other event, -> direct
    message, ++ users joined, -- link, room and counters, .. danmaku not shown, !! missed, refused or disconnected.
    """
    print_event = _json_printer(room) if as_objects else EventPrinter(room).print
    run_command(partial(_watch, room, url, token, ca, Tier(int(tier)), seconds, print_event))


async def _watch(
    room_name: str,
    url: str,
    token: str | None,
    ca: str | None,
    tier: Tier,
    seconds: float,
    print_event: Callable[[TailEvent], None],
) -> None:
    with trio.move_on_after(seconds) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signal, scope)
            async with connected_client(url, token, ca) as (client, events):
                room = await join_room(client, room_name, tier)
                if room.snapshot is not None:
                    print_event(room.snapshot)
                nursery.start_soon(_print_all, events, print_event)
                try:
                    async for event in room:
                        print_event(event)
                        if isinstance(event, RoomLeft) and event.reason in _REMOVED:
                            raise click.ClickException(
                                f"room {room_name}: {event.reason.name.lower().replace('_', ' ')}"
                            )
                except ClientClosed as closed:
                    raise click.ClickException(f"the broker closed the link: {plain(closed.reason)}") from closed
                except RoomRefused as refused:
                    raise click.ClickException(f"room {room_name}: {plain(refused.message)}") from refused
            nursery.cancel_scope.cancel()


async def _print_all(events: Any, print_event: Callable[[TailEvent], None]) -> None:
    # Any: an asynchronous iterator of ClientEvent.
    async for event in events:
        print_event(event)


async def _end_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


# ---- as JSON


_JSON_NAMES: dict[type, str] = {
    Joined: "snapshot",
    MessagesMissed: "missed",
    RoomLeft: "left",
    StreamEvent: "event",
}
"""Names in JSON that are not those of the class; scripts depend on them."""


def as_json(event: TailEvent) -> dict[str, Any]:
    """Return one event as an object: its kind under ``event``, then its fields; enums by name, accounts by lane.

    Any: the payload of an event is what the wire contained.
    """
    kind = type(event)
    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind.__name__).lstrip("_")
    name = _JSON_NAMES.get(kind, words)
    fields = {key: _plain_json(value) for key, value in event._asdict().items()}
    if isinstance(event, Danmaku):
        fields["text"] = event.text
    if isinstance(event, State):
        fields["accounts"] = {
            lane.name.lower(): account._asdict() for lane, account in zip(Lane, event.accounts, strict=False)
        }
    return {"event": name, **fields}


_PAYLOADS = frozenset({*PAYLOAD_KINDS.values(), RecentJoin, TopLiker})
"""Records that are arrays in JSON, as on the wire and in `roomcast ledger export`."""


def _plain_json(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, bytes):
        return value.hex()
    if type(value) in _PAYLOADS:
        return [_plain_json(each) for each in value]
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _plain_json(each) for key, each in value._asdict().items()}
    if isinstance(value, (tuple, list)):
        return [_plain_json(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain_json(each) for key, each in value.items()}
    return value


def _json_printer(room: str) -> Callable[[TailEvent], None]:
    def print_json(event: TailEvent) -> None:
        click.echo(json.dumps({"room": room, **as_json(event)}, ensure_ascii=False))

    return print_json


# ---- as text


class EventPrinter:
    """Printer of events as lines of text; counters are printed only when they change."""

    def __init__(self, room: str, echo: Callable[[str], object] = click.echo) -> None:
        self._room = room
        self._echo = echo
        self._counters: tuple[int, ...] = ()

    def print(self, event: TailEvent) -> None:
        """Print the lines of ``event``, which may be none."""
        for mark, text, style in self.lines(event):
            clock = click.style(time.strftime("%H:%M:%S"), dim=True)
            self._echo(f"{clock} {click.style(f'{mark:2} {text}', **style)}")

    def lines(self, event: TailEvent) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield (mark, text, style) of each line. Any: keywords of click.style."""
        match event:
            case Joined():
                yield from self._on_joined(event)
            case Danmaku():
                yield "  ", _danmaku(event), {}
            case StreamEvent():
                yield _event(event)
            case State():
                yield from self._on_state(event)
            case TickAccount(account=account):
                lost = _lost(account)
                if lost:
                    yield "..", lost, {"dim": True}
            case MessagesMissed(chat, _, is_local):
                if chat:
                    who = "this terminal" if is_local else "this link"
                    yield "!!", f"{who} is too slow: missed {chat} danmaku", {"fg": "yellow"}
            case Gap(first, last, epoch_changed):
                if epoch_changed:
                    yield "!!", "the room started a new stream; earlier events are lost", {"fg": "yellow"}
                elif last >= first:
                    yield "!!", f"missed {last - first + 1} events ({first} to {last})", {"fg": "yellow"}
            case Rejoined(snapshot, recovered):
                missed = "no gift or announcement was missed" if recovered else "messages in between are lost"
                yield "--", f"rejoined {self._room}, {missed}; {_people(snapshot)}", {"fg": "green"}
            case RoomLeft(reason, message, is_final):
                text = reason.name.lower().replace("_", " ") + (f": {plain(message)}" if message else "")
                yield "!!", text + ("" if is_final else "; joining again"), {"fg": "yellow"}
            case Disconnected(code, reason, retry_in_s):
                word = CloseCode(code).name.lower().replace("_", " ") if code in _CODES else str(code or "link lost")
                again = "" if retry_in_s is None else f"; trying again in {retry_in_s:.1f} s"
                yield "!!", f"{word}: {plain(reason)}{again}", {"fg": "yellow"}
            case Connected(user_id):
                yield "--", f"connected as {plain(user_id)}", {"fg": "green"}
            case Fault(code, message):
                yield "!!", f"refused ({code}): {plain(message)}", {"fg": "yellow"}
            case Direct(_, _, _, AnnouncementPayload(text)):
                yield "->", f"direct message: {plain(' / '.join(text.splitlines()))}", {"fg": "cyan", "bold": True}
            case Direct(_, _, _, ActivityEvent()):
                yield "->", f"direct message: {_activity(event.payload)}", {"fg": "cyan", "bold": True}
            case Direct(_, type, _, payload):
                yield "->", f"direct message, type {type}: {plain(str(payload))}", {"fg": "cyan"}
            case ActivityCounters(_, _, _, Hint(rule, text)):
                yield "->", f"hint {rule}: {plain(text)}", {"fg": "cyan"}
            case Pulse():
                pass

    def _on_joined(self, joined: Joined) -> Iterator[tuple[str, str, dict[str, Any]]]:
        self._counters = (joined.online, joined.users, joined.likes, 0)
        role = joined.role.name.lower()
        yield "--", f"joined {self._room} as {role}; {_people(joined)}, {joined.likes} likes", {"fg": "green"}
        if joined.phase is not RoomPhase.LIVE:
            yield "--", f"the room is {joined.phase.name.lower()}", {"fg": "yellow"}
        for type, user_id, name, payload, count, senders, sender_role in joined.recent:
            line = _danmaku(Danmaku(type, user_id, name, payload, count, senders, 0, 0, sender_role))
            yield "  ", line, {"dim": True}
        if joined.pinned:
            yield _pins(joined.pinned)
        if joined.keys:
            values = ", ".join(f"{plain(key.name)} = {_value(key.value)}" for key in joined.keys)
            more = f", and {joined.keys_more} more" if joined.keys_more else ""
            yield "* ", f"keys: {values}{more}", {"fg": "cyan"}

    def _on_state(self, state: State) -> Iterator[tuple[str, str, dict[str, Any]]]:
        counters = (state.online, state.users, state.likes, state.stage)
        if state.joins:
            names = ", ".join(plain(name or user_id) for user_id, name in state.joins)
            more = f" and {state.joins_more} more" if state.joins_more else ""
            yield "++", f"{names}{more} joined", {"dim": True}
        if counters != self._counters:
            self._counters = counters
            stage = f", overload stage {state.stage}" if state.stage else ""
            yield "--", f"{_people(state)}, {state.likes} likes{stage}", {"dim": True}


_CODES = frozenset(int(code) for code in CloseCode)


def _people(counters: Joined | State) -> str:
    return f"{counters.online} online, {counters.users} users"


def _danmaku(item: Danmaku) -> str:
    times = f"  x{item.count}" if item.count > 1 else ""
    if item.type == MessageType.DANMAKU:
        text = plain(item.text)
    elif item.type == MessageType.EMOTE:
        text = f"[{plain(item.text)}]"
    else:
        text = f"type {item.type}: {plain(str(item.payload))}"
    role = f" ({item.role.name.lower()})" if item.role >= Role.MODERATOR else ""
    return f"{plain(item.name or item.user_id)}{role}: {text}{times}"


def _gift(gift: GiftPayload) -> str:
    giver, name = plain(gift.name or gift.user_id), plain(gift.gift_id)
    if not gift.count:
        return f"{giver} ended a combo of {name} x{gift.total}"
    to = f" to {plain(gift.target)}" if gift.target else ""
    combo = f" (combo x{gift.total})" if gift.seq > 1 else ""
    return f"{giver} gave {name} x{gift.count}{to}, {gift.count * gift.price_cents / 100:.2f}{combo}"


def _highlight(highlight: HighlightPayload) -> str:
    who = plain(highlight.name or highlight.user_id)
    return f"{who} paid {highlight.cents / 100:.2f}: {plain(highlight.text) or '(deleted)'}"


def _activity(event: ActivityEvent) -> str:
    return plain(
        " ".join(filter(None, (event.name, event.id, json.dumps(json_values.as_json(event.data), ensure_ascii=False))))
    )


def _event(event: StreamEvent) -> tuple[str, str, dict[str, Any]]:
    match event.payload:
        case AnnouncementPayload(text):
            return "**", plain(" / ".join(text.splitlines())), {"fg": "yellow", "bold": True}
        case GiftPayload():
            return "$$", _gift(event.payload), {"fg": "magenta", "bold": True}
        case HighlightPayload():
            return "$$", _highlight(event.payload), {"fg": "magenta", "bold": True}
        case PhasePayload(phase):
            return "**", f"the room is {phase.name.lower()} now", {"fg": "yellow", "bold": True}
        case MediaPayload(url, kind, _, _, caption):
            what = f"{kind.name.lower()} {plain(url)}" + (f" {plain(caption)}" if caption else "")
            return "* ", what, {"fg": "cyan"}
        case PinsPayload(pinned):
            return _pins(pinned)
        case DeletedPayload():
            return "* ", _deleted(event.payload), {"fg": "cyan"}
        case ActivityEvent():
            return "* ", _activity(event.payload), {"fg": "cyan"}
        case KeysPayload(changes):
            return "* ", "keys: " + ", ".join(map(_key_change, changes)), {"fg": "cyan"}
    who = plain(event.name or event.user_id)
    return "* ", f"{event.lane.name.lower()} type {event.type} of {who}: {plain(str(event.payload))}", {"fg": "cyan"}


def _pins(pinned: tuple[PinnedMessage, ...]) -> tuple[str, str, dict[str, Any]]:
    ids = ", ".join(plain(each.id) for each in pinned)
    return "* ", f"pinned messages: {ids or 'none'}", {"fg": "cyan"}


def _deleted(deleted: DeletedPayload) -> str:
    reason = f": {plain(deleted.reason)}" if deleted.reason else ""
    if deleted.offsets:
        return f"deleted events {', '.join(map(str, deleted.offsets))}{reason}"
    whose = f"messages of {plain(deleted.user_id)}" if deleted.user_id else "messages"
    since = time.strftime(" after %H:%M:%S", time.localtime(deleted.after_ms / 1000)) if deleted.after_ms else ""
    return f"deleted {whose}{since}{reason}"


def _key_change(change: KeyChange) -> str:
    if change.cause is KeyCause.SET:
        return f"{plain(change.name)} = {_value(change.value)}"
    return f"{plain(change.name)} {change.cause.name.lower().replace('_', ' ')}"


def _value(value: Any) -> str:
    """Return the value of a key, which is any JSON (Any), as text for a terminal."""
    return plain(json.dumps(_plain_json(value), ensure_ascii=False))


def _lost(account: Account) -> str:
    """Describe what a tick did not show; "" if it showed everything."""
    parts = [
        f"{count} {what}"
        for count, what in ((account.sampled, "sampled out"), (account.expired, "expired"), (account.held, "held"))
        if count
    ]
    if not parts:
        return ""
    merged = f" ({account.merged} merged)" if account.merged else ""
    return f"of {account.admitted} danmaku: {account.shown} shown{merged}, {', '.join(parts)}"
