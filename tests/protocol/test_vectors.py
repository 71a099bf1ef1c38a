"""The golden files are what the code writes today, and they decode as they say."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import protocol.vectors
from protocol.codes import MESSAGE_TYPES, CloseCode, Codec, ErrorCode, Lane, Opcode
from protocol.connection import NEED_DATA, Connection, Encoding, Frame, Refused, encode
from protocol.errors import RemoteProtocolError
from protocol.frames import parse_header
from protocol.message_rules import MESSAGE_KINDS
from protocol.messages import Event, Side
from protocol.payloads import PAYLOAD_KINDS, check_payload
from protocol.state import LinkState
from protocol.vectors.generate import documents, dump
from protocol.vectors.samples import SAMPLES
from tests.support.links import drain, end, other, state_before

FOLDER = Path(protocol.vectors.__file__).parent
FILES: dict[str, Any] = {
    path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
MESSAGES = FILES["messages.json"]["vectors"]
MALFORMED = FILES["malformed.json"]["vectors"]


def without_compressed(document: dict[str, Any]) -> dict[str, Any]:
    """A document but for the compressors' output, which may differ from one lz4 to the next."""
    if "vectors" not in document:
        return document
    return document | {"vectors": [{**vector, "compressed": None} for vector in document["vectors"]]}


def test_the_folder_holds_the_generated_files_and_no_others() -> None:
    assert set(FILES) == set(documents())


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_exactly_what_the_code_writes(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    document = json.loads(dump(documents()[name]))
    assert without_compressed(FILES[name]) == without_compressed(document), "run python -m protocol.vectors"
    assert text == dump(FILES[name]), "written by the generator, not by hand"


def test_every_message_and_payload_is_among_the_vectors() -> None:
    assert {(each.side, type(each.message)) for each in SAMPLES} == {
        (side, kind) for (side, _), kind in MESSAGE_KINDS.items()
    }
    posted = {each.message.type for each in SAMPLES if type(each.message).__name__ == "Post"}  # type: ignore[union-attr]
    assert {kind for kind in PAYLOAD_KINDS if MESSAGE_TYPES[kind].post_roles} | {128, 255} <= posted
    sent = {each.message.type for each in SAMPLES if type(each.message) is Event}
    assert {kind for kind in PAYLOAD_KINDS if not MESSAGE_TYPES[kind].post_roles} <= sent
    compressed = [vector for vector in MESSAGES if "compressed" in vector]
    assert compressed
    assert {frozenset(vector["compressed"]) for vector in compressed} == {
        frozenset({"LZ4_DICT_1"}), frozenset({"LZ4", "LZ4_DICT_1"}),
    }, "with the dictionary alone where the body is small"  # fmt: skip


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["name"])
def test_a_message_decodes_as_said_from_bytes_and_from_text(vector: dict[str, Any]) -> None:
    side, opcode = Side[vector["side"].upper()], Opcode[vector["opcode"]]
    expected = Frame(
        opcode,
        Lane(vector["lane"]),
        vector["room"],
        vector["sequence"],
        next(each.message for each in SAMPLES if each.name == vector["name"]),
    )
    wire = bytes.fromhex(vector["hex"])
    frames = {Codec.PLAIN: wire} | {
        Codec[name]: bytes.fromhex(data) for name, data in vector.get("compressed", {}).items()
    }
    for codec, frame in frames.items():
        assert parse_header(frame).codec is codec.value
        assert len(frame) <= len(wire)
        binary = end(other(side), peer=state_before(opcode))
        binary.receive_data(frame)
        assert drain(binary) == [expected]
    text = end(other(side), peer=state_before(opcode), encoding=Encoding.JSON)
    text.receive_text(vector["text"])
    assert drain(text) == [expected]
    assert json.loads(vector["text"]) == {
        "op": vector["opcode"],
        "lane": vector["lane"],
        "room": vector["room"],
        "seq": vector["sequence"],
        "body": vector["body"],
    }
    assert type(expected.message).__name__ == vector["kind"]
    assert encode(expected.message, expected.room, expected.sequence, expected.lane) == wire


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["name"])
def test_a_message_breaks_no_rule_of_ours(vector: dict[str, Any]) -> None:
    sample = next(each for each in SAMPLES if each.name == vector["name"])
    end(sample.side).check(sample.message)
    kind, payload = getattr(sample.message, "type", None), getattr(sample.message, "payload", None)
    if kind in PAYLOAD_KINDS:
        check_payload(kind, payload)


@pytest.mark.parametrize("vector", MALFORMED, ids=lambda vector: vector["name"])
def test_a_malformed_input_earns_what_the_file_says(vector: dict[str, Any]) -> None:
    """The whole way, as another implementation would go it: a handshake, then the bad bytes."""
    encoding = Encoding.JSON if "text" in vector else Encoding.BINARY
    sender = Side[vector["side"].upper()]
    receiver = Connection(other(sender), encoding)
    for frame in FILES["malformed.json"]["before"][vector["side"]][vector["state"]]:
        if frame["side"] == vector["side"]:
            give(receiver, frame)
            assert isinstance(receiver.next_event(), Frame)
        else:
            replay(receiver, frame)
    assert receiver.peer_state is LinkState(vector["state"])
    give(receiver, vector)
    if "close" in vector:
        with pytest.raises(RemoteProtocolError) as caught:
            receiver.next_event()
        assert caught.value.code == vector["close"] == CloseCode[vector["code"]]
    else:
        event = receiver.next_event()
        assert isinstance(event, Refused)
        assert event.code == vector["error"] == ErrorCode[vector["code"]]
        assert event.field == vector["field"]
        assert receiver.next_event() is NEED_DATA


def give(connection: Connection, frame: dict[str, str]) -> None:
    if connection.encoding is Encoding.JSON:
        connection.receive_text(frame["text"])
    else:
        connection.receive_data(bytes.fromhex(frame["hex"]))


def replay(connection: Connection, frame: dict[str, str]) -> None:
    """Let ``connection`` send a frame of its own, given as bytes."""
    reader = end(other(connection.side), peer=connection.local_state)
    reader.receive_data(bytes.fromhex(frame["hex"]))
    event = reader.next_event()
    assert isinstance(event, Frame)
    connection.send(event.message, event.room, event.sequence, event.lane)


def test_the_dictionary_in_the_file_is_the_one_that_its_hash_names() -> None:
    document = FILES["dictionary.json"]
    data = base64.b64decode(document["base64"])
    assert hashlib.sha256(data).hexdigest() == document["sha256"]
    assert len(data) == document["bytes"]
    assert document["codec"] == Codec.LZ4_DICT_1


def test_the_session_in_the_file_is_a_legal_one() -> None:
    ends = {side: Connection(side) for side in Side}
    for step in FILES["session.json"]["steps"]:
        side = Side[step["side"].upper()]
        wire = b"".join(bytes.fromhex(frame["hex"]) for frame in step["frames"])
        ends[other(side)].receive_data(wire)
        found = drain(ends[other(side)])
        assert [each[0] for each in found] == [Opcode[frame["opcode"]] for frame in step["frames"]]
        for each in found:
            assert isinstance(each, Frame)
            ends[side].send(each.message, each.room, each.sequence, each.lane)
