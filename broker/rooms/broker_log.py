"""The broker's log: what is about no room and holds on every node (sanctions, revocations, inboxes), in one order.

It is a log of the engine as that of a room. A submission of any node goes to the log's owner, which appends it. Every
node reads what the log has and takes it over in that order, the node that submitted it too: only then it is answered.
So all nodes have the same tables and inboxes. A node reports to the one that has submitted something when it has taken
it over: `wait_followed` says which have not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import structlog
import trio

from broker.engine.base import Engine, EngineError, StoredLogItem
from broker.ledger import Committed, FailureKind, Item, Key, LedgerError, LedgerResult, OutboxEntry
from broker.rooms.submissions import pack_submission, read_submission
from protocol.frames import pack_body, unpack_body

__all__ = ["BROKER_LOG", "BrokerLog", "Followed", "read_fact"]

log = structlog.get_logger("roomcast.broker_log")

BROKER_LOG = "\0broker"
"""Name of the log; no room has a name like it."""
PAGE = 200
"""Facts that are read at a time."""
FOLLOW_S = 1.0
"""Time between two looks at the log without a hint."""
PATIENCE_S = 5.0
"""How long a submission waits for the log; then its outcome is unknown."""
REACH_S = 2.0
"""How long a change waits for the nodes to take it over."""
STALE_S = 10.0
"""A node that has not read the log for so long does not know who is banned or whose token is revoked."""
MAX_OWN = 10_000
"""Submissions of this node that wait."""
MAX_KNOWN = 1000
"""Last facts of this node of which it is known who has taken them over."""


class Followed(NamedTuple):
    """How far a change has come. ``missing``: nodes alive that have not reported; ``links``: of other nodes that it
    concerned."""

    missing: tuple[str, ...]
    links: int


class _Own(NamedTuple):
    """A submission of this node that is not in the log yet, as far as it is known."""

    on_done: Callable[[LedgerResult], None]
    due_at: float


def read_fact(body: bytes) -> tuple[tuple[str, str], int, tuple[Item, ...], tuple[Key, ...]]:
    """Return the node and life that have submitted a fact of the log, their number of it, and the submission."""
    origin, number, packed = unpack_body(body)
    return (origin[0], origin[1]), number, *read_submission(packed)


class BrokerLog:
    """The log as one node follows it. ``apply``: takes a submission into the copy; False: it cannot be written."""

    def __init__(
        self,
        engine: Engine,
        apply: Callable[[tuple[Item, ...], tuple[Key, ...], Callable[[LedgerResult], None]], Awaitable[bool]],
        flush: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.kinds: frozenset[str] = frozenset()
        """Kinds of the records that are in it."""
        self.submit: Callable[[bytes], None] | None = None
        """Brings a submission to the log's owner; None: this node takes no part yet."""
        self.follow: Callable[[Sequence[Item], LedgerResult, bool], int] = lambda items, result, is_own: 0
        """Takes over what holds on this node from now on; ``is_own``: this node has submitted it. Returns the links
        that it concerned here."""
        self.on_owned: Callable[[], Awaitable[None]] | None = None
        """Called when this node owns the log, and has all of it."""
        self.keeps_reports = False
        """Whether this node owns the log, and sends its reports."""
        self.reports_done: Callable[[Sequence[OutboxEntry]], None] = lambda reports: None
        """Takes that reports are in no copy."""
        self.report: Callable[[str, int, int], None] = lambda node, fact, links: None
        """Reports to a node that a fact of it was taken over, and the links that it concerned."""
        self.origin = ("", "")
        """This node and its life, in its submissions."""
        self.fact = 0
        """Number of the last fact that was taken over."""
        self.read_at = clock()
        self._engine = engine
        self._apply = apply
        self._flush = flush
        self._clock = clock
        self._own: dict[int, _Own] = {}
        self._last = 0
        self._own_fact = 0
        self._by_fact: OrderedDict[int, dict[str, int]] = OrderedDict()
        """Nodes that have taken over a fact of this one, and the links there."""
        self._reported = trio.Event()
        self._turn = trio.Lock()
        self._hint = trio.Event()

    @property
    def is_stale(self) -> bool:
        """Whether the log could not be read for so long that this node admits no user."""
        return self._clock() - self.read_at > STALE_S

    # ---- what this node submits

    def record(
        self, items: tuple[Item, ...], keys: tuple[Key, ...], on_done: Callable[[LedgerResult], None]
    ) -> bool | None:
        """Submit items; ``on_done`` gets the result once they are in the log and taken over here. False: too much
        waits; None: this node takes no part yet."""
        if self.submit is None:
            return None
        if len(self._own) >= MAX_OWN:
            return False
        self._last += 1
        self._own[self._last] = _Own(on_done, self._clock() + PATIENCE_S)
        self.submit(pack_body((self.origin, self._last, pack_submission(items, keys))))
        return True

    async def wait_followed(self, nodes: Callable[[], Sequence[str]]) -> Followed:
        """Wait until all nodes have taken over the last fact of this one, for `REACH_S` at most. ``nodes``: the others
        that are alive."""
        fact = self._own_fact
        with trio.move_on_after(REACH_S):
            while set(nodes()) - self._by_fact.get(fact, {}).keys():
                await self._reported.wait()
        known = self._by_fact.get(fact, {})
        return Followed(tuple(sorted(set(nodes()) - known.keys())), sum(known.values()))

    def reported(self, node: str, fact: int, links: int) -> None:
        """Take that a node has taken over a fact of this one."""
        self._reports_of(fact)[node] = links  # perhaps before this node has read the fact itself
        self._reported.set()
        self._reported = trio.Event()

    def _reports_of(self, fact: int) -> dict[str, int]:
        found = self._by_fact.setdefault(fact, {})
        if len(self._by_fact) > MAX_KNOWN:
            self._by_fact.popitem(last=False)
        return found

    # ---- what the log has

    def hint(self) -> None:
        """Take that the log has grown."""
        self._hint.set()

    async def run(self) -> None:
        """Follow the log until cancelled."""
        while True:
            try:
                await self.catch_up()
            except EngineError as error:
                log.info("the broker's log cannot be read now", why=str(error))
            now = self._clock()
            for number in [number for number, own in self._own.items() if own.due_at <= now]:
                why = "the log has not answered in time: ask again"
                self._own.pop(number).on_done(LedgerError(FailureKind.IO_ERROR, why))
            with trio.move_on_after(FOLLOW_S):
                await self._hint.wait()
            self._hint = trio.Event()

    async def catch_up(self) -> None:
        """Take over what the log has beyond what this node knows. EngineError where it cannot be read."""
        async with self._turn:
            asked_at, is_behind = self._clock(), True
            before = self.fact
            while is_behind:
                found = await self._engine.read_facts(BROKER_LOG, self.fact, PAGE)
                for each in found:
                    await self._take(each)
                is_behind = len(found) == PAGE
            if self.fact != before:
                await self._flush()
            elif self.fact:
                await self._look_for_loss()
            self.read_at = asked_at

    async def _look_for_loss(self) -> None:
        """Begin anew with a log that is another one: the engine has lost its data. What was taken over holds on."""
        record = await self._engine.owner(BROKER_LOG)
        if (0 if record is None else record.last_fact) < self.fact:
            log.error("the engine has lost the broker's log: nodes that start from now on do not know what it held")
            self.fact = 0

    async def _take(self, fact: StoredLogItem) -> None:
        (node, life), number, items, keys = read_fact(fact.body)
        self.fact = fact.fact
        own = self._own.pop(number, None) if (node, life) == self.origin else None
        on_applied = partial(self._on_applied, fact.fact, node, items, own)
        kept = items if self.keeps_reports else tuple(item for item in items if not isinstance(item, OutboxEntry))
        if not await self._apply(kept, keys, on_applied):
            on_applied(LedgerError(FailureKind.CLOSED, "the copy of the log cannot be written"))

    def _on_applied(
        self, fact: int, node: str, items: tuple[Item, ...], own: _Own | None, result: LedgerResult
    ) -> None:
        links = 0
        if not isinstance(result, Committed):
            self.reports_done([item for item in items if isinstance(item, OutboxEntry)])
        try:
            links = self.follow(items, result, own is not None)
        except Exception:
            log.exception("a change of another node cannot be taken over", node=node, fact=fact)
        if node != self.origin[0]:
            self.report(node, fact, links)
        elif own is not None:
            self._own_fact = fact
            own.on_done(result)
