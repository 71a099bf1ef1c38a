"""Invalid messages: bytes and texts, the state of their sender, and the resulting error or close code.

Data only. A close code ends the link; an `ErrorCode` refuses the one frame and the link stays open. Bytes are written
out where the packer would not make them.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..codes import CloseCode, Codec, ErrorCode, Lane, Opcode
from ..frames import MAX_BODY_BYTES, MAX_CLIENT_BODY_BYTES, MAX_FRAME_BYTES, MAX_ITEMS, pack_body
from ..messages import VERSION, Side
from ..state import LinkState

__all__ = ["MALFORMED", "Malformed"]


class Malformed(NamedTuple):
    """Invalid ``data`` (bytes, or one text) sent by ``side`` in ``state``; ``field`` is set for refusals."""

    name: str
    side: Side
    state: LinkState
    data: bytes | str
    code: CloseCode | ErrorCode
    field: str = ""


C, S = Side.CLIENT, Side.SERVER
SILENT, GREETED, OPEN, CLOSED = LinkState
BODY, FRAME, STATE = CloseCode.BAD_BODY, CloseCode.BAD_FRAME, CloseCode.OUT_OF_STATE
FIELD, LARGE = ErrorCode.BAD_FIELD, ErrorCode.PAYLOAD_TOO_LARGE


def _frame(opcode: int, body: bytes, flags: int = 0, length: int | None = None, version: int = VERSION) -> bytes:
    size = 16 + len(body) if length is None else length
    return struct.pack("!IBBHII", size, version, flags, opcode, 3, 5) + body


def _packed(opcode: int, *fields: object) -> bytes:
    return _frame(opcode, pack_body(fields))


def _post(kind: object, payload: object, client_msg_id: object = "m") -> bytes:
    return _packed(Opcode.POST, kind, client_msg_id, payload)


def _call(operation: object, key: object = "", arguments: object = ()) -> bytes:
    return _packed(Opcode.CALL, operation, key, arguments)


def _custom(payload: bytes) -> bytes:
    """Return a POST of custom type 128 with these bytes as its payload."""
    return _frame(Opcode.POST, b"\x93\xcc\x80\xa1m" + payload)


def _nested(levels: int) -> bytes:
    return b"\x91" * levels + b"\xc0"


HELLO = pack_body(("roomcast", 1, 1))

_HEADERS = [
    Malformed("version-0", C, SILENT, _frame(1, HELLO, version=0), CloseCode.UNSUPPORTED_VERSION),
    Malformed("version-2", C, SILENT, _frame(1, HELLO, version=2), CloseCode.UNSUPPORTED_VERSION),
    Malformed("http-request", C, SILENT, b"GET / HTTP/1.1\r\n\r\n", CloseCode.UNSUPPORTED_VERSION),
    Malformed("length-0", C, SILENT, _frame(1, HELLO, length=0), FRAME),
    Malformed("length-15", C, SILENT, _frame(1, HELLO, length=15), FRAME),
    Malformed("length-above-cap", C, SILENT, _frame(1, b"", length=MAX_FRAME_BYTES + 1), CloseCode.FRAME_TOO_LARGE),
    Malformed("length-4-gib", C, OPEN, _frame(5, b"", length=2**32 - 1), CloseCode.FRAME_TOO_LARGE),
    Malformed("opcode-0", C, SILENT, _frame(0, HELLO), CloseCode.UNKNOWN_OPCODE),
    Malformed("opcode-16", C, OPEN, _frame(16, b"\x90"), CloseCode.UNKNOWN_OPCODE),
    Malformed("opcode-19", C, OPEN, _frame(19, b"\x90"), CloseCode.UNKNOWN_OPCODE),
    Malformed("opcode-65535", S, OPEN, _frame(65535, b"\x90"), CloseCode.UNKNOWN_OPCODE),
    Malformed("flags-reserved-bit", C, SILENT, _frame(1, HELLO, flags=0x80), FRAME),
    Malformed("flags-lane-5", S, OPEN, _frame(8, b"\x90", flags=0x50), FRAME),
    Malformed("flags-codec-5", S, OPEN, _frame(8, b"\x90", flags=0x35), FRAME),
    Malformed("client-uses-a-lane", C, OPEN, _frame(5, b"\x93\x01\xa0\x91\xa1a", flags=0x30), FRAME),
    Malformed("client-compresses", C, OPEN, _frame(5, b"\x93\x01\xa0\x91\xa1a", flags=0x01), FRAME),
    Malformed("event-in-chat-lane", S, OPEN, _frame(7, b"\x95\x05\x00\xa0\xa0\xc0", flags=0x30), FRAME),
    Malformed("tick-in-control-lane", S, OPEN, _frame(8, b"\x94\x00\x00\x00\x90"), FRAME),
    Malformed("hello-too-large", C, SILENT, _frame(1, b"", length=4113), CloseCode.FRAME_TOO_LARGE),
    Malformed("auth-too-large", C, GREETED, _frame(2, b"", length=4113), CloseCode.FRAME_TOO_LARGE),
    Malformed("goaway-too-large", C, OPEN, _frame(14, b"", length=4113), CloseCode.FRAME_TOO_LARGE),
]

_STATES = [
    Malformed("auth-before-hello", C, SILENT, _packed(Opcode.AUTH, None), STATE),
    Malformed("ping-before-hello", C, SILENT, _packed(Opcode.PING, 0), STATE),
    Malformed("join-before-auth", C, GREETED, _packed(Opcode.JOIN, "lobby"), STATE),
    Malformed("call-before-auth", C, GREETED, _call(2, "", ("a",)), STATE),
    Malformed("client-sends-result", C, OPEN, _packed(Opcode.RESULT, 2, ()), STATE),
    Malformed("server-sends-result-before-auth", S, GREETED, _packed(Opcode.RESULT, 2, ()), STATE),
    Malformed("server-calls", S, OPEN, _call(2), STATE),
    Malformed("post-before-auth", C, GREETED, _post(1, ("hi",)), STATE),
    Malformed("second-hello", C, GREETED, _frame(1, HELLO), STATE),
    Malformed("client-sends-tick", C, OPEN, _packed(Opcode.TICK, 0, 0, 0, ()), STATE),
    Malformed("client-sends-error", C, OPEN, _packed(Opcode.ERROR, 101, ""), STATE),
    Malformed("frame-after-goaway", C, CLOSED, _packed(Opcode.PING, 0), STATE),
    Malformed("goaway-twice", C, CLOSED, _packed(Opcode.GOAWAY, 4411), STATE),
    Malformed("server-joins-before-auth", S, GREETED, _packed(Opcode.JOIN, "lobby"), STATE),
    Malformed("server-errs-before-hello", S, SILENT, _packed(Opcode.ERROR, 101, ""), STATE),
    Malformed("server-posts", S, OPEN, _post(1, ("hi",)), STATE),
    Malformed("server-hello-twice", S, OPEN, _packed(Opcode.HELLO, 1, 0, 0, 1, 1, 1), STATE),
    Malformed("header-of-a-frame-out-of-state", C, SILENT, _frame(5, b"", length=4000), STATE),
]

_MSGPACK = [
    Malformed("body-empty", C, SILENT, _frame(1, b""), BODY),
    Malformed("body-nil", C, SILENT, _frame(1, b"\xc0"), BODY),
    Malformed("body-map", C, OPEN, _frame(11, b"\x81\xa9client_ms\x00"), BODY),
    Malformed("body-two-arrays", C, OPEN, _frame(11, b"\x91\x00\x91\x00"), BODY),
    Malformed("body-trailing-byte", C, OPEN, _frame(4, b"\x90\x00"), BODY),
    Malformed("body-truncated-array", C, OPEN, _frame(3, b"\x92\xa5lobby"), BODY),
    Malformed("body-truncated-string", C, OPEN, _frame(3, b"\x91\xd9\xfflobby"), BODY),
    Malformed("body-truncated-integer", C, OPEN, _frame(11, b"\x91\xcf\x00\x00"), BODY),
    Malformed("body-never-used-byte", C, OPEN, _custom(b"\xc1"), BODY),
    Malformed("array-of-4-gi-elements", C, OPEN, _custom(b"\xdd\xff\xff\xff\xff"), BODY),
    Malformed("string-of-4-gib", C, OPEN, _custom(b"\xdb\xff\xff\xff\xff"), BODY),
    Malformed("map-of-4-gi-pairs", C, OPEN, _custom(b"\xdf\xff\xff\xff\xff"), BODY),
    Malformed("array-too-long", C, OPEN, _custom(b"\xdc\x04\x01" + b"\xc0" * (MAX_ITEMS + 1)), BODY),
    Malformed(
        "map-too-long", S, OPEN,
        _frame(
            Opcode.EVENT,
            b"\x95\xcc\x80\x00\xa0\xa0\xde\x04\x01" + b"".join(b"\xa4%04d\xc0" % n for n in range(MAX_ITEMS + 1)),
        ),
        BODY,
    ),
    Malformed("nested-1025-deep", C, OPEN, _custom(_nested(1024)), BODY),
    Malformed("nested-without-end", C, OPEN, _custom(b"\xdc\x04\x00" * 1000), BODY),
    Malformed("extension-type", C, OPEN, _custom(b"\xd4\x05\x00"), BODY),
    Malformed("extension-without-bytes", C, OPEN, _custom(b"\xc7\x00\x05"), BODY),
    Malformed("timestamp", C, OPEN, _custom(b"\xd6\xff\x00\x00\x00\x00"), BODY),
    Malformed("timestamp-of-no-bytes", C, OPEN, _custom(b"\xc7\x00\xff"), BODY),
    Malformed("key-twice", C, OPEN, _custom(b"\x82\xa1a\x01\xa1a\x02"), BODY),
    Malformed("key-twice-inside", C, OPEN, _custom(b"\x91\x82\xa1a\x01\xa1a\x02"), BODY),
    Malformed("integer-key", C, OPEN, _custom(b"\x81\x01\x01"), BODY),
    Malformed("nil-key", C, OPEN, _custom(b"\x81\xc0\x01"), BODY),
    Malformed("utf8-surrogate", C, OPEN, _custom(b"\xa3\xed\xa0\x80"), BODY),
    Malformed("utf8-overlong", C, OPEN, _custom(b"\xa2\xc0\xaf"), BODY),
    Malformed("utf8-lone-continuation", C, OPEN, _custom(b"\xa1\x80"), BODY),
    Malformed("utf8-above-unicode", C, OPEN, _custom(b"\xa4\xf4\x90\x80\x80"), BODY),
    Malformed("key-of-bad-utf8", C, OPEN, _custom(b"\x81\xa1\xff\x01"), BODY),
]  # fmt: skip

_FREE_VALUES = [
    Malformed("nested-17-deep", C, OPEN, _custom(_nested(17)), FIELD, "payload"),
    Malformed("maps-17-deep", C, OPEN, _custom(b"\x81\xa1a" * 17 + b"\xc0"), FIELD, "payload"),
    Malformed("nan", C, OPEN, _custom(b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"), FIELD, "payload"),
    Malformed("infinity", C, OPEN, _custom(b"\x91\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"), FIELD, "payload"),
    Malformed("float32-minus-infinity", C, OPEN, _custom(b"\xca\xff\x80\x00\x00"), FIELD, "payload"),
    Malformed("bin", C, OPEN, _custom(b"\xc4\x01a"), FIELD, "payload"),
    Malformed("bin-inside-a-map", C, OPEN, _custom(b"\x81\xa1a\xc4\x01a"), FIELD, "payload"),
    Malformed("bin-key", C, OPEN, _custom(b"\x81\xc4\x01a\x01"), FIELD, "payload"),
]

_HANDSHAKE = [
    Malformed("magic-wrong", C, SILENT, _packed(Opcode.HELLO, "roomcasd", 1, 1), BODY),
    Malformed("magic-bin", C, SILENT, _packed(Opcode.HELLO, b"roomcast", 1, 1), BODY),
    Malformed("hello-one-field", C, SILENT, _packed(Opcode.HELLO, "roomcast"), BODY),
    Malformed("hello-version-0", C, SILENT, _packed(Opcode.HELLO, "roomcast", 0, 1), BODY),
    Malformed("hello-features-negative", C, SILENT, _packed(Opcode.HELLO, "roomcast", 1, 1, -1), BODY),
    Malformed("hello-features-65-bits", C, SILENT, _packed(Opcode.HELLO, "roomcast", 1, 1, 2**64 - 1), BODY),
    Malformed("hello-agent-too-long", C, SILENT, _packed(Opcode.HELLO, "roomcast", 1, 1, 0, "a" * 129), BODY),
    Malformed("token-number", C, GREETED, _packed(Opcode.AUTH, 7), BODY),
    Malformed("token-empty", C, GREETED, _packed(Opcode.AUTH, ""), BODY),
    Malformed("token-line-feed", C, GREETED, _packed(Opcode.AUTH, "a\nb"), BODY),
    Malformed("goaway-code-too-small", C, OPEN, _packed(Opcode.GOAWAY, 999), BODY),
]

_REFUSED = [
    Malformed("type-0", C, OPEN, _post(0, None), FIELD, "type"),
    Malformed("type-256", C, OPEN, _post(256, None), FIELD, "type"),
    Malformed("type-true", C, OPEN, _post(True, ("a",)), FIELD, "type"),
    Malformed("type-float", C, OPEN, _post(1.0, ("a",)), FIELD, "type"),
    Malformed("type-unknown", C, OPEN, _post(99, None), ErrorCode.UNKNOWN_TYPE, "type"),
    Malformed("client-msg-id-65", C, OPEN, _post(1, ("a",), "m" * 65), FIELD, "client_msg_id"),
    Malformed("client-msg-id-nil", C, OPEN, _post(1, ("a",), None), FIELD, "client_msg_id"),
    Malformed("post-two-fields", C, OPEN, _packed(Opcode.POST, 1, "m"), FIELD, "payload"),
    Malformed("danmaku-string", C, OPEN, _post(1, "hi"), FIELD, "payload"),
    Malformed("danmaku-empty", C, OPEN, _post(1, ("",)), FIELD, "payload.text"),
    Malformed("danmaku-no-text", C, OPEN, _post(1, ()), FIELD, "payload.text"),
    Malformed("danmaku-101-characters", C, OPEN, _post(1, ("好" * 101,)), FIELD, "payload.text"),
    Malformed("danmaku-escape", C, OPEN, _post(1, ("\x1b[31m",)), FIELD, "payload.text"),
    Malformed("danmaku-line-separator", C, OPEN, _post(1, ("a\u2028b",)), FIELD, "payload.text"),
    Malformed("danmaku-bin", C, OPEN, _post(1, (b"hi",)), FIELD, "payload.text"),
    Malformed("style-two-fields", C, OPEN, _post(1, ("a", (0, 0))), FIELD, "payload.style"),
    Malformed("style-color-too-large", C, OPEN, _post(1, ("a", (0, 0x1000000, 0))), FIELD, "payload.style"),
    Malformed("like-0", C, OPEN, _post(3, (0,)), FIELD, "payload.count"),
    Malformed("like-1001", C, OPEN, _post(3, (1001,)), FIELD, "payload.count"),
    Malformed("like-stuffed", C, OPEN, _post(3, (1, "x" * 1100)), LARGE, "body"),
    Malformed("danmaku-stuffed", C, OPEN, _post(1, ("a", None, "x" * 1100)), LARGE, "body"),
    Malformed("body-4097-bytes", C, OPEN, _custom(b"\xda\x0f\xf9" + b"x" * 4089), LARGE, "body"),
    Malformed("ping-too-large", C, GREETED, _frame(11, b"", length=16 + MAX_CLIENT_BODY_BYTES + 1), LARGE, "body"),
    Malformed("join-name-empty", C, OPEN, _packed(Opcode.JOIN, ""), FIELD, "room_name"),
    Malformed("join-name-slash", C, OPEN, _packed(Opcode.JOIN, "a/b"), FIELD, "room_name"),
    Malformed("join-name-65", C, OPEN, _packed(Opcode.JOIN, "a" * 65), FIELD, "room_name"),
    Malformed("join-name-line-feed", C, OPEN, _packed(Opcode.JOIN, "a\n"), FIELD, "room_name"),
    Malformed("join-tier-7", C, OPEN, _packed(Opcode.JOIN, "a", 7), FIELD, "tier"),
    Malformed("resume-two-fields", C, OPEN, _packed(Opcode.RESUME, "a", 20), FIELD, "epoch"),
    Malformed("resume-offset-above-2-53", C, OPEN, _packed(Opcode.RESUME, "a", 20, 1, 2**53), FIELD, "offset"),
    Malformed("ack-negative", C, OPEN, _packed(Opcode.ACK, -1), FIELD, "direct_id"),
    Malformed("ping-renew-number", C, OPEN, _packed(Opcode.PING, 0, 1), FIELD, "renew"),
    Malformed("call-operation-0", C, OPEN, _call(0), FIELD, "operation"),
    Malformed("call-operation-65536", C, OPEN, _call(65_536), FIELD, "operation"),
    Malformed("call-operation-true", C, OPEN, _call(True), FIELD, "operation"),
    Malformed("call-operation-nil", C, OPEN, _call(None), FIELD, "operation"),
    Malformed("call-name-empty", C, OPEN, _call(""), FIELD, "operation"),
    Malformed("call-name-65", C, OPEN, _call("a" * 65), FIELD, "operation"),
    Malformed("call-name-escape", C, OPEN, _call("\x1b[2J"), FIELD, "operation"),
    Malformed("call-key-nil", C, OPEN, _call(2, None), FIELD, "key"),
    Malformed("call-key-129", C, OPEN, _call(2, "k" * 129), FIELD, "key"),
    Malformed("call-key-line-feed", C, OPEN, _call(2, "k\n"), FIELD, "key"),
    Malformed("call-arguments-nil", C, OPEN, _call(2, "", None), FIELD, "arguments"),
    Malformed("call-arguments-string", C, OPEN, _call(2, "", "lobby"), FIELD, "arguments"),
    Malformed("call-two-fields", C, OPEN, _packed(Opcode.CALL, 2, ""), FIELD, "arguments"),
    Malformed("call-stuffed", C, OPEN, _call(20, "", ("lobby", 4, ("x" * 4096,))), LARGE, "body"),
    Malformed("ping-float", C, OPEN, _packed(Opcode.PING, 0.5), FIELD, "client_ms"),
]


def _tick(codec: Codec, raw_bytes: int, block: bytes) -> bytes:
    return _frame(Opcode.TICK, struct.pack("!H", raw_bytes) + block, flags=Lane.CHAT << 4 | codec)


# lz4 blocks written out, because the output of compressors differs between versions. A sequence is a token
# (literals << 4 | match length - 4), the literals, and the distance of the match as u16 little-endian; the last one has
# only literals.
_RAW = pack_body((0, 100, 0, (), (0, 0, 0, 0, 0, 0)))
_LITERALS = bytes([len(_RAW) << 4]) + _RAW
_TAIL = b"\xc0" + bytes(12)
_MATCH = b"\x10\x00\x01\x00" + _TAIL
_MATCH_IN_DICTIONARY = b"\x10\x00\x80\x00" + _TAIL
_ZEROS = b"\x1f\x00\x01\x00" + b"\xff" * 256 + bytes([MAX_BODY_BYTES - 1 - 19 - 255 * 256 - 12]) + _TAIL

COMPRESSION = CloseCode.BAD_COMPRESSION
_COMPRESSED = [
    Malformed(f"compressed-{name}", S, OPEN, data, code)
    for name, data, code in [
        ("empty", _frame(Opcode.TICK, b"", flags=0x31), COMPRESSION),
        ("no-block", _frame(Opcode.TICK, b"\x00\x10", flags=0x31), COMPRESSION),
        ("size-above-cap", _tick(Codec.LZ4, MAX_BODY_BYTES + 1, _ZEROS), COMPRESSION),
        ("size-above-any-body", _tick(Codec.LZ4, 2**16 - 1, _ZEROS), COMPRESSION),
        ("size-too-small", _tick(Codec.LZ4, len(_RAW) - 1, _LITERALS), COMPRESSION),
        ("size-too-large", _tick(Codec.LZ4, len(_RAW) + 1, _LITERALS), COMPRESSION),
        ("size-0", _tick(Codec.LZ4, 0, _LITERALS), COMPRESSION),
        ("truncated", _tick(Codec.LZ4, len(_RAW), _LITERALS[:-1]), COMPRESSION),
        ("trailing-byte", _tick(Codec.LZ4, len(_RAW), _LITERALS + b"\x00"), COMPRESSION),
        ("match-before-start", _tick(Codec.LZ4, 17, _MATCH_IN_DICTIONARY), COMPRESSION),
        ("match-before-dictionary", _tick(Codec.LZ4_DICT_1, 17, b"\x10\x00\xff\xff" + _TAIL), COMPRESSION),
        ("dictionary-not-here", _tick(Codec.LZ4_DICT_2, len(_RAW), _LITERALS), COMPRESSION),
        ("match-without-offset", _tick(Codec.LZ4, 17, b"\x10\x00\x01"), COMPRESSION),
        ("length-without-end", _tick(Codec.LZ4, 17, b"\xf0" + b"\xff" * 64), COMPRESSION),
        ("zeros-250-to-1", _tick(Codec.LZ4, MAX_BODY_BYTES, _ZEROS), BODY),
        ("zeros-17", _tick(Codec.LZ4, 17, _MATCH), BODY),
        ("plain-body", _frame(Opcode.TICK, _RAW, flags=0x31), COMPRESSION),
    ]
]

_FROM_SERVER = [
    Malformed("ack-unknown-outcome", S, OPEN, _packed(Opcode.ACK, ((1, 99),)), BODY),
    Malformed("ack-result-not-array", S, OPEN, _packed(Opcode.ACK, (1,)), BODY),
    Malformed("leave-unknown-reason", S, OPEN, _packed(Opcode.LEAVE, 77), BODY),
    Malformed("error-code-99", S, OPEN, _packed(Opcode.ERROR, 99, ""), BODY),
    Malformed("result-operation-0", S, OPEN, _packed(Opcode.RESULT, 0, ()), BODY),
    Malformed("result-without-a-result", S, OPEN, _packed(Opcode.RESULT, 2), BODY),
    Malformed("result-nested-18-deep", S, OPEN, _frame(Opcode.RESULT, b"\x92\x02" + _nested(18)), BODY),
    Malformed("auth-ticket-nil", S, GREETED, _packed(Opcode.AUTH, "u", "", 0, None), BODY),
    Malformed("pong-no-fields", S, OPEN, _packed(Opcode.PONG), BODY),
    Malformed("custom-type-127", S, SILENT, _packed(Opcode.HELLO, 1, 0, 0, 1, 1, 1, ((127, "x", 1),)), BODY),
    Malformed(
        "tick-three-levels-deep-fault", S, OPEN,
        _frame(Opcode.TICK, pack_body((0, 0, 0, ((1, "u", "", None, 1, ("a", "b", "c", "d")),))), flags=0x30), BODY,
    ),
    Malformed(
        "event-nested-17-deep", S, OPEN,
        _frame(Opcode.EVENT, b"\x95\x80\x00\xa0\xa0".replace(b"\x80", b"\xcc\x80") + _nested(17), flags=0x10), BODY,
    ),
]  # fmt: skip

_TEXTS = [
    Malformed("text-empty", C, OPEN, "", BODY),
    Malformed("text-not-json", C, OPEN, '{"op":', BODY),
    Malformed("text-two-values", C, OPEN, '{"op":"PING"} {}', BODY),
    Malformed("text-nan", C, OPEN, '{"op":"PING","body":[NaN]}', BODY),
    Malformed("text-key-twice", C, OPEN, '{"op":"PING","op":"PING"}', BODY),
    Malformed("text-key-twice-inside", C, OPEN, '{"op":"PING","body":{"client_ms":1,"client_ms":1}}', BODY),
    Malformed("text-no-frames", C, OPEN, "[]", BODY),
    Malformed("text-1025-frames", C, OPEN, "[" + ",".join(["0"] * 1025) + "]", BODY),
    Malformed("text-array-too-long", C, OPEN, '{"op":"PING","body":[' + ",".join(["0"] * 1025) + "]}", BODY),
    Malformed("text-nested-33-deep", C, OPEN, '{"op":"PING","body":' + "[" * 32 + "]" * 32 + "}", BODY),
    Malformed("text-nested-without-end", C, OPEN, "[" * 5000, BODY),
    Malformed("text-integer-of-5000-digits", C, OPEN, '{"op":"PING","body":[' + "9" * 5000 + "]}", BODY),
    Malformed("text-lone-surrogate", C, OPEN, '{"op":"JOIN","body":["\\ud800"]}', BODY),
    Malformed("text-call-operation-float", C, OPEN, '{"op":"CALL","body":[2.0,"",{}]}', FIELD, "operation"),
    Malformed("text-call-arguments-string", C, OPEN, '{"op":"CALL","body":["rooms.get","","a"]}', FIELD, "arguments"),
    Malformed("text-number", C, OPEN, "7", FRAME),
    Malformed("text-array-in-array", C, OPEN, "[[]]", FRAME),
    Malformed("text-no-op", C, OPEN, '{"body":[0]}', CloseCode.UNKNOWN_OPCODE),
    Malformed("text-op-number", C, OPEN, '{"op":11,"body":[0]}', CloseCode.UNKNOWN_OPCODE),
    Malformed("text-op-lower-case", C, OPEN, '{"op":"ping","body":[0]}', CloseCode.UNKNOWN_OPCODE),
    Malformed("text-unknown-key", C, OPEN, '{"op":"PING","sequence":1,"body":[0]}', FRAME),
    Malformed("text-lane-5", C, OPEN, '{"op":"PING","lane":5,"body":[0]}', FRAME),
    Malformed("text-client-uses-a-lane", C, OPEN, '{"op":"PING","lane":1,"body":[0]}', FRAME),
    Malformed("text-seq-negative", C, OPEN, '{"op":"PING","seq":-1,"body":[0]}', FRAME),
    Malformed("text-room-33-bits", C, OPEN, '{"op":"LEAVE","room":4294967296}', FRAME),
    Malformed("text-body-string", C, OPEN, '{"op":"PING","body":"0"}', BODY),
    Malformed("text-body-nil", C, OPEN, '{"op":"PING","body":null}', BODY),
    Malformed("text-out-of-state", C, SILENT, '{"op":"PING","body":[0]}', STATE),
    Malformed("text-field-missing", C, OPEN, '{"op":"PING"}', FIELD, "client_ms"),
    Malformed("text-float-for-integer", C, OPEN, '{"op":"PING","body":{"client_ms":1.0}}', FIELD, "client_ms"),
    Malformed("text-infinite-float", C, OPEN, '{"op":"POST","body":[128,"",1e999]}', FIELD, "payload"),
    Malformed("text-integer-65-bits", C, OPEN, '{"op":"POST","body":[128,"",18446744073709551616]}', FIELD, "payload"),
    Malformed("text-body-4097-bytes", C, OPEN, '{"op":"POST","body":[128,"","' + "x" * 4087 + '"]}', LARGE, "body"),
]  # fmt: skip

MALFORMED: tuple[Malformed, ...] = (
    *_HEADERS, *_STATES, *_MSGPACK, *_FREE_VALUES, *_HANDSHAKE, *_REFUSED, *_COMPRESSED, *_FROM_SERVER, *_TEXTS,
)  # fmt: skip
"""All invalid messages; a test checks the code of each, in any split of its bytes."""
