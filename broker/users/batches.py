"""Batches of must-deliver messages from the platform's links: BATCH in, and one answer for each.

A part is checked and filled as a whole before its first message goes to the ledger, so that a fault sends nothing of
it. It is answered when the ledger has answered all of it. A user who has a message of the batch already gets none, so
a client that does not know the result of a part sends it again. Must never block: every wait is a callback, and the
link may have ended when it comes; what was handed to the ledger is sent all the same.

Bounds: `MAX_IN_FLIGHT` parts of one link; what waits for the disk is bounded by the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from broker.auth.grants import Grant
from broker.core.rooms.types import TypeRules
from broker.core.tenants.names import plain_name
from broker.ledger import DirectState
from broker.users.inbox import BatchResult, Inboxes
from protocol.codes import ErrorCode, Lane, Role
from protocol.direct_batches import payloads_of
from protocol.fields import FieldError
from protocol.messages import BatchState, SendDirect

__all__ = ["MAX_IN_FLIGHT", "IncomingBatches", "Sender"]

MAX_IN_FLIGHT = 4
"""Parts of one link that wait for the disk; one more is refused with a time to wait. SPEC.md names the number."""
AGAIN_MS = 1000
"""When to send a part again that the ledger could not take: some commits later."""
BUSY_MS = 100


_REFUSALS = {
    ErrorCode.UNKNOWN_TYPE: ("type", "is not known"),
    ErrorCode.NOT_ALLOWED: ("type", "is not allowed to this token"),
    ErrorCode.PAYLOAD_TOO_LARGE: ("template", "filled with values[{index}] is above the size of its type"),
}


class Sender(Protocol):
    """What a batch knows of a session."""

    def send(self, message: BatchState, room: int = 0, sequence: int = 0, lane: Lane | None = None) -> None:
        """Frame and write a message; nothing happens on a link that has ended."""

    def refuse(self, code: ErrorCode, message: str, sequence: int, field: str = "", wait_ms: int = 0) -> None:
        """Answer a failed request; likewise."""


class IncomingBatches:
    """All batches of one broker that are in flight. ``types``: rules of message types; inboxes None: no ledger."""

    def __init__(self, inboxes: Inboxes | None, types: TypeRules) -> None:
        self._inboxes = inboxes
        self._types = types
        self._in_flight: dict[Sender, int] = {}
        """Parts by link; a link without any is not in it."""

    @property
    def in_flight(self) -> int:
        """Parts that wait for the ledger."""
        return sum(self._in_flight.values())

    def take(self, link: Sender, grant: Grant, sequence: int, message: SendDirect) -> None:
        """Answer one BATCH of a link, now or when the ledger has answered."""
        inboxes = self._inboxes
        if grant.role is not Role.APP:
            link.refuse(ErrorCode.NOT_ALLOWED, "BATCH is for the role app", sequence)
        elif inboxes is None:
            link.refuse(ErrorCode.NOT_KEPT, "this broker keeps nothing: start it with a data directory", sequence)
        elif self._in_flight.get(link, 0) >= MAX_IN_FLIGHT:
            why = f"at most {MAX_IN_FLIGHT} of a link at a time"
            link.refuse(ErrorCode.RATE_LIMITED, why, sequence, wait_ms=BUSY_MS)
        elif message.values:
            self._send(inboxes, link, grant, sequence, message)
        elif inboxes.ask_progress(message.batch, partial(self._on_progress, link, sequence, message.batch)):
            self._begin(link)
        else:
            self._later(link, sequence)

    def _send(self, inboxes: Inboxes, link: Sender, grant: Grant, sequence: int, message: SendDirect) -> None:
        try:
            payloads = payloads_of(message)
        except FieldError as error:
            link.refuse(error.code, f"BATCH.{error.field} {error.rule}"[:256], sequence, error.field[:64])
            return
        permitted = self._permitted(grant)
        for index, (_, payload) in enumerate(payloads):
            code = self._types.refusal(message.type, payload, permitted)
            if code is not None:
                field, why = _REFUSALS[code]
                link.refuse(code, f"BATCH.{field} {why.format(index=index)}", sequence, field)
                return
        on_done = partial(self._on_sent, link, sequence, message.batch)
        if inboxes.send_part(message.batch, message.type, payloads, message.expires_s, on_done):
            self._begin(link)
        else:
            self._later(link, sequence)

    def _permitted(self, grant: Grant) -> frozenset[int]:
        """Return the types that a token lets its user send directly: those of any of its rooms."""
        allowed = {entry.allow for entry in grant.rooms} or {None}
        return frozenset().union(*(self._types.permitted(grant.role, allow) for allow in allowed))

    def _begin(self, link: Sender) -> None:
        self._in_flight[link] = self._in_flight.get(link, 0) + 1

    def _end(self, link: Sender) -> None:
        left = self._in_flight[link] - 1
        if left:
            self._in_flight[link] = left
        else:
            del self._in_flight[link]

    def _later(self, link: Sender, sequence: int) -> None:
        link.refuse(ErrorCode.OVERLOADED, "the ledger cannot take it now", sequence, wait_ms=AGAIN_MS)

    def _on_sent(self, link: Sender, sequence: int, batch: str, result: BatchResult) -> None:
        self._end(link)
        if result.reused:
            why = f"{result.reused} users have another message of this batch"
            link.refuse(ErrorCode.KEY_REUSED, why, sequence, "batch")
        else:
            link.send(BatchState(plain_name(batch), result.sent, result.repeated, result.failed), 0, sequence)

    def _on_progress(self, link: Sender, sequence: int, batch: str, found: Mapping[DirectState, int] | None) -> None:
        self._end(link)
        if found is None:
            self._later(link, sequence)
        else:
            counts = (found[state] for state in (DirectState.PENDING, DirectState.ACKED, DirectState.EXPIRED))
            link.send(BatchState(plain_name(batch), 0, 0, 0, *counts), 0, sequence)
