"""The end of a room: its members are removed, once they have what it published last."""

from __future__ import annotations

import trio

from broker.rooms.room import Room

__all__ = ["remove_members"]

REMOVE_BATCH = 100
MAX_LAST_TURNS = 10_000
"""Turns of the event loop in which the fan-out writes the last events of a room that has ended."""


async def remove_members(room: Room) -> None:
    """Remove every member with the reason of the end, once the last events have been written: gifts that came with it.

    In slices: a hundred thousand frames must not stop the loop.
    """
    for _ in range(MAX_LAST_TURNS):
        if not room.is_writing:
            break
        await trio.lowlevel.checkpoint()
    reason, message = room.ended
    for count, member in enumerate(room.members.all(), 1):
        if member.index >= 0:
            room.members.remove(member)
            member.session.on_left(room, reason, message)
        if count % REMOVE_BATCH == 0:
            await trio.lowlevel.checkpoint()
    senders, room.senders = room.senders, {}
    if room.has_crashed:
        for sender in senders:
            sender.session.on_left(room, reason, message)
