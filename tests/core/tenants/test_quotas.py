"""Quotas of tenants: what is counted is what is there, rates hold in the long run, labels are bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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


class NodesMachine(RuleBasedStateMachine):
    """Connections and rooms of one tenant at two nodes, which report to each other, are killed and begin anew."""

    @initialize(connections=st.integers(0, 4), rooms=st.integers(0, 4))
    def configure(self, connections: int, rooms: int) -> None:
        self.quotas = Quotas(connections, rooms)
        self.nodes = {name: Tenants({"acme": self.quotas}) for name in "ab"}

    def use_at(self, node: str) -> TenantUse:
        found = self.nodes[node].find("acme")
        assert found is not None
        return found

    def is_known(self) -> bool:
        """Return whether each node knows what is at the other."""
        a, b = self.use_at("a"), self.use_at("b")
        known = a.connections_elsewhere, a.rooms_elsewhere, b.connections_elsewhere, b.rooms_elsewhere
        return known == (b.connections, b.rooms, a.connections, a.rooms)

    @rule(node=st.sampled_from("ab"), is_whole=st.booleans())
    def report(self, node: str, is_whole: bool) -> None:
        other = "b" if node == "a" else "a"
        self.nodes[other].take_reports(node, self.nodes[node].reports(all_of_them=is_whole), 1.0)

    @rule(node=st.sampled_from("ab"))
    def lose_a_report(self, node: str) -> None:
        self.nodes[node].reports(all_of_them=False)

    @rule()
    def report_all(self) -> None:
        self.report("a", True)
        self.report("b", True)
        assert self.is_known()

    @rule(node=st.sampled_from("ab"), is_room=st.booleans(), goes_on=st.booleans())
    def open(self, node: str, is_room: bool, goes_on: bool) -> None:
        use, was_known = self.use_at(node), self.is_known()
        at_both = sum(self.use_at(each).rooms if is_room else self.use_at(each).connections for each in "ab")
        most = self.quotas.rooms if is_room else self.quotas.connections
        passes = use.try_open_room(goes_on=goes_on) if is_room else use.try_connect()
        if was_known or not most:
            assert passes is (not most or at_both < most or (is_room and goes_on))

    @rule(node=st.sampled_from("ab"), is_room=st.booleans())
    def close(self, node: str, is_room: bool) -> None:
        use = self.use_at(node)
        if is_room and use.rooms:
            use.rooms -= 1
        elif not is_room and use.connections:
            self.nodes[node].disconnect("acme")

    @rule(node=st.sampled_from("ab"))
    def kill(self, node: str) -> None:
        other = "b" if node == "a" else "a"
        self.nodes[node] = Tenants({"acme": self.quotas})
        self.nodes[other].forget_node(node)
        use = self.use_at(other)
        assert (use.connections_elsewhere, use.rooms_elsewhere) == (0, 0)


TestNodes = NodesMachine.TestCase


@given(
    per_s=st.integers(1, 50),
    steps=st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60)), max_size=6), min_size=1),
)
def test_nodes_that_report_hold_one_rate_in_the_long_run(per_s: int, steps: list[list[tuple[str, int]]]) -> None:
    """Above the rate and one burst comes at most what the nodes admit in the first time between two reports."""
    nodes, now, every_s = {name: Tenants({"acme": Quotas(0, 0, 0, per_s)}) for name in "abc"}, 100.0, 0.25

    def report() -> None:
        reports = {name: each.reports(all_of_them=False) for name, each in nodes.items()}
        for name, each in nodes.items():
            for other in nodes.keys() - {name}:
                each.take_reports(other, reports[other], now)

    report()
    for step in steps:
        for name, count in step:
            use = nodes[name].find("acme")
            assert use is not None
            for _ in range(count):
                use.call_wait_s(now)
        report()
        now += every_s
    admitted = sum(use.calls for each in nodes.values() for _, use in each.by_name())
    assert admitted <= per_s * (now - 100.0) + 3 * (2 * per_s + 1)


def test_what_was_used_before_a_node_was_known_takes_from_no_rate() -> None:
    here, there = Tenants({"acme": Quotas(calls_per_s=1)}), Tenants({"acme": Quotas(calls_per_s=1)})
    use, other = here.find("acme"), there.find("acme")
    assert use is not None
    assert other is not None
    other.calls = 1000
    here.take_reports("b", there.reports(all_of_them=True), 10.0)
    assert use.call_wait_s(10.0) == 0.0
    other.calls += 2
    here.take_reports("b", there.reports(all_of_them=False), 10.0)
    assert use.call_wait_s(10.0) > 0.0
    assert there.reports(all_of_them=False) == []


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
