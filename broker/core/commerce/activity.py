"""Activities of a room as pure state machines, and how their facts become durable.

An *activity* is a sale, a red packet, a poll, the product list ... It takes commands and the time, and says what has
happened as *facts*. Its state changes by facts alone (`Activity.apply`), so the fold of the facts in the ledger is the
state. `ActivityRunner` drives one activity: it applies the facts of a batch at once, submits them as one transaction,
and only then lets the answers out. Where the ledger refuses the batch, its facts are undone in reverse order
(`Activity.undo`) and every caller of the batch hears that it may ask again.

One batch of an activity is under way at a time; commands that arrive meanwhile wait, and are decided together when the
ledger has answered. So no answer ever rests on something that is not durable, no class needs reservations of its own,
and the commands of a busy activity share their commits. Nobody sees the facts of a batch under way: who looks at the
activity meanwhile (`ActivityRunner.activity`) finds it as it is in the ledger.

``T`` is the caller's reply address of one command. All times are Unix milliseconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from protocol.codes import ErrorCode, Lane, Role

__all__ = [
    "BROKER",
    "MAX_BATCH_ANSWERS",
    "MAX_BATCH_FACTS",
    "MAX_WAITING",
    "MAX_WAITING_OF_ONE",
    "Activity",
    "ActivityRefusal",
    "ActivityReport",
    "ActivityRunner",
    "ActivityStep",
    "Attributes",
    "Batch",
    "Fact",
    "ReleasedPost",
    "Requester",
    "RoomEvent",
    "ShowPost",
    "TellAuthor",
    "UserLeft",
    "UserMessage",
    "refused",
]

T = TypeVar("T")

MAX_BATCH_FACTS = 256
"""Facts of one batch; one step may add more of its own."""
MAX_BATCH_ANSWERS = 512
"""Answers of one batch, and of one turn of a room's task: writing them takes about 5 ms; one step may add more."""
MAX_WAITING = 10_000
"""Commands that wait while a batch is under way."""
MAX_WAITING_OF_ONE = 8
"""Of one user."""
LATER_MS = 1000
"""When to ask again where the ledger could not take a batch, or too many commands wait."""
FIRST_RETRY_MS = 100
MAX_RETRY_MS = 5000
"""When what is due is tried again after the ledger refused it: doubled each time up to this."""


class Attributes(NamedTuple):
    """What the conditions of activities ask of a user, see `eligibility`.

    ``tags``: of the user in the room; ``follows``: whether it follows the host; ``watch_s``: seconds in the room;
    ``gift_cents``: of its gifts in the room; ``account_age_s``: of its account, None = the token does not say.
    """

    tags: frozenset[str] = frozenset()
    follows: bool = False
    watch_s: int = 0
    gift_cents: int = 0
    account_age_s: int | None = None


class Requester(NamedTuple):
    """Who sends a command.

    ``user``: id without its tenant, as all users of a room are of its tenant; ``is_platform``: a backend, or the role
    APP; ``is_paused``: it wants to take part in a room that is paused, where it gets what it has and nothing new.
    """

    user: str
    name: str
    role: Role
    is_platform: bool = False
    attributes: Attributes = Attributes()
    is_paused: bool = False


BROKER = Requester("", "", Role.APP, is_platform=True)
"""The broker itself, for commands that no caller has given."""


class Fact(NamedTuple):
    """Something that has happened to an activity. ``data``: plain values that the ledger packs (Any: of any fact)."""

    name: str
    data: tuple[Any, ...] = ()


class RoomEvent(NamedTuple):
    """What every member sees: an event of lane 1, or counters of lane 4.

    ``data``: its record (Any: the table of activity events has it).
    """

    name: str
    data: Any


class ReleasedPost(NamedTuple):
    """A message of a user that was held back and is shown now, as its author has posted it."""

    user: str
    name: str
    role: Role
    type: int
    lane: Lane
    payload: Any


class ShowPost(NamedTuple):
    """Show a message of lane 3 with the next tick."""

    post: ReleasedPost


class TellAuthor(NamedTuple):
    """Tell the author of a message that was held what became of it. ``address``: that came with it (Any: the
    caller's)."""

    address: Any
    is_shown: bool
    reason: str


class UserMessage(NamedTuple):
    """A must-deliver message to one user, in the transaction of its fact."""

    user: str
    name: str
    data: Any


class ActivityReport(NamedTuple):
    """What the platform gets by webhook, in the transaction of its fact."""

    name: str
    data: Any


class ActivityRefusal(NamedTuple):
    """A command that changed nothing. ``rule`` and ``field`` say what is wrong; ``retry_after_ms`` above 0: not now."""

    code: ErrorCode
    rule: str
    field: str = ""
    retry_after_ms: int = 0


