"""Operations on coupon pools: over HTTP and CALL, with a ledger, messages to users, webhooks, and over kill -9."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.server import Broker
from protocol.activities import ActivityEvent
from protocol.activities.coupons import CouponIssued, OwnCoupon, PoolView
from protocol.clients import CallRefused, Client, Direct, JoinedRoom, open_client
from protocol.codes import ErrorCode
from protocol.messages import ActivityView
from protocol.messages import Direct as DirectMessage
from protocol.operations import BY_NAME
from protocol.operations.coupons import ClaimCoupon, CouponCode, MyCoupon, MyCouponCode
from tests.support.api import API, call, client_of, ok, refused
from tests.support.durable import durable_broker
from tests.support.faulty_disk import crashed_copy
from tests.support.receiver import receiver
from tests.support.tenants import backend, tenant_link
from tests.support.tokens import SECRET
from tests.support.until import until
from tests.support.webhooks import events_of, hook_settings

pytestmark = pytest.mark.integration

POOL: dict[str, Any] = {"room": "live-1", "id": "c", "count": 2, "prefix": "NEW", "template": "Code: {code}"}


@asynccontextmanager
async def member(broker: Broker, user: str) -> AsyncIterator[tuple[Client, JoinedRoom]]:
    host, port = broker.addresses[0][:2]
    async with open_client(f"roomcast://{host}:{port}", f"dev:{user}") as client:
        yield client, await client.join("live-1")


async def claim(client: Client) -> Any:
    """Return a code, or the code of the refusal."""
    try:
        return await client.call(ClaimCoupon("live-1", "c"), key="k")
    except CallRefused as error:
        return error.code


async def coupon_message(client: Client) -> CouponIssued:
    """Return the next coupon that the user is sent."""
    with trio.fail_after(20):
        async for event in client.events():
            if isinstance(event, Direct) and isinstance(event.payload, ActivityEvent):
                assert event.payload.name == "coupons.issued"
                assert isinstance(event.payload.data, CouponIssued)
                return event.payload.data
    raise AssertionError("the client has ended")


async def test_a_pool_issues_codes_to_those_who_claim_and_those_whom_the_platform_names(directory: Path) -> None:
    async with receiver() as shop:
        hooks = hook_settings(directory, shop.url, "coupon.*")
        async with (
            durable_broker(directory, api=API, webhooks=hooks) as broker,
            client_of(broker) as platform,
            member(broker, "ann") as (ann, _),
        ):
            assert await ok(platform, "coupons.create", key="k1", **POOL) == {"id": "c"}
            own = await claim(ann)
            assert isinstance(own, CouponCode)
            assert own.code.startswith("NEW-")
            assert await claim(ann) == own
            assert await ann.call(MyCoupon("live-1", "c")) == MyCouponCode(own)
            assert await coupon_message(ann) == CouponIssued(own.code, f"Code: {own.code}", 0)
            issued = await ok(platform, "coupons.issue", key="k2", room="live-1", id="c", user="bob")
            assert (issued["code"] == own.code, issued["expired"]) == (False, False)
            many = await ok(
                platform, "coupons.issue_many", key="k3", room="live-1", id="c", users=["ann", "bob", "cem"]
            )
            assert many == {
                "items": [{"user": "ann", "code": own.code}, {"user": "bob", "code": issued["code"]}],
                "left_out": ["cem"],
                "next": None,
            }
            async with member(broker, "bob") as (bob, room):
                assert await coupon_message(bob) == CouponIssued(issued["code"], f"Code: {issued['code']}", 0)
                assert await claim(bob) == CouponCode(issued["code"], 0)
                snapshot = room.snapshot
                assert snapshot is not None
                (view,) = snapshot.activities
                assert isinstance(view.data, PoolView)
                assert view.data.exhausted
                assert snapshot.own_activities == (ActivityView("coupons", "c", OwnCoupon(issued["code"], False)),)
            async with member(broker, "dora") as (dora, room):
                assert await claim(dora) == ErrorCode.EXHAUSTED
                assert room.snapshot is not None
                assert room.snapshot.own_activities == ()
            typed = own.code.lower().replace("-", " ")
            checked = await ok(platform, "coupons.check", room="live-1", id="c", code=typed)
            assert (checked["code"], checked["user"], checked["expired"]) == (own.code, "ann", False)
            assert await refused(platform, "coupons.check", room="live-1", id="c", code="NEW-1") == (
                400, "BAD_CODE", "code",
            )  # fmt: skip
            assert await ok(platform, "coupons.close", room="live-1", id="c") == {"issued": 2, "left": 0}
            assert await claim(ann) == own._replace(expired=True)
            await until(lambda: len(events_of(shop)) == 3)
            assert [(each["type"], each["data"].get("user")) for each in events_of(shop)] == [
                ("coupon.issued", "ann"), ("coupon.issued", "bob"), ("coupon.exhausted", None),
            ]  # fmt: skip


async def test_uploaded_codes_and_what_is_wrong_with_a_chunk(directory: Path) -> None:
    first_place, second_place = directory / "first", directory / "second"
    first_place.mkdir()
    pool = {"room": "live-1", "id": "c"}
    async with durable_broker(first_place, api=API) as broker, client_of(broker) as platform:
        await ok(platform, "coupons.create", key="k1", **pool, kind="uploaded", count=2000)
        codes = [f"CODE-{number:04}" for number in range(1000)]
        assert await ok(platform, "coupons.upload", key="u1", **pool, codes=codes) == {"uploaded": 1000}
        assert await refused(platform, "coupons.upload", **pool, codes=["A"]) == (400, "BAD_FIELD", "key")
        for wrong, field in (
            (["A", "B", "A"], "codes[2]"), (["A", "CODE-0007"], "codes[1]"), (["A B"], "codes[0]"), ([""], "codes[0]"),
            (["x" * 65], "codes[0]"), ([f"N{number}" for number in range(1001)], "codes"),
        ):  # fmt: skip
            answer = await call(platform, "coupons.upload", "u2", **pool, codes=wrong)
            assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, "BAD_FIELD", field)
        async with member(broker, "ann") as (ann, _):
            first = await claim(ann)
            assert first == CouponCode("CODE-0000", 0)
        crashed_copy(first_place, second_place)
    async with durable_broker(second_place, api=API) as broker, client_of(broker) as platform:
        assert await ok(platform, "coupons.upload", key="u1", **pool, codes=codes) == {"uploaded": 1000}
        again = await call(platform, "coupons.upload", "u1", **pool, codes=["other"])
        assert (again.status_code, again.json()["code"]) == (409, "KEY_REUSED")
        async with member(broker, "ann") as (ann, _), member(broker, "bob") as (bob, _):
            assert await claim(ann) == first
            assert await claim(bob) == CouponCode("CODE-0001", 0)
            assert await coupon_message(ann) == CouponIssued("CODE-0000", "", 0)
        assert await ok(platform, "coupons.close", **pool) == {"issued": 2, "left": 998}


async def test_five_hundred_users_get_their_codes_in_one_call_and_keep_them(directory: Path) -> None:
    users = [f"{'用户' * 30}{number:04}" for number in range(500)]
    many = {"room": "live-1", "id": "c", "users": users}
    async with durable_broker(directory, api=API) as broker, client_of(broker) as platform:
        await ok(platform, "coupons.create", key="k1", **POOL | {"count": 500, "template": "价" * 190 + "{code}"})
        first = await ok(platform, "coupons.issue_many", key="k2", **many)
        assert [item["user"] for item in first["items"]] == users
        assert len({item["code"] for item in first["items"]}) == 500
    async with durable_broker(directory, api=API) as broker, client_of(broker) as platform:
        assert await ok(platform, "coupons.issue_many", key="k3", **many) == first
        assert await ok(platform, "coupons.close", room="live-1", id="c") == {"issued": 500, "left": 0}


async def test_many_users_claim_at_once_and_each_code_has_one_user(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as platform:
        await ok(platform, "coupons.create", key="k1", **POOL | {"count": 20})
        found: dict[str, Any] = {}

        async def claim_as(user: str) -> None:
            async with member(broker, user) as (client, _):
                found[user] = await claim(client)

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(claim_as, f"u{number}")
        codes = [answer.code for answer in found.values() if isinstance(answer, CouponCode)]
        assert len(codes) == len(set(codes)) == 20
        assert sum(answer == ErrorCode.EXHAUSTED for answer in found.values()) == 10


async def test_refusals_of_coupons_over_http_and_call(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as platform,
        member(broker, "ann") as (ann, _),
    ):
        assert await refused(platform, "coupons.create", **POOL) == (400, "BAD_FIELD", "key")
        for field, value in (
            ("count", 0), ("count", 1_000_001), ("prefix", "new"), ("prefix", "ABCDEFGHI"), ("length", 10),
            ("length", 22), ("kind", "guessed"), ("template", "{user}"), ("template", "x" * 201), ("expire_at_ms", 1),
        ):  # fmt: skip
            answer = await call(platform, "coupons.create", "bad", **POOL | {field: value})
            assert (answer.status_code, answer.json()["field"]) == (400, field), (field, value)
        assert await claim(ann) == ErrorCode.UNKNOWN_ACTIVITY
        await ok(platform, "coupons.create", key="k1", **POOL, claims=False)
        again = await call(platform, "coupons.create", "k2", **POOL)
        assert (again.status_code, again.json()["code"]) == (409, "KEY_REUSED")
        assert await claim(ann) == ErrorCode.NOT_ALLOWED
        for operation, arguments in (
            ("coupons.issue", {"user": "ann", "key": "k"}), ("coupons.close", {}), ("coupons.check", {"code": "x"}),
            ("coupons.upload", {"codes": (), "key": "k"}),
        ):  # fmt: skip
            with pytest.raises(CallRefused) as forged:
                await ann.call(operation, room="live-1", id="c", **arguments)
            assert forged.value.code == ErrorCode.NOT_ALLOWED
        assert await refused(platform, "coupons.claim", room="live-1", id="c") == (403, "NOT_ALLOWED", "operation")
        assert await refused(platform, "coupons.issue", room="live-1", id="c", user="") == (400, "BAD_FIELD", "user")
        await ok(platform, "coupons.issue", key="k3", room="live-1", id="c", user="ann")
        assert isinstance(await claim(ann), CouponCode), "who has a code gets it again"
        await ok(platform, "rooms.set_phase", room="live-1", phase="paused")
        assert isinstance(await claim(ann), CouponCode), "in a paused room too"


async def test_a_code_goes_to_the_user_of_the_tenant(directory: Path) -> None:
    settings: dict[str, Any] = {"auth": {"secret": SECRET}, "tenants": [{"name": "acme"}]}
    async with durable_broker(directory, **settings) as broker, tenant_link(broker, "acme", "ann") as ann:

        async def invoke(name: str, key: str, *request: Any) -> Any:
            result, _ = await broker.operations.call(backend("acme", key), BY_NAME[name], request)
            return result

        await invoke("coupons.create", "k1", "live-1", "c", 2)
        many = await invoke("coupons.issue_many", "k2", "live-1", "c", ("ann",))
        (item,) = many.items
        assert item.user == "ann"
        with trio.fail_after(20):
            _, direct = await ann.expect(DirectMessage)
        assert direct.payload[0] == "coupons.issued"
        assert direct.payload[2]["code"] == item.code
        assert (await invoke("coupons.issue", "k3", "live-1", "c", "ann")).code == item.code
        assert (await invoke("coupons.check", "", "live-1", "c", item.code)).user == "ann"
