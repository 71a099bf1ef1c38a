"""What users of one broker have beside rooms: conversations, cards, presence, RTC calls, marketing, service desks."""

from __future__ import annotations

from collections.abc import Callable

import trio

from broker.core.clock import TrustedClock
from broker.core.tenants.names import qualify
from broker.core.users.preferences import PreferenceTable
from broker.ledger import Ledger
from broker.users.cards import Cards
from broker.users.conversations import Conversations
from broker.users.desks import Desks
from broker.users.inbox import Inboxes
from broker.users.message_stores import LedgerMessages, MemoryMessages
from broker.users.presence import Presences
from broker.users.registry import LinkedUsers, UserRegistry
from broker.users.rtc import RtcService
from broker.users.shared_users import SharedUsers
from broker.users.triggered import TriggeredMarketing
from broker.webhooks.events import WebhookEvents

__all__ = ["Talk"]


class Talk:
    """Conversations, cards, presence, RTC calls, triggered marketing and service desks of one broker."""

    def __init__(
        self,
        ledger: Ledger | None,
        inboxes: Inboxes | None,
        users: UserRegistry,
        preferences: PreferenceTable,
        trusted: TrustedClock,
        clock: Callable[[], float],
        events: WebhookEvents,
        *,
        is_shared: bool = False,
    ) -> None:
        """``ledger``, ``inboxes`` None: everything is in memory until the broker ends, and there are no cards and no
        triggered marketing. ``is_shared``: several nodes have the users, and one of them decides at a time."""
        unix_ms = trusted.now_ms
        self.shared = SharedUsers(users) if is_shared else None
        """Users of all nodes; None: there is one node."""
        linked: LinkedUsers = self.shared or users
        store = MemoryMessages() if ledger is None else LedgerMessages(ledger)
        self._ledger = ledger
        self.conversations = Conversations(store, inboxes, linked, unix_ms, events)
        self.cards: Cards | None = None
        self.marketing: TriggeredMarketing | None = None
        if ledger is not None and inboxes is not None:
            self.cards = Cards(ledger, inboxes, self.conversations, unix_ms)
            self.marketing = TriggeredMarketing(ledger, inboxes, unix_ms)
        self.presences = Presences(store, self.conversations, linked, preferences, unix_ms)
        self.rtc = RtcService(store, linked, unix_ms, clock, events, is_shared=is_shared)
        self.desks = Desks(store, self.conversations, linked, trusted.continued_ms, events)
        self.desks.on_holder = self.rtc.follow
        linked.on_change = self._on_change

    @property
    def offered(self) -> int:
        """Offers of triggered marketing that were handed to the ledger."""
        return 0 if self.marketing is None else self.marketing.offered

    @property
    def waiting_offers(self) -> int:
        """Offers of triggered marketing that wait."""
        return 0 if self.marketing is None else len(self.marketing.table)

    @property
    def cards_sent(self) -> int:
        """Cards that were shown in a new state."""
        return 0 if self.cards is None else self.cards.sent

    def _on_change(self, user: str, is_online: bool) -> None:
        self.presences.on_change(user, is_online)
        self.rtc.on_change(user, is_online)
        self.desks.on_change(user, is_online)

    async def load(self) -> None:
        """Take over what the last run has kept. At the start, before connections are accepted."""
        await self.conversations.load()
        if self._ledger is not None:
            await self.presences.load(self._ledger)
            await self.desks.load(self._ledger)
        if self.marketing is not None:
            await self.marketing.load()

    async def take_over(self) -> None:
        """Read from the ledger what the node has decided that did before this one."""
        self.leave()
        await self.conversations.load()
        if self._ledger is not None:
            await self.presences.load(self._ledger)
            await self.rtc.load(self._ledger)
            await self.desks.load(self._ledger)
        if self.marketing is not None:
            await self.marketing.load()

    def leave(self) -> None:
        """Forget all: another node decides now."""
        self.conversations.leave()
        self.presences.leave()
        self.rtc.leave()
        self.desks.leave()
        if self.marketing is not None:
            self.marketing.leave()
        if self.shared is not None:
            self.shared.drop_all()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of the parts until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.conversations.run)
            await nursery.start(self.presences.run)
            await nursery.start(self.rtc.run)
            await nursery.start(self.desks.run)
            if self.marketing is not None:
                await nursery.start(self.marketing.run)
            task_status.started()

    def erase(self, tenant: str, user: str) -> None:
        """Forget a user (plain id) who is being erased."""
        self.desks.erase(tenant, user)
        self.conversations.erase(tenant, user)
        self.presences.forget(qualify(tenant, user))
        self.rtc.forget(qualify(tenant, user))
        if self.marketing is not None:
            self.marketing.forget(qualify(tenant, user))
