"""Faults of the memory engine's links: what tests and the simulation build on."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from broker.engine.base import Appended, EngineUnavailable, Fenced, Misplaced, OutcomeUnknown
from broker.engine.memory import MemoryEngine, MemoryFaults, RequestFault
from tests.support.engines import claim, event, memory_lab


async def test_a_request_under_way_when_the_link_is_cut_is_unknown_and_not_done(autojump_clock: MockClock) -> None:
    async with memory_lab() as lab, trio.open_nursery() as nursery:
        a, _ = await lab.open("a")
        granted = await claim(a, "room")
        a.faults = MemoryFaults(delay_s=lambda name: 2.0)

        async def ask() -> None:
            with pytest.raises(OutcomeUnknown):
                await a.append("room", granted.fence, 1, 0, [event()])

        nursery.start_soon(ask)
        await trio.sleep(1)
        a.cut()
        with pytest.raises(EngineUnavailable):
            await a.owner("room")
        assert not a.publish_room("room", b"")
        assert not a.publish_node("a", b"")
        a.mend()
        found = await a.owner("room")
        assert found is not None
        assert found.last_offset == 1


@pytest.mark.parametrize(("fault", "last"), [(RequestFault.LOST, 1), (RequestFault.ANSWER_LOST, 2)])
async def test_a_lost_request_is_not_done_and_one_whose_answer_is_lost_is(fault: RequestFault, last: int) -> None:
    async with memory_lab() as lab:
        a, _ = await lab.open("a")
        granted = await claim(a, "room")
        a.faults = MemoryFaults(request=lambda name: fault)
        with pytest.raises(OutcomeUnknown):
            await a.append("room", granted.fence, 1, 0, [event()])
        a.faults = MemoryFaults()
        found = await a.owner("room")
        assert found is not None
        assert found.last_offset == last
        again = await a.append("room", granted.fence, 1, 0, [event()])
        assert again == (Appended(2, 0) if last == 1 else Misplaced(2, 0))


@pytest.mark.parametrize("is_taken_over", [False, True])
async def test_a_late_append_is_refused_where_the_room_has_gone_on(
    is_taken_over: bool, autojump_clock: MockClock
) -> None:
    async with memory_lab() as lab:
        a, _ = await lab.open("a")
        b, _ = await lab.open("b")
        granted = await claim(a, "room")
        a.faults = MemoryFaults(request=lambda name: RequestFault.LATE, late_s=3.0)
        with pytest.raises(OutcomeUnknown):
            await a.append("room", granted.fence, 1, 0, [event(b"late")])
        a.faults = MemoryFaults()
        if is_taken_over:
            await claim(b, "room")
        else:
            assert await a.append("room", granted.fence, 1, 0, [event(b"again")]) == Appended(2, 0)
        await trio.sleep(5)
        assert b"late" not in [each.body for each in await b.read_log("room", 0, 0, 10)]
        if is_taken_over:
            assert isinstance(await a.append("room", granted.fence, 1, 0, [event()]), Fenced)


async def test_a_late_append_is_done_where_nothing_else_was(autojump_clock: MockClock) -> None:
    async with memory_lab() as lab:
        a, _ = await lab.open("a")
        granted = await claim(a, "room")
        a.faults = MemoryFaults(request=lambda name: RequestFault.LATE, late_s=3.0)
        with pytest.raises(OutcomeUnknown):
            await a.append("room", granted.fence, 1, 0, [event(b"late")])
        a.faults = MemoryFaults()
        await trio.sleep(5)
        assert [each.body for each in await a.read_log("room", 0, 0, 10)] == [b"marker", b"late"]


async def test_requests_of_a_node_do_not_overtake_each_other(autojump_clock: MockClock) -> None:
    async with memory_lab() as lab, trio.open_nursery() as nursery:
        a, _ = await lab.open("a")
        granted = await claim(a, "room")
        delays = iter([3.0, 1.0, 2.0])
        a.faults = MemoryFaults(delay_s=lambda name: next(delays))
        for offset in (1, 2, 3):
            nursery.start_soon(_append, a, granted.fence, offset)
            await trio.testing.wait_all_tasks_blocked()


async def _append(engine: MemoryEngine, fence: int, offset: int) -> None:
    assert await engine.append("room", fence, offset, 0, [event()]) == Appended(offset + 1, 0)


async def test_messages_are_lost_doubled_and_reordered_as_the_test_says(autojump_clock: MockClock) -> None:
    times = {b"1": [2.0], b"2": [], b"3": [1.0, 3.0], b"4": [0.0]}
    async with memory_lab() as lab:
        a, _ = await lab.open("a")
        b, heard = await lab.open("b")
        b.faults = MemoryFaults(messages=lambda body: times[body])
        b.subscribe_room("room")
        await heard.until_heard("subscribed", "room")
        for body in times:
            assert a.publish_room("room", body)
        await trio.sleep(5)
        assert heard.of_room("room") == [b"4", b"3", b"1", b"3"]


async def test_messages_under_way_when_the_link_is_cut_are_lost(autojump_clock: MockClock) -> None:
    async with memory_lab() as lab:
        a, _ = await lab.open("a")
        b, heard = await lab.open("b")
        b.faults = MemoryFaults(messages=lambda body: [2.0])
        assert a.publish_node("b", b"1")
        await trio.sleep(1)
        b.cut()
        b.mend()
        await trio.sleep(5)
        assert ("node", b"1") not in heard.calls


async def test_a_request_of_a_node_that_ends_hears_that_its_outcome_is_unknown(autojump_clock: MockClock) -> None:
    async with memory_lab() as lab:
        a = MemoryEngine(lab.bus, "a", MemoryFaults(delay_s=lambda name: 9.0))
        _, heard = await lab.open("b")
        async with trio.open_nursery() as nursery:
            await nursery.start(a.run, heard)

            async def ask() -> None:
                with pytest.raises(OutcomeUnknown):
                    await a.owner("room")
                nursery.cancel_scope.cancel()

            async with trio.open_nursery() as asking:
                asking.start_soon(ask)
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
        assert [engine.node for engine in lab.bus.engines] == ["b"]


async def test_the_tail_of_a_log_is_lost_as_in_a_power_cut() -> None:
    async with memory_lab() as lab:
        a, _ = await lab.open("a")
        granted = await claim(a, "room")
        await a.append("room", granted.fence, 1, 0, [event(b"2"), event(b"3")])
        lab.bus.data.cut_tail("room", 1)
        assert await a.append("room", granted.fence, 3, 0, [event()]) == Misplaced(2, 0)
        assert await a.append("room", granted.fence, 2, 0, [event(b"3")]) == Appended(3, 0)
        assert [each.body for each in await a.read_log("room", 0, 0, 10)] == [b"marker", b"2", b"3"]
