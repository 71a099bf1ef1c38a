"""The shares of a packet: whether a total can be divided so, and who has taken what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from broker.core.commerce.activity import ActivityRefusal, ErasedUser, move_to_pseudonym
from protocol.activities.packets import OwnPacketShare, SplitMode
from protocol.codes import ErrorCode
from protocol.fields import MAX_INT
from protocol.packet_shares import dividing

__all__ = ["PacketShares", "ShareTerms"]


class ShareTerms(NamedTuple):
    """How a total is divided; see `protocol.packet_shares`."""

    mode: SplitMode
    total_cents: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    min_cents: int
    max_cents: int

    def refusal(self) -> ActivityRefusal | None:
        """Return why a total cannot be divided so; None: it can."""
        if self.max_cents and self.max_cents < self.min_cents:
            return _bad("max_cents", f"must be 0 or at least {self.min_cents}")
        if self.count * self.max_cents > MAX_INT:
            return _bad("max_cents", "is too much for so many shares")
        if self.count * self.min_cents > self.total_cents:
            return _bad("total_cents", f"must be at least {self.count} x {self.min_cents}")
        if self.max_cents and self.count * self.max_cents < self.total_cents:
            return _bad("total_cents", f"must be at most {self.count} x {self.max_cents}")
        if self.mode is SplitMode.FIXED and self.total_cents % self.count:
            return _bad("count", "must divide the total of fixed shares")
        return None


class PacketShares:
    """The shares of one packet, and who has taken them: in their order, one a user."""

    __slots__ = ("_cents", "_dividing", "_shares", "_taken", "_taken_cents", "terms")

    def __init__(self, terms: ShareTerms, seed: bytes) -> None:
        self.terms = terms
        self._cents: list[int] = []
        """Of all shares, once they are computed."""
        self._dividing: Iterator[None] | None = dividing(self._cents, *terms, seed)
        """What computes them; None: it is done."""
        self._taken: list[tuple[str, str, int]] = []
        """Of each share that is taken, in order: user, masked name, cents."""
        self._shares: dict[str, int] = {}
        """Numbers of shares by user."""
        self._taken_cents = 0

    @property
    def taken(self) -> int:
        """How many shares are taken."""
        return len(self._taken)

    @property
    def taken_cents(self) -> int:
        """What they hold together."""
        return self._taken_cents

    @property
    def left_cents(self) -> int:
        """What is not taken."""
        return self.terms.total_cents - self.taken_cents

    def of(self, user: str) -> OwnPacketShare | None:
        """Return the share that a user has taken."""
        share = self._shares.get(user)
        return None if share is None else OwnPacketShare(share, self._taken[share][2])

    def next_share(self) -> OwnPacketShare | None:
        """Return the next share that is free; None: all are taken."""
        share = len(self._taken)
        if share == self.terms.count:
            return None
        while self.is_dividing():
            pass
        return OwnPacketShare(share, self._cents[share])

    @property
    def is_divided(self) -> bool:
        """Whether all shares are computed."""
        return self._dividing is None

    def is_dividing(self) -> bool:
        """Compute a slice of the shares; return whether another one is left."""
        if self._dividing is not None:
            for _ in self._dividing:
                return True
            self._dividing = None
        return False

    def best(self, name: str, cents: int) -> tuple[str, int]:
        """Return the masked name and the cents of the largest share, of equal ones the first.

        ``name`` and ``cents``: of the last share, which is being taken.
        """
        best = max(self._taken, key=lambda taken: taken[2], default=None)
        return (name, cents) if best is None or best[2] < cents else best[1:]

    def take(self, user: str, name: str, cents: int) -> None:
        """Apply that a user has taken the next share."""
        self._shares[user] = len(self._taken)
        self._taken.append((user, name, cents))
        self._taken_cents += cents

    def put_back(self) -> None:
        """Undo the newest `take`."""
        user, _, cents = self._taken.pop()
        del self._shares[user]
        self._taken_cents -= cents

    def erase(self, erased: ErasedUser) -> None:
        """Give the share of a user to its pseudonym; the name goes."""
        share = self._shares.get(erased.user)
        if share is not None:
            self._taken[share] = erased.pseudonym, "", self._taken[share][2]
            move_to_pseudonym(self._shares, erased)

    def dump(self) -> tuple[Any, ...]:
        """Return who has taken what, in order."""
        return self.terms, self.taken_cents, tuple(self._taken)


def _bad(field: str, rule: str) -> ActivityRefusal:
    return ActivityRefusal(ErrorCode.BAD_FIELD, rule, field)
