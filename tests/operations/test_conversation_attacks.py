"""Attacks on conversations: a forged sender, other tenants, blocked users, other people's messages, floods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from broker.core.limits.rate_limit import Rate, SingleGcra
from broker.operations.caller import OperationError
from broker.users import conversations as service
from broker.users import presence
from protocol.codes import ErrorCode
from tests.support.conversations import do, event, group, refusal, user
from tests.support.directs import ack, login, nothing_more
from tests.support.durable import durable_broker
from tests.support.operating import operate
from tests.support.until import until

pytestmark = pytest.mark.integration

UNKNOWN = ErrorCode.UNKNOWN_CONVERSATION, "conversation"


async def test_a_sender_cannot_be_forged_and_a_message_of_another_one_is_not_touched(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        id = await group(broker, "ann", "bob")
        await do(broker, "ann", "send", "k1", conversation=id, text="mine")
        for forged in ("ann", "bob", "eve"):
            assert await refusal(broker, "bob", "send", conversation=id, text="x", as_user=forged) == (
                ErrorCode.BAD_FIELD, "as_user",
            )  # fmt: skip
        assert await refusal(broker, "bob", "recall", conversation=id, offset=1) == (ErrorCode.NOT_ALLOWED, "offset")
        assert await refusal(broker, "bob", "send", conversation=id, text="x", mentions=["eve"]) == (
            ErrorCode.BAD_FIELD, "mentions",
        )  # fmt: skip
        with pytest.raises(OperationError) as caught:
            await operate(broker, "conversations.send", id, "x", None, 0, (), "eve", key="k")
        assert caught.value.code is ErrorCode.UNKNOWN_CONVERSATION, "who is no member is no sender for a backend either"
        # The key of one user is not that of another one, nor that of a backend with the name of the user.
        assert not (await do(broker, "bob", "send", "k1", conversation=id, text="mine")).repeated
        (first, _) = (await do(broker, "bob", "history", conversation=id)).items
        assert (first.user, first.text) == ("ann", "mine")


async def test_what_is_of_others_does_not_exist_before_joining_after_leaving_and_for_another_tenant(
    directory: Path,
) -> None:
    async with durable_broker(directory, tenants=[{"name": "acme"}, {"name": "globex"}]) as broker:
        await operate(broker, "conversations.create", "tea", "Tea", ("ann", "bob"), tenant="acme")
        ann, bob, eve = (user(name, "acme") for name in ("ann", "bob", "eve"))
        await do(broker, ann, "send", "k1", conversation="tea", text="secret")
        await operate(broker, "conversations.set_members", "tea", ("eve",), (), tenant="acme")
        for before in (0, 2, 99):
            assert (await do(broker, eve, "history", conversation="tea", before=before)).items == ()
        assert (await do(broker, eve, "list")).items[0].last_text == ""
        await operate(broker, "conversations.set_members", "tea", (), ("bob",), tenant="acme")
        pair = (await do(broker, ann, "open", user="bob")).id
        for caller, id in ((bob, "tea"), (user("ann", "globex"), "tea"), (user("bob", "globex"), pair), (eve, pair)):
            for operation, fields in (
                ("send", {"text": "hi"}), ("history", {}), ("get", {}), ("members", {}), ("show_typing", {}),
                ("report_position", {"read": 1}), ("recall", {"offset": 1}), ("rtc.ring", {}),
            ):  # fmt: skip
                assert await refusal(broker, caller, operation, conversation=id, **fields) == UNKNOWN
        for operation in ("history", "members"):
            with pytest.raises(OperationError) as caught:
                await operate(broker, f"conversations.{operation}", pair, tenant="globex")
            assert caught.value.code is ErrorCode.UNKNOWN_CONVERSATION


async def test_a_blocked_user_sees_nothing_of_what_the_other_one_does(directory: Path) -> None:
    async with durable_broker(directory) as broker, login(broker, "ann") as ann, login(broker, "bob") as bob:
        pair = (await do(broker, "ann", "open", user="bob")).id
        tea = await group(broker, "ann", "bob")
        number, _ = await event(ann, "joined")
        await ack(ann, number)
        for id in (pair, tea):
            await do(broker, "ann", "send", f"k {id}", conversation=id, text="hello")
        call = await do(broker, "ann", "rtc.ring", conversation=pair)
        await do(broker, "bob", "block", user="ann")
        assert (await event(ann, "rtc.ended"))[1]["reason"] == "rejected", "what rings is over"
        assert await refusal(broker, "ann", "rtc.hang_up", call=call.call) == (ErrorCode.UNKNOWN_CALL, "call")
        for id in (pair, tea):
            await do(broker, "bob", "report_position", conversation=id, delivered=1, read=1)
            await do(broker, "bob", "show_typing", conversation=id)
            members = {each.user: each[1:] for each in (await do(broker, "ann", "members", conversation=id)).items}
            assert members["bob"] == (0, 0)
            members = {each.user: each[1:] for each in (await do(broker, "bob", "members", conversation=id)).items}
            assert members["bob"] == (1, 1)
        await nothing_more(ann)
        assert (await event(bob, "position"))[1]["read"] == 1, "the user's own devices have it"
        assert not (await do(broker, "ann", "presence.watch", users=["bob"])).items[0].online
        await do(broker, "bob", "block", user="ann", blocked=False)
        assert (await do(broker, "ann", "members", conversation=pair)).items[1] == ("bob", 1, 1)


async def test_who_has_only_been_written_to_is_watched_by_nobody(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "SEND_AFTER_S", 0.0)

    async def is_online(watcher: str = "eve") -> bool:
        return bool((await do(broker, watcher, "presence.watch", users=["bob"])).items[0].online)

    async with durable_broker(directory) as broker, login(broker, "bob"), login(broker, "eve") as eve:
        pair = (await do(broker, "eve", "open", user="bob")).id
        await do(broker, "eve", "send", "k", conversation=pair, text="are you there?")
        await do(broker, "bob", "report_position", conversation=pair, read=1)
        assert not await is_online()
        assert (await do(broker, "eve", "show_typing", conversation=pair)).members == 1, "it says nothing of links"
        await do(broker, "bob", "send", "k", conversation=pair, text="yes")
        assert await event(eve, "presence.changed") == (0, {"online": True})
        assert await is_online()
    async with durable_broker(directory) as broker, login(broker, "bob"), login(broker, "eve") as eve:
        assert await is_online(), "also after a restart"
        await do(broker, "bob", "recall", conversation=pair, offset=2)
        assert await event(eve, "presence.changed") == (0, {"online": False})
        await group(broker, "eve", "bob")
        assert await event(eve, "presence.changed") == (0, {"online": True})
        await operate(broker, "conversations.set_members", "tea", (), ("bob",))
        assert await event(eve, "presence.changed") == (0, {"online": False}), "who has left is not seen any more"


async def test_users_together_write_so_much_to_a_group(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with durable_broker(directory) as broker:
        assert broker.talk is not None
        monkeypatch.setattr(broker.talk.conversations, "_group_rate", SingleGcra(Rate(0.001, 4)))
        id = await group(broker, "ann", "bob", "cem")
        for number in range(4):
            await do(broker, ("ann", "bob")[number % 2], "send", f"k{number}", conversation=id, text="x")
        with pytest.raises(OperationError) as caught:
            await do(broker, "cem", "send", "k", conversation=id, text="x")
        assert caught.value.code is ErrorCode.RATE_LIMITED
        assert caught.value.retry_after_ms > 0
        await operate(broker, "conversations.send", id, "from the shop", None, 0, (), "ann", key="k")
        pair = (await do(broker, "cem", "open", user="ann")).id
        await do(broker, "cem", "send", "p", conversation=pair, text="x")


async def test_the_accounts_of_one_address_open_a_share_of_the_conversations_of_a_user(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "OPENING_RATE", Rate(1e-6, 2))
    async with durable_broker(directory, tenants=[{"name": "acme"}]) as broker:
        for name in ("x1", "x2"):
            await do(broker, name, "open", user="ann")
        with pytest.raises(OperationError) as caught:
            await do(broker, "x3", "open", user="ann")
        assert (caught.value.code, caught.value.field) == (ErrorCode.RATE_LIMITED, "user")
        assert caught.value.retry_after_ms > 0
        assert (await do(broker, "x1", "open", user="ann")).other == "ann", "it is there already"
        await do(broker, "x3", "open", user="bob")
        await do(broker, "ann", "open", user="x3")
        await do(broker, replace(user("y"), address="192.0.2.9"), "open", user="ann")
        await do(broker, user("x3", "acme"), "open", user="ann")


async def test_what_waits_to_be_shown_to_large_groups_is_bounded_by_their_members(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "INBOX_MEMBERS", 2)
    monkeypatch.setattr(service, "MAX_PUSHED_LINKS", 5)
    async with (
        durable_broker(directory) as broker,
        login(broker, "u0") as link,
        login(broker, "u1"),
        login(broker, "u2"),
    ):
        assert broker.talk is not None
        talk = broker.talk.conversations
        id = await group(broker, "u0", "u1", "u2", "u3")
        for number in range(3):
            await do(broker, "u3", "send", f"k{number}", conversation=id, text=str(number))
            assert (await event(link))[1]["text"] == str(number)
        await until(lambda: not talk.waiting_pushes)
        monkeypatch.setattr(service, "MAX_PUSHED_LINKS", 2)
        await do(broker, "u3", "send", "k", conversation=id, text="too many")
        assert (talk.not_pushed, talk.waiting_pushes) == (1, 0)
        assert (await do(broker, "u0", "history", conversation=id, after=3)).items[0].text == "too many"


async def test_a_message_is_the_same_one_when_the_words_have_changed_meanwhile(directory: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("casino\n")
    lists = [{"name": "bad", "file": str(words), "action": "mask"}]
    async with durable_broker(directory) as broker:
        pair = (await do(broker, "ann", "open", user="bob")).id
        await do(broker, "ann", "send", "k", conversation=pair, text="the casino")
    async with durable_broker(directory, moderation={"lists": lists}) as broker:
        assert (await do(broker, "ann", "send", "k", conversation=pair, text="the casino")) == (1, True)
