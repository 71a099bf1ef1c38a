"""Calls that other nodes answer: the owner of a room judges and answers what is about the room as its own.

What holds on every node (`broker.rooms.broker_log`) is changed by any node, or by the owner of the broker's log where
one must decide. What several processes do not share yet is refused here: an answer of one node alone would be wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import structlog
import trio

from broker.core.tenants.names import qualify
from broker.operations.caller import Caller, OperationError
from broker.operations.calls import CallAnswer, Operations
from broker.operations.deferred import Deferred
from broker.rooms.broker_log import BROKER_LOG
from broker.rooms.node_messages import CallAsked, CallReturned, NodeMessage
from protocol.codes import ErrorCode, Role
from protocol.frames import pack_body, unpack_body
from protocol.operations import BY_NUMBER, OperationRow, Scope

__all__ = ["CallForwarding", "OwnersOfCalls"]

log = structlog.get_logger("roomcast.operations")

PATIENCE_S = 5.0
"""How long the owner of a room may take; then its answer is unknown, and the key decides."""
RETRY_MS = 1000
MAX_WAITING = 2000
"""Calls that wait for other nodes."""
MAX_ANSWER_BYTES = 1_000_000
HERE = frozenset(
    {
        "broker.status", "broker.stats", "broker.reload", "broker.drain", "broker.config", "broker.connections",
        "broker.api_keys", "app.call", "dictionaries.get",
    }
)  # fmt: skip
"""Operations about this node, and those that need no other."""
_FOR_ALL = frozenset(
    {
        "users.revoke", "users.set_preferences", "users.set_tags", "moderation.get_list", "moderation.lists",
        "moderation.hints", "moderation.list", "moderation.undo", "directs.send", "directs.progress", "directs.state",
        "directs.list", "directs.cancel",
    }
)  # fmt: skip
"""Operations about what every node has: any node answers, and a change holds on all."""
_DECIDED_ONCE = frozenset(
    {
        "locks.acquire", "locks.renew", "locks.release", "moderation.put_list", "moderation.add_words",
        "moderation.delete_list", "moderation.put_hint", "moderation.remove_hint",
    }
)  # fmt: skip
"""Those that the owner of the broker's log decides."""
_SANCTIONS = frozenset({"moderation.mute", "moderation.unmute", "moderation.ban", "moderation.unban"})
"""Those that are about a room where they name one, else about all."""
_SUBJECTS = frozenset(
    {
        "activities", "countdowns", "coupons", "keys", "messages", "mic", "packets", "polls", "products", "quizzes",
        "rains", "rankings", "sales", "schedules",
    }
)  # fmt: skip
_NAMES = frozenset(
    {
        "rooms.open", "rooms.set_rules", "rooms.get", "rooms.set_phase", "rooms.close", "rooms.members",
        "rooms.history", "rooms.stats", "users.kick", "gifts.refund", "moderation.test", "moderation.set_modes",
        "moderation.get_modes",
    }
)  # fmt: skip
"""Operations on a room whose state is in its log, beside all of `_SUBJECTS`."""


class OwnersOfCalls(Protocol):
    """What forwarding needs to know of the owners of rooms."""

    node: str

    def owner_of(self, name: str) -> str | None:
        """Return the node that owns a room, None: that is not known now."""

    async def wait_found(self, name: str) -> str | None:
        """Return the owner of a room, None: it has none for so long."""

    def may_answer(self) -> bool:
        """Return whether this node may answer from memory."""


