"""Conversations: positions only rise, unread equals a recount, and devices on lossy links miss nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.tenants.names import qualify
from broker.core.users import conversations
from broker.core.users.conversations import Conversation, ConversationTable, ReadPosition, TooMany, pair_id
from tests.support.examples import examples

USERS = ("ann", "bob", "cem")
users = st.sampled_from(USERS)
ids = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8)


class Device:
    """A device of a user: what it shows, by offset. What it is sent may be lost; a gap is read from the history."""

    def __init__(self, joined: int) -> None:
        self.shown: dict[int, str] = {}
        self.newest = joined


class Talking(RuleBasedStateMachine):
    """Members with two devices each; a fifth of what they are sent is lost, and of what they report."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Conversation("tea", "Tea", 0, is_group=True)
        self.written: dict[int, tuple[str, str]] = {}
        self.shadowed: dict[int, str] = {}
        self.gone: set[int] = set()
        self.highest = dict.fromkeys(USERS, ReadPosition())
        for user in USERS:
            self.talk.apply_member(user, 0, ReadPosition())
        self.devices = {(user, number): Device(0) for user in USERS for number in range(2)}

    @rule(user=users, is_written=st.sampled_from([True] * 9 + [False]), lost=st.sets(st.integers(0, 5), max_size=2))
    def send(self, user: str, is_written: bool, lost: set[int]) -> None:
        if (offset := self.written_offset(user, is_written=is_written)) == 0:
            return
        self.talk.apply_message(offset, user, offset)
        for number, ((owner, _), device) in enumerate(self.devices.items()):
            if number not in lost:
                self.receive(device, offset, f"text {offset}", owner)

    def written_offset(self, user: str, *, is_written: bool) -> int:
        """Return the offset of a message that a user writes; 0 = it cannot be written."""
        offset = self.talk.allocate()
        assert offset not in self.written
        if not is_written:
            self.talk.give_back(offset)
            return 0
        self.written[offset] = user, f"text {offset}"
        return offset

    @rule(user=users, is_written=st.sampled_from([True] * 9 + [False]))
    def send_shadowed(self, user: str, is_written: bool) -> None:
        """A message that its author alone is shown, on every device of the author."""
        if (offset := self.written_offset(user, is_written=is_written)) == 0:
            return
        self.shadowed[offset] = user
        self.talk.apply_shadowed(offset, user)
        for (owner, _), device in self.devices.items():
            if owner == user:
                self.receive(device, offset, f"text {offset}", owner)

    def receive(self, device: Device, offset: int, text: str, owner: str) -> None:
        if offset != device.newest + 1:
            self.catch_up(device, owner)
        elif offset not in device.shown:
            device.shown[offset] = text
            device.newest = offset

    def visible(self, owner: str) -> dict[int, str]:
        """Return what the history has for a member."""
        return {offset: text for offset, (_, text) in self.written.items() if self.shadowed.get(offset, owner) == owner}

    def catch_up(self, device: Device, owner: str) -> None:
        for offset, text in self.visible(owner).items():
            if offset > device.newest:
                assert offset not in device.shown
                device.shown[offset] = text
                device.newest = offset

    @rule(user=users, number=st.integers(0, 1), seen=st.integers(0, 99), is_lost=st.sampled_from([False] * 4 + [True]))
    def report(self, user: str, number: int, seen: int, is_lost: bool) -> None:
        device = self.devices[user, number]
        read = min(seen, device.newest)
        if is_lost:
            return
        position = self.talk.judge_position(user, device.newest, read)
        if position is not None:
            self.talk.ask_position(user, position)
            self.talk.apply_position(user, position)

    @rule(user=users, delivered=st.integers(0, 200), read=st.integers(0, 200), is_written=st.booleans())
    def report_nonsense(self, user: str, delivered: int, read: int, is_written: bool) -> None:
        position = self.talk.judge_position(user, delivered, read)
        if position is not None:
            self.talk.ask_position(user, position)
            assert self.talk.judge_position(user, delivered, read) is None
            if is_written:
                self.talk.apply_position(user, position)
            else:
                self.talk.refuse_position(user)

    @rule(offset=st.integers(1, 60))
    def recall(self, offset: int) -> None:
        self.talk.apply_recall(offset)
        self.gone.add(offset) if offset in self.written else None

    @rule(user=users, number=st.integers(0, 1))
    def switch_device(self, user: str, number: int) -> None:
        self.devices[user, number] = Device(0)
        self.catch_up(self.devices[user, number], user)

    @invariant()
    def positions_only_rise(self) -> None:
        for user, before in self.highest.items():
            after = self.talk.members[user].position
            assert before.delivered <= after.delivered <= self.talk.last
            assert before.read <= after.read <= after.delivered
            self.highest[user] = after

    @invariant()
    def what_is_read_from_the_disk_is_the_same(self) -> None:
        folded = Conversation("tea", "Tea", 0, is_group=True)
        for offset, (user, _) in self.written.items():
            if offset not in self.shadowed:
                if not folded.last:
                    folded.begin_at(offset)
                folded.apply_message(offset, user, offset)
                if offset in self.gone:
                    folded.apply_recall(offset)
        for offset, user in self.shadowed.items():
            folded.apply_shadowed(offset, user)
        for user, member in self.talk.members.items():
            folded.apply_member(user, 0, member.position)
            assert folded.members[user].unread == member.unread
        assert (folded.last, folded.next) == (self.talk.last, self.talk.last + 1)
        for offset in self.written:
            assert folded.author(offset) == self.talk.author(offset)
            assert folded.shadowed_author(offset) == self.talk.shadowed_author(offset)

    @invariant()
    def unread_is_the_count_of_unread_messages(self) -> None:
        for user in USERS:
            member = self.talk.members[user]
            counted = sum(
                author != user and offset > member.position.read and offset not in {*self.gone, *self.shadowed}
                for offset, (author, _) in self.written.items()
            )
            assert member.unread == self.talk.recount(user) == counted

    def teardown(self) -> None:
        for (owner, _), device in self.devices.items():
            self.catch_up(device, owner)
            assert device.shown == self.visible(owner)
            assert list(device.shown) == sorted(device.shown)


