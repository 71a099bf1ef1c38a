from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from itertools import cycle, islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.sections import POLICY_FIELDS
from broker.core.chat.coalesce import Coalescer, Offer, PendingDanmaku, Pick
from broker.core.limits.rate_limit import UNLIMITED, Rate
from broker.core.limits.room_quota import WindowAdmission
from broker.core.rooms.policies import DEFAULT_POLICY, POLICIES, OverQuota, Policy, policy_from, value_in_force
from protocol.codes import Lane, MessageType, Outcome, Tier

ANCHORS = ("tencent", "rongcloud", "nim", "goim")

HIGH, LOW = Lane.PAID, Lane.CHAT

Input = list[tuple[float, Lane]]
"""Messages as (seconds, lane), in order of arrival."""


def evenly(count: int, seconds: float, *lanes: Lane, start: float = 100.0) -> Input:
    """``count`` messages spread over ``seconds``, their lanes in turn."""
    return [(start + n * seconds / count, lane) for n, lane in enumerate(islice(cycle(lanes), count))]


def admitted(admission: WindowAdmission, sent: Input) -> tuple[int, int]:
    """How many (high, low) messages of ``sent`` are let in."""
    passed = [lane for now, lane in sent if admission.try_admit(lane, now)]
    return passed.count(HIGH), passed.count(LOW)


# ---- anchor parity: the same input, the published drop counts -------------------------------------

HALF_HIGH = evenly(100, 0.2, LOW, HIGH)
ALL_LOW = evenly(100, 0.2, LOW)
ALL_HIGH = evenly(100, 0.2, HIGH)
LOW_FIRST = evenly(50, 0.1, LOW) + evenly(50, 0.1, HIGH, start=100.1)
HIGH_FIRST = evenly(50, 0.1, HIGH) + evenly(50, 0.1, LOW, start=100.1)
STEADY_40_A_SECOND = evenly(120, 3.0, LOW, HIGH)
STEADY_45_A_SECOND = evenly(135, 3.0, LOW)
STEADY_200_A_SECOND = evenly(600, 3.0, HIGH)
STEADY_250_A_SECOND = evenly(750, 3.0, HIGH)


@pytest.mark.parametrize(
    ("policy", "sent", "high", "low"),
    [
        # RongCloud: 40 per 200 ms; 20 for high only, 20 shared, the newest are lost.
        ("rongcloud", HALF_HIGH, 20, 20),
        ("rongcloud", ALL_LOW, 0, 20),
        ("rongcloud", ALL_HIGH, 40, 0),
        ("rongcloud", LOW_FIRST, 20, 20),
        ("rongcloud", HIGH_FIRST, 40, 0),
        ("rongcloud", STEADY_40_A_SECOND, 60, 60),
        ("rongcloud", STEADY_200_A_SECOND, 600, 0),
        ("rongcloud", STEADY_250_A_SECOND, 600, 0),
        # Tencent: 40 a second and group, no lane is spared.
        ("tencent", HALF_HIGH, 20, 20),
        ("tencent", ALL_LOW, 0, 40),
        ("tencent", ALL_HIGH, 40, 0),
        ("tencent", LOW_FIRST, 0, 40),
        ("tencent", STEADY_40_A_SECOND, 60, 60),
        ("tencent", STEADY_45_A_SECOND, 0, 120),
        # NetEase IM and goim have no limit for a room's uplink.
        ("nim", HALF_HIGH, 50, 50),
        ("nim", STEADY_250_A_SECOND, 750, 0),
        ("goim", HALF_HIGH, 50, 50),
        ("off", evenly(10_000, 0.2, LOW), 0, 10_000),
        # Ours: 40 per 200 ms, 8 of them not for chat.
        ("roomcast", HALF_HIGH, 20, 20),
        ("roomcast", ALL_LOW, 0, 32),
        ("roomcast", LOW_FIRST, 8, 32),
        ("roomcast", HIGH_FIRST, 40, 0),
        ("roomcast", STEADY_200_A_SECOND, 600, 0),
    ],
)
def test_each_policy_lets_in_as_many_as_its_service_publishes(policy: str, sent: Input, high: int, low: int) -> None:
    assert admitted(POLICIES[policy].admission(), sent) == (high, low)


