"""One Chromium for a file of tests, and a page for each test, whose errors fail it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.pages import chromium, errors_of


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of 1,440 x 900 in English; what is written to its console as an error, and markup that ran, fail."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB")
    context.set_default_timeout(30_000)
    found = context.new_page()
    found.errors = errors_of(found)
    yield found
    title = found.title()
    context.close()
    assert title != "broken"
    assert found.errors == []
