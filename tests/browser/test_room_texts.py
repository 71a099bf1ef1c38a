"""Markup in every text that the live room can get, by the tables of messages, events and views: it stays text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.http.page_files import FOLDER
from protocol.activities import ACTIVITY_EVENTS, VIEWS, Via
from tests.support.live_room import Viewers
from tests.support.pages import MARKUP, PageBroker, low_contrast, page_broker, wait_until

STAFF = {Via.HOST_COUNTER}
NOT_SHOWN = {"audiences.counted"}
"""Events for all that the page has no use for."""
OUTSIDE = {"cards", "conversations", "desk", "marketing", "presence", "rtc"}
"""Subjects of events that belong to no room."""


def marked(value: Any, key: str = "") -> Any:
    """Return a value in which each text is markup; ids stay, so that events meet their activity."""
    if hasattr(value, "_asdict"):
        return {name: marked(each, name) for name, each in value._asdict().items()}
    if hasattr(value, "name") and hasattr(value, "value"):
        return value.name.lower()
    if isinstance(value, dict):
        return {str(name): marked(each, str(name)) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [marked(each, key) for each in value]
    return MARKUP if isinstance(value, str) else value


def test_the_page_knows_every_event_that_members_get() -> None:
    files = [FOLDER / "js" / "room.js", *(FOLDER / "js" / "room").glob("*.js")]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    unknown = [
        row.name for row in ACTIVITY_EVENTS
        if row.via not in STAFF and row.subject not in OUTSIDE
        and f'"{row.name}"' not in source and not row.name.startswith("sales.claim_")
    ]  # fmt: skip
    # Conversations are of two users or a group, whatever room they are in: an application shows them, not this page.
    assert {name for name in unknown if not name.startswith("conversations.")} == NOT_SHOWN
    words = (FOLDER / "strings" / "room.js").read_text(encoding="utf-8")
    for row in ACTIVITY_EVENTS:
        if row.name.startswith("sales.claim_"):
            state = row.name.removeprefix("sales.claim_").replace("voided", "void")
            assert f'"claim.{state}"' in words, row.name


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PageBroker]:
    with page_broker(tmp_path / "data") as found:
        yield found


GIVE = """([messages, views]) => {
  const { client, view } = roomcastPage, [room] = client.rooms.values(), now = client.serverNow();
  view.joined({ ...room.snapshot, activities: views.map(([kind, id, data]) => ({ kind, id, data })),
    own_activities: views.filter((each) => each[3]).map(([kind, id, , data]) => ({ kind, id, data })) }, now);
  const sources = { room, client };
  for (const [target, name, event] of messages) sources[target]._emit(name, { atMs: now, ...event });
}"""


@pytest.mark.integration
@pytest.mark.slow
def test_markup_in_any_text_stays_text(browser: Any, broker: PageBroker) -> None:
    broker.call("rooms.open", room="texts", title=MARKUP)
    viewers = Viewers(browser)
    page = viewers.open(broker, "texts", "ann")
    views = [[row.kind, "x", marked(row.example), marked(row.own_example)] for row in VIEWS]
    by = {"userId": "eve", "name": MARKUP}
    entry = {**by, "payload": {"text": MARKUP}, "count": 2, "senders": [], "role": "viewer"}
    account = dict.fromkeys(("admitted", "shown", "merged", "sampled", "expired", "held"), 1)
    gift = {"user_id": "eve", "name": MARKUP, "gift_id": MARKUP, "order_id": "o", "total": 2, "added": 2}
    paid = {"user_id": "eve", "name": MARKUP, "text": MARKUP, "cents": 500, "tier": 6, "until_ms": 9e15}
    messages: list[Any] = [
        ["room", "tick", {"entries": [{**entry, "type": kind} for kind in ("danmaku", "emote")], "account": account}],
        *(["room", "event", {**by, "offset": 1, "type": kind, "payload": payload}] for kind, payload in (
            ("announcement", {"text": MARKUP}), ("gift", {**gift, "flags": 1, "price_cents": 1}), ("highlight", paid),
            ("pins_changed", {"pinned": [{"payload": {"text": MARKUP}}]}), ("custom", {"text": MARKUP}),
        )),
        ["room", "state", {"top_likers": [[MARKUP, 5]], "joins": [["eve", MARKUP]]}],
    ]  # fmt: skip
    for row in ACTIVITY_EVENTS:
        if row.via in STAFF:
            continue
        data = marked(row.example)
        fields = {"event": row.name, "id": "x", "data": data}
        if row.via is Via.EVENT:
            messages.append(["room", "event", {**by, "offset": 2, "type": "activity", "payload": fields}])
        elif row.via is Via.DIRECT:
            messages.append(["client", "direct", {"id": 1, "type": "activity", "payload": fields}])
        else:
            messages.append(["room", "counter", {"name": row.name, "id": "x", "data": data}])
    json.dumps(messages)
    # One after another, so that each is drawn before the next one replaces it.
    for number, message in enumerate(messages):
        page.evaluate(GIVE, [[message], views])
        page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        if number % 8 == 0:
            for tab in ("goods", "ranks", "mine"):
                page.locator(f"[data-tab={tab}]").click()
        assert page.errors == [], message
        assert page.title() != "broken", message
    assert page.locator("img[src=x], img[onerror], #chat b, .act b b").count() == 0
    page.locator("[data-tab=chat]").click()
    wait_until(lambda: page.locator("#chat li", has_text="onerror=document").count() > 3)
    for place in ("#pinned", "#highlights", ".act.poll", "#goods", "#mine", "#ranks"):
        page.locator(place, has_text="onerror=document").first.wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert low_contrast(page) == []
    viewers.close()
