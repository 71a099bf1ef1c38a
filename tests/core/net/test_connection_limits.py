from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from broker.core.net.connection_limits import (
    OVERFLOW_MAX,
    UNAUTHENTICATED_MIN,
    Admission,
    AdmissionResult,
    ConnectionLimits,
    ConnectionLimitSettings,
    Refuse,
)
from protocol.codes import CloseCode, ReconnectAdvice, reconnect_advice
from tests.support.examples import examples


def make_limits(
    *,
    max_connections: int = 1000,
    per_address: int = 0,
    accept_per_s: float = 1e6,
    unauthenticated_share: float = 1.0,
    address_share: float = 1.0,
    failed_logins_per_minute: int = 60,
) -> ConnectionLimits:
    return ConnectionLimits(
        max_connections=max_connections,
        per_address=per_address,
        accept_per_s=accept_per_s,
        unauthenticated_share=unauthenticated_share,
        address_share=address_share,
        failed_logins_per_minute=failed_logins_per_minute,
    )


def code_of(admission: AdmissionResult) -> CloseCode:
    assert isinstance(admission, Refuse)
    return admission.code


def test_above_the_cap_a_few_learn_why_and_the_rest_is_dropped() -> None:
    connection_limits = make_limits(max_connections=2)
    assert [connection_limits.enter("a", 0.0), connection_limits.enter("b", 0.0)] == [Admission.ADMIT] * 2
    for _ in range(OVERFLOW_MAX):
        assert code_of(connection_limits.enter("c", 0.0)) is CloseCode.TOO_MANY_CONNECTIONS
    assert connection_limits.enter("c", 0.0) is Admission.DROP
    connection_limits.leave_refused("c")
    assert code_of(connection_limits.enter("c", 0.0)) is CloseCode.TOO_MANY_CONNECTIONS
    connection_limits.leave("a", authenticated=False)
    assert connection_limits.enter("c", 0.0) is Admission.ADMIT
    assert (
        connection_limits.held,
        connection_limits.overflow,
        connection_limits.dropped,
        connection_limits.admitted,
    ) == (2, OVERFLOW_MAX, 1, 3)
    assert connection_limits.refused[CloseCode.TOO_MANY_CONNECTIONS] == OVERFLOW_MAX + 1


def test_one_address_cannot_take_every_connection() -> None:
    connection_limits = make_limits(per_address=2)
    assert [connection_limits.enter("192.0.2.1", 0.0) for _ in range(2)] == [Admission.ADMIT] * 2
    assert code_of(connection_limits.enter("192.0.2.1", 0.0)) is CloseCode.TOO_MANY_FROM_ADDRESS
    assert connection_limits.enter("192.0.2.2", 0.0) is Admission.ADMIT
    connection_limits.leave("192.0.2.1", authenticated=False)
    assert connection_limits.enter("192.0.2.1", 0.0) is Admission.ADMIT


def test_ipv6_addresses_of_one_network_count_as_one() -> None:
    connection_limits = make_limits(per_address=1)
    assert connection_limits.enter("2001:db8:0:1::1", 0.0) is Admission.ADMIT
    assert code_of(connection_limits.enter("2001:db8:0:1:ffff::2", 0.0)) is CloseCode.TOO_MANY_FROM_ADDRESS
    assert connection_limits.enter("2001:db8:0:2::1", 0.0) is Admission.ADMIT
    assert connection_limits.enter("192.0.2.1", 0.0) is Admission.ADMIT
    assert code_of(connection_limits.enter("::ffff:192.0.2.1", 0.0)) is CloseCode.TOO_MANY_FROM_ADDRESS


def test_unauthenticated_connections_use_a_tenth_only() -> None:
    connection_limits = make_limits(max_connections=2000, unauthenticated_share=0.1)
    assert connection_limits.max_unauthenticated == 200
    for _ in range(200):
        assert connection_limits.enter("loris", 0.0) is Admission.ADMIT
    assert code_of(connection_limits.enter("viewer", 0.0)) is CloseCode.OVERLOADED
    connection_limits.authenticated("loris")
    assert connection_limits.enter("viewer", 0.0) is Admission.ADMIT
    connection_limits.authenticated("viewer")
    connection_limits.leave("viewer", authenticated=True)
    assert connection_limits.unauthenticated == 199
    assert connection_limits.enter("viewer", 0.0) is Admission.ADMIT


def test_a_small_cap_is_open_to_unauthenticated_connections() -> None:
    assert make_limits(max_connections=100, unauthenticated_share=0.1).max_unauthenticated == UNAUTHENTICATED_MIN
    assert make_limits(max_connections=10, unauthenticated_share=0.1).max_unauthenticated == 10


