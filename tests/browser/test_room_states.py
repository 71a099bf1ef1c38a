"""States of the live room in a real Chromium: what the page says in each, and that it can be read and used in each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.live_room import Viewers, line, now_ms, publish, say, wait_shown
from tests.support.pages import MARKUP, SIZES, PageBroker, bad_names, low_contrast, page_broker, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FOCUS = """() => {
  const shown = node => node.checkVisibility({ checkVisibilityCSS: true, checkOpacity: true });
  const nodes = [...document.querySelectorAll("a[href], button, input, select, textarea, [tabindex]")];
  const able = nodes.filter(node => shown(node) && !node.disabled && node.tabIndex >= 0);
  return [
    ...able.filter(node => node.tabIndex > 0).map(node => "out of order: " + node.outerHTML.slice(0, 80)),
    ...able.filter(node => {
      const { width, height } = node.getBoundingClientRect();
      return width < 20 || height < 20;
    }).filter(node => !node.matches(".skip, input")).map(node => "too small: " + node.outerHTML.slice(0, 80)),
    ...able.filter(node => node.closest("[aria-hidden=true]")).map(node => "hidden: " + node.outerHTML.slice(0, 80)),
  ];
}"""


BUSY_ONCE = """() => {
  const { client } = roomcastPage, join = client.join;
  client.join = () => {
    client.join = join;
    return Promise.reject(Object.assign(new Error("busy"), { error: "overloaded", retryAfterMs: 10 }));
  };
}"""


def check(page: Any) -> None:
    """Fail if the page cannot be read or used as it is now."""
    assert bad_names(page) == []
    assert low_contrast(page) == []
    assert page.evaluate(FOCUS) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageBroker]:
    with page_broker(tmp_path_factory.mktemp("states") / "data", "room.create_on_join=false") as found:
        found.call("moderation.put_list", name="contacts", words=["加我微信"], action="hold", category="ads")
        yield found


def veil(page: Any, text: str) -> None:
    page.locator("#veil", has_text=text).wait_for()
    check(page)


def test_a_room_that_is_not_open_is_said_to_be_so_and_can_be_tried_again(broker: PageBroker, viewers: Viewers) -> None:
    page = viewers.open(broker, "later", "ann", state="error")
    veil(page, "This room has not begun")
    assert page.locator("#acts").is_hidden()
    assert page.locator("#text").is_disabled()
    broker.call("rooms.open", room="later", title="Later")
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("heading", name="Later").wait_for()
    wait_until(lambda: page.evaluate("document.body.dataset.state") == "live")


def test_who_is_banned_or_removed_reads_it_and_cannot_come_back(broker: PageBroker, viewers: Viewers) -> None:
    broker.call("rooms.open", room="strict", title="Strict")
    ann, bob = (viewers.open(broker, "strict", user) for user in ("ann", "bob"))
    broker.call("moderation.ban", room="strict", user="ann", reason=MARKUP)
    veil(ann, "You are banned from this room")
    broker.call("users.kick", room="strict", user="bob", ban_s=600)
    bob.locator("#veil", has_text="this room").wait_for()
    again = viewers.open(broker, "strict", "ann", state="error")
    veil(again, "You are banned from this room")


def test_a_room_ends_and_opens_again(broker: PageBroker, viewers: Viewers) -> None:
    broker.call("rooms.open", room="twice", title="Twice")
    page = viewers.open(broker, "twice", "ann")
    say(page, "first evening")
    line(page, "first evening").locator(".fate", has_text="shown").wait_for()
    broker.call("rooms.close", room="twice")
    veil(page, "The show has ended")
    assert page.locator("#text").is_disabled()
    early = viewers.open(broker, "twice", "bob", state="ended")
    veil(early, "The show has ended")
    page.get_by_role("button", name="Try again").click()
    assert page.locator("#veil").is_visible()
    broker.call("rooms.open", room="twice")
    # The broker is too busy for it once: the page says so and asks again by itself.
    page.evaluate(BUSY_ONCE)
    page.get_by_role("button", name="Try again").click()
    busy = page.locator("#veil:has(#veil-try[hidden])", has_text="Too busy just now")
    busy.filter(has_text="The room is busy").wait_for()
    wait_until(lambda: page.evaluate("document.body.dataset.state") == "live")
    assert page.locator("#veil").is_hidden()
    say(page, "second evening")
    line(page, "second evening").locator(".fate", has_text="shown").wait_for()


def test_a_held_message_is_said_to_be_held_and_how_it_was_decided(broker: PageBroker, viewers: Viewers) -> None:
    broker.call("rooms.open", room="held", title="Held")
    ann, bob = (viewers.open(broker, "held", user) for user in ("ann", "bob"))
    for text, verdict, words in (
        ("one", "approve", "approved and shown"),
        ("two", "reject", "not approved: no adverts"),
    ):
        say(ann, f"{text} 加我微信")
        line(ann, text).locator(".fate", has_text="held for review").wait_for()
        assert bob.locator("#chat li", has_text=text).count() == 0
        [item] = broker.call("moderation.queue", room="held")["items"]
        broker.call("moderation.decide", room="held", items=[item["id"]], verdict=verdict, reason="no adverts")
        line(ann, text).locator(".fate", has_text=words).wait_for()
        check(ann)
    line(bob, "one").wait_for()
    assert bob.locator("#chat li", has_text="two").count() == 0


def test_what_is_deleted_leaves_the_list_the_picture_and_the_paid_messages(
    broker: PageBroker, viewers: Viewers
) -> None:
    broker.call("rooms.open", room="gone", title="Gone")
    page = viewers.open(broker, "gone", "ann", reduced_motion="no-preference")
    publish(broker, "gone", 1, ["stays", None], "bob")
    publish(broker, "gone", 1, ["an insult", None], "eve", "Eve")
    paid = {"order_id": "h-1", "user_id": "eve", "name": "Eve", "text": "paid insult", "cents": 5000}
    broker.call("messages.publish", room="gone", type=14, payload=paid)
    page.locator("#highlights", has_text="paid insult").wait_for()
    line(page, "an insult").wait_for()
    broker.call("messages.delete", room="gone", user="eve", after_ms=now_ms() - 60_000)
    page.locator("#highlights li").wait_for(state="detached")
    wait_until(lambda: page.locator("#chat li", has_text="insult").count() == 0)
    flying = "roomcastPage.stage.lanes.lanes.flat().filter(({ message }) => message.text.includes('insult')).length"
    assert page.evaluate(flying) == 0
    line(page, "stays").wait_for()


def test_a_mute_ends_and_a_shadow_mute_is_seen_by_nobody_but_its_user(broker: PageBroker, viewers: Viewers) -> None:
    broker.call("rooms.open", room="quiet", title="Quiet")
    ann, bob = (viewers.open(broker, "quiet", user) for user in ("ann", "bob"))
    broker.call("moderation.mute", room="quiet", user="ann", seconds=600, reason="flooding")
    ann.locator("#notice", has_text="Muted until").wait_for()
    assert ann.locator("#text").is_disabled()
    check(ann)
    broker.call("moderation.unmute", room="quiet", user="ann")
    ann.locator("#notice").wait_for(state="hidden")
    broker.call("moderation.mute", room="quiet", user="ann", seconds=600, shadow=True)
    say(ann, "shadow words")
    line(ann, "shadow words").locator(".fate", has_text="shown").wait_for()
    assert ann.locator("#notice").is_hidden()
    say(bob, "after it")
    line(ann, "after it").wait_for()
    assert bob.locator("#chat li", has_text="shadow words").count() == 0


MODES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"followers_s": 0}, "followers only"), ({"vip_only": True}, "members only"), ({"emote_only": True}, "emotes only"),
    ({"mute_all": True}, "everybody is muted"), ({"links": False}, "no links here"),
)  # fmt: skip


def test_a_mode_says_why_a_message_was_not_sent(broker: PageBroker, viewers: Viewers) -> None:
    for number, (modes, words) in enumerate(MODES):
        room = f"mode-{number}"
        broker.call("rooms.open", room=room, title="Modes")
        broker.call("moderation.set_modes", room=room, **modes)
        page = viewers.pages[0] if viewers.pages else viewers.open(broker, room, "ann")
        page.goto(f"{broker.viewers}/room/{room}?lang=en&user=ann")
        wait_shown(page, "live")
        say(page, "look at https://shop.example.com/x")
        line(page, "look at").locator(".fate.bad", has_text=f"not sent: {words}").wait_for()


def test_a_contest_of_two_rooms_is_counted_and_has_an_end(broker: PageBroker, viewers: Viewers) -> None:
    for room in ("left", "right"):
        broker.call("rooms.open", room=room, title=room.title())
    page = viewers.open(broker, "left", "ann")
    broker.call("pk.invite", room="left", id="pk", other_room="right", duration_ms=60_000)
    broker.call("pk.answer", room="right", id="pk", accepts=True)
    card = page.locator(".act.pk")
    card.locator("h2", has_text="PK with right").wait_for()
    gift = {"order_id": "pk-1", "user_id": "zoe", "name": "Zoe", "gift_id": "rose", "price_cents": 300, "count": 2}
    card.locator("p", has_text="0 : 0").wait_for()
    page.wait_for_timeout(3200)  # a contest begins three seconds after it was accepted
    broker.call("messages.publish", room="left", type=5, payload=gift)
    card.locator("p", has_text="600 : 0").wait_for()
    check(page)
    broker.call("pk.cancel", room="right", id="pk")
    card.locator("p", has_text="won").wait_for()


def test_an_activity_that_gets_more_time_shows_it(broker: PageBroker, viewers: Viewers) -> None:
    broker.call("rooms.open", room="longer", title="Longer")
    page = viewers.open(broker, "longer", "ann")
    end = now_ms() + 600_000
    broker.call("countdowns.start", room="longer", id="c", label="Doors", deadline_ms=end)
    page.locator(".act.countdown p", has_text="9:5").wait_for()
    broker.call("countdowns.move", room="longer", id="c", deadline_ms=end + 30_000, known_ms=end)
    page.locator(".act.countdown p", has_text="10:2").wait_for()
    assert page.locator(".act.countdown").count() == 1


def test_who_comes_late_reads_the_same_cards(broker: PageBroker, viewers: Viewers) -> None:
    """What is folded from events and what the answer to JOIN says are one."""
    room = "same"
    broker.call("rooms.open", room=room, title="Same")
    early = viewers.open(broker, room, "ann")
    broker.call("products.put", room=room, id="mug", version=1, title="Celadon mug", price_cents=5000, stock=40)
    broker.call("products.explain", room=room, id="mug")
    hour = 3_600_000
    end: dict[str, Any] = {"open_at_ms": now_ms() + 500, "close_at_ms": now_ms() + 2 * hour}
    broker.call("sales.create", room=room, id="s", sku="mug", stock=3, price_cents=1990, **end)
    packet = {"total_cents": 300, "count": 3, "open_at_ms": now_ms() + hour}
    broker.call("packets.create", f"{room}-p", room=room, id="p", order_id=f"{room}-p", **packet)
    end["open_at_ms"] = now_ms() + hour
    broker.call("lotteries.create", room=room, id="l", grades=[["mug", 1]], **end)
    broker.call("coupons.create", f"{room}-c", room=room, id="c", count=2, title="Ten off")
    broker.call("polls.create", room=room, id="v", title="Which glaze?", options=["celadon", "ink"], open_at_ms=0)
    broker.call("quizzes.create", room=room, id="q", title="Quiz night")
    question: dict[str, Any] = {"title": "One and one?", "options": ["2", "3"], "close_at_ms": now_ms() + 7_200_000}
    broker.call("quizzes.ask", room=room, id="q", number=1, answer_hash="0" * 64, **question)
    broker.call("countdowns.start", room=room, id="d", label="Doors", deadline_ms=now_ms() + 7_200_000)
    broker.call("mic.set_seats", room=room, seats=2)
    cards = early.locator(".act:visible")
    wait_until(lambda: cards.count() == 8 and "Claim" in early.locator(".act.sale").inner_text())
    late = viewers.open(broker, room, "bob")
    wait_until(lambda: late.locator(".act:visible").count() == 8)
    without_clocks = (
        "[...document.querySelectorAll('.act')].map((e) => e.innerText.replace(/\\d+(:\\d\\d)+/g, '')).join('|')"
    )
    # A card of which only its clock counts down may be between two seconds; all else is equal.
    wait_until(lambda: early.evaluate(without_clocks) == late.evaluate(without_clocks))
    check(late)


COVERED = """() => {
  const boxes = (selector) => [...document.querySelectorAll(selector)].map((node) => node.getBoundingClientRect());
  const others = boxes("#fly, .over-top .host, .over-top > .pill, .over-top .live, .tools, .acts .act");
  const lies = (a, b) => b.width && b.height && a.left < b.right - 1 && b.left < a.right - 1 &&
    a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const paid = boxes("#highlights li");
  return paid.some((a) => a.right > innerWidth || a.width < 80 || others.some((b) => lies(a, b)));
}"""


def test_a_paid_message_covers_no_danmaku_and_no_control(broker: PageBroker, viewers: Viewers) -> None:
    broker.call("rooms.open", room="paid", title="Paid messages beside the name of a long room")
    page = viewers.open(broker, "paid", "ann", reduced_motion="no-preference")
    for number in range(2):
        paid = {"order_id": f"p-{number}", "user_id": "zoe", "name": "Zoe", "cents": 5000, "text": "red one " * 9}
        broker.call("messages.publish", room="paid", type=14, payload=paid)
    for width, height in SIZES.values():
        page.set_viewport_size({"width": width, "height": height})
        wait_until(lambda: page.locator("#highlights li:visible").count() == 2)
        assert page.evaluate(COVERED) is False, width
