"""Batches of must-deliver messages: cut into calls of ``directs.send_many``, each repeated until it is answered.

A part whose answer was lost with its link is sent again on the next one; the broker sends each user one message of a
batch however often the part comes. The whole batch is checked before the first part is sent.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import trio

from ..direct_batches import TemplateError, parts_of, payload_for
from ..errors import LocalProtocolError
from ..fields import FieldError
from ..operations import BY_NAME, OperationRow
from ..operations.directs import DirectProgress, SentDirects
from ..reconnect import backoff_s
from .calls import CallSender, request_of
from .events import BatchState, CallRefused

__all__ = ["BATCH_TIMEOUT_S", "BatchSender"]

BATCH_TIMEOUT_S = 120.0
"""Timeout of one part over any number of links; longer than the restart of a broker."""
CHECKED_AT_ONCE = 500
"""Users checked between two Trio checkpoints."""
_SEND, _PROGRESS = BY_NAME["directs.send_many"], BY_NAME["directs.progress"]


class BatchSender:
    """Sender of the batches of one client."""

    def __init__(self, calls: CallSender, rng: random.Random) -> None:
        self._calls = calls
        self._rng = rng

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
        parts = [request_of(part, {})[1] for part in parts_of(batch, int(kind), template, values, expires_s)]
        sent = 0
        for part in parts:
            sent += await self._send_part(part, timeout_s)
        progress = await self.progress(batch, timeout_s)
        return BatchState(batch, sent, len(values) - sent, *progress[1:])

    async def progress(self, batch: str, timeout_s: float) -> DirectProgress:
        """Return how many messages of a batch are in each state."""
        _, request = request_of("directs.progress", {"batch": batch})
        with trio.fail_after(timeout_s):
            found: DirectProgress = await self._call(_PROGRESS, request, timeout_s)
        return found

    async def _send_part(self, part: Any, timeout_s: float) -> int:
        """Send one part until all of it is durable; return how many of its messages were not durable before."""
        sent = failures = 0
        with trio.fail_after(timeout_s):
            while True:
                answer: SentDirects = await self._call(_SEND, part, timeout_s)
                sent += answer.sent
                if not answer.failed:
                    return sent
                await trio.sleep(backoff_s(failures, self._rng))
                failures += 1

    async def _call(self, row: OperationRow, request: Any, timeout_s: float) -> Any:
        """Call an operation until the broker has answered or refused it for good; CallRefused."""
        while True:
            try:
                return await self._calls.call(row, request, None, timeout_s, repeats=True)
            except CallRefused as refused:
                if not 300 <= refused.code < 400:
                    raise
                wait_s = max(refused.retry_after_ms / 1000, backoff_s(0, self._rng))
            await trio.sleep(wait_s)
