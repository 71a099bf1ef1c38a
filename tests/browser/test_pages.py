"""Real Chromium: the bench's report opens without an error, and a page's own WebSocket is a viewer like any other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from broker.server import Broker
from protocol.codes import MessageType
from protocol.messages import Event, State, Tick
from tests.support.broker import joined_link, running_broker
from tests.support.browser import dom
from tests.support.programs import needs
from tests.support.until import until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_report_of_a_run_opens_with_its_plots(tmp_path: Path) -> None:
    needs("chromium")
    report = tmp_path / "report.html"
    subprocess.run(
        [sys.executable, "-m", "bench", "run", "calm", "--smoke", "--viewers=20", "--seconds=1.5", "--html", report],
        cwd=ROOT, capture_output=True, timeout=100, check=True,
    )  # fmt: skip
    watch = "<script>addEventListener('error', e => document.title = 'broken: ' + e.message)</script>"
    report.write_text(watch + report.read_text(encoding="utf-8"), encoding="utf-8")
    seen = dom(report.as_uri(), tmp_path / "profile")
    assert "<title>roomcast bench</title>" in seen
    assert seen.count("<svg") >= 5
    assert "equations hold" in seen


PAGE = """<!doctype html><title>waiting</title><body><img src="http://127.0.0.1:HOLD/"><script>
// The image keeps the page loading, and Chromium from printing it, until the test has heard the danmaku.
const link = new WebSocket("ws://127.0.0.1:PORT/", ["roomcast.json.v1"]);
const say = (...frames) => link.send(JSON.stringify(frames));
link.onopen = () => say({op: "HELLO", body: {magic: "roomcast", version_min: 1, version_max: 1}},
                        {op: "AUTH", body: {token: "dev:chromium"}}, {op: "JOIN", seq: 1, body: {room_name: "lobby"}});
link.onmessage = event => {
  const frame = JSON.parse(event.data);
  if (frame.op === "JOIN") say({op: "POST", room: frame.room, seq: 2, body: [1, "m", ["来自浏览器"]]});
  if (frame.op === "TICK") for (const entry of frame.body.entries) document.body.append(entry.payload[0]);
  if (frame.op === "ACK") document.title = "outcome " + frame.body.results[0].outcome;
};
</script>"""


WATCHING = """<!doctype html><title>waiting</title><body><img src="http://127.0.0.1:HOLD/"><script>
const source = new EventSource("http://127.0.0.1:PORT/watch/lobby");
source.onmessage = event => {
  const frame = JSON.parse(event.data);
  if (frame.op === "JOIN") document.title = "joined " + frame.body.room_name;
  if (frame.op === "EVENT") document.body.append(frame.body.payload[0] + " at " + event.lastEventId.split(":")[1]);
};
</script>"""


@asynccontextmanager
async def served(html: str, broker: Broker) -> AsyncIterator[tuple[str, trio.Event]]:
    """Serve a page for a broker; give its address, and an event: until it is set, the page's image keeps it loading."""
    is_done = trio.Event()

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            if (await stream.receive_some(4096)).startswith(b"GET /page"):
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n\r\n"
                await stream.send_all(head + page.encode())
                return
            await is_done.wait()
            await stream.send_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        page = html.replace("PORT", str(broker.addresses[0][1])).replace("HOLD", str(port))
        yield f"http://127.0.0.1:{port}/page", is_done
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_page_watches_a_room_as_events(tmp_path: Path) -> None:
    needs("chromium")
    async with running_broker() as broker, joined_link(broker, "dev:ann:host") as (ann, number):
        async with served(WATCHING, broker) as (url, has_posted), trio.open_nursery() as nursery:

            async def look() -> None:
                seen = await trio.to_thread.run_sync(dom, url, tmp_path / "profile")
                assert "<title>joined lobby</title>" in seen
                assert "欢迎 at 1" in seen.split("</script>")[1]
                nursery.cancel_scope.cancel()

            nursery.start_soon(look)
            await until(lambda: broker.listener.detector.opened["watch"] == 1)
            await ann.post(number, 1, MessageType.ANNOUNCEMENT, ["欢迎"])
            await ann.expect(Event)
            online = 0
            while online < 2:  # numbers come once a second: the page has its own copy by then
                _, state = await ann.expect(State)
                online = state.online
            assert online == 2
            has_posted.set()


@pytest.mark.slow
async def test_a_page_joins_and_talks_over_its_own_websocket(tmp_path: Path) -> None:
    needs("chromium")
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, _):
        async with served(PAGE, broker) as (url, heard_it), trio.open_nursery() as nursery:

            async def look() -> None:
                seen = await trio.to_thread.run_sync(dom, url, tmp_path / "profile")
                assert "<title>outcome 0</title>" in seen
                assert "来自浏览器" in seen.split("</script>")[1]
                nursery.cancel_scope.cancel()

            nursery.start_soon(look)
            heard: list[str] = []
            while "来自浏览器" not in heard:
                _, tick = await ann.expect(Tick)
                heard += [entry.payload[0] for entry in tick.entries]
            _, state = await ann.expect(State)  # a second later: the page has its own copy by then
            assert state.online >= 1
            heard_it.set()
