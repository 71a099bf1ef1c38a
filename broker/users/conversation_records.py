"""Conversations in the ledger: their records, written with the messages that they cause, and read at the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from broker.core.tenants.names import plain_name, qualify, split_name, tenant_of
from broker.core.users.conversations import Conversation, ConversationTable, ReadPosition
from broker.ledger import BatchRedacted, Item, OutboxRedacted, Reader, RecordPut, RecordRemoved, StoredRecord
from broker.ledger.mentions import outbox_of_line
from broker.ledger.records import read_records
from broker.webhooks.events import event_fields, redacted_body
from protocol.activities import activity_payload
from protocol.activities.conversations import ConversationMessage, MediaReference
from protocol.codes import MediaKind
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = [
    "BLOCK", "CARD", "CONVERSATION", "KINDS", "MEMBER", "MESSAGE", "SHADOWED", "author_of_shadowed", "block_item",
    "conversation_item", "copies_of", "erased_items", "load_conversations", "member_item", "message_item", "message_of",
    "message_removal", "offset_of", "read_messages", "removals_of", "without_user",
]  # fmt: skip

CONVERSATION = "conversation"
"""Kind of the records of conversations; subject: the qualified id."""
MEMBER = "conversation.member"
"""Of their members, and their positions; name: the user's plain id."""
MESSAGE = "conversation.message"
"""Of their messages; name: the offset, with zeros in front."""
SHADOWED = "conversation.shadowed"
"""Of messages that their authors alone are shown; name: the offset, a space, the author's plain id."""
BLOCK = "conversation.block"
"""Of blocked users; subject: who blocks (qualified id), name: whom (plain id)."""
CARD = "conversation.card"
"""Of the cards in a conversation; name: the kind of the card, a space, its id."""
KINDS = frozenset({CONVERSATION, MEMBER, MESSAGE, SHADOWED, BLOCK})


def conversation_item(conversation: Conversation, at_ms: int) -> RecordPut:
    """Return the record of a conversation."""
    body = pack_body((conversation.is_group, conversation.title))
    return RecordPut(CONVERSATION, conversation.id, "", at_ms, body)


def member_item(conversation: str, user: str, joined: int, position: ReadPosition, at_ms: int) -> RecordPut:
    """Return the record of a member."""
    return RecordPut(MEMBER, conversation, user, at_ms, pack_body((joined, *position)))


def _name(offset: int) -> str:
    return f"{offset:016d}"


def offset_of(name: str) -> int:
    """Return the offset of a message by the name of its record."""
    return int(name[:16])


def author_of_shadowed(name: str) -> str:
    """Return who alone is shown a message, by the name of its record."""
    return name[17:]


def _place(offset: int, shadowed: str | None) -> tuple[str, str]:
    """Return kind and name of the record of a message."""
    return (MESSAGE, _name(offset)) if shadowed is None else (SHADOWED, f"{_name(offset)} {shadowed}")


def message_item(conversation: str, message: ConversationMessage, shadowed: str | None = None) -> RecordPut:
    """Return the record of a message. ``shadowed``: its author (plain id), where its author alone is shown it."""
    kind, name = _place(message.offset, shadowed)
    return RecordPut(kind, conversation, name, message.at_ms, pack_body(tuple(message)))


def message_removal(conversation: str, offset: int, shadowed: str | None = None) -> RecordRemoved:
    """Return the removal of a message that is kept no more."""
    kind, name = _place(offset, shadowed)
    return RecordRemoved(kind, conversation, name)


def block_item(user: str, other: str, at_ms: int, *, is_blocked: bool) -> Item:
    """Return what records that a user (qualified id) blocks another one (plain id), or does not any more."""
    return RecordPut(BLOCK, user, other, at_ms, pack_body(())) if is_blocked else RecordRemoved(BLOCK, user, other)


def message_of(body: Sequence[Any]) -> ConversationMessage:
    """Return the message of an unpacked body. TypeError, ValueError: of a later version."""
    message = ConversationMessage(*body[: len(ConversationMessage._fields)])
    if message.media is None:
        return message
    url, kind, size_bytes, sha256 = message.media
    return message._replace(media=MediaReference(url, MediaKind(kind), size_bytes, sha256))


def read_messages(
    reader: Reader, conversation: str, viewer: str | None, after: int, before: int, limit: int
) -> tuple[list[ConversationMessage], bool]:
    """Return messages of a conversation in their order, and whether there are more. Runs in the reading thread.

    Those after ``after``, or, where ``before`` is above 0, the last ones before it that are also after ``after``.
    ``viewer``: the member (plain id) who is to see them, None = the platform, which sees all.
    """
    order, end = ("DESC", _name(before)) if before else ("ASC", "~")
    places: list[tuple[str, str]] = []
    for kind, own in ((MESSAGE, None), (SHADOWED, viewer)):
        rows = reader.connection.execute(
            "SELECT name FROM records WHERE kind = ? AND subject = ? AND name > ? AND name < ?"
            f" AND (? IS NULL OR substr(name, 18) = ?) ORDER BY name {order} LIMIT ?",
            (kind, conversation, f"{_name(after)}~", end, own, own, limit + 1),
        )
        places += [(name, kind) for (name,) in rows]
    places.sort(reverse=bool(before))
    chosen = sorted(places[:limit])
    found: list[ConversationMessage] = []
    plain = [name for name, kind in chosen if kind == MESSAGE]
    if plain:
        # Its number less one and a ~ is before the first one, and after the one before that.
        start = f"{_name(int(plain[0]) - 1)}~"
        stored = reader.records(MESSAGE, conversation, after=(conversation, start), limit=len(plain))
        found += [message_of(unpack_body(each.body)) for each in stored]
    for name, kind in chosen:
        if kind == SHADOWED:
            before_it = conversation, name[: name.index(" ")]
            stored = reader.records(SHADOWED, conversation, after=before_it, limit=1)
            found += [message_of(unpack_body(each.body)) for each in stored]
    return sorted(found, key=lambda message: message.offset), len(places) > limit


