"""Scene of a shop: buyers ask its service desk over a day, a bot and agents answer, and all that was said is compared.

Everybody is a real client on a socket. Buyers ask, some of them again after the answer, read, and rate at the end. The
bot answers what is simple and gives the rest to the queue. Agents answer what they are assigned, hand some of it over,
and one of them loses its link for a while. After the last question everything is waited for; then `ShopDemo.compare`
says what is not as it must be: each question has one answer, each message came once and in order, receipts only rose.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import trio

from broker.config.schema import Config, LedgerConfig, ListenConfig
from broker.config.sections import ApiConfig
from broker.server import Broker
from protocol.activities.desk import DeskState, DeskView
from protocol.clients import CallRefused, Client, open_client
from protocol.codes import ErrorCode
from protocol.messages import Direct

__all__ = ["ShopDemo", "ShopResult", "falling_receipts"]

BOT = "helper"
TOPICS = ("presale", "orders")
SIMPLE = ("Is it in stock?", "Do you ship abroad?", "How big is it?")
HARD = ("My parcel has not come.", "I was charged twice.", "It arrived broken.")
THANKS = "Thank you."
"""What a buyer ends with: only then the conversation is resolved, so that no question can come meanwhile."""
THINK_S = (0.05, 0.4)
"""How long a person thinks before an answer, of a day in three minutes."""
AWAY_S = 1.5
"""How long the agent who loses its link is away; the desk waits for half of it."""
TRANSFERRED = 0.1
ASKS_AGAIN = 0.4
TICK_S = 0.05
LOOK_S = 0.2
"""How often an agent asks for its conversations."""
DRAIN_S = 60.0
"""How long what was asked last is waited for; only a defect or a busy machine reaches it."""


class ShopResult(NamedTuple):
    """Result of the scene. ``differences``: what is not as it must be."""

    seconds: float
    questions: int
    answers: int
    by_bot: int
    transfers: int
    ratings: int
    first_response_p95_ms: int | None
    differences: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return self._asdict() | {"reconciled": not self.differences}


class _Buyer:
    """What one buyer has asked and seen, by conversation."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.client: Client | None = None
        self.asked: list[tuple[str, int]] = []
        self.seen: defaultdict[str, dict[int, Any]] = defaultdict(dict)
        self.kept: dict[str, tuple[Any, ...]] = {}
        """What the broker has of its conversations at the end."""
        self.again: list[str] = []
        """Messages that came a second time, or out of order."""
        self.views: dict[str, DeskView] = {}
        self.positions: defaultdict[str, list[tuple[str, int, int]]] = defaultdict(list)
        """Positions of others that it was sent."""

    def has_answers(self) -> bool:
        """Whether each question has one."""
        answered = {(id, message.reply_to) for id, seen in self.seen.items() for message in seen.values()}
        return all(each in answered for each in self.asked)


