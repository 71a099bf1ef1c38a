"""Calls that other nodes answer: the owner of a room judges and answers what is about the room as its own.

What holds on every node (`broker.rooms.broker_log`) is changed by any node, or by the owner of the broker's log where
one must decide. What several processes do not share yet is refused here: an answer of one node alone would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

import structlog
import trio

from broker.core.tenants.names import qualify
from broker.operations.broadcasts import id_of
from broker.operations.caller import Caller, OperationError
from broker.operations.calls import CallAnswer, Operations
from broker.operations.deferred import Deferred
from broker.operations.merging import MERGED
from broker.operations.rights import check_rights, read_request
from broker.rooms.broker_log import BROKER_LOG
from broker.rooms.node_messages import CallAsked, CallReturned, NodeMessage
from protocol.codes import ErrorCode, Outcome, Role
from protocol.frames import pack_body, unpack_body
from protocol.operations import BY_NAME, BY_NUMBER, OperationRow, Scope
from protocol.operations.messages import Published, PublishedMany

__all__ = ["CallForwarding", "OwnersOfCalls"]

log = structlog.get_logger("roomcast.operations")

PATIENCE_S = 2.0
"""How long the owner of a room may take for a change, beside what the change itself may wait; then its outcome is
unknown, and the key decides."""
READ_PATIENCE_S = 30.0
"""How long it may take for a read: a report of a long room is one."""
LOOK_PATIENCE_S = 1.0
"""How long a node that is asked for a room that it does not own finds out whether it is to own it."""
RETRY_MS = 1000
MAX_WAITING = 2000
"""Calls that wait for one other node."""
MAX_WAITING_BYTES = 1_000_000
"""Arguments of those."""
MAX_ANSWER_BYTES = 1_000_000
PUBLISH_MANY = "messages.publish_many"
"""Its messages may be for rooms of several owners."""
WATCH = "presence.watch"
"""A backend is shown who has a link at any node; a user watches at the owner of the broker's log."""
NOT_YET = "is not there with several nodes yet"
BROADCAST = "messages.broadcast"
"""Each node sends it to the rooms that it owns."""
BROADCAST_STATE = "messages.broadcast_state"
"""A node that has joined since the broadcast began does not know it."""
HERE = frozenset(
    {
        "broker.status", "broker.stats", "broker.reload", "broker.drain", "broker.config", "broker.connections",
        "broker.api_keys", "broker.verify_chain", "app.call", "dictionaries.get", "hooks.test",
    }
)  # fmt: skip
"""Operations about this node, and those that need no other."""
_FOR_ALL = frozenset(
    {
        "broker.create_api_key", "broker.revoke_api_key", "directs.send_many", "directs.send", "directs.progress",
        "directs.state", "directs.list", "directs.cancel", "users.revoke", "users.set_preferences", "users.set_tags",
        "moderation.get_list", "moderation.lists", "moderation.hints", "moderation.list", "moderation.undo",
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
_DECIDED_SUBJECTS = frozenset({"cards", "conversations", "desk", "marketing", "presence", "rtc"})
"""Subjects of which it decides all: one node has all conversations, calls and desks in memory."""
_SANCTIONS = frozenset({"moderation.mute", "moderation.unmute", "moderation.ban", "moderation.unban"})
"""Those that are about a room where they name one, else about all."""
_SUBJECTS = frozenset(
    {
        "activities", "audiences", "countdowns", "coupons", "keys", "lotteries", "messages", "mic", "orders", "packets",
        "polls", "products", "quizzes", "rains", "rankings", "sales", "schedules",
    }
)  # fmt: skip
_NAMES = frozenset(
    {
        "rooms.open", "rooms.set_rules", "rooms.get", "rooms.set_phase", "rooms.close", "rooms.members",
        "rooms.history", "rooms.stats", "users.kick", "gifts.refund", "moderation.test", "moderation.set_modes",
        "moderation.get_modes", "moderation.queue", "moderation.claim", "moderation.decide", "moderation.report",
        "rooms.report", "rooms.export",
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

    def forget(self, name: str) -> None:
        """Forget who owns a room: it has said that it does not."""

    def look_again(self, name: str) -> None:
        """Look a room up that is wanted of this node, whatever it knew of the owner."""

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
        self.on_watch: Callable[[str, Sequence[str]], None] = lambda watcher, users: None
        """Called with a user that is to be shown the presence of others, and with these."""
        self._last_id = 0
        self._waiting: dict[int, tuple[str, Deferred]] = {}
        self._load: dict[str, tuple[int, int]] = {}
        """Calls that wait for each node, and their bytes."""
        self._is_for_this = False
        """Whether the call that begins is for this node, whatever others have."""

    def route(
        self, caller: Caller, row: OperationRow, arguments: Any, max_bytes: int
    ) -> Coroutine[Any, Any, CallAnswer] | None:
        """Return what brings the answer of a call from the owner of its room; None: this node answers it.

        OperationError where it is refused.
        """
        if row.name in HERE or self._is_for_this:
            return None
        is_kept = self._operations.parts.others.log is not None
        is_watch = row.name == WATCH and not caller.is_backend
        if is_watch and is_kept:
            self.on_watch(caller.user, read_request(caller, row, arguments).users)
        if row.name in MERGED and not is_watch:
            if row.name == BROADCAST:
                _check_broadcast(caller, row, arguments)
            return self._ask_all(caller, row, arguments, max_bytes)
        if row.name == PUBLISH_MANY:
            return self._route_items(caller, row, arguments, max_bytes)
        is_decided_once = row.name in _DECIDED_ONCE or row.subject in _DECIDED_SUBJECTS
        name = None if is_decided_once else _field(row, arguments, "room")
        audience = _field(row, arguments, "audience") if row.name == "directs.send_many" else None
        if isinstance(audience, (dict, tuple)):
            name = audience.get("room") if isinstance(audience, dict) else next(iter(audience), None)
        elif is_kept and (row.name in _FOR_ALL or (row.name in _SANCTIONS and name is None)):
            if _field(row, arguments, "clear"):
                rule = "must be with a room where there are several nodes"
                raise OperationError(ErrorCode.BAD_FIELD, rule, "clear")
            return None
        if is_kept and is_decided_once:
            room, name = BROKER_LOG, ""
        elif isinstance(name, str) and name.isprintable() and _is_of_room(row, is_kept):
            room = qualify(caller.tenant, name)
        else:
            raise OperationError(ErrorCode.UNKNOWN_OPERATION, NOT_YET, "operation")
        owner = self._owners.owner_of(room)
        if owner != self._owners.node:
            return self._forward(room, name, caller, row, arguments, max_bytes)
        if not self._owners.may_answer():
            raise OperationError(ErrorCode.OVERLOADED, "this node has no lease now", "", RETRY_MS)
        return None

    async def _forward(
        self, room: str, name: str, caller: Caller, row: OperationRow, arguments: Any, max_bytes: int
    ) -> CallAnswer:
        rule, field = ("the room has no owner now", "room") if name else ("no node decides this now", "")
        for _ in range(2):  # it may have moved
            owner = await self._owners.wait_found(room)
            if owner is None:
                raise OperationError(ErrorCode.OVERLOADED, rule, field, RETRY_MS)
            if owner == self._owners.node:
                return await _waited(self._operations.begin(caller, row, arguments, max_bytes))
            answered = await self._ask(owner, room, name, caller, row, arguments, max_bytes)
            if answered is not None:
                return _read_answer(row, answered)
            self._owners.forget(room)
        raise OperationError(ErrorCode.OVERLOADED, rule, field, RETRY_MS)

    def _route_items(
        self, caller: Caller, row: OperationRow, arguments: Any, max_bytes: int
    ) -> Coroutine[Any, Any, CallAnswer] | None:
        """Return what brings the results of messages for rooms of several owners; None: this node owns all of them."""
        request = read_request(caller, row, arguments)
        check_rights(caller, row, request)
        if caller.dry_run:
            return None
        names = _rooms_of_items(caller, row, arguments)
        if any(self._owners.owner_of(name) != self._owners.node for name in names):
            self._charge(caller, row)
            return self._publish_items(caller, row, arguments, names, max_bytes)
        if not self._owners.may_answer():
            raise OperationError(ErrorCode.OVERLOADED, "this node has no lease now", "", RETRY_MS)
        return None

    def _charge(self, caller: Caller, row: OperationRow) -> None:
        """Count a call that this node does not answer itself: those that do will not."""
        if caller.tenant:
            self._operations.charge_tenant(caller)
        self._operations.charge(caller, row)

    async def _publish_items(
        self, caller: Caller, row: OperationRow, arguments: Any, names: list[str], max_bytes: int
    ) -> CallAnswer:
        """Have the owner of each room publish its messages, in their order, and answer with the results of all."""
        items = _field(row, arguments, "items")
        results: dict[int, Published] = {}
        owners: dict[str, str | None] = {}

        async def find(name: str) -> None:
            owners[name] = await self._owners.wait_found(name)

        async def publish(owner: str, numbers: list[int]) -> None:
            part = (tuple(items[number] for number in numbers),)
            try:
                if owner != self._owners.node:
                    answered = await self._ask(owner, names[numbers[0]], "", caller, row, part, 0)
                    found = None if answered is None else _read_answer(row, answered).result.items
                elif self._owners.may_answer():
                    found = (await _waited(self._begin_here(caller, row, part, 0, is_charged=True))).result.items
                else:
                    found = None
            except OperationError as error:
                found = (_refused(error),) * len(numbers)
            if found is None:
                for number in numbers:
                    self._owners.forget(names[number])
            else:
                results.update(zip(numbers, found, strict=True))

        for _ in range(2):  # rooms may have moved
            left = [number for number in range(len(names)) if number not in results]
            async with trio.open_nursery() as nursery:
                for name in dict.fromkeys(names[number] for number in left):
                    nursery.start_soon(find, name)
            parts: dict[str, list[int]] = {}
            for number in left:
                if (owner := owners[names[number]]) is not None:
                    parts.setdefault(owner, []).append(number)
            async with trio.open_nursery() as nursery:
                for owner, numbers in parts.items():
                    nursery.start_soon(publish, owner, numbers)
        unanswered = Published(Outcome.UNAVAILABLE, retry_after_ms=RETRY_MS)
        found = tuple(results.get(number, unanswered) for number in range(len(names)))
        result = PublishedMany(found, sum(each.outcome in (Outcome.ACCEPTED, Outcome.MASKED) for each in found))
        return CallAnswer(result, False, pack_body(result) if max_bytes else b"")

    async def _ask_all(self, caller: Caller, row: OperationRow, arguments: Any, max_bytes: int) -> CallAnswer:
        """Answer a call with what all nodes have."""
        found, errors = list[Any](), list[OperationError]()  # Any: results of the row
        nodes = {self._owners.node, *self._operations.parts.others.alive()}
        if row.name == BROADCAST:
            nodes = await self._nodes_that_know(caller, row, arguments) & nodes or nodes
        try:
            if self._owners.node in nodes:
                found.append((await _waited(self._begin_here(caller, row, arguments, max_bytes))).result)
            else:
                self._charge(caller, row)
        except OperationError as error:
            if row.name != BROADCAST_STATE or error.field != "id":
                raise
            errors.append(error)

        async def ask(node: str) -> None:
            try:
                answer = await self._ask(node, "", "", caller, row, arguments, max_bytes)
                if answer is not None:
                    found.append(_read_answer(row, answer).result)
            except OperationError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for node in sorted(nodes - {self._owners.node}):
                nursery.start_soon(ask, node)
        if row.name == BROADCAST_STATE and found:
            errors = [error for error in errors if error.field != "id"]
        if errors:
            raise errors[0]
        result = MERGED[row.name](caller, row.read(arguments), found)
        packed = pack_body(result) if max_bytes else b""
        if len(packed) > max_bytes:
            raise OperationError(ErrorCode.PAYLOAD_TOO_LARGE, "ask for fewer: the nodes have too much", "limit")
        return CallAnswer(result, False, packed)

    async def _nodes_that_know(self, caller: Caller, row: OperationRow, arguments: Any) -> set[str]:
        """Return the nodes that have begun a broadcast before, where a node that has not would send it twice.

        None of them where it is of lanes 0 to 2: a room takes it once. A node that was started since knows nothing of
        it, and owns rooms that have it.
        """
        request = read_request(caller, row, arguments)
        check_rights(caller, row, request)
        parts, state = self._operations.parts, BY_NAME[BROADCAST_STATE]
        if request.type in parts.types.critical:
            return set()
        name = id_of(caller, request)
        knowing = {self._owners.node} if parts.broadcasts.find(caller.tenant, name) is not None else set()
        errors: list[OperationError] = []

        async def ask(node: str) -> None:
            try:
                answer = await self._ask(node, "", "", caller, state, (name,), 0)
                if answer is not None and _read_answer(state, answer):
                    knowing.add(node)
            except OperationError as error:
                if error.field != "id":
                    errors.append(error)

        async with trio.open_nursery() as nursery:
            for node in parts.others.alive():
                nursery.start_soon(ask, node)
        if errors:
            raise errors[0]
        return knowing

    def _begin_here(
        self, caller: Caller, row: OperationRow, arguments: Any, max_bytes: int, *, is_charged: bool = False
    ) -> Any:
        self._is_for_this = True
        try:
            return self._operations.begin(caller, row, arguments, max_bytes, is_charged=is_charged)
        finally:
            self._is_for_this = False

    async def _ask(
        self, owner: str, room: str, name: str, caller: Caller, row: OperationRow, arguments: Any, max_bytes: int
    ) -> CallReturned | None:
        nbytes, (calls, waiting_bytes) = len(pack_body(arguments)), self._load.get(owner, (0, 0))
        if calls >= MAX_WAITING or (calls and waiting_bytes + nbytes > MAX_WAITING_BYTES):
            rule = "too many calls wait for the node that answers this one"
            raise OperationError(ErrorCode.RATE_LIMITED, rule, "", RETRY_MS)
        self._last_id += 1
        number, answer = self._last_id, Deferred()
        self._waiting[number] = owner, answer
        self._load[owner] = calls + 1, waiting_bytes + nbytes
        wait_ms = _field(row, arguments, "wait_ms")
        patience_s = PATIENCE_S + (wait_ms / 1000 if type(wait_ms) is int else 0) if row.changes else READ_PATIENCE_S
        try:
            packed = _pack_caller(caller, room, _names_in(row, arguments, name))
            self._send(owner, CallAsked(number, room, row.number, packed, arguments, max_bytes or MAX_ANSWER_BYTES))
            with trio.move_on_after(patience_s):
                found: CallReturned = await answer.wait()
                return None if found.refusal == () else found
        finally:
            del self._waiting[number]
            calls, waiting_bytes = self._load.pop(owner)
            if calls > 1:
                self._load[owner] = calls - 1, waiting_bytes - nbytes
        rule = "the node that answers it has not in time: ask again with the same key"
        raise OperationError(ErrorCode.OVERLOADED, rule, "", RETRY_MS)

    # ---- what other nodes send

    def asked(self, node: str, call: CallAsked) -> None:
        """Answer a call of another node."""
        self._start(self._answer, node, call)

    async def _answer(self, node: str, call: CallAsked) -> None:
        row = BY_NUMBER.get(call.operation)
        is_for_this = not call.room and row is not None and row.name in MERGED
        names = [call.room]
        if row is not None and row.name == PUBLISH_MANY:
            names = _rooms_of_items(_read_caller(call.caller), row, call.arguments)
        if row is None or not (is_for_this or await self._is_owner(names)):
            self._send(node, CallReturned(call.id, b"", refusal=()))
            return
        try:
            if not is_for_this and not self._owners.may_answer():
                raise OperationError(ErrorCode.OVERLOADED, "this node has no lease now", "", RETRY_MS)
            begin = self._operations.begin
            if is_for_this or row.name == PUBLISH_MANY:  # the node that was asked has counted it
                begin = partial(self._begin_here, is_charged=True)
            found = await _waited(begin(_read_caller(call.caller), row, call.arguments, call.max_bytes))
            answer = CallReturned(call.id, found.packed or pack_body(found.result), found.is_replayed)
        except OperationError as error:
            answer = CallReturned(
                call.id, b"", refusal=(int(error.code), error.rule, error.field, error.retry_after_ms)
            )
        except Exception:  # the table of operations has logged it
            refusal = int(ErrorCode.INTERNAL_ERROR), "the owner of the room has a defect, whose log has the call", "", 0
            answer = CallReturned(call.id, b"", refusal=refusal)
        self._send(node, answer)

    async def _is_owner(self, names: list[str]) -> bool:
        """Return whether this node owns all of some rooms; the others are looked up, for their records may name it."""
        others = {name for name in names if self._owners.owner_of(name) != self._owners.node}
        for name in others:
            self._owners.look_again(name)
        with trio.move_on_after(LOOK_PATIENCE_S):
            for name in others:
                if await self._owners.wait_found(name) != self._owners.node:
                    return False
            return True
        return False

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


async def _waited(found: Any) -> CallAnswer:
    """Return the answer that `Operations.begin` has returned or brings (Any)."""
    if isinstance(found, Deferred):
        found = await found.wait()
    answer: CallAnswer = found if isinstance(found, CallAnswer) else await found
    return answer


def _check_broadcast(caller: Caller, row: OperationRow, arguments: Any) -> None:
    """Check that a broadcast is the same one at every node, and that each knows the rooms of its caller."""
    if not _field(row, arguments, "id") and not caller.key:
        raise OperationError(ErrorCode.BAD_FIELD, "must be given, or a key, where there are several nodes", "id")
    if _field(row, arguments, "pattern") is not None and not caller.in_all_rooms:
        rule = "is for callers that are granted all rooms, where there are several nodes: name rooms"
        raise OperationError(ErrorCode.BAD_FIELD, rule, "pattern")


def _is_of_room(row: OperationRow, is_kept: bool) -> bool:
    """Return whether the owner of a room answers an operation that names one."""
    if row.name == "directs.send_many" or row.name in _SANCTIONS:
        return is_kept
    return bool(row.room) and (row.subject in _SUBJECTS or row.name in _NAMES)


def _field(row: OperationRow, arguments: Any, field: str) -> Any:
    """Return a field of a request that is not checked yet, None where it is not there."""
    if isinstance(arguments, dict):
        return arguments.get(field)
    if field not in row.request._fields or not isinstance(arguments, (list, tuple)):
        return None
    place = row.request._fields.index(field)
    return arguments[place] if place < len(arguments) else None


def _rooms_of_items(caller: Caller, row: OperationRow, arguments: Any) -> list[str]:
    """Return the room (qualified) of each message of a checked request."""
    return [qualify(caller.tenant, name) for name in _plain_rooms_of_items(row, arguments)]


def _plain_rooms_of_items(row: OperationRow, arguments: Any) -> list[str]:
    items = _field(row, arguments, "items") if row.name == PUBLISH_MANY else None
    return [each["room"] if isinstance(each, dict) else each[0] for each in items or ()]


def _refused(error: OperationError) -> Published:
    """Return the result of each message of a part that its owner has refused, or has not answered in time."""
    if error.code is ErrorCode.OVERLOADED:
        return Published(Outcome.UNAVAILABLE, retry_after_ms=error.retry_after_ms or RETRY_MS)
    if error.code is ErrorCode.RATE_LIMITED:
        return Published(Outcome.LIMITED, retry_after_ms=error.retry_after_ms)
    return Published(Outcome.REJECTED, code=int(error.code))


def _names_in(row: OperationRow, arguments: Any, name: str) -> tuple[str, ...]:
    """Return the rooms that a request names, which its caller may have to be granted."""
    more = _field(row, arguments, "rooms"), _field(row, arguments, "room")
    found = [each for field in more for each in (field if isinstance(field, (list, tuple)) else (field,))]
    found += _plain_rooms_of_items(row, arguments)
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
        caller.in_all_rooms, None if room else int(max(caller.roles, default=Role.VIEWER)),
    )  # fmt: skip


def _read_caller(packed: tuple[Any, ...]) -> Caller:
    user, shown, address, grants, roles, scopes, key, dry_run, tenant, *rest = packed
    joined_at_ms, created, tags, jti, in_all, role = rest
    granted = {name: None if role is None else Role(role) for name, role, _ in grants}
    types = {name: None if allowed is None else frozenset(allowed) for name, _, allowed in grants}
    elsewhere = None if role is None else Role(role)  # who has asked all nodes leaves out what its caller may not see
    first = next(iter(types.values()), None)
    return Caller(
        user, shown, address, lambda name: granted.get(name, elsewhere), frozenset(map(Role, roles)),
        None if scopes is None else frozenset(map(Scope, scopes)), key, dry_run, tenant, lambda room: joined_at_ms,
        lambda room: first if room is None else types.get(room), account_created=created, tags=tags, jti=jti,
        in_all_rooms=in_all,
    )  # fmt: skip
