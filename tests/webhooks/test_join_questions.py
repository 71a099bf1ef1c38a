"""ask.join over real HTTP: who may enter, failures open and closed, links that go away meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from protocol.codes import ErrorCode, Tier
from protocol.messages import ErrorReply, Join, Joined, Resume, Resumed
from tests.support.broker import RawLink, raw_link, running_broker
from tests.support.questions import answering, misbehaving, questions_to
from tests.support.receiver import receiver
from tests.support.until import until

pytestmark = pytest.mark.integration


def by_room(question: dict[str, Any]) -> Any:
    """Deny the room called denied."""
    return {"action": "deny", "reason": "members only"} if question["room"] == "denied" else {"action": "allow"}


async def refused(link: RawLink, name: str, sequence: int = 1) -> ErrorReply:
    """Return the refusal of a JOIN."""
    await link.send((Join(name, Tier.FULL), 0, sequence))
    frame, error = await link.expect(ErrorReply)
    assert frame.sequence == sequence
    return error


async def test_the_platform_allows_and_denies(tmp_path: Path) -> None:
    async with (
        receiver(answering(by_room)) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, join={"deadline_ms": 5000})) as broker,
        raw_link(broker) as link,
    ):
        await link.login("dev:ann")
        error = await refused(link, "denied")
        assert (error.code, error.message, error.field) == (ErrorCode.NOT_ALLOWED, "members only", "room_name")
        assert broker.hub.find("denied") is None, "a room is not opened for who may not enter"
        await link.join("allowed", sequence=2)
        assert b'"user":"ann","name":"ann","role":"viewer"' in running.requests[0].body
        assert broker.questions is not None
        assert broker.questions.results == {"join.deny": 1, "join.allow": 1}


async def test_a_resume_is_asked_about_and_staff_are_not(tmp_path: Path) -> None:
    async with (
        receiver(answering(by_room)) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, join={"deadline_ms": 5000})) as broker,
        raw_link(broker) as host,
        raw_link(broker) as link,
    ):
        await host.login("dev:max:host")
        _, snapshot = await host.join("denied")
        assert running.requests == []
        await link.login("dev:ann")
        await link.send((Resume("denied", Tier.FULL, snapshot.epoch, 0), 0, 1))
        assert (await link.expect(ErrorReply))[1].code == ErrorCode.NOT_ALLOWED
        assert len(running.requests) == 1


@pytest.mark.parametrize("on_failure", ["allow", "deny"])
@pytest.mark.parametrize("receiver_is", misbehaving)
async def test_a_receiver_that_fails_opens_or_closes_as_configured(
    receiver_is: str, on_failure: str, tmp_path: Path
) -> None:
    settings = {"deadline_ms": 150, "on_failure": on_failure}
    async with (
        receiver(misbehaving[receiver_is]) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, join=settings)) as broker,
        raw_link(broker) as link,
    ):
        await link.login("dev:ann")
        if on_failure == "allow":
            await link.join("lobby")
        else:
            error = await refused(link, "lobby")
            assert (error.code, error.retry_after_ms > 0) == (ErrorCode.OVERLOADED, True)
        assert broker.questions is not None
        assert broker.questions.in_flight == 0


async def test_other_joins_of_the_link_and_of_others_go_on(tmp_path: Path) -> None:
    released = trio.Event()

    async def slow(question: dict[str, Any]) -> dict[str, str]:
        if question["room"] == "slow":
            await released.wait()
        return {"action": "allow"}

    async with (
        receiver(answering(slow)) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, join={"deadline_ms": 9000})) as broker,
        raw_link(broker) as link,
    ):
        await link.login("dev:ann")
        await link.send(
            (Join("slow", Tier.FULL), 0, 1), (Join("quick", Tier.FULL), 0, 2), (Join("slow", Tier.FULL), 0, 3)
        )
        frame, error = await link.expect(ErrorReply)
        assert (frame.sequence, error.code) == (3, ErrorCode.ALREADY_JOINED)
        frame, joined = await link.expect(Joined)
        assert (frame.sequence, joined.room_name) == (2, "quick")
        released.set()
        frame, joined = await link.expect(Joined)
        assert (frame.sequence, joined.room_name) == (1, "slow")


async def test_a_link_that_ends_while_it_is_asked_about_leaves_nothing(tmp_path: Path) -> None:
    released = trio.Event()

    async def slow(question: dict[str, Any]) -> dict[str, str]:
        await released.wait()
        return {"action": "allow"}

    async with (
        receiver(answering(slow)) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, join={"deadline_ms": 9000})) as broker,
    ):
        async with raw_link(broker) as link:
            await link.login("dev:ann")
            await link.send((Join("lobby", Tier.FULL), 0, 1))
            await until(lambda: len(running.requests) == 1)
        await until(lambda: len(broker.context.sessions) == 0)
        released.set()
        await until(lambda: broker.questions is not None and broker.questions.in_flight == 0)
        assert broker.hub.find("lobby") is None


@pytest.mark.parametrize(("remember_s", "asked"), [(0, 2), (60, 1)])
async def test_who_was_allowed_may_come_back_without_a_question(remember_s: int, asked: int, tmp_path: Path) -> None:
    settings = {"deadline_ms": 5000, "remember_s": remember_s}
    async with (
        receiver(answering(by_room)) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, join=settings)) as broker,
    ):
        async with raw_link(broker) as link:
            await link.login("dev:ann")
            _, snapshot = await link.join("lobby")
        async with raw_link(broker) as link:
            await link.login("dev:ann")
            await link.send((Resume("lobby", Tier.FULL, snapshot.epoch, snapshot.offset), 0, 1))
            assert (await link.expect(Resumed))[1].recovered
        async with raw_link(broker) as link:
            await link.login("dev:bob")
            await link.join("lobby")
        assert len(running.requests) == asked + 1
