"""Rendezvous hashing: which node a room is placed on.

Each node has a score for each room, and the room is placed on the highest. A node that joins takes rooms only for
itself, a node that leaves gives away only its own: no other room moves. Scores of heavier nodes are higher in the
proportion of the weights. Every node computes the same from the same names and weights, without a request.

A look costs about 1 us a node. Pure: the set of nodes is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from math import log

__all__ = ["place", "ranking", "score"]

_HASH_BYTES = 8
_HASH_RANGE = 2.0 ** (8 * _HASH_BYTES)


def score(room: str, node: str, weight: float = 1.0) -> float:
    """Return how strongly ``room`` is drawn to ``node``; the highest score has it.

    :param room: qualified name of the room.
    :param node: id of the node.
    :param weight: share of the node, above 0, such as its number of cores.
    """
    name = node.encode()
    # The length keeps "a" with "b:c" apart from "a:b" with "c".
    digest = blake2b(b"%d:%s:%s" % (len(name), name, room.encode()), digest_size=_HASH_BYTES).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / _HASH_RANGE  # never 0; 1.0 after rounding at worst
    return -weight / log(uniform) if uniform < 1.0 else float("inf")


def place(room: str, nodes: Mapping[str, float]) -> str | None:
    """Return the node that ``room`` is placed on, None without nodes.

    :param nodes: weight of each node by its id.
    """
    if not nodes:
        return None
    return max(nodes, key=lambda node: (score(room, node, nodes[node]), node))


def ranking(room: str, nodes: Mapping[str, float]) -> list[str]:
    """Return all nodes in the order in which ``room`` would be placed on them, were those before them gone."""
    return sorted(nodes, key=lambda node: (score(room, node, nodes[node]), node), reverse=True)
