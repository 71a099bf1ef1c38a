"""Failures of the control API as ``application/problem+json`` (RFC 9457), and the status of each error code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

from starlette.responses import Response

from broker.operations.caller import OperationError
from protocol.codes import ErrorCode

__all__ = ["STATUS", "HttpProblem", "problem_of"]

STATUS: dict[ErrorCode, int] = {
    ErrorCode.BAD_FIELD: 400,
    ErrorCode.UNKNOWN_TYPE: 400,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.NOT_JOINED: 409,
    ErrorCode.ALREADY_JOINED: 409,
    ErrorCode.OUT_OF_STATE: 409,
    ErrorCode.UNKNOWN_ROOM: 404,
    ErrorCode.KEY_REUSED: 409,
    ErrorCode.UNKNOWN_OPERATION: 404,
    ErrorCode.NOT_ALLOWED: 403,
    ErrorCode.BLOCKED: 403,
    ErrorCode.ROOM_NOT_GRANTED: 403,
    ErrorCode.TOO_MANY_ROOMS: 409,
    ErrorCode.DUPLICATE_TEXT: 409,
    ErrorCode.ROOM_PAUSED: 409,
    ErrorCode.ROOM_ENDED: 409,
    ErrorCode.NOT_KEPT: 409,
    ErrorCode.STALE: 409,
    ErrorCode.TOO_MANY_KEYS: 409,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.ROOM_FULL: 503,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.TOO_MANY_ROOMS_OPEN: 503,
    ErrorCode.LOCKED: 409,
    ErrorCode.UNKNOWN_ACTIVITY: 404,
    ErrorCode.UNKNOWN_CLAIM: 404,
    ErrorCode.ORDER_USED: 409,
    ErrorCode.BELOW_TAKEN: 409,
    ErrorCode.BAD_CODE: 400,
    ErrorCode.CLOSED: 409,
    ErrorCode.SOLD_OUT: 409,
    ErrorCode.ALREADY_HAVE: 409,
    ErrorCode.ALREADY_CONFIRMED: 409,
    ErrorCode.EXPIRED: 409,
    ErrorCode.CANCELLED: 409,
    ErrorCode.RELEASED: 409,
    ErrorCode.SALE_CANCELLED: 409,
    ErrorCode.EMPTY: 409,
    ErrorCode.EXHAUSTED: 409,
    ErrorCode.NOT_ELIGIBLE: 403,
    ErrorCode.NOT_INVITED: 403,
    ErrorCode.BANNED: 403,
    ErrorCode.MUTED: 403,
    ErrorCode.FOLLOWERS_ONLY: 403,
    ErrorCode.VIP_ONLY: 403,
    ErrorCode.EMOTE_ONLY: 403,
    ErrorCode.ALL_MUTED: 403,
    ErrorCode.LINKS_OFF: 403,
    ErrorCode.NOT_UNIQUE: 409,
    ErrorCode.SLOW_MODE: 429,
    ErrorCode.UNKNOWN_ACTION: 404,
    ErrorCode.UNKNOWN_CONVERSATION: 404,
    ErrorCode.UNKNOWN_DESK: 404,
    ErrorCode.UNKNOWN_CALL: 404,
    ErrorCode.BUSY: 409,
    ErrorCode.TOO_MANY_MEMBERS: 409,
    ErrorCode.NOT_OPEN: 409,
    ErrorCode.ALL_RESERVED: 409,
    ErrorCode.NOT_RESERVED: 409,
    ErrorCode.PRICE_CHANGED: 409,
    ErrorCode.SEAT_TAKEN: 409,
    ErrorCode.INTERNAL_ERROR: 500,
}
"""HTTP status by error code; a test compares it with all codes."""

_TITLES = {
    400: "The request is wrong",
    401: "Authentication failed",
    403: "Not allowed",
    404: "Not found",
    405: "Another method is needed",
    408: "Too slow",
    409: "Not in the present state",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "Too many requests",
    500: "Internal error",
    503: "Not now",
}


class HttpProblem(Exception):
    """Failure of a request. ``code``: the wire's name of the error, or one of HTTP's own; ``allow``: methods of 405."""

    def __init__(
        self, status: int, code: str, rule: str, field: str = "", retry_after_ms: int = 0, *, allow: str = "POST"
    ) -> None:
        super().__init__(rule)
        self.allow = allow
        self.status = status
        self.code = code
        self.rule = rule
        self.field = field
        self.retry_after_ms = retry_after_ms

    def response(self, request_id: str, limits: Mapping[str, str] | None = None) -> Response:
        """Return the answer. ``limits``: headers of the rate limits, where the caller is known."""
        fields: dict[str, Any] = {
            "type": f"urn:roomcast:error:{self.code.lower()}",
            "title": _TITLES[self.status],
            "status": self.status,
            "code": self.code,
            "rule": self.rule,
            "request_id": request_id,
        }
        if self.field:
            fields["field"] = self.field
        headers = {"X-Request-Id": request_id, "Cache-Control": "no-store", **(limits or {})}
        if self.retry_after_ms:
            fields["retry_after_ms"] = self.retry_after_ms
            headers["Retry-After"] = str(ceil(self.retry_after_ms / 1000))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status == 405:
            headers["Allow"] = self.allow
        # A field that no record has is named as it was sent, and may hold what no encoder takes.
        body = json.dumps(fields, ensure_ascii=False).encode(errors="replace")
        return Response(body, self.status, headers, media_type="application/problem+json")


def problem_of(error: OperationError) -> HttpProblem:
    """Return the failure of a refused operation."""
    return HttpProblem(STATUS[error.code], error.code.name, error.rule, error.field, error.retry_after_ms)
