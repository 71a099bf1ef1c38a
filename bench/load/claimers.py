"""Buyers of a flash sale: thousands of links claim at the same moment, and the platform confirms over HTTP.

Every buyer claims several times. Each claim has a key of its own, so the broker decides each. Three parties are
compared: what buyers were answered, what the platform has confirmed, and the counts of the sale at its end.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from typing import Any

from bench.load.callers import LAST_EVENTS_S, OPENING_MS, Callers, CallerSpec, ControlApi, play
from bench.measure import Latencies
from protocol.activities.sales import ClaimState
from protocol.codes import ErrorCode, Opcode
from protocol.messages import Call
from protocol.operations import BY_NAME

__all__ = ["ClaimerSpec", "Claimers"]

SALE = "flash"
PRICE_CENTS = 1990
_CLAIM = BY_NAME["sales.claim"].number


class ClaimerSpec(CallerSpec, forbid_unknown_fields=True, kw_only=True):
    """Spec of the process."""

    stock: int
    first_window_ms: int


class _Platform(threading.Thread):
    """Confirms reservations over one connection of the control API, in the order in which they come."""

    def __init__(self, api: ControlApi) -> None:
        super().__init__(daemon=True)
        self.reserved: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.answers: Counter[str] = Counter()
        self._api = api

    def run(self) -> None:
        while (number := self.reserved.get()) > 0:
            answer = self._api.call("sales.confirm", id=SALE, number=number, order=f"order-{number}")
            self.answers[answer.get("state") or answer["code"]] += 1


class Claimers(Callers):
    """All buyers."""

    prefix = "buyer"

    def __init__(self, spec: ClaimerSpec) -> None:
        super().__init__(spec)
        self.spec = spec
        self.platform = _Platform(self.api)
        self.latencies = {"sale window": Latencies(), "sale claim": Latencies()}

    def play(self) -> dict[str, Any]:
        open_at_ms = self.opening()
        self.api.create(
            "sales.create", id=SALE, sku="mug", stock=self.spec.stock, price_cents=PRICE_CENTS, open_at_ms=open_at_ms,
            close_at_ms=open_at_ms + 600_000, first_window_ms=self.spec.first_window_ms,
        )  # fmt: skip
        self.platform.start()
        self.call_all()
        self.platform.reserved.put(0)
        self.platform.join()
        self.api.call("sales.close", id=SALE)
        (view,) = (item for item in self.api.call("sales.list")["items"] if item["id"] == SALE)
        self.watch(time.monotonic() + LAST_EVENTS_S)
        return self.report(
            SALE, confirmations=dict(self.platform.answers), view=view,
            latencies={name: each.encode() for name, each in self.latencies.items()},
        )  # fmt: skip

    def request(self, index: int) -> Call:
        return Call(_CLAIM, f"claim-{index // self.spec.links}", (self.spec.room, SALE))

    def answered(self, index: int, opcode: int, fields: Any, at_us: int) -> None:
        due_us = self.due_us(index)
        if opcode == Opcode.RESULT:
            claim = fields[1]
            state = ClaimState(claim[1])
            self.codes[state.name] += 1
            if state is ClaimState.RESERVED:
                self.platform.reserved.put(claim[0])
        else:
            self.codes[ErrorCode(fields[0]).name] += 1
        window_end = self.opened_us - OPENING_MS * 1000 + self.spec.first_window_ms * 1000
        if index < self.spec.links and due_us < window_end:
            self.latencies["sale window"].record(at_us - window_end)
        else:
            self.latencies["sale claim"].record(at_us - due_us)


if __name__ == "__main__":
    play(Claimers, ClaimerSpec)
