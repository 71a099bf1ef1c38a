"""Entrants of a lottery: its users enter by CALL, the broker's process enters more, and the draw is verified.

The lottery closes by the broker's clock and is drawn at once. Timed is from its close to the event of the draw at the
first link. The proof is read over HTTP and verified as `roomcast lottery verify` does, with the commitment and the root
that the first link has seen.
"""

from __future__ import annotations

import time
from typing import Any

from bench.load.callers import LAST_EVENTS_S, Callers, CallerSpec, play
from bench.measure import Latencies, now_us
from protocol.codes import ErrorCode, Opcode
from protocol.lottery.proof import verify
from protocol.messages import Call
from protocol.operations import BY_NAME
from protocol.operations.lotteries import GetLotteryProof

__all__ = ["LOTTERY", "EntrantSpec", "Entrants"]

LOTTERY = "bag"
DRAW_S = 30.0
"""Longest wait for the draw after the close."""
_ENTER = BY_NAME["lotteries.enter"].number
_PAGE = GetLotteryProof("", "").limit


class EntrantSpec(CallerSpec, forbid_unknown_fields=True, kw_only=True):
    """Spec of the process. ``open_s``: how long entries are taken; ``winners``: prizes; 0 of ``open_s``: the links only
    watch."""

    open_s: float
    winners: int


class Entrants(Callers):
    """All entrants."""

    prefix = "entrant"

    def __init__(self, spec: EntrantSpec) -> None:
        super().__init__(spec)
        self.spec = spec
        self.latency = Latencies()
        self.seen: dict[str, Any] = {}
        """Data of the lottery's events, by name, as the first link has received them."""
        self.seen_us: dict[str, int] = {}

    def play(self) -> dict[str, Any]:
        spec = self.spec
        if not spec.open_s:
            return self.report(LOTTERY)
        open_at_ms = self.opening()
        close_at_ms = open_at_ms + int(spec.open_s * 1000)
        closes_us = now_us() + close_at_ms * 1000 - time.time_ns() // 1000
        self.api.create(
            "lotteries.create", id=LOTTERY, open_at_ms=open_at_ms, close_at_ms=close_at_ms,
            grades=[{"name": "bag", "count": spec.winners}], max_entries=1_000_000,
        )  # fmt: skip
        self.call_all()
        while "lotteries.drawn" not in self.seen and now_us() < closes_us + int(DRAW_S * 1e6):
            self.read_ready(0.001)
        drawn_us = self.seen_us.get("lotteries.drawn", now_us())
        document = self._proof()
        return self.report(
            LOTTERY,
            draw_s=(drawn_us - closes_us) / 1e6,
            entries=len(document["entries"]),
            closed_entries=document["closed"]["entries"],
            winners=sum(map(len, document["winners"])),
            verdict=self._verdict(document),
            latencies={"lottery entry": self.latency.encode()},
        )

    def _proof(self) -> Any:
        """Return the whole proof. Any: its JSON."""
        document = self.api.call("lotteries.proof", id=LOTTERY, limit=_PAGE)
        if "code" in document:
            raise RuntimeError(f"there is no proof of the lottery: {document}")
        while (cursor := document.pop("next", None)) is not None:
            page = self.api.call("lotteries.proof", id=LOTTERY, limit=_PAGE, cursor=cursor)
            if page.get("code") == "RATE_LIMITED":
                time.sleep(0.2)
                document["next"] = cursor
                continue
            document["entries"] += page["entries"]
            for winners, more in zip(document["winners"], page["winners"], strict=True):
                winners += more
            document["next"] = page["next"]
            self.read_ready(0)
        self.watch(time.monotonic() + LAST_EVENTS_S)
        return document

    def _verdict(self, document: Any) -> str:
        """Return "" for a proof that is in order and is of what the first link has seen, else the failure."""
        result = verify(document, seen_root=self.seen["lotteries.closed"]["root"])
        return "" if result.failure is None else f"{result.failure}: {result.detail}"

    def request(self, index: int) -> Call:
        return Call(_ENTER, "", (self.spec.room, LOTTERY))

    def answered(self, index: int, opcode: int, fields: Any, at_us: int) -> None:
        self.codes["entered" if opcode == Opcode.RESULT else ErrorCode(fields[0]).name] += 1
        self.latency.record(at_us - self.due_us(index))

    def on_event(self, fields: Any, at_us: int) -> None:
        name, id, data = fields[4]
        if id == LOTTERY:
            self.seen[name] = data
            self.seen_us[name] = at_us


if __name__ == "__main__":
    play(Entrants, EntrantSpec)
