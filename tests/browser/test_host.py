"""The host desk in a real Chromium: a whole show, what went wrong, hostile texts, three sizes."""

from __future__ import annotations

import json
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import (
    MARKUP,
    SIZES,
    PageBroker,
    bad_names,
    low_contrast,
    open_page,
    page_broker,
    wait_until,
)
from tests.support.processes import free_port
from tests.support.programs import needs

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def shop(broker: PageBroker, room: str) -> None:
    broker.call("rooms.open", room=room, title=f"Evening {MARKUP}")
    for number, title in enumerate(("Celadon mug", MARKUP, "Ink bowl"), 1):
        broker.call(
            "products.put", room=room, id=f"mug-{number}", version=1, title=title, price_cents=1000 * number,
            position=number, stock=40, image="https://elsewhere.example/mug.png" if number == 2 else None,
        )  # fmt: skip


def launch(page: Any, tile: str, **fields: str) -> None:
    page.locator(".tool").get_by_text(tile, exact=True).click()
    sheet = page.get_by_role("dialog")
    for name, value in fields.items():
        sheet.locator(f"[name={name}]").fill(value)
    sheet.get_by_role("button", name="Start").click()
    wait_until(lambda: not sheet.is_visible() or sheet.get_by_role("alert").is_visible())
    assert not sheet.is_visible(), sheet.get_by_role("alert").inner_text()


def activity(broker: PageBroker, room: str, kind: str) -> Any:
    found = [item["data"] for item in broker.call("activities.list", room=room)["items"] if item["kind"] == kind]
    return found[0] if found else None


def test_a_whole_show(broker: PageBroker, page: Any) -> None:
    room = "desk-show"
    shop(broker, room)
    page.goto(f"{broker.viewers}/host/{room}?lang=en")
    page.get_by_role("heading", name=f"Evening {MARKUP}").wait_for()
    # Explaining, by button and by key, and back.
    page.get_by_role("button", name="Explain next").click()
    wait_until(lambda: activity(broker, room, "products")["explaining"]["product"] == "mug-1")
    page.locator(".now h2", has_text="Celadon mug").wait_for()
    page.keyboard.press("n")
    wait_until(lambda: activity(broker, room, "products")["explaining"]["product"] == "mug-2")
    page.locator(".toast", has_text=f"Now explaining: {MARKUP}").get_by_role("button", name="Undo").click()
    wait_until(lambda: activity(broker, room, "products")["explaining"]["product"] == "mug-1")
    # Everything that is launched, runs.
    launch(page, "Announce", text=MARKUP)
    launch(page, "Pin", text="Free shipping")
    launch(page, "Flash sale", price="19.9", stock="30", soon_s="0")
    launch(page, "Packet", total="66.60", shares="6", title=MARKUP)
    launch(page, "Poll", title=MARKUP, options=f"red | {MARKUP[:40]}")
    launch(page, "Lucky bag", prize="mug", winners="2")
    launch(page, "Mic seats", seats="2")
    launch(page, "Quiz", title="Which?", options="a | b", right="2", seconds="5")
    sale = activity(broker, room, "sales")
    assert (sale["stock"], sale["price_cents"]) == (30, 1990)
    assert activity(broker, room, "packets")["total_cents"] == 6660
    assert activity(broker, room, "polls")["terms"]["options"] == ["red", MARKUP[:40]]
    assert [pin["payload"] for pin in broker.call("rooms.get", room=room)["pinned"]] == [["Free shipping"]]
    for kind in ("lotteries", "packets", "polls", "quizzes", "sales"):
        page.locator(f".running li[data-kind={kind}]").wait_for()
    page.get_by_text("free", exact=True).first.wait_for()
    # What asks once, asks once; the right answer is the one that was fixed.
    poll = page.locator(".running li[data-kind=polls]")
    poll.get_by_role("button", name="Stop").click()
    poll.get_by_text("Nobody can take part any more.").wait_for()
    poll.get_by_role("button", name="Stop").click()
    wait_until(lambda: activity(broker, room, "polls")["state"] == "closed")
    page.get_by_role("button", name="Reveal").click()
    wait_until(lambda: activity(broker, room, "quizzes")["question"]["state"] == "revealed")
    assert activity(broker, room, "quizzes")["question"]["answer"]["option"] == 1
    # Modes and phases.
    page.get_by_label("Slow, 5 s").check()
    wait_until(lambda: broker.call("moderation.get_modes", room=room)["slow_s"] == 5)
    page.get_by_label("No links").check()
    wait_until(lambda: broker.call("moderation.get_modes", room=room)["links"] is False)
    page.get_by_role("button", name="Pause").click()
    page.get_by_text('Viewers see "the host is away').wait_for()
    page.get_by_role("button", name="Resume").click()
    wait_until(lambda: broker.call("rooms.get", room=room)["phase"] == "live")
    # The end needs a second: a tap is not enough.
    page.get_by_role("button", name="End").click()
    page.wait_for_timeout(300)
    assert broker.call("rooms.get", room=room)["phase"] == "live"
    page.locator("#end").hover()
    page.mouse.down()
    page.get_by_text("The show has ended").wait_for()
    page.mouse.up()
    page.get_by_role("button", name="Go live").click()
    page.get_by_role("dialog").get_by_role("button", name="Go live").click()
    wait_until(lambda: broker.call("rooms.get", room=room)["phase"] == "live")


