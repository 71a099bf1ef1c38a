"""Overload control: stages of load shedding, the interval of ticks and the budget of queued bytes.

Three pure parts:

- `OverloadMonitor` turns three measurements into one of five stages. It rises at once, to whatever stage the worst
  measurement demands, and falls one stage at a time, after ``quiet_s`` seconds in which every measurement stayed below
  the lower threshold of the present stage. So it neither flaps nor stays high for long.
- `TickPacer` stretches a room's tick when sweeping its viewers takes more than its share of the time, and
  shrinks it again when that is over.
- `ByteBudget` counts the bytes that wait in queues and histories, the first of the three measurements.

What each stage means is the table `STAGE_RULES`; when each stage begins and ends is the table `THRESHOLDS`. Each stage
contains the ones below it: what is shed first is missed least, and control and commerce are never shed.
Nothing here drops anything: the callers apply the rules of the stage.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import IntEnum
from math import exp
from typing import NamedTuple

from protocol.codes import Lane

__all__ = [
    "STAGE_RULES",
    "THRESHOLDS",
    "ByteBudget",
    "OverloadMonitor",
    "OverloadSignal",
    "OverloadStage",
    "StageRule",
    "Threshold",
    "TickPacer",
    "Transition",
]


class OverloadStage(IntEnum):
    """How hard the broker defends itself; the number is on the wire and in the metrics."""

    NORMAL = 0
    SHED_AMBIENT = 1
    SAMPLE_HARDER = 2
    REFUSE_JOINS = 3
    COMMERCE_ONLY = 4


class StageRule(NamedTuple):
    """What one stage demands of the rest of the broker."""

    admits: frozenset[Lane]
    """Lanes whose messages are still taken in; one on another lane is LIMITED with a time to retry, chat is sampled."""
    state_spare_s: float
    """So much longer are counters kept back; likes are summed all the same, a sum costs nearly nothing."""
    chat_budget_share: float
    """Part of each viewer tier's danmaku budget that is still shown."""
    stretches_tick: bool
    """Whether ticks may grow to the pacer's overload bound."""
    join_retry_after_s: float
    """Above 0: new joins are refused with this hint (the caller adds jitter). Resumes of known sessions pass."""


_ALL = frozenset(Lane)

STAGE_RULES: dict[OverloadStage, StageRule] = {
    OverloadStage.NORMAL: StageRule(_ALL, 0.0, 1.0, False, 0.0),
    OverloadStage.SHED_AMBIENT: StageRule(_ALL, 6.0, 1.0, False, 0.0),
    OverloadStage.SAMPLE_HARDER: StageRule(_ALL, 6.0, 0.5, True, 0.0),
    OverloadStage.REFUSE_JOINS: StageRule(_ALL, 6.0, 0.5, True, 5.0),
    OverloadStage.COMMERCE_ONLY: StageRule(frozenset({Lane.CONTROL, Lane.COMMERCE}), 6.0, 0.0, True, 15.0),
}


class OverloadSignal(IntEnum):
    """What is measured; of two that demand the same stage, the earlier is named as the reason."""

    QUEUE_BYTES = 0
    """Bytes waiting / bytes allowed (`ByteBudget.ratio`). Not smoothed: memory is a hard bound."""
    LOOP_LAG = 1
    """Seconds by which the event loop is late, smoothed."""
    SWEEP_SHARE = 2
    """Part of the loop's time that fan-out takes (may exceed 1), smoothed."""


class Threshold(NamedTuple):
    """When one signal begins and ends each stage; ends lie below begins."""

    rises_at: tuple[float, float, float, float]
    """Stage k begins when the signal reaches the k-th value (k = 1..4)."""
    falls_below: tuple[float, float, float, float]
    """Stage k may end when the signal is below the k-th value."""


