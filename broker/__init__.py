"""The roomcast broker. Public names: `Broker`, `Config`, `OperationError`, `Stats`, `roomcast_broker`.

They are imported when they are first used, so that importing one module of the package does not import all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.config.schema import Config
    from broker.operations.caller import OperationError
    from broker.server import Broker, roomcast_broker
    from broker.telemetry.metrics import Stats

__all__ = ["Broker", "Config", "OperationError", "Stats", "roomcast_broker"]


def __getattr__(name: str) -> Any:  # Any: a class
    if name in ("Broker", "roomcast_broker"):
        import broker.server as module
    elif name == "Stats":
        import broker.telemetry.metrics as module  # type: ignore[no-redef]
    elif name == "Config":
        import broker.config.schema as module  # type: ignore[no-redef]
    elif name == "OperationError":
        import broker.operations.caller as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
