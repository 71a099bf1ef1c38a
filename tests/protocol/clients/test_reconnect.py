"""The reconnect machine: it stops only for a terminal code, and it never overloads a broker."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError
from protocol.reconnect import (
    CONFIGURED_HOST,
    MAX_BACKOFF_S,
    MAX_PEER_DELAY_S,
    MIN_BACKOFF_S,
    NOW_JITTER_S,
    STABLE_S,
    TRANSITIONS,
    Reconnect,
    ReconnectState,
    Signal,
    backoff_s,
)

STATES = list(ReconnectState)
SIGNALS = [signal for signal in Signal if signal is not Signal.TERMINAL]
ENDINGS = (Signal.LOST, Signal.REFUSED, Signal.GOAWAY)
CODES = [None, *range(1000, 5000)]
UP = (Signal.START, Signal.CONNECTED, Signal.AUTHENTICATED)


def machine(state: ReconnectState = ReconnectState.IDLE, seed: int = 1) -> Reconnect:
    made = Reconnect(random.Random(seed))
    made.state = state
    return made


def opened(now: float = 0.0, seed: int = 1) -> Reconnect:
    made = machine(seed=seed)
    for signal in UP:
        made.handle(signal, now)
    return made


def reopen(made: Reconnect, now: float) -> None:
    for signal in (Signal.TIMER, Signal.CONNECTED, Signal.AUTHENTICATED):
        made.handle(signal, now)


def drive_to_connecting(made: Reconnect, now: float) -> None:
    """Run the machine through endings without a terminal code."""
    for _ in range(3):
        if made.state is ReconnectState.CONNECTING:
            return
        signal = {
            ReconnectState.IDLE: Signal.START,
            ReconnectState.HANDSHAKING: Signal.LOST,
            ReconnectState.OPEN: Signal.LOST,
            ReconnectState.WAITING: Signal.TIMER,
        }[made.state]
        made.handle(signal, now)
    assert made.state is ReconnectState.CONNECTING


def test_only_a_terminal_code_or_the_users_close_ends_the_machine() -> None:
    """Every state, every signal, every code."""
    rng = random.Random(3)
    for state, signal, code in product(STATES, SIGNALS, CODES):
        if state is ReconnectState.CLOSED:
            continue
        made = Reconnect(rng)
        made.state = state
        terminal = code is not None and 4400 <= code <= 4599 and signal in ENDINGS
        try:
            after = made.handle(signal, 1.0, code=code)
        except LocalProtocolError:
            assert made.state is state
            continue
        if after is ReconnectState.CLOSED:
            assert signal is Signal.CLOSE or terminal, (state, signal, code)
        else:
            assert not terminal
            drive_to_connecting(made, 2.0)


def test_every_ending_of_an_open_link_has_a_transition_in_every_state_that_has_one() -> None:
    legal = {
        Signal.LOST: {ReconnectState.CONNECTING, ReconnectState.HANDSHAKING, ReconnectState.OPEN},
        Signal.REFUSED: {ReconnectState.CONNECTING, ReconnectState.HANDSHAKING},
        Signal.GOAWAY: {ReconnectState.HANDSHAKING, ReconnectState.OPEN},
        Signal.CLOSE: set(STATES),
    }
    for signal, states in legal.items():
        assert {state for state, known in TRANSITIONS if known is signal} == states


def test_closed_is_final() -> None:
    for signal, code in product(SIGNALS, (None, 1006, 4000, 4200, 4408)):
        made = machine(ReconnectState.CLOSED)
        if signal is Signal.CLOSE:
            assert made.handle(signal, 0.0) is ReconnectState.CLOSED
        else:
            with pytest.raises(LocalProtocolError):
                made.handle(signal, 0.0, code=code)
            assert made.state is ReconnectState.CLOSED


def harmless_code(code: int) -> bool:
    return not 4400 <= code <= 4599


steps = st.tuples(
    st.sampled_from([s for s in SIGNALS if s is not Signal.CLOSE]),
    st.none() | st.integers(1000, 4999).filter(harmless_code) | st.sampled_from([1006, 4000, 4199, 4200, 4399, 4600]),
    st.integers(0, 2**53),
    st.integers(0, 2**53),
    st.lists(st.text(min_size=1, max_size=8), max_size=4),
    st.floats(0, 100),
)


@given(st.integers(0, 2**32), st.sampled_from(STATES[:-1]), st.lists(steps, max_size=40))
def test_after_any_history_without_a_terminal_code_it_connects_again(
    seed: int, start: ReconnectState, history: list[tuple[Signal, int | None, int, int, list[str], float]]
) -> None:
    made, now = machine(start, seed), 0.0
    for signal, code, retry_after_ms, jitter_ms, hosts, passed_s in history:
        now += passed_s
        try:
            made.handle(signal, now, code=code, retry_after_ms=retry_after_ms, jitter_ms=jitter_ms, hosts=hosts)
        except LocalProtocolError:
            continue
        assert made.state is not ReconnectState.CLOSED
        assert 0 <= made.delay_s <= 2 * MAX_PEER_DELAY_S
    drive_to_connecting(made, now)


@given(st.integers(0, 2**32), st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=64))
def test_the_first_address_is_tried_again_whatever_the_list_of_hosts(seed: int, hosts: list[str]) -> None:
    made = opened(seed=seed)
    made.handle(Signal.GOAWAY, 1.0, code=4000, hosts=hosts)
    tried = []
    for _ in range(len(hosts) + 1):
        made.handle(Signal.TIMER, 2.0)
        tried.append(made.host)
        made.handle(Signal.LOST, 2.0)
    assert sorted(tried) == sorted([*hosts, CONFIGURED_HOST])
    assert tried[-1] == CONFIGURED_HOST
    assert made.host == tried[0], "the list starts again"


def test_a_host_that_works_is_kept() -> None:
    made = opened()
    made.handle(Signal.GOAWAY, 1.0, code=4000, hosts=["other:1"])
    reopen(made, 2.0)
    made.handle(Signal.LOST, 50.0)
    assert made.host == "other:1"


@given(st.integers(0, 2**32), st.integers(0, 40))
def test_backoff_has_full_jitter_between_its_bounds(seed: int, attempt: int) -> None:
    delay_s = backoff_s(attempt, random.Random(seed))
    assert MIN_BACKOFF_S <= delay_s <= min(MAX_BACKOFF_S, MIN_BACKOFF_S * 2 ** (attempt + 1))


def test_backoff_spreads_many_clients_evenly() -> None:
    rng = random.Random(7)
    delays = sorted(backoff_s(9, rng) for _ in range(2000))
    assert delays[-1] <= 30
    per_second = [sum(second <= delay < second + 1 for delay in delays) for second in range(1, 30)]
    assert max(per_second) < 3 * min(per_second)


def test_failures_in_a_row_wait_longer_and_a_stable_link_resets_the_wait() -> None:
    made = opened()
    for _ in range(10):
        made.handle(Signal.LOST, 1.0)
        assert made.delay_s >= MIN_BACKOFF_S
        reopen(made, 1.0)
    assert made.attempt == 10
    made.handle(Signal.LOST, 1.0 + STABLE_S)
    assert made.attempt == 1
    assert made.delay_s <= 2 * MIN_BACKOFF_S


def test_a_code_that_says_now_still_has_jitter() -> None:
    delays = set()
    for seed in range(50):
        made = opened(seed=seed)
        made.handle(Signal.GOAWAY, 100.0, code=4001)
        assert 0 <= made.delay_s <= NOW_JITTER_S
        delays.add(made.delay_s)
    assert len(delays) == 50


def test_a_broker_that_cuts_every_link_now_is_not_overloaded() -> None:
    made = opened()
    waited_s = 0.0
    for _ in range(20):
        made.handle(Signal.GOAWAY, 1.0, code=4000, retry_after_ms=1)
        waited_s += made.delay_s
        reopen(made, 1.0)
    assert waited_s > 20 * MIN_BACKOFF_S - 1


def test_the_brokers_numbers_are_honoured() -> None:
    delays = []
    for seed in range(200):
        made = opened(seed=seed)
        made.handle(Signal.GOAWAY, 100.0, code=4000, retry_after_ms=2000, jitter_ms=10_000)
        delays.append(made.delay_s)
    assert min(delays) >= 2
    assert max(delays) <= 12
    assert max(delays) - min(delays) > 8, "the drain is spread over the window"


def test_no_broker_can_delay_a_client_without_bound() -> None:
    made = opened()
    made.handle(Signal.GOAWAY, 1.0, code=4200, retry_after_ms=2**53, jitter_ms=2**53)
    assert made.delay_s <= 2 * MAX_PEER_DELAY_S
    made.handle(Signal.TIMER, 1.0 + made.delay_s)
    assert made.state is ReconnectState.CONNECTING


def test_the_code_of_the_ending_is_kept() -> None:
    made = opened()
    made.handle(Signal.GOAWAY, 1.0, code=4410)
    assert (made.state, made.code) == (ReconnectState.CLOSED, 4410)
