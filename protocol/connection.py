"""`Connection`: one end of one link, without I/O. Bytes in, events out; messages in, bytes out.

Call `receive_data` with the received bytes, then `next_event` until it returns `NEED_DATA`. Call `send` and write
what it returns. The same class serves both ends, TCP and WebSocket, binary and JSON. How the network split the bytes
has no effect: any split gives the same events and the same error at the same place.

Errors of a peer are of two classes. A frame that is well formed but breaks the rule of a field is *refused*: a server
gets a `Refused` event and answers ERROR, and the link stays open. Any other error ends the link: every later call of
`next_event` raises the same `RemoteProtocolError`. `next_event` raises no other exception.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple

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
from .compression import BUILT_IN_ONLY, compress, decompress
from .errors import LocalProtocolError, RemoteProtocolError
from .fields import FieldError, integer, optional, record, room_name, text
from .frames import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_CLIENT_BODY_BYTES,
    build_frame,
    pack_body,
    parse_header,
    unpack_body,
)
from .message_rules import DEFAULT_LANES, MESSAGE_KINDS, OPCODE_LANES, opcode_of, reader_of
from .messages import VERSION, Message, Post, Side
from .payloads import MAX_DANMAKU_CHARS, DanmakuPayload, check_payload
from .state import ANSWERS, TRANSITIONS, LinkState
from .text import has_visible

__all__ = ["NEED_DATA", "ClientConnection", "Connection", "Encoding", "Frame", "NeedData", "Refused", "encode"]


class NeedData(Enum):
    """Type of `NEED_DATA`."""

    NEED_DATA = "need data"


NEED_DATA: Final = NeedData.NEED_DATA
"""Result of `Connection.next_event` when it needs more bytes."""


class Encoding(Enum):
    """Encoding of the bodies of a link."""

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
    """Well-formed frame of a client that broke a rule; the server answers it with an ERROR (or a REJECTED ack)."""

    opcode: Opcode
    room: int
    sequence: int
    code: ErrorCode
    field: str
    rule: str


_CLIENT, _SERVER = Side.CLIENT, Side.SERVER
_SILENT, _OPEN = LinkState.SILENT, LinkState.OPEN
_POST, _TICK, _CONTROL = Opcode.POST, Opcode.TICK, Lane.CONTROL
_BINARY, _JSON = Encoding.BINARY, Encoding.JSON
_PLAIN = Codec.PLAIN
_new = tuple.__new__
_CLIENT_FRAME_BYTES = HEADER_BYTES + MAX_CLIENT_BODY_BYTES
_header_words = struct.Struct("!4I").unpack_from
_PLAIN_POST = VERSION << 24 | _POST
"""Second word of the header: version, flags 0, opcode."""
MAX_RUN = 64
"""Danmaku that are read at once: what a link that ends has sent beyond is not read."""
_danmaku_head = struct.Struct("!4I3B").unpack_from
"""Header, length of the array, type, and the first byte of the message's id."""
_DANMAKU_HEAD_BYTES = HEADER_BYTES + 3
_DANMAKU_LEAST_BYTES = _DANMAKU_HEAD_BYTES + 2
_DANMAKU_FRAME_BYTES = HEADER_BYTES + MESSAGE_TYPES[MessageType.DANMAKU].max_bytes
_FIXSTR, _STR_8 = 0xA0, 0xD9
_NILS = {0x9391: b"", 0x9392: b"\xc0", 0x9491: b"\xc0", 0x9492: b"\xc0\xc0"}
"""What follows the text of a plain danmaku, by the first bytes of the body and of the payload: a style and the name of
a room may be absent or nil."""
_CACHEABLE = frozenset({VERSION << 24 | Opcode.HELLO, VERSION << 24 | Opcode.JOIN})
"""The same word of frames that many clients send with equal bytes when they connect at once."""
_CACHED_FRAME_BYTES = 256
_CACHED_FRAMES = 1024
_INDISPENSABLE = frozenset({Opcode.HELLO, Opcode.AUTH, Opcode.GOAWAY})
"""Opcodes without which a link cannot continue: an error in one ends the link."""


