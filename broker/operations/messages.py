"""Handlers of the operations on messages to rooms."""

from __future__ import annotations

import trio

from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from broker.operations.results import PostResults
from broker.operations.rooms import open_for
from protocol.codes import ErrorCode, Outcome, Role
from protocol.fields import FieldError
from protocol.messages import AckResult, Post
from protocol.operations.messages import Published, PublishedMany, PublishMany, PublishMessage
from protocol.payloads import check_payload

__all__ = ["HANDLERS"]

SLICE = 100
"""Messages that are posted between two checkpoints of the event loop."""


def post(parts: Parts, caller: Caller, request: PublishMessage, results: PostResults) -> None:
    """Post one message; its result comes through ``results``. OperationError where no room has taken it."""
    code = parts.types.refusal(
        request.type, request.payload, parts.types.permitted(Role.APP, caller.allowed_in(request.room))
    )
    if code is not None:
        field = "payload" if code is ErrorCode.PAYLOAD_TOO_LARGE else "type"
        raise OperationError(code, "is not accepted", field)
    try:
        payload = check_payload(request.type, request.payload)
    except FieldError as error:
        raise OperationError(error.code, error.rule, error.field or "payload") from None
    room = open_for(parts, request.room)
    user = caller.id if request.as_user is None else request.as_user
    author = results.author(parts.types, user, request.name or user)
    message = Post(request.type, request.client_msg_id or caller.own_key, payload)
    try:
        room.post(author, results.expect(), message, parts.clock())
    except Exception:
        parts.hub.crash(room)


def published(result: AckResult, repeated: bool) -> Published:
    """Return a result as clients of the control API see it."""
    outcome, detail = result.outcome, result.detail
    if outcome is Outcome.LIMITED:
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
    return PublishedMany(items, sum(each.outcome is Outcome.ACCEPTED for each in items))


HANDLERS: dict[str, Handler] = {"messages.publish": _publish, "messages.publish_many": _publish_many}
