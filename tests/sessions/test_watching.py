"""Watching a room by Server-Sent Events: with an HTTP client and a browser's EventSource, refusals, bounds, resume."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
import trio

from broker.server import Broker
from protocol.codes import LeaveReason, MessageType, Role, RoomPhase, Tier
from protocol.messages import Ack
from tests.support.api import API, client_of, ok
from tests.support.broker import joined_link, running_broker, sessions_of
from tests.support.durable import durable_broker
from tests.support.until import until

pytestmark = pytest.mark.integration


class Watcher:
    """A stream of events as a client reads it: fields by event, as in the specification of EventSource."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.retry = 0
        self.last_id = ""
        self.headers: dict[str, str] = {}
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._text = b""

    async def open(self, path: str, headers: dict[str, str]) -> None:
        """Send the request and read the head of the answer."""
        request = h11.Request(method="GET", target=path, headers={"Host": "localhost", **headers}.items())  # type: ignore[arg-type]
        await self._stream.send_all(self._http.send(request) + self._http.send(h11.EndOfMessage()))
        response = await self._next_event()
        assert isinstance(response, h11.Response)
        assert response.status_code == 200
        self.headers = {name.decode(): value.decode() for name, value in response.headers}

    async def _next_event(self) -> Any:
        while (found := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._stream.receive_some())
        return found

    async def next(self) -> dict[str, Any]:
        """Return the JSON of the next event. EOFError at the end."""
        with trio.fail_after(20):
            while True:
                block, end, rest = self._text.partition(b"\n\n")
                if not end:
                    found = await self._next_event()
                    if not isinstance(found, h11.Data):
                        raise EOFError
                    self._text += found.data
                    continue
                self._text = rest
                fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
                self.retry = int(fields.get("retry", self.retry))
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    event: dict[str, Any] = json.loads(fields["data"])
                    return event

    async def expect(self, op: str) -> dict[str, Any]:
        """Return the next event that is a frame ``op``."""
        while (found := await self.next())["op"] != op:
            pass
        return found


@asynccontextmanager
async def watching(broker: Broker, path: str = "/watch/lobby", **headers: str) -> AsyncIterator[Watcher]:
    """A client that watches, as one does over plain HTTP."""
    async with await trio.open_tcp_stream(*broker.addresses[0]) as stream:
        watcher = Watcher(stream)
        await watcher.open(path, headers)
        yield watcher


