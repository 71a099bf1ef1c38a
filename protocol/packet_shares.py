"""Amounts of red packets and rains: how money is divided, and when the drops of a rain fall. Integer cents throughout.

The division follows from the seed alone: grab number ``i`` gets share ``i``, whoever sends it and whenever. So it can
be recomputed by anyone who knows the seed, which becomes public when the packet is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .activities.packets import SplitMode
from .primitives import DrawStream, label, mac, pack_u64, shuffling

__all__ = ["SLICE", "Drop", "dividing", "packet_shares", "rain_drops"]

SLICE = 1024
"""Numbers that are drawn in one slice of `dividing`: a packet of half as many shares takes one."""


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
    divides the total. 10,000 lucky shares take about 50 ms; `dividing` does it in slices.
    """
    shares: list[int] = []
    for _ in dividing(shares, mode, total_cents, count, min_cents, max_cents, seed):
        pass
    return shares


def dividing(
    shares: list[int], mode: SplitMode, total_cents: int, count: int, min_cents: int, max_cents: int, seed: bytes
) -> Iterator[None]:
    """Append to ``shares`` what `packet_shares` returns. It yields after each slice of 2 to 3 ms."""
    if mode is SplitMode.FIXED:
        shares += [total_cents // count] * count
        return
    if mode is SplitMode.EQUAL:
        base, more = divmod(total_cents, count)
        shares += [base + 1] * more + [base] * (count - more)
    else:
        draw = DrawStream(seed, "roomcast/packet/split/1")
        yield from _lucky(shares, total_cents, count, min_cents, max_cents, draw)
        if 2 * count > SLICE:
            yield
    yield from shuffling(shares, DrawStream(seed, "roomcast/packet/order/1"), SLICE)


def _lucky(
    shares: list[int], total_cents: int, count: int, min_cents: int, max_cents: int, draw: DrawStream
) -> Iterator[None]:
    """Draw shares by the double average. The later ones vary more, so the caller shuffles them.

    ``rest`` and ``most`` are counted above a minimum of one cent: ``left <= rest <= left * most`` holds at each step.
    """
    above = min_cents - 1
    rest = total_cents - count * above
    most = (max_cents or total_cents) - above
    for left in range(count, 1, -1):
        low = max(1, rest - (left - 1) * most)
        high = min(most, max(low, 2 * rest // left - 1))
        share = low + draw.below(high - low + 1)
        shares.append(share + above)
        rest -= share
        if not left % SLICE:
            yield
    shares.append(rest + above)


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
