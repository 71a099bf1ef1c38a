"""Keyword hints: what meets a rule, hours of any zone, cooldowns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.moderation.hints import HintCooldowns, HintError, HintHours, HintSet, filled, words_of
from protocol.operations.hints import HintRule, HintTarget

NOON_MS = 1_790_000_000_000
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def rule(
    id: str = "price", words: str = "便宜点|太贵", *, rooms: str = "*", cooldown_s: int = 60, hours: str = ""
) -> HintRule:
    return HintRule(id, words, "lower it", HintTarget.STAFF, rooms, cooldown_s, hours)


def met(rules: HintSet, text: str, room: str = "lobby", now_ms: int = NOON_MS) -> list[tuple[str, str]]:
    return sorted((found.id, word) for found, word in rules.found(room, text, now_ms))


def test_a_text_meets_each_rule_once_also_where_it_is_written_to_be_missed() -> None:
    rules = HintSet([rule(), rule("ship", "shipping|包邮"), rule("all", "便宜点", rooms="vip-*")])
    assert met(rules, "老板便宜点，太贵了") == [("price", "便宜点")]
    assert met(rules, "太貴了") == [("price", "太贵")]
    assert met(rules, "free ＳＨＩＰＰＩＮＧ? 便宜点") == [("price", "便宜点"), ("ship", "shipping")]
    assert met(rules, "便宜点", "vip-1") == [("all", "便宜点"), ("price", "便宜点")]
    assert met(rules, "shippings and nothing else") == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"words": "|"}, "words"), ({"words": "|".join("abcdefghijklmnopqrstuvwxyz")}, "words"),
        ({"words": "..."}, "words"), ({"words": "x" * 65}, "words"), ({"hours": "22-8"}, "hours"),
        ({"hours": "22:00-08:00"}, "hours"), ({"hours": "soon 22:00-08:00Z"}, "hours"),
        ({"hours": "25:00-08:00Z"}, "hours"), ({"hours": "00:00-24:01Z"}, "hours"),
        ({"hours": "00:00-08:00+15:00"}, "hours"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_hold_names_its_field(changes: dict[str, str], field: str) -> None:
    with pytest.raises(HintError) as caught:
        HintSet([HintRule("price", "便宜点", "lower it")._replace(**changes)])  # type: ignore[arg-type]
    assert caught.value.field == field


minutes = st.integers(0, 24 * 60 - 1)


@given(
    minutes, minutes, st.integers(-14 * 60, 14 * 60), st.sets(st.sampled_from(range(7)), min_size=1),
    st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)  # fmt: skip
def test_hours_hold_as_a_clock_on_the_wall_of_that_zone_says(
    begin: int, end: int, zone: int, days: set[int], now: datetime
) -> None:
    names = ",".join(DAYS[day] for day in sorted(days))
    sign, of_zone = ("-" if zone < 0 else "+"), abs(zone)
    text = f"{names} {clock(begin)}-{clock(end)}{sign}{clock(of_zone)}"
    there = now.astimezone(timezone(timedelta(minutes=zone)))
    minute, today, yesterday = there.hour * 60 + there.minute, there.weekday(), (there.weekday() - 1) % 7
    if begin < end:
        expected = today in days and begin <= minute < end
    else:
        expected = (today in days and minute >= begin) or (yesterday in days and minute < end)
    assert HintHours.parse(text).hold_at(round(now.timestamp() * 1000)) == expected


def clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def test_without_days_hours_hold_every_day_and_24_00_is_the_end_of_it() -> None:
    for day in range(7):
        assert HintHours.parse("00:00-24:00Z").hold_at(NOON_MS + day * 86_400_000)
    rules = HintSet([rule(hours="09:00-10:00Z")])
    nine = round(datetime(2026, 11, 28, 9, 30, tzinfo=UTC).timestamp() * 1000)
    assert met(rules, "便宜点", now_ms=nine) == [("price", "便宜点")]
    assert met(rules, "便宜点", now_ms=nine + 3_600_000) == []


@given(st.lists(st.tuples(st.sampled_from(["lobby", "vip"]), st.sampled_from(["a", "b"]), st.floats(0, 100))))
def test_a_rule_is_quiet_for_its_cooldown_in_each_room(tries: list[tuple[str, str, float]]) -> None:
    cooldowns = HintCooldowns()
    begun: dict[tuple[str, str], float] = {}
    for room, id, now in sorted(tries, key=lambda each: each[2]):
        expected = now - begun.get((room, id), -1000) >= 30
        assert cooldowns.try_begin(room, rule(id, cooldown_s=30), now) == expected
        if expected:
            begun[room, id] = now


def test_cooldowns_are_bounded() -> None:
    cooldowns = HintCooldowns(limit=2)
    for room in ("a", "b", "c"):
        assert cooldowns.try_begin(room, rule(), 0.0)
    assert cooldowns.try_begin("a", rule(), 1.0), "the oldest was forgotten"
    assert not cooldowns.try_begin("c", rule(), 1.0)


def test_a_template_says_who_and_which_word_and_is_no_program() -> None:
    assert filled("{name}: {word} {0.__class__} {", "Ann {word}", "便宜点") == "Ann 便宜点: 便宜点 {0.__class__} {"
    assert words_of(rule(words=" a | b |")) == ("a", "b")