THRESHOLDS: dict[OverloadSignal, Threshold] = {
    # 80 % and 95 % leave a fifth and a twentieth of the budget for what is under way.
    OverloadSignal.QUEUE_BYTES: Threshold((0.80, 0.85, 0.90, 0.95), (0.70, 0.75, 0.80, 0.85)),
    # 50 ms is half a tick; 150 ms a viewer sees; at 400 ms acks look lost; at 1 s deadlines begin to fail.
    OverloadSignal.LOOP_LAG: Threshold((0.050, 0.150, 0.400, 1.000), (0.025, 0.075, 0.200, 0.500)),
    # The pacer aims at 0.6, so 0.8 means that its bound of one second is reached; above 1 sweeps fall behind for good.
    # Stage 4 begins where even a tick of two seconds and half of the danmaku leave no time for anything else.
    OverloadSignal.SWEEP_SHARE: Threshold((0.80, 0.95, 1.50, 3.00), (0.70, 0.80, 1.20, 2.00)),
}


class Transition(NamedTuple):
    """The latest change of stage. ``value`` is the signal's as it was evaluated; ``at`` is monotonic seconds.

    When the stage falls, ``signal`` is the one that is nearest to its lower threshold.
    """

    at: float
    before: OverloadStage
    after: OverloadStage
    signal: OverloadSignal
    value: float


class OverloadMonitor:
    """The broker's stage. ``quiet_s`` > 0: calm needed per step down; ``smoothing_s`` > 0: memory of lag and share.

    A stall is evaluated by its length, not by how often it was sampled: the smoothing is over time, so one late
    call after a stall of two seconds weighs as much as ten within it, and one garbage collection of 100 ms does
    nothing. From stage 4 back to 0 takes four quiet times, 20 s.
    """

    __slots__ = ("_latest", "_quiet_s", "_quiet_since", "_smoothed", "_smoothing_s", "stage", "transition")

    def __init__(self, quiet_s: float = 5.0, smoothing_s: float = 1.0) -> None:
        if not quiet_s > 0 or not smoothing_s > 0:
            raise ValueError(f"not a monitor: {quiet_s=} {smoothing_s=}")
        self.stage = OverloadStage.NORMAL
        self.transition: Transition | None = None
        """The latest change of `stage`, for the log."""
        self._quiet_s = quiet_s
        self._smoothing_s = smoothing_s
        self._smoothed = [0.0] * len(OverloadSignal)
        self._latest: float | None = None
        self._quiet_since: float | None = None

    @property
    def rule(self) -> StageRule:
        """What the present stage demands."""
        return STAGE_RULES[self.stage]

    def observe(self, queue_bytes_ratio: float, loop_lag_s: float, sweep_share: float, now: float) -> OverloadStage:
        """Judge one set of measurements (each >= 0) and return the stage; call it every 100 ms or so.

        ``now`` that goes back counts as no time passing. About 3 us.
        """
        elapsed_s = 0.0 if self._latest is None else max(0.0, now - self._latest)
        now = now if self._latest is None else max(now, self._latest)
        self._latest = now
        weight = 1.0 - exp(-elapsed_s / self._smoothing_s)
        smoothed = self._smoothed
        smoothed[OverloadSignal.QUEUE_BYTES] = queue_bytes_ratio
        smoothed[OverloadSignal.LOOP_LAG] += weight * (loop_lag_s - smoothed[OverloadSignal.LOOP_LAG])
        smoothed[OverloadSignal.SWEEP_SHARE] += weight * (sweep_share - smoothed[OverloadSignal.SWEEP_SHARE])

        demanded, reason = 0, OverloadSignal.QUEUE_BYTES
        for signal, (rises_at, _) in THRESHOLDS.items():
            stage = bisect_right(rises_at, smoothed[signal])
            if stage > demanded:
                demanded, reason = stage, signal
        if demanded > self.stage:
            self._quiet_since = None
            self._go(OverloadStage(demanded), reason, now)
        elif self.stage:
            self._step_down(now)
        return self.stage

    def _step_down(self, now: float) -> None:
        """Step down once if all was quiet for long enough."""
        step = self.stage - 1
        nearest, signal = max((self._smoothed[s] / THRESHOLDS[s].falls_below[step], -s) for s in OverloadSignal)
        if nearest >= 1.0:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since >= self._quiet_s:
            self._quiet_since = now
            self._go(OverloadStage(step), OverloadSignal(-signal), now)

    def _go(self, stage: OverloadStage, signal: OverloadSignal, now: float) -> None:
        self.transition = Transition(now, self.stage, stage, signal, self._smoothed[signal])
        self.stage = stage


