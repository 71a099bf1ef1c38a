"""Conversations and presence of users at several nodes: one of them decides, the others have their users' links."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio

from broker import OperationError
from broker.ledger import database_path
from broker.rooms.broker_log import BROKER_LOG
from broker.users import presence, rtc
from protocol.activities.desk import DeskState
from protocol.codes import ErrorCode
from tests.support import desk
from tests.support.conversations import do, event, group
from tests.support.directs import ack, login, nothing_more
from tests.support.nodes import Node, NodesOfTest, running_nodes
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "SEND_AFTER_S", 0.0)


@asynccontextmanager
async def deciding(tmp_path: Path) -> AsyncIterator[tuple[NodesOfTest, Node, Node]]:
    """Run two nodes; the first one returned decides."""
    async with running_nodes("a", "b", ledger={"data_dir": str(tmp_path)}) as nodes:
        await until(lambda: all(len(node.nodes.others_alive()) == 1 for node in nodes.by_name.values()))
        await until(lambda: nodes.owner_of(BROKER_LOG) is not None)
        owner = nodes.owner_of(BROKER_LOG)
        assert owner is not None
        yield nodes, owner, next(node for node in nodes.by_name.values() if node is not owner)


async def again(node: Node, user: str, operation: str, key: str = "", **fields: Any) -> Any:
    """Call an operation until it is not refused for now."""
    with trio.fail_after(30):
        while True:
            try:
                return await do(node.broker, user, operation, key, **fields)
            except OperationError as error:
                if error.code is not ErrorCode.OVERLOADED or not error.retry_after_ms:
                    raise
            await trio.sleep(0.05)


def knows(owner: Node, *users: str) -> bool:
    """Return whether the node that decides knows that users have links."""
    talk = owner.broker.talk
    assert talk is not None
    return all(user in talk.shared for user in users)  # type: ignore[operator]  # with an engine it is there


async def test_a_message_reaches_its_member_at_another_node_once_and_is_read_from_any(tmp_path: Path) -> None:
    async with deciding(tmp_path) as (_, owner, other):
        async with login(other.broker, "ann") as ann, login(other.broker, "bob") as bob:
            await until(lambda: knows(owner, "ann", "bob"))
            pair = await do(other.broker, "ann", "open", user="bob")
            assert (await do(owner.broker, "bob", "open", user="ann")).id == pair.id
            for node, repeated in ((other, False), (owner, True), (other, True)):
                sent = await do(node.broker, "ann", "send", "k1", conversation=pair.id, text="hello")
                assert (sent.offset, sent.repeated) == (1, repeated)
            number, data = await event(bob)
            assert (data["offset"], data["text"]) == (1, "hello")
            await event(ann)  # shown on its own devices too
            await nothing_more(bob)
            assert (await do(owner.broker, "bob", "list")).items[0].unread == 1
            own = await do(other.broker, "bob", "report_position", conversation=pair.id, delivered=1, read=1)
            assert own == (1, 1, 0)
            assert (await event(ann, "position"))[1]["read"] == 1
            await do(owner.broker, "bob", "show_typing", conversation=pair.id)
            assert await event(ann, "typing") == (0, {"user": "bob"})
            await ack(bob, number)
            await do(other.broker, "ann", "recall", conversation=pair.id, offset=1)
            assert (await event(bob, "recalled"))[1]["offset"] == 1
            (kept,) = (await do(other.broker, "bob", "history", conversation=pair.id)).items
            assert (kept.recalled, kept.text) == (True, "")
            for node in (owner, other):
                assert b"hello" not in await bodies_of(node, "bob")


async def bodies_of(node: Node, user: str) -> bytes:
    """Return all that the copy of a node has of a user's inbox."""
    assert node.broker.ledger is not None
    return await node.broker.ledger.ask(lambda reader: b"".join(row[7] for row in reader.directs_of(user)))


async def test_a_message_that_was_answered_is_known_to_the_next_node_that_decides(tmp_path: Path) -> None:
    async with deciding(tmp_path) as (nodes, owner, other), login(other.broker, "bob") as bob:
        await group(other.broker, "ann", "bob", "cem")
        assert (await do(other.broker, "ann", "send", "k1", conversation="tea", text="one")).offset == 1
        await do(other.broker, "bob", "block", user="cem")
        await do(other.broker, "cem", "report_position", conversation="tea", delivered=1, read=1)
        await do(other.broker, "cem", "presence.set_visible", visible=False)
        owner.kill()
        first = await again(other, "ann", "send", "k1", conversation="tea", text="one")
        assert (first.offset, first.repeated) == (1, True)
        assert nodes.owner_of(BROKER_LOG) is other
        assert (await again(other, "ann", "send", "k2", conversation="tea", text="two")).offset == 2
        history = await again(other, "bob", "history", conversation="tea")
        assert [(each.offset, each.text) for each in history.items] == [(1, "one"), (2, "two")]
        views = {name: (await again(other, name, "list")).items[0] for name in ("bob", "cem")}
        assert {name: (view.read, view.unread) for name, view in views.items()} == {"bob": (0, 2), "cem": (1, 1)}
        assert (await again(other, "bob", "blocked")).users == ("cem",)
        texts = [(await event(bob))[1]["text"] for _ in range(2)]
        assert texts == ["one", "two"]
        await nothing_more(bob)
        talk = other.broker.talk
        assert talk is not None
        assert not talk.presences.is_shown("cem", "ann")


