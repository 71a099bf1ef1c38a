"""Who gets a connection at all, before a byte of it is read.

    question, in this order                      answer when not
    is the house open?                           GOING_AWAY
    is there room under the cap?                 TOO_MANY_CONNECTIONS
    does its address hold fewer than its share?  TOO_MANY_FROM_ADDRESS
    is there room for one more stranger?         OVERLOADED

Strangers are connections that have not authenticated: they may fill a tenth of the house only, so that a thousand slow
handshakes never keep a viewer with a token out for longer than their deadline. A refused connection is still
accepted, into an overflow pool of `OVERFLOW_MAX`, only to be told why and when to return; beyond that it is dropped.

The rate of accepting is not a refusal: `pace` says how long to leave newcomers in the kernel's backlog.

IPv6 hands every household 2**64 addresses, so there "one address" means one /64. The table of addresses has one entry
for each address that holds a connection, thus at most as many as there are connections.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum

from broker.core.limits.rate_limit import Gcra, Rate
from broker.core.net.proxy_header import plain_address
from protocol.codes import CloseCode

__all__ = ["OVERFLOW_MAX", "UNAUTHENTICATED_MIN", "Admission", "AdmissionResult", "ConnectionLimits", "Refuse"]

OVERFLOW_MAX = 64
"""Refused connections held at a time; each costs a descriptor, and the reserve has 256."""
UNAUTHENTICATED_MIN = 64
"""Strangers that may always be there, however small the house is."""
BURST_S = 0.05
"""Newcomers that may be accepted at once, in seconds of the accept rate: one longer stall of the loop."""

RETRY_AFTER_MS = {
    CloseCode.TOO_MANY_CONNECTIONS: 5000,
    CloseCode.TOO_MANY_FROM_ADDRESS: 10_000,
    CloseCode.OVERLOADED: 2000,
}
"""When to try again: seats come free slowly, an address's even more so; strangers are gone after the handshake
deadline."""


class Admission(Enum):
    """Answers without words."""

    ADMIT = "admit"
    DROP = "drop"
    """Close it at once: even the overflow pool is full."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the peer why and when to return, then close."""

    code: CloseCode
    retry_after_ms: int


AdmissionResult = Admission | Refuse
_REFUSALS = {code: Refuse(code, wait_ms) for code, wait_ms in RETRY_AFTER_MS.items()}


class ConnectionLimits:
    """The books of all connections of one process. Every method is O(1) and never waits.

    ``max_connections`` >= 1; ``per_address`` 0 = no limit; ``accept_per_s`` > 0; ``unauthenticated_share`` of the cap
    in (0, 1]. For every `enter` that gave ADMIT there is one `leave`, for every Refuse one `leave_refused`.
    """

    __slots__ = (
        "_accepts", "_by_address", "_closed", "_per_address", "admitted", "dropped", "held", "max_connections",
        "max_unauthenticated", "overflow", "refused", "unauthenticated",
    )  # fmt: skip

    def __init__(
        self, *, max_connections: int, per_address: int, accept_per_s: float, unauthenticated_share: float
    ) -> None:
        if max_connections < 1 or per_address < 0 or not 0 < unauthenticated_share <= 1:
            raise ValueError("a gate lets at least somebody in")
        self.max_connections = max_connections
        self.max_unauthenticated = min(
            max_connections, max(UNAUTHENTICATED_MIN, int(max_connections * unauthenticated_share))
        )
        self._per_address = per_address
        self._accepts = Gcra(Rate(accept_per_s, max(1, int(accept_per_s * BURST_S))))
        self._by_address: dict[str | bytes, int] = {}
        self._closed: Refuse | None = None
        self.held = 0
        """Connections inside, without the overflow."""
        self.unauthenticated = 0
        """Of them, those that have not authenticated."""
        self.overflow = 0
        """Refused connections that have not gone yet."""
        self.admitted = 0
        """Connections let in so far."""
        self.dropped = 0
        """Connections closed without a word so far."""
        self.refused: dict[CloseCode, int] = dict.fromkeys((*RETRY_AFTER_MS, CloseCode.GOING_AWAY), 0)
        """Connections refused so far, dropped ones not among them."""

    @property
    def addresses(self) -> int:
        """Addresses (IPv6: networks) that hold a connection."""
        return len(self._by_address)

    def pace(self, now: float) -> float:
        """Take one accept out of the rate: 0.0 = go ahead, else the seconds to leave everybody in the backlog."""
        return self._accepts.try_acquire("", now)

    def close(self, retry_after_ms: int) -> None:
        """Let nobody in any more: the broker ends, and newcomers are told when to look for its successor."""
        self._closed = Refuse(CloseCode.GOING_AWAY, retry_after_ms)

    def enter(self, address: str) -> AdmissionResult:
        """Judge a new connection. ``address`` "" = not known yet (behind a trusted proxy): see `reveal`."""
        if self._closed is not None:
            return self._refuse(self._closed)
        if self.held >= self.max_connections:
            return self._refuse(_REFUSALS[CloseCode.TOO_MANY_CONNECTIONS])
        key = self._key(address)
        if key and self._by_address.get(key, 0) >= self._per_address:
            return self._refuse(_REFUSALS[CloseCode.TOO_MANY_FROM_ADDRESS])
        if self.unauthenticated >= self.max_unauthenticated:
            return self._refuse(_REFUSALS[CloseCode.OVERLOADED])
        self.held += 1
        self.unauthenticated += 1
        self.admitted += 1
        if key:
            self._by_address[key] = self._by_address.get(key, 0) + 1
        return Admission.ADMIT

    def reveal(self, address: str) -> AdmissionResult:
        """Judge a connection that entered as "" and turns out to come from ``address``.

        ADMIT: it is on the books as ``address`` from now on. Refuse: it stays there as "" until it leaves.
        """
        key = self._key(address)
        if key:
            count = self._by_address.get(key, 0)
            if count >= self._per_address:
                self.refused[CloseCode.TOO_MANY_FROM_ADDRESS] += 1
                return _REFUSALS[CloseCode.TOO_MANY_FROM_ADDRESS]
            self._by_address[key] = count + 1
        return Admission.ADMIT

    def authenticated(self, address: str) -> None:
        """One of ``address``'s connections is no stranger any more."""
        if not self.unauthenticated:
            raise ValueError("nobody inside is a stranger")
        self.unauthenticated -= 1

    def leave(self, address: str, authenticated: bool) -> None:
        """An admitted connection has gone; ``address`` as it entered (or was revealed)."""
        if not self.held or (not authenticated and not self.unauthenticated):
            raise ValueError("somebody left who never came in")
        key = self._key(address)
        if key:
            count = self._by_address[key] - 1
            if count:
                self._by_address[key] = count
            else:
                del self._by_address[key]
        self.held -= 1
        if not authenticated:
            self.unauthenticated -= 1

    def leave_refused(self) -> None:
        """A refused connection has gone."""
        if not self.overflow:
            raise ValueError("nobody was refused")
        self.overflow -= 1

    def _refuse(self, refusal: Refuse) -> AdmissionResult:
        if self.overflow >= OVERFLOW_MAX:
            self.dropped += 1
            return Admission.DROP
        self.overflow += 1
        self.refused[refusal.code] += 1
        return refusal

    def _key(self, address: str) -> str | bytes:
        """What counts as one address; "" = nobody counts it."""
        if not self._per_address:
            return ""
        if ":" not in address:
            return address
        address = plain_address(address)
        try:
            return ipaddress.IPv6Address(address).packed[:8]
        except ValueError:
            return address
