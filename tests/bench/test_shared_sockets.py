"""Viewers that share a socket: their bytes never mix, and each has a queue of its own."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.lowlevel

from bench.load.shared_sockets import SharedLink, SharedSocket
from bench.load.sockets import pairs
from broker.core.net.send_queue import QueueLimits
from broker.net.poller import Poller
from protocol.codes import Lane
from tests.support.poller import transport_settings

SIZE = 3000


@pytest.fixture
def poller() -> Poller:
    return Poller(write_timeout_s=10.0, clock=lambda: 0.0)


def shared_socket(sender: socket.socket, poller: Poller) -> SharedSocket:
    limits = QueueLimits(frames=200, queue_bytes=1 << 20, critical_bytes=1 << 21)
    return SharedSocket(sender, transport_settings(poller, limits=limits, budget_bytes=1 << 26))


def drain(receiver: socket.socket) -> bytes:
    data = b""
    while True:
        try:
            part = receiver.recv(1 << 20)
        except BlockingIOError:
            return data
        if not part:
            return data
        data += part


def frame(viewer: int, number: int) -> bytes:
    """A frame whose every byte says whose it is and which."""
    return bytes([viewer * 50 + number % 50]) * SIZE


async def test_a_partly_written_frame_is_completed_before_another_begins(poller: Poller) -> None:
    (sender,), (receiver,) = pairs(1, send_bytes=8192)
    try:
        shared = shared_socket(sender, poller)
        poller.add(shared, 1e6)
        links = [SharedLink(shared) for _ in range(3)]
        shared.links = links
        sent = []
        for number in range(40):
            for viewer, link in enumerate(links):
                link.write(frame(viewer, number), Lane.CHAT, 1, 1)
                sent.append(frame(viewer, number))
        assert any(link.queue is not None for link in links), "the socket filled up"
        received = b""
        for _ in range(4000):
            await trio.lowlevel.checkpoint()
            received += drain(receiver)
            shared.on_writable()
            if len(received) == len(sent) * SIZE:
                break
        assert len(received) == len(sent) * SIZE
        pieces = [received[start : start + SIZE] for start in range(0, len(received), SIZE)]
        assert all(len(set(piece)) == 1 for piece in pieces), "two viewers' bytes are mixed"
        assert sorted(pieces) == sorted(sent)
        for viewer in range(3):
            mine = [piece[0] for piece in pieces if piece[0] // 50 == viewer]
            assert mine == [frame(viewer, number)[0] for number in range(40)], "a viewer's own order"
        assert all(link.queue is None for link in links)
        assert shared.partial is None
        assert not poller.backlogged
    finally:
        sender.close()
        receiver.close()


async def test_a_viewer_that_leaves_within_a_frame_takes_its_socket_along(poller: Poller) -> None:
    (sender,), (receiver,) = pairs(1, send_bytes=8192)
    try:
        shared = shared_socket(sender, poller)
        poller.add(shared, 1e6)
        first, second = links = [SharedLink(shared), SharedLink(shared)]
        shared.links = links
        while shared.partial is None and first.queue is None:
            first.write(frame(0, 1) * 40, Lane.CHAT, 1, 1)
        second.write(frame(1, 1), Lane.CHAT, 1, 1)
        assert second.queue is not None, "the other one waits"
        if shared.partial is first:
            first.abort("gone")
            assert second.state
            assert sender.fileno() == -1
    finally:
        sender.close()
        receiver.close()
