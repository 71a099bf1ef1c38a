"""The client against a scripted broker: opening and closing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio
import trio.testing

from protocol.clients import ClientClosed, Connected, open_client
from protocol.codes import Feature, Opcode, Tier
from protocol.errors import LocalProtocolError
from protocol.messages import Auth, Authenticated, ClientHello, GoAway, Join
from tests.support.peer import NO_ROUTE, URL, Network, client_of, count_likes, join, joined, linked, server_hello, take

# ---- handshake


async def test_hello_auth_and_join_leave_in_one_write(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network, token="secret", agent="test/1") as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.join, "lobby", Tier.LOW)
        peer = await network.accept()
        await trio.testing.wait_all_tasks_blocked()
        hello, auth = await peer.expect(Opcode.HELLO), await peer.expect(Opcode.AUTH)
        assert isinstance(hello.message, ClientHello)
        assert hello.message.agent == "test/1"
        assert hello.message.features == Feature.LZ4 | Feature.LZ4_DICT_1 | Feature.CALL
        assert auth.message == Auth("secret")
        join_frame = await peer.expect(Opcode.JOIN)
        assert join_frame.message == Join("lobby", Tier.LOW)
        assert peer.received == 1, "one write carried all three"
        await peer.send(server_hello())
        await peer.send(Authenticated("u1", "Ann", 99))
        await peer.send(joined(), 3, join_frame.sequence)


async def test_the_client_reports_its_identity_and_the_broker(autojump_clock: Any) -> None:
    async with linked() as (client, _, _):
        assert client.is_connected
        assert client.user is not None
        assert client.user.user_id == "u1"
        assert client.server == server_hello()
        connected = await take(client.events(), Connected)
        assert connected == Connected("u1", "Ann", 0, "scripted", 0)


async def test_opening_waits_for_the_first_authenticated_link(autojump_clock: Any) -> None:
    network = Network()

    async def broker() -> None:
        peer = await network.accept()
        await trio.sleep(3)
        await peer.welcome()
        await peer.rest()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker)
        async with open_client(URL, connect=network) as client:
            assert client.is_connected
            assert trio.current_time() >= 3


async def test_opening_ends_with_its_timeout(autojump_clock: Any) -> None:
    network = Network()
    network.plan = [NO_ROUTE] * 100
    start = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        async with open_client(URL, connect=network, open_timeout_s=20):
            raise AssertionError("entered")
    assert trio.current_time() - start == pytest.approx(20)
    assert len(network.attempts) > 2


async def test_the_timeout_of_opening_says_why(autojump_clock: Any) -> None:
    network = Network()
    network.plan = [NO_ROUTE] * 100
    with pytest.raises(trio.TooSlowError, match=r"^no link to broker:7400 within 5 s: no route$"):
        async with open_client(URL, connect=network, open_timeout_s=5):
            raise AssertionError("entered")


def test_without_trio_the_client_says_what_it_needs() -> None:
    async def main() -> None:
        async with open_client(URL):
            raise AssertionError("entered")

    with pytest.raises(RuntimeError, match=r"runs on Trio.*trio\.run\(main\).*asyncio\.to_thread\(trio\.run, main\)"):
        asyncio.run(main())


async def test_a_terminal_code_makes_opening_fail_with_it(autojump_clock: Any) -> None:
    network = Network()

    async def broker() -> None:
        peer = await network.accept()
        await peer.goaway(4408)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker)
        with pytest.raises(ClientClosed) as caught:
            async with open_client(URL, connect=network):
                raise AssertionError("entered")
    assert caught.value.code == 4408


@pytest.mark.parametrize(
    ("options", "field"),
    [({"token": ""}, "AUTH.token"), ({"agent": "x" * 200}, "HELLO.agent"), ({"features": -1}, "HELLO.features")],
)
async def test_bad_options_are_named_before_anything_is_sent(options: dict[str, Any], field: str) -> None:
    network = Network()
    with pytest.raises(LocalProtocolError, match=field):
        async with open_client(URL, connect=network, **options):
            pass
    assert network.attempts == []


# ---- the end


async def test_leaving_the_block_sends_goaway(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network) as client:
        peer = await network.accept()
        await peer.welcome()
        room = await join(client, peer)
    frames = await peer.rest()
    assert [frame.opcode for frame in frames] == [Opcode.GOAWAY]
    assert isinstance(frames[0].message, GoAway)
    assert frames[0].message.code == 4411
    assert [found async for found in room] == []
    assert client.closed is not None
    with pytest.raises(ClientClosed):
        await client.join("lobby")
    with pytest.raises(ClientClosed):
        await room.post_danmaku("x")


async def test_leaving_the_block_sends_the_remaining_likes(autojump_clock: Any) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        async with client_of(network) as client:
            peer = await network.accept()
            await peer.welcome()
            room = await join(client, peer)
            room.like(5)
            nursery.start_soon(lambda: count_likes(peer, 5))
    assert room.likes == (0, 5, 0, 0, 0)


async def test_a_cancelled_application_still_sends_goaway(autojump_clock: Any) -> None:
    network = Network()
    with trio.CancelScope() as scope:
        async with client_of(network):
            peer = await network.accept()
            await peer.welcome()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert [frame.opcode for frame in await peer.rest()] == [Opcode.GOAWAY]


async def test_the_applications_exception_is_not_wrapped(autojump_clock: Any) -> None:
    class OurError(Exception):
        pass

    network = Network()
    with pytest.raises(OurError):
        async with client_of(network):
            raise OurError
    group = ExceptionGroup("two", [ValueError(), OurError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with client_of(network):
            raise group
    assert caught.value is group


async def test_a_goaway_that_the_peer_does_not_read_has_a_timeout(autojump_clock: Any) -> None:
    network = Network(trio.testing.lockstep_stream_pair)
    start = trio.current_time()
    async with client_of(network):
        await network.accept()
    assert trio.current_time() - start < 5


async def test_a_client_can_be_closed_before_its_first_link(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network):
        pass
    with trio.CancelScope() as scope:
        scope.cancel()
        async with client_of(network):
            await trio.sleep_forever()
    assert scope.cancelled_caught
