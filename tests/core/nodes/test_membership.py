from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.nodes.membership import BEAT_S, JOIN_DELAY_S, LEASE_MARGIN_S, LEASE_S, NodeLease, NodeTable, Peer
from broker.core.nodes.moves import MOVES_PER_S, Moves
from broker.core.nodes.placement import place
from tests.support.examples import examples

delays = st.floats(0, 3, allow_nan=False)


@given(st.lists(st.tuples(delays, delays, delays, st.booleans()), max_size=30), st.floats(0.86, 1.16))
@examples(200)
def test_the_lease_ends_here_before_it_ends_at_the_engine(
    beats: list[tuple[float, float, float, bool]], engine_rate: float
) -> None:
    """Whatever the delays of questions and answers, and with a clock of the engine that is 15 % wrong."""
    lease = NodeLease("i1")
    sent_at, kept_until = 0.0, 0.0
    answers: list[tuple[float, float]] = []  # when it arrives, when its beat was sent
    for pause, to_engine, back, arrives in beats:
        sent_at += pause
        kept_until = max(kept_until, sent_at + to_engine + LEASE_S / engine_rate)
        if arrives:
            answers.append((sent_at + to_engine + back, sent_at))
    for now, sent in sorted(answers):
        lease.confirmed(sent, now)
        assert lease.valid_until <= kept_until
        assert not lease.is_valid(lease.valid_until)


@given(st.lists(st.tuples(st.floats(0, 2.5), st.floats(0, 2.5)), min_size=1, max_size=40), st.floats(0, 3))
@examples(200)
def test_healthy_means_that_beats_covered_a_whole_lease(beats: list[tuple[float, float]], later: float) -> None:
    """The model keeps all intervals; an answer that comes too late covers nothing before it."""
    lease = NodeLease("i1")
    now = 10.0
    covered: list[tuple[float, float]] = []
    for pause, round_trip in beats:
        sent_at = now + pause
        now = sent_at + round_trip
        lease.confirmed(sent_at, now)
        end = sent_at + LEASE_S - LEASE_MARGIN_S
        if covered and now < covered[-1][1] and sent_at <= covered[-1][1]:
            covered[-1] = (covered[-1][0], end)
        else:
            covered.append((sent_at, end))
    now += later
    start, end = covered[-1]
    assert lease.is_valid(now) == (now < end)
    assert lease.is_healthy(now) == (now < end and now - start >= LEASE_S)


def test_answers_in_another_order_count_once() -> None:
    lease = NodeLease("i1")
    lease.confirmed(1.0, 1.2)
    lease.confirmed(0.5, 1.3)
    assert lease.valid_until == pytest.approx(1.0 + LEASE_S - LEASE_MARGIN_S)


def test_a_lost_incarnation_starts_again_without_lease_or_health() -> None:
    lease = NodeLease("i1")
    for beat in range(20):
        lease.confirmed(beat * BEAT_S, beat * BEAT_S)
    assert lease.is_healthy(9.5)
    lease.lost("i2")
    assert lease.incarnation == "i2"
    assert not lease.is_valid(9.5)
    assert lease.beat_due(9.5)
    lease.confirmed(9.6, 9.6)
    assert lease.is_valid(9.7)
    assert not lease.is_healthy(9.7)


def test_beats_are_due_every_half_second_from_when_they_are_sent() -> None:
    lease = NodeLease("i1")
    assert lease.beat_due(5.0)
    lease.sent(5.0)
    assert not lease.beat_due(5.4)
    assert lease.beat_due(5.5)


