"""A machine whose monotonic clock begins elsewhere: nothing that is kept depends on it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from protocol.clients import open_client
from protocol.codes import Outcome
from tests.support.processes import serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ELSEWHERE = ("unshare", "--time", "--fork", "--kill-child", "--monotonic", "50000000", "--boottime", "50000000")


def may_unshare() -> bool:
    """Whether this machine lets us live in another time."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*ELSEWHERE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="time namespaces are not permitted here")
async def test_a_broker_goes_on_where_another_monotonic_clock_left_off(tmp_path: Path) -> None:
    for life, prefix in enumerate(((), ELSEWHERE)):
        async with (
            serving("--data-dir", str(tmp_path), prefix=prefix) as broker,
            open_client(broker.url, "dev:max:host") as client,
        ):
            room = await client.join("lobby")
            result = await room.post_announcement(f"news {life}")
            assert (result.outcome, result.offset) == (Outcome.ACCEPTED, life + 1)
            assert (await room.post_danmaku(f"hello {life}")).outcome is Outcome.ACCEPTED
