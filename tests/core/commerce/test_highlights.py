"""Highlights are held by what was paid; the bound lets the oldest of the lowest tier leave, and says so."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.commerce.highlights import (
    DEFAULT_TIERS,
    MAX_HELD,
    HeldHighlight,
    HighlightPlan,
    Highlights,
    HighlightTier,
)

T0 = 1_790_000_000_000


def add(highlights: Highlights, offset: int, cents: int, at_ms: int = T0, user: str = "ann") -> HighlightPlan:
    plan = highlights.begin(cents, at_ms)
    assert plan is not None
    held = HeldHighlight(offset, str(offset), user, user.title(), "hello", cents, plan.tier, at_ms, plan.until_ms)
    highlights.committed(held, plan.displaced)
    return plan


@pytest.mark.parametrize(
    ("cents", "tier", "hold_s"),
    [(500, 1, 60), (999, 1, 60), (1_000, 2, 120), (2_000, 3, 300), (5_000, 4, 600), (10_000, 5, 1_800),
     (50_000, 6, 3_600), (10**12, 6, 3_600)],
)  # fmt: skip
def test_the_last_row_that_fits_gives_tier_and_time(cents: int, tier: int, hold_s: int) -> None:
    assert add(Highlights(), 1, cents) == HighlightPlan(tier, T0 + hold_s * 1000, 0)


def test_an_amount_below_the_first_tier_is_no_highlight() -> None:
    highlights = Highlights()
    assert highlights.tier_of(499) == 0
    with pytest.raises(ValueError, match="below"):
        highlights.begin(499, T0)


def test_one_is_held_until_its_time_is_over() -> None:
    highlights = Highlights()
    add(highlights, 1, 500)
    assert [each.offset for each in highlights.shown(T0 + 59_999)] == [1]
    assert highlights.shown(T0 + 60_000) == ()
    add(highlights, 2, 500, T0 + 60_000)
    assert [each.offset for each in highlights.dump()] == [2]


def test_they_are_shown_by_tier_and_then_by_age() -> None:
    highlights = Highlights()
    for offset, cents in enumerate([500, 5_000, 500, 5_000], 1):
        add(highlights, offset, cents)
    assert [each.offset for each in highlights.shown(T0)] == [2, 4, 1, 3]


def test_beyond_the_bound_the_oldest_of_the_lowest_tier_leaves_and_the_event_says_so() -> None:
    highlights = Highlights()
    add(highlights, 1, 50_000)
    for offset in range(2, MAX_HELD + 1):
        add(highlights, offset, 500)
    assert add(highlights, 51, 500).displaced == 2
    assert add(highlights, 52, 50_000).displaced == 3
    assert len(highlights) == MAX_HELD
    full = Highlights()
    for offset in range(1, MAX_HELD + 1):
        add(full, offset, 1_000)
    assert add(full, 51, 500) == HighlightPlan(1, T0, 0), "the lowest of all is not held"
    assert len(full) == MAX_HELD


def test_at_the_bound_one_is_under_way_at_a_time() -> None:
    highlights = Highlights()
    for offset in range(1, MAX_HELD):
        add(highlights, offset, 500)
    assert highlights.begin(500, T0) is not None
    assert highlights.begin(500, T0) is None
    highlights.withdrawn()
    assert highlights.begin(500, T0) is not None


def test_a_deletion_hides_text_and_name_and_keeps_the_money() -> None:
    highlights = Highlights()
    add(highlights, 1, 500, user="eve")
    add(highlights, 2, 500)
    highlights.hide(lambda offset, user, at_ms: user == "eve")
    assert [(each.name, each.text, each.cents, each.user_id) for each in highlights.shown(T0)] == [
        ("", "", 500, "eve"), ("Ann", "hello", 500, "ann"),
    ]  # fmt: skip


def test_tables_that_do_not_rise_are_refused() -> None:
    for tiers in ((), (HighlightTier(5, 1), HighlightTier(5, 2)), (HighlightTier(9, 1), HighlightTier(5, 2)),
                  (HighlightTier(1, 0),)):  # fmt: skip
        with pytest.raises(ValueError, match="tiers"):
            Highlights(tiers)


class HighlightHistories(RuleBasedStateMachine):
    """Highlights, refusals of the ledger, deletions, time and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.highlights = Highlights()
        self.now_ms = T0
        self.offset = 0
        self.in_flight: list[tuple[int, HighlightPlan, int]] = []
        self.events: list[tuple[HeldHighlight, int]] = []

    @rule(tier=st.integers(0, len(DEFAULT_TIERS) - 1), count=st.sampled_from([1, 1, 20]))
    def begin(self, tier: int, count: int) -> None:
        for _ in range(count):
            cents = DEFAULT_TIERS[tier].min_cents
            plan = self.highlights.begin(cents, self.now_ms)
            if plan is None:
                assert self.in_flight
                self.commit()
            else:
                self.in_flight.append((cents, plan, self.now_ms))

    @precondition(lambda self: self.in_flight)
    @rule()
    def commit(self) -> None:
        cents, plan, at_ms = self.in_flight.pop(0)
        self.offset += 1
        held = HeldHighlight(
            self.offset, str(self.offset), "ann", "Ann", "hello", cents, plan.tier, at_ms, plan.until_ms
        )
        self.events.append((held, plan.displaced))
        self.highlights.committed(held, plan.displaced)

    @precondition(lambda self: self.in_flight)
    @rule()
    def refuse(self) -> None:
        self.in_flight.pop(0)
        self.highlights.withdrawn()

    @rule(seconds=st.sampled_from([1, 30, 300]))
    def wait(self, seconds: int) -> None:
        self.now_ms += 1000 * seconds

    @rule()
    def restart(self) -> None:
        self.in_flight.clear()
        held = self.highlights.dump()
        self.highlights = Highlights()
        self.highlights.restore(held)

    @invariant()
    def the_fold_of_the_events_is_what_is_shown(self) -> None:
        folded = Highlights()
        for held, displaced in self.events:
            folded.apply(held, displaced)
        assert folded.shown(self.now_ms) == self.highlights.shown(self.now_ms)

    @invariant()
    def at_most_fifty_are_held_and_none_too_long(self) -> None:
        assert len(self.highlights) <= MAX_HELD
        assert all(self.now_ms < each.until_ms for each in self.highlights.shown(self.now_ms))


TestHighlightHistories = HighlightHistories.TestCase


def test_what_left_is_said_once_to_the_next_plan() -> None:
    highlights = Highlights()
    add(highlights, 1, 500)
    add(highlights, 2, 1_000)
    assert add(highlights, 3, 500, T0 + 60_000).left == ("1",)
    assert add(highlights, 4, 500, T0 + 60_000).left == ()
    full = Highlights()
    for offset in range(1, MAX_HELD + 1):
        add(full, offset, 500)
    assert add(full, 51, 500).left == ("1",)


def test_the_view_is_made_again_when_one_comes_is_hidden_or_leaves() -> None:
    highlights = Highlights()
    assert highlights.views(T0) == ()
    add(highlights, 1, 500)
    add(highlights, 2, 1_000, user="acme\x1fbob")
    (view,) = highlights.views(T0)
    assert highlights.views(T0)[0] is view
    assert [each["offset"] for each in view.data["highlights"]] == [2, 1]
    highlights.hide(lambda offset, user, at_ms: offset == 1)
    (view,) = highlights.views(T0)
    assert [each["text"] for each in view.data["highlights"]] == ["hello", ""]
    (view,) = highlights.views(T0 + 60_000)
    assert [each["offset"] for each in view.data["highlights"]] == [2]
    assert highlights.views(T0 + 120_000) == ()
