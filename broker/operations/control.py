"""What operations may ask of the composition root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from broker.config.files import user_path
from broker.config.schema import Config, changed_settings, settings_of
from broker.operations.parts import BrokerControl
from broker.telemetry.metrics import counters_of

__all__ = ["control_of"]


# Any: the composition root is above this module.
def control_of(broker: Any) -> BrokerControl:
    """Return what operations may ask of a broker."""

    def origins() -> dict[str, str]:
        if broker.origins is None:  # a program has made the configuration
            return dict.fromkeys(changed_settings(Config(), broker.config), "program")
        return dict(broker.origins)

    def key_file() -> Path | None:
        return None if broker.api_keys is None else user_path(broker.config.api.key_file)

    return BrokerControl(
        status=broker.status,
        counters=lambda: counters_of(broker),
        reload=broker.reload_files,
        drain=broker.begin_drain,
        connections=lambda: len(broker.context.sessions),
        sessions=lambda: list(broker.context.sessions),
        settings=lambda: settings_of(broker.config),
        origins=origins,
        uptime_ms=lambda: round((trio.current_time() - broker.started_at) * 1000),
        api_keys=lambda: broker.api_keys,
        key_file=key_file,
        read_api_keys=broker.read_api_keys,
        ticket_keys=lambda: broker.ticket_keys if broker.context.auth.gives_tickets else None,
    )
