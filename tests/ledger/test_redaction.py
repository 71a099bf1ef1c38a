"""What is removed for good: messages of a user, and whatever the file still held of what was replaced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from broker.ledger import (
    CANCEL_ROWS,
    MAX_REDACTED,
    Committed,
    DirectAcked,
    DirectEntry,
    DirectsRemoved,
    EntriesRedacted,
    Entry,
    Ledger,
    LedgerRefused,
    Pace,
    Reader,
    database_path,
)
from broker.ledger.entries import LEDGER_RESTORED, Submission
from broker.ledger.key_file import KEY_BYTES, LedgerKey, LedgerKeys
from broker.ledger.store import Store
from tests.support.faulty_disk import quick_directory

ANN = "ann-7f3a91"
"""No shorter: the digests of a long ledger hold any three bytes by chance."""
SECRET = ANN.encode() + b"'s secret text"
QUICK = Pace(idle_s=0.005, maintenance_s=0.01, scrub_retry_s=0.02)


@pytest.fixture
def store() -> Iterator[Store]:
    with quick_directory() as directory:
        store = Store(database_path(directory))
        yield store
        store.close()


def direct(user: str) -> Submission:
    return Submission((DirectEntry(user, 1, 1, 2**50, SECRET if user == "ann" else b"hello"),))


def verified(store: Store) -> Reader:
    reader = Reader(store.path)
    reader.verify_all()
    return reader


def test_messages_of_a_user_go_in_batches_and_the_inbox_with_the_last_of_them(store: Store) -> None:
    store.commit([direct("ann")] * (CANCEL_ROWS + 3))
    store.commit([direct("bob"), Submission((DirectAcked("ann", 2, 1),))])
    removal = Submission((DirectsRemoved("ann"),))
    left = [3, 0, 0]
    for count in left:
        store.commit([removal])
        reader = verified(store)
        assert len(reader.inbox("ann", 0, is_pending_only=False)) == count
        assert [each.direct_id for each in reader.inbox("bob", 0)] == [1]
        inboxes = reader.connection.execute("SELECT user FROM inboxes ORDER BY user").fetchall()
        assert inboxes == [("ann",), ("bob",)][not count :]
        reader.close()


def test_no_number_of_a_removed_inbox_is_given_again(store: Store) -> None:
    store.commit([direct("ann")] * 3)
    results = store.commit([Submission((DirectsRemoved("ann"),)), direct("ann"), direct("new")])
    assert results[1:] == [Committed((), (4,)), Committed((), (4,))]
    verified(store).close()


def test_messages_and_their_removal_in_one_commit(store: Store) -> None:
    store.commit([direct("ann"), Submission((DirectsRemoved("ann"),)), direct("bob")])
    reader = verified(store)
    assert reader.connection.execute("SELECT user FROM directs UNION SELECT user FROM inboxes").fetchall() == [("bob",)]
    reader.close()


def test_a_redaction_of_too_many_entries_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 1000 bodies"):
        Submission((EntriesRedacted("test", 1, ((1, b""),) * (MAX_REDACTED + 1)),))


async def commit(ledger: Ledger, *items: Entry | EntriesRedacted | DirectEntry | DirectsRemoved) -> None:
    ledger.record(items, lambda result: None)
    await ledger.flush()


async def erase_ann(ledger: Ledger) -> None:
    for number in range(50):
        await commit(ledger, Entry("lobby", 7, 1, 4, 1, SECRET * (number % 7 + 1)), DirectEntry(ANN, 1, 1, 9, SECRET))
    bodies = tuple((seq, b"redacted") for seq in range(1, 51))
    await commit(ledger, EntriesRedacted("test", 1, bodies), DirectsRemoved(ANN))


def files_hold_the_secret(ledger: Ledger) -> bool:
    return any(
        ANN.encode() in path.read_bytes() for path in ledger.directory.glob("ledger.db*") if "-shm" not in path.name
    )


async def test_a_scrub_leaves_nothing_of_what_was_replaced_in_the_file_and_in_its_log() -> None:
    with quick_directory() as directory:
        ledger = Ledger(directory, unix_ms=lambda: 1, pace=QUICK)
        with pytest.raises(LedgerRefused):
            await ledger.scrub()
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            await erase_ann(ledger)
            assert files_hold_the_secret(ledger)
            await ledger.scrub()
            assert not files_hold_the_secret(ledger)
            assert await ledger.ask(Reader.verify_all) == 51
            assert await ledger.ask(Reader.redacted) == 50
            nursery.cancel_scope.cancel()


async def test_a_scrub_waits_for_readers_and_then_for_its_turn() -> None:
    with quick_directory() as directory:
        ledger = Ledger(directory, unix_ms=lambda: 1, pace=QUICK)
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            await erase_ann(ledger)
            reader = Reader(ledger.path)
            with reader.snapshot():
                reader.redacted()
                with trio.move_on_after(0.3) as waiting:
                    await ledger.scrub()
                assert waiting.cancelled_caught
                await commit(ledger, Entry("lobby", 7, 1, 4, 1, b"more"))
            reader.close()
            await ledger.scrub()
            assert not files_hold_the_secret(ledger)
            nursery.cancel_scope.cancel()


async def test_a_scrub_comes_in_time_although_there_is_no_pause() -> None:
    with quick_directory() as directory:
        ledger = Ledger(directory, unix_ms=lambda: 1, pace=Pace(scrub_within_s=0.05))
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            await erase_ann(ledger)

            def again(result: object) -> None:
                ledger.record((Entry("lobby", 7, 1, 4, 1, b"more"),), again)

            for _ in range(4):
                again(None)
            await ledger.scrub()
            assert not files_hold_the_secret(ledger)
            nursery.cancel_scope.cancel()


def test_a_fact_that_is_never_encrypted_is_not_when_it_is_redacted(store: Store) -> None:
    keys = LedgerKeys((LedgerKey.of(bytes(KEY_BYTES)),), "test")
    store.cipher.use(keys)
    store.commit([Submission((Entry("", 0, None, LEDGER_RESTORED, 1, b"lost"),))])
    store.commit([Submission((EntriesRedacted("erasure", 2, ((1, b"gone"),)),))])
    reader = Reader(store.path, keys)
    assert next(entry.body for entry, *_ in reader.entries()) == b"gone"
    reader.verify_all()
    reader.close()
