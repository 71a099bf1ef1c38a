"""A restored ledger is another history: new epochs, inbox numbers that were never given out, and the facts of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ledger import (
    Committed,
    DirectAcked,
    DirectEntry,
    LedgerCut,
    LedgerDamaged,
    LedgerRefused,
    Reader,
    Repeated,
    RoomCheckpointed,
    RoomEnded,
    database_path,
    make_key,
    open_directory,
)
from broker.ledger.backup import back_up
from broker.ledger.entries import LEDGER_RESTORED, Submission
from broker.ledger.head import HeadFile
from broker.ledger.lock import lock_directory, unlock_directory
from broker.ledger.restore import restore
from broker.ledger.store import Store
from tests.support.examples import examples
from tests.support.faulty_disk import event, filled, quick_directory, write_mark

NOW_MS = 5000


def hello(user: str = "ann") -> Submission:
    return Submission((DirectEntry(user, 1, 1, 2**50, b"hello"),))


def copied(directory: Path) -> Path:
    """A ledger with rooms and messages, and a backup of it, whose path is returned; the ledger goes on afterwards."""
    data = directory / "data"
    data.mkdir()
    store = Store(database_path(data))
    store.commit(
        [
            event(1),
            event(2),
            event(1, "over"),
            Submission((RoomEnded("over", 7, 2),)),
            Submission((RoomCheckpointed("lobby", 7, 3, b"likes 5"),)),
            Submission((event(3).items[0],), (make_key("gift", "1"),)),
            hello(),
            hello(),
            Submission((DirectAcked("ann", 1, 4),)),
        ]
    )
    reader = Reader(store.path)
    back_up(reader, directory / "copy.db")
    reader.close()
    store.commit([event(4), event(5), hello(), hello("eve")])  # what the copy does not have
    write_mark(store)
    store.close()
    return directory / "copy.db"


def test_a_restored_ledger_gives_out_no_offset_and_no_number_again() -> None:
    with quick_directory() as directory:
        copy = copied(directory)
        new = directory / "new"
        restored = restore(new, copy, now_ms=NOW_MS, new_epoch=lambda: 8)
        assert (restored.rooms, restored.lost) == (1, "")
        reader = open_directory(new)
        assert reader.verify_all() == restored.entries
        assert [(room.room, room.epoch, room.last_offset, room.totals) for room in reader.rooms()] == [
            ("lobby", 8, 0, b"likes 5")
        ]
        assert reader.history("lobby", 7, 0, 3) is not None, "the old epoch can still be exported"
        assert [direct.direct_id for direct in reader.inbox("ann", 0)] == [2]
        reader.close()
        store = Store(database_path(new))
        known = Submission((event(9).items[0],), (make_key("gift", "1"),))
        ann, eve, first, again = store.commit([hello(), hello("eve"), event(4, epoch=8), known])
        assert isinstance(ann, Committed)
        assert isinstance(eve, Committed)
        assert ann.direct_ids[0] > 3
        assert eve.direct_ids[0] > 1
        assert first == Committed((1,))
        assert isinstance(again, Repeated), "keys are kept"
        store.close()


def test_a_restore_is_a_fact_in_the_ledger() -> None:
    with quick_directory() as directory:
        restore(directory / "new", copied(directory), now_ms=NOW_MS)
        reader = open_directory(directory / "new")
        last = [entry for entry, *_ in reader.entries()][-1]
        assert (last.kind, last.at_ms, json.loads(last.body)) == (LEDGER_RESTORED, NOW_MS, {"lost": ""})
        reader.close()


def test_every_history_has_a_lineage_of_its_own() -> None:
    with quick_directory() as directory:
        copy = copied(directory)
        lineages = set()
        for name in ("one", "two"):
            restore(directory / name, copy, now_ms=NOW_MS)
            mark = HeadFile.read(directory / name / "ledger.head")
            assert mark is not None
            lineages.add(mark.lineage)
        mark = HeadFile.read(directory / "data" / "ledger.head")
        assert mark is not None
        assert len(lineages | {mark.lineage}) == 3
        # The mark of one history beside the file of another.
        (directory / "one" / "ledger.head").write_bytes((directory / "two" / "ledger.head").read_bytes())
        with pytest.raises(LedgerCut, match="another history"):
            open_directory(directory / "one")


def test_a_directory_with_a_ledger_is_left_alone() -> None:
    with quick_directory() as directory:
        copy = copied(directory)
        before = database_path(directory / "data").read_bytes()
        with pytest.raises(LedgerRefused, match="is there already"):
            restore(directory / "data", copy, now_ms=NOW_MS)
        assert database_path(directory / "data").read_bytes() == before


def test_a_directory_in_use_is_left_alone() -> None:
    with quick_directory() as directory:
        copied(directory)
        lock = lock_directory(directory / "data")
        with pytest.raises(LedgerRefused, match="in use by process"):
            restore(directory / "data", None, now_ms=NOW_MS)
        unlock_directory(lock)


def test_a_damaged_copy_is_refused_and_leaves_nothing() -> None:
    with quick_directory() as directory:
        copy = copied(directory)
        copy.write_bytes(copy.read_bytes().replace(b"event 2", b"eVent 2"))
        with pytest.raises(LedgerDamaged, match="entry 2"):
            restore(directory / "new", copy, now_ms=NOW_MS)
        assert [path.name for path in (directory / "new").iterdir()] == ["ledger.lock"]


def test_a_cut_ledger_goes_on_only_where_its_loss_is_accepted() -> None:
    with quick_directory() as directory:
        path = filled(directory, 20)
        mark = HeadFile.read(directory / "ledger.head")
        assert mark is not None
        marks = HeadFile(directory / "ledger.head")
        marks.write(mark._replace(batch=mark.batch + 2, seq=mark.seq + 3))
        marks.close()
        before = path.read_bytes()
        with pytest.raises(LedgerCut, match="entry 23 was acknowledged"):
            restore(directory, None, now_ms=NOW_MS)
        assert path.read_bytes() == before
        restored = restore(directory, None, accept_loss=True, now_ms=NOW_MS)
        assert "entry 23 was acknowledged" in restored.lost
        reader = open_directory(directory)
        assert reader.rooms()[0].last_offset == 0
        reader.close()


def test_a_ledger_that_is_damaged_in_the_middle_is_not_accepted() -> None:
    with quick_directory() as directory:
        path = filled(directory, 20)
        path.write_bytes(path.read_bytes().replace(b"event 17", b"eVent 17"))
        with pytest.raises(LedgerDamaged, match="entry 18"):
            restore(directory, None, accept_loss=True, now_ms=NOW_MS)


def test_a_good_ledger_begins_another_history_in_place() -> None:
    """What an operator does after putting back a snapshot of the whole volume: the file itself cannot know."""
    with quick_directory() as directory:
        filled(directory, 3)
        assert restore(directory, None, now_ms=NOW_MS, new_epoch=lambda: 9).lost == ""
        reader = open_directory(directory)
        assert [(room.epoch, room.last_offset) for room in reader.rooms()] == [(9, 0)]
        reader.close()


@examples(15)
@given(st.lists(st.integers(0, 4), max_size=4))
def test_numbers_only_rise_over_any_number_of_restores(sent: list[int]) -> None:
    with quick_directory() as directory:
        (directory / "0").mkdir()
        store = Store(database_path(directory / "0"))
        last = 0
        for number, count in enumerate(sent):
            for _ in range(count):
                (result,) = store.commit([hello()])
                assert isinstance(result, Committed)
                assert result.direct_ids[0] > last
                last = result.direct_ids[0]
            reader = Reader(store.path)
            back_up(reader, directory / f"{number}.db")
            reader.close()
            (lost,) = store.commit([hello()])  # given out, and not in the copy
            assert isinstance(lost, Committed)
            last = lost.direct_ids[0]
            store.close()
            restore(directory / f"after-{number}", directory / f"{number}.db", now_ms=NOW_MS)
            store = Store(database_path(directory / f"after-{number}"))
        store.close()
        assert last < 2**53
