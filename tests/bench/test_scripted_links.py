"""Way (c): scripted links keep their script, and the sums hold under them."""

from __future__ import annotations

import pytest

from bench.report.report import render
from bench.run import RunOptions
from bench.scenario import LinkScript, Sizes, load_scenario, resize
from bench.scripted_links import Pipe, run_memory


def test_a_pipe_takes_what_fits_and_delivers_at_its_pace() -> None:
    pipe = Pipe(LinkScript(share=1, bytes_per_s=1000, buffer_bytes=1024), 0.0)
    assert pipe.send(b"x" * 2000) == 1024
    with pytest.raises(BlockingIOError):
        pipe.send(b"y")
    assert not pipe.has_room
    delivered = b"".join(pipe.deliver(step / 10, 0.1) for step in range(5))
    assert delivered == b"x" * 500
    assert pipe.has_room


def test_a_stalled_pipe_delivers_nothing_until_its_time() -> None:
    pipe = Pipe(LinkScript(share=1, stall_every_s=10, stall_s=4), 0.0)
    pipe.send(b"abc")
    assert pipe.deliver(12.0, 0.01) == b""
    assert pipe.deliver(15.0, 0.01) == b"abc"


@pytest.mark.integration
def test_policies_under_scripted_links_add_up_and_never_look_like_real_ones() -> None:
    scenario = resize(load_scenario("scripted-links"), Sizes(smoke=True, viewers=50, seconds=5))
    result = run_memory(scenario, RunOptions(), lambda text: None)
    assert result["invariants"]["violations"] == []
    assert result["latencies"]["chat"]["count"] > 0
    assert "fanout_ratio" not in result["headline"]
    assert "cpu_delivery_us" not in result["headline"]
    page = render({"runs": [result]})
    assert "SIMULATED links in memory" in page
    assert 'class="memory"' in page
    assert "(a) real links" not in page


@pytest.mark.integration
def test_the_same_seed_gives_the_same_run() -> None:
    scenario = resize(load_scenario("scripted-links"), Sizes(smoke=True, viewers=20, seconds=3))
    first, second = (run_memory(scenario, RunOptions(seed=5), lambda text: None) for _ in range(2))
    assert first["lanes"] == second["lanes"]
    assert first["latencies"] == second["latencies"]
