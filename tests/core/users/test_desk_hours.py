"""Office hours: an interval is open as long as a count of its minutes says, and promises stand still outside."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.users.desk_hours import MAX_WINDOWS, WEEK_MINUTES, OfficeHours

MINUTE_MS = 60_000
minutes = st.integers(0, 4 * WEEK_MINUTES)


@st.composite
def office_hours(draw: st.DrawFn) -> OfficeHours:
    edges = sorted(draw(st.sets(st.integers(0, WEEK_MINUTES), max_size=12)))
    windows = tuple(zip(edges[::2], edges[1::2], strict=False))
    hours = OfficeHours(windows, draw(st.integers(-840, 840)))
    hours.check()
    return hours


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@given(office_hours(), minutes, st.integers(0, 3000))
def test_an_interval_is_open_as_a_count_of_its_minutes_says(hours: OfficeHours, since: int, length: int) -> None:
    counted = sum(hours.is_open(minute * MINUTE_MS) for minute in range(since, since + length))
    assert hours.between(since * MINUTE_MS, (since + length) * MINUTE_MS) == counted * MINUTE_MS


@given(office_hours(), *[st.integers(0, 4 * WEEK_MINUTES * MINUTE_MS)] * 3)
def test_parts_of_an_interval_add_up(hours: OfficeHours, one: int, two: int, three: int) -> None:
    first, middle, last = sorted((one, two, three))
    assert hours.between(first, middle) + hours.between(middle, last) == hours.between(first, last)
    assert hours.between(last, first) == 0


@given(office_hours(), st.integers(0, 4 * WEEK_MINUTES * MINUTE_MS))
def test_the_desk_opens_when_it_says_and_not_before(hours: OfficeHours, at_ms: int) -> None:
    wait_ms = hours.opens_in_ms(at_ms)
    assert (wait_ms == 0) == hours.is_open(at_ms)
    assert hours.is_open(at_ms + wait_ms)
    assert hours.between(at_ms, at_ms + wait_ms) == 0


def test_days_of_the_week_and_local_time_are_those_of_the_calendar() -> None:
    weekdays = tuple((day * 1440 + 9 * 60, day * 1440 + 18 * 60) for day in range(5))
    hours = OfficeHours(weekdays, offset_minutes=8 * 60)
    assert hours.is_open(ms("2026-11-27T01:00:00"))  # Friday 09:00 in Shanghai
    assert not hours.is_open(ms("2026-11-27T00:59:59"))
    assert not hours.is_open(ms("2026-11-27T10:00:00"))
    assert not hours.is_open(ms("2026-11-28T04:00:00"))  # Saturday
    assert hours.opens_in_ms(ms("2026-11-28T04:00:00")) == ms("2026-11-30T01:00:00") - ms("2026-11-28T04:00:00")
    assert hours.between(ms("2026-11-27T09:00:00"), ms("2026-11-30T02:00:00")) == 2 * 3_600_000


@pytest.mark.parametrize(
    "hours",
    [
        OfficeHours(((5, 5),)),
        OfficeHours(((-1, 5),)),
        OfficeHours(((0, WEEK_MINUTES + 1),)),
        OfficeHours(((10, 20), (15, 30))),
        OfficeHours(((10, 20), (0, 5))),
        OfficeHours((), 841),
        OfficeHours(tuple((2 * index, 2 * index + 1) for index in range(MAX_WINDOWS + 1))),
    ],
)
def test_what_is_no_week_is_refused(hours: OfficeHours) -> None:
    with pytest.raises(ValueError, match="must be"):
        hours.check()
