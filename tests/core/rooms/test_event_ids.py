"""Ids of events: what is made is read back, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.event_ids import EventIds
from protocol.resume import StreamPosition

KEY = b"k" * 32
names = st.sampled_from(["live-1", "live-2", "直播间"])
numbers = st.integers(0, 2**63 - 1)


@given(names, numbers, numbers)
def test_an_id_is_read_back_for_its_room_only(room: str, epoch: int, offset: int) -> None:
    ids = EventIds(KEY)
    made = ids.of(room, epoch, offset)
    assert ids.read(room, made) == StreamPosition(epoch, offset)
    assert ids.read(room + "x", made) is None
    assert EventIds(b"other" * 8).read(room, made) is None
    ids.use_key(b"other" * 8)
    assert ids.read(room, made) is None


@given(names, numbers, numbers, numbers, numbers)
def test_a_position_of_ones_own_is_none(room: str, epoch: int, offset: int, other_epoch: int, other: int) -> None:
    ids = EventIds(KEY)
    signature = ids.of(room, epoch, offset).rpartition(":")[2]
    if (epoch, offset) != (other_epoch, other):
        assert ids.read(room, f"{other_epoch}:{other}:{signature}") is None


@given(names, st.text(max_size=64))
def test_any_text_is_no_id(room: str, text: str) -> None:
    assert EventIds(KEY).read(room, text) is None
    assert EventIds(KEY).read(room, f"1:2:{text}") is None
