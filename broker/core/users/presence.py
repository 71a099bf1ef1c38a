"""Who watches whose presence, and what watchers were sent last. Pure: whether a user is online is an argument."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MAX_WATCHED", "PresenceTable"]

MAX_WATCHED = 100
"""Users that one user watches."""


class PresenceTable:
    """Watches by user (qualified ids); bounded by `MAX_WATCHED` for each user with a link."""

    def __init__(self) -> None:
        self._watched: dict[str, set[str]] = {}
        """By watcher."""
        self._watchers: dict[str, dict[str, bool | None]] = {}
        """By watched user: its watchers, and what each was sent last, None = that is not known."""

    @property
    def watches(self) -> int:
        """How many watches there are."""
        return sum(map(len, self._watched.values()))

    def watch(self, watcher: str, users: Iterable[str]) -> None:
        """Let a user watch these users, and no others any more; it was sent nothing of them yet."""
        self.end(watcher)
        wanted = set(users)
        if wanted:
            self._watched[watcher] = wanted
        for user in wanted:
            self._watchers.setdefault(user, {})[watcher] = False

    def resume(self, watcher: str, users: Iterable[str]) -> None:
        """Let a user go on watching these users; what it was sent of them is not known."""
        self.watch(watcher, users)
        for user in self._watched.get(watcher, ()):
            self._watchers[user][watcher] = None

    def end(self, watcher: str) -> None:
        """End all watches of a user."""
        for user in self._watched.pop(watcher, ()):
            watchers = self._watchers[user]
            del watchers[watcher]
            if not watchers:
                del self._watchers[user]

    def is_watched(self, user: str) -> bool:
        """Return whether a user has watchers."""
        return user in self._watchers

    def watchers(self, user: str) -> list[str]:
        """Return who watches a user."""
        return list(self._watchers.get(user, ()))

    def must_send(self, user: str, watcher: str, *, is_online: bool) -> bool:
        """Return whether a watcher was sent another state; note that it is sent this one now."""
        watchers = self._watchers.get(user)
        if watchers is None or watchers.get(watcher, is_online) is is_online:
            return False
        watchers[watcher] = is_online
        return True
