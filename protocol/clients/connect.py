"""Opening a client: check the arguments, start the tasks of the client, and end them with the block.

The client's nursery exists as long as the ``async with`` block: no task outlives the block. An exception of the block
leaves it as it is, not wrapped in a group.
"""

from __future__ import annotations

import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from ..codes import Feature
from ..connection import Connection
from ..messages import MAGIC, VERSION, Auth, ClientHello, Side
from .client import Client
from .core import ClientCore
from .credentials import Credentials, TokenSource
from .dictionaries import DictionaryCache
from .inbox import MAX_INBOX_BYTES, MAX_INBOX_ITEMS
from .link import Hello
from .transports import Address, Connector, connector, tls_context

__all__ = ["open_client"]

AGENT: Final = "roomcast-python/0.1"
FEATURES: Final = Feature.LZ4 | Feature.LZ4_DICT_1 | Feature.CALL
HANDSHAKE_TIMEOUT_S = 10.0
"""Timeout of each of three steps: the application's token, the connection, and HELLO with AUTH."""
OPEN_TIMEOUT_S = 30.0
NOT_IN_TRIO: Final = (
    "open_client runs on Trio, and Trio is not running here: start the program with trio.run(main), or, from asyncio, "
    "run the client in a thread of its own with asyncio.to_thread(trio.run, main)"
)


@asynccontextmanager
async def open_client(
    url: str,
    token: str | TokenSource | None = None,
    *,
    features: int = FEATURES,
    agent: str = AGENT,
    dictionaries: DictionaryCache | None = None,
    reconnect: bool = True,
    rng: random.Random | None = None,
    ca: str | os.PathLike[str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    connect: Connector | None = None,
    wall_ms: Callable[[], int] | None = None,
    open_timeout_s: float = OPEN_TIMEOUT_S,
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
    inbox_items: int = MAX_INBOX_ITEMS,
    inbox_bytes: int = MAX_INBOX_BYTES,
) -> AsyncIterator[Client]:
    """Open a client for the length of an ``async with`` block; at its end GOAWAY is sent, within CLOSE_TIMEOUT_S.

    ``url``: see `Address.parse`. ``token`` None asks for guest access, for all clients of this process as one guest
    (`new_guest_token` makes another); an async function returns a token of the platform whenever one is needed: for
    the first link, before its end, and for later links when no ticket of the broker is valid.
    ``ca``: PEM file with the authorities that may have signed the broker's certificate, instead of the system's;
    ``ssl_context`` replaces all settings of TLS. ``features``: bits of `Feature`. ``dictionaries``: those it
    has already, and where it keeps what it gets; None = a cache of its own. With ``reconnect`` False the client
    ends with its first link. ``rng`` decides jitter and message ids (seed it in tests only). ``connect`` replaces the
    network, ``wall_ms`` the clock. ``open_timeout_s``: how long to wait for the first authenticated link, over any
    number of attempts; 0 enters the block at once. ``inbox_*`` bound each room's unread events and the client's own.

    Raises RuntimeError outside of Trio, ValueError for ``url`` and ``ca``, LocalProtocolError for token, features or
    agent, ClientClosed where the broker refuses the client finally (or, without ``reconnect``, at all),
    CertificateRefused, and trio.TooSlowError, with the reason of the last failure, after ``open_timeout_s``.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(NOT_IN_TRIO)
    address = Address.parse(url)
    if ca is not None:
        if ssl_context is not None:
            raise ValueError("ca and ssl_context cannot be given together")
        ssl_context = tls_context(ca)
    credentials = Credentials(token)
    if credentials.wants_tickets:
        features |= Feature.TICKET
    hello = Hello(None, int(features), agent, DictionaryCache() if dictionaries is None else dictionaries)
    checker = Connection(Side.CLIENT)
    checker.check(ClientHello(MAGIC, VERSION, VERSION, hello.features, agent))
    if not callable(token):
        checker.check(Auth(token))
    core = ClientCore(
        address,
        credentials,
        hello,
        connect if connect is not None else connector(ssl_context),
        reconnect=reconnect,
        rng=rng if rng is not None else random.Random(),
        wall_ms=wall_ms if wall_ms is not None else lambda: time.time_ns() // 1_000_000,
        handshake_timeout_s=handshake_timeout_s,
        inbox_items=inbox_items,
        inbox_bytes=inbox_bytes,
    )
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.run_background)  # not `start`: the shield would block its cancellation
            try:
                if open_timeout_s:
                    await core.wait_opened(open_timeout_s)
                yield Client(core)
            except BaseException as error:
                failure = error
                raise
            finally:
                await core.shut_down()
        return
    except BaseExceptionGroup:
        if core.has_crashed or failure is None:
            raise  # a bug of the client
    raise failure
