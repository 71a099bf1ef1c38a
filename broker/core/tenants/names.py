"""Names of what belongs to a tenant: rooms, users, batches and whatever else clients name.

A *qualified name* is the tenant, one control character that no name may hold, and the plain name; in the default tenant
"" it is the plain name itself. Between two borders the broker knows qualified names only, as opaque strings, so that
tables, limits, idempotency keys and rows of the ledger are separate without knowing of tenants:

- names come in: `broker.auth.grants` (the user of a token), `broker.sessions` (the room of a JOIN, RESUME or POST),
  `broker.operations.calls` (every name in a request, by the rule of its field);
- names go out: `Joined` and the acks of posts, results of operations, log lines, ``roomcast ledger export``.

Inside one room users have their plain ids: a room has one tenant, so have all who are in it.
"""

from __future__ import annotations

__all__ = ["SEPARATOR", "plain_name", "qualify", "shown_name", "split_name", "tenant_of"]

SEPARATOR = "\x1f"
"""Unit separator: `protocol.text` refuses it in names of rooms, user ids, and whatever else names something."""


def qualify(tenant: str, name: str) -> str:
    """Return the qualified name of what ``tenant`` calls ``name``; the name itself in the default tenant "".

    ValueError for a name that holds the separator: it has not been checked, or it is qualified already.
    """
    if SEPARATOR in name:
        raise ValueError("a qualified name cannot be qualified again")
    return f"{tenant}{SEPARATOR}{name}" if tenant else name


def split_name(qualified: str) -> tuple[str, str]:
    """Return the tenant and the plain name."""
    tenant, separator, name = qualified.partition(SEPARATOR)
    return (tenant, name) if separator else ("", tenant)


def plain_name(qualified: str) -> str:
    """Return the name as its tenant knows it."""
    return qualified.partition(SEPARATOR)[2] if SEPARATOR in qualified else qualified


def shown_name(qualified: str) -> str:
    """Return the name for people: that of another tenant than the default one says whose it is."""
    tenant, name = split_name(qualified)
    return f"{name} of tenant {tenant}" if tenant else name


def tenant_of(qualified: str) -> str:
    """Return the tenant of a qualified name, "" = the default one."""
    return qualified.partition(SEPARATOR)[0] if SEPARATOR in qualified else ""
