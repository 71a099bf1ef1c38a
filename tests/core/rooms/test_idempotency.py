"""First results against a list of everything that ever happened."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.rooms.idempotency import KEY_REUSED, MAX_WAITING, IdempotencyTable, OperationKey, StoredResult
from protocol.codes import Outcome
from tests.support.examples import examples

KEYS = st.builds(
    lambda name, content: OperationKey((name,), content), st.sampled_from("abcdef"), st.sampled_from([b"1", b"2"])
)
WINDOW_S = 10.0


class IdempotencyMachine(RuleBasedStateMachine):
    """A result is never wrong, is there for a window unless the table is full, and is gone after two."""

    def __init__(self) -> None:
        super().__init__()
        self.results: IdempotencyTable[int] = IdempotencyTable(WINDOW_S, max_keys=8)
        self.now = 100.0
        self.open: dict[OperationKey, list[int]] = {}
        self.settled: dict[OperationKey, tuple[float, StoredResult]] = {}
        self.tickets = 0

    @rule(key=KEYS)
    def ask(self, key: OperationKey) -> None:
        self.tickets += 1
        first = self.results.result(key, self.now)
        other = next((each for each in (*self.open, *self.settled) if each.parts == key.parts and each != key), None)
        if first == KEY_REUSED:
            assert other is not None
            return
        if other in self.open:
            pytest.fail("an open key with other content")
        if first is not None:
            at, expected = self.settled[key]
            assert first == expected
            assert self.now - at < 2 * WINDOW_S
            return
        if key in self.settled and not self.results.forgotten:
            assert self.now - self.settled[key][0] >= WINDOW_S
        waits = self.results.wait(key, self.tickets)
        if key in self.open:
            assert waits is (len(self.open[key]) < MAX_WAITING)
            if waits:
                self.open[key].append(self.tickets)
        else:
            assert waits is None
            self.results.begin(key)
            self.open[key] = []

    @rule(key=KEYS, detail=st.integers(1, 9))
    def settle(self, key: OperationKey, detail: int) -> None:
        if key not in self.open:
            return  # only what was begun is settled
        result = StoredResult(Outcome.ACCEPTED, detail)
        assert self.results.complete(key, result, self.now) == self.open.pop(key, [])
        self.settled = {each: kept for each, kept in self.settled.items() if each.parts != key.parts}
        self.settled[key] = self.now, result

    @rule(key=KEYS)
    def forget(self, key: OperationKey) -> None:
        if key not in self.open:
            return
        assert self.results.forget(key) == self.open.pop(key, [])

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.9, 10.0, 25.0]))
    def wait_a_while(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def it_is_bounded(self) -> None:
        assert len(self.results) <= 8
        assert self.results.open == len(self.open)


TestIdempotency = IdempotencyMachine.TestCase
TestIdempotency.settings = examples(40, steps=30)


def test_a_full_table_forgets_the_oldest_and_counts_them() -> None:
    results: IdempotencyTable[int] = IdempotencyTable(WINDOW_S, max_keys=4)
    for number in range(5):
        results.complete(OperationKey((f"k{number}",), b""), StoredResult(Outcome.ACCEPTED, number), 1.0)
    assert [results.result(OperationKey((f"k{number}",), b""), 1.0) is not None for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert results.forgotten == 2


def test_too_many_who_wait_for_one_key_are_turned_away() -> None:
    results: IdempotencyTable[int] = IdempotencyTable()
    key = OperationKey(("k",), b"")
    results.begin(key)
    assert [results.wait(key, number) for number in range(MAX_WAITING + 1)] == [True] * MAX_WAITING + [False]
    with pytest.raises(ValueError, match="in flight"):
        results.begin(key)


@pytest.mark.parametrize(("window_s", "max_keys"), [(0, 10), (1, 1)])
def test_nonsense_bounds_are_refused(window_s: float, max_keys: int) -> None:
    with pytest.raises(ValueError, match="window of results"):
        IdempotencyTable(window_s, max_keys)
