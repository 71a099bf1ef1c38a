"""Operations on red packets and on rains of them: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.eligibility import Eligibility, eligibility
from ..activities.packets import (
    MAX_CENTS,
    MAX_SHARES,
    OwnPacketShare,
    PacketState,
    SplitMode,
    own_packet_share,
)
from ..activities.rains import MAX_DROPS
from ..codes import ErrorCode
from ..fields import hex_digest, integer, name_of, optional, record, room_name, text
from .rows import (
    LOGGED_IN,
    NEEDS_LEDGER,
    PLATFORM,
    KeyUse,
    OperationRow,
    RateLimit,
    Scope,
    cursor,
    page_of,
    page_size,
    row,
)

__all__ = [
    "MAX_DROP_MS",
    "MAX_OPEN_MS",
    "ROWS",
    "CancelPacket",
    "CancelRain",
    "CancelledPacket",
    "CreatePacket",
    "CreateRain",
    "CreatedPacket",
    "CreatedRain",
    "GrabPacket",
    "ListPackets",
    "MyPacketShare",
    "MyShare",
    "PacketInfo",
    "PacketPage",
]

MAX_OPEN_MS = 24 * 3_600_000
"""Longest time that a packet is open, and that a rain lasts."""
MIN_SPAN_MS = 1000
MIN_DROP_MS, MAX_DROP_MS = 1000, 3_600_000


class CreatePacket(NamedTuple):
    """Create a packet whose total the platform has charged. Its seed decides now what each grab will get.

    ``order_id``: of the charge; ``count``: shares, each ``min_cents``..``max_cents``, 0 = no maximum; ``open_at_ms``:
    0 = at once; ``expire_at_ms``: 0 = 24 hours after it opens, which is the longest.
    """

    room: str
    id: str
    order_id: str
    total_cents: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    mode: SplitMode = SplitMode.LUCKY
    min_cents: int = 1
    max_cents: int = 0
    open_at_ms: int = 0
    expire_at_ms: int = 0
    title: str = ""
    eligibility: Eligibility = Eligibility()


class CreatedPacket(NamedTuple):
    """A packet that will open. ``seed_hash``: commits to its seed, which becomes public when it is over."""

    id: str
    open_at_ms: int
    expire_at_ms: int
    seed_hash: str


class GrabPacket(NamedTuple):
    """Take a share of a packet, or of a drop of a rain. ``keyword``: where the packet asks for one."""

    room: str
    id: str
    keyword: str = ""


class MyPacketShare(NamedTuple):
    """Ask for the caller's share of a packet, or of a drop of a rain."""

    room: str
    id: str


class MyShare(NamedTuple):
    """The caller's share, null = it has none."""

    share: OwnPacketShare | None


class CancelPacket(NamedTuple):
    """End a packet now; shares that are taken stay so."""

    room: str
    id: str


class CancelledPacket(NamedTuple):
    """What was not taken, of a packet or a rain that is over."""

    returned_cents: int


class ListPackets(NamedTuple):
    """Ask for the packets of a room, the oldest first; those that are over are listed for ten minutes."""

    room: str
    limit: int = 100
    cursor: str | None = None


class PacketInfo(NamedTuple):
    """A packet. ``taken``: its shares that are taken, ``taken_cents`` in all."""

    id: str
    order_id: str
    title: str
    state: PacketState
    mode: SplitMode
    total_cents: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    taken: int
    taken_cents: int
    open_at_ms: int
    expire_at_ms: int
    seed_hash: str


class PacketPage(NamedTuple):
    """Packets, the oldest first. ``next`` null = the end."""

    items: tuple[PacketInfo, ...]
    next: str | None


class CreateRain(NamedTuple):
    """Create a rain: a packet in each of ``drops`` equal parts of ``span_ms``, at a time that is drawn.

    ``count``: shares of each packet; ``start_at_ms``: 0 = in 3 seconds, which is the earliest, as each packet is
    announced so long before; ``drop_ms``: how long each can be grabbed; ``jitter_percent``: of its part within which it
    falls, 0 = at its beginning; ``max_per_user``: packets of which one user can take a share, 0 = all.
    """

    room: str
    id: str
    order_id: str
    total_cents: int
    drops: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    span_ms: int
    mode: SplitMode = SplitMode.LUCKY
    min_cents: int = 1
    max_cents: int = 0
    start_at_ms: int = 0
    drop_ms: int = 30_000
    jitter_percent: int = 50
    max_per_user: int = 0
    title: str = ""
    eligibility: Eligibility = Eligibility()


class CreatedRain(NamedTuple):
    """A rain that will begin. ``seed_hash``: commits to its seed, which becomes public when it is over."""

    id: str
    start_at_ms: int
    seed_hash: str


class CancelRain(NamedTuple):
    """End a rain now; shares that are taken stay so."""

    room: str
    id: str


