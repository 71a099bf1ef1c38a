"""Compression of bodies: lz4 blocks with a cap of the raw size and dictionaries.

Only frames of the server are compressed: those of a client are small, and a decompressor before authentication would be
an attack surface. A compressed body is ``u16 raw size`` (big-endian) and one lz4 block.

With a dictionary a tick is compressed at any size, once for all of its receivers, and thoroughly unless these are few.
For another message lz4 is fast rather than thorough, and is not asked below MIN_COMPRESS_BYTES.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import lz4.block

from .codes import CloseCode, Codec, Feature
from .dictionaries import BUILT_IN
from .errors import RemoteProtocolError
from .frames import MAX_BODY_BYTES

__all__ = [
    "BUILT_IN_ONLY",
    "MIN_COMPRESS_BYTES",
    "THOROUGH_SHOWN",
    "best_codec",
    "compress",
    "decompress",
    "pack_block",
    "unpack_block",
]

MIN_COMPRESS_BYTES = 256
"""Below this a block saves less time on the wire than its decompression takes, but for a tick with a dictionary."""

THOROUGH_SHOWN = 128
"""Danmaku of a tick times receivers from which 7 bytes less for each are worth 23 us."""

BUILT_IN_ONLY: Final[Mapping[int, bytes]] = MappingProxyType({Codec.LZ4_DICT_1: BUILT_IN.data})
"""Dictionaries by codec where there is only the built-in one."""

_SIZE = struct.Struct("!H")
_LARGE_SIZE = struct.Struct("!I")
_PLAIN, _LZ4 = Codec.PLAIN, Codec.LZ4
_LZ4_BIT, _LZ4_DICT_1_BIT = int(Feature.LZ4), int(Feature.LZ4_DICT_1)
_LEVEL = 9
"""Of lz4 for a tick: less gives 1 % more bytes, more takes 1.5 times as long for a tick of 20."""


def best_codec(features: int) -> Codec:
    """Return the codec of a link whose two sides share ``features`` (bits of `Feature`)."""
    if features & _LZ4_DICT_1_BIT:
        return Codec.LZ4_DICT_1
    if features & _LZ4_BIT:
        return Codec.LZ4
    return Codec.PLAIN


def compress(
    body: bytes,
    codec: Codec,
    dictionaries: Mapping[int, bytes] = BUILT_IN_ONLY,
    *,
    is_tick: bool = False,
    shown: int = THOROUGH_SHOWN,
) -> bytes | None:
    """Return ``body`` compressed, or None if it would not get smaller, or is small (a tick with a dictionary never is).

    ``dictionaries``: by codec; it has that of ``codec``, if the codec has one. ``shown``: of a tick, how many times a
    danmaku in it is sent; below THOROUGH_SHOWN lz4 is fast rather than thorough.
    """
    if codec is _PLAIN:
        return None
    nbytes = len(body)
    if nbytes < MIN_COMPRESS_BYTES and (codec is _LZ4 or not is_tick):
        return None
    dictionary = b"" if codec is _LZ4 else dictionaries[codec]
    if is_tick and shown >= THOROUGH_SHOWN:
        block = lz4.block.compress(body, "high_compression", store_size=False, compression=_LEVEL, dict=dictionary)
    else:
        block = lz4.block.compress(body, store_size=False, dict=dictionary)
    if _SIZE.size + len(block) >= nbytes:
        return None
    return _SIZE.pack(nbytes) + bytes(block)


def decompress(data: bytes | bytearray, codec: int, dictionaries: Mapping[int, bytes] = BUILT_IN_ONLY) -> bytes:
    """Decompress the body ``data`` of a frame.

    The declared size is checked before anything is allocated, and the block must contain exactly that many bytes.
    ``dictionaries``: by codec. Raises RemoteProtocolError BAD_COMPRESSION, also where the codec's one is missing.
    """
    if len(data) <= _SIZE.size:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, "compressed body has no block")
    (size,) = _SIZE.unpack_from(data)
    if size > MAX_BODY_BYTES:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, f"raw size is above {MAX_BODY_BYTES} bytes")
    dictionary = b"" if codec == _LZ4 else dictionaries.get(codec)
    if dictionary is None:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, f"this side has no dictionary of codec {codec}")
    return _raw(data[_SIZE.size :], size, dictionary)


def pack_block(data: bytes) -> bytes:
    """Return bytes of any number compressed: ``u32 raw size`` and one lz4 block. Not for the wire."""
    return _LARGE_SIZE.pack(len(data)) + bytes(lz4.block.compress(data, store_size=False))


def unpack_block(data: bytes, max_bytes: int) -> bytes:
    """Return what `pack_block` has packed. RemoteProtocolError BAD_COMPRESSION, also above ``max_bytes``."""
    if len(data) <= _LARGE_SIZE.size:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, "compressed bytes have no block")
    (size,) = _LARGE_SIZE.unpack_from(data)
    if size > max_bytes:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, f"raw size is above {max_bytes} bytes")
    return _raw(data[_LARGE_SIZE.size :], size, b"")


def _raw(block: bytes | bytearray, size: int, dictionary: bytes) -> bytes:
    try:
        raw: bytes = lz4.block.decompress(block, uncompressed_size=size, dict=dictionary)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, "block is corrupt") from error
    if len(raw) != size:
        raise RemoteProtocolError(CloseCode.BAD_COMPRESSION, "block does not yield its raw size")
    return raw
