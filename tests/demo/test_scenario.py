from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.demo import scenario as script
from broker.demo.scenario import ACTS, GIFTS, Phrases, plan, viewer_name
from protocol.codes import MessageType
from protocol.payloads import check_payload


@given(st.floats(0.1, 10_000))
def test_the_acts_follow_each_other_without_a_gap_and_fill_the_show(seconds: float) -> None:
    scenes = plan(seconds)
    assert [scene.act for scene in scenes] == list(ACTS)
    assert scenes[0].begins_s == 0.0
    assert scenes[-1].ends_s == seconds
    for one, other in pairwise(scenes):
        assert one.begins_s < one.ends_s == other.begins_s


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_show_takes_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="a show takes time"):
        plan(seconds)


@given(st.integers(0, 2**32), st.floats(0, 3600), st.floats(0, 1))
def test_whatever_is_said_is_a_danmaku_that_the_wire_takes(seed: int, at_s: float, hot_share: float) -> None:
    phrases = Phrases(Random(seed))
    for _ in range(5):
        check_payload(MessageType.DANMAKU, (phrases.next(at_s, hot_share),))
        check_payload(MessageType.DANMAKU, (phrases.flood(),))
        gift, count = phrases.gift()
        assert gift in GIFTS
        check_payload(MessageType.GIFT, ("order", "u", "u", gift.gift_id, count, gift.price_cents, "主播"))
    for text in script.ANNOUNCEMENTS:
        check_payload(MessageType.ANNOUNCEMENT, (text,))


def test_every_pattern_is_filled() -> None:
    phrases = Phrases(Random(1))
    said = [phrases.next(0.0, 0.0) for _ in range(2000)] + [phrases.flood() for _ in range(500)]
    assert not [text for text in said if "{" in text]


def test_everybody_says_the_same_hot_phrases_at_the_same_time_whatever_their_chance() -> None:
    assert Phrases(Random(1)).hot(3.0) == Phrases(Random(2)).hot(3.9)
    assert Phrases(Random(1)).hot(3.9) != Phrases(Random(1)).hot(4.0)
    hot = set(Phrases(Random(1)).hot(0.0))
    assert {Phrases(Random(seed)).next(1.0, 1.0) for seed in range(50)} <= hot


def test_viewers_have_names_of_their_own_that_a_broker_in_development_mode_takes() -> None:
    names = [viewer_name(index) for index in range(5000)]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 64 and ":" not in name and name.isprintable() for name in names)
