"""A disk that is locked or fills up under a running broker: one line, one state, nothing lost, and no restart."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import trio

from broker.ledger import database_path
from protocol.clients import open_client
from protocol.clients.room import JoinedRoom
from protocol.codes import MessageType, Outcome
from tests.support.file_systems import fill, mounted_tmpfs
from tests.support.processes import Serving, healthz, read_all, roomcast, serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]


class PublishingRoom:
    """A room of a running broker, and what it acknowledged."""

    def __init__(self, broker: Serving, room: JoinedRoom) -> None:
        self.broker = broker
        self.room = room
        self.acked: list[str] = []

    async def announce(self, words: str = "") -> Outcome | None:
        """Post one announcement and return its result."""
        text = f"news {len(self.acked)} {words}"
        result = await self.room.post(MessageType.ANNOUNCEMENT, (text,), timeout_s=20)
        if result.outcome is Outcome.ACCEPTED:
            assert result.offset == len(self.acked) + 1, "what was refused took an offset"
            self.acked.append(text)
        return result.outcome

    async def is_degraded_by(self, trouble: str) -> None:
        """The ledger says what is wrong, danmaku go on, and viewers are still welcome."""
        status, words = await healthz(self.broker)
        assert (status, words["status"], words["ledger"]) == (200, "degraded", "degraded")
        assert trouble in str(words["ledger_reason"])
        assert (await self.room.post_danmaku(f"still talking of {trouble}")).outcome is Outcome.ACCEPTED
        assert await self.announce() is Outcome.UNAVAILABLE
        line = json.loads(await self.broker.err.until('"ledger degraded'))
        assert (line["kind"], line["level"]) == (trouble, "error")

    async def is_ready_again(self) -> None:
        """Without a restart."""
        await self.broker.err.until('"ledger ready again"')
        ready = {"status": "ok", "stage": 0, "ledger": "ready"}
        with trio.fail_after(60):
            while (await healthz(self.broker))[1] != ready:  # noqa: ASYNC110 - what waits is written, a busy machine sheds load
                await trio.sleep(0.1)
        assert await self.announce() is Outcome.ACCEPTED


async def test_a_disk_that_is_locked_or_fills_up_while_running_recovers_without_a_restart(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", "2m") as disk:
        directory = disk / "data"
        options = ("--set", "room.admit_per_window=100000", "--set", "link.frames_per_s=0")
        async with (
            serving("--data-dir", str(directory), *options) as broker,
            open_client(broker.url, "dev:max:host") as client,
            trio.open_nursery() as nursery,
        ):
            room = await client.join("lobby")
            nursery.start_soon(read_all, room)
            stage = PublishingRoom(broker, room)
            assert await stage.announce() is Outcome.ACCEPTED

            other = sqlite3.connect(database_path(directory), isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            assert await stage.announce() is Outcome.UNAVAILABLE
            await stage.is_degraded_by("locked by another process")
            other.close()
            await stage.is_ready_again()

            fill(disk / "ballast")
            with trio.fail_after(60):
                while await stage.announce("很长的公告" * 50) is Outcome.ACCEPTED:
                    pass
            await stage.is_degraded_by("disk full")
            (disk / "ballast").unlink()
            await stage.is_ready_again()

            broker.process.kill()
            await broker.process.wait()
            nursery.cancel_scope.cancel()
        assert (await roomcast("ledger", "verify", "--data-dir", str(directory))).status == 0
        exported = await roomcast("ledger", "export", "--data-dir", str(directory))
        assert [json.loads(line)["payload"][0] for line in exported.out.splitlines()] == stage.acked
        assert broker.err.text.count("ledger degraded") == 2, "one line each"
