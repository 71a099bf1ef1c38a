"""Worlds from seeds: a few each time, hundreds when asked, and proof that they would notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.core.effects import Record
from broker.ledger import Committed, Settled, Verdict
from broker.recorder import Recorder
from tests.sim.house import SimLedger
from tests.sim.show import simulate


@pytest.mark.parametrize("seed", range(1, 9))
def test_what_was_promised_comes_true_whatever_breaks(seed: int) -> None:
    simulate(seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hundreds_of_worlds() -> None:
    for seed in range(1000, 1300):
        simulate(seed)


def test_the_same_seed_gives_the_same_world() -> None:
    first, second = simulate(42), simulate(42)
    assert first.log == second.log
    assert first.digest == second.digest != simulate(43).digest


def fails(seeds: range) -> bool:
    """Whether one of these worlds ends badly."""
    for seed in seeds:
        try:
            simulate(seed)
        except (Exception, BaseExceptionGroup):
            return True
    return False


def test_a_broker_that_tells_before_the_commit_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Recorder.record

    def tells_early(
        self: Recorder, room: str, epoch: int, what: Record[Any], note: bytes, on_settled: Callable[[Settled], None]
    ) -> Verdict:
        verdict = record(self, room, epoch, what, note, lambda settled: None)
        history = on_settled.func.__self__.state.history  # type: ignore[attr-defined]
        on_settled(Committed((history.last_offset + 1,)))
        return verdict

    monkeypatch.setattr(Recorder, "record", tells_early)
    assert fails(range(1, 6))


def test_a_ledger_without_keys_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    record = SimLedger.record
    monkeypatch.setattr(SimLedger, "record", lambda self, items, on_done, keys=(): record(self, items, on_done))
    assert fails(range(1, 11))
