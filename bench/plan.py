"""Estimates of how long runs take, and schedules shortened to a budget.

A scenario defines the length of its schedule; everything around it (connecting, draining, the raw loop, the checks) was
timed on a 2-core machine and is right within a third. With a budget, schedules are shortened so that the remaining runs
fit into the remaining time; the report says by how much, and the goals of a shortened run are not evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.scenario import Scenario, reference_of

__all__ = ["LEAST_SHARE", "about", "around_s", "fitted", "rough_s", "scheduled_s", "slowness"]

START_S = 10.0
"""Start and end of processes, joins of publishers, draining, the report."""
PER_LINK_S = 1 / 3000
"""Connect, token, join."""
PER_MEMBER_S = 60e-6
"""Creation of one viewer on a shared socket."""
QUIET_S = 6.0
"""Wait for the counters of the joins, with shared sockets."""
PER_SEND_S = 10e-6
FLOOR_PAUSE = 1.7
"""Each raw sweep is followed by a pause of seven tenths of its time."""
LEDGER_S = 5.0
"""Two probes of the disk, and the verification."""
PER_EVENT_S = 60e-6
LEAST_SHARE = 0.2
"""Shortest part of a schedule that is run; a budget that needs less is refused."""


def around_s(scenario: Scenario) -> float:
    """Return the seconds that a run takes besides its schedule."""
    if scenario.way == "memory":
        return 5.0
    viewers = scenario.viewers
    seconds = START_S
    if scenario.way == "shared":
        seconds += QUIET_S + viewers * PER_MEMBER_S
    else:
        seconds += max(viewers * PER_LINK_S, viewers / scenario.connect_per_s if scenario.connect_per_s else 0.0)
    seconds += scenario.floor_sweeps * 2 * viewers * PER_SEND_S * FLOOR_PAUSE
    if scenario.durable:
        seconds += LEDGER_S + PER_EVENT_S * scenario.seconds * sum(stream.peak for stream in scenario.streams)
    return seconds


def scheduled_s(scenario: Scenario) -> float:
    """Return the seconds of the schedule, with that of the reference run."""
    reference = reference_of(scenario)
    own = scenario.seconds / 10 if scenario.way == "memory" else scenario.seconds
    return own + (0.0 if reference is None else scheduled_s(reference))


def rough_s(scenario: Scenario) -> float:
    """Return the seconds that a run takes in total, with its reference run."""
    reference = reference_of(scenario)
    return scheduled_s(scenario) + around_s(scenario) + (0.0 if reference is None else around_s(reference))


def about(seconds: float) -> str:
    """Return a rough duration as text."""
    return f"{round(seconds / 5) * 5} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def slowness(scenario: Scenario, took_s: float) -> float:
    """Return the factor, at least 1, by which everything around the schedule took longer than planned."""
    return max(1.0, (took_s - scheduled_s(scenario)) / (rough_s(scenario) - scheduled_s(scenario)))


def fitted(scenarios: Sequence[Scenario], left_s: float, slower: float = 1.0) -> list[Scenario] | None:
    """Return ``scenarios`` with schedules shortened to fit into ``left_s``; None if they cannot (`LEAST_SHARE`).

    ``slower``: factor for the time around the schedules (`slowness`).
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
    reference = dict(scenario.reference)
    if "seconds" in reference:
        reference["seconds"] *= share
    return msgspec.structs.replace(scenario, seconds=round(scenario.seconds * share, 1), reference=reference)
