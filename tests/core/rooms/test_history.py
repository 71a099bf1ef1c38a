"""Positions, resume without holes, and the bounds of what a room remembers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.rooms.history import History, RecentDanmaku
from tests.support.examples import examples


def history_of(*entries: str, **bounds: float) -> History[str]:
    history: History[str] = History(7, **bounds)  # type: ignore[arg-type]
    for entry in entries:
        history.append(entry, len(entry), 0.0)
    return history


def test_offsets_count_from_one_and_resume_gives_what_came_after() -> None:
    history = history_of()
    assert (history.last_offset, history.first_offset) == (0, 1)
    assert history.since(7, 0, 0.0) == []
    assert [history.append(entry, 1, 0.0) for entry in "abc"] == [1, 2, 3]
    assert history.since(7, 0, 0.0) == ["a", "b", "c"]
    assert history.since(7, 2, 0.0) == ["c"]
    assert history.since(7, 3, 0.0) == []


def test_what_cannot_be_complete_is_none() -> None:
    history = history_of("a", "b", "c", max_entries=2)
    assert history.since(7, 1, 0.0) == ["b", "c"]
    assert history.since(7, 0, 0.0) is None  # "a" is forgotten
    assert history.since(7, 4, 0.0) is None  # from the future: it has seen another room
    assert history.since(7, -1, 0.0) is None
    assert history.since(8, 3, 0.0) is None


def test_bytes_are_bounded_and_the_newest_may_be_too_large_to_keep() -> None:
    history = history_of("aaaa", "bbbb", max_bytes=8)
    assert len(history) == 2
    history.append("c", 1, 0.0)
    assert (len(history), history.first_offset, history.nbytes) == (2, 2, 5)
    assert history.append("d" * 9, 9, 0.0) == 4
    assert (len(history), history.first_offset, history.nbytes) == (0, 5, 0)
    assert history.since(7, 3, 0.0) is None
    assert history.since(7, 4, 0.0) == []


def test_old_entries_are_forgotten_even_in_an_idle_room() -> None:
    history = history_of("a", max_age_s=120.0)
    history.append("b", 1, 60.0)
    assert history.since(7, 0, 120.0) == ["a", "b"]
    assert history.since(7, 0, 120.5) is None
    assert history.since(7, 1, 120.5) == ["b"]
    history.trim(1_000.0)
    assert (len(history), history.nbytes, history.last_offset) == (0, 0, 2)


def test_a_room_may_keep_nothing() -> None:
    history = history_of("a", max_entries=0)
    assert history.since(7, 1, 0.0) == []
    assert history.since(7, 0, 0.0) is None


@pytest.mark.parametrize("bounds", [{"max_entries": -1}, {"max_age_s": -1.0}, {"max_bytes": -1}])
def test_negative_bounds_are_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="negative"):
        history_of(**bounds)


@given(st.integers(0, 6), st.integers(0, 20), st.lists(st.lists(st.text("ab", max_size=8), max_size=4), max_size=8))
def test_the_snapshot_holds_the_newest_that_fit(max_items: int, max_bytes: int, ticks: list[list[str]]) -> None:
    recent: RecentDanmaku[str] = RecentDanmaku(max_items, max_bytes, len)
    shown: list[str] = []
    for tick in ticks:
        recent.extend(tick)
        shown += tick
        last = shown[len(shown) - min(max_items, len(shown)) :]
        entries, is_cut = recent.snapshot()
        assert list(entries) == last[len(last) - len(entries) :]
        assert is_cut == (len(entries) < len(last))
        assert sum(map(len, entries)) <= max_bytes
        assert not is_cut or sum(map(len, last[-len(entries) - 1 :])) > max_bytes, "as many as fit"


@pytest.mark.parametrize("bounds", [(-1, 1), (1, -1)])
def test_negative_bounds_of_a_snapshot_are_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="negative"):
        RecentDanmaku(*bounds, len)


MAX_ENTRIES, MAX_AGE_S, MAX_BYTES = 5, 10.0, 30


class RoomWithReturningViewers(RuleBasedStateMachine):
    """The slow twin remembers everything and says of each position whether it can be served."""

    def __init__(self) -> None:
        super().__init__()
        self.history: History[int] = History(1, MAX_ENTRIES, MAX_AGE_S, MAX_BYTES)
        self.everything: list[tuple[float, int]] = []
        self.now = 0.0

    def kept(self) -> list[int]:
        """Offsets of the longest tail within all bounds; what was once too much stays forgotten."""
        offsets: list[int] = []
        nbytes = 0
        for offset in range(len(self.everything), 0, -1):
            at, size = self.everything[offset - 1]
            nbytes += size
            if len(offsets) == MAX_ENTRIES or nbytes > MAX_BYTES or at < self.now - MAX_AGE_S:
                break
            offsets.insert(0, offset)
        return offsets

    @rule(nbytes=st.integers(0, 40))
    def publish(self, nbytes: int) -> None:
        self.everything.append((self.now, nbytes))
        assert self.history.append(len(self.everything), nbytes, self.now) == len(self.everything)

    @rule(seconds=st.floats(0.0, 6.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(epoch=st.sampled_from([1, 1, 1, 2]), back=st.integers(-2, 8))
    def resume(self, epoch: int, back: int) -> None:
        last = len(self.everything)
        offset = last - back
        missed = list(range(offset + 1, last + 1))
        can = epoch == 1 and 0 <= offset <= last and set(missed) <= set(self.kept())
        assert self.history.since(epoch, offset, self.now) == (missed if can else None)

    @invariant()
    def bounds_hold(self) -> None:
        history = self.history
        assert len(history) <= MAX_ENTRIES
        assert 0 <= history.nbytes <= MAX_BYTES
        assert history.first_offset + len(history) == history.last_offset + 1 == len(self.everything) + 1


TestRoomWithReturningViewers = RoomWithReturningViewers.TestCase
TestRoomWithReturningViewers.settings = examples(40, steps=40)
