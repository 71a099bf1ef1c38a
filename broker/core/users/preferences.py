"""Preferences of users that decide what a room sends them, and whether it shows them to others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["HIDDEN", "MAX_USERS", "NOT_RECOMMENDED", "OPTED_OUT", "PreferenceTable"]

MAX_USERS = 1_000_000
"""Users with one of these preferences that are remembered: at most some 200 MB."""
OPTED_OUT = "~no-marketing"
"""Tag of users who want no marketing, in every room: audiences of marketing are without it."""
NOT_RECOMMENDED = "~no-recommendation"
"""Tag of users for whom no marketing is chosen by their tags: an audience of marketing is without it."""
HIDDEN = "hidden"
"""The preference ``visibility`` of a user whom others do not see."""


class PreferenceTable:
    """Users (qualified ids) who want no marketing, who want none that is chosen for them, and who are hidden.

    Where there are more than ``max_users`` of any of them, a user who is not remembered counts as one of them: what is
    not sent does no harm.
    """

    __slots__ = (
        "_hidden", "_knows_hidden", "_knows_not_recommended", "_knows_opted_out", "_max_users", "_not_recommended",
        "_opted_out",
    )  # fmt: skip

    def __init__(self, max_users: int = MAX_USERS) -> None:
        self._max_users = max_users
        self._opted_out: set[str] = set()
        self._not_recommended: set[str] = set()
        self._hidden: set[str] = set()
        self._knows_opted_out = self._knows_not_recommended = self._knows_hidden = True

    def __len__(self) -> int:
        """Return how many preferences are remembered."""
        return len(self._opted_out) + len(self._not_recommended) + len(self._hidden)

    def load(self, preferences: Iterable[tuple[str, str, bool | str]]) -> None:
        """Take over what is written: user, name of a preference, and value."""
        for user, name, value in preferences:
            self.change(user, {name: value})

    def change(self, user: str, changes: Mapping[str, bool | str]) -> None:
        """Take over what a user prefers from now on."""
        if "marketing" in changes:
            self._knows_opted_out &= self._put(self._opted_out, user, changes["marketing"] is False)
        if "recommendation" in changes:
            is_off = changes["recommendation"] is False
            self._knows_not_recommended &= self._put(self._not_recommended, user, is_off)
        if "visibility" in changes:
            self._knows_hidden &= self._put(self._hidden, user, changes["visibility"] == HIDDEN)

    def _put(self, users: set[str], user: str, is_one: bool) -> bool:
        """Return whether there was room for it."""
        if not is_one:
            users.discard(user)
        elif len(users) < self._max_users:
            users.add(user)
        return not is_one or user in users

    def forget(self, user: str) -> None:
        """Forget a user who is erased."""
        self._opted_out.discard(user)
        self._not_recommended.discard(user)
        self._hidden.discard(user)

    def wants_marketing(self, user: str) -> bool:
        """Return whether marketing may be shown to a user."""
        return self._knows_opted_out and user not in self._opted_out

    def wants_recommendation(self, user: str) -> bool:
        """Return whether marketing that is chosen by tags may be shown to a user."""
        return self._knows_not_recommended and user not in self._not_recommended

    def is_hidden(self, user: str) -> bool:
        """Return whether others do not see a user in rooms."""
        return user in self._hidden or not self._knows_hidden
