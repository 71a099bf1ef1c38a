"""The contract of the engine: how nodes share rooms, logs, channels and users. `Engine` is one node's view of it.

Safety comes from two numbers that every write names, liveness from leases:

- the *fence* of a room: each claim of it gets a higher one, and a write under an older one is refused;
- the *position* of the next entry: a write that does not go on where the log ends is refused.

So a late packet, a lost answer or a node that slept cannot write twice, nor under a room that another node owns. A node
whose lease has lapsed must stop answering from memory; what it may still send does no harm.

Names (rooms, users, nodes) are opaque text; bodies are opaque bytes. Times are Unix milliseconds where the name ends in
``_ms``, and are only kept, but for the engine's own clock that makes fences and expires keys.

Errors of every request: `EngineUnavailable` (nothing was written, try again), `OutcomeUnknown` (it was sent and the
answer is lost: it may have been done, or may yet be). A cancelled request is one whose outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

import trio

__all__ = [
    "MAX_APPEND_BYTES",
    "MAX_APPEND_ITEMS",
    "Appended",
    "ControlEntry",
    "Engine",
    "EngineError",
    "EngineFull",
    "EngineListener",
    "EngineRefused",
    "EngineStatus",
    "EngineUnavailable",
    "Fenced",
    "Granted",
    "Held",
    "InboxEntry",
    "InboxPushed",
    "InboxState",
    "KeyWrite",
    "KeysKnown",
    "KnownKey",
    "LinkAdded",
    "LogItem",
    "Misplaced",
    "NodeBirth",
    "NodeRecord",
    "OutboxItem",
    "OwnerRecord",
    "RoomCheckpointRecord",
    "SharedLink",
    "StoredLogItem",
    "StoredOutboxItem",
    "check_append",
]

MAX_APPEND_ITEMS = 256
"""Items of one append: the engine serves no other client meanwhile, some 2 ms."""
MAX_APPEND_BYTES = 256 * 1024
"""Bodies of one append together; one item alone may have more, up to the ledger's bound of a body."""
NODE_TTL_MS = 2000
"""A node that has not renewed its lease for so long is gone."""
BEAT_EVERY_S = 0.5
"""How often a node renews its lease."""
CONTROL_KEPT_MS = 24 * 3600 * 1000
"""Entries of the control stream stay at least so long."""


# ---- errors


class EngineError(Exception):
    """A request to the engine has failed; the message says why, and names no secret."""


class EngineUnavailable(EngineError):
    """Nothing was written: the link is down, too much waits for it, or the engine cannot write now. Try again later."""


class EngineFull(EngineUnavailable):
    """Nothing was written: the engine is at its bound of memory."""


class OutcomeUnknown(EngineError):
    """The request was sent and its answer is lost: it may have been done, or may be done later.

    Also an append that is in the log and not yet as durable as configured: it may be lost, and its keys decide.
    """


class EngineRefused(EngineError):
    """The engine will not do this however often it is asked: wrong password, missing right, eviction policy."""


# ---- nodes


class NodeBirth(NamedTuple):
    """A node has its lease."""

    incarnation: str
    """Random, one for each `born`: the node of the same name before a restart is another one."""
    lineage: str
    """Random id of the data. Another one than before: the data is new, or was lost."""
    lineage_age_ms: int
    """How long ago the data was new, by the engine's clock."""


class NodeRecord(NamedTuple):
    """A node that has a lease now. ``body``: what it said of itself in its last beat (address, version, load)."""

    node: str
    incarnation: str
    body: bytes


# ---- ownership of rooms


class OwnerRecord(NamedTuple):
    """Who owns a room. ``node`` "": it was released, the fence stays."""

    node: str
    fence: int
    last_offset: int
    """Of the last entry of the log, 0 = none."""
    last_fact: int
    """Number of the last fact, 0 = none."""
    note: bytes
    """What the owner has noted last."""
    has_ended: bool


class Granted(NamedTuple):
    """The claim was granted: this node owns the room under ``fence``; its marker is the entry ``offset``."""

    fence: int
    """Above every fence of the room before, and at least the engine's Unix milliseconds."""
    offset: int
    last_fact: int
    is_new: bool
    """The engine knew nothing of the room: it is new, has ended, or its data was lost."""


class Held(NamedTuple):
    """The claim was refused: the room's fence is not the one that the claimer had seen."""

    owner: OwnerRecord


class Fenced(NamedTuple):
    """The write was refused: the room has another owner, or (``owner`` None) the engine knows no such room."""

    owner: OwnerRecord | None


class Misplaced(NamedTuple):
    """The append was refused: the log or the facts do not end where the owner said. The owner is right about the fence.

    Less than expected: the engine has lost the tail; more: an append whose answer was lost is there.
    """

    last_offset: int
    last_fact: int


