"""Logs that this node owns, each with the submissions that wait to be appended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

import trio

from broker.ledger import Item, Key, LedgerResult
from broker.rooms.room_log import MAX_GROUP, RoomLog, groups
from broker.rooms.submissions import pack_submission

__all__ = ["SharedLog", "WaitingSubmission", "first_group"]


class WaitingSubmission:
    """A submission that the engine has not answered."""

    __slots__ = ("body", "items", "keys", "on_done")

    def __init__(
        self,
        items: tuple[Item, ...],
        keys: tuple[Key, ...],
        on_done: Callable[[LedgerResult], None],
        body: bytes = b"",
    ) -> None:
        self.items = items
        self.keys = keys
        self.on_done = on_done
        self.body = body or pack_submission(items, keys)


class SharedLog:
    """A room that this node owns: its log, and what waits to be written. ``has_work``: the engine names it as one that
    has work."""

    def __init__(self, end: RoomLog, has_work: bool) -> None:
        self.end = end
        self.has_work = has_work
        self.waiting: deque[WaitingSubmission] = deque()
        self.nbytes = 0
        self.work = trio.Event()


def first_group(shared: SharedLog) -> list[WaitingSubmission]:
    """Return what of the waiting submissions goes into one append."""
    first = list(islice(shared.waiting, MAX_GROUP))
    return first[: len(next(groups([waiting.body for waiting in first])))]
