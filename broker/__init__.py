"""The roomcast broker. Public names: `Broker`, `Config`, `Stats`.

They are imported when they are first used, so that importing one module of the package does not import all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.config.schema import Config
    from broker.server import Broker
    from broker.telemetry.metrics import Stats

__all__ = ["Broker", "Config", "Stats"]


def __getattr__(name: str) -> Any:  # Any: a class
    if name == "Broker":
        import broker.server as module
    elif name == "Stats":
        import broker.telemetry.metrics as module  # type: ignore[no-redef]
    elif name == "Config":
        import broker.config.schema as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
