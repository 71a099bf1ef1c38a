"""WebSocket, the server's side (RFC 6455): validate the handshake, read masked frames, write unmasked ones.

Messages out are not masked, so `ws_frame` makes one immutable ``bytes`` for all viewers. Messages in are, nearly
always, one short unfragmented frame that came whole: that one is read here in a few lines. Everything else (fragments,
control frames, long or broken frames) goes through wsproto, which is therefore the oracle that the fast path is
tested against; it exists only while such a frame is in flight, so an idle WebSocket weighs little more than a TCP link.

Guards hold on a frame's header, before its payload is waited for: kind and size of the message, fragments (empty ones
too), and a rate for frames that carry nothing (control frames, empty messages, continuations). A violation is
answered with RFC 6455's own close code; the owner gets BAD_TRANSPORT. No extension is ever agreed to, so nothing
inflates.
"""

from __future__ import annotations

import codecs
import re
import socket
from typing import ClassVar, NamedTuple

from wsproto.frame_protocol import CloseReason, FrameDecoder, Header, Opcode, ParseFailed
from wsproto.utilities import generate_accept_token

from broker.core.limits.rate_limit import Rate, SingleGcra
from broker.net.http1 import HttpRefusal, HttpRequest, refuse
from broker.net.loopback import FORWARDED_HEADERS, is_of_this_machine
from broker.net.transport import Framing, Transport, TransportSettings
from protocol.codes import CloseCode, Lane
from protocol.frames import MAX_FRAME_BYTES

__all__ = [
    "LOOPBACK",
    "MAX_FRAGMENTS",
    "MAX_MESSAGE_BYTES",
    "Upgrade",
    "WebSocketJsonTransport",
    "WebSocketTransport",
    "is_upgrade",
    "origin_refusal",
    "upgrade",
    "ws_close",
    "ws_frame",
]

MAX_MESSAGE_BYTES = MAX_FRAME_BYTES
"""One frame of the largest size; OWASP's WebSocket sheet advises 64 KiB as well."""
MAX_FRAGMENTS = 64
"""Frames of one message. Browsers send one; a flood of empty fragments has brought down several servers."""
OVERHEAD = SingleGcra(Rate(per_s=50, burst=500))
"""Limit of frames that carry nothing."""
CONTROL_COST = 5
"""Control frames and empty messages: 10 a second, averaged over 10 s. Real clients send two a minute."""
CONTINUATION_COST = 1
"""Continuations: 50 a second, averaged over 10 s."""
QUICK_BYTES = 8 * 1024
"""Longest payload that is read on the fast path; a client's body has at most 4 KiB."""

_UTF8 = codecs.getincrementaldecoder("utf-8")
_IS_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==").fullmatch
"""16 bytes in base64."""


# ---- handshake

LOOPBACK = "loopback"
"""In place of origins: those of this machine, whatever their port."""
BINARY_SUBPROTOCOL = b"roomcast.v1"
JSON_SUBPROTOCOL = b"roomcast.json.v1"
_SINGLE = (b"upgrade", b"sec-websocket-key", b"sec-websocket-version", b"origin")


class Upgrade(NamedTuple):
    """An agreed handshake: ``response`` to write, and whether messages are JSON text."""

    response: bytes
    json: bool


def is_upgrade(request: HttpRequest) -> bool:
    """Whether a request means to become a WebSocket, rightly or wrongly."""
    return any(
        name == b"sec-websocket-key" or (name == b"upgrade" and b"websocket" in value.lower())
        for name, value in request.headers
    )


