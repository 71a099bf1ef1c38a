"""A poll: one vote a user, live counts, an exact result. With the hash of an answer it is a quiz.

Votes wait for at most `VOTE_WINDOW_MS`, are decided in their order of arrival and become facts of at most
`VOTES_OF_A_FACT` votes, one a batch, whose commit the answers follow. The right option of a quiz comes to the broker as
a hash, so it is unknown until it is revealed. A quiz takes answers until `LATE_ANSWERS_MS` after its deadline, as the
network delays them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
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
    refused,
)
from broker.core.commerce.eligibility import ROOM_PAUSED, eligibility_of_fact, ineligible
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
)
from protocol.codes import ErrorCode
from protocol.primitives import per_mille

__all__ = [
    "LATE_ANSWERS_MS",
    "MAX_TERMS_BYTES",
    "MAX_VOTES_OF_ONE",
    "MAX_WAITING_VOTES_OF_ONE",
    "VOTES_OF_A_FACT",
    "VOTE_WINDOW_MS",
    "ClosePollCommand",
    "CreatePollCommand",
    "Poll",
    "RevealAnswerCommand",
    "VoteCommand",
]

T = TypeVar("T")

VOTE_WINDOW_MS = 100
VOTES_OF_A_FACT = 256
LATE_ANSWERS_MS = 500
MAX_VOTERS = 1_000_000
MAX_VOTES_OF_ONE = 20
"""Votes of one user in one poll, changes included: all are kept, so that each request gets its first answer again."""
MAX_WAITING_VOTES = 100_000
MAX_WAITING_VOTES_OF_ONE = 8
MAX_TERMS_BYTES = 640
"""Id, title and options together."""
UNREVEALED_MS = 3_600_000
"""How long a closed quiz waits for its answer."""


class CreatePollCommand(NamedTuple):
    """Create a poll. ``terms.open_at_ms``: at once where it is past."""

    terms: PollTerms
    eligibility: Eligibility = Eligibility()


class VoteCommand(NamedTuple):
    """Vote for some options. ``request``: the caller's idempotency key, empty = none."""

    options: tuple[int, ...]
    request: str = ""


class ClosePollCommand(NamedTuple):
    """Take no more votes; a poll that is not open yet is cancelled."""


class RevealAnswerCommand(NamedTuple):
    """Make the right option of a closed quiz public."""

    option: int
    salt: str


class _Vote(NamedTuple):
    """One vote of a user. ``bits``: its options."""

    bits: int
    request: str


class _Waiting(NamedTuple):
    """A vote that waits for the end of its window. Any: the caller's ticket. ``is_paused``: it may only repeat one."""

    user: str
    vote: _Vote
    ticket: Any
    is_paused: bool


