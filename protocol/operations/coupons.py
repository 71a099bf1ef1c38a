"""Operations on pools of coupon codes: their records and rows."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any, NamedTuple

from ..activities.audiences import Audience, audience
from ..activities.coupons import MAX_CODES, MAX_COUPON_TEXT, shown_coupon
from ..activities.eligibility import Eligibility, eligibility
from ..codes import ErrorCode
from ..fields import (
    FieldError,
    array_of,
    boolean,
    described,
    integer,
    member_id,
    name_of,
    optional,
    record,
    room_name,
    text,
    user_id,
)
from .rows import LOGGED_IN, NEEDS_LEDGER, PLATFORM, KeyUse, OperationRow, RateLimit, Scope, cursor, row

__all__ = [
    "MAX_ISSUED_AT_ONCE",
    "MAX_UPLOADED_AT_ONCE",
    "ROWS",
    "CheckCoupon",
    "CheckedCoupon",
    "ClaimCoupon",
    "ClosePool",
    "ClosedPool",
    "CouponCode",
    "CouponKind",
    "CreatePool",
    "CreatedPool",
    "IssueCoupon",
    "IssueCoupons",
    "IssuedCoupons",
    "MyCoupon",
    "MyCouponCode",
    "UploadCodes",
    "UploadedCodes",
    "UserCoupon",
]

MAX_UPLOADED_AT_ONCE = 1000
MAX_ISSUED_AT_ONCE = 500
MIN_CODE_LENGTH, MAX_CODE_LENGTH = 11, 21


class CouponKind(IntEnum):
    """Where the codes of a pool come from."""

    DERIVED = 0
    """The broker makes them from a secret key: they cannot be guessed, and a typing error is found."""
    UPLOADED = 1
    """The platform uploads them."""


class CreatePool(NamedTuple):
    """Create a pool of coupon codes.

    ``count``: codes, of an uploaded pool at most so many; ``prefix`` and ``length`` (symbols without prefix and check
    symbol): of derived codes; ``expire_at_ms``: 0 = no end; ``template``: text of the message to a user who gets one,
    with ``{code}`` where the code stands; ``claims``: whether viewers can claim one, who meet ``eligibility``;
    otherwise the platform alone issues them, and the room hears nothing of the pool.
    """

    room: str
    id: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    kind: CouponKind = CouponKind.DERIVED
    prefix: str = ""
    length: int = 15
    expire_at_ms: int = 0
    title: str = ""
    template: str = ""
    claims: bool = True
    eligibility: Eligibility = Eligibility()


class CreatedPool(NamedTuple):
    """The pool is open."""

    id: str


class UploadCodes(NamedTuple):
    """Add codes to an uploaded pool: all or none. They are issued in this order."""

    room: str
    id: str
    codes: tuple[str, ...]


class UploadedCodes(NamedTuple):
    """``uploaded``: codes of the pool so far."""

    uploaded: int


class ClaimCoupon(NamedTuple):
    """Claim a code. ``keyword``: where the pool asks for one."""

    room: str
    id: str
    keyword: str = ""


class IssueCoupon(NamedTuple):
    """Give a user a code."""

    room: str
    id: str
    user: str


class CouponCode(NamedTuple):
    """The code of a user, which stays the same. ``expired``: the pool is over."""

    code: str
    expire_at_ms: int
    expired: bool = False


class IssueCoupons(NamedTuple):
    """Give each of many users a code; those who have one keep it.

    ``audience``: in place of ``users`` the users of a part of the room who are there now, 500 a call, in the order of
    their ids; ``cursor``: the last answer's ``next``; ``marketing``: users whose preference is against it get none.
    """

    room: str
    id: str
    users: tuple[str, ...] = ()
    audience: Audience | None = None
    cursor: str | None = None
    marketing: bool = False


class UserCoupon(NamedTuple):
    """The code of a user."""

    user: str
    code: str


class IssuedCoupons(NamedTuple):
    """The codes of the users. ``left_out``: users for whom there was none; ``next``: cursor of the further users of an
    audience, null = there are none."""

    items: tuple[UserCoupon, ...]
    left_out: tuple[str, ...] = ()
    next: str | None = None


class CheckCoupon(NamedTuple):
    """Ask whose a code is. ``code``: as typed; of derived codes spaces, hyphens and case do not matter."""

    room: str
    id: str
    code: str


class CheckedCoupon(NamedTuple):
    """A code of the pool. ``user``: who has it, null = it is not issued yet; ``expired``: the pool is over."""

    code: str
    user: str | None
    issued_at_ms: int
    expired: bool


class MyCoupon(NamedTuple):
    """Ask for the caller's code."""

    room: str
    id: str


class MyCouponCode(NamedTuple):
    """The caller's code, null = it has none."""

    coupon: CouponCode | None


class ClosePool(NamedTuple):
    """Issue no more codes; those that are issued stay so."""

    room: str
    id: str


class ClosedPool(NamedTuple):
    """How many codes were issued, and how many were left."""

    issued: int
    left: int


_is_prefix = re.compile("[A-Z0-9]{0,8}").fullmatch
_is_code = re.compile("[!-~]{1,64}").fullmatch


def _read_prefix(value: Any) -> str:
    if type(value) is str and _is_prefix(value):
        return value
    raise FieldError("must be 0 to 8 of A-Z and 0-9")


def _read_code(value: Any) -> str:
    if type(value) is str and _is_code(value):
        return value
    raise FieldError("must be 1 to 64 ASCII characters without spaces")


