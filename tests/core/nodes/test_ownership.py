from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.nodes.membership import LEASE_S, NodeLease
from broker.core.nodes.ownership import (
    ClaimRoom,
    ContinueRoom,
    DropRoom,
    FoldLog,
    LogEnd,
    Ownership,
    OwnershipEffect,
    OwnershipState,
    PauseRoom,
    RefoundRoom,
    ReleaseRoom,
    RepairLog,
    StartRoom,
)
from tests.support.examples import examples

NODES = ("a", "b")

Answer = Callable[["Host"], list[OwnershipEffect]]
"""What the engine says, as the input that it is at the node that asked."""


class EngineModel:
    """One room and the records of nodes, in their simplest form; every method is one atomic script."""

    def __init__(self) -> None:
        self.now = 0.0
        self.alive: dict[str, tuple[str, float]] = {}
        self.owner = ""
        self.fence = 0
        self.log: list[tuple[int, str]] = []
        """Fence and value of each event; its offset is its place, from 1."""

    def incarnation(self, node: str) -> str | None:
        incarnation, until = self.alive.get(node, ("", 0.0))
        return incarnation if self.now < until else None

    def born(self, node: str, incarnation: str) -> None:
        self.alive[node] = (incarnation, self.now + LEASE_S)

    def beat(self, node: str, incarnation: str) -> bool:
        if self.incarnation(node) != incarnation:
            return False
        self.alive[node] = (incarnation, self.now + LEASE_S)
        return True

    def claim(self, node: str, claim: ClaimRoom) -> Answer:
        if self.fence != claim.seen_fence:
            owner, fence = self.owner, self.fence
            return lambda host: host.room.claim_held(owner, fence, host.now)
        is_new = self.fence == 0
        self.fence = max(self.fence, claim.floor_fence) + 1
        self.owner = node
        self.log.append((self.fence, f"marker {self.fence}"))
        fence, offset = self.fence, len(self.log)
        return lambda host: host.room.claim_granted(fence, offset, 0, is_new, host.now)

    def append(self, node: str, fence: int, end: LogEnd, value: str) -> Answer:
        if (self.owner, self.fence) != (node, fence):
            owner = self.owner
            return lambda host: host.answered_append(value, host.room.append_fenced(owner, host.now), False)
        if len(self.log) != end.offset:
            last = LogEnd(len(self.log))
            return lambda host: host.answered_append(value, host.room.append_misplaced(last, host.now), False)
        self.log.append((fence, value))
        last = LogEnd(len(self.log))
        return lambda host: host.answered_append(value, host.room.append_done(last, host.now), True)

    def read(self, node: str, fence: int, fold: FoldLog) -> Answer:
        if fold.checks_owner and (self.owner, self.fence) != (node, fence):
            owner = self.owner
            return lambda host: host.room.owner_found(owner, host.now)
        values = [value for _, value in self.log[fold.after.offset :]]
        end = LogEnd(len(self.log))
        return lambda host: host.fold(fold, values, end)

    def release(self, node: str, fence: int) -> Answer:
        if (self.owner, self.fence) == (node, fence):
            self.owner = ""
        return lambda host: host.room.released()


@dataclass
class Host:
    """A node: its lease, its machine, and its memory of the room."""

    node: str
    lives: int = 0
    now: float = 0.0
    memory: list[str] = field(default_factory=list)
    decides: bool = False
    """By the effects alone: StartRoom and ContinueRoom, PauseRoom and DropRoom."""
    questions: list[partial[Answer]] = field(default_factory=list)
    """Sent, and not yet at the engine: at most one, and what a dead link still holds."""
    late: list[partial[Answer]] = field(default_factory=list)
    answer: Answer | None = None
    open_append: str | None = None
    done_late: set[str] = field(default_factory=set)
    """Appends that reached the engine after their sender had given them up and read the log."""
    acknowledged: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.lives += 1
        self.lease = NodeLease(f"{self.node}{self.lives}")
        self.room = Ownership(self.node, self.lease)
        self.memory = []
        self.decides = False
        self.late += self.questions
        self.questions, self.answer, self.open_append = [], None, None

    @property
    def is_asking(self) -> bool:
        return bool(self.questions) or self.answer is not None

    def perform(self, effects: list[OwnershipEffect]) -> None:
        for effect in effects:
            match effect:
                case ClaimRoom():
                    self.ask(partial(EngineModel.claim, node=self.node, claim=effect))
                case FoldLog():
                    self.ask(partial(EngineModel.read, node=self.node, fence=self.room.fence, fold=effect))
                case ReleaseRoom():
                    self.ask(partial(EngineModel.release, node=self.node, fence=self.room.fence))
                case StartRoom() | ContinueRoom():
                    self.decides = True
                case PauseRoom():
                    self.decides = False
                case DropRoom():
                    self.decides = False
                    self.memory = []
                case RefoundRoom() | RepairLog():
                    raise AssertionError("nothing is lost here")

    def ask(self, question: partial[Answer]) -> None:
        assert not self.is_asking
        self.questions.append(question)

    def send_append(self, value: str) -> None:
        self.room.append_sent()
        self.open_append = value
        room = self.room
        self.ask(partial(EngineModel.append, node=self.node, fence=room.fence, end=room.end, value=value))

    def answered_append(self, value: str, effects: list[OwnershipEffect], is_done: bool) -> list[OwnershipEffect]:
        self.open_append = None
        if is_done:
            self.memory.append(value)
            self.acknowledged.append((len(self.memory), value))
        return effects

    def fold(self, fold: FoldLog, values: list[str], end: LogEnd) -> list[OwnershipEffect]:
        assert len(self.memory) == fold.after.offset
        self.memory += values
        return self.room.folded(end, self.now)

    def lose(self) -> None:
        """The question or its answer is lost: the outcome is unknown."""
        self.late += self.questions
        self.questions, self.answer = [], None
        if self.open_append is None:
            self.perform(self.room.question_failed(self.now))
        else:
            self.open_append = None
            self.perform(self.room.append_unknown(self.now))