async def get(broker: Broker, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.request(method, f"http://127.0.0.1:{broker.addresses[0][1]}{path}", headers=headers)


async def test_a_guest_sees_the_room_and_counts_in_it() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann:host") as (ann, number):
        async with watching(broker) as watcher:
            assert watcher.headers["content-type"] == "text/event-stream"
            assert watcher.headers["cache-control"] == "no-store"
            joined = await watcher.expect("JOIN")
            assert joined["body"]["room_name"] == "lobby"
            assert watcher.retry == 3000
            await ann.post(number, 1, MessageType.DANMAKU, ["你好"])
            tick = await watcher.expect("TICK")
            assert tick["body"]["entries"][0]["payload"] == ["你好"]
            before = watcher.last_id
            await ann.post(number, 2, MessageType.ANNOUNCEMENT, ["欢迎"])
            assert (await watcher.expect("EVENT"))["body"]["payload"] == ["欢迎"]
            assert watcher.last_id != before
            room = broker.hub.find("lobby")
            assert room is not None
            snapshot = room.state.snapshot("lobby", Role.HOST, Tier.FULL)
            assert (snapshot.online, snapshot.users) == (2, 1)
            assert broker.listener.detector.opened["watch"] == 1
        await until(lambda: len(broker.context.sessions) == 1)


async def test_what_was_missed_follows_and_the_position_of_another_is_none() -> None:
    async with running_broker() as broker, joined_link(broker, "dev:ann:host") as (ann, number):
        async with watching(broker) as watcher:
            await watcher.expect("JOIN")
            position = watcher.last_id
        for sequence, text in enumerate(("one", "two"), 1):
            await ann.post(number, sequence, MessageType.ANNOUNCEMENT, [text])
            await ann.expect(Ack)
        async with watching(broker, **{"Last-Event-ID": position}) as watcher:
            assert (await watcher.expect("RESUME"))["body"]["recovered"] is True
            assert watcher.last_id == position
            texts = [(await watcher.expect("EVENT"))["body"]["payload"] for _ in range(2)]
            assert texts == [["one"], ["two"]]
            newest = watcher.last_id
        async with watching(broker, "/watch/lobby?last_event_id=" + newest) as watcher:
            assert (await watcher.expect("RESUME"))["body"]["recovered"] is True
        epoch = position.split(":")[0]
        for forged in (f"{epoch}:0", f"{epoch}:0:{'0' * 20}", "x"):
            async with watching(broker, **{"Last-Event-ID": forged}) as watcher:
                assert (await watcher.expect("JOIN"))["body"]["offset"] == 2


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/watch/", {}, 400),
        ("GET", "/watch/a%20b", {}, 400),
        ("GET", "/watch/%ff", {}, 400),
        ("GET", "/watch/lobby?tier=best", {}, 400),
        ("GET", "/watch/lobby?tier=low&tier=low", {}, 400),
        ("GET", "/watch/lobby?token=x", {}, 400),
        ("GET", "/watch/lobby?guest=short", {}, 400),
        ("GET", "/watch/lobby?a&b&c&d", {}, 400),
        ("POST", "/watch/lobby", {}, 405),
        ("HEAD", "/watch/lobby", {}, 405),
        ("GET", "/watch/lobby", {"Origin": "https://evil.example"}, 403),
        ("GET", "/watch/lobby", {"X-Forwarded-For": "203.0.113.7"}, 403),
        ("GET", "/watch/lobby", {"Transfer-Encoding": "chunked"}, 400),
    ],
)
async def test_what_cannot_be_watched_has_a_status(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with running_broker() as broker:
        assert (await get(broker, path, method, **headers)).status_code == status
        assert len(broker.hub) == 0
        await until(lambda: not broker.context.sessions)


async def test_guests_watch_only_the_rooms_that_are_theirs() -> None:
    auth = {"secret": "x" * 32, "guest_access": ["open-*"]}
    link = {"allowed_origins": ["https://live.example.com"]}
    async with running_broker(auth=auth, link=link, room={"open_roles": ["guest"]}) as broker:
        origin = {"Origin": "https://live.example.com"}
        refused = await get(broker, "/watch/secret", **origin)
        assert refused.status_code == 403
        assert "auth.guest_access does not name it" in refused.text
        assert refused.headers["access-control-allow-origin"] == "https://live.example.com"
        assert (await get(broker, "/watch/open-1", Origin="https://other.example.com")).status_code == 403
        broker.hub.open("open-1")
        async with watching(broker, "/watch/open-1", **origin) as watcher:
            await watcher.expect("JOIN")
            assert watcher.headers["access-control-allow-origin"] == "https://live.example.com"
    async with running_broker(auth={"secret": "x" * 32}) as broker:
        refused = await get(broker, "/watch/lobby")
        assert (refused.status_code, "auth.guest_access names no room" in refused.text) == (403, True)


async def test_a_full_room_and_an_ended_one_are_refused() -> None:
    async with running_broker(room={"max_viewers": 1}) as broker:
        async with joined_link(broker, "dev:ann:host"):
            full = await get(broker, "/watch/lobby")
            assert (full.status_code, full.headers["retry-after"]) == (503, "5")
    async with running_broker() as broker, joined_link(broker, "dev:ann:host") as (ann, number):
        async with watching(broker) as watcher:
            await watcher.expect("JOIN")
            await ann.post(number, 1, MessageType.ROOM_PHASE, [RoomPhase.ENDED])
            assert (await watcher.expect("LEAVE"))["body"]["reason"] == LeaveReason.ROOM_ENDED
            assert (await watcher.expect("GOAWAY"))["op"] == "GOAWAY"
            with pytest.raises(EOFError):
                await watcher.next()
        assert (await get(broker, "/watch/lobby")).status_code == 410


async def test_the_same_key_is_the_same_guest() -> None:
    async with running_broker() as broker:
        path = "/watch/lobby?tier=low&guest=" + "k" * 22
        for _ in range(2):
            async with watching(broker, path) as watcher:
                joined = await watcher.expect("JOIN")
                assert (joined["body"]["tier"], joined["body"]["uniques"]) == (5, 1)


async def test_draining_says_when_to_come_back() -> None:
    async with running_broker(link={"drain_s": 2}) as broker, watching(broker) as watcher:
        await watcher.expect("JOIN")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.drain)
            goaway = await watcher.expect("GOAWAY")
        assert goaway["body"]["jitter_ms"] == 2000
        assert watcher.retry <= 2000


