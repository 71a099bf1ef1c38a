"""The composition root: builds the parts from a configuration, owns the root nursery and starts them in order.

Order of the start: ledger, fan-out, hub, poller, sampler, then the listeners, so that no connection is accepted before
the parts that serve it run. The shutdown is in `broker.sessions.drain`. Nothing below this module reads configuration
files or the environment.
"""

from __future__ import annotations

import hmac
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
import trio

from broker.auth.api_keys import ApiKeys, keys_of
from broker.auth.jwks import JwksSource
from broker.auth.tenant_keys import TenantKeys
from broker.auth.ticket_keys import TicketKeyFile
from broker.auth.tokens import Authenticator
from broker.config.dictionaries import read_dictionary
from broker.config.files import user_path
from broker.config.schema import RELOADABLE, Config, changed_settings, with_reloadable, without_limit
from broker.core.clock import TrustedClock
from broker.core.limits.overload import ByteBudget, OverloadMonitor
from broker.core.limits.rate_limit import Rate
from broker.core.moderation.screening import Screens
from broker.core.net.connection_limits import ConnectionLimits
from broker.core.net.send_queue import QueueLimits
from broker.core.rooms.state import RoomRules
from broker.core.tenants.quotas import Tenants
from broker.engine.base import Engine
from broker.http.app import ApiParts, make_app
from broker.http.connection import HttpCounters
from broker.http.live import live_parts
from broker.http.overview import overview_texts
from broker.http.serving import HttpServer, api_limits
from broker.http.viewer_pages import console_site, viewer_pages
from broker.ledger import Ledger, ResultBatch
from broker.ledger.configured import ledger_of, reload_ledger
from broker.ledger.queries import LedgerQueries
from broker.net.descriptors import connection_limit, limits_of
from broker.net.event_stream import EventStreamTransport
from broker.net.listener import Listener
from broker.net.poller import Poller
from broker.net.protocol_detection import release_admission
from broker.net.transport import Transport, TransportSettings
from broker.operations.action_runs import ActionRuns
from broker.operations.broadcast_runs import BroadcastRuns
from broker.operations.broadcasts import continue_broadcasts
from broker.operations.calls import Operations
from broker.operations.control import control_of
from broker.operations.erasures import Erasures
from broker.operations.in_process import call_in_process
from broker.operations.parts import Parts
from broker.rooms import configured
from broker.rooms.actions import ActionQueue
from broker.rooms.fanout import FanOut
from broker.rooms.hub import Hub
from broker.rooms.locks import Locks
from broker.rooms.reports import RoomReports
from broker.rooms.room_history import RoomHistory
from broker.rooms.room_store import RoomStore
from broker.rooms.screening import BuiltWords, Screening, read_words
from broker.rooms.shared_ledger import SharedLedger
from broker.rooms.shared_notices import notices_of
from broker.rooms.word_lists import OwnLists
from broker.sessions.context import SessionContext
from broker.sessions.drain import drain
from broker.sessions.names import keep_names_screened
from broker.sessions.node_parts import nodes_of
from broker.sessions.session import Session
from broker.sessions.watching import WatchSession
from broker.telemetry.health import health_of
from broker.telemetry.logs import LogFile, configure, report_left_out
from broker.telemetry.loop_monitor import LoopMonitor
from broker.telemetry.metrics import Stats, scrape
from broker.telemetry.overview import Overview
from broker.users.inbox import Inboxes
from broker.users.registry import UserRegistry
from broker.users.revocations import Revocations
from broker.users.sanctions import Sanctions
from broker.users.talk import Talk
from broker.webhooks.events import WebhookEvents
from broker.webhooks.questions import Questions
from broker.webhooks.service import WebhookDeliveries

if TYPE_CHECKING:
    from protocol.clients import Address, BytePipe, Client, TokenSource

__all__ = ["Broker", "roomcast_broker"]

log = structlog.get_logger("roomcast.server")

SAMPLE_S = 0.25


