"""Members and custom message types for tests of rooms."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.core.limits.rate_limit import Rate
from broker.core.rooms.types import CustomRule
from protocol.codes import MESSAGE_TYPES, Lane, Role

EVERYTHING = frozenset(kind for kind, rule in MESSAGE_TYPES.items() if rule.post_roles) | {200, 201}
CUSTOM = {
    200: CustomRule(200, "flash_sale", Lane.COMMERCE, 4096, Rate(5.0, 5), frozenset({Role.APP})),
    201: CustomRule(201, "poll_vote", Lane.CHAT, 1024, Rate(5.0, 5), frozenset({Role.VIEWER})),
}


@dataclass
class Person:
    user_id: str
    role: Role = Role.VIEWER
    may_post: frozenset[int] = EVERYTHING
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.user_id.title()
