"""Many rows in few statements.

Each step of a statement gives up the interpreter's lock, and beside a busy event loop it takes up to half a millisecond
to get it back: so a batch should take few steps. Statements have some sizes only, so that they stay prepared; what is
left of a batch is filled up with empty rows where a larger statement is at least half full.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain as flatten
from typing import Any

__all__ = ["insert_rows", "placeholders", "sizes_of"]

SIZES = (256, 64, 16, 4, 2, 1)


def sizes_of(count: int) -> Iterator[int]:
    """Yield the sizes of the statements that take ``count`` rows; the last may be larger than what is left."""
    above = 0
    for size in SIZES:
        if above and above > count > 0 and 2 * count >= above:
            yield above
            return
        while count >= size:
            yield size
            count -= size
        above = size


def insert_rows(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write rows, none of which has NULL in its first column; ``statement`` ends with the names of the columns."""
    position = 0
    for size in sizes_of(len(rows)):
        chunk = rows[position : position + size]
        position += size
        width = len(chunk[0])
        values = tuple(flatten.from_iterable(chunk))
        if len(chunk) == size:
            connection.execute(f"{statement} VALUES {placeholders(width, size)}", values)
        else:
            filled = values + (None,) * (width * (size - len(chunk)))
            connection.execute(
                f"{statement} SELECT * FROM (VALUES {placeholders(width, size)}) WHERE column1 IS NOT NULL", filled
            )


@lru_cache(maxsize=64)
def placeholders(width: int, rows: int) -> str:
    """Return the placeholders of some rows in SQL."""
    return ", ".join(["(" + ", ".join("?" * width) + ")"] * rows)
