"""Keys of a room: what is decided, and that the fold of what is durable is the room's map, and its viewers'."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.rooms.keys import (
    LEAVE_GRACE_S,
    MAX_KEYS_BYTES,
    KeyDelete,
    KeyRecord,
    KeyRefused,
    KeySpace,
    RoomKeys,
    key_bytes,
)
from protocol.clients.keys import RoomMap
from protocol.codes import ErrorCode, KeyCause
from protocol.fields import FieldError
from protocol.messages import MAX_KEYS
from protocol.operations.keys import KeyItem
from protocol.payloads import KeyChange, key_value
from tests.support.examples import examples


def room_keys(*present: str, space: KeySpace | None = None) -> RoomKeys:
    return RoomKeys(lambda user: user in present, space)


def put(keys: RoomKeys, *items: KeyItem | KeyDelete, now_ms: int = 1000) -> tuple[KeyChange, ...]:
    """Decide and apply at once, as a room without a ledger does."""
    changes = keys.decide(items, now_ms)
    assert not isinstance(changes, KeyRefused), changes
    keys.apply(changes, 0.0)
    return changes


def refusal(keys: RoomKeys, *items: KeyItem | KeyDelete, now_ms: int = 1000) -> KeyRefused:
    found = keys.decide(items, now_ms)
    assert isinstance(found, KeyRefused), found
    return found


def test_a_key_is_set_compared_and_deleted() -> None:
    keys = room_keys()
    (first,) = put(keys, KeyItem("price", 100, version=0))
    assert refusal(keys, KeyItem("price", 1, version=0)).code is ErrorCode.STALE
    (second,) = put(keys, KeyItem("price", 90, version=first.version))
    assert second.version > first.version
    assert refusal(keys, KeyDelete("price", first.version)).code is ErrorCode.STALE
    put(keys, KeyDelete("price", second.version))
    assert keys.views() == []
    (third,) = put(keys, KeyItem("price", 80, version=0))
    assert third.version > second.version


def test_deleting_what_does_not_exist_changes_nothing() -> None:
    assert put(room_keys(), KeyDelete("price")) == ()


def test_all_items_are_set_or_none() -> None:
    keys = room_keys()
    put(keys, KeyItem("a", 1))
    found = refusal(keys, KeyItem("b", 1), KeyItem("a", 2, version=0))
    assert (found.code, found.item) == (ErrorCode.STALE, 1)
    assert [view.name for view in keys.views()] == ["a"]
    assert refusal(keys, KeyItem("b", 1), KeyItem("b", 2)).code is ErrorCode.BAD_FIELD
    changes = put(keys, KeyItem("b", 1), KeyItem("c", 2))
    assert len({change.version for change in changes}) == 1


def test_a_comparison_while_a_change_is_under_way_is_stale() -> None:
    keys = room_keys()
    changes = keys.decide((KeyItem("a", 1, version=0),), 1000)
    assert not isinstance(changes, KeyRefused)
    assert refusal(keys, KeyItem("a", 2, version=0)).code is ErrorCode.STALE
    assert refusal(keys, KeyItem("a", 2, version=changes[0].version)).code is ErrorCode.STALE
    keys.release(changes, 0.0)
    put(keys, KeyItem("a", 2, version=0))


def test_bounds_are_refused_with_field_and_rule() -> None:
    keys = room_keys()
    assert refusal(keys, KeyItem("a", "x" * 4097)).code is ErrorCode.PAYLOAD_TOO_LARGE
    assert refusal(keys, KeyItem("好" * 43, 1)).field == "name"
    assert refusal(keys, KeyItem("a", 1, delete_on_leave=True)).field == "owner"
    for number in range(MAX_KEYS):
        put(keys, KeyItem(f"k{number}", number))
    assert refusal(keys, KeyItem("more", 1)).code is ErrorCode.TOO_MANY_KEYS
    put(keys, KeyItem("k0", "again"))


def test_the_bytes_of_a_room_and_of_all_rooms_are_bounded() -> None:
    space = KeySpace(MAX_KEYS_BYTES + 10_000)
    keys, other = room_keys(space=space), room_keys(space=space)
    value = "x" * 4000
    number = 0
    while not isinstance(changes := keys.decide((KeyItem(f"k{number}", value),), 1), KeyRefused):
        keys.apply(changes, 0.0)
        number += 1
    assert changes.code is ErrorCode.TOO_MANY_KEYS
    assert MAX_KEYS_BYTES - 4200 < keys.nbytes <= MAX_KEYS_BYTES
    for each in range(2):
        put(other, KeyItem(f"k{each}", value))
    assert refusal(other, KeyItem("k2", value), KeyItem("k3", value)).code is ErrorCode.TOO_MANY_KEYS
    keys.clear()
    put(other, KeyItem("k2", value), KeyItem("k3", value))
    assert space.nbytes == other.nbytes


def test_a_key_expires_by_trusted_time_alone() -> None:
    keys = room_keys()
    put(keys, KeyItem("a", 1, ttl_ms=5000), now_ms=1000)
    assert keys.due(0.0, 1000) == ()
    assert keys.next_due == 5.0
    assert keys.due(5.0, None) == ()
    assert keys.due(7.0, 5999) == ()
    (change,) = keys.due(8.0, 6000)
    assert (change.name, change.cause) == ("a", KeyCause.EXPIRED)
    assert keys.due(9.0, 7000) == ()
    keys.release((change,), 9.0)
    (again,) = keys.due(11.0, 9000)
    keys.apply((again,), 11.0)
    assert keys.views() == []
    assert keys.next_due == inf


def test_an_owners_keys_go_a_grace_after_its_last_connection() -> None:
    present = {"ann"}
    keys = RoomKeys(present.__contains__)
    put(keys, KeyItem("seat", "ann", owner="ann", delete_on_leave=True), KeyItem("other", 1, owner="ann"))
    present.clear()
    keys.left("ann", 10.0)
    present.add("ann")
    assert keys.due(10.0 + LEAVE_GRACE_S, 1000) == ()
    present.clear()
    keys.left("ann", 100.0)
    assert keys.due(100.0 + LEAVE_GRACE_S - 1, 1000) == ()
    (change,) = keys.due(100.0 + LEAVE_GRACE_S, None)
    assert (change.name, change.cause) == ("seat", KeyCause.OWNER_LEFT)
    keys.apply((change,), 200.0)
    assert [view.name for view in keys.views()] == ["other"]


def test_a_key_of_an_absent_owner_waits_for_it_for_the_grace() -> None:
    keys = room_keys()
    put(keys, KeyItem("seat", 1, owner="ann", delete_on_leave=True))
    assert keys.next_due == LEAVE_GRACE_S
    assert [change.name for change in keys.due(LEAVE_GRACE_S, 1000)] == ["seat"]


def test_the_snapshot_says_how_much_it_leaves_out() -> None:
    keys = room_keys()
    for number in range(8):
        put(keys, KeyItem(f"k{number}", "x" * 4000))
    shown, more = keys.snapshot()
    assert [key.name for key in shown] == ["k0", "k1", "k2", "k3"]
    assert more == 4


def test_a_value_is_nested_as_deep_as_an_event_can_carry() -> None:
    value: Any = 1
    for _ in range(12):
        value = (value,)
    assert key_value(value) == value
    with pytest.raises(FieldError):
        key_value((value,))


names = st.sampled_from(["a", "b", "c", "d"])
users = st.sampled_from(["ann", "bob"])
values = st.sampled_from([1, "x" * 500, None, ("y",), {"z": True}])


class KeysMachine(RuleBasedStateMachine):
    """Any interleaving of commands, results of the ledger, time, presence and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.now_ms = 1_000_000
        self.present: set[str] = set()
        self.space = KeySpace()
        self.pending: list[tuple[KeyChange, ...]] = []
        """Changes that wait for the ledger, in order."""
        self.records: dict[str, KeyRecord] = {}
        """The ledger's fold."""
        self.last_version = 0
        self.versions: dict[str, set[int]] = {}
        """Versions of each name that were durable."""
        self.viewer = RoomMap()
        self.keys = RoomKeys(self.present.__contains__, self.space)

    def judge(self, items: tuple[KeyItem | KeyDelete, ...]) -> None:
        before = self.records.copy()
        under_way = {change.name for changes in self.pending for change in changes}
        found = self.keys.decide(items, self.now_ms)
        for item in items:
            key = before.get(item.name)
            current = 0 if key is None else key.version
            if item.version is not None and (item.version != current or item.name in under_way):
                assert isinstance(found, KeyRefused)
                assert found.code is ErrorCode.STALE
        if not isinstance(found, KeyRefused) and found:
            self.pending.append(found)

    @rule(
        name=names,
        value=values,
        ttl=st.none() | st.integers(1, 20_000),
        owner=st.none() | users,
        on_leave=st.booleans(),
    )
    def set_key(self, name: str, value: Any, ttl: int | None, owner: str | None, on_leave: bool) -> None:
        self.judge((KeyItem(name, value, None, ttl, owner, on_leave and owner is not None),))

    @rule(name=names, value=values, is_right=st.booleans())
    def compare_and_set(self, name: str, value: Any, is_right: bool) -> None:
        key = self.records.get(name)
        current = 0 if key is None else key.version
        self.judge((KeyItem(name, value, current if is_right else current + 1),))

    @rule(first=names, second=names, value=values)
    def set_two(self, first: str, second: str, value: Any) -> None:
        if first != second:
            self.judge((KeyItem(first, value), KeyItem(second, value, 0)))

    @rule(name=names)
    def delete(self, name: str) -> None:
        self.judge((KeyDelete(name),))

    @precondition(lambda self: self.pending)
    @rule()
    def commit(self) -> None:
        changes = self.pending.pop(0)
        for change in changes:
            known = self.versions.setdefault(change.name, set())
            assert all(change.version > version for version in known)
            known.add(change.version)
            self.last_version = max(self.last_version, change.version)
            if change.cause is KeyCause.SET:
                self.records[change.name] = KeyRecord(
                    change.name, change.value, change.version, change.expires_at_ms, change.owner,
                    change.delete_on_leave,
                )  # fmt: skip
            else:
                self.records.pop(change.name, None)
        self.keys.apply(changes, self.now)
        self.viewer.apply(changes)

    @precondition(lambda self: self.pending)
    @rule()
    def refuse(self) -> None:
        self.keys.release(self.pending.pop(0), self.now)

    @rule(seconds=st.floats(0.1, 30.0), is_trusted=st.booleans())
    def pass_time(self, seconds: float, is_trusted: bool) -> None:
        self.now += seconds
        self.now_ms += round(seconds * 1000)
        changes = self.keys.due(self.now, self.now_ms if is_trusted else None)
        for change in changes:
            key = self.records[change.name]
            if change.cause is KeyCause.EXPIRED:
                assert is_trusted
                assert key.expires_at_ms is not None
                assert key.expires_at_ms <= self.now_ms
            else:
                assert key.delete_on_leave
                assert key.owner not in self.present
        if changes:
            self.pending.append(changes)

    @rule(user=users)
    def enter(self, user: str) -> None:
        self.present.add(user)

    @rule(user=users)
    def leave(self, user: str) -> None:
        if user in self.present:
            self.present.remove(user)
            self.keys.left(user, self.now)

    @rule()
    def restart(self) -> None:
        self.pending.clear()
        self.present.clear()
        self.space = KeySpace()
        self.keys = RoomKeys(self.present.__contains__, self.space)
        self.keys.restore(self.records.values(), self.last_version, self.now)

    @rule()
    def join(self) -> None:
        self.viewer = RoomMap()
        self.viewer.restart(*self.keys.snapshot())

    @invariant()
    def the_room_is_the_fold_of_the_ledger(self) -> None:
        assert {record.name: record for record in self.keys.dump()} == self.records
        under_way = sum(
            key_bytes(change.name, change.value, change.owner)
            for changes in self.pending
            for change in changes
            if change.cause is KeyCause.SET
        )
        kept = sum(key_bytes(key.name, key.value, key.owner) for key in self.records.values())
        assert self.keys.nbytes == self.space.nbytes == kept + under_way

    @invariant()
    def a_viewer_has_the_rooms_map(self) -> None:
        assert dict(self.viewer) == {view.name: view for view in self.keys.views()}


TestKeys = KeysMachine.TestCase
TestKeys.settings = examples(60, steps=40)
