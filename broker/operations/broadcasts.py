"""Handlers of the operations that publish one message to many rooms, spread over time."""

from __future__ import annotations

import secrets
from functools import partial
from hashlib import sha256

import trio

from broker.operations.broadcast_records import BroadcastState
from broker.operations.broadcast_runs import MAX_RUNNING_OF_TENANT, BroadcastRun
from broker.operations.caller import Caller, OperationError
from broker.operations.messages import checked_payload, post
from broker.operations.parts import Handler, Parts
from broker.operations.results import PostResults
from protocol.codes import ErrorCode, Outcome, Role, RoomPhase
from protocol.frames import pack_body
from protocol.operations.messages import (
    BroadcastMessage,
    BroadcastProgress,
    BroadcastStarted,
    BroadcastStateRequest,
    PublishMessage,
)
from protocol.text import fits_room_pattern

__all__ = ["HANDLERS", "continue_broadcasts", "id_of"]

BUSY_MS = 5000
GROUP_S, MAX_GROUP = 1.0, 1000
"""Rooms that are claimed in one commit: those of a second, and at most so many."""
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


def id_of(caller: Caller, request: BroadcastMessage) -> str:
    """Return the id of a broadcast, by which it is known when it is asked for again; "" = it has none."""
    return request.id or (sha256(caller.own_key.encode()).hexdigest()[:32] if caller.key else "")


async def _broadcast(parts: Parts, caller: Caller, request: BroadcastMessage) -> BroadcastStarted:
    rooms = _rooms(parts, caller, request)
    payload = checked_payload(parts, caller, rooms[0] if rooms else "", request.type, request.payload)
    fingerprint = sha256(pack_body(tuple(request._replace(id="")))).digest()[:8]
    name = id_of(caller, request) or secrets.token_hex(8)
    while (known := parts.broadcasts.find(caller.tenant, name)) is not None:
        if known.state.fingerprint != fingerprint:
            raise OperationError(
                ErrorCode.KEY_REUSED, "was used before with other content", "id" if request.id else "key"
            )
        if known.begun.is_set():
            return BroadcastStarted(name, known.state.rooms)
        await known.begun.wait()
    if not parts.broadcasts.may_start(caller.tenant):
        rule = f"{MAX_RUNNING_OF_TENANT} broadcasts may run at a time"
        raise OperationError(ErrorCode.RATE_LIMITED, rule, retry_after_ms=BUSY_MS)
    parts.charge_messages(caller, 1)
    user = caller.id if request.as_user is None else request.as_user
    message = request._replace(pattern=None, rooms=None, payload=payload, as_user=user)
    run = BroadcastRun(BroadcastState(name, caller.tenant, fingerprint, len(rooms)), message, rooms)
    await parts.broadcasts.start(run, partial(_send, parts, caller))
    return BroadcastStarted(name, len(rooms))


def continue_broadcasts(parts: Parts) -> None:
    """Go on with the broadcasts that the last run of the broker has not finished."""
    for run in parts.broadcasts.unfinished:
        caller = Caller("", "", "", lambda room: Role.APP, tenant=run.state.tenant)
        parts.broadcasts.go_on(run, partial(_send, parts, caller))


async def _send(parts: Parts, caller: Caller, run: BroadcastRun) -> None:
    """Post a broadcast to the rooms that it has not reached yet.

    A group of rooms is claimed before the message is posted to them. Where the broker ended meanwhile, a message of
    lanes 0 to 2 is posted to them again: it has a key by which a room takes it once. Any other message is not.
    """
    message, rooms = run.message, run.rooms
    assert message is not None, "it is not done"
    if message.type in parts.types.critical:
        run.state = run.state._replace(last=run.state.first)
    pause_s = message.spread_ms / 1000 / max(1, len(rooms))
    group = max(1, min(MAX_GROUP, int(GROUP_S / pause_s))) if pause_s else MAX_GROUP
    started_at = parts.clock() - run.state.last * pause_s
    reached_before = run.state.reached
    results = PostResults()
    for start in range(run.state.last, len(rooms), group):
        await trio.sleep(max(0.0, started_at + start * pause_s - parts.clock()))
        await parts.broadcasts.claim(run, min(start + group, len(rooms)))
        for number in range(start, run.state.last):
            wait_s = started_at + number * pause_s - parts.clock()
            if wait_s > 0:
                await trio.sleep(wait_s)
            elif number % SLICE == SLICE - 1:
                await trio.lowlevel.checkpoint()
            if _post_to(parts, caller, run.state.id, message, rooms[number], results):
                run.state = run.state._replace(reached=run.state.reached + 1)
    answers = await results.wait()
    refused = {Outcome.LIMITED, Outcome.REJECTED, Outcome.UNAVAILABLE}
    taken = sum(each.outcome not in refused for each in answers)
    run.state = run.state._replace(reached=reached_before + taken)


def _post_to(
    parts: Parts, caller: Caller, name: str, message: BroadcastMessage, room: str, results: PostResults
) -> bool:
    """Post a broadcast to a room that is open, or whose stream goes on after a restart; returns whether it was."""
    found = parts.hub.find(room)
    if parts.hub.epoch_of(room) is None or (found is not None and found.state.phase is RoomPhase.ENDED):
        return False
    own = PublishMessage(room, message.type, message.payload, f"broadcast {name}", message.as_user, message.name)
    try:
        post(parts, caller, own, results)
    except OperationError:
        return False
    return True


def _state(parts: Parts, caller: Caller, request: BroadcastStateRequest) -> BroadcastProgress:
    run = parts.broadcasts.find(caller.tenant, request.id)
    if run is None:
        raise OperationError(ErrorCode.BAD_FIELD, "names no broadcast that is known", "id")
    state = run.state
    return BroadcastProgress(state.id, state.rooms, state.reached, state.missed, state.is_done)


HANDLERS: dict[str, Handler] = {"messages.broadcast": _broadcast, "messages.broadcast_state": _state}
