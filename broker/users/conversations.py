"""Conversations of a broker: what is decided is written first, and shown to members when it is durable.

A message of a conversation with at most `INBOX_MEMBERS` members goes into the inbox of each other member with the same
commit, so that it is delivered until it is acknowledged. In a larger group it is one row, which members with an open
link are shown at once; the others read it from the history, as every member does after a gap of offsets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import trio

from broker.core.limits.rate_limit import Gcra, Rate, SingleGcra
from broker.core.net.connection_limits import address_key
from broker.core.tenants.names import plain_name, qualify, tenant_of
from broker.core.users.conversations import (
    MAX_GROUP_MEMBERS,
    Conversation,
    ConversationTable,
    ReadPosition,
    TooMany,
    pair_id,
)
from broker.ledger import (
    Committed,
    DirectEntry,
    Item,
    Key,
    LedgerResult,
    RecordRemoved,
    Repeated,
    SubmitResult,
)
from broker.users.conversation_records import (
    MEMBER,
    block_item,
    conversation_item,
    member_item,
    message_item,
    message_removal,
)
from broker.users.inbox import Inboxes
from broker.users.message_stores import MessageStore
from broker.users.registry import LinkedUsers, UserSession
from broker.webhooks.events import WebhookEvents
from protocol.activities import activity_payload
from protocol.activities.conversations import (
    ConversationJoined,
    ConversationLeft,
    ConversationMessage,
    ConversationSentData,
    MessageRecalled,
    PositionChanged,
    UserTyping,
)
from protocol.codes import Lane, MessageType
from protocol.frames import pack_body, unpack_body
from protocol.messages import MAX_DIRECT_BYTES, Direct

__all__ = ["INBOX_MEMBERS", "RECALL_MS", "Conversations", "first_offset"]

INBOX_MEMBERS = 200
"""Most members of a conversation whose messages go into inboxes, and whose positions and typing others are shown."""
RECALL_MS = 120_000
PUSH_STEP = 100
"""Links that are written to between two checkpoints of the event loop."""
MAX_PUSHES = 10_000
"""Messages of large groups that wait to be pushed; a further one is read from the history."""
MAX_PUSHED_LINKS = 500_000
"""Members, of all these messages together, whom they are still to be shown: some 4 MB."""
GROUP_RATE = Rate(20, 100)
"""Messages of users to one group, a second and at once."""

OPENING_RATE = Rate(1 / 30, 100)
"""New conversations with one user that users of one address open, a second and at once."""
DESK_OPENING_RATE = Rate(5000 / 86_400, 2000)
"""Those with the service desk of a tenant: in a day a third of what a desk keeps."""

OnSent = Callable[[LedgerResult], None]


class Conversations:
    """All conversations of one broker. All methods but the ``async`` ones never wait.

    ``inboxes`` None: nothing is kept on the disk; members with a link are shown at once what there is.
    """

    def __init__(
        self,
        store: MessageStore,
        inboxes: Inboxes | None,
        users: LinkedUsers,
        unix_ms: Callable[[], int],
        events: WebhookEvents,
    ) -> None:
        self.table = ConversationTable()
        self._store = store
        self._inboxes = inboxes
        self._users = users
        self._unix_ms = unix_ms
        self._events = events
        self.on_known: Callable[[str], object] = lambda user: None
        """Called with a user (qualified id) whom members of a conversation see from now on, or no more."""
        self._pushes: deque[tuple[Direct, bytes, list[str]]] = deque()
        self._pushed_links = 0
        self._group_rate = SingleGcra(GROUP_RATE)
        self._openings = Gcra(OPENING_RATE)
        """Of new conversations, by address and by the user with whom they are."""
        self._desk_openings = Gcra(DESK_OPENING_RATE)
        """Of new conversations with the service desk, by address and tenant."""
        self._wake = trio.Event()
        self.sent = 0
        """Messages that are durable."""
        self.recalled = 0
        self.not_pushed = 0
        """Messages of large groups that were not pushed, as too many waited."""

    @property
    def kept(self) -> int:
        """Conversations."""
        return len(self.table)

    @property
    def waiting_pushes(self) -> int:
        """Messages of large groups that wait to be pushed."""
        return len(self._pushes)

    async def load(self) -> None:
        """Take over the conversations of the last run. At the start, before connections are accepted."""
        self.table = await self._store.load()

    def leave(self) -> None:
        """Forget all: another node decides now."""
        self.table = ConversationTable()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Show messages of large groups to their members, some links at a time. Until cancelled."""
        task_status.started()
        while True:
            if not self._pushes:
                self._wake = trio.Event()
                await self._wake.wait()
            direct, packed, users = self._pushes.popleft()
            self._pushed_links -= len(users)
            for number, user in enumerate(users, 1):
                self._users.send(user, direct, Lane.COMMERCE, packed)
                if number % PUSH_STEP == 0:
                    await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()

    # ---- opening, members

    def open_pair(self, user: str, other: str, on_done: Callable[[Conversation | None], None]) -> SubmitResult | None:
        """Open the conversation of two users (qualified ids); ``on_done`` gets it, None = it could not be written.

        None: it is there, and ``on_done`` was called. TooMany.
        """
        tenant, names = tenant_of(user), (plain_name(user), plain_name(other))
        id = pair_id(tenant, *names)
        found = self.table.find(id)
        if found is not None and all(name in found.members for name in names):
            on_done(found)
            return None
        self.table.check_room(tenant, names, is_new=found is None)
        self.table.check_opening(other)
        now_ms = self._unix_ms()
        made = found or Conversation(id, "", now_ms, is_group=False)
        missing = [name for name in names if name not in made.members]
        joined = made.next - 1  # above 0 where a user of that id was erased: another one sees nothing of it
        position = ReadPosition(joined, joined)
        items = [
            conversation_item(made, now_ms), *(member_item(id, name, joined, position, now_ms) for name in missing)
        ]  # fmt: skip

        def on_written(result: LedgerResult) -> None:
            if not isinstance(result, Committed):
                on_done(None)
                return
            conversation = self._added(made)
            for name in missing:
                self.table.join(conversation, name, joined, position)
            on_done(conversation)

        return self._store.record(items, on_written)

    def opening_wait_s(self, user: str, other: str, address: str, now: float) -> float:
        """Count that a user opens a conversation with another one (qualified ids) from an address, "" = not known;
        return the seconds to wait where too many were, 0.0 = it may. One that is there already counts for nothing.

        Without it the accounts of one peer could take all the conversations that a user may have.
        """
        found = self.table.find(pair_id(tenant_of(user), plain_name(user), plain_name(other)))
        if not address or (found is not None and plain_name(user) in found.members):
            return 0.0
        return self._openings.try_acquire((address_key(address), other), now)

    def desk_opening_wait_s(self, tenant: str, address: str, now: float) -> float:
        """Count that a user opens a conversation with the service desk of a tenant from an address, "" = not known;
        return the seconds to wait where too many were, 0.0 = it may."""
        return self._desk_openings.try_acquire((address_key(address), tenant), now) if address else 0.0

    @property
    def openings_limiter_full(self) -> int:
        """Conversations that were not opened because a table of limits was full."""
        return self._openings.full_refusals + self._desk_openings.full_refusals

    def _added(self, made: Conversation) -> Conversation:
        """Return the conversation of this id, which is ``made`` unless another call has been quicker."""
        found = self.table.find(made.id)
        if found is None:
            self.table.add(made)
            return made
        return found

    def create(
        self, id: str, title: str, users: Sequence[str], on_done: Callable[[LedgerResult], None]
    ) -> SubmitResult:
        """Create a group with these members (plain ids). TooMany."""
        self.table.check_room(tenant_of(id), users, is_new=True)
        now_ms = self._unix_ms()
        made = Conversation(id, title, now_ms, is_group=True)
        return self._change(made, users, (), on_done, (conversation_item(made, now_ms),))

    def set_members(
        self, conversation: Conversation, add: Sequence[str], remove: Sequence[str], on_done: OnSent
    ) -> SubmitResult | None:
        """Add and remove members (plain ids); None: there is nothing to change. TooMany."""
        added = [user for user in dict.fromkeys(add) if user not in conversation.members]
        removed = [user for user in dict.fromkeys(remove) if user in conversation.members]
        if len(conversation.members) + len(added) - len(removed) > MAX_GROUP_MEMBERS:
            raise TooMany("members")
        self.table.check_room(tenant_of(conversation.id), added, is_new=False)
        return self._change(conversation, added, removed, on_done) if added or removed else None

    def _change(
        self,
        conversation: Conversation,
        add: Sequence[str],
        remove: Sequence[str],
        on_done: OnSent,
        before: tuple[Item, ...] = (),
    ) -> SubmitResult:
        items, apply = self.members_change(conversation, add, remove, conversation.next - 1)

        def on_written(result: LedgerResult) -> None:
            if isinstance(result, Committed):
                apply(result)
            on_done(result)

        return self._store.record([*before, *items], on_written)

    def members_change(
        self, conversation: Conversation, add: Sequence[str], remove: Sequence[str], joined: int
    ) -> tuple[list[Item], Callable[[Committed], None]]:
        """Return what records that users (plain ids) are members, who see what comes after ``joined``, and others are
        none any more; and what takes it over when it is durable. No other messages to users go with these items."""
        now_ms, tenant = self._unix_ms(), tenant_of(conversation.id)
        position = ReadPosition(joined, joined)
        id = plain_name(conversation.id)
        has_joined = ConversationJoined(conversation.title, "", joined)
        entries = [
            *self._entries(tenant, add, "joined", id, has_joined),
            *self._entries(tenant, remove, "left", id, ConversationLeft()),
        ]
        items: list[Item] = [
            *(member_item(conversation.id, user, joined, position, now_ms) for user in add),
            *(RecordRemoved(MEMBER, conversation.id, user) for user in remove),
            *entries,
        ]

        def apply(result: Committed) -> None:
            changed = self._added(conversation)
            for user in add:
                self.table.join(changed, user, joined, position)
            for user in remove:
                self.table.leave(changed, user)
            for user in (*add, *remove):
                self.on_known(qualify(tenant, user))
            self._written(entries, result)
            if self._inboxes is None:
                self._show(tenant, add, activity_payload("conversations.joined", id, has_joined), now_ms)
                self._show(tenant, remove, activity_payload("conversations.left", id, ConversationLeft()), now_ms)

        return items, apply

    def _entries(
        self, tenant: str, users: Sequence[str], verb: str, id: str, data: Any, batch: str = ""
    ) -> list[DirectEntry]:
        """Return what puts an event of a conversation into the inboxes of users (plain ids)."""
        if not users or self._inboxes is None:
            return []
        payload = activity_payload(f"conversations.{verb}", id, data)
        first = self._inboxes.entry("", MessageType.ACTIVITY, payload, batch)
        return [first._replace(user=qualify(tenant, user)) for user in users]

    def _uses_inboxes(self, conversation: Conversation) -> bool:
        """Return whether what is sent in a conversation goes into the inboxes of its members."""
        return self._inboxes is not None and len(conversation.members) <= INBOX_MEMBERS

    def _written(self, entries: Sequence[DirectEntry], result: Committed) -> None:
        if self._inboxes is not None:
            self._inboxes.written(entries, result.direct_ids)

    # ---- messages

    def group_wait_s(self, conversation: Conversation, now: float) -> float:
        """Count a message of a user to a group; return the seconds to wait where there are too many, 0.0 = it passes.

        A message to a group costs as many as it has members: without it, a few users could fill the broker.
        """
        if not conversation.is_group:
            return 0.0
        busy_until = self._group_rate.charge(conversation.busy_until, now)
        wait_s = self._group_rate.wait_s(busy_until, now)
        if not wait_s:
            conversation.busy_until = busy_until
        return wait_s

    def send(
        self,
        conversation: Conversation,
        message: ConversationMessage,
        on_done: OnSent,
        key: Key,
        *,
        by: UserSession | None = None,
        is_shadowed: bool = False,
        then: Sequence[Item] = (),
    ) -> SubmitResult:
        """Send a message, whose offset and time are set here; ``on_done`` gets the ledger's result.

        ``key`` is that of the call: its answer holds the offset, see `first_offset`. ``by``: the link that has sent it,
        which is not shown it again. ``is_shadowed``: its author alone is shown it. ``then``: what is written with
        it. A message of the platform has the user "", and no webhook. ValueError: its payload is above 4 KiB.
        """
        now_ms, id = self._unix_ms(), conversation.id
        offset = conversation.next
        message = message._replace(offset=offset, at_ms=now_ms)
        others = [name for name in conversation.members if name != message.user]
        tenant, plain_id = tenant_of(id), plain_name(id)
        is_kept_in_inboxes = is_shadowed or self._uses_inboxes(conversation)
        if is_shadowed:
            others = []
        entries = (
            self._entries(tenant, others, "message", plain_id, message, f"{id}/{offset}") if is_kept_in_inboxes else []
        )
        data = ConversationSentData(plain_id, offset, message.user, message.text)
        author, is_reported = qualify(tenant, message.user), bool(message.user) and not is_shadowed
        items: list[Item] = [
            message_item(id, message, message.user if is_shadowed else None), *entries,
            *(self._events.of_user("conversation.sent", author, data, now_ms) if is_reported else ()),
            *then,
        ]  # fmt: skip
        payload = activity_payload("conversations.message", plain_id, message)
        if len(pack_body((payload,))) > MAX_DIRECT_BYTES:
            raise ValueError("a message is above 4 KiB")
        conversation.allocate()

        def on_written(result: LedgerResult) -> None:
            if isinstance(result, Committed):
                self.sent += 1
                if is_shadowed:
                    dropped = conversation.apply_shadowed(offset, message.user)
                else:
                    dropped = conversation.apply_message(offset, message.user, now_ms, message.text)
                    if conversation.has_just_written(message.user):
                        self.on_known(author)
                if dropped:
                    removal = message_removal(id, dropped, conversation.take_shadowed(dropped))
                    self._store.record((removal,), lambda result: None)
                self._written(entries, result)
                users = [message.user] if is_kept_in_inboxes else [message.user, *others]
                self._show(tenant, users, payload, now_ms, by)
            else:
                conversation.give_back(offset)
            on_done(result)

        key = key._replace(answer=pack_body((offset,)))
        submitted = self._store.record(items, on_written, (key,))
        if submitted is not SubmitResult.QUEUED:
            conversation.give_back(offset)
        return submitted

    def _show(self, tenant: str, users: Sequence[str], payload: Any, at_ms: int, by: UserSession | None = None) -> None:
        """Show an event to the open links of users (plain ids), but for ``by``; nothing keeps it."""
        direct = Direct(0, MessageType.ACTIVITY, at_ms, payload)
        qualified = [name for user in users if (name := qualify(tenant, user)) in self._users]
        if len(qualified) > INBOX_MEMBERS:
            if len(self._pushes) >= MAX_PUSHES or self._pushed_links + len(qualified) > MAX_PUSHED_LINKS:
                self.not_pushed += 1
                return
            self._pushes.append((direct, pack_body(direct), qualified))
            self._pushed_links += len(qualified)
            self._wake.set()
            return
        for user in qualified:
            self._users.send(user, direct, Lane.COMMERCE, by=by)

    async def copies(self, conversation: Conversation, message: ConversationMessage) -> tuple[Item, ...]:
        """Return what takes a message's content out of inboxes and outbox. LedgerRefused, sqlite3.Error."""
        return await self._store.copies(conversation.id, message)

    def recall(
        self,
        conversation: Conversation,
        message: ConversationMessage,
        by: str,
        copies: Sequence[Item],
        on_done: OnSent,
    ) -> SubmitResult:
        """Take a message back. ``by``: the member who does, "" = the platform; ``copies``: see `copies`."""
        id, offset, now_ms = conversation.id, message.offset, self._unix_ms()
        tenant, plain_id = tenant_of(id), plain_name(id)
        empty = ConversationMessage(offset, message.user, message.name, message.at_ms, recalled=True)
        data = MessageRecalled(offset, by)
        shadowed = conversation.shadowed_author(offset)
        members = list(conversation.members) if shadowed is None else [shadowed]
        is_kept_in_inboxes = self._uses_inboxes(conversation)
        entries = self._entries(tenant, members, "recalled", plain_id, data) if is_kept_in_inboxes else []

        def on_written(result: LedgerResult) -> None:
            if isinstance(result, Committed):
                self.recalled += conversation.author(offset) is not None
                conversation.apply_recall(offset)
                self.on_known(qualify(tenant, message.user))
                self._written(entries, result)
                if not is_kept_in_inboxes:
                    self._show(tenant, members, activity_payload("conversations.recalled", plain_id, data), now_ms)
            on_done(result)

        items = (message_item(id, empty, shadowed), *copies, *entries)
        if self._inboxes is None:
            return self._store.record(items, on_written)
        return self._inboxes.cancel(on_written, batch=f"{id}/{offset}", then=items)

    # ---- positions, typing

    def report_position(
        self, conversation: Conversation, user: str, delivered: int, read: int, on_done: OnSent
    ) -> SubmitResult | None:
        """Take a report of a member's device; None: it is as far already."""
        position = conversation.judge_position(user, delivered, read)
        if position is None:
            return None
        member, now_ms = conversation.members[user], self._unix_ms()

        def on_written(result: LedgerResult) -> None:
            if isinstance(result, Committed):
                conversation.apply_position(user, position)
                self._show_position(conversation, user, now_ms)
            else:
                conversation.refuse_position(user)
            on_done(result)

        item = member_item(conversation.id, user, member.joined, position, now_ms)
        submitted = self._store.record((item,), on_written)
        if submitted is SubmitResult.QUEUED:
            conversation.ask_position(user, position)
        return submitted

    def _show_position(self, conversation: Conversation, user: str, at_ms: int) -> None:
        member = conversation.members.get(user)
        if member is None:
            return
        tenant, id = tenant_of(conversation.id), plain_name(conversation.id)
        own = PositionChanged(user, *member.position, member.unread)
        self._show(tenant, (user,), activity_payload("conversations.position", id, own), at_ms)
        if len(conversation.members) <= INBOX_MEMBERS:
            others = [name for name in self.viewers(conversation, user) if name != user]
            payload = activity_payload("conversations.position", id, own._replace(unread=None))
            self._show(tenant, others, payload, at_ms)

    def viewers(self, conversation: Conversation, user: str) -> list[str]:
        """Return the members (plain ids) that may see what a member does: those whom it does not block."""
        own = qualify(tenant_of(conversation.id), user)
        return [name for name in conversation.members if not self.table.blocks(own, name)]

    def typing_members(self, conversation: Conversation) -> int:
        """Return to how many other members typing is shown, whoever of them has a link: 0 in large groups."""
        count = len(conversation.members)
        return 0 if count > INBOX_MEMBERS else count - 1

    def show_typing(self, conversation: Conversation, user: str) -> None:
        """Show the other members that a member is typing."""
        if len(conversation.members) > INBOX_MEMBERS:
            return
        tenant, at_ms = tenant_of(conversation.id), self._unix_ms()
        payload = activity_payload("conversations.typing", plain_name(conversation.id), UserTyping(user))
        direct = Direct(0, MessageType.ACTIVITY, at_ms, payload)
        for name in self.viewers(conversation, user):
            qualified = qualify(tenant, name)
            if name != user and not self.table.blocks(qualified, user):
                self._users.send(qualified, direct, Lane.AMBIENT)

    # ---- block lists, history, erasure

    def block(self, user: str, other: str, on_done: OnSent, *, is_blocked: bool) -> SubmitResult | None:
        """Let a user (qualified id) block another one (plain id), or not any more; None: nothing changes. TooMany."""
        if self.table.blocks(user, other) is is_blocked:
            return None
        if is_blocked:
            self.table.check_block(user)

        def on_written(result: LedgerResult) -> None:
            if isinstance(result, Committed):
                self.table.apply_block(user, other, is_blocked=is_blocked)
            on_done(result)

        return self._store.record((block_item(user, other, self._unix_ms(), is_blocked=is_blocked),), on_written)

    async def history(
        self, conversation: Conversation, viewer: str | None, after: int, before: int, limit: int
    ) -> tuple[list[ConversationMessage], bool]:
        """Return kept messages as a member (plain id) sees them, None = as the platform does, and whether there are
        more. LedgerRefused, sqlite3.Error."""
        return await self._store.messages(conversation.id, viewer, after, before, limit)

    def erase(self, tenant: str, user: str) -> None:
        """Forget a user (plain id) who is being erased."""
        self.table.erase(tenant, user)


def first_offset(result: Repeated) -> int:
    """Return the offset of the message that was sent first with the key of a call; 0 = it is not known."""
    (first,) = result.first.values()
    return int(unpack_body(first.answer)[0]) if first.answer else 0
