"""Registry of every user's open sessions: one table for the limit per user, direct messages, and whatever addresses a
user by id.

A session is in it from AUTH to its end. Bounded by the connections that the broker admits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from protocol.codes import Lane
from protocol.messages import Message

__all__ = ["LinkedUsers", "UserRegistry", "UserSession"]


class UserSession(Protocol):
    """A user's session as the registry knows it."""

    def send(
        self, message: Message, room: int = 0, sequence: int = 0, lane: Lane | None = None, packed: bytes | None = None
    ) -> None:
        """Frame and write a message; on a link that has ended nothing happens. ``packed``: its body, packed already."""

    @property
    def is_remote(self) -> bool:
        """Whether it is of a viewer of another node, which has the connection."""

    @property
    def heard_at(self) -> float:
        """When the last byte came from the client, monotonic seconds."""

    def replace(self) -> None:
        """End the session in favour of a newer one of its user, and remove it from the registry."""


class LinkedUsers(Protocol):
    """Users with an open link, of this broker or of all nodes."""

    on_change: Callable[[str, bool], None]
    """Called when a user has its first link, and when it has none any more."""

    def __contains__(self, user_id: str) -> bool: ...

    def send(
        self, user_id: str, message: Message, lane: Lane, packed: bytes | None = None, *, by: UserSession | None = None
    ) -> None:
        """Send a message on each open link of a user but ``by``. ``packed``: its body, packed already."""


class UserRegistry:
    """Open sessions by user id. More sessions of one user than ``max_per_user`` (of the role APP:
    ``max_per_app``) are not added."""

    def __init__(self, max_per_user: int, max_per_app: int | None = None) -> None:
        self.max_per_user = max_per_user
        self.max_per_app = max_per_user if max_per_app is None else max_per_app
        self.on_change: Callable[[str, bool], None] = lambda user_id, is_online: None
        """Called when a user has its first session, and when it has none any more."""
        self._sessions: dict[str, UserSession | tuple[UserSession, ...]] = {}
        """By user: the session itself where it is the only one, as mostly; a tuple weighs 48 bytes."""

    def __len__(self) -> int:
        """Return the number of users with an open session."""
        return len(self._sessions)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._sessions

    @property
    def session_count(self) -> int:
        """Open sessions of all users. O(users)."""
        return sum(map(len, map(_all, self._sessions.values())))

    def sessions(self, user_id: str) -> tuple[UserSession, ...]:
        """Return a user's open sessions, the oldest first."""
        return _all(self._sessions.get(user_id, ()))

    def send(
        self, user_id: str, message: Message, lane: Lane, packed: bytes | None = None, *, by: UserSession | None = None
    ) -> None:
        """Send a message on each open session of a user but ``by``. ``packed``: its body, packed already."""
        for session in self.sessions(user_id):
            if session is not by:
                session.send(message, lane=lane, packed=packed)

    def all_sessions(self) -> list[UserSession]:
        """Return every open session of this moment. O(sessions)."""
        return [session for sessions in self._sessions.values() for session in _all(sessions)]

    def most(self, *, is_app: bool) -> int:
        """Return how many sessions a user may have."""
        return self.max_per_app if is_app else self.max_per_user

    def add(self, user_id: str, session: UserSession, *, is_app: bool = False) -> bool:
        """Register a session that has logged in. Returns False, and registers nothing, above `most`."""
        before = self._sessions.get(user_id)
        if (0 if before is None else len(_all(before))) >= self.most(is_app=is_app):
            return False
        if before is None:
            self._sessions[user_id] = session
            self.on_change(user_id, True)
        else:
            self.attach(user_id, session)
        return True

    def attach(self, user_id: str, session: UserSession) -> None:
        """Register a session whose number another node bounds."""
        sessions = self.sessions(user_id)
        self._sessions[user_id] = (*sessions, session) if sessions else session
        if not sessions:
            self.on_change(user_id, True)

    def longest_silent(self, user_id: str) -> UserSession:
        """Return the session of a user that was heard least recently, the oldest of several. KeyError without one."""
        return min(_all(self._sessions[user_id]), key=lambda session: session.heard_at)

    def remove(self, user_id: str, session: UserSession) -> None:
        """Remove a session that has ended; one that is not registered is ignored."""
        sessions = tuple(each for each in self.sessions(user_id) if each is not session)
        if sessions:
            self._sessions[user_id] = sessions if len(sessions) > 1 else sessions[0]
        elif self._sessions.pop(user_id, None) is not None:
            self.on_change(user_id, False)


def _all(sessions: UserSession | tuple[UserSession, ...]) -> tuple[UserSession, ...]:
    return sessions if type(sessions) is tuple else (cast(UserSession, sessions),)
