"""This node and the broker's log: where its submissions go, and what it reports to other nodes."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from broker.engine.base import Engine, EngineError, EngineRefused
from broker.rooms.broker_log import BROKER_LOG, FOLLOW_S
from broker.rooms.node_messages import LogFollowed, Moved, NodeMessage, Submitted, UsersAsked, UsersReported, UsersShown
from broker.rooms.owners import RoomOwners
from broker.rooms.shared_ledger import SharedLedger
from broker.sessions.talk_link import TalkLink

__all__ = ["LogLink"]

log = structlog.get_logger("roomcast.nodes")


class LogLink:
    """The part of one node. ``send``: sends a record to a node; ``on_begun``: called once the log was read."""

    def __init__(
        self,
        logs: SharedLedger,
        owners: RoomOwners,
        engine: Engine,
        send: Callable[[str, NodeMessage], None],
        talk: TalkLink,
        *,
        on_begun: Callable[[], None],
    ) -> None:
        self._logs = logs
        self._log = logs.broker_log
        self._owners = owners
        self._engine = engine
        self._send = send
        self._talk = talk
        self._on_begun = on_begun

    @property
    def is_stale(self) -> bool:
        """Whether this node does not know who is banned or whose token is revoked, and admits no user."""
        return self._log.is_stale

    async def begin(self, life: str) -> None:
        """Take over what holds on every node, before the first viewer comes. ``life``: of this node. EngineRefused
        where the log is encrypted with a key that this node does not have."""
        self._log.origin, self._log.submit = (self._owners.node, life), self._submit
        self._log.report = lambda node, fact, links: self._send(node, LogFollowed(fact, links))
        self._owners.always.add(BROKER_LOG)
        self._engine.subscribe_room(BROKER_LOG)
        while True:
            try:
                await self._log.catch_up()
                if not self._log.is_filling:
                    return self._on_begun()
                log.info("the broker's log is being written again, this node waits for it")
            except EngineRefused:
                raise
            except EngineError as error:
                log.warning("the broker's log cannot be read", why=str(error))
            await trio.sleep(FOLLOW_S)

    async def run(self) -> None:
        """Follow the log until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._talk.run)
            await self._log.run()

    def owned(self, name: str) -> None:
        """Take that this node owns a log from now on."""
        if name == BROKER_LOG:
            self._talk.owned()

    def left(self, name: str) -> None:
        """Take that this node does not own a log any more."""
        if name == BROKER_LOG:
            self._talk.left()

    def node_gone(self, node: str) -> None:
        """Take that a node, or an earlier life of it, is gone."""
        self._talk.node_gone(node)

    def hint(self) -> None:
        """Take that the log has grown."""
        self._log.hint()

    def _submit(self, body: bytes) -> None:
        """Bring a submission to the owner of the log; where it is lost, its sender asks again."""
        owner = self._owners.owner_of(BROKER_LOG)
        if owner is None:
            self._owners.find(BROKER_LOG, lambda found: self._submit(body) if found else None)
        elif owner != self._owners.node:
            self._send(owner, Submitted(body))
        else:
            self._logs.append_for_all(body)

    def take(self, node: str, record: Submitted | LogFollowed | UsersReported | UsersAsked | UsersShown) -> None:
        """Take a record of another node."""
        if isinstance(record, (UsersReported, UsersAsked, UsersShown)):
            self._talk.take(node, record)
        elif isinstance(record, LogFollowed):
            self._log.reported(node, record.fact, record.links)
        elif not self._logs.append_for_all(record.body):
            if BROKER_LOG not in self._owners.fences:
                self._owners.look_again(BROKER_LOG)
            self._send(node, Moved(BROKER_LOG))
