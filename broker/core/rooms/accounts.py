"""Accounts: what became of every message of a lane.

A drop is a feature; silence about it is a defect. So each lane of a room has one account of six counters,
and one equation holds between any two calls into the room:

    admitted = shown + merged + sampled + expired + held

``held`` is what waits now (an open window, pacing, review); the other five only grow. Whoever takes a message
in adds to ``admitted`` and ``held``; whoever decides its fate moves it from ``held`` to one of the others.
Refusals (rate limits, room quota with ``DROP_NEWEST``) never enter an account: their sender heard "no".

The counters are plain attributes because the tick's hot loop adds to them directly; `balanced` is for tests,
for the ``/stats`` answer and for the bench, which fails when an account is off.
"""

from __future__ import annotations

from collections.abc import Iterator

from protocol.codes import Lane
from protocol.messages import Account

__all__ = ["LaneAccount", "RoomAccounts"]


class LaneAccount:
    """Six counters of one lane, all >= 0."""

    __slots__ = ("admitted", "expired", "held", "merged", "sampled", "shown")

    def __init__(
        self, admitted: int = 0, shown: int = 0, merged: int = 0, sampled: int = 0, expired: int = 0, held: int = 0
    ) -> None:
        self.admitted = admitted
        self.shown = shown
        self.merged = merged
        self.sampled = sampled
        self.expired = expired
        self.held = held

    @property
    def balanced(self) -> bool:
        """Whether the equation holds and no counter is negative."""
        parts = self.as_tuple()[1:]
        return min(parts) >= 0 and self.admitted == sum(parts)

    def as_tuple(self) -> Account:
        """The counters as they stand, as the wire's tuple (admitted, shown, merged, sampled, expired, held)."""
        return Account(self.admitted, self.shown, self.merged, self.sampled, self.expired, self.held)

    def add(self, other: LaneAccount) -> None:
        """Add each counter of ``other``; two balanced accounts stay balanced."""
        self.admitted += other.admitted
        self.shown += other.shown
        self.merged += other.merged
        self.sampled += other.sampled
        self.expired += other.expired
        self.held += other.held

    def __iadd__(self, other: LaneAccount) -> LaneAccount:
        self.add(other)
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LaneAccount) and self.as_tuple() == other.as_tuple()

    __hash__ = None  # type: ignore[assignment]  # counters change: not a key

    def __repr__(self) -> str:
        counters = ", ".join(f"{name}={value}" for name, value in self.as_tuple()._asdict().items())
        return f"LaneAccount({counters})"


class RoomAccounts:
    """The five lanes of one room; ``accounts[lane]`` is a lane's account."""

    __slots__ = ("_lanes",)

    def __init__(self) -> None:
        self._lanes = tuple(LaneAccount() for _ in Lane)

    def __getitem__(self, lane: int) -> LaneAccount:
        return self._lanes[lane]

    def __iter__(self) -> Iterator[LaneAccount]:
        return iter(self._lanes)

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def balanced(self) -> bool:
        """Whether every lane's account is."""
        return all(account.balanced for account in self._lanes)

    def add(self, other: RoomAccounts) -> None:
        """Add lane by lane, for totals over rooms."""
        for mine, theirs in zip(self._lanes, other._lanes, strict=True):
            mine.add(theirs)

    def __iadd__(self, other: RoomAccounts) -> RoomAccounts:
        self.add(other)
        return self

    def as_tuples(self) -> tuple[Account, ...]:
        """Lane 0 first."""
        return tuple(account.as_tuple() for account in self._lanes)
