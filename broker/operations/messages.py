"""Handlers of the operations on messages to rooms."""

from __future__ import annotations

from typing import Any

import trio

from broker.core.commerce.audiences import Audiences
from broker.core.rooms.audience import for_marketing
from broker.core.rooms.deletions import UNDELETABLE
from broker.core.rooms.idempotency import shown_id
from broker.core.rooms.pins import PinChange
from broker.core.rooms.traces import PostTrace
from broker.core.tenants.names import plain_name
from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts, Recall
from broker.operations.results import PostResults
from broker.operations.rooms import events_of, open_for, pins_of, raise_for, room_of
from broker.rooms.room import Room
from protocol.activities.audiences import Audience
from protocol.codes import TRY_AGAIN, ErrorCode, MessageType, Outcome, Role
from protocol.fields import FieldError
from protocol.messages import MAX_PINS, AckResult, PinnedMessage, Post
from protocol.operations.messages import (
    DeletedMessages,
    DeleteMessages,
    MessageTrace,
    PinMessage,
    PinnedMessages,
    Published,
    PublishedMany,
    PublishMany,
    PublishMessage,
    TraceMessage,
    UnpinMessage,
)
from protocol.payloads import ORDER_TYPES, DeletedPayload, check_payload

__all__ = ["HANDLERS", "RECALLED", "check_audience", "delete_messages"]

_PINS = frozenset({int(MessageType.PINS_CHANGED)})
SLICE = 100
"""Messages that are posted between two checkpoints of the event loop."""


def checked_payload(parts: Parts, caller: Caller, room: str, kind: int, payload: Any) -> Any:
    """Return the payload of a message that the caller may publish in a room, as its record. Any: of its type."""
    code = parts.types.refusal(kind, payload, parts.types.permitted(Role.APP, caller.allowed_in(room)))
    if code is not None:
        field = "payload" if code in (ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.BAD_FIELD) else "type"
        raise OperationError(code, "is not accepted", field)
    try:
        return check_payload(kind, payload)
    except FieldError as error:
        raise OperationError(error.code, error.rule, error.field or "payload") from None


def check_audience(room: Room, audience: Audience, field: str = "audience") -> None:
    """Raise the OperationError of an audience that names a tag which the room does not have."""
    audiences = room.state.activities.audiences
    unknown = (Audiences[Any]() if audiences is None else audiences).unknown(audience)
    if unknown is not None:
        raise OperationError(ErrorCode.BAD_FIELD, "names no tag of this room", f"{field}.{unknown}")


def _room_for(parts: Parts, request: PublishMessage) -> Room:
    """Return the room of a message for a part of it, or of marketing, if both allow for that."""
    if request.audience is None:
        room = open_for(parts, request.room)
    else:
        if not any(request.audience):
            raise OperationError(ErrorCode.BAD_FIELD, "must name at least one tag", "audience")
        room = room_of(parts, request.room)
        check_audience(room, request.audience)
    if not room.state.takes_audience(request.type):
        rule = "is for announcements, media, and types of the deployment's own in lanes 0 to 2"
        raise OperationError(ErrorCode.BAD_FIELD, rule, "marketing" if request.audience is None else "audience")
    return room


def post(parts: Parts, caller: Caller, request: PublishMessage, results: PostResults) -> None:
    """Post one message; its result comes through ``results``. OperationError where no room has taken it."""
    payload = checked_payload(parts, caller, request.room, request.type, request.payload)
    is_for_all = request.audience is None and not request.marketing
    room = open_for(parts, request.room) if is_for_all else _room_for(parts, request)
    audience = for_marketing(request.audience) if request.marketing else request.audience
    user = caller.id if request.as_user is None else request.as_user
    screen = parts.hub.screens.of(room.name)
    name = request.name or plain_name(user)
    author = results.author(parts.types, user, name if screen is None else screen.masked_name(name))
    message = Post(request.type, request.client_msg_id or caller.post_id, payload)
    try:
        if audience is None:
            room.post(author, results.expect(), message, parts.clock())
        else:
            room.post_to(audience, author, results.expect(), message, parts.clock())
    except Exception:
        parts.hub.crash(room)


def has_own_key(caller: Caller, request: PublishMessage) -> bool:
    """Return whether a message is posted under the idempotency key of its call, and no key of its own."""
    return bool(caller.key) and not request.client_msg_id and request.type not in ORDER_TYPES


