"""The activities of one room: finds the one a command is for, keeps their timers, and bounds how many there are.

Pure: methods return effects, which the room's task performs. ``T`` is the caller's reply address of one command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, Generic, NamedTuple, TypeVar

from broker.core.commerce.activity import (
    Activity,
    ActivityRefusal,
    AnswerHeld,
    Batch,
    ErasedUser,
    Fact,
    Requester,
    RoomEvent,
    ShowPost,
    UserLeft,
)
from broker.core.commerce.activity_runner import MAX_BATCH_ANSWERS, ActivityRunner
from protocol.codes import ErrorCode, Role
from protocol.frames import pack_body
from protocol.json_values import as_json
from protocol.messages import MAX_ACTIVITIES, ActivityView

__all__ = [
    "MAX_REMOVED",
    "ActivityBatch",
    "ActivityCounts",
    "ActivityEffect",
    "ActivityKey",
    "ActivityKind",
    "AnswerCommand",
    "PushCounter",
    "RecordBatch",
    "RoomActivities",
    "StartActions",
    "Times",
]

T = TypeVar("T")

ActivityKey = tuple[str, str]
"""Kind and id."""
COUNTER_EVERY_MS = 1000
MAX_REMOVED = 10_000
"""Ids of ended activities that are remembered, so that none is used for another one; then creating is refused."""
MAX_DUE = 8
"""Activities that do what is due in one turn of the room's task; each does at most one slice of long work."""
MAX_VIEWS_BYTES = 20 * 1024
MAX_OWN_VIEWS_BYTES = 2 * 1024
"""Of the views in the answer to a JOIN, packed."""
MAX_RECALLED = 8
"""Ended activities of a room that are in memory again, because a caller has asked for them."""
MAX_KEPT_FACTOR = 10
"""Activities of a kind in memory, with those that have ended: so many times the limit of those that have not."""
HELD_AHEAD_MS = 3_600_000
"""A clock that is held (`TrustedClock.continued_ms`) is more than a day ahead of the continued time."""
KEPT_AFTER_END_MS = 600_000
"""How long an activity stays in memory after its last deadline."""


class Times(NamedTuple):
    """Trusted Unix milliseconds: for what began in this process, and for what began before (`TrustedClock`)."""

    now_ms: int
    continued_ms: int


class ActivityKind(NamedTuple):
    """One kind of activities.

    ``make``: returns one that does not exist yet, by its id; ``limit``: at most so many in a room that have not ended;
    ``shown``: so many of them in the answer to a JOIN; ``follows_users``: it gets `UserLeft`;
    ``counter_every_ms``: least time between two pushes of its counters.
    """

    name: str
    make: Callable[[str], Activity[Any]]
    limit: int
    shown: int
    follows_users: bool = False
    counter_every_ms: int = COUNTER_EVERY_MS


class ActivityBatch(NamedTuple):
    """A batch and whose it is."""

    key: ActivityKey
    # Any: the reply addresses are the caller's.
    batch: Batch[Any]


class AnswerCommand(NamedTuple):
    """Answer a command: with a result record or an `ActivityRefusal` (Any)."""

    ticket: Any
    answer: Any


class RecordBatch(NamedTuple):
    """Make a batch durable; then call `committed` or `refused` with its key. With an event it goes into the stream."""

    made: ActivityBatch


class PushCounter(NamedTuple):
    """Send the counters of an activity to every member; the newest replaces older ones."""

    key: ActivityKey
    counter: RoomEvent


class StartActions(NamedTuple):
    """Do what an activity has to be done outside of the room, see `Activity.pending_actions`; those that were started
    before are among them."""

    key: ActivityKey
    actions: tuple[Any, ...]


ActivityEffect = AnswerCommand | RecordBatch | PushCounter | StartActions | ShowPost | AnswerHeld


class ActivityCounts:
    """What the activities of all rooms have counted, by kind. All only grow."""

    def __init__(self) -> None:
        self.facts: Counter[str] = Counter()
        """Facts that are durable."""
        self.names: Counter[tuple[str, str]] = Counter()
        """The same by kind and name of the fact."""
        self.refusals: Counter[str] = Counter()
        """Commands that changed nothing."""
        self.undone: Counter[str] = Counter()
        """Batches that the ledger has refused."""


