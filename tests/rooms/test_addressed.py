"""Contents for parts of a room: each member gets what its tags select, in order, and a mix is joined once."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.rooms.audience import Selector
from broker.net.transport import Framing, Part
from broker.rooms import fanout
from broker.rooms.encoding import Bundle, Content, Prepared, prepare_addressed, variant_of
from broker.rooms.fanout import MAX_ADDRESSED, MAX_MIXES, Outbox
from broker.rooms.members import SLOW_PATH, Member, Members
from protocol.codes import Codec, Lane, Role, Tier
from protocol.messages import Event


class Socket:
    """A transport that takes everything, or only a part and then queues."""

    def __init__(self) -> None:
        self.got = b""
        self.takes: int | None = None
        self.queue: list[bytes] | None = None
        self.session: Any = None
        self.sock = self

    def send(self, data: bytes) -> int:
        assert self.queue is None, "written past a queue"
        taken = data if self.takes is None else data[: self.takes]
        self.got += taken
        return len(taken)

    def start_backlog(self, parts: tuple[Part, ...], sent: int) -> None:
        self.session.on_backlog()
        self.queue = [b"".join(part.data for part in parts)[sent:]]

    def enqueue(self, parts: tuple[Part, ...]) -> None:
        assert self.queue is not None
        self.queue += [part.data for part in parts]

    def write_parts(self, parts: tuple[Part, ...]) -> None:
        data = b"".join(part.data for part in parts)
        sent = self.send(data)
        if sent < len(data):
            self.start_backlog(parts, sent)

    def all(self) -> list[str]:
        return (self.got + b"".join(self.queue or ())).decode().split()


def joined(members: Members, tags: int, variant: int = 0) -> Socket:
    socket = Socket()
    session: Any = SimpleNamespace(transport=socket)
    member = Member(session, "u", "U", Role.VIEWER, frozenset(), variant, (str(tags),))
    session.on_backlog = partial(members.use_slow_path, member)
    socket.session = session
    members.add(member)
    return socket


def a_room() -> tuple[Members, Outbox]:
    members = Members(lambda member: int(member.tags[0]))
    return members, Outbox(members)


def content(text: str, lane: Lane) -> Prepared:
    data = f"{text} ".encode()
    frames: list[bytes | None] = [None] * (SLOW_PATH + 1)
    frames[0] = data
    return Prepared(lane, frames, {0: Bundle(data, (Part(data, lane, 0, 1),))})


def addressed(number: int, selector: Selector, lane: Lane) -> Prepared:
    others = content(f"others-{number}", lane)
    return content(f"shown-{number}", lane)._replace(selector=selector, others=others)


bits = st.integers(0, 7)
selectors = st.none() | st.builds(Selector, bits, bits, bits)


@settings(max_examples=80, deadline=None)
@given(
    tags=st.lists(bits, min_size=1, max_size=150),
    contents=st.lists(st.tuples(selectors, st.sampled_from([Lane.CONTROL, Lane.PAID])), max_size=14),
    stalled=st.sets(st.integers(0, 149)),
    steps=st.integers(1, 4),
)
def test_each_member_gets_exactly_what_its_tags_select_in_order(
    tags: list[int], contents: list[tuple[Selector | None, Lane]], stalled: set[int], steps: int
) -> None:
    members, outbox = a_room()
    sockets = [joined(members, each) for each in tags]
    outbox.put(content("first", Lane.CONTROL), None)
    expected: list[list[str]] = [["first"] for _ in tags]
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    for place, (selector, lane) in enumerate(contents):
        if selector is None:
            outbox.put(content(f"all-{place}", lane), None)
        else:
            outbox.put(addressed(place, selector, lane), None)
        for own, due in zip(tags, expected, strict=True):
            is_shown = selector is None or selector.selects(own)
            due.append(f"all-{place}" if selector is None else f"shown-{place}" if is_shown else f"others-{place}")
        if place % 3 == 2:
            outbox.write_slots(now[0] + steps, clock)
        if place == 5:
            for number in stalled:
                if number < len(sockets):
                    sockets[number].takes = 3
    late = joined(members, 7)
    while len(outbox):
        outbox.write_slots(now[0] + steps, clock)
    assert [socket.all() for socket in sockets] == expected
    assert late.all() == []


def test_a_mix_is_joined_once_and_there_are_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    members, outbox = a_room()
    sockets = [joined(members, number % 256) for number in range(600)]
    for socket in sockets[:]:
        assert socket.all() == []
    made: list[int] = []
    in_flight: list[int] = []
    join = fanout.joined_frames

    def counted(contents: list[Prepared]) -> list[bytes | None]:
        made.append(len(contents))
        in_flight.append(sum(each.lane is Lane.COMMERCE for each in contents))
        return join(contents)

    monkeypatch.setattr(fanout, "joined_frames", counted)
    outbox.put(content("warm", Lane.CONTROL), None)
    now = iter(range(10_000))
    while len(outbox):
        outbox.write_slots(1e9, lambda: float(next(now)))
    made.clear()
    for number in range(8):
        outbox.put(addressed(number, Selector(1 << number, 0, 0), Lane.COMMERCE), None)
    while len(outbox):
        outbox.write_slots(1e9, lambda: float(next(now)))
    passes = 2  # four contents in flight together, and four more
    assert len(made) <= passes * MAX_MIXES
    assert max(in_flight) == MAX_ADDRESSED
    for number, socket in enumerate(sockets):
        names = ("shown" if number % 256 >> bit & 1 else "others" for bit in range(8))
        assert socket.all()[1:] == [f"{name}-{bit}" for bit, name in enumerate(names)]


def test_a_content_for_a_part_of_the_room_is_encoded_once_for_it_and_once_for_the_others() -> None:
    event = Event(4, 1, "host", "Host", ("for fans",))
    variants = [variant_of(framing, Codec.PLAIN, Tier.FULL) for framing in (Framing.TCP, Framing.WEBSOCKET_JSON)]
    made = prepare_addressed(variants, Content(event, Lane.CONTROL, 5), Selector(1, 0, 0), 3)
    assert made.seen_by(1) is made
    others = made.seen_by(2)
    assert others is made.others
    for variant in variants:
        assert b"for fans" in (made.frames[variant] or b"")
        hidden = others.frames[variant]
        assert hidden is not None
        assert b"for fans" not in hidden
        assert b"host" not in hidden
