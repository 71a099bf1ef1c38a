"""What holds on every node: sanctions, revocations, locks, lists, hints and inboxes, whichever node was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from broker import OperationError
from broker.core.nodes.membership import LEASE_S
from broker.engine.memory import MemoryFaults, RequestFault
from broker.rooms.broker_log import BrokerLog
from protocol.codes import CloseCode, ErrorCode, Feature, LeaveReason, MessageType, Outcome
from protocol.messages import Ack, AckResult, Auth, Authenticated, Direct, DirectAck, GoAway, Left
from tests.support.broker import joined_link, raw_link
from tests.support.nodes import NodesOfTest, running_nodes
from tests.support.tokens import SECRET
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def kept(tmp_path: Path) -> dict[str, Any]:
    """Return settings with which brokers keep something."""
    return {"ledger": {"data_dir": str(tmp_path)}}


async def mute_is_known(nodes: NodesOfTest, user: str, names: str) -> None:
    """Wait until nodes know of a mute."""
    await until(lambda: all(user in nodes[name].broker.hub.sanctions.mutes for name in names))


async def all_see_each_other(nodes: NodesOfTest) -> None:
    """Wait until each node knows that the others are alive."""
    count = len(nodes.by_name) - 1
    await until(lambda: all(len(node.nodes.others_alive()) == count for node in nodes.by_name.values()))


async def acked(nodes: NodesOfTest, user: str, number: int) -> None:
    """Wait until every node knows that a direct message is acknowledged."""
    for node in nodes.by_name.values():
        with trio.fail_after(10):
            while (await node.broker.call("directs.state", user=user, id=number)).state.name != "ACKED":  # noqa: ASYNC110
                await trio.sleep(0.02)


async def test_a_ban_everywhere_ends_the_links_of_all_nodes_and_outlives_every_owner(tmp_path: Path) -> None:
    async with running_nodes("a", "b", "c", **kept(tmp_path)) as nodes:
        await all_see_each_other(nodes)
        async with raw_link(nodes["b"].broker) as ben, raw_link(nodes["c"].broker) as same:
            await ben.login("dev:ben")
            await same.login("dev:ben")
            done = await nodes["a"].broker.call("moderation.ban", room=None, user="ben", seconds=600, reason="spam")
            assert done.links == 2
            for link in (ben, same):
                assert (await link.expect(GoAway))[1].code == CloseCode.BANNED
        owner = nodes.owner_of("\0broker")
        assert owner is not None
        owner.kill()
        rest = [name for name in "abc" if nodes[name] is not owner]
        for name in rest:
            async with raw_link(nodes[name].broker) as again:
                await again.hello()
                await again.send((Auth("dev:ben"), 0, 0))
                assert (await again.expect(GoAway))[1].code == CloseCode.BANNED
        await until(lambda: nodes.owner_of("\0broker") is not None)
        await until(lambda: len(nodes[rest[0]].nodes.others_alive()) == 1)
        await nodes[rest[0]].broker.call("moderation.undo", action=done.action)
        for name in rest:
            async with raw_link(nodes[name].broker) as again:
                await again.login("dev:ben")


async def test_a_mute_of_a_room_is_asked_for_anywhere_and_holds_at_its_next_owner(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        room = nodes.room_on("a")
        async with joined_link(nodes["b"].broker, "dev:ben", room) as (ben, number):
            await nodes["b"].broker.call("moderation.mute", room=room, user="ben", seconds=600)
            await mute_is_known(nodes, "ben", "ab")
            await ben.post(number, 1, MessageType.DANMAKU, ("在吗",))
            assert (await ben.expect(Ack))[1].results[0] == AckResult(1, Outcome.REJECTED, ErrorCode.MUTED)
            nodes["a"].kill()
            await until(lambda: nodes.owner_of(room) is nodes["b"])
            await until(lambda: (found := nodes["b"].broker.hub.find(room)) is not None and found.state.online == 1)
            await ben.post(number, 2, MessageType.DANMAKU, ("在吗",))
            assert (await ben.expect(Ack))[1].results[0] == AckResult(2, Outcome.REJECTED, ErrorCode.MUTED)


async def test_a_ban_of_a_room_removes_a_viewer_of_another_node(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        room = nodes.room_on("a")
        async with joined_link(nodes["b"].broker, "dev:ben", room) as (ben, number):
            done = await nodes["b"].broker.call("moderation.ban", room=room, user="ben", seconds=600, reason="spam")
            assert done.links == 1
            frame, left = await ben.expect(Left)
            assert (frame.room, left.reason) == (number, LeaveReason.BANNED)


async def test_a_change_says_which_nodes_do_not_have_it_yet(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        await all_see_each_other(nodes)
        await nodes["a"].broker.call("moderation.mute", room=None, user="cai", seconds=600)
        asked, deaf = ("a", "b") if nodes.owner_of("\0broker") is nodes["a"] else ("b", "a")
        nodes[deaf].engine.faults = MemoryFaults(
            lambda name: RequestFault.LOST if name == "read_facts" else RequestFault.NONE
        )
        with pytest.raises(OperationError) as refused:
            await nodes[asked].broker.call("moderation.mute", room=None, user="ben", seconds=600)
        assert refused.value.code is ErrorCode.OVERLOADED
        assert f"not yet on the nodes {deaf}" in refused.value.rule
        assert "ben" in nodes[asked].broker.hub.sanctions.mutes


async def test_a_revoked_token_is_refused_by_every_node_and_its_links_end(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        await all_see_each_other(nodes)
        await nodes["a"].broker.call("users.revoke", user="ben")
        revocations = nodes["b"].broker.revocations
        assert revocations.is_revoked("", "ben", 1)
        assert not revocations.is_revoked("", "cai", 1)


async def test_a_lock_is_one_whichever_node_is_asked(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        lease = await nodes["a"].broker.call("locks.acquire", room="live", name="job", ttl_ms=600_000)
        with pytest.raises(OperationError) as held:
            await nodes["b"].broker.call("locks.acquire", room="live", name="job", ttl_ms=600_000)
        assert held.value.code is ErrorCode.LOCKED
        owner = nodes.owner_of("\0broker")
        assert owner is not None
        rest = nodes["b" if owner is nodes["a"] else "a"].broker
        owner.kill()
        await until(lambda: nodes.owner_of("\0broker") is not None)
        with pytest.raises(OperationError) as still:
            await rest.call("locks.acquire", room="live", name="job", ttl_ms=600_000)
        assert still.value.code is ErrorCode.LOCKED
        await rest.call("locks.release", fence=lease.fence)
        assert (await rest.call("locks.acquire", room="live", name="job", ttl_ms=600_000)).fence > lease.fence


async def test_lists_of_words_and_hints_hold_on_every_node(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        await all_see_each_other(nodes)
        await nodes["a"].broker.call("moderation.put_list", name="own", action="block", words=["坏词"])
        assert list(nodes["b"].broker.word_lists.of("")) == ["own"]
        table = nodes["b"].nodes.owners.table
        await until(lambda: len(table.settled(trio.current_time(), LEASE_S)) == 2)
        room = nodes.room_on("b")
        async with joined_link(nodes["b"].broker, "dev:ben", room) as (ben, number):
            await ben.post(number, 1, MessageType.DANMAKU, ("坏词",))
            assert (await ben.expect(Ack))[1].results[0] == AckResult(1, Outcome.REJECTED, ErrorCode.BLOCKED)
        await nodes["b"].broker.call("moderation.delete_list", name="own")
        assert nodes["a"].broker.word_lists.of("") == {}


async def test_a_list_that_is_put_holds_on_every_node_when_the_call_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        await all_see_each_other(nodes)
        lists = nodes["b"].broker.word_lists
        load, reading, may_end, answered = lists.load, trio.Event(), trio.Event(), list[str]()

        async def load_slowly() -> None:
            reading.set()
            await may_end.wait()
            await load()

        async def put(name: str) -> None:
            await nodes["a"].broker.call("moderation.put_list", name=name, action="block", words=["坏词"])
            answered.append(name)

        monkeypatch.setattr(lists, "load", load_slowly)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, "one")
            await reading.wait()
            reading = trio.Event()
            await nodes["a"].broker.call("users.set_tags", user="ben", tags=["vip"])  # it is not held up
            assert answered == []
            may_end.set()
        assert answered == ["one"]
        assert list(lists.of("")) == ["one"]


async def test_a_direct_reaches_its_user_on_any_node_and_is_acknowledged_once(tmp_path: Path) -> None:
    async with running_nodes("a", "b", "c", **kept(tmp_path)) as nodes:
        sent = await nodes["a"].broker.call("directs.send", user="ben", type=4, payload=["一"])
        async with raw_link(nodes["b"].broker) as ben:
            await ben.login("dev:ben")
            _, direct = await ben.expect(Direct)
            assert (direct.direct_id, direct.payload) == (sent.id, ("一",))
            second = await nodes["c"].broker.call("directs.send", user="ben", type=4, payload=["二"])
            assert (await ben.expect(Direct))[1].direct_id == second.id == sent.id + 1
            await ben.send((DirectAck(sent.id), 0, 0))
            await acked(nodes, "ben", sent.id)
        async with raw_link(nodes["c"].broker) as ben:
            await ben.login("dev:ben")
            assert (await ben.expect(Direct))[1].direct_id == second.id
        state = await nodes["a"].broker.call("directs.state", user="ben", id=sent.id)
        assert state.state.name == "ACKED"


async def test_a_node_that_cannot_read_what_holds_admits_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_nodes("a", **kept(tmp_path)) as nodes:
        with monkeypatch.context() as patch:
            patch.setattr(BrokerLog, "is_stale", property(lambda log: True))
            async with raw_link(nodes["a"].broker) as ben:
                await ben.hello()
                await ben.send((Auth("dev:ben"), 0, 0))
                _, bye = await ben.expect(GoAway)
                assert (bye.code, "cannot read who is banned" in bye.reason) == (CloseCode.OVERLOADED, True)
        async with raw_link(nodes["a"].broker) as ben:
            await ben.login("dev:ben")


async def test_a_ticket_of_one_node_logs_in_at_another(tmp_path: Path) -> None:
    async with running_nodes("a", "b", auth={"secret": SECRET}, **kept(tmp_path)) as nodes:
        for name in "ab":  # each has read the log up to the keys then
            await nodes[name].broker.call("users.set_tags", user="cai", tags=[])
        token = nodes["a"].broker.context.auth.issue("ben", ttl_s=600)
        async with raw_link(nodes["a"].broker) as ben:
            await ben.hello(int(Feature.TICKET))
            await ben.send((Auth(token), 0, 0))
            ticket = (await ben.expect(Authenticated))[1].ticket
        async with raw_link(nodes["b"].broker) as again:
            assert (await again.login(ticket)).user_id == "ben"


async def test_links_and_rooms_of_all_nodes_are_one_answer(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        await all_see_each_other(nodes)
        room = nodes.room_on("a")
        async with (
            joined_link(nodes["a"].broker, "dev:ben", room) as (here, _),
            joined_link(nodes["b"].broker, "dev:ben", room) as (there, _),
        ):
            for name in "ab":
                user = await nodes[name].broker.call("users.get", user="ben")
                assert (len(user.links), user.rooms) == (2, (room,))
                assert [each.room for each in (await nodes[name].broker.call("rooms.list")).items] == [room]
            assert (await nodes["b"].broker.call("users.disconnect", user="ben")).links == 2
            for link in (here, there):
                assert (await link.expect(GoAway))[1].code == CloseCode.KICKED


async def test_a_backend_is_shown_who_is_online_at_any_node(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        await all_see_each_other(nodes)
        async with nodes["a"].broker.connect("dev:ann"), nodes["b"].broker.connect("dev:ben"):
            for name in "ab":
                found = await nodes[name].broker.call("presence.watch", users=["ann", "ben", "cai"])
                assert [each.online for each in found.items] == [True, True, False]


async def test_pages_of_rooms_go_over_all_nodes(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        await all_see_each_other(nodes)
        table = nodes["b"].nodes.owners.table
        await until(lambda: len(table.settled(trio.current_time(), LEASE_S)) == 2)
        names = sorted(f"show-{number}" for number in range(12))
        for name in names:
            await nodes["b"].broker.call("rooms.open", room=name)
        assert {len(node.broker.hub) for node in nodes.by_name.values()} != {12, 0}, "both have some"
        seen: list[str] = []
        cursor = None
        while True:
            page = await nodes["a"].broker.call("rooms.list", limit=5, cursor=cursor)
            seen += [each.room for each in page.items]
            cursor = page.next
            if cursor is None:
                break
        assert seen == names


async def test_a_user_has_no_more_links_than_the_limit_over_all_nodes(tmp_path: Path) -> None:
    async with running_nodes("a", "b", link={"connections_per_user": 2}, **kept(tmp_path)) as nodes:
        await all_see_each_other(nodes)
        async with raw_link(nodes["a"].broker) as first, raw_link(nodes["b"].broker) as second:
            await first.login("dev:ben")
            await until(lambda: len(nodes.data.links("ben")) == 1)
            await second.login("dev:ben")
            await until(lambda: len(nodes.data.links("ben")) == 2)
            async with raw_link(nodes["b"].broker) as third:
                await third.login("dev:ben")
                assert (await first.expect(GoAway))[1].code == CloseCode.REPLACED
                await until(lambda: len(nodes["b"].broker.users.sessions("ben")) == 2)
            await until(lambda: len(nodes.data.links("ben")) == 1)
            nodes["b"].kill()
            async with raw_link(nodes["a"].broker) as after:
                await until(lambda: nodes["a"].nodes.others_alive() == [])
                await after.login("dev:ben")
                await until(lambda: [each.connection[0] for each in nodes.data.links("ben")] == ["a"])
        await until(lambda: not nodes.data.links("ben"))


async def test_a_notice_of_an_activity_is_once_in_the_inbox_of_a_user_of_another_node(tmp_path: Path) -> None:
    async with running_nodes("a", "b", **kept(tmp_path)) as nodes:
        room, broker = nodes.room_on("a"), nodes["b"].broker
        await broker.call("rooms.open", room=room)
        pool: dict[str, Any] = {"room": room, "id": "c", "count": 2, "prefix": "NEW", "template": "Code: {code}"}
        await broker.call("coupons.create", idempotency_key="k1", **pool)
        async with raw_link(broker) as ben:
            await ben.login("dev:ben")
            await broker.call("coupons.issue", idempotency_key="k2", room=room, id="c", user="ben")
            direct = (await ben.expect(Direct))[1]
            assert direct.type == MessageType.ACTIVITY
            nodes["a"].kill()
            await until(lambda: nodes.owner_of(room) is nodes["b"] and nodes.owner_of("\0broker") is not None)
            last = await broker.call("directs.send", user="ben", type=4, payload=["尾"])
            assert last.id == direct.direct_id + 1
            assert (await ben.expect(Direct))[1].payload == ("尾",)