class Poll(Activity[T]):
    """Votes of one question."""

    kind: ClassVar[str] = "polls"

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self._created: CreatePollCommand | None = None
        self._open_at_ms = 0
        self._state = PollState.SCHEDULED
        self._ended_at_ms = 0
        self._answer: PollRevealed | None = None
        self._votes: dict[str, list[_Vote]] = {}
        """All votes by user; the last one is valid."""
        self._counts: list[int] = []
        self._waiting: deque[_Waiting] = deque()
        self._waiting_of: Counter[str] = Counter()
        self._decide_at_ms: int | None = None
        self._closers: list[T] = []
        """Tickets of who closes the poll, once the votes that wait are decided."""

    # ---- state

    @property
    def exists(self) -> bool:
        return self._created is not None

    @property
    def state(self) -> PollState:
        return self._state

    @property
    def terms(self) -> PollTerms:
        """What is asked; the poll exists."""
        return self._made.terms._replace(open_at_ms=self._open_at_ms)

    @property
    def is_quiz(self) -> bool:
        return self._made.terms.answer_hash is not None

    @property
    def _made(self) -> CreatePollCommand:
        if self._created is None:
            raise ValueError("the poll does not exist")
        return self._created

    @property
    def _deadline_ms(self) -> int | None:
        """When it closes by itself."""
        close_at_ms = self._made.terms.close_at_ms
        return close_at_ms + LATE_ANSWERS_MS if close_at_ms is not None and self.is_quiz else close_at_ms

    @property
    def voters(self) -> int:
        """Number of users with a vote."""
        return len(self._votes)

    @property
    def answer(self) -> PollRevealed | None:
        """The right option of a quiz; None before it is revealed."""
        return self._answer

    def voters_for(self, option: int) -> list[str]:
        """Return the users whose valid vote is this option alone."""
        bits = 1 << option
        return [user for user, votes in self._votes.items() if votes[-1].bits == bits]

    def vote_of(self, user: str) -> PollVote | None:
        """Return the valid vote of a user."""
        votes = self._votes.get(user)
        return _as_vote(votes[-1], len(votes)) if votes else None

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T] | None:
        if isinstance(command, VoteCommand):
            return self._vote(command, requester, ticket, now_ms)
        if isinstance(command, CreatePollCommand):
            return self._create(command, now_ms)
        if isinstance(command, ClosePollCommand):
            if self._state is PollState.OPEN:
                self._closers.append(ticket)
                return None
            if self._state is PollState.SCHEDULED:
                return ActivityStep((Fact("cancelled", (now_ms,)),), self._shown(PollState.CANCELLED))
            return ActivityStep(answer=self._shown(self._state))
        return self._reveal(command, now_ms)

    def _create(self, command: CreatePollCommand, now_ms: int) -> ActivityStep[T]:
        if self._created is not None:
            if command == self._created:
                return ActivityStep(answer=self._shown(self._state))
            return refused(ErrorCode.KEY_REUSED, "names a poll with other content", "id")
        terms, eligibility = command
        wrong = _wrong_terms(self.id, terms, eligibility, now_ms)
        if wrong is not None:
            return ActivityStep(answer=wrong)
        created = Fact("created", (terms, eligibility, now_ms))
        if terms.open_at_ms > now_ms:
            return ActivityStep((created,), PollView(PollState.SCHEDULED, terms, 0, (0,) * len(terms.options)))
        terms = terms._replace(open_at_ms=now_ms)
        return ActivityStep(
            (created, Fact("opened")),
            PollView(PollState.OPEN, terms, 0, (0,) * len(terms.options)),
            event=RoomEvent("polls.opened", terms),
        )

    def _reveal(self, command: RevealAnswerCommand, now_ms: int) -> ActivityStep[T]:
        if not self.is_quiz:
            return refused(ErrorCode.OUT_OF_STATE, "is no quiz", "id")
        if self._state not in (PollState.CLOSED, PollState.REVEALED):
            return refused(ErrorCode.OUT_OF_STATE, f"is {self._state.name.lower()}", "id")
        option, salt = command
        if option >= len(self._counts) or answer_hash(salt, option) != self._made.terms.answer_hash:
            return refused(ErrorCode.BAD_FIELD, "must be the option and salt of the hash", "option")
        answer = PollRevealed(option, salt)
        revealed = self._shown(PollState.REVEALED)._replace(answer=answer)
        if self._state is PollState.REVEALED:
            return ActivityStep(answer=revealed)
        return ActivityStep(
            (Fact("revealed", (option, salt, now_ms)),), revealed, event=RoomEvent("polls.revealed", answer)
        )

    # ---- votes

    def _vote(self, command: VoteCommand, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T] | None:
        user = requester.user
        bits = 0
        for option in command.options:
            bits |= 1 << option
        votes = self._votes.get(user, [])
        waiting = self._waiting_of[user]
        known = None if waiting else _answer_of_request(votes, command.request, bits)
        if known is not None:
            return ActivityStep(answer=known)
        if self._state is not PollState.OPEN or self._closers:
            return ActivityStep(answer=self._not_open(now_ms))
        vote = _Vote(bits, command.request)
        answer: Any = self._wrong_options(command.options)
        if answer is None and not waiting:
            answer = self._judge(votes, vote)
        if answer is None and not (waiting and requester.is_paused):
            answer = ineligible(self._made.eligibility, requester)
        if answer is not None:
            return ActivityStep(answer=answer)
        if not waiting:
            if not votes and len(self._votes) >= MAX_VOTERS:
                return refused(ErrorCode.OUT_OF_STATE, f"has votes of {MAX_VOTERS} users", "id")
        if waiting >= MAX_WAITING_VOTES_OF_ONE or len(self._waiting) >= MAX_WAITING_VOTES:
            return refused(ErrorCode.OVERLOADED, "too many votes wait", "", VOTE_WINDOW_MS)
        self._waiting.append(_Waiting(user, vote, ticket, requester.is_paused))
        self._waiting_of[user] += 1
        if self._decide_at_ms is None:
            self._decide_at_ms = now_ms + VOTE_WINDOW_MS
        return None

    def _not_open(self, now_ms: int) -> ActivityRefusal:
        if self._state is PollState.SCHEDULED:
            return ActivityRefusal(ErrorCode.NOT_OPEN, "is not open yet", "id", max(1, self._open_at_ms - now_ms))
        if self._state is PollState.CANCELLED:
            return ActivityRefusal(ErrorCode.CANCELLED, "was cancelled", "id")
        return ActivityRefusal(ErrorCode.CLOSED, "takes no more votes", "id")

    def _wrong_options(self, options: Sequence[int]) -> ActivityRefusal | None:
        choices = self._made.terms.choices
        if not 1 <= len(options) <= choices:
            return ActivityRefusal(ErrorCode.BAD_FIELD, f"must be 1 to {choices} options", "options")
        if len(set(options)) < len(options):
            return ActivityRefusal(ErrorCode.BAD_FIELD, "must name each option once", "options")
        if max(options) >= len(self._counts):
            return ActivityRefusal(ErrorCode.BAD_FIELD, f"must be options from 0 to {len(self._counts) - 1}", "options")
        return None

    def _judge(self, votes: Sequence[_Vote], vote: _Vote) -> PollVote | ActivityRefusal | None:
        """Return the answer to a vote behind the earlier ones of its user that changes nothing; None: it counts."""
        known = _answer_of_request(votes, vote.request, vote.bits)
        if known is not None or not votes:
            return known
        if votes[-1].bits == vote.bits:
            return _as_vote(votes[-1], len(votes))
        if not self._made.terms.changeable:
            return ActivityRefusal(ErrorCode.ALREADY_HAVE, "votes of this poll cannot be changed", "options")
        if len(votes) >= MAX_VOTES_OF_ONE:
            return ActivityRefusal(ErrorCode.ALREADY_HAVE, f"has voted {MAX_VOTES_OF_ONE} times", "options")
        return None

    def _decide_waiting(self) -> ActivityStep[T]:
        """Return the first votes that wait as one fact, with their answers."""
        changed: dict[str, list[_Vote]] = {}
        counted: list[tuple[str, int, str]] = []
        answers: list[tuple[T, Any]] = []
        while self._waiting and len(answers) < VOTES_OF_A_FACT:
            user, vote, ticket, is_paused = self._waiting.popleft()
            self._waiting_of[user] -= 1
            if not self._waiting_of[user]:
                del self._waiting_of[user]
            votes = changed.setdefault(user, list(self._votes.get(user, ())))
            answer = self._judge(votes, vote)
            if answer is None and is_paused:
                answer = ROOM_PAUSED
            elif answer is None:
                votes.append(vote)
                counted.append((user, *vote))
                answer = _as_vote(vote, len(votes))
            answers.append((ticket, answer))
        if not self._waiting:
            self._decide_at_ms = None
        facts = (Fact("voted", (tuple(counted),)),) if counted else ()
        return ActivityStep(facts, answers=tuple(answers), weight=len(answers))

    # ---- time

    def next_due(self) -> int | None:
        if self._created is None:
            return None
        if self._state is PollState.SCHEDULED:
            return self._open_at_ms
        if self._state is not PollState.OPEN:
            return None
        if self._closers:
            return 0
        due = [at_ms for at_ms in (self._decide_at_ms, self._deadline_ms) if at_ms is not None]
        return min(due, default=None)

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        due = self.next_due()
        if due is None or now_ms < due:
            return None
        if self._state is PollState.SCHEDULED:
            return ActivityStep((Fact("opened"),), event=RoomEvent("polls.opened", self.terms))
        return self._decide_waiting() if self._waiting else self._close(now_ms)

    def _close(self, now_ms: int) -> ActivityStep[T]:
        """Return the close; no vote waits."""
        view = self._shown(PollState.CLOSED)
        closed = PollClosed(view.voters, view.counts, view.per_mille)
        answers = tuple((ticket, view) for ticket in self._closers)
        self._closers.clear()
        return ActivityStep(
            (Fact("closed", (now_ms,)),),
            answers=answers,
            event=RoomEvent("polls.closed", closed),
            reports=(ActivityReport("poll.closed", PollClosedData(self.id, *closed)),),
        )

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        return self.stopped(now_ms, ActivityRefusal(ErrorCode.ROOM_ENDED, "has ended", "room"))

    def stopped(self, now_ms: int, refusal: ActivityRefusal) -> ActivityStep[T] | None:
        """Return the close without an event; votes that wait get the refusal. None: it is not open or scheduled."""
        if self._state is PollState.SCHEDULED:
            return ActivityStep((Fact("cancelled", (now_ms,)),))
        if self._state is not PollState.OPEN:
            return None
        refused = tuple((each.ticket, refusal) for each in self._waiting)
        self._waiting.clear()
        self._waiting_of.clear()
        self._decide_at_ms = None
        step = self._close(now_ms)
        return step._replace(event=None, answers=(*refused, *step.answers))

    @property
    def removable_at(self) -> int | None:
        if self._state in (PollState.SCHEDULED, PollState.OPEN):
            return None
        waits = self.is_quiz and self._state is PollState.CLOSED
        return self._ended_at_ms + (UNREVEALED_MS if waits else 0)

    # ---- facts

    def apply(self, fact: Fact) -> None:
        name, data = fact
        if name == "voted":
            for user, *vote in data[0]:
                votes = self._votes.setdefault(user, [])
                before = votes[-1].bits if votes else 0
                votes.append(_Vote(*vote))
                _move(self._counts, before, votes[-1].bits)
        elif name == "created":
            terms = PollTerms(*data[0])
            self._created = CreatePollCommand(terms, eligibility_of_fact(data[1]))
            self._open_at_ms = max(terms.open_at_ms, data[2])
            self._counts = [0] * len(terms.options)
        elif name == "opened":
            self._state = PollState.OPEN
        elif name == "revealed":
            self._state, self._answer = PollState.REVEALED, PollRevealed(*data[:2])
        else:
            self._state = PollState.CLOSED if name == "closed" else PollState.CANCELLED
            self._ended_at_ms = data[0]

    def undo(self, fact: Fact) -> None:
        name, data = fact
        if name == "voted":
            for user, bits, _ in reversed(data[0]):
                votes = self._votes[user]
                votes.pop()
                _move(self._counts, bits, votes[-1].bits if votes else 0)
                if not votes:
                    del self._votes[user]
        elif name == "created":
            self._created, self._open_at_ms, self._counts = None, 0, []
        elif name == "opened":
            self._state = PollState.SCHEDULED
        elif name == "revealed":
            self._state, self._answer = PollState.CLOSED, None
        else:
            self._state = PollState.OPEN if name == "closed" else PollState.SCHEDULED
            self._ended_at_ms = 0

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        if fact.name != "voted":
            return fact
        votes = tuple(
            (erased.pseudonym, vote[1], "") if vote[0] == erased.user else tuple(vote) for vote in fact.data[0]
        )
        return Fact(fact.name, (votes,))

    def erase(self, erased: ErasedUser) -> None:
        """Give the votes of a user to its pseudonym; the keys of its requests go."""
        votes = self._votes.pop(erased.user, None)
        if votes is not None:
            self._votes[erased.pseudonym] = [vote._replace(request="") for vote in votes]
        if self._waiting_of.pop(erased.user, 0):
            for place, each in enumerate(self._waiting):
                if each.user == erased.user:
                    vote = each.vote._replace(request="")
                    self._waiting[place] = each._replace(user=erased.pseudonym, vote=vote)
                    self._waiting_of[erased.pseudonym] += 1

    def dump(self) -> tuple[Any, ...]:
        votes = tuple(sorted((user, tuple(votes)) for user, votes in self._votes.items()))
        return (
            self._created, self._open_at_ms, self._state, self._ended_at_ms, self._answer, votes, tuple(self._counts),
        )  # fmt: skip

    # ---- what members see

    def view(self, is_staff: bool) -> PollView | None:
        """Return the poll; one that is not open yet is not shown."""
        if self._state in (PollState.SCHEDULED, PollState.CANCELLED):
            return None
        return self.result(is_staff)

    def result(self, is_staff: bool) -> PollView:
        """Return the poll as it is, also before it is open; staff sees counts that are hidden."""
        view = self._shown(self._state)
        is_secret = self._made.terms.hidden and self._state is PollState.OPEN and not is_staff
        return view._replace(counts=()) if is_secret else view

    def own_view(self, user: str) -> PollVote | None:
        return self.vote_of(user)

    def counter(self) -> RoomEvent | None:
        if self._state is not PollState.OPEN:
            return None
        counts = () if self._made.terms.hidden else tuple(self._counts)
        return RoomEvent("polls.counted", PollCounts(len(self._votes), counts))

    def _shown(self, state: PollState) -> PollView:
        """Return the poll with its counts, in a state."""
        is_over = state in (PollState.CLOSED, PollState.REVEALED)
        shares = tuple(per_mille(self._counts)) if is_over else ()
        return PollView(state, self.terms, len(self._votes), tuple(self._counts), shares, self._answer)


