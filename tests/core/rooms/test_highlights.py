"""Paid messages in a durable room: what the ledger commits, refuses and knows, deletions, and the bound of fifty."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.commerce.highlights import MAX_HELD, HeldHighlight, Highlights
from broker.core.commerce.room_rankings import GIFTS
from broker.core.rooms.effects import Record, Reply
from broker.core.rooms.idempotency import KEY_REUSED, FirstUse, StoredResult
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from protocol.codes import ErrorCode, Lane, MessageType, Outcome, Role
from protocol.fields import MAX_INT
from protocol.messages import Post
from protocol.payloads import DeletedPayload, GiftPayload, HighlightPayload
from tests.support.examples import examples
from tests.support.rooms import CUSTOM, Person

APP = Person("shop", Role.APP)
T0 = 1_790_000_000_000
AMOUNTS = (500, 1_000, 50_000)


def a_room() -> RoomState[int]:
    rules = RoomRules(policy=policy_from("roomcast"), custom=CUSTOM, durable=True)
    return RoomState(rules, epoch=77, rng=random.Random(1), now=0.0, name="show")


def paid(order: str, cents: int = 500, user: str = "ann") -> Post:
    return Post(MessageType.HIGHLIGHT, "", HighlightPayload(order, user, user.title(), "hello", cents))


def records(effects: Any) -> list[Record[int]]:
    return [each for each in effects if isinstance(each, Record)]


def test_one_that_may_displace_another_waits_for_the_one_before_it() -> None:
    room = a_room()
    for number in range(1, MAX_HELD):
        (record,) = records(room.post(number, APP, paid(f"o{number}"), 1.0, T0))
        room.committed(record, number, 1.0)
    (record,) = records(room.post(50, APP, paid("o50"), 1.0, T0))
    assert room.post(51, APP, paid("o51"), 1.0, T0) == (Reply(51, Outcome.LIMITED, 1000),)
    assert room.counters.accounts()[Lane.PAID].held == 1
    room.committed(record, 50, 1.1)
    (record,) = records(room.post(51, APP, paid("o51"), 1.0, T0))
    assert (record.event.payload.displaced, record.left) == (1, ("o1",))
    room.refused(record, 2000, 1.2)
    assert len(room.highlights) == MAX_HELD, "one that the ledger refuses displaces none"
    (record,) = records(room.post(51, APP, paid("o51"), 1.0, T0 + 60_000))
    assert (record.event.payload.displaced, len(record.left)) == (0, MAX_HELD)


def test_orders_under_way_count_in_the_largest_sum_of_a_room() -> None:
    room = a_room()
    half = MAX_INT // 2

    def gift(order: str) -> Post:
        return Post(MessageType.GIFT, "", GiftPayload(order, "ann", "Ann", order, 1, half))

    too_large = (Reply(3, Outcome.REJECTED, int(ErrorCode.BAD_FIELD)),)
    (first,) = records(room.post(1, APP, gift("o1"), 1.0, T0))
    (second,) = records(room.post(2, APP, gift("o2"), 1.0, T0))
    for post in (gift("o3"), paid("o3")):
        assert room.post(3, APP, post, 1.0, T0) == too_large
    room.committed(first, 1, 1.1)
    assert room.post(3, APP, gift("o3"), 1.1, T0) == too_large
    key = second.asked[0].key
    assert key is not None
    known = StoredResult(Outcome.ACCEPTED, 1, FirstUse("other", 78, 1))
    room.repeated(second, {key: known}, 1.2)
    (third,) = records(room.post(3, APP, gift("o3"), 1.2, T0))
    assert room.post(4, APP, gift("o4"), 1.2, T0) == (too_large[0]._replace(ticket=4),)
    room.refused(third, 2000, 1.3)
    (fourth,) = records(room.post(4, APP, gift("o4"), 1.3, T0))
    room.committed(fourth, 2, 1.4)
    assert room.rankings[GIFTS].total == 2 * half == MAX_INT - 1


class Histories(RuleBasedStateMachine):
    """Orders of a few users; results of the ledger in the order of the records; deletions; time; restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.room = a_room()
        self.now_ms = T0
        self.ticket = 0
        self.flying: list[Record[int]] = []
        self.answers: dict[int, Reply[int]] = {}
        self.known: dict[Any, tuple[bytes, StoredResult]] = {}
        """First result by name of an order, as the ledger has it, with the fingerprint of its content."""
        self.stream: list[tuple[int, Any]] = []
        """What the ledger has committed: offset and event."""

    @property
    def now(self) -> float:
        return (self.now_ms - T0) / 1000

    def perform(self, effects: Any) -> None:
        for effect in effects:
            if isinstance(effect, Reply):
                assert effect.ticket not in self.answers
                self.answers[effect.ticket] = effect
            elif isinstance(effect, Record):
                self.flying.append(effect)

    @rule(order=st.integers(0, 200), cents=st.sampled_from([499, *AMOUNTS]), user=st.sampled_from("ab"))
    def pay(self, order: int, cents: int, user: str) -> None:
        self.ticket += 1
        self.perform(self.room.post(self.ticket, APP, paid(f"o{order}", cents, user), self.now, self.now_ms))

    @precondition(lambda self: len(self.stream) < MAX_HELD)
    @rule()
    def pay_many(self) -> None:
        for _ in range(MAX_HELD):
            self.ticket += 1
            post = paid(f"many{self.ticket}", AMOUNTS[self.ticket % 3])
            self.perform(self.room.post(self.ticket, APP, post, self.now, self.now_ms))
            while self.flying:
                self.commit()

    @rule(user=st.sampled_from("ab"))
    def delete(self, user: str) -> None:
        self.ticket += 1
        post = Post(MessageType.MESSAGES_DELETED, "", DeletedPayload((), user))
        self.perform(self.room.post(self.ticket, APP, post, self.now, self.now_ms))

    @precondition(lambda self: self.flying)
    @rule()
    def commit(self) -> None:
        record = self.flying.pop(0)
        keys = [asked.key for asked in record.asked if asked.key is not None]
        known = {}
        for key in keys:
            fingerprint, first = self.known.get(key.parts, (b"", None))
            if first is not None:
                known[key] = first if fingerprint == key.fingerprint else KEY_REUSED._replace(first=first.first)
        if known:
            self.perform(self.room.repeated(record, known, self.now))
            return
        offset = len(self.stream) + 1
        self.stream.append((offset, record.event))
        first = StoredResult(Outcome.ACCEPTED, offset, FirstUse("show", 77, offset))
        self.known |= {key.parts: (key.fingerprint, first) for key in keys}
        self.perform(self.room.committed(record, offset, self.now))

    @precondition(lambda self: self.flying)
    @rule()
    def refuse(self) -> None:
        self.perform(self.room.refused(self.flying.pop(0), 2000, self.now))

    @rule(seconds=st.sampled_from([1, 59, 121, 4_000]))
    def wait(self, seconds: int) -> None:
        self.now_ms += 1000 * seconds

    @rule()
    def restart(self) -> None:
        self.flying.clear()
        held = self.room.highlights.dump()
        scores = self.room.rankings.dump()
        totals, last = self.room.totals(), self.room.last_offset
        self.room = a_room()
        self.room.rankings.restore(scores)
        self.room.restore(last, totals, (), self.now)
        self.room.highlights.restore(held)

    @invariant()
    def what_is_shown_is_what_the_stream_says(self) -> None:
        folded = Highlights()
        for offset, event in self.stream:
            if event.type == MessageType.HIGHLIGHT:
                folded.apply(HeldHighlight.of(event.payload, offset, event.at_ms), event.payload.displaced)
            else:
                folded.hide(event.payload.covers)
        assert self.room.highlights.shown(self.now_ms) == folded.shown(self.now_ms)
        assert len(folded.shown(self.now_ms)) <= MAX_HELD

    @invariant()
    def the_ranking_is_the_sum_of_the_stream(self) -> None:
        paid_for = [event.payload for _, event in self.stream if event.type == MessageType.HIGHLIGHT]
        assert self.room.rankings[GIFTS].total == sum(each.cents for each in paid_for)
        assert len({each.order_id for each in paid_for}) == len(paid_for), "an order is there once"

    @invariant()
    def the_account_balances(self) -> None:
        for account in self.room.counters.accounts():
            assert account.admitted == sum(account[1:])
        assert self.room.counters.accounts()[Lane.PAID].held == sum(
            record.event.type == MessageType.HIGHLIGHT for record in self.flying
        )

    def teardown(self) -> None:
        while self.flying:
            self.commit()
        codes = {reply.detail for reply in self.answers.values() if reply.outcome is Outcome.REJECTED}
        assert codes <= {ErrorCode.BAD_FIELD, ErrorCode.KEY_REUSED}


TestHistories = Histories.TestCase
TestHistories.settings = examples(20, steps=25)
