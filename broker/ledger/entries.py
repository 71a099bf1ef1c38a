"""What goes into the ledger and what comes back: items, idempotency keys, and how a submission ends.

A *submission* is a few items that become durable together or not at all: a gift's event and the outbox row that reports
it to the platform, say. Its keys make it idempotent: where one is known already, nothing is written and the first
result comes back.

Items are plain values; nothing here touches a file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "ACTIVITY_FACTS",
    "AUDITED",
    "CANCEL_ROWS",
    "ENTRIES_REDACTED",
    "FACT_KIND_MIN",
    "LEDGER_RESTORED",
    "MAX_BODY_BYTES",
    "MAX_ITEMS",
    "MAX_REDACTED",
    "READ_WITHOUT_KEY",
    "ROOM_SAMPLED",
    "AnswersRemoved",
    "BatchRedacted",
    "CallAnswered",
    "Committed",
    "CopyCleared",
    "CopyFilled",
    "DirectAcked",
    "DirectEntry",
    "DirectState",
    "DirectsCancelled",
    "DirectsRedacted",
    "DirectsRemoved",
    "EntriesRedacted",
    "Entry",
    "FailureKind",
    "Item",
    "Key",
    "KeyResult",
    "LedgerCut",
    "LedgerDamaged",
    "LedgerError",
    "LedgerRefused",
    "LedgerResult",
    "OutboxAgain",
    "OutboxCounts",
    "OutboxDone",
    "OutboxEntry",
    "OutboxLater",
    "OutboxRedacted",
    "RecordPut",
    "RecordRemoved",
    "Repeated",
    "RoomCheckpointed",
    "RoomEnded",
    "RoomForgotten",
    "RoomOpened",
    "StoredDirect",
    "StoredEntry",
    "StoredOutbox",
    "StoredRecord",
    "StoredRoom",
    "Submission",
    "SubmitResult",
    "make_key",
]

MAX_BODY_BYTES = 256 * 1024
"""Body of one item; the wire allows 64 KiB, the rest is for facts of the broker's own."""
MAX_ITEMS = 5000
"""Items of one submission: they are one transaction. The 256 orders of a combo are reported to up to 16 endpoints."""
MAX_SUBMISSION_BYTES = 4 * 1024 * 1024
FACT_KIND_MIN = 1000
"""Entries that are no event of a room's stream have kinds from here on; below are the wire's message types."""
ACTIVITY_FACTS = FACT_KIND_MIN + 3
"""Kind of the facts of a room's activities, of one batch each (`broker.rooms.activity_records`)."""
LEDGER_RESTORED = FACT_KIND_MIN + 1
"""Kind of the fact that the ledger goes on as another history: JSON ``{"lost": what is known to be missing}``."""
AUDITED = FACT_KIND_MIN + 7
"""Kind of the entries of the audit, see `broker.ledger.audits`."""
ENTRIES_REDACTED = FACT_KIND_MIN + 4
"""Kind of the facts that vouch for replaced bodies: see `broker.ledger.redaction`."""
READ_WITHOUT_KEY = frozenset({LEDGER_RESTORED, ENTRIES_REDACTED})
"""Kinds of facts that are never encrypted, for who verifies or restores a ledger needs no key. They name no user."""
ROOM_SAMPLED = FACT_KIND_MIN + 10
"""Kind of the facts that are samples of a room's counters (`broker.core.rooms.samples`)."""
CANCEL_ROWS = 500
"""Messages that one item cancels or removes: some milliseconds of a transaction."""
MAX_REDACTED = 1000
"""Entries that one item redacts."""
ITEM_OVERHEAD_BYTES = 200
"""Memory of one queued item besides its body, rounded up."""