async def test_a_node_that_lost_the_log_decides_nothing_that_others_see(tmp_path: Path) -> None:
    async with deciding(tmp_path) as (_, owner, other):
        await group(other.broker, "ann", "bob")
        owner.engine.cut()
        await until(lambda: BROKER_LOG in other.nodes.owners.fences)
        assert (await again(other, "ann", "send", "k1", conversation="tea", text="one")).offset == 1
        with pytest.raises(OperationError) as refused:
            await do(owner.broker, "ann", "send", "k2", conversation="tea", text="lost")
        assert refused.value.code is ErrorCode.OVERLOADED
        owner.engine.mend()
        await until(lambda: BROKER_LOG not in owner.nodes.owners.fences)
        assert (await again(owner, "ann", "send", "k3", conversation="tea", text="two")).offset == 2
        history = await again(other, "bob", "history", conversation="tea")
        assert [each.text for each in history.items] == ["one", "two"]


async def test_presence_is_of_the_links_at_all_nodes_and_watches_go_on_at_the_next_owner(tmp_path: Path) -> None:
    async with deciding(tmp_path) as (nodes, owner, other), login(other.broker, "ann") as ann:
        await group(other.broker, "ann", "bob")
        await until(lambda: knows(owner, "ann"))
        watched = await do(other.broker, "ann", "presence.watch", users=["bob"])
        assert [(each.user, each.online) for each in watched.items] == [("bob", False)]
        async with login(owner.broker, "bob"):
            assert await event(ann, "presence.changed") == (0, {"online": True})
        assert await event(ann, "presence.changed") == (0, {"online": False})
        async with login(other.broker, "bob"):
            assert await event(ann, "presence.changed") == (0, {"online": True})
            owner.kill()
            await until(lambda: nodes.owner_of(BROKER_LOG) is other)
            assert await event(ann, "presence.changed") == (0, {"online": True})  # what it was sent is not known
        assert await event(ann, "presence.changed") == (0, {"online": False})


async def test_a_large_group_is_shown_at_all_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.users.conversations.INBOX_MEMBERS", 1)
    async with deciding(tmp_path) as (_, owner, other):
        await group(other.broker, "ann", "bob", "cem")
        async with login(owner.broker, "bob") as bob, login(other.broker, "cem") as cem:
            await until(lambda: knows(owner, "bob", "cem"))
            for link in (bob, cem):
                await event(link, "joined")
            await do(other.broker, "ann", "send", "k1", conversation="tea", text="all")
            for link in (bob, cem):
                number, data = await event(link)
                assert (number, data["text"]) == (0, "all")


async def test_a_card_is_shown_once_whichever_node_is_asked_and_whichever_decides(tmp_path: Path) -> None:
    card = {"kind": "payment", "id": "p-1", "status": "paid", "version": 0, "title": "Paid"}
    async with deciding(tmp_path) as (_, owner, other), login(other.broker, "ann") as ann:
        await group(other.broker, "ann", "bob")
        targets: list[dict[str, Any]] = [{"user": "ann"}, {"conversation": "tea"}]
        for target in targets:
            sent = [(await node.broker.call("cards.send", card=card, **target)).sent for node in (other, owner)]
            assert sent == [True, False]
        assert (await event(ann, "cards.changed"))[1]["status"] == "paid"
        assert (await event(ann))[1]["card"]["id"] == "p-1"
        owner.kill()
        await until(lambda: BROKER_LOG in other.nodes.owners.fences)
        late = await other.broker.call("cards.send", card={**card, "status": "failed"}, user="ann")
        assert (late.sent, late.status.name) == (False, "PAID")
        await nothing_more(ann)


