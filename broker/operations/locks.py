"""Handlers of the operations on locks."""

from __future__ import annotations

from typing import TypeVar

from broker.core.rooms.locks import LockName, LockRefused
from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from protocol.codes import ErrorCode
from protocol.operations.locks import AcquireLock, LockLease, ReleasedLock, ReleaseLock, RenewLock

__all__ = ["HANDLERS"]

R = TypeVar("R")


def _held(found: R | LockRefused) -> R:
    """Return a result that is no refusal; OperationError otherwise."""
    if isinstance(found, LockRefused):
        field = "fence" if found.code is ErrorCode.STALE else "name" if found.code is ErrorCode.LOCKED else ""
        raise OperationError(found.code, found.rule, field, found.retry_after_ms)
    return found


async def _acquire(parts: Parts, caller: Caller, request: AcquireLock) -> LockLease:
    name = LockName(caller.tenant, request.room, request.name)
    grant = _held(await parts.locks.acquire(name, caller.account, request.ttl_ms, request.wait_ms))
    return LockLease(grant.fence, grant.expires_at_ms)


async def _renew(parts: Parts, caller: Caller, request: RenewLock) -> LockLease:
    grant = _held(await parts.locks.renew(request.fence, caller.account, request.ttl_ms))
    return LockLease(grant.fence, grant.expires_at_ms)


async def _release(parts: Parts, caller: Caller, request: ReleaseLock) -> ReleasedLock:
    return ReleasedLock(_held(await parts.locks.release(request.fence, caller.account)).fence)


HANDLERS: dict[str, Handler] = {"locks.acquire": _acquire, "locks.renew": _renew, "locks.release": _release}
