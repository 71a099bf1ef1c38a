"""Export of a room: every entry once, in order, on pages of any size; without names and texts unless asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from broker.cli.main import main
from broker.operations.caller import OperationError
from broker.server import Broker
from protocol.codes import ErrorCode
from tests.support.broker import joined_link, running_broker
from tests.support.durable import durable_broker
from tests.support.operating import operate
from tests.support.shows import as_platform, play_show
from tests.support.tokens import SECRET
from tests.support.until import until

pytestmark = pytest.mark.integration


async def exported(broker: Broker, room: str = "lobby", limit: int = 1000, *, tenant: str = "") -> list[Any]:
    """Return all items of an export."""
    items: list[Any] = []
    after, more = 0, True
    while more:
        page = await operate(broker, "rooms.export", room, None, after, limit, tenant=tenant)
        assert (page.schema, page.version) == ("roomcast.export", 1)
        assert len(page.lines) <= limit
        items += page.lines
        assert page.last >= after
        after, more = page.last, page.more
    return items


def from_ledger(directory: Path, *options: str, room: str = "lobby") -> list[Any]:
    done = CliRunner().invoke(main, ["export", room, "--from-ledger", "--data-dir", str(directory), *options])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.output.splitlines()]


async def test_an_export_of_many_rooms_has_the_lines_of_each_and_none_of_another_tenant(directory: Path) -> None:
    tenants = [{"name": "acme"}]
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=tenants) as broker:
        for number, (tenant, room) in enumerate([("", "a-1"), ("acme", "a-1"), ("", "b-1"), ("", "a-2"), ("", "a-1")]):
            await operate(broker, "messages.publish", room, 4, [f"text {number}"], tenant=tenant)
        for pattern, rooms in (("*", ["a-1", "b-1", "a-2", "a-1"]), ("a-*", ["a-1", "a-2", "a-1"]), ("c-*", [])):
            for limit in (1, 1000):
                items: list[Any] = []
                after, more = 0, True
                while more:
                    page = await operate(broker, "rooms.export_all", pattern, after, limit)
                    items += [line for line in page.lines if line["what"] == "event"]
                    assert page.last >= after
                    after, more = page.last, page.more
                assert [line["room"] for line in items] == rooms
        page = await operate(broker, "rooms.export_all", tenant="acme")
        assert [line["room"] for line in page.lines if line["what"] == "event"] == ["a-1"]
        assert {line.get("tenant") for line in page.lines} == {"acme"}
        one = await exported(broker, "a-1")
        whole = await operate(broker, "rooms.export_all", "a-1", 0, 1000)
        assert list(whole.lines) == one


async def test_an_export_has_every_entry_once_on_pages_of_any_size_and_names_and_texts_only_if_configured(
    directory: Path,
) -> None:
    async with durable_broker(directory) as broker:
        async with joined_link(broker, "dev:ann") as (link, number):
            await play_show(broker, link, number)
        await as_platform(broker, "rooms.close", room="lobby")
        await until(lambda: broker.hub.find("lobby") is None)
        assert broker.ledger is not None
        await broker.ledger.flush()
        items = await exported(broker)
        for limit in (1, 3, 7):
            assert await exported(broker, limit=limit) == items
        seqs = [item["seq"] for item in items]
        assert seqs == sorted(set(seqs))
        assert {item["what"] for item in items} >= {"event", "order", "facts", "sample"}
        assert all(item["version"] == 1 for item in items)
    text = json.dumps(items, ensure_ascii=False)
    for secret in ("Ann", "欢迎", "规则", "Evening", "outdated", "Mug"):
        assert secret not in text, secret
    gift = next(item for item in items if item.get("type") == "gift")
    assert (gift["payload"]["user_id"], gift["payload"]["price_cents"], gift["payload"]["gift_id"]) == (
        "ann",
        100,
        "rose",
    )
    assert "name" not in gift

    async with durable_broker(directory, ledger={"export_names": True, "export_texts": True}) as broker:
        everything = await exported(broker)
    text = json.dumps(everything, ensure_ascii=False)
    for shown in ("Ann", "欢迎", "规则", "outdated", "Mug"):
        assert shown in text, shown
    assert [item["seq"] for item in everything][: len(items)] == seqs

    lines = from_ledger(directory)
    assert json.loads(json.dumps(items)) == lines[: len(items)]
    assert "欢迎" in json.dumps(from_ledger(directory, "--texts"), ensure_ascii=False)
    assert "Ann" not in json.dumps(from_ledger(directory, "--texts"), ensure_ascii=False)
    assert from_ledger(directory, f"--after={seqs[3]}") == lines[4:]


async def test_an_export_into_a_file_goes_on_where_it_was_cut(directory: Path, tmp_path: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:ann") as (link, number):
        await play_show(broker, link, number)
    lines = from_ledger(directory)
    file = tmp_path / "show.ndjson"
    option = f"--output={file}"
    from_ledger(directory, option)
    whole = file.read_bytes()
    assert [json.loads(line) for line in whole.splitlines()] == lines
    for cut in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        file.write_bytes(whole[:cut])
        from_ledger(directory, option)
        assert file.read_bytes() == whole
    for foreign in (
        b"no export\n",
        b"notes without an end of line",
        b'{"seq": 99}\n',
        whole.replace(b'"lobby"', b'"other"'),
        whole + whole,
        whole + b"notes",
    ):
        file.write_bytes(foreign)
        done = CliRunner().invoke(main, ["export", "lobby", "--from-ledger", "--data-dir", str(directory), option])
        assert done.exit_code == 1
        assert "is no export of room lobby" in done.output
        assert file.read_bytes() == foreign


async def test_an_export_is_of_one_room_of_one_tenant(directory: Path) -> None:
    settings: dict[str, Any] = {"auth": {"secret": SECRET}, "tenants": [{"name": "acme"}]}
    async with durable_broker(directory, **settings) as broker:
        for tenant, user in (("", "ours"), ("acme", "theirs")):
            publish = "messages.publish", "lobby", 4, ["hi"], "", user, user
            await operate(broker, *publish, tenant=tenant)
        for tenant, user in (("", "ours"), ("acme", "theirs")):
            items = await exported(broker, tenant=tenant)
            assert {item["user"] for item in items if item["what"] == "event"} == {user}
            assert {item.get("tenant", "") for item in items} == {tenant}
        with pytest.raises(OperationError) as caught:
            await exported(broker, "never")
        assert caught.value.code is ErrorCode.UNKNOWN_ROOM
    async with running_broker() as broker:
        await operate(broker, "rooms.open", "lobby")
        with pytest.raises(OperationError) as caught:
            await exported(broker)
        assert caught.value.code is ErrorCode.NOT_KEPT
