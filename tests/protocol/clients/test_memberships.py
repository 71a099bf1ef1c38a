"""A client's rooms against any broker: frames of any kind in any order raise nothing and leave no request open."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol.clients import Gap, Membership, PostResult, StreamEvent
from protocol.clients.inbox import Inbox
from protocol.clients.link import Ending
from protocol.clients.membership import MEMBERSHIPS, RoomMembership, RoomSignal
from protocol.clients.posts import Posts
from protocol.clients.room_table import RoomTable
from protocol.codes import Lane, LeaveReason, Opcode, Tier
from protocol.connection import Frame
from protocol.errors import LocalProtocolError
from protocol.message_rules import opcode_of
from protocol.messages import ErrorReply, Join, Leave, Left, Message, Resume, Resumed
from tests.support.examples import examples
from tests.support.peer import event, joined, tick

LIVE = (Membership.WANTED, Membership.REQUESTED, Membership.JOINED)


def test_every_membership_can_end_and_ended_is_final() -> None:
    for membership in Membership:
        assert MEMBERSHIPS[membership, RoomSignal.CLOSE] is Membership.ENDED
    assert {after for (before, _), after in MEMBERSHIPS.items() if before is Membership.ENDED} == {Membership.ENDED}


def test_a_lost_link_keeps_what_is_wanted_and_ends_what_is_not() -> None:
    for membership in Membership:
        if membership is Membership.ENDED:
            continue
        after = MEMBERSHIPS[membership, RoomSignal.LINK_LOST]
        assert after is (Membership.WANTED if membership in LIVE else Membership.ENDED)


def test_what_the_application_gives_up_never_becomes_joined() -> None:
    reached = {Membership.CANCELLED, Membership.LEAVING}
    for _ in Membership:
        reached |= {after for (before, _), after in MEMBERSHIPS.items() if before in reached}
    assert reached == {Membership.CANCELLED, Membership.LEAVING, Membership.ENDED}


def test_a_signal_without_a_transition_is_refused_and_changes_nothing() -> None:
    room = RoomMembership(Mute(), "a", Tier.FULL, None, Inbox())
    for membership in Membership:
        for signal in RoomSignal:
            if (membership, signal) not in MEMBERSHIPS:
                room.state = membership
                with pytest.raises(LocalProtocolError):
                    room.signal(signal)
                assert room.state is membership


class Mute:
    """Owner that does nothing."""

    async def post(self, *args: Any) -> PostResult:
        raise NotImplementedError

    def leave(self, room: RoomMembership) -> None: ...

    def forget(self, room: RoomMembership) -> None: ...

    def spawn(self, task: Any, *args: object) -> None: ...


class Wire:
    """Stand-in for a link that records the messages."""

    def __init__(self) -> None:
        self.sent: list[tuple[Message, int, int]] = []
        self.is_ended = False

    def send(self, message: Message, room: int = 0, sequence: int = 0) -> None:
        self.sent.append((message, room, sequence))

    def end(self, ending: Ending) -> None:
        assert ending.code is None
        self.is_ended = True


names = st.sampled_from(["a", "b", "c"])
numbers = st.integers(1, 4)
offsets = st.integers(0, 8)


class RoomsMachine(RuleBasedStateMachine):
    """Application, links and a broker that sends any frame at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(1)
        self.later: list[tuple[Callable[..., Awaitable[None]], tuple[Any, ...]]] = []
        self.rooms = RoomTable(Posts(), self.rng, lambda task, *args: self.later.append((task, args)))
        self.wire: Wire | None = None
        self.known: list[RoomMembership] = []
        self.taken: dict[RoomMembership, list[Any]] = {}

    def frame(self, message: Message, room: int = 0, sequence: int = 0, lane: Lane = Lane.CONTROL) -> None:
        self.rooms.on_frame(Frame(opcode_of(message), lane, room, sequence, message))

    # ---- the application and the network

    @rule(name=names)
    def join(self, name: str) -> None:
        if name not in self.rooms.by_name:
            room = RoomMembership(Mute(), name, Tier.FULL, None, Inbox())
            self.known.append(room)
            self.taken[room] = []
            self.rooms.add(room)

    @rule(name=names)
    def leave(self, name: str) -> None:
        if (room := self.rooms.by_name.get(name)) is not None:
            self.rooms.leave(room)

    @rule(name=names)
    def forget(self, name: str) -> None:
        if (room := self.rooms.by_name.get(name)) is not None:
            self.rooms.leave(room)
            self.rooms.forget(room)

    @precondition(lambda self: self.wire is None)
    @rule()
    def connect(self) -> None:
        self.wire = Wire()
        self.rooms.link_opened(self.wire)  # type: ignore[arg-type]

    @precondition(lambda self: self.wire is not None)
    @rule()
    def end_link(self) -> None:
        self.wire = None
        self.rooms.link_closed()

    @precondition(lambda self: self.later)
    @rule()
    def time_passes(self) -> None:
        task, args = self.later.pop(0)

        async def run() -> None:
            await task(*args)

        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))

    # ---- the broker, well behaved

    @precondition(lambda self: self.wire is not None and self.wire.sent and not self.wire.is_ended)
    @rule(number=numbers, offset=offsets, epoch=st.integers(1, 2), recovered=st.booleans())
    def answer(self, number: int, offset: int, epoch: int, recovered: bool) -> None:
        assert self.wire is not None
        message, room, sequence = self.wire.sent.pop(0)
        if isinstance(message, Join):
            self.frame(joined(message.room_name, epoch, offset), number, sequence)
        elif isinstance(message, Resume):
            self.frame(Resumed(recovered, 0, joined(message.room_name, epoch, offset)), number, sequence)
        elif isinstance(message, Leave):
            self.frame(Left(LeaveReason.REQUESTED), room, sequence)

    @precondition(lambda self: self.wire is not None and self.wire.sent and not self.wire.is_ended)
    @rule(code=st.sampled_from([104, 202, 302, 303, 999]))
    def refuse(self, code: int) -> None:
        assert self.wire is not None
        _, _, sequence = self.wire.sent.pop(0)
        self.rooms.on_error(sequence, ErrorReply(code, "no"))

    # ---- the broker, any frame

    @precondition(lambda self: self.wire is not None and not self.wire.is_ended)
    @rule(name=names, number=numbers, sequence=st.integers(0, 6), offset=offsets, is_resumed=st.booleans())
    def claim(self, name: str, number: int, sequence: int, offset: int, is_resumed: bool) -> None:
        snapshot = joined(name, 1, offset)
        self.frame(Resumed(True, 0, snapshot) if is_resumed else snapshot, number, sequence)

    @precondition(lambda self: self.wire is not None and not self.wire.is_ended)
    @rule(number=numbers, reason=st.sampled_from(LeaveReason))
    def throw_out(self, number: int, reason: LeaveReason) -> None:
        self.frame(Left(reason), number)

    @precondition(lambda self: self.wire is not None and not self.wire.is_ended)
    @rule(number=numbers, offset=offsets, lane=st.sampled_from([Lane.CONTROL, Lane.COMMERCE, Lane.PAID]))
    def publish(self, number: int, offset: int, lane: Lane) -> None:
        self.frame(event(), number, offset, lane)
        self.frame(tick("x"), number, offset, Lane.CHAT)

    @precondition(lambda self: self.wire is not None and not self.wire.is_ended)
    @rule(sequence=st.integers(0, 40), code=st.sampled_from([104, 302]))
    def complain(self, sequence: int, code: int) -> None:
        self.rooms.on_error(sequence, ErrorReply(code, "no"))

    # ---- what must hold

    @invariant()
    def names_and_numbers_belong_to_rooms_that_have_not_ended(self) -> None:
        for room in [*self.rooms, *self.rooms._by_number.values()]:
            assert room.state is not Membership.ENDED
            assert self.rooms.by_name[room.name] is room
        for room in self.known:
            if room.state is Membership.JOINED:
                assert self.rooms._by_number[room.number] is room

    @invariant()
    def without_a_link_no_request_is_open(self) -> None:
        if self.wire is None:
            assert not self.rooms._pending
            assert all(room.state is Membership.WANTED for room in self.rooms)

    @invariant()
    def every_open_request_has_a_room(self) -> None:
        waiting = {pending.room for pending in self.rooms._pending.values()}
        for pending in self.rooms._pending.values():
            assert pending.room.state is not Membership.ENDED or pending.opcode is not Opcode.LEAVE
        for room in self.rooms:
            if room.state in (Membership.REQUESTED, Membership.CANCELLED, Membership.LEAVING):
                assert room in waiting
            if room.state is Membership.WANTED and self.wire is not None:
                assert any(room in args for _, args in self.later), "it will be requested again"

    @invariant()
    def events_come_once_and_in_order_and_no_hole_is_silent(self) -> None:
        for room in self.known:
            taken = self.taken[room]
            while (found := room.inbox.take_nowait()) is not None:
                taken.append(found)
            expected: int | None = None
            for each in taken:
                if isinstance(each, StreamEvent):
                    assert expected is None or each.offset == expected, taken
                    expected = each.offset + 1
                elif isinstance(each, Gap):
                    assert each.epoch_changed or expected is None or each.first == expected
                    expected = each.last + 1


