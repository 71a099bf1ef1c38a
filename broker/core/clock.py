"""Trusted clock for everything irreversible: the wall clock, as far as it agrees with monotonic time and with the past.

Expiry, retention and token checks use Unix time, and a wall clock may be wrong for a while. `TrustedClock` follows the
wall clock in small steps. When the wall clock leaps against monotonic time, the trusted time goes on as before; a leap
that holds for `HOLD_S` is taken over. At the start the wall clock is compared with the last trusted time.
While they disagree nothing may be expired or removed (`distrust` names the reason).

Pure: both clocks are arguments. Reading costs about 1 us. May be read from two threads: the state is one tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["HOLD_S", "MAX_START_HOLD_S", "MAX_STOP_S", "TOLERANCE_S", "TrustedClock"]

TOLERANCE_S = 60.0
"""Differences up to this are steps of time synchronization, and followed at once."""
_TOLERANCE_MS = TOLERANCE_S * 1000
ANCHOR_S = 0.1
"""How old the reading may be that the next one is compared with: a new one for each call costs twice as much."""
HOLD_S = 3600.0
"""A leap that lasts so long is the right time."""
MAX_STOP_S = 86_400.0
"""A start so long after the newest time in the ledger may be a wrong clock."""
MAX_START_HOLD_S = 7 * 86_400.0
"""Longest hold after such a start, over all starts; a shorter stop is held for as long as it lasted."""


class _State(NamedTuple):
    wall_ms: float
    monotonic_s: float
    """Last time at which both clocks agreed."""
    leap_ms: float | None = None
    """How far the wall clock is off now, and since when."""
    leapt_at: float = 0.0


class _Hold(NamedTuple):
    """A start far ahead of ``trusted_ms``: nothing is trusted from ``since_s`` (monotonic) on, for ``stopped_s``."""

    trusted_ms: int
    since_s: float
    stopped_s: float


class TrustedClock:
    """Unix time that does not leap. ``wall_ms``: Unix milliseconds; ``monotonic``: seconds that never go back."""

    __slots__ = ("_hold", "_monotonic", "_state", "_wall_ms", "leaps")

    def __init__(self, wall_ms: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._wall_ms = wall_ms
        self._monotonic = monotonic
        self._state = _State(wall_ms(), monotonic())
        self._hold: _Hold | None = None
        self.leaps = 0
        """Leaps of the wall clock so far, returns included."""

    def start(self, trusted_ms: int, held_s: float = 0.0) -> None:
        """Compare the wall clock with the last trusted time that the ledger knows; 0 = it knows none.

        A wall clock behind it has leapt back while the process was down: the time goes on from there. One far ahead may
        be right after a long stop: it is followed, and nothing is expired or removed for a while, less ``held_s``, for
        which earlier processes have held since then (`trusted`).
        """
        if not trusted_ms:
            return
        now = self._monotonic()
        stopped_s = (self.now_ms() - trusted_ms) / 1000
        if stopped_s < -TOLERANCE_S:
            self._state = _State(trusted_ms, now, stopped_s * 1000, now)
            self.leaps += 1
        elif stopped_s > MAX_STOP_S:
            self._hold = _Hold(trusted_ms, now - held_s, stopped_s)

    def trusted(self) -> tuple[int, float]:
        """Return what `start` needs in the next process: the last trusted time, and for how long it has been held."""
        if self._is_held():
            assert self._hold is not None
            return self._hold.trusted_ms, self._monotonic() - self._hold.since_s
        return self.now_ms(), 0.0

    def _is_held(self) -> bool:
        hold = self._hold
        return hold is not None and self._monotonic() < hold.since_s + min(hold.stopped_s, MAX_START_HOLD_S)

    def now_ms(self) -> int:
        """Return the trusted Unix time in milliseconds."""
        wall_ms, now = self._wall_ms(), self._monotonic()
        state_ms, state_s, leap_ms, leapt_at = self._state
        passed_s = now - state_s
        expected_ms = state_ms + passed_s * 1000
        off_ms = wall_ms - expected_ms
        if -_TOLERANCE_MS <= off_ms <= _TOLERANCE_MS:
            if leap_ms is not None or passed_s >= ANCHOR_S:
                self._state = _State(wall_ms, now)
            return wall_ms
        if leap_ms is None or abs(off_ms - leap_ms) > _TOLERANCE_MS:
            self.leaps += 1
            self._state = _State(state_ms, state_s, off_ms, now)
        elif now - leapt_at >= HOLD_S:
            self._state = _State(wall_ms, now)
            return wall_ms
        return int(expected_ms)

    def continued_ms(self) -> int:
        """Return the time for deadlines from before the start of this process, Unix milliseconds.

        That of `now_ms`, but where the wall clock was far ahead at the start the last trusted time goes on until the
        wall clock is trusted: a deadline that only a wrong clock has passed is not passed.
        """
        if not self._is_held():
            return self.now_ms()
        assert self._hold is not None
        return self._hold.trusted_ms + int((self._monotonic() - self._hold.since_s) * 1000)

    def distrust(self) -> str:
        """Return why nothing may be expired or removed now; "" = it may."""
        self.now_ms()
        leap_ms = self._state.leap_ms
        if leap_ms is not None:
            return f"the wall clock has leapt by {leap_ms / 1000:.0f} s"
        if self._is_held():
            assert self._hold is not None
            return f"the wall clock is {self._hold.stopped_s / 3600:.0f} h ahead of the last trusted time"
        return ""
