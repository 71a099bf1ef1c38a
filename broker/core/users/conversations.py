"""Conversations of users: members, positions, unread counts, and who blocks whom. Pure: no I/O, no clock.

A message has an offset in its conversation, 1, 2, ...; one that could not be written leaves its offset empty, and so
does, for all but its author, one that its author alone is shown. The
position of a member, how far it has received and read, belongs to the user and only rises. ``unread`` counts the
messages of others after the read position that are kept and not recalled; it is kept step by step and equals
`Conversation.recount`.

A conversation changes when a fact is durable (``apply_...``); what is decided before that is remembered only as far as
two decisions under way must not contradict each other: the next offset, and the highest position asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from broker.core.tenants.names import plain_name, qualify, tenant_of

__all__ = [
    "DESK_PREFIX", "MAX_BLOCKED", "MAX_CONVERSATIONS", "MAX_GROUP_MEMBERS", "MAX_KEPT_MESSAGES", "MAX_MEMBERSHIPS",
    "MAX_OF_USER", "MAX_UNANSWERED", "PAIR_MARK", "Conversation", "ConversationTable", "GroupMember", "ReadPosition",
    "TooMany", "pair_id",
]  # fmt: skip

MAX_GROUP_MEMBERS = 5000
MAX_OF_USER = 2000
"""Conversations of one user."""
MAX_UNANSWERED = 1000
"""Of these, conversations of two in which the user has written nothing: others open no further one with it."""
MAX_CONVERSATIONS = 200_000
"""Conversations of one broker; some 1 KB each."""
MAX_MEMBERSHIPS = 1_000_000
"""Members of all conversations together; some 250 B each."""
MAX_KEPT_MESSAGES = 10_000
"""Messages of one conversation that are kept: a further one removes the oldest."""
MAX_PREVIEW = 40
"""Characters of the beginning of the last message that are remembered."""
MAX_BLOCKED = 1000
"""Users that one user blocks."""
PAIR_MARK = "~"
"""First character of the id of a conversation of two users; no group has it."""
DESK_PREFIX = f"{PAIR_MARK}desk-"
"""Beginning of the ids of conversations of the service desk."""


class TooMany(Exception):
    """A bound is reached. The argument names what there are too many of."""


class ReadPosition(NamedTuple):
    """How far a member has come: the last offset that one of its devices has received, and the last one read."""

    delivered: int = 0
    read: int = 0


class GroupMember:
    """One member of a conversation. ``joined``: the last offset before it came, of which it sees nothing; ``asked``:
    the highest position that was asked for, durable or not; ``written``: of two, messages of it that are counted."""

    __slots__ = ("asked", "joined", "position", "unread", "written")

    def __init__(self, joined: int, position: ReadPosition) -> None:
        self.joined = joined
        self.position = self.asked = position
        self.unread = 0
        self.written = 0


class Conversation:
    """One conversation. ``id``: qualified; members have their plain ids."""

    __slots__ = (
        "_authors",
        "_first",
        "_shadowed",
        "busy_until",
        "created_ms",
        "id",
        "is_group",
        "last",
        "last_at_ms",
        "members",
        "next",
        "preview",
        "title",
    )

    def __init__(self, id: str, title: str, created_ms: int, *, is_group: bool) -> None:
        self.id = id
        self.title = title
        self.is_group = is_group
        self.created_ms = created_ms
        self.last_at_ms = created_ms
        self.busy_until = 0.0
        """Monotonic time until which the messages of a group leave no room in its rate; see `SingleGcra`."""
        self.members: dict[str, GroupMember] = {}
        self.preview = "", ""
        """Author and beginning of the text of the last message; empty where that is recalled."""
        self.last = 0
        """Offset of the last durable message."""
        self.next = 1
        """Offset of the next message."""
        self._first = 1
        """Offset of the first one in ``_authors``."""
        self._authors: list[str | None] = []
        """Who wrote each kept message; None = it is recalled, or its offset is empty: it is not counted."""
        self._shadowed: dict[int, str] = {}
        """Author of each kept message that its author alone is shown."""

    # ---- messages

    def allocate(self) -> int:
        """Return the offset of a message that is to be written."""
        offset = self.next
        self.next += 1
        return offset

    def give_back(self, offset: int) -> None:
        """Use the offset of a message that was not written for the next one, unless a later one has been given."""
        if offset == self.next - 1:
            self.next = offset

    def apply_message(self, offset: int, user: str, at_ms: int, text: str = "") -> int:
        """Add a durable message; return the offset of the oldest one, which is kept no more, 0 = all are."""
        self.preview = user, text[:MAX_PREVIEW].replace("\n", " ")
        self.last_at_ms = at_ms
        for name, member in self.members.items():
            member.unread += name != user and offset > member.position.read
        return self._append(offset, user)

    def apply_shadowed(self, offset: int, user: str) -> int:
        """Add a durable message that its author alone is shown; no unread count has it. Returns as `apply_message`.

        It may come after later ones, where all are read from the disk.
        """
        self._shadowed[offset] = user
        if offset > self.last:
            return self._append(offset, None)
        if offset < self._first:
            self._authors[:0] = [None] * (self._first - offset)
            self._first = offset
        return 0

    def take_shadowed(self, offset: int) -> str | None:
        """Return the author of a message that its author alone is shown, and forget it; None = it is none."""
        return self._shadowed.pop(offset, None)

    def shadowed_author(self, offset: int) -> str | None:
        """Return the author of a message that its author alone is shown; None = it is none."""
        return self._shadowed.get(offset)

    def _append(self, offset: int, author: str | None) -> int:
        self._authors.extend([None] * (offset - self._first - len(self._authors)))
        self._authors.append(author)
        self._count_written(author, 1)
        self.last = offset
        self.next = max(self.next, offset + 1)
        if len(self._authors) <= MAX_KEPT_MESSAGES:
            return 0
        dropped = self._first
        self.apply_recall(dropped)
        del self._authors[0]
        self._first += 1
        return dropped

    def has_just_written(self, user: str) -> bool:
        """Return whether the one message of a user that is counted is the last one; False in groups."""
        member = self.members.get(user)
        return member is not None and member.written == 1 and self.author(self.last) == user

    def _count_written(self, author: str | None, change: int) -> None:
        if author is not None and not self.is_group and author in self.members:
            self.members[author].written += change

    def begin_at(self, offset: int) -> None:
        """Take over that the first kept message has this offset. Before any is applied."""
        self._first = offset

    def author(self, offset: int) -> str | None:
        """Return who wrote a message that is kept and not recalled."""
        index = offset - self._first
        return self._authors[index] if 0 <= index < len(self._authors) else None

    def apply_recall(self, offset: int) -> None:
        """Count a message no more; nothing happens where it is recalled already."""
        author = self.author(offset)
        if author is None:
            return
        self._authors[offset - self._first] = None
        self._count_written(author, -1)
        if offset == self.last:
            self.preview = "", ""
        for name, member in self.members.items():
            member.unread -= name != author and offset > member.position.read

    # ---- positions

    def judge_position(self, user: str, delivered: int, read: int) -> ReadPosition | None:
        """Return the position that a member has after a report, None = it is as far already. KeyError: no member.

        Both are capped at the last message; what is read is delivered.
        """
        before = self.members[user].asked
        read = max(before.read, min(read, self.last))
        after = ReadPosition(max(before.delivered, read, min(delivered, self.last)), read)
        return None if after == before else after

    def ask_position(self, user: str, position: ReadPosition) -> None:
        """Remember that a position is being written."""
        self.members[user].asked = position

    def refuse_position(self, user: str) -> None:
        """Forget what was asked for and not written."""
        member = self.members.get(user)
        if member is not None:
            member.asked = member.position

    def apply_position(self, user: str, position: ReadPosition) -> None:
        """Take over a durable position. It only rises; nothing happens for who has left meanwhile."""
        member = self.members.get(user)
        if member is None:
            return
        before = member.position
        after = ReadPosition(max(before.delivered, position.delivered), max(before.read, position.read))
        member.position = after
        member.asked = ReadPosition(max(member.asked.delivered, after.delivered), max(member.asked.read, after.read))
        member.unread -= self._count(user, before.read, after.read)

    def recount(self, user: str) -> int:
        """Return what ``unread`` of a member must be. O(messages)."""
        return self._count(user, self.members[user].position.read, self.last)

    def _count(self, user: str, after: int, up_to: int) -> int:
        """Return how many messages of others have an offset after ``after``, up to ``up_to``."""
        authors = self._authors[max(0, after + 1 - self._first) : max(0, up_to + 1 - self._first)]
        return sum(author is not None and author != user for author in authors)

    # ---- members

    def apply_member(self, user: str, joined: int, position: ReadPosition) -> None:
        """Add a member, who sees what comes after ``joined``; one that is there stays as it is."""
        if user not in self.members:
            member = self.members[user] = GroupMember(joined, position)
            member.unread = self._count(user, position.read, self.last)
            member.written = 0 if self.is_group else self._authors.count(user)

    def forget(self, user: str) -> None:
        """Take an erased user out: it is no member, and what it wrote is recalled."""
        self.members.pop(user, None)
        self._shadowed = {offset: author for offset, author in self._shadowed.items() if author != user}
        for index, author in enumerate(self._authors):
            if author == user:
                self.apply_recall(self._first + index)
        if self.preview[0] == user:
            self.preview = "", ""

    def other(self, user: str) -> str:
        """Return the other one of two members; "" in a group, and where the other one is erased."""
        return "" if self.is_group else next((each for each in self.members if each != user), "")


def pair_id(tenant: str, one: str, other: str) -> str:
    """Return the qualified id of the conversation of two users (plain ids), whoever opens it."""
    first, second = sorted((one, other))
    digest = hashlib.sha256(f"{len(first)} {first}{second}".encode()).hexdigest()[:32]
    return qualify(tenant, f"{PAIR_MARK}{digest}")


class ConversationTable:
    """All conversations by qualified id, those of each user (qualified id), and whom each user blocks (plain ids)."""

    def __init__(
        self,
        max_conversations: int = MAX_CONVERSATIONS,
        max_memberships: int = MAX_MEMBERSHIPS,
        max_of_user: int = MAX_OF_USER,
        max_unanswered: int = MAX_UNANSWERED,
    ) -> None:
        self._max_conversations = max_conversations
        self._max_memberships = max_memberships
        self._max_of_user = max_of_user
        self._max_unanswered = max_unanswered
        self._by_id: dict[str, Conversation] = {}
        self._of_user: dict[str, dict[str, None]] = {}
        self._blocked: dict[str, set[str]] = {}
        self.memberships = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Conversation]:
        return iter(self._by_id.values())

    def find(self, id: str) -> Conversation | None:
        """Return a conversation by its qualified id."""
        return self._by_id.get(id)

    def of_user(self, user: str) -> list[Conversation]:
        """Return the conversations of a user (qualified id), the one with the latest message first."""
        found = [self._by_id[id] for id in self._of_user.get(user, ())]
        return sorted(found, key=lambda each: (-each.last_at_ms, each.id))

    def is_known(self, user: str, viewer: str) -> bool:
        """Return whether a user has to do with another one (qualified ids): both are in a group, or it has written to
        the other one. Who has only been written to has not."""
        first, second = self._of_user.get(user, {}), self._of_user.get(viewer, {})
        name = plain_name(user)
        for id in first if len(first) < len(second) else second:
            conversation = self._by_id[id]
            member = conversation.members.get(name)
            if member is not None and id in first and id in second and (conversation.is_group or member.written):
                return True
        return False

    def check_room(self, tenant: str, users: Iterable[str], *, is_new: bool) -> None:
        """Raise `TooMany` where a conversation, or these further members (plain ids), would exceed a bound."""
        added = list(users)
        if is_new and len(self._by_id) >= self._max_conversations:
            raise TooMany("conversations")
        if self.memberships + len(added) > self._max_memberships:
            raise TooMany("members of all conversations")
        for user in added:
            if len(self._of_user.get(qualify(tenant, user), ())) >= self._max_of_user:
                raise TooMany(f"conversations of {user}")

    def check_opening(self, user: str) -> None:
        """Raise `TooMany` where others may open no further conversation with a user (qualified id)."""
        own, name = self._of_user.get(user, ()), plain_name(user)
        if len(own) < self._max_unanswered:
            return
        pairs = (each for each in map(self._by_id.__getitem__, own) if not each.is_group)
        if sum(not each.members[name].written for each in pairs) >= self._max_unanswered:
            raise TooMany(f"conversations of {name} without an answer")

    def add(self, conversation: Conversation) -> None:
        """Add a conversation without members."""
        self._by_id[conversation.id] = conversation

    def remove(self, conversation: Conversation) -> None:
        """Remove a conversation with its members; nothing happens where it is removed already."""
        for user in list(conversation.members):
            self.leave(conversation, user)
        self._by_id.pop(conversation.id, None)

    def join(self, conversation: Conversation, user: str, joined: int, position: ReadPosition) -> None:
        """Make a user (plain id) a member."""
        self.memberships += user not in conversation.members
        conversation.apply_member(user, joined, position)
        self._of_user.setdefault(qualify(tenant_of(conversation.id), user), {})[conversation.id] = None

    def leave(self, conversation: Conversation, user: str) -> None:
        """Make a user (plain id) no member; nothing happens where it is none."""
        self.memberships -= conversation.members.pop(user, None) is not None
        self._unlink(qualify(tenant_of(conversation.id), user), conversation.id)

    def _unlink(self, user: str, id: str) -> None:
        own = self._of_user.get(user, {})
        own.pop(id, None)
        if not own:
            self._of_user.pop(user, None)

    # ---- block lists

    def blocks(self, user: str, other: str) -> bool:
        """Return whether a user (qualified id) blocks another one (plain id)."""
        return other in self._blocked.get(user, ())

    def blocked_by(self, user: str) -> list[str]:
        """Return whom a user (qualified id) blocks, ordered."""
        return sorted(self._blocked.get(user, ()))

    def check_block(self, user: str) -> None:
        """Raise `TooMany` where a user (qualified id) blocks as many as it may."""
        if len(self._blocked.get(user, ())) >= MAX_BLOCKED:
            raise TooMany("blocked users")

    def apply_block(self, user: str, other: str, *, is_blocked: bool) -> None:
        """Take over that a user (qualified id) blocks another one (plain id), or does not any more."""
        if is_blocked:
            self._blocked.setdefault(user, set()).add(other)
            return
        blocked = self._blocked.get(user, set())
        blocked.discard(other)
        if not blocked:
            self._blocked.pop(user, None)

    # ---- erasure

    def erase(self, tenant: str, user: str) -> None:
        """Forget a user (plain id): it is a member of nothing, and what it wrote is recalled."""
        qualified = qualify(tenant, user)
        for conversation in self._by_id.values():
            if tenant_of(conversation.id) == tenant:
                self.memberships -= user in conversation.members
                conversation.forget(user)
        self._of_user.pop(qualified, None)
        self._blocked.pop(qualified, None)
        for owner in [owner for owner, blocked in self._blocked.items() if user in blocked]:
            if tenant_of(owner) == tenant:
                self.apply_block(owner, user, is_blocked=False)
