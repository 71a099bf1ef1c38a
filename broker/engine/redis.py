"""The engine over Redis or Valkey: see `broker.engine.base.Engine` for what each method promises.

Three links a node: one for beats, claims, reads and messages, one for appends (which WAIT may hold up), one for
subscriptions; of a Cluster, three to each master. Every write that must be atomic is a script; one that the server does
not know is sent once more with its source, which is safe since a second run of each is refused or changes nothing.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import hiredis
import structlog
import trio

from broker.config.redis_url import Address
from broker.engine.base import (
    CONTROL_KEPT_MS,
    Appended,
    AppendResult,
    ControlEntry,
    EngineError,
    EngineLinkState,
    EngineListener,
    EngineRefused,
    EngineStatus,
    EngineUnavailable,
    Fenced,
    Granted,
    Held,
    KeysKnown,
    KeyWrite,
    KnownKey,
    LogItem,
    Misplaced,
    NodeBirth,
    NodeRecord,
    OutboxItem,
    OwnerRecord,
    RoomCheckpointRecord,
    StoredLogItem,
    StoredOutboxItem,
    check_append,
)
from broker.engine.channels import RedisChannels
from broker.engine.cluster import ClusterLink, ClusterTopology, slot_of
from broker.engine.connecting import connector, hello_commands, server_connector
from broker.engine.durability import (
    ReplicaWait,
    ServerFacts,
    durability_problem,
    facts_of,
    promise_of,
    server_problem,
    worst_facts,
)
from broker.engine.link import Command, RedisLink, Reply, ScriptUnknown, SlotElsewhere, error_of
from broker.engine.redis_records import (
    RedisNames,
    append_arguments,
    fenced_of,
    known_key,
    log_items,
    outbox_items,
    owner_of,
    pack_checkpoint,
    stored_facts,
    unpack_checkpoint,
)
from broker.engine.redis_settings import RedisSettings
from broker.engine.redis_users import RedisUsers
from broker.engine.scripts import all_scripts

__all__ = ["RedisEngine"]

log = structlog.get_logger("roomcast.engine")

STATUS_EVERY_S = 5.0
ABSENT_EVERY_S = 3.0
"""How often the log names a server that has never answered."""
NOWHERE: Address = ("", 0)
"""Of a server that has no address: it listens on a Unix socket."""
_NO_OWNER = OwnerRecord("", 0, 0, 0, b"", False)


class RedisEngine(RedisUsers):
    """The engine of one node over a Redis or Valkey server."""

    def __init__(self, settings: RedisSettings, node: str, rng: random.Random | None = None) -> None:
        self._settings = settings
        self._node = node
        self._names = RedisNames(settings.prefix)
        self._scripts = all_scripts()
        files = settings.tls_ca, settings.tls_cert
        self._connect = connector(settings.url, *files)
        self._connect_to = server_connector(settings.url, *files)
        self._limits = settings.links
        self._rng = rng or random.Random()
        self._listener: EngineListener | None = None
        self._facts: dict[Address, ServerFacts] = {}
        """What each server has said of itself."""
        self._reason = "it has not answered yet"
        self._down_since: float | None = None
        self._topology: ClusterTopology | None = None
        if settings.url.is_cluster:
            self._topology = ClusterTopology(settings.url.addresses, self._connect_to, self._hello)
        self._channels = RedisChannels(node, self._names, self._publish, self._doubt)
        self._commands = self._link("commands")
        self._appends = self._link("appends")
        self._subscriptions = self._link("subscriptions")
        self._links = (self._commands, self._appends, self._subscriptions)
        self._replicas: WeakKeyDictionary[RedisLink, ReplicaWait] = WeakKeyDictionary()
        self._is_up = False
        if self._topology is not None:
            self._topology.on_read.append(self._on_map)

    def _link(self, name: str) -> RedisLink | ClusterLink:
        topology = self._topology
        if topology is None:
            return self._link_to(name, self._settings.url.addresses[0] if self._settings.url.addresses else NOWHERE)
        return ClusterLink(name, topology, partial(self._link_to, name), self._limits.connect_timeout_s)

    def _link_to(self, name: str, address: Address) -> RedisLink:
        """Return a link to a server."""
        is_subscriptions = name == "subscriptions"

        def on_up(replies: Sequence[Reply]) -> None:
            self._on_link_up(link, replies)

        link = RedisLink(
            name,
            self._connect if self._topology is None else partial(self._connect_to, address),
            partial(self._handshake, name),
            on_up=on_up,
            on_down=lambda reason: self._on_down(link, reason),
            on_push=self._channels.take if is_subscriptions else lambda push: None,
            on_moved=self._on_moved if is_subscriptions and self._topology is not None else None,
            address=address,
            limits=self._limits,
            rng=self._rng,
        )
        return link

    @property
    def node(self) -> str:
        """Name of this node."""
        return self._node

    @property
    def status(self) -> EngineStatus:
        """State as it is known now; what the server says of itself is some seconds old."""
        if not self._facts:
            return EngineStatus(False, "", self._reason)
        facts = worst_facts(self._facts.values())
        reason = self._reason if not self._is_up else ""
        wanted = self._settings.wait_replicas
        if not reason and facts.replicas < wanted:
            reason = f"{facts.replicas} replicas are connected, and every append waits for {wanted}"
        promise = promise_of(facts, wanted)
        return EngineStatus(self._is_up, promise, reason, self._channels.lag_s, facts.used_bytes)

    # ---- the links

    async def run(
        self, listener: EngineListener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the links up until cancelled. EngineRefused: the server may not be used, at the first connection.

        EngineUnavailable: it has not answered in the time for the start.
        """
        self._listener = listener
        self._channels.attach(self._subscriptions, listener)
        settings = self._settings
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(settings.start_timeout_s):
                nursery.start_soon(self._report_absent)
                if self._topology is not None:
                    nursery.start_soon(self._topology.run)
                for link in self._links:  # one after the other: a refusal is logged once
                    await nursery.start(link.run)
            if not self._is_up:
                raise EngineUnavailable(
                    f"the engine has not answered for {settings.start_timeout_s:g} s: {settings.url}:"
                    f" {self._commands.reason}; start it, or correct engine.url (`roomcast doctor` tries it)"
                )
            nursery.start_soon(self._channels.measure)
            nursery.start_soon(self._watch_servers)
            task_status.started()

    async def _report_absent(self) -> None:
        """Log that the server does not answer, until it does for the first time."""
        while not self._facts:
            await trio.sleep(ABSENT_EVERY_S)
            if not self._facts:
                log.warning("engine has not answered yet", url=str(self._settings.url), why=self._commands.reason)

    def _hello(self, name: str = "topology") -> list[Command]:
        return hello_commands(self._settings.url, f"roomcast:{self._node}:{name}")

    def _handshake(self, name: str) -> Sequence[Command]:
        commands = self._hello(name)
        if name != "subscriptions":
            commands += (("SCRIPT", "LOAD", script.source) for script in self._scripts.values())
        if name == "commands":
            commands += (("INFO",), ("CONFIG", "GET", "appendfsync"))
        return commands

    def _on_link_up(self, link: RedisLink, replies: Sequence[Reply]) -> None:
        """Take the answers of the handshake. EngineRefused: this server may not be used."""
        if link.name == "commands":
            self._check(replies[:-1])  # the right to read the configuration may be missing
            self._check_server(link, *replies[-2:])
        else:
            self._check(replies)
        self._on_up()
        if link.name == "subscriptions":
            self._channels.subscribe_all(link)

    def _check_server(self, link: RedisLink, info: Reply, config: Reply) -> None:
        settings = self._settings
        facts = self._take_facts(link, info, config)
        where = settings.url if self._topology is None else "{}:{}".format(*link.address)
        wrong = server_problem(facts, allow_eviction=settings.allow_eviction, in_cluster=settings.url.is_cluster)
        wrong = wrong or durability_problem(facts, settings.durability)
        if wrong is not None:
            raise EngineRefused(f"{where}: {wrong.detail}: {wrong.remedy}")
        if not facts.is_primary:
            self._doubt()
            raise EngineUnavailable(f"{where} is a replica")

    def _on_up(self) -> None:
        if not self._is_up and all(link.is_up for link in self._links):
            self._is_up = True
            since = self._down_since
            words = "" if since is None else f"it was down for {trio.current_time() - since:.1f} s"
            self._down_since = None
            log.info("engine answers", url=str(self._settings.url), detail=words)
            if self._listener is not None:
                self._listener.link_changed(EngineLinkState.UP, words)

    def _check(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise error_of(reply)

    def _on_down(self, link: RedisLink, reason: str) -> None:
        if self._topology is not None:
            self._topology.doubt()
            if link.address not in self._topology.masters:
                return
            reason = reason and "{}:{}: {}".format(*link.address, reason)
        self._reason = reason
        if self._is_up:
            self._is_up = False
            self._down_since = trio.current_time()
            if reason:  # else this node ends
                log.warning("engine does not answer", url=str(self._settings.url), why=reason)
            if self._listener is not None:
                self._listener.link_changed(EngineLinkState.DOWN, reason)

    def _take_facts(self, link: RedisLink, info: Reply, config: Reply) -> ServerFacts:
        known = {} if isinstance(config, Exception) else config
        facts = self._facts[link.address] = facts_of(info, known)
        return facts

    async def _watch_servers(self) -> None:
        """Ask what the servers say of themselves, now and then."""
        while True:
            await trio.sleep(STATUS_EVERY_S)
            for link in self._command_links():
                try:
                    info = await link.request("INFO")
                    try:
                        config = await link.request("CONFIG", "GET", "appendfsync")
                    except EngineRefused:
                        config = {}
                    self._take_facts(link, info, config)
                except EngineError as error:
                    self._reason = str(error)

    def _command_links(self) -> Sequence[RedisLink]:
        return self._commands.links() if isinstance(self._commands, ClusterLink) else (self._commands,)

    # ---- a Cluster

    def _doubt(self) -> None:
        if self._topology is not None:
            self._topology.doubt()

    def _on_moved(self, elsewhere: SlotElsewhere) -> None:
        """Take that a subscription was refused, for another server has its slot."""
        self._channels.lose(lambda channel: slot_of(channel) == elsewhere.slot)
        self._doubt()

    def _on_map(self, changed: frozenset[int]) -> None:
        """Take that the map of the Cluster was read."""
        masters = {link.address for link in self._command_links()}
        self._facts = {address: facts for address, facts in self._facts.items() if address in masters}
        if changed:
            self._channels.lose(lambda channel: slot_of(channel) in changed)
        self._channels.subscribe_lost()
        self._on_up()

    async def _run(
        self, name: str, keys: Sequence[str | bytes], *arguments: str | bytes | int
    ) -> Any:  # Any: what the script answers
        """Run a script."""
        return (await self._run_on(self._commands, name, keys, *arguments))[0]

    async def _run_on(
        self, links: RedisLink | ClusterLink, name: str, keys: Sequence[str | bytes], *arguments: str | bytes | int
    ) -> tuple[Any, RedisLink]:  # Any: what the script answers
        """Run a script; return also over which link it was answered."""
        script = self._scripts[name]
        try:
            return await links.exchange("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except ScriptUnknown:
            log.debug("engine script loaded", script=name)
            return await links.exchange("EVAL", script.source, len(keys), *keys, *arguments)

    async def _wait_replicas(self, link: RedisLink) -> None:
        """Return when the replicas have what was written over a link. OutcomeUnknown: not in time."""
        settings = self._settings
        waiting = self._replicas.get(link)
        if waiting is None:
            waiting = self._replicas[link] = ReplicaWait(link, settings.wait_replicas, settings.wait_timeout_s)
        await waiting.wait()

    # ---- nodes

    async def born(self, body: bytes) -> NodeBirth:
        """See `Engine.born`."""
        names, incarnation = self._names, secrets.token_hex(8)
        keys = (names.lineage, names.nodes, names.node_prefix + self._node)
        lineage, now = await self._run(
            "born",
            keys,
            self._node,
            names.node_prefix,
            incarnation,
            body,
            self._settings.node_ttl_ms,
            secrets.token_hex(8),
        )
        name, _, since = lineage.decode().partition(" ")
        return NodeBirth(incarnation, name, int(now) - int(since))

    async def beat(self, incarnation: str, body: bytes) -> bool:
        """See `Engine.beat`."""
        key = self._names.node_prefix + self._node
        return bool(await self._run("beat", (key,), incarnation, body, self._settings.node_ttl_ms))

    async def leave(self, incarnation: str) -> None:
        """See `Engine.leave`."""
        await self._run("leave", (self._names.node_prefix + self._node,), incarnation)

    async def nodes(self) -> tuple[NodeRecord, ...]:
        """See `Engine.nodes`."""
        found = await self._run("nodes", (self._names.nodes,), self._names.node_prefix)
        pairs = zip(found[::2], found[1::2], strict=True)
        return tuple(sorted(NodeRecord(name.decode(), said[:16].decode(), said[16:]) for name, said in pairs))

    # ---- ownership

    async def owner(self, room: str) -> OwnerRecord | None:
        """See `Engine.owner`."""
        fields = ("node", "fence", "last", "f", "note", "state")
        return owner_of(await self._commands.request("HMGET", self._names.room(room, "own"), *fields))

    async def claim(
        self, room: str, seen_fence: int, marker: LogItem, *, floor_fence: int = 0, floor_offset: int = 0
    ) -> Granted | Held:
        """See `Engine.claim`."""
        keys = [self._names.room(room, part) for part in ("own", "log", "fct", "ckp")]
        lane, kind, at_ms, body = marker
        reply = await self._run(
            "claim", keys, self._node, seen_fence, floor_fence, floor_offset, lane or 0, kind, at_ms, body
        )
        if reply[0] == b"OWN":
            return Granted(int(reply[1]), int(reply[2]), int(reply[3]), reply[4] == b"1")
        return Held(owner_of(reply[1:]) or _NO_OWNER)

    async def release(self, room: str, fence: int) -> Fenced | None:
        """See `Engine.release`."""
        return fenced_of(await self._run("release", (self._names.room(room, "own"),), self._node, fence))

    async def note(self, room: str, fence: int, note: bytes) -> Fenced | None:
        """See `Engine.note`."""
        return fenced_of(await self._run("note", (self._names.room(room, "own"),), self._node, fence, note))

    # ---- logs

    async def append(
        self,
        room: str,
        fence: int,
        last_offset: int,
        last_fact: int,
        items: Sequence[LogItem],
        outbox: Sequence[OutboxItem] = (),
        keys: Sequence[KeyWrite] = (),
        *,
        ends: bool = False,
    ) -> AppendResult:
        """See `Engine.append`."""
        check_append(items, outbox, keys)
        names = self._names
        if outbox:  # before the first report: a room that was left alone with reports is found by this
            await self._mark_outbox(room)
        reply, link = await self._run_on(
            self._appends,
            "append",
            [
                *(names.room(room, part) for part in ("own", "log", "fct", "out")),
                *(names.key(room, key.digest) for key in keys),
            ],
            self._node,
            fence,
            last_offset,
            last_fact,
            self._settings.log_length,
            int(ends),
            len(items),
            len(outbox),
            *append_arguments(items, outbox, keys),
        )
        match reply[0]:
            case b"OK":
                if self._settings.wait_replicas:
                    await self._wait_replicas(link)
                return Appended(int(reply[1]), int(reply[2]))
            case b"PLACE":
                return Misplaced(int(reply[1]), int(reply[2]))
            case b"KNOWN":
                pairs = zip(reply[1::2], reply[2::2], strict=True)
                return KeysKnown({keys[index - 1].digest: known_key(value) for index, value in pairs})
            case _:
                return Fenced(owner_of(reply[1:]))

    async def _mark_outbox(self, room: str) -> None:
        """Count a report of a room before it is written. Servers of a Cluster keep no order among them: wait there."""
        mark = ("ZINCRBY", self._names.outbox_rooms, 1, room)
        if isinstance(self._appends, ClusterLink):
            await self._appends.request(*mark)
        else:
            self._appends.submit(mark)

    async def read_log(self, room: str, fence: int, offset: int, count: int) -> Sequence[StoredLogItem]:
        """See `Engine.read_log`."""
        start = f"({fence}-{offset}"
        return log_items(
            await self._commands.request("XRANGE", self._names.room(room, "log"), start, "+", "COUNT", count)
        )

    async def read_newest(self, room: str, count: int) -> Sequence[StoredLogItem]:
        """See `Engine.read_newest`."""
        key = self._names.room(room, "log")
        return log_items(await self._commands.request("XREVRANGE", key, "+", "-", "COUNT", count))[::-1]

    async def read_facts(self, room: str, number: int, count: int) -> Sequence[StoredLogItem]:
        """See `Engine.read_facts`."""
        key = self._names.room(room, "fct")
        return stored_facts(await self._commands.request("XRANGE", key, f"{number + 1}-0", "+", "COUNT", count))

    async def resume(self, room: str, fence: int, offset: int, count: int) -> Sequence[StoredLogItem] | None:
        """See `Engine.resume`."""
        reply = await self._run("resume", (self._names.room(room, "log"),), f"{fence}-{offset}", count)
        return None if reply == 0 else log_items(reply)

    async def known_keys(self, room: str, digests: Sequence[bytes]) -> Mapping[bytes, KnownKey]:
        """See `Engine.known_keys`."""
        if not digests:
            await trio.lowlevel.checkpoint()
            return {}
        values = await self._commands.request("MGET", *(self._names.key(room, digest) for digest in digests))
        pairs = zip(digests, values, strict=True)
        return {digest: known_key(value) for digest, value in pairs if value is not None}

    async def write_checkpoint(self, room: str, checkpoint: RoomCheckpointRecord) -> Fenced | None:
        """See `Engine.write_checkpoint`."""
        keys = [self._names.room(room, part) for part in ("own", "ckp", "fct")]
        first = f"{checkpoint.fact + 1}-0"
        return fenced_of(
            await self._run("checkpoint", keys, self._node, checkpoint.fence, pack_checkpoint(checkpoint), first)
        )

    async def read_checkpoint(self, room: str) -> RoomCheckpointRecord | None:
        """See `Engine.read_checkpoint`."""
        value = await self._commands.request("GET", self._names.room(room, "ckp"))
        return None if value is None else unpack_checkpoint(value)

    async def remove_facts(self, room: str, fence: int, numbers: Sequence[int]) -> Fenced | None:
        """See `Engine.remove_facts`."""
        keys = [self._names.room(room, part) for part in ("own", "fct")]
        ids = [f"{number}-0" for number in numbers]
        return fenced_of(await self._run("remove_facts", keys, self._node, fence, *ids))

    # ---- reports

    async def outbox_rooms(self, count: int) -> tuple[str, ...]:
        """See `Engine.outbox_rooms`."""
        if count < 1:
            return ()
        rooms = await self._commands.request("ZRANGE", self._names.outbox_rooms, 0, count - 1)
        return tuple(room.decode() for room in rooms)

    async def read_outbox(self, room: str, after: str, count: int) -> Sequence[StoredOutboxItem]:
        """See `Engine.read_outbox`."""
        start = f"({after}" if after else "-"
        key = self._names.room(room, "out")
        return outbox_items(await self._commands.request("XRANGE", key, start, "+", "COUNT", count))

    async def remove_outbox(self, room: str, fence: int, ids: Sequence[str]) -> Fenced | None:
        """See `Engine.remove_outbox`."""
        names = self._names
        score = await self._commands.request("ZSCORE", names.outbox_rooms, room)
        keys = [names.room(room, part) for part in ("own", "out")]
        reply = await self._run("remove_outbox", keys, self._node, fence, *ids)
        if reply[0] == b"OK" and reply[1] == 0 and score is not None:
            await self._run("unmark", (names.outbox_rooms,), room, f"{score:.0f}")
        return fenced_of(reply)

    async def bind_order(self, digest: bytes, room: str, ttl_ms: int) -> str:
        """See `Engine.bind_order`."""
        known = await self._commands.request("SET", self._names.order(digest), room, "NX", "GET", "PX", max(ttl_ms, 1))
        return room if known is None else known.decode()

    # ---- channels

    def _publish(self, channel: str, body: bytes) -> bool:
        try:
            self._commands.submit(("SPUBLISH", channel, body))
        except EngineUnavailable:
            return False
        return True

    def publish_room(self, room: str, body: bytes) -> bool:
        """See `Engine.publish_room`."""
        return self._publish(self._names.room(room, "t"), body)

    def publish_node(self, node: str, body: bytes) -> bool:
        """See `Engine.publish_node`."""
        return self._publish(self._names.node_channel(node), body)

    def subscribe_room(self, room: str) -> None:
        """See `Engine.subscribe_room`."""
        self._channels.subscribe(room)

    def unsubscribe_room(self, room: str) -> None:
        """See `Engine.unsubscribe_room`."""
        self._channels.unsubscribe(room)

    # ---- control stream

    async def post_control(self, body: bytes) -> str:
        """See `Engine.post_control`."""
        name: bytes = await self._run("post_control", (self._names.control,), body, CONTROL_KEPT_MS)
        return name.decode()

    async def read_control(self, after: str, count: int) -> Sequence[ControlEntry]:
        """See `Engine.read_control`."""
        start = f"({after}" if after else "-"
        entries = await self._commands.request("XRANGE", self._names.control, start, "+", "COUNT", count)
        return tuple(ControlEntry(name.decode(), body) for name, (_, body) in entries)

    async def last_control(self) -> str:
        """See `Engine.last_control`."""
        entries = await self._commands.request("XREVRANGE", self._names.control, "+", "-", "COUNT", 1)
        return entries[0][0].decode() if entries else ""
