"""The reconciliation of the demo finds what does not agree."""

from __future__ import annotations

from random import Random
from typing import cast

import pytest

from broker.demo.features.base import DemoFeature, Participants
from broker.demo.features.mic import holders_seen
from protocol.activities import ActivityEvent
from protocol.activities.mic import LeaveCause, SeatLeft, SeatTaken


class Counting(DemoFeature):
    """A feature that plays nothing."""

    name = "counting"

    async def run(self) -> None:
        """Do nothing."""

    async def reconcile(self) -> dict[str, int]:
        self.equal("units", platform=3, broker=3)
        self.equal("cents", platform=300, broker=299, ledger=300)
        return {"units": 3}


async def test_counts_that_differ_are_named() -> None:
    feature = Counting(cast(Participants, None), 5.0, Random(1))
    assert await feature.reconcile() == {"units": 3}
    assert feature.differences == ["counting: cents: platform 300, broker 299, ledger 300"]


def taken(seat: int, user: str) -> ActivityEvent:
    return ActivityEvent("mic.seat_taken", "", SeatTaken(seat, user, user))


def left(seat: int, user: str) -> ActivityEvent:
    return ActivityEvent("mic.seat_left", "", SeatLeft(seat, user, LeaveCause.LEFT))


def test_seats_that_are_given_on_have_one_holder_at_a_time() -> None:
    events = [taken(1, "ann"), taken(2, "bob"), left(1, "ann"), taken(1, "cy"), left(2, "bob"), left(1, "cy")]
    assert holders_seen(events, 2) == (3, 3, [])


@pytest.mark.parametrize(
    "events",
    [
        [taken(1, "ann"), taken(1, "bob")],
        [taken(1, "ann"), taken(2, "ann")],
        [taken(3, "ann")],
        [taken(1, "ann"), left(1, "bob")],
        [left(1, "ann")],
    ],
)
def test_a_seat_with_two_holders_and_a_user_on_two_seats_are_found(events: list[ActivityEvent]) -> None:
    assert len(holders_seen(events, 2)[2]) == 1
