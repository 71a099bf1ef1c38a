"""Token of each link: a ticket while one is valid, else the one that the application returns."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from protocol.clients import ClientClosed, Connected, Disconnected, open_client
from protocol.clients.credentials import GUEST_TOKEN, Credentials, new_guest_token
from protocol.clients.link import Ending
from protocol.codes import CloseCode, Feature, Opcode
from protocol.errors import LocalProtocolError
from protocol.messages import Auth, Authenticated, ClientHello, Ping, Pong
from protocol.reconnect import Signal
from tests.support.examples import examples
from tests.support.peer import CUT_MS, NO_ROUTE, Network, Peer, client_of, server_hello, take_until

AUTH_FAILED, TOKEN_EXPIRED = int(CloseCode.AUTH_FAILED), int(CloseCode.TOKEN_EXPIRED)


class Application:
    """Source of the tokens 1, 2, 3 ...; the first calls raise ``failures``."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def __call__(self) -> str | None:
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        self.calls += 1
        return f"token {self.calls}"


async def token_sent(peer: Peer) -> str | None:
    """Return the token that the client sends on a new link."""
    hello = await peer.expect(Opcode.HELLO)
    assert isinstance(hello.message, ClientHello)
    auth = await peer.expect(Opcode.AUTH)
    assert isinstance(auth.message, Auth)
    return auth.message.token


async def welcome(peer: Peer, ticket: str = "", ticket_ms: int = 600_000) -> None:
    await peer.send(server_hello(features=int(Feature.TICKET)))
    await peer.send(Authenticated("u1", "Ann", 0, ticket, ticket_ms if ticket else 0))


async def test_a_client_reconnects_with_its_newest_ticket_and_calls_the_application_once(autojump_clock: Any) -> None:
    network, application = Network(), Application()
    async with client_of(network, token=application) as client:
        peer = await network.accept()
        assert await token_sent(peer) == "token 1"
        for number in range(1, 6):
            await welcome(peer, f"ticket {number}")
            await client.wait_connected()
            await peer.goaway(4000)
            peer = await network.accept()
            assert await token_sent(peer) == f"ticket {number}"
        assert application.calls == 1


async def test_after_a_refused_ticket_the_application_is_called(autojump_clock: Any) -> None:
    network, application = Network(), Application()
    async with client_of(network, token=application) as client:
        events = client.events()
        peer = await network.accept()
        await token_sent(peer)
        await welcome(peer, "ticket 1")
        await take_until(events, Connected)
        await peer.vanish()
        peer = await network.accept()
        assert await token_sent(peer) == "ticket 1"
        await peer.send(server_hello())
        await peer.goaway(AUTH_FAILED)
        peer = await network.accept()
        assert await token_sent(peer) == "token 2"
        await welcome(peer)
        await take_until(events, Connected)
        await peer.vanish()
        assert await token_sent(await network.accept()) == "token 3", "no ticket was given this time"
        assert client.closed is None


async def test_an_expired_ticket_is_not_sent(autojump_clock: Any) -> None:
    network, application = Network(), Application()
    async with client_of(network, token=application) as client:
        peer = await network.accept()
        await token_sent(peer)
        await welcome(peer, "ticket 1", ticket_ms=20_000)
        await client.wait_connected()
        await trio.sleep(20)
        await peer.vanish()
        assert await token_sent(await network.accept()) == "token 2"


async def test_a_long_link_renews_its_ticket_at_half_time(autojump_clock: Any) -> None:
    network, application = Network(), Application()
    async with client_of(network, token=application) as client:
        peer = await network.accept()
        await token_sent(peer)
        await welcome(peer, "ticket 1", ticket_ms=200_000)
        await client.wait_connected()
        begun = trio.current_time()
        renewals = 0
        while renewals < 3:
            ping = await peer.expect(Opcode.PING)
            assert isinstance(ping.message, Ping)
            due = trio.current_time() >= begun + 100
            assert ping.message.renew is due
            if due:
                renewals += 1
                begun = trio.current_time()
            ticket = f"renewed {renewals}" if due else ""
            await peer.send(Pong(ping.message.client_ms, 0, (), 0, ticket), 0, ping.sequence)
        await trio.testing.wait_all_tasks_blocked()
        await peer.vanish()
        assert await token_sent(await network.accept()) == "renewed 3"
        assert application.calls == 1


async def test_only_a_client_with_a_call_requests_tickets(autojump_clock: Any) -> None:
    for token, wants in ((Application(), True), ("token", False), (None, False)):
        network = Network()
        async with client_of(network, token=token):
            peer = await network.accept()
            hello = await peer.expect(Opcode.HELLO)
            assert isinstance(hello.message, ClientHello)
            assert bool(hello.message.features & Feature.TICKET) is wants


async def test_a_failed_call_of_the_application_is_repeated_like_a_failed_connection(autojump_clock: Any) -> None:
    network = Network()
    application = Application(OSError("no route"), ValueError("bug"), ExceptionGroup("two", [OSError(), ValueError()]))
    async with client_of(network, token=application) as client:
        events = client.events()
        for words in ("OSError: no route", "ValueError: bug", "ExceptionGroup"):
            lost = await take_until(events, Disconnected)
            assert lost.code is None
            assert words in lost.reason
            assert lost.retry_in_s is not None
        assert await token_sent(await network.accept()) == "token 1"


