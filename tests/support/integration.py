"""Check that a test that starts a whole broker or a process carries the marker ``integration``.

``pytest -m 'not integration and not slow'`` is the quick part of the suite: neither processes nor whole brokers. A test
that starts one without the marker fails here, so that the quick part stays quick.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

__all__ = ["require_marker", "watch_processes"]

_running: list[pytest.Item] = []
"""The test that runs in this process, at most one."""


def enter(item: pytest.Item) -> None:
    """Start the check for a test."""
    _running[:] = [item]


def leave() -> None:
    """End the check: no test runs."""
    _running.clear()


def require_marker(what: str) -> None:
    """Fail when the running test lacks the marker; outside of a test nothing is checked.

    :param what: what the test is about to start, for the message.
    """
    if _running and not any(_running[0].iter_markers("integration")):
        pytest.fail(f"{_running[0].nodeid} starts {what} without @pytest.mark.integration")


def watch_processes() -> None:
    """Require the marker for every start of a process from now on."""

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.system"):
            require_marker("a process")

    sys.addaudithook(audit)
