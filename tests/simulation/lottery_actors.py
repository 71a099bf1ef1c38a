"""A lottery of the simulated world: its platform, and users who enter it by a call or by a message with its keyword.

An entry that was acknowledged is drawn from, and no other; the proof that the broker gives is verified with what was
seen while the lottery ran; each winner gets its prize once, and no other user gets one. A lottery whose times a leap of
the clock has put far away is voided.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from protocol.activities import ActivityEvent
from protocol.activities.eligibility import Eligibility
from protocol.activities.lotteries import LotteryPrize
from protocol.clients import CallRefused, Client
from protocol.clients.room import JoinedRoom
from protocol.codes import ErrorCode
from protocol.json_values import as_json
from protocol.lottery.proof import verify
from protocol.lottery.terms import LotteryGrade
from protocol.messages import Direct
from protocol.operations.lotteries import (
    CreateLottery,
    EnterLottery,
    GetLotteryProof,
    GetMyLotteryEntry,
    LotteryProofPage,
    MyLotteryEntry,
    VoidLottery,
)
from tests.simulation.actors import RETRY_S, Actors

__all__ = ["Raffle"]

GRADES = (LotteryGrade("first", 1),)
KEYWORD = "我要中奖"
DRAWN_WITHIN_S = 60.0
"""After that a leap of the clock has put the draw far away."""
READ_S = 0.5

Call = Callable[..., Awaitable[Any]]
"""Calls an operation until there is a result, or a refusal that a repetition does not change, which it returns."""


class Raffle:
    """One lottery in a room. ``call``: as `Call`; ``users``: those who will enter."""

    def __init__(self, actors: Actors, room: str, users: tuple[str, ...], call: Call) -> None:
        self.actors = actors
        self.world = actors.world
        self.room = room
        self.id = ""
        self.entries: dict[str, str] = {}
        """Entries by user, of those who were told that they have one."""
        self.mine: dict[str, MyLotteryEntry | None] = {}
        """What each user has in the end."""
        self.prizes: dict[str, list[str]] = {user: [] for user in users}
        """Entries that have won, by the messages that each user got."""
        self.proof: LotteryProofPage | None = None
        self._commitment = ""
        self._call = call
        self._created = trio.Event()
        self._is_over = trio.Event()

    # ---- the platform

    async def run(self, platform: Client) -> None:
        """Create the lottery, and wait for its proof."""
        await self._create(platform)
        self._created.set()
        page: Any = None
        proof = GetLotteryProof(self.room, self.id)
        with trio.move_on_after(DRAWN_WITHIN_S):
            page = await self._call(platform, proof)
        if page is None:
            voided = await self._call(platform, VoidLottery(self.room, self.id, "it takes too long"))
            if isinstance(voided, CallRefused):
                assert voided.code == ErrorCode.CLOSED, voided
                page = await self._call(platform, proof)
        assert not isinstance(page, CallRefused), page
        self.proof = page
        self.world.count_event("lottery voided" if page is None else "lottery drawn", self.id)
        self._is_over.set()

    async def _create(self, platform: Client) -> None:
        number = 0
        while not self._commitment:
            number += 1
            self.id = f"lottery-{number}"
            open_at_ms = self._now_ms() + 1000
            created = await self._call(
                platform,
                CreateLottery(
                    self.room, self.id, open_at_ms, open_at_ms + self.world.rng.randint(1000, 8000), GRADES,
                    is_blind=self.world.rng.random() < 0.5, eligibility=Eligibility(keyword=KEYWORD),
                ),
            )  # fmt: skip
            if isinstance(created, CallRefused):  # it took too long to say it
                assert (created.code, created.field) == (ErrorCode.BAD_FIELD, "open_at_ms"), created
            else:
                self._commitment = created.commitment

    def _now_ms(self) -> int:
        """Return the time of the broker."""
        broker_run = self.actors.broker_run
        return self.world.wall_ms() if broker_run is None else broker_run.broker.clock.now_ms()

    # ---- users

    async def take_part(self, user: str, client: Client, room: JoinedRoom) -> None:
        """Enter the lottery, wait for its end, and for the prize if there is one."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, user, client)
            await self._created.wait()
            if self.world.rng.random() < 0.5:
                await self._enter_by_call(user, client)
            else:
                await self._enter_by_message(user, client, room)
            await self._is_over.wait()
            mine = await self._my_entry(client)
            if user in self.entries:
                assert mine is not None, f"the entry of {user} is lost"
                assert mine.entry == self.entries[user], f"{user} has two entries"
            self.mine[user] = mine
            while mine is not None and mine.prize and not self.prizes[user]:  # noqa: ASYNC110 - another task reads
                await trio.sleep(READ_S)
            await trio.sleep(READ_S)
            nursery.cancel_scope.cancel()

    async def _read(self, user: str, client: Client) -> None:
        async for event in client.events():
            if isinstance(event, Direct) and isinstance(event.payload, ActivityEvent):
                if isinstance(event.payload.data, LotteryPrize):
                    self.prizes[user].append(event.payload.data.entry)
                    self.world.count_event("prize received", user)

    async def _enter_by_call(self, user: str, client: Client) -> None:
        for _ in range(2):
            entered = await self._call(client, EnterLottery(self.room, self.id, KEYWORD))
            if isinstance(entered, CallRefused):
                assert entered.code == ErrorCode.CLOSED, entered
                return
            self._entered(user, entered.entry, "by call")

    async def _enter_by_message(self, user: str, client: Client, room: JoinedRoom) -> None:
        """Post the keyword until there is an entry: neither a danmaku nor the entry that it makes is acknowledged."""
        while not self._is_over.is_set():
            await room.post_danmaku(KEYWORD, timeout_s=RETRY_S)
            await trio.sleep(READ_S)
            mine = await self._my_entry(client)
            if mine is not None:
                self._entered(user, mine.entry, "by message")
                return

    def _entered(self, user: str, entry: str, how: str) -> None:
        assert self.entries.setdefault(user, entry) == entry, f"{user} has two entries"
        self.world.count_event(f"entered {how}", user)

    async def _my_entry(self, client: Client) -> MyLotteryEntry | None:
        mine = await self._call(client, GetMyLotteryEntry(self.room, self.id))
        if isinstance(mine, CallRefused):
            assert mine.code == ErrorCode.UNKNOWN_CLAIM, mine
            return None
        assert isinstance(mine, MyLotteryEntry)
        return mine

    # ---- the end

    def check(self) -> None:
        """Check proof and prizes."""
        winners: dict[str, list[str]] = {user: [] for user in self.prizes}
        if self.proof is not None:
            entered = {mine.entry: user for user, mine in self.mine.items() if mine is not None}
            roots = {mine.root for mine in self.mine.values() if mine is not None}
            result = verify(as_json(self.proof), self._commitment, *roots)
            assert result.failure is None, result
            assert {id for id, _ in self.proof.entries} == entered.keys(), f"{self.proof.entries}, known are {entered}"
            for id in self.proof.winners[0]:
                winners[entered[id]].append(id)
        assert self.prizes == winners, f"prizes received are {self.prizes}, won were {winners}"
        won = {user: [mine.entry] if mine is not None and mine.prize else [] for user, mine in self.mine.items()}
        assert won == winners, f"the users see {won}, the proof {winners}"
