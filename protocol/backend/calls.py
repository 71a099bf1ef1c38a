"""One call of the control API without its transport: the request, what an answer means, and whether to ask again.

A call is tried at most `TRIES` times, and no longer than the caller's timeout. An operation that takes an idempotency
key gets one, the same for every try, so that asking again changes nothing more; it and one that changes nothing are
tried again after any failure of the connection and after 429 and 503. Any other is tried again only where the broker
has certainly done nothing: it could not be reached, or it answered 429.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from ..fields import FieldError, read_received
from ..json_depth import parse_json
from ..json_values import as_json
from ..operations import BY_NAME, KeyUse

__all__ = ["TRIES", "ApiCall", "ApiError", "AsyncBackendCall", "BackendCall", "BackendError", "NoAnswer"]

TRIES = 5
MAX_ANSWER_DEPTH = 64
FIRST_WAIT_S, MOST_WAIT_S = 0.2, 5.0
"""Wait before the second try, doubled for each further one, where the broker names no time."""


class BackendCall(Protocol):
    """Makes one call: by the operation's name, its request, an idempotency key, and whether it is judged and not
    done."""

    # Any: records of the operation.
    def __call__(self, name: str, request: Any, key: str | None, dry_run: bool = False, /) -> Any: ...


class AsyncBackendCall(Protocol):
    """As `BackendCall`, to be awaited."""

    async def __call__(self, name: str, request: Any, key: str | None, dry_run: bool = False, /) -> Any: ...


class BackendError(Exception):
    """A call has no result."""


class NoAnswer(BackendError):
    """The broker could not be reached, or its answer did not come or is none of a control API."""


class ApiError(BackendError):
    """The broker refused a call.

    ``code``: name of the error, such as UNKNOWN_ROOM; ``status``: of HTTP; ``field`` and ``rule``: what is wrong with
    the request, "" = no field; ``retry_after_ms``: when to ask again, 0 = not by itself; ``request_id``: as in the
    broker's log.
    """

    def __init__(
        self, code: str, status: int, rule: str, field: str = "", retry_after_ms: int = 0, request_id: str = ""
    ) -> None:
        where = f"{field}: " if field else ""
        super().__init__(f"{code} ({status}): {where}{rule}")
        self.code = code
        self.status = status
        self.rule = rule
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.request_id = request_id


class ApiCall:
    """One call of the operation ``name``. ``key``: idempotency key, None = a random one where the operation takes one;
    ``dry_run``: the broker judges the call and does nothing.

    ``path``, ``body`` and ``headers`` are what to send.
    """

    def __init__(self, name: str, request: Any, key: str | None = None, *, dry_run: bool = False) -> None:
        # Any: the record of the operation.
        self._row = BY_NAME[name]
        subject, _, verb = name.partition(".")
        self.path = f"/v1/{subject}/{verb}{'?dry_run=1' if dry_run else ''}"
        self.body = json.dumps(as_json(request), ensure_ascii=False, allow_nan=False).encode()
        self.headers = {"Content-Type": "application/json"}
        if self._row.key is not KeyUse.NONE:
            self.headers["Idempotency-Key"] = uuid.uuid4().hex if key is None else key
        self.tries = 0
        self._is_repeatable = self._row.key is not KeyUse.NONE or not self._row.changes

    def result(self, status: int, headers: Mapping[str, str], body: bytes) -> Any:
        """Return the result of an answer. ApiError where the broker refused, NoAnswer for anything else."""
        try:
            answer = parse_json(body.decode(), MAX_ANSWER_DEPTH)
        except (ValueError, RecursionError):
            answer = None
        if type(answer) is not dict:
            raise NoAnswer(f"status {status} without a JSON object: is it a control API?")
        if status != 200:
            raise _refusal(status, headers, answer)
        try:
            return read_received(self._row.read_result, answer)
        except FieldError as error:
            raise NoAnswer(f"the result of {self._row.name} is of another version: {error}") from None

    def wait_s(self, error: BackendError, *, was_sent: bool, left_s: float) -> float | None:
        """Return the seconds until the next try after ``error``; None: there is none, and the error is the result.

        ``was_sent``: the broker may have received the request. ``left_s``: of the caller's timeout.
        """
        self.tries += 1
        wait_s = min(FIRST_WAIT_S * 2 ** (self.tries - 1), MOST_WAIT_S) * random.uniform(0.5, 1.0)
        if isinstance(error, ApiError):
            may_retry = error.status == 429 or (error.status == 503 and self._is_repeatable)
            if error.retry_after_ms:
                wait_s = error.retry_after_ms / 1000 * random.uniform(1.0, 1.2)
        else:
            may_retry = self._is_repeatable or not was_sent
        return wait_s if may_retry and self.tries < TRIES and wait_s < left_s else None


def _refusal(status: int, headers: Mapping[str, str], answer: dict[str, Any]) -> ApiError:
    """Return the refusal that an answer of ``application/problem+json`` describes."""
    wait_ms = answer.get("retry_after_ms", 0)
    if not wait_ms:
        seconds = headers.get("Retry-After", "")
        wait_ms = int(seconds) * 1000 if seconds.isdecimal() else 0
    request_id = str(answer.get("request_id") or headers.get("X-Request-Id", ""))
    rule = str(answer.get("rule", answer.get("title", "")))
    return ApiError(str(answer.get("code", "")), status, rule, str(answer.get("field", "")), int(wait_ms), request_id)
