"""Accounts: the outcomes of all messages of a lane.

A drop is a feature; an uncounted one is a defect. So each lane of a room has one account of six counters,
and one equation holds between any two calls into the room:

    admitted = shown + merged + sampled + expired + held

``held`` is what waits now (an open window, pacing, review); the other five only grow. Code that admits a message
adds to ``admitted`` and ``held``; code that decides its outcome moves it from ``held`` to one of the others.
Refusals (rate limits, room quota with ``DROP_NEWEST``) never enter an account: their sender gets the refusal.

The counters are plain attributes because the tick's hot loop adds to them directly; `balanced` is for tests,
for the ``/stats`` answer and for the bench, which fails when an account is off.
"""

from __future__ import annotations

from collections.abc import Iterator

from protocol.codes import Lane
from protocol.messages import Account

__all__ = ["LaneAccount", "RoomAccounts", "closed", "sum_of"]

_UNUSED = (0,) * len(Account._fields)


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

    def as_tuples(self) -> tuple[Account, ...]:
        """Lane 0 first."""
        return tuple(account.as_tuple() for account in self._lanes)

    def as_numbers(self) -> tuple[int, ...]:
        """The counters of all lanes, one after the other, in the order of `as_tuples`. Cheap where a lane was never
        used."""
        found: tuple[int, ...] = ()
        for lane in self._lanes:
            if lane.admitted:
                found += (lane.admitted, lane.shown, lane.merged, lane.sampled, lane.expired, lane.held)
            else:
                found += _UNUSED
        return found


def sum_of(one: tuple[Account, ...], other: tuple[Account, ...]) -> tuple[Account, ...]:
    """Return the accounts of two rooms, added lane by lane; balanced ones stay balanced."""
    return tuple(Account(*map(sum, zip(*lanes, strict=True))) for lanes in zip(one, other, strict=True))


def closed(lanes: tuple[Account, ...]) -> tuple[Account, ...]:
    """Return the accounts of a closed room: what it held back has expired."""
    return tuple(lane._replace(expired=lane.expired + lane.held, held=0) for lane in lanes)
