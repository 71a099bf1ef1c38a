"""A newer token in a PING: the link lasts until its end, or keeps the old one."""

from __future__ import annotations

from typing import Any

import pytest

from broker.auth.grants import RoomGrant
from broker.server import Broker
from protocol.codes import CloseCode, ErrorCode, Feature, LeaveReason, MessageType, Outcome, Role
from protocol.messages import (
    Ack,
    AckResult,
    Auth,
    Authenticated,
    ErrorReply,
    Join,
    Leave,
    Left,
    Ping,
    Pong,
    Post,
    RoomRole,
)  # fmt: skip
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


# ---- AUTH again


def grant(pattern: str, role: Role = Role.VIEWER, *allow: str) -> RoomGrant:
    return RoomGrant(pattern, role, frozenset(allow) if allow else None)


async def again(link: RawLink, token: str | None, sequence: int = 7) -> None:
    await link.send((Auth(token), 0, sequence))


async def test_auth_again_changes_role_types_name_and_end_in_joined_rooms_and_leaves_the_others() -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as link:
        await login(link, token_of(broker, ttl_s=600))
        lobby, _ = await link.join("lobby")
        other, _ = await link.join("other", sequence=2)
        (session,) = sessions_of(broker)
        rooms = [grant("lobby", Role.MODERATOR, "announcement")]
        await again(link, token_of(broker, name="Ann", rooms=rooms, ttl_s=6000))
        frame, left = await link.expect(Left)
        assert (frame.room, left.reason) == (other, LeaveReason.NOT_GRANTED)
        frame, answer = await link.expect(Authenticated)
        assert (frame.sequence, answer.user_id, answer.name) == (7, "ann", "Ann")
        assert answer.rooms == (RoomRole(lobby, Role.MODERATOR),)
        assert session.grant is not None
        assert answer.expires_at_ms == session.grant.expires_at * 1000
        await link.post(lobby, 3, MessageType.ANNOUNCEMENT, ("hello",))
        assert (await link.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED
        await link.post(lobby, 4, MessageType.DANMAKU, ("hello",))
        assert (await link.expect(Ack))[1].results[0].outcome is Outcome.REJECTED, "allow names announcements alone"
        await link.send((Join("other"), 0, 5))
        assert (await link.expect(ErrorReply))[1].code == ErrorCode.ROOM_NOT_GRANTED
        room = broker.hub.find("other")
        assert room is not None
        assert len(room.members) == 0


async def test_a_guest_role_and_a_viewers_are_counted_as_such_after_auth_again() -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as link:
        await login(link, token_of(broker))
        await link.join("lobby")
        room = broker.hub.find("lobby")
        assert room is not None
        counts = []
        for role in (Role.VIEWER, Role.GUEST, Role.HOST, Role.GUEST):
            await again(link, token_of(broker, rooms=[grant("lobby", role)]))
            await link.expect(Authenticated)
            counters, _ = room.state.counters.state_for_one(0)
            counts.append((counters.online, counters.users))
        assert counts == [(1, 1), (1, 0), (1, 1), (1, 0)]
        await link.send((Leave(), room.number, 9))
        await link.expect(Left)
        counters, _ = room.state.counters.state_for_one(0)
        assert (counters.online, counters.users) == (0, 0)


@pytest.mark.parametrize("case", ["another user", "another kind of user", "garbage", "expired", "nil", "guest"])
async def test_auth_again_with_any_other_token_is_refused_and_changes_nothing(case: str) -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as link:
        await login(link, token_of(broker))
        number, _ = await link.join()
        (session,) = sessions_of(broker)
        before = session.grant
        options: dict[str, dict[str, Any]] = BAD | {"expired": {"ttl_s": -3600}}
        tokens = {"garbage": "garbage", "nil": None, "guest": "guest:" + "a" * 22}
        await again(link, tokens[case] if case in tokens else token_of(broker, **options[case]))
        frame, error = await link.expect(ErrorReply)
        assert (frame.room, frame.sequence, error.code, error.field) == (0, 7, ErrorCode.NOT_ALLOWED, "token")
        assert session.grant is before
        await link.post(number, 3, MessageType.DANMAKU, ("still here",))
        assert (await link.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED


async def test_an_address_with_too_many_failed_log_ins_waits() -> None:
    limits = {"failed_logins_per_minute": 1}
    async with running_broker(**CONFIGURED, admission=limits) as broker, raw_link(broker) as link:
        await login(link, token_of(broker))
        for _ in range(3):
            await again(link, "garbage")
        errors = [(await link.expect(ErrorReply))[1] for _ in range(3)]
        assert errors[-1].code == ErrorCode.RATE_LIMITED
        assert errors[-1].retry_after_ms > 0


async def test_a_backend_posts_without_joining_where_the_new_token_lets_it() -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as app:
        await login(app, token_of(broker, "shop", role=Role.APP))
        for number, name in enumerate(("lobby", "other")):
            await app.send((Post(MessageType.GIFT, f"m{number}", gift(f"o-{number}", "bob"), name), 0, number))
            assert (await app.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED
        await again(app, token_of(broker, "shop", role=Role.APP, rooms=[grant("lobby", Role.APP)]))
        assert (await app.expect(Authenticated))[1].rooms == ()
        await app.send((Post(MessageType.GIFT, "m8", gift("o-8", "bob"), "lobby"), 0, 8))
        assert (await app.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED
        await app.send((Post(MessageType.GIFT, "m9", gift("o-9", "bob"), "other"), 0, 9))
        assert (await app.expect(ErrorReply))[1].code == ErrorCode.ROOM_NOT_GRANTED