class RoomActivities(Generic[T]):
    """Activities by kind and id. All times are Unix milliseconds of the trusted clock."""

    def __init__(self, kinds: Mapping[str, ActivityKind]) -> None:
        self._kinds = kinds
        self.counts = ActivityCounts()
        """Shared by all rooms of a broker."""
        self.listening: tuple[ActivityKey, ...] = ()
        """Activities to which messages of the room may be commands now."""
        self._runners: dict[ActivityKey, ActivityRunner[T]] = {}
        self._due: dict[ActivityKey, float] = {}
        self._removed: dict[ActivityKey, None] = {}
        self._recalled: dict[ActivityKey, int] = {}
        """Those that have left memory and are in it again, and since when."""
        self._counters: dict[ActivityKey, tuple[RoomEvent | None, int]] = {}
        """Last pushed counters, and when."""
        self._actions: dict[ActivityKey, tuple[Any, ...]] = {}
        """Actions that have been started and are not done."""
        self._views: dict[bool, tuple[tuple[ActivityView, ...], int]] = {}
        self._folded: dict[ActivityKey, int] = {}
        """Those that began before this process, and when."""
        self.times = Times(0, 0)
        """The latest that a command or timer came with."""

    def __len__(self) -> int:
        return len(self._runners)

    @property
    def is_idle(self) -> bool:
        """Whether the ledger has answered everything."""
        return all(runner.is_idle for runner in self._runners.values())

    @property
    def wait_ms(self) -> float:
        """Milliseconds from `times` until `due` has something to do, infinite = never."""
        return min((due - self.time_of(key) for key, due in self._due.items()), default=inf)

    def count_by_kind(self) -> Counter[str]:
        """Return how many activities of each kind exist."""
        return Counter(key[0] for key, runner in self._runners.items() if runner.activity.exists)

    def amounts(self) -> Counter[tuple[str, str]]:
        """Return the `Activity.amounts` of all that exist, summed by kind and state."""
        found: Counter[tuple[str, str]] = Counter()
        for (kind, _), runner in self._runners.items():
            if runner.activity.exists:
                for state, amount in runner.activity.amounts.items():
                    found[kind, state] += amount
        return found

    @property
    def has_something_to_do(self) -> bool:
        """Whether an activity is to go on without a command, before `resume`."""
        return any(runner.has_something_to_do for runner in self._runners.values())

    @property
    def has_actions(self) -> bool:
        """Whether something is being done outside of the room."""
        return bool(self._actions)

    def keys(self) -> list[ActivityKey]:
        """Return the kinds and ids of all that exist, in order of creation."""
        return [key for key, runner in self._runners.items() if runner.activity.exists]

    def find(self, kind: str, id: str) -> Any:
        """Return an activity that exists, None where there is none. Any: its class is that of the kind."""
        runner = self._runners.get((kind, id))
        return runner.activity if runner is not None and runner.activity.exists else None

    def has_left(self, key: ActivityKey) -> bool:
        """Return whether an activity has ended and is not in memory any more: the ledger has it, see `recall`."""
        return key in self._removed and key not in self._runners

    def recall(self, activity: Activity[T], times: Times) -> None:
        """Take an activity again that has left memory, as its facts have made it. Another one leaves where
        `MAX_RECALLED` are there."""
        self._advance(times)
        key = activity.kind, activity.id
        if not self.has_left(key):
            return
        idle = [each for each in self._recalled if self._runners[each].is_idle]
        if len(self._recalled) >= MAX_RECALLED and idle:
            self._remove(idle[0])
        runner = self._runners[key] = ActivityRunner(activity)
        self._recalled[key] = self.time_of(key)
        self._follow(key, runner)

    def read(self, key: ActivityKey, reader: Callable[[Any], None]) -> bool:
        """Call ``reader`` with an activity (Any: as `find`) when all of its state is durable: now, or when the ledger
        has answered. It gets None where there is none then. Returns False where there is none now."""
        runner = self._runners.get(key)
        if runner is None:
            return False
        runner.read(lambda activity: reader(activity if activity.exists else None))
        return True

    def keys_of_kind(self, kind: str) -> list[ActivityKey]:
        """Return the keys of the activities of a kind that exist, in order of creation. Recalled ones are left out."""
        return [key for key in self.keys() if key[0] == kind and key not in self._recalled]

    def refusal_from_memory(
        self, key: ActivityKey, judge: Callable[[Any], ActivityRefusal | None]
    ) -> ActivityRefusal | None:
        """Return what ``judge`` says of an activity (Any: as `find`), of which everything is durable; None: it cannot
        be refused without a command."""
        runner = self._runners.get(key)
        if runner is None or not runner.is_idle or not runner.activity.exists:
            return None
        refusal = judge(runner.activity)
        if refusal is not None:
            self.counts.refusals[key[0]] += 1
        return refusal

    def command(
        self, key: ActivityKey, command: Any, requester: Requester, ticket: T, times: Times, *, creates: bool = False
    ) -> list[ActivityEffect]:
        """Take a command for an activity. ``creates``: it may be one that does not exist yet."""
        self._advance(times)
        runner = self._runners.get(key)
        if runner is None:
            refusal = self._refusal_of_new(key) if creates else _unknown(key)
            if refusal is not None:
                return [self._answer(key, ticket, refusal)]
            runner = self._add(key)
        refusal = runner.command(command, requester, ticket, self.time_of(key))
        if refusal is not None:
            return [self._answer(key, ticket, refusal)]
        return [] if runner.is_under_way else self._turn(key, runner)

    def erase(self, erased: ErasedUser) -> bool:
        """Keep nothing of a user any more; return whether that is done. Else call again: the ledger has to answer."""
        is_done = True
        for key, runner in list(self._runners.items()):
            if not runner.erase(erased):
                is_done = False
                continue
            if key in self._actions:
                self._actions[key] = runner.activity.pending_actions  # they are under way already
            self._counters.pop(key, None)
            self._follow(key, runner)
        self._views.clear()
        return is_done

    def user_left(self, user: str, ticket: T, times: Times) -> list[ActivityEffect]:
        """The last connection of a user has left the room: activities that follow it get `UserLeft`."""
        self._advance(times)
        effects: list[ActivityEffect] = []
        for key in self._following(user):
            runner = self._runners[key]
            runner.command(UserLeft(), Requester(user, "", Role.VIEWER, is_platform=True), ticket, self.time_of(key))
            effects += self._turn(key, runner)
        return effects

    def follows(self, user: str) -> bool:
        """Return whether an activity is to hear when the last connection of a user has left the room."""
        return bool(self._following(user))

    def _following(self, user: str) -> list[ActivityKey]:
        # What is not decided or not durable yet may make an activity follow the user.
        return [
            key
            for key, runner in self._runners.items()
            if self._kinds[key[0]].follows_users and (not runner.is_idle or runner.activity.follows(user))
        ]

    def due(self, times: Times) -> list[ActivityEffect]:
        """Do what has become due, of the first `MAX_DUE` activities; the others stay due."""
        self._advance(times)
        effects: list[ActivityEffect] = []
        # In order of due time; at equal times in order of creation, as the runners are.
        due_keys = [key for key in self._runners if self._due.get(key, inf) <= self.time_of(key)]
        turns = 0
        for key in sorted(due_keys, key=self._due.__getitem__):
            runner = self._runners[key]
            if self._is_removable(key, runner):
                self._remove(key)
            elif turns < MAX_DUE:
                turns += 1
                effects += self._turn(key, runner)
        return effects

    def committed(self, key: ActivityKey) -> list[ActivityEffect]:
        """Answer the callers of a batch that is durable, and go on."""
        runner = self._runners[key]
        batch = runner.committed()
        self.counts.facts[key[0]] += len(batch.facts)
        for fact in batch.facts:
            self.counts.names[key[0], fact.name] += 1
        return [*self._answers(key, batch), *batch.then, *self._turn(key, runner)]

    def refused(self, key: ActivityKey) -> list[ActivityEffect]:
        """Undo a batch that the ledger has refused; its callers hear that they may ask again."""
        runner = self._runners[key]
        batch = runner.refused(self.time_of(key))
        self.counts.undone[key[0]] += 1
        return self._answers(key, batch) + self._turn(key, runner)

    # ---- restart, and the end of the room

    def fold(self, key: ActivityKey, facts: Iterable[Fact], at_ms: int = 0) -> None:
        """Apply facts of the ledger, in their order; those of an unknown kind are left out.

        ``at_ms``: when they became durable, by the clock of that process.
        """
        if key[0] not in self._kinds:
            return
        runner = self._runners.get(key) or self._add(key)
        self._folded.setdefault(key, at_ms)
        for fact in facts:
            runner.activity.apply(fact)
        self._views.clear()

    def resume(self, times: Times) -> list[ActivityEffect]:
        """Begin after `fold`: what a restart brings about, and everything that fell due meanwhile."""
        self._advance(times)
        effects: list[ActivityEffect] = []
        for key, runner in list(self._runners.items()):
            if self._is_removable(key, runner):
                self._follow(key, runner)  # `due` removes it
                continue
            batch = runner.resume(self.time_of(key))
            if batch is not None:
                effects += self._out(key, batch)
            effects += self._turn(key, runner)
        return effects

    def end(self) -> list[ActivityBatch]:
        """Return what the end of the room brings about, for the transaction of that end. All must be idle."""
        ended: list[ActivityBatch] = []
        for key, runner in list(self._runners.items()):
            batch = runner.end()
            if batch is not None and batch.facts:
                ended.append(ActivityBatch(key, batch))
        return ended

    # ---- what members see

    def views(self, is_staff: bool) -> tuple[tuple[ActivityView, ...], int]:
        """Return what everybody who joins gets, nearest deadline first, and how many are left out. It is made once for
        each state."""
        views = self._views.get(is_staff)
        if views is None:
            views = self._views[is_staff] = self._cut(lambda activity: activity.view(is_staff), MAX_VIEWS_BYTES)
        return views

    def own_views(self, user: str) -> tuple[ActivityView, ...]:
        """Return what only this user gets when it joins."""
        return self._cut(lambda activity: activity.own_view(user), MAX_OWN_VIEWS_BYTES)[0] if self._runners else ()

    def _cut(self, view: Callable[[Activity[T]], Any], max_bytes: int) -> tuple[tuple[ActivityView, ...], int]:
        """Return the views that fit, and how many do not."""
        left_of = {name: kind.shown for name, kind in self._kinds.items()}
        found: list[ActivityView] = []
        left_out = 0
        for key, runner in sorted(self._runners.items(), key=lambda item: self._due.get(item[0], inf)):
            is_shown = runner.activity.exists and key not in self._recalled
            data = view(runner.activity) if is_shown else None
            if data is None:
                continue
            made = ActivityView(*key, as_json(data))
            nbytes = len(pack_body(made))
            if left_of[key[0]] and nbytes <= max_bytes and len(found) < MAX_ACTIVITIES:
                left_of[key[0]] -= 1
                max_bytes -= nbytes
                found.append(made)
            else:
                left_out += 1
        return tuple(found), left_out

    # ---- inside

    def _advance(self, times: Times) -> None:
        self.times = Times(max(self.times.now_ms, times.now_ms), max(self.times.continued_ms, times.continued_ms))

    def time_of(self, key: ActivityKey) -> int:
        """Return the time of an activity, by the latest command or timer."""
        # One that began while the clock was held has its deadlines by that clock: it is ahead of the continued time.
        began_at = self._folded.get(key, inf)
        return self.times.continued_ms if began_at <= self.times.continued_ms + HELD_AHEAD_MS else self.times.now_ms

    def _refusal_of_new(self, key: ActivityKey) -> ActivityRefusal | None:
        if key in self._removed:
            return ActivityRefusal(ErrorCode.KEY_REUSED, "was used before, for an activity that has ended", "id")
        kind = self._kinds[key[0]]
        ends = [
            runner.activity.removable_at
            for each, runner in self._runners.items()
            if each[0] == kind.name and each not in self._recalled
        ]
        if ends.count(None) >= kind.limit or len(ends) >= MAX_KEPT_FACTOR * kind.limit:
            return ActivityRefusal(ErrorCode.OUT_OF_STATE, f"has {kind.limit} {kind.name}", "room")
        if len(self._removed) >= MAX_REMOVED:
            return ActivityRefusal(ErrorCode.OUT_OF_STATE, f"has had {MAX_REMOVED} activities", "room")
        return None

    def _add(self, key: ActivityKey) -> ActivityRunner[T]:
        runner: ActivityRunner[T] = ActivityRunner(self._kinds[key[0]].make(key[1]))
        self._runners[key] = runner
        return runner

    def _listen(self, key: ActivityKey, listens: bool) -> None:
        others = [each for each in self.listening if each != key]
        self.listening = (*others, key) if listens else tuple(others)

    def _remove(self, key: ActivityKey) -> None:
        del self._runners[key]
        self._views.clear()
        self._due.pop(key, None)
        self._folded.pop(key, None)
        self._counters.pop(key, None)
        self._recalled.pop(key, None)
        self._removed[key] = None

    def _is_removable(self, key: ActivityKey, runner: ActivityRunner[T]) -> bool:
        if not runner.is_idle:
            return False
        leaves_at = self._leaves_at(key, runner)
        return leaves_at is not None and leaves_at <= self.time_of(key)

    def _leaves_at(self, key: ActivityKey, runner: ActivityRunner[T]) -> int | None:
        """Return when an activity leaves memory, None = not yet known."""
        ended_at = runner.activity.removable_at
        return None if ended_at is None else max(ended_at, self._recalled.get(key, 0)) + KEPT_AFTER_END_MS

    def _turn(self, key: ActivityKey, runner: ActivityRunner[T]) -> list[ActivityEffect]:
        """Take the next batches; what is left after `MAX_BATCH_ANSWERS` is due at once, in another turn."""
        effects: list[ActivityEffect] = []
        self._views.clear()
        answered = 0
        while answered < MAX_BATCH_ANSWERS and (batch := runner.next_batch(self.time_of(key))) is not None:
            effects += self._out(key, batch)
            answered += len(batch.answers)
        effects += self._counter(key, runner)
        effects += self._start_actions(key, runner)
        self._follow(key, runner)
        return effects

    def _start_actions(self, key: ActivityKey, runner: ActivityRunner[T]) -> list[ActivityEffect]:
        """Start actions as soon as the facts that ask for them are durable."""
        if not runner.is_idle:
            return []
        actions = runner.activity.pending_actions
        if actions == self._actions.get(key, ()):
            return []
        if not actions:
            del self._actions[key]
            return []
        self._actions[key] = actions
        return [StartActions(key, actions)]

    def _out(self, key: ActivityKey, batch: Batch[T]) -> list[ActivityEffect]:
        return [RecordBatch(ActivityBatch(key, batch))] if batch.facts else self._answers(key, batch)

    def _answers(self, key: ActivityKey, batch: Batch[Any]) -> list[ActivityEffect]:
        return [self._answer(key, ticket, answer) for ticket, answer in batch.answers]

    def _answer(self, key: ActivityKey, ticket: Any, answer: Any) -> AnswerCommand:
        if isinstance(answer, ActivityRefusal):
            self.counts.refusals[key[0]] += 1
        return AnswerCommand(ticket, answer)

    def _counter(self, key: ActivityKey, runner: ActivityRunner[T]) -> list[ActivityEffect]:
        if not runner.is_idle or not runner.activity.exists or key in self._recalled:
            return []  # what is under way may be refused
        counter = runner.activity.counter()
        every_ms = self._kinds[key[0]].counter_every_ms
        last, pushed_at = self._counters.get(key, (None, -every_ms))
        now_ms = self.time_of(key)
        if counter is None or counter == last or now_ms < pushed_at + every_ms:
            return []
        self._counters[key] = counter, now_ms
        return [PushCounter(key, counter)]

    def _follow(self, key: ActivityKey, runner: ActivityRunner[T]) -> None:
        """Take over when the runner has something to do, or forget one that was never created."""
        if runner.is_under_way:
            self._due.pop(key, None)  # its result calls this again
            return
        activity = runner.activity
        if activity.is_listening != (key in self.listening):
            self._listen(key, activity.is_listening)
        if not activity.exists and runner.is_idle:
            self._runners.pop(key, None)
            self._due.pop(key, None)
            return
        due: float = inf
        if (next_due := runner.next_due()) is not None:
            due = next_due
        if (leaves_at := self._leaves_at(key, runner)) is not None:
            due = min(due, leaves_at)
        last, pushed_at = self._counters.get(key, (None, 0))
        if runner.is_idle and key not in self._recalled and activity.counter() not in (None, last):
            due = min(due, pushed_at + self._kinds[key[0]].counter_every_ms)
        if due < inf:
            self._due[key] = due
        else:
            self._due.pop(key, None)


def _unknown(key: ActivityKey) -> ActivityRefusal:
    return ActivityRefusal(ErrorCode.UNKNOWN_ACTIVITY, f"names none of the {key[0]} of this room", "id")