async def test_a_comment_keeps_a_silent_stream_open() -> None:
    async with running_broker() as broker:
        async with await trio.open_tcp_stream(*broker.addresses[0]) as stream:
            await stream.send_all(b"GET /watch/lobby HTTP/1.1\r\nHost: localhost\r\n\r\n")
            data = b""
            while b'"op":"STATE"' not in data:
                data += await stream.receive_some()
            (session,) = sessions_of(broker)
            session.on_deadline(broker.poller.now)
            with trio.fail_after(20):
                while not data.endswith(b"\n\n:\n\n"):
                    data += await stream.receive_some()
            assert session.is_open


async def test_the_client_that_a_proxy_names_is_the_watcher() -> None:
    auth = {"secret": "x" * 32, "guest_access": ["*"]}
    async with running_broker(auth=auth, listen={"trusted_proxies": ["127.0.0.1"]}) as broker:
        broker.hub.open("lobby")
        async with watching(broker, **{"X-Forwarded-For": "203.0.113.7"}) as watcher:
            await watcher.expect("JOIN")
            assert [each.address for each in sessions_of(broker)] == ["203.0.113.7"]


async def test_bytes_after_the_request_end_the_stream() -> None:
    async with running_broker() as broker:
        async with await trio.open_tcp_stream(*broker.addresses[0]) as stream:
            await stream.send_all(b"GET /watch/lobby HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with trio.fail_after(20):
                while await stream.receive_some():
                    pass
        await until(lambda: not sessions_of(broker))


async def test_a_watcher_that_does_not_read_misses_chat_and_is_counted() -> None:
    queue = {"frames": 4, "queue_bytes": 65536, "critical_bytes": 65536}
    async with running_broker(
        queue=queue, room={"policy": "off"}, link={"send_buffer_bytes": 16384, "frames_per_s": 0}
    ) as broker:
        async with joined_link(broker, "dev:ann:host") as (ann, number):
            async with await trio.open_tcp_stream(*broker.addresses[0]) as stream:
                await stream.send_all(b"GET /watch/lobby HTTP/1.1\r\nHost: localhost\r\n\r\n")
                sequence = 0

                async def flood() -> None:
                    nonlocal sequence
                    for _ in range(100):
                        sequence += 1
                        await ann.post(number, sequence, MessageType.DANMAKU, [f"{sequence} " + "x" * 90])

                async with trio.open_nursery() as nursery:

                    async def discard() -> None:
                        while await ann.next_frame():
                            pass

                    nursery.start_soon(discard)
                    with trio.fail_after(60):
                        while not (queues := [s.transport.queue for s in sessions_of(broker) if s.transport.queue]):
                            await flood()
                        for _ in range(20):
                            await flood()
                    assert queues[0].nbytes <= 65536 * 2
                    data = b""
                    with trio.fail_after(60):
                        while b'"op":"DIRECT"' not in data:
                            data = data[-100:] + await stream.receive_some(65536)
                    nursery.cancel_scope.cancel()
        assert broker.context.missed_chat > 0


async def test_a_watcher_sees_no_gap_and_nothing_that_is_for_others(directory: Path) -> None:
    message: dict[str, Any] = {"room": "lobby", "type": int(MessageType.ANNOUNCEMENT)}
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        await ok(http, "audiences.define", room="lobby", tags=[{"name": "fans"}])
        async with watching(broker) as watcher:
            await watcher.expect("JOIN")
            await ok(http, "messages.publish", **message, payload=["for fans"], audience={"any": ["fans"]})
            event = (await watcher.expect("EVENT"))["body"]
            assert (event["type"], event["payload"]) == (MessageType.NOT_ADDRESSED, [])
            newest = watcher.last_id
        await ok(http, "messages.publish", **message, payload=["for all"])
        await ok(http, "messages.publish", **message, payload=["for fans"], audience={"any": ["fans"]})
        async with watching(broker, "/watch/lobby?last_event_id=" + newest) as watcher:
            assert (await watcher.expect("RESUME"))["body"]["recovered"]
            assert (await watcher.expect("EVENT"))["body"]["payload"] == ["for all"]
            assert (await watcher.expect("EVENT"))["body"]["type"] == MessageType.NOT_ADDRESSED
