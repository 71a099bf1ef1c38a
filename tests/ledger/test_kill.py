"""SIGKILL in the middle of commits: acknowledged minus recovered is nothing, and nothing is there twice.

SIGKILL cannot find a missing fsync; `test_power_cut` does.
"""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest

from tests.support.faulty_disk import quick_directory
from tests.support.ledger_process import check, first_open, read_all, start, take_acks

pytestmark = pytest.mark.integration


def kill_cycles(directory: Path, cycles: int, rng: random.Random) -> dict[int, int]:
    """Start, take some acknowledgements, kill, start again; some die while they open."""
    acked: dict[int, int] = {}
    for cycle in range(cycles):
        process = start(directory, first_open(acked))
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline() == "opening\n", process.stderr.read()
            if cycle % 3 != 1:
                before = len(acked)
                take_acks(process.stdout, acked, rng.randint(1, 400))
                assert len(acked) > before or process.poll() is None, process.stderr.read()
        finally:
            process.kill()
        take_acks(process.stdout, acked, 1_000_000)  # what it had said before it died counts as acknowledged
        process.wait()
        process.stdout.close()
        process.stderr.close()
        if cycle % 4 == 3:
            check(read_all(directory), acked)
    check(read_all(directory), acked)
    return acked


def test_what_was_acknowledged_survives_kills() -> None:
    with quick_directory() as directory:
        acked = kill_cycles(directory, 3, random.Random(5))
        assert len(acked) > 100


@pytest.mark.slow
def test_fifty_kills_lose_nothing_and_repeat_nothing() -> None:
    with quick_directory() as directory:
        kill_cycles(directory, 50, random.Random(6))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_each_acknowledgement_follows_a_sync_of_the_log(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    prefix = ("strace", "-f", "-y", "-o", str(trace), "-e", "trace=pwrite64,fdatasync,fsync,write")
    process = start(tmp_path / "data", 0, "--window", "1", "--count", "100", prefix=prefix)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert len(re.findall(r"^\d+ \d+$", output, re.MULTILINE)) == 100
    acknowledged = synced = unsynced = 0
    for line in trace.read_text().splitlines():
        if "pwrite64(" in line and "ledger.db-wal" in line:
            unsynced += 1
        elif re.search(r"f(data)?sync\(\d+<[^>]*ledger\.db-wal>\)\s+= 0", line) or re.search(
            r"sync resumed.*= 0", line
        ):
            synced, unsynced = synced + 1, 0
        elif re.search(r'write\(1<[^>]*>, "\d+ \d+', line):
            acknowledged += 1
            assert unsynced == 0, f"acknowledged before the log was synced: {line}"
            assert synced >= acknowledged, f"acknowledged without a sync of its own: {line}"
    assert acknowledged == 100
