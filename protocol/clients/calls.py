"""Calls of operations: each CALL is sent until it is answered, on as many links as that takes where it may be repeated.

A call that only reads may be repeated, and so may one with an idempotency key: the broker gives it one effect. Any
other call whose link ended before the answer is `CallLost`. At most `MAX_CALLS` wait at a time; further ones wait here.
"""

from __future__ import annotations

from typing import Any, Protocol

import trio

from ..codes import Feature
from ..errors import LocalProtocolError
from ..fields import FieldError
from ..messages import MAX_CALLS, Auth, Authenticated, Call, ErrorReply, Message, Result
from ..operations import BY_NAME, BY_REQUEST, KeyUse, OperationRow
from .events import CallLost, CallRefused
from .link import Link

__all__ = ["CALL_TIMEOUT_S", "CallOwner", "CallSender", "request_of"]

CALL_TIMEOUT_S = 30.0
"""Timeout of one call over any number of links."""


class CallOwner(Protocol):
    """Interface of the client to its calls."""

    def check(self, message: Message) -> None:
        """Check a message against the rules of the wire; LocalProtocolError."""

    async def wait_link(self) -> Link:
        """Return the authenticated link once there is one. Raises ClientClosed."""

    def next_sequence(self) -> int:
        """Return a request number."""


Answer = Result | Authenticated | ErrorReply


class _Waiter:
    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Answer | None = None


# Any: an argument is whatever the operation's rule for the field takes, a result the record of its row.
def request_of(operation: str | tuple[Any, ...], arguments: dict[str, Any]) -> tuple[OperationRow, Any]:
    """Return the row of an operation, by name or by a request record, and its checked request. LocalProtocolError."""
    if isinstance(operation, str):
        row = BY_NAME.get(operation)
        if row is None:
            raise LocalProtocolError(f"{operation} is no operation of this client's edition")
        unknown = arguments.keys() - set(row.request._fields)
        if unknown:
            raise LocalProtocolError(f"{row.name}.{min(unknown)}: is no field of this operation")
        given: Any = arguments
    else:
        row = BY_REQUEST.get(type(operation))
        if row is None:
            raise LocalProtocolError(f"{type(operation).__name__} is the request of no operation")
        if arguments:
            raise LocalProtocolError(f"{row.name}: a request record takes no further arguments")
        given = operation
    try:
        return row, row.read(given)
    except FieldError as error:
        raise LocalProtocolError(f"{row.name}.{error}") from None


class CallSender:
    """Open CALLs of one client."""

    def __init__(self, owner: CallOwner) -> None:
        self._owner = owner
        self._waiting: dict[int, _Waiter] = {}
        self._slots = trio.Semaphore(MAX_CALLS)

    @property
    def open_calls(self) -> int:
        """CALLs without an answer."""
        return len(self._waiting)

    async def call(
        self, row: OperationRow, request: Any, key: str | None, timeout_s: float, *, repeats: bool = False
    ) -> Any:
        """See `Client.call`. ``repeats``: the call may be repeated without a key."""
        if key is not None and row.key is KeyUse.NONE:
            raise LocalProtocolError(f"{row.name} takes no key")
        if row.key is KeyUse.REQUIRED and not key:
            raise LocalProtocolError(f"{row.name} needs a key")
        message = Call(row.number, key or "", request)
        self._owner.check(message)
        may_repeat = repeats or not row.changes or bool(key)
        with trio.fail_after(timeout_s):
            async with self._slots:
                while True:
                    link = await self._owner.wait_link()
                    if link.hello is None or not link.hello.features & Feature.CALL:
                        raise LocalProtocolError(
                            "CALL: not a feature of this broker, or not among the features of this client"
                        )
                    await link.wait_writable()
                    if not link.is_open:
                        await trio.lowlevel.checkpoint()
                        continue
                    answer = await self.request(link, message)
                    if isinstance(answer, Result):
                        return answer.result
                    if isinstance(answer, ErrorReply):
                        raise CallRefused(answer.code, answer.message, answer.field, answer.retry_after_ms)
                    if not may_repeat:
                        raise CallLost(row.name)

    async def request(self, link: Link, message: Call | Auth) -> Answer | None:
        """Send a CALL, or AUTH on an open link, and return its answer, None where the link has ended before."""
        sequence = self._owner.next_sequence()
        waiter = self._waiting[sequence] = _Waiter()
        try:
            link.send(message, 0, sequence)
            await waiter.done.wait()
        finally:
            self._waiting.pop(sequence, None)
        return waiter.answer

    # ---- called by the client

    def on_answer(self, sequence: int, answer: Answer) -> bool:
        """Process an answer; False if no call waits for it."""
        waiter = self._waiting.get(sequence)
        if waiter is None:
            return False
        waiter.answer = answer
        waiter.done.set()
        return True

    def resolve_unknown(self) -> None:
        """End the open calls of a link that has ended; their result is unknown."""
        for waiter in self._waiting.values():
            waiter.done.set()
