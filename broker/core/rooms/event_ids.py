"""Ids of events for clients that keep a position without being able to prove who they are: ``EPOCH:OFFSET:SIGNATURE``.

A guest may not name a position of its own, or it could read a room's past with an offset of 0. An id that the broker
has signed shows that the guest had come as far: what was published since may follow.
"""

from __future__ import annotations

import hmac
import re

from protocol.resume import StreamPosition

__all__ = ["EventIds"]

SIGNATURE_BYTES = 10
_read = re.compile(r"([0-9]{1,20}):([0-9]{1,20}):([0-9a-f]{20})").fullmatch


class EventIds:
    """Makes and reads the ids of one broker's events. ``key``: 32 bytes; ids of another key are no ids here."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def use_key(self, key: bytes) -> None:
        """Use another key from now on."""
        self._key = key

    def of(self, room: str, epoch: int, offset: int) -> str:
        """Return the id of a position in a room's stream."""
        position = f"{epoch}:{offset}"
        return f"{position}:{self._signature(room, position)}"

    def mask_key(self, room: str) -> bytes:
        """Return the key of a room's masks over users: it changes with that of the ids."""
        return hmac.digest(self._key, f"mask {room}".encode(), "sha256")

    def read(self, room: str, text: str) -> StreamPosition | None:
        """Return the position that an id of this room names; None for anything that this broker did not make."""
        found = _read(text)
        if found is None or not hmac.compare_digest(found[3], self._signature(room, f"{found[1]}:{found[2]}")):
            return None
        return StreamPosition(int(found[1]), int(found[2]))

    def _signature(self, room: str, position: str) -> str:
        return hmac.digest(self._key, f"{position} {room}".encode(), "sha256")[:SIGNATURE_BYTES].hex()
