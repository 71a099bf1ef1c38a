"""What a viewer that is behind still has to get: lanes, bounds, keyframe mode, and no torn frame."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.net.send_queue import MAX_OVERTAKEN, QueueLimits, QueueMissed, QueueResult, SendQueue
from protocol.codes import Lane
from tests.support.examples import examples


def written(queue: SendQueue, count: int | None = None, max_bytes: int = 65_536) -> bytes:
    """Let the socket take ``count`` bytes (all by default) of the next write."""
    data = b"".join(queue.chunks(max_bytes))
    count = len(data) if count is None else count
    queue.advance(count)
    return data[:count]


def drained(queue: SendQueue) -> bytes:
    out = b""
    while not queue.empty:
        out += written(queue)
    return out


# ---- order --------------------------------------------------------------------------------------


def test_lanes_0_to_2_go_first_in_one_order_and_then_the_others() -> None:
    queue = SendQueue(QueueLimits())
    for lane in (4, 3, 2, 1, 0, 3, 2, 1, 0):
        assert queue.offer(b"<%d>" % lane, Lane(lane)) is QueueResult.QUEUED
    assert (queue.frames, queue.nbytes, queue.critical_frames, queue.critical_nbytes) == (9, 27, 6, 18)
    assert drained(queue) == b"<2><1><0><2><1><0><3><3><4>"
    assert (queue.frames, queue.nbytes, queue.critical_frames, queue.critical_nbytes) == (0, 0, 0, 0)
    assert queue.empty


def test_a_sale_overtakes_the_chat_but_never_enters_a_frame_begun() -> None:
    queue = SendQueue(QueueLimits())
    queue.push_rest(memoryview(b"<begun>")[3:])
    queue.offer(b"<chat>", Lane.CHAT)
    assert written(queue, 2) == b"gu"
    queue.offer(b"<sale>", Lane.COMMERCE)
    assert written(queue, 5) == b"n><sa"
    queue.offer(b"<kick>", Lane.CONTROL)
    assert drained(queue) == b"le><kick><chat>"


def test_one_write_joins_many_small_buffers_but_not_more_than_asked() -> None:
    queue = SendQueue(QueueLimits(frames=1_000))
    for _ in range(10):
        queue.offer(b"x" * 30, Lane.CHAT)
    assert len(queue.chunks(100)) == 3
    assert len(queue.chunks(10)) == 1
    assert len(queue.chunks()) == 10
    for _ in range(500):
        queue.offer(b"y", Lane.CONTROL)
    assert len(queue.chunks()) == 256


def test_bytes_begun_for_a_repeated_write_stay_first() -> None:
    queue = SendQueue(QueueLimits())
    queue.offer(b"<chat 1>", Lane.CHAT)
    queue.offer(b"<chat 2>", Lane.CHAT)
    assert queue.begin() == b"<chat 1><chat 2>"
    assert queue.frames == 0
    queue.offer(b"<kick>", Lane.CONTROL)
    assert queue.begin() == b"<chat 1><chat 2>"
    queue.advance(3)
    assert drained(queue) == b"at 1><chat 2><kick>"
    assert queue.begin() == b""


def test_a_counter_waits_for_eight_chat_buffers_at_most() -> None:
    queue = SendQueue(QueueLimits())
    for number in range(5):
        queue.offer(b"<%d>" % number, Lane.CHAT)
    queue.offer(b"<likes>", Lane.AMBIENT)
    assert written(queue, max_bytes=6) == b"<0><1>"
    for number in range(5, 12):
        queue.offer(b"<%d>" % number, Lane.CHAT)
    assert written(queue, 18 + 7) == b"<2><3><4><5><6><7><likes>"
    queue.offer(b"<likes>", Lane.AMBIENT)  # a new one has to wait anew
    assert drained(queue) == b"<8><9><10><11><likes>"


# ---- bounds -------------------------------------------------------------------------------------


def test_when_full_counters_are_dropped_first_and_then_the_oldest_chat() -> None:
    queue = SendQueue(QueueLimits(queue_bytes=20))
    queue.offer(b"<likes>", Lane.AMBIENT, weight=9)
    queue.offer(b"<old>", Lane.CHAT, weight=1)
    queue.offer(b"<newer>", Lane.CHAT, weight=2)
    assert not queue.keyframe
    assert queue.offer(b"<the newest>", Lane.CHAT, weight=3) is QueueResult.QUEUED
    assert queue.take_missed() == QueueMissed(chat_frames=1, chat_weight=1, ambient_frames=1, ambient_weight=9)
    assert drained(queue) == b"<newer><the newest>"


def test_bytes_are_bounded_with_the_frame_begun() -> None:
    queue = SendQueue(QueueLimits(queue_bytes=100))
    queue.push_rest(b"x" * 40)
    queue.offer(b"a" * 50, Lane.CHAT)
    assert not queue.keyframe
    queue.offer(b"b" * 50, Lane.CHAT)
    assert queue.nbytes == 90
    assert drained(queue) == b"x" * 40 + b"b" * 50


def test_a_frame_begun_takes_the_place_of_chat() -> None:
    queue = SendQueue(QueueLimits(queue_bytes=100))
    queue.offer(b"a" * 50, Lane.CHAT)
    queue.offer(b"b" * 50, Lane.CHAT)
    queue.push_rest(b"x" * 40)
    assert drained(queue) == b"x" * 40 + b"b" * 50


def test_a_counter_is_shed_when_lanes_0_to_2_fill_the_queue() -> None:
    queue = SendQueue(QueueLimits(frames=2))
    for _ in range(2):
        queue.offer(b"<gift>", Lane.PAID)
    assert queue.offer(b"<likes>", Lane.AMBIENT, weight=4) is QueueResult.SHED
    assert queue.take_missed() == QueueMissed(ambient_frames=1, ambient_weight=4)
    assert drained(queue) == b"<gift><gift>"


def test_a_chat_buffer_beyond_the_bound_alone_is_shed_and_the_viewer_is_not_behind() -> None:
    queue = SendQueue(QueueLimits(queue_bytes=10))
    assert queue.offer(b"x" * 11, Lane.CHAT, weight=3) is QueueResult.SHED
    assert queue.empty
    assert not queue.keyframe
    assert queue.take_missed() == QueueMissed(chat_frames=1, chat_weight=3)


def test_slow_viewer_is_closed_before_commerce_is_dropped() -> None:
    queue = SendQueue(QueueLimits(frames=2, queue_bytes=100, critical_bytes=1_000, critical_frames=30))
    queue.offer(b"<chat>", Lane.CHAT)
    assert [queue.offer(b"x" * 90, Lane.COMMERCE) for _ in range(12)] == [QueueResult.QUEUED] * 11 + [
        QueueResult.OVERFLOW
    ]
    assert queue.nbytes == 990
    tiny = [queue.offer(b"x", Lane.PAID) for _ in range(10)]
    assert tiny == [QueueResult.QUEUED] * 10
    assert queue.offer(b"x", Lane.CONTROL) is QueueResult.OVERFLOW
    assert drained(queue) == b"x" * 1_000
    queue = SendQueue(QueueLimits(critical_frames=3))
    assert [queue.offer(b"x", Lane.PAID) for _ in range(4)] == [QueueResult.QUEUED] * 3 + [QueueResult.OVERFLOW]


def test_the_newest_total_of_each_key_wins_in_the_place_of_the_older() -> None:
    queue = SendQueue(QueueLimits())
    queue.offer(b"<7: 1>", Lane.AMBIENT, key=7)
    queue.offer(b"<8: 1>", Lane.AMBIENT, key=8)
    queue.offer(b"<7: 22>", Lane.AMBIENT, key=7)
    assert (queue.frames, queue.nbytes) == (2, 13)
    assert queue.take_missed() == QueueMissed(superseded=1)
    assert drained(queue) == b"<7: 22><8: 1>"


# ---- keyframe mode ------------------------------------------------------------------------------


def test_keyframe_mode_refuses_chat_until_everything_is_written() -> None:
    queue = SendQueue(QueueLimits(frames=2))
    for number in range(3):
        queue.offer(b"<%d>" % number, Lane.CHAT, weight=10)
    assert queue.offer(b"<no>", Lane.CHAT, weight=5) is QueueResult.SHED
    assert queue.offer(b"<gift>", Lane.PAID) is QueueResult.QUEUED
    assert written(queue, 8) == b"<gift><2"
    assert queue.offer(b"<no>", Lane.CHAT, weight=5) is QueueResult.SHED
    assert drained(queue) == b">"
    assert not queue.keyframe
    assert queue.offer(b"<yes>", Lane.CHAT) is QueueResult.QUEUED
    assert queue.take_missed() == QueueMissed(chat_frames=4, chat_weight=30)
    assert queue.take_missed() == QueueMissed()


def test_in_keyframe_mode_counters_go_before_the_chat_that_still_waits_and_take_its_place() -> None:
    queue = SendQueue(QueueLimits(frames=3))
    for number in range(4):
        queue.offer(b"<%d>" % number, Lane.CHAT)
    assert queue.offer(b"<likes 1>", Lane.AMBIENT, key=1) is QueueResult.QUEUED
    assert queue.offer(b"<likes 2>", Lane.AMBIENT, key=1) is QueueResult.QUEUED
    assert queue.frames == 3
    assert drained(queue) == b"<likes 2><2><3>"


def test_counters_of_a_viewer_that_is_just_too_slow_stay_fresh() -> None:
    """2 KiB/s of link, 4 KiB/s of chat, a gift and a new total every second."""
    queue = SendQueue(QueueLimits())
    seen = b""
    waited_s: list[int] = []
    for tick in range(600):
        second, tenth = divmod(tick, 10)
        queue.offer(b"c" * 410, Lane.CHAT, weight=4)
        if not tenth:
            queue.offer(b"g" * 80, Lane.PAID)
            queue.offer(b"<total %03d>" % second + b"t" * 60, Lane.AMBIENT)
        seen += written(queue, min(205, queue.nbytes))
        if tenth == 9 and b"<total" in seen:
            waited_s.append(second - int(seen.rsplit(b"<total ", 1)[1][:3]))
    assert max(waited_s) <= 2
    assert seen.count(b"g") + queue.critical_nbytes == 80 * 60


# ---- bugs of the caller -------------------------------------------------------------------------


def test_a_write_that_does_not_fit_what_was_handed_out_is_refused() -> None:
    queue = SendQueue(QueueLimits())
    queue.offer(b"<chat>", Lane.CHAT)
    with pytest.raises(RuntimeError, match="without chunks"):
        queue.advance(1)
    queue.chunks()
    with pytest.raises(ValueError, match="7 of 6"):
        queue.advance(7)
    queue.offer(b"<sale>", Lane.COMMERCE)  # now something else comes first
    with pytest.raises(RuntimeError, match="without chunks"):
        queue.advance(1)
    written(queue, 1)
    with pytest.raises(ValueError, match="begun"):
        queue.push_rest(b"x")
    with pytest.raises(ValueError, match="no data"):
        queue.offer(b"", Lane.CHAT)


# ---- model --------------------------------------------------------------------------------------

FRAMES, QUEUE_BYTES, CRITICAL_BYTES, CRITICAL_FRAMES = 6, 120, 150, 9

SIZES = st.sampled_from([6, 7, 20, 40, 130])


class SlowViewer(RuleBasedStateMachine):
    """Random offers and partial writes; the peer parses what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = SendQueue(QueueLimits(FRAMES, QUEUE_BYTES, CRITICAL_BYTES, CRITICAL_FRAMES))
        self.offered: list[tuple[Lane, int, int]] = []  # lane, weight, key by frame number
        self.result: dict[int, QueueResult] = {}
        self.received: list[int] = []
        self.stream = bytearray()
        self.newest: dict[int, int] = {}
        self.missed = Counter[str]()

    def frame(self, number: int, size: int) -> bytes:
        return b"%02x%04x" % (size, number) + b"." * (size - 6)

    @rule(lane=st.sampled_from(Lane), size=SIZES, weight=st.integers(0, 3), key=st.integers(1, 3))
    def offer(self, lane: Lane, size: int, weight: int, key: int) -> None:
        queue, number = self.queue, len(self.offered)
        before = (queue.frames, queue.nbytes, queue.critical_frames, queue.critical_nbytes)
        was_keyframe = queue.keyframe
        verdict = queue.offer(self.frame(number, size), lane, weight, key)
        self.offered.append((lane, weight, key))
        self.result[number] = verdict
        if lane <= Lane.PAID:
            fits = before[2] < CRITICAL_FRAMES and before[3] + size <= CRITICAL_BYTES
            assert verdict is (QueueResult.QUEUED if fits else QueueResult.OVERFLOW)
            if not fits:
                assert before == (queue.frames, queue.nbytes, queue.critical_frames, queue.critical_nbytes)
        else:
            assert verdict is not QueueResult.OVERFLOW
            if lane is Lane.CHAT and was_keyframe:
                assert verdict is QueueResult.SHED
            if lane is Lane.AMBIENT:
                self.newest[key] = number

    @precondition(lambda self: not self.queue.empty)
    @rule(data=st.data(), joined=st.booleans())
    def write(self, data: st.DataObject, joined: bool) -> None:
        queue = self.queue
        buffers = [queue.begin(30)] if joined else queue.chunks(30)
        assert len(buffers) == 1 or sum(map(len, buffers)) <= 30
        out = b"".join(buffers)
        count = data.draw(st.integers(0, len(out)), label="written")
        queue.advance(count)
        self.stream += out[:count]
        self.parse()

    def parse(self) -> None:
        while len(self.stream) >= 6:
            size, number = int(self.stream[:2], 16), int(self.stream[2:6], 16)
            if len(self.stream) < size:
                return
            assert self.stream[:size] == self.frame(number, size)
            del self.stream[:size]
            self.received.append(number)

    @precondition(lambda self: self.queue.empty and not self.stream)
    @rule()
    def send_part_directly(self) -> None:
        number = len(self.offered)
        self.offered.append((Lane.CONTROL, 0, 0))
        self.result[number] = QueueResult.QUEUED
        data = self.frame(number, 40)
        self.stream += data[:9]
        self.queue.push_rest(memoryview(data)[9:])

    @rule()
    def take_missed(self) -> None:
        self.missed.update(self.queue.take_missed()._asdict())

    @invariant()
    def bounds_hold(self) -> None:
        queue = self.queue
        assert queue.critical_frames <= CRITICAL_FRAMES
        assert queue.critical_nbytes <= CRITICAL_BYTES
        begun = queue.nbytes - sum(map(len, self.peek()))
        assert queue.frames == len(self.peek())
        if queue.frames > queue.critical_frames:  # lanes 3 and 4 are there
            assert queue.frames <= FRAMES
            assert queue.nbytes <= QUEUE_BYTES
        else:
            assert queue.nbytes == begun + queue.critical_nbytes
        assert not (queue.empty and queue.keyframe)

    def peek(self) -> list[bytes | memoryview]:
        buffers = self.queue.chunks(1 << 20)
        return buffers[len(buffers) - self.queue.frames :]

    @invariant()
    def lanes_0_to_2_go_first_in_the_order_of_offers(self) -> None:
        numbers = [int(bytes(data[2:6]), 16) for data in self.peek()]
        lanes = [self.offered[number][0] for number in numbers]
        critical = [number for number, lane in zip(numbers, lanes, strict=True) if lane <= Lane.PAID]
        assert numbers[: len(critical)] == sorted(critical)
        if Lane.AMBIENT in lanes:
            assert lanes[: lanes.index(Lane.AMBIENT)].count(Lane.CHAT) <= MAX_OVERTAKEN
            if self.queue.keyframe:
                assert lanes == sorted(lanes, key=(0, 0, 0, 2, 1).__getitem__)

    @invariant()
    def each_lane_comes_in_order_and_only_once(self) -> None:
        for lane in Lane:
            for key in {0} if lane < Lane.AMBIENT else {1, 2, 3}:
                of_lane = [n for n in self.received if self.offered[n][0] is lane and key in (0, self.offered[n][2])]
                assert of_lane == sorted(set(of_lane))
                assert all(self.result[n] is not QueueResult.OVERFLOW for n in of_lane)

    def teardown(self) -> None:
        queue = self.queue
        while not queue.empty:
            self.stream += written(queue)
            self.parse()
        assert not self.stream
        assert not queue.keyframe
        self.take_missed()
        received = set(self.received)
        lost: dict[Lane, list[int]] = {lane: [] for lane in Lane}
        for number, (lane, _, _) in enumerate(self.offered):
            if number not in received:
                lost[lane].append(number)
        for lane in (Lane.CONTROL, Lane.COMMERCE, Lane.PAID):
            assert all(self.result[number] is QueueResult.OVERFLOW for number in lost[lane])
        weights = {lane: sum(self.offered[n][1] for n in lost[lane]) for lane in Lane}
        assert self.missed["chat_frames"] == len(lost[Lane.CHAT])
        assert self.missed["chat_weight"] == weights[Lane.CHAT]
        assert self.missed["ambient_frames"] + self.missed["superseded"] == len(lost[Lane.AMBIENT])
        assert self.missed["ambient_weight"] <= weights[Lane.AMBIENT]
        if not self.missed["ambient_frames"]:
            assert received >= set(self.newest.values())


TestSlowViewer = SlowViewer.TestCase
TestSlowViewer.settings = examples(60, steps=40)
