"""Conversations over a real broker and ledger: delivered once, in order, to every device; kept over a crash."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from broker.core.users import conversations as core
from broker.ledger import Reader
from broker.ledger.mentions import outbox_of_line
from broker.operations.caller import OperationError
from broker.users import conversations as service
from broker.webhooks.events import event_fields
from protocol.codes import ErrorCode
from protocol.json_values import as_json
from tests.support.conversations import do, event, group, refusal, user
from tests.support.directs import ack, acked, login, nothing_more
from tests.support.durable import disk, durable_broker
from tests.support.erasing import finished
from tests.support.faulty_disk import crashed_copy, disk_error
from tests.support.operating import exported, operate
from tests.support.receiver import receiver
from tests.support.until import until
from tests.support.webhooks import events_of, hook_settings

pytestmark = pytest.mark.integration

IMAGE = {"url": "https://cdn.example/a.jpg", "kind": 1, "size_bytes": 10, "sha256": "a" * 64}


async def test_a_message_is_delivered_until_it_is_acknowledged_and_read_on_another_device(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        opened = await do(broker, "ann", "open", user="bob")
        assert (opened.other, opened.members) == ("bob", 2)
        assert (await do(broker, "bob", "open", user="ann")).id == opened.id
        sent = await do(broker, "ann", "send", "k1", conversation=opened.id, text="hello", media=IMAGE)
        assert (sent.offset, sent.repeated) == (1, False)
        again = await do(broker, "ann", "send", "k1", conversation=opened.id, text="hello", media=IMAGE)
        assert (again.offset, again.repeated) == (1, True)
        second = await do(broker, "ann", "send", "k2", conversation=opened.id, text="two", reply_to=1, mentions=["bob"])
        assert second.offset == 2
        assert await refusal(broker, "ann", "send", key="k1", conversation=opened.id, text="x") == (
            ErrorCode.KEY_REUSED, "key",
        )  # fmt: skip
        async with login(broker, "bob") as phone, login(broker, "bob") as tablet, login(broker, "ann") as ann:
            for link in (phone, tablet):
                number, data = await event(link)
                assert (data["offset"], data["text"], data["name"]) == (1, "hello", "Ann")
                assert data["media"] == IMAGE | {"kind": "image"}
                number, data = await event(link)
                assert (data["offset"], data["reply_to"], list(data["mentions"])) == (2, 1, ["bob"])
            await ack(phone, number)
            await acked(broker, "bob", number)
            assert (await do(broker, "bob", "list")).items[0].unread == 2
            own = await do(broker, "bob", "report_position", conversation=opened.id, delivered=2, read=1)
            assert own == (2, 1, 1)
            assert (await event(ann, "position"))[1] == {"user": "bob", "delivered": 2, "read": 1, "unread": None}
            for link in (phone, tablet):
                assert (await event(link, "position"))[1] == {"user": "bob", "delivered": 2, "read": 1, "unread": 1}
            # An older report of another device changes nothing, and one of the future is capped.
            assert await do(broker, "bob", "report_position", conversation=opened.id, delivered=1) == (2, 1, 1)
            assert await do(broker, "bob", "report_position", conversation=opened.id, read=99) == (2, 2, 0)
        async with login(broker, "bob") as phone:
            await nothing_more(phone)


async def test_a_crash_loses_and_repeats_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    async with durable_broker(first) as broker:
        id = await group(broker, "ann", "bob", "cem")
        for number in range(1, 6):
            await do(broker, "ann", "send", f"k{number}", conversation=id, text=f"text {number}")
        await do(broker, "bob", "send", "b", conversation=id, text="mine")
        await do(broker, "bob", "report_position", conversation=id, delivered=5, read=3)
        await do(broker, "ann", "recall", conversation=id, offset=5)
        await do(broker, "bob", "block", user="eve")
        await operate(broker, "conversations.set_members", id, ("dan",), ("cem",))
        before = [await do(broker, name, "get", conversation=id) for name in ("ann", "bob", "dan")]
        crashed_copy(first, second)
    async with durable_broker(second) as broker:
        assert [await do(broker, name, "get", conversation=id) for name in ("ann", "bob", "dan")] == before
        assert [(view.unread, view.joined) for view in before] == [(1, 0), (1, 0), (0, 6)]
        assert await refusal(broker, "cem", "get", conversation=id) == (ErrorCode.UNKNOWN_CONVERSATION, "conversation")
        assert (await do(broker, "bob", "blocked")).users == ("eve",)
        again = await do(broker, "ann", "send", "k5", conversation=id, text="text 5")
        assert (again.offset, again.repeated) == (5, True)
        assert (await do(broker, "ann", "send", "k7", conversation=id, text="next")).offset == 7
        history = await do(broker, "bob", "history", conversation=id)
        assert [(each.offset, each.text, each.recalled) for each in history.items] == [
            *((number, f"text {number}", False) for number in range(1, 5)),
            (5, "", True), (6, "mine", False), (7, "next", False),
        ]  # fmt: skip
        async with login(broker, "bob") as bob:
            seen = [await event(bob) for _ in range(5)]
            assert [data["offset"] for _, data in seen] == [1, 2, 3, 4, 7]  # what was recalled is withdrawn


async def test_what_the_ledger_cannot_take_is_not_shown(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "bob") as bob:
        id = await group(broker, "ann", "bob")
        await event(bob, "joined")
        disk(broker).fault = disk_error("SQLITE_FULL")
        with pytest.raises(OperationError) as caught:
            await do(broker, "ann", "send", "k1", conversation=id, text="lost")
        assert caught.value.code is ErrorCode.OVERLOADED
        assert (await do(broker, "bob", "get", conversation=id)).last == 0


async def test_history_pages_lead_through_every_message_in_both_directions(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        id = await group(broker, "ann", "bob")
        for number in range(1, 12):
            await do(broker, "ann", "send", f"k{number}", conversation=id, text="x" * 400)
        after, seen, more = 0, [], True
        while more:
            page = await do(broker, "bob", "history", conversation=id, after=after, limit=4)
            seen += [each.offset for each in page.items]
            after, more = seen[-1], page.more
        assert seen == list(range(1, 12))
        before, seen, more = 99, [], True
        while more:
            page = await do(broker, "bob", "history", conversation=id, before=before, limit=4)
            seen = [each.offset for each in page.items] + seen
            before, more = seen[0], page.more
        assert seen == list(range(1, 12))


async def test_recall_is_for_the_author_within_two_minutes_and_for_the_platform(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with durable_broker(directory) as broker, login(broker, "bob") as bob:
        id = await group(broker, "ann", "bob")
        await do(broker, "ann", "send", "k1", conversation=id, text="secret")
        await do(broker, "ann", "send", "k2", conversation=id, text="second")
        assert await refusal(broker, "bob", "recall", conversation=id, offset=1) == (ErrorCode.NOT_ALLOWED, "offset")
        assert await refusal(broker, "ann", "recall", conversation=id, offset=9) == (ErrorCode.BAD_FIELD, "offset")
        await do(broker, "ann", "recall", conversation=id, offset=1)
        assert (await event(bob, "recalled"))[1] == {"offset": 1, "by": "ann"}
        monkeypatch.setattr("broker.operations.conversations.RECALL_MS", -1)
        assert await refusal(broker, "ann", "recall", conversation=id, offset=2) == (ErrorCode.EXPIRED, "offset")
        await operate(broker, "conversations.recall", id, 2)
        assert (await event(bob, "recalled"))[1] == {"offset": 2, "by": ""}
        assert (await do(broker, "bob", "get", conversation=id)).unread == 0
        assert all(
            each.recalled and not each.text for each in (await do(broker, "bob", "history", conversation=id)).items
        )


async def test_blocks_mutes_words_and_strangers(directory: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("casino\n")
    lists = [{"name": "bad", "file": str(words), "action": "block"}]
    async with durable_broker(directory, moderation={"lists": lists}) as broker, login(broker, "bob") as bob:
        pair = (await do(broker, "ann", "open", user="bob")).id
        blocked = ErrorCode.BLOCKED, "text"
        assert await refusal(broker, "ann", "send", conversation=pair, text="the CASINO") == blocked
        await operate(broker, "moderation.mute", None, "ann", None, "spam")
        code, _ = await refusal(broker, "ann", "send", conversation=pair, text="hello")
        assert code is ErrorCode.MUTED
        assert (await do(broker, "ann", "show_typing", conversation=pair)).members == 1
        await nothing_more(bob)
        await operate(broker, "moderation.unmute", None, "ann")
        assert (await do(broker, "ann", "show_typing", conversation=pair)).members == 1
        assert (await event(bob, "typing"))[1] == {"user": "ann"}
        await do(broker, "bob", "block", user="ann")
        assert (await do(broker, "ann", "show_typing", conversation=pair)).members == 1
        await nothing_more(bob)
        code, _ = await refusal(broker, "ann", "send", conversation=pair, text="hello")
        assert code is ErrorCode.NOT_ALLOWED
        await do(broker, "bob", "block", user="ann", blocked=False)
        await do(broker, "ann", "send", conversation=pair, text="hello")
        for operation, fields in (
            ("send", {"text": "hi"}), ("history", {}), ("get", {}), ("members", {}), ("show_typing", {}),
            ("report_position", {"read": 1}), ("recall", {"offset": 1}),
        ):  # fmt: skip
            code, _ = await refusal(broker, "eve", operation, conversation=pair, **fields)
            assert code is ErrorCode.UNKNOWN_CONVERSATION


async def test_a_message_that_its_author_alone_is_shown_has_an_offset_of_its_own(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    async with durable_broker(first) as broker:
        pair = (await do(broker, "ann", "open", user="bob")).id
        await operate(broker, "moderation.mute", None, "ann", None, "spam", True)
        async with login(broker, "ann") as tablet, login(broker, "bob") as bob:
            hidden = await do(broker, "ann", "send", "k1", conversation=pair, text="buy this")
            assert (await event(tablet))[1]["offset"] == hidden.offset == 1
            await operate(broker, "moderation.unmute", None, "ann")
            shown = await do(broker, "ann", "send", "k2", conversation=pair, text="hello")
            assert [(await event(link))[1]["offset"] for link in (tablet, bob)] == [2, 2]
            again = await do(broker, "ann", "send", "k1", conversation=pair, text="buy this")
            assert (shown.offset, again) == (2, (1, True))
        crashed_copy(first, second)
    async with durable_broker(second) as broker:
        for name, offsets in (("ann", [1, 2]), ("bob", [2])):
            for before in (0, 9):
                history = await do(broker, name, "history", conversation=pair, before=before)
                assert [each.offset for each in history.items] == offsets
        assert (await do(broker, "bob", "get", conversation=pair)).unread == 1
        assert await refusal(broker, "bob", "recall", conversation=pair, offset=1) == (ErrorCode.BAD_FIELD, "offset")
        async with login(broker, "bob") as bob:
            await event(bob)
            await do(broker, "ann", "recall", conversation=pair, offset=1)
            await nothing_more(bob)
        assert (await do(broker, "ann", "history", conversation=pair)).items[0].recalled
        assert (await do(broker, "ann", "send", "k3", conversation=pair, text="third")).offset == 3


async def test_what_is_recalled_is_in_no_inbox_and_waits_for_no_endpoint(directory: Path, tmp_path: Path) -> None:
    settings = hook_settings(tmp_path, "http://127.0.0.1:9/hook", "conversation.sent")
    async with durable_broker(directory, webhooks=settings) as broker, login(broker, "bob") as bob:
        id = await group(broker, "ann", "bob", "cem")
        await do(broker, "ann", "send", "k1", conversation=id, text="forget me")
        await do(broker, "ann", "send", "k2", conversation=id, text="keep me")
        while True:
            number, data = await event(bob)
            if data["offset"] == 2:
                break
        await ack(bob, number)
        await acked(broker, "bob", number)
        await do(broker, "ann", "recall", conversation=id, offset=1)
        assert broker.ledger is not None
        for name in ("bob", "cem"):
            stored = await broker.ledger.ask(partial(Reader.inbox, is_pending_only=False), name, 0)
            assert stored
            assert not any(b"forget me" in each.body for each in stored)
            assert any(b"keep me" in each.body for each in stored)
        rows = await broker.ledger.ask(outbox_of_line, "user ann", "conversation.sent", 0)
        assert [event_fields(row)["data"]["text"] for row in rows] == ["", "keep me"]
        await broker.ledger.ask(Reader.verify_all)


async def test_other_tenants_have_other_conversations(directory: Path) -> None:
    tenants = [{"name": "acme"}, {"name": "globex"}]
    async with durable_broker(directory, tenants=tenants) as broker:
        await operate(broker, "conversations.create", "tea", "Tea", ("ann", "bob"), tenant="acme")
        await operate(broker, "conversations.create", "tea", "Other", ("ann",), tenant="globex")
        await do(broker, user("ann", "acme"), "send", conversation="tea", text="hello")
        assert (await do(broker, user("ann", "globex"), "list")).items[0].title == "Other"
        assert (await do(broker, user("ann", "globex"), "history", conversation="tea")).items == ()
        assert (await do(broker, user("bob", "acme"), "list")).items[0].last_text == "hello"


async def test_a_large_group_is_shown_at_once_and_read_from_the_history(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "INBOX_MEMBERS", 2)
    async with durable_broker(directory) as broker, AsyncExitStack() as stack:
        id = await group(broker, *(f"user-{number}" for number in range(20)))
        links = [await stack.enter_async_context(login(broker, f"user-{number}")) for number in range(4)]
        await do(broker, "user-9", "send", conversation=id, text="hello")
        for link in links:
            number, data = await event(link)
            assert (number, data["text"]) == (0, "hello")
        assert (await do(broker, "user-19", "list")).items[0].unread == 1
        assert (await do(broker, "user-19", "history", conversation=id)).items[0].text == "hello"


async def test_a_list_leads_through_all_conversations_the_latest_first(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        for number in range(7):
            await group(broker, "ann", id=f"group-{number}")
        await do(broker, "ann", "send", conversation="group-3", text="latest")
        seen, cursor = [], None
        while True:
            page = await do(broker, "ann", "list", limit=2, cursor=cursor)
            seen += [each.id for each in page.items]
            cursor = page.next
            if cursor is None:
                break
        assert seen[0] == "group-3"
        assert sorted(seen) == [f"group-{number}" for number in range(7)]


async def test_bounds_of_members_and_blocked_users(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with durable_broker(directory) as broker:
        id = await group(broker, "ann", "bob")
        monkeypatch.setattr(service, "MAX_GROUP_MEMBERS", 3)
        monkeypatch.setattr(core, "MAX_BLOCKED", 1)
        with pytest.raises(OperationError) as caught:
            await operate(broker, "conversations.set_members", id, ("c", "d"))
        assert caught.value.code is ErrorCode.TOO_MANY_MEMBERS
        assert (await operate(broker, "conversations.set_members", id, ("c", "d"), ("ann",))).members == 3
        await do(broker, "bob", "block", user="x")
        assert (await refusal(broker, "bob", "block", user="y"))[0] is ErrorCode.TOO_MANY_MEMBERS


async def test_an_erased_user_is_in_no_conversation_and_has_written_nothing(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        id = await group(broker, "victim", "bob")
        pair = (await do(broker, "victim", "open", user="bob")).id
        await do(broker, "victim", "send", "k1", conversation=id, text="my words")
        await do(broker, "bob", "send", "k2", conversation=id, text="stays", mentions=["victim"])
        await do(broker, "victim", "send", "k3", conversation=pair, text="my words too")
        await do(broker, "bob", "block", user="victim")
        await operate(broker, "users.erase", "victim", "victim")
        await finished(broker)
        for conversation in (id, pair):
            history = await do(broker, "bob", "history", conversation=conversation)
            assert "victim" not in json.dumps(as_json(history))
            assert "my words" not in json.dumps(as_json(history))
        assert (await do(broker, "bob", "history", conversation=id)).items[1].text == "stays"
        assert (await do(broker, "bob", "blocked")).users == ()
        opened = await do(broker, "bob", "open", user="victim")  # another user of that id
        assert (opened.id, opened.joined) == (pair, 0)
        assert (await do(broker, "victim", "history", conversation=pair)).items == ()
    async with durable_broker(directory) as broker:
        assert (await do(broker, "victim", "history", conversation=pair)).items == ()
        assert (await do(broker, "bob", "get", conversation=id)).members == 1


async def test_the_platform_hears_of_messages_where_it_asks_and_sends_for_a_member(directory: Path) -> None:
    async with receiver() as platform:
        hooks = hook_settings(directory, platform.url, "conversation.sent")
        async with durable_broker(directory, webhooks=hooks) as broker:
            id = await group(broker, "bot", "bob")
            sent = await operate(broker, "conversations.send", id, "how can I help?", None, 0, (), "bot", key="k1")
            assert sent.offset == 1
            await until(lambda: bool(platform.requests))
            assert events_of(platform)[0]["data"] == {
                "conversation": "tea", "offset": 1, "user": "bot", "text": "how can I help?",
            }  # fmt: skip
            members = await operate(broker, "conversations.members", id)
            assert [each.user for each in members.items] == ["bob", "bot"]


async def test_an_export_has_the_messages_of_a_user(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        id = await group(broker, "ann", "bob")
        await do(broker, "ann", "send", "k1", conversation=id, text="hello")
        items, _ = await exported(broker, "ann")
        assert any("hello" in json.dumps(item) for item in items)
