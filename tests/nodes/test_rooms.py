"""Rooms of three brokers that share a memory engine: viewers of all nodes are in one room."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from broker import OperationError
from broker.core.nodes.membership import LEASE_S
from broker.engine.memory import MemoryFaults
from broker.rooms import owners
from protocol.codes import ErrorCode, LeaveReason, MessageType, Outcome
from protocol.messages import (
    Ack,
    Call,
    Direct,
    ErrorReply,
    Event,
    Join,
    Joined,
    Left,
    Missed,
    Post,
    Result,
    State,
    Tick,
)
from tests.support.broker import RawLink, joined_link, raw_link
from tests.support.nodes import running_nodes
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MEMORY_ONLY: dict[str, Any] = {"ledger": {"ephemeral": True}}


async def texts(link: RawLink, number: int, until_text: str) -> list[str]:
    """Return the texts of danmaku that a link sees, up to one."""
    seen: list[str] = []
    while until_text not in seen:
        frame, tick = await link.expect(Tick)
        assert frame.room == number
        seen += [entry.payload[0] for entry in tick.entries]
    return seen


async def test_viewers_of_all_nodes_see_the_chat_and_the_events_of_one_room() -> None:
    async with running_nodes("a", "b", "c", **MEMORY_ONLY) as nodes:
        room = nodes.room_on("a")
        async with (
            joined_link(nodes["a"].broker, "dev:host:host", room) as (host, host_room),
            joined_link(nodes["b"].broker, "dev:ben", room) as (ben, ben_room),
            joined_link(nodes["c"].broker, "dev:cai", room) as (cai, cai_room),
        ):
            assert nodes.owner_of(room) is nodes["a"]
            assert nodes["b"].broker.hub.find(room) is None
            await ben.post(ben_room, 7, MessageType.DANMAKU, ("来自 b",))
            frame, ack = await ben.expect(Ack)
            assert (frame.room, ack.results[0].sequence, ack.results[0].outcome) == (ben_room, 7, Outcome.ACCEPTED)
            assert "来自 b" in await texts(host, host_room, "来自 b")
            assert "来自 b" in await texts(cai, cai_room, "来自 b")
            await host.post(host_room, 1, MessageType.ANNOUNCEMENT, ("开播了",))
            for link, number in ((ben, ben_room), (cai, cai_room)):
                frame, event = await link.expect(Event)
                assert (frame.room, frame.sequence, event.payload) == (number, 1, ("开播了",))
            async with raw_link(nodes["c"].broker) as late:
                await late.login("dev:late")
                _, snapshot = await late.join(room)
                assert snapshot.offset == 1
                assert snapshot.announcement is not None
                await until(lambda: nodes["a"].broker.hub.find(room).state.online == 4)  # type: ignore[union-attr]
                while (await ben.expect(State))[1].online != 4:
                    pass
            await until(lambda: nodes["a"].broker.hub.find(room).state.online == 3)  # type: ignore[union-attr]


def arriving(is_lost: bool, body: bytes) -> tuple[float, ...]:
    """Return when a message to a node arrives."""
    return () if is_lost else (0.0,)


async def test_viewers_are_notified_of_the_chat_that_was_lost_between_the_nodes() -> None:
    async with running_nodes("a", "b", **MEMORY_ONLY) as nodes:
        room = nodes.room_on("a")
        async with (
            joined_link(nodes["a"].broker, "dev:host:host", room) as (host, host_room),
            joined_link(nodes["b"].broker, "dev:ben", room) as (ben, ben_room),
        ):
            sequence = 0
            for text, is_lost in (("一", False), ("二", True), ("三", True), ("四", False)):
                nodes["b"].engine.faults = MemoryFaults(messages=partial(arriving, is_lost))
                sequence += 1
                await host.post(host_room, sequence, MessageType.DANMAKU, (text,))
                await texts(host, host_room, text)
                if text == "一":
                    await texts(ben, ben_room, text)
            assert (await ben.expect(Direct))[1].payload == Missed(chat=2, ambient=0)
            assert await texts(ben, ben_room, "四") == ["四"]


async def test_a_kick_by_the_owner_reaches_the_links_of_other_nodes() -> None:
    async with running_nodes("a", "b", **MEMORY_ONLY) as nodes:
        room = nodes.room_on("a")
        async with joined_link(nodes["b"].broker, "dev:ben", room) as (ben, number):
            await nodes["a"].broker.call("users.kick", room=room, user="ben", reason="spam")
            frame, left = await ben.expect(Left)
            assert (frame.room, left.reason) == (number, LeaveReason.KICKED)
            assert (await nodes["a"].broker.call("rooms.get", room=room)).online == 0
            _, snapshot = await ben.join(room, sequence=9)
            assert isinstance(snapshot, Joined)


async def test_viewers_go_on_when_the_owner_is_killed() -> None:
    async with running_nodes("a", "b", "c", **MEMORY_ONLY) as nodes:
        room = nodes.room_on("a")
        async with (
            joined_link(nodes["b"].broker, "dev:ben", room) as (ben, ben_room),
            joined_link(nodes["c"].broker, "dev:cai", room) as (cai, cai_room),
        ):
            nodes["a"].kill()
            await until(lambda: room in nodes["b"].nodes.owners.fences or room in nodes["c"].nodes.owners.fences)
            heir = "b" if room in nodes["b"].nodes.owners.fences else "c"
            await until(lambda: (found := nodes[heir].broker.hub.find(room)) is not None and found.state.online == 2)
            await ben.post(ben_room, 3, MessageType.DANMAKU, ("还在吗",))
            assert "还在吗" in await texts(cai, cai_room, "还在吗")
            await cai.post(cai_room, 4, MessageType.DANMAKU, ("在的",))
            assert "在的" in await texts(ben, ben_room, "在的")


async def test_calls_are_answered_by_the_owner_of_their_room_or_refused() -> None:
    async with running_nodes("a", "b", **MEMORY_ONLY) as nodes:
        room, other = nodes.room_on("a"), nodes["b"].broker
        assert (await other.call("rooms.open", room=room)).room == room
        assert nodes.owner_of(room) is nodes["a"]
        async with joined_link(other, "dev:ben", room) as (ben, number):
            published = await other.call("messages.publish", room=room, type=4, payload=["欢迎"], idempotency_key="k-1")
            assert published.offset == 1
            assert (await ben.expect(Event))[0].room == number
            again = await other.call("messages.publish", room=room, type=4, payload=["欢迎"], idempotency_key="k-1")
            assert again == published
            assert (await other.call("rooms.get", room=room)).online == 1
            with pytest.raises(OperationError) as refused:
                await other.call("messages.publish", room=room, type=4, payload=[5])
            assert refused.value.code is ErrorCode.BAD_FIELD
            await ben.send((Call("rooms.get", "", {"room": room}), number, 5))
            frame, result = await ben.expect(Result)
            assert (frame.room, frame.sequence, result.result.online) == (number, 5, 1)
            await ben.send((Call("rooms.close", "", {"room": room}), number, 6))
            assert (await ben.expect(ErrorReply))[1].code == ErrorCode.NOT_ALLOWED
        refusals: list[tuple[str, dict[str, Any]]] = [
            ("users.export", {"user": "ben"}),
            ("users.revoke", {"user": "ben"}),
        ]
        for operation, fields in refusals:
            with pytest.raises(OperationError) as missing:
                await other.call(operation, **fields)
            assert missing.value.code is ErrorCode.UNKNOWN_OPERATION


async def test_a_node_that_drains_gives_its_rooms_to_others_and_their_viewers_stay() -> None:
    async with running_nodes("a", "b", **MEMORY_ONLY) as nodes:
        room = nodes.room_on("a")
        async with joined_link(nodes["b"].broker, "dev:ben", room) as (ben, number):
            await nodes["a"].nodes.drain()
            await until(lambda: nodes.owner_of(room) is nodes["b"])
            await until(lambda: (found := nodes["b"].broker.hub.find(room)) is not None and found.state.online == 1)
            await ben.post(number, 3, MessageType.DANMAKU, ("还在吗",))
            assert "还在吗" in await texts(ben, number, "还在吗")


async def test_a_node_that_knows_an_earlier_owner_is_led_to_the_owner_of_now() -> None:
    """A join and a call that go to a node which has given the room up are answered by the next owner; a post of a link
    that has not joined is to be sent again, and is answered by it then."""
    async with running_nodes("a", "b", "c", **MEMORY_ONLY) as nodes:
        rooms = [nodes.room_on("a", prefix) for prefix in ("joined", "called", "posted")]
        for room in rooms:
            assert (await nodes["a"].broker.call("rooms.open", room=room)).room == room
            for name in ("b", "c"):
                assert await nodes[name].nodes.owners.wait_found(room) == "a"
        await nodes["a"].nodes.drain()
        await until(lambda: all(nodes.owner_of(room) is not None for room in rooms))
        others = [nodes["b" if nodes.owner_of(room) is nodes["c"] else "c"] for room in rooms]
        assert [other.nodes.owners.owner_of(room) for other, room in zip(others, rooms, strict=True)] == ["a"] * 3
        async with joined_link(others[0].broker, "dev:ben", rooms[0]) as (ben, number):
            await ben.post(number, 3, MessageType.DANMAKU, ("在这里",))
            assert "在这里" in await texts(ben, number, "在这里")
        assert (await others[1].broker.call("rooms.open", room=rooms[1])).room == rooms[1]
        async with raw_link(others[2].broker) as app:
            await app.login("dev:shop:app")
            outcomes = []
            for sequence in (4, 5):
                await app.send((Post(MessageType.ANNOUNCEMENT, "m4", ("公告",), room_name=rooms[2]), 0, sequence))
                outcomes.append((await app.expect(Ack))[1].results[0].outcome)
            assert outcomes == [Outcome.UNAVAILABLE, Outcome.ACCEPTED]


async def test_an_owner_that_is_started_again_at_once_is_the_owner_again_when_another_node_asks_it() -> None:
    async with running_nodes("a", "b", **MEMORY_ONLY) as nodes:
        tables = [node.nodes.owners.table for node in nodes.by_name.values()]
        await until(lambda: all(len(table.settled(trio.current_time(), LEASE_S)) == 2 for table in tables))
        room = nodes.room_on("b")
        other = nodes["a"].broker
        await other.call("rooms.open", room=room)
        assert nodes.owner_of(room) is nodes["b"]
        nodes["b"].kill()
        await nodes.start("b")  # the engine's record of the room names it, and it is alive
        await until(lambda: nodes["a"].nodes.owners.owner_of(room) is None)
        assert (await other.call("rooms.open", room=room)).room == room
        assert nodes.owner_of(room) is nodes["b"]


async def test_viewers_of_a_room_that_cannot_be_looked_up_now_go_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_nodes("a", "b", **MEMORY_ONLY) as nodes:
        room = nodes.room_on("a")
        async with joined_link(nodes["b"].broker, "dev:ben", room) as (ben, ben_room):
            monkeypatch.setattr(owners, "MAX_LOOKING", 0)  # as many rooms are looked up as may be
            nodes["a"].kill()
            await until(lambda: nodes["b"].nodes.owners.owner_of(room) is None)
            monkeypatch.undo()
            await until(lambda: (found := nodes["b"].broker.hub.find(room)) is not None and found.state.online == 1)
            await ben.post(ben_room, 3, MessageType.DANMAKU, ("还在吗",))
            assert "还在吗" in await texts(ben, ben_room, "还在吗")


async def test_a_node_that_has_drained_has_notified_the_next_owner() -> None:
    async with running_nodes("a", "b", **MEMORY_ONLY) as nodes:
        tables = [node.nodes.owners.table for node in nodes.by_name.values()]
        await until(lambda: all(len(table.settled(trio.current_time(), LEASE_S)) == 2 for table in tables))
        room = nodes.room_on("b")
        await nodes["a"].broker.call("rooms.open", room=room)
        await nodes["b"].nodes.drain()
        nodes["b"].kill()  # nothing that it sends later arrives
        await until(lambda: room in nodes["a"].nodes.owners.fences)


async def test_an_event_that_is_quicker_than_the_answer_to_a_join_comes_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_nodes("a", "b", **MEMORY_ONLY) as nodes:
        room, held = nodes.room_on("a"), list[bytes]()
        async with joined_link(nodes["b"].broker, "dev:ben", room) as (ben, _), raw_link(nodes["b"].broker) as cai:
            owner = nodes["a"].broker
            await owner.call("messages.publish", room=room, type=4, payload=["before"])
            assert (await ben.expect(Event))[0].sequence == 1
            await cai.login("dev:cai")
            take = nodes["b"].nodes.node_message
            monkeypatch.setattr(nodes["b"].nodes, "node_message", held.append)
            await cai.send((Join(room), 0, 1))
            await until(lambda: owner.hub.find(room).state.online == 2)  # type: ignore[union-attr]
            for text in ("one", "two"):
                await owner.call("messages.publish", room=room, type=4, payload=[text])
                await ben.expect(Event)
            monkeypatch.undo()
            for body in held:
                take(body)
            _, snapshot = await cai.expect(Joined)
            assert snapshot.offset == 1
            frames = [await cai.expect(Event) for _ in range(2)]
            assert [(frame.sequence, event.payload) for frame, event in frames] == [(2, ("one",)), (3, ("two",))]
            await owner.call("messages.publish", room=room, type=4, payload=["three"])
            assert (await cai.expect(Event))[0].sequence == 4
