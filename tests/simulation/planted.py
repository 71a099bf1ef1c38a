"""What finds a planted bug: worlds of a few seeds under quiet conditions."""

from __future__ import annotations

from typing import Any

from tests.simulation.faults import QUIET
from tests.simulation.scenario import simulate

__all__ = ["finds"]


def finds(seeds: range, **conditions: Any) -> str:
    """Return the first failed check in worlds of these seeds without other faults; "" if there is none."""
    for seed in seeds:
        try:
            simulate(seed, **{**QUIET, **conditions})
        except BaseExceptionGroup as group:
            found: BaseException = group
            while isinstance(found, BaseExceptionGroup):
                found = found.exceptions[0]
            return str(found)
        except AssertionError as error:
            return str(error)
    return ""
