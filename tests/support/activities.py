"""Driver of one activity as a room drives it, with a ledger that may refuse and a process that may restart."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from broker.core.commerce.activity import (
    Activity,
    ActivityRefusal,
    ActivityReport,
    Batch,
    ErasedUser,
    Fact,
    Requester,
    RoomEvent,
    UserMessage,
)
from broker.core.commerce.activity_runner import ActivityRunner
from protocol.codes import Role
from protocol.frames import pack_body, unpack_body

__all__ = ["ActivityDriver", "commerce_vectors", "platform", "strings_in", "viewer"]

_VECTORS = Path(__file__).parents[1] / "core" / "commerce" / "vectors"


def commerce_vectors(name: str) -> dict[str, Any]:
    """Return a file of ``tests/core/commerce/vectors``; its ``made`` says what its fields are."""
    vectors: dict[str, Any] = json.loads((_VECTORS / f"{name}.json").read_text("utf-8"))
    return vectors


def viewer(user: str, role: Role = Role.VIEWER, **attributes: Any) -> Requester:
    """Return a user of a room; ``attributes``: of `Attributes`."""
    asked = Requester(user, user.capitalize(), role)
    return asked._replace(attributes=asked.attributes._replace(**attributes))


platform = Requester("backend", "backend", Role.APP, is_platform=True)
"""The platform's backend."""


