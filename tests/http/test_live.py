"""Live statistics of a room as Server-Sent Events: one event a second, for those who may read the room, and bounded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from broker.http import live
from broker.http.overview import OverviewParts, OverviewTexts
from broker.server import Broker
from broker.telemetry.history import BY_LANE, LANES, NUMBERS, SecondHistory
from broker.telemetry.overview import quantile_ms
from protocol.codes import MessageType
from protocol.messages import Ack
from tests.support.api import API, client_of
from tests.support.broker import joined_link, running_broker
from tests.support.durable import durable_broker
from tests.support.until import until

pytestmark = pytest.mark.integration


class Events:
    """The events of an open stream, read off its socket: each event is in one chunk of the answer's body."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def line(self) -> str | None:
        """The next line, None at the end."""
        while b"\n" not in self._buffer:
            data = await self._stream.receive_some(65536)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode().rstrip("\r")

    async def next(self) -> tuple[str, Any] | None:
        """The next event with its name, None at the end."""
        name = "message"
        with trio.fail_after(20):
            while (line := await self.line()) not in (None, "0"):
                assert line is not None
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    return name, json.loads(value)
        return None

    async def rest(self) -> list[str]:
        """The names of all other events."""
        names = []
        while (found := await self.next()) is not None:
            names.append(found[0])
        return names


@asynccontextmanager
async def api(**overrides: Any) -> AsyncIterator[tuple[Broker, httpx.AsyncClient]]:
    """A broker with a control API, and a client for it."""
    async with (
        running_broker(api={**API, **overrides.pop("api", {})}, **overrides) as broker,
        client_of(broker) as client,
    ):
        yield broker, client


@asynccontextmanager
async def stream(broker: Broker, room: str, query: str = "", key: str = "") -> AsyncIterator[Events]:
    """Open a stream."""
    host, port = broker.api_urls[0].removeprefix("http://").split(":")
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    async with await trio.open_tcp_stream(host, int(port)) as tcp:
        await tcp.send_all(
            f"GET /stats{f'/{room}' if room else ''}{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}\r\n".encode()
        )
        events = Events(tcp)
        head = [line async for line in _head(events)]
        assert head[0] == "HTTP/1.1 200 "
        assert "content-type: text/event-stream; charset=utf-8" in head
        yield events


async def _head(events: Events) -> AsyncIterator[str]:
    while line := await events.line():
        yield line


async def event_of(events: Events) -> tuple[str, Any]:
    found = await events.next()
    assert found is not None
    return found


async def test_each_second_is_an_event_and_all_of_them_are_what_was_posted() -> None:
    async with (
        api() as (broker, _client),
        joined_link(broker, "dev:ann", "live-1") as (ann, room),
        stream(broker, "live-1") as events,
    ):
        name, first = await event_of(events)
        assert (name, first["room"], first["online"]) == ("message", "live-1", 1)
        for sequence in (1, 2):
            await ann.post(room, sequence, MessageType.DANMAKU, (f"text {sequence}", None))
            await ann.expect(Ack)
        shown = 0
        with trio.fail_after(20):
            while shown < 2:
                _, event = await event_of(events)
                series = event["series"]
                shown += sum(series["shown"])
                assert series["online"][-1] == 1
        assert (shown, event["lanes"]["chat"]["shown"]) == (2, 2)


async def test_a_stream_ends_with_its_room_and_begins_with_the_past() -> None:
    async with api() as (broker, _client), joined_link(broker, "dev:ann", "live-1"):
        room = broker.hub.find("live-1")
        assert room is not None
        past = room.state.counters.live
        await until(lambda: past.taken > past.since)
        async with stream(broker, "live-1", "?seconds=60") as events:
            _, first = await event_of(events)
            assert 1 <= len(first["series"]["online"]) <= 60
            await broker.call("rooms.close", room="live-1")
            names = await events.rest()
        assert names[-1] == "closed"


async def test_who_may_not_read_a_room_gets_no_stream(tmp_path: Path) -> None:
    path, good = tmp_path / "keys.toml", "rk_shop_" + "a" * 32
    digest = hashlib.sha256(good.encode()).hexdigest()
    path.write_text(f'[[key]]\nid = "shop"\nsha256 = "{digest}"\nscopes = ["rooms:read"]\nrooms = ["live-*"]\n')
    path.chmod(0o600)
    bearer = {"Authorization": f"Bearer {good}"}
    async with api(api={"key_file": str(path)}) as (broker, client):
        for room in ("live-1", "other"):
            broker.hub.open(room)

        async def status(room: str, **options: Any) -> tuple[int, str]:
            answer = await client.get(f"/stats/{room}", **options)
            return answer.status_code, answer.json()["code"]

        assert await status("live-1") == (401, "AUTH_FAILED")
        assert await status("other", headers=bearer) == (403, "ROOM_NOT_GRANTED")
        assert await status("live-9", headers=bearer) == (404, "UNKNOWN_ROOM")
        for wrong in ({"seconds": "0"}, {"seconds": "61"}, {"seconds": "x"}, {"since": "1"}):
            assert await status("live-1", headers=bearer, params=wrong) == (400, "BAD_FIELD")
        async with stream(broker, "live-1", key=good) as events:
            assert (await event_of(events))[0] == "message"


