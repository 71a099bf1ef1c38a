"""A window whose texts are screened: only what would be shown is asked about, and every ticket has one answer."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.chat import coalesce
from broker.core.chat.coalesce import Coalescer, PendingDanmaku, Showing, Window
from broker.core.chat.coalesce import Pick as WindowPick
from protocol.codes import MessageType, Outcome, Role, Tier

said = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["ok", "OK", "bad", "worse", "mask", "hi", "so"])))


def window_of(budget: float | None, pick: WindowPick = WindowPick.FAIR) -> Coalescer[int]:
    budgets: dict[int, float] = {} if budget is None else {Tier.FULL: budget, Tier.LOW: budget / 2}
    return Coalescer(max_items=64, merge=True, pick=pick, budgets=budgets, rng=Random(1))


def offer(window: Coalescer[int], posts: list[tuple[str, str]]) -> None:
    for ticket, (user, text) in enumerate(posts):
        window.offer(PendingDanmaku(MessageType.DANMAKU, user, user, text, at=0.0), ticket, 0.0)


class Screener:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, item: PendingDanmaku) -> Showing:
        self.asked.append(item.text)
        if item.text in ("bad", "worse"):
            return Showing.WITHHELD
        if item.text == "mask":
            item.text = "****"
            return Showing.MASKED
        return Showing.SHOWN


def shown(window: Window[int], tier: int = Tier.FULL) -> list[str]:
    return [each.text for each in window.per_tier[tier].entries]


@given(said, st.sampled_from([None, 1.0, 2.0, 50.0]), st.sampled_from(WindowPick))
def test_every_ticket_is_answered_once_and_the_accounts_balance(
    posts: list[tuple[str, str]], budget: float | None, pick: WindowPick
) -> None:
    window, screener = window_of(budget, pick), Screener()
    offer(window, posts)
    closed = window.close(0.1, 1.0, screener)
    withheld = [ticket for _, tickets in closed.withheld for ticket in tickets]
    assert sorted(withheld + [ticket for ticket, _ in closed.outcomes]) == list(range(len(posts)))
    for ticket in withheld:
        assert posts[ticket][1] in ("bad", "worse")
    for cut in closed.per_tier.values():
        account = cut.account
        assert account.admitted == len(posts) - len(withheld)
        assert account.admitted == account.shown + account.merged + account.sampled + account.expired
        assert not {"bad", "worse", "mask"} & {entry.text for entry in cut.entries}
    masked = {ticket for ticket, outcome in closed.outcomes if outcome is Outcome.MASKED}
    assert masked == ({t for t, (_, text) in enumerate(posts) if text == "mask"} if "****" in shown(closed) else set())
    assert window.pending == 0


@given(said, st.sampled_from([None, 1.0, 2.0, 50.0]))
def test_a_screen_that_finds_nothing_changes_nothing(posts: list[tuple[str, str]], budget: float | None) -> None:
    plain, screened = window_of(budget), window_of(budget)
    for window, screen in ((plain, None), (screened, lambda item: Showing.SHOWN)):
        offer(window, posts)
        closed = window.close(0.1, 1.0, screen)
        if screen is None:
            expected = closed
    assert [shown(closed, tier) for tier in Tier] == [shown(expected, tier) for tier in Tier]
    assert closed.outcomes == expected.outcomes


def test_the_next_ones_take_the_place_of_what_is_withheld_and_no_others_are_asked_about() -> None:
    window, screener = window_of(2.0), Screener()
    offer(window, [("a", "bad"), ("b", "one"), ("c", "worse"), ("d", "two"), ("e", "three"), ("f", "four")])
    closed = window.close(0.1, 1.0, screener)
    assert shown(closed) == ["one", "two"]
    assert screener.asked[:4] == ["bad", "one", "worse", "two"]
    assert "four" not in screener.asked
    assert Counter(outcome for _, outcome in closed.outcomes) == {Outcome.ACCEPTED: 2, Outcome.SAMPLED_OUT: 2}


def test_a_flood_of_words_costs_a_bounded_number_of_searches() -> None:
    window, screener = window_of(1.0), Screener()
    window.use_rules(merge=False, budgets={Tier.FULL: 1.0}, pick=WindowPick.FAIR, max_items=64)
    offer(window, [(f"user-{number}", "bad") for number in range(40)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coalesce, "MAX_WITHHELD", 5)
        closed = window.close(0.1, 1.0, screener)
    assert len(screener.asked) <= 7
    assert shown(closed) == []
    assert len(closed.withheld) + len(closed.outcomes) == 40


def test_staff_are_screened_too_where_the_caller_says_so() -> None:
    window, screener = window_of(1.0), Screener()
    for ticket, text in enumerate(("bad", "mask", "hi")):
        item = PendingDanmaku(MessageType.DANMAKU, "m", "M", text, at=0.0, role=Role.MODERATOR)
        window.offer_always(item, ticket, 0.0)
    closed = window.close(0.1, 1.0, screener)
    assert shown(closed) == ["****", "hi"]
    assert closed.outcomes == [(1, Outcome.MASKED), (2, Outcome.ACCEPTED)]
    assert closed.per_tier[Tier.FULL].account == (2, 2, 0, 0, 0, 0)


def test_who_posts_words_is_shown_after_the_others_next_time() -> None:
    window = window_of(1.0)
    offer(window, [("eve", "bad"), ("ann", "hi")])
    assert shown(window.close(0.1, 1.0, Screener())) == ["hi"]
    for ticket, user in enumerate(("eve", "bob")):
        window.offer(PendingDanmaku(MessageType.DANMAKU, user, user, user, at=1.2), ticket, 1.2)
    assert shown(window.close(1.3, 1.0, Screener())) == ["bob"]
