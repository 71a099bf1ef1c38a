from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.frames import Opcode as PeerOpcode
from websockets.uri import parse_uri

from broker.net.http1 import HttpRefusal, HttpRequest, read_head
from broker.net.websocket import (
    LOOPBACK,
    MAX_FRAGMENTS,
    MAX_MESSAGE_BYTES,
    QUICK_BYTES,
    Upgrade,
    WebSocketJsonTransport,
    WebSocketTransport,
    is_upgrade,
    upgrade,
    ws_close,
    ws_frame,
)
from protocol.codes import CloseCode
from tests.support.examples import examples
from tests.support.poller import Harness, RecordingOwner, connection_harness
from tests.support.websocket import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, masked

# ---- the handshake


def request(*, drop: bytes = b"", target: bytes = b"/", line: bytes = b"", **change: bytes) -> HttpRequest:
    """A good handshake with some headers changed, dropped or (value with newlines) repeated."""
    headers = {
        b"Host": b"live.example.com",
        b"Upgrade": b"websocket",
        b"Connection": b"keep-alive, Upgrade",
        b"Sec-WebSocket-Key": KEY,
        b"Sec-WebSocket-Version": b"13",
    }
    headers.update({name.replace("_", "-").encode(): value for name, value in change.items()})
    headers.pop(drop, None)
    lines = [name + b": " + each for name, value in headers.items() for each in value.split(b"\n")]
    found = read_head(b"\r\n".join([line or b"GET " + target + b" HTTP/1.1", *lines, b"", b""]))
    assert isinstance(found, HttpRequest), found
    return found


def judged(found: HttpRequest, *origins: str) -> Upgrade | HttpRefusal:
    assert is_upgrade(found)
    return upgrade(found, frozenset(origins))


def test_the_handshake_of_rfc_6455_is_answered_as_there() -> None:
    agreed = judged(request(Sec_WebSocket_Protocol=b"chat, roomcast.v1"))
    assert isinstance(agreed, Upgrade)
    assert not agreed.json
    lines = agreed.response.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert b"Sec-WebSocket-Protocol: roomcast.v1" in lines
    assert lines[-2:] == [b"", b""]


@pytest.mark.parametrize(
    ("target", "offered", "json", "answered"),
    [
        (b"/", b"", False, b""),
        (b"/any/path?x=1", b"", False, b""),
        (b"/?enc=json", b"", True, b""),
        (b"/?a=1&enc=json&b=2", b"", True, b""),
        (b"/?enc=jsonx", b"", False, b""),
        (b"/?notenc=json", b"", False, b""),
        (b"/", b"roomcast.v1", False, b"roomcast.v1"),
        (b"/", b"roomcast.json.v1", True, b"roomcast.json.v1"),
        (b"/", b"roomcast.json.v1, roomcast.v1", True, b"roomcast.json.v1"),
        (b"/", b"mqtt,roomcast.v1\nroomcast.json.v1", False, b"roomcast.v1"),
        (b"/?enc=json", b"roomcast.v1", False, b"roomcast.v1"),
    ],
)
def test_subprotocol_or_query_choose_the_encoding(target: bytes, offered: bytes, json: bool, answered: bytes) -> None:
    offer = {"Sec_WebSocket_Protocol": offered} if offered else {}
    agreed = judged(request(target=target, **offer))
    assert isinstance(agreed, Upgrade)
    assert agreed.json is json
    assert (b"\r\nSec-WebSocket-Protocol: " + answered + b"\r\n" in agreed.response) is bool(answered)
    assert (b"Sec-WebSocket-Protocol" in agreed.response) is bool(answered)


