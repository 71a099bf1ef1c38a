"""Entries of a lottery: one a user, kept in the order of their ids, then hashed and drawn in slices."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from broker.core.structures.sorted_texts import SortedTexts
from protocol.lottery.drawing import Drawing
from protocol.lottery.proof import finish
from protocol.lottery.tree import MerkleTree

__all__ = ["LotteryEntries"]

Winners = tuple[tuple[str, ...], ...]
"""Ids by grade."""


class LotteryEntries:
    """Users and weights by id of the entry. About 400 bytes an entry.

    What is hashed or drawn is kept until an entry changes. Each `hashing` and `drawing` yields after a slice of 2 to
    4 ms.
    """

    __slots__ = ("_drawn", "_entries", "_ids", "_tree", "_weight")

    def __init__(self) -> None:
        self._entries: dict[str, tuple[str, int]] = {}
        self._ids = SortedTexts()
        self._tree: tuple[MerkleTree, list[str], list[int]] | None = None
        """Tree, and the ids and weights in its order."""
        self._drawn: tuple[bytes, Winners, dict[str, int]] | None = None
        """Key, winners, and the grade of each."""
        self._weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id: str) -> bool:
        return id in self._entries

    @property
    def weight(self) -> int:
        """Sum of the weights."""
        return self._weight

    def user_of(self, id: str) -> str:
        return self._entries[id][0]

    def weight_of(self, id: str) -> int:
        return self._entries[id][1]

    def add(self, id: str, user: str, weight: int) -> None:
        """Add an entry whose id is not known."""
        self._entries[id] = user, weight
        self._ids.add(id)
        self._weight += weight
        self._tree = self._drawn = None

    def remove(self, id: str) -> None:
        self._weight -= self._entries.pop(id)[1]
        self._ids.remove(id)
        self._tree = self._drawn = None

    def set_weight(self, id: str, weight: int) -> None:
        user, before = self._entries[id]
        self._entries[id] = user, weight
        self._weight += weight - before
        self._tree = self._drawn = None

    def set_user(self, id: str, user: str) -> None:
        """Let an entry be another user's: its id, its weight and what is hashed and drawn stay."""
        self._entries[id] = user, self._entries[id][1]

    def dump(self) -> tuple[tuple[str, str, int], ...]:
        """Return ids, users and weights in order."""
        return tuple((id, *self._entries[id]) for id in self._ids.all())

    # ---- the tree

    @property
    def is_hashed(self) -> bool:
        return self._tree is not None

    def hashing(self) -> Iterator[None]:
        """Hash all entries; no entry may change before the end."""
        ids = self._ids.all()
        yield
        tree = MerkleTree()
        weights: list[int] = []
        yield from tree.build(self._weighed(ids, weights))
        self._tree = tree, ids, weights

    def _weighed(self, ids: Sequence[str], weights: list[int]) -> Iterator[tuple[str, int]]:
        for id in ids:
            weight = self._entries[id][1]
            weights.append(weight)
            yield id, weight

    def hash(self) -> None:
        """Hash all entries at once, unless `hashing` has."""
        self._hashed()

    def _hashed(self) -> tuple[MerkleTree, list[str], list[int]]:
        if self._tree is None:
            finish(self.hashing())
        assert self._tree is not None
        return self._tree

    @property
    def root(self) -> bytes:
        """Root of all entries; it hashes them at once where `hashing` has not."""
        return self._hashed()[0].root

    def place(self, id: str) -> tuple[int, list[bytes]]:
        """Return the index of an entry and its audit path; as `root`."""
        tree, ids, _ = self._hashed()
        index = bisect_left(ids, id)
        return index, tree.path(index)

    def page(self, start: int, count: int) -> list[tuple[str, int]]:
        """Return some entries, ids and weights in order; as `root`."""
        _, ids, weights = self._hashed()
        return list(zip(ids[start : start + count], weights[start : start + count], strict=True))

    # ---- the draw

    def is_drawn(self, key: bytes) -> bool:
        return self._drawn is not None and self._drawn[0] == key

    def drawing(self, key: bytes, counts: Sequence[int]) -> Iterator[None]:
        """Draw the winners that follow from ``key``. ``counts``: prizes by grade."""
        if not self.is_hashed:
            yield from self.hashing()
        _, ids, weights = self._hashed()
        drawing = Drawing(weights, counts)
        yield from drawing.run(key)
        winners: list[tuple[str, ...]] = []
        grades: dict[str, int] = {}
        for number, indexes in enumerate(drawing.winners):
            winners.append(tuple(ids[index] for index in indexes))
            grades.update(dict.fromkeys(winners[-1], number))
            yield
        self._drawn = key, tuple(winners), grades

    def draw(self, key: bytes, counts: Sequence[int]) -> None:
        """Draw the winners at once, unless `drawing` has drawn them."""
        if not self.is_drawn(key):
            finish(self.drawing(key, counts))

    @property
    def winners(self) -> Winners:
        """Ids of the winners by grade; none before the draw."""
        return () if self._drawn is None else self._drawn[1]

    def grade_of(self, id: str) -> int | None:
        """Return the index of the grade that an entry has won."""
        return None if self._drawn is None else self._drawn[2].get(id)

    def winners_from(self, first: int, count: int) -> list[tuple[str, int]]:
        """Return some winners in the order of the draw, ids and grades."""
        found: list[tuple[str, int]] = []
        for number, ids in enumerate(self.winners):
            found += [(id, number) for id in ids[first : first + count - len(found)]]
            first = max(0, first - len(ids))
        return found
