"""JSON text mode: the same messages as readable objects, for browsers' consoles, curl and tests.

``{"op": "JOIN", "lane": 0, "room": 0, "seq": 1, "body": {"room_name": "lobby", "tier": 20}}``; a text message with an
array contains several frames. Bodies are objects with the names of the fields; an array in field order is read too.
Free values (payloads) have the same form as in msgpack: arrays, not objects.

Parsing has two steps, so that an error in the third frame of a text does not affect the first two: `parse` checks the
text as JSON within its caps, `read_frame` checks one object of it as a frame.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, NoReturn

from .codes import CloseCode, Lane, Opcode
from .errors import LocalProtocolError, RemoteProtocolError
from .frames import MAX_FRAME_BYTES, MAX_ITEMS
from .json_depth import parse_json
from .json_values import as_json
from .operations import BY_NUMBER

__all__ = [
    "MAX_CLIENT_TEXT_BYTES",
    "MAX_SERVER_TEXT_BYTES",
    "MAX_TEXT_DEPTH",
    "JsonFrame",
    "dump",
    "parse",
    "parse_value",
    "read_frame",
]

MAX_CLIENT_TEXT_BYTES = MAX_FRAME_BYTES
"""Most UTF-8 bytes of one text message from a client."""
MAX_SERVER_TEXT_BYTES = 16 * MAX_FRAME_BYTES
"""The same from a server. The names of fields make a small record up to 11 times longer than in msgpack, so every body
that fits a binary frame fits a text."""
MAX_TEXT_DEPTH = 32
"""Nesting of a whole text: 16 of a free value, those of the frame around it, and a reserve."""

_FRAME_KEYS = frozenset({"op", "lane", "room", "seq", "body"})
_LANES = tuple(Lane)
_OF_OPERATIONS = frozenset({Opcode.CALL, Opcode.RESULT})
_UINT32 = 0xFFFF_FFFF
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_measure = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Accepts infinity too (1e999 is JSON): the rule of its field refuses it, as in msgpack."""


class JsonFrame(NamedTuple):
    """Parsed object of a frame; ``body`` is not yet checked. ``nbytes``: UTF-8 bytes of the body as compact JSON."""

    opcode: Opcode
    lane: Lane
    room: int
    sequence: int
    body: Any
    nbytes: int


def dump(opcode: Opcode, lane: Lane, room: int, sequence: int, message: tuple[Any, ...]) -> bytes:
    """Return one frame as UTF-8 JSON. Raises LocalProtocolError above MAX_SERVER_TEXT_BYTES."""
    body = _named(message)
    if opcode in _OF_OPERATIONS:
        row = BY_NUMBER.get(message[0])
        if row is not None:
            body["operation"] = row.name
        if opcode is Opcode.RESULT:
            body["result"] = as_json(message[1])
    fields = {"op": opcode.name, "lane": int(lane), "room": room, "seq": sequence & _UINT32, "body": body}
    data = _encode(fields).encode()
    if len(data) > MAX_SERVER_TEXT_BYTES:
        raise LocalProtocolError(f"JSON frame of {len(data)} bytes is above {MAX_SERVER_TEXT_BYTES}")
    return data


def _named(value: Any) -> Any:
    """Turn records into objects with the names of their fields; a free value is kept, with arrays for tuples."""
    names = getattr(value, "_fields", None)
    if names is not None:
        return {n: each if n == "payload" else _named(each) for n, each in zip(names, value, strict=True)}
    if type(value) is tuple:
        return [_named(each) for each in value]
    return value


def parse(data: str, max_bytes: int = MAX_CLIENT_TEXT_BYTES) -> list[Any]:
    """Parse one text message into values for `read_frame`; arrays become tuples.

    Caps, as in the binary encoding: ``max_bytes`` of UTF-8, MAX_ITEMS elements an array or object, no duplicate keys,
    no NaN, no lone surrogates; and MAX_TEXT_DEPTH. Raises RemoteProtocolError: FRAME_TOO_LARGE, BAD_BODY.
    """
    # A character is at least a byte: the first test avoids encoding a text that is too long in any case.
    if len(data) > max_bytes or (not data.isascii() and len(data.encode("utf-8", "replace")) > max_bytes):
        raise RemoteProtocolError(CloseCode.FRAME_TOO_LARGE, f"text is above {max_bytes} bytes")
    try:
        frames = parse_value(data)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(CloseCode.BAD_BODY, "text is not JSON within its caps") from error
    found = list(frames) if type(frames) is tuple else [frames]
    if not found:
        raise RemoteProtocolError(CloseCode.BAD_BODY, "text contains no frame")
    return found


def parse_value(data: str) -> Any:
    """Parse one JSON value within the caps of `parse` but that of its size; arrays become tuples. ValueError,
    RecursionError."""
    value = parse_json(data, MAX_TEXT_DEPTH, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    return _frozen(value, MAX_TEXT_DEPTH)


def read_frame(value: Any) -> JsonFrame:
    """Check one value of a text as a frame. Raises RemoteProtocolError: BAD_FRAME, UNKNOWN_OPCODE, BAD_BODY."""
    if type(value) is not dict:
        raise RemoteProtocolError(CloseCode.BAD_FRAME, "a frame is a JSON object")
    if not value.keys() <= _FRAME_KEYS:
        raise RemoteProtocolError(CloseCode.BAD_FRAME, "a frame has only op, lane, room, seq and body")
    name = value.get("op")
    opcode = Opcode.__members__.get(name) if type(name) is str else None
    if opcode is None:
        raise RemoteProtocolError(CloseCode.UNKNOWN_OPCODE, "op is not known")
    lane, room, sequence = value.get("lane", 0), value.get("room", 0), value.get("seq", 0)
    for number, top in ((lane, 4), (room, _UINT32), (sequence, _UINT32)):
        if type(number) is not int or not 0 <= number <= top:
            raise RemoteProtocolError(CloseCode.BAD_FRAME, "lane, room and seq are small non-negative integers")
    body = value.get("body", {})
    if type(body) is not dict and type(body) is not tuple:
        raise RemoteProtocolError(CloseCode.BAD_BODY, "body is an object or an array")
    try:
        nbytes = len(_measure(body).encode())
    except ValueError as error:  # a lone surrogate that was written as an escape
        raise RemoteProtocolError(CloseCode.BAD_BODY, "body is not JSON within its caps") from error
    return JsonFrame(opcode, _LANES[lane], room, sequence, body, nbytes)


def _frozen(value: Any, depth: int) -> Any:
    """Turn arrays into tuples, as msgpack does, and check length and depth."""
    if type(value) is list:
        if not depth or len(value) > MAX_ITEMS:
            raise ValueError("an array is too long or too deep")
        return tuple([_frozen(each, depth - 1) if type(each) in _CONTAINERS else each for each in value])
    if type(value) is dict:
        if not depth:
            raise ValueError("an object is too deep")
        return {key: _frozen(each, depth - 1) if type(each) in _CONTAINERS else each for key, each in value.items()}
    return value


_CONTAINERS = frozenset({list, dict})


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    if len(found) > MAX_ITEMS:
        raise ValueError("an object has too many keys")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
