#!/usr/bin/env python3
"""Write the tables of the JavaScript client from those of the wire: ``python .ci/javascript.py``.

The files are checked in, so that a browser and `npm pack` need no build. A test compares them with what this module
would write.
"""

from __future__ import annotations

import base64
import json
import re
from enum import Enum
from pathlib import Path
from typing import Any

from protocol import reconnect
from protocol.codes import (
    CloseCode,
    Codec,
    ErrorCode,
    Feature,
    KeyCause,
    Lane,
    LeaveReason,
    MediaKind,
    MessageType,
    Opcode,
    Outcome,
    Role,
    RoomPhase,
    Tier,
)
from protocol.dictionaries import BUILT_IN
from protocol.fields import RECORDS
from protocol.frames import MAX_BODY_BYTES, MAX_FRAME_BYTES
from protocol.message_rules import MESSAGE_KINDS
from protocol.messages import MAX_CALLS, Side
from protocol.operations import OPERATIONS
from protocol.payloads import MAX_LIKES_PER_POST, PAYLOAD_KINDS

__all__ = ["modules"]

FOLDER = Path(__file__).parent.parent / "protocol" / "clients" / "js"
_HEAD = "// Made by `python .ci/javascript.py` from the tables of the wire; not edited.\n"
ENUMS = (
    Lane,
    Codec,
    Tier,
    Role,
    RoomPhase,
    Outcome,
    LeaveReason,
    MessageType,
    MediaKind,
    KeyCause,
    ErrorCode,
    CloseCode,
)
_BY_NAME = {record.__name__: record for record in RECORDS}
_PAYLOAD_KINDS = set(PAYLOAD_KINDS.values())
_TEXT, _INTEGER = re.compile(r"\b(text|characters|character lines|lines) \d+\.\."), re.compile(r"integer \d+\.\.\d*")
"""Rules that a POST has to keep. An EVENT may have wider ones: the end of a combo has no order and adds nothing, the
text of a paid message that is deleted is empty."""
_COMPUTED = "Tick", "account"
"""A field that is computed where it is absent."""
_WORD = re.compile(r"\b[A-Z][A-Za-z]+\b")


def modules() -> dict[str, str]:
    """Return the generated modules by file name."""
    return {
        "tables.js": _tables(),
        **_operations(),
        "reconnect_table.js": _reconnect(),
        "dictionary.js": f'{_HEAD}export const NAME = "{BUILT_IN.name}";\n'
        f'export const BUILT_IN = "{base64.b64encode(BUILT_IN.data).decode()}";\n',
    }


def _tables() -> str:
    kinds = {kind for (side, _), kind in MESSAGE_KINDS.items() if side is Side.SERVER} | set(PAYLOAD_KINDS.values())
    parts = [
        _HEAD,
        _const("LIMITS", {"maxBodyBytes": MAX_BODY_BYTES, "maxFrameBytes": MAX_FRAME_BYTES, "maxCalls": MAX_CALLS,
                          "maxLikesPerPost": MAX_LIKES_PER_POST}),
        _const("OPCODES", {each.name: int(each) for each in Opcode}),
        _const("FEATURES", {each.name: int(each) for each in Feature}),
        "/** Members of the enumerations of the wire: name in lower case by number. */\n",
        _const("ENUMS", {enum.__name__: {int(each): each.name.lower() for each in enum} for enum in ENUMS},
               is_nested=True),
        "/** Record of the body of each message of the server, by opcode. */\n",
        _const("MESSAGES", {int(opcode): kind.__name__ for (side, opcode), kind in MESSAGE_KINDS.items()
                            if side is Side.SERVER}),
        "/** Record of the payload of each message type. */\n",
        _const("PAYLOADS", {int(number): kind.__name__ for number, kind in PAYLOAD_KINDS.items()}),
        "/** Fields of each record in the order of the wire: [name, type as SPEC.md writes it, default if any]. */\n",
        _const("RECORDS", _records(kinds), is_nested=True),
        "/** Subjects of operations; each has a module in `operations/`. */\n",
        f"export const SUBJECTS = {json.dumps(list(_subjects()))};\n",
    ]  # fmt: skip
    return "".join(parts)


def _subjects() -> dict[str, list[Any]]:
    """Return the operations that a link may call, by the part of their names before the dot."""
    found: dict[str, list[Any]] = {}
    for row in OPERATIONS:
        if row.roles:
            found.setdefault(row.name.partition(".")[0], []).append(row)
    return dict(sorted(found.items()))


