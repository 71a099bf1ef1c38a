"""What the operations on activities share: a command to an activity of a room, and its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.core.commerce.activity import ActivityRefusal, Attributes, Requester
from broker.core.commerce.room_activities import ActivityKey
from broker.core.commerce.room_rankings import GIFTS
from broker.core.tenants.names import qualify
from broker.ledger.pending import PendingResult
from broker.operations.caller import Caller, OperationError
from broker.operations.deferred import Deferred
from broker.operations.kept import required
from broker.operations.parts import Parts
from broker.operations.rooms import open_for, room_of
from broker.rooms.room import Room
from protocol.codes import ErrorCode, Role, RoomPhase

__all__ = ["activity_of", "begin", "command", "kept_key", "page_of_kind", "refuse_from_memory", "requester"]

MAX_KEY_CHARS = 64
"""Characters of an idempotency key that an activity keeps."""


def begin(
    parts: Parts, caller: Caller, room_name: str, key: ActivityKey, request: Any, *, takes_part: bool = False
) -> Any:
    """Give a command to an activity; return its result, or a `Deferred` that brings it. OperationError for a refusal.

    As `command`, without a task: for what many users do at the same time.
    """
    room = room_of(parts, room_name)
    required(parts.ledger)
    if takes_part and room.state.phase is RoomPhase.PAUSED:
        raise OperationError(ErrorCode.ROOM_PAUSED, "is paused", "room")
    deferred = Deferred()
    room.command_activity(
        key,
        request,
        requester(caller, room, parts.unix_ms()),
        lambda answer: deferred.set(_result(answer)),
        creates=False,
    )
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

    ``creates``: it may be a new activity, and opens the room; ``takes_part``: what a user does who takes part, which a
    paused room refuses. Any: each kind has its own commands and results.
    """
    required(parts.ledger)
    room = open_for(parts, room_name) if creates else room_of(parts, room_name)
    if takes_part and room.state.phase is RoomPhase.PAUSED:
        raise OperationError(ErrorCode.ROOM_PAUSED, "is paused", "room")
    pending = PendingResult[Any]()
    room.command_activity(key, request, requester(caller, room, parts.unix_ms()), pending.set, creates=creates)
    answer = _result(await pending.wait())
    if isinstance(answer, OperationError):
        raise answer
    return answer


def activity_of(parts: Parts, room_name: str, key: ActivityKey) -> Any:
    """Return an activity for a question that changes nothing. OperationError UNKNOWN_ACTIVITY. Any: of its kind."""
    activities = room_of(parts, room_name).state.activities.activities
    required(parts.ledger)
    found = None if activities is None else activities.find(*key)
    if found is None:
        raise OperationError(ErrorCode.UNKNOWN_ACTIVITY, f"names none of the {key[0]} of this room", "id")
    return found


def page_of_kind(
    parts: Parts, room_name: str, kind: str, cursor: str | None, limit: int
) -> tuple[list[Any], str | None]:
    """Return a page of the activities of a kind in a room, oldest first, and the cursor of the next one. ``cursor``: id
    of the last one before the page; an unknown one begins again. Any: of that kind."""
    activities = room_of(parts, room_name).state.activities.activities
    required(parts.ledger)
    found = [] if activities is None else activities.of_kind(kind)
    start = next((place for place, each in enumerate(found, 1) if each.id == cursor), 0)
    page = found[start : start + limit]
    return page, page[-1].id if start + len(page) < len(found) else None


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


def requester(caller: Caller, room: Room, now_ms: int) -> Requester:
    """Return who calls, with what the conditions of activities ask of a user."""
    role = caller.role_in(room.name)
    if caller.is_backend or role is Role.APP:
        return Requester(caller.id, caller.name, Role.APP, is_platform=True)
    user = qualify(caller.tenant, caller.id)
    watched_ms = room.watch_times.watched_ms(user, caller.joined_at_ms(room.name), now_ms)
    age_s = max(0, now_ms // 1000 - caller.account_created) if caller.account_created else None
    gift_cents = max(0, room.state.rankings[GIFTS].score_of(caller.id))
    attributes = Attributes(watch_s=watched_ms // 1000, gift_cents=gift_cents, account_age_s=age_s)
    return Requester(caller.id, caller.name, Role.VIEWER if role is None else role, False, attributes)
