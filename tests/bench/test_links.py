from __future__ import annotations

import pytest

from bench.load.books import SINGLE, STREAM_EVENT, STREAM_STATE, STREAM_TICK, Books, Record
from bench.load.links import Link, Manner, judge, missing_danmaku
from protocol.codes import Tier


@pytest.fixture
def link() -> Link:
    made = Link(
        7, "bench-0", Books(0, 0).form(Tier.FULL, slow=False),
        websocket=False, manner=Manner.HEALTHY, careful=False, token=None,
    )  # fmt: skip
    made.room = made.seat = 3
    made.marks = [10, 20, 5, 0]
    return made


def record(stream: int, sequence: int, room: int = 3) -> Record:
    return Record(stream, "chat", 40, room, sequence)


def test_an_event_after_a_hole_is_named(link: Link) -> None:
    assert judge(link, record(STREAM_EVENT, 11)) == (True, "")
    live, wrong = judge(link, record(STREAM_EVENT, 13))
    assert live
    assert "from 11 to 13" in wrong


def test_a_tick_after_a_hole_is_remembered_and_one_before_is_wrong(link: Link) -> None:
    assert judge(link, record(STREAM_TICK, 24)) == (True, "")
    assert link.holes == [(21, 23)]
    assert missing_danmaku(link, {20: 1, 21: 2, 23: 4, 24: 8}) == 6
    assert judge(link, record(STREAM_TICK, 24)) == (True, ""), "a tick may come in parts"
    assert "go back" in judge(link, record(STREAM_TICK, 23))[1]


def test_counters_may_skip_but_not_go_back(link: Link) -> None:
    assert judge(link, record(STREAM_STATE, 9)) == (True, "")
    assert "go back" in judge(link, record(STREAM_STATE, 8))[1]


def test_after_a_gap_counters_of_one_viewer_may_overtake_a_sweep_but_no_number_comes_twice(link: Link) -> None:
    link.gaps = 1
    assert judge(link, record(STREAM_STATE, 9)) == (True, "")
    assert judge(link, record(STREAM_STATE, 8)) == (True, "")
    assert link.marks[STREAM_STATE] == 9, "a client keeps the newer ones"
    assert "go back" in judge(link, record(STREAM_STATE, 9))[1]
    judge(link, record(STREAM_STATE, 43))
    assert "from 43 to 0" in judge(link, record(STREAM_STATE, 0))[1]


def test_events_missed_and_events_that_come_twice_are_counted(link: Link) -> None:
    judge(link, record(STREAM_EVENT, 14))
    judge(link, record(STREAM_EVENT, 14))
    judge(link, record(STREAM_EVENT, 13))
    assert (link.missed, link.twice) == (3, 2)


def test_a_frame_of_another_room_is_a_leak(link: Link) -> None:
    live, wrong = judge(link, record(STREAM_TICK, 21, room=4))
    assert not live
    assert "of room 4" in wrong
    assert judge(link, record(SINGLE, 1, room=0)) == (True, "")


def test_replayed_events_are_in_order_but_not_live(link: Link) -> None:
    link.room, link.replay_until = -1, 12
    assert judge(link, record(STREAM_EVENT, 11)) == (False, "")
    assert judge(link, record(STREAM_TICK, 21)) == (True, "")
    assert judge(link, record(STREAM_EVENT, 12)) == (False, "")
    assert link.room == 3, "the replay is over"
    assert judge(link, record(STREAM_EVENT, 13)) == (True, "")
