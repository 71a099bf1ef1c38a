"""Who calls an operation, and how a call is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocol.codes import ErrorCode, Role
from protocol.operations import Scope

__all__ = ["Caller", "OperationError"]


class OperationError(Exception):
    """Refusal of a call: nothing was changed. ``field`` and ``rule`` name what is wrong with the request."""

    def __init__(self, code: ErrorCode, rule: str, field: str = "", retry_after_ms: int = 0) -> None:
        super().__init__(f"{field} {rule}".strip())
        self.code = code
        self.rule = rule
        self.field = field
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a viewer's link, or a backend with a key.

    ``id``: the user id, or the id of the key; ``name``: what others see; ``role_in``: its role in a room, None = the
    room is not granted; ``roles``: in any room; ``scopes``: of a backend's key, None = a viewer; ``key``: idempotency
    key, "" = none; ``dry_run``: the call is judged and not done.
    """

    id: str
    name: str
    address: str
    role_in: Callable[[str], Role | None]
    roles: frozenset[Role] = frozenset()
    scopes: frozenset[Scope] | None = None
    key: str = ""
    dry_run: bool = False

    @property
    def own_key(self) -> str:
        """The idempotency key with the caller's id, under which the ledger knows it; "" = none.

        Callers choose their keys: two of them may choose the same. (An id has no colon where it is a backend's.)
        """
        return f"{self.id}:{self.key}" if self.key else ""

    @property
    def is_backend(self) -> bool:
        """Whether it has a backend's key."""
        return self.scopes is not None
