"""State machine of reconnecting: whether a client whose link has ended connects again, when, and to which host.

A client that stops for a wrong reason is a viewer lost. So only two things end the machine: a close code of 4400-4599
that *the peer* has sent, and `close` by the application. Everything else (a broken connection, an unknown code, the
answer of a proxy, invalid bytes) leads through WAITING to CONNECTING.

The machine is a table `{(state, signal): state}`; a missing key raises LocalProtocolError and changes nothing. A signal
with a terminal code is looked up as TERMINAL.

Delays:

- The peer's own numbers (``retry_after_ms`` plus a random part of ``jitter_ms``) come first, capped.
- After codes 4000-4199 the client reconnects within `NOW_JITTER_S`, else with full jitter of 0.5 to 30 s.
- Whatever the peer says, the second failure in a row waits at least its backoff, so that clients do not overload a
  broker that closes every link at once. After a link of `STABLE_S` the next failure is the first one again.

A GOAWAY may name other hosts. The client tries them in random order, then the configured host, then starts again; it
keeps a host that works. So a bad list of hosts costs time, and the client still reaches the configured host.

Nothing here waits, reads a clock or opens a connection.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import Enum

from .codes import ReconnectAdvice, reconnect_advice
from .errors import LocalProtocolError

__all__ = [
    "CONFIGURED_HOST",
    "MAX_BACKOFF_S",
    "MAX_PEER_DELAY_S",
    "MIN_BACKOFF_S",
    "NOW_JITTER_S",
    "STABLE_S",
    "TRANSITIONS",
    "Reconnect",
    "ReconnectState",
    "Signal",
    "backoff_s",
]

MIN_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
"""With these bounds 5,000 clients whose links end at once reconnect within half a minute, spread evenly."""
NOW_JITTER_S = 1.0
"""Spread of immediate reconnects: the slow viewers that a broker closes together do not return in one instant."""
STABLE_S = 30.0
"""A link that lasted this long counts as a success; a shorter one counts as a failure."""
MAX_PEER_DELAY_S = 600.0
"""Cap of each of the peer's two numbers, so that no peer can delay a client for ever."""

CONFIGURED_HOST = ""
"""Stands for the host of the address that the application gave."""


class ReconnectState(Enum):
    """State of a client's link."""

    IDLE = "idle"
    CONNECTING = "connecting"
    """Opening the byte pipe (TCP, TLS, WebSocket upgrade)."""
    HANDSHAKING = "handshaking"
    """HELLO and AUTH are under way."""
    OPEN = "open"
    WAITING = "waiting"
    """No link; the next attempt comes when the timer fires."""
    CLOSED = "closed"
    """For good."""


class Signal(Enum):
    """Event of a client's link."""

    START = "start"
    CONNECTED = "connected"
    """The byte pipe is open."""
    AUTHENTICATED = "authenticated"
    """The peer has answered HELLO and AUTH."""
    LOST = "lost"
    """The link broke, could not be opened, was silent or carried invalid bytes; perhaps with a close code."""
    REFUSED = "refused"
    """The peer refused the connection during the upgrade, perhaps with a close code."""
    GOAWAY = "goaway"
    """The peer sent GOAWAY, with a close code and perhaps numbers and hosts."""
    TERMINAL = "terminal"
    """Any of the three above with a terminal code."""
    TIMER = "timer"
    """The delay is over."""
    CLOSE = "close"
    """The application closes the client."""


_I, _C, _H, _O, _W, _X = (
    ReconnectState.IDLE, ReconnectState.CONNECTING, ReconnectState.HANDSHAKING,
    ReconnectState.OPEN, ReconnectState.WAITING, ReconnectState.CLOSED,
)  # fmt: skip

TRANSITIONS: dict[tuple[ReconnectState, Signal], ReconnectState] = {
    (_I, Signal.START): _C,
    (_I, Signal.CLOSE): _X,
    (_C, Signal.CONNECTED): _H,
    (_C, Signal.LOST): _W,
    (_C, Signal.REFUSED): _W,
    (_C, Signal.TERMINAL): _X,
    (_C, Signal.CLOSE): _X,
    (_H, Signal.AUTHENTICATED): _O,
    (_H, Signal.LOST): _W,
    (_H, Signal.REFUSED): _W,
    (_H, Signal.GOAWAY): _W,
    (_H, Signal.TERMINAL): _X,
    (_H, Signal.CLOSE): _X,
    (_O, Signal.LOST): _W,
    (_O, Signal.GOAWAY): _W,
    (_O, Signal.TERMINAL): _X,
    (_O, Signal.CLOSE): _X,
    (_W, Signal.TIMER): _C,
    (_W, Signal.CLOSE): _X,
    (_X, Signal.CLOSE): _X,
}
"""``TRANSITIONS[state, signal]``; a missing key is refused."""

