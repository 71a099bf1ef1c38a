"""Keys of a room as a client holds them: a live map, folded from the snapshot and the events of the room."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..codes import KeyCause
from ..messages import RoomKey
from ..payloads import KeyChange

__all__ = ["RoomMap"]


class RoomMap(Mapping[str, RoomKey]):
    """Live map of the keys of one room by name; values are in ``RoomKey.value``.

    ``missing``: keys that the last snapshot left out for their size and no event has brought since. The map is complete
    where it is 0; otherwise the operation ``keys.get`` returns them, and `merge` adds them.
    """

    __slots__ = ("_deleted", "_keys", "missing")

    def __init__(self) -> None:
        self._keys: dict[str, RoomKey] = {}
        self._deleted: dict[str, int] = {}
        """Versions of deletions while keys are missing: an older answer must not bring them back."""
        self.missing = 0

    def __getitem__(self, name: str) -> RoomKey:
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def restart(self, keys: Iterable[RoomKey], missing: int) -> None:
        """Take over the keys of a snapshot."""
        self._keys = {key.name: key for key in keys}
        self._deleted.clear()
        self.missing = missing

    def apply(self, changes: Iterable[KeyChange]) -> None:
        """Fold the changes of one event. Older ones than what is known of their name change nothing."""
        for change in changes:
            if change.version <= self._version(change.name):
                continue
            self._keys.pop(change.name, None)
            if change.cause is KeyCause.SET:
                self._deleted.pop(change.name, None)
                self._keys[change.name] = RoomKey(
                    change.name, change.value, change.version, change.expires_at_ms, change.owner
                )
            elif self.missing:
                self._deleted[change.name] = change.version

    def merge(self, keys: Iterable[RoomKey], *, is_all: bool = False) -> None:
        """Add keys that ``keys.get`` has returned. ``is_all``: they are all there are, so that none is missing."""
        for key in keys:
            if key.version > self._version(key.name):
                self._keys[key.name] = key
        if is_all:
            self.missing = 0
            self._deleted.clear()

    def _version(self, name: str) -> int:
        key = self._keys.get(name)
        return self._deleted.get(name, 0) if key is None else key.version
