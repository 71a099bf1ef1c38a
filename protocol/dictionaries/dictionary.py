"""`Dictionary`: bytes and their name."""

from __future__ import annotations

import hashlib

__all__ = ["MAX_DICTIONARY_BYTES", "Dictionary"]

MAX_DICTIONARY_BYTES = 64 * 1024
"""Largest dictionary: a match of lz4 reaches no further back."""


class Dictionary:
    """One dictionary. ``data``: 1 to MAX_DICTIONARY_BYTES bytes. Raises ValueError for another number of bytes."""

    __slots__ = ("data", "name")

    def __init__(self, data: bytes) -> None:
        if not 0 < len(data) <= MAX_DICTIONARY_BYTES:
            raise ValueError(f"a dictionary has 1 to {MAX_DICTIONARY_BYTES} bytes, not {len(data)}")
        self.data = data
        self.name = hashlib.sha256(data).hexdigest()
        """SHA-256 of the bytes, in hex."""
