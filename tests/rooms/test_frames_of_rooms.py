"""Whatever a room holds, every message made of it is one that a strict client takes, in both encodings."""

from __future__ import annotations

import random
from typing import Any

import hypothesis.strategies as st
from hypothesis import example, given

from broker.core.limits.rate_limit import Rate
from broker.core.rooms.effects import Publish, Record, Reply, TickOut
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from broker.core.rooms.types import CustomRule
from broker.net.transport import Framing
from broker.net.websocket import ws_frame
from broker.rooms.encoding import TIERS, Content, prepare, variant_of
from protocol.codes import Codec, Lane, MessageType, Outcome, Role, Tier
from protocol.connection import NEED_DATA, Connection, Encoding, Frame
from protocol.messages import MAX_ACK_RESULTS, Account, Ack, AckResult, Message, Post, Resumed, Side, Tick, TickEntry
from protocol.payloads import DanmakuPayload, GiftPayload, check_payload
from protocol.state import LinkState
from tests.support.examples import examples
from tests.support.rooms import Person

CUSTOM = {
    200: CustomRule(200, "sale", Lane.COMMERCE, 4096, Rate(1e6, 10**6), frozenset({Role.APP})),
    201: CustomRule(201, "sticker", Lane.CHAT, 4096, Rate(1e6, 10**6), frozenset({Role.APP})),
}
LARGE = {200: "\u0001" * 4000, 201: "\U0001f600" * 1000}
BINARY, JSON = (
    variant_of(Framing.TCP, Codec.PLAIN, Tier.FULL),
    variant_of(Framing.WEBSOCKET_JSON, Codec.PLAIN, Tier.FULL),
)


def strict_client(encoding: Encoding) -> Connection:
    client = Connection(Side.CLIENT, encoding)
    client.local_state = client.peer_state = LinkState.OPEN
    return client


def take(message: Message, room: int = 3, sequence: int = 1, lane: Lane | None = None) -> None:
    """Send a message as a server does and read it as a client does, in both encodings."""
    for encoding in Encoding:
        server = Connection(Side.SERVER, encoding)
        server.local_state = server.peer_state = LinkState.OPEN
        data = server.send(message, room, sequence, lane)
        client = strict_client(encoding)
        if encoding is Encoding.JSON:
            client.receive_text(data.decode())
        else:
            client.receive_data(data)
        event = client.next_event()
        assert type(event) is Frame, event
        assert client.next_event() is NEED_DATA


def take_content(content: Content) -> None:
    """Read what is written to every member."""
    by_tier = [[content]] * len(TIERS)
    prepared = prepare([BINARY, JSON], by_tier, 3)
    binary = strict_client(Encoding.BINARY)
    data = prepared.frames[BINARY]
    assert data is not None
    binary.receive_data(data)
    frames = 0
    while (event := binary.next_event()) is not NEED_DATA:
        assert type(event) is Frame, event
        frames += 1
    assert frames >= 1
    text = prepared.frames[JSON]
    assert text is not None
    assert text.startswith(ws_frame(b"{", text=True)[:1])


actions = st.lists(
    st.one_of(
        st.tuples(st.just("custom"), st.sampled_from([200, 201])),
        st.tuples(st.just("danmaku"), st.sampled_from(["\U0001f600" * 100, "\\" * 100, "a"])),
        st.tuples(st.just("gift"), st.sampled_from([1, 999_999, 1_000_000])),
        st.tuples(st.just("enter"), st.integers(0, 40)),
        st.tuples(st.just("like"), st.integers(1, 1000)),
        st.tuples(st.just("tick"), st.sampled_from([0.15, 5.0])),
    ),
    max_size=60,
)