_id = text(1, 64)
_drop_id = text(1, 68)
_cents = integer(1, MAX_CENTS)
_max_cents = integer(0, MAX_CENTS)
_shares = integer(1, MAX_SHARES)
_time = integer(0)
_taken = integer(0, MAX_SHARES)
_title = text(0, 64)
_mode = name_of(SplitMode)
_created = record(CreatedPacket, (_id, _time, _time, hex_digest))
_created_rain = record(CreatedRain, (_id, _time, hex_digest))
_returned = record(CancelledPacket, (_max_cents,))
_mine = record(MyShare, (optional(own_packet_share),))
_info = record(
    PacketInfo,
    (
        _id, _id, _title, name_of(PacketState), _mode, _cents, _shares, _taken, _max_cents, _time, _time, hex_digest,
    ),
)  # fmt: skip
_page = record(PacketPage, page_of(_info))
_CREATE_RATE = RateLimit(10, 50)
_CREATED = (ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER)
_KNOWN = (ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER)
_AT_MS = 4_102_444_800_000
_SEED_HASH = "ff0f391f701f9d67fca8be5d0657ae912dbfe11841fdea78349d6bea26131901"

ROWS: tuple[OperationRow, ...] = (
    row(
        260, "packets.create", CreatePacket,
        (
            room_name, _id, _id, _cents, _shares, _mode, _cents, _max_cents, _time, _time, _title, eligibility,
        ),
        CreatedPacket, _created, "Create a red packet.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, key=KeyUse.REQUIRED, durable=True, rate=_CREATE_RATE,
        errors=_CREATED,
        example=(
            CreatePacket("live-1", "packet-1", "order-77", 10_000, 20, open_at_ms=_AT_MS),
            CreatedPacket("packet-1", _AT_MS, _AT_MS + MAX_OPEN_MS, _SEED_HASH),
        ),
    ),
    row(
        261, "packets.grab", GrabPacket, (room_name, _drop_id, text(0, 64)), OwnPacketShare, own_packet_share,
        "Take a share of a red packet.",
        scope=None, roles=LOGGED_IN, joined=True, key=KeyUse.REQUIRED, keeps_keys=True, durable=True,
        rate=RateLimit(5, 10),
        errors=(
            ErrorCode.NOT_OPEN, ErrorCode.EMPTY, ErrorCode.CANCELLED, ErrorCode.ALREADY_HAVE, ErrorCode.NOT_ELIGIBLE,
            ErrorCode.ROOM_PAUSED, *_KNOWN,
        ),
        example=(GrabPacket("live-1", "packet-1"), OwnPacketShare(4, 512)),
    ),
    row(
        262, "packets.mine", MyPacketShare, (room_name, _drop_id), MyShare, _mine,
        "Return the caller's share of a red packet.",
        scope=None, roles=LOGGED_IN, joined=True, changes=False, errors=_KNOWN,
        example=(MyPacketShare("live-1", "packet-1"), MyShare(OwnPacketShare(4, 512))),
    ),
    row(
        263, "packets.cancel", CancelPacket, (room_name, _id), CancelledPacket, _returned,
        "End a red packet; what was not taken is returned.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, durable=True, errors=_KNOWN,
        example=(CancelPacket("live-1", "packet-1"), CancelledPacket(1312)),
    ),
    row(
        264, "packets.list", ListPackets, (room_name, page_size, cursor), PacketPage, _page,
        "List the red packets of a room.",
        scope=Scope.COMMERCE_READ, roles=PLATFORM, changes=False, errors=(ErrorCode.UNKNOWN_ROOM, *NEEDS_LEDGER),
        example=(
            ListPackets("live-1"),
            PacketPage(
                (
                    PacketInfo(
                        "packet-1", "order-77", "Good luck", PacketState.OPEN, SplitMode.LUCKY, 10_000, 20, 17, 8688,
                        _AT_MS, _AT_MS + MAX_OPEN_MS, _SEED_HASH,
                    ),
                ),
                None,
            ),
        ),
    ),
    row(
        265, "rains.create", CreateRain,
        (
            room_name, _id, _id, _cents, integer(1, MAX_DROPS), _shares, integer(MIN_SPAN_MS, MAX_OPEN_MS), _mode,
            _cents, _max_cents, _time, integer(MIN_DROP_MS, MAX_DROP_MS), integer(0, 100), integer(0, MAX_DROPS),
            _title, eligibility,
        ),
        CreatedRain, _created_rain, "Create a rain of red packets.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, key=KeyUse.REQUIRED, durable=True, rate=_CREATE_RATE,
        errors=_CREATED,
        example=(
            CreateRain("live-1", "rain-1", "order-78", 60_000, 12, 50, 60_000, start_at_ms=_AT_MS),
            CreatedRain("rain-1", _AT_MS, _SEED_HASH),
        ),
    ),
    row(
        266, "rains.cancel", CancelRain, (room_name, _id), CancelledPacket, _returned,
        "End a rain of red packets; what was not taken is returned.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, durable=True, errors=_KNOWN,
        example=(CancelRain("live-1", "rain-1"), CancelledPacket(50_212)),
    ),
)  # fmt: skip