def test_no_extension_is_ever_agreed_to() -> None:
    agreed = judged(request(Sec_WebSocket_Extensions=b"permessage-deflate; client_max_window_bits"))
    assert isinstance(agreed, Upgrade)
    assert b"xtension" not in agreed.response


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (request(line=b"POST / HTTP/1.1"), 400),
        (request(line=b"GET / HTTP/1.0"), 400),
        (request(Upgrade=b"websocket, h2c"), 400),
        (request(Upgrade=b"websocketx"), 400),
        (request(Upgrade=b"websocket\nwebsocket"), 400),
        (request(drop=b"Upgrade"), 400),
        (request(drop=b"Connection"), 400),
        (request(Connection=b"close"), 400),
        (request(Connection=b"Upgradex"), 400),
        (request(Connection=b"\xc3\x9cpgrade"), 400),
        (request(drop=b"Sec-WebSocket-Version"), 400),
        (request(Sec_WebSocket_Version=b"12"), 426),
        (request(Sec_WebSocket_Version=b"013"), 426),
        (request(Sec_WebSocket_Version=b"13\n13"), 400),
        (request(Sec_WebSocket_Version=b"13, 8"), 426),
        (request(Sec_WebSocket_Key=b""), 400),
        (request(Sec_WebSocket_Key=b"c2hvcnQ="), 400),
        (request(Sec_WebSocket_Key=KEY[:-1]), 400),
        (request(Sec_WebSocket_Key=KEY + b"="), 400),
        (request(Sec_WebSocket_Key=KEY[:-2] + b"AA=="), 400),
        (request(Sec_WebSocket_Key=b"*" + KEY[1:]), 400),
        (request(Sec_WebSocket_Key=KEY + b"\n" + KEY), 400),
        (request(Origin=b"https://a.example\nhttps://a.example"), 400),
        (request(Content_Length=b"5"), 400),
        (request(Transfer_Encoding=b"chunked"), 400),
        (request(Sec_WebSocket_Protocol=b"mqtt"), 400),
        (request(Sec_WebSocket_Protocol=b"Roomcast.v1"), 400),
        (request(Sec_WebSocket_Protocol=b"r\xc3\xb6omcast.v1"), 400),
        (request(Sec_WebSocket_Protocol=b"roomcast.v10, roomcast"), 400),
        (request(Sec_WebSocket_Protocol=b""), 400),
    ],
)
def test_a_handshake_is_judged_strictly(bad: HttpRequest, status: int) -> None:
    refusal = judged(bad, "*")
    assert isinstance(refusal, HttpRefusal)
    assert refusal.status == status
    if status == 426:
        assert ("Sec-WebSocket-Version", "13") in refusal.headers


def test_a_request_without_key_that_upgrades_to_something_else_is_no_websocket() -> None:
    assert not is_upgrade(request(Upgrade=b"h2c", drop=b"Sec-WebSocket-Key"))


ALLOWED = "https://live.example.com"
LOOK_ALIKES = [
    b"http://live.example.com",
    b"https://live.example.com:443",
    b"https://live.example.com:8443",
    b"https://live.example.com/",
    b"https://live.example.com.",
    b"https://live.example.com.evil.example",
    b"https://live.example.comevil.example",
    b"https://evil-live.example.com",
    b"https://evil.live.example.com",
    b"https://evil.example/live.example.com",
    b"https://evil.example?https://live.example.com",
    b"https://evil.example#https://live.example.com",
    b"https://live.example.com@evil.example",
    b"https://live.example.com%2eevil.example",
    b"https://live%2eexample%2ecom",
    b"https://LIVE.example.com",
    b"HTTPS://live.example.com",
    b"https:live.example.com",
    b"https:/live.example.com",
    b"https:///live.example.com",
    b"https:\\\\live.example.com",
    b"//live.example.com",
    b"live.example.com",
    b"wss://live.example.com",
    b"ws://live.example.com",
    b"https://1ive.example.com",
    b"https://live.examp1e.com",
    b"https://live.ex\xc3\xa4mple.com",
    b"https://liv\xd0\xb5.example.com",  # Cyrillic e
    b"https://live\xc2\xadlive.example.com",
    b"https://live.example.co",
    b"https://live.example",
    b"https://example.com",
    b"https://*.example.com",
    b"https://live.example.com, https://evil.example",
    b"https://live.example.com https://evil.example",
    b"https://live.example.com\tx",
    b"https://live.example.com;x",
    b"null",
    b"NULL",
    b"undefined",
    b"*",
    b"",
    b"file://",
    b"chrome-extension://live.example.com",
    b"https://127.0.0.1",
    b"https://xn--lve-1ma.example.com",
]


