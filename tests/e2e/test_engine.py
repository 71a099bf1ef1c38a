"""``roomcast serve --processes 3`` with a real redis-server: what a user runs, and what survives a kill or restart."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from protocol.clients import CallLost, CallRefused, Client, Danmaku, JoinedRoom, StreamEvent, open_client
from protocol.codes import ErrorCode, MessageType
from tests.support.engine_processes import NOT_NOW, SharedProcesses, grab_share, shared_processes
from tests.support.processes import roomcast, serving
from tests.support.redis_server import redis_server
from tests.support.stopped_redis import rain_over_a_stop

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STOCK = 10
AOF = ("--appendonly", "yes", "--appendfsync", "always")


async def viewers_of_all(shared: SharedProcesses, stack: AsyncExitStack, room: str) -> list[tuple[Client, JoinedRoom]]:
    """Join a room from every process: the kernel chooses, so as many viewers come as it takes."""
    found: list[tuple[Client, JoinedRoom]] = []
    while not found or not all(await shared.connections()):
        client = await stack.enter_async_context(open_client(shared.url, f"dev:u{len(found)}"))
        found.append((client, await client.join(room)))
        assert len(found) < 100
    return found


async def until_text(room: JoinedRoom, text: str) -> None:
    """Read until a text comes."""
    with trio.fail_after(120):
        async for event in room:
            if isinstance(event, (Danmaku, StreamEvent)) and text in str(event):
                return


async def test_viewers_of_three_processes_are_in_one_room(tmp_path: Path) -> None:
    async with redis_server(*AOF) as redis, shared_processes(3, redis, tmp_path) as shared, AsyncExitStack() as stack:
        viewers = await viewers_of_all(shared, stack, "live")
        host = await stack.enter_async_context(open_client(shared.url, "dev:host:host"))
        room = await host.join("live")
        async with trio.open_nursery() as nursery:
            for _, joined in viewers:
                nursery.start_soon(until_text, joined, "第一件")
            await room.post(MessageType.ANNOUNCEMENT, ("第一件 上架",))
        async with trio.open_nursery() as nursery:
            for _, joined in viewers:
                nursery.start_soon(until_text, joined, "好看")
            await viewers[0][1].post(MessageType.DANMAKU, ("好看",))
        fields = json.loads(await shared.get("/readyz"))
        assert (fields["status"], fields["ready"]) == ("ok", 3)
        assert {each["engine_durability"] for each in fields["nodes"].values()} == {"on the server's disk"}
        assert (await shared.get("/metrics")).count("roomcast_engine_up{node=") == 3


async def claim_unit(shared: SharedProcesses, user: str, room: str, units: dict[str, tuple[str, float]]) -> None:
    """Claim a unit of the sale with a key, until there is an answer: its state or refusal, and when it came."""
    async with open_client(shared.url, f"dev:{user}") as client:
        await client.join(room)
        while user not in units:
            try:
                state = (await client.call("sales.claim", room=room, id="s1", key=f"claim-{user}")).state.name
                units[user] = state, trio.current_time()
            except CallLost:
                continue  # the key decides
            except CallRefused as error:
                if error.code < NOT_NOW or error.code == ErrorCode.ALL_RESERVED:  # no reservation ends in this test
                    units[user] = str(error.code), trio.current_time()
                await trio.sleep(0.05)


async def test_a_rain_and_a_sale_are_exact_when_their_owner_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with redis_server(*AOF) as redis, shared_processes(3, redis, tmp_path) as shared:
        shares: dict[str, int] = {}
        units: dict[str, tuple[str, float]] = {}
        now_ms = round(time.time() * 1000)
        async with open_client(shared.url, "dev:shop:app") as shop:
            await shop.call("rooms.open", room="live")
            await shop.call(
                "packets.create", room="live", id="p1", order_id="o-1", total_cents=10_000, count=40, key="p1"
            )
            await shop.call(
                "sales.create", room="live", id="s1", sku="x", stock=STOCK, price_cents=100, open_at_ms=now_ms,
                close_at_ms=now_ms + 600_000, first_window_ms=0, window_ms=0, reserve_ms=600_000, waiting_max=0,
            )  # fmt: skip
        async with trio.open_nursery() as nursery:
            for number in range(15):
                nursery.start_soon(grab_share, shared, f"early{number}", "live", shares)
            for number in range(3):
                nursery.start_soon(claim_unit, shared, f"first{number}", "live", units)
        before = dict(shares)
        assert len(before) == 15
        sold_before = dict(units)
        owner = await shared.owner_of("live")
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(grab_share, shared, f"late{number}", "live", shares)
            os.kill(shared.pids[owner], signal.SIGKILL)
            killed_at = trio.current_time()
            for number in range(12):
                nursery.start_soon(claim_unit, shared, f"then{number}", "live", units)
            heir = await shared.next_owner("live", owner)
            taken_s = trio.current_time() - killed_at
        got = {user: cents for user, cents in shares.items() if cents}
        assert sum(got.values()) == 10_000
        assert len(got) == 40
        assert before.items() <= got.items()
        sold = {user: at for user, (state, at) in units.items() if state == "RESERVED"}
        assert len(sold) == STOCK, units
        assert sold_before.keys() <= sold.keys()
        answered_s = min(at for user, at in sold.items() if user not in sold_before) - killed_at
        again = dict.fromkeys(before, -1)
        for user in before:  # who had a share before is answered the same again
            async with open_client(shared.url, f"dev:{user}") as client:
                await client.join("live")
                again[user] = (await client.call("packets.grab", room="live", id="p1", key=f"grab-{user}")).cents
        assert again == before
    with capsys.disabled():
        print(
            f"\n{owner} was killed, and {heir} owned its room after {taken_s:.1f} s, sold on after {answered_s:.1f} s"
        )


async def test_a_rain_goes_on_when_the_server_loses_its_data(tmp_path: Path) -> None:
    """The living owner writes its rooms again; then it is killed, and the next one has all of it."""
    async with redis_server(*AOF) as redis, shared_processes(3, redis, tmp_path) as shared:
        shares: dict[str, int] = {}
        async with open_client(shared.url, "dev:shop:app") as shop:
            await shop.call("rooms.open", room="live")
            await shop.call(
                "packets.create", room="live", id="p1", order_id="o-1", total_cents=10_000, count=40, key="p1"
            )
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(grab_share, shared, f"early{number}", "live", shares)
        owner = await shared.owner_of("live")
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(grab_share, shared, f"while{number}", "live", shares)
            await redis.ask("FLUSHALL")
        await shared.until_logged("the engine has lost its data: a room was written again")
        assert await shared.owner_of("live") == owner
        os.kill(shared.pids[owner], signal.SIGKILL)
        await shared.next_owner("live", owner)
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(grab_share, shared, f"late{number}", "live", shares)
        assert sum(shares.values()) == 10_000
        assert sum(cents > 0 for cents in shares.values()) == 40
        assert all(cents for user, cents in shares.items() if not user.startswith("late"))


async def test_a_rain_goes_on_after_the_server_stood_still_and_no_room_has_moved(tmp_path: Path) -> None:
    """A lease is of 2 s. `python -m tests.support.stopped_redis 30` does the same for as long as it is told."""
    assert "40 shares, 10000 cents" in await rain_over_a_stop(tmp_path, 2.5)


async def test_a_rolling_restart_keeps_rooms_and_refuses_nobody(tmp_path: Path) -> None:
    async with redis_server(*AOF) as redis, shared_processes(3, redis, tmp_path) as shared:
        async with open_client(shared.url, "dev:host:host") as host, open_client(shared.url, "dev:ann") as ann:
            room, watched = await host.join("live"), await ann.join("live")
            await room.post(MessageType.ANNOUNCEMENT, ("之前",))
            await until_text(watched, "之前")
            refused: list[str] = []
            connected = 0

            async def connect_always() -> None:
                nonlocal connected
                while True:
                    try:
                        async with await trio.open_tcp_stream("127.0.0.1", shared.supervisor.port):
                            connected += 1
                    except OSError as error:
                        refused.append(str(error))
                    await trio.sleep(0.005)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect_always)
                shared.supervisor.signal(signal.SIGHUP)
                await shared.until_logged("rolling restart done")
                nursery.cancel_scope.cancel()
            assert (refused, connected > 0) == ([], True)
            assert len(shared.pids) == 6
            with trio.fail_after(120):
                while True:
                    outcome = await room.post(MessageType.ANNOUNCEMENT, ("之后",))
                    if outcome.offset:
                        break
                    await trio.sleep(0.1)
            await until_text(watched, "之后")
        async with open_client(shared.url, "dev:eve") as eve:
            resumed = await eve.join("live")
            assert resumed.snapshot is not None


async def test_one_process_with_an_engine_is_a_node_that_comes_back(tmp_path: Path) -> None:
    async with redis_server(*AOF) as redis:
        options = ["--data-dir", str(tmp_path), "--set", f"engine.url=unix://{redis.path}", "--set", "engine.node=a"]
        offsets = []
        for turn in range(2):
            async with serving(*options) as broker, open_client(broker.url, "dev:host:host") as host:
                room = await host.join("live")
                posted = await room.post(MessageType.ANNOUNCEMENT, (f"第 {turn} 次",))
                offsets.append(posted.offset)
        assert offsets == [1, 2]


async def test_an_engine_that_may_not_be_used_ends_the_start_with_what_to_do(tmp_path: Path) -> None:
    async with redis_server("--maxmemory-policy", "allkeys-lru") as redis:
        options = ["--port", "0", "--data-dir", str(tmp_path), "--set", f"engine.url=unix://{redis.path}"]
        for more in ([], ["--processes", "2"]):
            done = await roomcast("serve", *options, *more)
            assert (done.status, done.out) == (1, "")
            assert "maxmemory-policy noeviction" in done.err
            assert "Traceback" not in done.err
    late = ["--set", "engine.start_timeout_s=0.5"]
    done = await roomcast("serve", *options, *late)
    assert done.status == 1
    assert "has not answered for 0.5 s" in done.err
