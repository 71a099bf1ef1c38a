"""How a show ended: the numbers of both counts, what they disagree about, and all of it as one JSON object."""

from __future__ import annotations

from typing import Any, NamedTuple

from broker.demo.accounting import Latency, Ledger
from broker.demo.load_process import Report
from broker.demo.picture import Stalled
from protocol.codes import Lane
from protocol.messages import Account

__all__ = ["Outcome"]


class Outcome(NamedTuple):
    """How the show ended."""

    differences: list[str]
    accounts: tuple[Account, ...]
    seconds: float
    viewers: int
    likes: int
    ledger: Ledger
    received: int
    latency: Latency
    crowd: Report
    stalled: Stalled
    peak_stage: int

    @property
    def balanced(self) -> bool:
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """One object with everything. Any: numbers, words, lists and objects of them."""
        fates: dict[str, dict[str, dict[str, int]]] = {}
        for (group, lane, outcome), count in sorted(self.ledger.fates.items()):
            fates.setdefault(group, {}).setdefault(lane, {})[outcome] = count
        offered = self.ledger.of(Lane.CHAT) + self.ledger.of(Lane.PAID) + self.ledger.of(Lane.AMBIENT)
        return {
            "event": "demo",
            "balanced": self.balanced,
            "differences": self.differences,
            "seconds": round(self.seconds, 1),
            "viewers": self.viewers,
            "lanes": {lane.name.lower(): account._asdict() for lane, account in zip(Lane, self.accounts, strict=True)},
            "likes": self.likes,
            "gifts": {"count": self.ledger.gifts, "amount_cents": self.ledger.gift_cents},
            "offered": offered,
            "senders": fates,
            "deliveries": self.received,
            "deliveries_per_s": round(self.received / self.seconds),
            "latency_ms": {"p50": self.latency.percentile(0.50), "p99": self.latency.percentile(0.99)},
            "reconnects": {"cut": self.crowd.cut, "back": self.crowd.back, "recovered": self.crowd.recovered},
            "stalled": {
                "cut": self.stalled.was_cut, "back": self.stalled.is_back, "recovered": self.stalled.recovered,
                "events_caught_up": self.stalled.events,
            },
            "overload_stage_peak": self.peak_stage,
        }  # fmt: skip