class ShopDemo:
    """A shop with ``buyers``, ``agents`` and a bot, over ``seconds``."""

    def __init__(self, seconds: float, buyers: int = 200, agents: int = 8, seed: int = 1) -> None:
        self.seconds = seconds
        self._rng = Random(seed)
        self._buyers = [_Buyer(f"buyer-{number}") for number in range(buyers)]
        self._agents = [f"agent-{number}" for number in range(agents)]
        self._broker: Broker | None = None
        self._answers: Counter[str] = Counter()
        """By who has answered."""
        self._transfers = 0
        self._ratings = 0

    @property
    def progress(self) -> str:
        """What has happened so far, in one line."""
        asked = sum(len(buyer.asked) for buyer in self._buyers)
        answers = sum(self._answers.values())
        return f"questions {asked}, answers {answers} (bot {self._answers[BOT]}), handed over {self._transfers}"

    async def run(self) -> ShopResult:
        """Open the shop, close it after the last answer, and compare."""
        with TemporaryDirectory(prefix="roomcast-shop-") as directory:
            config = Config(
                listen=ListenConfig(port=0), ledger=LedgerConfig(data_dir=directory),
                api=ApiConfig(listen="127.0.0.1:0"),
            )  # fmt: skip
            async with trio.open_nursery() as nursery:
                broker = self._broker = Broker(config)
                await nursery.start(broker.run)
                result = await self._day(broker)
                nursery.cancel_scope.cancel()
        return result

    async def _day(self, broker: Broker) -> ShopResult:
        await broker.call(
            "desk.configure", topics=[{"name": "presale", "bot": BOT}, {"name": "orders"}], agent_ms=5000,
            lost_ms=round(AWAY_S * 500), bot_ms=3000,
        )  # fmt: skip
        for agent in self._agents:
            await broker.call("desk.set_agent", user=agent, name=agent.title(), capacity=10)
        begun = trio.current_time()
        async with trio.open_nursery() as staff:
            await staff.start(self._bot)
            for number, agent in enumerate(self._agents):
                await staff.start(partial(self._agent, agent, is_lost=number == 0))
            async with trio.open_nursery() as buying:
                for buyer in self._buyers:
                    buying.start_soon(self._buy, buyer, begun)
            staff.cancel_scope.cancel()
        statistics = await broker.call("desk.statistics")
        return ShopResult(
            round(trio.current_time() - begun, 1), sum(len(buyer.asked) for buyer in self._buyers),
            sum(self._answers.values()), self._answers[BOT], self._transfers, self._ratings,
            max((each.first_response_p95_ms or 0 for each in statistics.topics), default=0) or None,
            self.compare(),
        )  # fmt: skip

    @asynccontextmanager
    async def _linked(self, user: str) -> AsyncIterator[Client]:
        assert self._broker is not None
        host, port = self._broker.addresses[0]
        async with open_client(f"roomcast://{host}:{port}", token=f"dev:{user}") as client:
            yield client

    # ---- buyers

    async def _buy(self, buyer: _Buyer, begun: float) -> None:
        rng = Random(self._rng.random())
        await trio.sleep_until(begun + rng.uniform(0, 0.6) * self.seconds)
        async with self._linked(buyer.name) as client, trio.open_nursery() as nursery:
            buyer.client = client
            nursery.start_soon(self._listen, client, partial(self._on_event, buyer))
            is_simple = rng.random() < 0.5
            text = rng.choice(SIMPLE if is_simple else HARD)
            topic = TOPICS[not is_simple and rng.random() < 0.7]
            opened = await _call(
                client, "desk.open", topic=topic, text=text, order=f"o-{buyer.name}", key=f"{buyer.name}-1"
            )
            id = opened.desk.id
            buyer.asked.append((id, opened.offset))
            with trio.fail_after(self.seconds + DRAIN_S):
                await _until(buyer.has_answers)
                number = 1
                while rng.random() < ASKS_AGAIN and trio.current_time() < begun + 0.9 * self.seconds:
                    number += 1
                    await trio.sleep(rng.uniform(*THINK_S))
                    asked = await _call(
                        client, "desk.ask", conversation=id, text=rng.choice(HARD), key=f"{buyer.name}-{number}"
                    )
                    buyer.asked.append((id, asked.offset))
                    await _until(buyer.has_answers)
                await _call(client, "desk.ask", conversation=id, text=THANKS, key=f"{buyer.name}-thanks")
                await _until(lambda: id in buyer.views and buyer.views[id].state is DeskState.RESOLVED)
            await _call(client, "desk.rate", conversation=id, rating=rng.randint(3, 5))
            self._ratings += 1
            buyer.kept[id] = (await _call(client, "conversations.history", conversation=id, limit=200)).items
            nursery.cancel_scope.cancel()

    async def _on_event(self, buyer: _Buyer, client: Client, name: str, id: str, data: Any) -> None:
        if name == "desk.changed":
            if id not in buyer.views or buyer.views[id].revision < data.revision:
                buyer.views[id] = data
        elif name == "conversations.position" and data.user != buyer.name:
            buyer.positions[id].append((data.user, data.delivered, data.read))
        elif name == "conversations.message":
            seen = buyer.seen[id]
            if data.offset in seen or (seen and data.offset < max(seen)):
                buyer.again.append(f"{buyer.name}: message {data.offset} of {id} after {max(seen)}")
            seen[data.offset] = data
            await _call(
                client, "conversations.report_position", conversation=id, delivered=data.offset, read=data.offset
            )

    async def _listen(
        self, client: Client, on_event: Callable[[Client, str, str, Any], Any],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        events = client.events()
        task_status.started()
        async for message in events:
            if isinstance(message, Direct) and hasattr(message.payload, "name"):
                await on_event(client, message.payload.name, message.payload.id, message.payload.data)

    # ---- the desk's side

    async def _bot(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with self._linked(BOT) as client, trio.open_nursery() as nursery:

            async def answer(client: Client, name: str, id: str, data: Any) -> None:
                if name != "desk.asked":
                    return
                if data.text == THANKS:
                    await _call(client, "desk.resolve", conversation=id, epoch=data.epoch, read=data.offset)
                elif data.text in SIMPLE:
                    await self._answer(client, BOT, id, data.epoch, data.offset, "Yes, see the page.")
                else:
                    given = await _call(client, "desk.transfer", conversation=id, epoch=data.epoch)
                    self._transfers += given is not None

            await nursery.start(self._listen, client, answer)
            task_status.started()
            await trio.sleep_forever()

    async def _agent(
        self, agent: str, *, is_lost: bool, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        begun, has_started = trio.current_time(), False
        leaves_at = begun + 0.4 * self.seconds if is_lost else trio.current_time() + 1e9
        while True:
            with trio.move_on_at(leaves_at) as shift:
                async with self._linked(agent) as client:
                    await _call(client, "desk.set_state", state="online")
                    if not has_started:
                        has_started = True
                        task_status.started()
                    await self._work(client, agent, Random(agent))
            if not shift.cancelled_caught:
                return
            await trio.sleep(AWAY_S)
            leaves_at = trio.current_time() + 1e9

    async def _work(self, client: Client, agent: str, rng: Random) -> None:
        """Answer what is assigned, one conversation after the other, the one that has waited longest first."""
        while True:
            found = (await _call(client, "desk.list", which="mine", limit=100)).items
            waiting = [view for view in found if view.state is DeskState.ASSIGNED and view.agent == agent]
            for view in sorted(waiting, key=lambda view: view.asked_at_ms or view.started_at_ms):
                await trio.sleep(rng.uniform(*THINK_S))
                if rng.random() < TRANSFERRED:
                    given = await _call(client, "desk.transfer", conversation=view.id, epoch=view.epoch)
                    self._transfers += given is not None
                    continue
                details = await _call(client, "desk.get", conversation=view.id, messages=50)
                if details is None:
                    continue
                answered = {each.reply_to for each in details.messages if each.user != view.customer}
                for each in details.messages:
                    if each.user == view.customer and each.text != THANKS and each.offset not in answered:
                        await self._answer(client, agent, view.id, view.epoch, each.offset, "I have looked into it.")
                last = max(each.offset for each in details.messages)
                await _call(client, "conversations.report_position", conversation=view.id, delivered=last, read=last)
                if any(each.text == THANKS for each in details.messages):
                    await _call(client, "desk.resolve", conversation=view.id, epoch=view.epoch, read=last)
            await trio.sleep(LOOK_S)

    async def _answer(self, client: Client, by: str, id: str, epoch: int, offset: int, text: str) -> bool:
        sent = await _call(
            client, "desk.answer", conversation=id, epoch=epoch, text=text, reply_to=offset, key=f"{id}-{offset}"
        )
        self._answers[by] += sent is not None
        return sent is not None

    # ---- the reconciliation

    def compare(self) -> list[str]:
        """Return what is not as it must be, by what buyers have seen and what the broker has kept."""
        differences: list[str] = []
        for buyer in self._buyers:
            differences += buyer.again
            for id, positions in buyer.positions.items():
                differences += falling_receipts(buyer.name, id, positions)
            for id in {id for id, _ in buyer.asked}:
                history = buyer.kept.get(id, ())
                questions = {offset for conversation, offset in buyer.asked if conversation == id}
                kept = {each.offset for each in history if each.user == buyer.name and each.text != THANKS}
                if kept != questions:
                    differences.append(f"{buyer.name}: {sorted(questions)} were asked in {id}, {sorted(kept)} are kept")
                replies = Counter(each.reply_to for each in history if each.user != buyer.name and each.user)
                for offset in sorted(questions):
                    if replies[offset] != 1:
                        differences.append(f"{buyer.name}: question {offset} of {id} has {replies[offset]} answers")
                for each in history:
                    seen = buyer.seen[id].get(each.offset)
                    if each.user not in ("", buyer.name) and (seen is None or seen.text != each.text):
                        differences.append(f"{buyer.name} has not seen message {each.offset} of {id}")
        return differences


def falling_receipts(name: str, id: str, positions: list[tuple[str, int, int]]) -> list[str]:
    """Return what is wrong with receipts in the order in which they came."""
    last: dict[str, tuple[int, int]] = {}
    found = []
    for user, delivered, read in positions:
        before = last.get(user, (0, 0))
        if delivered < before[0] or read < before[1] or read > delivered:
            found.append(f"{name}: receipt ({delivered}, {read}) of {user} in {id} after {before}")
        last[user] = delivered, read
    return found


async def _call(client: Client, operation: str, *, key: str | None = None, **fields: Any) -> Any:
    """Call an operation, again after the wait that the broker names where it is too often; return its result, None
    where it came too late: another one holds the conversation. Any: as of the operation."""
    while True:
        try:
            return await client.call(operation, key=key, **fields)
        except CallRefused as refused:
            if refused.code in (ErrorCode.STALE, ErrorCode.UNKNOWN_CONVERSATION):
                return None
            if not refused.retry_after_ms:
                raise
            await trio.sleep(refused.retry_after_ms / 1000)


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - what is waited for comes from several events
        await trio.sleep(TICK_S)