class CallForwarding:
    """Forwards calls of this node, and answers those of others. ``send``: sends a record to a node; ``start``: starts
    a task."""

    def __init__(
        self,
        operations: Operations,
        owners: OwnersOfCalls,
        send: Callable[[str, NodeMessage], None],
        start: Callable[..., None],
    ) -> None:
        self._operations = operations
        self._owners = owners
        self._send = send
        self._start = start
        self._last_id = 0
        self._waiting: dict[int, tuple[str, Deferred]] = {}

    def route(
        self, caller: Caller, row: OperationRow, arguments: Any, max_bytes: int
    ) -> Coroutine[Any, Any, CallAnswer] | None:
        """Return what brings the answer of a call from the owner of its room; None: this node answers it.

        OperationError where it is refused.
        """
        if row.name in HERE:
            return None
        is_kept = self._operations.parts.others.log is not None
        name = _field(row, arguments, "room") if row.name not in _DECIDED_ONCE else None
        if is_kept and (row.name in _FOR_ALL or (row.name in _SANCTIONS and name is None)):
            if _field(row, arguments, "clear"):
                rule = "must be with a room where there are several nodes"
                raise OperationError(ErrorCode.BAD_FIELD, rule, "clear")
            return None
        if is_kept and row.name in _DECIDED_ONCE:
            room, name = BROKER_LOG, ""
        elif isinstance(name, str) and name.isprintable() and _is_of_room(row, is_kept):
            room = qualify(caller.tenant, name)
        else:
            rule = "is not there with several nodes yet"
            raise OperationError(ErrorCode.UNKNOWN_OPERATION, rule, "operation")
        owner = self._owners.owner_of(room)
        if owner != self._owners.node:
            return self._forward(room, name, caller, row, arguments, max_bytes)
        if not self._owners.may_answer():
            raise OperationError(ErrorCode.OVERLOADED, "this node has no lease now", "", RETRY_MS)
        return None

    async def _forward(
        self, room: str, name: str, caller: Caller, row: OperationRow, arguments: Any, max_bytes: int
    ) -> CallAnswer:
        for _ in range(2):  # it may have moved
            owner = await self._owners.wait_found(room)
            if owner is None:
                raise OperationError(ErrorCode.OVERLOADED, "the room has no owner now", "room", RETRY_MS)
            if owner == self._owners.node:
                answer = self._operations.begin(caller, row, arguments, max_bytes)
                if isinstance(answer, Deferred):
                    found: CallAnswer = await answer.wait()
                    return found
                return answer if isinstance(answer, CallAnswer) else await answer
            answered = await self._ask(owner, room, name, caller, row, arguments, max_bytes)
            if answered is not None:
                return _read_answer(row, answered)
        raise OperationError(ErrorCode.OVERLOADED, "the room has no owner now", "room", RETRY_MS)

    async def _ask(
        self, owner: str, room: str, name: str, caller: Caller, row: OperationRow, arguments: Any, max_bytes: int
    ) -> CallReturned | None:
        if len(self._waiting) >= MAX_WAITING:
            raise OperationError(ErrorCode.OVERLOADED, "too many calls wait for other nodes", "", RETRY_MS)
        self._last_id += 1
        number, answer = self._last_id, Deferred()
        self._waiting[number] = owner, answer
        try:
            packed = _pack_caller(caller, room, _names_in(row, arguments, name))
            self._send(owner, CallAsked(number, room, row.number, packed, arguments, max_bytes or MAX_ANSWER_BYTES))
            with trio.move_on_after(PATIENCE_S):
                found: CallReturned = await answer.wait()
                return None if found.refusal == () else found
        finally:
            del self._waiting[number]
        rule = "the owner of the room has not answered; ask again with the same key"
        raise OperationError(ErrorCode.OVERLOADED, rule, "", RETRY_MS)

    # ---- what other nodes send

    def asked(self, node: str, call: CallAsked) -> None:
        """Answer a call of another node."""
        self._start(self._answer, node, call)

    async def _answer(self, node: str, call: CallAsked) -> None:
        row = BY_NUMBER.get(call.operation)
        if self._owners.owner_of(call.room) != self._owners.node or row is None:
            self._send(node, CallReturned(call.id, b"", refusal=()))
            return
        try:
            found: Any = self._operations.begin(_read_caller(call.caller), row, call.arguments, call.max_bytes)
            if isinstance(found, Deferred):
                found = await found.wait()
            elif isinstance(found, Awaitable):
                found = await found
            answer = CallReturned(call.id, found.packed or pack_body(found.result), found.is_replayed)
        except OperationError as error:
            answer = CallReturned(
                call.id, b"", refusal=(int(error.code), error.rule, error.field, error.retry_after_ms)
            )
        except Exception:  # the table of operations has logged it
            refusal = int(ErrorCode.INTERNAL_ERROR), "the owner of the room has a defect, whose log has the call", "", 0
            answer = CallReturned(call.id, b"", refusal=refusal)
        self._send(node, answer)

    def answered(self, answer: CallReturned) -> None:
        """Take the answer to a call of this node."""
        waiting = self._waiting.get(answer.id)
        if waiting is not None and waiting[1].answer is None:
            waiting[1].set(answer)

    def node_gone(self, node: str) -> None:
        """Answer the calls that a node does not answer any more: their outcome is unknown."""
        rule = "the owner of the room is gone; ask again with the same key"
        for owner, answer in list(self._waiting.values()):
            if owner == node and answer.answer is None:
                answer.set(OperationError(ErrorCode.OVERLOADED, rule, "", RETRY_MS))


