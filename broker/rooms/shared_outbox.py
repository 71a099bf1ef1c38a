"""Reports (webhooks) of the logs that this node owns, as the engine has them until receivers have taken them.

The append of a fact that has reports writes one row to the outbox of its log. The owner of the log sends the reports
from its copy and removes the row once all of them are done. So the next owner finds what is left, and sends it with
the same ids: what was under way, or was taken and not yet removed, comes a second time.

A row of a room names the fact, which has the reports. A row of the broker's log has the reports themselves.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import structlog
import trio

from broker.engine.base import Engine, EngineError, OutboxItem, StoredOutboxItem
from broker.ledger import Item, LedgerReports, OutboxEntry, StoredOutbox
from broker.rooms.broker_log import BROKER_LOG
from broker.rooms.submissions import room_of_line
from protocol.frames import pack_body, unpack_body

__all__ = ["PendingReports", "ReportsOfOwner", "SharedOutbox", "is_pending", "read_outbox", "report_row", "reports_in"]

log = structlog.get_logger("roomcast.shared_ledger")

TOPIC = "reports"
PAGE = 200
"""Rows that are read or removed at a time."""
SWEEP_S = 600.0
"""Time between two looks for rows that are too old to be sent."""
AGAIN_S = 1.0


class PendingReports(NamedTuple):
    """A row of the engine's outbox: reports that are not done. ``reports``: none where the fact has them."""

    id: str
    fact: int
    at_ms: int
    reports: tuple[OutboxEntry, ...]


class _Row:
    """Reports of one fact that are not done, by digest."""

    __slots__ = ("at_ms", "left")

    def __init__(self, at_ms: int, left: Counter[bytes]) -> None:
        self.at_ms = at_ms
        self.left = left


class _Log:
    """The rows of one log of this node, by fact."""

    def __init__(self) -> None:
        self.rows: dict[int, _Row] = {}
        self.by_digest: dict[bytes, deque[int]] = {}
        self.lines: Counter[str] = Counter()
        self.ids: dict[int, str] = {}
        """Ids of the engine's rows, as far as they were read: up to ``last_id``."""
        self.last_id = ""
        self.done: list[int] = []
        """Facts whose rows are to be removed."""


class SharedOutbox:
    """Rows of all logs of this node. ``fence_of``: the fence of a log, None = it is not this node's; ``on_removed``
    gets a log and the facts whose reports are done; ``keep_ms``: age above which a report is not sent any more."""

    def __init__(
        self,
        engine: Engine,
        fence_of: Callable[[str], int | None],
        on_removed: Callable[[str, Sequence[int]], None],
        unix_ms: Callable[[], int],
        keep_ms: float,
    ) -> None:
        self._engine = engine
        self._fence_of = fence_of
        self._on_removed = on_removed
        self._unix_ms = unix_ms
        self._keep_ms = keep_ms
        self._logs: dict[str, _Log] = {}
        self._work = trio.Event()
        self._lost = 0

    def begin(self, name: str, rows: Sequence[StoredOutboxItem]) -> dict[int, PendingReports]:
        """Begin with a log that this node owns now, and what the engine has of it; return what is to be sent, by
        fact."""
        mine = self._logs[name] = _Log()
        pending: dict[int, PendingReports] = {}
        for row in map(_pending, filter(is_pending, rows)):
            mine.ids[row.fact] = row.id
            if row.at_ms < self._unix_ms() - self._keep_ms:
                mine.done.append(row.fact)
            else:
                pending[row.fact] = row
        mine.last_id = rows[-1].id if rows else ""
        self._work.set()
        return pending

    def added(self, name: str, fact: int, at_ms: int, reports: Sequence[OutboxEntry]) -> None:
        """Take that the engine has a row with the reports of a fact, which are sent from now on."""
        mine = self._logs.get(name)
        if mine is None:
            return
        mine.rows[fact] = _Row(at_ms, Counter(map(_digest, reports)))
        for each in reports:
            mine.by_digest.setdefault(_digest(each), deque()).append(fact)
            mine.lines.update((each.line,))

    def done(self, reports: Iterable[StoredOutbox | OutboxEntry]) -> None:
        """Take that reports were taken, dropped, or are in no outbox."""
        for report in reports:
            name = room_of_line(report.line)
            name = name if name in self._logs else BROKER_LOG
            mine, digest = self._logs.get(name), _digest(report)
            facts = None if mine is None else mine.by_digest.get(digest)
            if mine is None or not facts:
                continue
            fact = facts.popleft()
            if not facts:
                del mine.by_digest[digest]
            mine.lines.subtract((report.line,))
            row = mine.rows[fact]
            row.left[digest] -= 1
            if not any(row.left.values()):
                self._finish(mine, fact)

    def end(self, name: str) -> tuple[tuple[str, ...], Callable[[StoredOutbox], bool]]:
        """End with a log, which is another node's; return the lines of the reports that this node sends no more, and
        which of those in the lines they are."""
        mine = self._logs.pop(name, None) or _Log()
        return tuple(+mine.lines), lambda report: _digest(report) in mine.by_digest

    def lost(self, name: str) -> None:
        """Take that the engine has lost rows of a log: their reports are sent by this node, or by none."""
        mine = self._logs.get(name)
        if mine is None:
            return
        others = {fact: -number for number, fact in enumerate(mine.rows, self._lost + 1)}
        self._lost += len(others)
        mine.rows = {others[fact]: row for fact, row in mine.rows.items()}
        for facts in mine.by_digest.values():
            facts.extend([others[facts.popleft()] for _ in range(len(facts))])
        mine.ids, mine.last_id, mine.done = {}, "", []

    def is_settled(self, name: str) -> bool:
        """Return whether the engine has no row of a log whose reports are done."""
        return name not in self._logs or not self._logs[name].done

    async def run(self) -> None:
        """Remove rows whose reports are done, until cancelled."""
        while True:
            with trio.move_on_after(SWEEP_S) as waiting:
                await self._work.wait()
            self._work = trio.Event()
            if waiting.cancelled_caught:
                self._finish_old()
            for name in [name for name, mine in self._logs.items() if mine.done]:
                try:
                    await self._remove(name)
                except EngineError as error:
                    log.info("reports that are done cannot be removed now", room=name, why=str(error))
                    await trio.sleep(AGAIN_S)
                    self._work.set()

    def _finish(self, mine: _Log, fact: int) -> None:
        del mine.rows[fact]
        mine.done.append(fact)
        self._work.set()

    def _finish_old(self) -> None:
        before_ms = self._unix_ms() - self._keep_ms
        for mine in self._logs.values():
            for fact in [fact for fact, row in mine.rows.items() if row.at_ms < before_ms]:
                for digest in mine.rows[fact].left:
                    mine.by_digest.pop(digest, None)
                self._finish(mine, fact)

    async def _remove(self, name: str) -> None:
        mine = self._logs[name]
        facts = mine.done[:PAGE]
        while not all(fact in mine.ids for fact in facts):
            rows = await self._engine.read_outbox(name, mine.last_id, PAGE)
            if not rows:
                break  # the engine has lost them
            for row in rows:
                mine.last_id = row.id
                if is_pending(row):
                    mine.ids[_pending(row).fact] = row.id
        fence = self._fence_of(name)
        if fence is None:
            return
        ids = [mine.ids[fact] for fact in facts if fact in mine.ids]
        if ids and await self._engine.remove_outbox(name, fence, ids) is not None:
            return  # it is another node's
        del mine.done[: len(facts)]
        for fact in facts:
            mine.ids.pop(fact, None)
        self._on_removed(name, facts)
        if mine.done:
            self._work.set()


