"""One end of a link: any split gives the same events, the quick path equals the slow one, memory has a bound."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from protocol.codes import CloseCode, ErrorCode, Lane, Opcode, Tier
from protocol.connection import MAX_RUN, NEED_DATA, Connection, Encoding, Frame, NeedData, Refused, encode
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import (
    HEADER_BYTES,
    MAX_CLIENT_BODY_BYTES,
    MAX_FRAME_BYTES,
    build_frame,
    pack_body,
)
from protocol.messages import (
    MAGIC,
    Auth,
    Authenticated,
    ClientHello,
    Event,
    GoAway,
    Join,
    Joined,
    Leave,
    Message,
    Ping,
    Post,
    ServerHello,
    Side,
    Tick,
    TickEntry,
)
from protocol.payloads import DanmakuPayload, LikePayload, PhasePayload
from protocol.state import LinkState
from protocol.vectors.malformed import MALFORMED, Malformed
from tests.support.examples import examples
from tests.support.links import drain, end, feed, is_close, other
from tests.support.strategies import MESSAGES, free_values, lanes_of, messages, posts, splits, texts, u32

HELLO = ClientHello(MAGIC, 1, 1, 3, "test/1")
BINARY_FAULTS = [each for each in MALFORMED if isinstance(each.data, bytes)]


def read(pieces: list[bytes], side: Side, peer: LinkState = LinkState.OPEN) -> list[Any]:
    return feed(end(side, peer=peer), pieces)


def read_quickly(pieces: list[bytes], side: Side = Side.SERVER, peer: LinkState = LinkState.OPEN) -> list[Any]:
    return feed(end(side, peer=peer), pieces, quickly=True)


# ---- splits


@st.composite
def streams(draw: st.DrawFn) -> tuple[Side, bytes]:
    """Frames of an open link, good and bad ones, perhaps cut off at the end."""
    sender = draw(st.sampled_from(Side))
    chunks = []
    faults = [
        each.data
        for each in BINARY_FAULTS
        if isinstance(each.data, bytes) and each.side is sender and each.state is LinkState.OPEN
    ]
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 3)):
            message = draw(messages(sender, Opcode.HELLO, Opcode.AUTH))
            chunks.append(encode(message, draw(u32), draw(u32), draw(lanes_of(sender, message))))
        else:
            chunks.append(draw(st.sampled_from(faults)))
    data = b"".join(chunks)
    return sender, data[: len(data) - draw(st.sampled_from([0, 0, 1, 5, 17]))]


@examples(50)
@given(streams(), st.data())
def test_any_split_gives_the_same_events_and_the_same_error(stream: tuple[Side, bytes], data: st.DataObject) -> None:
    sender, whole = stream
    expected = read([whole], other(sender))
    assert read(data.draw(splits(whole)), other(sender)) == expected
    assert read_quickly(data.draw(splits(whole)), other(sender)) == expected
    assert read_quickly([whole], other(sender)) == expected
    assert read([whole[n : n + 1] for n in range(len(whole))], other(sender)) == expected


@examples(50)
@given(streams(), st.data())
def test_it_does_not_matter_when_events_are_read(stream: tuple[Side, bytes], data: st.DataObject) -> None:
    sender, whole = stream
    expected = read([whole], other(sender))
    connection = end(other(sender))
    found: list[Any] = []
    for piece in data.draw(splits(whole)):
        connection.receive_data(piece)
        for _ in range(data.draw(st.integers(0, 2))):
            if len(found) < len(expected) and not is_close(expected[len(found)]):
                event = connection.next_event()
                found += [] if event is NEED_DATA else [event]
    assert found + drain(connection) == expected


def test_events_are_read_one_by_one_while_more_bytes_come() -> None:
    server = end(Side.SERVER)
    whole = b"".join(encode(Ping(n), 0, n, Lane.CONTROL) for n in range(5))
    server.receive_data(whole[:5])
    server.receive_data(whole[5:45])
    first = server.next_event()
    server.receive_data(whole[45:])
    assert [each.sequence for each in [first, *drain(server)] if isinstance(each, Frame)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("fault", BINARY_FAULTS, ids=lambda each: each.name)
def test_a_fault_is_the_same_byte_by_byte_and_good_frames_before_it_are_read(fault: Malformed) -> None:
    before = []
    if fault.state is LinkState.OPEN:
        message: Message = Ping(7) if fault.side is Side.CLIENT else Tick(1, 2, 0, ())
        lane = Lane.CONTROL if fault.side is Side.CLIENT else Lane.CHAT
        before.append(encode(message, 0, 9, lane))
    assert isinstance(fault.data, bytes)
    whole = b"".join([*before, fault.data])
    for pieces in ([whole], [whole[n : n + 1] for n in range(len(whole))]):
        found = read(pieces, other(fault.side), fault.state)
        assert [type(each) for each in found[: len(before)]] == [Frame] * len(before)
        last = found[len(before)]
        assert (last.code if isinstance(last, Refused) else last[0]) == fault.code
    assert len(found) == len(before) + 1


# ---- the quick path and the slow one


class SlowConnection(Connection):
    """The twin without the quick paths: the oracle."""

    __slots__ = ()

    def _quick_alike(self, buffer: bytes | bytearray, position: int, available: int) -> Frame | None:
        return None


def _without_quick_path(frame: bytes, state: LinkState = LinkState.OPEN) -> list[Any]:
    slow = SlowConnection(Side.SERVER)
    slow.peer_state = slow.local_state = state
    slow.receive_data(frame)
    return drain(slow)


_texts = st.one_of(
    texts(0, 101),
    st.text(max_size=101),
    st.sampled_from(["", "a" * 100, "a" * 101, "\x00", "\u200d", "\ud7ff", "\u2028", "👩‍👩‍👧", "\xad"]),
)
_near_danmaku = st.tuples(
    st.sampled_from([1, 1, 1, 1, True, 1.0, 2, 3, 99, 128, None]),
    st.one_of(st.text(max_size=65), st.sampled_from(["m" * 64, "m" * 65, b"m", None, "\x7f"])),
    st.one_of(
        st.tuples(_texts),
        st.tuples(_texts),
        st.tuples(_texts, st.none() | st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))),
        _texts,
        free_values,
        st.dictionaries(_texts, st.none(), max_size=2),
    ),
)
_bodies = st.one_of(
    _near_danmaku,
    st.tuples(_near_danmaku, free_values).map(lambda pair: (*pair[0], pair[1])),
    posts(),
).map(pack_body)


@examples(200)
@given(_bodies | st.binary(max_size=40), u32, u32)
@example(b"\x93\x01\xa0\x91\xa1a", 0, 0)
@example(b"\x93\x01\xa0\x91\xa1a\xc0", 0, 0)
@example(b"\xdd\x00\x00\x00\x03\xd3\x00\x00\x00\x00\x00\x00\x00\x01\xdb\x00\x00\x00\x00\x91\xa1a", 0, 0)
@example(pack_body((1, "", ("a" * 100, "x" * 1100))), 0, 0)
@example(b"\x93\x01\xa0\x81\xa1a\xc0", 0, 0)
@example(b"\x93\x01\xa0\xa1a", 0, 0)
@example(pack_body((1, "\x7f", ("a",))), 0, 0)
@example(pack_body((1, "\xad", ("\xad",))), 0, 0)
@example(pack_body((1, "m" * 64, ("x" * 100,))), 0, 0)
@example(pack_body((1, "m" * 65, ("x" * 100,))), 0, 0)
@example(pack_body((1, "m", ("x" * 101,))), 0, 0)
@example(pack_body((True, "m", ("x",))), 0, 0)
@example(pack_body((1, "m", ("x", None))), 0, 0)
@example(pack_body((1, "m", ("x", None, None))), 0, 0)
@example(pack_body((1, "m", ("x", False))), 0, 0)
@example(pack_body((1, "m", ())), 0, 0)
def test_the_quick_path_reads_what_the_slow_one_reads(body: bytes, room: int, sequence: int) -> None:
    frame = build_frame(Opcode.POST, Lane.CONTROL, room, sequence, body)
    slow = _without_quick_path(frame)
    for pieces in ([frame], [frame[:20], frame[20:]]):
        quick = read_quickly(pieces)
        assert quick == slow
        assert repr(quick) == repr(slow), "the same types, too"


@examples(50)
@given(st.lists(_bodies | _near_danmaku.map(pack_body), max_size=6), st.data())
def test_the_quick_path_stops_before_what_it_does_not_read(bodies: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(build_frame(Opcode.POST, Lane.CONTROL, 3, number, body) for number, body in enumerate(bodies))
    whole = whole[: len(whole) - data.draw(st.integers(0, 3))]
    assert read_quickly([whole]) == read_quickly(data.draw(splits(whole))) == _without_quick_path(whole)


@pytest.mark.parametrize("message_id", ["", "m", "m" * 31, "m" * 32, "号" * 64])
@pytest.mark.parametrize("text", ["hi", "a" * 31, "a" * 32, "来了" * 40, "\u3000a", "\u00ad!"])
@pytest.mark.parametrize("is_nil", [True, False])
@pytest.mark.parametrize("names_no_room", [True, False])
def test_the_quick_path_takes_every_form_of_a_plain_danmaku(
    message_id: str, text: str, is_nil: bool, names_no_room: bool
) -> None:
    body = (1, message_id, (text, None) if is_nil else (text,), *[None] * names_no_room)
    frame = build_frame(Opcode.POST, Lane.CONTROL, 3, 5, pack_body(body))
    if not text.isprintable():
        assert not _taken(frame)
        return
    assert _taken(frame) == [(3, 5, _without_quick_path(frame)[0].message)]
    assert not _taken(frame[:-1])
    assert len(_taken(frame * (MAX_RUN + 1))) == MAX_RUN


def _taken(data: bytes) -> Sequence[tuple[int, int, Post]]:
    server = end(Side.SERVER)
    server.receive_data(data)
    return server.take_danmaku()


@pytest.mark.parametrize("at", range(HEADER_BYTES))
def test_the_quick_path_respects_every_header(at: int) -> None:
    frame = bytearray(encode(Post(1, "m", ("hi",)), 3, 5, Lane.CONTROL))
    for value in range(256):
        frame[at] = value
        assert read_quickly([bytes(frame)]) == _without_quick_path(bytes(frame))


def test_the_quick_path_is_taken_by_a_plain_danmaku_only_on_an_open_server() -> None:
    frame = encode(Post(1, "m", DanmakuPayload("hi")), 3, 5, Lane.CONTROL)
    for state in (LinkState.SILENT, LinkState.GREETED, LinkState.CLOSED):
        (found,) = read_quickly([frame], Side.SERVER, state)
        assert found[0] == CloseCode.OUT_OF_STATE
    (found,) = read_quickly([frame], Side.CLIENT)
    assert found[0] == CloseCode.OUT_OF_STATE


_near_alike = st.one_of(
    st.tuples(st.sampled_from([MAGIC, MAGIC, "roomcas"]), st.integers(0, 3), st.integers(0, 3), u32, texts(0, 129)),
    st.tuples(texts(0, 65), st.sampled_from([20, 10, 5, 0, True])),
    st.tuples(st.just("room"), st.just(20), free_values),
).map(pack_body)


@given(
    _near_alike | st.binary(max_size=40), st.sampled_from([Opcode.HELLO, Opcode.JOIN]), u32, u32,
    st.sampled_from(LinkState),
)  # fmt: skip
@example(pack_body(("room", 20, {"": 1})), Opcode.JOIN, 0, 0, LinkState.OPEN)
@example(b"\x93\xa1r\x14\xd4\x01\x00", Opcode.JOIN, 0, 0, LinkState.OPEN)
@example(pack_body((MAGIC, 1, 1, 0, "a" * 128)), Opcode.HELLO, 0, 0, LinkState.SILENT)
def test_frames_that_are_alike_are_read_as_the_first_one_was(
    body: bytes, opcode: Opcode, room: int, sequence: int, state: LinkState
) -> None:
    frame = build_frame(opcode, Lane.CONTROL, room, sequence, body)
    slow = _without_quick_path(frame, state)
    for pieces in ([frame], [frame], [frame[:20], frame[20:]]):
        quick = read(pieces, Side.SERVER, state)
        assert quick == slow
        assert repr(quick) == repr(slow), "the same types, too"


@pytest.mark.parametrize("at", range(HEADER_BYTES))
def test_frames_that_are_alike_respect_every_header(at: int) -> None:
    frame = bytearray(encode(Join("room", Tier.FULL), 3, 5, Lane.CONTROL))
    for value in range(256):
        frame[at] = value
        assert read([bytes(frame)], Side.SERVER) == _without_quick_path(bytes(frame))


def test_a_frame_that_was_read_before_is_refused_where_it_may_not_come() -> None:
    join = encode(Join("room", Tier.FULL), 0, 1, Lane.CONTROL)
    assert isinstance(read([join], Side.SERVER)[0], Frame)
    (found,) = read([join], Side.SERVER, LinkState.GREETED)
    assert found[0] == CloseCode.OUT_OF_STATE
    (found,) = read([join], Side.CLIENT)
    assert not isinstance(found, Frame), "a client's JOIN is no server's"


# ---- what is refused and what breaks


def test_a_refused_frame_leaves_the_link_alive_and_reports_where_and_why() -> None:
    good = encode(Ping(1), 0, 6, Lane.CONTROL)
    bad = encode(Post(1, "m", ("x" * 101,)), 3, 5, Lane.CONTROL)
    refused, after = read([bad + good], Side.SERVER)
    assert refused == Refused(
        Opcode.POST, 3, 5, ErrorCode.BAD_FIELD, "payload.text", "must be a string of 1 to 100 characters"
    )
    assert after.message == Ping(1)


@pytest.mark.parametrize("opcode", [o for o in Opcode if (Side.CLIENT, o) in MESSAGES], ids=lambda each: each.name)
def test_an_oversize_frame_is_refused_on_its_header_and_skipped(opcode: Opcode) -> None:
    state = {Opcode.HELLO: LinkState.SILENT, Opcode.AUTH: LinkState.GREETED}.get(opcode, LinkState.OPEN)
    body = b"\xc1" * (MAX_CLIENT_BODY_BYTES + 1)
    frame = build_frame(opcode, Lane.CONTROL, 3, 5, body)
    server = end(Side.SERVER, peer=state)
    server.receive_data(frame[:HEADER_BYTES])
    (found,) = drain(server)
    if opcode in (Opcode.HELLO, Opcode.AUTH, Opcode.GOAWAY):
        assert found[0] == CloseCode.FRAME_TOO_LARGE
        return
    assert isinstance(found, Refused)
    assert found[:4] == (opcode, 3, 5, ErrorCode.PAYLOAD_TOO_LARGE)
    for start in range(0, len(body), 1000):
        assert server.mid_frame
        server.receive_data(body[start : start + 1000])
        assert drain(server) == []
        assert server.buffered_bytes == 0, "a refused body is not kept"
    assert not server.mid_frame
    server.receive_data(encode(Ping(1), 0, 0, Lane.CONTROL))
    assert [type(each) for each in drain(server)] == [Frame]


def test_the_largest_body_of_a_client_passes_and_a_server_may_send_a_whole_frame() -> None:
    filler = MAX_CLIENT_BODY_BYTES - len(pack_body((128, "", "x" * 4000, None))) + 4000
    frame = encode(Post(128, "", "x" * filler), 1, 1, Lane.CONTROL)
    assert len(frame) == HEADER_BYTES + MAX_CLIENT_BODY_BYTES
    assert isinstance(read([frame], Side.SERVER)[0], Frame)
    event = encode(Event(128, 0, "", "", "x" * (MAX_FRAME_BYTES - HEADER_BYTES - 9)), 1, 1, Lane.COMMERCE)
    assert len(event) == MAX_FRAME_BYTES
    assert isinstance(read([event], Side.CLIENT)[0], Frame)


def test_what_may_not_come_now_is_refused_before_its_body() -> None:
    header = build_frame(Opcode.POST, Lane.CONTROL, 1, 1, bytes(4000))[:HEADER_BYTES]
    (found,) = read([header], Side.SERVER, LinkState.GREETED)
    assert found == (CloseCode.OUT_OF_STATE, "POST may not be sent when greeted")


@pytest.mark.parametrize("encoding", Encoding)
def test_the_wrong_kind_of_message_ends_the_link(encoding: Encoding) -> None:
    server = end(Side.SERVER, encoding=encoding)
    if encoding is Encoding.JSON:
        server.receive_data(b"\x00")
    else:
        server.receive_text("{}")
    (found,) = drain(server)
    assert found[0] == CloseCode.BAD_TRANSPORT


def test_nothing_is_kept_after_a_fault() -> None:
    server = end(Side.SERVER)
    server.receive_data(b"GET / HTTP/1.1\r\n" + bytes(10_000))
    drain(server)
    for _ in range(10):
        server.receive_data(bytes(10_000))
    assert server.buffered_bytes == 0
    assert [each[0] for each in drain(server)] == [CloseCode.UNSUPPORTED_VERSION]


def test_a_broken_link_is_freed_without_the_garbage_collector() -> None:
    class Watched(Connection):
        __slots__ = ("__weakref__",)

    gc.collect()
    gc.disable()
    try:
        server = Watched(Side.SERVER)
        server.receive_data(b"\xff" * 16)
        for _ in range(3):
            with pytest.raises(RemoteProtocolError):
                server.next_event()
        alive = weakref.ref(server)
        del server
        assert alive() is None, "an exception that is kept holds its traceback, and that holds the link"
    finally:
        gc.enable()


# ---- memory


@examples(50)
@given(streams(), st.data())
def test_between_calls_at_most_one_incomplete_frame_is_held(stream: tuple[Side, bytes], data: st.DataObject) -> None:
    sender, whole = stream
    cap = HEADER_BYTES + MAX_CLIENT_BODY_BYTES if sender is Side.CLIENT else MAX_FRAME_BYTES
    connection = end(other(sender))
    for piece in data.draw(splits(whole)):
        connection.receive_data(piece)
        found = drain(connection)
        assert connection.buffered_bytes < cap
        held = connection.receive_buffer
        assert len(held) == connection.buffered_bytes, "what was read is let go"
        if found and is_close(found[-1]):
            assert not connection.mid_frame
            break


def test_a_large_read_does_not_live_on_for_its_last_bytes() -> None:
    frame = encode(Ping(1), 0, 0, Lane.CONTROL)
    for rest in (1, 15, 17):
        server = end(Side.SERVER)
        server.receive_data(frame * 3000 + frame[:rest])
        assert len(drain(server)) == 3000
        assert len(server.receive_buffer) == server.buffered_bytes == rest
        assert server.mid_frame


def test_a_whole_link_ends_between_frames() -> None:
    server = end(Side.SERVER)
    assert not server.mid_frame
    server.receive_data(encode(Ping(1), 0, 0, Lane.CONTROL))
    drain(server)
    assert not server.mid_frame
    assert server.buffered_bytes == 0


# ---- sending


def test_a_client_may_say_everything_in_one_write() -> None:
    client, server = Connection(Side.CLIENT), Connection(Side.SERVER)
    server.receive_data(client.send(HELLO) + client.send(Auth("token")) + client.send(Join("lobby"), sequence=1))
    assert [type(each.message) for each in drain(server) if isinstance(each, Frame)] == [ClientHello, Auth, Join]
    assert (client.local_state, server.peer_state) == (LinkState.OPEN, LinkState.OPEN)
    assert client.next_event() is NEED_DATA
    assert isinstance(NEED_DATA, NeedData)


@pytest.mark.parametrize(
    ("side", "message"),
    [(Side.CLIENT, Joined("a", 1, 0, 1, 1, 20, 1, 0, 0, 0, 0, 0)), (Side.SERVER, Join("a")), (Side.SERVER, Leave())],  # type: ignore[arg-type]
)
def test_a_side_cannot_send_the_others_body_of_an_opcode(side: Side, message: Message) -> None:
    for act in (end(side).send, end(side).check):
        with pytest.raises(LocalProtocolError, match="is not for the"):
            act(message)


def test_an_event_must_say_its_lane() -> None:
    server = end(Side.SERVER)
    event = Event(128, 0, "", "", None)
    with pytest.raises(LocalProtocolError, match="lane None"):
        server.send(event, 1, 1)
    assert server.send(event, 1, 1, Lane.PAID)[5] == Lane.PAID << 4
    assert server.send(Tick(0, 0, 0, ()), 1, 1)[5] == Lane.CHAT << 4


def test_a_frame_that_is_too_large_changes_nothing() -> None:
    client = end(Side.CLIENT, ours=LinkState.SILENT)
    with pytest.raises(LocalProtocolError, match="above 4096"):
        client.send(ClientHello(MAGIC, 1, 1, 0, "x" * 5000))
    server = end(Side.SERVER)
    with pytest.raises(LocalProtocolError, match="above 65536"):
        server.send(Tick(0, 0, 0, tuple(TickEntry(1, "u", "x" * 64, ("y" * 100,)) for _ in range(1000))), 1, 1)
    assert (client.local_state, server.local_state) == (LinkState.SILENT, LinkState.OPEN)


@examples(50)
@given(st.data())
def test_check_lets_pass_what_the_peer_takes(data: st.DataObject) -> None:
    side = data.draw(st.sampled_from(Side))
    message = data.draw(messages(side))
    end(side).check(message)


@given(_near_danmaku)
def test_check_refuses_what_the_peer_refuses(body: tuple[Any, Any, Any]) -> None:
    message = Post(*body)
    try:
        end(Side.CLIENT).check(message)
        checked = True
    except LocalProtocolError:
        checked = False
    try:
        frame = build_frame(Opcode.POST, Lane.CONTROL, 3, 5, pack_body(message))
    except UnicodeEncodeError:
        assert not checked
        return
    (found,) = read([frame], Side.SERVER)
    assert isinstance(found, Frame) is checked


def with_half_of_a_pair(draw: st.DataObject, value: Any) -> Any:
    """``value`` with half of a surrogate pair in one of its strings; the same value if it has none."""
    if isinstance(value, str):
        at = draw.draw(st.integers(0, len(value)))
        return value[:at] + draw.draw(st.sampled_from(["\ud83c", "\udf39"])) + value[at:]
    if isinstance(value, (tuple, dict)) and value:
        entries = dict(value) if isinstance(value, dict) else dict(enumerate(value))
        key = draw.draw(st.sampled_from(list(entries)))
        changed, inner = with_half_of_a_pair(draw, key), with_half_of_a_pair(draw, entries[key])
        if isinstance(value, dict):
            return {(changed if each is key else each): each_value for each, each_value in entries.items()}
        entries[key] = inner
        return value._make(entries.values()) if hasattr(value, "_make") else tuple(entries.values())
    return value


@given(messages(Side.CLIENT), st.data())
def test_half_of_a_surrogate_pair_is_refused_in_every_string(message: Message, data: st.DataObject) -> None:
    changed = with_half_of_a_pair(data, message)
    assume(changed != message)
    with pytest.raises(LocalProtocolError):
        end(Side.CLIENT).check(changed)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Join("a b"), "JOIN.room_name: must be 1 to 64 letters, digits or - _ . : @"),
        (Post(1, "m", ("",)), "POST.payload.text: must be a string of 1 to 100 characters"),
        (Post(99, "m", None), "POST.type: is not known"),
        (Post(3, "m", (1, "x" * 1100)), "POST.body: must be at most 1024 bytes for LIKE"),
        (Post(128, "m", "x" * 5000), "POST: must be at most 4096 bytes"),
        (Post(128, "m", "\ud800"), "POST.payload: must not have half of a surrogate pair"),
        (Auth(""), "AUTH.token: must be a string of 1 to 4000 characters"),
        (Auth("好" * 2000), "AUTH: must be at most 4096 bytes"),
    ],
)
def test_check_names_the_field_and_the_rule(message: Message, words: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        end(Side.CLIENT).check(message)
    assert str(caught.value) == words


def test_check_takes_what_a_caller_naturally_writes() -> None:
    client = end(Side.CLIENT)
    client.check(Post(1, "m", DanmakuPayload("hi", (0, 0, 0))))
    client.check(Post(3, "", LikePayload(5)))
    client.check(Post(6, "", PhasePayload(2)))  # type: ignore[arg-type]
    client.check(Post(1, "m", ["hi"]))
    client.check(Join("a", Tier.LOW))
    client.check(Post(130, "", {"tier": Tier.LOW, "list": [1, 2]}))


def test_a_goodbye_lets_answers_under_way_arrive() -> None:
    client, server = Connection(Side.CLIENT), Connection(Side.SERVER)
    server.receive_data(client.send(HELLO) + client.send(Auth(None)) + client.send(GoAway(4411)))
    assert len(drain(server)) == 3
    client.receive_data(server.send(ServerHello(1, 0, 0, 1, 1, 1)) + server.send(Authenticated("u", "")))
    assert [type(each) for each in drain(client)] == [Frame, Frame]


@given(st.binary(max_size=200), st.sampled_from(Side), st.sampled_from(LinkState))
def test_random_bytes_are_events_or_one_named_error(data: bytes, side: Side, peer: LinkState) -> None:
    for event in read([data], side, peer):
        assert isinstance(event, (Frame, Refused)) or event[0] in set(CloseCode)
        assert not (isinstance(event, Refused) and side is Side.CLIENT), "only a server refuses"


@examples(50)
@given(st.data())
def test_a_mutated_frame_is_an_event_or_one_named_error(data: st.DataObject) -> None:
    sender = data.draw(st.sampled_from(Side))
    message = data.draw(messages(sender, Opcode.HELLO, Opcode.AUTH))
    frame = bytearray(encode(message, 3, 5, data.draw(lanes_of(sender, message))))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    for event in read([bytes(frame)], other(sender)):
        assert isinstance(event, (Frame, Refused)) or event[0] in set(CloseCode)
