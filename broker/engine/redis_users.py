"""What the engine keeps of users over Redis or Valkey: inboxes and connections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from broker.engine.base import InboxEntry, InboxPushed, InboxState, LinkAdded, SharedLink
from broker.engine.cluster import ClusterLink
from broker.engine.link import RedisLink
from broker.engine.redis_records import RedisNames, inbox_entry, inbox_value

__all__ = ["RedisUsers"]

LINKS_TTL_MS = 7 * 24 * 3600 * 1000
"""Links of a user are forgotten so long after the last was added: those of a node that was killed stay until then."""


class RedisUsers(ABC):
    """The part of the engine that is about users."""

    _names: RedisNames
    _commands: RedisLink | ClusterLink

    @abstractmethod
    async def _run(
        self, name: str, keys: Sequence[str | bytes], *arguments: str | bytes | int
    ) -> Any:  # Any: what the script answers
        """Run a script."""

    async def push_inbox(self, user: str, entries: Sequence[InboxEntry], cap: int, now_ms: int) -> InboxPushed:
        """See `Engine.push_inbox`."""
        keys = [self._names.user(user, part) for part in ("in", "meta")]
        arguments = [part for entry in entries for part in (entry.expires_at_ms, inbox_value(entry))]
        numbers = await self._run("push_inbox", keys, now_ms, cap, *arguments)
        return InboxPushed(tuple(map(int, numbers)))

    async def ack_inbox(self, user: str, number: int) -> int:
        """See `Engine.ack_inbox`."""
        keys = [self._names.user(user, part) for part in ("in", "meta")]
        return int(await self._run("ack_inbox", keys, number))

    async def read_inbox(self, user: str, after: int, count: int) -> Sequence[InboxEntry]:
        """See `Engine.read_inbox`."""
        values = await self._run("read_inbox", (self._names.user(user, "in"),), after, count)
        return tuple(inbox_entry(value) for value in values)

    async def inbox_state(self, user: str) -> InboxState:
        """See `Engine.inbox_state`."""
        state = await self._run("inbox_state", [self._names.user(user, part) for part in ("in", "meta")])
        return InboxState(*map(int, state))

    async def add_link(
        self, user: str, link: SharedLink, live: Sequence[str], limit: int, *, displace: bool
    ) -> LinkAdded:
        """See `Engine.add_link`."""
        key = self._names.user(user, "links")
        reply = await self._run(
            "add_link",
            (key,),
            link.connection,
            link.incarnation,
            link.since_ms,
            limit,
            int(displace),
            LINKS_TTL_MS,
            *live,
        )
        parts = iter(reply[1:])
        displaced = [
            SharedLink(name.decode(), where.decode(), int(at))
            for name, where, at in zip(parts, parts, parts, strict=True)
        ]
        return LinkAdded(reply[0] == b"1", tuple(displaced))

    async def remove_link(self, user: str, connection: str) -> None:
        """See `Engine.remove_link`."""
        await self._commands.request("HDEL", self._names.user(user, "links"), connection)

    async def links(self, user: str) -> tuple[SharedLink, ...]:
        """See `Engine.links`."""
        found = await self._commands.request("HGETALL", self._names.user(user, "links"))
        links = []
        for name, value in found.items():
            incarnation, _, since = value.decode().rpartition(" ")
            links.append(SharedLink(name.decode(), incarnation, int(since)))
        return tuple(sorted(links, key=lambda each: (each.since_ms, each.connection)))
