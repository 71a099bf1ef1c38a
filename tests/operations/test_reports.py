"""Reports of shows: the operation and the command give the same bytes, also after restarts and from a copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from broker.cli.main import main
from broker.cli.report_page import report_html, report_json
from broker.core.rooms import samples
from broker.operations.caller import OperationError
from broker.server import Broker
from protocol.codes import ErrorCode, MessageType
from protocol.messages import Ack
from tests.support.broker import joined_link, running_broker
from tests.support.durable import durable_broker
from tests.support.faulty_disk import crashed_copy
from tests.support.operating import operate
from tests.support.shows import as_platform, play_show
from tests.support.tokens import SECRET
from tests.support.until import until

pytestmark = pytest.mark.integration


def from_ledger(directory: Path, room: str = "lobby", *more: str) -> dict[str, Any]:
    """Make both files of a report with the command, and return the JSON."""
    files = [f"--json={directory / 'report.json'}", f"--html={directory / 'report.html'}"]
    done = CliRunner().invoke(main, ["report", room, "--from-ledger", "--data-dir", str(directory), *files, *more])
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = json.loads((directory / "report.json").read_bytes())
    return report


async def live_report(broker: Broker, room: str = "lobby") -> Any:
    """Ask for the report of a room; one that is ending writes its last counters first."""
    with trio.fail_after(10):
        while True:
            try:
                found = (await as_platform(broker, "rooms.report", room=room)).report
                return json.loads(json.dumps(found))
            except OperationError as error:
                if error.code is not ErrorCode.OVERLOADED:
                    raise
            await trio.sleep(0.01)


async def test_the_report_of_a_broker_and_that_of_its_ledger_are_the_same_bytes(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        async with joined_link(broker, "dev:ann") as (link, number):
            await play_show(broker, link, number)
            await until(lambda: broker.hub.accounts()[3].shown == 1)
            during = await live_report(broker)
            assert report_json(from_ledger(directory)) == report_json(during)
            await as_platform(broker, "rooms.close", room="lobby")
        live = await live_report(broker)
        last = broker.hub.accounts()
        with pytest.raises(OperationError):  # it is in the audit of the room, and no part of the show
            await as_platform(broker, "moderation.ban", room="lobby", user="mallory", reason="later")
    from_ledger(directory)
    assert (directory / "report.json").read_bytes() == report_json(live)
    assert (directory / "report.html").read_bytes() == report_html(live)

    assert [during["phase"], live["phase"]] == ["live", "ended"]
    assert live["title"] == "Evening sale"
    assert live["audience"]["peak"] == 1
    assert during["audience"]["points"][0][1:] == [1, 1]
    assert {name: live["interaction"][name] for name in ("danmaku", "likes", "gifts", "gift_cents", "orders")} == {
        "danmaku": 1, "likes": 5, "gifts": 1, "gift_cents": 300, "orders": 1,
    }  # fmt: skip
    assert live["interaction"]["top_givers"] == [{"user": "ann", "cents": 300}]
    (mug,) = live["commerce"]["products"]
    assert mug.pop("shown_ms") >= 0
    assert mug == {
        "product": "mug-1", "title": "Mug", "shown": 1, "viewers": 1, "clicked": 2, "claimed": 2, "confirmed": 1,
        "confirmed_cents": 1990, "ordered": 1,
    }  # fmt: skip
    (sale,) = live["commerce"]["activities"]
    assert (sale["id"], sale["amounts"]) == ("sale-1", {"available": 1, "reserved": 0, "confirmed": 1})
    moderation = live["moderation"]
    assert moderation["deletions"] == 1
    assert (moderation["reviews"]["reported"], moderation["reviews"]["undecided"]) == (1, 1)
    (mute,) = moderation["sanctions"]
    del mute["at_ms"]
    assert mute == {"what": "moderation.mute", "user": "mallory", "by": "shop", "reason": "<spam>", "seconds": 60}
    (actor,) = moderation["audit"]["actors"]
    assert (actor["kind"], actor["actor"]) == ("key", "shop")
    assert actor["actions"] - moderation["audit"]["actions"].get("rooms.close", 0) == 10, "the end may come after it"
    assert moderation["audit"]["refused"] == 0
    assert moderation["audit"]["actions"]["sales.create"] == 1
    assert b"&lt;spam&gt;" in (directory / "report.html").read_bytes()
    assert [line["what"] for line in live["timeline"]] == [
        "announcement", "pins", "products.explaining", "sales.scheduled", "sales.opened", "sales.sold_out",
        "messages.deleted", "moderation.modes_changed", "phase.ended",
    ]  # fmt: skip
    accounts = [tuple(live["accounts"][lane].values()) for lane in ("control", "commerce", "paid", "chat", "ambient")]
    assert accounts == [tuple(account) for account in last], "every message that the room took in has its outcome"
    assert all(account[0] == sum(account[1:]) for account in accounts)
    assert (live["service"]["runs"], live["service"]["interrupted_runs"]) == (1, 0)
    assert live["service"]["unreadable_entries"] == 0


async def test_a_report_adds_up_the_runs_of_a_room_and_names_those_that_were_killed(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        async with durable_broker(directory) as broker:
            async with joined_link(broker, "dev:ann") as (link, room):
                await link.post(room, 1, MessageType.DANMAKU, [f"number {number}"])
                await until(lambda: broker.hub.accounts()[3].shown == 1)
            await broker.drain()
    report = from_ledger(directory)
    assert (report["service"]["runs"], report["service"]["interrupted_runs"]) == (2, 0)
    assert report["accounts"]["chat"] == {
        "admitted": 2, "shown": 2, "merged": 0, "sampled": 0, "expired": 0, "held": 0,
    }  # fmt: skip

    monkeypatch.setattr("broker.rooms.journal.SAMPLE_EVERY_S", 0.0)
    async with durable_broker(directory) as broker:
        async with joined_link(broker, "dev:ann") as (link, room):
            await link.post(room, 1, MessageType.DANMAKU, ["before the kill"])
            await until(lambda: broker.hub.accounts()[3].shown == 1)
            await trio.sleep(2.1)  # a sample comes with the checkpoint of each second
            killed = crashed_copy(directory, tmp_path / "killed")
    async with durable_broker(killed) as broker:
        async with joined_link(broker, "dev:ann") as (link, room):
            await link.post(room, 1, MessageType.DANMAKU, ["after the kill"])
            await until(lambda: broker.hub.accounts()[3].shown == 1)
        await broker.drain()
    report = from_ledger(killed)
    assert (report["service"]["runs"], report["service"]["interrupted_runs"]) == (4, 1)
    assert report["accounts"]["chat"]["shown"] == 4


async def test_only_rooms_of_the_ledger_have_reports(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        with pytest.raises(OperationError) as caught:
            await as_platform(broker, "rooms.report", room="never")
        assert caught.value.code is ErrorCode.UNKNOWN_ROOM
        await as_platform(broker, "rooms.open", room="quiet")
        with pytest.raises(OperationError) as caught:
            await as_platform(broker, "rooms.report", room="quiet")
        assert caught.value.code is ErrorCode.UNKNOWN_ROOM
    done = CliRunner().invoke(main, ["report", "never", "--from-ledger", "--data-dir", str(directory)])
    assert done.exit_code == 1
    assert "has nothing of room never" in done.output
    async with running_broker() as broker:
        await as_platform(broker, "rooms.open", room="lobby")
        with pytest.raises(OperationError) as caught:
            await as_platform(broker, "rooms.report", room="lobby")
        assert caught.value.code is ErrorCode.NOT_KEPT


async def test_a_room_in_which_nothing_changes_is_not_sampled_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.rooms.journal.SAMPLE_EVERY_S", 0.0)
    assert samples.SAMPLE_EVERY_S == 10.0
    async with durable_broker(directory) as broker:
        await as_platform(broker, "messages.publish", room="lobby", type=4, payload=["hi"])
        journal = broker.hub.find("lobby").journal  # type: ignore[union-attr]  # it is open
        assert broker.ledger is not None
        entries: list[int] = []
        for _ in range(3):
            journal.sample()
            await broker.ledger.flush()
            entries.append(await broker.ledger.ask(lambda reader: reader.ends()[0].seq))
        assert entries[0] == entries[1] == entries[2]


async def test_a_report_has_nothing_of_a_room_of_the_same_name_of_another_tenant(directory: Path) -> None:
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=[{"name": "acme"}]) as broker:
        for tenant, text in (("", "ours"), ("acme", "theirs")):
            await operate(broker, "messages.publish", "lobby", 4, [text], tenant=tenant)
        for tenant, text in (("", "ours"), ("acme", "theirs")):
            report = (await operate(broker, "rooms.report", "lobby", tenant=tenant)).report
            assert (report["tenant"], report["room"]) == (tenant, "lobby")
            assert [line["text"] for line in report["timeline"]] == [text]
            written = from_ledger(directory, "lobby", f"--tenant={tenant}")
            assert report_json(written) == report_json(report)


async def test_a_report_says_what_moderation_did(directory: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("spam\n", encoding="utf-8")
    lists = [{"name": "ads", "file": str(words), "action": "block"}]
    async with durable_broker(directory, moderation={"lists": lists}) as broker:
        async with joined_link(broker, "dev:ann") as (link, number), joined_link(broker, "dev:bob") as (bob, room):
            await link.post(number, 1, MessageType.DANMAKU, ["hello"])
            await until(lambda: broker.hub.accounts()[3].shown == 1)
            await link.post(number, 2, MessageType.DANMAKU, ["buy my spam"])
            await link.expect(Ack)
            await as_platform(broker, "moderation.mute", room="lobby", user="bob", seconds=600, reason="noise")
            await bob.post(room, 1, MessageType.DANMAKU, ["let me"])
            await until(lambda: "muted" in str(broker.hub.measures.refused))
            await until(lambda: "blocked" in str(broker.hub.measures.refused))
        report = await live_report(broker)
    counts = report["moderation"]["counts"]
    assert {name: count for name, count in counts.items() if name.startswith(("found", "refused"))} == {
        "found_block": 1, "refused_blocked": 1, "refused_muted": 1,
    }  # fmt: skip
    assert b"<td>refused muted</td>" in report_html(report)
