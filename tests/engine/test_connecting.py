"""Connections of the engine: Sentinels that name the primary, and TLS."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme

from broker.config.redis_url import parse_url
from broker.engine.base import EngineUnavailable
from broker.engine.connecting import connector

Handler = Callable[[trio.abc.Stream], Awaitable[None]]


async def listen(nursery: trio.Nursery, handler: Handler) -> int:
    """Serve on a free port, and return it."""
    listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
    port: int = listeners[0].socket.getsockname()[1]
    return port


async def greet(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"primary")


async def ignore(stream: trio.abc.Stream) -> None:
    """Hear nothing, as a Sentinel that has gone."""


def sentinel(answer: bytes) -> Handler:
    async def handle(stream: trio.abc.Stream) -> None:
        assert b"main" in await stream.receive_some()
        await stream.send_all(answer)

    return handle


async def test_the_first_sentinel_that_knows_the_primary_is_believed() -> None:
    async with trio.open_nursery() as nursery:
        primary = str(await listen(nursery, greet)).encode()
        knows = await listen(nursery, sentinel(b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(primary), primary)))
        gone = await listen(nursery, ignore)
        unaware = await listen(nursery, sentinel(b"*-1\r\n"))
        wrong = await listen(nursery, sentinel(b"-ERR unknown command\r\n"))
        hosts = ",".join(f"127.0.0.1:{port}" for port in (gone, unaware, wrong, knows))
        async with await connector(parse_url(f"sentinel://{hosts}/main"))() as stream:
            assert await stream.receive_some() == b"primary"
        with pytest.raises(EngineUnavailable, match="no Sentinel"):
            await connector(parse_url(f"sentinel://127.0.0.1:{gone},127.0.0.1:{unaware}/main"))()
        nursery.cancel_scope.cancel()


async def test_tls_checks_the_certificate_of_the_server(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    known, unknown = tmp_path / "known.pem", tmp_path / "unknown.pem"
    authority.cert_pem.write_to_path(str(known))
    other.cert_pem.write_to_path(str(unknown))

    async def secure(stream: trio.abc.Stream) -> None:
        server = trio.SSLStream(stream, context, server_side=True)
        try:
            await server.send_all(b"secret")
        except trio.BrokenResourceError:
            pass  # the client did not believe the certificate

    async with trio.open_nursery() as nursery:
        url = parse_url(f"rediss://127.0.0.1:{await listen(nursery, secure)}")
        async with await connector(url, str(known))() as stream:
            assert await stream.receive_some() == b"secret"
        with pytest.raises(trio.BrokenResourceError):
            await connector(url, str(unknown))()
        nursery.cancel_scope.cancel()
