"""Erasure of users: resumable jobs that leave nothing of a user in memory, in the ledger, and in later backups.

A job is a record of the ledger, so it goes on after a restart, at the place where it was. It ends the user's
connections, revokes the user's tokens, and then takes turns: what rooms and inboxes hold in memory, then every table of
the ledger, a page a commit, until a turn has found nothing. Its last commit writes the fact `UserErased` and takes the
user's id out of the job's own record. At the end the database is rebuilt once for all jobs that wait for it
(`Ledger.scrub`): what was removed is then in no page of the file either.

One job runs at a time; at most `MAX_WAITING` wait.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
import trio

from broker.core.commerce.activity import ErasedUser
from broker.core.rooms.erasure import Erasure
from broker.core.tenants.names import plain_name, qualify, split_name, tenant_of
from broker.ledger import (
    Entry,
    Item,
    Ledger,
    LedgerRefused,
    Reader,
    RecordPut,
    RecordRemoved,
    RoomCheckpointed,
    StoredRecord,
)
from broker.ledger.erasures import USER_ERASED, UserErased, pack_erased
from broker.ledger.mentions import StoredCheckpoint, checkpoints_with
from broker.ledger.records import read_records
from broker.operations.caller import OperationError
from broker.operations.erased_rows import (
    ERASURE_KIND,
    Page,
    answers_page,
    copies_page,
    directs_page,
    entries_page,
    outbox_page,
    records_page,
)
from broker.operations.kept import ask, keep, later
from broker.rooms.erased_rooms import erase_in_checkpoint
from broker.rooms.hub import Hub
from broker.rooms.room_store import RoomStore
from broker.users.inbox import Inboxes
from broker.users.registry import UserRegistry
from broker.users.revocations import Revocations
from broker.users.talk import Talk
from protocol.codes import CloseCode, ErrorCode
from protocol.frames import pack_body
from protocol.operations.users import ErasureState

__all__ = ["ErasureJob", "Erasures"]

log = structlog.get_logger("roomcast.erasures")

MAX_WAITING = 1000
MAX_DONE = 10_000
"""Finished jobs whose state is known."""
RETRY_S = 1.0
TURN_S = 0.05
"""Between two turns, for what the ledger has to answer first."""
SLICE = 50
"""Rooms between two checkpoints of the event loop."""
_TABLES: tuple[tuple[Callable[..., Page], Any], ...] = (
    (outbox_page, 0), (answers_page, b""), (directs_page, 0), (copies_page, 0),
    (records_page, ("", "", "")),
)  # fmt: skip
"""How each table is read, and the place before its first row. Any: a place."""


@dataclass(frozen=True, slots=True)
class ErasureJob:
    """One erasure. ``user``: qualified id, "" once all is redacted; ``by``: the account that has asked for it;
    ``after``: the last entry that was inspected; ``entries``: how many were redacted."""

    id: str
    tenant: str
    user: str
    pseudonym: str
    by: str
    asked_at_ms: int
    state: ErasureState = ErasureState.REDACTING
    after: int = 0
    entries: int = 0
    done_at_ms: int = 0

    @property
    def record(self) -> RecordPut:
        """The job as a record."""
        body = (
            self.user, self.pseudonym, self.by, self.asked_at_ms, int(self.state), self.after, self.entries,
            self.done_at_ms,
        )  # fmt: skip
        return RecordPut(ERASURE_KIND, qualify(self.tenant, self.id), "", self.asked_at_ms, pack_body(body))


class Erasures:
    """All erasures of one broker. `run` is the task that does them."""

    def __init__(
        self,
        ledger: Ledger,
        hub: Hub,
        rooms: RoomStore,
        users: UserRegistry,
        inboxes: Inboxes,
        revocations: Revocations,
        unix_ms: Callable[[], int],
        talk: Talk | None = None,
    ) -> None:
        self._ledger = ledger
        self._hub = hub
        self._rooms = rooms
        self._users = users
        self._inboxes = inboxes
        self._revocations = revocations
        self._unix_ms = unix_ms
        self._talk = talk
        self._jobs: OrderedDict[tuple[str, str], ErasureJob] = OrderedDict()
        self._wake = trio.Event()
        self._is_scrubbing = False
        self._active = ""
        """Id of the job that is being done."""

    async def load(self) -> None:
        """Take over the jobs of the last run. At the start."""
        for job in await self._ledger.ask(_read_jobs):
            self._jobs[job.tenant, job.id] = job
        self._tell_rooms()

    def find(self, tenant: str, id: str) -> ErasureJob | None:
        """Return a job of a tenant."""
        return self._jobs.get((tenant, id))

    @property
    def unfinished(self) -> int:
        """Jobs that are not done."""
        return sum(job.state is not ErasureState.DONE for job in self._jobs.values())

    async def begin(self, user: str, by: str) -> ErasureJob:
        """Return the job that erases a user (qualified id): the one that is under way, or a new one.

        OperationError OVERLOADED where too many wait, or the ledger cannot take it.
        """
        waiting = self._in_state(ErasureState.REDACTING)
        for job in waiting:
            if job.user == user:
                return job
        if len(waiting) >= MAX_WAITING:
            raise OperationError(ErrorCode.OVERLOADED, "too many erasures wait", "", 60_000)
        tenant = tenant_of(user)
        pseudonym = f"erased-{secrets.token_hex(8)}"
        job = ErasureJob(secrets.token_hex(8), tenant, user, pseudonym, by, self._unix_ms())
        await self._write(job)
        log.info("erasure begun", job=job.id, by=by)
        self._wake.set()
        return job

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do the jobs until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._wake = trio.Event()
                if self._in_state(ErasureState.SCRUBBING) and not self._is_scrubbing:
                    self._is_scrubbing = True
                    nursery.start_soon(self._scrub)
                waiting = self._in_state(ErasureState.REDACTING)
                if waiting:
                    await self._attempt(waiting[0])
                else:
                    await self._wake.wait()

    def _in_state(self, state: ErasureState) -> list[ErasureJob]:
        return [job for job in self._jobs.values() if job.state is state]

    async def _write(self, job: ErasureJob, *items: Item) -> None:
        """Make a job as it is now durable, together with what it has to write."""
        await keep(self._ledger, (*items, job.record))
        self._jobs[job.tenant, job.id] = job
        self._tell_rooms()

    def _tell_rooms(self) -> None:
        """Let activities be read without the users whose erasure has begun: the ledger has some of their facts with
        the user and some without."""
        begun = (job for job in self._in_state(ErasureState.REDACTING) if job.after or job.id == self._active)
        self._rooms.erasing = tuple((job.tenant, ErasedUser(plain_name(job.user), job.pseudonym)) for job in begun)

    # ---- what is kept now

    async def _attempt(self, job: ErasureJob) -> None:
        """Do a job; where it fails it goes on later, after the others that wait."""
        try:
            with self._revocations.refusing(job.user):
                await self._redact(job)
            return
        except OperationError as error:
            log.warning("an erasure has to wait", job=job.id, why=str(error))
        except Exception:
            log.exception("an erasure has failed and is tried again", job=job.id)
        self._jobs.move_to_end((job.tenant, job.id))
        await trio.sleep(RETRY_S)

    async def _redact(self, job: ErasureJob) -> None:
        self._active = job.id
        self._tell_rooms()
        erasure = Erasure(job.tenant, plain_name(job.user), job.pseudonym)
        if not await self._revocations.erase(job.tenant, erasure.user, job.asked_at_ms):
            raise later()
        sessions: tuple[Any, ...] = self._users.sessions(job.user)
        for session in sessions:
            session.close(CloseCode.KICKED, "erased by the platform")
        while True:
            is_done = await self._erase_memory(erasure)
            await self._write(job)  # the ledger answers in order: what was submitted before is in it then
            job, has_found = await self._erase_tables(job, erasure)
            if is_done and not has_found:
                break
            await trio.sleep(TURN_S)
        now_ms = self._unix_ms()
        fact = UserErased(job.tenant, job.pseudonym, job.by, job.asked_at_ms, job.entries)
        entry = Entry("", 0, None, USER_ERASED, now_ms, pack_erased(fact))
        await self._write(replace(job, user="", state=ErasureState.SCRUBBING), entry)
        log.info("user erased", job=job.id, entries=job.entries)

    async def _erase_memory(self, erasure: Erasure) -> bool:
        """Erase what is in memory; return whether that is done, or has to be called again."""
        user = erasure.qualified
        self._inboxes.forget(user)
        if self._talk is not None:
            self._talk.erase(erasure.tenant, erasure.user)
        self._hub.sanctions.forget(user)
        self._hub.preferences.forget(user)
        if self._rooms.reports is not None:
            self._rooms.reports.erase(erasure)
        is_done = True
        for number, room in enumerate(self._hub, 1):
            if tenant_of(room.name) == erasure.tenant:
                is_done &= self._hub.erase(room, erasure)
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
        for number, name in enumerate(self._rooms.names(), 1):
            if tenant_of(name) == erasure.tenant:
                erase_in_checkpoint(self._rooms, name, erasure, self._unix_ms())
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
        return is_done

    async def _erase_tables(self, job: ErasureJob, erasure: Erasure) -> tuple[ErasureJob, bool]:
        """Erase what the ledger has; return the job, further on, and whether there was anything."""
        has_found = False
        is_end = False
        while not is_end:
            kinds, now_ms = self._rooms.kinds, self._unix_ms()
            page, is_end = await ask(self._ledger, entries_page, erasure, kinds, now_ms, job.after)
            job = replace(job, after=page.place, entries=job.entries + page.redacted)
            if page.items:
                has_found = True
                await self._write(job, *page.items)
        for read, place in _TABLES:
            while place is not None:
                page = await ask(self._ledger, read, erasure, self._unix_ms(), place)
                place = page.place
                if page.items:
                    has_found = True
                    await keep(self._ledger, page.items)
        stream: int | None = 0
        while stream is not None:
            checkpoints, stream = await ask(self._ledger, checkpoints_with, erasure.user, stream)
            for checkpoint in checkpoints:
                has_found |= await self._erase_checkpoint(checkpoint, erasure)
        return job, has_found

    async def _erase_checkpoint(self, checkpoint: StoredCheckpoint, erasure: Erasure) -> bool:
        """Erase a checkpoint of the ledger; return whether there was anything. Rooms in memory write their own."""
        room, epoch, used_at_ms, before = checkpoint
        after = erasure.totals(before) if tenant_of(room) == erasure.tenant else before
        if after == before:
            return False
        if self._hub.epoch_of(room) != epoch:
            await keep(self._ledger, (RoomCheckpointed(room, epoch, used_at_ms, after),))
        return True

    # ---- what is left in the file

    async def _scrub(self) -> None:
        """Let the ledger rebuild its file for all jobs that wait for it."""
        try:
            while jobs := self._in_state(ErasureState.SCRUBBING):
                try:
                    await self._ledger.scrub()
                    for job in jobs:
                        await self._write(replace(job, state=ErasureState.DONE, done_at_ms=self._unix_ms()))
                    await self._forget_done()
                except (OperationError, LedgerRefused) as error:
                    log.warning("an erasure has to wait for its end", why=str(error))
                    await trio.sleep(RETRY_S)
        finally:
            self._is_scrubbing = False

    async def _forget_done(self) -> None:
        done = sorted(self._in_state(ErasureState.DONE), key=lambda job: job.done_at_ms)
        for job in done[: max(0, len(done) - MAX_DONE)]:
            await keep(self._ledger, (RecordRemoved(*job.record[:3]),))
            del self._jobs[job.tenant, job.id]


def _read_jobs(reader: Reader) -> list[ErasureJob]:
    """Return all recorded jobs, in the order in which they were asked for. Runs in the ledger's reading thread."""
    return sorted(read_records(reader, ERASURE_KIND, _job), key=lambda job: job.asked_at_ms)


def _job(record: StoredRecord, body: Sequence[Any]) -> ErasureJob:
    tenant, id = split_name(record.subject)
    user, pseudonym, by, asked_at_ms, state, *more = body
    return ErasureJob(id, tenant, user, pseudonym, by, asked_at_ms, ErasureState(state), *more[:3])
