"""Handlers of the operations on the broker itself."""

from __future__ import annotations

import importlib.metadata
from typing import Any
from urllib.parse import urlsplit

import structlog
import trio

from broker.auth.ticket_keys import MAX_KEYS
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import AGAIN_MS, required
from broker.operations.parts import Handler, Parts
from protocol.codes import ErrorCode
from protocol.operations import EDITION
from protocol.operations.brokers import (
    ApiKeyList,
    ApiKeyView,
    BrokerStatus,
    ConnectionList,
    ConnectionView,
    Counters,
    DrainBroker,
    Draining,
    EffectiveConfig,
    GetConfig,
    GetStats,
    GetStatus,
    ListApiKeys,
    ListConnections,
    ReloadConfig,
    Reloaded,
    RotatedKeys,
    RotateKeys,
)

__all__ = ["HANDLERS"]

log = structlog.get_logger("roomcast.operations")

SLICE = 5000
"""Connections that are read between two checkpoints of the event loop."""


def _status(parts: Parts, caller: Caller, request: GetStatus) -> BrokerStatus:
    ready, fields = parts.control.status()
    reason = str(fields.get("ledger_reason") or fields.get("clock") or "")
    return BrokerStatus(
        ready, str(fields["status"]), importlib.metadata.version("roomcast"), EDITION, parts.control.uptime_ms(),
        parts.control.connections(), len(parts.hub), reason[:512],
    )  # fmt: skip


def _stats(parts: Parts, caller: Caller, request: GetStats) -> Counters:
    return Counters(parts.control.counters())


async def _reload(parts: Parts, caller: Caller, request: ReloadConfig) -> Reloaded:
    try:
        changed, needs_restart = await parts.control.reload()
    except (OSError, ValueError) as error:
        raise OperationError(ErrorCode.OUT_OF_STATE, f"the configuration was not reloaded: {error}"[:256]) from error
    return Reloaded(tuple(changed), tuple(needs_restart))


def _drain(parts: Parts, caller: Caller, request: DrainBroker) -> Draining:
    connections = parts.control.connections()
    parts.control.drain()
    return Draining(connections)


def _config(parts: Parts, caller: Caller, request: GetConfig) -> EffectiveConfig:
    return EffectiveConfig({name: _shown(value) for name, value in sorted(parts.control.settings().items())})


def _shown(value: Any) -> Any:
    """Return a setting without what may be secret: the path of a URL, and who logs in there. Any: TOML values."""
    if isinstance(value, str) and "://" in value:
        parsed = urlsplit(value)
        return f"{parsed.scheme}://{parsed.netloc.rpartition('@')[2]}"
    if isinstance(value, list):
        return tuple(map(_shown, value))
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}
    return value


async def _connections(parts: Parts, caller: Caller, request: ListConnections) -> ConnectionList:
    items: list[ConnectionView] = []
    total = 0
    now, now_ms = parts.clock(), parts.unix_ms()
    for count, session in enumerate(reversed(parts.control.sessions()), 1):
        transport = session.transport
        if request.address is None or transport.address == request.address:
            total += 1
            if len(items) < request.limit:
                grant = session.grant
                items.append(
                    ConnectionView(
                        "" if grant is None else grant.plain_id, "" if grant is None else grant.tenant,
                        transport.address, transport.framing.name.lower(), session.agent,
                        now_ms - round(max(0.0, now - session.opened_at) * 1000), len(session.memberships),
                    )
                )  # fmt: skip
        if count % SLICE == 0:
            await trio.lowlevel.checkpoint()
    return ConnectionList(tuple(items), total)


def _api_keys(parts: Parts, caller: Caller, request: ListApiKeys) -> ApiKeyList:
    keys = parts.control.api_keys()
    if keys is None:
        return ApiKeyList((), False)
    items = (
        ApiKeyView(
            key.id, tuple(sorted(scope.value for scope in key.scopes)), key.rooms, key.tenant, key.note, key.expires_at,
            bool(key.secret),
        )
        for _, key in sorted(keys.keys.items())
    )  # fmt: skip
    return ApiKeyList(tuple(items), True)


async def _rotate_keys(parts: Parts, caller: Caller, request: RotateKeys) -> RotatedKeys:
    required(parts.ledger)
    file = parts.control.ticket_keys()
    if file is None:
        raise OperationError(ErrorCode.OUT_OF_STATE, "this broker issues no tickets", "kind")
    try:
        rotated = await file.rotate(parts.unix_ms())
    except OSError as error:
        log.warning("the key for tickets cannot be written", why=str(error))
        raise OperationError(ErrorCode.OVERLOADED, "the key cannot be written now", "", AGAIN_MS) from None
    if isinstance(rotated, int):
        rule = f"there are {MAX_KEYS} valid keys; one more when the tickets of the oldest have ended"
        raise OperationError(ErrorCode.RATE_LIMITED, rule, "kind", rotated)
    return RotatedKeys(request.kind, rotated.keys[1].ends_at_ms or 0, len(rotated.keys))


HANDLERS: dict[str, Handler] = {
    "broker.status": _status,
    "broker.stats": _stats,
    "broker.reload": _reload,
    "broker.drain": _drain,
    "broker.config": _config,
    "broker.connections": _connections,
    "broker.rotate_keys": _rotate_keys,
    "broker.api_keys": _api_keys,
}