TestRooms = RoomsMachine.TestCase
TestRooms.settings = examples(30, steps=30)


def take_a_step(machine: RoomsMachine, rng: random.Random) -> None:
    """One rule of the machine, chosen and fed at random."""
    name, number, offset = rng.choice("abc"), rng.randint(1, 4), rng.randint(0, 8)
    is_good = rng.random() < 0.5
    if machine.wire is None:
        choices = [machine.connect]
    elif machine.wire.is_ended or rng.random() < 0.05:
        choices = [machine.end_link]
    else:
        choices = [
            lambda: machine.claim(name, number, rng.randint(0, 6), offset, is_good),
            lambda: machine.throw_out(number, rng.choice(list(LeaveReason))),
            lambda: machine.publish(number, offset, rng.choice([Lane.CONTROL, Lane.COMMERCE, Lane.PAID])),
            lambda: machine.complain(rng.randint(0, 40), rng.choice([104, 302])),
        ]
        if machine.wire.sent:
            choices += [
                lambda: machine.answer(number, offset, rng.randint(1, 2), is_good),
                lambda: machine.refuse(rng.choice([104, 202, 302, 303, 999])),
            ] * 3
    choices += [lambda: machine.join(name), lambda: machine.leave(name), lambda: machine.forget(name)]
    rng.choice(choices)()


