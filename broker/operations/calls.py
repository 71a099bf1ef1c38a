"""One call of an operation, whatever face it came through: read, judged, limited, answered once.

The order of the checks: the request's fields, who may ask, the room, the rate, the idempotency key, then the handler.
Handlers get and return qualified names (`broker.core.tenants.names`), callers plain ones. A refusal is an
`OperationError` and has changed nothing. Handlers that wait for nothing answer at once.

Idempotency keys are kept for `KEY_S` seconds in memory, at most `MAX_KEYS`; what a handler makes durable under the key
(posts, direct messages) the ledger knows for longer and over restarts.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from functools import partial
from typing import Any, NamedTuple

import structlog
import trio

from broker.core.limits.rate_limit import Gcra, Rate
from broker.core.tenants.names import plain_name, qualify
from broker.operations import brokers, directs, hooks, keys, messages, rooms, users
from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from protocol.codes import ErrorCode
from protocol.fields import FieldError, renamed
from protocol.frames import pack_body
from protocol.operations import KeyUse, OperationRow, Scope

__all__ = ["HANDLERS", "Operations"]

log = structlog.get_logger("roomcast.operations")

HANDLERS: dict[str, Handler] = {
    **rooms.HANDLERS,
    **messages.HANDLERS,
    **users.HANDLERS,
    **brokers.HANDLERS,
    **directs.HANDLERS,
    **keys.HANDLERS,
    **hooks.HANDLERS,
}
KEY_S = 600.0
CALL_S = 30.0
"""Longest wait of a call, for a disk that does not answer."""
MAX_KEYS = 20_000
MAX_CALLERS = 20_000
"""Callers whose rate is known, for each operation."""


class _Answer(NamedTuple):
    """The call that had a key first. ``result`` None: it is under way, ``done`` is set when it is not."""

    fingerprint: bytes
    at: float
    result: Any
    done: trio.Event


class Operations:
    """All operations of one broker. Counters ``called`` and ``refused`` (by error code) only grow."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._limits: dict[str, Gcra] = {}
        self._answers: OrderedDict[tuple[str, str, str], _Answer] = OrderedDict()
        self.called = 0
        self.refused: dict[int, int] = {}
        self.failed = 0
        """Calls whose handler had a defect."""

    async def call(self, caller: Caller, row: OperationRow, arguments: Any) -> tuple[Any, bool]:
        """Answer one call: the result, and whether it is the repeated answer to an idempotency key.

        ``arguments``: the request as an array or object, unchecked (Any). OperationError where it is refused.
        """
        self.called += 1
        try:
            request = self._judge(caller, row, arguments)
            if caller.dry_run and row.changes:
                return row.example[1], False
            if caller.key and row.key is not KeyUse.NONE:
                result, is_replayed = await self._once(caller, row, request)
            else:
                result, is_replayed = await self._run(caller, row, request), False
            if caller.tenant:
                result = renamed(row.read_result, result, plain_name)
            return result, is_replayed
        except OperationError as error:
            self.refused[error.code] = self.refused.get(error.code, 0) + 1
            raise

    def left(self, caller: Caller, row: OperationRow) -> tuple[int, float]:
        """Return how many calls of an operation a caller has left, and the seconds until it has a whole burst."""
        limit = self._limits.get(row.name)
        return (row.rate.burst, 0.0) if limit is None else limit.left(caller.account, self._parts.clock())

    def _judge(self, caller: Caller, row: OperationRow, arguments: Any) -> Any:
        """Return the request; OperationError where the caller may not make it."""
        try:
            request = row.read(arguments)
        except FieldError as error:
            raise OperationError(error.code, error.rule, error.field) from None
        if caller.tenant:
            request = renamed(row.read, request, partial(qualify, caller.tenant))
        if caller.scopes is not None:
            if row.scope is None or not caller.scopes & {row.scope, Scope.ADMIN}:
                raise OperationError(ErrorCode.NOT_ALLOWED, "is not in the scopes of this key", "operation")
        elif not row.roles:
            raise OperationError(ErrorCode.NOT_ALLOWED, "is for backends", "operation")
        if caller.tenant and row.subject == "broker":
            raise OperationError(
                ErrorCode.NOT_ALLOWED, "is for keys of no tenant: it is about all of them", "operation"
            )
        if row.room:
            role = caller.role_in(request.room)
            if role is None:
                raise OperationError(ErrorCode.ROOM_NOT_GRANTED, "is not granted", "room")
            if not caller.is_backend and role not in row.roles:
                raise OperationError(ErrorCode.NOT_ALLOWED, "is not for your role in this room", "operation")
        elif not caller.is_backend and not caller.roles & row.roles:
            raise OperationError(ErrorCode.NOT_ALLOWED, "is not for your role", "operation")
        if row.key is KeyUse.REQUIRED and not caller.key:
            raise OperationError(ErrorCode.BAD_FIELD, "is required", "key")
        limit = self._limits.get(row.name)
        if limit is None:
            limit = self._limits[row.name] = Gcra(Rate(*row.rate), MAX_CALLERS)
        wait_s = limit.try_acquire(caller.account, self._parts.clock())
        if wait_s:
            retry_after_ms = max(1, round(wait_s * 1000))
            raise OperationError(ErrorCode.RATE_LIMITED, "too many calls", retry_after_ms=retry_after_ms)
        return request

    async def _run(self, caller: Caller, row: OperationRow, request: Any) -> Any:
        try:
            result = HANDLERS[row.name](self._parts, caller, request)
            if not inspect.isawaitable(result):
                return result
            with trio.move_on_after(CALL_S):
                return await result
            raise OperationError(ErrorCode.OVERLOADED, "no answer in time; ask again with the same key", "", 1000)
        except OperationError:
            raise
        except Exception:
            self.failed += 1
            log.exception("operation failed", operation=row.name, caller=caller.id)
            raise

    async def _once(self, caller: Caller, row: OperationRow, request: Any) -> tuple[Any, bool]:
        """Run a call whose key is new; wait for, or return, the answer of one whose key is known."""
        name = caller.account, row.name, caller.key
        fingerprint = hashlib.sha256(pack_body(tuple(request))).digest()[:8]
        while (known := self._known(name)) is not None:
            if known.fingerprint != fingerprint:
                raise OperationError(ErrorCode.KEY_REUSED, "was used before with other content", "key")
            if known.result is not None:
                return known.result, True
            await known.done.wait()
        answer = _Answer(fingerprint, self._parts.clock(), None, trio.Event())
        self._answers[name] = answer
        try:
            result = await self._run(caller, row, request)
        except BaseException:
            self._answers.pop(name, None)
            answer.done.set()
            raise
        self._answers[name] = answer._replace(result=result)
        answer.done.set()
        if len(self._answers) > MAX_KEYS:
            self._answers.popitem(last=False)
        return result, False

    def _known(self, name: tuple[str, str, str]) -> _Answer | None:
        oldest_at = self._parts.clock() - KEY_S
        while self._answers and next(iter(self._answers.values())).at < oldest_at:
            self._answers.popitem(last=False)
        return self._answers.get(name)
