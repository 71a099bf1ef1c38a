"""A quiz in which the last one standing wins: questions one after another, answered by survivors alone.

Each question is a `Poll` with a committed answer, whose counts are hidden. Who answered every question so far rightly
and in time survives; who joins later watches. At the end the prize is divided among the survivors in whole cents, and
what remains is returned. Winners are paid by facts of their own, `PAID_AT_ONCE` in one step, each with a message to the
winner in its transaction.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, ClassVar, NamedTuple, TypeVar

from broker.core.commerce.activity import (
    Activity,
    ActivityRefusal,
    ActivityReport,
    ActivityStep,
    ErasedUser,
    Fact,
    Requester,
    RoomEvent,
    UserMessage,
    refused,
)
from broker.core.commerce.eligibility import eligibility_of_fact
from broker.core.commerce.polls import ClosePollCommand, CreatePollCommand, Poll, RevealAnswerCommand, VoteCommand
from protocol.activities.eligibility import Eligibility
from protocol.activities.polls import PollState, PollTerms, PollVote
from protocol.activities.quizzes import (
    MAX_PAID,
    MAX_QUESTIONS,
    QuizAsked,
    QuizCancelled,
    QuizClosed,
    QuizCounts,
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
from protocol.codes import ErrorCode

__all__ = [
    "PAID_AT_ONCE",
    "AnswerQuestionCommand",
    "AskQuestionCommand",
    "CancelQuizCommand",
    "CloseQuestionCommand",
    "CreateQuizCommand",
    "FinishQuizCommand",
    "Quiz",
    "RevealQuestionCommand",
]

T = TypeVar("T")

PAID_AT_ONCE = MAX_PAID


class CreateQuizCommand(NamedTuple):
    """Create a quiz. ``eligibility``: of who may answer."""

    title: str
    prize_cents: int
    eligibility: Eligibility = Eligibility()


class AskQuestionCommand(NamedTuple):
    """Ask a question. ``number``: 1 for the first; ``terms``: with an answer's hash and a deadline."""

    number: int
    terms: PollTerms


class AnswerQuestionCommand(NamedTuple):
    """Answer a question. ``request``: the caller's idempotency key, empty = none."""

    number: int
    option: int
    request: str = ""


class CloseQuestionCommand(NamedTuple):
    """Take no more answers to a question; one that is not open yet is cancelled."""

    number: int


class RevealQuestionCommand(NamedTuple):
    """Make the right option of a closed question public."""

    number: int
    option: int
    salt: str


class FinishQuizCommand(NamedTuple):
    """End the quiz and divide its prize."""


class CancelQuizCommand(NamedTuple):
    """End the quiz without a prize."""


