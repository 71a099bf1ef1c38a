"""Keys of a room: named values that its members see live, changed by compare-and-set.

`RoomKeys` decides and folds. A command is decided (`decide`, `due`) into the changes to record, whose space is
reserved; once they are durable they are applied, and if the ledger refuses they are released. What is decided is
neither visible nor counted off before it is applied: so the limits hold whichever of the changes under way fail.

Versions are integers that never repeat for a name, also after its deletion: the next one is above all that were given
before, and at least the time. A comparison holds only where no change of the name is under way; else it is refused as
stale, which is always a right answer to a comparison.

A key leaves when it is deleted, when its time has come (by the trusted clock: the caller gives none while that is
distrusted), or a grace after its owner's last connection has left the room. Each is a change like any other.

Bounds: `MAX_KEYS` keys of `MAX_VALUE_BYTES` and `MAX_KEYS_BYTES` in a room, and a `KeySpace` over all rooms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, NamedTuple

from protocol.codes import ErrorCode, KeyCause
from protocol.frames import pack_body
from protocol.messages import MAX_KEYS, RoomKey
from protocol.operations.keys import KeyItem
from protocol.payloads import MAX_KEY_NAME_BYTES, MAX_KEY_VALUE_BYTES, KeyChange

__all__ = [
    "LEAVE_GRACE_S",
    "MAX_KEYS_BYTES",
    "KeyDelete",
    "KeyRecord",
    "KeyRefused",
    "KeySpace",
    "RoomKeys",
    "key_bytes",
]

MAX_KEYS_BYTES = 256 * 1024
"""Keys of one room, as `key_bytes` counts them."""
MAX_SNAPSHOT_BYTES = 16 * 1024
"""Keys in the answer to a JOIN; the others are fetched by ``keys.get``."""
MAX_CHANGE_BYTES = 32 * 1024
"""Keys of one command: they are one event."""
KEY_OVERHEAD_BYTES = 64
"""Bytes of a key besides its texts and its value, rounded up."""
LEAVE_GRACE_S = 15.0
"""A viewer who reloads, or changes between Wi-Fi and mobile data, returns within seconds and keeps its keys."""
RETRY_S = 2.0
"""When what could not be removed is tried again: a change of the key is under way, or the ledger cannot write."""


class KeyDelete(NamedTuple):
    """Delete a key. ``version``: the one it must have, None = any."""

    name: str
    version: int | None = None


class KeyRefused(NamedTuple):
    """Why a command was not decided; nothing has changed. ``item``: index of the one at fault."""

    code: ErrorCode
    field: str
    rule: str
    item: int = 0
    retry_after_ms: int = 0


class KeyRecord(NamedTuple):
    """One key as it is kept. Any: the value is the application's."""

    name: str
    value: Any
    version: int
    expires_at_ms: int | None
    owner: str | None
    delete_on_leave: bool

    @property
    def view(self) -> RoomKey:
        """The key as members see it."""
        return RoomKey(self.name, self.value, self.version, self.expires_at_ms, self.owner)


