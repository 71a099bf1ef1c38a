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
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from protocol.codes import ErrorCode, Lane, Role

__all__ = [
    "BROKER",
    "Activity",
    "ActivityRefusal",
    "ActivityReport",
    "ActivityStep",
    "AnswerHeld",
    "Attributes",
    "Batch",
    "ErasedUser",
    "Fact",
    "ReleasedPost",
    "Requester",
    "RoomEvent",
    "ShowPost",
    "UserLeft",
    "UserMessage",
    "move_to_pseudonym",
    "refused",
]

T = TypeVar("T")
V = TypeVar("V")


LATER_MS = 1000
"""When to ask again where the ledger could not take a batch, or too many commands wait."""


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


class ErasedUser(NamedTuple):
    """A user who is erased, by its id without the tenant, and what stands for it from now on."""

    user: str
    pseudonym: str

    def renamed(self, user: str) -> str:
        """Return what stands for a user: of others their ids."""
        return self.pseudonym if user == self.user else user


def move_to_pseudonym(table: dict[str, V], erased: ErasedUser) -> None:
    """Keep what a table by user has of an erased one under its pseudonym."""
    if erased.user in table:
        table[erased.pseudonym] = table.pop(erased.user)


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


class AnswerHeld(NamedTuple):
    """Answer the author of a message that was held: it is shown, or rejected with a reason.

    ``address``: that came with the message (Any: the caller's), None = it is of an earlier run; ``id``: of the message
    in its queue; ``client_msg_id``: its author's name for it.
    """

    address: Any
    user: str
    id: int
    type: int
    client_msg_id: str
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

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        """Return a fact of this kind as it is kept after the erasure of a user: sums, numbers and order stay."""
        return fact

    def erase(self, erased: ErasedUser) -> None:
        """Keep nothing of a user any more, in the state and in what waits; no batch is under way.

        The state is then the fold of the facts that `without` returns.
        """
