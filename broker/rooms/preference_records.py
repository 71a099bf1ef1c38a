"""Preferences of users in the ledger, as far as rooms have to know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.ledger import Reader, StoredRecord
from broker.ledger.inbox_rows import PREFERENCES
from broker.ledger.records import read_records

__all__ = ["read_preferences"]


def read_preferences(reader: Reader) -> list[tuple[str, str, bool | str]]:
    """Return the preferences of all users: user, name and value. Runs in the ledger's reading thread."""
    return list(read_records(reader, PREFERENCES, _preference))


def _preference(record: StoredRecord, body: Sequence[Any]) -> tuple[str, str, bool | str]:
    return record.subject, record.name, body[0]
