"""The listener of the control API: anycorn behind one function, so that it can be replaced.

The lifespan protocol is answered here: an application that is cancelled in the middle of it would take the broker with
it. A socket file is removed before it is bound and after the end.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from anycorn import serve as anycorn_serve
from anycorn.config import Config
from starlette.applications import Starlette

__all__ = ["serve_api"]

KEEP_ALIVE_S = 15.0
READ_TIMEOUT_S = 30
STOP_S = 1.0
"""How long open requests may take once the broker has ended its other work."""
MAX_HEAD_BYTES = 16 * 1024
SOCKET_UMASK = 0o117
"""Rights of a socket file: 0660."""


async def serve_api(
    app: Starlette,
    listen: str,
    stop: Callable[[], Any],  # Any: an awaitable of trio
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` on ``listen`` (HOST:PORT or unix:PATH) until ``stop`` returns; reports the URLs it is bound to.

    OSError if the address cannot be bound.
    """
    config = Config()
    config.bind = [listen]
    config.umask = SOCKET_UMASK
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.read_timeout = READ_TIMEOUT_S
    config.graceful_timeout = STOP_S
    config.h11_max_incomplete_size = MAX_HEAD_BYTES
    config.alpn_protocols = ["http/1.1"]
    config.accesslog = None
    config.errorlog = logging.getLogger("roomcast.api.server")
    path = Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None
    _remove(path)
    try:
        await anycorn_serve(_without_lifespan(app), config, shutdown_trigger=stop, task_status=task_status)  # type: ignore[arg-type]
    finally:
        _remove(path)


def _without_lifespan(app: Starlette) -> Any:
    """Answer the lifespan protocol, and pass only requests on. Any: ASGI."""

    async def answering(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    await send({"type": "lifespan.startup.complete"})
                else:
                    await send({"type": "lifespan.shutdown.complete"})
                    return
        if scope["type"] == "http":
            await app(scope, receive, send)

    return answering


def _remove(path: Path | None) -> None:
    if path is not None and path.is_socket():
        os.unlink(path)
