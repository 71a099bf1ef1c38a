from __future__ import annotations

from typing import Any

from bench.report.compare import ASSUMED_BAND, compare_runs


def runs(*values: float, metric: str = "chat_p99_ms") -> list[dict[str, Any]]:
    return [
        {
            "scenario": "calm",
            "headline": {metric: value},
            "size": {"viewers": 1},
            "machine": {"cpu": "x"},
            "way": "sockets",
        }
        for value in values
    ]


def change(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    (row,) = compare_runs("calm", before, after).rows
    return row.change


def test_a_ratio_within_the_noise_is_no_difference() -> None:
    assert change(runs(100, 110, 90), runs(104, 95, 112)) == "no difference"


def test_a_ratio_beyond_the_noise_has_a_direction() -> None:
    assert change(runs(100, 101, 99), runs(150, 151, 149)) == "worse"
    assert change(runs(100, 101, 99), runs(50, 51, 49)) == "better"
    fast, slow = runs(1e6, 1.01e6, metric="danmaku_per_s"), runs(5e5, 5.01e5, metric="danmaku_per_s")
    assert change(slow, fast) == "better"


def test_the_band_is_at_least_three_percent() -> None:
    assert change(runs(100, 100, 100), runs(102, 102, 102)) == "no difference"


def test_single_runs_get_a_wide_band_and_a_note() -> None:
    comparison = compare_runs("calm", runs(100), runs(115))
    assert comparison.rows[0].band == ASSUMED_BAND
    assert comparison.rows[0].change == "no difference"
    assert "single run" in comparison.notes[0]


def test_different_sizes_are_pointed_out() -> None:
    other = runs(100, 100)
    for run in other:
        run["size"] = {"viewers": 2}
    assert any("size" in note for note in compare_runs("calm", runs(100, 100), other).notes)


def test_few_runs_get_a_wider_band_than_many() -> None:
    few = compare_runs("calm", runs(100, 104), runs(100, 104)).rows[0].band
    many = compare_runs("calm", runs(100, 104, 100, 104, 102), runs(100, 104, 100, 104, 102)).rows[0].band
    assert few > 2 * many


def test_figures_of_the_machine_are_neither_better_nor_worse() -> None:
    before, after = runs(0.1, 0.1, metric="others_cores"), runs(1.5, 1.5, metric="others_cores")
    assert change(before, after) == "environment"


def test_a_count_that_was_0_and_is_positive_is_worse() -> None:
    zero, some = runs(0, 0, metric="events_missed"), runs(3, 4, metric="events_missed")
    assert change(zero, some) == "worse"
    assert compare_runs("calm", zero, zero).rows == []
    assert compare_runs("calm", runs(0, 0, metric="rss_growth_mib"), runs(1, 1, metric="rss_growth_mib")).rows == []


def test_one_outlier_is_no_difference() -> None:
    calm, outlier = runs(0.8, 0.9, 1.0), runs(0.9, 1.0, 5.0)
    (row,) = compare_runs("calm", calm, outlier).rows
    assert row.ratio > 1.5
    assert row.change == "no difference"
    (back,) = compare_runs("calm", outlier, calm).rows
    assert back.change == "no difference"