async def test_streams_have_a_bound_and_their_places_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS_OF_KEY", 1)
    async with api() as (broker, client), joined_link(broker, "dev:ann", "live-1"):
        async with stream(broker, "live-1") as events:
            await event_of(events)
            answer = await client.get("/stats/live-1")
            assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
            assert (await client.head("/stats/live-1")).status_code == 429
        for _ in range(200):  # the end of the stream is found out by its next write
            if (await client.head("/stats/live-1")).status_code == 200:
                break
            await trio.sleep(0.05)
        async with stream(broker, "live-1") as events:
            assert (await event_of(events))[0] == "message"


async def test_a_drain_ends_streams() -> None:
    async with api(link={"drain_s": 0.1}) as (broker, _client), joined_link(broker, "dev:ann", "live-1"):
        async with stream(broker, "live-1") as events:
            await event_of(events)
            broker.draining = True
            assert await events.rest() in ([], ["message"])


def test_a_text_is_made_once_for_all_readers() -> None:
    calls = []

    def stats(room: str, seconds: int) -> Any:
        calls.append((room, seconds))
        return (room,)

    second = 7
    parts = live.LiveParts(stats, lambda room: second, trio.Event, lambda: False)
    streams = live.LiveStreams(parts)
    streams.enter("shop")
    assert streams.text("a", 1) == streams.text("a", 1)
    assert len(calls) == 1
    second = 8
    assert streams.text("a", 1) is not None
    assert calls == [("a", 1), ("a", 1)]
    streams.leave("shop")
    assert len(streams) == 0


async def test_a_tenant_follows_its_own_room_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    keys = {name: f"rk_{name}_" + name[0] * 32 for name in ("acme", "none")}
    path.write_text(
        "".join(
            f'[[key]]\nid = "{name}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
            f'scopes = ["rooms:read"]\nrooms = ["live-*"]\n' + ('tenant = "acme"\n' if name == "acme" else "")
            for name, key in keys.items()
        )
    )
    path.chmod(0o600)
    secret = {"auth": {"secret": "x" * 32}, "tenants": [{"name": "acme"}]}
    async with api(api={"key_file": str(path)}, **secret) as (broker, client):
        broker.hub.open("acme\x1flive-1")
        async with stream(broker, "live-1", key=keys["acme"]) as events:
            for _ in range(2):
                _, found = await event_of(events)
                assert found["room"] == "live-1"
        answer = await client.get("/stats/live-1", headers={"Authorization": f"Bearer {keys['none']}"})
        assert answer.status_code == 404, "the default tenant has none"


# ---- the whole broker


async def test_the_overview_says_what_the_broker_does_each_second() -> None:
    async with api() as (broker, _client), joined_link(broker, "dev:ann", "live-1") as (ann, room):
        async with stream(broker, "") as events, stream(broker, "") as other:
            _, first = await event_of(events)
            while first["connections"] == 0:  # a second is shared by all, and may have begun before
                _, first = await event_of(events)
            assert (first["status"], first["overload_stage"], first["rooms"], first["connections"]) == ("ok", 0, 1, 1)
            assert first["messages_admitted_total"]["chat"] == 0
            assert first["memory_bytes"] > 1_000_000
            assert first["hooks"] is None
            for sequence in range(3):
                await ann.post(room, sequence + 1, MessageType.DANMAKU, (f"text {sequence}", None))
                await ann.expect(Ack)
            while True:
                _, event = await event_of(events)
                if event["messages_shown_total"]["chat"] == 3:
                    break
            [top] = event["top"]
            assert (top["room"], top["online"], top["admitted"]) == ("live-1", 1, 3)
            assert event["publish_ms"]["p99"] is None or event["publish_ms"]["p99"] > 0
            assert (await event_of(other))[1]["pid"] == event["pid"]


