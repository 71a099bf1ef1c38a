"""Batches of direct messages: template, values of each recipient, and parts of a batch. Used by both ends.

In a template, ``{name}`` in any string of the payload is replaced by the recipient's own value. A template is any value
that a payload may be; there is no formatting language, and a field without a value is an error before the first message
is sent. The sender cuts a batch into parts that fit a client's body; the broker fills a part for all its recipients
before it sends the first message, so that nothing of a part with an error is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .codes import CUSTOM_TYPE_MIN, MessageType
from .errors import LocalProtocolError
from .fields import FieldError
from .frames import MAX_CLIENT_BODY_BYTES, pack_body
from .messages import MAX_DIRECT_BYTES, MAX_RECIPIENTS, Call
from .operations import BY_REQUEST
from .operations.directs import SendManyDirects
from .payloads import check_payload

__all__ = ["TemplateError", "direct_payload", "fields_of", "fill", "parts_of", "payload_for", "payloads_of"]

Values = Mapping[str, Mapping[str, str]]

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,31})\}")


class TemplateError(ValueError):
    """Error of a template field without a value; the message names the field."""


# Any: payloads of custom types are any value that the wire carries.
def fields_of(template: Any) -> frozenset[str]:
    """Return the names of all fields in a template."""
    if isinstance(template, str):
        return frozenset(_FIELD.findall(template))
    if isinstance(template, Mapping):
        return frozenset().union(*map(fields_of, template.values())) if template else frozenset()
    if isinstance(template, (tuple, list)):
        return frozenset().union(*map(fields_of, template)) if template else frozenset()
    return frozenset()


def fill(template: Any, values: Mapping[str, str]) -> Any:
    """Return the template with every field replaced; values are not expanded again. TemplateError: one is missing."""
    if isinstance(template, str):
        return _FIELD.sub(lambda match: _value(match.group(1), values), template)
    if isinstance(template, Mapping):
        return {key: fill(value, values) for key, value in template.items()}
    if isinstance(template, (tuple, list)):
        return tuple(fill(value, values) for value in template)
    return template


def _value(name: str, values: Mapping[str, str]) -> str:
    value = values.get(name)
    if value is None:
        raise TemplateError(f"{{{name}}} has no value")
    return value


def payload_for(kind: int, template: Any, values: Mapping[str, str]) -> Any:
    """Return the payload of type ``kind`` for a recipient with these values.

    Any: a template is a payload, and those of custom types are any value. Raises TemplateError for a missing value, and
    FieldError (its field is a path below "payload") where the result is not a payload of that type or too large.
    """
    return _bounded(check_payload(kind, fill(template, values)))


def direct_payload(kind: int, payload: Any) -> Any:
    """Return the payload of a message of type ``kind`` to one user. FieldError: as in `payloads_of`."""
    _check_type(kind)
    return _bounded(check_payload(kind, payload))


def _check_type(kind: int) -> None:
    if kind < CUSTOM_TYPE_MIN and kind != MessageType.ANNOUNCEMENT:
        raise FieldError("must be ANNOUNCEMENT or a custom type", "type")


def _bounded(payload: Any) -> Any:
    """Return a payload of at most `MAX_DIRECT_BYTES`; FieldError for others."""
    try:
        nbytes = len(pack_body((payload,))) - 1
    except UnicodeEncodeError:
        raise FieldError("must not have half of a surrogate pair", "payload") from None
    if nbytes > MAX_DIRECT_BYTES:
        raise FieldError(f"must be at most {MAX_DIRECT_BYTES} bytes", "payload")
    return payload


def payloads_of(kind: int, template: Any, values: Values) -> list[tuple[str, Any]]:
    """Return (user id, payload) of every recipient of a part. FieldError names the field and the rule, not the value.

    Memory is bounded by `MAX_DIRECT_BYTES` for each of the part's users.
    """
    _check_type(kind)
    found = []
    for index, (user, own) in enumerate(values.items()):
        try:
            found.append((user, payload_for(kind, template, own)))
        except TemplateError:
            raise FieldError("must have a value for every field of the template", f"values[{index}]") from None
        except FieldError as error:
            raise FieldError(f"filled with values[{index}]: {error}", "template") from None
    return found


def parts_of(
    batch: str, kind: int, template: Any, values: Values, expires_s: int | None = None
) -> Iterator[SendManyDirects]:
    """Cut a batch into requests of ``directs.send_many`` that fit a CALL, each user in exactly one, in the given order.

    The fields are not checked. LocalProtocolError if template and values of one recipient exceed a body, or a string
    has half of a surrogate pair.
    """
    # A map of more than 15 entries has a head of 3 bytes instead of 1.
    empty = SendManyDirects(batch, kind, template, {}, None, expires_s)
    room = MAX_CLIENT_BODY_BYTES - _packed_bytes(Call(BY_REQUEST[SendManyDirects].number, "", empty)) - 2
    part: dict[str, Mapping[str, str]] = {}
    used = 0
    for user, own in values.items():
        own = dict(own)
        nbytes = _packed_bytes((user, own)) - 1
        if nbytes > room:
            why = f"template and values of {user!r} are above {MAX_CLIENT_BODY_BYTES} bytes"
            raise LocalProtocolError(f"directs.send_many: {why}")
        if used + nbytes > room or len(part) == MAX_RECIPIENTS:
            yield empty._replace(values=part)
            part, used = {}, 0
        part[user] = own
        used += nbytes
    if part:
        yield empty._replace(values=part)


def _packed_bytes(value: tuple[Any, ...]) -> int:
    try:
        return len(pack_body(value))
    except UnicodeEncodeError:
        raise LocalProtocolError("directs.send_many: a string has half of a surrogate pair") from None
