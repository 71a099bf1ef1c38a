"""Sanctions of users: what is in force, who it binds, undoing, ends, and full tables."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.moderation.sanctions import (
    RoomSanctions,
    Sanction,
    SanctionAction,
    SanctionChange,
    SanctionRefused,
    SanctionTable,
)
from broker.core.tenants.names import qualify
from protocol.activities.moderation import SanctionKind
from protocol.codes import ErrorCode, Role
from tests.support.examples import examples

MUTE, BAN = SanctionKind
SETTERS = (Role.MODERATOR, Role.HOST, Role.APP)


def change(
    id: str, kind: SanctionKind = MUTE, room: str = "lobby", user: str = "ann", role: Role = Role.MODERATOR,
    seconds: int | None = 10, *, is_shadow: bool = False,
) -> SanctionChange:  # fmt: skip
    return SanctionChange(id, kind, room, user, f"by-{role.name}", role, seconds, "spam", is_shadow)


def done(table: SanctionTable, wanted: SanctionChange, now_ms: int = 0) -> SanctionAction:
    action = table.decide(wanted, now_ms)
    assert action is not None
    table.apply(action)
    return action


def test_a_sanction_binds_roles_below_its_moderator_until_its_end() -> None:
    table = SanctionTable()
    done(table, change("a"))
    assert table.find(MUTE, "lobby", "ann", Role.VIP, 9_999) is not None
    assert table.find(MUTE, "lobby", "ann", Role.MODERATOR, 9_999) is None
    assert table.find(MUTE, "lobby", "ann", Role.VIP, 10_000) is None
    assert table.find(BAN, "lobby", "ann", Role.VIP, 0) is None
    assert table.find(MUTE, "other", "ann", Role.VIP, 0) is None
    assert table.find(MUTE, "lobby", "bob", Role.VIP, 0) is None


def test_a_sanction_in_every_room_is_found_in_each_and_one_without_an_end_counts_first() -> None:
    table = SanctionTable()
    done(table, change("a", room=""))
    assert [each.room for each in table.of_user("ann", 0)] == [""]
    assert table.find(MUTE, "lobby", "ann", Role.VIEWER, 0) is not None
    done(table, change("b", seconds=None))
    found = table.find(MUTE, "lobby", "ann", Role.VIEWER, 0)
    assert found is not None
    assert (found.room, found.until_ms, found.left_ms(5)) == ("lobby", 0, 0)


def test_a_mute_that_the_user_learns_of_counts_before_a_shadow() -> None:
    table = SanctionTable()
    done(table, change("a", room="", seconds=None, is_shadow=True))
    done(table, change("b"))
    assert not table.find(MUTE, "lobby", "ann", Role.VIEWER, 0).is_shadow  # type: ignore[union-attr]
    assert table.find(MUTE, "lobby", "ann", Role.VIEWER, 10_000).is_shadow  # type: ignore[union-attr]


def test_a_lower_role_neither_replaces_nor_lifts_nor_undoes_what_a_higher_one_has_set() -> None:
    table = SanctionTable()
    done(table, change("a", role=Role.HOST))
    for seconds in (1, 0):
        with pytest.raises(SanctionRefused) as refused:
            table.decide(change("b", seconds=seconds), 0)
        assert refused.value.code is ErrorCode.NOT_ALLOWED
    with pytest.raises(SanctionRefused) as refused:
        table.decide_undo("a", "mod", Role.MODERATOR, 0)
    assert refused.value.code is ErrorCode.NOT_ALLOWED
    assert table.decide(change("c", seconds=1), 10_000) is not None  # it has ended


def test_lifting_nothing_is_no_action() -> None:
    assert SanctionTable().decide(change("a", seconds=0), 0) is None


def test_undoing_restores_what_was_in_force_and_only_the_last_action_is_undone() -> None:
    table = SanctionTable(undo_ms=1000)
    done(table, change("a", seconds=100))
    done(table, change("b", seconds=0))
    with pytest.raises(SanctionRefused) as refused:
        table.decide_undo("a", "mod", Role.MODERATOR, 10)
    assert refused.value.code is ErrorCode.STALE
    table.apply(table.decide_undo("b", "mod", Role.MODERATOR, 10))
    found = table.find(MUTE, "lobby", "ann", Role.VIEWER, 10)
    assert found is not None
    assert found.action == "a"
    with pytest.raises(SanctionRefused) as refused:
        table.decide_undo("b", "mod", Role.MODERATOR, 10)
    assert refused.value.code is ErrorCode.STALE
    with pytest.raises(SanctionRefused) as refused:
        table.decide_undo("a", "mod", Role.MODERATOR, 1001)
    assert refused.value.code is ErrorCode.UNKNOWN_ACTION
    table.apply(table.decide_undo("a", "mod", Role.MODERATOR, 1000))
    assert table.find(MUTE, "lobby", "ann", Role.VIEWER, 1000) is None


def test_a_full_table_refuses_until_something_has_ended() -> None:
    table = SanctionTable(max_sanctions=2)
    done(table, change("a", user="ann", seconds=1))
    done(table, change("b", user="bob", seconds=5))
    with pytest.raises(SanctionRefused) as refused:
        table.decide(change("c", user="eve"), 0)
    assert refused.value.code is ErrorCode.OVERLOADED
    done(table, change("d", user="bob", seconds=7))  # another one of the same user takes no more space
    done(table, change("c", user="eve"), 1_000)
    assert len(table) == 2


def test_a_room_has_a_share_of_the_table_and_every_room_of_a_tenant_one_of_its_own() -> None:
    table = SanctionTable(max_of_room=1)
    done(table, change("a"))
    with pytest.raises(SanctionRefused) as refused:
        table.decide(change("b", user="bob"), 0)
    assert (refused.value.code, refused.value.field) == (ErrorCode.OUT_OF_STATE, "room")
    done(table, change("c", user="bob", room="other"))
    done(table, change("d", user="bob", room=""))
    done(table, change("e", user=qualify("acme", "bob"), room=""))
    done(table, change("f", seconds=0))
    done(table, change("g", user="bob"))


def test_the_oldest_action_is_forgotten_and_its_sanction_stays() -> None:
    table = SanctionTable(max_actions=1)
    done(table, change("a", user="ann"))
    action = table.decide(change("b", user="bob"), 0)
    assert action is not None
    assert [each.id for each in table.apply(action)] == ["a"]
    assert table.action("a") is None
    assert table.find(MUTE, "lobby", "ann", Role.VIEWER, 0) is not None


def test_what_is_swept_has_ended_or_can_no_longer_be_undone() -> None:
    table = SanctionTable(undo_ms=500)
    done(table, change("a", user="ann", seconds=1))
    done(table, change("b", user="bob"), 600)
    ended, old = table.sweep(1_000)
    assert ([each.user for each in ended], [each.id for each in old]) == (["ann"], ["a"])
    assert [each.user for each in table.in_force()] == ["bob"]


def test_a_room_finds_users_of_its_tenant_without_their_tenant() -> None:
    table = SanctionTable()
    done(table, change("a", room=qualify("acme", "lobby"), user=qualify("acme", "ann")))
    room = RoomSanctions(table, qualify("acme", "lobby"), lambda: 4_000)
    found = room.mute_of("ann", Role.VIEWER)
    assert found is not None
    assert found[1] == 6_000
    assert RoomSanctions(table, "lobby", lambda: 0).mute_of("ann", Role.VIEWER) is None


@dataclass
class ModelAction:
    """What the model knows of an action."""

    id: str
    place: tuple[SanctionKind, str, str]
    role: Role
    before: Sanction | None
    after: Sanction | None
    at_ms: int
    is_undone: bool = False


class Sanctions(RuleBasedStateMachine):
    """Against a model that keeps every action, whatever the order, over restarts."""

    UNDO_MS = 30_000

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1
        self.table = self.empty()
        self.actions: list[ModelAction] = []
        self.number = 0

    def empty(self) -> SanctionTable:
        return SanctionTable(max_sanctions=6, max_of_room=3, max_actions=1_000, undo_ms=self.UNDO_MS)

    def current(self, place: tuple[SanctionKind, str, str]) -> Sanction | None:
        """What is in force by all actions that are not undone, ended or not."""
        found = None
        for action in self.actions:
            if action.place == place and not action.is_undone:
                found = action.after
        return found

    def held(self, place: tuple[SanctionKind, str, str]) -> Sanction | None:
        found = self.current(place)
        return found if found is not None and found.holds(self.now_ms) else None

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self.now_ms += seconds * 1000

    @rule(
        kind=st.sampled_from(SanctionKind), room=st.sampled_from(["a", "b", ""]), user=st.sampled_from(["x", "y", "z"]),
        role=st.sampled_from(SETTERS), seconds=st.sampled_from([0, 5, 60, None]),
    )  # fmt: skip
    def changes(self, kind: SanctionKind, room: str, user: str, role: Role, seconds: int | None) -> None:
        self.number += 1
        place = kind, room, user
        before = self.held(place)
        wanted = change(f"a{self.number}", kind, room, user, role, seconds)
        try:
            action = self.table.decide(wanted, self.now_ms)
        except SanctionRefused as refused:
            if refused.code is ErrorCode.NOT_ALLOWED:
                assert before is not None
                assert role < before.by_role
            else:
                places = {each.place for each in self.actions}
                everything = [each for each in places if self.held(each) is not None]
                assert before is None
                assert len(everything) >= 6 or sum(each[1] == room for each in everything) >= 3
            return
        assert before is None or role >= before.by_role
        if action is None:
            assert before is None
            assert seconds == 0
            return
        assert action.before == before
        self.table.apply(action)
        self.actions.append(ModelAction(action.id, place, role, before, action.after, self.now_ms))

    @rule(data=st.data(), role=st.sampled_from(SETTERS))
    def undoes(self, data: st.DataObject, role: Role) -> None:
        if not self.actions:
            return
        action = data.draw(st.sampled_from(self.actions))
        later = [each for each in self.actions if each.place == action.place and not each.is_undone]
        may = (
            not action.is_undone
            and later[-1] is action
            and role >= action.role
            and self.now_ms <= action.at_ms + self.UNDO_MS
        )
        try:
            undone = self.table.decide_undo(action.id, "by", role, self.now_ms)
        except SanctionRefused as refused:
            is_full = refused.code in (ErrorCode.OVERLOADED, ErrorCode.OUT_OF_STATE)
            if may and not is_full:
                raise
            return
        assert may
        self.table.apply(undone)
        action.is_undone = True
        if action.before is not None and self.held(action.place) != action.before:
            # Restored is what was in force then, as far as its time has not passed.
            assert not action.before.holds(self.now_ms)

    @rule()
    def restarts(self) -> None:
        sanctions, actions = list(self.table.in_force()), list(self.table.actions())
        self.table = self.empty()
        self.table.restore(reversed(sanctions), reversed(actions))

    @rule()
    def sweeps(self) -> None:
        ended, old = self.table.sweep(self.now_ms)
        assert not any(each.holds(self.now_ms) for each in ended)
        assert all(self.now_ms > each.at_ms + self.UNDO_MS for each in old)

    @invariant()
    def what_is_in_force_is_what_the_actions_say(self) -> None:
        wanted = {found for place in {each.place for each in self.actions} if (found := self.held(place)) is not None}
        assert {each for each in self.table.in_force() if each.holds(self.now_ms)} == wanted
        assert {each for user in "xyz" for each in self.table.of_user(user, self.now_ms)} == wanted
        for room in ("a", "b"):
            for user in ("x", "y", "z"):
                binding = [
                    each for each in wanted
                    if each.kind is MUTE and each.user == user and each.room in ("", room)
                ]  # fmt: skip
                found = self.table.find(MUTE, room, user, Role.VIEWER, self.now_ms)
                assert (found in binding) if binding else found is None


Sanctions.TestCase.settings = examples(100)
TestSanctions = Sanctions.TestCase
