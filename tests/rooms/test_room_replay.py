"""Replay: whatever happened in a room, the fold of its entries up to any of them is the state it had then."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.core.commerce.kinds import activity_kinds
from broker.core.commerce.room_rankings import GIFTS
from broker.core.rooms.effects import Record
from broker.core.rooms.keys import KeyDelete
from broker.core.rooms.pins import PinChange
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from broker.ledger import StoredEntry
from broker.rooms.room_replay import ReplayedRoom
from protocol.codes import MessageType, Role, RoomPhase
from protocol.frames import pack_body
from protocol.messages import PinnedMessage, Post
from protocol.operations.keys import KeyItem
from protocol.payloads import DanmakuPayload, DeletedPayload, GiftPayload, HighlightPayload
from tests.support.examples import examples
from tests.support.rooms import CUSTOM, EVERYTHING, Person

HOST = Person("max", Role.HOST, EVERYTHING | {int(MessageType.PINS_CHANGED)})
APP = Person("shop", Role.APP)
T0 = 1_790_000_000_000
KINDS = activity_kinds(lambda: bytes(32))

small = st.integers(0, 3)
commands = st.one_of(
    st.tuples(st.just("announce"), small),
    st.tuples(st.just("gift"), small),
    st.tuples(st.just("highlight"), small),
    st.tuples(st.just("pin"), small),
    st.tuples(st.just("unpin"), small),
    st.tuples(st.just("delete"), st.integers(1, 12)),
    st.tuples(st.just("delete_user"), small),
    st.tuples(st.just("key"), small),
    st.tuples(st.just("no_key"), small),
    st.tuples(st.just("phase"), st.sampled_from([RoomPhase.PAUSED, RoomPhase.LIVE])),
)


class Played:
    """A durable room whose ledger commits at once, and the entries that it has written."""

    def __init__(self) -> None:
        rules = RoomRules(policy=policy_from("off"), custom=CUSTOM, durable=True)
        self.state: RoomState[int] = RoomState(rules, epoch=7, rng=random.Random(1), now=0.0, name="show")
        self.entries: list[StoredEntry] = []
        self.now = 0.0

    @property
    def at_ms(self) -> int:
        return T0 + round(self.now * 1000)

    def perform(self, effects: Any) -> None:
        waiting = list(effects)
        while waiting:
            effect = waiting.pop(0)
            if isinstance(effect, Record):
                event = effect.event
                body = pack_body(event if effect.audience is None else (*event, effect.audience))
                offset = len(self.entries) + 1
                self.entries.append(StoredEntry(offset, "show", 7, offset, effect.lane, event.type, event.at_ms, body))
                waiting += self.state.committed(effect, offset, self.now)

    def play(self, number: int, name: str, value: Any) -> None:
        self.now += 10.0
        state, user = self.state, f"user-{value}"
        match name:
            case "announce":
                self.post(HOST, MessageType.ANNOUNCEMENT, (f"news {number}",), number)
            case "gift":
                gift = GiftPayload(f"g{number}", user, user.title(), "rose", value + 1, 100)
                self.post(APP, MessageType.GIFT, gift, number)
                self.perform(state.tick(self.now + 9.0, self.at_ms))
            case "highlight":
                paid = HighlightPayload(f"h{number}", user, user.title(), "hello", 500)
                self.post(APP, MessageType.HIGHLIGHT, paid, number)
            case "pin":
                pin = PinnedMessage(
                    f"pin-{value}", MessageType.DANMAKU, DanmakuPayload("rules"), user, user, self.at_ms, 0, 0
                )
                self.post(HOST, MessageType.PINS_CHANGED, PinChange(pin), number)
            case "unpin":
                self.post(HOST, MessageType.PINS_CHANGED, PinChange(None, f"pin-{value}"), number)
            case "delete":
                self.post(HOST, MessageType.MESSAGES_DELETED, DeletedPayload((value,)), number)
            case "delete_user":
                self.post(HOST, MessageType.MESSAGES_DELETED, DeletedPayload((), user), number)
            case "key" | "no_key":
                item = KeyItem(f"key-{value}", {"n": number}) if name == "key" else KeyDelete(f"key-{value}")
                made = state.key_changes.command(number, "max", "Max", [item], None, self.now, self.at_ms, self.at_ms)
                self.perform(getattr(made, "effects", ()))
            case "phase":
                self.perform(state.set_phase(value, "max", self.now, self.at_ms))

    def post(self, author: Person, kind: int, payload: Any, number: int) -> None:
        post = Post(kind, f"m{number}", payload)
        self.perform(self.state.post(number, author, post, self.now, self.at_ms))


def seen(room: RoomState[int], at_ms: int) -> dict[str, Any]:
    _, _, announcement, pinned = room.kept.snapshot()
    return {
        "phase": room.phase, "offset": room.last_offset, "announcement": announcement, "pinned": pinned,
        "keys": room.keys.views(), "highlights": room.highlights.shown(at_ms), "gifts": room.rankings[GIFTS].dump(),
    }  # fmt: skip


def replayed(entries: list[StoredEntry], at_ms: int) -> dict[str, Any]:
    found = ReplayedRoom("show", 7, KINDS)
    for entry in entries:
        found.take(entry)
    assert found.unreadable == 0
    _, _, announcement, pinned = found.kept.snapshot()
    return {
        "phase": found.phase, "offset": found.history.last_offset, "announcement": announcement, "pinned": pinned,
        "keys": found.keys.views(), "highlights": found.highlights.shown(at_ms), "gifts": found.rankings[GIFTS].dump(),
    }  # fmt: skip


@examples(100)
@given(st.lists(commands, max_size=25))
def test_a_replay_up_to_any_entry_is_the_state_of_the_room_then(played: list[tuple[str, Any]]) -> None:
    room = Played()
    states = {0: (room.at_ms, seen(room.state, room.at_ms))}
    for number, (name, value) in enumerate(played):
        room.play(number, name, value)
        states[len(room.entries)] = room.at_ms, seen(room.state, room.at_ms)
    for count, (at_ms, state) in states.items():
        assert replayed(room.entries[:count], at_ms) == state


def test_the_commands_of_the_property_are_not_all_refused() -> None:
    room = Played()
    every = [
        ("announce", 1), ("gift", 2), ("pin", 1), ("key", 1), ("key", 2), ("no_key", 2),
        ("pin", 2), ("unpin", 1), ("delete", 1), ("highlight", 1), ("phase", RoomPhase.PAUSED),
    ]  # fmt: skip
    for number, (name, value) in enumerate(every):
        before = len(room.entries)
        room.play(number, name, value)
        assert len(room.entries) > before, name
    found = seen(room.state, room.at_ms)
    assert found["announcement"] is None
    assert [pin.id for pin in found["pinned"]] == ["pin-2"]
    assert [key.name for key in found["keys"]] == ["key-1"]
    assert found["gifts"]
    assert found["highlights"]
