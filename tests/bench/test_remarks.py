from __future__ import annotations

from typing import Any

import pytest

from bench.report.remarks import remarks
from bench.scenario import Scenario, load_scenario


def evidence(**more: Any) -> dict[str, Any]:
    return {"reports": [], "notes": [], "before": {}, "final": {}, "own_size": True, **more}


def said(headline: dict[str, float], scenario: Scenario | None = None, **more: Any) -> str:
    return "\n".join(remarks(scenario or load_scenario("like-storm"), evidence(**more), headline, 2))


def test_receiving_is_not_judged_where_there_was_little_to_receive() -> None:
    assert said({"generator_cores_at_100k": 0.9, "deliveries_per_s": 20_000.0}) == ""


def test_a_quiet_run_needs_no_remark() -> None:
    headline = {
        "generator_cores": 0.5, "publisher_cores": 0.2, "broker_cores": 0.8, "generator_cores_at_100k": 0.59,
        "late_p99_ms": 3.0, "others_cores": 0.05,
    }  # fmt: skip
    assert said(headline) == ""


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
        ({"others_cores": 0.8}, "the machine was shared: other work (or its host) took 0.80 of its 2 cores"),
        ({"late_p99_ms": 80.0}, "late by 80 ms"),
    ],
)
def test_what_spoils_a_figure_is_said(headline: dict[str, float], words: str) -> None:
    assert words in said(headline)


def test_resumes_are_reported_by_where_they_were_served_from() -> None:
    reports = [{"singles": {"recovered": 70}}, {"singles": {"recovered": 30, "not recovered": 2}}]
    before, after = {"histories": 1, "by_ledger": 1}, {"histories": 51, "by_ledger": 41}
    ledger = {"before": {"ledger": before}, "final": {"ledger": after}}
    assert "102 resumes: 60 from the rooms' memory, 40 from the ledger (in 50 questions), 2 could not" in said(
        {}, reports=reports, **ledger
    )
    assert "100 from the rooms' memory, there is no ledger in this run" in said({}, reports=reports)


def test_goals_that_nobody_measured_or_of_another_size_are_not_passed_over_in_silence() -> None:
    scenario = load_scenario("join-storm")
    assert "could not be judged, because nothing was measured: kib_per_viewer" in said(
        {"joins_per_core_s": 9000.0}, scenario
    )
    assert "goals are not judged" in said({}, scenario, own_size=False)


def test_a_disk_that_is_memory_is_named() -> None:
    assert "memory?" in said({}, sync_floor={"per_s": 900_000.0})
