"""The danmaku window of a room: merging, budgets, fairness, bounds, and one answer for each post."""

from __future__ import annotations

import gc
import itertools
import unicodedata
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.chat.coalesce import Coalescer, Offer, PendingDanmaku, Pick, Window
from protocol.codes import MessageType, Outcome, Tier

DEFAULT_BUDGETS = {20: 20.0, 10: 10.0, 5: 5.0}


def coalescer(
    budgets: Mapping[int, float] = DEFAULT_BUDGETS,
    *,
    max_items: int = 512,
    merge: bool = True,
    pick: Pick = Pick.FAIR,
    max_bytes: int | None = None,
    max_tickets: int | None = None,
) -> Coalescer[int]:
    return Coalescer(
        max_items=max_items, merge=merge, pick=pick, budgets=budgets, rng=Random(1), max_bytes=max_bytes,
        max_tickets=max_tickets,
    )  # fmt: skip


def danmaku(text: str, user_id: str = "u", at: float = 0.0, type: int = MessageType.DANMAKU) -> PendingDanmaku:
    return PendingDanmaku(type, user_id, user_id.title(), text, at=at)


def texts(window: Window[int], tier: int = Tier.FULL) -> list[str]:
    return [entry.text for entry in window.per_tier[tier].entries]


def offer_all(window: Coalescer[int], said: Iterable[tuple[str, str]], now: float = 0.0) -> list[Offer]:
    """Offer ``(user, text)`` pairs; the ticket is the position."""
    return [window.offer(danmaku(text, user, now), ticket, now) for ticket, (user, text) in enumerate(said)]


# ---- merging ------------------------------------------------------------------------------------


def test_equal_text_is_one_entry_with_its_first_author_and_three_further_senders() -> None:
    window = coalescer()
    offers = offer_all(window, [("a", "６６６"), ("b", "666"), ("b", "666 "), *((user, "666") for user in "acde")])
    assert offers == [Offer.ADMITTED] + [Offer.MERGED] * 6
    assert window.pending == 7
    closed = window.close(0.1)
    (entry,) = closed.per_tier[Tier.FULL].entries
    assert (entry.user_id, entry.text, entry.count, entry.senders) == ("a", "６６６", 7, ("b", "c", "d"))
    assert closed.per_tier[Tier.FULL].account == (7, 1, 6, 0, 0, 0)
    assert dict(closed.outcomes) == {0: Outcome.ACCEPTED} | dict.fromkeys(range(1, 7), Outcome.MERGED)


def test_the_same_text_of_another_type_or_in_the_next_window_is_not_merged() -> None:
    window = coalescer()
    window.offer(danmaku("rose"), 0, 0.0)
    assert window.offer(danmaku("rose", type=MessageType.EMOTE), 1, 0.0) is Offer.ADMITTED
    assert len(window.close(0.1).per_tier[Tier.FULL].entries) == 2
    assert window.offer(danmaku("rose"), 2, 0.1) is Offer.ADMITTED


def test_merging_can_be_switched_off() -> None:
    window = coalescer(merge=False)
    assert offer_all(window, [("a", "666"), ("b", "666")]) == [Offer.ADMITTED] * 2
    assert texts(window.close(0.1)) == ["666", "666"]


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.text(st.sampled_from("aAａ 哈ßS"), max_size=3)), max_size=60))
def test_merged_counts_equal_those_of_a_slow_twin(said: list[tuple[int, str]]) -> None:
    window = coalescer({})
    for ticket, (type_, text) in enumerate(said):
        window.offer(danmaku(text, f"u{ticket}", type=type_), ticket, 0.0)
    twin = Counter((type_, " ".join(unicodedata.normalize("NFKC", text).casefold().split())) for type_, text in said)
    assert [entry.count for entry in window.close(0.0).per_tier[Tier.FULL].entries] == list(twin.values())


# ---- budgets and tiers --------------------------------------------------------------------------


def test_after_a_quiet_second_each_tier_shows_one_second_worth_and_then_its_rate() -> None:
    window = coalescer()
    offer_all(window, ((f"u{i}", f"text {i}") for i in range(100)))
    closed = window.close(0.0)
    assert [len(closed.per_tier[tier].entries) for tier in (20, 10, 5)] == [20, 10, 5]
    shown = Counter[int]()
    for tick in range(1, 11):
        offer_all(window, ((f"v{tick}.{i}", f"text {i}") for i in range(100)), now=tick / 10)
        shown.update({tier: len(cut.entries) for tier, cut in window.close(tick / 10).per_tier.items()})
    assert shown == {20: 20, 10: 10, 5: 5}


