"""Handlers of the operations on schedules and countdowns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broker.core.commerce import countdowns
from broker.core.commerce import schedules as jobs
from broker.operations.activities import ask_activity, command, page_of_kind
from broker.operations.caller import Caller, OperationError
from broker.operations.creators import creator_of
from broker.operations.parts import Handler, Parts
from broker.operations.rights import check_rights, check_sanctions, read_request
from protocol.activities.schedules import JobView
from protocol.codes import ErrorCode
from protocol.operations import BY_NAME, KeyUse, OperationRow
from protocol.operations.schedules import (
    CancelSchedule,
    ChangeSchedule,
    CreateSchedule,
    ListSchedules,
    MoveCountdownTo,
    SchedulePage,
    StartCountdownAt,
    StopCountdownNow,
)

__all__ = ["HANDLERS"]

MAX_KEPT_JOBS = 10_000
"""Above what a room has in memory."""


def _key(id: str) -> tuple[str, str]:
    return jobs.Job.kind, id


async def _create(parts: Parts, caller: Caller, request: CreateSchedule) -> Any:
    row = BY_NAME.get(request.operation)
    if row is None or not row.changes:
        raise OperationError(ErrorCode.BAD_FIELD, "must be an operation that changes something", "operation")
    wanted = _judge(caller, row, request.request)
    check_sanctions(parts.hub.sanctions, caller, row, wanted, parts.hub.trusted.continued_ms())
    creator = creator_of(caller, request.room, parts.unix_ms())
    create = jobs.CreateJob(request.operation, request.request, request.at_ms, creator, request.late, request.late_ms)
    return await command(parts, caller, request.room, _key(request.id), create, creates=True)


def _judge(caller: Caller, row: OperationRow, arguments: Any) -> Any:
    """Return the request of an operation; OperationError where the caller could not run it now. Any: of the row."""
    runner = replace(caller, key="" if row.key is KeyUse.NONE else "job")
    try:
        request = read_request(runner, row, arguments)
        check_rights(runner, row, request)
    except OperationError as error:
        field = f"request.{error.field}" if error.field and error.field != "operation" else error.field or "request"
        raise OperationError(error.code, error.rule, field) from None
    return request


async def _judge_job(parts: Parts, caller: Caller, room: str, id: str) -> None:
    """Raise OperationError where the caller could not run the operation of a job now.

    Such a job is not the caller's to change or cancel: a host could give a price of the platform another time. A job
    whose operation this version does not have runs for no caller.
    """
    job: JobView = await ask_activity(parts, room, _key(id), jobs.Job.job)
    row = BY_NAME.get(job.operation)
    if row is not None:
        _judge(caller, row, job.request)


def _shown(caller: Caller, job: JobView) -> JobView:
    """Return a job as the caller may see it: without its request where the caller could not run it.

    A request may hold what is for the platform alone, such as coupon codes or the RTC token of a user.
    """
    row = BY_NAME.get(job.operation)
    if row is None:
        return job._replace(request=None)
    try:
        _judge(caller, row, job.request)
    except OperationError:
        return job._replace(request=None)
    return job


async def _change(parts: Parts, caller: Caller, request: ChangeSchedule) -> Any:
    await _judge_job(parts, caller, request.room, request.id)
    return await command(parts, caller, request.room, _key(request.id), jobs.ChangeJob(request.at_ms, request.version))


async def _cancel(parts: Parts, caller: Caller, request: CancelSchedule) -> Any:
    await _judge_job(parts, caller, request.room, request.id)
    return await command(parts, caller, request.room, _key(request.id), jobs.CancelJob())


async def _list(parts: Parts, caller: Caller, request: ListSchedules) -> SchedulePage:
    views, _ = await page_of_kind(parts, request.room, jobs.Job.kind, None, MAX_KEPT_JOBS, jobs.Job.job)
    ids = [view.id for view in views]
    start = ids.index(request.cursor) + 1 if request.cursor in ids else 0
    found = [view for view in views[start:] if request.state in (None, view.state)]
    page = tuple(_shown(caller, view) for view in found[: request.limit])
    return SchedulePage(page, page[-1].id if len(found) > len(page) else None)


async def _start(parts: Parts, caller: Caller, request: StartCountdownAt) -> Any:
    start = countdowns.StartCountdown(request.label, request.deadline_ms)
    key = countdowns.Countdown.kind, request.id
    return await command(parts, caller, request.room, key, start, creates=True)


async def _move(parts: Parts, caller: Caller, request: MoveCountdownTo) -> Any:
    key = countdowns.Countdown.kind, request.id
    move = countdowns.MoveCountdown(request.deadline_ms, request.known_ms)
    return await command(parts, caller, request.room, key, move)


async def _stop(parts: Parts, caller: Caller, request: StopCountdownNow) -> Any:
    key = countdowns.Countdown.kind, request.id
    return await command(parts, caller, request.room, key, countdowns.StopCountdown())


HANDLERS: dict[str, Handler] = {
    "schedules.create": _create,
    "schedules.change": _change,
    "schedules.cancel": _cancel,
    "schedules.list": _list,
    "countdowns.start": _start,
    "countdowns.stop": _stop,
    "countdowns.move": _move,
}
