"""Handlers of the operations on PKs."""

from __future__ import annotations

from typing import Any

from broker.core.commerce import pk_half as commands
from broker.core.commerce.pk import PK_KEY
from broker.core.tenants.names import plain_name
from broker.operations.activities import command
from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from protocol.codes import ErrorCode
from protocol.operations.pk import AnswerPk, EndPk, InviteToPk

__all__ = ["HANDLERS"]


async def _invite(parts: Parts, caller: Caller, request: InviteToPk) -> Any:
    if request.other_room == request.room:
        raise OperationError(ErrorCode.BAD_FIELD, "must be another room", "other_room")
    invite = commands.InviteRoom(request.id, plain_name(request.other_room), request.duration_ms, request.measure)
    return await command(parts, caller, request.room, PK_KEY, invite, creates=True)


async def _answer(parts: Parts, caller: Caller, request: AnswerPk) -> Any:
    answer = commands.AnswerInvitation(request.id, request.accepts)
    return await command(parts, caller, request.room, PK_KEY, answer)


async def _cancel(parts: Parts, caller: Caller, request: EndPk) -> Any:
    return await command(parts, caller, request.room, PK_KEY, commands.CancelPk(request.id))


HANDLERS: dict[str, Handler] = {"pk.invite": _invite, "pk.answer": _answer, "pk.cancel": _cancel}
