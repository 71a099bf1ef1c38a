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


def verdict(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    (row,) = compare_runs("calm", before, after).rows
    return row.verdict


def test_a_ratio_within_the_noise_is_no_difference() -> None:
    assert verdict(runs(100, 110, 90), runs(104, 95, 112)) == "no difference"


def test_a_ratio_beyond_the_noise_has_a_direction() -> None:
    assert verdict(runs(100, 101, 99), runs(150, 151, 149)) == "worse"
    assert verdict(runs(100, 101, 99), runs(50, 51, 49)) == "better"
    fast, slow = runs(1e6, 1.01e6, metric="danmaku_per_s"), runs(5e5, 5.01e5, metric="danmaku_per_s")
    assert verdict(slow, fast) == "better"


def test_runs_that_agree_by_luck_prove_nothing_below_three_percent() -> None:
    assert verdict(runs(100, 100, 100), runs(102, 102, 102)) == "no difference"


def test_single_runs_get_a_wide_band_and_a_note() -> None:
    comparison = compare_runs("calm", runs(100), runs(115))
    assert comparison.rows[0].band == ASSUMED_BAND
    assert comparison.rows[0].verdict == "no difference"
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


def test_what_the_machine_did_is_neither_better_nor_worse() -> None:
    before, after = runs(0.1, 0.1, metric="others_cores"), runs(1.5, 1.5, metric="others_cores")
    assert verdict(before, after) == "circumstance"


def test_a_count_that_was_nothing_and_is_something_is_worse() -> None:
    zero, some = runs(0, 0, metric="events_missed"), runs(3, 4, metric="events_missed")
    assert verdict(zero, some) == "worse"
    assert compare_runs("calm", zero, zero).rows == []
    assert compare_runs("calm", runs(0, 0, metric="rss_growth_mib"), runs(1, 1, metric="rss_growth_mib")).rows == []


def test_noise_multiplies_so_a_wild_run_upwards_proves_nothing() -> None:
    calm, wild = runs(0.8, 0.9, 1.0), runs(0.9, 1.0, 5.0)
    (row,) = compare_runs("calm", calm, wild).rows
    assert row.ratio > 1.5
    assert row.verdict == "no difference"
    (back,) = compare_runs("calm", wild, calm).rows
    assert back.verdict == "no difference"
