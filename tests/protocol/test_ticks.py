"""A tick on the binary wire has its shortest form, and is read as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import Lane, Opcode, Role
from protocol.connection import Encoding, Frame, encode
from protocol.frames import HEADER_BYTES, pack_body, unpack_body
from protocol.message_rules import reader_of
from protocol.messages import Account, Side, Tick, TickEntry, account_of
from tests.support.links import drain, end

counts = st.integers(0, 5)
accounts = st.builds(Account, counts, counts, counts, counts, counts, counts)
entries = st.builds(
    TickEntry,
    st.just(1),
    st.sampled_from(["u-1", "u-2"]),
    st.sampled_from(["", "Ming"]),
    st.tuples(st.sampled_from(["666", "多少钱"])),
    st.integers(1, 3),
    st.sampled_from([(), ("u-3",)]),
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
def test_no_field_at_the_end_has_its_default(tick: Tick) -> None:
    *_, shown, account = (*unpack_body(pack_body(tick)), None)[:5]
    for packed, entry in zip(shown, tick.entries, strict=True):
        assert TickEntry(*packed) == entry
        assert len(packed) == 4 or packed[-1] not in ((), 1) or (len(packed) == 7 and entry.role is not Role.VIEWER)
    if account is None:
        assert tick.account == account_of(tick.entries)
    else:
        assert Account(*account) == tick.account != account_of(tick.entries)
        assert not account or account[-1]


def test_the_usual_entry_has_four_fields_and_the_usual_account_no_byte() -> None:
    shown = (TickEntry(1, "u-1", "Ming", ("666",)), TickEntry(1, "u-2", "Li", ("888",), 3, ("u-3",)))
    body = unpack_body(pack_body(Tick(5, 100, 0, shown, Account(4, 2, 2))))
    assert body == (5, 100, 0, ((1, "u-1", "Ming", ("666",)), (1, "u-2", "Li", ("888",), 3, ("u-3",))))


def test_an_account_that_is_all_zero_is_not_one_that_follows_from_the_entries() -> None:
    tick = Tick(5, 100, 0, (TickEntry(1, "u-1", "Ming", ("666",)),))
    frame = encode(tick, 3, 9, Lane.CHAT)
    assert unpack_body(frame[HEADER_BYTES:])[4] == ()
    assert read(frame, Encoding.BINARY).message == tick


def test_an_absent_account_of_a_text_follows_from_the_entries() -> None:
    rule = reader_of(Side.SERVER, Opcode.TICK)
    entry = {"type": 1, "user_id": "u-1", "name": "", "payload": ["666"], "count": 3}
    assert rule({"at_ms": 5, "interval_ms": 100, "stage": 0, "entries": [entry]}).account == Account(3, 1, 2)