class UserLeft(NamedTuple):
    """Command of the broker itself to an activity that `Activity.follows` a user: its last connection has left."""


class ActivityStep(NamedTuple, Generic[T]):
    """What a command, or the time, brings about: all of it or nothing.

    ``facts`` are applied in order; empty: nothing changes. ``answer``: of the command, a result record or an
    `ActivityRefusal`; ``answers``: of commands that have waited. ``event``: at most one, so that a batch has one
    offset; ``post``: in its place, a message of lanes 0 to 2 that is shown now. ``then``: effects for the room once the
    facts are durable (Any: of each kind); ``weight``: as how many facts the batch counts them where one holds many
    things; 0 = as they are.
    """

    facts: tuple[Fact, ...] = ()
    answer: Any = None
    answers: tuple[tuple[T, Any], ...] = ()
    event: RoomEvent | None = None
    messages: tuple[UserMessage, ...] = ()
    reports: tuple[ActivityReport, ...] = ()
    post: ReleasedPost | None = None
    then: tuple[Any, ...] = ()
    weight: int = 0


def refused(code: ErrorCode, rule: str, field: str = "", retry_after_ms: int = 0) -> ActivityStep[Any]:
    """Return the step of a refused command; parameters as of `ActivityRefusal`. Any: it has no tickets."""
    return ActivityStep(answer=ActivityRefusal(code, rule, field, retry_after_ms))


class Batch(NamedTuple, Generic[T]):
    """What goes into one transaction, and the answers and effects that follow its commit."""

    facts: tuple[Fact, ...]
    answers: tuple[tuple[T, Any], ...]
    event: RoomEvent | None
    messages: tuple[UserMessage, ...]
    reports: tuple[ActivityReport, ...]
    post: ReleasedPost | None = None
    then: tuple[Any, ...] = ()

    @property
    def has_event(self) -> bool:
        """Whether it is an event of the room's stream."""
        return self.event is not None or self.post is not None


class Activity(ABC, Generic[T]):
    """One activity of a room. It is created by its first fact; until then `exists` is false.

    A subclass keeps two kinds of state: what `apply` makes of facts, which `dump` returns, and what only waits (the
    claims of a window that is open), which a restart forgets with its callers.
    """

    kind: ClassVar[str]
    """First part of the names of its operations, facts and events: "sales"."""

    def __init__(self, id: str) -> None:
        self.id = id

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether its first fact has been applied."""

    @abstractmethod
    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T] | None:
        """Judge one command at ``now_ms``, when everything due before has been done; change nothing but what waits.

        None: the answer comes with a later step. Any: each kind has its own commands.
        """

    @abstractmethod
    def next_due(self) -> int | None:
        """Return when `due` has something to do, None = never."""

    @abstractmethod
    def due(self, now_ms: int) -> ActivityStep[T] | None:
        """Return the first thing that has become due, in order of due time; None = nothing has."""

    @abstractmethod
    def apply(self, fact: Fact) -> None:
        """Change the state by a fact that was decided in it. It never fails."""

    @abstractmethod
    def undo(self, fact: Fact) -> None:
        """Take back the newest fact that was applied: the state is what it was before."""

    def settled(self) -> None:
        """Nothing that was applied will be taken back: its batch is durable."""

    @abstractmethod
    def dump(self) -> tuple[Any, ...]:
        """Return the state that facts have made, as plain values: equal for equal states."""

    @abstractmethod
    def view(self, is_staff: bool) -> Any:
        """Return the record that everybody who joins gets; None = nothing. Staff may get more.

        It depends on the state alone, as it is encoded once for all: deadlines, not durations.
        """

    def own_view(self, user: str) -> Any:
        """Return the record that only this user gets when it joins; None = nothing."""
        return None

    def counter(self) -> RoomEvent | None:
        """Return what is pushed when it changes, at most once a second, newest wins; None = nothing."""
        return None

    def follows(self, user: str) -> bool:
        """Return whether it is to get `UserLeft` when the last connection of a user has left the room."""
        return False

    @property
    def pending_actions(self) -> tuple[Any, ...]:
        """What the broker is to do outside of the room, until a command reports that it is done (Any: of each kind).

        It follows from facts alone; while a batch is under way it may hold what the ledger will refuse.
        """
        return ()

    def resumed(self, now_ms: int) -> ActivityStep[T] | None:
        """Return what a restart brings about, before anything that is due: deadlines of users are extended, say. It
        changes nothing: it is also asked whether a restart brings about anything at all."""
        return None

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        """Return what the end of the room brings about, without an event; None = nothing."""
        return None

    @property
    def amounts(self) -> Mapping[str, int]:
        """What it holds of money, units or codes, by state, for the operator's metrics; O(1). Empty = nothing."""
        return {}

    @property
    def is_listening(self) -> bool:
        """Whether messages of the room may be commands to it now, see `hears`."""
        return False

    def hears(self, text: str) -> bool:
        """Return whether a message with this text is a command to it."""
        return False

    @property
    def removable_at(self) -> int | None:
        """When it may leave memory, None = not yet."""
        return None


