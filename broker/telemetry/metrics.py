"""Metrics of one broker: a row for every counter and gauge, by Prometheus conventions.

`METRICS` is the only list. `collect` reads every row from a broker, `Stats` is the part of it that the demo, the bench
and embedding programs use, and `render` writes the Prometheus text format. A test finds every public counter that the
code increments and requires its row here.

Reading costs O(rooms), some 6 us a room that has changed since the last time and 1 us one at rest, and touches no disk.
The sums over rooms are formed once for all rows, in steps of less than a millisecond between which the event loop may
run (`collect_in_steps`): a scrape delays no viewer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from enum import IntEnum
from heapq import nlargest
from operator import attrgetter
from typing import Any, NamedTuple

import trio

from broker.core.limits.overload import OverloadStage
from broker.core.structures.histogram import Histogram
from broker.core.structures.steps import run_steps
from broker.core.tenants.names import split_name
from broker.core.users.marketing import Suppression
from broker.telemetry.text_format import Kind, Metric, MetricValue, render, series, values_of
from protocol.codes import CloseCode, ErrorCode, Lane
from protocol.messages import Account

__all__ = [
    "METRICS", "Metric", "MetricValue", "Reading", "Stats", "collect", "collect_in_steps", "counters_of", "render",
    "scrape",
]  # fmt: skip

TOP_ROOMS = 10
"""Rooms with a series of their own: the number of series is bounded, whatever the number of rooms."""
OTHER_ROOMS = "(other)"
"""Label of all other rooms; no room has such a name."""
ROWS_STEP = 50
"""Rows that are read in one step."""


class Reading:
    """A broker at one moment. ``totals``: the sums over its rooms, formed once for all rows."""

    def __init__(self, broker: Any, totals: Any) -> None:
        """Any: the hub and the composition root are above this module."""
        self.broker = broker
        self.totals = totals
        counters: dict[str, int] = totals.events
        hub = broker.hub
        for name, value in (
            ("limiter_full", hub.limiter_full), ("keys_lost", hub.keys_lost),
            ("return_marks_lost", hub.join_limit.returns_lost),
        ):  # fmt: skip
            counters[name] += value
        self.room_counters = counters
        """What is counted in rooms, and in tables of all rooms."""


def _counter(name: str, help: str, path: str, *sources: str, label: str = "") -> Metric:
    return Metric(f"roomcast_{name}_total", "counter", help, attrgetter(f"broker.{path}"), sources, label)


def _gauge(name: str, help: str, path: str, *sources: str, label: str = "") -> Metric:
    return Metric(f"roomcast_{name}", "gauge", help, attrgetter(f"broker.{path}"), sources, label)


def _of_engine(name: str, help: str, field: str) -> Metric:
    """Return a row with a number of the engine's status."""

    def read(reading: Reading) -> float:
        nodes = reading.broker.nodes
        return 0.0 if nodes is None else float(getattr(nodes.engine.status, field))

    return Metric(f"roomcast_engine_{name}", "gauge", help, read)


def _of_activities(name: str, help: str, kinds: tuple[str, ...], states: tuple[str, ...]) -> Metric:
    """Return a row with the amounts of activities by state."""

    def read(reading: Reading) -> Mapping[str, int]:
        amounts = reading.totals.amounts
        return {state: sum(amounts.get((kind, state), 0) for kind in kinds) for state in states}

    return Metric(f"roomcast_{name}", "gauge", help, read, label="state")


def _review_age_s(reading: Reading) -> float:
    since_ms = reading.totals.held_since_ms
    return 0.0 if since_ms is None else max(0.0, (reading.broker.hub.trusted.now_ms() - since_ms) / 1000)


def _reviews(reading: Reading) -> Mapping[str, int]:
    names = reading.broker.hub.activity_counts.names
    return {name: names["reviews", name] for name in ("held", "reported", "approved", "rejected", "released")}


def _of_rooms(name: str, help: str, *sources: str) -> Metric:
    return Metric(f"roomcast_room_{name}_total", "counter", help, lambda reading: reading.room_counters[name], sources)


def _of_ledger(name: str, help: str, field: str, *sources: str) -> Metric:
    def read(reading: Reading) -> float:
        ledger = reading.broker.ledger
        value: float = 0 if ledger is None else getattr(ledger.stats, field)
        return value

    return Metric(f"roomcast_ledger_{name}_total", "counter", help, read, sources)


def _of_part(name: str, help: str, part: str, path: str, *sources: str) -> Metric:
    """Return a row of a part that not every broker has: what follows from a ledger, and the log file."""

    def read(reading: Reading) -> float:
        found = getattr(reading.broker, part)
        value: float = 0 if found is None else attrgetter(path)(found)
        return value

    return Metric(f"roomcast_{name}_total", "counter", help, read, sources)


