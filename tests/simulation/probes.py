"""Probes of the simulated world: scripted clients that try what the rules forbid, after the last fault.

A probe is a function of a `Prober`. It sends frames over raw links and checks the answers. A link may still end for a
reason that the probe does not cause (a restart, an overloaded broker); then the whole probe runs again, in rooms and
with users of its own, at most `ATTEMPTS` times. A broken rule is an AssertionError and ends the world.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import trio

from broker.ledger import Committed, DirectState, LedgerResult, LedgerState, SubmitResult
from broker.server import Broker
from protocol.clients import PipeLost
from protocol.codes import CloseCode, ErrorCode, MessageType, Outcome, RoomPhase, Tier
from protocol.frames import unpack_body
from protocol.messages import (
    AckResult,
    Direct,
    DirectAck,
    ErrorReply,
    Join,
    Leave,
    Left,
    Post,
    Resume,
)
from protocol.payloads import GiftPayload
from tests.simulation.actors import EXPIRY_LATE_MS, Actors
from tests.simulation.broker import CHAT_TYPE, DIRECT_TYPE
from tests.simulation.raw import LinkEnded, RawLink
from tests.simulation.world import TEN_YEARS_S, World, credential
from tests.support.websocket import JSON_UPGRADE

__all__ = ["STREAM_PROBES", "Prober", "run_probes"]

ATTEMPTS = 12
PROBE_S = 120.0
"""Virtual seconds for one attempt."""
LATE_S = EXPIRY_LATE_MS / 1000
DAYS_40_MS = 40 * 86_400_000


class Prober:
    """One attempt of a probe: names of its own, links and the running broker."""

    def __init__(self, world: World, actors: Actors, name: str, attempt: int) -> None:
        self.world = world
        self.actors = actors
        self._prefix = f"{name}-{attempt}"
        self._attempt = attempt

    def room(self, part: str = "a") -> str:
        """Return the name of a room of this attempt."""
        return f"probe-{self._prefix}-{part}"

    def address(self, number: int) -> str:
        """Return an address of this attempt, which no other client has."""
        return f"203.0.{self._attempt}.{number}"

    def user(self, part: str) -> str:
        """Return the id of a user of this attempt."""
        return f"{part} {self._prefix}"

    @property
    def broker(self) -> Broker:
        """The running broker; `LinkEnded` if there is none, or its ledger is not ready."""
        run = self.actors.broker_run
        if (
            run is None
            or not run.is_up
            or run.broker.ledger is None
            or run.broker.ledger.state is not LedgerState.READY
        ):
            raise LinkEnded("the broker is not ready")
        return run.broker

    async def kill(self) -> None:
        """Kill the broker, and wait for the next one."""
        run = self.actors.broker_run
        assert run is not None
        run.kill()
        await self.until_up()

    async def until_up(self) -> None:
        """Wait until a broker accepts connections and commits."""
        with trio.fail_after(60.0):
            while True:
                try:
                    assert self.broker
                except LinkEnded:
                    await trio.sleep(0.5)
                else:
                    return

    def token(self, user: str, role: str = "viewer", **claims: Any) -> str:
        """Return the token of a user of this attempt."""
        return credential(self.world, f"dev:{self.user(user)}:{role}", **claims)

    @asynccontextmanager
    async def connect(self, source: str = "", *, is_json: bool = False) -> AsyncIterator[RawLink]:
        """Open a link without HELLO."""
        link = RawLink(await self.actors.open_pipe(source), is_json=is_json)
        try:
            yield link
        finally:
            with trio.CancelScope(shield=True):
                await link.aclose()

    @asynccontextmanager
    async def link(
        self, user: str, role: str = "viewer", *, source: str = "", is_json: bool = False
    ) -> AsyncIterator[RawLink]:
        """Open a link of a user that has logged in."""
        async with self.connect(source, is_json=is_json) as link:
            if is_json:
                head = await link.upgrade(JSON_UPGRADE.replace(b"Host: x", b"Host: localhost"))
                assert head.startswith(b"HTTP/1.1 101"), head
            await link.login(self.token(user, role))
            yield link

    async def post(self, link: RawLink, room: int, kind: int, payload: Any, key: str = "") -> AckResult:
        """Post until the result is not LIMITED or UNAVAILABLE; `LinkEnded` if there is none in time."""
        for _ in range(20):
            sequence = link.sequence()
            await link.send((Post(kind, key, payload), room, sequence))
            with trio.move_on_after(20.0):
                while sequence not in link.acks:
                    await link.next_frame()
            results = link.acks.pop(sequence, [])
            if not results:
                break
            if results[0].outcome not in (Outcome.LIMITED, Outcome.UNAVAILABLE):
                return results[0]
            await link.collect(max(0.1, results[0].detail / 1000))
        raise LinkEnded("the post has no result")

    async def send_direct(self, user: str, text: str, expires_ms: int) -> int:
        """Send a message to a user; return its number when it is durable."""
        done = trio.Event()
        results: list[LedgerResult] = []

        def on_done(result: LedgerResult) -> None:
            results.append(result)
            done.set()

        inboxes = self.broker.inboxes
        assert inboxes is not None
        expires_at_ms = self.broker.clock.now_ms() + expires_ms
        if inboxes.send(user, DIRECT_TYPE, text, on_done, expires_at_ms=expires_at_ms) is not SubmitResult.QUEUED:
            raise LinkEnded("the ledger is full")
        with trio.move_on_after(20.0):
            await done.wait()
        if not results or not isinstance(results[0], Committed):
            raise LinkEnded("the message is not durable")
        return results[0].direct_ids[0]

    def events(self, room: str, epoch: int, kind: MessageType) -> list[tuple[int, Any]]:
        """Return offset and payload of a stream's events of one type, as they are on the disk."""
        stream = self.actors.disk.streams.get((room, epoch), [])
        found = [(offset, unpack_body(written.body)) for offset, written in enumerate(stream, 1)]
        return [(offset, body[4]) for offset, body in found if body[0] == kind]


