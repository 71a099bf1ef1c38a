"""Frames: a 16-byte header and a body of one msgpack array, decoded within fixed caps.

Header, big-endian: ``u32 length`` of the whole frame, ``u8 version``, ``u8 flags`` (bits 0-3 codec, 4-6 lane, 7 zero),
``u16 opcode``, ``u32 room``, ``u32 sequence``. The first byte of a link is therefore 0x00, which no HTTP request, TLS
record or PROXY header starts with.

This module handles bytes; `messages` defines the bodies and `state` when each may be sent.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, NoReturn

import msgpack

from .codes import CloseCode, Codec, Lane, Opcode
from .errors import LocalProtocolError, RemoteProtocolError
from .messages import VERSION, Tick
from .ticks import short_tick

__all__ = [
    "HEADER_BYTES",
    "MAX_BODY_BYTES",
    "MAX_CLIENT_BODY_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_ITEMS",
    "Header",
    "build_frame",
    "header_fields",
    "pack_body",
    "parse_header",
    "unpack_body",
]

HEADER_BYTES = 16
MAX_FRAME_BYTES = 64 * 1024
"""Largest frame (Centrifugo's message cap); a link finishes one of this size before its next frame."""
MAX_BODY_BYTES = MAX_FRAME_BYTES - HEADER_BYTES
"""Cap of a body before and after decompression."""
MAX_CLIENT_BODY_BYTES = 4096
"""Cap of a body sent by a client (goim's body cap); a larger POST is refused and the link stays open."""

MAX_ITEMS = 1024
"""Most elements of one array or map."""

_HEADER = struct.Struct("!IBBHII")
header_fields = _HEADER.unpack_from
"""Return the six raw numbers of the header at an offset; `parse_header` checks them."""
_pack_header = _HEADER.pack
_packer = msgpack.Packer(autoreset=True)


class Header(NamedTuple):
    """Checked fields of a header."""

    length: int
    codec: int
    lane: Lane
    opcode: Opcode
    room: int
    sequence: int


_OPCODES: dict[int, Opcode] = {int(opcode): opcode for opcode in Opcode}
_FLAGS: dict[int, tuple[int, Lane]] = {lane << 4 | codec: (int(codec), lane) for lane in Lane for codec in Codec}
"""Codec and lane of every valid flags byte; a missing one has a reserved bit, lane or codec."""
_new = tuple.__new__


def parse_header(data: bytes | bytearray | memoryview, offset: int = 0) -> Header:
    """Read and check the header at ``offset``, where ``data`` must have 16 bytes.

    Raises RemoteProtocolError: BAD_FRAME, FRAME_TOO_LARGE, UNSUPPORTED_VERSION, UNKNOWN_OPCODE. The length is checked
    here, before any byte of the body is buffered.
    """
    length, version, flags, number, room, sequence = header_fields(data, offset)
    if version != VERSION:
        raise RemoteProtocolError(CloseCode.UNSUPPORTED_VERSION, f"this link uses version {VERSION}")
    if length < HEADER_BYTES:
        raise RemoteProtocolError(CloseCode.BAD_FRAME, "length is below the header's 16 bytes")
    if length > MAX_FRAME_BYTES:
        raise RemoteProtocolError(CloseCode.FRAME_TOO_LARGE, f"length is above {MAX_FRAME_BYTES} bytes")
    opcode = _OPCODES.get(number)
    if opcode is None:
        raise RemoteProtocolError(CloseCode.UNKNOWN_OPCODE, f"opcode {number} is not known")
    meaning = _FLAGS.get(flags)
    if meaning is None:
        raise RemoteProtocolError(CloseCode.BAD_FRAME, "flags have an unknown lane or codec")
    return _new(Header, (length, meaning[0], meaning[1], opcode, room, sequence))


def build_frame(opcode: int, lane: int, room: int, sequence: int, body: bytes, codec: int = Codec.PLAIN) -> bytes:
    """Return a frame of ``body``, which is packed and, with a ``codec``, compressed.

    ``sequence`` is written modulo 2**32: offsets and tick numbers of a room may be larger. Raises LocalProtocolError
    when the frame would be larger than MAX_FRAME_BYTES.
    """
    length = HEADER_BYTES + len(body)
    if length > MAX_FRAME_BYTES:
        raise LocalProtocolError(f"frame of {length} bytes is above {MAX_FRAME_BYTES}")
    return _pack_header(length, VERSION, lane << 4 | codec, opcode, room, sequence & 0xFFFF_FFFF) + body


def pack_body(body: tuple[Any, ...]) -> bytes:
    """Pack one body as msgpack: a NamedTuple as its array, an IntEnum as its number, a tick in its short form."""
    packed: bytes = _packer.pack(short_tick(body) if type(body) is Tick else body)
    return packed


def _refuse_ext(code: int, data: bytes) -> NoReturn:
    raise ValueError("extension types are not used")


def _unique_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if not pairs:
        return {}
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a map has a key twice")
    return found


def unpack_body(data: bytes | bytearray | memoryview) -> tuple[Any, ...]:
    """Decode one body into nested tuples and dicts.

    Caps: MAX_ITEMS elements an array or map; no extension types, no timestamps, no duplicate keys, UTF-8 without
    surrogates. The decoder's stack bounds the depth (1,024 levels), and `fields.any_value` that of free values. A
    declared size allocates at most MAX_ITEMS pointers a level: 8 MiB temporarily for the worst body, which is refused.
    Linear in ``data``. Raises RemoteProtocolError BAD_BODY.
    """
    try:
        body = msgpack.unpackb(
            data,
            use_list=False,
            strict_map_key=True,
            object_pairs_hook=_unique_keys,
            ext_hook=_refuse_ext,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise RemoteProtocolError(CloseCode.BAD_BODY, "body is not one msgpack array within its caps") from error
    if type(body) is not tuple:
        raise RemoteProtocolError(CloseCode.BAD_BODY, "body is not a msgpack array")
    return body
