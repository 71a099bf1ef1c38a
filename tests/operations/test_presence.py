"""Presence over real links: who is sent whose changes, and who is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.users import presence
from tests.support.conversations import do, event, group
from tests.support.directs import login
from tests.support.durable import durable_broker
from tests.support.operating import operate
from tests.support.until import until

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "SEND_AFTER_S", 0.0)


async def test_watchers_are_told_of_those_they_talk_to(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as ann, login(broker, "eve"):
        await group(broker, "ann", "bob")
        watched = await do(broker, "ann", "presence.watch", users=["bob", "eve"])
        assert [(each.user, each.online) for each in watched.items] == [("bob", False), ("eve", False)]
        async with login(broker, "bob"), login(broker, "bob"):
            assert await event(ann, "presence.changed") == (0, {"online": True})
            platform = await operate(broker, "presence.watch", ("bob", "eve", "cem"))
            assert [each.online for each in platform.items] == [True, True, False]
        assert await event(ann, "presence.changed") == (0, {"online": False})


async def test_who_is_hidden_or_blocks_is_offline_for_others_and_stays_so(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as ann, login(broker, "bob"):
        await group(broker, "ann", "bob")
        assert (await do(broker, "ann", "presence.watch", users=["bob"])).items[0].online
        await do(broker, "bob", "presence.set_visible", visible=False)
        assert await event(ann, "presence.changed") == (0, {"online": False})
        await do(broker, "bob", "presence.set_visible", visible=True)
        assert await event(ann, "presence.changed") == (0, {"online": True})
        await do(broker, "bob", "block", user="ann")
        assert await event(ann, "presence.changed") == (0, {"online": False})
        await do(broker, "bob", "block", user="ann", blocked=False)
        assert await event(ann, "presence.changed") == (0, {"online": True})
        await operate(broker, "users.set_preferences", "bob", None, None, "hidden")
        assert await event(ann, "presence.changed") == (0, {"online": False})
        await operate(broker, "users.set_preferences", "bob", None, None, "visible")
        assert await event(ann, "presence.changed") == (0, {"online": True})
        await do(broker, "bob", "presence.set_visible", visible=False)
        assert await event(ann, "presence.changed") == (0, {"online": False})
    async with durable_broker(directory) as broker, login(broker, "ann"), login(broker, "bob"):
        assert not (await do(broker, "ann", "presence.watch", users=["bob"])).items[0].online


async def test_a_watch_ends_with_the_last_link(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await group(broker, "ann", "bob")
        assert broker.talk is not None
        table = broker.talk.presences.table
        async with login(broker, "ann"):
            await do(broker, "ann", "presence.watch", users=["bob"])
            assert table.watches == 1
        await until(lambda: table.watches == 0)
