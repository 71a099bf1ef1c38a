"""Export of everything that the broker keeps on one user, in pages.

What there is, in this order: preferences, tags, the revocation of the user's tokens, sanctions, keys of rooms that the
user owns, must-deliver messages whatever their state, the events of rooms by the user (for gifts: those the user gave)
within the ledger's retention, the user's messages that were held for review, and reports,
and the messages that the user has sent in conversations. Deleted events have no
content here either.

A page has at most `PAGE_BYTES` of content, and inspects a bounded part of the ledger: it may be shorter than asked for,
or empty, and there is more while it has a cursor. A cursor holds the place in the ledger alone: what it leads to is
filtered by the user again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from broker.core.moderation.review import REVIEWS_KEY
from broker.core.moderation.sanctions import Sanction, SanctionAction
from broker.core.rooms.deletions import deletion_of, without_deleted
from broker.core.rooms.stream import StoredEvent
from broker.core.tenants.names import SEPARATOR, plain_name, qualify, tenant_of
from broker.ledger import Reader, StoredEntry, StoredRecord, facts_with
from broker.ledger.replay import event_of
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import ask, required
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import plain_value
from broker.rooms.key_records import KIND as KEY
from broker.users.conversation_records import MESSAGE, SHADOWED, message_of
from broker.users.revocations import KIND as REVOCATION
from broker.users.sanction_records import ACTION_KIND as SANCTION_ACTION
from broker.users.sanction_records import KIND as SANCTION
from broker.users.sanction_records import read_action, read_sanction
from broker.users.settings import PREFERENCES, TAGS
from protocol.activities.reviews import HeldBy
from protocol.codes import ErrorCode, Lane, MessageType
from protocol.errors import RemoteProtocolError
from protocol.frames import unpack_body
from protocol.json_depth import parse_json
from protocol.json_values import as_json
from protocol.messages import Event
from protocol.operations.users import ExportedItem, ExportKind, ExportUser, UserExport
from protocol.payloads import GiftPayload, payload_record

__all__ = ["HANDLERS", "PAGE_BYTES", "Position", "read_page"]

PAGE_BYTES = 160 * 1024
"""Content of a page: as JSON, where a character may take six bytes, it is below 1 MiB."""
ITEM_BYTES = 256
"""What an item counts besides its content."""
CHUNK, DIRECTS, HELD = 1000, 64, 100
"""Rows of one query, messages, and entries of review queues."""

Place = tuple[int | str, ...]


class Position(NamedTuple):
    """Where a page begins: a section and a place in it, () = its start."""

    section: int = 0
    place: Place = ()

    def encode(self) -> str:
        """Return the position as a cursor."""
        return base64.urlsafe_b64encode(json.dumps([self.section, *self.place]).encode()).decode()

    @classmethod
    def decode(cls, cursor: str | None) -> Position:
        """Return the position of a cursor; ValueError where it is none."""
        if cursor is None:
            return cls()
        section, *place = parse_json(base64.b64decode(cursor, b"-_", validate=True).decode(), 1)
        if type(section) is not int or not 0 <= section < len(_SECTIONS):
            raise ValueError("is of no section")
        if place and list(map(type, place)) != list(_SECTIONS[section].place):
            raise ValueError("has another place")
        for each in place:
            if isinstance(each, str) and (SEPARATOR in each or not each.encode()):
                raise ValueError("has a name that is none")
            if isinstance(each, int) and not 0 <= each < 2**63:
                raise ValueError("has a number that is too large")
        return cls(section, tuple(place))


class _Found(NamedTuple):
    """An item, the bytes of its content, and the place after it. ``item`` None: the page ends here."""

    item: ExportedItem | None
    nbytes: int
    place: Place


Section = Callable[[Reader, str, Place], Iterator[_Found]]


def _settings(reader: Reader, user: str, place: Place) -> Iterator[_Found]:
    kinds = (PREFERENCES, ExportKind.PREFERENCE), (TAGS, ExportKind.TAGS), (REVOCATION, ExportKind.REVOCATION)
    first = int(place[0]) if place else 0
    for index, (record_kind, kind) in enumerate(kinds[first:], first):
        after = (user, str(place[1])) if place and index == first else ("", "")
        for record in reader.records(record_kind, user, after=after):
            body = _body(record.body)
            if body is not None:
                data = None if kind is ExportKind.REVOCATION else body[0]
                item = ExportedItem(kind, None, record.name, record.at_ms, data=data)
                yield _Found(item, len(record.body), (index, record.name))


def _sanctions(reader: Reader, user: str, place: Place) -> Iterator[_Found]:
    first = int(place[0]) if place else 0
    for index, kind in enumerate((SANCTION, SANCTION_ACTION)):
        if index < first:
            continue
        after = (user, str(place[1])) if place and index == first else ("", "")
        for record in reader.records(kind, user, after=after):
            item = _sanction_item(record, _body(record.body) or ())
            if item is not None:
                yield _Found(item, len(record.body), (index, record.name))


def _sanction_item(record: StoredRecord, body: Sequence[Any]) -> ExportedItem | None:
    """Return the item of a sanction, or of an action on one (Any: its body is not checked)."""
    try:
        if record.kind == SANCTION:
            in_force, kind = read_sanction(body), ExportKind.SANCTION
            about: dict[str, Any] = {"until_ms": in_force.until_ms, "shadow": in_force.is_shadow}
            subject: Sanction | SanctionAction = in_force
        else:
            action, kind = read_action(body), ExportKind.SANCTION_ACTION
            about = {"lifts": action.after is None, "undone": bool(action.undone_by)}
            subject = action
    except (TypeError, ValueError):
        return None  # of a later version
    about |= {"sanction": subject.kind.name.lower(), "reason": subject.reason, "by": subject.by}
    return ExportedItem(kind, subject.room or None, "", record.at_ms, about)


def _keys(reader: Reader, user: str, place: Place) -> Iterator[_Found]:
    tenant, owner = tenant_of(user), plain_name(user)
    after = (qualify(tenant, str(place[0])), str(place[1])) if place else ("", "")
    while True:
        found = reader.records(KEY, text=owner, after=after, limit=CHUNK)
        for record in found:
            after = record.subject, record.name
            body = _body(record.body)
            if body is None or len(body) < 5 or body[3] != owner or tenant_of(record.subject) != tenant:
                continue
            about = {"version": body[1], "expires_at_ms": body[2], "delete_on_leave": body[4]}
            item = ExportedItem(ExportKind.KEY, record.subject, record.name, record.at_ms, about, data=body[0])
            yield _Found(item, len(record.body), (plain_name(record.subject), record.name))
        if len(found) < CHUNK:
            return


def _directs(reader: Reader, user: str, place: Place) -> Iterator[_Found]:
    after = int(place[0]) if place else 0
    while True:
        found = reader.inbox(user, after, DIRECTS, is_pending_only=False)
        if not found:
            return
        for stored in found:
            after = stored.direct_id
            body = _body(stored.body)
            about = {"state": stored.state.name.lower(), "expires_at_ms": stored.expires_at_ms}
            item = ExportedItem(
                ExportKind.DIRECT, None, str(after), stored.at_ms, about, stored.kind, body[0] if body else None
            )
            yield _Found(item, len(stored.body), (after,))


def _events(reader: Reader, user: str, place: Place) -> Iterator[_Found]:
    tenant, author = tenant_of(user), plain_name(user)
    entries, next_after = reader.entries_with(author, int(place[0]) if place else 0, CHUNK, PAGE_BYTES)
    own: list[tuple[StoredEntry, StoredEvent]] = []
    for entry in entries:
        event = event_of(entry)
        if event is not None and entry.lane is not None and tenant_of(entry.room) == tenant:
            stored = StoredEvent(entry.offset, Lane(entry.lane), event)
            if author in (event.user_id, _giver(event)):
                own.append((entry, stored))
    shown = _shown(reader, own)
    for entry, stored in own:
        item = _exported(entry, stored, shown[entry.room, entry.epoch, entry.offset])
        yield _Found(item, len(entry.body), (entry.seq,))
    if next_after is not None:
        yield _Found(None, 0, (next_after,))


def _giver(event: Event) -> str:
    payload = payload_record(event.type, event.payload) if event.type == MessageType.GIFT else None
    return payload.user_id if isinstance(payload, GiftPayload) else ""


def _shown(
    reader: Reader, events: Sequence[tuple[StoredEntry, StoredEvent]]
) -> dict[tuple[str, int, int], StoredEvent]:
    """Return events by room, epoch and offset as they are shown after the deletions that followed them."""
    streams: dict[tuple[str, int], dict[int, StoredEvent]] = {}
    for entry, stored in events:
        streams.setdefault((entry.room, entry.epoch), {})[stored.offset] = stored
    found: dict[tuple[str, int, int], StoredEvent] = {}
    for (room, epoch), own in streams.items():
        merged = dict(own)
        position = min(own)
        while True:
            page = reader.deletions(room, epoch, position, CHUNK)
            for entry in page:
                event = event_of(entry)
                if event is not None and entry.lane is not None and deletion_of(event) is not None:
                    merged.setdefault(entry.offset, StoredEvent(entry.offset, Lane(entry.lane), event))
            if len(page) < CHUNK:
                break
            position = page[-1].offset
        for each in without_deleted([merged[offset] for offset in sorted(merged)]):
            if each.offset in own:
                found[room, epoch, each.offset] = each
    return found


def _exported(entry: StoredEntry, stored: StoredEvent, shown: StoredEvent) -> ExportedItem:
    about = {"epoch": entry.epoch, "lane": int(stored.lane), "user": stored.event.user_id, "name": stored.event.name}
    data = plain_value(shown.event.payload)
    if shown.event.type != stored.event.type:
        about["deleted"], data = True, None
    elif stored.event.type == MessageType.HIGHLIGHT and shown.event != stored.event:
        about["deleted"] = True  # what was paid for stays
    return ExportedItem(
        ExportKind.EVENT, entry.room, str(entry.offset), entry.at_ms, about, int(stored.event.type), data
    )


def _body(packed: bytes) -> Any:
    """Return what a row holds; None where it is of a later version. Any: as it was packed."""
    try:
        body = unpack_body(packed)
    except RemoteProtocolError:
        return None
    return body or None


def _messages(reader: Reader, user: str, place: Place) -> Iterator[_Found]:
    tenant, author = tenant_of(user), plain_name(user)
    after = (qualify(tenant, str(place[0])), str(place[1])) if place else ("", "")
    for kind in (SHADOWED,) if " " in after[1] else (MESSAGE, SHADOWED):  # the names of these alone have a space
        while page := reader.records(kind, text=author, after=after, limit=CHUNK):
            for record in page:
                body = _body(record.body)
                if body is None or tenant_of(record.subject) != tenant or body[1] != author:
                    continue
                about, data = {"conversation": plain_name(record.subject)}, plain_value(as_json(message_of(body)))
                item = ExportedItem(ExportKind.MESSAGE, None, str(body[0]), record.at_ms, about, data=data)
                yield _Found(item, len(record.body), (plain_name(record.subject), record.name))
            after = page[-1].subject, page[-1].name
        after = "", ""


def _held(reader: Reader, user: str, place: Place) -> Iterator[_Found]:
    tenant, author = tenant_of(user), plain_name(user)
    seq, done = (int(place[0]), int(place[1])) if place else (0, 0)
    entries, next_after = facts_with(reader, author, seq - bool(done), HELD)
    for entry in entries:
        is_mine = tenant_of(entry.room) == tenant
        found = [item for item in map(partial(_held_item, entry, author), _facts_of(entry)) if item and is_mine]
        first = done if entry.seq == seq else 0
        for index, item in enumerate(found[first:], first + 1):
            is_last = index == len(found)
            yield _Found(item, len(entry.body), (entry.seq, 0) if is_last else (entry.seq, index))
    if next_after is not None:
        yield _Found(None, 0, (next_after, 0))


def _facts_of(entry: StoredEntry) -> Sequence[tuple[str, Any]]:
    """Return the facts of a review queue in an entry; none where it is of another activity."""
    body = _body(entry.body)
    return body[2] if body is not None and len(body) == 3 and tuple(body[:2]) == REVIEWS_KEY else ()


def _held_item(entry: StoredEntry, author: str, fact: tuple[str, Any]) -> ExportedItem | None:
    """Return what a fact of a review queue (Any: as it was packed) says of a user."""
    name, data = fact
    match name:
        case "held" if data[1]["user"] == author:
            held = data[1]
            about = {"name": held["name"], "held_by": HeldBy(held["held_by"]).name.lower(), "reason": held["reason"]}
            return ExportedItem(
                ExportKind.HELD,
                entry.room,
                str(data[0]),
                entry.at_ms,
                about,
                held["type"],
                plain_value(held["payload"]),
            )
        case "reported" if data[1]["reports"][0]["user"] == author:
            return ExportedItem(
                ExportKind.REPORT, entry.room, str(data[0]), entry.at_ms, data=data[1]["reports"][0]["reason"]
            )
        case "seconded" if data[1]["user"] == author:
            return ExportedItem(ExportKind.REPORT, entry.room, str(data[0]), entry.at_ms, data=data[1]["reason"])
    return None


class _SectionKind(NamedTuple):
    read: Section
    place: tuple[type, ...]
    """Types of its place."""


_SECTIONS = (
    _SectionKind(_settings, (int, str)),
    _SectionKind(_sanctions, (int, str)),
    _SectionKind(_keys, (str, str)),
    _SectionKind(_directs, (int,)),
    _SectionKind(_events, (int,)),
    _SectionKind(_held, (int, int)),
    _SectionKind(_messages, (str, str)),
)


def read_page(
    reader: Reader, user: str, start: Position, limit: int, max_bytes: int = PAGE_BYTES
) -> tuple[list[ExportedItem], Position | None]:
    """Return at most ``limit`` items from a position on, and the position of the next page, None = that is all.

    ``max_bytes``: of content; one item may be above it. Runs in the ledger's reading thread.
    """
    items: list[ExportedItem] = []
    section, place = start
    with reader.snapshot():
        while section < len(_SECTIONS):
            for found in _SECTIONS[section].read(reader, user, place):
                if found.item is None:
                    return items, Position(section, found.place)
                max_bytes -= found.nbytes + ITEM_BYTES
                if len(items) == limit or (items and max_bytes < 0):
                    return items, Position(section, place)
                items.append(found.item)
                place = found.place
            section, place = section + 1, ()
    return items, None


async def _export(parts: Parts, caller: Caller, request: ExportUser) -> UserExport:
    ledger = required(parts.ledger)
    try:
        start = Position.decode(request.cursor)
    except (ValueError, TypeError, RecursionError):
        raise OperationError(ErrorCode.BAD_FIELD, "is no cursor of this operation", "cursor") from None
    items, following = await ask(ledger, read_page, request.user, start, request.limit)
    return UserExport(tuple(items), None if following is None else following.encode())


HANDLERS: dict[str, Handler] = {"users.export": _export}
