"""Member of a room, as its session knows it."""

from __future__ import annotations

from broker.rooms.edge_room import EdgeRoom
from broker.rooms.members import Member
from broker.rooms.room import Room

__all__ = ["AnyRoom", "RoomMember"]

AnyRoom = Room | EdgeRoom
"""A room of this node, or one of another node."""


class RoomMember(Member):
    """A member with its room: what a session keeps of each room it is in."""

    __slots__ = ("room",)

    room: AnyRoom