def test_one_sender_may_fill_the_first_second() -> None:
    window = coalescer()
    offer_all(window, (("alone", f"text {i}") for i in range(20)))
    assert len(texts(window.close(0.0))) == 20


def test_overload_scales_the_budget() -> None:
    window = coalescer()
    window.close(0.0, scale=0.5)
    offer_all(window, ((f"u{i}", f"text {i}") for i in range(100)))
    assert [len(cut.entries) for cut in window.close(0.0, scale=0.5).per_tier.values()] == [10, 5, 2]


def test_entries_come_in_order_of_arrival_and_smaller_tiers_show_a_subset() -> None:
    window = coalescer()
    offer_all(window, ((f"u{i % 7}", f"text {i:02}") for i in range(60)))
    per_tier = window.close(0.0).per_tier
    shown = {tier: [entry.text for entry in cut.entries] for tier, cut in per_tier.items()}
    assert all(entries == sorted(entries) for entries in shown.values())
    assert set(shown[5]) < set(shown[10]) < set(shown[20])


def test_tiers_that_show_the_same_share_one_cut() -> None:
    window = coalescer()
    offer_all(window, [("a", "hi"), ("b", "ho")])
    assert len(set(map(id, window.close(0.0).per_tier.values()))) == 1
    unlimited = coalescer({20: 0.0})
    offer_all(unlimited, ((f"u{i}", f"text {i}") for i in range(500)))
    per_tier = unlimited.close(0.0).per_tier
    assert len(per_tier[5].entries) == 500
    assert per_tier[5] is per_tier[10] is per_tier[20]


def test_a_smaller_tier_without_a_budget_of_its_own_is_bound_by_the_larger() -> None:
    window = coalescer({20: 7.0, 5: 50.0})
    offer_all(window, ((f"u{i}", f"text {i}") for i in range(100)))
    assert [len(cut.entries) for cut in window.close(0.0).per_tier.values()] == [7, 7, 7]


def test_what_is_older_than_expire_s_is_not_shown() -> None:
    window = coalescer()
    window.offer(danmaku("old", "a", at=0.0), 0, 0.0)
    window.offer(danmaku("old", "b", at=2.0), 1, 2.0)
    window.offer(danmaku("just in time", "c", at=0.5), 2, 2.0)
    closed = window.close(3.5)
    assert texts(closed) == ["just in time"]
    assert closed.per_tier[Tier.LOW].account == (3, 1, 0, 0, 2, 0)
    assert dict(closed.outcomes) == {0: Outcome.EXPIRED, 1: Outcome.EXPIRED, 2: Outcome.ACCEPTED}


# ---- who is shown -------------------------------------------------------------------------------


def test_a_quiet_sender_is_shown_before_the_second_message_of_anybody() -> None:
    window = coalescer({20: 2.0})
    offer_all(window, [("loud", "1"), ("loud", "2"), ("loud", "3"), ("quiet", "hello")])
    assert texts(window.close(0.0)) == ["1", "hello"]


def test_who_was_shown_lately_stands_behind() -> None:
    window = coalescer({20: 1.0})
    offer_all(window, [("a", "first")])
    window.close(0.0)
    offer_all(window, [("a", "again"), ("b", "hello")], now=1.0)
    assert texts(window.close(1.0)) == ["hello"]


def test_what_many_say_goes_before_what_one_says() -> None:
    window = coalescer({20: 1.0})
    offer_all(window, [("a", "alone"), ("b", "together"), ("c", "together")])
    assert texts(window.close(0.0)) == ["together"]


def test_of_equals_the_earlier_is_shown() -> None:
    window = coalescer({20: 1.0})
    offer_all(window, [("a", "first"), ("b", "second")])
    assert texts(window.close(0.0)) == ["first"]


def test_a_merged_entry_has_the_standing_of_its_lightest_sender_who_also_pays_for_it() -> None:
    window = coalescer({20: 1.0})
    offer_all(window, [("loud", "1"), ("loud", "shared"), ("quiet", "shared")])
    (entry,) = window.close(0.0).per_tier[Tier.FULL].entries
    assert (entry.user_id, entry.text) == ("loud", "shared")
    offer_all(window, [("quiet", "hello"), ("loud", "world")], now=1.0)
    assert texts(window.close(1.0)) == ["world"]  # the quiet one has had its turn


