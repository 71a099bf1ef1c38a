"""Answers of calls with an idempotency key, in the ledger: a repetition gets the first answer, after a crash too.

An answer is a row of the ledger's keys, written before it is returned and removed with them (``ledger.keys_s``). Above
`MAX_ANSWER_BYTES` the row says only that the call was done. Where the process ends between the effect and the answer,
the row of the post's own key says so.

Only the operations in `KEPT` need it: the others with a key find their answer where their effect is (the offset of a
post, the number of a direct message, the event of a change of keys), and write one row less.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from broker.core.rooms.idempotency import call_key
from broker.core.tenants.names import plain_name
from broker.ledger import CallAnswered, KeyResult, Ledger, LedgerResult, Reader, SubmitResult, make_key
from broker.ledger.pending import PendingResult
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import ask
from protocol.codes import ErrorCode
from protocol.errors import RemoteProtocolError
from protocol.fields import FieldError, renamed
from protocol.frames import pack_body, unpack_body
from protocol.operations import OperationRow

__all__ = ["KEPT", "MAX_ANSWER_BYTES", "StoredAnswer", "find_answer", "keep_answer"]

KEPT = frozenset(
    {
        "rooms.set_phase", "messages.pin", "messages.unpin", "messages.delete", "locks.acquire", "broker.rotate_keys",
        "packets.create", "rains.create", "coupons.create", "coupons.issue", "coupons.issue_many",
    }
)  # fmt: skip
MAX_ANSWER_BYTES = 4096


class StoredAnswer(NamedTuple):
    """What the ledger knows of a call. ``result``: None where only its effect is known; ``offset``: of its event."""

    result: Any
    offset: int


async def find_answer(ledger: Ledger, caller: Caller, row: OperationRow) -> StoredAnswer | None:
    """Return what the ledger knows of a call; None: it has not been done.

    OperationError KEY_REUSED where its content was another, OVERLOADED where the ledger cannot be read.
    """
    answer = make_key("answer", caller.own_key)
    effect = make_key(*call_key(caller.own_key, b"").parts)
    found = await ask(ledger, _read, answer.digest, effect.digest)
    if found is None:
        return None
    if found.fingerprint != make_key(content=caller.fingerprint).fingerprint:
        raise OperationError(ErrorCode.KEY_REUSED, "was used before with other content", "key")
    result = None
    if found.outcome:
        try:
            result = row.read_result(unpack_body(found.answer))
        except (FieldError, RemoteProtocolError):
            pass  # of another version
    return StoredAnswer(result, found.offset)


def _read(reader: Reader, answer: bytes, effect: bytes) -> KeyResult | None:
    """Return the row of a call's answer, else that of its effect, without an answer."""
    found = reader.first_result(answer)
    if found is not None:
        return found._replace(outcome=int(bool(found.answer)))
    found = reader.first_result(effect)
    return None if found is None else found._replace(outcome=0)


async def keep_answer(ledger: Ledger, caller: Caller, row: OperationRow, result: Any, at_ms: int) -> None:
    """Make the answer of a call durable. Where the ledger cannot, the call is answered all the same: it was done."""
    if caller.tenant:
        result = renamed(row.read_result, result, plain_name)
    packed = pack_body(result)
    key = make_key(
        "answer", caller.own_key, content=caller.fingerprint, answer=packed if len(packed) <= MAX_ANSWER_BYTES else b""
    )
    pending = PendingResult[LedgerResult]()
    if ledger.record((CallAnswered(at_ms),), pending.set, (key,)) is SubmitResult.QUEUED:
        await pending.wait()
