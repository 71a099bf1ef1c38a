"""`Connection`: one end of one link, without I/O. Bytes in, events out; messages in, bytes out.

Call `receive_data` with whatever arrived, then `next_event` until it returns `NEED_DATA`. Call `send` and write
what it returns. The same object serves both ends, TCP and WebSocket, binary and JSON.

What a peer does wrong falls in two classes. A frame that is well formed but says something a field's rule
forbids is *refused*: a server sees a `Refused` event, answers ERROR, and the link lives. Anything else ends
the link: `RemoteProtocolError`, once raised, is raised for ever. No other exception leaves `next_event`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, NamedTuple

import msgpack
from msgpack import unpackb

from . import json_mode
from .codes import (
    CUSTOM_TYPE_MIN,
    MESSAGE_TYPES,
    CloseCode,
    Codec,
    ErrorCode,
    Lane,
    MessageType,
    Opcode,
)
from .compression import decompress
from .errors import LocalProtocolError, RemoteProtocolError
from .fields import FieldError
from .frames import (
    HEADER_BYTES,
    MAX_CLIENT_BODY_BYTES,
    Header,
    build_frame,
    header_fields,
    pack_body,
    parse_header,
    unpack_body,
)
from .messages import OPCODE_LANES, VERSION, Message, Post, Side, opcode_of, reader_of
from .payloads import MAX_DANMAKU_CHARS, DanmakuPayload, check_payload
from .state import ANSWERS, TRANSITIONS, LinkState

__all__ = ["NEED_DATA", "Connection", "Encoding", "Frame", "NeedData", "Refused", "encode"]


class NeedData(Enum):
    """Type of `NEED_DATA`."""

    NEED_DATA = "need data"


NEED_DATA: Final = NeedData.NEED_DATA
"""What `Connection.next_event` returns when only more bytes can help."""


class Encoding(Enum):
    """How bodies are written on this link."""

    BINARY = "binary"
    JSON = "json"


class Frame(NamedTuple):
    """One received frame."""

    opcode: Opcode
    lane: Lane
    room: int
    sequence: int
    message: Message


class Refused(NamedTuple):
    """A client's frame that was well formed and broke a rule; answer it with an ERROR (or a REJECTED ack)."""

    opcode: Opcode
    room: int
    sequence: int
    code: ErrorCode
    field: str
    rule: str


_CLIENT, _SERVER = Side.CLIENT, Side.SERVER
_SILENT, _OPEN = LinkState.SILENT, LinkState.OPEN
_POST, _CONTROL = Opcode.POST, Lane.CONTROL
_new = tuple.__new__
_DANMAKU_FRAME_BYTES = HEADER_BYTES + MESSAGE_TYPES[MessageType.DANMAKU].max_bytes
_NOT_QUICK = (ValueError, TypeError, msgpack.UnpackException, RecursionError)
_HANDSHAKE = frozenset({Opcode.HELLO, Opcode.AUTH})


