"""What `roomcast --version` prints: the version, and in a clone the commit."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

__all__ = ["commit_of", "version_text"]

GIT_S = 5.0
"""Longest wait for git."""


def commit_of(clone: Path) -> str:
    """Return the commit of a clone, with a + where files differ from it; "" where it is none or git cannot say."""
    if not (clone / ".git").exists():
        return ""
    command = ["git", "-C", str(clone), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def version_text() -> str:
    """Return the version of the installed package, and the commit where it runs from a clone."""
    version = importlib.metadata.version("roomcast")
    commit = commit_of(Path(__file__).parents[2])
    return f"roomcast, version {version}" + (f", commit {commit}" if commit else "")
