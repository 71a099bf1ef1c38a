"""Handlers of the operations that publish one message to many rooms, spread over time."""

from __future__ import annotations

import secrets
from hashlib import sha256

import trio

from broker.operations.broadcast_runs import MAX_RUNNING_OF_TENANT, BroadcastRun
from broker.operations.caller import Caller, OperationError
from broker.operations.messages import checked_payload, post
from broker.operations.parts import Handler, Parts
from broker.operations.results import PostResults
from protocol.codes import ErrorCode, Outcome, Role
from protocol.frames import pack_body
from protocol.operations.messages import (
    BroadcastMessage,
    BroadcastProgress,
    BroadcastStarted,
    BroadcastStateRequest,
    PublishMessage,
)
from protocol.text import fits_room_pattern

__all__ = ["HANDLERS"]

BUSY_MS = 5000
SLICE = 100
"""Rooms that get the message between two checkpoints of the event loop, where it is not spread over time."""


def _rooms(parts: Parts, caller: Caller, request: BroadcastMessage) -> list[str]:
    """Return the open rooms that a broadcast goes to, in the order of their names."""
    if (request.pattern is None) == (request.rooms is None):
        raise OperationError(ErrorCode.BAD_FIELD, "must be given, or rooms, and not both", "pattern")
    if request.rooms is None:
        assert request.pattern is not None
        found = [
            room.name
            for room in parts.hub
            if fits_room_pattern(request.pattern, room.name) and caller.role_in(room.name) is Role.APP
        ]
        return sorted(found)
    for index, name in enumerate(request.rooms):
        if caller.role_in(name) is not Role.APP:
            raise OperationError(ErrorCode.ROOM_NOT_GRANTED, "is not granted", f"rooms[{index}]")
    return sorted({name for name in request.rooms if parts.hub.find(name) is not None})


async def _broadcast(parts: Parts, caller: Caller, request: BroadcastMessage) -> BroadcastStarted:
    rooms = _rooms(parts, caller, request)
    payload = checked_payload(parts, caller, rooms[0] if rooms else "", request.type, request.payload)
    fingerprint = sha256(pack_body(tuple(request._replace(id="")))).digest()[:8]
    name = request.id or secrets.token_hex(8)
    known = parts.broadcasts.find(caller.tenant, name)
    if known is not None:
        if known.fingerprint != fingerprint:
            raise OperationError(ErrorCode.KEY_REUSED, "was used before with other content", "id")
        return BroadcastStarted(known.id, known.rooms)
    if not parts.broadcasts.may_start(caller.tenant):
        rule = f"{MAX_RUNNING_OF_TENANT} broadcasts may run at a time"
        raise OperationError(ErrorCode.RATE_LIMITED, rule, retry_after_ms=BUSY_MS)
    parts.charge_messages(caller, 1)

    async def send(run: BroadcastRun) -> None:
        pause_s = request.spread_ms / 1000 / max(1, len(rooms))
        started_at = parts.clock()
        results = PostResults()
        for number, room in enumerate(rooms):
            wait_s = started_at + number * pause_s - parts.clock()
            if wait_s > 0:
                await trio.sleep(wait_s)
            elif number % SLICE == SLICE - 1:
                await trio.lowlevel.checkpoint()
            if parts.hub.find(room) is None:
                continue
            message = PublishMessage(
                room, request.type, payload, f"broadcast {name}"[:64], request.as_user, request.name
            )
            try:
                post(parts, caller, message, results)
            except OperationError:
                continue
            run.reached += 1
        answers = await results.wait()
        refused = {Outcome.LIMITED, Outcome.REJECTED, Outcome.UNAVAILABLE}
        run.reached = sum(each.outcome not in refused for each in answers)

    parts.broadcasts.start(BroadcastRun(name, caller.tenant, fingerprint, len(rooms)), send)
    return BroadcastStarted(name, len(rooms))


def _state(parts: Parts, caller: Caller, request: BroadcastStateRequest) -> BroadcastProgress:
    run = parts.broadcasts.find(caller.tenant, request.id)
    if run is None:
        raise OperationError(ErrorCode.BAD_FIELD, "names no broadcast that is known", "id")
    return BroadcastProgress(run.id, run.rooms, run.reached, run.missed, run.is_done)


HANDLERS: dict[str, Handler] = {"messages.broadcast": _broadcast, "messages.broadcast_state": _state}
