"""Quizzes: only survivors answer, they only become fewer, and the prize is divided to the cent."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import integers, sampled_from

from broker.core.commerce.activity import ActivityRefusal, RoomEvent, UserMessage
from broker.core.commerce.polls import LATE_ANSWERS_MS, VOTE_WINDOW_MS
from broker.core.commerce.quizzes import (
    PAID_AT_ONCE,
    AnswerQuestionCommand,
    AskQuestionCommand,
    CancelQuizCommand,
    CloseQuestionCommand,
    CreateQuizCommand,
    FinishQuizCommand,
    Quiz,
    RevealQuestionCommand,
)
from protocol.activities.eligibility import Eligibility
from protocol.activities.polls import PollState, PollTerms, PollVote, answer_hash
from protocol.activities.quizzes import (
    QuizCancelled,
    QuizClosed,
    QuizEnd,
    QuizFinishedData,
    QuizOpened,
    QuizOwnView,
    QuizPaidData,
    QuizRevealed,
    QuizState,
    QuizView,
    QuizWon,
)
from protocol.codes import ErrorCode, Role
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.examples import examples

SALT = "000102030405060708090a0b0c0d0e0f"
QUESTION_MS = 1000
USERS = "abcde"
host = viewer("host", Role.HOST)


def quiz_driver(prize_cents: int = 100, **more: Any) -> ActivityDriver:
    driver = ActivityDriver(lambda: Quiz("q"))
    driver.ask(CreateQuizCommand("Friday", prize_cents, **more), platform)
    return driver


def question(driver: ActivityDriver, number: int, right: int = 1, open_ms: int = 0) -> AskQuestionCommand:
    open_at_ms = driver.now_ms + open_ms
    terms = PollTerms(
        f"Question {number}", ("x", "y"), open_at_ms, open_at_ms + QUESTION_MS, answer_hash=answer_hash(SALT, right)
    )
    return AskQuestionCommand(number, terms)


def play(driver: ActivityDriver, number: int, right: str, wrong: str = "") -> Any:
    """Ask a question, let users answer, reveal it, and return the answer of the reveal."""
    driver.ask(question(driver, number), host)
    for user in right + wrong:
        driver.send(AnswerQuestionCommand(number, int(user in right)), viewer(user))
    driver.pass_time(QUESTION_MS + LATE_ANSWERS_MS)
    return driver.ask(RevealQuestionCommand(number, 1, SALT), host)


class QuizMachine(RuleBasedStateMachine):
    """Any order of questions, answers, reveals, ends, commits, refusals and restarts."""

    @initialize(prize_cents=integers(0, 12))
    def begin(self, prize_cents: int) -> None:
        self.driver = quiz_driver(prize_cents)
        self.prize_cents = prize_cents
        self.asked: dict[int, AskQuestionCommand] = {}
        self.survivors: frozenset[str] | None = None

    @rule(right=integers(0, 1), open_ms=sampled_from([0, 0, 150]), number=integers(1, 4))
    def ask(self, right: int, open_ms: int, number: int) -> None:
        asked = self.asked.setdefault(number, question(self.driver, number, right, open_ms))
        self.driver.send(asked, host)

    @rule(users=sampled_from(["a", "ab", "cde", USERS]), number=integers(1, 4), option=integers(0, 1))
    def answer(self, users: str, number: int, option: int) -> None:
        for user in users:
            self.driver.send(AnswerQuestionCommand(number, option), viewer(user))

    @rule(ms=sampled_from([10, 100, 150, 600, 1500]))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms)

    @rule(number=integers(1, 4))
    def close(self, number: int) -> None:
        self.driver.send(CloseQuestionCommand(number), host)

    @rule(number=integers(1, 4))
    def reveal(self, number: int) -> None:
        for option in (0, 1):
            self.driver.send(RevealQuestionCommand(number, option, SALT), host)

    @rule(sure=integers(0, 4))
    def finish(self, sure: int) -> None:
        if not sure:
            self.driver.send(FinishQuizCommand(), platform)

    @rule(sure=integers(0, 9))
    def cancel(self, sure: int) -> None:
        if not sure:
            self.driver.send(CancelQuizCommand(), platform)

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
    def the_state_is_the_fold(self) -> None:
        self.driver.check()

    @invariant()
    def survivors_only_become_fewer(self) -> None:
        state: Any = self.driver.folded()
        if self.survivors is not None:
            assert state.survivors <= self.survivors
        self.survivors = state.survivors

    @invariant()
    def the_prize_is_paid_once_and_to_survivors(self) -> None:
        state: Any = self.driver.folded()
        messages = Counter(message.user for message in self.driver.messages)
        assert all(count == 1 for count in messages.values())
        assert sorted(messages) == list(state.paid)
        assert set(messages) <= set(state.survivors or ())
        assert sum(message.data.cents for message in self.driver.messages) <= self.prize_cents

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.pass_time(60_000)
        assert len(self.driver.answers) + len(self.driver.lost) == self.driver.asked
        self.driver.end()
        self.driver.check()
        [report] = [each.data for each in self.driver.reports if each.name == "quiz.finished"]
        paid = [message.data.cents for message in self.driver.messages]
        assert sum(paid) == report.paid_cents
        assert report.paid_cents + report.returned_cents == self.prize_cents
        assert len(paid) == (report.survivors if report.each_cents else 0)


QuizMachine.TestCase.settings = examples(60, steps=40)
TestQuizzes = QuizMachine.TestCase


def test_the_last_ones_standing_share_the_prize() -> None:
    driver = quiz_driver(100)
    assert driver.events == [RoomEvent("quizzes.opened", QuizOpened("Friday", 100))]
    play(driver, 1, right="abcd", wrong="e")
    assert [event.name for event in driver.events[1:]] == ["quizzes.asked", "quizzes.closed", "quizzes.revealed"]
    assert driver.events[-1].data == QuizRevealed(1, 1, SALT, 4, 1)
    play(driver, 2, right="abc")
    assert driver.events[-1].data == QuizRevealed(2, 1, SALT, 3, 1)
    end = QuizEnd(3, 33, 1)
    assert driver.ask(FinishQuizCommand(), platform).end == end
    assert driver.events[-1] == RoomEvent("quizzes.finished", end)
    assert driver.messages == [UserMessage(user, "quizzes.won", QuizWon(33)) for user in "abc"]
    assert [each.data for each in driver.reports] == [
        QuizFinishedData("q", QuizState.FINISHED, 3, 33, 99, 1), QuizPaidData("q", 33, ("a", "b", "c")),
    ]  # fmt: skip
    assert driver.ask(FinishQuizCommand(), platform).end == end
    assert driver.activity.removable_at == driver.now_ms


def test_who_is_out_or_comes_late_watches() -> None:
    driver = quiz_driver()
    play(driver, 1, right="ab", wrong="c")
    driver.ask(question(driver, 2), host)
    for user in ("c", "late"):
        refusal = driver.refusal_of(AnswerQuestionCommand(2, 1), viewer(user))
        assert (refusal.code, refusal.field) == (ErrorCode.NOT_ELIGIBLE, "survivor")
    assert driver.activity.own_view("a") == QuizOwnView(2, None, plays=True)
    assert driver.activity.own_view("late") is None
    ticket = driver.send(AnswerQuestionCommand(2, 1), viewer("a"))
    driver.pass_time(VOTE_WINDOW_MS)
    assert driver.answers[ticket] == PollVote((1,), 1)
    assert driver.activity.own_view("a") == QuizOwnView(2, 1, plays=True)
    assert driver.activity.counter().data == (2, 1)


def test_an_answer_behind_the_deadline_does_not_survive() -> None:
    driver = quiz_driver()
    driver.ask(question(driver, 1), host)
    driver.pass_time(QUESTION_MS + LATE_ANSWERS_MS - 1)
    late = driver.send(AnswerQuestionCommand(1, 1), viewer("a"))
    driver.pass_time(1)
    assert driver.answers[late] == PollVote((1,), 1)
    assert driver.refusal_of(AnswerQuestionCommand(1, 1), viewer("b")).code is ErrorCode.CLOSED
    driver.ask(RevealQuestionCommand(1, 1, SALT), host)
    assert driver.activity.survivors == {"a"}


@pytest.mark.parametrize(("prize", "survivors"), [(2, "abc"), (0, "ab"), (50, "")])
def test_a_prize_that_cannot_be_divided_is_returned(prize: int, survivors: str) -> None:
    driver = quiz_driver(prize)
    play(driver, 1, right=survivors, wrong="e")
    assert driver.ask(FinishQuizCommand(), platform).end == QuizEnd(len(survivors), 0, prize)
    driver.pass_time(1000)
    assert driver.messages == []
    assert [each.name for each in driver.reports] == ["quiz.finished"]


def test_many_winners_are_paid_in_parts_over_refusals_and_a_restart() -> None:
    driver = quiz_driver(10_000)
    driver.ask(question(driver, 1), host)
    users = sorted(f"u{number}" for number in range(2 * PAID_AT_ONCE + 10))
    for user in users:
        driver.send(AnswerQuestionCommand(1, 1), viewer(user))
    driver.pass_time(QUESTION_MS + LATE_ANSWERS_MS)
    driver.ask(RevealQuestionCommand(1, 1, SALT), host)
    driver.send(FinishQuizCommand(), platform)
    driver.commit()
    assert driver.is_under_way
    driver.refuse()
    driver.pass_time(100)
    driver.restart()
    driver.pass_time(1000)
    assert [message.user for message in driver.messages] == users
    assert [user for report in driver.reports[1:] for user in report.data.users] == users
    assert all(len(report.data.users) <= PAID_AT_ONCE for report in driver.reports[1:])


def test_one_question_after_the_other() -> None:
    driver = quiz_driver()
    assert driver.refusal_of(question(driver, 2), host).field == "number"
    first = question(driver, 1, open_ms=500)
    assert driver.ask(first, host).state is PollState.SCHEDULED
    assert driver.ask(first, host).state is PollState.SCHEDULED
    assert driver.refusal_of(question(driver, 1, right=0), host).code is ErrorCode.KEY_REUSED
    assert driver.activity.view(is_staff=False).question is None
    assert driver.activity.view(is_staff=True).question.state is PollState.SCHEDULED
    assert driver.refusal_of(AnswerQuestionCommand(1, 0), viewer("a")).code is ErrorCode.NOT_OPEN
    assert driver.refusal_of(AnswerQuestionCommand(2, 0), viewer("a")).code is ErrorCode.UNKNOWN_ACTIVITY
    assert driver.refusal_of(question(driver, 2), host).code is ErrorCode.OUT_OF_STATE
    assert driver.refusal_of(FinishQuizCommand(), platform).code is ErrorCode.OUT_OF_STATE
    driver.ask(CloseQuestionCommand(1), host)
    play(driver, 2, right="", wrong="ab")
    assert driver.refusal_of(question(driver, 3), host).rule == "has no survivors"
    assert driver.activity.view(is_staff=False).survivors == 0


def test_a_question_has_a_hash() -> None:
    driver = quiz_driver()
    asked = question(driver, 1)
    refusal = driver.refusal_of(asked._replace(terms=asked.terms._replace(answer_hash=None)), host)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "answer_hash")
    assert driver.activity.result().number == 0


def test_counts_of_a_question_are_secret_until_it_is_closed() -> None:
    driver = quiz_driver()
    driver.ask(question(driver, 1), host)
    driver.send(AnswerQuestionCommand(1, 1), viewer("a"))
    driver.pass_time(VOTE_WINDOW_MS)
    assert driver.activity.view(is_staff=False).question.counts == ()
    assert driver.activity.view(is_staff=True).question.counts == (0, 1)
    driver.ask(CloseQuestionCommand(1), host)
    assert isinstance(driver.events[-1].data, QuizClosed)
    assert driver.events[-1].data.result.counts == (0, 1)


def test_a_cancelled_quiz_returns_its_prize_and_refuses_who_waits() -> None:
    driver = quiz_driver(70)
    driver.ask(question(driver, 1), host)
    ticket = driver.send(AnswerQuestionCommand(1, 1), viewer("a"))
    assert driver.ask(CancelQuizCommand(), platform).state is QuizState.CANCELLED
    assert driver.answers[ticket].code is ErrorCode.CANCELLED
    assert driver.events[-1] == RoomEvent("quizzes.cancelled", QuizCancelled(70))
    assert driver.reports[-1].data == QuizFinishedData("q", QuizState.CANCELLED, 0, 0, 0, 70)
    assert driver.ask(CancelQuizCommand(), platform).state is QuizState.CANCELLED
    assert driver.refusal_of(FinishQuizCommand(), platform).code is ErrorCode.CANCELLED
    assert driver.refusal_of(question(driver, 2), host).code is ErrorCode.CLOSED
    assert driver.activity.removable_at == driver.now_ms


def test_a_finished_quiz_is_not_cancelled() -> None:
    driver = quiz_driver()
    driver.ask(FinishQuizCommand(), platform)
    assert driver.refusal_of(CancelQuizCommand(), platform).code is ErrorCode.CLOSED


def test_the_end_of_the_room_cancels_a_quiz() -> None:
    driver = quiz_driver(70)
    play(driver, 1, right="a")
    driver.end()
    assert driver.activity.state is QuizState.CANCELLED
    assert driver.messages == []
    assert driver.reports[-1].data == QuizFinishedData("q", QuizState.CANCELLED, 1, 0, 0, 70)


def test_only_the_platform_gives_money() -> None:
    driver = ActivityDriver(lambda: Quiz("q"))
    assert driver.refusal_of(CreateQuizCommand("Friday", 1), host).code is ErrorCode.NOT_ALLOWED
    assert quiz_driver(1).refusal_of(FinishQuizCommand(), host).code is ErrorCode.NOT_ALLOWED
    keyword = CreateQuizCommand("Friday", 0, Eligibility(keyword="go"))
    assert driver.refusal_of(keyword, host).field == "eligibility.keyword"
    created = QuizView(QuizState.RUNNING, "Friday", 0, 0, None, None)
    assert driver.ask(CreateQuizCommand("Friday", 0), host) == created
    assert driver.ask(CreateQuizCommand("Friday", 0), host) == created
    assert driver.refusal_of(CreateQuizCommand("Monday", 0), host).code is ErrorCode.KEY_REUSED


def test_conditions_of_the_quiz_are_those_of_its_questions() -> None:
    driver = quiz_driver(eligibility=Eligibility(follow=True))
    driver.ask(question(driver, 1), host)
    refusal = driver.ask(AnswerQuestionCommand(1, 1), viewer("a"))
    assert isinstance(refusal, ActivityRefusal)
    assert (refusal.code, refusal.field) == (ErrorCode.NOT_ELIGIBLE, "follow")