def test_what_viewers_ask_most_is_counted_and_answered(broker: PageBroker, page: Any) -> None:
    shop(broker, "desk-asks")
    page.goto(f"{broker.viewers}/host/desk-asks?lang=en")
    page.get_by_role("button", name="Explain next").wait_for()
    for user in range(4):
        broker.call("messages.publish", room="desk-asks", type=1, payload=["does it leak?", None], as_user=f"u{user}")
    broker.call("messages.publish", room="desk-asks", type=1, payload=[f"why {MARKUP}?", None], as_user="eve")
    broker.call("messages.publish", room="desk-asks", type=1, payload=["nice", None], as_user="ann")
    page.locator(".asks li", has_text="does it leak?").get_by_text("\u00d74").wait_for()
    page.locator(".asks li", has_text=f"why {MARKUP}?").wait_for()
    assert page.locator(".asks li").count() == 2
    page.get_by_role("button", name="Answered does it leak?").click()
    page.locator(".asks li.done").wait_for()


def test_what_costs_money_is_offered_to_who_can_start_it(broker: PageBroker, page: Any) -> None:
    shop(broker, "desk-paid")
    page.goto(f"{broker.viewers}/host/desk-paid?lang=en#t=dev:ann:host")
    page.get_by_role("button", name="Explain next").wait_for()
    assert "dev:ann" not in page.url
    page.get_by_text("so your platform starts them").wait_for()
    for name in ("Packet", "Rain", "Coupons"):
        assert not page.get_by_role("button", name=name, exact=True).is_visible()
    order: dict[str, Any] = {
        "order_id": "desk-p-1",
        "total_cents": 300,
        "count": 3,
        "open_at_ms": int(time.time() * 1000),
    }
    broker.call("packets.create", "desk-p-1", room="desk-paid", id="p", **order)
    packet = page.locator(".running li[data-kind=packets]")
    packet.wait_for()
    assert packet.get_by_role("button").count() == 0
    page.get_by_role("button", name="Poll", exact=True).click()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "tool"


