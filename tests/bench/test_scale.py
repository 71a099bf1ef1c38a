"""The tables of ``broker/guides/scale.md`` are what the arithmetic gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.scale import DESIGN, POINTS, Point, cores_table, hosts_table, plan

GUIDE = Path(__file__).parents[2] / "broker" / "guides" / "scale.md"
VIEWERS = [1_000_000, 15_000_000]


def test_the_guide_has_the_tables_that_the_command_prints() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert cores_table(VIEWERS) in text
    assert hosts_table(DESIGN, VIEWERS) in text


def test_a_point_by_hand() -> None:
    """Two ticks and an event: three packets of 110 B, twenty danmaku of 50 B; 120,000 sends a second over three."""
    point = Point(ticks=2, shown=20, entry_bytes=50)
    assert point.bytes_per_s == 20 * 50 + 3 * 110
    assert point.viewers_a_core == 40_000
    need = plan(point, 1_000_000)
    assert (need.processes, need.hosts) == (32, 8)  # 25 and a quarter of it, rounded up; four to a host
    assert need.gbit_a_host == pytest.approx(1_000_000 * 1330 * 8 / 8 / 1e9)
    assert need.engine_deliveries_per_s == 32 * 3


def test_what_the_guide_says_the_measures_save() -> None:
    ten, ten_packed, two, two_packed, one, one_packed = (point.bytes_per_s for point in POINTS[:6])
    assert [round(1 - two / ten, 2), round(1 - two_packed / ten_packed, 2)] == [0.36, 0.39]
    saved = [1 - packed / plain for plain, packed in ((ten, ten_packed), (two, two_packed), (one, one_packed))]
    assert (round(min(saved), 2), round(max(saved), 2)) == (0.08, 0.19)
