from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.demo import scenario as scenario
from broker.demo.scenario import GIFTS, PHASES, Texts, plan, viewer_name
from protocol.codes import MessageType
from protocol.payloads import check_payload


@given(st.floats(0.1, 10_000))
def test_the_phases_follow_each_other_without_a_gap_and_fill_the_time(seconds: float) -> None:
    scheduled_phases = plan(seconds)
    assert [scheduled.phase for scheduled in scheduled_phases] == list(PHASES)
    assert scheduled_phases[0].begins_s == 0.0
    assert scheduled_phases[-1].ends_s == seconds
    for one, other in pairwise(scheduled_phases):
        assert one.begins_s < one.ends_s == other.begins_s


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_demo_without_seconds_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="must last longer than 0 s"):
        plan(seconds)


@given(st.integers(0, 2**32), st.floats(0, 3600), st.floats(0, 1))
def test_every_text_is_a_valid_payload(seed: int, at_s: float, trending_share: float) -> None:
    phrases = Texts(Random(seed))
    for _ in range(5):
        check_payload(MessageType.DANMAKU, (phrases.next(at_s, trending_share),))
        check_payload(MessageType.DANMAKU, (phrases.flood(),))
        gift, count = phrases.gift()
        assert gift in GIFTS
        check_payload(MessageType.GIFT, ("order", "u", "u", gift.gift_id, count, gift.price_cents, "主播"))
    for text in scenario.ANNOUNCEMENTS:
        check_payload(MessageType.ANNOUNCEMENT, (text,))


def test_every_pattern_is_filled() -> None:
    phrases = Texts(Random(1))
    texts = [phrases.next(0.0, 0.0) for _ in range(2000)] + [phrases.flood() for _ in range(500)]
    assert not [text for text in texts if "{" in text]


def test_trending_texts_depend_on_the_time_and_not_on_the_random_source() -> None:
    assert Texts(Random(1)).trending(3.0) == Texts(Random(2)).trending(3.9)
    assert Texts(Random(1)).trending(3.9) != Texts(Random(1)).trending(4.0)
    trending = set(Texts(Random(1)).trending(0.0))
    assert {Texts(Random(seed)).next(1.0, 1.0) for seed in range(50)} <= trending


def test_viewer_names_are_unique_and_valid_in_development_mode() -> None:
    names = [viewer_name(index) for index in range(5000)]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 64 and ":" not in name and name.isprintable() for name in names)
