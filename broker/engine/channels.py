"""Subscriptions of a node: a link of their own, everything subscribed anew after it broke, and how late messages are.

A message to the node itself once a second measures the way: where it comes late the node reads what is old, which
happens after it was stopped, from the buffers of the kernel.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import trio

from broker.engine.base import EngineListener, EngineUnavailable
from broker.engine.cluster import ClusterLink
from broker.engine.link import RedisLink, Reply
from broker.engine.redis_records import RedisNames

__all__ = ["RedisChannels"]

ECHO_EVERY_S = 1.0
ECHO_LIMIT_S = 5.0
"""A node whose own messages are so late opens the subscriptions anew: what is on its way is of no use any more."""


class RedisChannels:
    """The channels that one node hears. ``publish(channel, body)`` sends, and returns whether it did; ``on_lost``: is
    called where a server of a Cluster has ended a subscription."""

    def __init__(
        self,
        node: str,
        names: RedisNames,
        publish: Callable[[str, bytes], bool],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_lost = on_lost
        self._names = names
        self._publish = publish
        self._node_channel = names.node_channel(node).encode()
        self._echo_channel = f"{names.node_channel(node)}:{secrets.token_hex(4)}"
        self._rooms: dict[bytes, str] = {}
        """Rooms by channel that are to be subscribed to."""
        self._channels: dict[str, bytes] = {}
        self._link: RedisLink | ClusterLink | None = None
        self._lost: set[bytes] = set()
        """Channels whose subscription a server has ended: their slot moves."""
        self._listener: EngineListener | None = None
        self.lag_s = 0.0
        """How late the last message to the node itself was: seconds."""
        self._echo_sent_at: dict[bytes, float] = {}
        """Those that have not come back, oldest first; at most as many as come in `ECHO_LIMIT_S`."""
        self._echo_number = 0

    def attach(self, link: RedisLink | ClusterLink, listener: EngineListener) -> None:
        """Use a link, whose pushes go to `take`; `subscribe_all` is called at each time that it is up."""
        self._link, self._listener = link, listener

    def _all(self) -> list[bytes]:
        return [self._node_channel, self._echo_channel.encode(), *self._rooms]

    def subscribe_all(self, link: RedisLink) -> None:
        """Subscribe to everything that a server has, on a new connection to it."""
        self._echo_sent_at.clear()
        # One command a channel: on a Cluster the channels of one command must be in one slot.
        for channel in self._all():
            if self._link is not None and self._link.link_of(channel) is link:
                self._send("SSUBSCRIBE", channel)

    def lose(self, concerns: Callable[[bytes], bool]) -> None:
        """Take that the subscriptions to some channels are of no use any more; `subscribe_lost` makes others."""
        self._lost.update(filter(concerns, self._all()))

    def subscribe_lost(self) -> None:
        """Subscribe again to the channels that were lost, where their slots are now."""
        lost, self._lost = self._lost, set()
        for channel in self._all():
            if channel in lost:
                self._send("SSUBSCRIBE", channel)

    def subscribe(self, room: str) -> None:
        """Subscribe to the channel of a room."""
        if room not in self._channels:
            channel = self._names.room(room, "t").encode()
            self._rooms[channel], self._channels[room] = room, channel
            self._send("SSUBSCRIBE", channel)

    def unsubscribe(self, room: str) -> None:
        """End the subscription to the channel of a room."""
        channel = self._channels.pop(room, None)
        if channel is not None:
            del self._rooms[channel]
            self._send("SUNSUBSCRIBE", channel)

    def _send(self, command: str, channel: bytes) -> None:
        link = None if self._link is None else self._link.link_of(channel)
        if link is not None and link.is_up:
            try:
                link.send((command, channel))
            except EngineUnavailable as error:
                link.reconnect(str(error))  # it subscribes to all that is wanted

    def take(self, push: Sequence[Any]) -> None:
        """Take what the server pushes."""
        listener = self._listener
        if listener is None:
            return
        kind, channel = push[0], push[1]
        if kind == b"smessage":
            room = self._rooms.get(channel)
            if room is not None:
                listener.room_message(room, push[2])
            elif channel == self._node_channel:
                listener.node_message(push[2])
            else:
                self._take_echo(push[2])
        elif kind == b"ssubscribe":
            room = self._rooms.get(channel)
            if room is not None:
                listener.room_subscribed(room)
            elif channel == self._node_channel:
                listener.node_subscribed()
        elif kind == b"sunsubscribe" and type(self._link) is ClusterLink:
            self._on_ended(channel)

    def _on_ended(self, channel: bytes) -> None:
        """Take that a server has ended a subscription: on request, or because the slot has moved."""
        if channel in self._rooms or channel in (self._node_channel, self._echo_channel.encode()):
            self._lost.add(channel)
            self._on_lost()

    def _take_echo(self, body: Reply) -> None:
        sent_at = self._echo_sent_at.pop(body, None)
        if sent_at is not None:
            self.lag_s = trio.current_time() - sent_at

    async def measure(self) -> None:
        """Measure how late messages are, until cancelled."""
        while True:
            link = self._link
            if link is not None and link.is_up:
                now = trio.current_time()
                oldest = next(iter(self._echo_sent_at.values()), now)
                if now - oldest >= ECHO_LIMIT_S:
                    self._echo_sent_at.clear()
                    link.reconnect(f"messages were more than {ECHO_LIMIT_S:g} s late")
                else:
                    self.lag_s = max(self.lag_s, now - oldest) if self._echo_sent_at else self.lag_s
                    self._echo_number += 1
                    stamp = b"%d" % self._echo_number
                    if self._publish(self._echo_channel, stamp):
                        self._echo_sent_at[stamp] = now
            await trio.sleep(ECHO_EVERY_S)
