"""Limits of connections, judged before a byte of a new one is read.

    condition, in this order                               refusal
    the broker is not shutting down                        GOING_AWAY
    fewer connections than the cap                         TOO_MANY_CONNECTIONS
    its address holds fewer than the limit per address     TOO_MANY_FROM_ADDRESS
    fewer unauthenticated connections than their share     OVERLOADED

Unauthenticated connections may use a tenth of the cap only, so that a thousand slow handshakes keep no viewer with a
token out for longer than their deadline. A refused connection is still accepted, into an overflow pool of
`OVERFLOW_MAX`, to be sent the reason and a time to return; beyond that it is dropped.

The rate of accepting is not a refusal: `pace` returns how long to leave new connections in the kernel's backlog.

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
"""Unauthenticated connections that are always admitted, however small the cap is."""
BURST_S = 0.05
"""Connections that may be accepted at once, in seconds of the accept rate: one longer stall of the loop."""

RETRY_AFTER_MS = {
    CloseCode.TOO_MANY_CONNECTIONS: 5000,
    CloseCode.TOO_MANY_FROM_ADDRESS: 10_000,
    CloseCode.OVERLOADED: 2000,
}
"""When to try again: connections end slowly, those of one address even more so; unauthenticated ones after the
handshake deadline."""


class Admission(Enum):
    """Results without a message to the peer."""

    ADMIT = "admit"
    DROP = "drop"
    """Close it at once: even the overflow pool is full."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Send the peer a reason and a time to return, then close."""

    code: CloseCode
    retry_after_ms: int


AdmissionResult = Admission | Refuse
_REFUSALS = {code: Refuse(code, wait_ms) for code, wait_ms in RETRY_AFTER_MS.items()}


class ConnectionLimits:
    """Counts of all connections of one process. Every method is O(1) and never waits.

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
            raise ValueError("at least one connection must be possible")
        self.max_connections = max_connections
        self.max_unauthenticated = min(
            max_connections, max(UNAUTHENTICATED_MIN, int(max_connections * unauthenticated_share))
        )
        self._per_address = per_address
        self._accepts = Gcra(Rate(accept_per_s, max(1, int(accept_per_s * BURST_S))))
        self._by_address: dict[str | bytes, int] = {}
        self._closed: Refuse | None = None
        self.held = 0
        """Admitted connections, without the overflow."""
        self.unauthenticated = 0
        """Of them, those that have not authenticated."""
        self.overflow = 0
        """Refused connections that are still open."""
        self.admitted = 0
        """Connections admitted so far."""
        self.dropped = 0
        """Connections closed without an answer so far."""
        self.refused: dict[CloseCode, int] = dict.fromkeys((*RETRY_AFTER_MS, CloseCode.GOING_AWAY), 0)
        """Connections refused so far, without the dropped ones."""

    @property
    def addresses(self) -> int:
        """Addresses (IPv6: networks) that hold a connection."""
        return len(self._by_address)

    def pace(self, now: float) -> float:
        """Take one accept from the rate: 0.0 = accept, else the seconds to leave connections in the backlog."""
        return self._accepts.try_acquire("", now)

    def close(self, retry_after_ms: int) -> None:
        """Refuse every new connection from now on: the broker shuts down."""
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

        ADMIT: it counts for ``address`` from now on. Refuse: it stays there as "" until it leaves.
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
        """Count one of ``address``'s connections as authenticated."""
        if not self.unauthenticated:
            raise ValueError("every connection is authenticated already")
        self.unauthenticated -= 1

    def leave(self, address: str, authenticated: bool) -> None:
        """Count the end of an admitted connection; ``address`` as in `enter` or `reveal`."""
        if not self.held or (not authenticated and not self.unauthenticated):
            raise ValueError("more connections left than entered")
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
        """Count the end of a refused connection."""
        if not self.overflow:
            raise ValueError("no refused connection is open")
        self.overflow -= 1

    def _refuse(self, refusal: Refuse) -> AdmissionResult:
        if self.overflow >= OVERFLOW_MAX:
            self.dropped += 1
            return Admission.DROP
        self.overflow += 1
        self.refused[refusal.code] += 1
        return refusal

    def _key(self, address: str) -> str | bytes:
        """Return what counts as one address; "" = not counted."""
        if not self._per_address:
            return ""
        if ":" not in address:
            return address
        address = plain_address(address)
        try:
            return ipaddress.IPv6Address(address).packed[:8]
        except ValueError:
            return address
