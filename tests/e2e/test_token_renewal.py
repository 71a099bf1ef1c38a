"""A real broker and short tokens: the client keeps its link over the ends of several tokens."""

from __future__ import annotations

import pytest
import trio

from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from protocol.clients import Disconnected, open_client
from protocol.codes import CloseCode, Outcome
from tests.support.processes import serving
from tests.support.tokens import SECRET

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LIFETIME_S = 4.0


async def test_a_client_keeps_its_link_and_its_room_over_the_ends_of_its_tokens() -> None:
    issuer = Authenticator(AuthConfig(secret=SECRET))
    calls = 0

    async def source() -> str:
        nonlocal calls
        calls += 1
        return issuer.issue("ann", ttl_s=LIFETIME_S)

    async with (
        serving("--set", "auth.leeway_s=0", ROOMCAST_AUTH__SECRET=SECRET) as broker,
        open_client(broker.url, source) as client,
    ):
        events = client.events()
        room = await client.join("lobby")
        with trio.move_on_after(2.5 * LIFETIME_S):
            async for event in events:
                assert not isinstance(event, Disconnected), event
        assert calls >= 3
        assert (await room.post_danmaku("still here")).outcome is Outcome.ACCEPTED


async def test_a_client_without_a_source_is_closed_at_the_end_of_its_token() -> None:
    issuer = Authenticator(AuthConfig(secret=SECRET))
    async with (
        serving("--set", "auth.leeway_s=0", ROOMCAST_AUTH__SECRET=SECRET) as broker,
        open_client(broker.url, issuer.issue("ann", ttl_s=2)) as client,
    ):
        with trio.fail_after(20):
            async for event in client.events():
                if isinstance(event, Disconnected):
                    assert event.code == CloseCode.TOKEN_EXPIRED
                    return
