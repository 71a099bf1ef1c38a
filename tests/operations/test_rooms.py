"""Operations on rooms: titles and tags, when members joined, and rates."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from broker.operations.caller import Caller
from protocol.codes import MessageType, Role
from protocol.operations import BY_NAME, Scope
from tests.support.api import API, client_of, ok, refused
from tests.support.broker import raw_link, running_broker
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error

pytestmark = pytest.mark.integration


async def test_rooms_open_sets_title_and_tags_that_hold_over_restarts_until_the_room_is_ended(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        view = await ok(client, "rooms.open", room="live-1", title="晚间特卖", tags=["beauty", "beauty", "shop-7"])
        assert (view["title"], view["tags"]) == ("晚间特卖", ["beauty", "shop-7"])
        view = await ok(client, "rooms.open", room="live-1", tags=["beauty"], rules={"merge": False})
        assert (view["title"], view["tags"], view["rules"]["merge"]) == ("晚间特卖", ["beauty"], False)
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        view = await ok(client, "rooms.get", room="live-1")
        assert (view["title"], view["tags"], view["rules"]["merge"]) == ("晚间特卖", ["beauty"], False)
        view = await ok(client, "rooms.open", room="live-1", title="")
        assert (view["title"], view["tags"]) == ("", ["beauty"])
        await ok(client, "rooms.close", room="live-1")
        view = await ok(client, "rooms.open", room="live-1")
        assert (view["title"], view["tags"]) == ("", [])


async def test_titles_and_tags_out_of_bounds_are_refused_by_field() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        for fields, field in (
            ({"title": "x" * 129}, "title"),
            ({"title": "a\nb"}, "title"),
            ({"tags": [str(number) for number in range(17)]}, "tags"),
            ({"tags": ["a", ""]}, "tags[1]"),
            ({"tags": ["x" * 33]}, "tags[0]"),
        ):
            assert await refused(client, "rooms.open", room="live-1", **fields) == (400, "BAD_FIELD", field)
        assert broker.hub.find("live-1") is None, "nothing was opened"


async def test_a_title_that_cannot_be_made_durable_holds_and_the_answer_says_so(tmp_path: Path) -> None:
    async with durable_broker(tmp_path, api=API) as broker, client_of(broker) as client:
        await ok(client, "rooms.open", room="live-1")
        disk(broker).fault = disk_error("SQLITE_FULL")
        assert await refused(client, "rooms.open", room="live-1", title="Sale") == (503, "OVERLOADED", "")
        assert (await ok(client, "rooms.get", room="live-1"))["title"] == "Sale"


async def test_rooms_list_returns_the_rooms_with_a_tag() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        for number in range(6):
            tags = ["even" if number % 2 == 0 else "odd", "all"]
            await ok(client, "rooms.open", room=f"live-{number}", title=f"Room {number}", tags=tags)
        found: list[tuple[str, str, list[str]]] = []
        cursor = None
        while not found or cursor:
            page = await ok(client, "rooms.list", tag="even", limit=2, cursor=cursor)
            found += [(item["room"], item["title"], item["tags"]) for item in page["items"]]
            cursor = page["next"]
        assert found == [(f"live-{number}", f"Room {number}", ["even", "all"]) for number in (0, 2, 4)]
        assert (await ok(client, "rooms.list", tag="none"))["items"] == []


async def test_rooms_members_are_listed_by_when_they_joined() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client, AsyncExitStack() as stack:
        before_ms = broker.clock.now_ms()
        for user in ("zoe", "ann", "max", "zoe"):
            link = await stack.enter_async_context(raw_link(broker))
            await link.login(f"dev:{user}")
            await link.join("live-1")
            newest_ms = broker.clock.now_ms()
            while broker.clock.now_ms() == newest_ms:
                await trio.lowlevel.checkpoint()
        found: list[tuple[str, int, int]] = []
        cursor = None
        while not found or cursor:
            page = await ok(client, "rooms.members", room="live-1", sort="joined", limit=1, cursor=cursor)
            found += [(item["user"], item["links"], item["joined_at_ms"]) for item in page["items"]]
            cursor = page["next"]
        assert [(user, links) for user, links, _ in found] == [("zoe", 2), ("ann", 1), ("max", 1)]
        times = [at_ms for _, _, at_ms in found]
        assert before_ms <= times[0] < times[1] < times[2] <= newest_ms
        by_role = (await ok(client, "rooms.members", room="live-1"))["items"]
        assert [(item["user"], item["joined_at_ms"]) for item in by_role] == sorted(
            (user, at_ms) for user, _, at_ms in found
        )
        for sort in ("joined", "role"):
            bad = {"room": "live-1", "sort": sort, "cursor": "x:ann"}
            assert await refused(client, "rooms.members", **bad) == (400, "BAD_FIELD", "cursor")


async def test_rooms_stats_returns_rates_of_the_last_minute_and_quarter_of_an_hour(mock_clock: MockClock) -> None:
    async with running_broker(api=API, room={"idle_close_s": 3600}) as broker:
        row = BY_NAME["rooms.stats"]
        caller = Caller("shop", "Shop", "", lambda room: Role.APP, scopes=frozenset(Scope))
        post = "live-1", MessageType.ANNOUNCEMENT, ("Sale",)
        found = {}
        for second in range(330):
            if second % 3 == 0 and second < 240:
                await broker.operations.call(caller, BY_NAME["messages.publish"], post)
            if second in (180, 310):
                for window_s in (60, 900):
                    stats, _ = await broker.operations.call(caller, row, ("live-1", window_s))
                    found[second, window_s] = stats.rates
            mock_clock.jump(1.0)
            await trio.testing.wait_all_tasks_blocked()
        plain, _ = await broker.operations.call(caller, row, ("live-1",))
        assert (plain.rates, plain.series) == (None, None)
        series = (await broker.operations.call(caller, row, ("live-1", None, 900)))[0].series
    assert len(series.messages) == pytest.approx(330, abs=3)
    assert sum(series.messages) == 80
    assert set(series.messages) == {0, 1}, "no two posts fell into one second"
    first = series.messages.index(1)
    assert all(series.messages[second] == (second % 3 == first % 3) for second in range(first, first + 238))
    assert set(series.online) == {0}
    assert set(series.shown) == {0}, "of danmaku"
    assert found[180, 60].messages_per_s == pytest.approx(1 / 3, rel=0.1)
    assert 60_000 <= found[180, 60].window_ms <= 67_000
    assert found[310, 60].messages_per_s == 0
    assert found[180, 900].messages_per_s == pytest.approx(1 / 3, rel=0.1)
    assert found[310, 900].messages_per_s == pytest.approx(80 / 310, rel=0.1)
    assert found[310, 900].window_ms == pytest.approx(310_000, abs=3000)
    assert (found[310, 900].danmaku_per_s, found[310, 900].likes_per_s) == (0, 0)


async def test_rooms_stats_has_a_window_of_a_minute_or_a_quarter_of_an_hour() -> None:
    async with running_broker(api=API) as broker, client_of(broker) as client:
        await ok(client, "rooms.open", room="live-1")
        assert (await ok(client, "rooms.stats", room="live-1", window_s=60))["rates"]["window_ms"] >= 1000
        for window_s in (0, 61, True, "60"):
            answer = await refused(client, "rooms.stats", room="live-1", window_s=window_s)
            assert answer == (400, "BAD_FIELD", "window_s")