LOCAL = [b"localhost", b"LOCALHOST:7400", b"127.0.0.1:7400", b"127.9.8.7", b"[::1]:80"]
FOREIGN = [
    b"live.example.com", b"localhost.example.com", b"127.0.0.1.nip.io", b"10.0.0.1", b"[::2]:80", b"localhost@x",
    b"", b"127.0.0.1:7400/x",
]  # fmt: skip


@pytest.mark.parametrize("host", LOCAL)
@pytest.mark.parametrize("page", [None, *LOCAL])
def test_in_development_mode_this_machine_connects(host: bytes, page: bytes | None) -> None:
    headers = {} if page is None else {"Origin": b"http://" + page}
    assert isinstance(judged(request(Host=host, **headers), LOOPBACK), Upgrade)


@pytest.mark.parametrize("foreign", FOREIGN)
def test_in_development_mode_no_other_site_and_no_proxy_connects(foreign: bytes) -> None:
    for headers in ({"Host": foreign}, {"Host": b"localhost", "Origin": b"http://" + foreign}):
        refusal = judged(request(**headers), LOOPBACK)
        assert isinstance(refusal, HttpRefusal)
        assert refusal.status == 403
    assert isinstance(judged(request(Host=b"localhost", Origin=b"null"), LOOPBACK), HttpRefusal)


@pytest.mark.parametrize(
    ("header", "value", "is_local"),
    [
        (b"x-forwarded-for", b"127.0.0.1", True),
        (b"x-forwarded-for", b"::1, 127.0.0.1", True),
        (b"forwarded", b'for="[::1]:4711"', True),
        (b"x-forwarded-for", b"203.0.113.9", False),
        (b"x-forwarded-for", b"203.0.113.9, 127.0.0.1", False),
        (b"forwarded", b"for=203.0.113.9;proto=https", False),
    ],
)
def test_in_development_mode_a_proxy_of_this_machine_admits_only_this_machine(
    header: bytes, value: bytes, is_local: bool
) -> None:
    handshake = request(Host=b"localhost:7400")
    named = handshake._replace(headers=[*handshake.headers, (header, value)])
    result = judged(named, LOOPBACK)
    assert isinstance(result, Upgrade) == is_local
    assert isinstance(judged(named), Upgrade), "with a secret the header decides nothing here"


@pytest.mark.parametrize("origin", LOOK_ALIKES)
def test_an_origin_that_only_looks_alike_is_refused(origin: bytes) -> None:
    refusal = judged(request(Origin=origin), ALLOWED)
    assert isinstance(refusal, HttpRefusal)
    assert refusal.status == 403
    refusal = judged(request(Origin=origin))
    assert isinstance(refusal, HttpRefusal), "without a list no browser may connect"


def test_the_allowed_origin_and_clients_without_one_pass() -> None:
    assert len(LOOK_ALIKES) >= 30
    assert isinstance(judged(request(Origin=ALLOWED.encode()), ALLOWED), Upgrade)
    assert isinstance(judged(request(), ALLOWED), Upgrade)
    assert isinstance(judged(request(Origin=b"https://anything.example"), "*"), Upgrade)


# ---- writing


@given(st.one_of(st.binary(max_size=300), st.sampled_from([125, 126, 65535, 65536]).map(bytes)))
def test_a_prepared_message_is_what_another_library_reads(payload: bytes) -> None:
    client = other_client()
    client.receive_data(ws_frame(payload))
    assert client.events_received() == [Frame(PeerOpcode.BINARY, payload)]
    client.receive_data(ws_frame(payload.hex().encode(), text=True))
    assert client.events_received() == [Frame(PeerOpcode.TEXT, payload.hex().encode())]


def other_client() -> ClientProtocol:
    """The `websockets` library's client without I/O, after the handshake."""
    client = ClientProtocol(parse_uri("ws://localhost/"), max_size=None)
    found = client.connect()
    lines = [b"GET / HTTP/1.1", *(f"{name}: {value}".encode() for name, value in found.headers.raw_items()), b"", b""]
    head = read_head(b"\r\n".join(lines))
    assert isinstance(head, HttpRequest)
    agreed = upgrade(head, frozenset())
    assert isinstance(agreed, Upgrade)
    client.send_request(found)
    client.data_to_send()
    client.receive_data(agreed.response)
    client.events_received()
    assert client.handshake_exc is None
    return client


