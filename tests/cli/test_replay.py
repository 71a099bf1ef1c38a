"""``roomcast replay``: a room at the end is the room that was open, and at any moment what it was then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from broker.cli.main import main
from broker.ledger import Reader, database_path
from broker.ledger.streams import all_entries, find_stream
from protocol.json_values import as_json
from tests.support.broker import joined_link
from tests.support.durable import durable_broker
from tests.support.shows import as_platform, play_show
from tests.support.until import until


def run(directory: Path, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["replay", *arguments, "--data-dir", str(directory)])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)
    return found


@pytest.mark.integration
async def test_the_state_at_the_end_is_that_of_the_open_room_and_earlier_ones_are_what_it_was(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:ann") as (link, number):
        await play_show(broker, link, number)
        await until(lambda: broker.hub.accounts()[3].shown == 1)
        await as_platform(broker, "rooms.report", room="lobby")  # it writes the counters as they are
        room = broker.hub.find("lobby")
        assert room is not None
        state = room.state
        assert state.activities.activities is not None
        activities = state.activities.activities
        view = as_json(await as_platform(broker, "rooms.get", room="lobby"))
        live = {
            "phase": view["phase"],
            "title": view["title"],
            "last_offset": view["last_offset"],
            "epoch": view["epoch"],
            "keys": as_json(state.keys.views()),
            "pinned": as_json(state.kept.pins.pinned),
            "activities": [
                {"kind": key[0], "id": key[1], "view": as_json(activities.find(*key).view(True))}
                for key in activities.keys()
            ],
            "rules": dict(state.own_rules),
            "modes": as_json(state.modes.modes),
            "counters": {name: view[name] for name in ("online", "users", "uniques", "peak", "likes")},
            "accounts": {
                name: account._asdict()
                for name, account in zip(
                    ("control", "commerce", "paid", "chat", "ambient"), state.counters.accounts(), strict=True
                )
            },
        }
    found = run(directory, "lobby")
    assert found["unreadable_entries"] == 0
    exact = ("phase", "title", "last_offset", "epoch", "keys", "pinned", "accounts", "rules", "modes")
    assert {name: found[name] for name in exact} == {name: live[name] for name in exact}
    assert (found["rules"], found["modes"]["slow_s"]) == ({"likes_per_s": 7}, 9)
    assert {name: found["counters"][name] for name in live["counters"]} == live["counters"]
    assert [
        {name: each[name] for name in ("kind", "id", "view")} for each in found["activities"]
    ] == live["activities"]  # fmt: skip
    assert found["announcement"] is None, "it was deleted"
    assert found["gifts"] == {"cents": 300, "givers": 1, "top": [{"user": "ann", "score": 300, "rank": 1}]}

    reader = Reader(database_path(directory))
    try:
        stream = find_stream(reader, "lobby")
        assert stream is not None
        pinned_ms = next(each.at_ms for each in all_entries(reader, stream) if each.kind == 10)
    finally:
        reader.close()
    then = run(directory, "lobby", f"--at={pinned_ms}")
    assert (then["announcement"]["payload"], then["phase"]) == (["欢迎 <b>"], "live")
    assert (then["rules"], then["modes"]["slow_s"]) == ({}, 0)
    assert run(directory, "lobby", "--at=00:00:00", f"--epoch={live['epoch']}")["last_offset"] <= then["last_offset"]
    assert run(directory, "lobby", "--at=9999:00:00") == found | {"at_ms": found["opened_at_ms"] + 9999 * 3_600_000}
    for wrong in ("--at=yesterday", "--at=" + "9" * 30, "--at=0001-01-01", "--epoch=1"):
        done = CliRunner().invoke(main, ["replay", "lobby", wrong, "--data-dir", str(directory)])
        assert done.exit_code != 0
        assert "--at" in done.output or "has nothing of room lobby in epoch 1" in done.output
