"""Bodies: what one side packs the other reads back the same, in both encodings, and readers outlive new fields."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import CloseCode, Lane, Opcode, Outcome, Tier
from protocol.connection import Encoding, Frame
from protocol.fields import FieldError
from protocol.frames import pack_body, unpack_body
from protocol.message_rules import MESSAGE_KINDS, OPCODE_LANES, opcode_of, reader_of
from protocol.messages import VERSION, Ack, ClientHello, Join, Pong, Post, Side, Tick, common_version
from protocol.payloads import check_payload
from protocol.state import TRANSITIONS
from protocol.ticks import account_of
from tests.support.examples import examples
from tests.support.links import roundtrip, state_before
from tests.support.strategies import MESSAGES, free_values, lanes_of, u32

FEW = examples(12)
"""Each of these runs once per message: 22 times as many examples in all."""
EVERY = pytest.mark.parametrize(("side", "opcode"), MESSAGES, ids=lambda each: each.name)


def test_every_message_has_a_strategy() -> None:
    assert set(MESSAGES) == set(MESSAGE_KINDS)


def test_a_body_exists_exactly_where_a_state_lets_it_pass() -> None:
    sent = {(side, opcode) for side, moves in TRANSITIONS.items() for _, opcode in moves}
    assert sent == set(MESSAGE_KINDS)
    assert set(OPCODE_LANES) == set(Opcode)


@EVERY
@FEW
@given(st.data())
def test_decode_undoes_encode_in_both_encodings(side: Side, opcode: Opcode, data: st.DataObject) -> None:
    message = data.draw(MESSAGES[side, opcode])
    lane, room, sequence = data.draw(lanes_of(side, message)), data.draw(u32), data.draw(u32)
    for encoding in Encoding:
        (found,) = roundtrip(side, message, lane, room, sequence, encoding, state_before(opcode))
        assert found == Frame(opcode, lane, room, sequence, message)
        assert isinstance(found, Frame)
        assert type(found.message) is type(message) is MESSAGE_KINDS[side, opcode]
        if isinstance(found.message, Post):
            assert isinstance(message, Post)
            assert type(found.message.payload) is type(message.payload)


@EVERY
@FEW
@given(st.data())
def test_a_reader_outlives_fields_that_come_later_and_does_without_optional_ones(
    side: Side, opcode: Opcode, data: st.DataObject
) -> None:
    message = data.draw(MESSAGES[side, opcode])
    # A tick is packed in a shorter form, see test_ticks.
    body = unpack_body(pack_body(tuple(message)))
    assert body == tuple(message), "a body is one array in the order of the fields"
    assert opcode_of(message) is opcode

    later = data.draw(_later)
    assert _read(side, opcode, unpack_body(pack_body((*message, *later)))) == message

    defaults: dict[str, Any] = type(message)._field_defaults
    if isinstance(message, Tick):
        defaults = {"account": account_of(message.entries)}
    required = len(message) - len(defaults)
    bare = tuple(_read(side, opcode, body[:required]))
    assert bare == (*body[:required], *defaults.values())

    if required:
        missing = message._fields[required - 1]
        named = {name: value for name, value in zip(message._fields, body, strict=True) if name != missing}
        for short in (body[: required - 1], named):
            with pytest.raises(FieldError) as caught:
                _read(side, opcode, short)
            assert (caught.value.field, caught.value.rule) == (missing, "is required")


_later = st.lists(free_values, min_size=1, max_size=2).map(tuple)


def _read(side: Side, opcode: Opcode, body: Any) -> Any:
    message = reader_of(side, opcode)(body)
    if isinstance(message, Post):
        message = message._replace(payload=check_payload(message.type, message.payload))
    return message


@given(st.integers(1, 255), st.integers(1, 255))
def test_the_common_version_is_the_highest_that_both_speak(low: int, high: int) -> None:
    found = common_version(ClientHello("roomcast", low, high))
    assert found == (VERSION if low <= VERSION <= high else None)


@pytest.mark.parametrize("name", ["lobby", "直播间-8", "a.b:c@d_e-f", "Ⅷ", "٣", "x" * 64])
def test_room_names_are_letters_and_digits_of_any_script(name: str) -> None:
    assert reader_of(Side.CLIENT, Opcode.JOIN)((name,)) == Join(name, Tier.FULL)


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a b", "a/b", "a\n", "\na", "e\u0301", "🌹", "a\u200db", "%61", 5, None, b"a"]
)
def test_other_room_names_are_refused(name: object) -> None:
    with pytest.raises(FieldError) as caught:
        reader_of(Side.CLIENT, Opcode.JOIN)((name,))
    assert (caught.value.field, caught.value.rule) == (
        "room_name",
        "must be 1 to 64 letters, digits or - _ . : @",
    )


def test_lists_are_as_long_as_they_may_be_and_no_longer() -> None:
    results = tuple((n, Outcome.ACCEPTED, 0) for n in range(1024))
    (found,) = roundtrip(Side.SERVER, Ack(results), Lane.CONTROL)  # type: ignore[arg-type]
    assert isinstance(found, Frame)
    assert isinstance(found.message, Ack)
    assert len(found.message.results) == 1024
    (close,) = roundtrip(Side.SERVER, Ack((*results, results[0])), Lane.CONTROL)  # type: ignore[arg-type]
    assert close[0] == CloseCode.BAD_BODY
    (found,) = roundtrip(Side.SERVER, Pong(1, 2, ((1, 2, 3),) * 1024), Lane.CONTROL)  # type: ignore[arg-type]
    assert isinstance(found, Frame)
