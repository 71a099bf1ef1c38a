"""The broker's log: what is about no room and holds on every node (sanctions, revocations, inboxes), in one order.

It is a log of the engine as that of a room. A submission of any node goes to the log's owner, which appends it. Every
node reads what the log has and takes it over in that order, the node that submitted it too: only then it is answered.
So all nodes have the same tables and inboxes. A node reports to the one that has submitted something when it has taken
it over: `wait_followed` says which have not.

The owner writes a checkpoint of its copy into the log now and then (`broker.rooms.log_checkpoints`), and the log is cut
before it. Nodes that have followed the log pass a checkpoint over; one that starts, or that was away until the log was
cut, fills its copy with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import structlog
import trio

from broker.engine.base import Engine, EngineError, StoredLogItem
from broker.ledger import (
    Committed,
    CopyCleared,
    CopyFilled,
    DirectAcked,
    DirectEntry,
    DirectsCancelled,
    DirectsRemoved,
    FailureKind,
    Item,
    Key,
    LedgerError,
    LedgerResult,
    OutboxEntry,
    OutboxRedacted,
    RecordPut,
    RecordRemoved,
)
from broker.ledger.copying import LOG_KEY, changes_inboxes, key_mark
from broker.rooms.submissions import pack_submission, read_submission
from protocol.compression import pack_block, unpack_block
from protocol.frames import pack_body, unpack_body

__all__ = ["BROKER_LOG", "BrokerLog", "Followed", "LogPart", "OnHeld", "pack_part", "read_fact"]

log = structlog.get_logger("roomcast.broker_log")

OnHeld = Callable[[int], None]
"""Is called once what was taken over holds on this node, with how many links of this node it concerned."""

BROKER_LOG = "\0broker"
"""Name of the log; no room has a name like it."""
MAX_PART_BYTES = 16 * 1024 * 1024
"""Of a part of a checkpoint as it is unpacked: far above any that is written."""
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
_OF_USER = (DirectEntry, DirectAcked, DirectsCancelled, DirectsRemoved)
MAX_KNOWN = 1000
"""Last facts of this node of which it is known who has taken them over."""


class LogPart(IntEnum):
    """What a fact of a checkpoint is."""

    BEGIN = 1
    """What follows, up to END, is a checkpoint and submissions between its parts."""
    BEGIN_ANEW = 2
    """As BEGIN; what was before it the engine has lost, so the log is complete from its END on."""
    ROWS = 3
    END = 4


def pack_part(part: LogPart, items: Sequence[Item] = ()) -> bytes:
    """Return a fact of a checkpoint. It is compressed, to half and less: the rows of a checkpoint are alike."""
    return pack_body((("", ""), part, pack_block(pack_submission(items, ()))))


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
    if not origin[0]:
        packed = unpack_block(packed, MAX_PART_BYTES)
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
        self.decided: frozenset[str] = frozenset()
        """Kinds of the records that the log's owner alone decides: a submission with one is appended under the fence
        with which it was decided, or refused."""
        self.append: Callable[[bytes], bool] = lambda body: False
        """Appends a submission where this node owns the log; False: it does not, or too much waits."""
        self.submit: Callable[[bytes], None] | None = None
        """Brings a submission to the log's owner; None: this node takes no part yet."""
        self.follow: Callable[[Sequence[Item], LedgerResult, bool, OnHeld], None] = (
            lambda items, result, is_own, on_held: on_held(0)
        )
        """Takes over what is to hold on this node; ``is_own``: this node has submitted it."""
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
        self.on_filled: Callable[[], Awaitable[None]] | None = None
        """Called when the copy was filled by a checkpoint: what is in memory is to be read from it again."""
        self.on_checkpoint: Callable[[], None] = lambda: None
        """Called when a checkpoint is complete."""
        self.first_holds: frozenset[str] = frozenset()
        """Kinds of records of which the first holds: later ones are ignored."""
        self.fact = 0
        """Number of the last fact that was taken over."""
        self.knows = False
        """Whether anything was taken over."""
        self.is_filling = True
        """Whether the copy is incomplete: this node has begun, or cannot follow the log any more."""
        self.has_lost = False
        """Whether the engine has lost some of the log, and no checkpoint has brought it back to an end yet."""
        self.begun_at = 0
        """Fact with which the last complete checkpoint begins, 0 = there is none."""
        self.checkpoint_bytes = 0
        """Bodies of the last complete checkpoint."""
        self.changed_users: set[str] = set()
        """Users whose inboxes have changed since the last checkpoint began, complete or not."""
        self.changed_keys: set[bytes] = set()
        """Keys of those submissions, by digest."""
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
        self._lineage = b""
        """Which log is followed, as its note says; after a loss of the engine's data it is another one."""
        self._firsts: set[tuple[str, str, str]] = set()
        self._begin: LogPart | None = None
        """How the checkpoint begins whose end is still to come."""
        self._begin_fact = self._part_bytes = self._since_bytes = self._since_begin = 0
        self._has_filled = False

    @property
    def is_stale(self) -> bool:
        """Whether the log could not be read for so long that this node admits no user."""
        return self._clock() - self.read_at > STALE_S

    @property
    def since_bytes(self) -> int:
        """Bodies of the submissions since the last complete checkpoint began."""
        return self._since_bytes

    # ---- what this node submits

    def record(
        self, items: tuple[Item, ...], keys: tuple[Key, ...], on_done: Callable[[LedgerResult], None]
    ) -> bool | None:
        """Submit items; ``on_done`` gets the result once they are in the log and taken over here. False: too much
        waits; None: this node takes no part yet, or does not own the log that it must own to decide this."""
        if self.submit is None:
            return None
        if len(self._own) >= MAX_OWN:
            return False
        self._last += 1
        self._own[self._last] = _Own(on_done, self._clock() + PATIENCE_S)
        body = pack_body((self.origin, self._last, pack_submission(items, keys)))
        if not any(isinstance(item, (RecordPut, RecordRemoved)) and item.kind in self.decided for item in items):
            self.submit(body)
        elif not self.append(body):
            del self._own[self._last]
            return None
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
                if found and found[0].fact != self.fact + 1 and self.knows:
                    await self._begin_anew()
                for each in found:
                    await self._take(each)
                is_behind = len(found) == PAGE
            if self.fact != before:
                await self._flush()
            if self.fact == before or not self._lineage:
                await self._look_for_loss()
            if self._begin is not LogPart.BEGIN_ANEW:
                await self._end_filling()
            self.read_at = asked_at

    async def complete(self) -> None:
        """Take that the copy has all that there is of the log, although the checkpoint that it ends with has no end:
        who has written it is gone."""
        async with self._turn:
            self._begin = None
            await self._end_filling()

    async def _end_filling(self) -> None:
        self.is_filling = False
        if self._has_filled:
            self._has_filled = False
            await self._flush()
            if self.on_filled is not None:
                await self.on_filled()

    async def _begin_anew(self) -> None:
        """Fill the copy anew: the log was cut behind what this node knows."""
        log.error("this node was away until the log was cut: what holds on every node is read anew")
        self.is_filling = self._has_filled = True
        self._firsts.clear()
        await self._apply((CopyCleared((*self.kinds, LOG_KEY)),), (), lambda result: None)

    async def _look_for_loss(self) -> None:
        """Begin with another log where the engine has lost its data. What was taken over holds on."""
        record = await self._engine.owner(BROKER_LOG)
        note, last = (b"", 0) if record is None else (record.note, record.last_fact)
        is_other = bool(self._lineage) and note != self._lineage
        if is_other or last < self.fact:
            log.error("the engine has lost the broker's log, or the end of it")
            self.fact = last if not is_other and note else 0
            self.has_lost = True
        self._lineage = note

    async def _take(self, fact: StoredLogItem) -> None:
        (node, life), number, items, keys = read_fact(fact.body)
        self.fact = fact.fact
        self.knows = True
        if not node:
            return await self._take_part(LogPart(number), items, fact)
        self._since_bytes += len(fact.body)
        self._since_begin += len(fact.body)
        own = self._own.pop(number, None) if (node, life) == self.origin else None
        if self._begin is not None and any(map(changes_inboxes, items)):
            if self.is_filling:
                return await self._take_without_inboxes(fact.fact, node, items, own)
            self.changed_users.update(item.user for item in items if isinstance(item, _OF_USER) and item.user)
            self.changed_keys.update(key.digest for key in keys)
        on_applied = partial(self._on_applied, fact.fact, node, items, own)
        marks = tuple(key_mark(key.digest) for key in keys)
        holding = (*self._holding(items), *marks)
        if not holding:
            on_applied(Committed())
        elif not await self._apply(holding, keys, on_applied):
            on_applied(LedgerError(FailureKind.CLOSED, "the copy of the log cannot be written"))

    async def _take_without_inboxes(self, fact: int, node: str, items: tuple[Item, ...], own: _Own | None) -> None:
        """Take what is between the parts of a checkpoint while it fills the copy: how the inboxes are then comes at
        its end. Where this node has submitted it, its outcome is known then too: it is to ask again."""
        rest = tuple(item for item in items if not changes_inboxes(item))
        self._has_filled = True
        if holding := self._holding(rest):
            await self._apply(holding, (), partial(self._on_applied, fact, node, rest, None))
        elif node != self.origin[0]:
            self.report(node, fact, 0)
        if own is not None:
            own.on_done(LedgerError(FailureKind.IO_ERROR, "this node has begun anew: ask again"))

    async def _take_part(self, part: LogPart, items: tuple[Item, ...], fact: StoredLogItem) -> None:
        """Take a fact of a checkpoint."""
        if part in (LogPart.BEGIN, LogPart.BEGIN_ANEW):
            self._begin, self._begin_fact, self._part_bytes, self._since_begin = part, fact.fact, 0, 0
            self.changed_users, self.changed_keys = set(), set()
        elif part is LogPart.END:
            self._begin, self.has_lost = None, False
            self.begun_at, self.checkpoint_bytes, self._since_bytes = (
                self._begin_fact, self._part_bytes, self._since_begin,
            )  # fmt: skip
            self.on_checkpoint()
        self._part_bytes += len(fact.body)
        if self.is_filling and items:
            self._has_filled = True
            rows = tuple(item for item in items if not isinstance(item, CopyFilled))
            filled = tuple(item for item in items if isinstance(item, CopyFilled))
            if holding := (*self._holding(rows), *filled):
                await self._apply(holding, (), lambda result: None)

    def _holding(self, items: tuple[Item, ...]) -> tuple[Item, ...]:
        """Return the items without the records of which an earlier one holds, and the reports that others send."""
        holding: list[Item] = []
        for item in items:
            if isinstance(item, (OutboxEntry, OutboxRedacted)) and not self.keeps_reports:
                continue
            if isinstance(item, RecordPut) and item.kind in self.first_holds:
                if item[:3] in self._firsts:
                    continue
                self._firsts.add(item[:3])
            holding.append(item)
        return tuple(holding)

    def _on_applied(
        self, fact: int, node: str, items: tuple[Item, ...], own: _Own | None, result: LedgerResult
    ) -> None:
        if self._begin is not None and isinstance(result, Committed):
            self.changed_users.update(user for user, _ in result.cancelled)
        on_held: OnHeld = (lambda links: None) if node == self.origin[0] else partial(self.report, node, fact)
        try:
            self.follow(items, result, own is not None, on_held)
        except Exception:
            log.exception("a change of another node cannot be taken over", node=node, fact=fact)
            on_held(0)
        if node == self.origin[0] and own is not None:
            self._own_fact = fact
            own.on_done(result)
