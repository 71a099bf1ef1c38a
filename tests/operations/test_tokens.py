"""Revocation of tokens: of one user, of all, for tickets and open links too, over a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.codes import CloseCode, ErrorCode, Role
from protocol.operations import BY_NAME, Scope
from tests.support.broker import raw_link, running_broker
from tests.support.logins import login, refused
from tests.support.tokens import HS256, SECRET, sign

pytestmark = pytest.mark.integration

CONFIGURED: dict[str, Any] = {"auth": {"secret": SECRET}, "ledger": {"ephemeral": True}}


def caller(tenant: str = "") -> Caller:
    rooms = lambda room: Role.APP  # noqa: E731
    return Caller("shop", "Shop", "127.0.0.1", rooms, frozenset(), frozenset({Scope.ADMIN}), tenant=tenant)


async def revoke(broker: Broker, **fields: Any) -> Any:
    result, _ = await broker.operations.call(caller(), BY_NAME["users.revoke"], fields)
    return result


def token(broker: Broker, user: str = "ann", age_s: int = 60, **claims: Any) -> str:
    now = broker.clock.now_ms() // 1000
    whole = {"sub": user, "aud": "roomcast", "iat": now - age_s, "exp": now + 3600, "rooms": [{"pattern": "*"}]}
    return sign(HS256, whole | claims)


async def test_users_revoke_ends_the_tokens_tickets_and_links_of_one_user_and_no_later_token() -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as ann, raw_link(broker) as bob:
        old = token(broker)
        ticket = (await login(ann, old)).ticket
        await login(bob, token(broker, "bob"))
        assert ticket
        answer = await revoke(broker, user="ann", issued_before_ms=broker.clock.now_ms() - 30_000)
        assert answer.links == 1
        closed = await ann.expect_close()
        assert (closed.code, closed.reason) == (CloseCode.TOKEN_REVOKED, "the token was revoked")
        assert await refused(broker, old) == CloseCode.TOKEN_REVOKED, "it was in the cache of verified tokens"
        assert await refused(broker, token(broker, age_s=50)) == CloseCode.TOKEN_REVOKED
        assert await refused(broker, ticket) == CloseCode.TOKEN_REVOKED
        async with raw_link(broker) as link:
            assert (await login(link, token(broker, age_s=0))).user_id == "ann"
        await bob.join()


async def test_a_token_that_does_not_say_when_it_was_issued_is_revoked_with_the_others() -> None:
    async with running_broker(**CONFIGURED) as broker, raw_link(broker) as link:
        now = broker.clock.now_ms() // 1000
        bare = {"sub": "ann", "aud": "roomcast", "exp": now + 3600, "rooms": [{"pattern": "*"}]}
        await login(link, sign(HS256, bare))
        assert (await revoke(broker, user="ann")).links == 1
        assert (await link.expect_close()).code == CloseCode.TOKEN_REVOKED
        assert await refused(broker, sign(HS256, bare)) == CloseCode.TOKEN_REVOKED


async def test_all_users_of_a_tenant_are_revoked_and_guests_and_other_tenants_are_not() -> None:
    settings = CONFIGURED | {"auth": {"secret": SECRET, "guest_access": ["*"]}}
    async with running_broker(**settings) as broker, raw_link(broker) as guest, raw_link(broker) as ann:
        await guest.login(None)
        await login(ann, token(broker))
        assert (await revoke(broker)).links == 1
        assert (await ann.expect_close()).code == CloseCode.TOKEN_REVOKED
        assert await refused(broker, token(broker, "bob")) == CloseCode.TOKEN_REVOKED
        assert not broker.revocations.is_revoked("acme", "acme\x1fann", 1)


async def test_a_time_in_the_future_is_refused() -> None:
    async with running_broker(**CONFIGURED) as broker:
        with pytest.raises(OperationError) as error:
            await revoke(broker, issued_before_ms=broker.clock.now_ms() + 60_000)
        assert (error.value.code, error.value.field) == (ErrorCode.BAD_FIELD, "issued_before_ms")
        assert len(broker.revocations.table) == 0


@pytest.mark.parametrize("before_ms", [1000, 1_790_000_000])
async def test_a_time_in_seconds_is_refused_as_it_would_revoke_nothing(before_ms: int) -> None:
    async with running_broker(**CONFIGURED) as broker:
        for user in (None, "ann"):
            with pytest.raises(OperationError, match="Unix milliseconds") as error:
                await revoke(broker, user=user, issued_before_ms=before_ms)
            assert (error.value.code, error.value.field) == (ErrorCode.BAD_FIELD, "issued_before_ms")
        assert len(broker.revocations.table) == 0


async def test_a_revocation_survives_a_restart(directory: Path) -> None:
    settings = CONFIGURED | {"ledger": {"data_dir": str(directory)}}
    async with running_broker(**settings) as broker:
        old = token(broker)
        await revoke(broker, user="ann")
        await revoke(broker, user="bob", issued_before_ms=broker.clock.now_ms() - 86_400_000)
    async with running_broker(**settings) as broker:
        assert len(broker.revocations.table) == 2
        assert await refused(broker, old) == CloseCode.TOKEN_REVOKED
        async with raw_link(broker) as link:
            assert (await login(link, token(broker, "bob"))).user_id == "bob"


async def test_one_token_is_revoked_by_its_id_with_its_tickets_and_links_also_after_a_restart(directory: Path) -> None:
    settings = CONFIGURED | {"ledger": {"data_dir": str(directory)}}
    async with running_broker(**settings) as broker, raw_link(broker) as phone, raw_link(broker) as desk:
        stolen, other = token(broker, jti="t-1"), token(broker, jti="t-2")
        ticket = (await login(phone, stolen)).ticket
        await login(desk, other)
        expires_at_ms = broker.clock.now_ms() + 3_600_000
        assert (await revoke(broker, jti="t-1", expires_at_ms=expires_at_ms)).links == 1
        assert (await phone.expect_close()).code == CloseCode.TOKEN_REVOKED
        assert await refused(broker, stolen) == await refused(broker, ticket) == CloseCode.TOKEN_REVOKED
        await desk.join()
        assert not broker.revocations.is_revoked("acme", "acme\x1fann", 1, "t-1")
        await revoke(broker, jti="ended", expires_at_ms=broker.clock.now_ms() - 59_000)
    async with running_broker(**settings, wall_ms=lambda: expires_at_ms - 3_590_000) as broker:
        assert [each.jti for each in broker.revocations.table.tokens()] == ["t-1"]
        assert await refused(broker, stolen) == await refused(broker, ticket) == CloseCode.TOKEN_REVOKED
        async with raw_link(broker) as link:
            assert (await login(link, other)).user_id == "ann"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"jti": "t"}, "expires_at_ms"),
        ({"jti": "t", "expires_at_ms": 1_790_003_600}, "expires_at_ms"),
        ({"expires_at_ms": 9}, "expires_at_ms"),
        ({"jti": "t", "expires_at_ms": 9, "user": "ann"}, "user"),
        ({"jti": "t", "expires_at_ms": 9, "issued_before_ms": 1}, "issued_before_ms"),
    ],
)
async def test_a_token_is_named_by_its_id_and_its_end_alone(fields: dict[str, Any], wrong: str) -> None:
    async with running_broker(**CONFIGURED) as broker:
        with pytest.raises(OperationError) as error:
            await revoke(broker, **fields)
        assert (error.value.code, error.value.field) == (ErrorCode.BAD_FIELD, wrong)
        assert len(broker.revocations.table) == 0
