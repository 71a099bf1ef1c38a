"""The end of a broker: no connection is accepted, every client learns when to return, and nothing can hang it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio

from broker.ledger import Reader, database_path
from broker.server import Broker
from broker.sessions.session import Session
from protocol.codes import CloseCode, MessageType, Outcome
from protocol.messages import Ack, Event, GoAway
from tests.support.broker import joined_link, raw_link, running_broker
from tests.support.durable import announce, disk, durable_broker
from tests.support.faulty_disk import disk_error

pytestmark = pytest.mark.integration


async def ask(broker: Broker, path: str) -> tuple[int, bytes]:
    """GET ``path`` on the viewers' port: status and body."""
    async with await trio.open_tcp_stream(*broker.addresses[0]) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = b""
        with trio.fail_after(20):
            while data := await stream.receive_some():
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@asynccontextmanager
async def draining(broker: Broker) -> AsyncIterator[None]:
    """The block runs while the broker drains; it must have ended soon after."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.drain)
        await trio.testing.wait_all_tasks_blocked()
        assert broker.draining
        yield
        with trio.fail_after(20):
            await broker.stopped.wait()


async def test_new_connections_and_health_checks_learn_that_the_broker_leaves() -> None:
    async with running_broker(link={"drain_s": 20}) as broker, raw_link(broker) as stays:
        await stays.send_bytes(b"\0")
        while not broker.connection_limits.held:  # noqa: ASYNC110 - the gate has no event
            await trio.sleep(0.001)
        assert (await ask(broker, "/healthz"))[0] == 200
        async with draining(broker):
            status, body = await ask(broker, "/healthz")
            assert (status, json.loads(body)["status"]) == (503, "draining")
            async with raw_link(broker) as late:
                await late.send_bytes(b"\0")
                goaway = await late.expect_close()
                assert goaway.code == CloseCode.GOING_AWAY
                assert (goaway.retry_after_ms, goaway.jitter_ms) == (10_000, 10_000)
            assert broker.connection_limits.refused[CloseCode.GOING_AWAY] == 2
            await stays.stream.aclose()


async def test_a_viewer_that_is_behind_gets_what_waits_for_it_and_then_the_goodbye(directory: Path) -> None:
    small = {"send_buffer_bytes": 4096, "notsent_lowat_bytes": 1024, "drain_s": 20, "frames_per_s": 0}
    queue = {"frames": 4096, "critical_bytes": 16 * 1024 * 1024}
    async with (
        durable_broker(directory, link=small, queue=queue, room={"admit_per_window": 10_000}) as broker,
        joined_link(broker, "dev:max:host") as (host, room),
        raw_link(broker) as slow,
    ):
        slow.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await slow.login("dev:slow")
        await slow.join()
        sent = 0
        while not broker.poller.backlogged:
            sent += 1
            await host.post(room, sent, MessageType.ANNOUNCEMENT, (f"news {sent} " + "很长的公告" * 80,))
            assert (await host.expect(Ack))[1].results[0].outcome is Outcome.ACCEPTED
        async with draining(broker):
            assert (await host.expect_close()).code == CloseCode.GOING_AWAY
            await host.stream.aclose()
            seen = []
            while (frame := await slow.next_frame()) is not None:
                if isinstance(frame.message, Event):
                    seen.append(frame.sequence)
                last = frame.message
            assert seen == list(range(1, sent + 1))
            assert isinstance(last, GoAway)
            assert last.code == CloseCode.GOING_AWAY
            await slow.stream.aclose()


async def test_a_disk_that_hangs_cannot_keep_a_broker_from_ending(directory: Path) -> None:
    released = threading.Event()
    began = threading.Event()

    def hang(reader: Reader) -> None:
        began.set()
        released.wait(60)

    try:
        with structlog.testing.capture_logs() as lines:
            async with (
                durable_broker(directory, link={"drain_limit_s": 1}) as broker,
                joined_link(broker, "dev:max:host") as (host, room),
                trio.open_nursery() as nursery,
            ):
                assert broker.ledger is not None
                await announce(host, room, 1)
                disk(broker).stuck = released
                nursery.start_soon(broker.ledger.ask, hang)
                await trio.to_thread.run_sync(began.wait)
                await host.post(room, 2, MessageType.ANNOUNCEMENT, ("never acknowledged",))
                async with draining(broker):
                    with pytest.raises(AssertionError, match="GoAway"):
                        await host.expect(Ack)
                nursery.cancel_scope.cancel()
        (drained,) = [line for line in lines if line["event"] == "drained"]
        assert drained["ledger_late"] is True
        assert drained["ledger_waiting"] >= 1
    finally:
        released.set()
    for thread in threading.enumerate():
        if thread.name == "ledger":
            thread.join(20)
            assert not thread.is_alive(), "it ends when the disk answers at last"
    reader = Reader(database_path(directory))
    assert len([entry for entry, *_ in reader.entries() if entry.offset]) == 2, "what waited was written after all"
    reader.close()


async def test_a_room_that_fails_at_the_end_does_not_keep_the_others_from_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        running_broker(link={"drain_s": 1}) as broker,
        joined_link(broker, "dev:ann", "bad") as (ann, bad),
        joined_link(broker, "dev:bob", "good") as (bob, _),
    ):
        room = broker.hub.room(bad)
        assert room is not None
        monkeypatch.setattr(room, "flush", lambda: 1 / 0)
        async with draining(broker):
            for link in (ann, bob):
                assert (await link.expect_close()).code == CloseCode.GOING_AWAY
                await link.stream.aclose()
        assert broker.hub.crashed == 1


async def test_a_link_that_fails_at_the_end_does_not_keep_the_others_from_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    close = Session.close

    def fail(session: Session, *args: Any) -> None:
        if session.user_id == "ann":
            raise RuntimeError("a defect")
        close(session, *args)

    monkeypatch.setattr(Session, "close", fail)
    async with (
        running_broker(link={"drain_s": 1}) as broker,
        joined_link(broker, "dev:ann") as (ann, _),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        async with draining(broker):
            assert (await bob.expect_close()).code == CloseCode.GOING_AWAY
            await bob.stream.aclose()
            while await ann.next_frame() is not None:
                pass
        assert broker.poller.crashes == 1


async def test_a_full_disk_does_not_keep_a_broker_from_ending(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        await announce(host, room, 1)
        disk(broker).fault = disk_error("SQLITE_FULL")
        assert (await announce(host, room, 2)).outcome is Outcome.UNAVAILABLE
        async with draining(broker):
            assert (await host.expect_close()).code == CloseCode.GOING_AWAY
            await host.stream.aclose()
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host") as (host, room):
        assert await announce(host, room, 3) == (3, Outcome.ACCEPTED, 2)
