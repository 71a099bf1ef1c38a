"""Records of one kind, whatever they are about: read at the start of the broker, and removed when they have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from broker.ledger.entries import RecordRemoved, StoredRecord
from broker.ledger.reader import Reader
from broker.ledger.service import Ledger
from protocol.errors import RemoteProtocolError
from protocol.frames import unpack_body

__all__ = ["all_records", "read_records", "remove_records"]

R = TypeVar("R")

PAGE = 1000
"""Records of one query, and of one submission that removes some."""


def all_records(reader: Reader, kind: str) -> Iterator[StoredRecord]:
    """Yield all records of a kind, ordered by subject and name. Runs in the ledger's reading thread. LedgerDamaged,
    sqlite3.Error.
    """
    after = "", ""
    while True:
        page = reader.records(kind, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].subject, page[-1].name


# Any: the kind of a record says what its body holds.
def read_records(reader: Reader, kind: str, make: Callable[[StoredRecord, Sequence[Any]], R]) -> Iterator[R]:
    """Yield what ``make`` returns for each of `all_records` and its unpacked body.

    One of which ``make`` raises TypeError, ValueError or IndexError is of a later version and left out, as is one whose
    body cannot be unpacked.
    """
    for record in all_records(reader, kind):
        try:
            made = make(record, unpack_body(record.body))
        except (RemoteProtocolError, TypeError, ValueError, IndexError):
            continue
        yield made


def remove_records(ledger: Ledger, removals: Sequence[RecordRemoved]) -> None:
    """Submit the removal of records that have ended, without waiting for it. What the ledger cannot take now is found
    ended at the next start.
    """
    for start in range(0, len(removals), PAGE):
        ledger.record(removals[start : start + PAGE], lambda result: None)
