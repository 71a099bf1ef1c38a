from __future__ import annotations

import pytest

from bench.broker_process import floor_frame
from bench.load.accounting import STREAM_TICK, FrameGroup, FrameRecord, ViewerAccounting
from bench.load.texts import stamped
from protocol.codes import Codec, Lane, MessageType, Role, RoomPhase, Tier
from protocol.connection import Encoding, encode
from protocol.messages import Account, Event, Joined, State, Tick, TickEntry

ROOM = 5


@pytest.fixture
def accounting() -> ViewerAccounting:
    made = ViewerAccounting(origin_us=1_000_000, wall_offset_us=0)
    made.joined(ROOM, Joined("bench-0", 1, 0, Role.VIEWER, RoomPhase.LIVE, Tier.FULL, 100, 1, 1, 1, 1, 0))
    return made


@pytest.fixture
def group(accounting: ViewerAccounting) -> FrameGroup:
    return accounting.group(Tier.FULL, slow=False)


def entry(number: int, due_us: int, count: int = 1, room: int = 0) -> TickEntry:
    return TickEntry(MessageType.DANMAKU, "u", "", (stamped("hello", room, number, due_us),), count)


def tick(number: int, entries: tuple[TickEntry, ...], account: Account, codec: Codec = Codec.PLAIN) -> bytes:
    return encode(Tick(0, 100, 0, entries, account), ROOM, number, Lane.CHAT, Encoding.BINARY, codec)


def take(accounting: ViewerAccounting, group: FrameGroup, raw: bytes, now: int = 2_000_000) -> FrameRecord:
    return accounting.decode_first(group, raw[:16], raw, now)


@pytest.mark.parametrize("codec", [Codec.PLAIN, Codec.LZ4, Codec.LZ4_DICT_1])
def test_every_copy_counts_for_every_danmaku_inside(
    accounting: ViewerAccounting, group: FrameGroup, codec: Codec
) -> None:
    entries = tuple(entry(number, 500_000 + number) for number in range(20))
    record = take(accounting, group, tick(1, entries, Account(20, 20), codec))
    for arrival_us in (1_600_000, 1_600_500, 1_700_000):
        record.arrivals.append(arrival_us * 1000)
    report = accounting.report()
    assert record.stream == STREAM_TICK
    assert report["copies"] == {"tick/chat": 3}
    assert report["danmaku_copies"] == 60
    assert accounting.latencies("chat").count == 60
    assert accounting.latencies("chat").percentile_us(100) == pytest.approx(200_000, rel=0.01)
    assert report["rooms"][0]["account"] == [20, 20, 0, 0, 0, 0]
    assert report["violations"] == []


def test_two_forms_see_a_tick_and_it_counts_once(accounting: ViewerAccounting, group: FrameGroup) -> None:
    raw = tick(1, (entry(1, 0),), Account(1, 1))
    take(accounting, group, raw)
    take(accounting, accounting.group(Tier.FULL, slow=False), raw)
    assert accounting.report()["rooms"][0]["account"][0] == 1


def test_an_account_that_does_not_match_its_entries_is_a_violation(
    accounting: ViewerAccounting, group: FrameGroup
) -> None:
    take(accounting, group, tick(1, (entry(1, 0, count=3),), Account(3, 1, 1, 1)))
    take(accounting, group, tick(2, (entry(2, 0),), Account(5, 1, 0, 1)))
    first, second = accounting.violations
    assert "says 1 shown, 1 merged, but holds (1, 2)" in first
    assert "does not balance" in second


def test_a_tick_in_parts_is_judged_as_a_whole(accounting: ViewerAccounting, group: FrameGroup) -> None:
    take(accounting, group, tick(1, (entry(1, 0),), Account()))
    take(accounting, group, tick(1, (entry(2, 0, count=2), entry(3, 0)), Account(4, 3, 1)))
    assert accounting.violations == []


def test_a_leak_and_a_repeated_danmaku_are_named(accounting: ViewerAccounting, group: FrameGroup) -> None:
    take(accounting, group, tick(1, (entry(1, 0, room=9),), Account(1, 1)))
    take(accounting, group, tick(2, (entry(1, 0),), Account(1, 1)))
    leak, repeated_events = accounting.violations
    assert "sent to room bench-9 and arrived in bench-0" in leak
    assert "shown twice" in repeated_events


def test_gifts_add_up_and_likes_never_fall(accounting: ViewerAccounting, group: FrameGroup) -> None:
    for offset, count in ((1, 2), (2, 3)):
        order = stamped("order", 0, offset, 0)
        event = Event(MessageType.GIFT, 0, "u", "", (order, "u", "", "rose", count, 100, ""))
        take(accounting, group, encode(event, ROOM, offset, Lane.PAID))
    for number, likes in ((1, 5), (2, 4)):
        state = State(0, RoomPhase.LIVE, 0, 100, 1, 1, 1, 1, likes)
        take(accounting, group, encode(state, ROOM, number, Lane.AMBIENT))
    totals = accounting.report()["rooms"][0]
    assert (totals["gifts"], totals["gift_cents"], totals["events_by_lane"], totals["last_offset"]) == (
        5,
        500,
        [0, 0, 2, 0, 0],
        2,
    )
    assert "likes fell from 5 to 4" in accounting.violations[0]


def test_a_floor_frame_is_known_and_has_about_its_size(accounting: ViewerAccounting, group: FrameGroup) -> None:
    for size in (40, 107, 5000):
        raw = floor_frame(2, size, 123_456_789)
        assert len(raw) == pytest.approx(size, abs=8)
        record = take(accounting, group, raw)
        assert record.lane == "floor"
        assert record.published == [123_456_789]


def test_bytes_that_do_not_decode_are_a_violation_not_an_exception(
    accounting: ViewerAccounting, group: FrameGroup
) -> None:
    raw = tick(1, (entry(1, 0),), Account(1, 1))
    take(accounting, group, raw[:30] + b"\xc1" + raw[31:])
    assert "does not decode" in accounting.violations[0]