@examples(60)
@given(actions, st.sampled_from([0, 20, 64]))
@example([*[("custom", 201)] * 12, ("tick", 0.15)] * 4, 20)
@example([*[("custom", 201)] * 12, ("tick", 0.15)] * 9, 64)
@example([*[("gift", 1_000_000)] * 13, ("tick", 5.0)], 20)
def test_any_room_content_gives_messages_that_a_strict_client_takes(
    steps: list[tuple[str, Any]], snapshot_danmaku: int
) -> None:
    policy = policy_from("roomcast", {"tick_ms": 100, "admit_per_window": 100_000})
    rules = RoomRules(policy=policy, custom=CUSTOM, snapshot_danmaku=snapshot_danmaku)
    room: RoomState[int] = RoomState(rules, epoch=1, rng=random.Random(1), now=0.0)
    app = Person("\U0001f600" * 64, Role.APP)
    now = 1.0
    for ticket, (what, value) in enumerate(steps):
        now += 0.001
        effects: Any = ()
        match what:
            case "custom":
                effects = room.post(ticket, app, Post(value, f"id{ticket}", f"{ticket:02}" + LARGE[value]), now, 5)
            case "danmaku":
                post = Post(MessageType.DANMAKU, "", DanmakuPayload(f"{ticket}{value}"[:100]))
                effects = room.post(ticket, Person(f"user {ticket}"), post, now, 5)
            case "gift":
                gift = GiftPayload(f"order {ticket}", "ann", "\U0001f600" * 64, "rose", value, 100)
                effects = room.post(ticket, app, Post(MessageType.GIFT, "", gift), now, 5)
            case "enter":
                room.enter(f"{value}" + "\U0001f600" * 60, "\U0001f600" * 64, Role.VIEWER, now)
            case "like":
                effects = room.post(ticket, Person(f"user {value}"), Post(MessageType.LIKE, "", (value,)), now, 5)
            case "tick":
                now += value
                effects = room.tick(now, 5)
        for effect in effects:
            match effect:
                case Publish(event, lane, offset):
                    if event.type != MessageType.GIFT or event.payload.count:
                        check_payload(event.type, event.payload)
                    take_content(Content(event, lane, offset))
                case TickOut(number, ticks, state, state_number, _):
                    for tick in ticks:
                        take_content(Content(tick, Lane.CHAT, number))
                    if state is not None:
                        take(state, sequence=state_number)
                case Reply(_, outcome, detail):
                    take(Ack((AckResult(ticket, outcome, detail),)))
                case Record():
                    raise AssertionError("there is no ledger here")
    snapshot = room.snapshot("\u623f" * 64, Role.VIEWER, Tier.FULL)
    take(snapshot)
    take(Resumed(False, 1, snapshot))


def test_a_full_ack_is_taken() -> None:
    take(Ack(tuple(AckResult(2**32 - 1, Outcome.REJECTED, 2**53 - 1) for _ in range(MAX_ACK_RESULTS))))


def test_a_tick_is_compressed_thoroughly_where_many_receive_it_and_once_for_both_framings() -> None:
    entries = tuple(TickEntry(1, "10283746", "Ming", (text,)) for text in ("请问什么时候发货呀", "昨天买的颜色很好看"))
    by_tier = [[Content(Tick(1_796_000_000_000, 100, 0, entries, Account(2, 2, 0)), Lane.CHAT, 1, 2)]] * len(TIERS)
    tcp, websocket = (variant_of(each, Codec.LZ4_DICT_1, Tier.FULL) for each in (Framing.TCP, Framing.WEBSOCKET))
    many, few = (prepare((tcp, websocket), by_tier, 3, receivers=each) for each in (64, 63))
    thorough, fast = many.frames[tcp], few.frames[tcp]
    assert thorough is not None
    assert fast is not None
    assert len(thorough) < len(fast)
    assert many.frames[websocket] == ws_frame(thorough)
    for data in (thorough, fast):
        client = strict_client(Encoding.BINARY)
        client.receive_data(data)
        event = client.next_event()
        assert isinstance(event, Frame)
        assert event.message == by_tier[0][0].message
