"""A broker is whole after its constructor: what it says of itself does not need `run`."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.core.limits.overload import OverloadStage
from broker.server import Broker
from broker.telemetry.metrics import METRICS, collect
from tests.support.broker import configuration


@pytest.mark.parametrize("is_durable", [False, True])
async def test_a_broker_has_stats_and_a_status_before_it_runs(tmp_path: Path, is_durable: bool) -> None:
    ledger = {"data_dir": str(tmp_path / "data")} if is_durable else {}
    broker = Broker(configuration(ledger=ledger))
    stats = broker.stats()
    assert (stats.connections, stats.rooms, stats.posts, stats.stage) == (0, 0, 0, OverloadStage.NORMAL)
    assert stats.balanced
    assert [metric for metric, _ in collect(broker)] == list(METRICS)
    _, words = broker.status()
    assert words["stage"] == 0
    assert (broker.inboxes is not None) == is_durable
    broker.poller.close()
    assert not (tmp_path / "data").exists(), "the constructor touches no disk"


async def test_tls_files_that_cannot_be_used_are_an_error_of_the_constructor(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(OSError, match="SSL"):
        Broker(configuration(listen={"tls_cert": str(empty), "tls_key": str(empty)}))
