"""Operations on flash sales: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..activities.eligibility import Eligibility, eligibility
from ..activities.sales import (
    MAX_CENTS,
    MAX_STOCK,
    MAX_UNITS,
    ClaimState,
    ClaimView,
    SaleState,
    SaleView,
    claim_view,
    sale_view,
)
from ..codes import ErrorCode, Role
from ..fields import integer, name_of, optional, record, room_name, text
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
    "MAX_WAITING",
    "ROWS",
    "CancelClaim",
    "CancelSale",
    "ClaimAnswer",
    "ClaimOutcome",
    "ClaimPage",
    "ClaimSale",
    "CloseSale",
    "ConfirmClaim",
    "CreateSale",
    "LateConfirm",
    "ListClaims",
    "ListSales",
    "MyClaims",
    "ReleaseClaim",
    "RestockSale",
    "SaleEnd",
    "SalePage",
    "SalePrice",
    "SaleStock",
    "SetSalePrice",
]

MAX_WAITING = 10_000


class LateConfirm(IntEnum):
    """What becomes of a confirmation after the reservation has expired."""

    IF_STOCK = 1
    """It counts as in time while units are available and no claim waits."""
    REFUSE = 2


class CreateSale(NamedTuple):
    """Create a sale, which opens and closes by the broker's clock.

    ``id``: chosen by the caller; ``per_user``: units of one user; ``reserve_ms``: how long units are reserved for a
    claim; ``waiting_max``: claims that may wait for units, null = as many as the stock, at most 10,000;
    ``first_window_ms``, ``window_ms``: claims that arrive within a window are decided together at its end, in an order
    that does not depend on when they arrived; 0 = each is decided when it arrives; ``late_confirm``: what becomes of a
    confirmation after the reservation has expired.
    """

    room: str
    id: str
    sku: str
    stock: int
    price_cents: int
    open_at_ms: int
    close_at_ms: int
    per_user: int = 1
    reserve_ms: int = 15_000
    waiting_max: int | None = None
    first_window_ms: int = 500
    window_ms: int = 50
    late_confirm: LateConfirm = LateConfirm.IF_STOCK
    eligibility: Eligibility = Eligibility()


class ClaimSale(NamedTuple):
    """Claim units of a sale. ``price_version``: the price that the user has seen, 0 = any; ``keyword``: where the sale
    asks for one."""

    room: str
    id: str
    quantity: int = 1
    price_version: int = 0
    keyword: str = ""


class ReleaseClaim(NamedTuple):
    """Release a claim of the caller: its units return."""

    room: str
    id: str
    number: int


class MyClaims(NamedTuple):
    """Ask for the caller's claims of a sale."""

    room: str
    id: str
    limit: int = 100
    cursor: str | None = None


class ConfirmClaim(NamedTuple):
    """Confirm that a claim is paid. ``order``: of the platform, for this claim alone; repeating it changes nothing."""

    room: str
    id: str
    number: int
    order: str


class CancelClaim(NamedTuple):
    """Cancel a claim that is not confirmed: its units return."""

    room: str
    id: str
    number: int


class RestockSale(NamedTuple):
    """Add units to a sale, or withdraw some. ``add``: below 0 = withdraw."""

    room: str
    id: str
    add: int


class SetSalePrice(NamedTuple):
    """Set the price of a sale; what is reserved keeps its own."""

    room: str
    id: str
    price_cents: int


class CloseSale(NamedTuple):
    """Close a sale before its time: it takes no claims any more, reservations run on."""

    room: str
    id: str


class CancelSale(NamedTuple):
    """Cancel a sale: claims that are not confirmed are void."""

    room: str
    id: str


class ListSales(NamedTuple):
    """Ask for the sales of a room."""

    room: str
    limit: int = 100
    cursor: str | None = None


class SalePage(NamedTuple):
    """A page of sales, the oldest first. ``next``: cursor of the following page, null = the end."""

    items: tuple[SaleView, ...]
    next: str | None = None


class ListClaims(NamedTuple):
    """Ask for the claims of a sale. ``state``: only these."""

    room: str
    id: str
    state: ClaimState | None = None
    limit: int = 100
    cursor: str | None = None


class ClaimPage(NamedTuple):
    """A page of claims. ``next``: cursor of the following page, null = the end."""

    items: tuple[ClaimView, ...]
    next: str | None = None


