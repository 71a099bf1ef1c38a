"""Rules of marketing, and the table of what users prefer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.users.marketing import MarketingRules, QuietHours, Suppression
from broker.core.users.preferences import PreferenceTable

MINUTE_MS = 60_000
minutes = st.integers(0, 24 * 60 - 1)


@given(minutes, minutes, st.integers(-840, 840), st.integers(0, 2**41))
def test_quiet_hours_are_a_part_of_each_local_day_also_over_midnight(
    begin: int, end: int, offset: int, now_ms: int
) -> None:
    quiet = QuietHours(begin, end, offset)
    local = (now_ms // MINUTE_MS + offset) % 1440
    covered = {(begin + more) % 1440 for more in range((end - begin) % 1440)}
    assert quiet.cover(now_ms) == (local in covered)


@given(st.booleans(), st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.integers(0, 3))
def test_marketing_is_sent_where_nothing_is_against_it(
    is_opted_out: bool, last_hour: int, last_day: int, per_hour: int, per_day: int
) -> None:
    found = MarketingRules(per_hour, per_day).judge(is_opted_out, last_hour, last_day, 0)
    is_capped = (per_hour > 0 and last_hour >= per_hour) or (per_day > 0 and last_day >= per_day)
    assert found is (Suppression.OPTED_OUT if is_opted_out else Suppression.FREQUENCY if is_capped else None)
    quiet = MarketingRules(per_hour, per_day, QuietHours(0, 1)).judge(is_opted_out, last_hour, last_day, 0)
    assert quiet is (Suppression.OPTED_OUT if is_opted_out else Suppression.QUIET_HOURS)


users = st.sampled_from(["a", "b", "c", "d"])
changes = st.one_of(
    st.tuples(users, st.just("marketing"), st.booleans()),
    st.tuples(users, st.just("visibility"), st.sampled_from(["hidden", "visible"])),
    st.tuples(users, st.just("recommendation"), st.booleans()),
    st.tuples(users, st.just("forget"), st.booleans()),
)


@given(st.lists(changes), st.integers(1, 4))
def test_a_full_table_counts_those_it_does_not_know_as_against_it(
    history: list[tuple[str, str, bool | str]], max_users: int
) -> None:
    table = PreferenceTable(max_users)
    wanted: dict[tuple[str, str], bool | str] = {}
    for user, name, value in history:
        if name == "forget":
            table.forget(user)
            wanted.pop((user, "marketing"), None)
            wanted.pop((user, "recommendation"), None)
            wanted.pop((user, "visibility"), None)
        else:
            table.change(user, {name: value})
            wanted[user, name] = value
    for user in "abcd":
        if wanted.get((user, "marketing")) is False:
            assert not table.wants_marketing(user)
        if wanted.get((user, "recommendation")) is False:
            assert not table.wants_recommendation(user)
        if wanted.get((user, "visibility")) == "hidden":
            assert table.is_hidden(user)
    if max_users == 4:
        assert all(table.wants_marketing(user) == (wanted.get((user, "marketing")) is not False) for user in "abcd")
        assert all(
            table.wants_recommendation(user) == (wanted.get((user, "recommendation")) is not False) for user in "abcd"
        )
        assert all(table.is_hidden(user) == (wanted.get((user, "visibility")) == "hidden") for user in "abcd")
    assert len(table) <= 3 * max_users