class Connection:
    """State of one end of one link.

    ``side`` is our own side. ``encoding`` is fixed by the WebSocket subprotocol before the first frame. A
    connection holds at most one incomplete frame (64 KiB) besides what `receive_data` was given last.
    """

    __slots__ = ("_buffer", "_error", "_position", "_queue", "encoding", "our_state", "peer_state", "side")

    def __init__(self, side: Side, encoding: Encoding = Encoding.BINARY) -> None:
        self.side = side
        self.encoding = encoding
        self.our_state = _SILENT
        self.peer_state = _SILENT
        self._buffer: bytes | bytearray = b""
        self._position = 0
        self._error: RemoteProtocolError | None = None
        self._queue: list[Frame | Refused] | None = None

    # ---- receiving

    def receive_data(self, data: bytes) -> None:
        """Take bytes of a binary link, in any split. O(len(data)); nothing is judged before `next_event`."""
        if self._position < len(self._buffer):
            rest = self._buffer
            if type(rest) is bytes:
                rest = bytearray(rest[self._position :])
            elif self._position:
                del rest[: self._position]  # type: ignore[union-attr]
            rest += data
            self._buffer = rest
        else:
            self._buffer = data
        self._position = 0

    def receive_text(self, data: str) -> None:
        """Take one text message of a JSON link: an object or an array of objects."""
        if self._error is not None:
            return
        try:
            found = json_mode.parse(data)
            events = [self._judge_json(each) for each in found]
        except RemoteProtocolError as error:
            self._error = error
            return
        self._queue = [*(self._queue or ()), *events]

    def next_event(self) -> Frame | Refused | NeedData:
        """Return the next frame, a refusal (server side only), or NEED_DATA.

        Raises RemoteProtocolError when the peer broke the protocol; the link is then of no further use.
        """
        if self._error is not None:
            raise self._error
        if self._queue:
            return self._queue.pop(0)
        buffer, position = self._buffer, self._position
        available = len(buffer) - position
        if available < HEADER_BYTES:
            if not available:
                self._buffer, self._position = b"", 0
            return NEED_DATA
        if self.peer_state is _OPEN and self.side is _SERVER:
            danmaku = self._quick_danmaku(buffer, position, available)
            if danmaku is not None:
                return danmaku
        try:
            header = parse_header(buffer, position)
            length = header.length
            if available < length:
                self._check_allowed(header)
                if type(buffer) is bytes:
                    self._buffer, self._position = bytearray(buffer[position:]), 0
                return NEED_DATA
            self._position = position + length
            return self._judge(header, bytes(buffer[position + HEADER_BYTES : position + length]))
        except RemoteProtocolError as error:
            self._error = error
            raise

    def _quick_danmaku(self, buffer: bytes | bytearray, position: int, available: int) -> Frame | None:
        """Read a whole, plain, unstyled danmaku at ``position``; None for anything else or anything odd.

        A flood is made of these. What this accepts, `_judge` reads the same (a test holds them together),
        five times slower.
        """
        length, version, flags, opcode, room, sequence = header_fields(buffer, position)
        if opcode != 5 or flags or version != VERSION or not HEADER_BYTES < length <= _DANMAKU_FRAME_BYTES:
            return None
        if available < length:
            return None
        end = position + length
        try:
            kind, client_msg_id, payload = unpackb(
                buffer[position + HEADER_BYTES : end], use_list=False, strict_map_key=True
            )
            (text,) = payload
        except _NOT_QUICK:
            return None
        if (
            kind != 1
            or type(kind) is not int
            or type(text) is not str
            or type(payload) is not tuple
            or not 0 < len(text) <= MAX_DANMAKU_CHARS
            or not text.isprintable()
            or type(client_msg_id) is not str
            or len(client_msg_id) > 64
            or not client_msg_id.isprintable()
        ):
            return None
        self._position = end
        post = _new(Post, (1, client_msg_id, _new(DanmakuPayload, (text, None))))
        return _new(Frame, (_POST, _CONTROL, room, sequence, post))

    def _check_allowed(self, header: Header) -> LinkState:
        """Refuse what this peer may not send now before its body has arrived."""
        return self._next_state(header.opcode, header.lane, header.codec)

    def _next_state(self, opcode: Opcode, lane: Lane, codec: int) -> LinkState:
        peer = _SERVER if self.side is _CLIENT else _CLIENT
        state = TRANSITIONS[peer].get((self.peer_state, opcode))
        if state is None:
            raise RemoteProtocolError(
                CloseCode.OUT_OF_STATE, f"{opcode.name} may not be sent when {self.peer_state.value}"
            )
        if peer is _SERVER:
            needed = ANSWERS.get(opcode)
            if needed is not None and self.our_state not in needed:
                raise RemoteProtocolError(CloseCode.OUT_OF_STATE, f"{opcode.name} answers nothing")
            if lane not in OPCODE_LANES[opcode]:
                raise RemoteProtocolError(CloseCode.BAD_FRAME, f"{opcode.name} may not use lane {lane}")
        elif lane or codec:
            raise RemoteProtocolError(CloseCode.BAD_FRAME, "a client's flags are zero")
        return state

    def _judge(self, header: Header, body: bytes) -> Frame | Refused:
        _, codec, lane, opcode, room, sequence = header
        state = self._next_state(opcode, lane, codec)
        if self.side is _SERVER and len(body) > MAX_CLIENT_BODY_BYTES:
            rule = f"must be at most {MAX_CLIENT_BODY_BYTES} bytes"
            return self._refuse(opcode, room, sequence, ErrorCode.PAYLOAD_TOO_LARGE, "body", rule)
        if codec != Codec.PLAIN:
            body = decompress(body, codec)
        fields = unpack_body(body)
        if opcode is Opcode.POST and self.side is _SERVER:
            return self._read_post(room, sequence, fields, len(body))
        return self._finish(opcode, lane, room, sequence, fields, state)

    def _judge_json(self, found: json_mode.JsonFrame) -> Frame | Refused:
        opcode, lane, room, sequence, body, nbytes = found
        state = self._next_state(opcode, lane, Codec.PLAIN)
        if self.side is _SERVER and nbytes > MAX_CLIENT_BODY_BYTES:
            rule = f"must be at most {MAX_CLIENT_BODY_BYTES} bytes"
            return self._refuse(opcode, room, sequence, ErrorCode.PAYLOAD_TOO_LARGE, "body", rule)
        if opcode is Opcode.POST and self.side is _SERVER:
            return self._read_post(room, sequence, body, nbytes)
        return self._finish(opcode, lane, room, sequence, body, state)

    def _finish(
        self, opcode: Opcode, lane: Lane, room: int, sequence: int, body: Any, state: LinkState
    ) -> Frame | Refused:
        peer = _SERVER if self.side is _CLIENT else _CLIENT
        try:
            message = reader_of(peer, opcode)(body)
        except FieldError as error:
            return self._refuse(opcode, room, sequence, ErrorCode.BAD_FIELD, error.field, error.rule)
        self.peer_state = state
        return Frame(opcode, lane, room, sequence, message)

    def _read_post(self, room: int, sequence: int, body: Any, nbytes: int) -> Frame | Refused:
        """Read a POST with its payload typed; the hot path of a busy room."""
        try:
            post: Post = reader_of(_CLIENT, Opcode.POST)(body)
            kind = post.type
            rule = MESSAGE_TYPES.get(kind)
            if rule is None:
                if kind < CUSTOM_TYPE_MIN:
                    return self._refuse_post(room, sequence, ErrorCode.UNKNOWN_TYPE, "type", "is not known")
            elif nbytes > rule.max_bytes:
                return self._refuse_post(
                    room, sequence, ErrorCode.PAYLOAD_TOO_LARGE, "body",
                    f"must be at most {rule.max_bytes} bytes for {MessageType(kind).name}",
                )  # fmt: skip
            payload = check_payload(kind, post.payload)
        except FieldError as error:
            return self._refuse_post(room, sequence, ErrorCode.BAD_FIELD, error.field, error.rule)
        return Frame(Opcode.POST, Lane.CONTROL, room, sequence, Post(kind, post.client_msg_id, payload))

    def _refuse_post(self, room: int, sequence: int, code: ErrorCode, field: str, rule: str) -> Refused:
        return Refused(Opcode.POST, room, sequence, code, field, rule)

    def _refuse(self, opcode: Opcode, room: int, sequence: int, code: ErrorCode, field: str, rule: str) -> Refused:
        """Refuse a frame and keep the link, unless the link cannot go on without that frame."""
        if self.side is _CLIENT or opcode in _HANDSHAKE or opcode is Opcode.GOAWAY:
            where = f"{opcode.name}.{field}" if field else opcode.name
            raise RemoteProtocolError(CloseCode.BAD_BODY, f"{where} {rule}")
        return Refused(opcode, room, sequence, code, field, rule)

    # ---- sending

    def send(self, message: Message, room: int = 0, sequence: int = 0, lane: Lane | None = None) -> bytes:
        """Frame one message, moving our state; returns the bytes to write (UTF-8 JSON on a JSON link).

        ``lane`` is needed for an EVENT only. Raises LocalProtocolError when our state forbids the message or
        the frame would be too large; the state is then unchanged.
        """
        opcode = opcode_of(message)
        state = TRANSITIONS[self.side].get((self.our_state, opcode))
        if state is None or reader_of(self.side, opcode) is None:
            raise LocalProtocolError(f"{opcode.name} may not be sent when {self.our_state.value}")
        if lane is None:
            lane = Lane.CONTROL if self.side is _CLIENT else min(OPCODE_LANES[opcode])
        data = encode(message, room, sequence, lane, self.encoding)
        self.our_state = state
        return data

    def check(self, message: Message) -> None:
        """Judge one of our own messages by the peer's rules before it is sent.

        Raises LocalProtocolError naming the field and the rule. A client calls this for what its user gave it.
        """
        try:
            checked = reader_of(self.side, opcode_of(message))(message)
            if isinstance(checked, Post):
                check_payload(checked.type, checked.payload)
        except FieldError as error:
            raise LocalProtocolError(f"{opcode_of(message).name}.{error}") from None


def encode(message: Message, room: int, sequence: int, lane: Lane, encoding: Encoding = Encoding.BINARY) -> bytes:
    """Frame one message for any number of receivers: the same bytes serve every link of that encoding."""
    opcode = opcode_of(message)
    if encoding is Encoding.JSON:
        return json_mode.dump(opcode, lane, room, sequence, message)
    return build_frame(opcode, lane, room, sequence, pack_body(message))
