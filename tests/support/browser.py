"""Chromium without a window."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.programs import needs

__all__ = ["dom"]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def dom(page: str, profile: Path, *more: str) -> str:
    """The page's DOM after its scripts have run, as Chromium prints it."""
    done = subprocess.run(
        [needs("chromium"), *FLAGS, f"--user-data-dir={profile}", *more, "--dump-dom", page],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    return done.stdout
