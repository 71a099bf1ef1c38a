"""The scripts that a Redis server runs for the engine, each an atomic step: ``scripts/NAME.lua``."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

__all__ = ["Script", "all_scripts"]


class Script(NamedTuple):
    """One script. ``sha``: how the server names it."""

    name: str
    source: bytes
    sha: str


@functools.cache
def all_scripts() -> dict[str, Script]:
    """Return every script by its name."""
    found = {}
    for path in sorted((Path(__file__).parent / "scripts").glob("*.lua")):
        source = path.read_bytes()
        found[path.stem] = Script(path.stem, source, hashlib.sha1(source).hexdigest())
    return found
