"""Facts of erasures: who let which user be erased, and when, without a word that names the user."""

from __future__ import annotations

from typing import NamedTuple

from broker.ledger.entries import FACT_KIND_MIN, StoredEntry
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = ["USER_ERASED", "UserErased", "pack_erased", "user_erased_of"]

USER_ERASED = FACT_KIND_MIN + 6
"""Kind of these facts."""


class UserErased(NamedTuple):
    """``pseudonym``: what stands for the user in the ledger; ``by``: the account that has asked for it, and when;
    ``entries``: how many were redacted."""

    tenant: str
    pseudonym: str
    by: str
    asked_at_ms: int
    entries: int


def pack_erased(erased: UserErased) -> bytes:
    """Return the body of a fact."""
    return pack_body(erased)


def user_erased_of(entry: StoredEntry) -> UserErased | None:
    """Return the erasure that an entry holds; None for all others, and for what this version cannot read."""
    if entry.lane is not None or entry.kind != USER_ERASED:
        return None
    try:
        return UserErased(*unpack_body(entry.body)[: len(UserErased._fields)])
    except (RemoteProtocolError, TypeError):
        return None
