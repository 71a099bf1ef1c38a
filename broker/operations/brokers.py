"""Handlers of the operations on the broker itself."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
import trio

from broker.auth.api_key_file import add_key, made_key, remove_key
from broker.auth.api_keys import KeyFileError, KeyKnownError, keys_of
from broker.auth.ticket_keys import MAX_KEYS
from broker.ledger import RecordPut
from broker.ledger.verification import ChainCheck
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import AGAIN_MS, ask, keep, required
from broker.operations.parts import Handler, Parts
from protocol.codes import ErrorCode
from protocol.frames import pack_body
from protocol.operations import EDITION, Scope
from protocol.operations.brokers import (
    ApiKeyList,
    ApiKeyView,
    BrokerStatus,
    ConnectionList,
    ConnectionView,
    Counters,
    CreateApiKey,
    CreatedApiKey,
    DrainBroker,
    Draining,
    EffectiveConfig,
    GetConfig,
    GetStats,
    GetStatus,
    ListApiKeys,
    ListConnections,
    ListTenants,
    ReloadConfig,
    Reloaded,
    RevokeApiKey,
    RevokedApiKey,
    RotatedKeys,
    RotateKeys,
    TenantList,
    TenantView,
    VerifiedChain,
    VerifyChain,
)
from protocol.text import is_tenant

__all__ = ["API_KEYS_CHANGED", "HANDLERS", "MAX_TENANTS_LISTED"]

log = structlog.get_logger("roomcast.operations")

API_KEYS_CHANGED = "api_keys.changed"
"""Kind of the record that lets other nodes read the file of API keys again."""
SLICE = 5000
"""Connections that are read between two checkpoints of the event loop."""
MAX_TENANTS_LISTED = 2000
"""Those that are configured, and as many that are ending."""


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
    settings = {name: _shown(value) for name, value in sorted(parts.control.settings().items())}
    return EffectiveConfig(settings, {name: each for name, each in parts.control.origins().items() if name in settings})


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


async def _create_api_key(parts: Parts, caller: Caller, request: CreateApiKey) -> CreatedApiKey:
    unknown = set(request.scopes) - {scope.value for scope in Scope}
    if unknown or not request.scopes:
        known = ", ".join(sorted(scope.value for scope in Scope))
        raise OperationError(ErrorCode.BAD_FIELD, f"must be some of {known}", "scopes")
    if not request.rooms:
        raise OperationError(ErrorCode.BAD_FIELD, "must have a pattern", "rooms")
    if request.of_tenant and not is_tenant(request.of_tenant):
        raise OperationError(ErrorCode.BAD_FIELD, "must be 1 to 32 of a-z, 0-9, _ and -", "of_tenant")
    if not request.note.isprintable():
        raise OperationError(ErrorCode.BAD_FIELD, "must be printable", "note")
    if request.expires_at_s and request.expires_at_s * 1000 <= parts.unix_ms():
        raise OperationError(ErrorCode.BAD_FIELD, "must be in the future, or 0", "expires_at_s")
    path = _key_file(parts, caller)
    try:
        key, shown = made_key(
            request.id, frozenset(map(Scope, request.scopes)), request.rooms, request.of_tenant, request.note,
            request.expires_at_s, request.signs,
        )  # fmt: skip
    except KeyFileError:
        rule = "must be 1 to 32 lower-case letters, digits and -, the first no -"
        raise OperationError(ErrorCode.BAD_FIELD, rule, "id") from None
    with _key_file_errors(parts):
        await trio.to_thread.run_sync(add_key, path, key)
        parts.control.read_api_keys()
    await _share(parts, key.id)
    return CreatedApiKey(key.id, shown)


async def _revoke_api_key(parts: Parts, caller: Caller, request: RevokeApiKey) -> RevokedApiKey:
    path = _key_file(parts, caller)
    if request.id == caller.id:
        raise OperationError(ErrorCode.OUT_OF_STATE, "is the key of this call: revoke it with another one", "id")
    if request.id not in keys_of(parts.control.api_keys()):
        raise OperationError(ErrorCode.BAD_FIELD, "names no key that is known", "id")
    with _key_file_errors(parts):
        await trio.to_thread.run_sync(remove_key, path, request.id)
        parts.control.read_api_keys()
    await _share(parts, request.id)
    return RevokedApiKey(request.id)


async def _share(parts: Parts, id: str) -> None:
    """Let the other nodes read the key file again."""
    if parts.others.log is not None and parts.ledger is not None:
        await keep(parts.ledger, (RecordPut(API_KEYS_CHANGED, "", id, parts.unix_ms(), pack_body(())),))
        await parts.others.follow()


def _key_file(parts: Parts, caller: Caller) -> Path:
    """Return the key file for a caller that may change it: one for some rooms would give itself the others."""
    if not caller.in_all_rooms:
        raise OperationError(ErrorCode.NOT_ALLOWED, "is for keys of all rooms", "operation")
    path = parts.control.key_file()
    if path is None:
        raise OperationError(ErrorCode.OUT_OF_STATE, "this broker needs no keys: api.key_file is not set", "operation")
    return path


@contextmanager
def _key_file_errors(parts: Parts) -> Iterator[None]:
    """Refuse a call whose change of the key file fails; the log has the path, which callers do not see."""
    try:
        yield
    except KeyKnownError:
        raise OperationError(ErrorCode.OUT_OF_STATE, "is the id of another key", "id") from None
    except (OSError, ValueError) as error:
        log.warning("the key file cannot be changed", why=str(error))
        raise OperationError(ErrorCode.OVERLOADED, "the key file cannot be changed now", "", AGAIN_MS) from None


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


async def _verify_chain(parts: Parts, caller: Caller, request: VerifyChain) -> VerifiedChain:
    ledger = required(parts.ledger)
    check = ChainCheck(request.entries)
    while not await ask(ledger, check.step):
        pass
    if check.problem:
        log.error("the hash chain of the ledger does not hold", why=check.problem)
    return VerifiedChain(
        not check.problem, check.problem[:256], check.checked, check.last, check.hash.hex(), check.is_whole
    )


def _tenants(parts: Parts, caller: Caller, request: ListTenants) -> TenantList:
    return TenantList(
        tuple(
            TenantView(
                name, use.connections, use.quotas.connections, use.rooms, use.quotas.rooms, use.messages,
                use.quotas.messages_per_s, use.calls, use.quotas.calls_per_s, use.refused.total(), use.is_configured,
            )
            for name, use in parts.hub.tenants.by_name()[:MAX_TENANTS_LISTED]
        )
    )  # fmt: skip


HANDLERS: dict[str, Handler] = {
    "broker.status": _status,
    "broker.stats": _stats,
    "broker.reload": _reload,
    "broker.drain": _drain,
    "broker.config": _config,
    "broker.connections": _connections,
    "broker.rotate_keys": _rotate_keys,
    "broker.api_keys": _api_keys,
    "broker.create_api_key": _create_api_key,
    "broker.revoke_api_key": _revoke_api_key,
    "broker.verify_chain": _verify_chain,
    "broker.tenants": _tenants,
}
