"""HTTP on the viewers' port, apart from WebSockets: read one request head, answer it, close.

``GET /healthz`` answers a load balancer whether viewers may be sent here; pages have answers of their own
(`broker.net.page_connection`), every other request gets a short text. No body is ever read: a request that has one is
the last of its connection, so nothing can be smuggled behind it. Only heads are
read, and strictly, so the grammar is one expression; the tests hold it against h11: what is accepted here, h11 accepts
and reads the same.

Nothing a client sent is ever written into an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

__all__ = [
    "MAX_HEADERS",
    "MAX_HEAD_BYTES",
    "MAX_TARGET_BYTES",
    "METHOD_INITIALS",
    "Health",
    "HttpRefusal",
    "HttpRequest",
    "PageAnswer",
    "Pages",
    "answer",
    "could_be_http",
    "find_end",
    "read_head",
    "refuse",
    "response",
    "write_answer",
]

MAX_HEAD_BYTES = 16 * 1024
"""Request line and headers; nginx allows 4 x 8 KiB, h11 and most proxies 16 KiB."""
MAX_HEADERS = 100
MAX_TARGET_BYTES = 4096

Health = Callable[[], tuple[bool, Mapping[str, Any]]]
"""Returns whether viewers may be sent here, and the fields of the JSON answer (Any: what `json` can write)."""

_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT")
METHOD_INITIALS = frozenset(method[0] for method in _METHODS)
"""First bytes by which a connection is taken for HTTP."""
_LONGEST_METHOD = max(map(len, _METHODS))
_END = re.compile(rb"\n\r?\n")

# RFC 9112 without its leniencies. Neighbouring classes share no byte, so matching takes linear time.
_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
_HEAD = re.compile(
    rb"("
    + rb"|".join(_METHODS)
    + rb") ([\x21-\x7e]+) HTTP/(1\.[01])\r\n((?:"
    + _NAME
    + rb":"
    + _VALUE
    + rb"\r\n)*)\r\n"
).fullmatch
_HEADERS = re.compile(rb"(" + _NAME + rb"):(" + _VALUE + rb")\r\n").findall
_IS_LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch


class HttpRequest(NamedTuple):
    """A request head that keeps all rules. Header names are in lower case, values as they came."""

    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]

    def all(self, name: bytes) -> list[bytes]:
        """Every value of the header ``name`` (lower case)."""
        return [value for key, value in self.headers if key == name]


class HttpRefusal(NamedTuple):
    """The text of the answer; never a client's bytes."""

    status: int
    text: str
    headers: tuple[tuple[str, str], ...] = ()


class PageAnswer(NamedTuple):
    """One answer with a body; ``headers`` are all but Content-Length and Connection."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


Pages = Callable[[HttpRequest], PageAnswer | None]
"""Returns the answer to a request for a page or one of its files; None: it is for something else."""


def could_be_http(start: bytes | bytearray) -> bool:
    """Whether ``start`` begins with a known method, or may yet. Separates HTTP from noise before a head is waited
    for."""
    method, space, _ = bytes(start[: _LONGEST_METHOD + 1]).partition(b" ")
    if space:
        return method in _METHODS
    return any(each.startswith(method) for each in _METHODS)


def find_end(buffer: bytes | bytearray, searched: int = 0) -> int:
    """Index after the blank line that ends the head, -1 if it has not come; the first ``searched`` bytes had none."""
    found = _END.search(buffer, max(0, searched - 3))
    return found.end() if found else -1


def read_head(head: bytes) -> HttpRequest | HttpRefusal:
    """Read one whole head, blank line included. About 12 us for a browser's dozen headers (h11: 65).

    Refusals: 414 and 431 for the caps, 400 for anything that is not strictly RFC 9112: bare CR or LF, folded lines,
    control characters, a missing or double Host, a body whose length is in doubt.
    """
    if len(head) > MAX_HEAD_BYTES or head.count(b"\n") > MAX_HEADERS + 2:
        return refuse(431)
    if head.find(b"\r\n") > MAX_TARGET_BYTES + len(b"OPTIONS  HTTP/1.1"):
        return refuse(414)
    found = _HEAD(head)
    if found is None:
        return refuse(400)
    method, target, version, lines = found.groups()
    if len(target) > MAX_TARGET_BYTES:
        return refuse(414)
    headers = [(name.lower(), value.strip(b" \t")) for name, value in _HEADERS(lines)]
    request = HttpRequest(method, target, version, headers)
    names = [name for name, _ in headers]
    hosts = names.count(b"host")
    lengths = request.all(b"content-length") if b"content-length" in names else ()
    encodings = request.all(b"transfer-encoding") if b"transfer-encoding" in names else ()
    if (
        hosts != 1 - (version == b"1.0" and not hosts)
        or (lengths and (encodings or len(lengths) > 1 or not _IS_LENGTH(lengths[0])))
        or (encodings and (version == b"1.0" or [each.lower() for each in encodings] != [b"chunked"]))
    ):
        return refuse(400)
    return request


_TEXTS = {
    400: "This is not a request that can be understood.",
    403: "This origin may not connect.",
    404: "There is nothing here.",
    405: "Only GET is answered here.",
    408: "The request took too long.",
    414: f"A target has at most {MAX_TARGET_BYTES} bytes.",
    426: "This port speaks WebSocket (subprotocol roomcast.v1) and the native protocol.",
    410: "This room has ended.",
    431: f"A head has at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers.",
    503: "Too many connections; try again later.",
}


def refuse(status: int, text: str = "", headers: Iterable[tuple[str, str]] = ()) -> HttpRefusal:
    """Make a refusal with the status' usual phrase, or ``text``."""
    return HttpRefusal(status, text or _TEXTS[status], tuple(headers))


def answer(request: HttpRequest, health: Health) -> bytes:
    """Answer a request that is no WebSocket handshake."""
    head_only = request.method == b"HEAD"
    if request.method != b"GET" and not head_only:
        return response(refuse(405, headers=[("Allow", "GET, HEAD")]))
    path = request.target.partition(b"?")[0]
    if path == b"/healthz":
        ready, fields = health()
        body = json.dumps(dict(fields)).encode()
        return _response(200 if ready else 503, "application/json", body, (), head_only)
    if path == b"/":
        return response(refuse(426, headers=[("Upgrade", "websocket")]), head_only)
    return response(refuse(404), head_only)


def response(refusal: HttpRefusal, head_only: bool = False) -> bytes:
    """Write a refusal as a whole response; the connection ends with it."""
    return _response(
        refusal.status, "text/plain; charset=utf-8", f"{refusal.text}\n".encode(), refusal.headers, head_only
    )


def _response(
    status: int, content_type: str, body: bytes, headers: Iterable[tuple[str, str]], head_only: bool
) -> bytes:
    connection = "Upgrade, close" if any(name == "Upgrade" for name, _ in headers) else "close"
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"Connection: {connection}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + (b"" if head_only else body)


def write_answer(answer: PageAnswer, *, head_only: bool, keeps: bool) -> bytes:
    """Write an answer; ``keeps``: another request may follow on the connection."""
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        *(f"{name}: {value}" for name, value in answer.headers),
        *([] if answer.status == 304 else [f"Content-Length: {len(answer.body)}"]),
        f"Connection: {'keep-alive' if keeps else 'close'}",
    ]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + (b"" if head_only else answer.body)
