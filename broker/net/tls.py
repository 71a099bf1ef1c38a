"""TLS on the poller: a non-blocking socket that behaves like a plain one.

`TlsSocket` translates OpenSSL's "want read" and "want write" into `BlockingIOError`. A transport needs to know one
thing about it: a refused write must be repeated with the same bytes (`TlsSocket.repeats_refused_write`). OpenSSL reads
one record at a time and a transport reads more than the largest record, so nothing that epoll does not see stays
behind.

Each connection is encrypted for itself, so normally the platform's proxy ends TLS; this is for small installations and
tests.

Costs, beside a plain connection: about 0.9 ms of CPU for a handshake, 20 KB of memory, 12 us a write.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.config.files import openssl_path

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["RECORD_BYTES", "TlsSocket", "server_context", "wrap"]

RECORD_BYTES = 16 * 1024
"""Largest TLS record; one is written at a time, so that a full socket takes part of a long write."""

_WANT = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TlsSocket(ssl.SSLSocket):
    """The server's end of one TLS connection; made by `wrap`."""

    repeats_refused_write: Final = True
    """OpenSSL wants a refused write again with the same bytes."""

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """As a plain non-blocking socket's. After BlockingIOError or a part, the same bytes must come next."""
        view = memoryview(data)
        size = len(view)
        sent = 0
        try:
            while sent < size:
                sent += super().send(view[sent : sent + RECORD_BYTES], flags)
        except _WANT:
            if not sent:
                raise BlockingIOError(errno.EAGAIN, "TLS cannot write now") from None
        return sent

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As a plain non-blocking socket's; a peer that ends without close_notify has ended too."""
        try:
            return super().recv(buflen, flags)
        except _WANT:
            raise BlockingIOError(errno.EAGAIN, "no TLS record yet") from None

    def continue_handshake(self) -> bool:
        """Continue the handshake as far as the bytes reach; return whether it is done. BlockingIOError: it must write.

        OSError (ssl.SSLError is one) when it has failed.
        """
        try:
            self.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            raise BlockingIOError(errno.EAGAIN, "TLS cannot write now") from None
        return True

    def shutdown(self, how: int) -> None:
        """Send close_notify if the socket takes it, and end the connection underneath; the answer is not waited for."""
        with contextlib.suppress(OSError, ValueError):
            self.unwrap()
        super().shutdown(how)


def server_context(cert: Path | str, key: Path | str) -> ssl.SSLContext:
    """Make the context of a listener from PEM files: TLS 1.2 or newer, no renegotiation, no client certificates.

    OSError (ssl.SSLError is one) when the files do not fit together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    with openssl_path(cert) as cert_path, openssl_path(key) as key_path:
        context.load_cert_chain(cert_path, key_path)
    context.sslsocket_class = TlsSocket
    return context


def wrap(context: ssl.SSLContext, sock: socket.socket) -> TlsSocket:
    """Put TLS on an accepted socket; it takes over the descriptor of ``sock``. Nothing is read or written yet.

    OSError or ValueError if the peer has already disconnected; the descriptor may then be closed.
    """
    wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    assert isinstance(wrapped, TlsSocket), "contexts come from server_context"
    return wrapped