_prefix = described(_read_prefix, "prefix", {"type": "string", "pattern": "^[A-Z0-9]{0,8}$"})
_code = described(_read_code, "code", {"type": "string", "pattern": "^[!-~]{1,64}$"})
_id = text(1, 64)
_time = integer(0)
_count = integer(0, MAX_CODES)
_coupon = record(CouponCode, (shown_coupon, _time, boolean))
_user_coupon = record(UserCoupon, (member_id, shown_coupon))
_KNOWN = (ErrorCode.UNKNOWN_ROOM, ErrorCode.UNKNOWN_ACTIVITY, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER)
_ISSUED = (ErrorCode.EXHAUSTED, ErrorCode.CLOSED, *_KNOWN)
_AT_MS = 1_790_000_000_000
_SHOWN = "NEW-HVT4-PEKK-ECCN"

ROWS: tuple[OperationRow, ...] = (
    row(
        280, "coupons.create", CreatePool,
        (
            room_name, _id, integer(1, MAX_CODES), name_of(CouponKind), _prefix,
            integer(MIN_CODE_LENGTH, MAX_CODE_LENGTH), _time, text(0, 64), text(0, MAX_COUPON_TEXT, lines=True),
            boolean, eligibility,
        ),
        CreatedPool, record(CreatedPool, (_id,)), "Create a pool of coupon codes.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, key=KeyUse.REQUIRED, durable=True,
        errors=(ErrorCode.KEY_REUSED, ErrorCode.OUT_OF_STATE, ErrorCode.ROOM_ENDED, *NEEDS_LEDGER),
        example=(
            CreatePool("live-1", "new-10", 500, prefix="NEW", length=11, template="Your code: {code}"),
            CreatedPool("new-10"),
        ),
    ),
    row(
        281, "coupons.upload", UploadCodes, (room_name, _id, array_of(_code, MAX_UPLOADED_AT_ONCE)),
        UploadedCodes, record(UploadedCodes, (_count,)), "Add codes to an uploaded pool.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, key=KeyUse.REQUIRED, keeps_keys=True, durable=True,
        errors=(ErrorCode.CLOSED, ErrorCode.KEY_REUSED, *_KNOWN),
        example=(UploadCodes("live-1", "vip", ("A-1", "A-2", "A-3")), UploadedCodes(3)),
    ),
    row(
        282, "coupons.claim", ClaimCoupon, (room_name, _id, text(0, 64)), CouponCode, _coupon,
        "Claim a coupon code.",
        scope=None, roles=LOGGED_IN, joined=True, key=KeyUse.REQUIRED, keeps_keys=True, durable=True,
        rate=RateLimit(2, 5),
        errors=(ErrorCode.NOT_ELIGIBLE, ErrorCode.ROOM_PAUSED, *_ISSUED),
        example=(ClaimCoupon("live-1", "new-10"), CouponCode(_SHOWN, _AT_MS)),
    ),
    row(
        283, "coupons.issue", IssueCoupon, (room_name, _id, user_id), CouponCode, _coupon,
        "Give a user a coupon code.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, key=KeyUse.REQUIRED, durable=True, rate=RateLimit(200, 400),
        errors=_ISSUED, example=(IssueCoupon("live-1", "new-10", "ann"), CouponCode(_SHOWN, _AT_MS)),
    ),
    row(
        284, "coupons.issue_many", IssueCoupons,
        (room_name, _id, array_of(user_id, MAX_ISSUED_AT_ONCE), optional(audience), cursor, boolean), IssuedCoupons,
        record(
            IssuedCoupons,
            (array_of(_user_coupon, MAX_ISSUED_AT_ONCE), array_of(member_id, MAX_ISSUED_AT_ONCE), cursor),
        ),
        "Give each of many users a coupon code.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, key=KeyUse.REQUIRED, durable=True, errors=_ISSUED,
        example=(
            IssueCoupons("live-1", "new-10", ("ann", "bob")), IssuedCoupons((UserCoupon("ann", _SHOWN),), ("bob",))
        ),
    ),
    row(
        285, "coupons.check", CheckCoupon, (room_name, _id, text(1, 128)), CheckedCoupon,
        record(CheckedCoupon, (shown_coupon, optional(member_id), _time, boolean)), "Return whose a coupon code is.",
        scope=Scope.COMMERCE_READ, roles=PLATFORM, changes=False, rate=RateLimit(10, 10),
        errors=(ErrorCode.BAD_CODE, *_KNOWN),
        example=(
            CheckCoupon("live-1", "new-10", "new hvt4 pekk eccn"), CheckedCoupon(_SHOWN, "ann", _AT_MS, False)
        ),
    ),
    row(
        286, "coupons.mine", MyCoupon, (room_name, _id), MyCouponCode, record(MyCouponCode, (optional(_coupon),)),
        "Return the caller's coupon code.",
        scope=None, roles=LOGGED_IN, joined=True, changes=False, errors=_KNOWN,
        example=(MyCoupon("live-1", "new-10"), MyCouponCode(CouponCode(_SHOWN, _AT_MS))),
    ),
    row(
        287, "coupons.close", ClosePool, (room_name, _id), ClosedPool, record(ClosedPool, (_count, _count)),
        "Issue no more codes of a pool.",
        scope=Scope.COMMERCE_WRITE, roles=PLATFORM, durable=True, errors=_KNOWN,
        example=(ClosePool("live-1", "new-10"), ClosedPool(312, 188)),
    ),
)  # fmt: skip
