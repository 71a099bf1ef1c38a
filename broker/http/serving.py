"""The listener of the control API: accepts within limits, and runs `broker.http.connection` for each connection.

The limits are those of `broker.core.net.connection_limits`: connections in all, a share for each address, a rate of
accepting. What is above them is answered by 503 (429 where it is the address's share) with ``Retry-After`` and ended;
what even the pool of such answers has no place for is closed at once. On a socket file there are no addresses, so only
the total holds there. A socket file is removed before it is bound and after the end.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from math import ceil
from pathlib import Path

import structlog
import trio

from broker.core.net.connection_limits import Admission, ConnectionLimits, ConnectionLimitSettings, Refuse
from broker.core.net.proxy_header import plain_address
from broker.http.connection import AsgiApp, HttpConnection, HttpCounters
from broker.net.inherited import inherited_sockets
from protocol.codes import CloseCode

__all__ = ["HttpServer", "api_limits", "bind_api", "socket_file"]

log = structlog.get_logger("roomcast.api.server")

FAILED_LOGINS_PER_MINUTE = 60
"""Not counted here: the application limits requests without a valid key."""
ACCEPT_PER_S = 2000.0
ADDRESS_SHARE = 0.5
"""Part of all connections, and of the rate of accepting, that one address may use: on a machine of its own the backend
is one address, and a health check or a second backend still gets in."""
BACKLOG = 1024
BACKOFF_S = 0.1
"""Pause after an accept that failed for want of descriptors or memory."""
REFUSAL_S = 1.0
"""How long a refused connection is read, so that its answer arrives."""
SOCKET_UMASK = 0o117
"""Rights of a socket file: 0660."""


def api_limits(max_connections: int) -> ConnectionLimitSettings:
    """Return the limits of the control API's connections."""
    return ConnectionLimitSettings(
        max_connections=max_connections,
        per_address=max(1, int(max_connections * ADDRESS_SHARE)),
        accept_per_s=ACCEPT_PER_S,
        unauthenticated_share=1.0,
        address_share=ADDRESS_SHARE,
        failed_logins_per_minute=FAILED_LOGINS_PER_MINUTE,
    )


class HttpServer:
    """The control API's listening sockets and connections."""

    def __init__(
        self,
        app: AsgiApp,
        listen: str,
        limits: ConnectionLimits,
        counters: HttpCounters,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """``listen``: HOST:PORT or unix:PATH."""
        self.limits = limits
        self.counters = counters
        self._app = app
        self._listen = listen
        self._clock = clock

    async def run(self, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; reports the URLs it is bound to. OSError if the address cannot be bound."""
        inherited = inherited_sockets("api")
        path = socket_file(self._listen)
        if not inherited:
            _remove(path)
        listeners = inherited or await bind_api(self._listen)
        try:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    nursery.start_soon(self._accept_from, listener, nursery)
                task_status.started([_url(listener, path) for listener in listeners])
        finally:
            for listener in listeners:
                listener.close()
            if not inherited:
                _remove(path)

    async def _accept_from(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            wait_s = self.limits.pace(self._clock())
            if not wait_s:
                try:
                    sock, _ = listener.accept()
                    self._admit(sock, nursery)
                    continue
                except (BlockingIOError, ConnectionError):
                    continue
                except OSError as error:
                    log.warning("accept failed", error=error.strerror or str(error), backoff_s=BACKOFF_S)
                    wait_s = BACKOFF_S
            await trio.sleep(wait_s)

    def _admit(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        """Count an accepted connection and start its task, or close it. OSError if it has left already."""
        sock.setblocking(False)
        client: tuple[str, int] | None = None
        if sock.family != socket.AF_UNIX:
            try:
                host, port, *_ = sock.getpeername()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                sock.close()
                return
            client = plain_address(host), port
        address = "" if client is None else client[0]
        admission = self.limits.enter(address, self._clock())
        if admission is Admission.ADMIT:
            nursery.start_soon(self._serve, sock, client, address)
        elif isinstance(admission, Refuse):
            nursery.start_soon(self._refuse, sock, admission, address)
        else:
            sock.close()

    async def _serve(self, sock: socket.socket, client: tuple[str, int] | None, address: str) -> None:
        try:
            await HttpConnection(sock, self._app, client, self.counters).run()
        except Exception:
            log.exception("connection failed", address=address)
        finally:
            self.limits.leave(address, False)

    async def _refuse(self, sock: socket.socket, refusal: Refuse, address: str) -> None:
        try:
            with sock, trio.move_on_after(REFUSAL_S):
                sock.send(_refusal(refusal))
                sock.shutdown(socket.SHUT_WR)
                while True:
                    await trio.lowlevel.wait_readable(sock)
                    if not sock.recv(16 * 1024):
                        return
        except OSError:
            pass
        finally:
            self.limits.leave_refused(address)


def _refusal(refusal: Refuse) -> bytes:
    is_address = refusal.code is CloseCode.TOO_MANY_FROM_ADDRESS
    status, title = (429, "Too many requests") if is_address else (503, "Not now")
    code = "RATE_LIMITED" if is_address else "OVERLOADED"
    body = json.dumps(
        {
            "type": f"urn:roomcast:error:{code.lower()}",
            "title": title,
            "status": status,
            "code": code,
            "rule": "too many connections of this address" if is_address else "too many connections",
            "retry_after_ms": refusal.retry_after_ms,
        }
    ).encode()
    head = (
        f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
        f"Retry-After: {ceil(refusal.retry_after_ms / 1000)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def socket_file(listen: str) -> Path | None:
    """Return the path of unix:PATH, None for HOST:PORT."""
    return Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None


async def bind_api(listen: str, *, is_shared: bool = False) -> list[socket.socket]:
    """Bind unix:PATH, or HOST:PORT: each address of the host; with port 0 the first only, as each would get another.

    ``is_shared``: other sockets of this user listen on the port as well. OSError if it cannot be bound.
    """
    if (path := socket_file(listen)) is not None:
        return [_bind_file(path)]
    host, _, port = listen.rpartition(":")
    found = await trio.socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    listeners: list[socket.socket] = []
    try:
        for family, _, _, _, address in found[: None if int(port) else 1]:
            listener = socket.socket(family, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.setblocking(False)
            listener.listen(BACKLOG)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind_file(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(SOCKET_UMASK)
    try:
        listener.bind(str(path))
        listener.setblocking(False)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def _url(listener: socket.socket, path: Path | None) -> str:
    if path is not None:
        return f"unix:{path}"
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _remove(path: Path | None) -> None:
    if path is not None and path.is_socket():
        os.unlink(path)
