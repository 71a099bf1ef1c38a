"""JSON text mode: the same messages as readable objects, for browsers' consoles, curl and tests.

``{"op": "JOIN", "lane": 0, "room": 0, "seq": 1, "body": {"room_name": "lobby", "tier": 20}}``; several frames
may share one text message as an array. Bodies are objects with the fields' names; an array in field order
is read too. The caps of the binary encoding hold for the text as well.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, NoReturn

from .codes import CloseCode, Lane, Opcode
from .errors import LocalProtocolError, RemoteProtocolError
from .frames import MAX_FRAME_BYTES, MAX_ITEMS

__all__ = ["JsonFrame", "dump", "parse"]


class JsonFrame(NamedTuple):
    """One parsed object; ``body`` is not yet read. ``nbytes``: UTF-8 bytes of the body's text."""

    opcode: Opcode
    lane: Lane
    room: int
    sequence: int
    body: Any
    nbytes: int


def dump(opcode: Opcode, lane: Lane, room: int, sequence: int, message: tuple[Any, ...]) -> bytes:
    """Write one frame as UTF-8 JSON. Raises LocalProtocolError above the frame cap."""
    body = {"op": opcode.name, "lane": int(lane), "room": room, "seq": sequence, "body": _plain(message)}
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    if len(data) > MAX_FRAME_BYTES:
        raise LocalProtocolError(f"JSON frame of {len(data)} bytes is above {MAX_FRAME_BYTES}")
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None)
        if names is None:
            return [_plain(element) for element in value]
        return {name: _plain(element) for name, element in zip(names, value, strict=True)}
    if isinstance(value, dict):
        return {key: _plain(element) for key, element in value.items()}
    return value


def parse(data: str) -> list[JsonFrame]:
    """Read one text message. Raises RemoteProtocolError: FRAME_TOO_LARGE, BAD_BODY, BAD_FRAME, UNKNOWN_OPCODE."""
    if len(data) > MAX_FRAME_BYTES:
        raise RemoteProtocolError(CloseCode.FRAME_TOO_LARGE, f"text is above {MAX_FRAME_BYTES} characters")
    try:
        data.encode()
        value = json.loads(data, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
        if "\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # an escaped surrogate on its own is no text
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(CloseCode.BAD_BODY, "text is not JSON within its caps") from error
    objects = value if isinstance(value, list) else [value]
    if not objects or len(objects) > MAX_ITEMS:
        raise RemoteProtocolError(CloseCode.BAD_BODY, f"a text holds 1 to {MAX_ITEMS} frames")
    return [_frame(each) for each in objects]


def _frame(value: Any) -> JsonFrame:
    if not isinstance(value, dict):
        raise RemoteProtocolError(CloseCode.BAD_FRAME, "a frame is a JSON object")
    name = value.get("op")
    opcode = Opcode.__members__.get(name) if isinstance(name, str) else None
    if opcode is None:
        raise RemoteProtocolError(CloseCode.UNKNOWN_OPCODE, "op is not known")
    numbers = [value.get("lane", 0), value.get("room", 0), value.get("seq", 0)]
    for number, top in zip(numbers, (4, 0xFFFF_FFFF, 0xFFFF_FFFF), strict=True):
        if type(number) is not int or not 0 <= number <= top:
            raise RemoteProtocolError(CloseCode.BAD_FRAME, "lane, room and seq are small non-negative integers")
    unknown = set(value) - {"op", "lane", "room", "seq", "body"}
    if unknown:
        raise RemoteProtocolError(CloseCode.BAD_FRAME, "a frame has only op, lane, room, seq and body")
    body = value.get("body", {})
    if not isinstance(body, (dict, list)):
        raise RemoteProtocolError(CloseCode.BAD_BODY, "body is an object or an array")
    nbytes = len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())
    return JsonFrame(opcode, Lane(numbers[0]), numbers[1], numbers[2], body, nbytes)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    if len(found) > MAX_ITEMS:
        raise ValueError("an object has too many keys")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
