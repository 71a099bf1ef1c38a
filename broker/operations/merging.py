"""Answers of all nodes to one call, as one: of operations about what each node knows of its own links and rooms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broker.core.webhooks.breaker import BreakerState
from broker.operations.brokers import MAX_TENANTS_LISTED
from broker.operations.caller import Caller
from protocol.operations.brokers import TenantList, TenantView
from protocol.operations.hooks import (
    DeliveriesDropped,
    DeliveriesPage,
    DeliveriesRetried,
    HookEndpoint,
    HookEndpoints,
    ListDeliveries,
)
from protocol.operations.messages import BroadcastProgress, BroadcastStarted
from protocol.operations.presence import PresenceStates, UserPresence
from protocol.operations.rooms import ListRooms, RoomPage, RoomSort, RoomSummary
from protocol.operations.users import DisconnectedUser, UserView

__all__ = ["MERGED"]

# Any: each operation has its own request and result.
Merge = Callable[[Caller, Any, Sequence[Any]], Any]


def _user(caller: Caller, request: Any, found: Sequence[UserView]) -> UserView:
    """Return the links of a user at all nodes; its settings and sanctions are the same at each."""
    links = tuple(link for each in found for link in each.links)
    return found[0]._replace(links=links, rooms=tuple(sorted({room for each in found for room in each.rooms})))


def _disconnected(caller: Caller, request: Any, found: Sequence[DisconnectedUser]) -> DisconnectedUser:
    return DisconnectedUser(sum(each.links for each in found))


def _rooms(caller: Caller, request: ListRooms, found: Sequence[RoomPage]) -> RoomPage:
    """Return a page of the rooms of all nodes: no further than the page of any node goes."""
    by_online = request.sort is RoomSort.ONLINE

    def place(room: RoomSummary) -> tuple[int, str]:
        return -room.online if by_online else 0, room.room

    ends = [place(page.items[-1]) for page in found if page.next is not None and page.items]
    items = sorted((room for page in found for room in page.items), key=place)
    kept = [room for room in items if not ends or place(room) <= min(ends)][: request.limit]
    following = None
    if kept and (ends or len(items) > len(kept)):
        following = f"{kept[-1].online}:{kept[-1].room}" if by_online else kept[-1].room
    return RoomPage(tuple(room for room in kept if caller.grants(room.room) is not None), following)


def _endpoints(caller: Caller, request: Any, found: Sequence[HookEndpoints]) -> HookEndpoints:
    """Return how each endpoint fares at the node where it fares worst, and the sums of all nodes."""
    by_name: dict[str, list[HookEndpoint]] = {}
    for each in found:
        for endpoint in each.items:
            by_name.setdefault(endpoint.name, []).append(endpoint)
    return HookEndpoints(tuple(map(_endpoint, by_name.values())))


def _endpoint(found: Sequence[HookEndpoint]) -> HookEndpoint:
    worst = max(found, key=lambda each: _STATES.index(each.state))
    return worst._replace(
        waiting=sum(each.waiting for each in found),
        oldest_ms=max(each.oldest_ms for each in found),
        dead=sum(each.dead for each in found),
        delivered=sum(each.delivered for each in found),
        failures=sum(each.failures for each in found),
        last_failure=next((each.last_failure for each in (worst, *found) if each.last_failure), ""),
    )


def _deliveries(caller: Caller, request: ListDeliveries, found: Sequence[DeliveriesPage]) -> DeliveriesPage:
    """Return a page of the reports of all nodes, whose ids differ: no further than the page of any node goes."""
    ends = [int(page.next) for page in found if page.next is not None]
    items = sorted((item for page in found for item in page.items), key=lambda item: item.id)
    within = [item for item in items if not ends or item.id <= min(ends)]
    kept = within[: request.limit]
    if len(kept) < len(within):
        return DeliveriesPage(tuple(kept), str(kept[-1].id))
    return DeliveriesPage(tuple(kept), str(min(ends)) if ends else None)


def _retried(caller: Caller, request: Any, found: Sequence[DeliveriesRetried]) -> DeliveriesRetried:
    return DeliveriesRetried(sum(each.retried for each in found))


def _dropped(caller: Caller, request: Any, found: Sequence[DeliveriesDropped]) -> DeliveriesDropped:
    return DeliveriesDropped(sum(each.dropped for each in found))


def _started(caller: Caller, request: Any, found: Sequence[BroadcastStarted]) -> BroadcastStarted:
    return BroadcastStarted(found[0].id, sum(each.rooms for each in found))


def _progress(caller: Caller, request: Any, found: Sequence[BroadcastProgress]) -> BroadcastProgress:
    return BroadcastProgress(
        found[0].id, sum(each.rooms for each in found), sum(each.reached for each in found),
        sum(each.missed for each in found), all(each.done for each in found),
    )  # fmt: skip


def _presences(caller: Caller, request: Any, found: Sequence[PresenceStates]) -> PresenceStates:
    """Return who has a link at any node."""
    items = zip(*(each.items for each in found), strict=True)
    return PresenceStates(tuple(UserPresence(of[0].user, any(each.online for each in of)) for of in items))


def _tenants(caller: Caller, request: Any, found: Sequence[TenantList]) -> TenantList:
    """Return what each tenant uses at all nodes; its quotas are those of the node that was asked."""
    by_name: dict[str, list[TenantView]] = {}
    for each in found:
        for tenant in each.items:
            by_name.setdefault(tenant.name, []).append(tenant)
    return TenantList(tuple(_tenant(by_name[name]) for name in sorted(by_name)[:MAX_TENANTS_LISTED]))


def _tenant(found: Sequence[TenantView]) -> TenantView:
    return found[0]._replace(
        connections=sum(each.connections for each in found),
        rooms=sum(each.rooms for each in found),
        messages=sum(each.messages for each in found),
        calls=sum(each.calls for each in found),
        refused=sum(each.refused for each in found),
    )


_STATES = tuple(
    state.value for state in (BreakerState.CLOSED, BreakerState.TRIAL, BreakerState.OPEN, BreakerState.DISABLED)
)
MERGED: dict[str, Merge] = {
    "users.get": _user, "users.disconnect": _disconnected, "rooms.list": _rooms, "hooks.list": _endpoints,
    "hooks.deliveries": _deliveries, "hooks.retry": _retried, "hooks.drop": _dropped,
    "broker.tenants": _tenants, "presence.watch": _presences, "messages.broadcast": _started,
    "messages.broadcast_state": _progress,
}  # fmt: skip
"""By operation: what joins the answers of all nodes."""
