"""Handlers of the operations on the keys of a room."""

from __future__ import annotations

from collections.abc import Sequence

from broker.core.rooms.key_changes import key_operation
from broker.core.rooms.keys import KeyDelete, KeyRefused, key_bytes
from broker.ledger import Reader
from broker.ledger.replay import event_of
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import ask, read
from broker.operations.parts import Handler, Parts
from broker.operations.results import PostResults
from broker.operations.rooms import mask_for, open_for, raise_for, room_of
from broker.rooms.room import Room
from broker.rooms.room_store import KeyReused
from protocol.codes import ErrorCode, KeyCause
from protocol.messages import RoomKey
from protocol.operations.keys import DeletedKey, DeleteKey, GetKeys, KeyItem, KeyPage, KeyVersion, SetKey, SetKeys
from protocol.payloads import KeyChange, KeysPayload, payload_record

__all__ = ["HANDLERS"]

PAGE_BYTES = 32 * 1024
EVENT_BYTES = 64 * 1024


def _get(parts: Parts, caller: Caller, request: GetKeys) -> KeyPage:
    room = room_of(parts, request.room)
    keys, mask = room.state.keys, mask_for(room, caller)
    wanted = None if request.names is None else frozenset(request.names)
    items: list[RoomKey] = []
    left = PAGE_BYTES
    for view in keys.views():
        if (request.cursor is not None and view.name <= request.cursor) or (
            wanted is not None and view.name not in wanted
        ):
            continue
        left -= key_bytes(view.name, view.value, view.owner)
        if left < 0:
            return KeyPage(tuple(items), items[-1].name)
        items.append(view if mask is None else mask.key(view))
    return KeyPage(tuple(items), None)


async def _change(
    parts: Parts, caller: Caller, room: Room, items: Sequence[KeyItem | KeyDelete], path: str = ""
) -> tuple[KeyChange, ...]:
    """Change keys and return what has changed, or had when the call's idempotency key was used first.

    ``path``: of the item at fault in an error, with ``{}`` for its index.
    """
    key = key_operation(caller.account, caller.key, items)
    if key is not None:
        try:
            first = await read(room.journal.first_use(key))
        except KeyReused:
            raise OperationError(ErrorCode.KEY_REUSED, "was used before with other content", "key") from None
        if first is not None:
            return await _changes_at(parts, room, first.epoch, first.offset)
    results = PostResults()
    author = results.author(parts.types, caller.id, caller.name)
    decision = room.change_keys(author, results.expect(), items, key)
    if isinstance(decision, KeyRefused):
        field = decision.field if decision.field == "room" else path.format(decision.item) + decision.field
        raise OperationError(decision.code, decision.rule, field, decision.retry_after_ms)
    if decision.changes == ():
        return ()
    (result,) = await results.wait()
    raise_for(result)
    if decision.changes is not None:
        return decision.changes
    return await _changes_at(parts, room, room.state.epoch, result.detail)


async def _changes_at(parts: Parts, room: Room, epoch: int, offset: int) -> tuple[KeyChange, ...]:
    """Return the changes of the event at an offset; KEY_REUSED where it is not kept any more."""
    stored = room.missing(epoch, offset - 1, parts.clock())
    event = stored[0].event if stored else None
    if event is None and parts.ledger is not None:
        entries = await ask(parts.ledger, Reader.history, room.name, epoch, offset - 1, offset, 1, EVENT_BYTES)
        event = event_of(entries[0]) if entries else None
    payload = None if event is None else payload_record(event.type, event.payload)
    if not isinstance(payload, KeysPayload):
        raise OperationError(ErrorCode.KEY_REUSED, "was used before; what came of it is not kept any more", "key")
    return payload.changes


def _with_owner(caller: Caller, item: KeyItem) -> KeyItem:
    """Return a key to set that the caller owns, where it is a user that wants it gone when it leaves and names none."""
    if item.owner is None and item.delete_on_leave and not caller.is_backend:
        return item._replace(owner=caller.id)
    return item


async def _set(parts: Parts, caller: Caller, request: SetKey) -> KeyVersion:
    item = _with_owner(caller, KeyItem(*request[1:]))
    changes = await _change(parts, caller, open_for(parts, request.room), (item,))
    return KeyVersion(changes[0].version)


async def _set_many(parts: Parts, caller: Caller, request: SetKeys) -> KeyVersion:
    if not request.items:
        raise OperationError(ErrorCode.BAD_FIELD, "must have an item", "items")
    items = tuple(_with_owner(caller, item) for item in request.items)
    changes = await _change(parts, caller, open_for(parts, request.room), items, "items[{}].")
    return KeyVersion(changes[0].version)


async def _delete(parts: Parts, caller: Caller, request: DeleteKey) -> DeletedKey:
    room = room_of(parts, request.room)
    changes = await _change(parts, caller, room, (KeyDelete(request.name, request.version),))
    return DeletedKey(any(change.cause is KeyCause.DELETED for change in changes))


HANDLERS: dict[str, Handler] = {
    "keys.get": _get,
    "keys.set": _set,
    "keys.set_many": _set_many,
    "keys.delete": _delete,
}
