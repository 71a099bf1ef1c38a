"""Calls of the control API of a running broker over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from broker.server import Broker

__all__ = ["API", "call", "client_of", "ok", "refused"]

API = {"listen": "127.0.0.1:0"}
"""Section ``[api]`` of a broker with a control API on a free port."""


@asynccontextmanager
async def client_of(broker: Broker) -> AsyncIterator[httpx.AsyncClient]:
    """Open an HTTP client of the broker's control API."""
    async with httpx.AsyncClient(base_url=broker.api_urls[0], trust_env=False) as client:
        yield client


async def call(client: httpx.AsyncClient, operation: str, /, key: str = "", **fields: Any) -> httpx.Response:
    """Call an operation with ``fields``; ``key``: its idempotency key."""
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post(f"/v1/{operation.replace('.', '/')}", json=fields, headers=headers)


async def ok(client: httpx.AsyncClient, operation: str, /, key: str = "", **fields: Any) -> Any:
    """Call an operation that must succeed; returns its result."""
    answer = await call(client, operation, key, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: httpx.AsyncClient, operation: str, /, **fields: Any) -> tuple[int, str, str]:
    """Call an operation that must fail; returns status, code and field."""
    answer = await call(client, operation, **fields)
    body = answer.json()
    return answer.status_code, body["code"], body.get("field", "")
