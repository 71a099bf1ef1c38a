"""Near-duplicates: texts that say nearly the same as others lately, by the same user or by many.

Texts are compared by their shingles: the pairs of neighbouring characters of the folded text (`word_fold`), in which
every digit is the same. So other numbers, punctuation, emoji, spaces, invisible characters and one or two other letters
make no other text. Two texts are nearly the same if they share most of their shingles (Jaccard).

Short texts are never near-duplicates: many people say 来了来了 and 主播好美.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import NamedTuple

from broker.core.moderation.word_fold import FOLD

__all__ = ["MIN_SHINGLES", "NearDuplicates", "shingles"]

MIN_SHINGLES = 6
"""Different shingles of a text that is compared: some seven characters."""
MAX_SHINGLES = 200
ALIKE = 0.6
"""Part of the shingles of two texts together that both have, from which on they are nearly the same."""
OWN = 2
"""Earlier texts of the same user from which on one more is a near-duplicate."""
OTHERS = 5
"""Other users whose texts make it one."""
MAX_POSTINGS = 64
"""Newest texts that are known by one shingle."""


class _Said(NamedTuple):
    user: str
    shingles: frozenset[str]
    at: float


class NearDuplicates:
    """What has been said lately in one room. ``window_s``: how long a text counts; ``max_texts``: most of them.

    A text costs some 20 us, and never more than some 0.5 ms. Memory: some 5 KB a text.
    """

    __slots__ = ("_by_shingle", "_last", "_max_texts", "_said", "_window_s")

    def __init__(self, window_s: float = 60.0, max_texts: int = 512) -> None:
        self._window_s = window_s
        self._max_texts = max_texts
        self._said: OrderedDict[int, _Said] = OrderedDict()
        self._by_shingle: dict[str, deque[int]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._said)

    @property
    def shingle_count(self) -> int:
        """Shingles that are remembered."""
        return len(self._by_shingle)

    def is_near_duplicate(self, user: str, text: str, now: float) -> bool:
        """Return whether a text is nearly the same as `OWN` earlier ones of its user, or as those of `OTHERS` others;
        it counts from now on. ``now``: monotonic seconds."""
        found = shingles(text)
        if len(found) < MIN_SHINGLES:
            return False
        self._forget(now)
        shared: Counter[int] = Counter()
        for each in found:
            shared.update(self._by_shingle.get(each, ()))
        own, others = 0, set()
        for number, count in shared.items():
            said = self._said.get(number)
            if said is None or count < ALIKE * (len(found) + len(said.shingles) - count):
                continue
            if said.user == user:
                own += 1
            else:
                others.add(said.user)
        self._remember(_Said(user, found, now))
        return own >= OWN or len(others) >= OTHERS

    def _remember(self, said: _Said) -> None:
        if len(self._said) >= self._max_texts:
            self._remove(next(iter(self._said)))
        self._last += 1
        self._said[self._last] = said
        for each in said.shingles:
            postings = self._by_shingle.get(each)
            if postings is None:
                postings = self._by_shingle[each] = deque(maxlen=MAX_POSTINGS)
            postings.append(self._last)

    def _forget(self, now: float) -> None:
        while self._said:
            number, oldest = next(iter(self._said.items()))
            if oldest.at > now - self._window_s:
                return
            self._remove(number)

    def _remove(self, number: int) -> None:
        for each in self._said.pop(number).shingles:
            postings = self._by_shingle.get(each)
            while postings and postings[0] <= number:
                postings.popleft()
            if not postings:
                self._by_shingle.pop(each, None)


def shingles(text: str) -> frozenset[str]:
    """Return the pairs of neighbouring characters of a text by which it is compared, at most `MAX_SHINGLES`."""
    folded = "".join("0" if each.isdigit() else each for each in text.translate(FOLD))[: MAX_SHINGLES + 1]
    return frozenset(folded[place : place + 2] for place in range(len(folded) - 1))
