from __future__ import annotations

import json
import time

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.net.http1 import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_TARGET_BYTES,
    HttpRefusal,
    HttpRequest,
    answer,
    could_be_http,
    find_end,
    read_head,
    refuse,
    response,
)
from tests.support.examples import examples


def head(line: bytes = b"GET / HTTP/1.1", *headers: bytes) -> bytes:
    return b"\r\n".join([line, *(headers or (b"Host: x",)), b"", b""])


def parsed(data: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """What an HTTP client makes of an answer: status, headers, body."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    start = client.next_event()
    assert isinstance(start, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.their_state is h11.MUST_CLOSE
    return start.status_code, dict(start.headers), body


def status(found: HttpRequest | HttpRefusal) -> int:
    return found.status if isinstance(found, HttpRefusal) else 200


def test_a_request_head_is_read() -> None:
    request = read_head(head(b"GET /a?b HTTP/1.1", b"Host: x", b"X-Two: 1", b"x-two:  2 "))
    assert isinstance(request, HttpRequest)
    assert request[:3] == (b"GET", b"/a?b", b"1.1")
    assert request.all(b"x-two") == [b"1", b"2"]
    assert request.all(b"x-three") == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (head(), 200),
        (head(b"GET / HTTP/1.0", b"A: b"), 200),
        (head(b"GET /" + b"a" * (MAX_TARGET_BYTES - 1) + b" HTTP/1.1"), 200),
        (head(b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1"), 414),
        (head(b"OPTIONS /" + b"a" * 9000 + b" HTTP/1.1"), 414),
        (head(b"GET / HTTP/1.1", b"Host: x", *[b"A: b"] * (MAX_HEADERS - 1)), 200),
        (head(b"GET / HTTP/1.1", b"Host: x", *[b"A: b"] * MAX_HEADERS), 431),
        (head(b"GET / HTTP/1.1", b"Host: x", b"A: " + b"b" * MAX_HEAD_BYTES), 431),
        (head(b"GET / HTTP/1.1", b"Accept: */*"), 400),  # no Host
        (head(b"GET / HTTP/1.1", b"Host: x", b"Host: y"), 400),
        (head(b"GET / HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400),
        (head(b"GET / HTTP/1.1", b"Host: x", b"Content-Length: 3", b"Content-Length: 4"), 400),
        (head(b"GET / HTTP/1.1", b"Host: x", b"Content-Length: -3"), 400),
        (head(b"GET / HTTP/1.1", b"Host: x", b"Transfer-Encoding: cow"), 400),
        (head(b"GET / HTTP/1.1", b"Host: x", b" folded: line"), 400),
        (head(b"GET / HTTP/1.1", b"Host: x", b"A: b", b"\tfolded"), 400),
        (head(b"GET / HTTP/1.1", b"Host : x"), 400),
        (head(b"GET / HTTP/1.1", b": x"), 400),
        (head(b"GET / HTTP/1.1", b"Host"), 400),
        (head(b"GET / HTTP/1.1", b"Host: x\x00y"), 400),
        (head(b"GET / HTTP/1.1", b"Host: x\ry"), 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\n", 400),
        (head(b"GET / HTTP/2.0"), 400),
        (head(b"GET / HTTP/9.9"), 400),
        (head(b"GET /"), 400),
        (head(b"GET  / HTTP/1.1"), 400),
        (head(b"GET / a HTTP/1.1"), 400),
        (head(b"GET /\xff HTTP/1.1"), 400),
        (head(b"G\xc3\x89T / HTTP/1.1"), 400),
        (head(b"PRI * HTTP/2.0"), 400),
        (b"\r\n\r\n", 400),
    ],
)
def test_a_head_is_judged_strictly(data: bytes, expected: int) -> None:
    assert status(read_head(data)) == expected


def read_by_h11(data: bytes) -> HttpRequest | None:
    """What h11 makes of a head."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    server.receive_data(data)
    try:
        event = server.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request):
        return None
    return HttpRequest(event.method, event.target, event.http_version, list(event.headers))


def coding_in_lower_case(request: HttpRequest | None) -> HttpRequest | None:
    """h11 writes the names of transfer codings in lower case; they mean the same in any (RFC 9112, section 7)."""
    if request is None:
        return None
    return request._replace(
        headers=[(name, value.lower() if name == b"transfer-encoding" else value) for name, value in request.headers]
    )


LINES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            b"Host: y", b"host:y", b"Host : y", b" folded", b"\tfolded", b"A:", b"A: b\x7f", b"A: b\x0b",
            b"A: \xff\x80", b"Content-Length: 3", b"Content-Length: +3", b"Content-Length: 3, 3", b"Content-Length:",
            b"Content-Length: \xb2", b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked", b"\xe9: b",
            b"Transfer-Encoding: gzip, chunked", b"A(b): c", b"A:b:c", b"Upgrade: websocket", b"A: b\r", b"A: b\n",
            b"\r", b"\n", b"",
        ]
    ),
)  # fmt: skip
STARTS = st.one_of(
    st.sampled_from([b"GET / HTTP/1.1", b"HEAD /a?b#c HTTP/1.0", b"POST * HTTP/1.1", b"CONNECT x:1 HTTP/1.1"]),
    st.tuples(st.binary(max_size=5), st.binary(max_size=5)).map(b"GET /%b HTTP/1.1%b".__mod__),
)


