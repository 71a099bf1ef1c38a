"""The whole broker as Server-Sent Events: ``GET /stats`` on the control API's listener, one event a second.

For keys of no tenant with the scope admin. All readers share the text of a second. The last quarter of an hour is kept
as well (`broker.telemetry.history`), so that a chart has a past when its page is opened.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from broker.core.tenants.names import plain_name, split_name
from broker.http.live import RETRY_MS, LiveStreams, StreamResponse, piece
from broker.operations.parts import Parts
from broker.operations.rooms import stats_of
from broker.telemetry.history import SecondHistory

__all__ = ["OverviewParts", "OverviewResponse", "OverviewTexts", "overview_texts"]

EVERY_S = 1.0
MAX_SHARE = 0.01
"""Part of the time that samples for the history may take."""
Sample = Callable[[], Awaitable[tuple[dict[str, Any], list[str]]]]


@dataclass(frozen=True, slots=True)
class OverviewParts:
    """What the stream uses. ``sample``: the numbers of the broker, and the names of its largest rooms; ``more``: the
    fields of its status, its webhooks and of those rooms."""

    sample: Sample
    more: Callable[[list[str]], dict[str, Any]]
    is_draining: Callable[[], bool]


def overview_parts(parts: Parts, sample: Sample, is_draining: Callable[[], bool]) -> OverviewParts:
    """Return what the stream uses of a broker."""
    version = importlib.metadata.version("roomcast")

    def room_fields(name: str) -> dict[str, Any] | None:
        room = parts.hub.find(name)
        if room is None:
            return None
        stats, state = stats_of(parts, room, 1), room.state
        chat = stats.lanes["chat"]
        series = stats.series
        return {
            "room": plain_name(name), "tenant": split_name(name)[0], "title": state.title,
            "phase": state.phase.name.lower(), "online": stats.online, "likes": stats.likes,
            "messages_per_s": 0 if series is None or not series.messages else series.messages[-1],
            "admitted": chat["admitted"], "merged": chat["merged"], "sampled": chat["sampled"],
        }  # fmt: skip

    def more(rooms: list[str]) -> dict[str, Any]:
        ready, fields = parts.control.status()
        hooks = None
        if parts.webhooks is not None:
            views = parts.webhooks.statuses()
            hooks = {
                "waiting": sum(view.waiting for view in views), "dead": sum(view.dead for view in views),
                "oldest_ms": max((view.oldest_ms for view in views), default=0),
                "open": sum(view.state.value != "closed" for view in views),
            }  # fmt: skip
        return {
            "at_ms": parts.unix_ms(), "ready": ready, **{name: fields[name] for name in ("status", "stage")},
            "reason": str(fields.get("ledger_reason") or fields.get("clock") or ""),
            "version": version, "pid": os.getpid(), "uptime_ms": parts.control.uptime_ms(),
            "keeps": parts.ledger is not None, "hooks": hooks,
            "top": [found for name in rooms if (found := room_fields(name)) is not None],
        }  # fmt: skip

    return OverviewParts(sample, more, is_draining)


class OverviewTexts:
    """The text of the last second, shared by all streams, and the history of those before."""

    def __init__(self, parts: OverviewParts, clock: Callable[[], float]) -> None:
        self.parts = parts
        self._clock = clock
        self._made_at = float("-inf")
        self._data = b""
        self._making = trio.Lock()
        self._history = SecondHistory()

    async def text(self) -> bytes:
        """Return the event of this second."""
        async with self._making:
            if self._clock() >= self._made_at + EVERY_S * 0.9:
                numbers, rooms = await self.parts.sample()
                fields = self.parts.more(rooms) | numbers
                self._history.add(fields)
                self._data = b"data: %b\n\n" % json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
                self._made_at = self._clock()
            return self._data

    async def past(self, seconds: int) -> bytes:
        """Return the event of the seconds before: columns of numbers by name, see `SecondHistory`."""
        await self.text()
        columns = self._history.columns(seconds)
        return b"event: history\ndata: %b\n\n" % json.dumps(columns, separators=(",", ":")).encode()

    @asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        """Take samples for the history within the block."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            yield
            nursery.cancel_scope.cancel()

    async def run(self) -> None:
        """Take a sample each second, for the history, until cancelled; fewer where they would take more than one
        hundredth of the time, as with very many rooms."""
        while True:
            begin = trio.current_time()
            await self.text()
            await trio.sleep(max(EVERY_S, (trio.current_time() - begin) / MAX_SHARE))


def overview_texts(
    parts: Parts, sample: Sample, is_draining: Callable[[], bool], clock: Callable[[], float]
) -> OverviewTexts:
    """Return the texts of a broker's seconds. ``clock``: in seconds."""
    return OverviewTexts(overview_parts(parts, sample, is_draining), clock)


class OverviewResponse(StreamResponse):
    """Stream of the whole broker: an event a second until it drains. ``seconds`` of the past come first, 0 = none."""

    def __init__(
        self, texts: OverviewTexts, streams: LiveStreams, key: str, holds: Callable[[], bool], seconds: int
    ) -> None:
        super().__init__(streams, key, holds)
        self._seconds = seconds
        self._texts = texts

    async def _stream(self, send: Any) -> None:
        await send(piece(b"retry: %d\n\n" % RETRY_MS))
        if self._seconds:
            await send(piece(await self._texts.past(self._seconds)))
        while not self._texts.parts.is_draining() and self._holds():
            await send(piece(await self._texts.text()))
            await trio.sleep(EVERY_S)
