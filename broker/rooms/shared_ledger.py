"""The ledger of a node whose rooms are shared: their records are in the engine's log, and a copy here.

A submission of a room is a fact of the room's log, appended under the fence of this node; what the log has, a ledger in
a directory of this process takes over in the same order, and answers. So the engine's log is the only truth, every
owner folds the same, and whatever reads a ledger (histories, activities, keys) reads the copy. A node that becomes the
owner first takes over what the log has beyond its copy. What is about no room stays in the copy alone.

A submission waits while the engine does not answer. One whose answer was lost is looked up in the log before anything
else is written.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import structlog
import trio

from broker.engine.base import MAX_APPEND_ITEMS, Engine, EngineError, Granted, LogItem, OutboxItem
from broker.ledger import (
    ACTIVITY_FACTS,
    Committed,
    Entry,
    FailureKind,
    Item,
    Key,
    Ledger,
    LedgerError,
    LedgerRefused,
    LedgerResult,
    LedgerState,
    OutboxDone,
    OutboxEntry,
    Retention,
    RoomForgotten,
    StoredOutbox,
    SubmitResult,
    outbox_of_lines,
)
from broker.ledger.copying import read_key_marks
from broker.ledger.entries import Submission
from broker.ledger.schema import database_path
from broker.rooms.broker_log import BROKER_LOG, BrokerLog, read_fact
from broker.rooms.ledger_copies import COPY_PREFIX, open_copy, remove_left_copies
from broker.rooms.log_checkpoints import LogCheckpoints
from broker.rooms.replaced_facts import ReplacedFacts
from broker.rooms.room_log import AGAIN_S, RoomLog, groups
from broker.rooms.sealed_engine import LogCipher, sealed_engine
from broker.rooms.shared_logs import SharedLog, WaitingSubmission, first_group
from broker.rooms.shared_notices import AGAIN_WITHIN_MS, send_notices, without_notices
from broker.rooms.shared_outbox import (
    PendingReports,
    ReportsOfOwner,
    SharedOutbox,
    read_outbox,
    report_row,
    reports_in,
)
from broker.rooms.submissions import ROOM_KINDS, is_for_all, read_submission, room_of

__all__ = ["SUBMISSION_KIND", "SharedLedger"]

log = structlog.get_logger("roomcast.shared_ledger")

SUBMISSION_KIND = 1100
"""Kind of the facts of a room's log that are submissions."""
AGAIN = b"again"
"""Body of the first entry of a log that is written again, because the engine has lost its data. The note of the room
says once it is whole."""
MAX_KEPT_BYTES = 256 * 1024 * 1024
"""Facts that are kept in memory, to be written again where the engine loses its data: of all rooms of this node."""
REPLACED_KEPT = 64
"""Facts that later ones replace stay until they are so many: they are removed together."""
PAGE = 200
"""Facts that are read at a time."""
WORK_TOPIC = "activities"
"""Topic of the report that no one is sent: it says that the activities of a room may have something to do, so that a
node claims the room once its owner is gone."""
MAX_MARKS = 2000
"""Marks of keys that are removed at a time."""
SETTLE_S = 1.0
"""How long a room that moves waits for what is being written."""