Probe = Callable[[Prober], Awaitable[None]]


async def run_probes(world: World, actors: Actors, probes: dict[str, Probe]) -> None:
    """Run the probes that the conditions name, one after the other."""
    for name in world.conditions.probes:
        for attempt in range(ATTEMPTS):
            try:
                with trio.fail_after(PROBE_S):
                    prober = Prober(world, actors, name, attempt)
                    await prober.until_up()
                    await probes[name](prober)
            except (LinkEnded, PipeLost, trio.TooSlowError) as error:
                world.trace("probe again", name, repr(error))
                failure = error
                await trio.sleep(1.0)
            else:
                world.count_event(f"probe {name}")
                break
        else:
            raise AssertionError(f"probe {name} was interrupted {ATTEMPTS} times, at last by {failure!r}")


# ---- messages have a bounded size


async def probe_snapshot(p: Prober) -> None:
    """A room with many large danmaku is joined and resumed."""
    if p.world.conditions.critical_bytes < 1 << 20 or p.world.conditions.link_bytes < 1 << 16:
        return  # the queue of a link is smaller than a snapshot
    name = p.room()
    async with p.link("writer", "host") as writer:
        room, _ = await writer.join(name)
        for number in range(20):
            await p.post(writer, room, CHAT_TYPE, f"{number} " + "x" * 3900)
            await writer.collect(0.2)
        async with p.link("reader") as reader:
            _, snapshot = await reader.join(name)
            assert len(snapshot.recent) > 1, "the snapshot has no danmaku"
            assert snapshot.is_recent_cut, "80 kB are not above the budget"


async def probe_combos(p: Prober) -> None:
    """Gifts of one combo are more than one combo may count; none is dropped."""
    name, orders = p.room(), [p.room(f"order-{number}") for number in range(12)]
    async with p.link("viewer", "host") as viewer, p.link("shop", "app") as shop:
        await viewer.join(name)
        room, snapshot = await shop.join(name)
        pending = dict.fromkeys(orders, 0)
        for _ in range(20):
            for order in pending:
                gift = GiftPayload(order, "giver", "Giver", "rocket", 90_000, 100)
                pending[order] = shop.sequence()
                await shop.send((Post(MessageType.GIFT, "", gift), room, pending[order]))
            await shop.collect(6.0)
            pending = {order: sequence for order, sequence in pending.items() if not _is_accepted(shop, sequence)}
            if not pending:
                break
        else:
            raise LinkEnded("not all gifts are acknowledged")
        gifts = [GiftPayload(*payload) for _, payload in p.events(name, snapshot.epoch, MessageType.GIFT)]
        assert sum(gift.count for gift in gifts) == 90_000 * len(orders), gifts
        assert max(gift.total for gift in gifts) <= 1_000_000, "a combo above the range of its count"


