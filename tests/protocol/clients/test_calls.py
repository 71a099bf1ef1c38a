"""Calls of operations by the client: typed results and refusals, lost links, keys, and a bound on those that wait."""

from __future__ import annotations

from typing import Any, assert_type

import pytest
import trio
import trio.testing

from protocol.clients import CallLost, CallRefused, Client, ClientClosed
from protocol.clients.client import core_of
from protocol.codes import CloseCode, ErrorCode, Feature, Opcode
from protocol.connection import Frame
from protocol.errors import LocalProtocolError
from protocol.messages import MAX_CALLS, Call, ErrorReply, Result
from protocol.operations import BY_NAME, BY_REQUEST, OPERATIONS
from protocol.operations.messages import PublishMessage
from protocol.operations.rooms import GetRoom, HistoryPage, RoomView
from protocol.operations.users import Kicked
from tests.support.peer import Peer, linked, server_hello

KNOWS = server_hello(features=int(Feature.CALL))


async def asked(peer: Peer) -> tuple[Frame, Call]:
    frame = await peer.expect(Opcode.CALL)
    assert isinstance(frame.message, Call)
    return frame, frame.message


class Calling:
    """A call that runs beside the test."""

    def __init__(self, nursery: trio.Nursery, client: Client, operation: Any, **arguments: Any) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self.done = trio.Event()
        nursery.start_soon(self._run, client, operation, arguments)

    async def _run(self, client: Client, operation: Any, arguments: dict[str, Any]) -> None:
        try:
            self.result = await client.call(operation, **arguments)
        except Exception as error:
            self.error = error
        self.done.set()

    async def wait(self) -> Any:
        with trio.fail_after(1000):
            await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.result


def test_no_two_operations_share_a_request_record() -> None:
    assert len(BY_REQUEST) == len(OPERATIONS)


async def test_a_call_by_name_or_by_record_returns_the_result_record(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, _), trio.open_nursery() as nursery:
        by_name = Calling(nursery, client, "users.kick", room="live-1", user="ann")
        frame, call = await asked(peer)
        assert (frame.room, call) == (0, Call(42, "", ("live-1", "ann", "", None)))
        await peer.send(Result(42, Kicked(1)), 0, frame.sequence)
        result = await by_name.wait()
        assert isinstance(result, Kicked)
        assert result.links == 1
        by_record = Calling(nursery, client, GetRoom("live-1"))
        frame, call = await asked(peer)
        assert call == Call(2, "", ("live-1",))
        view = BY_NAME["rooms.get"].example[1]
        await peer.send(Result(2, view), 0, frame.sequence)
        assert await by_record.wait() == view
        assert core_of(client).calls.open_calls == 0


async def test_a_refusal_has_code_field_rule_and_wait(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, _), trio.open_nursery() as nursery:
        calling = Calling(nursery, client, "rooms.get", room="a")
        frame, _ = await asked(peer)
        await peer.send(ErrorReply(ErrorCode.RATE_LIMITED, "too many calls", "room", 1500), 0, frame.sequence)
        with pytest.raises(CallRefused) as caught:
            await calling.wait()
        error = caught.value
        assert (error.code, error.rule, error.field, error.retry_after_ms) == (301, "too many calls", "room", 1500)


@pytest.mark.parametrize(
    ("operation", "arguments", "rule"),
    [
        ("rooms.explode", {}, "is no operation"),
        ("rooms.get", {}, "rooms.get.room: is required"),
        ("rooms.get", {"room": "a/b"}, "rooms.get.room: must be"),
        ("rooms.get", {"room": "a", "size": 1}, "rooms.get.size: is no field"),
        ("rooms.get", {"room": "a", "key": "k"}, "takes no key"),
        ("messages.publish", {"room": "a", "type": 4, "payload": ("x",), "key": "k" * 129}, "CALL.key"),
        ("messages.publish", {"room": "a", "type": 128, "payload": "x" * 5000}, "at most 4096 bytes"),
        (GetRoom("a"), {"room": "b"}, "takes no further arguments"),
        (Kicked(1), {}, "is the request of no operation"),
    ],
)
async def test_a_wrong_call_is_refused_before_it_is_sent(
    operation: Any, arguments: dict[str, Any], rule: str, autojump_clock: Any
) -> None:
    async with linked(hello=KNOWS) as (client, peer, _):
        with pytest.raises(LocalProtocolError, match=rule):
            await client.call(operation, **arguments)
    assert all(frame.opcode is not Opcode.CALL for frame in await peer.rest())


