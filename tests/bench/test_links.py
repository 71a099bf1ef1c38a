from __future__ import annotations

import pytest

from bench.load.accounting import SINGLE, STREAM_EVENT, STREAM_STATE, STREAM_TICK, FrameRecord, ViewerAccounting
from bench.load.links import Link, ReadMode, check_sequence, missing_danmaku
from protocol.codes import Tier


@pytest.fixture
def link() -> Link:
    made = Link(
        7, "bench-0", ViewerAccounting(0, 0).group(Tier.FULL, slow=False),
        websocket=False, read_mode=ReadMode.HEALTHY, verifies=False, token=None,
    )  # fmt: skip
    made.room = made.room_number = 3
    made.positions = [10, 20, 5, 0]
    return made


def record(stream: int, sequence: int, room: int = 3) -> FrameRecord:
    return FrameRecord(stream, "chat", 40, room, sequence)


def test_an_event_after_a_hole_is_named(link: Link) -> None:
    assert check_sequence(link, record(STREAM_EVENT, 11)) == (True, "")
    live, violation = check_sequence(link, record(STREAM_EVENT, 13))
    assert live
    assert "from 11 to 13" in violation


def test_a_tick_after_a_hole_is_remembered_and_one_before_is_wrong(link: Link) -> None:
    assert check_sequence(link, record(STREAM_TICK, 24)) == (True, "")
    assert link.holes == [(21, 23)]
    assert missing_danmaku(link, {20: 1, 21: 2, 23: 4, 24: 8}) == 6
    assert check_sequence(link, record(STREAM_TICK, 24)) == (True, ""), "a tick may arrive in parts"
    assert "go back" in check_sequence(link, record(STREAM_TICK, 23))[1]


def test_counters_may_skip_but_not_go_back(link: Link) -> None:
    assert check_sequence(link, record(STREAM_STATE, 9)) == (True, "")
    assert "go back" in check_sequence(link, record(STREAM_STATE, 8))[1]


def test_after_a_gap_counters_of_one_viewer_may_overtake_a_broadcast_but_no_number_repeats(link: Link) -> None:
    link.gaps = 1
    assert check_sequence(link, record(STREAM_STATE, 9)) == (True, "")
    assert check_sequence(link, record(STREAM_STATE, 8)) == (True, "")
    assert link.positions[STREAM_STATE] == 9, "a client keeps the newer ones"
    assert "go back" in check_sequence(link, record(STREAM_STATE, 9))[1]
    check_sequence(link, record(STREAM_STATE, 43))
    assert "from 43 to 0" in check_sequence(link, record(STREAM_STATE, 0))[1]


def test_missed_and_repeated_events_are_counted(link: Link) -> None:
    check_sequence(link, record(STREAM_EVENT, 14))
    check_sequence(link, record(STREAM_EVENT, 14))
    check_sequence(link, record(STREAM_EVENT, 13))
    assert (link.missed_events, link.repeated_events) == (3, 2)


def test_a_frame_of_another_room_is_a_leak(link: Link) -> None:
    live, violation = check_sequence(link, record(STREAM_TICK, 21, room=4))
    assert not live
    assert "of room 4" in violation
    assert check_sequence(link, record(SINGLE, 1, room=0)) == (True, "")


def test_replayed_events_are_in_order_but_not_live(link: Link) -> None:
    link.room, link.replay_until = -1, 12
    assert check_sequence(link, record(STREAM_EVENT, 11)) == (False, "")
    assert check_sequence(link, record(STREAM_TICK, 21)) == (True, "")
    assert check_sequence(link, record(STREAM_EVENT, 12)) == (False, "")
    assert link.room == 3, "the replay is over"
    assert check_sequence(link, record(STREAM_EVENT, 13)) == (True, "")