def test_a_close_frame_is_cut_at_a_whole_character() -> None:
    frame = ws_close(4001, "慢" * 60)
    assert len(frame) <= 127
    assert frame[2:4] == struct.pack("!H", 4001)
    assert frame[4:].decode() == "慢" * 41
    assert ws_close(1005) == b"\x88\x00"


# ---- reading


@pytest.fixture
def harness() -> Iterator[Harness]:
    with connection_harness() as found:
        yield found


def hear(harness: Harness, kind: type[WebSocketTransport], *pieces: bytes) -> tuple[RecordingOwner, bytes]:
    """Let a client say ``pieces``, each in its own read; returns the owner and what the client was sent."""
    transport, owner, client = harness.add(kind)
    for piece in pieces:
        if transport.state:
            break
        client.sendall(piece)
        harness.turn()
    if not transport.state:
        client.shutdown(1)
    said = harness.read_all(client)
    return owner, said


def close_code(said: bytes) -> int:
    """The code of the Close frame at the end of what the client was sent."""
    assert said[0] == 0x88, said
    return int.from_bytes(said[2:4], "big")


PIECES = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.integers(1, 300)),
        st.tuples(
            st.just("message"), st.sampled_from([125, 126, 127, 4096, QUICK_BYTES, QUICK_BYTES + 1, 65_535, 65_536])
        ),
        st.tuples(st.just("fragments"), st.integers(0, 40)),
        st.tuples(st.just("ping"), st.integers(0, 125)),
        st.tuples(st.just("pong"), st.integers(0, 125)),
        st.tuples(st.just("empty"), st.just(0)),
    ),
    max_size=8,
)


@examples(60)
@given(PIECES, st.integers(0, 1 << 32), st.sampled_from([WebSocketTransport, WebSocketJsonTransport]))
def test_the_quick_way_and_wsproto_read_the_same_in_any_split(
    pieces: list[tuple[str, int]], seed: int, kind: type[WebSocketTransport]
) -> None:
    rng = random.Random(seed)
    opcode = TEXT if kind.text else BINARY
    stream, expected, pings = b"", [], []
    for what, size in pieces:
        payload = bytes(rng.choices(range(32, 127), k=size))
        key = rng.randbytes(4)
        if what == "message":
            stream += masked(opcode, payload, key=key)
            expected.append(payload)
        elif what == "fragments":
            stream += masked(opcode, payload[:3], fin=False, key=key)
            stream += masked(PING, b"between", key=key)
            stream += masked(CONTINUATION, payload[3:10], fin=False, key=key)
            stream += masked(CONTINUATION, payload[10:], key=key)
            expected.append(payload)
            pings.append(b"between")
        elif what == "empty":
            stream += masked(opcode, b"", key=key)
            expected.append(b"")
        else:
            stream += masked(PING if what == "ping" else PONG, payload, key=key)
            pings += [payload] if what == "ping" else []
    with connection_harness() as harness:
        transport, owner, client = harness.add(kind)
        assert isinstance(transport, WebSocketTransport)
        while stream:
            size = rng.choice((1, 2, 5, 14, 1000, 30_000, 70_000))
            stream = stream[client.send(stream[:size]) :]
            harness.turn()
        harness.until(lambda: len(owner.data) + sum(map(len, owner.texts)) >= sum(map(len, expected)))
        assert not owner.closed
        if kind.text:
            assert owner.texts == [each.decode() for each in expected]
        else:
            assert owner.data == b"".join(expected)
        answers = b"".join(bytes((0x8A, len(each))) + each for each in pings)
        assert harness.read(client, len(answers)) == answers
        assert not transport.is_mid_message, "an idle link keeps neither decoder nor bytes"


