"""Member of a room, as its session knows it."""

from __future__ import annotations

from typing import Any

from broker.core.net.send_queue import QueueMissed
from broker.rooms.edge_room import EdgeRoom
from broker.rooms.members import Member
from broker.rooms.room import Room

__all__ = ["AnyRoom", "RoomMember", "notify_missed"]

AnyRoom = Room | EdgeRoom
"""A room of this node, or one of another node."""


class RoomMember(Member):
    """A member with its room: what a session keeps of each room it is in."""

    __slots__ = ("room",)

    room: AnyRoom


def notify_missed(member: Any, chat: int) -> None:  # Any: a member, whose session is of this package
    """Notify a viewer of the danmaku of another node's room that were lost on the way."""
    member.session.on_drained(QueueMissed(chat_weight=chat))
