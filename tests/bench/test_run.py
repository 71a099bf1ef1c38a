"""Whole runs in small sizes: real processes, real sockets, exit status and report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from bench.cli import bench as command

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
SMALL = ["--viewers", "24", "--seconds", "1.5", "--rate", "40"]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True, text=True, timeout=90, check=False, cwd=ROOT, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def test_a_run_holds_its_invariants_writes_its_report_and_ends_its_processes(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    html, result = tmp_path / "report.html", tmp_path / "result.json"
    done = bench("run", "chat-flood", "--smoke", *SMALL, "--html", str(html), "--json", str(result))
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(result.read_text())["runs"]
    assert run["invariants"]["violations"] == []
    assert run["invariants"]["checked"] > 30
    assert run["lanes"]["chat"]["admitted"] > 0
    assert run["latencies"]["chat"]["count"] > 0
    assert {sweep["loop"] for sweep in run["floor"]["sweeps"]} >= {"python"}
    page = html.read_text()
    assert page.count("<svg") >= 5
    assert "equations hold" in page
    assert "(a) real links" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ), "the page loads nothing"
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_a_receiver_that_drops_one_frame_fails_the_run() -> None:
    done = bench("run", "calm", "--smoke", *SMALL, "--fault", "drop-frame")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "INVARIANT VIOLATED calm: viewer" in done.stderr


def test_viewers_on_shared_sockets_hold_the_invariants() -> None:
    done = bench("run", "one-room-100k", "--smoke", "--viewers", "40", "--seconds", "1.5", "--rate", "40")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "viewers per socket" in done.stdout


@pytest.mark.slow
def test_a_reconnect_storm_with_a_ledger_misses_nothing(tmp_path: Path) -> None:
    html, result = tmp_path / "report.html", tmp_path / "result.json"
    sizes = ["--smoke", "--viewers", "30", "--seconds", "5"]
    done = bench("run", "reconnect-storm", *sizes, "--html", str(html), "--json", str(result))
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(result.read_text())["runs"]
    assert run["headline"]["events_missed"] == run["headline"]["events_repeated"] == 0
    assert run["headline"]["back_s"] > 2, "the second wave stays away for two seconds"
    assert run["lanes"]["commerce"]["shown"] > 0
    assert run["ledger"]["verified"]["entries"] >= run["lanes"]["commerce"]["shown"] + run["lanes"]["paid"]["shown"]
    assert any("resumes:" in note and "from the ledger" in note for note in run["notes"])
    assert "The ledger" in html.read_text()


@pytest.mark.slow
def test_an_entry_deleted_from_the_ledger_fails_the_run() -> None:
    done = bench("run", "durable-gifts", "--smoke", "--seconds", "1", "--fault", "drop-entry")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "INVARIANT VIOLATED durable-gifts: the ledger does not verify" in done.stderr


def test_in_a_pipe_no_line_is_cut_off_whatever_columns_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "list"],
        capture_output=True, text=True, timeout=60, check=True, cwd=ROOT, env={**os.environ, "COLUMNS": "40"},
    )  # fmt: skip
    assert "…" not in done.stdout
    assert "goal: durable events acknowledged a second at least 8,000 /s" in done.stdout
    assert '[broker.room] policy = "nim"' in " ".join(done.stdout.split()), "brackets are no markup"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "no-such"], "there is no scenario"),
        (["run", "calm", "--rooms", "9", "--viewers", "3"], "rooms"),
        (["run", "calm", "--against", "carrier-pigeon"], "carrier-pigeon"),
        (["run", "calm", "--budget", "0.2"], "too much for 0.2 minutes"),
    ],
)
def test_invalid_options_are_reported_before_anything_runs(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(command, arguments, prog_name="bench", env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert words in done.stderr
