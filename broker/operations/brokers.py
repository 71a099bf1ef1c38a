"""Handlers of the operations on the broker itself."""

from __future__ import annotations

import importlib.metadata

from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from protocol.codes import ErrorCode
from protocol.operations import EDITION
from protocol.operations.brokers import (
    BrokerStatus,
    Counters,
    DrainBroker,
    Draining,
    GetStats,
    GetStatus,
    ReloadConfig,
    Reloaded,
)

__all__ = ["HANDLERS"]


def _status(parts: Parts, caller: Caller, request: GetStatus) -> BrokerStatus:
    ready, fields = parts.control.status()
    reason = str(fields.get("ledger_reason") or fields.get("clock") or "")
    return BrokerStatus(
        ready, str(fields["status"]), importlib.metadata.version("roomcast"), EDITION, parts.control.uptime_ms(),
        parts.control.connections(), len(parts.hub), reason[:512],
    )  # fmt: skip


def _stats(parts: Parts, caller: Caller, request: GetStats) -> Counters:
    return Counters(parts.control.counters())


def _reload(parts: Parts, caller: Caller, request: ReloadConfig) -> Reloaded:
    try:
        changed, needs_restart = parts.control.reload()
    except (OSError, ValueError) as error:
        raise OperationError(ErrorCode.OUT_OF_STATE, f"the configuration was not reloaded: {error}"[:256]) from error
    return Reloaded(tuple(changed), tuple(needs_restart))


def _drain(parts: Parts, caller: Caller, request: DrainBroker) -> Draining:
    connections = parts.control.connections()
    parts.control.drain()
    return Draining(connections)


HANDLERS: dict[str, Handler] = {
    "broker.status": _status,
    "broker.stats": _stats,
    "broker.reload": _reload,
    "broker.drain": _drain,
}
