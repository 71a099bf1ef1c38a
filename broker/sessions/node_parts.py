"""How the parts of a broker that is one of several nodes are put together."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial

from broker.auth.ticket_keys import TicketKeys
from broker.config.schema import Config, check_for_nodes
from broker.engine.base import Engine
from broker.ledger import Ledger
from broker.operations.calls import Operations
from broker.operations.forwarding import CallForwarding
from broker.operations.shared_records import DECIDED_KINDS, FIRST_HOLDS, SHARED_KINDS, SharedRecords
from broker.rooms.fanout import FanOut
from broker.rooms.room_store import RoomStore
from broker.rooms.shared_ledger import SharedLedger
from broker.sessions.context import SessionContext
from broker.sessions.log_link import LogLink
from broker.sessions.nodes import Nodes
from broker.sessions.talk_link import TalkLink

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
        logs.on_lost, logs.may_answer = nodes.lost, nodes.owners.may_answer
        if operations.parts.webhooks is not None:
            logs.on_reports_left = operations.parts.webhooks.forget
        room = config.room
        logs.load = partial(room_store.load_room, history_entries=room.history_entries, history_s=room.history_s)
    context.nodes = nodes
    calls = CallForwarding(operations, nodes.owners, nodes.send, nodes.start)
    talk = operations.parts.talk
    if logs is not None and talk is not None and talk.shared is not None:
        parts, shared = operations.parts, logs.broker_log

        def use_secrets(keys: TicketKeys) -> None:
            context.auth.use_ticket_keys(keys)
            context.hub.event_ids.use_key(hmac.digest(keys.base, b"event ids", "sha256"))

        records = SharedRecords(parts, nodes.start, use_secrets)
        shared.kinds, shared.first_holds, shared.follow = SHARED_KINDS, FIRST_HOLDS, records.follow
        shared.on_filled = records.load
        lifetime_ms = round(context.auth.ticket_s * 1000)

        async def take_over() -> None:
            await parts.locks.load()
            await talk.take_over()

        shared.on_owned = take_over
        shared.decided, shared.append = DECIDED_KINDS, logs.append_for_all
        calls.on_watch, nodes.user_links.on_link = talk.shared.watched, talk.shared.look
        nodes.log = LogLink(
            logs, nodes.owners, engine, nodes.send, TalkLink(talk, nodes.owners, nodes.send, clock),
            on_begun=lambda: records.offer_secrets(TicketKeys.new().signing_for(lifetime_ms)),
        )  # fmt: skip
        parts.others.log = shared
    operations.parts.others.alive = nodes.others_alive
    nodes.calls, operations.route = calls, calls.route
    return nodes
