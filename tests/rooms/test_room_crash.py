"""Our own failures stay where they happen: one link, one room; and who was in that room comes back without a gap."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio

from broker.core.rooms.posting import Posting
from broker.core.rooms.state import RoomState
from broker.rooms.journal import RoomJournal
from broker.server import Broker
from broker.sessions import requests
from broker.sessions.link import SessionLink
from broker.sessions.session import Session
from protocol.clients import open_client
from protocol.clients import room as subscription
from protocol.clients.events import Gap, Rejoined, RoomLeft, StreamEvent
from protocol.codes import CloseCode, LeaveReason, MessageType, Outcome
from protocol.connection import Frame
from protocol.messages import Ack, Event, Left, Post
from tests.support.broker import joined_link, running_broker, sessions_of
from tests.support.durable import durable_broker

pytestmark = pytest.mark.integration

UNLIMITED: dict[str, Any] = {"link": {"frames_per_s": 0}, "room": {"admit_per_window": 100_000, "tick_ms": 20}}


class Sometimes:
    """Makes one in ``every`` calls of a method fail."""

    def __init__(self, call: Callable[..., Any], every: int) -> None:
        self._call = call
        self._every = every
        self.calls = self.failures = 0

    def bind(self) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls % self._every == 0:
                self.failures += 1
                raise RuntimeError("a defect")
            return self._call(*args, **kwargs)

        return call


@asynccontextmanager
async def a_broker(directory: Path | None, **overrides: Any) -> AsyncIterator[Broker]:
    if directory is None:
        async with running_broker(**overrides) as broker:
            yield broker
    else:
        async with durable_broker(directory, **overrides) as broker:
            yield broker


class Quick:
    """Comes back as soon as a client may."""

    def random(self) -> float:
        return 0.0

    def uniform(self, a: float, b: float) -> float:
        return min(a, b) / 50

    def getrandbits(self, bits: int) -> int:
        return 5


@pytest.mark.parametrize("kept", [False, True], ids=["ephemeral", "durable"])
@pytest.mark.parametrize("where", ["post", "committed", "tick"])
async def test_viewers_of_a_room_that_crashes_again_and_again_miss_no_event(
    directory: Path, kept: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``post``: nothing has happened yet. ``committed``: on the disk, not shown. ``tick``: in the room's own task."""
    if where == "committed" and not kept:
        pytest.skip("nothing is committed later than it is posted")
    owner = Posting if where == "post" else RoomState
    defect = Sometimes(getattr(owner, where), 3 if where == "tick" else 7)
    monkeypatch.setattr(owner, where, defect.bind())
    wanted, published = 30, dict[str, int]()
    seen: list[tuple[int, str]] = []
    done = trio.Event()

    async def watch(room: subscription.JoinedRoom) -> None:
        crashed = 0
        async for event in room:
            assert not isinstance(event, Gap), event
            if isinstance(event, StreamEvent):
                seen.append((event.offset, event.payload[0]))
            elif isinstance(event, RoomLeft):
                assert event.reason is LeaveReason.ROOM_CRASHED
                crashed += 1
            elif isinstance(event, Rejoined):
                assert event.recovered
            if crashed and {text for _, text in seen} >= {f"news {n}" for n in range(wanted)}:
                done.set()

    async def skim(room: subscription.JoinedRoom) -> None:
        async for _ in room:
            pass

    with structlog.testing.capture_logs() as lines:
        async with (
            a_broker(directory if kept else None, **UNLIMITED) as broker,
            open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", "dev:ann", rng=Quick()) as ann,  # type: ignore[arg-type]
            open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", "dev:max:host", rng=Quick()) as host,  # type: ignore[arg-type]
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(watch, await ann.join("lobby"))
            stage = await host.join("lobby")
            nursery.start_soon(skim, stage)
            with trio.fail_after(60):
                for number in range(wanted):
                    result = await stage.post(MessageType.ANNOUNCEMENT, (f"news {number}",), retry=True, timeout_s=30)
                    assert result.outcome is Outcome.ACCEPTED
                    published[f"news {number}"] = result.offset
                    if where == "tick" and number % 3 == 0:
                        await stage.post_danmaku(f"hello {number}")  # its result comes with a tick, or not at all
                await done.wait()
            nursery.cancel_scope.cancel()
            assert broker.stats().rooms_crashed == defect.failures > 0
            assert broker.stats().balanced
    assert len([line for line in lines if line["event"] == "room crashed"]) == defect.failures
    assert [offset for offset, _ in seen] == list(range(1, len(seen) + 1)), "each once, in order, none missing"
    for text, offset in published.items():
        assert (offset, text) in seen


async def test_a_crash_is_counted_and_logged_once_however_often_the_room_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Posting, "post", lambda *args: 1 / 0)
    with structlog.testing.capture_logs() as lines:
        async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, room):
            await ann.send_bytes(b"")
            for number in range(50):
                await ann.post(room, number, MessageType.DANMAKU, ("boom", None))
            assert (await ann.expect(Left))[1].reason is LeaveReason.ROOM_CRASHED
            assert broker.stats().rooms_crashed == 1
    assert [line["event"] for line in lines].count("room crashed") == 1


