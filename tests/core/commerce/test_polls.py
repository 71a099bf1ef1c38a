"""Polls: one vote a user, exact counts, and the committed answer of a quiz."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import booleans, integers, lists, sampled_from

from broker.core.commerce.activity import RoomEvent
from broker.core.commerce.polls import (
    LATE_ANSWERS_MS,
    MAX_TERMS_BYTES,
    MAX_VOTES_OF_ONE,
    MAX_WAITING_VOTES_OF_ONE,
    VOTE_WINDOW_MS,
    VOTES_OF_A_FACT,
    ClosePollCommand,
    CreatePollCommand,
    Poll,
    RevealAnswerCommand,
    VoteCommand,
)
from protocol.activities.eligibility import Eligibility
from protocol.activities.polls import (
    PollClosed,
    PollClosedData,
    PollCounts,
    PollRevealed,
    PollState,
    PollTerms,
    PollView,
    PollVote,
    answer_hash,
    poll_view,
)
from protocol.codes import ErrorCode, Role
from protocol.frames import pack_body
from protocol.json_values import as_json
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.examples import examples

START_MS = 1_790_000_000_000
SALT = "000102030405060708090a0b0c0d0e0f"
OPTIONS = ("red", "blue", "green")
host = viewer("host", Role.HOST)


def poll_driver() -> ActivityDriver:
    return ActivityDriver(lambda: Poll("p"), START_MS)


def terms(open_ms: int = 0, close_ms: int | None = 10_000, **more: Any) -> PollTerms:
    close_at_ms = None if close_ms is None else START_MS + close_ms
    return PollTerms("Colour?", more.pop("options", OPTIONS), START_MS + open_ms, close_at_ms, **more)


def opened(**more: Any) -> ActivityDriver:
    driver = poll_driver()
    driver.ask(CreatePollCommand(terms(**more)), host)
    return driver


def quiz(**more: Any) -> ActivityDriver:
    return opened(answer_hash=answer_hash(SALT, 1), **more)


def vote(driver: ActivityDriver, user: str, *options: int, request: str = "") -> Any:
    """Vote and return the answer, after the window of the vote if it waits for that."""
    ticket = driver.send(VoteCommand(options, request), viewer(user))
    driver.commit_all()
    if ticket not in driver.answers:
        driver.pass_time(VOTE_WINDOW_MS)
    return driver.answers[ticket]


class PollMachine(RuleBasedStateMachine):
    """Any order of votes, closes, reveals, commits, refusals and restarts."""

    @initialize(
        choices=integers(1, 2), changeable=booleans(), hidden=booleans(), is_quiz=booleans(), open_ms=integers(0, 300)
    )
    def begin(self, choices: int, changeable: bool, hidden: bool, is_quiz: bool, open_ms: int) -> None:
        self.driver = poll_driver()
        self.choices, self.changeable = 1 if is_quiz else choices, changeable
        self.votes: dict[int, tuple[str, VoteCommand]] = {}
        asked = terms(
            open_ms, 1500, choices=self.choices, changeable=changeable, hidden=hidden,
            answer_hash=answer_hash(SALT, 1) if is_quiz else None,
        )  # fmt: skip
        self.driver.ask(CreatePollCommand(asked), host)

    @rule(
        user=sampled_from("abcd"),
        options=lists(integers(0, 3), min_size=1, max_size=2),
        request=sampled_from(["", "", "1", "2"]),
    )
    def vote(self, user: str, options: list[int], request: str) -> None:
        command = VoteCommand(tuple(options), request)
        self.votes[self.driver.send(command, viewer(user))] = user, command

    @rule(ms=integers(0, 200))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms)

    @rule(sure=integers(0, 5))
    def close(self, sure: int) -> None:
        if not sure:
            self.driver.send(ClosePollCommand(), host)

    @rule(option=integers(0, 2))
    def reveal(self, option: int) -> None:
        self.driver.send(RevealAnswerCommand(option, SALT), host)

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
    def counts_are_the_sum_over_voters(self) -> None:
        states: tuple[Any, Any] = (self.driver.activity, self.driver.folded())
        for state in states:
            result = state.result(is_staff=True)
            cast = [found for user in "abcd" if (found := state.vote_of(user)) is not None]
            assert result.voters == len(cast)
            assert sum(result.counts) == sum(len(each.options) for each in cast)
            assert result.counts == tuple(sum(option in each.options for each in cast) for option in range(3))
            assert all(1 <= len(each.options) <= self.choices for each in cast)
            assert self.changeable or all(each.vote_no == 1 for each in cast)

    @invariant()
    def each_user_has_the_vote_of_its_highest_number(self) -> None:
        state: Any = self.driver.folded()
        newest: dict[str, PollVote] = {}
        for ticket, (user, _) in self.votes.items():
            answer = self.driver.answers.get(ticket)
            if isinstance(answer, PollVote):
                newest[user] = max(newest.get(user, answer), answer, key=lambda each: each.vote_no)
        assert {user: state.vote_of(user) for user in newest} == newest

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.pass_time(60_000)
        assert len(self.driver.answers) + len(self.driver.lost) == self.driver.asked
        results = [event.data for event in self.driver.events if event.name == "polls.closed"]
        final = self.driver.activity.result(is_staff=True)
        if final.state is PollState.CANCELLED:
            assert results == []
        else:
            assert results == [PollClosed(final.voters, final.counts, final.per_mille)]
        assert [report.data for report in self.driver.reports] == [PollClosedData("p", *each) for each in results]
        self.driver.check()


PollMachine.TestCase.settings = examples(80, steps=40)
TestPolls = PollMachine.TestCase


# ---- the table, word by word


def test_a_poll_opens_and_closes_by_the_clock() -> None:
    driver = poll_driver()
    created = driver.ask(CreatePollCommand(terms(1000)), host)
    assert created == PollView(PollState.SCHEDULED, terms(1000), 0, (0, 0, 0))
    assert driver.activity.view(is_staff=False) is None
    early = driver.refusal_of(VoteCommand((0,)), viewer("a"))
    assert (early.code, early.retry_after_ms) == (ErrorCode.NOT_OPEN, 1000)
    driver.pass_time(1000)
    assert driver.events == [RoomEvent("polls.opened", terms(1000))]
    assert vote(driver, "a", 0) == PollVote((0,), 1)
    driver.pass_time(8999 - VOTE_WINDOW_MS)
    last = driver.send(VoteCommand((1,)), viewer("b"))
    driver.pass_time(1)
    assert driver.answers[last] == PollVote((1,), 1)
    assert driver.events[1:] == [RoomEvent("polls.closed", PollClosed(2, (1, 1, 0), (500, 500, 0)))]
    assert driver.refusal_of(VoteCommand((0,)), viewer("c")).code is ErrorCode.CLOSED
    assert driver.activity.view(is_staff=False).state is PollState.CLOSED


def test_a_poll_opens_at_once_where_its_time_is_past() -> None:
    driver = poll_driver()
    created = driver.ask(CreatePollCommand(terms(-5000)), host)
    assert created.state is PollState.OPEN
    assert created.terms.open_at_ms == START_MS
    assert driver.events == [RoomEvent("polls.opened", terms(0))]


def test_creating_again_answers_again() -> None:
    driver = opened()
    assert driver.ask(CreatePollCommand(terms()), host).state is PollState.OPEN
    assert driver.refusal_of(CreatePollCommand(terms(changeable=True)), host).code is ErrorCode.KEY_REUSED
    assert [fact.name for fact in driver.facts] == ["created", "opened"]


def test_votes_are_answered_after_the_commit_and_again_from_memory() -> None:
    driver = opened()
    ticket = driver.send(VoteCommand((2,)), viewer("a"))
    driver.advance(VOTE_WINDOW_MS)
    assert ticket not in driver.answers
    driver.commit()
    assert driver.answers[ticket] == PollVote((2,), 1)
    assert driver.ask(VoteCommand((2,)), viewer("a")) == PollVote((2,), 1)
    assert driver.refusal_of(VoteCommand((1,)), viewer("a")).code is ErrorCode.ALREADY_HAVE
    assert len(driver.facts) == 3


def test_a_changed_vote_replaces_the_first() -> None:
    driver = opened(changeable=True, choices=2)
    assert vote(driver, "a", 0, 2) == PollVote((0, 2), 1)
    assert vote(driver, "a", 2, 0) == PollVote((0, 2), 1)
    assert vote(driver, "a", 1) == PollVote((1,), 2)
    assert driver.activity.result(is_staff=True).counts == (0, 1, 0)
    for _ in range(MAX_VOTES_OF_ONE // 2 - 1):
        vote(driver, "a", 0)
        vote(driver, "a", 1)
    assert driver.refusal_of(VoteCommand((0,)), viewer("a")).code is ErrorCode.ALREADY_HAVE


def test_the_same_request_gets_the_first_answer_after_a_change_and_a_restart() -> None:
    driver = opened(changeable=True)
    assert vote(driver, "a", 0, request="r1") == PollVote((0,), 1)
    assert vote(driver, "a", 1, request="r2") == PollVote((1,), 2)
    driver.restart()
    assert vote(driver, "a", 0, request="r1") == PollVote((0,), 1)
    assert driver.refusal_of(VoteCommand((2,), "r1"), viewer("a")).code is ErrorCode.KEY_REUSED
    assert driver.activity.vote_of("a") == PollVote((1,), 2)
    driver.ask(ClosePollCommand(), host)
    assert vote(driver, "a", 0, request="r1") == PollVote((0,), 1)


def test_votes_of_one_window_are_decided_in_their_order() -> None:
    driver = opened(changeable=True)
    tickets = [driver.send(VoteCommand((option,)), viewer("a")) for option in (0, 1, 1, 2)]
    driver.pass_time(VOTE_WINDOW_MS)
    assert [driver.answers[ticket] for ticket in tickets] == [
        PollVote((0,), 1), PollVote((1,), 2), PollVote((1,), 2), PollVote((2,), 3),
    ]  # fmt: skip
    assert driver.facts[-1].data == ((("a", 1, ""), ("a", 2, ""), ("a", 4, "")),)


def test_waiting_votes_are_bounded_and_facts_too() -> None:
    driver = opened()
    for _ in range(MAX_WAITING_VOTES_OF_ONE):
        driver.send(VoteCommand((0,)), viewer("bot"))
    assert driver.ask(VoteCommand((0,)), viewer("bot")).code is ErrorCode.OVERLOADED
    for number in range(VOTES_OF_A_FACT):
        driver.send(VoteCommand((1,)), viewer(f"u{number}"))
    driver.pass_time(VOTE_WINDOW_MS)
    assert [len(fact.data[0]) for fact in driver.facts if fact.name == "voted"] == [249, 8]
    assert driver.activity.counter() == RoomEvent("polls.counted", PollCounts(257, (1, 256, 0)))


@pytest.mark.parametrize(
    ("options", "rule"), [((), "1 to 2"), ((0, 1, 2), "1 to 2"), ((1, 1), "each option once"), ((3,), "from 0 to 2")]
)
def test_options_that_cannot_be_are_refused(options: tuple[int, ...], rule: str) -> None:
    refusal = opened(choices=2).refusal_of(VoteCommand(options), viewer("a"))
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "options")
    assert rule in refusal.rule


def test_who_does_not_meet_the_conditions_has_no_vote() -> None:
    driver = poll_driver()
    driver.ask(CreatePollCommand(terms(), Eligibility(tags_any=("fan",))), host)
    assert driver.refusal_of(VoteCommand((0,)), viewer("a")).code is ErrorCode.NOT_ELIGIBLE
    ticket = driver.send(VoteCommand((0,)), viewer("a", tags=frozenset({"fan"})))
    driver.pass_time(VOTE_WINDOW_MS)
    assert driver.answers[ticket] == PollVote((0,), 1)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (terms(options=("only",)), "options"),
        (terms(choices=4), "choices"),
        (terms(close_ms=0), "close_at_ms"),
        (terms(open_ms=9000, close_ms=9000), "close_at_ms"),
        (terms(close_ms=None, answer_hash=answer_hash(SALT, 0)), "close_at_ms"),
        (terms(choices=2, answer_hash=answer_hash(SALT, 0)), "choices"),
        (terms(options=tuple("品" * 40 for _ in range(6))), "options"),
    ],
)
def test_terms_that_cannot_be_are_refused(asked: PollTerms, field: str) -> None:
    driver = poll_driver()
    refusal = driver.refusal_of(CreatePollCommand(asked), host)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, field)
    assert not driver.activity.exists


def test_votes_have_no_keyword() -> None:
    refusal = poll_driver().refusal_of(CreatePollCommand(terms(), Eligibility(keyword="go")), host)
    assert refusal.field == "eligibility.keyword"


def test_a_host_closes_an_open_poll_with_the_votes_that_wait() -> None:
    driver = opened(changeable=True, close_ms=None)
    vote(driver, "a", 0)
    tickets = [driver.send(VoteCommand((2,)), viewer(user)) for user in "abc"]
    closing = driver.send(ClosePollCommand(), host)
    assert driver.refusal_of(VoteCommand((1,)), viewer("late")).code is ErrorCode.CLOSED
    driver.commit_all()
    result = driver.answers[closing]
    assert result == PollView(PollState.CLOSED, terms(0, None, changeable=True), 3, (0, 0, 3), (0, 0, 1000))
    assert [driver.answers[ticket].vote_no for ticket in tickets] == [2, 1, 1]
    assert driver.ask(ClosePollCommand(), host) == result
    assert driver.reports[-1].data == PollClosedData("p", 3, (0, 0, 3), (0, 0, 1000))
    assert driver.activity.removable_at == START_MS + VOTE_WINDOW_MS


def test_a_poll_that_is_not_open_yet_is_cancelled() -> None:
    driver = poll_driver()
    driver.ask(CreatePollCommand(terms(1000)), host)
    assert driver.ask(ClosePollCommand(), host).state is PollState.CANCELLED
    assert driver.ask(ClosePollCommand(), host).state is PollState.CANCELLED
    driver.pass_time(60_000)
    assert driver.events == []
    assert driver.refusal_of(VoteCommand((0,)), viewer("a")).code is ErrorCode.CANCELLED


def test_a_poll_with_few_votes_has_shares_without_an_invented_order() -> None:
    driver = opened()
    for user, option in (("a", 2), ("b", 1)):
        vote(driver, user, option)
    result = driver.ask(ClosePollCommand(), host)
    assert (result.counts, result.per_mille) == ((0, 1, 1), (0, 500, 500))


@pytest.mark.parametrize("open_ms", [0, 1000])
def test_the_end_of_the_room_ends_a_poll(open_ms: int) -> None:
    driver = poll_driver()
    driver.ask(CreatePollCommand(terms(open_ms)), host)
    ticket = driver.send(VoteCommand((0,)), viewer("a"))
    driver.end()
    assert driver.activity.state is (PollState.CANCELLED if open_ms else PollState.CLOSED)
    assert driver.answers[ticket].code is (ErrorCode.NOT_OPEN if open_ms else ErrorCode.ROOM_ENDED)
    assert [report.data.voters for report in driver.reports] == ([] if open_ms else [0])


def test_hidden_counts_are_those_of_staff_until_the_close() -> None:
    driver = opened(hidden=True)
    vote(driver, "a", 0)
    assert driver.activity.counter().data == PollCounts(1, ())
    assert driver.activity.view(is_staff=False).counts == ()
    assert driver.activity.view(is_staff=True).counts == (1, 0, 0)
    driver.ask(ClosePollCommand(), host)
    assert driver.activity.view(is_staff=False).counts == (1, 0, 0)
    assert driver.activity.counter() is None


# ---- quiz


def test_a_quiz_takes_late_answers_and_reveals_what_it_has_committed_to() -> None:
    driver = quiz()
    early = driver.refusal_of(RevealAnswerCommand(1, SALT), host)
    assert early.code is ErrorCode.OUT_OF_STATE
    driver.pass_time(10_000 + LATE_ANSWERS_MS - 1)
    ticket = driver.send(VoteCommand((1,)), viewer("late"))
    driver.pass_time(1)
    assert driver.answers[ticket] == PollVote((1,), 1)
    assert driver.refusal_of(VoteCommand((1,)), viewer("later")).code is ErrorCode.CLOSED
    for wrong in (RevealAnswerCommand(0, SALT), RevealAnswerCommand(1, SALT[::-1]), RevealAnswerCommand(9, SALT)):
        assert driver.refusal_of(wrong, host).code is ErrorCode.BAD_FIELD
    assert driver.activity.removable_at > driver.now_ms
    revealed = driver.ask(RevealAnswerCommand(1, SALT), host)
    assert revealed.answer == PollRevealed(1, SALT)
    assert driver.events[-1] == RoomEvent("polls.revealed", PollRevealed(1, SALT))
    assert driver.ask(RevealAnswerCommand(1, SALT), host) == revealed
    assert driver.activity.voters_for(1) == ["late"]
    assert driver.ask(ClosePollCommand(), host).state is PollState.REVEALED


def test_the_answer_is_nowhere_before_it_is_revealed() -> None:
    driver = quiz()
    vote(driver, "a", 1)
    driver.ask(ClosePollCommand(), host)
    shown = [driver.activity.view(is_staff=True), driver.activity.dump(), driver.events, driver.facts]
    assert SALT not in repr(shown)
    assert driver.activity.view(is_staff=True).answer is None


def test_a_poll_without_a_hash_has_nothing_to_reveal() -> None:
    driver = opened()
    driver.ask(ClosePollCommand(), host)
    assert driver.refusal_of(RevealAnswerCommand(1, SALT), host).code is ErrorCode.OUT_OF_STATE


def test_the_hash_of_an_answer_is_fixed() -> None:
    name = b"roomcast/quiz/1"
    hashed = b"\x00\x00\x00\x0f" + name + bytes(range(16)) + b"\x00\x00\x00\x01"
    assert answer_hash(SALT, 1) == sha256(hashed).hexdigest()
    assert answer_hash(SALT, 1) == "ebae21c824f57452c6edd98bfd3fbeb0f513a75bb6c3821673207999c82ee842"


def test_a_view_fits_its_share_of_a_snapshot() -> None:
    options = tuple("品" * 20 for _ in range(10))
    asked = terms(options=options, choices=1, answer_hash=answer_hash(SALT, 9))
    assert sum(len(each.encode()) for each in ("p", asked.title, *options)) <= MAX_TERMS_BYTES
    driver = poll_driver()
    driver.ask(CreatePollCommand(asked), platform)
    driver.ask(ClosePollCommand(), host)
    view = driver.ask(RevealAnswerCommand(9, SALT), host)
    assert len(pack_body(as_json(view))) <= 1024
    assert poll_view(as_json(view)) == view