TestTalking = Talking.TestCase
TestTalking.settings = examples(100, steps=40)


@given(st.lists(st.tuples(users, st.integers(0, 30)), max_size=60))
def test_the_oldest_messages_go_and_count_no_more(steps: list[tuple[str, int]]) -> None:
    talk = Conversation("tea", "", 0, is_group=True)
    for user in USERS:
        talk.apply_member(user, 0, ReadPosition())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversations, "MAX_KEPT_MESSAGES", 5)
        for number, (user, read) in enumerate(steps, 1):
            dropped = talk.apply_message(talk.allocate(), user, number)
            assert dropped == max(0, number - 5)
            talk.apply_position(user, ReadPosition(0, min(read, talk.last)))
            for name in USERS:
                after = max(talk.members[name].position.read, talk.last - 5)
                unread = sum(author != name for author, _ in steps[after:number])
                assert talk.members[name].unread == talk.recount(name) == unread


@given(ids, ids, ids, ids)
def test_a_pair_has_one_id_and_another_pair_another(a: str, b: str, c: str, d: str) -> None:
    assert pair_id("t", a, b) == pair_id("t", b, a)
    assert (pair_id("t", a, b) == pair_id("t", c, d)) == (sorted((a, b)) == sorted((c, d)))
    assert pair_id("t", a, b) != pair_id("u", a, b)


@given(
    st.lists(st.tuples(st.sampled_from(["join", "leave", "erase"]), st.sampled_from(["a", "b"]), users), max_size=30)
)
def test_the_table_knows_the_conversations_of_each_user(steps: list[tuple[str, str, str]]) -> None:
    table = ConversationTable()
    for tenant in ("", "acme"):
        for id in ("a", "b"):
            table.add(Conversation(qualify(tenant, id), "", 0, is_group=True))
    model: set[tuple[str, str]] = set()
    for kind, id, user in steps:
        found = table.find(id)
        assert found is not None
        if kind == "join":
            table.join(found, user, 0, ReadPosition())
            model.add((id, user))
        elif kind == "leave":
            table.leave(found, user)
            model.discard((id, user))
        else:
            table.erase("", user)
            model = {each for each in model if each[1] != user}
        assert {(each.id, name) for each in table for name in each.members} == model
        assert table.memberships == len(model)
        for name in USERS:
            assert {each.id for each in table.of_user(name)} == {id for id, user in model if user == name}
            assert table.of_user(qualify("acme", name)) == []
        assert table.is_known("ann", "bob") is any({(id, "ann"), (id, "bob")} <= model for id in ("a", "b"))


def test_bounds_are_named() -> None:
    table = ConversationTable(max_conversations=1, max_memberships=3, max_of_user=1)
    table.check_room("", USERS, is_new=True)
    one = Conversation("a", "", 0, is_group=True)
    table.add(one)
    table.join(one, "ann", 0, ReadPosition())
    for users_, is_new, rule_ in (
        (("bob",), True, "conversations"), (("x", "y", "z"), False, "members of all"), (("ann",), False, "of ann"),
    ):  # fmt: skip
        with pytest.raises(TooMany, match=rule_):
            table.check_room("", users_, is_new=is_new)


def test_others_open_no_further_conversation_with_a_user_who_has_answered_none() -> None:
    table = ConversationTable(max_unanswered=2)
    pairs = [Conversation(pair_id("", "ann", other), "", 0, is_group=False) for other in ("x", "y")]
    in_group = Conversation("tea", "", 0, is_group=True)
    for conversation in (in_group, *pairs):
        table.check_opening("ann")
        table.add(conversation)
        table.join(conversation, "ann", 0, ReadPosition())
    with pytest.raises(TooMany, match="of ann without an answer"):
        table.check_opening("ann")
    table.check_room("", ("ann",), is_new=True)  # it may open some itself
    table.check_opening("x")
    pairs[0].apply_message(1, "ann", 0)
    table.check_opening("ann")