def upgrade(request: HttpRequest, origins: frozenset[str]) -> Upgrade | HttpRefusal:
    """Judge a WebSocket handshake by RFC 6455 section 4.2.1, strictly.

    ``origins``: web origins that may connect, compared exactly; "*" among them admits all. With `LOOPBACK` among them
    (development mode, where any client may take any name) Host, Origin and the client that a proxy names must be of
    this machine: no web page of another site can use a local broker, and no proxy opens it to others. A request without
    Origin comes from no browser and passes. Without a subprotocol, ``?enc=json`` chooses JSON and anything else binary.
    The response consists of fixed bytes and the accept token. About 8 us.
    """
    if request.method != b"GET" or request.version != b"1.1":
        return refuse(400, "A WebSocket handshake is a GET of HTTP/1.1.")
    values: dict[bytes, list[bytes]] = {}
    for name, value in request.headers:
        values.setdefault(name, []).append(value)
    if len(values) != len(request.headers) and any(len(values.get(name, ())) > 1 for name in _SINGLE):
        return refuse(400, "A header of the WebSocket handshake is there twice.")
    if b"transfer-encoding" in values or values.get(b"content-length", [b"0"]) != [b"0"]:
        return refuse(400, "A WebSocket handshake has no body.")
    if _tokens(values.get(b"upgrade")) != [b"websocket"] or b"upgrade" not in _tokens(values.get(b"connection")):
        return refuse(400, "A WebSocket handshake needs Connection: Upgrade and Upgrade: websocket.")
    version = values.get(b"sec-websocket-version")
    if version != [b"13"]:
        return refuse(426 if version else 400, "Only WebSocket version 13 is spoken.", _VERSION_HEADERS)
    if not _IS_KEY(values.get(b"sec-websocket-key", [b""])[0]):
        return refuse(400, "Sec-WebSocket-Key is not 16 bytes in base64.")
    refusal = origin_refusal(request, origins)
    if refusal is not None:
        return refusal
    subprotocol = b""
    json = False
    offered = [name.strip(b" \t") for value in values.get(b"sec-websocket-protocol", ()) for name in value.split(b",")]
    if offered:
        subprotocol = next((name for name in offered if name in _SUBPROTOCOLS), b"")
        if not subprotocol:
            return refuse(400, "The subprotocols here are roomcast.v1 and roomcast.json.v1.")
        json = subprotocol == JSON_SUBPROTOCOL
    else:
        json = b"enc=json" in request.target.partition(b"?")[2].split(b"&")
    token = generate_accept_token(values[b"sec-websocket-key"][0])
    return Upgrade(_RESPONSE + token + _SUBPROTOCOLS[subprotocol] + b"\r\n\r\n", json)


def origin_refusal(request: HttpRequest, origins: frozenset[str]) -> HttpRefusal | None:
    """Judge where a viewer's request comes from; None = it may connect. ``origins`` as in `upgrade`."""
    origin = request.all(b"origin")
    if len(origin) > 1:
        return refuse(400, "Origin is there twice.")
    if LOOPBACK in origins:
        forwarded = [request.all(name) for name in FORWARDED_HEADERS]
        if not is_of_this_machine((request.all(b"host") or [b""])[0], origin[0] if origin else None, forwarded):
            return refuse(403, "In development mode only pages and clients of this machine connect; set auth.secret.")
    elif origin and "*" not in origins and origin[0].decode("latin-1") not in origins:
        return refuse(403)
    return None


