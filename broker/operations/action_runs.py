"""Does what activities have to be done outside of their room: runs scheduled operations, carries messages of PKs.

Each action is repeated until the activity has it as a fact that it is done; what runs has idempotency keys, and what
receives knows what it has handled. Scheduled operations of one room run one after the other, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
import trio

from broker.auth.api_keys import ApiKeys
from broker.core.commerce.activity import ActivityRefusal, Requester
from broker.core.commerce.room_activities import ActivityKey
from broker.core.commerce.schedules import JobRan, JobRun
from broker.ledger.pending import PendingResult
from broker.operations.caller import OperationError
from broker.operations.calls import Operations
from broker.operations.creators import caller_again
from broker.operations.parts import Parts
from broker.operations.rooms import room_of
from broker.rooms.actions import ActionQueue
from protocol.codes import ErrorCode, Role
from protocol.operations import BY_NAME, KeyUse

__all__ = ["ActionRuns"]

log = structlog.get_logger("roomcast.activities")

AGAIN_S = 1.0
"""When something is tried again that the ledger, or a rate, does not allow now."""
MAX_TRIES = 60
"""Of one scheduled operation; after them it has the refusal of the last one."""
_BROKER = Requester("", "", Role.APP, is_platform=True)
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

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start what rooms ask for, until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                room, key, actions = await self._queue.take()
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

    async def _command(self, room_name: str, key: ActivityKey, command: Any, *, creates: bool = False) -> Any:
        """Give a command to an activity and return its answer, durable; an `ActivityRefusal` where the room is gone."""
        while True:
            try:
                room = room_of(self._parts, room_name)
            except OperationError as error:
                answer: Any = ActivityRefusal(error.code, error.rule, error.field)
            else:
                pending = PendingResult[Any]()
                room.command_activity(key, command, _BROKER, pending.set, creates=creates)
                answer = await pending.wait()
            if not isinstance(answer, ActivityRefusal) or answer.code not in _NOT_NOW:
                return answer
            await trio.sleep(AGAIN_S)
