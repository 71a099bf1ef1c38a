"""How the engine's data lies in Redis: names of keys and channels, and the records in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.engine.base import (
    Fenced,
    InboxEntry,
    KeyWrite,
    KnownKey,
    LogItem,
    OutboxItem,
    OwnerRecord,
    RoomCheckpointRecord,
    StoredLogItem,
    StoredOutboxItem,
)

__all__ = [
    "RedisNames",
    "append_arguments",
    "fenced_of",
    "inbox_entry",
    "inbox_value",
    "known_key",
    "log_items",
    "outbox_items",
    "owner_of",
    "pack_checkpoint",
    "stored_facts",
    "unpack_checkpoint",
]


class RedisNames:
    """Names of keys and channels under a prefix, by which several brokers share one server.

    What one script touches has one hash tag, so that it is in one slot of a Cluster.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.lineage = f"{prefix}{{nodes}}:lineage"
        self.nodes = f"{prefix}{{nodes}}:ids"
        self.node_prefix = f"{prefix}{{nodes}}:n:"
        self.control = f"{prefix}ctl"
        self.outbox_rooms = f"{prefix}out:rooms"

    def room(self, room: str, part: str) -> str:
        """Return the key of a part of a room: own, log, fct, ckp, out; or its channel: t."""
        return f"{self.prefix}{{{_tag(room)}}}:{part}"

    def key(self, room: str, digest: bytes) -> bytes:
        """Return the key of an idempotency key of a room."""
        return self.room(room, "k:").encode() + digest

    def order(self, digest: bytes) -> bytes:
        """Return the key of an order that holds in every room."""
        return f"{self.prefix}o:".encode() + digest

    def user(self, user: str, part: str) -> str:
        """Return the key of a part of a user: in, meta, links."""
        return f"{self.prefix}{{u:{_tag(user)}}}:{part}"

    def node_channel(self, node: str) -> str:
        """Return the channel of what is sent to a node."""
        return f"{self.prefix}n:{node}"


def _tag(name: str) -> str:
    """Return a name as part of a hash tag, which ends at the first brace."""
    return name.replace("%", "%25").replace("}", "%7D") if "}" in name or "%" in name else name


# ---- ownership


def owner_of(values: Sequence[Any]) -> OwnerRecord | None:
    """Return the record of the fields node, fence, last, f, note and state; None: there is none."""
    node, fence, last, fact, note, state = values
    if fence is None:
        return None
    return OwnerRecord(node.decode(), int(fence), int(last), int(fact), note or b"", state == b"ended")


def fenced_of(reply: Sequence[Any]) -> Fenced | None:
    """Return the refusal of a script that checks the owner; None: it was done."""
    return Fenced(owner_of(reply[1:])) if reply[0] == b"FENCED" else None


# ---- logs


def append_arguments(
    items: Sequence[LogItem], outbox: Sequence[OutboxItem], keys: Sequence[KeyWrite]
) -> list[str | bytes | int]:
    """Return the arguments of the append script that follow its numbers."""
    arguments: list[str | bytes | int] = []
    for lane, kind, at_ms, body in items:
        arguments += ("" if lane is None else lane, kind, at_ms, body)
    for topic, endpoint, line, at_ms, body, place in outbox:
        arguments += (topic, endpoint, line, at_ms, body, place + 1)
    for _, fingerprint, ttl_ms, outcome, answer, place in keys:
        head = bytes([len(fingerprint)]) + fingerprint + outcome.to_bytes(4, "big")
        arguments += (max(ttl_ms, 1), head, answer, place + 1)
    return arguments


def known_key(value: bytes) -> KnownKey:
    """Return what an idempotency key holds."""
    size = value[0]
    fingerprint, outcome = value[1 : 1 + size], int.from_bytes(value[1 + size : 5 + size], "big")
    offset, fence, answer = value[5 + size :].split(b" ", 2)
    return KnownKey(fingerprint, outcome, int(offset), int(fence), answer)


def log_items(entries: Sequence[Any]) -> tuple[StoredLogItem, ...]:
    """Return the events of a range of a log."""
    found = []
    for name, (_, lane, _, kind, _, at_ms, _, body) in entries:
        fence, _, offset = name.partition(b"-")
        found.append(StoredLogItem(int(fence), int(offset), 0, int(lane), int(kind), int(at_ms), body))
    return tuple(found)


def stored_facts(entries: Sequence[Any]) -> tuple[StoredLogItem, ...]:
    """Return the facts of a range of them."""
    return tuple(
        StoredLogItem(int(fence), int(offset), int(name.partition(b"-")[0]), None, int(kind), int(at_ms), body)
        for name, (_, fence, _, offset, _, kind, _, at_ms, _, body) in entries
    )


def pack_checkpoint(checkpoint: RoomCheckpointRecord) -> bytes:
    """Return a checkpoint as it is stored."""
    return b"%d %d %d " % checkpoint[:3] + checkpoint.body


def unpack_checkpoint(value: bytes) -> RoomCheckpointRecord:
    """Return a checkpoint as it was stored."""
    fence, offset, fact, body = value.split(b" ", 3)
    return RoomCheckpointRecord(int(fence), int(offset), int(fact), body)


def outbox_items(entries: Sequence[Any]) -> tuple[StoredOutboxItem, ...]:
    """Return the reports of a range of them."""
    return tuple(
        StoredOutboxItem(name.decode(), topic.decode(), endpoint.decode(), line.decode(), int(number), int(at_ms), body)
        for name, (_, topic, _, endpoint, _, line, _, at_ms, _, body, _, number) in entries
    )


# ---- inboxes


def inbox_value(entry: InboxEntry) -> bytes:
    """Return what follows number and expiry in the list."""
    return b"%d %d " % (entry.kind, entry.at_ms) + entry.body


def inbox_entry(value: bytes) -> InboxEntry:
    """Return a message of the list."""
    number, expires_at_ms, kind, at_ms, body = value.split(b" ", 4)
    return InboxEntry(int(kind), int(at_ms), int(expires_at_ms), body, int(number))