async def test_a_token_without_an_answer_is_sent_again(autojump_clock: Any) -> None:
    network, application = Network(), Application()
    network.plan = [NO_ROUTE, NO_ROUTE]
    async with client_of(network, token=application) as client:
        for _ in range(2):
            peer = await network.accept()
            assert await token_sent(peer) == "token 1"
            await peer.vanish()
        peer = await network.accept()
        assert await token_sent(peer) == "token 1"
        await welcome(peer)
        await client.wait_connected()
        await peer.vanish()
        assert await token_sent(await network.accept()) == "token 2", (
            "it was accepted once; the application may have a newer"
        )


@pytest.mark.parametrize("bad", ["", "a\nb", "x" * 4001, 7])
async def test_an_invalid_token_is_not_sent(bad: Any, autojump_clock: Any) -> None:
    network = Network()

    async def application() -> Any:
        return bad

    async with client_of(network, token=application) as client:
        assert "AUTH.token" in (await take_until(client.events(), Disconnected)).reason
        assert network.attempts == []
    if isinstance(bad, str):
        with pytest.raises(LocalProtocolError):
            async with open_client("roomcast://broker", bad):
                pass


async def test_a_call_of_the_application_has_a_timeout(autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network, token=trio.sleep_forever, handshake_timeout_s=3) as client:
        begun = trio.current_time()
        assert "no token within 3 s" in (await take_until(client.events(), Disconnected)).reason
        assert trio.current_time() == pytest.approx(begun + 3)


async def test_two_tokens_of_the_application_refused_in_a_row_end_the_client(autojump_clock: Any) -> None:
    network, application = Network(), Application()
    async with client_of(network, token=application) as client:
        for number in (1, 2):
            peer = await network.accept()
            assert await token_sent(peer) == f"token {number}"
            await peer.goaway(AUTH_FAILED)
        with pytest.raises(ClientClosed) as raised:
            await client.wait_connected()
        assert raised.value.code == AUTH_FAILED


async def test_after_an_expired_token_the_application_is_called(autojump_clock: Any) -> None:
    network, application = Network(), Application()
    async with client_of(network, token=application) as client:
        for number in range(1, 6):
            peer = await network.accept()
            assert await token_sent(peer) == f"token {number}", "the ticket ended with the token"
            await welcome(peer, "ticket")
            await client.wait_connected()
            await trio.testing.wait_all_tasks_blocked()
            await peer.goaway(TOKEN_EXPIRED)
        await token_sent(await network.accept())
        assert client.closed is None


@pytest.mark.parametrize("code", [4400, 4404, 4410])
async def test_any_other_terminal_code_ends_a_client_with_a_call_too(code: int, autojump_clock: Any) -> None:
    network = Network()
    async with client_of(network, token=Application()) as client:
        peer = await network.accept()
        await token_sent(peer)
        await welcome(peer, "ticket")
        await client.wait_connected()
        await peer.goaway(code)
        await trio.sleep(60)
        assert client.closed is not None
        assert client.closed.code == code


@examples(100)
@given(
    st.lists(st.sampled_from(["welcome", "ticket", "refused", "expired", "lost"]), max_size=30), st.randoms()
)  # fmt: skip
def test_a_refusal_is_final_only_after_two_tokens_in_a_row(happened: list[str], rng: random.Random) -> None:
    """Model of the rule that counts the tokens refused since the last accepted one."""

    async def run() -> None:
        application = Application()
        credentials = Credentials(application)
        refused, now = 0, 0.0
        for each in happened:
            now += rng.choice((0.0, 1.0, CUT_MS))
            token = await credentials.next(now)
            is_token = token != "ticket"
            if is_token:
                assert token == f"token {application.calls}", "the newest one"
            if each in ("welcome", "ticket"):
                refused = 0
                credentials.accepted(
                    Authenticated("u", "", 0, *(("ticket", 5000) if each == "ticket" else ("", 0))), now
                )
                classified = credentials.classify(Ending(Signal.LOST, None, "lost"))
                assert classified == Ending(Signal.LOST, None, "lost")
                continue
            code = {"refused": AUTH_FAILED, "expired": TOKEN_EXPIRED, "lost": 4000}[each]
            ending = Ending(Signal.GOAWAY, code, each)
            refused += each == "refused" and is_token
            classified = credentials.classify(ending)
            if each == "lost" or (each == "refused" and is_token and refused >= 2):
                assert classified == ending
            else:
                assert (classified.signal, classified.code) == (Signal.LOST, None)
                assert (await Credentials(None).next(0.0)) == GUEST_TOKEN

    trio.run(run)


def test_the_end_of_a_fixed_token_is_not_changed() -> None:
    for token in ("token", None):
        for code in (AUTH_FAILED, TOKEN_EXPIRED, 4000, None):
            ending = Ending(Signal.GOAWAY, code, "x")
            assert Credentials(token).classify(ending) is ending


async def test_reconnects_and_later_clients_without_a_token_are_one_guest(autojump_clock: Any) -> None:
    tokens = []
    for _ in range(2):
        network = Network()
        async with client_of(network):
            for _ in range(3):
                peer = await network.accept()
                tokens.append(await token_sent(peer))
                await welcome(peer)
                await peer.vanish()
    assert len(set(tokens)) == 1
    assert re.fullmatch(r"guest:[A-Za-z0-9_-]{22,64}", tokens[0] or "")
    assert new_guest_token() not in (new_guest_token(), tokens[0])