def _is_accepted(link: RawLink, sequence: int) -> bool:
    """Return whether a post was accepted, alone or as part of a combo."""
    return any(result.outcome in (Outcome.ACCEPTED, Outcome.MERGED) for result in link.acks.get(sequence, ()))


# ---- keys


async def probe_keys(p: Prober) -> None:
    """A key names one operation of one user, and an order is one order in all rooms."""
    names = p.room("a"), p.room("b")
    async with p.link("host", "host") as host, p.link("shop", "app") as shop:
        (first, snapshot), (_, other_room) = await host.join(names[0]), await host.join(names[1])
        assert (await p.post(host, first, MessageType.ANNOUNCEMENT, ("one",), "k")).outcome is Outcome.ACCEPTED
        paused = await p.post(host, first, MessageType.ROOM_PHASE, (RoomPhase.PAUSED,), "k")
        assert paused.outcome is Outcome.ACCEPTED, "another type under the same id is another operation"
        phases = p.events(names[0], snapshot.epoch, MessageType.ROOM_PHASE)
        assert [offset for offset, _ in phases] == [paused.detail], "the phase is not in the stream"
        other = await p.post(host, first, MessageType.ANNOUNCEMENT, ("two",), "k")
        assert other[1:] == (Outcome.REJECTED, ErrorCode.KEY_REUSED), other
        numbers = [(await shop.join(name))[0] for name in names]
        gift = GiftPayload(p.room("order"), "giver", "Giver", "rose", 1, 100)
        results = [await p.post(shop, number, MessageType.GIFT, gift) for number in numbers]
        assert results[0].outcome is Outcome.ACCEPTED, results
        assert not p.events(names[1], other_room.epoch, MessageType.GIFT), f"an order in two rooms: {results}"
        for number, changed in zip(numbers, (gift._replace(count=2), gift._replace(user_id="payer")), strict=True):
            reused = await p.post(shop, number, MessageType.GIFT, changed)
            assert reused[1:] == (Outcome.REJECTED, ErrorCode.KEY_REUSED), reused
    await p.kill()
    async with p.link("host", "host") as host:  # now the ledger answers
        room, _ = await host.join(names[0])
        again = await p.post(host, room, MessageType.ROOM_PHASE, (RoomPhase.PAUSED,), "k")
        assert again[1:] == paused[1:], f"a repeated key after a restart: {again}, at first {paused}"
        other = await p.post(host, room, MessageType.ANNOUNCEMENT, ("two",), "k")
        assert other[1:] == (Outcome.REJECTED, ErrorCode.KEY_REUSED), other
    kind = int(MessageType.ANNOUNCEMENT)
    async with p.link("u", "host") as one, p.link(f"u {p.user('')[1:]} {kind}", "host") as two:
        name = p.room("c")
        (room, _), (same, _) = await one.join(name), await two.join(name)
        # Joined by spaces, "u X" with the id "4 X 4 z" is "u X 4 X" with the id "z".
        suffix = p.user("")[1:]
        results = [
            await p.post(one, room, kind, ("text",), f"{suffix} {kind} {suffix} z"),
            await p.post(two, same, kind, ("text",), f"{suffix} z"),
        ]
        assert results[0].detail != results[1].detail, "one user's key is another user's"


async def probe_duplicates(p: Prober) -> None:
    """A text that was refused by the rate is not a duplicate when it is posted again."""
    async with p.link("talker") as talker, p.link("host", "host") as host:
        name = p.room()
        await host.join(name)
        room, _ = await talker.join(name)
        for number in range(10):
            sequence = talker.sequence()
            await talker.send((Post(MessageType.DANMAKU, "", (f"text {number}", None)), room, sequence))
        await talker.collect(1.0)
        refused = [seq for seq, results in talker.acks.items() if results[0].outcome is Outcome.LIMITED]
        assert refused, "no limit of danmaku for one user"
        again = await p.post(talker, room, MessageType.DANMAKU, (f"text {refused[0] - 2}", None))
        assert again.outcome is not Outcome.REJECTED, f"a text that was not shown is refused: {again}"


