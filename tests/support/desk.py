"""Steps of tests of the service desk: set one up, open a conversation, wait for its state."""

from __future__ import annotations

from typing import Any

from broker.server import Broker
from protocol.activities.desk import DeskState, DeskView
from protocol.operations import BY_NAME, KeyUse
from tests.support.conversations import do
from tests.support.tenants import backend
from tests.support.until import until

__all__ = ["add_agent", "configure", "opened", "platform", "settled", "state_of"]

TOPIC = {"name": "orders", "skills": ["order"]}


async def platform(broker: Broker, operation: str, key: str = "k", tenant: str = "", **fields: Any) -> Any:
    """Call an operation as the platform; return its result."""
    row = BY_NAME[operation]
    caller = backend(tenant, key if row.key is KeyUse.REQUIRED else "")
    return (await broker.operations.call(caller, row, fields))[0]


async def configure(broker: Broker, tenant: str = "", **settings: Any) -> None:
    """Set up a desk whose clocks do not run out in a test."""
    topics = settings.pop("topics", [TOPIC])
    times = {"bot_ms": 3_600_000, "agent_ms": 3_600_000, "lost_ms": 3_600_000, "first_response_ms": 0}
    await platform(broker, "desk.configure", tenant=tenant, topics=topics, **{**times, "resolution_ms": 0, **settings})


async def add_agent(broker: Broker, user: str, *, state: str = "online", **fields: Any) -> None:
    """Add an agent who wants conversations."""
    fields = {"skills": ["order"], **fields}
    await platform(broker, "desk.set_agent", user=user, name=user.title(), **fields)
    await do(broker, user, "desk.set_state", state=state)


async def opened(broker: Broker, customer: str = "ann", key: str = "o", **fields: Any) -> DeskView:
    """Open a conversation; return it as its customer sees it."""
    fields = {"topic": "orders", "text": "Where is my parcel?", **fields}
    result = await do(broker, customer, "desk.open", key, **fields)
    view: DeskView = result.desk
    return view


def state_of(broker: Broker, id: str, tenant: str = "") -> tuple[DeskState, str] | None:
    """Return state and holder of a conversation; None: it is kept no more."""
    assert broker.talk is not None
    desk = broker.talk.desks.find(tenant)
    assert desk is not None
    row = desk.core.find(id)
    return None if row is None else (row.state, row.agent)


async def settled(broker: Broker, id: str, state: DeskState, holder: str = "") -> DeskView:
    """Wait until a conversation is in a state with a holder; return it as the platform sees it."""
    await until(lambda: state_of(broker, id) == (state, holder))
    view: DeskView = (await platform(broker, "desk.get", conversation=id)).desk
    return view
