"""Operations on lotteries: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..lottery.proof import LotteryBeacon, LotteryClosed, LotteryCommitted
from ..lottery.terms import LotteryTerms

__all__ = ["LotteryCreated", "LotteryProofPage", "MyLotteryEntry"]


class LotteryCreated(NamedTuple):
    """The lottery is announced. ``commitment``: to its seed and terms."""

    id: str
    commitment: str


class MyLotteryEntry(NamedTuple):
    """An entry of the caller. ``entry``: its id in the proof; ``salt``: lets the user show that it is his, empty where
    ids are those of users; ``prize``: name of the grade that it has won, empty = none.

    After the close, ``root`` is that of all ``entries``, and ``path`` leads to it from the entry, which is that of
    ``index``; before, root is empty and index null.
    """

    entry: str
    salt: str
    weight: int
    prize: str = ""
    root: str = ""
    entries: int = 0
    index: int | None = None  # type: ignore[assignment]  # hides tuple.index
    path: tuple[str, ...] = ()


class LotteryProofPage(NamedTuple):
    """Part of a proof, with the members of a proof file: one page that has no ``next`` is a whole one.

    ``entries`` and ``winners`` are parts of those of the file, in their order; all pages have the other fields alike.
    """

    format: str
    terms: LotteryTerms
    committed: LotteryCommitted
    closed: LotteryClosed
    seed: str
    beacon: LotteryBeacon | None
    entries: tuple[tuple[str, int], ...]
    winners: tuple[tuple[str, ...], ...]
    next: str | None = None