@pytest.mark.parametrize("broken", [("leave",), ("leave", "note", "accounts"), ("note", "tick"), ("last_checkpoint",)])
async def test_a_room_whose_whole_state_is_broken_harms_no_other(
    broken: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running_broker() as broker,
        joined_link(broker, "dev:ann", "bad") as (ann, bad),
        joined_link(broker, "dev:bob", "good") as (bob, good),
    ):
        room = broker.hub.room(bad)
        assert room is not None
        for name in (*broken, "post"):
            if name == "last_checkpoint":
                monkeypatch.setattr(RoomJournal, "last_checkpoint", lambda self, with_events: 1 / 0)
            else:
                monkeypatch.setattr(room.state, name, lambda *args, **kwargs: 1 / 0, raising=False)
        await ann.post(bad, 1, MessageType.DANMAKU, ("boom", None))
        assert (await ann.expect(Left))[1].reason is LeaveReason.ROOM_CRASHED
        again, _ = await ann.join("bad", sequence=2)
        assert again != bad
        await bob.post(good, 1, MessageType.DANMAKU, ("fine", None))
        assert (await bob.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED
        assert broker.stats().rooms_crashed == 1


async def test_a_handler_that_fails_once_in_a_thousand_calls_costs_one_link_each_time_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = requests.on_post
    defect = Sometimes(handle, 1000)
    failing = defect.bind()

    def on_post(session: SessionLink, frame: Frame) -> None:
        assert session.user_id is not None
        (failing if session.user_id.startswith("noisy") else handle)(session, frame)

    monkeypatch.setattr("broker.sessions.session.on_post", on_post)
    offset = ended = 0
    async with (
        running_broker(**UNLIMITED) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        while ended < 4:
            async with joined_link(broker, f"dev:noisy{ended}") as (noisy, _):
                while broker.context.closed[CloseCode.INTERNAL_ERROR] == ended:
                    await noisy.send(*((Post(MessageType.LIKE, "", (1,)), room, number) for number in range(100)))
                    offset += 1
                    await host.post(room, offset, MessageType.ANNOUNCEMENT, (f"news {offset}",))
                    assert (await host.expect(Ack))[1].results == ((offset, Outcome.ACCEPTED, offset),)
                ended += 1
        assert [(await ann.expect(Event))[0].sequence for _ in range(offset)] == list(range(1, offset + 1))
        assert broker.context.closed[CloseCode.INTERNAL_ERROR] == defect.failures == 4
        assert (broker.stats().rooms_crashed, broker.poller.crashes) == (0, 0)
        assert broker.stats().balanced


@pytest.mark.parametrize("where", ["on_overflow", "on_closed"])
async def test_a_link_that_fails_under_a_sweep_ends_alone(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``on_closed``: the sweep finds a socket broken; ``on_overflow``: it finds one that takes nothing more."""
    handle = getattr(Session, where)

    def fail(session: Session, *args: Any) -> None:
        if session.user_id == "bad":
            raise RuntimeError("a defect")
        handle(session, *args)

    monkeypatch.setattr(Session, where, fail)
    queue = {"frames": 2, "queue_bytes": 65536, "critical_bytes": 65536}
    small = {"send_buffer_bytes": 4096, "notsent_lowat_bytes": 1024, "frames_per_s": 0}
    async with (
        running_broker(link=small, queue=queue, room=UNLIMITED["room"]) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        joined_link(broker, "dev:bad") as (bad, _),
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        bad.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        if where == "on_closed":
            session = next(each for each in sessions_of(broker) if each.grant and each.grant.user_id == "bad")
            session.transport.sock.shutdown(socket.SHUT_RDWR)  # as a reset between two turns
        number = 0
        with trio.fail_after(60):
            while not broker.poller.crashes:
                number += 1
                await host.post(room, number, MessageType.ANNOUNCEMENT, ("很长的公告" * 80,))
                assert (await host.expect(Ack))[1].results == ((number, Outcome.ACCEPTED, number),)
                assert (await ann.expect(Event))[0].sequence == number
        assert (broker.poller.crashes, broker.stats().rooms_crashed) == (1, 0)
        await host.post(room, number + 1, MessageType.ANNOUNCEMENT, ("still there",))
        assert (await ann.expect(Event))[0].sequence == number + 1
