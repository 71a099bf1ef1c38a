"""Order of one endpoint's deliveries: one at a time in a line, many lines beside each other, a bounded part in memory.

What waits is in the ledger, with ascending ids. It is read in pages, by two kinds of reads: a *scan* goes on where the
last one ended; where a line has more than is kept here, the rest of it is passed over, and a *refill* reads that line
again when it has been delivered. So one line that fails holds up no other, and memory is bounded whatever waits.

The caller makes one read at a time, and reports its result before the next. Ids become visible in their order.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["LineRow", "Lines", "Read"]

MAX_ROWS = 2000
MAX_BYTES = 4 * 1024 * 1024
LINE_ROWS = 100
"""Rows of one line in memory."""
MIN_REFILL = 4
"""Rows of a refill while memory is full: a line that was passed over must go on."""


class LineRow(Protocol):
    """What the ledger has of one delivery."""

    @property
    def id(self) -> int:
        """Number of the row."""

    @property
    def line(self) -> str:
        """Name of the line."""

    @property
    def due_at_ms(self) -> int | None:
        """When it may be tried."""

    @property
    def body(self) -> bytes:
        """Content."""


R = TypeVar("R", bound=LineRow)


class Read(NamedTuple):
    """A page to be read: at most ``limit`` rows with ids above ``after``, of one line or (None) of all."""

    line: str | None
    after: int
    limit: int


class _Line(Generic[R]):
    __slots__ = ("due_ms", "has_more", "is_busy", "last_id", "rows")

    def __init__(self) -> None:
        self.rows: deque[R] = deque()
        self.is_busy = False
        self.due_ms = 0
        self.last_id = 0
        """Newest row that was kept here."""
        self.has_more = False
        """Whether the ledger has rows of it above ``last_id`` that were passed over."""


class Lines(Generic[R]):
    """Deliveries of one endpoint. ``in_flight`` and ``rows`` count what is under way and what is in memory."""

    def __init__(self, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES, line_rows: int = LINE_ROWS) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._line_rows = line_rows
        self._lines: dict[str, _Line[R]] = {}
        self._ready: list[tuple[int, int, str]] = []
        """Heap of (due, id of the first row, line); an entry whose line has another first row or time is stale."""
        self._refills: dict[str, None] = {}
        """Lines that want a refill."""
        self._passed: dict[str, None] = {}
        """Lines of which a refill has brought more than the scan has passed."""
        self._scanned = 0
        self._is_at_end = False
        self._reads = False
        self.rows = 0
        self.bytes = 0
        self.in_flight = 0

    # ---- reading

    def wake(self) -> None:
        """Note that the ledger may have new rows."""
        self._is_at_end = False

    def next_read(self) -> Read | None:
        """Return the page to be read next; None while there is enough in memory, or nothing more. `add` follows."""
        if self._reads:
            return None
        if self._refills:
            line = next(iter(self._refills))
            self._reads = True
            limit = max(MIN_REFILL, min(self._line_rows, self._max_rows - self.rows))
            return Read(line, self._lines[line].last_id, limit)
        if self._is_at_end or self.rows >= self._max_rows or self.bytes >= self._max_bytes:
            return None
        self._reads = True
        self._is_at_end = True  # unless `wake` comes meanwhile, or the page is not the last
        return Read(None, self._scanned, self._max_rows - self.rows)

    @property
    def wants_read(self) -> bool:
        """Whether `next_read` would return a page."""
        return not self._reads and (
            bool(self._refills) or not (self._is_at_end or self.rows >= self._max_rows or self.bytes >= self._max_bytes)
        )

    def add(self, read: Read, rows: Sequence[R], is_all: bool) -> None:
        """Take the result of a read; ``is_all``: there was nothing after it in the ledger."""
        self._reads = False
        if read.line is None:
            for row in rows:
                self._scanned = row.id
                self._add(row)
            if not is_all:
                self._is_at_end = False
            for name in list(self._passed):
                line = self._lines[name]
                if is_all or line.last_id <= self._scanned:
                    self._scanned = max(self._scanned, line.last_id)
                    del self._passed[name]
                    self._forget(name)
            return
        self._refills.pop(read.line, None)
        line = self._lines[read.line]
        line.has_more = not is_all
        for row in rows:
            if row.id > line.last_id:
                self._keep(line, row)
        if line.last_id > self._scanned:
            self._passed[read.line] = None
        self._want_refill(read.line, line)
        self._forget(read.line)

    def failed_read(self, read: Read) -> None:
        """Take the failure of a read: it is made again."""
        self._reads = False
        if read.line is None:
            self._is_at_end = False

    def _add(self, row: R) -> None:
        line = self._lines.get(row.line)
        if line is None:
            line = self._lines[row.line] = _Line()
        if row.id <= line.last_id:
            return  # a refill has brought it
        if line.has_more or len(line.rows) >= self._line_rows:
            line.has_more = True
            self._want_refill(row.line, line)
        else:
            self._keep(line, row)

    def _keep(self, line: _Line[R], row: R) -> None:
        line.rows.append(row)
        line.last_id = row.id
        self.rows += 1
        self.bytes += len(row.body)
        if len(line.rows) == 1 and not line.is_busy:
            self._arm(row.line, line, row.due_at_ms or 0)

    def _arm(self, name: str, line: _Line[R], due_ms: int) -> None:
        line.due_ms = due_ms
        heapq.heappush(self._ready, (due_ms, line.rows[0].id, name))

    def _want_refill(self, name: str, line: _Line[R]) -> None:
        """Ask for more of a line once all of it that was here is delivered, or under way."""
        if line.has_more and len(line.rows) <= line.is_busy:
            self._refills[name] = None

    def _forget(self, name: str) -> None:
        """Forget a line of which nothing waits, unless the scan has yet to pass what a refill has brought."""
        line = self._lines[name]
        if not line.rows and not line.has_more and not line.is_busy and name not in self._passed:
            del self._lines[name]

    # ---- delivering

    def next_due_ms(self) -> float:
        """Return when the next delivery may start; `inf` while none waits."""
        self._drop_stale()
        return self._ready[0][0] if self._ready else inf

    def start(self, now_ms: int) -> R | None:
        """Return the delivery that is due longest and mark it as under way; None if none is due."""
        self._drop_stale()
        if not self._ready or self._ready[0][0] > now_ms:
            return None
        _, _, name = heapq.heappop(self._ready)
        line = self._lines[name]
        line.is_busy = True
        self.in_flight += 1
        self._want_refill(name, line)
        return line.rows[0]

    def finished(self, row: R) -> None:
        """Take the end of a delivery that was under way, whether it succeeded or was given up: the line goes on."""
        line = self._end(row)
        if line.rows and line.rows[0].id == row.id:
            self._drop(line.rows.popleft())
        self._go_on(row.line, line)

    def failed(self, row: R, due_at_ms: int) -> None:
        """Take the failure of a delivery: it is tried again at ``due_at_ms``, and its line waits for it.

        Of a line that fails only the first row stays in memory.
        """
        line = self._end(row)
        if line.rows and line.rows[0].id == row.id:
            while len(line.rows) > 1:
                self._drop(line.rows.pop())
                line.has_more = True
            if line.has_more:
                line.last_id = line.rows[0].id
                self._refills.pop(row.line, None)
            self._arm(row.line, line, due_at_ms)
        else:
            self._go_on(row.line, line)

    def drop(self, ids: Iterable[int]) -> None:
        """Forget rows that are not in the ledger any more; one that is under way ends as any other."""
        gone = set(ids)
        for name, line in list(self._lines.items()):
            kept = deque(row for row in line.rows if row.id not in gone)
            if len(kept) == len(line.rows):
                continue
            was_first = bool(kept) and kept[0] is line.rows[0]
            for row in line.rows:
                if row.id in gone:
                    self._drop(row)
            line.rows = kept
            if not line.is_busy and not was_first:
                self._go_on(name, line)

    def retry_now(self) -> None:
        """Make every delivery due that waits after a failure."""
        for name, line in self._lines.items():
            if line.rows and not line.is_busy and line.due_ms:
                self._arm(name, line, 0)

    def _end(self, row: R) -> _Line[R]:
        line = self._lines[row.line]
        line.is_busy = False
        self.in_flight -= 1
        return line

    def _go_on(self, name: str, line: _Line[R]) -> None:
        self._want_refill(name, line)
        if line.rows:
            self._arm(name, line, line.rows[0].due_at_ms or 0)
        else:
            self._forget(name)

    def _drop(self, row: R) -> None:
        self.rows -= 1
        self.bytes -= len(row.body)

    def _drop_stale(self) -> None:
        while self._ready:
            due_ms, first_id, name = self._ready[0]
            line = self._lines.get(name)
            if (
                line is not None
                and not line.is_busy
                and line.rows
                and line.rows[0].id == first_id
                and line.due_ms == due_ms
            ):
                return
            heapq.heappop(self._ready)
