"""Process of raw senders: it accepts connections, answers each as a join, and sweeps over them at a command.

It does what a broker's process does at the least: one send of ready bytes for each viewer. Several share a port, so the
kernel spreads the viewers over them. Commands: `listen`, `sweep`; each is answered by one event line.
"""

from __future__ import annotations

import gc
import select
import socket

from bench.floor import python_sweep
from bench.load.child import CommandReader, emit, set_alarm
from bench.load.sockets import raise_descriptors
from protocol.codes import MessageType, Opcode
from protocol.frames import build_frame, pack_body

__all__ = ["main"]

LIFETIME_S = 3600.0
JOINED = build_frame(Opcode.JOIN, 0, 1, 1, pack_body((1,)))


class RawSenders:
    """The connections of the process."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.listener: socket.socket | None = None
        self.joining: dict[int, socket.socket] = {}
        self.joined: list[socket.socket] = []

    def run(self) -> None:
        """Execute commands until the parent ends."""
        reader = CommandReader()
        self.epoll.register(reader.fd, select.EPOLLIN)
        emit("ready")
        while not reader.ended:
            for fd, _ in self.epoll.poll(-1, 1024):
                if fd == reader.fd:
                    for command in reader.read():
                        getattr(self, "do_" + command.pop("do"))(**command)
                elif fd in self.joining:
                    self.answer(fd)
                else:
                    self.accept()

    def do_listen(self, port: int) -> None:
        """Listen on a port that others listen on too, 0 = a free one."""
        listener = self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(4096)
        listener.setblocking(False)
        self.epoll.register(listener.fileno(), select.EPOLLIN)
        emit("listening", port=listener.getsockname()[1])

    def do_sweep(self, text: str) -> None:
        """Send an announcement to all connections."""
        body = pack_body(((1, int(MessageType.ANNOUNCEMENT), 1, "host", text),))
        sweep = python_sweep(self.joined, build_frame(Opcode.EVENT, 0, 1, 1, body))
        emit("swept", sends=sweep.sends, refused=sweep.refused, wall_s=sweep.wall_s, cpu_s=sweep.cpu_s)

    def accept(self) -> None:
        """Accept what waits."""
        assert self.listener is not None
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.joining[sock.fileno()] = sock
            self.epoll.register(sock.fileno(), select.EPOLLIN)

    def answer(self, fd: int) -> None:
        """Answer what a client has sent, whatever it is."""
        sock = self.joining.pop(fd)
        self.epoll.unregister(fd)
        if sock.recv(65536):
            sock.send(JOINED)
            self.joined.append(sock)
        else:
            sock.close()


def main() -> None:
    """Run one process of raw senders."""
    set_alarm(LIFETIME_S)
    raise_descriptors()
    gc.freeze()
    RawSenders().run()


if __name__ == "__main__":
    main()
