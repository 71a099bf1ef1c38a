from __future__ import annotations

import select

import pytest

from bench.load.client_link import ClientLink, LinkState
from bench.load.sockets import listen


def test_a_link_connects_and_requests_the_upgrade() -> None:
    link = ClientLink(websocket=True)
    with listen() as listener:
        link.connect(listener.getsockname(), "127.0.0.2")
        assert link.state is LinkState.CONNECTING
        assert link.sock is not None
        with link.sock:
            select.select([], [link.sock], [], 5)
            link.check_connected()
            link.request_upgrade("localhost", "/room")
            select.select([listener], [], [], 5)
            peer, _ = listener.accept()
            with peer:
                assert peer.recv(4096).startswith(b"GET /room HTTP/1.1\r\nHost: localhost\r\n")
    assert link.state is LinkState.UPGRADING


def test_a_connection_without_a_listener_is_refused() -> None:
    link = ClientLink(websocket=False)
    with listen() as listener:
        address = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):  # noqa: PT012 - loopback refuses in either call
        link.connect(address, "127.0.0.2")
        assert link.sock is not None
        select.select([], [link.sock], [], 5)
        link.check_connected()
    if link.sock is not None:
        link.sock.close()


def test_the_answer_to_the_upgrade_may_arrive_in_parts_with_frames_after_it() -> None:
    link = ClientLink(websocket=True)
    assert not link.is_upgraded(b"HTTP/1.1 101 Switching")
    assert not link.is_upgraded(b" Protocols\r\nUpgrade: websocket\r")
    assert link.is_upgraded(b"\n\r\nframe")
    assert link.rest == b"frame"


@pytest.mark.parametrize(
    ("answer", "why"), [(b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"), (b"", "closed during the upgrade")]
)
def test_a_refused_upgrade_is_an_error_with_its_reason(answer: bytes, why: str) -> None:
    with pytest.raises(OSError, match=why):
        ClientLink(websocket=True).is_upgraded(answer)
