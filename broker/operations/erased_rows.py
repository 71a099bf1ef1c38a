"""Rows of the ledger without an erased user: what an erasure has to write, page by page of each table.

Every function reads one page in the ledger's reading thread, and returns what is to be written and the place after the
page, None = the table is done. What is written already is found no more, so any page may be read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from broker.core.commerce.room_activities import ActivityKind
from broker.core.rooms.erasure import PAID, Erasure
from broker.core.tenants.names import plain_name, qualify, tenant_of
from broker.ledger import (
    ACTIVITY_FACTS,
    AnswersRemoved,
    DirectsRedacted,
    DirectsRemoved,
    EntriesRedacted,
    Item,
    OutboxDone,
    OutboxRedacted,
    Reader,
    RecordPut,
    RecordRemoved,
    StoredEntry,
    StoredRecord,
)
from broker.ledger.audits import audit_of, erased_audit, pack_audit
from broker.ledger.entries import ENTRIES_REDACTED
from broker.ledger.erasures import USER_ERASED
from broker.ledger.mentions import answers_with, directs_with, entries_with, has_directs, outbox_with, records_with
from broker.ledger.orders import order_of, pack_order
from broker.ledger.replay import addressed_event_of
from broker.rooms.activity_records import erased_facts
from broker.rooms.combo_records import KIND as COMBO
from broker.rooms.combo_records import combo_of, combo_record
from broker.rooms.key_records import KIND as KEY
from broker.rooms.score_records import KIND as SCORE
from broker.rooms.score_records import erased_items
from broker.users import conversation_records, desk_rows
from broker.users.revocations import KIND as REVOCATION
from broker.users.settings import PREFERENCES, TAGS
from broker.webhooks.events import event_fields, redacted_body
from protocol.activities import activity_payload
from protocol.activities.conversations import ConversationMessage
from protocol.codes import KeyCause, MessageType
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = [
    "ERASURE_KIND",
    "Page",
    "answers_page",
    "copies_page",
    "directs_page",
    "entries_page",
    "outbox_page",
    "records_page",
]

ERASURE_KIND = "user.erasure"
"""Kind of the records of erasures themselves."""
_OF_USERS = frozenset({PREFERENCES, TAGS, REVOCATION})
_KEPT = frozenset({ENTRIES_REDACTED, USER_ERASED})


class Page(NamedTuple):
    """What is to be written for a page, and the place after it (Any: of its table); None = there is no more."""

    items: list[Item]
    place: Any
    redacted: int = 0


def entries_page(
    reader: Reader, erasure: Erasure, kinds: Mapping[str, ActivityKind], at_ms: int, after: int
) -> tuple[Page, bool]:
    """Redact entries after number ``after``; return also whether the page reaches the end of the ledger."""
    found, last, is_end = entries_with(reader, erasure.user, after)
    bodies = [(entry.seq, body) for entry in found if (body := _entry_body(entry, erasure, kinds)) != entry.body]
    items: list[Item] = [EntriesRedacted(erasure.pseudonym, at_ms, tuple(bodies))] if bodies else []
    return Page(items, last, len(bodies)), is_end


def _entry_body(entry: StoredEntry, erasure: Erasure, kinds: Mapping[str, ActivityKind]) -> bytes:
    """Return the body of an entry without the user."""
    if entry.kind in _KEPT and entry.lane is None:
        return entry.body
    if entry.room and tenant_of(entry.room) != erasure.tenant:
        return entry.body
    if entry.kind == ACTIVITY_FACTS and entry.lane is None:
        body = erased_facts(entry, kinds, erasure.in_activities)
        return erasure.packed(entry.body, entry.room) if body is None else body
    found = addressed_event_of(entry)
    if found is not None:
        event, audience = found
        changed = erasure.event(event, entry.offset)
        after = changed if audience is None else (*changed, audience)
        return entry.body if changed is event else pack_body(after)
    audited = audit_of(entry)
    if audited is not None:
        without = erased_audit(audited, erasure.tenant, *erasure.in_activities)
        return entry.body if without == audited else pack_audit(without)
    order = order_of(entry)
    if order is not None:
        target = erasure.pseudonym if order.target == erasure.user else order.target
        if order.user_id == erasure.user:
            order = order._replace(user_id=erasure.pseudonym, name="")
        return pack_order(order._replace(target=target))
    return erasure.packed(entry.body, entry.room)


def outbox_page(reader: Reader, erasure: Erasure, at_ms: int, after: int) -> Page:
    """Redact what waits for the platform; of money it keeps order and amount, and every event keeps its id."""
    line = f"user {erasure.qualified}"
    found, place = outbox_with(reader, erasure.user, line, after)
    bodies: list[tuple[int, bytes]] = []
    removed: list[int] = []
    for row in found:
        fields = event_fields(row)
        if fields["tenant"] != erasure.tenant:
            continue
        data = fields["data"]
        is_own = data.get("user") == erasure.user and (
            row.topic == "message.flagged" or (row.topic == "message.published" and data.get("type") not in PAID)
        )
        if row.line == line or is_own:
            removed.append(row.id)
            continue
        if data.get("type") == "keys_changed":
            data["payload"]["changes"] = [each for each in data["payload"]["changes"] if not _is_of_user(each, erasure)]
        changed = erasure.value(fields, qualify(erasure.tenant, fields.get("room") or "-"))
        if json.dumps(changed) != json.dumps(event_fields(row)):
            bodies.append((row.id, redacted_body(row, changed)))
    items: list[Item] = [OutboxRedacted(tuple(bodies))] if bodies else []
    return Page([*items, OutboxDone(tuple(removed))] if removed else items, place)


def _is_of_user(change: dict[str, Any], erasure: Erasure) -> bool:
    """Return whether a change of keys, as JSON, is of the user's."""
    return erasure.is_key_of_user(change["name"], change["owner"], KeyCause[change["cause"].upper()])


