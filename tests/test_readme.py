"""What README says of faults is what the sources say."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from broker.config.schema import Config

ROOT = Path(__file__).parent.parent
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("## When things break\n")[2].partition("\n## ")[0]
ROWS = [line.strip("|").split("|") for line in SECTION.splitlines() if line.startswith("|")][2:]


def test_every_log_line_of_the_table_of_faults_is_one_that_the_broker_writes() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "broker").rglob("*.py"))
    told = [line for row in ROWS for line in re.findall("`([^`]+)`", row[2]) if not line.startswith("Error: ")]
    assert len(told) > 12
    assert [line for line in told if f'"{line}"' not in sources] == []


def test_every_setting_of_the_table_of_faults_is_one() -> None:
    settings = msgspec.to_builtins(Config())
    named = [name.split(".") for name in re.findall(r"`([a-z]+\.[a-z_]+)`", SECTION)]
    assert len(named) >= 4
    assert [f"{part}.{name}" for part, name in named if name not in settings[part]] == []
