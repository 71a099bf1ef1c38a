"""The agent page and the chat widget in a real Chromium: a question, its answer, transfer, a shop's page around it."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import MARKUP, SIZES, PageBroker, bad_names, low_contrast, open_page, page_broker, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

AGENTS = ("amy", "ben")


def desk(broker: PageBroker) -> None:
    """Set up the desk. Nobody has the skill for refunds: they wait until a supervisor takes them."""
    topics = [{"name": "orders"}, {"name": "refunds", "skills": ["money"]}]
    broker.call("desk.configure", topics=topics, agent_ms=3_600_000)
    for user in AGENTS:
        broker.call("desk.set_agent", user=user, name=user.title(), capacity=9, supervisor=user == "ben")


def online(broker: PageBroker) -> list[str]:
    return [
        each["user"] for each in broker.call("desk.agents")["items"] if each["state"] == "online" and each["linked"]
    ]


def take_over(page: Any, id: str) -> None:
    page.get_by_label("My state").select_option("online")
    page.locator(f"[data-id='{id}'] .entry").click()
    page.get_by_role("button", name="Take over").click()
    page.locator("#composer").wait_for()


def views(broker: PageBroker, **wanted: Any) -> list[Any]:
    items = broker.call("desk.list", which="all", limit=1000)["items"]
    return [view for view in items if all(view[name] == value for name, value in wanted.items())]


@contextmanager
def pages(browser: Any, *sizes: str) -> Iterator[list[Any]]:
    """Open pages of these sizes, each with a context of its own; errors in them fail."""
    found = [open_page(browser, SIZES[size]) for size in sizes]
    yield found
    for page in found:
        assert page.title() != "broken"
        assert page.errors == []
        page.context.close()


def test_a_question_is_answered_transferred_resolved_and_rated(broker: PageBroker, browser: Any) -> None:
    desk(broker)
    for word, text in (("Where", "Look at the parcel"), ("Hurry", "Say when it comes")):
        broker.call("moderation.put_hint", id=word, words=word, template=text, target="agent", rooms="orders")
    with pages(browser, "desk", "desk", "phone") as (amy, ben, ann):
        for page, user in ((amy, "amy"), (ben, "ben")):
            page.goto(f"{broker.viewers}/agent?lang=en&user={user}")
        ben.get_by_label("My state").select_option("away")
        amy.get_by_label("My state").select_option("online")
        wait_until(lambda: online(broker) == ["amy"])
        ann.goto(f"{broker.viewers}/widget?lang=en&user=ann&topic=orders&order=o-17")
        ann.get_by_text("Hello, ask away").wait_for()
        ann.get_by_label("Your question").fill(f"Where is it? {MARKUP}")
        ann.keyboard.press("Enter")
        # It comes to the agent, who sees what it is about, and opens by itself.
        amy.locator("#log .line", has_text="Where is it?").wait_for()
        amy.locator(".facts", has_text="o-17").wait_for()
        amy.get_by_text("Said by the customer, not verified").wait_for()
        amy.locator(".hints", has_text="Look at the parcel").wait_for()
        ann.get_by_text("You talk with an agent").wait_for()
        ann.get_by_label("Your question").fill("Hurry please")
        ann.keyboard.press("Enter")
        amy.locator(".hints", has_text="Say when it comes").wait_for()
        assert ann.get_by_text("Look at the parcel").count() == 0
        # A canned answer by keys, and what the customer's page shows of it.
        amy.locator("#text").focus()
        amy.keyboard.press("/")
        amy.get_by_role("dialog").get_by_text("One moment please").wait_for()
        amy.keyboard.press("2")
        wait_until(lambda: "One moment" in amy.locator("#text").input_value())
        amy.keyboard.press("Enter")
        ann.locator("#log .line", has_text="One moment please").wait_for()
        ann.get_by_text("You talk with Amy", exact=True).wait_for()
        amy.get_by_text("read", exact=True).wait_for()
        amy.get_by_label("Add a tag").fill("delivery")
        amy.keyboard.press("Enter")
        amy.get_by_label("Remove the tag delivery").wait_for()
        # To the other agent: it has the whole history, and the first one can write no more.
        ben.get_by_label("My state").select_option("online")
        wait_until(lambda: len(online(broker)) == 2)
        amy.locator("#log").click()
        wait_until(lambda: amy.evaluate("roomcastAgent.agents.filter((each) => each.state === 'online').length") == 2)
        amy.keyboard.press("t")
        amy.get_by_role("dialog").get_by_text("Ben").click()
        ben.locator("#log .line", has_text="Where is it?").wait_for()
        ben.locator("#log .line", has_text="One moment please").wait_for()
        amy.locator("#composer").wait_for(state="hidden")
        ben.locator("#text").fill("It is at the door.")
        ben.keyboard.press("Enter")
        ann.locator("#log .line", has_text="It is at the door.").wait_for()
        ben.locator("#text").focus()
        ben.keyboard.press("Control+Enter")
        ann.get_by_label("4 of 5").click()
        wait_until(lambda: [view["rating"] for view in views(broker, customer="ann")] == [4])
        # The customer's page, loaded again, has it all once.
        ann.reload()
        ann.locator("#log .line").nth(3).wait_for()
        assert ann.locator("#log .line .bubble").all_inner_texts() == [
            f"Where is it? {MARKUP}", "Hurry please", "One moment please, I am looking.", "It is at the door.",
        ]  # fmt: skip
        for page in (amy, ben):
            page.get_by_label("My state").select_option("offline")
            page.get_by_text("You are not online").wait_for()


def test_what_waits_is_listed_and_a_supervisor_takes_it(broker: PageBroker, browser: Any) -> None:
    desk(broker)
    with pages(browser, "desk") as (ben,):
        ben.goto(f"{broker.viewers}/agent?lang=en&user=ben")
        ben.get_by_text("Nobody waits").wait_for()
        opened = broker.call("desk.open", topic="refunds", text="Money back", as_user="cem", idempotency_key="cem")
        ben.locator("#queued .entry", has_text="cem").click()
        ben.locator("#log .line", has_text="Money back").wait_for()
        assert ben.locator("#composer").is_hidden()
        take_over(ben, opened["desk"]["id"])
        ben.get_by_role("button", name="Resolve").click()
        wait_until(lambda: [view["state"] for view in views(broker, customer="cem")] == ["resolved"])


def test_an_answer_in_parts_grows_in_one_line(broker: PageBroker, browser: Any) -> None:
    broker.call("desk.configure", topics=[{"name": "bot", "bot": "helper"}], bot_ms=3_600_000)
    with pages(browser, "phone") as (eve,):
        eve.goto(f"{broker.viewers}/widget?lang=en&user=eve&topic=bot")
        eve.get_by_label("Your question").fill("Where is it?")
        eve.keyboard.press("Enter")
        wait_until(lambda: len(views(broker, customer="eve")) == 1)
        (view,) = views(broker, customer="eve")
        at = {"conversation": view["id"], "as_user": "helper"}
        eve.locator("#log .line.own[data-offset]").wait_for()
        at["stream"] = broker.call("desk.start_stream", epoch=view["epoch"], **at)["stream"]
        for text, whole in (("It comes", "It comes"), (f" {MARKUP}", f"It comes {MARKUP}")):
            broker.call("desk.append", text=text, **at)
            eve.locator("#log .streaming", has_text=whole).wait_for()
        broker.call("desk.end_stream", idempotency_key="end", **at)
        eve.locator("#log .line[data-offset]", has_text=f"It comes {MARKUP}").wait_for()
        assert eve.locator("#log .streaming").count() == 0


def test_an_agent_reads_what_came_before_and_answers_a_call(broker: PageBroker, browser: Any) -> None:
    desk(broker)
    opened = broker.call("desk.open", topic="refunds", text="Question 1", as_user="fay", idempotency_key="fay")
    id = opened["desk"]["id"]
    for number in range(2, 71):
        broker.call("desk.ask", f"fay-{number}", conversation=id, text=f"Question {number}", as_user="fay")
    with pages(browser, "desk", "phone") as (ben, fay):
        ben.goto(f"{broker.viewers}/agent?lang=en&user=ben")
        take_over(ben, id)
        fay.goto(f"{broker.viewers}/widget?lang=en&user=fay&topic=refunds")
        for page in (ben, fay):
            page.get_by_text("Question 70", exact=True).wait_for()
            assert page.get_by_text("Question 20", exact=True).count() == 0
            page.locator("#log").evaluate("(log) => { log.scrollTop = 0; }")
            page.get_by_text("Question 1", exact=True).wait_for()
            assert page.locator("#log .line").evaluate_all("(all) => all.map((each) => each.dataset.offset)") == [
                str(number) for number in range(1, 71)
            ]
            # The line that was at the top is still in sight.
            assert page.locator("#log").evaluate("(log) => log.scrollTop") > 0
        ring = f"roomcastWidget.call('rtc.ring', {{ conversation: '{id}' }})"
        for button in ("Refuse", "Answer"):
            fay.evaluate(ring)
            ben.locator("#call", has_text="fay calls").wait_for()
            ben.get_by_role("button", name=button, exact=True).click()
            if button == "Answer":
                ben.locator("#call", has_text="You are in a call with fay; token").wait_for()
                ben.get_by_role("button", name="Hang up").click()
            ben.locator("#call").wait_for(state="hidden")
            wait_until(lambda: fay.evaluate("roomcastWidget.call('rtc.mine')")["call"] is None)
        # A page that is loaded while it rings shows it as well, and the customer may hang up.
        fay.evaluate(ring)
        ben.reload()
        ben.locator("#call", has_text="fay calls").wait_for()
        assert bad_names(ben) == []
        assert low_contrast(ben) == []
        call = fay.evaluate("roomcastWidget.call('rtc.mine')")["call"]["call"]
        fay.evaluate(f"roomcastWidget.call('rtc.hang_up', {{ call: '{call}' }})")
        ben.locator("#call").wait_for(state="hidden")
        ben.get_by_label("My state").select_option("offline")


@pytest.mark.parametrize("size", SIZES)
def test_both_are_readable_and_named_at_every_size(broker: PageBroker, browser: Any, size: str) -> None:
    desk(broker)
    customer = f"dan-{size}"
    id = broker.call(
        "desk.open", topic="refunds", text="A question that is rather long, so that it is broken into lines",
        as_user=customer, order="o-2026-11-29-000017", idempotency_key=customer,
    )["desk"]["id"]  # fmt: skip
    with pages(browser, size, size) as (agent, widget):
        agent.goto(f"{broker.viewers}/agent?lang=en&user=ben&theme=dark")
        take_over(agent, id)
        widget.goto(f"{broker.viewers}/widget?lang=zh&user={customer}&topic=refunds&theme=light")
        widget.locator("#log .line").first.wait_for()
        for theme in ("dark", "light"):
            for page in (agent, widget):
                page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
                page.wait_for_timeout(300)
                assert bad_names(page) == []
                assert low_contrast(page) == []
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        agent.get_by_role("button", name="Resolve").click()
        widget.locator("#rating").wait_for()


SHOP = """<!doctype html><html lang="en"><title>shop</title><link rel="icon" href="data:,"><h1>A shop</h1>
<script>globalThis.roomcastToken = async () => "";</script>
<script src="BROKER/widget.js" data-topic="orders" data-product="mug-7" data-lang="en" data-label="Ask us"></script>
"""


@contextmanager
def shop(directory: Path) -> Iterator[str]:
    """Serve a folder as the site of a shop, on an origin of its own, which is given."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_the_page_of_a_shop_holds_the_widget_and_no_other_page_does(browser: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with shop(site) as origin, page_broker(tmp_path / "data", f'pages.widget_origins=["{origin}"]') as broker:
        (site / "index.html").write_text(SHOP.replace("BROKER", broker.viewers))
        desk(broker)
        with pages(browser, "desk", "phone") as (buyer, elsewhere):
            buyer.goto(origin)
            buyer.get_by_role("button", name="Ask us").click()
            frame = buyer.frame_locator("iframe")
            frame.get_by_text("Hello, ask away").wait_for()
            frame.get_by_label("Your question").fill("Is the mug in stock?")
            frame.get_by_label("Your question").press("Enter")
            wait_until(lambda: [view["product"] for view in views(broker)] == ["mug-7"])
            frame.get_by_role("button", name="Close").click()
            buyer.locator("iframe").wait_for(state="hidden")
            # What comes while it is closed is counted on the button.
            (view,) = views(broker)
            broker.call(
                "cards.send",
                conversation=view["id"],
                card={"kind": "order", "id": "o-1", "status": "paid", "version": 0, "title": "Your order"},
            )
            buyer.get_by_role("button", name="Ask us").get_by_text("1", exact=True).wait_for()
            buyer.get_by_role("button", name="Ask us").click()
            frame.locator(".talk-card", has_text="Your order").wait_for()
            # Another origin is refused by the policy; the console of the page says so.
            elsewhere.goto(origin.replace("127.0.0.1", "localhost"))
            with elsewhere.expect_console_message(lambda line: "frame-ancestors" in line.text):
                elsewhere.get_by_role("button", name="Ask us").click()
            # On a phone too the customer can close a frame in which nothing has come.
            elsewhere.get_by_role("button", name="Ask us").click()
            elsewhere.locator("iframe").wait_for(state="hidden")
            elsewhere.errors.clear()
