"""Memory of one idle viewer in the broker process: the slope of resident memory between two sizes of a room.

Every viewer has authenticated with a token of its own and joined the same room. The floor is a bare connected socket
object in a dict and an epoll, measured in a process of its own. Neither includes memory of the kernel.
"""

from __future__ import annotations

import gc
import json
import select
import subprocess
import sys

from bench.load.sockets import pairs, raise_descriptors
from bench.micro.harness import client_process, config, quiesce, rss_bytes, serving
from bench.micro.result import Result
from broker.auth.tokens import Authenticator

__all__ = ["SECRET", "memory_tcp", "memory_ws", "tokens"]

SECRET = "only-a-bench-uses-this-secret-0123456789"


def tokens(count: int, first: int = 0) -> list[str]:
    """Return signed tokens of ``count`` different users."""
    issuer = Authenticator(config(SECRET).auth)
    return [issuer.issue(f"user-{number:07}", f"Viewer {number}") for number in range(first, first + count)]


async def memory_tcp(smoke: bool) -> list[Result]:
    """Measure idle viewers on native links."""
    return [await _memory("memory-tcp", False, 1331, smoke)]


async def memory_ws(smoke: bool) -> list[Result]:
    """Measure idle viewers on WebSockets."""
    return [await _memory("memory-ws", True, 1434, smoke)]


async def _memory(name: str, websocket: bool, goal: float, smoke: bool) -> Result:
    few, more = (100, 300) if smoke else (2000, 8000)
    shown = tokens(few + more)
    floor = _bare_socket_bytes(few, more)
    async with serving(config(SECRET)) as broker, client_process() as clients:
        port = broker.addresses[0][1]
        await clients.request("open", links=few, port=port, rooms=["stage"], websocket=websocket, tokens=shown[:few])
        await quiesce(0.5 if smoke else 3.0)
        before = rss_bytes()
        for start in range(few, few + more, 1000):
            chunk = shown[start : start + min(1000, few + more - start)]
            await clients.request(
                "open", links=len(chunk), port=port, rooms=["stage"], websocket=websocket, tokens=chunk
            )
        await quiesce(0.5 if smoke else 3.0)
        each = (rss_bytes() - before) / more
        assert len(broker.poller) == few + more
    detail = {"viewers": few + more, "slope_over": more}
    return Result(
        name, "memory of an idle viewer in the broker", each, "B", goal, True, floor, "bare socket", "value", detail
    )


def _bare_socket_bytes(few: int, more: int) -> float:
    command = [sys.executable, "-m", "bench.micro.memory", str(few // 2), str(more // 2)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=True)
    return float(json.loads(done.stdout))


def _bare(few: int, more: int) -> None:
    raise_descriptors()
    epoll = select.epoll()
    kept = {}
    before = 0
    for count in (few, more):
        gc.collect()
        before = rss_bytes()
        for sock in (sock for side in pairs(count) for sock in side):
            kept[sock.fileno()] = sock
            epoll.register(sock.fileno(), select.EPOLLIN)
    gc.collect()
    print(json.dumps((rss_bytes() - before) / (2 * more)))


if __name__ == "__main__":
    _bare(int(sys.argv[1]), int(sys.argv[2]))