def test_long_runs_find_what_short_ones_do_not() -> None:
    """The same machine, run at random from fixed seeds: cheap enough for rare sequences."""
    for seed in range(100):
        rng, machine = random.Random(seed), RoomsMachine()
        for _ in range(100):
            take_a_step(machine, rng)
            machine.names_and_numbers_belong_to_rooms_that_have_not_ended()
            machine.without_a_link_no_request_is_open()
            machine.every_open_request_has_a_room()
            machine.events_come_once_and_in_order_and_no_hole_is_silent()


def requested() -> tuple[RoomTable, Wire, RoomMembership, int]:
    """Return a room whose JOIN was sent, with its table and link, and the sequence of the JOIN."""
    rooms = RoomTable(Posts(), random.Random(1), lambda task, *args: None)
    wire = Wire()
    rooms.link_opened(wire)  # type: ignore[arg-type]
    room = RoomMembership(Mute(), "a", Tier.FULL, None, Inbox())
    rooms.add(room)
    _, _, sequence = wire.sent.pop()
    return rooms, wire, room, sequence


def test_opcodes_of_requests_are_kept_apart() -> None:
    """An ERROR that answers LEAVE ends that room, never a later JOIN."""
    rooms, wire, room, sequence = requested()
    rooms.on_frame(Frame(Opcode.JOIN, Lane.CONTROL, 3, sequence, joined("a")))
    rooms.leave(room)
    _, number, sequence = wire.sent.pop()
    assert number == 3
    assert rooms.on_error(sequence, ErrorReply(302, "odd"))
    assert room.state is Membership.ENDED
    assert room.end_error is None


async def test_a_room_that_is_lost_as_soon_as_it_was_joined_is_given_with_the_snapshot_of_its_join() -> None:
    rooms, _, room, sequence = requested()
    seen: list[Any] = []

    async def join() -> None:
        await room.wait_joined()
        seen.append(room.snapshot)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(join)
        await trio.testing.wait_all_tasks_blocked()
        rooms.on_frame(Frame(Opcode.JOIN, Lane.CONTROL, 3, sequence, joined("a")))
        rooms.link_closed()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [each.room_name for each in seen] == ["a"]
