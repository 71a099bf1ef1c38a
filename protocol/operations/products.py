"""Operations on the product list of a room: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.products import (
    EXAMPLE_PRODUCT,
    Explaining,
    Product,
    ProductPosition,
    explaining,
    positions,
    product,
    product_rules,
)
from ..codes import ErrorCode
from ..fields import boolean, integer, optional, record, room_name, text
from .rows import (
    DIRECTION,
    LOGGED_IN,
    NEEDS_LEDGER,
    KeyUse,
    OperationRow,
    RateLimit,
    Scope,
    always,
    cursor,
    page_of,
    page_size,
    row,
)

__all__ = [
    "ROWS",
    "ArrangeProducts",
    "Arrangement",
    "ClicksReported",
    "ExplainProduct",
    "ExplainingLog",
    "ExplainingPeriod",
    "ListProducts",
    "ListedProduct",
    "ProductLog",
    "ProductPage",
    "ProductVersion",
    "PutProduct",
    "RemoveProduct",
    "ReportClicks",
    "StopExplaining",
]

MAX_CLICKS = 20
"""Clicks of one report."""


class PutProduct(NamedTuple):
    """List a product, or replace it. ``version``: of these fields, chosen by the caller, above that of the product: an
    older one is STALE; ``position``: the list is in rising order of positions, then of ids; ``stock``: a hint;
    ``note``: a short text."""

    room: str
    id: str
    version: int
    title: str
    price_cents: int
    position: int = 0
    url: str | None = None
    image: str | None = None
    stock: int | None = None
    note: str = ""


class RemoveProduct(NamedTuple):
    """Remove a product. ``version``: above that of the product; a put of up to this version is STALE from then on."""

    room: str
    id: str
    version: int


class ProductVersion(NamedTuple):
    """The state of a product. ``listed``: whether it is in the list, or removed at this version."""

    id: str
    version: int
    listed: bool


class ArrangeProducts(NamedTuple):
    """Give many products their positions. ``version``: of the arrangement, above that of the last one, which it
    replaces whole; a product that it leaves out has the position of its own."""

    room: str
    version: int
    positions: tuple[ProductPosition, ...]


class Arrangement(NamedTuple):
    """The version of the arrangement that is valid."""

    version: int


class ExplainProduct(NamedTuple):
    """Explain a product of the list."""

    room: str
    id: str


class StopExplaining(NamedTuple):
    """Explain no product any more."""

    room: str


class ReportClicks(NamedTuple):
    """Report clicks of the caller on a product, at most once a second. ``report``: above that of the caller's last
    report in the room; others are not counted, so a report may be repeated."""

    room: str
    id: str
    clicks: int
    report: int


class ClicksReported(NamedTuple):
    """The last report of the caller. ``counted``: false where it was counted before."""

    report: int
    counted: bool


class ListProducts(NamedTuple):
    """Ask for the products of a room."""

    room: str
    limit: int = 100
    cursor: str | None = None


class ListedProduct(NamedTuple):
    """One product of the list. ``arranged``: its position in the arrangement, null = its own is valid; ``clicks``:
    null for viewers."""

    product: Product
    arranged: int | None = None
    clicks: int | None = None


class ProductPage(NamedTuple):
    """A page of products, in the order of the list. ``next``: cursor of the following page, null = the end."""

    items: tuple[ListedProduct, ...]
    next: str | None = None


class ProductLog(NamedTuple):
    """Ask when which product was explained."""

    room: str
    limit: int = 100
    cursor: str | None = None


class ExplainingPeriod(NamedTuple):
    """When a product was explained. ``to_ms``: null = it is now."""

    product: str
    from_ms: int
    to_ms: int | None = None


class ExplainingLog(NamedTuple):
    """A page of the log, the oldest first. ``next``: cursor of the following page, null = the end."""

    items: tuple[ExplainingPeriod, ...]
    next: str | None = None


_id = text(1, 64)
_version = integer(1)
_count = integer(0)
_version_result = record(ProductVersion, (_id, _version, boolean))
_arrangement = record(Arrangement, (_version,))
_clicks_result = record(ClicksReported, (_count, boolean))
_page = record(ProductPage, page_of(record(ListedProduct, (product, optional(_count), optional(_count)))))
_log = record(ExplainingLog, page_of(record(ExplainingPeriod, (_id, _count, optional(_count)))))

_CHANGES = (ErrorCode.STALE, ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER)
_EXPLAINS = (
    ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY, ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE,
    ErrorCode.ROOM_ENDED, *NEEDS_LEDGER,
)  # fmt: skip
_READS = (ErrorCode.UNKNOWN_ROOM, *NEEDS_LEDGER)
_RATE = RateLimit(100, 500)
_AT_MS = 1_790_000_000_000

ROWS: tuple[OperationRow, ...] = (
    row(
        200, "products.put", PutProduct, (room_name, *product_rules), ProductVersion, _version_result,
        "List a product, or replace it by a newer version.",
        speaks=always, scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, rate=_RATE, errors=_CHANGES,
        example=(PutProduct("live-1", *EXAMPLE_PRODUCT), ProductVersion("mug-1", 3, listed=True)),
    ),
    row(
        202, "products.arrange", ArrangeProducts, (room_name, _version, positions), Arrangement, _arrangement,
        "Give many products their positions in the list.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, errors=_CHANGES,
        example=(
            ArrangeProducts("live-1", 2, (ProductPosition("mug-1", 1), ProductPosition("pan-7", 2))), Arrangement(2),
        ),
    ),
    row(
        203, "products.explain", ExplainProduct, (room_name, _id), Explaining, explaining,
        "Explain a product to the room.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, key=KeyUse.OPTIONAL, keeps_keys=True, durable=True,
        errors=_EXPLAINS, example=(ExplainProduct("live-1", "mug-1"), Explaining("mug-1", 7, _AT_MS)),
    ),
    row(
        204, "products.stop_explaining", StopExplaining, (room_name,), Explaining, explaining,
        "Explain no product any more.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, key=KeyUse.OPTIONAL, keeps_keys=True, durable=True,
        errors=_EXPLAINS, example=(StopExplaining("live-1"), Explaining(None, 8, _AT_MS)),
    ),
    row(
        205, "products.report_clicks", ReportClicks, (room_name, _id, integer(1, MAX_CLICKS), _count),
        ClicksReported, _clicks_result, "Report clicks of the caller on a product.",
        scope=None, roles=LOGGED_IN, joined=True, durable=True, rate=RateLimit(1, 3),
        errors=(
            ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_ENDED,
            *NEEDS_LEDGER,
        ),
        example=(ReportClicks("live-1", "mug-1", 3, 12), ClicksReported(12, counted=True)),
    ),
    row(
        206, "products.list", ListProducts, (room_name, page_size, cursor), ProductPage, _page,
        "List the products of a room.",
        scope=Scope.COMMERCE_READ, roles=LOGGED_IN, changes=False, errors=_READS,
        example=(ListProducts("live-1"), ProductPage((ListedProduct(EXAMPLE_PRODUCT, 1, 300),))),
    ),
    row(
        207, "products.log", ProductLog, (room_name, page_size, cursor), ExplainingLog, _log,
        "List when which product was explained.",
        scope=Scope.COMMERCE_READ, roles=DIRECTION, changes=False, errors=_READS,
        example=(ProductLog("live-1"), ExplainingLog((ExplainingPeriod("mug-1", _AT_MS, _AT_MS + 60_000),))),
    ),
    row(
        201, "products.remove", RemoveProduct, (room_name, _id, _version), ProductVersion, _version_result,
        "Remove a product from the list.",
        scope=Scope.COMMERCE_WRITE, roles=DIRECTION, durable=True, rate=_RATE, errors=_CHANGES,
        example=(RemoveProduct("live-1", "mug-1", 4), ProductVersion("mug-1", 4, listed=False)),
    ),
)  # fmt: skip
