"""The audit: what staff and backends have changed. Its records and row."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from ..fields import any_value, array_of, integer, name_of, optional, record, room_name, text, user_id
from .rows import NEEDS_LEDGER, STAFF, OperationRow, Scope, page_size, row

__all__ = ["ROWS", "AuditActor", "AuditItem", "AuditPage", "ReadAudit"]


class AuditActor(IntEnum):
    """Who has called."""

    KEY = 0
    """A backend, by its key."""
    USER = 1
    """A user whose role is that of staff."""
    PROGRAM = 2
    """The program that the broker runs in."""


class ReadAudit(NamedTuple):
    """Ask for entries of the audit, the oldest first. ``after``: number of the last entry that is known; ``actor``: id
    of the key or user that has called, or on whose behalf; ``subject``: the user it is about; ``room``: null = all, for
    backends."""

    room: str | None = None
    after: int = 0
    actor: str | None = None
    subject: str | None = None
    operation: str | None = None
    limit: int = 100


class AuditItem(NamedTuple):
    """One call. ``entry``: its number in the ledger's chain; ``outcome``: "OK", or the code of its refusal;
    ``request``: its fields, of texts and lists their size alone; ``before``, ``after``: what it has changed, null = not
    known. Users who were erased have a pseudonym."""

    entry: int
    at_ms: int
    actor_kind: AuditActor
    actor: str
    as_user: str
    operation: str
    room: str
    subject: str
    reason: str
    outcome: str
    request: Any
    before: Any = None
    after: Any = None


class AuditPage(NamedTuple):
    """A page. ``next``: what ``after`` of the next one is, null = that is all; a page may be empty and have a next."""

    items: tuple[AuditItem, ...]
    next: int | None


_text = text(0, 64)
_item = record(
    AuditItem,
    (
        integer(0), integer(0), name_of(AuditActor), _text, _text, _text, _text, _text, text(0, 256), _text, any_value,
        any_value, any_value,
    ),
)  # fmt: skip
_ITEM = AuditItem(
    812, 1_800_000_000_000, AuditActor.USER, "mod-7", "", "moderation.mute", "live-1", "eve", "insults", "OK",
    {"seconds": 600},
)  # fmt: skip

ROWS: tuple[OperationRow, ...] = (
    row(
        540, "moderation.audit", ReadAudit,
        (optional(room_name), integer(0), optional(text(1, 64)), optional(user_id), optional(text(1, 64)), page_size),
        AuditPage, record(AuditPage, (array_of(_item, 1000), optional(integer(0)))),
        "Return what staff and backends have changed, the oldest first.",
        scope=Scope.MODERATION_READ, roles=STAFF, changes=False, errors=NEEDS_LEDGER,
        example=(ReadAudit("live-1"), AuditPage((_ITEM,), None)),
    ),
)  # fmt: skip
