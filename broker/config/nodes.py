"""Settings that several nodes do not share yet: a broker with an engine does not start with them."""

from __future__ import annotations

from collections.abc import Iterator

from broker.config.webhooks import WebhookConfig

__all__ = ["node_conflicts"]


def node_conflicts(webhooks: WebhookConfig) -> Iterator[tuple[str, str]]:
    """Yield the settings that a broker which is one of several nodes may not have, and why."""
    asks_anchors = any("audit.anchored" in endpoint.events for endpoint in webhooks.endpoints)
    found = [
        ("webhooks.endpoints", asks_anchors, "audit.anchored: no node has a hash chain of all rooms"),
    ]
    for name, is_set, why in found:
        if is_set:
            yield name, f"is not there with several nodes yet ({why})"
