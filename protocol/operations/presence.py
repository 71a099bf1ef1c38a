"""Operations on the presence of users: their records and rows."""

from __future__ import annotations

from typing import NamedTuple

from ..fields import array_of, boolean, record, user_id
from .rows import LOGGED_IN, NEEDS_LEDGER, OperationRow, RateLimit, Scope, row

__all__ = ["MAX_WATCHED", "ROWS", "PresenceStates", "SetVisible", "UserPresence", "VisibleSet", "WatchPresence"]

MAX_WATCHED = 100
"""Users that one call names, and that one user watches."""


class WatchPresence(NamedTuple):
    """Ask which of these users are online, and be sent changes from now on, in place of the users watched before.

    A viewer is shown those who are in a group with it or have written to it, as long as it has a link; a backend
    watches no user, it is shown all of them once.
    """

    users: tuple[str, ...]


class UserPresence(NamedTuple):
    """Whether a user is shown as online."""

    user: str
    online: bool


class PresenceStates(NamedTuple):
    """The users, in the order of the request."""

    items: tuple[UserPresence, ...]


class SetVisible(NamedTuple):
    """Show the caller as online to those who watch it, or always as offline."""

    visible: bool


class VisibleSet(NamedTuple):
    """Whether the caller is shown as online while it is."""

    visible: bool


ROWS: tuple[OperationRow, ...] = (
    row(
        640, "presence.watch", WatchPresence, (array_of(user_id, MAX_WATCHED),), PresenceStates,
        record(PresenceStates, (array_of(record(UserPresence, (user_id, boolean)), MAX_WATCHED),)),
        "Return which users are online, and send the caller changes.",
        scope=Scope.USERS_READ, roles=LOGGED_IN, changes=False, rate=RateLimit(1, 10), errors=NEEDS_LEDGER,
        example=(
            WatchPresence(("bob", "cem")), PresenceStates((UserPresence("bob", True), UserPresence("cem", False)))
        ),
    ),
    row(
        641, "presence.set_visible", SetVisible, (boolean,), VisibleSet, record(VisibleSet, (boolean,)),
        "Show whether the caller is online, or hide it.",
        scope=None, roles=LOGGED_IN, durable=True, rate=RateLimit(1, 10), errors=NEEDS_LEDGER,
        example=(SetVisible(False), VisibleSet(False)),
    ),
)  # fmt: skip
