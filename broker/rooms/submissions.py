"""Submissions to the ledger as facts of a log: which log they belong to, and their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.ledger import (
    AnswersRemoved,
    BatchRedacted,
    CallAnswered,
    CopyFilled,
    DirectAcked,
    DirectEntry,
    DirectsCancelled,
    DirectsRemoved,
    EntriesRedacted,
    Entry,
    Item,
    Key,
    OutboxEntry,
    OutboxRedacted,
    RecordPut,
    RecordRemoved,
    RoomCheckpointed,
    RoomEnded,
    RoomOpened,
)
from broker.rooms import combo_records, highlight_records, key_records, score_records
from protocol.frames import pack_body, unpack_body

__all__ = ["ROOM_KINDS", "is_for_all", "pack_submission", "read_submission", "room_of", "room_of_line"]

GROUP_ITEMS = 500
LINE_OF_ROOM = "room "
"""Beginning of the names of the lines in which reports of rooms go out."""
ROOM_KINDS = frozenset({combo_records.KIND, highlight_records.KIND, key_records.KIND, score_records.KIND})
_ITEM_KINDS: tuple[type[Any], ...] = (
    Entry, RoomOpened, RoomEnded, RoomCheckpointed, RecordPut, RecordRemoved, DirectEntry, DirectAcked,
    DirectsCancelled, DirectsRemoved, OutboxEntry, CallAnswered, EntriesRedacted, AnswersRemoved, CopyFilled,
    BatchRedacted, OutboxRedacted,
)  # fmt: skip
_NUMBERS = {kind: number for number, kind in enumerate(_ITEM_KINDS)}
_DIRECTS = (DirectEntry, DirectAcked, DirectsCancelled, DirectsRemoved)


def is_for_all(items: Sequence[Item], kinds: frozenset[str]) -> bool:
    """Return whether a submission that is about no room holds on every node. ``kinds``: of the records that do."""
    return any(
        isinstance(item, _DIRECTS) or (isinstance(item, (RecordPut, RecordRemoved)) and item.kind in kinds)
        for item in items
    )


def room_of(items: Sequence[Item]) -> str:
    """Return the room whose log a submission belongs to, "" = it is about no room."""
    for item in items:
        if isinstance(item, (Entry, RoomOpened, RoomEnded, RoomCheckpointed)):
            if item.room:
                return item.room
        elif isinstance(item, (RecordPut, RecordRemoved)) and item.kind in ROOM_KINDS:
            return item.subject
        elif isinstance(item, OutboxEntry) and all(isinstance(each, OutboxEntry) for each in items):
            return room_of_line(item.line)
    return ""


def room_of_line(line: str) -> str:
    """Return the room (qualified name) whose reports go out in a line, "" = they are about no room."""
    return line.removeprefix(LINE_OF_ROOM) if line.startswith(LINE_OF_ROOM) else ""


def pack_submission(items: Sequence[Item], keys: Sequence[Key]) -> bytes:
    """Return a submission as bytes."""
    packed = [(_NUMBERS[type(item)], item) for item in items]
    groups = tuple(tuple(packed[start : start + GROUP_ITEMS]) for start in range(0, len(packed), GROUP_ITEMS))
    of_keys = tuple(tuple(keys[start : start + GROUP_ITEMS]) for start in range(0, len(keys), GROUP_ITEMS))
    return pack_body((groups, of_keys))


def read_submission(body: bytes) -> tuple[tuple[Item, ...], tuple[Key, ...]]:
    """Return what `pack_submission` has packed."""
    groups, of_keys = unpack_body(body)
    items = tuple(_ITEM_KINDS[kind](*fields) for group in groups for kind, fields in group)
    return items, tuple(Key(*fields) for group in of_keys for fields in group)
