"""Mic-link in the demo: more buyers than seats speak one after another, and clients see who holds which seat."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from protocol.activities import ActivityEvent
from protocol.operations.mic import (
    AcceptMic,
    CancelMic,
    GetMic,
    GoOnMic,
    InviteToMic,
    LeaveMic,
    RequestMic,
    SetMicSeats,
)

__all__ = ["MicFeature", "holders_seen"]

SEATS = 3
LISTS_AGAIN_S = 0.1


class MicFeature(DemoFeature):
    """Every buyer asks for one of three seats. One takes its request back, one declines its invitation; the others
    come on the mic and leave it."""

    name = "mic"

    async def run(self) -> None:
        host, room, buyers = self.others.host, self.others.room, self.others.buyers
        self.fences: list[int] = []
        self.tokens = self.cancelled = self.declined = self.joined = self.left = 0
        await trio.sleep(self.seconds * 0.2)
        await host.call(SetMicSeats(room, SEATS))
        canceller, decliner, *speakers = buyers
        async with trio.open_nursery() as inviting:
            inviting.start_soon(self._invite)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask_and_cancel, canceller)
                nursery.start_soon(self._decline, decliner)
                for speaker in speakers:
                    nursery.start_soon(self._speak, speaker)
            inviting.cancel_scope.cancel()
        for buyer in buyers:
            await buyer.wait_until(partial(self._has_seen_all, buyer))

    async def _invite(self) -> None:
        """Invite whoever is the first of the queue, as long as there are free seats."""
        host, room = self.others.host, self.others.room
        while True:
            for waiting in (await host.call(GetMic(room))).queue:
                if waiting.user == self.others.buyers[0].id:
                    continue  # it takes its request back
                invited = await host.call(InviteToMic(room, waiting.user, rtc_token=f"token of {waiting.user}"))
                if invited is None:
                    break  # every seat is taken
                self.fences.append(invited.fence)
            await trio.sleep(LISTS_AGAIN_S)

    async def _ask_and_cancel(self, buyer: Buyer) -> None:
        first = await buyer.call(RequestMic(self.others.room))
        again = await buyer.call(RequestMic(self.others.room))
        self.equal("who has asked twice", first=first.user, second=again.user)
        await trio.sleep(self.rng.uniform(0.0, 1.0))
        await buyer.call(CancelMic(self.others.room))
        self.cancelled += 1

    async def _invited(self, buyer: Buyer) -> int:
        """Ask for a seat and return the fence of the invitation."""
        await trio.sleep(self.rng.uniform(0.0, 1.0))
        await buyer.call(RequestMic(self.others.room))
        messages: Any = await buyer.wait_until(lambda: buyer.data_of("mic.invited", "") or None)
        fence: int = messages[0].fence
        return fence

    async def _decline(self, buyer: Buyer) -> None:
        await buyer.call(CancelMic(self.others.room, await self._invited(buyer)))
        self.declined += 1

    async def _speak(self, buyer: Buyer) -> None:
        room, fence = self.others.room, await self._invited(buyer)
        access = await buyer.call(AcceptMic(room, fence))
        self.tokens += access.rtc_token == f"token of {buyer.id}"
        await buyer.call(GoOnMic(room, fence))
        self.joined += 1
        await trio.sleep(self.rng.uniform(0.1, 0.5))
        await buyer.call(LeaveMic(room, fence))
        self.left += 1

    def _has_seen_all(self, buyer: Buyer) -> bool | None:
        """Return whether a buyer has seen every speaker leave, None = not yet."""
        return True if sum(each.name == "mic.seat_left" for each in buyer.events) >= self.left else None

    async def reconcile(self) -> dict[str, int]:
        seats = await self.others.platform.call(GetMic(self.others.room))
        self.equal("seats at the end", seats=seats.seats, wanted=SEATS)
        self.equal("users on the mic or in the queue", broker=len(seats.taken) + seats.waiting, wanted=0)
        invitations = sum(len(buyer.data_of("mic.invited", "")) for buyer in self.others.buyers)
        self.equal(
            "seats granted",
            host=len(self.fences),
            messages=invitations,
            joined_and_declined=self.joined + self.declined,
        )
        self.equal("users who came", joined=self.joined, left=self.left, tokens=self.tokens)
        self.equal("fences", in_order=self.fences == sorted(set(self.fences)), wanted=True)
        for buyer in self.others.buyers:
            joined, left, wrong = holders_seen(buyer.events, SEATS)
            self.equal(f"users on the mic as {buyer.id} saw it", joined=joined, left=left, speakers=self.joined)
            self.equal(f"seats with two holders as {buyer.id} saw it", seen=wrong, wanted=[])
        return {
            "seats": SEATS, "granted": len(self.fences), "joined": self.joined, "left": self.left,
            "declined": self.declined, "cancelled": self.cancelled,
        }  # fmt: skip


def holders_seen(events: list[ActivityEvent], seats: int) -> tuple[int, int, list[str]]:
    """Follow the seats in the events that a client has received, in their order.

    Returns how many users came on the mic, how many left it, and a sentence for each event that gives a seat to a
    second holder, a user a second seat, or takes a seat from a user who does not hold it.
    """
    holders: dict[int, str] = {}
    joined = left = 0
    wrong: list[str] = []
    for event in events:
        if event.name == "mic.seat_taken":
            joined += 1
            seat, user = event.data.seat, event.data.user
            if seat in holders or user in holders.values() or not 1 <= seat <= seats:
                wrong.append(f"{user} on seat {seat} beside {holders}")
            holders[seat] = user
        elif event.name == "mic.seat_left":
            left += 1
            if holders.pop(event.data.seat, None) != event.data.user:
                wrong.append(f"{event.data.user} left seat {event.data.seat}")
    return joined, left, wrong
