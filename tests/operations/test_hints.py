"""Keyword hints in a broker: to staff alone, and as the bot's reply; over a restart and a reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from broker.operations.caller import OperationError
from broker.server import Broker
from protocol.activities import activity_event
from protocol.activities.moderation import Hint
from protocol.codes import ErrorCode, MessageType
from protocol.messages import Event, Ping, Pong, Tick
from tests.support.broker import RawLink, configuration, joined_link, running_broker
from tests.support.durable import durable_broker
from tests.support.operating import operate
from tests.support.shows import as_platform
from tests.support.tokens import SECRET
from tests.support.until import until

pytestmark = pytest.mark.integration

STAFF_RULE = {"id": "price", "words": "便宜点", "template": "{name} wants it cheaper", "cooldown_s": 3600}
REPLY_RULE = {
    "id": "ship", "words": "包邮吗|shipping", "template": "{name}，全场包邮", "target": "room", "cooldown_s": 3600,
}  # fmt: skip


QUICK = {"user_chat_per_s": 100.0, "user_chat_burst": 100}


async def say(broker: Broker, link: RawLink, room: int, number: int, text: str) -> None:
    shown = broker.hub.accounts()[3].shown
    await link.post(room, number, MessageType.DANMAKU, [text])
    await until(lambda: broker.hub.accounts()[3].shown > shown)


async def received(link: RawLink) -> tuple[list[Hint], list[tuple[str, str]]]:
    """Return the hints and danmaku that a link was sent until now."""
    await link.send((Ping(1), 0, 99))
    hints: list[Hint] = []
    said: list[tuple[str, str]] = []
    while True:
        frame = await link.next_frame()
        assert frame is not None
        message: Any = frame.message
        if isinstance(message, Pong) and frame.sequence == 99:
            return hints, said
        if isinstance(message, Tick):
            said += [(entry.user_id, entry.payload[0]) for entry in message.entries]
        if isinstance(message, Event) and message.type == MessageType.ACTIVITY_COUNTER:
            found = activity_event(message.payload)
            if found is not None and found.name == "moderation.hint":
                hints.append(found.data)


async def test_staff_alone_gets_hints_and_everybody_a_reply_each_once_in_its_cooldown(directory: Path) -> None:
    async with (
        durable_broker(directory, room=QUICK) as broker, joined_link(broker, "dev:max:host") as (host, _),
        joined_link(broker, "dev:ann") as (ann, room), joined_link(broker, "dev:bob") as (bob, bob_room),
    ):  # fmt: skip
        await as_platform(broker, "moderation.put_hint", **STAFF_RULE)
        await as_platform(broker, "moderation.put_hint", **REPLY_RULE)
        for number, text in enumerate(("便宜点吧", "便 宜 点", "what about Shipping?", "hello"), 1):
            await say(broker, ann, room, number, text)
            await trio.sleep(0.05)
        await say(broker, bob, bob_room, 1, "包邮吗")
        await until(lambda: broker.hub.accounts()[3].shown == 6)
        await trio.sleep(0.3)
        hints, said = await received(host)
        assert [(hint.rule, hint.word, hint.user, hint.message) for hint in hints] == [
            ("price", "便宜点", "ann", "便宜点吧")
        ]
        assert hints[0].text == f"{hints[0].name} wants it cheaper"
        assert [text for user, text in said if user == "assistant"] == [f"{hints[0].name}，全场包邮"]
        for link in (ann, bob):
            hints, said = await received(link)
            assert hints == [], "viewers hear nothing of hints to staff"
            assert len([user for user, _ in said if user == "assistant"]) == 1
        assert (broker.hub.hints.hinted, broker.hub.hints.replied) == (1, 1)


async def test_a_reply_that_meets_its_own_rule_is_not_answered(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:ann") as (ann, room):
        echo = {"id": "echo", "words": "echo", "template": "echo echo", "target": "room", "cooldown_s": 1}
        await as_platform(broker, "moderation.put_hint", **echo)
        await say(broker, ann, room, 1, "echo")
        await until(lambda: broker.hub.accounts()[3].shown == 2)
        await trio.sleep(1.2)
        assert broker.hub.hints.replied == 1


async def test_rules_are_durable_belong_to_a_tenant_and_are_refused_by_field(directory: Path) -> None:
    tenants = [{"name": "acme"}, {"name": "globex"}]
    settings: dict[str, Any] = {"auth": {"secret": SECRET}, "tenants": tenants}
    configured = {"id": "fixed", "words": "refund", "template": "help", "tenant": "acme"}
    moderation = {"hints": [configured]}
    async with durable_broker(directory, moderation=moderation, **settings) as broker:
        put = await operate(broker, "moderation.put_hint", "price", "便宜点", "lower", tenant="acme")
        assert (put.id, put.configured) == ("price", False)
        await operate(broker, "moderation.put_hint", "gone", "x", "y", tenant="acme")
        assert (await operate(broker, "moderation.remove_hint", "gone", tenant="acme")).removed
        assert not (await operate(broker, "moderation.remove_hint", "gone", tenant="acme")).removed
        for operation, fields, field in (
            ("moderation.put_hint", ("fixed", "a", "b"), "id"),
            ("moderation.remove_hint", ("fixed",), "id"),
            ("moderation.put_hint", ("bad", "...", "b"), "words"),
            ("moderation.put_hint", ("bad", "a", "b", "staff", "*", 60, "soon"), "hours"),
        ):
            with pytest.raises(OperationError) as caught:
                await operate(broker, operation, *fields, tenant="acme")
            assert caught.value.field == field
            assert caught.value.code in (ErrorCode.BAD_FIELD, ErrorCode.OUT_OF_STATE)
        assert (await operate(broker, "moderation.hints", tenant="globex")).items == ()
    async with durable_broker(directory, moderation=moderation, **settings) as broker:
        listed = (await operate(broker, "moderation.hints", tenant="acme")).items
        assert [(each.id, each.configured) for each in listed] == [("fixed", True), ("price", False)]
        broker.reload(configuration(ledger={"data_dir": str(directory)}, **settings))
        listed = (await operate(broker, "moderation.hints", tenant="acme")).items
        assert [each.id for each in listed] == ["price"], "the reload has taken the configured one away"


async def test_without_a_ledger_the_configuration_alone_has_hints() -> None:
    hints = [{"id": "price", "words": "便宜点", "template": "lower", "rooms": "lob*"}]
    async with (
        running_broker(moderation={"hints": hints}) as broker, joined_link(broker, "dev:max:host") as (host, _),
        joined_link(broker, "dev:ann") as (ann, room),
    ):  # fmt: skip
        await say(broker, ann, room, 1, "便宜点吧")
        await until(lambda: broker.hub.hints.hinted == 1)
        with pytest.raises(OperationError) as caught:
            await as_platform(broker, "moderation.put_hint", **STAFF_RULE)
        assert caught.value.code is ErrorCode.NOT_KEPT
        assert len((await received(host))[0]) == 1
