"""The claims of a flash sale, numbered from 1 in the order in which they were taken.

They are kept in columns, about 240 bytes a claim. Two rules follow from how a sale takes claims and make the columns
enough: claims wait in the order of their numbers, and units are reserved in that order too, because no claim overtakes
another. So the head of the waiting list is the first claim that waits, and the one that expires first is the first one
that is reserved: of all, or of those reserved since the last restart, which has extended the others.
"""

from __future__ import annotations

from array import array
from typing import Any

from protocol.activities.sales import ClaimState, ClaimView
from protocol.operations.sales import ClaimAnswer

from .activity import ErasedUser, move_to_pseudonym

__all__ = ["MAX_CLAIMS_OF_ONE", "SaleClaims"]

MAX_CLAIMS_OF_ONE = 200
"""Claims of one user in one sale, ended ones included: they are kept for late confirmations."""

_WAITING, _RESERVED, _CONFIRMED = int(ClaimState.WAITING), int(ClaimState.RESERVED), int(ClaimState.CONFIRMED)
_HELD = (_WAITING, _RESERVED, _CONFIRMED)


class SaleClaims:
    """Claims and the sums over them. Changes are made by facts, and each can be taken back, newest first."""

    __slots__ = (
        "_before_extend", "_by_order", "_expires_at", "_extended_to", "_first_expires_at", "_last_of", "_orders",
        "_places", "_previous", "_prices", "_quantities", "_requests", "_states", "_users", "confirmed", "reserved",
        "waiting",
    )  # fmt: skip

    def __init__(self) -> None:
        self._users: list[str] = []
        self._requests: list[str] = []
        self._states = bytearray()
        self._quantities = bytearray()
        self._prices = array("q")
        self._expires_at = array("q")
        self._first_expires_at = array("q")
        """As the first answer says, whatever a restart adds."""
        self._places = array("H")
        """On the waiting list when the claim was taken, 0 = it was reserved at once."""
        self._previous = array("I")
        """The claim before by the same user, 0 = none."""
        self._last_of: dict[str, int] = {}
        self._orders: dict[int, str] = {}
        self._by_order: dict[str, int] = {}
        self._extended_to = 0
        """The last claim that was reserved at the newest restart, 0 = none."""
        self._before_extend: tuple[int, tuple[tuple[int, int], ...]] = 0, ()
        """What the newest `extend` has changed."""
        self.reserved = 0
        """Units that are reserved."""
        self.confirmed = 0
        """Units that are sold."""
        self.waiting = 0
        """Claims that wait."""

    def __len__(self) -> int:
        return len(self._users)

    # ---- questions

    def has(self, number: int) -> bool:
        return 1 <= number <= len(self._users)

    def state(self, number: int) -> ClaimState:
        return ClaimState(self._states[number - 1])

    def user(self, number: int) -> str:
        return self._users[number - 1]

    def quantity(self, number: int) -> int:
        return self._quantities[number - 1]

    def price(self, number: int) -> int:
        """Return the price of the reservation; of a claim that waits, the price when it was taken."""
        return self._prices[number - 1]

    def expires_at(self, number: int) -> int:
        """Return until when the claim is or was reserved; 0 = it never was."""
        return self._expires_at[number - 1]

    def order(self, number: int) -> str | None:
        return self._orders.get(number)

    def of_order(self, order: str) -> int:
        """Return the claim that ``order`` has confirmed, 0 = none."""
        return self._by_order.get(order, 0)

    def find(self, user: str, request: str) -> int:
        """Return the claim that a request of ``user`` has made, 0 = none."""
        number = self._last_of.get(user, 0)
        while number and self._requests[number - 1] != request:
            number = self._previous[number - 1]
        return number

    def has_user(self, user: str) -> bool:
        """Whether ``user`` has made a claim."""
        return user in self._last_of

    def of_user(self, user: str) -> list[int]:
        """Return the numbers of a user's claims, newest first."""
        numbers = []
        number = self._last_of.get(user, 0)
        while number:
            numbers.append(number)
            number = self._previous[number - 1]
        return numbers

    def numbers(self, after: int, limit: int, state: ClaimState | None = None) -> list[int]:
        """Return at most ``limit`` numbers of claims above ``after``. ``state``: of those in it; None = of all."""
        if state is None:
            return list(range(after + 1, min(after + limit, len(self._users)) + 1))
        numbers: list[int] = []
        index = self._states.find(state, after)
        while index >= 0 and len(numbers) < limit:
            numbers.append(index + 1)
            index = self._states.find(state, index + 1)
        return numbers

    def held(self, user: str) -> int:
        """Return how many units a user has, or waits for."""
        number = self._last_of.get(user, 0)
        units = 0
        while number:
            if self._states[number - 1] in _HELD:
                units += self._quantities[number - 1]
            number = self._previous[number - 1]
        return units

    def first_reserved(self) -> int:
        """Return the claim whose reservation ends first, of equal ones the first; 0 = none."""
        if not self.reserved:
            return 0
        index = self._states.find(_RESERVED)
        if index < self._extended_to:
            newer = self._states.find(_RESERVED, self._extended_to)
            if newer >= 0 and self._expires_at[newer] < self._expires_at[index]:
                return newer + 1
        return index + 1

    def first_waiting(self, after: int = 0) -> int:
        """Return the first claim that waits, of those with a number above ``after``; 0 = none."""
        return self._states.find(_WAITING, after) + 1 if self.waiting else 0

    def place(self, number: int) -> int:
        """Return the place of a claim that waits, 1 = the head of the list."""
        return self._states.count(_WAITING, 0, number)

    def first_answer(self, number: int) -> ClaimAnswer:
        """Return what the buyer heard when the claim was taken."""
        index = number - 1
        place = self._places[index]
        if place:
            return ClaimAnswer(number, ClaimState.WAITING, self._quantities[index], None, None, place)
        return ClaimAnswer(
            number, ClaimState.RESERVED, self._quantities[index], self._prices[index], self._first_expires_at[index]
        )

    def view(self, number: int) -> ClaimView:
        """Return a claim as it is."""
        state = self.state(number)
        return ClaimView(
            number,
            self.user(number),
            state,
            self.quantity(number),
            self.price(number),
            self.expires_at(number) or None,
            self.place(number) if state is ClaimState.WAITING else None,
            self.order(number),
        )

    # ---- changes

    def add(self, user: str, request: str, quantity: int, price_cents: int, expires_at: int, place: int) -> None:
        """Add the next claim: reserved until ``expires_at``, or with a ``place`` above 0 on the waiting list."""
        number = len(self._users) + 1
        self._users.append(user)
        self._requests.append(request)
        self._quantities.append(quantity)
        self._prices.append(price_cents)
        self._places.append(place)
        self._previous.append(self._last_of.get(user, 0))
        self._last_of[user] = number
        if place:
            expires_at = 0
            self._states.append(_WAITING)
            self.waiting += 1
        else:
            self._states.append(_RESERVED)
            self.reserved += quantity
        self._expires_at.append(expires_at)
        self._first_expires_at.append(expires_at)

    def remove_last(self) -> None:
        """Take back the newest `add`."""
        user = self._users.pop()
        self._requests.pop()
        quantity = self._quantities.pop()
        self._prices.pop()
        self._places.pop()
        self._expires_at.pop()
        self._first_expires_at.pop()
        previous = self._previous.pop()
        if previous:
            self._last_of[user] = previous
        else:
            del self._last_of[user]
        if self._states.pop() == _WAITING:
            self.waiting -= 1
        else:
            self.reserved -= quantity

    def set_state(self, number: int, state: int) -> None:
        """Move a claim to another state, and its units with it."""
        index = number - 1
        quantity = self._quantities[index]
        before = self._states[index]
        for kind, sign in ((before, -1), (state, 1)):
            if kind == _RESERVED:
                self.reserved += sign * quantity
            elif kind == _CONFIRMED:
                self.confirmed += sign * quantity
            elif kind == _WAITING:
                self.waiting += sign
        self._states[index] = state

    def set_terms(self, number: int, price_cents: int, expires_at: int) -> None:
        """Set price and end of a reservation."""
        self._prices[number - 1] = price_cents
        self._expires_at[number - 1] = expires_at

    def extend(self, earliest: int) -> None:
        """Let no reservation end before ``earliest``."""
        extended: list[tuple[int, int]] = []
        last = 0
        index = self._states.find(_RESERVED)
        while index >= 0:
            last = index + 1
            if self._expires_at[index] < earliest:
                extended.append((index, self._expires_at[index]))
                self._expires_at[index] = earliest
            index = self._states.find(_RESERVED, last)
        self._before_extend = self._extended_to, tuple(extended)
        self._extended_to = last

    def undo_extend(self) -> None:
        """Take back the newest `extend`."""
        self._extended_to, extended = self._before_extend
        for index, expires_at in extended:
            self._expires_at[index] = expires_at

    def set_order(self, number: int, order: str) -> None:
        self._orders[number] = order
        self._by_order[order] = number

    def remove_order(self, number: int) -> None:
        """Take back `set_order`."""
        del self._by_order[self._orders.pop(number)]

    def erase(self, erased: ErasedUser) -> None:
        """Give the claims of a user to its pseudonym; the keys of its requests go."""
        for number in self.of_user(erased.user):
            self._users[number - 1], self._requests[number - 1] = erased.pseudonym, ""
        move_to_pseudonym(self._last_of, erased)

    def dump(self) -> tuple[Any, ...]:
        """Return every claim, as plain values."""
        rows = zip(
            self._users, self._requests, self._states, self._quantities, self._prices, self._expires_at,
            self._first_expires_at, self._places, self._previous, strict=True,
        )  # fmt: skip
        return (
            tuple(rows), tuple(sorted(self._last_of.items())), tuple(sorted(self._orders.items())),
            tuple(sorted(self._by_order.items())), self._extended_to, self.reserved, self.confirmed,
            self.waiting,
        )  # fmt: skip
