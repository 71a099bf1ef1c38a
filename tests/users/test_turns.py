"""Turns: one at a time for each key, in order, and none is left behind by who is cancelled."""

from __future__ import annotations

import trio
import trio.testing

from broker.users.turns import Turns


async def test_who_waits_gets_the_turn_in_order_and_who_is_cancelled_does_not() -> None:
    turns, got = Turns(), list[str]()

    async def waiter(name: str) -> None:
        await turns.take(("queue", "a"))
        got.append(name)

    await turns.take(("queue", "a"))
    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(3)]

        async def run(number: int) -> None:
            with scopes[number]:
                await waiter(str(number))

        for number in range(3):
            nursery.start_soon(run, number)
            await trio.testing.wait_all_tasks_blocked()
        scopes[1].cancel()
        await trio.testing.wait_all_tasks_blocked()
        turns.give(("queue", "a"))
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["0"]
        turns.give(("queue", "a"))
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["0", "2"]
        turns.give(("queue", "a"))
    assert len(turns) == 0


async def test_a_turn_that_comes_with_the_cancellation_goes_on() -> None:
    turns = Turns()
    await turns.take(("a",))
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await turns.take(("b", "a"))

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        turns.give(("a",))
    assert len(turns) == 0
