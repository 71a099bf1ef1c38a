"""Settings of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from tests.support import integration
from tests.support.faulty_disk import quick_directory

# Machines that run the tests are shared: an example that takes long says nothing about the code. On CI the same
# commit gets the same examples, so that a red run speaks about the change; elsewhere every run looks at new ones.
settings.register_profile("roomcast", deadline=None, derandomize="CI" in os.environ)
settings.register_profile("quick", settings.get_profile("roomcast"), max_examples=30)
settings.load_profile("roomcast")


def pytest_configure(config: pytest.Config) -> None:
    """The quick part of the suite tries fewer examples, where a test does not give their number."""
    if "not slow" in config.getoption("markexpr"):
        settings.load_profile("quick")


integration.watch_processes()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that starts a broker or a process must carry the marker ``integration``."""
    integration.enter(item)
    try:
        return (yield)
    finally:
        integration.leave()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command run inside the test process configures logging for it; the next test must not feel that."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def directory() -> Iterator[Path]:
    """Directory of a ledger, in memory where the machine has a file system for that."""
    with quick_directory() as path:
        yield path
