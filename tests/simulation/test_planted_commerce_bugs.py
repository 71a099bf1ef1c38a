"""Bugs of lotteries, planted one by one: the simulation must find each within a few seeds."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.commerce.activity import ActivityStep
from broker.core.commerce.lottery import EnterCommand, Lottery
from tests.simulation.faults import QUIET
from tests.simulation.scenario import simulate

pytestmark = pytest.mark.integration

Patch = pytest.MonkeyPatch


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


def test_an_entry_that_is_answered_and_not_written_is_found(monkeypatch: Patch) -> None:
    decide = Lottery.decide

    def unwritten(self: Any, command: Any, *args: Any) -> ActivityStep[Any] | None:
        step = decide(self, command, *args)
        return step._replace(facts=()) if step is not None and isinstance(command, EnterCommand) else step

    monkeypatch.setattr(Lottery, "decide", unwritten)
    assert "is lost" in finds(range(1, 5))


def test_a_draw_that_is_not_that_of_its_proof_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Lottery, "_draw_key", lambda self, config, signature: bytes(32))
    assert "BAD_WINNERS" in finds(range(1, 5))
