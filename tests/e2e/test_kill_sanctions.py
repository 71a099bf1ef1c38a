"""SIGKILL after sanctions and modes were answered: all of them hold in the next process, and can be undone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocol.clients import open_client
from protocol.clients.client import Client
from protocol.clients.room import JoinedRoom
from protocol.codes import MessageType, Outcome
from protocol.payloads import EmotePayload
from tests.support.processes import Restarting, restarting

pytestmark = pytest.mark.integration


@asynccontextmanager
async def joined(broker: Restarting) -> AsyncIterator[tuple[Client, JoinedRoom]]:
    """A host, and the room as viewer ann has joined it."""
    async with (
        open_client(broker.url, token="dev:max:host") as host,
        open_client(broker.url, token="dev:ann") as ann,
    ):
        await host.join("lobby")
        yield host, await ann.join("lobby")


async def test_what_a_moderator_has_done_is_there_after_a_kill(tmp_path: Path) -> None:
    async with restarting("--port", "0", "--data-dir", str(tmp_path / "data")) as broker:
        async with (
            open_client(broker.url, token="dev:max:host") as host,
            open_client(broker.url, token="dev:ann") as ann,
        ):
            await host.join("lobby")
            await ann.join("lobby")
            muted = await host.call("moderation.mute", room="lobby", user="ann", seconds=600, reason="spam")
            await host.call("moderation.ban", room="lobby", user="bob", reason="fraud")
            lifted = await host.call("moderation.unmute", room="lobby", user="ann")
            await host.call("moderation.set_modes", room="lobby", emote_only=True)
            await broker.restart()
        async with (
            open_client(broker.url, token="dev:max:host") as host,
            open_client(broker.url, token="dev:ann") as ann,
        ):
            await host.join("lobby")
            room = await ann.join("lobby")
            assert (await room.post_danmaku("hi")).error == "EMOTE_ONLY"
            assert (await room.post(MessageType.EMOTE, EmotePayload("heart"))).outcome is Outcome.ACCEPTED
            assert [each.user for each in (await host.call("moderation.list", room="lobby")).items] == ["bob"]
            await host.call("moderation.undo", action=lifted.action)
            await broker.restart()
        async with (
            open_client(broker.url, token="dev:max:host") as host,
            open_client(broker.url, token="dev:ann") as ann,
        ):
            await host.join("lobby")
            room = await ann.join("lobby")
            refused = await room.post(MessageType.EMOTE, EmotePayload("heart"))
            assert (refused.error, refused.message) == ("MUTED", "spam")
            assert 0 < refused.retry_after_ms <= 600_000
            await host.call("moderation.undo", action=muted.action)
            assert (await room.post(MessageType.EMOTE, EmotePayload("star"))).outcome is Outcome.ACCEPTED
