"""What other users of the machine may read of a data directory that was there before."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import structlog.testing

from broker.auth.ticket_keys import FILE_NAME, TicketKeyFile
from broker.ledger.lock import lock_directory, unlock_directory
from broker.ledger.privacy import make_private

OWN = ("ledger.db", "ledger.db-wal", "ledger.head", "ledger.lock")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def make(directory: Path, names: tuple[str, ...], mode: int, directory_mode: int) -> Path:
    directory.mkdir()
    for name in names:
        (directory / name).touch()
        (directory / name).chmod(mode)
    directory.chmod(directory_mode)
    return directory


@pytest.mark.parametrize("file_mode", [0o644, 0o640, 0o600])
@pytest.mark.parametrize("directory_mode", [0o755, 0o2770, 0o700])
def test_a_data_directory_is_private_once_it_is_in_use(tmp_path: Path, file_mode: int, directory_mode: int) -> None:
    directory = make(tmp_path / "data", OWN, file_mode, directory_mode)
    with structlog.testing.capture_logs() as lines:
        unlock_directory(lock_directory(directory))
    assert mode_of(directory) & 0o777 == 0o700
    assert {mode_of(directory / name) for name in OWN} == {0o600}
    changed = {line["path"]: line["before"] for line in lines}
    if directory_mode != 0o700:
        assert changed.pop(str(directory)) == f"{directory_mode:04o}"
    # The lock is opened first, which makes it private.
    assert set(changed) == ({str(directory / name) for name in OWN[:3]} if file_mode != 0o600 else set())


def test_a_directory_with_other_files_keeps_its_mode_and_theirs(tmp_path: Path) -> None:
    directory = make(tmp_path / "with a space", (*OWN, "notes.txt"), 0o644, 0o755)
    with structlog.testing.capture_logs() as lines:
        make_private(directory)
    assert (mode_of(directory), mode_of(directory / "notes.txt")) == (0o755, 0o644)
    assert mode_of(directory / "ledger.db") == 0o600
    (line,) = (line for line in lines if line["path"] == str(directory))
    assert line["remedy"] == f"chmod 700 '{directory}'"


def test_a_link_in_a_data_directory_changes_nothing_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    elsewhere.chmod(0o644)
    directory = make(tmp_path / "data", (), 0o600, 0o700)
    (directory / "ledger.link").symlink_to(elsewhere)
    make_private(directory)
    assert mode_of(elsewhere) == 0o644


def test_a_mode_that_cannot_be_changed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make(tmp_path / "data", OWN, 0o600, 0o755)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(Path, "chmod", refuse)
    with structlog.testing.capture_logs() as lines:
        make_private(directory)
    assert [(line["event"], line["why"]) for line in lines] == [("other users have access", os.strerror(1))]


def test_a_key_for_tickets_that_others_could_read_is_replaced(tmp_path: Path) -> None:
    directory = make(tmp_path / "data", (), 0o600, 0o700)
    file = TicketKeyFile(directory, 600, lambda keys: None)
    keys = file.load()
    assert file.load() == keys
    (directory / FILE_NAME).chmod(0o640)
    with structlog.testing.capture_logs() as lines:
        unlock_directory(lock_directory(directory))
        replaced = file.load()
    assert replaced.keys[0].secret != keys.keys[0].secret
    assert mode_of(directory / FILE_NAME) == 0o600
    assert [line["event"] for line in lines] == ["other users had access to the key for tickets; making a new one"]
