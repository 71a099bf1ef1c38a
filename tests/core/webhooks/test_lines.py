"""Order of deliveries: whatever fails, is dropped or restarts, each line's reports arrive in order and none is lost."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.webhooks.lines import MIN_REFILL, Lines, Read
from tests.support.examples import examples


class Row(NamedTuple):
    id: int
    line: str
    due_at_ms: int | None
    body: bytes = b"x"


MAX_ROWS, LINE_ROWS = 6, 3
names = st.sampled_from("abc")


class LinesMachine(RuleBasedStateMachine):
    """A ledger as a dictionary, reads that take their time, deliveries that end in any order, and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger: dict[int, Row] = {}
        self.last_id = 0
        self.now = 1
        self.delivered: dict[str, list[int]] = {}
        """Ids in the order in which the receiver took them, by line."""
        self.undeleted: list[int] = []
        """Delivered, and still in the ledger: their deletion is on its way."""
        self.dropped: set[int] = set()
        self.restart()

    @rule()
    def restart(self) -> None:
        self.lines: Lines[Row] = Lines(max_rows=MAX_ROWS, max_bytes=1000, line_rows=LINE_ROWS)
        self.reading: tuple[Read, list[Row], bool] | None = None
        self.in_flight: list[Row] = []
        self.undeleted.clear()
        self.handed: dict[str, int] = {}
        """Last id of each line that was handed out in this run."""

    @rule(line=names, count=st.integers(1, 5))
    def write(self, line: str, count: int) -> None:
        for _ in range(count):
            self.last_id += 1
            self.ledger[self.last_id] = Row(self.last_id, line, 0)
        self.lines.wake()

    @rule()
    def read(self) -> None:
        if self.reading is not None:
            read, rows, is_all = self.reading
            self.reading = None
            self.lines.add(read, rows, is_all)
            return
        asked = self.lines.next_read()
        if asked is not None:
            found = [row for row in self.ledger.values() if row.id > asked.after and asked.line in (None, row.line)]
            self.reading = asked, found[: asked.limit], len(found) < asked.limit

    @precondition(lambda self: self.reading is not None)
    @rule()
    def fail_to_read(self) -> None:
        assert self.reading is not None
        self.lines.failed_read(self.reading[0])
        self.reading = None

    @rule()
    def start(self) -> None:
        row = self.lines.start(self.now)
        if row is not None:
            assert row.id in self.ledger
            assert row.line not in {other.line for other in self.in_flight}, "one at a time"
            assert row.id >= self.handed.get(row.line, 0), "in order"
            self.handed[row.line] = row.id
            self.in_flight.append(row)

    @precondition(lambda self: self.in_flight)
    @rule(pick=st.integers(0, 5))
    def succeed(self, pick: int) -> None:
        row = self.in_flight.pop(pick % len(self.in_flight))
        self.delivered.setdefault(row.line, []).append(row.id)
        self.undeleted.append(row.id)
        self.lines.finished(row)

    @precondition(lambda self: self.in_flight)
    @rule(pick=st.integers(0, 5), wait=st.integers(0, 3), arrived=st.booleans())
    def fail(self, pick: int, wait: int, arrived: bool) -> None:
        """``arrived``: the receiver took it, and its answer was lost."""
        row = self.in_flight.pop(pick % len(self.in_flight))
        if arrived:
            self.delivered.setdefault(row.line, []).append(row.id)
        if row.id in self.ledger:
            self.ledger[row.id] = row._replace(due_at_ms=self.now + wait)
        self.lines.failed(row, self.now + wait)

    @rule()
    def delete(self) -> None:
        for each in self.undeleted:
            self.ledger.pop(each, None)
        self.undeleted.clear()

    @precondition(lambda self: self.ledger)
    @rule(pick=st.integers(0, 20))
    def drop(self, pick: int) -> None:
        each = sorted(self.ledger)[pick % len(self.ledger)]
        del self.ledger[each]
        self.dropped.add(each)
        # What is being read may still have it: the caller drops it from there too.
        if self.reading is not None:
            read, rows, is_all = self.reading
            self.reading = read, [row for row in rows if row.id != each], is_all
        self.lines.drop([each])

    @rule()
    def wait(self) -> None:
        self.now += 1

    @rule()
    def recover(self) -> None:
        self.lines.retry_now()

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.lines.in_flight == len(self.in_flight)
        assert 0 <= self.lines.rows <= MAX_ROWS + 3 * max(LINE_ROWS, MIN_REFILL)

    def teardown(self) -> None:
        """With a receiver that works, everything arrives, in order."""
        for _ in range(2000):
            self.read()
            self.now += 1
            self.start()
            if self.in_flight:
                self.succeed(0)
            self.delete()
        assert self.ledger == {}
        assert self.lines.next_due_ms() == inf
        assert self.lines.rows == self.lines.bytes == 0
        for line, ids in self.delivered.items():
            firsts = list(dict.fromkeys(ids))
            assert firsts == sorted(firsts), f"line {line}"
        everything = {each for ids in self.delivered.values() for each in ids}
        assert everything | self.dropped == set(range(1, self.last_id + 1))


TestLines = LinesMachine.TestCase
TestLines.settings = examples(150, steps=60)


def test_a_line_that_fails_holds_up_no_other_and_keeps_one_row() -> None:
    lines: Lines[Row] = Lines(max_rows=100, line_rows=10)
    rows = [Row(number, "bad" if number % 2 else "good", 0) for number in range(1, 21)]
    read = lines.next_read()
    assert read == Read(None, 0, 100)
    lines.add(read, rows, True)
    assert lines.next_read() is None
    bad = lines.start(1)
    assert bad is not None
    assert (bad.id, bad.line) == (1, "bad")
    good = []
    while (row := lines.start(1)) is not None:
        good.append(row.id)
        lines.finished(row)
    assert good == list(range(2, 21, 2))
    lines.failed(bad, 5)
    assert lines.rows == 1
    assert lines.start(4) is None
    assert lines.next_due_ms() == 5
    assert lines.start(5) is bad
    assert lines.next_read() == Read("bad", 1, 10), "the rest of the line is read again"


def test_a_delivery_waits_for_the_time_that_the_ledger_has() -> None:
    lines: Lines[Row] = Lines()
    read = lines.next_read()
    assert read is not None
    lines.add(read, [Row(1, "a", 50), Row(2, "b", 20)], True)
    assert lines.start(19) is None
    second = lines.start(20)
    assert second is not None
    assert second.id == 2
    assert lines.next_due_ms() == 50
