"""Many rows in few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain as flatten
from typing import Any

__all__ = ["CHUNKS", "insert_rows", "placeholders"]

CHUNKS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows of one statement. Each step of a statement gives up the GIL, and in a busy broker it may take 5 ms to get it
back; so a batch should take few steps."""


def insert_rows(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write rows; ``statement`` ends with ``VALUES``."""
    position = 0
    for size in CHUNKS:
        while len(rows) - position >= size:
            values = placeholders(len(rows[0]), size)
            chunk = rows[position : position + size]
            connection.execute(statement + values, tuple(flatten.from_iterable(chunk)))
            position += size


@lru_cache(maxsize=64)
def placeholders(width: int, rows: int) -> str:
    """Return the placeholders of some rows in SQL."""
    return ", ".join(["(" + ", ".join("?" * width) + ")"] * rows)