_ENDINGS = frozenset({Signal.LOST, Signal.REFUSED, Signal.GOAWAY})


def backoff_s(attempt: int, rng: random.Random) -> float:
    """Return seconds to wait after failure ``attempt`` (0 = the first): full jitter, MIN_BACKOFF_S to MAX_BACKOFF_S.

    The upper bound doubles with every failure: 1, 2, 4, 8, 16, 30, 30 s.
    """
    high = min(MAX_BACKOFF_S, MIN_BACKOFF_S * 2.0 ** min(attempt + 1, 16))
    return rng.uniform(MIN_BACKOFF_S, high)


class Reconnect:
    """Reconnect decisions of one client.

    `handle` takes the signals; ``state`` then says what to do: in CONNECTING connect to ``host`` (`CONFIGURED_HOST`, or
    an entry of a GOAWAY's list, ``"name:port"`` as the peer wrote it), in WAITING send TIMER after ``delay_s``, in
    CLOSED stop. ``code`` is the peer's last close code, None if it sent none.
    Memory is bounded by the 64 hosts of a GOAWAY.
    """

    __slots__ = ("_hosts", "_opened_at", "_place", "_rng", "attempt", "code", "delay_s", "state")

    def __init__(self, rng: random.Random) -> None:
        self.state = ReconnectState.IDLE
        self.delay_s = 0.0
        self.code: int | None = None
        self.attempt = 0
        """Failures in a row, 0 after a link that lasted STABLE_S."""
        self._rng = rng
        self._hosts: list[str] = [CONFIGURED_HOST]
        self._place = 0
        self._opened_at: float | None = None

    @property
    def host(self) -> str:
        """The host to connect to."""
        return self._hosts[self._place]

    def handle(
        self,
        signal: Signal,
        now: float,
        *,
        code: int | None = None,
        retry_after_ms: int = 0,
        jitter_ms: int = 0,
        hosts: Sequence[str] = (),
    ) -> ReconnectState:
        """Process one signal and return the new state.

        ``now``: monotonic seconds. ``code`` is one that the peer sent: a client that finds the peer's bytes invalid
        reports LOST without a code. The other arguments are those of a GOAWAY. Raises LocalProtocolError, with
        nothing changed, where the table has no key. O(hosts).
        """
        is_terminal = signal in _ENDINGS and code is not None and reconnect_advice(code) is ReconnectAdvice.NEVER
        state = TRANSITIONS.get((self.state, Signal.TERMINAL if is_terminal else signal))
        if state is None:
            raise LocalProtocolError(f"{signal.name} may not come when {self.state.value}")
        if signal is Signal.AUTHENTICATED:
            self._opened_at = now
        elif signal in _ENDINGS:
            self.code = code
            if state is _W:
                self._plan(now, code, retry_after_ms, jitter_ms, hosts)
            self._opened_at = None
        self.state = state
        return state

    def _plan(self, now: float, code: int | None, retry_after_ms: int, jitter_ms: int, hosts: Sequence[str]) -> None:
        """Choose the delay and the host of the next attempt."""
        if self._opened_at is not None and now - self._opened_at >= STABLE_S:
            self.attempt = 0
        peer_s = min(retry_after_ms / 1000, MAX_PEER_DELAY_S) + self._rng.uniform(
            0, min(jitter_ms / 1000, MAX_PEER_DELAY_S)
        )
        soon = code is not None and reconnect_advice(code) is ReconnectAdvice.NOW
        own_s = self._rng.uniform(0, NOW_JITTER_S) if soon and not self.attempt else backoff_s(self.attempt, self._rng)
        has_peer_delay = retry_after_ms > 0 or jitter_ms > 0
        self.delay_s = peer_s if has_peer_delay and not self.attempt else max(peer_s, own_s)
        self.attempt += 1
        if hosts:
            self._hosts = [*self._rng.sample(list(hosts), len(hosts)), CONFIGURED_HOST]
            self._place = 0
        elif self._opened_at is None:
            self._place = (self._place + 1) % len(self._hosts)
