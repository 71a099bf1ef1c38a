"""Settings that several nodes do not share yet are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config.schema import check_for_nodes, load
from tests.support.ledger_keys import key_file
from tests.support.webhooks import hook_settings


def test_endpoints_are_taken_but_for_what_no_node_has(tmp_path: Path) -> None:
    for events, is_taken in ((("*",), True), (("room.opened",), True), (("room.opened", "audit.anchored"), False)):
        hooks = hook_settings(tmp_path, "http://127.0.0.1:9/", *events)
        config = load(None, {}, {"ledger": {"ephemeral": True}, "webhooks": hooks})
        if is_taken:
            check_for_nodes(config)
        else:
            with pytest.raises(ValueError, match=r"webhooks\.endpoints: .*audit\.anchored"):
                check_for_nodes(config)


def test_defaults_tenants_and_keys_are_taken(tmp_path: Path) -> None:
    keys = {"data_dir": str(tmp_path), "key_file": str(key_file(tmp_path / "keys", "first"))}
    check_for_nodes(load(None, {}, {"ledger": keys}))
    check_for_nodes(load(None, {}, {"ledger": {"ephemeral": True}}))
    check_for_nodes(load(None, {}, {"ledger": {"ephemeral": True}, "tenants": [{"name": "red"}]}))
