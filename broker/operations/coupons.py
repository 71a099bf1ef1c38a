"""Handlers of the operations on pools of coupon codes."""

from __future__ import annotations

from typing import Any

from broker.core.commerce.coupons import CouponPool, Upload
from broker.core.tenants.names import plain_name, qualify, tenant_of
from broker.core.users.marketing import Suppression
from broker.operations.activities import begin, command
from broker.operations.audience_users import audience_page
from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import room_of
from protocol.codes import ErrorCode
from protocol.operations.coupons import (
    MAX_ISSUED_AT_ONCE,
    CheckCoupon,
    ClaimCoupon,
    ClosePool,
    CouponCode,
    CreatedPool,
    CreatePool,
    IssueCoupon,
    IssueCoupons,
    IssuedCoupons,
    MyCoupon,
    UploadCodes,
    UploadedCodes,
)

__all__ = ["HANDLERS"]


def _key(id: str) -> tuple[str, str]:
    return CouponPool.kind, id


async def _create(parts: Parts, caller: Caller, request: CreatePool) -> CreatedPool:
    created: CreatedPool = await command(parts, caller, request.room, _key(request.id), request, creates=True)
    return created


async def _upload(parts: Parts, caller: Caller, request: UploadCodes) -> UploadedCodes:
    upload = Upload(f"{caller.account}:{caller.key}", request.codes)
    uploaded: UploadedCodes = await command(parts, caller, request.room, _key(request.id), upload)
    return uploaded


def _claim(parts: Parts, caller: Caller, request: ClaimCoupon) -> Any:
    return begin(parts, caller, request.room, _key(request.id), request, takes_part=True)


async def _issue(parts: Parts, caller: Caller, request: IssueCoupon) -> CouponCode:
    issue = request._replace(user=plain_name(request.user))
    issued: CouponCode = await command(parts, caller, request.room, _key(request.id), issue)
    return issued


async def _issue_many(parts: Parts, caller: Caller, request: IssueCoupons) -> IssuedCoupons:
    users, following = tuple(map(plain_name, request.users)), None
    if request.audience is None:
        if request.cursor is not None:
            raise OperationError(ErrorCode.BAD_FIELD, "must be given with audience, and only then", "cursor")
    else:
        if users:
            raise OperationError(ErrorCode.BAD_FIELD, "must be given, or users, and not both", "audience")
        room = room_of(parts, request.room)
        found, following = await audience_page(
            room, request.audience, request.cursor, MAX_ISSUED_AT_ONCE, marketing=request.marketing
        )
        users = tuple(map(plain_name, found))
    if request.marketing:
        tenant, wants = tenant_of(request.room), parts.hub.preferences.wants_marketing
        wanting = tuple(user for user in users if wants(qualify(tenant, user)))
        if parts.inboxes is not None:
            parts.inboxes.suppressed[Suppression.OPTED_OUT] += len(users) - len(wanting)
        users = wanting
        if not users:
            return IssuedCoupons((), (), following)
    issue = request._replace(users=users, audience=None, cursor=None)
    issued: IssuedCoupons = await command(parts, caller, request.room, _key(request.id), issue)
    return issued._replace(next=following)


def _check(parts: Parts, caller: Caller, request: CheckCoupon) -> Any:
    return begin(parts, caller, request.room, _key(request.id), request)


def _mine(parts: Parts, caller: Caller, request: MyCoupon) -> Any:
    return begin(parts, caller, request.room, _key(request.id), request)


def _close(parts: Parts, caller: Caller, request: ClosePool) -> Any:
    return begin(parts, caller, request.room, _key(request.id), request)


HANDLERS: dict[str, Handler] = {
    "coupons.create": _create,
    "coupons.upload": _upload,
    "coupons.claim": _claim,
    "coupons.issue": _issue,
    "coupons.issue_many": _issue_many,
    "coupons.check": _check,
    "coupons.mine": _mine,
    "coupons.close": _close,
}
