"""Checkpoints of rooms without a task: where their streams stand, and what goes on with them. Read at the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from broker.core.commerce.gifts import GiftCombo
from broker.core.commerce.highlights import HeldHighlight
from broker.core.commerce.pk import PK_KEY
from broker.core.commerce.room_activities import RoomActivities
from broker.core.commerce.room_rankings import StoredScore
from broker.core.rooms.stream import StoredEvent
from broker.ledger import Reader, RecordRemoved
from broker.rooms.combo_records import combo_removals, read_room_combos
from broker.rooms.highlight_records import highlight_removals, read_room_highlights
from broker.rooms.key_records import StoredKeys
from broker.rooms.room_history import stored_events
from broker.rooms.score_records import read_scores, score_removals
from protocol.activities.pk import PkMeasure

__all__ = ["MAX_CHECKPOINTS", "RoomCheckpoint", "add_records", "add_uncounted", "read_checkpoints"]

MAX_CHECKPOINTS = 100_000
"""Checkpoints of rooms without a task, about 300 bytes each; beyond, the longest unused is forgotten."""
MAX_RESTORED_HISTORIES = 1000
"""Rooms whose newest events are read at the start, so that a wave of resumes after a restart needs no disk."""
MAX_UNCOUNTED = 1000
"""Newest events of a room that are read for its PK: those of one commit of the score may not be counted yet."""


class RoomCheckpoint(NamedTuple):
    """Position and totals of the stream of a room without a task."""

    epoch: int
    last_offset: int
    totals: bytes
    """Phase, likes and peak, as `RoomState.totals` packs them."""
    events: tuple[StoredEvent, ...] = ()
    """The newest events, without a hole, up to ``last_offset``."""
    keys: StoredKeys = StoredKeys()
    activities: RoomActivities[Any] | None = None
    """None: there are none."""
    combos: tuple[GiftCombo, ...] = ()
    """Combos of gifts that have started and not ended."""
    scores: tuple[StoredScore, ...] = ()
    """Of the rankings."""
    highlights: tuple[HeldHighlight, ...] = ()
    """Paid messages that are shown."""


def read_checkpoints(reader: Reader, since_ms: int, history_entries: int) -> dict[str, RoomCheckpoint]:
    """Read every open stream, the longest unused first. Runs in the ledger's reading thread."""
    found: dict[str, RoomCheckpoint] = {}
    with_events = 0
    for stored in reader.rooms(MAX_CHECKPOINTS):
        events: Sequence[StoredEvent] = ()
        if (
            stored.last_offset
            and stored.used_at_ms >= since_ms
            and with_events < MAX_RESTORED_HISTORIES
            and history_entries
        ):
            with_events += 1
            events = stored_events(reader.latest(stored.room, stored.epoch, since_ms, history_entries))
        if stored.room not in found:
            found[stored.room] = RoomCheckpoint(stored.epoch, stored.last_offset, stored.totals, tuple(events))
    # The first are forgotten first: those without any event, then the longest unused.
    return dict(sorted(reversed(found.items()), key=lambda each: each[1].last_offset > 0))


def add_records(reader: Reader, found: dict[str, RoomCheckpoint]) -> list[list[RecordRemoved]]:
    """Add the combos, scores and highlights of the streams to their checkpoints; return what removes those of others.

    Runs in the ledger's reading thread.
    """
    left: list[list[RecordRemoved]] = []
    # Any: each field has records of its own.
    of_streams: tuple[tuple[str, Callable[[Reader], Any], Callable[..., list[RecordRemoved]]], ...] = (
        ("combos", read_room_combos, combo_removals),
        ("scores", read_scores, score_removals),
        ("highlights", read_room_highlights, highlight_removals),
    )
    for field, read, removals in of_streams:
        for (room, epoch), values in read(reader).items():
            if room in found and found[room].epoch == epoch:
                found[room] = found[room]._replace(**{field: values})
            else:
                left.append(removals(room, epoch, values))
    return left


def add_uncounted(reader: Reader, found: dict[str, RoomCheckpoint]) -> None:
    """Add the newest events of streams whose PK may not have counted them all, where the history of the checkpoint
    begins later. Runs in the ledger's reading thread."""
    for room, checkpoint in found.items():
        pk = None if checkpoint.activities is None else checkpoint.activities.find(*PK_KEY)
        if pk is None or not pk.takes(PkMeasure.GIFTS):
            continue
        if not checkpoint.events or checkpoint.events[0].offset > pk.counted_to + 1:
            # The acceptance of an invitation may still be on its way, and its start is not known.
            since_ms = 0 if pk.window is None else pk.window[0]
            entries = reader.latest(room, checkpoint.epoch, since_ms, MAX_UNCOUNTED)
            if len(entries) > len(checkpoint.events):
                found[room] = checkpoint._replace(events=tuple(stored_events(entries)))
