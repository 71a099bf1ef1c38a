"""Sender of events: the same request as `broker.webhooks.sender`'s, over connections that cost a fifth of the CPU.

Questions are few and wait for an answer; of events there may be thousands a second, and the order in a room lets each
wait for the one before. What holds for answers there holds here: no redirects, a capped answer, one deadline for all.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable

import trio

from broker.config.webhooks import EndpointConfig, WebhookConfig
from broker.webhooks.connection import AnswerBroken, EndpointConnection, HttpTarget
from broker.webhooks.sender import (
    KEEPALIVE_S,
    MAX_REPLY_BYTES,
    SendFailure,
    WebhookReply,
    failure_reason,
    read_retry_after,
)
from broker.webhooks.signing import sign

__all__ = ["EventSender"]

_FIELDS = (("Content-Type", "application/json"), ("Accept-Encoding", "identity"), ("User-Agent", "roomcast"))


class EventSender:
    """Sender of events to one endpoint. `use_keys` changes the keys between two requests; close with `aclose`.

    Its caller bounds how many requests are under way, and so the connections.
    """

    def __init__(
        self,
        endpoint: EndpointConfig,
        config: WebhookConfig,
        keys: tuple[bytes, ...],
        context: ssl.SSLContext,
        unix_ms: Callable[[], int],
    ) -> None:
        self._target = HttpTarget.of(endpoint.url)
        self._context = context
        self._keys = keys
        self._unix_ms = unix_ms
        self._connect_timeout_s = config.connect_timeout_s
        self._kept: deque[EndpointConnection] = deque()
        """Open connections that wait for a request, the latest used at the right."""

    def use_keys(self, keys: tuple[bytes, ...]) -> None:
        """Sign with other keys from the next request on."""
        self._keys = keys

    async def aclose(self) -> None:
        """Close all connections that wait for a request."""
        while self._kept:
            await self._kept.pop().aclose()

    async def post(self, message_id: str, body: bytes, timeout_s: float) -> WebhookReply:
        """Send one signed request and return what came of it; raises only what cancels the caller.

        :param message_id: the event's id, the same on every try.
        :param timeout_s: deadline of everything: connecting, and the answer's last byte.
        """
        with trio.move_on_after(timeout_s):
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
        signed = sign(self._keys, message_id, self._unix_ms() // 1000, body)
        try:
            answer = await connection.post(self._target, [*_FIELDS, *signed.items()], body, MAX_REPLY_BYTES)
        except AnswerBroken as error:
            if not is_new and not error.began:
                return None
            return WebhookReply(0, failure=SendFailure.BROKEN, detail=str(error)[:200])
        finally:
            if connection.is_reusable:
                self._kept.append(connection)
            else:
                with trio.CancelScope(shield=True):  # it closes without waiting
                    await connection.aclose()
        if answer.body is None:
            detail = f"status {answer.status} with more than {MAX_REPLY_BYTES} bytes"
            return WebhookReply(0, failure=SendFailure.TOO_LARGE, detail=detail)
        return WebhookReply(answer.status, answer.body, read_retry_after(answer.retry_after))

    async def _open(self, timeout_s: float) -> EndpointConnection | WebhookReply:
        """Return a new connection, or why there is none."""
        try:
            with trio.move_on_after(timeout_s):
                return await EndpointConnection.open(self._target, self._context)
        except (OSError, trio.BrokenResourceError) as error:
            return WebhookReply(0, failure=SendFailure.CONNECT, detail=failure_reason(error))
        return WebhookReply(0, failure=SendFailure.TIMEOUT, detail=f"no connection within {timeout_s:g} s")
