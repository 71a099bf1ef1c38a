"""Listening sockets: bind, accept in batches under the connection limits, back off when descriptors run out.

An accept loop is a task per listening socket (IPv4, IPv6). It accepts for at most `ACCEPT_S`, at the rate that the
connection limits allow; the rest waits in the kernel's backlog. No error of `accept` ends it: when the process or the
machine is out of descriptors or memory it backs off from 10 ms up to a second, with one log line a second at most.

Options are set once on the listening socket: Linux hands them down to every accepted one.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from typing import cast

import structlog
import trio

from broker.config.schema import Config
from broker.core.net.connection_limits import Admission, ConnectionLimits, Refuse
from broker.core.net.proxy_header import Networks, plain_address
from broker.net.event_stream import EventStreamTransport
from broker.net.http1 import Health, Pages
from broker.net.inherited import inherited_sockets
from broker.net.protocol_detection import DetectorSettings, ProtocolDetector
from broker.net.tls import server_context
from broker.net.transport import Owner, Transport, TransportSettings
from broker.net.websocket import LOOPBACK

__all__ = ["Listener", "bind"]

log = structlog.get_logger("roomcast.listener")

ACCEPT_S = 0.001
"""Time one batch of accepts may take before other tasks run."""
BACKLOG = 4096
"""Connections in the kernel's queue; Linux cuts it to net.core.somaxconn."""
REFUSED_S = 1.0
"""A refused connection gets its answer if it sends its first bytes within this time."""
BACKOFF_MIN_S = 0.01
BACKOFF_MAX_S = 1.0
"""NATS: 10 ms doubling to 1 s. Without it a full process spins on EMFILE."""
LOG_EVERY_S = 1.0

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
"""ENOSPC: the epoll's limit of watches."""
_PEER_GONE = frozenset(
    {
        errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN,
        errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH,
    }
)  # fmt: skip
"""accept(2): errors of the new connection that Linux passes on; the next one may be fine."""


