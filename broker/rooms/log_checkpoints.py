"""Checkpoints of the broker's log, as its owner writes them: what its copy holds, in parts between the submissions.

The log is cut before a checkpoint that is complete, so it has at most the state twice, what was submitted meanwhile and
`MIN_BYTES`. A part is read from the copy when nothing else is being appended, so it is right at its place in the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from broker.engine.base import Engine, EngineError, Fenced, LogItem, RoomCheckpointRecord
from broker.ledger import LedgerRefused
from broker.ledger.copying import LOG_KEY, CopyCursor, read_changed, read_copy
from broker.rooms.broker_log import BROKER_LOG, BrokerLog, LogPart, pack_part
from broker.rooms.room_log import AGAIN_S, RoomLog, groups

__all__ = ["LogCheckpoints"]

log = structlog.get_logger("roomcast.broker_log")

MIN_BYTES = 4 * 1024 * 1024
"""Submissions between two checkpoints have at least so many bytes, and as many as the last checkpoint."""
PART_BYTES = 128 * 1024
CUT_AFTER_S = 10.0
"""Time from the end of a checkpoint until the log is cut: a node that is behind by more fills its copy anew."""

MAX_CHANGED = 20_000
"""Users and keys that change between the parts of a checkpoint; beyond, submissions wait for its end."""


class LogCheckpoints:
    """The checkpoints of one ownership. ``ask``: as `Ledger.ask`, of the copy; ``kind``: of the facts; ``at_ms``: Unix
    milliseconds."""

    # Any: each question has its own arguments and answer.
    def __init__(
        self,
        engine: Engine,
        followed: BrokerLog,
        ask: Callable[..., Awaitable[Any]],
        kind: int,
        at_ms: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._log = followed
        self._ask = ask
        self._kind = kind
        self._at_ms = at_ms
        self._begin: LogPart | None = None
        """How the checkpoint begins that is to be begun."""
        self._cursor: CopyCursor | None = None
        self._begun_at = 0
        self._is_new = False
        self._has_failed = False
        """Whether the copy cannot be read: another owner will write checkpoints."""

    @property
    def is_due(self) -> bool:
        """Whether a part is to be written now."""
        return not self._has_failed and self._is_wanted

    @property
    def holds_back(self) -> bool:
        """Whether submissions are to wait for the end of a checkpoint: too much has changed since it began."""
        changed = len(self._log.changed_users) + len(self._log.changed_keys)
        return self.is_due and self._cursor is not None and changed > MAX_CHANGED

    @property
    def _is_wanted(self) -> bool:
        return self._begin is not None or self._cursor is not None or self._has_grown

    @property
    def _has_grown(self) -> bool:
        return self._log.since_bytes > max(MIN_BYTES, self._log.checkpoint_bytes)

    def begin_anew(self, *, is_new: bool) -> None:
        """Write a checkpoint next: the engine has lost the log (``is_new``) or the end of it, and the copy has it."""
        self._begin, self._cursor, self._is_new = LogPart.BEGIN_ANEW, None, is_new

    async def name(self, fence: int) -> Fenced | None:
        """Note which log it is, where it is new. EngineError."""
        return await self._engine.note(BROKER_LOG, fence, b"%d" % fence)

    async def write(self, end: RoomLog, cut: Callable[[int], None]) -> bool:
        """Write one part; False: this node may not write any more, or the engine has lost facts. ``cut``: gets the
        fact with which a checkpoint begins that is complete now."""
        try:
            if self._is_new and await self.name(end.fence) is None:
                self._is_new = False
            await self._log.catch_up()
        except EngineError:
            await trio.sleep(AGAIN_S)
            return end.is_open
        cursor, begun_at = self._cursor, self._begun_at
        bodies = []
        if cursor is None or self._begin is not None:
            cursor, begun_at = CopyCursor(), end.fact + 1
            bodies.append(pack_part(self._begin or LogPart.BEGIN))
        try:
            items, following = await self._ask(read_copy, (*sorted(self._log.kinds), LOG_KEY), cursor, PART_BYTES)
            pages = [items] if items else []
            if following is None:
                users, keys = sorted(self._log.changed_users), sorted(self._log.changed_keys)
                pages += await self._ask(read_changed, users, keys, PART_BYTES)
        except (LedgerRefused, sqlite3.Error) as error:
            log.error("the broker's log cannot be cut: the copy cannot be read", why=str(error))
            self._has_failed = True
            return end.is_open
        bodies += [pack_part(LogPart.ROWS, page) for page in pages]
        if following is None:
            bodies.append(pack_part(LogPart.END))
        now_ms = self._at_ms()
        for group in groups(bodies):  # nothing comes between them
            if not await end.append([LogItem(None, self._kind, now_ms, body) for body in group]):
                return False
        self._begin, self._cursor, self._begun_at = None, following, begun_at
        if following is None:
            await self._take_over()
            log.info("checkpoint of the broker's log", begins_at=begun_at, facts=end.fact - begun_at + 1)
            cut(begun_at)
        return True

    async def _take_over(self) -> None:
        """Let this node follow its own checkpoint, so that the next is not due at once."""
        try:
            await self._log.catch_up()
        except EngineError:
            await trio.sleep(AGAIN_S)

    async def cut(self, end: RoomLog, begun_at: int) -> None:
        """Cut the log before a checkpoint, once nodes have had the time to pass it."""
        await trio.sleep(CUT_AFTER_S)
        while end.is_open:
            try:
                await self._engine.write_checkpoint(BROKER_LOG, RoomCheckpointRecord(end.fence, 0, begun_at - 1, b""))
            except EngineError:
                await trio.sleep(AGAIN_S)
            else:
                return
