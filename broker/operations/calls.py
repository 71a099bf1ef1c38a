"""One call of an operation, whatever face it came through: read, judged, limited, answered once.

The order of the checks: the request's fields, who may ask, the room, the rate, the idempotency key, then the handler.
Handlers get and return qualified names (`broker.core.tenants.names`), callers plain ones. A refusal is an
`OperationError` and has changed nothing. Handlers that wait for nothing answer at once,
without a task.

Idempotency keys are kept for `KEY_S` seconds in memory, at most `MAX_KEYS`. With a ledger the answers of durable
operations are known for longer and over restarts: see `broker.operations.answers`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import CoroutineType
from typing import Any, NamedTuple

import structlog
import trio

from broker.core.limits.rate_limit import Gcra, Rate
from broker.core.tenants.names import SEPARATOR, plain_name, qualify
from broker.core.users.named import users_in
from broker.ledger import Ledger
from broker.operations import (
    activity_lists,
    app,
    audiences,
    audit,
    broadcasts,
    brokers,
    cards,
    conversations,
    coupons,
    desk,
    desk_streams,
    dictionaries,
    directs,
    exports,
    hints,
    hooks,
    keys,
    locks,
    lotteries,
    marketing,
    messages,
    mic,
    packets,
    pk,
    polls,
    presence,
    products,
    rankings,
    reports,
    reviews,
    rooms,
    rtc,
    sales,
    sanctions,
    schedules,
    tokens,
    users,
    words,
)
from broker.operations.answers import KEPT, find_answer, keep_answer
from broker.operations.audit_log import OK, AuditLog
from broker.operations.caller import Caller, OperationError
from broker.operations.deferred import Deferred
from broker.operations.parts import Handler, Parts, Recall
from broker.operations.rights import check_rights, check_sanctions, read_request
from protocol.codes import ErrorCode
from protocol.fields import renamed
from protocol.frames import pack_body
from protocol.operations import KeyUse, OperationRow, RateLimit

__all__ = ["HANDLERS", "CallAnswer", "Operations"]

log = structlog.get_logger("roomcast.operations")

HANDLERS: dict[str, Handler] = {
    **app.HANDLERS,
    **activity_lists.HANDLERS,
    **rooms.HANDLERS,
    **messages.HANDLERS,
    **broadcasts.HANDLERS,
    **users.HANDLERS,
    **words.HANDLERS,
    **exports.HANDLERS,
    **reports.HANDLERS,
    **hints.HANDLERS,
    **tokens.HANDLERS,
    **brokers.HANDLERS,
    **directs.HANDLERS,
    **keys.HANDLERS,
    **hooks.HANDLERS,
    **locks.HANDLERS,
    **sales.HANDLERS,
    **packets.HANDLERS,
    **coupons.HANDLERS,
    **conversations.HANDLERS,
    **desk.HANDLERS,
    **desk_streams.HANDLERS,
    **rankings.HANDLERS,
    **lotteries.HANDLERS,
    **marketing.HANDLERS,
    **mic.HANDLERS,
    **pk.HANDLERS,
    **audiences.HANDLERS,
    **sanctions.HANDLERS,
    **schedules.HANDLERS,
    **products.HANDLERS,
    **polls.HANDLERS,
    **rtc.HANDLERS,
    **presence.HANDLERS,
    **cards.HANDLERS,
    **reviews.HANDLERS,
    **audit.HANDLERS,
    **dictionaries.HANDLERS,
}
RECALLED: dict[str, Recall] = {**rooms.RECALLED, **messages.RECALLED}
KEY_S = 600.0
CALL_S = 30.0
"""Longest wait of a call, for a disk that does not answer."""
MAX_KEYS = 20_000
MAX_CALLERS = 20_000
"""Callers whose rate is known, for each operation."""


AT_ONCE_RETRY_MS = 100
"""When to call again where too many calls of one caller wait."""
ERASED_RETRY_MS = 1000
_OF_ERASED = frozenset({"users.erase", "users.revoke", "users.disconnect"})
"""Operations that may name a user who is being erased."""


class CallAnswer(NamedTuple):
    """Result of a call. Any: the result record of its row."""

    result: Any
    is_replayed: bool = False
    """Whether it is the repeated answer to an idempotency key."""
    packed: bytes = b""
    """The result as msgpack, where the caller gave a bound for it."""


class _KeyedCall(NamedTuple):
    """The call that had a key first. ``result`` None: it is under way, ``done`` is set when it is not."""

    fingerprint: bytes
    at: float
    result: Any
    done: trio.Event


Route = Callable[[Caller, OperationRow, Any, int], Coroutine[Any, Any, CallAnswer] | None]


class Operations:
    """All operations of one broker. Counters ``called`` and ``refused`` (by error code) only grow."""

    def __init__(self, parts: Parts) -> None:
        self._limits: dict[str, Gcra] = {}
        self._answers: OrderedDict[tuple[str, str, str], _KeyedCall] = OrderedDict()
        self._waiting: dict[tuple[str, str], int] = {}
        """Calls of each caller that wait now, for rows with a bound on them."""
        self.parts = parts
        self.called = 0
        self.refused: dict[int, int] = {}
        self.failed = 0
        """Calls whose handler had a defect."""
        self.audit = AuditLog(parts)
        self.route: Route | None = None
        """Returns what brings the answer from another node, None = this one answers; None: there are no others."""

    async def call(self, caller: Caller, row: OperationRow, arguments: Any) -> tuple[Any, bool]:
        """Answer one call: the result, and whether it is the repeated answer to an idempotency key.

        ``arguments``: the request as an array or object, unchecked (Any). OperationError where it is refused.
        """
        found = self.begin(caller, row, arguments)
        if isinstance(found, Deferred):
            answer = await self._wait_for(found)
        else:
            answer = found if isinstance(found, CallAnswer) else await found
        return answer.result, answer.is_replayed

    def begin(
        self, caller: Caller, row: OperationRow, arguments: Any, max_bytes: int = 0, *, is_charged: bool = False
    ) -> CallAnswer | Coroutine[Any, Any, CallAnswer] | Deferred:
        """Answer one call at once, or return what waits for its answer, which must be awaited.

        ``max_bytes``: most bytes of the packed result, 0 = any number; a page has fewer items then than asked for.
        ``is_charged``: the node that has forwarded it has counted it.
        OperationError where the call is refused; awaiting raises it too. A `Deferred` brings a `CallAnswer` or the
        OperationError.
        """
        self.called += 1
        try:
            if self.route is not None and (elsewhere := self.route(caller, row, arguments, max_bytes)) is not None:
                return elsewhere
            request = self._judge(caller, row, arguments, is_charged=is_charged)
            if not is_charged:
                self.charge(caller, row)
            if caller.dry_run and row.changes:
                return CallAnswer(row.example[1])
            if caller.key and row.key is not KeyUse.NONE and not row.keeps_keys:
                return self._once(caller, row, request, max_bytes)
            found = self._start(caller, row, request)
            if type(found) is Deferred:
                return self._defer(caller, row, found, max_bytes)
            if type(found) is not CoroutineType:
                answer = self._answer(caller, row, found, max_bytes)
                if answer is not None:
                    return answer
            return self._finish(caller, row, request, found, max_bytes)
        except OperationError as error:
            self._count(error)
            raise
        except Exception:
            self._report(caller, row)
            raise

    def left(self, caller: Caller, row: OperationRow) -> tuple[int, float]:
        """Return how many calls of an operation a caller has left, and the seconds until it has a whole burst."""
        rate = row.rate_of(caller.is_backend)
        limit = self._limits.get(_limit_name(row, rate))
        return (rate.burst, 0.0) if limit is None else limit.left(caller.account, self.parts.clock())

    @property
    def limiter_full(self) -> int:
        """Calls refused because a table of callers was full."""
        return sum(limit.full_refusals for limit in self._limits.values())

    def _count(self, error: OperationError) -> None:
        self.refused[error.code] = self.refused.get(error.code, 0) + 1

    def _defer(self, caller: Caller, row: OperationRow, found: Deferred, max_bytes: int) -> Deferred:
        """Return what brings the answer of a call whose handler has returned ``found``."""
        made = Deferred()

        def on_result(result: Any) -> None:
            if isinstance(result, OperationError):
                self._count(result)
                made.set(result)
            else:
                made.set(self._answer(caller, row, result, max_bytes) or _too_large(max_bytes))

        found.then(on_result)
        return made

    @staticmethod
    async def _wait_for(found: Deferred) -> CallAnswer:
        with trio.move_on_after(CALL_S):
            answer: CallAnswer = await found.wait()
            return answer
        raise _too_late()

    async def _finish(self, caller: Caller, row: OperationRow, request: Any, found: Any, max_bytes: int) -> CallAnswer:
        """Return the answer of a started call; shorter pages are read until one fits ``max_bytes``."""
        try:
            while True:
                result = await found if type(found) is CoroutineType else found
                answer = self._answer(caller, row, result, max_bytes)
                if answer is not None:
                    return answer
                request = _shorter(row, request, result, max_bytes)
                found = self._start(caller, row, request)
        except OperationError as error:
            self._count(error)
            raise
        except Exception:
            self._report(caller, row)
            raise

    def _answer(
        self, caller: Caller, row: OperationRow, result: Any, max_bytes: int, *, is_replayed: bool = False
    ) -> CallAnswer | None:
        """Return the answer with this result; None where it is above ``max_bytes``."""
        if caller.tenant:
            result = renamed(row.read_result, result, plain_name)
        if not max_bytes:
            return CallAnswer(result, is_replayed)
        packed = pack_body(result)
        return CallAnswer(result, is_replayed, packed) if len(packed) <= max_bytes else None

    def _judge(self, caller: Caller, row: OperationRow, arguments: Any, *, is_charged: bool) -> Any:
        """Return the request; OperationError where the caller may not make it."""
        request = read_request(caller, row, arguments)
        if caller.tenant:
            self.charge_tenant(caller, is_charged=is_charged)
        check_rights(caller, row, request)
        hub = self.parts.hub
        check_sanctions(hub.sanctions, caller, row, request, hub.trusted.continued_ms())
        if self.parts.revocations.refused_users and row.changes:
            self._check_users(caller, row, request)
        return request

    def charge(self, caller: Caller, row: OperationRow) -> None:
        """Count a call of an operation that has its own rate; OperationError RATE_LIMITED above it."""
        rate = row.rate_of(caller.is_backend)
        self._charge(_limit_name(row, rate), rate, caller.account, "too many calls")
        if row.address_rate is not None and not caller.is_backend:
            self._charge(f"{row.name} address", row.address_rate, caller.address, "too many calls of this address")

    def _check_users(self, caller: Caller, row: OperationRow, request: Any) -> None:
        """Refuse what a user changes who is being erased, or what names it: nothing new of it may come meanwhile."""
        named = users_in(request) if row.name not in _OF_ERASED else set()
        if not caller.is_backend:
            named.add(caller.id)
        qualified = {user if SEPARATOR in user else qualify(caller.tenant, user) for user in named}
        if not qualified.isdisjoint(self.parts.revocations.refused_users):
            raise OperationError(ErrorCode.LOCKED, "is being erased", "user", ERASED_RETRY_MS)

    def _charge(self, name: str, rate: RateLimit, caller: str, rule: str) -> None:
        """Count a call; OperationError RATE_LIMITED above the rate."""
        limit = self._limits.get(name)
        if limit is None:
            limit = self._limits[name] = Gcra(Rate(*rate), MAX_CALLERS)
        wait_s = limit.try_acquire(caller, self.parts.clock())
        if wait_s:
            raise OperationError(ErrorCode.RATE_LIMITED, rule, retry_after_ms=max(1, round(wait_s * 1000)))

    def charge_tenant(self, caller: Caller, *, is_charged: bool = False) -> None:
        """Count a call of a tenant; OperationError where that is not configured, or RATE_LIMITED above its quota.

        ``is_charged``: see `begin`.
        """
        use = self.parts.hub.tenants.find(caller.tenant)
        if use is None:
            raise OperationError(ErrorCode.NOT_ALLOWED, "the tenant of this key is not configured", "tenant")
        wait_s = 0.0 if is_charged else use.call_wait_s(self.parts.clock())
        if wait_s:
            retry_after_ms = max(1, round(wait_s * 1000))
            raise OperationError(ErrorCode.RATE_LIMITED, "quota of the tenant: calls", "", retry_after_ms)

    def _start(self, caller: Caller, row: OperationRow, request: Any) -> Any:
        """Run a handler, with an entry of the audit where it needs one: its result, or what returns or brings it."""
        if self.audit.covers(caller, row, request):
            return self._audited(
                caller, row, request, self.audit.state(row, request), self._begun(caller, row, request)
            )
        return self._run(caller, row, request)

    def _begun(self, caller: Caller, row: OperationRow, request: Any) -> Any:
        """Run a handler as `_run`, now, so that calls begin in the order in which they came; return what it raises."""
        try:
            return self._run(caller, row, request)
        except Exception as error:  # `_audited` writes it and raises it
            return error

    async def _audited(self, caller: Caller, row: OperationRow, request: Any, before: Any, found: Any) -> Any:
        """Write what a handler has done, or its refusal; ``before``: the state then, ``found``: result of `_begun`."""
        outcome, result = ErrorCode.INTERNAL_ERROR.name, None
        try:
            if isinstance(found, Exception):
                raise found
            if type(found) is Deferred:
                with trio.move_on_after(CALL_S):
                    found = await found.wait()
                if type(found) is Deferred:
                    raise _too_late()
            result = await found if type(found) is CoroutineType else found
            outcome = OK
        except OperationError as error:
            outcome = error.code.name
            raise
        finally:
            with trio.CancelScope(shield=True):  # `AuditLog.write` has a deadline of its own
                await self.audit.write(caller, row, request, outcome, before, result)
        return result

    def _run(self, caller: Caller, row: OperationRow, request: Any) -> Any:
        """Run a handler: its result, or what returns or brings it."""
        if row.at_once and self._waiting.get((caller.account, row.name), 0) >= row.at_once:
            rule = f"at most {row.at_once} calls of it at a time"
            raise OperationError(ErrorCode.RATE_LIMITED, rule, "operation", AT_ONCE_RETRY_MS)
        found = HANDLERS[row.name](self.parts, caller, request)
        if type(found) is not CoroutineType:
            return found
        if row.at_once:
            waiting = caller.account, row.name
            self._waiting[waiting] = self._waiting.get(waiting, 0) + 1
        return self._wait(caller, row, found)

    async def _wait(self, caller: Caller, row: OperationRow, handler: Coroutine[Any, Any, Any]) -> Any:
        try:
            with trio.move_on_after(CALL_S):
                return await handler
            raise _too_late()
        finally:
            if row.at_once:
                waiting = caller.account, row.name
                self._waiting[waiting] -= 1
                if not self._waiting[waiting]:
                    del self._waiting[waiting]

    def _report(self, caller: Caller, row: OperationRow) -> None:
        self.failed += 1
        log.exception("operation failed", operation=row.name, caller=caller.id)

    def _once(
        self, caller: Caller, row: OperationRow, request: Any, max_bytes: int
    ) -> CallAnswer | Coroutine[Any, Any, CallAnswer]:
        """Run a call whose key is new; wait for, or return, the answer of one whose key is known."""
        name = caller.account, row.name, caller.key
        fingerprint = hashlib.sha256(pack_body(tuple(request))).digest()[:8]
        known = self._known(name)
        if known is not None:
            if known.fingerprint != fingerprint:
                raise OperationError(ErrorCode.KEY_REUSED, "was used before with other content", "key")
            if known.result is not None:
                return self._keyed_answer(caller, row, known.result, max_bytes, is_replayed=True)
            return self._after(known, caller, row, request, max_bytes)
        caller = replace(caller, operation=row.name, fingerprint=fingerprint)
        first = self._answers[name] = _KeyedCall(fingerprint, self.parts.clock(), None, trio.Event())
        if self.parts.ledger is not None and row.name in KEPT:
            kept = self._once_over_restarts(self.parts.ledger, caller, row, request)
            return self._complete(caller, name, first, row, kept, max_bytes)
        try:
            found = self._start(caller, row, request)
        except BaseException:
            self._forget(name, first)
            raise
        if type(found) is CoroutineType:
            return self._complete(caller, name, first, row, _as_first(found), max_bytes)
        return self._store(caller, name, first, row, found, max_bytes)

    async def _once_over_restarts(
        self, ledger: Ledger, caller: Caller, row: OperationRow, request: Any
    ) -> tuple[Any, bool]:
        """Return the answer that the ledger has, or else run the call and keep its answer; and whether it had one."""
        stored = None
        with trio.move_on_after(CALL_S) as reading:
            stored = await find_answer(ledger, caller, row)
        if reading.cancelled_caught:
            raise OperationError(ErrorCode.OVERLOADED, "the ledger cannot be read now", "", 1000)
        if stored is not None:
            if stored.result is not None:
                return stored.result, True
            if row.name in RECALLED:
                return RECALLED[row.name](self.parts, request.room, stored.offset), True
            raise OperationError(ErrorCode.KEY_REUSED, "was used before, and the answer is not kept", "key")
        found = self._start(caller, row, request)
        result = await found if type(found) is CoroutineType else found
        with trio.move_on_after(CALL_S):
            await keep_answer(ledger, caller, row, result, self.parts.unix_ms())
        return result, False

    async def _after(
        self, known: _KeyedCall, caller: Caller, row: OperationRow, request: Any, max_bytes: int
    ) -> CallAnswer:
        """Wait for the call that had the key first; run this one if that one failed."""
        await known.done.wait()
        try:
            answer = self._once(caller, row, request, max_bytes)
        except OperationError as error:
            self._count(error)
            raise
        return answer if isinstance(answer, CallAnswer) else await answer

    async def _complete(
        self,
        caller: Caller,
        name: tuple[str, str, str],
        first: _KeyedCall,
        row: OperationRow,
        waiting: Coroutine[Any, Any, tuple[Any, bool]],
        max_bytes: int,
    ) -> CallAnswer:
        """Return the answer of a call that waits: for its result, and whether it is one of an earlier run."""
        try:
            result, is_replayed = await waiting
        except BaseException as error:
            self._forget(name, first)
            if isinstance(error, OperationError):
                self._count(error)
            elif isinstance(error, Exception):
                self._report(caller, row)
            raise
        return self._store(caller, name, first, row, result, max_bytes, is_replayed=is_replayed)

    def _store(
        self,
        caller: Caller,
        name: tuple[str, str, str],
        first: _KeyedCall,
        row: OperationRow,
        result: Any,
        max_bytes: int,
        *,
        is_replayed: bool = False,
    ) -> CallAnswer:
        self._answers[name] = first._replace(result=result)
        first.done.set()
        if len(self._answers) > MAX_KEYS:
            self._answers.popitem(last=False)
        return self._keyed_answer(caller, row, result, max_bytes, is_replayed=is_replayed)

    def _forget(self, name: tuple[str, str, str], first: _KeyedCall) -> None:
        self._answers.pop(name, None)
        first.done.set()

    def _keyed_answer(
        self, caller: Caller, row: OperationRow, result: Any, max_bytes: int, *, is_replayed: bool = False
    ) -> CallAnswer:
        answer = self._answer(caller, row, result, max_bytes, is_replayed=is_replayed)
        if answer is None:
            raise _too_large(max_bytes)
        return answer

    def _known(self, name: tuple[str, str, str]) -> _KeyedCall | None:
        oldest_at = self.parts.clock() - KEY_S
        while self._answers and next(iter(self._answers.values())).at < oldest_at:
            self._answers.popitem(last=False)
        return self._answers.get(name)


async def _as_first(waiting: Coroutine[Any, Any, Any]) -> tuple[Any, bool]:
    """Return the result of a handler, which is no repeated one."""
    return await waiting, False


def _shorter(row: OperationRow, request: Any, result: Any, max_bytes: int) -> Any:
    """Return a request for fewer items, whose page may fit; OperationError where it asks for one, or for no page."""
    limit = getattr(request, "limit", 1)
    if row.changes or limit <= 1:
        raise _too_large(max_bytes)
    items = max(1, min(limit, len(result.items)))
    return request._replace(limit=max(1, min(items - 1, items * max_bytes * 7 // (8 * len(pack_body(result))))))


def _too_late() -> OperationError:
    return OperationError(ErrorCode.OVERLOADED, "no answer in time; ask again with the same key", "", 1000)


def _limit_name(row: OperationRow, rate: RateLimit) -> str:
    """Return under which name the calls of an operation with a rate are counted."""
    return row.name if rate is row.rate else f"{row.name} backend"


def _too_large(max_bytes: int) -> OperationError:
    return OperationError(ErrorCode.PAYLOAD_TOO_LARGE, f"the result is above {max_bytes} bytes", "result")
