"""Deleted and pinned messages of a room: what those who join, resume or restart get."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.deletions import UNDELETABLE, Deletions, as_shown, redacted, without_deleted
from broker.core.rooms.effects import Record
from broker.core.rooms.pins import PinChange
from broker.core.rooms.policies import policy_from
from broker.core.rooms.rules import RoomRules
from broker.core.rooms.state import RoomState
from broker.core.rooms.stream import StoredEvent
from protocol.codes import Lane, MessageType, Outcome, Role, Tier
from protocol.messages import MAX_PINS, Event, PinnedMessage, Post
from protocol.payloads import DeletedPayload, PinsPayload, payload_record
from tests.support.examples import examples

USERS = ("ann", "bob", "cy")


class Author:
    role = Role.APP
    may_post = frozenset(range(1, 256))

    def __init__(self, user_id: str) -> None:
        self.user_id = self.name = user_id


def a_room(durable: bool = False) -> RoomState[int]:
    return RoomState(RoomRules(policy_from("roomcast"), {}, durable=durable), 7, random.Random(1), 0.0)


def post(room: RoomState[int], user: str, kind: int, payload: Any, now: float) -> Any:
    return room.post(1, Author(user), Post(kind, "", payload), now, round(now * 1000))


def snapshot(room: RoomState[int]) -> Any:
    return room.snapshot("lobby", Role.VIEWER, Tier.FULL)


offsets = st.lists(st.integers(1, 14), min_size=1, max_size=4).map(tuple)
deletions = st.one_of(
    st.builds(DeletedPayload, offsets),
    st.builds(DeletedPayload, st.just(()), st.sampled_from(("", *USERS)), st.integers(0, 15_000)),
)
kinds = st.sampled_from((MessageType.ANNOUNCEMENT, MessageType.MEDIA, MessageType.GIFT, 128))
steps = st.lists(st.one_of(st.tuples(st.sampled_from(USERS), kinds), deletions), max_size=15)


def _stream(given_steps: list[Any]) -> list[StoredEvent]:
    events = []
    for number, step in enumerate(given_steps, 1):
        if isinstance(step, DeletedPayload):
            event = Event(MessageType.MESSAGES_DELETED, number * 1000, "mod", "", step)
        else:
            event = Event(step[1], number * 1000, step[0], step[0], (f"text {number}",))
        events.append(StoredEvent(number, Lane.COMMERCE, event))
    return events


@examples(200)
@given(steps, st.integers(0, 15))
def test_an_event_is_redacted_exactly_if_a_later_deletion_covers_it(given_steps: list[Any], cut: int) -> None:
    events = _stream(given_steps)
    later = [each.event.payload for each in events[cut:] if each.event.type == MessageType.MESSAGES_DELETED]
    assert without_deleted(events[:cut], later) == without_deleted(events)[:cut], "a page knows what follows it"
    for stored, shown in zip(events, without_deleted(events), strict=True):
        is_deleted = stored.event.type not in UNDELETABLE and any(
            each.event.type == MessageType.MESSAGES_DELETED
            and each.offset > stored.offset
            and each.event.payload.covers(stored.offset, stored.event.user_id, stored.event.at_ms)
            for each in events
        )
        assert shown == (redacted(stored) if is_deleted else stored)
        assert shown.offset == stored.offset
    assert without_deleted(without_deleted(events)) == without_deleted(events)


@examples(100)
@given(steps)
def test_the_history_of_a_room_is_the_redacted_stream_live_and_restored(given_steps: list[Any]) -> None:
    events = _stream(given_steps)
    room, restored = a_room(), a_room()
    room.restore(len(events), b"", events, 0.0)
    wanted = without_deleted(events)
    assert room.events_since(7, 0, 0.0) == wanted
    announced = [each.event for each in wanted if each.event.type == MessageType.ANNOUNCEMENT]
    assert snapshot(room).announcement == (announced[-1] if announced else None)
    restored.restore(len(events), room.totals(), room.events_since(7, 0, 0.0) or (), 0.0)
    assert snapshot(restored) == snapshot(room)
    after = restored.events_since(7, 0, 0.0)
    assert after == wanted


def test_deleting_a_user_removes_danmaku_events_announcement_and_pins() -> None:
    room = a_room()
    post(room, "bob", MessageType.DANMAKU, ("spam", None), 1.0)
    post(room, "ann", MessageType.DANMAKU, ("hello", None), 1.0)
    room.tick(1.0, 1000)
    post(room, "bob", MessageType.ANNOUNCEMENT, ("buy",), 2.0)
    pin = PinnedMessage("b", 4, ("buy",), "bob", "bob", 2000, 0, 1)
    post(room, "mod", MessageType.PINS_CHANGED, PinChange(pin), 2.0)
    assert snapshot(room).pinned == (pin,)
    assert room.kept.count_covered(DeletedPayload((), "bob")) == 2
    post(room, "mod", MessageType.MESSAGES_DELETED, DeletedPayload((), "bob"), 3.0)
    shown = snapshot(room)
    assert [entry.user_id for entry in shown.recent] == ["ann"]
    assert (shown.announcement, shown.pinned) == (None, ())
    assert room.expiry_due_at == 3.0, "members hear that it is not pinned any more"
    room.expire(3.0, None, 3000)
    last = (room.events_since(7, 0, 3.0) or ())[-1]
    assert payload_record(last.event.type, last.event.payload) == PinsPayload(())
    assert "buy" not in repr(room.events_since(7, 0, 3.0)[:1])  # type: ignore[index]


def test_pins_are_bounded_replaced_by_id_and_expire_by_the_trusted_clock() -> None:
    room = a_room()
    for number in range(MAX_PINS):
        pin = PinnedMessage(str(number), 128, number, "app", "app", 0, 5000 if number == 1 else 0)
        (reply, _) = post(room, "app", MessageType.PINS_CHANGED, PinChange(pin), 1.0)
        assert reply.outcome is Outcome.ACCEPTED
    more = PinnedMessage("more", 128, 1, "app", "app", 0)
    (reply,) = post(room, "app", MessageType.PINS_CHANGED, PinChange(more), 1.0)
    assert reply.outcome is Outcome.REJECTED
    post(room, "app", MessageType.PINS_CHANGED, PinChange(more._replace(id="0")), 1.0)
    assert [pin.id for pin in snapshot(room).pinned] == ["1", "2", "0"]
    assert room.expiry_due_at == pytest.approx(5.0)
    assert room.expire(5.0, None, 5000) == [], "a clock that is not trusted unpins nothing"
    assert room.expiry_due_at == 7.0
    room.expire(7.0, 4999, 4999)
    assert len(snapshot(room).pinned) == MAX_PINS
    room.expire(8.0, 5000, 5000)
    assert [pin.id for pin in snapshot(room).pinned] == ["2", "0"]
    assert room.expiry_due_at == inf
    post(room, "app", MessageType.PINS_CHANGED, PinChange(None, "2"), 9.0)
    (reply,) = post(room, "app", MessageType.PINS_CHANGED, PinChange(None, "2"), 9.0)
    assert reply.outcome is Outcome.REJECTED
    assert [pin.id for pin in snapshot(room).pinned] == ["0"]


pin_steps = st.lists(
    st.one_of(
        st.tuples(st.just("pin"), st.sampled_from("abcd"), st.sampled_from(USERS)),
        st.tuples(st.just("unpin"), st.sampled_from("abcd")),
        st.tuples(st.just("delete"), st.sampled_from(USERS)),
        st.tuples(st.just("answer"), st.booleans()),
        st.just(("restart",)),
    ),
    max_size=30,
)


@examples(200)
@given(pin_steps)
def test_pins_are_what_the_durable_events_say_over_refusals_and_restarts(given_steps: list[Any]) -> None:
    """What a ledger has is the truth: a model folds its events, and the room agrees whenever nothing is under way."""
    room = a_room(durable=True)
    waiting: list[tuple[Any, bytes]] = []
    stored: list[StoredEvent] = []
    totals = room.totals()
    for number, step in enumerate(given_steps, 1):
        now = float(number)
        effects: Any = ()
        if step[0] == "pin":
            pin = PinnedMessage(step[1], 128, number, step[2], step[2], number)
            effects = post(room, "app", MessageType.PINS_CHANGED, PinChange(pin), now)
        elif step[0] == "unpin":
            effects = post(room, "app", MessageType.PINS_CHANGED, PinChange(None, step[1]), now)
        elif step[0] == "delete":
            effects = post(room, "mod", MessageType.MESSAGES_DELETED, DeletedPayload((), step[1]), now)
        elif step[0] == "answer" and waiting:
            record, written = waiting.pop(0)
            if step[1]:
                stored.append(StoredEvent(len(stored) + 1, record.lane, record.event))
                totals = written or totals
                room.committed(record, len(stored), now)
            else:
                room.refused(record, 1000, now)
        elif step[0] == "restart":
            room, waiting = a_room(durable=True), []
            room.restore(len(stored), totals, stored, now)
        effects = [*effects, *room.expire(now, number, number)]
        for effect in effects:
            if type(effect).__name__ == "Record":
                is_pins = effect.event.type == MessageType.PINS_CHANGED
                waiting.append((effect, room.totals(effect.event) if is_pins else b""))
        pinned: tuple[PinnedMessage, ...] = ()
        for each in stored:
            if each.event.type == MessageType.PINS_CHANGED:
                pinned = each.event.payload.pinned
            elif each.event.type == MessageType.MESSAGES_DELETED:
                pinned = tuple(pin for pin in pinned if not each.event.payload.covers(0, pin.user_id, pin.at_ms))
        assert snapshot(room).pinned == pinned
        assert len(pinned) <= MAX_PINS


@pytest.mark.parametrize("is_in_checkpoint", [True, False])
def test_a_pin_whose_time_has_passed_is_not_shown_after_a_restart(is_in_checkpoint: bool) -> None:
    room = a_room(durable=True)
    pins = [PinnedMessage(name, 128, name, "max", "Max", 1000, ends) for name, ends in (("a", 5000), ("b", 9000))]
    stored: list[StoredEvent] = []
    totals = room.totals()
    for pin in pins:
        (record,) = post(room, "max", MessageType.PINS_CHANGED, PinChange(pin), 1.0)
        totals = room.totals(record.event) if is_in_checkpoint else totals
        stored.append(StoredEvent(len(stored) + 1, record.lane, record.event))
        room.committed(record, len(stored), 1.0)
    after, unsure = a_room(durable=True), a_room(durable=True)
    after.restore(2, totals, () if is_in_checkpoint else stored, 100.0, 6000)
    assert [pin.id for pin in snapshot(after).pinned] == ["b"]
    (effect,) = after.expire(100.0, 6000, 6000)
    assert isinstance(effect, Record)
    assert [pin.id for pin in effect.event.payload.pinned] == ["b"], "the event that says so"
    after.committed(effect, 3, 100.0)
    assert after.expiry_due_at == 103.0
    unsure.restore(2, totals, () if is_in_checkpoint else stored, 100.0, None)
    assert [pin.id for pin in snapshot(unsure).pinned] == ["a", "b"], "nothing expires by a clock that is not trusted"


def test_deletions_know_users_times_and_offsets() -> None:
    found = Deletions([DeletedPayload((3,)), DeletedPayload((), "bob", 10), DeletedPayload((), "bob", 5)])
    assert found.covers(1, "bob", 7)
    assert not found.covers(1, "bob", 5)
    assert not found.covers(1, "ann", 7)
    assert found.covers(3, "ann", 7)
    gift = StoredEvent(3, Lane.PAID, Event(MessageType.GIFT, 7, "ann", "Ann", ("x",)))
    assert as_shown(gift, found.covers) is gift


def test_events_about_pins_show_no_deleted_message() -> None:
    kept, gone = (PinnedMessage(name, 128, name, name, name, 9) for name in ("ann", "bob"))
    stored = StoredEvent(1, Lane.COMMERCE, Event(MessageType.PINS_CHANGED, 9, "mod", "", PinsPayload((kept, gone))))
    shown = as_shown(stored, DeletedPayload((), "bob").covers)
    assert shown.event.payload == PinsPayload((kept,))
