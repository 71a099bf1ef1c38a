"""A small run of the fuzzer with every test run; ``python -m tests.protocol.fuzz`` does the million."""

from __future__ import annotations

import subprocess
import sys

import pytest

from protocol.codes import CloseCode
from protocol.connection import Connection
from tests.protocol import fuzz as module
from tests.protocol.fuzz import fuzz

FRAMES, SEEDS = 5_000, (1, 2, 3, 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_frames_give_events_or_named_errors_and_bounded_buffers(seed: int) -> None:
    report = fuzz(FRAMES, seed)
    assert report.failure == ""
    assert report.frames >= FRAMES
    assert report.events > FRAMES / 20, "mutations must leave something to read"
    assert report.refusals > FRAMES / 100
    assert len(report.closes) >= 6, "the damage must reach many different judges"
    assert set(report.closes) <= {code.name for code in CloseCode}


def test_a_run_is_the_same_for_the_same_seed() -> None:
    assert str(fuzz(500, 9)) == str(fuzz(500, 9)) != str(fuzz(500, 10))


def test_the_fuzzer_finds_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(Connection):
        """Forgets what it held when a piece ends inside a frame."""

        __slots__ = ()

        def receive_data(self, data: bytes) -> None:
            self._buffer, self._position = data, 0

    monkeypatch.setattr(module, "Connection", Careless)
    report = fuzz(FRAMES, 1)
    assert "pieces give something else than the whole" in report.failure
    assert " sent '" in report.failure, "it can be reproduced"


@pytest.mark.integration
def test_the_command_prints_its_figures() -> None:
    command = [sys.executable, "-m", "tests.protocol.fuzz", "--frames", "300", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("seed 5: 30")
    assert "frames/s" in done.stdout