class Connection:
    """Protocol state of one end of one link.

    ``side`` is the local side. The WebSocket subprotocol decides ``encoding`` before the first frame. Between calls
    a connection holds at most one incomplete frame (on a server 4 KiB and a header, on a client 64 KiB), provided
    that `next_event` was called until it returned NEED_DATA.
    """

    __slots__ = (
        "_buffer", "_failure", "_position", "_texts", "encoding", "local_state", "peer_state", "post_bytes", "side",
    )  # fmt: skip

    dictionaries: Mapping[int, bytes] = BUILT_IN_ONLY
    """Dictionaries of received frames by codec."""

    def __init__(self, side: Side, encoding: Encoding = Encoding.BINARY) -> None:
        self.side = side
        self.encoding = encoding
        self.local_state = _SILENT
        self.peer_state = _SILENT
        self.post_bytes = 0
        """Size of the body of the last POST that was no plain danmaku."""
        self._buffer: bytes | bytearray = b""
        # Start of the next frame. Beyond the end of the buffer: the difference is still to be skipped.
        self._position = 0
        # Code and reason, not the exception, whose traceback would hold this object in a cycle.
        self._failure: tuple[CloseCode, str] | None = None
        # Values of the received texts that are not yet read; last, the error of a text that could not be parsed.
        self._texts: deque[Any] | None = None

    @classmethod
    def opened(cls, side: Side, encoding: Encoding = Encoding.BINARY) -> Connection:
        """Return a connection as it is after the log-in."""
        connection = cls(side, encoding)
        connection.local_state = connection.peer_state = _OPEN
        return connection

    # ---- receiving

    def receive_data(self, data: bytes) -> None:
        """Take bytes of a binary link, in any split. O(len(data)); `next_event` parses them."""
        if self.encoding is _JSON:
            self._fail(CloseCode.BAD_TRANSPORT, "this link carries text, not bytes")
        if self._failure is not None:
            return
        rest, position = self._buffer, self._position
        missing = position - len(rest)
        if missing >= 0:
            self._buffer, self._position = data, missing
            return
        if type(rest) is bytearray:
            del rest[:position]
        else:
            rest = bytearray(rest[position:])
        rest += data
        self._buffer, self._position = rest, 0

    def receive_text(self, data: str) -> None:
        """Take one text message of a JSON link: an object or an array of objects. O(len(data))."""
        if self.encoding is _BINARY:
            self._fail(CloseCode.BAD_TRANSPORT, "this link carries bytes, not text")
        if self._failure is not None:
            return
        if self._texts is None:
            self._texts = deque()
        cap = json_mode.MAX_CLIENT_TEXT_BYTES if self.side is _SERVER else json_mode.MAX_SERVER_TEXT_BYTES
        try:
            self._texts.extend(json_mode.parse(data, cap))
        except RemoteProtocolError as error:
            self._texts.append(RemoteProtocolError(error.code, error.reason))

    @property
    def mid_frame(self) -> bool:
        """Whether the buffer ends inside a frame: the peer may not end a WebSocket message here."""
        return self._position != len(self._buffer)

    @property
    def is_between_frames(self) -> bool:
        """Whether the link is open and nothing of a frame waits: `opened` makes one in the same state."""
        return (
            self.local_state is _OPEN
            and self.peer_state is _OPEN
            and not self._position
            and not self._buffer
            and not self._texts
            and self._failure is None
        )

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the incomplete frame in the buffer."""
        return max(0, len(self._buffer) - self._position)

    @property
    def receive_buffer(self) -> bytes | bytearray:
        """Buffer with the `buffered_bytes`; for inspection only."""
        return self._buffer

    def next_event(self) -> Frame | Refused | NeedData:
        """Return the next frame, a refusal (server side only), or NEED_DATA.

        Raises RemoteProtocolError when the peer broke the protocol; the link cannot be used any more.
        """
        if self._failure is not None:
            raise RemoteProtocolError(*self._failure)
        buffer, position = self._buffer, self._position
        available = len(buffer) - position
        try:
            if available >= HEADER_BYTES:
                return self._read_binary(buffer, position, available)
            if self._texts:
                return self._read_text(self._texts.popleft())
        except RemoteProtocolError as error:
            self._fail(error.code, error.reason)
            raise
        if available <= 0:
            self._buffer, self._position = b"", -available
        elif position:
            # Free the bytes that were read: a few remaining ones must not keep a large buffer alive.
            self._buffer, self._position = bytes(buffer[position:]), 0
        return NEED_DATA

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Store the error of the peer; later ones are ignored."""
        if self._failure is None:
            self._failure = (code, reason)
        self._buffer, self._position, self._texts = b"", 0, None

    def take_danmaku(self) -> Sequence[tuple[int, int, Post]]:
        """Return the plain danmaku that come next as room, sequence and message, at most `MAX_RUN`; empty: what comes
        next is for `next_event`. Server side only.

        Plain are complete, uncompressed, unstyled ones with nothing but texts of up to 255 bytes. Most frames of a busy
        room are of this kind. `next_event` gives the same results (a test compares them), five times slower.
        """
        buffer, position = self._buffer, self._position
        size = len(buffer)
        last = size - _DANMAKU_LEAST_BYTES
        if position > last or self.peer_state is not _OPEN or self.side is not _SERVER or self._failure is not None:
            return ()
        found: list[tuple[int, int, Post]] = []
        while position <= last:
            length, kind, room, sequence, shape, type_, mark = _danmaku_head(buffer, position)
            end = position + length
            if kind != _PLAIN_POST or type_ != 1 or length > _DANMAKU_FRAME_BYTES or end > size:
                break
            start = position + _DANMAKU_HEAD_BYTES
            if mark == _STR_8:
                middle = start + 1 + buffer[start]
                start += 1
            elif mark & 0xE0 == _FIXSTR:
                middle = start + mark - _FIXSTR
            else:
                break
            text_at = middle + 2
            if text_at >= end:
                break
            mark = buffer[middle + 1]
            if mark == _STR_8:
                stop = text_at + 1 + buffer[text_at]
                text_at += 1
            elif mark & 0xE0 == _FIXSTR:
                stop = text_at + mark - _FIXSTR
            else:
                break
            nils = _NILS.get(shape << 8 | buffer[middle])
            if nils is None or stop + len(nils) != end or (nils and buffer[stop:end] != nils):
                break
            try:
                text = buffer[text_at:stop].decode()
                client_msg_id = buffer[start:middle].decode() if start < middle else ""
            except UnicodeDecodeError:
                break
            if (
                not text
                or len(text) > MAX_DANMAKU_CHARS
                or not text.isprintable()
                or not ("!" <= text < "\x7f" or "\u4e00" <= text < "\ua000" or has_visible(text))
                or len(client_msg_id) > 64
                or not client_msg_id.isprintable()
            ):
                break
            post = _new(Post, (1, client_msg_id, _new(DanmakuPayload, (text, None)), None))
            found.append((room, sequence, post))
            position = end
            if len(found) == MAX_RUN:
                break
        self._position = position
        return found

    def _read_binary(self, buffer: bytes | bytearray, position: int, available: int) -> Frame | Refused | NeedData:
        """Read the frame at ``position``, whose header is complete.

        The whole header is checked before the body is buffered, so a frame that is not allowed now, or is too large,
        uses no memory. The body of a refused frame is skipped as it arrives.
        """
        if self.side is _SERVER:
            cached = self._quick_cached(buffer, position, available)
            if cached is not None:
                return cached
        length, codec, lane, opcode, room, sequence = parse_header(buffer, position)
        state = self._next_state(opcode, lane, codec)
        if length > _CLIENT_FRAME_BYTES and self.side is _SERVER:
            self._position = position + length
            return self._refuse_size(opcode, room, sequence)
        if available < length:
            if type(buffer) is bytes or position:
                self._buffer, self._position = bytearray(buffer[position:]), 0
            return NEED_DATA
        self._position = position + length
        body = buffer[position + HEADER_BYTES : position + length]
        if codec:
            body = decompress(body, codec, self.dictionaries)
        return self._finish(opcode, lane, room, sequence, unpack_body(body), len(body), state)

    def _quick_cached(self, buffer: bytes | bytearray, position: int, available: int) -> Frame | None:
        """Read a complete HELLO or JOIN whose bytes were read before, on any link; None for anything else."""
        length, kind, _, _ = _header_words(buffer, position)
        if kind not in _CACHEABLE or not HEADER_BYTES < length <= _CACHED_FRAME_BYTES or available < length:
            return None
        frame = _read_cached(bytes(buffer[position : position + length]))
        state = None if frame is None else _CLIENT_MOVES.get((self.peer_state, frame[0]))
        if state is None:
            return None
        self._position = position + length
        self.peer_state = state
        return frame

    def _read_text(self, value: Any) -> Frame | Refused:
        """Read one value of a text as a frame."""
        if isinstance(value, RemoteProtocolError):
            raise value
        opcode, lane, room, sequence, body, nbytes = json_mode.read_frame(value)
        state = self._next_state(opcode, lane, _PLAIN)
        if nbytes > MAX_CLIENT_BODY_BYTES and self.side is _SERVER:
            return self._refuse_size(opcode, room, sequence)
        return self._finish(opcode, lane, room, sequence, body, nbytes, state)

    def _next_state(self, opcode: Opcode, lane: Lane, codec: int) -> LinkState:
        """Return the peer's state after this frame; RemoteProtocolError if opcode, lane or codec is not allowed now."""
        if self.side is _SERVER:
            state = _CLIENT_MOVES.get((self.peer_state, opcode))
            if state is None:
                raise self._out_of_state(opcode)
            if lane or codec:
                raise RemoteProtocolError(CloseCode.BAD_FRAME, "a client's flags are zero")
            return state
        state = _SERVER_MOVES.get((self.peer_state, opcode))
        if state is None:
            raise self._out_of_state(opcode)
        needed = ANSWERS.get(opcode)
        if needed is not None and self.local_state not in needed:
            raise RemoteProtocolError(CloseCode.OUT_OF_STATE, f"{opcode.name} answers nothing")
        if lane not in OPCODE_LANES[opcode]:
            raise RemoteProtocolError(CloseCode.BAD_FRAME, f"{opcode.name} may not use lane {lane}")
        return state

    def _out_of_state(self, opcode: Opcode) -> RemoteProtocolError:
        reason = f"{opcode.name} may not be sent when {self.peer_state.value}"
        return RemoteProtocolError(CloseCode.OUT_OF_STATE, reason)

    def _finish(
        self, opcode: Opcode, lane: Lane, room: int, sequence: int, body: Any, nbytes: int, state: LinkState
    ) -> Frame | Refused:
        """Check the fields of a body and return its event."""
        try:
            if self.side is _CLIENT:
                message = reader_of(_SERVER, opcode)(body)
            elif opcode is not _POST:
                message = reader_of(_CLIENT, opcode)(body)
            else:
                message = _read_post(body, nbytes)
                self.post_bytes = nbytes
        except FieldError as error:
            if self.side is _CLIENT or opcode in _INDISPENSABLE:
                where = f"{opcode.name}.{error.field}" if error.field else opcode.name
                raise RemoteProtocolError(CloseCode.BAD_BODY, f"{where} {error.rule}") from None
            return Refused(opcode, room, sequence, error.code, error.field, error.rule)
        self.peer_state = state
        return _new(Frame, (opcode, lane, room, sequence, message))

    def _refuse_size(self, opcode: Opcode, room: int, sequence: int) -> Refused:
        """Refuse a client's frame that is too large; RemoteProtocolError if the link cannot continue without it."""
        rule = f"must be at most {MAX_CLIENT_BODY_BYTES} bytes"
        if opcode in _INDISPENSABLE:
            raise RemoteProtocolError(CloseCode.FRAME_TOO_LARGE, f"the body of {opcode.name} {rule}")
        return Refused(opcode, room, sequence, ErrorCode.PAYLOAD_TOO_LARGE, "body", rule)

    # ---- sending

    def send(
        self, message: Message, room: int = 0, sequence: int = 0, lane: Lane | None = None, packed: bytes | None = None
    ) -> bytes:
        """Frame one message, move the local state and return the bytes to write (UTF-8 JSON on a JSON link).

        ``lane`` is needed for an EVENT, and for a DIRECT that is not of lane 1. ``packed``: the packed body of the
        message, if the caller has it already.
        Raises LocalProtocolError when the local side or state does not allow the message or its lane, or the frame
        would be too large; the state is then unchanged. The fields are not checked: that is `check`.
        """
        rule = _SEND_RULES.get((self.side, self.local_state, type(message)))
        if rule is None:
            raise self._may_not_send(message)
        opcode, state, needed, lanes, default_lane = rule
        if needed is not None and self.peer_state not in needed:
            raise LocalProtocolError(f"{opcode.name} answers nothing")
        if lane is None:
            lane = default_lane
        if lane is None or lane not in lanes:
            raise LocalProtocolError(f"{opcode.name} may not use lane {lane}")
        if self.encoding is _BINARY:
            data = build_frame(opcode, lane, room, sequence, packed or pack_body(message))
        else:
            data = encode(message, room, sequence, lane, self.encoding)
        if len(data) > _CLIENT_FRAME_BYTES and self.side is _CLIENT and self.encoding is _BINARY:
            raise LocalProtocolError(f"the body of {opcode.name} is above {MAX_CLIENT_BODY_BYTES} bytes")
        self.local_state = state
        return data

    def _may_not_send(self, message: Message) -> LocalProtocolError:
        opcode = opcode_of(message)
        if MESSAGE_KINDS.get((self.side, opcode)) is not type(message):
            return LocalProtocolError(f"{type(message).__name__} is not for the {self.side.name} to send")
        return LocalProtocolError(f"{opcode.name} may not be sent when {self.local_state.value}")

    def check(self, message: Message) -> None:
        """Check a message of the local side by the rules of the peer, before it is sent.

        Raises LocalProtocolError naming the field and the rule. A client calls this for arguments of the application.
        """
        opcode = opcode_of(message)
        if MESSAGE_KINDS.get((self.side, opcode)) is not type(message):
            raise LocalProtocolError(f"{type(message).__name__} is not for the {self.side.name} to send")
        try:
            reader_of(self.side, opcode)(message)
            nbytes = len(pack_body(message))
            if isinstance(message, Post):
                _read_post(message, nbytes)
        except FieldError as error:
            raise LocalProtocolError(f"{opcode.name}.{error}") from None
        except UnicodeEncodeError:
            raise LocalProtocolError(f"{opcode.name}: a string has a lone surrogate") from None
        cap = MAX_CLIENT_BODY_BYTES if self.side is _CLIENT else MAX_BODY_BYTES
        if nbytes > cap:
            raise LocalProtocolError(f"{opcode.name}: must be at most {cap} bytes")