# ---- the log of a room


class LogItem(NamedTuple):
    """An event of the log (``lane`` 0 to 2) or (``lane`` None) a fact, which has no offset but a number of its own."""

    lane: int | None
    kind: int
    at_ms: int
    body: bytes


class OutboxItem(NamedTuple):
    """A report that the room's owner is to send; reports of one ``line`` go out in their order."""

    topic: str
    endpoint: str
    line: str
    at_ms: int
    body: bytes
    item: int = -1
    """Index in ``items`` of the event that it reports: its offset is the report's number. -1 = number 0."""


class KeyWrite(NamedTuple):
    """An idempotency key that an append writes; the append is refused where it is known already."""

    digest: bytes
    fingerprint: bytes
    """Of the content, up to 255 B: a repetition with another one is a misuse, which the caller finds by comparing."""
    ttl_ms: int
    outcome: int = 0
    answer: bytes = b""
    item: int = -1
    """Index in ``items`` of the event whose offset is the first result; -1 = offset 0."""


class KnownKey(NamedTuple):
    """First result of an idempotency key."""

    fingerprint: bytes
    outcome: int
    offset: int
    fence: int
    """Fence under which it was written: (fence, offset) is the position of the first use."""
    answer: bytes


class Appended(NamedTuple):
    """The append is as durable as configured. Its events have the offsets up to ``last_offset``, without a hole."""

    last_offset: int
    last_fact: int


class KeysKnown(NamedTuple):
    """The append was refused: these of its keys are known, by digest."""

    first: Mapping[bytes, KnownKey]


AppendResult = Appended | KeysKnown | Misplaced | Fenced


class StoredLogItem(NamedTuple):
    """One event or fact as it was read.

    ``offset``: of an event; of a fact the offset of the last event before it, so that both fold in one order: facts of
    the same offset come after the event, by their numbers. ``fact``: number of a fact, 0 for an event.
    """

    fence: int
    offset: int
    fact: int
    lane: int | None
    kind: int
    at_ms: int
    body: bytes


class StoredOutboxItem(NamedTuple):
    """One report that is to be sent. ``id``: the engine's, to read on behind it and to remove it."""

    id: str
    topic: str
    endpoint: str
    line: str
    number: int
    at_ms: int
    body: bytes


class RoomCheckpointRecord(NamedTuple):
    """State of a room that replaces all entries up to ``offset`` and all facts up to ``fact``."""

    fence: int
    offset: int
    fact: int
    body: bytes


# ---- everything that is no room


class ControlEntry(NamedTuple):
    """One entry of the control stream. ``id``: where to read on."""

    id: str
    body: bytes


class InboxEntry(NamedTuple):
    """One must-deliver message of a user's inbox. ``number`` 0 where it is yet to be pushed."""

    kind: int
    at_ms: int
    expires_at_ms: int
    body: bytes
    number: int = 0


class InboxPushed(NamedTuple):
    """Numbers of the messages that were pushed, in order: the inbox took the first ones, and was full for the rest."""

    numbers: tuple[int, ...]


class InboxState(NamedTuple):
    """Numbers of an inbox: the last message, the last acknowledged one, how many wait and how many have expired."""

    last: int
    acked: int
    waiting: int
    expired: int


class SharedLink(NamedTuple):
    """One connection of a user, at any node."""

    connection: str
    incarnation: str
    since_ms: int


class LinkAdded(NamedTuple):
    """Result of `Engine.add_link`: whether the link stands, and which ones it has displaced, oldest first."""

    is_added: bool
    displaced: tuple[SharedLink, ...]


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """State of the engine for readiness, metrics and people."""

    is_up: bool
    durability: str
    """What an acknowledged append survives, in words: a row of the guide's table."""
    reason: str = ""
    """Why it is not up, or what is wrong although it is."""
    lag_s: float = 0.0
    """How late a message to the node itself arrived last: seconds."""
    used_bytes: int = 0
    """Memory of the engine's data."""


class EngineLinkState(Enum):
    """State of a node's link to the engine."""

    UP = "up"
    DOWN = "down"


class EngineListener(Protocol):
    """What an engine calls, from the task of `Engine.run`. Nothing here may wait or raise."""

    def link_changed(self, state: EngineLinkState, reason: str) -> None:
        """Requests are answered again, or are not. ``reason``: why it is down; how long it was, once it is up."""

    def room_subscribed(self, room: str) -> None:
        """Messages of the room's channel come from now on. Some before may have been missed: read the log."""

    def room_message(self, room: str, body: bytes) -> None:
        """Take a message of the channel of a room, in the order of its publisher; messages may be lost."""

    def node_subscribed(self) -> None:
        """Messages to this node come from now on; some before may have been missed."""

    def node_message(self, body: bytes) -> None:
        """Take a message to this node; messages may be lost."""


