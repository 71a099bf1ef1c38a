"""The guide of systems names every acceptance test, and no other."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "broker" / "guides" / "systems.md"


def test_every_acceptance_test_has_one_row() -> None:
    named = re.findall(r"\| `(test_\w+)` \|$", GUIDE.read_text("utf-8"), re.MULTILINE)
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    tests = [name for path in files for name in re.findall(r"^async def (test_\w+)", path.read_text("utf-8"), re.M)]
    assert len(tests) > 10
    assert sorted(named) == sorted(tests)
