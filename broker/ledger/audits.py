"""The audit in the ledger's chain: which member of staff or backend has changed what, and how that ended."""

from __future__ import annotations

from typing import Any, NamedTuple

from broker.ledger.entries import AUDITED, StoredEntry
from broker.ledger.reader import Reader, stored_entries
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = ["AuditEntry", "AuditFilter", "StoredAudit", "audit_of", "audit_page", "erased_audit", "pack_audit"]

SCAN_ENTRIES = 2000
"""Entries of the audit that one page inspects: some milliseconds, in which no other question is answered."""


class AuditEntry(NamedTuple):
    """The stored form of one call that changed something, or was refused by its handler; what callers get of it is
    ``AuditItem``, whose fields after the actor are these.

    ``tenant``: whose it is; names below are plain ones of that tenant. ``actor``: id of the key or of the user, as
    ``actor_kind`` says ("key", "user", "program"); ``as_user``: on whose behalf, "" = its own; ``operation``, ``room``,
    ``subject``: the user it is about, "" = none; ``outcome``: "OK", or the code of the refusal; ``request``,
    ``before``, ``after``: plain values without texts and secrets (Any: of each operation), None = not known.
    """

    tenant: str
    actor_kind: str
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


class StoredAudit(NamedTuple):
    """An entry as the ledger has it: its number in the chain, and when."""

    number: int
    at_ms: int
    audit: AuditEntry


class AuditFilter(NamedTuple):
    """Which entries are asked for: where a field is not None, those with that value."""

    tenant: str | None
    actor: str | None = None
    subject: str | None = None
    operation: str | None = None
    room: str | None = None

    def selects(self, entry: AuditEntry) -> bool:
        """Return whether an entry is asked for."""
        return (
            self.tenant in (None, entry.tenant)
            and self.actor in (None, entry.actor, entry.as_user)
            and self.subject in (None, entry.subject)
            and self.operation in (None, entry.operation)
            and self.room in (None, entry.room)
        )


def pack_audit(entry: AuditEntry) -> bytes:
    """Return the body of a fact."""
    return pack_body(entry)


def audit_of(entry: StoredEntry) -> AuditEntry | None:
    """Return what an entry of the ledger audits; None for all others, and for what this version cannot read."""
    if entry.lane is not None or entry.kind != AUDITED:
        return None
    try:
        return AuditEntry(*unpack_body(entry.body)[: len(AuditEntry._fields)])
    except (RemoteProtocolError, TypeError):
        return None


def audit_page(
    reader: Reader, selection: AuditFilter, after: int, limit: int, max_bytes: int
) -> tuple[list[StoredAudit], int | None]:
    """Return entries behind number ``after``, the oldest first, and the number after which more may follow, None = that
    is all. A page may be shorter than ``limit``. Runs in the ledger's reading thread."""
    found: list[StoredAudit] = []
    left, scanned, last = max_bytes, 0, after
    where = f"e.kind = {AUDITED} AND e.seq > ? ORDER BY e.seq LIMIT ?"
    for stored in stored_entries(reader, where, (after, SCAN_ENTRIES)):
        entry = audit_of(stored)
        if entry is not None and selection.selects(entry):
            left -= len(stored.body)
            if found and (left < 0 or len(found) == limit):
                return found, last
            found.append(StoredAudit(stored.seq, stored.at_ms, entry))
        scanned, last = scanned + 1, stored.seq
    return found, last if scanned == SCAN_ENTRIES else None


def erased_audit(entry: AuditEntry, tenant: str, user: str, pseudonym: str) -> AuditEntry:
    """Return an entry without a user; the same where it does not occur. What was said about it goes too."""
    if entry.tenant != tenant:
        return entry

    def without(value: Any) -> Any:
        if isinstance(value, str):
            return pseudonym if value == user else value
        if isinstance(value, (list, tuple)):
            return tuple(map(without, value))
        return {name: without(each) for name, each in value.items()} if isinstance(value, dict) else value

    said = entry.request, entry.before, entry.after
    without_user = tuple(map(without, said))
    is_actor = entry.actor_kind == "user" and entry.actor == user
    is_about = user in (entry.subject, entry.as_user) or is_actor or without_user != said
    return entry._replace(
        actor=pseudonym if is_actor else entry.actor,
        as_user=pseudonym if entry.as_user == user else entry.as_user,
        subject=pseudonym if entry.subject == user else entry.subject,
        reason="" if is_about else entry.reason,
        request=without_user[0],
        before=without_user[1],
        after=without_user[2],
    )
