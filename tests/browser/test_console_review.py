"""The console in a real Chromium: a long review queue, and two moderators at it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.pages import PageBroker, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def hold(broker: PageBroker, room: str, count: int) -> None:
    """Open a room whose first messages wait for a reviewer."""
    broker.call("rooms.open", room=room)
    broker.call("moderation.put_list", name="held-texts", words=["heldtext"], action="hold", category="ads")
    for number in range(count):
        text = [f"heldtext {number}", None]
        found = broker.call("messages.publish", room=room, type=1, payload=text, as_user=f"{room}-{number}")
        assert found["outcome"] == "held", found


def waiting(broker: PageBroker, room: str) -> list[str]:
    items = broker.call("moderation.queue", room=room, limit=100)["items"]
    return [item["payload"][0] for item in items]


def test_a_long_queue_is_shown_by_pages(broker: PageBroker, page: Any) -> None:
    hold(broker, "long", 130)
    page.goto(f"{broker.api}/console?lang=en#review/long")
    options = page.get_by_role("option")
    options.nth(99).wait_for()
    page.locator(".head .chip", has_text="100+").wait_for()
    page.get_by_role("button", name="Show 100 more").click()
    options.nth(129).wait_for()
    assert not page.get_by_role("button", name="Show 100 more").is_visible()
    options.filter(has_text="heldtext 129").click()
    page.keyboard.press("r")
    page.locator(".head .chip", has_text="129").wait_for()
    page.get_by_role("link", name="Keys").click()
    wait_until(
        lambda: [item["payload"][0] for item in rejected(broker, "long")] == ["heldtext 129"],
    )


def rejected(broker: PageBroker, room: str) -> Any:
    return broker.call("moderation.queue", room=room, state="rejected")["items"]


def test_an_arrow_at_the_end_goes_on_to_the_next_page(broker: PageBroker, page: Any) -> None:
    hold(broker, "arrows", 101)
    page.goto(f"{broker.api}/console?lang=en#review/arrows")
    options = page.get_by_role("option")
    options.nth(99).click()
    page.keyboard.press("j")
    options.nth(100).wait_for()


def test_who_was_quicker_is_said_and_nothing_is_decided_twice(broker: PageBroker, page: Any) -> None:
    hold(broker, "quick", 2)
    page.clock.install()
    page.goto(f"{broker.api}/console?lang=en#review/quick")
    page.get_by_role("option").nth(1).wait_for()
    page.clock.pause_at(4_102_444_800_000)
    page.keyboard.press("r")
    page.get_by_role("option").nth(1).wait_for(state="detached")
    first, _ = broker.call("moderation.queue", room="quick")["items"]
    broker.call("moderation.decide", room="quick", items=[first["id"]], verdict="approve")  # the other moderator
    page.clock.run_for(6000)
    page.locator(".toast").get_by_text("1 were decided by somebody else").wait_for()
    assert rejected(broker, "quick") == []
    assert waiting(broker, "quick") == ["heldtext 1"]


def test_a_message_that_another_moderator_has_open_is_not_decided_here(broker: PageBroker, page: Any) -> None:
    hold(broker, "open", 2)
    first, _ = broker.call("moderation.queue", room="open")["items"]
    broker.call("moderation.claim", room="open", items=[first["id"]], ttl_ms=600_000)
    page.goto(f"{broker.api}/console?lang=en#review/open")
    taken = page.get_by_role("option", name="heldtext 0")
    taken.get_by_text("has it").wait_for()
    assert page.get_by_role("option", selected=True).inner_text().startswith("heldtext 1")
    taken.click()
    page.keyboard.press("a")
    page.get_by_role("option").nth(1).wait_for()
    assert waiting(broker, "open") == ["heldtext 0", "heldtext 1"]
