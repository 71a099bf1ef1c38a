"""Traces of posts: bounded, forgotten with their room or user, and what the outcomes say."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.rooms import traces
from broker.core.rooms.traces import RoomTraces, TraceBudget
from protocol.codes import MessageType, Outcome, Role
from protocol.messages import TickEntry

USERS = st.sampled_from(["ann", "bob", "cat"])


class TracesMachine(RuleBasedStateMachine):
    """Two rooms under one budget; a model of what each must know of its newest posts."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = TraceBudget(150)
        self.rooms: list[RoomTraces[int]] = [RoomTraces(self.budget) for _ in range(2)]
        self.tickets = 0
        self.waiting: tuple[set[int], set[int]] = set(), set()
        self.now = 0.0

    @rule(room=st.integers(0, 1), user=USERS, kind=st.sampled_from([1, 4]), passed=st.sampled_from([0.0, 0.1, 40.0]))
    def begin(self, room: int, user: str, kind: int, passed: float) -> None:
        self.tickets += 1
        self.now += passed
        found = self.rooms[room]
        found.begin(self.tickets, user, f"m{self.tickets}", kind, "text" if kind == 1 else None, self.now, 7)
        self.waiting[room].add(self.tickets)
        if self.tickets in found.open:
            trace = found.find(user, f"m{self.tickets}")
            assert trace is not None
            assert (trace.outcome, trace.received_at) == (None, self.now)

    @rule(room=st.integers(0, 1), data=st.data(), outcome=st.sampled_from(list(Outcome)), detail=st.integers(0, 9))
    def decide(self, room: int, data: Any, outcome: Outcome, detail: int) -> None:
        if self.waiting[room]:
            ticket = data.draw(st.sampled_from(sorted(self.waiting[room])))
            self.waiting[room].discard(ticket)
            known = self.rooms[room].open.get(ticket)
            self.rooms[room].decide(ticket, outcome, detail, self.now)
            if known is not None:
                assert (known.outcome, known.detail, known.decided_at) == (outcome, detail, self.now)

    @rule(
        room=st.integers(0, 1),
        outcome=st.sampled_from([Outcome.ACCEPTED, Outcome.MERGED]),
        text=st.sampled_from(["text", "TEXT", "other"]),
    )
    def decide_by_tick(self, room: int, outcome: Outcome, text: str) -> None:
        found, waiting = self.rooms[room], self.waiting[room]
        followed = {ticket: trace for ticket, trace in found.open.items() if ticket in waiting}
        found.decide_all([(ticket, outcome) for ticket in sorted(waiting)], 3, self.now)
        assert found.published_tick(2, (), self.now, 8) == (), "another one, that was delayed"
        waiting.clear()
        entry = TickEntry(MessageType.DANMAKU, "ann", "Ann", (text,), 5, (), Role.VIEWER)
        publications = found.published_tick(3, (entry,), self.now, 8)
        assert len(publications) == bool(followed)
        for trace in followed.values():
            assert (trace.tick, trace.publication) == (3, publications[0])
            if outcome is Outcome.MERGED:  # into another one's: texts are compared as they merge
                is_shown = trace.type == MessageType.DANMAKU and text != "other"
            else:
                is_shown = trace.type == MessageType.DANMAKU and (trace.author, text) == ("ann", "text")
            assert trace.count == (5 if is_shown else 0)
        assert found.published_tick(4, (entry,), self.now, 8) == ()

    @rule(room=st.integers(0, 1), user=USERS)
    def forget(self, room: int, user: str) -> None:
        self.rooms[room].forget_user(user)
        assert all(self.rooms[room].find(user, f"m{number}") is None for number in range(self.tickets + 1))

    @rule(room=st.integers(0, 1))
    def clear(self, room: int) -> None:
        self.rooms[room].clear()
        assert (len(self.rooms[room]), len(self.rooms[room].open)) == (0, 0)

    @invariant()
    def bounds_hold(self) -> None:
        assert self.budget.used == sum(map(len, self.rooms)) <= 150 + len(self.rooms)
        for room in self.rooms:
            assert len(room) <= traces.MAX_POSTS
            assert len(room.open) <= traces.MAX_OPEN


TestTraces = TracesMachine.TestCase


def test_events_are_found_by_offset_until_they_are_forgotten() -> None:
    room: RoomTraces[int] = RoomTraces()
    for number in range(1, 2 * traces.MAX_POSTS):
        room.begin(number, "max", "", MessageType.ANNOUNCEMENT, None, 0.0, 0)
        room.decide(number, Outcome.ACCEPTED, number, 0.0)
        (publication,) = room.published_event(number, 1.0, 10)
        publication.finish(0.5, 7, 3, 1)
    assert room.at_offset(1) is None
    assert room.published_event(1, 1.0, 10) == ()
    found = room.at_offset(2 * traces.MAX_POSTS - 1)
    assert found is not None
    assert found.publication is publication
    assert len(room) == traces.MAX_POSTS


def test_a_post_that_is_never_answered_makes_place_for_others() -> None:
    room: RoomTraces[int] = RoomTraces()
    for number in range(traces.MAX_OPEN + 1):
        room.begin(number, "ann", f"m{number}", MessageType.DANMAKU, "text", 0.0, 0)
    assert room.find("ann", f"m{traces.MAX_OPEN}") is None, "sampled out"
    room.sweep(traces.MAX_OPEN_S - 0.1)
    assert len(room.open) == traces.MAX_OPEN
    room.sweep(traces.MAX_OPEN_S)
    room.begin(99, "ann", "late", MessageType.DANMAKU, "text", traces.MAX_OPEN_S, 0)
    assert room.find("ann", "late") is not None
