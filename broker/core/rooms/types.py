"""Rules of message types: who may send which, and how large. POST, operations and all other requests use them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.core.limits.rate_limit import Rate
from protocol.codes import CUSTOM_TYPE_MIN, MESSAGE_TYPES, ErrorCode, Lane, MessageType, Role
from protocol.frames import pack_body

__all__ = ["CustomRule", "TypeRules"]

_is_base64 = re.compile(r"(?=.)(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?").fullmatch
MAX_CACHED = 1024
"""Sets of permitted types that are kept; tokens choose their ``allow``, so the table is bounded."""


@dataclass(frozen=True, slots=True)
class CustomRule:
    """A message type of the deployment's own (128-255). ``max_bytes``: of the packed payload."""

    type: int
    name: str
    lane: Lane
    max_bytes: int
    rate: Rate
    roles: frozenset[Role]
    marketing: bool = False
    opaque: bool = False


class TypeRules:
    """Rules of the built-in types and of the deployment's ``custom`` ones."""

    __slots__ = ("_permitted", "custom")

    def __init__(self, custom: Mapping[int, CustomRule]) -> None:
        self.custom = custom
        """Rules of the deployment's own types, by number."""
        self._permitted: dict[tuple[Role, frozenset[str] | None], frozenset[int]] = {}

    def use(self, custom: Mapping[int, CustomRule]) -> None:
        """Take other types of the deployment's own. Whoever holds what `permitted` has returned asks again."""
        self.custom = custom
        self._permitted = {}

    @property
    def critical(self) -> frozenset[int]:
        """Types of the lanes 0 to 2."""
        lanes = {int(kind): rule.lane for kind, rule in MESSAGE_TYPES.items()}
        lanes |= {kind: rule.lane for kind, rule in self.custom.items()}
        return frozenset(kind for kind, lane in lanes.items() if lane <= Lane.PAID)

    def is_opaque(self, kind: int) -> bool:
        """Return whether the broker does not read the payloads of a type."""
        rule = self.custom.get(kind)
        return rule is not None and rule.opaque

    def is_marketing(self, kind: int) -> bool:
        """Return whether every message of a type is marketing."""
        rule = self.custom.get(kind)
        return rule is not None and rule.marketing

    def permitted(self, role: Role, allow: frozenset[str] | None) -> frozenset[int]:
        """Return the types that a role may send, narrowed to the names in its token's ``allow`` (None: all)."""
        key = (role, allow)
        found = self._permitted.get(key)
        if found is None:
            names = {
                int(kind): MessageType(kind).name.lower()
                for kind, rule in MESSAGE_TYPES.items()
                if role in rule.post_roles
            }
            names |= {kind: rule.name for kind, rule in self.custom.items() if role in rule.roles}
            found = frozenset(kind for kind, name in names.items() if allow is None or name in allow)
            if len(self._permitted) < MAX_CACHED:
                self._permitted[key] = found
        return found

    def refusal(self, kind: int, payload: Any, permitted: frozenset[int]) -> ErrorCode | None:
        """Judge a message of ``kind`` from a sender who may send the ``permitted`` types; None: it may be sent.

        UNKNOWN_TYPE, NOT_ALLOWED, PAYLOAD_TOO_LARGE, or BAD_FIELD where one of an opaque type is no base64.
        ``payload`` is valid on the wire (Any: any value of it).
        """
        rule = self.custom.get(kind)
        if kind not in permitted:
            is_known = rule is not None or (kind in MESSAGE_TYPES and MESSAGE_TYPES[MessageType(kind)].post_roles)
            return ErrorCode.NOT_ALLOWED if is_known else ErrorCode.UNKNOWN_TYPE
        if rule is None and kind >= CUSTOM_TYPE_MIN:
            return ErrorCode.UNKNOWN_TYPE
        if rule is not None and len(pack_body((payload,))) - 1 > rule.max_bytes:
            return ErrorCode.PAYLOAD_TOO_LARGE
        if rule is not None and rule.opaque and not (isinstance(payload, str) and _is_base64(payload)):
            return ErrorCode.BAD_FIELD
        return None
