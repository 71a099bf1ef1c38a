"""SPEC.md and the code say the same, in both directions: no row without its code, no code without its row."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from broker.config.sections import LinkConfig, RoomConfig
from broker.core.limits.rate_limit import Rate
from broker.core.rooms.policies import DEFAULT_POLICY, POLICIES
from protocol import codes, compression, fields, frames, json_mode, messages, payloads
from protocol.codes import (
    MESSAGE_TYPES,
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
    ReconnectAdvice,
    Role,
    RoomPhase,
    Tier,
    reconnect_advice,
)
from protocol.connection import Encoding, Frame, encode
from protocol.dictionaries import BUILT_IN
from protocol.fields import RECORDS
from protocol.frames import parse_header
from protocol.message_rules import MESSAGE_KINDS, OPCODE_LANES
from protocol.messages import Call, Join, Missed, Post, Result, Side
from protocol.operations.users import Kicked, KickUser
from protocol.payloads import AnnouncementPayload, DanmakuPayload, GiftPayload, PhasePayload
from protocol.state import ANSWERS, TRANSITIONS, LinkState
from protocol.vectors.samples import SESSION
from tests.support.links import drain, end

SPEC = (Path(messages.__file__).parent / "SPEC.md").read_text(encoding="utf-8")
Row = tuple[str, ...]


def sections() -> Iterator[tuple[str, list[str]]]:
    """Heading and lines of every section, at any level; a heading inside a code block is none."""
    title, in_code = "", False
    lines: list[str] = []
    for line in SPEC.splitlines():
        in_code ^= line.startswith("```")
        if line.startswith("#") and not in_code:
            yield title, lines
            title, lines = line.lstrip("#").strip(), []
        else:
            lines.append(line)
    yield title, lines


SECTIONS = dict(sections())


def tables(title: str) -> list[list[Row]]:
    """The tables under a heading, without their head, cells as written."""
    found: list[list[Row]] = []
    rows: list[Row] | None = None
    for line in [*SECTIONS[title], ""]:
        if line.startswith("|"):
            rows = [] if rows is None else rows
            rows.append(tuple(cell.strip() for cell in line[1:-1].split(" |")))
        elif rows is not None:
            assert set("".join(rows[1])) <= set("- "), f"the second line of a table under {title} is no rule"
            assert {len(row) for row in rows} == {len(rows[0])}, f"a table under {title} is crooked"
            found.append(rows[2:])
            rows = None
    return found


def table(title: str) -> list[Row]:
    (found,) = tables(title)
    return found


def test_every_heading_is_there_once() -> None:
    titles = [title for title, _ in sections() if title]
    assert len(titles) == len(set(titles))


def test_every_link_inside_the_page_leads_somewhere() -> None:
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in SECTIONS}
    assert set(re.findall(r"\]\(#([^)]+)\)", SPEC)) <= anchors
    for file in re.findall(r"\]\((vectors/[^)]*)\)", SPEC):
        assert (Path(messages.__file__).parent / file).exists(), file


# ---- numbers

ENUMS: list[type[IntEnum]] = [
    Codec, KeyCause, MediaKind, LeaveReason, Role, RoomPhase, Lane, Outcome, Tier, ErrorCode, CloseCode, MessageType,
]  # fmt: skip


@pytest.mark.parametrize("kind", ENUMS)
def test_numbers_and_names_are_those_of_the_code(kind: type[IntEnum]) -> None:
    rows = table(kind.__name__)
    assert [(int(row[0]), row[1]) for row in rows] == [(member.value, member.name) for member in kind]
    assert all(all(row) for row in rows), "every cell says something"


def test_features_are_those_of_the_code() -> None:
    assert [(int(bit), name) for bit, name, _ in table("Feature")] == [(f.value, f.name) for f in Feature]


def test_opcodes_their_senders_and_lanes_are_those_of_the_code() -> None:
    def senders(opcode: Opcode) -> tuple[str, str]:
        client, server = ((side, opcode) in MESSAGE_KINDS for side in Side)
        return "yes" if client else "no", "yes" if server else "no"

    expected = [
        (
            str(int(opcode)),
            opcode.name,
            *senders(opcode),
            ", ".join(str(int(lane)) for lane in sorted(OPCODE_LANES[opcode]))
            if (Side.SERVER, opcode) in MESSAGE_KINDS
            else "-",
        )
        for opcode in Opcode
    ]
    assert table("Opcodes") == expected


def test_message_types_their_lanes_caps_and_roles_are_those_of_the_code() -> None:
    for number, name, lane, cap, roles in table("MessageType"):
        rule = MESSAGE_TYPES[int(number)]
        assert MessageType[name] == int(number)
        assert (Lane[lane], int(cap)) == (rule.lane, rule.max_bytes)
        named = set() if roles.startswith("none") else {Role[role] for role in roles.split(", ")}
        assert named == rule.post_roles


def test_the_ranges_of_close_codes_are_those_of_the_code() -> None:
    texts = {ReconnectAdvice.NOW: "reconnects now", ReconnectAdvice.BACKOFF: "reconnects with backoff"}
    rows = table("22 Closing and reconnecting")
    for codes_, advice in rows[:-1]:
        for code in map(int, codes_.split("-")):
            assert advice.startswith(texts.get(reconnect_advice(code), "does not reconnect"))
    assert rows[-1][1] == texts[reconnect_advice(1006)]


# ---- states


@pytest.mark.parametrize("side", Side)
def test_the_state_tables_are_those_of_the_code(side: Side) -> None:
    found = {}
    for state, opcodes, after in table(f"States of the {side.name.lower()}"):
        if opcodes == "nothing":
            assert not [key for key in TRANSITIONS[side] if key[0] == state]
            continue
        for name in opcodes.split(", "):
            found[LinkState(state), Opcode[name]] = LinkState(after)
    assert found == TRANSITIONS[side]


def test_the_answers_table_is_that_of_the_code() -> None:
    found = {Opcode[name]: {LinkState(s) for s in states.split(", ")} for name, states in table("Answers")}
    assert found == ANSWERS


# ---- records


def words_of_default(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nil"
    if isinstance(value, tuple):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f'`"{value}"`' if isinstance(value, str) else str(int(value))


OURS = {
    kind: types
    for kind, types in RECORDS.items()
    # Operations and activity events have reference pages of their own, made from their tables.
    if kind.__module__.startswith("protocol.")
    and not kind.__module__.startswith(
        ("protocol.operations.", "protocol.activities.", "protocol.lottery.", "protocol.webhook_events")
    )
}
COMPUTED = {("Tick", "account"): "of entries"}
"""Defaults that follow from other fields, by record and field."""
KINDS = {kind.__name__: kind for kind in (*OURS, Missed)}
DESCRIBED = [title.strip("`") for title in SECTIONS if title.startswith("`")]


def test_every_record_is_described() -> None:
    assert set(DESCRIBED) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_fields_their_order_types_and_defaults_are_those_of_the_code(name: str) -> None:
    kind = KINDS[name]
    defaults: dict[str, Any] = kind._field_defaults  # type: ignore[attr-defined]
    names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    types = OURS.get(kind, ("integer 0..",) * len(names))
    expected = [
        (field, type_, COMPUTED.get((name, field)) or (words_of_default(defaults[field]) if field in defaults else ""))
        for field, type_ in zip(names, types, strict=True)
    ]
    found = tables(f"`{name}`")
    assert [row[:3] for rows in found for row in rows] == expected
    assert all(row[3] for rows in found for row in rows), "every field has a meaning"


def test_messages_stand_under_their_opcodes() -> None:
    titles = list(SECTIONS)
    for (side, opcode), kind in MESSAGE_KINDS.items():
        heading = opcode.name if side is Side.CLIENT or opcode is Opcode.GOAWAY else f"{opcode.name} (server)"
        assert titles[titles.index(heading) + 1] == f"`{kind.__name__}`"
        assert f"Opcode {int(opcode)}" in "\n".join(SECTIONS[f"`{kind.__name__}`"])


def test_payloads_stand_with_their_type() -> None:
    for kind, payload in payloads.PAYLOAD_KINDS.items():
        assert f"Type {int(kind)}." in "\n".join(SECTIONS[f"`{payload.__name__}`"])


def test_every_type_that_a_record_uses_is_explained() -> None:
    described = "\n".join(SECTIONS["5 Bodies"])
    simple = (
        {
            "any",
            "boolean",
            "style",
            "room name",
            "user id",
            "user id or empty",
            "display name",
            '"roomcast"',
            "https URL",
            "SHA-256",
            "combo",
            "operation",
            "arguments",
        }
        | set(KINDS)
        | set(SECTIONS)
    )
    for types in OURS.values():
        for type_ in types:
            for part in re.split(r"nil or |(?:array|map) of \d+\.\.\d+ |pair of | and | to ", type_):
                if re.fullmatch(r"(integer|text|lines|characters|character lines) \d+\.\.\d*", part):
                    assert f"`{part.rpartition(' ')[0]} a..b`" in described
                else:
                    assert part == "" or part in simple, part


# ---- limits


def constants() -> dict[str, int]:
    """Every public number of the modules that make up the wire."""
    found = {}
    for module in (codes, messages, payloads, fields, frames, compression, json_mode):
        for name in module.__all__:
            value = getattr(module, name)
            if name.isupper() and type(value) is int:
                found[name] = value
    return found


def test_the_limits_are_those_of_the_code() -> None:
    found = {name: int(value.replace(",", "")) for name, value, _ in tables("Constants")[0]}
    assert found == constants()


def test_the_dictionary_is_that_of_the_code() -> None:
    ((number, size, digest),) = table("Dictionary 1")
    assert (number, int(size.replace(",", "")), digest.strip("`")) == (
        "1",
        len(BUILT_IN.data),
        hashlib.sha256(BUILT_IN.data).hexdigest(),
    )


# ---- bytes


def code_blocks(title: str) -> list[list[str]]:
    found: list[list[str]] = []
    block: list[str] | None = None
    for line in SECTIONS[title]:
        if line.startswith("```"):
            if block is None:
                block = []
            else:
                found.append(block)
                block = None
        elif block is not None:
            block.append(line)
    return found


def bytes_of(lines: list[str]) -> bytes:
    """The bytes at the left of each line; what follows after three spaces, or the end of the line, is words."""
    found = re.compile(r" *((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:   .*| {2,}\S.*)?$")
    data = b""
    for line in lines:
        match = found.match(line)
        assert match, line
        data += bytes.fromhex(match[1])
    return data


def test_the_example_of_a_header_is_a_danmaku() -> None:
    (picture, example) = code_blocks("4 Frames")
    assert picture
    data = bytes_of(example)
    header = parse_header(data)
    assert header == (38, Codec.PLAIN, Lane.CONTROL, Opcode.POST, 3, 5)
    server = end(Side.SERVER)
    server.receive_data(data)
    message = Post(1, "m-1", DanmakuPayload("主播好美"))
    assert drain(server) == [Frame(Opcode.POST, Lane.CONTROL, 3, 5, message)]
    assert encode(message, 3, 5, Lane.CONTROL) == data


def test_the_examples_of_types_4_to_6_are_what_the_code_writes() -> None:
    examples: list[tuple[int, AnnouncementPayload | GiftPayload | PhasePayload]] = [
        (4, AnnouncementPayload("今天八折")),
        (5, GiftPayload("o-1", "u-2", "Ming", "rose", 3, 100)),
        (6, PhasePayload(RoomPhase.PAUSED)),
    ]
    title = "Examples of types 4 to 6"
    for number, (block, (kind, payload)) in enumerate(zip(code_blocks(title), examples, strict=True)):
        message = Post(kind, f"m-{number + 2}", payload)
        assert bytes_of(block) == encode(message, 3, number + 6, Lane.CONTROL)
        text = json.loads(encode(message, 3, number + 6, Lane.CONTROL, Encoding.JSON))["body"]["payload"]
        assert f"`{json.dumps(text, ensure_ascii=False, separators=(',', ':'))}`" in "\n".join(SECTIONS[title])


def test_the_examples_of_a_call_and_its_result_are_what_the_code_writes() -> None:
    call, result = code_blocks("19 Operations")
    assert bytes_of(call) == encode(Call(42, "", KickUser("lobby", "u-9", "spam")), 0, 21, Lane.CONTROL)
    assert bytes_of(result) == encode(Result(42, Kicked(1)), 0, 21, Lane.CONTROL)


def test_the_defaults_of_a_server_are_those_of_the_code() -> None:
    link, room, policy = LinkConfig(), RoomConfig(), POLICIES[DEFAULT_POLICY]

    def rate(each: Rate) -> str:
        return f"{each.burst:g} at once, then {each.per_s:g} a second"

    expected = {
        "deadline from connecting to AUTH": f"{link.handshake_timeout_s:g} s",
        "frames a link may send in the long run": f"{link.frames_per_s} a second",
        "failed requests": f"{link.errors_per_minute} a minute",
        "rooms of one link": f"{link.rooms_per_connection}",
        "links of one user": f"{link.connections_per_user}",
        "events kept for RESUME": f"{room.history_entries}, for {room.history_s:g} s",
        "rooms that one user newly joins": rate(policy.user_joins),
        "new rooms that one address opens": f"{room.new_rooms_per_minute} a minute",
        "danmaku in the answer to JOIN": f"{room.snapshot_danmaku}",
        "danmaku of one viewer in a room": rate(policy.user_chat),
        "the same danmaku of one user": f"once in {policy.duplicate_window_s:g} s",
        "messages that a room admits": f"{policy.admit_per_window} in {policy.window_ms} ms, {policy.reserved} of them",
        "danmaku shown to a viewer of the tier FULL": f"{policy.chat_budget_per_s} a second",
        "likes of one user that count": f"{policy.user_likes.per_s:g} a second",
        "posts of one MODERATOR, ASSISTANT or HOST in a room": rate(policy.staff_posts),
        "posts of an APP in a room, without gifts": rate(policy.app_posts),
        "gifts shown to a viewer": f"{policy.paid_budget_per_s} entries a second",
    }
    found = {name: value for name, value in tables("Constants")[1]}
    for name, value in expected.items():
        assert re.match(rf"{re.escape(value)}(;|$| )", found.pop(name)), name
    assert found.keys() == {"heartbeat, cut", "queue of a link with a backlog"}


def test_the_transcript_is_what_the_code_writes() -> None:
    blocks = code_blocks("27 A session, byte by byte")
    assert len(blocks) == len(SESSION)
    said = [line for line in SECTIONS["27 A session, byte by byte"] if line.startswith("**")]
    for step, block, words in zip(SESSION, blocks, said, strict=True):
        written = b"".join(encode(each.message, each.room, each.sequence, each.lane) for each in step.frames)
        assert bytes_of(block) == written
        assert step.side.name.capitalize() in words
        assert step.says in words


def test_the_example_of_json_mode_is_what_the_code_writes() -> None:
    ((line,),) = code_blocks("24 JSON mode")
    assert encode(Join("lobby"), 0, 1, Lane.CONTROL, Encoding.JSON).decode() == line


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    """The prose repeats some limits in words; these are the ones that a change would have to find."""
    header = "\n".join(SECTIONS["Reading a header"])
    assert f"above {frames.MAX_FRAME_BYTES:,}" in header
    assert (
        f"above {frames.HEADER_BYTES + frames.MAX_CLIENT_BODY_BYTES:,} (a body of {frames.MAX_CLIENT_BODY_BYTES:,})"
        in header
    )
    assert f"codec above {max(Codec)}" in header
    bodies = "\n".join(SECTIONS["5 Bodies"])
    assert f"{frames.MAX_ITEMS:,} elements" in bodies
    assert f"nested at most {fields.MAX_DEPTH} deep" in bodies
    text = "\n".join(SECTIONS["24 JSON mode"])
    for number in (json_mode.MAX_CLIENT_TEXT_BYTES, json_mode.MAX_SERVER_TEXT_BYTES, frames.MAX_ITEMS):
        assert f"{number:,}" in text
    assert f"{json_mode.MAX_TEXT_DEPTH} levels" in text
    assert f"{compression.MIN_COMPRESS_BYTES} bytes" in "\n".join(SECTIONS["23 Compression"])
    assert f"at most {frames.MAX_BODY_BYTES:,}" in "\n".join(SECTIONS["Reading a block"])