class Cluster:
    """One node's sight of several, with beats and looks that always succeed until they are stopped."""

    def __init__(self, me: str, others: list[str]) -> None:
        self.now = 0.0
        self.lease = NodeLease("i-me")
        self.table = NodeTable(me, self.lease)
        self.peers = [Peer(node, f"i-{node}") for node in (me, *others)]

    def run(self, seconds: float, *, answers: bool = True) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += BEAT_S
            if answers:
                self.lease.confirmed(self.now, self.now)
                self.table.read(self.peers, self.now)

    def leave(self, node: str) -> None:
        self.peers = [peer for peer in self.peers if peer.id != node]

    def mark(self, node: str) -> None:
        self.peers = [peer._replace(is_leaving=True) if peer.id == node else peer for peer in self.peers]

    def room_on(self, node: str) -> str:
        nodes = {peer.id: peer.weight for peer in self.peers}
        return next(room for room in (f"live-{n}" for n in range(1000)) if place(room, nodes) == node)


def test_only_the_healthy_bury_the_dead() -> None:
    cluster = Cluster("a", ["b", "c"])
    cluster.run(5)
    cluster.leave("c")
    room = cluster.room_on("a")
    assert not cluster.table.may_claim(room, "c", cluster.now)  # no look has missed it yet
    cluster.run(BEAT_S)
    assert cluster.table.may_claim(room, "c", cluster.now)
    assert not cluster.table.may_claim(room, "b", cluster.now)
    assert not cluster.table.may_claim(cluster.room_on("b"), "c", cluster.now)  # that is for b to do


def test_a_stall_of_the_engine_shuffles_no_room() -> None:
    """Every lease ends, the first look finds nobody, and each takes only its own back."""
    cluster = Cluster("a", ["b"])
    cluster.run(5)
    room = cluster.room_on("a")
    cluster.run(5, answers=False)
    everybody = cluster.peers
    cluster.peers = [Peer("a", "i-me")]
    cluster.run(BEAT_S)
    assert cluster.table.may_claim(room, "a", cluster.now)
    assert not cluster.table.may_claim(room, "b", cluster.now)
    cluster.run(LEASE_S - 2 * BEAT_S)
    cluster.peers = everybody  # b is back before anybody is healthy again
    cluster.run(BEAT_S)
    assert not cluster.table.may_claim(room, "b", cluster.now)


def test_health_of_before_the_stall_buries_nobody() -> None:
    cluster = Cluster("a", ["b"])
    cluster.run(5)
    room = cluster.room_on("a")
    cluster.table.read([Peer("a", "i-me")], cluster.now + 0.1)
    assert cluster.table.may_claim(room, "b", cluster.now + 0.1)
    assert not cluster.table.may_claim(room, "b", cluster.now + LEASE_S)  # the own lease has ended


def test_looks_that_fail_while_beats_succeed_bury_nobody() -> None:
    cluster = Cluster("a", [])
    cluster.run(5)
    for _ in range(6):
        cluster.now += BEAT_S
        cluster.lease.confirmed(cluster.now, cluster.now)
    assert not cluster.table.is_gone("b", cluster.now)


def test_a_late_look_does_not_replace_a_newer_one() -> None:
    cluster = Cluster("a", ["b"])
    cluster.run(5)
    cluster.table.read([Peer("a", "i-me")], cluster.now - 1)
    assert "b" in cluster.table.peers


def test_a_room_without_owner_needs_a_lease_and_no_health() -> None:
    cluster = Cluster("a", [])
    assert not cluster.table.may_claim("live-1", None, 0.0)
    cluster.run(BEAT_S)
    assert cluster.table.may_claim("live-1", None, cluster.now)
    assert not cluster.lease.is_healthy(cluster.now)


def test_a_new_data_set_is_for_those_who_owned_the_rooms() -> None:
    cluster = Cluster("a", [])
    cluster.run(5)
    cluster.table.found_data_set(0.5, cluster.now)
    assert not cluster.table.may_claim("live-1", None, cluster.now + 0.1)
    assert cluster.table.may_claim("live-1", None, cluster.now + 0.1, owned_before=True)
    cluster.run(3)
    assert cluster.table.may_claim("live-1", None, cluster.now)


