"""Mic-link: the table of states, and that a seat has one holder whatever happens."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import booleans, integers, none, sampled_from

from broker.core.commerce.activity import UserLeft, UserMessage
from broker.core.commerce.mic import (
    ACCEPTED_MS,
    GRACE_MS,
    INVITED_MS,
    MAX_QUEUE,
    QUEUED_MS,
    RESUMED_MS,
    AcceptInvitation,
    ConfirmOnMic,
    InviteUser,
    Mic,
    MuteMicrophone,
    RejectUser,
    RequestSeat,
    SetSeats,
    Withdraw,
)
from protocol.activities.eligibility import Eligibility
from protocol.activities.mic import (
    LeaveCause,
    MicInvited,
    MicRejected,
    MicSeat,
    MicSeats,
    MicState,
    MicStatus,
    SeatChangedData,
)
from protocol.codes import ErrorCode, Role
from protocol.operations.mic import MicAccess
from tests.support.activities import ActivityDriver, viewer
from tests.support.examples import examples

ANN, BOB, CY = viewer("ann"), viewer("bob"), viewer("cy")
HOST = viewer("host", Role.HOST)
TOKEN = "rtc-secret"


def driver_with(seats: int = 2) -> ActivityDriver:
    driver = ActivityDriver(Mic)
    driver.ask(SetSeats(seats), HOST)
    driver.events.clear()
    return driver


def invite(driver: ActivityDriver, user: str, token: str | None = TOKEN) -> int:
    """Invite a user and return the fence."""
    state: MicState = driver.ask(InviteUser(user, None, token), HOST)
    assert state.status is MicStatus.INVITED
    return state.fence


def put_on_mic(driver: ActivityDriver, user: str) -> int:
    fence = invite(driver, user)
    driver.ask(AcceptInvitation(fence), viewer(user))
    assert driver.ask(ConfirmOnMic(fence), viewer(user)).status is MicStatus.ON_MIC
    return fence


def status_of(driver: ActivityDriver, user: str) -> MicStatus:
    status: MicStatus = driver.activity.state_of(user).status
    return status


def event_names(driver: ActivityDriver) -> list[str]:
    return [event.name for event in driver.events]


# ---- the way to a seat


def test_the_way_from_a_request_to_the_mic_and_off_it() -> None:
    driver = driver_with()
    asked_ms = driver.now_ms
    assert driver.ask(RequestSeat(), ANN) == MicState("ann", MicStatus.QUEUED, 1, expires_at_ms=asked_ms + QUEUED_MS)
    invited = driver.ask(InviteUser("ann", None, TOKEN), HOST)
    assert (invited.status, invited.seat, invited.expires_at_ms) == (MicStatus.INVITED, 1, asked_ms + INVITED_MS)
    message = MicInvited(1, invited.fence, asked_ms + INVITED_MS)
    assert driver.messages == [UserMessage("ann", "mic.invited", message)]
    access = driver.ask(AcceptInvitation(invited.fence), ANN)
    assert access.rtc_token == TOKEN
    assert (access.state.status, access.state.expires_at_ms) == (MicStatus.ACCEPTED, asked_ms + ACCEPTED_MS)
    assert event_names(driver) == []
    assert driver.ask(ConfirmOnMic(invited.fence), ANN).status is MicStatus.ON_MIC
    assert driver.activity.taken() == (MicSeat(1, "ann", "Ann"),)
    assert driver.ask(Withdraw(invited.fence), ANN) == MicState("ann", MicStatus.NONE)
    assert event_names(driver) == ["mic.seat_taken", "mic.seat_left"]
    assert [report.data for report in driver.reports] == [
        SeatChangedData("ann", 1, invited.fence, None),
        SeatChangedData("ann", 1, invited.fence, LeaveCause.LEFT),
    ]


def test_a_request_needs_seats() -> None:
    driver = ActivityDriver(Mic)
    assert driver.refusal_of(RequestSeat(), ANN).code is ErrorCode.UNKNOWN_ACTIVITY
    driver.ask(SetSeats(0), HOST)
    assert driver.refusal_of(RequestSeat(), ANN).code is ErrorCode.CLOSED


def test_staff_says_who_may_ask_for_a_seat() -> None:
    driver = driver_with()
    driver.ask(SetSeats(2, (), Eligibility(tags_any=("fan",))), HOST)
    driver.ask(SetSeats(3), HOST)
    driver.restart()
    refusal = driver.refusal_of(RequestSeat(), ANN)
    assert (refusal.code, refusal.field) == (ErrorCode.NOT_ELIGIBLE, "tags_any")
    fan = viewer("ann", tags=frozenset({"fan"}))
    assert driver.ask(RequestSeat(), fan).status is MicStatus.QUEUED
    invite(driver, "bob")
    driver.ask(SetSeats(3, (), Eligibility()), HOST)
    assert driver.ask(RequestSeat(), CY).status is MicStatus.QUEUED


def test_requests_have_no_text_for_a_keyword() -> None:
    driver = driver_with()
    refusal = driver.refusal_of(SetSeats(2, (), Eligibility(keyword="up")), HOST)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "eligibility.keyword")
    assert driver.ask(RequestSeat(), ANN).status is MicStatus.QUEUED


def test_a_second_request_is_the_first_one() -> None:
    driver = driver_with()
    driver.ask(RequestSeat(), BOB)
    first = driver.ask(RequestSeat(), ANN)
    driver.pass_time(1000)
    assert driver.ask(RequestSeat(), ANN) == first
    assert first.place == 2
    fence = put_on_mic(driver, "ann")
    assert driver.ask(RequestSeat(), ANN) == MicState("ann", MicStatus.ON_MIC, 0, 1, fence)


def test_the_queue_is_in_order_of_requests_and_has_a_bound() -> None:
    driver = driver_with()
    for number in range(MAX_QUEUE):
        assert driver.ask(RequestSeat(), viewer(f"u{number}")).place == number + 1
    full = driver.refusal_of(RequestSeat(), ANN)
    assert full.code is ErrorCode.OVERLOADED
    assert full.retry_after_ms
    driver.ask(Withdraw(), viewer("u0"))
    assert driver.activity.state_of("u1").place == 1
    assert driver.ask(RequestSeat(), ANN).place == MAX_QUEUE
    seats: MicSeats = driver.activity.seats(lists_queue=True)
    assert seats.waiting == MAX_QUEUE
    assert [each.user for each in seats.queue[:2]] == ["u1", "u2"]
    assert [each.user for each in driver.activity.counter().data.first] == [f"u{number}" for number in range(1, 11)]
    shared = driver.activity.view(True)
    assert shared.queue == ()


@pytest.mark.parametrize("command", [AcceptInvitation(1), ConfirmOnMic(1)])
def test_only_the_invited_go_on(command: Any) -> None:
    driver = driver_with()
    assert driver.refusal_of(command, ANN).code is ErrorCode.NOT_INVITED
    driver.ask(RequestSeat(), ANN)
    assert driver.refusal_of(command, ANN).code is ErrorCode.NOT_INVITED
    fence = invite(driver, "bob")
    assert driver.refusal_of(command._replace(fence=fence), ANN).code is ErrorCode.NOT_INVITED


def test_an_invited_user_accepts_before_it_speaks() -> None:
    driver = driver_with()
    fence = invite(driver, "ann")
    assert driver.refusal_of(ConfirmOnMic(fence), ANN).code is ErrorCode.NOT_INVITED


def test_asking_again_gives_the_same_answer_at_every_step() -> None:
    driver = driver_with()
    first = driver.ask(InviteUser("ann", 2, TOKEN), HOST)
    driver.pass_time(1000)
    assert driver.ask(InviteUser("ann", 1, "another"), HOST) == first
    access = driver.ask(AcceptInvitation(first.fence), ANN)
    driver.pass_time(1000)
    assert driver.ask(AcceptInvitation(first.fence), ANN) == access
    assert driver.ask(InviteUser("ann"), HOST) == access.state
    spoken = driver.ask(ConfirmOnMic(first.fence), ANN)
    assert driver.ask(ConfirmOnMic(first.fence), ANN) == spoken
    assert driver.ask(AcceptInvitation(first.fence), ANN) == MicAccess(spoken, TOKEN)
    assert driver.ask(InviteUser("ann"), HOST) == spoken
    assert event_names(driver) == ["mic.seat_taken"]
    assert len(driver.messages) == 1


def test_an_invitation_holds_its_seat() -> None:
    driver = driver_with(1)
    invite(driver, "ann")
    assert driver.refusal_of(InviteUser("bob"), HOST).code is ErrorCode.SEAT_TAKEN
    driver.ask(RequestSeat(), CY)
    assert driver.refusal_of(InviteUser("cy", 1), HOST).code is ErrorCode.SEAT_TAKEN
    assert status_of(driver, "cy") is MicStatus.QUEUED
    driver.pass_time(INVITED_MS - 1)
    assert driver.refusal_of(InviteUser("bob"), HOST).code is ErrorCode.SEAT_TAKEN
    driver.pass_time(1)
    assert status_of(driver, "ann") is MicStatus.NONE
    invite(driver, "bob")


def test_a_seat_beyond_the_last_is_none() -> None:
    driver = driver_with(2)
    assert driver.refusal_of(InviteUser("ann", 3), HOST).code is ErrorCode.SEAT_TAKEN


# ---- fences


def test_a_device_of_an_ended_holding_cannot_act_for_the_next_one() -> None:
    driver = driver_with()
    old = put_on_mic(driver, "ann")
    driver.ask(RejectUser("ann"), HOST)
    new = invite(driver, "ann")
    assert new > old
    for command in (AcceptInvitation(old), ConfirmOnMic(old), Withdraw(old), MuteMicrophone(True, None, old)):
        refusal = driver.refusal_of(command, ANN)
        assert refusal.code is ErrorCode.STALE
        assert str(new) in refusal.rule
    assert driver.refusal_of(Withdraw(), ANN).field == "fence"
    assert status_of(driver, "ann") is MicStatus.INVITED


def test_fences_grow_over_users_restarts_and_streams_of_the_room() -> None:
    driver = driver_with()
    fences = [invite(driver, "ann"), invite(driver, "bob")]
    driver.ask(RejectUser("ann"), HOST)
    driver.restart()
    fences.append(invite(driver, "cy"))
    other = driver_with()
    other.now_ms = driver.now_ms + 60_000
    fences.append(invite(other, "ann"))
    assert fences == sorted(set(fences))


# ---- secrets


def test_the_token_goes_to_the_invited_user_alone() -> None:
    driver = driver_with()
    driver.ask(RequestSeat(), BOB)
    fence = invite(driver, "ann")
    answers = [driver.ask(AcceptInvitation(fence), ANN)]
    driver.ask(ConfirmOnMic(fence), ANN)
    driver.ask(MuteMicrophone(True, "ann"), HOST)
    driver.ask(Withdraw(fence), ANN)
    assert answers[0].rtc_token == TOKEN
    public = [driver.events, driver.messages, driver.reports, driver.activity.counter()]
    views = [driver.activity.view(True), driver.activity.own_view("ann")]
    others = [answer for answer in driver.answers.values() if answer is not answers[0]]
    assert TOKEN not in repr((public, views, others))


def test_an_invitation_without_a_token_is_accepted_without_one() -> None:
    driver = driver_with()
    fence = invite(driver, "ann", None)
    assert driver.ask(AcceptInvitation(fence), ANN).rtc_token is None


# ---- how it ends


def test_a_request_ends_by_itself() -> None:
    driver = driver_with()
    driver.ask(RequestSeat(), ANN)
    driver.pass_time(QUEUED_MS - 1)
    assert status_of(driver, "ann") is MicStatus.QUEUED
    driver.pass_time(1)
    assert status_of(driver, "ann") is MicStatus.NONE


def test_an_accepted_invitation_ends_by_itself() -> None:
    driver = driver_with()
    fence = invite(driver, "ann")
    driver.ask(AcceptInvitation(fence), ANN)
    driver.pass_time(ACCEPTED_MS - 1)
    assert status_of(driver, "ann") is MicStatus.ACCEPTED
    driver.pass_time(1)
    assert driver.refusal_of(ConfirmOnMic(fence), ANN).code is ErrorCode.NOT_INVITED
    assert event_names(driver) == []


@pytest.mark.parametrize("steps", range(4))
def test_staff_rejects_a_user_at_every_step(steps: int) -> None:
    driver = driver_with()
    driver.ask(RequestSeat(), ANN)
    fence = invite(driver, "ann") if steps > 0 else 0
    if steps > 1:
        driver.ask(AcceptInvitation(fence), ANN)
    if steps > 2:
        driver.ask(ConfirmOnMic(fence), ANN)
    assert status_of(driver, "ann") == steps + 1
    assert driver.ask(RejectUser("ann"), HOST) == MicState("ann", MicStatus.NONE)
    assert driver.ask(RejectUser("ann"), HOST) == MicState("ann", MicStatus.NONE)
    rejected = [message for message in driver.messages if message.data == MicRejected()]
    left = [event.data.cause for event in driver.events if event.name == "mic.seat_left"]
    assert (len(rejected), left) == ((0, [LeaveCause.REMOVED]) if steps > 2 else (1, []))


@pytest.mark.parametrize("steps", range(4))
def test_the_user_withdraws_at_every_step(steps: int) -> None:
    driver = driver_with()
    assert driver.ask(Withdraw(), ANN) == MicState("ann", MicStatus.NONE)
    driver.ask(RequestSeat(), ANN)
    fence = invite(driver, "ann") if steps > 0 else None
    if fence is not None and steps > 1:
        driver.ask(AcceptInvitation(fence), ANN)
    if fence is not None and steps > 2:
        driver.ask(ConfirmOnMic(fence), ANN)
    assert driver.ask(Withdraw(fence), ANN) == MicState("ann", MicStatus.NONE)
    assert driver.ask(Withdraw(fence), ANN) == MicState("ann", MicStatus.NONE)
    assert event_names(driver) == (["mic.seat_taken", "mic.seat_left"] if steps > 2 else [])


def test_a_lost_connection_frees_the_seat_after_a_grace() -> None:
    driver = driver_with()
    put_on_mic(driver, "ann")
    driver.pass_time(60_000)
    driver.ask(UserLeft(), ANN)
    driver.pass_time(5000)
    driver.ask(UserLeft(), ANN)
    driver.pass_time(GRACE_MS - 5001)
    assert status_of(driver, "ann") is MicStatus.ON_MIC
    driver.pass_time(1)
    assert status_of(driver, "ann") is MicStatus.NONE
    assert driver.events[-1].data.cause is LeaveCause.CONNECTION_LOST
    assert driver.reports[-1].data.cause is LeaveCause.CONNECTION_LOST


def test_who_is_back_in_time_with_its_fence_stays() -> None:
    driver = driver_with()
    fence = put_on_mic(driver, "ann")
    driver.ask(UserLeft(), ANN)
    driver.pass_time(GRACE_MS - 1)
    assert driver.refusal_of(ConfirmOnMic(fence - 1), ANN).code is ErrorCode.STALE
    assert driver.ask(ConfirmOnMic(fence), ANN).expires_at_ms is None
    driver.pass_time(10 * GRACE_MS)
    assert status_of(driver, "ann") is MicStatus.ON_MIC
    assert event_names(driver) == ["mic.seat_taken"]


def test_a_lost_connection_changes_nothing_for_others() -> None:
    driver = driver_with()
    driver.ask(RequestSeat(), ANN)
    before = driver.activity.dump()
    driver.ask(UserLeft(), ANN)
    driver.ask(UserLeft(), BOB)
    assert driver.activity.dump() == before


def test_a_restart_leaves_time_to_come_back() -> None:
    driver = driver_with(3)
    speaks = put_on_mic(driver, "ann")
    put_on_mic(driver, "cy")
    driver.pass_time(1000)
    invited = invite(driver, "bob")
    driver.ask(RequestSeat(), viewer("dan"))
    driver.now_ms += INVITED_MS + 60_000
    driver.restart()
    driver.commit_all()
    assert driver.activity.state_of("bob").expires_at_ms == driver.now_ms + RESUMED_MS
    driver.pass_time(RESUMED_MS - 1)
    assert driver.ask(AcceptInvitation(invited), BOB).rtc_token == TOKEN
    assert driver.ask(ConfirmOnMic(speaks), ANN).status is MicStatus.ON_MIC
    driver.pass_time(GRACE_MS)
    assert [status_of(driver, user) for user in ("ann", "cy", "dan")] == [
        MicStatus.ON_MIC, MicStatus.NONE, MicStatus.QUEUED
    ]  # fmt: skip
    driver.check()


def test_what_a_restart_brings_about_is_tried_again_and_comes_first() -> None:
    driver = driver_with()
    put_on_mic(driver, "ann")
    driver.restart()
    driver.refuse()
    assert driver.activity.state_of("ann").expires_at_ms is None
    driver.send(RequestSeat(), BOB)
    driver.refuse()
    assert not driver.is_under_way
    driver.pass_time(1000)
    assert [fact.name for fact in driver.facts][-1] == "resumed"
    assert driver.activity.state_of("ann").expires_at_ms is not None
    driver.check()


def test_a_lost_connection_that_the_ledger_refuses_is_tried_again() -> None:
    driver = driver_with()
    put_on_mic(driver, "ann")
    driver.send(UserLeft(), ANN)
    driver.refuse()
    driver.pass_time(1000)
    assert driver.activity.state_of("ann").expires_at_ms is not None
    driver.check()


def test_the_end_of_the_room_ends_every_entry() -> None:
    driver = driver_with()
    fence = put_on_mic(driver, "ann")
    driver.ask(RequestSeat(), BOB)
    driver.reports.clear()
    driver.end()
    assert [status_of(driver, user) for user in ("ann", "bob")] == [MicStatus.NONE, MicStatus.NONE]
    assert [report.data for report in driver.reports] == [SeatChangedData("ann", 1, fence, LeaveCause.ROOM_ENDED)]
    assert driver.activity.removable_at == driver.now_ms
    assert driver.activity.next_due() is None
    driver.check()


# ---- sound


def test_staff_and_the_user_itself_mute() -> None:
    driver = driver_with()
    fence = put_on_mic(driver, "ann")
    driver.events.clear()
    assert driver.ask(MuteMicrophone(True, None, fence), ANN).is_muted
    assert driver.ask(MuteMicrophone(True, None, fence), ANN).is_muted
    assert not driver.ask(MuteMicrophone(False, None, fence), ANN).is_muted
    assert driver.ask(MuteMicrophone(True, "ann"), HOST).is_muted
    assert driver.refusal_of(MuteMicrophone(False, None, fence), ANN).code is ErrorCode.NOT_ALLOWED
    assert driver.ask(MuteMicrophone(True, None, fence), ANN).is_muted
    assert driver.activity.taken() == (MicSeat(1, "ann", "Ann", True),)
    assert not driver.ask(MuteMicrophone(False, "ann"), HOST).is_muted
    assert [event.data.is_muted for event in driver.events] == [True, False, True, False]


def test_only_who_is_on_the_mic_is_muted() -> None:
    driver = driver_with()
    driver.ask(RequestSeat(), ANN)
    assert driver.refusal_of(MuteMicrophone(True, "ann"), HOST).code is ErrorCode.NOT_INVITED
    assert driver.refusal_of(MuteMicrophone(True, None, 5), ANN).code is ErrorCode.NOT_INVITED
    fence = invite(driver, "ann")
    assert driver.refusal_of(MuteMicrophone(True, None, fence), ANN).code is ErrorCode.NOT_INVITED


# ---- seats


def test_fewer_seats_than_holders_ask_who_is_to_leave() -> None:
    driver = driver_with(3)
    fences = {user: put_on_mic(driver, user) for user in ("ann", "bob")}
    invite(driver, "cy")
    driver.events.clear()
    refusal = driver.refusal_of(SetSeats(1), HOST)
    assert (refusal.code, refusal.field) == (ErrorCode.BELOW_TAKEN, "remove")
    assert driver.refusal_of(SetSeats(1, ("ann",)), HOST).code is ErrorCode.BELOW_TAKEN
    answer = driver.ask(SetSeats(1, ("ann", "cy", "ann", "dan")), HOST)
    assert answer == MicSeats(1, (MicSeat(1, "bob", "Bob"),), 0)
    assert event_names(driver) == ["mic.seats_changed"]
    assert driver.events[0].data.taken == answer.taken
    assert [message.user for message in driver.messages if message.data == MicRejected()] == ["cy"]
    assert driver.reports[-1].data == SeatChangedData("ann", 1, fences["ann"], LeaveCause.REMOVED)
    assert driver.ask(ConfirmOnMic(fences["bob"]), BOB).seat == 1


def test_holders_move_to_the_seats_that_are_left() -> None:
    driver = driver_with(5)
    for user in ("ann", "bob", "cy"):
        put_on_mic(driver, user)
    driver.ask(RejectUser("ann"), HOST)
    answer = driver.ask(SetSeats(2), HOST)
    assert answer.taken == (MicSeat(1, "cy", "Cy"), MicSeat(2, "bob", "Bob"))
    driver.check()


def test_the_same_number_of_seats_changes_nothing() -> None:
    driver = driver_with(3)
    driver.ask(RequestSeat(), ANN)
    before = driver.activity.dump()
    answer = driver.ask(SetSeats(3, ("ann",)), HOST)
    assert answer.seats == 3
    assert driver.activity.dump() == before
    assert driver.events == []


# ---- whatever happens


def hold_invariants(mic: Any) -> None:
    """Never two on one seat, never one on two, and every request ends."""
    count, entries, *_ = mic.dump()
    holders = [entry for entry in entries if entry[5]]
    seats = {entry[5] for entry in holders}
    assert len(seats) == len(holders), "two users on one seat"
    assert len({entry[6] for entry in holders}) == len(holders), "two holdings with one fence"
    assert all(1 <= seat <= count for seat in seats)
    for _, status, _, _, deadline_ms, seat, fence, _, _ in entries:
        assert (seat > 0) == (fence > 0) == (status >= MicStatus.INVITED)
        assert deadline_ms is not None or status == MicStatus.ON_MIC, "a request without an end"


USERS = [f"u{number}" for number in range(6)]
users = sampled_from(USERS)


class MicMachine(RuleBasedStateMachine):
    """Any order of commands, commits, refusals, restarts and times."""

    @initialize(seats=integers(0, 4))
    def begin(self, seats: int) -> None:
        self.driver = ActivityDriver(Mic)
        self.driver.ask(SetSeats(seats), HOST)
        self.fences: list[int] = []

    def fence(self, user: str, is_old: bool) -> int:
        fence: int = self.driver.activity.state_of(user).fence
        return fence - is_old

    @rule(user=users)
    def request(self, user: str) -> None:
        self.driver.send(RequestSeat(), viewer(user))

    @rule(user=users, seat=none() | integers(1, 5))
    def invite(self, user: str, seat: int | None) -> None:
        self.driver.send(InviteUser(user, seat, f"token of {user}"), HOST)

    @rule(user=users)
    def reject(self, user: str) -> None:
        self.driver.send(RejectUser(user), HOST)

    @rule(user=users, is_old=booleans())
    def withdraw(self, user: str, is_old: bool) -> None:
        self.driver.send(Withdraw(self.fence(user, is_old) or None), viewer(user))

    @rule(user=users, is_old=sampled_from([False, False, True]))
    def accept(self, user: str, is_old: bool) -> None:
        self.driver.send(AcceptInvitation(self.fence(user, is_old)), viewer(user))

    @rule(user=users, is_old=sampled_from([False, False, True]))
    def go_on_mic(self, user: str, is_old: bool) -> None:
        self.driver.send(ConfirmOnMic(self.fence(user, is_old)), viewer(user))

    @rule(user=users, is_muted=booleans(), by_staff=booleans())
    def mute(self, user: str, is_muted: bool, by_staff: bool) -> None:
        command = (
            MuteMicrophone(is_muted, user) if by_staff else MuteMicrophone(is_muted, None, self.fence(user, False))
        )
        self.driver.send(command, HOST if by_staff else viewer(user))

    @rule(seats=integers(0, 5), removed=users)
    def set_seats(self, seats: int, removed: str) -> None:
        self.driver.send(SetSeats(seats, (removed,)), HOST)

    @rule(user=users)
    def lose_connection(self, user: str) -> None:
        self.driver.send(UserLeft(), viewer(user))

    @rule(ms=sampled_from([0, 1, 3000, 9_999, 15_000, 600_000]))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms)

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def commit(self) -> None:
        self.driver.commit()

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def refuse(self) -> None:
        self.driver.refuse()

    @rule()
    def restart(self) -> None:
        self.driver.restart()

    @invariant()
    def a_seat_has_one_holder(self) -> None:
        self.driver.check()
        hold_invariants(self.driver.activity)
        for ticket, answer in self.driver.answers.items():
            if isinstance(answer, MicAccess):
                assert answer.rtc_token == f"token of {answer.state.user}", ticket

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        for user in USERS:
            self.driver.ask(UserLeft(), viewer(user))
        self.driver.pass_time(QUEUED_MS + 60_000)
        assert all(status_of(self.driver, user) is MicStatus.NONE for user in USERS)
        assert len(self.driver.answers) + len(self.driver.lost) == self.driver.asked
        assert len(self.driver.activity.held_seats) == 0
        self.driver.check()


MicMachine.TestCase.settings = examples(60, steps=40)
TestMic = MicMachine.TestCase


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 1000, 125))
def test_fifty_requests_for_three_seats_over_a_thousand_seeds(first: int) -> None:
    spoken = sum(play_requests(Random(seed)) for seed in range(first, first + 125))
    assert spoken > 125, "too few users came on the mic to prove anything"


def play_requests(rng: Random) -> int:
    """Play 50 requests on 3 seats in a random order of acts; return how often a user came on the mic."""
    driver = driver_with(3)
    waiting = [f"u{number}" for number in range(50)]
    rng.shuffle(waiting)
    fences: dict[str, int] = {}
    while waiting or rng.random() < 0.95:
        if waiting and rng.random() < 0.6:
            driver.send(RequestSeat(), viewer(waiting.pop()))
        holders = list(driver.activity.held_seats.values())
        user = rng.choice(holders) if holders and rng.random() < 0.6 else f"u{rng.randrange(50)}"
        fence = fences.get(user, 0)
        act = rng.randrange(8)
        if act <= 1:
            ticket = driver.send(InviteUser(user), HOST)
            driver.commit_all()
            if isinstance(answer := driver.answers[ticket], MicState):
                fences[user] = answer.fence
        elif act <= 3:
            driver.send(AcceptInvitation(fence), viewer(user))
        elif act <= 5:
            driver.send(ConfirmOnMic(fence), viewer(user))
        elif act == 6:
            driver.send(rng.choice([Withdraw(fence or None), UserLeft()]), viewer(user))
        else:
            driver.advance(rng.choice([1, 4000, 15_000]))
        if driver.is_under_way and rng.random() < 0.1:
            driver.refuse()
        driver.commit_all()
        hold_invariants(driver.activity)
    driver.pass_time(QUEUED_MS)
    assert all(
        state.status == MicStatus.ON_MIC for state in map(driver.activity.state_of, driver.activity.held_seats.values())
    )
    assert driver.activity.seats(lists_queue=False).waiting == 0
    return sum(event.name == "mic.seat_taken" for event in driver.events)
