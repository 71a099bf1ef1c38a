"""Delivery to one endpoint: what waits in the ledger's outbox is posted in the order of its lines, until it is taken.

One task reads pages, one waits for what is due, and each delivery is a task of its own, at most ``max_connections``.
What came of a delivery goes to the ledger in groups: as long as one group is on its way, the next gathers. So position
and attempts survive a crash; what was delivered and not yet written is delivered again, with the same id.

A receiver that fails is tried again with growing waits, and after several failures in a row by one delivery at a time.
What is too old when it fails becomes a dead letter, with the reason, and its line goes on.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import structlog
import trio

from broker.config.webhooks import EndpointConfig
from broker.core.webhooks.breaker import Breaker, BreakerState
from broker.core.webhooks.lines import Lines
from broker.core.webhooks.retry import RetrySchedule
from broker.ledger import (
    Item,
    Ledger,
    LedgerError,
    LedgerRefused,
    LedgerResult,
    OutboxCounts,
    OutboxDone,
    OutboxLater,
    Reader,
    StoredOutbox,
    SubmitResult,
)
from broker.webhooks.events import event_body, event_id
from broker.webhooks.sender import SendFailure, WebhookReply, WebhookSender

__all__ = ["DeliverySettings", "EndpointDeliveries", "describe_reply"]

log = structlog.get_logger("roomcast.webhooks")

PAGE_BYTES = 1024 * 1024
READ_AGAIN_S = 1.0
"""After a read that failed; and how often results are submitted again that the ledger could not take."""
MAX_UNWRITTEN = 5000
"""Results that the ledger has not taken: beyond, nothing more is delivered, for it would be delivered again."""
GROUP = 900
"""Results of one submission."""
GONE = 410
HEEDED = frozenset({429, 503})
"""Statuses with which ``Retry-After`` counts."""
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How an endpoint is served.

    ``max_dead_bytes``: bodies of its dead letters; beyond, the oldest are removed.
    """

    schedule: RetrySchedule
    timeout_s: float
    max_in_flight: int
    max_dead_bytes: int


