"""Steps of tests of conversations, presence and RTC calls: call as a user, wait for an event."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.codes import ErrorCode, Role
from protocol.messages import Direct
from protocol.operations import BY_NAME, KeyUse
from tests.support.broker import RawLink
from tests.support.operating import operate

__all__ = ["do", "event", "group", "refusal", "user"]


def user(name: str, tenant: str = "") -> Caller:
    roles = frozenset({Role.VIEWER})
    return Caller(name, name.title(), "127.0.0.1", lambda room: None, roles, tenant=tenant)


async def do(broker: Broker, caller: str | Caller, operation: str, key: str = "", **fields: Any) -> Any:
    """Call an operation as a user; return its result."""
    row = BY_NAME[operation if "." in operation else f"conversations.{operation}"]
    caller = user(caller) if isinstance(caller, str) else caller
    key = key or ("k" if row.key is KeyUse.REQUIRED else "")
    result, _ = await broker.operations.call(replace(caller, key=key), row, fields)
    return result


async def refusal(broker: Broker, caller: str | Caller, operation: str, **fields: Any) -> tuple[ErrorCode, str]:
    with pytest.raises(OperationError) as caught:
        await do(broker, caller, operation, **fields)
    return caught.value.code, caught.value.field


async def event(link: RawLink, verb: str = "message") -> tuple[int, dict[str, Any]]:
    """Return number and data of the next event of this name."""
    while True:
        _, direct = await link.expect(Direct)
        name, _, data = direct.payload[:3]
        if name == (verb if "." in verb else f"conversations.{verb}"):
            return direct.direct_id, data


async def group(broker: Broker, *users: str, id: str = "tea") -> str:
    await operate(broker, "conversations.create", id, "Tea", users)
    return id
