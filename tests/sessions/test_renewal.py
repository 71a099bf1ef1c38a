"""A newer token in a PING: the link lasts until its end, or keeps the old one."""

from __future__ import annotations

from typing import Any

import pytest

from broker.auth.grants import RoomGrant
from broker.server import Broker
from protocol.codes import CloseCode, ErrorCode, Feature, MessageType, Outcome, Role
from protocol.messages import Ack, AckResult, Auth, Authenticated, ErrorReply, Ping, Pong, Post
from tests.support.broker import RawLink, raw_link, running_broker, sessions_of
from tests.support.durable import gift
from tests.support.tokens import SECRET

pytestmark = pytest.mark.integration

CONFIGURED: dict[str, Any] = {"auth": {"secret": SECRET}, "ledger": {"ephemeral": True}}


def token_of(broker: Broker, user: str = "ann", *, ttl_s: float = 3600, **options: Any) -> str:
    return broker.context.auth.issue(user, ttl_s=ttl_s, **options)


async def login(link: RawLink, token: str, features: int = 0) -> Authenticated:
    await link.hello(features)
    await link.send((Auth(token), 0, 0))
    return (await link.expect(Authenticated))[1]


@pytest.mark.parametrize("features", [0, int(Feature.TICKET)])
async def test_a_newer_token_of_the_same_user_gives_the_link_its_end_and_a_ticket(features: int) -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as link:
        first = await login(link, token_of(broker, ttl_s=600), features)
        number, _ = await link.join()
        await link.send((Ping(7, False, token_of(broker, ttl_s=6000)), 0, 9))
        frame, pong = await link.expect(Pong)
        assert (frame.sequence, pong.client_ms) == (9, 7)
        assert pong.expires_at_ms - first.expires_at_ms == pytest.approx(5_400_000, abs=2000)
        assert (pong.ticket != "") is (features != 0)
        if pong.ticket:
            async with raw_link(broker) as other:
                assert (await login(other, pong.ticket)).expires_at_ms == pong.expires_at_ms
        await link.post(number, 3, MessageType.DANMAKU, ("still here",))
        assert (await link.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED


async def test_the_end_of_the_first_token_does_not_end_a_renewed_link_and_that_of_the_newer_does() -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as link:
        auth = broker.context.auth
        await login(link, token_of(broker, ttl_s=600))
        (session,) = sessions_of(broker)
        await link.send((Ping(1, False, token_of(broker, ttl_s=6000)), 0, 1))
        _, pong = await link.expect(Pong)
        assert session.grant is not None
        assert session.grant.expires_at * 1000 == pong.expires_at_ms
        assert auth.seconds_left(session.grant) > 5000
        await link.send((Ping(2, False, token_of(broker, ttl_s=900)), 0, 2))
        assert (await link.expect(Pong))[1].expires_at_ms < pong.expires_at_ms, "a shorter one counts as well"


BAD: dict[str, dict[str, Any]] = {
    "another user": {"user": "bob"},
    "fewer rooms": {"rooms": [RoomGrant("elsewhere", Role.VIEWER, None)]},
    "another role": {"rooms": [RoomGrant("*", Role.HOST, None)]},
    "fewer types": {"rooms": [RoomGrant("*", Role.VIEWER, frozenset({"like"}))]},
    "another kind of user": {"role": Role.APP},
}


@pytest.mark.parametrize("case", [*BAD, "garbage", "expired"])
async def test_any_other_token_is_refused_and_the_link_keeps_its_own(case: str) -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as link:
        await login(link, token_of(broker))
        number, _ = await link.join()
        (session,) = sessions_of(broker)
        grant = session.grant
        expired = {"expired": {"ttl_s": -3600}}
        token = "garbage" if case == "garbage" else token_of(broker, **(BAD | expired)[case])
        await link.send((Ping(1, False, token), 0, 5))
        frame, error = await link.expect(ErrorReply)
        assert (frame.room, frame.sequence, error.code, error.field) == (0, 5, ErrorCode.NOT_ALLOWED, "token")
        assert session.grant is grant
        await link.post(number, 3, MessageType.DANMAKU, ("still here",))
        assert (await link.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED


async def test_rooms_that_are_posted_to_without_joining_count_as_used() -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as app:
        await login(app, token_of(broker, "shop", role=Role.APP))
        await app.send((Post(MessageType.GIFT, "m1", gift("o-1", "bob"), "lobby"), 0, 1))
        assert (await app.expect(Ack))[1].results == (AckResult(1, Outcome.ACCEPTED, 1),)
        other = [RoomGrant("elsewhere", Role.APP, None)]
        await app.send((Ping(1, False, token_of(broker, "shop", role=Role.APP, rooms=other)), 0, 2))
        assert (await app.expect(ErrorReply))[1].code == ErrorCode.NOT_ALLOWED
        await app.send((Ping(1, False, token_of(broker, "shop", role=Role.APP)), 0, 3))
        assert (await app.expect(Pong))[1].expires_at_ms


async def test_before_auth_a_token_is_not_looked_at_and_too_many_bad_ones_end_the_link() -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as link:
        await link.hello()
        await link.send((Ping(1, False, token_of(broker)), 0, 1))
        assert (await link.expect(Pong))[1].expires_at_ms == 0
        await link.send((Auth(token_of(broker)), 0, 0))
        await link.expect(Authenticated)
        await link.send(*[(Ping(1, False, f"bad {number}"), 0, number) for number in range(200)])
        assert (await link.expect_close()).code == CloseCode.TOO_MANY_ERRORS