async def test_a_call_rings_at_another_node_and_goes_on_where_the_next_one_decides(tmp_path: Path) -> None:
    async with deciding(tmp_path) as (_, owner, other):
        async with login(owner.broker, "ann") as ann, login(other.broker, "bob") as bob:
            await until(lambda: knows(owner, "ann", "bob"))
            pair = await do(other.broker, "ann", "open", user="bob")
            call = (await do(owner.broker, "ann", "rtc.ring", conversation=pair.id, video=False)).call
            assert (await event(bob, "rtc.ringing"))[1]["user"] == "ann"
            token = (await do(other.broker, "bob", "rtc.accept", call=call)).token
            assert (await event(ann, "rtc.accepted"))[1]["token"] == token
        async with login(other.broker, "ann") as ann, login(other.broker, "bob"):
            await until(lambda: knows(owner, "ann", "bob"))
            await until(lambda: has_record(other, rtc.KIND))
            owner.kill()
            await until(lambda: BROKER_LOG in other.nodes.owners.fences)
            mine = (await again(other, "ann", "rtc.mine")).call
            assert (mine.call, mine.user, mine.answered) == (call, "bob", True)
            talk = other.broker.talk
            assert talk is not None
            assert [each.lost_at for each in talk.rtc.table] == [{}]
            await do(other.broker, "bob", "rtc.hang_up", call=call)
            assert (await event(ann, "rtc.ended"))[1]["reason"] == "hung_up"
            assert (await do(other.broker, "ann", "rtc.mine")).call is None


def has_record(node: Node, kind: str) -> bool:
    """Return whether the copy of a node has a record of a kind."""
    assert node.broker.ledger is not None
    with closing(sqlite3.connect(database_path(node.broker.ledger.directory))) as connection:
        return bool(connection.execute("SELECT 1 FROM records WHERE kind = ?", (kind,)).fetchall())


async def test_a_node_that_gives_the_log_away_sends_its_users_nothing_of_its_own(tmp_path: Path) -> None:
    async with deciding(tmp_path) as (_, owner, other), login(owner.broker, "ann") as ann:
        await group(other.broker, "ann", "bob")
        async with login(other.broker, "bob"):
            await until(lambda: knows(owner, "ann", "bob"))
            assert (await do(owner.broker, "ann", "presence.watch", users=["bob"])).items[0].online
            await owner.nodes.drain()
            await until(lambda: BROKER_LOG in other.nodes.owners.fences)
            await until(lambda: knows(other, "ann", "bob"))
            assert await event(ann, "presence.changed") == (0, {"online": True})
        assert await event(ann, "presence.changed") == (0, {"online": False})
        await nothing_more(ann)


async def test_an_agent_at_another_node_answers_a_customer_also_when_another_node_decides(tmp_path: Path) -> None:
    async with deciding(tmp_path) as (_, owner, other):
        await desk.configure(other.broker)
        async with login(owner.broker, "ann"), login(other.broker, "amy"):
            await until(lambda: knows(owner, "ann", "amy"))
            await desk.add_agent(other.broker, "amy")
            view = await desk.settled(owner.broker, (await desk.opened(other.broker)).id, DeskState.ASSIGNED, "amy")
            answer = {"conversation": view.id, "epoch": view.epoch, "text": "It comes today."}
            sent = await do(other.broker, "amy", "desk.answer", "a1", **answer)
            assert (sent.offset, sent.repeated) == (2, False)
            owner.kill()
            assert tuple(await again(other, "amy", "desk.answer", "a1", **answer)) == (2, True)
            found = await again(other, "amy", "desk.get", conversation=view.id)
            assert [each.text for each in found.messages] == ["Where is my parcel?", "It comes today."]
            resolved = await do(other.broker, "amy", "desk.resolve", conversation=view.id, epoch=view.epoch, read=2)
            assert resolved.state is DeskState.RESOLVED
            # Assigned by the tasks of the node that decides now.
            await do(other.broker, "ann", "desk.ask", "q3", conversation=view.id, text="It did not come")
            await desk.settled(other.broker, view.id, DeskState.ASSIGNED, "amy")


async def test_rules_of_marketing_and_offers_that_wait_are_those_of_the_next_node_that_decides(tmp_path: Path) -> None:
    rule: dict[str, Any] = {"trigger": "viewed", "title": "Still there", "text": "Buy it", "cooldown_s": 3600}
    async with deciding(tmp_path) as (_, owner, other), login(other.broker, "ann") as ann:
        await other.broker.call("users.set_preferences", user="ann", marketing=True)
        await other.broker.call("marketing.put_rule", id="now", delay_s=0, **rule)
        await other.broker.call("marketing.put_rule", id="later", delay_s=3600, **rule)
        await other.broker.call("marketing.report", user="ann", trigger="viewed", subject="mug")
        await event(ann, "marketing.offered")
        owner.kill()
        await until(lambda: BROKER_LOG in other.nodes.owners.fences)
        talk = other.broker.talk
        assert talk is not None
        assert talk.waiting_offers == 1
        second = await other.broker.call("marketing.report", user="ann", trigger="viewed", subject="mug")
        assert (second.sent, second.repeated, second.waiting) == (0, 1, 1)
        await nothing_more(ann)
