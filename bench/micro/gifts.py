"""CPU of a durable gift through the whole broker, from the POST that is read to its ACK and its event.

20 links of the app post to 20 rooms, one gift a read and sixteen, open loop, well below what the broker takes: so the
figure is work, not waiting. The loop's thread and the ledger's are measured apart. The floor is one transaction of
two rows a gift in SQLite, in batches as large as the broker's own, with its syncs.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import trio
from msgspec.structs import replace

from bench.micro.harness import ClientProcess, client_process, config, serving
from bench.micro.result import Result, median
from broker.config.schema import LedgerConfig
from broker.ledger.writer import LedgerStats
from broker.server import Broker
from protocol.codes import Lane

__all__ = ["gifts"]

ROOMS = 20
GOAL_US = 90.0


class _Use(NamedTuple):
    """CPU of one gift in microseconds, by thread, and gifts a commit."""

    loop_us: float
    ledger_us: float
    gifts_a_commit: float


async def gifts(smoke: bool) -> list[Result]:
    """Measure one gift a read and sixteen."""
    seconds, rounds, per_s = (0.5, 1, 400.0) if smoke else (2.0, 5, 4_000.0)
    return [
        await _one("one a read", per_s, 1, seconds, rounds, None if smoke else GOAL_US),
        await _one("16 a read", per_s, 16, seconds, rounds, None),
    ]


async def _one(what: str, per_s: float, burst: int, seconds: float, rounds: int, goal: float | None) -> Result:
    names = [f"room-{number}" for number in range(ROOMS)]
    tokens = [f"dev:app-{number}:app" for number in range(ROOMS)]
    with tempfile.TemporaryDirectory(prefix="roomcast-gifts-", dir=os.environ.get("ROOMCAST_BENCH_DIR")) as directory:
        base = config(
            paid_budget_per_s=0.0, admit_per_window=1_000_000, app_posts_per_s=100_000.0, app_posts_burst=100_000
        )
        settings = replace(base, ledger=LedgerConfig(data_dir=str(Path(directory) / "ledger")))
        async with serving(settings) as broker, client_process() as clients:
            port = broker.addresses[0][1]
            await clients.request("open", links=ROOMS, port=port, rooms=names, tokens=tokens, read=True)
            uses = [await _flood(broker, clients, per_s, seconds, burst) for _ in range(rounds)]
        batch = max(1, round(median([use.gifts_a_commit for use in uses])))
        floor_us = _sqlite_us(Path(directory), batch, max(1, 4_000 // batch))
    detail = {
        "offered_per_s": per_s, "loop_us": round(median([use.loop_us for use in uses]), 1),
        "ledger_thread_us": round(median([use.ledger_us for use in uses]), 1), "gifts_a_commit": batch,
        "rounds": rounds,
    }  # fmt: skip
    whole_us = median([use.loop_us + use.ledger_us for use in uses])
    return Result(
        "gifts", f"CPU of a durable gift, {what}", whole_us, "us", goal, True, floor_us,
        "two rows in SQLite, in as large batches", "value", detail,
    )  # fmt: skip


async def _flood(broker: Broker, clients: ClientProcess, per_s: float, seconds: float, burst: int) -> _Use:
    """Post gifts for ``seconds`` and return what they used. RuntimeError where one has no event or no answer."""
    await clients.request("count", reset=True)
    stats = _stats(broker)
    shown, commits = broker.hub.accounts()[Lane.PAID].shown, stats.commits
    whole_s, loop_s = time.process_time(), time.thread_time()
    flooded = await clients.request("flood", per_s=per_s, seconds=seconds, burst=burst, gifts=True)
    deadline = trio.current_time() + 60
    while (await clients.request("count"))["unanswered"] > 0:
        if trio.current_time() > deadline:
            break
        await trio.sleep(0.05)
    whole_s, loop_s = time.process_time() - whole_s, time.thread_time() - loop_s
    sent, outcomes = int(flooded["sent"]), (await clients.request("count"))["outcomes"]
    shown = broker.hub.accounts()[Lane.PAID].shown - shown
    if not sent == shown == sum(outcomes.values()):
        raise RuntimeError(f"sent {sent}, shown {shown}, answered {outcomes}")
    return _Use(loop_s / sent * 1e6, (whole_s - loop_s) / sent * 1e6, sent / max(1, _stats(broker).commits - commits))


def _stats(broker: Broker) -> LedgerStats:
    if broker.ledger is None:
        raise RuntimeError("the broker has no ledger")
    return broker.ledger.stats


def _sqlite_us(directory: Path, batch: int, commits: int) -> float:
    """Return the CPU of two rows of 200 bytes in SQLite, ``batch`` pairs a commit, in microseconds."""
    rows: Sequence[tuple[bytes]] = [(os.urandom(200),) for _ in range(2 * batch)]
    with closing(sqlite3.connect(directory / "floor.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE rows (seq INTEGER PRIMARY KEY, body BLOB)")
        used = time.process_time()
        for _ in range(commits):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO rows (body) VALUES (?)", rows)
            connection.execute("COMMIT")
        return (time.process_time() - used) / (batch * commits) * 1e6
