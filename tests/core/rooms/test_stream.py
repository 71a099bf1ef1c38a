"""Write-ahead made visible: a durable room whose ledger commits, refuses and remembers, in any order, at any time."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.rooms.effects import End, Publish, Record, Reply
from broker.core.rooms.idempotency import KEY_REUSED, FirstUse, OperationKey, StoredResult
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from broker.core.rooms.stream import StoredEvent
from protocol.codes import ErrorCode, Lane, MessageType, Outcome, Role, RoomPhase, Tier
from protocol.frames import pack_body
from protocol.messages import MAX_RECENT_BYTES, Event, Post
from protocol.payloads import AnnouncementPayload, DanmakuPayload, GiftPayload, PhasePayload
from tests.support.examples import examples
from tests.support.rooms import CUSTOM, Person

HOST, APP = Person("max", Role.HOST), Person("shop", Role.APP)
FIRST = FirstUse("show", 77, 1)
"""Where the first event of `a_room` is."""


def a_room(**overrides: Any) -> RoomState[int]:
    rules = RoomRules(policy=policy_from("roomcast", overrides), custom=CUSTOM, durable=True)
    return RoomState(rules, epoch=77, rng=random.Random(1), now=0.0, name="show")


def announcement(message_id: str = "") -> Post:
    return Post(MessageType.ANNOUNCEMENT, message_id, AnnouncementPayload("news"))


def gift(order: str, user: str = "ann", count: int = 1) -> Post:
    return Post(MessageType.GIFT, "", GiftPayload(order, user, user, "rose", count, 100))


def the_record(effects: Any) -> Record[int]:
    (record,) = [each for each in effects if isinstance(each, Record)]
    return record


def test_nothing_is_reported_before_the_commit() -> None:
    room = a_room()
    record = the_record(room.post(1, HOST, announcement(), 1.0, 5))
    assert room.last_offset == 0
    assert room.counters.accounts()[Lane.CONTROL] == (1, 0, 0, 0, 0, 1)
    reply, published = room.committed(record, 1, 1.1)
    assert reply == Reply(1, Outcome.ACCEPTED, 1)
    assert published == Publish(record.event, Lane.CONTROL, 1, packed=pack_body(record.event))
    assert room.events_since(77, 0, 1.1) == [StoredEvent(1, Lane.CONTROL, record.event)]
    assert room.counters.accounts()[Lane.CONTROL] == (1, 1, 0, 0, 0, 0)


def test_a_refused_event_was_never_there() -> None:
    room = a_room()
    record = the_record(room.post(1, HOST, announcement("m1"), 1.0, 5))
    assert room.post(2, HOST, announcement("m1"), 1.0, 5) == ()
    assert room.refused(record, 1500, 1.0) == [Reply(1, Outcome.UNAVAILABLE, 1500), Reply(2, Outcome.UNAVAILABLE, 1500)]
    assert room.counters.accounts()[Lane.CONTROL] == (0, 0, 0, 0, 0, 0)
    again = the_record(room.post(3, HOST, announcement("m1"), 1.0, 5))
    assert room.committed(again, 1, 1.1)[0] == Reply(3, Outcome.ACCEPTED, 1)


def test_who_asks_again_waits_for_the_same_result_and_then_gets_it_at_once() -> None:
    room = a_room()
    record = the_record(room.post(1, HOST, announcement("m1"), 1.0, 5))
    assert room.post(2, HOST, announcement("m1"), 1.0, 5) == ()
    replies = [each for each in room.committed(record, 1, 1.1) if isinstance(each, Reply)]
    assert replies == [Reply(1, Outcome.ACCEPTED, 1), Reply(2, Outcome.ACCEPTED, 1, FIRST)]
    assert room.post(3, HOST, announcement("m1"), 200.0, 5) == (Reply(3, Outcome.ACCEPTED, 1, FIRST),)
    assert room.post(4, Person("eve", Role.HOST), announcement("m1"), 200.0, 5) != (
        Reply(4, Outcome.ACCEPTED, 1, FIRST),
    )


KEYED = [
    announcement("m1"),
    Post(MessageType.ANNOUNCEMENT, "m1", AnnouncementPayload("other news")),
    Post(MessageType.ROOM_PHASE, "m1", PhasePayload(RoomPhase.PAUSED)),
    Post(MessageType.ROOM_PHASE, "m1", PhasePayload(RoomPhase.LIVE)),
    Post(200, "m1", "sale"),
    Post(200, "m1", "another sale"),
    gift("m1"),
    gift("m1", "eve"),
    gift("m1", count=2),
]


@pytest.mark.parametrize("is_committed", [False, True])
@pytest.mark.parametrize("first", KEYED)
@pytest.mark.parametrize("second", KEYED)
def test_a_key_means_its_content(first: Post, second: Post, is_committed: bool) -> None:
    """The same content gets the first result; another content of the same type is refused and changes nothing."""
    room = a_room()
    record = the_record(room.post(1, APP, first, 1.0, 5))
    if is_committed:
        room.committed(record, 1, 1.0)
    before = room.counters.accounts()
    answer = room.post(2, APP, second, 1.0, 5)
    if second == first:
        assert answer == ((Reply(2, Outcome.ACCEPTED, 1, FIRST),) if is_committed else ())
    elif second.type == first.type:
        assert answer == (Reply(2, Outcome.REJECTED, ErrorCode.KEY_REUSED, FIRST if is_committed else None),)
        assert room.counters.accounts() == before
        again = room.post(3, APP, first, 1.0, 5)
        assert again == ((Reply(3, Outcome.ACCEPTED, 1, FIRST),) if is_committed else ()), "the first is as it was"
    else:
        assert the_record(answer).event.type == second.type, "another type is another operation"


@pytest.mark.parametrize(
    ("one", "other"), [(("a", "b 1"), ("a b", "1")), (("a", ""), ("", "a")), (("a", "5 1"), ("a 5", "1"))]
)
def test_no_two_operations_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    room = a_room()
    for ticket, (user, message_id) in enumerate([one, other], 1):
        assert isinstance(room.post(ticket, Person(user, Role.HOST), announcement(message_id), 1.0, 5)[0], Record)


def test_the_ledgers_answer_to_a_reused_key_is_not_stored() -> None:
    room = a_room()
    record = the_record(room.post(1, APP, gift("o1"), 1.0, 5))
    key = record.asked[0].key
    assert key is not None
    assert room.post(2, APP, gift("o1"), 1.0, 5) == ()
    refused = [Reply(ticket, Outcome.REJECTED, ErrorCode.KEY_REUSED) for ticket in (1, 2)]
    assert room.repeated(record, {key: KEY_REUSED}, 1.1) == refused
    assert isinstance(room.post(3, APP, gift("o1", "eve"), 1.2, 5)[0], Record), (
        "only the ledger knows the first content"
    )


def test_a_change_of_phase_is_obeyed_at_once_and_reported_when_it_is_durable() -> None:
    room = a_room()
    pause = the_record(room.post(1, HOST, Post(MessageType.ROOM_PHASE, "", PhasePayload(RoomPhase.PAUSED)), 1.0, 5))
    assert room.phase is RoomPhase.LIVE
    danmaku = Post(MessageType.DANMAKU, "", ("hi", None))
    assert room.post(2, Person("ann"), danmaku, 1.0, 5) == (Reply(2, Outcome.REJECTED, ErrorCode.ROOM_PAUSED),)
    room.committed(pause, 1, 1.1)
    assert room.phase is RoomPhase.PAUSED
    resume = the_record(room.post(3, HOST, Post(MessageType.ROOM_PHASE, "", PhasePayload(RoomPhase.LIVE)), 1.2, 5))
    room.refused(resume, 1000, 1.0)
    assert room.phase is RoomPhase.PAUSED
    assert room.post(4, Person("ann"), danmaku, 1.3, 5) == (Reply(4, Outcome.REJECTED, ErrorCode.ROOM_PAUSED),)


def test_a_refused_gift_changes_no_phase() -> None:
    room = a_room()
    record = the_record(room.post(1, APP, gift("o1"), 1.0, 5))
    pause = the_record(room.set_phase(RoomPhase.PAUSED, "max", 1.0, 5))
    room.refused(record, 1000, 1.0)
    assert room.post(2, Person("ann"), Post(MessageType.DANMAKU, "", ("hi", None)), 1.0, 5) == (
        Reply(2, Outcome.REJECTED, ErrorCode.ROOM_PAUSED),
    )
    room.committed(pause, 1, 1.1)
    assert room.phase is RoomPhase.PAUSED


def test_the_end_waits_for_its_commit_and_nothing_comes_in_after_it() -> None:
    room = a_room()
    end = the_record(room.set_phase(RoomPhase.ENDED, "max", 1.0, 5))
    assert room.post(1, APP, gift("late"), 1.0, 5) == (Reply(1, Outcome.REJECTED, ErrorCode.ROOM_ENDED),)
    assert room.phase is RoomPhase.LIVE
    *_, last = room.committed(end, 1, 1.1)
    assert isinstance(last, End)
    assert room.phase is RoomPhase.ENDED


def test_a_combo_with_a_known_order_goes_on_without_it() -> None:
    room = a_room(paid_budget_per_s=1)
    for number in range(10):  # the burst; what comes then has to wait, and becomes a combo
        room.post(number, APP, gift(f"early {number}", f"user {number}"), 1.0, 5)
    effects: list[Any] = []
    for ticket, (order, count) in enumerate([("a", 1), ("b", 2), ("c", 4)], 10):
        effects += room.post(ticket, APP, gift(order, count=count), 1.0, 5)
    effects += room.tick(9.0, 5, last=True)
    combo = next(each for each in effects if isinstance(each, Record) and len(each.asked) == 3)
    assert combo.event.payload.count == 7
    known = combo.asked[0].key
    assert known is not None
    assert known.parts == ("order", "a")
    replies = room.repeated(combo, {known: StoredResult(Outcome.ACCEPTED, 33)}, 9.0)
    assert replies[0] == Reply(10, Outcome.ACCEPTED, 33)
    (rest,) = [each for each in replies if isinstance(each, Record)]
    assert (rest.event.payload.order_id, rest.event.payload.count) == ("b", 6)
    assert [(each.ticket, each.outcome) for each in rest.asked] == [(11, Outcome.ACCEPTED), (12, Outcome.MERGED)]


def test_a_room_goes_on_where_its_last_life_ended() -> None:
    room = a_room()
    room.enter("ann", "Ann", Role.VIEWER, 1.0)
    room.post(1, Person("ann"), Post(MessageType.LIKE, "", (12,)), 1.0, 5)
    room.committed(the_record(room.set_phase(RoomPhase.PAUSED, "max", 1.0, 5)), 1, 1.0)
    totals, past = room.totals(), room.events_since(77, 0, 1.0)
    assert past is not None
    again = a_room()
    again.restore(1, totals, past, 500.0)
    joined = again.snapshot("lobby", Role.VIEWER, Tier.FULL)
    assert (joined.phase, joined.likes, joined.peak) == (RoomPhase.PAUSED, 12, 1)
    assert again.events_since(77, 0, 500.0) == past
    record = the_record(again.post(1, HOST, announcement(), 500.0, 5))
    assert again.committed(record, 2, 500.0)[0] == Reply(1, Outcome.ACCEPTED, 2)


def test_who_joins_late_gets_the_last_announcement_after_a_restart_too() -> None:
    room = a_room()
    assert room.snapshot("lobby", Role.VIEWER, Tier.FULL).announcement is None
    for offset, text in enumerate(["one", "two"], 1):
        post = Post(MessageType.ANNOUNCEMENT, text, AnnouncementPayload(text))
        record = the_record(room.post(offset, HOST, post, 1.0, 5))
        room.committed(record, offset, 1.0)
    last = room.snapshot("lobby", Role.VIEWER, Tier.FULL).announcement
    assert last is not None
    assert (last.user_id, last.payload) == ("max", ("two",))
    past = room.events_since(77, 0, 1.0)
    assert past is not None
    for totals, events in ((room.totals(), []), (room.totals(), past), (b"", past), (a_room().totals(), past)):
        again = a_room()
        again.restore(2, totals, events, 500.0)
        assert again.snapshot("lobby", Role.VIEWER, Tier.FULL).announcement == last


def test_the_last_announcement_takes_its_bytes_from_those_of_recent_danmaku() -> None:
    room = a_room(chat_budget_per_s=0)
    for number in range(20):
        text = chr(0x4E00 + number) * 100
        room.post(number, Person(f"u{number}"), Post(MessageType.DANMAKU, "", DanmakuPayload(text)), 1.0, 5)
    room.tick(2.0, 5)
    room.committed(the_record(room.post(99, HOST, announcement(), 2.0, 5)), 1, 2.0)
    joined = room.snapshot("lobby", Role.VIEWER, Tier.FULL)
    assert joined.announcement is not None
    taken = len(pack_body(joined.announcement)) + sum(len(pack_body(entry)) for entry in joined.recent)
    assert joined.recent
    assert taken <= MAX_RECENT_BYTES


@pytest.mark.parametrize("totals", [b"", b"\x90", b"\x94\x63\x01\x02\x03", b"nonsense"])
def test_totals_that_cannot_be_read_are_passed_over(totals: bytes) -> None:
    room = a_room()
    room.restore(41, totals, [], 1.0)
    assert (room.phase, room.last_offset) == (RoomPhase.LIVE, 41)
    assert room.events_since(77, 40, 1.0) is None


def test_an_offset_that_is_not_the_next_is_a_bug() -> None:
    room = a_room()
    with pytest.raises(ValueError, match="offset 5 was given after 0"):
        room.committed(the_record(room.post(1, HOST, announcement(), 1.0, 5)), 5, 1.0)


class DurableRoomMachine(RuleBasedStateMachine):
    """Posts, commits, refusals and a ledger that remembers keys of an earlier life."""

    def __init__(self) -> None:
        super().__init__()
        self.room = a_room(paid_budget_per_s=2)
        self.now = 100.0
        self.tickets = 0
        self.open: dict[int, tuple[str, ...]] = {}
        self.under_way: deque[Record[int]] = deque()
        self.ledger: dict[tuple[str, ...], tuple[bytes, StoredResult]] = {}
        for number in (0, 1):
            key = the_record(a_room().post(1, APP, gift(f"o{number}"), 0.0, 0)).asked[0].key
            assert key is not None
            self.ledger[key.parts] = key.fingerprint, StoredResult(Outcome.ACCEPTED, 900)
        self.events: list[Event] = []
        self.published: list[int] = []
        self.units = 0
        self.told_units = 0

    def perform(self, effects: Any) -> None:
        for effect in effects:
            if isinstance(effect, Record):
                self.under_way.append(effect)
            elif isinstance(effect, Reply):
                key = self.open.pop(effect.ticket)
                if effect.outcome in (Outcome.ACCEPTED, Outcome.MERGED) and key:
                    assert self.ledger[key][1][:2] == (effect.outcome, effect.detail), "the first result, always"
            elif isinstance(effect, Publish):
                self.published.append(effect.offset)
                assert self.events[effect.offset - 1] == effect.event

    def post(self, person: Person, post: Post, key: tuple[str, ...]) -> None:
        self.tickets += 1
        self.open[self.tickets] = key
        self.perform(self.room.post(self.tickets, person, post, self.now, 0))

    @rule(order=st.integers(0, 7), user=st.sampled_from(["ann", "bob"]), count=st.integers(1, 3))
    def give(self, order: int, user: str, count: int) -> None:
        self.post(APP, gift(f"o{order}", user, count), ("order", f"o{order}"))

    @rule(message_id=st.sampled_from(["", "m1", "m2"]))
    def announce(self, message_id: str) -> None:
        key = ("post", "max", str(int(MessageType.ANNOUNCEMENT)), message_id) if message_id else ()
        self.post(HOST, announcement(message_id), key)

    @rule(message_id=st.sampled_from(["", "m1", "p2"]), phase=st.sampled_from([RoomPhase.LIVE, RoomPhase.PAUSED]))
    def change_phase(self, message_id: str, phase: RoomPhase) -> None:
        key = ("post", "max", str(int(MessageType.ROOM_PHASE)), message_id) if message_id else ()
        self.post(HOST, Post(MessageType.ROOM_PHASE, message_id, PhasePayload(phase)), key)

    @rule(seconds=st.sampled_from([0.1, 0.6, 4.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.room.tick(self.now, 0))

    @precondition(lambda self: self.under_way)
    @rule()
    def commit(self) -> None:
        record = self.under_way.popleft()
        first: dict[OperationKey, StoredResult] = {}
        for asked in record.asked:
            if asked.key is not None and asked.key.parts in self.ledger:
                fingerprint, result = self.ledger[asked.key.parts]
                first[asked.key] = result if fingerprint == asked.key.fingerprint else KEY_REUSED
        if first:
            self.perform(self.room.repeated(record, first, self.now))
            return
        self.events.append(record.event)
        for asked in record.asked:
            if asked.key is not None:
                result = StoredResult(asked.outcome, len(self.events))
                self.ledger[asked.key.parts] = asked.key.fingerprint, result
        if record.event.type == MessageType.GIFT:
            self.units += record.event.payload.count
            assert record.event.payload.count == sum(
                asked.gift.count for asked in record.asked if asked.gift is not None
            )
        self.perform(self.room.committed(record, len(self.events), self.now))

    @precondition(lambda self: self.under_way)
    @rule()
    def disk_fails(self) -> None:
        """Everything under way fails, as in the ledger."""
        while self.under_way:
            self.perform(self.room.refused(self.under_way.popleft(), 1000, self.now))

    @invariant()
    def every_lane_adds_up(self) -> None:
        for account in self.room.counters.accounts():
            assert account.admitted == sum(account[1:])
            assert min(account) >= 0

    @invariant()
    def what_is_published_is_what_is_durable(self) -> None:
        assert self.published == list(range(1, len(self.events) + 1))
        assert self.room.last_offset == len(self.events)

    def teardown(self) -> None:
        self.perform(self.room.tick(self.now, 0, last=True))
        while self.under_way:
            self.commit()
        assert self.open == {}, "in the end every post has an answer"
        assert all(account.held == 0 for account in self.room.counters.accounts())
        phases = [event.payload[0] for event in self.events if event.type == MessageType.ROOM_PHASE]
        assert self.room.phase == (phases[-1] if phases else RoomPhase.LIVE)


TestDurableRoom = DurableRoomMachine.TestCase
TestDurableRoom.settings = examples(60, steps=30)
