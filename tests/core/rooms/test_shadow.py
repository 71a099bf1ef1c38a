"""Muted users in a room: refused, or shown to themselves alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

from broker.core.moderation.sanctions import RoomSanctions, SanctionChange, SanctionTable
from broker.core.moderation.screening import ScreenGroup, Screens
from broker.core.moderation.words import WordAction, WordFilter, WordList
from broker.core.rooms.effects import Hold, Outcomes, RefusePost, Reply, ShowToSender, TickOut
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from protocol.activities.moderation import SanctionKind
from protocol.codes import ErrorCode, Lane, MessageType, Outcome, Role, Tier
from protocol.messages import Account, Post
from protocol.payloads import DanmakuPayload, LikePayload
from tests.support.rooms import CUSTOM, Person


def muted_room(
    *,
    is_shadow: bool,
    seconds: int | None = 60,
    role: Role = Role.MODERATOR,
    policy: str = "roomcast",
    screens: Screens | None = None,
    **rules: Any,
) -> RoomState[int]:
    """A room in which eve is muted."""
    table = SanctionTable()
    wanted = SanctionChange("a", SanctionKind.MUTE, "lobby", "eve", "mod", role, seconds, "spam", is_shadow)
    action = table.decide(wanted, 0)
    assert action is not None
    table.apply(action)
    room_rules = RoomRules(policy_from(policy, rules), CUSTOM, screens=screens or Screens())
    sanctions = RoomSanctions(table, "lobby", lambda: 20_000)
    return RoomState(room_rules, 77, random.Random(1), 0.0, "lobby", sanctions=sanctions)


def danmaku(text: str) -> Post:
    return Post(MessageType.DANMAKU, "", DanmakuPayload(text))


@pytest.mark.parametrize(
    "post", [danmaku("hi"), Post(MessageType.LIKE, "", LikePayload(5)), Post(200, "x", "sale"), Post(201, "", "vote")]
)
def test_a_post_of_a_muted_user_is_refused_with_reason_and_end(post: Post) -> None:
    room = muted_room(is_shadow=False)
    person = Person("eve")
    person.may_post |= {200, 201}
    assert room.post(1, person, post, 1.0, 0) == (RefusePost(1, ErrorCode.MUTED, 40_000, "spam"),)
    assert room.refusal_of(1, person, post, 1.0) is not None
    assert room.refusal_of(1, Person("ann"), post, 1.0) is None
    assert not room.post(2, Person("ann"), danmaku("hi"), 1.0, 0)


def test_a_mute_without_an_end_says_no_time_and_does_not_bind_staff_of_the_same_role() -> None:
    room = muted_room(is_shadow=False, seconds=None)
    assert room.post(1, Person("eve"), danmaku("hi"), 1.0, 0) == (RefusePost(1, ErrorCode.MUTED, 0, "spam"),)
    assert not room.post(2, Person("eve", Role.MODERATOR), danmaku("hi"), 1.0, 0)
    assert muted_room(is_shadow=False, role=Role.APP).post(1, Person("eve", Role.HOST), danmaku("hi"), 1.0, 0)


def test_shadowed_danmaku_are_shown_to_their_sender_alone_and_kept_nowhere() -> None:
    room = muted_room(is_shadow=True)
    before = room.counters.accounts()
    room.enter("ann", "Ann", Role.VIEWER, 1.0)
    room.tick(1.0, 0)
    assert room.refusal_of(1, Person("eve"), danmaku("buy"), 2.0) is None
    assert room.post(1, Person("eve"), danmaku("buy"), 2.0, 0) == ()
    assert room.next_due(2.0) == 2.0
    (shown,) = room.tick(2.0, 5_000)
    assert isinstance(shown, ShowToSender)
    (entry,) = shown.tick.entries
    assert (shown.ticket, shown.outcome, entry.user_id, entry.payload, entry.count) == (
        1, Outcome.ACCEPTED, "eve", ("buy",), 1,
    )  # fmt: skip
    assert shown.tick.account == Account()
    assert room.counters.accounts()[Lane.CHAT] == before[Lane.CHAT]
    assert room.snapshot("lobby", Role.VIEWER, Tier.FULL).recent == ()
    assert room.next_due(2.0) is None or room.next_due(2.0) > 2.0  # type: ignore[operator]


def test_in_a_tick_with_others_the_shadow_is_a_frame_of_that_tick_without_its_account() -> None:
    room = muted_room(is_shadow=True)
    room.post(1, Person("eve"), danmaku("same"), 2.0, 0)
    room.post(2, Person("ann"), danmaku("same"), 2.0, 0)
    effects = room.tick(2.0, 0)
    shown = next(each for each in effects if isinstance(each, ShowToSender))
    out = next(each for each in effects if isinstance(each, TickOut))
    assert effects.index(shown) < effects.index(out)
    assert shown.number == out.number
    assert [(entry.user_id, entry.count) for entry in out.ticks[0].entries] == [("ann", 1)]
    assert out.ticks[0].account.admitted == 1
    assert [each.outcomes for each in effects if isinstance(each, Outcomes)] == [[(2, Outcome.ACCEPTED)]]


def test_a_shadowed_user_meets_the_limits_that_others_meet() -> None:
    room = muted_room(is_shadow=True)
    assert room.post(1, Person("eve"), danmaku("one"), 1.0, 0) == ()
    (again,) = room.post(2, Person("eve"), danmaku("ONE"), 1.0, 0)
    assert again == Reply(2, Outcome.REJECTED, ErrorCode.DUPLICATE_TEXT)
    room.post(3, Person("eve"), danmaku("two"), 1.0, 0)
    (limited,) = room.post(4, Person("eve"), danmaku("three"), 1.0, 0)
    assert isinstance(limited, Reply)
    assert limited.outcome is Outcome.LIMITED


def test_likes_and_events_of_a_shadowed_user_are_accepted_and_count_nothing() -> None:
    room = muted_room(is_shadow=True)
    assert room.post(1, Person("eve"), Post(MessageType.LIKE, "", LikePayload(5)), 1.0, 0) == (
        Reply(1, Outcome.ACCEPTED, 5),
    )
    room.post(2, Person("eve"), Post(MessageType.LIKE, "", LikePayload(100)), 1.0, 0)
    (limited,) = room.post(3, Person("eve"), Post(MessageType.LIKE, "", LikePayload(1)), 1.0, 0)
    assert isinstance(limited, Reply)
    assert limited.outcome is Outcome.LIMITED
    person = Person("eve")
    assert room.post(4, person, Post(200, "x", "sale"), 1.0, 0) == (Reply(4, Outcome.ACCEPTED, 0),)
    assert room.like_total == 0
    assert room.last_offset == 0
    assert not room.rankings["likes"].ranked


def answers(room: RoomState[int], posts: list[Post]) -> list[tuple[Any, ...]]:
    """Post as eve, a tick after each; return the answers."""
    person = Person("eve")
    person.may_post |= {200, 201}
    found: list[tuple[Any, ...]] = []
    for number, post in enumerate(posts, 1):
        now = float(number)
        effects = [*room.post(number, person, post, now, 0), *room.tick(now, 0)]
        for each in effects:
            match each:
                case Reply(_, outcome, detail, first):
                    code = detail if outcome is Outcome.REJECTED else 0
                    found.append((outcome, code, first is None))
                case Hold():
                    found.append((Outcome.HELD, 0, True))
                case ShowToSender(_, _, _, outcome):
                    found.append((outcome, 0, True))
                case RefusePost(_, code, _, reason):
                    found.append((Outcome.REJECTED, code, reason))
                case Outcomes(outcomes):
                    found += [(outcome, 0, True) for _, outcome in outcomes]
    return found


@pytest.mark.parametrize("action", [None, *WordAction])
@pytest.mark.parametrize(
    "posts",
    [
        [danmaku("badword, buy")],
        [Post(MessageType.EMOTE, "", ("badword",))],
        [Post(201, "", {"say": "badword"})],
        [Post(200, "k-1", "badword"), Post(200, "k-1", "badword"), Post(200, "k-1", "another")],
        [Post(200, f"k-{number}", "again and again") for number in range(12)],
    ],
)
def test_a_shadowed_user_is_answered_as_any_other(posts: list[Post], action: WordAction | None) -> None:
    screens = Screens()
    if action is not None:
        words = WordFilter.build([WordList("ads", action, ["badword"], (), "advertising")])
        screens.use([ScreenGroup("", ("*",), words)], {}, frozenset())
    shadowed, muted_by_nobody = (
        muted_room(is_shadow=True, screens=screens, seconds=seconds)
        for seconds in (60, 1)  # one second is over
    )
    assert answers(shadowed, posts) == answers(muted_by_nobody, posts)
    assert shadowed.last_offset == 0


def test_words_are_masked_in_what_a_shadowed_user_sees_of_itself() -> None:
    screens = Screens()
    words = WordFilter.build([WordList("ads", WordAction.MASK, ["badword"])])
    screens.use([ScreenGroup("", ("*",), words)], {}, frozenset())
    room = muted_room(is_shadow=True, screens=screens)
    room.post(1, Person("eve"), danmaku("a badword"), 1.0, 0)
    (shown,) = [each for each in room.tick(1.0, 0) if isinstance(each, ShowToSender)]
    assert [entry.payload for entry in shown.tick.entries] == [("a *******",)]
    assert not screens.found


def test_what_waits_is_bounded() -> None:
    room = muted_room(is_shadow=True, policy="off", tick_ms=100)
    answers = [room.post(number, Person("eve"), danmaku(str(number)), 1.0, 0) for number in range(1_001)]
    assert not any(answers[:1_000])
    assert answers[-1] == (Reply(1_000, Outcome.SAMPLED_OUT),)
    assert len([each for each in room.tick(1.0, 0) if isinstance(each, ShowToSender)]) == 1_000
