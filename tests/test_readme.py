"""What README and the guides say of files, faults and settings is what the sources say."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from broker.config.schema import Config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SURVIVE = (ROOT / "broker" / "guides" / "survive.md").read_text(encoding="utf-8")
SECTION = SURVIVE.partition("## When things break\n")[2].partition("\n## ")[0]
ROWS = [line.strip("|").split("|") for line in SECTION.splitlines() if line.startswith("|")][2:]


def test_every_log_line_of_the_table_of_faults_is_one_that_the_broker_writes() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "broker").rglob("*.py"))
    quoted = [line for row in ROWS for line in re.findall("`([^`]+)`", row[2]) if not line.startswith("Error: ")]
    assert len(quoted) > 12
    assert [line for line in quoted if f'"{line}"' not in sources] == []


def test_every_setting_of_the_table_of_faults_is_one() -> None:
    settings = msgspec.to_builtins(Config())
    named = [name.split(".") for name in re.findall(r"`([a-z]+\.[a-z_]+)`", SECTION)]
    assert len(named) >= 4
    assert [f"{part}.{name}" for part, name in named if name not in settings[part]] == []


def test_readme_has_at_most_250_lines() -> None:
    assert README.count("\n") <= 250


def test_every_file_of_the_table_of_capabilities_is_there() -> None:
    table = README.partition("| capability | file |\n")[2].partition("\n\n")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines()][1:]
    assert len(rows) > 20
    for capability, cell in rows:
        paths = re.findall("`([^`]+)`", cell)
        assert paths, capability
        assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_link_of_readme_and_the_guides_leads_to_a_file() -> None:
    for page in (ROOT / "README.md", *(ROOT / "broker" / "guides").glob("*.md")):
        targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        inside = [target for target in targets if "://" not in target]
        assert inside
        assert [target for target in inside if not (page.parent / target).exists()] == []
