"""Handlers of the operations on webhooks: a caller sees endpoints and events of its tenant only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from urllib.parse import urlsplit

from broker.core.tenants.names import plain_name, qualify
from broker.ledger import StoredOutbox
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import commit, read, required
from broker.operations.parts import Handler, Parts
from broker.webhooks.events import event_fields, event_id
from broker.webhooks.service import EndpointStatus, WebhookDeliveries
from protocol.codes import ErrorCode
from protocol.operations.hooks import (
    DeliveriesDropped,
    DeliveriesPage,
    DeliveriesRetried,
    DeliveryStatus,
    DropDeliveries,
    HookDelivery,
    HookEndpoint,
    HookEndpoints,
    HookTested,
    ListDeliveries,
    ListHooks,
    RetryDeliveries,
    SendTestEvent,
)

__all__ = ["HANDLERS"]

MAX_CURSOR_DIGITS = 18
PAGE = 1000
"""Dead letters that are renewed by one submission."""


def _of(webhooks: WebhookDeliveries, caller: Caller) -> list[EndpointStatus]:
    return [status for status in webhooks.statuses() if (status.endpoint.tenant or "") == caller.tenant]


def _endpoint(webhooks: WebhookDeliveries, caller: Caller, qualified: str) -> str:
    """Return the name of an endpoint as the configuration has it; OperationError where it is not the caller's."""
    name = plain_name(qualified)
    if name not in {status.endpoint.name for status in _of(webhooks, caller)}:
        raise OperationError(ErrorCode.BAD_FIELD, "is no endpoint of yours", "endpoint")
    return name


def _list(parts: Parts, caller: Caller, request: ListHooks) -> HookEndpoints:
    return HookEndpoints(tuple(_view(status) for status in _of(required(parts.webhooks), caller)))


def _view(status: EndpointStatus) -> HookEndpoint:
    url = urlsplit(status.endpoint.url)
    return HookEndpoint(
        status.endpoint.name, f"{url.scheme}://{url.netloc}"[:300], status.endpoint.events, status.state.value,
        status.waiting, status.oldest_ms, status.dead, status.delivered, status.failures, status.last_failure[:256],
    )  # fmt: skip


async def _test(parts: Parts, caller: Caller, request: SendTestEvent) -> HookTested:
    webhooks = required(parts.webhooks)
    trial = await webhooks.test(_endpoint(webhooks, caller, request.endpoint), request.note)
    return HookTested(trial.id, trial.status, trial.detail[:256], trial.took_ms)


async def _deliveries(parts: Parts, caller: Caller, request: ListDeliveries) -> DeliveriesPage:
    webhooks = required(parts.webhooks)
    cursor = request.cursor or "0"
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= MAX_CURSOR_DIGITS):
        raise OperationError(ErrorCode.BAD_FIELD, "is not the cursor of an answer", "cursor")
    after = int(cursor)
    dead = request.state is DeliveryStatus.DEAD
    endpoint = None if request.endpoint is None else _endpoint(webhooks, caller, request.endpoint)
    rows = await read(webhooks.page(endpoint, dead, after, request.limit))
    items = tuple(_delivery(row) for row in rows if event_fields(row)["tenant"] == caller.tenant)
    return DeliveriesPage(items, str(rows[-1].id) if len(rows) == request.limit else None)


def _delivery(row: StoredOutbox) -> HookDelivery:
    fields = event_fields(row)
    room = fields.get("room")
    return HookDelivery(
        row.id, event_id(row), row.topic, row.endpoint, room and qualify(fields["tenant"], room),
        fields["created_at_ms"], row.attempts, row.due_at_ms, row.reason[:256],
    )  # fmt: skip


async def _retry(parts: Parts, caller: Caller, request: RetryDeliveries) -> DeliveriesRetried:
    webhooks = required(parts.webhooks)
    if bool(request.ids) == (request.endpoint is not None):
        raise OperationError(ErrorCode.BAD_FIELD, "names dead letters, or endpoint names all of one: not both", "ids")
    if request.endpoint is None:
        rows = await read(webhooks.rows(request.ids))
        return DeliveriesRetried(await _renew(webhooks, caller, rows))
    endpoint = _endpoint(webhooks, caller, request.endpoint)
    webhooks.enable(endpoint)
    retried = after = 0
    while rows := await read(webhooks.page(endpoint, True, after, PAGE)):
        after = rows[-1].id
        retried += await _renew(webhooks, caller, [row for row in rows if row.at_ms >= request.since_ms])
    return DeliveriesRetried(retried)


async def _renew(webhooks: WebhookDeliveries, caller: Caller, rows: Sequence[StoredOutbox]) -> int:
    ids = [row.id for row in rows if row.due_at_ms is None and event_fields(row)["tenant"] == caller.tenant]
    if ids:
        await commit(partial(webhooks.retry, tuple(ids)))
    return len(ids)


async def _drop(parts: Parts, caller: Caller, request: DropDeliveries) -> DeliveriesDropped:
    webhooks = required(parts.webhooks)
    rows = await read(webhooks.rows(request.ids))
    own = [row for row in rows if event_fields(row)["tenant"] == caller.tenant]
    if own:
        await commit(partial(webhooks.drop, own))
    return DeliveriesDropped(len(own))


HANDLERS: dict[str, Handler] = {
    "hooks.list": _list,
    "hooks.test": _test,
    "hooks.deliveries": _deliveries,
    "hooks.retry": _retry,
    "hooks.drop": _drop,
}
