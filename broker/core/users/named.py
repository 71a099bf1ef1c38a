"""Users that the request of an operation names, by the names of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["users_in", "without_user"]

_FIELDS = frozenset({"add", "as_user", "confirm", "inviter", "mentions", "owner", "remove", "user", "users", "values"})
"""Fields of requests that hold a user id, several, or several as keys; a field of that name may hold another thing."""


def users_in(request: Any) -> set[str]:
    """Return the ids in a request record (Any: each operation has its own), as they stand in it."""
    found: set[str] = set()
    for name, value in zip(request._fields, request, strict=True):
        if name in _FIELDS and isinstance(value, str | tuple | list | Mapping):
            found.update((value,) if isinstance(value, str) else value)
    found.discard("")
    return found


_OF_A_USER = frozenset({"name", "payload", "reason", "tags", "text", "value"})
"""What a request loses where it names an erased user: it says it for the user, or of it."""


_OF_A_THING = frozenset({"id", "other_room", "room"})
"""What names a room or an activity, also where it reads as the id of a user does."""


def without_user(kind: type[Any], request: Any, user: str, pseudonym: str) -> Any:
    """Return a request, as an array or object of the record ``kind``, without an erased user.

    A pseudonym takes the place of the id. Names, texts and payloads go where the request holds it anywhere but as the
    name of a room or activity; of ``items`` go those that do.
    """
    if isinstance(request, Mapping):
        fields = dict(request)
    elif isinstance(request, (list, tuple)):
        fields = dict(zip(kind._fields, request, strict=False))
    else:
        return request
    is_named = any(_holds(value, user) for name, value in fields.items() if name != "items" and name not in _OF_A_THING)
    changed: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _OF_A_THING:
            changed[name] = value
        elif is_named and name in _OF_A_USER:
            changed[name] = kind._field_defaults.get(name)
        elif name == "items" and isinstance(value, (list, tuple)):
            changed[name] = tuple(each for each in value if not _holds(each, user))
        else:
            changed[name] = _renamed(value, user, pseudonym)
    return changed if isinstance(request, Mapping) else (*changed.values(), *request[len(changed) :])


def _holds(value: Any, user: str) -> bool:
    if isinstance(value, Mapping):
        return user in value or _holds(tuple(value.values()), user)
    return any(_holds(each, user) for each in value) if isinstance(value, (list, tuple)) else bool(value == user)


def _renamed(value: Any, user: str, pseudonym: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _renamed(each, user, pseudonym) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_renamed(each, user, pseudonym) for each in value)
    return pseudonym if value == user else value
