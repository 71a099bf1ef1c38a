"""Histories of a user who is erased, beside one who is not, and what must be left of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from hypothesis import strategies as st

from broker.core.commerce.room_activities import RoomActivities
from broker.ledger import Reader
from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.codes import ErrorCode, LeaveReason, MessageType, Role, RoomPhase
from protocol.frames import pack_body
from protocol.operations import BY_NAME
from protocol.operations.users import ErasureState
from tests.support.activities import strings_in
from tests.support.broker import running_broker
from tests.support.durable import DurableBroker
from tests.support.operating import operate
from tests.support.tenants import backend
from tests.support.until import until
from tests.support.webhooks import hook_settings

VICTIM, OTHER = 'víc"tor', "bob"
MARKS = (VICTIM, "víc", "Vic the Great", "secret")
"""Whatever names the user who is erased, or was written by it."""
ROOMS = ("live-1", "live-2", "closed")

Step = tuple[str, str, str, int]
"""What is done, by or for which user, in which room, and a number."""
KINDS = (
    "announce", "media", "custom", "gift", "order", "target", "danmaku", "preference", "tags", "key",
    "foreign_key", "direct", "pin", "pin_own", "highlight", "delete", "phase", "revoke", "keyed", "like",
    "activities", "ban", "conversation",
)  # fmt: skip
steps = st.tuples(st.sampled_from(KINDS), st.sampled_from([VICTIM, OTHER]), st.sampled_from(ROOMS), st.integers(0, 3))
histories = st.lists(steps, min_size=1, max_size=12)

EVERYTHING: Sequence[Step] = [
    (kind, user, room, 1) for kind in KINDS for user in (OTHER, VICTIM) for room in ROOMS[::2]
]


@asynccontextmanager
async def erasing_broker(directory: Path, kind: type[Broker] = DurableBroker, **ledger: Any) -> AsyncIterator[Broker]:
    """Run a broker whose webhooks wait, as nothing takes them. ``ledger``: more settings of it."""
    webhooks = hook_settings(directory.parent, "http://127.0.0.1:9/hook")
    types = [{"id": 200, "name": "note", "lane": "commerce"}]
    ledger = {"data_dir": str(directory), **ledger}
    async with running_broker(
        kind=kind, ledger=ledger, webhooks=webhooks, types=types, tenants=[{"name": "acme"}]
    ) as broker:
        yield broker


async def populate(broker: Broker, history: Sequence[Step], *, closes: bool = True) -> None:
    """Do what a history says; the room "closed" is closed, not ended, at its end."""
    for room in ROOMS:
        await operate(broker, "rooms.open", room)
    async with trio.open_nursery() as reports:
        for number, step in enumerate(history):
            await _do(broker, reports, *step, f"{number}")
    if closes:
        closed = broker.hub.find("closed")
        assert closed is not None
        closed.end(LeaveReason.ROOM_IDLE)
        await until(lambda: broker.hub.find("closed") is None)
    assert broker.ledger is not None
    await broker.ledger.flush()


async def _do(broker: Broker, reports: trio.Nursery, kind: str, user: str, room: str, number: int, unique: str) -> None:
    is_victim = user == VICTIM
    name, text = ("Vic the Great", f"secret {unique}") if is_victim else ("Bob", f"hello {unique}")
    publish = "messages.publish"
    match kind:
        case "announce":
            await operate(broker, publish, room, int(MessageType.ANNOUNCEMENT), [text], "", user, name)
        case "media":
            medium = f"https://example.com/{text.split()[0]}.png", 1, 10, "ab" * 32, text
            await operate(broker, publish, room, int(MessageType.MEDIA), medium, "", user, name)
        case "custom":
            await operate(broker, publish, room, 200, {"text": text, "n": number}, "", user, name)
        case "gift":
            gift = f"order {unique}", user, name, "rose", 1 + number, 100, ""
            await operate(broker, publish, room, int(MessageType.GIFT), gift)
        case "order":
            gift = f"order {unique}", user, name, "rose", 1 + number, 100, ""
            await operate(broker, publish, room, int(MessageType.GIFT), gift, "", user, name)
        case "highlight":
            highlight = f"order {unique}", user, name, text, 2_000
            await operate(broker, publish, room, int(MessageType.HIGHLIGHT), highlight, "", user, name)
        case "target":
            gift = f"order {unique}", "carl", "Carl", "rose", 1 + number, 100, user
            await operate(broker, publish, room, int(MessageType.GIFT), gift)
        case "like":
            await operate(broker, publish, room, int(MessageType.LIKE), [1 + number], "", user, name)
        case "danmaku":
            await operate(broker, publish, room, int(MessageType.DANMAKU), [text], "", user, name)
        case "preference":
            await operate(broker, "users.set_preferences", user, False, None, "hidden")
        case "tags":
            await operate(broker, "users.set_tags", user, [text])
        case "ban":
            await operate(broker, "users.kick", room, user, text, 600)
        case "key":
            await operate(broker, "keys.set", room, f"{user}:{number}", {"of": text}, None, None, user)
        case "foreign_key":
            await operate(broker, "keys.set", room, f"key {number}", number)
        case "direct":
            await operate(broker, "directs.send", user, 4, [f"{text} for {user}"])
        case "pin":
            await operate(broker, "messages.pin", room, f"pin {number % 2}", None, 4, [text], None, user, name)
        case "pin_own":
            sent = await operate(broker, publish, room, int(MessageType.ANNOUNCEMENT), [text], "", user, name)
            await operate(broker, "messages.pin", room, f"pin {number % 2}", sent.offset)
        case "delete":
            await operate(broker, "messages.delete", room, None, user, None, f"about {text}")
        case "phase":
            await operate(broker, "rooms.set_phase", room, int(RoomPhase.PAUSED if number % 2 else RoomPhase.LIVE))
        case "revoke":
            await operate(broker, "users.revoke", user)
        case "conversation":
            users = (VICTIM, OTHER)
            await operate(broker, "conversations.create", f"talk {unique}", "Tea", users)
            fields = (f"talk {unique}", text, None, 0, tuple(each for each in users if each != user), user)
            await operate(broker, "conversations.send", *fields, key=f"talk {unique}")
        case "activities":
            await take_part(broker, reports, room, user, name, unique)
        case "keyed":
            await operate(
                broker, "messages.pin", room, f"pin {number % 2}", None, 4, [text], None, user, name, key=f"k{unique}"
            )


async def take_part(broker: Broker, reports: trio.Nursery, room: str, user: str, shown_name: str, id: str) -> None:
    """Begin an activity of every kind that knows users, in which the user and another one take part.

    Reports of clicks are answered a second later, when they are durable: ``reports`` waits for them.
    """

    other = f"carl {id}"
    number_of = {"": 0, user: 1, other: 2}

    async def ask(by: str, name: str, /, *, key: bool = True, **fields: Any) -> None:
        caller = caller_of(by, f"{number_of[by]} {id}" if key else "")
        try:
            await broker.operations.call(caller, BY_NAME[name], {"room": room} | fields)
        except OperationError as error:
            if error.code not in (ErrorCode.RATE_LIMITED, ErrorCode.BANNED):
                raise

    def caller_of(by: str, key: str) -> Caller:
        if not by:
            return backend("", key, f"shop-{id}")
        shown = shown_name if by == user else by
        role = Role.HOST if by == user else Role.VIEWER
        return Caller(by, shown, "10.0.0.1", lambda room: role, frozenset({role}), key=key, joined_at_ms=lambda room: 1)

    await operate(broker, "rooms.set_phase", room, int(RoomPhase.LIVE))
    now_ms = broker.clock.now_ms()
    later_ms = now_ms + 3_600_000
    sale = {"sku": "mug", "stock": 50, "price_cents": 100, "open_at_ms": now_ms, "close_at_ms": later_ms}
    windows = {"first_window_ms": 0, "window_ms": 0, "reserve_ms": 600_000}  # no reservation ends meanwhile
    await ask("", "sales.create", id=id, key=False, **sale, **windows)
    await ask("", "packets.create", id=id, order_id=id, total_cents=1000, count=5)
    await ask("", "coupons.create", id=id, count=5)
    await ask("", "polls.create", id=id, key=False, title="?", options=["a", "b"])
    await ask("", "quizzes.create", id=id, key=False, title="?", prize_cents=0)
    asked = {"title": "?", "options": ["a", "b"], "close_at_ms": later_ms, "answer_hash": "0" * 64}
    await ask("", "quizzes.ask", id=id, key=False, number=1, **asked)
    await ask("", "mic.set_seats", key=False, seats=3)
    await ask("", "products.put", key=False, id=id, version=1, title="Mug", price_cents=100, position=1)
    await ask("", "audiences.define", key=False, tags=[{"name": "fans", "follow": True}])
    await ask("", "audiences.set_tags", key=False, users=[user, other], tags=["fans"])
    await ask(user, "products.explain", id=id)
    plan = {"operation": "rooms.set_phase", "request": {"room": room, "phase": "paused"}, "at_ms": later_ms}
    await ask(user, "schedules.create", key=False, id=id, **plan)
    said = {
        "room": room,
        "type": 4,
        "payload": ["a secret" if user == VICTIM else "hi"],
        "as_user": user,
        "name": shown_name,
    }
    for number, request in enumerate((said, said | {"payload": ["of", user], "as_user": None})):
        plan = {"operation": "messages.publish", "request": request, "at_ms": later_ms}
        await ask("", "schedules.create", key=False, id=f"{id}-{number}", **plan)
    for by in (user, other):
        await ask(by, "sales.claim", id=id)
        await ask(by, "packets.grab", id=id)
        await ask(by, "coupons.claim", id=id)
        await ask(by, "polls.vote", id=id, options=[1])
        await ask(by, "quizzes.answer", id=id, number=1, option=0)
        await ask(by, "mic.request", key=False)
        await ask(by, "audiences.follow", key=False, follows=True)
        await ask(by, "audiences.share", channel="wechat")
        report = partial(ask, by, "products.report_clicks", key=False, id=id, clicks=2, report=int(now_ms))
        reports.start_soon(report)


async def erase(broker: Broker, user: str = VICTIM, tenant: str = "") -> Any:
    """Erase a user and return the state of the job at its end."""
    started = await operate(broker, "users.erase", user, user, tenant=tenant)
    await finished(broker)
    state = await operate(broker, "users.erase_state", started.job, tenant=tenant)
    assert state.state is ErasureState.DONE
    return state


async def finished(broker: Broker) -> None:
    """Wait for the end of all erasures."""
    assert broker.erasures is not None
    await until(lambda: broker.erasures is not None and not broker.erasures.unfinished)


def marks_in(data: bytes) -> list[bytes]:
    """Return what is left of the erased user in bytes, with what is around it."""
    found = []
    for mark in MARKS:
        for form in {mark.encode(), json.dumps(mark, ensure_ascii=False)[1:-1].encode()}:
            place = data.find(form)
            if place >= 0:
                found.append(data[max(0, place - 60) : place + 60])
    return found


def marks_in_files(directory: Path) -> list[bytes]:
    """Return what is left of the erased user in any file below a directory, byte by byte; each with its file."""
    return [
        path.name.encode() + b": " + found
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        for found in marks_in(path.read_bytes())
    ]


def all_activities(broker: Broker) -> Iterator[RoomActivities[Any]]:
    """Yield the activities of every room, open or not."""
    assert broker.room_store is not None
    kept = [broker.room_store.find(name) for name in broker.room_store.names()]
    found = [room.state.activities.activities for room in broker.hub]
    for activities in (*found, *(each and each.activities for each in kept)):
        if activities is not None:
            yield activities


def amounts_of(broker: Broker) -> Counter[tuple[str, str]]:
    """Return money, units and codes of all activities by kind and state."""
    return sum((activities.amounts() for activities in all_activities(broker)), Counter())


def marks_in_memory(broker: Broker) -> list[bytes]:
    """Return what is left of the erased user in what rooms give to those who join or come back."""
    found = []
    for room in broker.hub:
        state = room.state
        events = state.events_since(state.epoch, state.first_offset - 1, trio.current_time())
        found += marks_in(
            pack_body((tuple(events or ()), state.totals(), state.kept.snapshot(), state.keys.snapshot()))
        )
    assert broker.room_store is not None
    for name in broker.room_store.names():
        checkpoint = broker.room_store.find(name)
        assert checkpoint is not None
        found += marks_in(pack_body((checkpoint.totals, tuple(checkpoint.events), checkpoint.keys)))
    for each in all_activities(broker):
        found += [text.encode() for text in strings_in(each, "activities") if marks_in(text.encode())]
    assert broker.inboxes is not None
    found += [user.encode() for user in broker.inboxes.pending_users if user == VICTIM]
    return found


def is_foreign(values: Sequence[Any]) -> bool:
    return not marks_in(pack_body(tuple(values)))


_OUTBOX = "SELECT id, endpoint, line, topic, number, at_ms, body FROM outbox ORDER BY id"
"""What no attempt to deliver a row changes."""


class Untouched:
    """What the ledger has of everything but the erased user."""

    def __init__(self, reader: Reader) -> None:
        reader.verify_all()
        self.entries = {entry.seq: (entry, hashed) for entry, _, hashed, _ in reader.entries() if is_foreign(entry)}
        self.hashes = [hashed for _, _, hashed, _ in reader.entries()]
        rows = reader.connection.execute
        directs = rows("SELECT * FROM directs WHERE user <> ? ORDER BY id", (VICTIM,)).fetchall()
        self.directs = [row for row in directs if is_foreign(row)]
        self.inboxes = rows("SELECT * FROM inboxes WHERE user <> ? ORDER BY user", (VICTIM,)).fetchall()
        self.keys = rows("SELECT digest, fingerprint, outcome, offset FROM keys ORDER BY digest").fetchall()
        self.records = [row for row in rows("SELECT * FROM records").fetchall() if is_foreign(row)]
        self.outbox = [row for row in rows(_OUTBOX).fetchall() if is_foreign(row)]
        reports = rows("SELECT topic, count(*) FROM outbox WHERE topic = 'gift.accepted' GROUP BY topic").fetchall()
        self.gift_reports = reports