class OwnershipMachine(RuleBasedStateMachine):
    """Two nodes want one room; questions, answers and beats are late or lost, nodes sleep and restart.

    Laws: no acknowledged write is lost; never do two decide; who may decide knows all that is in the log, but for its
    own last write without an answer, which is done when nobody can have seen it done.
    """

    @initialize()
    def start(self) -> None:
        self.engine = EngineModel()
        self.hosts = {node: Host(node) for node in NODES}
        self.values = 0
        self.all_acknowledged: list[tuple[int, str]] = []
        for host in self.hosts.values():
            self.engine.born(host.node, host.lease.incarnation)

    nodes = st.sampled_from(NODES)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.5]))
    def wait(self, seconds: float) -> None:
        self.engine.now += seconds
        for host in self.hosts.values():
            host.now = self.engine.now

    @rule(node=nodes)
    def check(self, node: str) -> None:
        host = self.hosts[node]
        host.perform(host.room.check(host.now))

    @rule(node=nodes, late=st.sampled_from([0.0, 0.0, 0.4, 1.9]), arrives=st.sampled_from([True, True, True, False]))
    def beat(self, node: str, late: float, arrives: bool) -> None:
        host = self.hosts[node]
        sent_at = host.now
        self.wait(late)
        kept = self.engine.beat(node, host.lease.incarnation)
        if not arrives:
            return
        if kept:
            host.lease.confirmed(sent_at, host.now)
            host.perform(host.room.check(host.now))
        else:
            host.lives += 1
            host.lease.lost(f"{node}{host.lives}")
            self.engine.born(node, host.lease.incarnation)
            host.lease.confirmed(host.now, host.now)
            # The room has not looked yet, and may do nothing until it does.

    @rule(node=nodes)
    def claim(self, node: str) -> None:
        host = self.hosts[node]
        owner = self.engine.owner
        is_free = owner in ("", node) or self.engine.incarnation(owner) is None
        if is_free and host.lease.is_valid(host.now):
            host.perform(host.room.claim_wanted(self.engine.fence, host.now))

    @rule(node=nodes)
    def append(self, node: str) -> None:
        host = self.hosts[node]
        if host.room.may_append(host.now):
            self.values += 1
            host.send_append(f"value {self.values}")

    @rule(node=nodes)
    def release(self, node: str) -> None:
        host = self.hosts[node]
        host.perform(host.room.release("b", host.now))

    @rule(node=nodes)
    def take_question(self, node: str) -> None:
        host = self.hosts[node]
        if host.questions:
            host.answer = host.questions.pop()(self.engine)

    @rule(node=nodes)
    def take_answer(self, node: str) -> None:
        host = self.hosts[node]
        if host.answer is not None:
            answer, host.answer = host.answer, None
            host.perform(answer(host))

    @rule(node=nodes, both=st.booleans())
    def round_trip(self, node: str, both: bool) -> None:
        for name in (node, *(NODES if both else ())):
            self.take_question(name)
            self.take_answer(name)

    @rule(node=nodes, beats=st.integers(1, 6))
    def live_alone(self, node: str, beats: int) -> None:
        """One node beats and asks while the other sleeps: long enough, and the room is its own."""
        for _ in range(beats):
            self.wait(0.5)
            self.beat(node, 0.0, True)
            self.check(node)
            self.round_trip(node, False)
            self.claim(node)
            self.round_trip(node, False)

    @rule(node=nodes)
    def write(self, node: str) -> None:
        """An append that meets no fault."""
        self.append(node)
        self.round_trip(node, False)

    @rule(node=nodes)
    def lose(self, node: str) -> None:
        if self.hosts[node].is_asking:
            self.hosts[node].lose()

    @precondition(lambda self: any(host.late for host in self.hosts.values()))
    @rule(data=st.data())
    def late_question_arrives(self, data: st.DataObject) -> None:
        """What lay in the kernel of a dead link, long after its sender has gone on."""
        host = data.draw(st.sampled_from([host for host in self.hosts.values() if host.late]), "host")
        index = data.draw(st.integers(0, len(host.late) - 1), "question")
        question = host.late.pop(index)
        question(self.engine)
        if question.func is EngineModel.append:
            host.done_late.add(question.keywords["value"])

    @rule(node=nodes)
    def restart(self, node: str) -> None:
        host = self.hosts[node]
        host.restart()
        self.engine.born(node, host.lease.incarnation)
        host.lease.confirmed(host.now, host.now)

    @invariant()
    def fences_in_the_log_never_fall(self) -> None:
        fences = [fence for fence, _ in self.engine.log]
        assert fences == sorted(fences)

    @invariant()
    def no_value_is_written_twice(self) -> None:
        values = [value for _, value in self.engine.log]
        assert len(values) == len(set(values))

    @invariant()
    def what_was_acknowledged_is_in_the_log_where_it_was_told(self) -> None:
        for host in self.hosts.values():
            for offset, value in host.acknowledged:
                assert self.engine.log[offset - 1][1] == value

    @invariant()
    def who_decides_knows_all_that_is_in_the_log_but_its_own_last_write_without_an_answer(self) -> None:
        for host in self.hosts.values():
            if host.room.may_decide(host.now):
                known = [value for _, value in self.engine.log]
                if len(known) > len(host.memory) and known[-1] in {host.open_append, *host.done_late}:
                    known.pop()
                assert host.memory == known

    @invariant()
    def never_do_two_decide(self) -> None:
        assert sum(host.room.may_decide(host.now) for host in self.hosts.values()) <= 1

    @invariant()
    def the_effects_say_what_the_machine_says(self) -> None:
        for host in self.hosts.values():
            assert host.decides == (host.room.state is OwnershipState.OWNER)
            assert host.decides or not host.room.may_decide(host.now)

    def teardown(self) -> None:
        """Without faults the room has one owner within a few beats, and it can write."""
        if not hasattr(self, "engine"):
            return
        for _ in range(12):
            self.wait(0.4)
            for node in NODES:
                self.beat(node, 0.0, True)
                self.check(node)
                self.round_trip(node, False)
            if not any(host.room.may_append(host.now) for host in self.hosts.values()):
                self.claim("a")
                self.claim("b")
                self.round_trip("a", True)
        deciding = [host for host in self.hosts.values() if host.room.may_append(host.now)]
        assert len(deciding) == 1
        before = len(deciding[0].acknowledged)
        for _ in range(3):  # the first may find that a late one has come before it
            self.write(deciding[0].node)
            self.round_trip(deciding[0].node, False)
        assert len(deciding[0].acknowledged) > before
        assert deciding[0].memory == [value for _, value in self.engine.log]


