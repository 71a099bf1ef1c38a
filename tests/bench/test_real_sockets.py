"""Scenario real-100k, small: every viewer has every announcement, from raw senders and from the broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.micro.redis_process import redis_program
from bench.real_sockets import PER_PROCESS, percentile, run_real


def test_a_percentile_of_nothing_is_no_number() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert percentile([1.0, 2.0], 1.0) == 2.0
    assert percentile([], 0.99) != percentile([], 0.99)


async def test_more_viewers_than_descriptors_are_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match=r"take .* viewers|redis-server"):
        await run_real(2 * PER_PROCESS + 1, 2, None)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.skipif(redis_program() is None, reason="there is no redis-server")
async def test_every_viewer_has_every_announcement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.real_sockets.ANNOUNCEMENTS", 1)
    monkeypatch.setattr("bench.real_sockets.PAUSE_S", 0.1)
    assert await run_real(60, 1, tmp_path / "result.json") == 0
    found = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (found["viewers"], found["processes"], found["raw_lost"], found["broker_lost"]) == (60, 1, 0, 0)
    assert found["ratio"] > 0
    assert "announcement p99" in capsys.readouterr().out
