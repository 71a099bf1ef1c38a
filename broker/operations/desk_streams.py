"""Handlers of the operations on answers of the service desk that come in parts."""

from __future__ import annotations

import secrets

from broker.core.users.desk_streams import AnswerStream
from broker.core.users.service_desk import Stale
from broker.ledger import Committed, Key, LedgerResult, make_key
from broker.operations.caller import Caller, OperationError
from broker.operations.conversations import actor, check_mute, screened
from broker.operations.desk_rights import find_desk, find_row, holder_row, repeated, sent, stale, written
from broker.operations.kept import read, required
from broker.operations.parts import Handler, Parts
from broker.users.tenant_desk import Desk
from protocol.activities.conversations import ConversationMessage
from protocol.activities.desk import DeskStreaming
from protocol.codes import ErrorCode
from protocol.frames import pack_body
from protocol.operations.conversations import SentMessage
from protocol.operations.desk_streams import (
    AppendedText,
    AppendText,
    EndStream,
    InterruptDesk,
    InterruptedDesk,
    StartedStream,
    StartStream,
)

__all__ = ["HANDLERS", "interrupt"]


async def _start(parts: Parts, caller: Caller, request: StartStream) -> StartedStream:
    desk, user, id = find_desk(parts, caller), actor(caller, request.as_user), request.conversation
    if not caller.is_backend:
        check_mute(parts, caller)
    _check_holder(parts, caller, desk, id, user, request.epoch)
    await interrupt(parts, desk, id)
    _check_holder(parts, caller, desk, id, user, request.epoch)
    stream = desk.streams[id] = AnswerStream(secrets.token_hex(8), user, request.epoch)
    desk.touch(id, parts.hub.trusted.continued_ms())
    return StartedStream(stream.id)


def _check_holder(parts: Parts, caller: Caller, desk: Desk, id: str, user: str, epoch: int) -> None:
    row = holder_row(parts, caller, desk, id, user)
    if (row.agent, row.epoch) != (user, epoch):
        raise stale()


def _found(parts: Parts, caller: Caller, id: str, stream: str, as_user: str | None) -> tuple[Desk, AnswerStream]:
    desk, user = find_desk(parts, caller), actor(caller, as_user)
    holder_row(parts, caller, desk, id, user)
    found = desk.streams.get(id)
    if found is None or (found.id, found.by) != (stream, user):
        raise OperationError(ErrorCode.OUT_OF_STATE, "has ended: it was interrupted, or is another one's", "stream")
    return desk, found


def _append(parts: Parts, caller: Caller, request: AppendText) -> AppendedText:
    desk, stream = _found(parts, caller, request.conversation, request.stream, request.as_user)
    if not caller.is_backend:
        screened(parts, caller, request._replace(text=stream.text + request.text))
    try:
        stream.append(request.text)
    except ValueError as error:
        raise OperationError(ErrorCode.PAYLOAD_TOO_LARGE, f"{error}", "text") from None
    desk.touch(request.conversation, parts.hub.trusted.continued_ms())
    part = DeskStreaming(stream.id, stream.seq, request.text, False, False)
    required(parts.desks).show_customer(desk, request.conversation, "streaming", part)
    return AppendedText(stream.seq)


async def _end(parts: Parts, caller: Caller, request: EndStream) -> SentMessage:
    key = make_key("desk.end_stream", caller.account, caller.key, content=pack_body(tuple(request)))
    id, desks = request.conversation, required(parts.desks)
    first = await read(desks.first_result(key))
    if first is not None:
        return sent(0, repeated(key, first))
    desk, stream = _found(parts, caller, id, request.stream, request.as_user)
    if not stream.text.strip():
        raise OperationError(ErrorCode.BAD_FIELD, "has no text yet", "stream")
    text = stream.text
    if not caller.is_backend:
        check_mute(parts, caller)
        whole, _ = screened(parts, caller, AppendText(id, stream.id, text))
        text = whole.text
    parts.charge_messages(caller, 1)
    try:
        offset, result = await _say(parts, desk, id, stream, text, key)
    except Stale:
        raise stale() from None
    if isinstance(result, Committed) and desk.streams.get(id) is stream:
        del desk.streams[id]
        desks.show_customer(desk, id, "streaming", DeskStreaming(stream.id, stream.seq, "", True, False))
    return sent(offset, result)


async def _say(
    parts: Parts, desk: Desk, id: str, stream: AnswerStream, text: str, key: Key
) -> tuple[int, LedgerResult]:
    """Make the text of an answer a message; return its offset, with the result. Stale: another one holds it now."""
    agent = desk.agents.get(stream.by)
    message = ConversationMessage(0, stream.by, "" if agent is None else agent.name, 0, text)
    return await written(
        required(parts.desks).say(
            desk, id, message, key, lambda now_ms: desk.core.answer(id, stream.by, stream.epoch, now_ms)
        )
    )


async def interrupt(parts: Parts, desk: Desk, id: str) -> bool:
    """Stop the answer under way in a conversation, and make what was shown of it a message; False: there is none."""
    stream = desk.streams.pop(id, None)
    if stream is None:
        return False
    required(parts.desks).stream_ended(desk, id, stream)
    if stream.text.strip():
        try:
            await _say(parts, desk, id, stream, stream.text, make_key("desk.stream", desk.tenant, id, stream.id))
        except Stale:
            pass  # another one holds the conversation now: it was shown, and is no answer
    return True


async def _interrupt(parts: Parts, caller: Caller, request: InterruptDesk) -> InterruptedDesk:
    desk = find_desk(parts, caller)
    row = find_row(parts, caller, desk, request.conversation, caller.id)
    if row.customer != caller.id:
        raise OperationError(ErrorCode.NOT_ALLOWED, "must be a conversation of your own", "conversation")
    return InterruptedDesk(await interrupt(parts, desk, row.id))


HANDLERS: dict[str, Handler] = {
    "desk.start_stream": _start,
    "desk.append": _append,
    "desk.end_stream": _end,
    "desk.interrupt": _interrupt,
}
