"""Reload of [webhooks.questions]: kinds that begin and end to be asked, and settings that change, on open links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from broker.config.schema import Config
from protocol.codes import ErrorCode, MessageType, Outcome, Tier
from protocol.messages import Ack, AckResult, ErrorReply, Join
from tests.support.broker import RawLink, configuration, joined_link, raw_link, running_broker
from tests.support.questions import answering, questions_to
from tests.support.receiver import Receiver, receiver
from tests.support.until import until

pytestmark = pytest.mark.integration

QUICK = {"user_chat_per_s": 1000.0, "user_chat_burst": 1000, "duplicate_window_s": 0}


def config_of(running: Receiver, directory: Path, **kinds: dict[str, Any]) -> Config:
    return configuration(webhooks=questions_to(running.url, directory, **kinds), room=QUICK)


def block(question: dict[str, Any]) -> dict[str, Any]:
    """Allow no message and no JOIN."""
    return {"action": "block" if question["type"] == "ask.message" else "deny"}


async def say(link: RawLink, room: int, sequence: int, text: str = "hello") -> None:
    await link.post(room, sequence, MessageType.DANMAKU, (text, None))


async def next_result(link: RawLink) -> AckResult:
    _, ack = await link.expect(Ack)
    (result,) = ack.results
    return result


async def test_messages_are_asked_about_from_a_reload_on_and_no_more_after_another(tmp_path: Path) -> None:
    async with (
        receiver(answering(block)) as running,
        running_broker(room=QUICK) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
    ):
        await say(ann, room, 1)
        assert (await next_result(ann)).outcome is Outcome.ACCEPTED
        assert broker.reload(config_of(running, tmp_path, message={"deadline_ms": 5000})) == []
        await say(ann, room, 2)
        assert (await next_result(ann)).detail == ErrorCode.BLOCKED
        assert broker.reload(config_of(running, tmp_path)) == []
        await say(ann, room, 3)
        assert (await next_result(ann)).outcome is Outcome.ACCEPTED
        assert len(running.requests) == 1
        assert broker.questions.results == {"message.block": 1}, "counts stay"


async def test_a_question_under_way_when_its_kind_ends_keeps_the_order_and_has_its_answer(tmp_path: Path) -> None:
    released = trio.Event()

    async def slow(question: dict[str, Any]) -> dict[str, Any]:
        await released.wait()
        return block(question)

    async with (
        receiver(answering(slow)) as running,
        running_broker(room=QUICK) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
    ):
        broker.reload(config_of(running, tmp_path, message={"deadline_ms": 5000}))
        await say(ann, room, 1)
        await until(lambda: len(running.requests) == 1)
        broker.reload(config_of(running, tmp_path))
        await say(ann, room, 2)
        await trio.testing.wait_all_tasks_blocked()
        released.set()
        results: list[AckResult] = []
        while len(results) < 2:
            results += (await ann.expect(Ack))[1].results
        assert [(each.sequence, each.outcome) for each in results] == [(1, Outcome.REJECTED), (2, Outcome.ACCEPTED)]
        assert len(running.requests) == 1


async def test_deadline_failure_roles_and_bound_change(tmp_path: Path) -> None:
    async def hang(question: dict[str, Any]) -> Any:
        await trio.sleep_forever()

    first = {"deadline_ms": 10_000, "on_failure": "deny", "max_in_flight": 1}
    async with (
        receiver(answering(hang)) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, message=first), room=QUICK) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
        joined_link(broker, "dev:max:host") as (host, _),
    ):
        await say(ann, room, 1)
        await until(lambda: len(running.requests) == 1)
        await say(bob, room, 1)
        assert (await next_result(bob)).outcome is Outcome.UNAVAILABLE
        then = {"deadline_ms": 50, "on_failure": "allow", "max_in_flight": 8, "exempt_roles": ["viewer"]}
        assert broker.reload(config_of(running, tmp_path, message=then)) == []
        await say(bob, room, 2)
        assert (await next_result(bob)).outcome is Outcome.ACCEPTED
        assert len(running.requests) == 1, "viewers are exempt now"
        await say(host, room, 1)
        assert (await next_result(host)).outcome is Outcome.ACCEPTED
        assert broker.questions.results["message.timeout"] == 1
        assert broker.questions.in_flight == 1, "the first one has its own deadline"
        broker.reload(config_of(running, tmp_path, message={**then, "exempt_roles": [], "sample": 0.0}))
        await say(host, room, 2)
        assert (await next_result(host)).outcome is Outcome.ACCEPTED
        assert len(running.requests) == 2


async def test_joins_and_calls_of_viewers_are_asked_from_a_reload_on(tmp_path: Path) -> None:
    async with (
        receiver(answering(block)) as running,
        running_broker(room=QUICK) as broker,
        raw_link(broker) as link,
    ):
        await link.login("dev:ann")
        broker.reload(config_of(running, tmp_path, join={"deadline_ms": 5000}, app={}))
        await link.send((Join("live", Tier.FULL), 0, 1))
        assert (await link.expect(ErrorReply))[1].code == ErrorCode.NOT_ALLOWED
        assert broker.questions.app is not None
        broker.reload(config_of(running, tmp_path))
        await link.join("live", sequence=2)
        assert broker.questions.app is None
        assert broker.questions.results == {"join.deny": 1}


async def test_users_who_were_allowed_are_remembered_over_reloads_that_keep_the_time(tmp_path: Path) -> None:
    settings = {"deadline_ms": 5000, "remember_s": 60}
    async with receiver() as running, running_broker(room=QUICK) as broker:
        asked = []
        for kinds in (settings, {**settings, "deadline_ms": 4000}, {**settings, "remember_s": 0}):
            broker.reload(config_of(running, tmp_path, join=kinds))
            async with joined_link(broker, "dev:ann"):
                asked.append(len(running.requests))
        assert asked == [1, 1, 2]


async def test_a_file_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    async with (
        receiver(answering(block)) as running,
        running_broker(room=QUICK) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
    ):
        config = config_of(running, tmp_path, message={"deadline_ms": 5000})
        (tmp_path / "webhook-secret").write_text("nonsense", encoding="utf-8")
        with pytest.raises(ValueError, match="begins with whsec_"):
            broker.reload(config)
        await say(ann, room, 1)
        assert (await next_result(ann)).outcome is Outcome.ACCEPTED