def test_rongclouds_allowlist_fills_both_quotas_and_twenty_more() -> None:
    rongcloud = POLICIES["rongcloud"]
    assert admitted(rongcloud.admission(allowlisted=True), ALL_HIGH) == (60, 0)
    assert admitted(rongcloud.admission(allowlisted=True), ALL_LOW) == (0, 20)
    assert admitted(rongcloud.admission(allowlisted=True), LOW_FIRST) == (40, 20)
    assert admitted(POLICIES["tencent"].admission(allowlisted=True), ALL_HIGH) == (40, 0), "has none"


@pytest.mark.parametrize("policy", ["tencent", "rongcloud"])
def test_the_newest_are_lost(policy: str) -> None:
    admission = POLICIES[policy].admission()
    outcomes = [admission.try_admit(lane, now) for now, lane in ALL_HIGH]
    assert outcomes == [True] * 40 + [False] * 60
    assert POLICIES[policy].over_quota is OverQuota.DROP_NEWEST


def test_tencent_loses_commerce_like_anything_else_and_we_do_not() -> None:
    flood = evenly(400, 1.0, Lane.CHAT, Lane.CHAT, Lane.CHAT, Lane.COMMERCE)
    theirs, ours = POLICIES["tencent"].admission(), POLICIES["roomcast"].admission()
    for now, lane in flood:
        theirs.try_admit(lane, now)
        ours.try_admit(lane, now)
    assert theirs.refused[Lane.COMMERCE] == 90
    assert ours.refused[Lane.COMMERCE] == 0