class EndpointDeliveries:
    """Deliveries to one endpoint. Counters only grow.

    ``run`` until cancelled; `maintain` reads the ledger, all other methods are synchronous. Times are milliseconds of
    Trio's clock, so that a leap of the wall clock delays nothing.
    """

    def __init__(
        self,
        endpoint: EndpointConfig,
        sender: WebhookSender,
        ledger: Ledger,
        settings: DeliverySettings,
        unix_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self.endpoint = endpoint
        self.sender = sender
        self.delivered = 0
        self.failures = 0
        """Attempts that failed."""
        self.dead = 0
        """Reports that were given up."""
        self.dead_removed = 0
        """Dead letters removed because all together were too large."""
        self.counts = OutboxCounts(0, 0, 0, 0)
        """What the ledger has, some seconds ago."""
        self.last_failure = ""
        self.breaker = Breaker(settings.schedule, rng)
        self._ledger = ledger
        self._settings = settings
        self._schedule = settings.schedule
        self._unix_ms = unix_ms
        self._rng = rng
        self._lines: Lines[StoredOutbox] = Lines()
        self._attempts: dict[int, int] = {}
        """Of rows that have failed in this run."""
        self._gone: set[int] = set()
        """Rows that were dropped while a page was being read."""
        self._unwritten: list[Item] = []
        self._is_writing = False
        self._nursery: trio.Nursery | None = None
        self._readable = trio.Event()
        self._timed = trio.Event()
        self._armed_ms = inf
        """When `_wait_due` starts the next delivery."""

    @property
    def in_flight(self) -> int:
        """Deliveries under way."""
        return self._lines.in_flight

    # ---- tasks

    async def run(self) -> None:
        """Deliver until cancelled; what came of the last deliveries is submitted then. May be run again."""
        self._lines = Lines()
        self._attempts.clear()
        self.breaker.gave_up()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._read_pages)
                nursery.start_soon(self._wait_due)
        finally:
            self._nursery = None
            self._write()

    def wake(self) -> None:
        """The ledger may have new rows: read on."""
        self._lines.wake()
        self._write()
        self._readable.set()
        self._timed.set()

    async def _read_pages(self) -> None:
        while True:
            read = self._lines.next_read()
            if read is None:
                self._readable = trio.Event()
                await self._readable.wait()
                continue
            self._gone.clear()
            try:
                rows, is_all = await self._ledger.ask(
                    Reader.outbox_waiting, self.endpoint.name, read.after, read.limit, PAGE_BYTES, read.line
                )
            except (LedgerRefused, sqlite3.Error) as error:
                log.warning("webhooks: the outbox cannot be read", endpoint=self.endpoint.name, why=str(error))
                self._lines.failed_read(read)
                await trio.sleep(READ_AGAIN_S)
            else:
                kept = [self._timed_row(row) for row in rows if row.id not in self._gone]
                self._lines.add(read, kept, is_all)
                self._pump()

    def _timed_row(self, row: StoredOutbox) -> StoredOutbox:
        """Return a row whose time is of Trio's clock; a wait that was stored is never longer than any can be."""
        if not row.attempts or row.due_at_ms is None:
            return row._replace(due_at_ms=0)
        wait_ms = min(row.due_at_ms - self._unix_ms(), max(self._schedule.longest_ms, self._schedule.max_wait_ms))
        return row._replace(due_at_ms=_now_ms() + wait_ms if wait_ms > 0 else 0)

    async def _wait_due(self) -> None:
        """Start deliveries when their time has come, or the breaker's."""
        while True:
            self._armed_ms = self._next_start_ms()
            self._timed = trio.Event()
            with trio.move_on_at(self._armed_ms / 1000):
                await self._timed.wait()
            self._armed_ms = -inf
            self._pump()

    def _next_start_ms(self) -> float:
        """Return when the next delivery may start if nothing else happens."""
        breaker_ms = self.breaker.due_ms
        if breaker_ms is None or not self._has_space:
            return inf
        return max(self._lines.next_due_ms(), breaker_ms)

    @property
    def _has_space(self) -> bool:
        """Whether one more delivery may be under way."""
        is_open = self._lines.in_flight < self._settings.max_in_flight and len(self._unwritten) < MAX_UNWRITTEN
        return is_open and self._ledger.may_report

    def _next_row(self) -> StoredOutbox | None:
        """Return a delivery that starts now; None if none may."""
        now_ms = _now_ms()
        if (
            self._nursery is not None
            and self._has_space
            and self._lines.next_due_ms() <= now_ms
            and self.breaker.try_start(now_ms)
        ):
            return self._lines.start(now_ms)
        return None

    def _pump(self) -> None:
        """Start what may start now, and wake the tasks that have something to do."""
        while (row := self._next_row()) is not None:
            assert self._nursery is not None
            self._nursery.start_soon(self._deliver, row)
        if self._lines.wants_read:
            self._readable.set()
        if self._next_start_ms() < self._armed_ms:
            self._timed.set()

    async def _deliver(self, first: StoredOutbox) -> None:
        """Make one delivery, then others as long as any is due: a task for each would cost more."""
        row: StoredOutbox | None = first
        while row is not None:
            await self._deliver_one(row)
            row = self._next_row()
        self._pump()

    async def _deliver_one(self, row: StoredOutbox) -> None:
        try:
            reply = await self.sender.post(event_id(row), event_body(row), self._settings.timeout_s)
        except Exception:
            log.exception("webhooks: a delivery failed by a defect", endpoint=self.endpoint.name, row=row.id)
            reply = WebhookReply(0, failure=SendFailure.BROKEN, detail="a defect of the broker")
        if reply.is_success:
            self._on_success(row)
        else:
            self._on_failure(row, reply)
        self._write()
        if self._lines.wants_read:
            self._readable.set()

    # ---- results

    def _on_success(self, row: StoredOutbox) -> None:
        self.delivered += 1
        was_closed = self.breaker.state is BreakerState.CLOSED
        self.breaker.succeeded()
        self._end(row, OutboxDone((row.id,)))
        self._ledger.reports_done((row,))
        if not was_closed and self.breaker.state is BreakerState.CLOSED:
            log.info("webhooks: the endpoint works again", endpoint=self.endpoint.name)
            self._lines.retry_now()

    def _on_failure(self, row: StoredOutbox, reply: WebhookReply) -> None:
        now_ms = _now_ms()
        self.failures += 1
        reason = self.last_failure = describe_reply(reply)
        retry_after_ms = None
        if reply.retry_after_s is not None and reply.status in HEEDED:
            retry_after_ms = round(reply.retry_after_s * 1000)
        was_closed = self.breaker.state is BreakerState.CLOSED
        self.breaker.failed(now_ms, retry_after_ms)
        if reply.status == GONE:
            self.breaker.disable()
            log.error("webhooks: the endpoint is gone and gets nothing more", endpoint=self.endpoint.name)
        elif was_closed and self.breaker.state is BreakerState.OPEN:
            log.warning("webhooks: the endpoint fails", endpoint=self.endpoint.name, why=reason)
        attempts = self._attempts.get(row.id, row.attempts) + 1
        if self._schedule.is_over(row.at_ms, self._unix_ms()):
            self._give_up(row, attempts, reason)
        else:
            self._attempts[row.id] = attempts
            wait_ms = self._schedule.wait_ms(attempts, self._rng, retry_after_ms)
            self._unwritten.append(OutboxLater(row.id, attempts, self._unix_ms() + wait_ms, reason))
            self._lines.failed(row, now_ms + wait_ms)
        since_ms = self.breaker.failing_since_ms
        if since_ms is not None and now_ms - since_ms >= self._schedule.retry_for_ms:
            self._give_up_old(reason)

    def _give_up_old(self, reason: str) -> None:
        """Give up what is as old as the endpoint has been failing: each would have to fail by itself otherwise."""
        while (row := self._lines.start(1 << 62)) is not None:
            if not self._schedule.is_over(row.at_ms, self._unix_ms()):
                self._lines.failed(row, _now_ms())
                return
            self._give_up(row, self._attempts.get(row.id, row.attempts), reason)

    def _give_up(self, row: StoredOutbox, attempts: int, reason: str) -> None:
        self.dead += 1
        self._end(row, OutboxLater(row.id, attempts, None, reason))

    def _end(self, row: StoredOutbox, item: Item) -> None:
        self._attempts.pop(row.id, None)
        self._unwritten.append(item)
        self._lines.finished(row)

    def _write(self) -> None:
        """Submit what came of deliveries; while one submission is on its way the next gathers."""
        if self._unwritten and not self._is_writing:
            group = self._unwritten[:GROUP]

            def on_done(result: LedgerResult) -> None:
                self._is_writing = False
                if isinstance(result, LedgerError):
                    self._unwritten[:0] = group
                else:
                    self._write()
                    self._pump()

            self._is_writing = True
            if self._ledger.record(_joined(group), on_done) is SubmitResult.QUEUED:
                del self._unwritten[: len(group)]
            else:
                self._is_writing = False

    # ---- operations and maintenance

    def drop(self, ids: list[int]) -> None:
        """Deliver these no more; the caller removes them from the ledger."""
        self._gone.update(ids)
        self._lines.drop(ids)
        for each in ids:
            self._attempts.pop(each, None)
        self._pump()

    def enable(self) -> None:
        """Try again at once, also where the receiver was gone."""
        self.breaker.enable()
        self._lines.retry_now()
        self._pump()

    async def maintain(self) -> None:
        """Count what the ledger has, and remove the oldest dead letters where they are too many. LedgerRefused."""
        name = self.endpoint.name
        self.counts = await self._ledger.ask(Reader.outbox_counts, name)
        excess = self.counts.dead_bytes - self._settings.max_dead_bytes
        if excess > 0:
            page = await self._ledger.ask(Reader.outbox_page, name, True, 0, GROUP)
            removed = []
            for row in page:
                if excess <= 0:
                    break
                excess -= len(row.body)
                removed.append(row)
            self.dead_removed += len(removed)
            self._unwritten.append(OutboxDone(tuple(row.id for row in removed)))
            self._ledger.reports_done(removed)
            self._write()


def describe_reply(reply: WebhookReply) -> str:
    """Return in words what came of a request; what the receiver wrote is not repeated."""
    if reply.failure is None:
        return f"status {reply.status}"
    return f"{reply.failure}: {reply.detail}"[:MAX_REASON]


def _joined(items: list[Item]) -> list[Item]:
    """Return the same items with neighbours of one kind as one."""
    joined: list[Item] = []
    for item in items:
        last = joined[-1] if joined else None
        if isinstance(item, OutboxDone) and isinstance(last, OutboxDone):
            joined[-1] = OutboxDone(last.ids + item.ids)
        else:
            joined.append(item)
    return joined


def _now_ms() -> int:
    return round(trio.current_time() * 1000)
