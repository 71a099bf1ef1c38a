"""Records of one kind: read whole over several pages, and removed in several submissions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from broker.ledger import Item, Ledger, LedgerResult, Reader, RecordPut, RecordRemoved, SubmitResult, database_path
from broker.ledger.entries import Submission
from broker.ledger.records import PAGE, all_records, read_records, remove_records
from broker.ledger.store import Store
from protocol.frames import pack_body
from tests.support.faulty_disk import quick_directory

NAMES = [f"{number:05}" for number in range(2 * PAGE + 1)]


def test_all_records_of_a_kind_are_read_but_those_of_a_later_version() -> None:
    puts: list[Item] = [RecordPut("pin", "lobby", name, 1, pack_body((int(name), "new"))) for name in NAMES]
    puts[PAGE] = RecordPut("pin", "lobby", NAMES[PAGE], 1, b"\xc1")
    puts[PAGE + 1] = RecordPut("pin", "lobby", NAMES[PAGE + 1], 1, pack_body(()))
    others = RecordPut("a", "lobby", "x", 1, b""), RecordPut("z", "lobby", "x", 1, b"")
    with quick_directory() as directory:
        store = Store(database_path(directory))
        store.commit([Submission((*puts, *others))])
        reader = Reader(store.path)
        try:
            assert [record.name for record in all_records(reader, "pin")] == NAMES
            made = list(read_records(reader, "pin", lambda record, body: (record.name, body[0])))
        finally:
            reader.close()
            store.close()
    assert made == [(name, int(name)) for name in NAMES if name not in NAMES[PAGE : PAGE + 2]]


def test_each_record_is_removed_once_in_bounded_submissions() -> None:
    class Submissions:
        def __init__(self) -> None:
            self.made: list[Sequence[Any]] = []

        def record(self, items: Sequence[Item], on_done: Callable[[LedgerResult], None]) -> SubmitResult:
            self.made.append(items)
            return SubmitResult.UNAVAILABLE  # at the start of the next run they are found again

    submissions = Submissions()
    remove_records(cast(Ledger, submissions), [RecordRemoved("pin", "lobby", name) for name in NAMES])
    assert [len(items) for items in submissions.made] == [PAGE, PAGE, 1]
    assert [item.name for items in submissions.made for item in items] == NAMES
