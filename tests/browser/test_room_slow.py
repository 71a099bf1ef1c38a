"""The live room on a slow network, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_room import Viewers, line, publish
from tests.support.paced_proxy import paced_proxy
from tests.support.pages import PageBroker, page_broker, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# Sockets and queues that fill at once.
SMALL = ("link.send_buffer_bytes=4096", "link.notsent_lowat_bytes=1024", "queue.frames=4", "room.policy=off")
ROUNDS, EACH = 40, 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PageBroker]:
    with page_broker(tmp_path / "data", *SMALL) as found:
        yield found


def test_a_viewer_on_a_slow_link_gets_key_messages_is_informed_and_recovers(browser: Any, broker: PageBroker) -> None:
    room, viewers = "slow", Viewers(browser)
    broker.call("rooms.open", room=room, title="Slow")
    with paced_proxy(broker.viewers) as proxy:
        page = viewers.open(broker, room, "ann", origin=f"http://127.0.0.1:{proxy.port}")
        publish(broker, room, 1, ["before", None])
        line(page, "before").wait_for()
        proxy.hold()
        for number in range(ROUNDS):
            items = [
                {"room": room, "type": 1, "payload": [f"{number}-{each} {'慢' * 60}", None], "as_user": f"u{each}"}
                for each in range(EACH)
            ]  # fmt: skip
            broker.call("messages.publish_many", items=items)
        publish(broker, room, 4, ["never lost"])
        missed = "roomcastPage.client.missedChat"
        assert page.evaluate(missed) == 0
        proxy.release()
        page.locator("#link.warn", has_text="Slow network").wait_for()
        page.locator("#chat .note", has_text="comments are left out; orders and gifts are complete").wait_for()
        line(page, "never lost").wait_for()
        assert 0 < page.evaluate(missed) <= ROUNDS * EACH
        page.locator("#account").click()
        wait_until(lambda: page.locator("#account-list dd").last.inner_text() == f"{page.evaluate(missed):,}")
        page.locator("#account-list[data-balanced=true]").wait_for()
        # It recovers: new chat arrives, and the chip is back when its ten seconds are over.

        def goes_on() -> bool:
            """Whether new chat arrives: one message may still be left out."""
            publish(broker, room, 1, ["and on it goes", None])
            return bool(line(page, "and on it goes").count())

        wait_until(goes_on)
        page.evaluate("const now = Date.now; Date.now = () => now() + 11_000")
        page.locator("#link.good", has_text="Connected").wait_for()
        assert page.evaluate("document.body.dataset.state") == "live"
        viewers.close()
