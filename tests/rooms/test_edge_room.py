"""A room of another node: events in order and once, whatever its channel loses, repeats or overtakes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.event_ids import EventIds
from broker.ledger import ResultBatch
from broker.rooms.edge_room import MAX_RECENT, EdgeRoom
from broker.rooms.encoding import Content
from broker.rooms.fanout import FanOut
from broker.rooms.measures import RoomMeasures
from broker.rooms.members import Member
from broker.rooms.node_messages import EventsFound, RoomOutput
from protocol.codes import Lane, MessageType, Role
from protocol.frames import pack_body
from protocol.messages import Event


def event(offset: int) -> Event:
    return Event(MessageType.ANNOUNCEMENT, offset, "host", "Host", (f"event {offset}",))


def output(number: int, offsets: list[int], last: int = 0) -> RoomOutput:
    contents = tuple(Content(event(offset), Lane.CONTROL, offset) for offset in offsets)
    return RoomOutput(1, number, max([last, *offsets]), True, (contents, contents, contents), (0, 0, 0))


class Edge:
    """An edge room whose output is noted."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.written: list[int] = []
        self.missed: list[tuple[str, int]] = []
        self.unix_ms: Callable[[], int] = lambda: 0
        self.room = EdgeRoom(
            "live", 1, FanOut(), ResultBatch(), clock=lambda: 0.0, unix_ms=lambda: self.unix_ms(),
            event_ids=EventIds(bytes(32)),
            measures=RoomMeasures(), ask=lambda room: self.asked.append(room.offset),
            forward=lambda room, member, sequence, post: None, left=lambda room, member: None,
            missed=lambda member, chat: self.missed.append((member.user_id, chat)),
        )  # fmt: skip
        self.room.members.mirror = self
        self.room.follow("a", 5, 77, 0)

    def publish(self, by_tier: Any, to_staff: bool) -> None:
        self.written += [content.sequence for content in by_tier[0]]

    def answer(self, last: int) -> None:
        after = self.room.offset
        events = tuple((0, offset, pack_body(event(offset))) for offset in range(after + 1, last + 1))
        self.room.found(EventsFound("live", 77, after, events))


def test_missing_events_are_asked_for_and_come_before_later_ones() -> None:
    edge = Edge()
    edge.room.take(output(1, [1]))
    edge.room.take(output(3, [3]))
    edge.room.take(output(4, [4]))
    assert (edge.written, edge.asked) == ([1], [1])
    edge.answer(3)
    assert edge.written == [1, 2, 3, 4]


def test_a_message_without_events_tells_that_one_is_missing() -> None:
    edge = Edge()
    edge.room.take(output(2, [], last=1))
    assert edge.asked == [0]
    edge.answer(1)
    assert edge.written == [1]


def test_an_older_fence_is_not_heard() -> None:
    edge = Edge()
    edge.room.take(output(1, [1])._replace(fence=2))
    edge.room.take(output(9, [2]))
    assert edge.written == [1]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_events_come_once_and_in_order_whatever_is_lost_or_repeated(fates: list[tuple[bool, bool]]) -> None:
    edge = Edge()
    for number, (is_lost, is_repeated) in enumerate(fates, 1):
        for _ in range(0 if is_lost else 1 + is_repeated):
            edge.room.take(output(number, [number]))
        if is_repeated:
            edge.answer(number)
    edge.room.take(output(len(fates) + 1, [], last=len(fates)))
    edge.answer(len(fates))
    edge.answer(len(fates))
    assert edge.written == list(range(1, len(fates) + 1))


def chat(number: int, total: int, weight: int) -> RoomOutput:
    """Return a message with danmaku of one tier; ``total``: those so far."""
    contents = (Content(event(0), Lane.CHAT, 0, weight),)
    return RoomOutput(1, number, 0, True, (contents, (), ()), (total, 0, 0))


def test_a_member_is_notified_of_the_danmaku_that_did_not_come_while_it_was_there() -> None:
    edge, now = Edge(), 1000
    edge.unix_ms = lambda: now
    members = []
    for name, variant, joined_at_ms in (("early", 0, 500), ("low", 2, 500), ("late", 0, 1500)):
        session: Any = None
        members.append(Member(session, name, name, Role.VIEWER, frozenset(), variant))
        members[-1].joined_at_ms = joined_at_ms
    room: Any = edge.room
    room.members = SimpleNamespace(local=lambda: members)
    edge.room.take(chat(7, 20, 3))  # what was published before is not known
    assert not edge.missed
    now = 2000
    edge.room.take(chat(9, 30, 4))
    assert edge.missed == [("early", 6)]
    edge.room.take(chat(10, 31, 1))
    edge.room.take(chat(9, 30, 4))
    assert len(edge.missed) == 1


@given(st.lists(st.integers(1, 5), max_size=20), st.integers(0, 120))
def test_a_member_that_was_admitted_earlier_gets_the_events_since_or_has_to_resume(sizes: list[int], at: int) -> None:
    edge, last = Edge(), 0
    for number, size in enumerate(sizes, 1):
        edge.room.take(output(number, list(range(last + 1, last + size + 1))))
        last += size
    session: Any = None
    found = edge.room.since(Member(session, "ann", "ann", Role.VIEWER, frozenset(), 0), at)
    if last - at > MAX_RECENT:
        assert found is None
    else:
        assert found is not None
        assert [content.sequence for content in found] == list(range(at + 1, last + 1))


def test_events_of_an_earlier_stream_are_not_those_since() -> None:
    edge = Edge()
    edge.room.take(output(1, [1, 2]))
    edge.room.follow("b", 6, 78, 1)
    session: Any = None
    assert edge.room.since(Member(session, "ann", "ann", Role.VIEWER, frozenset(), 0), 0) is None
