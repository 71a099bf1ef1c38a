"""Durable events a second with fsync, 20 rooms publishing, beside the rate of the disk alone.

*Offered*: open loop, every room publishes on its own schedule; the latency counts from the due time of an event to the
result of its commit, so a slow commit cannot hide what waited behind it. *Closed*: each of 20 publishers waits for its
event before the next, which shows the latency of one. *Flat out*: 2,000 events wait at any time, which shows the
maximum of one core and the disk; once more with a key, which shows what encryption costs.

The floor is the disk alone (`bench.disk`), in the same directory and run.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import trio

from bench.disk import sync_floor, sync_times
from bench.measure import quantile
from bench.micro.result import Result
from broker.config.schema import LogConfig
from broker.ledger import Committed, Entry, Ledger, LedgerResult, SubmitResult, make_key
from broker.ledger.key_file import KEY_BYTES, LedgerKey, LedgerKeys
from broker.telemetry.logs import configure
from protocol.codes import Lane, MessageType
from protocol.frames import pack_body
from protocol.messages import Event
from protocol.payloads import GiftPayload

__all__ = ["ledger"]

ROOMS = 20
OFFERED_PER_S = 6_000
GOAL_PER_S = 5_000
GOAL_P99_MS = 50.0


async def ledger(smoke: bool) -> list[Result]:
    """Measure all three loads, with the floor before, between and after them."""
    configure(LogConfig(level="warning"))
    seconds = 0.3 if smoke else 5.0
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="roomcast-ledger-", dir=os.environ.get("ROOMCAST_BENCH_DIR")) as name:
        directory = Path(name)
        syncs = [sync_times(directory, seconds / 5)]
        offered = await _run(directory / "offered", seconds, per_s=OFFERED_PER_S)
        syncs.append(sync_times(directory, seconds / 5))
        closed = await _run(directory / "closed", seconds / 2, publishers=ROOMS)
        syncs.append(sync_times(directory, seconds / 5))
        flat_out = await _run(directory / "flat-out", seconds / 2, publishers=2_000)
        keys = LedgerKeys((LedgerKey.of(os.urandom(KEY_BYTES)),), "bench")
        encrypted = await _run(directory / "encrypted", seconds / 2, publishers=2_000, keys=keys)
        syncs.append(sync_times(directory, seconds / 5))
    floor = sync_floor(syncs)
    for what, run, goal in (
        (f"offered {OFFERED_PER_S}/s by {ROOMS} rooms", offered, GOAL_PER_S),
        (f"{ROOMS} publishers, one pending each", closed, None),
        ("flat out, 2,000 waiting", flat_out, None),
        ("flat out, encrypted", encrypted, None),
    ):
        results.append(
            Result(
                "ledger",
                f"durable events a second, {what}",
                run.per_s,
                "/s",
                None if smoke else goal,
                False,
                floor.per_s,
                "serial fdatasync",
                "value",
                run.detail(),
            )
        )
    results.append(
        Result(
            "ledger",
            "p99 from due to durable at that load",
            offered.quantile_ms(0.99),
            "ms",
            None if smoke else GOAL_P99_MS,
            floor=floor.p99_ms,
            floor_name="p99 of one fdatasync",
            detail=offered.detail(),
        )
    )
    return results


class _Run:
    """Result of one load: latencies, refusals, CPU and commits."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.refused = 0
        self.took_s = 0.0
        self.cpu_s = 0.0
        self.commits = 0
        self.commit_s = 0.0

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.took_s

    def quantile_ms(self, share: float) -> float:
        return quantile(sorted(self.latencies_s), share) * 1000

    def detail(self) -> dict[str, float]:
        return {
            "p50_ms": round(self.quantile_ms(0.5), 2),
            "p99_ms": round(self.quantile_ms(0.99), 2),
            "max_ms": round(self.quantile_ms(1.0), 2),
            "cpu_us": round(self.cpu_s / max(1, len(self.latencies_s)) * 1e6, 1),
            "events_a_commit": round(len(self.latencies_s) / max(1, self.commits), 1),
            "mean_commit_ms": round(self.commit_s / max(1, self.commits) * 1e3, 2),
            "refused": self.refused,
        }


async def _run(
    directory: Path, seconds: float, *, per_s: float = 0.0, publishers: int = 0, keys: LedgerKeys | None = None
) -> _Run:
    """Publish gifts on a schedule (``per_s``) or each after the one before (``publishers``)."""
    run = _Run()
    store = Ledger(directory, unix_ms=lambda: time.time_ns() // 1_000_000, keys=keys)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        load = _Load(store, run, time.perf_counter() + seconds)
        begun, cpu_s = time.perf_counter(), time.process_time()
        if per_s:
            await load.on_schedule(per_s, seconds)
        else:
            for _ in range(publishers):
                load.publish(time.perf_counter(), again=True)
        await store.flush()
        run.took_s, run.cpu_s = time.perf_counter() - begun, time.process_time() - cpu_s
        run.commits, run.commit_s = store.stats.commits, store.stats.commit_s
        if load.sent != len(run.latencies_s) + run.refused:
            raise RuntimeError(f"sent {load.sent}, acknowledged {len(run.latencies_s)}, refused {run.refused}")
        nursery.cancel_scope.cancel()
    return run


class _Load:
    """Publisher of gifts, each with its own key, to the rooms in turn."""

    def __init__(self, store: Ledger, run: _Run, until: float) -> None:
        self._store = store
        self._run = run
        self._until = until
        self.sent = 0

    def publish(self, due: float, *, again: bool = False) -> None:
        """Submit one gift that was due at ``due``; with ``again``, the next one when this is durable."""
        number = self.sent
        self.sent += 1
        order = f"order-{number}"
        gift = GiftPayload(order, f"user-{number % 997}", "Ann", "rose", 1, 990, "")
        body = pack_body(Event(MessageType.GIFT, number, gift.user_id, gift.name, gift))
        entry = Entry(f"room-{number % ROOMS}", 7, Lane.PAID, MessageType.GIFT, number, body)

        def on_done(outcome: LedgerResult) -> None:
            now = time.perf_counter()
            if type(outcome) is not Committed:
                raise RuntimeError(f"not committed: {outcome}")
            self._run.latencies_s.append(now - due)
            if again and now < self._until:
                self.publish(now, again=True)

        if self._store.record((entry,), on_done, (make_key("gift", order, content=body),)) is not SubmitResult.QUEUED:
            self._run.refused += 1

    async def on_schedule(self, per_s: float, seconds: float) -> None:
        """Publish in an open loop: latencies count from the due time of each gift."""
        begun = time.perf_counter()
        total = round(per_s * seconds)
        while self.sent < total:
            due_by_now = min(total, int((time.perf_counter() - begun) * per_s))
            self._publish_until(due_by_now, begun, per_s)
            await trio.sleep(0.001)

    def _publish_until(self, count: int, begun: float, per_s: float) -> None:
        while self.sent < count:
            self.publish(begun + self.sent / per_s)