def test_where_the_platform_answers_a_host_asks_it(browser: Any, tmp_path: Path) -> None:
    config = tmp_path / "roomcast.toml"
    (tmp_path / "hook.key").write_text("whsec_" + "a" * 43 + "=\n")
    (tmp_path / "hook.key").chmod(0o600)
    config.write_text(
        '[[webhooks.endpoints]]\nname = "shop"\nurl = "http://127.0.0.1:9/hook"\nevents = []\n'
        f'secret_file = "{tmp_path / "hook.key"}"\n[webhooks.questions.app]\nendpoint = "shop"\n'
    )
    with page_broker(tmp_path / "data", config=config) as broker:
        shop(broker, "desk-paid")
        page = open_page(browser)
        page.goto(f"{broker.viewers}/host/desk-paid?lang=en#t=dev:ann:host")
        page.get_by_role("button", name="Packet", exact=True).click()
        page.get_by_role("dialog").get_by_text("the platform pays and starts it").wait_for()
        page.get_by_role("dialog").get_by_role("button", name="Start").click()
        page.get_by_role("dialog").get_by_role("alert").wait_for()
        assert activity(broker, "desk-paid", "packets") is None
        page.context.close()


def countdowns(broker: PageBroker, room: str) -> list[str]:
    return [item["id"] for item in broker.call("activities.list", room=room)["items"] if item["kind"] == "countdowns"]


def test_two_desks_say_what_the_other_does(broker: PageBroker, browser: Any) -> None:
    room = "desk-both"
    shop(broker, room)
    pages = []
    for host in ("ann", "bob"):
        page = open_page(browser)
        page.goto(f"{broker.viewers}/host/{room}?lang=en#t=dev:{host}:host")
        page.get_by_role("button", name="Explain next").wait_for()
        page.get_by_text("Celadon mug").first.wait_for()
        pages.append(page)
    ann, bob = pages
    ann.get_by_role("button", name="Explain Ink bowl").click()
    bob.locator(".toast", has_text="At another desk: Now explaining: Ink bowl").wait_for()
    bob.locator(".now h2", has_text="Ink bowl").wait_for()
    bob.get_by_role("button", name="Pause").click()
    ann.locator(".toast", has_text="At another desk: Paused").wait_for()
    assert not bob.locator(".toast", has_text="At another desk: Paused").is_visible()
    bob.get_by_role("button", name="Resume").click()
    launch(ann, "Countdown", label="Doors", minutes="5")
    before = activity(broker, room, "countdowns")["deadline_ms"]
    bob.get_by_role("button", name="+30 s").click()
    wait_until(lambda: activity(broker, room, "countdowns")["deadline_ms"] == before + 30_000)
    [new] = countdowns(broker, room)
    for page in pages:
        page.locator(".running li", has_text="Doors").get_by_text("5:").first.wait_for()
    # An activity that the other desk has stopped is not asked for again: the row of both says that it is over.
    for page in pages:
        page.locator(f".running li[data-id={new}]").get_by_role("button", name="Stop").click()
    ann.locator(f".running li[data-id={new}] .ask").get_by_role("button", name="Stop").click()
    bob.locator(".running li", has_text="Doors").wait_for(state="detached")
    for page in pages:
        page.context.close()


def test_a_viewer_is_told_that_this_is_not_its_desk(broker: PageBroker, page: Any) -> None:
    shop(broker, "desk-rights")
    page.goto(f"{broker.viewers}/host/desk-rights?lang=en#t=dev:ann:viewer")
    page.get_by_text("the desk needs a host or an assistant").wait_for()
    assert page.locator(".tool:not([disabled])").count() == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("theme", "language"), [("dark", "zh"), ("light", "en")])