# ---- items -----------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One entry of the chain: an event of a room's stream, or (``lane`` None) a fact that has no offset.

    ``kind``: message type of an event, FACT_KIND_MIN or more of a fact. ``body``: the packed event, or what the fact's
    owner packs. ``at_ms``: Unix milliseconds. Facts of no room have the room "" and epoch 0.
    """

    room: str
    epoch: int
    lane: int | None
    kind: int
    at_ms: int
    body: bytes


class RoomOpened(NamedTuple):
    """A room has begun a stream; known ones are left as they are. The first entry of a stream implies it."""

    room: str
    epoch: int
    at_ms: int


class RoomEnded(NamedTuple):
    """The stream is over: the room does not come back after a restart. Nothing happens to one that is not there."""

    room: str
    epoch: int
    at_ms: int


class RoomCheckpointed(NamedTuple):
    """What a room wants to find again after a restart; replaces its last checkpoint."""

    room: str
    epoch: int
    at_ms: int
    totals: bytes


class DirectEntry(NamedTuple):
    """A must-deliver message to one user; the ledger gives it the next number of that user's inbox."""

    user: str
    kind: int
    at_ms: int
    expires_at_ms: int
    body: bytes
    batch: str = ""
    marketing: bool = False
    """It is written only where the rules of marketing allow for it; else its number is a `Suppression`."""


class DirectAcked(NamedTuple):
    """A user has been shown everything up to ``direct_id``."""

    user: str
    direct_id: int
    at_ms: int


class DirectsCancelled(NamedTuple):
    """Pending messages that are not to be delivered any more: up to `CANCEL_ROWS` of ``batch``, the oldest first, or
    (both empty) message ``direct_id`` of ``user``, or up to `CANCEL_ROWS` of marketing to ``user``. What is not pending
    stays as it is.
    """

    batch: str = ""
    user: str = ""
    direct_id: int = 0
    marketing: bool = False


class OutboxEntry(NamedTuple):
    """A report to one endpoint of the platform; it stays until it is done.

    ``line``: reports of one line go out in their order. The row gets the number of the submission's first event, as a
    key does (`KeyResult.offset`).
    """

    topic: str
    at_ms: int
    body: bytes
    endpoint: str = ""
    line: str = ""


class OutboxDone(NamedTuple):
    """The platform has taken these."""

    ids: tuple[int, ...]


class OutboxLater(NamedTuple):
    """An attempt has failed: try again at ``due_at_ms``, or never again (None: a dead letter). ``reason``: why."""

    id: int
    attempts: int
    due_at_ms: int | None
    reason: str = ""


class OutboxAgain(NamedTuple):
    """Dead letters that are to be tried again: each goes to the end of its line, with a new id."""

    ids: tuple[int, ...]
    at_ms: int


class RecordPut(NamedTuple):
    """A small value that survives restarts, under three names; it replaces the one that was there.

    ``kind`` says whose it is ("room.rules"), ``subject`` what it is about (a room, a user; "" = the broker), ``name``
    which one of the subject ("" where there is one). The owner of a kind bounds how many it keeps.
    """

    kind: str
    subject: str
    name: str
    at_ms: int
    body: bytes


class RecordRemoved(NamedTuple):
    """The value under these names goes; nothing happens where there is none."""

    kind: str
    subject: str
    name: str


class EntriesRedacted(NamedTuple):
    """The bodies of entries are replaced, by sequence number; the chain holds, and a fact vouches for the new ones.

    ``by``: why, in a word that names no user. Entries that are not kept any more are left out.
    """

    by: str
    at_ms: int
    bodies: tuple[tuple[int, bytes], ...]


class OutboxRedacted(NamedTuple):
    """The bodies of rows of the outbox are replaced, by id; those that are done are left out."""

    bodies: tuple[tuple[int, bytes], ...]


class DirectsRedacted(NamedTuple):
    """The bodies of must-deliver messages are replaced, by the id of their row; those that are gone are left out."""

    bodies: tuple[tuple[int, bytes], ...]


class BatchRedacted(NamedTuple):
    """The bodies of all must-deliver messages of a batch, whatever their state, are replaced by this one."""

    batch: str
    body: bytes


class DirectsRemoved(NamedTuple):
    """Up to `CANCEL_ROWS` messages of a user go, whatever their state, and its inbox with the last of them."""

    user: str


class AnswersRemoved(NamedTuple):
    """The answers that keys hold go, by digest; the keys stay known."""

    digests: tuple[bytes, ...]


class RoomForgotten(NamedTuple):
    """What a copy has of a room goes, because the log that it is a copy of was lost: its streams with their entries,
    its records of ``kinds``, and keys, by digest. The hash chain of such a copy cannot be verified any more."""

    room: str
    kinds: tuple[str, ...]
    digests: tuple[bytes, ...]


class CopyCleared(NamedTuple):
    """What a copy has of a log goes, because it cannot follow the log any more: records of ``kinds`` and all inboxes
    with their messages. The keys stay."""

    kinds: tuple[str, ...]


