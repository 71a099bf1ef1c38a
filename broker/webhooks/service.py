"""Webhooks of one broker: deliveries to every endpoint, and what operators ask and do about them."""

from __future__ import annotations

import random
import sqlite3
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import structlog
import trio

from broker.config.webhooks import EndpointConfig, WebhookConfig, read_webhook_keys
from broker.core.webhooks.breaker import BreakerState
from broker.core.webhooks.retry import RetrySchedule
from broker.ledger import (
    Item,
    Ledger,
    LedgerRefused,
    LedgerResult,
    LedgerState,
    OutboxAgain,
    OutboxDone,
    OutboxEntry,
    Reader,
    StoredOutbox,
    SubmitResult,
)
from broker.webhooks.deliveries import DeliverySettings, EndpointDeliveries, describe_reply
from broker.webhooks.events import WebhookEvents, unstored_event
from broker.webhooks.sender import WebhookSender, client_context
from protocol.webhook_events import AuditAnchoredData, BrokerDegradedData, WebhookTestData

__all__ = ["EndpointStatus", "WebhookDeliveries", "WebhookFiles", "WebhookTrial"]

log = structlog.get_logger("roomcast.webhooks")

POLL_S = 1.0
"""How often the outbox is read without a commit of this process that says so: what expires is written by the ledger."""
MAINTAIN_S = 10.0
BEGIN_ANEW_S = 1.0
"""After deliveries that failed by a defect."""
UNSTORED_TRIES = 3
"""Attempts of an event that is not in the ledger."""


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """How an endpoint fares. ``state``: of its circuit breaker; ``oldest_ms``: age of what waits longest."""

    endpoint: EndpointConfig
    state: BreakerState
    waiting: int
    oldest_ms: int
    dead: int
    delivered: int
    failures: int
    last_failure: str


@dataclass(frozen=True, slots=True)
class WebhookTrial:
    """What came of a test: the status (0 = no answer), in words, and how long it took."""

    id: str
    status: int
    detail: str
    took_ms: int


class WebhookFiles(NamedTuple):
    """A configuration and what its files hold: the TLS context (None where there is no endpoint), keys by endpoint."""

    config: WebhookConfig
    context: ssl.SSLContext | None
    keys: dict[str, tuple[bytes, ...]]


