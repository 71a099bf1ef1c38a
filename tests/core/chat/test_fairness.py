"""The lower a sender's standing, the sooner they are shown."""

from __future__ import annotations

import pytest

from broker.core.chat import fairness as standing
from broker.core.chat.fairness import QUIET_BELOW, FairnessScores


def test_each_message_stands_behind_the_senders_earlier_ones() -> None:
    standings = FairnessScores(10.0)
    assert [standings.attempt("loud", 0.0) for _ in range(3)] == [0, 1, 2]
    assert standings.attempt("quiet", 0.0) == 0


def test_a_message_shown_weighs_and_fades() -> None:
    standings = FairnessScores(10.0)
    standings.attempt("a", 0.0)
    standings.close_window(["a"], 0.1)
    assert standings.attempt("a", 0.2) == 1
    standings.close_window([], 0.3)
    assert QUIET_BELOW > standings.attempt("a", 10.3) >= 0.2
    standings.close_window([], 10.4)
    assert standings.attempt("a", 3_600.0) == 0


def test_who_floods_unseen_stands_behind_who_waits() -> None:
    standings = FairnessScores(10.0)
    for _ in range(20):
        standings.attempt("loud", 0.0)
    standings.attempt("quiet", 0.0)
    assert standings.insistence("loud") > QUIET_BELOW > standings.insistence("quiet") == 0
    standings.close_window([], 0.1)
    assert standings.attempt("loud", 0.1) > standings.attempt("quiet", 0.1) == 0


def test_both_tables_are_bounded_and_the_longest_unseen_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "MAX_KNOWN", 3)
    monkeypatch.setattr(standing, "MAX_IN_WINDOW", 2)
    standings = FairnessScores(10.0)
    standings.close_window(["a", "b", "c"], 0.0)
    for sender in "efgh":
        standings.attempt(sender, 0.0)
    standings.close_window(["c"], 0.0)  # who tried once and was not shown takes no other's place
    standings.close_window(["a", "d"], 0.1)
    assert [standings.attempt(sender, 0.2) for sender in ("b", "a", "c")] == [0, 2, 2]
    assert standings.attempt("a", 0.2) == 3
    assert standings.attempt("c", 0.2) == 2  # the third sender of the window is not counted


def test_a_memory_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        FairnessScores(0.0)