@pytest.mark.parametrize("addresses", [["192.0.2.1"], ["2001:db8::1", "2001:db8::2:3"], ["::ffff:192.0.2.1"]])
def test_silent_connections_of_one_address_leave_space_for_others(addresses: list[str]) -> None:
    connection_limits = make_limits(max_connections=640, unauthenticated_share=0.1, address_share=0.25)
    admitted = 0
    for number in range(64):
        admission = connection_limits.enter(addresses[number % len(addresses)], 0.0)
        if admission is Admission.ADMIT:
            admitted += 1
        elif isinstance(admission, Refuse):
            assert (admission.code, admission.retry_after_ms) == (CloseCode.TOO_MANY_FROM_ADDRESS, 2000)
    assert admitted == 16
    assert connection_limits.overflow == 16, "its refusals do not take the reasons of others"
    assert all(connection_limits.enter(f"198.51.100.{number}", 0.0) is Admission.ADMIT for number in range(48))
    connection_limits.authenticated(addresses[0])
    connection_limits.leave("198.51.100.1", authenticated=False)
    assert connection_limits.enter(addresses[0], 0.0) is Admission.ADMIT


def test_one_address_connects_within_its_share_of_the_rate() -> None:
    connection_limits = make_limits(accept_per_s=40.0, address_share=0.25)
    admissions = [connection_limits.enter("192.0.2.1", 0.0) for _ in range(21)]
    assert [each is Admission.ADMIT for each in admissions] == [True] * 20 + [False]
    assert code_of(admissions[-1]) is CloseCode.TOO_MANY_FROM_ADDRESS
    assert connection_limits.enter("192.0.2.2", 0.0) is Admission.ADMIT
    assert connection_limits.enter("", 0.0) is Admission.ADMIT
    assert code_of(connection_limits.reveal("192.0.2.1", 0.0)) is CloseCode.TOO_MANY_FROM_ADDRESS
    assert connection_limits.enter("192.0.2.1", 0.1) is Admission.ADMIT


def test_failed_log_ins_of_one_address_have_a_rate_of_their_own() -> None:
    connection_limits = make_limits(failed_logins_per_minute=3)
    for _ in range(3):
        assert connection_limits.login_wait_s("2001:db8::1", 5.0) == 0.0
        connection_limits.login_failed("2001:db8::1", 5.0)
    wait_s = connection_limits.login_wait_s("2001:db8::2", 5.0)
    assert wait_s == pytest.approx(20.0)
    assert connection_limits.login_wait_s("2001:db8::2", 5.0 + wait_s) == 0.0
    assert connection_limits.login_wait_s("192.0.2.1", 5.0) == 0.0


def test_the_address_behind_a_proxy_counts_once_it_is_known() -> None:
    connection_limits = make_limits(per_address=1)
    assert [connection_limits.enter("", 0.0), connection_limits.enter("", 0.0)] == [Admission.ADMIT] * 2
    assert connection_limits.reveal("192.0.2.1", 0.0) is Admission.ADMIT
    assert code_of(connection_limits.reveal("192.0.2.1", 0.0)) is CloseCode.TOO_MANY_FROM_ADDRESS
    connection_limits.leave("", authenticated=False)
    assert connection_limits.addresses == 1
    connection_limits.leave("192.0.2.1", authenticated=False)
    assert (connection_limits.addresses, connection_limits.held, connection_limits.overflow) == (0, 0, 0)


def test_connections_beyond_the_rate_wait_and_are_not_refused() -> None:
    connection_limits = make_limits(accept_per_s=100.0)
    burst = 0
    while (wait_s := connection_limits.pace(0.0)) == 0.0:
        burst += 1
    assert burst == 5
    assert 0.0 < wait_s <= 0.01
    accepted = sum(connection_limits.pace(tick / 1000) == 0.0 for tick in range(1, 10_001))
    assert 999 <= accepted <= 1001


def test_every_refusal_says_come_back_later() -> None:
    connection_limits = make_limits(max_connections=1, per_address=1)
    connection_limits.enter("a", 0.0)
    refusal = connection_limits.enter("b", 0.0)
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_ms > 0
    judged = connection_limits.refused.keys() - {CloseCode.GOING_AWAY}
    assert all(reconnect_advice(code) is ReconnectAdvice.BACKOFF for code in judged)


def test_closed_limits_refuse_with_a_time_to_return_and_keep_counting() -> None:
    connection_limits = make_limits()
    assert connection_limits.enter("a", 0.0) is Admission.ADMIT
    connection_limits.close(5000)
    assert connection_limits.enter("a", 0.0) == connection_limits.enter("", 0.0) == Refuse(CloseCode.GOING_AWAY, 5000)
    assert (connection_limits.held, connection_limits.overflow, connection_limits.refused[CloseCode.GOING_AWAY]) == (
        1,
        2,
        2,
    )
    connection_limits.leave("a", authenticated=False)
    connection_limits.leave_refused("a")
    connection_limits.leave_refused("")
    assert (connection_limits.held, connection_limits.overflow) == (0, 0)


def test_leaving_more_often_than_entering_is_an_error() -> None:
    connection_limits = make_limits()
    with pytest.raises(ValueError, match="more connections left"):
        connection_limits.leave("a", authenticated=False)
    with pytest.raises(ValueError, match="no refused connection"):
        connection_limits.leave_refused("a")
    with pytest.raises(ValueError, match="authenticated already"):
        connection_limits.authenticated("a")


