"""The service desk over a real broker and ledger: one agent a conversation, one answer, kept over a crash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.core.limits.rate_limit import Rate
from broker.operations.caller import OperationError
from broker.users import conversations, desks
from protocol.activities.desk import DeskState
from protocol.codes import ErrorCode
from tests.support.broker import running_broker
from tests.support.conversations import do, event, refusal, user
from tests.support.desk import add_agent, configure, opened, platform, settled, state_of
from tests.support.directs import login
from tests.support.durable import disk, durable_broker
from tests.support.erasing import finished
from tests.support.faulty_disk import crashed_copy, disk_error
from tests.support.receiver import receiver
from tests.support.tokens import SECRET
from tests.support.until import until
from tests.support.webhooks import events_of, hook_settings

pytestmark = pytest.mark.integration

BOT = {"name": "orders", "skills": ["order"], "bot": "helper"}


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "TICK_S", 0.005)


async def test_a_question_reaches_an_agent_and_its_answer_the_customer(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as ann, login(broker, "amy") as amy:
        await configure(broker)
        view = await opened(broker, order="o-1")
        assert (view.state, view.agent, view.order, view.verified) == (DeskState.QUEUED, "", "o-1", False)
        await add_agent(broker, "amy")
        assert (await event(amy, "joined"))[1]["joined"] == 0
        while (seen := (await event(amy, "desk.changed"))[1])["state"] != "assigned":
            pass
        assert (seen["agent"], seen["customer"], seen["order"]) == ("amy", "ann", "o-1")
        found = await do(broker, "amy", "desk.get", conversation=view.id)
        assert [each.text for each in found.messages] == ["Where is my parcel?"]
        assert (await do(broker, "amy", "history", conversation=view.id)).items == found.messages
        answer = {"conversation": view.id, "epoch": seen["epoch"], "text": "It comes today."}
        sent = await do(broker, "amy", "desk.answer", "a1", **answer)
        assert (sent.offset, sent.repeated) == (2, False)
        assert tuple(await do(broker, "amy", "desk.answer", "a1", **answer)) == (2, True)
        assert (await event(ann))[1]["user"] == "ann"  # its own first message, for its other devices
        _, data = await event(ann)
        assert (data["user"], data["name"], data["text"]) == ("amy", "Amy", "It comes today.")
        await do(broker, "ann", "desk.ask", "q2", conversation=view.id, text="Thanks")
        while (await event(amy))[1]["offset"] != 3:
            pass
        mine = (await do(broker, "amy", "desk.list")).items
        assert [each.id for each in mine] == [view.id]
        resolved = await do(broker, "amy", "desk.resolve", conversation=view.id, epoch=seen["epoch"], read=3)
        assert (resolved.state, resolved.agent) == (DeskState.RESOLVED, "")
        rated = await do(broker, "ann", "desk.rate", conversation=view.id, rating=4)
        assert rated.rating == 4
        figures = await platform(broker, "desk.statistics")
        (topic,) = figures.topics
        assert (figures.resolved, topic.conversations, topic.rating_hundredths) == (1, 1, 400)
        assert topic.first_response_p50_ms is not None
        # The customer writes again: it is opened again, and goes to its last agent.
        await do(broker, "ann", "desk.ask", "q3", conversation=view.id, text="It did not come")
        await settled(broker, view.id, DeskState.ASSIGNED, "amy")


async def test_who_lost_a_conversation_does_not_answer(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "amy"), login(broker, "ben"), login(broker, "sue"):
        await configure(broker)
        await add_agent(broker, "amy", capacity=1)
        view = await settled(broker, (await opened(broker)).id, DeskState.ASSIGNED, "amy")
        await add_agent(broker, "ben", capacity=1)
        await add_agent(broker, "sue", capacity=0, supervisor=True)
        at = {"conversation": view.id}
        assert await refusal(broker, "ben", "desk.answer", **at, epoch=view.epoch, text="x") == (
            ErrorCode.STALE, "epoch",
        )  # fmt: skip
        for to in ("nobody", "amy", "sue"):
            code = await refusal(broker, "amy", "desk.transfer", **at, epoch=view.epoch, user=to)
            assert code == (ErrorCode.STALE, "user")
        sent = await do(broker, "amy", "desk.answer", "a1", **at, epoch=view.epoch, text="One moment")
        moved = await do(broker, "amy", "desk.transfer", **at, epoch=view.epoch, user="ben")
        assert (moved.agent, moved.transfers, moved.epoch) == ("ben", 1, view.epoch + 1)
        assert await refusal(broker, "amy", "desk.answer", **at, epoch=view.epoch, text="x") == (
            ErrorCode.STALE, "epoch",
        )  # fmt: skip
        # A repetition of what was sent before has the first answer, not a second message.
        again = await do(broker, "amy", "desk.answer", "a1", **at, epoch=view.epoch, text="One moment")
        assert (again.offset, again.repeated) == (sent.offset, True)
        with pytest.raises(Exception, match="other content"):
            await do(broker, "amy", "desk.answer", "a1", **at, epoch=view.epoch, text="Another")
        assert (await refusal(broker, "amy", "history", **at))[0] is ErrorCode.UNKNOWN_CONVERSATION
        assert (await refusal(broker, "ben", "desk.take_over", **at))[0] is ErrorCode.NOT_ALLOWED
        taken = await do(broker, "sue", "desk.take_over", **at)
        assert (taken.agent, taken.transfers) == ("sue", 2)
        back = await do(broker, "sue", "desk.transfer", **at, epoch=taken.epoch)
        assert back.state is DeskState.QUEUED
        view = await settled(broker, view.id, DeskState.ASSIGNED, "amy")  # whose last one is the longest ago
        assert [each.text for each in (await platform(broker, "desk.get", **at)).messages] == [
            "Where is my parcel?", "One moment",
        ]  # fmt: skip


async def test_the_desk_survives_a_crash(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    async with durable_broker(first) as broker, login(broker, "amy"):
        await configure(broker)
        held = (await opened(broker, "ann", "o1")).id
        await add_agent(broker, "amy", capacity=1)
        before = await settled(broker, held, DeskState.ASSIGNED, "amy")
        waiting = (await opened(broker, "bob", "o2", product="p-1")).id
        await do(broker, "amy", "desk.tag", conversation=held, tags=["late"])
        sent = await do(broker, "amy", "desk.answer", "a1", conversation=held, epoch=before.epoch, text="Soon")
        crashed_copy(first, second)
    async with durable_broker(second) as broker:
        view = await settled(broker, held, DeskState.ASSIGNED, "amy")
        assert (view.epoch, view.tags, view.asked_at_ms) == (before.epoch, ("late",), 0)
        assert state_of(broker, waiting) == (DeskState.QUEUED, "")
        (agent,) = (await platform(broker, "desk.agents")).items
        assert (agent.user, agent.state.name, agent.linked, agent.load) == ("amy", "ONLINE", False, 1)
        again = await do(broker, "amy", "desk.answer", "a1", conversation=held, epoch=before.epoch, text="Soon")
        assert (again.offset, again.repeated) == (sent.offset, True)
        again = await do(broker, "bob", "desk.open", "o2", topic="orders", text="Where is my parcel?", product="p-1")
        assert (again.desk.id, again.repeated) == (waiting, True)
        assert await refusal(broker, "bob", "desk.open", key="o2", topic="orders", text="Other") == (
            ErrorCode.KEY_REUSED, "key",
        )  # fmt: skip
        async with login(broker, "amy"):
            await do(broker, "amy", "desk.resolve", conversation=held, epoch=view.epoch, read=sent.offset)
            await settled(broker, waiting, DeskState.ASSIGNED, "amy")


async def test_an_agent_without_a_link_or_an_answer_gives_its_conversation_back(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await configure(broker, lost_ms=1)
        async with login(broker, "amy"):
            await add_agent(broker, "amy")
            view = await settled(broker, (await opened(broker)).id, DeskState.ASSIGNED, "amy")
        back = await settled(broker, view.id, DeskState.QUEUED)
        assert back.epoch == view.epoch + 1
        async with login(broker, "ben"):
            await add_agent(broker, "ben")
            await settled(broker, view.id, DeskState.ASSIGNED, "ben")
            await do(broker, "ben", "desk.set_state", state="busy")
            await configure(broker, agent_ms=1)
            await settled(broker, view.id, DeskState.QUEUED)


async def test_a_bot_answers_first_and_hands_over(directory: Path) -> None:
    async with receiver() as web:
        hooks = hook_settings(directory, web.url, "desk.asked", "desk.opened", "desk.queued", "desk.assigned")
        async with durable_broker(directory, webhooks=hooks) as broker, login(broker, "helper") as helper:
            await configure(broker, topics=[BOT])
            view = await opened(broker)
            assert (view.state, view.agent) == (DeskState.BOT, "helper")
            _, asked = await event(helper, "desk.asked")
            assert (asked["text"], asked["epoch"], asked["topic"]) == ("Where is my parcel?", view.epoch, "orders")
            at: dict[str, Any] = {"conversation": view.id, "epoch": view.epoch}
            await do(broker, "helper", "desk.answer", "b1", **at, text="Which order?")
            await do(broker, "ann", "desk.ask", "q2", conversation=view.id, text="o-1")
            assert (await event(helper, "desk.asked"))[1]["offset"] == 3
            # By webhook: the platform calls as the bot.
            await platform(broker, "desk.answer", "b2", **at, text="I ask a colleague.", as_user="helper")
            moved = await platform(broker, "desk.transfer", **at, as_user="helper")
            assert (moved.state, moved.transfers) == (DeskState.QUEUED, 0)
            assert (await refusal(broker, "helper", "desk.answer", **at, text="x")) == (ErrorCode.STALE, "epoch")
            assert (await refusal(broker, "eve", "desk.answer", **at, text="x"))[0] is ErrorCode.UNKNOWN_CONVERSATION
            async with login(broker, "amy"):
                await add_agent(broker, "amy")
                await settled(broker, view.id, DeskState.ASSIGNED, "amy")
            await until(lambda: len(web.requests) == 5)
            kinds = sorted(each["type"] for each in events_of(web))
            assert kinds == ["desk.asked", "desk.asked", "desk.assigned", "desk.opened", "desk.queued"]


async def test_a_bot_without_an_answer_loses_the_conversation_and_out_of_hours_the_customer_is_told(
    directory: Path,
) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as ann:
        now_ms = broker.clock.now_ms()
        closed = (now_ms // 60_000 - 4 * 24 * 60) % (7 * 24 * 60)
        begin = (closed + 600) % (7 * 24 * 60 - 1)
        hours = [{"begin": begin, "end": begin + 1}]
        await configure(broker, topics=[BOT], bot_ms=1, hours=hours, closed_text="We are back tomorrow.")
        view = await settled(broker, (await opened(broker)).id, DeskState.QUEUED)
        assert view.epoch == 2
        _, data = await event(ann)
        while data["user"] == "ann":
            _, data = await event(ann)
        assert (data["user"], data["text"]) == ("", "We are back tomorrow.")


async def test_alarms_are_raised_once_and_reported(directory: Path) -> None:
    async with receiver() as web:
        hooks = hook_settings(directory, web.url, "desk.alarm")
        async with durable_broker(directory, webhooks=hooks) as broker, login(broker, "sue") as sue:
            await configure(broker, first_response_ms=1)
            await add_agent(broker, "sue", capacity=0, supervisor=True)
            view = await opened(broker)
            while not (seen := (await event(sue, "desk.changed"))[1])["alarms"]:
                pass
            assert list(seen["alarms"]) == ["first_response"]
            assert not (await do(broker, "ann", "desk.get", conversation=view.id)).desk.alarms
            await until(lambda: len(web.requests) == 1)


async def test_a_hint_is_for_agents_alone_and_in_its_topics(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "amy"):
        await configure(broker)
        await add_agent(broker, "amy")
        for id, topics, target in (("late", "ord*", "agent"), ("other", "returns", "agent"), ("room", "*", "staff")):
            rule = {"id": id, "words": "parcel|包裹", "template": "{name}: say sorry ({word})", "rooms": topics}
            await platform(broker, "moderation.put_hint", **rule, target=target)
        view = await opened(broker)
        await do(broker, "ann", "desk.ask", "q2", conversation=view.id, text="Hello?")
        view = await settled(broker, view.id, DeskState.ASSIGNED, "amy")
        await do(broker, "amy", "desk.answer", "a1", conversation=view.id, epoch=view.epoch, text="Your parcel is late")
        (hint,) = (await do(broker, "amy", "desk.get", conversation=view.id)).hints
        assert (hint.offset, hint.rule, hint.word) == (1, "late", "parcel")
        assert hint.text.endswith(": say sorry (parcel)")
        assert len((await platform(broker, "desk.get", conversation=view.id)).hints) == 1
        assert (await do(broker, "ann", "desk.get", conversation=view.id)).hints == ()
        assert (await do(broker, "amy", "desk.get", conversation=view.id, messages=1)).hints == ()


async def test_a_question_that_comes_while_a_conversation_is_resolved_is_not_lost(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "amy"):
        await configure(broker)
        await add_agent(broker, "amy")
        view = await settled(broker, (await opened(broker)).id, DeskState.ASSIGNED, "amy")
        at: dict[str, Any] = {"conversation": view.id, "epoch": view.epoch}
        asked = await do(broker, "ann", "desk.ask", "q2", conversation=view.id, text="And my refund?")
        assert await refusal(broker, "amy", "desk.resolve", **at, read=1) == (ErrorCode.STALE, "read")
        assert state_of(broker, view.id) == (DeskState.ASSIGNED, "amy")
        resolved = await do(broker, "amy", "desk.resolve", **at, read=asked.offset)
        assert resolved.state is DeskState.RESOLVED


async def test_a_resolved_conversation_closes_and_leaves_nothing(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "amy"):
        await configure(broker)
        await add_agent(broker, "amy")
        view = await settled(broker, (await opened(broker)).id, DeskState.ASSIGNED, "amy")
        await do(broker, "amy", "desk.resolve", conversation=view.id, epoch=view.epoch, read=1)
        await configure(broker, reopen_ms=1)
        await until(lambda: state_of(broker, view.id) is None)
        await until(lambda: broker.talk is not None and broker.talk.conversations.kept == 0)
        code, _ = await refusal(broker, "ann", "desk.ask", conversation=view.id, text="x")
        assert code is ErrorCode.UNKNOWN_CONVERSATION
        assert broker.ledger is not None
        assert await broker.ledger.ask(lambda reader: reader.records("conversation.message")) == []


async def test_what_may_not_be(directory: Path) -> None:
    tenants = [{"name": "acme"}]
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=tenants) as broker:
        assert (await refusal(broker, "ann", "desk.list"))[0] is ErrorCode.UNKNOWN_DESK
        await configure(broker)
        await configure(broker, "acme")
        view = await opened(broker)
        at = {"conversation": view.id}
        assert await refusal(broker, "ann", "desk.open", topic="none", text="x") == (ErrorCode.BAD_FIELD, "topic")
        code = await refusal(broker, "ann", "desk.open", topic="orders", text="x", as_user="bob")
        assert code == (ErrorCode.BAD_FIELD, "as_user")
        assert await refusal(broker, "ann", "send", **at, text="x") == (ErrorCode.OUT_OF_STATE, "conversation")
        for operation, fields in (("desk.ask", {"text": "x"}), ("desk.get", {}), ("desk.rate", {"rating": 5})):
            assert (await refusal(broker, "bob", operation, **at, **fields))[0] is ErrorCode.UNKNOWN_CONVERSATION
            other = user("ann", "acme")
            assert (await refusal(broker, other, operation, **at, **fields))[0] is ErrorCode.UNKNOWN_CONVERSATION
        for operation in ("desk.agents", "desk.statistics", "desk.settings"):
            assert (await refusal(broker, "ann", operation))[0] is ErrorCode.NOT_ALLOWED
        assert (await refusal(broker, "ann", "desk.rate", **at, rating=5))[0] is ErrorCode.STALE
        for number in range(2):
            await opened(broker, key=f"more{number}")
        assert (await refusal(broker, "ann", "desk.open", key="4", topic="orders", text="x"))[0] is (
            ErrorCode.TOO_MANY_MEMBERS
        )
        assert not (await do(broker, user("ann", "acme"), "desk.list")).items


async def test_what_the_ledger_cannot_take_changes_nothing(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "amy"):
        await configure(broker)
        await add_agent(broker, "amy")
        view = await settled(broker, (await opened(broker)).id, DeskState.ASSIGNED, "amy")
        disk(broker).fault = disk_error("SQLITE_FULL")
        for operation, fields in (
            ("desk.answer", {"epoch": view.epoch, "text": "x"}), ("desk.resolve", {"epoch": view.epoch, "read": 1}),
            ("desk.tag", {"tags": ["a"]}),
        ):  # fmt: skip
            code, _ = await refusal(broker, "amy", operation, conversation=view.id, **fields)
            assert code is ErrorCode.OVERLOADED
        assert state_of(broker, view.id) == (DeskState.ASSIGNED, "amy")
        assert broker.talk is not None
        desk = broker.talk.desks.find("")
        assert desk is not None
        assert len(desk.turns) == 0


async def test_an_erased_customer_leaves_nothing(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "amy"):
        await configure(broker)
        await add_agent(broker, "amy")
        view = await settled(broker, (await opened(broker, text="my secret")).id, DeskState.ASSIGNED, "amy")
        await platform(broker, "users.erase", user="ann", confirm="ann")
        await finished(broker)
        assert state_of(broker, view.id) is None
        assert broker.talk is not None
        talk = broker.talk
        await until(lambda: talk.conversations.kept == 0)
        assert broker.ledger is not None
        left = await broker.ledger.ask(lambda reader: reader.records("desk.conversation"))
        assert left == []


async def test_the_desk_works_in_memory(directory: Path) -> None:
    async with running_broker() as broker, login(broker, "amy"):
        await configure(broker)
        await add_agent(broker, "amy")
        view = await settled(broker, (await opened(broker)).id, DeskState.ASSIGNED, "amy")
        await do(broker, "amy", "desk.answer", "a1", conversation=view.id, epoch=view.epoch, text="Soon")
        assert [each.text for each in (await do(broker, "ann", "history", conversation=view.id)).items] == [
            "Where is my parcel?", "Soon",
        ]  # fmt: skip


async def test_what_is_asked_again_and_again_is_counted_by_topic(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await configure(broker, topics=[BOT | {"bot": ""}, {"name": "other"}])
        view = await opened(broker, "ann", text="Where is parcel 17?")
        await do(broker, "ann", "desk.ask", "q", conversation=view.id, text="Where is parcel 17?")
        await opened(broker, "bob", text="where is  parcel 20 ?!")
        await opened(broker, "bob", text="where is  parcel 20 ?!")  # the same call once more
        await opened(broker, "cem", topic="other", text="Do you sell tea?")
        (found,) = (await platform(broker, "desk.questions")).items
        assert found == ("orders", "Where is parcel 17?", 3, 2)
        assert (await refusal(broker, "ann", "desk.questions"))[0] is ErrorCode.NOT_ALLOWED
        await platform(broker, "users.erase", user="ann", confirm="ann")
        await finished(broker)
        assert not (await platform(broker, "desk.questions")).items


async def test_the_accounts_of_one_address_open_a_share_of_the_conversations_of_a_desk(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "DESK_OPENING_RATE", Rate(1e-6, 2))
    async with durable_broker(directory) as broker:
        await configure(broker)
        for name in ("x1", "x2"):
            await opened(broker, name)
        with pytest.raises(OperationError) as caught:
            await opened(broker, "x3")
        assert caught.value.code is ErrorCode.RATE_LIMITED
        assert caught.value.retry_after_ms > 0
        first = await do(broker, "x1", "desk.open", "o", topic="orders", text="Where is my parcel?")
        assert first.repeated, "the same call again has its first answer"
        await do(broker, replace(user("y"), address="192.0.2.9"), "desk.open", "o", topic="orders", text="?")
        await platform(broker, "desk.open", topic="orders", text="?", as_user="x3")