class ActivityDriver:
    """Runs commands of one activity; its tickets are numbers, each answered at most once.

    The facts of every batch that is committed are kept, as the ledger packs them. `check` holds the fold of the facts
    against the live state, also while the ledger has not answered; `refuse` holds that a refused batch leaves the state
    as it was.
    """

    def __init__(self, make: Callable[[], Activity[int]], at_ms: int = 1_790_000_000_000) -> None:
        self._make = make
        self.now_ms = at_ms
        self.runner: ActivityRunner[int] = ActivityRunner(make())
        self.answers: dict[int, Any] = {}
        """First answers by ticket."""
        self.asked = 0
        self.erased = 0
        """Users who were erased."""
        self.lost: set[int] = set()
        """Tickets of commands that a restart has cut off."""
        self.facts: list[Fact] = []
        self.events: list[RoomEvent] = []
        self.messages: list[UserMessage] = []
        self.reports: list[ActivityReport] = []
        self._under_way: Batch[int] | None = None
        self._before: tuple[Any, ...] = ()
        self._checks = 0

    @property
    def activity(self) -> Any:
        """The live activity."""
        return self.runner.activity

    @property
    def is_under_way(self) -> bool:
        """Whether a batch waits for `commit` or `refuse`."""
        return self._under_way is not None

    def send(self, command: Any, requester: Requester) -> int:
        """Send a command now and return its ticket; a batch that comes of it waits for `commit` or `refuse`."""
        self.asked += 1
        ticket = self.asked
        refusal = self.runner.command(command, requester, ticket, self.now_ms)
        if refusal is not None:
            self._answer(ticket, refusal)
        self.turn()
        return ticket

    def ask(self, command: Any, requester: Requester) -> Any:
        """Send a command, commit everything that comes of it, and return the answer; None: it has none yet."""
        ticket = self.send(command, requester)
        self.commit_all()
        return self.answers.get(ticket)

    def advance(self, ms: int) -> None:
        """Let time pass and do what is due."""
        self.now_ms += ms
        self.turn()

    def pass_time(self, ms: int) -> None:
        """Let time pass, due time by due time, and commit everything that comes of it."""
        until = self.now_ms + ms
        self.commit_all()
        while (due := self.runner.next_due()) is not None and due <= until:
            before = self.now_ms
            self.now_ms = max(self.now_ms, due)
            self.turn()
            if not self.is_under_way and self.now_ms == before and self.runner.next_due() == due:
                raise AssertionError(f"due at {due} and nothing is done")
            self.commit_all()
        self.now_ms = until
        self.turn()
        self.commit_all()

    def turn(self) -> None:
        """Take the next batches, as a room's task does."""
        while self._under_way is None:
            before = self.activity.dump()
            batch = self.runner.next_batch(self.now_ms)
            if batch is None:
                return
            if batch.facts:
                self._under_way, self._before = batch, before
            else:
                assert self.activity.dump() == before, "the state has changed without a fact"
                self._deliver(batch)

    def commit(self) -> None:
        """Let the ledger commit the batch under way."""
        assert self._under_way is not None
        self._under_way = None
        batch = self.runner.committed()
        self.facts += [_as_stored(fact) for fact in batch.facts]
        self._deliver(batch)
        self.turn()

    def commit_all(self) -> None:
        """Let the ledger commit until nothing is under way."""
        while self._under_way is not None:
            self.commit()

    def refuse(self) -> None:
        """Let the ledger refuse the batch under way: nothing of it has happened."""
        assert self._under_way is not None
        self._under_way = None
        batch = self.runner.refused(self.now_ms)
        assert self.activity.dump() == self._before, "undo does not restore the state"
        self._deliver(batch)
        self.turn()

    def restart(self) -> None:
        """Begin again from the facts, as after a crash: callers without an answer are cut off."""
        self._under_way = None
        self.lost |= {ticket for ticket in range(1, self.asked + 1) if ticket not in self.answers}
        self.runner = ActivityRunner(self.folded())
        batch = self.runner.resume(self.now_ms)
        if batch is not None and batch.facts:
            self._under_way, self._before = batch, self.folded().dump()
        self.turn()

    def erase(self, user: str) -> list[str]:
        """Erase a user, as a room and the ledger do; another one has its id from then on. Return where its id is left
        in the activity."""
        self.erased += 1
        erased = ErasedUser(user, f"erased-{self.erased}")
        if not self.runner.erase(erased):
            self.commit()
            assert self.runner.erase(erased)
        else:
            before = self.activity.dump()
            self.activity.erase(erased)
            assert self.activity.dump() == before, "a second time changes something"
        self.facts = [_as_stored(self.activity.without(fact, erased)) for fact in self.facts]
        return [path for path in strings_in(self.activity, "activity") if path.endswith(f"={user}")]

    def end(self) -> None:
        """End the room, and commit what comes of it."""
        self.commit_all()
        batch = self.runner.end()
        if batch is not None:
            assert batch.event is None
            if batch.facts:
                self._under_way = batch
                self.commit_all()
            else:
                self._deliver(batch)

    def folded(self) -> Activity[int]:
        """Return the activity that the facts make."""
        activity = self._make()
        for fact in self.facts:
            activity.apply(fact)
        return activity

    def check(self) -> None:
        """Hold that the live state is the fold of the facts, and that each command has one answer at most.

        Only every other time while a batch is under way: it is answered both after the activity was seen and not.
        """
        self._checks += 1
        if self._under_way is None or self._checks % 2:
            assert self.activity.dump() == self.folded().dump()
        assert len(self.answers) + len(self.lost) <= self.asked

    def _deliver(self, batch: Batch[int]) -> None:
        for ticket, answer in batch.answers:
            self._answer(ticket, answer)
        if batch.event is not None:
            self.events.append(batch.event)
        self.messages += batch.messages
        self.reports += batch.reports

    def _answer(self, ticket: int, answer: Any) -> None:
        assert ticket not in self.answers, f"command {ticket} is answered twice"
        assert ticket not in self.lost
        assert answer is not None
        self.answers[ticket] = answer

    def refusal_of(self, command: Any, requester: Requester) -> ActivityRefusal:
        """Send a command that is to be refused, and return the refusal; nothing has changed."""
        self.commit_all()
        before = self.activity.dump()
        answer = self.ask(command, requester)
        assert isinstance(answer, ActivityRefusal), answer
        assert self.activity.dump() == before
        return answer


def strings_in(value: Any, path: str, seen: set[int] | None = None) -> Iterator[str]:
    """Yield every string that an object holds, behind the path to it and an equals sign."""
    seen = set() if seen is None else seen
    if isinstance(value, str):
        yield f"{path}={value}"
    elif id(value) in seen or isinstance(value, (type, bytes, int, float)):
        return
    elif isinstance(value, Mapping):
        seen.add(id(value))
        for key, each in value.items():
            yield from strings_in(key, f"{path}.key", seen)
            yield from strings_in(each, f"{path}[{key!r}]", seen)
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        seen.add(id(value))
        for place, each in enumerate(value):
            yield from strings_in(each, f"{path}[{place}]", seen)
    elif type(value).__module__.startswith("broker."):
        seen.add(id(value))
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in (*getattr(value, "__dict__", ()), *slots):
            yield from strings_in(getattr(value, name, None), f"{path}.{name}", seen)


def _as_stored(fact: Fact) -> Fact:
    name, data = unpack_body(pack_body((fact.name, fact.data)))
    return Fact(name, data)
