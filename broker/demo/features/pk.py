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
from protocol.payloads import ORDER_TYPES, GiftPayload, HighlightPayload, payload_record

__all__ = ["PkFeature", "given_cents"]

PK, OTHER_ROOM = "pk-1", "demo-rival"
GIFTS_EACH = 6
PRICE_CENTS = 500
ANSWERS_AGAIN_S = 0.1
MAX_EVENTS = 100_000
FOREVER_MS = 2**52


class PkFeature(DemoFeature):
    """The host invites another room to a PK. Fans of both give while it runs, and a gift before it does not count."""

    name = "pk"

    async def run(self) -> None:
        others = self.others
        self.ordered: dict[str, int] = {others.room: 0, OTHER_ROOM: 0}
        await trio.sleep(self.seconds * 0.15)
        await others.platform.call(OpenRoom(OTHER_ROOM))
        await self._give(OTHER_ROOM, 0)
        self.before = self.ordered[OTHER_ROOM]
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
        self.ordered[room] += count * PRICE_CENTS

    async def reconcile(self) -> dict[str, int]:
        others = self.others
        ended = self._ended(others.buyers[0])
        for buyer in others.buyers:
            self.equal(f"result as {buyer.id} saw it", first=ended, client=self._ended(buyer))
        assert self.started.starts_at_ms is not None
        assert self.started.ends_at_ms is not None
        window = self.started.starts_at_ms, self.started.ends_at_ms
        own, other = await self._in_ledger(others.room, *window), await self._in_ledger(OTHER_ROOM, *window)
        self.equal("own score", ledger=own, clients=ended.score)
        self.equal("score of the other room", ledger=other, clients=ended.other_score)
        # On a busy machine the PK may end before the last gift, so all of them are compared without its times.
        self.equal("gifts", ledger=await self._in_ledger(OTHER_ROOM, 0, FOREVER_MS), platform=self.ordered[OTHER_ROOM])
        self.equal("gift before the PK", counted=other > self.ordered[OTHER_ROOM] - self.before, wanted=False)
        in_room = await self._in_ledger(others.room, 0, FOREVER_MS)
        self.equal("gifts in the room", counted=in_room >= self.ordered[others.room], wanted=True)
        wanted = PkOutcome.DRAW if own == other else PkOutcome.WON if own > other else PkOutcome.LOST
        self.equal("outcome", clients=ended.outcome, ledger=wanted)
        return {"score_cents": own, "other_score_cents": other}

    def _ended(self, buyer: Buyer) -> PkEnded:
        ended: PkEnded = buyer.event("pk.ended", "")
        return ended

    async def _in_ledger(self, name: str, from_ms: int, to_ms: int) -> int:
        room, ledger = self.others.broker.hub.find(name), self.others.broker.ledger
        assert room is not None
        assert ledger is not None
        cents: int = await ledger.ask(given_cents, room.name, room.state.epoch, from_ms, to_ms)
        return cents


def given_cents(reader: Reader, room: str, epoch: int, from_ms: int, to_ms: int) -> int:
    """Return the cents of the gifts and paid messages of a stream in [``from_ms``, ``to_ms``). Runs in the ledger's
    reading thread."""
    sum_cents = 0
    for stored in stored_events(reader.latest(room, epoch, from_ms, MAX_EVENTS)):
        event = stored.event
        if event.type not in ORDER_TYPES or event.at_ms >= to_ms:
            continue
        paid = payload_record(event.type, event.payload)
        if isinstance(paid, GiftPayload):
            sum_cents += paid.count * paid.price_cents
        elif isinstance(paid, HighlightPayload):
            sum_cents += paid.cents
    return sum_cents
