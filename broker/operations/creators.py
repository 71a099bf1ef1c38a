"""Who has scheduled an operation, as plain values of a fact, and that caller again when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.auth.api_keys import ApiKeys
from broker.core.commerce.schedules import ERASED_CREATOR, USER_CREATOR
from broker.core.tenants.names import plain_name
from broker.operations.caller import Caller
from broker.users.revocations import Revocations
from protocol.codes import Role
from protocol.operations import Scope

__all__ = ["caller_again", "creator_of"]

_SCOPES = frozenset(Scope)
_APP = frozenset({Role.APP})


def creator_of(caller: Caller, room: str, now_ms: int) -> tuple[Any, ...]:
    """Return the values by which `caller_again` finds a caller. ``room``: qualified name."""
    if caller.is_backend:
        # Only the program that the broker runs in calls without an address.
        return "key" if caller.address else "program", caller.tenant, caller.id
    role = caller.role_in(room)
    role_number = int(Role.GUEST if role is None else role)
    name, own_room, created_s = caller.name, plain_name(room), now_ms // 1000
    return USER_CREATOR, caller.tenant, caller.id, name, own_room, role_number, created_s, caller.jti


def caller_again(
    creator: tuple[Any, ...], key: str, keys: Callable[[], ApiKeys | None], revocations: Revocations, now_s: float
) -> Caller | None:
    """Return the caller with the rights that it has now; None where it has none any more.

    A key has those of the key file. A user has the role that it had in the room, unless its tokens, or the one by which
    it has scheduled the operation, were revoked since.
    ``keys``: None = the control API needs no key; ``key``: idempotency key of the call.
    """
    if creator[0] == ERASED_CREATOR:
        return None
    kind, tenant, id, *rest = creator
    if kind == USER_CREATOR:
        name, own_room, role_number, created_s, jti = rest
        if revocations.is_revoked(tenant, id, created_s, jti):
            return None
        role = Role(role_number)
        return Caller(
            id, name, "", lambda room: role if room == own_room else None, frozenset({role}), key=key, tenant=tenant
        )
    table = keys()
    if kind == "program" or table is None:
        return Caller(id, id, "", lambda room: Role.APP, _APP, _SCOPES, key, tenant=tenant)
    found = table.keys.get(id)
    if found is None or found.tenant != tenant or (found.expires_at and now_s >= found.expires_at):
        return None
    grants = found.grants
    return Caller(id, id, "", lambda room: Role.APP if grants(room) else None, _APP, found.scopes, key, tenant=tenant)
