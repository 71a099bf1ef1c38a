"""The store against a model: batches that commit, fail or are cut short by a crash, and what is found afterwards."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.ledger import (
    CANCEL_ROWS,
    AnswersRemoved,
    Committed,
    DirectAcked,
    DirectEntry,
    DirectsCancelled,
    DirectsRedacted,
    DirectState,
    EntriesRedacted,
    Entry,
    KeyResult,
    LedgerDamaged,
    OutboxAgain,
    OutboxDone,
    OutboxEntry,
    OutboxLater,
    OutboxRedacted,
    Reader,
    RecordPut,
    RecordRemoved,
    Repeated,
    Retention,
    RoomCheckpointed,
    RoomEnded,
    RoomForgotten,
    RoomOpened,
    StoredOutbox,
    database_path,
    make_key,
    read_directs,
)
from broker.ledger.entries import ENTRIES_REDACTED, MAX_BODY_BYTES, MAX_ITEMS, Item, Submission
from broker.ledger.head import Head, HeadFile
from broker.ledger.key_file import LedgerKeys
from broker.ledger.key_rows import read_keys
from broker.ledger.maintenance import Maintenance
from tests.support.examples import examples
from tests.support.faulty_disk import MEMORY, FaultyStore, crashed_copy, disk_error, event, quick_directory
from tests.support.ledger_keys import keys_of

rooms = st.sampled_from(["lobby", "直播间", "r3"])
epochs = st.integers(1, 2)
users = st.sampled_from(["ann", "bob"])
moments = st.integers(1, 10_000)
texts = st.binary(max_size=12)
outbox_ids = st.integers(1, 6)
record_kinds = st.sampled_from(["room.rules", "pin"])
record_names = st.sampled_from(["", "a"])

items: st.SearchStrategy[Item] = st.one_of(
    st.builds(Entry, rooms, epochs, st.sampled_from([0, 1, 2]), st.integers(1, 255), moments, texts),
    st.builds(Entry, rooms, epochs, st.none(), st.integers(1000, 1005), moments, texts),
    st.builds(
        DirectEntry,
        users,
        st.integers(1, 255),
        moments,
        st.just(2**50),
        texts,
        st.sampled_from(["", "b1"]),
        st.booleans(),
    ),
    st.builds(DirectAcked, users, st.integers(0, 8), moments),
    st.builds(DirectsCancelled, st.just("b1")),
    st.builds(DirectsCancelled, st.just(""), users, st.integers(0, 8), st.booleans()),
    st.builds(OutboxEntry, st.just("gift"), moments, texts, st.sampled_from(["shop", "crm"]), rooms),
    st.builds(OutboxDone, st.tuples(outbox_ids)),
    st.builds(OutboxLater, outbox_ids, st.integers(1, 3), st.none() | moments, st.sampled_from(["", "status 500"])),
    st.builds(OutboxAgain, st.tuples(outbox_ids), moments),
    st.builds(RecordPut, record_kinds, rooms, record_names, moments, texts),
    st.builds(RecordRemoved, record_kinds, rooms, record_names),
    st.builds(RoomOpened, rooms, epochs, moments),
    st.builds(RoomCheckpointed, rooms, epochs, moments, texts),
    st.builds(RoomEnded, rooms, epochs, moments),
)
keys = st.builds(
    make_key, st.just("gift"), st.sampled_from("abcdef"), content=texts, outcome=st.integers(0, 6), answer=texts
)
submissions = st.builds(
    Submission,
    st.lists(items, min_size=1, max_size=4).map(tuple),
    st.lists(keys, max_size=2, unique_by=lambda key: key.digest).map(tuple),
)


class Model:
    """What the file should say, in dictionaries."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []
        self.redacted: set[int] = set()
        self.offsets: dict[tuple[str, int], int] = {}
        self.ended: set[tuple[str, int]] = set()
        self.checkpoints: dict[tuple[str, int], bytes] = {}
        self.first: dict[bytes, KeyResult] = {}
        self.inboxes: dict[str, list[tuple[DirectEntry, DirectState]]] = {"ann": [], "bob": []}
        self.direct_rows: dict[int, tuple[str, int]] = {}
        self.outbox: dict[int, StoredOutbox] = {}
        self.last_outbox_id = 0
        self.records: dict[tuple[str, str, str], tuple[int, bytes]] = {}

    def submit(self, submission: Submission) -> Committed | Repeated:
        known = {key.digest: self.first[key.digest] for key in submission.keys if key.digest in self.first}
        if known:
            reused = {
                key.digest for key in submission.keys if known.get(key.digest, key).fingerprint != key.fingerprint
            }
            return Repeated(known, frozenset(reused))
        offsets, direct_ids, cancelled = [], [], []
        for item in submission.items:
            match item:
                case Entry(room, epoch, lane, kind, at_ms, body):
                    self._open(room, epoch)
                    offset = 0
                    if lane is not None:
                        offset = self.offsets[room, epoch] = self.offsets[room, epoch] + 1
                        offsets.append(offset)
                    self.entries.append((len(self.entries) + 1, room, epoch, offset, lane, kind, at_ms, body))
                case DirectEntry():
                    inbox = self.inboxes[item.user]
                    self.direct_rows[len(self.direct_rows) + 1] = item.user, len(inbox)
                    inbox.append((item, DirectState.PENDING))
                    direct_ids.append(len(inbox))
                case DirectAcked(user, direct_id):
                    inbox = self.inboxes[user]
                    for number, (direct, state) in enumerate(inbox[:direct_id]):
                        if state is DirectState.PENDING:
                            inbox[number] = direct, DirectState.ACKED
                case DirectsCancelled(batch, of_user, of_id, marketing):
                    for user, inbox in self.inboxes.items():
                        for number, (direct, state) in enumerate(inbox, 1):
                            of_kind = direct.marketing if marketing else number == of_id
                            named = direct.batch == batch if batch else user == of_user and of_kind
                            if named and state is DirectState.PENDING:
                                inbox[number - 1] = direct, DirectState.CANCELLED
                                cancelled.append((user, number))
                case RecordPut(kind, subject, name, at_ms, body):
                    self.records[kind, subject, name] = at_ms, body
                case RecordRemoved(kind, subject, name):
                    self.records.pop((kind, subject, name), None)
                case OutboxEntry(topic, at_ms, body, endpoint, line):
                    number = offsets[0] if offsets else direct_ids[0] if direct_ids else 0
                    self._report(StoredOutbox(0, endpoint, line, topic, number, at_ms, at_ms, 0, "", body))
                case OutboxDone(ids):
                    for each in ids:
                        if each <= self.last_outbox_id:
                            self.outbox.pop(each, None)
                case OutboxLater(each, attempts, due_at_ms, reason):
                    if each in self.outbox:
                        self.outbox[each] = self.outbox[each]._replace(
                            due_at_ms=due_at_ms, attempts=attempts, reason=reason
                        )
                case OutboxAgain(ids, at_ms):
                    for each in ids:
                        if each in self.outbox and self.outbox[each].due_at_ms is None:
                            row = self.outbox.pop(each)
                            self._report(row._replace(at_ms=at_ms, due_at_ms=at_ms, attempts=0, reason=""))
                case RoomOpened(room, epoch):
                    self._open(room, epoch)
                case RoomCheckpointed(room, epoch, _, totals):
                    self._open(room, epoch)
                    self.checkpoints[room, epoch] = totals
                case RoomEnded(room, epoch) if (room, epoch) in self.offsets:
                    self.ended.add((room, epoch))
                    self.checkpoints.pop((room, epoch), None)
        for key in submission.keys:
            number = offsets[0] if offsets else direct_ids[0] if direct_ids else 0
            self.first[key.digest] = KeyResult(key.outcome, number, key.answer, key.fingerprint)
        return Committed(tuple(offsets), tuple(direct_ids), tuple(cancelled))

    def _report(self, row: StoredOutbox) -> None:
        self.last_outbox_id += 1
        self.outbox[self.last_outbox_id] = row._replace(id=self.last_outbox_id)

    def _open(self, room: str, epoch: int) -> None:
        if (room, epoch) not in self.offsets:
            self.ended |= {stream for stream in self.offsets if stream[0] == room}
            self.offsets[room, epoch] = 0


