"""Batches over real links: each part answered once, each user one message, wrong parts named and not sent."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from broker.auth.grants import RoomGrant
from broker.ledger import DirectState, Reader, database_path
from broker.server import Broker
from protocol.codes import ErrorCode, MessageType, Role
from protocol.messages import Call, Direct, ErrorReply, Result
from protocol.operations import BY_NAME
from protocol.operations.directs import ProgressRequest, SendManyDirects, SentDirects
from tests.support.broker import RawLink, raw_link, running_broker
from tests.support.directs import ack, acked, login, nothing_more
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error
from tests.support.until import until

pytestmark = pytest.mark.integration

M = TypeVar("M")
NEWS = MessageType.ANNOUNCEMENT
MAX_IN_FLIGHT = BY_NAME["directs.send_many"].at_once
TEMPLATE = ("您的优惠码 {code}",)
TYPES = {"types": [{"id": 130, "name": "coupon", "lane": "commerce"}]}


def codes(*users: str) -> dict[str, dict[str, str]]:
    return {user: {"code": f"C-{user}"} for user in users}


@asynccontextmanager
async def backend(broker: Broker, token: str = "dev:shop:app") -> AsyncIterator[RawLink]:
    async with raw_link(broker) as link:
        await link.login(token)
        yield link


async def ask(link: RawLink, message: SendManyDirects, kind: type[M] = SentDirects, sequence: int = 9) -> M:  # type: ignore[assignment]
    """Send one part; its result, or the error if that is ``kind``, which must bear its number."""
    await send(link, message, sequence=sequence)
    frame, answer = await link.expect(Result if kind is SentDirects else ErrorReply)
    assert (frame.sequence, frame.room) == (sequence, 0)
    return answer.result if isinstance(answer, Result) else answer  # type: ignore[return-value]


async def send(link: RawLink, *parts: SendManyDirects, sequence: int = 1) -> None:
    """Send parts in one write, numbered from ``sequence``."""
    calls = (Call(BY_NAME["directs.send_many"].number, "", part) for part in parts)
    await link.send(*((call, 0, number) for number, call in enumerate(calls, sequence)))


@contextmanager
def held(broker: Broker) -> Iterator[None]:
    """No commit is done while the block lasts."""
    store = disk(broker)
    stuck = store.stuck = threading.Event()
    try:
        yield
    finally:
        store.stuck = None
        stuck.set()


async def progress(link: RawLink, batch: str = "may") -> tuple[int | None, ...]:
    call = Call(BY_NAME["directs.progress"].number, "", ProgressRequest(batch))
    await link.send((call, 0, 9))
    return (await link.expect(Result))[1].result[1:]  # type: ignore[no-any-return]


async def test_another_text_under_the_same_batch_and_user_is_refused(directory: Path) -> None:
    async with durable_broker(directory) as broker, backend(broker) as shop, login(broker, "ann") as ann:
        assert (await ask(shop, SendManyDirects("may", NEWS, TEMPLATE, codes("ann")))).sent == 1
        await ann.expect(Direct)
        other = SendManyDirects("may", NEWS, TEMPLATE, {"ann": {"code": "another"}})
        error = await ask(shop, other, ErrorReply)
        assert (error.code, error.field) == (ErrorCode.KEY_REUSED, "batch")
        assert (await ask(shop, SendManyDirects("may", NEWS, TEMPLATE, codes("ann")))).repeated == 1
        await nothing_more(ann)


async def test_each_user_gets_its_own_message_once_however_often_it_is_sent(directory: Path) -> None:
    async with durable_broker(directory) as broker, backend(broker) as shop, login(broker, "ann") as ann:
        part = SendManyDirects("may", NEWS, TEMPLATE, codes("ann", "bob"))
        assert await ask(shop, part) == SentDirects("may", 2, 0, 0)
        _, direct = await ann.expect(Direct)
        assert (direct.direct_id, direct.type, direct.payload) == (1, NEWS, ("您的优惠码 C-ann",))
        assert await ask(shop, part._replace(values=codes("bob", "cat"))) == SentDirects("may", 1, 1, 0)
        assert await progress(shop) == (3, 0, 0, 0)
        await ack(ann, 1)
        await acked(broker, "ann", 1)
        assert await progress(shop) == (2, 1, 0, 0)
        assert await progress(shop, "june") == (0, 0, 0, 0)
    async with durable_broker(directory) as broker, backend(broker) as shop, login(broker, "bob") as bob:
        assert await ask(shop, part) == SentDirects("may", 0, 2, 0)
        _, direct = await bob.expect(Direct)
        assert direct.payload == ("您的优惠码 C-bob",)
        await nothing_more(bob)
        assert await ask(shop, part._replace(batch="june")) == SentDirects("june", 2, 0, 0)


async def test_a_batch_belongs_to_no_link(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        async with backend(broker) as shop:
            await send(shop, SendManyDirects("may", NEWS, TEMPLATE, codes("ann")))
            await shop.stream.aclose()
        async with backend(broker, "dev:other:app") as other, login(broker, "ann") as ann:
            state: SentDirects = await ask(other, SendManyDirects("may", NEWS, TEMPLATE, codes("ann")))
            assert state.sent + state.repeated == 1
            await ann.expect(Direct)
            await nothing_more(ann)


@pytest.mark.parametrize("role", ["viewer", "moderator", "host"])
async def test_only_the_platform_itself_sends(directory: Path, role: str) -> None:
    async with durable_broker(directory) as broker, backend(broker, f"dev:max:{role}") as link:
        error = await ask(link, SendManyDirects("may", NEWS, TEMPLATE, codes("ann")), ErrorReply)
        assert error.code == ErrorCode.NOT_ALLOWED


async def test_a_token_with_the_role_in_one_room_is_not_the_platform(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        auth = broker.context.auth
        in_room = auth.issue("shop", role=Role.VIEWER, rooms=[RoomGrant("lobby", Role.APP)])
        async with backend(broker, in_room) as link:
            error = await ask(link, SendManyDirects("may", NEWS, TEMPLATE, codes("ann")), ErrorReply)
            assert error.code == ErrorCode.NOT_ALLOWED
        async with backend(broker, auth.issue("shop", role=Role.APP, rooms=[])) as link:
            assert (await ask(link, SendManyDirects("may", NEWS, TEMPLATE, codes("ann")))).sent == 1


@pytest.mark.parametrize(
    ("changes", "code", "field", "rule"),
    [
        ({"values": {"ann": {"code": "1"}, "bob": {}}}, ErrorCode.BAD_FIELD, "values[1]", "every field of the"),
        ({"template": "{code}"}, ErrorCode.BAD_FIELD, "template", "must be an array"),
        ({"template": ("x" * 501,)}, ErrorCode.BAD_FIELD, "template", "1 to 500 characters"),
        ({"type": MessageType.GIFT}, ErrorCode.BAD_FIELD, "type", "ANNOUNCEMENT"),
        ({"type": 99}, ErrorCode.BAD_FIELD, "type", "ANNOUNCEMENT"),
        ({"type": 131}, ErrorCode.UNKNOWN_TYPE, "type", "not accepted"),
        ({"type": 130, "template": "{code}" * 600, "values": {"ann": {"code": "x" * 99}}},
         ErrorCode.BAD_FIELD, "template", "4096 bytes"),
        ({"batch": ""}, ErrorCode.BAD_FIELD, "batch", "1 to 64"),
        ({"expires_s": 0}, ErrorCode.BAD_FIELD, "expires_s", "from 1"),
        ({"values": {"ann": {"code": 1}}}, ErrorCode.BAD_FIELD, "values[0][0]", "string"),
    ],
)  # fmt: skip
async def test_a_fault_is_named_and_nothing_of_the_part_is_sent(
    directory: Path, changes: dict[str, Any], code: ErrorCode, field: str, rule: str
) -> None:
    async with durable_broker(directory, **TYPES) as broker, backend(broker) as shop:
        error = await ask(shop, SendManyDirects("may", NEWS, TEMPLATE, codes("ann"))._replace(**changes), ErrorReply)
        assert (error.code, error.field) == (code, field)
        assert rule in error.message
        assert await progress(shop) == (0, 0, 0, 0)


async def test_a_type_of_the_deployments_own_carries_any_payload(directory: Path) -> None:
    async with durable_broker(directory, **TYPES) as broker, backend(broker) as shop, login(broker, "ann") as ann:
        template = {"code": "{code}", "n": 1, "lines": ("{code}", None)}
        assert (await ask(shop, SendManyDirects("may", 130, template, codes("ann"), None, 60))).sent == 1
        _, direct = await ann.expect(Direct)
        assert (direct.type, direct.payload) == (130, {"code": "C-ann", "n": 1, "lines": ("C-ann", None)})


async def test_a_broker_that_keeps_nothing_promises_nothing() -> None:
    async with running_broker(ledger={"ephemeral": True}) as broker, backend(broker) as shop:
        error = await ask(shop, SendManyDirects("may", NEWS, TEMPLATE, codes("ann")), ErrorReply)
        assert error.code == ErrorCode.NOT_KEPT
        assert "data directory" in error.message
        await shop.send((Call(BY_NAME["directs.progress"].number, "", ProgressRequest("may")), 0, 2))
        assert (await shop.expect(ErrorReply))[1].code == ErrorCode.NOT_KEPT


async def test_a_part_larger_than_the_ledgers_queue_waits_and_another_learns_when_to_come_back(
    directory: Path,
) -> None:
    async with durable_broker(directory, ledger={"queue_items": 3}) as broker, backend(broker) as shop:
        part = SendManyDirects("may", NEWS, TEMPLATE, codes(*"abcdefgh"))
        with held(broker):
            await send(shop, part, part)
            frame, error = await shop.expect(ErrorReply)
            refused = frame.sequence
            assert (error.code, error.retry_after_ms) == (ErrorCode.OVERLOADED, 1000)
        frame, state = await shop.expect(Result)
        assert (frame.sequence + refused, state.result) == (3, SentDirects("may", 8, 0, 0))
        assert await ask(shop, part) == SentDirects("may", 0, 8, 0)
        assert await progress(shop) == (8, 0, 0, 0)


async def test_a_disk_that_fails_is_reported_and_nothing_is_shown(directory: Path) -> None:
    async with durable_broker(directory) as broker, backend(broker) as shop, login(broker, "ann") as ann:
        disk(broker).fault = disk_error("SQLITE_FULL")
        part = SendManyDirects("may", NEWS, TEMPLATE, codes("ann"))
        assert await ask(shop, part) == SentDirects("may", 0, 0, 1)
        error = await ask(shop, part, ErrorReply)
        assert (error.code, error.retry_after_ms) == (ErrorCode.OVERLOADED, 1000)
        await nothing_more(ann)
        disk(broker).fault = None
        await until(lambda: broker.ledger.status()[0])  # type: ignore[union-attr]
        assert (await ask(shop, part)).sent == 1
        await ann.expect(Direct)


async def test_a_link_has_few_parts_in_flight_and_an_answer_to_each(directory: Path) -> None:
    async with durable_broker(directory) as broker, backend(broker) as shop, backend(broker, "dev:other:app") as other:
        with held(broker):
            for number in range(MAX_IN_FLIGHT + 1):
                part = SendManyDirects("may", NEWS, TEMPLATE, codes(f"user-{number}"))
                await send(shop, part, sequence=number)
            frame, error = await shop.expect(ErrorReply)
            assert (frame.sequence, error.code) == (MAX_IN_FLIGHT, ErrorCode.RATE_LIMITED)
            assert error.retry_after_ms > 0
            await send(other, SendManyDirects("may", NEWS, TEMPLATE, codes("else")))
        found = [await shop.expect(Result) for _ in range(MAX_IN_FLIGHT)]
        assert sorted((frame.sequence, result.result.sent) for frame, result in found) == [
            (number, 1) for number in range(MAX_IN_FLIGHT)
        ]
        assert (await other.expect(Result))[1].result.sent == 1
        assert await progress(shop) == (MAX_IN_FLIGHT + 1, 0, 0, 0)


async def test_how_a_batch_stands_is_read_from_its_index_and_not_from_the_whole_table(directory: Path) -> None:
    async with durable_broker(directory) as broker, backend(broker) as shop:
        await ask(shop, SendManyDirects("may", NEWS, TEMPLATE, codes("ann")))
    reader = Reader(database_path(directory))
    try:
        asked: list[str] = []
        reader.connection.set_trace_callback(asked.append)
        assert reader.batch_progress("may")[DirectState.PENDING] == 1
        reader.connection.set_trace_callback(None)
        (plan,) = reader.connection.execute(f"EXPLAIN QUERY PLAN {asked[-1]}").fetchall()
        assert "USING COVERING INDEX directs_by_batch" in plan[3]
    finally:
        reader.close()