def _is_of_room(row: OperationRow, is_kept: bool) -> bool:
    """Return whether the owner of a room answers an operation on it."""
    return bool(row.room) and (row.subject in _SUBJECTS or row.name in _NAMES or (is_kept and row.name in _SANCTIONS))


def _field(row: OperationRow, arguments: Any, field: str) -> Any:
    """Return a field of a request that is not checked yet, None where it is not there."""
    if isinstance(arguments, dict):
        return arguments.get(field)
    if field not in row.request._fields or not isinstance(arguments, (list, tuple)):
        return None
    place = row.request._fields.index(field)
    return arguments[place] if place < len(arguments) else None


def _names_in(row: OperationRow, arguments: Any, name: str) -> tuple[str, ...]:
    """Return the rooms that a request names, which its caller may have to be granted."""
    more = _field(row, arguments, "rooms"), _field(row, arguments, "room")
    found = [each for field in more for each in (field if isinstance(field, (list, tuple)) else (field,))]
    return tuple(dict.fromkeys([name, *(each for each in found if isinstance(each, str))]))


def _read_answer(row: OperationRow, answer: CallReturned) -> CallAnswer:
    if answer.refusal:
        code, rule, field, wait_ms = answer.refusal
        raise OperationError(ErrorCode(code), rule, field, wait_ms)
    return CallAnswer(row.read_result(unpack_body(answer.result)), answer.is_replayed, answer.result)


def _pack_caller(caller: Caller, room: str, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Return who calls, as far as it matters in one room (qualified), and in rooms by their plain names."""
    grants = []
    for name in names:
        role, allowed = caller.grants(name), caller.allows(name)
        types = None if allowed is None else tuple(sorted(allowed))
        grants.append((name, None if role is None else int(role), types))
    return (
        caller.id, caller.name, caller.address, tuple(grants), tuple(int(each) for each in caller.roles),
        None if caller.scopes is None else tuple(sorted(each.value for each in caller.scopes)), caller.key,
        caller.dry_run, caller.tenant, caller.joined_at_ms(room), caller.account_created, caller.tags, caller.jti,
        caller.in_all_rooms,
    )  # fmt: skip


def _read_caller(packed: tuple[Any, ...]) -> Caller:
    user, shown, address, grants, roles, scopes, key, dry_run, tenant, joined_at_ms, created, tags, jti, in_all = packed
    granted = {name: None if role is None else Role(role) for name, role, _ in grants}
    types = {name: None if allowed is None else frozenset(allowed) for name, _, allowed in grants}
    first = next(iter(types.values()), None)
    return Caller(
        user, shown, address, granted.get, frozenset(map(Role, roles)),
        None if scopes is None else frozenset(map(Scope, scopes)), key, dry_run, tenant, lambda room: joined_at_ms,
        lambda room: first if room is None else types.get(room), account_created=created, tags=tags, jti=jti,
        in_all_rooms=in_all,
    )  # fmt: skip
