"""The copy that a node has of the logs of its rooms."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from broker.ledger import Store, database_path
from broker.rooms.ledger_copies import open_copy


def test_a_copy_does_not_wait_for_the_disk_and_a_ledger_does(tmp_path: Path) -> None:
    for name, wanted in (("copy", 0), ("ledger", 2)):
        (tmp_path / name).mkdir()
        path = database_path(tmp_path / name)
        with closing(open_copy(None, path) if name == "copy" else Store(path)) as store:
            assert store.connection.execute("PRAGMA synchronous").fetchone() == (wanted,)