@given(st.lists(st.tuples(st.floats(0, 0.1), st.sampled_from(Lane)), max_size=300))
def test_ours_never_refuses_control_or_commerce_and_never_gives_chat_the_reserve(gaps: Input) -> None:
    admission, now = POLICIES["roomcast"].admission(), 0.0
    for gap_s, lane in gaps:
        now += gap_s
        admission.try_admit(lane, now)
    assert admission.refused[Lane.CONTROL] == admission.refused[Lane.COMMERCE] == 0
    assert admission.admitted[Lane.CHAT] + admission.admitted[Lane.AMBIENT] <= 32 * (now // 0.2 + 1)


def test_a_gift_that_has_to_wait_is_in_when_it_comes_back() -> None:
    """Ten times the quota in chat, and 100 gifts at one instant: none is lost, all are in after three seconds."""
    admission = POLICIES["roomcast"].admission()
    waiting = [100.0] * 100
    for step in range(3000):
        now = 100.0 + step / 1000
        for _ in range(2):
            admission.try_admit(Lane.CHAT, now)
        again = []
        for due in waiting:
            if due > now:
                again.append(due)
            elif not admission.try_admit(Lane.PAID, now):
                again.append(now + admission.retry_after_s(now))
        waiting = again
    assert waiting == []
    assert admission.admitted[Lane.PAID] == 100


# ---- what the coalescer makes of them -------------------------------------------------------------


def danmaku(n: int, now: float, text: str | None = None) -> PendingDanmaku:
    return PendingDanmaku(MessageType.DANMAKU, f"u{n}", "", text or f"text {n}", None, None, now)


def windows(policy: Policy, per_tick: int, ticks: int) -> Iterator[tuple[Coalescer[int], dict[int, int]]]:
    """Run a room of ``policy`` at ten ticks a second; yield its window and how many were shown, by tier."""
    window: Coalescer[int] = policy.coalescer(random.Random(7))
    for tick in range(ticks):
        now = 100.0 + tick / 10
        for n in range(per_tick):
            window.offer(danmaku(tick * per_tick + n, now), n, now)
        closed = window.close(now)
        yield window, {tier: len(cut.entries) for tier, cut in closed.per_tier.items()}


@pytest.mark.parametrize(("policy", "full", "low"), [("roomcast", 20, 5), ("nim", 20, 20)])
def test_a_viewer_is_shown_twenty_a_second_whatever_comes_in(policy: str, full: int, low: int) -> None:
    shown = [by_tier for _, by_tier in windows(POLICIES[policy], per_tick=50, ticks=60)]
    lasting = shown[30:]  # one second's worth may be saved up at the start
    assert sum(by_tier[Tier.FULL] for by_tier in lasting) == pytest.approx(full * 3, abs=1)
    assert sum(by_tier[Tier.LOW] for by_tier in lasting) == pytest.approx(low * 3, abs=1)


@pytest.mark.parametrize("policy", ["tencent", "rongcloud", "goim", "off"])
def test_where_no_budget_is_published_a_viewer_is_shown_all(policy: str) -> None:
    for _, by_tier in windows(POLICIES[policy], per_tick=30, ticks=5):
        assert set(by_tier.values()) == {30}


def test_goims_queue_holds_two_batches_and_discards_the_newest() -> None:
    window: Coalescer[int] = POLICIES["goim"].coalescer(random.Random(7))
    offers = [window.offer(danmaku(n, 0.0), n, 0.0) for n in range(100)]
    assert offers == [Offer.ADMITTED] * 40 + [Offer.SHED] * 60
    assert window.close(0.0).outcomes == [(n, Outcome.ACCEPTED) for n in range(40)]


@pytest.mark.parametrize("policy", POLICIES)
def test_only_ours_merges_equal_texts(policy: str) -> None:
    window: Coalescer[int] = POLICIES[policy].coalescer(random.Random(7))
    for n in range(10):
        window.offer(danmaku(n, 0.0, "666"), n, 0.0)
    entries = window.close(0.0).per_tier[Tier.FULL].entries
    assert [entry.count for entry in entries] == ([10] if policy == "roomcast" else [1] * 10)


# ---- the table ------------------------------------------------------------------------------------


def test_the_default_is_ours_and_the_others_are_the_four_anchors_and_off() -> None:
    assert list(POLICIES) == [DEFAULT_POLICY, *ANCHORS, "off"]
    assert all(name == policy.name and policy.reason and policy.source for name, policy in POLICIES.items())


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (
            "roomcast",
            {
                "admit_per_window": 40, "window_ms": 200, "reserved": 8, "over_quota": OverQuota.SAMPLE, "merge": True,
                "chat_budget_per_s": 20, "paid_budget_per_s": 10, "tiers": True, "pick": Pick.FAIR, "tick_ms": 100,
                "tick_max_ms": 1000, "compress": True, "duplicate_window_s": 30.0, "user_chat": Rate(1, 3),
                "user_likes": Rate(20, 20), "user_joins": Rate(1, 32),
                "staff_posts": Rate(50, 500), "app_posts": Rate(1000, 2000),
            },
        ),
        ("tencent", {"admit_per_window": 40, "window_ms": 1000, "reserved": 0, "chat_budget_per_s": 0}),
        ("rongcloud", {"admit_per_window": 40, "window_ms": 200, "reserved": 20, "allowlist_per_window": 60}),
        ("nim", {"admit_per_window": 0, "chat_budget_per_s": 20, "paid_budget_per_s": 10, "pick": Pick.RANDOM}),
        ("goim", {"tick_ms": 1000, "batch_max": 20, "queue_max": 40, "pick": Pick.OLDEST_FIRST}),
        ("off", {"tick_ms": 0, "admit_per_window": 0, "compress": False, "merge": False, "chat_budget_per_s": 0}),
    ],
)  # fmt: skip
def test_the_figures_are_the_published_ones(policy: str, expected: dict[str, Any]) -> None:
    assert {field: getattr(POLICIES[policy], field) for field in expected} == expected


@pytest.mark.parametrize("policy", [*ANCHORS, "off"])
def test_what_a_service_does_not_publish_takes_nothing_away(policy: str) -> None:
    rules = POLICIES[policy]
    assert (rules.user_chat, rules.user_likes, rules.user_joins) == (UNLIMITED,) * 3
    assert (rules.staff_posts, rules.app_posts) == (UNLIMITED,) * 2
    assert (rules.duplicate_window_s, rules.merge, rules.tiers, rules.exempt_lanes) == (0.0, False, False, frozenset())


