"""What a durable broker has kept, read from its ledger after it has ended: verified first, then added up.

The sums of the ledger are a fourth party beside publishers, broker and viewers (`invariants`): what was acknowledged
must be in the book, once, in the order in which it was sent.
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
from broker.ledger.replay import event_of, replay
from protocol.codes import MessageType

__all__ = ["add_up", "lose_last_entry", "read_back"]

KINDS = {
    int(MessageType.GIFT): "gift", int(MessageType.ANNOUNCEMENT): "announcement", COMMERCE_TYPE: "commerce",
}  # fmt: skip
"""Message type -> the stream that it belongs to."""


def read_back(directory: Path) -> dict[str, Any]:
    """Verify the ledger in ``directory`` (structure, checksums, hash chain, high-water mark) and add its rooms up.

    Any: plain JSON. ``damage`` says what is wrong, "" if nothing is. About 40 us an entry.
    """
    begun = time.perf_counter()
    found: dict[str, Any] = {"damage": "", "entries": 0, "commits": 0, "rooms": {}, "bytes": 0}
    try:
        reader = open_directory(directory)
        try:
            found["entries"] = reader.verify_all()
            head, anchor = reader.ends()
            found["commits"] = head.batch
            found["rooms"] = add_up(entry for entry, _, _ in reader.entries(anchor[0]))
            found["bytes"] = reader.path.stat().st_size
        finally:
            reader.close()
    except (LedgerRefused, sqlite3.Error, ValueError) as error:
        found["damage"] = str(error)
    found["took_s"] = round(time.perf_counter() - begun, 3)
    return found


def lose_last_entry(directory: Path) -> None:
    """Take the newest entry out of the file, as a disk would that forgets a sync: to see that it is noticed."""
    connection = sqlite3.connect(database_path(directory))
    try:
        with connection:
            connection.execute("DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)")
    finally:
        connection.close()


def add_up(entries: Iterable[StoredEntry]) -> dict[str, dict[str, Any]]:
    """Room -> its events by stream, gifts, last offset, holes, and events out of the order in which they were sent."""
    last: dict[tuple[str, str], int] = {}
    back: Counter[str] = Counter()

    def watched() -> Iterator[StoredEntry]:
        for entry in entries:
            number = _number_of(entry)
            if number is not None:
                key = entry.room, KINDS[entry.kind]
                back[entry.room] += number <= last.get(key, 0)
                last[key] = number
            yield entry

    rooms: dict[str, dict[str, Any]] = {}
    for (name, _), room in replay(watched()).items():
        if name in rooms:
            raise ValueError(f"room {name} has two lives in one run")
        rooms[name] = {
            "events": room.events,
            "last_offset": room.last_offset,
            "holes": room.holes,
            "unreadable": room.unreadable,
            "gifts": room.gift_units,
            **{kind: room.by_type[message_type] for message_type, kind in KINDS.items()},
        }
    for name, row in rooms.items():
        row["out_of_order"] = back[name]
    return rooms


def _number_of(entry: StoredEntry) -> int | None:
    """The publisher's number of an event; None for anything else."""
    if entry.lane is None or entry.kind not in KINDS:
        return None
    event = event_of(entry)
    if event is None or not isinstance(event.payload, (tuple, list)) or not isinstance(event.payload[0], str):
        return None
    stamp = read_stamp(event.payload[0])
    return None if stamp is None else stamp.number
