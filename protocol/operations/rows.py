"""One row of the table of operations: what a request with an answer needs, and who may ask for it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from ..codes import ErrorCode, Role
from ..fields import Rule, array_of, integer, optional, record, text

__all__ = [
    "DEFAULT_RATE",
    "DIRECTION",
    "EVERY_MEMBER",
    "LOGGED_IN",
    "MAX_PAGE",
    "NEEDS_LEDGER",
    "PLATFORM",
    "STAFF",
    "KeyUse",
    "OperationRow",
    "RateLimit",
    "Scope",
    "always",
    "cursor",
    "page_of",
    "page_size",
    "row",
]

MAX_PAGE = 1000
"""Most items of one page; a page has fewer where they would not fit the answer."""


class Scope(StrEnum):
    """What a backend's key may do."""

    ROOMS_READ = "rooms:read"
    ROOMS_WRITE = "rooms:write"
    MESSAGES_WRITE = "messages:write"
    DIRECTS_WRITE = "directs:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    HOOKS_WRITE = "hooks:write"
    MODERATION_READ = "moderation:read"
    MODERATION_WRITE = "moderation:write"
    COMMERCE_READ = "commerce:read"
    COMMERCE_WRITE = "commerce:write"
    ADMIN = "admin"
    """Everything, and the operations of the broker itself."""


class KeyUse(Enum):
    """Whether an operation takes an idempotency key."""

    NONE = "none"
    """It changes nothing, or asking again changes nothing more."""
    OPTIONAL = "optional"
    REQUIRED = "required"


class RateLimit(NamedTuple):
    """Calls of one caller: in the long run, and at once."""

    per_s: float
    burst: int


DEFAULT_RATE = RateLimit(10, 20)
STAFF = frozenset({Role.MODERATOR, Role.ASSISTANT, Role.HOST, Role.APP})
DIRECTION = frozenset({Role.ASSISTANT, Role.HOST, Role.APP})
EVERY_MEMBER = frozenset(Role)
LOGGED_IN = EVERY_MEMBER - {Role.GUEST}
PLATFORM = frozenset({Role.APP})
NEEDS_LEDGER = (ErrorCode.NOT_KEPT, ErrorCode.OVERLOADED)
"""Errors of an operation that is refused without a ledger, or while it cannot be read or written."""


class OperationRow(NamedTuple):
    """Declaration of one operation.

    ``name``: ``subject.verb``; ``number``: on the binary wire, never reused. ``read``: the rule that makes ``request``
    of an array or object, ``read_result`` that of ``result``. ``scope``: of a backend's key, None = not for backends.
    ``roles``: of a viewer's link in the room (or of its token, where the request names none), empty = not for viewers.
    ``joined``: a viewer below STAFF must have joined the room. ``at_once``: most calls of one caller that wait at a
    time, 0 = as many as its link or key may have. ``durable``: answered after the ledger's commit. ``changes``: whether
    it changes anything. ``errors``: codes beyond those that any operation may give. ``keeps_keys``: what it changes
    keeps the keys of its calls itself, with their content and first answer. ``address_rate``: of all viewers of one
    address together. ``backend_rate``: of a backend, which calls for many users, in place of ``rate``. ``speaks``:
    whether a request (Any: of the row) shows others words of its caller, or lets them hear it: a muted user may not
    make it.
    """

    number: int
    name: str
    request: type[Any]
    read: Callable[[Any], Any]
    result: type[Any]
    read_result: Callable[[Any], Any]
    summary: str
    scope: Scope | None
    roles: frozenset[Role]
    room: bool
    joined: bool
    key: KeyUse
    rate: RateLimit
    at_once: int
    durable: bool
    changes: bool
    since: int
    errors: tuple[ErrorCode, ...]
    example: tuple[Any, Any]
    """A request and its result."""
    keeps_keys: bool = False
    address_rate: RateLimit | None = None
    backend_rate: RateLimit | None = None
    speaks: Callable[[Any], bool] | None = None

    def rate_of(self, is_backend: bool) -> RateLimit:
        """Return the rate of one caller."""
        return self.backend_rate if is_backend and self.backend_rate is not None else self.rate

    @property
    def subject(self) -> str:
        """First part of the name."""
        return self.name.partition(".")[0]


def always(request: Any) -> bool:
    """Return that every request of a row ``speaks``."""
    return True


def row(
    number: int,
    name: str,
    request: type[Any],
    rules: tuple[Rule, ...],
    result: type[Any],
    read_result: Callable[[Any], Any],
    summary: str,
    *,
    scope: Scope | None,
    example: tuple[Any, Any],
    roles: frozenset[Role] = frozenset(),
    joined: bool = False,
    key: KeyUse = KeyUse.NONE,
    rate: RateLimit = DEFAULT_RATE,
    at_once: int = 0,
    durable: bool = False,
    changes: bool = True,
    since: int = 1,
    errors: tuple[ErrorCode, ...] = (),
    keeps_keys: bool = False,
    address_rate: RateLimit | None = None,
    backend_rate: RateLimit | None = None,
    speaks: Callable[[Any], bool] | None = None,
) -> OperationRow:
    """Return the row of an operation whose request has one of ``rules`` a field."""
    names: tuple[str, ...] = request._fields
    sanctions = (*((ErrorCode.BANNED,) if roles and "room" in names else ()), *((ErrorCode.MUTED,) if speaks else ()))
    return OperationRow(
        number, name, request, record(request, rules), result, read_result, summary, scope, roles, "room" in names,
        joined, key, rate, at_once, durable, changes, since, (*errors, *sanctions),
        example, keeps_keys, address_rate, backend_rate, speaks,
    )  # fmt: skip


page_size: Rule = integer(1, MAX_PAGE)
cursor: Rule = optional(text(1, 256))


def page_of(item: Rule) -> tuple[Rule, Rule]:
    """Return the rules of the two fields of a page: its items, and the cursor of the next one, null = the end."""
    return array_of(item, MAX_PAGE), cursor
