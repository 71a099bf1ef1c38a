"""Must-deliver messages of the activities of a room where several nodes share rooms and inboxes.

They are in the fact of the room first, and then in the broker's log, with a key: a new owner of the room sends those
of its last facts again, and none is twice in an inbox.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import structlog
import trio

from broker.engine.base import Engine
from broker.ledger import Committed, DirectEntry, Item, Key, LedgerResult, Repeated, make_key
from broker.ledger.pending import PendingResult
from broker.rooms.activity_records import DirectSink
from broker.rooms.broker_log import BrokerLog

__all__ = ["AGAIN_WITHIN_MS", "notices_of", "send_notices", "without_notices"]

log = structlog.get_logger("roomcast.shared_ledger")

AGAIN_WITHIN_MS = 60_000
"""A new owner sends again the messages of facts that are not older: the one before may have died before it has."""
AGAIN_S = 1.0
TRIES = 60


class _Notices:
    """A sink whose messages go to the inboxes later, by `send_notices`."""

    def __init__(self, inboxes: DirectSink) -> None:
        self._inboxes = inboxes

    def entry(self, user: str, kind: int, payload: Any) -> DirectEntry:
        """Return the item of the room's fact."""
        return self._inboxes.entry(user, kind, payload)

    def written(self, entries: Sequence[DirectEntry], direct_ids: Sequence[int]) -> None:
        """Do nothing: the numbers are those of the broker's log."""


def notices_of(inboxes: DirectSink, engine: Engine | None) -> DirectSink:
    """Return what takes the messages of activities. ``engine``: by which nodes share the inboxes, None = none do."""
    return inboxes if engine is None else _Notices(inboxes)


def without_notices(items: Sequence[Item]) -> tuple[Item, ...]:
    """Return the items of a fact of a room that a copy takes over."""
    return tuple(item for item in items if not isinstance(item, DirectEntry))


async def send_notices(shared: BrokerLog, room: str, items: Sequence[Item]) -> None:
    """Put the messages of a fact of a room into the inboxes, once, however often this is done."""
    waiting = [
        (entry, _key(room, number, entry))
        for number, entry in enumerate(item for item in items if isinstance(item, DirectEntry))
    ]
    for _ in range(TRIES):
        asked: list[tuple[Any, PendingResult[LedgerResult]]] = []
        for entry, key in waiting:
            pending = PendingResult[LedgerResult]()
            if shared.record((entry,), (key,), pending.set):
                asked.append(((entry, key), pending))
        done = [each for each, pending in asked if isinstance(await pending.wait(), (Committed, Repeated))]
        waiting = [each for each in waiting if each not in done]
        if not waiting:
            return
        await trio.sleep(AGAIN_S)
    log.error("messages of a room are in no inbox", room=room, messages=len(waiting))


def _key(room: str, number: int, entry: DirectEntry) -> Key:
    """Return the key of a message, the same at every owner of the room. ``number``: of the message in its fact."""
    body = hashlib.blake2b(entry.body, digest_size=16).hexdigest()
    return make_key("notice", room, entry.user, str(entry.at_ms), str(number), body, content=entry.body)
