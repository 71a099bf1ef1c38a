"""A tick on the binary wire has its short form, and is read as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import Lane, Opcode, Role
from protocol.connection import Encoding, Frame, encode
from protocol.fields import FieldError
from protocol.frames import HEADER_BYTES, pack_body, unpack_body
from protocol.message_rules import reader_of
from protocol.messages import Account, Side, Tick, TickEntry
from protocol.ticks import account_of
from tests.support.links import drain, end

counts = st.integers(0, 5)
accounts = st.builds(Account, counts, counts, counts, counts, counts, counts)
entries = st.builds(
    TickEntry,
    st.just(1),
    st.sampled_from(["u-1", "u-2", "10283746", "007"]),
    st.sampled_from(["", "Ming"]),
    st.sampled_from([("666",), ("多少钱", (1, 255, 0)), ("多少钱", None)]),
    st.integers(1, 3),
    st.sampled_from([(), ("u-3",), ("42", "u-3")]),
    st.sampled_from(Role),
)
ticks = st.builds(
    lambda shown, account: Tick(5, 100, 0, tuple(shown), account or account_of(shown)),
    st.lists(entries, max_size=4),
    st.none() | accounts,
)


def read(data: bytes, encoding: Encoding) -> Frame:
    client = end(Side.CLIENT, encoding=encoding)
    if encoding is Encoding.JSON:
        client.receive_text(data.decode())
    else:
        client.receive_data(data)
    (found,) = drain(client)
    assert isinstance(found, Frame)
    return found


@given(ticks)
def test_a_tick_is_read_as_it_was_written_in_both_encodings(tick: Tick) -> None:
    for encoding in Encoding:
        assert read(encode(tick, 3, 9, Lane.CHAT, encoding), encoding).message == tick


@given(ticks)
def test_nothing_that_has_its_default_or_follows_is_written(tick: Tick) -> None:
    *_, shown, account = (*unpack_body(pack_body(tick)), None)[:5]
    for packed, entry in zip(shown, tick.entries, strict=True):
        is_bare = entry.count == 1 and not entry.senders and entry.role is Role.VIEWER
        assert (len(packed) == 3) == (is_bare and len(entry.payload) == 1)
        assert len(packed) == 3 or packed[-1] not in ((), 1) or (len(packed) == 7 and entry.role is not Role.VIEWER)
    if account is None:
        assert tick.account == account_of(tick.entries)
    else:
        assert Account(*account) == tick.account != account_of(tick.entries)
        assert not account or account[-1]


def test_a_danmaku_is_user_name_and_text_and_an_id_of_digits_is_a_number() -> None:
    shown = (TickEntry(1, "10283746", "Ming", ("666",)), TickEntry(2, "u-2", "Li", ("wave",), 3, ("7", "u-3")))
    body = unpack_body(pack_body(Tick(5, 100, 0, shown, Account(4, 2, 2))))
    assert body == (5, 100, 0, ((10283746, "Ming", "666"), (2, "u-2", "Li", ("wave",), 3, (7, "u-3"))))


@pytest.mark.parametrize(
    ("user", "is_number"),
    [
        ("1", True), ("9007199254740991", True), ("9007199254740992", False), ("007", False), ("0", False),
        ("٣", False), ("-1", False), ("1_0", False), (" 1", False), ("9" * 64, False), ("²", False),
    ],
)  # fmt: skip
def test_an_id_is_a_number_only_where_that_is_exact(user: str, is_number: bool) -> None:
    tick = Tick(5, 100, 0, (TickEntry(1, user, "", ("666",), 2, (user,)),), Account(2, 1, 1))
    packed = unpack_body(pack_body(tick))[3][0]
    assert (type(packed[1]) is int, type(packed[5][0]) is int) == (is_number, is_number)
    assert read(encode(tick, 3, 9, Lane.CHAT), Encoding.BINARY).message == tick


@pytest.mark.parametrize(
    "entry",
    [
        (0, "Ming", "666"), (-1, "Ming", "666"), (2**53, "Ming", "666"), (True, "Ming", "666"), (1.5, "Ming", "666"),
        ("u-1", 7, "666"), (1, "u-1"), (1, 5, "Ming"[:0], None, 1, (0,)), (1, 5, "", None, 1, (2**60,)), (),
    ],
)  # fmt: skip
def test_a_short_entry_of_other_values_is_refused(entry: tuple[object, ...]) -> None:
    with pytest.raises(FieldError) as caught:
        reader_of(Side.SERVER, Opcode.TICK)((5, 100, 0, (entry,)))
    assert caught.value.field.startswith("entries[0]")


def test_an_account_that_is_all_zero_is_not_one_that_follows_from_the_entries() -> None:
    tick = Tick(5, 100, 0, (TickEntry(1, "u-1", "Ming", ("666",)),))
    frame = encode(tick, 3, 9, Lane.CHAT)
    assert unpack_body(frame[HEADER_BYTES:])[4] == ()
    assert read(frame, Encoding.BINARY).message == tick


def test_an_absent_account_of_a_text_follows_from_the_entries() -> None:
    rule = reader_of(Side.SERVER, Opcode.TICK)
    entry = {"type": 1, "user_id": "u-1", "name": "", "payload": ["666"], "count": 3}
    assert rule({"at_ms": 5, "interval_ms": 100, "stage": 0, "entries": [entry]}).account == Account(3, 1, 2)
