"""Phase of a room: the one in force, and the one against which posts are checked.

A change counts for posts from when it is requested, for everything else from its commit. If the commit fails, the phase
in force counts again.
"""

from __future__ import annotations

from protocol.codes import RoomPhase

__all__ = ["RoomPhases"]


class RoomPhases:
    """Phase of one room. ``under_way``: changes that have been requested and are not complete."""

    __slots__ = ("_under_way", "comes_back", "phase", "wanted")

    def __init__(self) -> None:
        self.phase = RoomPhase.LIVE
        """The phase in force."""
        self.wanted = RoomPhase.LIVE
        """The phase against which posts are checked."""
        self.comes_back = False
        """Whether an ended room is opened again soon, by itself."""
        self._under_way = 0

    def request(self, phase: RoomPhase) -> None:
        """Begin a change; `complete` follows exactly once."""
        self.wanted = phase
        self._under_way += 1

    def complete(self, phase: RoomPhase) -> None:
        """Complete a change: it is durable, or failed (``phase`` is then the one in force)."""
        self._under_way -= 1
        if self.phase is not RoomPhase.ENDED:
            self.phase = phase
            if not self._under_way:
                self.wanted = phase

    def restore(self, phase: RoomPhase) -> None:
        """Begin with the phase of a checkpoint."""
        self.phase = self.wanted = phase

    def end(self, *, comes_back: bool) -> None:
        """End at once, whatever is under way. ``comes_back``: not for good."""
        self.comes_back = comes_back
        self.phase = self.wanted = RoomPhase.ENDED
