"""Operations on webhooks: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..fields import array_of, integer, name_of, optional, record, room_name, scoped, text
from .rows import MAX_PAGE, NEEDS_LEDGER, OperationRow, RateLimit, Scope, cursor, page_of, page_size, row

__all__ = [
    "ROWS",
    "DeliveriesDropped",
    "DeliveriesPage",
    "DeliveriesRetried",
    "DeliveryStatus",
    "DropDeliveries",
    "HookDelivery",
    "HookEndpoint",
    "HookEndpoints",
    "HookTested",
    "ListDeliveries",
    "ListHooks",
    "RetryDeliveries",
    "SendTestEvent",
]


class DeliveryStatus(IntEnum):
    """Whether an event still waits for its endpoint, or was given up."""

    WAITING = 0
    DEAD = 1


class ListHooks(NamedTuple):
    """Ask for the endpoints of the caller's tenant."""


class HookEndpoint(NamedTuple):
    """One endpoint. ``origin``: of its URL, whose path may be a secret; ``state``: of its circuit breaker: closed (all
    is sent), open, trial, or disabled (it has answered 410).

    ``waiting``, ``oldest_ms`` (age of what waits longest) and ``dead`` are some seconds old; ``delivered`` and
    ``failures`` count since the broker's start.
    """

    name: str
    origin: str
    events: tuple[str, ...]
    state: str
    waiting: int
    oldest_ms: int
    dead: int
    delivered: int
    failures: int
    last_failure: str = ""


class HookEndpoints(NamedTuple):
    """All endpoints of a tenant."""

    items: tuple[HookEndpoint, ...]


class SendTestEvent(NamedTuple):
    """Send a signed webhook.test event to an endpoint, once. ``note``: text in the event."""

    endpoint: str
    note: str = ""


class HookTested(NamedTuple):
    """What came of a test. ``id``: of the event; ``status``: of the answer, 0 = none; ``detail``: in words."""

    id: str
    status: int
    detail: str
    took_ms: int


class ListDeliveries(NamedTuple):
    """Ask for events that wait or were given up, the oldest first. ``endpoint``: null = of all."""

    endpoint: str | None = None
    state: DeliveryStatus = DeliveryStatus.DEAD
    limit: int = 100
    cursor: str | None = None


class HookDelivery(NamedTuple):
    """One event for one endpoint. ``id``: for hooks.retry and hooks.drop; ``event``: the id that the receiver gets.

    ``due_at_ms``: the next attempt, null = it was given up; ``reason``: of the last failure.
    """

    id: int
    event: str
    type: str
    endpoint: str
    room: str | None
    created_at_ms: int
    attempts: int
    due_at_ms: int | None
    reason: str = ""


class DeliveriesPage(NamedTuple):
    """Events, the oldest first. ``next`` null = the end."""

    items: tuple[HookDelivery, ...]
    next: str | None


class RetryDeliveries(NamedTuple):
    """Send dead letters once more: those named by ``ids``, or those of ``endpoint`` that were written at ``since_ms``
    or later. They go to the end of their rooms' queues; an endpoint that was disabled is enabled."""

    ids: tuple[int, ...] = ()
    endpoint: str | None = None
    since_ms: int = 0


class DeliveriesRetried(NamedTuple):
    """How many dead letters are sent once more."""

    retried: int


class DropDeliveries(NamedTuple):
    """Forget events, whether they wait or are dead letters."""

    ids: tuple[int, ...]


class DeliveriesDropped(NamedTuple):
    """How many events are forgotten."""

    dropped: int


_name = text(1, 32)
_endpoint_name = scoped(text(1, 32))
_count = integer(0)
_ids = array_of(integer(1), MAX_PAGE)
_state = text(1, 16)
_endpoint = record(
    HookEndpoint,
    (_name, text(1, 300), array_of(_name, 64), _state, _count, _count, _count, _count, _count, text(0, 256)),
)
_endpoints = record(HookEndpoints, (array_of(_endpoint, 100),))
_tested = record(HookTested, (text(1, 64), _count, text(0, 256), _count))
_delivery = record(
    HookDelivery,
    (
        integer(1), text(1, 64), text(1, 64), _name, optional(room_name), _count, _count, optional(integer(0)),
        text(0, 256),
    ),
)  # fmt: skip
_page = record(DeliveriesPage, page_of(_delivery))
_retried = record(DeliveriesRetried, (_count,))
_dropped = record(DeliveriesDropped, (_count,))

ROWS: tuple[OperationRow, ...] = (
    row(
        120, "hooks.list", ListHooks, (), HookEndpoints, _endpoints, "List the endpoints, and how they fare.",
        scope=Scope.HOOKS_WRITE, changes=False, errors=NEEDS_LEDGER,
        example=(
            ListHooks(),
            HookEndpoints((HookEndpoint("shop", "https://shop.example", ("room.*",), "closed", 0, 0, 0, 12, 1),)),
        ),
    ),
    row(
        121, "hooks.test", SendTestEvent, (_endpoint_name, text(0, 256)), HookTested, _tested,
        "Send an endpoint a signed test event.",
        scope=Scope.HOOKS_WRITE, rate=RateLimit(1, 5), errors=NEEDS_LEDGER,
        example=(SendTestEvent("shop", "hello"), HookTested("ev_3f0c2a", 200, "status 200", 12)),
    ),
    row(
        122, "hooks.deliveries", ListDeliveries, (optional(_endpoint_name), name_of(DeliveryStatus), page_size, cursor),
        DeliveriesPage, _page, "List events that wait for an endpoint, or were given up.",
        scope=Scope.HOOKS_WRITE, changes=False, errors=NEEDS_LEDGER,
        example=(
            ListDeliveries("shop"),
            DeliveriesPage(
                (
                    HookDelivery(
                        7, "ev_3f0c2a", "room.ended", "shop", "live-1", 1_800_000_000_000, 40, None, "status 500"
                    ),
                ),
                None,
            ),
        ),
    ),
    row(
        123, "hooks.retry", RetryDeliveries, (_ids, optional(_endpoint_name), _count), DeliveriesRetried, _retried,
        "Send dead letters once more.",
        scope=Scope.HOOKS_WRITE, durable=True, errors=NEEDS_LEDGER,
        example=(RetryDeliveries((7,)), DeliveriesRetried(1)),
    ),
    row(
        124, "hooks.drop", DropDeliveries, (_ids,), DeliveriesDropped, _dropped, "Forget events that wait or are dead.",
        scope=Scope.HOOKS_WRITE, durable=True, errors=NEEDS_LEDGER,
        example=(DropDeliveries((7,)), DeliveriesDropped(1)),
    ),
)  # fmt: skip
