"""The backend's client against a real broker: over TCP and a socket file, with a key, and over an outage."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from broker.cli.call import call
from protocol import ApiError, AsyncBackend, Backend, NoAnswer
from protocol.codes import RoomPhase
from protocol.messages import Event
from tests.support.broker import joined_link, running_broker

pytestmark = pytest.mark.integration

EPHEMERAL = {"ephemeral": True}
KEY = "rk_shop_" + "a" * 32


async def test_a_message_of_the_backend_reaches_a_viewer_and_errors_are_typed() -> None:
    async with (
        running_broker(api={"listen": "127.0.0.1:0"}, ledger=EPHEMERAL) as broker,
        AsyncBackend(broker.api_urls[0]) as backend,
        joined_link(broker, "dev:ann", "live-1") as (link, _),
    ):
        assert (await backend.rooms.open(room="tried", dry_run=True)).room
        view = await backend.rooms.open(room="live-1")
        assert (view.room, view.phase) == ("live-1", RoomPhase.LIVE)
        await backend.messages.publish(room="live-1", type=4, payload=["欢迎"])
        assert (await link.expect(Event))[1].payload[0] == "欢迎"
        assert (await backend.rooms.set_phase(room="live-1", phase=RoomPhase.PAUSED)).phase is RoomPhase.PAUSED
        assert [each.room for each in (await backend.rooms.list()).items] == ["live-1"]
        assert (await backend.users.kick(room="live-1", user="ann")).links == 1
        with pytest.raises(ApiError) as refused:
            await backend.rooms.get(room="elsewhere")
        error = refused.value
        assert (error.code, error.status, error.field) == ("UNKNOWN_ROOM", 404, "room")
        assert error.request_id


async def test_the_synchronous_client_over_a_socket_file_with_a_key(tmp_path: Path) -> None:
    keys, socket = tmp_path / "keys.toml", tmp_path / "api.sock"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    keys.write_text(f'[[key]]\nid = "shop"\nsha256 = "{digest}"\nscopes = ["rooms:read", "rooms:write"]\n')
    keys.chmod(0o600)
    url = f"unix:{socket}"
    api = {"listen": url, "key_file": str(keys)}

    def program() -> None:
        with Backend(url, KEY) as backend:
            assert KEY not in repr(vars(backend))
            assert backend.rooms.open(room="tried", dry_run=True).room
            assert backend.rooms.open(room="live-1").room == "live-1"
            assert [each.room for each in backend.rooms.list().items] == ["live-1"]
            with pytest.raises(ApiError) as refused:
                backend.messages.publish(room="live-1", type=4, payload=["hi"])
            assert (refused.value.code, refused.value.status) == ("NOT_ALLOWED", 403)
        with Backend(url, "rk_shop_" + "b" * 32) as backend, pytest.raises(ApiError) as refused:
            backend.rooms.list()
        assert (refused.value.code, refused.value.status) == ("AUTH_FAILED", 401)

    async with running_broker(api=api, auth={"secret": "s" * 32}, ledger=EPHEMERAL):
        await trio.to_thread.run_sync(program)


async def test_a_key_for_signatures_signs_every_request_and_is_not_sent(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nid = "signer"\nhmac = "{"c" * 43}"\nscopes = ["rooms:read", "rooms:write"]\n')
    keys.chmod(0o600)
    (tmp_path / "key").write_text(f"signer:{'c' * 43}\n")
    api = {"listen": "127.0.0.1:0", "key_file": str(keys)}
    behind_s = 20

    def wall_ms() -> int:
        return time.time_ns() // 1_000_000 - 1000 * behind_s

    async with running_broker(api=api, auth={"secret": "s" * 32}, ledger=EPHEMERAL, wall_ms=wall_ms) as broker:
        behind_s = 0  # the broker has been up for 20 s: before that it refuses signatures for a while
        url = broker.api_urls[0]

        def program() -> None:
            with Backend(url, f"signer:{'c' * 43}") as backend:
                assert backend.rooms.open(room="live-1", dry_run=True).room
                assert backend.rooms.open(room="live-1").room == "live-1"
                assert [each.room for each in backend.rooms.list().items] == ["live-1"]
            with Backend(url, f"signer:{'d' * 43}") as backend, pytest.raises(ApiError) as refused:
                backend.rooms.list()
            assert (refused.value.code, refused.value.status) == ("AUTH_FAILED", 401)
            arguments = ["rooms.get", "room=live-1", "--url", url, "--key-file", str(tmp_path / "key")]
            called = CliRunner().invoke(call, arguments)
            assert called.exit_code == 0, called.output
            assert json.loads(called.output)["room"] == "live-1"

        await trio.to_thread.run_sync(program)
        async with AsyncBackend(url, f"signer:{'c' * 43}") as backend:
            assert (await backend.rooms.get(room="live-1")).room == "live-1"


async def test_a_call_waits_for_a_broker_that_starts_and_gives_up_in_time(tmp_path: Path) -> None:
    socket = tmp_path / "api.sock"
    async with AsyncBackend(f"unix:{socket}", timeout_s=20.0) as backend, trio.open_nursery() as nursery:
        rooms = []

        async def opened() -> None:
            rooms.append((await backend.rooms.open(room="live-1")).room)
            nursery.cancel_scope.cancel()

        nursery.start_soon(opened)
        await trio.sleep(0.1)
        assert rooms == []
        async with running_broker(api={"listen": f"unix:{socket}"}, ledger=EPHEMERAL):
            await trio.sleep_forever()
    assert rooms == ["live-1"]
    async with AsyncBackend(f"unix:{tmp_path / 'none'}", timeout_s=0.3) as backend:
        with pytest.raises(NoAnswer):
            await backend.rooms.list()


@pytest.mark.parametrize("key", ["", "rk_shop_secret\n", "rk_shop secret", "rk_店"])
def test_a_key_that_cannot_be_one_is_refused(key: str) -> None:
    for kind in (Backend, AsyncBackend):
        with pytest.raises(ValueError, match="the key is not printable ASCII"):
            kind("http://127.0.0.1:7401", key)


@pytest.mark.parametrize("url", ["127.0.0.1:7401", "ftp://127.0.0.1", "", "http://", "http://a:b", "http://a:99999"])
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    for kind in (Backend, AsyncBackend):
        with pytest.raises(ValueError, match="is not http://HOST:PORT"):
            kind(url)
