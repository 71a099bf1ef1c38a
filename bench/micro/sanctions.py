"""Time of a mute and of a ban in rooms of a thousand and a hundred thousand viewers: it does not depend on them.

Beside a sweep to the room it takes a slice of the fan-out longer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import trio

from bench.micro.harness import config, serving, without_rate
from bench.micro.result import Result, median
from broker.net.transport import Framing
from broker.operations.caller import Caller
from broker.rooms.encoding import variant_of
from broker.rooms.members import RoomRef
from broker.rooms.room import Room
from broker.server import Broker
from broker.sessions.room_member import RoomMember
from protocol.codes import Codec, LeaveReason, Role, Tier
from protocol.messages import AckResult, FirstResult, Message
from protocol.operations import BY_NAME, Scope

__all__ = ["sanctions"]

TICK_MS = 100.0
"""Interval between ticks: within one of them a sanction is to be effective."""
REST_S, MAX_RESTS = 2.5, 20
_VARIANT = variant_of(Framing.TCP, Codec.PLAIN, Tier.FULL)


class _Transport:
    """Transport that takes everything."""

    queue = None
    state = 0

    @property
    def sock(self) -> _Transport:
        """The socket is this itself."""
        return self

    def send(self, data: bytes) -> int:
        return len(data)

    def write_parts(self, parts: Sequence[Any]) -> None:
        """Take parts (Any: as the room makes them)."""


class _Viewer:
    """Session of one viewer."""

    heard_at = 0.0
    is_remote = False

    def __init__(self, room: Room, user: str) -> None:
        self.transport: Any = _Transport()
        self.member = RoomMember(self, user, user, Role.VIEWER, frozenset(), _VARIANT)
        self.member.room = room
        self.memberships: tuple[RoomMember, ...] = (self.member,)

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """These viewers post nothing."""

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """These viewers post nothing."""

    def send(
        self, message: Message, room: int = 0, sequence: int = 0, lane: Any = None, packed: bytes | None = None
    ) -> None:
        """Take a message."""

    def replace(self) -> None:
        """These viewers are not replaced."""

    def on_left(self, room: RoomRef, reason: LeaveReason, message: str) -> None:
        self.memberships = ()


async def sanctions(smoke: bool) -> list[Result]:
    """Measure sanctions of one user each, in a small room and in a large one."""
    sizes, rounds = ((100, 1_000), 5) if smoke else ((1_000, 100_000), 200)
    results = []
    async with serving(config()) as broker:
        with without_rate("moderation.mute"), without_rate("moderation.ban"):
            for size in sizes:
                room = _room_of(broker, size)
                await _rest(broker)
                for name in ("moderation.mute", "moderation.ban"):
                    taken = [await _one(broker, room, name, number) for number in range(rounds)]
                    detail = {"viewers": size, "longest_ms": round(max(taken), 3)}
                    figure = f"{name.partition('.')[2]} of a user among {size:,}"
                    results.append(Result("sanctions", figure, median(taken), "ms", TICK_MS, detail=detail))
    return results


def _room_of(broker: Broker, size: int) -> Room:
    room = broker.hub.open(f"room-{size}")
    assert isinstance(room, Room)
    for number in range(size):
        viewer = _Viewer(room, f"{size}-{number}")
        broker.users.add(viewer.member.user_id, viewer)
        room.enter(viewer.member, broker.poller.now)
    return room


async def _rest(broker: Broker) -> None:
    """Wait until the room has told its viewers who has come."""
    for _ in range(MAX_RESTS):
        await trio.sleep(REST_S)
        if not broker.fanout.waiting:
            return


async def _one(broker: Broker, room: Room, name: str, number: int) -> float:
    """Sanction one viewer; return the milliseconds until its links are concerned."""
    size = len(room.members)
    user = f"{room.name.partition('-')[2]}-{number}"
    caller = Caller("bench", "", "", lambda room: Role.APP, frozenset({Role.APP}), frozenset({Scope.ADMIN}))
    begun = time.perf_counter()
    await broker.operations.call(caller, BY_NAME[name], {"room": room.name, "user": user, "seconds": 600})
    taken = time.perf_counter() - begun
    assert len(room.members) == size - (name == "moderation.ban")
    return taken * 1000