@lru_cache(maxsize=_CACHED_FRAMES)
def _read_cached(frame: bytes) -> Frame | None:
    """Read a complete HELLO or JOIN of a client; None if it breaks a rule, which `Connection` then reports.

    Clients of the same room send equal bytes, so each value is parsed once. Never used for AUTH, whose bytes are
    secret. The cache holds at most `_CACHED_FRAMES` of `_CACHED_FRAME_BYTES` and drops the least recently used.
    """
    try:
        _, _, lane, opcode, room, sequence = parse_header(frame)
        message = reader_of(_CLIENT, opcode)(unpack_body(frame[HEADER_BYTES:]))
    except (FieldError, RemoteProtocolError):
        return None
    return _new(Frame, (opcode, lane, room, sequence, message))


_CLIENT_MOVES, _SERVER_MOVES = TRANSITIONS[_CLIENT], TRANSITIONS[_SERVER]
_CLIENT_LANES = frozenset({Lane.CONTROL})


class ClientConnection(Connection):
    """A client's end of one link, which may get further dictionaries."""

    __slots__ = ("_dictionaries",)

    def __init__(self, encoding: Encoding = Encoding.BINARY) -> None:
        super().__init__(_CLIENT, encoding)
        self._dictionaries: dict[int, bytes] = dict(BUILT_IN_ONLY)

    @property
    def dictionaries(self) -> Mapping[int, bytes]:  # type: ignore[override]
        """Dictionaries of received frames by codec."""
        return self._dictionaries

    def use_dictionary(self, codec: int, data: bytes) -> None:
        """Read frames with ``codec`` with this dictionary from now on."""
        self._dictionaries[codec] = data


