from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.accounts import LaneAccount, RoomAccounts
from protocol.codes import Lane

FATES = ("shown", "merged", "sampled", "expired", "held")

counts = st.integers(0, 1_000_000)


@st.composite
def balanced_accounts(draw: st.DrawFn) -> LaneAccount:
    parts = draw(st.tuples(counts, counts, counts, counts, counts))
    return LaneAccount(sum(parts), *parts)


def test_a_new_account_is_empty_and_balanced() -> None:
    assert LaneAccount().as_tuple() == (0, 0, 0, 0, 0, 0)
    assert LaneAccount().balanced


def test_a_message_moves_from_held_to_its_fate() -> None:
    account = LaneAccount()
    account.admitted += 3
    account.held += 3
    assert account.balanced
    account.held -= 2
    account.shown += 1
    account.merged += 1
    assert account.balanced
    assert account.as_tuple() == (3, 1, 1, 0, 0, 1)


@given(balanced_accounts(), balanced_accounts())
def test_a_sum_of_balanced_accounts_is_balanced_and_adds_up(left: LaneAccount, right: LaneAccount) -> None:
    want = tuple(a + b for a, b in zip(left.as_tuple(), right.as_tuple(), strict=True))
    left += right
    assert left.as_tuple() == want
    assert left.balanced


@given(balanced_accounts(), st.sampled_from(("admitted", *FATES)), st.integers(-5, 5).filter(bool))
def test_any_one_counter_that_is_off_unbalances_the_account(account: LaneAccount, name: str, by: int) -> None:
    setattr(account, name, getattr(account, name) + by)
    assert not account.balanced


def test_two_errors_that_cancel_out_are_seen_when_a_counter_is_negative() -> None:
    assert not LaneAccount(admitted=0, shown=1, held=-1).balanced


def test_an_account_takes_no_unknown_counter() -> None:
    with pytest.raises(AttributeError):
        LaneAccount().lost = 1  # type: ignore[attr-defined]


def test_a_room_has_one_account_for_each_lane() -> None:
    room = RoomAccounts()
    assert len(room) == len(Lane) == len(list(room))
    room[Lane.CHAT].add(LaneAccount(admitted=1, shown=1))
    assert room.balanced
    assert room.as_tuples() == ((0,) * 6, (0,) * 6, (0,) * 6, (1, 1, 0, 0, 0, 0), (0,) * 6)


def test_one_lane_that_is_off_unbalances_the_room() -> None:
    room = RoomAccounts()
    room[Lane.PAID].admitted += 1
    assert not room.balanced


@dataclass
class Move:
    lane: Lane
    fate: str | None
    """None: one more is admitted."""


@given(st.lists(st.builds(Move, st.sampled_from(Lane), st.sampled_from((None, *FATES[:4]))), max_size=60))
def test_totals_over_rooms_stay_balanced_through_any_life(moves: list[Move]) -> None:
    room, total = RoomAccounts(), RoomAccounts()
    for move in moves:
        account = room[move.lane]
        if move.fate is None:
            account.admitted += 1
            account.held += 1
        elif account.held:
            account.held -= 1
            setattr(account, move.fate, getattr(account, move.fate) + 1)
        assert room.balanced
    total += room
    total += room
    assert total.balanced
    assert [a.admitted for a in total] == [2 * sum(m.lane is lane and m.fate is None for m in moves) for lane in Lane]
