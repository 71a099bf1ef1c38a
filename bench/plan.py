"""How long a run takes, roughly, and how to stay within a given time.

The schedule is what a scenario says; everything around it (coming in, settling, the raw loop, adding up) was timed on a
2-core machine and is good to a third or so. With a budget, schedules are shortened so that what is left to do fits into
what is left of the time; the report says by how much, and a shortened run is not judged by its scenario's goals.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.scenario import Scenario, twin_of

__all__ = ["LEAST_SHARE", "about", "around_s", "fitted", "rough_s", "scheduled_s", "slowness"]

START_S = 10.0
"""Processes that start and end, publishers that join, settling, the report."""
PER_LINK_S = 1 / 3000
"""Connect, token, join."""
PER_SEAT_S = 60e-6
"""Seating one viewer of a crowd."""
CALM_S = 6.0
"""A crowd waits until its counters have come to rest."""
PER_SEND_S = 10e-6
FLOOR_PAUSE = 1.7
"""After each raw sweep comes a pause of seven tenths of it."""
LEDGER_S = 5.0
"""Two probes of the disk, and the verification."""
PER_EVENT_S = 60e-6
LEAST_SHARE = 0.2
"""A schedule that would have to be shortened below this says nothing any more."""


def around_s(scenario: Scenario) -> float:
    """Seconds that a run takes besides its schedule."""
    if scenario.way == "memory":
        return 5.0
    viewers = scenario.viewers
    seconds = START_S
    if scenario.way == "crowd":
        seconds += CALM_S + viewers * PER_SEAT_S
    else:
        seconds += max(viewers * PER_LINK_S, viewers / scenario.connect_per_s if scenario.connect_per_s else 0.0)
    seconds += scenario.floor_sweeps * 2 * viewers * PER_SEND_S * FLOOR_PAUSE
    if scenario.durable:
        seconds += LEDGER_S + PER_EVENT_S * scenario.seconds * sum(stream.peak for stream in scenario.streams)
    return seconds


def scheduled_s(scenario: Scenario) -> float:
    """Seconds that the schedule takes, its twin's included."""
    twin = twin_of(scenario)
    own = scenario.seconds / 10 if scenario.way == "memory" else scenario.seconds
    return own + (0.0 if twin is None else scheduled_s(twin))


def rough_s(scenario: Scenario) -> float:
    """Seconds that a run takes in all, its twin included."""
    twin = twin_of(scenario)
    return scheduled_s(scenario) + around_s(scenario) + (0.0 if twin is None else around_s(twin))


def about(seconds: float) -> str:
    """A rough time in words."""
    return f"{round(seconds / 5) * 5} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def slowness(scenario: Scenario, took_s: float) -> float:
    """By how much everything around a schedule took longer than planned, at least 1: a machine at work is slower."""
    return max(1.0, (took_s - scheduled_s(scenario)) / (rough_s(scenario) - scheduled_s(scenario)))


def fitted(scenarios: Sequence[Scenario], left_s: float, slower: float = 1.0) -> list[Scenario] | None:
    """``scenarios`` with schedules so short that all fit into ``left_s``; None where no sensible length does.

    ``slower``: what is around the schedules takes so many times as long as planned (`slowness`).
    """
    scheduled = sum(map(scheduled_s, scenarios))
    fixed = (sum(map(rough_s, scenarios)) - scheduled) * slower
    share = 1.0 if not scheduled else (left_s - fixed) / scheduled
    if share >= 1.0:
        return list(scenarios)
    if share < LEAST_SHARE:
        return None
    return [_shortened(scenario, share) for scenario in scenarios]


def _shortened(scenario: Scenario, share: float) -> Scenario:
    twin = dict(scenario.twin)
    if "seconds" in twin:
        twin["seconds"] *= share
    return msgspec.structs.replace(scenario, seconds=round(scenario.seconds * share, 1), twin=twin)
