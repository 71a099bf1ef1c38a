"""Over every way in which a text gets into a room: what words are found in is masked, refused or reported."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.commerce.activity import ReleasedPost
from broker.core.moderation.screening import ScreenGroup, Screens
from broker.core.moderation.words import WordAction, WordFilter, WordList
from broker.core.rooms.effects import Flagged, Hold, Outcomes, Publish, RefusePost, Reply, ShowToSender, TickOut
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from protocol.activities.audiences import Audience
from protocol.activities.reviews import HeldBy
from protocol.codes import MESSAGE_TYPES, ErrorCode, Lane, MediaKind, MessageType, Outcome, Role
from protocol.messages import Post
from protocol.payloads import AnnouncementPayload, DanmakuPayload, EmotePayload, HighlightPayload, MediaPayload
from tests.support.rooms import CUSTOM, Person

WORDS = ["套现", "badword"]
NO_ROLE: frozenset[Role] = frozenset()
STAFF = frozenset({Role.MODERATOR, Role.ASSISTANT, Role.HOST})


def screens_of(action: WordAction, exempt: frozenset[Role] = NO_ROLE) -> Screens:
    screens = Screens()
    words = WordFilter.build([WordList("ads", action, WORDS, (), "advertising")])
    screens.use([ScreenGroup("", ("*",), words)], {}, exempt)
    return screens


def room_of(screens: Screens) -> RoomState[int]:
    policy = policy_from("roomcast", {"staff_posts_burst": 1000, "app_posts_burst": 1000})
    rules = RoomRules(policy=policy, custom=CUSTOM, screens=screens)
    return RoomState(rules, epoch=77, rng=random.Random(1), now=0.0, name="live-1")


def posts_of(text: str) -> dict[str, tuple[Role, Post]]:
    """Every post that brings a text, by name, with a role that may make it."""
    media = MediaPayload("https://cdn.example.com/a.png", MediaKind.IMAGE, 10, "0" * 64, text)
    made = {
        "danmaku": (Role.VIEWER, Post(MessageType.DANMAKU, "", DanmakuPayload(text))),
        "emote": (Role.VIEWER, Post(MessageType.EMOTE, "", EmotePayload(text))),
        "announcement": (Role.HOST, Post(MessageType.ANNOUNCEMENT, "k-1", AnnouncementPayload(text))),
        "media": (Role.HOST, Post(MessageType.MEDIA, "k-2", media)),
        "highlight": (Role.APP, Post(MessageType.HIGHLIGHT, "", HighlightPayload("o-1", "ann", "Ann", text, 1000))),
    }
    for kind, rule in CUSTOM.items():
        role = max(rule.roles - {Role.APP}, default=Role.VIEWER)
        made[rule.name] = role, Post(kind, f"k-{kind}", {"say": (text, 1), "to": "all"})
    return made


WAYS = sorted(posts_of(""))
OF_TEXTS = {kind for kind, rule in MESSAGE_TYPES.items() if rule.post_roles} - {
    MessageType.LIKE, MessageType.GIFT, MessageType.ROOM_PHASE, MessageType.MESSAGES_DELETED,
}  # fmt: skip
"""Built-in types that clients post and that bring a text of a user."""


def test_no_type_of_message_is_forgotten() -> None:
    kinds = {post.type for _, post in posts_of("").values()}
    assert kinds == OF_TEXTS | set(CUSTOM)


def published(effects: Any) -> list[Any]:
    found: list[Any] = []
    for effect in effects:
        if isinstance(effect, Publish):
            found.append(effect.event.payload)
        elif isinstance(effect, TickOut):
            found += [entry.payload for tick in effect.ticks for entry in tick.entries]
    return found


def texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ()
    return [text for each in inside for text in texts_in(each)]


def say(room: RoomState[int], way: str, text: str) -> tuple[list[Any], list[Any]]:
    """Post and let a tick pass; return the effects and what was published."""
    role, post = posts_of(text)[way]
    person = Person("ann", role)
    person.may_post = frozenset({*person.may_post, post.type})
    effects = [*room.post(1, person, post, 1.0, 1_000), *room.tick(1.0, 1_000)]
    return effects, published(effects)


def answers(effects: list[Any]) -> list[tuple[Outcome, int, str]]:
    replies = [(each.outcome, each.detail, "") for each in effects if isinstance(each, Reply)]
    replies += [
        (each.outcome, 0, "") for each in effects if isinstance(each, ShowToSender) and each.outcome is not None
    ]
    replies += [(Outcome.REJECTED, each.code, each.reason) for each in effects if isinstance(each, RefusePost)]
    return replies + [
        (outcome, 0, "") for each in effects if isinstance(each, Outcomes) for _, outcome in each.outcomes
    ]


marks = st.sampled_from(["", "\u200b", "\u2060", "\u0301", "*", "."])
hidden = st.tuples(st.sampled_from(["套现", "BadWord"]), marks).map(lambda pair: pair[1].join(pair[0]))


@given(st.sampled_from(WAYS), hidden, st.sampled_from(["", "来", "!"]))
def test_masked_words_are_published_nowhere(way: str, word: str, around: str) -> None:
    screens = screens_of(WordAction.MASK)
    effects, shown = say(room_of(screens), way, f"{around}{word}{around}")
    screen = screens.of("live-1")
    assert screen is not None
    assert shown
    assert [text for each in shown for text in texts_in(each) if screen.judge(text) is not None] == []
    ((outcome, _, _),) = answers(effects)
    assert outcome is Outcome.MASKED
    (flagged,) = [each for each in effects if isinstance(each, Flagged)]
    assert (flagged.user_id, flagged.verdict.reason) == ("ann", "advertising")
    assert screens.found == {"mask": 1}


@given(st.sampled_from(WAYS), hidden)
def test_blocked_words_are_refused_with_the_reason_and_published_nowhere(way: str, word: str) -> None:
    screens = screens_of(WordAction.BLOCK)
    room = room_of(screens)
    effects, shown = say(room, way, word)
    assert shown == []
    assert answers(effects) == [(Outcome.REJECTED, ErrorCode.BLOCKED, "advertising")]
    assert screens.found == {"block": 1}
    assert all(
        each.admitted == each.shown + each.merged + each.sampled + each.expired + each.held
        for each in room.counters.accounts()
    )
    assert sum(each.admitted for each in room.counters.accounts()[:4]) == 0


@pytest.mark.parametrize("way", WAYS)
def test_flagged_words_are_shown_and_reported(way: str) -> None:
    screens = screens_of(WordAction.FLAG)
    effects, shown = say(room_of(screens), way, "套现")
    assert "套现" in texts_in(tuple(shown))
    assert [each[0] for each in answers(effects)] == [Outcome.ACCEPTED]
    assert len([each for each in effects if isinstance(each, Flagged)]) == 1


@pytest.mark.parametrize("way", WAYS)
def test_words_that_the_sender_alone_sees_are_answered_as_if_they_were_shown(way: str) -> None:
    effects, shown = say(room_of(screens_of(WordAction.SHADOW)), way, "套现")
    assert shown == []
    if way == "highlight":  # it was paid for
        assert answers(effects) == [(Outcome.REJECTED, ErrorCode.BLOCKED, "advertising")]
    else:
        assert answers(effects) == [(Outcome.ACCEPTED, 0, "")]
    seen = [entry.payload for each in effects if isinstance(each, ShowToSender) for entry in each.tick.entries]
    assert bool(seen) == (way in ("danmaku", "emote", "poll_vote"))


@pytest.mark.parametrize("way", WAYS)
def test_words_for_a_moderator_go_into_the_review_queue(way: str) -> None:
    effects, shown = say(room_of(screens_of(WordAction.HOLD)), way, "来套现")
    assert shown == []
    held = [each for each in effects if isinstance(each, Hold)]
    if way == "highlight":  # it was paid for
        assert (held, answers(effects)) == ([], [(Outcome.REJECTED, ErrorCode.BLOCKED, "advertising")])
        return
    (hold,) = held
    _, post = posts_of("来套现")[way]
    assert (hold.ticket, hold.author.user_id, hold.post.type, hold.held_by) == (1, "ann", post.type, HeldBy.WORDS)
    assert texts_in(hold.post.payload) == texts_in(post.payload)
    assert hold.findings[0].word == "套现"
    assert answers(effects) == []


@pytest.mark.parametrize("action", list(WordAction))
def test_in_a_room_that_holds_everything_words_are_refused_or_shown_to_the_reviewer(action: WordAction) -> None:
    rules = RoomRules(policy=policy_from("roomcast", {"pre_review": True}), custom=CUSTOM, screens=screens_of(action))
    room: RoomState[int] = RoomState(rules, epoch=77, rng=random.Random(1), now=0.0, name="live-1")
    effects = list(room.post(1, Person("ann"), posts_of("来套现")["danmaku"][1], 1.0, 1_000))
    if action is WordAction.BLOCK:
        assert answers(effects) == [(Outcome.REJECTED, ErrorCode.BLOCKED, "advertising")]
    else:
        (hold,) = effects
        assert isinstance(hold, Hold)
        assert (hold.held_by, [each.word for each in hold.findings]) == (HeldBy.ROOM, ["套现"])


def test_of_equal_texts_one_is_held_for_all() -> None:
    room = room_of(screens_of(WordAction.HOLD))
    for ticket, user in enumerate(("ann", "bob")):
        room.post(ticket, Person(user), posts_of("套现")["danmaku"][1], 1.0, 1_000)
    effects = room.tick(1.0, 1_000)
    assert [each.author.user_id for each in effects if isinstance(each, Hold)] == ["ann"]
    assert answers(effects) == [(Outcome.HELD, 0, "")]


@pytest.mark.parametrize("action", [WordAction.FLAG, WordAction.BLOCK])
def test_near_duplicates_are_found_without_any_words(action: WordAction) -> None:
    screens = Screens()
    screens.use((), {}, NO_ROLE, action)
    room, spam = room_of(screens), "低价出各种会员账号找我私聊"
    outcomes = []
    for number in range(4):
        now = 1.0 + 10 * number
        effects = list(room.post(number, Person("eve"), posts_of(f"{spam}{number}")["danmaku"][1], now, 1_000))
        outcomes += [each[0] for each in answers([*effects, *room.tick(now, 1_000)])]
    last = Outcome.ACCEPTED if action is WordAction.FLAG else Outcome.REJECTED
    assert outcomes == [Outcome.ACCEPTED, Outcome.ACCEPTED, last, last]
    assert screens.found == {action.name.lower(): 2}


def test_what_a_reviewer_has_approved_is_not_held_again() -> None:
    room = room_of(screens_of(WordAction.HOLD))
    room.show(ReleasedPost("ann", "Ann", Role.VIEWER, MessageType.DANMAKU, Lane.CHAT, ("套现", None)), 1, 1.0)
    effects = room.tick(1.0, 1_000)
    assert texts_in(tuple(published(effects)))[:1] == ["套现"]
    assert not [each for each in effects if isinstance(each, Hold)]


@pytest.mark.parametrize("way", WAYS)
def test_innocent_texts_are_as_without_words(way: str) -> None:
    assert say(room_of(screens_of(WordAction.BLOCK)), way, "你好") == say(room_of(Screens()), way, "你好")


@pytest.mark.parametrize("way", WAYS)
def test_exempt_roles_are_not_screened_but_what_users_say_in_paid_messages_is(way: str) -> None:
    _, shown = say(room_of(screens_of(WordAction.BLOCK, STAFF)), way, "套现")
    role = posts_of("")[way][0]
    assert bool(shown) == (role in STAFF)


@pytest.mark.parametrize("way", ["announcement", "media", "danmaku", "highlight"])
def test_the_platform_is_screened_in_chat_and_for_its_users(way: str) -> None:
    room = room_of(screens_of(WordAction.BLOCK, STAFF))
    _, post = posts_of("套现")[way]
    effects = [*room.post(1, Person("app", Role.APP), post, 1.0, 1_000), *room.tick(1.0, 1_000)]
    assert bool(published(effects)) == (way in ("announcement", "media"))


def test_a_message_for_a_part_of_the_room_is_screened_too() -> None:
    room = room_of(screens_of(WordAction.BLOCK))
    _, post = posts_of("套现")["announcement"]
    effects = list(room.post_to(Audience(("gold",)), 1, Person("host", Role.HOST), post, 1.0, 1_000))
    assert [each[:2] for each in answers(effects)] == [(Outcome.REJECTED, ErrorCode.BLOCKED)]


def test_names_in_gifts_and_highlights_are_masked() -> None:
    room = room_of(screens_of(WordAction.BLOCK))
    gift = ("o-1", "ann", "套现王", "rose", 1, 100, "", False, 0, 0, 0, 0)
    highlight = HighlightPayload("o-2", "ann", "套现王", "hello", 1000)
    for kind, payload in ((MessageType.GIFT, gift), (MessageType.HIGHLIGHT, highlight)):
        effects = room.post(1, Person("app", Role.APP), Post(kind, "", payload), 1.0, 1_000)
        (event,) = [each.event for each in effects if isinstance(each, Publish)]
        assert (event.name, event.payload.name) == ("**王", "**王")


def test_a_repeated_key_has_its_first_answer_whatever_the_words_are_now() -> None:
    screens = screens_of(WordAction.MASK)
    room = room_of(screens)
    role, post = posts_of("套现")["announcement"]
    host = Person("host", role)
    (first, *_) = room.post(1, host, post, 1.0, 1_000)
    words = WordFilter.build([WordList("ads", WordAction.BLOCK, WORDS)])
    screens.use([ScreenGroup("", ("*",), words)], {}, NO_ROLE)
    (again,) = room.post(2, host, post, 2.0, 2_000)
    assert isinstance(first, Reply)
    assert isinstance(again, Reply)
    assert (again.outcome, again.detail) == (first.outcome, first.detail) == (Outcome.MASKED, 1)
    other = room.post(3, host, post._replace(client_msg_id="k-9"), 2.0, 2_000)
    assert answers(list(other)) == [(Outcome.REJECTED, ErrorCode.BLOCKED, "")]


invisible = st.sampled_from(
    "\u00ad\u034f\u115f\u17b4\u180e\u200b\u200c\u200d\u200e\u2060\u2063\u2800\u3164\ufe0f\ufeff\uffa0\U000e0001"
)


@given(st.text("主播真棒ok！ ", min_size=1, max_size=8), st.lists(st.tuples(st.integers(0, 8), invisible), max_size=6))
def test_invisible_characters_evade_neither_merging_nor_the_check_for_duplicates(
    text: str, inserted: list[tuple[int, str]]
) -> None:
    hidden = text
    for place, character in inserted:
        hidden = hidden[:place] + character + hidden[place:]
    room = room_of(Screens())
    for ticket, (user, said) in enumerate((("ann", text), ("bob", hidden))):
        assert room.post(ticket, Person(user), posts_of(said)["danmaku"][1], 1.0, 1_000) == ()
    (refused,) = room.post(2, Person("ann"), posts_of(hidden)["danmaku"][1], 1.0, 1_000)
    assert isinstance(refused, Reply)
    assert (refused.outcome, refused.detail) == (Outcome.REJECTED, ErrorCode.DUPLICATE_TEXT)
    (tick,) = [each for each in room.tick(1.0, 1_000) if isinstance(each, TickOut)]
    assert [entry.count for entry in tick.ticks[0].entries] == [2]
