"""What became of one message: from its receipt to the number of sockets that it was written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.operations.caller import OperationError
from broker.server import Broker
from protocol.codes import ErrorCode, MessageType, Outcome
from protocol.messages import Ack
from protocol.operations import BY_NAME
from protocol.operations.messages import MessageTrace
from tests.support.broker import RawLink, joined_link, running_broker
from tests.support.durable import durable_broker
from tests.support.tenants import backend
from tests.support.until import until

pytestmark = pytest.mark.integration


async def trace(broker: Broker, **request: Any) -> MessageTrace:
    """The trace of a message in room live-1, for a backend."""
    found, _ = await broker.operations.call(backend(""), BY_NAME["messages.trace"], {"room": "live-1", **request})
    return found  # type: ignore[no-any-return]


async def posted(link: RawLink, room: int, sequence: int, kind: int, payload: Any) -> None:
    await link.post(room, sequence, kind, payload)  # with the id m1, m2, ...
    await link.expect(Ack)


async def written(broker: Broker) -> None:
    """Wait until the fan-out has nothing left to write."""
    await until(lambda: not broker.fanout.waiting and broker.fanout.sweeps > 0)


async def test_a_danmaku_from_its_receipt_to_the_sockets() -> None:
    async with (
        running_broker() as broker,
        joined_link(broker, "dev:ann", "live-1") as (ann, room),
        joined_link(broker, "dev:bob", "live-1"),
    ):
        await posted(ann, room, 1, MessageType.DANMAKU, ("hello", None))
        await written(broker)
        found = await trace(broker, client_msg_id="m1", user="ann")
        assert (found.user, found.client_msg_id, found.type) == ("ann", "m1", MessageType.DANMAKU)
        assert (found.outcome, found.tick, found.senders, found.offset) == (Outcome.ACCEPTED, 1, 1, None)
        assert (found.members, found.written, found.queued, found.refused) == (2, 2, 0, 0)
        assert found.decided_ms is not None
        assert found.published_ms is not None
        assert found.written_ms is not None
        assert 0 <= found.decided_ms <= found.published_ms <= found.written_ms
        assert await trace(broker, client_msg_id="m1") == found, "of anybody"


async def test_one_that_was_merged_names_whose_message_was_shown() -> None:
    async with (
        running_broker(room={"tick_ms": 300, "tick_max_ms": 300}) as broker,
        joined_link(broker, "dev:ann", "live-1") as (ann, room),
        joined_link(broker, "dev:bob", "live-1") as (bob, _),
    ):
        await posted(ann, room, 1, MessageType.DANMAKU, ("first", None))  # the next tick is 0.3 s later
        await ann.post(room, 2, MessageType.DANMAKU, ("Same", None))
        await ann.post(room, 3, MessageType.DANMAKU, ("other", None))
        await bob.post(room, 2, MessageType.DANMAKU, ("same", None))
        await bob.expect(Ack)
        await written(broker)
        found = [await trace(broker, client_msg_id="m2", user=user) for user in ("ann", "bob")]
        shown, merged = sorted(found, key=lambda each: each.merged_into or "")
        assert await trace(broker, client_msg_id="m2") in found
        assert (shown.outcome, shown.senders, shown.merged_into) == (Outcome.ACCEPTED, 2, None)
        assert (merged.outcome, merged.senders, merged.merged_into) == (Outcome.MERGED, 2, shown.user)
        assert shown.tick == merged.tick == 2


async def test_a_refusal_has_its_code() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann", "live-1") as (ann, room):
        for sequence in (1, 2):
            await posted(ann, room, sequence, MessageType.DANMAKU, ("the same", None))
        found = await trace(broker, client_msg_id="m2")
        assert (found.outcome, found.code, found.published_ms) == (Outcome.REJECTED, ErrorCode.DUPLICATE_TEXT, None)


@pytest.mark.parametrize("is_durable", [False, True])
async def test_an_event_is_found_by_its_id_and_its_offset(directory: Path, is_durable: bool) -> None:
    async with (
        durable_broker(directory) if is_durable else running_broker() as broker,
        joined_link(broker, "dev:max:host", "live-1") as (host, room),
    ):
        await posted(host, room, 1, MessageType.ANNOUNCEMENT, ("welcome",))
        await until(lambda: not broker.fanout.waiting)
        found = await trace(broker, offset=1)
        assert found == await trace(broker, client_msg_id="m1")
        assert (found.user, found.outcome, found.offset, found.tick) == ("max", Outcome.ACCEPTED, 1, None)
        assert (found.members, found.written) == (1, 1)


async def test_what_is_not_traced_is_refused_by_name() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann", "live-1") as (ann, room):
        await posted(ann, room, 1, MessageType.LIKE, (1,))
        for request, field in (
            ({"client_msg_id": "m1"}, "client_msg_id"),
            ({"offset": 1}, "offset"),
            ({}, "client_msg_id"),
            ({"client_msg_id": "m1", "offset": 1}, "client_msg_id"),
        ):
            with pytest.raises(OperationError) as refused:
                await trace(broker, **request)
            assert (refused.value.code, refused.value.field) == (ErrorCode.BAD_FIELD, field)


async def test_an_erased_user_leaves_no_trace(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        async with joined_link(broker, "dev:ann", "live-1") as (ann, room):
            await posted(ann, room, 1, MessageType.DANMAKU, ("hello", None))
            assert (await trace(broker, client_msg_id="m1")).user == "ann"
            await broker.call("users.erase", user="ann", confirm="ann")
            room_now = broker.hub.find("live-1")
            assert room_now is not None
            await until(lambda: len(room_now.traces) == 0)


async def test_a_tick_that_viewers_see_later_is_traced_until_then(directory: Path) -> None:
    async with (
        durable_broker(directory) as broker,
        joined_link(broker, "dev:ann", "live-1") as (ann, room),
    ):
        await broker.call("moderation.set_modes", room="live-1", delay_ms=500)
        await posted(ann, room, 1, MessageType.DANMAKU, ("hello", None))
        found = await trace(broker, client_msg_id="m1")
        assert (found.outcome, found.tick, found.published_ms) == (Outcome.ACCEPTED, 1, None)
        room_now = broker.hub.find("live-1")
        assert room_now is not None
        (kept,) = [each for each in (room_now.traces.find("ann", "m1"),) if each is not None]
        await until(lambda: kept.publication is not None and kept.publication.took_s is not None)
        found = await trace(broker, client_msg_id="m1")
        assert found.published_ms is not None
        assert found.published_ms >= 400
        assert (found.written, found.senders) == (1, 1)
