"""A room as a pure machine: every ticket is answered once, every lane adds up, offsets have no holes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.limits.overload import OverloadStage
from broker.core.rooms.effects import Effect, End, Outcomes, Publish, Reply, TickOut
from broker.core.rooms.policies import POLICIES, policy_from
from broker.core.rooms.state import RoomRules, RoomState
from protocol.codes import ErrorCode, Lane, LeaveReason, MessageType, Outcome, Role, RoomPhase, Tier
from protocol.messages import Account, Post, Tick
from protocol.payloads import (
    AnnouncementPayload,
    DanmakuPayload,
    EmotePayload,
    GiftPayload,
    LikePayload,
    PhasePayload,
)
from tests.support.examples import examples
from tests.support.rooms import CUSTOM, Person


def a_room(policy: str = "roomcast", **overrides: Any) -> RoomState[int]:
    rules = RoomRules(policy=policy_from(policy, overrides), custom=CUSTOM)
    return RoomState(rules, epoch=77, rng=random.Random(1), now=0.0)


def danmaku(text: str) -> Post:
    return Post(MessageType.DANMAKU, "", DanmakuPayload(text))


orders = itertools.count()


def gift(user: str, count: int = 1) -> Post:
    return Post(MessageType.GIFT, "", GiftPayload(f"order-{next(orders)}", user, user.title(), "rose", count, 100))


def outcomes(effects: Any) -> dict[int, Outcome]:
    """Fates by ticket; a ticket answered twice fails."""
    found: dict[int, Outcome] = {}
    for effect in effects:
        answers = []
        if isinstance(effect, Reply):
            answers = [(effect.ticket, effect.outcome)]
        elif isinstance(effect, Outcomes):
            answers = effect.outcomes
        for ticket, outcome in answers:
            assert ticket not in found
            found[ticket] = outcome
    return found


def test_the_first_danmaku_after_quiet_is_due_at_once_and_the_next_an_interval_later() -> None:
    room = a_room()
    room.enter("ann", "Ann", Role.VIEWER, 10.0)
    room.tick(10.0, 0)
    assert room.post(1, Person("ann"), danmaku("hello"), 11.0, 0) == ()
    assert room.next_due(11.0) == 11.0
    effects = room.tick(11.0, 1_000)
    (tick_out,) = [effect for effect in effects if isinstance(effect, TickOut)]
    (entry,) = tick_out.ticks[0].entries
    assert (entry.user_id, entry.payload, entry.count) == ("ann", ("hello",), 1)
    assert outcomes(effects) == {1: Outcome.ACCEPTED}
    room.post(2, Person("bob"), danmaku("again"), 11.01, 0)
    assert room.next_due(11.01) == pytest.approx(11.1)


def test_a_quiet_room_has_nothing_due() -> None:
    assert a_room().next_due(5.0) is None


def test_style_travels_only_where_there_is_one() -> None:
    room = a_room("off", tick_ms=100)
    room.post(1, Person("ann"), Post(MessageType.DANMAKU, "", DanmakuPayload("a", (1, 2, 0))), 1.0, 0)
    room.post(2, Person("ann"), Post(MessageType.EMOTE, "", EmotePayload("heart")), 1.0, 0)
    (out,) = [effect for effect in room.tick(1.0, 0) if isinstance(effect, TickOut)]
    assert [entry.payload for entry in out.ticks[0].entries] == [("a", (1, 2, 0)), ("heart",)]


def test_staff_may_post_more_at_once_than_viewers() -> None:
    room = a_room()
    for role, expected in ((Role.VIEWER, 3), (Role.MODERATOR, 8)):
        person = Person(role.name, role)
        effects = [room.post(n, person, danmaku(f"{role} {n}"), 1.0, 0) for n in range(8)]
        assert sum(not each for each in effects) == expected
        assert all(each[0].outcome is Outcome.LIMITED and each[0].detail > 0 for each in effects if each)  # type: ignore[union-attr]


@pytest.mark.parametrize("role", [Role.MODERATOR, Role.ASSISTANT, Role.HOST, Role.APP])
@pytest.mark.parametrize(
    "make",
    [
        lambda number: danmaku(f"text {number}"),
        lambda number: Post(MessageType.ANNOUNCEMENT, f"id-{number}", AnnouncementPayload("news")),
        lambda number: Post(MessageType.ROOM_PHASE, f"id-{number}", PhasePayload(RoomPhase.PAUSED)),
    ],
)
def test_staff_and_the_app_have_limits_of_their_own(role: Role, make: Callable[[int], Post]) -> None:
    limits: dict[str, Any] = {
        "staff_posts_burst": 5,
        "staff_posts_per_s": 2.0,
        "app_posts_burst": 9,
        "app_posts_per_s": 4.0,
    }
    room, author = a_room(**limits), Person("max", role)
    burst, wait_ms = (9, 250) if role is Role.APP else (5, 500)
    results = [outcomes(room.post(number, author, make(number), 1.0, 0)) for number in range(burst + 2)]
    limited = [number for number, found in enumerate(results) if found.get(number) is Outcome.LIMITED]
    assert limited == [burst, burst + 1]
    (reply,) = room.post(99, author, make(99), 1.0, 0)
    assert isinstance(reply, Reply)
    assert reply.detail == pytest.approx(wait_ms, abs=1)
    again = outcomes(room.post(100, author, make(0), 1.0, 0)).get(100)
    if make(0).type != MessageType.DANMAKU:
        assert again is not Outcome.LIMITED, "a known key costs nothing"
    assert outcomes(room.post(101, author, make(101), 1.6, 0)).get(101) is not Outcome.LIMITED
    assert outcomes(room.post(102, Person("eve", role), make(102), 1.6, 0)).get(102) is not Outcome.LIMITED


def test_over_quota_is_refused_by_policies_that_drop_and_sampled_by_ours() -> None:
    for policy, expected in (("tencent", Outcome.LIMITED), ("roomcast", Outcome.SAMPLED_OUT)):
        room = a_room(policy)
        replies = [room.post(n, Person(f"u{n}"), danmaku(f"text {n}"), 1.0, 0) for n in range(60)]
        refused = [each for each in replies if each]
        assert refused
        assert {each[0].outcome for each in refused} == {expected}  # type: ignore[union-attr]
        assert _balanced(room)


def test_an_event_takes_the_next_offset_and_is_remembered() -> None:
    room = a_room()
    reply, published = room.post(
        1, Person("max", Role.HOST), Post(MessageType.ANNOUNCEMENT, "", AnnouncementPayload("news")), 1.0, 5
    )
    assert reply == Reply(1, Outcome.ACCEPTED, 1)
    assert isinstance(published, Publish)
    assert (published.offset, published.lane) == (1, Lane.CONTROL)
    past = room.events_since(77, 0, 1.0)
    assert past is not None
    assert [(each.offset, each.lane, each.event) for each in past] == [(1, Lane.CONTROL, published.event)]


def test_custom_types_follow_their_registry() -> None:
    room = a_room()
    _, published = room.post(1, Person("app", Role.APP), Post(200, "", {"sku": "x"}), 1.0, 5)
    assert isinstance(published, Publish)
    assert published.lane is Lane.COMMERCE
    assert room.post(2, Person("ann"), Post(201, "", ["red"]), 1.0, 5) == ()
    assert room.post(3, Person("bob"), Post(201, "", ["red"]), 1.0, 5) == ()
    effects = room.tick(1.0, 0)
    (out,) = [effect for effect in effects if isinstance(effect, TickOut)]
    assert [(entry.type, entry.payload, entry.count) for entry in out.ticks[0].entries] == [(201, ["red"], 2)]
    assert outcomes(effects) == {2: Outcome.ACCEPTED, 3: Outcome.MERGED}
    limited = [room.post(n, Person("ann"), Post(201, "", [n]), 1.0, 5) for n in range(10, 20)]
    assert any(each and each[0].outcome is Outcome.LIMITED for each in limited)  # type: ignore[union-attr]


def test_what_the_app_posts_on_lanes_0_to_2_is_paced_and_not_refused() -> None:
    room, app = a_room(), Person("shop", Role.APP)
    results: dict[int, Outcome] = {}
    for number in range(300):
        results |= outcomes(room.post(number, app, gift(f"u{number}"), 1.0, 0))
        results |= outcomes(room.post(1000 + number, app, Post(200, f"id-{number}", {"sku": number}), 1.0, 0))
    now = 1.0
    while (due := room.next_due(now)) is not None:
        now = due
        results |= outcomes(room.tick(now, 0))
    assert len(results) == 600
    assert set(results.values()) == {Outcome.ACCEPTED}
    assert now <= 1.0 + 3.0
    assert _balanced(room)


def test_other_roles_and_other_policies_keep_the_quota_of_the_room() -> None:
    for policy, role in (("tencent", Role.APP), ("roomcast", Role.HOST)):
        room = a_room(policy)
        replies = [room.post(n, Person(f"u{n}", role), gift(f"u{n}"), 1.0, 0) for n in range(60)]
        limited = [each for each in replies if each and each[0].outcome is Outcome.LIMITED]  # type: ignore[union-attr]
        assert len(limited) == 20


def test_the_app_has_a_bound_all_the_same() -> None:
    room, app = a_room(app_posts_burst=9, app_posts_per_s=4.0), Person("shop", Role.APP)
    results = [outcomes(room.post(n, app, Post(200, f"id-{n}", {}), 1.0, 0))[n] for n in range(12)]
    assert results == [Outcome.ACCEPTED] * 9 + [Outcome.LIMITED] * 3


@pytest.mark.parametrize("role", [Role.MODERATOR, Role.ASSISTANT, Role.HOST])
@pytest.mark.parametrize("stage", [OverloadStage.NORMAL, OverloadStage.COMMERCE_ONLY])
@pytest.mark.parametrize("policy", ["roomcast", "nim", "goim", "off"])
def test_danmaku_of_staff_are_shown_in_any_flood_and_say_whose_they_are(
    policy: str, stage: OverloadStage, role: Role
) -> None:
    room, staff = a_room(policy), Person("max", role)
    room.stage = stage
    results: dict[int, Outcome] = {}
    shown: list[list[str]] = [[], [], []]
    for second in range(4):
        now = 1.0 + second
        for n in range(300):
            results |= outcomes(room.post(1000 * second + n, Person(f"u{n}"), danmaku(f"text {n}"), now, 0))
        for n in (998, 999):
            effects = room.post(1000 * second + n, staff, danmaku(f"staff {second} {n}"), now, 0)
            assert effects == ()
        same = room.post(1000 * second + 997, staff, danmaku("text 1"), now, 0)
        assert same == ()
        for effect in room.tick(now + 0.5, 0):
            results |= outcomes([effect])
            for tier, tick in enumerate(effect.ticks if isinstance(effect, TickOut) else ()):
                shown[tier] += [entry.payload[0] for entry in tick.entries if entry.role is role]
                assert tick.account.admitted == sum(tick.account[1:])
                assert {entry.role for entry in tick.entries} <= {role, Role.VIEWER}
    posted = [text for n in range(4) for text in (f"staff {n} 998", f"staff {n} 999", "text 1")]
    assert shown == [posted] * 3
    assert all(results[1000 * n + m] is Outcome.ACCEPTED for n in range(4) for m in (997, 998, 999))
    assert _balanced(room)


def test_so_many_danmaku_of_staff_wait_and_more_come_later() -> None:
    room = a_room(queue_max=3, staff_posts_burst=10)
    replies = [room.post(n, Person("max", Role.HOST), danmaku(f"text {n}"), 1.0, 0) for n in range(5)]
    assert replies == [()] * 3 + [(Reply(n, Outcome.LIMITED, 1000),) for n in (3, 4)]


def test_the_app_is_no_viewer() -> None:
    room = a_room()
    room.enter("shop", "Shop", Role.APP, 1.0)
    assert (room.online, room.empty_since) == (0, None), "it is not counted, and the room is in use"
    assert room.next_due(1.0) is not None, "it gets the counters"
    room.enter("ann", "Ann", Role.VIEWER, 1.0)
    states = [each.state for each in room.tick(5.0, 0) if isinstance(each, TickOut)]
    assert [(state.online, state.uniques, state.joins, state.joins_more) for state in states if state is not None] == [
        (1, 1, (("ann", "Ann"),), 0)
    ]
    room.leave("ann", Role.VIEWER, 6.0)
    assert room.empty_since is None
    room.leave("shop", Role.APP, 7.0)
    assert room.empty_since == 7.0


def test_a_custom_payload_above_its_cap_is_rejected_and_one_at_it_is_not() -> None:
    room = a_room()
    fits, not_fits = "x" * 1021, "x" * 1022  # msgpack writes three bytes before a string of this length
    assert room.post(1, Person("ann"), Post(201, "", fits), 1.0, 5) == ()
    rejected = Reply(2, Outcome.REJECTED, ErrorCode.PAYLOAD_TOO_LARGE)
    assert room.post(2, Person("ann"), Post(201, "", not_fits), 1.0, 5) == (rejected,)


def test_what_one_may_not_post_is_rejected_and_not_counted() -> None:
    room = a_room()
    person = Person("ann", may_post=frozenset({MessageType.LIKE}))
    assert room.post(1, person, danmaku("x"), 1.0, 0) == (Reply(1, Outcome.REJECTED, ErrorCode.NOT_ALLOWED),)
    unknown = Post(130, "", None)
    assert room.post(2, person, unknown, 1.0, 0) == (Reply(2, Outcome.REJECTED, ErrorCode.UNKNOWN_TYPE),)
    assert all(account == Account() for account in room.counters.accounts())


def test_a_room_that_crashed_says_later_not_never() -> None:
    room = a_room()
    room.close(comes_back=True)
    assert room.post(1, Person("app", Role.APP), gift("ann"), 1.0, 0) == (Reply(1, Outcome.LIMITED, 1000),)


def test_ending_says_everything_first_and_answers_everybody() -> None:
    room = a_room()
    room.enter("ann", "Ann", Role.VIEWER, 0.5)
    room.post(1, Person("ann"), danmaku("last words"), 1.0, 0)
    room.post(2, Person("app", Role.APP), gift("ann"), 1.0, 0)
    effects = room.set_phase(RoomPhase.ENDED, "max", 1.0, 0)
    assert outcomes(effects)[1] is Outcome.ACCEPTED
    assert isinstance(effects[-1], End)
    assert effects[-1].reason is LeaveReason.ROOM_ENDED
    assert room.post(3, Person("ann"), danmaku("too late"), 1.1, 0) == (
        Reply(3, Outcome.REJECTED, ErrorCode.ROOM_ENDED),
    )
    assert all(account.held == 0 for account in room.counters.accounts())


def test_commerce_only_keeps_events_and_samples_all_chat() -> None:
    room = a_room()
    room.stage = OverloadStage.COMMERCE_ONLY
    assert room.post(1, Person("ann"), danmaku("hi"), 1.0, 0) == (Reply(1, Outcome.SAMPLED_OUT),)
    reply, _ = room.post(2, Person("app", Role.APP), Post(200, "", {}), 1.0, 0)
    assert isinstance(reply, Reply)
    assert reply.outcome is Outcome.ACCEPTED
    assert room.counters.accounts()[Lane.CHAT] == Account(1, 0, 0, 1, 0, 0)
    (later,) = room.post(3, Person("app", Role.APP), gift("ann"), 1.0, 0)
    assert isinstance(later, Reply)
    assert (later.outcome, later.detail) == (Outcome.LIMITED, 15_000)
    assert room.counters.accounts()[Lane.PAID] == Account()


def test_smaller_tiers_receive_less_and_account_for_it() -> None:
    room = a_room()
    for number in range(20):
        room.post(number, Person(f"u{number}"), danmaku(f"text {number}"), 5.0, 0)
    (out,) = [effect for effect in room.tick(5.0, 0) if isinstance(effect, TickOut)]
    sizes = [len(tick.entries) for tick in out.ticks]
    assert sizes == [20, 10, 5]
    assert all(tick.account.admitted == sum(tick.account[1:]) for tick in out.ticks)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_makes_a_room_that_works(policy: str) -> None:
    room = a_room(policy)
    room.enter("ann", "Ann", Role.VIEWER, 0.0)
    for number in range(100):
        room.post(number, Person(f"u{number % 7}"), danmaku(f"t{number % 5}"), 1.0 + number / 100, 0)
    room.tick(2.5, 0, last=True)
    assert _balanced(room)
    assert room.counters.accounts()[Lane.CHAT].held == 0


def _balanced(room: RoomState[int]) -> bool:
    return all(account.admitted == sum(account[1:]) and min(account) >= 0 for account in room.counters.accounts())


USERS = st.sampled_from(["ann", "bob", "cat", "dan"])
TEXTS = st.sampled_from(["666", "６６６", "hello", "Hello ", "多少钱"])


class RoomMachine(RuleBasedStateMachine):
    """Any order of commands, any time between them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.tickets = 0
        self.open: set[int] = set()
        self.offsets: list[int] = []
        self.inside: list[str] = []
        self.likes = 0
        self.gifts_in = 0
        self.gifts_out = 0
        self.shown = Account()
        self.limited = 0

    @initialize(policy=st.sampled_from(sorted(POLICIES)))
    def begin(self, policy: str) -> None:
        self.room = a_room(policy)

    def perform(self, effects: Any) -> None:
        for effect in effects:
            self.judge(effect)

    def judge(self, effect: Effect[int]) -> None:
        if isinstance(effect, Reply):
            self.answered(effect.ticket, effect.outcome, effect.detail)
        elif isinstance(effect, Outcomes):
            for ticket, outcome in effect.outcomes:
                self.answered(ticket, outcome, 0)
        elif isinstance(effect, Publish):
            self.offsets.append(effect.offset)
            if effect.event.type == MessageType.GIFT:
                self.gifts_out += effect.event.payload.count
        elif isinstance(effect, TickOut) and effect.ticks:
            full: Tick = effect.ticks[0]
            assert len(full.entries) == full.account.shown
            assert sum(entry.count for entry in full.entries) == full.account.shown + full.account.merged
            self.shown = Account(*map(sum, zip(self.shown, full.account, strict=True)))

    def answered(self, ticket: int, outcome: Outcome, detail: int) -> None:
        assert ticket in self.open, "a ticket is answered once"
        self.open.discard(ticket)
        if outcome in (Outcome.LIMITED, Outcome.REJECTED):
            assert detail > 0

    def post(self, person: Person, post: Post) -> Any:
        self.tickets += 1
        self.open.add(self.tickets)
        effects = self.room.post(self.tickets, person, post, self.now, 0)
        self.perform(effects)
        return effects

    @rule(user=USERS, text=TEXTS)
    def say(self, user: str, text: str) -> None:
        self.post(Person(user), danmaku(text))

    @rule(user=USERS, count=st.integers(1, 50))
    def like(self, user: str, count: int) -> None:
        (reply,) = self.post(Person(user), Post(MessageType.LIKE, "", LikePayload(count)))
        if reply.outcome is Outcome.ACCEPTED:
            self.likes += reply.detail

    @rule(user=USERS, count=st.integers(1, 9))
    def give(self, user: str, count: int) -> None:
        effects = self.post(Person("shop", Role.APP), gift(user, count))
        if not any(isinstance(each, Reply) and each.outcome in (Outcome.LIMITED, Outcome.REJECTED) for each in effects):
            self.gifts_in += count

    @rule(kind=st.sampled_from([MessageType.ANNOUNCEMENT, 200, 201]))
    def announce(self, kind: int) -> None:
        payload: Any = AnnouncementPayload("news") if kind == MessageType.ANNOUNCEMENT else {"n": 1}
        self.post(Person("max", Role.HOST), Post(kind, "", payload))

    @rule(phase=st.sampled_from([RoomPhase.LIVE, RoomPhase.PAUSED]))
    def set_phase(self, phase: RoomPhase) -> None:
        self.post(Person("max", Role.HOST), Post(MessageType.ROOM_PHASE, "", PhasePayload(phase)))

    @rule(user=USERS)
    def enter(self, user: str) -> None:
        self.room.enter(user, user.title(), Role.VIEWER, self.now)
        self.inside.append(user)

    @precondition(lambda self: self.inside)
    @rule(index=st.integers(0, 100))
    def leave(self, index: int) -> None:
        self.room.leave(self.inside.pop(index % len(self.inside)), Role.VIEWER, self.now)

    @rule(stage=st.sampled_from(OverloadStage))
    def overload(self, stage: OverloadStage) -> None:
        self.room.stage = stage

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1, 0.5, 3.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.room.sweep(self.now)

    @rule()
    def tick_when_due(self) -> None:
        due = self.room.next_due(self.now)
        if due is not None:
            assert due >= self.now
            self.now = max(self.now, due)
            before = len(self.open)
            effects = self.room.tick(self.now, 0)
            self.perform(effects)
            assert effects or before == 0, "what is due says something"

    @invariant()
    def every_lane_adds_up(self) -> None:
        if hasattr(self, "room"):
            assert _balanced(self.room)

    @invariant()
    def offsets_have_no_holes(self) -> None:
        assert self.offsets == list(range(1, len(self.offsets) + 1))

    @invariant()
    def totals_are_exact(self) -> None:
        if hasattr(self, "room"):
            assert self.room.like_total == self.likes
            assert self.room.online == len(self.inside)
            assert self.room.snapshot("lobby", Role.VIEWER, Tier.FULL).users == len(set(self.inside))

    def teardown(self) -> None:
        if hasattr(self, "room"):
            self.perform(self.room.tick(self.now, 0, last=True))
            assert self.open == set(), "in the end every post has an answer"
            assert self.gifts_out == self.gifts_in
            chat = self.room.counters.accounts()[Lane.CHAT]
            assert chat.held == 0
            assert (chat.shown, chat.merged, chat.expired) == (self.shown.shown, self.shown.merged, self.shown.expired)


TestRoomMachine = RoomMachine.TestCase
TestRoomMachine.settings = examples(60, steps=40)


@examples(100)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y"]), st.integers(0, 40)), max_size=40),
    st.integers(1, 3),
)
def test_a_text_that_was_never_taken_in_is_never_called_a_duplicate(
    posts: list[tuple[str, str, int]], quota: int
) -> None:
    """DUPLICATE_TEXT names a text of the same user that was taken in (and may have been shown)."""
    room = a_room(over_quota="drop_newest", admit_per_window=quota)
    taken: set[tuple[str, str]] = set()
    now = 1.0
    for ticket, (user, text, step) in enumerate(posts):
        now += step / 10
        answer = room.post(ticket, Person(user), danmaku(text), now, 0)
        if answer == ():
            taken.add((user, text))
        elif answer == (Reply(ticket, Outcome.REJECTED, ErrorCode.DUPLICATE_TEXT),):
            assert (user, text) in taken
        room.tick(now, 0)