class SharedLedger(Ledger):
    """A ledger whose rooms are in the engine's log. ``on_lost`` gets a room that another node owns now."""

    is_copy = True

    def __init__(self, directory: Path, *, engine: Engine, **settings: Any) -> None:  # Any: those of `Ledger`
        remove_left_copies(directory)
        if database_path(directory).exists():
            log.warning("a ledger of a broker without an engine is not read", path=str(database_path(directory)))
        self._copy = tempfile.TemporaryDirectory(prefix=COPY_PREFIX, dir=directory)
        reports, retention = settings.get("reports"), settings.get("retention") or Retention()
        if reports is not None:
            settings["reports"] = ReportsOfOwner(reports, lambda name: name in self._logs)
        settings["open_store"] = partial(open_copy, settings.get("open_store"))
        super().__init__(Path(self._copy.name), **settings)
        engine = self._engine = sealed_engine(engine, LogCipher(lambda: self._keys, self.use_keys, self.other_keys))
        self._outbox = SharedOutbox(engine, self._fence_of, self._reported, self._unix_ms, retention.outbox_s * 1000)
        self._logs: dict[str, SharedLog] = {}
        self._applied: dict[str, int] = {}
        """By room: the number of the last fact that the copy has."""
        self._replaced: dict[str, ReplacedFacts] = {}
        """By room: the facts of its log that may be removed."""
        self._bodies: dict[str, dict[int, bytes]] = {}
        """By room of this node: the facts of its log, by number."""
        self._kept_bytes = 0
        self._foundings: dict[str, bytes] = {}
        """By room: which log the copy is of, as the note of the room says."""
        self._nursery: trio.Nursery | None = None
        self._queued = 0
        self.broker_log = BrokerLog(engine, self._apply, super().flush)
        self.broker_log.reports_done = self._outbox.done
        self.may_answer: Callable[[], bool] = lambda: True
        """Whether the lease of this node holds."""
        self.on_reports_left: Callable[[Sequence[int]], None] = lambda ids: None
        """Gets ids of reports that another node sends from now on."""
        self._left: dict[str, tuple[tuple[str, ...], Callable[[StoredOutbox], bool]]] = {}
        """By log that this node owned: its reports that are still in the copy."""
        self._leaving = trio.Lock()
        self.broker_log.on_checkpoint = self._on_checkpoint
        self.on_lost: Callable[[str], None] = lambda room: None
        self.load: Callable[[str], Awaitable[bool]] | None = None
        """Reads a room from the copy; returns whether its activities have something to do."""
        self.busy: set[str] = set()
        """Rooms of this node whose activities had something to do when it became their owner."""

    def record(
        self, items: Sequence[Item], on_done: Callable[[LedgerResult], None], keys: Sequence[Key] = ()
    ) -> SubmitResult:
        """See `Ledger.record`. UNAVAILABLE for a room that this node does not own."""
        room = room_of(items)
        if not room and is_for_all(items, self.broker_log.kinds):
            taken = self.broker_log.record(tuple(items), tuple(keys), on_done)
            return SubmitResult.QUEUED if taken else SubmitResult.UNAVAILABLE if taken is None else SubmitResult.FULL
        if not room:
            return super().record(items, on_done, keys)
        shared = self._logs.get(room)
        if shared is None or self.state is not LedgerState.READY:
            self._refused += 1
            return SubmitResult.UNAVAILABLE
        nbytes = Submission(tuple(items), tuple(keys)).nbytes
        if self._queued >= self._limits.max_items or shared.nbytes + nbytes > self._limits.max_bytes:
            self._refused += 1
            return SubmitResult.FULL
        self._queued += 1
        shared.waiting.append(WaitingSubmission(tuple(items), tuple(keys), on_done))
        shared.nbytes += nbytes
        shared.work.set()
        return SubmitResult.QUEUED

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Ledger.run`; the copy is removed at the end."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(super().run)
                self._nursery = nursery
                nursery.start_soon(self._outbox.run)
                task_status.started()
        finally:
            self._nursery = None
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._copy.cleanup)

    async def flush(self) -> None:
        """See `Ledger.flush`."""
        while self._queued:  # noqa: ASYNC110 - several rooms' tasks make it fall, none of them knows of the others
            await trio.sleep(0.01)
        await super().flush()

    def append_for_all(self, body: bytes) -> bool:
        """Append a submission of any node to the broker's log; False: this node does not own it, or too much waits."""
        shared = self._logs.get(BROKER_LOG)
        if shared is None or self._queued >= self._limits.max_items:
            return False
        self._queued += 1
        shared.waiting.append(WaitingSubmission((), (), _ignore, body))
        shared.work.set()
        return True

    # ---- reports

    @property
    def may_report(self) -> bool:
        """See `Ledger.may_report`."""
        return self.may_answer()

    def reports_done(self, reports: Sequence[StoredOutbox]) -> None:
        """See `Ledger.reports_done`."""
        self._outbox.done(reports)

    def _fence_of(self, name: str) -> int | None:
        shared = self._logs.get(name)
        return None if shared is None else shared.end.fence

    def _reported(self, name: str, facts: Sequence[int]) -> None:
        replaced = self._replaced.get(name)
        if replaced is not None:
            replaced.reported(facts)

    async def _leave_reports(self, name: str) -> None:
        """Drop the reports of a log that another node owns from the copy: that node sends them."""
        async with self._leaving:
            lines, is_left = self._left.pop(name, ((), bool))
            if not lines or self.state is not LedgerState.READY:
                return
            await super().flush()
            found = await self.ask(outbox_of_lines, lines)
            ids = tuple(report.id for report in found if is_left(report))
            self.on_reports_left(ids)
            super().record((OutboxDone(ids),), _ignore)

    async def _leave_later(self, name: str) -> None:
        try:
            await self._leave_reports(name)
        except (LedgerRefused, sqlite3.Error) as error:
            log.warning("reports that another node sends cannot be dropped", room=name, why=str(error))

    async def _begin_reports(self, name: str) -> tuple[dict[int, PendingReports], bool]:
        """Return the reports of a log that are not done, by fact, and whether the engine names it as one with work."""
        await self._leave_reports(name)
        rows = await read_outbox(self._engine, name)
        return self._outbox.begin(name, rows), any(row.topic == WORK_TOPIC for row in rows)

    # ---- rooms of this node

    async def open(self, name: str, granted: Granted) -> bool:
        """Take over what the log of a room has beyond the copy; from then on this node writes it. False: it cannot."""
        if name == BROKER_LOG and self._nursery is not None:
            return await self._open_for_all(granted, self._nursery)
        record = await self._engine.owner(name)
        founding = b"" if record is None else record.note
        if not founding and not granted.is_new and await self._is_incomplete(name):
            log.error("the engine has lost its data, and the owner of a room died while it wrote it again", room=name)
            return False
        applied = self._applied.get(name, 0)
        is_other = bool(applied) and (granted.is_new or founding != self._foundings.get(name, b""))
        if self._nursery is None or (granted.last_fact < applied and not is_other):
            log.error("the engine has lost records of a room", room=name, kept=applied, found=granted.last_fact)
            return False
        await super().flush()
        pending, has_work = await self._begin_reports(name)
        is_anew = is_other or any(fact <= applied for fact in pending)
        if is_other:
            log.error("the engine has lost its data: what this node had of a room is dropped", room=name)
        if is_anew:
            await self._forget(name, ())
            applied = self._applied[name] = 0
        self._foundings[name] = founding
        self._begin_log(name)
        fact = 0
        while fact < granted.last_fact:
            found = await self._engine.read_facts(name, fact, PAGE)
            if not found:  # those that later ones replace were removed, but never the newest
                log.error("the log of a room has lost its end", room=name, after=fact)
                return False
            if is_anew:
                await self._forget(name, [key.digest for each in found for key in read_submission(each.body)[1]])
            for each in found:
                items, keys = read_submission(each.body)
                kept = without_notices(items)
                if len(kept) < len(items) and each.at_ms >= self._unix_ms() - AGAIN_WITHIN_MS:
                    self._nursery.start_soon(send_notices, self.broker_log, name, items)
                on_done: Callable[[LedgerResult], None] = _ignore
                if (waiting := pending.get(each.fact)) is not None:
                    on_done = self._reports_added(name, each.fact, waiting.at_ms, items, _ignore)
                else:
                    kept = tuple(item for item in kept if not isinstance(item, OutboxEntry))
                if each.fact > applied and kept and not await self._apply(kept, keys, on_done):
                    return False
                fact = each.fact
                self._take(name, fact, each.body, items, keys)
        await super().flush()
        self.busy.discard(name)
        if self.load is not None and await self.load(name):
            self.busy.add(name)
        shared = self._logs[name] = SharedLog(RoomLog(self._engine, name, granted), has_work)
        self._nursery.start_soon(self._write, shared)
        return True

    async def _open_for_all(self, granted: Granted, nursery: trio.Nursery) -> bool:
        """Write the broker's log from now on. What the engine has lost of it, it gets from the copy."""
        followed = self.broker_log
        await followed.catch_up()
        checkpoints = LogCheckpoints(self._engine, followed, self.ask, SUBMISSION_KIND, self._unix_ms)
        if granted.is_new:
            await checkpoints.name(granted.fence)
        if followed.is_filling or followed.has_lost:
            await followed.complete()
            checkpoints.begin_anew(is_new=False)
        if followed.on_owned is not None:
            await followed.on_owned()
        shared = SharedLog(RoomLog(self._engine, BROKER_LOG, granted), True)
        for row in (await self._begin_reports(BROKER_LOG))[0].values():
            self._outbox.added(BROKER_LOG, row.fact, row.at_ms, row.reports)
            if not await self._apply(row.reports, (), _ignore):
                return False
        self._logs[BROKER_LOG] = shared
        followed.keeps_reports = True
        nursery.start_soon(self._write_for_all, shared, checkpoints, nursery)
        if followed.begun_at > 1:
            nursery.start_soon(checkpoints.cut, shared.end, followed.begun_at)
        return True

    def _on_checkpoint(self) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._remove_marks)

    async def _remove_marks(self) -> None:
        """Remove the marks of keys of the broker's log that are not kept any more."""
        removals = await self.ask(lambda reader: list(islice(read_key_marks(reader), MAX_MARKS)))
        if removals:
            super().record(removals, _ignore)

    def go_on(self, name: str, granted: Granted) -> bool:
        """Write a room under another fence of this node; False: the engine has lost some of it."""
        shared = self._logs.get(name)
        if shared is None:
            return False
        is_whole = shared.end.go_on(granted)
        shared.work.set()
        return is_whole or name in self._bodies or name == BROKER_LOG

    async def settle(self, name: str) -> None:
        """Wait until what was submitted for a room is written, for `SETTLE_S` at most."""
        with trio.move_on_after(SETTLE_S):
            while self._is_unsettled(name):  # noqa: ASYNC110 - as in `flush`
                await trio.sleep(0.01)

    def _is_unsettled(self, name: str) -> bool:
        shared = self._logs.get(name)
        return shared is not None and (bool(shared.waiting) or not self._outbox.is_settled(name))

    def has_work(self, name: str) -> bool:
        """Return whether the engine names a room of this node as one that has work."""
        shared = self._logs.get(name)
        return shared is not None and shared.has_work

    async def note_idle(self, name: str) -> None:
        """Note that the activities of a room have nothing to do: no node has to claim it for them."""
        shared = self._logs.get(name)
        if shared is None or not shared.has_work or shared.waiting:
            return
        shared.has_work = False  # what is submitted from here on notes it anew
        ids = [each.id for each in await read_outbox(self._engine, name) if each.topic == WORK_TOPIC]
        await self._engine.remove_outbox(name, shared.end.fence, ids)

    def is_busy(self, name: str) -> bool:
        """Return whether the activities of a room had something to do when this node became its owner."""
        return name in self.busy

    def close(self, name: str) -> None:
        """Write no more for a room: what waits is refused."""
        self.busy.discard(name)
        shared = self._logs.pop(name, None)
        self._drop_bodies(name)
        self._end_reports(name)
        if shared is not None:
            shared.end.close()
            shared.work.set()

    def _end_reports(self, name: str) -> None:
        if name == BROKER_LOG:
            self.broker_log.keeps_reports = False
        left = self._outbox.end(name)
        if left[0] and self._nursery is not None:
            self._left[name] = left
            self._nursery.start_soon(self._leave_later, name)

    def _reports_added(
        self, name: str, fact: int, at_ms: int, items: Sequence[Item], on_done: Callable[[LedgerResult], None]
    ) -> Callable[[LedgerResult], None]:
        """Take that the engine has a row for the reports of a fact; return what gets the result of the copy."""
        reports = reports_in(items)
        if not reports:
            return on_done
        self._outbox.added(name, fact, at_ms, reports)

        def taken(result: LedgerResult) -> None:
            if not isinstance(result, Committed):
                self._outbox.done(reports)  # an earlier fact with the same key has them
            on_done(result)

        return taken

    async def _apply(self, items: tuple[Item, ...], keys: tuple[Key, ...], on_done: Callable[..., None]) -> bool:
        """Take a submission into the copy; False: the copy cannot be written any more."""
        submitted = super().record(items, on_done, keys)
        if submitted is SubmitResult.FULL:
            await super().flush()
            submitted = super().record(items, on_done, keys)
        await trio.lowlevel.checkpoint()
        return submitted is SubmitResult.QUEUED

    async def _write(self, shared: SharedLog) -> None:
        """Append what waits, group by group, until the room is another node's."""
        end = shared.end
        while end.is_open:
            if end.lost_after >= 0:
                if not await self._write_again(shared, end.lost_after):
                    break
                continue
            if not shared.waiting:
                shared.work = trio.Event()
                await shared.work.wait()
                continue
            group = first_group(shared)
            if not await self._append(shared, group):
                if end.lost_after >= 0:
                    continue
                break
            for waiting in group:
                shared.waiting.popleft()
                number = self._applied.get(end.room, 0) + 1
                self._take(end.room, number, waiting.body, waiting.items, waiting.keys)
                kept = without_notices(waiting.items)
                if len(kept) < len(waiting.items) and self._nursery is not None:
                    self._nursery.start_soon(send_notices, self.broker_log, end.room, waiting.items)
                on_done = self._reports_added(end.room, number, self._unix_ms(), waiting.items, waiting.on_done)
                if not await self._apply(kept, waiting.keys, on_done):
                    waiting.on_done(LedgerError(FailureKind.CLOSED, "the copy of the log cannot be written"))
                self._queued -= 1
            shared.nbytes = sum(len(each.body) for each in shared.waiting)
            await self._remove_replaced(end)
        self._refuse(shared)

    async def _write_for_all(self, shared: SharedLog, checkpoints: LogCheckpoints, nursery: trio.Nursery) -> None:
        """Append what waits for the broker's log, and parts of its checkpoints, until the log is another node's."""
        end = shared.end

        def cut(begun_at: int) -> None:
            nursery.start_soon(checkpoints.cut, end, begun_at)

        while end.is_open:
            if end.lost_after >= 0:
                checkpoints.begin_anew(is_new=not end.lost_after)
                self._outbox.lost(BROKER_LOG)
                end.begin_again(end.lost_after)
            if checkpoints.is_due:
                is_written = await checkpoints.write(end, cut)
            elif not shared.waiting:
                shared.work = trio.Event()
                await shared.work.wait()
                continue
            else:
                is_written = True
            if is_written and shared.waiting and not checkpoints.holds_back:
                group = first_group(shared)
                is_written = await self._append(shared, group)
                if is_written:
                    for _ in group:
                        shared.waiting.popleft()
                    self._queued -= len(group)
            if not is_written and end.lost_after < 0:
                break
            self._engine.publish_room(BROKER_LOG, b"")
            self.broker_log.hint()
        self._refuse(shared)

    async def _write_again(self, shared: SharedLog, after: int) -> bool:
        """Write what the engine has lost of a room, from memory; False: it cannot be."""
        end, room = shared.end, shared.end.room
        bodies = self._bodies.get(room)
        if bodies is None:
            log.error("the engine has lost records of a room, and they are too many to be in memory", room=room)
            return False
        self._begin_log(room)
        self._outbox.lost(room)
        for number in [number for number in bodies if number <= after]:
            body = bodies.pop(number)
            self._take(room, number, body, *read_submission(body))
        end.begin_again(after)
        now_ms = self._unix_ms()
        outbox = [OutboxItem(WORK_TOPIC, "", "", now_ms, b"")] if shared.has_work and not after else []
        for group in groups(list(bodies.values())):
            before = end.fact
            if not await end.append([LogItem(None, SUBMISSION_KIND, now_ms, body) for body in group], outbox):
                log.error("a room that the engine has lost could not be written again", room=room)
                return False
            outbox = []
            for number, body in enumerate(group, before + 1):
                self._take(room, number, body, *read_submission(body))
        if not after:
            founding = b"%d" % end.fence
            while end.is_open:
                try:
                    refused = await self._engine.note(room, end.fence, founding)
                except EngineError:
                    await trio.sleep(AGAIN_S)
                else:
                    if refused is not None:
                        return False
                    break
            self._foundings[room] = founding
        log.error("the engine has lost its data: a room was written again", room=room, facts=len(bodies), after=after)
        return True

    async def _is_incomplete(self, room: str) -> bool:
        """Return whether a log without a note is one that was to be written again."""
        first = await self._engine.read_log(room, 0, 0, 1)
        return bool(first) and first[0].body == AGAIN

    async def _forget(self, room: str, digests: Sequence[bytes]) -> None:
        """Drop what the copy has of a room, or (with digests) those keys."""
        kinds = () if digests else tuple(ROOM_KINDS)
        await super().flush()
        super().record((RoomForgotten("" if digests else room, kinds, tuple(digests)),), _ignore)
        await super().flush()

    def _begin_log(self, room: str) -> None:
        """Begin to note the facts of a room's log, from the first one on."""
        self._drop_bodies(room)
        self._bodies[room] = {}
        self._replaced[room] = ReplacedFacts()

    def _drop_bodies(self, room: str) -> None:
        self._kept_bytes -= sum(map(len, self._bodies.pop(room, {}).values()))

    def _take(self, room: str, number: int, body: bytes, items: Sequence[Item], keys: Sequence[Key]) -> None:
        """Note that the copy has a fact of a room."""
        self._applied[room] = number
        self._replaced[room].add(number, items, keys)
        bodies = self._bodies.get(room)
        if bodies is None:
            return
        bodies[number] = body
        self._kept_bytes += len(body)
        if self._kept_bytes > MAX_KEPT_BYTES:
            log.warning("records of a room are not kept in memory: it cannot be written again", room=room)
            self._drop_bodies(room)

    async def _remove_replaced(self, end: RoomLog) -> None:
        """Remove facts of a room from the log that later ones replace, once they are many."""
        replaced = self._replaced.get(end.room)
        if replaced is None or len(replaced) < REPLACED_KEPT:
            return
        numbers = replaced.take(MAX_APPEND_ITEMS)
        try:
            await self._engine.remove_facts(end.room, end.fence, numbers)
        except EngineError:
            replaced.put_back(numbers)
            return
        bodies = self._bodies.get(end.room, {})
        for number in numbers:
            self._kept_bytes -= len(bodies.pop(number, b""))

    async def _append(self, shared: SharedLog, group: Sequence[WaitingSubmission]) -> bool:
        """Append a group; False: this node may not write any more."""
        now_ms = self._unix_ms()
        outbox: list[OutboxItem] = []
        if not shared.has_work and any(_is_of_activity(item) for waiting in group for item in waiting.items):
            shared.has_work = True
            outbox.append(OutboxItem(WORK_TOPIC, "", "", now_ms, b""))
        room = shared.end.room
        for number, waiting in enumerate(group, shared.end.fact + 1):
            reports = reports_in(read_fact(waiting.body)[2] if room == BROKER_LOG else waiting.items)
            if reports:
                outbox.append(report_row(room, number, now_ms, reports))
                if room == BROKER_LOG:
                    self._outbox.added(room, number, now_ms, reports)
        return await shared.end.append(
            [LogItem(None, SUBMISSION_KIND, now_ms, waiting.body) for waiting in group], outbox
        )

    def _refuse(self, shared: SharedLog) -> None:
        """Refuse what waits: this node does not own the room any more."""
        room = shared.end.room
        if self._logs.get(room) is shared:
            del self._logs[room]
            self._end_reports(room)
            self.on_lost(room)
        for waiting in shared.waiting:
            self._queued -= 1
            try:
                waiting.on_done(LedgerError(FailureKind.CLOSED, "another node owns the room"))
            except Exception:
                log.exception("a refusal could not be taken", room=room)
        shared.waiting.clear()


def _is_of_activity(item: Item) -> bool:
    return isinstance(item, Entry) and item.kind == ACTIVITY_FACTS


def _ignore(result: LedgerResult) -> None:
    """Take the result of a submission that was answered by an earlier owner."""
