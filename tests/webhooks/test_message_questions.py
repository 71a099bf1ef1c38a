"""ask.message over real HTTP: outcomes, the order of one sender, failures open and closed, links that go away."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import trio
from standardwebhooks.webhooks import Webhook

from broker.auth.grants import RoomGrant
from broker.server import Broker
from broker.sessions.reviews import MAX_REVIEWED
from protocol.codes import ErrorCode, LeaveReason, MessageType, Outcome, Role
from protocol.messages import Ack, AckResult, Auth, Leave, Left, Post, Tick
from tests.support.broker import RawLink, configuration, joined_link, running_broker
from tests.support.questions import SECRET, answering, misbehaving, questions_to
from tests.support.receiver import Receiver, receiver
from tests.support.until import until

pytestmark = pytest.mark.integration

CUSTOM = {"id": 130, "name": "poke", "lane": "chat", "roles": ["viewer"], "rate_per_s": 1000.0, "burst": 1000}
AUTH = {"secret": "x" * 32}
QUICK = {"user_chat_per_s": 1000.0, "user_chat_burst": 1000, "duplicate_window_s": 0}


def by_text(question: dict[str, Any]) -> Any:
    """Answer as the text of a message says."""
    text = question["data"].get("text", "")
    return {
        "mask": {"action": "mask", "text": "***"},
        "block": {"action": "block", "reason": "不文明用语"},
        "plain block": {"action": "block"},
        "hold": {"action": "hold"},
    }.get(text, {"action": "allow"})


def asked(running: Receiver, directory: Path, **settings: Any) -> dict[str, Any]:
    """Overrides of a broker that asks about messages, rates that hinder no test, a ledger for what is held."""
    return {
        "webhooks": questions_to(running.url, directory, message={"deadline_ms": 5000, **settings}),
        "room": QUICK,
        "types": [CUSTOM],
        "ledger": {"data_dir": str(directory / "ledger")},
    }


async def say(link: RawLink, room: int, *texts: str, first: int = 1) -> None:
    """Post danmaku, numbered from ``first``, in one write."""
    posts = [Post(MessageType.DANMAKU, "", (text, None)) for text in texts]
    await link.send(*((post, room, number) for number, post in enumerate(posts, first)))


async def results_of(link: RawLink, count: int) -> tuple[list[AckResult], dict[int, str], list[str]]:
    """Return ``count`` results, the reasons, and the texts of the ticks that came before the last of them."""
    results: list[AckResult] = []
    reasons: dict[int, str] = {}
    shown: list[str] = []
    while len(results) < count:
        frame = await link.next_frame()
        assert frame is not None
        if isinstance(frame.message, Ack):
            results += frame.message.results
            reasons |= {each.sequence: each.text for each in frame.message.reasons}
        elif isinstance(frame.message, Tick):
            shown += [entry.payload[0] for entry in frame.message.entries]
    return results, reasons, shown


async def test_each_answer_is_the_result_of_its_message_and_members_see_what_is_allowed(tmp_path: Path) -> None:
    async with (
        receiver(answering(by_text)) as running,
        running_broker(**asked(running, tmp_path)) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        await say(ann, room, "hello", "mask", "block", "plain block", "hold", "bye")
        results, reasons, _ = await results_of(ann, 6)
        assert {result.sequence: (result.outcome, result.detail) for result in results} == {
            1: (Outcome.ACCEPTED, 0),
            2: (Outcome.MASKED, 0),
            3: (Outcome.REJECTED, ErrorCode.BLOCKED),
            4: (Outcome.REJECTED, ErrorCode.BLOCKED),
            5: (Outcome.HELD, 0),
            6: (Outcome.ACCEPTED, 0),
        }
        assert reasons == {3: "不文明用语"}
        shown: list[str] = []
        while "bye" not in shown:
            _, tick = await bob.expect(Tick)
            shown += [entry.payload[0] for entry in tick.entries]
        assert shown == ["hello", "***", "bye"]
        assert broker.questions is not None
        assert broker.questions.results == {
            "message.allow": 2, "message.mask": 1, "message.block": 2, "message.hold": 1,
        }  # fmt: skip
        assert broker.stats().balanced


async def test_the_question_says_whose_message_it_is_and_verifies(tmp_path: Path) -> None:
    async with (
        receiver(answering(by_text)) as running,
        running_broker(**asked(running, tmp_path)) as broker,
        joined_link(broker, "dev:ann", "live-1") as (ann, room),
    ):
        await ann.post(room, 1, MessageType.DANMAKU, ("你好", (1, 255, 0)))
        await results_of(ann, 1)
        await ann.post(room, 2, CUSTOM["id"], {"a": 1})  # type: ignore[arg-type]
        await results_of(ann, 1)
        first, second = running.requests
        question = Webhook(SECRET).verify(first.body, first.headers)
        assert question["id"] == first.headers["webhook-id"]
        assert (question["type"], question["room"], question["tenant"]) == ("ask.message", "live-1", "")
        assert question["data"] == {
            "deadline_ms": 5000, "user": "ann", "name": "ann", "role": "viewer", "message_type": 1,
            "payload": ["你好", [1, 255, 0]], "text": "你好",
        }  # fmt: skip
        assert Webhook(SECRET).verify(second.body, second.headers)["data"]["payload"] == {"a": 1}


async def test_the_order_of_one_sender_is_kept_and_another_is_not_delayed(tmp_path: Path) -> None:
    released = trio.Event()

    async def slow(question: dict[str, Any]) -> dict[str, str]:
        if question["data"].get("text") == "slow":
            await released.wait()
        return {"action": "allow"}

    async with (
        receiver(answering(slow)) as running,
        running_broker(**asked(running, tmp_path)) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        emote = Post(MessageType.EMOTE, "", ("smile",))
        await say(ann, room, "slow", "second")
        await ann.send((emote, room, 3))
        await until(lambda: len(running.requests) == 2)  # the emote is not asked about, and waits all the same
        await say(bob, room, "bob")
        results, _, shown = await results_of(bob, 1)
        assert results[0].outcome is Outcome.ACCEPTED
        released.set()
        results, _, _ = await results_of(ann, 3)
        assert [result.sequence for result in results] == [1, 2, 3]
        while "smile" not in shown:
            _, tick = await bob.expect(Tick)
            shown += [entry.payload[0] for entry in tick.entries]
        assert shown == ["bob", "slow", "second", "smile"]


async def test_staff_and_likes_are_not_asked_about(tmp_path: Path) -> None:
    async with (
        receiver(answering(by_text)) as running,
        running_broker(**asked(running, tmp_path)) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
    ):
        await say(host, room, "block")
        await host.post(room, 2, MessageType.LIKE, (3,))
        results, _, _ = await results_of(host, 2)
        assert {result.outcome for result in results} == {Outcome.ACCEPTED}
        assert running.requests == []


@pytest.mark.parametrize("on_failure", ["allow", "deny"])
@pytest.mark.parametrize("receiver_is", misbehaving)
async def test_a_receiver_that_fails_opens_or_closes_as_configured(
    receiver_is: str, on_failure: str, tmp_path: Path
) -> None:
    expected = Outcome.ACCEPTED if on_failure == "allow" else Outcome.UNAVAILABLE
    async with (
        receiver(misbehaving[receiver_is]) as running,
        running_broker(**asked(running, tmp_path, deadline_ms=150, on_failure=on_failure)) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:max:host") as (host, _),
    ):
        await say(ann, room, "hello")
        await say(host, room, "staff")
        results, _, _ = await results_of(host, 1)
        assert results[0].outcome is Outcome.ACCEPTED
        results, _, _ = await results_of(ann, 1)
        assert (results[0].outcome, results[0].detail > 0) == (expected, expected is Outcome.UNAVAILABLE)
        assert broker.questions is not None
        (result,) = broker.questions.results
        assert result in {"message.timeout", "message.too_large", "message.broken", "message.invalid"}
        assert broker.questions.in_flight == 0


@pytest.mark.parametrize("on_failure", ["allow", "deny"])
async def test_an_endpoint_that_fails_is_left_alone_and_used_again_once_it_answers(
    on_failure: str, tmp_path: Path
) -> None:
    async with (
        receiver(misbehaving["500"]) as running,
        running_broker(**asked(running, tmp_path, on_failure=on_failure)) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
    ):
        for number in range(1, 6):
            await say(ann, room, f"text {number}", first=number)
            await results_of(ann, 1)
        assert len(running.requests) == 5
        await say(ann, room, "not asked about", first=6)
        results, _, _ = await results_of(ann, 1)
        assert results[0].outcome is (Outcome.ACCEPTED if on_failure == "allow" else Outcome.UNAVAILABLE)
        assert len(running.requests) == 5
        running.answer = answering(by_text)
        with trio.fail_after(20):
            for number in range(7, 10_000):
                await say(ann, room, "block", first=number)
                results, _, _ = await results_of(ann, 1)
                if results[0].detail == ErrorCode.BLOCKED:
                    break
                await trio.sleep(0.05)
        assert broker.questions is not None
        assert broker.questions.results["message.paused"] > 0


async def test_a_full_pool_answers_at_once_and_a_share_of_it_is_one_user_s(tmp_path: Path) -> None:
    async with (
        receiver(misbehaving["hang"]) as running,
        running_broker(**asked(running, tmp_path, max_in_flight=4, on_failure="allow")) as broker,
        joined_link(broker, "dev:u0") as (first, room),
    ):
        await say(first, room, "one", "two")
        results, _, _ = await results_of(first, 1)
        assert (results[0].sequence, results[0].outcome) == (2, Outcome.LIMITED)
        async with trio.open_nursery() as nursery:

            async def one(user: int, *, is_full: bool, done: trio.Event) -> None:
                async with joined_link(broker, f"dev:u{user}") as (link, number):
                    await say(link, number, f"text of {user}")
                    if is_full:
                        results, _, _ = await results_of(link, 1)
                        assert results[0].outcome is Outcome.ACCEPTED
                        nursery.cancel_scope.cancel()
                    done.set()
                    await trio.sleep_forever()

            for user in range(1, 4):
                done = trio.Event()
                nursery.start_soon(lambda user=user, done=done: one(user, is_full=False, done=done))  # type: ignore[misc]
                await done.wait()
            await until(lambda: len(running.requests) == 4)
            nursery.start_soon(lambda: one(4, is_full=True, done=trio.Event()))
        assert broker.questions is not None
        assert broker.questions.results["message.full"] == 1
        assert broker.questions.results["message.busy"] == 1


async def test_what_a_link_has_waiting_is_bounded(tmp_path: Path) -> None:
    async with (
        receiver(misbehaving["hang"]) as running,
        running_broker(**asked(running, tmp_path, max_in_flight=1024)) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
    ):
        await say(ann, room, *[f"text {number}" for number in range(MAX_REVIEWED + 3)])
        results, _, _ = await results_of(ann, 3)
        assert [result.outcome for result in results] == [Outcome.LIMITED] * 3


async def _gone(broker: Broker, link: RawLink, room: int, how: str) -> None:
    if how == "leave":
        await link.send((Leave(), room, 99))
        results, _, _ = await results_of(link, 2)
        assert [(each.outcome, each.detail) for each in results] == [(Outcome.REJECTED, ErrorCode.NOT_JOINED)] * 2
    elif how == "close":
        await link.stream.aclose()
    elif how == "kick":
        session = broker.users.sessions("ann")[0]
        member = session.memberships[0]  # type: ignore[attr-defined]
        member.room.remove(member, LeaveReason.KICKED, "spam", broker.poller.now)
    else:
        found = broker.hub.find("lobby")
        assert found is not None
        broker.hub.crash(found)


@pytest.mark.parametrize("how", ["leave", "close", "kick", "crash"])
async def test_a_link_that_goes_while_it_is_asked_about_has_one_answer_or_none(how: str, tmp_path: Path) -> None:
    released, answered = trio.Event(), trio.Event()

    async def slow(question: dict[str, Any]) -> dict[str, str]:
        await released.wait()
        answered.set()
        return {"action": "allow"}

    async with (
        receiver(answering(slow)) as running,
        running_broker(**asked(running, tmp_path)) as broker,
        joined_link(broker, "dev:bob", "other") as (bob, other),
    ):
        async with joined_link(broker, "dev:ann") as (ann, room):
            await say(ann, room, "one", "two")
            await until(lambda: len(running.requests) == 2)
            await _gone(broker, ann, room, how)
            if how in ("kick", "crash"):
                await ann.expect(Left)
            released.set()
            await until(lambda: broker.questions is not None and broker.questions.in_flight == 0)
            if how != "close":
                number, joined = await ann.join("after", sequence=100)
                assert joined.online == 1
                assert number != room
        await say(bob, other, "still here")
        results, _, _ = await results_of(bob, 1)
        assert results[0].outcome is Outcome.ACCEPTED


async def test_a_message_that_waits_is_not_shown_in_a_room_that_a_new_token_does_not_grant(tmp_path: Path) -> None:
    released = trio.Event()

    async def slow(question: dict[str, Any]) -> dict[str, str]:
        if question["data"]["text"] == "waits":
            await released.wait()
        return {"action": "allow"}

    async with receiver(answering(slow)) as running, running_broker(**asked(running, tmp_path), auth=AUTH) as broker:
        tokens = [broker.context.auth.issue(user) for user in ("ann", "bob")]
        async with joined_link(broker, tokens[0]) as (ann, room), joined_link(broker, tokens[1]) as (bob, number):
            await say(ann, room, "waits")
            await until(lambda: len(running.requests) == 1)
            elsewhere = [RoomGrant("elsewhere", Role.VIEWER, None)]
            await ann.send((Auth(broker.context.auth.issue("ann", rooms=elsewhere)), 0, 9))
            _, left = await ann.expect(Left)
            assert left.reason is LeaveReason.NOT_GRANTED
            released.set()
            await until(lambda: broker.questions is not None and broker.questions.in_flight == 0)
            await say(bob, number, "shown")
            _, tick = await bob.expect(Tick)
            assert [entry.payload[0] for entry in tick.entries] == ["shown"]


async def test_a_reload_changes_secret_and_url_and_a_question_under_way_has_its_answer(tmp_path: Path) -> None:
    released = trio.Event()

    async def slow(question: dict[str, Any]) -> Any:
        await released.wait()
        return by_text(question)

    async with (
        receiver(answering(slow)) as old,
        receiver(answering(by_text)) as new,
        running_broker(**asked(old, tmp_path)) as broker,
        joined_link(broker, "dev:ann") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        await say(ann, room, "block")
        await until(lambda: len(old.requests) == 1)
        config = configuration(**asked(new, tmp_path))
        other = "whsec_" + base64.b64encode(b"n" * 32).decode()
        (tmp_path / "webhook-secret").write_text(f"{other}\n{SECRET}\n", encoding="utf-8")
        assert broker.reload(config) == []
        await say(bob, room, "hold")
        results, _, _ = await results_of(bob, 1)
        assert results[0].outcome is Outcome.HELD
        (request,) = new.requests
        for secret in (other, SECRET):
            Webhook(secret).verify(request.body, request.headers)
        released.set()
        results, _, _ = await results_of(ann, 1)
        assert results[0].detail == ErrorCode.BLOCKED
        (tmp_path / "webhook-secret").write_text("nonsense", encoding="utf-8")
        with pytest.raises(ValueError, match="begins with whsec_"):
            broker.reload(config)
        await say(bob, room, "block", first=2)
        results, _, _ = await results_of(bob, 1)
        assert results[0].detail == ErrorCode.BLOCKED
