"""Tokens, callers and links of several tenants on one broker."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.operations.caller import Caller
from broker.server import Broker
from protocol.codes import Role
from protocol.operations import Scope
from tests.support.broker import RawLink, raw_link
from tests.support.tokens import HS256, SECRET, sign

ALL_SCOPES = frozenset(Scope)


def token(tenant: str, user: str, role: str = "viewer", room: str = "*", secret: str = SECRET) -> str:
    """Return a token of a user of a tenant, for rooms that fit ``room``; "" = the default tenant."""
    claims = {
        "sub": user, "aud": "roomcast", "exp": int(time.time()) + 3600, "role": role, "rooms": [{"pattern": room}],
    }  # fmt: skip
    return sign(HS256, claims | ({"tenant": tenant} if tenant else {}), secret)


def backend(tenant: str, key: str = "", id: str = "shop") -> Caller:
    """Return a backend of a tenant with all rights."""
    return Caller(
        id, id, "127.0.0.1", lambda room: Role.APP, frozenset({Role.APP}), ALL_SCOPES, key, tenant=tenant
    )  # fmt: skip


@asynccontextmanager
async def tenant_link(broker: Broker, tenant: str, user: str, role: str = "viewer") -> AsyncIterator[RawLink]:
    """Open a link and log in."""
    async with raw_link(broker) as link:
        await link.login(token(tenant, user, role))
        yield link