def _wrong_terms(id: str, terms: PollTerms, eligibility: Eligibility, now_ms: int) -> ActivityRefusal | None:
    if len(terms.options) < 2:
        return ActivityRefusal(ErrorCode.BAD_FIELD, "must be 2 options or more", "options")
    if terms.choices > len(terms.options):
        return ActivityRefusal(ErrorCode.BAD_FIELD, "must not be above the number of options", "choices")
    if terms.close_at_ms is not None and terms.close_at_ms <= max(terms.open_at_ms, now_ms):
        return ActivityRefusal(ErrorCode.BAD_FIELD, "must be after open_at_ms and in the future", "close_at_ms")
    if terms.answer_hash is not None and terms.close_at_ms is None:
        return ActivityRefusal(ErrorCode.BAD_FIELD, "is required of a quiz", "close_at_ms")
    if terms.answer_hash is not None and terms.choices > 1:
        return ActivityRefusal(ErrorCode.BAD_FIELD, "must be 1 in a quiz", "choices")
    if sum(len(each.encode()) for each in (id, terms.title, *terms.options)) > MAX_TERMS_BYTES:
        rule = f"must be at most {MAX_TERMS_BYTES} bytes with the title and the id"
        return ActivityRefusal(ErrorCode.BAD_FIELD, rule, "options")
    if eligibility.keyword:
        return ActivityRefusal(ErrorCode.BAD_FIELD, "must be empty: votes have no text", "eligibility.keyword")
    return None


def _answer_of_request(votes: Sequence[_Vote], request: str, bits: int) -> PollVote | ActivityRefusal | None:
    """Return the first answer to a request; None: it is new."""
    if not request:
        return None
    for vote_no, vote in enumerate(votes, 1):
        if vote.request == request:
            if vote.bits == bits:
                return _as_vote(vote, vote_no)
            return ActivityRefusal(ErrorCode.KEY_REUSED, "was used before with other content", "key")
    return None


def _as_vote(vote: _Vote, vote_no: int) -> PollVote:
    return PollVote(tuple(option for option in range(vote.bits.bit_length()) if vote.bits >> option & 1), vote_no)


def _move(counts: list[int], before: int, after: int) -> None:
    """Count a vote in place of an earlier one; 0 = none."""
    for option in range(len(counts)):
        counts[option] += (after >> option & 1) - (before >> option & 1)
