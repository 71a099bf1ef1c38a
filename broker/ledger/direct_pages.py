"""Pages of the must-deliver messages of one user, whatever their state."""

from __future__ import annotations

from broker.ledger.entries import DirectState, StoredDirect
from broker.ledger.reader import Reader

__all__ = ["read_directs"]

SCAN_DIRECTS = 2000
"""Messages of a user that one page inspects."""


def read_directs(
    reader: Reader, user: str, state: DirectState | None, after: int, limit: int, max_bytes: int
) -> tuple[list[StoredDirect], int | None]:
    """Return messages of a user with numbers above ``after`` that are in ``state`` (None: any), in order, and the
    number after which to continue, None = there are no more.

    Inspects `SCAN_DIRECTS` at most, and ends with the one whose body exceeds ``max_bytes``. LedgerDamaged,
    sqlite3.Error.
    """
    rows = reader.connection.execute(
        "SELECT direct_id, state FROM directs WHERE user = ? AND direct_id > ? ORDER BY direct_id LIMIT ?",
        (user, after, SCAN_DIRECTS),
    ).fetchall()
    found: list[StoredDirect] = []
    last = after
    for direct_id, stored_state in rows:
        if len(found) == limit or max_bytes < 0:
            return found, last
        last = direct_id
        if state in (None, stored_state):
            stored = reader.direct(user, direct_id)
            if stored is not None:  # maintenance may remove it between the two reads
                found.append(stored)
                max_bytes -= len(stored.body)
    return found, last if len(rows) == SCAN_DIRECTS else None
