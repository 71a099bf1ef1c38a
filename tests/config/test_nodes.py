"""Settings that several nodes do not share yet are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.config.schema import check_for_nodes, load
from tests.support.webhooks import hook_settings


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"ledger": {"key_file": "keys"}}, "ledger.key_file")],
)
def test_what_nodes_do_not_share_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        check_for_nodes(load(None, {}, settings))


def test_endpoints_are_taken_but_for_what_no_node_has(tmp_path: Path) -> None:
    for events, is_taken in ((("*",), True), (("room.opened",), True), (("room.opened", "audit.anchored"), False)):
        hooks = hook_settings(tmp_path, "http://127.0.0.1:9/", *events)
        config = load(None, {}, {"ledger": {"ephemeral": True}, "webhooks": hooks})
        if is_taken:
            check_for_nodes(config)
        else:
            with pytest.raises(ValueError, match=r"webhooks\.endpoints: .*audit\.anchored"):
                check_for_nodes(config)


def test_defaults_and_tenants_are_taken() -> None:
    check_for_nodes(load(None, {}, {"ledger": {"ephemeral": True}}))
    check_for_nodes(load(None, {}, {"ledger": {"ephemeral": True}, "tenants": [{"name": "red"}]}))
