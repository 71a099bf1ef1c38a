"""Changes of other nodes to what holds on every node: sanctions, revocations, lists, hints, preferences, inboxes.

They come from the broker's log, in its order (`broker.rooms.broker_log`), and hold here from then on, on the open links
of this node too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from broker.auth.ticket_keys import TicketKeys
from broker.core.tenants.names import split_name
from broker.core.users.revocations import Revocation, RevokedToken, TooManyTokens
from broker.ledger import Committed, Item, LedgerResult, Reader, RecordPut, RecordRemoved
from broker.operations.brokers import API_KEYS_CHANGED
from broker.operations.parts import Parts
from broker.operations.sanctions import enforce
from broker.operations.tokens import end_revoked
from broker.rooms import hints, locks, word_lists
from broker.rooms.broker_log import OnHeld
from broker.rooms.preference_records import read_preferences
from broker.users import (
    cards,
    conversation_records,
    desk_rows,
    presence,
    revocations,
    rtc,
    sanction_records,
    triggered,
)
from broker.users.settings import PREFERENCES, TAGS
from protocol.frames import unpack_body

__all__ = ["DECIDED_KINDS", "FIRST_HOLDS", "SHARED_KINDS", "SharedRecords"]

log = structlog.get_logger("roomcast.nodes")

SECRETS = "nodes.secrets"
"""Kind of the record with the keys for tickets."""

DECIDED_KINDS = conversation_records.KINDS | {
    conversation_records.CARD, cards.OF_USER, presence.KIND, rtc.KIND, desk_rows.SETTINGS, desk_rows.AGENT,
    desk_rows.CONVERSATION, triggered.RULE, triggered.WAITING,
}  # fmt: skip
"""Kinds of the records that the owner of the broker's log alone decides, as it has in memory what they depend on."""
SHARED_KINDS = DECIDED_KINDS | frozenset(
    {
        sanction_records.KIND, sanction_records.ACTION_KIND, revocations.KIND, revocations.TOKEN_KIND,
        word_lists.KIND, locks.KIND, locks.FENCE_KIND, hints.KIND, PREFERENCES, TAGS, API_KEYS_CHANGED, SECRETS,
    }
)  # fmt: skip
"""Kinds of the records that hold on every node."""
_READ_AGAIN = frozenset({word_lists.KIND, hints.KIND})
"""Kinds of which all that hold are read again where one has changed."""
FIRST_HOLDS = frozenset({SECRETS})
"""Those of which the first that was put holds."""


class SharedRecords:
    """Takes changes over. ``start``: starts a task; ``use_secrets``: gets the keys for tickets of all nodes."""

    def __init__(self, parts: Parts, start: Callable[..., None], use_secrets: Callable[[TicketKeys], None]) -> None:
        self._parts = parts
        self._start = start
        self._use_secrets = use_secrets
        self._changed: set[str] = set()
        """Kinds of records that are to be read from the ledger again."""
        self._when_read: list[Callable[[], None]] = []
        self._is_reading = False
        self.secrets: TicketKeys | None = None
        """Keys for tickets of all nodes: the first that the log has."""

    def offer_secrets(self, keys: TicketKeys) -> None:
        """Offer keys for tickets, which hold where no node has offered others before."""
        if self.secrets is None and self._parts.ledger is not None:
            item = RecordPut(SECRETS, "", "", self._parts.unix_ms(), keys.encode())
            self._parts.ledger.record((item,), lambda result: None)

    def follow(self, items: Sequence[Item], result: LedgerResult, is_own: bool, on_held: OnHeld) -> None:
        """Let items hold here, then call ``on_held``. What this node has submitted itself its own code lets hold."""
        links, again = 0, set[str]()
        if not isinstance(result, Committed):
            on_held(0)
            return
        for item in items:
            if isinstance(item, RecordPut) and item.kind == sanction_records.ACTION_KIND:
                action = sanction_records.read_action(unpack_body(item.body))
                self._parts.sanctions.table.apply(action)
                links += 0 if is_own else enforce(self._parts, action)
            elif isinstance(item, RecordPut) and item.kind == SECRETS:
                if self.secrets is None:
                    self.secrets = TicketKeys.decode(item.body)
                    self._use_secrets(self.secrets)
            elif is_own:
                continue
            elif isinstance(item, RecordPut) and item.kind in (revocations.KIND, revocations.TOKEN_KIND):
                links += self._revoke(item)
            elif isinstance(item, (RecordPut, RecordRemoved)):
                again.add(item.kind)
                if item.kind == PREFERENCES and isinstance(item, RecordPut):
                    self._prefer(item)
        if not is_own and self._parts.inboxes is not None:
            self._parts.inboxes.follow(items, result)
        if API_KEYS_CHANGED in again:
            self._read_api_keys()
        if again & _READ_AGAIN:
            self._changed |= again
            self._when_read.append(partial(on_held, links))
            if not self._is_reading:
                self._is_reading = True
                self._start(self._read_again)
        else:
            on_held(links)

    async def _read_again(self) -> None:
        """Read what has changed from the ledger, one after the other: what was read first does not hold last."""
        parts = self._parts
        try:
            while self._when_read:
                changed, self._changed = self._changed, set()
                done, self._when_read = self._when_read, []
                try:
                    if word_lists.KIND in changed:
                        await parts.word_lists.load()
                    if hints.KIND in changed and parts.ledger is not None:
                        await parts.hub.hints.load(parts.ledger)
                except Exception:
                    log.exception("what another node has changed cannot be read")
                for call in done:
                    call()
        finally:
            self._is_reading = False

    async def load(self) -> None:
        """Read from the ledger what holds on every node, where the copy of the log was filled from a checkpoint."""
        parts, ledger = self._parts, self._parts.ledger
        if ledger is None:
            return
        for record in await ledger.ask(Reader.records, SECRETS):
            if self.secrets is None:
                self.secrets = TicketKeys.decode(record.body)
                self._use_secrets(self.secrets)
        await parts.sanctions.load()
        await parts.revocations.load()
        await parts.word_lists.load()
        await parts.hub.hints.load(ledger)
        parts.hub.preferences.load(await ledger.ask(read_preferences))
        if parts.inboxes is not None:
            await parts.inboxes.load()
        self._read_api_keys()

    def _revoke(self, item: RecordPut) -> int:
        """Let a revocation hold; return the links that it ends."""
        table = self._parts.revocations.table
        tenant, name = split_name(item.subject)
        if item.kind == revocations.KIND:
            table.revoke(Revocation(tenant, name, item.at_ms))
        else:
            try:
                table.revoke_token(RevokedToken(tenant, name, item.at_ms), self._parts.unix_ms())
            except TooManyTokens:
                return 0
        return sum(end_revoked(self._parts, session) for session in self._parts.users.all_sessions())

    def _read_api_keys(self) -> None:
        try:
            self._parts.control.read_api_keys()
        except (OSError, ValueError) as error:
            log.error("the API keys that another node has changed cannot be read", why=str(error))

    def _prefer(self, item: RecordPut) -> None:
        self._parts.hub.preferences.change(item.subject, {item.name: unpack_body(item.body)[0]})
        if item.name == "visibility":
            if self._parts.presences is not None:
                self._parts.presences.note(item.subject)
            for room in self._parts.hub:
                room.state.rankings.show_again()
