"""CALLs over a link: one answer each, who may call what, the room of the header, bounds, and links that end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from broker.auth.grants import RoomGrant
from broker.operations.caller import OperationError
from broker.operations.calls import HANDLERS
from broker.server import Broker
from protocol.codes import CloseCode, ErrorCode, Feature, LeaveReason, MessageType, Opcode, Outcome, Role
from protocol.connection import Frame
from protocol.fields import RECORD_SCHEMAS, RECORDS
from protocol.frames import MAX_FRAME_BYTES, build_frame, pack_body
from protocol.messages import MAX_CALLS, Call, ErrorReply, Leave, Left, Result
from protocol.operations import BY_NAME, OPERATIONS, OperationRow
from protocol.operations.messages import Published
from protocol.operations.rooms import MembersPage, RoomView
from tests.support.broker import RawLink, joined_link, raw_link, running_broker
from tests.support.until import until
from tests.support.websocket import JSON_UPGRADE, TEXT, masked

pytestmark = pytest.mark.integration

MANY: dict[str, Any] = {"errors_per_minute": 100_000, "frames_per_s": 0, "app_frames_per_s": 0}


async def call(
    link: RawLink, name: str, *arguments: Any, room: int = 0, sequence: int = 7, key: str = ""
) -> Result | ErrorReply:
    """Call an operation; the answer with this sequence."""
    await link.send((Call(BY_NAME[name].number, key, arguments), room, sequence))
    return (await answer(link)).message  # type: ignore[return-value]


async def answer(link: RawLink) -> Frame:
    """The next RESULT or ERROR."""
    while True:
        frame = await link.next_frame()
        assert frame is not None, "the link ended"
        if frame.opcode in (Opcode.RESULT, Opcode.ERROR):
            return frame


def refused(found: Result | ErrorReply) -> tuple[ErrorCode, str]:
    assert isinstance(found, ErrorReply), found
    return ErrorCode(found.code), found.field


@contextmanager
def waiting_handler(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[dict[int, trio.Event]]:
    """Let calls of an operation wait for an event each, by their field ``after``; cancelled ones remove theirs."""
    events: dict[int, trio.Event] = {}

    async def handle(parts: Any, caller: Any, request: Any) -> Any:
        after = getattr(request, "after", 0)
        event = events[after] = trio.Event()
        try:
            await event.wait()
        except trio.Cancelled:
            del events[after]
            raise
        return BY_NAME[name].example[1]

    with monkeypatch.context() as patch:
        patch.setitem(HANDLERS, name, handle)
        yield events


@asynccontextmanager
async def platform_link(broker: Broker) -> AsyncIterator[RawLink]:
    async with raw_link(broker) as link:
        await link.login("dev:shop:app")
        yield link


async def test_a_broker_says_that_it_has_operations() -> None:
    async with running_broker() as broker, raw_link(broker) as link:
        assert (await link.hello(features=0xFFFF)).features & Feature.CALL


async def test_a_member_reads_its_room_and_the_header_may_name_it() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        by_name = await call(ann, "rooms.get", "lobby")
        assert isinstance(by_name, Result)
        assert isinstance(by_name.result, RoomView)
        assert (by_name.result.room, by_name.result.online) == ("lobby", 1)
        for arguments in ((None,), (), ("lobby",)):
            await ann.send((Call(2, "", arguments), room, 8))
            frame = await answer(ann)
            assert (frame.opcode, frame.room, frame.sequence) == (Opcode.RESULT, room, 8)
            assert frame.message.result == by_name.result  # type: ignore[union-attr]
        await ann.send((Call(2, "", {}), room, 9), (Call(2, "", {"room": None, "newer": 1}), room, 10))
        assert [(await answer(ann)).opcode for _ in range(2)] == [Opcode.RESULT] * 2


async def test_members_and_history_are_for_links_that_have_joined_and_for_staff() -> None:
    async with (
        running_broker(room={"open_roles": ["guest", "viewer", "host", "app"]}) as broker,
        joined_link(broker, "dev:ann") as (ann, _),
        raw_link(broker) as bob,
        raw_link(broker) as mod,
        raw_link(broker) as guest,
    ):
        await bob.login("dev:bob")
        await mod.login("dev:mod:moderator")
        await guest.login(None)
        await guest.join()
        for name in ("rooms.get", "rooms.members", "rooms.history"):
            assert isinstance(await call(ann, name, "lobby"), Result)
            assert refused(await call(bob, name, "lobby")) == (ErrorCode.NOT_JOINED, "room")
            assert isinstance(await call(mod, name, "lobby"), Result)
        assert isinstance(await call(guest, "rooms.get", "lobby"), Result)
        for name in ("rooms.members", "rooms.history"):
            assert refused(await call(guest, name, "lobby")) == (ErrorCode.NOT_ALLOWED, "operation")
        members = await call(ann, "rooms.members", "lobby")
        assert isinstance(members, Result)
        assert isinstance(members.result, MembersPage)
        assert "ann" in {each.user for each in members.result.items}


async def test_the_room_of_the_header_has_to_be_joined_and_the_one_of_the_request() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:max:host") as (host, room):
        assert refused(await call(host, "rooms.get", None, room=room + 1)) == (ErrorCode.NOT_JOINED, "room")
        assert refused(await call(host, "rooms.get", "other", room=room)) == (ErrorCode.BAD_FIELD, "room")
        assert refused(await call(host, "rooms.list", room=room)) == (ErrorCode.BAD_FIELD, "room")
        await host.send((Call(2, "", {"room": 5}), room, 1))
        assert refused((await answer(host)).message) == (ErrorCode.BAD_FIELD, "room")  # type: ignore[arg-type]


async def test_an_unknown_operation_by_number_or_name_is_refused() -> None:
    async with running_broker() as broker, raw_link(broker) as link:
        await link.login("dev:ann")
        await link.send(
            (Call(9999, "", ()), 0, 1), (Call("rooms.explode", "", ()), 0, 2), (Call("rooms.get", "", ("a",)), 0, 3)
        )
        frames = [await answer(link) for _ in range(3)]
        assert [frame.sequence for frame in frames] == [1, 2, 3]
        assert [refused(frame.message) for frame in frames] == [  # type: ignore[arg-type]
            (ErrorCode.UNKNOWN_OPERATION, "operation"),
            (ErrorCode.UNKNOWN_OPERATION, "operation"),
            (ErrorCode.NOT_JOINED, "room"),
        ]


async def test_calls_of_one_write_are_answered_in_one_read_without_a_task() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        await ann.send(*((Call(2, "", ()), room, number) for number in range(1, 21)))
        assert [(await answer(ann)).sequence for _ in range(20)] == list(range(1, 21))
        assert broker.context.call_tasks.running == 0


async def test_a_rate_of_calls_is_of_one_user_and_says_when() -> None:
    async with (
        running_broker(link=MANY) as broker,
        joined_link(broker, "dev:ann") as (ann, _),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        found = [await call(ann, "rooms.get", "lobby") for _ in range(60)]
        limited = [each for each in found if isinstance(each, ErrorReply)]
        assert limited
        assert all(each.code == ErrorCode.RATE_LIMITED and each.retry_after_ms > 0 for each in limited)
        assert isinstance(await call(bob, "rooms.get", "lobby"), Result)


async def test_a_viewer_called_like_a_key_has_limits_and_keys_of_its_own() -> None:
    async with running_broker(link=MANY) as broker, platform_link(broker) as shop:
        arguments = "live-1", 4, ("one",)
        first = await call(shop, "messages.publish", *arguments, key="k")
        again = await call(shop, "messages.publish", *arguments, key="k")
        assert isinstance(first, Result)
        assert isinstance(again, Result)
        assert first.result == again.result
        other = await call(shop, "messages.publish", "live-1", 4, ("two",), key="k")
        assert refused(other) == (ErrorCode.KEY_REUSED, "key")
        room = broker.hub.find("live-1")
        assert room is not None
        assert room.state.last_offset == 1


async def test_staff_kicks_only_users_whose_role_is_below_its_own() -> None:
    roles = ("viewer", "moderator", "assistant", "host")
    async with running_broker() as broker, AsyncExitStack() as links:
        staff: dict[str, RawLink] = {}
        for role in roles:
            for number in (1, 2):
                link, _ = await links.enter_async_context(joined_link(broker, f"dev:{role}-{number}:{role}"))
                staff[f"{role}-{number}"] = link
        for role in ("assistant", "host"):
            for other in roles:
                found = await call(staff[f"{role}-1"], "users.kick", "lobby", f"{other}-2", "", 600)
                if roles.index(other) >= roles.index(role):
                    assert refused(found) == (ErrorCode.NOT_ALLOWED, "user")
                else:
                    assert isinstance(found, Result)
        banned = [role for role in roles if broker.hub.sanctions.of_user(f"{role}-2", 0)]
        assert banned == ["viewer", "moderator", "assistant"]


async def test_a_key_where_none_is_taken_is_refused() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:max:host") as (host, _):
        assert refused(await call(host, "users.kick", "lobby", "ann", key="k")) == (ErrorCode.BAD_FIELD, "key")


async def test_what_waits_is_answered_in_any_order_after_leave_and_after_the_end_of_the_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with waiting_handler(monkeypatch, "rooms.history") as events:
        async with (
            running_broker() as broker,
            joined_link(broker, "dev:max:host") as (host, _),
            joined_link(broker, "dev:ann") as (ann, room),
        ):
            await ann.send(*((Call(7, "", (None, number)), room, number) for number in (1, 2, 3)))
            await until(lambda: len(events) == 3)
            events[3].set()
            assert (await answer(ann)).sequence == 3
            await ann.send((Leave(), room, 4))
            assert (await ann.expect(Left))[1].reason is LeaveReason.REQUESTED
            events[1].set()
            frame = await answer(ann)
            assert (frame.opcode, frame.room, frame.sequence) == (Opcode.RESULT, room, 1)
            assert isinstance(await call(host, "rooms.close", "lobby"), Result)
            events[2].set()
            assert (await answer(ann)).sequence == 2


async def test_at_most_32_calls_of_a_link_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with waiting_handler(monkeypatch, "rooms.history") as events:
        async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
            await ann.send(*((Call(7, "", (None, number)), room, number) for number in range(MAX_CALLS + 1)))
            frame = await answer(ann)
            assert frame.sequence == MAX_CALLS
            assert isinstance(frame.message, ErrorReply)
            assert frame.message.code == ErrorCode.RATE_LIMITED
            assert frame.message.retry_after_ms > 0
            assert broker.context.call_tasks.running == MAX_CALLS
            await until(lambda: len(events) == MAX_CALLS)
            for event in events.values():
                event.set()
            assert sorted([(await answer(ann)).sequence for _ in range(MAX_CALLS)]) == list(range(MAX_CALLS))
            assert broker.context.call_tasks.running == 0


async def test_a_link_that_ends_cancels_its_reads_and_completes_what_changes_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        waiting_handler(monkeypatch, "rooms.history") as reads,
        waiting_handler(monkeypatch, "rooms.close") as changes,
    ):
        async with running_broker() as broker:
            async with joined_link(broker, "dev:max:host") as (host, room):
                await host.send((Call(7, "", ()), room, 1), (Call(5, "", ()), room, 2))
                await until(lambda: len(reads) == len(changes) == 1)
            await until(lambda: not reads)
            assert broker.context.call_tasks.running == 1
            changes[0].set()
            await until(lambda: broker.context.call_tasks.running == 0)
            assert broker.context.closed[CloseCode.INTERNAL_ERROR] == 0


@pytest.mark.parametrize("waits", [False, True])
async def test_a_defect_of_a_handler_costs_one_call(
    waits: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(parts: Any, caller: Any, request: Any) -> Any:
        raise RuntimeError("a defect")

    async def fail_later(parts: Any, caller: Any, request: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a defect")

    monkeypatch.setitem(HANDLERS, "rooms.get", fail_later if waits else fail)
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
        found = await call(ann, "rooms.get", room=room)
        assert refused(found) == (ErrorCode.INTERNAL_ERROR, "")
        assert isinstance(await call(ann, "rooms.history", room=room), Result)
        assert broker.operations.failed == 1


async def test_an_error_text_of_an_operation_is_printable_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(parts: Any, caller: Any, request: Any) -> Any:
        raise OperationError(ErrorCode.OUT_OF_STATE, "\x1b[31m\n" + "x" * 1000, "y" * 100)

    monkeypatch.setitem(HANDLERS, "rooms.list", refuse)
    async with running_broker() as broker, platform_link(broker) as shop:
        found = await call(shop, "rooms.list")
        assert isinstance(found, ErrorReply)
        assert found.message.startswith(" [31m x")
        assert (len(found.message), len(found.field)) == (256, 64)


async def test_a_page_that_would_not_fit_a_frame_is_shorter_and_has_a_cursor() -> None:
    async with running_broker(link=MANY) as broker, platform_link(broker) as shop:
        for number in range(1200):
            broker.hub.open(f"{number:04}" + "长" * 60)
        seen: list[str] = []
        cursor = None
        while True:
            found = await call(shop, "rooms.list", "*", None, 1000, cursor)
            assert isinstance(found, Result)
            assert len(pack_body(found)) <= MAX_FRAME_BYTES
            seen += [each.room for each in found.result.items]
            cursor = found.result.next
            if cursor is None:
                break
        assert [name[:4] for name in seen] == [f"{number:04}" for number in range(1200)]


async def test_a_token_that_allows_some_types_allows_them_in_calls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = (RoomGrant("live-*", Role.APP, frozenset({"announcement"})), RoomGrant("a", Role.VIEWER))
    async with running_broker() as broker, raw_link(broker) as shop:
        await shop.login("dev:shop:app")
        (session,) = broker.context.sessions
        session.grant.rooms = rooms  # type: ignore[attr-defined]
        allowed = await call(shop, "messages.publish", "live-1", 4, ("hi",))
        assert isinstance(allowed, Result)
        assert isinstance(allowed.result, Published)
        assert allowed.result.outcome is Outcome.ACCEPTED
        gift = "order-1", "ann", "Ann", "rose", 1, 100, ""
        assert refused(await call(shop, "messages.publish", "live-1", MessageType.GIFT, gift)) == (
            ErrorCode.NOT_ALLOWED,
            "type",
        )
        assert refused(await call(shop, "messages.publish", "a", 4, ("hi",))) == (ErrorCode.NOT_ALLOWED, "operation")
        assert refused(await call(shop, "messages.publish", "b", 4, ("hi",)))[0] is ErrorCode.ROOM_NOT_GRANTED
        many = await call(shop, "messages.publish_many", (("a", 4, ("hi",)), ("b", 4, ("hi",)), ("live-1", 4, ("hi",))))
        assert isinstance(many, Result)
        assert [each.code for each in many.result.items] == [201, 202, None]


async def test_a_json_link_names_the_operation_and_gets_the_object_of_http() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:max:host") as (host, room):
        await host.post(room, 1, MessageType.ANNOUNCEMENT, ("欢迎",))
        async with await trio.open_tcp_stream(*broker.addresses[0]) as stream:
            await stream.send_all(JSON_UPGRADE.replace(b"Host: x", b"Host: localhost"))
            frames: list[dict[str, Any]] = []
            reader = JsonReader(stream)
            await reader.skip_upgrade()
            for text in (
                {"op": "HELLO", "body": ["roomcast", 1, 1]},
                {"op": "AUTH", "body": ["dev:bob"]},
                {"op": "JOIN", "seq": 1, "body": ["lobby"]},
                {
                    "op": "CALL",
                    "seq": 2,
                    "body": {"operation": "rooms.history", "key": "", "arguments": {"room": "lobby"}},
                },
                {"op": "CALL", "seq": 3, "body": {"operation": "rooms.nothing", "key": "", "arguments": {}}},
            ):
                await stream.send_all(masked(TEXT, json.dumps(text).encode()))
            while not {2, 3} <= {each["seq"] for each in frames if each["op"] in ("RESULT", "ERROR")}:
                frames.append(await reader.next())
            found, unknown = (next(each for each in frames if each["seq"] == number) for number in (2, 3))
            assert found["op"] == "RESULT"
            assert found["body"]["operation"] == "rooms.history"
            (item,) = found["body"]["result"]["items"]
            assert (item["payload"], item["user"], found["body"]["result"]["gap"]) == (["欢迎"], "max", False)
            assert (unknown["op"], unknown["body"]["code"]) == ("ERROR", ErrorCode.UNKNOWN_OPERATION)


class JsonReader:
    """Reads the text messages of a server, none of which is masked or split."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._data = b""

    async def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            received = await self._stream.receive_some(65536)
            assert received, "the link ended"
            self._data += received
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    async def skip_upgrade(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self._take(1)

    async def next(self) -> dict[str, Any]:
        _, length = await self._take(2)
        if length == 126:
            length = int.from_bytes(await self._take(2), "big")
        found: dict[str, Any] = json.loads(await self._take(length))
        return found


# ---- the whole table


def arguments_of(row: OperationRow) -> tuple[Any, ...]:
    return tuple(row.example[0])


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
async def test_an_operation_refuses_every_wrong_role_over_a_link(row: OperationRow) -> None:
    async with running_broker(link=MANY) as broker:
        for role in Role:
            async with raw_link(broker) as link:
                await link.login(None if role is Role.GUEST else f"dev:somebody:{role.name.lower()}")
                if role not in row.roles:
                    found = await call(link, row.name, *arguments_of(row))
                    code, field = refused(found)
                    assert code in (ErrorCode.NOT_ALLOWED, ErrorCode.ROOM_NOT_GRANTED)
                    assert field in ("operation", "room")
                elif row.joined and role < Role.MODERATOR:
                    found = await call(link, row.name, *arguments_of(row))
                    assert refused(found) == (ErrorCode.NOT_JOINED, "room")
        assert len(broker.hub) == 0


@pytest.mark.parametrize("row", [row for row in OPERATIONS if row.roles], ids=lambda row: row.name)
async def test_an_operation_refuses_wrong_types_and_unknown_rooms_over_a_link(row: OperationRow) -> None:
    names = row.request._fields
    wrong: list[tuple[Any, ...]] = []
    values: tuple[Any, ...] = (1.5, b"\xff", [[]], {"a": {"b": ()}})
    whole = arguments_of(row)
    defaults = row.request._field_defaults
    for place in range(len(names)):
        if RECORDS[row.request][place] == "any":
            continue
        kind = RECORDS[row.request][place].removeprefix("nil or ")
        takes_any_object = kind in RECORD_SCHEMAS and not RECORD_SCHEMAS[kind]["required"]
        wrong += [
            (*whole[:place], value, *whole[place + 1 :])
            for value in values
            if not (takes_any_object and isinstance(value, dict))
        ]
    if len(names) > len(defaults):
        wrong += [(), whole[: len(names) - len(defaults) - 1]]
    async with running_broker(link=MANY) as broker, platform_link(broker) as shop:
        for number, arguments in enumerate(wrong):
            body = pack_body((row.number, "", arguments))
            await shop.stream.send_all(build_frame(Opcode.CALL, 0, 0, number, body))
            frame = await answer(shop)
            assert frame.sequence == number
            assert isinstance(frame.message, ErrorReply), (row.name, arguments, frame.message)
            assert frame.message.code == ErrorCode.BAD_FIELD
            assert frame.message.field
        if row.room and not row.changes and ErrorCode.UNKNOWN_ROOM in row.errors:
            place = names.index("room")
            found = await call(shop, row.name, *whole[:place], "no-such-room", *whole[place + 1 :])
            assert refused(found) == (ErrorCode.UNKNOWN_ROOM, "room")
        assert len(broker.hub) == 0
        assert broker.operations.failed == 0
