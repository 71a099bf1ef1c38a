"""A process that publishes to a ledger, and checks of the ledger that it leaves behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import IO

from broker.ledger import Reader, StoredEntry, database_path

ROOT = Path(__file__).parent.parent.parent
ROOMS = 5


def start(directory: Path, first: int, *options: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a publisher that continues with event ``first``."""
    command = [sys.executable, "-m", "tests.support.ledger_publisher", str(directory)]
    command += ["--first", str(first), "--rooms", str(ROOMS), *options]
    return subprocess.Popen(
        [*prefix, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def take_acks(output: IO[str], acked: dict[int, int], count: int) -> None:
    """Read lines until ``count`` events were acknowledged (or the end), and record number and offset."""
    while count:
        line = output.readline()
        if not line:
            return
        if re.fullmatch(r"\d+ \d+\n", line):
            number, offset = map(int, line.split())
            assert acked.setdefault(number, offset) == offset, f"event {number} was acknowledged at two offsets"
            count -= 1


def read_all(directory: Path) -> list[StoredEntry]:
    """Return every entry of a verified ledger."""
    reader = Reader(database_path(directory))
    try:
        reader.verify_all()
        return [entry for entry, *_ in reader.entries()]
    finally:
        reader.close()


def check(entries: list[StoredEntry], acked: dict[int, int]) -> None:
    """Check that each acknowledged event is stored once at its offset, and no room has a gap."""
    found = Counter(int(entry.body) for entry in entries)
    assert [number for number, count in found.items() if count > 1] == []
    offsets = {int(entry.body): entry.offset for entry in entries}
    lost = {number: offset for number, offset in acked.items() if offsets.get(number) != offset}
    assert lost == {}
    for room in range(ROOMS):
        mine = [entry.offset for entry in entries if entry.room == f"room-{room}"]
        assert mine == list(range(1, len(mine) + 1))


def first_open(acked: dict[int, int]) -> int:
    """Return the lowest number that was not acknowledged: a client retries from there."""
    number = 0
    while number in acked:
        number += 1
    return number
