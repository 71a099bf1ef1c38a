"""A shown danmaku as an entry of a tick."""

from __future__ import annotations

from typing import Any

from broker.core.chat.coalesce import PendingDanmaku
from protocol.codes import MessageType
from protocol.messages import TickEntry

__all__ = ["tick_entry"]

_DANMAKU_TYPES = (MessageType.DANMAKU, MessageType.EMOTE)
_new = tuple.__new__


def tick_entry(item: PendingDanmaku) -> TickEntry:
    """Return the entry of a tick for an item of the danmaku window."""
    payload: Any
    if item.type not in _DANMAKU_TYPES:
        payload = item.extra
    elif item.style is None:
        payload = (item.text,)
    else:
        payload = (item.text, item.style)
    return _new(TickEntry, (item.type, item.user_id, item.name, payload, item.count, item.senders, item.role))
