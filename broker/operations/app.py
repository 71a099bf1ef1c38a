"""Handler of the calls of viewers to the platform's application: a question with an answer of the platform's own."""

from __future__ import annotations

from broker.core.webhooks.questions import Start
from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from broker.webhooks.questions import Case
from protocol.codes import ErrorCode
from protocol.frames import pack_body
from protocol.operations.app import MAX_APP_BODY_BYTES, AppAnswer, CallApp

__all__ = ["HANDLERS"]

RETRY_MS = 1000
"""When to call again where the application could not be asked, or did not answer."""


async def _call(parts: Parts, caller: Caller, request: CallApp) -> AppAnswer:
    questions = parts.questions
    if questions is None or questions.app is None:
        raise OperationError(ErrorCode.UNKNOWN_OPERATION, "is not configured", "operation")
    if len(pack_body((request.body,))) - 1 > MAX_APP_BODY_BYTES:
        raise OperationError(ErrorCode.PAYLOAD_TOO_LARGE, f"must have at most {MAX_APP_BODY_BYTES} bytes", "body")
    data = {
        "user": caller.id,
        "name": caller.name,
        "roles": sorted(role.name.lower() for role in caller.roles),
        "key": caller.key,
        "method": request.method,
        "body": request.body,
    }
    case = Case((caller.tenant, caller.id), caller.tenant, "", data)
    start = questions.app.start(case)
    if start is Start.BUSY:
        raise OperationError(ErrorCode.RATE_LIMITED, "too many of your calls wait", "operation", RETRY_MS)
    answer = await questions.call_app(case) if start is Start.ASK else None
    if answer is None:
        raise OperationError(ErrorCode.OVERLOADED, "the application does not answer now", "operation", RETRY_MS)
    return AppAnswer(*answer)


HANDLERS: dict[str, Handler] = {"app.call": _call}
