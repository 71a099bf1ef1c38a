"""The claims of a flash sale that wait for the end of their window, to be decided together.

All claims of one window are decided in the order of a keyed hash of the user, which does not depend on when a claim
arrived nor on who else claims. The key is committed to before the sale and becomes public at its end, so every user
can check its place.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Generic, TypeVar

from protocol.primitives import label, mac, pack_text, pack_u64

from .activity import ErasedUser, move_to_pseudonym

__all__ = ["MAX_PENDING", "MAX_TICKETS", "PendingClaim", "SaleWindow", "tie_of"]

T = TypeVar("T")

MAX_PENDING = 100_000
"""Claims of one window."""
MAX_TICKETS = 8
"""Callers that wait for the same claim."""
_LABEL = label("roomcast/sale/tie/1")
_tie = attrgetter("tie")


def tie_of(seed: bytes, window: int, user: str) -> bytes:
    """Return the place of ``user`` among the claims of a window: the smallest is decided first."""
    return mac(seed, _LABEL + pack_u64(window) + pack_text(user))


class PendingClaim(Generic[T]):
    """A claim that is not decided. ``tickets``: of all who have sent this request."""

    __slots__ = ("price_version", "quantity", "request", "tickets", "tie", "user")

    def __init__(self, user: str, request: str, quantity: int, price_version: int, ticket: T, tie: bytes = b"") -> None:
        self.user = user
        self.request = request
        self.quantity = quantity
        self.price_version = price_version
        self.tickets = [ticket]
        self.tie = tie


class SaleWindow(Generic[T]):
    """The open window of one sale.

    Claims are sorted into 256 parts by the first byte of their order, so that a big window is decided in small steps.
    """

    __slots__ = (
        "_by_user", "_first_ms", "_first_part", "_is_sorted", "_open_at_ms", "_parts", "_seed", "_window_ms", "count",
        "ends_at",
    )  # fmt: skip

    def __init__(self, seed: bytes, open_at_ms: int, first_ms: int, window_ms: int) -> None:
        self._seed = seed
        self._open_at_ms = open_at_ms
        self._first_ms = first_ms
        self._window_ms = window_ms
        self._parts: list[list[PendingClaim[T]]] = [[] for _ in range(256)]
        self._first_part = 0
        self._is_sorted = False
        self._by_user: dict[str, list[PendingClaim[T]]] = {}
        self.count = 0
        self.ends_at: int | None = None
        """When its claims are decided, None = there are none."""

    def find(self, user: str, request: str) -> PendingClaim[T] | None:
        for pending in self._by_user.get(user, ()):
            if pending.request == request:
                return pending
        return None

    def has_user(self, user: str) -> bool:
        """Whether a claim of ``user`` waits."""
        return user in self._by_user

    def quantity_of(self, user: str) -> int:
        """Return the units that a user's pending claims ask for."""
        claims = self._by_user.get(user)
        return sum(pending.quantity for pending in claims) if claims else 0

    def is_on(self, now_ms: int) -> bool:
        """Whether a claim that arrives now waits; otherwise it is decided at once."""
        return self._window_ms > 0 or now_ms < self._open_at_ms + self._first_ms

    def add(self, pending: PendingClaim[T], now_ms: int) -> None:
        """Add a claim that has arrived now to the window that is open now."""
        beyond = now_ms - self._open_at_ms - self._first_ms
        window = 0 if beyond < 0 else 1 + beyond // self._window_ms
        if self.ends_at is None:
            self.ends_at = self._open_at_ms + self._first_ms + window * self._window_ms
        pending.tie = tie_of(self._seed, window, pending.user)
        self._parts[pending.tie[0]].append(pending)
        self._by_user.setdefault(pending.user, []).append(pending)
        self.count += 1

    def erase(self, erased: ErasedUser) -> None:
        """Give the claims of a user to its pseudonym; their places in the order stay."""
        for pending in self._by_user.get(erased.user, ()):
            pending.user, pending.request = erased.pseudonym, ""
        move_to_pseudonym(self._by_user, erased)

    def take(self, limit: int) -> list[PendingClaim[T]]:
        """Remove and return the next claims in order, at most ``limit``. None may be added until all are taken."""
        taken: list[PendingClaim[T]] = []
        while self._first_part < 256 and len(taken) < limit:
            part = self._parts[self._first_part]
            if not self._is_sorted:
                part.sort(key=_tie)  # stable: of equal ones the first that arrived
                self._is_sorted = True
            missing = limit - len(taken)
            taken += part[:missing]
            del part[:missing]
            if not part:
                self._first_part += 1
                self._is_sorted = False
        self.count -= len(taken)
        if not self.count:
            self._first_part = 0
            self._is_sorted = False
            self._by_user.clear()
            self.ends_at = None
        return taken
