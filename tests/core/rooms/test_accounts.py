from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.accounts import LaneAccount, RoomAccounts, closed, sum_of
from protocol.codes import Lane
from protocol.messages import Account

FATES = ("shown", "merged", "sampled", "expired", "held")

counts = st.integers(0, 1_000_000)


@st.composite
def balanced_accounts(draw: st.DrawFn) -> LaneAccount:
    parts = draw(st.tuples(counts, counts, counts, counts, counts))
    return LaneAccount(sum(parts), *parts)


def test_a_new_account_is_empty_and_balanced() -> None:
    assert LaneAccount().as_tuple() == (0, 0, 0, 0, 0, 0)
    assert LaneAccount().balanced


def test_a_message_moves_from_held_to_its_outcome() -> None:
    account = LaneAccount()
    account.admitted += 3
    account.held += 3
    assert account.balanced
    account.held -= 2
    account.shown += 1
    account.merged += 1
    assert account.balanced
    assert account.as_tuple() == (3, 1, 1, 0, 0, 1)


def room_of(accounts: list[LaneAccount]) -> tuple[Account, ...]:
    return tuple(account.as_tuple() for account in accounts)


rooms = st.lists(balanced_accounts(), min_size=len(Lane), max_size=len(Lane)).map(room_of)


def is_balanced(account: Account) -> bool:
    return LaneAccount(*account).balanced


@given(rooms, rooms)
def test_a_sum_of_balanced_accounts_is_balanced_and_adds_up(
    one: tuple[Account, ...], other: tuple[Account, ...]
) -> None:
    total = sum_of(one, other)
    assert total == tuple(tuple(map(sum, zip(*lanes, strict=True))) for lanes in zip(one, other, strict=True))
    assert all(map(is_balanced, total))


@given(rooms)
def test_closing_a_room_lets_what_it_held_expire(lanes: tuple[Account, ...]) -> None:
    after = closed(lanes)
    assert all(map(is_balanced, after))
    assert [lane.held for lane in after] == [0] * len(Lane)
    assert [lane.expired for lane in after] == [lane.expired + lane.held for lane in lanes]


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
    room[Lane.CHAT].admitted += 1
    room[Lane.CHAT].shown += 1
    assert room.balanced
    assert room.as_tuples() == ((0,) * 6, (0,) * 6, (0,) * 6, (1, 1, 0, 0, 0, 0), (0,) * 6)


def test_one_lane_that_is_off_unbalances_the_room() -> None:
    room = RoomAccounts()
    room[Lane.PAID].admitted += 1
    assert not room.balanced


@dataclass
class Move:
    lane: Lane
    column: str | None
    """None: one more is admitted."""


@given(st.lists(st.builds(Move, st.sampled_from(Lane), st.sampled_from((None, *FATES[:4]))), max_size=60))
def test_a_room_stays_balanced_through_any_sequence(moves: list[Move]) -> None:
    room = RoomAccounts()
    for move in moves:
        account = room[move.lane]
        if move.column is None:
            account.admitted += 1
            account.held += 1
        elif account.held:
            account.held -= 1
            setattr(account, move.column, getattr(account, move.column) + 1)
        assert room.balanced
    assert [a.admitted for a in room] == [sum(m.lane is lane and m.column is None for m in moves) for lane in Lane]


@given(st.lists(st.tuples(*[st.integers(0, 99)] * 5), min_size=5, max_size=5))
def test_the_numbers_of_a_room_are_its_accounts_one_after_the_other(lanes: list[tuple[int, ...]]) -> None:
    accounts = RoomAccounts()
    for account, parts in zip(accounts, lanes, strict=True):
        account.admitted = sum(parts)
        account.shown, account.merged, account.sampled, account.expired, account.held = parts
    assert accounts.as_numbers() == tuple(number for lane in accounts.as_tuples() for number in lane)
