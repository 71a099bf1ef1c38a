"""Conversations of a broker without a data directory: the same calls, and nothing is there after its end."""

from __future__ import annotations

import pytest

from protocol.codes import ErrorCode
from tests.support.broker import running_broker
from tests.support.conversations import do, event, group, refusal
from tests.support.directs import login, nothing_more
from tests.support.operating import operate

pytestmark = pytest.mark.integration


async def test_members_with_a_link_are_shown_what_the_history_has() -> None:
    async with running_broker() as broker, login(broker, "ann") as ann, login(broker, "bob") as bob:
        pair = (await do(broker, "ann", "open", user="bob")).id
        sent = await do(broker, "ann", "send", "k1", conversation=pair, text="hello")
        assert sent == (1, False)
        assert await do(broker, "ann", "send", "k1", conversation=pair, text="hello") == (1, True)
        assert await refusal(broker, "ann", "send", key="k1", conversation=pair, text="x") == (
            ErrorCode.KEY_REUSED, "key",
        )  # fmt: skip
        for link in (ann, bob):
            number, data = await event(link)
            assert (number, data["offset"], data["text"]) == (0, 1, "hello")
        assert await do(broker, "bob", "report_position", conversation=pair, delivered=1) == (1, 0, 1)
        assert (await event(ann, "position"))[1]["delivered"] == 1
        await do(broker, "ann", "send", "k2", conversation=pair, text="second")
        history = await do(broker, "bob", "history", conversation=pair)
        assert [(each.offset, each.text) for each in history.items] == [(1, "hello"), (2, "second")]
        await do(broker, "ann", "recall", conversation=pair, offset=1)
        assert (await event(bob, "recalled"))[1] == {"offset": 1, "by": "ann"}
        history = await do(broker, "bob", "history", conversation=pair, before=2)
        assert [(each.text, each.recalled) for each in history.items] == [("", True)]
        await do(broker, "bob", "block", user="ann")
        code, _ = await refusal(broker, "ann", "send", key="k3", conversation=pair, text="again")
        assert code is ErrorCode.NOT_ALLOWED


async def test_groups_and_presence() -> None:
    async with running_broker() as broker, login(broker, "cem") as cem, login(broker, "bob") as bob:
        id = await group(broker, "ann", "bob", "cem")
        for link in (bob, cem):
            assert (await event(link, "joined"))[1]["title"] == "Tea"
        await operate(broker, "conversations.set_members", id, (), ("cem",))
        await event(cem, "left")
        await do(broker, "ann", "send", "k1", conversation=id, text="hello")
        assert (await event(bob))[1]["text"] == "hello"
        await nothing_more(cem)
        assert (await do(broker, "ann", "presence.watch", users=["bob", "cem"])).items[0].online
        assert await do(broker, "bob", "presence.set_visible", visible=False) == (False,)
        assert not (await do(broker, "ann", "presence.watch", users=["bob"])).items[0].online


async def test_a_shadow_muted_user_alone_sees_its_messages() -> None:
    async with running_broker() as broker, login(broker, "bob") as bob:
        pair = (await do(broker, "ann", "open", user="bob")).id
        await operate(broker, "moderation.mute", None, "ann", None, "spam", True)
        assert (await do(broker, "ann", "send", "k1", conversation=pair, text="buy")).offset == 1
        await nothing_more(bob)
        assert (await do(broker, "bob", "history", conversation=pair)).items == ()
        assert (await do(broker, "ann", "history", conversation=pair)).items[0].text == "buy"


async def test_what_needs_a_disk_is_refused() -> None:
    card = {"kind": "payment", "id": "p", "status": "paid", "version": 0, "title": "Paid"}
    async with running_broker() as broker:
        with pytest.raises(Exception, match="data directory") as caught:
            await broker.call("cards.send", card=card, user="ann")
        assert getattr(caught.value, "code", None) is ErrorCode.NOT_KEPT
