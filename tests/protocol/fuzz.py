"""Fuzz the connection: mutated frames and texts, seeded, any number of them.

    python -m tests.protocol.fuzz --frames 1000000 --seed 7

Each input is one to three frames of the golden vectors (both sides, plain and compressed, good and bad), mutated, with
the length in the header mended now and then so that the damage reaches the decoders, and given to an end of a link in
a random state, whole and again in random pieces. What must hold every time:

- only events come out, or `RemoteProtocolError` with a known code, which is then latched;
- pieces give what the whole gives;
- between reads no more is held than one incomplete frame.

The first input that breaks one of these is printed with its seed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from protocol.codes import CloseCode, Codec, Opcode
from protocol.connection import NEED_DATA, Connection, Encoding, Frame, Refused, encode
from protocol.errors import RemoteProtocolError
from protocol.frames import HEADER_BYTES, MAX_CLIENT_BODY_BYTES, MAX_FRAME_BYTES, pack_body, unpack_body
from protocol.messages import Side
from protocol.state import LinkState
from protocol.vectors.malformed import MALFORMED
from protocol.vectors.samples import SAMPLES

__all__ = ["Report", "fuzz"]

NASTY = bytes.fromhex("00017f8081909192939fa0a1bfc0c1c2c4c5c6c7c8c9cacbcccdcfd0d3d4d6d8d9dadbdcdddedfe0ff")
"""Bytes that mean something to msgpack, UTF-8 or lz4."""
NASTY_TEXT = [
    "",
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    "\\ud800",
    "null",
    "1e999",
    "-1",
    "9" * 30,
    ",",
    ":",
    "NaN",
    "\x00",
    "é🌹",
    '"op":"POST",',
]


NASTY_VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 5, 20, 100, 101, 128, 255, 256, 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**64 - 1,
    -(2**63), 0.0, 1.0, -0.5, float("nan"), float("inf"), "", "a", "a" * 64, "a" * 65, "好" * 100, "x" * 300, "\x00",
    "\n", "\u2028", "\u200d", b"", b"bytes", (), ("hi",), ("hi", None), ((),), (1, 2, 3), {}, {"text": "hi"},
    {"a": {"b": (1,)}}, {"u": {"code": "1"}}, (((((),),),),),
]  # fmt: skip


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass
class Report:
    """What a run has seen."""

    frames: int = 0
    inputs: int = 0
    events: int = 0
    refusals: int = 0
    closes: Counter[str] = field(default_factory=Counter)
    failure: str = ""

    def __str__(self) -> str:
        codes = ", ".join(f"{name} {count:,}" for name, count in self.closes.most_common())
        return (
            f"{self.frames:,} frames in {self.inputs:,} inputs: {self.events:,} events, {self.refusals:,} refusals, "
            f"{self.closes.total():,} closes ({codes})"
        )


def corpus(side: Side) -> list[bytes]:
    """Frames that ``side`` might send: good ones, and about one bad one for two good ones."""
    good = []
    for each in SAMPLES:
        if each.side is side:
            codecs = (Codec.PLAIN, Codec.LZ4, Codec.LZ4_DICT_1)[: 3 if side is Side.SERVER else 1]
            good += [encode(each.message, each.room, each.sequence, each.lane, codec=codec) for codec in codecs]
    bad = [each.data for each in MALFORMED if each.side is side and isinstance(each.data, bytes)]
    return good * (1 + 2 * len(bad) // len(good)) + bad


def texts(side: Side) -> list[str]:
    """Texts that ``side`` might send, good and bad."""
    found = [bad.data for bad in MALFORMED if bad.side is side and isinstance(bad.data, str)]
    for each in SAMPLES:
        if each.side is side:
            wire = encode(each.message, each.room, each.sequence, each.lane, Encoding.JSON)
            found.append(wire.decode())
    return found


# ---- mutations


def mutate(data: bytes, rng: Random, others: list[bytes]) -> bytes:
    """Damage one frame: a value of its body, or one to four places of its bytes (mostly behind the header)."""
    chance = rng.random()
    if chance < 0.15:
        return data
    if chance < 0.4:
        return mutate_value(data, rng)
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(damaged)
        low = HEADER_BYTES if rng.random() < 0.9 and size > HEADER_BYTES else 0
        at = rng.randrange(low, size + 1)
        match rng.randrange(9):
            case 0 if at < size:
                damaged[at] ^= 1 << rng.randrange(8)
            case 1 | 2 if at < size:
                damaged[at] = rng.choice(NASTY)
            case 3:
                damaged.insert(at, rng.choice(NASTY))
            case 4:
                del damaged[at : at + rng.randrange(1, 9)]
            case 5:
                damaged[at:at] = damaged[at : at + rng.randrange(1, 64)] * rng.randrange(1, 5)
            case 6:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                damaged[at : at + rng.randrange(0, 16)] = other[start : start + rng.randrange(1, 48)]
            case 7:
                del damaged[at:]
            case _:
                damaged[at : at + 4] = rng.randbytes(rng.randrange(1, 9))
    return mended(bytes(damaged)) if rng.random() < 0.8 else bytes(damaged)


def mended(frame: bytes) -> bytes:
    """The frame with its true length in its header."""
    return len(frame).to_bytes(4, "big") + frame[4:] if len(frame) >= 4 else frame


def mutate_value(data: bytes, rng: Random) -> bytes:
    """Put another value somewhere into a body that can be unpacked; other frames stay as they are."""
    try:
        body: Any = unpack_body(data[HEADER_BYTES:])
    except RemoteProtocolError:
        return data

    def changed(value: Any) -> Any:
        if rng.random() < 0.3 or not isinstance(value, (tuple, dict)) or not value:
            return rng.choice(NASTY_VALUES)
        if isinstance(value, dict):
            return value | {rng.choice(list(value)): rng.choice(NASTY_VALUES)}
        at = rng.randrange(len(value))
        return (*value[:at], changed(value[at]), *value[at + 1 + rng.choice((0, 0, 0, 1)) :])

    return mended(data[:HEADER_BYTES] + pack_body(changed(body) if body else (rng.choice(NASTY_VALUES),)))


def mutate_text(data: str, rng: Random, others: list[str]) -> str:
    """Damage one text in one to four places."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data = data[:at] + data[at + rng.randrange(1, 9) :]
            case 1:
                data = data[:at] + rng.choice(NASTY_TEXT) + data[at:]
            case 2:
                data = data[:at] + rng.choice(NASTY_TEXT) + data[at + rng.randrange(1, 6) :]
            case _:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                data = data[:at] + other[start : start + rng.randrange(1, 60)] + data[at:]
    return data


