from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from broker.core.net.connection_limits import OVERFLOW_MAX, STRANGERS_MIN, Admission, Gate, Passage, Refuse
from protocol.codes import CloseCode, ReconnectAdvice, reconnect_advice


def make_gate(
    *, max_connections: int = 1000, per_address: int = 0, accept_per_s: float = 1e6, unauthenticated_share: float = 1.0
) -> Gate:
    return Gate(
        max_connections=max_connections,
        per_address=per_address,
        accept_per_s=accept_per_s,
        unauthenticated_share=unauthenticated_share,
    )


def code_of(admission: Admission) -> CloseCode:
    assert isinstance(admission, Refuse)
    return admission.code


def test_above_the_cap_a_few_are_told_why_and_the_rest_is_dropped() -> None:
    gate = make_gate(max_connections=2)
    assert [gate.enter("a"), gate.enter("b")] == [Passage.ADMIT] * 2
    for _ in range(OVERFLOW_MAX):
        assert code_of(gate.enter("c")) is CloseCode.TOO_MANY_CONNECTIONS
    assert gate.enter("c") is Passage.DROP
    gate.leave_refused()
    assert code_of(gate.enter("c")) is CloseCode.TOO_MANY_CONNECTIONS
    gate.leave("a", authenticated=False)
    assert gate.enter("c") is Passage.ADMIT
    assert (gate.held, gate.overflow, gate.dropped, gate.admitted) == (2, OVERFLOW_MAX, 1, 3)
    assert gate.refused[CloseCode.TOO_MANY_CONNECTIONS] == OVERFLOW_MAX + 1


def test_one_address_cannot_fill_the_house() -> None:
    gate = make_gate(per_address=2)
    assert [gate.enter("192.0.2.1") for _ in range(2)] == [Passage.ADMIT] * 2
    assert code_of(gate.enter("192.0.2.1")) is CloseCode.TOO_MANY_FROM_ADDRESS
    assert gate.enter("192.0.2.2") is Passage.ADMIT
    gate.leave("192.0.2.1", authenticated=False)
    assert gate.enter("192.0.2.1") is Passage.ADMIT


def test_ipv6_addresses_of_one_household_count_as_one() -> None:
    gate = make_gate(per_address=1)
    assert gate.enter("2001:db8:0:1::1") is Passage.ADMIT
    assert code_of(gate.enter("2001:db8:0:1:ffff::2")) is CloseCode.TOO_MANY_FROM_ADDRESS
    assert gate.enter("2001:db8:0:2::1") is Passage.ADMIT
    assert gate.enter("192.0.2.1") is Passage.ADMIT
    assert code_of(gate.enter("::ffff:192.0.2.1")) is CloseCode.TOO_MANY_FROM_ADDRESS


def test_strangers_fill_a_tenth_only_and_viewers_with_a_token_are_not_strangers() -> None:
    gate = make_gate(max_connections=2000, unauthenticated_share=0.1)
    assert gate.max_strangers == 200
    for _ in range(200):
        assert gate.enter("loris") is Passage.ADMIT
    assert code_of(gate.enter("viewer")) is CloseCode.OVERLOADED
    gate.authenticated("loris")
    assert gate.enter("viewer") is Passage.ADMIT
    gate.authenticated("viewer")
    gate.leave("viewer", authenticated=True)
    assert gate.strangers == 199
    assert gate.enter("viewer") is Passage.ADMIT


def test_a_small_house_has_room_for_strangers_up_to_its_cap() -> None:
    assert make_gate(max_connections=100, unauthenticated_share=0.1).max_strangers == STRANGERS_MIN
    assert make_gate(max_connections=10, unauthenticated_share=0.1).max_strangers == 10


def test_the_address_behind_a_proxy_counts_once_it_is_known() -> None:
    gate = make_gate(per_address=1)
    assert [gate.enter(""), gate.enter("")] == [Passage.ADMIT] * 2
    assert gate.reveal("192.0.2.1") is Passage.ADMIT
    assert code_of(gate.reveal("192.0.2.1")) is CloseCode.TOO_MANY_FROM_ADDRESS
    gate.leave("", authenticated=False)
    assert gate.addresses == 1
    gate.leave("192.0.2.1", authenticated=False)
    assert (gate.addresses, gate.held, gate.overflow) == (0, 0, 0)


def test_newcomers_beyond_the_rate_wait_and_are_not_refused() -> None:
    gate = make_gate(accept_per_s=100.0)
    burst = 0
    while (wait_s := gate.pace(0.0)) == 0.0:
        burst += 1
    assert burst == 5
    assert 0.0 < wait_s <= 0.01
    accepted = sum(gate.pace(tick / 1000) == 0.0 for tick in range(1, 10_001))
    assert 999 <= accepted <= 1001