def published(result: AckResult, repeated: bool) -> Published:
    """Return a result as clients of the control API see it."""
    outcome, detail = result.outcome, result.detail
    if outcome in TRY_AGAIN:
        return Published(outcome, retry_after_ms=detail)
    if outcome is Outcome.REJECTED:
        return Published(outcome, code=detail)
    return Published(outcome, detail or None, repeated=repeated)


async def _publish(parts: Parts, caller: Caller, request: PublishMessage) -> Published:
    results = PostResults()
    post(parts, caller, request, results)
    (result,) = await results.wait()
    if result.outcome is Outcome.LIMITED:
        raise OperationError(ErrorCode.RATE_LIMITED, "the room takes no more now", "room", result.detail)
    if result.detail == ErrorCode.KEY_REUSED and result.outcome is Outcome.REJECTED and has_own_key(caller, request):
        raise OperationError(ErrorCode.KEY_REUSED, "was used before with other content", "key")
    return published(result, bool(results.repeated))


async def _publish_many(parts: Parts, caller: Caller, request: PublishMany) -> PublishedMany:
    results = PostResults()
    for number, each in enumerate(request.items, 1):
        try:
            role = caller.role_in(each.room)
            if role is not Role.APP:
                code = ErrorCode.ROOM_NOT_GRANTED if role is None else ErrorCode.NOT_ALLOWED
                raise OperationError(code, "is not granted", "room")
            post(parts, caller, each, results)
        except OperationError as error:
            if error.code is ErrorCode.OVERLOADED:
                results.refuse(AckResult(results.expect(), Outcome.LIMITED, error.retry_after_ms))
            else:
                results.refuse(AckResult(results.expect(), Outcome.REJECTED, int(error.code)))
        if number % SLICE == 0:
            await trio.lowlevel.checkpoint()
    answers = await results.wait()
    items = tuple(published(each, each.sequence in results.repeated) for each in answers)
    return PublishedMany(items, sum(each.outcome in (Outcome.ACCEPTED, Outcome.MASKED) for each in items))


async def _change_pins(
    parts: Parts, caller: Caller, room: Room, change: PinChange, ttl_ms: int | None
) -> PinnedMessages:
    results = PostResults()
    author = results.author(parts.types, caller.id, caller.name)
    author.may_post = _PINS
    room.pin(author, results.expect(), change, ttl_ms, caller.post_id)
    (result,) = await results.wait()
    raise_for(result)
    return PinnedMessages(pins_of(room))


async def _pin(parts: Parts, caller: Caller, request: PinMessage) -> PinnedMessages:
    room = room_of(parts, request.room)
    if (request.offset is None) == (request.type is None):
        raise OperationError(ErrorCode.BAD_FIELD, "must be given, or type, and not both", "offset")
    name = request.id or ("" if request.offset is None else str(request.offset))
    if not name:
        raise OperationError(ErrorCode.BAD_FIELD, "must be given for a message of its own", "id")
    if request.offset is not None:
        pin = await _pin_of_event(parts, room, name, request.offset)
    else:
        assert request.type is not None
        if parts.types.is_marketing(request.type):
            raise OperationError(ErrorCode.BAD_FIELD, "is marketing, and what is pinned is for all", "type")
        if request.type in UNDELETABLE:
            raise OperationError(ErrorCode.UNKNOWN_TYPE, "cannot be pinned", "type")
        payload = checked_payload(parts, caller, request.room, request.type, request.payload)
        if not caller.is_backend and (request.as_user is not None or request.name):
            field = "name" if request.as_user is None else "as_user"
            raise OperationError(ErrorCode.NOT_ALLOWED, "is for backends", field)
        user = caller.id if request.as_user is None else request.as_user
        pin = PinnedMessage(name, request.type, payload, user, request.name or user, parts.unix_ms())
    pins = room.state.kept.pins.pinned
    if len(pins) >= MAX_PINS and all(each.id != name for each in pins):
        raise OperationError(ErrorCode.OUT_OF_STATE, f"has {MAX_PINS} pinned messages: unpin one", "room")
    return await _change_pins(parts, caller, room, PinChange(pin), request.ttl_ms)


async def _pin_of_event(parts: Parts, room: Room, name: str, offset: int) -> PinnedMessage:
    """Return the pin of an event of the room's stream."""
    found = () if offset > room.state.last_offset else await events_of(parts, room, offset - 1, offset)
    if not found or found[0].event.type in UNDELETABLE:
        raise OperationError(ErrorCode.BAD_FIELD, "names no message that is kept and can be pinned", "offset")
    event = found[0].event
    if found[0].audience is not None:
        raise OperationError(ErrorCode.BAD_FIELD, "is a message for a part of the room", "offset")
    return PinnedMessage(name, event.type, event.payload, event.user_id, event.name, event.at_ms, 0, offset)


