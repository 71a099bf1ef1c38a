"""Gifts are shown as combos that viewers can read; none is lost, and the numbers of every combo add up."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.commerce.gifts import ComboPacer, GiftCombo, GiftEvent, GiftOrder
from protocol.codes import Outcome
from protocol.payloads import COMBO_END, COMBO_START, MAX_GIFT_COUNT, GiftPayload

BOTH = COMBO_START | COMBO_END


def gift(
    user_id: str = "u",
    count: int = 1,
    gift_id: str = "rose",
    price: int = 100,
    target: str = "",
    order: str = "",
    combo: bool = True,
) -> GiftPayload:
    return GiftPayload(order or f"order of {user_id}", user_id, user_id.title(), gift_id, count, price, target, combo)


class Room:
    """Gives gifts to a pacer and commits its events at once, as a room without a ledger does."""

    def __init__(self, **bounds: Any) -> None:
        self.pacer: ComboPacer[int] = ComboPacer(**bounds)
        self.orders = 0
        self.events: list[tuple[float, GiftPayload]] = []

    def give(self, now: float, user_id: str = "u", **fields: Any) -> list[GiftEvent[int]]:
        self.orders += 1
        payload = gift(user_id, order=f"{user_id}{self.orders}", **fields)
        return self.commit(self.pacer.offer(payload, self.orders, now, ms(now)), now)

    def commit(self, events: list[GiftEvent[int]], now: float) -> list[GiftEvent[int]]:
        for event in events:
            self.pacer.committed(event.payload, now)
            self.events.append((now, event.payload))
        return events

    def release(self, now: float) -> list[GiftEvent[int]]:
        return self.commit(self.pacer.release(now, ms(now)), now)

    def run(self, now: float) -> None:
        while (due := self.pacer.next_release_at(now)) is not None:
            now = due
            self.release(now)


def ms(now: float) -> int:
    return round(now * 1000)


def shown(events: list[GiftEvent[int]]) -> list[tuple[str, int, int, int, int]]:
    return [
        (str(each.payload.combo), each.payload.seq, each.payload.added, each.payload.total, each.payload.flags)
        for each in events
    ]


def users(events: list[GiftEvent[int]]) -> list[str]:
    return [event.payload.user_id for event in events]


def with_spent_burst(now: float = 0.0, **bounds: Any) -> Room:
    room = Room(**bounds)
    for number in range(10):
        assert users(room.give(now, f"early {number}", combo=False)) == [f"early {number}"]
    return room


def test_a_combo_starts_at_once_goes_on_twice_a_second_and_ends_after_three_quiet_seconds() -> None:
    room = Room()
    assert shown(room.give(10.0, count=2)) == [("u1", 1, 2, 2, COMBO_START)]
    assert room.give(10.1) == room.give(10.2, count=5) == []
    assert room.pacer.next_release_at(10.2) == 10.5
    assert room.release(10.4) == []
    (progress,) = room.release(10.5)
    assert shown([progress]) == [("u1", 2, 6, 8, 0)]
    assert progress.payload.order_id == "u2"
    assert progress.payload.count == 6
    assert progress.outcomes() == [(2, Outcome.ACCEPTED), (3, Outcome.MERGED)]
    assert room.pacer.next_release_at(10.5) == pytest.approx(13.2)
    assert room.release(13.1) == []
    (end,) = room.release(13.2)
    assert shown([end]) == [("u1", 3, 0, 8, COMBO_END)]
    assert (end.payload.order_id, end.payload.count, end.outcomes()) == ("", 0, [])
    assert (room.pacer.next_release_at(13.2), room.pacer.running) == (None, 0)


def test_a_gift_after_the_window_starts_another_combo() -> None:
    room = Room()
    room.give(10.0)
    assert shown(room.give(13.0)) == [("u1", 2, 0, 1, COMBO_END), ("u2", 1, 1, 1, COMBO_START)]


def test_a_combo_ends_after_a_minute_however_many_gifts_come() -> None:
    room = Room()
    for number in range(700):
        room.give(10.0 + number / 10)
        room.release(10.0 + number / 10)
    ends = [at for at, payload in room.events if payload.flags & COMBO_END]
    assert ends == [pytest.approx(70.0)]
    room.run(80.0)
    assert sum(payload.total for _, payload in room.events if payload.flags & COMBO_END) == 700


def test_another_price_ends_the_combo_and_another_target_is_another_combo() -> None:
    room = Room()
    room.give(10.0)
    assert shown(room.give(10.1, price=200)) == [("u1", 2, 0, 1, COMBO_END), ("u2", 1, 1, 1, COMBO_START)]
    assert shown(room.give(10.2, price=200, target="guest")) == [("u3", 1, 1, 1, COMBO_START)]
    assert shown(room.give(10.2, gift_id="car")) == [("u4", 1, 1, 1, COMBO_START)]


def test_a_single_gift_has_both_flags_and_is_no_part_of_a_combo() -> None:
    room = Room()
    room.give(10.0)
    (single,) = room.give(10.1, combo=False)
    assert shown([single]) == [("u2", 1, 1, 1, BOTH)]
    assert single.combo is None
    room.give(10.2)
    assert shown(room.release(10.5)) == [("u1", 2, 1, 2, 0)]


def test_a_million_gifts_end_a_combo_and_one_event_has_no_more() -> None:
    room = Room()
    room.give(10.0, count=MAX_GIFT_COUNT - 1)
    assert room.give(10.1, count=2) != []
    assert shown([each for each in room.release(10.1)]) == []
    assert [(payload.total, payload.flags) for _, payload in room.events] == [
        (MAX_GIFT_COUNT - 1, COMBO_START), (MAX_GIFT_COUNT - 1, COMBO_END), (2, COMBO_START),
    ]  # fmt: skip
    assert shown(room.give(11.0, "v", count=MAX_GIFT_COUNT)) == [("v3", 1, MAX_GIFT_COUNT, MAX_GIFT_COUNT, BOTH)]


def test_an_event_has_at_most_256_orders() -> None:
    room = with_spent_burst()
    for _ in range(600):
        room.give(0.0)
    room.run(0.0)
    rest = room.events[10:]
    assert [(payload.added, payload.flags) for _, payload in rest] == [
        (256, BOTH), (256, BOTH), (88, COMBO_START), (0, COMBO_END),
    ]  # fmt: skip


def test_ten_a_second_go_out_and_the_others_wait_their_turn() -> None:
    room = with_spent_burst()
    assert [room.give(0.0, user) for user in "abc"] == [[], [], []]
    assert (room.pacer.pending, room.pacer.waiting) == (3, 3)
    assert room.pacer.next_release_at(0.0) == pytest.approx(0.1)
    assert users(room.release(0.05)) == []
    assert users(room.release(0.1)) == ["a"]
    assert users(room.release(0.3)) == ["b", "c"]
    assert (room.pacer.pending, room.pacer.pending_bytes, room.pacer.waiting) == (0, 0, 0)


def test_ends_that_add_nothing_take_no_turn() -> None:
    room = Room(burst=1)
    room.give(0.0, "a")
    room.give(0.1, "b")
    assert users(room.release(3.05)) == ["a"]
    assert users(room.give(3.06, "c")) == ["c"]


def test_gifts_that_wait_for_their_turn_start_as_one() -> None:
    room = with_spent_burst()
    for count in (1, 10, 5):
        room.give(0.0, "a", count=count)
    (start,) = room.release(0.1)
    assert shown([start]) == [("a11", 1, 16, 16, COMBO_START)]
    assert start.outcomes() == [(11, Outcome.ACCEPTED), (12, Outcome.MERGED), (13, Outcome.MERGED)]


def test_no_order_waits_longer_than_three_seconds() -> None:
    room = with_spent_burst(rate_per_s=0.1)
    room.give(1.0, "a")
    room.give(2.0, "b")
    assert room.pacer.next_release_at(2.0) == 3.5
    assert users(room.release(3.4)) == []
    assert users(room.release(3.5)) == ["a"]
    assert [flags for *_, flags in shown(room.release(4.0))] == [COMBO_END]
    assert users(room.release(4.5)) == ["b"]


def test_a_full_backlog_flows_faster_instead_of_losing_anything() -> None:
    room = with_spent_burst(max_items=2)
    assert [users(room.give(0.0, user)) for user in "abcd"] == [[], [], ["a"], ["b"]]
    one_order = 512 + 4 * len("a11" + "a" + "A" + "rose")
    room = with_spent_burst(max_bytes=one_order)
    room.give(0.0, "a")
    assert room.pacer.pending_bytes == one_order
    (start,) = room.give(0.0, "a", count=8)
    assert start.payload.added == 9
    assert room.pacer.pending_bytes == 0


def test_what_flows_faster_is_not_made_up_for_later() -> None:
    room = with_spent_burst(max_items=1)
    for number in range(50):
        room.give(0.0, f"u{number}")
    assert users(room.release(0.1)) == ["u49"]


def test_rate_zero_is_no_pacing_and_no_combos() -> None:
    room = Room(rate_per_s=0)
    for _ in range(1_000):
        assert [flags for *_, flags in shown(room.give(0.0))] == [BOTH]
    assert room.pacer.next_release_at(0.0) is None
    room = Room()
    room.give(0.0)
    room.pacer.use_rate(0)
    assert [flags for *_, flags in shown(room.give(0.0))] == [BOTH]
    assert shown(room.release(3.0)) == [("u1", 2, 0, 1, COMBO_END)]


def test_a_gift_without_pacing_that_is_not_written_is_shown_again_or_goes() -> None:
    pacer: ComboPacer[int] = ComboPacer(rate_per_s=0)
    [event] = pacer.offer(gift(order="o1"), 1, 0.0, 0)
    assert pacer.running == 1
    assert pacer.withdrawn(event.payload, [(GiftOrder.of(event.payload), 1)], 1.0) == [event]
    assert pacer.withdrawn(event.payload, [], 2.0) == []
    assert pacer.running == 0
    pacer.committed(event.payload, 3.0)


def test_the_end_of_the_room_ends_every_combo() -> None:
    room = with_spent_burst()
    for user in "aab":
        room.give(0.0, user)
    released = room.commit(room.pacer.flush(0.0, 0), 0.0)
    assert [(each.payload.user_id, each.payload.added, each.payload.flags) for each in released] == [
        ("a", 2, BOTH), ("b", 1, BOTH),
    ]  # fmt: skip
    assert (room.pacer.pending, room.pacer.pending_bytes, room.pacer.flush(0.0, 0)) == (0, 0, [])


def test_a_combo_waits_for_the_result_of_its_event() -> None:
    pacer: ComboPacer[int] = ComboPacer()
    (start,) = pacer.offer(gift(order="o1"), 1, 10.0, 0)
    assert pacer.offer(gift(order="o2"), 2, 10.1, 0) == pacer.release(11.0, 0) == []
    assert pacer.next_release_at(11.0) is None
    assert pacer.dump() == ()
    pacer.committed(start.payload, 11.0)
    assert [combo.total for combo in pacer.dump()] == [1]
    assert pacer.next_release_at(11.0) == 11.0
    assert shown(pacer.release(11.0, 0)) == [("o1", 2, 1, 2, 0)]


def test_a_start_that_the_ledger_refuses_never_was() -> None:
    pacer: ComboPacer[int] = ComboPacer()
    (start,) = pacer.offer(gift(order="o1"), 1, 10.0, 0)
    pacer.offer(gift(order="o2"), 2, 10.1, 0)
    assert pacer.withdrawn(start.payload, (), 10.2) == []
    assert shown(pacer.release(10.5, 0)) == [("o2", 1, 1, 1, COMBO_START)]
    (other,) = pacer.offer(gift("v", order="o3"), 3, 10.6, 0)
    assert pacer.withdrawn(other.payload, (), 10.6) == []
    assert shown(pacer.offer(gift("v", order="o3"), 3, 10.7, 0)) == [("o3", 1, 1, 1, COMBO_START)]


def test_an_end_that_the_ledger_refuses_is_tried_again() -> None:
    room = Room()
    room.give(10.0)
    (end,) = room.pacer.release(13.0, 0)
    assert room.pacer.withdrawn(end.payload, (), 13.1) == []
    assert room.pacer.next_release_at(13.1) == pytest.approx(14.1)
    assert shown(room.release(14.1)) == shown([end])


def test_orders_that_the_ledger_knows_leave_the_event_and_the_others_go_out_without_them() -> None:
    pacer: ComboPacer[int] = ComboPacer(burst=1)
    pacer.offer(gift("x", combo=False), 0, 10.0, 0)
    for number in (1, 2, 3):
        pacer.offer(gift(order=f"o{number}", count=number), number, 10.0, 0)
    (start,) = pacer.release(10.1, 0)
    left = [(GiftOrder.of(gift(order=f"o{number}", count=number)), number) for number in (2, 3)]
    (again,) = pacer.withdrawn(start.payload, left, 10.2)
    assert shown([again]) == [("o2", 1, 5, 5, COMBO_START)]
    assert again.outcomes() == [(2, Outcome.ACCEPTED), (3, Outcome.MERGED)]


def test_combos_go_on_after_a_restart_and_overdue_ones_end_at_once() -> None:
    room = Room()
    for user in "abc":
        room.give(100.0, user)
    room.give(102.5, "b")
    room.release(102.5)
    stored = room.pacer.dump()
    assert [(combo.id, combo.seq, combo.total) for combo in stored] == [("a1", 1, 1), ("b2", 2, 2), ("c3", 1, 1)]
    again = Room()
    again.pacer.restore(stored)
    assert again.pacer.dump() == stored
    assert again.pacer.next_release_at(7.0) == 7.0
    ended = again.commit(again.pacer.release(7.0, 104_000), 7.0)
    assert shown(ended) == [("a1", 2, 0, 1, COMBO_END), ("c3", 2, 0, 1, COMBO_END)]
    assert shown(again.commit(again.pacer.offer(gift("b", order="b9"), 9, 7.5, 104_500), 7.5)) == [("b2", 3, 1, 3, 0)]
    assert again.pacer.next_release_at(7.5) == pytest.approx(10.5)
    again = Room()
    again.pacer.restore(stored[1:2])
    assert again.commit(again.pacer.offer(gift("b", order="b8"), 8, 7.0, 102_501), 7.0) == [], "two events a second"
    assert again.pacer.next_release_at(7.0) == 7.5
    long_ago = stored[1]._replace(started_ms=44_000, last_ms=103_900)
    again = Room()
    again.pacer.restore([long_ago])
    assert shown(again.release(104.0)) == [("b2", 3, 0, 2, COMBO_END)]


def test_bugs_of_the_caller_are_refused() -> None:
    room = with_spent_burst(now=5.0)
    with pytest.raises(ValueError, match="back"):
        room.release(4.9)
    for bad in ({"rate_per_s": -1}, {"burst": 0}, {"max_items": -1}, {"max_bytes": -1}, {"max_wait_s": -1}):
        with pytest.raises(ValueError, match="negative"):
            ComboPacer(**bad)


class Combos(RuleBasedStateMachine):
    """Gifts, results of the ledger in any order of the room's, refusals, repeated orders, restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.pacer: ComboPacer[int] = ComboPacer(burst=2, max_items=6)
        self.given: dict[int, GiftPayload] = {}
        self.answered: dict[int, Outcome] = {}
        self.flying: list[GiftEvent[int]] = []
        self.stream: list[tuple[float, GiftPayload]] = []
        self.tickets_in_stream: list[int] = []
        self.stored: dict[str, GiftCombo] = {}

    def out(self, events: list[GiftEvent[int]]) -> None:
        self.flying += events

    @rule(
        user=st.sampled_from("ab"),
        kind=st.sampled_from("xy"),
        count=st.integers(1, 9),
        price=st.sampled_from([5, 9]),
        combo=st.sampled_from([True, True, True, False]),
    )
    def give(self, user: str, kind: str, count: int, price: int, combo: bool) -> None:
        ticket = len(self.given) + 1
        payload = self.given[ticket] = gift(user, count, kind, price, order=f"o{ticket}", combo=combo)
        self.out(self.pacer.offer(payload, ticket, self.now, ms(self.now)))

    @rule(rate=st.sampled_from([0.0, 10.0]))
    def pace(self, rate: float) -> None:
        self.pacer.use_rate(rate)

    @rule(seconds=st.sampled_from([0.05, 0.4, 0.6, 1.0, 2.9, 3.1, 20.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.pacer.next_release_at(self.now)) is not None and due <= until:
            self.now = max(self.now, due)
            self.out(self.pacer.release(self.now, ms(self.now)))
            if due <= self.now and self.pacer.next_release_at(self.now) == due:
                break
        self.now = until

    @precondition(lambda self: self.flying)
    @rule()
    def commit(self) -> None:
        event = self.flying.pop(0)
        self.stream.append((self.now, event.payload))
        self.tickets_in_stream += event.tickets
        self.answered |= dict(event.outcomes())
        if event.combo is None:
            self.stored.pop(str(event.payload.combo), None)
        else:
            self.stored[event.combo.id] = event.combo
        self.pacer.committed(event.payload, self.now)

    @precondition(lambda self: self.flying)
    @rule()
    def refuse(self) -> None:
        event = self.flying.pop(0)
        self.answered |= dict.fromkeys(event.tickets, Outcome.UNAVAILABLE)
        self.out(self.pacer.withdrawn(event.payload, (), self.now))

    @precondition(lambda self: self.flying and len(self.flying[0].tickets) > 1)
    @rule()
    def know_some(self) -> None:
        event = self.flying.pop(0)
        self.answered[event.tickets[0]] = Outcome.REJECTED
        left = [(GiftOrder.of(self.given[ticket]), ticket) for ticket in event.tickets[1:]]
        self.out(self.pacer.withdrawn(event.payload, left, self.now))

    @rule(away_s=st.sampled_from([0.1, 2.0, 70.0]))
    def restart(self, away_s: float) -> None:
        in_flight = {ticket for event in self.flying for ticket in event.tickets}
        self.answered |= dict.fromkeys(set(self.given) - set(self.answered) | in_flight, Outcome.UNAVAILABLE)
        self.flying.clear()
        self.pacer = ComboPacer(burst=2, max_items=6)
        self.pacer.restore(self.stored.values())
        self.now += away_s

    @invariant()
    def every_order_is_answered_once_or_waits(self) -> None:
        in_flight = sum(len(event.tickets) for event in self.flying)
        assert self.pacer.pending == len(self.given) - len(self.answered) - in_flight

    @invariant()
    def each_combo_has_one_event_in_flight(self) -> None:
        ids = [event.payload.combo for event in self.flying]
        assert len(ids) == len(set(ids))

    @invariant()
    def numbers_of_combos_add_up(self) -> None:
        combos: dict[Any, list[tuple[float, GiftPayload]]] = {}
        for at, payload in self.stream:
            combos.setdefault(payload.combo, []).append((at, payload))
        for events in combos.values():
            payloads = [payload for _, payload in events]
            assert [payload.seq for payload in payloads] == list(range(1, len(payloads) + 1))
            assert [bool(payload.flags & COMBO_START) for payload in payloads] == [
                index == 0 for index in range(len(payloads))
            ]
            assert not any(payload.flags & COMBO_END for payload in payloads[:-1])
            total = 0
            for payload in payloads:
                total += payload.added
                assert (payload.total, payload.count) == (total, payload.added)
                assert len({(p.user_id, p.gift_id, p.price_cents, p.target) for p in payloads}) == 1
        assert self.stored.keys() == {key for key, events in combos.items() if not events[-1][1].flags & COMBO_END}
        dumped = {combo.id: combo for combo in self.pacer.dump()}
        flying = {event.payload.combo for event in self.flying}
        assert {key: (each.seq, each.total) for key, each in self.stored.items() if key not in flying} == {
            key: (each.seq, each.total) for key, each in dumped.items()
        }

    def teardown(self) -> None:
        while self.flying:
            self.commit()
        self.wait(100.0)
        while self.flying:
            self.commit()
        self.wait(100.0)
        while self.flying:
            self.commit()
        assert self.pacer.next_release_at(self.now) is None
        assert not self.stored
        assert set(self.answered) == set(self.given)
        accepted = [t for t, outcome in self.answered.items() if outcome in (Outcome.ACCEPTED, Outcome.MERGED)]
        assert sorted(accepted) == sorted(self.tickets_in_stream)
        gifts = sum(self.given[ticket].count for ticket in accepted)
        cents = sum(self.given[ticket].count * self.given[ticket].price_cents for ticket in accepted)
        assert sum(payload.added for _, payload in self.stream) == gifts
        assert sum(payload.total for _, payload in self.stream if payload.flags & COMBO_END) == gifts
        assert sum(payload.added * payload.price_cents for _, payload in self.stream) == cents


TestCombos = Combos.TestCase


@given(st.lists(st.tuples(st.floats(0.0, 0.5), st.sampled_from("abcdef")), max_size=60), st.integers(1, 5))
def test_within_the_bounds_the_rate_of_what_is_added_holds_over_any_span(
    said: list[tuple[float, str]], burst: int
) -> None:
    room = Room(burst=burst, max_items=1_000, max_wait_s=1e9)
    now = 1_000_000.0
    for pause, user in said:
        end = now + pause
        while (due := room.pacer.next_release_at(now)) is not None and due <= end:
            now = due
            room.release(now)
        now = end
        room.give(now, user)
    added = [at for at, payload in room.events if payload.added]
    for start, began in enumerate(added):
        for count, ended in enumerate(added[start:], 1):
            assert count <= burst + 10 * (ended - began) + 0.001
    by_combo: dict[Any, list[float]] = {}
    for at, payload in room.events:
        if not payload.flags & COMBO_END:
            by_combo.setdefault(payload.combo, []).append(at)
    for times in by_combo.values():
        assert all(later - earlier >= 0.5 for earlier, later in pairwise(times))