def answers_page(reader: Reader, erasure: Erasure, at_ms: int, after: bytes) -> Page:
    """Remove answers of idempotency keys that name the user."""
    found, place = answers_with(reader, erasure.user, after)
    digests = tuple(digest for digest, answer in found if _names_user(answer, erasure))
    return Page([AnswersRemoved(digests)] if digests else [], place)


def _names_user(answer: bytes, erasure: Erasure) -> bool:
    try:
        values = unpack_body(answer)
    except RemoteProtocolError:
        return False
    if len(values) == 2 and list(map(type, values)) == [str, int]:
        return False  # of a post: its room, whatever that is called, and the epoch
    return bool(erasure.packed(answer, qualify(erasure.tenant, "-")) != answer)


def directs_page(reader: Reader, erasure: Erasure, at_ms: int, after: int) -> Page:
    """Remove messages to the user, and the inbox with the last of them."""
    is_left = has_directs(reader, erasure.qualified)
    return Page([DirectsRemoved(erasure.qualified)] if is_left else [], after if is_left else None)


def copies_page(reader: Reader, erasure: Erasure, at_ms: int, after: int) -> Page:
    """Redact the broker's own messages to others that name the user: what it wrote in conversations is recalled."""
    found, place = directs_with(reader, erasure.user, after)
    bodies: list[tuple[int, bytes]] = []
    for row, stored in found:
        if stored.kind == MessageType.ACTIVITY and tenant_of(stored.user) == erasure.tenant:
            changed = _copy_body(stored.body, erasure)
            if changed != stored.body:
                bodies.append((row, changed))
    return Page([DirectsRedacted(tuple(bodies))] if bodies else [], place)


def _copy_body(body: bytes, erasure: Erasure) -> bytes:
    try:
        name, id, data = unpack_body(body)[0]
    except (RemoteProtocolError, IndexError, TypeError, ValueError):
        return body
    if name == "conversations.message" and isinstance(data, Mapping) and data.get("user") == erasure.user:
        empty = ConversationMessage(data["offset"], erasure.pseudonym, "", data["at_ms"], recalled=True)
        return pack_body((activity_payload(name, id, empty),))
    return erasure.packed(body, qualify(erasure.tenant, "-"))


def records_page(reader: Reader, erasure: Erasure, at_ms: int, after: tuple[str, str, str]) -> Page:
    """Remove records of the user, and the user from others."""
    found, place = records_with(reader, erasure.user, after)
    return Page([item for record in found for item in _record_items(record, erasure)], place)


def _record_items(record: StoredRecord, erasure: Erasure) -> Iterator[Item]:
    kind, subject, name, at_ms, body = record
    if kind == ERASURE_KIND:
        return
    if kind in conversation_records.KINDS:
        yield from conversation_records.erased_items(record, erasure.tenant, erasure.user, erasure.pseudonym)
        return
    if kind == desk_rows.CONVERSATION:
        yield from desk_rows.erased_items(record, erasure.tenant, erasure.user)
        return
    if kind in _OF_USERS:
        is_own = subject == erasure.qualified
    elif kind == KEY:
        is_own = tenant_of(subject) == erasure.tenant and _owner_of(body) == plain_name(erasure.user)
    elif kind == COMBO:
        is_own = False
        yield from _combo_items(record, erasure)
    elif kind == SCORE:
        is_own = False
        yield from erased_items(record, erasure)
    else:
        is_own = subject == erasure.qualified and kind.startswith("user")
        changed = body if is_own else erasure.packed(body, subject or qualify(erasure.tenant, "-"))
        if changed != body:
            yield RecordPut(kind, subject, name, at_ms, changed)
    if is_own:
        yield RecordRemoved(kind, subject, name)


def _combo_items(record: StoredRecord, erasure: Erasure) -> Iterator[Item]:
    found = combo_of(record) if tenant_of(record.subject) == erasure.tenant else None
    if found is not None:
        epoch, combo = found
        if erasure.combo(combo) != combo:
            yield combo_record(record.subject, epoch, erasure.combo(combo), record.at_ms)


def _owner_of(body: bytes) -> Any:
    try:
        return unpack_body(body)[3]
    except (RemoteProtocolError, IndexError, TypeError):
        return None