class ClaimAnswer(NamedTuple):
    """A claim as it was taken. ``place``: on the waiting list; price and end of the reservation are null there."""

    number: int
    state: ClaimState
    quantity: int
    price_cents: int | None = None
    expires_at_ms: int | None = None
    place: int | None = None


class ClaimOutcome(NamedTuple):
    """The state of a claim after the request."""

    number: int
    state: ClaimState


class SaleStock(NamedTuple):
    """All units of a sale, also those that are taken."""

    stock: int


class SalePrice(NamedTuple):
    """Price of a sale. ``price_version`` grows with each price."""

    price_version: int
    price_cents: int


class SaleEnd(NamedTuple):
    """When a sale has closed or was cancelled."""

    at_ms: int


_id = text(1, 64)
_count = integer(0)
_number = integer(1)
_units = integer(1, MAX_UNITS)
_stock = integer(1, MAX_STOCK)
_cents = integer(0, MAX_CENTS)
_state = name_of(ClaimState)
_answer = record(ClaimAnswer, (_number, _state, _units, optional(_cents), optional(_count), optional(_number)))
_outcome = record(ClaimOutcome, (_number, _state))
_stock_result = record(SaleStock, (_count,))
_price = record(SalePrice, (_number, _cents))
_end = record(SaleEnd, (_count,))
_sales = record(SalePage, page_of(sale_view))
_claims = record(ClaimPage, page_of(claim_view))

_HOST = frozenset({Role.HOST, Role.APP})
_NO_SALE = (ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY, *NEEDS_LEDGER)
_KNOWN = (*_NO_SALE, ErrorCode.ROOM_ENDED)
_ENDED = (ErrorCode.CLOSED, ErrorCode.SALE_CANCELLED)
_OF_CLAIM = (
    ErrorCode.UNKNOWN_CLAIM, ErrorCode.ALREADY_CONFIRMED, ErrorCode.SALE_CANCELLED, ErrorCode.SOLD_OUT, *_KNOWN,
)  # fmt: skip
_PLATFORM_RATE = RateLimit(500, 1000)
_READ = RateLimit(20, 40)
_AT_MS = 1_790_000_000_000
_VIEW = SaleView(
    "sale-1", "mug-1", SaleState.SCHEDULED, 100, 100, 0, 0, 0, 1990, 1, 1, _AT_MS, _AT_MS + 600_000, 15_000, 500, 50,
    "ab" * 32,
)  # fmt: skip
_CLAIM = ClaimView(7, "u1", ClaimState.RESERVED, 1, 1990, _AT_MS + 15_000)

