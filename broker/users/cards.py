"""Cards that the platform shows to users and in conversations: each state is kept, and shown once.

Reports of one card are judged one after the other, by what is on the disk; those of different cards do not wait for
each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from broker.core.tenants.names import tenant_of
from broker.core.users.cards import MAX_CARDS, CardState, is_newer
from broker.core.users.conversations import Conversation
from broker.ledger import (
    Committed,
    Item,
    Ledger,
    LedgerResult,
    Reader,
    RecordPut,
    RecordRemoved,
    Repeated,
    StoredRecord,
    SubmitResult,
    make_key,
)
from broker.ledger.pending import PendingResult
from broker.users.conversation_records import CARD
from broker.users.conversations import Conversations
from broker.users.inbox import Inboxes
from protocol.activities import activity_payload
from protocol.activities.cards import Card, CardStatus
from protocol.activities.conversations import ConversationMessage
from protocol.codes import MessageType
from protocol.frames import pack_body, unpack_body
from protocol.json_values import as_json

__all__ = ["OF_USER", "Cards"]

OF_USER = "user.card"
"""Kind of the records of cards that a user is shown, subject: the user; name: the kind of the card, a space, its id.
Erased with all records of a user."""


class Cards:
    """All cards of one broker. Counter ``sent`` only grows."""

    def __init__(
        self, ledger: Ledger, inboxes: Inboxes, conversations: Conversations, unix_ms: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._inboxes = inboxes
        self._conversations = conversations
        self._unix_ms = unix_ms
        self._busy: dict[tuple[str, str], trio.Event] = {}
        """Cards about which a report is being written, by subject and name."""
        self.sent = 0
        """Cards that were shown in a new state."""

    async def show(self, card: Card, target: str | Conversation) -> tuple[int, CardState] | None:
        """Show a card to a user (qualified id), or in a conversation; return its number, 0 = it is not later than what
        is known, and the state that the card has. None: the ledger cannot take it. LedgerRefused, sqlite3.Error.
        """
        kind, subject = (OF_USER, target) if isinstance(target, str) else (CARD, target.id)
        name = f"{card.kind.name.lower()} {card.id}"
        place = subject, name
        while (busy := self._busy.get(place)) is not None:
            await busy.wait()
        self._busy[place] = trio.Event()
        pending = PendingResult[LedgerResult]()
        is_submitted = False

        def release() -> None:
            self._busy.pop(place).set()

        def on_written(result: LedgerResult) -> None:
            # Also where the caller does not wait any more: the next report must find this one on the disk.
            release()
            self.sent += isinstance(result, Committed)
            pending.set(result)

        try:
            records = await self._ledger.ask(Reader.records, kind, subject)
            before = next((_state(each) for each in records if each.name == name), None)
            after = CardState(card.status, card.version)
            if before is not None and not is_newer(card.kind, before, after):
                return 0, before
            kept = RecordPut(kind, subject, name, self._unix_ms(), pack_body((int(card.status), card.version)))
            items: list[Item] = [kept, *_removed(records, name)]
            if isinstance(target, str):
                submitted = self._to_user(card, target, items, on_written)
                offset = 0
            else:
                offset = target.next
                submitted = self._to_conversation(card, target, items, on_written)
            is_submitted = submitted is SubmitResult.QUEUED
        finally:
            if not is_submitted:
                release()
        if not is_submitted:
            return None
        result = await pending.wait()
        if isinstance(result, Repeated):
            return 0, after  # its state is forgotten, as there are too many cards
        if not isinstance(result, Committed):
            return None
        return offset or result.direct_ids[0], after

    def _to_user(
        self, card: Card, user: str, items: Sequence[Item], on_done: Callable[[LedgerResult], None]
    ) -> SubmitResult:
        entry = self._inboxes.entry(user, MessageType.ACTIVITY, activity_payload("cards.changed", card.id, card))

        def on_written(result: LedgerResult) -> None:
            if isinstance(result, Committed):
                self._inboxes.written((entry,), result.direct_ids)
            on_done(result)

        return self._ledger.record((*items, entry), on_written)

    def _to_conversation(
        self, card: Card, conversation: Conversation, items: Sequence[Item], on_done: Callable[[LedgerResult], None]
    ) -> SubmitResult:
        if self._conversations.table.find(conversation.id) is not conversation:
            return SubmitResult.UNAVAILABLE  # another node has decided meanwhile
        message = ConversationMessage(0, "", "", 0, card.title, card=as_json(card))
        key = make_key(
            "card", tenant_of(conversation.id), conversation.id, card.kind.name, card.id, card.status.name,
            str(card.version),
        )  # fmt: skip
        return self._conversations.send(conversation, message, on_done, key, then=items)


def _state(record: StoredRecord) -> CardState:
    status, version = unpack_body(record.body)[:2]
    return CardState(CardStatus(status), version)


def _removed(records: Sequence[StoredRecord], name: str) -> list[RecordRemoved]:
    """Return what makes room for a card of this name: the removal of those whose state is older than of all others."""
    others = sorted((each for each in records if each.name != name), key=lambda each: each.at_ms)
    return [RecordRemoved(*each[:3]) for each in others[: max(0, len(others) + 1 - MAX_CARDS)]]
