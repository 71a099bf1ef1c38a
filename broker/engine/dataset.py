"""The data of the memory engine: each method is one atomic step, as one script of a server is.

It has no links and no faults: `broker.engine.memory` puts those between it and the nodes.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from broker.engine.base import (
    CONTROL_KEPT_MS,
    NODE_TTL_MS,
    Appended,
    AppendResult,
    ControlEntry,
    EngineFull,
    Fenced,
    Granted,
    Held,
    InboxEntry,
    InboxPushed,
    InboxState,
    KeysKnown,
    KeyWrite,
    KnownKey,
    LinkAdded,
    LogItem,
    Misplaced,
    NodeBirth,
    NodeRecord,
    OutboxItem,
    OwnerRecord,
    RoomCheckpointRecord,
    SharedLink,
    StoredLogItem,
    StoredOutboxItem,
    check_append,
)

__all__ = ["MemoryData"]

LOG_LENGTH = 10_000
"""Events that a room's log keeps."""


@dataclass(slots=True)
class SharedRoom:
    """Everything of one room."""

    owner: OwnerRecord | None = None
    log: list[StoredLogItem] = field(default_factory=list)
    facts: list[StoredLogItem] = field(default_factory=list)
    checkpoint: RoomCheckpointRecord | None = None
    outbox: OrderedDict[str, StoredOutboxItem] = field(default_factory=OrderedDict)
    keys: dict[bytes, tuple[int, KnownKey]] = field(default_factory=dict)
    """With the time at which each expires."""


@dataclass(slots=True)
class SharedInbox:
    """Messages of one user."""

    last: int = 0
    acked: int = 0
    expired: int = 0
    entries: deque[InboxEntry] = field(default_factory=deque)