def test_a_node_just_come_is_placed_on_after_a_lease_and_moved_to_after_the_join_delay() -> None:
    cluster = Cluster("a", ["b"])
    cluster.run(10)
    cluster.peers.append(Peer("c", "i-c"))
    room = cluster.room_on("c")
    came = cluster.now + BEAT_S
    placed: float | None = None
    while cluster.table.better_node(room, cluster.now) != "c":
        cluster.run(BEAT_S)
        if placed is None and cluster.table.placed_on(room, cluster.now) == "c":
            placed = cluster.now
        assert cluster.now < 30
    assert placed == came + LEASE_S
    assert cluster.now == came + JOIN_DELAY_S


def test_one_that_comes_and_goes_starts_its_delay_again() -> None:
    cluster = Cluster("a", [])
    cluster.run(10)
    joined = Peer("c", "i-c")
    cluster.peers.append(joined)
    room = cluster.room_on("c")
    for _ in range(5):
        cluster.run(JOIN_DELAY_S - BEAT_S)
        assert cluster.table.better_node(room, cluster.now) is None
        cluster.leave("c")
        cluster.run(BEAT_S)
        cluster.peers.append(joined)


def test_nodes_that_were_there_first_need_no_delay() -> None:
    cluster = Cluster("a", ["b"])
    room = cluster.room_on("b")
    cluster.run(BEAT_S)
    assert cluster.table.placed_on(room, cluster.now) == "b"
    assert cluster.table.placed_on(cluster.room_on("a"), cluster.now) == "b"  # a has just come itself


def test_a_leaving_node_is_given_nothing_and_gives_all() -> None:
    cluster = Cluster("a", ["b", "c"])
    cluster.run(10)
    room = cluster.room_on("b")
    cluster.mark("b")
    cluster.run(BEAT_S)
    assert cluster.table.placed_on(room, cluster.now) in ("a", "c")
    mine = cluster.room_on("a")
    assert cluster.table.better_node(mine, cluster.now) is None
    cluster.mark("a")
    cluster.run(BEAT_S)
    assert cluster.table.better_node(mine, cluster.now) == "c"


def test_the_last_node_that_leaves_has_nobody_to_give_to() -> None:
    cluster = Cluster("a", [])
    cluster.run(10)
    cluster.mark("a")
    cluster.run(BEAT_S)
    assert cluster.table.better_node("live-1", cluster.now) is None


@pytest.mark.parametrize(("rooms", "within_s"), [(30, 5.0), (1000, 5.0)])
def test_moves_are_spread_and_a_drain_ends_in_time(rooms: int, within_s: float) -> None:
    cluster = Cluster("a", ["b", "c"])
    cluster.run(10)
    cluster.mark("a")
    cluster.run(BEAT_S)
    moves = Moves()
    moves.start_drain(rooms, within_s)
    left = [f"live-{number}" for number in range(rooms)]
    start = cluster.now
    most = 0
    while left:
        due = moves.next(left, cluster.table, cluster.now)
        assert [move.room for move in due] == left[: len(due)]
        assert {move.heir for move in due} <= {"b", "c"}
        most = max(most, len(due))
        left = left[len(due) :]
        cluster.run(BEAT_S)
    assert cluster.now - start <= within_s + BEAT_S
    assert most <= max(MOVES_PER_S, rooms / within_s) * BEAT_S + 1


def test_a_join_moves_at_most_its_budget_and_only_what_the_new_node_takes() -> None:
    cluster = Cluster("a", [])
    cluster.run(10)
    cluster.peers.append(Peer("b", "i-b"))
    cluster.run(JOIN_DELAY_S + BEAT_S)
    rooms = [f"live-{number}" for number in range(400)]
    random.Random(1).shuffle(rooms)
    moves = Moves()
    moved: list[str] = []
    for _ in range(4):
        moved += [move.room for move in moves.next([r for r in rooms if r not in moved], cluster.table, cluster.now)]
        cluster.run(BEAT_S)
    assert len(moved) <= MOVES_PER_S * (4 * BEAT_S) + 1
    assert all(place(room, {"a": 1.0, "b": 1.0}) == "b" for room in moved)
