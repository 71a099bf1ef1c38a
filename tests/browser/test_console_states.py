"""Every section of the console in every state: it is read, it is empty, it fails, the key may not, or has ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.pages import PageBroker, page_broker, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOM = "states"
UNKNOWN = "rooms/nobody-opened"
SECTIONS: dict[str, str | None] = {
    "rooms": None,
    UNKNOWN: None,
    "review": "Nothing waits for review",
    "users": "No sanctions",
    f"activities/{ROOM}": "Nothing goes on here",
    "webhooks": "No dead letters",
    "keys": "There are no keys",
    "tenants": "No tenants are configured",
    "audit": None,
    f"reports/{ROOM}": None,
    "config": None,
}
"""Address of each section, and what it says where there is nothing; None: there is always something, or an error."""
FAILURES = {
    "error": (500, "INTERNAL_ERROR"),
    "no right": (403, "NOT_ALLOWED"),
    "busy": (503, "OVERLOADED"),
    "gone": (0, ""),
}


class Api:
    """The control API as the page reaches it: ``state`` decides what its calls get."""

    def __init__(self, page: Any) -> None:
        self.state = ""
        self.held: list[Any] = []
        page.route("**/v1/**", self.answer)

    def answer(self, route: Any) -> None:
        if not self.state:
            route.continue_()
        elif self.state == "loading":
            self.held.append(route)
        elif self.state == "gone":
            route.abort()
        else:
            status, code = FAILURES.get(self.state, (401, "AUTH_FAILED"))
            route.fulfill(status=status, content_type="application/problem+json", body=json.dumps({"code": code}))

    def release(self) -> None:
        """Answer all that is held."""
        self.state = ""
        for route in self.held:
            route.continue_()
        self.held.clear()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageBroker]:
    """A broker in which nothing waits: the one of the package has what other tests have left."""
    with page_broker(tmp_path_factory.mktemp("states") / "data") as found:
        yield found


@pytest.fixture
def api(broker: PageBroker, page: Any) -> Api:
    broker.call("rooms.open", room=ROOM, title="States")
    page.goto(f"{broker.api}/console?lang=en#overview")
    page.locator("#nav a").nth(9).wait_for()
    return Api(page)


def go(page: Any, section: str) -> None:
    page.evaluate("(hash) => { location.hash = hash; }", f"#{section}")
    page.locator(f"#nav [data-key={section.partition('/')[0]}][aria-current=page]").wait_for()


def told(page: Any) -> list[str]:
    """Return what stands in place of lists."""
    return [text for text in page.locator("#page .empty-row:visible").all_inner_texts() if text]


def test_what_is_being_read_is_not_said_to_be_empty(api: Api, page: Any) -> None:
    for section, nothing in SECTIONS.items():
        api.state = "loading"
        go(page, section)
        wait_until(lambda: api.held)
        assert set(told(page)) <= {"Reading\u2026"}, section
        api.release()
        if section == UNKNOWN:
            page.locator("#page .problem").wait_for()
            continue
        page.locator("#page .loading").first.wait_for(state="hidden")
        if nothing:
            page.locator("#page .empty-row", has_text=nothing).first.wait_for()
        assert page.locator("#page .problem").count() == 0, section
    page.errors.clear()  # the browser writes of each answer that failed


@pytest.mark.parametrize("state", FAILURES)
def test_what_cannot_be_read_says_why_and_is_read_again(api: Api, page: Any, state: str) -> None:
    for section in SECTIONS:
        api.state = state
        go(page, section)
        problem = page.locator("#page .problem")
        problem.first.wait_for()
        assert set(told(page)) <= {"Could not be read"}, section
        api.state = ""
        if section != UNKNOWN:
            problem.first.get_by_role("button", name="Retry").click()
            problem.first.wait_for(state="detached")
    page.errors.clear()  # the browser writes of each answer that failed


def test_a_key_that_has_ended_leads_to_the_log_in_from_every_section(api: Api, page: Any) -> None:
    for section in SECTIONS:
        api.state = "ended"
        page.evaluate("(hash) => { location.hash = hash; }", f"#{section}")
        page.locator("#login-error:visible").wait_for()
        assert page.locator("#page").is_hidden()
        assert page.locator("#page *").count() == 0, section
        api.state = ""
        page.evaluate("location.hash = '#overview'")
        page.evaluate("document.querySelector('#login').requestSubmit()")
        page.locator("#nav [data-key=config]").wait_for()
    page.errors.clear()


def test_a_report_has_a_name_for_each_figure_in_both_languages(broker: PageBroker, page: Any) -> None:
    broker.call("rooms.open", room=ROOM, title="States")
    page.goto(f"{broker.api}/console?lang=zh#reports/{ROOM}")
    page.locator("#page .pairs dt").nth(20).wait_for()
    names = page.locator("#page .pairs dt").all_inner_texts()
    english = [name for name in names if name[:1].isascii()]
    assert english == []
    page.goto("about:blank")
    page.goto(f"{broker.api}/console?lang=en#reports/{ROOM}")
    page.locator("#page .pairs dt").nth(20).wait_for()
    assert all("_" not in name.split(" ")[0] for name in page.locator("#page .pairs dt").all_inner_texts())


def test_what_stands_in_an_empty_table_is_seen_on_a_phone(broker: PageBroker, page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{broker.api}/console?lang=en#tenants")
    nothing = page.locator("#page .empty-row", has_text="No tenants are configured")
    nothing.wait_for()
    box = nothing.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
