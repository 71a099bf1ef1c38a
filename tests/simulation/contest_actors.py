"""Two rooms of the simulated world in a PK: paid messages, and messages to a part of one of the rooms.

A paid message is one event, whatever is repeated, and counts once in the ranking and, at the right time, in the score.
Both rooms have the same result. A message to an audience reaches each fan once and nobody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from broker.core.commerce.kinds import activity_kinds
from broker.core.commerce.pk import PK_KEY, RESULT_MS
from broker.core.commerce.pk_half import PkHalf
from broker.ledger import Reader as Ledger
from broker.rooms.activity_records import read_all_activities
from protocol.activities.audiences import Audience, TagRule
from protocol.activities.pk import PkOutcome
from protocol.clients import CallRefused, Client
from protocol.clients.events import Gap, Rejoined, StreamEvent
from protocol.clients.room import JoinedRoom
from protocol.codes import TRY_AGAIN, ErrorCode, MessageType, Outcome
from protocol.frames import unpack_body
from protocol.operations.audiences import DefineAudiences, FollowHost, ShareRoom
from protocol.operations.messages import PublishMessage
from protocol.operations.pk import AnswerPk, EndPk, InviteToPk
from protocol.operations.rankings import GetRanking
from protocol.payloads import HighlightPayload
from tests.simulation.actors import Actors

__all__ = ["CONTEST_ROOMS", "Contest"]

CONTEST_ROOMS = FANS, RIVALS = "room-of-fans", "room-of-rivals"
PAID, NEWS, SHARES = 2, 3, 2
"""Paid messages and messages to fans in each room, and shares of each fan."""
ENDS_WITHIN_S = 60.0
"""After that a leap of the clock has put the end of the PK far away: it is given up."""
WAIT_S = 1.0
IN_MEMORY_S = 60.0
REVERSED = {PkOutcome.WON: PkOutcome.LOST, PkOutcome.LOST: PkOutcome.WON}

Call = Callable[..., Awaitable[Any]]
"""Calls an operation until there is a result, or a refusal that a repetition does not change, which it returns."""


class Contest:
    """The platform of both rooms, a fan and another viewer. ``call``: as `Call`."""

    def __init__(self, actors: Actors, call: Call) -> None:
        self.actors = actors
        self.world = actors.world
        self.paid: dict[str, list[int]] = {room: [] for room in CONTEST_ROOMS}
        """Cents of the paid messages that are acknowledged."""
        self.pks: list[str] = []
        self.news: list[str] = []
        """Texts to the fans that are acknowledged."""
        self.shown: dict[str, list[str]] = {"fan": [], "粉丝不是": []}
        """Texts that each viewer has received."""
        self.gaps: set[str] = set()
        """Viewers that have missed something, and were informed."""
        self._call = call
        self._is_fan = trio.Event()
        actors.remaining += 1

    async def run(self) -> None:
        """Let the fan follow, publish and begin a PK, and wait for its result."""
        async with self.actors.client("dev:contest:app") as platform, trio.open_nursery() as nursery:
            for room in CONTEST_ROOMS:
                await self._do(platform, DefineAudiences(room, (TagRule("fans", follow=True),)))
            nursery.start_soon(self._watch, "fan")
            nursery.start_soon(self._watch, "粉丝不是")
            await self._is_fan.wait()
            async with trio.open_nursery() as acting:
                acting.start_soon(self._publish_news, platform)
                acting.start_soon(self._compete, platform)
            await self._check_rankings(platform)
            self.actors.remaining -= 1
            self.world.count_event("contest ended")
            await trio.sleep_forever()

    # ---- messages to fans

    async def _watch(self, user: str) -> None:
        async with self.actors.client(f"dev:{user}") as client, trio.open_nursery() as nursery:
            room = await self.actors.join(client, FANS)
            nursery.start_soon(self._read, user, room)
            if user == "fan":
                await self._do(client, FollowHost(FANS))
                for number in range(SHARES):
                    await self._do(client, ShareRoom(FANS), f"share {number}")
                self._is_fan.set()
            await trio.sleep_forever()

    async def _read(self, user: str, room: JoinedRoom) -> None:
        async for event in room:
            if isinstance(event, Gap) or (isinstance(event, Rejoined) and not event.recovered):
                self.gaps.add(user)
            elif isinstance(event, StreamEvent) and event.type == MessageType.ANNOUNCEMENT:
                self.shown[user].append(event.payload.text)

    async def _publish_news(self, platform: Client) -> None:
        for number in range(NEWS):
            await self.world.pause(3.0)
            text = f"for fans {number}"
            await self._publish(
                platform, PublishMessage(FANS, MessageType.ANNOUNCEMENT, (text,), text, audience=Audience(("fans",)))
            )
            self.news.append(text)

    async def _publish(self, platform: Client, message: PublishMessage) -> None:
        """Publish until the message is in the stream."""
        while True:
            published = await self._do(platform, message)
            if published.outcome not in TRY_AGAIN:
                assert published.outcome is Outcome.ACCEPTED, published
                return
            await trio.sleep(max(0.2, (published.retry_after_ms or 0) / 1000))

    # ---- the PK

    async def _compete(self, platform: Client) -> None:
        """Begin a PK, pay in both rooms, and wait until both have its result."""
        pk = await self._begin(platform)
        async with trio.open_nursery() as paying:
            for room in CONTEST_ROOMS:
                paying.start_soon(self._pay, platform, room)
        ends_by = trio.current_time() + ENDS_WITHIN_S
        over: set[str] = set()
        while len(over) < len(CONTEST_ROOMS):
            for room in CONTEST_ROOMS:
                await self._do(platform, GetRanking(room, "gifts"))  # a room that has closed is opened
                if self._half(room, pk) is not None:
                    over.add(room)
            if trio.current_time() > ends_by:
                await self._call(platform, EndPk(FANS, pk))
            await trio.sleep(WAIT_S)

    async def _begin(self, platform: Client) -> str:
        """Invite and accept, until a PK runs."""
        while True:
            pk = f"pk-{len(self.pks) + 1}"
            self.pks.append(pk)
            invited = await self._call(platform, InviteToPk(FANS, pk, RIVALS, self.world.rng.randint(2000, 8000)))
            while not isinstance(invited, CallRefused):
                state = await self._call(platform, AnswerPk(RIVALS, pk, True))
                if not isinstance(state, CallRefused):
                    self.world.count_event("pk accepted", pk)
                    return pk
                if state.code != ErrorCode.UNKNOWN_ACTIVITY or self._half(FANS, pk) is not None:
                    break
                await trio.sleep(WAIT_S)
            await trio.sleep(RESULT_MS / 1000)

    async def _pay(self, platform: Client, room: str) -> None:
        for number in range(PAID):
            await self.world.pause(6.0)
            cents = self.world.rng.randint(500, 10_000)
            payload = HighlightPayload(f"paid {room} {number}", "fan", "Fan", "hello", cents)[:5]
            await self._publish(platform, PublishMessage(room, MessageType.HIGHLIGHT, payload))
            self.paid[room].append(cents)

    def _half(self, room: str, pk: str) -> PkHalf | None:
        """Return a room's half of a PK that is over; None: it is not, or the broker is not up."""
        broker_run = self.actors.broker_run
        found = None if broker_run is None or not broker_run.is_up else broker_run.broker.hub.find(room)
        activities = None if found is None else found.state.activities.activities
        return None if activities is None else _halves(activities.find(*PK_KEY)).get(pk)

    async def _check_rankings(self, platform: Client) -> None:
        conditions = self.world.conditions
        for room, cents in self.paid.items():
            if conditions.history_entries < 10 or conditions.history_s < IN_MEMORY_S:
                continue  # a score is made good after a crash by the events that are in memory
            ranked = (await self._do(platform, GetRanking(room, "gifts"))).ranking
            assert ranked.total == sum(cents), f"{room}: {ranked}, paid were {cents}"
        ranked = (await self._do(platform, GetRanking(FANS, "shares"))).ranking
        assert [(each.user, each.score) for each in ranked.top] == [("fan", SHARES)], ranked

    async def _do(self, client: Client, request: Any, key: str | None = None) -> Any:
        """Call what cannot be refused. Any: each operation has records of its own."""
        result = await self._call(client, request, key)
        assert not isinstance(result, CallRefused), (request, result)
        return result

    # ---- the end

    def unfinished(self) -> str | None:
        """Return what the fan has not received yet; None if it has all."""
        is_complete = "fan" in self.gaps or len(self.shown["fan"]) >= len(self.news)
        return None if is_complete else f"the fan has received {self.shown['fan']} of {self.news}"

    def check(self, path: Path) -> None:
        """Check what the viewers have received, the paid messages, and the halves of all PKs."""
        assert self.shown["粉丝不是"] == [], f"not for everybody: {self.shown}"
        missed = set(self.news) - set(self.shown["fan"])
        assert not missed or "fan" in self.gaps, f"the fan has not received {missed}"
        assert len(set(self.shown["fan"])) == len(self.shown["fan"]), f"twice: {self.shown}"
        ledger = Ledger(path)
        try:
            found = read_all_activities(ledger, activity_kinds(lambda: bytes(32)))
        finally:
            ledger.close()
        halves = {room: _halves(each.find(*PK_KEY)) for (room, _), each in found.items() if room in CONTEST_ROOMS}
        for pk in self.pks:
            first, second = halves[FANS].get(pk), halves[RIVALS].get(pk)
            if first is not None and second is not None and first.is_accepted and second.is_accepted:
                outcome = PkOutcome(first.outcome or 0)
                assert second.outcome == REVERSED.get(outcome, outcome), f"{first} and {second}"
                self.world.count_event(f"pk {outcome.name.lower()}", pk, first.score, second.score)
        for room in CONTEST_ROOMS:
            self._check_paid(room, halves[room])

    def _check_paid(self, room: str, halves: dict[str, PkHalf]) -> None:
        events = [
            unpack_body(written.body)
            for (name, _), stream in self.actors.disk.streams.items()
            if name == room
            for written in stream
            if written.kind == MessageType.HIGHLIGHT
        ]
        assert sorted(event[4][4] for event in events) == sorted(self.paid[room]), f"{events}, {self.paid}"
        for half in halves.values():
            if half.is_accepted:
                inside = [event for event in events if (half.starts_at_ms or 0) <= event[1] < (half.ends_at_ms or 0)]
                most = sum(event[4][4] for event in inside)
                assert half.score <= most, f"{half} counts more than {inside}"
                if half.score == most and most:
                    self.world.count_event("pk score complete", half.pk, most)


def _halves(pk: Any) -> dict[str, PkHalf]:
    """Return the halves of PKs that are over. Any: the activity, or None."""
    return {} if pk is None else dict(pk.dump()[2])