class MemoryData:
    """The data that the nodes of one process share. ``unix_ms``: the engine's clock; ``random_hex``: new ids.

    ``log_length``: events that a room's log keeps. Rooms are kept until `flush`: it is for tests and for one process.
    """

    def __init__(
        self,
        unix_ms: Callable[[], int],
        *,
        log_length: int = LOG_LENGTH,
        random_hex: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._unix_ms = unix_ms
        self._log_length = log_length
        self._random_hex = random_hex
        self.is_full = False
        """Whether it refuses whatever needs memory, as a server at its bound does; leases and claims go on."""
        self.flush()

    def flush(self) -> None:
        """Drop all data, as FLUSHALL does."""
        self._lineage = ""
        self._lineage_ms = 0
        self._nodes: dict[str, tuple[int, NodeRecord]] = {}
        self._rooms: dict[str, SharedRoom] = {}
        self._outbox_rooms: dict[str, None] = {}
        self._orders: dict[bytes, tuple[int, str]] = {}
        self._control: list[tuple[int, ControlEntry]] = []
        self._last_control = 0
        self._inboxes: dict[str, SharedInbox] = {}
        self._links: dict[str, dict[str, SharedLink]] = {}
        self._next_outbox_id = 0

    def cut_tail(self, room: str, events: int, facts: int = 0) -> None:
        """Lose the newest events of a room with the facts behind them, and more facts, as a power cut does."""
        shared = self._rooms[room]
        owner = shared.owner
        assert owner is not None
        kept = shared.log[: max(len(shared.log) - events, 0)]
        shared.log = kept
        last = kept[-1].offset if kept else 0
        shared.facts = [each for each in shared.facts if each.offset <= last]
        del shared.facts[max(len(shared.facts) - facts, 0) :]
        last_fact = shared.facts[-1].fact if shared.facts else 0
        for digest in [d for d, (_, known) in shared.keys.items() if known.offset > last]:
            del shared.keys[digest]
        shared.owner = owner._replace(last_offset=last, last_fact=last_fact)

    # ---- nodes

    def born(self, node: str, body: bytes) -> NodeBirth:
        """Do `Engine.born`."""
        now = self._unix_ms()
        if not self._lineage:
            self._lineage, self._lineage_ms = self._random_hex(), now
        incarnation = self._random_hex()
        self._nodes[node] = now + NODE_TTL_MS, NodeRecord(node, incarnation, body)
        return NodeBirth(incarnation, self._lineage, now - self._lineage_ms)

    def beat(self, node: str, incarnation: str, body: bytes) -> bool:
        """Do `Engine.beat`."""
        if not self._has_lease(node, incarnation):
            return False
        self._nodes[node] = self._unix_ms() + NODE_TTL_MS, NodeRecord(node, incarnation, body)
        return True

    def leave(self, node: str, incarnation: str) -> None:
        """Do `Engine.leave`."""
        if self._has_lease(node, incarnation):
            del self._nodes[node]

    def nodes(self) -> tuple[NodeRecord, ...]:
        """Do `Engine.nodes`."""
        now = self._unix_ms()
        return tuple(record for _, (until, record) in sorted(self._nodes.items()) if until > now)

    def _has_lease(self, node: str, incarnation: str) -> bool:
        found = self._nodes.get(node)
        return found is not None and found[0] > self._unix_ms() and found[1].incarnation == incarnation

    # ---- ownership

    def owner(self, room: str) -> OwnerRecord | None:
        """Do `Engine.owner`."""
        shared = self._rooms.get(room)
        return None if shared is None else shared.owner

    def claim(
        self, node: str, room: str, seen_fence: int, marker: LogItem, floor_fence: int, floor_offset: int
    ) -> Granted | Held:
        """Do `Engine.claim`."""
        shared = self._rooms.setdefault(room, SharedRoom())
        known = shared.owner
        if (0 if known is None else known.fence) != seen_fence:
            return Held(known or OwnerRecord("", 0, 0, 0, b"", False))
        is_new = known is None or known.has_ended
        before = known or OwnerRecord("", 0, 0, 0, b"", False)
        fence = max(self._unix_ms(), before.fence + 1, floor_fence + 1)
        offset = max(before.last_offset, floor_offset) + 1
        if is_new:
            shared.log, shared.facts, shared.checkpoint = [], [], None
        lane, kind, at_ms, body = marker
        shared.log.append(StoredLogItem(fence, offset, 0, lane, kind, at_ms, body))
        shared.owner = OwnerRecord(node, fence, offset, before.last_fact, b"" if is_new else before.note, False)
        return Granted(fence, offset, before.last_fact, is_new)

    def release(self, node: str, room: str, fence: int) -> Fenced | None:
        """Do `Engine.release`."""
        shared = self._owned(node, room, fence)
        if isinstance(shared, Fenced):
            return shared
        assert shared.owner is not None
        shared.owner = shared.owner._replace(node="")
        return None

    def note(self, node: str, room: str, fence: int, note: bytes) -> Fenced | None:
        """Do `Engine.note`."""
        self._require_memory()
        shared = self._owned(node, room, fence)
        if isinstance(shared, Fenced):
            return shared
        assert shared.owner is not None
        shared.owner = shared.owner._replace(note=note)
        return None

    def _owned(self, node: str, room: str, fence: int) -> SharedRoom | Fenced:
        shared = self._rooms.get(room)
        owner = None if shared is None else shared.owner
        if shared is None or owner is None or owner.node != node or owner.fence != fence:
            return Fenced(owner)
        return shared

    # ---- logs

    def append(
        self,
        node: str,
        room: str,
        fence: int,
        last_offset: int,
        last_fact: int,
        items: Sequence[LogItem],
        outbox: Sequence[OutboxItem],
        keys: Sequence[KeyWrite],
        ends: bool,
    ) -> AppendResult:
        """Do `Engine.append`."""
        check_append(items, outbox, keys)
        self._require_memory()
        shared = self._owned(node, room, fence)
        if isinstance(shared, Fenced):
            return shared
        assert shared.owner is not None
        if (shared.owner.last_offset, shared.owner.last_fact) != (last_offset, last_fact):
            return Misplaced(shared.owner.last_offset, shared.owner.last_fact)
        first = self.known_keys(room, [key.digest for key in keys])
        if first:
            return KeysKnown(first)
        offsets = []
        for lane, kind, at_ms, body in items:
            if lane is None:
                last_fact += 1
                shared.facts.append(StoredLogItem(fence, last_offset, last_fact, None, kind, at_ms, body))
            else:
                last_offset += 1
                shared.log.append(StoredLogItem(fence, last_offset, 0, lane, kind, at_ms, body))
            offsets.append(last_offset)
        for topic, endpoint, line, at_ms, body, place in outbox:
            self._outbox_rooms.setdefault(room)
            self._next_outbox_id += 1
            name = f"{self._next_outbox_id:020d}"
            number = offsets[place] if place >= 0 else 0
            shared.outbox[name] = StoredOutboxItem(name, topic, endpoint, line, number, at_ms, body)
        now = self._unix_ms()
        for digest, fingerprint, ttl_ms, outcome, answer, place in keys:
            offset = offsets[place] if place >= 0 else 0
            shared.keys[digest] = now + ttl_ms, KnownKey(fingerprint, outcome, offset, fence, answer)
        del shared.log[: max(len(shared.log) - self._log_length, 0)]
        shared.owner = shared.owner._replace(last_offset=last_offset, last_fact=last_fact, has_ended=ends)
        return Appended(last_offset, last_fact)

    def read_log(self, room: str, fence: int, offset: int, count: int) -> Sequence[StoredLogItem]:
        """Do `Engine.read_log`."""
        log = self._room(room).log
        start = bisect_right(log, (fence, offset), key=lambda each: (each.fence, each.offset))
        return tuple(log[start : start + count])

    def read_newest(self, room: str, count: int) -> Sequence[StoredLogItem]:
        """Do `Engine.read_newest`."""
        log = self._room(room).log
        return tuple(log[max(len(log) - count, 0) :])

    def read_facts(self, room: str, number: int, count: int) -> Sequence[StoredLogItem]:
        """Do `Engine.read_facts`."""
        facts = self._room(room).facts
        start = bisect_right(facts, number, key=lambda each: each.fact)
        return tuple(facts[start : start + count])

    def resume(self, room: str, fence: int, offset: int, count: int) -> Sequence[StoredLogItem] | None:
        """Do `Engine.resume`."""
        log = self._room(room).log
        start = bisect_right(log, (fence, offset), key=lambda each: (each.fence, each.offset))
        if not start or (log[start - 1].fence, log[start - 1].offset) != (fence, offset):
            return None
        return tuple(log[start : start + count])

    def known_keys(self, room: str, digests: Sequence[bytes]) -> Mapping[bytes, KnownKey]:
        """Do `Engine.known_keys`."""
        now = self._unix_ms()
        keys = self._room(room).keys
        return {digest: keys[digest][1] for digest in digests if digest in keys and keys[digest][0] > now}

    def write_checkpoint(self, node: str, room: str, checkpoint: RoomCheckpointRecord) -> Fenced | None:
        """Do `Engine.write_checkpoint`."""
        shared = self._owned(node, room, checkpoint.fence)
        if isinstance(shared, Fenced):
            return shared
        shared.checkpoint = checkpoint
        shared.facts = [each for each in shared.facts if each.fact > checkpoint.fact]
        return None

    def remove_facts(self, node: str, room: str, fence: int, numbers: Sequence[int]) -> Fenced | None:
        """Do `Engine.remove_facts`."""
        shared = self._owned(node, room, fence)
        if isinstance(shared, Fenced):
            return shared
        gone = frozenset(numbers)
        shared.facts = [each for each in shared.facts if each.fact not in gone]
        return None

    def read_checkpoint(self, room: str) -> RoomCheckpointRecord | None:
        """Do `Engine.read_checkpoint`."""
        return self._room(room).checkpoint

    def _room(self, room: str) -> SharedRoom:
        return self._rooms.get(room) or SharedRoom()

    # ---- reports

    def outbox_rooms(self, count: int) -> tuple[str, ...]:
        """Do `Engine.outbox_rooms`."""
        return tuple(self._outbox_rooms)[:count]

    def read_outbox(self, room: str, after: str, count: int) -> Sequence[StoredOutboxItem]:
        """Do `Engine.read_outbox`."""
        return tuple([each for name, each in self._room(room).outbox.items() if name > after][:count])

    def remove_outbox(self, node: str, room: str, fence: int, ids: Sequence[str]) -> Fenced | None:
        """Do `Engine.remove_outbox`."""
        shared = self._owned(node, room, fence)
        if isinstance(shared, Fenced):
            return shared
        for name in ids:
            shared.outbox.pop(name, None)
        if not shared.outbox:
            self._outbox_rooms.pop(room, None)
        return None

    def bind_order(self, digest: bytes, room: str, ttl_ms: int) -> str:
        """Do `Engine.bind_order`."""
        self._require_memory()
        now = self._unix_ms()
        known = self._orders.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        self._orders[digest] = now + ttl_ms, room
        return room

    # ---- control stream

    def post_control(self, body: bytes) -> str:
        """Do `Engine.post_control`."""
        self._require_memory()
        now = self._unix_ms()
        self._control = [each for each in self._control if each[0] > now - CONTROL_KEPT_MS]
        self._last_control += 1
        name = f"{self._last_control:020d}"
        self._control.append((now, ControlEntry(name, body)))
        return name

    def read_control(self, after: str, count: int) -> Sequence[ControlEntry]:
        """Do `Engine.read_control`."""
        return tuple([entry for _, entry in self._control if entry.id > after][:count])

    def last_control(self) -> str:
        """Do `Engine.last_control`."""
        return self._control[-1][1].id if self._control else ""

    # ---- users

    def push_inbox(self, user: str, entries: Sequence[InboxEntry], cap: int, now_ms: int) -> InboxPushed:
        """Do `Engine.push_inbox`."""
        self._require_memory()
        inbox = self._inboxes.setdefault(user, SharedInbox())
        while inbox.entries and inbox.entries[0].expires_at_ms <= now_ms:
            inbox.entries.popleft()
            inbox.expired += 1
        numbers = []
        for entry in entries[: max(cap - len(inbox.entries), 0)]:
            inbox.last += 1
            inbox.entries.append(entry._replace(number=inbox.last))
            numbers.append(inbox.last)
        return InboxPushed(tuple(numbers))

    def ack_inbox(self, user: str, number: int) -> int:
        """Do `Engine.ack_inbox`."""
        inbox = self._inboxes.get(user)
        if inbox is None:
            return 0
        removed = 0
        while inbox.entries and inbox.entries[0].number <= number:
            inbox.entries.popleft()
            removed += 1
        inbox.acked = max(inbox.acked, min(number, inbox.last))
        return removed

    def read_inbox(self, user: str, after: int, count: int) -> Sequence[InboxEntry]:
        """Do `Engine.read_inbox`."""
        inbox = self._inboxes.get(user) or SharedInbox()
        return tuple([entry for entry in inbox.entries if entry.number > after][:count])

    def inbox_state(self, user: str) -> InboxState:
        """Do `Engine.inbox_state`."""
        inbox = self._inboxes.get(user) or SharedInbox()
        return InboxState(inbox.last, inbox.acked, len(inbox.entries), inbox.expired)

    def add_link(self, user: str, link: SharedLink, live: Sequence[str], limit: int, displace: bool) -> LinkAdded:
        """Do `Engine.add_link`."""
        self._require_memory()
        others = [each for each in self.links(user) if each.connection != link.connection and each.incarnation in live]
        displaced = others[: max(len(others) - limit + 1, 0)]
        if displaced and not displace:
            self._links[user] = {each.connection: each for each in others}
            return LinkAdded(False, ())
        kept = others[len(displaced) :]
        self._links[user] = {each.connection: each for each in (*kept, link)}
        return LinkAdded(True, tuple(displaced))

    def remove_link(self, user: str, connection: str) -> None:
        """Do `Engine.remove_link`."""
        found = self._links.get(user, {})
        found.pop(connection, None)
        if not found:
            self._links.pop(user, None)

    def links(self, user: str) -> tuple[SharedLink, ...]:
        """Do `Engine.links`."""
        return tuple(sorted(self._links.get(user, {}).values(), key=lambda each: (each.since_ms, each.connection)))

    def _require_memory(self) -> None:
        if self.is_full:
            raise EngineFull("the engine is at its bound of memory")
