"""What attackers send: every malformed input has its own answer, and none of them costs more than its bytes.

Work is counted in calls and elements, not in time: a count does not depend on the machine.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from protocol import json_mode
from protocol.codes import CloseCode, ErrorCode, Lane, Opcode
from protocol.connection import Connection, Encoding, Refused
from protocol.errors import RemoteProtocolError
from protocol.frames import (
    MAX_BODY_BYTES,
    MAX_CLIENT_BODY_BYTES,
    MAX_FRAME_BYTES,
    build_frame,
    pack_body,
    unpack_body,
)
from protocol.messages import Side
from protocol.vectors.malformed import MALFORMED, Malformed
from tests.support.links import drain, end, other
from tests.support.work import calls_of


def give(connection: Connection, data: bytes | str) -> list[Any]:
    if isinstance(data, str):
        connection.receive_text(data)
    else:
        connection.receive_data(data)
    return drain(connection)


def test_the_table_is_long_and_every_close_code_of_the_wire_is_in_it() -> None:
    assert len(MALFORMED) >= 40
    assert [name for name, n in Counter(each.name for each in MALFORMED).items() if n > 1] == []
    of_the_wire = {
        CloseCode.BAD_FRAME, CloseCode.FRAME_TOO_LARGE, CloseCode.BAD_BODY, CloseCode.BAD_COMPRESSION,
        CloseCode.UNSUPPORTED_VERSION, CloseCode.UNKNOWN_OPCODE, CloseCode.OUT_OF_STATE,
        ErrorCode.BAD_FIELD, ErrorCode.UNKNOWN_TYPE, ErrorCode.PAYLOAD_TOO_LARGE,
    }  # fmt: skip
    assert {each.code for each in MALFORMED} == of_the_wire


@pytest.mark.parametrize("bad", MALFORMED, ids=lambda each: each.name)
def test_every_malformed_input_earns_its_code(bad: Malformed) -> None:
    encoding = Encoding.JSON if isinstance(bad.data, str) else Encoding.BINARY
    (found,) = give(end(other(bad.side), peer=bad.state, encoding=encoding), bad.data)
    if isinstance(found, Refused):
        assert (found.code, found.field) == (bad.code, bad.field)
        rule, where = found.rule, found.field
    else:
        assert (found[0], "") == (bad.code, bad.field)
        rule, where = found[1], ""
    assert len(rule) <= 256, "it must fit an ERROR's message and a GOAWAY's reason"
    assert len(where) <= 64
    assert rule.isascii(), "the words are ours, never the peer's"
    assert rule.isprintable()


# ---- work


def elements_of(value: Any) -> int:
    """Elements of a decoded value at any depth, without recursion."""
    found, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        found += 1
        if isinstance(each, tuple):
            waiting.extend(each)
        elif isinstance(each, dict):
            waiting.extend(each)
            waiting.extend(each.values())
    return found


def _rows(row: bytes, budget: int) -> bytes:
    """As many copies of ``row`` as fit, in nested arrays of at most 1,024."""
    copies = budget // (len(row) + 1)
    parts = []
    while copies > 0:
        here = min(copies, 1000)
        parts.append(b"\xdc" + here.to_bytes(2, "big") + row * here)
        copies -= here
    return b"\xdc" + len(parts).to_bytes(2, "big") + b"".join(parts)


def _pairs(budget: int) -> bytes:
    count = min(budget // 6, 1024)
    return b"\xde" + count.to_bytes(2, "big") + b"".join(b"\xa4%04d\xc0" % n for n in range(count))


FREE: dict[str, Callable[[int], bytes]] = {
    "nils": lambda n: _rows(b"\xc0", n),
    "empty arrays": lambda n: _rows(b"\x90", n),
    "empty maps": lambda n: _rows(b"\x80", n),
    "deep arrays": lambda n: _rows(b"\x91" * 13 + b"\x90", n),
    "maps of one": lambda n: _rows(b"\x81\xa1a\xc0", n),
    "one large map": _pairs,
    "one long string": lambda n: b"\xdb" + n.to_bytes(4, "big") + b"x" * n,
    "one string of four-byte characters": lambda n: (
        b"\xdb" + (n // 4 * 4).to_bytes(4, "big") + "🌹".encode() * (n // 4)
    ),
    "control characters": lambda n: b"\xdb" + n.to_bytes(4, "big") + b"\x01" * n,
    "integers": lambda n: _rows(b"\xcf" + b"\xff" * 8, n),
    "floats": lambda n: _rows(b"\xcb" + b"\x3f" * 8, n),
    "small strings": lambda n: _rows(b"\xa1a", n),
}


def _event(payload: bytes) -> bytes:
    return build_frame(Opcode.EVENT, Lane.COMMERCE, 1, 1, b"\x95\xcc\x80\x00\xa0\xa0" + payload)


@pytest.mark.parametrize("kind", FREE)
def test_the_work_for_a_free_value_is_linear_in_its_bytes(kind: str) -> None:
    def work(size: int) -> int:
        frame = _event(FREE[kind](size))
        assert len(frame) <= MAX_FRAME_BYTES
        elements = elements_of(unpack_body(frame[16:]))
        assert elements <= len(frame), "an element costs at least a byte"
        client = end(Side.CLIENT)
        return calls_of(lambda: give(client, frame))

    small, large = work(15_000), work(60_000)
    assert large <= 4.5 * small + 100
    assert large <= 3 * 60_000


def _tick_of(entry: bytes, budget: int) -> bytes:
    count = min(budget // len(entry), 1024)
    body = b"\x94\x00\x00\x00\xdc" + count.to_bytes(2, "big") + entry * count
    return build_frame(Opcode.TICK, Lane.CHAT, 1, 1, body)


LISTS: dict[str, Callable[[int], bytes]] = {
    "tick of smallest entries": lambda n: _tick_of(b"\x94\x01\xa1u\xa0\xc0", n),
    "tick of entries as maps": lambda n: _tick_of(b"\x84\xa4type\x01\xa7user_id\xa1u\xa4name\xa0\xa7payload\xc0", n),
    "tick whose last entry is bad": lambda n: _tick_of(b"\x94\x01\xa1u\xa0\xc0", n)[:-5] + b"\x00\xa1u\xa0\xc0",
    "ack of smallest results": lambda n: build_frame(
        Opcode.ACK, Lane.CONTROL, 1, 1, b"\x91\xdc" + (n // 60).to_bytes(2, "big") + b"\x92\x01\x00" * (n // 60)
    ),
}


@pytest.mark.parametrize("kind", LISTS)
def test_the_work_for_a_list_of_records_is_linear_in_its_bytes(kind: str) -> None:
    def work(size: int) -> tuple[int, int]:
        frame = LISTS[kind](size)
        client = end(Side.CLIENT)
        return calls_of(lambda: give(client, frame)), len(frame)

    (small, _), (large, nbytes) = work(1_500), work(6_000)
    assert large <= 4.5 * small + 100
    assert large <= 20 * nbytes, "a bad field is looked at again once, not once for each good one"


@pytest.mark.parametrize(
    "text",
    [
        lambda n: '{"op":"EVENT","lane":1,"body":[' + ",".join(["0"] * (n // 2)) + "]}",
        lambda n: '{"op":"EVENT","lane":1,"body":[' + ",".join(["[]"] * (n // 3)) + "]}",
        lambda n: '{"op":"EVENT","lane":1,"body":[' + ",".join(["{}"] * 1000) + "]" + " " * n + "}",
        lambda n: "[" * n,
        lambda n: '{"a":' * (n // 5),
        lambda n: '["' + "\\u0001" * (n // 6) + '"]',
        lambda n: "[" + "1" * n + "]",
        lambda n: "[0." + "1" * n + "]",
        lambda n: "[" + "9" * 4000 + ("," + "9" * 4000) * (n // 4001) + "]",
    ],
)
def test_the_work_for_a_text_is_linear_in_its_bytes(text: Callable[[int], str]) -> None:
    def work(size: int) -> int:
        client = end(Side.CLIENT, encoding=Encoding.JSON)
        return calls_of(lambda: give(client, text(size)))

    small, large = work(15_000), work(60_000)
    assert large <= 4.5 * small + 200
    assert large <= 3 * 60_000


def test_a_trickle_of_bytes_does_not_copy_the_frame_again_for_each() -> None:
    """Each byte costs a look at the header; the body is neither copied nor decoded until it is whole."""
    body = pack_body((128, 0, "", "", "x" * 60_000))
    frame = build_frame(Opcode.EVENT, Lane.COMMERCE, 1, 1, body)
    client = end(Side.CLIENT)

    def work(start: int, stop: int) -> int:
        def trickle() -> None:
            for at in range(start, stop):
                client.receive_data(frame[at : at + 1])
                client.next_event()

        return calls_of(trickle)

    early, late = work(0, 1000), work(1000, 2000)
    client.receive_data(frame[2000:50_000])
    client.next_event()
    buffer = client.receive_buffer
    last = work(50_000, 51_000)
    assert client.receive_buffer is buffer, "the same buffer grows"
    assert last <= late <= early + 20_000


def test_many_frames_in_one_read_are_read_without_moving_the_rest() -> None:
    ping = build_frame(Opcode.PING, Lane.CONTROL, 0, 0, b"\x91\x01")

    def work(count: int) -> int:
        server = end(Side.SERVER)
        return calls_of(lambda: give(server, ping * count))

    assert work(4000) <= 4.1 * work(1000)
    server = end(Side.SERVER)
    server.receive_data(ping * 1000)
    whole = server.receive_buffer
    for _ in range(999):
        server.next_event()
    assert server.receive_buffer is whole


# ---- memory


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_lying_lengths_allocate_next_to_nothing() -> None:
    for blob in (
        b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05", b"\x91\xdd\x7f\xff\xff\xff",
    ):  # fmt: skip

        def decode(blob: bytes = blob) -> None:
            with pytest.raises(RemoteProtocolError):
                unpack_body(blob)

        assert peak_of(decode) < 64 * 1024


def test_the_worst_nesting_is_bounded_and_freed() -> None:
    worst = b"\xdc\x04\x00" * (MAX_BODY_BYTES // 3)

    def decode() -> None:
        for _ in range(3):
            with pytest.raises(RemoteProtocolError):
                unpack_body(worst)

    decode()
    tracemalloc.start()
    decode()
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20, "1,024 levels of 1,024 pointers"
    assert left < 100_000, "what was built before the fault is freed with it"


@pytest.mark.parametrize(
    "blob",
    [
        b"\x93\x93\xa3abc", b"\x92\x92\xa3abc\x82\xa1a\x01\xa1a\x02", b"\x92\x92\xa1a\x81\x01\x01",
        b"\x92\x93aa\xa3abc\xc7\x00\x05", b"\x92\x92" + b"\xda\x10\x00" + b"x" * 4096 + b"\xa1\xff",
    ],
)  # fmt: skip
def test_a_body_that_breaks_off_leaves_nothing_behind(blob: bytes) -> None:
    def refuse(times: int) -> None:
        for _ in range(times):
            try:
                unpack_body(blob)
            except RemoteProtocolError:
                continue
            raise AssertionError("refused")

    refuse(10)
    tracemalloc.start()
    refuse(10)
    few, _ = tracemalloc.get_traced_memory()
    refuse(500)
    many, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert many - few < 20_000


def test_an_unauthenticated_client_makes_a_server_hold_at_most_one_small_frame() -> None:
    header = build_frame(Opcode.POST, Lane.CONTROL, 1, 1, bytes(MAX_CLIENT_BODY_BYTES))
    server = end(Side.SERVER)
    server.receive_data(header[:-1])
    assert drain(server) == []
    assert server.buffered_bytes == len(header) - 1
    assert sys.getsizeof(server.receive_buffer) < 1.2 * len(header)


def test_the_caps_of_a_text_hold_before_it_is_parsed() -> None:
    text = "[" + " " * json_mode.MAX_CLIENT_TEXT_BYTES + "]"
    assert calls_of(lambda: give(end(Side.SERVER, encoding=Encoding.JSON), text)) < 200
