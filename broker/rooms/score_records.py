"""Scores of rankings in the ledger: a record for each user, kind and stream, written with the room's checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from broker.core.commerce.room_rankings import StoredScore
from broker.core.rooms.erasure import Erasure
from broker.core.tenants.names import tenant_of
from broker.ledger import Entry, Item, Reader, RecordPut, RecordRemoved, StoredRecord
from broker.ledger.orders import REFUND_KIND, StoredOrder
from broker.ledger.records import read_records
from protocol.frames import pack_body

__all__ = [
    "KIND",
    "MAX_SCORES",
    "erased_items",
    "erased_score",
    "read_scores",
    "refund_items",
    "score_items",
    "score_removals",
]

KIND = "room.score"
MAX_SCORES = 500
"""Scores that one checkpoint writes; the others follow with the next ones."""


def score_items(room: str, epoch: int, scores: Iterable[StoredScore], at_ms: int) -> list[RecordPut]:
    """Return what writes scores."""
    return [
        RecordPut(KIND, room, _name(epoch, kind, user), at_ms, pack_body((score, reached)))
        for kind, user, score, reached in scores
    ]


def refund_items(
    room: str, epoch: int, order: StoredOrder, reason: str, score: StoredScore | None, at_ms: int
) -> list[Item]:
    """Return what the refund of an order writes. ``score``: of its user after it, None = it is ranked no more."""
    body = pack_body((order.order.order_id, order.user, order.cents, reason))
    fact = Entry(room, epoch, None, REFUND_KIND, at_ms, body)
    return [fact, *score_items(room, epoch, () if score is None else (score,), at_ms)]


def erased_score(score: StoredScore, erasure: Erasure) -> StoredScore:
    """Return a score under the name that stands for an erased user."""
    return score._replace(user=erasure.pseudonym) if score.user == erasure.user else score


def erased_items(record: StoredRecord, erasure: Erasure) -> list[Item]:
    """Return what gives a score in the ledger the name that stands for an erased user; nothing if it is another's."""
    epoch, kind, user = record.name.split(" ", 2)
    if user != erasure.user or tenant_of(record.subject) != erasure.tenant:
        return []
    name = _name(int(epoch), kind, erasure.pseudonym)
    return [
        RecordRemoved(KIND, record.subject, record.name),
        RecordPut(KIND, record.subject, name, record.at_ms, record.body),
    ]


def score_removals(room: str, epoch: int, scores: Iterable[StoredScore]) -> list[RecordRemoved]:
    """Return what removes the scores of a stream that has ended."""
    return [RecordRemoved(KIND, room, _name(epoch, score.kind, score.user)) for score in scores]


def read_scores(reader: Reader) -> dict[tuple[str, int], tuple[StoredScore, ...]]:
    """Return the scores of all rooms by room and epoch. Runs in the ledger's reading thread."""
    found: dict[tuple[str, int], list[StoredScore]] = {}
    for stream, score in read_records(reader, KIND, _stored):
        found.setdefault(stream, []).append(score)
    return {stream: tuple(scores) for stream, scores in found.items()}


def _name(epoch: int, kind: str, user: str) -> str:
    return f"{epoch} {kind} {user}"


def _stored(record: StoredRecord, body: Sequence[Any]) -> tuple[tuple[str, int], StoredScore]:
    epoch, kind, user = record.name.split(" ", 2)
    return (record.subject, int(epoch)), StoredScore(kind, user, body[0], body[1])
