"""Settings of the whole suite."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import clocks, integration
from tests.support.examples import QUICK_EXAMPLES
from tests.support.faulty_disk import quick_directory

# Machines that run the tests are shared: an example that takes long says nothing about the code, so no property has a
# time limit. On CI the same commit gets the same examples, so that a red run speaks about the change; elsewhere every
# run tries new ones.
settings.register_profile(
    "roomcast",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.register_profile("quick", settings.get_profile("roomcast"), max_examples=QUICK_EXAMPLES)
settings.load_profile("roomcast")

# Brokers and commands are started hundreds of times, and pytest rewrites every test module in each of its processes:
# without bytecode each start compiles everything anew, which is two fifths of it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


_STDERR: list[int] = []
"""Descriptor of the standard error of this process, which tests see replaced."""


def pytest_configure(config: pytest.Config) -> None:
    """The quick part of the suite tries fewer examples; see tests/support/examples.py."""
    if "not slow" in config.getoption("markexpr"):
        settings.load_profile("quick")
    _STDERR[:] = [os.dup(2)]  # nothing is captured yet
    gc.set_threshold(50_000, 10, 50)  # a fifth of the time otherwise: collection makes a million objects and drops none


def pytest_timeout_set_timer(settings: SimpleNamespace) -> bool:
    """End the process, with the stacks of its threads, when a test hangs.

    By a thread in C: the Python thread that pytest-timeout starts and joins for each test takes longer than most tests,
    and its signal would leave Trio in the middle of a run.
    """
    faulthandler.dump_traceback_later(settings.timeout, exit=True, file=_STDERR[0])
    return True


def pytest_timeout_cancel_timer() -> bool:
    faulthandler.cancel_dump_traceback_later()
    return True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, which have a limit of their own: what comes last keeps only one worker busy.

    Tests in Trio run by a clock that they can set forward.
    """
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)
    for item in items:
        if item.get_closest_marker("trio") is not None:
            item.add_marker(pytest.mark.trio(run=clocks.run), append=False)


@settings(max_examples=1, database=None)
@given(st.none())
def _first_property(_: None) -> None:
    """Hypothesis makes its generator of random numbers in the first property that runs."""


def pytest_collection_finish() -> None:
    """What was collected lives as long as the process: no garbage collection scans it again.

    Hypothesis warns unless it finds who refers to its generator, and does not find it in a module that is frozen (seen
    with 6.130.12 where the environment has CI). So the generator is made before.
    """
    _first_property()
    gc.collect()
    gc.freeze()


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
