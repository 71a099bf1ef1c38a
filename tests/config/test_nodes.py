"""Settings that several nodes do not share yet are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from broker.config.schema import check_for_nodes, load


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"ledger": {"key_file": "keys"}}, "ledger.key_file"),
        ({"tenants": [{"name": "red"}]}, "tenants"),
        ({"webhooks": {"endpoints": [{"name": "shop", "url": "http://127.0.0.1:9/", "secret_file": "x"}]}}, "webhooks"),
    ],
)
def test_what_nodes_do_not_share_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        check_for_nodes(load(None, {}, settings))


def test_defaults_are_taken() -> None:
    check_for_nodes(load(None, {}, {"ledger": {"ephemeral": True}}))
