"""The ledger of a durable broker is verified, summed, and compared with what was acknowledged."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from bench.disk import sync_floor, sync_times
from bench.ledger_check import delete_last_entry, read_ledger, sum_rooms
from bench.load.publishers import COMMERCE_TYPE
from bench.load.texts import stamped
from bench.report.invariants import check_ledger
from broker.ledger import Entry, Ledger, StoredEntry, database_path
from broker.ledger.orders import ORDER_KIND, Order, pack_order
from protocol.codes import Lane, MessageType
from protocol.frames import pack_body
from protocol.messages import Event
from protocol.payloads import GiftPayload

EPOCH = 7


def gift(number: int, count: int = 1, room: int = 0) -> Entry:
    order = stamped("order", room, number, number)
    body = pack_body(Event(MessageType.GIFT, number, "u", "", GiftPayload(order, "u", "", "rose", count, 100, "")))
    return Entry(f"bench-{room}", EPOCH, Lane.PAID, MessageType.GIFT, number, body)


def sale(number: int, room: int = 0) -> Entry:
    body = pack_body(Event(COMMERCE_TYPE, number, "u", "", (stamped("sale", room, number, number),)))
    return Entry(f"bench-{room}", EPOCH, Lane.COMMERCE, COMMERCE_TYPE, number, body)


async def write(directory: Path, *entries: Entry) -> None:
    """A ledger with these entries, closed."""
    store = Ledger(directory, unix_ms=lambda: time.time_ns() // 1_000_000)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for entry in entries:
            store.record((entry,), lambda outcome: None)
        await store.flush()
        nursery.cancel_scope.cancel()


async def test_a_ledger_is_verified_and_summed_by_room(tmp_path: Path) -> None:
    await write(tmp_path, gift(1, 2), sale(2), gift(3, 5), gift(4, 1, room=1))
    durable = read_ledger(tmp_path)
    assert durable["damage"] == ""
    assert durable["entries"] == 4
    first, second = durable["rooms"]["bench-0"], durable["rooms"]["bench-1"]
    assert (first["gifts"], first["gift"], first["commerce"], first["last_offset"]) == (7, 2, 1, 3)
    assert (first["holes"], first["out_of_order"]) == (0, 0)
    assert (second["gifts"], second["last_offset"]) == (1, 1)


def order(number: int, user: str = "u") -> Entry:
    body = pack_order(Order(stamped("order", 0, number, number), user, "", "rose", 1, 100, "", ""))
    return Entry("bench-0", EPOCH, None, ORDER_KIND, number, body)


async def test_events_in_another_order_than_they_were_sent_in_are_counted(tmp_path: Path) -> None:
    await write(tmp_path, sale(3), gift(1), sale(2), sale(4))
    assert read_ledger(tmp_path)["rooms"]["bench-0"]["out_of_order"] == 1


@pytest.mark.parametrize(
    ("orders", "out_of_order"),
    [
        ([order(1), order(2), order(4)], 0),
        ([order(2), order(1, "another"), order(3)], 0),  # a combo of one user passes that of another
        ([order(2), order(1), order(3)], 1),
        ([order(1), order(1)], 1),
    ],
)
async def test_orders_of_one_combo_must_be_in_the_order_of_sending(
    tmp_path: Path, orders: list[Entry], out_of_order: int
) -> None:
    """The events that show them repeat the first order's id: start, progress and end of a combo."""
    shown = [gift(1), gift(5), gift(1), gift(5)]
    await write(tmp_path, *shown, *orders)
    assert read_ledger(tmp_path)["rooms"]["bench-0"]["out_of_order"] == out_of_order


async def test_a_changed_byte_is_damage_and_fails_the_run(tmp_path: Path) -> None:
    await write(tmp_path, *[gift(number) for number in range(1, 200)])
    path = database_path(tmp_path)
    data = bytearray(path.read_bytes())
    place = data.index(b"order~0.2s.2s")
    data[place : place + 5] = b"ORDER"
    path.write_bytes(data)
    durable = read_ledger(tmp_path)
    assert durable["damage"]
    findings = check_ledger(PUBLISHER, BROKER, durable, rooms=1)
    assert "does not verify" in findings.violations[0]


async def test_a_missing_newest_entry_is_damage(tmp_path: Path) -> None:
    await write(tmp_path, gift(1), gift(2))
    delete_last_entry(tmp_path)
    assert "missing" in read_ledger(tmp_path)["damage"]


def test_a_room_with_two_epochs_is_refused() -> None:
    body = pack_body(Event(MessageType.ANNOUNCEMENT, 1, "u", "", ("hello",)))
    entries = [
        StoredEntry(seq, "bench-0", epoch, 1, int(Lane.CONTROL), MessageType.ANNOUNCEMENT, 1, body)
        for seq, epoch in ((1, 7), (2, 8))
    ]
    with pytest.raises(ValueError, match="two epochs"):
        sum_rooms(entries)


# ---- against what was acknowledged

PUBLISHER: dict[str, Any] = {
    "sent": [["gift", 0, 6]],
    "answers": [
        ["gift", 0, "accepted", 3, 9], ["gift", 0, "merged", 2, 4], ["gift", 0, "limited", 1, 50],
        ["commerce", 0, "accepted", 2, 2],
    ],
}  # fmt: skip
BROKER: dict[str, Any] = {"rooms": [{"name": "bench-0", "last_offset": 5}]}
KEPT: dict[str, Any] = {
    "damage": "", "entries": 5,
    "rooms": {
        "bench-0": {
            "gifts": 13, "gift": 3, "commerce": 2, "announcement": 0, "events": 5, "last_offset": 5, "holes": 0,
            "unreadable": 0, "out_of_order": 0,
        }
    },
}  # fmt: skip


def test_a_ledger_with_exactly_what_was_acknowledged_passes() -> None:
    assert check_ledger(PUBLISHER, BROKER, KEPT, rooms=1).violations == []


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("gifts", 12, "the ledger sums to 12, acknowledged 13"),
        ("gift", 4, "gift events: the ledger has 4, were accepted 3"),
        ("commerce", 1, "commerce events: the ledger has 1, were accepted 2"),
        ("last_offset", 6, "the ledger ends at 6, the broker assigned 5"),
        ("events", 4, "the ledger has 4, events up to its last offset 5"),
        ("holes", 1, "holes 1, allowed 0"),
        ("out_of_order", 1, "out of order 1, allowed 0"),
    ],
)
def test_one_wrong_number_in_the_ledger_is_named(part: str, value: int, words: str) -> None:
    changed = copy.deepcopy(KEPT)
    changed["rooms"]["bench-0"][part] = value
    (violation,) = check_ledger(PUBLISHER, BROKER, changed, rooms=1).violations
    assert words in violation


def test_a_room_that_is_not_in_the_ledger_is_a_violation() -> None:
    assert len(check_ledger(PUBLISHER, BROKER, {**KEPT, "rooms": {}}, rooms=1).violations) >= 3


# ---- the disk alone


def test_the_floor_of_the_disk_removes_its_file_and_combines_samples(tmp_path: Path) -> None:
    assert sync_times(tmp_path, 0.02)
    assert list(tmp_path.iterdir()) == []
    floor = sync_floor([[0.001] * 98, [0.011] * 2])
    assert floor.syncs == 100
    assert floor.per_s == pytest.approx(100 / 0.12, rel=0.01)
    assert (floor.p50_ms, floor.p99_ms) == (1.0, 11.0)
    with pytest.raises(ValueError, match="no sync"):
        sync_floor([[]])
