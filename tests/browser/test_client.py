"""The JavaScript client in a real browser: over WebSocket, binary and in JSON mode, under the policy of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.pages import PageBroker, errors_of, page_broker, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TALK = """async ({address, encoding, token}) => {
  const script = document.querySelector("link[rel=icon]").href.replace(/art\\/.*/, "client/roomcast.js");
  const { connect } = await import(script);
  const client = connect(address, { encoding, token });
  globalThis.client = client;
  const room = await client.join("lobby");
  const shown = new Promise((resolve) => room.on("tick", ({ entries }) => resolve(entries[0].payload.text)));
  const said = await room.say("主播好美");
  const refused = await room.post("announcement", { text: "no" });
  const failed = await client.call("rooms.get", { room: 5 }).catch((error) => error);
  room.like(3);
  return {
    state: client.state, user: client.user.user_id, outcome: said.outcome, text: await shown, refused: refused.error,
    field: failed.field, clock: Math.abs(client.serverNow() - Date.now()) < 60000,
  };
}"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageBroker]:
    with page_broker(tmp_path_factory.mktemp("client") / "data") as found:
        yield found


@pytest.mark.parametrize("encoding", ["binary", "json"])
def test_a_page_talks_over_websocket(browser: Any, broker: PageBroker, encoding: str) -> None:
    page = browser.new_page()
    errors = errors_of(page)
    page.goto(f"{broker.viewers}/room/lobby")
    address = broker.viewers.replace("http:", "ws:")
    found = page.evaluate(TALK, {"address": address, "encoding": encoding, "token": f"dev:{encoding}"})
    assert found == {
        "state": "open", "user": encoding, "outcome": "accepted", "text": "主播好美", "refused": "not_allowed",
        "field": "room", "clock": True,
    }  # fmt: skip
    assert errors == []
    page.close()


def test_a_page_whose_link_is_cut_comes_back_and_has_every_event_once(browser: Any, broker: PageBroker) -> None:
    page = browser.new_page()
    page.goto(f"{broker.viewers}/room/cut")
    address = broker.viewers.replace("http:", "ws:")
    broker.call("rooms.open", room="lobby", reopen=True)
    page.evaluate(TALK, {"address": address, "encoding": "binary", "token": "dev:cut"})
    page.evaluate("""() => {
      globalThis.seen = [];
      [...client.rooms.values()][0].on("event", (event) => seen.push(event.payload.text));
    }""")
    broker.call("messages.publish", "one", room="lobby", type=4, payload=["one"])
    wait_until(lambda: page.evaluate("seen.length") == 1)
    again = page.evaluate_handle("() => ({ joined: [...client.rooms.values()][0].once('joined') })")
    page.evaluate("client._link.end({ signal: 'lost', code: null, reason: 'test' })")
    broker.call("messages.publish", "two", room="lobby", type=4, payload=["two"])
    assert page.evaluate("async ({ joined }) => (await joined).recovered", again) is True
    wait_until(lambda: page.evaluate("seen.length") == 2)
    assert page.evaluate("seen") == ["one", "two"]
    page.close()
