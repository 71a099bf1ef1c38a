"""Operations on locks: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..codes import ErrorCode
from ..fields import integer, record, room_name, text
from .rows import DIRECTION, KeyUse, OperationRow, RateLimit, Scope, row

__all__ = ["MAX_WAIT_MS", "ROWS", "AcquireLock", "LockLease", "ReleaseLock", "ReleasedLock", "RenewLock"]

MIN_TTL_MS, MAX_TTL_MS = 100, 3_600_000
MAX_WAIT_MS = 20_000


class AcquireLock(NamedTuple):
    """Acquire a lock. ``room``: need not be open; ``ttl_ms``: it ends by itself after so long; ``wait_ms``: for it."""

    room: str
    name: str
    ttl_ms: int
    wait_ms: int = 0


class LockLease(NamedTuple):
    """A lock that is held. ``fence``: greater than that of every holder before, over restarts too."""

    fence: int
    expires_at_ms: int


class RenewLock(NamedTuple):
    """Let a lock end ``ttl_ms`` from now."""

    fence: int
    ttl_ms: int


class ReleaseLock(NamedTuple):
    """Release a lock before its end."""

    fence: int


class ReleasedLock(NamedTuple):
    """The lock is free."""

    fence: int


_fence = integer(0)
_ttl = integer(MIN_TTL_MS, MAX_TTL_MS)
_lease = record(LockLease, (_fence, integer(0)))
_released = record(ReleasedLock, (_fence,))
_RATE = RateLimit(50, 100)
_REFUSED = (ErrorCode.LOCKED, ErrorCode.OVERLOADED)

ROWS: tuple[OperationRow, ...] = (
    row(
        110, "locks.acquire", AcquireLock, (room_name, text(1, 128), _ttl, integer(0, MAX_WAIT_MS)), LockLease, _lease,
        "Acquire a lock, or wait for it.",
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, key=KeyUse.OPTIONAL, durable=True, rate=_RATE, errors=_REFUSED,
        example=(AcquireLock("live-1", "settlement", 10_000), LockLease(1_790_000_000_000, 1_790_000_010_000)),
    ),
    row(
        111, "locks.renew", RenewLock, (_fence, _ttl), LockLease, _lease, "Let a lock end later.",
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, durable=True, rate=_RATE, errors=(*_REFUSED, ErrorCode.STALE),
        example=(RenewLock(1_790_000_000_000, 10_000), LockLease(1_790_000_000_000, 1_790_000_015_000)),
    ),
    row(
        112, "locks.release", ReleaseLock, (_fence,), ReleasedLock, _released, "Release a lock.",
        scope=Scope.ROOMS_WRITE, roles=DIRECTION, durable=True, rate=_RATE, errors=(*_REFUSED, ErrorCode.STALE),
        example=(ReleaseLock(1_790_000_000_000), ReleasedLock(1_790_000_000_000)),
    ),
)  # fmt: skip