# ---- answers


async def probe_leave(p: Prober) -> None:
    """Every post has exactly one answer, also when its room is left in the same write."""
    async with p.link("leaver", "host") as link:
        room, _ = await link.join(p.room())
        posts = [
            (Post(MessageType.ANNOUNCEMENT, "", ("bye",)), room, link.sequence()),
            (Post(MessageType.DANMAKU, "", ("bye", None)), room, link.sequence()),
            (Post(MessageType.LIKE, "", (3,)), room, link.sequence()),
        ]
        await link.send(*posts, (Leave(), room, link.sequence()))
        frames = await link.collect(8.0)
        assert [frame for frame in frames if isinstance(frame.message, Left)], "LEAVE is not answered"
        counts = [len(link.acks.get(sequence, ())) for _, _, sequence in posts]
        assert counts == [1, 1, 1], f"answers to the posts: {counts}"


async def probe_json(p: Prober) -> None:
    """A JSON link gets the same events and danmaku as a binary one, and posts as it does."""
    name = p.room()
    async with p.link("web", is_json=True) as web, p.link("native", "host") as native:
        room, snapshot = await native.join(name)
        for text in ("first", "second", "third"):
            assert (await p.post(native, room, MessageType.ANNOUNCEMENT, (text,))).outcome is Outcome.ACCEPTED
        entered = await web.enter(Resume(name, Tier.FULL, snapshot.epoch, 1))
        if isinstance(entered, ErrorReply):
            raise LinkEnded(f"refused: {entered}")
        number, joined, _ = entered
        assert joined.epoch == snapshot.epoch
        assert (await p.post(native, room, MessageType.ANNOUNCEMENT, ("for all",))).outcome is Outcome.ACCEPTED
        await p.post(web, number, MessageType.DANMAKU, ("from the web", None))
        await web.collect(3.0)
        stream = p.actors.disk.streams[name, snapshot.epoch]
        for frame in web.events:
            assert tuple(frame.message) == tuple(unpack_body(stream[frame.sequence - 1].body)), frame
        offsets = [frame.sequence for frame in web.events]
        assert offsets == [2, 3, 4], f"{offsets} of {len(stream)}"


# ---- rooms that were ended


async def probe_ended(p: Prober) -> None:
    """An ended room stays ended for viewers, over a restart too, until staff open it."""
    name = p.room()
    async with p.link("host", "host") as host:
        room, snapshot = await host.join(name)
        result = await p.post(host, room, MessageType.ROOM_PHASE, (RoomPhase.ENDED,), "end")
        assert result.outcome is Outcome.ACCEPTED, result
        await host.collect(1.0)

    async def refused() -> None:
        async with p.link("viewer") as viewer:
            found = await viewer.enter(Join(name, Tier.FULL))
            assert isinstance(found, ErrorReply), "a viewer has opened an ended room"
            if found.code != ErrorCode.ROOM_ENDED:
                raise LinkEnded(str(found))

    await refused()
    await p.kill()
    if not p.world.happened["clock leaps"]:  # a restart may follow a clock that is beyond `room.reopen_ended_s`
        await refused()
    async with p.link("host", "host") as host, p.link("viewer") as viewer:
        _, again = await host.join(name)
        assert again.epoch != snapshot.epoch
        await viewer.join(name)


async def probe_likes(p: Prober) -> None:
    """Likes that were acknowledged some seconds ago survive a kill."""
    name = p.room()
    async with p.link("fan", "host") as fan:
        room, _ = await fan.join(name)
        result = await p.post(fan, room, MessageType.LIKE, (7,))
        await fan.collect(4.0)
        assert p.broker
    await p.kill()
    async with p.link("fan", "host") as fan:
        _, snapshot = await fan.join(name)
        assert snapshot.likes == result.detail, f"{snapshot.likes} likes are left of {result.detail}"


