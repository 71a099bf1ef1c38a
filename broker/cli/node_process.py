"""The control link between a supervisor and the process of a node.

The process says once that it serves, then answers each line, a number, with that number, its readiness and metrics. The
link ends with the supervisor, however that ends: then the process drains, so that none outlives its supervisor.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

__all__ = ["STATUS_TIMEOUT_S", "NodeLink", "follow_supervisor"]

log = structlog.get_logger("roomcast.node")

STATUS_TIMEOUT_S = 3.0
_MAX_ANSWER = 16 * 1024 * 1024


async def follow_supervisor(
    control: socket.socket,
    serving: dict[str, Any],
    status: Callable[[], Awaitable[dict[str, Any]]],
    on_end: Callable[[], object],
) -> None:
    """Answer the supervisor until it has gone; then call ``on_end``. Any: values of JSON.

    :param serving: what is said first: addresses of the viewers' and the control API's listeners.
    :param status: readiness and metrics now.
    """
    async with trio.SocketStream(trio.socket.from_stdlib_socket(control)) as stream:
        try:
            await stream.send_all(json.dumps(serving).encode() + b"\n")
            rest = b""
            while asked := await stream.receive_some():
                *numbers, rest = (rest + asked).split(b"\n")
                for number in numbers:
                    answer = {"number": int(number), **await status()}
                    await stream.send_all(json.dumps(answer).encode() + b"\n")
        except trio.BrokenResourceError:
            pass
    log.warning("the supervisor has gone")
    on_end()


class NodeLink:
    """The supervisor's end. ``serving``: what the process has said, None = it does not serve yet."""

    def __init__(self, control: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(control))
        self._rest = b""
        self._asked = 0
        self._turn = trio.Lock()
        self.serving: dict[str, Any] | None = None
        """Any: values of JSON."""

    async def wait_serving(self) -> bool:
        """Wait until the process serves; False: it has ended before."""
        line = await self._line()
        self.serving = None if line is None else json.loads(line)
        return self.serving is not None

    async def status(self) -> dict[str, Any] | None:
        """Return readiness and metrics of the process. None: it does not answer in `STATUS_TIMEOUT_S`, or has ended.

        Any: values of JSON.
        """
        with trio.move_on_after(STATUS_TIMEOUT_S):
            async with self._turn:
                self._asked += 1
                try:
                    await self._stream.send_all(b"%d\n" % self._asked)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return None
                while (line := await self._line()) is not None:
                    answer: dict[str, Any] = json.loads(line)
                    if answer["number"] == self._asked:  # others were given up
                        return answer
        return None

    def close(self) -> None:
        """Close the link: a process that still runs drains."""
        self._stream.socket.close()

    async def _line(self) -> bytes | None:
        while b"\n" not in self._rest:
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data or len(self._rest) > _MAX_ANSWER:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line
