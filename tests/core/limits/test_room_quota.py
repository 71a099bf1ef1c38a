from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.limits.room_quota import RESERVED_LANES, WindowAdmission
from protocol.codes import Lane

lanes = st.sampled_from(Lane)
# (milliseconds since the message before, lane): whole milliseconds keep the twin's windows exact.
arrivals = st.lists(st.tuples(st.integers(0, 120), lanes), max_size=120)
shapes = st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


class Windows:
    """The slow twin: remembers every window it ever saw."""

    def __init__(self, per_window: int, window_ms: int, reserved: int, exempt: frozenset[Lane]) -> None:
        self.per_window, self.window_ms, self.reserved, self.exempt = per_window, window_ms, reserved, exempt
        self.let_in: dict[int, Counter[str]] = defaultdict(Counter)
        self.origin_ms: int | None = None

    def try_admit(self, lane: Lane, now_ms: int) -> bool:
        if self.origin_ms is None:
            self.origin_ms = now_ms
        window = self.let_in[(now_ms - self.origin_ms) // self.window_ms]
        kind = "high" if lane in RESERVED_LANES | self.exempt else "low"
        room_left = window["high"] + window["low"] < self.per_window
        fits = room_left if kind == "high" else room_left and window["low"] < self.per_window - self.reserved
        if lane in self.exempt or fits:
            window[kind] += 1
            return True
        return False


@given(shapes, st.sampled_from([1, 50, 200, 1000]), st.integers(0, 10**9), arrivals, st.sets(lanes).map(frozenset))
@example((1, 0), 1, 0, [(3, Lane.CONTROL), (1, Lane.CONTROL)], frozenset())
def test_it_equals_counting_every_window(
    shape: tuple[int, int], window_ms: int, start_ms: int, sent: list[tuple[int, Lane]], exempt: frozenset[Lane]
) -> None:
    per_window, reserved = shape
    admission = WindowAdmission(per_window, window_ms / 1000, reserved, exempt_lanes=exempt)
    twin = Windows(per_window, window_ms, reserved, exempt)
    now_ms, seen, let_in = start_ms, Counter[Lane](), Counter[Lane]()
    for gap_ms, lane in sent:
        now_ms += gap_ms
        # All but the first are half a millisecond away from the edges, where floats and integers may disagree.
        admitted = admission.try_admit(lane, (now_ms + 0.5) / 1000 if seen else now_ms / 1000)
        assert admitted == twin.try_admit(lane, now_ms)
        seen[lane] += 1
        let_in[lane] += admitted
    assert admission.admitted == [let_in[lane] for lane in Lane]
    assert admission.refused == [seen[lane] - let_in[lane] for lane in Lane]
    for window in twin.let_in.values():
        assert window["low"] <= per_window - reserved
        if not exempt:
            assert window.total() <= per_window


@given(shapes, st.floats(0, 1e8), st.lists(st.tuples(st.floats(0, 0.5), lanes), max_size=80))
def test_no_span_of_time_lets_in_more_than_its_windows(
    shape: tuple[int, int], start: float, sent: list[tuple[float, Lane]]
) -> None:
    per_window, reserved = shape
    admission = WindowAdmission(per_window, 0.2, reserved, exempt_lanes=())
    now = first = start
    for gap_s, lane in sent:
        now += gap_s
        admission.try_admit(lane, now)
        windows = int((now - first) / 0.2 + 1e-6) + 1
        assert sum(admission.admitted) <= per_window * windows
        assert admission.admitted[Lane.CHAT] + admission.admitted[Lane.AMBIENT] <= (per_window - reserved) * windows


def test_chat_leaves_the_reserve_alone_and_gifts_may_use_it() -> None:
    admission = WindowAdmission(per_window=40, window_s=0.2, reserved=8)
    assert [admission.try_admit(Lane.CHAT, 1.0) for _ in range(40)] == [True] * 32 + [False] * 8
    assert [admission.try_admit(Lane.PAID, 1.1) for _ in range(10)] == [True] * 8 + [False] * 2
    assert admission.try_admit(Lane.CHAT, 1.2 + 1e-9), "a new window"


def test_gifts_that_come_first_fill_their_reserve_before_the_shared_part() -> None:
    admission = WindowAdmission(per_window=40, window_s=0.2, reserved=20)
    assert all(admission.try_admit(Lane.PAID, 1.0) for _ in range(20))
    assert sum(admission.try_admit(Lane.CHAT, 1.0) for _ in range(40)) == 20

    admission = WindowAdmission(per_window=40, window_s=0.2, reserved=20)
    assert sum(admission.try_admit(Lane.PAID, 1.0) for _ in range(50)) == 40
    assert not admission.try_admit(Lane.AMBIENT, 1.0)


def test_control_and_commerce_always_pass_and_chat_yields_to_them() -> None:
    admission = WindowAdmission(per_window=10, window_s=1, reserved=2)
    assert all(admission.try_admit(lane, 0.0) for lane in (Lane.CONTROL, Lane.COMMERCE) for _ in range(50))
    assert not admission.try_admit(Lane.PAID, 0.0)
    assert not admission.try_admit(Lane.CHAT, 0.0)
    assert admission.admitted == [50, 50, 0, 0, 0]
    assert admission.refused == [0, 0, 1, 1, 0]


def test_windows_lie_end_to_end_from_the_first_message() -> None:
    admission = WindowAdmission(per_window=1, window_s=1, reserved=0, exempt_lanes=())
    admitted_at = [now for now in (10.25, 10.5, 11.0, 11.25, 12.0, 15.5, 16.0, 16.25) if admission.try_admit(3, now)]
    assert admitted_at == [10.25, 11.25, 15.5, 16.25]


@given(st.floats(0, 1e6), st.floats(0.01, 10), st.integers(1, 10_000))
def test_a_window_that_ends_now_has_ended_however_the_floats_round(origin: float, window_s: float, k: int) -> None:
    admission = WindowAdmission(per_window=1, window_s=window_s, reserved=0)
    assert admission.try_admit(Lane.CHAT, origin)
    end = origin + k * window_s
    assert admission.try_admit(Lane.CHAT, end)
    assert not admission.try_admit(Lane.CHAT, end)
    assert 0.99 * window_s <= admission.retry_after_s(end) <= 1.01 * window_s


def test_a_clock_that_goes_back_opens_no_window() -> None:
    admission = WindowAdmission(per_window=1, window_s=1, reserved=0)
    assert admission.try_admit(Lane.CHAT, 10.0)
    assert not admission.try_admit(Lane.CHAT, 3.0)
    assert admission.try_admit(Lane.CHAT, 11.0)


def test_a_refused_sender_may_learn_when_the_next_window_begins() -> None:
    admission = WindowAdmission(per_window=1, window_s=0.5, reserved=0, exempt_lanes=())
    assert admission.retry_after_s(3.0) == 0.0
    assert admission.try_admit(Lane.PAID, 4.0)
    wait_s = admission.retry_after_s(4.125)
    assert wait_s == 0.375
    assert not admission.try_admit(Lane.PAID, 4.125 + wait_s - 1e-9)
    assert admission.try_admit(Lane.PAID, 4.125 + wait_s)
    assert admission.retry_after_s(9.0) == 0.0


@given(arrivals)
def test_an_unlimited_room_lets_everything_in_and_counts_it(sent: list[tuple[int, Lane]]) -> None:
    admission = WindowAdmission.unlimited()
    assert all(admission.try_admit(lane, gap_ms / 1000) for gap_ms, lane in sent)
    assert sum(admission.admitted) == len(sent)
    assert admission.retry_after_s(0.0) == 0.0


@pytest.mark.parametrize("shape", [(0, 1, 0), (5, 0, 0), (5, 1, 6), (5, 1, -1), (5, float("nan"), 0)])
def test_a_senseless_window_is_refused(shape: tuple[int, float, int]) -> None:
    with pytest.raises(ValueError, match="not a window"):
        WindowAdmission(*shape)
