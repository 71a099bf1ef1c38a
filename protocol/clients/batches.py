"""Batches of must-deliver messages from a client: cut into frames, each asked until it is answered.

A frame whose answer was lost with its link is sent again on the next one; the broker sends each user one message of a
batch however often it is asked, so that is harmless. Everything is judged before the first frame leaves.
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
"""Deadline of one frame through any number of links; a broker that restarts is back long before."""
CHECKED_AT_ONCE = 500
"""Users judged between two checkpoints."""


class BatchOwner(Protocol):
    """What batches need of their client."""

    def check(self, message: SendDirect) -> None:
        """Judge a message by the broker's rules; LocalProtocolError."""

    async def wait_link(self) -> Link:
        """The welcomed link, once there is one. Raises ClientClosed."""

    def next_sequence(self) -> int:
        """A request number."""


class _Waiter:
    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: BatchState | ErrorReply | None = None


class BatchSender:
    """The BATCH requests of one client, as many as the application has tasks that wait."""

    def __init__(self, owner: BatchOwner, rng: random.Random) -> None:
        self._owner = owner
        self._rng = rng
        self._waiting: dict[int, _Waiter] = {}

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
        for count, (user, own) in enumerate(values.items(), 1):
            try:
                payload_for(kind, template, own)
            except (TemplateError, FieldError) as error:
                raise LocalProtocolError(f"the message for {user!r}: {error}") from None
            if count % CHECKED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        frames = list(frames_of(batch, int(kind), template, values, expires_s))
        for frame in frames:
            self._owner.check(frame)
        sent = 0
        for frame in frames:
            sent += await self._ask(frame, timeout_s)
        state = await self.state(batch, timeout_s)
        return state._replace(sent=sent, repeated=len(values) - sent)

    async def state(self, batch: str, timeout_s: float) -> BatchState:
        """See `Client.batch_state`."""
        question = SendDirect(batch, int(MessageType.ANNOUNCEMENT), None, {})
        self._owner.check(question)
        with trio.fail_after(timeout_s):
            while True:
                answer = await self._answer(question)
                if answer is not None:
                    return answer

    async def _ask(self, frame: SendDirect, timeout_s: float) -> int:
        """Send one part until all of it is durable; how many of its messages were not before."""
        sent = failures = 0
        with trio.fail_after(timeout_s):
            while True:
                answer = await self._answer(frame)
                if answer is not None:
                    sent += answer.sent
                    if not answer.failed:
                        return sent
                    await trio.sleep(backoff_s(failures, self._rng))
                    failures += 1

    async def _answer(self, message: SendDirect) -> BatchState | None:
        """Send one request; None if nobody knows what became of it, or it is to be asked again, now. BatchRefused."""
        link = await self._owner.wait_link()
        if link.hello is None or not link.hello.features & Feature.BATCH:
            raise LocalProtocolError("BATCH: not known to this broker, or not among the features of this client")
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

    # ---- for the client

    def on_answer(self, sequence: int, answer: BatchState | ErrorReply) -> bool:
        """Take an answer; False where nobody waits for it."""
        waiter = self._waiting.get(sequence)
        if waiter is None:
            return False
        waiter.answer = answer
        waiter.done.set()
        return True

    def give_up(self) -> None:
        """The link is over: what it has not answered, it will not."""
        for waiter in self._waiting.values():
            waiter.done.set()