def copies_of(reader: Reader, conversation: str, message: ConversationMessage) -> tuple[Item, ...]:
    """Return what takes the content of a message out of its copies in inboxes and in the outbox. Runs in the reading
    thread."""
    id, offset = plain_name(conversation), message.offset
    empty = ConversationMessage(offset, message.user, message.name, message.at_ms, recalled=True)
    body = pack_body((activity_payload("conversations.message", id, empty),))
    line = f"user {qualify(tenant_of(conversation), message.user)}"
    reports = []
    for row in outbox_of_line(reader, line, "conversation.sent", message.at_ms):
        fields = event_fields(row)
        if (fields["data"].get("conversation"), fields["data"].get("offset")) == (id, offset):
            fields["data"]["text"] = ""
            reports.append((row.id, redacted_body(row, fields)))
    in_inboxes = BatchRedacted(f"{conversation}/{offset}", body)
    return (in_inboxes, OutboxRedacted(tuple(reports))) if reports else (in_inboxes,)


def removals_of(reader: Reader, conversation: str) -> list[RecordRemoved]:
    """Return what removes all records of a conversation, itself at the end. Runs in the reading thread."""
    kinds = MESSAGE, SHADOWED, CARD, MEMBER, CONVERSATION
    found: list[RecordRemoved] = []
    for kind in kinds:
        rows = reader.connection.execute(
            "SELECT name FROM records WHERE kind = ? AND subject = ?", (kind, conversation)
        )
        found += [RecordRemoved(kind, conversation, name) for (name,) in rows]
    return found


def load_conversations(reader: Reader, table: ConversationTable) -> ConversationTable:
    """Fold every record into a table. Runs in the ledger's reading thread, at the start."""
    for conversation in read_records(reader, CONVERSATION, _conversation):
        table.add(conversation)
    # Messages before members: the unread count of a member is made once, of what there is after its position.
    for id, message in read_records(reader, MESSAGE, lambda record, body: (record.subject, message_of(body))):
        found = table.find(id)
        if found is None:
            continue
        if not found.last:
            found.begin_at(message.offset)
        found.apply_message(message.offset, message.user, message.at_ms, message.text)
        if message.recalled:
            found.apply_recall(message.offset)
    for id, author, shadowed in read_records(reader, SHADOWED, _shadowed):
        found = table.find(id)
        if found is not None:
            found.apply_shadowed(shadowed, author)
    for id, user, joined, position in read_records(reader, MEMBER, _member):
        found = table.find(id)
        if found is not None:
            table.join(found, user, joined, position)
    for user, other in read_records(reader, BLOCK, lambda record, body: (record.subject, record.name)):
        table.apply_block(user, other, is_blocked=True)
    return table


def _conversation(record: StoredRecord, body: Sequence[Any]) -> Conversation:
    is_group, title = body[:2]
    return Conversation(record.subject, title, record.at_ms, is_group=is_group)


def _shadowed(record: StoredRecord, body: Sequence[Any]) -> tuple[str, str, int]:
    return record.subject, author_of_shadowed(record.name), offset_of(record.name)


def _member(record: StoredRecord, body: Sequence[Any]) -> tuple[str, str, int, ReadPosition]:
    joined, delivered, read = body[:3]
    return record.subject, record.name, joined, ReadPosition(delivered, read)


def erased_items(record: StoredRecord, tenant: str, user: str, pseudonym: str) -> Iterator[Item]:
    """Yield what takes an erased user (plain id) out of a record of one of the `KINDS`.

    What it wrote becomes a recalled message of its pseudonym; a mention of it names the pseudonym.
    """
    kind, subject, name, at_ms, body = record
    owner_tenant, owner = split_name(subject)
    if owner_tenant != tenant:
        return
    if kind == MEMBER and name == user:
        yield RecordRemoved(kind, subject, name)
    elif kind == BLOCK and user in (owner, name):
        yield RecordRemoved(kind, subject, name)
    elif kind in (MESSAGE, SHADOWED):
        try:
            message = message_of(unpack_body(body))
        except (RemoteProtocolError, TypeError, ValueError):
            return
        after = without_user(message, user, pseudonym)
        if kind == SHADOWED and message.user == user:
            yield RecordRemoved(kind, subject, name)
            yield message_item(subject, after)
        elif after != message:
            yield RecordPut(kind, subject, name, at_ms, pack_body(tuple(after)))


def without_user(message: ConversationMessage, user: str, pseudonym: str) -> ConversationMessage:
    """Return a message without an erased user."""
    if message.user == user:
        return ConversationMessage(message.offset, pseudonym, "", message.at_ms, recalled=True)
    return message._replace(mentions=tuple(pseudonym if each == user else each for each in message.mentions))
