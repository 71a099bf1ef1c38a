"""Calls of viewers to the platform's application: their records and row."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ..codes import ErrorCode
from ..fields import FieldError, any_value, described, record
from .rows import EVERY_MEMBER, KeyUse, OperationRow, RateLimit, row

__all__ = ["MAX_APP_BODY_BYTES", "ROWS", "AppAnswer", "CallApp"]

MAX_APP_BODY_BYTES = 4096
"""Packed bytes of what a viewer sends."""

_is_method = re.compile(r"[!-~]{1,64}").fullmatch


class CallApp(NamedTuple):
    """Call the application. ``method``: its own word, 1 to 64 visible ASCII characters; ``body``: any value."""

    method: str
    body: Any = None


class AppAnswer(NamedTuple):
    """What the application answers: any value."""

    body: Any = None


def _check_method(value: Any) -> str:
    if type(value) is not str or _is_method(value) is None:
        raise FieldError("must be 1 to 64 visible ASCII characters")
    return value


_method = described(
    _check_method, "method: 1 to 64 visible ASCII characters", {"type": "string", "pattern": "^[!-~]{1,64}$"}
)

ROWS: tuple[OperationRow, ...] = (
    row(
        130, "app.call", CallApp, (_method, any_value), AppAnswer, record(AppAnswer, (any_value,)),
        "Call the platform's application, which answers.",
        scope=None, roles=EVERY_MEMBER, key=KeyUse.OPTIONAL, rate=RateLimit(5, 10), at_once=4,
        errors=(ErrorCode.UNKNOWN_OPERATION, ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.OVERLOADED),
        example=(CallApp("cart.add", {"sku": "tea-1"}), AppAnswer({"items": 3})),
    ),
)  # fmt: skip
