"""Answers in the ledger: above their bound, and where the process ends between the effect and the answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.operations.answers import MAX_ANSWER_BYTES
from broker.server import Broker
from protocol.codes import MessageType, RoomPhase
from protocol.operations import BY_NAME
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import crashed_copy, disk_error
from tests.support.tenants import backend

pytestmark = pytest.mark.integration

LONG = "弹" * 480


async def call(broker: Broker, name: str, *arguments: Any, key: str = "") -> tuple[Any, bool]:
    return await broker.operations.call(backend("", key), BY_NAME[name], arguments)


async def pin(broker: Broker, id: str, key: str = "") -> tuple[Any, bool]:
    return await call(broker, "messages.pin", "live-1", id, None, MessageType.ANNOUNCEMENT, (LONG,), key=key)


async def pass_one_commit(broker: Broker, held: threading.Event) -> threading.Event:
    """Let the commit end that waits for ``held``, and hold the next one; return what that waits for."""
    store, following = disk(broker), threading.Event()
    assert await trio.to_thread.run_sync(store.reached.wait, 10)
    store.reached.clear()
    store.stuck = following
    held.set()
    assert await trio.to_thread.run_sync(store.reached.wait, 10)
    return following


async def test_an_answer_above_its_bound_is_made_again(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await call(broker, "rooms.open", "live-1")
        for number in range(3):
            first, _ = await pin(broker, f"p{number}", key=f"k{number}")
        assert len(LONG.encode()) * 3 > MAX_ANSWER_BYTES
    async with durable_broker(directory) as broker:
        again, is_replayed = await pin(broker, "p2", key="k2")
        assert is_replayed
        assert again == first
        small, _ = await pin(broker, "p0", key="k0")
        assert [each.id for each in small.pinned] == ["p0"], "a small answer is as it was the first time"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("messages.unpin", ("live-1", "p")),
        ("messages.delete", ("live-1", (1,))),
        ("rooms.set_phase", ("live-1", RoomPhase.PAUSED.name.lower())),
    ],
)
async def test_a_call_that_ended_before_its_answer_was_kept_has_one_effect(
    directory: Path, name: str, arguments: tuple[Any, ...]
) -> None:
    place, copy = directory / "first", directory / "second"
    place.mkdir()
    async with durable_broker(place) as broker, trio.open_nursery() as nursery:
        await call(broker, "messages.publish", "live-1", MessageType.ANNOUNCEMENT, ("before",))
        await pin(broker, "p")
        disk(broker).reached.clear()
        held = disk(broker).stuck = threading.Event()
        nursery.start_soon(lambda: call(broker, name, *arguments, key="k1"))
        held = await pass_one_commit(broker, held)
        crashed_copy(place, copy)
        disk(broker).stuck = None
        held.set()
    async with durable_broker(copy) as broker:
        before, _ = await call(broker, "rooms.open", "live-1")
        again, is_replayed = await call(broker, name, *arguments, key="k1")
        after, _ = await call(broker, "rooms.get", "live-1")
        assert is_replayed
        assert (after.last_offset, after.phase, after.pinned) == (before.last_offset, before.phase, before.pinned)
        if name == "messages.delete":
            assert again.offset == after.last_offset
        elif name == "messages.unpin":
            assert again.pinned == after.pinned == ()
        else:
            assert again.phase is RoomPhase.PAUSED


async def test_a_call_is_answered_where_its_answer_cannot_be_kept(directory: Path) -> None:
    answers: list[tuple[Any, bool]] = []

    async def acquire(broker: Broker) -> None:
        answers.append(await call(broker, "locks.acquire", "live-1", "sale", 60_000, key="k1"))

    async with durable_broker(directory) as broker:
        async with trio.open_nursery() as nursery:
            disk(broker).reached.clear()
            held = disk(broker).stuck = threading.Event()
            nursery.start_soon(acquire, broker)
            held = await pass_one_commit(broker, held)
            disk(broker).fault = disk_error("SQLITE_FULL")
            disk(broker).stuck = None
            held.set()
        disk(broker).fault = None
        await acquire(broker)
        assert answers == [(answers[0][0], False), (answers[0][0], True)]
