"""Requests to one endpoint of the platform: one signed POST each, over a bounded pool of connections.

What a receiver does cannot hurt: no redirect is followed, no cookie kept, no proxy of the environment used, no
compressed body unpacked; an answer is read up to `MAX_REPLY_BYTES`, and connecting and the whole request have a
deadline. A request that was cut off on a kept connection before any byte of an answer is sent again on another one:
such a connection may have ended while the request was on its way, and the id lets the receiver see a repetition.

Only this module imports httpx, and uses its transport without its client, which follows redirects and keeps cookies.
Each connection is a transport of its own: one with many asks the kernel about every idle one for each request.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum

import httpx
import trio

from broker.config.files import openssl_path
from broker.config.webhooks import EndpointConfig, WebhookConfig, read_webhook_keys
from broker.webhooks.signing import sign

__all__ = [
    "KEEPALIVE_S",
    "MAX_REPLY_BYTES",
    "SendFailure",
    "WebhookReply",
    "WebhookSender",
    "client_context",
    "failure_reason",
    "read_retry_after",
]

MAX_REPLY_BYTES = 64 * 1024
MAX_RETRY_AFTER_S = 86_400.0
CLOSE_S = 1.0
"""Longest wait for the end of a connection that is closed, such as for the peer's part of the end of TLS."""
_CUT_OFF_DETAIL = "the connection ended before an answer, or the answer was not HTTP"
_CUT_OFF = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
KEEPALIVE_S = 4.0
"""Below the five seconds after which servers of Node end an idle connection."""
_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_S)


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
        url: str,
        keys: tuple[bytes, ...],
        *,
        context: ssl.SSLContext,
        unix_ms: Callable[[], int],
        max_connections: int,
        connect_timeout_s: float,
    ) -> None:
        self._url = httpx.URL(url)
        self._host = self._url.netloc.decode("ascii")
        self._keys = keys
        self._unix_ms = unix_ms
        self._connect_timeout_s = connect_timeout_s
        self._context = context
        self._limiter = trio.CapacityLimiter(max_connections)
        self._idle: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()
        """Kept connections with the time of their last use, the latest at the right."""
        self._is_closed = False

    @classmethod
    def of(
        cls,
        endpoint: EndpointConfig,
        config: WebhookConfig,
        context: ssl.SSLContext,
        unix_ms: Callable[[], int],
        max_connections: int | None = None,
    ) -> WebhookSender:
        """Return the sender of a configured endpoint. FileError or ValueError where its secret file cannot be used."""
        return cls(
            endpoint.url,
            read_webhook_keys(endpoint.secret_file),
            context=context,
            unix_ms=unix_ms,
            max_connections=max_connections or config.max_connections,
            connect_timeout_s=config.connect_timeout_s,
        )

    def use_keys(self, keys: tuple[bytes, ...]) -> None:
        """Sign with other keys from the next request on."""
        self._keys = keys

    async def aclose(self) -> None:
        """Close all connections; requests under way end first."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop()[1].aclose()

    async def post(self, message_id: str, body: bytes, timeout_s: float) -> WebhookReply:
        """Send one signed request and return what came of it; raises only what cancels the caller.

        :param message_id: the event's id, the same on every try.
        :param body: JSON.
        :param timeout_s: deadline of everything: waiting for a connection, connecting, the answer's last byte.
        """
        with trio.move_on_after(timeout_s):
            async with self._limiter:
                await self._close_unused()
                while True:
                    is_kept = bool(self._idle)
                    reply = await self._use_connection(message_id, body, timeout_s)
                    if reply is not None:
                        return reply
                    if not is_kept:
                        return WebhookReply(0, failure=SendFailure.BROKEN, detail=_CUT_OFF_DETAIL)
        return WebhookReply(0, failure=SendFailure.TIMEOUT, detail=f"no answer within {timeout_s:g} s")

    async def _close_unused(self) -> None:
        """Close the connections that nothing has used for long."""
        oldest = trio.current_time() - KEEPALIVE_S
        while self._idle and self._idle[0][0] < oldest:
            await self._idle.popleft()[1].aclose()

    async def _use_connection(self, message_id: str, body: bytes, timeout_s: float) -> WebhookReply | None:
        """Send over a kept connection or a new one, which is kept if the answer is whole; None as in `_try`."""
        if self._idle:
            _, transport = self._idle.pop()
        else:
            transport = httpx.AsyncHTTPTransport(verify=self._context, trust_env=False, limits=_LIMITS)
        is_whole = False
        try:
            reply = await self._try(transport, message_id, body, timeout_s)
            is_whole = reply is not None and reply.failure is None
            return reply
        finally:
            if is_whole and not self._is_closed:
                self._idle.append((trio.current_time(), transport))
            else:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                    await transport.aclose()

    async def _try(
        self, transport: httpx.AsyncHTTPTransport, message_id: str, body: bytes, timeout_s: float
    ) -> WebhookReply | None:
        """Return what came of one request; None where the connection ended before an answer began."""
        request = httpx.Request(
            "POST",
            self._url,
            stream=_Body(body),
            headers={
                "host": self._host,
                "content-length": str(len(body)),
                "content-type": "application/json",
                "accept-encoding": "identity",
                "user-agent": "roomcast",
                **sign(self._keys, message_id, self._unix_ms() // 1000, body),
            },
            extensions={"timeout": {"connect": min(self._connect_timeout_s, timeout_s)}},
        )
        response: httpx.Response | None = None
        try:
            response = await transport.handle_async_request(request)
            reply = bytearray()
            assert isinstance(response.stream, httpx.AsyncByteStream)
            with trio.CancelScope() as reading:
                async for chunk in response.stream:
                    reply += chunk
                    if len(reply) > MAX_REPLY_BYTES:
                        reading.cancel()  # leaving the loop would leave the generators below to the garbage collector
            if len(reply) > MAX_REPLY_BYTES:
                detail = f"status {response.status_code} with more than {MAX_REPLY_BYTES} bytes"
                return WebhookReply(0, failure=SendFailure.TOO_LARGE, detail=detail)
            return WebhookReply(
                response.status_code, bytes(reply), read_retry_after(response.headers.get("retry-after", ""))
            )
        except httpx.ConnectTimeout:
            detail = f"no connection within {self._connect_timeout_s:g} s"
            return WebhookReply(0, failure=SendFailure.TIMEOUT, detail=detail)
        except httpx.ConnectError as error:
            return WebhookReply(0, failure=SendFailure.CONNECT, detail=failure_reason(error))
        except httpx.TransportError as error:
            if response is None and isinstance(error, _CUT_OFF):
                return None
            return WebhookReply(0, failure=SendFailure.BROKEN, detail=failure_reason(error))
        finally:
            if response is not None:
                await response.aclose()


class _Body(httpx.AsyncByteStream):
    """Body of one request. (That of httpx is a generator, which a failed write would leave unfinished.)"""

    def __init__(self, data: bytes) -> None:
        self._parts = [data]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the body, once."""
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


def failure_reason(error: BaseException) -> str:
    """Return the first text in a chain of exceptions: the outermost ones of a failed handshake have none."""
    cause: BaseException | None = error
    while cause is not None and not str(cause):
        cause = cause.__cause__ or cause.__context__
    return str(cause)[:200] if cause is not None else type(error).__name__


def read_retry_after(text: str) -> float | None:
    """Return the seconds of the header Retry-After; None where it has none, or a date."""
    return min(float(text), MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() and len(text) <= 12 else None
