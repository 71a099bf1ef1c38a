"""Activity events of coupon pools, and what the platform gets of them: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import boolean, integer, member_id, optional, record, text
from .eligibility import Eligibility, eligibility
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "MAX_CODES",
    "MAX_COUPON_TEXT",
    "REPORTS",
    "ROWS",
    "VIEWS",
    "CouponExhaustedData",
    "CouponIssued",
    "CouponIssuedData",
    "OwnCoupon",
    "PoolClosed",
    "PoolExhausted",
    "PoolOpened",
    "PoolRefilled",
    "PoolState",
    "PoolView",
    "shown_coupon",
]

MAX_CODES = 1_000_000
"""Codes of one pool."""
MAX_COUPON_TEXT = 200
"""Characters of the text that goes with a code."""


class PoolState(IntEnum):
    """State of a pool of coupon codes."""

    OPEN = 0
    EXPIRED = 1
    CLOSED = 2
    """The platform has closed it."""


class PoolOpened(NamedTuple):
    """Users can claim a code. ``expire_at_ms``: until when, 0 = no end; ``eligibility``: who can."""

    title: str
    expire_at_ms: int
    eligibility: Eligibility


class PoolExhausted(NamedTuple):
    """All codes are issued. ``issued``: how many."""

    issued: int


class PoolRefilled(NamedTuple):
    """There are codes again. ``left``: how many."""

    left: int


class PoolClosed(NamedTuple):
    """No code can be claimed any more. ``expired``: as its time is over; otherwise the platform has closed it."""

    expired: bool


class CouponIssued(NamedTuple):
    """The user has a code. ``text``: what the platform says with it; ``expire_at_ms``: 0 = no end."""

    code: str
    text: str
    expire_at_ms: int


class PoolView(NamedTuple):
    """A pool as a member that joins gets it. ``exhausted``: all codes are issued; ``eligibility``: null = every user
    with a login can claim one."""

    title: str
    exhausted: bool
    expire_at_ms: int
    eligibility: Eligibility | None = None


class OwnCoupon(NamedTuple):
    """The user's code. ``expired``: the pool is over."""

    code: str
    expired: bool


class CouponIssuedData(NamedTuple):
    """A user has a code. ``number``: of the code in its pool, from 0."""

    pool: str
    number: int
    user: str
    code: str


class CouponExhaustedData(NamedTuple):
    """All codes of a pool are issued."""

    pool: str
    issued: int


_id = text(1, 64)
_time = integer(0)
_count = integer(0, MAX_CODES)
_title = text(0, 64)
shown_coupon = text(1, 64)
"""Rule of a code as users see it."""
_opened = record(PoolOpened, (_title, _time, eligibility))
_exhausted = record(PoolExhausted, (_count,))
_refilled = record(PoolRefilled, (_count,))
_closed = record(PoolClosed, (boolean,))
_issued = record(CouponIssued, (shown_coupon, text(0, MAX_COUPON_TEXT + 64, lines=True), _time))
_view = record(PoolView, (_title, boolean, _time, optional(eligibility)))
_own = record(OwnCoupon, (shown_coupon, boolean))
_issued_data = record(CouponIssuedData, (_id, _count, member_id, shown_coupon))
_exhausted_data = record(CouponExhaustedData, (_id, _count))

_CODE = "NEW-HVT4-PEKK-ECCN"
_AT_MS = 1_790_000_000_000

ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "coupons.opened", Via.EVENT, PoolOpened, _opened, "Coupons can be claimed.",
        PoolOpened("10 off", _AT_MS + 86_400_000, Eligibility()),
    ),
    ActivityEventRow(
        "coupons.exhausted", Via.EVENT, PoolExhausted, _exhausted, "All coupons of a pool are issued.",
        PoolExhausted(500),
    ),
    ActivityEventRow(
        "coupons.refilled", Via.EVENT, PoolRefilled, _refilled, "A pool has coupons again.", PoolRefilled(1000)
    ),
    ActivityEventRow(
        "coupons.closed", Via.EVENT, PoolClosed, _closed, "Coupons of a pool can no longer be claimed.",
        PoolClosed(True),
    ),
    ActivityEventRow(
        "coupons.issued", Via.DIRECT, CouponIssued, _issued, "The user has a coupon.",
        CouponIssued(_CODE, f"Your code: {_CODE}", _AT_MS + 86_400_000),
    ),
)  # fmt: skip

REPORTS: tuple[EventRow, ...] = (
    EventRow(
        "coupon.issued", CouponIssuedData, _issued_data, "A user has a coupon.",
        CouponIssuedData("new-10", 41, "ann", _CODE),
    ),
    EventRow(
        "coupon.exhausted", CouponExhaustedData, _exhausted_data, "All coupons of a pool are issued.",
        CouponExhaustedData("new-10", 500),
    ),
)  # fmt: skip

VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow(
        "coupons", PoolView, _view, PoolView("10 off", False, _AT_MS + 86_400_000),
        OwnCoupon, _own, OwnCoupon(_CODE, False),
    ),
)  # fmt: skip
"""What a member that joins gets of a pool whose coupons can be claimed."""