class CopyFilled(NamedTuple):
    """Rows of another copy of the same log, as `broker.ledger.copying` reads them. Those that are there already stay
    as they are. ``base``: the number after which a new inbox begins. ``replaced``: users whose inboxes go before."""

    base: int
    inboxes: tuple[tuple[str, int, int, int], ...]
    """User, last number, last acknowledged one, Unix milliseconds."""
    directs: tuple[tuple[str, int, int, int, int, int, str, bytes, int], ...]
    """User, number, kind, at_ms, expires_at_ms, state, batch, body, whether it is marketing."""
    keys: tuple[tuple[bytes, bytes, int, int, bytes, int], ...]
    """Digest, fingerprint, outcome, number, answer, at_ms."""
    replaced: tuple[str, ...] = ()


class CallAnswered(NamedTuple):
    """A call has its answer, which the submission's key holds. It writes nothing itself: the key gets its time."""

    at_ms: int


Item = (
    Entry
    | RoomOpened
    | RoomEnded
    | RoomForgotten
    | RoomCheckpointed
    | CopyCleared
    | CopyFilled
    | DirectEntry
    | DirectAcked
    | DirectsCancelled
    | OutboxEntry
    | OutboxDone
    | OutboxLater
    | OutboxAgain
    | RecordPut
    | RecordRemoved
    | CallAnswered
    | EntriesRedacted
    | OutboxRedacted
    | DirectsRedacted
    | BatchRedacted
    | DirectsRemoved
    | AnswersRemoved
)


class Key(NamedTuple):
    """An idempotency key as it is stored: see `make_key`."""

    digest: bytes
    fingerprint: bytes
    outcome: int = 0
    answer: bytes = b""


def make_key(*parts: str, content: bytes = b"", outcome: int = 0, answer: bytes = b"") -> Key:
    """Return a key for a submission. ``parts`` name the operation, ``content`` is what it does.

    Every part is written with its length, so that no two operations have one name. The first result is (``outcome``,
    offset of the submission's first event, ``answer``). A repetition with other content is in `Repeated.reused`.
    """
    name = b""
    for part in parts:
        encoded = part.encode()
        name += len(encoded).to_bytes(4, "big") + encoded
    return Key(hashlib.sha256(name).digest()[:16], hashlib.sha256(content).digest()[:8], outcome, answer)


class Submission:
    """Items that become durable together, and the keys that make them idempotent. Never changed once made."""

    __slots__ = ("has_reports", "items", "keys", "nbytes")

    def __init__(self, items: tuple[Item, ...], keys: tuple[Key, ...] = ()) -> None:
        if not 1 <= len(items) <= MAX_ITEMS or len(keys) > MAX_ITEMS:
            raise ValueError(f"a submission has 1 to {MAX_ITEMS} items and at most as many keys, not {len(items)}")
        nbytes = ITEM_OVERHEAD_BYTES * (1 + len(items) + len(keys))
        for key in keys:
            nbytes += len(key[3])
        self.has_reports = False
        """Whether it adds to the outbox."""
        for item in items:
            kind = type(item)
            if kind is OutboxEntry or kind is OutboxAgain:
                self.has_reports = True
            place = _BODIES.get(kind)
            if place is not None:
                size = len(item[place])  # type: ignore[arg-type]  # the table says where each kind has its body
                if size > MAX_BODY_BYTES:
                    raise ValueError(f"a body of {size} bytes is above {MAX_BODY_BYTES}")
                nbytes += size
            elif isinstance(item, (EntriesRedacted, OutboxRedacted, DirectsRedacted)):
                if len(item.bodies) > MAX_REDACTED:
                    raise ValueError(f"at most {MAX_REDACTED} bodies are replaced at once")
                nbytes += sum(ITEM_OVERHEAD_BYTES + len(body) for _, body in item.bodies)
        if nbytes > MAX_SUBMISSION_BYTES:
            raise ValueError(f"a submission of {nbytes} bytes is above {MAX_SUBMISSION_BYTES}")
        self.items = items
        self.keys = keys
        self.nbytes = nbytes
        """Memory while it waits, rounded up."""

    def __repr__(self) -> str:
        return f"Submission({self.items!r}, {self.keys!r})"


