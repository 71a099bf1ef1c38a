"""The commands that need no package of the extra ``bench`` run without it; the others name what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.extra import EXTRA_MODULES

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
WITHOUT_EXTRA = f"""
import sys
for name in {(*EXTRA_MODULES, "websockets")}:
    sys.modules[name] = None
from broker.cli.main import main
main(prog_name="roomcast")
"""


def roomcast(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``roomcast bench`` in a process that cannot import the extra packages."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRA, "bench", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], "compare"),
        (["run", "--help"], "--viewers"),
        (["compare", "--help"], "BEFORE AFTER"),
        (["micro", "--help"], "fanout-tcp"),
        (["list"], "one-room-100k"),
    ],
)
def test_help_and_list_need_no_extra_package(arguments: list[str], words: str) -> None:
    done = roomcast(*arguments)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout


@pytest.mark.parametrize("arguments", [["run", "calm", "--smoke"], ["micro", "--inside", "ledger", "--smoke"]])
def test_a_run_without_the_extra_names_the_command_that_installs_it(arguments: list[str]) -> None:
    done = roomcast(*arguments)
    assert done.returncode == 1
    assert "numpy" in done.stderr
    assert "In a clone: pip install -e '.[bench]'" in done.stderr
    assert "Traceback" not in done.stderr
