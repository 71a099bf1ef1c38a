"""Merkle tree of the entries of a lottery (RFC 6962): one root for all, and a short path for each.

Leaves are the entries in rising order of their ids. The nodes of a level are hashed in pairs; an odd last one moves up
unchanged. `MerkleTree.build` hashes at most `SLICE` nodes at a time, so that an event loop can do other things between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

from ..primitives import digest, pack_text, pack_u32

__all__ = ["EMPTY_ROOT", "SLICE", "MerkleTree", "leaf_hash", "root_of_path"]

SLICE = 2000
"""Hashes, or steps of a draw, between two yields: 2 to 4 ms."""
EMPTY_ROOT = digest(b"")
"""Root of a tree without leaves."""
_HASH_BYTES = 32


def leaf_hash(id: str, weight: int) -> bytes:
    """Return the leaf of one entry."""
    return sha256(b"\0" + pack_text(id) + pack_u32(weight)).digest()


def _node_hash(pair: bytes | bytearray) -> bytes:
    return sha256(b"\1" + pair).digest()


class MerkleTree:
    """Tree over entries; 64 bytes an entry. It has a root when `build` has run to its end."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]
        """Hashes of each level, one after the other; the leaves first."""

    def build(self, entries: Iterable[tuple[str, int]]) -> Iterator[None]:
        """Hash ``entries``, ids in rising order with their weights; yield after each slice."""
        leaves = self._levels[0]
        for number, (id, weight) in enumerate(entries, 1):
            leaves += leaf_hash(id, weight)
            if number % SLICE == 0:
                yield
        below = leaves
        while len(below) > _HASH_BYTES:
            level = bytearray()
            for number, start in enumerate(range(0, len(below), 2 * _HASH_BYTES), 1):
                pair = below[start : start + 2 * _HASH_BYTES]
                level += _node_hash(pair) if len(pair) > _HASH_BYTES else pair
                if number % SLICE == 0:
                    yield
            self._levels.append(level)
            below = level

    @property
    def root(self) -> bytes:
        return bytes(self._levels[-1]) or EMPTY_ROOT

    def path(self, index: int) -> list[bytes]:
        """Return the audit path of a leaf: the hashes beside its way to the root, from below."""
        found: list[bytes] = []
        for level in self._levels[:-1]:
            start = (index ^ 1) * _HASH_BYTES
            if start < len(level):
                found.append(bytes(level[start : start + _HASH_BYTES]))
            index //= 2
        return found


def root_of_path(leaf: bytes, index: int, entries: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that an audit path leads to; None where it has not the length that this place needs.

    ``index``: of the leaf among ``entries``.
    """
    if not 0 <= index < entries:
        return None
    above, last, left = leaf, entries - 1, list(path)
    while last > 0:
        if index % 2 == 1 or index < last:
            if not left:
                return None
            beside = left.pop(0)
            above = _node_hash(beside + above if index % 2 == 1 else above + beside)
        index //= 2
        last //= 2
    return None if left else above
