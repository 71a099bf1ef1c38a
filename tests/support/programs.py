"""Programs that some tests need.

A test that needs one calls `needs`: without the program it is skipped with the reason, unless ``ROOMCAST_REQUIRE``
(comma-separated names) lists it; then its absence is a failure, so that CI cannot skip a test silently.
"""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["needs"]

COMMANDS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "node": ("node",),
    "redis": ("redis-server",),
    "faketime": ("faketime",),
    "haproxy": ("haproxy",),
    "nginx": ("nginx",),
    "systemd-analyze": ("systemd-analyze",),
    "nft": ("nft",),
    "tc": ("tc",),
}


def needs(name: str) -> str:
    """Return the path of a program, or skip (or fail, see above). ``name``: one of `COMMANDS`."""
    for command in COMMANDS[name]:
        path = shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if path is not None:
            return path
    reason = f"{name} is not installed ({' or '.join(COMMANDS[name])})"
    if name in os.environ.get("ROOMCAST_REQUIRE", "").split(","):
        pytest.fail(f"{reason}, but ROOMCAST_REQUIRE demands it")
    pytest.skip(reason)
