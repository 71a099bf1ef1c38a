"""The console in a real Chromium: log-in, review by keyboard, sanctions and undoing, dead letters, hostile texts."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
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
from tests.support.processes import command, environment, free_port

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOM = "live-1"
HELD = "加我微信 cup8866"
KEY = "rk_desk_" + "a" * 32


FOCUSED = """() => {
  const node = document.activeElement, all = [...document.querySelectorAll("*")];
  return [all.indexOf(node), getComputedStyle(node).outlineStyle !== "none", node.textContent.trim()];
}"""


@contextmanager
def chromium_page(browser: Any) -> Iterator[Any]:
    page = open_page(browser)
    yield page
    page.context.close()


class Receiver(BaseHTTPRequestHandler):
    """A webhook receiver that refuses until ``accepts`` is set."""

    accepts = False
    got: list[str] = []  # noqa: RUF012 - of the one server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.got.append(self.headers["webhook-id"])
        self.send_response(200 if Receiver.accepts else 500)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def receiver() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, receiver: str) -> Iterator[PageBroker]:
    folder = tmp_path_factory.mktemp("broker")
    secret = folder / "hook-secret"
    secret.write_text("whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0NTY=" + "\n")
    secret.chmod(0o600)
    config = folder / "roomcast.toml"
    config.write_text(
        "[webhooks]\nretry_for_h = 0.001\n"
        f'[[webhooks.endpoints]]\nname = "shop"\nurl = "{receiver}"\nsecret_file = "{secret}"\nevents = ["room.*"]\n'
    )
    with page_broker(folder / "data", config=config) as found:
        found.call("rooms.open", room=ROOM, title=f"Evening {MARKUP}"[:60])
        found.call("moderation.put_list", name="contacts", words=["加我微信"], action="hold", category="ads")
        yield found


def say(broker: PageBroker, text: str, user: str, room: str = ROOM) -> None:
    url = broker.viewers.replace("http", "roomcast")
    arguments = command("say", room, text, "--url", url, "--token", f"dev:{user}")
    done = subprocess.run(arguments, capture_output=True, env=environment(), text=True)
    assert "held" in done.stdout + done.stderr, done


def waiting(broker: PageBroker, room: str = ROOM) -> list[str]:
    return [item["user"] for item in broker.call("moderation.queue", room=room)["items"]]


def recent(broker: PageBroker) -> int:
    shown: int = broker.call("rooms.stats", room=ROOM)["lanes"]["chat"]["shown"]
    return shown


def test_a_reviewer_decides_by_keyboard_and_can_take_it_back(broker: PageBroker, page: Any) -> None:
    for user in ("ann", "bob", "cem"):
        say(broker, f"{HELD} {user} {MARKUP if user == 'bob' else ''}", user)
    assert waiting(broker) == ["ann", "bob", "cem"]
    page.goto(f"{broker.api}/console?lang=en#review")
    options = page.get_by_role("option")
    page.get_by_role("option").nth(2).wait_for()
    assert options.count() == 3
    assert page.evaluate("document.activeElement.id") == "queue"
    assert page.locator("#detail mark").inner_text() == "加我微信"
    shown = recent(broker)
    page.keyboard.press("a")
    page.keyboard.press("z")  # taken back before it was sent
    assert options.count() == 3
    page.keyboard.press("a")  # ann is approved
    page.keyboard.press("r")  # bob is rejected
    assert options.count() == 1
    assert page.evaluate("document.activeElement.id") == "queue"
    wait_until(lambda: waiting(broker) == ["cem"])
    wait_until(lambda: recent(broker) == shown + 1)
    page.keyboard.press("j")
    page.keyboard.press("m")
    page.get_by_text("Nothing waits for review").wait_for()
    wait_until(lambda: [each["user"] for each in broker.call("moderation.list", room=ROOM)["items"]] == ["cem"])
    by_verdict = {
        verdict: broker.call("moderation.queue", room=ROOM, state=verdict)["items"] for verdict in ("rejected",)
    }
    assert {item["user"] for item in by_verdict["rejected"]} == {"bob", "cem"}


def test_all_decisions_are_sent_when_the_page_is_left(broker: PageBroker, page: Any) -> None:
    users = ("dan", "dee", "dov", "eli")
    broker.call("rooms.open", room="live-2")
    for user in users[:3]:
        say(broker, f"{HELD} leaving {user}", user)
    say(broker, f"{HELD} leaving eli", "eli", "live-2")
    page.clock.install()
    page.goto(f"{broker.api}/console?lang=en#review")
    page.get_by_role("option").nth(3).wait_for()
    page.clock.pause_at(4_102_444_800_000)  # what is decided from now on is not sent by its time
    for user, key in zip(users, "arrm", strict=True):
        row = page.get_by_role("option").filter(has_text=f"leaving {user}")
        row.click()
        page.keyboard.press(key)
        row.wait_for(state="detached")
    assert waiting(broker) == list(users[:3])
    page.reload()
    wait_until(lambda: waiting(broker) == waiting(broker, "live-2") == [])
    rejected = broker.call("moderation.queue", state="rejected")["items"]
    assert {item["user"] for item in rejected} & set(users) == {"dee", "dov", "eli"}
    wait_until(lambda: "eli" in [each["user"] for each in broker.call("moderation.list", room="live-2")["items"]])


def test_a_decision_is_sent_when_another_section_is_opened(broker: PageBroker, page: Any) -> None:
    say(broker, f"{HELD} leaving", "fay")
    page.clock.install()
    page.goto(f"{broker.api}/console?lang=en#review")
    page.get_by_role("option").first.wait_for()
    page.clock.pause_at(4_102_444_800_000)
    page.keyboard.press("r")
    page.get_by_text("Nothing waits for review").wait_for()
    page.get_by_role("link", name="Keys").click()
    wait_until(lambda: waiting(broker) == [])


def test_a_user_is_muted_and_that_is_undone(broker: PageBroker, page: Any) -> None:
    page.goto(f"{broker.api}/console?lang=en#users/eve")
    page.locator("[name=room]").fill(ROOM)
    page.get_by_label("Reason").fill(MARKUP)
    page.get_by_role("button", name="Do it").click()
    page.locator(".toast").get_by_text("eve is muted").wait_for()
    [mute] = broker.call("moderation.list", user="eve")["items"]
    assert (mute["verb"], mute["reason"]) == ("mute", MARKUP)
    page.get_by_role("cell", name=MARKUP).wait_for()
    page.locator("tbody").get_by_role("button", name="Undo").click()
    wait_until(lambda: broker.call("moderation.list", user="eve")["items"] == [])
    page.locator("[name=verb]").select_option("ban")
    page.get_by_role("button", name="Do it").click()
    page.get_by_text("Press again to confirm").wait_for()
    assert broker.call("moderation.list", user="eve")["items"] == []
    page.get_by_role("button", name="Do it").click()
    wait_until(lambda: [each["verb"] for each in broker.call("moderation.list", user="eve")["items"]] == ["ban"])


def test_one_of_two_connections_of_a_user_is_ended(broker: PageBroker, page: Any, browser: Any) -> None:
    pages = [open_page(browser) for _ in range(2)]
    for each in pages:
        each.goto(f"{broker.viewers}/room/{ROOM}?lang=en#t=dev:zoe")
    wait_until(lambda: len(broker.call("users.get", user="zoe")["links"]) == 2)
    page.goto(f"{broker.api}/console?lang=en#users/zoe")
    row = page.get_by_role("region", name="Open connections").get_by_role("row").nth(1)
    row.get_by_role("button", name="End").click()
    row.get_by_text("Ends this connection alone").wait_for()
    row.get_by_role("button", name="End", exact=True).click()
    page.locator(".toast").get_by_text("Ended").wait_for()
    wait_until(lambda: len(broker.call("users.get", user="zoe")["links"]) == 1)
    for each in pages:
        each.context.close()


def test_a_dead_letter_is_sent_again(broker: PageBroker, page: Any) -> None:
    broker.call("rooms.open", room="other-room")
    broker.call("rooms.close", room="other-room")
    wait_until(lambda: len(broker.call("hooks.deliveries", state="dead")["items"]) > 0)
    page.goto(f"{broker.api}/console?lang=en#webhooks")
    page.get_by_role("cell", name="room.").first.wait_for()
    before, Receiver.accepts = len(Receiver.got), True
    page.get_by_role("button", name="Retry all").click()
    wait_until(lambda: broker.call("hooks.deliveries", state="dead")["items"] == [])
    wait_until(lambda: len(Receiver.got) > before)
    page.get_by_text("No dead letters").wait_for()


def test_the_overview_moves_and_a_room_is_paused_from_its_page(broker: PageBroker, page: Any) -> None:
    page.goto(f"{broker.api}/console?lang=en#overview")
    page.get_by_text("commerce and paid: 0").wait_for()
    chart = page.locator("canvas.chart")
    wait_until(lambda: "chat" in (chart.get_attribute("aria-label") or ""))
    page.get_by_role("button", name="15 min").click()
    assert page.get_by_role("button", name="15 min").get_attribute("aria-pressed") == "true"
    taken = "() => performance.getEntriesByType('resource').length && document.querySelector('canvas.chart').ariaLabel"
    assert page.evaluate(taken)
    page.get_by_role("button", name="Show as table").click()
    assert page.get_by_role("columnheader", name="commerce").is_visible()
    page.goto(f"{broker.api}/console?lang=en#rooms/{ROOM}")
    page.get_by_role("button", name="Pause").click()
    wait_until(lambda: broker.call("rooms.get", room=ROOM)["phase"] == "paused")
    page.get_by_role("button", name="Resume").click()
    wait_until(lambda: broker.call("rooms.get", room=ROOM)["phase"] == "live")
    page.get_by_role("button", name="End the show").click()
    page.get_by_text("Cannot be undone").wait_for()
    page.keyboard.press("Escape")
    assert broker.call("rooms.get", room=ROOM)["phase"] == "live"


@pytest.mark.parametrize(
    ("size", "theme", "language"), [("phone", "dark", "zh"), ("tablet", "light", "en"), ("desk", "dark", "en")]
)
def test_every_section_is_readable_and_named_at_every_size(
    broker: PageBroker, browser: Any, size: str, theme: str, language: str, tmp_path: Path
) -> None:
    broker.call("polls.create", room=ROOM, id=f"q-{size}", title=MARKUP, options=["red", MARKUP[:30]])
    page = open_page(browser, SIZES[size])
    page.goto(f"{broker.api}/console?lang={language}&theme={theme}")
    page.locator("#nav a").first.wait_for()
    sections = page.eval_on_selector_all("#nav a", "links => links.map(link => link.hash)")
    assert len(sections) == 11
    for section in (*sections, f"#rooms/{ROOM}", f"#activities/{ROOM}", f"#reports/{ROOM}", "#users/eve"):
        page.evaluate("hash => { location.hash = hash }", section)
        page.wait_for_timeout(250)
        assert bad_names(page) == [], section
        assert low_contrast(page) == [], section
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{section} scrolls sideways"
        assert page.locator(".problem").count() == 0, section
    assert page.title() != "broken"
    assert page.errors == []
    page.context.close()


def test_a_key_for_some_rooms_reviews_a_room_by_its_name(browser: Any, tmp_path: Path) -> None:
    config = with_key(tmp_path, 'scopes = ["moderation:read", "moderation:write", "rooms:write"]\nrooms = ["live-*"]')
    with page_broker(tmp_path / "data", config=config) as broker, chromium_page(browser) as page:
        broker.key = KEY
        broker.call("rooms.open", room="live-9")
        page.goto(f"{broker.api}/console?lang=en#review")
        page.get_by_label("Key of the control API").fill(KEY)
        page.get_by_role("button", name="Log in").click()
        page.get_by_text("room: is required").wait_for()
        assert page.locator("#nav a").all_inner_texts() == ["Review", "Users", "Audit"]
        page.get_by_label("Room (empty: all)").fill("live-9")
        page.keyboard.press("Enter")
        page.get_by_text("Nothing waits for review").wait_for()
        assert page.locator(".problem").count() == 0
        page.evaluate("location.hash = '#users/eve/live-9'")
        page.get_by_role("button", name="Do it").click()
        page.locator(".toast").get_by_text("eve is muted").wait_for()
        page.locator("tbody").get_by_text("live-9").wait_for()


def with_key(folder: Path, more: str) -> Path:
    """Write a configuration with one key, `KEY`, and return its file."""
    keys, config = folder / "keys.toml", folder / "roomcast.toml"
    keys.write_text(f'[[key]]\nid = "desk"\nsha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n{more}\n')
    config.write_text(f'[auth]\nsecret = "{"s" * 40}"\n[api]\nkey_file = "{keys}"\n')
    for path in (keys, config):
        path.chmod(0o600)
    return config


def test_tab_goes_through_the_page_in_its_order_and_shows_where_it_is(broker: PageBroker, page: Any) -> None:
    page.goto(f"{broker.api}/console?lang=en#overview")
    page.locator("#nav a").first.wait_for()
    page.get_by_text("commerce and paid: 0").wait_for()
    places: list[int] = []
    for step in range(14):
        page.keyboard.press("Tab")
        place, is_outlined, text = page.evaluate(FOCUSED)
        places.append(place)
        assert is_outlined, text
        assert step or text == "Skip to the content"
    assert places == sorted(places)
    assert len(set(places)) == len(places)


def test_figures_are_marked_as_old_while_the_broker_is_away(browser: Any, tmp_path: Path) -> None:
    port = free_port()
    with chromium_page(browser) as page:
        with page_broker(tmp_path / "data", f"api.listen=127.0.0.1:{port}"):
            page.goto(f"http://127.0.0.1:{port}/console?lang=en#overview")
            page.get_by_text("commerce and paid: 0").wait_for()
        page.get_by_text("actions still work").wait_for()
        with page_broker(tmp_path / "data", f"api.listen=127.0.0.1:{port}"):
            page.get_by_text("actions still work").wait_for(state="hidden")
            page.get_by_text("Connected").wait_for()


def test_a_key_is_asked_for_and_sections_that_it_may_not_use_are_away(browser: Any, tmp_path: Path) -> None:
    config = with_key(tmp_path, 'scopes = ["moderation:read", "moderation:write"]')
    with page_broker(tmp_path / "data", config=config) as broker:
        page = open_page(browser)
        page.goto(f"{broker.api}/console?lang=en")
        field = page.get_by_label("Key of the control API")
        field.fill("rk_wrong_" + "b" * 32)
        page.get_by_role("button", name="Log in").click()
        page.get_by_text("This key is not valid").wait_for()
        field.fill(KEY)
        page.get_by_role("button", name="Log in").click()
        page.locator("#nav a").first.wait_for()
        page.get_by_text("Nothing waits for review").wait_for()
        page.wait_for_timeout(500)
        assert page.locator("#nav a").all_inner_texts() == ["Review", "Users", "Audit"]
        assert (
            page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])").find("rk_desk") < 0
        )
        page.get_by_role("button", name="Log out").click()
        assert page.evaluate("document.activeElement.id") == "key"
        assert field.input_value() == ""
        page.context.close()
