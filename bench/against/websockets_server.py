"""A minimal room on the ``websockets`` library: ``websockets.broadcast`` sends each publication to all viewers.

As its documentation recommends for speed: no compression, no keepalive pings, one process.
"""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.load.child import emit, set_alarm
from bench.load.sockets import raise_descriptors


async def _main() -> None:
    viewers: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path.startswith("/pub"):
            async for message in connection:
                broadcast(viewers, message)
            return
        viewers.add(connection)
        try:
            await connection.wait_closed()
        finally:
            viewers.discard(connection)

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096) as server:
        emit("serving", port=server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def main() -> None:
    """``python -m bench.against.websockets_server LIFETIME_S``."""
    set_alarm(float(sys.argv[1]))
    raise_descriptors()
    asyncio.run(_main())


if __name__ == "__main__":
    main()
