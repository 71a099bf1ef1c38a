"""How the parts of a broker that is one of several nodes are put together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from broker.config.schema import Config, check_for_nodes
from broker.engine.base import Engine
from broker.ledger import Ledger
from broker.operations.calls import Operations
from broker.operations.forwarding import CallForwarding
from broker.operations.shared_records import SHARED_KINDS, SharedRecords
from broker.rooms.fanout import FanOut
from broker.rooms.room_store import RoomStore
from broker.rooms.shared_ledger import SharedLedger
from broker.sessions.context import SessionContext
from broker.sessions.log_link import LogLink
from broker.sessions.nodes import Nodes

__all__ = ["nodes_of"]


def nodes_of(
    engine: Engine | None,
    context: SessionContext,
    fanout: FanOut,
    operations: Operations,
    ledger: Ledger | None,
    room_store: RoomStore | None,
    config: Config,
    clock: Callable[[], float],
) -> Nodes | None:
    """Return the part of this node, which sessions and operations use from now on; None without an engine.

    ValueError: the configuration has what several nodes do not share.
    """
    if engine is None:
        return None
    check_for_nodes(config)
    logs = ledger if isinstance(ledger, SharedLedger) else None
    nodes = Nodes(engine, context.hub, context, fanout, clock=clock, logs=logs)
    if logs is not None and room_store is not None:
        logs.on_lost = nodes.lost
        room = config.room
        logs.load = partial(room_store.load_room, history_entries=room.history_entries, history_s=room.history_s)
    context.nodes = nodes
    if logs is not None:
        parts, shared = operations.parts, logs.broker_log
        shared.kinds, shared.follow = SHARED_KINDS, SharedRecords(parts, nodes.start).follow
        shared.on_owned = parts.locks.load
        nodes.log = LogLink(logs, nodes.owners, engine, nodes.send)
        parts.others.log, parts.others.alive = shared, nodes.others_alive
    calls = CallForwarding(operations, nodes.owners, nodes.send, nodes.start)
    nodes.calls, operations.route = calls, calls.route
    return nodes
