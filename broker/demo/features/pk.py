"""PK in the demo: the room and another one compare their gifts, and both scores are the sums of the gifts."""

from __future__ import annotations

from functools import partial

import trio

from broker.demo.buyers import Buyer
from broker.demo.features.base import DemoFeature
from broker.ledger import Reader
from broker.rooms.room_history import stored_events
from protocol.activities.pk import PkEnded, PkOutcome, PkState
from protocol.codes import MessageType
from protocol.operations.messages import PublishMessage
from protocol.operations.pk import AnswerPk, InviteToPk
from protocol.operations.rooms import OpenRoom
from protocol.payloads import GiftPayload, payload_record

__all__ = ["PkFeature", "gift_cents"]

PK, OTHER_ROOM = "pk-1", "demo-rival"
GIFTS_EACH = 6
PRICE_CENTS = 500
ANSWERS_AGAIN_S = 0.1
MAX_EVENTS = 100_000


class PkFeature(DemoFeature):
    """The host invites another room to a PK. Fans of both give while it runs, and a gift before it does not count."""

    name = "pk"

    async def run(self) -> None:
        others = self.others
        self.ordered: dict[str, int] = {others.room: 0, OTHER_ROOM: 0}
        await trio.sleep(self.seconds * 0.15)
        await others.platform.call(OpenRoom(OTHER_ROOM))
        await self._give(OTHER_ROOM, 0)
        invite = InviteToPk(others.room, PK, OTHER_ROOM, max(3000, round(self.seconds * 250)))
        first, again = await others.host.call(invite), await others.host.call(invite)
        self.equal("invited twice", first=first.id, second=again.id)
        self.started: PkState = await self._accept()
        assert self.started.starts_at_ms is not None
        await trio.sleep(max(0, self.started.starts_at_ms - others.now_ms()) / 1000 + 0.05)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_all, others.room)
            nursery.start_soon(self._give_all, OTHER_ROOM)
        for buyer in others.buyers:
            await buyer.wait_until(partial(buyer.event, "pk.ended", ""))

    async def _accept(self) -> PkState:
        """Let the platform accept for the other room, as soon as the invitation is there."""
        while True:
            state: PkState | None = await self.others.platform.call(AnswerPk(OTHER_ROOM, PK, True))
            if state is not None:
                return state
            await trio.sleep(ANSWERS_AGAIN_S)

    async def _give_all(self, room: str) -> None:
        for number in range(1, GIFTS_EACH + 1):
            await self._give(room, number)
            await trio.sleep(self.rng.uniform(0.0, 0.1))

    async def _give(self, room: str, number: int) -> None:
        """Let the platform post one gift to a room. ``number``: 0 = before the PK."""
        count = self.rng.randint(1, 9)
        fan = f"fan of {room} {number}"
        gift = GiftPayload(f"pk-{room}-{number}", fan, fan, "crown", count, PRICE_CENTS, combo=False)
        if room == self.others.room:
            await self.others.post(MessageType.GIFT, gift)
        else:
            await self.others.platform.call(PublishMessage(room, MessageType.GIFT, tuple(gift)))
        self.ordered[room] += count * PRICE_CENTS if number else 0

    async def reconcile(self) -> dict[str, int]:
        others = self.others
        ended = self._ended(others.buyers[0])
        for buyer in others.buyers:
            self.equal(f"result as {buyer.id} saw it", first=ended, client=self._ended(buyer))
        own, other = await self._in_ledger(others.room), await self._in_ledger(OTHER_ROOM)
        self.equal("own score", ledger=own, clients=ended.score)
        self.equal("score of the other room", ledger=other, clients=ended.other_score)
        self.equal("gifts of the other room", ledger=other, platform=self.ordered[OTHER_ROOM])
        self.equal("gifts of the PK in the room", counted=own >= self.ordered[others.room], wanted=True)
        wanted = PkOutcome.DRAW if own == other else PkOutcome.WON if own > other else PkOutcome.LOST
        self.equal("outcome", clients=ended.outcome, ledger=wanted)
        return {"score_cents": own, "other_score_cents": other}

    def _ended(self, buyer: Buyer) -> PkEnded:
        ended: PkEnded = buyer.event("pk.ended", "")
        return ended

    async def _in_ledger(self, name: str) -> int:
        room, ledger = self.others.broker.hub.find(name), self.others.broker.ledger
        assert room is not None
        assert ledger is not None
        assert self.started.starts_at_ms is not None
        assert self.started.ends_at_ms is not None
        window = self.started.starts_at_ms, self.started.ends_at_ms
        cents: int = await ledger.ask(gift_cents, room.name, room.state.epoch, *window)
        return cents


def gift_cents(reader: Reader, room: str, epoch: int, from_ms: int, to_ms: int) -> int:
    """Return the cents of the gift events of a stream in [``from_ms``, ``to_ms``). Runs in the ledger's reading
    thread."""
    sum_cents = 0
    for stored in stored_events(reader.latest(room, epoch, from_ms, MAX_EVENTS)):
        event = stored.event
        gift = payload_record(event.type, event.payload) if event.type == MessageType.GIFT else None
        if isinstance(gift, GiftPayload) and event.at_ms < to_ms:
            sum_cents += gift.count * gift.price_cents
    return sum_cents
