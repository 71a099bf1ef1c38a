"""Operations on users: connections, preferences, tags and bans."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from protocol.codes import ErrorCode
from protocol.messages import ErrorReply, Join, Left
from tests.support.api import API, call, client_of, ok
from tests.support.broker import joined_link, raw_link, running_broker
from tests.support.durable import durable_broker

pytestmark = pytest.mark.integration


async def test_a_user_is_returned_with_links_preferences_tags_and_sanctions(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann"):
            await ok(client, "users.set_preferences", user="ann", marketing=False)
            preferences = await ok(client, "users.set_preferences", user="ann", visibility="hidden")
            assert preferences == {"marketing": False, "recommendation": None, "visibility": "hidden"}
            assert await ok(client, "users.set_tags", user="ann", tags=["gold", "新"]) == {"tags": ["gold", "新"]}
            await ok(client, "rooms.open", room="other")
            await ok(client, "users.kick", room="other", user="ann", reason="spam", ban_s=600)
            view = await ok(client, "users.get", user="ann")
            (link,) = view["links"]
            assert (link["agent"], link["transport"], link["rooms"]) == ("test", "tcp", ["lobby"])
            assert abs(link["since_ms"] - broker.clock.now_ms()) < 20_000
            assert (view["preferences"], view["tags"]) == (preferences, ["gold", "新"])
            (ban,) = view["sanctions"]
            assert (ban["room"], ban["kind"], ban["reason"]) == ("other", "ban", "spam")
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        view = await ok(client, "users.get", user="ann")
        assert (view["preferences"], view["tags"], len(view["sanctions"])) == (preferences, ["gold", "新"], 1)
        refused = await call(client, "users.set_preferences", user="ann", visibility="nowhere")
        assert (refused.status_code, refused.json()["field"]) == (400, "visibility")


async def test_preferences_that_are_set_at_a_time_all_hold(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                for changes in ({"marketing": False}, {"recommendation": True}, {"visibility": "hidden"}):
                    nursery.start_soon(partial(ok, client, "users.set_preferences", user=f"user-{number}", **changes))
        for number in range(10):
            view = await ok(client, "users.get", user=f"user-{number}")
            assert view["preferences"] == {"marketing": False, "recommendation": True, "visibility": "hidden"}


async def test_a_ban_is_set_and_lifted_after_a_restart_before_the_first_viewer(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await ok(client, "rooms.open", room="lobby")
        await ok(client, "users.kick", room="lobby", user="ann", ban_s=600)
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await ok(client, "users.kick", room="lobby", user="ann", ban_s=0)
        await ok(client, "users.kick", room="lobby", user="bob", ban_s=600)
        assert (await ok(client, "users.get", user="ann"))["sanctions"] == []
        assert (await call(client, "users.kick", room="nowhere", user="ann")).status_code == 404


async def test_a_banned_user_is_removed_and_cannot_come_back_until_the_ban_is_lifted() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann") as (link, number):
            assert await ok(client, "users.kick", room="lobby", user="ann", reason="spam", ban_s=600) == {"links": 1}
            frame, _ = await link.expect(Left)
            assert frame.room == number
            await link.send((Join("lobby"), 0, 7))
            _, refused = await link.expect(ErrorReply)
            assert refused.code == ErrorCode.BANNED
            assert "spam" in refused.message
            assert 0 < refused.retry_after_ms <= 600_000
            await ok(client, "users.kick", room="lobby", user="ann", ban_s=0)
            await link.join("lobby", sequence=8)
        async with raw_link(broker) as other:
            await other.login("dev:bob")
            await other.join("lobby")


async def test_a_user_who_wants_no_marketing_gets_none(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as client:
        await ok(client, "users.set_preferences", user="ann", marketing=False)
        news: dict[str, Any] = {"user": "ann", "type": 4, "payload": ["50 % off"]}
        assert await ok(client, "directs.send", **news, marketing=True) == {
            "id": 0, "repeated": False, "suppressed": True, "why": "opted_out",
        }  # fmt: skip
        assert (await ok(client, "directs.send", **news))["id"] > 0
        await ok(client, "users.set_preferences", user="ann", marketing=True)
        assert (await ok(client, "directs.send", **news, marketing=True))["suppressed"] is False


async def test_without_a_ledger_nothing_is_kept_and_the_answer_says_so() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        for answer in (
            await call(client, "users.set_preferences", user="ann"),
            await call(client, "users.set_tags", user="ann", tags=[]),
        ):
            assert (answer.status_code, answer.json()["code"]) == (409, "NOT_KEPT")
        assert (await ok(client, "users.get", user="ann"))["links"] == []


async def test_one_connection_of_a_user_is_ended_by_its_id() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        async with joined_link(broker, "dev:ann"), joined_link(broker, "dev:bob"):
            async with joined_link(broker, "dev:ann"):
                links = [link["id"] for link in (await ok(client, "users.get", user="ann"))["links"]]
                assert len(set(links)) == 2
                assert await ok(client, "users.disconnect", user="bob", link=links[0]) == {"links": 0}
                assert await ok(client, "users.disconnect", user="ann", link=links[0]) == {"links": 1}
                left = [link["id"] for link in (await ok(client, "users.get", user="ann"))["links"]]
                assert left == links[1:]
                assert await ok(client, "users.disconnect", user="ann", link=links[0]) == {"links": 0}