def test_a_policy_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        POLICIES["off"].merge = True  # type: ignore[misc]


# ---- overrides ------------------------------------------------------------------------------------


def test_no_override_is_the_policy_itself() -> None:
    assert all(policy_from(name) == policy == policy_from(name, {}) for name, policy in POLICIES.items())


@pytest.mark.parametrize(
    ("policy", "overrides", "expected"),
    [
        ("roomcast", {"admit_per_window": 100}, {"reserved": 20}),
        ("roomcast", {"admit_per_window": 100, "reserved": 3}, {"reserved": 3}),
        ("rongcloud", {"admit_per_window": 400}, {"reserved": 200, "allowlist_per_window": 600}),
        ("nim", {"admit_per_window": 100}, {"reserved": 0, "window_ms": 200}),
        ("roomcast", {"tick_ms": 2000}, {"tick_max_ms": 2000}),
        ("roomcast", {"tick_max_ms": 50}, {"tick_ms": 50}),
        ("off", {"tick_ms": 10}, {"tick_max_ms": 10}),
        ("roomcast", {"user_chat_per_s": 5.0}, {"user_chat": Rate(5, 3)}),
        ("roomcast", {"user_chat_burst": 9}, {"user_chat": Rate(1, 9)}),
        ("roomcast", {"user_joins_burst": 5}, {"user_joins": Rate(1, 5)}),
        ("off", {"user_joins_per_s": 0.5}, {"user_joins": Rate(0.5, 32)}),
        ("off", {"user_chat_per_s": 5.0}, {"user_chat": Rate(5, 3)}),
        ("off", {"likes_per_s": 0.5}, {"user_likes": Rate(0.5, 1)}),
        ("roomcast", {"likes_per_s": 50}, {"user_likes": Rate(50, 50)}),
        ("roomcast", {"merge": False, "compress": False}, {"merge": False, "compress": False}),
    ],
)
def test_an_override_takes_along_what_hangs_on_it(
    policy: str, overrides: dict[str, Any], expected: dict[str, Any]
) -> None:
    rules = policy_from(policy, overrides)
    assert {field: getattr(rules, field) for field in expected} == expected
    rules.admission()
    rules.coalescer(random.Random(0))


@pytest.mark.parametrize(
    ("policy", "overrides", "named"),
    [
        ("twitch", {}, "no policy 'twitch', but roomcast, tencent"),
        ("roomcast", {"merg": True}, "no merg"),
        ("roomcast", {"name": "mine"}, "no name"),
        ("roomcast", {"reserved": 41}, "reserved = 41"),
        ("roomcast", {"admit_per_window": -1}, "admit_per_window = -1"),
        ("roomcast", {"window_ms": 0}, "window_ms = 0"),
        ("rongcloud", {"allowlist_per_window": 39}, "allowlist_per_window = 39"),
        ("roomcast", {"tick_ms": 500, "tick_max_ms": 400}, "tick_max_ms = 400"),
        ("goim", {"batch_max": 41}, "batch_max = 41"),
        ("roomcast", {"queue_max": 0}, "queue_max = 0"),
        ("roomcast", {"duplicate_window_s": -1.0}, "duplicate_window_s = -1.0"),
        ("roomcast", {"chat_budget_per_s": -1}, "chat_budget_per_s = -1"),
        ("roomcast", {"user_chat_per_s": -1}, "per_s must be above 0"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(policy: str, overrides: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        policy_from(policy, overrides)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("name", POLICY_FIELDS)
def test_the_value_in_force_changes_nothing_as_an_override(policy: Policy, name: str) -> None:
    value = value_in_force(policy, name)
    if value is None:
        field = name.removesuffix("_per_s").removesuffix("_burst")
        assert getattr(policy, "user_likes" if field == "likes" else field).unlimited
    else:
        assert policy_from(policy.name, {name: value}) == policy
