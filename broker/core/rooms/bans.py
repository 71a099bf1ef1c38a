"""Users who may not enter a room for a while. Names are qualified by their tenant; times are trusted Unix ms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["BanTable", "RoomBan"]


class RoomBan(NamedTuple):
    """A user is kept out of a room until ``until_ms``."""

    room: str
    user: str
    until_ms: int
    reason: str = ""


class BanTable:
    """Bans of all rooms of a broker, at most ``max_bans``."""

    def __init__(self, max_bans: int = 100_000) -> None:
        self._max_bans = max_bans
        self._bans: dict[tuple[str, str], RoomBan] = {}

    def __len__(self) -> int:
        """Return the bans that are kept, those that have ended lately included."""
        return len(self._bans)

    def find(self, room: str, user: str, now_ms: int) -> RoomBan | None:
        """Return the ban of a user from a room."""
        ban = self._bans.get((room, user))
        return None if ban is None or ban.until_ms <= now_ms else ban

    def of_user(self, user: str, now_ms: int) -> list[RoomBan]:
        """Return the bans of a user, by room. O(bans)."""
        found = [ban for ban in self._bans.values() if ban.user == user and ban.until_ms > now_ms]
        return sorted(found, key=lambda ban: ban.room)

    def add(self, ban: RoomBan, now_ms: int) -> bool:
        """Add a ban, over an earlier one of the same user and room; False where there are too many."""
        key = ban.room, ban.user
        if key not in self._bans and len(self._bans) >= self._max_bans:
            self.sweep(now_ms)
            if len(self._bans) >= self._max_bans:
                return False
        self._bans[key] = ban
        return True

    def remove(self, room: str, user: str) -> None:
        """Remove the ban of a user from a room, if there is one."""
        self._bans.pop((room, user), None)

    def restore(self, bans: Iterable[RoomBan]) -> None:
        """Take over the bans of the last run."""
        self._bans.update({(ban.room, ban.user): ban for ban in bans})

    def sweep(self, now_ms: int) -> list[RoomBan]:
        """Drop the bans that have ended, and return them. O(bans)."""
        ended = [ban for ban in self._bans.values() if ban.until_ms <= now_ms]
        for ban in ended:
            del self._bans[ban.room, ban.user]
        return ended
