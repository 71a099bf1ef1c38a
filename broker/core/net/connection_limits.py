"""Limits of connections, checked before a byte of a new one is read.

    condition, in this order                               refusal
    the broker is not shutting down                        GOING_AWAY
    fewer connections than the cap                         TOO_MANY_CONNECTIONS
    its address connects within its share of the rate      TOO_MANY_FROM_ADDRESS
    its address holds fewer than the limit per address     TOO_MANY_FROM_ADDRESS
    its address holds less than its unauthenticated share  TOO_MANY_FROM_ADDRESS
    fewer unauthenticated connections than their share     OVERLOADED

Unauthenticated connections may use a tenth of the cap only, so that a thousand slow handshakes keep no viewer with a
token out for longer than their deadline. A refused connection is still accepted, into an overflow pool of
`OVERFLOW_MAX`, to be sent the reason and a time to return; beyond that it is dropped.

Of each of these pools (unauthenticated connections, accepts a second, the overflow) one address has the same share at
most, so that no address can use up what is there for all. Failed log-ins have a rate of their own per address.

The rate of accepting all is not a refusal: `pace` returns how long to leave new connections in the kernel's backlog.

IPv6 gives each subscriber 2**64 addresses, so there "one address" means one /64. The tables of addresses have one
entry for each address that holds a connection, thus at most as many as there are connections; those of rates forget
an address once it is back within its rate.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum
from math import ceil
from typing import TypedDict

from broker.core.limits.rate_limit import UNLIMITED, Gcra, Rate
from broker.core.net.proxy_header import plain_address
from protocol.codes import CloseCode

__all__ = [
    "OVERFLOW_MAX",
    "UNAUTHENTICATED_MIN",
    "Admission",
    "AdmissionResult",
    "ConnectionLimitSettings",
    "ConnectionLimits",
    "Refuse",
    "address_key",
]

OVERFLOW_MAX = 64
"""Refused connections held at a time; each costs a descriptor, and the reserve has 256."""
UNAUTHENTICATED_MIN = 64
"""Unauthenticated connections that are always admitted, however small the cap is."""
BURST_S = 0.05
"""Connections that may be accepted at once, in seconds of the accept rate: one longer stall of the loop."""
ADDRESS_BURST_S = 2.0
"""Connections that one address may open at once, in seconds of its share of the accept rate."""

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
_ADDRESS_HANDSHAKES = Refuse(CloseCode.TOO_MANY_FROM_ADDRESS, RETRY_AFTER_MS[CloseCode.OVERLOADED])
"""The address has its share of unauthenticated connections; handshakes are soon over."""


class AddressTable:
    """How many of one pool each address holds. ``most``: for one address; None = not bounded."""

    __slots__ = ("_counts", "most")

    def __init__(self, most: int | None) -> None:
        self._counts: dict[str | bytes, int] = {}
        self.most = most

    def __len__(self) -> int:
        return len(self._counts)

    def is_full(self, key: str | bytes) -> bool:
        """Return whether an address holds as many as it may; "" never does."""
        return bool(key) and self.most is not None and self._counts.get(key, 0) >= self.most

    def add(self, key: str | bytes) -> None:
        """Count one more; "" is not counted."""
        if key:
            self._counts[key] = self._counts.get(key, 0) + 1

    def remove(self, key: str | bytes) -> None:
        """Count one less. KeyError if the address holds none."""
        if key:
            count = self._counts[key] - 1
            if count:
                self._counts[key] = count
            else:
                del self._counts[key]


class ConnectionLimitSettings(TypedDict):
    """Parameters of `ConnectionLimits`."""

    max_connections: int
    per_address: int
    accept_per_s: float
    unauthenticated_share: float
    address_share: float
    failed_logins_per_minute: int


class ConnectionLimits:
    """Counts of all connections of one process. Every method is O(1) and never waits.

    ``max_connections`` >= 1; ``per_address`` 0 = no limit; ``accept_per_s`` > 0; ``unauthenticated_share`` of the cap
    in (0, 1]; ``address_share`` of each pool that one address may use, in (0, 1]; ``failed_logins_per_minute`` of one
    address >= 1. For every `enter` that gave ADMIT there is one `leave`, for every Refuse one `leave_refused`.
    """

    __slots__ = (
        "_accepts", "_address_accepts", "_closed", "_failed_logins", "_held", "_overflow", "_unauthenticated",
        "admitted", "dropped", "held", "max_connections", "max_unauthenticated", "overflow", "refused",
        "unauthenticated",
    )  # fmt: skip

    def __init__(
        self,
        *,
        max_connections: int,
        per_address: int,
        accept_per_s: float,
        unauthenticated_share: float,
        address_share: float = 1.0,
        failed_logins_per_minute: int = 60,
    ) -> None:
        self._accepts = self._address_accepts = self._failed_logins = Gcra(UNLIMITED)
        self._held = AddressTable(None)
        self._unauthenticated = AddressTable(None)
        self._overflow = AddressTable(None)
        self.use(
            max_connections=max_connections,
            per_address=per_address,
            accept_per_s=accept_per_s,
            unauthenticated_share=unauthenticated_share,
            address_share=address_share,
            failed_logins_per_minute=failed_logins_per_minute,
        )
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

    def use(
        self,
        *,
        max_connections: int,
        per_address: int,
        accept_per_s: float,
        unauthenticated_share: float,
        address_share: float,
        failed_logins_per_minute: int,
    ) -> None:
        """Apply other limits from now on. No connection ends; what was counted against a rate that changes is
        forgotten."""
        if max_connections < 1 or per_address < 0 or not 0 < unauthenticated_share <= 1 or not 0 < address_share <= 1:
            raise ValueError("at least one connection must be possible")
        self.max_connections = max_connections
        self.max_unauthenticated = min(
            max_connections, max(UNAUTHENTICATED_MIN, int(max_connections * unauthenticated_share))
        )
        self._accepts = self._accepts.at_rate(Rate(accept_per_s, max(1, int(accept_per_s * BURST_S))))
        share_per_s = accept_per_s * address_share
        share = UNLIMITED if address_share == 1 else Rate(share_per_s, max(1, int(share_per_s * ADDRESS_BURST_S)))
        self._address_accepts = self._address_accepts.at_rate(share)
        self._failed_logins = self._failed_logins.at_rate(Rate(failed_logins_per_minute / 60, failed_logins_per_minute))
        self._held.most = per_address or None
        self._unauthenticated.most = max(1, int(self.max_unauthenticated * address_share))
        self._overflow.most = max(1, int(OVERFLOW_MAX * address_share))

    @property
    def limiter_full(self) -> int:
        """Connections and log-ins refused because a table of addresses was full."""
        tables = {id(each): each for each in (self._accepts, self._address_accepts, self._failed_logins)}
        return sum(each.full_refusals for each in tables.values())

    @property
    def addresses(self) -> int:
        """Addresses (IPv6: networks) that hold a connection."""
        return len(self._held)

    def pace(self, now: float) -> float:
        """Take one accept from the rate: 0.0 = accept, else the seconds to leave connections in the backlog."""
        return self._accepts.try_acquire("", now)

    def close(self, retry_after_ms: int) -> None:
        """Refuse every new connection from now on: the broker shuts down."""
        self._closed = Refuse(CloseCode.GOING_AWAY, retry_after_ms)

    def enter(self, address: str, now: float) -> AdmissionResult:
        """Judge a new connection. ``address`` "" = not known yet (behind a trusted proxy): see `reveal`."""
        key = address_key(address)
        if self._closed is not None:
            return self._refuse(self._closed, key)
        if self.held >= self.max_connections:
            return self._refuse(_REFUSALS[CloseCode.TOO_MANY_CONNECTIONS], key)
        refusal = self._judge_address(key, now)
        if refusal is not None:
            return self._refuse(refusal, key)
        if self.unauthenticated >= self.max_unauthenticated:
            return self._refuse(_REFUSALS[CloseCode.OVERLOADED], key)
        self.held += 1
        self.unauthenticated += 1
        self.admitted += 1
        self._held.add(key)
        self._unauthenticated.add(key)
        return Admission.ADMIT

    def reveal(self, address: str, now: float) -> AdmissionResult:
        """Judge a connection that entered as "" and turns out to come from ``address``.

        ADMIT: it counts for ``address`` from now on. Refuse: it stays there as "" until it leaves.
        """
        key = address_key(address)
        refusal = self._judge_address(key, now)
        if refusal is not None:
            self.refused[refusal.code] += 1
            return refusal
        self._held.add(key)
        self._unauthenticated.add(key)
        return Admission.ADMIT

    def authenticated(self, address: str) -> None:
        """Count one of ``address``'s connections as authenticated."""
        if not self.unauthenticated:
            raise ValueError("every connection is authenticated already")
        self.unauthenticated -= 1
        self._unauthenticated.remove(address_key(address))

    def login_wait_s(self, address: str, now: float) -> float:
        """Return how long no log-in of ``address`` is tried: too many have failed. 0.0 = try it."""
        return self._failed_logins.wait_s(address_key(address), now)

    def login_failed(self, address: str, now: float) -> None:
        """Count a failed log-in of ``address``."""
        self._failed_logins.try_acquire(address_key(address), now)

    def leave(self, address: str, authenticated: bool) -> None:
        """Count the end of an admitted connection; ``address`` as in `enter` or `reveal`."""
        if not self.held or (not authenticated and not self.unauthenticated):
            raise ValueError("more connections left than entered")
        key = address_key(address)
        self._held.remove(key)
        self.held -= 1
        if not authenticated:
            self.unauthenticated -= 1
            self._unauthenticated.remove(key)

    def leave_refused(self, address: str) -> None:
        """Count the end of a refused connection; ``address`` as in `enter`."""
        if not self.overflow:
            raise ValueError("no refused connection is open")
        self.overflow -= 1
        self._overflow.remove(address_key(address))

    def _judge_address(self, key: str | bytes, now: float) -> Refuse | None:
        if not key:
            return None
        wait_s = self._address_accepts.try_acquire(key, now)
        if wait_s:
            return Refuse(CloseCode.TOO_MANY_FROM_ADDRESS, max(1000, ceil(wait_s * 1000)))
        if self._held.is_full(key):
            return _REFUSALS[CloseCode.TOO_MANY_FROM_ADDRESS]
        return _ADDRESS_HANDSHAKES if self._unauthenticated.is_full(key) else None

    def _refuse(self, refusal: Refuse, key: str | bytes) -> AdmissionResult:
        if self.overflow >= OVERFLOW_MAX or self._overflow.is_full(key):
            self.dropped += 1
            return Admission.DROP
        self.overflow += 1
        self._overflow.add(key)
        self.refused[refusal.code] += 1
        return refusal


def address_key(address: str) -> str | bytes:
    """Return what counts as one address: an IPv4 address, an IPv6 network of 64 bits; "" = not known, not counted."""
    if ":" not in address:
        return address
    address = plain_address(address)
    try:
        return ipaddress.IPv6Address(address).packed[:8]
    except ValueError:
        return address