class WebhookDeliveries:
    """Deliveries to all endpoints of one broker. ``await nursery.start(webhooks.run)``.

    OSError, FileError or ValueError where a certificate or secret file cannot be used.
    """

    def __init__(
        self,
        config: WebhookConfig,
        ledger: Ledger,
        events: WebhookEvents,
        unix_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self.events = events
        self._ledger = ledger
        self._unix_ms = unix_ms
        self._rng = rng
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[str, trio.CancelScope] = {}
        self._deliveries: dict[str, EndpointDeliveries] = {}
        self._settings: WebhookConfig | None = None
        self._changed = trio.Event()
        self.use(self.read(config))

    @staticmethod
    def read(config: WebhookConfig) -> WebhookFiles:
        """Return a configuration with what its files hold, for `use`. Raises as the constructor."""
        context = client_context(config.ca_file) if config.endpoints else None
        keys = {endpoint.name: read_webhook_keys(endpoint.secret_file) for endpoint in config.endpoints}
        return WebhookFiles(config, context, keys)

    def use(self, files: WebhookFiles) -> None:
        """Serve the endpoints of a configuration from now on; unchanged ones go on, with the secrets of now."""
        config, context, keys = files
        before = self._settings
        is_same = before is not None and _shared(config) == _shared(before)
        self._settings = config
        self.events.use(config.endpoints)
        for name, deliveries in list(self._deliveries.items()):
            if not is_same or deliveries.endpoint not in config.endpoints:
                self._stop(name)
            else:
                deliveries.sender.use_keys(keys[name])
                deliveries.enable()
        for endpoint in config.endpoints:
            if endpoint.name not in self._deliveries:
                assert context is not None
                self._deliveries[endpoint.name] = self._made(endpoint, config, keys[endpoint.name], context)
                self._start(endpoint.name)
        self._changed.set()
        self._changed = trio.Event()

    def _made(
        self, endpoint: EndpointConfig, config: WebhookConfig, keys: tuple[bytes, ...], context: ssl.SSLContext
    ) -> EndpointDeliveries:
        sender = WebhookSender(endpoint, config, keys, context, self._unix_ms)
        settings = DeliverySettings(
            RetrySchedule(retry_for_ms=round(config.retry_for_h * 3_600_000)),
            config.timeout_s,
            config.max_connections,
            config.dead_letter_bytes,
        )
        return EndpointDeliveries(endpoint, sender, self._ledger, settings, self._unix_ms, self._rng)

    # ---- tasks

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for name in self._deliveries:
                    self._start(name)
                nursery.start_soon(self._maintain)
                nursery.start_soon(self._anchor)
                task_status.started()
                while True:
                    while not self._deliveries:
                        await self._changed.wait()
                    reported = self._ledger.reported
                    for deliveries in self._deliveries.values():
                        deliveries.wake()
                    with trio.move_on_after(POLL_S):
                        await reported.wait()
        finally:
            self._nursery = None

    def _start(self, name: str) -> None:
        if self._nursery is not None:
            scope = self._scopes[name] = trio.CancelScope()
            self._nursery.start_soon(self._run_one, self._deliveries[name], scope)

    def _stop(self, name: str) -> None:
        del self._deliveries[name]
        scope = self._scopes.pop(name, None)
        if scope is not None:
            scope.cancel()

    async def _run_one(self, deliveries: EndpointDeliveries, scope: trio.CancelScope) -> None:
        """Run the deliveries to one endpoint; a defect in them begins them anew, and touches nothing else."""
        try:
            with scope:
                while True:
                    try:
                        await deliveries.run()
                    except Exception:
                        log.exception("webhooks: deliveries failed by a defect", endpoint=deliveries.endpoint.name)
                        await trio.sleep(BEGIN_ANEW_S)
        finally:
            with trio.CancelScope(shield=True):  # it closes without waiting
                await deliveries.sender.aclose()

    async def _maintain(self) -> None:
        """Count what waits, stop writing for endpoints for which too much does, and bound the dead letters."""
        while True:
            while not self._deliveries:
                await self._changed.wait()
            full = []
            for name, deliveries in list(self._deliveries.items()):
                try:
                    await deliveries.maintain()
                except (LedgerRefused, sqlite3.Error) as error:
                    log.warning("webhooks: the outbox cannot be counted", endpoint=name, why=str(error))
                if self._settings is not None and deliveries.counts.waiting >= self._settings.max_waiting:
                    full.append(name)
            self.events.use_full(full)
            await trio.sleep(MAINTAIN_S)

    async def _anchor(self) -> None:
        """Report where the hash chain of the ledger ends, every so often, so that it can be kept elsewhere."""
        reported = 0
        while True:
            settings = self._settings
            every_s = inf if settings is None or not settings.audit_anchor_s else settings.audit_anchor_s
            with trio.move_on_after(every_s) as waiting:
                await self._changed.wait()
            if self._ledger.is_copy or not waiting.cancelled_caught or not self.events.asks("audit.anchored"):
                continue
            try:
                head, _ = await self._ledger.ask(Reader.ends)
            except (LedgerRefused, sqlite3.Error) as error:
                log.warning("the head of the ledger cannot be read", why=str(error))
                continue
            if head.seq != reported:
                data = AuditAnchoredData(head.seq, head.hash.hex())
                now_ms = self._unix_ms()
                if self.submit(self.events.of_tenants("audit.anchored", data, now_ms)):
                    reported = head.seq

    # ---- events that may not be stored

    def report_status(self, status: str, reason: str) -> None:
        """Report a change of the broker's readiness: by the ledger if it can write, else at once, a few times."""
        now_ms = self._unix_ms()
        data = BrokerDegradedData(status, reason[:512])
        rows = self.events.of_broker("broker.degraded", data, now_ms)
        if not rows:
            return
        if self._ledger.state is LedgerState.READY and self.submit(rows):
            return
        made, body = unstored_event("broker.degraded", data, now_ms)
        for row in rows:
            deliveries = self._deliveries.get(row.endpoint)
            if self._nursery is not None and deliveries is not None:
                self._nursery.start_soon(self._send_unstored, deliveries, made, body)

    def submit(self, rows: tuple[OutboxEntry, ...]) -> bool:
        """Submit events that are no part of another submission; False if the ledger takes nothing now: they are
        dropped and counted."""
        if not rows:
            return True
        if self._ledger.record(rows, _ignore) is SubmitResult.QUEUED:
            return True
        for row in rows:
            self.events.dropped[row.endpoint] += 1
        return False

    async def _send_unstored(self, deliveries: EndpointDeliveries, made: str, body: bytes) -> None:
        for attempt in range(UNSTORED_TRIES):
            reply = await deliveries.sender.post(made, body, self._timeout_s)
            if reply.is_success:
                return
            await trio.sleep(2**attempt)

    @property
    def _timeout_s(self) -> float:
        assert self._settings is not None
        return self._settings.timeout_s

    # ---- operations

    @property
    def endpoints(self) -> Mapping[str, EndpointDeliveries]:
        """Deliveries by name of the endpoint."""
        return self._deliveries

    def statuses(self) -> list[EndpointStatus]:
        """Return how every endpoint fares; counts of the ledger are some seconds old."""
        now_ms = self._unix_ms()
        return [
            EndpointStatus(
                each.endpoint, each.breaker.state, each.counts.waiting,
                max(0, now_ms - each.counts.oldest_at_ms) if each.counts.waiting else 0,
                each.counts.dead, each.delivered, each.failures, each.last_failure,
            )
            for each in self._deliveries.values()
        ]  # fmt: skip

    async def test(self, name: str, note: str) -> WebhookTrial:
        """Send a signed test event to an endpoint now, once; its success enables one that was gone. KeyError."""
        deliveries = self._deliveries[name]
        tenant = deliveries.endpoint.tenant or ""
        made, body = unstored_event("webhook.test", WebhookTestData(note), self._unix_ms(), tenant)
        started = trio.current_time()
        reply = await deliveries.sender.post(made, body, self._timeout_s)
        if reply.is_success:
            deliveries.enable()
        return WebhookTrial(made, reply.status, describe_reply(reply), round((trio.current_time() - started) * 1000))

    async def page(self, endpoint: str | None, dead: bool, after: int, limit: int) -> list[StoredOutbox]:
        """Return rows of the outbox, of one endpoint or all. LedgerRefused."""
        return await self._ledger.ask(Reader.outbox_page, endpoint, dead, after, limit)

    async def rows(self, ids: Sequence[int]) -> list[StoredOutbox]:
        """Return the rows of the outbox with these ids that there are. LedgerRefused."""
        return await self._ledger.ask(Reader.outbox_rows, ids)

    def retry(self, ids: tuple[int, ...], on_done: Callable[[LedgerResult], None]) -> SubmitResult:
        """Try dead letters again: they go to the end of their lines."""
        return self._ledger.record((OutboxAgain(ids, self._unix_ms()),), on_done)

    def enable(self, name: str) -> None:
        """Try an endpoint again at once. KeyError."""
        self._deliveries[name].enable()

    def drop(self, rows: Sequence[StoredOutbox], on_done: Callable[[LedgerResult], None]) -> SubmitResult:
        """Remove rows of the outbox, whether they wait or are dead letters."""
        ids = tuple(row.id for row in rows)
        items: tuple[Item, ...] = (OutboxDone(ids),)
        submitted = self._ledger.record(items, on_done)
        if submitted is SubmitResult.QUEUED:
            self.forget(ids)
            self._ledger.reports_done(rows)
        return submitted

    def forget(self, ids: Sequence[int]) -> None:
        """Deliver these rows no more: they are not in the outbox any more."""
        for deliveries in self._deliveries.values():
            deliveries.drop(list(ids))

    # ---- metrics, by endpoint

    @property
    def delivered(self) -> dict[str, int]:
        """Events that were taken."""
        return {name: each.delivered for name, each in self._deliveries.items()}

    @property
    def failures(self) -> dict[str, int]:
        """Attempts that failed."""
        return {name: each.failures for name, each in self._deliveries.items()}

    @property
    def openings(self) -> dict[str, int]:
        """Openings of the circuit breaker."""
        return {name: each.breaker.opened for name, each in self._deliveries.items()}

    @property
    def dead_letters(self) -> dict[str, int]:
        """Events that were given up."""
        return {name: each.dead for name, each in self._deliveries.items()}

    @property
    def dead_letters_removed(self) -> dict[str, int]:
        """Dead letters that were removed because of their size."""
        return {name: each.dead_removed for name, each in self._deliveries.items()}

    @property
    def dropped(self) -> dict[str, int]:
        """Events that were not written."""
        return dict(self.events.dropped)

    @property
    def in_flight(self) -> dict[str, int]:
        """Deliveries under way."""
        return {name: each.in_flight for name, each in self._deliveries.items()}

    @property
    def waiting(self) -> dict[str, int]:
        """Events that wait in the ledger, some seconds ago."""
        return {name: each.counts.waiting for name, each in self._deliveries.items()}

    @property
    def oldest_age_s(self) -> dict[str, float]:
        """Age of the event that waits longest."""
        return {status.endpoint.name: status.oldest_ms / 1000 for status in self.statuses()}


def _shared(config: WebhookConfig) -> tuple[object, ...]:
    """Return the settings that all endpoints share."""
    return (
        config.ca_file, config.connect_timeout_s, config.timeout_s, config.max_connections, config.retry_for_h,
        config.dead_letter_bytes,
    )  # fmt: skip


def _ignore(result: LedgerResult) -> None:
    """Take the result of a submission that promises nothing."""
