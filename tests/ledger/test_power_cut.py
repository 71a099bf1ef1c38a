"""The power goes: an ext4 image on a loop device is copied as the disk has it at that moment, and the copy is mounted.

What the kernel had not written yet is not in the copy, so an acknowledgement that came before its fsync is found out.
The second test makes the publisher lie about that, and shows that it is found out indeed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.ledger import LedgerRefused
from tests.support.ledger_process import check, first_open, read_all, start, take_acks

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting an image needs root"),
    pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs mkfs.ext4"),
]


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{command[0]}: {done.stderr.strip()}")


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    run("mount", "-o", "loop", image, at)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def fresh_image(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    run("mkfs.ext4", "-q", path)
    return path


def publish_and_cut_power(image: Path, work: Path, acked: dict[int, int], acks: int, *options: str) -> Path:
    """Publish onto the image, stop everything in the middle, and return the image as the disk had it."""
    copy = work / "after.img"
    with mounted(image, work / "disk") as disk:
        process = start(disk / "data", first_open(acked), *options)
        assert process.stdout is not None
        try:
            take_acks(process.stdout, acked, acks)
            process.send_signal(signal.SIGSTOP)
            shutil.copy(image, copy)
        finally:
            process.kill()
            process.communicate()
    return copy


def test_power_cuts_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acked: dict[int, int] = {}
    image = fresh_image(tmp_path / "before.img")
    for cycle in range(8):
        copy = publish_and_cut_power(image, tmp_path, acked, 50 + 200 * cycle)
        shutil.move(copy, image)
        with mounted(image, tmp_path / "disk") as disk:
            check(read_all(disk / "data"), acked)
    assert len(acked) > 5000


def test_an_acknowledgement_before_the_sync_would_be_found_out(tmp_path: Path) -> None:
    acked: dict[int, int] = {}
    image = fresh_image(tmp_path / "before.img")
    copy = publish_and_cut_power(image, tmp_path, acked, 500, "--lie")
    with mounted(copy, tmp_path / "disk") as disk, pytest.raises((AssertionError, LedgerRefused)):
        check(read_all(disk / "data"), acked)