class KeySpace:
    """Bytes of the keys of all rooms of a broker, at most ``max_bytes``."""

    __slots__ = ("_nbytes", "max_bytes")

    def __init__(self, max_bytes: int = 64 * 1024 * 1024) -> None:
        self.max_bytes = max_bytes
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes taken now."""
        return self._nbytes

    def take(self, nbytes: int) -> None:
        """Take so many more; negative: give them back."""
        self._nbytes += nbytes

    def fits(self, nbytes: int) -> bool:
        """Return whether so many more fit."""
        return self._nbytes + nbytes <= self.max_bytes


def key_bytes(name: str, value: Any, owner: str | None) -> int:
    """Return what a key counts against the bounds: an upper bound of its bytes on the wire."""
    return KEY_OVERHEAD_BYTES + len(name.encode()) + len((owner or "").encode()) + value_bytes(value)


def value_bytes(value: Any) -> int:
    """Return the bytes of a packed value. Any: a free value, as `protocol.fields.any_value` checks it."""
    return len(pack_body((value,))) - 1


class RoomKeys:
    """Keys of one room. ``is_present(user)``: whether the user has a connection there.

    Times: ``now`` monotonic seconds, ``now_ms`` trusted Unix milliseconds.
    """

    __slots__ = (
        "_bytes", "_check_at", "_is_present", "_keys", "_last_version", "_leaving", "_owners", "_reserved", "_snapshot",
        "_space", "_under_way", "changed",
    )  # fmt: skip

    def __init__(self, is_present: Callable[[str], bool], space: KeySpace | None = None) -> None:
        self._is_present = is_present
        self._space = KeySpace() if space is None else space
        self.changed = 0
        """Changes so far, those of single keys."""
        self._keys: dict[str, KeyRecord] = {}
        self._bytes = 0
        """Of the keys."""
        self._reserved: Counter[str] = Counter()
        """Sets under way by name."""
        self._under_way: Counter[str] = Counter()
        """Changes under way by name."""
        self._last_version = 0
        self._leaving: dict[str, float] = {}
        """When the keys of an owner that has left are deleted."""
        self._owners: frozenset[str] = frozenset()
        """Users whose leaving deletes keys."""
        self._check_at = inf
        self._snapshot: tuple[tuple[RoomKey, ...], int] | None = ((), 0)

    def __len__(self) -> int:
        return len(self._keys)

    # ---- what it says of itself

    def get(self, name: str) -> KeyRecord | None:
        """Return a key."""
        return self._keys.get(name)

    def views(self) -> list[RoomKey]:
        """Return all keys by name."""
        return [self._keys[name].view for name in sorted(self._keys)]

    def snapshot(self) -> tuple[tuple[RoomKey, ...], int]:
        """Return the keys for who joins, by name, and how many are left out because they do not fit."""
        if self._snapshot is None:
            left = MAX_SNAPSHOT_BYTES
            shown: list[RoomKey] = []
            for view in self.views():
                left -= key_bytes(view.name, view.value, view.owner)
                if left < 0:
                    break
                shown.append(view)
            self._snapshot = tuple(shown), len(self._keys) - len(shown)
        return self._snapshot

    @property
    def names(self) -> frozenset[str]:
        """Names of the keys, and of those that are being set."""
        return frozenset(self._keys) | frozenset(self._reserved)

    @property
    def last_version(self) -> int:
        """The highest version given so far."""
        return self._last_version

    @property
    def nbytes(self) -> int:
        """Bytes of the keys, as `key_bytes` counts them."""
        return self._bytes

    # ---- decide

    def decide(self, items: Sequence[KeyItem | KeyDelete], now_ms: int) -> tuple[KeyChange, ...] | KeyRefused:
        """Return the changes that do all of ``items``, with their space reserved, or why none is done.

        Deleting a key that does not exist changes nothing.
        """
        version = max(self._last_version + 1, now_ms)
        changes: list[KeyChange] = []
        seen: set[str] = set()
        nbytes = 0
        for index, item in enumerate(items):
            if item.name in seen:
                return KeyRefused(ErrorCode.BAD_FIELD, "name", "is there twice", index)
            seen.add(item.name)
            if not self._has_version(item.name, item.version):
                return KeyRefused(ErrorCode.STALE, "version", "is not the key's present one", index)
            if isinstance(item, KeyItem):
                refusal = self._refusal(item, index)
                if refusal is not None:
                    return refusal
                nbytes += key_bytes(item.name, item.value, item.owner)
                expires_at_ms = None if item.ttl_ms is None else now_ms + item.ttl_ms
                changes.append(
                    KeyChange(
                        item.name, version, item.value, KeyCause.SET, expires_at_ms, item.owner, item.delete_on_leave
                    )
                )
            elif item.name in self._keys or self._under_way[item.name]:
                changes.append(KeyChange(item.name, version, None, KeyCause.DELETED))
        new = sum(1 for change in changes if change.cause is KeyCause.SET and change.name not in self.names)
        if len(self.names) + new > MAX_KEYS:
            return KeyRefused(ErrorCode.TOO_MANY_KEYS, "name", f"a room has at most {MAX_KEYS} keys")
        if nbytes > MAX_CHANGE_BYTES:
            return KeyRefused(ErrorCode.PAYLOAD_TOO_LARGE, "value", f"one change has at most {MAX_CHANGE_BYTES} bytes")
        if self._bytes + nbytes > MAX_KEYS_BYTES:
            return KeyRefused(
                ErrorCode.TOO_MANY_KEYS, "value", f"the keys of a room have at most {MAX_KEYS_BYTES} bytes"
            )
        if not self._space.fits(nbytes):
            return KeyRefused(ErrorCode.TOO_MANY_KEYS, "value", "the keys of all rooms take the space there is")
        return self._reserve(changes)

    def _refusal(self, item: KeyItem, index: int) -> KeyRefused | None:
        if not 1 <= len(item.name.encode()) <= MAX_KEY_NAME_BYTES:
            return KeyRefused(ErrorCode.BAD_FIELD, "name", f"must have 1 to {MAX_KEY_NAME_BYTES} bytes", index)
        if value_bytes(item.value) > MAX_KEY_VALUE_BYTES:
            rule = f"must have at most {MAX_KEY_VALUE_BYTES} bytes"
            return KeyRefused(ErrorCode.PAYLOAD_TOO_LARGE, "value", rule, index)
        if item.delete_on_leave and item.owner is None:
            return KeyRefused(ErrorCode.BAD_FIELD, "owner", "is required with delete_on_leave", index)
        return None

    def _has_version(self, name: str, version: int | None) -> bool:
        if version is None:
            return True
        if self._under_way[name]:
            return False
        key = self._keys.get(name)
        return version == (0 if key is None else key.version)

    def _reserve(self, changes: Sequence[KeyChange]) -> tuple[KeyChange, ...]:
        for change in changes:
            self._last_version = max(self._last_version, change.version)
            self._under_way[change.name] += 1
            if change.cause is KeyCause.SET:
                self._reserved[change.name] += 1
                self._take(key_bytes(change.name, change.value, change.owner))
        return tuple(changes)

    # ---- time and presence

    @property
    def next_due(self) -> float:
        """When `due` is to be called next; infinity = nothing expires."""
        return self._check_at

    def due(self, now: float, now_ms: int | None) -> tuple[KeyChange, ...]:
        """Return the changes that are due: keys that have expired, and those whose owner is gone.

        ``now_ms`` None: the time is not trusted, so nothing expires. A key with a change under way is checked later.
        """
        if now < self._check_at:
            return ()
        next_at = inf
        found: list[tuple[str, KeyCause]] = []
        for user in [user for user in self._leaving if user not in self._owners or self._is_present(user)]:
            del self._leaving[user]
        for key in self._keys.values():
            due_at, cause = inf, KeyCause.EXPIRED
            if key.expires_at_ms is not None:
                due_at = now + RETRY_S if now_ms is None else now + max(0, key.expires_at_ms - now_ms) / 1000
            if key.delete_on_leave and key.owner is not None and (left_at := self._leaving.get(key.owner)) is not None:
                due_at, cause = min((due_at, cause), (left_at, KeyCause.OWNER_LEFT))
            if due_at > now:
                next_at = min(next_at, due_at)
            elif self._under_way[key.name]:
                next_at = min(next_at, now + RETRY_S)
            else:
                found.append((key.name, cause))
        self._check_at = next_at
        if not found:
            return ()
        version = max(self._last_version + 1, now_ms or 0)
        return self._reserve([KeyChange(name, version, None, cause) for name, cause in found])

    def delete_owned(self, user: str, now_ms: int) -> tuple[tuple[KeyChange, ...], bool]:
        """Return the changes that delete the keys of a user, and whether it owns none now.

        Keys with a change under way are left out.
        """
        owned = [key.name for key in self._keys.values() if key.owner == user]
        free = [name for name in owned if not self._under_way[name]]
        version = max(self._last_version + 1, now_ms)
        return self._reserve([KeyChange(name, version, None, KeyCause.DELETED) for name in free]), not owned

    def postpone(self, now: float) -> None:
        """Let `due` be called later: the room is about to end."""
        self._check_at = now + RETRY_S

    def left(self, user: str, now: float) -> None:
        """A user's last connection has left the room: its keys go after the grace, unless it returns."""
        if user in self._owners:
            self._leaving[user] = now + LEAVE_GRACE_S
            self._check_at = min(self._check_at, now + LEAVE_GRACE_S)

    # ---- fold

    def apply(self, changes: Iterable[KeyChange], now: float) -> None:
        """Fold changes that are durable; their reservations end."""
        for change in changes:
            self.changed += 1
            self._end_reservation(change)
            before = self._keys.pop(change.name, None)
            if before is not None:
                self._take(-key_bytes(before.name, before.value, before.owner))
            self._last_version = max(self._last_version, change.version)
            if change.cause is KeyCause.SET:
                self._add(record_of(change), now)
        self._changed()

    def release(self, changes: Iterable[KeyChange], now: float) -> None:
        """Give up changes that could not be made durable."""
        for change in changes:
            self._end_reservation(change)
        if self._keys:
            self._check_at = min(self._check_at, now + RETRY_S)

    def restore(self, keys: Iterable[KeyRecord], last_version: int, now: float, *, is_counted: bool = False) -> None:
        """Take over the keys of the room's last run. ``is_counted``: their bytes are in the `KeySpace` already."""
        for key in keys:
            self._add(key, now)
            self._last_version = max(self._last_version, key.version)
        self._last_version = max(self._last_version, last_version)
        if is_counted:
            self._space.take(-self._bytes)
        self._changed()

    def dump(self) -> tuple[KeyRecord, ...]:
        """Return all keys, for the room's next run."""
        return tuple(self._keys.values())

    def clear(self) -> None:
        """Drop all keys: the room has ended for good."""
        self._take(-sum(key_bytes(key.name, key.value, key.owner) for key in self._keys.values()))
        self._keys.clear()
        self._check_at = inf
        self._changed()

    def _changed(self) -> None:
        self._snapshot = None
        self._owners = frozenset(key.owner for key in self._keys.values() if key.delete_on_leave and key.owner)

    def _add(self, key: KeyRecord, now: float) -> None:
        self._keys[key.name] = key
        self._take(key_bytes(key.name, key.value, key.owner))
        if key.expires_at_ms is not None:
            self._check_at = min(self._check_at, now)
        if key.delete_on_leave and key.owner is not None and not self._is_present(key.owner):
            self._check_at = min(self._check_at, self._leaving.setdefault(key.owner, now + LEAVE_GRACE_S))

    def _end_reservation(self, change: KeyChange) -> None:
        if not self._under_way[change.name]:
            del self._under_way[change.name]
            return  # folded from the ledger: nothing was reserved
        _decrement(self._under_way, change.name)
        if change.cause is KeyCause.SET:
            _decrement(self._reserved, change.name)
            self._take(-key_bytes(change.name, change.value, change.owner))

    def _take(self, nbytes: int) -> None:
        self._bytes += nbytes
        self._space.take(nbytes)


def record_of(change: KeyChange) -> KeyRecord:
    """Return the key that a change sets."""
    return KeyRecord(
        change.name, change.value, change.version, change.expires_at_ms, change.owner, change.delete_on_leave
    )


def _decrement(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