OwnershipMachine.TestCase.settings = examples(300, steps=60)
TestOwnership = OwnershipMachine.TestCase


def owner() -> tuple[Ownership, NodeLease]:
    """Node a, which has owned the room since offset 3 under the fence 7, at the time 0."""
    lease = NodeLease("i1")
    lease.confirmed(0.0, 0.0)
    room = Ownership("a", lease)
    assert room.claim_wanted(5, 0.0) == [ClaimRoom(5, LogEnd(), 0)]
    assert room.claim_granted(7, 3, 2, False, 0.0) == [FoldLog(LogEnd(), checks_owner=False)]
    assert room.folded(LogEnd(3, 2), 0.0) == [StartRoom(is_new=False)]
    return room, lease


def test_a_lost_tail_is_written_again_before_the_next_decision() -> None:
    room, _ = owner()
    room.append_sent()
    assert room.append_misplaced(LogEnd(1, 2), 0.1) == [
        PauseRoom("the engine has lost the end of the log"),
        RepairLog(LogEnd(1, 2)),
    ]
    assert not room.may_decide(0.1)
    assert room.append_done(LogEnd(3, 2), 0.2) == [ContinueRoom()]


def test_a_repair_that_fails_is_asked_again() -> None:
    room, _ = owner()
    room.append_sent()
    room.append_misplaced(LogEnd(1, 2), 0.1)
    assert room.question_failed(0.2) == []
    assert room.check(0.3) == [RepairLog(LogEnd(1, 2))]


