"""A short show with something of everything that a report has, played in a broker that keeps it."""

from __future__ import annotations

import time
from typing import Any

from broker.operations.caller import Caller
from broker.server import Broker
from protocol.codes import MessageType, Role
from protocol.operations import BY_NAME
from tests.support.broker import RawLink
from tests.support.tenants import backend

__all__ = ["act", "as_platform", "play_show"]


async def act(broker: Broker, caller: Caller, operation: str, /, **fields: Any) -> Any:
    """Call an operation with fields by name; return its result."""
    result, _ = await broker.operations.call(caller, BY_NAME[operation], fields)
    return result


async def as_platform(broker: Broker, operation: str, /, **fields: Any) -> Any:
    """Call an operation as the platform."""
    return await act(broker, backend(""), operation, **fields)


def _viewer(user: str, key: str = "") -> Caller:
    now_ms = time.time_ns() // 1_000_000
    return Caller(
        user, user.title(), user, lambda room: Role.VIEWER, frozenset({Role.VIEWER}), key=key,
        joined_at_ms=lambda room: now_ms,
    )  # fmt: skip


async def play_show(broker: Broker, link: RawLink, number: int, room: str = "lobby") -> None:
    """Play the show; ``link``: of a member of the room, which has the number."""
    await as_platform(broker, "rooms.open", room=room, title="Evening sale")
    await link.post(number, 1, MessageType.DANMAKU, ["第一"])
    await link.post(number, 2, MessageType.LIKE, [5])
    gift = ["order-1", "ann", "Ann", "rose", 3, 100]
    await as_platform(broker, "messages.publish", room=room, type=int(MessageType.GIFT), payload=gift)
    await as_platform(broker, "messages.publish", room=room, type=int(MessageType.ANNOUNCEMENT), payload=["欢迎 <b>"])
    pinned = {"room": room, "id": "pin-1", "type": int(MessageType.DANMAKU), "payload": ["规则"], "user": "max"}
    await as_platform(broker, "messages.pin", **pinned)
    await as_platform(broker, "keys.set", room=room, name="scene", value={"at": 1})
    await as_platform(broker, "products.put", room=room, id="mug-1", version=1, title="Mug", price_cents=1990)
    await as_platform(broker, "products.explain", room=room, id="mug-1")
    await act(broker, _viewer("ann"), "products.report_clicks", room=room, id="mug-1", clicks=2, report=1)
    at_ms = time.time_ns() // 1_000_000
    sale = {
        "id": "sale-1", "sku": "mug-1", "stock": 2, "price_cents": 1990, "open_at_ms": at_ms - 1,
        "close_at_ms": at_ms + 600_000, "first_window_ms": 0, "window_ms": 0,
    }  # fmt: skip
    await as_platform(broker, "sales.create", room=room, **sale)
    for user in ("ann", "bob"):
        await act(broker, _viewer(user, f"claim of {user}"), "sales.claim", room=room, id="sale-1")
    await as_platform(broker, "sales.confirm", room=room, id="sale-1", number=1, order="paid-1")
    order = {"order": "paid-1", "status_version": 1, "status": "bought", "product": "mug-1", "name": "Ann"}
    await as_platform(broker, "orders.event", room=room, quantity=1, **order)
    await act(broker, _viewer("bob"), "moderation.report", room=room, offset=2, reason="spam")
    await as_platform(broker, "messages.delete", room=room, ids=[2], reason="outdated")
    await as_platform(broker, "rooms.set_rules", room=room, rules={"likes_per_s": 7})
    await as_platform(broker, "moderation.set_modes", room=room, slow_s=9)
    await as_platform(broker, "moderation.mute", room=room, user="mallory", seconds=60, reason="<spam>")
