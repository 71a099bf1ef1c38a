"""Fault rates and sizes of a world: every seed draws its own mixture.

A world in which everything fails all the time hides bugs that need an undisturbed period first. So each kind of fault
is absent from a third of the worlds, and the bounds of the broker (history, queues, retention) are tiny in some worlds
and usual in others.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

__all__ = ["PROBES", "QUIET", "Conditions"]

PROBES = (
    "addresses", "batches", "calls", "clock", "combos", "duplicates", "ended", "expiry", "guests", "joins", "json",
    "keys", "leave", "likes", "logins", "origins", "reload", "rooms", "snapshot", "staff", "tickets",
)  # fmt: skip
"""Names of the probes in `tests.simulation.probes` and `tests.simulation.access_probes`; a world runs two of them."""

MONTH_S = 30 * 86_400.0


class Conditions(NamedTuple):
    """Conditions of one world. Rates are per virtual second, probabilities per occasion."""

    # the network
    cuts: float
    """A link breaks and both ends notice; bytes in flight are lost."""
    black_holes: float
    """A link carries nothing any more, and neither end is informed."""
    stalls: float
    refusals: float
    """Probability that a connection is refused."""
    websockets: tuple[str, ...]
    """Tokens of the clients that use WebSocket."""
    link_bytes: int
    """Capacity of one direction of a link."""
    # the disk
    disk_failures: float
    """Probability that a commit fails: no space, an error, or a failed fsync. The disk may keep failing for a while."""
    leftovers: float
    """Probability that the data of a failed commit is present after a crash."""
    read_errors: float
    slow_commits: float
    # the process
    kills: float
    kills_at_commit: float
    """Probability that the process is killed in a commit: the seed decides whether the commit is on the disk."""
    kills_at_start: float
    restarts: float
    """SIGTERM, a drain, and a new process."""
    room_crashes: float
    """The code of one room raises: that room is closed and restored when a client joins it again."""
    # the wall clock
    leaps: float
    # the broker
    development: bool
    """Whether it has no secret: names instead of tokens, and clients of this machine only."""
    probes: tuple[str, ...]
    """Probes that run after the last fault."""
    restores: bool
    """Whether a backup of the ledger is restored at the end."""
    burst: int
    """Announcements posted at once at a random time."""
    history_entries: int
    history_s: float
    idle_close_s: float
    entries_s: float
    """How long the ledger keeps events."""
    paid_budget_per_s: int
    critical_bytes: int
    total_bytes: int
    """Limit of all queues together; near it the broker sheds load."""
    inbox_users: int
    """Users whose pending messages are cached; for others every login queries the ledger."""
    ledger_items: int
    max_batch: int

    @classmethod
    def of(cls, rng: random.Random) -> Conditions:
        """Draw the conditions of a world."""

        def some_rate(most: float) -> float:
            return rng.choice((0.0, 0.3, 1.0)) * most

        return cls(
            cuts=some_rate(0.8),
            black_holes=some_rate(0.1),
            stalls=some_rate(0.6),
            refusals=some_rate(0.1),
            websockets=rng.choice(((), ("dev:bob",), ("dev:ann:viewer", "dev:eve"))),
            link_bytes=rng.choice((1024, 4096, 64 * 1024)),
            disk_failures=some_rate(0.04),
            leftovers=some_rate(1.0),
            read_errors=some_rate(0.1),
            slow_commits=some_rate(0.04),
            kills=some_rate(0.15),
            kills_at_commit=some_rate(0.02),
            kills_at_start=some_rate(0.3),
            restarts=some_rate(0.1),
            room_crashes=some_rate(0.1),
            leaps=some_rate(0.1),
            development=rng.random() < 0.2,
            probes=tuple(rng.sample(PROBES, 2)),
            restores=rng.random() < 0.3,
            burst=rng.choice((0, 0, 12)),
            history_entries=rng.choice((0, 3, 512)),
            history_s=rng.choice((1.0, 120.0)),
            idle_close_s=rng.choice((0.5, 3.0, 900.0)),
            entries_s=rng.choice((3.0, MONTH_S, MONTH_S)),
            paid_budget_per_s=rng.choice((1, 5)),
            critical_bytes=rng.choice((4096, 16 * 1024, 1024 * 1024)),
            total_bytes=rng.choice((2048, 8192, 1 << 30, 1 << 30)),
            inbox_users=rng.choice((1, 200_000)),
            ledger_items=rng.choice((4, 20_000, 20_000)),
            max_batch=rng.choice((1, 8, 500)),
        )


QUIET: dict[str, Any] = dict(
    dict.fromkeys(
        ("cuts", "black_holes", "stalls", "refusals", "disk_failures", "read_errors", "slow_commits", "kills",
         "kills_at_commit", "kills_at_start", "restarts", "room_crashes", "leaps"), 0.0
    ),
    development=False, probes=(), restores=False, burst=0, link_bytes=64 * 1024, history_entries=512,
    history_s=120.0, idle_close_s=900.0, entries_s=MONTH_S, paid_budget_per_s=5, critical_bytes=1024 * 1024,
    total_bytes=1 << 30, ledger_items=20_000,
)  # fmt: skip
"""Conditions without faults and with usual bounds: for a planted bug that a probe finds."""
