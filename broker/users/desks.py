"""Service desks of a broker, one for each tenant: what is decided is written first, and shown when it is durable.

A conversation of a desk is a conversation of users as well: its customer, and the human who holds it, are its members,
and its messages are delivered as those of any other one. A message and the record of the conversation that it changes
are one submission.

Decisions about one conversation are made one after the other; those that the queue or the agents take part in also wait
for each other (`broker.users.turns`). A decision that is written is taken over by the callback of the ledger, whether
its caller waits still or not.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence

import structlog
import trio

from broker.core.tenants.names import plain_name, qualify, tenant_of
from broker.core.users.conversations import DESK_PREFIX, Conversation, ReadPosition, TooMany
from broker.core.users.desk_records import DeskConversation, DeskState
from broker.core.users.desk_streams import AnswerStream
from broker.core.users.service_desk import MAX_AGENTS, Stale
from broker.ledger import Committed, Item, Key, KeyResult, Ledger, LedgerRefused, LedgerResult, SubmitResult, make_key
from broker.ledger.pending import PendingResult
from broker.users.conversation_records import conversation_item as talk_item
from broker.users.conversation_records import member_item
from broker.users.conversations import Conversations
from broker.users.desk_rows import (
    StoredAgent,
    agent_item,
    agent_removal,
    conversation_item,
    conversation_removal,
    desk_view,
    load_desks,
    settings_item,
)
from broker.users.message_stores import MessageStore
from broker.users.registry import LinkedUsers
from broker.users.tenant_desk import Desk
from broker.webhooks.events import WebhookEvents
from protocol.activities import activity_payload
from protocol.activities.conversations import ConversationMessage
from protocol.activities.desk import DeskAsked, DeskAskedData, DeskInterrupted, DeskStreaming
from protocol.codes import Lane, MessageType
from protocol.messages import Direct
from protocol.operations.desk import DeskSettings

__all__ = ["Desks", "NotWritten"]

log = structlog.get_logger("roomcast.desk")

TICK_S = 1.0
SLICE = 200
"""Conversations that are looked at between two checkpoints of the event loop."""
MAX_REMOVED = 2000
"""Records that one submission removes."""

Decide = Callable[[int], DeskConversation]
"""Returns what a conversation becomes at a time (Unix milliseconds); `Stale`, `TooMany`, ValueError."""
OnDone = Callable[[LedgerResult], None]


class NotWritten(Exception):
    """The ledger cannot take it now: nothing was changed."""


class Desks:
    """All desks of one broker. Counters ``changed`` (by what has happened) and ``answers`` only grow."""

    def __init__(
        self,
        store: MessageStore,
        conversations: Conversations,
        users: LinkedUsers,
        unix_ms: Callable[[], int],
        events: WebhookEvents,
    ) -> None:
        """``unix_ms``: the time for deadlines, see `broker.core.clock.TrustedClock.continued_ms`."""
        self._store = store
        self._conversations = conversations
        self._users = users
        self._unix_ms = unix_ms
        self._events = events
        self._by_tenant: dict[str, Desk] = {}
        self._nursery: trio.Nursery | None = None
        self.on_holder: Callable[[str, str, str], None] = lambda conversation, customer, holder: None
        """Called when a conversation that is not resolved has another holder, "" = none (all ids qualified)."""
        self.changed: Counter[str] = Counter()
        """Changes of conversations: opened, queued, assigned, resolved, rated, alarm, closed."""
        self.answers = 0
        """Messages of bots and agents."""

    @property
    def kept(self) -> dict[str, int]:
        """Conversations that are kept, by state."""
        return {
            state.name.lower(): sum(desk.core.count(state) for desk in self._by_tenant.values())
            for state in DeskState
            if state is not DeskState.CLOSED
        }

    @property
    def agents(self) -> int:
        """Agents who are online with a link."""
        return sum(agent.is_available for desk in self._by_tenant.values() for agent in desk.core.agents.values())

    def find(self, tenant: str) -> Desk | None:
        """Return the desk of a tenant; None: it has none."""
        return self._by_tenant.get(tenant)

    # ---- start, tasks

    async def load(self, ledger: Ledger) -> None:
        """Take over the desks of the last run, or of the node that decided before, after the conversations.

        Who holds a conversation has its time to answer from now on: none was left while the broker was down.
        """
        stored = await ledger.ask(load_desks)
        self.leave()
        now_ms = self._unix_ms()
        for tenant, settings in stored.settings.items():
            self._by_tenant[tenant] = Desk(tenant, settings)
        for agent in stored.agents:
            desk = self._by_tenant.get(tenant_of(agent.user))
            if desk is not None:
                self._put_agent(desk, plain_name(agent.user), agent)
        for tenant, row in stored.conversations:
            desk = self._by_tenant.get(tenant)
            if desk is not None and self._talk(desk, row.id) is not None:
                is_held = row.state in (DeskState.BOT, DeskState.ASSIGNED)
                desk.core.apply(row._replace(held_at_ms=now_ms) if is_held else row)
        for conversation in self._conversations.table:
            id, desk = plain_name(conversation.id), self._by_tenant.get(tenant_of(conversation.id))
            if desk is not None and id.startswith(DESK_PREFIX) and desk.core.find(id) is None:
                desk.orphans.append(conversation)
        for desk in self._by_tenant.values():
            self._start(desk)

    def leave(self) -> None:
        """Forget all: another node decides now."""
        for desk in self._by_tenant.values():
            desk.scope.cancel()
        self._by_tenant = {}

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Assign what waits, and let time pass, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for desk in self._by_tenant.values():
                self._start(desk)
            task_status.started()
            await trio.sleep_forever()

    def _start(self, desk: Desk) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._run, desk)

    async def _run(self, desk: Desk) -> None:
        with desk.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._assign, desk)
                nursery.start_soon(self._pass_time, desk)

    async def _assign(self, desk: Desk) -> None:
        while True:
            await desk.wake.wait()
            desk.wake = trio.Event()
            while (row := desk.core.assign(self._unix_ms())) is not None:
                try:
                    await self._assign_one(desk, row.id)
                except Stale:
                    continue  # it was changed meanwhile
                except NotWritten:
                    await trio.sleep(TICK_S)

    async def _assign_one(self, desk: Desk, id: str) -> None:
        def decide(now_ms: int) -> DeskConversation:
            row = desk.core.assign(now_ms)
            if row is None or row.id != id:
                raise Stale
            return row

        await self.change(desk, id, decide, is_of_queue=True)

    async def _pass_time(self, desk: Desk) -> None:
        while True:
            await trio.sleep(TICK_S)
            rows = list(desk.core)
            for start in range(0, len(rows), SLICE):
                for id in desk.core.due(self._unix_ms(), rows[start : start + SLICE]):
                    await self._on_time(desk, id)
                await trio.lowlevel.checkpoint()
            while desk.orphans:
                conversation = desk.orphans.pop()
                try:
                    await self._removed_messages(conversation.id, is_whole=True)
                except NotWritten:
                    desk.orphans.append(conversation)
                    break
                self._conversations.table.remove(conversation)

    async def _on_time(self, desk: Desk, id: str) -> None:
        """Change a conversation as the time has. What the ledger cannot take now is tried again by the next tick."""

        def decide(now_ms: int) -> DeskConversation:
            row = desk.core.on_time(id, now_ms)
            if row is None or (row.state is DeskState.CLOSED and not closing):
                raise Stale
            return row

        row = desk.core.on_time(id, self._unix_ms())
        closing: list[Item] = []
        try:
            if row is not None and row.state is DeskState.CLOSED:
                closing = [
                    conversation_removal(desk.tenant, id),
                    *await self._removed_messages(qualify(desk.tenant, id), is_whole=False),
                ]
            await self.change(desk, id, decide, is_of_queue=True, then=closing)
        except (Stale, NotWritten):
            pass

    async def _removed_messages(self, conversation: str, *, is_whole: bool) -> list[Item]:
        """Remove what is kept of a conversation (qualified id); return what is still to be removed, of ``is_whole``
        nothing. NotWritten."""
        try:
            removals: list[Item] = list(await self._store.removals(conversation))
        except (LedgerRefused, sqlite3.Error) as error:
            log.warning("the ledger cannot be read", why=str(error))
            raise NotWritten from None
        while removals and (is_whole or len(removals) > MAX_REMOVED):
            page, removals = removals[:MAX_REMOVED], removals[MAX_REMOVED:]
            await self._record(page)
        return removals

    async def _record(self, items: Sequence[Item], on_done: OnDone = lambda result: None) -> None:
        """Write items; ``on_done`` gets the result. NotWritten."""
        pending = PendingResult[LedgerResult]()

        def on_written(result: LedgerResult) -> None:
            on_done(result)
            pending.set(result)

        submitted = self._store.record(items, on_written)
        if submitted is not SubmitResult.QUEUED or not isinstance(await pending.wait(), Committed):
            raise NotWritten

    # ---- settings, agents

    async def configure(self, tenant: str, settings: DeskSettings) -> None:
        """Set up the desk of a tenant, or change it. NotWritten."""

        def on_written(result: LedgerResult) -> None:
            if not isinstance(result, Committed):
                return
            desk = self._by_tenant.get(tenant)
            if desk is None:
                desk = self._by_tenant[tenant] = Desk(tenant, settings)
                self._start(desk)
            else:
                desk.use(settings)

        await self._record((settings_item(tenant, settings, self._unix_ms()),), on_written)

    async def set_agent(self, desk: Desk, agent: StoredAgent) -> None:
        """Add an agent, or change one. NotWritten, TooMany."""
        user = plain_name(agent.user)

        def on_written(result: LedgerResult) -> None:
            if isinstance(result, Committed):
                self._put_agent(desk, user, agent)

        async with desk.adding:
            if user not in desk.agents and len(desk.agents) >= MAX_AGENTS:
                raise TooMany("agents")
            await self._record((agent_item(agent, self._unix_ms()),), on_written)

    def _put_agent(self, desk: Desk, user: str, agent: StoredAgent) -> None:
        desk.agents[user] = agent
        now_ms = self._unix_ms()
        desk.core.set_agent(user, agent.skills, agent.capacity, now_ms)
        desk.core.set_state(user, agent.state)
        desk.core.set_linked(user, now_ms, is_linked=agent.user in self._users)
        desk.wake.set()

    async def remove_agent(self, desk: Desk, user: str) -> None:
        """Remove an agent (plain id), whose conversations go back to the queue. NotWritten."""

        def on_written(result: LedgerResult) -> None:
            if isinstance(result, Committed):
                desk.agents.pop(user, None)
                desk.core.remove_agent(user)

        await self._record((agent_removal(qualify(desk.tenant, user)),), on_written)

    def on_change(self, user: str, is_online: bool) -> None:
        """Take note of a user's first link, or that the last one has ended."""
        desk = self._by_tenant.get(tenant_of(user))
        if desk is not None and plain_name(user) in desk.agents:
            desk.core.set_linked(plain_name(user), self._unix_ms(), is_linked=is_online)
            desk.wake.set()

    # ---- decisions

    async def first_result(self, key: Key) -> KeyResult | None:
        """Return what the first submission with a key came to; None: it is not known. LedgerRefused, sqlite3.Error."""
        return await self._store.first_result(key)

    async def change(
        self, desk: Desk, id: str, decide: Decide, *, is_of_queue: bool = False, then: Sequence[Item] = ()
    ) -> DeskConversation:
        """Change a conversation as ``decide`` says; return it. What ``decide`` raises; NotWritten.

        ``is_of_queue``: the decision depends on the queue or on agents, or changes them; ``then``: written with it.
        """

        def submit(conversation: Conversation | None, items: list[Item], on_done: OnDone) -> SubmitResult:
            return self._store.record([*items, *then], on_done)

        row, result = await self._decide(desk, id, decide, submit, is_of_queue=is_of_queue)
        if result is not None and not isinstance(result, Committed):
            raise NotWritten
        return row

    async def say(
        self, desk: Desk, id: str, message: ConversationMessage, key: Key, decide: Decide, *, is_of_queue: bool = False
    ) -> tuple[int, LedgerResult]:
        """Send a message in a conversation, with what it changes; return its offset and the ledger's result.

        What ``decide`` raises; NotWritten; KeyError: there is no such conversation.
        """
        offset = 0

        def submit(conversation: Conversation | None, items: list[Item], on_done: OnDone) -> SubmitResult:
            nonlocal offset
            if conversation is None:
                raise Stale
            offset = conversation.next
            return self._conversations.send(conversation, message, on_done, key, then=items)

        _, result = await self._decide(desk, id, decide, submit, is_of_queue=is_of_queue, message=message)
        assert result is not None
        return offset, result

    async def open(self, desk: Desk, id: str, message: ConversationMessage, key: Key, decide: Decide) -> LedgerResult:
        """Open a conversation of this id with a customer's first message. What ``decide`` raises; NotWritten."""
        now_ms = self._unix_ms()
        user, table = message.user, self._conversations.table
        made = Conversation(qualify(desk.tenant, id), "", now_ms, is_group=True)
        position = ReadPosition(1, 1)

        def submit(conversation: Conversation | None, items: list[Item], on_done: OnDone) -> SubmitResult:
            table.check_room(desk.tenant, (user,), is_new=True)

            def on_written(result: LedgerResult) -> None:
                if isinstance(result, Committed):
                    table.add(made)
                    table.join(made, user, 0, position)
                on_done(result)

            own = talk_item(made, now_ms), member_item(made.id, user, 0, position, now_ms)
            return self._conversations.send(made, message, on_written, key, then=[*own, *items])

        _, result = await self._decide(desk, id, decide, submit, is_of_queue=True, message=message)
        assert result is not None
        return result

    async def _decide(
        self,
        desk: Desk,
        id: str,
        decide: Decide,
        submit: Callable[[Conversation | None, list[Item], OnDone], SubmitResult],
        *,
        is_of_queue: bool,
        message: ConversationMessage | None = None,
    ) -> tuple[DeskConversation, LedgerResult | None]:
        """Take a decision about a conversation and submit it; return it with the result, None = it changes nothing."""
        turns = ("queue", id) if is_of_queue else (id,)
        await desk.turns.take(turns)
        pending = PendingResult[LedgerResult]()
        is_submitted = False
        try:
            if self._by_tenant.get(desk.tenant) is not desk:
                raise NotWritten  # another node has decided meanwhile
            now_ms, before = self._unix_ms(), desk.core.find(id)
            after = decide(now_ms)
            if after is before and message is None:
                return after, None
            conversation = self._talk(desk, id)
            if after is not before:
                after = after._replace(revision=after.revision + 1)
            offset = 1 if conversation is None else conversation.next
            items, apply = self._changes(desk, conversation, before, after, now_ms)
            asked = None
            if message is not None and after.state is DeskState.BOT and message.user == after.customer:
                asked = DeskAsked(
                    after.customer, after.name, after.topic, after.agent, after.epoch, offset, message.text
                )  # fmt: skip
                report = DeskAskedData(id, *asked)
                items += self._events.of_user("desk.asked", qualify(desk.tenant, after.customer), report, now_ms)

            def on_written(result: LedgerResult) -> None:
                try:
                    if isinstance(result, Committed):
                        apply(result)
                        self.answers += message is not None and message.user != after.customer
                        if asked is not None:
                            self._show(desk, (asked.bot,), "asked", id, asked)
                finally:
                    desk.turns.give(turns)
                pending.set(result)

            is_submitted = submit(conversation, items, on_written) is SubmitResult.QUEUED
        finally:
            if not is_submitted:
                desk.turns.give(turns)
        if not is_submitted:
            raise NotWritten
        return after, await pending.wait()

    def _changes(
        self,
        desk: Desk,
        conversation: Conversation | None,
        before: DeskConversation | None,
        after: DeskConversation,
        now_ms: int,
    ) -> tuple[list[Item], Callable[[Committed], None]]:
        """Return what records a change, and what takes it over when it is durable."""
        if after is before:
            return [], lambda result: None
        kinds = _kinds(before, after)
        view, customer = desk_view(desk.core, after), qualify(desk.tenant, after.customer)
        items: list[Item] = [
            row for kind in kinds for row in self._events.of_user(f"desk.{kind}", customer, view, now_ms)
        ]
        is_closed = after.state is DeskState.CLOSED
        if not is_closed:
            items.append(conversation_item(desk.tenant, after, now_ms))
        held, holds = _human(before), _human(after)
        apply_members: Callable[[Committed], None] | None = None
        if conversation is not None and held != holds and not is_closed:
            add = [] if not holds or holds in conversation.members else [holds]
            remove = [held] if held and held != after.customer else []
            changed, apply_members = self._conversations.members_change(conversation, add, remove, 0)
            items += changed

        def apply(result: Committed) -> None:
            desk.core.apply(after)
            if apply_members is not None:
                apply_members(result)
            if is_closed and conversation is not None:
                self._conversations.table.remove(conversation)
            for kind in kinds:
                self.changed[kind] += 1
            desk.wake.set()
            self._show_change(desk, before, after)
            if held != holds and after.state in (DeskState.QUEUED, DeskState.ASSIGNED):
                holder = qualify(desk.tenant, holds) if holds else ""
                self.on_holder(qualify(desk.tenant, after.id), customer, holder)
            stream = desk.streams.get(after.id)
            if stream is not None and (stream.by, stream.epoch) != (after.agent, after.epoch):
                del desk.streams[after.id]
                self.stream_ended(desk, after.id, stream, after.customer)
            if after.state is DeskState.QUEUED and "queued" in kinds:
                self._say_closed(desk, after)

        return items, apply

    def _say_closed(self, desk: Desk, row: DeskConversation) -> None:
        """Send the text of closed hours to a customer whose conversation waits, once for each time it was opened."""
        text, conversation = desk.settings.closed_text, self._talk(desk, row.id)
        if not text or conversation is None or desk.core.hours.is_open(self._unix_ms()):
            return
        key = make_key("desk.closed", conversation.id, str(row.first_asked_at_ms))
        message = ConversationMessage(0, "", "", 0, text)
        self._conversations.send(conversation, message, lambda result: None, key)

    def _talk(self, desk: Desk, id: str) -> Conversation | None:
        return self._conversations.table.find(qualify(desk.tenant, id))

    # ---- what users are shown

    def _show_change(self, desk: Desk, before: DeskConversation | None, after: DeskConversation) -> None:
        self._show(desk, (after.customer,), "changed", after.id, desk_view(desk.core, after, for_customer=True))
        holders = {"" if each is None else each.agent for each in (before, after)}
        supervisors = {user for user, agent in desk.agents.items() if agent.is_supervisor}
        others = (holders | supervisors) - {"", after.customer}
        self._show(desk, sorted(others), "changed", after.id, desk_view(desk.core, after))

    def _show(self, desk: Desk, users: Sequence[str], verb: str, id: str, data: object) -> None:
        direct = Direct(0, MessageType.ACTIVITY, self._unix_ms(), activity_payload(f"desk.{verb}", id, data))
        for user in users:
            self._users.send(qualify(desk.tenant, user), direct, Lane.COMMERCE)

    def show_customer(self, desk: Desk, id: str, verb: str, data: object, customer: str = "") -> None:
        """Show the customer of a conversation an event."""
        row = desk.core.find(id)
        customer = customer or ("" if row is None else row.customer)
        self._show(desk, (customer,) if customer else (), verb, id, data)

    def stream_ended(self, desk: Desk, id: str, stream: AnswerStream, customer: str = "") -> None:
        """Show that an answer under way was interrupted."""
        part = DeskStreaming(stream.id, stream.seq, "", True, True)
        self.show_customer(desk, id, "streaming", part, customer)
        self._show(desk, (stream.by,), "interrupted", id, DeskInterrupted(stream.id))

    # ---- erasure

    def erase(self, tenant: str, user: str) -> None:
        """Forget a user (plain id) who is being erased."""
        desk = self._by_tenant.get(tenant)
        if desk is None:
            return
        desk.agents.pop(user, None)
        desk.questions.forget(user)
        for row in desk.core.erase(user):
            desk.core.apply(row)
            conversation = self._talk(desk, row.id)
            if conversation is not None:
                desk.orphans.append(conversation)


def _human(row: DeskConversation | None) -> str:
    """Return the human who holds a conversation, "" = none."""
    return row.agent if row is not None and row.state is DeskState.ASSIGNED else ""


def _kinds(before: DeskConversation | None, after: DeskConversation) -> list[str]:
    """Return what has happened to a conversation, in the words of the webhooks."""
    state, was = after.state, None if before is None else before.state
    found = []
    if was in (None, DeskState.RESOLVED) and state in (DeskState.BOT, DeskState.QUEUED):
        found.append("opened")
    if state is not was and state in (DeskState.QUEUED, DeskState.RESOLVED, DeskState.CLOSED):
        found.append(state.name.lower())
    if state is DeskState.ASSIGNED and _human(before) != after.agent:
        found.append("assigned")
    if before is not None:
        if after.rating and after.rating != before.rating:
            found.append("rated")
        if after.alarms & ~before.alarms:
            found.append("alarm")
    return found