@pytest.mark.parametrize(("cap", "per_address", "share"), [(0, 0, 1.0), (1, -1, 1.0), (1, 0, 0.0), (1, 0, 1.5)])
def test_limits_without_any_connection_are_refused(cap: int, per_address: int, share: float) -> None:
    with pytest.raises(ValueError, match="at least one connection"):
        make_limits(max_connections=cap, per_address=per_address, unauthenticated_share=share)


class LimitsMachine(RuleBasedStateMachine):
    """Against a model of plain lists."""

    inside = Bundle("inside")
    refused = Bundle("refused")

    @initialize(
        cap=st.integers(1, 120),
        per_address=st.integers(0, 5),
        share=st.sampled_from([0.01, 0.5, 1.0]),
        address_share=st.sampled_from([0.05, 0.25, 1.0]),
    )
    def open(self, cap: int, per_address: int, share: float, address_share: float) -> None:
        self.cap, self.per_address = cap, per_address
        self.connection_limits = make_limits(
            max_connections=cap, per_address=per_address, unauthenticated_share=share, address_share=address_share
        )
        self.silent_share = max(1, int(self.connection_limits.max_unauthenticated * address_share))
        self.refused_share = max(1, int(OVERFLOW_MAX * address_share))
        self.held: list[list[object]] = []  # [address, authenticated]
        self.overflow: list[str] = []
        self.entries = 0

    def count(self, address: str) -> int:
        return sum(each[0] == address for each in self.held)

    def is_full(self, address: str) -> bool:
        silent = sum(each[0] == address and not each[1] for each in self.held)
        return bool(address) and (0 < self.per_address <= self.count(address) or silent >= self.silent_share)

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
            crowded = self.is_full(address)
            unauthenticated = sum(not each[1] for each in self.held) >= self.connection_limits.max_unauthenticated
            admission = self.connection_limits.enter(address, 0.0)
            if not (full or crowded or unauthenticated):
                assert admission is Admission.ADMIT
                entry: list[object] = [address, False]
                self.held.append(entry)
                entered.append(entry)
            elif len(self.overflow) >= OVERFLOW_MAX or (address and self.overflow.count(address) >= self.refused_share):
                assert admission is Admission.DROP
            else:
                self.overflow.append(address)
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
            self.connection_limits.authenticated(str(entry[0]))

    @rule(entry=inside, address=st.sampled_from(["192.0.2.1", "198.51.100.9"]))
    def reveal(self, entry: list[object], address: str) -> None:
        if entry[0] == "" and not entry[1]:  # a log-in follows the PROXY header
            crowded = self.is_full(address)
            admission = self.connection_limits.reveal(address, 0.0)
            assert (admission is Admission.ADMIT) is not crowded
            if admission is Admission.ADMIT:
                entry[0] = address

    @rule(entry=consumes(inside))
    def leave(self, entry: list[object]) -> None:
        self.connection_limits.leave(str(entry[0]), bool(entry[1]))
        self.held = [each for each in self.held if each is not entry]

    @rule()
    def leave_refused(self) -> None:
        if self.overflow:
            self.connection_limits.leave_refused(self.overflow.pop())

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "connection_limits"):
            return
        connection_limits = self.connection_limits
        assert connection_limits.held == len(self.held) <= self.cap
        assert (
            connection_limits.unauthenticated
            == sum(not each[1] for each in self.held)
            <= connection_limits.max_unauthenticated
        )
        assert connection_limits.overflow == len(self.overflow) <= OVERFLOW_MAX
        named = {each[0] for each in self.held if each[0]}
        assert connection_limits.addresses == len(named)


TestGate = LimitsMachine.TestCase
TestGate.settings = examples(40)


def test_other_limits_apply_from_now_on_and_what_is_there_stays() -> None:
    chosen = ConnectionLimitSettings(
        max_connections=1000, per_address=2, accept_per_s=1e6, unauthenticated_share=1.0, address_share=1.0,
        failed_logins_per_minute=1,
    )  # fmt: skip
    limits = ConnectionLimits(**chosen)
    for _ in range(2):
        assert limits.enter("203.0.113.1", 0.0) is Admission.ADMIT
    limits.login_failed("203.0.113.1", 0.0)
    chosen["per_address"] = 3
    limits.use(**chosen)
    assert limits.login_wait_s("203.0.113.1", 0.0) > 0, "a rate that stays keeps what it has counted"
    assert limits.enter("203.0.113.1", 0.0) is Admission.ADMIT
    assert isinstance(limits.enter("203.0.113.1", 0.0), Refuse)
    chosen["per_address"], chosen["max_connections"], chosen["failed_logins_per_minute"] = 2, 1, 9
    limits.use(**chosen)
    assert limits.login_wait_s("203.0.113.1", 0.0) == 0
    refused = limits.enter("203.0.113.2", 0.0)
    assert isinstance(refused, Refuse)
    assert refused.code is CloseCode.TOO_MANY_CONNECTIONS
    assert (limits.held, limits.addresses) == (3, 1)
