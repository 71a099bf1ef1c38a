"""Clearing: deletes what a user has posted in a room, or in every room of its tenant, and rejects what waits there."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from broker.core.moderation.review import REVIEWS_KEY
from broker.core.rooms.deletions import UNDELETABLE
from broker.core.tenants.names import plain_name, tenant_of
from broker.ledger import Reader
from broker.ledger.mentions import entries_with
from broker.ledger.replay import event_of
from broker.operations.caller import Caller, OperationError
from broker.operations.held_messages import reject_held
from broker.operations.kept import ask
from broker.operations.messages import delete_messages
from broker.operations.parts import Parts
from broker.operations.rooms import room_of
from protocol.codes import ErrorCode
from protocol.payloads import DeletedPayload

__all__ = ["clear"]

SLICE = 50
"""Rooms between two checkpoints of the event loop."""


_GONE = frozenset({ErrorCode.UNKNOWN_ROOM, ErrorCode.ROOM_ENDED})


async def clear(
    parts: Parts, caller: Caller, room: str | None, user: str, reason: str, joined: Sequence[str] = ()
) -> int:
    """Delete the messages of a user (qualified names) and reject those that wait for a reviewer; return in how many
    rooms. ``room`` None: wherever the tenant has any of it, in open rooms and in those whose stream goes on without a
    task, which costs a pass over the ledger; and in ``joined``: rooms that the user was in a moment ago, where
    messages of it may wait to be shown.

    OperationError; what was deleted until then stays deleted.
    """
    everything = DeletedPayload((), plain_name(user), 0, reason)
    names = [room] if room is not None else {*joined, *await _rooms_with(parts, everything, tenant_of(user))}
    cleared = 0
    for name in names:
        try:
            await delete_messages(parts, caller, room_of(parts, name), everything)
            await reject_held(parts, caller, name, user, reason)
            cleared += 1
        except OperationError as error:
            if room is not None or error.code not in _GONE:
                raise
    return cleared


async def _rooms_with(parts: Parts, everything: DeletedPayload, tenant: str) -> list[str]:
    """Return the rooms of a tenant that have messages of a user, each once."""
    user, found = everything.user_id, dict[str, None]()
    for count, room in enumerate(parts.hub, 1):
        if tenant_of(room.name) == tenant:
            activities = room.state.activities.activities
            queue = None if activities is None else activities.find(*REVIEWS_KEY)
            if room.state.kept.count_covered(everything) or (queue is not None and queue.holds(user)):
                found[room.name] = None
        if count % SLICE == 0:
            await trio.lowlevel.checkpoint()
    if parts.ledger is not None and parts.room_store is not None:
        for name in parts.room_store.with_text(user):
            if tenant_of(name) == tenant:
                found[name] = None
        after, is_end = 0, False
        while not is_end:
            names, after, is_end = await ask(parts.ledger, _rooms_of_events, user, after)
            for name, epoch in names:
                if tenant_of(name) == tenant and parts.hub.epoch_of(name) == epoch:
                    found[name] = None
    return list(found)


def _rooms_of_events(reader: Reader, user: str, after: int) -> tuple[list[tuple[str, int]], int, bool]:
    """Return the rooms and epochs in which entries after a number are messages of a user that can be deleted, the last
    number inspected, and whether that is all. Runs in the ledger's reading thread."""
    entries, last, is_end = entries_with(reader, user, after)
    found = dict[tuple[str, int], None]()
    for entry in entries:
        event = event_of(entry)
        if event is not None and event.user_id == user and event.type not in UNDELETABLE:
            found[entry.room, entry.epoch] = None
    return list(found), last, is_end