@examples(300)
@given(STARTS, st.lists(LINES, max_size=5), st.sampled_from([b"Host: x", b"Accept: */*"]))
@example(b"GET / HTTP/1.1", [b"Transfer-Encoding: Chunked"], b"Host: x")
def test_what_is_accepted_h11_accepts_and_reads_the_same(start: bytes, lines: list[bytes], first: bytes) -> None:
    data = head(start, first, *lines)
    request = read_head(data)
    if isinstance(request, HttpRequest):
        assert coding_in_lower_case(request) == read_by_h11(data)
        assert find_end(data) == len(data), "the head ends where it was taken to end"


@given(st.binary(max_size=300), st.integers(0, 60))
def test_no_bytes_raise(noise: bytes, position: int) -> None:
    whole = head(b"GET /ws HTTP/1.1", b"Host: x", b"Upgrade: websocket", b"Connection: Upgrade")
    for data in (noise + b"\r\n\r\n", whole[:position] + noise + whole[position + 3 :]):
        request = read_head(data)
        assert isinstance(request, HttpRefusal) or request == read_by_h11(data)


def test_no_head_takes_long_to_judge() -> None:
    heads = [
        b"GET / HTTP/1.1\r\nA:" + b" " * 16_000 + b"\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 16_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 99 + b"x" * 15_000 + b"\r\n\r\n",
        b"GET " + b"/" * 4000 + b" HTTP/1.1\r\nA:" + b"\t " * 6000 + b"\r\n\r\n",
        b"G" * 16_000 + b"\r\n\r\n",
    ]
    begun = time.process_time()
    for data in heads * 10:
        read_head(data)
    assert time.process_time() - begun < 0.1, "2 ms each at the most; they take 50 us"


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"GET / HTTP/1.1"]), max_size=12), st.integers(0, 12))
def test_the_end_of_a_head_is_found_in_any_split(pieces: list[bytes], split: int) -> None:
    data = b"".join(pieces)
    whole = find_end(data)
    searched = len(b"".join(pieces[:split]))
    if find_end(data[:searched]) < 0:
        assert find_end(data, searched) == whole
    assert whole < 0 or data[:whole].endswith((b"\n\r\n", b"\n\n"))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"", True), (b"G", True), (b"GET", True), (b"GET ", True), (b"OPTIONS * HTTP/1.1", True), (b"DELET", True),
        (b"GEX", False), (b"get ", False), (b"GETS ", False), (b"PRI * HTTP/2.0", False), (b"PROXY TCP4", False),
        (b"HELO mail", False), (b"OPTIONSOPTIONS", False), (b"GE T ", False),
    ],
)  # fmt: skip
def test_noise_is_distinguished_from_http_before_a_head_is_waited_for(start: bytes, expected: bool) -> None:
    assert could_be_http(start) is expected


@pytest.mark.parametrize("ready", [True, False])
def test_health_says_whether_to_send_viewers_here(ready: bool) -> None:
    request = read_head(head(b"GET /healthz?verbose HTTP/1.1"))
    assert isinstance(request, HttpRequest)
    code, headers, body = parsed(answer(request, lambda: (ready, {"status": "ok", "harness": 0})))
    assert code == (200 if ready else 503)
    assert headers[b"content-type"] == b"application/json"
    assert json.loads(body) == {"status": "ok", "harness": 0}


@pytest.mark.parametrize(
    ("line", "expected", "name", "value"),
    [
        (b"GET /nothing HTTP/1.1", 404, b"connection", b"close"),
        (b"GET /healthz/ HTTP/1.1", 404, b"cache-control", b"no-store"),
        (b"GET / HTTP/1.1", 426, b"upgrade", b"websocket"),
        (b"POST /healthz HTTP/1.1", 405, b"allow", b"GET, HEAD"),
        (b"DELETE / HTTP/1.1", 405, b"allow", b"GET, HEAD"),
    ],
)
def test_everything_else_is_declined_politely(line: bytes, expected: int, name: bytes, value: bytes) -> None:
    request = read_head(head(line))
    assert isinstance(request, HttpRequest)
    code, headers, body = parsed(answer(request, lambda: (True, {})))
    assert (code, headers[name]) == (expected, value)
    assert body.endswith(b".\n")
    assert len(body) < 120


def test_the_answer_to_head_has_no_body() -> None:
    request = read_head(head(b"HEAD /healthz HTTP/1.1"))
    assert isinstance(request, HttpRequest)
    said = answer(request, lambda: (True, {"status": "ok"}))
    assert said.endswith(b"\r\n\r\n")
    assert b"Content-Length: 16\r\n" in said


@pytest.mark.parametrize("code", [400, 403, 404, 405, 408, 414, 426, 431, 503])
def test_every_refusal_is_a_whole_response_that_ends_the_connection(code: int) -> None:
    got, headers, _ = parsed(response(refuse(code, headers=[("Retry-After", "5")])))
    assert got == code
    assert headers[b"retry-after"] == b"5"
    assert b"close" in headers[b"connection"]


def test_nothing_of_the_request_stands_in_the_answer() -> None:
    secret = b"zqxj"
    request = read_head(head(b"GET /" + secret + b" HTTP/1.1", b"Host: " + secret, secret + b": " + secret))
    assert isinstance(request, HttpRequest)
    assert secret not in answer(request, lambda: (True, {}))