class ReportsOfOwner(LedgerReports):
    """Reports of what the copies of all nodes do by themselves: one node has them. ``owns``: whether this node owns a
    log; called in the ledger's thread."""

    def __init__(self, reports: LedgerReports, owns: Callable[[str], bool]) -> None:
        self._reports = reports
        self._owns = owns

    def direct_expired(self, user: str, direct_id: int, batch: str, at_ms: int) -> Sequence[OutboxEntry]:
        """See `LedgerReports.direct_expired`."""
        return self._reports.direct_expired(user, direct_id, batch, at_ms) if self._owns(BROKER_LOG) else ()

    def room_ended_idle(self, room: str, epoch: int, at_ms: int) -> Sequence[OutboxEntry]:
        """See `LedgerReports.room_ended_idle`."""
        return self._reports.room_ended_idle(room, epoch, at_ms) if self._owns(room) else ()


def reports_in(items: Sequence[Item]) -> tuple[OutboxEntry, ...]:
    """Return the reports of a submission."""
    return tuple(item for item in items if isinstance(item, OutboxEntry))


def report_row(name: str, fact: int, at_ms: int, reports: Sequence[OutboxEntry]) -> OutboxItem:
    """Return the row of the reports of a fact."""
    return OutboxItem(TOPIC, "", "", at_ms, pack_body((fact, tuple(reports) if name == BROKER_LOG else ())))


def is_pending(row: StoredOutboxItem) -> bool:
    """Return whether a row of the engine's outbox is of reports."""
    return row.topic == TOPIC


async def read_outbox(engine: Engine, name: str) -> list[StoredOutboxItem]:
    """Return all rows that the engine has of a log."""
    found: list[StoredOutboxItem] = []
    while page := await engine.read_outbox(name, found[-1].id if found else "", PAGE):
        found += page
    return found


def _pending(row: StoredOutboxItem) -> PendingReports:
    fact, reports = unpack_body(row.body)
    return PendingReports(row.id, fact, row.at_ms, tuple(OutboxEntry(*each) for each in reports))


def _digest(report: StoredOutbox | OutboxEntry) -> bytes:
    return hashlib.blake2b(report.body, digest_size=16, key=hashlib.sha256(report.endpoint.encode()).digest()).digest()
