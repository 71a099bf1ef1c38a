"""CALLs of links: one answer each, RESULT or ERROR with the sequence of the CALL.

A call whose handler waits for nothing is answered in the same read, without a task; a `Deferred` answer is written
when it is there, without one too. The others run as tasks of the broker: at most `MAX_TASKS` of all links. At most
`MAX_CALLS` of one link wait. A link that ends cancels its reads; what changes something goes on, and its result has no
receiver.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import structlog
import trio

from broker.auth.grants import Grant, RoomGrant
from broker.core.tenants.names import plain_name
from broker.operations.caller import Caller, OperationError
from broker.operations.calls import CallAnswer, Operations
from broker.operations.deferred import Deferred
from protocol.codes import Codec, ErrorCode, Role
from protocol.connection import Frame
from protocol.frames import MAX_BODY_BYTES, pack_body
from protocol.messages import MAX_CALLS, Call, Message, Result
from protocol.operations import BY_NUMBER, OperationRow

__all__ = ["MAX_TASKS", "CallTasks", "CallerLink", "LinkCalls"]

log = structlog.get_logger("roomcast.session")

MAX_TASKS = 4096
"""Calls of all links that wait at a time."""
BUSY_MS = 100
"""When to call again where too many calls of the link wait."""
TASKS_FULL_MS = 1000
MAX_UNREAD_BYTES = 256 * 1024
"""Bytes of answers that wait for a link above which its calls are refused: a RESULT may have 64 KiB."""

_PREFIXES = {row.number: pack_body((row.number, None))[:-1] for row in BY_NUMBER.values()}
"""First bytes of a RESULT's body by operation: what comes before the result."""
_ROOM_PLACES = {row.number: row.request._fields.index("room") for row in BY_NUMBER.values() if row.room}
"""Index of the field ``room`` of a request by operation."""
_MAX_RESULT_BYTES = MAX_BODY_BYTES - max(map(len, _PREFIXES.values()))


