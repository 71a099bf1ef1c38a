"""Keys of the control API that are made and revoked by its operations: durable, shown once, of no tenant."""

from __future__ import annotations

import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from broker.auth.api_key_file import add_key, made_key, remove_key
from broker.auth.api_keys import ApiKey, KeyFileError, KeyKnownError, parse_keys
from broker.server import Broker
from protocol.operations import Scope
from tests.support.api import API, call, client_of, ok, refused
from tests.support.broker import running_broker
from tests.support.durable import durable_broker
from tests.support.tokens import SECRET

ADMIN = frozenset({Scope.ADMIN})


def admin_key(file: Path, id: str = "root", rooms: tuple[str, ...] = ("*",), tenant: str = "") -> str:
    key, text = made_key(id, ADMIN | {Scope.ROOMS_READ, Scope.MODERATION_READ}, rooms, tenant, "", 0, False)
    add_key(file, key)
    return text


def settings_of(file: Path) -> dict[str, Any]:
    return {"auth": {"secret": SECRET}, "api": {**API, "key_file": str(file)}}


@asynccontextmanager
async def client_with(broker: Broker, key: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(broker) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


@pytest.mark.integration
async def test_a_key_holds_at_once_and_after_a_restart_until_it_is_revoked(directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    root = admin_key(file)
    file.write_text("# of operations\n" + file.read_text())
    async with durable_broker(directory, **settings_of(file)) as broker, client_with(broker, root) as client:
        wanted: dict[str, Any] = {
            "scopes": ["rooms:read"],
            "rooms": ["live-*"],
            "note": 'shop "one" # \\',
            "expires_at_s": 2**39,
        }
        made = await ok(client, "broker.create_api_key", id="shop", **wanted)
        async with client_with(broker, made["key"]) as shop:
            assert (await call(shop, "rooms.list", pattern="live-*")).status_code == 200
        [found] = [each for each in (await ok(client, "broker.api_keys"))["items"] if each["id"] == "shop"]
        assert {name: found[name] for name in wanted} == wanted
        assert made["key"] not in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        [entry] = (await ok(client, "moderation.audit", operation="broker.create_api_key"))["items"]
        assert (entry["actor"], entry["request"]["id"], entry["request"]["scopes"]) == ("root", "shop", ["rooms:read"])
        assert made["key"] not in str(entry)
    async with durable_broker(directory, **settings_of(file)) as broker, client_with(broker, made["key"]) as shop:
        assert (await call(shop, "rooms.list", pattern="live-*")).status_code == 200
        async with client_with(broker, root) as client:
            await ok(client, "broker.revoke_api_key", id="shop")
            assert (await call(shop, "rooms.list", pattern="live-*")).status_code == 401
            assert await refused(client, "broker.revoke_api_key", id="shop") == (400, "BAD_FIELD", "id")
    assert list(parse_keys(file.read_text(), "keys")) == ["root"]
    assert file.read_text().startswith("# of operations\n")


@pytest.mark.integration
async def test_what_is_wrong_with_a_new_key_is_named_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    root = admin_key(file)
    before = file.read_bytes()
    async with running_broker(**settings_of(file)) as broker, client_with(broker, root) as client:
        for field, value in {
            "id": "UPPER", "scopes": ["everything"], "rooms": ["a*b"], "tenant": "A B", "note": "x" * 129,
            "expires_at_s": round(time.time()) - 60,
        }.items():  # fmt: skip
            wanted: dict[str, Any] = {"id": "new", "scopes": ["rooms:read"], field: value}
            status, code, named = await refused(client, "broker.create_api_key", **wanted)
            assert (status, code, named.partition("[")[0]) == (400, "BAD_FIELD", field)
        taken = await refused(client, "broker.create_api_key", id="root", scopes=["admin"])
        assert taken == (409, "OUT_OF_STATE", "id")
        assert await refused(client, "broker.create_api_key", id="new", scopes=[]) == (400, "BAD_FIELD", "scopes")
        assert await refused(client, "broker.revoke_api_key", id="root") == (409, "OUT_OF_STATE", "id")
        (tmp_path / "keys.toml.new").mkdir()
        wanted = {"id": "new", "scopes": ["rooms:read"]}
        assert await refused(client, "broker.create_api_key", **wanted) == (503, "OVERLOADED", "")
    assert file.read_bytes() == before


@pytest.mark.integration
async def test_only_a_key_of_no_tenant_and_of_all_rooms_changes_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    keys = {
        "tenant": admin_key(file, "tenant", tenant="acme"),
        "some": admin_key(file, "some", rooms=("live-*",)),
    }  # fmt: skip
    before = file.read_bytes()
    config = settings_of(file) | {"tenants": [{"name": "acme"}]}
    async with running_broker(**config) as broker:
        for text in keys.values():
            async with client_with(broker, text) as client:
                for name, fields in (
                    ("create", {"id": "new", "scopes": ["admin"]}),
                    ("revoke", {"id": "some"}),
                ):
                    found = await refused(client, f"broker.{name}_api_key", **fields)
                    assert found == (403, "NOT_ALLOWED", "operation")
    async with running_broker(api=API) as broker, client_of(broker) as client:
        found = await refused(client, "broker.create_api_key", id="new", scopes=["admin"])
        assert found == (409, "OUT_OF_STATE", "operation")
    assert file.read_bytes() == before


@pytest.mark.integration
async def test_a_stream_ends_with_its_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    root = admin_key(file)
    other = admin_key(file, "other")
    async with running_broker(**settings_of(file)) as broker, client_with(broker, root) as client:
        await ok(client, "rooms.open", room="live-1")
        async with client_with(broker, other) as second:
            for path in ("/stats", "/stats/live-1"):
                async with second.stream("GET", path) as answer:
                    assert answer.status_code == 200
                    lines = answer.aiter_lines()
                    assert (await anext(lines)).startswith("retry")
                    if path == "/stats":
                        text = file.read_text()
                        await ok(client, "broker.revoke_api_key", id="other")
                        async for _ in lines:
                            pass
                        file.write_text(text)
                        broker.read_api_keys()
                    else:
                        await ok(client, "broker.revoke_api_key", id="other")
                        async for _ in lines:
                            pass


def test_changes_of_a_key_file_keep_what_they_do_not_change(tmp_path: Path) -> None:
    real, file = tmp_path / "real.toml", tmp_path / "keys.toml"
    file.symlink_to(real)
    admin_key(file, "one")
    admin_key(file, "two")
    real.write_text(real.read_text().rstrip("\n"))
    admin_key(file, "three")
    assert file.is_symlink()
    with pytest.raises(KeyKnownError):
        admin_key(file, "two")
    remove_key(file, "two")
    with pytest.raises(KeyFileError):
        remove_key(file, "two")
    assert list(parse_keys(real.read_text(), "keys")) == ["one", "three"]


async def test_keys_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    async with trio.open_nursery() as nursery:
        for number in range(8):
            key, _ = made_key(f"k{number}", ADMIN, ("*",), "", "", 0, False)
            nursery.start_soon(trio.to_thread.run_sync, add_key, file, key)
    assert sorted(parse_keys(file.read_text(), "keys")) == [f"k{number}" for number in range(8)]


@pytest.mark.parametrize("note", ['"', "\\", 'a" # ', "ö 中 😀", "'''", '"""'])
def test_any_note_comes_back_as_it_was(tmp_path: Path, note: str) -> None:
    file = tmp_path / "keys.toml"
    key, text = made_key("one", ADMIN, ("*",), "", note, 0, True)
    add_key(file, key)
    found: ApiKey = parse_keys(file.read_text(), "keys")["one"]
    assert found == key
    assert text not in repr(key)
