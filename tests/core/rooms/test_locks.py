"""Locks: one holder at a time, fences that only grow, fair queues, and time that no leap of a clock changes."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.rooms.locks import (
    LockFreed,
    LockGrant,
    LockLimits,
    LockName,
    LockRefused,
    LockRequest,
    LockTable,
)
from protocol.codes import ErrorCode
from tests.support.examples import examples

LOCK, OTHER = LockName("", "lobby", "host"), LockName("", "lobby", "seat")


def take(
    table: LockTable, name: LockName = LOCK, owner: str = "ann", ttl_ms: int = 10_000, now: float = 0.0
) -> LockGrant:
    grant = table.acquire(name, owner, ttl_ms, now, round(now * 1000), waits=False)
    assert isinstance(grant, LockGrant)
    assert table.commit(grant, now)
    return grant


def refused(found: object, code: ErrorCode) -> LockRefused:
    assert isinstance(found, LockRefused)
    assert found.code is code
    return found


def test_a_lock_has_one_holder_until_its_time_has_passed() -> None:
    table = LockTable()
    first = take(table)
    wait = refused(table.acquire(LOCK, "bob", 1000, 4.0, 4000, waits=False), ErrorCode.LOCKED)
    assert wait.retry_after_ms == 6000
    second = take(table, owner="bob", now=10.0)
    assert second.fence > first.fence
    refused(table.renew(first.fence, "ann", 1000, 10.0, 10_000), ErrorCode.STALE)
    refused(table.release(second.fence, "ann", 10.0), ErrorCode.STALE)


def test_a_renewal_moves_the_end_and_keeps_the_fence() -> None:
    table = LockTable()
    first = take(table)
    renewal = table.renew(first.fence, "ann", 10_000, 9.0, 9000)
    assert isinstance(renewal, LockGrant)
    refused(table.renew(first.fence, "ann", 1, 9.0, 9000), ErrorCode.LOCKED)
    refused(table.acquire(LOCK, "bob", 1000, 12.0, 12_000, waits=False), ErrorCode.LOCKED)
    assert table.commit(renewal, 12.0)
    assert table.holder(LOCK, 18.9) == renewal
    assert renewal.fence == first.fence
    late = table.renew(first.fence, "ann", 60_000, 18.0, 18_000)
    assert isinstance(late, LockGrant)
    table.give_up(late)
    assert table.holder(LOCK, 19.0) is None


def test_a_release_that_is_not_recorded_has_not_happened() -> None:
    table = LockTable()
    first = take(table)
    freed = table.release(first.fence, "ann", 1.0)
    assert isinstance(freed, LockFreed)
    table.give_up(freed)
    assert table.holder(LOCK, 1.0) == first
    again = table.release(first.fence, "ann", 1.0)
    assert isinstance(again, LockFreed)
    assert table.commit(again, 1.0)
    assert take(table, owner="bob", now=1.0).fence > first.fence


def test_requests_are_served_in_order_and_nobody_overtakes() -> None:
    table = LockTable()
    first = take(table)
    waiters = [table.acquire(LOCK, owner, 1000, 0.0, 0, waits=True) for owner in ("bob", "cid", "dan")]
    assert all(isinstance(each, LockRequest) for each in waiters)
    table.cancel(waiters[1])  # type: ignore[arg-type]
    freed = table.release(first.fence, "ann", 1.0)
    assert isinstance(freed, LockFreed)
    assert table.advance(LOCK, 1.0, 1000) is None
    table.commit(freed, 1.0)
    refused(table.acquire(LOCK, "eve", 1000, 1.0, 1000, waits=False), ErrorCode.LOCKED)
    served = table.advance(LOCK, 1.0, 1000)
    assert served is waiters[0]
    assert served.grant is not None
    table.give_up(served.grant)
    served = table.advance(LOCK, 1.0, 1000)
    assert served is waiters[2]
    assert table.waiting == 0


def test_bounds_are_shares_of_tenants_owners_and_locks() -> None:
    table = LockTable(LockLimits(of_tenant=3, of_owner=2, queue=1, total=5))
    take(table, LockName("a", "r", "1"))
    take(table, LockName("a", "r", "2"))
    refused(table.acquire(LockName("a", "r", "3"), "ann", 1, 0.0, 0, waits=False), ErrorCode.RATE_LIMITED)
    take(table, LockName("a", "r", "3"), owner="bob")
    refused(table.acquire(LockName("a", "r", "4"), "cid", 1, 0.0, 0, waits=False), ErrorCode.RATE_LIMITED)
    assert isinstance(table.acquire(LockName("a", "r", "1"), "cid", 1, 0.0, 0, waits=True), LockRequest)
    refused(table.acquire(LockName("a", "r", "1"), "dan", 1, 0.0, 0, waits=True), ErrorCode.RATE_LIMITED)
    take(table, LockName("b", "r", "1"))
    refused(table.acquire(LockName("b", "r", "2"), "ann", 1, 0.0, 0, waits=False), ErrorCode.RATE_LIMITED)


@pytest.mark.parametrize(("now_ms", "left_s"), [(4000, 6.0), (-10_000_000, 10.0), (None, 10.0)])
def test_after_a_restart_a_lock_holds_for_the_rest_of_its_time_and_never_longer_than_that(
    now_ms: int | None, left_s: float
) -> None:
    grant = take(LockTable())
    table = LockTable()
    assert table.restore([grant], grant.fence + 5, 100.0, now_ms) == []
    assert table.holder(LOCK, 100.0 + left_s - 0.01) == grant
    assert table.holder(LOCK, 100.0 + left_s) is None
    assert take(table, OTHER).fence > grant.fence + 5


def test_what_ended_while_the_broker_was_down_is_free() -> None:
    grant = take(LockTable())
    table = LockTable()
    assert table.restore([grant], 0, 0.0, 10_000) == [LockFreed(LOCK, grant.fence)]
    assert take(table).fence > grant.fence


def test_sweeping_drops_what_has_ended() -> None:
    table = LockTable()
    grants = [take(table, LockName("", "r", str(number)), ttl_ms=1000 * (1 + number % 2)) for number in range(10)]
    freed = table.sweep(1.5)
    assert {each.fence for each in freed} == {grant.fence for grant in grants if grant.ttl_ms == 1000}
    assert len(table) == 5


names = st.sampled_from([LOCK, OTHER])
owners = st.sampled_from(["ann", "bob", "cid"])


class LockMachine(RuleBasedStateMachine):
    """Any interleaving of requests, results of the ledger, time, leaps of the wall clock, cancellation and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LockTable()
        self.now, self.now_ms = 0.0, 1_000_000
        self.pending: list[LockGrant | LockFreed] = []
        self.records: dict[LockName, LockGrant] = {}
        self.last_fence = 0
        self.answered: dict[int, tuple[str, float]] = {}
        """Owner and end, in monotonic time, of what callers were told that they hold, by fence."""
        self.ends: dict[LockGrant, float] = {}
        self.given: list[int] = []
        self.name_of: dict[int, LockName] = {}
        self.waiting: dict[LockName, list[LockRequest]] = {LOCK: [], OTHER: []}

    def decided(self, grant: LockGrant) -> None:
        self.ends[grant] = self.now + grant.ttl_ms / 1000
        self.pending.append(grant)

    def newly(self, grant: LockGrant) -> None:
        assert not self.given or grant.fence > max(self.given)
        self.given.append(grant.fence)
        for fence, (_, end) in self.answered.items():
            assert self.name_of[fence] != grant.name or end <= self.now, "given while another caller holds it"
        self.name_of[grant.fence] = grant.name
        self.decided(grant)

    @rule(name=names, owner=owners, ttl=st.integers(1, 20_000), waits=st.booleans())
    def acquire(self, name: LockName, owner: str, ttl: int, waits: bool) -> None:
        found = self.table.acquire(name, owner, ttl, self.now, self.now_ms, waits=waits)
        if isinstance(found, LockGrant):
            assert not self.waiting[name]
            self.newly(found)
        elif isinstance(found, LockRequest):
            self.waiting[name].append(found)
        else:
            assert found.code is ErrorCode.LOCKED
            assert not waits

    @precondition(lambda self: self.answered)
    @rule(data=st.data(), ttl=st.integers(1, 20_000))
    def renew(self, data: st.DataObject, ttl: int) -> None:
        fence = data.draw(st.sampled_from(sorted(self.answered)))
        found = self.table.renew(fence, self.answered[fence][0], ttl, self.now, self.now_ms)
        if isinstance(found, LockGrant):
            assert found.fence == fence
            self.decided(found)

    @precondition(lambda self: self.answered)
    @rule(data=st.data(), owner=owners)
    def release(self, data: st.DataObject, owner: str) -> None:
        fence = data.draw(st.sampled_from(sorted(self.answered)))
        found = self.table.release(fence, owner, self.now)
        if isinstance(found, LockFreed):
            assert owner == self.answered[fence][0]
            self.pending.append(found)

    @precondition(lambda self: self.pending)
    @rule()
    def commit(self) -> None:
        fact = self.pending.pop(0)
        holds = self.table.commit(fact, self.now)
        if isinstance(fact, LockGrant):
            self.records[fact.name] = fact
            self.last_fence = max(self.last_fence, fact.fence)
            if holds:
                self.answered[fact.fence] = fact.owner, self.ends[fact]
        else:
            if fact.name in self.records and self.records[fact.name].fence == fact.fence:
                del self.records[fact.name]
            if holds:
                self.answered.pop(fact.fence, None)
        self.advance(fact.name)

    @precondition(lambda self: self.pending)
    @rule()
    def refuse(self) -> None:
        fact = self.pending.pop(0)
        self.table.give_up(fact)
        self.advance(fact.name)

    @rule(seconds=st.floats(0.01, 12.0), leap_ms=st.sampled_from([0, 0, 0, 3_600_000, -3_600_000]))
    def pass_time(self, seconds: float, leap_ms: int) -> None:
        self.now += seconds
        self.now_ms += round(seconds * 1000) + leap_ms
        for name in (LOCK, OTHER):
            self.advance(name)

    def advance(self, name: LockName) -> None:
        served = self.table.advance(name, self.now, self.now_ms)
        if served is not None:
            assert served is self.waiting[name].pop(0)
            assert served.grant is not None
            self.newly(served.grant)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        queue = data.draw(st.sampled_from([queue for queue in self.waiting.values() if queue]))
        self.table.cancel(queue.pop(data.draw(st.integers(0, len(queue) - 1))))

    @rule(is_trusted=st.booleans())
    def restart(self, is_trusted: bool) -> None:
        """The wall clock is right, or known to be in doubt."""
        self.given = [fence for fence in self.given if fence <= self.last_fence]  # the others were never answered
        self.pending.clear()
        self.waiting = {LOCK: [], OTHER: []}
        for name, grant in self.records.items():  # trusted time has not leapt
            rest_ms = round((self.ends[grant] - self.now) * 1000)
            self.records[name] = grant._replace(expires_at_ms=self.now_ms + rest_ms)
            self.ends[self.records[name]] = self.ends[grant]
        self.table = LockTable()
        self.table.restore(
            self.records.values(), self.last_fence, self.now + 0.001, self.now_ms if is_trusted else None
        )
        self.now += 0.001

    @invariant()
    def counts_add_up(self) -> None:
        assert self.table.waiting == sum(map(len, self.waiting.values()))
        self.table.sweep(-1.0)


TestLocks = LockMachine.TestCase
TestLocks.settings = examples(80, steps=40)
