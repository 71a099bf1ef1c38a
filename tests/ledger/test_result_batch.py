"""Deferred flushes: once each, events before answers, nothing deferred outside a batch."""

from __future__ import annotations

import pytest

from broker.ledger import ResultBatch


def test_nothing_is_deferred_outside_a_batch() -> None:
    batch = ResultBatch()
    assert not batch.defer(lambda: None)
    assert not batch.defer(lambda: None, answers=True)
    with batch:
        pass
    assert not batch.defer(lambda: None)


def test_each_flush_runs_once_events_before_answers() -> None:
    batch = ResultBatch()
    calls: list[str] = []

    def answer() -> None:
        calls.append("answer")

    def event() -> None:
        calls.append("event")

    with batch:
        assert batch.defer(answer, answers=True)
        assert batch.defer(event)
        assert batch.defer(event)
        assert batch.defer(answer, answers=True)
        assert calls == []
    assert calls == ["event", "answer"]
    with batch:
        assert batch.defer(event)
    assert calls == ["event", "answer", "event"]


def test_while_events_are_flushed_only_answers_are_deferred() -> None:
    batch = ResultBatch()
    calls: list[object] = []

    def answer() -> None:
        calls.append(batch.defer(answer, answers=True))

    def event() -> None:
        calls.append((batch.defer(event), batch.defer(answer, answers=True)))

    with batch:
        batch.defer(event)
    assert calls == [(False, True), False]


def test_an_event_that_fails_to_flush_does_not_hold_back_the_answers() -> None:
    batch = ResultBatch()
    answered: list[bool] = []

    def fail() -> None:
        raise ZeroDivisionError

    batch.__enter__()
    batch.defer(fail)
    batch.defer(lambda: answered.append(True), answers=True)
    with pytest.raises(ZeroDivisionError):
        batch.__exit__(None, None, None)
    assert answered == [True]
