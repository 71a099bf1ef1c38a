"""Operations on the broker itself: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from ..codes import ErrorCode
from ..fields import (
    any_value,
    array_of,
    boolean,
    hex_digest,
    integer,
    map_of,
    name_of,
    optional,
    record,
    room_pattern,
    text,
)
from .rows import MAX_PAGE, NEEDS_LEDGER, PLATFORM, KeyUse, OperationRow, RateLimit, Scope, page_size, row

__all__ = [
    "ROWS",
    "ApiKeyList",
    "ApiKeyView",
    "BrokerStatus",
    "ConnectionList",
    "ConnectionView",
    "Counters",
    "CreateApiKey",
    "CreatedApiKey",
    "DrainBroker",
    "Draining",
    "EffectiveConfig",
    "GetConfig",
    "GetStats",
    "GetStatus",
    "KeyKind",
    "ListApiKeys",
    "ListConnections",
    "ListTenants",
    "ReloadConfig",
    "Reloaded",
    "RevokeApiKey",
    "RevokedApiKey",
    "RotateKeys",
    "RotatedKeys",
    "TenantList",
    "TenantView",
    "VerifiedChain",
    "VerifyChain",
]


class GetStatus(NamedTuple):
    """Ask whether the broker is ready."""


class BrokerStatus(NamedTuple):
    """Readiness, as ``/readyz`` says it. ``edition``: of the table of operations; ``reason``: why it is not ready."""

    ready: bool
    status: str
    version: str
    edition: int
    uptime_ms: int
    connections: int
    rooms: int
    reason: str = ""


class GetStats(NamedTuple):
    """Ask for all counters."""


class Counters(NamedTuple):
    """Counters by metric name, labels in braces, as in ``/metrics``; rounded to integers."""

    counters: dict[str, int]


class ReloadConfig(NamedTuple):
    """Read the configuration again, as SIGHUP does."""


class Reloaded(NamedTuple):
    """Settings that changed and hold now, and those that need a restart."""

    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]


class DrainBroker(NamedTuple):
    """Shut down in order: clients are sent away over ``link.drain_s``."""


class Draining(NamedTuple):
    """The broker drains. ``connections``: how many are open."""

    connections: int


class GetConfig(NamedTuple):
    """Ask for the settings in force."""


class EffectiveConfig(NamedTuple):
    """Settings in force by dotted name, without secrets; of a URL only scheme and host. ``origins``: where those that
    are not the default came from when the configuration was read last: "file", "flag", the name of a variable of the
    environment, or "program"."""

    settings: dict[str, Any]
    origins: dict[str, str]


class ListConnections(NamedTuple):
    """Ask for open connections, the newest first. ``address``: only those of this client address."""

    address: str | None = None
    limit: int = 100


class ConnectionView(NamedTuple):
    """One open connection. ``user``: "" before it has logged in; ``rooms``: how many it is in."""

    user: str
    tenant: str
    address: str
    transport: str
    agent: str
    since_ms: int
    rooms: int


class ConnectionList(NamedTuple):
    """Open connections. ``total``: how many there are, also beyond the limit."""

    items: tuple[ConnectionView, ...]
    total: int


class ListApiKeys(NamedTuple):
    """Ask for the keys of the control API that the broker has read."""


class ApiKeyView(NamedTuple):
    """One key without its secret. ``expires_at_s``: Unix seconds, 0 = never; ``signs``: its requests are signed."""

    id: str
    scopes: tuple[str, ...]
    rooms: tuple[str, ...]
    tenant: str
    note: str
    expires_at_s: int
    signs: bool


class ApiKeyList(NamedTuple):
    """Keys of the control API, by id. ``required``: false in development mode, where none is needed."""

    items: tuple[ApiKeyView, ...]
    required: bool


class CreateApiKey(NamedTuple):
    """Make a key of the control API. ``rooms``: patterns; ``expires_at_s``: Unix seconds, 0 = never; ``signs``: a
    secret for HTTP Message Signatures in place of a Bearer key."""

    id: str
    scopes: tuple[str, ...]
    rooms: tuple[str, ...] = ("*",)
    of_tenant: str = ""
    note: str = ""
    expires_at_s: int = 0
    signs: bool = False


class CreatedApiKey(NamedTuple):
    """A key that holds now. ``key``: its text, which is said this once."""

    id: str
    key: str


class RevokeApiKey(NamedTuple):
    """End a key of the control API at once, its streams too."""

    id: str


class RevokedApiKey(NamedTuple):
    """A key that is no more."""

    id: str


class KeyKind(IntEnum):
    """Keys that the broker makes itself."""

    TICKETS = 0


class RotateKeys(NamedTuple):
    """Make a new key of a kind; the one before is valid until everything that it has signed has ended."""

    kind: KeyKind


class RotatedKeys(NamedTuple):
    """The new key signs. ``previous_until_ms``: Unix time until which the one before is valid; ``valid``: how many
    keys are, the new one included."""

    kind: KeyKind
    previous_until_ms: int
    valid: int


class VerifyChain(NamedTuple):
    """Check the hash chain of the ledger. ``entries``: how many of the last ones."""

    entries: int = 100_000


class VerifiedChain(NamedTuple):
    """What a check of the chain has found. ``holds``: every entry is what was written and follows the one before;
    ``problem``: the first that does not, "" = none. ``entries``: how many were checked, up to number ``last``, whose
    hash is ``hash``, in hex: kept elsewhere, it is an anchor for ``roomcast audit verify``. ``is_whole``: that is all
    that the ledger keeps."""

    holds: bool
    problem: str
    entries: int
    last: int
    hash: str
    is_whole: bool


class ListTenants(NamedTuple):
    """Ask for all tenants but the default one, with what they use and may use."""


class TenantView(NamedTuple):
    """One tenant. ``connections`` that are logged in and ``rooms`` that are open now; ``messages``, ``calls`` and
    ``refused`` (all that was above a quota) since the broker has started; ``max_connections``, ``max_rooms``,
    ``messages_per_s``, ``calls_per_s``: its quotas, 0 = none. ``is_configured``: false for one that was removed and
    whose last connections and rooms are ending."""

    name: str
    connections: int
    max_connections: int
    rooms: int
    max_rooms: int
    messages: int
    messages_per_s: float
    calls: int
    calls_per_s: float
    refused: int
    is_configured: bool


class TenantList(NamedTuple):
    """Tenants by name."""

    items: tuple[TenantView, ...]


_setting = array_of(text(1, 128), 1000)
_count = integer(0)
_status = record(BrokerStatus, (boolean, text(1, 32), text(1, 64), _count, _count, _count, _count, text(0, 512)))
_counters = record(Counters, (map_of(text(1, 256), integer(-(2**53) + 1), 10_000),))
_reloaded = record(Reloaded, (_setting, _setting))
_draining = record(Draining, (_count,))

_config = record(EffectiveConfig, (map_of(text(1, 256), any_value, 10_000), map_of(text(1, 256), text(1, 256), 10_000)))
_connection = record(
    ConnectionView, (text(0, 64), text(0, 64), text(0, 64), text(1, 16), text(0, 128), _count, _count)
)  # fmt: skip
_connections = record(ConnectionList, (array_of(_connection, MAX_PAGE), _count))
_api_key = record(
    ApiKeyView,
    (
        text(1, 64), array_of(text(1, 64), 100), array_of(text(1, 128), 1000), text(0, 64), text(0, 1024), _count,
        boolean,
    ),
)  # fmt: skip
_tenant = record(
    TenantView,
    (text(1, 32), _count, _count, _count, _count, _count, any_value, _count, any_value, _count, boolean),
)
_key_id = text(1, 32)
_OF_KEYS = (ErrorCode.OUT_OF_STATE, ErrorCode.OVERLOADED)
_api_keys = record(ApiKeyList, (array_of(_api_key, 10_000), boolean))

ROWS: tuple[OperationRow, ...] = (
    row(
        60, "broker.status", GetStatus, (), BrokerStatus, _status, "Return whether the broker is ready.",
        scope=Scope.ADMIN, roles=PLATFORM, changes=False,
        example=(GetStatus(), BrokerStatus(True, "ok", "0.1.0", 1, 1000, 2, 1)),
    ),
    row(
        61, "broker.stats", GetStats, (), Counters, _counters, "Return all counters.",
        scope=Scope.ADMIN, rate=RateLimit(2, 10), changes=False,
        example=(GetStats(), Counters({"roomcast_connections": 2})),
    ),
    row(
        62, "broker.reload", ReloadConfig, (), Reloaded, _reloaded, "Read the configuration again.",
        scope=Scope.ADMIN, rate=RateLimit(1, 5), example=(ReloadConfig(), Reloaded(("log.level",), ())),
    ),
    row(
        63, "broker.drain", DrainBroker, (), Draining, _draining, "Shut the broker down in order.",
        scope=Scope.ADMIN, rate=RateLimit(1, 5), example=(DrainBroker(), Draining(2)),
    ),
    row(
        64, "broker.config", GetConfig, (), EffectiveConfig, _config, "Return the settings in force, without secrets.",
        scope=Scope.ADMIN, rate=RateLimit(2, 10), changes=False,
        example=(GetConfig(), EffectiveConfig({"listen.port": 7400}, {"listen.port": "file"})),
    ),
    row(
        65, "broker.connections", ListConnections, (optional(text(1, 64)), page_size), ConnectionList, _connections,
        "List open connections.",
        scope=Scope.ADMIN, rate=RateLimit(2, 10), changes=False,
        example=(
            ListConnections("203.0.113.7"),
            ConnectionList((ConnectionView("ann", "", "203.0.113.7", "websocket", "", 1_790_000_000_000, 1),), 1),
        ),
    ),
    row(
        66, "broker.rotate_keys", RotateKeys, (name_of(KeyKind),), RotatedKeys,
        record(RotatedKeys, (name_of(KeyKind), _count, _count)), "Make a new key for tickets.",
        scope=Scope.ADMIN, key=KeyUse.OPTIONAL, durable=True, rate=RateLimit(1, 5),
        errors=(ErrorCode.NOT_KEPT, ErrorCode.OUT_OF_STATE, ErrorCode.OVERLOADED),
        example=(RotateKeys(KeyKind.TICKETS), RotatedKeys(KeyKind.TICKETS, 1_790_000_600_000, 2)),
    ),
    row(
        581, "broker.api_keys", ListApiKeys, (), ApiKeyList, _api_keys,
        "List the keys of the control API, without their secrets.",
        scope=Scope.ADMIN, rate=RateLimit(2, 10), changes=False,
        example=(
            ListApiKeys(),
            ApiKeyList((ApiKeyView("k7q2m4x9", ("rooms:read",), ("live-*",), "", "shop", 0, False),), True),
        ),
    ),
    row(
        582, "broker.create_api_key", CreateApiKey,
        (
            _key_id, array_of(text(1, 64), 100), array_of(room_pattern, 64), text(0, 32), text(0, 128),
            integer(0, 2**40 - 1), boolean,
        ),
        CreatedApiKey, record(CreatedApiKey, (_key_id, text(1, 128))),
        "Make a key of the control API, in the key file; its text is returned this once.",
        scope=Scope.ADMIN, rate=RateLimit(1, 10), errors=_OF_KEYS,
        example=(
            CreateApiKey("orders", ("rooms:write", "messages:write"), ("live-*",), note="order service"),
            CreatedApiKey("orders", "rk_orders_" + "0" * 32),
        ),
    ),
    row(
        583, "broker.revoke_api_key", RevokeApiKey, (_key_id,), RevokedApiKey, record(RevokedApiKey, (_key_id,)),
        "Remove a key of the control API from the key file; its streams end.",
        scope=Scope.ADMIN, rate=RateLimit(1, 10), errors=_OF_KEYS,
        example=(RevokeApiKey("orders"), RevokedApiKey("orders")),
    ),
    row(
        584, "broker.verify_chain", VerifyChain, (integer(1, 1_000_000),), VerifiedChain,
        record(VerifiedChain, (boolean, text(0, 256), _count, _count, hex_digest, boolean)),
        "Check the hash chain of the ledger, in which the audit is.",
        scope=Scope.ADMIN, rate=RateLimit(0.2, 3), at_once=1, changes=False, errors=NEEDS_LEDGER,
        example=(VerifyChain(), VerifiedChain(True, "", 812, 812, "ab" * 32, True)),
    ),
    row(
        585, "broker.tenants", ListTenants, (), TenantList, record(TenantList, (array_of(_tenant, 2000),)),
        "List the tenants with what they use and may use.",
        scope=Scope.ADMIN, rate=RateLimit(2, 10), changes=False,
        example=(
            ListTenants(), TenantList((TenantView("acme", 120, 1000, 3, 10, 5400, 50.0, 88, 0.0, 2, True),)),
        ),
    ),
)  # fmt: skip
