"""One Chromium and one broker for all of these tests that a process runs, and pages for each, whose errors fail it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.live_room import Viewers
from tests.support.pages import PageBroker, chromium, open_page, page_broker


@pytest.fixture(scope="package")
def running_chromium() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def browser(running_chromium: Any) -> Iterator[Any]:
    """The browser, without pages of earlier tests: those that are left open draw on, and slow down the next ones."""
    yield running_chromium
    for context in list(running_chromium.contexts):
        context.close()


@pytest.fixture(scope="package")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageBroker]:
    """A broker in development mode with its defaults, for every test that has rooms of its own in it."""
    with page_broker(tmp_path_factory.mktemp("broker") / "data") as found:
        yield found


@pytest.fixture
def viewers(browser: Any) -> Iterator[Viewers]:
    found = Viewers(browser)
    yield found
    found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of 1,440 x 900 in English; what is written to its console as an error, and markup that ran, fail."""
    found = open_page(browser, locale="en-GB")
    yield found
    title = found.title()
    found.context.close()
    assert title != "broken"
    assert found.errors == []
