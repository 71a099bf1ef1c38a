"""PK: two halves, messages that are repeated, lost and late, and one result."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import booleans, integers, sampled_from

from broker.core.commerce.activity import ActivityRefusal
from broker.core.commerce.pk import (
    COLLECT_MS,
    INVITATION_MS,
    MAX_PKS,
    OTHER_SCORE_MS,
    RESULT_MS,
    RESUMED_MS,
    START_MS,
    Pk,
)
from broker.core.commerce.pk_half import (
    AnswerInvitation,
    CancelPk,
    Delivered,
    InviteRoom,
    OtherScored,
    PkHandled,
    PkMessage,
    ReceiveMessage,
    Scored,
)
from protocol.activities.pk import PkEnded, PkMeasure, PkOutcome, PkPhase, PkScore
from protocol.codes import ErrorCode, Role
from protocol.fields import MAX_INT
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.examples import examples

HOST = viewer("host", Role.HOST)
LASTS_MS = 300_000
START = 1_790_000_000_000


class Rooms:
    """Two rooms, a and b, and the messages between their halves."""

    def __init__(self) -> None:
        self.drivers = {name: ActivityDriver(self._maker(name), START) for name in "ab"}
        self.ended: set[str] = set()

    @staticmethod
    def _maker(room: str) -> Any:
        return lambda: Pk("", room)

    def __getitem__(self, room: str) -> ActivityDriver:
        return self.drivers[room]

    def deliver(self, room: str) -> int:
        """Deliver what a room has for the other, with its answers; return how many wait for an answer."""
        driver = self.drivers[room]
        driver.commit_all()
        outgoing = driver.activity.pending_actions
        for to, message in outgoing:
            self.answer(room, message, self.hand_over(room, to, message))
        return 0 if room in self.ended else len(outgoing)

    def hand_over(self, room: str, to: str, message: PkMessage) -> Any:
        """Hand a message to the other room and return its answer."""
        if to in self.ended:
            return ActivityRefusal(ErrorCode.ROOM_ENDED, "has ended", "room")
        return self.drivers[to].ask(ReceiveMessage(room, message), platform)

    def answer(self, room: str, message: PkMessage, answer: Any) -> None:
        """Bring the answer of the other room to the sender."""
        code = answer.code if isinstance(answer, ActivityRefusal) else None
        if code is not ErrorCode.OVERLOADED and room not in self.ended:
            self.drivers[room].ask(Delivered(message.pk, message.kind, code), platform)

    def exchange(self) -> None:
        """Deliver until nothing waits."""
        for _ in range(20):
            if not sum(self.deliver(room) for room in "ab"):
                return
        raise AssertionError("messages without end")

    def pass_time(self, ms: int) -> None:
        for room, driver in self.drivers.items():
            if room in self.ended:
                driver.now_ms += ms
            else:
                driver.pass_time(ms)

    def end(self, room: str) -> None:
        self.drivers[room].end()
        self.ended.add(room)

    def outcome(self, room: str, pk: str = "p") -> tuple[PkOutcome | None, bool]:
        """Outcome of a PK in a room, and whether by forfeit."""
        had = dict(self.drivers[room].activity.dump()[2])
        return (had[pk].outcome, had[pk].is_forfeit) if pk in had else (None, False)

    def phase(self, room: str) -> PkPhase:
        state = self.drivers[room].activity.state()
        return PkPhase.IDLE if state is None else state.phase


def invited(measure: PkMeasure = PkMeasure.GIFTS) -> Rooms:
    rooms = Rooms()
    rooms["a"].ask(InviteRoom("p", "b", LASTS_MS, measure), HOST)
    rooms.exchange()
    return rooms


def running() -> Rooms:
    rooms = invited()
    rooms["b"].ask(AnswerInvitation("p", True), HOST)
    rooms.exchange()
    rooms.pass_time(START_MS)
    return rooms


def give(rooms: Rooms, room: str, amount: int, offset: int = 0) -> None:
    driver = rooms[room]
    assert driver.ask(Scored(amount, driver.now_ms, offset), platform) == PkHandled()


def end_of(rooms: Rooms, room: str) -> PkEnded:
    data = rooms[room].events[-1].data
    assert isinstance(data, PkEnded)
    return data


# ---- the invitation


def test_a_pk_from_the_invitation_to_the_result() -> None:
    rooms = Rooms()
    state = rooms["a"].ask(InviteRoom("p", "b", LASTS_MS), HOST)
    assert (state.phase, state.is_inviting, state.expires_at_ms) == (PkPhase.INVITING, True, START + INVITATION_MS)
    rooms.exchange()
    assert rooms.phase("b") is PkPhase.INVITED
    accepted = rooms["b"].ask(AnswerInvitation("p", True), HOST)
    rooms.exchange()
    for room in "ab":
        assert rooms.phase(room) is PkPhase.RUNNING
        assert [event.name for event in rooms[room].events] == ["pk.started"]
        assert rooms[room].events[0].data.ends_at_ms == accepted.ends_at_ms == START + START_MS + LASTS_MS
    rooms.pass_time(START_MS)
    give(rooms, "a", 500)
    give(rooms, "b", 300)
    rooms.pass_time(LASTS_MS)
    assert rooms.phase("a") is PkPhase.SCORING
    rooms.pass_time(COLLECT_MS)
    rooms.exchange()
    assert end_of(rooms, "a") == PkEnded("p", "b", PkOutcome.WON, 500, 300)
    assert end_of(rooms, "b") == PkEnded("p", "a", PkOutcome.LOST, 300, 500)
    assert [report.name for report in rooms["a"].reports] == ["pk.started", "pk.ended"]
    assert "final" in [fact.name for fact in rooms["a"].facts]
    assert rooms["a"].activity.view(False).phase is PkPhase.RESULT
    rooms.pass_time(RESULT_MS)
    assert [rooms.phase(room) for room in "ab"] == [PkPhase.IDLE, PkPhase.IDLE]


@pytest.mark.parametrize(("a", "b", "outcome"), [(5, 4, PkOutcome.WON), (4, 5, PkOutcome.LOST), (5, 5, PkOutcome.DRAW)])
def test_the_larger_score_wins(a: int, b: int, outcome: PkOutcome) -> None:
    rooms = running()
    give(rooms, "a", a)
    give(rooms, "b", b)
    rooms.pass_time(LASTS_MS + COLLECT_MS)
    rooms.exchange()
    assert rooms.outcome("a") == (outcome, False)
    assert end_of(rooms, "b").score == b


def test_without_the_other_score_it_is_void() -> None:
    rooms = running()
    give(rooms, "a", 5)
    rooms.pass_time(LASTS_MS + COLLECT_MS + OTHER_SCORE_MS - 1)
    assert rooms.phase("a") is PkPhase.SCORING
    rooms.pass_time(1)
    assert end_of(rooms, "a") == PkEnded("p", "b", PkOutcome.VOID, 5, None)
    rooms.exchange()
    assert rooms.outcome("b") == (PkOutcome.VOID, False)


def test_an_invitation_ends_by_itself_in_both_rooms() -> None:
    rooms = invited()
    rooms.pass_time(INVITATION_MS - 1)
    assert rooms.phase("b") is PkPhase.INVITED
    rooms.pass_time(1)
    rooms.exchange()
    assert [rooms.outcome(room)[0] for room in "ab"] == [PkOutcome.EXPIRED, PkOutcome.EXPIRED]
    assert rooms["b"].refusal_of(AnswerInvitation("p", True), HOST).code is ErrorCode.EXPIRED
    assert rooms["a"].events == rooms["b"].events == []


def test_a_declined_invitation_is_over() -> None:
    rooms = invited()
    rooms["b"].ask(AnswerInvitation("p", False), HOST)
    assert rooms["b"].ask(AnswerInvitation("p", False), HOST).outcome is PkOutcome.DECLINED
    rooms.exchange()
    assert [rooms.outcome(room)[0] for room in "ab"] == [PkOutcome.DECLINED, PkOutcome.DECLINED]
    assert rooms["b"].refusal_of(AnswerInvitation("p", True), HOST).code is ErrorCode.CANCELLED


def test_an_invitation_is_taken_back() -> None:
    rooms = invited()
    rooms["a"].ask(CancelPk("p"), HOST)
    assert rooms["a"].ask(CancelPk("p"), HOST).outcome is PkOutcome.CANCELLED
    rooms.exchange()
    assert rooms.phase("b") is PkPhase.IDLE
    assert rooms["b"].refusal_of(AnswerInvitation("p", True), HOST).code is ErrorCode.CANCELLED


def test_a_room_has_one_pk() -> None:
    rooms = invited()
    assert rooms["a"].refusal_of(InviteRoom("q", "c", LASTS_MS), HOST).code is ErrorCode.OUT_OF_STATE
    busy = rooms["b"].ask(ReceiveMessage("c", PkMessage("invite", "q", (0, LASTS_MS, START + 1000))), platform)
    assert busy.code is ErrorCode.OUT_OF_STATE
    assert rooms["a"].refusal_of(AnswerInvitation("p", True), HOST).code is ErrorCode.UNKNOWN_ACTIVITY
    for command in (CancelPk("q"), AnswerInvitation("q", True)):
        assert rooms["b"].refusal_of(command, HOST).code is ErrorCode.UNKNOWN_ACTIVITY


def test_a_busy_room_declines() -> None:
    rooms = Rooms()
    rooms["b"].ask(InviteRoom("q", "c", LASTS_MS), HOST)
    rooms["a"].ask(InviteRoom("p", "b", LASTS_MS), HOST)
    rooms.deliver("a")
    assert rooms.outcome("a") == (PkOutcome.DECLINED, False)
    assert rooms.phase("b") is PkPhase.INVITING


def test_the_same_id_is_the_same_invitation() -> None:
    rooms = invited()
    first = rooms["a"].activity.state()
    assert rooms["a"].ask(InviteRoom("p", "b", LASTS_MS), HOST) == first
    assert rooms["a"].refusal_of(InviteRoom("p", "b", LASTS_MS + 1), HOST).code is ErrorCode.KEY_REUSED
    assert rooms["b"].refusal_of(InviteRoom("p", "a", LASTS_MS), HOST).code is ErrorCode.KEY_REUSED
    rooms["a"].ask(CancelPk("p"), HOST)
    assert rooms["a"].ask(InviteRoom("p", "b", LASTS_MS), HOST).outcome is PkOutcome.CANCELLED
    assert rooms["a"].refusal_of(InviteRoom("r", "a", LASTS_MS), HOST).field == "other_room"


def test_a_room_remembers_so_many() -> None:
    driver = ActivityDriver(lambda: Pk("", "a"))
    for number in range(MAX_PKS):
        driver.ask(InviteRoom(f"p{number}", "b", LASTS_MS), HOST)
        driver.ask(CancelPk(f"p{number}"), HOST)
    assert driver.refusal_of(InviteRoom("p", "b", LASTS_MS), HOST).code is ErrorCode.OUT_OF_STATE


# ---- the score


def test_what_counts_is_the_time_of_the_event() -> None:
    rooms = running()
    driver = rooms["a"]
    state = driver.activity.state()
    starts_at_ms, ends_at_ms = state.starts_at_ms, state.ends_at_ms
    for at_ms, amount in ((starts_at_ms - 1, 1), (starts_at_ms, 10), (ends_at_ms - 1, 100), (ends_at_ms, 1000)):
        driver.ask(Scored(amount, at_ms), platform)
    assert driver.activity.state().score == 110
    rooms.pass_time(LASTS_MS + COLLECT_MS - 1)
    driver.ask(Scored(10_000, ends_at_ms - 1), platform)
    rooms.pass_time(1)
    driver.ask(Scored(100_000, ends_at_ms - 1), platform)
    rooms.exchange()
    assert end_of(rooms, "a").score == 10_110


def test_an_event_counts_once_over_a_restart() -> None:
    rooms = running()
    driver = rooms["a"]
    give(rooms, "a", 10, offset=5)
    give(rooms, "a", 100, offset=7)
    assert [*filter(driver.activity.takes, PkMeasure)] == [PkMeasure.GIFTS]
    driver.restart()
    driver.commit_all()
    assert driver.activity.counted_to == 7
    for offset, amount in ((5, 10), (7, 100), (9, 1000)):
        give(rooms, "a", amount, offset)
    assert driver.activity.state().score == 1110


def test_nothing_counts_without_a_pk() -> None:
    driver = ActivityDriver(lambda: Pk("", "a"))
    assert driver.ask(Scored(5, START), platform) == PkHandled()
    assert not driver.activity.exists
    assert not any(map(driver.activity.takes, PkMeasure))


def test_a_score_has_a_bound() -> None:
    rooms = running()
    give(rooms, "a", MAX_INT)
    refusal = rooms["a"].refusal_of(Scored(1, rooms["a"].now_ms), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "amount")


def test_members_see_both_scores_and_staff_the_invitation() -> None:
    rooms = invited(PkMeasure.LIKES)
    assert rooms["b"].activity.view(False) is None
    assert rooms["b"].activity.view(True).phase is PkPhase.INVITED
    assert rooms["b"].activity.counter().name == "pk.invitation_changed"
    rooms["b"].ask(AnswerInvitation("p", True), HOST)
    assert [*filter(rooms["b"].activity.takes, PkMeasure)] == [PkMeasure.LIKES]
    rooms.pass_time(START_MS)
    give(rooms, "b", 7)
    rooms["b"].ask(OtherScored("p", 9), platform)
    rooms["b"].ask(OtherScored("q", 8), platform)
    assert rooms["b"].activity.counter().data == PkScore("p", 7, 9)
    assert rooms["b"].activity.view(False).other_score == 9
    rooms["b"].ask(CancelPk("p"), HOST)
    rooms.exchange()
    assert rooms["a"].activity.counter() is None


# ---- messages that come late, twice or never


def test_a_message_is_repeated_until_it_is_answered() -> None:
    rooms = Rooms()
    rooms["a"].ask(InviteRoom("p", "b", LASTS_MS), HOST)
    ((to, message),) = rooms["a"].activity.pending_actions
    assert (to, message.kind) == ("b", "invite")
    for _ in range(3):
        assert rooms.hand_over("a", to, message) == PkHandled()
    assert len(rooms["b"].facts) == 1
    rooms["a"].restart()
    rooms["a"].commit_all()
    assert (to, message) in rooms["a"].activity.pending_actions
    rooms["a"].ask(Delivered("p", "invite"), platform)
    rooms["a"].ask(Delivered("p", "invite"), platform)
    assert rooms["a"].activity.pending_actions == ()


def test_an_acceptance_that_comes_too_late_makes_it_void() -> None:
    rooms = invited()
    rooms["b"].ask(AnswerInvitation("p", True), HOST)
    rooms["a"].ask(CancelPk("p"), HOST)
    rooms.deliver("b")
    assert rooms.outcome("b") == (PkOutcome.VOID, False)
    rooms.exchange()
    assert rooms.outcome("a") == (PkOutcome.CANCELLED, False)


def test_a_cancellation_that_comes_after_the_acceptance_makes_it_void() -> None:
    rooms = invited()
    rooms["b"].ask(AnswerInvitation("p", True), HOST)
    rooms["a"].ask(CancelPk("p"), HOST)
    rooms.deliver("a")
    assert rooms.outcome("b") == (PkOutcome.VOID, False)
    rooms.exchange()


def test_a_score_that_comes_before_the_acceptance_is_asked_for_again() -> None:
    rooms = invited()
    for kind, data in (("final", (5,)), ("forfeit", ())):
        answer = rooms["a"].ask(ReceiveMessage("b", PkMessage(kind, "p", data)), platform)
        assert answer.code is ErrorCode.OVERLOADED


def test_messages_of_other_rooms_and_pks_are_refused() -> None:
    rooms = running()
    for room, pk in (("c", "p"), ("b", "q")):
        for kind in ("accept", "final", "forfeit", "result", "cancel", "decline", "alive"):
            answer = rooms["a"].ask(ReceiveMessage(room, PkMessage(kind, pk, (1,))), platform)
            assert answer.code is ErrorCode.UNKNOWN_ACTIVITY
    assert rooms.phase("a") is PkPhase.RUNNING


# ---- forfeits


@pytest.mark.parametrize("loser", "ab")
def test_a_room_that_gives_up_loses(loser: str) -> None:
    rooms = running()
    give(rooms, loser, 1000)
    winner = "b" if loser == "a" else "a"
    rooms[loser].ask(CancelPk("p"), HOST)
    rooms.exchange()
    assert rooms.outcome(loser) == (PkOutcome.LOST, True)
    assert rooms.outcome(winner) == (PkOutcome.WON, True)


def test_there_is_nothing_to_give_up_after_the_end() -> None:
    rooms = running()
    rooms.pass_time(LASTS_MS)
    assert rooms["a"].refusal_of(CancelPk("p"), HOST).code is ErrorCode.OUT_OF_STATE


@pytest.mark.parametrize("is_heard", [True, False])
@pytest.mark.parametrize("loser", "ab")
def test_a_room_that_ends_loses(loser: str, is_heard: bool) -> None:
    rooms = running()
    winner = "b" if loser == "a" else "a"
    rooms.end(loser)
    if is_heard:
        rooms.deliver(loser)
    else:
        rooms[winner].restart()
        rooms[winner].commit_all()
        rooms[winner].ask(Delivered("p", "alive", ErrorCode.ROOM_ENDED), platform)
    assert rooms.outcome(winner) == (PkOutcome.WON, True)


@pytest.mark.parametrize("gone", "ab")
def test_a_room_that_ends_has_no_invitation(gone: str) -> None:
    rooms = invited()
    other = "b" if gone == "a" else "a"
    rooms.end(gone)
    rooms.deliver(gone)
    assert rooms.outcome(other)[0] is (PkOutcome.DECLINED if other == "a" else PkOutcome.CANCELLED)


def test_after_a_restart_the_other_room_is_asked_whether_it_is_there() -> None:
    rooms = running()
    rooms.end("a")
    rooms["b"].restart()
    rooms.deliver("b")
    assert rooms.outcome("b") == (PkOutcome.WON, True)


def test_an_invitation_to_no_room_is_declined() -> None:
    rooms = Rooms()
    rooms["a"].ask(InviteRoom("p", "b", LASTS_MS), HOST)
    rooms["a"].ask(Delivered("p", "invite", ErrorCode.UNKNOWN_ROOM), platform)
    assert rooms.outcome("a") == (PkOutcome.DECLINED, False)


def test_a_restart_leaves_time_to_answer() -> None:
    rooms = invited()
    driver = rooms["b"]
    driver.now_ms += 2 * INVITATION_MS
    driver.restart()
    driver.commit_all()
    driver.pass_time(RESUMED_MS - 1)
    assert rooms.phase("b") is PkPhase.INVITED
    driver.pass_time(1)
    assert rooms.outcome("b") == (PkOutcome.EXPIRED, False)


# ---- whatever happens

rooms_of = sampled_from("ab")
pks = sampled_from(["p", "q", "r"])
INVERSE = {PkOutcome.WON: PkOutcome.LOST, PkOutcome.LOST: PkOutcome.WON}


class PkMachine(RuleBasedStateMachine):
    """Any order of commands, messages, commits, refusals, restarts and times in two rooms."""

    @initialize()
    def begin(self) -> None:
        self.rooms = Rooms()
        self.offset = 0

    def send(self, room: str, command: Any, by: Any = HOST) -> None:
        if room not in self.rooms.ended:
            self.rooms[room].send(command, by)

    @rule(room=rooms_of, pk=pks)
    def invite(self, room: str, pk: str) -> None:
        self.send(room, InviteRoom(pk, "b" if room == "a" else "a", 60_000))

    @rule(room=rooms_of, pk=pks)
    def begin_pk(self, room: str, pk: str) -> None:
        """Invite and accept, where nothing is in the way."""
        other = "b" if room == "a" else "a"
        self.send(room, InviteRoom(pk, other, 60_000))
        if self.rooms[room].is_under_way:
            self.rooms[room].commit()
        for to, message in () if self.rooms[room].is_under_way else self.rooms[room].activity.pending_actions:
            self.rooms.hand_over(room, to, message)
        if not self.rooms[other].is_under_way:
            self.send(other, AnswerInvitation(pk, True))

    @rule(room=rooms_of, pk=pks, accepts=sampled_from([True, True, False]))
    def answer(self, room: str, pk: str, accepts: bool) -> None:
        self.send(room, AnswerInvitation(pk, accepts))

    @rule(room=rooms_of, pk=pks, chance=integers(0, 3))
    def cancel(self, room: str, pk: str, chance: int) -> None:
        if not chance:
            self.send(room, CancelPk(pk))

    @rule(room=rooms_of, amount=integers(1, 3), late_ms=sampled_from([0, 0, 500, 5000]))
    def give(self, room: str, amount: int, late_ms: int) -> None:
        self.offset += 1
        self.send(room, Scored(amount, self.rooms[room].now_ms - late_ms, self.offset), platform)

    @rule(room=rooms_of, is_lost=sampled_from([False, False, True]), is_answer_lost=booleans())
    def deliver(self, room: str, is_lost: bool, is_answer_lost: bool) -> None:
        """Deliver the messages of a room, some of which are lost, or their answers."""
        driver = self.rooms[room]
        if driver.is_under_way or is_lost:
            return
        for to, message in driver.activity.pending_actions:
            answer = self.rooms.hand_over(room, to, message)
            if not is_answer_lost:
                self.rooms.answer(room, message, answer)

    @rule(ms=sampled_from([1, 1000, 3000, 10_000, 30_000]))
    def wait(self, ms: int) -> None:
        for room, driver in self.rooms.drivers.items():
            if room in self.rooms.ended:
                driver.now_ms += ms
            else:
                driver.advance(ms)

    @rule(room=rooms_of)
    def commit(self, room: str) -> None:
        if self.rooms[room].is_under_way:
            self.rooms[room].commit()

    @rule(room=rooms_of)
    def refuse(self, room: str) -> None:
        if self.rooms[room].is_under_way:
            self.rooms[room].refuse()

    @rule(room=rooms_of)
    def restart(self, room: str) -> None:
        if room not in self.rooms.ended:
            self.rooms[room].restart()

    @rule(room=rooms_of, chance=integers(0, 9))
    def end(self, room: str, chance: int) -> None:
        if not chance and room not in self.rooms.ended:
            self.rooms.end(room)
            self.rooms.deliver(room)

    @invariant()
    def a_score_is_the_sum_of_what_was_counted(self) -> None:
        for driver in self.rooms.drivers.values():
            driver.check()
            score = 0
            for fact in driver.facts:
                if fact.name == "scored":
                    score += fact.data[0]
                elif fact.name == "running":
                    score = 0
                elif fact.name == "result":
                    assert fact.data[1][9] == score
            offsets = [fact.data[2] for fact in driver.facts if fact.name == "scored"]
            assert len(offsets) == len(set(offsets)), "an event counts twice"

    def teardown(self) -> None:
        if not hasattr(self, "rooms"):
            return
        rooms = self.rooms
        for _ in range(120):
            rooms.exchange()
            if all(rooms.phase(room) is PkPhase.IDLE for room in "ab" if room not in rooms.ended):
                break
            rooms.pass_time(1000)
        outcomes = {
            room: {pk: half for pk, half in rooms[room].activity.dump()[2] if half.is_accepted} for room in "ab"
        }
        for pk in outcomes["a"].keys() & outcomes["b"].keys():
            a, b = outcomes["a"][pk], outcomes["b"][pk]
            assert INVERSE.get(a.outcome, a.outcome) == b.outcome
            if a.outcome == PkOutcome.WON and not a.is_forfeit:
                assert a.score > b.score
        for room in "ab":
            if room not in rooms.ended:
                assert rooms.phase(room) is PkPhase.IDLE, "a PK never ends"
                assert rooms[room].activity.pending_actions == ()
            rooms[room].check()


PkMachine.TestCase.settings = examples(100, steps=50)
TestPk = PkMachine.TestCase
