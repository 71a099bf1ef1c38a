"""Users are erased from every kind of activity, in any state: nothing of them is left, and the sums stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from hypothesis.strategies import sampled_from

from broker.core.commerce.activity import ErasedUser
from broker.core.commerce.audiences import Audiences, DefineTags, Share
from broker.core.commerce.kinds import activity_kinds
from broker.core.commerce.mic import GRACE_MS
from broker.core.commerce.polls import LATE_ANSWERS_MS, VOTE_WINDOW_MS, VoteCommand
from broker.core.commerce.quizzes import PAID_AT_ONCE, AnswerQuestionCommand, FinishQuizCommand, RevealQuestionCommand
from broker.core.commerce.schedules import ERASED_CREATOR, CreateJob, Job
from protocol.activities.audiences import OwnReach, TagRule
from protocol.codes import Role
from protocol.lottery.proof import verify
from tests.core.commerce import (
    test_audiences,
    test_coupons,
    test_lottery,
    test_mic,
    test_packet,
    test_polls,
    test_products,
    test_quizzes,
    test_rain,
    test_sale,
    test_schedules,
)
from tests.core.moderation import test_review
from tests.support.activities import ActivityDriver, platform, strings_in, viewer
from tests.support.examples import examples

MACHINES: dict[str, tuple[tuple[type[RuleBasedStateMachine], Sequence[str]], ...]] = {
    "audiences": (
        (test_audiences.TagMachine, test_audiences.USERS),
        (test_audiences.ReachMachine, test_audiences.USERS),
    ),
    "sales": ((test_sale.SaleMachine, "abcde"),),
    "packets": ((test_packet.PacketMachine, "abcdefgh"),),
    "coupons": ((test_coupons.PoolMachine, "abdefgh"),),
    "rains": ((test_rain.RainMachine, "abcd"),),
    "lotteries": ((test_lottery.LotteryMachine, "abcdefgh"),),
    "mic": ((test_mic.MicMachine, test_mic.USERS),),
    "schedules": ((test_schedules.JobMachine, ["ann", "host"]),),
    "products": ((test_products.ProductsMachine, "xyz"),),
    "polls": ((test_polls.PollMachine, "abcd"),),
    "reviews": ((test_review.Interleaved, ["bob", "ann", "eve"]),),
    "quizzes": ((test_quizzes.QuizMachine, "abcde"),),
}
"""Machines of the kinds, and the ids of users in them that nothing else has."""
WITHOUT_USERS = {"pk", "countdowns", "orders"}


def test_every_kind_is_here_or_knows_no_users() -> None:
    assert set(activity_kinds(lambda: bytes(32))) == MACHINES.keys() | WITHOUT_USERS


def erasing(machine: type[RuleBasedStateMachine], users: Sequence[str]) -> type[RuleBasedStateMachine]:
    """Return a machine whose users may be erased; what it holds of each user is not asked any more."""

    class Erasing(machine):  # type: ignore[misc, valid-type]
        @rule(user=sampled_from(users))
        def erase(self, user: str) -> None:
            driver = self.driver
            before = amounts_of(driver)
            is_same_state = not driver.is_under_way
            left = driver.erase(user)
            if isinstance(self, test_audiences.ReachMachine):
                self.share_keys[user].clear()  # keys go with the user: who has its id now has used none
            if getattr(getattr(self, "new", None), "is_blind", True):
                assert not left
            is_removed = driver.activity.kind == "reviews"  # messages of the user go
            assert is_removed or not is_same_state or amounts_of(driver) == before

        @invariant()
        def the_state_is_the_fold_of_the_facts_without_the_users(self) -> None:
            self.driver.check()

        def teardown(self) -> None:
            if hasattr(self, "driver"):
                self.driver.pass_time(700_000)
                self.driver.check()

    for name in dir(machine):
        if hasattr(getattr(machine, name), "hypothesis_stateful_invariant"):
            setattr(Erasing, name, lambda self: None)
    if machine is test_audiences.ReachMachine:
        Erasing.leave = None  # it asserts which users are followed
    return Erasing


def amounts_of(driver: Any) -> Any:
    return dict(driver.activity.amounts) if driver.activity.exists else None


@pytest.mark.parametrize(("machine", "users"), [each for found in MACHINES.values() for each in found])
def test_nothing_of_an_erased_user_is_left(machine: type[RuleBasedStateMachine], users: Sequence[str]) -> None:
    run_state_machine_as_test(erasing(machine, users), settings=examples(30, steps=30))


def test_a_batch_that_the_ledger_refuses_leaves_nothing_of_the_user_either() -> None:
    driver = test_polls.opened()
    driver.send(VoteCommand((0,)), viewer("ann"))
    driver.advance(VOTE_WINDOW_MS)
    assert driver.is_under_way
    erased = ErasedUser("ann", "erased-1")
    assert not driver.runner.erase(erased)
    driver.runner.refused(driver.now_ms)
    assert driver.runner.erase(erased)
    assert "ann" not in "".join(strings_in(driver.runner, "runner"))


def test_the_share_keys_of_an_erased_user_are_free_for_who_has_its_id_next() -> None:
    driver = ActivityDriver(Audiences)
    driver.ask(DefineTags((TagRule("fans"),)), platform)
    assert driver.ask(Share("wechat", None, "a"), viewer("ann")) == OwnReach(False, 1, 0)
    assert driver.erase("ann") == []
    driver.restart()
    assert driver.ask(Share("qq", None, "a"), viewer("ann")) == OwnReach(False, 1, 0)
    assert (driver.activity.reach_of("erased-1").shares, driver.activity.totals().shares) == (1, 2)
    driver.check()


def test_the_prize_of_an_erased_winner_is_paid_once_whatever_the_order_of_the_ids() -> None:
    driver = test_quizzes.quiz_driver(100_000)
    users = sorted(f"u{number:04}" for number in range(4 * PAID_AT_ONCE + 10))
    driver.ask(test_quizzes.question(driver, 1), test_quizzes.host)
    for user in users:
        driver.send(AnswerQuestionCommand(1, 1), viewer(user))
    driver.pass_time(test_quizzes.QUESTION_MS + LATE_ANSWERS_MS)
    driver.ask(RevealQuestionCommand(1, 1, test_quizzes.SALT), test_quizzes.host)
    driver.send(FinishQuizCommand(), platform)
    driver.commit()
    driver.commit()
    assert len(driver.activity.paid) == PAID_AT_ONCE
    assert driver.is_under_way
    driver.erase(users[0])
    driver.erase(users[-1])
    driver.restart()
    driver.pass_time(1000)
    assert sorted(driver.activity.paid) == sorted(["erased-1", *users[1:-1], "erased-2"])
    assert sorted(message.user for message in driver.messages) == sorted([*users[:-1], "erased-2"])
    driver.check()


def test_the_draw_of_an_erased_entry_is_proved_as_before() -> None:
    driver = test_lottery.open_driver()
    users = [f"user-{number}" for number in range(20)]
    test_lottery.enter(driver, *users)
    assert driver.erase(users[3]) == []
    test_lottery.until(driver, test_lottery.CLOSE_MS + 1000)
    for user in users[4:]:
        assert driver.erase(user) == []
    proof = test_lottery.proof_of(driver)
    announced, closed = driver.events[0].data, driver.events[2].data
    assert verify(proof, announced.commitment, closed.root).failure is None
    driver.restart()
    assert test_lottery.proof_of(driver) == proof
    driver.check()


def test_the_job_of_an_erased_user_has_no_creator_and_one_that_names_the_user_names_its_pseudonym() -> None:
    own, other = ActivityDriver(lambda: Job("j")), ActivityDriver(lambda: Job("k"))
    at_ms = own.now_ms + 1000
    creator = "user", "", "ann", "Ann", "live-1", int(Role.HOST), 1_790_000_000
    own.ask(CreateJob("rooms.set_phase", {"room": "ann", "phase": "paused"}, at_ms, creator), platform)
    issue = {"room": "live-1", "id": "ann", "user": "ann"}
    other.ask(CreateJob("coupons.issue", issue, at_ms, ("key", "", "ann")), platform)
    own.erase("ann")
    other.erase("ann")
    for driver in own, other:
        driver.restart()
        driver.pass_time(1000)
        driver.check()
    (run,) = own.activity.pending_actions
    assert (run.creator, run.request["room"]) == ((ERASED_CREATOR,), "ann")
    (run,) = other.activity.pending_actions
    assert (run.creator, run.request) == (("key", "", "ann"), issue | {"user": "erased-1"})


def test_a_seat_of_an_erased_user_becomes_free() -> None:
    driver = test_mic.driver_with()
    test_mic.put_on_mic(driver, "ann")
    driver.erase("ann")
    assert [seat.user for seat in driver.activity.taken()] == ["erased-1"]
    driver.pass_time(GRACE_MS + 1)
    assert driver.activity.taken() == ()
    driver.check()
