"""Configuration of a flash sale, its commands, and the refusals that carry nothing of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

from protocol.activities.eligibility import Eligibility
from protocol.activities.sales import MAX_CENTS, MAX_STOCK
from protocol.codes import ErrorCode
from protocol.fields import MAX_INT
from protocol.operations.sales import LateConfirm

from .activity import LATER_MS, ActivityRefusal
from .eligibility import eligibility_of_fact

__all__ = [
    "ALL_RESERVED",
    "ALREADY_CONFIRMED",
    "ALREADY_HAVE",
    "BELOW_TAKEN",
    "CLAIM_CANCELLED",
    "CLOSED",
    "EXPIRED",
    "KEY_REUSED",
    "LATER",
    "NOT_RESERVED",
    "ORDER_USED",
    "RELEASED",
    "SALE_CANCELLED",
    "SOLD_OUT",
    "TOO_MANY_CLAIMS",
    "UNKNOWN_CLAIM",
    "UNKNOWN_SALE",
    "WINDOW_FULL",
    "CancelClaimCommand",
    "CancelSaleCommand",
    "ClaimCommand",
    "CloseSaleCommand",
    "ConfirmCommand",
    "CreateSaleCommand",
    "ReleaseCommand",
    "RestockCommand",
    "SaleConfig",
    "SetPriceCommand",
    "config_of_fact",
]


class SaleConfig(NamedTuple):
    """What is fixed when a sale is created, but for stock and price, which may change later.

    ``first_window_ms``, ``window_ms``: claims of one window are decided together, 0 = each on its arrival.
    """

    sku: str
    stock: int
    per_user: int
    price_cents: int
    open_at_ms: int
    close_at_ms: int
    reserve_ms: int
    waiting_max: int
    first_window_ms: int
    window_ms: int
    late_confirm: LateConfirm
    eligibility: Eligibility

    def refusal(self, now_ms: int) -> ActivityRefusal | None:
        """Return what is wrong between the fields; each by itself was checked when it was received."""
        if self.open_at_ms >= self.close_at_ms:
            return ActivityRefusal(ErrorCode.BAD_FIELD, "must be after open_at_ms", "close_at_ms")
        if self.close_at_ms <= now_ms:
            return ActivityRefusal(ErrorCode.BAD_FIELD, "must be in the future", "close_at_ms")
        return value_refusal(self.stock, self.price_cents, "price_cents")


def value_refusal(stock: int, price_cents: int, field: str) -> ActivityRefusal | None:
    """Return the refusal of a stock and price whose product, or one of them, is beyond the bounds; None: they fit."""
    if stock > MAX_STOCK:
        return ActivityRefusal(ErrorCode.BAD_FIELD, f"would make a stock above {MAX_STOCK}", field)
    if price_cents > MAX_CENTS or stock * price_cents > MAX_INT:
        return ActivityRefusal(ErrorCode.BAD_FIELD, f"would make a value above {MAX_INT} cents", field)
    return None


def config_of_fact(data: tuple[Any, ...]) -> SaleConfig:
    """Return the configuration that a fact holds as a tuple (Any: as the ledger has unpacked it)."""
    config = SaleConfig(*data)
    return config._replace(
        late_confirm=LateConfirm(config.late_confirm), eligibility=eligibility_of_fact(tuple(config.eligibility))
    )


class CreateSaleCommand(NamedTuple):
    config: SaleConfig


class ClaimCommand(NamedTuple):
    """``request``: chosen by the user, the same one gets the same answer; ``price_version``: the price the user has
    seen, 0 = any; ``said``: the keyword, where the sale asks for one."""

    request: str
    quantity: int = 1
    price_version: int = 0
    said: str = ""


class ReleaseCommand(NamedTuple):
    number: int


class ConfirmCommand(NamedTuple):
    number: int
    order: str


class CancelClaimCommand(NamedTuple):
    number: int


class RestockCommand(NamedTuple):
    """``add``: units, below 0 = withdraw; ``request``: the same one counts once."""

    request: str
    add: int


class SetPriceCommand(NamedTuple):
    price_cents: int


class CloseSaleCommand(NamedTuple):
    pass


class CancelSaleCommand(NamedTuple):
    pass


_Code = ErrorCode
UNKNOWN_SALE = ActivityRefusal(_Code.UNKNOWN_ACTIVITY, "names no sale of this room", "id")
UNKNOWN_CLAIM = ActivityRefusal(_Code.UNKNOWN_CLAIM, "names no claim of this sale", "number")
ORDER_USED = ActivityRefusal(_Code.ORDER_USED, "belongs to another claim", "order")
KEY_REUSED = ActivityRefusal(_Code.KEY_REUSED, "was used for another request", "key")
BELOW_TAKEN = ActivityRefusal(_Code.BELOW_TAKEN, "would withdraw units that are taken", "add")
CLOSED = ActivityRefusal(_Code.CLOSED, "the sale is closed")
SOLD_OUT = ActivityRefusal(_Code.SOLD_OUT, "the sale is sold out")
ALREADY_HAVE = ActivityRefusal(_Code.ALREADY_HAVE, "the user has as many units as one may have", "quantity")
TOO_MANY_CLAIMS = ActivityRefusal(_Code.ALREADY_HAVE, "the user has made as many claims as one may make")
ALREADY_CONFIRMED = ActivityRefusal(_Code.ALREADY_CONFIRMED, "the claim is confirmed")
EXPIRED = ActivityRefusal(_Code.EXPIRED, "the reservation has expired")
CLAIM_CANCELLED = ActivityRefusal(_Code.CANCELLED, "the platform has cancelled the claim")
RELEASED = ActivityRefusal(_Code.RELEASED, "the buyer has released the claim")
SALE_CANCELLED = ActivityRefusal(_Code.SALE_CANCELLED, "the sale is cancelled")
ALL_RESERVED = ActivityRefusal(_Code.ALL_RESERVED, "everything is reserved and may return", "", LATER_MS)
NOT_RESERVED = ActivityRefusal(_Code.NOT_RESERVED, "the claim waits for units", "", LATER_MS)
WINDOW_FULL = ActivityRefusal(_Code.OVERLOADED, "too many claims wait for the end of the window", "", LATER_MS)
LATER = ActivityRefusal(_Code.OVERLOADED, "the ledger cannot take it now", "", LATER_MS)
