"""Rate limits per key (a user in a room, an address): whether a message may pass now, and if not, when.

The algorithm is GCRA, the generic cell rate algorithm of ITU-T I.371: one float per key, the *theoretical
arrival time* (TAT) at which the key's bucket is empty again. A message may pass when that time, pushed back by
the message's own share, lies at most one burst ahead of now. It equals a leaky bucket that leaks ``per_s``
and holds ``burst``, needs no timer, and knows the exact instant at which a refused message would pass.

A key whose TAT has passed is the same as a key never seen, so forgetting it changes no answer; `Gcra.sweep`
does that a few keys at a time. When the table holds ``max_keys`` keys that are all in use, *new keys are
refused* with a short wait: evicting one would give a fresh burst to the user with the most identities,
which is exactly the peer that a limit is for. To get there, ``max_keys`` different users must post within
the time that one burst takes to leak (3 s for chat).

``now`` that goes back is treated as unchanged. A refusal changes nothing. Never: a timer, a clock, a
random choice.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import inf, nextafter

__all__ = ["UNLIMITED", "Gcra", "Rate", "SingleGcra"]

_SLACK_S = 1e-8
"""Rounding tolerated per message of burst: half a unit in the last place of a clock that ran for two years.

Without it the last message of a burst could be refused for 1e-10 s because 1/3 + 1/3 + 1/3 is not 1.
"""

_FULL_SWEEP_KEYS = 64
"""Keys checked when a new key finds the table full: a few microseconds, so a flood of new keys pays for itself."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``burst`` at once and ``per_s`` a second in the long run.

    ``per_s`` > 0 (up to a million, or inf = unlimited), ``burst`` >= 1; else ValueError.
    """

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if not (0 < self.per_s <= 1e6 or self.per_s == inf):
            raise ValueError(f"per_s must be above 0 and at most 1e6, or inf: {self.per_s!r}")
        if self.burst < 1:
            raise ValueError(f"burst must be at least 1: {self.burst!r}")

    @property
    def unlimited(self) -> bool:
        return self.per_s == inf


UNLIMITED = Rate(inf, 1)
"""No limit: such a `Gcra` keeps no keys at all."""


def _tolerance_s(rate: Rate) -> float:
    """How far ahead of now the TAT may lie: the time that a burst takes to leak, and what rounding may add."""
    interval_s = 1.0 / rate.per_s
    return rate.burst * interval_s + min(_SLACK_S * (rate.burst + 1), interval_s / 2)  # never worth a message


class Gcra:
    """One limit for many keys; about 80 bytes a key in use, none for an idle one after a sweep."""

    __slots__ = (
        "_burst",
        "_interval_s",
        "_latest",
        "_max_keys",
        "_per_s",
        "_tats",
        "_to_visit",
        "_tolerance_s",
        "full_refusals",
        "rate",
    )

    def __init__(self, rate: Rate, max_keys: int = 100_000) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be at least 1: {max_keys!r}")
        self.rate = rate
        self.full_refusals = 0
        """New keys refused because the table was full."""
        self._burst = rate.burst
        self._per_s = rate.per_s
        self._interval_s = 1.0 / rate.per_s
        """Time that one message takes to leak; 0 = unlimited."""
        self._tolerance_s = _tolerance_s(rate)
        self._max_keys = max_keys
        self._latest = -inf
        self._tats: dict[Hashable, float] = {}
        self._to_visit: list[Hashable] = []
        """Keys that the sweep under way has not checked; refilled from the table when empty."""

    def at_rate(self, rate: Rate) -> Gcra:
        """Return this limiter if it has that rate, else a new one, which goes on with the count of refusals."""
        if self.rate == rate:
            return self
        other = Gcra(rate, self._max_keys)
        other.full_refusals = self.full_refusals
        return other

    def __len__(self) -> int:
        """Keys held, stale ones that no sweep has met included; never above ``max_keys``."""
        return len(self._tats)

    def try_acquire(self, key: Hashable, now: float, cost: int = 1) -> float:
        """Take ``cost`` (1..burst) for ``key``: 0.0 = allowed, else the seconds to wait.

        The wait is exact: if nothing else is taken from the key, the same call is refused a nanosecond before
        ``now`` + wait and allowed at it. Only the answer to a full table is a guess (one message's interval).
        ``cost`` above burst could never pass: ValueError. About 0.3 us.
        """
        interval_s = self._interval_s
        if not interval_s:
            return 0.0
        if now < self._latest:
            now = self._latest
        else:
            self._latest = now
        tats = self._tats
        tat = tats.get(key)
        if tat is None:
            if len(tats) >= self._max_keys and not self._make_room(now):
                self.full_refusals += 1
                return interval_s
            tat = now
        elif tat < now:
            tat = now
        spent_s = cost * interval_s
        earliest = tat + (spent_s - self._tolerance_s)
        if earliest <= now:
            tats[key] = tat + spent_s
            return 0.0
        if cost > self._burst:
            raise ValueError(f"cost {cost} can never pass a burst of {self._burst}")
        wait_s = earliest - now
        while now + wait_s < earliest:  # the subtraction rounded down
            wait_s = nextafter(wait_s, inf)
        return wait_s

    def wait_s(self, key: Hashable, now: float) -> float:
        """Return the seconds until ``key`` may take 1, and take nothing; 0.0 = now."""
        over_s = self._tats.get(key, -inf) + self._interval_s - self._tolerance_s - max(now, self._latest)
        return over_s if over_s > 0.0 else 0.0

    def left(self, key: Hashable, now: float) -> tuple[int, float]:
        """Return how many ``key`` may take at once, and the seconds until that is a whole burst again; takes nothing.

        Without a limit: (the burst, 0.0).
        """
        ahead_s = self._tats.get(key, -inf) - max(now, self._latest)
        if ahead_s <= 0.0 or not self._interval_s:
            return self._burst, 0.0
        return max(0, int((self._tolerance_s - ahead_s) * self._per_s)), ahead_s

    def take(self, key: Hashable, now: float, want: int) -> int:
        """Take as many of ``want`` as pass now (0..want) and return how many; for likes, which come in counts.

        ``take(key, now, 1)`` is 1 when `try_acquire` would allow it, to the nanosecond. A full table: 0 for a new key.
        """
        if want <= 0:
            return 0
        interval_s = self._interval_s
        if not interval_s:
            return want
        if now < self._latest:
            now = self._latest
        else:
            self._latest = now
        tats = self._tats
        tat = tats.get(key)
        if tat is None:
            if len(tats) >= self._max_keys and not self._make_room(now):
                self.full_refusals += 1
                return 0
            tat = now
        elif tat < now:
            tat = now
        allowed = int((now - tat + self._tolerance_s) * self._per_s)
        if allowed <= 0:
            return 0
        if allowed > want:
            allowed = want
        tats[key] = tat + allowed * interval_s
        return allowed

    def sweep(self, now: float, limit: int = 1000) -> int:
        """Check up to ``limit`` keys, forget the stale ones and return their number.

        Successive calls cover the whole table: ceil(len / limit) + 1 calls visit every key that is there
        throughout. Never changes an answer. About 0.1 us a key; once a pass it lists all keys (1 ms for 100,000).
        """
        if now < self._latest:
            now = self._latest
        else:
            self._latest = now
        tats = self._tats
        to_visit = self._to_visit
        if not to_visit:
            to_visit.extend(tats)
        removed = 0
        for _ in range(min(limit, len(to_visit))):
            key = to_visit.pop()
            if tats.get(key, inf) <= now:
                del tats[key]
                removed += 1
        return removed

    def _make_room(self, now: float) -> bool:
        return self.sweep(now, _FULL_SWEEP_KEYS) > 0


class SingleGcra:
    """One limit for callers that keep their own state: one float, the TAT, 0.0 before the first message.

    For limits of single connections: a connection pays for a float, the object is shared by all of them. A message is
    charged whether it passes or not, because the caller has read it already; so a peer that keeps sending above the
    rate waits for all that it sent.
    """

    __slots__ = ("_interval_s", "_tolerance_s", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._interval_s = 1.0 / rate.per_s
        self._tolerance_s = _tolerance_s(rate)

    def charge(self, tat: float, now: float, cost: int = 1) -> float:
        """Return the TAT after messages of together ``cost``, which follows ``tat``."""
        interval_s = self._interval_s
        return (tat if tat > now else now) + cost * interval_s if interval_s else tat

    def wait_s(self, tat: float, now: float) -> float:
        """Seconds until what was charged fits the rate; 0.0 = it does."""
        over_s = tat - now - self._tolerance_s
        return over_s if over_s > 0.0 else 0.0
