"""What users of comparable systems met around a broker's process: its streams, its terminal, its addresses."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from protocol.clients import open_client
from tests.support.processes import roomcast, serving
from tests.support.websocket import UPGRADE, status

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOMCAST = shutil.which("roomcast", path=os.path.dirname(sys.executable)) or "roomcast"


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", "2>&-"])
def test_it_serves_whatever_its_standard_streams_are(redirection: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = f"exec {shlex.quote(ROOMCAST)} serve --ephemeral --port {port} {redirection}"
    broker = subprocess.Popen(["sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        answer = _health("127.0.0.1", port)
    finally:
        broker.terminate()
        _, err = broker.communicate(timeout=30)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Traceback" not in err
    assert broker.returncode == 0
    if redirection != "2>&-":
        assert b"standard output" in err


def _health(host: str, port: int) -> bytes:
    """Answer of /healthz; tries again until the broker listens."""
    for _ in range(100):
        try:
            with socket.create_connection((host, port), timeout=5) as link:
                link.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                return link.recv(100)
        except ConnectionRefusedError:
            time.sleep(0.1)
    return b""


# click takes ASCII for a locale that is not configured, and writes UTF-8 there.
@pytest.mark.parametrize(("encoding", "shown"), [("gbk", "? first"), ("ascii", "\U0001f389 first")])
async def test_what_a_terminal_cannot_show_is_replaced(encoding: str, shown: str) -> None:
    async with serving() as broker:
        async with open_client(broker.url, "dev:ann") as client:
            room = await client.join("lobby")
            await room.post_danmaku("\U0001f389 first")
            await room.post_danmaku("second")
            seen = await roomcast("tail", "lobby", "--seconds", "2", "--url", broker.url, PYTHONIOENCODING=encoding)
    assert seen.status == 0
    assert shown in seen.out
    assert "Traceback" not in seen.err


async def test_both_families_are_served_on_the_address_for_all() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    secret = "0123456789abcdef0123456789abcdef"
    async with serving("--host", "::", ROOMCAST_AUTH__SECRET=secret) as broker:
        assert _health("::1", broker.port).startswith(b"HTTP/1.1 200")
        assert _health("127.0.0.1", broker.port).startswith(b"HTTP/1.1 200")


async def test_the_variables_of_a_service_of_kubernetes_do_not_stop_it() -> None:
    async with serving(ROOMCAST_SERVICE_HOST="10.0.0.7", ROOMCAST_PORT="tcp://10.0.0.7:7400") as broker:
        assert broker.port > 0


async def test_viewers_behind_a_web_proxy_have_limits_of_their_own() -> None:
    settings = ("listen.trusted_proxies=127.0.0.0/8", "admission.per_address=2", "auth.guest_access=*")
    flags = [part for setting in settings for part in ("--set", setting)]
    async with serving(*flags, ROOMCAST_AUTH__SECRET="0123456789abcdef0123456789abcdef") as broker:
        with ExitStack() as links:

            def answer(client: str) -> int:
                link = links.enter_context(socket.create_connection(("127.0.0.1", broker.port), timeout=5))
                link.sendall(UPGRADE[:-2] + f"X-Forwarded-For: {client}\r\n\r\n".encode())
                return status(link.recv(300))

            clients = ["203.0.113.1", "203.0.113.2", "192.0.2.9, 203.0.113.1", "2001:db8::1", "203.0.113.1"]
            assert [answer(client) for client in clients] == [101, 101, 101, 101, 503]


def test_with_too_few_descriptors_it_says_so_and_does_not_serve(tmp_path: Path) -> None:
    command = f"ulimit -n 200; exec {shlex.quote(ROOMCAST)} serve --ephemeral --port 0"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "200 file descriptors are too few, 320 are needed" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("locale", [{"LANG": "C", "PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX"}])
async def test_commands_and_log_lines_are_whole_where_streams_are_ascii(locale: dict[str, str]) -> None:
    async with serving(**locale) as broker:
        said = await roomcast("say", "房间", "好", "--as", "安娜", "--url", broker.url, **locale)
        assert (said.status, said.out) == (0, "shown\n")
        assert "房间" in await broker.err.until("room opened")
        for command in (["print-config"], ["check-config"], ["token", "--user", "安娜"], ["say", "好", "--as", "\n"]):
            done = await roomcast(*command, **locale)
            assert "Traceback" not in done.err
        verified = await roomcast("ledger", "verify", "--data-dir", "没有", **locale)
        assert verified.status == 1
        assert "there is no ledger" in verified.err
