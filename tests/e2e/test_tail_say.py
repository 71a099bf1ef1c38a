"""Three terminals, as in the README: ``serve``, ``tail lobby``, ``say lobby 你好``."""

from __future__ import annotations

import json
import signal

import pytest

from protocol.clients import open_client
from protocol.codes import Outcome
from tests.support.processes import roomcast, running, serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def say(url: str, text: str) -> None:
    async with open_client(url, "dev:anna") as client:
        room = await client.join("lobby")
        assert (await room.post_danmaku(text)).outcome is Outcome.ACCEPTED


async def test_what_one_user_posts_the_other_sees() -> None:
    async with serving() as broker, running("tail", "lobby", "--url", broker.url) as tail:
        assert "joined lobby as guest" in await tail.out.next()
        said = await roomcast("say", "lobby", "你好", "--url", broker.url, "--as", "anna")
        assert (said.status, said.out) == (0, "shown\n")
        assert (await tail.out.until("anna: ")).endswith("anna: 你好")

        again = await roomcast("say", "lobby", "你好", "--url", broker.url, "--as", "anna")
        assert again.status == 1
        assert "DUPLICATE_TEXT" in again.out

        tail.signal(signal.SIGINT)
        assert await tail.wait(10) == 0
        with pytest.raises(EOFError):
            await tail.err.next()


async def test_announcements_gifts_and_likes_are_posted_and_printed() -> None:
    async with serving() as broker, running("tail", "lobby", "--url", broker.url) as tail:
        await tail.out.until("joined lobby")
        await roomcast("say", "lobby", "今天八折", "--type", "announcement", "--url", broker.url)
        assert (await tail.out.until("今天八折")).endswith("** 今天八折")
        gift = await roomcast("say", "lobby", "rocket", "--type", "gift", "--as", "bob", "--url", broker.url)
        assert gift.out == "published as event 2 of the room\n"
        assert "bob gave rocket x1" in await tail.out.until("$$")
        order = ["say", "lobby", "rose", "--type", "gift", "--order-id", "o-1", "--as", "bob", "--url", broker.url]
        first, again = await roomcast(*order), await roomcast(*order)
        assert first.out == again.out  # the end of the combo before may be an event as well
        assert first.out.startswith("published as event ")
        for _ in range(30):  # a busy machine sheds likes
            liked = await roomcast("say", "lobby", "7", "--type", "like", "--as", "bob", "--url", broker.url)
            if liked.status == 0:
                break
        assert (liked.status, liked.out) == (0, "counted: 7 likes\n"), liked.err
        await tail.out.until("7 likes")


async def test_a_burst_prints_each_result_and_fails_as_a_whole() -> None:
    async with serving() as broker:
        said = await roomcast(
            "say", "lobby", "{n} 号", "--count", "5", "--rate", "100", "--as", "anna", "--url", f"ws://127.0.0.1:{broker.port}/"
        )  # fmt: skip
        assert said.status == 1
        assert said.out.count(": shown\n") == 3
        assert said.out.count(": limited: too fast, try again in ") == 2
        assert said.out.endswith("3 of 5 shown, merged or counted\n")


async def test_a_user_that_is_banned_reads_why_and_the_command_fails() -> None:
    async with serving() as broker, running("tail", "lobby", "--url", broker.url, "--token", "dev:eve") as tail:
        await tail.out.until("joined lobby")
        async with open_client(broker.url, "dev:max:host") as host:
            await host.join("lobby")
            await host.call("users.kick", room="lobby", user="eve", ban_s=600)
        assert "banned" in await tail.out.until("!!")
        assert await tail.wait(60) == 1
        assert await tail.err.next() == "Error: room lobby: banned"


async def test_json_is_one_object_a_line_and_the_time_ends_it() -> None:
    async with serving() as broker:
        url = f"ws://127.0.0.1:{broker.port}/"
        async with running("tail", "lobby", "--url", url, "--json", "--tier", "5", "--seconds", "2") as tail:
            first = json.loads(await tail.out.next())
            assert (first["event"], first["room"], first["tier"]) == ("snapshot", "lobby", "low")
            await say(broker.url, "你好")
            shown = json.loads(await tail.out.until('"danmaku"'))
            assert (shown["text"], shown["user_id"], shown["count"]) == ("你好", "anna", 1)
            account = json.loads(await tail.out.until('"tick_account"'))["account"]
            assert account["admitted"] == account["shown"] == 1
            assert await tail.wait(20) == 0


async def test_tail_survives_a_restart_of_the_broker() -> None:
    async with serving("--set", "link.drain_s=0.5") as broker:
        port = str(broker.port)
        async with running("tail", "lobby", "--url", broker.url) as tail:
            await tail.out.until("joined lobby")
            broker.signal(signal.SIGTERM)
            await tail.out.until("going away: the broker restarts; trying again in")
            assert await broker.wait(20) == 0
            async with serving("--port", port) as second:
                await tail.out.until("rejoined lobby")
                await tail.out.until("the room started a new stream")
                await say(second.url, "又见面了")
                await tail.out.until("anna: 又见面了")
                tail.signal(signal.SIGTERM)
                assert await tail.wait(10) == 0


async def test_a_closed_output_ends_tail_without_a_traceback() -> None:
    async with serving() as broker, running("tail", "lobby", "--url", broker.url) as tail:
        await tail.out.until("joined lobby")
        assert tail.process.stdout is not None
        await tail.process.stdout.aclose()
        await say(broker.url, "1")
        assert await tail.wait(20) == 1
        with pytest.raises(EOFError):
            await tail.err.until("Traceback")