def check_append(items: Sequence[LogItem], outbox: Sequence[OutboxItem], keys: Sequence[KeyWrite]) -> None:
    """Check an append against its bounds. ValueError (a bug of the caller) names what is wrong."""
    if not items:
        raise ValueError("an append has an event or a fact: without one a late repetition of it would be done twice")
    if len(items) + len(outbox) > MAX_APPEND_ITEMS or len(keys) > MAX_APPEND_ITEMS:
        raise ValueError(f"an append has at most {MAX_APPEND_ITEMS} items, and as many keys")
    nbytes = sum(len(item.body) for item in items) + sum(len(each.body) for each in outbox)
    nbytes += sum(len(key.answer) for key in keys)
    if nbytes > MAX_APPEND_BYTES and len(items) + len(outbox) > 1:
        raise ValueError(f"an append of {nbytes} bytes is above {MAX_APPEND_BYTES}")
    for place in (*(each.item for each in outbox), *(key.item for key in keys)):
        if place >= len(items) or (place >= 0 and items[place].lane is None):
            raise ValueError(f"item {place} is no event of the append")


class Engine(Protocol):
    """One node's view of the shared data. ``await nursery.start(engine.run, listener)`` opens it.

    Every method with ``async`` is one round trip; requests of one node are done in the order in which they were made,
    but for those of other kinds of links (subscriptions, and reads that may wait). ``atomic``: the whole method is done
    or nothing of it, and no other node sees a part of it.
    """

    @property
    def node(self) -> str:
        """Name of this node."""

    @property
    def status(self) -> EngineStatus:
        """State as it is known now, without asking."""

    async def run(
        self, listener: EngineListener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the links up until cancelled; started when the engine has answered for the first time.

        EngineRefused: at the first connection the engine will not have this node, or may not be used (an eviction
        policy that drops keys); nothing was written.
        """

    # ---- nodes

    async def born(self, body: bytes) -> NodeBirth:
        """Take the lease of this node's name under a new incarnation, whoever had it. Atomic.

        An older process with the same name is LOST at its next beat.
        """

    async def beat(self, incarnation: str, body: bytes) -> bool:
        """Renew the lease for `NODE_TTL_MS` if this incarnation has it; False: it is LOST. Atomic.

        Count the lease from the moment this was *called*, on a monotonic clock.
        """

    async def leave(self, incarnation: str) -> None:
        """Give the lease up if this incarnation has it: others may claim its rooms at once. Atomic."""

    async def nodes(self) -> tuple[NodeRecord, ...]:
        """Return the nodes that have a lease, by name."""

    # ---- ownership

    async def owner(self, room: str) -> OwnerRecord | None:
        """Return who owns a room; None: the engine knows nothing of it."""

    async def claim(
        self, room: str, seen_fence: int, marker: LogItem, *, floor_fence: int = 0, floor_offset: int = 0
    ) -> Granted | Held:
        """Own a room if its fence is still ``seen_fence`` (0: the engine knows no such room). Atomic.

        It says nothing about leases: the caller claims only a room whose owner is gone. ``marker``: the event that is
        appended with it, the first under the new fence. ``floor_fence``, ``floor_offset``: what the claimer knows from
        before, where the engine may have lost its data: the fence and the offset of the marker are above them.
        A room that has ended begins anew: its log, facts and checkpoint are dropped, its numbers go on.
        """

    async def release(self, room: str, fence: int) -> Fenced | None:
        """Give a room up: it has no owner, and its fence stays. None: done. Atomic."""

    async def note(self, room: str, fence: int, note: bytes) -> Fenced | None:
        """Replace the note of a room (`OwnerRecord.note`). None: done. Atomic."""

    # ---- logs

    async def append(
        self,
        room: str,
        fence: int,
        last_offset: int,
        last_fact: int,
        items: Sequence[LogItem],
        outbox: Sequence[OutboxItem] = (),
        keys: Sequence[KeyWrite] = (),
        *,
        ends: bool = False,
    ) -> AppendResult:
        """Write events, facts, reports and keys after ``last_offset`` and ``last_fact``: all or nothing. Atomic.

        Checked in this order, before anything is written: the owner, the place, the keys. ``ends``: the room has ended
        with it. It returns when the write is as durable as configured. OutcomeUnknown: read `owner` and the log behind
        ``last_offset``; the same append again is safe, since it is `Misplaced` or `KeysKnown` where it was done.
        ValueError (a bug): see `check_append`.
        """

    async def read_log(self, room: str, fence: int, offset: int, count: int) -> Sequence[StoredLogItem]:
        """Return up to ``count`` events after the position (fence, offset), oldest first; (0, 0): from the oldest."""

    async def read_newest(self, room: str, count: int) -> Sequence[StoredLogItem]:
        """Return the newest ``count`` events, oldest first."""

    async def read_facts(self, room: str, number: int, count: int) -> Sequence[StoredLogItem]:
        """Return up to ``count`` facts with a number above ``number``, oldest first."""

    async def resume(self, room: str, fence: int, offset: int, count: int) -> Sequence[StoredLogItem] | None:
        """Return up to ``count`` events after a position; None: that very event is not in the log. Atomic."""

    async def known_keys(self, room: str, digests: Sequence[bytes]) -> Mapping[bytes, KnownKey]:
        """Return the first results of those of the keys that are known, by digest."""

    async def write_checkpoint(self, room: str, checkpoint: RoomCheckpointRecord) -> Fenced | None:
        """Replace the room's checkpoint, and drop the facts that it covers. None: done. Atomic.

        ``checkpoint.fence`` is the owner's. It is done by a full engine too. The log is cut by its configured length.
        """

    async def read_checkpoint(self, room: str) -> RoomCheckpointRecord | None:
        """Return the room's checkpoint."""

    async def remove_facts(self, room: str, fence: int, numbers: Sequence[int]) -> Fenced | None:
        """Remove facts that later ones replace, up to `MAX_APPEND_ITEMS`; the numbers of the others stay. Atomic.

        None: done; those that are not there are passed over.
        """

    # ---- reports (outbox of the rooms)

    async def outbox_rooms(self, count: int) -> tuple[str, ...]:
        """Return up to ``count`` rooms that may have reports, in any order."""

    async def read_outbox(self, room: str, after: str, count: int) -> Sequence[StoredOutboxItem]:
        """Return up to ``count`` reports behind an id ("": from the oldest), oldest first."""

    async def remove_outbox(self, room: str, fence: int, ids: Sequence[str]) -> Fenced | None:
        """Remove reports that are done. None: done. Atomic."""

    async def bind_order(self, digest: bytes, room: str, ttl_ms: int) -> str:
        """Bind a key that holds in every room to a room; return the room that it is bound to. Atomic."""

    # ---- channels

    def publish_room(self, room: str, body: bytes) -> bool:
        """Send a message to all nodes that subscribe to a room. Never waits; False: it was dropped (link, bounds)."""

    def publish_node(self, node: str, body: bytes) -> bool:
        """Send a message to a node. Never waits; False: it was dropped here. It may be lost later."""

    def subscribe_room(self, room: str) -> None:
        """Subscribe to a room's channel until `unsubscribe_room`, over reconnections.

        ``listener.room_subscribed`` is called at each time that it holds anew: subscribe, then read the log from the
        last known position, then apply both.
        """

    def unsubscribe_room(self, room: str) -> None:
        """End a subscription; nothing happens where there is none."""

    # ---- control stream

    async def post_control(self, body: bytes) -> str:
        """Append an entry to the stream that every node reads; return its id. Entries go after `CONTROL_KEPT_MS`."""

    async def read_control(self, after: str, count: int) -> Sequence[ControlEntry]:
        """Return up to ``count`` entries behind an id ("": from the oldest), oldest first."""

    async def last_control(self) -> str:
        """Return the id of the newest entry, "" = there is none."""

    # ---- users

    async def push_inbox(self, user: str, entries: Sequence[InboxEntry], cap: int, now_ms: int) -> InboxPushed:
        """Append messages to a user's inbox, as far as fewer than ``cap`` wait. Atomic.

        Expired ones at the head are dropped first, and counted.
        """

    async def ack_inbox(self, user: str, number: int) -> int:
        """Remove the messages up to a number; return how many they were. Atomic."""

    async def read_inbox(self, user: str, after: int, count: int) -> Sequence[InboxEntry]:
        """Return up to ``count`` messages with a number above ``after``, oldest first, expired ones too."""

    async def inbox_state(self, user: str) -> InboxState:
        """Return the numbers of a user's inbox."""

    async def add_link(
        self, user: str, link: SharedLink, live: Sequence[str], limit: int, *, displace: bool
    ) -> LinkAdded:
        """Note a connection of a user. Atomic.

        Links of incarnations that are not among ``live`` are dropped first. With ``limit`` links already the oldest are
        displaced (``displace``), or the new one is refused. The caller closes what was displaced, through its node.
        """

    async def remove_link(self, user: str, connection: str) -> None:
        """Remove a connection of a user; nothing happens where there is none."""

    async def links(self, user: str) -> tuple[SharedLink, ...]:
        """Return the connections of a user, oldest first, those of dead incarnations too."""
