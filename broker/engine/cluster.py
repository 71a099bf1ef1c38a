"""Servers of a Redis or Valkey Cluster: which of them has which slot, and a link that asks the right one.

A slot is found from the hash tag of a key. The map is read from every server that is known, and the one of the latest
epoch is believed: a server that is cut off from the others goes on with an old one. It is read anew every few seconds,
and at once where a server has refused a slot or a connection broke.
"""

from __future__ import annotations

import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog
import trio

from broker.config.redis_url import Address
from broker.engine.base import EngineError, EngineRefused, EngineUnavailable
from broker.engine.link import Command, RedisLink, Reply, ReplyHandler, SlotElsewhere, SlotInMotion, ask_once

__all__ = ["SLOTS", "ClusterLink", "ClusterMap", "ClusterTopology", "cluster_map", "key_of", "slot_of"]

log = structlog.get_logger("roomcast.engine")

SLOTS = 16_384
REFRESH_S = 5.0
"""How often the map is read where nothing has happened."""
REFRESH_DOWN_S = 0.5
"""How often it is read while a server is not connected: another one may get its slots."""
REFRESH_AGAIN_S = 0.2
"""The least time between two readings."""
ANSWER_S = 1.0
"""A server that does not answer in time is passed over."""
MAX_SERVERS = 64
"""Servers that are asked for the map."""
MAX_TURNS = 6
"""How often one request is sent, while its slot moves."""
IN_MOTION_S = 0.05
"""The pause before a request for keys that are being moved is sent again."""


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key or channel: of its hash tag where it has one."""
    data = key.encode() if isinstance(key, str) else key
    begin = data.find(b"{")
    if begin >= 0:
        end = data.find(b"}", begin + 1)
        if end > begin + 1:
            data = data[begin + 1 : end]
    return binascii.crc_hqx(data, 0) % SLOTS


def key_of(command: Command) -> str | bytes:
    """Return the key or channel by which a command is sent: the first of a script's, else its first argument."""
    key = command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]
    assert not isinstance(key, int)
    return key


class ClusterMap(NamedTuple):
    """The map as one server knows it. ``replicas``: other servers, which may become masters."""

    epoch: int
    by_slot: tuple[Address | None, ...]
    masters: tuple[Address, ...]
    replicas: tuple[Address, ...]


def cluster_map(info: bytes, slots: Sequence[Reply], asked: Address) -> ClusterMap:
    """Return the map in the answers to CLUSTER INFO and CLUSTER SLOTS of the server at ``asked``."""
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    values = {name: value for name, _, value in lines}
    by_slot: list[Address | None] = [None] * SLOTS
    masters: dict[Address, None] = {}
    replicas: dict[Address, None] = {}
    for first, last, *servers in slots:
        addresses = [((host or b"").decode() or asked[0], int(port)) for host, port, *_ in servers]
        by_slot[first : last + 1] = [addresses[0]] * (last + 1 - first)
        masters[addresses[0]] = None
        replicas.update(dict.fromkeys(addresses[1:]))
    return ClusterMap(int(values.get("cluster_current_epoch", "0")), tuple(by_slot), tuple(masters), tuple(replicas))


