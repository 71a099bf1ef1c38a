"""Compression of bodies: lz4 blocks with a raw-size cap and a versioned dictionary.

Only a server's frames are compressed: a client's are small, and a decompressor that strangers can reach
before they have logged in is a gift to them. A compressed body is ``u32 raw size`` (big-endian) and one lz4
block. The dictionary makes small ticks shrink by 1.8 instead of 1.3; it never changes under one codec id.
"""

from __future__ import annotations

import struct

import lz4.block

from .codes import CloseCode, Codec, Feature
from .dictionary import DICTIONARY_1
from .errors import RemoteProtocolError
from .frames import MAX_BODY_BYTES

__all__ = ["MIN_COMPRESS_BYTES", "best_codec", "compress", "decompress"]

MIN_COMPRESS_BYTES = 256
"""Below this a block saves less than it costs to read."""

_SIZE = struct.Struct("!I")
_LZ4, _LZ4_DICT_1 = int(Feature.LZ4), int(Feature.LZ4_DICT_1)


def best_codec(features: int) -> Codec:
    """The codec for a link whose two sides share ``features`` (bits of `Feature`)."""
    if features & _LZ4_DICT_1:
        return Codec.LZ4_DICT_1
    if features & _LZ4:
        return Codec.LZ4
    return Codec.PLAIN


def compress(body: bytes, codec: Codec) -> bytes | None:
    """Compress ``body``, or return None where that does not pay (small, or not smaller)."""
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
    """Undo `compress`; ``data`` is what follows the header.

    The declared size is judged before anything is allocated, and the block must yield exactly that much.
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
