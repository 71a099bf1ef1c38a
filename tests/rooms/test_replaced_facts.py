"""What is left of a room's log folds to the same room, and what is written over again and again goes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.ledger import (
    Entry,
    Item,
    Key,
    RecordPut,
    RecordRemoved,
    RoomCheckpointed,
    RoomEnded,
    RoomOpened,
    make_key,
)
from broker.rooms.replaced_facts import ReplacedFacts

ROOM = "room"
epochs = st.integers(1, 2)
names = st.sampled_from(["a", "b"])
bodies = st.binary(max_size=2)
items: st.SearchStrategy[Item] = st.one_of(
    st.builds(Entry, st.just(ROOM), epochs, st.just(0), st.just(4), st.just(1), bodies),
    st.builds(RoomOpened, st.just(ROOM), epochs, st.just(1)),
    st.builds(RoomEnded, st.just(ROOM), epochs, st.just(1)),
    st.builds(RoomCheckpointed, st.just(ROOM), epochs, st.just(1), bodies),
    st.builds(RecordPut, st.just("room.scores"), st.just(ROOM), names, st.just(1), bodies),
    st.builds(RecordRemoved, st.just("room.scores"), st.just(ROOM), names),
)
submissions = st.tuples(
    st.lists(items, min_size=1, max_size=3), st.lists(st.builds(make_key, st.text(max_size=2)), max_size=1)
)


def fold(log: list[tuple[list[Item], list[Key]]]) -> Any:
    """Return what a ledger has of a room that was written so, as far as facts write over each other."""
    events: list[Item] = []
    keys: list[Key] = []
    checkpoints: dict[int, bytes] = {}
    records: dict[str, bytes] = {}
    for each, of_each in log:
        keys += of_each
        for item in each:
            match item:
                case RoomCheckpointed(_, epoch, _, totals):
                    checkpoints[epoch] = totals
                case RoomEnded(_, epoch):
                    checkpoints.pop(epoch, None)
                    events.append(item)
                case RecordPut(_, _, name, _, body):
                    records[name] = body
                case RecordRemoved(_, _, name):
                    records.pop(name, None)
                case _:
                    events.append(item)
    return events, keys, checkpoints, records


@given(st.lists(submissions, max_size=12))
def test_what_is_left_folds_to_the_same_room(log: list[tuple[list[Item], list[Key]]]) -> None:
    replaced = ReplacedFacts()
    for number, (each, keys) in enumerate(log, 1):
        replaced.add(number, each, keys)
    gone = set(replaced.take(100))
    assert fold([each for number, each in enumerate(log, 1) if number not in gone]) == fold(log)
    assert len(log) not in gone
    assert len(replaced) == 0


def test_checkpoints_of_a_quiet_room_do_not_add_up() -> None:
    replaced = ReplacedFacts()
    replaced.add(1, [RoomOpened(ROOM, 7, 1)], [])
    for number in range(2, 1002):
        replaced.add(number, [RoomCheckpointed(ROOM, 7, 1, b"totals")], [])
    assert len(replaced) == 999
    first = replaced.take(10)
    assert first == list(range(2, 12))
    replaced.put_back(first)
    assert sorted(replaced.take(1000)) == list(range(2, 1001))


def test_a_fact_stays_as_long_as_a_part_of_it_is_in_force() -> None:
    replaced = ReplacedFacts()
    put_a, put_b = (RecordPut("room.scores", ROOM, name, 1, b"x") for name in "ab")
    replaced.add(1, [RoomCheckpointed(ROOM, 7, 1, b"1"), put_a, put_b], [])
    replaced.add(2, [RoomCheckpointed(ROOM, 7, 1, b"2"), put_a], [])
    assert replaced.take(10) == []
    replaced.add(3, [Entry(ROOM, 7, 0, 4, 1, b""), put_b], [])
    assert replaced.take(10) == [1]
    replaced.add(4, [put_b], [make_key("k")])
    assert replaced.take(10) == []  # an event stays
