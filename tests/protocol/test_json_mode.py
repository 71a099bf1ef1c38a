"""JSON mode says the same as binary, in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import CloseCode, Lane, MessageType, Opcode, Tier
from protocol.connection import Encoding, Frame, Refused, encode
from protocol.errors import RemoteProtocolError
from protocol.frames import MAX_BODY_BYTES, MAX_FRAME_BYTES, MAX_ITEMS, build_frame, pack_body
from protocol.json_mode import (
    MAX_SERVER_TEXT_BYTES,
    MAX_TEXT_DEPTH,
    dump,
    parse,
)
from protocol.message_rules import OPCODE_LANES, opcode_of
from protocol.messages import MAX_ENTRIES, Account, Join, Pong, Post, RoomPulse, Side, State, Tick, TickEntry
from protocol.payloads import DanmakuPayload
from protocol.state import LinkState
from tests.support.examples import examples
from tests.support.links import drain, end, is_close, other, roundtrip
from tests.support.strategies import MESSAGES, free_values, lanes_of, messages, nested, u32


def code_of(text: str) -> CloseCode:
    with pytest.raises(RemoteProtocolError) as caught:
        parse(text)
    return caught.value.code


def server_reads(*texts: str) -> list[Any]:
    server = end(Side.SERVER, encoding=Encoding.JSON)
    found: list[Any] = []
    for text in texts:
        server.receive_text(text)
        found += drain(server)
    return found


def test_a_frame_reads_as_documented() -> None:
    text = encode(Join("lobby"), 0, 1, Lane.CONTROL, Encoding.JSON).decode()
    assert text == '{"op":"JOIN","lane":0,"room":0,"seq":1,"body":{"room_name":"lobby","tier":20}}'


def test_bodies_have_names_and_payloads_keep_their_arrays() -> None:
    tick = Tick(5, 100, 0, (TickEntry(1, "u", "小明", DanmakuPayload("多少钱"), 2, ("v",)),), Account(2, 1, 1))
    body = json.loads(dump(Opcode.TICK, Lane.CHAT, 3, 7, tick))["body"]
    assert body["entries"] == [
        {
            "type": 1,
            "user_id": "u",
            "name": "小明",
            "payload": ["多少钱", None],
            "count": 2,
            "senders": ["v"],
            "role": 1,
        }
    ]
    assert body["account"]["merged"] == 1


@pytest.mark.parametrize("side", Side)
@examples(50)
@given(st.data())
def test_text_and_bytes_of_a_message_give_the_same_event(side: Side, data: st.DataObject) -> None:
    message = data.draw(messages(side, Opcode.HELLO, Opcode.AUTH))
    lane, room, sequence = data.draw(lanes_of(side, message)), data.draw(u32), data.draw(u32)
    found = [roundtrip(side, message, lane, room, sequence, encoding) for encoding in Encoding]
    assert found[0] == found[1]
    assert repr(found[0]) == repr(found[1]), "the same types, too"


JUNK_BODIES = st.lists(free_values, max_size=5).map(tuple)


@examples(50)
@given(st.sampled_from(sorted(MESSAGES)), JUNK_BODIES)
def test_text_and_bytes_of_any_body_are_judged_alike(key: tuple[Side, Opcode], body: tuple[Any, ...]) -> None:
    side, opcode = key
    peer = {Opcode.HELLO: LinkState.SILENT, Opcode.AUTH: LinkState.GREETED}.get(opcode, LinkState.OPEN)
    lane = min(_lanes(side, opcode))
    binary, text = end(other(side), peer=peer), end(other(side), peer=peer, encoding=Encoding.JSON)
    binary.receive_data(build_frame(opcode, lane, 3, 5, pack_body(body)))
    text.receive_text(json.dumps({"op": opcode.name, "lane": lane, "room": 3, "seq": 5, "body": body}))
    assert drain(binary) == drain(text)


def _lanes(side: Side, opcode: Opcode) -> set[Lane]:
    return {Lane.CONTROL} if side is Side.CLIENT else set(OPCODE_LANES[opcode])


def test_an_object_and_an_array_of_fields_are_the_same_body() -> None:
    assert (
        server_reads(
            '{"op":"JOIN","seq":1,"body":{"tier":10,"room_name":"a"}}', '{"op":"JOIN","seq":1,"body":["a",10]}'
        )
        == [Frame(Opcode.JOIN, Lane.CONTROL, 0, 1, Join("a", Tier.MEDIUM))] * 2
    )


def test_a_payload_may_be_an_object_too() -> None:
    (found,) = server_reads('{"op":"POST","room":3,"body":{"type":1,"client_msg_id":"m","payload":{"text":"hi"}}}')
    assert found.message == Post(1, "m", DanmakuPayload("hi"))


def test_a_text_holds_several_frames_and_a_fault_does_not_eat_those_before_it() -> None:
    found = server_reads('[{"op":"PING","body":[1]},{"op":"ACK","body":[-1]},{"op":"PING","body":[2]},7,{"op":"PING"}]')
    assert [type(each) for each in found[:3]] == [Frame, Refused, Frame]
    assert found[3][0] == CloseCode.BAD_FRAME
    assert len(found) == 4


def test_texts_that_came_before_a_broken_one_are_still_read() -> None:
    server = end(Side.SERVER, encoding=Encoding.JSON)
    server.receive_text('{"op":"PING","body":[1]}')
    server.receive_text("not json")
    server.receive_text('{"op":"PING","body":[2]}')
    found = drain(server)
    assert isinstance(found[0], Frame)
    assert is_close(found[1])


@pytest.mark.parametrize(
    "text", ["", "   ", "{", '{"op":}', "[,]", "nul", '{"op":"PING"}x', "\ufeff{}", "[Infinity]", "[NaN]"]
)
def test_what_is_not_json_is_a_bad_body(text: str) -> None:
    assert code_of(text) is CloseCode.BAD_BODY


def test_the_caps_of_a_text_are_exact() -> None:
    assert len(parse("[" + ",".join(["{}"] * MAX_ITEMS) + "]")) == MAX_ITEMS
    assert code_of("[" + ",".join(["{}"] * (MAX_ITEMS + 1)) + "]") is CloseCode.BAD_BODY
    keys = ",".join(f'"{n}":0' for n in range(MAX_ITEMS))
    assert len(parse("{" + keys + "}")[0]) == MAX_ITEMS
    assert code_of("{" + keys + ',"more":0}') is CloseCode.BAD_BODY
    assert parse("[" * (MAX_TEXT_DEPTH - 1) + "{}" + "]" * (MAX_TEXT_DEPTH - 1))
    assert code_of("[" * MAX_TEXT_DEPTH + "{}" + "]" * MAX_TEXT_DEPTH) is CloseCode.BAD_BODY
    assert code_of('{"a":' * 40 + "0" + "}" * 40) is CloseCode.BAD_BODY
    assert code_of("[" * 60000) is CloseCode.BAD_BODY


def test_a_text_is_measured_in_utf8_bytes() -> None:
    def padded(letter: str, nbytes: int) -> str:
        head, tail = '{"op":"POST","body":["', '"]}'
        room = nbytes - len(head) - len(tail)
        return head + letter * (room // len(letter.encode())) + "x" * (room % len(letter.encode())) + tail

    for letter in ("x", "好", "🌹"):
        assert len(padded(letter, MAX_FRAME_BYTES).encode()) == MAX_FRAME_BYTES
        assert len(parse(padded(letter, MAX_FRAME_BYTES))) == 1
        assert code_of(padded(letter, MAX_FRAME_BYTES + 1)) is CloseCode.FRAME_TOO_LARGE


def test_a_servers_text_may_be_larger_than_a_clients() -> None:
    text = '{"op":"EVENT","lane":1,"body":[128,0,"","","' + "x" * 100_000 + '"]}'
    client = end(Side.CLIENT, encoding=Encoding.JSON)
    client.receive_text(text)
    (found,) = drain(client)
    assert isinstance(found, Frame)
    (close,) = server_reads(text)
    assert close[0] == CloseCode.FRAME_TOO_LARGE


@pytest.mark.parametrize(
    ("message", "lane"),
    [
        (Pong(0, 0, (RoomPulse(0, 0, 0),) * 1024), Lane.CONTROL),
        (Tick(0, 0, 0, (TickEntry(1, "u", "", None),) * 1024), Lane.CHAT),
        (Tick(0, 0, 0, (TickEntry(1, "u", "", ("\x01" * 50,)),) * 1000), Lane.CHAT),
        (Tick(0, 0, 0, (TickEntry(1, "u", "", (None,) * 54),) * 1000), Lane.CHAT),
        (Tick(0, 0, 0, (TickEntry(1, "u", "", (-5.0e-324,) * 6),) * 1000), Lane.CHAT),
        (State(0, 1, 0, 0, 0, 0, 0, 0, 0, (), (), 0, (Account(),) * 5), Lane.AMBIENT),  # type: ignore[arg-type]
    ],
)
def test_whatever_fits_a_frame_fits_a_text(message: Any, lane: Lane) -> None:
    packed = len(pack_body(message))
    assert packed <= MAX_BODY_BYTES
    text = dump(opcode_of(message), lane, 2**32 - 1, 2**32 - 1, message)
    entries = len(message.entries) if isinstance(message, Tick) else 0
    most = 12 * packed + 100 * (entries + 1)
    assert len(text) < most, "field names cost at most eleven times, but those of defaults, which have no bytes"
    assert 12 * MAX_BODY_BYTES + 100 * (MAX_ENTRIES + 1) < MAX_SERVER_TEXT_BYTES, "so it is enough for any frame"
    assert len(text) <= MAX_SERVER_TEXT_BYTES


@examples(10)
@given(st.data())
def test_the_deepest_legal_payload_fits_a_text(data: st.DataObject) -> None:
    entry = TickEntry(130, "u", "", data.draw(nested(16)))
    tick = Tick(0, 0, 0, (entry,))
    (found,) = roundtrip(Side.SERVER, tick, Lane.CHAT, encoding=Encoding.JSON)
    assert isinstance(found, Frame)
    assert found.message == tick


@given(st.text(max_size=60))
def test_any_text_is_frames_or_a_named_error(text: str) -> None:
    found = server_reads(text)
    assert all(isinstance(each, (Frame, Refused)) or each[0] in set(CloseCode) for each in found)


_keys = st.sampled_from(["op", "lane", "room", "seq", "body", "type", "payload", "client_msg_id", "room_name", "x"])
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([o.name for o in Opcode]),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(_keys, children, max_size=5),
    max_leaves=12,
)


@examples(50)
@given(_json)
def test_any_json_is_frames_or_a_named_error(value: Any) -> None:
    for each in server_reads(json.dumps(value)):
        assert isinstance(each, (Frame, Refused)) or each[0] in set(CloseCode)


def test_our_own_mistakes_are_ordinary_exceptions() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(Post(128, "", float("nan")), 1, 1, Lane.CONTROL, Encoding.JSON)


def test_a_sequence_is_written_modulo_2_to_the_32() -> None:
    assert json.loads(dump(Opcode.PING, Lane.CONTROL, 0, 2**32 + 7, (1,)))["seq"] == 7


def test_message_types_are_numbers_in_text() -> None:
    assert json.loads(dump(Opcode.POST, Lane.CONTROL, 0, 0, Post(MessageType.LIKE, "", (1,))))["body"]["type"] == 3