_BODIES: dict[type, int] = {
    kind: kind._fields.index("totals" if kind is RoomCheckpointed else "body")
    for kind in (Entry, RoomCheckpointed, DirectEntry, OutboxEntry, RecordPut, BatchRedacted)
}


# ---- how it ends -----------------------------------------------------------------------------------


class SubmitResult(Enum):
    """What the ledger says of a submission at once."""

    QUEUED = "queued"
    """Its result will follow: `Committed`, `Repeated` or `LedgerError`, exactly once."""
    FULL = "full"
    """Too much waits; nothing was taken. Refuse the request, to be tried again later."""
    UNAVAILABLE = "unavailable"
    """The ledger cannot write now (`Ledger.status` says why); nothing was taken."""


class Committed(NamedTuple):
    """It is on the disk. ``offsets``: of the submission's events, in order; ``direct_ids``: of its directs, a
    `Suppression` where one was not to be sent;
    ``cancelled``: user and number of the messages that were pending and are cancelled.
    """

    offsets: tuple[int, ...] = ()
    direct_ids: tuple[int, ...] = ()
    cancelled: tuple[tuple[str, int], ...] = ()


class KeyResult(NamedTuple):
    """Result of the first submission with a key."""

    outcome: int
    offset: int
    """Offset of its first event; where it had none the number of its first direct message, or 0."""
    answer: bytes
    fingerprint: bytes


class Repeated(NamedTuple):
    """Nothing was written: these keys are known, by digest."""

    first: dict[bytes, KeyResult]
    reused: frozenset[bytes] = frozenset()
    """Those of them whose first content was another."""


class FailureKind(Enum):
    """Why the ledger could not write."""

    DISK_FULL = "disk full"
    IO_ERROR = "input/output error"
    READ_ONLY = "read-only"
    LOCKED = "locked by another process"
    DAMAGED = "damaged"
    REFUSED = "refused by a constraint"
    """This one submission is at fault, not the disk."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class LedgerError:
    """It is not on the disk, and must not be acknowledged."""

    kind: FailureKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value


LedgerResult = Committed | Repeated | LedgerError


class LedgerRefused(Exception):
    """The ledger cannot be opened, and why; nothing was changed."""


class LedgerDamaged(LedgerRefused):
    """What is in the file is not what was written. The message names the file and the place."""


class LedgerCut(LedgerDamaged):
    """What the high-water mark names is not in the file, or there is no mark to say so.

    ``lost``: what is missing, in words.
    """

    def __init__(self, path: Path, lost: str) -> None:
        super().__init__(
            f"{path}: {lost}; put a backup in its place (`roomcast ledger restore COPY`), or go on without what is"
            " missing (`roomcast ledger restore --accept-loss`)"
        )
        self.lost = lost


# ---- what is read back -----------------------------------------------------------------------------


class StoredRoom(NamedTuple):
    """A stream that has not ended."""

    room: str
    epoch: int
    last_offset: int
    used_at_ms: int
    totals: bytes


class StoredEntry(NamedTuple):
    """One entry; ``offset`` 0 and ``lane`` None for facts."""

    seq: int
    room: str
    epoch: int
    offset: int
    lane: int | None
    kind: int
    at_ms: int
    body: bytes


class DirectState(IntEnum):
    """State of a must-deliver message. A pending one becomes one of the others, and stays it."""

    PENDING = 0
    ACKED = 1
    EXPIRED = 2
    CANCELLED = 3


class StoredDirect(NamedTuple):
    """One must-deliver message."""

    user: str
    direct_id: int
    kind: int
    at_ms: int
    expires_at_ms: int
    state: DirectState
    body: bytes
    batch: str = ""


class StoredRecord(NamedTuple):
    """One value of records."""

    kind: str
    subject: str
    name: str
    at_ms: int
    body: bytes


class StoredOutbox(NamedTuple):
    """One row of the outbox. ``number``: of the submission's first event or direct message, 0 = it had none.

    ``due_at_ms`` None: a dead letter; ``reason``: of the last failure.
    """

    id: int
    endpoint: str
    line: str
    topic: str
    number: int
    at_ms: int
    due_at_ms: int | None
    attempts: int
    reason: str
    body: bytes


class OutboxCounts(NamedTuple):
    """Rows of one endpoint: those that wait and when the oldest was written (0 = none waits), and dead letters."""

    waiting: int
    oldest_at_ms: int
    dead: int
    dead_bytes: int