def _gauge_of_part(name: str, help: str, part: str, path: str, *sources: str) -> Metric:
    """Return a row as `_of_part`, of a state."""
    return _of_part(name, help, part, path, *sources)._replace(name=f"roomcast_{name}", kind="gauge")


def _of_webhooks(name: str, kind: Kind, help: str, attribute: str, *sources: str) -> Metric:
    """Return a row with a number for each endpoint; none where the broker has no ledger."""

    def read(reading: Reading) -> Mapping[str, float]:
        webhooks = reading.broker.webhooks
        values: Mapping[str, float] = {} if webhooks is None else getattr(webhooks, attribute)
        return values

    return Metric(f"roomcast_webhook_{name}", kind, help, read, sources, "endpoint")


def _held_by_reason(reading: Reading) -> Mapping[str, int]:
    """Return how many messages wait, by what they wait for; together they are `roomcast_messages_held`."""
    held = [account.held for account in reading.totals.accounts]
    combo = reading.totals.combo_gifts
    return {
        "tick": held[Lane.CHAT], "counters": held[Lane.AMBIENT], "combo": combo,
        "ledger": sum(held[: Lane.CHAT]) - combo,
    }  # fmt: skip


def _top_rooms(reading: Reading) -> Mapping[str, int]:
    """Return the connections of the `TOP_ROOMS` largest rooms, and of all others together."""
    rooms = reading.totals.online
    top = nlargest(TOP_ROOMS, rooms)
    rest = sum(online for online, _ in rooms) - sum(online for online, _ in top)
    return {"/".join(filter(None, split_name(name))): online for online, name in top} | {OTHER_ROOMS: rest}


def _by_lane(histograms: Iterable[Histogram]) -> Mapping[str, Histogram]:
    return {Lane(lane).name.lower(): each for lane, each in enumerate(histograms)}


def _suppressed(reading: Reading) -> Mapping[str, int]:
    inboxes = reading.broker.inboxes
    return {why.name.lower(): 0 if inboxes is None else inboxes.suppressed[why] for why in Suppression}


def _messages(result: str) -> Callable[[Reading], Mapping[str, int]]:
    def read(reading: Reading) -> Mapping[str, int]:
        return {Lane(lane).name.lower(): getattr(each, result) for lane, each in enumerate(reading.totals.accounts)}

    return read


_POSTING, _COUNTERS, _STREAM = "broker.core.rooms.posting", "broker.core.rooms.counters", "broker.core.rooms.stream"
_AUTH, _LIMITS = "broker.auth.tokens", "broker.core.net.connection_limits"
_DETECTOR, _POLLER = "broker.net.protocol_detection", "broker.net.poller"
_SESSION, _FANOUT, _WRITER = "broker.sessions.session", "broker.rooms.fanout", "broker.ledger.writer"
_HOOKS = "broker.webhooks.deliveries"
_QUOTAS = "broker.core.tenants.quotas"
_ACTIVITIES = "broker.core.commerce.room_activities"
_LEAVING = "which they leave ten minutes after their end"
_LOOP, _HUB = "broker.telemetry.loop_monitor", "broker.rooms.hub"

