"""What the owner of a room publishes for the viewers of other nodes: one message for all nodes that have some."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.rooms.encoding import TIERS, Content
from broker.rooms.node_messages import pack_output
from protocol.codes import Lane
from protocol.messages import Event

__all__ = ["RoomMirror"]

LAST_OF_STREAM = Lane.PAID
"""Events of lanes up to this one have offsets."""


class RoomMirror:
    """Publishes the contents of one room on its channel, numbered under the fence of this owner.

    :param send: takes a message; where it is dropped, the receivers see the gap.
    """

    def __init__(self, fence: int, send: Callable[[bytes], bool]) -> None:
        self._fence = fence
        self._send = send
        self._number = 0
        self.offset = 0
        """Of the last event published."""
        self._chat = [0] * len(TIERS)
        """Danmaku published, by tier."""

    def publish(self, by_tier: Sequence[Sequence[Content]], to_staff: bool) -> None:
        """Take contents for all members, by tier; ``to_staff``: for staff too."""
        for content in by_tier[0]:
            if content.lane <= LAST_OF_STREAM and type(content.message) is Event:
                self.offset = max(self.offset, content.sequence)
        self._number += 1
        for tier, contents in enumerate(by_tier):
            self._chat[tier] += sum(content.weight for content in contents)
        self._send(pack_output(self._fence, self._number, self.offset, to_staff, by_tier, self._chat))
