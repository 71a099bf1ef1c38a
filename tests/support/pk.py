"""Two rooms of a real broker in a PK: their hosts, their gifts, and what each of them knows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from broker.core.commerce import pk
from broker.core.commerce.activity import ActivityRefusal, ActivityStep
from broker.core.commerce.pk_half import PkMessage, ReceiveMessage
from broker.operations import action_runs
from broker.server import Broker
from protocol.activities.pk import PkMeasure, PkOutcome, PkPhase, PkState
from protocol.clients import Client, open_client
from protocol.codes import ErrorCode, MessageType
from protocol.messages import Ack
from tests.support.broker import joined_link
from tests.support.clocks import advance_to
from tests.support.durable import gift
from tests.support.until import until

__all__ = [
    "LASTS_MS",
    "A",
    "B",
    "accepted",
    "give",
    "hosts",
    "invited",
    "is_in",
    "member",
    "over",
    "refuse",
    "result",
    "running",
    "shorten",
    "state_of",
]

A, B = "live-1", "live-2"
LASTS_MS = 30_000
"""Longer than any test acts: a test advances its clock to the end."""
_orders = count()


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a PK repeat its messages sooner."""
    monkeypatch.setattr(action_runs, "AGAIN_S", 0.02)


@asynccontextmanager
async def member(broker: Broker, token: str, room: str) -> AsyncIterator[Client]:
    async with open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", f"dev:{token}") as client:
        await client.join(room)
        yield client


@asynccontextmanager
async def hosts(broker: Broker) -> AsyncIterator[tuple[Client, Client]]:
    """Open a host in each of both rooms."""
    async with member(broker, "host1:host", A) as first, member(broker, "host2:host", B) as second:
        yield first, second


async def give(broker: Broker, room: str, amount: int) -> None:
    """Give a gift of so many times 100 cents, and wait until it is durable."""
    order = f"o{next(_orders)}"
    async with joined_link(broker, "dev:shop:app", room) as (link, number):
        await link.post(number, 1, MessageType.GIFT, gift(order, f"giver-{order}", amount))
        while not (await link.expect(Ack))[1].results:
            pass


def state_of(broker: Broker, room: str) -> PkState | None:
    """Return the present PK of a room."""
    found = broker.hub.find(room)
    activities = None if found is None else found.state.activities.activities
    activity = None if activities is None else activities.find("pk", "")
    state: PkState | None = None if activity is None else activity.state()
    return state


def is_in(broker: Broker, room: str, phase: PkPhase) -> bool:
    state = state_of(broker, room)
    return state is not None and state.phase is phase


async def invited(broker: Broker, first: Client, measure: PkMeasure = PkMeasure.GIFTS) -> None:
    state = await first.call("pk.invite", room=A, id="p", other_room=B, duration_ms=LASTS_MS, measure=measure)
    assert (state.phase, state.other_room, state.is_inviting) == (PkPhase.INVITING, B, True)
    await until(lambda: is_in(broker, B, PkPhase.INVITED))


async def running(broker: Broker, first: Client, second: Client, measure: PkMeasure = PkMeasure.GIFTS) -> None:
    """Begin a PK in which gifts, or likes, count from now on."""
    await invited(broker, first, measure)
    await accepted(broker, second)
    await until(lambda: is_in(broker, A, PkPhase.RUNNING))


async def accepted(broker: Broker, second: Client) -> None:
    """Accept the invitation, and go on to the start. The inviting room perhaps does not know of it."""
    state = await second.call("pk.answer", room=B, id="p", accepts=True)
    assert (state.phase, state.other_room) == (PkPhase.RUNNING, A)
    assert state.starts_at_ms is not None
    advance_to(state.starts_at_ms)


async def over(broker: Broker) -> None:
    """Go on to the end of the PK: no more gifts count in either room."""
    ends_at_ms = [state.ends_at_ms for room in (A, B) if (state := state_of(broker, room)) is not None]
    assert ends_at_ms == 2 * ends_at_ms[:1]
    assert ends_at_ms[0] is not None
    advance_to(ends_at_ms[0])
    await until(lambda: not any(is_in(broker, room, PkPhase.RUNNING) for room in (A, B)))


async def result(broker: Broker, room: str) -> tuple[PkOutcome | None, int, int | None, bool]:
    """Wait for the result in a room: outcome, own score, other score, whether by forfeit."""
    await until(lambda: is_in(broker, room, PkPhase.RESULT))
    state = state_of(broker, room)
    assert state is not None
    return state.outcome, state.score, state.other_score, state.is_forfeit


def refuse(monkeypatch: pytest.MonkeyPatch, is_refused: Callable[[PkMessage], bool]) -> None:
    """Let rooms refuse messages of the other one, which it has to send again."""
    decide = pk.Pk.decide

    def refusing(self: Any, command: Any, *rest: Any) -> Any:
        if isinstance(command, ReceiveMessage) and is_refused(command.message):
            return ActivityStep(answer=ActivityRefusal(ErrorCode.OVERLOADED, "cannot take it now"))
        return decide(self, command, *rest)

    monkeypatch.setattr(pk.Pk, "decide", refusing)