async def probe_staff(p: Prober) -> None:
    """Staff have a rate too."""
    async with p.link("mod", "moderator") as mod, p.link("host", "host") as host:
        name = p.room()
        await host.join(name)
        room, _ = await mod.join(name)
        for number in range(90):
            await mod.send((Post(MessageType.DANMAKU, "", (f"text {number}", None)), room, mod.sequence()))
        await mod.collect(4.0)
        outcomes = [result.outcome for results in mod.acks.values() for result in results]
        assert len(outcomes) == 90, f"{len(outcomes)} answers to 90 posts"
        assert Outcome.LIMITED in outcomes, "no limit for staff"


# ---- time


async def probe_expiry(p: Prober) -> None:
    """An expired message is not delivered; one that was delivered before it expired is acknowledged after."""
    late, shown = p.user("late"), p.user("shown")
    await p.send_direct(late, "too late", 3000)
    async with p.link("shown") as link:
        number = await p.send_direct(shown, "in time", 6000)
        _, message = await link.answer(Direct)
        assert message.direct_id == number
        await trio.sleep(6.001)
        await link.send((DirectAck(number), 0, 0))
        await link.collect(2.0)
        assert p.broker.inboxes is not None
        state = await p.broker.inboxes.state(shown, number)
        assert state is DirectState.ACKED, f"a message that was shown is {state}"
    await trio.sleep(LATE_S)
    async with p.link("late") as link:
        frames = [frame.message for frame in await link.collect(2.0) if isinstance(frame.message, Direct)]
        # Nothing expires while the clock is not trusted.
        assert not frames or p.broker.clock.distrust(), "an expired message is delivered"
        if frames:
            await link.send((DirectAck(frames[-1].direct_id), 0, 0))
            await link.collect(1.0)


async def probe_clock(p: Prober) -> None:
    """A wall clock that is wrong for some seconds removes no message, ends no link and expires no token."""
    absent, world, name = p.user("absent"), p.world, p.room()
    number = await p.send_direct(absent, "wait", 3_600_000)
    async with p.link("host", "host") as host:
        room, snapshot = await host.join(name)
        assert (await p.post(host, room, MessageType.ANNOUNCEMENT, ("kept",))).outcome is Outcome.ACCEPTED
        distrust = p.broker.clock.distrust()
        # After a restart under a wrong clock the broker's time may be any.
        lifetime_s = 600 if not world.happened["clock leaps"] else TEN_YEARS_S
        begin_ms = world.wall_ms() - world.wall_leap_ms
        world.wrong.append((begin_ms, inf))
        world.wall_leap_ms += DAYS_40_MS
        try:
            async with p.connect() as other:
                await other.login(p.token("short", lifetime_s=lifetime_s))
            await host.collect(12.0)
            if not world.conditions.development:
                async with p.connect() as other:
                    await other.login(p.token("short", lifetime_s=lifetime_s))
        except LinkEnded as ended:
            if ended.goaway is not None and ended.goaway.code in (CloseCode.AUTH_FAILED, CloseCode.TOKEN_EXPIRED):
                raise AssertionError(f"a token is judged by the wrong clock: {ended.goaway}") from ended
            raise
        finally:
            world.wall_leap_ms -= DAYS_40_MS
            world.wrong.remove((begin_ms, inf))
            world.wrong.append((begin_ms, world.wall_ms() - world.wall_leap_ms))
        await host.collect(2.0)
    if world.conditions.entries_s > 1000 and not distrust:
        assert p.actors.disk.stored_from(name, snapshot.epoch) == 1, "retention followed the wrong clock"
    async with p.link("absent") as link:
        found = [frame.message for frame in await link.collect(3.0) if isinstance(frame.message, Direct)]
        assert [message.direct_id for message in found] == [number], "a pending message was not delivered"
        await link.send((DirectAck(number), 0, 0))
        await link.collect(1.0)


STREAM_PROBES: dict[str, Probe] = {
    "clock": probe_clock,
    "combos": probe_combos,
    "duplicates": probe_duplicates,
    "ended": probe_ended,
    "expiry": probe_expiry,
    "json": probe_json,
    "keys": probe_keys,
    "leave": probe_leave,
    "likes": probe_likes,
    "snapshot": probe_snapshot,
    "staff": probe_staff,
}
