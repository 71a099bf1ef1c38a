from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.main import main
from broker.core.tenants.names import plain_name
from broker.ledger import Entry, OutboxEntry, database_path
from broker.ledger.entries import LEDGER_RESTORED, Submission
from broker.ledger.head import Head, HeadFile
from broker.ledger.key_file import LedgerKeys
from broker.ledger.store import Store
from protocol.codes import Lane, MessageType, RoomPhase
from protocol.frames import pack_body
from protocol.messages import Event
from protocol.payloads import GiftPayload

BEGUN_MS = 1_790_000_000_000


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["ledger", *(str(argument) for argument in arguments)])


def event(
    kind: int, at_s: int, user_id: str, payload: object, room: str = "lobby", lane: Lane = Lane.PAID
) -> Submission:
    body = pack_body(Event(kind, BEGUN_MS + 1000 * at_s, user_id, "", payload))
    return Submission((Entry(room, 7, lane, kind, BEGUN_MS + 1000 * at_s, body),))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Ledger of an announcement, two gifts, a fact, another room, and the end of the room."""
    store = Store(database_path(tmp_path))
    marks = HeadFile(tmp_path / "ledger.head")
    store.commit([event(MessageType.ANNOUNCEMENT, 0, "max", ("欢迎",), lane=Lane.CONTROL)])
    store.commit(
        [
            event(MessageType.GIFT, 60, "ann", GiftPayload("o1", "ann", "Ann", "rose", 3, 100)),
            event(MessageType.GIFT, 61, "bob", GiftPayload("o2", "bob", "Bob", "car", 1, 9900)),
            Submission((Entry("lobby", 7, None, 1000, BEGUN_MS, b"\x00fact"), OutboxEntry("gift", BEGUN_MS, b"x"))),
            event(200, 62, "shop", {"raw": b"\xff"}, room="other", lane=Lane.COMMERCE),
        ]
    )
    store.commit([event(MessageType.ROOM_PHASE, 3600, "max", (int(RoomPhase.ENDED),), lane=Lane.CONTROL)])
    marks.write(store.head)
    marks.close()
    store.close()
    return tmp_path


def test_verify_reports_a_complete_ledger(directory: Path) -> None:
    result = run("verify", "--data-dir", directory)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("ok: ")
    assert "6 entries (1 to 6), 2 open rooms" in result.output
    findings = json.loads(run("verify", "--json", "--data-dir", directory).output)
    assert (findings["entries"], findings["commits"], findings["rows"]["outbox"]) == (6, 3, 1)


def test_verify_names_the_first_difference_and_fails(directory: Path) -> None:
    path = database_path(directory)
    path.write_bytes(path.read_bytes().replace("欢迎".encode(), "欢送".encode()))
    result = run("verify", "--data-dir", directory)
    assert result.exit_code == 1
    assert "entry 1 is not what was written (checksum)" in result.output


def test_verify_finds_a_change_with_a_matching_checksum(directory: Path) -> None:
    from zlib import crc32

    from broker.ledger.chain import canonical

    connection = sqlite3.connect(database_path(directory))
    body = pack_body(
        Event(MessageType.GIFT, BEGUN_MS + 60_000, "ann", "", GiftPayload("o1", "ann", "Ann", "rose", 9, 100))
    )
    crc = crc32(canonical(2, "lobby", 7, 2, Lane.PAID, MessageType.GIFT, BEGUN_MS + 60_000) + body)
    connection.execute("UPDATE entries SET body = ?, crc = ? WHERE seq = 2", (body, crc))
    connection.commit()
    connection.close()
    result = run("verify", "--data-dir", directory)
    assert result.exit_code == 1
    assert "entry 2 does not follow entry 1 (hash chain)" in result.output


def test_verify_finds_a_missing_last_entry(directory: Path) -> None:
    connection = sqlite3.connect(database_path(directory))
    connection.execute("DELETE FROM entries WHERE seq = 6")
    connection.commit()
    connection.close()
    result = run("verify", "--data-dir", directory)
    assert result.exit_code == 1
    assert "entries 6 to 6 are missing" in result.output


def test_all_commands_judge_a_ledger_that_lost_its_end_alike(directory: Path, tmp_path: Path) -> None:
    mark = raise_mark(directory)
    for command in (["verify"], ["export"], ["replay"], ["backup", tmp_path / "copy.db"]):
        result = run(*command, "--data-dir", directory)
        assert result.exit_code == 1, command
        assert f"commit {mark.batch}, entry {mark.seq} was acknowledged" in result.output
        assert "roomcast ledger restore --accept-loss" in result.output
    refused = run("restore", "--data-dir", directory)
    assert (refused.exit_code, "--accept-loss" in refused.output) == (1, True)
    accepted = run("restore", "--accept-loss", "--data-dir", directory)
    assert accepted.exit_code == 0, accepted.output
    assert accepted.output.startswith(f"lost: ends at commit 3, entry 6, but commit {mark.batch}")
    assert run("verify", "--data-dir", directory).exit_code == 0
    last = json.loads(run("export", "--data-dir", directory).output.splitlines()[-1])
    assert (last["seq"], last["kind"]) == (7, LEDGER_RESTORED)


def test_all_commands_refuse_a_ledger_of_an_older_schema_alike(directory: Path, tmp_path: Path) -> None:
    database = database_path(directory)
    connection = sqlite3.connect(database)
    connection.execute("ALTER TABLE entries DROP COLUMN salt")
    connection.close()
    commands = ["verify"], ["export"], ["replay"], ["backup", tmp_path / "copy.db"], ["restore"]
    for command in (*((*each, "--data-dir", directory) for each in commands), ("verify", "--copy", database)):
        result = run(*command)
        assert (result.exit_code, len(result.output.splitlines())) == (1, 1), command
        assert f"{database}: a ledger of version 1 that an older development version" in result.output
        assert "has no column entries.salt" in result.output


def test_a_missing_mark_is_reported(directory: Path) -> None:
    (directory / "ledger.head").unlink()
    result = run("verify", "--data-dir", directory)
    assert result.exit_code == 1
    assert "there is no high-water mark that can be read: what followed entry 6 is unknown" in result.output


def test_a_copy_is_verified_exported_and_restored_but_never_opened(directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert run("backup", "--data-dir", directory, copy).exit_code == 0
    assert run("verify", "--copy", copy).exit_code == 0
    assert len(run("export", "--copy", copy).output.splitlines()) == 6
    assert "2 gifts of 102.00" in run("replay", "--copy", copy).output
    there = run("restore", copy, "--data-dir", directory)
    assert (there.exit_code, "is there already" in there.output) == (1, True)
    result = run("restore", copy, "--data-dir", tmp_path / "new")
    assert result.exit_code == 0, result.output
    assert "7 entries, 2 open rooms with new epochs" in result.output
    assert run("verify", "--data-dir", tmp_path / "new").exit_code == 0


def raise_mark(directory: Path) -> Head:
    """Make the mark say that one more commit was acknowledged; return it."""
    mark = HeadFile.read(directory / "ledger.head")
    assert mark is not None
    mark = mark._replace(batch=mark.batch + 1, seq=mark.seq + 1)
    marks = HeadFile(directory / "ledger.head")
    marks.write(mark)
    marks.close()
    return mark


def test_a_directory_without_a_ledger_is_an_error_in_one_line(tmp_path: Path) -> None:
    result = run("verify", "--data-dir", tmp_path)
    assert result.exit_code == 1
    assert "there is no ledger" in result.output


def test_the_configuration_selects_the_ledger(directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "roomcast.toml"
    file.write_text(f'[ledger]\ndata_dir = "{directory}"\n')
    assert run("verify", "--config", file).exit_code == 0
    assert run("verify", "--config", file, "--set", "ledger.ephemeral=true").exit_code == 2


def test_export_writes_one_line_an_entry(directory: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in run("export", "--data-dir", directory).output.splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0] == {
        "seq": 1, "room": "lobby", "epoch": 7, "offset": 1, "lane": 0, "kind": 4, "at_ms": BEGUN_MS,
        "user_id": "max", "name": "", "payload": ["欢迎"],
    }  # fmt: skip
    assert lines[3] == {"seq": 4, "room": "lobby", "epoch": 7, "kind": 1000, "at_ms": BEGUN_MS, "body": "AGZhY3Q="}
    assert lines[4]["payload"] == {"raw": "/w=="}
    target = tmp_path / "out.ndjson"
    assert run("export", "--data-dir", directory, "--room", "other", "--output", target).exit_code == 0
    assert [json.loads(line)["room"] for line in target.read_text().splitlines()] == ["other"]
    assert len(run("export", "--data-dir", directory, "--after", 4).output.splitlines()) == 2


def test_an_export_of_a_damaged_ledger_fails_and_leaves_no_file(directory: Path, tmp_path: Path) -> None:
    path = database_path(directory)
    path.write_bytes(path.read_bytes().replace("欢迎".encode(), "欢送".encode()))
    target = tmp_path / "out.ndjson"
    assert run("export", "--data-dir", directory, "--output", target).exit_code == 1
    assert not target.exists()


def test_replay_rebuilds_the_rooms(directory: Path) -> None:
    rooms = [json.loads(line) for line in run("replay", "--json", "--data-dir", directory).output.splitlines()]
    lobby = next(room for room in rooms if room["room"] == "lobby")
    assert (lobby["events"], lobby["offsets"], lobby["holes"], lobby["facts"]) == (4, [1, 4], 0, 1)
    assert (lobby["gifts"], lobby["gift_units"], lobby["gift_cents"]) == (2, 4, 10_200)
    assert lobby["top_givers"] == [["bob", 9900], ["ann", 300]]
    assert lobby["phase"] == "ended"
    text = run("replay", "--data-dir", directory).output
    assert "2 gifts of 102.00" in text


def test_replay_stops_at_a_time(directory: Path) -> None:
    until = BEGUN_MS + 60_500
    (lobby,) = [
        json.loads(line)
        for line in run("replay", "--json", "--until", until, "--data-dir", directory).output.splitlines()
    ]
    assert (lobby["gifts"], lobby["phase"]) == (1, "live")
    assert run("replay", "--until", "tomorrow", "--data-dir", directory).exit_code == 2
    iso = run("replay", "--json", "--until", "2100-01-01T00:00:00+00:00", "--data-dir", directory)
    assert len(iso.output.splitlines()) == 2


def test_replay_of_one_room_shows_its_events(directory: Path) -> None:
    lines = run("replay", "--room", "lobby", "--data-dir", directory).output.splitlines()
    assert lines[0].startswith('00:00:00 #1 kind 4 {"user_id": "max", "payload": ["欢迎"]}')
    assert lines[-2].startswith("01:00:00 #4 kind 6")
    assert run("replay", "--room", "unknown", "--data-dir", directory).exit_code == 1


def test_a_backup_is_verified_and_never_overwrites(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy" / "ledger.db"
    nowhere = run("backup", "--data-dir", directory, target)
    assert (nowhere.exit_code, nowhere.stderr.startswith(f"Error: {target}: cannot be written")) == (1, True)
    target.parent.mkdir()
    result = run("backup", "--data-dir", directory, target)
    assert result.exit_code == 0, result.output
    assert run("verify", "--copy", target).exit_code == 0
    opened = run("verify", "--data-dir", target.parent)
    assert (opened.exit_code, "roomcast ledger restore" in opened.output) == (1, True)
    assert run("backup", "--data-dir", directory, target).exit_code == 1


def test_export_and_replay_say_whose_a_room_is(tmp_path: Path) -> None:
    store = Store(database_path(tmp_path))
    marks = HeadFile(tmp_path / "ledger.head")
    for room in ("lobby", "acme\x1flobby", "acme\x1fother"):
        store.commit([event(MessageType.ANNOUNCEMENT, 0, "max", (plain_name(room),), room=room, lane=Lane.CONTROL)])
    marks.write(store.head)
    marks.close()
    store.close()

    def lines(*options: str) -> list[tuple[str, str]]:
        result = run("export", "--data-dir", tmp_path, *options)
        assert result.exit_code == 0, result.output
        found = [json.loads(line) for line in result.output.splitlines()]
        return [(line.get("tenant", ""), line["room"]) for line in found]

    assert lines() == [("", "lobby"), ("acme", "lobby"), ("acme", "other")]
    assert lines("--tenant", "acme") == [("acme", "lobby"), ("acme", "other")]
    assert lines("--tenant", "") == [("", "lobby")]
    assert lines("--room", "lobby") == [("", "lobby")]
    assert lines("--room", "lobby", "--tenant", "acme") == [("acme", "lobby")]
    replayed = run("replay", "--data-dir", tmp_path, "--tenant", "acme").output
    assert "lobby of tenant acme epoch 7" in replayed
    found = [json.loads(line) for line in run("replay", "--json", "--data-dir", tmp_path).output.splitlines()]
    assert [(each.get("tenant"), each["room"]) for each in found] == [
        (None, "lobby"),
        ("acme", "lobby"),
        ("acme", "other"),
    ]
    missing = run("replay", "--data-dir", tmp_path, "--room", "none", "--tenant", "acme")
    assert "no entry of room none of tenant acme" in missing.output


def test_an_encrypted_ledger_is_exported_with_its_key_and_verified_without(directory: Path, tmp_path: Path) -> None:
    data, file = tmp_path / "encrypted", tmp_path / "ledger.key"
    made = run("rotate-key", "--key-file", file)
    assert made.exit_code == 0, made.output
    keys = LedgerKeys.read(file)
    assert keys.current.id.hex() in made.output
    assert "0 older" in made.output
    data.mkdir()
    store = Store(database_path(data))
    store.cipher.use(keys)
    store.commit([event(MessageType.ANNOUNCEMENT, 0, "max", ("欢迎",), lane=Lane.CONTROL)])
    marks = HeadFile(data / "ledger.head")
    marks.write(store.head)
    marks.close()
    store.close()
    assert run("verify", "--data-dir", data).exit_code == 0
    assert "1 older" in run("rotate-key", "--set", f"ledger.key_file={file}").output
    config = "--set", f"ledger.key_file={file}", "--set", f"ledger.data_dir={data}"
    for options in (("--data-dir", data, "--key-file", file), config):
        assert json.loads(run("export", *options).output)["payload"] == ["欢迎"]
        assert "1 events" in run("replay", *options).output
    refused = run("export", "--data-dir", data)
    assert refused.exit_code == 1
    assert refused.output.splitlines()[-1].endswith("or give the command the option of its key file")
    assert run("rotate-key").exit_code == 2
    file.write_text("nonsense")
    assert run("rotate-key", "--key-file", file).output == f"Error: {file}: line 1 is no key of 64 hexadecimal digits\n"
