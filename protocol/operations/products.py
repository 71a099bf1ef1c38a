"""Operations on the product list: their records."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.products import Product

__all__ = [
    "Arrangement",
    "ClicksReported",
    "ExplainingPeriod",
    "ListedProduct",
    "ProductVersion",
]


class ProductVersion(NamedTuple):
    """The state of a product. ``listed``: whether it is in the list, or removed at this version."""

    id: str
    version: int
    listed: bool


class Arrangement(NamedTuple):
    """The version of the arrangement that is valid."""

    version: int


class ClicksReported(NamedTuple):
    """The last report of the caller. ``counted``: false where it was counted before."""

    report: int
    counted: bool


class ListedProduct(NamedTuple):
    """One product of the list. ``arranged``: its position in the arrangement, null = its own is valid; ``clicks``:
    null for viewers."""

    product: Product
    arranged: int | None = None
    clicks: int | None = None


class ExplainingPeriod(NamedTuple):
    """When a product was explained. ``to_ms``: null = it is now."""

    product: str
    from_ms: int
    to_ms: int | None = None
