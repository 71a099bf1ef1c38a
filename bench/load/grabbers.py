"""Takers of red packets: every user takes a share of each packet, and all packets open at the same moment.

Compared are what users were answered and what the broker counts of each packet: shares and cents. Each packet has as
many shares as there are users, so every grab is a share, durable before its answer.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from bench.load.callers import LAST_EVENTS_S, Callers, CallerSpec, play
from bench.measure import Latencies
from protocol.codes import ErrorCode, Opcode
from protocol.messages import Call
from protocol.operations import BY_NAME

__all__ = ["GrabberSpec", "Grabbers"]

MEAN_CENTS = 100
_GRAB = BY_NAME["packets.grab"].number


class GrabberSpec(CallerSpec, forbid_unknown_fields=True, kw_only=True):
    """Spec of the process. ``packets``: how many, 0 = the links only watch; ``calls`` = links times packets."""

    packets: int


class Grabbers(Callers):
    """All takers."""

    prefix = "taker"

    def __init__(self, spec: GrabberSpec) -> None:
        super().__init__(spec)
        self.spec = spec
        self.cents: Counter[str] = Counter()
        """What users were answered, by packet."""
        self.shares: set[tuple[int, int]] = set()
        """Shares that users were answered: packet and number."""
        self.latency = Latencies()

    def play(self) -> dict[str, Any]:
        spec = self.spec
        open_at_ms = self.opening()
        packets = [f"packet-{number}" for number in range(spec.packets)]
        for id in packets:
            self.api.create(
                "packets.create", key=id, id=id, order_id=f"order-{id}", total_cents=MEAN_CENTS * spec.links,
                count=spec.links, open_at_ms=open_at_ms,
            )  # fmt: skip
        self.call_all()
        listed = self.api.call("packets.list")["items"] if packets else []
        views = {item["id"]: item for item in listed if item["id"] in packets}
        self.watch(time.monotonic() + LAST_EVENTS_S)
        return self.report(
            *packets, shares=len(self.shares), cents=dict(self.cents), views=views,
            latencies={"packet grab": self.latency.encode()},
        )  # fmt: skip

    def request(self, index: int) -> Call:
        return Call(_GRAB, "grab", (self.spec.room, f"packet-{index // self.spec.links}"))

    def answered(self, index: int, opcode: int, fields: Any, at_us: int) -> None:
        packet = index // self.spec.links
        if opcode == Opcode.RESULT:
            share, cents = fields[1][:2]
            self.codes["taken"] += 1
            self.cents[f"packet-{packet}"] += cents
            self.shares.add((packet, share))
        else:
            self.codes[ErrorCode(fields[0]).name] += 1
        self.latency.record(at_us - self.due_us(index))


if __name__ == "__main__":
    play(Grabbers, GrabberSpec)