async def test_type_checkers_know_the_result_of_an_operation(autojump_clock: Any) -> None:
    view = BY_NAME["rooms.get"].example[1]
    found: list[RoomView] = []

    async def get(client: Client) -> None:
        found.append(assert_type(await client.call("rooms.get", room="a"), RoomView))
        found.append(assert_type(await client.call(GetRoom("a")), RoomView))

    async with linked(hello=KNOWS) as (client, peer, _), trio.open_nursery() as nursery:
        nursery.start_soon(get, client)
        for _ in range(2):
            frame, _ = await asked(peer)
            await peer.send(Result(2, view), 0, frame.sequence)
    assert found == [view, view]


async def test_a_broker_without_operations_is_not_asked(autojump_clock: Any) -> None:
    async with linked() as (client, _, _):
        with pytest.raises(LocalProtocolError, match="CALL"):
            await client.call("rooms.get", room="a")


async def test_a_read_and_a_call_with_a_key_survive_a_lost_link_and_others_do_not(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, network), trio.open_nursery() as nursery:
        read = Calling(nursery, client, "rooms.history", room="a")
        keyed = Calling(nursery, client, PublishMessage("a", 4, ("hi",)), key="k-1")
        other = Calling(nursery, client, "users.kick", room="a", user="ann")
        sent = {(await asked(peer))[1].operation for _ in range(3)}
        assert sent == {7, 20, 42}
        await peer.vanish()
        with pytest.raises(CallLost, match=r"users\.kick"):
            await other.wait()
        peer = await network.accept()
        await peer.welcome(KNOWS)
        again = dict([(call.operation, (frame, call)) for frame, call in [await asked(peer), await asked(peer)]])
        assert again.keys() == {7, 20}
        assert again[20][1].key == "k-1"
        page = HistoryPage((), 7, 0, False)
        await peer.send(Result(7, page), 0, again[7][0].sequence)
        published = BY_NAME["messages.publish"].example[1]
        await peer.send(Result(20, published), 0, again[20][0].sequence)
        assert await read.wait() == page
        assert await keyed.wait() == published


async def test_a_call_ends_with_its_timeout_and_a_late_answer_is_unexpected(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, _):
        with pytest.raises(trio.TooSlowError):
            await client.call("rooms.get", room="a", timeout_s=5)
        frame, _ = await asked(peer)
        await peer.send(Result(2, BY_NAME["rooms.get"].example[1]), 0, frame.sequence)
        await trio.testing.wait_all_tasks_blocked()
        assert client.unexpected_frames == 1


async def test_a_closed_client_ends_its_calls(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, _), trio.open_nursery() as nursery:
        calling = Calling(nursery, client, "rooms.get", room="a")
        await asked(peer)
        await peer.goaway(CloseCode.KICKED)
        with pytest.raises(ClientClosed):
            await calling.wait()


async def test_at_most_32_calls_wait_for_the_broker(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, _), trio.open_nursery() as nursery:
        calls = [Calling(nursery, client, "rooms.get", room="a") for _ in range(MAX_CALLS + 1)]
        frames = [(await asked(peer))[0] for _ in range(MAX_CALLS)]
        await trio.testing.wait_all_tasks_blocked()
        assert core_of(client).calls.open_calls == MAX_CALLS
        view = BY_NAME["rooms.get"].example[1]
        for frame in frames:
            await peer.send(Result(2, view), 0, frame.sequence)
        last, _ = await asked(peer)
        await peer.send(Result(2, view), 0, last.sequence)
        assert [await each.wait() for each in calls] == [view] * (MAX_CALLS + 1)
