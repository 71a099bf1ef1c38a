"""Users of the simulated world who change what a room keeps beside its stream: keys, pins, modes, and sanctions.

Each has a room of its own and is alone in changing it, one change after the other, each repeated under one idempotency
key until its result is known. So after every result the room's state is known exactly, and every JOIN must show it:
over kills, failed commits, restarts, rooms that crash and rooms that close because they are idle.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from broker.ledger import Reader as Ledger
from broker.rooms.key_records import StoredKeys, read_room_keys
from protocol.clients import CallLost, CallRefused, Client
from protocol.clients.events import Rejoined
from protocol.clients.room import JoinedRoom
from protocol.codes import ErrorCode, MessageType
from tests.simulation.actors import RETRY_S, Actors

__all__ = ["KEYS_ROOM", "MODES_ROOM", "PINS_ROOM", "Keeper", "Moderator", "Pinner"]

KEYS_ROOM, PINS_ROOM, MODES_ROOM = "room-of-keys", "room-of-pins", "room-of-modes"
NAMES = ("price", "名前", "left")
STEPS = 12
"""Changes of each."""
NOT_NOW = frozenset({ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED, ErrorCode.UNKNOWN_ROOM, ErrorCode.NOT_JOINED})
"""Refusals without an effect, after which the same call is made again."""
IDLE_S = 5.0
READ_S = 0.001
"""After a result: what came before it on the same link is read, and not compared with what the change has made."""


class _Changer:
    """A member that is alone in changing a room. ``is_known``: no change is under way."""

    def __init__(self, actors: Actors, token: str, name: str) -> None:
        self.actors = actors
        self.world = actors.world
        self.token = token
        self.name = name
        self.is_known = True
        self.is_done = False
        actors.remaining += 1

    async def run(self) -> None:
        """Make all changes; leave the room at times, so that it closes; then stay."""
        async with self.actors.client(self.token) as client:
            left = STEPS
            while True:
                room = await self.actors.join(client, self.name)
                assert room.snapshot is not None
                self.check(room.snapshot, "joined")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, room)
                    for _ in range(min(left, self.world.rng.randint(1, 5))):
                        await self.world.pause(2.0)
                        left -= 1
                        self.is_known = False
                        await self.change(client, STEPS - left)
                        await trio.sleep(READ_S)
                        self.is_known = True
                    if not left:
                        if not self.is_done:
                            self.is_done = True
                            self.actors.remaining -= 1
                        await trio.sleep_forever()
                    await room.leave()
                    nursery.cancel_scope.cancel()
                await self.world.pause(IDLE_S)

    async def _read(self, room: JoinedRoom) -> None:
        async for event in room:
            if isinstance(event, Rejoined) and not event.recovered:  # a recovered RESUME has the events instead
                self.check(event.snapshot, "rejoined")

    async def call(self, client: Client, operation: str, key: str, **fields: Any) -> Any:
        """Call until there is a result, or a refusal that a repetition does not change, which is returned."""
        while True:
            try:
                return await client.call(operation, key=key or None, timeout_s=RETRY_S, room=self.name, **fields)
            except (trio.TooSlowError, CallLost):
                self.world.trace("call again", operation, key)
            except CallRefused as refusal:
                self.world.trace("refused", operation, key, refusal.code, refusal.field)
                if refusal.code not in NOT_NOW:
                    return refusal
                await trio.sleep(max(0.2, refusal.retry_after_ms / 1000))

    async def change(self, client: Client, step: int) -> None:
        """Make one change, and know its result."""
        raise NotImplementedError

    def check(self, snapshot: Any, when: str) -> None:
        """Compare what a JOIN shows with what was acknowledged. Any: `Joined`."""
        raise NotImplementedError


class Keeper(_Changer):
    """Sets and deletes keys, mostly by compare-and-set."""

    def __init__(self, actors: Actors) -> None:
        super().__init__(actors, "dev:keeper:host", KEYS_ROOM)
        self.keys: dict[str, tuple[Any, int]] = {}
        """Value and version of each key, as they were acknowledged."""
        self.versions: dict[str, int] = {}
        """The highest version that each name has had."""
        self.ever: set[tuple[str, int, int]] = set()
        """Name, version and step of each value that was acknowledged."""

    def check(self, snapshot: Any, when: str) -> None:
        """Compare the keys, unless one is being changed."""
        if self.is_known and not snapshot.keys_more:
            shown = {key.name: (key.value, key.version) for key in snapshot.keys}
            assert shown == self.keys, f"{when} {self.name}: {shown}, acknowledged were {self.keys}"
            self.world.count_event("keys compared", when)

    def check_ledger(self, path: Path) -> None:
        """Check that the ledger has exactly the keys that were acknowledged."""
        ledger = Ledger(path)
        try:
            stored = read_room_keys(ledger).get(self.name, StoredKeys())
        finally:
            ledger.close()
        found = {key.name: (key.value, key.version) for key in stored.keys}
        assert found == self.keys, f"the ledger has {found}, acknowledged were {self.keys}"

    def check_restored(self, snapshot: Any) -> None:
        """Check that a restored broker, whose ledger may be older, shows only what was acknowledged once."""
        shown = {(key.name, key.version, key.value["step"]) for key in snapshot.keys}
        assert shown <= self.ever, f"restored were {shown - self.ever}, which were never acknowledged"
        self.world.count_event("restored keys compared")

    async def change(self, client: Client, step: int) -> None:
        """Set or delete a key; at times with a version that it does not have, which must be refused."""
        rng = self.world.rng
        name = rng.choice(NAMES)
        known = self.keys.get(name)
        version = rng.choice((None, 0 if known is None else known[1], 0 if known is None else known[1]))
        if rng.random() < 0.2:
            wrong = self.versions.get(name, 0) + 1 if known is None or rng.random() < 0.5 else 0
            await self._expect_stale(client, name, wrong, step)
        elif known is not None and rng.random() < 0.3:
            await self._make(
                client, "keys.delete", step, lambda result: self._deleted(name), name=name, version=version
            )
        else:
            value = {"step": step, "text": "." * rng.choice((0, 100))}
            await self._make(
                client, "keys.set", step, lambda result: self._set(name, value, result.version),
                name=name, value=value, version=version,
            )  # fmt: skip

    async def _make(
        self, client: Client, operation: str, step: int, on_result: Callable[[Any], None], **fields: Any
    ) -> None:
        """Make one change. STALE: an earlier try of it is under way, or the room has crashed with it."""
        for _ in range(100):
            result = await self.call(client, operation, f"step {step}", **fields)
            if not isinstance(result, CallRefused):
                on_result(result)
                self.world.count_event(f"{operation} acknowledged")
                return
            if result.code == ErrorCode.KEY_REUSED:  # it was done, and what came of it is not kept any more
                await self._read_back(client, fields["name"])
                return
            assert result.code == ErrorCode.STALE, (operation, step, result)
            await trio.sleep(0.5)
        raise AssertionError(f"{operation} {step} {fields}: stale, and nothing else changes {self.keys}")

    async def _expect_stale(self, client: Client, name: str, version: int, step: int) -> None:
        result = await self.call(client, "keys.set", f"wrong {step}", name=name, value="wrong", version=version)
        assert isinstance(result, CallRefused), f"{name} was set at version {version}, it has {self.keys.get(name)}"
        assert result.code == ErrorCode.STALE, result
        self.world.count_event("stale version refused")

    async def _read_back(self, client: Client, name: str) -> None:
        while True:
            try:
                page = await client.call("keys.get", timeout_s=RETRY_S, room=self.name, names=(name,))
            except (trio.TooSlowError, CallRefused):
                await trio.sleep(0.5)
                continue
            self.keys.pop(name, None)
            for key in page.items:
                self._set(name, key.value, key.version)
            return

    def _set(self, name: str, value: Any, version: int) -> None:
        assert version > self.versions.get(name, 0), f"version {version} of {name} after {self.versions[name]}"
        self.keys[name] = value, version
        self.versions[name] = version
        self.ever.add((name, version, value["step"]))

    def _deleted(self, name: str) -> None:
        self.keys.pop(name, None)


class Pinner(_Changer):
    """Pins and unpins messages, and deletes events that are pinned."""

    def __init__(self, actors: Actors) -> None:
        super().__init__(actors, "dev:pinner:host", PINS_ROOM)
        self.pinned: dict[str, str] = {}
        """Text of each pinned message by its id."""

    def check(self, snapshot: Any, when: str) -> None:
        """Compare what is pinned, unless it is being changed."""
        if self.is_known:
            self._compare(snapshot.pinned, when)
            self.world.count_event("pins compared", when)

    def _compare(self, pinned: Any, when: str) -> None:
        shown = {pin.id: pin.payload[0] for pin in pinned}
        assert shown == self.pinned, f"{when} {self.name}: {shown}, acknowledged were {self.pinned}"

    async def change(self, client: Client, step: int) -> None:
        """Pin a message of its own under one of three ids, or unpin one."""
        rng = self.world.rng
        id, text = rng.choice(("a", "b", "c")), f"step {step}"
        if id in self.pinned and rng.random() < 0.5:
            result = await self.call(client, "messages.unpin", text, id=id)
            if isinstance(result, CallRefused):  # an earlier try of it had its effect
                assert (result.code, result.field) == (ErrorCode.BAD_FIELD, "id"), result
            del self.pinned[id]
        else:
            result = await self.call(
                client, "messages.pin", text, id=id, type=int(MessageType.ANNOUNCEMENT), payload=(text,)
            )
            assert not isinstance(result, CallRefused), result
            self.pinned[id] = text
        if not isinstance(result, CallRefused):
            self._compare(result.pinned, "acknowledged in")
        self.world.count_event("pins changed")


class Moderator(_Changer):
    """Sets modes of its room, and mutes and bans a user there. What it repeats has the same effect."""

    def __init__(self, actors: Actors) -> None:
        super().__init__(actors, "dev:moderator:host", MODES_ROOM)
        self.modes = {"slow_s": 0, "emote_only": False}
        self.sanctions: set[str] = set()
        """Names of what is in force."""

    def check(self, snapshot: Any, when: str) -> None:
        """Compare the modes, unless they are being changed."""
        if self.is_known:
            shown = next((view.data for view in snapshot.activities if view.kind == "moderation"), None)
            found = {name: getattr(shown, name) for name in self.modes} if shown else {"slow_s": 0, "emote_only": False}
            assert found == self.modes, f"{when} {self.name}: {found}, acknowledged were {self.modes}"
            self.world.count_event("modes compared", when)

    async def change(self, client: Client, step: int) -> None:
        """Compare the sanctions; then set modes, or set or lift a sanction."""
        page = await self.call(client, "moderation.list", "", user="target")
        assert not isinstance(page, CallRefused), page
        found = {each.verb.name.lower() for each in page.items}
        assert found == self.sanctions, f"sanctions are {found}, acknowledged were {self.sanctions}"
        rng = self.world.rng
        if rng.random() < 0.5:
            self.modes = {"slow_s": step, "emote_only": rng.random() < 0.5}
            result = await self.call(client, "moderation.set_modes", "", **self.modes)
        else:
            name = rng.choice(("mute", "ban"))
            if lifts := name in self.sanctions:
                self.sanctions.discard(name)
            else:
                self.sanctions.add(name)
            result = await self.call(client, f"moderation.{'un' if lifts else ''}{name}", "", user="target")
        assert not isinstance(result, CallRefused), result
        self.world.count_event("moderated")
