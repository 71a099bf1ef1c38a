"""Mic-link over HTTP and CALL: a real broker, a real ledger, restarts and lost connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.core.commerce import mic
from broker.server import Broker
from protocol.activities import ActivityEvent
from protocol.activities.mic import MicInvited, MicSeat, MicStatus, SeatLeft, SeatTaken
from protocol.clients import Client, StreamEvent, open_client
from protocol.clients.events import CallRefused
from protocol.codes import ErrorCode
from protocol.operations.mic import MicAccess
from tests.support.api import API, client_of, ok, refused
from tests.support.clocks import advance
from tests.support.durable import durable_broker
from tests.support.faulty_disk import crashed_copy
from tests.support.until import until

pytestmark = pytest.mark.integration
ROOM = "live-1"


@asynccontextmanager
async def user(broker: Broker, token: str) -> AsyncIterator[Client]:
    """Open a client that has joined the room."""
    async with open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", f"dev:{token}") as client:
        await client.join(ROOM)
        yield client


async def invited(client: Client) -> MicInvited:
    """Wait for the invitation of a user."""
    async for event in client.events():
        message = getattr(event, "payload", None)
        if isinstance(message, ActivityEvent) and message.name == "mic.invited":
            assert isinstance(message.data, MicInvited)
            return message.data
    raise AssertionError("the client has ended")


async def put_on_mic(host: Client, guest: Client, name: str) -> int:
    state = await host.call("mic.invite", room=ROOM, user=name, rtc_token=f"token of {name}")
    await guest.call("mic.accept", room=ROOM, fence=state.fence)
    await guest.call("mic.on_mic", room=ROOM, fence=state.fence)
    fence: int = state.fence
    return fence


async def test_a_viewer_comes_on_the_mic_and_leaves_it(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as http,
        user(broker, "host:host") as host,
        user(broker, "ann") as ann,
    ):
        assert await ok(http, "mic.set_seats", room=ROOM, seats=2) == {
            "seats": 2, "taken": [], "waiting": 0, "queue": [],
        }  # fmt: skip
        queued = await ann.call("mic.request", room=ROOM)
        assert (queued.status, queued.place) == (MicStatus.QUEUED, 1)
        assert [each.user for each in (await host.call("mic.get", room=ROOM)).queue] == ["ann"]
        assert (await ann.call("mic.get", room=ROOM)).queue == ()
        state = await host.call("mic.invite", room=ROOM, user="ann", rtc_token="token of ann")
        invitation = await invited(ann)
        assert (invitation.seat, invitation.fence) == (1, state.fence)
        access = await ann.call("mic.accept", room=ROOM, fence=invitation.fence)
        assert access.rtc_token == "token of ann"
        on_mic = await ann.call("mic.on_mic", room=ROOM, fence=invitation.fence)
        assert on_mic.status is MicStatus.ON_MIC
        assert (await ok(http, "mic.get", room=ROOM))["taken"] == [
            {"seat": 1, "user": "ann", "name": "ann", "is_muted": False}
        ]
        muted = await ok(http, "mic.mute", room=ROOM, user="ann", is_muted=True)
        assert (muted["status"], muted["is_muted"]) == ("on_mic", True)
        with pytest.raises(CallRefused) as caught:
            await ann.call("mic.mute", room=ROOM, is_muted=False, fence=state.fence)
        assert caught.value.code == ErrorCode.NOT_ALLOWED
        left = await ann.call("mic.leave", room=ROOM, fence=state.fence)
        assert left.status is MicStatus.NONE


async def test_members_see_who_speaks_now_and_when_they_join(directory: Path) -> None:
    async with (
        durable_broker(directory) as broker,
        user(broker, "host:host") as host,
        user(broker, "ann") as ann,
        open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", "dev:bob") as bob,
    ):
        await host.call("mic.set_seats", room=ROOM, seats=1)
        room = await bob.join(ROOM)
        fence = await put_on_mic(host, ann, "ann")
        seen: list[Any] = []
        async for event in room:
            if isinstance(event, StreamEvent) and isinstance(event.payload, ActivityEvent):
                seen.append(event.payload.data)
                if isinstance(event.payload.data, SeatTaken):
                    break
        assert seen[-1] == SeatTaken(1, "ann", "ann")
        async with open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", "dev:ann") as again:
            joined = await again.join(ROOM)
            snapshot = joined.snapshot
            assert snapshot is not None
            views = {view.kind: view.data for view in snapshot.activities}
            assert views["mic"].taken == (MicSeat(1, "ann", "ann"),)
            own = {view.kind: view.data for view in snapshot.own_activities}
            assert (own["mic"].status, own["mic"].fence) == (MicStatus.ON_MIC, fence)


async def test_refusals_name_the_code_and_change_nothing(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as http,
        user(broker, "host:host") as host,
        user(broker, "ann") as ann,
    ):
        with pytest.raises(CallRefused) as caught:
            await ann.call("mic.request", room=ROOM)
        assert caught.value.code == ErrorCode.UNKNOWN_ACTIVITY
        await host.call("mic.set_seats", room=ROOM, seats=1)
        fence = await put_on_mic(host, ann, "ann")
        assert await refused(http, "mic.invite", room=ROOM, user="bob") == (409, "SEAT_TAKEN", "seat")
        assert await refused(http, "mic.set_seats", room=ROOM, seats=0) == (409, "BELOW_TAKEN", "remove")
        assert await refused(http, "mic.mute", room=ROOM, is_muted=True) == (400, "BAD_FIELD", "user")
        assert (await refused(http, "mic.request", room=ROOM))[1] == "NOT_ALLOWED"
        for name, fields, code in (
            ("mic.leave", {"fence": fence - 1}, ErrorCode.STALE),
            ("mic.on_mic", {"fence": fence - 1}, ErrorCode.STALE),
            ("mic.mute", {"user": "host", "is_muted": True}, ErrorCode.NOT_ALLOWED),
            ("mic.invite", {"user": "ann"}, ErrorCode.NOT_ALLOWED),
            ("mic.set_seats", {"seats": 5}, ErrorCode.NOT_ALLOWED),
        ):
            with pytest.raises(CallRefused) as caught:
                await ann.call(name, room=ROOM, **fields)
            assert caught.value.code == code, name
        assert (await ok(http, "mic.get", room=ROOM))["taken"][0]["user"] == "ann"
        await ok(http, "mic.remove", room=ROOM, user="ann")
        await ok(http, "mic.reject", room=ROOM, user="ann")
        with pytest.raises(CallRefused) as caught:
            await ann.call("mic.accept", room=ROOM, fence=fence)
        assert caught.value.code == ErrorCode.NOT_INVITED
        assert (await ann.call("mic.cancel", room=ROOM)).status is MicStatus.NONE


async def test_a_lost_connection_frees_the_seat_after_the_grace(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mic, "GRACE_MS", 50)
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as http,
        user(broker, "host:host") as host,
    ):
        await host.call("mic.set_seats", room=ROOM, seats=2)
        async with user(broker, "ann") as ann:
            await put_on_mic(host, ann, "ann")
        assert (await ok(http, "mic.get", room=ROOM))["seats"] == 2
        room = host.rooms[ROOM]
        with trio.fail_after(10):
            async for event in room:
                if isinstance(event, StreamEvent) and isinstance(event.payload, ActivityEvent):
                    if isinstance(event.payload.data, SeatLeft):
                        break
        assert (await ok(http, "mic.get", room=ROOM))["taken"] == []


async def test_who_is_back_in_time_stays_also_over_a_restart(directory: Path) -> None:
    async with durable_broker(directory) as broker, user(broker, "host:host") as host:
        await host.call("mic.set_seats", room=ROOM, seats=2)
        async with user(broker, "ann") as ann:
            fence = await put_on_mic(host, ann, "ann")
        activity = broker.hub.find(ROOM).state.activities.activities.find("mic", "")  # type: ignore[union-attr]
        await until(lambda: activity.state_of("ann").expires_at_ms is not None)
        async with user(broker, "ann") as ann:
            assert (await ann.call("mic.on_mic", room=ROOM, fence=fence)).expires_at_ms is None
    async with durable_broker(directory) as broker, user(broker, "ann") as ann:
        state = await ann.call("mic.on_mic", room=ROOM, fence=fence)
        assert (state.status, state.expires_at_ms) == (MicStatus.ON_MIC, None)
        again = await ann.call("mic.accept", room=ROOM, fence=fence)
        assert again == MicAccess(state, "token of ann")


async def test_a_user_who_never_comes_back_after_a_crash_leaves_the_mic_though_nobody_joins(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = directory / "first", directory / "second"
    first.mkdir()
    async with durable_broker(first) as broker, user(broker, "host:host") as host, user(broker, "ann") as ann:
        await host.call("mic.set_seats", room=ROOM, seats=2)
        await put_on_mic(host, ann, "ann")
        crashed_copy(first, second)
    monkeypatch.setattr(mic, "GRACE_MS", 30_000)
    async with durable_broker(second) as broker:
        room = broker.hub.find(ROOM)
        assert room is not None, "it is opened at once"
        activities = room.state.activities.activities
        assert activities is not None
        assert activities.find("mic", "").state_of("ann").status is MicStatus.ON_MIC
        advance(30_000)
        await until(lambda: activities.find("mic", "").state_of("ann").status is MicStatus.NONE)
    async with durable_broker(second) as broker:
        assert broker.hub.find(ROOM) is None, "nobody is on the mic"