def test_every_refusal_says_come_back_later() -> None:
    gate = make_gate(max_connections=1, per_address=1)
    gate.enter("a")
    refusal = gate.enter("b")
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_ms > 0
    judged = gate.refused.keys() - {CloseCode.GOING_AWAY}
    assert all(reconnect_advice(code) is ReconnectAdvice.BACKOFF for code in judged)


def test_a_closed_gate_lets_nobody_in_says_when_to_return_and_keeps_its_books() -> None:
    gate = make_gate()
    assert gate.enter("a") is Passage.ADMIT
    gate.close(5000)
    assert gate.enter("a") == gate.enter("") == Refuse(CloseCode.GOING_AWAY, 5000)
    assert (gate.held, gate.overflow, gate.refused[CloseCode.GOING_AWAY]) == (1, 2, 2)
    gate.leave("a", authenticated=False)
    gate.leave_refused()
    gate.leave_refused()
    assert (gate.held, gate.overflow) == (0, 0)


def test_leaving_more_often_than_entering_is_a_bug_that_shows() -> None:
    gate = make_gate()
    with pytest.raises(ValueError, match="never came in"):
        gate.leave("a", authenticated=False)
    with pytest.raises(ValueError, match="nobody was refused"):
        gate.leave_refused()
    with pytest.raises(ValueError, match="stranger"):
        gate.authenticated("a")


@pytest.mark.parametrize(("cap", "per_address", "share"), [(0, 0, 1.0), (1, -1, 1.0), (1, 0, 0.0), (1, 0, 1.5)])
def test_a_gate_that_lets_nobody_in_is_refused(cap: int, per_address: int, share: float) -> None:
    with pytest.raises(ValueError, match="at least somebody"):
        make_gate(max_connections=cap, per_address=per_address, unauthenticated_share=share)


class GateMachine(RuleBasedStateMachine):
    """Against books kept as plain lists."""

    inside = Bundle("inside")
    refused = Bundle("refused")

    @initialize(cap=st.integers(1, 120), per_address=st.integers(0, 5), share=st.sampled_from([0.01, 0.5, 1.0]))
    def open(self, cap: int, per_address: int, share: float) -> None:
        self.cap, self.per_address = cap, per_address
        self.gate = make_gate(max_connections=cap, per_address=per_address, unauthenticated_share=share)
        self.held: list[list[object]] = []  # [address, authenticated]
        self.overflow = 0
        self.entries = 0

    def count(self, address: str) -> int:
        return sum(each[0] == address for each in self.held)

    @rule(
        target=inside,
        address=st.sampled_from(["", "192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        times=st.integers(1, 40),
    )
    def enter(self, address: str, times: int):  # type: ignore[no-untyped-def]
        entered = []
        for _ in range(times):
            self.entries += 1
            full = len(self.held) >= self.cap
            crowded = bool(address) and 0 < self.per_address <= self.count(address)
            strangers = sum(not each[1] for each in self.held) >= self.gate.max_strangers
            admission = self.gate.enter(address)
            if not (full or crowded or strangers):
                assert admission is Passage.ADMIT
                entry: list[object] = [address, False]
                self.held.append(entry)
                entered.append(entry)
            elif self.overflow >= OVERFLOW_MAX:
                assert admission is Passage.DROP
            else:
                self.overflow += 1
                expected = (
                    CloseCode.TOO_MANY_CONNECTIONS
                    if full
                    else CloseCode.TOO_MANY_FROM_ADDRESS
                    if crowded
                    else CloseCode.OVERLOADED
                )
                assert code_of(admission) is expected
        return multiple(*entered)

    @rule(entry=inside)
    def authenticate(self, entry: list[object]) -> None:
        if not entry[1]:
            entry[1] = True
            self.gate.authenticated(str(entry[0]))

    @rule(entry=inside, address=st.sampled_from(["192.0.2.1", "198.51.100.9"]))
    def reveal(self, entry: list[object], address: str) -> None:
        if entry[0] == "":
            crowded = 0 < self.per_address <= self.count(address)
            admission = self.gate.reveal(address)
            assert (admission is Passage.ADMIT) is not crowded
            if admission is Passage.ADMIT:
                entry[0] = address

    @rule(entry=consumes(inside))
    def leave(self, entry: list[object]) -> None:
        self.gate.leave(str(entry[0]), bool(entry[1]))
        self.held = [each for each in self.held if each is not entry]

    @rule()
    def leave_refused(self) -> None:
        if self.overflow:
            self.gate.leave_refused()
            self.overflow -= 1

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "gate"):
            return
        gate = self.gate
        assert gate.held == len(self.held) <= self.cap
        assert gate.strangers == sum(not each[1] for each in self.held) <= gate.max_strangers
        assert gate.overflow == self.overflow <= OVERFLOW_MAX
        named = {each[0] for each in self.held if each[0]}
        assert gate.addresses == (len(named) if self.per_address else 0)


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=40)
