"""Logins with a token, by links that take tickets."""

from __future__ import annotations

from broker.server import Broker
from protocol.codes import Feature
from protocol.messages import Auth, Authenticated
from tests.support.broker import RawLink, raw_link

__all__ = ["login", "refused"]

TICKET = int(Feature.TICKET)


async def login(link: RawLink, text: str) -> Authenticated:
    await link.hello(TICKET)
    await link.send((Auth(text), 0, 0))
    return (await link.expect(Authenticated))[1]


async def refused(broker: Broker, text: str) -> int:
    async with raw_link(broker) as link:
        await link.hello(TICKET)
        await link.send((Auth(text), 0, 0))
        return (await link.expect_close()).code
