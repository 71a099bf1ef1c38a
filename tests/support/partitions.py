"""Two brokers whose links to a real Redis are cut by a firewall, or are slow, in network namespaces of their own.

``python -m tests.support.partitions [both|questions|answers|slow]...`` runs those faults one after the other (all if
none is named) and prints what came of each; it needs root or user namespaces, nft, ip and tc.

The brokers are in one namespace and the server in another, with a veth pair between them. The server has an address for
each broker, so that a rule drops what one of them sends, is sent, or both. Buyers take shares of a red packet and a
host announces at both brokers all the while. Checked for each fault:

- all shares are the total together, each user has one, and whoever asks again, at any broker, has the same answer;
- what was acknowledged is in the room's log, once, and the numbers and fences of the log never fall (`violations`);
- chat of the viewers of the broker that is cut off goes on;
- both brokers go on with the room afterwards, as the processes that they were.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio

from broker.engine.base import StoredLogItem
from broker.engine.redis import RedisEngine
from broker.engine.redis_settings import RedisSettings
from broker.ledger import Entry
from broker.rooms.submissions import read_submission
from protocol.clients import Client, Danmaku, Gap, JoinedRoom, StreamEvent, open_client
from protocol.codes import MessageType, Outcome
from tests.support.engine_processes import grab_share
from tests.support.engines import Heard
from tests.support.processes import Serving, serving
from tests.support.redis_server import PATIENT, RedisServer, redis_server

__all__ = ["FAULTS", "Acknowledged", "in_own_namespace", "violations"]

FAULTS = ("both", "questions", "answers", "slow")
"""Both ways, and one way each, of the owner of the room; and a link of 1 Mbit/s for all."""
NODES = ("a", "b")
ROOM = "live"
PORT = 6379
DEADLINE_S = 120
MEET_S = 2
USERS = 22
"""At each broker."""
AOF = ("--appendonly", "yes", "--appendfsync", "always")


def in_own_namespace(*command: str) -> list[str]:
    """Return the command line that runs a command in a network namespace of its own, as its root."""
    return ["unshare", "--net", *(() if os.geteuid() == 0 else ("--map-root-user",)), *command]


class Acknowledged(NamedTuple):
    """An announcement whose acknowledgement a client has received."""

    text: str
    offset: int


def violations(
    facts: Sequence[StoredLogItem], markers: Sequence[StoredLogItem], acknowledged: Sequence[Acknowledged]
) -> list[str]:
    """Check the history of a room: its facts, the entries with which its owners began, and what was acknowledged."""
    found = []
    fences = [each.fence for each in markers]
    if len(set(fences)) != len(fences):
        found.append("a fence is given twice")
    if fences != sorted(fences):
        found.append("the fence of an owner falls")
    if [each.fence for each in facts] != sorted(each.fence for each in facts):
        found.append("an owner has written after the next one had begun")
    if not {each.fence for each in facts} <= set(fences):
        found.append("a fence wrote that no owner had")
    numbers = [each.fact for each in facts]
    if numbers != sorted(set(numbers)):
        found.append("a number is given twice")
    entries = [item for fact in facts for item in read_submission(fact.body)[0] if isinstance(item, Entry)]
    events = [entry for entry in entries if entry.lane is not None]
    if len({event.epoch for event in events}) > 1:
        found.append("the stream has begun anew")
    for each in acknowledged:
        offsets = [offset for offset, event in enumerate(events, 1) if each.text.encode() in event.body]
        if offsets != [each.offset]:
            found.append(f"acknowledged at {each.offset}, and in the log at {offsets}: {each.text}")
    return found


def run(*command: str | int) -> None:
    """Run a command of the network to its end."""
    subprocess.run([str(each) for each in command], check=True)


class Wire:
    """The link between the brokers' namespace, which this process is in, and the server's."""

    def __init__(self, server: int) -> None:
        """Lay it. ``server``: id of the server's process."""
        own, parents = (os.readlink(f"/proc/{each}/ns/net") for each in ("self", os.getppid()))
        assert own != parents, "this would cut the links of the machine: see `in_own_namespace`"
        self._server = ("nsenter", "--target", server, "--net")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "brokers", "type", "veth", "peer", "name", "server")
        run("ip", "link", "set", "server", "netns", server)
        run("ip", "address", "add", "10.77.0.1/24", "dev", "brokers")
        run("ip", "link", "set", "brokers", "up")
        for node in NODES:
            run(*self._server, "ip", "address", "add", f"{self.address(node)}/24", "dev", "server")
        run(*self._server, "ip", "link", "set", "server", "up")
        run("nft", "add", "table", "inet", "faults")
        for chain in ("input", "output"):
            hook = f"{{ type filter hook {chain} priority 0; }}"
            run("nft", "add", "chain", "inet", "faults", chain, hook)

    @staticmethod
    def address(node: str) -> str:
        """Return the address that the server has for a broker."""
        return f"10.77.0.{2 + NODES.index(node)}"

    def cut(self, node: str, fault: str) -> None:
        """Drop what a broker sends (questions), is sent (answers), or both."""
        if fault != "answers":
            run("nft", "add", "rule", "inet", "faults", "output", "ip", "daddr", self.address(node), "drop")
        if fault != "questions":
            run("nft", "add", "rule", "inet", "faults", "input", "ip", "saddr", self.address(node), "drop")

    def slow_down(self) -> None:
        """Let 1 Mbit/s through, each way."""
        limit = ("root", "tbf", "rate", "1mbit", "burst", "16kb", "latency", "400ms")
        run("tc", "qdisc", "add", "dev", "brokers", *limit)
        run(*self._server, "tc", "qdisc", "add", "dev", "server", *limit)

    def heal(self) -> None:
        """Let everything through."""
        run("nft", "flush", "table", "inet", "faults")
        for place, device in (((), "brokers"), (self._server, "server")):
            command = [str(each) for each in (*place, "tc", "qdisc", "del", "dev", device, "root")]
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)


