"""Requests to one endpoint of the platform: one signed POST each, over a bounded pool of connections.

What a receiver does cannot hurt: no redirect is followed, no cookie kept, no proxy of the environment used, no
compressed body unpacked; an answer is read up to `MAX_REPLY_BYTES`, and connecting and the whole request have a
deadline, the lookup of the name included. A request that was cut off on a kept connection before any byte of an answer
is sent again on another one: such a connection may have ended while the request was on its way, and the id lets the
receiver see a repetition.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import trio

from broker.config.files import openssl_path
from broker.config.webhooks import EndpointConfig, WebhookConfig
from broker.webhooks.connecting import Connector
from broker.webhooks.connection import AnswerBroken, EndpointConnection, HttpTarget
from broker.webhooks.signing import sign

__all__ = ["MAX_REPLY_BYTES", "SendFailure", "WebhookReply", "WebhookSender", "client_context"]

MAX_REPLY_BYTES = 64 * 1024
MAX_RETRY_AFTER_S = 86_400.0
KEEPALIVE_S = 4.0
"""Below the five seconds after which servers of Node end an idle connection."""
_FIELDS = (("Content-Type", "application/json"), ("Accept-Encoding", "identity"), ("User-Agent", "roomcast"))


class SendFailure(StrEnum):
    """Why a request has no answer."""

    CONNECT = "connect"
    """No connection: the name is unknown, the address refuses, the certificate is not trusted."""
    TIMEOUT = "timeout"
    """No complete answer before the deadline."""
    BROKEN = "broken"
    """The connection ended before the answer did, or the answer was not HTTP."""
    TOO_LARGE = "too_large"
    """The answer was larger than `MAX_REPLY_BYTES`."""


@dataclass(frozen=True, slots=True)
class WebhookReply:
    """What came of one request: an answer with its status and body, or the kind of failure (then ``status`` is 0).

    ``retry_after_s``: seconds that the receiver asks to wait, where it says so as a number; ``detail``: for the log.
    """

    status: int
    body: bytes = b""
    retry_after_s: float | None = None
    failure: SendFailure | None = None
    detail: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken it: a status from 200 to 299."""
        return 200 <= self.status <= 299


def client_context(ca_file: str | None) -> ssl.SSLContext:
    """Return the TLS context for all endpoints: certificates and names are verified. OSError (ssl.SSLError is one).

    :param ca_file: PEM file of authorities that are trusted; None: those of the system.
    """
    if ca_file is None:
        context = ssl.create_default_context()
    else:
        with openssl_path(ca_file) as path:
            context = ssl.create_default_context(cafile=path)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class WebhookSender:
    """Sender of signed requests to one endpoint, over connections of its own.

    `use_keys` changes the keys between two requests. Close with `aclose`.
    """

    def __init__(
        self,
        endpoint: EndpointConfig,
        config: WebhookConfig,
        keys: tuple[bytes, ...],
        context: ssl.SSLContext,
        unix_ms: Callable[[], int],
        max_connections: int | None = None,
    ) -> None:
        """:param max_connections: not set = that of the configuration."""
        self._target = HttpTarget.of(endpoint.url)
        self._context = context
        self._keys = keys
        self._unix_ms = unix_ms
        self._connect_timeout_s = config.connect_timeout_s
        self._connector = Connector()
        self._limiter = trio.CapacityLimiter(max_connections or config.max_connections)
        self._kept: deque[EndpointConnection] = deque()
        """Open connections that wait for a request, the latest used at the right."""
        self._is_closed = False

    def use_keys(self, keys: tuple[bytes, ...]) -> None:
        """Sign with other keys from the next request on."""
        self._keys = keys

    async def aclose(self) -> None:
        """Close all connections, those of requests under way once these end."""
        self._is_closed = True
        while self._kept:
            await self._kept.pop().aclose()

    async def post(self, message_id: str, body: bytes, timeout_s: float) -> WebhookReply:
        """Send one signed request and return what came of it; raises only what cancels the caller.

        :param message_id: the event's id, the same on every try.
        :param body: JSON.
        :param timeout_s: deadline of everything: waiting for a connection, connecting, the answer's last byte.
        """
        with trio.move_on_after(timeout_s):
            async with self._limiter:
                oldest = trio.current_time() - KEEPALIVE_S
                while self._kept and self._kept[0].used_at < oldest:
                    await self._kept.popleft().aclose()
                while True:  # until the kept connections are used up: a new one gives a reply
                    reply = await self._try(message_id, body, timeout_s)
                    if reply is not None:
                        return reply
        return WebhookReply(0, failure=SendFailure.TIMEOUT, detail=f"no answer within {timeout_s:g} s")

    async def _try(self, message_id: str, body: bytes, timeout_s: float) -> WebhookReply | None:
        """Return what came of one request; None where a kept connection ended before an answer began."""
        is_new = not self._kept
        if is_new:
            opened = await self._open(min(self._connect_timeout_s, timeout_s))
            if isinstance(opened, WebhookReply):
                return opened
            connection = opened
        else:
            connection = self._kept.pop()
            if connection.is_stale:
                await connection.aclose()
                return None
        signed = sign(self._keys, message_id, self._unix_ms() // 1000, body)
        try:
            answer = await connection.post(self._target, [*_FIELDS, *signed.items()], body, MAX_REPLY_BYTES)
        except AnswerBroken as error:
            if not is_new and not error.began:
                return None
            return WebhookReply(0, failure=SendFailure.BROKEN, detail=str(error)[:200])
        finally:
            if connection.is_reusable and not self._is_closed:
                self._kept.append(connection)
            else:
                with trio.CancelScope(shield=True):  # it closes without waiting
                    await connection.aclose()
        if answer.body is None:
            detail = f"status {answer.status} with more than {MAX_REPLY_BYTES} bytes"
            return WebhookReply(0, failure=SendFailure.TOO_LARGE, detail=detail)
        return WebhookReply(answer.status, answer.body, _retry_after_s(answer.retry_after))

    async def _open(self, timeout_s: float) -> EndpointConnection | WebhookReply:
        """Return a new connection, or why there is none."""
        try:
            with trio.move_on_after(timeout_s):
                return await EndpointConnection.open(self._target, self._context, self._connector)
        except (OSError, trio.BrokenResourceError) as error:
            return WebhookReply(0, failure=SendFailure.CONNECT, detail=_failure_reason(error))
        return WebhookReply(0, failure=SendFailure.TIMEOUT, detail=f"no connection within {timeout_s:g} s")


def _failure_reason(error: BaseException) -> str:
    """Return the first text in a chain of exceptions: the outermost ones of a failed handshake have none."""
    cause: BaseException | None = error
    while cause is not None and not str(cause):
        cause = cause.__cause__ or cause.__context__
    return str(cause)[:200] if cause is not None else type(error).__name__


def _retry_after_s(text: str) -> float | None:
    """Return the seconds of the header Retry-After; None where it has none, or a date."""
    return min(float(text), MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() and len(text) <= 12 else None
