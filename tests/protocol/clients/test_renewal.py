"""Renewal of a token against a scripted broker: before its end, on the same link."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from protocol.clients import Client, open_client
from protocol.codes import CloseCode, ErrorCode, Opcode
from protocol.connection import Frame
from protocol.messages import Auth, Authenticated, ErrorReply, Ping, Pong
from tests.support.peer import CUT_MS, URL, Network, Peer, server_hello

START_MS = 1_000_000
"""Clock of the scripted broker at the beginning."""
LIFETIME_S = 3600
Answer = Callable[[Peer, Frame, int], Awaitable[bool]]


class ScriptedBroker:
    """Broker of one client that answers every PING, counts links, and records the tokens of PINGs."""

    def __init__(self, answer: Answer) -> None:
        self.network = Network()
        self.answer = answer
        self.links = 0
        self.renewals: list[tuple[float, str]] = []
        self.tokens: list[str | None] = []

    async def run(self) -> None:
        while True:
            peer = await self.network.accept()
            self.links += 1
            await peer.expect(Opcode.HELLO)
            auth = await peer.expect(Opcode.AUTH)
            assert isinstance(auth.message, Auth)
            self.tokens.append(auth.message.token)
            await peer.send(server_hello()._replace(server_ms=self.now_ms()))
            await peer.send(Authenticated("u1", "Ann", self.now_ms() + LIFETIME_S * 1000))
            is_extended = True
            while is_extended:
                is_extended = False
                with trio.move_on_after(LIFETIME_S):
                    is_extended = await self.serve(peer)
            with suppress(trio.BrokenResourceError):  # the client has left
                await peer.goaway(CloseCode.TOKEN_EXPIRED)

    async def serve(self, peer: Peer) -> bool:
        """Answer PINGs; True: one of them has renewed the token."""
        while (frame := await peer.next_frame()) is not None:
            if not isinstance(frame.message, Ping):
                continue  # GOAWAY at the end of the test
            if frame.message.token is None:
                await peer.send(Pong(frame.message.client_ms, self.now_ms()), 0, frame.sequence)
                continue
            self.renewals.append((trio.current_time(), frame.message.token))
            if await self.answer(peer, frame, self.now_ms()):
                return True
        return False

    def now_ms(self) -> int:
        return START_MS + round(trio.current_time() * 1000)


async def accept(peer: Peer, frame: Frame, now_ms: int) -> bool:
    assert isinstance(frame.message, Ping)
    pong = Pong(frame.message.client_ms, now_ms, (), 0, "", now_ms + LIFETIME_S * 1000)
    await peer.send(pong, 0, frame.sequence)
    return True


async def refuse(peer: Peer, frame: Frame, now_ms: int) -> bool:
    await peer.send(ErrorReply(ErrorCode.NOT_ALLOWED, "no", "token"), 0, frame.sequence)
    return False


async def ignore(peer: Peer, frame: Frame, now_ms: int) -> bool:
    """Answer as a broker that does not know the field."""
    assert isinstance(frame.message, Ping)
    await peer.send(Pong(frame.message.client_ms, now_ms), 0, frame.sequence)
    return False


async def send_nothing(peer: Peer, frame: Frame, now_ms: int) -> bool:
    return False


class Source:
    """Tokens of the application, counted; the calls in ``fails`` raise."""

    def __init__(self, *fails: int) -> None:
        self.calls = 0
        self.fails = fails

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls in self.fails:
            raise OSError("the platform is down")
        return f"token {self.calls}"


@asynccontextmanager
async def client_of(broker: ScriptedBroker, token: Any) -> AsyncIterator[Client]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.run)
        async with open_client(
            URL, token, connect=broker.network, rng=random.Random(3), wall_ms=lambda: round(trio.current_time() * 1000)
        ) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_a_token_is_renewed_before_each_of_its_ends_and_the_link_stays(autojump_clock: Any) -> None:
    broker, source = ScriptedBroker(accept), Source()
    async with client_of(broker, source) as client:
        await trio.sleep(10 * LIFETIME_S)
        assert broker.links == 1
        assert source.calls == len(broker.renewals) + 1
        assert [token for _, token in broker.renewals] == [f"token {n + 2}" for n in range(len(broker.renewals))]
        times = [0.0, *(at for at, _ in broker.renewals)]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert all(0.75 * LIFETIME_S <= gap <= 0.96 * LIFETIME_S for gap in gaps)
        assert len(set(gaps)) > 5, "at random times"
        assert client.user is not None
        assert client.user.expires_at_ms > broker.now_ms()


async def test_a_source_that_fails_is_called_again_before_the_end(autojump_clock: Any) -> None:
    broker, source = ScriptedBroker(accept), Source(2, 3)
    async with client_of(broker, source):
        await trio.sleep(LIFETIME_S)
        assert (broker.links, [token for _, token in broker.renewals]) == (1, ["token 4"])


@pytest.mark.parametrize("answer", [refuse, ignore, send_nothing])
async def test_without_a_renewal_the_client_reconnects_with_the_newer_token_at_the_end(
    answer: Answer, autojump_clock: Any
) -> None:
    broker, source = ScriptedBroker(answer), Source()
    async with client_of(broker, source) as client:
        await trio.sleep(LIFETIME_S - 1)
        assert (broker.links, len(broker.renewals)) == (1, 1), "one attempt"
        await trio.sleep(CUT_MS / 1000)
        assert broker.links == 2
        assert broker.tokens[0] == "token 1"
        assert broker.tokens[1] != "token 1"
        assert client.is_connected


@pytest.mark.parametrize("token", ["fixed", None])
async def test_a_token_without_a_source_is_not_renewed(token: str | None, autojump_clock: Any) -> None:
    broker = ScriptedBroker(accept)
    async with client_of(broker, token):
        await trio.sleep(LIFETIME_S - 1)
        assert (broker.links, broker.renewals) == (1, [])
