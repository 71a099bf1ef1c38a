"""Rooms without a task, as they are kept after the erasure of a user."""

from __future__ import annotations

from broker.core.rooms.erasure import Erasure
from broker.rooms.key_records import key_deletions
from broker.rooms.room_store import RoomStore
from broker.rooms.score_records import erased_score

__all__ = ["erase_in_checkpoint"]


def erase_in_checkpoint(store: RoomStore, room: str, erasure: Erasure, at_ms: int) -> None:
    """Keep nothing of a user any more in the checkpoint of a room, in memory and in the ledger; its combos, scores and
    keys in the ledger are records of their own, and its highlights are events."""
    before = store.find(room)
    if before is None:
        return
    if before.activities is not None:
        before.activities.erase(erasure.in_activities)
    owned = [key for key in before.keys.keys if key.owner == erasure.user]
    after = before._replace(
        totals=erasure.totals(before.totals),
        events=tuple(map(erasure.stored, before.events)),
        keys=before.keys.without(owned),
        combos=tuple(map(erasure.combo, before.combos)),
        highlights=tuple(map(erasure.highlight, before.highlights)),
        scores=tuple(erased_score(score, erasure) for score in before.scores),
    )
    store.replace(room, after)
    if owned:
        store.ledger.record(key_deletions(room, owned, after.keys, at_ms), lambda result: None)
