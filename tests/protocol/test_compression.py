"""Compressed bodies: what comes back, what a bomb may cost, and a dictionary that never changes."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc

import lz4.block
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import CloseCode, Codec, Lane
from protocol.compression import MIN_COMPRESS_BYTES, THOROUGH_SHOWN, compress, decompress, pack_block, unpack_block
from protocol.connection import Frame, encode
from protocol.dictionaries import BUILT_IN
from protocol.errors import RemoteProtocolError
from protocol.frames import HEADER_BYTES, MAX_BODY_BYTES, pack_body, parse_header
from protocol.messages import Account, Event, Side, Tick, TickEntry
from tests.support.examples import examples
from tests.support.links import drain, end

LZ4 = [Codec.LZ4, Codec.LZ4_DICT_1]
each_codec = pytest.mark.parametrize("codec", LZ4)

words = st.sampled_from(["多少钱", "链接在哪", "666666", "哈哈哈", "viewer ", "user-1", "\x91", "\x96"]).map(str.encode)
bodies = st.lists(words | st.binary(max_size=20), min_size=1, max_size=300).map(b"".join)


def refused(data: bytes, codec: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decompress(data, codec)
    assert caught.value.code is CloseCode.BAD_COMPRESSION


@each_codec
@examples(40)
@given(bodies, st.booleans())
def test_decompress_undoes_compress(codec: Codec, body: bytes, is_tick: bool) -> None:
    small = compress(body, codec, is_tick=is_tick)
    if small is None:
        return
    assert len(small) < len(body)
    assert small[:2] == struct.pack("!H", len(body))
    assert decompress(small, codec) == decompress(bytearray(small), codec) == body


@given(st.binary(max_size=2000))
def test_a_body_is_left_alone_where_compression_does_not_pay(body: bytes) -> None:
    assert compress(body, Codec.PLAIN) is None
    for codec in LZ4:
        small = compress(body, codec)
        assert small is None or (len(body) >= MIN_COMPRESS_BYTES and len(small) < len(body))


@each_codec
@given(st.binary(max_size=300))
def test_any_bytes_decompress_to_their_declared_size_or_are_refused(codec: Codec, data: bytes) -> None:
    try:
        raw = decompress(data, codec)
    except RemoteProtocolError:
        return
    assert len(raw) == int.from_bytes(data[:2], "big") <= MAX_BODY_BYTES


@each_codec
@given(st.data())
def test_a_corrupted_block_is_refused_or_keeps_its_size(codec: Codec, data: st.DataObject) -> None:
    body = ("多少钱 链接在哪 " * 40).encode()
    small = compress(body, codec)
    assert small is not None
    at = data.draw(st.integers(0, len(small) - 1))
    broken = small[:at] + bytes([small[at] ^ data.draw(st.integers(1, 255))]) + small[at + 1 :]
    code: CloseCode | None = None
    try:
        raw = decompress(broken, codec)
    except RemoteProtocolError as error:
        code = error.code
    else:
        assert len(raw) == int.from_bytes(broken[:2], "big") <= MAX_BODY_BYTES
    assert code in (None, CloseCode.BAD_COMPRESSION)


@each_codec
@given(st.data())
def test_a_truncated_block_is_refused(codec: Codec, data: st.DataObject) -> None:
    small = compress(("多少钱 链接在哪 " * 40).encode(), codec)
    assert small is not None
    refused(small[: data.draw(st.integers(0, len(small) - 1))], codec)


@pytest.mark.parametrize("declared", [MAX_BODY_BYTES + 1, 2**16 - 1])
def test_a_declared_size_above_the_cap_is_refused_before_anything_is_allocated(declared: int) -> None:
    block = lz4.block.compress(bytes(2**20), store_size=False)
    tracemalloc.start()
    refused(struct.pack("!H", declared) + block, Codec.LZ4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 1024


@pytest.mark.parametrize("declared", [0, 1, MAX_BODY_BYTES - 1, MAX_BODY_BYTES])
def test_a_block_that_yields_another_size_than_declared_is_refused(declared: int) -> None:
    block = lz4.block.compress(bytes(2**20), store_size=False)
    assert 2**20 / len(block) > 250, "the ratio of lz4's best bomb"
    refused(struct.pack("!H", declared) + block, Codec.LZ4)


@each_codec
def test_a_bomb_within_the_cap_costs_one_body(codec: Codec) -> None:
    bomb = compress(bytes(MAX_BODY_BYTES), codec)
    assert bomb is not None
    assert len(bomb) < 300
    tracemalloc.start()
    assert len(decompress(bomb, codec)) == MAX_BODY_BYTES
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * MAX_BODY_BYTES


def test_a_block_made_with_the_dictionary_does_not_read_without_it() -> None:
    entries = tuple(
        TickEntry(1, f"user-{n}", f"viewer {n}", (text,))
        for n, text in enumerate(["什么时候发货", "有优惠券吗", "链接在哪", "还有库存吗", "哈哈哈哈哈哈"] * 3)
    )
    body = pack_body(Tick(0, 100, 0, entries, Account(15, 15)))
    plain, small = compress(body, Codec.LZ4), compress(body, Codec.LZ4_DICT_1)
    assert plain is not None
    assert small is not None
    assert len(small) < 0.85 * len(plain), "the dictionary must earn its keep on a small tick"
    refused(small, Codec.LZ4)


def test_the_built_in_dictionary_never_changes() -> None:
    assert len(BUILT_IN.data) == 18_525
    digest = "b4e288b8189802a30412e661909e9a6de2fd9816fe500f683d03ab23551ad613"
    assert hashlib.sha256(BUILT_IN.data).hexdigest() == BUILT_IN.name == digest


@each_codec
@given(st.binary(max_size=2000))
def test_a_tick_is_compressed_at_any_size_where_it_gets_smaller(codec: Codec, body: bytes) -> None:
    small = compress(body, codec, is_tick=True)
    assert small is None or len(small) < len(body)


def test_a_tick_of_one_short_message_gets_smaller_with_the_dictionary() -> None:
    body = pack_body(Tick(1_796_000_000_000, 100, 0, (TickEntry(1, "u1234567", "viewer 12", ("什么时候发货",)),)))
    small = compress(body, Codec.LZ4_DICT_1, is_tick=True)
    assert small is not None
    assert len(small) < 0.7 * len(body)
    assert compress(body, Codec.LZ4_DICT_1) is None, "of another message 256 bytes are the least"


def test_a_tick_for_few_is_compressed_faster_and_less() -> None:
    texts = ("请问什么时候发货呀", "昨天买的颜色很好看", "没有我要的尺码了吗")
    body = pack_body(Tick(1_796_000_000_000, 100, 0, tuple(TickEntry(1, "u1234567", "viewer 12", (t,)) for t in texts)))
    sizes = []
    for shown in (THOROUGH_SHOWN, THOROUGH_SHOWN - 1):
        small = compress(body, Codec.LZ4_DICT_1, is_tick=True, shown=shown)
        assert small is not None
        assert decompress(small, Codec.LZ4_DICT_1) == body
        sizes.append(len(small))
    assert sizes[0] < sizes[1] < len(body)


def test_a_body_of_a_codec_whose_dictionary_is_missing_is_refused() -> None:
    small = compress(("多少钱 链接在哪 " * 40).encode(), Codec.LZ4_DICT_1)
    assert small is not None
    with pytest.raises(RemoteProtocolError, match="no dictionary of codec 2") as caught:
        decompress(small, Codec.LZ4_DICT_1, {})
    assert caught.value.code is CloseCode.BAD_COMPRESSION


@each_codec
def test_encode_compresses_where_it_pays_and_says_so_in_the_header(codec: Codec) -> None:
    entries = tuple(TickEntry(1, f"user-{n}", "viewer", ("多少钱",)) for n in range(40))
    tick = Tick(5, 100, 0, entries, Account(40, 40))
    frame = encode(tick, 3, 9, Lane.CHAT, codec=codec)
    assert parse_header(frame).codec is codec.value
    assert len(frame) < len(encode(tick, 3, 9, Lane.CHAT)) / 3
    client = end(Side.CLIENT)
    client.receive_data(frame)
    (found,) = drain(client)
    assert isinstance(found, Frame)
    assert found.message == tick
    event = encode(Event(1, 5, "u", "", ("多少钱",)), 3, 9, Lane.COMMERCE, codec=codec)
    assert parse_header(event).codec == Codec.PLAIN
    assert len(event) < HEADER_BYTES + MIN_COMPRESS_BYTES


@examples(40)
@given(bodies | st.just(b"") | st.just(bytes(200_000)))
def test_a_block_of_any_size_comes_back_and_none_above_its_bound(data: bytes) -> None:
    packed = pack_block(data)
    assert unpack_block(packed, len(data)) == data
    for broken, bound in ((packed, len(data) - 1), (packed[:4], 100), (packed[:-1], len(data)), (b"", 1)):
        with pytest.raises(RemoteProtocolError) as caught:
            unpack_block(broken, bound)
        assert caught.value.code is CloseCode.BAD_COMPRESSION
