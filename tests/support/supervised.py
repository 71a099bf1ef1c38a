"""A supervisor over brokers that share nothing, as a process: what it does to processes needs no engine.

``python -m tests.support.supervised COUNT [--status-listen HOST:PORT] KEY=VALUE...`` prints the addresses as ``roomcast
serve`` does.
"""

from __future__ import annotations

import json
import os
import sys

import trio

from broker.cli.supervisor import Supervisor, SupervisorFailed, serve_signals
from broker.config.schema import load
from broker.telemetry.logs import configure


async def _main(count: int, settings: list[str]) -> None:
    overrides = dict(setting.split("=", 1) for setting in settings)
    config = load(None, os.environ, overrides)
    configure(config.log)
    sets = [part for setting in settings for part in ("--set", setting)]
    supervisor = Supervisor(
        config,
        count,
        [sys.executable, "-m", "broker.cli", "serve", *sets],
        read_config=lambda: load(None, os.environ, overrides),
        status_listen="127.0.0.1:0",
        name="host",
    )

    def started() -> None:
        urls = {"api": supervisor.api_urls, "status": supervisor.status_urls}
        print(json.dumps({"addresses": supervisor.addresses, **urls}), flush=True)

    await serve_signals(supervisor, started)


if __name__ == "__main__":
    try:
        trio.run(_main, int(sys.argv[1]), sys.argv[2:])
    except* SupervisorFailed as group:
        sys.exit(str(group.exceptions[0]))
