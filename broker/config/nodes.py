"""Settings that several nodes do not share yet: a broker with an engine refuses to start with them."""

from __future__ import annotations

from broker.config.schema import Config

__all__ = ["check_for_nodes"]


def check_for_nodes(config: Config) -> None:
    """Check that a broker of this configuration may be one of several nodes. ValueError names what it may not have."""
    found = [
        ("tenants", bool(config.tenants), "quotas would be counted by each node for itself"),
        ("webhooks.endpoints", bool(config.webhooks.endpoints), "reports would be sent again by each new owner"),
        ("ledger.key_file", config.ledger.key_file is not None, "the engine would hold what is to be encrypted"),
    ]
    wrong = [f"{name}: is not there with several nodes yet ({why})" for name, is_set, why in found if is_set]
    if wrong:
        raise ValueError("; ".join(wrong))
