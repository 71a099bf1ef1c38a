"""``roomcast serve`` as an operator meets it: one line when it serves, a drain at SIGTERM, and clear words."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import click
import pytest
import trio

from broker.auth.tokens import Authenticator
from broker.cli.client import connected_client
from broker.config.schema import AuthConfig
from protocol.clients import ClientClosed, Disconnected, open_client
from protocol.codes import CloseCode, Outcome
from tests.support.processes import roomcast, running, serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def test_one_json_line_says_where_it_serves_and_who_it_is() -> None:
    async with serving() as broker:
        announced = broker.announced
        assert announced == {"event": "serving", "pid": broker.process.pid, "addresses": [["127.0.0.1", broker.port]]}
        assert broker.port > 0
        assert "development mode" in await broker.err.until("development")
        async with open_client(broker.url) as client:
            await client.join("lobby")
        broker.signal(signal.SIGTERM)
        assert await broker.wait() == 0
        with pytest.raises(EOFError):
            await broker.out.next()


async def test_sigterm_sends_everybody_away_with_a_spread_return_and_exits_with_0() -> None:
    async with serving("--set", "link.drain_s=2") as broker:
        await _wait_for_goodbye(f"ws://127.0.0.1:{broker.port}/", broker.process.pid)
        assert await broker.wait(10) == 0


async def _wait_for_goodbye(url: str, pid: int) -> None:
    async with open_client(url, "dev:anna") as client:
        events = client.events()
        room = await client.join("lobby")
        assert (await room.post_danmaku("hello")).outcome is not None
        os.kill(pid, signal.SIGTERM)
        with trio.fail_after(30):
            async for event in events:
                if isinstance(event, Disconnected):
                    assert event.code == CloseCode.GOING_AWAY
                    assert event.retry_in_s is not None
                    assert 0 <= event.retry_in_s <= 2.0
                    return


async def test_a_second_sigterm_does_not_wait_for_a_peer_that_stays() -> None:
    async with serving("--set", "link.drain_s=600") as broker:
        with socket.create_connection(("127.0.0.1", broker.port)) as silent:
            silent.sendall(b"\0")
            await trio.sleep(0.2)
            broker.signal(signal.SIGTERM)
            await broker.err.until("draining")
            with trio.move_on_after(0.5):
                await broker.process.wait()
            broker.signal(signal.SIGTERM)
            assert await broker.wait(10) == 0


async def test_a_port_in_use_is_said_in_one_line() -> None:
    async with serving() as broker:
        second = await roomcast("serve", "--ephemeral", "--port", str(broker.port))
        assert second.status == 1
        assert second.out == ""
        assert second.err.splitlines()[-1].startswith(f"Error: 127.0.0.1:{broker.port} is in use; ")
        assert "Traceback" not in second.err


async def test_another_address_demands_a_secret() -> None:
    done = await roomcast("serve", "--host", "0.0.0.0", "--port", "0")
    assert done.status == 1
    assert "is not loopback: set auth.secret" in done.err


async def test_with_a_secret_it_serves_without_the_notice_and_takes_tokens_only() -> None:
    secret = "0123456789abcdef0123456789abcdef"
    async with serving(ROOMCAST_AUTH__SECRET=secret) as broker:
        made = await roomcast("token", "--user", "anna", ROOMCAST_AUTH__SECRET=secret)
        said = await roomcast("say", "lobby", "hi", "--url", broker.url, ROOMCAST_TOKEN=made.out)
        assert (said.status, said.out) == (0, "shown\n")
        for token, words in (
            ("dev:anna:king", "there is no role king; there are guest, viewer"),
            ("dev:anna", "is not in development mode and wants a token"),
            ("nonsense", "does not take this token"),
            (None, "admits no guests and needs a token"),
        ):
            with pytest.raises(click.ClickException, match=words):
                async with connected_client(broker.url, token):
                    pass
        broker.signal(signal.SIGTERM)
        await broker.wait(30)
        with pytest.raises(EOFError):
            await broker.err.until("development")


async def test_a_log_without_a_reader_does_not_stop_the_broker() -> None:
    async with serving("--log-level", "debug", "--set", "admission.accept_per_s=100000") as broker:

        async def connect_often() -> None:
            """Each connection is two or three lines of the log; a pipe holds some hundreds."""
            for _ in range(150):
                async with await trio.open_tcp_stream("127.0.0.1", broker.port) as stream:
                    await stream.send_all(b"\0\0\0\x10\1\0\0\x0b\0\0\0\0\0\0\0\0")
                    await stream.receive_some()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(connect_often)
        broker.signal(signal.SIGTERM)
        assert await broker.wait(20) == 0


async def test_sighup_reloads_what_can_be_reloaded_and_never_ends_the_broker(tmp_path: Path) -> None:
    file = tmp_path / "roomcast.toml"
    secrets = ["a" * 32, "b" * 32]

    def write(secret: str, more: str = "") -> None:
        file.write_text(f'[auth]\nsecret = "{secret}"\n[ledger]\nephemeral = true\n{more}')

    def token(secret: str) -> str:
        return Authenticator(AuthConfig(secret=secret)).issue("ann")

    async def is_refused(url: str, secret: str) -> bool:
        try:
            async with open_client(url, token(secret)) as client:
                await client.join("lobby")
        except ClientClosed:
            return True
        return False

    write(secrets[0])
    async with serving("--config", str(file)) as broker, open_client(broker.url, token(secrets[0])) as stays:
        room = await stays.join("lobby")
        write(secrets[1], "[link]\nheartbeat_s = 20.0\n")
        broker.signal(signal.SIGHUP)
        assert "auth.secret" in await broker.err.until("configuration reloaded")
        assert "link.heartbeat_s" in await broker.err.until("need a restart")
        assert await is_refused(broker.url, secrets[0])
        assert not await is_refused(broker.url, secrets[1])
        assert (await room.post_danmaku("still here")).outcome is Outcome.ACCEPTED
        for wrong in ("[auth]\nsecret = 5\n", "not TOML", "[ledger]\nephemeral = true\n"):
            file.write_text(wrong)
            broker.signal(signal.SIGHUP)
            await broker.err.until("configuration not reloaded")
        assert not await is_refused(broker.url, secrets[1])
        broker.signal(signal.SIGTERM)
        assert await broker.wait() == 0


async def test_sighup_before_the_broker_serves_does_not_end_it(tmp_path: Path) -> None:
    """The broker waits for its configuration, which is a pipe."""
    pipe = tmp_path / "roomcast.toml"
    os.mkfifo(pipe)
    async with running("serve", "--port", "0", "--config", str(pipe)) as broker:
        with await trio.to_thread.run_sync(pipe.open, "wb", abandon_on_cancel=True) as configuration:
            broker.signal(signal.SIGHUP)
            configuration.write(b"[ledger]\nephemeral = true\n")
        assert json.loads(await broker.out.next())["addresses"]
        broker.signal(signal.SIGTERM)
        assert await broker.wait() == 0


async def test_the_operation_reload_does_what_sighup_does(tmp_path: Path) -> None:
    file = tmp_path / "roomcast.toml"
    head = '[ledger]\nephemeral = true\n[listen]\nport = 0\n[api]\nlisten = "127.0.0.1:0"\n'
    file.write_text(head)
    async with serving("--config", str(file)) as broker:
        url = broker.announced["api"][0]
        file.write_text(head + '[log]\nlevel = "debug"\n')
        done = await roomcast("call", "broker.reload", "--url", url)
        assert (done.status, json.loads(done.out)["changed"]) == (0, ["log.level"])
        async with open_client(broker.url, "dev:ann"):
            pass
        assert "debug" in await broker.err.until("link closed")
        for wrong in ("not TOML", head + "[log]\nlevel = 5\n"):
            file.write_text(wrong)
            done = await roomcast("call", "broker.reload", "--url", url)
            assert (done.status, "OUT_OF_STATE (409)" in done.err) == (1, True), done.err


@pytest.mark.parametrize("content", ["not TOML", "[[key]]\nid = 5\n", None])
async def test_a_key_file_that_cannot_be_used_ends_the_start_with_one_line(tmp_path: Path, content: str | None) -> None:
    keys = tmp_path / "keys.toml"
    if content is not None:
        keys.write_text(content)
        keys.chmod(0o600)
    done = await roomcast(
        "serve", "--port", "0", "--ephemeral", "--set", "api.listen=127.0.0.1:0", "--set", f"api.key_file={keys}"
    )
    assert done.status == 1
    assert done.err.strip().splitlines()[-1].startswith("Error: ")
    assert "keys.toml" in done.err
    assert "Traceback" not in done.err
