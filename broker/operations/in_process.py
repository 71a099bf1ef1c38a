"""Calls of operations by the program that a broker runs in: as a backend with every scope, over no wire."""

from __future__ import annotations

from typing import Any

from broker.operations.caller import Caller, OperationError
from broker.operations.calls import Operations
from protocol.codes import ErrorCode, Role
from protocol.fields import RECORD_SCHEMAS
from protocol.operations import BY_NAME, Scope

__all__ = ["call_in_process"]

_SCOPES = frozenset(Scope)
_ROLES = frozenset({Role.APP})
CALLER_ID = "embedded"


async def call_in_process(
    operations: Operations, name: str, fields: dict[str, Any], *, idempotency_key: str, dry_run: bool, tenant: str
) -> Any:
    """Return the result record of one call (Any: each operation has its own). ValueError for what is no operation,
    OperationError where it is refused."""
    row = BY_NAME.get(name)
    if row is None:
        raise ValueError(f"{name!r} is no operation")
    known = RECORD_SCHEMAS[row.request.__name__]["properties"]
    for field in fields:
        if field not in known:
            raise OperationError(ErrorCode.BAD_FIELD, "is no field of this operation", field)
    caller = Caller(
        CALLER_ID, CALLER_ID, "", lambda room: Role.APP, _ROLES, _SCOPES, idempotency_key, dry_run, tenant
    )  # fmt: skip
    result, _ = await operations.call(caller, row, _plain(fields))
    return result


def _plain(value: Any) -> Any:
    """Return a value as the records' readers know it: arrays as tuples."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_plain(each) for each in value)
    return value
