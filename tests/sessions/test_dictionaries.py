"""The deployment's dictionary on links: fetched once, kept over links, changed while they are open, and refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import protocol.clients.dictionary_fetch as fetching
import protocol.connection as wire
from broker.config.dictionaries import read_dictionary
from broker.operations.calls import HANDLERS
from broker.server import Broker
from protocol.clients import Client, Danmaku, DictionaryCache, Fault, JoinedRoom, open_client
from protocol.codes import Codec, ErrorCode, Feature, MessageType
from protocol.compression import decompress
from protocol.dictionaries import BUILT_IN, Dictionary, to_file, to_text
from protocol.messages import Auth, Call, ErrorReply, Result
from protocol.operations import BY_NAME
from protocol.operations.dictionaries import DictionaryText, GetDictionary, UseDictionary
from tests.support.broker import RawLink, configuration, raw_link, running_broker, sessions_of
from tests.support.until import until

pytestmark = pytest.mark.integration

TEXTS = ("红色还有货吗", "蓝色还有货吗", "绿色还有货吗")
A, B, C = (Dictionary(text.encode()) for text in TEXTS)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "FETCH_AFTER_S", (0.0, 0.0))


@pytest.fixture
def codecs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Codecs of the compressed frames that clients have read."""
    found: list[int] = []

    def read(data: bytes | bytearray, codec: int, dictionaries: Any) -> bytes:
        found.append(codec)
        return decompress(data, codec, dictionaries)

    monkeypatch.setattr(wire, "decompress", read)
    return found


def file_of(folder: Path, dictionary: Dictionary) -> str:
    path = folder / dictionary.name[:8]
    path.write_bytes(to_file(dictionary))
    return str(path)


def write(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)


@asynccontextmanager
async def viewer(broker: Broker, cache: DictionaryCache, user: str = "ann") -> AsyncIterator[tuple[Client, JoinedRoom]]:
    host, port = broker.addresses[0][:2]
    async with open_client(f"roomcast://{host}:{port}", f"dev:{user}:host", dictionaries=cache) as client:
        yield client, await client.join("lobby")


async def shown(room: JoinedRoom, text: str) -> None:
    """Post a danmaku and read it."""
    await room.post(MessageType.DANMAKU, (text,))
    with trio.fail_after(5):
        async for event in room:
            if isinstance(event, Danmaku) and event.payload.text == text:
                return


async def has_codec(broker: Broker, *expected: Codec) -> None:
    await until(lambda: [each.codec for each in sessions_of(broker)] == list(expected))


