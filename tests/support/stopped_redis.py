"""A red packet over a Redis that stands still: ``python -m tests.support.stopped_redis SECONDS`` (30 if not given)."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import trio

from protocol.clients import open_client
from tests.support.engine_processes import grab_share, shared_processes
from tests.support.redis_server import redis_server

__all__ = ["rain_over_a_stop"]

ROOM = "live"
AOF = ("--appendonly", "yes", "--appendfsync", "always")


async def rain_over_a_stop(directory: Path, seconds: float) -> str:
    """Share a packet out to more users than it has shares for, by two processes, while the server stands still for so
    long; return what came of it.

    Checked: what was drawn before stays, all shares are the total together, the room has the owner that it had, and no
    process has ended.
    """
    async with redis_server(*AOF) as redis, shared_processes(2, redis, directory) as shared:
        shares: dict[str, int] = {}
        async with open_client(shared.url, "dev:shop:app") as shop:
            await shop.call("rooms.open", room=ROOM)
            await shop.call(
                "packets.create", room=ROOM, id="p1", order_id="o-1", total_cents=10_000, count=40, key="p1"
            )
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(grab_share, shared, f"early{number}", ROOM, shares)
        before, owner, pids = dict(shares), await shared.owner_of(ROOM), dict(shared.pids)
        assert redis.process is not None
        redis.process.send_signal(signal.SIGSTOP)
        try:
            async with trio.open_nursery() as nursery:
                for number in range(35):
                    nursery.start_soon(grab_share, shared, f"late{number}", ROOM, shares)
                await trio.sleep(seconds)
                during = len(shares) - len(before)
                redis.process.send_signal(signal.SIGCONT)
        finally:
            redis.process.send_signal(signal.SIGCONT)
        got = {user: cents for user, cents in shares.items() if cents}
        assert during == 0, "a share was promised that the server does not have"
        assert before.items() <= got.items()
        assert (len(got), sum(got.values())) == (40, 10_000)
        assert await shared.owner_of(ROOM) == owner
        assert shared.pids == pids
        return f"stood still for {seconds:g} s: {len(got)} shares, {sum(got.values())} cents, {owner} owns it still"


def main() -> None:
    """Run it once, and print what came of it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    with tempfile.TemporaryDirectory(prefix="roomcast-stopped-") as name:
        print(trio.run(rain_over_a_stop, Path(name), seconds))


if __name__ == "__main__":
    main()
