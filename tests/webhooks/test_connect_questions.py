"""ask.connect over real HTTP: who a connection is that has no token of the broker's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from protocol.codes import CloseCode, MessageType, Outcome, Role, Tier
from protocol.messages import MAGIC, Ack, Auth, Authenticated, ClientHello, GoAway, Join, Joined, Post
from tests.support.broker import RawLink, raw_link, running_broker
from tests.support.questions import answering, misbehaving, questions_to
from tests.support.receiver import Receiver, receiver
from tests.support.until import until

pytestmark = pytest.mark.integration

AUTH = {"secret": "x" * 32}
ANN = {"sub": "ann", "name": "安", "role": "vip", "rooms": [{"pattern": "live-*"}]}


def asked(running: Receiver, directory: Path) -> dict[str, Any]:
    """Ask a receiver who a connection is, with time enough."""
    return questions_to(running.url, directory, connect={"deadline_ms": 4000})


def by_token(question: dict[str, Any]) -> Any:
    """Know the token cookie-ann."""
    if question["data"]["token"] == "cookie-ann":
        return {"action": "allow", "claims": ANN}
    return {"action": "deny", "reason": "who?"}


async def test_the_platform_says_who_a_connection_is(tmp_path: Path) -> None:
    async with (
        receiver(answering(by_token)) as running,
        running_broker(auth=AUTH, webhooks=asked(running, tmp_path)) as broker,
        raw_link(broker) as link,
    ):
        answer = await link.login("cookie-ann")
        assert (answer.user_id, answer.name) == ("ann", "安")
        _, joined = await link.join("live-1")
        assert joined.role is Role.VIP
        assert json.loads(running.requests[0].body)["data"] == {
            "deadline_ms": 4000, "token": "cookie-ann", "address": "127.0.0.1",
        }  # fmt: skip


async def test_what_is_sent_with_auth_waits_and_is_handled(tmp_path: Path) -> None:
    async with (
        receiver(answering(by_token)) as running,
        running_broker(auth=AUTH, webhooks=asked(running, tmp_path)) as broker,
        raw_link(broker) as link,
    ):
        await link.send(
            (ClientHello(MAGIC, 1, 1, 0, "test"), 0, 0), (Auth("cookie-ann"), 0, 0), (Join("live-1", Tier.FULL), 0, 1)
        )
        await link.expect(Authenticated)
        frame, _ = await link.expect(Joined)
        await link.send((Post(MessageType.DANMAKU, "", ("hello", None)), frame.room, 2))
        _, ack = await link.expect(Ack)
        assert ack.results[0].outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"sub": "ann"}, "rooms is missing"),
        ({"rooms": []}, "sub is missing"),
        ({**ANN, "sub": "\u0000"}, "sub is not a user id"),
        ({**ANN, "role": "king"}, "role is not one of"),
        ({**ANN, "exp": 5}, "is over"),
        ({**ANN, "exp": "soon"}, "exp is not a time"),
        ({**ANN, "rooms": "*"}, "rooms is not a list"),
    ],
)
async def test_claims_that_break_a_rule_are_refused(claims: dict[str, Any], why: str, tmp_path: Path) -> None:
    async with (
        receiver(answering(lambda question: {"action": "allow", "claims": claims})) as running,
        running_broker(auth=AUTH, webhooks=asked(running, tmp_path)) as broker,
        raw_link(broker) as link,
    ):
        await link.hello()
        with capture_logs() as logged:
            await link.send((Auth("cookie"), 0, 0))
            assert (await link.expect_close()).code == CloseCode.AUTH_FAILED
        assert [why in line["why"] for line in logged if line["event"] == "auth refused"] == [True]


async def test_who_is_denied_counts_as_a_failed_login(tmp_path: Path) -> None:
    async with (
        receiver(answering(by_token)) as running,
        running_broker(
            auth=AUTH,
            admission={"failed_logins_per_minute": 1},
            webhooks=asked(running, tmp_path),
        ) as broker,
    ):
        for expected in (CloseCode.AUTH_FAILED, CloseCode.TOO_MANY_FROM_ADDRESS):
            async with raw_link(broker) as link:
                await link.hello()
                await link.send((Auth("cookie-eve"), 0, 0))
                assert (await link.expect_close()).code == expected
        assert len(running.requests) == 1


async def login_of(link: RawLink, token: str) -> int | str:
    """Return the user id, or the close code."""
    await link.hello()
    await link.send((Auth(token), 0, 0))
    while True:
        frame = await link.next_frame()
        assert frame is not None
        if isinstance(frame.message, Authenticated):
            return frame.message.user_id
        if isinstance(frame.message, GoAway):
            return int(frame.message.code)


@pytest.mark.parametrize("on_failure", ["allow", "deny"])
@pytest.mark.parametrize("receiver_is", misbehaving)
async def test_a_receiver_that_fails_makes_guests_or_nobody(receiver_is: str, on_failure: str, tmp_path: Path) -> None:
    settings = {"deadline_ms": 150, "on_failure": on_failure}
    async with (
        receiver(misbehaving[receiver_is]) as running,
        running_broker(
            auth={**AUTH, "guest_access": ["*"]}, webhooks=questions_to(running.url, tmp_path, connect=settings)
        ) as broker,
        raw_link(broker) as link,
    ):
        who = await login_of(link, "cookie-ann")
        assert str(who).startswith("guest-") if on_failure == "allow" else who == CloseCode.OVERLOADED
        assert broker.questions is not None
        assert broker.questions.in_flight == 0


async def test_a_connection_that_ends_while_it_is_asked_about_leaves_nothing(tmp_path: Path) -> None:
    released = trio.Event()

    async def slow(question: dict[str, Any]) -> Any:
        await released.wait()
        return by_token(question)

    async with (
        receiver(answering(slow)) as running,
        running_broker(auth=AUTH, webhooks=asked(running, tmp_path)) as broker,
    ):
        async with raw_link(broker) as link:
            await link.hello()
            await link.send((Auth("cookie-ann"), 0, 0))
            await until(lambda: len(running.requests) == 1)
        released.set()
        await until(lambda: broker.questions is not None and broker.questions.in_flight == 0)
        await until(lambda: len(broker.context.sessions) == 0)
        assert broker.users.sessions("ann") == ()


async def test_one_address_has_a_share_of_the_questions(tmp_path: Path) -> None:
    settings = {"deadline_ms": 4000, "max_in_flight": 4}
    async with (
        receiver(misbehaving["hang"]) as running,
        running_broker(auth=AUTH, webhooks=questions_to(running.url, tmp_path, connect=settings)) as broker,
        raw_link(broker) as first,
        raw_link(broker) as second,
    ):
        await first.hello()
        await first.send((Auth("cookie-ann"), 0, 0))
        await until(lambda: len(running.requests) == 1)
        goaway = await login_of(second, "cookie-bob")
        assert goaway == CloseCode.TOO_MANY_FROM_ADDRESS


async def test_tokens_of_the_broker_are_not_asked_about(tmp_path: Path) -> None:
    async with (
        receiver(answering(by_token)) as running,
        running_broker(auth=AUTH, webhooks=asked(running, tmp_path)) as broker,
        raw_link(broker) as link,
    ):
        answer = await link.login(broker.context.auth.issue("bob"))
        assert answer.user_id == "bob"
        assert running.requests == []
