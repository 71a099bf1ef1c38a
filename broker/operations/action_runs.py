"""Does what activities have to be done outside of their room: runs scheduled operations, carries messages of PKs.

Each action is repeated until the activity has it as a fact that it is done; what runs has idempotency keys, and what
receives knows what it has handled. Scheduled operations of one room run one after the other, in order.

Messages of PKs are sent in order too, each again until the other room has handled or refused it. A room that has ended
is no longer informed of the answers, but its last messages are still sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
import trio

from broker.auth.api_keys import ApiKeys
from broker.core.commerce.activity import BROKER, ActivityRefusal
from broker.core.commerce.pk import PK_KEY, PK_SHOWN_KEY
from broker.core.commerce.pk_half import Delivered, OtherScored, PkMessage, ReceiveMessage
from broker.core.commerce.room_activities import ActivityKey
from broker.core.commerce.schedules import JobRan, JobRun
from broker.core.tenants.names import plain_name, qualify, tenant_of
from broker.ledger.pending import PendingResult
from broker.operations.caller import OperationError
from broker.operations.calls import Operations
from broker.operations.creators import caller_again
from broker.operations.parts import Parts
from broker.operations.rooms import room_of
from broker.rooms.actions import ActionQueue
from protocol.codes import ErrorCode
from protocol.operations import BY_NAME, KeyUse

__all__ = ["ActionRuns"]

log = structlog.get_logger("roomcast.activities")

AGAIN_S = 1.0
"""When something is tried again that the ledger, or a rate, does not allow now."""
MAX_TRIES = 60
"""Of one scheduled operation; after them it has the refusal of the last one."""
ANSWER_S = 10.0
"""Wait for the answer of an activity; a room that has crashed gives none."""
_NOT_NOW = (ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED)


class ActionRuns:
    """The actions of all activities of one broker. ``keys``: of the control API, None = it needs none."""

    def __init__(
        self, queue: ActionQueue, parts: Parts, operations: Operations, keys: Callable[[], ApiKeys | None]
    ) -> None:
        self._queue = queue
        self._parts = parts
        self._operations = operations
        self._keys = keys
        self._jobs: dict[str, deque[tuple[ActivityKey, JobRun]]] = {}
        """Scheduled operations by room; a room that is in it has a task."""
        self._messages: dict[tuple[str, int], tuple[tuple[str, PkMessage], ...]] = {}
        """Rooms and the messages for them, by sending room and its epoch; what is in it has a task."""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start what rooms ask for, until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                room, epoch, key, actions = await self._queue.take()
                if key == PK_KEY:
                    if (room, epoch) not in self._messages:
                        nursery.start_soon(self._send_messages, room, epoch)
                    self._messages[room, epoch] = actions
                    continue
                if key == PK_SHOWN_KEY:
                    self._show_scores(room, actions)
                    continue
                for action in actions:
                    if isinstance(action, JobRun):
                        jobs = self._jobs.get(room)
                        if jobs is None:
                            jobs = self._jobs[room] = deque()
                            nursery.start_soon(self._run_jobs, room, jobs)
                        jobs.append((key, action))

    async def _run_jobs(self, room: str, jobs: deque[tuple[ActivityKey, JobRun]]) -> None:
        while jobs:
            key, job = jobs.popleft()
            refusal = await self._run_job(job)
            ran = JobRan(job.version) if refusal is None else JobRan(job.version, refusal[0], refusal[1][:256])
            await self._command(room, key, ran)
        del self._jobs[room]

    async def _run_job(self, job: JobRun) -> tuple[str, str] | None:
        """Run a scheduled operation; return code and rule of its refusal, None = it succeeded."""
        row = BY_NAME.get(job.operation)
        if row is None:
            return ErrorCode.UNKNOWN_OPERATION.name, "is no operation of this version"
        for tries in range(1, MAX_TRIES + 1):
            key = "" if row.key is KeyUse.NONE else job.key
            now_s = self._parts.unix_ms() / 1000
            caller = caller_again(job.creator, key, self._keys, self._parts.revocations, now_s)
            if caller is None:
                return ErrorCode.NOT_ALLOWED.name, "its creator has no rights any more"
            try:
                await self._operations.call(caller, row, job.request)
            except OperationError as error:
                if error.code not in _NOT_NOW or tries == MAX_TRIES:
                    return error.code.name, f"{error.field} {error.rule}".strip()
                await trio.sleep(max(AGAIN_S, error.retry_after_ms / 1000))
            except Exception:  # the operation has reported its defect
                return ErrorCode.INTERNAL_ERROR.name, "met a defect of the broker"
            else:
                return None
        return ErrorCode.OVERLOADED.name, "was tried too often"

    async def _send_messages(self, room: str, epoch: int) -> None:
        """Send the messages of a room's PK until none waits: newer ones take the place of those that wait."""
        while messages := self._messages[room, epoch]:
            is_refused = False
            for other, message in messages:
                code = await self._send_message(room, other, message)
                if code in _NOT_NOW:
                    is_refused = True
                    continue
                waiting = self._messages[room, epoch]
                self._messages[room, epoch] = tuple(each for each in waiting if each != (other, message))
                if self._parts.hub.epoch_of(room) == epoch:
                    await self._command(room, PK_KEY, Delivered(message.pk, message.kind, code))
            if is_refused:
                await trio.sleep(AGAIN_S)
        del self._messages[room, epoch]

    def _show_scores(self, room: str, scores: tuple[tuple[str, OtherScored], ...]) -> None:
        """Give scores to other rooms, for display: once, as the next one takes their place."""
        for other, scored in scores:
            receiver = self._parts.hub.find(qualify(tenant_of(room), other))
            if receiver is not None:
                receiver.command_activity(PK_KEY, scored, BROKER, lambda answer: None)

    async def _send_message(self, room: str, other: str, message: PkMessage) -> ErrorCode | None:
        """Give a message to another room; return the code of its refusal, None = the room has handled it."""
        command = ReceiveMessage(plain_name(room), message)
        receiver = qualify(tenant_of(room), other)
        answer = await self._ask(receiver, PK_KEY, command, creates=message.kind == "invite")
        return answer.code if isinstance(answer, ActivityRefusal) else None

    async def _command(self, room: str, key: ActivityKey, command: Any) -> Any:
        """Give a command to an activity until it is taken; return its answer, durable."""
        while True:
            answer = await self._ask(room, key, command)
            if not isinstance(answer, ActivityRefusal) or answer.code not in _NOT_NOW:
                return answer
            await trio.sleep(AGAIN_S)

    async def _ask(self, room_name: str, key: ActivityKey, command: Any, *, creates: bool = False) -> Any:
        """Give a command to an activity once and return its answer, durable; an `ActivityRefusal` where the room is
        gone, or does not answer in `ANSWER_S`."""
        try:
            room = room_of(self._parts, room_name)
        except OperationError as error:
            return ActivityRefusal(error.code, error.rule, error.field)
        pending = PendingResult[Any]()
        room.command_activity(key, command, BROKER, pending.set, creates=creates)
        with trio.move_on_after(ANSWER_S):
            return await pending.wait()
        return ActivityRefusal(ErrorCode.OVERLOADED, "does not answer", "room")
