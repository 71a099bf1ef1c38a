"""Steps of tests of direct messages: log in, acknowledge, wait for the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from broker.ledger import DirectState
from broker.server import Broker
from protocol.messages import Direct, DirectAck, Ping, Pong
from tests.support.broker import RawLink, raw_link
from tests.support.until import until


@asynccontextmanager
async def login(broker: Broker, user: str) -> AsyncIterator[RawLink]:
    async with raw_link(broker) as link:
        await link.login(f"dev:{user}")
        yield link


async def nothing_more(link: RawLink) -> None:
    """Check that the broker sends no message to this link before it answers a PING."""
    await link.send((Ping(1), 0, 77))
    while True:
        frame = await link.next_frame()
        assert frame is not None
        assert not isinstance(frame.message, Direct), frame.message
        if isinstance(frame.message, Pong):
            return


async def ack(link: RawLink, direct_id: int) -> None:
    await link.send((DirectAck(direct_id), 0, 0))


async def acked(broker: Broker, user: str, direct_id: int) -> None:
    """Wait until the ledger has the acknowledgement of a message."""
    await until_state(broker, user, direct_id, DirectState.ACKED)


async def until_state(broker: Broker, user: str, direct_id: int, state: DirectState) -> None:
    assert broker.inboxes is not None
    with trio.fail_after(20):
        while await broker.inboxes.state(user, direct_id) is not state:  # noqa: ASYNC110 - the disk has no event
            await trio.sleep(0.001)


async def until_nothing_pends(broker: Broker) -> None:
    """Wait until the broker has removed every inbox: its task gets the results after the commit."""
    inboxes = broker.inboxes
    assert inboxes is not None
    await until(lambda: not inboxes.pending_users)
