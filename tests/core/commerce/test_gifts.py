"""Paid events stay readable, and none is ever lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.commerce.gifts import PaidItem, PaidPacer
from protocol.codes import Outcome
from protocol.payloads import GiftPayload


def gift(
    user_id: str = "u", at: float = 0.0, count: int = 1, gift_id: str = "rose", price: int = 100, target: str = ""
) -> PaidItem[int]:
    order = GiftPayload(f"order of {user_id}", user_id, user_id.title(), gift_id, count, price, target)
    return PaidItem.from_gift(order, at)


def users(released: list[PaidItem[int]]) -> list[str]:
    return [item.user_id for item in released]


def pacer_with_spent_burst(now: float = 0.0, **bounds: float) -> PaidPacer[int]:
    pacer: PaidPacer[int] = PaidPacer(**bounds)  # type: ignore[arg-type]
    for number in range(10):
        assert users(pacer.offer(gift(f"early {number}", now), -1, now)) == [f"early {number}"]
    return pacer


def test_ten_a_second_go_out_and_the_others_wait_their_turn() -> None:
    pacer = pacer_with_spent_burst()
    assert [pacer.offer(gift(user), 0, 0.0) for user in "abc"] == [[], [], []]
    assert pacer.pending == 3
    assert pacer.next_release_at(0.0) == pytest.approx(0.1)
    assert users(pacer.release(0.05)) == []
    assert users(pacer.release(0.1)) == ["a"]
    assert users(pacer.release(0.3)) == ["b", "c"]
    assert (pacer.pending, pacer.pending_bytes, pacer.next_release_at(0.3)) == (0, 0, None)


def test_the_same_gift_that_waits_becomes_a_combo() -> None:
    pacer = pacer_with_spent_burst()
    for ticket, count in enumerate([1, 10, 5]):
        pacer.offer(gift("a", count=count, target="host"), ticket, 0.0)
    pacer.offer(gift("a", gift_id="car", target="host"), 3, 0.0)
    pacer.offer(gift("a", target="guest"), 4, 0.0)
    pacer.offer(gift("a", target="host", price=200), 5, 0.0)
    assert pacer.pending == 6
    combo, *others = pacer.release(1.0)
    assert (combo.count, combo.price_cents, combo.merged) == (16, 100, 2)
    assert combo.outcomes() == [(0, Outcome.ACCEPTED), (1, Outcome.MERGED), (2, Outcome.MERGED)]
    assert combo.payload() == ("order of a", "a", "A", "rose", 16, 100, "host")
    assert [item.count for item in others] == [1, 1, 1]
    assert pacer.pending == 0


def test_nobody_waits_longer_than_max_wait_s() -> None:
    pacer = pacer_with_spent_burst(rate_per_s=0.1, max_wait_s=3.0)
    pacer.offer(gift("a", at=1.0), 0, 1.0)
    pacer.offer(gift("b", at=2.0), 1, 2.0)
    assert pacer.next_release_at(2.0) == 4.0
    assert users(pacer.release(3.9)) == []
    assert users(pacer.release(4.0)) == ["a"]
    assert users(pacer.release(5.0)) == ["b"]


def test_a_full_backlog_flows_faster_instead_of_losing_anything() -> None:
    pacer = pacer_with_spent_burst(max_items=2)
    assert [users(pacer.offer(gift(user), 0, 0.0)) for user in "abcd"] == [[], [], ["a"], ["b"]]
    one_item = 512 + 4 * len("order of a" + "a" + "A" + "rose") + 64
    pacer = pacer_with_spent_burst(max_bytes=one_item)
    pacer.offer(gift("a"), 0, 0.0)
    assert pacer.pending_bytes == one_item
    (combo,) = pacer.offer(gift("a", count=8), 1, 0.0)  # tickets count too
    assert combo.count == 9
    assert pacer.pending_bytes == 0


def test_what_flows_faster_is_not_made_up_for_later() -> None:
    pacer = pacer_with_spent_burst(max_items=0)
    for number in range(50):
        assert len(pacer.offer(gift(f"u{number}"), 0, 0.0)) == 1
    pacer = pacer_with_spent_burst(max_items=1)
    for number in range(50):
        pacer.offer(gift(f"u{number}"), 0, 0.0)
    assert users(pacer.release(0.1)) == ["u49"]


def test_rate_zero_is_no_pacing() -> None:
    pacer: PaidPacer[int] = PaidPacer(rate_per_s=0)
    assert all(len(pacer.offer(gift("a"), ticket, 0.0)) == 1 for ticket in range(1_000))
    assert pacer.next_release_at(0.0) is None


def test_the_end_of_the_room_releases_everything() -> None:
    pacer = pacer_with_spent_burst()
    for user in "aab":
        pacer.offer(gift(user), 0, 0.0)
    assert users(pacer.flush()) == ["a", "b"]
    assert (pacer.pending, pacer.pending_bytes, pacer.flush()) == (0, 0, [])


def test_bugs_of_the_caller_are_refused() -> None:
    pacer = pacer_with_spent_burst(now=5.0)
    with pytest.raises(ValueError, match="back"):
        pacer.release(4.9)
    for bad in ({"rate_per_s": -1}, {"burst": 0}, {"max_items": -1}, {"max_bytes": -1}, {"max_wait_s": -1}):
        with pytest.raises(ValueError, match="negative"):
            PaidPacer(**bad)


steps = st.tuples(
    st.floats(0.0, 0.5), st.none() | st.tuples(st.sampled_from("abcd"), st.sampled_from("xy"), st.integers(1, 9))
)  # fmt: skip


@given(st.lists(steps, max_size=80), st.sampled_from([0.0, 0.3, 3.0, 7.0]), st.integers(1, 3), st.integers(0, 5))
def test_money_out_equals_money_in_in_order_and_in_time(
    schedule: list[tuple[float, tuple[str, str, int] | None]], rate: float, burst: int, max_items: int
) -> None:
    max_bytes, max_wait_s = 3_000, 1.0
    pacer: PaidPacer[int] = PaidPacer(rate, burst, max_items, max_bytes, max_wait_s)
    now = 10_000_000.0
    sums = [0, 0]  # count and amount, in minus out
    orders = 0
    answered: list[int] = []
    firsts: list[int] = []

    def went_out(released: list[PaidItem[int]]) -> None:
        for item in released:
            sums[0] -= item.count
            sums[1] -= item.count * item.price_cents
            answered.extend(ticket for ticket, _ in item.outcomes())
            firsts.append(item.tickets[0])
            assert now - item.at <= max_wait_s + 1e-6

    for pause, order in schedule:
        end = now + pause
        while (due := pacer.next_release_at(now)) is not None and due <= end:
            now = due
            released = pacer.release(now)
            assert released
            went_out(released)
        now = end
        if order is not None:
            user_id, gift_id, count = order
            item = gift(user_id, now, gift_id=gift_id, count=count, price=7)
            sums[0] += count
            sums[1] += 7 * count
            orders += 1
            went_out(pacer.offer(item, orders - 1, now))
        assert pacer.pending == orders - len(answered)  # admitted = shown + merged + held
        assert pacer.waiting <= max_items
        assert pacer.pending_bytes <= max_bytes
        assert not (rate == 0 and pacer.pending)
    went_out(pacer.flush())
    assert sums == [0, 0]
    assert sorted(answered) == list(range(orders))
    assert firsts == sorted(firsts)


@given(st.lists(st.floats(0.0, 0.5), max_size=60), st.sampled_from([0.3, 10.0]), st.integers(1, 5))
def test_within_the_bounds_the_rate_holds_over_any_span_and_no_turn_is_wasted(
    pauses: list[float], rate: float, burst: int
) -> None:
    pacer: PaidPacer[int] = PaidPacer(rate, burst, max_items=1_000, max_wait_s=1e9)
    now = 1_000_000.0
    went_out: list[float] = []
    for number, pause in enumerate(pauses):
        now += pause
        released = pacer.offer(gift(f"u{number}", now), number, now)
        went_out += [now] * len(released)
        due = pacer.next_release_at(now)
        assert due is None or now < due <= now + 1 / rate + 0.001
    for start, began in enumerate(went_out):
        for count, ended in enumerate(went_out[start:], 1):
            assert count <= burst + rate * (ended - began) + 0.001