ROWS: tuple[OperationRow, ...] = (
    row(
        240, "sales.create", CreateSale,
        (
            room_name, _id, _id, _stock, _cents, _count, _count, _units, integer(3000, 900_000),
            optional(integer(0, MAX_WAITING)), integer(0, 10_000), integer(0, 10_000), name_of(LateConfirm),
            eligibility,
        ),
        SaleView, sale_view, "Create a flash sale.",
        scope=Scope.COMMERCE_WRITE, roles=_HOST, durable=True,
        errors=(ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER),
        example=(CreateSale("live-1", "sale-1", "mug-1", 100, 1990, _AT_MS, 4_102_444_800_000), _VIEW),
    ),
    row(
        241, "sales.claim", ClaimSale, (room_name, _id, _units, _count, text(0, 64)), ClaimAnswer, _answer,
        "Claim units of a flash sale.",
        scope=None, roles=LOGGED_IN, joined=True, key=KeyUse.REQUIRED, keeps_keys=True, durable=True,
        rate=RateLimit(3, 6), address_rate=RateLimit(20, 40),
        errors=(
            ErrorCode.NOT_OPEN, ErrorCode.SOLD_OUT, ErrorCode.ALL_RESERVED, ErrorCode.ALREADY_HAVE,
            ErrorCode.PRICE_CHANGED, ErrorCode.NOT_ELIGIBLE, ErrorCode.KEY_REUSED, ErrorCode.ROOM_PAUSED, *_ENDED,
            *_KNOWN,
        ),
        example=(
            ClaimSale("live-1", "sale-1"),
            ClaimAnswer(7, ClaimState.RESERVED, 1, 1990, _AT_MS + 15_000),
        ),
    ),
    row(
        242, "sales.release", ReleaseClaim, (room_name, _id, _number), ClaimOutcome, _outcome,
        "Release a claim of the caller.",
        scope=None, roles=LOGGED_IN, durable=True,
        errors=(ErrorCode.EXPIRED, ErrorCode.CANCELLED, *_OF_CLAIM),
        example=(ReleaseClaim("live-1", "sale-1", 7), ClaimOutcome(7, ClaimState.RELEASED)),
    ),
    row(
        243, "sales.mine", MyClaims, (room_name, _id, page_size, cursor), ClaimPage, _claims,
        "List the caller's claims of a sale, the newest first.",
        scope=None, roles=LOGGED_IN, changes=False, errors=_NO_SALE,
        example=(MyClaims("live-1", "sale-1"), ClaimPage((_CLAIM,))),
    ),
    row(
        244, "sales.confirm", ConfirmClaim, (room_name, _id, _number, _id), ClaimOutcome, _outcome,
        "Confirm that a claim is paid.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, durable=True, rate=_PLATFORM_RATE,
        errors=(
            ErrorCode.NOT_RESERVED, ErrorCode.ORDER_USED, ErrorCode.EXPIRED, ErrorCode.CANCELLED, ErrorCode.RELEASED,
            *_OF_CLAIM,
        ),
        example=(ConfirmClaim("live-1", "sale-1", 7, "order-1"), ClaimOutcome(7, ClaimState.CONFIRMED)),
    ),
    row(
        245, "sales.cancel", CancelClaim, (room_name, _id, _number), ClaimOutcome, _outcome,
        "Cancel a claim that is not confirmed.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, durable=True, rate=_PLATFORM_RATE, errors=_OF_CLAIM,
        example=(CancelClaim("live-1", "sale-1", 8), ClaimOutcome(8, ClaimState.CANCELLED)),
    ),
    row(
        246, "sales.restock", RestockSale, (room_name, _id, integer(-MAX_STOCK, MAX_STOCK)), SaleStock, _stock_result,
        "Add units to a sale, or withdraw some.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, key=KeyUse.REQUIRED, keeps_keys=True, durable=True,
        rate=_PLATFORM_RATE, errors=(ErrorCode.BELOW_TAKEN, ErrorCode.KEY_REUSED, *_ENDED, *_KNOWN),
        example=(RestockSale("live-1", "sale-1", 20), SaleStock(120)),
    ),
    row(
        247, "sales.set_price", SetSalePrice, (room_name, _id, _cents), SalePrice, _price, "Set the price of a sale.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, durable=True, errors=(*_ENDED, *_KNOWN),
        example=(SetSalePrice("live-1", "sale-1", 1790), SalePrice(2, 1790)),
    ),
    row(
        248, "sales.close", CloseSale, (room_name, _id), SaleEnd, _end, "Close a sale before its time.",
        scope=Scope.COMMERCE_WRITE, roles=_HOST, durable=True,
        errors=(ErrorCode.NOT_OPEN, ErrorCode.SALE_CANCELLED, *_KNOWN),
        example=(CloseSale("live-1", "sale-1"), SaleEnd(_AT_MS)),
    ),
    row(
        249, "sales.cancel_sale", CancelSale, (room_name, _id), SaleEnd, _end,
        "Cancel a sale: claims that are not confirmed are void.",
        scope=Scope.COMMERCE_WRITE, roles=_HOST, durable=True, errors=(ErrorCode.CLOSED, *_KNOWN),
        example=(CancelSale("live-1", "sale-1"), SaleEnd(_AT_MS)),
    ),
    row(
        250, "sales.list", ListSales, (room_name, page_size, cursor), SalePage, _sales, "List the sales of a room.",
        scope=Scope.COMMERCE_READ, roles=PLATFORM, rate=_READ, changes=False,
        errors=(ErrorCode.UNKNOWN_ROOM, *NEEDS_LEDGER),
        example=(ListSales("live-1"), SalePage((_VIEW,))),
    ),
    row(
        251, "sales.claims", ListClaims, (room_name, _id, optional(_state), page_size, cursor), ClaimPage, _claims,
        "List the claims of a sale.",
        scope=Scope.COMMERCE_READ, roles=PLATFORM, rate=_READ, changes=False, errors=_NO_SALE,
        example=(ListClaims("live-1", "sale-1"), ClaimPage((_CLAIM,), "7")),
    ),
)  # fmt: skip