def test_the_desk_is_readable_and_named_at_every_size(
    broker: PageBroker, browser: Any, size: str, theme: str, language: str
) -> None:
    shop(broker, "desk-looks")
    page = open_page(browser, SIZES[size])
    page.goto(f"{broker.viewers}/host/desk-looks?lang={language}&theme={theme}")
    page.locator("#order li").nth(2).wait_for()
    for pane in ("order", "launch", "asks") if size == "phone" else ("",):
        if pane:
            page.locator(f"[data-tab={pane}]").click()
        assert bad_names(page) == []
        assert low_contrast(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.errors == []
    page.context.close()


def test_the_fold_of_questions_and_activities() -> None:
    done = subprocess.run(
        [needs("node"), Path(__file__).with_name("host_view.mjs")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert out["top"] == [["能微波吗？", 10], ["how big is it", 1]]
    assert out["later"] == ["how big is it"]
    assert out["bound"] == 3
    assert out["series"] == [60, 99, 12]
    assert out["running"] == [["lotteries", False, None], ["polls", False, None], ["sales", True, 0.25]]
    assert out["shelf"] == [["bca", "b"], ["bca", "a"], ["bca", "b"]]
    assert out["results"] == [[["packets", "p", False, 0]], *[[["packets", "p", True, 2]]] * 2, []]
    assert out["left"] == 51


def test_the_desk_comes_back_after_its_link_was_cut(broker: PageBroker, page: Any) -> None:
    shop(broker, "desk-cut")
    page.goto(f"{broker.viewers}/host/desk-cut?lang=en")
    page.get_by_role("button", name="Explain next").wait_for()
    broker.call("users.disconnect", user="host", reason="test", reconnect=True)
    time.sleep(0.2)
    page.get_by_role("button", name="Explain next").click(timeout=30_000)
    wait_until(lambda: activity(broker, "desk-cut", "products")["explaining"]["product"] == "mug-1")


OLD_ROOM = """() => {
  const { client } = roomcastDesk, call = client.call.bind(client);
  window.seen = [];
  const [, , review] = document.querySelectorAll(".modes input");
  client.call = async (operation, ...more) => {
    const answer = await call(operation, ...more);
    if (operation === "rooms.set_rules") {
      roomcastDesk._later("modes", 0);
      await new Promise((after) => setTimeout(after, 50));
    }
    if (operation.endsWith(".get_modes")) setTimeout(() => window.seen.push(review.checked), 0);
    return answer;
  };
}"""


def test_a_mode_that_was_set_is_shown_whatever_is_read_meanwhile(broker: PageBroker, page: Any) -> None:
    """The rules of the room and its modes are two reads: the answer of one does not turn back what the other says."""
    room = "desk-modes"
    shop(broker, room)

    def is_in_force(pre_review: bool) -> bool:
        return bool(broker.call("rooms.get", room=room)["rules"]["pre_review"] is pre_review)

    page.goto(f"{broker.viewers}/host/{room}?lang=en")
    page.get_by_role("button", name="Explain next").wait_for()
    wait_until(lambda: page.evaluate("roomcastDesk.modes !== null && roomcastDesk._timers.size === 0"))
    page.evaluate(OLD_ROOM)
    for is_on in (True, False):
        page.evaluate("window.seen = []")
        page.get_by_label("Review first").set_checked(is_on)
        wait_until(partial(is_in_force, is_on))
        wait_until(lambda: page.evaluate("window.seen.length > 0 && roomcastDesk._timers.size === 0"))
        page.evaluate("roomcastDesk._later('modes', 0)")
        wait_until(lambda: page.evaluate("window.seen.length > 1"))
        assert set(page.evaluate("window.seen")) == {is_on}
    broker.call("rooms.set_rules", room=room, rules={"pre_review": True})
    page.evaluate("roomcastDesk._later('room', 0)")
    wait_until(lambda: page.get_by_label("Review first").is_checked())


HELD = """() => {
  const { client } = roomcastDesk, call = client.call.bind(client);
  const isReleased = new Promise((resolve) => { roomcastDesk.release = resolve; });
  client.call = async (operation, ...more) => {
    if (operation === "activities.list") await isReleased;
    return call(operation, ...more);
  };
}"""

GRAB = "(fields) => roomcastDesk.room.call('packets.grab', fields, { key: 'grab' })"


def test_a_result_that_is_settled_before_the_desk_has_read_it_is_shown(broker: PageBroker, page: Any) -> None:
    room = "desk-late"
    shop(broker, room)
    page.goto(f"{broker.viewers}/host/{room}?lang=en")
    page.get_by_role("button", name="Explain next").wait_for()
    launch(page, "Packet", total="1", shares="1", soon_s="0")
    packet = page.locator(".running li[data-kind=packets]")
    packet.get_by_text("0 / 1 taken").wait_for()
    wait_until(lambda: activity(broker, room, "packets")["state"] == "open")
    page.evaluate(HELD)
    page.evaluate(GRAB, {"room": room, "id": packet.get_attribute("data-id"), "keyword": ""})
    wait_until(lambda: activity(broker, room, "packets") is None)
    page.evaluate("roomcastDesk.release()")
    packet.get_by_text("1 / 1 taken").wait_for()
    packet.get_by_text("settled").wait_for()


REFUSED_ONCE = """async () => {
  const base = document.querySelector("link[rel=icon]").href.replace(/art\\/.*/, "client/");
  const { RequestError } = await import(base + "errors.js"), { client } = roomcastDesk, call = client.call.bind(client);
  let left = 1;
  client.call = (operation, ...more) => {
    if (operation !== "activities.list" || left-- <= 0) return call(operation, ...more);
    const reply = { code: 303, message: "busy", field: "", retry_after_ms: 100 };
    return Promise.reject(new RequestError(reply, "overloaded"));
  };
}"""


def test_a_read_that_a_busy_broker_refuses_is_made_again(broker: PageBroker, page: Any) -> None:
    shop(broker, "desk-busy")
    page.goto(f"{broker.viewers}/host/desk-busy?lang=en")
    page.get_by_role("button", name="Explain next").wait_for()
    wait_until(lambda: page.evaluate("roomcastDesk.activities.items.length > 0 && roomcastDesk._timers.size === 0"))
    page.evaluate(REFUSED_ONCE)
    deadline_ms = time.time_ns() // 1_000_000 + 600_000
    broker.call("countdowns.start", room="desk-busy", id="doors", label="Doors", deadline_ms=deadline_ms)
    page.locator(".running li", has_text="Doors").wait_for()


def test_a_restart_of_the_broker_takes_nothing_from_the_desk(browser: Any, tmp_path: Path) -> None:
    port = free_port()
    page = open_page(browser)
    with page_broker(tmp_path / "data", port=port) as broker:
        shop(broker, "desk-again")
        page.goto(f"{broker.viewers}/host/desk-again?lang=en")
        page.get_by_role("button", name="Explain next").click()
        page.locator(".now h2", has_text="Celadon mug").wait_for()
        launch(page, "Poll", title="Which?", options="red | blue")
    page.get_by_text("viewers are not affected").wait_for()
    assert page.locator(".tool:not([disabled])").count() == 0
    with page_broker(tmp_path / "data", port=port) as broker:
        page.get_by_text("viewers are not affected").wait_for(state="hidden", timeout=120_000)
        assert page.locator(".running li[data-kind=polls]").count() == 1
        page.locator(".now h2", has_text="Celadon mug").wait_for()
        page.get_by_role("button", name="Explain next").click()
        wait_until(lambda: activity(broker, "desk-again", "products")["explaining"]["product"] == "mug-2")
    page.context.close()


def test_the_desk_and_the_console_are_light(broker: PageBroker, page: Any) -> None:
    shop(broker, "desk-light")
    for address, there in (
        (f"{broker.viewers}/host/desk-light?lang=en", "Explain next"),
        (f"{broker.api}/console?lang=en#overview", "15 min"),
    ):
        page.goto(address)
        page.get_by_role("button", name=there).wait_for()
        sent = page.evaluate("performance.getEntries().reduce((sum, each) => sum + (each.encodedBodySize || 0), 0)")
        print(f"{address} weighs {sent} bytes as it is sent")
        assert 0 < sent <= 200_000