def test_text_of_several_bytes_a_character_may_be_split_anywhere(harness: Harness) -> None:
    text = "弹幕🎉é".encode()
    pieces = [masked(TEXT, text[:1], fin=False)]
    pieces += [masked(CONTINUATION, text[n : n + 1], fin=False) for n in range(1, len(text) - 1)]
    pieces += [masked(CONTINUATION, text[-1:])]
    owner, _ = hear(harness, WebSocketJsonTransport, *pieces, masked(TEXT, text))
    assert owner.texts == [text.decode()] * 2


BAD_UTF8 = b"abc\xff"
MANY = MAX_FRAGMENTS + 1


@pytest.mark.parametrize(
    ("kind", "pieces", "code"),
    [
        # RFC 6455: 1002
        (WebSocketTransport, [b"\x82\x01a"], 1002),  # not masked
        (WebSocketTransport, [b"\x02\x7d" + bytes(125)], 1002),
        (WebSocketTransport, [masked(BINARY, b"x", rsv=4)], 1002),
        (WebSocketTransport, [masked(BINARY, b"x", rsv=2)], 1002),
        (WebSocketTransport, [masked(BINARY, b"x", rsv=1)], 1002),
        *[(WebSocketTransport, [masked(opcode, b"x")], 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
        (WebSocketTransport, [masked(PING, bytes(126))], 1002),
        (WebSocketTransport, [masked(PING, b"x", fin=False)], 1002),
        (WebSocketTransport, [masked(CLOSE, b"", fin=False)], 1002),
        (WebSocketTransport, [masked(CONTINUATION, b"x")], 1002),
        (WebSocketTransport, [masked(BINARY, b"x", fin=False) + masked(BINARY, b"x")], 1002),
        (WebSocketTransport, [b"\x82\xfe\x00\x05" + bytes(9)], 1002),  # length not minimal
        (WebSocketTransport, [b"\x82\xff" + struct.pack("!Q", 70)], 1002),
        (WebSocketTransport, [b"\x82\xff" + struct.pack("!Q", 1 << 63)], 1002),
        (WebSocketTransport, [masked(CLOSE, b"\x03")], 1002),
        *[
            (WebSocketTransport, [masked(CLOSE, struct.pack("!H", code))], 1002)
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
        ],
        # wrong kind: 1003
        (WebSocketTransport, [masked(TEXT, b"{}")], 1003),
        (WebSocketTransport, [masked(TEXT, b"", fin=False)], 1003),
        (WebSocketJsonTransport, [masked(BINARY, b"\x00")], 1003),
        # not UTF-8: 1007
        (WebSocketJsonTransport, [masked(TEXT, BAD_UTF8)], 1007),
        (WebSocketJsonTransport, [masked(TEXT, "é".encode()[:1])], 1007),
        (WebSocketJsonTransport, [masked(TEXT, b"\xed\xa0\x80")], 1007),  # a surrogate
        (WebSocketJsonTransport, [masked(TEXT, b"x", fin=False) + masked(CONTINUATION, BAD_UTF8, fin=False)], 1007),
        (WebSocketTransport, [masked(CLOSE, struct.pack("!H", 1000) + b"\xff")], 1007),
        # guards: 1008, 1009
        (WebSocketTransport, [masked(BINARY, b"", fin=False)] + [masked(CONTINUATION, b"", fin=False)] * MANY, 1008),
        (WebSocketTransport, [masked(BINARY, b"x", fin=False)] + [masked(CONTINUATION, b"x", fin=False)] * MANY, 1008),
        (WebSocketTransport, [masked(PING)] * 101, 1008),
        (WebSocketTransport, [b"".join([masked(PONG, b"x")] * 101)], 1008),
        (WebSocketTransport, [b"".join([masked(BINARY)] * 101)], 1008),
        (WebSocketTransport, [b"\x82\xff" + struct.pack("!Q", MAX_MESSAGE_BYTES + 1) + b"KEY!"], 1009),
        (WebSocketTransport, [b"\x82\xff" + struct.pack("!Q", 1 << 62) + b"KEY!"], 1009),
        (WebSocketTransport, [masked(BINARY, bytes(60_000), fin=False), b"\x80\xfe\x20\x00KEY!"], 1009),
    ],
)  # fmt: skip
def test_a_violation_is_answered_with_its_close_code(
    harness: Harness, kind: type[WebSocketTransport], pieces: list[bytes], code: int
) -> None:
    owner, said = hear(harness, kind, *pieces)
    while said.startswith(b"\x8a"):
        said = said[2 + said[1] :]
    assert close_code(said) == code
    assert [found for found, _ in owner.closed] == [CloseCode.BAD_TRANSPORT]


def test_a_message_may_have_so_many_fragments_and_no_more(harness: Harness) -> None:
    pieces = [masked(BINARY, b"a", fin=False)]
    pieces += [masked(CONTINUATION, b"b", fin=False)] * (MAX_FRAGMENTS - 2)
    owner, _ = hear(harness, WebSocketTransport, *pieces, masked(CONTINUATION, b"c"))
    assert owner.data == b"a" + b"b" * (MAX_FRAGMENTS - 2) + b"c"


def test_the_largest_frame_fits_a_message(harness: Harness) -> None:
    transport, owner, client = harness.add(WebSocketTransport)
    stream = masked(BINARY, bytes(MAX_MESSAGE_BYTES))
    while stream:
        stream = stream[client.send(stream[:30_000]) :]
        harness.turn()
    harness.until(lambda: len(owner.data) == MAX_MESSAGE_BYTES)
    assert not transport.state


def test_a_too_long_message_is_refused_before_its_payload_comes(harness: Harness) -> None:
    _, said = hear(harness, WebSocketTransport, b"\x82\xff" + struct.pack("!Q", 1 << 40) + b"KEY!")
    assert close_code(said) == 1009


def test_ten_pings_a_second_are_fine_for_ever(harness: Harness) -> None:
    transport, owner, client = harness.add(WebSocketTransport)
    for _ in range(300):
        harness.clock.now += 0.1
        client.sendall(masked(PING, b"x"))
        harness.turn()
        assert harness.read(client, 3) == b"\x8a\x01x"
    assert not owner.closed
    assert not transport.state


def test_a_client_that_reads_no_pongs_makes_none_queue(harness: Harness) -> None:
    server, client = harness.narrow_pair()
    transport = WebSocketTransport(server, harness.transports, "127.0.0.1")
    harness.adopt(transport)
    for _ in range(400):
        client.sendall(masked(PING, bytes(125)))
        harness.turn()
        harness.clock.now += 0.1
    assert not transport.state
    assert transport.queue is not None
    assert transport.queue.nbytes < 2 * 127


def test_a_peers_close_is_answered_and_ends_the_link(harness: Harness) -> None:
    for code in (1000, 1001, 1011, 1014, 3000, 4411):
        owner, said = hear(harness, WebSocketTransport, masked(CLOSE, struct.pack("!H", code) + "再见".encode()))
        assert said == b"\x88\x02" + struct.pack("!H", code), "the reason is not echoed"
        assert owner.closed == [(CloseCode.CLOSED_BY_PEER, f"closed by peer with {code}")]
    owner, said = hear(harness, WebSocketTransport, masked(CLOSE) + masked(BINARY, b"after"))
    assert said == b"\x88\x00"
    assert owner.data == b""
    assert len(owner.closed) == 1


def test_messages_of_one_read_reach_a_binary_owner_together(harness: Harness) -> None:
    _, owner, client = harness.add(WebSocketTransport)
    calls: list[bytes] = []
    owner.on_data_do = calls.append
    client.sendall(masked(BINARY, b"one") + masked(BINARY, b"two") + masked(BINARY, b"three")[:5])
    harness.until(lambda: calls)
    assert calls == [b"onetwo"]
    client.sendall(masked(BINARY, b"three")[5:])
    harness.until(lambda: len(calls) == 2)
    assert calls[1] == b"three"


def test_tiny_fragments_hold_no_more_than_their_bytes(harness: Harness) -> None:
    """600,000 one-byte pieces have cost another server 58 times their size."""
    transport, _, client = harness.add(WebSocketTransport)
    client.sendall(b"\x02\xfe" + struct.pack("!H", 6_000) + b"KEY!")
    harness.turn()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(5_000):
        transport.on_bytes(b"x")
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 3 * 5_000
