"""Activity events of the product list: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..fields import Rule, array_of, boolean, characters, https_url, integer, optional, record, text
from .rows import ActivityEventRow, ActivityViewRow, Via

__all__ = [
    "EXAMPLE_PRODUCT",
    "MAX_CENTS",
    "MAX_CLICKED",
    "MAX_LISTED_PRODUCTS",
    "MAX_PRODUCTS",
    "ROWS",
    "VIEWS",
    "Explaining",
    "Product",
    "ProductClicks",
    "ProductListed",
    "ProductPosition",
    "ProductRemoved",
    "ProductRow",
    "ProductsArranged",
    "ProductsClicked",
    "ProductsView",
    "explaining",
    "positions",
    "product",
    "product_rules",
    "products_view",
]

MAX_PRODUCTS = 500
"""Products in the list of one room."""
MAX_LISTED_PRODUCTS = 20
"""Rows of the list in the answer to a JOIN."""
MAX_CLICKED = 20
"""Products in one counter of clicks."""
MAX_CENTS = 10**12


class Product(NamedTuple):
    """A product. ``version``: of these fields, chosen by the platform, the highest is valid; ``position``: the list is
    in rising order of positions, then of ids; ``stock``: a hint, which decides nothing; ``note``: a short text, as
    "live only"."""

    id: str
    version: int
    title: str
    price_cents: int
    position: int = 0
    url: str | None = None
    image: str | None = None
    stock: int | None = None
    note: str = ""


class ProductListed(NamedTuple):
    """A product is in the list, or has a newer version."""

    product: Product


class Explaining(NamedTuple):
    """Which product is explained, null = none. ``number`` only grows; ``at_ms``: since when."""

    product: str | None
    number: int
    at_ms: int


class ProductRemoved(NamedTuple):
    """A product has left the list. ``explaining``: what is explained after it, null = that has not changed."""

    id: str
    version: int
    explaining: Explaining | None = None


class ProductPosition(NamedTuple):
    """The place of a product in the list."""

    product: str
    position: int


class ProductsArranged(NamedTuple):
    """The positions of many products, which stand before those that the products have themselves. The arrangement of
    the highest ``version`` is valid, whole: a product that it leaves out has its own position."""

    version: int
    positions: tuple[ProductPosition, ...]


class ProductClicks(NamedTuple):
    """Clicks on one product since the room was opened."""

    product: str
    clicks: int


class ProductsClicked(NamedTuple):
    """Clicks since the room was opened. ``products``: those with the most."""

    total: int
    products: tuple[ProductClicks, ...]


class ProductRow(NamedTuple):
    """One row of the list. ``arranged``: its position in the arrangement, null = its own is valid."""

    id: str
    version: int
    title: str
    price_cents: int
    position: int
    arranged: int | None = None


class ProductsView(NamedTuple):
    """The list as a member that joins gets it. ``card``: the product that is explained, whole; ``products``: the first
    of the list; ``more``: whether there are others, which `products.list` returns."""

    explaining: Explaining
    card: Product | None
    products: tuple[ProductRow, ...]
    arrangement: int
    more: bool


_id = text(1, 64)
_version = integer(1)
_count = integer(0)
_cents = integer(0, MAX_CENTS)
_position = integer(0)
_title = characters(100, 400)

product_rules: tuple[Rule, ...] = (
    _id, _version, _title, _cents, _position, optional(https_url), optional(https_url), optional(_count), text(0, 32),
)  # fmt: skip
"""Rules of the fields of a `Product`."""
product = record(Product, product_rules)
"""Rule of a `Product`."""
explaining = record(Explaining, (optional(_id), _count, _count))
"""Rule of an `Explaining`."""
positions = array_of(record(ProductPosition, (_id, _position)), MAX_PRODUCTS)
"""Rule of an arrangement."""
_listed = record(ProductListed, (product,))
_removed = record(ProductRemoved, (_id, _version, optional(explaining)))
_arranged = record(ProductsArranged, (_version, positions))
_clicked = record(ProductsClicked, (_count, array_of(record(ProductClicks, (_id, _count)), MAX_CLICKED)))
_row = record(ProductRow, (_id, _version, _title, _cents, _position, optional(_position)))
products_view = record(
    ProductsView, (explaining, optional(product), array_of(_row, MAX_LISTED_PRODUCTS), _count, boolean)
)
"""Rule of a `ProductsView`."""

EXAMPLE_PRODUCT = Product(
    "mug-1", 3, "Mug", 1990, 10, "https://shop.example/mug-1", "https://img.example/mug-1.webp", 40
)

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "products.put", Via.EVENT, ProductListed, _listed, "A product is listed or has changed.",
        ProductListed(EXAMPLE_PRODUCT),
    ),
    ActivityEventRow(
        "products.removed", Via.EVENT, ProductRemoved, _removed, "A product has left the list.",
        ProductRemoved("mug-1", 4, Explaining(None, 8, 1_790_000_300_000)),
    ),
    ActivityEventRow(
        "products.arranged", Via.EVENT, ProductsArranged, _arranged, "Products have moved in the list.",
        ProductsArranged(2, (ProductPosition("mug-1", 1), ProductPosition("pan-7", 2))),
    ),
    ActivityEventRow(
        "products.explaining", Via.EVENT, Explaining, explaining, "A product is explained, or none any more.",
        Explaining("mug-1", 7, 1_790_000_000_000),
    ),
    ActivityEventRow(
        "products.clicked", Via.HOST_COUNTER, ProductsClicked, _clicked, "Clicks on products.",
        ProductsClicked(412, (ProductClicks("mug-1", 300), ProductClicks("pan-7", 112))),
    ),
)  # fmt: skip
VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "products", ProductsView, products_view,
        ProductsView(
            Explaining("mug-1", 7, 1_790_000_000_000), EXAMPLE_PRODUCT,
            (ProductRow("mug-1", 3, "Mug", 1990, 10, 1),), 2, more=False,
        ),
    ),
)  # fmt: skip
