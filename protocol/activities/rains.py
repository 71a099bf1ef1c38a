"""Activity events of rains of red packets, and what the platform gets of them: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import array_of, boolean, hex_digest, integer, name_of, record, text
from .eligibility import Eligibility, eligibility
from .packets import MAX_CENTS, MAX_SHARES, SplitMode
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "MAX_DROPS",
    "MAX_OWN_DROPS",
    "MAX_SHOWN_DROPS",
    "REPORTS",
    "ROWS",
    "VIEWS",
    "DropAnnounced",
    "DropEmptied",
    "DropExpired",
    "DropMissed",
    "DropOpened",
    "DropSettled",
    "OwnDrop",
    "OwnDrops",
    "RainCancelled",
    "RainScheduled",
    "RainSettled",
    "RainSettledData",
    "RainState",
    "RainView",
    "ShownDrop",
]

MAX_DROPS = 200
"""Packets of one rain."""
MAX_SHOWN_DROPS = 5
"""Drops of one rain in the answer to a JOIN."""
MAX_OWN_DROPS = 20


class RainState(IntEnum):
    """State of a rain."""

    RUNNING = 0
    CANCELLED = 1
    SETTLED = 2
    """Its seed is public, and what was not taken is returned."""


class RainScheduled(NamedTuple):
    """Packets are going to fall: ``drops`` of them within ``span_ms`` from ``start_at_ms`` on, each announced shortly
    before. ``count``: shares of each; ``max_per_user``: drops of which one user can take a share, 0 = all;
    ``seed_hash``: commits to the seed from which times and shares follow, see `RainSettled`."""

    title: str
    mode: SplitMode
    total_cents: int
    drops: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    start_at_ms: int
    span_ms: int
    max_per_user: int
    seed_hash: str
    eligibility: Eligibility


class DropAnnounced(NamedTuple):
    """A packet is about to open. ``packet``: its id for `packets.grab`."""

    packet: str
    open_at_ms: int


class DropOpened(NamedTuple):
    """Shares of a drop can be taken, until ``expire_at_ms``."""

    packet: str
    total_cents: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    seed_hash: str
    expire_at_ms: int


class DropEmptied(NamedTuple):
    """Every share of a drop is taken. ``name``: masked, of the user who got the largest share, ``cents``."""

    packet: str
    name: str
    cents: int
    took_ms: int


class DropExpired(NamedTuple):
    """No share of a drop can be taken any more. ``returned_cents``: those of shares that were not."""

    packet: str
    taken: int
    returned_cents: int


class DropMissed(NamedTuple):
    """A drop does not fall: its time passed while the broker could not open it."""

    packet: str
    returned_cents: int


class DropSettled(NamedTuple):
    """A drop is over. ``seed``: in hexadecimal, from which its shares can be recomputed."""

    packet: str
    seed: str
    taken: int
    returned_cents: int


class RainCancelled(NamedTuple):
    """The platform has ended a rain; shares that are taken stay so."""

    returned_cents: int


class RainSettled(NamedTuple):
    """A rain is over. ``seed``: in hexadecimal, from which the times and the seeds of the drops can be recomputed;
    ``fallen``: drops that were open; ``taken``: shares."""

    seed: str
    fallen: int
    taken: int
    returned_cents: int


class ShownDrop(NamedTuple):
    """A drop that is announced or open."""

    packet: str
    is_open: bool
    taken: int
    open_at_ms: int
    expire_at_ms: int


class RainView(NamedTuple):
    """A rain as a member that joins gets it. ``shown``: the newest drops that are announced or open."""

    title: str
    state: RainState
    mode: SplitMode
    total_cents: int
    drops: int
    fallen: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    start_at_ms: int
    span_ms: int
    max_per_user: int
    seed_hash: str
    eligibility: Eligibility
    shown: tuple[ShownDrop, ...]


class OwnDrop(NamedTuple):
    """A share of a drop that the user has taken: its number, from 0, and what it holds."""

    packet: str
    share: int
    cents: int


class OwnDrops(NamedTuple):
    """What the user has taken of a rain: in ``count`` drops, ``cents`` in all. ``items``: the newest."""

    count: int  # type: ignore[assignment]  # hides tuple.count
    cents: int
    items: tuple[OwnDrop, ...]


class RainSettledData(NamedTuple):
    """A rain is over: ``returned_cents`` of its order were not taken, of all its drops together. ``fallen``: drops that
    were open; ``taken``: shares, of ``taken_cents`` in all; ``seed``: in hexadecimal."""

    rain: str
    order_id: str
    fallen: int
    taken: int
    taken_cents: int
    returned_cents: int
    seed: str


_id = text(1, 64)
_packet = text(1, 68)
_cents = integer(0, MAX_CENTS)
_time = integer(0)
_taken = integer(0, MAX_SHARES)
_all_taken = integer(0, MAX_DROPS * MAX_SHARES)
_shares = integer(1, MAX_SHARES)
_drops = integer(1, MAX_DROPS)
_some_drops = integer(0, MAX_DROPS)
_mode = name_of(SplitMode)
_title = text(0, 64)

_scheduled = record(
    RainScheduled,
    (_title, _mode, _cents, _drops, _shares, _time, _time, _some_drops, hex_digest, eligibility),
)
_announced = record(DropAnnounced, (_packet, _time))
_opened = record(DropOpened, (_packet, _cents, _shares, hex_digest, _time))
_emptied = record(DropEmptied, (_packet, text(3, 67), _cents, _time))
_expired = record(DropExpired, (_packet, _taken, _cents))
_missed = record(DropMissed, (_packet, _cents))
_drop_settled = record(DropSettled, (_packet, hex_digest, _taken, _cents))
_cancelled = record(RainCancelled, (_cents,))
_settled = record(RainSettled, (hex_digest, _some_drops, _all_taken, _cents))
_shown = record(ShownDrop, (_packet, boolean, _taken, _time, _time))
_view = record(
    RainView,
    (
        _title, name_of(RainState), _mode, _cents, _drops, _some_drops, _shares, _time, _time, _some_drops, hex_digest,
        eligibility, array_of(_shown, MAX_SHOWN_DROPS),
    ),
)  # fmt: skip
_own = record(
    OwnDrops,
    (
        _some_drops, _cents,
        array_of(record(OwnDrop, (_packet, integer(0, MAX_SHARES - 1), _cents)), MAX_OWN_DROPS),
    ),
)  # fmt: skip
_settled_data = record(RainSettledData, (_id, _id, _some_drops, _all_taken, _cents, _cents, hex_digest))

_SEED = "faea51f75ac66476855991d0a660cebf3efd2bbfa797982a36a449ebb95f0654"
_SEED_HASH = "a38033f3421541f406429e4c04fc358e58517db88baf5eaaba4d2b61f705e4be"
_AT_MS = 1_790_000_000_000

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "rains.scheduled", Via.EVENT, RainScheduled, _scheduled, "Red packets are going to fall.",
        RainScheduled(
            "Rain", SplitMode.LUCKY, 60_000, 12, 50, _AT_MS, 60_000, 3, _SEED_HASH, Eligibility(),
        ),
    ),
    ActivityEventRow(
        "rains.drop_announced", Via.EVENT, DropAnnounced, _announced, "A packet of a rain is about to open.",
        DropAnnounced("rain-1/0", _AT_MS + 1200),
    ),
    ActivityEventRow(
        "rains.drop_opened", Via.EVENT, DropOpened, _opened, "Shares of a packet of a rain can be taken.",
        DropOpened("rain-1/0", 5000, 50, _SEED_HASH, _AT_MS + 31_200),
    ),
    ActivityEventRow(
        "rains.drop_emptied", Via.EVENT, DropEmptied, _emptied, "Every share of a packet of a rain is taken.",
        DropEmptied("rain-1/0", "A***", 187, 640),
    ),
    ActivityEventRow(
        "rains.drop_expired", Via.EVENT, DropExpired, _expired, "The time of a packet of a rain is over.",
        DropExpired("rain-1/0", 48, 212),
    ),
    ActivityEventRow(
        "rains.drop_missed", Via.EVENT, DropMissed, _missed, "A packet of a rain does not fall.",
        DropMissed("rain-1/1", 5000),
    ),
    ActivityEventRow(
        "rains.drop_settled", Via.EVENT, DropSettled, _drop_settled,
        "A packet of a rain is over, and its seed is public.", DropSettled("rain-1/0", _SEED, 48, 212),
    ),
    ActivityEventRow(
        "rains.cancelled", Via.EVENT, RainCancelled, _cancelled, "The platform has ended a rain.",
        RainCancelled(50_212),
    ),
    ActivityEventRow(
        "rains.settled", Via.EVENT, RainSettled, _settled, "A rain is over, and its seed is public.",
        RainSettled(_SEED, 11, 520, 6500),
    ),
)  # fmt: skip

REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "rain.settled", RainSettledData, _settled_data, "A rain is over; what is left was not taken.",
        RainSettledData("rain-1", "order-78", 11, 520, 53_500, 6500, _SEED),
    ),
)  # fmt: skip

VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "rains", RainView, _view,
        RainView(
            "Rain", RainState.RUNNING, SplitMode.LUCKY, 60_000, 12, 3, 50, _AT_MS, 60_000, 3, _SEED_HASH, Eligibility(),
            (ShownDrop("rain-1/2", True, 14, _AT_MS + 11_400, _AT_MS + 41_400),),
        ),
        OwnDrops, _own, OwnDrops(1, 187, (OwnDrop("rain-1/0", 17, 187),)),
    ),
)  # fmt: skip
"""What a member that joins gets of a rain."""
