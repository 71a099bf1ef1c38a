"""A broker with a key file: what people wrote is in no file of its data directory, and nothing is lost by that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio.testing

from broker.ledger import LedgerRefused, Reader, database_path, open_directory
from broker.ledger.backup import back_up
from broker.ledger.encryption import ENCRYPTED
from broker.ledger.key_file import LedgerKeys
from protocol.codes import MessageType
from tests.support.broker import configuration, running_broker
from tests.support.erasing import (
    EVERYTHING,
    VICTIM,
    erase,
    erasing_broker,
    marks_in,
    marks_in_files,
    marks_in_memory,
    populate,
)
from tests.support.faulty_disk import crashed_copy, quick_directory
from tests.support.ledger_keys import key_file
from tests.support.operating import operate

pytestmark = pytest.mark.integration

PLANTED = ("secret ", "Vic the Great", "hello ")
"""What two users wrote: in texts, names, keys, tags and reasons."""


def planted_in(directory: Path) -> list[str]:
    """Search every file below a directory, byte by byte."""
    return [
        f"{path.name}: {text}"
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        for text in PLANTED
        if text.encode() in path.read_bytes()
    ]


def ledger_files(directory: Path) -> list[bytes]:
    return [(directory / name).read_bytes() for name in ("ledger.db", "ledger.head")]


def settings(directory: Path, file: Path) -> dict[str, Any]:
    return {"data_dir": str(directory), "key_file": str(file)}


async def test_what_was_written_is_in_no_file_also_after_a_kill_and_in_a_backup() -> None:
    with quick_directory() as root:
        directory, file = root / "data", key_file(root / "ledger.key", "first")
        async with erasing_broker(directory, key_file=str(file)) as broker:
            await populate(broker, EVERYTHING)
            crashed_copy(directory, root / "crashed")
            assert broker.ledger is not None
            await broker.ledger.ask(back_up, root / "copy.db")
            assert planted_in(root) == []
        assert planted_in(root) == []
        for copy in (directory, root / "crashed"):
            open_directory(copy).verify_all()
            async with erasing_broker(copy, key_file=str(file)) as broker:
                assert marks_in_memory(broker) != [], "it is all there again"
                page = await operate(broker, "directs.list", VICTIM, None, True)
                texts = [item.payload[0] for item in page.items]
                assert sum(text.startswith("secret") for text in texts) == 2


async def test_the_same_search_finds_what_is_not_encrypted() -> None:
    with quick_directory() as root:
        async with erasing_broker(root / "data") as broker:
            await populate(broker, EVERYTHING)
        assert {line.partition(": ")[2] for line in planted_in(root)} == set(PLANTED)


async def test_an_erasure_finds_and_removes_what_is_encrypted() -> None:
    with quick_directory() as root:
        directory, file = root / "data", key_file(root / "ledger.key", "first")
        async with erasing_broker(directory, key_file=str(file)) as broker:
            await populate(broker, EVERYTHING)
            state = await erase(broker)
            assert state.entries > 0
            assert marks_in_memory(broker) == []
            assert marks_in_files(directory) == []
        reader = Reader(database_path(directory), LedgerKeys.read(file))
        reader.verify_all()
        for table, column in ENCRYPTED.items():
            for (stored,) in reader.connection.execute(f"SELECT {column} FROM {table}"):
                assert marks_in(reader.cipher.decrypt(table, stored)) == [], table
        reader.close()


async def test_a_start_without_the_key_or_with_another_is_refused_in_one_line_and_changes_nothing(
    directory: Path, tmp_path: Path
) -> None:
    file = key_file(tmp_path / "ledger.key", "first")
    async with running_broker(ledger=settings(directory, file)) as broker:
        await operate(broker, "users.set_tags", "ann", ["vip"])
        first = LedgerKeys.read(file).current.id.hex()
    before = ledger_files(directory)
    for other in ({"data_dir": str(directory)}, settings(directory, key_file(tmp_path / "other.key", "other"))):
        with pytest.RaisesGroup(pytest.RaisesGroup(LedgerRefused)) as caught:
            async with running_broker(ledger=other):
                pass
        error = caught.value.exceptions[0].exceptions[0]
        assert f"is encrypted with key {first}" in str(error)
        assert "\n" not in str(error)
    assert ledger_files(directory) == before


async def test_a_reload_takes_a_new_key_and_keeps_the_old_one_for_what_it_has_encrypted(
    directory: Path, tmp_path: Path
) -> None:
    file = key_file(tmp_path / "ledger.key", "first")
    config = configuration(ledger=settings(directory, file))
    async with running_broker(ledger=settings(directory, file)) as broker:
        await operate(broker, "users.set_tags", "ann", ["old"])
        key_file(file, "second", "first")
        with structlog.testing.capture_logs() as lines:
            for _ in range(2):
                broker.reload(config)
        changes = [line["changed"] for line in lines if line["event"] == "configuration reloaded"]
        assert ["ledger.key_file" in names for names in changes] == [True, False]
        await operate(broker, "users.set_tags", "bob", ["new"])
        key_file(file, "second")
        with pytest.raises(ValueError, match=r"ledger\.key_file: .* does not have that key"):
            broker.reload(config)
        file.write_text("nonsense")
        with pytest.raises(OSError, match="line 1 is no key"):
            broker.reload(config)
        assert (await operate(broker, "users.get", "ann")).tags == ("old",)
        assert broker.ledger is not None
        ids = await broker.ledger.ask(Reader.recorded_keys)
    key_file(file, "second", "first")
    assert ids == set(LedgerKeys.read(file).ids)
    async with running_broker(ledger=settings(directory, file)) as broker:
        assert (await operate(broker, "users.get", "ann")).tags == ("old",)
        assert (await operate(broker, "users.get", "bob")).tags == ("new",)


async def test_a_running_broker_begins_to_encrypt_when_a_key_file_is_set(directory: Path, tmp_path: Path) -> None:
    file = key_file(tmp_path / "ledger.key", "first")
    async with running_broker(ledger={"data_dir": str(directory)}) as broker:
        await operate(broker, "rooms.open", "live-1")
        broker.reload(configuration(ledger=settings(directory, file)))
        await operate(broker, "messages.publish", "live-1", int(MessageType.ANNOUNCEMENT), ["secret plan"])
        await trio.testing.wait_all_tasks_blocked()
        assert planted_in(directory) == []
        with pytest.raises(ValueError, match=r"set ledger\.key_file"):
            broker.reload(configuration(ledger={"data_dir": str(directory)}))
    assert json.dumps(planted_in(directory)) == "[]"