METRICS: tuple[Metric, ...] = (
    # Activities of rooms.
    Metric("roomcast_activities", "gauge", "Activities of open rooms.", lambda reading: reading.totals.activities,
           label="kind"),
    _counter("activity_facts", "Facts of activities that are durable.", "hub.activity_counts.facts",
             f"{_ACTIVITIES}:facts", label="kind"),
    _counter("activity_refusals", "Commands of activities that changed nothing.", "hub.activity_counts.refusals",
             f"{_ACTIVITIES}:refusals", label="kind"),
    _counter("activity_batches_undone", "Batches of activities that the ledger has refused.",
             "hub.activity_counts.undone", f"{_ACTIVITIES}:undone", label="kind"),
    _of_activities("sale_units", f"Units of sales in memory, {_LEAVING}.", ("sales",),
                   ("available", "reserved", "confirmed")),
    _of_activities("packet_cents", f"Money of red packets and rains in memory, {_LEAVING}.", ("packets", "rains"),
                   ("open", "taken", "returned")),
    _of_activities("review_messages", "Messages of open rooms that wait for a reviewer, are approved and wait for "
                   "earlier ones, or are shown and reported.", ("reviews",), ("waiting", "approved", "reported")),
    Metric("roomcast_review_oldest_age_seconds", "gauge", "Age of the message that waits longest for a reviewer.",
           _review_age_s),
    Metric("roomcast_reviews_total", "counter", "Messages held, reported, approved, rejected and shown in review.",
           _reviews, (f"{_ACTIVITIES}:names",), "what"),
    _of_activities("coupons", f"Codes of coupon pools in memory, {_LEAVING}; left: of open ones.", ("coupons",),
                   ("issued", "left")),
    # Connections.
    _gauge("connections", "Open connections.", "poller.__len__"),
    _gauge("backlogged_connections", "Connections that wait for their socket to take bytes.", "poller.backlogged"),
    _gauge("paused_connections", "Connections that are not read because they exceed a rate.", "poller.paused"),
    _gauge("admitted_connections", "Connections that count against the limits.", "connection_limits.held",
           f"{_LIMITS}:held"),
    _gauge("unauthenticated_connections", "Connections before a successful AUTH.", "connection_limits.unauthenticated",
           f"{_LIMITS}:unauthenticated"),
    _gauge("refused_connections", "Refused connections that are still open.", "connection_limits.overflow",
           f"{_LIMITS}:overflow"),
    _counter("connections_admitted", "Connections admitted.", "connection_limits.admitted", f"{_LIMITS}:admitted"),
    _counter("connections_refused", "Connections refused by a limit.", "connection_limits.refused",
             f"{_LIMITS}:refused", label="code"),
    _counter("connections_dropped", "Connections closed without an answer because too many were refused.",
             "connection_limits.dropped", f"{_LIMITS}:dropped"),
    _counter("connections_limiter_full", "Connections and log-ins refused because a table of limits was full.",
             "connection_limits.limiter_full", "broker.core.limits.rate_limit:full_refusals"),
    _counter("connections_closed", "Connections ended, by close code.", "context.closed", f"{_SESSION}:closed",
             label="code"),
    _counter("connections_shed", "Slow connections closed because all queues together were near queue.total_bytes.",
             "listener.transports.shed", "broker.net.transport:shed"),
    _counter("accept_errors", "Accepts that failed for want of descriptors or memory.", "listener.accept_errors",
             "broker.net.listener:accept_errors"),
    _counter("connections_detected", "Connections by detected protocol.", "listener.detector.opened",
             f"{_DETECTOR}:opened", label="protocol"),
    _counter("http_answers", "HTTP answers on the viewers' port, by status.", "listener.detector.answered",
             f"{_DETECTOR}:answered", "broker.net.page_connection:answered", label="status"),
    _counter("refusals_answered", "Refused connections that got their answer.", "listener.detector.refused",
             f"{_DETECTOR}:refused"),
    _counter("unnamed_clients", "WebSockets of a trusted proxy that named no client.", "listener.detector.unnamed",
             f"{_DETECTOR}:unnamed"),
    _counter("noise", "Connections closed without a known protocol.", "listener.detector.noise", f"{_DETECTOR}:noise"),
    _counter("connection_crashes", "Connections ended by a defect of the broker.", "poller.crashes",
             f"{_POLLER}:crashes"),
    _counter("poller_turns", "Turns of the poller.", "poller.turns", f"{_POLLER}:turns"),
    _counter("poller_turn_seconds", "Time spent in turns of the poller.", "poller.turn_s", f"{_POLLER}:turn_s"),
    _counter("poller_paused_seconds", "Time in which the poller did not run; it counts against no connection.",
             "poller.paused_s", f"{_POLLER}:paused_s"),
    # Log-in.
    _counter("tokens_verified", "Signatures checked and good.", "context.auth.verified", f"{_AUTH}:verified"),
    _counter("tokens_from_cache", "Tokens known from a log-in before.", "context.auth.from_cache",
             f"{_AUTH}:from_cache"),
    _counter("tickets_used", "Log-ins with the broker's own reconnect ticket.", "context.auth.from_tickets",
             f"{_AUTH}:from_tickets"),
    _counter("guests", "Log-ins as a guest.", "context.auth.guests", f"{_AUTH}:guests"),
    _counter("tokens_refused", "Log-ins refused.", "context.auth.refused", f"{_AUTH}:refused"),
    _gauge("token_keys", "Secrets and public keys that verify tokens.", "context.auth.keys"),
    _counter("key_fetches", "Fetches of auth.jwks_url that brought a usable set of keys.", "jwks.fetched",
             "broker.auth.jwks:fetched"),
    _counter("key_fetch_failures", "Fetches of auth.jwks_url that failed.", "jwks.failed", "broker.auth.jwks:failed"),
    _gauge("keys_age_seconds", "Time since the last good fetch of auth.jwks_url.", "jwks.age_s"),
    _gauge("users", "Users with an open session.", "users.__len__"),
    # Sessions.
    _counter("posts", "POSTs received.", "context.posts", f"{_SESSION}:posts"),
    _counter("error_replies", "ERROR replies, by error code.", "context.errors", "broker.sessions.link:errors",
             "broker.sessions.watching:errors",
             label="code"),
    _counter("missed_chat", "Danmaku that slow viewers missed.", "context.missed_chat", f"{_SESSION}:missed_chat"),
    # Rooms.
    _gauge("rooms", "Open rooms.", "hub.__len__"),
    _counter("rooms_opened", "Rooms opened.", "hub.opened", f"{_HUB}:opened"),
    _counter("rooms_crashed", "Rooms ended by a defect of the broker.", "hub.crashed", f"{_HUB}:crashed"),
    Metric("roomcast_messages_admitted_total", "counter", "Messages taken in, by lane.", _messages("admitted"),
           (f"{_POSTING}:admitted", f"{_COUNTERS}:admitted", f"{_STREAM}:admitted"), "lane"),
    Metric("roomcast_messages_shown_total", "counter", "Messages published, by lane.", _messages("shown"),
           (f"{_COUNTERS}:shown", f"{_STREAM}:shown"), "lane"),
    Metric("roomcast_messages_merged_total", "counter", "Messages merged into an equal one, by lane.",
           _messages("merged"), (f"{_COUNTERS}:merged", f"{_STREAM}:merged"), "lane"),
    Metric("roomcast_messages_sampled_total", "counter", "Messages sampled out, by lane.", _messages("sampled"),
           (f"{_POSTING}:sampled", f"{_COUNTERS}:sampled",), "lane"),
    Metric("roomcast_messages_expired_total", "counter", "Messages that waited too long, by lane.",
           _messages("expired"), (f"{_COUNTERS}:expired",), "lane"),
    Metric("roomcast_messages_held", "gauge", "Messages that wait, by lane.", _messages("held"),
           (f"{_POSTING}:held", f"{_STREAM}:held"), "lane"),
    Metric("roomcast_messages_held_by_reason", "gauge",
           "Messages that wait, by what for: a tick, the counters, an event of their combo, the ledger.",
           _held_by_reason, label="reason"),
    Metric("roomcast_posts_refused_total", "counter", "Posts that the rooms have refused, by reason.",
           lambda reading: reading.broker.hub.measures.refused, ("broker.rooms.measures:refused",), "reason"),
    Metric("roomcast_tick_seconds", "histogram", "Time that a tick took to be written to every member.",
           lambda reading: reading.broker.hub.measures.tick_cost),
    Metric("roomcast_tick_interval_seconds", "histogram", "Interval between ticks, as a room decides after each.",
           lambda reading: reading.broker.hub.measures.tick_interval),
    Metric("roomcast_tick_wait_seconds", "histogram", "How long the oldest danmaku of each tick has waited for it.",
           lambda reading: reading.broker.hub.measures.tick_wait),
    Metric("roomcast_top_room_connections", "gauge",
           "Connections of the ten rooms with the most, as TENANT/ROOM or ROOM, and of all others together.",
           _top_rooms, label="room"),
    _gauge("live_stats_bytes", "Bytes of the live statistics of all rooms.", "hub.live_budget.used_bytes",
           "broker.core.rooms.live_stats:used_bytes"),
    _counter("locks_acquired", "Locks given.", "locks.acquired", "broker.rooms.locks:acquired"),
    _counter("lock_waits_timed_out", "Requests that waited for a lock in vain.", "locks.timed_out",
             "broker.rooms.locks:timed_out"),
    _gauge("lock_waiters", "Requests that wait for a lock.", "locks.table.waiting"),
    _of_rooms("keys_changed", "Keys of rooms set, deleted or expired.", "broker.core.rooms.keys:changed"),
    _gauge("keys_bytes", "Bytes of the keys of all rooms, with a task or without.", "hub.key_space.nbytes"),
    _of_rooms("duplicates", "Danmaku refused because the same text was shown before.",
              "broker.core.chat.duplicates:refused"),
    _of_rooms("duplicate_marks_lost", "Marks of texts forgotten early because the table was full.",
              "broker.core.structures.recent_keys:forgotten"),
    _of_rooms("return_marks_lost", "Marks of users who have just left forgotten early because a table was full.",
              "broker.core.structures.recent_keys:forgotten"),
    _of_rooms("quota_admitted", "Messages within the room's quota.", "broker.core.limits.room_quota:admitted"),
    _of_rooms("quota_refused", "Messages above the room's quota.",
              "broker.core.limits.room_quota:refused"),
    _of_rooms("limiter_full", "Requests refused because a table of limits was full.",
              "broker.core.limits.rate_limit:full_refusals"),
    _of_rooms("keys_lost", "Idempotency keys forgotten early because the table was full.",
              "broker.core.rooms.idempotency:forgotten"),
    _of_rooms("likes_unranked", "Likes of users that the table of top likers had no space for.",
              "broker.core.rooms.likes:unranked"),
    _of_rooms("raids", "Raids of rooms, in which slow mode began by itself.", "broker.core.rooms.post_guard:raids"),
    _of_rooms("posts_shadowed", "Posts that their senders alone were shown.",
              "broker.core.rooms.post_guard:shadow_count"),
    # Moderation.
    _counter("moderation_findings", "Messages in which words or detectors found something, by what became of them.",
             "screening.screens.found", "broker.core.moderation.screening:found", label="action"),
    _counter("moderation_categories", "The same messages, by the category of the list or detector.",
             "screening.screens.categories", "broker.core.moderation.screening:categories", label="category"),
    _of_part("moderation_reports_dropped", "Of these messages, those that were too many to be reported by webhook.",
             "room_store", "reports.flagged_dropped", "broker.rooms.reports:flagged_dropped"),
    _counter("sanctions", "Sanctions of users set, lifted or undone.", "sanctions.changed",
             "broker.users.sanctions:changed"),
    _gauge("sanctions_kept", "Sanctions of users that are in force, or have ended lately.", "sanctions.kept"),
    _counter("moderation_hints", "Keyword hints to staff.", "hub.hints.hinted", "broker.rooms.hints:hinted"),
    _counter("moderation_replies", "Keyword hints that the platform's bot has posted.", "hub.hints.replied",
             "broker.rooms.hints:replied"),
    # Conversations.
    _of_part("conversations_sent", "Messages of conversations that were sent.", "talk", "conversations.sent",
             "broker.users.conversations:sent"),
    _of_part("conversations_recalled", "Messages of conversations that were taken back.", "talk",
             "conversations.recalled", "broker.users.conversations:recalled"),
    _of_part("conversations_not_pushed", "Messages that members of large groups were not shown at once.",
             "talk", "conversations.not_pushed", "broker.users.conversations:not_pushed"),
    _of_part("conversation_openings_limiter_full", "Conversations not opened because a table of limits was full.",
             "talk", "conversations.openings_limiter_full", "broker.core.limits.rate_limit:full_refusals"),
    _gauge_of_part("conversations", "Conversations.", "talk", "conversations.kept"),
    _gauge_of_part("conversation_members", "Members of all conversations.", "talk", "conversations.table.memberships",
                   "broker.core.users.conversations:memberships"),
    _gauge_of_part("conversation_pushes_waiting", "Waiting group messages.", "talk", "conversations.waiting_pushes"),
    _of_part("cards_sent", "Cards that were shown in a new state.", "talk", "cards_sent", "broker.users.cards:sent"),
    _of_part("marketing_offers", "Offers of triggered marketing whose time had come.", "talk", "offered",
             "broker.users.triggered:offered"),
    _gauge_of_part("marketing_offers_waiting", "Offers of triggered marketing that wait.", "talk", "waiting_offers"),
    _of_part("presence_sent", "Changes of presence that watchers were sent.", "talk", "presences.sent",
             "broker.users.presence:sent"),
    _gauge_of_part("presence_watches", "Users that are watched, by each watcher.", "talk", "presences.table.watches"),
    _of_part("rtc_calls", "RTC calls that have begun.", "talk", "rtc.rung", "broker.users.rtc:rung"),
    _gauge_of_part("rtc_calls_open", "RTC calls that ring or are answered.", "talk", "rtc.open_calls"),
    _of_part("desk_changes", "Changes of conversations of service desks.", "talk", "desks.changed",
             "broker.users.desks:changed")._replace(label="change"),
    _of_part("desk_answers", "Answers of service desks.", "talk", "desks.answers", "broker.users.desks:answers"),
    _gauge_of_part("desk_conversations", "Conversations that service desks keep, by state.", "talk",
                   "desks.kept")._replace(label="state"),
    _gauge_of_part("desk_agents_available", "Agents of service desks who are online.", "talk", "desks.agents"),
    # Fan-out.
    _counter("fanout_writes", "Writes to members.", "fanout.writes", f"{_FANOUT}:writes"),
    _counter("fanout_deliveries", "Contents delivered to members.", "fanout.deliveries", f"{_FANOUT}:deliveries"),
    _counter("fanout_sweeps", "Contents that have reached every member.", "fanout.sweeps", f"{_FANOUT}:sweeps"),
    _counter("fanout_busy_seconds", "Time spent in sweeps.", "fanout.busy_s", f"{_FANOUT}:busy_s"),
    Metric("roomcast_publish_seconds", "histogram",
           "Time from the publication of a content until it was written to every member, by its most urgent lane.",
           lambda reading: _by_lane(reading.broker.fanout.latency), label="lane"),
    # Overload.
    _gauge("overload_stage", "Overload stage in force, 0 to 4.", "monitor.stage"),
    _gauge("queue_bytes", "Bytes that wait for slow viewers.", "budget.used_bytes",
           "broker.core.limits.overload:used_bytes"),
    _gauge("queue_limit_bytes", "Bytes that may wait for all slow viewers together.", "budget.limit_bytes"),
    _counter("queue_bytes_mismatches", "Bytes taken from the budget that were not in it: a defect.",
             "budget.mismatches", "broker.core.limits.overload:mismatches"),
    _counter("loop_slow_steps", "Steps of a task that delayed the event loop.", "loop_monitor.slow_steps",
             f"{_LOOP}:slow_steps"),
    _counter("loop_pauses", "Times at which the whole process was paused.", "loop_monitor.pauses", f"{_LOOP}:pauses"),
    _counter("loop_paused_seconds", "Time in which the whole process was paused.", "loop_monitor.paused_s",
             f"{_LOOP}:paused_s"),
    # Ledger.
    Metric("roomcast_ledger_ready", "gauge", "1 while the ledger commits what it takes; 0 without one.",
           lambda reading: reading.broker.ledger is not None and reading.broker.ledger.status()[0]),
    Metric("roomcast_ledger_waiting", "gauge", "Submissions that wait for their commit.",
           lambda reading: 0 if reading.broker.ledger is None else reading.broker.ledger.waiting),
    _of_ledger("submissions", "Submissions answered without an error.", "submissions", f"{_WRITER}:submissions"),
    _of_ledger("repeated", "Submissions whose key was known.", "repeated", f"{_WRITER}:repeated"),
    _of_ledger("failed", "Submissions taken and not written.", "failed", f"{_WRITER}:failed"),
    _of_ledger("refused", "Submissions not taken: full or unavailable.", "refused"),
    _of_ledger("commits", "Transactions committed.", "commits", f"{_WRITER}:commits"),
    _of_ledger("commit_seconds", "Time spent in commits.", "commit_s", f"{_WRITER}:commit_s"),
    _of_ledger("checkpoints", "Checkpoints of the write-ahead log.", "checkpoints", f"{_WRITER}:checkpoints"),
    _of_ledger("recoveries", "Returns from a degraded state.", "recoveries", f"{_WRITER}:recoveries"),
    _of_ledger("expired_directs", "Direct messages that expired.", "expired_directs",
               "broker.ledger.maintenance:expired"),
    _of_ledger("removed_rows", "Rows removed by retention.", "removed_rows", "broker.ledger.maintenance:removed"),
    _of_ledger("scrubs", "Rebuilds of the database, after which nothing of removed data is in its file.", "scrubs",
               "broker.ledger.writer:scrubs"),
    _counter("clock_leaps", "Leaps of the wall clock; nothing expires and nothing is removed meanwhile.", "clock.leaps",
             "broker.core.clock:leaps"),
    _of_part("ledger_queries", "Reads for sessions.", "queries", "asked", "broker.ledger.queries:asked"),
    _of_part("ledger_query_failures", "Reads for sessions that failed.", "queries", "failed",
             "broker.ledger.queries:failed"),
    Metric("roomcast_marketing_suppressed_total", "counter", "Marketing messages to users that were not sent, by why.",
           _suppressed, ("broker.users.inbox:suppressed", "broker.operations.coupons:suppressed"), "why"),
    _of_part("marketing_withdrawn", "Marketing messages that waited when their user did not want any more.", "inboxes",
             "withdrawn", "broker.users.inbox:withdrawn"),
    _of_part("directs_delivered", "Direct messages written to links.", "inboxes", "delivered",
             "broker.users.inbox:delivered"),
    # The engine.
    _of_engine("up", "1 while the engine answers; 0 without one.", "is_up"),
    _of_engine("lag_seconds", "How late a message to this node itself came last over the engine.", "lag_s"),
    _of_engine("used_bytes", "Memory that the engine's server uses, some seconds ago.", "used_bytes"),
    # Operations.
    _counter("calls", "Calls of operations.", "operations.called", "broker.operations.calls:called"),
    _counter("calls_refused", "Calls refused, by error code.", "operations.refused",
             "broker.operations.calls:refused", label="code"),
    _counter("audit_entries", "Actions of staff and backends, by outcome.", "operations.audit.counts",
             "broker.operations.audit_log:counts", label="outcome"),
    _counter("audit_lost", "Entries of the audit that the ledger has not taken in time.", "operations.audit.lost",
             "broker.operations.audit_log:lost"),
    _gauge("audit_unwritten", "Entries of the audit that wait for the ledger.", "operations.audit.unwritten"),
    _counter("calls_failed", "Calls whose handler had a defect.", "operations.failed",
             "broker.operations.calls:failed"),
    _counter("calls_limiter_full", "Calls refused because a table of limits was full.", "operations.limiter_full",
             "broker.core.limits.rate_limit:full_refusals"),
    _gauge("calls_waiting", "Calls of links that wait for their result.", "context.call_tasks.running",
           "broker.sessions.calls:running"),
    _gauge("calls_held", "Links whose calls wait for their turn: calls fill their share of the event loop.",
           "context.call_turns.held"),
    # The control API over HTTP.
    _gauge("api_connections", "Open connections of backends.", "api_limits.held"),
    _counter("api_connections_refused", "Connections of backends refused by a limit.", "api_limits.refused",
             label="code"),
    _counter("api_connections_limiter_full", "Connections of backends refused because a table of limits was full.",
             "api_limits.limiter_full", "broker.core.limits.rate_limit:full_refusals"),
    _counter("api_connections_dropped", "Connections of backends closed unanswered: too many were refused.",
             "api_limits.dropped"),
    _counter("api_requests", "Requests of backends.", "api_counters.requests", "broker.http.connection:requests"),
    _counter("api_malformed", "Connections of backends ended because what came is not HTTP or above a bound.",
             "api_counters.malformed", "broker.http.connection:malformed"),
    _counter("api_too_slow", "Connections of backends ended because they neither sent nor took their bytes in time.",
             "api_counters.too_slow", "broker.http.connection:too_slow"),
    # Questions to the platform.
    Metric("roomcast_questions_total", "counter", "Cases for the platform, by kind and what became of them.",
           lambda reading: reading.broker.questions.results,
           ("broker.core.webhooks.questions:results", "broker.webhooks.questions:results"), "result"),
    Metric("roomcast_questions_in_flight", "gauge", "Questions that the platform has not answered.",
           lambda reading: reading.broker.questions.in_flight,
           ("broker.core.webhooks.questions:in_flight",)),
    # Webhooks.
    _of_webhooks("deliveries_total", "counter", "Events that an endpoint has taken.", "delivered",
                 f"{_HOOKS}:delivered"),
    _of_webhooks("failures_total", "counter", "Attempts to deliver an event that failed.", "failures",
                 f"{_HOOKS}:failures"),
    _of_webhooks("openings_total", "counter", "Times at which an endpoint failed so often that it was only tried.",
                 "openings", "broker.core.webhooks.breaker:opened"),
    _of_webhooks("dead_letters_total", "counter", "Events that were given up.", "dead_letters", f"{_HOOKS}:dead"),
    _of_webhooks("dead_letters_removed_total", "counter", "Dead letters removed because they were too large together.",
                 "dead_letters_removed", f"{_HOOKS}:dead_removed"),
    _of_webhooks("dropped_total", "counter", "Events not written, because too much waits or the ledger takes nothing.",
                 "dropped", "broker.webhooks.events:dropped", "broker.webhooks.service:dropped"),
    _of_webhooks("in_flight", "gauge", "Deliveries under way.", "in_flight", "broker.core.webhooks.lines:in_flight"),
    _of_webhooks("waiting", "gauge", "Events that wait in the ledger, some seconds ago.", "waiting",
                 "broker.core.webhooks.lines:rows", "broker.core.webhooks.lines:bytes"),
    _of_webhooks("oldest_age_seconds", "gauge", "Age of the event that waits longest.", "oldest_age_s"),
    # Tenants.
    _gauge("tenant_connections", "Connections that are logged in, by tenant.", "hub.tenants.connections",
           f"{_QUOTAS}:connections", label="tenant"),
    _gauge("tenant_rooms", "Open rooms, by tenant.", "hub.tenants.rooms", f"{_QUOTAS}:rooms", label="tenant"),
    _counter("tenant_messages", "Messages within the quota, by tenant.", "hub.tenants.messages",
             f"{_QUOTAS}:messages", label="tenant"),
    _counter("tenant_calls", "Calls within the quota, by tenant.", "hub.tenants.calls", f"{_QUOTAS}:calls",
             label="tenant"),
    _counter("tenant_refused", "Connections, rooms, messages and calls above the quota, by tenant.",
             "hub.tenants.refused", f"{_QUOTAS}:refused", label="tenant"),
    # Logs.
    _of_part("log_lines_dropped", "Log lines dropped because nothing read standard error.", "log_file", "dropped",
             "broker.telemetry.logs:dropped"),
)  # fmt: skip

