"""The tags of a room and of its users."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import booleans, lists, none, sampled_from

from broker.core.commerce import audiences
from broker.core.commerce.activity import ActivityRefusal, UserLeft
from broker.core.commerce.audiences import (
    COUNTED_AFTER_MS,
    INVITES_A_MINUTE,
    MAX_SHARE_KEYS,
    Audiences,
    DefineTags,
    Follow,
    Invited,
    Share,
    TagUsers,
)
from protocol.activities.audiences import MAX_TAGS, Audience, AudienceGrown, OwnReach, RoomTags, TagRule
from protocol.codes import ErrorCode
from protocol.operations.audiences import ReachKind, TaggedUsers
from tests.support.activities import ActivityDriver, platform, viewer

NAMES = [f"tag-{number}" for number in range(5)]
USERS = ["ann", "bob", "cy"]


def define(*names: str) -> DefineTags:
    return DefineTags(tuple(map(TagRule, names)))


class TagMachine(RuleBasedStateMachine):
    """Any order of definitions, changes, commits, refusals and restarts."""

    @initialize()
    def begin(self) -> None:
        self.driver = ActivityDriver(Audiences)
        self.driver.ask(define("tag-0", "tag-1"), platform)
        self.tags = ["tag-0", "tag-1"]
        self.users: dict[str, set[str]] = {}

    def model(self, command: Any) -> None:
        """Follow a command that was committed."""
        if isinstance(command, DefineTags):
            self.tags += [tag.name for tag in command.tags if tag.name not in self.tags]
        elif set(command.tags or ()) <= set(self.tags):
            for user in command.users:
                self.users.pop(user, None)
                if command.tags is not None:
                    self.users[user] = set(command.tags)

    def send(self, command: Any, commits: bool) -> None:
        self.driver.send(command, platform)
        if not self.driver.is_under_way or commits:
            self.driver.commit_all()
            self.model(command)
        else:
            self.driver.refuse()

    @rule(names=lists(sampled_from(NAMES), max_size=3, unique=True), commits=sampled_from([True, False]))
    def define(self, names: list[str], commits: bool) -> None:
        self.send(define(*names), commits)

    @rule(
        users=lists(sampled_from(USERS), max_size=3),
        tags=none() | lists(sampled_from(NAMES), max_size=3, unique=True),
        commits=sampled_from([True, False]),
    )
    def set_tags(self, users: list[str], tags: list[str] | None, commits: bool) -> None:
        self.send(TagUsers(tuple(users), None if tags is None else tuple(tags)), commits)

    @precondition(lambda self: not self.driver.is_under_way)
    @rule()
    def restart(self) -> None:
        self.driver.restart()

    @invariant()
    def users_have_what_was_committed(self) -> None:
        activity: Audiences[int] = self.driver.activity
        assert [tag.name for tag in activity.room_tags().tags] == self.tags
        assert activity.tagged == len(self.users)
        for user in USERS:
            own = ("tag-0", "tag-4", "not of this room")
            expected = self.users.get(user, set(own) & set(self.tags))
            assert activity.names_of(activity.tags_of(user, own)) == expected
        self.driver.check()


TestTags = TagMachine.TestCase
TestTags.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


class ReachMachine(RuleBasedStateMachine):
    """Follows, shares and invites in any order, with refusals, restarts and users who leave: counts and rules agree."""

    @initialize()
    def begin(self) -> None:
        self.driver = ActivityDriver(Audiences)
        rules = TagRule("fans", follow=True), TagRule("heralds", shares=2), TagRule("hosts", invites=1)
        self.driver.ask(DefineTags(rules), platform)
        self.follows: set[str] = set()
        self.shares: Counter[str] = Counter()
        self.share_keys: dict[str, list[str]] = {user: [] for user in USERS}
        self.inviters: dict[str, tuple[str, int]] = {}

    def send(self, command: Any, user: str, commits: bool) -> bool:
        """Return whether the command was committed, or changed nothing."""
        self.driver.send(command, viewer(user))
        if self.driver.is_under_way and not commits:
            self.driver.refuse()
            return False
        self.driver.commit_all()
        return True

    @rule(user=sampled_from(USERS), follows=booleans(), commits=booleans())
    def follow(self, user: str, follows: bool, commits: bool) -> None:
        if self.send(Follow(follows), user, commits):
            self.follows = self.follows | {user} if follows else self.follows - {user}

    @rule(user=sampled_from(USERS), request=sampled_from(["", "a", "b", "c", "d", "e"]), commits=booleans())
    def share(self, user: str, request: str, commits: bool) -> None:
        is_known = request in self.share_keys[user][-MAX_SHARE_KEYS:]
        if self.send(Share("wechat", None, request), user, commits) and not is_known:
            self.shares[user] += 1
            self.share_keys[user] += [request] if request else []

    @precondition(lambda self: any(self.share_keys.values()))
    @rule(user=sampled_from(USERS))
    def share_with_the_same_key_elsewhere(self, user: str) -> None:
        for request in self.share_keys[user][-1:]:
            self.driver.commit_all()
            assert refusal(self.driver.ask(Share("qq", None, request), viewer(user))) == (ErrorCode.KEY_REUSED, "key")

    @rule(user=sampled_from(USERS), inviter=sampled_from(USERS), commits=booleans())
    def invited(self, user: str, inviter: str, commits: bool) -> None:
        is_free = user not in self.inviters and user != inviter and self.inviters.get(inviter, ("",))[0] != user
        if self.send(Invited(inviter), user, commits) and is_free:
            self.inviters[user] = inviter, self.driver.now_ms + COUNTED_AFTER_MS

    @rule(user=sampled_from(USERS))
    def leave(self, user: str) -> None:
        is_pending = user in self.inviters and self.inviters[user][1] > self.driver.now_ms
        assert self.driver.activity.follows(user) == is_pending
        self.driver.ask(UserLeft(), viewer(user))
        if is_pending:
            del self.inviters[user]

    @rule(ms=sampled_from([1000, COUNTED_AFTER_MS - 1, COUNTED_AFTER_MS]))
    def watch(self, ms: int) -> None:
        self.driver.pass_time(ms)

    @precondition(lambda self: not self.driver.is_under_way)
    @rule()
    def restart(self) -> None:
        self.driver.restart()

    @invariant()
    def counts_are_those_of_the_actions(self) -> None:
        activity: Audiences[int] = self.driver.activity
        now_ms = self.driver.now_ms
        invites = Counter(inviter for inviter, due_ms in self.inviters.values() if due_ms <= now_ms)
        totals = AudienceGrown(len(self.follows), self.shares.total(), invites.total())
        assert activity.totals() == totals
        for user in USERS:
            assert activity.reach_of(user) == (user in self.follows, self.shares[user], invites[user])
            expected = {"fans"} if user in self.follows else set()
            expected |= {"heralds"} if self.shares[user] >= 2 else set()
            expected |= {"hosts"} if invites[user] >= 1 else set()
            assert activity.names_of(activity.tags_of(user, ())) == expected
        top = sorted((-score, user) for user, score in invites.items() if score)
        assert activity.top(ReachKind.INVITES, 10) == [(user, -score) for score, user in top]
        self.driver.check()


TestReach = ReachMachine.TestCase
TestReach.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


def test_an_inviter_brings_twenty_users_a_minute_and_none_who_watched_before() -> None:
    driver = ActivityDriver(Audiences)
    driver.ask(define("fans"), platform)
    for number in range(INVITES_A_MINUTE):
        assert driver.ask(Invited("ann"), viewer(f"u-{number}")) == OwnReach(False, 0, 0)
    limited = driver.ask(Invited("ann"), viewer("one-more"))
    assert (limited.code, limited.retry_after_ms) == (ErrorCode.RATE_LIMITED, 60_000)
    assert refusal(driver.ask(Invited("bob"), viewer("u-0"))) == (ErrorCode.ALREADY_HAVE, "inviter")
    assert refusal(driver.ask(Invited("bob"), viewer("bob"))) == (ErrorCode.NOT_ELIGIBLE, "inviter")
    assert refusal(driver.ask(Invited("u-0"), viewer("ann"))) == (ErrorCode.NOT_ELIGIBLE, "inviter")
    assert refusal(driver.ask(Invited("ann"), viewer("old", watch_s=31))) == (ErrorCode.NOT_ELIGIBLE, "watch_s")
    driver.pass_time(60_000)
    assert driver.ask(Invited("ann"), viewer("one-more")) == OwnReach(False, 0, 0)
    names = [report.name for report in driver.reports]
    assert names == ["audience.invite_counted"] * INVITES_A_MINUTE


def test_the_times_of_invites_are_kept_for_a_minute() -> None:
    """Who accepts an invite and leaves, again and again, names a new inviter each time."""
    driver = ActivityDriver(Audiences)
    driver.ask(define("fans"), platform)
    for number in range(300):
        assert driver.ask(Invited(f"inviter-{number}"), viewer("ann")) == OwnReach(False, 0, 0)
        driver.ask(UserLeft(), viewer("ann"))
        driver.pass_time(1000)
    _, _, _, (*_, asked, _), *_ = driver.activity.dump()
    assert len(asked) <= 62
    driver.check()


def refusal(found: Any) -> tuple[ErrorCode, str]:
    assert isinstance(found, ActivityRefusal)
    return found.code, found.field


def test_a_room_has_sixteen_tags_at_most_and_keeps_those_it_has() -> None:
    driver = ActivityDriver(Audiences)
    names = [f"tag-{number}" for number in range(MAX_TAGS)]
    assert driver.ask(define(*names[:10]), platform) == RoomTags(tuple(map(TagRule, names[:10])))
    assert driver.ask(define(*names[10:], "tag-3"), platform) == RoomTags(tuple(map(TagRule, names)))
    assert refusal(driver.ask(define("one-more"), platform)) == (ErrorCode.BAD_FIELD, "tags")
    assert refusal(driver.ask(define("twice", "twice"), platform)) == (ErrorCode.BAD_FIELD, "tags")
    assert driver.ask(TagUsers(("ann",), tuple(names)), platform) == TaggedUsers(1, 1)
    assert refusal(driver.ask(TagUsers(("ann",), ("tag-1", "x")), platform)) == (ErrorCode.BAD_FIELD, "tags[1]")
    assert driver.activity.unknown(Audience(("tag-1",), ("x",))) == "all[0]"
    assert driver.activity.bits_of(("x",)) & driver.activity.tags_of("ann", ()) == 0


def test_users_above_the_bound_are_refused_and_others_can_be_changed(monkeypatch: Any) -> None:
    monkeypatch.setattr(audiences, "MAX_TAGGED", 2)
    driver = ActivityDriver(Audiences)
    driver.ask(define("fans"), platform)
    assert driver.ask(TagUsers(("ann", "bob", "ann"), ("fans",)), platform) == TaggedUsers(2, 2)
    assert refusal(driver.ask(TagUsers(("cy",), ()), platform)) == (ErrorCode.OUT_OF_STATE, "room")
    assert driver.ask(TagUsers(("bob",), ()), platform) == TaggedUsers(1, 2)
    assert driver.ask(TagUsers(("bob",), ()), platform) == TaggedUsers(0, 2)
    assert driver.ask(TagUsers(("ann",), None), platform) == TaggedUsers(1, 1)
    assert driver.ask(TagUsers(("cy",), ("fans",)), platform) == TaggedUsers(1, 2)
