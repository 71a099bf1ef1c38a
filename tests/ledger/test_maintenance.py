"""Maintenance: what is removed, what stays, and that what stays can still be verified."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from broker.ledger import (
    ACTIVITY_FACTS,
    Committed,
    DirectAcked,
    DirectEntry,
    DirectsCancelled,
    DirectState,
    Entry,
    LedgerReports,
    OutboxEntry,
    OutboxLater,
    Reader,
    Repeated,
    Retention,
    RoomCheckpointed,
    RoomEnded,
    database_path,
    make_key,
)
from broker.ledger.entries import Submission
from broker.ledger.maintenance import EXPIRY_GRACE_MS, Maintenance
from broker.ledger.store import Store
from tests.support.faulty_disk import bodies, event, quick_directory

DAY_MS = 86_400_000


@pytest.fixture
def store() -> Iterator[Store]:
    with quick_directory() as directory:
        store = Store(database_path(directory))
        yield store
        store.close()


def ask(store: Store) -> Reader:
    return Reader(store.path)


def test_old_entries_go_and_the_rest_still_verifies(store: Store) -> None:
    store.commit([event(number, at_ms=number * DAY_MS) for number in range(100)])
    maintenance = Maintenance(store, Retention(entries_s=30 * 86_400))
    while maintenance.step(100 * DAY_MS):
        pass
    reader = ask(store)
    assert [entry.body for entry, *_ in reader.entries()] == [b"event %d" % number for number in range(70, 100)]
    assert reader.verify_all() == 30
    assert reader.history("lobby", 7, 70, 100) is not None
    assert reader.history("lobby", 7, 69, 100) is None, "a part was taken for the whole"
    assert maintenance.removed == 70
    reader.close()


@pytest.mark.parametrize("max_bytes", [0, 1])
def test_facts_of_an_activity_stay_until_its_room_is_ended(store: Store, max_bytes: int) -> None:
    store.commit([event(number, at_ms=number * DAY_MS) for number in range(10)])
    store.commit([Submission((Entry("lobby", 7, None, ACTIVITY_FACTS, 10 * DAY_MS, b"fact"),))])
    store.commit([event(number, at_ms=number * DAY_MS) for number in range(10, 100)])
    maintenance = Maintenance(store, Retention(entries_s=30 * 86_400, max_bytes=max_bytes))
    while maintenance.step(100 * DAY_MS):
        pass
    reader = ask(store)
    assert [entry.body for entry, *_ in reader.entries()][:2] == [b"fact", b"event 10"]
    assert reader.verify_all() == 91
    store.commit([Submission((RoomEnded("lobby", 7, 100 * DAY_MS),))])
    while maintenance.step(100 * DAY_MS):
        pass
    assert reader.verify_all() == (0 if max_bytes else 30)
    reader.close()


def test_offsets_go_on_where_everything_was_removed(store: Store) -> None:
    store.commit([event(number, at_ms=1) for number in range(5)])
    maintenance = Maintenance(store, Retention(entries_s=1.0, idle_rooms_s=1e9))
    while maintenance.step(DAY_MS):
        pass
    reader = ask(store)
    assert reader.verify_all() == 0
    assert [(room.room, room.last_offset) for room in reader.rooms()] == [("lobby", 5)]
    reader.close()
    path = store.path
    store.close()
    again = Store(path)
    assert again.commit([event(6, at_ms=DAY_MS)]) == [Committed((6,))]
    assert again.head.seq == 6
    again.close()
    assert bodies(path) == [b"event 6"]


def test_a_database_above_its_bound_loses_the_oldest_first(store: Store) -> None:
    for number in range(200):
        store.commit([Submission((Entry("lobby", 7, 1, 4, 1, b"%5d" % number * 400),))])
    maintenance = Maintenance(store, Retention(max_bytes=200_000))
    before = store.head.seq
    while maintenance.step(2):
        pass
    reader = ask(store)
    kept = [entry.seq for entry, *_ in reader.entries()]
    assert kept == list(range(kept[0] if kept else before + 1, before + 1))
    assert len(kept) < 200
    reader.close()


def test_keys_are_forgotten_after_their_retention(store: Store) -> None:
    old, young = make_key("gift", "old"), make_key("gift", "young")
    store.commit(
        [Submission((Entry("lobby", 7, 2, 5, at_ms, b""),), (key,)) for key, at_ms in ((old, 1), (young, DAY_MS))]
    )
    maintenance = Maintenance(store, Retention(keys_s=3600))
    while maintenance.step(DAY_MS + 1):
        pass
    results = store.commit([Submission((Entry("lobby", 7, 2, 5, DAY_MS, b""),), (key,)) for key in (old, young)])
    assert [type(result) for result in results] == [Committed, Repeated]


def test_a_message_nobody_fetched_expires_and_the_platform_learns_it(store: Store) -> None:
    store.commit(
        [Submission((DirectEntry("ann", 1, 1, 100, b"code", "sale"), DirectEntry("ann", 1, 1, 300, b"later")))]
    )

    class Reports(LedgerReports):
        def direct_expired(self, user: str, direct_id: int, batch: str, at_ms: int) -> tuple[OutboxEntry, ...]:
            body = json.dumps({"user": user, "direct_id": direct_id, "batch": batch}).encode()
            return (OutboxEntry("direct.expired", at_ms, body, "shop", user),)

    maintenance = Maintenance(store, Retention(), Reports())
    assert not maintenance.step(99 + EXPIRY_GRACE_MS)
    assert maintenance.step(100 + EXPIRY_GRACE_MS)
    reader = ask(store)
    assert [direct.direct_id for direct in reader.inbox("ann", 0)] == [2]
    direct = reader.direct("ann", 1)
    assert direct is not None
    assert direct.state is DirectState.EXPIRED
    assert reader.batch_progress("sale") == {
        DirectState.PENDING: 0,
        DirectState.ACKED: 0,
        DirectState.EXPIRED: 1,
        DirectState.CANCELLED: 0,
    }
    (expired,) = reader.outbox_page("shop", False, 0, 10)
    assert (expired.topic, expired.line, expired.number) == ("direct.expired", "ann", 1)
    assert json.loads(expired.body) == {"user": "ann", "direct_id": 1, "batch": "sale"}
    assert maintenance.expired == 1
    reader.close()


def test_settled_messages_are_removed_and_pending_ones_never(store: Store) -> None:
    store.commit([Submission((DirectEntry("ann", 1, 1, 2**50, b"one"),)), Submission((DirectAcked("ann", 1, 5),))])
    store.commit([Submission((DirectEntry("ann", 1, 1, 2**50, b"two"),))])
    maintenance = Maintenance(store, Retention(completed_directs_s=10))
    while maintenance.step(DAY_MS):
        pass
    reader = ask(store)
    assert reader.direct("ann", 1) is None
    assert [direct.body for direct in reader.inbox("ann", 0)] == [b"two"]
    reader.close()
    assert store.commit([Submission((DirectEntry("ann", 1, 1, 2**50, b"three"),))]) == [Committed((), (3,))]


def test_a_cancelled_message_does_not_expire_and_is_removed_as_others_are(store: Store) -> None:
    store.commit([Submission((DirectEntry("ann", 1, 1, 100, b"code", "sale"), DirectsCancelled("sale")))])

    class Reports(LedgerReports):
        def direct_expired(self, user: str, direct_id: int, batch: str, at_ms: int) -> tuple[OutboxEntry, ...]:
            raise AssertionError("a cancelled message is reported as expired")

    maintenance = Maintenance(store, Retention(completed_directs_s=10), Reports())
    assert not maintenance.step(200 + EXPIRY_GRACE_MS)
    while maintenance.step(DAY_MS):
        pass
    reader = ask(store)
    assert reader.direct("ann", 1) is None
    assert sum(reader.batch_progress("sale").values()) == 0
    reader.verify_all()
    reader.close()


def test_an_old_pending_message_holds_up_no_others(store: Store) -> None:
    store.commit([Submission((DirectEntry("eve", 1, 1, 2**50, b"pending"),))])
    for first in range(0, 15_000, 500):
        store.commit([Submission(tuple(DirectEntry("ann", 1, 1, 2**50, b"") for _ in range(500)))])
        store.commit([Submission((DirectAcked("ann", first + 500, 5),))])
    maintenance = Maintenance(store, Retention(completed_directs_s=10))
    while maintenance.step(DAY_MS):
        pass
    for _ in range(10):  # a pass over the table may begin with messages that stay
        maintenance.step(DAY_MS)
    reader = ask(store)
    assert store.connection.execute("SELECT user, count(*) FROM directs").fetchall() == [("eve", 1)]
    reader.verify_all()
    reader.close()


def test_a_stream_that_ends_because_it_is_idle_is_reported(store: Store) -> None:
    class Reports(LedgerReports):
        def room_ended_idle(self, room: str, epoch: int, at_ms: int) -> tuple[OutboxEntry, ...]:
            return (OutboxEntry("room.ended", at_ms, f"{room} {epoch}".encode(), "shop", room),)

    store.commit([Submission((Entry("lobby", 7, 2, 5, 1, b""), Entry("", 0, None, 1000, 1, b"")))])
    maintenance = Maintenance(store, Retention(idle_rooms_s=10), Reports())
    assert maintenance.step(DAY_MS)
    reader = ask(store)
    assert [row.body for row in reader.outbox_page("shop", False, 0, 10)] == [b"lobby 7"]
    reader.verify_all()
    reader.close()


def test_the_outbox_forgets_what_was_never_taken(store: Store) -> None:
    store.commit([Submission((OutboxEntry("gift", 1, b"old"), OutboxEntry("gift", DAY_MS, b"young")))])
    store.commit([Submission((OutboxLater(1, 9, None),))])
    maintenance = Maintenance(store, Retention(outbox_s=10))
    while maintenance.step(DAY_MS + 1):
        pass
    reader = ask(store)
    assert [row.body for row in reader.outbox_page(None, False, 0, 10)] == [b"young"]
    assert reader.outbox_page(None, True, 0, 10) == []
    reader.verify_all()
    reader.close()


def test_a_database_above_its_bound_loses_acknowledged_messages_too(store: Store) -> None:
    for first in range(0, 400, 100):
        store.commit([Submission(tuple(DirectEntry("ann", 1, 1, 2**50, bytes(2000)) for _ in range(100)))])
        store.commit([Submission((DirectAcked("ann", first + 100, 5),))])
    store.commit([Submission((DirectEntry("eve", 1, 1, 2**50, b"pending"),))])
    maintenance = Maintenance(store, Retention(max_bytes=200_000))
    while maintenance.step(10):
        pass
    reader = ask(store)
    left = dict(store.connection.execute("SELECT user, count(*) FROM directs GROUP BY user").fetchall())
    assert left["eve"] == 1
    assert left.get("ann", 0) < 100
    reader.verify_all()
    reader.close()


def test_rooms_that_nobody_used_end_and_their_streams_go_with_their_entries(store: Store) -> None:
    store.commit([event(1, "old", at_ms=1), event(2, "noted", at_ms=1), event(3, "young", at_ms=20 * DAY_MS)])
    store.commit([Submission((RoomCheckpointed("noted", 7, 20 * DAY_MS, b"likes 5"),))])
    maintenance = Maintenance(store, Retention(idle_rooms_s=7 * 86_400, entries_s=5 * 86_400))
    while maintenance.step(20 * DAY_MS):
        pass
    reader = ask(store)
    assert {room.room: room.totals for room in reader.rooms()} == {"noted": b"likes 5", "young": b""}
    assert reader.verify_all() == 1
    reader.close()
    while maintenance.step(26 * DAY_MS):
        pass
    assert store.connection.execute("SELECT count(*) FROM streams WHERE room = 'old'").fetchone() == (0,)


def test_an_ended_room_loses_its_checkpoint(store: Store) -> None:
    store.commit([Submission((RoomCheckpointed("lobby", 7, 1, b"x"), RoomEnded("lobby", 7, 2)))])
    assert store.connection.execute("SELECT count(*) FROM checkpoints").fetchone() == (0,)


def test_removed_rows_give_their_pages_back(store: Store) -> None:
    store.commit([Submission((Entry("lobby", 7, 1, 4, 1, bytes(3000)),)) for _ in range(400)])
    full = store.connection.execute("PRAGMA page_count").fetchone()[0]
    maintenance = Maintenance(store, Retention(entries_s=1.0))
    while maintenance.step(DAY_MS):
        pass
    assert store.connection.execute("PRAGMA page_count").fetchone()[0] < full - 50


def test_a_message_that_was_shown_is_acknowledged_even_after_its_expiry(store: Store) -> None:
    store.commit([Submission((DirectEntry("ann", 1, 1, 100, b"code"),))])
    assert not Maintenance(store, Retention()).step(101), "maintenance comes before the acknowledgement"
    store.commit([Submission((DirectAcked("ann", 1, 102),))])
    assert not Maintenance(store, Retention()).step(200 + EXPIRY_GRACE_MS)
    reader = ask(store)
    direct = reader.direct("ann", 1)
    assert direct is not None
    assert direct.state is DirectState.ACKED
    reader.close()