async def _unpin(parts: Parts, caller: Caller, request: UnpinMessage) -> PinnedMessages:
    room = room_of(parts, request.room)
    if all(each.id != request.id for each in room.state.kept.pins.pinned):
        raise OperationError(ErrorCode.BAD_FIELD, "names no pinned message", "id")
    return await _change_pins(parts, caller, room, PinChange(None, request.id), None)


async def _delete(parts: Parts, caller: Caller, request: DeleteMessages) -> DeletedMessages:
    room = room_of(parts, request.room)
    if request.ids is not None and (request.user is not None or request.after_ms is not None):
        raise OperationError(ErrorCode.BAD_FIELD, "must not be given together with user or after_ms", "ids")
    if not request.ids and request.user is None and request.after_ms is None:
        raise OperationError(ErrorCode.BAD_FIELD, "must name at least one, or user or after_ms be given", "ids")
    for index, offset in enumerate(request.ids or ()):
        if offset > room.state.last_offset:
            raise OperationError(ErrorCode.BAD_FIELD, "names no event", f"ids[{index}]")
    payload = DeletedPayload(request.ids or (), plain_name(request.user or ""), request.after_ms or 0, request.reason)
    return await delete_messages(parts, caller, room, payload)


async def delete_messages(parts: Parts, caller: Caller, room: Room, payload: DeletedPayload) -> DeletedMessages:
    """Delete messages of a room; members get an event. OperationError."""
    deleted = room.state.kept.count_covered(payload)
    results = PostResults()
    author = results.author(parts.types, caller.id, caller.name)
    room.post(author, results.expect(), Post(MessageType.MESSAGES_DELETED, caller.post_id, payload), parts.clock())
    (result,) = await results.wait()
    raise_for(result)
    return DeletedMessages(deleted, result.detail)


def _trace(parts: Parts, caller: Caller, request: TraceMessage) -> MessageTrace:
    room = room_of(parts, request.room)
    if bool(request.client_msg_id) == (request.offset is not None):
        raise OperationError(ErrorCode.BAD_FIELD, "must be given, or offset, and not both", "client_msg_id")
    user = None if request.user is None else plain_name(request.user)
    if request.offset is not None:
        trace, field = room.traces.at_offset(request.offset), "offset"
    else:
        trace, field = room.traces.find(user, request.client_msg_id), "client_msg_id"
    if trace is None:
        raise OperationError(ErrorCode.BAD_FIELD, "names no message that is traced, or not any more", field)
    return _view_of(trace)


def _view_of(trace: PostTrace) -> MessageTrace:
    """Return a trace as clients of the control API see it."""
    begin, outcome, detail = trace.received_at, trace.outcome, trace.detail
    view = MessageTrace(trace.user, shown_id(trace.client_msg_id), trace.type, trace.received_ms, outcome)
    if trace.decided_at is None:
        return view
    view = view._replace(
        decided_ms=_ms(trace.decided_at - begin), tick=trace.tick, merged_into=trace.merged_into or None,
        senders=trace.count, to_sender=trace.to_sender,
    )  # fmt: skip
    if outcome is Outcome.REJECTED:
        return view._replace(code=detail)
    if outcome in (Outcome.LIMITED, Outcome.UNAVAILABLE):
        return view._replace(retry_after_ms=detail)
    view = view._replace(offset=detail or None)
    found = trace.publication
    if found is None:
        return view
    view = view._replace(published_ms=_ms(found.at - begin), members=found.members)
    if found.took_s is None:
        return view
    return view._replace(
        written_ms=_ms(found.at - begin + found.took_s),
        written=found.written,
        queued=found.queued,
        refused=found.refused,
    )


def _ms(seconds: float) -> float:
    return max(0.0, round(seconds * 1000, 3))


def _pins_again(parts: Parts, room: str, offset: int) -> PinnedMessages:
    return PinnedMessages(pins_of(room_of(parts, room)))


def _deleted_again(parts: Parts, room: str, offset: int) -> DeletedMessages:
    return DeletedMessages(0, offset)


RECALLED: dict[str, Recall] = {
    "messages.pin": _pins_again,
    "messages.unpin": _pins_again,
    "messages.delete": _deleted_again,
}
HANDLERS: dict[str, Handler] = {
    "messages.publish": _publish,
    "messages.publish_many": _publish_many,
    "messages.pin": _pin,
    "messages.unpin": _unpin,
    "messages.delete": _delete,
    "messages.trace": _trace,
}
