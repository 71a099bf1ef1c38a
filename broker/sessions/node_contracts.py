"""What the part of this node that other nodes see needs of rooms' logs and of calls."""

from __future__ import annotations

from typing import Protocol

from broker.engine.base import Granted
from broker.rooms.node_messages import CallAsked, CallReturned

__all__ = ["CallsOfNodes", "RoomLogs"]


class RoomLogs(Protocol):
    """The log of rooms that this node owns, where something is kept."""

    async def open(self, name: str, granted: Granted) -> bool:
        """Read what the log has of a room that this node owns now."""

    def is_busy(self, name: str) -> bool:
        """Return whether the activities of a room that this node owns now have something to do."""

    def go_on(self, name: str, granted: Granted) -> bool:
        """Write a room under another fence of this node; False: the engine has lost some of it."""

    async def settle(self, name: str) -> None:
        """Wait a little until what was submitted for a room is written."""

    def has_work(self, name: str) -> bool:
        """Return whether the engine names a room of this node as one that has work."""

    async def note_idle(self, name: str) -> None:
        """Note that the activities of a room have nothing to do."""

    def close(self, name: str) -> None:
        """Write no more for a room: what waits is refused."""


class CallsOfNodes(Protocol):
    """Calls of operations on rooms of other nodes."""

    def asked(self, node: str, call: CallAsked) -> None:
        """Answer a call of another node."""

    def answered(self, answer: CallReturned) -> None:
        """Take the answer to a call of this node."""

    def node_gone(self, node: str) -> None:
        """Answer the calls that a node does not answer any more."""
