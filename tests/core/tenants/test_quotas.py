"""Quotas of tenants: what is counted is what is there, rates hold in the long run, labels are bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.tenants.quotas import MAX_LABELS, OTHERS, Quotas, Tenants, TenantUse

NAMES = ("acme", "globex")
quotas = st.builds(Quotas, st.integers(0, 3), st.integers(0, 3), st.just(0.0), st.just(0.0))


class TenantMachine(RuleBasedStateMachine):
    """Connections and rooms that come and go while tenants are configured, removed and configured again."""

    def __init__(self) -> None:
        super().__init__()
        self.tenants = Tenants()
        self.configured: dict[str, Quotas] = {}
        self.connections = dict.fromkeys(NAMES, 0)
        self.rooms: list[tuple[str, TenantUse]] = []

    @rule(config=st.dictionaries(st.sampled_from(NAMES), quotas))
    def reload(self, config: dict[str, Quotas]) -> None:
        self.configured = config
        self.tenants.use(config)

    @rule(name=st.sampled_from(NAMES))
    def connect(self, name: str) -> None:
        use = self.tenants.find(name)
        assert (use is not None) is (name in self.configured)
        if use is not None:
            most = self.configured[name].connections
            passes = use.try_connect()
            assert passes is (not most or self.connections[name] < most)
            self.connections[name] += passes

    @rule(name=st.sampled_from(NAMES))
    def disconnect(self, name: str) -> None:
        if self.connections[name]:
            self.tenants.disconnect(name)
            self.connections[name] -= 1

    @rule(name=st.sampled_from(NAMES))
    def open_room(self, name: str) -> None:
        use = self.tenants.find(name)
        if use is not None and use.try_open_room():
            self.rooms.append((name, use))

    @rule(number=st.integers(0, 5))
    def close_room(self, number: int) -> None:
        if number < len(self.rooms):
            _, use = self.rooms.pop(number)
            use.rooms -= 1

    @invariant()
    def what_is_counted_is_what_is_there(self) -> None:
        for name in NAMES:
            assert self.tenants.connections.get(name, 0) == self.connections[name]
            assert self.tenants.rooms.get(name, 0) == sum(each == name for each, _ in self.rooms)
        assert set(self.configured) <= set(self.tenants.connections) <= set(NAMES)


TestTenants = TenantMachine.TestCase


@given(st.floats(0.5, 1000), st.lists(st.tuples(st.floats(0, 2), st.integers(1, 50)), min_size=1, max_size=40))
def test_messages_hold_the_rate_in_the_long_run(per_s: float, steps: list[tuple[float, int]]) -> None:
    use, now, largest = TenantUse(Quotas(messages_per_s=per_s)), 100.0, 0
    for gap_s, count in steps:
        now += gap_s
        wait_s = use.message_wait_s(now, count)
        largest = max(largest, count)
        if wait_s:
            assert use.message_wait_s(now + wait_s + 1e-6, 1) == 0.0
            now += wait_s + 1e-6
    assert use.messages <= per_s * (now - 100.0) + max(1, round(2 * per_s)) + largest + 1


def test_calls_wait_as_messages_do_and_each_is_counted_by_itself() -> None:
    use = TenantUse(Quotas(messages_per_s=1, calls_per_s=1))
    assert [bool(use.call_wait_s(10.0)) for _ in range(4)] == [False, False, True, True]
    assert use.message_wait_s(10.0) == 0.0
    assert use.call_wait_s(11.0) == 0.0
    assert (use.calls, use.messages, dict(use.refused)) == (3, 1, {"calls": 2})


def test_no_quota_is_no_limit() -> None:
    use = TenantUse(Quotas())
    assert not any(use.message_wait_s(1.0, 1000) or use.call_wait_s(1.0) for _ in range(1000))
    assert all(use.try_connect() and use.try_open_room() for _ in range(1000))


def test_labels_are_bounded_and_the_sum_is_kept() -> None:
    tenants = Tenants({f"t{number:04}": Quotas() for number in range(300)})
    for number in range(300):
        use = tenants.find(f"t{number:04}")
        assert use is not None
        assert use.try_connect()
    found = tenants.connections
    assert len(found) == MAX_LABELS + 1
    assert (found[OTHERS], sum(found.values())) == (200, 300)


@pytest.mark.parametrize("name", ["", "unknown"])
def test_the_default_tenant_has_no_entry(name: str) -> None:
    assert Tenants({"acme": Quotas()}).find(name) is None
