"""The engine of a configuration."""

from __future__ import annotations

import socket

from broker.config.engine import EngineConfig
from broker.config.files import user_path
from broker.config.redis_url import parse_url
from broker.engine.link import LinkLimits
from broker.engine.redis import RedisEngine
from broker.engine.redis_settings import RedisSettings

__all__ = ["engine_of", "redis_settings"]


def redis_settings(config: EngineConfig) -> RedisSettings:
    """Return how to use the server of a configuration. ValueError: it has none, or the URL is wrong."""
    url = parse_url(config.url or "")
    if config.password is not None:
        url = url._replace(password=config.password)
    return RedisSettings(
        url,
        prefix=config.prefix,
        wait_replicas=config.wait_replicas,
        wait_timeout_s=config.wait_timeout_s,
        log_length=config.log_events,
        durability=config.durability,
        allow_eviction=config.allow_eviction,
        start_timeout_s=config.start_timeout_s,
        tls_ca=str(user_path(config.tls_ca_file)) if config.tls_ca_file else "",
        tls_cert=str(user_path(config.tls_cert_file)) if config.tls_cert_file else "",
        links=LinkLimits(connect_timeout_s=config.connect_timeout_s, ping_timeout_s=config.ping_timeout_s),
    )


def engine_of(config: EngineConfig, node: str = "") -> RedisEngine | None:
    """Return the engine of a configuration; None: it has none. ``node``: this node, "" = as configured.

    OSError: files of certificates cannot be used.
    """
    if config.url is None:
        return None
    return RedisEngine(redis_settings(config), node or config.node or socket.gethostname())
