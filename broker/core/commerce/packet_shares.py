"""Amounts of red packets and rains: how money is divided, and when the drops of a rain fall. Integer cents throughout.

The division follows from the seed alone: grab number ``i`` gets share ``i``, whoever sends it and whenever. So it can
be recomputed by anyone who knows the seed, which becomes public when the packet is over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from broker.core.commerce.activity import ActivityRefusal
from protocol.activities.packets import OwnPacketShare, SplitMode
from protocol.codes import ErrorCode
from protocol.fields import MAX_INT
from protocol.primitives import DrawStream, label, mac, pack_u64, shuffle

__all__ = ["Drop", "PacketShares", "ShareTerms", "packet_shares", "rain_drops"]


class Drop(NamedTuple):
    """One packet of a rain. ``at_ms``: when it opens, Unix milliseconds; ``cents``: its total; ``seed``: its own."""

    at_ms: int
    cents: int
    seed: bytes


def packet_shares(
    mode: SplitMode, total_cents: int, count: int, min_cents: int, max_cents: int, seed: bytes
) -> list[int]:
    """Return ``count`` shares of ``min_cents``..``max_cents`` each (0 = no maximum) whose sum is ``total_cents``.

    The caller has checked that ``count * min_cents <= total_cents <= count * max_cents``, and for FIXED that ``count``
    divides the total. 10,000 lucky shares take about 50 ms.
    """
    if mode is SplitMode.FIXED:
        return [total_cents // count] * count
    if mode is SplitMode.EQUAL:
        base, more = divmod(total_cents, count)
        shares = [base + 1] * more + [base] * (count - more)
    else:
        shares = _lucky(total_cents, count, min_cents, max_cents, DrawStream(seed, "roomcast/packet/split/1"))
    shuffle(shares, DrawStream(seed, "roomcast/packet/order/1"))
    return shares


def _lucky(total_cents: int, count: int, min_cents: int, max_cents: int, draw: DrawStream) -> list[int]:
    """Draw shares by the double average. The later ones vary more, so the caller shuffles them.

    ``rest`` and ``most`` are counted above a minimum of one cent: ``left <= rest <= left * most`` holds at each step.
    """
    above = min_cents - 1
    rest = total_cents - count * above
    most = (max_cents or total_cents) - above
    shares = []
    for left in range(count, 1, -1):
        low = max(1, rest - (left - 1) * most)
        high = min(most, max(low, 2 * rest // left - 1))
        share = low + draw.below(high - low + 1)
        shares.append(share + above)
        rest -= share
    shares.append(rest + above)
    return shares


def rain_drops(
    start_ms: int, span_ms: int, drops: int, jitter_percent: int, total_cents: int, seed: bytes
) -> tuple[Drop, ...]:
    """Return the packets of a rain in order of time: one in each slot of ``span_ms`` / ``drops``.

    ``jitter_percent``: a drop falls within so much of its slot, 0 = at its beginning. The first drops have the cents
    that do not divide evenly.
    """
    slot = span_ms // drops
    times = DrawStream(seed, "roomcast/rain/times/1")
    base, more = divmod(total_cents, drops)
    return tuple(
        Drop(
            start_ms + number * slot + times.below(slot * jitter_percent // 100 + 1),
            base + 1 if number < more else base,
            mac(seed, label("roomcast/rain/seed/1") + pack_u64(number)),
        )
        for number in range(drops)
    )


class ShareTerms(NamedTuple):
    """How a total is divided; see `packet_shares`."""

    mode: SplitMode
    total_cents: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    min_cents: int
    max_cents: int

    def refusal(self) -> ActivityRefusal | None:
        """Return why a total cannot be divided so; None: it can."""
        if self.max_cents and self.max_cents < self.min_cents:
            return _bad("max_cents", f"must be 0 or at least {self.min_cents}")
        if self.count * self.max_cents > MAX_INT:
            return _bad("max_cents", "is too much for so many shares")
        if self.count * self.min_cents > self.total_cents:
            return _bad("total_cents", f"must be at least {self.count} x {self.min_cents}")
        if self.max_cents and self.count * self.max_cents < self.total_cents:
            return _bad("total_cents", f"must be at most {self.count} x {self.max_cents}")
        if self.mode is SplitMode.FIXED and self.total_cents % self.count:
            return _bad("count", "must divide the total of fixed shares")
        return None


class PacketShares:
    """The shares of one packet, and who has taken them: in their order, one a user."""

    __slots__ = ("_cents", "_seed", "_shares", "_taken", "_taken_cents", "terms")

    def __init__(self, terms: ShareTerms, seed: bytes) -> None:
        self.terms = terms
        self._seed = seed
        self._cents: list[int] | None = None
        """Of all shares; they are computed when the first is taken."""
        self._taken: list[tuple[str, str, int]] = []
        """Of each share that is taken, in order: user, masked name, cents."""
        self._shares: dict[str, int] = {}
        """Numbers of shares by user."""
        self._taken_cents = 0

    @property
    def taken(self) -> int:
        """How many shares are taken."""
        return len(self._taken)

    @property
    def taken_cents(self) -> int:
        """What they hold together."""
        return self._taken_cents

    @property
    def left_cents(self) -> int:
        """What is not taken."""
        return self.terms.total_cents - self.taken_cents

    def of(self, user: str) -> OwnPacketShare | None:
        """Return the share that a user has taken."""
        share = self._shares.get(user)
        return None if share is None else OwnPacketShare(share, self._taken[share][2])

    def next_share(self) -> OwnPacketShare | None:
        """Return the next share that is free; None: all are taken."""
        share = len(self._taken)
        if share == self.terms.count:
            return None
        if self._cents is None:
            self._cents = packet_shares(*self.terms, self._seed)
        return OwnPacketShare(share, self._cents[share])

    def best(self, name: str, cents: int) -> tuple[str, int]:
        """Return the masked name and the cents of the largest share, of equal ones the first.

        ``name`` and ``cents``: of the last share, which is being taken.
        """
        best = max(self._taken, key=lambda taken: taken[2], default=None)
        return (name, cents) if best is None or best[2] < cents else best[1:]

    def take(self, user: str, name: str, cents: int) -> None:
        """Apply that a user has taken the next share."""
        self._shares[user] = len(self._taken)
        self._taken.append((user, name, cents))
        self._taken_cents += cents

    def put_back(self) -> None:
        """Undo the newest `take`."""
        user, _, cents = self._taken.pop()
        del self._shares[user]
        self._taken_cents -= cents

    def dump(self) -> tuple[Any, ...]:
        """Return who has taken what, in order."""
        return self.terms, self.taken_cents, tuple(self._taken)


def _bad(field: str, rule: str) -> ActivityRefusal:
    return ActivityRefusal(ErrorCode.BAD_FIELD, rule, field)