STORED_MORE = 54
"""Bytes of an encrypted body beside the body."""


class StoreMachine(RuleBasedStateMachine):
    """Commits, failures, crashes and restarts in any order."""

    keys: LedgerKeys | None = None
    """What bodies are encrypted with."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="ledger-", dir=MEMORY))
        self.restarts = 0
        self.directory = self.root / "0"
        self.directory.mkdir()
        self.model = Model()
        self.store = self._open(self.directory)

    def _open(self, directory: Path) -> FaultyStore:
        store = FaultyStore(database_path(directory))
        store.cipher.use(self.keys)
        return store

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)

    @rule(submission=submissions)
    def commit_one(self, submission: Submission) -> None:
        assert self.store.commit([submission]) == [self.model.submit(submission)]

    @rule(batch=st.lists(submissions, min_size=2, max_size=8))
    def commit_a_group(self, batch: list[Submission]) -> None:
        assert self.store.commit(batch) == [self.model.submit(submission) for submission in batch]

    @rule(
        batch=st.lists(submissions, min_size=1, max_size=5), name=st.sampled_from(["SQLITE_IOERR_FSYNC", "SQLITE_FULL"])
    )
    def fail_and_try_again(self, batch: list[Submission], name: str) -> None:
        self.store.fault = disk_error(name)
        with pytest.raises(sqlite3.OperationalError):
            self.store.commit(batch)
        self.store.fault = None
        self.store.verify_tail()
        self.store.probe()

    @rule(
        seqs=st.lists(st.integers(1, 20), min_size=1, max_size=3, unique=True), ids=st.sets(outbox_ids, max_size=2),
        body=texts, digests=st.sets(st.sampled_from("abcdef"), max_size=2),
        directs=st.sets(st.integers(1, 9), max_size=2),
    )  # fmt: skip
    def redact(self, seqs: list[int], ids: set[int], body: bytes, digests: set[str], directs: set[int]) -> None:
        """Bodies are replaced; those of what is not there, and of redactions, are left out."""
        model = self.model
        present = [seq for seq in seqs if seq <= len(model.entries) and model.entries[seq - 1][5] != ENTRIES_REDACTED]
        removed = tuple(make_key("gift", name).digest for name in sorted(digests))
        self.store.commit([Submission((
            EntriesRedacted("test", 5, tuple((seq, body) for seq in seqs)),
            OutboxRedacted(tuple((each, body) for each in sorted(ids))),
            AnswersRemoved(removed), DirectsRedacted(tuple((each, body) for each in sorted(directs))),
        ))])  # fmt: skip
        for seq in present:
            model.entries[seq - 1] = (*model.entries[seq - 1][:-1], body)
        model.redacted.update(present)
        reader = Reader(self.store.path, self.keys)
        *_, (fact, *_) = reader.entries()  # it vouches for what is stored, which no model knows
        reader.close()
        model.submit(Submission((Entry("", 0, None, ENTRIES_REDACTED, 5, fact.body),)))
        for each in directs & model.direct_rows.keys():
            user, index = model.direct_rows[each]
            direct, state = model.inboxes[user][index]
            model.inboxes[user][index] = direct._replace(body=body), state
        for each in ids & model.outbox.keys():
            model.outbox[each] = model.outbox[each]._replace(body=body)
        for digest in removed:
            if digest in model.first:
                model.first[digest] = model.first[digest]._replace(answer=b"")

    @rule(moved=st.booleans())
    def crash(self, moved: bool) -> None:
        """The process is killed, now or after its log was moved into the database; another takes over."""
        if moved:
            self.store.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self.restarts += 1
        copy = crashed_copy(self.directory, self.root / str(self.restarts))
        self.store.close()
        self.directory = copy
        self.store = self._open(copy)

    @rule()
    def run_maintenance(self) -> None:
        """Everything here is young: maintenance must change nothing."""
        assert not Maintenance(self.store, Retention()).step(10_000)

    @invariant()
    def the_file_says_what_the_model_says(self) -> None:
        reader = Reader(self.store.path, self.keys)
        try:
            model = self.model
            assert reader.verify_all() == len(model.entries)
            assert reader.redacted() == len(model.redacted)
            assert [tuple(entry) for entry, *_ in reader.entries()] == model.entries
            for (room, epoch), last in model.offsets.items():
                history = reader.history(room, epoch, 0, last)
                assert history is not None
                mine = [row for row in model.entries if row[1:3] == (room, epoch) and row[3]]
                assert [tuple(entry) for entry in history] == mine
                assert reader.history(room, epoch, last, last + 1) is None
            open_rooms = {(room.room, room.epoch): (room.last_offset, room.totals) for room in reader.rooms()}
            assert open_rooms == {
                stream: (last, model.checkpoints.get(stream, b""))
                for stream, last in model.offsets.items()
                if stream not in model.ended and stream[0]
            }
            assert read_keys(reader.connection, reader.cipher, list(model.first)) == model.first
            for user, inbox in model.inboxes.items():
                pending = [number for number, (_, state) in enumerate(inbox, 1) if state is DirectState.PENDING]
                assert [direct.direct_id for direct in reader.inbox(user, 0)] == pending
                for number, (direct, state) in enumerate(inbox, 1):
                    stored = reader.direct(user, number)
                    assert stored is not None
                    assert (stored.body, stored.state, stored.batch) == (direct.body, state, direct.batch)
                for state in (None, *DirectState):
                    wanted = [number for number, (_, found) in enumerate(inbox, 1) if state in (None, found)]
                    listed, next_id = read_directs(reader, user, state, 0, 2, 10_000)
                    assert [each.direct_id for each in listed] == wanted[:2]
                    following = [] if next_id is None else read_directs(reader, user, state, next_id, 1000, 10_000)[0]
                    assert [each.direct_id for each in following] == wanted[2:]
            of_batch = [state for each in model.inboxes.values() for direct, state in each if direct.batch == "b1"]
            assert reader.batch_progress("b1") == {state: of_batch.count(state) for state in DirectState}
            dead = [row for row in model.outbox.values() if row.due_at_ms is None]
            waiting = [row for row in model.outbox.values() if row.due_at_ms is not None]
            assert reader.outbox_page(None, True, 0, 100) == dead
            assert reader.outbox_page(None, False, 0, 100) == waiting
            for endpoint in ("shop", "crm"):
                of_endpoint = [row for row in waiting if row.endpoint == endpoint]
                assert reader.outbox_waiting(endpoint, 0, 100, 1000) == (of_endpoint, True)
                assert reader.outbox_waiting(endpoint, 0, 1, 1000) == (of_endpoint[:1], not of_endpoint)
                of_room = [row for row in of_endpoint if row.line == "lobby"]
                assert reader.outbox_waiting(endpoint, 2, 100, 1000, "lobby")[0] == [r for r in of_room if r.id > 2]
                dead_bodies = [row.body for row in dead if row.endpoint == endpoint]
                oldest = of_endpoint[0].at_ms if of_endpoint else 0
                sizes = [len(body) + (STORED_MORE if self.keys and body else 0) for body in dead_bodies]
                counts = len(of_endpoint), oldest, len(dead_bodies), sum(sizes)
                assert reader.outbox_counts(endpoint) == counts
            for kind in ("room.rules", "pin"):
                rows = [(*names, *value) for names, value in sorted(model.records.items()) if names[0] == kind]
                assert [tuple(record) for record in reader.records(kind)] == rows
                for position, (_, subject, name, *_) in enumerate(rows):
                    page = reader.records(kind, after=(subject, name), limit=2) if subject else []
                    assert [tuple(record) for record in page] == rows[position + 1 : position + 3]
                    of_subject = [row for row in rows if row[1] == subject]
                    assert [tuple(record) for record in reader.records(kind, subject)] == of_subject
        finally:
            reader.close()


TestStore = StoreMachine.TestCase
TestStore.settings = examples(15, steps=12)


class EncryptedStoreMachine(StoreMachine):
    """The same where every body is encrypted."""

    keys = keys_of("a")


TestEncryptedStore = EncryptedStoreMachine.TestCase
TestEncryptedStore.settings = examples(8, steps=12)


@pytest.fixture
def store() -> Iterator[FaultyStore]:
    with quick_directory() as directory:
        store = FaultyStore(database_path(directory))
        yield store
        store.close()


def test_a_redaction_is_not_redacted(store: FaultyStore) -> None:
    store.commit([event(1)])
    for seq in (1, 2, 3, 1):
        store.commit([Submission((EntriesRedacted("test", 5, ((seq, b"left"),)),))])
    reader = Reader(store.path)
    assert reader.verify_all() == 5
    assert reader.redacted() == 1
    reader.close()


def test_a_failed_commit_takes_no_offset_and_no_number(store: FaultyStore) -> None:
    store.commit([event(1)])
    direct = Submission((DirectEntry("ann", 1, 1, 9, b"hello"),))
    store.fault = disk_error("SQLITE_IOERR_FSYNC")
    with pytest.raises(sqlite3.OperationalError):
        store.commit([event(2), direct])
    store.fault = None
    assert store.commit([event(3), direct]) == [Committed((2,)), Committed((), (1,))]


def test_a_repeated_key_writes_nothing_and_returns_the_first_result(store: FaultyStore) -> None:
    order = make_key("gift", "order-1", content=b"rose", outcome=0, answer=b"ok")
    first = Submission((Entry("lobby", 7, 2, 5, 1, b"rose"), OutboxEntry("gift", 1, b"rose")), (order,))
    other = Submission((Entry("lobby", 7, 2, 5, 2, b"tulip"),), (make_key("gift", "order-1", content=b"tulip"),))
    assert store.commit([first, other]) == [
        Committed((1,)),
        Repeated({order.digest: KeyResult(0, 1, b"ok", order.fingerprint)}, frozenset({order.digest})),
    ]
    (again,) = store.commit([other])
    assert isinstance(again, Repeated)
    assert again.first[order.digest].fingerprint != other.keys[0].fingerprint
    assert store.head.seq == 1


def test_one_known_key_of_several_stops_the_whole_submission(store: FaultyStore) -> None:
    one, two = make_key("gift", "1"), make_key("gift", "2")
    store.commit([Submission((Entry("lobby", 7, 2, 5, 1, b"1"),), (one,))])
    (combo,) = store.commit([Submission((Entry("lobby", 7, 2, 5, 1, b"1+2"),), (one, two))])
    assert isinstance(combo, Repeated)
    assert list(combo.first) == [one.digest]
    assert store.commit([Submission((Entry("lobby", 7, 2, 5, 1, b"2"),), (two,))]) == [Committed((2,))]


def test_a_new_epoch_ends_the_old_one(store: FaultyStore) -> None:
    store.commit([event(1, epoch=1), event(2, epoch=2), event(3, epoch=2)])
    reader = Reader(store.path)
    assert [(room.epoch, room.last_offset) for room in reader.rooms()] == [(2, 2)]
    reader.close()


def test_an_acknowledgement_covers_no_later_message(store: FaultyStore) -> None:
    hello = Submission((DirectEntry("ann", 1, 1, 2**50, b"hello"),))
    store.commit([hello, hello, Submission((DirectAcked("ann", 99, 5),)), hello])
    reader = Reader(store.path)
    assert [direct.direct_id for direct in reader.inbox("ann", 0)] == [3]
    reader.close()


def test_one_item_cancels_a_bounded_part_of_a_batch(store: FaultyStore) -> None:
    hello = Submission((DirectEntry("ann", 1, 1, 2**50, b"hello", "b1"),) * (CANCEL_ROWS + 1))
    cancel = Submission((DirectsCancelled("b1"),))
    results = store.commit([hello, cancel, cancel, cancel])
    assert [len(each.cancelled) for each in results if isinstance(each, Committed)] == [0, CANCEL_ROWS, 1, 0]


def test_a_page_of_messages_ends_with_the_body_above_its_bytes(store: FaultyStore) -> None:
    store.commit([Submission((DirectEntry("ann", 1, 1, 2**50, bytes(10)),) * 3)])
    reader = Reader(store.path)
    assert [
        (len(found), last) for found, last in (read_directs(reader, "ann", None, 0, 9, size) for size in (15, 50))
    ] == [
        (2, 2),
        (3, None),
    ]
    reader.close()


def test_the_tail_is_verified_against_what_was_acknowledged(store: FaultyStore) -> None:
    store.commit([event(1)])
    store.forget_a_commit()
    with pytest.raises(LedgerDamaged, match="acknowledged were commit"):
        store.verify_tail()


def test_bodies_and_submissions_are_bounded() -> None:
    with pytest.raises(ValueError, match="above"):
        event(1).__class__((Entry("lobby", 7, 1, 4, 1, bytes(MAX_BODY_BYTES + 1)),))
    with pytest.raises(ValueError, match="1 to 5000 items"):
        Submission(())
    with pytest.raises(ValueError, match="1 to 5000 items"):
        Submission((Entry("lobby", 7, 1, 4, 1, b""),) * (MAX_ITEMS + 1))
    with pytest.raises(ValueError, match="bytes is above"):
        Submission((Entry("lobby", 7, 1, 4, 1, bytes(MAX_BODY_BYTES)),) * 20)


def test_the_mark_survives_and_a_torn_one_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.head"
    assert HeadFile.read(path) is None
    marks = HeadFile(path)
    for batch in (1, 2):
        marks.write(Head(batch, 5 * batch, bytes(32), b"lineage1", bytes(32)))
    marks.close()
    assert HeadFile.read(path) == Head(2, 10, bytes(32), b"lineage1", bytes(32))
    data = bytearray(path.read_bytes())
    for index in range(len(data)):
        path.write_bytes(bytes([*data[:index], data[index] ^ 1, *data[index + 1 :]]))
        assert HeadFile.read(path) is None
    path.write_bytes(data[:-1])
    assert HeadFile.read(path) is None


def test_the_late_end_of_a_stream_that_was_never_written_ends_no_other(store: FaultyStore) -> None:
    """The disk was full when the first stream began and ended; its end is submitted again after the next has begun."""
    store.commit([Submission((RoomOpened("lobby", 2, 20),)), Submission((Entry("lobby", 2, 1, 4, 21, b"news"),))])
    store.commit([Submission((RoomEnded("lobby", 1, 10),))])
    reader = Reader(store.path)
    try:
        assert [(room.epoch, room.last_offset) for room in reader.rooms()] == [(2, 1)]
        assert reader.ended_rooms(0) == {}
    finally:
        reader.close()


def test_a_room_that_is_forgotten_leaves_the_others_and_can_be_written_anew(store: FaultyStore) -> None:
    key, other = make_key("k"), make_key("other")
    for room, of_room in (("lobby", key), ("stage", other)):
        store.commit([
            Submission((RoomOpened(room, 7, 1),)),
            Submission((Entry(room, 7, 0, 4, 2, b"news"), RecordPut("room.keys", room, "a", 2, b"x")), (of_room,)),
            Submission((RoomCheckpointed(room, 7, 3, b"totals"),)),
        ])  # fmt: skip
    store.commit([Submission((RoomForgotten("lobby", ("room.keys",), (key.digest,)),))])
    reader = Reader(store.path)
    try:
        assert [(room.room, room.last_offset) for room in reader.rooms()] == [("stage", 1)]
        assert [each.subject for each in reader.records("room.keys")] == ["stage"]
        assert reader.first_result(key.digest) is None
        assert reader.first_result(other.digest) is not None
    finally:
        reader.close()
    again = Submission((Entry("lobby", 7, 0, 4, 4, b"other"),), (key,))
    assert store.commit([again]) == [Committed((1,))]
