"""Where conversations are kept: in the ledger, or, without one, in memory until the broker ends."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from broker.core.users.conversations import ConversationTable
from broker.ledger import (
    Committed,
    Item,
    Key,
    KeyResult,
    Ledger,
    LedgerResult,
    Reader,
    RecordPut,
    RecordRemoved,
    Repeated,
    SubmitResult,
)
from broker.users.conversation_records import (
    MESSAGE,
    SHADOWED,
    author_of_shadowed,
    copies_of,
    load_conversations,
    message_of,
    message_removal,
    offset_of,
    read_messages,
    removals_of,
)
from protocol.activities.conversations import ConversationMessage
from protocol.frames import unpack_body

__all__ = ["LedgerMessages", "MemoryMessages", "MessageStore"]

MEMORY_BYTES = 64 * 1024 * 1024
"""Of all messages in memory: a further one removes the oldest from the history."""
MEMORY_MESSAGES = 200_000
MEMORY_KEYS = 100_000
"""Idempotency keys in memory: a further one takes the place of the oldest."""

Found = tuple[list[ConversationMessage], bool]


class MessageStore(Protocol):
    """What conversations, presence and calls write and read."""

    def record(
        self, items: Sequence[Item], on_done: Callable[[LedgerResult], None], keys: Sequence[Key] = ()
    ) -> SubmitResult:
        """Write items; ``on_done`` gets the result, at once or later."""
        ...

    async def load(self) -> ConversationTable:
        """Return the conversations of the last run."""
        ...

    async def messages(self, conversation: str, viewer: str | None, after: int, before: int, limit: int) -> Found:
        """Return messages as `broker.users.conversation_records.read_messages`."""
        ...

    async def copies(self, conversation: str, message: ConversationMessage) -> tuple[Item, ...]:
        """Return what takes the content of a message out of inboxes and outbox."""
        ...

    async def first_result(self, key: Key) -> KeyResult | None:
        """Return what the first submission with a key came to; None: it is not known."""
        ...

    async def removals(self, conversation: str) -> list[RecordRemoved]:
        """Return what removes all that is kept of a conversation."""
        ...


class LedgerMessages:
    """Conversations in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.record = ledger.record

    async def load(self) -> ConversationTable:
        """See `MessageStore`. LedgerRefused, sqlite3.Error, also below."""
        return await self._ledger.ask(load_conversations, ConversationTable())

    async def messages(self, conversation: str, viewer: str | None, after: int, before: int, limit: int) -> Found:
        """See `MessageStore`."""
        return await self._ledger.ask(read_messages, conversation, viewer, after, before, limit)

    async def copies(self, conversation: str, message: ConversationMessage) -> tuple[Item, ...]:
        """See `MessageStore`."""
        return await self._ledger.ask(copies_of, conversation, message)

    async def first_result(self, key: Key) -> KeyResult | None:
        """See `MessageStore`."""
        return await self._ledger.ask(Reader.first_result, key.digest)

    async def removals(self, conversation: str) -> list[RecordRemoved]:
        """See `MessageStore`."""
        return await self._ledger.ask(removals_of, conversation)


class MemoryMessages:
    """Messages and keys in memory; what else is recorded is held by those who record it."""

    def __init__(
        self, max_messages: int = MEMORY_MESSAGES, max_bytes: int = MEMORY_BYTES, max_keys: int = MEMORY_KEYS
    ) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._max_keys = max_keys
        self._by_conversation: dict[str, dict[int, tuple[str | None, bytes]]] = {}
        """Author of a message that its author alone is shown (None: of another one) and body, by offset."""
        self._order: deque[tuple[str, int]] = deque()
        """Messages in the order in which they came; those that were removed stay here until they are the oldest."""
        self._keys: OrderedDict[bytes, KeyResult] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all bodies."""
        return self._nbytes

    def __len__(self) -> int:
        return sum(map(len, self._by_conversation.values()))

    def record(
        self, items: Sequence[Item], on_done: Callable[[LedgerResult], None], keys: Sequence[Key] = ()
    ) -> SubmitResult:
        """See `MessageStore`: ``on_done`` is called at once."""
        known = {key.digest: self._keys[key.digest] for key in keys if key.digest in self._keys}
        if known:
            reused = [key.digest for key in keys if key.digest in known and known[key.digest][3] != key.fingerprint]
            on_done(Repeated(known, frozenset(reused)))
            return SubmitResult.QUEUED
        for item in items:
            if isinstance(item, RecordPut) and item.kind in (MESSAGE, SHADOWED):
                shadowed = author_of_shadowed(item.name) if item.kind == SHADOWED else None
                self._put(item.subject, offset_of(item.name), shadowed, item.body)
            elif isinstance(item, RecordRemoved) and item.kind in (MESSAGE, SHADOWED):
                self._remove(item.subject, offset_of(item.name))
        for key in keys:
            self._keys[key.digest] = KeyResult(key.outcome, 0, key.answer, key.fingerprint)
            if len(self._keys) > self._max_keys:
                self._keys.popitem(last=False)
        on_done(Committed((), ()))
        return SubmitResult.QUEUED

    def _put(self, conversation: str, offset: int, shadowed: str | None, body: bytes) -> None:
        messages = self._by_conversation.setdefault(conversation, {})
        before = messages.get(offset)
        if before is None:
            self._order.append((conversation, offset))
        else:
            self._nbytes -= len(before[1])
        messages[offset] = shadowed, body
        self._nbytes += len(body)
        while self._nbytes > self._max_bytes or len(self._order) > self._max_messages:
            self._remove(*self._order.popleft())

    def _remove(self, conversation: str, offset: int) -> None:
        messages = self._by_conversation.get(conversation, {})
        found = messages.pop(offset, None)
        self._nbytes -= 0 if found is None else len(found[1])
        if not messages:
            self._by_conversation.pop(conversation, None)

    async def load(self) -> ConversationTable:
        """See `MessageStore`: there are none."""
        return ConversationTable()

    async def messages(self, conversation: str, viewer: str | None, after: int, before: int, limit: int) -> Found:
        """See `MessageStore`. O(kept messages of the conversation)."""
        found = [
            (offset, body)
            for offset, (shadowed, body) in self._by_conversation.get(conversation, {}).items()
            if offset > after and (not before or offset < before) and (viewer is None or shadowed in (None, viewer))
        ]
        page = found[-limit:] if before else found[:limit]
        return [message_of(unpack_body(body)) for _, body in page], len(found) > limit

    async def copies(self, conversation: str, message: ConversationMessage) -> tuple[Item, ...]:
        """See `MessageStore`: there are none."""
        return ()

    async def first_result(self, key: Key) -> KeyResult | None:
        """See `MessageStore`."""
        return self._keys.get(key.digest)

    async def removals(self, conversation: str) -> list[RecordRemoved]:
        """See `MessageStore`: of the messages, as nothing else is held here."""
        messages = self._by_conversation.get(conversation, {})
        return [message_removal(conversation, offset, shadowed) for offset, (shadowed, _) in messages.items()]