class Watcher:
    """A host at one broker, who chats, and notes what it sees of the room."""

    def __init__(self, client: Client, room: JoinedRoom) -> None:
        self.client = client
        self.room = room
        self.seen: list[str] = []
        self.gaps: list[Gap] = []
        self._changed = trio.Event()

    async def watch(self) -> None:
        """Note what comes, until cancelled."""
        async for event in self.room:
            if isinstance(event, Danmaku):
                self.seen.append(event.payload[0])
            elif isinstance(event, StreamEvent) and event.type == MessageType.ANNOUNCEMENT:
                self.seen.append(event.payload[0])
            elif isinstance(event, Gap):
                self.gaps.append(event)
            self._changed.set()
            self._changed = trio.Event()

    async def until_seen(self, text: str) -> None:
        """Wait until a text has come."""
        with trio.fail_after(DEADLINE_S):
            while text not in self.seen:
                await self._changed.wait()

    async def chat(self, text: str) -> None:
        """Post a danmaku until it is accepted, and see it."""
        with trio.fail_after(DEADLINE_S):
            while (await self.room.post_danmaku(text)).outcome is not Outcome.ACCEPTED:  # noqa: ASYNC110 - the room has no event
                await trio.sleep(0.1)
        await self.until_seen(text)


class Cluster:
    """The brokers, the server and the link between them."""

    def __init__(self, redis: RedisServer, wire: Wire, brokers: dict[str, Serving], hosts: dict[str, Watcher]) -> None:
        self.redis = redis
        self.wire = wire
        self.brokers = brokers
        self.hosts = hosts
        self.acknowledged: list[Acknowledged] = []

    async def owner(self) -> str:
        """Return the broker that owns the room, as the server has it."""
        node = await self.redis.ask("HGET", f"rc:{{{ROOM}}}:own", "node")
        return "" if node is None else node.decode()

    async def announce(self, node: str, name: str) -> None:
        """Announce again and again, until cancelled; what is acknowledged is noted."""
        number = 0
        while True:
            text = f"{name}-{node}-{number:04}|"
            result = await self.hosts[node].room.post(MessageType.ANNOUNCEMENT, (text,), client_msg_id=text)
            if result.outcome is Outcome.ACCEPTED:
                self.acknowledged.append(Acknowledged(text, result.offset))
                number += 1
            await trio.sleep(0.05)

    async def meet(self, node: str, text: str) -> None:
        """Chat at one broker until both hosts see it: a broker that comes back has chat from then on."""
        with trio.fail_after(DEADLINE_S):
            number, is_seen = 0, False
            while not is_seen:
                number += 1
                await self.hosts[node].chat(f"{text}, {number}")
                with trio.move_on_after(MEET_S):
                    for host in self.hosts.values():
                        await host.until_seen(f"{text}, {number}")
                    is_seen = True

    async def history(self) -> tuple[Sequence[StoredLogItem], Sequence[StoredLogItem]]:
        """Return the facts of the room, and the entries with which its owners began."""
        async with trio.open_nursery() as nursery:
            engine = RedisEngine(RedisSettings(self.redis.url, links=PATIENT), "checker")
            await nursery.start(engine.run, Heard())
            found = await engine.read_facts(ROOM, 0, 100_000), await engine.read_log(ROOM, 0, 0, 100_000)
            nursery.cancel_scope.cancel()
        return found


@asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[Cluster]:
    """Start all of it, with a host at each broker."""
    listening = ("--port", str(PORT), "--bind", "0.0.0.0", "--protected-mode", "no")
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server(*AOF, *listening, prefix=in_own_namespace()))
        assert redis.process is not None
        wire = Wire(redis.process.pid)
        await redis.make_old()
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        brokers, hosts = {}, {}
        for node in NODES:
            settings = (
                f"engine.url=redis://{wire.address(node)}:{PORT}",
                f"engine.node={node}",
                "engine.durability=always",
                "admission.address_share=1",
            )
            sets = [part for setting in settings for part in ("--set", setting)]
            brokers[node] = await stack.enter_async_context(serving("--data-dir", str(directory / node), *sets))
            nursery.start_soon(read_lines, brokers[node])
        for node, broker in brokers.items():
            client = await stack.enter_async_context(open_client(broker.url, f"dev:host-{node}:host"))
            hosts[node] = Watcher(client, await client.join(ROOM))
            nursery.start_soon(hosts[node].watch)
        yield Cluster(redis, wire, brokers, hosts)


async def read_lines(broker: Serving) -> None:
    """Read the log lines of a broker, so that it can go on writing them."""
    try:
        while True:
            await broker.err.next()
    except (EOFError, trio.ClosedResourceError):
        return


async def rain_over(found: Cluster, fault: str, more_s: float = 0.0) -> str:
    """Share a packet out while a fault lasts, for ``more_s`` longer than it needs; return what came of it."""
    before, packet = await found.owner(), f"p-{fault}"
    other = NODES[1 - NODES.index(before)]
    pids = {node: broker.process.pid for node, broker in found.brokers.items()}
    shares: dict[str, int] = {}
    async with open_client(found.brokers[before].url, "dev:shop:app") as shop:
        await shop.call(
            "packets.create", room=ROOM, id=packet, order_id=packet, total_cents=10_000, count=40, key=packet
        )
    async with trio.open_nursery() as announcing:
        for node in NODES:
            announcing.start_soon(found.announce, node, fault)
        async with trio.open_nursery() as buyers:

            def grab(names: str, count: int) -> None:
                for node in NODES:
                    for number in range(count):
                        user = f"{names}-{node}-{number}"
                        buyers.start_soon(partial(grab_share, packet=packet), found.brokers[node], user, ROOM, shares)

            grab(f"{fault}-early", 3)
            with trio.fail_after(DEADLINE_S):
                while len(shares) < 6:  # noqa: ASYNC110 - the users have no event
                    await trio.sleep(0.01)
            if fault == "slow":
                found.wire.slow_down()
            else:
                found.wire.cut(before, fault)
            grab(f"{fault}-late", USERS - 3)
            begun = trio.current_time()
            for number in range(4):
                await found.hosts[before].chat(f"{fault} {number}")
                await trio.sleep(0.3)
            with trio.fail_after(DEADLINE_S):
                while fault != "slow" and await found.owner() != other:  # noqa: ASYNC110 - the server has no event
                    await trio.sleep(0.01)
            taken_s = trio.current_time() - begun
            await trio.sleep(more_s)
            if fault != "slow":
                await found.hosts[other].chat(f"{fault} at the next owner")
                found.wire.heal()
        got = {user: cents for user, cents in shares.items() if cents}
        assert (len(got), sum(got.values())) == (40, 10_000), shares
        for at in NODES:  # both go on, in one room
            await found.meet(at, f"{fault} is over at {at}")
        found.wire.heal()
        announcing.cancel_scope.cancel()
    again: dict[str, int] = {}
    async with trio.open_nursery() as nursery:
        for user in shares:  # at the other broker
            broker = found.brokers[NODES[1 - NODES.index(user.split("-")[2])]]
            nursery.start_soon(partial(grab_share, packet=packet), broker, user, ROOM, again)
    assert again == shares
    facts, markers = await found.history()
    wrong = violations(facts, markers, found.acknowledged)
    assert not wrong, wrong
    assert pids == {node: broker.process.pid for node, broker in found.brokers.items()}
    assert all(broker.process.poll() is None for broker in found.brokers.values())
    for host in found.hosts.values():
        for each in found.acknowledged:
            await host.until_seen(each.text)
        assert not host.gaps
    after = await found.owner()
    moved = "no room moved" if after == before else f"{after} owned the room after {taken_s:.1f} s"
    return f"{fault}: {len(got)} shares, 10000 cents, {len(found.acknowledged)} announcements kept; {moved}"


async def main(faults: Sequence[str], more_s: float) -> None:
    """Run the faults one after the other, and print what came of each."""
    with tempfile.TemporaryDirectory(prefix="roomcast-partitions-") as name:
        async with cluster(Path(name)) as found:
            for fault in faults:
                print(await rain_over(found, fault, more_s), flush=True)


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin"
    if sys.argv[1:2] != ["--inside"]:
        command = in_own_namespace(sys.executable, "-m", "tests.support.partitions", "--inside", *sys.argv[1:])
        os.execvp(command[0], command)
    names = [each for each in sys.argv[2:] if each in FAULTS]
    seconds = next((float(each) for each in sys.argv[2:] if each not in FAULTS), 0.0)
    trio.run(main, names or FAULTS, seconds)
