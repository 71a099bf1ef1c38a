"""Entries of the ledger as the report of a show takes them: each is read here, and folded in `ShowFold`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from broker.core.commerce.activity import Fact
from broker.core.commerce.room_activities import ActivityKind
from broker.core.reports.show import ShowFold
from broker.core.rooms.samples import read_sample
from broker.core.tenants.names import split_name
from broker.ledger import ACTIVITY_FACTS, Reader, StoredEntry
from broker.ledger.audits import AuditFilter, audit_page
from broker.ledger.entries import ROOM_SAMPLED
from broker.ledger.orders import ORDER_KIND, REFUND_KIND
from broker.ledger.replay import event_of
from broker.ledger.streams import FoundStream, all_entries, find_stream
from protocol.errors import RemoteProtocolError
from protocol.frames import unpack_body

__all__ = ["read_report", "take_audit", "take_entries"]

AUDIT_PAGE, AUDIT_BYTES = 1000, 2**20
"""Entries of the audit that are taken at once."""


def take_entries(fold: ShowFold, entries: Iterable[StoredEntry]) -> None:
    """Fold entries of one stream, in order. What this version cannot read is counted."""
    for entry in entries:
        fold.last_number = entry.seq
        try:
            _take(fold, entry)
        except (RemoteProtocolError, TypeError, ValueError, LookupError):
            fold.unreadable += 1


def _take(fold: ShowFold, entry: StoredEntry) -> None:
    at_ms = entry.at_ms
    if entry.lane is not None:
        event = event_of(entry)
        if event is None:
            raise ValueError("an event of a later version")
        fold.event(event, at_ms)
    elif entry.kind == ACTIVITY_FACTS:
        kind, id, facts = unpack_body(entry.body)
        fold.facts((kind, id), [Fact(name, data) for name, data in facts], at_ms)
    elif entry.kind == ROOM_SAMPLED:
        fold.sample(read_sample(entry.body), at_ms)
    elif entry.kind == ORDER_KIND:
        fold.order(at_ms)
    elif entry.kind == REFUND_KIND:
        fold.refund(unpack_body(entry.body)[2], at_ms)


def take_audit(reader: Reader, fold: ShowFold, stream: FoundStream, after: int) -> int | None:
    """Fold a page of the audit that belongs to a stream: what was written of its room between its first entry and the
    last one that was folded, so that a report does not change after the show. Return after which number the next page
    begins, None = that is all. Runs in the ledger's reading thread.
    """
    tenant, name = split_name(stream.room)
    found, following = audit_page(reader, AuditFilter(tenant, room=name), after, AUDIT_PAGE, AUDIT_BYTES)
    for number, at_ms, entry in found:
        if number > fold.last_number:
            return None
        fold.action(
            at_ms, entry.operation, entry.actor_kind, entry.actor, entry.subject, entry.reason, entry.outcome,
            entry.request,
        )  # fmt: skip
    return None if following is None or following >= fold.last_number else following


def read_report(
    reader: Reader, room: str, epoch: int | None, kinds: Mapping[str, ActivityKind]
) -> dict[str, Any] | None:
    """Return the report of a stream of a room (qualified name), the last one without an ``epoch``; None where the
    ledger has none. Any: JSON. Takes some 30 us an entry. LedgerDamaged, sqlite3.Error."""
    with reader.snapshot():
        stream = find_stream(reader, room, epoch)
        if stream is None:
            return None
        fold = ShowFold(room, stream.epoch, kinds)
        take_entries(fold, all_entries(reader, stream))
        after: int | None = stream.after
        while after is not None:
            after = take_audit(reader, fold, stream, after)
    return None if fold.is_empty else fold.report()
