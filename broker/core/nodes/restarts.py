"""When a process that has ended is started again: at once the first time, then later and later. Pure."""

from __future__ import annotations

import random

__all__ = ["FIRST_WAIT_S", "MAX_WAIT_S", "STEADY_S", "Restarts"]

FIRST_WAIT_S = 0.2
MAX_WAIT_S = 30.0
STEADY_S = 30.0
"""A process that has served for so long has not failed at its start: the next wait is the first again."""


class Restarts:
    """Waits of one process. ``total``: how often it has ended by itself."""

    __slots__ = ("_in_a_row", "_rng", "total")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._in_a_row = 0
        self.total = 0

    def wait_s(self, served_s: float) -> float:
        """Take that the process has ended; return the seconds until it is started again.

        The wait doubles with each end in a row, up to `MAX_WAIT_S`; half of it is chance, so that processes that die
        of one cause do not come back together.

        :param served_s: how long it had served, 0 = it never did.
        """
        self._in_a_row = 0 if served_s >= STEADY_S else self._in_a_row
        self.total += 1
        most = min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._in_a_row, 16))
        self._in_a_row += 1
        return most * (0.5 + self._rng.random() / 2)
