"""A supervisor and its processes: ports shared, replaced in turn, started again, none left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.processes import Serving, free_port, roomcast, supervised

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def get(serving: Serving, path: str) -> tuple[int, str]:
    """Return status and body of a GET of the supervisor's listener."""
    port = int(serving.announced["status"][0].rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        with trio.fail_after(60):
            while data := await stream.receive_some():
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def ready(serving: Serving) -> dict[str, Any]:
    _, body = await get(serving, "/readyz")
    fields: dict[str, Any] = json.loads(body)
    return fields


async def ask_until(ask: Callable[[], Any], is_so: Callable[[Any], object]) -> Any:
    """Ask a process again and again: it has no event to wait for."""
    with trio.fail_after(60):
        while True:
            answer = await ask()
            if is_so(answer):
                return answer
            await trio.sleep(0.05)


async def pids(serving: Serving, count: int) -> list[int]:
    """Return the processes of the next ``count`` lines that say that one serves."""
    return [json.loads(await serving.err.until('"process serves"'))["pid"] for _ in range(count)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_processes_share_the_ports_and_their_state_is_on_one_page() -> None:
    async with supervised(3, "api.listen=127.0.0.1:0") as serving, AsyncExitStack() as connections:
        fields = await ready(serving)
        assert (fields["status"], fields["ready"], fields["processes"]) == ("ok", 3, 3)
        assert set(fields["nodes"]) == {"host-1", "host-2", "host-3"}
        for _ in range(60):
            await connections.enter_async_context(await trio.open_tcp_stream("127.0.0.1", serving.port))

        async def spread() -> list[float]:
            _, page = await get(serving, "/metrics")
            assert page.count("# TYPE roomcast_connections gauge") == 1
            lines = [line for line in page.splitlines() if line.startswith('roomcast_connections{node="')]
            return [float(line.rpartition(" ")[2]) for line in lines]

        counts = await ask_until(spread, lambda found: sum(found) >= 60)
        assert len(counts) == 3
        assert all(counts)
        await connections.aclose()
        serving.signal(signal.SIGTERM)
        assert await serving.wait() == 0


async def test_a_rolling_restart_refuses_no_connection() -> None:
    async with supervised(2) as serving:
        before = await pids(serving, 2)
        refused: list[OSError] = []
        connected = 0

        async def connect_always() -> None:
            nonlocal connected
            while True:
                try:
                    async with await trio.open_tcp_stream("127.0.0.1", serving.port) as stream:
                        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        while await stream.receive_some():
                            pass
                    connected += 1
                except (OSError, trio.BrokenResourceError) as error:
                    refused.append(OSError(str(error)))
                await trio.sleep(0.002)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect_always)
            serving.signal(signal.SIGHUP)
            after = await pids(serving, 2)
            await serving.err.until("rolling restart done")
            nursery.cancel_scope.cancel()
        assert not set(before) & set(after)
        assert not any(is_running(pid) for pid in before)
        assert connected > 0
        assert refused == []


async def test_a_process_that_is_killed_is_started_again_and_the_others_serve_meanwhile() -> None:
    async with supervised(2) as serving:
        victim, other = await pids(serving, 2)
        os.kill(victim, signal.SIGKILL)
        await serving.err.until('"process has ended"')
        for _ in range(20):  # no connection waits in the queue of the dead one
            async with await trio.open_tcp_stream("127.0.0.1", serving.port):
                pass
        assert is_running(other)
        [heir] = await pids(serving, 1)
        assert heir not in (victim, other)
        fields = await ask_until(lambda: ready(serving), lambda found: found["status"] == "ok")
        assert fields["ready"] == 2
        _, page = await get(serving, "/metrics")
        assert sum(float(line.split()[-1]) for line in page.splitlines() if "node_restarts_total{" in line) == 1


async def test_none_outlives_a_supervisor_that_is_killed() -> None:
    async with supervised(2) as serving:
        children = await pids(serving, 2)
        serving.signal(signal.SIGKILL)
        await serving.wait()

        async def running() -> list[int]:
            return [pid for pid in children if is_running(pid)]

        assert await ask_until(running, lambda found: not found) == []


async def test_a_configuration_that_became_wrong_replaces_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 32)
    secret.chmod(0o600)
    async with supervised(2, f"auth.secret_file={secret}") as serving:
        children = await pids(serving, 2)
        secret.unlink()
        serving.signal(signal.SIGHUP)
        assert "secret" in await serving.err.until("no rolling restart")
        assert all(is_running(pid) for pid in children)
        assert (await ready(serving))["ready"] == 2


async def test_a_port_of_another_process_is_refused_and_not_shared() -> None:
    async with supervised(2) as serving:
        with pytest.raises(EOFError):
            async with supervised(2, f"listen.port={serving.port}"):
                pass


async def test_several_processes_without_an_engine_are_refused_with_what_to_do() -> None:
    port = free_port()
    done = await roomcast("serve", "--processes", "3", "--port", str(port), "--ephemeral")
    assert (done.status, done.out) == (1, "")
    assert "engine.url" in done.err
    assert "apt install redis-server" in done.err
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


async def test_a_wrong_configuration_starts_nothing() -> None:
    done = await roomcast("serve", "--processes", "2", "--host", "0.0.0.0")
    assert done.status == 1
    assert "listen.host" in done.err