_BY_NAME = {metric.name: metric for metric in METRICS}
_ENUMS: dict[str, type[IntEnum]] = {
    "roomcast_connections_closed_total": CloseCode,
    "roomcast_connections_refused_total": CloseCode,
    "roomcast_api_connections_refused_total": CloseCode,
    "roomcast_error_replies_total": ErrorCode,
    "roomcast_calls_refused_total": ErrorCode,
}


class Stats(NamedTuple):
    """The numbers of one broker at one moment that programs use; `of` reads them through `METRICS`."""

    connections: int
    backlogged: int
    rooms: int
    stage: OverloadStage
    queue_bytes: int
    posts: int
    deliveries: int
    sweeps: int
    missed_chat: int
    rooms_crashed: int
    slow_steps: int
    """Steps that delayed the event loop."""
    pauses: int
    """Times at which the whole process was paused."""
    accounts: tuple[Account, ...]
    """The five lanes over all rooms."""
    closed: dict[str, int]
    """Links ended, by close code's name."""

    @property
    def balanced(self) -> bool:
        """Whether every lane's account adds up."""
        return all(account.admitted == sum(account[1:]) for account in self.accounts)

    @classmethod
    def of(cls, broker: Any) -> Stats:
        """Read every field now. O(rooms)."""
        reading = Reading(broker, broker.hub.totals())

        def value(name: str) -> int:
            return int(read(_BY_NAME[f"roomcast_{name}"], reading)[0].value)

        return cls(
            connections=value("connections"),
            backlogged=value("backlogged_connections"),
            rooms=value("rooms"),
            stage=OverloadStage(value("overload_stage")),
            queue_bytes=value("queue_bytes"),
            posts=value("posts_total"),
            deliveries=value("fanout_deliveries_total"),
            sweeps=value("fanout_sweeps_total"),
            missed_chat=value("missed_chat_total"),
            rooms_crashed=value("rooms_crashed_total"),
            slow_steps=value("loop_slow_steps_total"),
            pauses=value("loop_pauses_total"),
            accounts=reading.totals.accounts,
            closed={
                dict(sample.labels)["code"]: int(sample.value)
                for sample in read(_BY_NAME["roomcast_connections_closed_total"], reading)
                if sample.value
            },
        )


