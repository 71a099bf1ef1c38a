"""Locks with fencing tokens: who holds one, until when, and who waits for it in which order.

`LockTable` decides and folds: `acquire`, `renew` and `release` return a fact to record, whose lock is reserved until
`commit` or `give_up`. A *fence* is a number that grows with every acquisition, over restarts too: a resource that
refuses a smaller fence than it has seen is safe from a holder that was paused past its time.

A lock ends with its time, measured by the monotonic clock: no leap of the wall clock ends or extends it. After a
restart the rest of its time follows from trusted Unix time, and is the whole time where that is in doubt. Requests that
wait are served in order of arrival; none overtakes a queue.

Bounds: locks and waiters of a tenant, of an owner and of one lock, and in all (`LockLimits`).
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from math import ceil, inf
from typing import NamedTuple, TypeVar

from protocol.codes import ErrorCode

__all__ = ["LockFreed", "LockGrant", "LockLimits", "LockName", "LockRefused", "LockRequest", "LockTable"]

K = TypeVar("K")

AGAIN_MS = 200
"""When to try again what is under way, or above a bound."""


class LockLimits(NamedTuple):
    """Most locks and waiters. ``of_owner``: locks and waiters of one user or key; ``queue``: waiters of one lock."""

    of_tenant: int = 1000
    of_owner: int = 250
    queue: int = 100
    total: int = 20_000


class LockName(NamedTuple):
    """Name of a lock. ``room``: qualified by its tenant."""

    tenant: str
    room: str
    name: str


class LockGrant(NamedTuple):
    """A lock that is acquired or renewed. ``expires_at_ms``: trusted Unix milliseconds, for restarts and answers."""

    name: LockName
    fence: int
    owner: str
    ttl_ms: int
    expires_at_ms: int


class LockFreed(NamedTuple):
    """A lock that is released, or whose time has passed."""

    name: LockName
    fence: int


class LockRefused(NamedTuple):
    """Why nothing has changed."""

    code: ErrorCode
    rule: str
    retry_after_ms: int = 0


class LockRequest:
    """One request that waits. ``grant``: the fact to record, once it is its turn."""

    __slots__ = ("grant", "name", "owner", "ttl_ms")

    def __init__(self, name: LockName, owner: str, ttl_ms: int) -> None:
        self.name = name
        self.owner = owner
        self.ttl_ms = ttl_ms
        self.grant: LockGrant | None = None


class _Held:
    """A lock that is taken, or whose grant is under way."""

    __slots__ = ("expires_at", "grant", "is_freeing", "is_renewing", "reserved_until")

    def __init__(self, grant: LockGrant, expires_at: float) -> None:
        self.grant = grant
        self.expires_at = expires_at
        self.reserved_until = expires_at
        """Until then it is not given to others: a renewal may be under way."""
        self.is_renewing = False
        self.is_freeing = False


class LockTable:
    """All locks of one broker. Times: ``now`` monotonic seconds, ``now_ms`` trusted Unix milliseconds."""

    def __init__(self, limits: LockLimits | None = None) -> None:
        self._limits = limits or LockLimits()
        self._held: OrderedDict[LockName, _Held] = OrderedDict()
        self._by_fence: dict[int, LockName] = {}
        self._queues: dict[LockName, deque[LockRequest]] = {}
        self._of_tenant: Counter[tuple[str, bool]] = Counter()
        """Locks and (True) waiters by tenant."""
        self._of_owner: Counter[tuple[str, str]] = Counter()
        """Locks and waiters by tenant and owner."""
        self._waiters = 0
        self.last_fence = 0
        """The highest fence given so far."""

    def __len__(self) -> int:
        """Return the locks that are held."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._waiters

    def holder(self, name: LockName, now: float) -> LockGrant | None:
        """Return the grant in force."""
        held = self._held.get(name)
        return None if held is None or held.expires_at <= now else held.grant

    # ---- decide

    def acquire(
        self, name: LockName, owner: str, ttl_ms: int, now: float, now_ms: int, *, waits: bool
    ) -> LockGrant | LockRequest | LockRefused:
        """Return the grant to record; where the lock is taken, the place in its queue if the caller ``waits``."""
        self._drop_if_expired(name, now)
        is_free = name not in self._held and name not in self._queues
        if not is_free and not waits:
            held = self._held.get(name)
            wait_s = 0.0 if held is None else held.reserved_until - now
            return LockRefused(ErrorCode.LOCKED, "another caller holds it", max(AGAIN_MS, ceil(wait_s * 1000)))
        refusal = self._refusal(name, owner, waits=not is_free)
        if refusal is not None:
            return refusal
        if is_free:
            return self._grant(name, owner, ttl_ms, now, now_ms)
        waiter = LockRequest(name, owner, ttl_ms)
        self._queues.setdefault(name, deque()).append(waiter)
        self._count(name.tenant, owner, True, 1)
        return waiter

    def _refusal(self, name: LockName, owner: str, *, waits: bool) -> LockRefused | None:
        limits = self._limits
        rule = ""
        if self._of_tenant[name.tenant, waits] >= limits.of_tenant:
            rule = f"a tenant has at most {limits.of_tenant} {'requests that wait' if waits else 'locks'}"
        elif self._of_owner[name.tenant, owner] >= limits.of_owner:
            rule = f"a caller has at most {limits.of_owner} locks and requests that wait"
        elif waits and len(self._queues.get(name, ())) >= limits.queue:
            rule = f"at most {limits.queue} requests wait for one lock"
        elif len(self._held) + self._waiters >= limits.total:
            rule = "the broker has as many locks as it may"
        return LockRefused(ErrorCode.RATE_LIMITED, rule, AGAIN_MS) if rule else None

    def _grant(self, name: LockName, owner: str, ttl_ms: int, now: float, now_ms: int) -> LockGrant:
        self.last_fence = max(self.last_fence + 1, now_ms)
        grant = LockGrant(name, self.last_fence, owner, ttl_ms, now_ms + ttl_ms)
        self._hold(grant, now + ttl_ms / 1000)
        return grant

    def renew(self, fence: int, owner: str, ttl_ms: int, now: float, now_ms: int) -> LockGrant | LockRefused:
        """Return the grant with a new end."""
        held = self._owned(fence, owner, now)
        if isinstance(held, LockRefused):
            return held
        held.is_renewing = True
        held.reserved_until = max(held.expires_at, now + ttl_ms / 1000)
        return held.grant._replace(ttl_ms=ttl_ms, expires_at_ms=now_ms + ttl_ms)

    def release(self, fence: int, owner: str, now: float) -> LockFreed | LockRefused:
        """Return the end of a grant; the lock stays taken until it is recorded."""
        held = self._owned(fence, owner, now)
        if isinstance(held, LockRefused):
            return held
        held.is_freeing = True
        return LockFreed(held.grant.name, fence)

    def _owned(self, fence: int, owner: str, now: float) -> _Held | LockRefused:
        name = self._by_fence.get(fence)
        held = None if name is None else self._held[name]
        if held is None or held.grant.owner != owner or (held.expires_at <= now and not held.is_renewing):
            return LockRefused(ErrorCode.STALE, "holds no lock of yours: it has ended, or was never given")
        if held.is_renewing or held.is_freeing:
            return LockRefused(ErrorCode.LOCKED, "is being renewed or released", AGAIN_MS)
        return held

    # ---- fold

    def commit(self, fact: LockGrant | LockFreed, now: float) -> bool:
        """A fact is durable. Returns whether it holds: not where the lock has gone to another meanwhile."""
        held = self._held.get(fact.name)
        if held is None or held.grant.fence != fact.fence:
            return False
        if isinstance(fact, LockFreed):
            self._drop(fact.name)
        elif held.is_renewing:
            held.is_renewing = False
            held.grant = fact
            held.expires_at = held.reserved_until
        return True

    def give_up(self, fact: LockGrant | LockFreed) -> None:
        """A fact could not be made durable: an acquisition is undone, a renewal or a release has not happened."""
        held = self._held.get(fact.name)
        if held is None or held.grant.fence != fact.fence:
            return
        if held.is_renewing:
            held.is_renewing = False
            held.reserved_until = held.expires_at
        elif held.is_freeing:
            held.is_freeing = False
        else:
            self._drop(fact.name)

    # ---- queues and time

    def advance(self, name: LockName, now: float, now_ms: int) -> LockRequest | None:
        """Give a lock that is free to whoever waits longest; returns it with its ``grant``."""
        self._drop_if_expired(name, now)
        queue = self._queues.get(name)
        if queue is None or name in self._held:
            return None
        waiter = queue.popleft()
        self._dequeued(waiter, queue)
        waiter.grant = self._grant(name, waiter.owner, waiter.ttl_ms, now, now_ms)
        return waiter

    def cancel(self, waiter: LockRequest) -> None:
        """Remove a request that waits no more. One that has its grant is not in the queue: `give_up` that."""
        queue = self._queues.get(waiter.name)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            self._dequeued(waiter, queue)

    def _dequeued(self, waiter: LockRequest, queue: deque[LockRequest]) -> None:
        self._count(waiter.name.tenant, waiter.owner, True, -1)
        if not queue:
            del self._queues[waiter.name]

    def first(self, name: LockName) -> LockRequest | None:
        """Return the request that is served next."""
        queue = self._queues.get(name)
        return queue[0] if queue else None

    def next_due(self, name: LockName) -> float:
        """When `advance` may find the lock free because its time has passed; infinity = it is not taken."""
        held = self._held.get(name)
        return inf if held is None else held.reserved_until

    def sweep(self, now: float, limit: int = 100) -> list[LockFreed]:
        """Drop locks whose time has passed and for which no request waits, up to ``limit``; return what to record."""
        found = []
        for _ in range(min(limit, len(self._held))):
            name, held = next(iter(self._held.items()))
            self._held.move_to_end(name)
            if held.reserved_until <= now and name not in self._queues:
                found.append(LockFreed(name, held.grant.fence))
                self._drop(name)
        return found

    def restore(self, grants: Iterable[LockGrant], last_fence: int, now: float, now_ms: int | None) -> list[LockFreed]:
        """Take over what is recorded; return what has ended. ``now_ms`` None: the time is in doubt."""
        ended = []
        self.last_fence = max(self.last_fence, last_fence)
        for grant in grants:
            self.last_fence = max(self.last_fence, grant.fence)
            left_ms = grant.ttl_ms if now_ms is None else min(grant.ttl_ms, grant.expires_at_ms - now_ms)
            if left_ms > 0:
                self._hold(grant, now + left_ms / 1000)
            else:
                ended.append(LockFreed(grant.name, grant.fence))
        return ended

    def _drop_if_expired(self, name: LockName, now: float) -> None:
        held = self._held.get(name)
        if held is not None and held.reserved_until <= now:
            self._drop(name)

    def _hold(self, grant: LockGrant, expires_at: float) -> None:
        self._held[grant.name] = _Held(grant, expires_at)
        self._by_fence[grant.fence] = grant.name
        self._count(grant.name.tenant, grant.owner, False, 1)

    def _drop(self, name: LockName) -> None:
        grant = self._held.pop(name).grant
        del self._by_fence[grant.fence]
        self._count(name.tenant, grant.owner, False, -1)

    def _count(self, tenant: str, owner: str, is_waiter: bool, change: int) -> None:
        self._waiters += change if is_waiter else 0
        _add(self._of_tenant, (tenant, is_waiter), change)
        _add(self._of_owner, (tenant, owner), change)


def _add(counter: Counter[K], key: K, change: int) -> None:
    counter[key] += change
    if not counter[key]:
        del counter[key]
