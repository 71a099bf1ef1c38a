"""Rules of records that stand in messages, payloads and results of operations alike."""

from __future__ import annotations

from .fields import any_value, integer, member_id, optional, record, text
from .messages import PinnedMessage, RoomKey

__all__ = ["pinned_message", "room_key"]

_count = integer(0)
room_key = record(RoomKey, (text(1, 128), any_value, _count, optional(_count), optional(member_id)))
"""Rule of a key of a room."""
pinned_message = record(
    PinnedMessage,
    (text(1, 64), integer(1, 255), any_value, text(0, 64), text(0, 64), _count, _count, _count),
)
"""Rule of one pinned message."""
