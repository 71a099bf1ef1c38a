from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from broker.core.nodes.restarts import FIRST_WAIT_S, MAX_WAIT_S, STEADY_S, Restarts


@given(st.integers(), st.lists(st.floats(0, 2 * STEADY_S), min_size=1, max_size=40))
def test_waits_double_until_a_process_has_served_for_long(seed: int, served: list[float]) -> None:
    restarts = Restarts(random.Random(seed))
    row = 0
    for seconds in served:
        row = 0 if seconds >= STEADY_S else row
        most = min(MAX_WAIT_S, FIRST_WAIT_S * 2**row)
        assert most / 2 <= restarts.wait_s(seconds) <= most
        row += 1
    assert restarts.total == len(served)


def test_processes_that_die_together_do_not_come_back_together() -> None:
    waits = {Restarts(random.Random(seed)).wait_s(0.0) for seed in range(20)}
    assert len(waits) == 20