class Broker:
    """One broker process. ``await nursery.start(broker.run)`` returns when it serves; `addresses` then holds where.

    Construct it inside ``trio.run``: every part is there afterwards, and `stats` and `status` work before `run`.
    OSError if the TLS files cannot be used, or the process has too few descriptors.

    ``rng``, ``wall_ms`` and ``monotonic`` replace chance and the clocks; the metrics count what ``log_file`` drops.
    ``read_config``: for `reload_files`; ``origins``: where settings came from, which it keeps up to date, None = a
    program has made the configuration; ``listens`` False: no port, no control API. The methods ``_make_...`` make what
    touches disk and network, so that a simulation can replace it. ``engine``: shared with other nodes (ValueError).
    """

    def __init__(
        self,
        config: Config,
        *,
        rng: random.Random | None = None,
        wall_ms: Callable[[], int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        log_file: LogFile | None = None,
        read_config: Callable[[], Config] | None = None,
        origins: Mapping[str, str] | None = None,
        listens: bool = True,
        engine: Engine | None = None,
    ) -> None:
        self.config = config
        self.log_file = log_file
        self.addresses: tuple[tuple[str, int], ...] = ()
        self.api_urls: tuple[str, ...] = ()
        """Where the control API listens; empty = there is none."""
        self.draining = False
        self.stopped = trio.Event()
        """Set when `run` has ended, with or without an error."""
        seeds = random.SystemRandom() if rng is None else rng
        rng = rng or random.Random()
        self.clock = TrustedClock(wall_ms or unix_ms, monotonic)
        """Unix time for everything that expires, and for dates."""
        wall_ms = self.clock.now_ms
        clock = trio.current_time  # a broker may be made outside of the run that it serves in
        self.screening = Screening(Screens(), lambda moderation: self.hub.use_moderation(moderation))
        rules = RoomRules(
            policy=configured.policy_of(config),
            custom=configured.custom_rules(config),
            history_entries=config.room.history_entries,
            history_s=config.room.history_s,
            snapshot_danmaku=config.room.snapshot_danmaku,
            durable=config.ledger.is_kept,
            masks_guests=config.privacy.mask_names_for_guests,
            screens=self.screening.screens,
        )
        self.results = ResultBatch()
        """Joins what rooms and sessions send for one slice of ledger results."""
        self.webhook_events = WebhookEvents(configured.names_and_lanes(rules.custom))
        self._engine = engine
        self.ledger = self._make_ledger()
        """The durable part; None: this broker has no data directory."""
        self.users = UserRegistry(config.link.connections_per_user)
        """Open sessions by user."""
        self.webhooks = self.room_store = self.queries = self.history = self.inboxes = None
        if self.ledger is not None:
            self.webhooks = WebhookDeliveries(config.webhooks, self.ledger, self.webhook_events, wall_ms, rng)
            self.queries = LedgerQueries(self.ledger)
            # Half of what may wait for one connection: a RESUME must not fill the queue and end the connection again.
            self.history = RoomHistory(self.queries, config.ledger.resume_events, config.queue.critical_bytes // 2)
            self.inboxes = Inboxes(
                self.ledger, self.queries, self.users, wall_ms, config.ledger.direct_expiry_h * 3600,
                self.webhook_events.direct_acked,
            )  # fmt: skip
            self.room_store = RoomStore(
                self.ledger, wall_ms, reports=RoomReports(self.webhook_events, self.webhooks.submit, wall_ms),
                directs=notices_of(self.inboxes, engine), review_space=configured.review_space(config),
                kinds=configured.kinds_of(config, partial(seeds.randbytes, 32)),
            )  # fmt: skip
        self._clock: Callable[[], float] = clock
        self.max_connections = connection_limit(config)
        self.budget = ByteBudget(config.queue.total_bytes)
        self.fanout = self._make_fanout()
        actions = ActionQueue()
        self.hub = Hub(
            config.room, rules, self.fanout, open_roles=config.open_roles, clock=clock,
            unix_ms=wall_ms, rng=rng, room_store=self.room_store,
            results=self.results, trusted=self.clock, tenants=Tenants(configured.quotas_of(config.tenants)),
            actions=actions, sessions_of=self.users.sessions,
        )  # fmt: skip
        self.screening.use(self.screening.build_now(read_words(config.moderation)), config.moderation)
        self.connection_limits = ConnectionLimits(**limits_of(config.admission, self.max_connections))
        self.monitor = OverloadMonitor()
        self.loop_monitor = LoopMonitor()
        self.poller = self._make_poller()
        queue = config.queue
        limits = QueueLimits(queue.frames, queue.queue_bytes, queue.critical_bytes)
        transports = TransportSettings(self.poller, limits, self.budget, self._on_released)
        self.jwks = JwksSource(config.auth, lambda keys: self.context.auth.use_url_keys(keys), clock)
        self.started_at = clock()
        self.locks = Locks(self.ledger, clock, self.clock)
        self.questions = Questions(config.webhooks, unix_ms=wall_ms, rng=rng)
        self.broadcasts = BroadcastRuns(self.ledger, wall_ms)
        self.revocations = Revocations(self.ledger, wall_ms)
        self.word_lists = OwnLists(self.ledger, self.screening, wall_ms)
        self.sanctions = Sanctions(self.hub.sanctions, self.ledger, self.clock, self.webhook_events)
        self.erasures = self.talk = None
        if self.ledger is not None or engine is None:
            talking = self.users, self.hub.preferences, self.clock, clock, self.webhook_events
            self.talk = Talk(self.ledger, self.inboxes, *talking, is_shared=engine is not None)
        if self.ledger is not None and self.room_store is not None and self.inboxes is not None:
            self.erasures = Erasures(
                self.ledger, self.hub, self.room_store, self.users, self.inboxes, self.revocations, wall_ms, self.talk
            )
        self._parts = Parts(
            self.hub, self.users, rules.types, self.ledger, self.inboxes, self.locks, self.broadcasts, control_of(self),
            clock, wall_ms, self.revocations, self.word_lists, self.sanctions, self.webhooks, self.questions,
            self.erasures, self.room_store, self.talk,
        )  # fmt: skip
        self.operations = Operations(self._parts)
        self.action_runs = ActionRuns(actions, self._parts, self.operations, lambda: self.api_keys)
        authenticator = Authenticator(
            config.auth, clock=lambda: self.clock.now_ms() / 1000, rng=rng, request_keys=self.jwks.request,
            is_revoked=self.revocations.is_revoked, tenants=TenantKeys.read(config.tenants),
        )  # fmt: skip
        self.context = SessionContext(
            config=config.link, hub=self.hub, users=self.users, auth=authenticator,
            connection_limits=self.connection_limits, poller=self.poller, unix_ms=wall_ms, types=rules.types,
            max_viewers=config.room.max_viewers, compress=rules.policy.compress, operations=self.operations,
            results=self.results, history=self.history, resume_bytes=config.queue.critical_bytes // 2,
            inboxes=self.inboxes, questions=self.questions,
        )  # fmt: skip
        self.nodes = nodes_of(
            engine, self.context, self.fanout, self.operations, self.ledger, self.room_store, config, clock
        )
        self.context.use_dictionary(read_dictionary(config.link.dictionary_file))
        self.listener = self._make_listener(transports)
        self._read_config = read_config
        self.origins = origins
        self._reloading = trio.Lock()
        self._listens = listens
        self._nursery: trio.Nursery | None = None
        self.ticket_keys: TicketKeyFile | None = None
        """Keys for tickets; None: they are of this process alone."""
        self._reported_status = "ok"
        self.api_limits = ConnectionLimits(**api_limits(config.api.max_connections))
        self.api_counters = HttpCounters()
        self.api_keys = self._read_api_keys(config)

    def read_api_keys(self) -> None:
        """Read the keys of the control API again. OSError or ValueError, with nothing changed."""
        self.api_keys = self._read_api_keys(self.config)

    def _read_api_keys(self, config: Config) -> ApiKeys | None:
        """Return the keys of the control API; None = none is needed, in development mode."""
        if config.api.listen is None or config.api.key_file is None:
            return None
        return ApiKeys.read(user_path(config.api.key_file), lambda: self.clock.now_ms() / 1000)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled or drained."""
        trio.lowlevel.add_instrument(self.loop_monitor)
        try:
            async with self._kept(), trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self.fanout.run)
                await nursery.start(self.hub.run)
                for part in (self.queries, self.inboxes, self.talk, self.questions, self.webhooks):
                    if part is not None:
                        await nursery.start(part.run)
                await nursery.start(self.broadcasts.run)
                continue_broadcasts(self._parts)
                await nursery.start(self.action_runs.run)
                if self.erasures is not None:
                    await nursery.start(self.erasures.run)
                await nursery.start(self.context.call_tasks.run)
                await nursery.start(self.context.call_turns.run)
                await nursery.start(self.poller.run)
                await nursery.start(self.jwks.run)
                if self.nodes is not None:
                    await nursery.start(self.nodes.run)
                nursery.start_soon(self._sample)
                nursery.start_soon(keep_names_screened, self.context)
                if self._listens:
                    self.addresses = await nursery.start(self.listener.run)
                if self._listens and self.config.api.listen is not None:
                    self.api_urls = tuple(await nursery.start(self._serve_api, self.config.api.listen))
                    log.info("control API serving", urls=self.api_urls)
                if unbounded := without_limit(self.config):
                    log.warning("settings of 0 switch limits off", settings=unbounded)
                log.info("serving", addresses=self.addresses, max_connections=self.max_connections)
                task_status.started()
        finally:
            with suppress(KeyError):  # Trio has thrown it out if it failed
                trio.lowlevel.remove_instrument(self.loop_monitor)
            self.stopped.set()

    @asynccontextmanager
    async def _kept(self) -> AsyncIterator[None]:
        """Run the ledger around everything else: it starts first and ends last."""
        if self.ledger is None or self.room_store is None:
            yield
            return
        async with trio.open_nursery() as nursery:
            await nursery.start(self.ledger.run)
            auth = self.context.auth
            self.ticket_keys = TicketKeyFile(self.ledger.directory, auth.ticket_s, auth.use_ticket_keys)
            self.hub.event_ids.use_key(hmac.digest(self.ticket_keys.load().base, b"event ids", "sha256"))
            if self.erasures is not None:
                await self.erasures.load()  # rooms are read without the users who are being erased
            await self.room_store.load(self.config.room.history_entries, self.config.room.history_s)
            await self.locks.load()
            await self.hub.hints.load(self.ledger)
            await self.revocations.load()
            await self.word_lists.load()
            await self.sanctions.load()
            await self.broadcasts.load()
            # A room that only a wrong wall clock ended long ago does not open to viewers.
            reopen_s, continued_ms = self.config.room.reopen_ended_s, self.clock.continued_ms()
            self.hub.restore_ended(await self.room_store.ended_ago_s(reopen_s, continued_ms))
            if self.inboxes is not None:
                await self.inboxes.load()
            if self.talk is not None:
                await self.talk.load()
            yield
            nursery.cancel_scope.cancel()

    async def _serve_api(self, listen: str, task_status: trio.TaskStatus[list[str]]) -> None:
        parts = ApiParts(
            operations=self.operations,
            keys=lambda: self.api_keys,
            requests=lambda: Rate(self.config.api.requests_per_s, round(2 * self.config.api.requests_per_s)),
            status=self.status,
            metrics=lambda: scrape(self),
            is_draining=lambda: self.draining,
            clock=self._clock,
            started_at_s=self.clock.now_ms() / 1000,
            live=live_parts(self._parts, lambda: self.draining),
            overview=overview_texts(self._parts, Overview(self).sample, lambda: self.draining, self._clock),
            pages=console_site(self.config, self.addresses),
        )
        async with parts.overview.sampling():
            await HttpServer(make_app(parts), listen, self.api_limits, self.api_counters).run(task_status=task_status)

    def _make_ledger(self) -> Ledger | None:
        kind = Ledger if self._engine is None else partial(SharedLedger, engine=self._engine)
        return ledger_of(self.config, self.clock, self.results, reports=self.webhook_events, kind=kind)

    def _make_fanout(self) -> FanOut:
        return FanOut()

    def _make_poller(self, kind: type[Poller] = Poller) -> Poller:
        return kind(write_timeout_s=self.config.link.write_timeout_s, clock=self._clock)

    def _make_listener(self, transports: TransportSettings, kind: type[Listener] = Listener) -> Listener:
        return kind(
            self.config, transports, self.connection_limits, self._make_session, status=self.status, watch=self._watch,
            pages=viewer_pages(self.config, self.context.auth), clock=self._clock,
        )  # fmt: skip

    def _make_session(self, transport: Transport) -> Session:
        return Session(transport, self.context)

    def _watch(self, transport: EventStreamTransport) -> None:
        session = WatchSession(transport, self.context)
        transport.owner = session
        session.start()

    def _on_released(self, transport: Transport) -> None:
        release_admission(self.connection_limits, transport)

    def status(self) -> tuple[bool, dict[str, Any]]:
        """Return readiness and the fields of ``GET /healthz``."""
        return health_of(
            self.monitor.stage, self.ledger, self.clock, is_draining=self.draining, has_stale_keys=self.jwks.is_stale,
            engine=self._engine,
        )  # fmt: skip

    async def call(
        self, operation: str, /, *, idempotency_key: str = "", dry_run: bool = False, tenant: str = "", **fields: Any
    ) -> Any:
        """Call an operation of the control API from the program that the broker runs in, with every scope; return its
        result record. ``fields``: those of the request. Any: each operation has its own.

        OperationError (code, field, rule, retry_after_ms) where it is refused, ValueError for what is no operation.
        """
        return await call_in_process(
            self.operations, operation, fields, idempotency_key=idempotency_key, dry_run=dry_run, tenant=tenant
        )

    @asynccontextmanager
    async def connect(self, token: str | TokenSource | None = None, **options: Any) -> AsyncIterator[Client]:
        """Open a client of this broker in the same process, over a pair of connected sockets: no port is needed.

        ``options``: those of `protocol.open_client`.
        """
        from protocol.clients import StreamPipe, open_client  # what serves only does not import what connects

        async def pipe(nursery: trio.Nursery, address: Address) -> BytePipe:
            ours, theirs = socket.socketpair()
            self.listener.admit(theirs, "", self._clock())
            return StreamPipe(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))

        async with open_client("roomcast://in-process", token, connect=pipe, **options) as client:
            yield client

    def stats(self) -> Stats:
        """Return the counters of this moment. O(rooms)."""
        return Stats.of(self)

    # ---- overload

    async def _sample(self) -> None:
        """Sample queue bytes, loop lag and the sweeps' share of the time; set the hub's stage when it changes."""
        sampled_at = self._clock()
        busy_s = self.fanout.busy_s
        while True:
            await trio.sleep(SAMPLE_S)
            report_left_out()
            now = self._clock()
            lag_s = self.loop_monitor.overload_lag_s(max(0.0, now - sampled_at - SAMPLE_S))
            share = (self.fanout.busy_s - busy_s) / max(now - sampled_at, 1e-6)
            sampled_at, busy_s = now, self.fanout.busy_s
            self._report_status()
            before = self.monitor.transition
            stage = self.monitor.observe(self.budget.ratio, lag_s, share, now)
            change = self.monitor.transition
            if change is not None and change is not before:
                log.warning(
                    "overload stage", stage=int(stage), before=int(change.before), signal=change.signal.name.lower(),
                    lag_ms=round(lag_s * 1000), queue_ratio=round(self.budget.ratio, 3), sweep_share=round(share, 3),
                )  # fmt: skip
                self.hub.set_stage(stage)

    def _report_status(self) -> None:
        """Report by webhook when the status changes."""
        _, fields = self.status()
        status = str(fields["status"])
        if status != self._reported_status and self.webhooks is not None:
            self.webhooks.report_status(status, str(fields.get("ledger_reason") or fields.get("clock") or ""))
        self._reported_status = status

    # ---- reload

    def reload(self, config: Config) -> list[str]:
        """Apply the `RELOADABLE` settings of a configuration; return the names of changed ones that need a restart.

        Open connections stay. Lists of words are built at once, see `Screening.build_now`. OSError or ValueError, with
        nothing changed, if certificates, secret or words cannot be used.
        """
        return self._apply(config, self.screening.build_now(read_words(config.moderation)))[1]

    async def reload_files(self) -> tuple[list[str], list[str]]:
        """Read the configuration again and apply it, the settings of the log too; return the names of the changed
        settings that hold now, and of those that need a restart.

        ConfigError, OSError or ValueError, with nothing changed, if it cannot be used.
        """
        if self._read_config is None:
            raise ValueError("this broker was started by a program; call Broker.reload there")
        async with self._reloading:
            config = await trio.to_thread.run_sync(self._read_config)
            words = await trio.to_thread.run_sync(read_words, config.moderation)
            result = self._apply(config, await self.screening.build(words))
            configure(config.log, self.log_file)
            return result

    def _apply(self, config: Config, words: BuiltWords) -> tuple[list[str], list[str]]:
        changed = changed_settings(self.config, config)
        if config.development != self.config.development:
            raise ValueError("auth.secret: a broker does not enter or leave development mode while it runs")
        running = with_reloadable(self.config, config)
        policy = configured.policy_of(running)
        dictionary = read_dictionary(running.link.dictionary_file)
        for_restart = [name for name in changed if name not in RELOADABLE]
        if bool(policy.tick_ms) != bool(self.hub.policy.tick_ms) and "room.policy" in changed:
            for_restart.append("room.policy")
            running = with_reloadable(self.config, config, RELOADABLE - {"room.policy"})
            policy = configured.policy_of(running)
        if bool(policy.tick_ms) != bool(self.hub.policy.tick_ms):
            raise ValueError("room.tick_ms: rooms do not begin or cease to have ticks while the broker runs")
        max_connections = connection_limit(config)
        keyring = self.context.auth.keyring_of(config.auth)
        jwks_context = self.jwks.context_of(config.auth)
        tenant_keys = TenantKeys.read(config.tenants)
        api_keys = self._read_api_keys(config)
        webhook_files = None if self.webhooks is None else self.webhooks.read(config.webhooks)
        question_files = self.questions.read(config.webhooks)
        has_other_ledger_keys = reload_ledger(self.ledger, config)
        self.listener.reload(config)
        if "types" in changed:
            custom = configured.custom_rules(running)
            self.hub.use_types(custom)
            self.context.use_types()
            self.webhook_events.use_types(configured.names_and_lanes(custom))
        keys_before, self.api_keys = keys_of(self.api_keys), api_keys
        if self.webhooks is not None and webhook_files is not None:
            self.webhooks.use(webhook_files)
        self.questions.use(question_files)
        self.context.use_questions()
        self.context.auth.use(config.auth, keyring, tenant_keys)
        self.jwks.use(config.auth, jwks_context)
        self.hub.tenants.use(configured.quotas_of(config.tenants))
        self.context.use_limits(running.link)
        self.context.max_viewers = config.room.max_viewers
        self.max_connections = max_connections
        self.connection_limits.use(**limits_of(config.admission, max_connections))
        self.api_limits.use(**api_limits(running.api.max_connections))
        self.hub.use_limits(running.room, config.open_roles)
        self.hub.use_policy(policy)
        self.context.use_compression(policy.compress)
        has_other_dictionary = self.context.use_dictionary(dictionary)
        has_other_words = self.screening.use(words, running.moderation)
        self.config = running
        read_again = {  # the same files, perhaps with other contents
            "api.key_file": keys_before != keys_of(api_keys), "ledger.key_file": has_other_ledger_keys,
            "link.dictionary_file": has_other_dictionary, "moderation.lists": has_other_words,
        }  # fmt: skip
        changed += [name for name, is_other in read_again.items() if is_other and name not in changed]
        in_force = [name for name in changed if name not in for_restart]
        log.info("configuration reloaded", changed=in_force)
        if for_restart:
            log.warning("settings that need a restart", settings=for_restart)
        return in_force, for_restart

    # ---- the end

    def begin_drain(self) -> None:
        """Begin `drain` in a task of its own."""
        if self._nursery is not None:
            self._nursery.start_soon(self.drain)

    async def drain(self) -> None:
        """Shut down in order (`broker.sessions.drain`), then let `run` return. Idempotent; cancel `run` to hasten it.

        Takes at most two thirds of ``link.drain_limit_s``; the ledger may take the last one.
        """
        if self.draining:
            return
        self.draining = True
        self.broadcasts.stop()
        if self.nodes is not None:
            await self.nodes.drain()
        await drain(
            self.config.link,
            connection_limits=self.connection_limits,
            poller=self.poller,
            call_turns=self.context.call_turns,
            hub=self.hub,
            fanout=self.fanout,
            ledger=self.ledger,
            sessions=self.context.sessions,
            clock=self._clock,
        )
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()


@asynccontextmanager
async def roomcast_broker(config: Config | None = None, *, listens: bool = True) -> AsyncIterator[Broker]:
    """Run a broker for the length of an ``async with`` block, which begins when it serves.

    At the end of the block the broker drains; where an exception ends the block, it stops at once, and the exception
    is raised as it is. If the broker itself fails, the block is cancelled and the failure raised in a group. Without a
    ``config`` nothing is kept. ``listens``: see `Broker`. OSError if it cannot start.
    """
    broker = Broker(config or Config(), listens=listens)
    failure: BaseException | None = None
    has_crashed = False

    async def run(task_status: trio.TaskStatus[None]) -> None:
        nonlocal has_crashed
        try:
            await broker.run(task_status)
        except Exception:
            has_crashed = True
            raise

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            try:
                yield broker
                await broker.drain()
            except BaseException as error:
                failure = error
                raise
            finally:
                nursery.cancel_scope.cancel()
        return
    except BaseExceptionGroup:
        if has_crashed or failure is None:
            raise
    raise failure


def unix_ms() -> int:
    """Wall time in Unix milliseconds; for people and tokens, never for timers or order."""
    return time.time_ns() // 1_000_000
