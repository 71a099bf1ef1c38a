from __future__ import annotations

from typing import Any

import pytest

from bench.report.notes import run_notes
from bench.scenario import Scenario, load_scenario


def evidence(**more: Any) -> dict[str, Any]:
    return {"reports": [], "notes": [], "before": {}, "final": {}, "own_size": True, **more}


def notes_of(headline: dict[str, float], scenario: Scenario | None = None, **more: Any) -> str:
    return "\n".join(run_notes(scenario or load_scenario("like-storm"), evidence(**more), headline, 2))


def test_the_cost_of_receiving_is_not_evaluated_with_few_deliveries() -> None:
    assert notes_of({"generator_cores_at_100k": 0.9, "deliveries_per_s": 20_000.0}) == ""


def test_a_quiet_run_has_no_notes() -> None:
    headline = {
        "generator_cores": 0.5, "publisher_cores": 0.2, "broker_cores": 0.8, "generator_cores_at_100k": 0.59,
        "late_p99_ms": 3.0, "others_cores": 0.05,
    }  # fmt: skip
    assert notes_of(headline) == ""


@pytest.mark.parametrize(
    ("headline", "words"),
    [
        ({"generator_cores": 0.95}, "the generator was the limit: a viewer process used 95% of a core"),
        ({"publisher_cores": 0.95}, "the generator was the limit: the publisher process used 95%"),
        ({"generator_cores_at_100k": 0.7, "deliveries_per_s": 80_000.0}, "70% of a core at 100,000 deliveries"),
        (
            {"broker_cores": 1.1, "generator_cores": 0.85},
            "the machine was the limit: the processes of this run used 1.95",
        ),
        ({"others_cores": 0.8}, "other work on the machine (or its host) took 0.80 of its 2 cores"),
        ({"late_p99_ms": 80.0}, "late by 80 ms"),
    ],
)
def test_a_limit_of_generator_or_machine_is_a_note(headline: dict[str, float], words: str) -> None:
    assert words in notes_of(headline)


def test_resumes_are_reported_by_where_they_were_served_from() -> None:
    reports = [{"unicast_frames": {"recovered": 70}}, {"unicast_frames": {"recovered": 30, "not recovered": 2}}]
    before, after = {"histories": 1, "by_ledger": 1}, {"histories": 51, "by_ledger": 41}
    ledger: dict[str, Any] = {"before": {"ledger": before}, "final": {"ledger": after}}
    assert "102 resumes: 60 from the rooms' history, 40 from the ledger (in 50 queries), 2 could not" in notes_of(
        {}, reports=reports, **ledger
    )
    assert "100 from the rooms' history, there is no ledger in this run" in notes_of({}, reports=reports)


def test_goals_without_a_figure_or_of_another_size_are_a_note() -> None:
    scenario = load_scenario("join-storm")
    assert "goals without a measured figure: kib_per_viewer" in notes_of({"joins_per_core_s": 9000.0}, scenario)
    assert "goals are not evaluated" in notes_of({}, scenario, own_size=False)


def test_a_disk_that_is_memory_is_named() -> None:
    assert "in memory?" in notes_of({}, sync_floor={"per_s": 900_000.0})
