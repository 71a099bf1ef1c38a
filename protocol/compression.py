"""Compression of bodies: lz4 blocks with a cap of the raw size and a versioned dictionary.

Only frames of the server are compressed: those of a client are small, and a decompressor before authentication would be
an attack surface. A compressed body is ``u32 raw size`` (big-endian) and one lz4 block. With the dictionary small ticks
shrink by 1.8 instead of 1.3; a codec id always has the same dictionary.
"""

from __future__ import annotations

import struct
from typing import Final

import lz4.block

from .codes import CloseCode, Codec, Feature
from .errors import RemoteProtocolError
from .frames import MAX_BODY_BYTES

__all__ = ["DICTIONARY_1", "MIN_COMPRESS_BYTES", "best_codec", "compress", "decompress"]

_WORDS = (
    "announcement system reconnect welcome product discount coupon lottery red packet flash sale order "
    "shipping size color stock price gift rocket rose heart crown castle balloon sportscar "
    "尺码偏大吗 身高体重多少 有没有小码 建议拍什么码 面料是什么的 会不会起球 会掉色吗 可以机洗吗 "
    "什么时候发货 发什么快递 偏远地区包邮吗 有运费险吗 七天无理由 退换货麻烦吗 保质期多久 敏感肌能用吗 "
    "孕妇可以用吗 小孩能吃吗 是正品吗 有优惠券吗 怎么领券 券在哪里 满减怎么算 能便宜点吗 性价比高 "
    "再讲一遍 链接在哪 几号链接 上链接 小黄车 已拍 已下单 抢到了 没抢到 手慢了 秒没 还有库存吗 补货 "
    "红包 福袋 抽奖 中奖 开始了吗 倒计时 三二一 主播好美 主播辛苦了 声音好听 支持主播 关注了 来了来了 "
    "第一次来 老粉报到 晚上好 大家好 欢迎 谢谢 太好看了 好喜欢 想要 心动了 绝了 爱了爱了 冲冲冲 "
    "哈哈哈哈哈哈 666666 88888 11111 ？？？ ！！！ 加油加油 多少钱 怎么买 价格 好看 可以 "
).encode()

_FRAMING = b"".join(
    b"\x96" + kind + b"\xa8user-" + digits + b"\xa7viewer " + b"\x91" + length
    for kind, digits, length in (
        (b"\x01", b"000", b"\xa6"), (b"\x02", b"123", b"\xa9"), (b"\x01", b"456", b"\xac"),
        (b"\x01", b"789", b"\xaf"), (b"\x01", b"100", b"\xb2"),
    )
)  # fmt: skip

DICTIONARY_1: Final[bytes] = _WORDS + _FRAMING + b"\x01\x90\x96\x01\xa8user-0\x91\xc0\x01\x90"
"""Dictionary 1: short reactions, questions and shopping terms, written for this project, with the msgpack bytes around
them in a tick. It never changes. The most frequent parts are last, where lz4 encodes them in fewer bytes."""

MIN_COMPRESS_BYTES = 256
"""Below this a block saves less time on the wire than its decompression takes."""

_SIZE = struct.Struct("!I")
_LZ4, _LZ4_DICT_1 = int(Feature.LZ4), int(Feature.LZ4_DICT_1)


def best_codec(features: int) -> Codec:
    """Return the codec of a link whose two sides share ``features`` (bits of `Feature`)."""
    if features & _LZ4_DICT_1:
        return Codec.LZ4_DICT_1
    if features & _LZ4:
        return Codec.LZ4
    return Codec.PLAIN


def compress(body: bytes, codec: Codec) -> bytes | None:
    """Return ``body`` compressed, or None if it is small or would not get smaller."""
    if codec is Codec.PLAIN or len(body) < MIN_COMPRESS_BYTES:
        return None
    if codec is Codec.LZ4_DICT_1:
        block = lz4.block.compress(body, store_size=False, dict=DICTIONARY_1)
    else:
        block = lz4.block.compress(body, store_size=False)
    if _SIZE.size + len(block) >= len(body):
        return None
    return _SIZE.pack(len(body)) + bytes(block)


def decompress(data: bytes | bytearray, codec: int) -> bytes:
    """Decompress the body ``data`` of a frame.

    The declared size is checked before anything is allocated, and the block must contain exactly that many bytes.
    Raises RemoteProtocolError BAD_COMPRESSION.
    """
    if len(data) <= _SIZE.size:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, "compressed body has no block")
    (size,) = _SIZE.unpack_from(data)
    if size > MAX_BODY_BYTES:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, f"raw size is above {MAX_BODY_BYTES} bytes")
    dictionary = DICTIONARY_1 if codec == Codec.LZ4_DICT_1 else b""
    try:
        raw: bytes = lz4.block.decompress(data[_SIZE.size :], uncompressed_size=size, dict=dictionary)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, "block is corrupt") from error
    if len(raw) != size:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, "block does not yield its raw size")
    return raw
