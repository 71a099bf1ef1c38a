"""Events and reports of flash sales: their records and rows.

A sale has units of one product. A *claim* of a user takes units, or waits for some; a unit that is reserved returns
when its time is over, and goes to the first who waits.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import array_of, boolean, hex_digest, integer, member_id, name_of, optional, record, text
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "MAX_CENTS",
    "MAX_OWN_CLAIMS",
    "MAX_STOCK",
    "MAX_UNITS",
    "REPORTS",
    "ROWS",
    "VIEWS",
    "ClaimConfirmed",
    "ClaimEnded",
    "ClaimReport",
    "ClaimReserved",
    "ClaimState",
    "ClaimView",
    "OwnClaims",
    "SaleClosed",
    "SaleCounts",
    "SaleOpened",
    "SalePriceChanged",
    "SaleReport",
    "SaleRestocked",
    "SaleSettled",
    "SaleSoldOut",
    "SaleState",
    "SaleView",
    "claim_view",
    "sale_view",
]

MAX_STOCK = 100_000
MAX_UNITS = 100
"""Units of one claim, and of one user."""
MAX_CENTS = 10**12
MAX_OWN_CLAIMS = 8
"""Claims of a user in the answer to its JOIN, the newest."""


class SaleState(IntEnum):
    """State of a sale."""

    SCHEDULED = 1
    OPEN = 2
    CLOSED = 3
    """It takes no claims any more; reservations run on."""
    SETTLED = 4
    """Every claim has ended."""
    CANCELLED = 5


class ClaimState(IntEnum):
    """State of a claim."""

    WAITING = 1
    """On the waiting list."""
    RESERVED = 2
    CONFIRMED = 3
    """The platform has confirmed it with an order."""
    EXPIRED = 4
    """Not confirmed in time; a late confirmation is still judged."""
    CANCELLED = 5
    """By the platform."""
    RELEASED = 6
    """By the buyer."""
    LOST = 7
    """Confirmed too late: every confirmation is refused from now on."""
    VOID = 8
    """The sale was cancelled."""
    DISMISSED = 9
    """The sale ended before there were units for it."""


class SaleView(NamedTuple):
    """A sale. ``price_version`` grows with each price; ``seed_hash``: commitment to the seed that orders the claims of
    one window, ``seed``: null until the sale has closed."""

    id: str
    sku: str
    state: SaleState
    stock: int
    available: int
    reserved: int
    confirmed: int
    waiting: int
    price_cents: int
    price_version: int
    per_user: int
    open_at_ms: int
    close_at_ms: int
    reserve_ms: int
    first_window_ms: int
    window_ms: int
    seed_hash: str
    seed: str | None = None


class ClaimView(NamedTuple):
    """A claim as it is. ``price_cents``: of one unit; ``place``: on the waiting list; ``order``: that confirmed it."""

    number: int
    user: str
    state: ClaimState
    quantity: int
    price_cents: int
    expires_at_ms: int | None = None
    place: int | None = None
    order: str | None = None


class OwnClaims(NamedTuple):
    """The claims of one user, newest first. ``more``: whether there are others, which `sales.mine` returns."""

    claims: tuple[ClaimView, ...]
    more: bool = False


class SaleOpened(NamedTuple):
    """A sale takes claims, until ``close_at_ms``."""

    stock: int
    price_cents: int
    price_version: int
    close_at_ms: int


class SalePriceChanged(NamedTuple):
    """A sale has another price; what is reserved keeps its own."""

    price_version: int
    price_cents: int


class SaleRestocked(NamedTuple):
    """A sale has another stock: all units, also those that are taken."""

    stock: int


class SaleSoldOut(NamedTuple):
    """Nothing is available; what is only ``reserved`` may return."""

    reserved: int
    confirmed: int


class SaleClosed(NamedTuple):
    """A sale takes no claims any more. ``seed``: whoever has it can check the order of the claims."""

    seed: str


class SaleSettled(NamedTuple):
    """Every claim of a sale has ended. ``left``: units that were not sold."""

    confirmed: int
    left: int


class SaleCounts(NamedTuple):
    """Units of a sale by what has become of them, and how many claims wait."""

    available: int
    reserved: int
    confirmed: int
    waiting: int


class ClaimReserved(NamedTuple):
    """Units are reserved for a claim of this user that has waited."""

    number: int
    quantity: int
    price_cents: int
    expires_at_ms: int


class ClaimConfirmed(NamedTuple):
    """The units of a claim are sold to this user."""

    number: int
    quantity: int
    price_cents: int


class ClaimEnded(NamedTuple):
    """A claim of this user has ended without units."""

    number: int


class SaleReport(NamedTuple):
    """Units of a sale, and in which state it is."""

    sale: str
    sku: str
    state: SaleState
    stock: int
    available: int
    reserved: int
    confirmed: int


class ClaimReport(NamedTuple):
    """A claim of a sale. ``expires_at_ms``: until when it is reserved; ``order``: that has confirmed it."""

    sale: str
    sku: str
    number: int
    user: str
    quantity: int
    price_cents: int
    expires_at_ms: int | None = None
    order: str | None = None


_id = text(1, 64)
_count = integer(0)
_number = integer(1)
_units = integer(1, MAX_UNITS)
_cents = integer(0, MAX_CENTS)
_state = name_of(SaleState)

sale_view = record(
    SaleView,
    (
        _id, _id, _state, _count, _count, _count, _count, _count, _cents, _number, _units, _count, _count, _count,
        _count, _count, hex_digest, optional(hex_digest),
    ),
)  # fmt: skip
"""Rule of a `SaleView`."""
claim_view = record(
    ClaimView,
    (_number, member_id, name_of(ClaimState), _units, _cents, optional(_count), optional(_number), optional(_id)),
)
"""Rule of a `ClaimView`."""
_own = record(OwnClaims, (array_of(claim_view, MAX_OWN_CLAIMS), boolean))
_opened = record(SaleOpened, (_count, _cents, _number, _count))
_price_changed = record(SalePriceChanged, (_number, _cents))
_restocked = record(SaleRestocked, (_count,))
_sold_out = record(SaleSoldOut, (_count, _count))
_closed = record(SaleClosed, (hex_digest,))
_settled = record(SaleSettled, (_count, _count))
_counts = record(SaleCounts, (_count, _count, _count, _count))
_claim_reserved = record(ClaimReserved, (_number, _units, _cents, _count))
_claim_confirmed = record(ClaimConfirmed, (_number, _units, _cents))
_claim_ended = record(ClaimEnded, (_number,))
_sale_report = record(SaleReport, (_id, _id, _state, _count, _count, _count, _count))
_claim_report = record(ClaimReport, (_id, _id, _number, member_id, _units, _cents, optional(_count), optional(_id)))

_VIEW = SaleView(
    "sale-1", "mug-1", SaleState.SCHEDULED, 100, 100, 0, 0, 0, 1990, 1, 1, 1_790_000_000_000, 1_790_000_600_000,
    15_000, 500, 50, "ab" * 32,
)  # fmt: skip
_ENDED = ClaimEnded(7)

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "sales.scheduled", Via.EVENT, SaleView, sale_view, "A sale is announced; it takes no claims yet.", _VIEW
    ),
    ActivityEventRow(
        "sales.opened", Via.EVENT, SaleOpened, _opened, "A sale takes claims.",
        SaleOpened(100, 1990, 1, 1_790_000_600_000),
    ),
    ActivityEventRow(
        "sales.price_changed", Via.EVENT, SalePriceChanged, _price_changed, "A sale has another price.",
        SalePriceChanged(2, 1790),
    ),
    ActivityEventRow(
        "sales.restocked", Via.EVENT, SaleRestocked, _restocked, "A sale has more or fewer units.", SaleRestocked(120)
    ),
    ActivityEventRow(
        "sales.sold_out", Via.EVENT, SaleSoldOut, _sold_out,
        "Nothing of a sale is available: once, and again after it was restocked.", SaleSoldOut(40, 60),
    ),
    ActivityEventRow(
        "sales.closed", Via.EVENT, SaleClosed, _closed, "A sale takes no claims any more.", SaleClosed("cd" * 32)
    ),
    ActivityEventRow(
        "sales.cancelled", Via.EVENT, SaleClosed, _closed,
        "A sale is cancelled: claims that are not confirmed are void.", SaleClosed("cd" * 32),
    ),
    ActivityEventRow(
        "sales.settled", Via.EVENT, SaleSettled, _settled, "Every claim of a sale has ended.", SaleSettled(97, 3)
    ),
    ActivityEventRow(
        "sales.counted", Via.COUNTER, SaleCounts, _counts, "Units of a sale.", SaleCounts(12, 28, 60, 0)
    ),
    ActivityEventRow(
        "sales.claim_reserved", Via.DIRECT, ClaimReserved, _claim_reserved,
        "Units are reserved for a claim that has waited.", ClaimReserved(7, 1, 1990, 1_790_000_015_000),
    ),
    ActivityEventRow(
        "sales.claim_confirmed", Via.DIRECT, ClaimConfirmed, _claim_confirmed, "The units of a claim are sold.",
        ClaimConfirmed(7, 1, 1990),
    ),
    ActivityEventRow(
        "sales.claim_expired", Via.DIRECT, ClaimEnded, _claim_ended, "A claim was not confirmed in time.", _ENDED
    ),
    ActivityEventRow(
        "sales.claim_cancelled", Via.DIRECT, ClaimEnded, _claim_ended, "The platform has cancelled a claim.", _ENDED
    ),
    ActivityEventRow(
        "sales.claim_voided", Via.DIRECT, ClaimEnded, _claim_ended, "A claim ends as the sale is cancelled.", _ENDED
    ),
    ActivityEventRow(
        "sales.claim_dismissed", Via.DIRECT, ClaimEnded, _claim_ended,
        "A claim ends as the sale has no units for it.", _ENDED,
    ),
)  # fmt: skip

_OWN = OwnClaims((ClaimView(7, "u1", ClaimState.RESERVED, 1, 1990, 1_790_000_015_000),))
VIEWS: tuple[ActivityViewRow, ...] = (ActivityViewRow("sales", SaleView, sale_view, _VIEW, OwnClaims, _own, _OWN),)

_SALE = SaleReport("sale-1", "mug-1", SaleState.OPEN, 100, 100, 0, 0)
_CLAIM = ClaimReport("sale-1", "mug-1", 7, "u1", 1, 1990)

REPORTS: tuple[EventRow, ...] = (
    EventRow("sale.opened", SaleReport, _sale_report, "A sale takes claims.", _SALE),
    EventRow(
        "sale.reserved", ClaimReport, _claim_report, "Units are reserved: take the money, then call sales.confirm.",
        _CLAIM._replace(expires_at_ms=1_790_000_015_000),
    ),
    EventRow(
        "sale.confirmed", ClaimReport, _claim_report, "Units are sold.",
        _CLAIM._replace(expires_at_ms=1_790_000_015_000, order="order-1"),
    ),
    EventRow("sale.expired", ClaimReport, _claim_report, "A reservation was not confirmed in time.", _CLAIM),
    EventRow("sale.cancelled", ClaimReport, _claim_report, "The platform has cancelled a claim.", _CLAIM),
    EventRow("sale.released", ClaimReport, _claim_report, "The buyer has released a claim.", _CLAIM),
    EventRow(
        "sale.sold_out", SaleReport, _sale_report, "Nothing of a sale is available.",
        _SALE._replace(available=0, reserved=40, confirmed=60),
    ),
    EventRow(
        "sale.closed", SaleReport, _sale_report, "A sale takes no claims any more.",
        _SALE._replace(state=SaleState.CLOSED),
    ),
    EventRow(
        "sale.settled", SaleReport, _sale_report, "Every claim of a sale has ended.",
        _SALE._replace(state=SaleState.SETTLED, available=3, confirmed=97),
    ),
    EventRow(
        "sale.voided", SaleReport, _sale_report, "A sale is cancelled: claims that are not confirmed are void.",
        _SALE._replace(state=SaleState.CANCELLED, available=40, confirmed=60),
    ),
)  # fmt: skip
