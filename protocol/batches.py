"""Batches of must-deliver messages: what each user gets, and how a batch is cut into frames. For both ends.

A batch is one template and each user's own values. Whoever sends it cuts it into parts that fit a client's body; the
broker fills a part for all of its users before it sends the first, so that a fault in a part sends nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .codes import CUSTOM_TYPE_MIN, MessageType
from .errors import LocalProtocolError
from .fields import FieldError
from .frames import MAX_CLIENT_BODY_BYTES, pack_body
from .messages import MAX_DIRECT_BYTES, MAX_RECIPIENTS, SendDirect
from .payloads import check_payload
from .template import TemplateError, fill

__all__ = ["frames_of", "payload_for", "payloads_of"]

Values = Mapping[str, Mapping[str, str]]


def payload_for(kind: int, template: Any, values: Mapping[str, str]) -> Any:
    """The payload of type ``kind`` that a user with these values gets.

    Any: a template is a payload, and those of custom types are any value. Raises TemplateError for a missing value, and
    FieldError (its field is a path below "payload") where what comes out is no payload of that type or too large.
    """
    payload = check_payload(kind, fill(template, values))
    if len(pack_body((payload,))) - 1 > MAX_DIRECT_BYTES:
        raise FieldError(f"must be at most {MAX_DIRECT_BYTES} bytes", "payload")
    return payload


def payloads_of(message: SendDirect) -> list[tuple[str, Any]]:
    """(user id, payload) of everybody in a part; FieldError naming the field and the rule, none of the peer's bytes.

    Memory is bounded by `MAX_DIRECT_BYTES` for each of the part's users.
    """
    kind = message.type
    if kind < CUSTOM_TYPE_MIN and kind != MessageType.ANNOUNCEMENT:
        raise FieldError("must be ANNOUNCEMENT or a type of the deployment's own", "type")
    found = []
    for index, (user, own) in enumerate(message.values.items()):
        try:
            found.append((user, payload_for(kind, message.template, own)))
        except TemplateError:
            raise FieldError("must have a value for every field of the template", f"values[{index}]") from None
        except FieldError as error:
            raise FieldError(f"filled with values[{index}]: {error}", "template") from None
    return found


def frames_of(
    batch: str, kind: int, template: Any, values: Values, expires_s: int | None = None
) -> Iterator[SendDirect]:
    """Cut a batch into parts that fit a client's body, each user in exactly one, in the given order.

    The fields are not judged. LocalProtocolError where the template leaves no room for a user.
    """
    # A map of more than 15 entries has a head of 3 bytes instead of 1.
    room = MAX_CLIENT_BODY_BYTES - len(pack_body(SendDirect(batch, kind, template, {}, expires_s))) - 2
    part: dict[str, Mapping[str, str]] = {}
    used = 0
    for user, own in values.items():
        own = dict(own)
        nbytes = len(pack_body((user, own))) - 1
        if nbytes > room:
            raise LocalProtocolError(f"BATCH: template and values of {user!r} are above {MAX_CLIENT_BODY_BYTES} bytes")
        if used + nbytes > room or len(part) == MAX_RECIPIENTS:
            yield SendDirect(batch, kind, template, part, expires_s)
            part, used = {}, 0
        part[user] = own
        used += nbytes
    if part:
        yield SendDirect(batch, kind, template, part, expires_s)
