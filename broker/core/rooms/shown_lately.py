"""Messages that a room has shown lately: what a report of a user is about, and what was said around it.

Danmaku have no offset: a report names author and text, and means the last one of that author with that text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from broker.core.rooms.stream import StoredEvent
from protocol.activities.reviews import ContextMessage
from protocol.codes import CUSTOM_TYPE_MIN, MessageType
from protocol.messages import Event, TickEntry

__all__ = ["REPORTABLE", "ShownLately", "is_reportable"]

MAX_ENTRIES = 300
"""Danmaku that are kept: 15 s of what a viewer is shown at most."""
MAX_AGE_MS = 60_000
BEFORE, AFTER = 10, 5
"""Messages before and after the reported one that a reviewer sees."""
MAX_TEXT_CHARS = 256
REPORTABLE = frozenset(
    {MessageType.DANMAKU, MessageType.EMOTE, MessageType.ANNOUNCEMENT, MessageType.MEDIA, MessageType.HIGHLIGHT}
)
"""Built-in types that people write; the deployment's own are reportable too."""

Shown = tuple[int, TickEntry]


def is_reportable(kind: int) -> bool:
    """Return whether messages of a type may be reported."""
    return kind in REPORTABLE or kind >= CUSTOM_TYPE_MIN


class ShownLately:
    """Danmaku of the last minute, `MAX_ENTRIES` at most, oldest first, with the times of their ticks."""

    __slots__ = ("_shown",)

    def __init__(self) -> None:
        self._shown: deque[Shown] = deque(maxlen=MAX_ENTRIES)

    def __iter__(self) -> Iterator[Shown]:
        return iter(self._shown)

    def extend(self, items: Sequence[Shown]) -> None:
        """Add the danmaku of a tick."""
        shown = self._shown
        while shown and items and shown[0][0] < items[0][0] - MAX_AGE_MS:
            shown.popleft()
        shown.extend(items)

    def replace(self, change: Callable[[Shown], Shown | None]) -> None:
        """Put ``change(item)`` in place of each; None = it goes."""
        changed = (change(item) for item in self._shown)
        self._shown = deque((item for item in changed if item is not None), MAX_ENTRIES)

    def find(self, user: str, text: str) -> Shown | None:
        """Return the last danmaku of a user with a text: the user may have said the same as its first author."""
        for at_ms, entry in reversed(self._shown):
            if text == _text_of(entry.payload) and (user == entry.user_id or user in entry.senders):
                return at_ms, entry
        return None

    def around(self, at_ms: int, events: Iterable[StoredEvent]) -> tuple[ContextMessage, ...]:
        """Return what was shown before and after a time, in order: danmaku, and those of ``events``."""
        said = [
            ContextMessage(shown_at_ms, entry.user_id, entry.name, entry.type, _text_of(entry.payload)[:MAX_TEXT_CHARS])
            for shown_at_ms, entry in self._shown
        ]
        said += [_context_of(each.event) for each in events if each.audience is None and is_reportable(each.event.type)]
        said.sort(key=lambda each: each.at_ms)
        before = [each for each in said if each.at_ms <= at_ms][-BEFORE - 1 :]
        after = [each for each in said if each.at_ms > at_ms][:AFTER]
        return (*before, *after)


def _context_of(event: Event) -> ContextMessage:
    text = event.payload.text if event.type == MessageType.HIGHLIGHT else _text_of(event.payload)
    return ContextMessage(event.at_ms, event.user_id, event.name, int(event.type), text[:MAX_TEXT_CHARS])


def _text_of(payload: Any) -> str:
    """Return the text of a payload: itself, or its first field that is one. Any: of any type."""
    if isinstance(payload, str):
        return payload
    if isinstance(payload, tuple | list):
        return next((each for each in payload if isinstance(each, str)), "")
    return ""
