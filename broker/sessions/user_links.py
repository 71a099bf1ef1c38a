"""Links of users over all nodes: above the limit of a user the oldest are ended, whichever node they are at.

The engine has the links of each user. While it does not answer, each node bounds its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from broker.engine.base import Engine, EngineError, SharedLink
from broker.rooms.node_messages import LinkDisplaced, NodeMessage
from broker.rooms.owners import RoomOwners
from broker.users.registry import UserRegistry
from protocol.codes import CloseCode

__all__ = ["UserLinks"]

log = structlog.get_logger("roomcast.nodes")


class UserLinks:
    """The links of users here. ``send``: sends a record to a node; ``start``: starts a task."""

    def __init__(
        self,
        engine: Engine,
        owners: RoomOwners,
        users: UserRegistry,
        unix_ms: Callable[[], int],
        send: Callable[[str, NodeMessage], None],
        start: Callable[..., None],
    ) -> None:
        self._engine = engine
        self._owners = owners
        self._users = users
        self._unix_ms = unix_ms
        self._send = send
        self._start = start
        self._last = 0
        self.on_link: Callable[[str], None] = lambda user: None
        """Called with a user of whom a link here has begun or ended."""
        self._names: dict[Any, str] = {}
        self._links: dict[str, Any] = {}
        """Links by the names under which the engine has them. Any: sessions, see `UserSession`."""

    def __len__(self) -> int:
        return len(self._links)

    def added(self, user: str, link: Any, *, is_app: bool) -> None:
        """Take that a user has logged in on a link of this node. One of the role APP displaces no other."""
        self._last += 1
        name = f"{self._owners.node}/{self._owners.lease.incarnation}/{self._last}"
        self._names[link], self._links[name] = name, link
        self._start(self._add, user, link, name, is_app)
        self.on_link(user)

    def removed(self, user: str, link: Any) -> None:
        """Take that a link of this node has ended."""
        name = self._names.pop(link, None)
        if name is not None:
            del self._links[name]
            self._start(self._remove, user, name)
            self.on_link(user)

    def displaced(self, name: str) -> None:
        """End a link for which a newer one of its user has come at another node."""
        link = self._links.get(name)
        if link is not None:
            link.replace()

    async def _add(self, user: str, link: Any, name: str, is_app: bool) -> None:
        owners = self._owners
        nodes = {peer.incarnation: node for node, peer in owners.table.peers.items()}
        nodes[owners.lease.incarnation] = owners.node
        shared = SharedLink(name, owners.lease.incarnation, self._unix_ms())
        limit = self._users.most(is_app=is_app)
        try:
            found = await self._engine.add_link(user, shared, list(nodes), limit, displace=not is_app)
        except EngineError as error:
            log.info("the links of a user cannot be counted over the nodes", why=str(error))
            return
        if not found.is_added and name in self._links:
            link.close(CloseCode.TOO_MANY_FOR_USER, f"at most {limit} links a user, over all nodes")
        for each in found.displaced:
            node = nodes.get(each.incarnation, owners.node)
            if node == owners.node:
                self.displaced(each.connection)
            else:
                self._send(node, LinkDisplaced(each.connection))
        if name not in self._links:  # it has ended meanwhile
            await self._remove(user, name)

    async def _remove(self, user: str, name: str) -> None:
        try:
            await self._engine.remove_link(user, name)
        except EngineError as error:
            log.info("a link of a user is not removed", why=str(error))
