"""Quota of a room: how many messages it admits per window, and how many of them are reserved for urgent lanes.

Time is divided into consecutive fixed windows from the first message on; each window
admits ``per_window`` messages, of which ``reserved`` are kept for the reserved lanes
(control, commerce, paid). So the reserved lanes may use the whole window, the others only what is shared:

    others <= per_window - reserved     and     others + reserved lanes <= per_window

Reserved lanes fill their reserve first and the shared part after, first come first served. Exempt lanes are
always admitted, and count like reserved ones: when commerce is busy, chat yields, never the other way round.

Fixed windows rather than GCRA because the figures of the services that publish theirs are per window (RongCloud:
40 in 200 ms, 20 of them reserved; Tencent Cloud Chat: 40 in 1 s) and because "how many are left in this window" is a
plain number. The known cost: a burst across two windows may have twice the size.

What happens to a message that is not let in is the policy's business (`policies.OverQuota`), not this module's.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from protocol.codes import Lane

__all__ = ["EXEMPT_LANES", "RESERVED_LANES", "WindowAdmission"]

RESERVED_LANES = frozenset({Lane.CONTROL, Lane.COMMERCE, Lane.PAID})
EXEMPT_LANES = frozenset({Lane.CONTROL, Lane.COMMERCE})

_RESERVED, _EXEMPT, _SHARED = range(3)
_LIMITLESS = 2**62


class WindowAdmission:
    """Counts one room's inbound messages; constant memory.

    ``per_window`` >= 1, ``window_s`` > 0, 0 <= ``reserved`` <= ``per_window``; else ValueError.
    An exempt lane need not be listed as reserved.
    """

    __slots__ = ("_class_of", "_ends_at", "_origin", "_per_window", "_shared", "_shared_used", "_used", "_window_s",
                 "admitted", "refused")  # fmt: skip

    def __init__(
        self,
        per_window: int,
        window_s: float,
        reserved: int,
        reserved_lanes: Collection[Lane] = RESERVED_LANES,
        exempt_lanes: Collection[Lane] = EXEMPT_LANES,
    ) -> None:
        if per_window < 1 or not 0 <= reserved <= per_window or not window_s > 0:
            raise ValueError(f"not a window: {per_window=} {window_s=} {reserved=}")
        self.admitted = [0] * len(Lane)
        """Messages let in, by lane, since the room began."""
        self.refused = [0] * len(Lane)
        self._class_of = [
            _EXEMPT if lane in exempt_lanes else _RESERVED if lane in reserved_lanes else _SHARED for lane in Lane
        ]
        self._per_window = per_window
        self._shared = per_window - reserved
        self._window_s = window_s
        self._origin = inf
        """Begin of the first window; inf until the first message."""
        self._ends_at = -inf
        self._used = 0
        self._shared_used = 0

    @classmethod
    def unlimited(cls) -> WindowAdmission:
        """A room that lets everything in and still counts it."""
        return cls(_LIMITLESS, inf, 0)

    def continues(self, earlier: WindowAdmission) -> WindowAdmission:
        """Take over the counts of the admission that this one replaces; return this one."""
        self.admitted, self.refused = earlier.admitted, earlier.refused
        return self

    def try_admit(self, lane: int, now: float) -> bool:
        """Let one message of ``lane`` in (True, counted as admitted) or not (False, counted as refused).

        ``now`` that goes back stays in the present window. About 0.3 us.
        """
        if now >= self._ends_at:
            self._open_window(now)
        used = self._used
        kind = self._class_of[lane]
        if kind == _SHARED:
            if self._shared_used >= self._shared or used >= self._per_window:
                self.refused[lane] += 1
                return False
            self._shared_used += 1
        elif kind == _RESERVED and used >= self._per_window:
            self.refused[lane] += 1
            return False
        self._used = used + 1
        self.admitted[lane] += 1
        return True

    def admit(self, lane: int, now: float) -> None:
        """Let one message in whatever the window holds, and count it: the others yield. ``now`` as in `try_admit`."""
        if now >= self._ends_at:
            self._open_window(now)
        self._used += 1
        self.admitted[lane] += 1

    def retry_after_s(self, now: float) -> float:
        """Seconds until the next window begins (0.0 when none is open): the wait in the answer to a refused sender of
        lane 2."""
        return max(0.0, self._ends_at - now) if self._ends_at < inf else 0.0

    def _open_window(self, now: float) -> None:
        window_s = self._window_s
        if self._origin == inf:
            self._origin = now
        # Ends are multiples of the window from the origin, not sums: sums would drift.
        index = (now - self._origin) // window_s + 1
        ends_at = self._origin + index * window_s if window_s < inf else inf
        while ends_at <= now:  # the quotient rounded down
            index += 1
            ends_at = self._origin + index * window_s
        self._ends_at = ends_at
        self._used = 0
        self._shared_used = 0
