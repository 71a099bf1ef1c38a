"""Watched time is that of the union of a user's connections."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, lists, tuples

from broker.core.rooms.watch_times import WatchTimes

stays = lists(tuples(integers(0, 50), integers(0, 50)).map(lambda pair: (min(pair), max(pair))), max_size=8)


def union_ms(stays: list[tuple[int, int]]) -> int:
    """Moments that are in one of the stays."""
    return len({moment for begin, end in stays for moment in range(begin, end)})


@given(stays)
def test_each_moment_counts_once_where_connections_overlap(stays: list[tuple[int, int]]) -> None:
    watch = WatchTimes()
    counted: list[tuple[int, int]] = []
    for begin, end in sorted(stays, key=lambda stay: stay[1]):
        # A connection that joined before the last one left counts from there on.
        watch.left("ann", begin, end)
        last = max((until for _, until in counted), default=0)
        counted.append((max(begin, last), end))
    assert watch.watched_ms("ann", None, 100) == sum(max(0, end - begin) for begin, end in counted)
    assert watch.watched_ms("ann", None, 100) <= union_ms(stays)


def test_who_is_there_counts_until_now() -> None:
    watch = WatchTimes()
    assert watch.watched_ms("ann", 1000, 4000) == 3000
    watch.left("ann", 1000, 4000)
    assert watch.watched_ms("ann", None, 9000) == 3000
    assert watch.watched_ms("ann", 8000, 9000) == 4000
    assert watch.watched_ms("ann", 3000, 9000) == 8000, "it had a second connection all the time"


def test_a_clock_that_goes_back_takes_nothing() -> None:
    watch = WatchTimes()
    watch.left("ann", 1000, 4000)
    watch.left("ann", 3000, 2000)
    assert watch.watched_ms("ann", None, 0) == 3000
    assert watch.watched_ms("ann", 5000, 4500) == 3000


def test_who_left_first_is_forgotten_first() -> None:
    watch = WatchTimes(max_users=2)
    for user in ("a", "b", "c"):
        watch.left(user, 0, 10)
    assert [watch.watched_ms(user, None, 10) for user in "abc"] == [0, 10, 10]
    assert len(watch) == 2
