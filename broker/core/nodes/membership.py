"""Membership: whether the engine counts this node as alive, which other nodes are, and which rooms it may claim.

A node has one lease for all its rooms, renewed by beats. It counts the lease from the moment at which the last
confirmed beat was *sent*, less a margin, so that it always ends here before it ends at the engine. Others are alive
while the engine has their record. Only a node whose own beats have succeeded for a whole lease (*healthy*) takes a node
without a record as dead: an engine that stalls lets every lease end, and then no node takes a room from another.

A lease decides who may claim and who may answer from memory. It is never the proof of who may write: that is the fence
(`broker.core.nodes.ownership`). Pure: times are seconds of a monotonic clock, incarnations come from the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from broker.core.nodes.placement import place

__all__ = ["BEAT_S", "JOIN_DELAY_S", "LEASE_MARGIN_S", "LEASE_S", "NodeLease", "NodeTable", "Peer"]

LEASE_S = 2.0
"""How long the engine keeps the record of a node without a beat."""
BEAT_S = 0.5
"""Time between two beats."""
LEASE_MARGIN_S = 0.3
"""How much earlier a node takes its own lease for ended: clocks of two machines do not run alike."""
JOIN_DELAY_S = 5.0
"""How long a node must have been alive before rooms that have an owner move to it."""
YOUNG_DATA_S = LEASE_S + 1.0
"""How long after a data set was made a node claims only rooms that it owned before: their owners have the memory."""


class Peer(NamedTuple):
    """Record of a live node, as the engine has it. ``weight``: see `broker.core.nodes.placement.score`."""

    id: str
    incarnation: str
    weight: float = 1.0
    is_leaving: bool = False
    """Whether it drains: it keeps what it owns until that has moved, and gets nothing."""


class NodeLease:
    """Lease of this node.

    The caller sends a beat when `beat_due` says so, notes the time before it sends, and reports the answer with it.
    """

    __slots__ = ("_healthy_since", "_margin_s", "_next_beat", "_sent_at", "_ttl_s", "incarnation")

    def __init__(self, incarnation: str, *, ttl_s: float = LEASE_S, margin_s: float = LEASE_MARGIN_S) -> None:
        """Start without a lease, until the first beat is confirmed.

        :param incarnation: random id of this life of the node, which the engine gives; another one after `lost`.
        """
        self.incarnation = incarnation
        self._ttl_s = ttl_s
        self._margin_s = margin_s
        self._sent_at = -inf
        self._healthy_since = inf
        self._next_beat = -inf

    @property
    def valid_until(self) -> float:
        """Time at which the lease ends without another beat; -inf = there is none."""
        return self._sent_at + self._ttl_s - self._margin_s

    def beat_due(self, now: float) -> bool:
        """Return whether the next beat is to be sent."""
        return now >= self._next_beat

    def sent(self, now: float) -> None:
        """Take that a beat is sent now."""
        self._next_beat = now + BEAT_S

    def confirmed(self, sent_at: float, now: float) -> None:
        """Take that the engine still had this incarnation, and keeps it on.

        :param sent_at: time at which that beat was sent. Answers may arrive in any order.
        """
        if sent_at <= self._sent_at:
            return
        if not self.is_valid(now) or sent_at > self.valid_until:
            self._healthy_since = sent_at  # there was a gap: health begins anew
        self._sent_at = sent_at

    def lost(self, incarnation: str) -> None:
        """Take that the engine does not have this incarnation any more: live on as another one, without a lease."""
        self.incarnation = incarnation
        self._sent_at = -inf
        self._healthy_since = inf
        self._next_beat = -inf

    def is_valid(self, now: float) -> bool:
        """Return whether this node may answer from memory, publish and claim."""
        return now < self.valid_until

    def is_healthy(self, now: float) -> bool:
        """Return whether the beats have succeeded for a whole lease, so that absent nodes are dead."""
        return self.is_valid(now) and now - self._healthy_since >= self._ttl_s


class NodeTable:
    """Nodes alive, as this one has read them from the engine.

    ``node`` is this node, which is in the table from its first confirmed beat on, as every other.
    """

    __slots__ = ("_peers", "_read_at", "_since", "_ttl_s", "_young_until", "lease", "node")

    def __init__(self, node: str, lease: NodeLease, *, ttl_s: float = LEASE_S) -> None:
        self.node = node
        self.lease = lease
        self._ttl_s = ttl_s
        self._peers: dict[str, Peer] = {}
        self._since: dict[str, float] = {}
        """When each was first read without a break; -inf = it was there before this node."""
        self._read_at = -inf
        self._young_until = -inf

    def read(self, peers: Iterable[Peer], asked_at: float) -> None:
        """Take all records that the engine has.

        :param asked_at: time at which it was asked. A look that is older than the last one is left out.
        """
        if asked_at < self._read_at:
            return
        found = {peer.id: peer for peer in peers}
        first = self._read_at == -inf
        self._since = {
            node: self._since.get(node, -inf if first and node != self.node else asked_at)
            for node, peer in found.items()
        }
        self._peers = found
        self._read_at = asked_at

    def found_data_set(self, age_s: float, now: float) -> None:
        """Take how long ago the engine's data set was made: in a young one only former owners claim.

        :param age_s: seconds; a large figure where nothing new was made.
        """
        self._young_until = now + YOUNG_DATA_S - age_s

    @property
    def read_at(self) -> float:
        """Time at which the last look was asked for; -inf = there was none."""
        return self._read_at

    @property
    def peers(self) -> dict[str, Peer]:
        """Records of the nodes alive at the last look, by id; not to be changed."""
        return self._peers

    def is_gone(self, node: str, now: float) -> bool:
        """Return whether ``node`` is dead for certain: this node is healthy, has looked, and not found it."""
        return (
            node not in self._peers
            and self.lease.is_healthy(now)
            # The look may not be older than the health: during a stall of the engine there were no looks.
            and now - self._read_at < self._ttl_s
        )

    def weights(self, now: float, settled_s: float | None = None) -> dict[str, float]:
        """Return the nodes that rooms are placed on, with their weights.

        :param settled_s: how long they have been alive at least; a whole lease if None. Where none has been so long,
            all count.
        """
        staying = {peer.id: peer.weight for peer in self._peers.values() if not peer.is_leaving}
        settled = self.settled(now, self._ttl_s if settled_s is None else settled_s)
        return {node: weight for node, weight in staying.items() if node in settled} or staying

    def settled(self, now: float, settled_s: float) -> frozenset[str]:
        """Return the nodes that stay and have been alive for ``settled_s`` at least."""
        return frozenset(
            node for node, peer in self._peers.items() if not peer.is_leaving and now - self._since[node] >= settled_s
        )

    def placed_on(self, room: str, now: float) -> str | None:
        """Return the node that should claim ``room`` if it has no owner."""
        return place(room, self.weights(now))

    def may_claim(self, room: str, owner: str | None, now: float, *, owned_before: bool = False) -> bool:
        """Return whether this node may claim a room that is wanted.

        :param owner: node that the engine's record names, None = none. This node itself counts: in an earlier life.
        :param owned_before: whether this node has the room's state in memory from a time when it owned it.
        """
        if not self.lease.is_valid(now) or (now < self._young_until and not owned_before):
            return False
        if owner == self.node:
            return True
        return (owner is None or self.is_gone(owner, now)) and (owned_before or self.placed_on(room, now) == self.node)

    def better_node(self, room: str, now: float) -> str | None:
        """Return the node that a room of this one should move to, None = it stays.

        A node that joins must have been alive for `JOIN_DELAY_S`. A node that is leaving gives its rooms to any other.
        """
        me = self._peers.get(self.node)
        others_only = me is not None and me.is_leaving
        heir = place(room, self.weights(now, None if others_only else JOIN_DELAY_S))
        if heir is None or heir == self.node or (not others_only and heir not in self.settled(now, JOIN_DELAY_S)):
            return None
        return heir