def read(metric: Metric, reading: Reading) -> list[MetricValue]:
    """Read one metric of a broker; label values are sorted, numbers of codes are given by name."""
    value = metric.read(reading)
    if callable(value):  # a method without arguments, as __len__
        value = value()
    if not metric.label:
        return values_of(value, ())
    names = _ENUMS.get(metric.name)
    by_label = {str(key) if names is None else names(key).name.lower(): each for key, each in value.items()}
    return [made for key in sorted(by_label) for made in values_of(by_label[key], ((metric.label, key),))]


Collected = list[tuple[Metric, list[MetricValue]]]


def collect_in_steps(broker: Any) -> Generator[None, None, Collected]:
    """Read all metrics of a broker, and stop after every few hundred rooms and `ROWS_STEP` rows, so that the event loop
    may run."""
    reading = Reading(broker, (yield from broker.hub.totals_in_steps()))
    found = []
    for count, metric in enumerate(METRICS, 1):
        found.append((metric, read(metric, reading)))
        if count % ROWS_STEP == 0:
            yield
    return found


def collect(broker: Any) -> Collected:
    """Read all metrics of a broker. O(rooms)."""
    return run_steps(collect_in_steps(broker))


async def scrape(broker: Any) -> str:
    """Return all metrics of a broker in the text format; other tasks run between the steps."""
    steps = collect_in_steps(broker)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return render(done.value)
        await trio.lowlevel.checkpoint()


def counters_of(broker: Any) -> dict[str, int]:
    """Return every number by its name and labels as in the text format, rounded, but for the buckets of histograms.
    Any: as in `Reading`."""
    found = {}
    for metric, values in collect(broker):
        for value in values:
            if abs(value.value) < 2**53 and value.suffix != "_bucket":
                found[series(metric, value)] = round(value.value)
    return found
