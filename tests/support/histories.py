"""Histories of nodes that fight for a room, and the laws that a checker holds against the log."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import trio

from broker.engine.base import (
    Appended,
    Engine,
    EngineError,
    Fenced,
    Granted,
    KeysKnown,
    KeyWrite,
    OwnerRecord,
    StoredLogItem,
)
from tests.support.engines import MARKER, event

__all__ = ["ROOM", "History", "write"]

ROOM = "room"


class History:
    """What the nodes were answered."""

    def __init__(self) -> None:
        self.fences: list[int] = []
        self.acknowledged: dict[bytes, int] = {}
        """Offset of each request."""

    def violations(self, log: Sequence[StoredLogItem]) -> list[str]:
        """Check the laws against the log as it is in the end."""
        found = []
        offsets = [each.offset for each in log]
        if offsets != list(range(1, len(log) + 1)):
            found.append("offsets have a hole, or are given twice")
        if [each.fence for each in log] != sorted(each.fence for each in log):
            found.append("a fence falls")
        if len(set(self.fences)) != len(self.fences):
            found.append("a fence is given twice")
        requests = [each.body for each in log if each.body != MARKER.body]
        if len(set(requests)) != len(requests):
            found.append("a request is written twice")
        written = {(each.offset, each.body) for each in log}
        if any((offset, request) not in written for request, offset in self.acknowledged.items()):
            found.append("an acknowledged request is not in the log at its offset")
        return found


async def write(
    engine: Engine, name: str, history: History, rng: random.Random, has_ended: Callable[[], bool] = lambda: True
) -> None:
    """Claim the room again and again, and write requests under each claim; one that is unknown is asked again.

    At least 30 claims, and until ``has_ended``.
    """
    number = turns = 0
    while turns < 30 or not has_ended():
        turns += 1
        try:
            known: OwnerRecord | None = await engine.owner(ROOM)
            granted = await engine.claim(ROOM, 0 if known is None else known.fence, MARKER)
            if not isinstance(granted, Granted):
                continue
            history.fences.append(granted.fence)
            last = granted.offset
        except EngineError:
            await trio.sleep(0.02)
            continue
        for _ in range(rng.randrange(1, 12)):
            request = f"{name}{number}".encode()
            key = KeyWrite(request.ljust(16, b"."), b"12345678", 3_600_000, item=0)
            try:
                result = await engine.append(ROOM, granted.fence, last, 0, [event(request)], (), [key])
            except EngineError:
                try:
                    known = await engine.owner(ROOM)
                except EngineError:
                    break
                if known is None or (known.node, known.fence) != (name, granted.fence):
                    break
                last = known.last_offset
                continue
            if isinstance(result, Appended):
                last = history.acknowledged[request] = result.last_offset
            elif isinstance(result, KeysKnown):
                history.acknowledged[request] = result.first[key.digest].offset
            elif isinstance(result, Fenced):
                break
            else:
                last = result.last_offset
                continue
            number += 1