class _Waiting(NamedTuple, Generic[T]):
    command: Any
    requester: Requester
    ticket: T
    at_ms: int


class ActivityRunner(Generic[T]):
    """Commands and timers of one activity, as batches for the ledger.

    The owner calls `command`, `wake` or `end`, then `next_batch` until it is None: a batch without facts is answered
    at once, one with facts is submitted, and its result reported by `committed` or `refused`.
    """

    __slots__ = (
        "_activity",
        "_answer_count",
        "_fact_count",
        "_is_resuming",
        "_is_taken_back",
        "_now_ms",
        "_of_one",
        "_readers",
        "_retry_at_ms",
        "_retry_ms",
        "_under_way",
        "_waiting",
    )

    def __init__(self, activity: Activity[T]) -> None:
        self._activity = activity
        self._is_taken_back = False
        """Whether the facts of the batch under way are undone, as somebody has looked at the activity."""
        self._waiting: deque[_Waiting[T]] = deque()
        self._of_one: dict[str, int] = {}
        self._readers: list[Callable[[Activity[T]], None]] = []
        """What waits for the result of the batch under way."""
        self._under_way: Batch[T] | None = None
        self._now_ms = 0
        self._retry_at_ms: int | None = None
        self._retry_ms = FIRST_RETRY_MS
        self._fact_count = 0
        self._answer_count = 0
        self._is_resuming = False
        """Whether what a restart brings about is not durable yet."""

    @property
    def activity(self) -> Activity[T]:
        """The activity as durable facts have made it. The first look while a batch is under way undoes its facts, which
        are applied again when the ledger has taken them; other batches cost nothing."""
        if self._under_way is not None and not self._is_taken_back:
            self._take_back(self._under_way)
        return self._activity

    @property
    def is_idle(self) -> bool:
        """Whether no batch is under way and no command waits."""
        return self._under_way is None and not self._waiting

    @property
    def is_under_way(self) -> bool:
        """Whether a batch is under way: until its result everything else waits."""
        return self._under_way is not None

    def command(self, command: Any, requester: Requester, ticket: T, at_ms: int) -> ActivityRefusal | None:
        """Take a command; its answer comes with a batch. A refusal: too many wait."""
        share = self._of_one.get(requester.user, 0)
        if len(self._waiting) >= MAX_WAITING or (share >= MAX_WAITING_OF_ONE and not requester.is_platform):
            return ActivityRefusal(ErrorCode.OVERLOADED, "too many requests wait for this activity", "", LATER_MS)
        self._of_one[requester.user] = share + 1
        self._waiting.append(_Waiting(command, requester, ticket, at_ms))
        return None

    def read(self, reader: Callable[[Activity[T]], None]) -> None:
        """Call ``reader`` with the activity when everything in it is durable: now, or when the ledger has answered the
        batch under way."""
        if self._under_way is None:
            reader(self._activity)
        else:
            self._readers.append(reader)

    def next_due(self) -> int | None:
        """Return when `next_batch` should be called, None = only after a command; 0 = at once."""
        if self._under_way is not None:
            return None
        if self._waiting:
            return 0
        due = 0 if self._is_resuming else self._activity.next_due()
        if due is None or self._retry_at_ms is None:
            return due
        return max(due, self._retry_at_ms)

    def next_batch(self, now_ms: int) -> Batch[T] | None:
        """Decide what waits and what is due; None = nothing to do now, or a batch is under way."""
        if self._under_way is not None:
            return None
        steps: list[ActivityStep[T]] = []
        answers: list[tuple[T, Any]] = []
        self._fact_count = self._answer_count = 0
        has_room = True
        if self._is_resuming:
            if not self._waiting and now_ms < (self._retry_at_ms or 0):
                return None
            self._resume(steps, now_ms)
        while has_room and self._waiting:
            first = self._waiting[0]
            at_ms = self._advance(min(first.at_ms, now_ms))
            has_room = self._perform_due(steps, at_ms)
            if not has_room:
                break
            self._take(first)
            step = self._activity.decide(first.command, first.requester, first.ticket, at_ms)
            if step is not None:
                if step.answer is not None:
                    answers.append((first.ticket, step.answer))
                has_room = self._add(steps, step)
        if has_room:
            self._perform_due(steps, self._advance(now_ms))
        return self._as_batch(steps, answers)

    def end(self) -> Batch[T] | None:
        """Return what the end of the room brings about, with refusals for all who wait; None = nothing.

        No batch may be under way.
        """
        gone = ActivityRefusal(ErrorCode.ROOM_ENDED, "has ended", "room")
        answers = [(each.ticket, gone) for each in self._waiting]
        self._waiting.clear()
        self._of_one.clear()
        self._fact_count = self._answer_count = 0
        steps: list[ActivityStep[T]] = []
        step = self._activity.ended(self._now_ms)
        if step is not None:
            self._add(steps, step)
        return self._as_batch(steps, answers)

    @property
    def has_something_to_do(self) -> bool:
        """Whether there is something to do at a time, outside of the room, or as the process has just begun."""
        activity = self.activity
        return self.next_due() is not None or bool(activity.pending_actions) or activity.resumed(0) is not None

    def resume(self, now_ms: int) -> Batch[T] | None:
        """Return what a restart brings about; call it once, before anything else."""
        self.activity.settled()
        self._fact_count = self._answer_count = 0
        steps: list[ActivityStep[T]] = []
        self._resume(steps, now_ms)
        return self._as_batch(steps, ())

    def committed(self) -> Batch[T]:
        """Return the batch under way, which is durable: its answers may go out."""
        batch = self._under_way
        if batch is None:
            raise ValueError("no batch is under way")
        if self._is_taken_back:
            self._is_taken_back = False
            for fact in batch.facts:
                self._activity.apply(fact)
        self._under_way = None
        self.activity.settled()
        self._is_resuming = False
        self._retry_at_ms = None
        self._retry_ms = FIRST_RETRY_MS
        self._read_waiting()
        return batch

    def refused(self, now_ms: int) -> Batch[T]:
        """Undo the batch under way, which the ledger has refused; return it with what its callers hear instead."""
        batch = self._under_way
        if batch is None:
            raise ValueError("no batch is under way")
        if not self._is_taken_back:
            self._take_back(batch)
        self._is_taken_back = False
        self._under_way = None
        self._retry_at_ms = self._advance(now_ms) + self._retry_ms
        self._retry_ms = min(2 * self._retry_ms, MAX_RETRY_MS)
        self._read_waiting()
        later = ActivityRefusal(ErrorCode.OVERLOADED, "the ledger cannot take it now", "", LATER_MS)
        return Batch((), tuple((ticket, later) for ticket, _ in batch.answers), None, (), ())

    # ---- inside

    def _take_back(self, batch: Batch[T]) -> None:
        for fact in reversed(batch.facts):
            self._activity.undo(fact)
        self._is_taken_back = True

    def _advance(self, now_ms: int) -> int:
        self._now_ms = max(self._now_ms, now_ms)
        return self._now_ms

    def _read_waiting(self) -> None:
        readers, self._readers = self._readers, []
        for reader in readers:
            reader(self._activity)

    def _take(self, first: _Waiting[T]) -> None:
        self._waiting.popleft()
        left = self._of_one.pop(first.requester.user) - 1
        if left:
            self._of_one[first.requester.user] = left

    def _resume(self, steps: list[ActivityStep[T]], now_ms: int) -> None:
        """Do what a restart brings about; where the ledger refuses it, it comes first in the next batch."""
        step = self._activity.resumed(self._advance(now_ms))
        self._is_resuming = step is not None
        if step is not None:
            self._add(steps, step)

    def _perform_due(self, steps: list[ActivityStep[T]], now_ms: int) -> bool:
        """Do what is due; return whether the batch takes more."""
        if self._retry_at_ms is not None and now_ms < self._retry_at_ms:
            return True
        while (step := self._activity.due(now_ms)) is not None:
            if not self._add(steps, step):
                return False
        return True

    def _add(self, steps: list[ActivityStep[T]], step: ActivityStep[T]) -> bool:
        for fact in step.facts:
            self._activity.apply(fact)
        self._fact_count += step.weight or len(step.facts)
        self._answer_count += len(step.answers) + (step.answer is not None)
        steps.append(step)
        has_event = step.event is not None or step.post is not None
        return not has_event and self._fact_count < MAX_BATCH_FACTS and self._answer_count < MAX_BATCH_ANSWERS

    def _as_batch(self, steps: Sequence[ActivityStep[T]], answers: Iterable[tuple[T, Any]]) -> Batch[T] | None:
        answers = (*answers, *(answer for step in steps for answer in step.answers))
        facts = tuple(fact for step in steps for fact in step.facts)
        if not facts and not answers:
            return None
        batch = Batch(
            facts,
            answers,
            next((step.event for step in steps if step.event is not None), None),
            tuple(message for step in steps for message in step.messages),
            tuple(report for step in steps for report in step.reports),
            next((step.post for step in steps if step.post is not None), None),
            tuple(effect for step in steps for effect in step.then),
        )
        if facts:
            self._under_way = batch
        return batch