# ---- one input


def other_end(sender: Side, state: LinkState, encoding: Encoding) -> Connection:
    connection = Connection(Side.SERVER if sender is Side.CLIENT else Side.CLIENT, encoding)
    connection.peer_state, connection.local_state = state, LinkState.OPEN
    return connection


def drain(connection: Connection, found: list[object]) -> bool:
    """Read everything; say whether the link is still alive."""
    for _ in range(MAX_FRAME_BYTES):
        try:
            event = connection.next_event()
        except RemoteProtocolError as error:
            if not isinstance(error.code, CloseCode) or not error.reason.isascii():
                raise Broken(f"{error!r} is no close of ours") from error
            found.append((error.code, error.reason))
            try:
                connection.next_event()
            except RemoteProtocolError:
                return False
            raise Broken("a broken link came back to life") from error
        if event is NEED_DATA:
            return True
        if not isinstance(event, (Frame, Refused)):
            raise Broken(f"{event!r} is no event")
        found.append(event)
    raise Broken("no end of events")


def read_bytes(sender: Side, state: LinkState, pieces: list[bytes]) -> list[object]:
    """Events of an input given in ``pieces``; checks what is held between them."""
    connection = other_end(sender, state, Encoding.BINARY)
    cap = HEADER_BYTES + MAX_CLIENT_BODY_BYTES if sender is Side.CLIENT else MAX_FRAME_BYTES
    found: list[object] = []
    for piece in pieces:
        connection.receive_data(piece)
        alive = drain(connection, found)
        held = len(connection.receive_buffer)
        if held != connection.buffered_bytes or held >= cap:
            raise Broken(f"{held} bytes are held")
        if not alive:
            break
    return found


def read_text(sender: Side, state: LinkState, text: str) -> list[object]:
    connection = other_end(sender, state, Encoding.JSON)
    connection.receive_text(text)
    found: list[object] = []
    drain(connection, found)
    return found


def cut(data: bytes, rng: Random) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 5)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


STATES = tuple(LinkState)


def state_for(frame: bytes) -> LinkState:
    """A state in which this frame, by its opcode, may come."""
    opcode = int.from_bytes(frame[6:8], "big")
    return {Opcode.HELLO: LinkState.SILENT, Opcode.AUTH: LinkState.GREETED}.get(opcode, LinkState.OPEN)  # type: ignore[call-overload,no-any-return]


def fuzz(frames: int, seed: int) -> Report:
    """Give ``frames`` mutated frames to ends of links; ``failure`` is set at the first promise that is not kept."""
    rng = Random(seed)
    frames_of, texts_of = {side: corpus(side) for side in Side}, {side: texts(side) for side in Side}
    report = Report()
    while report.frames < frames:
        sender = rng.choice((Side.CLIENT, Side.CLIENT, Side.SERVER))
        state = LinkState.OPEN
        given: bytes | str = ""
        count = 1
        try:
            if rng.random() < 0.1:
                given = mutate_text(rng.choice(texts_of[sender]), rng, texts_of[sender])
                found = read_text(sender, state, given)
            else:
                count = rng.choice((1, 1, 1, 2, 3))
                picked = [rng.choice(frames_of[sender]) for _ in range(count)]
                state = rng.choice(STATES) if rng.random() < 0.1 else state_for(picked[0])
                given = b"".join(mutate(each, rng, frames_of[sender]) for each in picked)
                found = read_bytes(sender, state, [given])
                in_pieces = read_bytes(sender, state, cut(given, rng))
                if in_pieces != found and repr(in_pieces) != repr(found):  # NaN is not equal to itself
                    raise Broken("pieces give something else than the whole")
        except Exception as error:
            shown = given.hex() if isinstance(given, bytes) else given
            report.failure = f"{type(error).__name__}: {error}\n{sender.name} in {state.value} sent {shown!r}"
            return report
        report.frames += count
        report.inputs += 1
        for event in found:
            if isinstance(event, Frame):
                report.events += 1
            elif isinstance(event, Refused):
                report.refusals += 1
            else:
                report.closes[event[0].name] += 1  # type: ignore[index]
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the protocol's connection with mutated frames.")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.perf_counter()
    report = fuzz(options.frames, options.seed)
    spent_s = time.perf_counter() - began
    print(f"seed {options.seed}: {report}; {report.frames / spent_s:,.0f} frames/s")
    if report.failure:
        print(f"FAILED after {report.frames:,} frames: {report.failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
