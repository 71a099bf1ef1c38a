"""Records on their way to other nodes: gathered for some milliseconds, and numbered for each receiver."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from broker.engine.base import Engine
from broker.rooms.node_messages import (
    MAX_RECORDS,
    LinkAnswers,
    LinkBytes,
    NodeMessage,
    Submitted,
    UsersReported,
    UsersShown,
    pack_batch,
)

__all__ = ["NodeSender"]

log = structlog.get_logger("roomcast.nodes")

GATHER_S = 0.002
"""How long records for one node are gathered."""
MAX_BATCH_BYTES = 32 * 1024
NAME_BYTES = 20
"""About how many bytes the id of a user has."""


class _Waiting:
    """Records that wait for one node. ``number``: of the last batch."""

    def __init__(self) -> None:
        self.number = 0
        self.records: list[NodeMessage] = []
        self.nbytes = 0


class NodeSender:
    """Sends records to other nodes; its `run` is one task. ``life``: returns the id of this life of the node."""

    def __init__(self, engine: Engine, life: Callable[[], str]) -> None:
        self._engine = engine
        self._life = life
        self._by_node: dict[str, _Waiting] = {}
        self._work = trio.Event()

    def send(self, node: str, record: NodeMessage) -> None:
        """Send a record: with others, soon."""
        waiting = self._by_node.get(node)
        if waiting is None:
            waiting = self._by_node[node] = _Waiting()
        waiting.records.append(record)
        waiting.nbytes += _nbytes(record)
        if len(waiting.records) >= MAX_RECORDS or waiting.nbytes >= MAX_BATCH_BYTES:
            self._flush(node, waiting)
        self._work.set()

    def clear(self, node: str) -> None:
        """Drop what waits for a node."""
        waiting = self._by_node.get(node)
        if waiting is not None:
            waiting.records, waiting.nbytes = [], 0

    def _flush(self, node: str, waiting: _Waiting) -> None:
        records, waiting.records, waiting.nbytes = waiting.records, [], 0
        if records:
            waiting.number += 1
            batch = pack_batch(self._engine.node, self._life(), waiting.number, records)
            self._engine.publish_node(node, batch)  # where it is dropped, the receiver sees the gap

    def flush(self) -> None:
        """Give all that waits to the engine."""
        for node, waiting in list(self._by_node.items()):
            self._flush(node, waiting)

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._work.wait()
            await trio.sleep(GATHER_S)
            self._work = trio.Event()
            self.flush()


def _nbytes(record: NodeMessage) -> int:
    """Return about how many bytes a record has."""
    if isinstance(record, (LinkBytes, LinkAnswers)):
        return len(record.data)
    if isinstance(record, UsersReported):
        return 100 + NAME_BYTES * (
            len(record.online) + len(record.offline) + sum(len(each[1]) for each in record.watches)
        )
    if isinstance(record, UsersShown):
        return 100 + NAME_BYTES * len(record.users) + len(record.body)
    return 100 + len(record.body) if isinstance(record, Submitted) else 100
