"""Operations called inside a broker, as a backend of a tenant with all rights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from broker.server import Broker
from protocol.json_values import as_json
from protocol.operations import BY_NAME, KeyUse
from tests.support.tenants import backend

__all__ = ["exported", "operate"]


async def operate(broker: Broker, operation: str, *request: Any, tenant: str = "", key: str = "") -> Any:
    """Call an operation with the fields of its request in order; return its result. ``key``: where it takes one."""
    row = BY_NAME[operation]
    caller = replace(backend(tenant), key=key if row.key is not KeyUse.NONE else "")
    result, _ = await broker.operations.call(caller, row, request)
    return result


async def exported(broker: Broker, user: str, limit: int = 100, *, tenant: str = "", max_bytes: int = 0) -> Any:
    """Return all items of an export, and how many pages there were."""
    row = BY_NAME["users.export"]
    items: list[Any] = []
    cursor, pages = None, 0
    while pages < 1000:
        begun = broker.operations.begin(backend(tenant), row, (user, limit, cursor), max_bytes)
        page: Any = (await begun).result  # type: ignore[misc]  # it reads the ledger
        assert len(page.items) <= limit
        row.read_result(json.loads(json.dumps(as_json(page))))
        items += as_json(page)["items"]
        cursor, pages = page.next, pages + 1
        if cursor is None:
            return items, pages
    pytest.fail("an export does not end")
