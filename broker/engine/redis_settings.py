"""How the engine uses a Redis or Valkey server."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.config.redis_url import RedisUrl
from broker.engine.base import NODE_TTL_MS
from broker.engine.link import LinkLimits

__all__ = ["RedisSettings"]


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """How to use a server."""

    url: RedisUrl
    prefix: str = "rc:"
    """In front of every key and channel."""
    wait_replicas: int = 0
    """Replicas that must have an append before it counts as written."""
    wait_timeout_s: float = 2.0
    """After so long without them the outcome of an append is unknown."""
    log_length: int = 10_000
    """Events that a room's log keeps, about."""
    durability: str = "any"
    """What the server must promise at least: any, everysec or always."""
    allow_eviction: bool = False
    """Whether a server that drops keys when it is full may be used; for tests."""
    start_timeout_s: float = float("inf")
    """How long `RedisEngine.run` waits for a server that does not answer."""
    node_ttl_ms: int = NODE_TTL_MS
    """Of the lease of a node."""
    tls_ca: str = ""
    """File of the authorities for TLS; "" = those of the system."""
    tls_cert: str = ""
    """File of the client's certificate and key for TLS."""
    links: LinkLimits = field(default_factory=LinkLimits)