class Quiz(Activity[T]):
    """Questions of one quiz, and who survives."""

    kind: ClassVar[str] = "quizzes"

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self._created: CreateQuizCommand | None = None
        self._state = QuizState.RUNNING
        self._questions: list[Poll[T]] = []
        self._survivors: frozenset[str] | None = None
        """Who answered every revealed question rightly; None before the first."""
        self._end: QuizEnd | None = None
        self._ended_at_ms = 0
        self._winners: tuple[str, ...] = ()
        """Survivors of a finished quiz that has something to pay."""
        self._paid: set[str] = set()
        """Winners that are paid: by who they are, as the erasure of a user changes the order of the ids."""
        self._first_unpaid = 0
        """No winner before this place is to be paid."""

    # ---- state

    @property
    def exists(self) -> bool:
        return self._created is not None

    @property
    def state(self) -> QuizState:
        return self._state

    @property
    def survivors(self) -> frozenset[str] | None:
        """Users who have answered every revealed question rightly; None before the first."""
        return self._survivors

    @property
    def paid(self) -> tuple[str, ...]:
        """Users who are paid, in order of their ids."""
        return tuple(sorted(self._paid))

    @property
    def _made(self) -> CreateQuizCommand:
        if self._created is None:
            raise ValueError("the quiz does not exist")
        return self._created

    @property
    def _question(self) -> Poll[T] | None:
        """The newest question that exists."""
        return self._questions[-1] if self._questions else None

    def _is_between_questions(self) -> bool:
        """Whether no question waits for answers or for its own."""
        question = self._question
        return question is None or question.state in (PollState.REVEALED, PollState.CANCELLED)

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T] | None:
        if isinstance(command, CreateQuizCommand):
            return self._create(command, requester, now_ms)
        if isinstance(command, FinishQuizCommand):
            return self._finish(requester, now_ms)
        if isinstance(command, CancelQuizCommand):
            return self._cancel(now_ms)
        if isinstance(command, AskQuestionCommand):
            return self._ask(command, requester, ticket, now_ms)
        return self._to_question(command, requester, ticket, now_ms)

    def _create(self, command: CreateQuizCommand, requester: Requester, now_ms: int) -> ActivityStep[T]:
        if command.prize_cents and not requester.is_platform:
            return refused(ErrorCode.NOT_ALLOWED, "only the platform gives money", "prize_cents")
        if self._created is not None:
            if command == self._created:
                return ActivityStep(answer=self.result())
            return refused(ErrorCode.KEY_REUSED, "names a quiz with other content", "id")
        title, prize_cents, eligibility = command
        if eligibility.keyword:
            return refused(ErrorCode.BAD_FIELD, "must be empty: answers have no text", "eligibility.keyword")
        return ActivityStep(
            (Fact("created", (title, prize_cents, eligibility, now_ms)),),
            QuizView(QuizState.RUNNING, title, prize_cents, 0, None, None),
            event=RoomEvent("quizzes.opened", QuizOpened(title, prize_cents)),
        )

    def _ask(self, command: AskQuestionCommand, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T] | None:
        number, terms = command
        terms = terms._replace(hidden=True, choices=1)
        created = CreatePollCommand(terms, self._made.eligibility)
        if number <= len(self._questions):
            return self._questions[number - 1].decide(created, requester, ticket, now_ms)
        if self._state is not QuizState.RUNNING:
            return refused(ErrorCode.CLOSED, f"is {self._state.name.lower()}", "id")
        if number != len(self._questions) + 1 or number > MAX_QUESTIONS:
            return refused(
                ErrorCode.BAD_FIELD, f"must be {len(self._questions) + 1}, at most {MAX_QUESTIONS}", "number"
            )
        if not self._is_between_questions():
            return refused(ErrorCode.OUT_OF_STATE, "has a question whose answer is not revealed", "id")
        if terms.answer_hash is None:
            return refused(ErrorCode.BAD_FIELD, "is required of a quiz", "answer_hash")
        if self._survivors is not None and not self._survivors:
            return refused(ErrorCode.OUT_OF_STATE, "has no survivors", "id")
        return self._step_of(number, self._new_question(number).decide(created, requester, ticket, now_ms))

    def _new_question(self, number: int) -> Poll[T]:
        return Poll(f"{self.id}/{number}")

    def _to_question(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T] | None:
        number = command.number
        if not 1 <= number <= len(self._questions):
            return refused(ErrorCode.UNKNOWN_ACTIVITY, "names no question of the quiz", "number")
        question = self._questions[number - 1]
        step: ActivityStep[T] | None
        if isinstance(command, CloseQuestionCommand):
            step = question.decide(ClosePollCommand(), requester, ticket, now_ms)
        elif isinstance(command, RevealQuestionCommand):
            step = question.decide(RevealAnswerCommand(command.option, command.salt), requester, ticket, now_ms)
        elif self._is_out(question, requester.user):
            return refused(ErrorCode.NOT_ELIGIBLE, "must have answered every question rightly", "survivor")
        else:
            step = question.decide(VoteCommand((command.option,), command.request), requester, ticket, now_ms)
        return self._step_of(number, step)

    def _is_out(self, question: Poll[T], user: str) -> bool:
        """Whether a user may not answer an open question."""
        is_asked = question.state in (PollState.SCHEDULED, PollState.OPEN)
        return is_asked and self._survivors is not None and user not in self._survivors

    def _finish(self, requester: Requester, now_ms: int) -> ActivityStep[T]:
        if self._made.prize_cents and not requester.is_platform:
            return refused(ErrorCode.NOT_ALLOWED, "only the platform pays a prize", "id")
        if self._state is QuizState.FINISHED:
            return ActivityStep(answer=self.result())
        if self._state is QuizState.CANCELLED:
            return refused(ErrorCode.CANCELLED, "was cancelled", "id")
        if not self._is_between_questions():
            return refused(ErrorCode.OUT_OF_STATE, "has a question whose answer is not revealed", "id")
        end = self._shares()
        return ActivityStep(
            (Fact("finished", (now_ms,)),),
            self.result()._replace(state=QuizState.FINISHED, end=end),
            event=RoomEvent("quizzes.finished", end),
            reports=(self._report(QuizState.FINISHED, end),),
        )

    def _cancel(self, now_ms: int) -> ActivityStep[T]:
        if self._state is QuizState.CANCELLED:
            return ActivityStep(answer=self.result())
        if self._state is QuizState.FINISHED:
            return refused(ErrorCode.CLOSED, "is finished", "id")
        refusal = ActivityRefusal(ErrorCode.CANCELLED, "was cancelled", "id")
        step = self._cancelled(now_ms, refusal)
        return step._replace(answer=self.result()._replace(state=QuizState.CANCELLED))

    def _cancelled(self, now_ms: int, refusal: ActivityRefusal) -> ActivityStep[T]:
        """Return the end of the quiz and of its question; answers that wait get the refusal."""
        question = self._question
        ended = None if question is None else self._step_of(len(self._questions), question.stopped(now_ms, refusal))
        prize_cents = self._made.prize_cents
        end = QuizEnd(len(self._survivors or ()), 0, prize_cents)
        step = ActivityStep[T]() if ended is None else ended
        return step._replace(
            facts=(*step.facts, Fact("cancelled", (now_ms,))),
            event=RoomEvent("quizzes.cancelled", QuizCancelled(prize_cents)),
            reports=(self._report(QuizState.CANCELLED, end),),
        )

    def _shares(self) -> QuizEnd:
        """Return how the prize is divided among the survivors of now."""
        count = len(self._survivors or ())
        prize_cents = self._made.prize_cents
        each = prize_cents // count if count else 0
        return QuizEnd(count, each, prize_cents - each * count)

    def _report(self, state: QuizState, end: QuizEnd) -> ActivityReport:
        survivors, each, returned = end
        return ActivityReport(
            "quiz.finished", QuizFinishedData(self.id, state, survivors, each, each * survivors, returned)
        )

    def _step_of(self, number: int, step: ActivityStep[T] | None) -> ActivityStep[T] | None:
        """Return a step of a question as one of the quiz."""
        if step is None:
            return None
        facts = tuple(Fact("question", (number, *fact)) for fact in step.facts)
        event = None if step.event is None else self._event_of(number, step.event)
        return step._replace(facts=facts, event=event, reports=())

    def _event_of(self, number: int, event: RoomEvent) -> RoomEvent:
        if event.name == "polls.opened":
            return RoomEvent("quizzes.asked", QuizAsked(number, event.data))
        if event.name == "polls.closed":
            return RoomEvent("quizzes.closed", QuizClosed(number, event.data))
        question = self._questions[number - 1]
        option, salt = event.data
        right = len(question.voters_for(option))
        before = question.voters if self._survivors is None else len(self._survivors)
        return RoomEvent("quizzes.revealed", QuizRevealed(number, option, salt, right, before - right))

    # ---- time

    def next_due(self) -> int | None:
        if len(self._paid) < len(self._winners):
            return self._ended_at_ms
        question = self._question
        return question.next_due() if question is not None and self._state is QuizState.RUNNING else None

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        if self._state is QuizState.RUNNING:
            question = self._question
            return None if question is None else self._step_of(len(self._questions), question.due(now_ms))
        users = self._next_unpaid()
        if not users or self._end is None:
            return None
        cents = self._end.each_cents
        return ActivityStep(
            tuple(Fact("paid", (user,)) for user in users),
            messages=tuple(UserMessage(user, "quizzes.won", QuizWon(cents)) for user in users),
            reports=(ActivityReport("quiz.paid", QuizPaidData(self.id, cents, users)),),
        )

    def _next_unpaid(self) -> tuple[str, ...]:
        """Return the next winners to be paid."""
        while self._first_unpaid < len(self._winners) and self._winners[self._first_unpaid] in self._paid:
            self._first_unpaid += 1
        left = (user for user in islice(self._winners, self._first_unpaid, None) if user not in self._paid)
        return tuple(islice(left, PAID_AT_ONCE))

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        if self._state is not QuizState.RUNNING:
            return None
        gone = ActivityRefusal(ErrorCode.ROOM_ENDED, "has ended", "room")
        return self._cancelled(now_ms, gone)._replace(event=None)

    @property
    def removable_at(self) -> int | None:
        return None if self._state is QuizState.RUNNING or len(self._paid) < len(self._winners) else self._ended_at_ms

    # ---- facts

    def apply(self, fact: Fact) -> None:
        name, data = fact
        if name == "question":
            self._apply_to_question(*data)
        elif name == "paid":
            self._paid.add(data[0])
        elif name == "created":
            self._created = CreateQuizCommand(data[0], data[1], eligibility_of_fact(data[2]))
        else:
            self._ended_at_ms = data[0]
            self._state = QuizState.CANCELLED
            if name == "finished":
                self._state, self._end = QuizState.FINISHED, self._shares()
                self._winners = tuple(sorted(self._survivors or ())) if self._end.each_cents else ()

    def _apply_to_question(self, number: int, name: str, data: tuple[Any, ...]) -> None:
        if number > len(self._questions):
            self._questions.append(self._new_question(number))
        question = self._questions[number - 1]
        question.apply(Fact(name, data))
        if name == "revealed":
            self._survivors = self._survivors_of(number)

    def _survivors_of(self, number: int) -> frozenset[str] | None:
        """Return who survives the first questions: as only survivors answer, the last revealed one says it."""
        for question in reversed(self._questions[:number]):
            if question.answer is not None:
                return frozenset(question.voters_for(question.answer.option))
        return None

    def undo(self, fact: Fact) -> None:
        name, data = fact
        if name == "question":
            number, of_question, inner = data
            question = self._questions[number - 1]
            question.undo(Fact(of_question, inner))
            if of_question == "created":
                self._questions.pop()
            elif of_question == "revealed":
                self._survivors = self._survivors_of(number)
        elif name == "paid":
            self._paid.remove(data[0])
            self._first_unpaid = 0
        elif name == "created":
            self._created = None
        else:
            self._state, self._end, self._ended_at_ms, self._winners = QuizState.RUNNING, None, 0, ()

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        name, data = fact
        if name == "question":
            number, *of_question = data
            return Fact(name, (number, *self._new_question(number).without(Fact(*of_question), erased)))
        return Fact(name, (erased.renamed(data[0]),)) if name == "paid" else fact

    def erase(self, erased: ErasedUser) -> None:
        """Give the answers and the prize of a user to its pseudonym."""
        for question in self._questions:
            question.erase(erased)
        if self._survivors is not None and erased.user in self._survivors:
            self._survivors = self._survivors - {erased.user} | {erased.pseudonym}
        if erased.user in self._winners:
            self._winners = tuple(map(erased.renamed, self._winners))
        if erased.user in self._paid:
            self._paid.remove(erased.user)
            self._paid.add(erased.pseudonym)

    def dump(self) -> tuple[Any, ...]:
        survivors = None if self._survivors is None else tuple(sorted(self._survivors))
        questions = tuple(question.dump() for question in self._questions)
        return (
            self._created, self._state, questions, survivors, self._end, self._ended_at_ms,
            tuple(sorted(self._winners)), self.paid,
        )  # fmt: skip

    # ---- what members see

    def view(self, is_staff: bool) -> QuizView | None:
        return self.result(is_staff=is_staff)

    def result(self, *, is_staff: bool = False) -> QuizView:
        """Return the quiz as it is. A question that is not open yet is seen by staff alone."""
        title, prize_cents, _ = self._made
        questions = self._questions
        number = len(questions)
        if number and not is_staff and questions[-1].state is PollState.SCHEDULED:
            number -= 1
        question = questions[number - 1].result(is_staff) if number else None
        survivors = None if self._survivors is None else len(self._survivors)
        return QuizView(self._state, title, prize_cents, number, question, survivors, self._end)

    def own_view(self, user: str) -> QuizOwnView | None:
        question = self._question
        plays = self._survivors is None or user in self._survivors
        vote: PollVote | None = None if question is None else question.vote_of(user)
        if vote is None and not (plays and self._survivors is not None):
            return None
        return QuizOwnView(len(self._questions), None if vote is None else vote.options[0], plays)

    def counter(self) -> RoomEvent | None:
        question = self._question
        if question is None or question.state is not PollState.OPEN:
            return None
        return RoomEvent("quizzes.counted", QuizCounts(len(self._questions), question.voters))
