"""Ended rooms against a model: ended until their time is over or they are opened, and bounded."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from broker.core.rooms.ended import EndedRooms

NAMES = st.sampled_from("abcde")
STEPS = st.lists(st.tuples(st.sampled_from(["end", "open", "ask"]), NAMES, st.integers(0, 40)), max_size=50)


@given(st.integers(0, 60), STEPS)
def test_a_room_is_ended_until_its_time_or_until_it_is_opened(reopen_s: int, steps: list[tuple[str, str, int]]) -> None:
    ended, model, now = EndedRooms(reopen_s), dict[str, int](), 0
    for what, name, step in steps:
        now += step
        if what == "end":
            ended.add(name, now)
            model[name] = now
        elif what == "open":
            ended.discard(name)
            model.pop(name, None)
        else:
            assert ended.is_ended(name, now) == (name in model and now < model[name] + reopen_s)


@given(st.integers(1, 5), st.lists(st.text(max_size=2)))
def test_the_rooms_ended_first_are_forgotten(max_rooms: int, names: list[str]) -> None:
    ended = EndedRooms(100, max_rooms)
    for number, name in enumerate(names):
        ended.add(name, number / 1000)
        assert ended.is_ended(name, 1)
        assert len(ended) <= max_rooms