async def test_the_overview_is_for_keys_of_no_tenant_with_the_scope_admin(tmp_path: Path) -> None:
    path, text = tmp_path / "keys.toml", ""
    keys = {name: f"rk_{name}_" + "a" * 32 for name in ("reader", "tenant", "chief")}
    more = {
        "reader": 'scopes = ["rooms:read"]',
        "tenant": 'scopes = ["admin"]\ntenant = "acme"',
        "chief": 'scopes = ["admin"]',
    }
    for name, key in keys.items():
        text += f'[[key]]\nid = "{name}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n{more[name]}\n'
    path.write_text(text)
    path.chmod(0o600)
    async with api(api={"key_file": str(path)}, auth={"secret": "s" * 32}) as (_broker, client):
        for name, status in (("", 401), ("reader", 403), ("tenant", 403), ("chief", 200)):
            headers = {"Authorization": f"Bearer {keys[name]}"} if name else {}
            assert (await client.head("/stats", headers=headers)).status_code == status, name
        listed = (
            await client.post("/v1/broker/api_keys", json={}, headers={"Authorization": f"Bearer {keys['chief']}"})
        ).json()
        assert [(each["id"], each["tenant"], each["scopes"]) for each in listed["items"]] == [
            ("chief", "", ["admin"]), ("reader", "", ["rooms:read"]), ("tenant", "acme", ["admin"]),
        ]  # fmt: skip
        assert listed["required"]
        assert not any(
            part in json.dumps(listed)
            for part in ("sha256", "rk_", *(hashlib.sha256(key.encode()).hexdigest() for key in keys.values()))
        )


async def test_the_overview_begins_with_the_seconds_before(autojump_clock: MockClock) -> None:
    samples = 0

    async def sample() -> tuple[dict[str, Any], list[str]]:
        nonlocal samples
        samples += 1
        return numbers(samples), []

    parts = OverviewParts(sample, lambda rooms: {"at_ms": samples * 1000}, lambda: False)
    texts = OverviewTexts(parts, trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(texts.run)
        await trio.sleep(4.5)
        name, data = (await texts.past(3)).split(b"\n")[:2]
        nursery.cancel_scope.cancel()
    columns = json.loads(data.removeprefix(b"data: "))
    assert name == b"event: history"
    assert columns["at_ms"] == [3000, 4000, 5000]
    assert columns["messages_admitted_total.chat"] == [3, 4, 5]


def numbers(n: int) -> dict[str, Any]:
    """What a sample says where every number is ``n``."""
    tables = {name: {lane: n for lane in LANES} for name in BY_LANE}
    return dict.fromkeys(NUMBERS[1:], n) | tables | {"posts_refused_total": {"rate": n}, "publish_ms": {"p99": None}}


@pytest.mark.parametrize("most", [1, 3, 10])
def test_a_history_keeps_the_last_seconds_in_order(most: int) -> None:
    history = SecondHistory(most)
    for n in range(1, 8):
        history.add({"at_ms": n, **numbers(n)})
        wanted = list(range(1, n + 1))[-most:]
        found = history.columns(900)
        assert found["at_ms"] == found["connections"] == found["posts_refused_total.all"] == wanted
        assert found["publish_ms.p99"] == [None] * len(wanted)
        assert history.columns(2)["at_ms"] == wanted[-2:]


async def test_the_past_of_the_whole_broker_comes_first_where_it_is_asked_for() -> None:
    async with api() as (broker, client):
        async with stream(broker, "", "?seconds=900") as events:
            name, columns = await event_of(events)
            assert (name, len(columns["at_ms"]) > 0) == ("history", True)
            name, event = await event_of(events)
            assert (name, event["at_ms"] >= columns["at_ms"][-1]) == ("message", True)
            assert {each.partition(".")[0] for each in columns} <= event.keys()
        for wrong in ("0", "901", "x", "-1"):
            assert (await client.get(f"/stats?seconds={wrong}")).status_code == 400


async def test_all_activities_of_a_room_are_listed_with_one_call(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await broker.call("polls.create", room="live-1", id="colour", title="Which?", options=["red", "blue"])
        await broker.call("products.put", room="live-1", id="mug", version=1, title="Mug", price_cents=100, position=1)
        found = await broker.call("activities.list", room="live-1")
        assert {(view.kind, view.id) for view in found.items} >= {("polls", "colour")}
        assert found.more == 0


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    bounds = (0.001, 0.01, 0.1)
    assert quantile_ms(bounds, [98, 1, 1, 0], 0.5) == 1.0
    assert quantile_ms(bounds, [98, 1, 1, 0], 0.99) == 10.0
    assert quantile_ms(bounds, [0, 0, 0, 5], 0.5) == 100.0
    assert quantile_ms(bounds, [0, 0, 0, 0], 0.5) is None