def _operations() -> dict[str, str]:
    """Return one module for each subject: a page loads those that it calls."""
    known = _records({kind for (side, _), kind in MESSAGE_KINDS.items() if side is Side.SERVER}
                     | set(PAYLOAD_KINDS.values()))  # fmt: skip
    return {f"operations/{subject}.js": _operations_of(rows, known) for subject, rows in _subjects().items()}


def _operations_of(rows: list[Any], known: dict[str, Any]) -> str:
    kinds = {row.result for row in rows}
    enums = {
        value.__name__: {int(each): each.name.lower() for each in value}
        for value in _result_enums(kinds)
        if value not in ENUMS
    }
    return "".join([
        _HEAD,
        "/** Operations that a link may call, by role: [number, record of the result]. */\n",
        _const("OPERATIONS", {row.name: [row.number, row.result.__name__] for row in rows}, is_nested=True),
        _const("RECORDS", {name: fields for name, fields in _records(kinds).items() if name not in known},
               is_nested=True),
        _const("ENUMS", enums, is_nested=True),
    ])  # fmt: skip


def _reconnect() -> str:
    table = {f"{state.value} {signal.value}": after.value for (state, signal), after in reconnect.TRANSITIONS.items()}
    numbers = {
        "minBackoffS": reconnect.MIN_BACKOFF_S, "maxBackoffS": reconnect.MAX_BACKOFF_S,
        "nowJitterS": reconnect.NOW_JITTER_S, "stableS": reconnect.STABLE_S,
        "maxPeerDelayS": reconnect.MAX_PEER_DELAY_S,
    }  # fmt: skip
    return "".join([_HEAD, _const("RECONNECT", numbers), _const("TRANSITIONS", table, is_nested=True)])


def _const(name: str, value: dict[Any, Any], is_nested: bool = False) -> str:
    if not is_nested:
        return f"export const {name} = {json.dumps(value, separators=(', ', ': '))};\n"
    lines = (f"  {json.dumps(str(key))}: {json.dumps(each, ensure_ascii=False, separators=(', ', ': '))},\n"
             for key, each in value.items())  # fmt: skip
    return f"export const {name} = {{\n{''.join(lines)}}};\n"


def _records(kinds: set[type[Any]]) -> dict[str, list[list[Any]]]:
    """Return the fields of these records and of all within them, by name."""
    found: dict[str, list[list[Any]]] = {}
    waiting = sorted(kinds, key=lambda kind: kind.__name__)
    while waiting:
        kind = waiting.pop()
        if kind.__name__ in found:
            continue
        fields = []
        for name, type_text in zip(kind._fields, RECORDS[kind], strict=True):
            text = type_text.partition(" of entries")[0]
            if kind in _PAYLOAD_KINDS:
                text = _TEXT.sub(r"\1 0..", _INTEGER.sub("integer 0..", text.replace("user id", "user id or empty")))
                text = text.replace("or empty or empty", "or empty")
            is_computed = (kind.__name__, name) == _COMPUTED
            has_default = name in kind._field_defaults
            default = [None] if is_computed else [_plain(kind._field_defaults[name])] if has_default else []
            fields.append([name, f"nil or {text}" if is_computed else text, *default])
            waiting += [_BY_NAME[word] for word in _names(text) if word in _BY_NAME]
        found[kind.__name__] = fields
    return dict(sorted(found.items()))


def _names(text: str) -> list[str]:
    """Return the records and enumerations that the type of a field names."""
    return _WORD.findall(text)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _result_enums(kinds: set[type[Any]]) -> list[type[Any]]:
    names = {word for fields in _records(kinds).values() for field in fields for word in _names(field[1])}
    return sorted((enum for name, enum in _ENUM_CLASSES.items() if name in names), key=lambda enum: enum.__name__)


def _enum_classes() -> dict[str, type[Any]]:
    from enum import IntEnum

    found: dict[str, type[Any]] = {}
    waiting: list[type[Any]] = [IntEnum]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            if kind.__module__.startswith("protocol"):
                found[kind.__name__] = kind
            waiting.append(kind)
    return found


_ENUM_CLASSES = _enum_classes()


def main() -> None:
    """Write the files, and remove those of subjects that are gone."""
    for path in (FOLDER / "operations").glob("*.js"):
        path.unlink()
    (FOLDER / "operations").mkdir(exist_ok=True)
    for name, text in modules().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
