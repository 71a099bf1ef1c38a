"""Messages between nodes come back as they were packed."""

from __future__ import annotations

import pytest

from broker.auth.grants import Grant, RoomGrant
from broker.net.transport import Framing
from broker.rooms.encoding import Content, packed_once, prepare, variant_of, with_packed
from broker.rooms.node_messages import (
    Attach,
    CallReturned,
    EventsFound,
    LinkBytes,
    LinkOpened,
    RoomOutput,
    pack_batch,
    pack_grant,
    pack_output,
    read_batch,
    read_grant,
    read_output,
)
from protocol.codes import Codec, Lane, MessageType, Role, RoomPhase, Tier
from protocol.frames import pack_body
from protocol.messages import MAX_ENTRIES, Account, Event, State, Tick, TickEntry

TICK = Tick(5, 100, 0, (TickEntry(MessageType.DANMAKU, "ann", "Ann", ("你好",)),), Account(1, 1, 0, 0, 0))
EVENT = Event(MessageType.ANNOUNCEMENT, 7, "host", "Host", ("开播",))
STATE = State(9, RoomPhase.LIVE, 0, 100, 3, 2, 3, 3, 0)


def packed(content: Content) -> Content:
    """Return a content as another node has it: with the bytes that the owner's viewers get."""
    return content._replace(packed=pack_body(content.message))


def test_contents_are_packed_once_and_equal_tiers_stay_one() -> None:
    full, low = [Content(TICK, Lane.CHAT, 4, 1), Content(STATE, Lane.AMBIENT, 2)], [Content(EVENT, Lane.CONTROL, 3)]
    once = packed_once([full, full, low])
    assert once == [[*map(packed, full)], [*map(packed, full)], [*map(packed, low)]]
    assert once[0] is once[1]
    assert packed_once(once)[2][0] is once[2][0]


def test_a_tick_that_is_several_frames_is_packed_by_who_writes_it() -> None:
    long = TickEntry(MessageType.DANMAKU, "ann", "Ann", ("x" * 1000,))
    for entries in (TICK.entries * (MAX_ENTRIES + 1), (long,) * 100):
        content = Content(TICK._replace(entries=entries), Lane.CHAT, 4, len(entries))
        assert packed_once([[content]] * 3)[0] == [content]
        assert with_packed(content, pack_body(content.message)) is content
        frames = prepare([variant_of(Framing.TCP, Codec.PLAIN, Tier.FULL)], packed_once([[content]] * 3), 1)
        assert frames.nbytes > 0


def test_contents_keep_their_tiers_and_numbers() -> None:
    full = (packed(Content(TICK, Lane.CHAT, 4, 1)), packed(Content(STATE, Lane.AMBIENT, 2)))
    low = (packed(Content(STATE, Lane.AMBIENT, 2)),)
    found = read_output(pack_output(1_790_000_000_000, 8, 2**33, False, (full, full, low), [5, 5, 0]))
    assert found == RoomOutput(1_790_000_000_000, 8, 2**33, False, (full, full, low), (5, 5, 0))
    assert found.by_tier[0] is found.by_tier[1]


def test_an_event_keeps_its_payload() -> None:
    contents = (packed(Content(EVENT, Lane.CONTROL, 3)),)
    assert read_output(pack_output(1, 1, 3, True, [contents] * 3, [0] * 3)).by_tier == (contents,) * 3


@pytest.mark.parametrize("allow", [None, frozenset({"danmaku", "gift"}), frozenset[str]()])
def test_grants_are_equal(allow: frozenset[str] | None) -> None:
    grant = Grant("t\x1fann", "Ann", Role.HOST, (RoomGrant("live-*", Role.HOST, allow),), 99, "t", 60, 5, "j", ("vip",))
    assert read_grant(pack_grant(grant)) == grant


def test_batches_hold_every_kind_of_record() -> None:
    records = (
        LinkOpened(1, pack_grant(Grant("ann", "Ann", Role.VIEWER, ())), "::1", False),
        LinkBytes(1, b"\x00\xff"),
        Attach(1, "live", 0, 12),
        EventsFound("live", 5, 0, ((0, 1, b"x"),)),
        EventsFound("live", 5, 0, None),
        CallReturned(3, b"", refusal=(101, "must be text", "room", 0)),
    )
    assert read_batch(pack_batch("a", "life", 7, records)) == ("a", "life", 7, records)
