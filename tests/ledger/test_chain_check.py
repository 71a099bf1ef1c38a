"""The check of the chain by steps, beside a writer, a redaction and retention: it finds what `verify_all` finds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from broker.ledger import EntriesRedacted, Entry, Reader, database_path
from broker.ledger import verification as module
from broker.ledger.entries import Submission
from broker.ledger.store import Store
from broker.ledger.verification import ChainCheck
from tests.support.faulty_disk import quick_directory

STEP = 4


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(module, "STEP_ENTRIES", STEP)
    with quick_directory() as directory:
        store = Store(database_path(directory))
        yield store
        store.close()


def write(store: Store, count: int) -> None:
    for number in range(count):
        store.commit([Submission((Entry("live-1", 1, 2, 16, 5, b"%d" % number),))])


def run(store: Store, entries: int = 1000, between: Callable[[int], object] = lambda step: None) -> ChainCheck:
    """Take all steps of a check; ``between``: called after each but the last, with its number."""
    check = ChainCheck(entries)
    with closing(Reader(store.path)) as reader:
        steps = 0
        while not check.step(reader):
            steps += 1
            between(steps)
    return check


def change(store: Store, statement: str) -> None:
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(statement)


def head(store: Store) -> tuple[int, bytes]:
    with closing(Reader(store.path)) as reader:
        found, _ = reader.ends()
    return found.seq, found.hash


@pytest.mark.parametrize("count", [0, 1, STEP - 1, STEP, STEP + 1, 3 * STEP])
def test_the_whole_chain_holds_and_its_head_is_returned(store: Store, count: int) -> None:
    write(store, count)
    check = run(store)
    assert (check.problem, check.checked, check.is_whole) == ("", head(store)[0], True)
    assert (check.last, check.hash) == head(store)


def test_only_the_last_entries_are_checked_where_fewer_are_asked_for(store: Store) -> None:
    write(store, 10)
    check = run(store, 6)
    assert (check.problem, check.checked, check.is_whole) == ("", 6, False)
    assert (check.last, check.hash) == head(store)


def test_what_is_written_meanwhile_is_checked_too(store: Store) -> None:
    write(store, 10)
    check = run(store, between=lambda step: write(store, 3) if step == 1 else None)
    assert check.problem == ""
    assert (check.last, check.hash) == head(store)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE entries SET body = 'other' WHERE seq = 7", "entry 7 is not what was written (checksum)"),
        ("UPDATE entries SET hash = zeroblob(32) WHERE seq = 6", "entry 6 does not follow entry 5 (hash chain)"),
        ("DELETE FROM entries WHERE seq = 7", "entry 7 is missing (the next one is 8)"),
        ("DELETE FROM entries WHERE seq > 8", "entries 9 to 10 are missing"),
        ("DELETE FROM entries WHERE seq = 10", "entries 10 to 10 are missing"),
    ],
)
def test_what_was_changed_in_the_file_is_named_without_its_path(store: Store, statement: str, problem: str) -> None:
    write(store, 10)
    change(store, statement)
    check = run(store)
    assert check.problem == f"the ledger: {problem}"
    assert check.checked < 10


def test_a_change_before_the_entries_that_are_asked_for_is_not_seen(store: Store) -> None:
    write(store, 10)
    change(store, "UPDATE entries SET body = 'other' WHERE seq = 2")
    assert run(store, 6).problem == ""
    assert "entry 2 is not" in run(store).problem


@pytest.mark.parametrize("step", [1, 2])
def test_a_redaction_meanwhile_is_vouched_for(store: Store, step: int) -> None:
    write(store, 10)

    def redact(number: int) -> None:
        if number == step:
            store.commit([Submission((EntriesRedacted("erasure", 5, ((2, b"-"), (9, b"-"))),))])

    check = run(store, between=redact)
    assert check.problem == ""
    assert (check.last, check.hash) == head(store)
