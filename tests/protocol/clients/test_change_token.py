"""A new token for an open link, from the application."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
import trio
import trio.testing

from protocol.clients import Client, RoomLeft, TokenRefused, open_client
from protocol.codes import ErrorCode, LeaveReason, Opcode, Role
from protocol.errors import LocalProtocolError
from protocol.messages import Auth, Authenticated, ErrorReply
from tests.support.broker import running_broker
from tests.support.peer import URL, Network, Peer, server_hello
from tests.support.tokens import HS256, SECRET, sign


def token(role: str, *rooms: str, user: str = "ann") -> str:
    claims = {"sub": user, "aud": "roomcast", "exp": int(time.time()) + 3600, "role": role}
    return sign(HS256, claims | {"rooms": [{"pattern": room} for room in rooms]})


@pytest.mark.integration
async def test_a_new_token_changes_the_rights_in_rooms_and_ends_those_that_it_does_not_grant() -> None:
    async with running_broker(auth={"secret": SECRET}, ledger={"ephemeral": True}) as broker:
        url = f"roomcast://127.0.0.1:{broker.addresses[0][1]}"
        async with open_client(url, token("host", "one", "two")) as client:
            one, two = await client.join("one"), await client.join("two")
            changed = await client.change_token(token("moderator", "two"))
            assert [each.role for each in changed.rooms] == [Role.MODERATOR]
            assert client.user == changed
            left = [event async for event in one if isinstance(event, RoomLeft)]
            assert [each.reason for each in left] == [LeaveReason.NOT_GRANTED]
            for wrong in (token("host", "two", user="bob"), "no token"):
                with pytest.raises(TokenRefused) as refused:
                    await client.change_token(wrong)
                assert (refused.value.code, refused.value.field) == (ErrorCode.NOT_ALLOWED, "token")
            assert client.user == changed
            assert two.name == "two"
            with pytest.raises(LocalProtocolError):
                await client.change_token("")


class Scripted:
    """Broker of one client that accepts every first token, and hands out the links."""

    def __init__(self) -> None:
        self.network = Network()
        self.tokens: list[str | None] = []

    async def accept(self) -> Peer:
        peer = await self.network.accept()
        await peer.expect(Opcode.HELLO)
        await self.auth(peer)
        await peer.send(server_hello())
        await peer.send(Authenticated("u1", "Ann"))
        return peer

    async def auth(self, peer: Peer) -> int:
        frame = await peer.expect(Opcode.AUTH)
        assert isinstance(frame.message, Auth)
        self.tokens.append(frame.message.token)
        return frame.sequence


async def test_the_request_survives_a_lost_link_and_later_links_send_the_new_token(autojump_clock: Any) -> None:
    broker = Scripted()
    changed: list[Authenticated] = []

    async def change(client: Client) -> None:
        changed.append(await client.change_token("new"))

    async with trio.open_nursery() as nursery:
        peers: list[Peer] = []

        async def first() -> None:
            peers.append(await broker.accept())

        nursery.start_soon(first)
        async with open_client(URL, "old", connect=broker.network, rng=random.Random(3)) as client:
            nursery.start_soon(change, client)
            assert await broker.auth(peers[0])
            await peers[0].vanish()
            second = await broker.accept()
            sequence = await broker.auth(second)
            await second.send(Authenticated("u1", "Ann", 0, "", 0), 0, sequence)
            await trio.testing.wait_all_tasks_blocked()
            assert len(changed) == 1
            await second.send(ErrorReply(ErrorCode.NOT_ALLOWED, "late", "token"), 0, sequence)
            await second.vanish()
            await broker.accept()
            assert broker.tokens == ["old", "new", "old", "new", "new"]
        nursery.cancel_scope.cancel()


async def test_a_change_that_is_not_answered_ends_in_time(autojump_clock: Any) -> None:
    broker = Scripted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.accept)
        async with open_client(URL, "old", connect=broker.network, rng=random.Random(3)) as client:
            with pytest.raises(trio.TooSlowError):
                await client.change_token("new", timeout_s=2.0)
        nursery.cancel_scope.cancel()
