"""``roomcast serve`` with a ledger that cannot be used: status 1, no standard output, and the reason in one line."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from click.testing import CliRunner

from broker.cli.main import main
from broker.cli.serve import _serve
from broker.ledger import Ledger
from tests.support.broker import configuration
from tests.support.faulty_disk import filled
from tests.support.file_systems import fill, mounted_tmpfs, remount

pytestmark = pytest.mark.integration

Damage = Callable[[Path, ExitStack], None]


def locked(directory: Path, stack: ExitStack) -> None:
    connection = sqlite3.connect(filled(directory, 20), isolation_level=None)
    stack.callback(connection.close)
    connection.execute("BEGIN IMMEDIATE")


def newer(directory: Path, stack: ExitStack) -> None:
    connection = sqlite3.connect(filled(directory, 20))
    connection.execute("PRAGMA user_version=99")
    connection.close()


def older(directory: Path, stack: ExitStack) -> None:
    connection = sqlite3.connect(filled(directory, 20))
    connection.execute("ALTER TABLE entries DROP COLUMN salt")
    connection.close()


def changed_in_the_middle(directory: Path, stack: ExitStack) -> None:
    path = filled(directory, 50)
    path.write_bytes(path.read_bytes().replace(b"event 17", b"eVent 17"))


def cut_in_half(directory: Path, stack: ExitStack) -> None:
    path = filled(directory, 500)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def full(directory: Path, stack: ExitStack) -> None:
    stack.enter_context(_disk(directory))
    filled(directory, 20)
    fill(directory / "ballast")


def full_and_new(directory: Path, stack: ExitStack) -> None:
    stack.enter_context(_disk(directory))
    fill(directory / "ballast")


def read_only(directory: Path, stack: ExitStack) -> None:
    stack.enter_context(_disk(directory))
    filled(directory, 20)
    remount(directory, "ro")


@contextmanager
def _disk(directory: Path) -> Iterator[None]:
    directory.rmdir()
    with mounted_tmpfs(directory, "400k"):
        yield


REFUSALS: list[tuple[Damage, str]] = [
    (locked, "ledger.db: locked by another process: "),
    (newer, "ledger.db: written by a newer roomcast (ledger version 99, this one knows 1); nothing was changed"),
    (older, "ledger.db: a ledger of version 1 that an older development version of roomcast wrote: it has no column"),
    (changed_in_the_middle, "ledger.db: entry 18 is not what was written (checksum)"),
    (cut_in_half, "ledger.db: damaged: "),
    (full, "ledger.db: disk full: "),
    (full_and_new, "ledger.db: disk full: "),
    (read_only, ": cannot be written: Read-only file system"),
]


@pytest.mark.parametrize(("damage", "reason"), REFUSALS, ids=[damage.__name__ for damage, _ in REFUSALS])
def test_an_unusable_ledger_is_refused_with_the_reason_in_one_line(
    damage: Damage, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.telemetry.process.tune_process", lambda: None)
    directory = tmp_path / "data"
    directory.mkdir()
    with ExitStack() as stack:
        damage(directory, stack)
        done = CliRunner().invoke(main, ["serve", "--port", "0", "--data-dir", str(directory)])
    errors = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert (done.exit_code, done.stdout, len(errors)) == (1, "", 1), done.output
    assert errors[0].startswith(f"Error: {directory}")
    assert reason in errors[0]


async def test_a_signal_while_the_ledger_opens_ends_the_broker_before_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("broker.telemetry.process.tune_process", lambda: None)
    reached, released = threading.Event(), threading.Event()
    opened = Ledger._open

    def slowly(ledger: Ledger) -> Any:
        reached.set()
        assert released.wait(20)
        return opened(ledger)

    monkeypatch.setattr(Ledger, "_open", slowly)
    config = configuration(ledger={"data_dir": str(tmp_path)})
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, config, lambda: config, {}, None)
            await trio.to_thread.run_sync(reached.wait)
            signal.raise_signal(signal.SIGTERM)
            await trio.testing.wait_all_tasks_blocked()
            released.set()
    assert '"serving"' not in capsys.readouterr().out