class _SendRule(NamedTuple):
    """Rules of the tables for sending one kind of message in one state."""

    opcode: Opcode
    state: LinkState
    needed: frozenset[LinkState] | None
    """States that the peer must be in, None = any."""
    lanes: frozenset[Lane]
    default_lane: Lane | None


def _send_rules() -> dict[tuple[Side, LinkState, type[Any]], _SendRule]:
    """Return the tables of `Connection.send` joined to one: one look-up a message; a missing key is not allowed."""
    found = {}
    for side, moves in TRANSITIONS.items():
        for (before, opcode), after in moves.items():
            lanes = _CLIENT_LANES if side is _CLIENT else OPCODE_LANES[opcode]
            found[side, before, MESSAGE_KINDS[side, opcode]] = _SendRule(
                opcode, after, ANSWERS.get(opcode) if side is _SERVER else None, lanes,
                next(iter(lanes)) if len(lanes) == 1 else DEFAULT_LANES.get(opcode),
            )  # fmt: skip
    return found


_SEND_RULES = _send_rules()


def _unread(payload: Any) -> Any:
    """any: `check_payload` checks it when the type is known."""
    return payload


_read_envelope = record(Post, (integer(1, 255), text(0, 64), _unread, optional(room_name)))


def _read_post(body: Any, nbytes: int) -> Post:
    """Read a POST; the payload becomes its record (built-in types) or is checked as a free value (custom ones)."""
    kind, client_msg_id, payload, room_name = _read_envelope(body)
    rule = MESSAGE_TYPES.get(kind)
    if rule is None:
        if kind < CUSTOM_TYPE_MIN:
            raise FieldError("is not known", "type", ErrorCode.UNKNOWN_TYPE)
    elif nbytes > rule.max_bytes:
        reason = f"must be at most {rule.max_bytes} bytes for {MessageType(kind).name}"
        raise FieldError(reason, "body", ErrorCode.PAYLOAD_TOO_LARGE)
    return _new(Post, (kind, client_msg_id, check_payload(kind, payload), room_name))


def encode(
    message: Message,
    room: int,
    sequence: int,
    lane: Lane,
    encoding: Encoding = Encoding.BINARY,
    codec: Codec = Codec.PLAIN,
) -> bytes:
    """Frame one message for any number of receivers: every link of that encoding and codec gets the same bytes.

    ``codec`` is used where it makes the body smaller (see `compression.compress`) and only in binary; frames of a
    client are plain. Raises LocalProtocolError when the frame would be too large. The fields are not checked.
    """
    opcode = opcode_of(message)
    if encoding is Encoding.JSON:
        return json_mode.dump(opcode, lane, room, sequence, message)
    body = pack_body(message)
    if codec is not _PLAIN and (small := compress(body, codec, is_tick=opcode is _TICK)) is not None:
        return build_frame(opcode, lane, room, sequence, small, codec)
    return build_frame(opcode, lane, room, sequence, body)