_VERSION_HEADERS = (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket"))
_RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
_SUBPROTOCOLS = {
    b"": b"",
    BINARY_SUBPROTOCOL: b"\r\nSec-WebSocket-Protocol: " + BINARY_SUBPROTOCOL,
    JSON_SUBPROTOCOL: b"\r\nSec-WebSocket-Protocol: " + JSON_SUBPROTOCOL,
}


def _tokens(values: list[bytes] | None) -> list[bytes]:
    return [token.strip(b" \t").lower() for value in values or () for token in value.split(b",")]


# ---- writing


def ws_frame(payload: bytes, text: bool = False) -> bytes:
    """One whole server message: ``u8 0x82`` (0x81 text), length in 1, 3 or 9 bytes, payload unmasked."""
    first = b"\x81" if text else b"\x82"
    size = len(payload)
    if size < 126:
        return first + size.to_bytes(1, "big") + payload
    if size < 65536:
        return first + b"\x7e" + size.to_bytes(2, "big") + payload
    return first + b"\x7f" + size.to_bytes(8, "big") + payload


def ws_close(code: int, reason: str = "") -> bytes:
    """One Close frame; 1005 ("no status") makes an empty one. ``reason`` is cut to the 123 bytes that fit."""
    if code == CloseReason.NO_STATUS_RCVD:
        return b"\x88\x00"
    words = reason.encode()[:123].decode(errors="ignore").encode()
    return b"\x88" + (len(words) + 2).to_bytes(1, "big") + code.to_bytes(2, "big") + words


# ---- reading


class _Reader:
    """wsproto's frame decoder and the message it is in the middle of; exists only while there is one."""

    __slots__ = ("body", "decoder", "fragments", "is_header_checked", "size", "utf8")

    def __init__(self) -> None:
        self.decoder = FrameDecoder(client=False)
        self.is_header_checked = False
        """Whether the header of the frame under way has been checked."""
        self.fragments = 0
        """Frames of the message under way, 0 = none is."""
        self.size = 0
        """Bytes of it that were announced so far."""
        self.body = bytearray()
        self.utf8: codecs.IncrementalDecoder | None = None

    @property
    def idle(self) -> bool:
        return not (self.fragments or self.is_header_checked or len(self.decoder.buffer))


class WebSocketTransport(Transport):
    """Binary messages, each a whole number of native frames; the owner gets them as on TCP."""

    __slots__ = ("_overhead_tat", "_reader", "_rest")
    framing = Framing.WEBSOCKET
    text: ClassVar[bool] = False
    _first: ClassVar[int] = 0x82

    def __init__(self, sock: socket.socket, settings: TransportSettings, address: str) -> None:
        super().__init__(sock, settings, address)
        self._rest = b""
        self._reader: _Reader | None = None
        self._overhead_tat = 0.0

    @property
    def is_mid_message(self) -> bool:
        """Whether a decoder or bytes of an unfinished message are kept."""
        return self._reader is not None or self._rest != b""

    def on_bytes(self, data: bytes) -> None:
        """Read frames in any split and pass on their messages."""
        if self._reader is None:
            if self._rest:
                data = self._rest + data
                self._rest = b""
            data = self._read_quick(data)
            if not data or self.state:
                return
        self._read(data)

    def _read_quick(self, data: bytes) -> bytes:
        """Pass on the short whole messages at the start of ``data``; returns what needs `_read`.

        The start of such a message is kept in ``_rest``, at most `QUICK_BYTES` and a header.
        """
        first = self._first
        position, end = 0, len(data)
        messages: list[bytes] = []
        while position < end:
            if data[position] != first:
                break
            available = end - position
            size = data[position + 1] if available > 1 else 0xFF
            if available < 2 or (size == 0xFE and available < 4):
                self._rest = data[position:]
                position = end
                break
            start = position + 6
            size -= 0x80
            if size == 0x7E:
                size = data[position + 2] << 8 | data[position + 3]
                start = position + 8
                if not 126 <= size <= QUICK_BYTES:
                    break
            elif not 0 < size < 0x7E:  # unmasked, empty or very long
                break
            stop = start + size
            if stop > end:
                self._rest = data[position:]
                position = end
                break
            key = data[start - 4 : start] * ((size + 3) >> 2)
            masked = int.from_bytes(data[start:stop], "little") ^ int.from_bytes(key[:size], "little")
            messages.append(masked.to_bytes(size, "little"))
            position = stop
        if messages:
            self._deliver_all(messages)
        return data[position:] if position else data

    def _read(self, data: bytes) -> None:
        """Read anything at all, through wsproto."""
        reader = self._reader
        if reader is None:
            reader = self._reader = _Reader()
        decoder = reader.decoder
        decoder.receive_bytes(data)
        try:
            while not self.state:
                if not reader.is_header_checked:
                    if not decoder.parse_header():
                        break
                    header = decoder.header
                    assert header is not None, "parse_header returned it"
                    self._judge(reader, header)
                    reader.is_header_checked = True
                frame = decoder.process_buffer()
                if frame is None:
                    break
                reader.is_header_checked = not frame.frame_finished
                payload = frame.payload
                assert isinstance(payload, bytes), "a decoder without a message layer yields bytes"
                if frame.opcode.iscontrol():
                    self._on_control(frame.opcode, payload)
                else:
                    self._on_payload(reader, payload, frame.frame_finished and frame.message_finished)
        except ParseFailed as failed:
            self._fail(failed.code)
        except UnicodeDecodeError:
            self._fail(CloseReason.INVALID_FRAME_PAYLOAD_DATA)
        if self.state or reader.idle:
            self._reader = None

    def _judge(self, reader: _Reader, header: Header) -> None:
        """Refuse a frame by its header alone. Raises ParseFailed."""
        opcode = header.opcode
        if opcode.iscontrol():
            self._charge(CONTROL_COST)
            return
        if opcode is Opcode.CONTINUATION:
            if not reader.fragments:
                raise ParseFailed("nothing to continue")
            self._charge(CONTINUATION_COST)
        else:
            if reader.fragments:
                raise ParseFailed("a message inside a message")
            if (opcode is Opcode.TEXT) is not self.text:
                raise ParseFailed("wrong kind", CloseReason.UNSUPPORTED_DATA)
            if header.fin and not header.payload_len:
                self._charge(CONTROL_COST)
            if self.text:
                reader.utf8 = _UTF8()
        reader.fragments += 1
        reader.size += header.payload_len
        if reader.fragments > MAX_FRAGMENTS:
            raise ParseFailed("too many fragments", CloseReason.POLICY_VIOLATION)
        if reader.size > MAX_MESSAGE_BYTES:
            raise ParseFailed("too long", CloseReason.MESSAGE_TOO_BIG)

    def _charge(self, cost: int) -> None:
        """Charge a frame that carries nothing to the limit. Raises ParseFailed."""
        now = self.poller.now
        self._overhead_tat = OVERHEAD.charge(self._overhead_tat, now, cost)
        if OVERHEAD.wait_s(self._overhead_tat, now):
            raise ParseFailed("too many frames that carry nothing", CloseReason.POLICY_VIOLATION)

    def _on_payload(self, reader: _Reader, payload: bytes, is_last: bool) -> None:
        reader.body += payload
        if reader.utf8 is not None:
            reader.utf8.decode(payload, is_last)  # bad UTF-8 fails now, not when 64 KiB have come
        if is_last:
            message = bytes(reader.body)
            reader.body = bytearray()
            reader.fragments = reader.size = 0
            reader.utf8 = None
            self._deliver_all([message])

    def _deliver_all(self, messages: list[bytes]) -> None:
        if self.owner is not None:
            self.owner.on_data(messages[0] if len(messages) == 1 else b"".join(messages))

    def _on_control(self, opcode: Opcode, payload: bytes) -> None:
        if opcode is Opcode.PING:
            if self.queue is None:  # who does not read gets no pongs: they must not queue
                self.write(b"\x8a" + len(payload).to_bytes(1, "big") + payload, Lane.CONTROL)
        elif opcode is Opcode.CLOSE:
            code = _close_code(payload)
            self.finish(ws_close(code), CloseCode.CLOSED_BY_PEER, f"closed by peer with {code}")

    def _fail(self, code: CloseReason) -> None:
        """The peer broke RFC 6455 or a guard."""
        reason = _REASONS.get(code, "WebSocket protocol error")
        self.finish(ws_close(code, reason), CloseCode.BAD_TRANSPORT, reason)

    def probe(self) -> None:
        """Send a Ping: a browser answers it even if its page never sends anything."""
        self.write(_PING, Lane.CONTROL)

    def close_frame(self, code: int, reason: str) -> bytes:
        """Return a Close frame: close codes of the protocol are WebSocket close codes as they are."""
        return ws_close(code, reason)


_PING = b"\x89\x00"
_REASONS = {
    CloseReason.UNSUPPORTED_DATA: "wrong kind of message for this subprotocol",
    CloseReason.INVALID_FRAME_PAYLOAD_DATA: "text is not UTF-8",
    CloseReason.POLICY_VIOLATION: "too many fragments or control frames",
    CloseReason.MESSAGE_TOO_BIG: f"a message has at most {MAX_MESSAGE_BYTES} bytes",
}
_PEER_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
"""Codes below 3000 that may stand in a Close frame (RFC 6455 section 7.4 and the IANA registry)."""


def _close_code(payload: bytes) -> int:
    """The code of a peer's Close frame, 1005 if it has none. Raises ParseFailed or UnicodeDecodeError."""
    if not payload:
        return CloseReason.NO_STATUS_RCVD
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _PEER_CODES or 3000 <= code < 5000):
        raise ParseFailed("no such close code")
    payload[2:].decode()
    return code


class WebSocketJsonTransport(WebSocketTransport):
    """JSON text messages, one by one."""

    __slots__ = ()
    framing = Framing.WEBSOCKET_JSON
    text = True
    _first = 0x81

    def _deliver_all(self, messages: list[bytes]) -> None:
        for message in messages:
            if self.state or self.owner is None:
                return
            try:
                text = message.decode()
            except UnicodeDecodeError:
                self._fail(CloseReason.INVALID_FRAME_PAYLOAD_DATA)
                return
            self.owner.on_text(text)
