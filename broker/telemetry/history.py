"""The last quarter of an hour of a whole broker, a column of one number a second for each figure that a chart shows."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import nan
from typing import Any

from protocol.codes import Lane

__all__ = ["HISTORY_S", "SecondHistory"]

HISTORY_S = 900
NUMBERS = (
    "at_ms", "connections", "rooms", "fanout_deliveries_total", "memory_bytes", "missed_chat_total",
    "ledger_commits_total", "ledger_commit_seconds_total", "loop_slow_steps_total", "overload_stage",
)  # fmt: skip
BY_LANE = (
    "messages_admitted_total", "messages_merged_total", "messages_sampled_total", "messages_expired_total",
)  # fmt: skip
LANES = tuple(lane.name.lower() for lane in Lane)


class SecondHistory:
    """A ring of the samples of `HISTORY_S` seconds. It takes 8 bytes a figure and second, 230 KB in all, once full."""

    def __init__(self, seconds: int = HISTORY_S) -> None:
        self._most = seconds
        by_lane = (f"{table}.{lane}" for table in BY_LANE for lane in LANES)
        names = (*NUMBERS, *by_lane, "posts_refused_total.all", "publish_ms.p99")
        self._columns = {name: array("d") for name in names}
        self._next = 0

    def __len__(self) -> int:
        return len(self._columns["at_ms"])

    def add(self, event: Mapping[str, Any]) -> None:
        """Take the event of a second, as `GET /stats` sends it (Any: its values)."""
        values = {name: event[name] for name in NUMBERS}
        for table in BY_LANE:
            values |= {f"{table}.{lane}": event[table].get(lane, 0) for lane in LANES}
        values["posts_refused_total.all"] = sum(event["posts_refused_total"].values())
        p99 = event["publish_ms"]["p99"]
        values["publish_ms.p99"] = nan if p99 is None else p99
        is_full = len(self) == self._most
        for name, column in self._columns.items():
            if is_full:
                column[self._next] = values[name]
            else:
                column.append(values[name])
        if is_full:
            self._next = (self._next + 1) % self._most

    def columns(self, seconds: int) -> dict[str, list[float | int | None]]:
        """Return the last ``seconds`` of every figure by its name, the oldest first; None = nothing was counted."""
        found = {}
        for name, column in self._columns.items():
            turned = [*column[self._next :], *column[: self._next]]
            found[name] = [_plain(value) for value in turned[-seconds:]]
        return found


def _plain(value: float) -> float | int | None:
    return None if value != value else int(value) if value.is_integer() else round(value, 6)
