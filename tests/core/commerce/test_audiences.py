"""The tags of a room and of its users."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import lists, none, sampled_from

from broker.core.commerce import audiences
from broker.core.commerce.activity import ActivityRefusal
from broker.core.commerce.audiences import Audiences, DefineTags, TagUsers
from protocol.activities.audiences import MAX_TAGS, Audience, RoomTags, TagRule
from protocol.codes import ErrorCode
from protocol.operations.audiences import TaggedUsers
from tests.support.activities import ActivityDriver, platform

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
