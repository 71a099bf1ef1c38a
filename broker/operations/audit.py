"""Handler of the operation that reads the audit."""

from __future__ import annotations

from broker.core.tenants.names import plain_name
from broker.ledger.audits import AuditFilter, StoredAudit, audit_page
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import ask, required
from broker.operations.parts import Handler, Parts
from protocol.codes import ErrorCode
from protocol.operations import STAFF
from protocol.operations.audit import AuditActor, AuditItem, AuditPage, ReadAudit

__all__ = ["HANDLERS"]

MAX_PAGE_BYTES = 256 * 1024
"""Of the entries of a page, packed: as JSON it is below 1 MiB."""


async def _read(parts: Parts, caller: Caller, request: ReadAudit) -> AuditPage:
    ledger = required(parts.ledger)
    if not caller.is_backend:
        if request.room is None:
            raise OperationError(ErrorCode.BAD_FIELD, "is required", "room")
        if caller.role_in(request.room) not in STAFF:
            raise OperationError(ErrorCode.NOT_ALLOWED, "is not for your role in this room", "operation")
    subject, room = (None if each is None else plain_name(each) for each in (request.subject, request.room))
    selection = AuditFilter(caller.tenant, request.actor, subject, request.operation, room)
    found, following = await ask(ledger, audit_page, selection, request.after, request.limit, MAX_PAGE_BYTES)
    return AuditPage(tuple(map(_item, found)), following)


def _item(stored: StoredAudit) -> AuditItem:
    number, at_ms, audit = stored
    _, kind, *fields = audit
    return AuditItem(number, at_ms, AuditActor[kind.upper()], *fields)


HANDLERS: dict[str, Handler] = {"moderation.audit": _read}