class Listener:
    """The listening sockets of one broker. ``addresses`` are known once `run` serves."""

    def __init__(
        self,
        config: Config,
        transports: TransportSettings,
        connection_limits: ConnectionLimits,
        make_session: Callable[[Transport], Owner],
        *,
        status: Health,
        watch: Callable[[EventStreamTransport], None] | None = None,
        pages: Pages | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """``make_session`` gives a new transport its owner, ``watch`` a stream of events; ``pages`` answers browsers.
        OSError if the TLS files are wrong."""
        listen = config.listen
        self.detector = DetectorSettings(
            connection_limits=connection_limits,
            make_session=make_session,
            health=status,
            watch=watch,
            pages=pages,
            origins=_origins(config),
            tls=_tls(config),
            trusted=Networks(listen.trusted_proxies),
            address_header=listen.client_address_header.encode(),
        )
        self.addresses: tuple[tuple[str, int], ...] = ()
        self.accept_errors = 0
        """Accepts that failed for want of descriptors or memory."""
        self._config = config
        self.transports = transports
        self._connection_limits = connection_limits
        self._clock = clock
        self._sockets: list[socket.socket] = []
        self._may_accept = False
        """One accept is paid for and not used yet."""
        self._logged_at = -LOG_EVERY_S
        self._unlogged = 0

    async def run(self, task_status: trio.TaskStatus[tuple[tuple[str, int], ...]] = trio.TASK_STATUS_IGNORED) -> None:
        """Bind, report the addresses, and accept until stopped or cancelled. OSError if nothing can be bound."""
        self._sockets = inherited_sockets("viewers") or await bind(self._config)
        try:
            self.addresses = tuple(sock.getsockname()[:2] for sock in self._sockets)
            async with trio.open_nursery() as nursery:
                for sock in self._sockets:
                    nursery.start_soon(self.accept_from, sock)
                task_status.started(self.addresses)
        finally:
            self.stop()

    def reload(self, config: Config) -> None:
        """Use other certificates and origins for new connections. OSError, with nothing changed, if files are wrong."""
        self.detector.tls = _tls(config)
        self.detector.origins = _origins(config)

    def stop(self) -> None:
        """Close the listening sockets; accepted connections stay, those in the backlog are reset. Idempotent."""
        for sock in self._sockets:
            if sock.fileno() >= 0:
                trio.lowlevel.notify_closing(sock)
                sock.close()

    # ---- accepting

    async def accept_from(self, sock: socket.socket) -> None:
        """Accept connections from a listening socket until it is closed."""
        backoff_s = 0.0
        while sock.fileno() >= 0:
            try:
                await trio.lowlevel.wait_readable(sock)
            except trio.ClosedResourceError:
                return
            try:
                wait_s = self._accept_some(sock)
            except OSError as error:
                if sock.fileno() < 0:
                    return
                backoff_s = min(BACKOFF_MAX_S, backoff_s * 2 or BACKOFF_MIN_S)
                self._on_accept_error(error, backoff_s)
                wait_s = backoff_s
            else:
                backoff_s = 0.0
            if wait_s:
                await trio.sleep(wait_s)

    def _accept_some(self, sock: socket.socket) -> float:
        """Accept for at most `ACCEPT_S`; returns the seconds to wait first. OSError: nothing can be accepted."""
        clock, family = self._clock, sock.family
        now = clock()
        end = now + ACCEPT_S
        while now < end:
            if not self._may_accept:
                wait_s = self._connection_limits.pace(now)
                if wait_s:
                    return wait_s
                self._may_accept = True
            try:
                # What `socket.accept` does, 4 us faster: it looks up enum members, and makes the socket of a subclass
                # whose objects weigh 48 bytes more and have nothing else of use here. (typeshed leaves it out.)
                fd, peer = sock._accept()  # type: ignore[attr-defined]
                accepted = cast(socket.socket, socket.SocketType(family, socket.SOCK_STREAM, 0, fd))
            except BlockingIOError:
                return 0.0
            except OSError as error:
                if error.errno not in _PEER_GONE:
                    raise
                now = clock()
                continue
            self._may_accept = False
            self.admit(accepted, plain_address(str(peer[0])), now)
            now = clock()
        return 0.0

    def admit(self, accepted: socket.socket, address: str, now: float) -> None:
        """Take an accepted connection: count it against the limits and detect its protocol, or close it."""
        detector, connection_limits = self.detector, self._connection_limits
        proxy = ""
        if detector.trusted and address in detector.trusted:
            proxy, address = address, ""
        admission = connection_limits.enter(address, now)
        if admission is Admission.DROP:
            accepted.close()
            return
        refusal = admission if isinstance(admission, Refuse) else None
        timeout_s = self._config.link.handshake_timeout_s
        due = now + (timeout_s if refusal is None else min(timeout_s, REFUSED_S))
        accepted.setblocking(False)
        is_proxied = bool(proxy) and self._config.listen.proxy_protocol
        connection = ProtocolDetector(
            accepted, self.transports, address, detector, refusal, is_proxied=is_proxied, proxy=proxy
        )
        try:
            self.transports.poller.add(connection, due)
        except OSError:
            accepted.close()
            if refusal is None:
                connection_limits.leave(address, False)
            else:
                connection_limits.leave_refused(address)
            raise

    def _on_accept_error(self, error: OSError, backoff_s: float) -> None:
        """Count a failed accept, and log it unless one was logged within the last second."""
        self.accept_errors += 1
        now = self._clock()
        if now - self._logged_at < LOG_EVERY_S:
            self._unlogged += 1
            return
        self._logged_at = now
        known = error.errno in _EXHAUSTED
        log.warning(
            "cannot accept" if known else "accept failed", error=errno.errorcode.get(error.errno or 0, str(error)),
            backoff_s=backoff_s, connections=len(self.transports.poller), unlogged=self._unlogged,
        )  # fmt: skip
        self._unlogged = 0


def _tls(config: Config) -> ssl.SSLContext | None:
    listen = config.listen
    if listen.tls_cert is None or listen.tls_key is None:
        return None
    return server_context(listen.tls_cert, listen.tls_key)


def _origins(config: Config) -> frozenset[str]:
    """Return the origins that may connect: those of the configuration, and that of the broker's own pages."""
    if config.development:
        return frozenset({LOOPBACK})
    own = config.pages.public_origin if config.pages.enabled else None
    return frozenset((*config.link.allowed_origins, *(() if own is None else (own,))))


async def bind(config: Config, *, shared_port: int | None = None) -> list[socket.socket]:
    """Make the listening sockets of ``config.listen``: one for each address of its host.

    With port 0 all of them get the same free port. ``shared_port``: that port, where other sockets of this user listen
    on it as well; the kernel spreads connections over them. OSError if none can be bound, or if a given port is taken.
    """
    host, port = config.listen.host, config.listen.port if shared_port is None else shared_port
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    slots = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for attempt in range(8):  # a port that is free for IPv4 may be taken for IPv6
        sockets: list[socket.socket] = []
        try:
            shared = port
            for family, address in slots:
                try:
                    sock = _open(config, family, (address[0], shared, *address[2:]), shared_port is not None)
                except OSError as error:
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or len(slots) == 1:
                        raise
                    continue  # localhost names ::1 on machines without IPv6
                sockets.append(sock)
                shared = sock.getsockname()[1]
        except OSError as error:
            for sock in sockets:
                sock.close()
            if port or error.errno != errno.EADDRINUSE or attempt == 7:
                raise
            continue
        if sockets:
            return sockets
        break
    raise OSError(errno.EADDRNOTAVAIL, f"no address of {host} can be bound")


def _open(config: Config, family: int, address: tuple[object, ...], is_shared: bool) -> socket.socket:
    link = config.link
    sock = socket.socket(family, socket.SOCK_STREAM)
    is_for_both = address[0] == "::"
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_for_both else 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, link.send_buffer_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, link.notsent_lowat_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(link.heartbeat_cut_s * 1000))
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
