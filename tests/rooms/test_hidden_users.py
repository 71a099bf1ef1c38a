"""Users whose visibility is hidden are not shown to others: as they come in, in lists of members, in rankings."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.codes import MessageType
from protocol.messages import Call, Result, State
from protocol.operations import BY_NAME
from tests.support.broker import raw_link, running_broker
from tests.support.operating import operate

pytestmark = pytest.mark.integration

GIFT = int(MessageType.GIFT)


async def test_a_hidden_user_comes_in_uncounted_by_name_and_is_in_no_list_of_others(directory: Path) -> None:
    async with running_broker(ledger={"data_dir": str(directory)}) as broker, raw_link(broker) as host:
        await operate(broker, "users.set_preferences", "ann", None, None, "hidden")
        await host.login("dev:host:host")
        await host.join("live-1")
        async with raw_link(broker) as ann, raw_link(broker) as bob:
            await ann.login("dev:ann")
            await ann.join("live-1")
            await bob.login("dev:bob")
            await bob.join("live-1")
            names: list[str] = []
            more = 0
            while "bob" not in names:
                _, state = await host.expect(State)
                names += [user for user, _ in state.joins]
                more += state.joins_more
            assert ("ann" in names, more) == (False, 1)
            for link, wanted in ((host, {"host", "bob"}), (ann, {"host", "bob", "ann"})):
                await link.send((Call(BY_NAME["rooms.members"].number, "", ("live-1",)), 0, 9))
                _, answer = await link.expect(Result)
                assert {item[0] for item in answer.result[0]} == wanted
            page = await operate(broker, "rooms.members", "live-1")
            assert {item.user for item in page.items} == {"host", "ann", "bob"}, "the platform sees all"


async def test_a_hidden_user_is_in_no_ranking_of_others_and_counts_in_its_total(directory: Path) -> None:
    async with running_broker(ledger={"data_dir": str(directory)}) as broker:
        await operate(broker, "rooms.open", "live-1")
        for order, user in (("o1", "ann"), ("o2", "carl")):
            await operate(broker, "messages.publish", "live-1", GIFT, (order, user, user.title(), "rose", 2, 100, ""))
        await operate(broker, "users.set_preferences", "ann", None, None, "hidden")
        async with raw_link(broker) as late:
            await late.login("dev:dora")
            _, joined = await late.join("live-1")
            (ranking,) = [view.data for view in joined.activities if view.kind == "rankings"]
            assert "ann" not in repr(ranking)
            assert ranking["total"] == 400
        page = await operate(broker, "rankings.get", "live-1", "gifts")
        assert [place.user for place in page.ranking.top] == ["carl"]
        await operate(broker, "users.set_preferences", "ann", None, None, "visible")
        page = await operate(broker, "rankings.get", "live-1", "gifts")
        assert [place.user for place in page.ranking.top] == ["ann", "carl"]
