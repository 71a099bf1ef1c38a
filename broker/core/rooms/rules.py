"""What a room needs to know of its broker and of who posts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from broker.core.moderation.screening import Screens
from broker.core.rooms.policies import Policy
from broker.core.rooms.types import CustomRule, TypeRules
from protocol.codes import Role

__all__ = ["Author", "RoomRules"]


class Author(Protocol):
    """Who posts: what a room needs to know of a member."""

    user_id: str
    name: str
    role: Role
    may_post: frozenset[int]


@dataclass(frozen=True, slots=True)
class RoomRules:
    """What all rooms of a broker have in common."""

    policy: Policy
    custom: Mapping[int, CustomRule]
    """Types of the deployment's own at the start; `types` has those in force."""
    history_entries: int = 512
    history_s: float = 120.0
    snapshot_danmaku: int = 20
    durable: bool = False
    """Whether events of lanes 0 to 2 wait for a ledger (`Record`); else they are published at once."""
    masks_guests: bool = False
    """Whether guests get masks in place of names and ids of viewers."""
    screens: Screens = field(default_factory=Screens)
    """What messages are screened for."""
    types: TypeRules = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", TypeRules(self.custom))

    def with_policy(self, policy: Policy) -> RoomRules:
        """Return these rules with another policy, and the same table of types."""
        changed = replace(self, policy=policy)
        object.__setattr__(changed, "types", self.types)
        return changed
