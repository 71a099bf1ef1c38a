"""Export and erasure of users whose messages are held, or who have reported others: nothing of them is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.ledger import Reader
from broker.server import Broker
from protocol.codes import LeaveReason, Outcome
from protocol.operations.reviews import DecideReview, ListReview, Verdict
from tests.support.broker import joined_link
from tests.support.durable import durable_broker
from tests.support.erasing import erase, marks_in, marks_in_files
from tests.support.operating import exported, operate
from tests.support.reviewing import REVIEWED, report, say
from tests.support.until import until

pytestmark = pytest.mark.integration
VICTIM = 'víc"tor'
"""The user of `tests.support.erasing`, whose texts hold "secret"."""


async def fill(broker: Broker, room_name: str) -> None:
    """Let the user and another one post and report in a room that holds everything."""
    async with (
        joined_link(broker, f"dev:{VICTIM}", room_name) as (victim, room),
        joined_link(broker, "dev:bob", room_name) as (bob, number),
    ):
        for sequence, text in enumerate(("secret 1", "secret 2", "secret 3"), 1):
            assert (await say(victim, room, sequence, text, 140)).outcome is Outcome.HELD
        assert (await say(bob, number, 1, "hello", 140)).outcome is Outcome.HELD
        await operate(broker, *decided(room_name, 1, Verdict.APPROVE, "no secret"))
        await operate(broker, *decided(room_name, 2, Verdict.REJECT, "a secret"))
        assert await report(bob, number, room_name, offset=1, reason="rude") == (False,)
        await operate(broker, *decided(room_name, 3, Verdict.APPROVE))
        await operate(broker, *decided(room_name, 4, Verdict.APPROVE))
        assert await report(victim, room, room_name, offset=3, reason="my secret") == (False,)
        assert (await say(victim, room, 4, "secret 4", 140)).outcome is Outcome.HELD
        assert (await say(bob, number, 2, "later", 140)).outcome is Outcome.HELD
        assert (await say(victim, room, 5, "secret 5", 140)).outcome is Outcome.HELD
        assert (await say(bob, number, 3, "now", 140)).outcome is Outcome.HELD
        await operate(broker, "moderation.decide", *DecideReview(room_name, (9, 10), Verdict.REJECT, "rude"))


def decided(room: str, id: int, verdict: Verdict, reason: str = "why") -> tuple[Any, ...]:
    return "moderation.decide", *DecideReview(room, (id,), verdict, reason)


async def waiting(broker: Broker, room: str) -> list[tuple[int, str]]:
    page = await operate(broker, "moderation.queue", *ListReview(room))
    return [(item.id, item.user) for item in page.items]


async def test_an_export_has_what_was_held_of_a_user_and_its_reports(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, **REVIEWED) as broker:
        await fill(broker, "one")
        items, _ = await exported(broker, VICTIM)
        held = [(item["id"], item["type"], item["data"]) for item in items if item["kind"] == "held"]
        assert held == [(str(id), 140, f"secret {number}") for id, number in ((1, 1), (2, 2), (3, 3), (7, 4), (9, 5))]
        assert [item["data"] for item in items if item["kind"] == "report"] == ["my secret"]
        for limit in (1, 2):
            pages, _ = await exported(broker, VICTIM, limit)
            assert pages == items
        others, _ = await exported(broker, "bob")
        assert not marks_in(repr(others).encode())


async def test_an_erased_user_is_in_no_queue_and_in_no_file_and_the_others_stay(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, **REVIEWED) as broker:
        for room in ("one", "closed"):
            await fill(broker, room)
        closed = broker.hub.find("closed")
        assert closed is not None
        closed.end(LeaveReason.ROOM_IDLE)
        await until(lambda: broker.hub.find("closed") is None)
        await erase(broker)
        for room in ("one", "closed"):
            assert [user for _, user in await waiting(broker, room)] == ["bob", "bob"]
            page = await operate(broker, "moderation.queue", *ListReview(room))
            assert not marks_in(repr(page).encode())
        before = {room: await waiting(broker, room) for room in ("one", "closed")}
    assert not marks_in_files(tmp_path)
    reader = Reader(tmp_path / "ledger.db")
    reader.verify_all()
    reader.close()
    async with durable_broker(tmp_path, **REVIEWED) as broker:
        for room in ("one", "closed"):
            assert await waiting(broker, room) == before[room]
            await operate(broker, *decided(room, before[room][-1][0], Verdict.APPROVE))
