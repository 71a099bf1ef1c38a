"""Systems of customer service, each with its acceptance check: a real broker, its ledger, real clients, webhooks."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import trio

from protocol.activities import ActivityEvent
from protocol.activities.desk import DeskState
from protocol.clients import CallRefused
from protocol.codes import ErrorCode
from tests.support.acceptance import Platform, Viewer, audience, eventually, platform
from tests.support.clocks import advance
from tests.support.receiver import Received, http_reply, receiver
from tests.support.webhooks import events_of, hook_settings

pytestmark = [pytest.mark.integration, pytest.mark.slow]

UNLIMITED = {"link": {"frames_per_s": 0}}
WEEK_MINUTES = 7 * 24 * 60


async def set_up(shop: Platform, *agents: str, bot: str = "", **more: Any) -> None:
    """Set up a desk with the topic orders, and these agents."""
    await shop.call("desk.configure", topics=[{"name": "orders", "bot": bot}], **more)
    for agent in agents:
        await shop.call("desk.set_agent", user=agent, name=agent.title())


async def ask(buyer: Viewer, text: str = "Where is my parcel?", key: str = "q-1", **more: Any) -> Any:
    """Open a conversation with the desk; return its view."""
    return (await buyer.client.call("desk.open", topic="orders", text=text, key=key, **more)).desk


async def go_online(*agents: Viewer) -> None:
    for agent in agents:
        await agent.client.call("desk.set_state", state="online")


def views(viewer: Viewer) -> dict[str, Any]:
    """Return the latest view of each conversation that a client was sent."""
    events = [each.payload for each in viewer.directs if isinstance(each.payload, ActivityEvent)]
    found: dict[str, Any] = {}
    for each in events:
        if each.name == "desk.changed" and (each.id not in found or found[each.id].revision < each.data.revision):
            found[each.id] = each.data
    return found


def texts(viewer: Viewer, conversation: str) -> list[str]:
    """Return what others have written in a conversation, as a client was sent it."""
    events = [each.payload for each in viewer.directs if isinstance(each.payload, ActivityEvent)]
    messages = [each.data for each in events if (each.name, each.id) == ("conversations.message", conversation)]
    others = {each.offset: each.text for each in messages if each.user != viewer.user}
    return [text for _, text in sorted(others.items())]


async def test_facebook_messenger(directory: Path) -> None:
    """A bot behind a webhook answers; without its answer the conversation is in the human queue after three seconds."""
    async with receiver() as bot:
        hooks = hook_settings(directory, bot.url, "desk.asked")
        async with (
            platform(directory / "data", webhooks=hooks, **UNLIMITED) as shop,
            audience(shop.broker, ["ann", "bob"], reads_directs=True) as (ann, bob),
        ):
            await set_up(shop, bot="helper", bot_ms=3000)
            answered = await ask(ann)
            await eventually(lambda: events_of(bot) != [])
            (asked,) = (each["data"] for each in events_of(bot))
            assert (asked["conversation"], asked["bot"], asked["text"]) == (
                answered.id,
                "helper",
                "Where is my parcel?",
            )
            await shop.call(
                "desk.answer",
                "a-1",
                conversation=answered.id,
                epoch=asked["epoch"],
                text="It comes today.",
                as_user="helper",
            )
            await eventually(lambda: texts(ann, answered.id) == ["It comes today."])
            # The second one gets no answer.
            unanswered = await ask(bob)
            assert unanswered.state is DeskState.BOT
            advance(2_000)
            assert (await bob.client.call("desk.get", conversation=unanswered.id)).desk.state is DeskState.BOT
            advance(1_100)
            await eventually(lambda: views(bob)[unanswered.id].state is DeskState.QUEUED)
            assert (await ann.client.call("desk.get", conversation=answered.id)).desk.state is DeskState.BOT


async def test_aliwangwang(directory: Path) -> None:
    """A buyer reaches an agent of the shop, who hands over with the whole history; a promotion to a thousand buyers
    reaches those who want it, and no other one."""
    async with (
        platform(directory, **UNLIMITED) as shop,
        audience(shop.broker, ["buyer7", "buyer8"], reads_directs=True) as (out, buyer),
        audience(shop.broker, ["amy", "ben"], reads_directs=True) as (amy, ben),
    ):
        await set_up(shop, "amy", "ben")
        await go_online(amy)
        id = (await ask(buyer, "Does the mug come in blue?")).id
        await eventually(lambda: id in views(amy) and views(amy)[id].agent == "amy")
        await go_online(ben)
        epoch = views(amy)[id].epoch
        await amy.client.call("desk.answer", conversation=id, epoch=epoch, text="I ask a colleague.", key="a-1")
        await amy.client.call("desk.transfer", conversation=id, epoch=epoch, user="ben")
        await eventually(lambda: id in views(ben) and views(ben)[id].agent == "ben")
        with pytest.raises(CallRefused) as late:
            await amy.client.call("desk.answer", conversation=id, epoch=epoch, text="Yes!", key="a-2")
        assert late.value.code == ErrorCode.STALE
        details = await ben.client.call("desk.get", conversation=id)
        assert [each.text for each in details.messages] == ["Does the mug come in blue?", "I ask a colleague."]
        await ben.client.call("desk.answer", conversation=id, epoch=details.desk.epoch, text="It does.", key="b-1")
        await eventually(lambda: texts(buyer, id) == ["I ask a colleague.", "It does."])
        # The promotion.
        users = [f"buyer{number}" for number in range(1000)]
        for user in users[:137]:
            advance(100)  # for the rate of calls
            await shop.broker.call("users.set_preferences", user=user, marketing=False)
        sent = suppressed = 0
        for start in range(0, 1000, 250):
            part = await shop.call(
                "directs.send_many", batch="promotion", type=4, template=["20 % off"],
                users=users[start : start + 250], marketing=True,
            )  # fmt: skip
            sent, suppressed = sent + part["sent"], suppressed + part["suppressed"]
        assert (sent, suppressed) == (863, 137)
        state = await shop.call("directs.progress", batch="promotion")
        assert sum(state[name] for name in ("pending", "acked")) == 863
        await shop.call("directs.send", "last", user="buyer7", type=4, payload=["Your parcel is on its way"])
        await eventually(lambda: any("parcel" in str(each.payload) for each in out.directs))
        assert not any("20 %" in str(each.payload) for each in out.directs)


async def test_jd_dongdong(directory: Path) -> None:
    """The bot is first; cards and events of orders come from the platform alone; a hand-over keeps the order."""
    async with (
        platform(directory, **UNLIMITED) as shop,
        audience(shop.broker, ["ann", "helper", "amy"], reads_directs=True) as (ann, bot, amy),
    ):
        await set_up(shop, "amy", bot="helper", bot_ms=60_000)
        await go_online(amy)
        opened = await ask(ann, order="o-17")
        assert (opened.state, opened.agent, opened.verified) == (DeskState.BOT, "helper", False)
        paid = {"kind": "order", "id": "o-17", "status": "paid", "version": 0, "title": "Order 17"}
        for operation, fields in (
            ("cards.send", {"card": paid, "conversation": opened.id}),
            ("orders.event", {"room": "live-1", "order": "o-17", "status_version": 1, "product": "mug", "name": "Ann"}),
        ):
            with pytest.raises(CallRefused) as forged:
                await ann.client.call(operation, **fields)
            assert forged.value.code == ErrorCode.NOT_ALLOWED
        assert (await shop.call("cards.send", card=paid, conversation=opened.id))["sent"]
        await bot.client.call("desk.transfer", conversation=opened.id, epoch=opened.epoch)
        await eventually(lambda: opened.id in views(amy) and views(amy)[opened.id].agent == "amy")
        assert views(amy)[opened.id].order == "o-17"
        details = await amy.client.call("desk.get", conversation=opened.id)
        assert [each.card["id"] for each in details.messages if each.card is not None] == ["o-17"]
        platform_opened = await shop.call(
            "desk.open", "p-1", topic="orders", text="It has not come.", order="o-18", as_user="bob"
        )
        assert platform_opened["desk"]["verified"]


async def test_smart_customer_service(directory: Path) -> None:
    """Outside of office hours the bot answers within a second, whatever it hands over waits in a queue, and when people
    are back the figures have their first response."""
    async with (
        platform(directory, **UNLIMITED) as shop,
        audience(shop.broker, ["helper", "amy"], reads_directs=True) as (bot, amy),
        audience(shop.broker, [f"u{number}" for number in range(10)], reads_directs=True) as buyers,
    ):
        minute = shop.broker.clock.now_ms() // 60_000 + 3 * 24 * 60  # the epoch began on a Thursday
        opens = (minute + 3 * 24 * 60) % (WEEK_MINUTES - 60)
        hours = [{"begin": opens, "end": opens + 1}]
        await set_up(shop, "amy", bot="helper", bot_ms=60_000, hours=hours, closed_text="We are back on Monday.")
        opened = [await ask(buyer) for buyer in buyers]
        for view in opened:
            await bot.client.call("desk.answer", conversation=view.id, epoch=view.epoch, text="A moment.", key=view.id)
        for buyer, view in zip(buyers, opened, strict=True):
            await eventually(lambda buyer=buyer, view=view: "A moment." in texts(buyer, view.id))  # type: ignore[misc]
            shown = (await buyer.client.call("desk.get", conversation=view.id)).messages
            asked, answer = shown[0], next(each for each in shown if each.text == "A moment.")
            assert answer.at_ms - asked.at_ms < 60_000, (
                "by the clock of a test, which may be set on; the bench says more"
            )
        for view in opened:
            await bot.client.call("desk.transfer", conversation=view.id, epoch=view.epoch)
        for buyer, view in zip(buyers, opened, strict=True):
            await eventually(lambda buyer=buyer, view=view: views(buyer)[view.id].state is DeskState.QUEUED)  # type: ignore[misc]
        assert (await shop.call("desk.statistics"))["queued"] == 10
        await set_up(shop, "amy", bot="helper")
        await go_online(amy)
        await eventually(lambda: any(view.agent == "amy" for view in views(amy).values()))
        view = next(view for view in views(amy).values() if view.agent == "amy")
        await amy.client.call("desk.answer", conversation=view.id, epoch=view.epoch, text="Good morning.", key="a-1")
        (topic,) = (await shop.call("desk.statistics"))["topics"]
        assert topic["first_response_p95_ms"] is not None


async def test_traditional_customer_service_system(directory: Path) -> None:
    """The system behind the webhooks is away for ten minutes: then everything comes, in order, and once by its id."""
    is_away = True
    taken: list[dict[str, Any]] = []

    async def answer(received: Received, stream: trio.abc.Stream) -> bytes:
        if not is_away:
            taken.append(json.loads(received.body))  # its time is that of a clock which was set on
        return http_reply(503 if is_away else 200)

    async with receiver(answer) as old:
        hooks = hook_settings(directory, old.url, "desk.opened", "desk.queued", "desk.assigned", "desk.resolved")
        async with (
            platform(directory / "data", webhooks=hooks, **UNLIMITED) as shop,
            audience(shop.broker, [f"u{number}" for number in range(4)], reads_directs=True) as buyers,
            audience(shop.broker, ["amy"], reads_directs=True) as (amy,),
        ):
            await set_up(shop, "amy")
            await go_online(amy)
            ids = [(await ask(buyer)).id for buyer in buyers]
            await eventually(lambda: all(id in views(amy) and views(amy)[id].agent == "amy" for id in ids))
            for id in ids:
                epoch = views(amy)[id].epoch
                sent = await amy.client.call("desk.answer", conversation=id, epoch=epoch, text="Done.", key=id)
                await amy.client.call("desk.resolve", conversation=id, epoch=epoch, read=sent.offset)
            for _ in range(10):
                advance(60_000)
                await trio.sleep(0.01)
            is_away = False

            def have_all() -> bool:
                advance(5_000)  # for the next attempt
                return [each["type"] for each in taken].count("desk.resolved") >= 4

            await eventually(have_all)
        by_id = {each["id"]: each for each in taken}
        of: defaultdict[str, list[str]] = defaultdict(list)
        revisions: defaultdict[str, list[int]] = defaultdict(list)
        for each in by_id.values():
            of[each["data"]["id"]].append(each["type"])
            revisions[each["data"]["id"]].append(each["data"]["revision"])
        for id in ids:
            assert of[id][0] == "desk.opened"
            assert of[id][-1] == "desk.resolved"
            assert revisions[id] == sorted(revisions[id])


async def test_agora_conversational_ai(directory: Path) -> None:
    """An answer in parts becomes one message, and a further question stops it; the bot takes the first line of more
    customers than there are people for, and what it gives up reaches a person when one is free."""
    async with (
        platform(directory, **UNLIMITED) as shop,
        audience(shop.broker, ["helper", "amy"], reads_directs=True) as (bot, amy),
        audience(shop.broker, [f"u{number}" for number in range(8)], reads_directs=True) as buyers,
    ):
        await set_up(shop, bot="helper", bot_ms=60_000)
        await shop.call("desk.set_agent", user="amy", capacity=1)
        await go_online(amy)
        opened = [await ask(buyer) for buyer in buyers]
        assert {view.agent for view in opened} == {"helper"}
        ann, bob, *_ = buyers
        streams = []
        for view in opened[:2]:
            started = await bot.client.call("desk.start_stream", conversation=view.id, epoch=view.epoch)
            streams.append({"conversation": view.id, "stream": started.stream})
        for text in ("It comes", " today."):
            await bot.client.call("desk.append", **streams[0], text=text)
        await bot.client.call("desk.end_stream", **streams[0], key="e-1")
        await eventually(lambda: texts(ann, opened[0].id) == ["It comes today."])
        await bot.client.call("desk.append", **streams[1], text="Long ago, when")
        await bob.client.call("desk.ask", conversation=opened[1].id, text="A person, please.", key="q-2")
        with pytest.raises(CallRefused) as late:
            await bot.client.call("desk.append", **streams[1], text=" the shop began")
        assert late.value.code == ErrorCode.OUT_OF_STATE
        # Two are given up: the one agent, who has room for one, gets the second one after the first.
        for view in opened[1:3]:
            await bot.client.call("desk.transfer", conversation=view.id, epoch=view.epoch)
        for view in opened[1:3]:
            await eventually(lambda view=view: view.id in views(amy) and views(amy)[view.id].agent == "amy")  # type: ignore[misc]
            epoch = views(amy)[view.id].epoch
            at = {"conversation": view.id, "epoch": epoch}
            sent = await amy.client.call("desk.answer", **at, text="Here I am.", key=view.id)
            await amy.client.call("desk.resolve", **at, read=sent.offset)
        figures = await shop.call("desk.statistics")
        assert (figures["with_bot"], figures["queued"], figures["resolved"]) == (6, 0, 2)