def test_oldest_first_and_random_do_not_ask_who_speaks() -> None:
    window = coalescer({20: 2.0}, pick=Pick.OLDEST_FIRST)
    offer_all(window, [("loud", "1"), ("loud", "2"), ("quiet", "hello")])
    assert texts(window.close(0.0)) == ["1", "2"]
    window = coalescer({20: 10.0}, pick=Pick.RANDOM, max_items=50)
    shown = Counter[str]()
    for second in range(200):
        offer_all(window, ((f"u{i}", str(i)) for i in range(100)), now=float(second))
        shown.update(texts(window.close(float(second))))
    # 2,000 shown of 100 texts: 20 each, sigma 4.5, and the full window favours neither early nor late ones.
    assert 4 <= min(shown.values()) <= max(shown.values()) <= 36
    assert 850 < sum(shown[str(i)] for i in range(50)) < 1150


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from("abc"), st.booleans()), max_size=60),
    st.integers(1, 20),
    st.sampled_from(Pick),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.booleans(),
)
def test_what_is_always_shown_is_in_every_tier_whatever_else_is_said(
    said: list[tuple[bool, int, str, bool]], max_items: int, pick: Pick, scale: float, is_late: bool
) -> None:
    window = coalescer(max_items=max_items, pick=pick)
    always: list[int] = []
    answered: list[int] = []
    for ticket, (is_staff, user, text, over_quota) in enumerate(said):
        item = danmaku(text, f"u{user}")
        if is_staff and window.takes_always:
            window.offer_always(item, ticket, 0.0)
            always.append(ticket)
        elif window.offer(item, ticket, 0.0, over_quota) is Offer.SHED:
            answered.append(ticket)
    assert len(always) <= max_items
    closed = window.close(9.0 if is_late else 0.1, scale)
    outcomes = dict(closed.outcomes)
    assert sorted([*answered, *outcomes]) == list(range(len(said))), "each is answered once"
    assert all(outcomes[ticket] is Outcome.ACCEPTED for ticket in always)
    for cut in closed.per_tier.values():
        assert cut.account.admitted == sum(cut.account[1:]) == len(said)
        staff = [entry.text for entry in cut.entries if entry.count == 1]
        for ticket in always:
            staff.remove(said[ticket][2])
    assert (window.pending, window.pending_bytes, window.takes_always) == (0, 0, True)


# ---- bounds -------------------------------------------------------------------------------------


def test_a_full_window_gives_the_place_of_the_last_of_a_flooder_to_a_quiet_sender() -> None:
    window = coalescer(max_items=3)
    assert offer_all(window, [("loud", "1"), ("loud", "2"), ("loud", "3")]) == [Offer.ADMITTED] * 3
    assert window.offer(danmaku("4", "loud"), 3, 0.0) is Offer.SHED
    assert window.offer(danmaku("hello", "quiet"), 4, 0.0) is Offer.ADMITTED
    assert (window.pending, window.shed) == (3, 2)
    closed = window.close(0.0)
    assert texts(closed) == ["1", "2", "hello"]
    assert dict(closed.outcomes)[2] is Outcome.SAMPLED_OUT
    assert 3 not in dict(closed.outcomes)  # answered at the offer
    assert closed.per_tier[Tier.FULL].account == (5, 3, 0, 2, 0, 0)


def test_merging_saves_an_entry_from_being_displaced() -> None:
    window = coalescer(max_items=2)
    offer_all(window, [("loud", "1"), ("loud", "2")])
    assert window.offer(danmaku("3", "loud"), 2, 0.0) is Offer.SHED  # by now the entries are ordered by weight
    assert window.offer(danmaku("2", "quiet"), 3, 0.0) is Offer.MERGED
    assert window.offer(danmaku("hello", "other"), 4, 0.0) is Offer.SHED
    assert texts(window.close(0.0)) == ["1", "2"]


def test_a_flooders_own_repetition_saves_nothing() -> None:
    window = coalescer(max_items=2)
    offer_all(window, [("loud", "1"), ("loud", "2"), ("loud", "3"), ("loud", "2")])
    assert (window.pending, window.shed) == (3, 1)
    held_bytes = window.pending_bytes
    assert window.offer(danmaku("4", "quiet"), 4, 0.0) is Offer.ADMITTED
    assert (window.pending, window.shed) == (2, 3)
    assert window.pending_bytes == held_bytes + 64  # those who lost their place still wait for their answer
    assert texts(window.close(0.0)) == ["1", "4"]