async def test_a_dictionary_is_fetched_once_and_kept_for_the_next_link(
    tmp_path: Path, codecs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DictionaryCache()
    async with running_broker(link={"dictionary_file": file_of(tmp_path, A)}) as broker:
        async with viewer(broker, cache) as (_, room):
            await has_codec(broker, Codec.LZ4_DICT_2)
            await shown(room, TEXTS[0])
            assert codecs[-1] == Codec.LZ4_DICT_2
        assert cache.names == (A.name,)
        monkeypatch.setitem(HANDLERS, "dictionaries.get", None)
        async with viewer(broker, cache) as (client, room):
            await has_codec(broker, Codec.LZ4_DICT_2)
            assert client.server is not None
            assert [each.sha256 for each in client.server.dictionaries] == [A.name]
            await shown(room, TEXTS[0])
            assert codecs[-1] == Codec.LZ4_DICT_2


async def test_two_are_in_use_during_a_change_and_the_links_of_the_oldest_go_on_without(
    tmp_path: Path, codecs: list[int]
) -> None:
    old = DictionaryCache()
    async with (
        running_broker(link={"dictionary_file": file_of(tmp_path, A)}) as broker,
        viewer(broker, old) as (_, ann),
    ):
        await has_codec(broker, Codec.LZ4_DICT_2)
        assert broker.reload(configuration(link={"dictionary_file": file_of(tmp_path, B)})) == []
        async with viewer(broker, DictionaryCache(), "bob") as (_, bob):
            await has_codec(broker, Codec.LZ4_DICT_2, Codec.LZ4_DICT_3)
            await shown(ann, TEXTS[0])
            await shown(bob, TEXTS[1])
            assert {Codec.LZ4_DICT_2, Codec.LZ4_DICT_3} <= set(codecs)
            broker.reload(configuration(link={"dictionary_file": file_of(tmp_path, C)}))
            await has_codec(broker, Codec.LZ4_DICT_1, Codec.LZ4_DICT_3)
            await shown(ann, TEXTS[2])
            broker.reload(configuration())
            await shown(bob, "都有货")
            assert broker.hub.dictionaries.in_force is None
            async with viewer(broker, DictionaryCache(), "eve") as (client, _):
                assert client.server is not None
                assert client.server.dictionaries == ()


async def test_a_reload_reads_the_same_file_again_and_a_damaged_one_changes_nothing(tmp_path: Path) -> None:
    name = file_of(tmp_path, A)
    config = configuration(link={"dictionary_file": name})
    async with running_broker(link={"dictionary_file": name}) as broker:
        write(name, to_file(B))
        assert broker.reload(config) == []
        assert broker.hub.dictionaries.in_force is not None
        assert broker.hub.dictionaries.in_force.name == B.name
        write(name, to_file(B)[:-1])
        with pytest.raises(ValueError, match="truncated or changed"):
            broker.reload(config)
        assert broker.hub.dictionaries.in_force is not None
        assert broker.hub.dictionaries.in_force.name == B.name


@pytest.mark.parametrize("damage", ["truncated", "other bytes", "no base64"])
async def test_a_dictionary_that_arrives_damaged_is_a_fault_and_the_link_goes_on(
    damage: str, tmp_path: Path, codecs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_broker(link={"dictionary_file": file_of(tmp_path, A)}) as broker:
        whole = to_text(A)
        other = DictionaryCache()
        damaged = {"truncated": whole[:-8], "other bytes": "eJxLTAIAASUAww==", "no base64": "?"}[damage]
        answer = DictionaryText(A.name, len(A.data), damaged)
        monkeypatch.setitem(HANDLERS, "dictionaries.get", lambda parts, caller, request: answer)
        async with viewer(broker, other) as (client, room):
            with trio.fail_after(5):
                (fault,) = [event async for event in first_fault(client)]
            assert (fault.code, fault.field) == (0, "dictionaries")
            assert "dictionary" in fault.message
            await shown(room, "什么时候发货")
            assert codecs == [Codec.LZ4_DICT_1]
            assert other.names == ()


async def first_fault(client: Client) -> AsyncIterator[Fault]:
    async for event in client.events():
        if isinstance(event, Fault):
            yield event
            return


async def asked(link: RawLink, name: str, request: tuple[Any, ...]) -> Any:
    await link.send((Call(BY_NAME[name].number, "", request), 0, 7))
    while True:
        frame = await link.next_frame()
        assert frame is not None
        if isinstance(frame.message, (Result, ErrorReply)):
            return frame.message


async def test_what_is_not_served_and_what_a_link_cannot_have_is_refused(tmp_path: Path) -> None:
    async with (
        running_broker(link={"dictionary_file": file_of(tmp_path, A)}) as broker,
        raw_link(broker) as plain,
        raw_link(broker) as link,
    ):
        await plain.login("dev:bob")
        await link.hello(int(Feature.LZ4 | Feature.CALL))
        await link.send((Auth("dev:ann"), 0, 0))
        for name, request in (
            ("dictionaries.get", GetDictionary(B.name)),
            ("dictionaries.use", UseDictionary(B.name, 3)),
            ("dictionaries.use", UseDictionary(A.name, 4)),
        ):
            found = await asked(link, name, request)
            assert (found.code, found.field) == (ErrorCode.BAD_FIELD, "sha256")
        assert (await asked(plain, "dictionaries.use", UseDictionary(A.name, 3))).code == ErrorCode.OUT_OF_STATE
        assert (await asked(link, "dictionaries.use", UseDictionary(A.name, 3))).result == (Codec.LZ4_DICT_2,)
        assert (await asked(link, "dictionaries.get", GetDictionary(BUILT_IN.name))).result.nbytes == len(BUILT_IN.data)
        assert [each.codec for each in sessions_of(broker)] == [Codec.PLAIN, Codec.LZ4_DICT_2]


def test_a_file_that_cannot_be_used_is_named_with_the_rule(tmp_path: Path) -> None:
    assert read_dictionary(None) is None
    missing, words = str(tmp_path / "missing"), tmp_path / "words"
    words.write_text("多少钱")
    with pytest.raises(ValueError, match=r"cannot read .*missing"):
        read_dictionary(missing)
    with pytest.raises(ValueError, match="words: is no dictionary of `roomcast train-dictionary`"):
        read_dictionary(str(words))