def test_a_log_with_more_than_was_known_is_read() -> None:
    room, _ = owner()
    room.append_sent()
    assert room.append_misplaced(LogEnd(4, 2), 0.1)[1:] == [FoldLog(LogEnd(3, 2), checks_owner=True)]
    assert room.folded(LogEnd(4, 2), 0.2) == [ContinueRoom()]
    assert room.end == LogEnd(4, 2)


def test_a_log_that_is_neither_behind_nor_ahead_is_folded_from_the_start() -> None:
    room, _ = owner()
    room.append_sent()
    assert room.append_misplaced(LogEnd(2, 9), 0.1) == [DropRoom("a")]
    assert room.is_free


def test_an_engine_that_has_lost_the_room_gets_it_back_from_memory() -> None:
    room, _ = owner()
    room.append_sent()
    assert room.append_fenced(None, 0.1) == [
        PauseRoom("the engine has lost the room"),
        ClaimRoom(seen_fence=0, floor=LogEnd(3, 2), floor_fence=7),
    ]
    assert room.claim_granted(8, 4, 0, True, 0.2) == [RefoundRoom()]
    assert room.refounded(0.3) == [ContinueRoom()]
    assert room.end == LogEnd(4, 0)


def test_a_refounding_claim_whose_answer_is_lost_is_claimed_again_with_the_memory() -> None:
    room, _ = owner()
    room.append_sent()
    room.append_fenced(None, 0.1)
    room.question_failed(0.2)
    assert room.check(0.3) == [ClaimRoom(0, LogEnd(3, 2), 7)]
    assert room.claim_held("a", 8, 0.4) == [ClaimRoom(8, LogEnd(3, 2), 7)]
    assert room.claim_granted(9, 5, 0, False, 0.5) == [RefoundRoom()]
    assert room.refounded(0.6) == [ContinueRoom()]
    assert room.end == LogEnd(5, 0)


def test_one_that_is_faster_to_found_the_room_anew_has_it() -> None:
    room, _ = owner()
    room.append_sent()
    room.append_fenced(None, 0.1)
    assert room.claim_held("b", 8, 0.2) == [DropRoom("b")]


def test_a_lost_lease_is_claimed_back_with_the_state() -> None:
    room, lease = owner()
    lease.lost("i2")
    lease.confirmed(1.1, 1.2)
    assert not room.may_decide(1.2)  # before anybody has told the room
    assert room.check(1.2) == [PauseRoom("the lease has ended"), ClaimRoom(7, LogEnd(3, 2), 7)]
    assert room.claim_granted(9, 4, 2, False, 1.3) == [FoldLog(LogEnd(3, 2), checks_owner=True)]
    assert room.folded(LogEnd(4, 2), 1.4) == [ContinueRoom()]


def test_a_lapsed_lease_that_the_engine_still_had_needs_no_claim() -> None:
    room, lease = owner()
    assert room.check(1.75) == [PauseRoom("the lease has ended")]
    lease.confirmed(1.6, 1.9)
    assert room.check(1.9) == [ContinueRoom()]


def test_a_drain_waits_for_the_open_append() -> None:
    room, _ = owner()
    room.append_sent()
    assert room.release("b", 0.1) == [PauseRoom("the room moves to another node")]
    assert room.append_done(LogEnd(4, 2), 0.2) == [ReleaseRoom("b")]
    assert room.released() == [DropRoom("b")]
    assert room.state is OwnershipState.RELEASED


def test_a_room_that_moves_first_gives_back_what_the_engine_has_lost() -> None:
    room, _ = owner()
    room.append_sent()
    room.release("b", 0.1)
    assert room.append_misplaced(LogEnd(2, 2), 0.2) == [RepairLog(LogEnd(2, 2))]
    assert room.append_done(LogEnd(3, 2), 0.3) == [ContinueRoom()]


def test_a_later_claim_stays_above_what_was_followed() -> None:
    lease = NodeLease("i1")
    lease.confirmed(0.0, 0.0)
    room = Ownership("a", lease)
    room.followed(6, 41)
    room.followed(5, 99)
    assert room.claim_wanted(6, 0.0) == [ClaimRoom(6, LogEnd(41), 6)]


def test_two_appends_at_once_are_a_bug_of_the_caller() -> None:
    room, _ = owner()
    room.append_sent()
    with pytest.raises(ValueError, match="one append is open"):
        room.append_sent()
