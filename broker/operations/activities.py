"""What the operations on activities share: a command to an activity of a room, and its answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from broker.core.commerce.activity import ActivityRefusal, Requester
from broker.core.commerce.room_activities import ActivityKey
from broker.ledger.pending import PendingResult
from broker.operations.caller import Caller, OperationError
from broker.operations.deferred import Deferred
from broker.operations.kept import later, read, required
from broker.operations.parts import Parts
from broker.operations.rooms import open_for, room_of
from broker.rooms.room import Room
from protocol.codes import ErrorCode, Role, RoomPhase

__all__ = [
    "ask_activity",
    "begin",
    "command",
    "kept_key",
    "page_of_kind",
    "read_activity",
    "read_if_there",
    "refuse_from_memory",
    "requester",
]

R = TypeVar("R")

MAX_KEY_CHARS = 64
"""Characters of an idempotency key that an activity keeps."""


def begin(
    parts: Parts, caller: Caller, room_name: str, key: ActivityKey, request: Any, *, takes_part: bool = False
) -> Any:
    """Give a command to an activity; return its result, or what brings it. OperationError for a refusal.

    As `command`, without a task: for what many users do at the same time.
    """
    room = room_of(parts, room_name)
    required(parts.ledger)
    if _has_left(room, key):
        return command(parts, caller, room_name, key, request, takes_part=takes_part)
    deferred = Deferred()
    asked = requester(caller, room, parts.unix_ms(), takes_part=takes_part)
    room.command_activity(key, request, asked, lambda answer: deferred.set(_result(answer)))
    return _answer_of(deferred)


def _answer_of(deferred: Deferred) -> Any:
    """Return the answer that is there, or ``deferred``; raise the refusal that is there. Any: of each kind."""
    answer = deferred.answer
    if isinstance(answer, OperationError):
        raise answer
    return deferred if answer is None else answer


def refuse_from_memory(
    parts: Parts, room_name: str, key: ActivityKey, judge: Callable[[Any], ActivityRefusal | None]
) -> None:
    """Raise the OperationError of what ``judge`` says of an activity; nothing: a command has to be given.

    For what thousands hear at a time: it costs no command. ``judge`` gets the activity (Any: of its kind).
    """
    room = room_of(parts, room_name)
    activities = room.state.activities.activities
    if activities is not None and room.state.phase is RoomPhase.LIVE:
        refusal = activities.refusal_from_memory(key, judge)
        if refusal is not None:
            raise _result(refusal)


async def command(
    parts: Parts,
    caller: Caller,
    room_name: str,
    key: ActivityKey,
    request: Any,
    *,
    creates: bool = False,
    takes_part: bool = False,
) -> Any:
    """Give a command to an activity and return its result, durable. OperationError for a refusal.

    ``creates``: it may be a new activity, and opens the room unless it has ended; ``takes_part``: what a user does who
    takes part, which a paused room refuses unless it was done before. Any: each kind has its own commands and results.
    """
    required(parts.ledger)
    room = await _recalled(parts, room_name, key, creates=creates)
    pending = PendingResult[Any]()
    asked = requester(caller, room, parts.unix_ms(), takes_part=takes_part)
    room.command_activity(key, request, asked, pending.set, creates=creates)
    answer = _result(await pending.wait())
    if isinstance(answer, OperationError):
        raise answer
    return answer


def read_activity(parts: Parts, room_name: str, key: ActivityKey, reader: Callable[[Any], Any]) -> Any:
    """Return what ``reader`` says of an activity of which everything is durable, or what brings it.

    ``reader`` may raise OperationError. OperationError UNKNOWN_ACTIVITY. Any: each kind has its own class and results.
    """
    room = room_of(parts, room_name)
    required(parts.ledger)
    if _has_left(room, key):
        return ask_activity(parts, room_name, key, reader)
    return _answer_of(_read(room, key, reader))


def _read(room: Room, key: ActivityKey, reader: Callable[[Any], Any]) -> Deferred:
    deferred = Deferred()

    def answer(activity: Any) -> None:
        try:
            deferred.set(_unknown(key) if activity is None else reader(activity))
        except OperationError as error:
            deferred.set(error)

    activities = room.state.activities.activities
    if activities is None or not activities.read(key, answer):
        raise _unknown(key)
    return deferred


def _unknown(key: ActivityKey) -> OperationError:
    return OperationError(ErrorCode.UNKNOWN_ACTIVITY, f"names none of the {key[0]} of this room", "id")


async def ask_activity(parts: Parts, room_name: str, key: ActivityKey, reader: Callable[[Any], Any]) -> Any:
    """Return what ``reader`` says of an activity, see `read_activity`."""
    required(parts.ledger)
    room = await _recalled(parts, room_name, key)
    return await _read(room, key, reader).wait()


async def read_if_there(parts: Parts, room_name: str, key: ActivityKey, reader: Callable[[Any], R]) -> R | None:
    """Return what ``reader`` says of an activity, see `read_activity`; None where there is none."""
    required(parts.ledger)
    activities = room_of(parts, room_name).state.activities.activities
    pending = PendingResult[list[R]]()
    if activities is None or not activities.read(key, partial(_put, pending, reader)):
        return None
    return next(iter(await pending.wait()), None)


def _has_left(room: Room, key: ActivityKey) -> bool:
    activities = room.state.activities.activities
    return activities is not None and activities.has_left(key)


async def _recalled(parts: Parts, room_name: str, key: ActivityKey, *, creates: bool = False) -> Room:
    """Return a room in which an activity is in memory again that has left it; opened for one that is created."""
    room = open_for(parts, room_name, reopens=False) if creates else room_of(parts, room_name)
    while _has_left(room, key):
        recall = parts.hub.recall(room, key)
        if recall is None:
            raise later()
        await read(recall)
        room = room_of(parts, room_name)
    return room


async def page_of_kind(
    parts: Parts, room_name: str, kind: str, cursor: str | None, limit: int, reader: Callable[[Any], R]
) -> tuple[list[R], str | None]:
    """Return what ``reader`` says of a page of the activities of a kind in a room, oldest first, and the cursor of the
    next page. Of each everything is durable (Any: of that kind); those that have left memory are not among them.

    ``cursor``: id of the last one before the page; an unknown one begins again.
    """
    activities = room_of(parts, room_name).state.activities.activities
    required(parts.ledger)
    keys = [] if activities is None else activities.keys_of_kind(kind)
    start = next((place for place, (_, id) in enumerate(keys, 1) if id == cursor), 0)
    page = keys[start : start + limit]
    found: list[R] = []
    for key in page:
        pending = PendingResult[list[R]]()
        if activities is not None and activities.read(key, partial(_put, pending, reader)):
            found += await pending.wait()
    return found, page[-1][1] if start + len(page) < len(keys) else None


def _put(pending: PendingResult[list[R]], reader: Callable[[Any], R], activity: Any) -> None:
    pending.set([] if activity is None else [reader(activity)])


def kept_key(caller: Caller) -> str:
    """Return the idempotency key of a call that the activity keeps itself; empty = it has none."""
    if len(caller.key) > MAX_KEY_CHARS:
        raise OperationError(ErrorCode.BAD_FIELD, f"must be 1 to {MAX_KEY_CHARS} characters", "key")
    return caller.key


def _result(answer: Any) -> Any:
    """Return the answer of an activity as the result of a call (Any: of each kind), or the error that it raises."""
    if isinstance(answer, ActivityRefusal):
        return OperationError(answer.code, answer.rule, answer.field, answer.retry_after_ms)
    return answer


def requester(caller: Caller, room: Room, now_ms: int, *, takes_part: bool = False) -> Requester:
    """Return who calls, with what the conditions of activities ask of a user. ``takes_part``: as of `command`."""
    role = caller.role_in(room.name)
    if caller.is_backend or role is Role.APP:
        return Requester(caller.id, caller.name, Role.APP, is_platform=True)
    user, joined_at_ms = caller.user, caller.joined_at_ms(room.name)
    attributes = room.attributes_of(user, joined_at_ms, caller.tags, now_ms, caller.account_created)
    is_paused = takes_part and room.state.phase is RoomPhase.PAUSED
    return Requester(caller.id, caller.name, Role.VIEWER if role is None else role, False, attributes, is_paused)
