"""Viewers of the live room: pages of a browser, and what a platform publishes to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.support.pages import PageBroker, open_page, wait_until

__all__ = ["Viewers", "line", "now_ms", "publish", "say", "wait_shown"]


class Viewers:
    """Opens pages of viewers, each with a context of its own."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self.pages: list[Any] = []

    def open(self, broker: PageBroker, room: str, user: str, language: str = "en", **options: Any) -> Any:
        """Open a room as a user and wait until it is there. ``options``: of `open_page`, and ``origin``
        where the broker is reached by another one, ``state`` that is waited for, ``prepare``: called with the page
        before it is loaded."""
        origin, state = options.pop("origin", broker.viewers), options.pop("state", None)
        prepare: Callable[[Any], None] = options.pop("prepare", lambda page: None)
        page = open_page(self._browser, **options)
        self.pages.append(page)
        prepare(page)
        page.goto(f"{origin}/room/{room}?lang={language}&user={user}")
        wait_shown(page, state)
        return page

    def open_desk(self, broker: PageBroker, room: str, token: str = "") -> Any:
        """Open the host desk of a room, as the platform itself, or with a token."""
        page = open_page(self._browser)
        self.pages.append(page)
        page.goto(f"{broker.viewers}/host/{room}?lang=en" + (f"#t={token}" if token else ""))
        page.locator("#title").wait_for()
        return page

    def close(self) -> None:
        """Close the pages; none of them may have run markup or had an error."""
        for page in self.pages:
            title = page.title()
            page.context.close()
            assert title != "broken"
            assert page.errors == []
        self.pages.clear()


def wait_shown(page: Any, state: str | None = None) -> None:
    """Wait until a page of a live room is in a state; None: in any but loading. Its policy forbids the browser's own
    wait for an expression."""

    def is_shown() -> bool:
        shown = page.evaluate("document.body.dataset.state")
        return bool(shown == state if state else shown != "loading")

    wait_until(is_shown)


def now_ms() -> int:
    return int(time.time() * 1000)


def say(page: Any, text: str) -> None:
    page.locator("#text").fill(text)
    page.locator("#text").press("Enter")


def line(page: Any, text: str) -> Any:
    """Return the newest line of the chat that has a text."""
    return page.locator("#chat li", has_text=text).last


def publish(broker: PageBroker, room: str, type: int, payload: Any, user: str = "cem", name: str = "Cem") -> Any:
    return broker.call("messages.publish", room=room, type=type, payload=payload, as_user=user, name=name)