class CallTasks:
    """Tasks of the calls that wait, of all links of a broker."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self.running = 0

    @property
    def is_full(self) -> bool:
        """Whether no more calls may wait now."""
        return self.running >= MAX_TASKS or self._nursery is None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def start(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task; it must not raise. Not where `is_full`."""
        assert self._nursery is not None, "the caller has asked is_full"
        self.running += 1
        self._nursery.start_soon(self._run, work, args)

    async def _run(self, work: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
        try:
            await work(*args)
        finally:
            self.running -= 1


class CallerLink(Protocol):
    """What calls need of a session."""

    @property
    def grant(self) -> Grant | None:
        """What the token grants; None before AUTH."""

    @property
    def address(self) -> str:
        """The client's address."""

    @property
    def is_open(self) -> bool:
        """Whether the connection still exists."""

    @property
    def unread_bytes(self) -> int:
        """Bytes of lanes 0-2 that the client has not taken."""

    def joined_name(self, number: int) -> str | None:
        """Return the qualified name of a joined room by its number; None = the link is not in it."""

    def joined_at_ms(self, room: str) -> int | None:
        """Return when the link has joined a room by qualified name, Unix milliseconds; None = it has not."""

    def use_codec(self, codec: Codec) -> bool:
        """Compress what rooms publish with this codec from now on; False: on this link nothing is compressed."""

    def send(self, message: Message, room: int = 0, sequence: int = 0, *, packed: bytes | None = None) -> None:
        """Frame and write a message; nothing happens on a link that has ended."""

    def error(self, code: ErrorCode, message: str, room: int, sequence: int, field: str = "", wait_ms: int = 0) -> None:
        """Answer a failed request."""

    def replying(self) -> Any:
        """Collect the replies inside the block into one write; an exception ends this session alone."""


class LinkCalls:
    """The calls of one link."""

    __slots__ = ("_caller", "_grant", "_link", "_operations", "_reads", "_tasks", "_waiting", "held")

    def __init__(self, link: CallerLink, operations: Operations, tasks: CallTasks) -> None:
        self._link = link
        self._operations = operations
        self._tasks = tasks
        self._grant: Grant | None = None
        self._caller: Caller | None = None
        self._reads: set[trio.CancelScope] = set()
        """Scopes of the calls that wait and change nothing."""
        self._waiting = 0
        """Calls without an answer."""
        self.held: Frame | None = None
        """The CALL that waits for the turn of its link, see `broker.sessions.call_turns`."""

    def take(self, room: int, sequence: int, call: Call) -> None:
        """Answer a CALL, now or when its handler has the result."""
        operation, key, arguments = call
        row = BY_NUMBER.get(operation)  # type: ignore[arg-type]
        link = self._link
        try:
            if row is None:
                raise OperationError(ErrorCode.UNKNOWN_OPERATION, "is no operation of this broker", "operation")
            if room:
                arguments = self._with_room(row, room, arguments)
            if self._waiting >= MAX_CALLS:
                raise OperationError(
                    ErrorCode.RATE_LIMITED, f"at most {MAX_CALLS} calls of a link may wait", "", BUSY_MS
                )
            if self._tasks.is_full or link.unread_bytes > MAX_UNREAD_BYTES:
                raise OperationError(ErrorCode.OVERLOADED, "too many answers wait", "", TASKS_FULL_MS)
            found = self._operations.begin(self._caller_with(key), row, arguments, _MAX_RESULT_BYTES)
        except OperationError as error:
            self._refuse(error, room, sequence)
        except Exception:  # the table of operations has logged it
            self._fail(room, sequence)
        else:
            if type(found) is CallAnswer:
                self._reply(row, found, room, sequence)
            elif type(found) is Deferred:
                self._waiting += 1
                found.then(partial(self._deferred, row, room, sequence))
            else:
                self._waiting += 1
                self._tasks.start(self._wait, row, room, sequence, found)

    def take_held(self) -> None:
        """Answer the CALL that has waited, if one has: it is the turn of its link."""
        frame, self.held = self.held, None
        if frame is not None:
            self.take(frame.room, frame.sequence, frame.message)  # type: ignore[arg-type]

    def close(self) -> None:
        """Cancel the reads that wait: the link has ended."""
        for scope in self._reads:
            scope.cancel()

    async def _wait(
        self, row: OperationRow, room: int, sequence: int, answering: Coroutine[Any, Any, CallAnswer]
    ) -> None:
        scope = trio.CancelScope()
        if not row.changes:
            self._reads.add(scope)
        answer: CallAnswer | None = None
        refusal: OperationError | None = None
        try:
            with scope:
                answer = await answering
        except OperationError as error:
            refusal = error
        except Exception:  # logged
            pass
        finally:
            self._reads.discard(scope)
            self._waiting -= 1
        if not self._link.is_open:
            return
        with self._link.replying():
            if answer is not None:
                self._reply(row, answer, room, sequence)
            elif refusal is not None:
                self._refuse(refusal, room, sequence)
            else:
                self._fail(room, sequence)

    def _deferred(self, row: OperationRow, room: int, sequence: int, answer: CallAnswer | OperationError) -> None:
        """Answer a call whose handler has waited without a task."""
        self._waiting -= 1
        if not self._link.is_open:
            return
        with self._link.replying():
            if isinstance(answer, OperationError):
                self._refuse(answer, room, sequence)
            else:
                self._reply(row, answer, room, sequence)

    # ---- answers

    def _reply(self, row: OperationRow, answer: CallAnswer, room: int, sequence: int) -> None:
        packed = _PREFIXES[row.number] + answer.packed
        self._link.send(Result(row.number, answer.result), room, sequence, packed=packed)

    def _refuse(self, error: OperationError, room: int, sequence: int) -> None:
        rule = error.rule[:256]
        if not rule.isprintable():
            rule = "".join(each if each.isprintable() else " " for each in rule)
        self._link.error(error.code, rule, room, sequence, error.field[:64], error.retry_after_ms)

    def _fail(self, room: int, sequence: int) -> None:
        rule = "the broker has a defect, whose log has the call"
        self._link.error(ErrorCode.INTERNAL_ERROR, rule, room, sequence)

    # ---- who calls

    def _with_room(self, row: OperationRow, number: int, arguments: Any) -> Any:
        """Return arguments with the joined room of the header; OperationError where they name another one."""
        joined = self._link.joined_name(number)
        if joined is None:
            raise OperationError(ErrorCode.NOT_JOINED, "join the room first", "room")
        if not row.room:
            raise OperationError(ErrorCode.BAD_FIELD, "must be 0: this operation names no room", "room")
        name = plain_name(joined)
        if isinstance(arguments, dict):
            given = arguments.get("room")
            filled: Any = {**arguments, "room": name}
        else:
            place = _ROOM_PLACES[row.number]
            if len(arguments) < place:
                return arguments  # a field before it is missing, which the operation reports
            given = arguments[place] if place < len(arguments) else None
            filled = (*arguments[:place], name, *arguments[place + 1 :])
        if given is not None and given != name:
            raise OperationError(ErrorCode.BAD_FIELD, "is not the room of the header", "room")
        return filled

    def _caller_with(self, key: str) -> Caller:
        grant = self._link.grant
        assert grant is not None, "the link's state table lets CALL pass only after AUTH"
        if self._caller is None or grant is not self._grant:
            self._grant, self._caller = grant, _caller_of(self._link, grant)
        if not key:
            return self._caller
        caller = self._caller
        return Caller(
            caller.id, caller.name, caller.address, caller.grants, caller.roles, None, key, False, caller.tenant,
            caller.joined_at_ms, caller.allows, account_created=caller.account_created, tags=caller.tags,
            jti=caller.jti, in_all_rooms=caller.in_all_rooms, use_codec=caller.use_codec,
        )  # fmt: skip


def _caller_of(link: CallerLink, grant: Grant) -> Caller:
    def grants(room: str) -> Role | None:
        entry = grant.grant_of(room)
        return None if entry is None else entry.role

    def allows(room: str | None) -> frozenset[str] | None:
        if room is not None:
            return (grant.grant_of(room) or RoomGrant("", Role.GUEST)).allow
        names: frozenset[str] = frozenset()
        for entry in grant.rooms:
            if entry.allow is None:
                return None
            names |= entry.allow
        return names if grant.rooms else None

    return Caller(
        plain_name(grant.user_id), grant.name, link.address, grants, frozenset({grant.role}), tenant=grant.tenant,
        joined_at_ms=link.joined_at_ms, allows=allows, account_created=grant.account_created, tags=grant.tags,
        jti=grant.jti, in_all_rooms=any(entry.pattern == "*" and entry.role is Role.APP for entry in grant.rooms),
        use_codec=link.use_codec,
    )  # fmt: skip
