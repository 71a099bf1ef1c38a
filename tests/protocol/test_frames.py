"""Headers and bodies as bytes."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import CloseCode, Codec, Lane, Opcode
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_FRAME_BYTES,
    MAX_ITEMS,
    Header,
    build_frame,
    pack_body,
    parse_header,
    unpack_body,
)
from tests.support.examples import examples
from tests.support.strategies import free_values, u32

lanes, codecs, opcodes = st.sampled_from(Lane), st.sampled_from(Codec), st.sampled_from(Opcode)


def code_of(data: bytes) -> CloseCode:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_header(data)
    return caught.value.code


@given(opcodes, lanes, u32, u32, st.binary(max_size=40), codecs, st.binary(max_size=3))
def test_parse_header_undoes_build_frame_at_any_offset(
    opcode: Opcode, lane: Lane, room: int, sequence: int, body: bytes, codec: Codec, before: bytes
) -> None:
    frame = build_frame(opcode, lane, room, sequence, body, codec)
    header = parse_header(before + frame, len(before))
    assert header == Header(16 + len(body), codec, lane, opcode, room, sequence)
    assert type(header) is Header
    assert frame[HEADER_BYTES:] == body
    assert frame[0] == 0, "the first byte distinguishes a native link from HTTP, TLS and PROXY"


@given(st.binary(min_size=16, max_size=16))
def test_any_16_bytes_are_a_good_header_or_a_named_error(data: bytes) -> None:
    try:
        header = parse_header(data)
    except RemoteProtocolError:
        return
    length, version, flags, opcode, room, sequence = struct.unpack("!IBBHII", data)
    assert version == 1
    assert header == (length, flags & 15, flags >> 4, opcode, room, sequence)
    assert 16 <= length <= MAX_FRAME_BYTES


@pytest.mark.parametrize("flags", range(256))
def test_every_flags_byte_is_read_or_refused(flags: int) -> None:
    data = struct.pack("!IBBHII", 16, 1, flags, 1, 0, 0)
    codec, lane, reserved = flags & 15, flags >> 4 & 7, flags >> 7
    if reserved or lane > 4 or codec > 4:
        assert code_of(data) is CloseCode.BAD_FRAME
    else:
        assert parse_header(data)[1:3] == (codec, lane)


@pytest.mark.parametrize(
    ("length", "code"),
    [
        (0, CloseCode.BAD_FRAME),
        (15, CloseCode.BAD_FRAME),
        (65537, CloseCode.FRAME_TOO_LARGE),
        (2**32 - 1, CloseCode.FRAME_TOO_LARGE),
    ],
)
def test_the_length_is_judged_before_any_body(length: int, code: CloseCode) -> None:
    assert code_of(struct.pack("!IBBHII", length, 1, 0, 1, 0, 0)) is code


def test_every_other_version_is_unsupported_whatever_else_is_wrong() -> None:
    for version in (0, 2, 255):
        assert code_of(struct.pack("!IBBHII", 2**32 - 1, version, 255, 0, 0, 0)) is CloseCode.UNSUPPORTED_VERSION


def test_the_largest_frame_is_built_and_one_byte_more_is_our_fault() -> None:
    frame = build_frame(Opcode.TICK, Lane.CHAT, 1, 1, bytes(MAX_BODY_BYTES))
    assert parse_header(frame).length == MAX_FRAME_BYTES == 65536
    with pytest.raises(LocalProtocolError):
        build_frame(Opcode.TICK, Lane.CHAT, 1, 1, bytes(MAX_BODY_BYTES + 1))


def test_a_sequence_is_written_modulo_2_to_the_32() -> None:
    assert parse_header(build_frame(Opcode.EVENT, Lane.PAID, 1, 2**32 + 5, b"")).sequence == 5


@examples(40)
@given(st.lists(free_values, max_size=4).map(tuple))
def test_unpack_undoes_pack(body: tuple[Any, ...]) -> None:
    assert unpack_body(pack_body(body)) == body
    assert unpack_body(bytearray(pack_body(body))) == body


@given(st.binary(max_size=60))
def test_any_bytes_are_a_tuple_or_a_bad_body(data: bytes) -> None:
    code: CloseCode | None = None
    try:
        assert type(unpack_body(data)) is tuple
    except RemoteProtocolError as error:
        code = error.code
    assert code in (None, CloseCode.BAD_BODY)


@examples(40)
@given(st.lists(free_values, min_size=1, max_size=3).map(tuple), st.data())
def test_a_truncated_body_is_a_bad_body(body: tuple[Any, ...], data: st.DataObject) -> None:
    packed = pack_body(body)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(RemoteProtocolError):
        unpack_body(packed[:cut])
    with pytest.raises(RemoteProtocolError):
        unpack_body(packed + b"\xc0")


@pytest.mark.parametrize(
    "wrap", [lambda item: [item] * MAX_ITEMS, lambda item: {str(n): item for n in range(MAX_ITEMS)}]
)
def test_an_array_or_map_of_1024_elements_is_the_largest(wrap: Any) -> None:
    unpack_body(pack_body((wrap(None),)))
    larger = wrap(None)
    larger = [*larger, None] if isinstance(larger, list) else larger | {"one more": None}
    with pytest.raises(RemoteProtocolError):
        unpack_body(pack_body((larger,)))


def test_a_failed_pack_leaves_nothing_behind_for_the_next_one() -> None:
    clean = pack_body((1, "a"))
    for bad in ((1, object()), ("x", 2**65), ("y", "\ud800")):
        with pytest.raises((TypeError, OverflowError, ValueError)):
            pack_body(bad)
        assert pack_body((1, "a")) == clean
