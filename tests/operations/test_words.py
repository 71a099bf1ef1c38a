"""Lists of words put over the API: they hold when the call is answered, after a kill too, and in their tenant alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.core.moderation.words import WordList
from broker.operations.caller import Caller, OperationError
from broker.rooms.word_lists import OwnList
from protocol.codes import ErrorCode, MessageType, Role
from protocol.operations.words import MAX_LISTS, MAX_ROOM_LISTS, StoredWordList, WordAction
from tests.support.broker import joined_link, running_broker
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import disk_error
from tests.support.shows import act
from tests.support.tokens import SECRET
from tests.support.until import until

pytestmark = pytest.mark.integration


async def tried(broker: Any, text: str, **fields: Any) -> tuple[WordAction | None, str]:
    found = await broker.call("moderation.test", text=text, **fields)
    return found.action, found.text


def configured(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "words.txt"
    file.write_text("赌博\n", encoding="utf-8")
    return {"lists": [{"name": "worst", "file": str(file), "action": "block", "category": "gambling"}]}


async def test_a_list_holds_from_its_answer_on_and_after_a_kill(directory: Path, tmp_path: Path) -> None:
    settings = {"moderation": configured(tmp_path)}
    async with durable_broker(directory, **settings) as broker:
        assert await tried(broker, "来套现") == (None, "来套现")
        fields: dict[str, Any] = {"category": "advertising", "exceptions": ("整套现货",)}
        stored = await broker.call("moderation.put_list", name="ads", words=("套现",), action="mask", **fields)
        assert stored == StoredWordList(1, 2)
        assert await tried(broker, "来套现，整套现货") == (WordAction.MASK, "来**，整套现货")
        async with joined_link(broker, "dev:ann") as (ann, room):
            await ann.post(room, 1, MessageType.DANMAKU, ("来套现",))
            await until(lambda: broker.screening.screens.found["mask"] == 1)
    async with durable_broker(directory, **settings) as broker:  # what was before ended without a shutdown
        assert await tried(broker, "来套现") == (WordAction.MASK, "来**")
        listed = (await broker.call("moderation.lists")).items
        assert [each[:2] + each[-1:] for each in listed] == [("ads", 1, False), ("worst", 1, True)]
        content = await broker.call("moderation.get_list", name="ads")
        assert content == ("ads", ("套现",), WordAction.MASK, "advertising", ("整套现货",), ("*",), 2, None)
        assert (await broker.call("moderation.delete_list", name="ads")).deleted
        assert not (await broker.call("moderation.delete_list", name="ads")).deleted
        assert await tried(broker, "来套现") == (None, "来套现")
        assert (await tried(broker, "赌博"))[0] is WordAction.BLOCK
    async with durable_broker(directory, **settings) as broker:
        assert await tried(broker, "来套现") == (None, "来套现")


async def test_a_test_says_what_was_found_where_and_why(directory: Path, tmp_path: Path) -> None:
    moderation = {**configured(tmp_path), "detectors": {"links": "hold"}}
    async with running_broker(moderation=moderation) as broker:
        found = await broker.call("moderation.test", text="去赌博 shop.example.com", room="lobby")
        assert [(each.start, each.end, each.word, each.list, each.category) for each in found.findings] == [
            (1, 3, "赌博", "worst", "gambling"), (4, 20, "link", "", "link"),
        ]  # fmt: skip
        assert (found.action, broker.screening.screens.found) == (WordAction.BLOCK, {})


async def test_a_list_of_some_rooms_holds_there(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await broker.call("moderation.put_list", name="vip", words=("甲",), action=5, rooms=("vip-*",))
        assert (await tried(broker, "甲", room="vip-1"))[0] is WordAction.BLOCK
        assert (await tried(broker, "甲", room="lobby"))[0] is None
        assert (await tried(broker, "甲"))[0] is None


async def test_a_list_is_of_its_tenant(directory: Path) -> None:
    tenants = [{"name": "acme"}, {"name": "globex"}]
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=tenants) as broker:
        fields: dict[str, Any] = {"words": ("甲",), "action": 5, "rooms": ("live-*",)}
        await broker.call("moderation.put_list", name="x", tenant="acme", **fields)
        assert (await tried(broker, "甲", room="live-1", tenant="acme"))[0] is WordAction.BLOCK
        for tenant in ("", "globex"):
            assert (await tried(broker, "甲", room="live-1", tenant=tenant))[0] is None
            assert (await broker.call("moderation.lists", tenant=tenant)).items == ()
            with pytest.raises(OperationError, match="names no list"):
                await broker.call("moderation.get_list", name="x", tenant=tenant)
        content = await broker.call("moderation.get_list", name="x", tenant="acme")
        assert content.rooms == ("live-*",)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"words": ()}, ErrorCode.BAD_FIELD, "words"),
        ({"words": ("好", "...")}, ErrorCode.BAD_FIELD, "words[1]"),
        ({"exceptions": ("...",)}, ErrorCode.BAD_FIELD, "exceptions[0]"),
        ({"words": ("x" * 65,)}, ErrorCode.BAD_FIELD, "words[0]"),
        ({"rooms": ("a b",)}, ErrorCode.BAD_FIELD, "rooms[0]"),
        ({"name": "worst"}, ErrorCode.OUT_OF_STATE, "name"),
        ({"words": ("a", "b", "c", "d")}, ErrorCode.OUT_OF_STATE, "words"),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: Any, code: ErrorCode, field: str
) -> None:
    async with durable_broker(directory, moderation=configured(tmp_path)) as broker:
        monkeypatch.setattr("broker.operations.words.MAX_TENANT_WORDS", 3)
        with pytest.raises(OperationError) as caught:
            await broker.call("moderation.put_list", **{"name": "ads", "words": ("甲",), "action": 5, **fields})
        assert (caught.value.code, caught.value.field) == (code, field)
        assert [each.name for each in (await broker.call("moderation.lists")).items] == ["worst"]
        assert (await broker.call("moderation.put_list", name="ads", words=("甲",), action=5)) == StoredWordList(1, 1)


async def test_a_tenant_has_a_bounded_number_of_lists(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        for number in range(MAX_LISTS):
            own = OwnList(WordList(f"l{number:02}", WordAction.FLAG, ("甲",)), ("*",))
            assert await broker.word_lists.put("", own)
        with pytest.raises(OperationError, match="delete one"):
            await broker.call("moderation.put_list", name="more", words=("甲",), action=1)
        assert (await broker.call("moderation.put_list", name="l00", words=("乙",), action=1)).lists == MAX_LISTS


async def test_what_the_ledger_cannot_take_does_not_hold(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await broker.call("moderation.put_list", name="ads", words=("甲",), action=5)
        assert broker.ledger is not None
        disk(broker).fault = disk_error("SQLITE_FULL")
        with pytest.raises(OperationError) as caught:
            await broker.call("moderation.put_list", name="ads", words=("乙",), action=5)
        assert caught.value.code is ErrorCode.OVERLOADED
        assert [(await tried(broker, each))[0] for each in "甲乙"] == [WordAction.BLOCK, None]


async def test_without_a_ledger_lists_are_of_the_configuration_alone() -> None:
    async with running_broker() as broker:
        put: dict[str, Any] = {"words": ("甲",), "action": 5}
        for name, fields in (("put_list", put), ("delete_list", {})):
            with pytest.raises(OperationError) as caught:
                await broker.call(f"moderation.{name}", name="x", **fields)
            assert caught.value.code is ErrorCode.NOT_KEPT


async def test_while_one_list_is_put_another_is_refused(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        lists = broker.word_lists
        first = lists.put("", OwnList(WordList("a", WordAction.BLOCK, ("甲",)), ("*",)))
        second = lists.put("", OwnList(WordList("b", WordAction.BLOCK, ("乙",)), ("*",)))
        results: list[bool] = []

        async def wait(waiting: Any) -> None:
            results.append(await waiting)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, first)
            nursery.start_soon(wait, second)
        assert sorted(results) == [False, True]
        assert len(lists.of("")) == 1


async def test_a_large_list_comes_in_pages_and_is_whole_after_a_restart(directory: Path) -> None:
    words = [f"word{number:05}" for number in range(1200)]
    async with durable_broker(directory) as broker:
        await broker.call("moderation.put_list", name="big", words=words[:700], action=5, exceptions=("xword00001x",))
        assert await broker.call("moderation.add_words", name="big", words=words[600:]) == StoredWordList(1, 1201)
        with pytest.raises(OperationError) as caught:
            await broker.call("moderation.add_words", name="big", words=("good", "..."))
        assert (caught.value.code, caught.value.field) == (ErrorCode.BAD_FIELD, "words[1]")
        with pytest.raises(OperationError, match="names no list"):
            await broker.call("moderation.add_words", name="other", words=("good",))
    async with durable_broker(directory) as broker:
        assert (await tried(broker, "word01199"))[0] is WordAction.BLOCK
        found: list[str] = []
        exceptions: list[str] = []
        after: int | None = 0
        while after is not None:
            page = await broker.call("moderation.get_list", name="big", after=after, limit=500)
            assert page.total == 1201
            found += page.words
            exceptions += page.exceptions
            after = page.next
        assert (found, exceptions) == (words, ["xword00001x"])
        await broker.call("moderation.put_list", name="big", words=("one",), action=5)
    async with durable_broker(directory) as broker:  # the records of the longer list are gone
        assert (await tried(broker, "word01199"))[0] is None
        assert (await broker.call("moderation.get_list", name="big")).total == 1


async def test_staff_change_and_read_the_lists_of_their_own_rooms_alone(directory: Path) -> None:
    def of(user: str, **roles: Role) -> Caller:
        return Caller(user, user, "", roles.get, frozenset(roles.values()), in_all_rooms=False)

    host, viewer, moderator = of("max", arena=Role.HOST), of("ann", arena=Role.VIEWER), of("mod", arena=Role.MODERATOR)
    async with durable_broker(directory) as broker:
        await broker.call("moderation.put_list", name="theirs", words=("乙",), action=5)

        async def put(caller: Caller, name: str = "own", rooms: Sequence[str] = ("arena",)) -> Any:
            return await act(
                broker, caller, "moderation.put_list", name=name, words=["甲"], action="block", rooms=rooms
            )

        await put(host)
        assert (await tried(broker, "甲", room="arena"))[0] is WordAction.BLOCK
        assert (await tried(broker, "甲", room="other"))[0] is None
        for caller, name, rooms in (
            (viewer, "own", ("arena",)), (moderator, "own", ("arena",)), (host, "own", ()), (host, "own", ("other",)),
            (host, "own", ("a*",)), (host, "theirs", ("arena",)), (host, "own", ("arena", "other")),
        ):  # fmt: skip
            with pytest.raises(OperationError) as caught:
                await put(caller, name, rooms)
            assert caught.value.code is ErrorCode.NOT_ALLOWED
        for operation in ("get_list", "delete_list"):
            with pytest.raises(OperationError) as caught:
                await act(broker, host, f"moderation.{operation}", name="theirs")
            assert caught.value.code is ErrorCode.NOT_ALLOWED
        assert [each.name for each in (await act(broker, host, "moderation.lists")).items] == ["own"]
        for number in range(MAX_ROOM_LISTS - 1):
            assert await broker.word_lists.put(
                "", OwnList(WordList(f"l{number}", WordAction.FLAG, ("甲",)), ("arena",))
            )
        with pytest.raises(OperationError) as caught:
            await put(of("eve", arena=Role.HOST), "more")
        assert (caught.value.code, caught.value.field) == (ErrorCode.OUT_OF_STATE, "rooms")
        assert (await act(broker, host, "moderation.delete_list", name="own")).deleted
