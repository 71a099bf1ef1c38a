"""Activity events of red packets, and what the platform gets of them: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..codes import Role
from ..fields import hex_digest, integer, member_id, name_of, record, text
from .eligibility import Eligibility, eligibility
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "MAX_CENTS",
    "MAX_SHARES",
    "REPORTS",
    "ROWS",
    "VIEWS",
    "OwnPacketShare",
    "PacketCancelled",
    "PacketEmptied",
    "PacketExpired",
    "PacketGrabbedData",
    "PacketOpened",
    "PacketScheduled",
    "PacketSettled",
    "PacketSettledData",
    "PacketState",
    "PacketTaken",
    "PacketView",
    "SplitMode",
    "own_packet_share",
]

MAX_CENTS = 10**12
MAX_SHARES = 10_000
"""Shares of one packet."""


class SplitMode(IntEnum):
    """How the total of a packet is divided into shares."""

    LUCKY = 0
    """Each share is drawn from the minimum to nearly twice the mean of what is left, so each grab expects the mean."""
    EQUAL = 1
    """Shares differ by one cent at most; who gets the cent more is drawn."""
    FIXED = 2
    """All shares are equal: their number divides the total."""


class PacketState(IntEnum):
    """State of a packet."""

    SCHEDULED = 0
    OPEN = 1
    DONE = 2
    """Every share is taken, or its time is over."""
    CANCELLED = 3
    """The platform has cancelled it before it was open."""
    SETTLED = 4
    """Its seed is public, and what was not taken is returned."""


class PacketScheduled(NamedTuple):
    """A packet is to open. ``count``: its shares; ``seed_hash``: commits to the seed from which they follow, see
    `PacketSettled`; ``eligibility``: who can take one."""

    title: str
    mode: SplitMode
    total_cents: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    min_cents: int
    max_cents: int
    open_at_ms: int
    expire_at_ms: int
    seed_hash: str
    eligibility: Eligibility


class PacketOpened(NamedTuple):
    """Shares can be taken, until ``expire_at_ms``."""

    total_cents: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    seed_hash: str
    expire_at_ms: int


class PacketEmptied(NamedTuple):
    """Every share is taken. ``name``: masked, of the user who got the largest share, ``cents``; ``took_ms``: since it
    was opened."""

    name: str
    cents: int
    took_ms: int


class PacketExpired(NamedTuple):
    """No share can be taken any more. ``returned_cents``: those of shares that were not."""

    taken: int
    returned_cents: int


class PacketCancelled(NamedTuple):
    """The packet will not open."""

    returned_cents: int


class PacketSettled(NamedTuple):
    """The packet is over. ``seed``: in hexadecimal, from which the shares can be recomputed; ``taken``: how many were
    taken."""

    seed: str
    taken: int
    returned_cents: int


class PacketTaken(NamedTuple):
    """How many shares are taken."""

    taken: int


class PacketView(NamedTuple):
    """A packet as a member that joins gets it. ``taken``: its shares that are taken."""

    title: str
    state: PacketState
    mode: SplitMode
    total_cents: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    taken: int
    open_at_ms: int
    expire_at_ms: int
    seed_hash: str
    eligibility: Eligibility


class OwnPacketShare(NamedTuple):
    """The share that the user has taken: its number, from 0, and what it holds."""

    share: int
    cents: int


class PacketGrabbedData(NamedTuple):
    """A user has taken a share of a packet: pay it once for each ``packet`` and ``share``.

    ``packet``: id, for a drop of a rain ``rain/number``; ``order_id``: of the packet or the rain.
    """

    packet: str
    order_id: str
    share: int
    user: str
    cents: int


class PacketSettledData(NamedTuple):
    """A packet is over: ``returned_cents`` of its order were not taken. ``taken``: shares, of ``taken_cents`` in all;
    ``seed``: in hexadecimal."""

    packet: str
    order_id: str
    taken: int
    taken_cents: int
    returned_cents: int
    seed: str


_id = text(1, 64)
_cents = integer(0, MAX_CENTS)
_time = integer(0)
_taken = integer(0, MAX_SHARES)
_shares = integer(1, MAX_SHARES)
_title = text(0, 64)

_scheduled = record(
    PacketScheduled,
    (_title, name_of(SplitMode), _cents, _shares, _cents, _cents, _time, _time, hex_digest, eligibility),
)
_opened = record(PacketOpened, (_cents, _shares, hex_digest, _time))
_emptied = record(PacketEmptied, (text(3, 67), _cents, _time))
_expired = record(PacketExpired, (_taken, _cents))
_cancelled = record(PacketCancelled, (_cents,))
_settled = record(PacketSettled, (hex_digest, _taken, _cents))
_counted = record(PacketTaken, (_taken,))
_view = record(
    PacketView,
    (
        _title, name_of(PacketState), name_of(SplitMode), _cents, _shares, _taken, _time, _time, hex_digest,
        eligibility,
    ),
)  # fmt: skip
own_packet_share = record(OwnPacketShare, (integer(0, MAX_SHARES - 1), _cents))
"""Rule of an `OwnPacketShare`."""
_grabbed_data = record(PacketGrabbedData, (text(1, 68), _id, integer(0, MAX_SHARES - 1), member_id, _cents))
_settled_data = record(PacketSettledData, (_id, _id, _taken, _cents, _cents, hex_digest))

_SEED = "7c643826887faa21b94acc2542841f14cbfa778c728801cb5d2b6011b48aa375"
_SEED_HASH = "ff0f391f701f9d67fca8be5d0657ae912dbfe11841fdea78349d6bea26131901"
_AT_MS = 1_790_000_000_000

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "packets.scheduled", Via.EVENT, PacketScheduled, _scheduled, "A red packet is to open.",
        PacketScheduled(
            "Good luck", SplitMode.LUCKY, 10_000, 20, 1, 0, _AT_MS, _AT_MS + 60_000, _SEED_HASH,
            Eligibility(Role.VIEWER),
        ),
    ),
    ActivityEventRow(
        "packets.opened", Via.EVENT, PacketOpened, _opened, "Shares of a packet can be taken.",
        PacketOpened(10_000, 20, _SEED_HASH, _AT_MS + 60_000),
    ),
    ActivityEventRow(
        "packets.emptied", Via.EVENT, PacketEmptied, _emptied, "Every share of a packet is taken.",
        PacketEmptied("A***", 987, 2140),
    ),
    ActivityEventRow(
        "packets.expired", Via.EVENT, PacketExpired, _expired, "The time of a packet is over.",
        PacketExpired(17, 1312),
    ),
    ActivityEventRow(
        "packets.cancelled", Via.EVENT, PacketCancelled, _cancelled, "A packet was cancelled before it opened.",
        PacketCancelled(10_000),
    ),
    ActivityEventRow(
        "packets.settled", Via.EVENT, PacketSettled, _settled, "A packet is over, and its seed is public.",
        PacketSettled(_SEED, 17, 1312),
    ),
    ActivityEventRow(
        "packets.counted", Via.COUNTER, PacketTaken, _counted, "Shares of a packet that are taken.", PacketTaken(17)
    ),
)  # fmt: skip

REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "packet.grabbed", PacketGrabbedData, _grabbed_data, "A user has taken a share of a packet: pay it, once.",
        PacketGrabbedData("packet-1", "order-77", 4, "ann", 512),
    ),
    EventRow(
        "packet.settled", PacketSettledData, _settled_data, "A packet is over; what is left was not taken.",
        PacketSettledData("packet-1", "order-77", 17, 8688, 1312, _SEED),
    ),
)  # fmt: skip

VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "packets", PacketView, _view,
        PacketView(
            "Good luck", PacketState.OPEN, SplitMode.LUCKY, 10_000, 20, 17, _AT_MS, _AT_MS + 60_000, _SEED_HASH,
            Eligibility(),
        ),
        OwnPacketShare, own_packet_share, OwnPacketShare(4, 512),
    ),
)  # fmt: skip
"""What a member that joins gets of a packet."""