def test_over_quota_merges_or_takes_the_place_of_a_heavier_sender_or_is_shed() -> None:
    window = coalescer()
    offer_all(window, [("loud", "1"), ("loud", "2")])
    assert window.offer(danmaku("1", "new"), 2, 0.0, over_quota=True) is Offer.MERGED
    assert window.offer(danmaku("3", "loud"), 3, 0.0, over_quota=True) is Offer.SHED
    assert window.offer(danmaku("hello", "quiet"), 4, 0.0, over_quota=True) is Offer.ADMITTED
    assert window.offer(danmaku("hi", "other"), 5, 0.0, over_quota=True) is Offer.SHED  # no other is heavier
    closed = window.close(0.0)
    assert texts(closed) == ["1", "hello"]
    assert dict(closed.outcomes)[1] is Outcome.SAMPLED_OUT
    assert coalescer().offer(danmaku("x"), 0, 0.0, over_quota=True) is Offer.SHED


def test_text_bytes_are_bounded_and_a_long_text_displaces_all_it_needs_or_nothing() -> None:
    window = coalescer(max_bytes=2_600)
    offer_all(window, [("loud", text) for text in "1234"])
    assert window.offer(danmaku("x" * 80, "quiet"), 4, 0.0) is Offer.ADMITTED  # 1,152 bytes: the place of "3" and "4"
    assert texts(window.close(0.0)) == ["1", "2", "x" * 80]
    offer_all(window, [("loud", text) for text in "1234"], now=1.0)
    assert window.offer(danmaku("x" * 400, "new"), 5, 1.0) is Offer.SHED
    assert window.offer(danmaku("x" * 80, "newer"), 6, 1.0) is Offer.ADMITTED  # they can still be displaced
    assert texts(window.close(1.0)) == ["1", "2", "x" * 80]


def test_waiting_senders_are_bounded_and_merging_stops_before_first_messages_do() -> None:
    window = coalescer(max_items=3, max_tickets=6)
    offers = offer_all(window, [(f"u{i}", "666") for i in range(5)])
    assert offers == [Offer.ADMITTED, Offer.MERGED, Offer.MERGED, Offer.SHED, Offer.SHED]
    assert window.offer(danmaku("hello", "quiet"), 9, 0.0) is Offer.ADMITTED
    assert window.close(0.0).per_tier[Tier.FULL].account == (6, 2, 2, 2, 0, 0)


def test_an_entry_keeps_no_ticket_after_its_window() -> None:
    window: Coalescer[object] = Coalescer(max_items=9, merge=True, pick=Pick.FAIR, budgets={}, rng=Random(1))
    ticket = set[object]()  # a kind of object that can be referred to weakly
    entry, reference = danmaku("hi"), weakref.ref(ticket)
    window.offer(entry, ticket, 0.0)
    window.close(0.0)
    del ticket
    gc.collect()
    assert entry.text == "hi"
    assert reference() is None
    assert (window.pending, window.shed, window.pending_bytes) == (0, 0, 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_items": 0}, {"max_items": 9, "max_tickets": 9}, {"budgets": {20: -1.0}}, {"budgets": {7: 1.0}},
    ],
)  # fmt: skip
def test_bounds_that_cannot_hold_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"positive|tiers"):
        coalescer(**bad)  # type: ignore[arg-type]


def test_time_does_not_go_back() -> None:
    window = coalescer()
    window.close(5.0)
    with pytest.raises(ValueError, match="back"):
        window.offer(danmaku("x"), 0, 4.9)
    with pytest.raises(ValueError, match="back"):
        window.close(4.9)


# ---- conservation -------------------------------------------------------------------------------

offers = st.tuples(
    st.just("offer"), st.integers(0, 4), st.sampled_from(["a", "A", "b", "c" * 30, "d", "e", "f"]), st.booleans()
)
closes = st.tuples(st.just("close"), st.floats(0.0, 2.0), st.sampled_from([0.0, 0.5, 1.0]), st.just(False))


