"""Connections to a Redis server: TCP, TLS or a Unix socket, and who is the primary where Sentinels know it."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import hiredis
import trio

from broker.config.redis_url import Address, RedisUrl
from broker.engine.base import EngineUnavailable
from broker.engine.link import Command, pack, tls_context

__all__ = ["connector", "hello_commands", "server_connector"]

SENTINEL_TIMEOUT_S = 1.0
"""A Sentinel, or a server of a Cluster, that does not answer in time is passed over."""


def connector(url: RedisUrl, tls_ca: str = "", tls_cert: str = "") -> Callable[[], Awaitable[trio.abc.Stream]]:
    """Return what opens a connection. OSError for files of certificates that cannot be read."""
    context = tls_context(tls_ca, tls_cert) if url.is_tls else None

    async def connect() -> trio.abc.Stream:
        """Connect. OSError, trio.BrokenResourceError, EngineUnavailable: no Sentinel knows a primary."""
        if url.path:
            return await trio.open_unix_socket(url.path)
        if url.service:
            return await _open(*await _primary(url, context), context)
        for address in url.addresses[:-1]:  # of a Cluster
            try:
                with trio.fail_after(SENTINEL_TIMEOUT_S):
                    return await _open(*address, context)
            except (OSError, trio.BrokenResourceError, trio.TooSlowError):
                continue
        return await _open(*url.addresses[-1], context)

    return connect


def server_connector(
    url: RedisUrl, tls_ca: str = "", tls_cert: str = ""
) -> Callable[[Address], Awaitable[trio.abc.Stream]]:
    """Return what opens a connection to a server of a Cluster. OSError for files of certificates."""
    context = tls_context(tls_ca, tls_cert) if url.is_tls else None

    async def connect(address: Address) -> trio.abc.Stream:
        """Connect. OSError, trio.BrokenResourceError."""
        return await _open(*address, context)

    return connect


def hello_commands(url: RedisUrl, name: str = "") -> list[Command]:
    """Return the commands with which a connection begins. ``name``: of the connection, "" = none."""
    hello: Command = ("HELLO", 3)
    if url.password:
        hello += ("AUTH", url.user or "default", url.password)
    if name:
        hello += ("SETNAME", name)
    return [hello, ("SELECT", url.database)] if url.database else [hello]


async def _open(host: str, port: int, context: ssl.SSLContext | None) -> trio.abc.Stream:
    stream = await trio.open_tcp_stream(host, port)
    if context is None:
        return stream
    secure = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secure)
        raise
    return secure


async def _primary(url: RedisUrl, context: ssl.SSLContext | None) -> tuple[str, int]:
    """Ask the Sentinels, one after the other, who the primary is."""
    for host, port in url.addresses:
        with trio.move_on_after(SENTINEL_TIMEOUT_S):
            try:
                async with await _open(host, port, context) as stream:
                    question = pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service))
                    await stream.send_all(question)
                    reader = hiredis.Reader()
                    while data := await stream.receive_some(4096):
                        reader.feed(bytes(data))
                        reply = reader.gets()
                        if isinstance(reply, list):
                            return reply[0].decode(), int(reply[1])
                        if reply is not False:
                            break  # it does not know the name
            except (OSError, trio.BrokenResourceError, hiredis.HiredisError):
                continue
    raise EngineUnavailable(f"no Sentinel of {url} knows a primary")
