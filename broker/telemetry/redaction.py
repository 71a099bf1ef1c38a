"""Redaction of log lines: nothing that a person has written, no name and no token, and no id of a user as it is.

A text passes only in a field that is known to hold none of these; of every other one a line has the length. An id of a
user is replaced by a hash that is the same within one run of the broker, so that lines about one user can still be
found. Tracebacks keep the types of exceptions and the places, and lose their messages, which quote values.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import structlog

__all__ = ["format_traceback", "redact"]

PLAIN_FIELDS = frozenset(
    {
        "address", "addresses", "before", "changed", "detail", "effect", "encoding", "endpoint", "error", "event",
        "exception", "header", "heir", "id", "job", "kind", "level", "mode", "node", "of", "operation", "path", "peer",
        "policy", "problems", "proxy", "remedy", "request_id", "room", "row", "settings", "signal", "stage", "state",
        "task", "tenant", "timestamp", "topic", "url", "urls", "why",
    }
)  # fmt: skip
"""Fields whose texts are the broker's own, or name things: rooms, endpoints, files, settings, machines."""
USER_FIELDS = frozenset({"author", "by", "caller", "moderator", "user"})
_is_name_of_member = re.compile(r"[A-Z][A-Z_]*").fullmatch
_KEY = secrets.token_bytes(16)


def redact(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace what names or quotes people in a line."""
    for field, value in line.items():
        if field == "exc_info":
            continue
        if field in USER_FIELDS:
            line[field] = _hashed(value)
        elif field not in PLAIN_FIELDS:
            line[field] = _without_texts(value)
    return line


# Any: log lines hold every kind of value.
def _hashed(value: Any) -> Any:
    if not value:
        return value
    return f"user~{hmac.digest(_KEY, str(value).encode(errors='replace'), hashlib.sha256)[:4].hex()}"


def _without_texts(value: Any) -> Any:
    if isinstance(value, (str, bytes)):
        return value if isinstance(value, str) and _is_name_of_member(value) else f"({len(value)} characters)"
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_without_texts(each) for each in value]
    if isinstance(value, dict):
        return {field: _without_texts(each) for field, each in value.items()}
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return f"({type(value).__name__})"


ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def format_traceback(exc_info: ExcInfo) -> str:
    """Return a traceback without the messages of its exceptions."""
    return "".join(_lines(exc_info[1], set())).rstrip("\n")


def _lines(error: BaseException, seen: set[int]) -> list[str]:
    """Return the lines of an exception, its causes first."""
    seen.add(id(error))
    lines: list[str] = []
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        lines += [*_lines(before, seen), "\nthen:\n\n"]
    if error.__traceback__ is not None:
        lines += ["Traceback (most recent call last):\n", *traceback.format_tb(error.__traceback__)]
    lines.append(f"{type(error).__module__}.{type(error).__qualname__}\n")
    inner: Sequence[BaseException] = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for number, each in enumerate(inner, 1):
        if id(each) not in seen:
            lines.append(f"  {number}:\n")
            lines += ["  " + line for line in "".join(_lines(each, seen)).splitlines(keepends=True)]
    return lines
