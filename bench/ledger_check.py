"""Totals of a durable broker's ledger, read after the broker has ended: verified first, then summed.

The ledger is a fourth count beside those of publishers, broker and viewers (`invariants`): what was acknowledged must
be in it, once, in the order in which it was sent.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.load.publishers import COMMERCE_TYPE
from bench.load.texts import read_stamp
from broker.ledger import LedgerRefused, StoredEntry, database_path, open_directory
from broker.ledger.orders import order_of
from broker.ledger.replay import event_of, replay
from protocol.codes import MessageType

__all__ = ["delete_last_entry", "read_ledger", "sum_rooms"]

KINDS = {
    int(MessageType.GIFT): "gift", int(MessageType.ANNOUNCEMENT): "announcement", COMMERCE_TYPE: "commerce",
}  # fmt: skip
"""Message type -> its stream."""
_ONE_BY_ONE = frozenset(KINDS) - {int(MessageType.GIFT)}
"""Types of which each message is an event."""


def read_ledger(directory: Path) -> dict[str, Any]:
    """Verify the ledger in ``directory`` (structure, checksums, hash chain, high-water mark) and sum its rooms.

    Any: plain JSON. ``damage`` describes the first fault, "" if there is none. About 40 us an entry.
    """
    begun = time.perf_counter()
    found: dict[str, Any] = {"damage": "", "entries": 0, "commits": 0, "rooms": {}, "bytes": 0}
    try:
        reader = open_directory(directory)
        try:
            found["entries"] = reader.verify_all()
            head, anchor = reader.ends()
            found["commits"] = head.batch
            found["rooms"] = sum_rooms(entry for entry, *_ in reader.entries(anchor[0]))
            found["bytes"] = reader.path.stat().st_size
        finally:
            reader.close()
    except (LedgerRefused, sqlite3.Error, ValueError) as error:
        found["damage"] = str(error)
    found["took_s"] = round(time.perf_counter() - begun, 3)
    return found


def delete_last_entry(directory: Path) -> None:
    """Delete the newest entry of the file, as after a sync that the disk did not make: an injected fault."""
    connection = sqlite3.connect(database_path(directory))
    try:
        with connection:
            connection.execute("DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)")
    finally:
        connection.close()


def sum_rooms(entries: Iterable[StoredEntry]) -> dict[str, dict[str, Any]]:
    """Return room -> events by stream, gifts, last offset, holes, and events that are not in the order of sending."""
    last: dict[tuple[str, ...], int] = {}
    disordered: Counter[str] = Counter()

    def usage() -> Iterator[StoredEntry]:
        for entry in entries:
            numbered = _number_of(entry)
            if numbered is not None:
                key, number = numbered
                disordered[entry.room] += number <= last.get(key, 0)
                last[key] = number
            yield entry

    rooms: dict[str, dict[str, Any]] = {}
    for (name, _), room in replay(usage()).items():
        if name in rooms:
            raise ValueError(f"room {name} has two epochs in one run")
        rooms[name] = {
            "events": room.events,
            "last_offset": room.last_offset,
            "holes": room.holes,
            "unreadable": room.unreadable,
            "gifts": room.gift_units,
            **{kind: room.by_type[message_type] for message_type, kind in KINDS.items()},
            "gift": room.gifts,
            "commerce": room.by_type[COMMERCE_TYPE] + room.by_type[int(MessageType.ACTIVITY)],
        }
    for name, row in rooms.items():
        row["out_of_order"] = disordered[name]
    return rooms


def _number_of(entry: StoredEntry) -> tuple[tuple[str, ...], int] | None:
    """Return the publisher's number of an event or order, and among what it must grow; None for any other entry.

    The orders of one user, gift and target are in the order of sending, whatever combo shows them; those of others pass
    them while a combo waits.
    """
    key: tuple[str, ...]
    order = order_of(entry)
    if order is not None:
        key, text = (entry.room, "gift", order.user_id, order.gift_id, order.target), order.order_id
    elif entry.lane is None or entry.kind not in _ONE_BY_ONE:
        return None
    else:
        event = event_of(entry)
        if event is None or not isinstance(event.payload, (tuple, list)) or not isinstance(event.payload[0], str):
            return None
        key, text = (entry.room, KINDS[entry.kind]), event.payload[0]
    stamp = read_stamp(text)
    return None if stamp is None else (key, stamp.number)