class TickPacer:
    """Interval between the ticks of one room.

    A sweep may take ``share`` of the interval. A sweep that took more stretches the interval to fit at once, up to
    ``max_ms``, in overload up to ``overload_max_ms`` if that is more; one that took clearly less (below 80 % of its
    share) shrinks it by at most 30 %. From 2 s back to 100 ms that takes nine sweeps and 6.5 s, so a room is back at
    its base within 10 s. Between the two the interval is unchanged, which keeps a steady room from swinging.
    """

    __slots__ = ("_base_s", "_max_s", "_overload_max_s", "_share", "interval_s")

    _SHRINK = 0.7
    _CLEARLY_LESS = 0.8

    def __init__(self, base_ms: int = 100, max_ms: int = 1000, overload_max_ms: int = 2000, share: float = 0.6) -> None:
        if not 0 <= base_ms <= max_ms or not 0 < share <= 1:
            raise ValueError(f"not a pacer: {base_ms=} {max_ms=} {share=}")
        self._base_s = base_ms / 1000
        self._max_s = max_ms / 1000
        self._overload_max_s = max(max_ms, overload_max_ms) / 1000
        self._share = share
        self.interval_s = self._base_s

    @property
    def interval_ms(self) -> int:
        """The interval as it is sent to clients."""
        return round(self.interval_s * 1000)

    def observe(self, sweep_cost_s: float, stage: OverloadStage) -> float:
        """Take the loop time of one whole sweep (>= 0) and return the seconds until the next tick may come.

        Call it once a sweep. The answer lies within the base and the bound of ``stage``, always.
        """
        needed_s = sweep_cost_s / self._share
        interval_s = self.interval_s
        if needed_s > interval_s:
            interval_s = needed_s
        elif needed_s < self._CLEARLY_LESS * interval_s:
            interval_s = max(needed_s, self._SHRINK * interval_s, self._base_s)
        bound_s = self._overload_max_s if STAGE_RULES[stage].stretches_tick else self._max_s
        self.interval_s = min(interval_s, bound_s)
        return self.interval_s


class ByteBudget:
    """Bytes that wait anywhere in the broker against the bytes that may.

    ``limit_bytes`` >= 1. It refuses nothing: its ratio drives the stages, and near the limit the transports end the
    slowest links (`broker.net.transport`).
    """

    __slots__ = ("limit_bytes", "mismatches", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 1:
            raise ValueError(f"limit_bytes must be at least 1: {limit_bytes!r}")
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.mismatches = 0
        """Removals of more than there was: a defect of the broker, so tests demand 0 and the metric should be."""

    @property
    def ratio(self) -> float:
        """used / limit, >= 0; above 1 when the limit is passed."""
        return self.used_bytes / self.limit_bytes

    def add(self, size_bytes: int) -> None:
        """``size_bytes`` (>= 0) more are waiting."""
        self.used_bytes += size_bytes

    def remove(self, size_bytes: int) -> None:
        """``size_bytes`` (>= 0) were sent or dropped.

        More than there is leaves 0 and counts a mismatch: it is called while links are torn down, where an
        exception would leak more than a wrong count.
        """
        used_bytes = self.used_bytes - size_bytes
        if used_bytes < 0:
            self.mismatches += 1
            used_bytes = 0
        self.used_bytes = used_bytes
