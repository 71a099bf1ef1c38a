"""Modes of a data directory that exists already: its files hold messages, orders and keys of users."""

from __future__ import annotations

import shlex
import stat
from pathlib import Path

import structlog

__all__ = ["make_private"]

log = structlog.get_logger("roomcast.ledger")

_OTHERS = 0o077
_KEY_FILE = "ticket.key"
"""`broker.auth.tickets` replaces it where other users could read it: another mode does not make it secret again."""
_OWN_PREFIXES = ("ledger.", "ticket.")


def make_private(directory: Path) -> None:
    """Take the access of other users from a data directory and from the ledger's files in it, with a log line each.

    A directory with other files in it may have another purpose too (``data_dir = "."``): its mode stays, with a
    warning. Nothing is raised where the modes cannot be changed.
    """
    try:
        entries = list(directory.iterdir())
        own = [entry for entry in entries if entry.name.startswith(_OWN_PREFIXES)]
        _restrict(directory, 0o700, may_change=len(own) == len(entries))
        for entry in own:
            if entry.name != _KEY_FILE and entry.is_file() and not entry.is_symlink():
                _restrict(entry, 0o600, may_change=True)
    except OSError as error:
        log.warning("cannot check who may read the data directory", path=str(directory), why=error.strerror)


def _restrict(path: Path, mode: int, *, may_change: bool) -> None:
    before = stat.S_IMODE(path.stat().st_mode)
    if not before & _OTHERS:
        return
    why = "there are other files in it"
    if may_change:
        try:
            path.chmod(mode)
        except OSError as error:
            why = error.strerror or str(error)
        else:
            log.warning("other users had access; the mode is changed", path=str(path), before=f"{before:04o}")
            return
    remedy = f"chmod {mode:o} {shlex.quote(str(path))}"
    log.warning("other users have access", path=str(path), mode=f"{before:04o}", why=why, remedy=remedy)
