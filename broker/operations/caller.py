"""Who calls an operation, and how a call is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker.core.rooms.idempotency import call_id
from broker.core.tenants.names import qualify, split_name
from protocol.codes import Codec, ErrorCode, Role
from protocol.operations import Scope

__all__ = ["Caller", "OperationError"]


class OperationError(Exception):
    """Refusal of a call: nothing was changed. ``field`` and ``rule`` name what is wrong with the request."""

    def __init__(self, code: ErrorCode, rule: str, field: str = "", retry_after_ms: int = 0) -> None:
        super().__init__()
        self.code = code
        self.rule = rule
        self.field = field
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return f"{self.field} {self.rule}".strip()


@dataclass(slots=True)
class Caller:
    """Who calls: a viewer's link, or a backend with a key. Nothing changes one after it is made.

    (A frozen dataclass would say so, but takes six times as long to make, and every CALL with a key makes one.)

    ``id``: the user id, or the id of the key; ``name``: what others see; ``grants``: its role in a room of its tenant
    by plain name, None = the room is not granted; ``roles``: in any room; ``scopes``: of a backend's key, None = a
    viewer; ``key``: idempotency key, "" = none; ``dry_run``: the call is judged and not done; ``tenant``: whose rooms
    and users it can name, "" = the default one; ``joined_at_ms``: when its link has joined a room
    by qualified name, None = it has not;
    ``allows``: names of the message types that its token allows in a room of its tenant by plain name, or, without a
    name, in any of its rooms; None = every type of its role; ``operation`` and ``fingerprint``: of a call with a key,
    set by `Operations`: the name of the operation, and 8 bytes of its request; ``account_created``: when a user's
    account was made, in Unix seconds, 0 = its token does not say; ``tags``, ``jti``: those of its token;
    ``in_all_rooms``: it is granted every room of its tenant, a link with the role APP; ``use_codec``: lets its link
    have a codec from now on, False = on its link nothing is compressed.
    """

    id: str
    name: str
    address: str
    grants: Callable[[str], Role | None]
    roles: frozenset[Role] = frozenset()
    scopes: frozenset[Scope] | None = None
    key: str = ""
    dry_run: bool = False
    tenant: str = ""
    joined_at_ms: Callable[[str], int | None] = lambda room: None
    allows: Callable[[str | None], frozenset[str] | None] = lambda room: None
    operation: str = ""
    fingerprint: bytes = b""
    account_created: int = 0
    tags: tuple[str, ...] = ()
    jti: str = ""
    in_all_rooms: bool = True
    use_codec: Callable[[Codec], bool] = lambda codec: False

    def role_in(self, room: str) -> Role | None:
        """Return the caller's role in a room by qualified name; None = it is not granted, or another tenant's."""
        tenant, name = split_name(room)
        return self.grants(name) if tenant == self.tenant else None

    def allowed_in(self, room: str) -> frozenset[str] | None:
        """Return the names of the types that it may post in a room by qualified name; None = those of its role."""
        return self.allows(split_name(room)[1])

    @property
    def user(self) -> str:
        """The user who calls, by its qualified id; for callers that are no backend."""
        return qualify(self.tenant, self.id)

    @property
    def account(self) -> str:
        """Its id, qualified: what limits and idempotency keys know it by. No id of a key has a space."""
        return qualify(self.tenant, self.id if self.scopes is not None else f"user {self.id}")

    @property
    def own_key(self) -> str:
        """The name of a call with an idempotency key: operation, caller and key; "" = it has none.

        Callers choose their keys: two of them may choose the same. An id may hold any sign, so its length is in front.
        """
        return f"{self.operation} {len(self.account)} {self.account}:{self.key}" if self.key else ""

    @property
    def post_id(self) -> str:
        """The ``client_msg_id`` of the post that such a call makes; "" = it has no key."""
        return call_id(self.own_key, self.fingerprint) if self.key else ""

    @property
    def is_backend(self) -> bool:
        """Whether it has a backend's key."""
        return self.scopes is not None