class ClusterTopology:
    """The map of a Cluster, which `run` keeps true.

    :param seeds: servers to ask at first.
    :param connect: opens a connection to a server.
    :param handshake: returns the commands that a connection begins with.
    """

    def __init__(
        self,
        seeds: Sequence[Address],
        connect: Callable[[Address], Awaitable[trio.abc.Stream]],
        handshake: Callable[[], Sequence[Command]],
    ) -> None:
        self._seeds = tuple(seeds)
        self._connect = connect
        self._handshake = handshake
        self._by_slot: list[Address | None] = [None] * SLOTS
        self.masters: frozenset[Address] = frozenset()
        """Servers that have slots."""
        self.reason = "no server of the Cluster has answered yet"
        """Why there is no map, or none that has every slot; "" = there is."""
        self._others: tuple[Address, ...] = ()
        self._doubted = trio.Event()
        self.on_read: list[Callable[[frozenset[int]], None]] = []
        """Each is called after the map was read, with the slots that have another server now."""
        self.are_up: list[Callable[[], bool]] = []
        """Each returns whether all servers of the map are connected."""

    def server_of(self, slot: int) -> Address | None:
        """Return the server that has a slot; None: that is not known."""
        return self._by_slot[slot]

    def doubt(self) -> None:
        """Read the map soon: something does not fit it."""
        self._doubted.set()

    def moved(self, slot: int, address: Address) -> None:
        """Take that a server has named another one for a slot, until the map is read."""
        self._by_slot[slot] = address
        if address not in self.masters:
            self.masters |= {address}
        self._tell(frozenset((slot,)))
        self.doubt()

    async def run(self) -> None:
        """Read the map now, where it is doubted, and every `REFRESH_S` or `REFRESH_DOWN_S`, until cancelled.

        EngineRefused: a server refuses the user or its rights, and no map was read before.
        """
        while True:
            self._doubted = trio.Event()
            await self._read()
            await trio.sleep(REFRESH_AGAIN_S)
            with trio.move_on_after(REFRESH_S if all(is_up() for is_up in self.are_up) else REFRESH_DOWN_S):
                await self._doubted.wait()

    async def _read(self) -> None:
        known = dict.fromkeys((*self.masters, *self._others, *self._seeds))
        found: list[ClusterMap] = []
        errors: list[Exception] = []

        async def read(address: Address) -> None:
            try:
                found.append(await self._ask(address))
            except (EngineError, OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for address in list(known)[:MAX_SERVERS]:
                nursery.start_soon(read, address)
        if found:
            self._take(max(found, key=lambda each: (each.epoch, len(each.masters))))
            return
        refusal = next((error for error in errors if isinstance(error, EngineRefused)), None)
        if refusal is not None and not self.masters:
            raise refusal
        self.reason = str(errors[0]) or "no server of the Cluster answers in time"

    async def _ask(self, address: Address) -> ClusterMap:
        with trio.fail_after(ANSWER_S):
            async with await self._connect(address) as stream:
                asked = [*self._handshake(), ("CLUSTER", "INFO"), ("CLUSTER", "SLOTS")]
                try:
                    *_, info, slots = await ask_once(stream, asked)
                except EngineError as error:
                    if "cluster support disabled" not in str(error):
                        raise
                    where = "{}:{}".format(*address)
                    raise EngineRefused(f"{where} is no server of a Cluster: engine.url = redis://{where}") from error
        return cluster_map(info, slots, address)

    def _take(self, read: ClusterMap) -> None:
        changed = frozenset(slot for slot in range(SLOTS) if self._by_slot[slot] != read.by_slot[slot])
        if changed:
            log.debug("cluster map changed", epoch=read.epoch, slots=len(changed), masters=len(read.masters))
        self._by_slot = list(read.by_slot)
        self.masters = frozenset(read.masters)
        self._others = read.replicas
        missing = read.by_slot.count(None)
        self.reason = f"{missing} slots of the Cluster have no server" if missing else ""
        self._tell(changed)

    def _tell(self, changed: frozenset[int]) -> None:
        for call in self.on_read:
            call(changed)


class ClusterLink:
    """What is one link to a single server, to every master of a Cluster: each command goes to the one that has its key.

    :param make: makes the link to a server.
    :param patience_s: how long a request waits for the first connection to a server that is new.
    """

    def __init__(
        self, name: str, topology: ClusterTopology, make: Callable[[Address], RedisLink], patience_s: float
    ) -> None:
        self.name = name
        self._topology = topology
        self._make = make
        self._patience_s = patience_s
        self._links: dict[Address, RedisLink] = {}
        self._scopes: dict[Address, trio.CancelScope] = {}
        self._opened: dict[Address, trio.Event] = {}
        """Set with the first connection to a server."""
        self._nursery: trio.Nursery | None = None
        self._progress = trio.Event()
        self._has_started = False
        topology.on_read.append(self._follow)
        topology.are_up.append(lambda: self.is_up)

    # ---- requests

    def links(self) -> tuple[RedisLink, ...]:
        """Return the link to each master."""
        return tuple(self._links.values())

    @property
    def is_up(self) -> bool:
        """Whether every slot has a server, and each of them is connected."""
        return not self._topology.reason and bool(self._links) and all(link.is_up for link in self._links.values())

    @property
    def reason(self) -> str:
        """Why it is not up."""
        return self._topology.reason or next((link.reason for link in self._links.values() if not link.is_up), "")

    def link_of(self, key: str | bytes) -> RedisLink | None:
        """Return the link to the server that has a key; None: there is none now."""
        address = self._topology.server_of(slot_of(key))
        return None if address is None else self._links.get(address)

    def reconnect(self, reason: str) -> None:
        """End all connections; others are opened."""
        for link in self._links.values():
            link.reconnect(reason)

    def submit(self, command: Command, on_reply: ReplyHandler | None = None) -> None:
        """Send a command; see `RedisLink.submit`. Where its slot has moved it is sent once more, to that server."""
        self._link(key_of(command)).submit(command, lambda reply: self._take(command, on_reply, reply))

    def _link(self, key: str | bytes) -> RedisLink:
        link = self.link_of(key)
        if link is None:
            self._topology.doubt()
            raise EngineUnavailable(f"no server of the Cluster has the slot {slot_of(key)}: {self._topology.reason}")
        return link

    def _take(self, command: Command, on_reply: ReplyHandler | None, reply: Reply) -> None:
        if isinstance(reply, SlotElsewhere) and not reply.is_once:
            self._topology.moved(reply.slot, reply.address)
            try:
                self._link(key_of(command)).submit(command, on_reply)
            except EngineUnavailable as error:
                reply = error
            else:
                return
        if on_reply is not None:
            on_reply(reply)

    async def request(self, *command: str | bytes | int) -> Reply:
        """Send a command and return its answer. Raises the `EngineError` of a refusal."""
        return (await self.exchange(*command))[0]

    async def exchange(self, *command: str | bytes | int) -> tuple[Reply, RedisLink]:
        """Send a command; return its answer, and the link over which it came."""
        key = key_of(command)
        once: Address | None = None
        error: EngineError = EngineUnavailable("the slot moves between servers")
        for _ in range(MAX_TURNS):
            address = once or self._topology.server_of(slot_of(key))
            link = await self._link_to(key, address)
            try:
                if once is not None:
                    link.submit(("ASKING",))  # concerns the command behind it
                once = None
                return await link.request(*command), link
            except SlotElsewhere as elsewhere:
                error = elsewhere
                if elsewhere.is_once:
                    once = elsewhere.address
                    self._open(once)
                else:
                    self._topology.moved(elsewhere.slot, elsewhere.address)
            except SlotInMotion as moving:
                error = moving
                await trio.sleep(IN_MOTION_S)
        raise EngineUnavailable(f"the engine moves what this needs: {error}")

    async def _link_to(self, key: str | bytes, address: Address | None) -> RedisLink:
        opened = None if address is None else self._opened.get(address)
        if opened is not None and not opened.is_set():
            with trio.move_on_after(self._patience_s):
                await opened.wait()
        link = None if address is None else self._links.get(address)
        return self._link(key) if link is None else link

    # ---- the links

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a link to every master until cancelled; started once all are up. EngineRefused: by one of them."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._follow(frozenset())
            while not self.is_up:
                self._progress = trio.Event()
                await self._progress.wait()
            self._has_started = True
            task_status.started()
            await trio.sleep_forever()

    def _follow(self, changed: frozenset[int]) -> None:
        """Open links to masters that are new, and end those to servers that are none any more."""
        if self._nursery is None:
            return
        masters = self._topology.masters
        for address in [each for each in self._links if each not in masters]:
            del self._links[address], self._opened[address]
            self._scopes.pop(address).cancel()
        for address in masters:
            self._open(address)
        self._progress.set()

    def _open(self, address: Address) -> None:
        if address not in self._links and self._nursery is not None:
            self._links[address], self._opened[address] = self._make(address), trio.Event()
            self._scopes[address] = trio.CancelScope()
            self._nursery.start_soon(self._keep, address, self._links[address], self._opened[address])

    async def _keep(self, address: Address, link: RedisLink, opened: trio.Event) -> None:
        with self._scopes[address]:
            while True:
                try:
                    async with trio.open_nursery() as nursery:
                        await nursery.start(link.run)
                        opened.set()
                        self._progress.set()
                except* EngineRefused as group:
                    if not self._has_started:
                        raise
                    log.error("a server of the Cluster refuses this broker", why=str(group.exceptions[0]))
                await trio.sleep(REFRESH_S)
