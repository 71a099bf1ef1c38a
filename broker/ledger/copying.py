"""What a copy of the broker's log holds, page by page: other copies are filled with it (`CopyFilled`).

The keys of the log are among all keys of a ledger; a record of kind `LOG_KEY` marks each of them.

Pages are read while the log goes on. What it has of records meanwhile holds in the copy that is filled, whatever page
comes next; but numbers and states of messages follow from those before, which that copy does not have yet. So it leaves
the messages out that the log has between the pages (`changes_inboxes`), and the users that they were for come once more
at the end (`read_changed`), when nothing comes between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from broker.ledger.entries import (
    CopyFilled,
    DirectAcked,
    DirectEntry,
    DirectsCancelled,
    DirectsRemoved,
    Item,
    RecordPut,
    RecordRemoved,
)
from broker.ledger.key_rows import read_key_rows
from broker.ledger.reader import Reader

__all__ = ["LOG_KEY", "CopyCursor", "changes_inboxes", "key_mark", "read_changed", "read_copy", "read_key_marks"]

LOG_KEY = "nodes.key"
"""Kind of the records that mark the keys of the log, by digest."""
PAGE_ROWS = 200


class CopyCursor(NamedTuple):
    """Where a page begins. ``part``: index of the kind of records, then inboxes, then messages; ``after``: the last row
    of the page before, () = from the first; ``last``: the last row of the messages when their first page was read. What
    came behind it is of users who come once more."""

    part: int = 0
    after: tuple[str | int, ...] = ()
    last: int = -1


def read_copy(
    reader: Reader, kinds: Sequence[str], cursor: CopyCursor, max_bytes: int
) -> tuple[tuple[Item, ...], CopyCursor | None]:
    """Return what one page holds, and where the next begins; None = that was all. Ends after the row with which the
    bodies exceed ``max_bytes``. Runs in the ledger's reading thread. LedgerDamaged, sqlite3.Error."""
    part, after, last = cursor
    items: list[Item] = []
    inboxes: tuple[tuple[str, int, int, int], ...] = ()
    directs: list[tuple[str, int, int, int, int, int, str, bytes, int]] = []
    keys: tuple[tuple[bytes, bytes, int, int, bytes, int], ...] = ()
    base = reader.head_row().inbox_base
    is_full = False
    if part < len(kinds):
        for record in reader.records_after(kinds[part], after, PAGE_ROWS):  # type: ignore[arg-type]  # as was returned
            items.append(RecordPut(*record))
            after = record.subject, record.name
            max_bytes -= len(record.body)
            if max_bytes < 0:
                break
        is_full = len(items) == PAGE_ROWS or max_bytes < 0
        if kinds[part] == LOG_KEY:
            digests = [bytes.fromhex(item.subject) for item in items if isinstance(item, RecordPut)]
            keys = tuple(read_key_rows(reader.connection, reader.cipher, digests))
            known = {digest.hex() for digest, *_ in keys}
            items = [item for item in items if isinstance(item, RecordPut) and item.subject in known]
    elif part == len(kinds):
        inboxes = tuple(reader.inboxes_after(str(after[0]) if after else "", PAGE_ROWS))
        after = (inboxes[-1][0],) if inboxes else ()
        is_full = len(inboxes) == PAGE_ROWS
    else:
        last = reader.last_direct() if last < 0 else last
        for row, direct in reader.directs_after(int(after[0]) if after else 0, last, PAGE_ROWS):
            directs.append(direct)
            after = (row,)
            max_bytes -= len(direct[7])
            if max_bytes < 0:
                break
        is_full = len(directs) == PAGE_ROWS or max_bytes < 0
    if inboxes or directs or keys or not part:
        items.append(CopyFilled(base, inboxes, tuple(directs), keys))
    if is_full:
        return tuple(items), CopyCursor(part, after, last)
    return tuple(items), CopyCursor(part + 1) if part <= len(kinds) else None


def key_mark(digest: bytes) -> RecordPut:
    """Return the record that marks a key of the log."""
    return RecordPut(LOG_KEY, digest.hex(), "", 0, b"")


def changes_inboxes(item: Item) -> bool:
    """Return whether an item changes inboxes or their messages."""
    return isinstance(item, (DirectEntry, DirectAcked, DirectsCancelled, DirectsRemoved))


def read_changed(
    reader: Reader, users: Sequence[str], digests: Sequence[bytes], max_bytes: int
) -> list[tuple[Item, ...]]:
    """Return pages with all that a copy holds of some users' inboxes, and some keys of the log. As `read_copy`."""
    base = reader.head_row().inbox_base
    pages: list[tuple[Item, ...]] = []
    for start in range(0, len(users), PAGE_ROWS):
        some = tuple(users[start : start + PAGE_ROWS])
        pages.append((CopyFilled(base, tuple(reader.inboxes_of(some)), (), (), some),))
        directs, nbytes = [], 0
        for user in some:
            for direct in reader.directs_of(user):
                directs.append(direct)
                nbytes += len(direct[7])
                if nbytes > max_bytes or len(directs) == PAGE_ROWS:
                    pages.append((CopyFilled(base, (), tuple(directs), ()),))
                    directs, nbytes = [], 0
        if directs:
            pages.append((CopyFilled(base, (), tuple(directs), ()),))
    for start in range(0, len(digests), PAGE_ROWS):
        rows = tuple(read_key_rows(reader.connection, reader.cipher, digests[start : start + PAGE_ROWS]))
        marks = [key_mark(digest) for digest, *_ in rows]
        pages.append((*marks, CopyFilled(base, (), (), rows)))
    return pages


def read_key_marks(reader: Reader) -> Iterator[RecordRemoved]:
    """Yield the removals of marks whose keys are not kept any more. Runs in the ledger's reading thread."""
    after: tuple[str, ...] = ()
    while page := reader.records_after(LOG_KEY, after, PAGE_ROWS):
        after = page[-1].subject, page[-1].name
        digests = [bytes.fromhex(each.subject) for each in page]
        known = {row[0].hex() for row in read_key_rows(reader.connection, reader.cipher, digests)}
        yield from (RecordRemoved(LOG_KEY, each.subject, each.name) for each in page if each.subject not in known)
