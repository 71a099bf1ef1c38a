"""Words over a real broker: what links and callers see, names, webhooks, and other words without a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from broker.config.schema import ConfigError
from broker.rooms.screening import read_words
from broker.server import Broker
from protocol.codes import ErrorCode, MessageType, Outcome
from protocol.messages import Ack, AckResult, Auth, Authenticated, State, Tick
from tests.support.broker import RawLink, configuration, joined_link, running_broker
from tests.support.durable import durable_broker
from tests.support.receiver import receiver
from tests.support.until import until
from tests.support.webhooks import events_of, hook_settings

pytestmark = pytest.mark.integration

DANMAKU, ANNOUNCEMENT = MessageType.DANMAKU, MessageType.ANNOUNCEMENT


def settings(directory: Path, words: str, action: str = "mask", **more: Any) -> dict[str, Any]:
    file = directory / "words.txt"
    file.write_text(words, encoding="utf-8")
    listed = {"name": "ads", "file": str(file), "action": action, "category": "advertising", **more}
    return {"moderation": {"lists": [listed]}, "room": {"tick_ms": 20}}


class ReloadedBroker(Broker):
    """A broker whose configuration is read again from a dictionary of settings."""

    settings: dict[str, Any]

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, read_config=lambda: configuration(**self.settings), **options)


@asynccontextmanager
async def reloadable(directory: Path, words: str, **more: Any) -> AsyncIterator[ReloadedBroker]:
    found = settings(directory, words, **more)
    async with running_broker(kind=ReloadedBroker, **found) as broker:
        assert isinstance(broker, ReloadedBroker)
        broker.settings = found
        yield broker


async def said(link: RawLink, room: int, sequence: int, text: str) -> tuple[AckResult, str, str]:
    """Say something; return its result, its reason, and the text that the link sees, "" = none."""
    await link.post(room, sequence, DANMAKU, (text,))
    shown, result, reason = "", None, ""
    while result is None or (result.outcome in (Outcome.ACCEPTED, Outcome.MASKED) and not shown):
        frame = await link.next_frame()
        assert frame is not None
        if isinstance(frame.message, Tick) and frame.message.entries:
            shown = frame.message.entries[0].payload[0]
        elif isinstance(frame.message, Ack):
            (result,) = frame.message.results
            reason = "".join(each.text for each in frame.message.reasons)
    return result, reason, shown


async def test_words_are_masked_and_refused_with_their_category(tmp_path: Path) -> None:
    async with reloadable(tmp_path, "套现\n") as broker, joined_link(broker, "dev:ann") as (ann, room):
        result, _, shown = await said(ann, room, 1, "可以套*现吗")
        assert (result.outcome, shown) == (Outcome.MASKED, "可以***吗")
        broker.settings = settings(tmp_path, "套现\n赌博\n", "block")
        assert await broker.reload_files() == (["moderation.lists"], [])
        result, reason, _ = await said(ann, room, 2, "赌博吗")
        assert (result, reason) == ((2, Outcome.REJECTED, ErrorCode.BLOCKED), "advertising")
        assert broker.screening.screens.found == {"mask": 1, "block": 1}


async def test_the_same_file_with_other_words_holds_after_a_reload(tmp_path: Path) -> None:
    async with reloadable(tmp_path, "甲\n") as broker, joined_link(broker, "dev:ann") as (ann, room):
        (tmp_path / "words.txt").write_text("乙\n", encoding="utf-8")
        assert await broker.reload_files() == (["moderation.lists"], [])
        assert [(await said(ann, room, number, text))[2] for number, text in enumerate("甲乙", 1)] == ["甲", "*"]
        assert await broker.reload_files() == ([], [])


async def test_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    async with reloadable(tmp_path, "甲\n") as broker, joined_link(broker, "dev:ann") as (ann, room):
        (tmp_path / "words.txt").write_text("乙\n...\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"words\.txt, line 2: has no letter and no digit"):
            await broker.reload_files()
        assert (await said(ann, room, 1, "甲乙"))[2] == "*乙"


async def test_names_are_masked_where_others_see_them(tmp_path: Path) -> None:
    token = "dev:套现王"
    async with reloadable(tmp_path, "套现\n") as broker, joined_link(broker, "dev:bob") as (bob, _):
        async with joined_link(broker, token) as (ann, room):
            await ann.post(room, 1, DANMAKU, ("hello",))
            names: set[str] = set()
            while "hello" not in names:
                frame = await bob.next_frame()
                assert frame is not None
                if isinstance(frame.message, State):
                    names |= {name for user, name in frame.message.joins if user == "套现王"}
                elif isinstance(frame.message, Tick):
                    for entry in frame.message.entries:
                        names |= {entry.name, entry.payload[0]}
            assert names == {"**王", "hello"}
            await ann.send((Auth(token), 0, 7))
            _, again = await ann.expect(Authenticated)
            assert again.name == "**王"
            (member,) = [each for r in broker.hub for each in r.members.all() if each.user_id == "套现王"]
            assert member.name == "**王"


async def test_names_of_users_who_are_logged_in_are_masked_by_words_that_come_later(tmp_path: Path) -> None:
    async with (
        reloadable(tmp_path, "甲\n") as broker,
        joined_link(broker, "dev:套现王") as (ann, room),
        joined_link(broker, "dev:bob") as (bob, _),
    ):
        (tmp_path / "words.txt").write_text("甲\n套现\n", encoding="utf-8")
        await broker.reload_files()
        await until(lambda: all(each.name != "套现王" for r in broker.hub for each in r.members.all()))
        await ann.post(room, 1, DANMAKU, ("hello",))
        shown: list[tuple[str, str]] = []
        while not shown:
            _, tick = await bob.expect(Tick)
            shown = [(entry.name, entry.payload[0]) for entry in tick.entries]
        assert shown == [("**王", "hello")]
        (other,) = [each.name for r in broker.hub for each in r.members.all() if each.user_id == "bob"]
        assert other == "bob"


async def test_words_of_some_rooms_mask_names_there_alone(tmp_path: Path) -> None:
    async with (
        reloadable(tmp_path, "套现\n", rooms=["vip-*"]) as broker,
        joined_link(broker, "dev:套现", "vip-1"),
        joined_link(broker, "dev:套现", "lobby"),
    ):
        names = {room.name: [each.name for each in room.members.all()] for room in broker.hub}
        assert names == {"vip-1": ["**"], "lobby": ["套现"]}


async def test_what_a_backend_publishes_for_a_user_is_screened(tmp_path: Path) -> None:
    async with reloadable(tmp_path, "套现\n", action="block") as broker, joined_link(broker, "dev:bob") as (bob, _):
        fields: dict[str, Any] = {"room": "lobby", "as_user": "ann", "name": "套现王"}
        refused = await broker.call("messages.publish", type=int(DANMAKU), payload=("套现",), **fields)
        assert (refused.outcome, refused.code) == (Outcome.REJECTED, ErrorCode.BLOCKED)
        shown = await broker.call("messages.publish", type=int(DANMAKU), payload=("hello",), **fields)
        assert shown.outcome is Outcome.ACCEPTED
        _, tick = await bob.expect(Tick)
        assert [(each.name, each.payload[0]) for each in tick.entries] == [("**王", "hello")]


async def test_a_flagged_message_is_shown_and_reported(directory: Path) -> None:
    async with receiver() as shop:
        found = settings(directory, "便宜\n", "flag")
        found["webhooks"] = hook_settings(directory, shop.url, "message.flagged")
        async with durable_broker(directory, **found) as broker, joined_link(broker, "dev:ann") as (ann, room):
            assert (await said(ann, room, 1, "真便宜"))[2] == "真便宜"
            await until(lambda: len(events_of(shop)) == 1)
            (event,) = events_of(shop)
            assert event["data"] == {
                "type": "danmaku", "user": "ann", "name": "ann", "action": "flag",
                "findings": [{"word": "便宜", "list": "ads", "category": "advertising"}],
                "payload": {"text": "真便宜", "style": None},
            }  # fmt: skip


async def test_the_event_loop_goes_on_while_words_are_built(tmp_path: Path) -> None:
    words = "\n".join(chr(0x4E00 + number) + "词" for number in range(5_000))
    async with reloadable(tmp_path, words) as broker:
        turns = 0

        async def watch() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        (tmp_path / "words.txt").write_text(words + "\n甲乙", encoding="utf-8")
        listed = read_words(configuration(**broker.settings).moderation)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            built = await broker.screening.build(listed)
            nursery.cancel_scope.cancel()
        assert turns >= 5, "a turn for each thousand words"
        assert broker.screening.use(built, broker.config.moderation)
        screen = broker.hub.screens.of("lobby")
        assert screen is not None
        assert screen.masked_name("甲乙") == "**"


async def test_a_held_word_is_shown_once_a_moderator_has_approved_it(directory: Path) -> None:
    found = settings(directory, "套现\n", "hold")
    async with durable_broker(directory, **found) as broker, joined_link(broker, "dev:ann") as (ann, room):
        result, _, _ = await said(ann, room, 1, "来套现吧")
        assert result.outcome is Outcome.HELD
        (item,) = (await broker.call("moderation.queue", room="lobby")).items
        assert [each.word for each in item.findings] == ["套现"]
        assert (item.reason, item.held_by.name) == ("advertising", "WORDS")
        await broker.call("moderation.decide", room="lobby", items=(item.id,), verdict=0)
        _, tick = await ann.expect(Tick)
        assert [each.payload[0] for each in tick.entries] == ["来套现吧"]
