"""Handlers of the operations on polls and quizzes."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from broker.core.commerce import polls, quizzes
from broker.core.commerce.polls import Poll
from broker.core.commerce.quizzes import Quiz
from broker.operations.activities import begin, command, kept_key, page_of_kind, read_activity
from broker.operations.caller import Caller
from broker.operations.parts import Handler, Parts
from protocol.activities.polls import PollTerms, PollView
from protocol.activities.quizzes import QuizView
from protocol.operations import STAFF
from protocol.operations.polls import (
    CastVote,
    ClosePoll,
    CreatePoll,
    ListedPoll,
    ListPolls,
    PollPage,
    PollResults,
    RevealPoll,
)
from protocol.operations.quizzes import (
    AnswerQuestion,
    AskQuestion,
    CancelQuiz,
    CloseQuestion,
    CreateQuiz,
    FinishQuiz,
    QuizResults,
    QuizSurvivors,
    RevealQuestion,
    SurvivorPage,
)

__all__ = ["HANDLERS"]

_Key = tuple[str, str]


def _poll(id: str) -> _Key:
    return Poll.kind, id


def _quiz(id: str) -> _Key:
    return Quiz.kind, id


def _is_staff(caller: Caller, room: str) -> bool:
    return caller.is_backend or caller.role_in(room) in STAFF


async def _create(parts: Parts, caller: Caller, request: CreatePoll) -> PollView:
    created = polls.CreatePollCommand(PollTerms(*request[2:-1]), request.eligibility)
    view: PollView = await command(parts, caller, request.room, _poll(request.id), created, creates=True)
    return view


def _vote(parts: Parts, caller: Caller, request: CastVote) -> Any:
    vote = polls.VoteCommand(request.options, kept_key(caller))
    return begin(parts, caller, request.room, _poll(request.id), vote, takes_part=True)


async def _close(parts: Parts, caller: Caller, request: ClosePoll) -> PollView:
    view: PollView = await command(parts, caller, request.room, _poll(request.id), polls.ClosePollCommand())
    return view


async def _reveal(parts: Parts, caller: Caller, request: RevealPoll) -> PollView:
    revealed = polls.RevealAnswerCommand(request.option, request.salt)
    view: PollView = await command(parts, caller, request.room, _poll(request.id), revealed)
    return view


def _results(parts: Parts, caller: Caller, request: PollResults) -> Any:
    is_staff = _is_staff(caller, request.room)

    def results(poll: Poll[Any]) -> PollView:
        return poll.result(is_staff)

    return read_activity(parts, request.room, _poll(request.id), results)


async def _list(parts: Parts, caller: Caller, request: ListPolls) -> PollPage:
    is_staff = _is_staff(caller, request.room)

    def listed(poll: Poll[Any]) -> ListedPoll:
        return ListedPoll(poll.id, poll.result(is_staff))

    page, following = await page_of_kind(parts, request.room, Poll.kind, request.cursor, request.limit, listed)
    return PollPage(tuple(page), following)


async def _create_quiz(parts: Parts, caller: Caller, request: CreateQuiz) -> QuizView:
    created = quizzes.CreateQuizCommand(request.title, request.prize_cents, request.eligibility)
    view: QuizView = await command(parts, caller, request.room, _quiz(request.id), created, creates=True)
    return view


async def _ask(parts: Parts, caller: Caller, request: AskQuestion) -> PollView:
    room, id, number, title, options, close_at_ms, answer_hash, open_at_ms, changeable = request
    terms = PollTerms(
        title, options, open_at_ms, close_at_ms, changeable=changeable, hidden=True, answer_hash=answer_hash
    )
    view: PollView = await command(parts, caller, room, _quiz(id), quizzes.AskQuestionCommand(number, terms))
    return view


def _answer(parts: Parts, caller: Caller, request: AnswerQuestion) -> Any:
    answer = quizzes.AnswerQuestionCommand(request.number, request.option, kept_key(caller))
    return begin(parts, caller, request.room, _quiz(request.id), answer, takes_part=True)


async def _close_question(parts: Parts, caller: Caller, request: CloseQuestion) -> PollView:
    closed = quizzes.CloseQuestionCommand(request.number)
    view: PollView = await command(parts, caller, request.room, _quiz(request.id), closed)
    return view


async def _reveal_question(parts: Parts, caller: Caller, request: RevealQuestion) -> PollView:
    revealed = quizzes.RevealQuestionCommand(request.number, request.option, request.salt)
    view: PollView = await command(parts, caller, request.room, _quiz(request.id), revealed)
    return view


async def _finish(parts: Parts, caller: Caller, request: FinishQuiz) -> QuizView:
    view: QuizView = await command(parts, caller, request.room, _quiz(request.id), quizzes.FinishQuizCommand())
    return view


async def _cancel(parts: Parts, caller: Caller, request: CancelQuiz) -> QuizView:
    view: QuizView = await command(parts, caller, request.room, _quiz(request.id), quizzes.CancelQuizCommand())
    return view


def _quiz_results(parts: Parts, caller: Caller, request: QuizResults) -> Any:
    is_staff = _is_staff(caller, request.room)

    def results(quiz: Quiz[Any]) -> QuizView:
        return quiz.result(is_staff=is_staff)

    return read_activity(parts, request.room, _quiz(request.id), results)


def _survivors(parts: Parts, caller: Caller, request: QuizSurvivors) -> Any:
    def survivors(quiz: Quiz[Any]) -> SurvivorPage:
        users = sorted(quiz.survivors or ())
        start = bisect_right(users, request.cursor) if request.cursor is not None else 0
        page = users[start : start + request.limit]
        return SurvivorPage(tuple(page), page[-1] if start + len(page) < len(users) else None)

    return read_activity(parts, request.room, _quiz(request.id), survivors)


HANDLERS: dict[str, Handler] = {
    "polls.create": _create,
    "polls.vote": _vote,
    "polls.close": _close,
    "polls.reveal": _reveal,
    "polls.results": _results,
    "polls.list": _list,
    "quizzes.create": _create_quiz,
    "quizzes.ask": _ask,
    "quizzes.answer": _answer,
    "quizzes.close": _close_question,
    "quizzes.reveal": _reveal_question,
    "quizzes.finish": _finish,
    "quizzes.cancel": _cancel,
    "quizzes.results": _quiz_results,
    "quizzes.survivors": _survivors,
}