@given(
    st.lists(offers | offers | offers | closes, max_size=80),
    st.sampled_from(Pick),
    st.booleans(),
    st.sampled_from([{}, {20: 3.0, 10: 2.0, 5: 1.0}, {20: 0.0, 5: 1.0}]),
)
def test_every_message_is_counted_once_and_answered_once_within_the_bounds(
    steps: list[tuple[str, float, str | float, bool]], pick: Pick, merge: bool, budgets: dict[int, float]
) -> None:
    window = coalescer(budgets, pick=pick, merge=merge, max_items=4, max_bytes=2_400, max_tickets=12)
    now, age = 0.0, itertools.cycle([0.0, 0.0, 4.0])
    offered: set[int] = set()
    answered: list[int] = []
    admitted = Counter[int]()
    for step in [*steps, ("close", 0.1, 1.0, False)]:
        if step[0] == "offer":
            _, user, text, over_quota = step
            ticket = len(offered)
            offered.add(ticket)
            message = danmaku(str(text), f"u{user}", now - next(age))
            before = window.pending
            verdict = window.offer(message, ticket, now, over_quota)
            if verdict is Offer.SHED:
                answered.append(ticket)
                assert window.pending == before
            assert window.pending <= 12
            assert window.pending_bytes <= 2_400 + 64 * 12
        else:
            now += float(step[1])
            closed = window.close(now, float(step[2]))
            answered += [ticket for ticket, _ in closed.outcomes]
            outcomes = Counter(outcome for _, outcome in closed.outcomes)
            shown_before: set[int] | None = None
            for tier, cut in closed.per_tier.items():
                account = cut.account
                assert account.admitted == sum(account[1:])
                assert account.shown == len(cut.entries) <= 4
                assert account.merged == sum(entry.count - 1 for entry in cut.entries)
                admitted[tier] += account.admitted
                shown = set(map(id, cut.entries))
                assert shown_before is None or shown <= shown_before
                shown_before = shown
            full = closed.per_tier[Tier.FULL].account
            assert (outcomes[Outcome.ACCEPTED], outcomes[Outcome.MERGED]) == (full.shown, full.merged)
            assert outcomes[Outcome.EXPIRED] == full.expired
            assert outcomes[Outcome.SAMPLED_OUT] <= full.sampled
        assert admitted[Tier.FULL] + window.pending + window.shed == len(offered)
    assert sorted(answered) == sorted(offered)
    assert set(admitted.values()) <= {len(offered)}


# ---- fairness in a flood ------------------------------------------------------------------------


def quiet_senders_shown(
    seed: int, *, budget: float, quiet_users: int, quota_per_s: float, tick_s: float, same_text: bool
) -> float:
    """Flood a new room for 10 s and return the share of quiet users whose first message was shown.

    50 users send 5,000/s together; each quiet user speaks once, at a random moment.
    """
    rng = Random(seed)
    window = coalescer({20: budget, 10: budget / 2, 5: budget / 4})
    said = sorted((rng.uniform(0, 10), f"quiet{i}") for i in range(quiet_users))
    said += [(i / 5_000, f"loud{rng.randrange(50)}") for i in range(50_000)]
    shown: set[str] = set()
    in_window, tick = 0, 1
    for at, user in [*sorted(said), (10.0 + tick_s, "end")]:
        while at >= tick * tick_s:
            for entry in window.close(tick * tick_s).per_tier[Tier.FULL].entries:
                shown |= {entry.user_id, *entry.senders}
            tick += 1
            in_window = 0
        if user == "end":
            break
        loud = user.startswith("loud")
        text = f"buy {rng.randrange(10 if same_text else 10**9)}" if loud else f"hello from {user}"
        verdict = window.offer(danmaku(text, user, at), 0, at, over_quota=in_window >= quota_per_s * tick_s)
        in_window += verdict is Offer.ADMITTED
    return sum(user.startswith("quiet") for user in shown) / quiet_users


@pytest.mark.parametrize(
    ("budget", "quiet_users", "quota_per_s", "tick_s", "same_text"),
    [
        (20.0, 150, 200.0, 0.1, False),
        (20.0, 150, 200.0, 0.1, True),
        (20.0, 150, 200.0, 1.0, False),
        (70.0, 500, 200.0, 0.1, False),
        (70.0, 500, float("inf"), 0.5, False),
    ],
)
def test_a_quiet_senders_first_message_is_shown_in_a_flood(
    budget: float, quiet_users: int, quota_per_s: float, tick_s: float, same_text: bool
) -> None:
    share = quiet_senders_shown(
        1, budget=budget, quiet_users=quiet_users, quota_per_s=quota_per_s, tick_s=tick_s, same_text=same_text
    )
    assert share >= 0.95


def test_another_pick_and_another_bound_hold_from_the_next_window() -> None:
    room = coalescer(merge=False, pick=Pick.FAIR, max_items=3)
    offer_all(room, [("a", "one"), ("b", "two")])
    room.use_rules(False, {}, Pick.OLDEST_FIRST, 1)
    assert offer_all(room, [("c", "three")]) == [Offer.ADMITTED], "the open window goes on as it began"
    assert len(texts(room.close(0.0))) == 3
    assert offer_all(room, [("a", "one"), ("b", "two")])[0] is Offer.ADMITTED
    assert len(texts(room.close(0.0))) == 1
