"""Draw of a lottery: weighted, without replacement, grade after grade, each winner in O(log n) by a Fenwick tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..primitives import DrawStream
from .tree import SLICE

__all__ = ["Drawing"]


class Drawing:
    """Winners of one draw. ``weights``: of the entries, in rising order of their ids; ``counts``: prizes a grade."""

    __slots__ = ("_counts", "_weights", "winners")

    def __init__(self, weights: Sequence[int], counts: Sequence[int]) -> None:
        self._weights = weights
        self._counts = counts
        self.winners: list[list[int]] = [[] for _ in counts]
        """Indexes of the entries that win, by grade, in the order of the draw."""

    def run(self, key: bytes) -> Iterator[None]:
        """Draw until all prizes have a winner or no entry is left; yield after each slice."""
        weights, count = self._weights, len(self._weights)
        tree = [0]  # tree[i]: sum of the weights of the lowbit(i) entries up to the one of index i - 1
        for start in range(0, count, SLICE):
            tree += weights[start : start + SLICE]
            yield
        for start in range(1, count + 1, SLICE):
            for place in range(start, min(start + SLICE, count + 1)):
                above = place + (place & -place)
                if above <= count:
                    tree[above] += tree[place]
            yield
        stream = DrawStream(key, "roomcast/lottery/winners/1")
        total, left = sum(weights), count
        highest = 1 << (count.bit_length() - 1) if count else 0
        drawn = 0
        for winners, wanted in zip(self.winners, self._counts, strict=True):
            for _ in range(min(wanted, left)):
                sought = stream.below(total)
                place, step = 0, highest
                while step:
                    after = place + step
                    if after <= count and tree[after] <= sought:
                        place = after
                        sought -= tree[after]
                    step >>= 1
                winners.append(place)
                weight = weights[place]
                total -= weight
                above = place + 1
                while above <= count:
                    tree[above] -= weight
                    above += above & -above
                drawn += 1
                if drawn % (SLICE // 10) == 0:
                    yield
            left -= len(winners)
