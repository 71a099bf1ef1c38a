"""Users that the request of an operation names, by the names of its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["renamed_users", "users_in"]

_FIELDS = frozenset({"as_user", "inviter", "owner", "remove", "user", "users"})
"""Fields of requests that hold a user id, or several."""


def users_in(request: Any) -> set[str]:
    """Return the ids in a request record (Any: each operation has its own), as they stand in it."""
    found: set[str] = set()
    for name, value in zip(request._fields, request, strict=True):
        if name in _FIELDS and value:
            found.update((value,) if isinstance(value, str) else value)
    return found


def renamed_users(kind: type[Any], request: Any, rename: Callable[[str], str]) -> Any:
    """Return a request, as an array or object of the record ``kind``, with ``rename`` applied to every user id."""
    if isinstance(request, Mapping):
        return {name: _renamed(name, value, rename) for name, value in request.items()}
    if not isinstance(request, (list, tuple)):
        return request
    names: tuple[str, ...] = kind._fields
    known = tuple(_renamed(name, value, rename) for name, value in zip(names, request, strict=False))
    return known + tuple(request[len(known) :])


def _renamed(name: str, value: Any, rename: Callable[[str], str]) -> Any:
    if name not in _FIELDS:
        return value
    if isinstance(value, str):
        return rename(value)
    if isinstance(value, (list, tuple)):
        return tuple(rename(each) if isinstance(each, str) else each for each in value)
    return value
