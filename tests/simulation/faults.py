"""What a seed breaks, and how large its broker is: every seed draws its own mixture.

A world in which everything fails all the time hides the faults that need a quiet hour first. So each kind of fault is
absent from a third of the worlds, and the bounds of the broker (rings, queues, retention) are tiny in some of them
and as usual in others.
"""

from __future__ import annotations

import random
from typing import NamedTuple

__all__ = ["Conditions"]

MONTH_S = 30 * 86_400.0


class Conditions(NamedTuple):
    """Of one world. Rates are per virtual second, chances per occasion."""

    # the network
    cuts: float
    """A link breaks and both ends hear of it; what was under way is lost."""
    holes: float
    """A link carries nothing any more, and nobody hears of it."""
    stalls: float
    refusals: float
    """Chance that a connection is refused."""
    websockets: tuple[str, ...]
    """Who comes by WebSocket, by token."""
    link_bytes: int
    """What a direction of a link holds."""
    # the disk
    disk_failures: float
    """Chance that a commit fails: no space, an error, or a failed fsync. It goes on for a while."""
    leftovers: float
    """Chance that what such a commit has written is there after a crash all the same."""
    read_errors: float
    slow_commits: float
    # the process
    kills: float
    kills_at_commit: float
    """Chance that it dies in a commit: the seed decides whether that is on the disk."""
    kills_at_start: float
    restarts: float
    """SIGTERM, a drain, and a new process."""
    room_crashes: float
    """The code of one room fails: that room is closed, and goes on where it stood when somebody asks for it."""
    # the clock on the wall
    leaps: float
    # the broker
    storm: int
    """Announcements that come all at once, some time."""
    history_entries: int
    history_s: float
    idle_close_s: float
    entries_s: float
    """How long the ledger keeps events."""
    paid_budget_per_s: int
    critical_bytes: int
    total_bytes: int
    """Of all queues; near it the broker sheds load."""
    inbox_users: int
    """Users whose pending messages are remembered; the others are looked up at each login."""
    ledger_items: int
    max_batch: int

    @classmethod
    def of(cls, rng: random.Random) -> Conditions:
        """Draw one."""

        def now_and_then(most: float) -> float:
            return rng.choice((0.0, 0.3, 1.0)) * most

        return cls(
            cuts=now_and_then(0.8),
            holes=now_and_then(0.1),
            stalls=now_and_then(0.6),
            refusals=now_and_then(0.1),
            websockets=rng.choice(((), ("dev:bob",), ("dev:ann:viewer", "dev:eve"))),
            link_bytes=rng.choice((1024, 4096, 64 * 1024)),
            disk_failures=now_and_then(0.04),
            leftovers=now_and_then(1.0),
            read_errors=now_and_then(0.1),
            slow_commits=now_and_then(0.04),
            kills=now_and_then(0.15),
            kills_at_commit=now_and_then(0.02),
            kills_at_start=now_and_then(0.3),
            restarts=now_and_then(0.1),
            room_crashes=now_and_then(0.1),
            leaps=now_and_then(0.1),
            storm=rng.choice((0, 0, 12)),
            history_entries=rng.choice((0, 3, 512)),
            history_s=rng.choice((1.0, 120.0)),
            idle_close_s=rng.choice((0.5, 3.0, 900.0)),
            entries_s=rng.choice((3.0, MONTH_S, MONTH_S)),
            paid_budget_per_s=rng.choice((1, 5)),
            critical_bytes=rng.choice((4096, 16 * 1024, 1024 * 1024)),
            total_bytes=rng.choice((2048, 1 << 30, 1 << 30)),
            inbox_users=rng.choice((1, 200_000)),
            ledger_items=rng.choice((4, 20_000, 20_000)),
            max_batch=rng.choice((1, 8, 500)),
        )
