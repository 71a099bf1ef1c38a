"""Content of the golden files, generated from the code: `documents` returns it by file name.

Pure: nothing here reads or writes a file. The output of a compressor differs between its versions, so only compressed
variants may change without a change of the protocol; a reader must accept all of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Any

from .. import codes, compression, fields, frames, json_mode, messages, payloads
from ..codes import MESSAGE_TYPES, CloseCode, Codec, MessageType, Opcode
from ..compression import compress
from ..connection import Encoding, encode
from ..dictionaries import BUILT_IN
from ..frames import build_frame, pack_body
from ..message_rules import opcode_of
from ..messages import Side
from ..state import LinkState
from .malformed import MALFORMED, Malformed
from .samples import SAMPLES, SESSION, Sample

__all__ = ["constants", "documents", "dump"]

_ENUMS: tuple[type[IntEnum | IntFlag], ...] = (
    codes.Opcode, codes.Lane, codes.Codec, codes.Feature, codes.Tier, codes.Role, codes.RoomPhase, codes.Outcome,
    codes.LeaveReason, codes.MessageType, codes.ErrorCode, codes.CloseCode,
)  # fmt: skip
_MODULES = (codes, messages, payloads, fields, frames, compression, json_mode)


def constants() -> dict[str, int]:
    """Return every public limit of the wire."""
    public = ((module, name) for module in _MODULES for name in module.__all__ if name.isupper())
    return {name: getattr(module, name) for module, name in public if type(getattr(module, name)) is int}


def documents() -> dict[str, Any]:
    """Return the content of every golden file by its name, for `dump`."""
    return {
        "codes.json": _codes(),
        "messages.json": {
            "about": "One message each: as a binary frame, as JSON text, and compressed where it gets smaller.",
            "vectors": [_message(sample) for sample in SAMPLES],
        },
        "malformed.json": {
            "about": "Messages that `side` must not send in `state`, and their result: `close` ends the link, `error` "
            "refuses the frame. `before`: what both sides have sent before, as hex and as text.",
            "before": _before(),
            "vectors": [_malformed(each) for each in MALFORMED],
        },
        "session.json": {
            "about": "A short session, one write each; the transcript of SPEC.md.",
            "steps": [
                {"side": step.side.name.lower(), "says": step.says, "frames": [_message(each) for each in step.frames]}
                for step in SESSION
            ],
        },
        "dictionary.json": {
            "about": "The built-in dictionary, that of codec 2. It never changes.",
            "codec": int(Codec.LZ4_DICT_1),
            "bytes": len(BUILT_IN.data),
            "sha256": BUILT_IN.name,
            "base64": base64.b64encode(BUILT_IN.data).decode(),
        },
    }


def dump(document: Mapping[str, Any]) -> str:
    """Return the text of one golden file: JSON with one vector a line, so that a diff contains only changed ones."""
    parts = []
    for key, value in document.items():
        if isinstance(value, list):
            rows = ",\n    ".join(_line(row) for row in value)
            parts.append(f'  "{key}": [\n    {rows}\n  ]')
        else:
            parts.append(f'  "{key}": {_line(value)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _codes() -> dict[str, Any]:
    return {
        "about": "Every number of the wire.",
        **{kind.__name__: {member.name or "": int(member) for member in kind} for kind in _ENUMS},
        "message_types": {
            MessageType(number).name: {
                "lane": int(rule.lane),
                "max_bytes": rule.max_bytes,
                "post_roles": sorted(map(int, rule.post_roles)),
            }
            for number, rule in MESSAGE_TYPES.items()
        },
        "limits": constants(),
    }


def _message(sample: Sample) -> dict[str, Any]:
    name, side, message, lane, room, sequence = sample
    opcode = opcode_of(message)
    text = encode(message, room, sequence, lane, Encoding.JSON).decode()
    vector = {
        "name": name,
        "side": side.name.lower(),
        "opcode": opcode.name,
        "kind": type(message).__name__,
        "lane": int(lane),
        "room": room,
        "sequence": sequence,
        "body": json.loads(text)["body"],
        "hex": encode(message, room, sequence, lane).hex(),
        "text": text,
    }
    body = pack_body(message)
    for codec in (Codec.LZ4, Codec.LZ4_DICT_1) if side is Side.SERVER else ():
        small = compress(body, codec, is_tick=opcode is Opcode.TICK)
        if small is not None:
            frame = build_frame(opcode, lane, room, sequence, small, codec)
            vector.setdefault("compressed", {})[codec.name] = frame.hex()
    return vector


def _malformed(bad: Malformed) -> dict[str, Any]:
    vector: dict[str, Any] = {"name": bad.name, "side": bad.side.name.lower(), "state": bad.state.value}
    if isinstance(bad.data, str):
        vector["text"] = bad.data
    else:
        vector["hex"] = bad.data.hex()
    if isinstance(bad.code, CloseCode):
        return vector | {"close": int(bad.code), "code": bad.code.name}
    return vector | {"error": int(bad.code), "code": bad.code.name, "field": bad.field}


def _before() -> dict[str, dict[str, list[dict[str, str]]]]:
    """Return the frames that bring both ends to each state of the sender, in the order in which they are sent."""
    handshake = {(step.side, opcode_of(each.message).name): each for step in SESSION for each in step.frames}

    def sent(side: Side, name: str) -> dict[str, str]:
        _, _, message, lane, room, sequence = handshake[side, name]
        text = encode(message, room, sequence, lane, Encoding.JSON).decode()
        return {"side": side.name.lower(), "hex": encode(message, room, sequence, lane).hex(), "text": text}

    client, server = Side.CLIENT, Side.SERVER
    hello = [sent(client, "HELLO")]
    requested = [*hello, sent(client, "AUTH")]
    opened = [*requested, sent(server, "HELLO"), sent(server, "AUTH")]
    return {
        "client": {
            LinkState.SILENT.value: [],
            LinkState.GREETED.value: hello,
            LinkState.OPEN.value: opened,
            LinkState.CLOSED.value: [*opened, sent(client, "GOAWAY")],
        },
        "server": {
            LinkState.SILENT.value: requested,
            LinkState.GREETED.value: [*requested, sent(server, "HELLO")],
            LinkState.OPEN.value: opened,
        },
    }
