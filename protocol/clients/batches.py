"""Batches of must-deliver messages: split into frames, each sent until it is answered.

A frame whose answer was lost with its link is sent again on the next one; the broker sends each user one message of a
batch however often the frame comes. The whole batch is checked before the first frame is sent.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol

import trio

from ..codes import Feature, MessageType
from ..direct_batches import TemplateError, frames_of, payload_for
from ..errors import LocalProtocolError
from ..fields import FieldError
from ..messages import BatchState, ErrorReply, SendDirect
from ..reconnect import backoff_s
from .events import BatchRefused
from .link import Link

__all__ = ["BATCH_TIMEOUT_S", "BatchOwner", "BatchSender"]

BATCH_TIMEOUT_S = 120.0
"""Timeout of one frame over any number of links; longer than the restart of a broker."""
CHECKED_AT_ONCE = 500
"""Users checked between two Trio checkpoints."""


class BatchOwner(Protocol):
    """Interface of the client to its batches."""

    def check(self, message: SendDirect) -> None:
        """Check a message against the rules of the wire; LocalProtocolError."""

    async def wait_link(self) -> Link:
        """Return the authenticated link once there is one. Raises ClientClosed."""

    def next_sequence(self) -> int:
        """Return a request number."""


class _Waiter:
    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: BatchState | ErrorReply | None = None


class BatchSender:
    """Open BATCH requests of one client; as many as the application has sending tasks."""

    def __init__(self, owner: BatchOwner, rng: random.Random) -> None:
        self._owner = owner
        self._rng = rng
        self._waiting: dict[int, _Waiter] = {}

    @property
    def open_requests(self) -> int:
        """BATCH requests without an answer."""
        return len(self._waiting)

    async def send(
        self,
        template: Any,
        values: Mapping[str, Mapping[str, str]],
        batch: str,
        kind: int,
        expires_s: int | None,
        timeout_s: float,
    ) -> BatchState:
        """See `Client.send_direct`. Any: a template is a payload."""
        for count, (user, user_values) in enumerate(values.items(), 1):
            try:
                payload_for(kind, template, user_values)
            except (TemplateError, FieldError) as error:
                raise LocalProtocolError(f"the message for {user!r}: {error}") from None
            if count % CHECKED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        frames = list(frames_of(batch, int(kind), template, values, expires_s))
        for frame in frames:
            self._owner.check(frame)
        sent = 0
        for frame in frames:
            sent += await self._send_part(frame, timeout_s)
        state = await self.state(batch, timeout_s)
        return state._replace(sent=sent, repeated=len(values) - sent)

    async def state(self, batch: str, timeout_s: float) -> BatchState:
        """See `Client.batch_state`."""
        query = SendDirect(batch, int(MessageType.ANNOUNCEMENT), None, {})
        self._owner.check(query)
        with trio.fail_after(timeout_s):
            while True:
                answer = await self._request(query)
                if answer is not None:
                    return answer

    async def _send_part(self, frame: SendDirect, timeout_s: float) -> int:
        """Send one part until all of it is durable; return how many of its messages were not durable before."""
        sent = failures = 0
        with trio.fail_after(timeout_s):
            while True:
                answer = await self._request(frame)
                if answer is not None:
                    sent += answer.sent
                    if not answer.failed:
                        return sent
                    await trio.sleep(backoff_s(failures, self._rng))
                    failures += 1

    async def _request(self, message: SendDirect) -> BatchState | None:
        """Send one request and return its answer; None: unknown or refused for now, send it again. BatchRefused."""
        link = await self._owner.wait_link()
        if link.hello is None or not link.hello.features & Feature.BATCH:
            raise LocalProtocolError("BATCH: not a feature of this broker, or not among the features of this client")
        await link.wait_writable()
        if not link.is_open:
            await trio.lowlevel.checkpoint()
            return None
        sequence = self._owner.next_sequence()
        waiter = self._waiting[sequence] = _Waiter()
        try:
            link.send(message, 0, sequence)
            await waiter.done.wait()
        finally:
            self._waiting.pop(sequence, None)
        answer = waiter.answer
        if isinstance(answer, ErrorReply):
            if not 300 <= answer.code < 400:
                raise BatchRefused(answer.code, answer.message, answer.field, answer.retry_after_ms)
            await trio.sleep(max(answer.retry_after_ms / 1000, backoff_s(0, self._rng)))
            return None
        return answer

    # ---- called by the client

    def on_answer(self, sequence: int, answer: BatchState | ErrorReply) -> bool:
        """Process an answer; False if no request waits for it."""
        waiter = self._waiting.get(sequence)
        if waiter is None:
            return False
        waiter.answer = answer
        waiter.done.set()
        return True

    def resolve_unknown(self) -> None:
        """End the open requests of a link that has ended; their result is unknown."""
        for waiter in self._waiting.values():
            waiter.done.set()
