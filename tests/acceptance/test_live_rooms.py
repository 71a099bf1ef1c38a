"""Systems that are live rooms, each with its acceptance check: a real broker, its ledger, real clients, HTTP."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.demo.features import FEATURES
from broker.demo.features.mic import holders_seen
from protocol.activities import ActivityEvent
from protocol.activities.sales import ClaimState
from protocol.clients import CallRefused, Client, Direct, RoomRefused, StreamEvent, open_client
from protocol.clients.events import Danmaku
from protocol.codes import Lane, MessageType, Outcome
from tests.support.acceptance import OPEN_SALE, ROOM, WIDE, Platform, Viewer, all_have, audience, eventually, platform
from tests.support.clocks import advance_to
from tests.support.processes import command, environment, roomcast, serving
from tests.support.tenants import token
from tests.support.tokens import SECRET

pytestmark = [pytest.mark.integration, pytest.mark.slow]

UNLIMITED = {"link": {"frames_per_s": 0}, "room": {**WIDE, "policy": "off", "likes_per_s": 100_000}}


async def test_lanying_im(directory: Path) -> None:
    """A show with 30 viewers: every code delivered once and acknowledged, all sums exact, the report has them."""
    users = [f"u{number}" for number in range(30)]
    async with platform(directory, **UNLIMITED) as shop:
        async with audience(shop.broker, users, reads_directs=True) as viewers:
            await shop.call("moderation.put_list", name="contacts", words=["加我微信"], action="hold", category="ads")
            said = await in_parallel([talk(viewer) for viewer in viewers])
            assert Counter(said) == {Outcome.ACCEPTED: 10 * len(users)}
            held = await viewers[0].room.post_danmaku("便宜 加我微信")
            assert held.outcome is Outcome.HELD
            for number in range(60):
                order = [f"order-{number}", users[number % 30], "", "rose", 1 + number % 3, 100]
                await shop.call("messages.publish", room=ROOM, type=int(MessageType.GIFT), payload=order)
            await play_lottery(shop, viewers)
            codes = {user: {"code": f"C-{user}"} for user in users}
            sent = await shop.call(
                "directs.send_many", batch="codes", type=4, template=["您的优惠码 {code}"],
                values=codes,
            )  # fmt: skip
            assert sent["sent"] == len(users)
            await eventually(lambda: all(any("优惠码" in str(d.payload) for d in viewer.directs) for viewer in viewers))
            for viewer in viewers:
                assert [d.payload for d in viewer.directs if d.type == 4] == [(f"您的优惠码 C-{viewer.user}",)]
            with trio.fail_after(60):
                while (await shop.call("directs.progress", batch="codes"))["acked"] < len(users):
                    await trio.lowlevel.checkpoint()
            assert not any("加我微信" in text for viewer in viewers for text in viewer.texts())
            (item,) = (await shop.call("moderation.queue", room=ROOM))["items"]
            await shop.call("moderation.decide", room=ROOM, items=[item["id"]], verdict="approve")
            await eventually(lambda: all(any("加我微信" in text for text in viewer.texts()) for viewer in viewers))
            room = await shop.call("rooms.get", room=ROOM)
            assert room["likes"] == 50 * len(users)
        report = (await shop.call("rooms.report", room=ROOM))["report"]
        show = report["interaction"]
        assert show["danmaku"] == 10 * len(users) + 1
        assert show["likes"] == 50 * len(users)
        gifts = sum(1 + number % 3 for number in range(60))
        assert (show["gifts"], show["gift_cents"]) == (60, gifts * 100)


async def talk(viewer: Viewer) -> list[Outcome | None]:
    """Post ten danmaku and fifty likes; return what became of the danmaku."""
    found = [(await viewer.room.post_danmaku(f"{viewer.user} 说 {number}")).outcome for number in range(10)]
    viewer.room.like(50)
    return found


async def in_parallel(calls: list[Any]) -> list[Any]:
    """Await all coroutines at once; return what they returned, joined."""
    found: list[Any] = []

    async def add(call: Any) -> None:
        found.extend(await call)

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(add, call)
    return found


async def play_lottery(shop: Platform, viewers: list[Viewer]) -> None:
    """Draw a lottery that all enter; each viewer has seen the same winners."""
    now_ms = shop.broker.clock.now_ms()
    close_at_ms = now_ms + 30_000
    await shop.call(
        "lotteries.create",
        room=ROOM,
        id="bag-1",
        open_at_ms=now_ms + 10_000,
        close_at_ms=close_at_ms,
        grades=[["first", 3]],
    )
    advance_to(now_ms + 10_000)
    await all_have(viewers, "lotteries.opened", 1)
    for viewer in viewers:
        await viewer.client.call("lotteries.enter", room=ROOM, id="bag-1")
    advance_to(close_at_ms)
    await all_have(viewers, "lotteries.drawn", 1)
    (drawn,) = viewers[0].activities("lotteries.drawn")
    assert all(viewer.activities("lotteries.drawn") == [drawn] for viewer in viewers)
    proof = await shop.call("lotteries.proof", room=ROOM, id="bag-1", limit=1000)
    assert len(proof["entries"]) == len(viewers)
    assert len(proof["winners"][0]) == 3


async def test_lanying_rtc(directory: Path) -> None:
    """Three seats, fifty requests: a seat has one holder at any time, and the token reaches the invited user alone."""
    rng = random.Random(9)
    users = [f"u{number}" for number in range(50)]
    async with platform(directory, **UNLIMITED) as shop, audience(shop.broker, users, reads_directs=True) as viewers:
        await shop.call("mic.set_seats", room=ROOM, seats=3)
        by_user = {viewer.user: viewer for viewer in viewers}
        for viewer in viewers:
            await viewer.client.call("mic.request", room=ROOM)
        on_mic: list[tuple[Viewer, int]] = []
        waiting = set(users)
        while waiting or on_mic:
            if waiting and len(on_mic) < 3:
                guest = by_user[rng.choice(sorted(waiting))]
                waiting.remove(guest.user)
                await shop.call("mic.invite", room=ROOM, user=guest.user, rtc_token=f"secret of {guest.user}")
                await eventually(partial(fences, guest))
                access = await guest.client.call("mic.accept", room=ROOM, fence=fences(guest)[0])
                assert access.rtc_token == f"secret of {guest.user}"
                await guest.client.call("mic.on_mic", room=ROOM, fence=fences(guest)[0])
                on_mic.append((guest, fences(guest)[0]))
            else:
                guest, fence = on_mic.pop(rng.randrange(len(on_mic)))
                await guest.client.call("mic.leave", room=ROOM, fence=fence)
        with pytest.raises(CallRefused):
            await viewers[0].client.call("mic.accept", room=ROOM, fence=fences(viewers[1])[0])
        await all_have(viewers, "mic.seat_left", len(users))
        for viewer in viewers:
            events = [e.payload for e in viewer.of(StreamEvent) if isinstance(e.payload, ActivityEvent)]
            taken, left, faults = holders_seen(events, 3)
            assert (taken, left, faults) == (50, 50, [])
            assert "secret of" not in repr(viewer.received) + repr(viewer.directs)


def fences(viewer: Viewer) -> list[int]:
    """Return the fences of the invitations that a viewer has."""
    found = [each.payload for each in viewer.directs if isinstance(each.payload, ActivityEvent)]
    return [each.data.fence for each in found if each.name == "mic.invited"]


async def test_a_large_e_commerce_platform(directory: Path) -> None:
    """The stream of statistics shows a change, and limits that are changed by the API hold for open links at once."""
    users = ["ann", "bob"]
    async with platform(directory, link={"frames_per_s": 0}, room=WIDE) as shop, audience(shop.broker, users) as people:
        ann = people[0]
        await ann.room.post_danmaku("第一")
        await chat_in_statistics(shop)
        assert (await ann.room.post_danmaku("第二")).outcome is Outcome.ACCEPTED
        await shop.call("moderation.set_modes", room=ROOM, slow_s=3600)
        assert (await ann.room.post_danmaku("第三")).outcome is Outcome.ACCEPTED
        assert (await ann.room.post_danmaku("太快了")).outcome is Outcome.REJECTED
        await shop.call("moderation.set_modes", room=ROOM, slow_s=0)
        assert (await ann.room.post_danmaku("第四")).outcome is Outcome.ACCEPTED
        assert ann.client.is_connected
        assert ann.room.recovered is None


async def chat_in_statistics(shop: Platform) -> None:
    """Read the stream of statistics until it shows a danmaku."""
    host, port = shop.broker.api_urls[0].removeprefix("http://").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET /stats/{ROOM} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        received = b""
        with trio.fail_after(60):
            while True:
                *lines, received = (received + await stream.receive_some()).split(b"\n")
                for line in lines:
                    if line.startswith(b"data:") and json.loads(line[5:])["lanes"]["chat"]["shown"] > 0:
                        return


async def test_brand_with_a_key_opinion_leader(directory: Path) -> None:
    """Five hundred claims of 50 users on a sale of twenty: twenty are confirmed, and the report has the funnel."""
    users = [f"u{number}" for number in range(50)]
    async with platform(directory, **UNLIMITED) as shop, audience(shop.broker, users) as viewers:
        await shop.call("products.put", room=ROOM, id="mug", version=1, title="Mug", price_cents=1990)
        await shop.call("products.explain", room=ROOM, id="mug")
        async with trio.open_nursery() as nursery:  # clicks are answered once a second
            for viewer in viewers:
                nursery.start_soon(click, viewer)
        await shop.call("sales.create", room=ROOM, **OPEN_SALE | {"stock": 20, "first_window_ms": 500})
        answers = await in_parallel([claims(viewer, 10) for viewer in viewers])
        assert len(answers) == 500
        reserved = {each.number for each in answers if each is not None and each.state is ClaimState.RESERVED}
        assert len(reserved) == 20
        for number in reserved:
            await shop.call("sales.confirm", room=ROOM, id="sale-1", number=number, order=f"order-{number}")
        (sale,) = (await shop.call("sales.list", room=ROOM))["items"]
        assert (sale["confirmed"], sale["reserved"], sale["available"]) == (20, 0, 0)
        report = (await shop.call("rooms.report", room=ROOM))["report"]
        (row,) = [each for each in report["commerce"]["products"] if each["product"] == "mug"]
        assert (row["shown"], row["clicked"], row["claimed"], row["confirmed"]) == (1, 50, 20, 20)


async def click(viewer: Viewer) -> None:
    """Report one click on the product."""
    await viewer.client.call("products.report_clicks", room=ROOM, id="mug", clicks=1, report=1)


async def claims(viewer: Viewer, count: int) -> list[Any]:
    """Claim again and again with other keys; return the answers, None where it was refused."""
    found: list[Any] = []
    for number in range(count):
        try:
            found.append(await viewer.client.call("sales.claim", room=ROOM, id="sale-1", key=f"{viewer.user}/{number}"))
        except CallRefused:
            found.append(None)
    return found


async def test_agora_signalling(directory: Path) -> None:
    """A must-deliver message survives kill -9 between its acceptance and its delivery, and arrives once."""
    options = ("--data-dir", str(directory), "--set", "api.listen=127.0.0.1:0")
    async with serving(*options) as broker:
        url = broker.announced["api"][0]
        sent = await roomcast("call", "directs.send", "user=ann", "type=4", 'payload=["您中奖了"]', "--url", url)
        assert sent.status == 0, sent.err
        broker.process.kill()
        await broker.wait()
    async with serving(*options) as broker:
        url = broker.announced["api"][0]
        async with open_client(broker.url, "dev:ann") as ann:
            assert (await next_direct(ann)).payload == ("您中奖了",)
            with trio.fail_after(60):
                while True:
                    state = await roomcast("call", "directs.list", "user=ann", "--url", url)
                    if [each["state"] for each in json.loads(state.out)["items"]] == ["acked"]:
                        break
        again = await roomcast("call", "directs.send", "user=ann", "type=4", 'payload=["第二"]', "--url", url)
        assert again.status == 0, again.err
        async with open_client(broker.url, "dev:ann") as ann:
            assert (await next_direct(ann)).payload == ("第二",)


async def next_direct(client: Client) -> Direct:
    """Return the next must-deliver message, acknowledged."""
    async with trio.open_nursery() as nursery:
        found: list[Direct] = []
        came = trio.Event()

        async def read() -> None:
            async for event in client.events():
                if isinstance(event, Direct):
                    found.append(event)
                    came.set()

        nursery.start_soon(read)
        with trio.fail_after(60):
            await came.wait()
        await trio.sleep(1.2)  # acknowledgements of a client leave once a second
        nursery.cancel_scope.cancel()
    assert len(found) == 1
    return found[0]


async def test_agora_rtc(directory: Path) -> None:
    """The name of the channel and its token are opaque, kept over a restart, and only the invited user has them."""
    secret = json.dumps({"channel": "ch/7 频道", "token": "007eJx" + "=" * 40}, ensure_ascii=False)
    async with platform(directory) as shop, audience(shop.broker, ["ann", "bob"], reads_directs=True) as (ann, bob):
        await shop.call("mic.set_seats", room=ROOM, seats=2)
        await ann.client.call("mic.request", room=ROOM)
        await shop.call("mic.invite", room=ROOM, user="ann", rtc_token=secret)
        await eventually(lambda: fences(ann) != [])
        fence = fences(ann)[0]
        with pytest.raises(CallRefused):
            await bob.client.call("mic.accept", room=ROOM, fence=fence)
        assert (await ann.client.call("mic.accept", room=ROOM, fence=fence)).rtc_token == secret
        assert "007eJx" not in repr(bob.received) + repr(bob.directs) + repr(bob.room.snapshot)
    async with platform(directory) as shop, audience(shop.broker, ["ann"]) as (ann,):
        assert (await ann.client.call("mic.accept", room=ROOM, fence=fence)).rtc_token == secret


async def test_dating_live_rooms(directory: Path) -> None:
    """Three on the mic before an audience; a private room wants a token for it; a guest sees masked names."""
    auth = {"secret": SECRET, "guest_access": [ROOM]}
    privacy = {"mask_names_for_guests": True}
    async with platform(directory, auth=auth, privacy=privacy) as shop:
        await shop.call("rooms.open", room="private-7", title="Just us")
        members = [token("", user, room="*") for user in ("matchmaker", "ann", "bob")]
        async with (
            audience(shop.broker, members, reads_directs=True) as three,
            audience(shop.broker, [None]) as (guest,),
        ):
            await shop.call("mic.set_seats", room=ROOM, seats=3)
            for viewer in three:
                await viewer.client.call("mic.request", room=ROOM)
            for viewer in three:
                invited = await shop.call("mic.invite", room=ROOM, user=viewer.user, rtc_token="t")
                await eventually(partial(fences, viewer))
                await viewer.client.call("mic.accept", room=ROOM, fence=invited["fence"])
                await viewer.client.call("mic.on_mic", room=ROOM, fence=invited["fence"])
            assert len((await shop.call("mic.get", room=ROOM))["taken"]) == 3
            await three[1].room.post_danmaku("你好")
            await eventually(lambda: guest.texts() == ["你好"] and three[0].texts() == ["你好"])
            (masked,), (plain,) = guest.of(Danmaku), three[0].of(Danmaku)
            assert plain.name == "ann"
            assert masked.name != "ann"
            assert "ann" not in (masked.name, masked.user_id)
            with pytest.raises(RoomRefused):
                await guest.client.join("private-7")
        async with shop.broker.connect(token("", "eve", room="live-*")) as eve:
            with pytest.raises(RoomRefused):
                await eve.join("private-7")
        async with shop.broker.connect(token("", "ann", room="private-*")) as ann:
            assert (await ann.join("private-7")).is_joined


async def test_head_live_platforms(directory: Path) -> None:
    """A flood of danmaku in the smallest size of its scenario: nothing of lanes 0 to 2 lost, the accounts add up."""
    result = directory / "flood.json"
    flood = [sys.executable, "-m", "bench", "run", "chat-flood", "--smoke", "--json", str(result)]
    done = await trio.run_process(flood, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    (run,) = json.loads(result.read_text("utf-8"))["runs"]
    assert run["invariants"]["checked"] > 0
    assert run["invariants"]["violations"] == []
    chat = run["lanes"]["chat"]
    assert chat["admitted"] == sum(chat[part] for part in ("shown", "merged", "sampled", "expired", "held"))
    for lane in ("control", "commerce", "paid"):
        assert run["lanes"][lane]["admitted"] == run["lanes"][lane]["shown"]


async def test_ideal_live_commerce_platform() -> None:
    """One show touches every feature, and platform, broker, ledger and viewers have counted the same."""
    show = command("demo", "--seconds", "5", "--viewers", "60", "--json")
    done = await trio.run_process(show, capture_stdout=True, capture_stderr=True, check=False, env=environment())
    said = done.stderr.decode()
    assert done.stdout.count(b"\n") == 1, said
    written = json.loads(done.stdout)
    assert written["differences"] == []
    assert written["balanced"] is True
    assert written["reconciled"] is True
    assert written["commerce"]["sale"]["confirmed"] + written["commerce"]["sale"]["left"] == 15
    for feature in FEATURES:
        assert all(count >= 0 for count in written["commerce"][feature.name].values())
    assert done.returncode == 0
    assert list(written["lanes"]) == [lane.name.lower() for lane in Lane]
    for account in written["lanes"].values():
        assert account["admitted"] == sum(account.values()) - account["admitted"]
        assert account["held"] == 0
    for lane in ("control", "commerce", "paid", "chat", "ambient"):
        assert written["lanes"][lane]["shown"] > 0
    assert written["viewers"] == 60
    assert written["deliveries"] > 1000
    assert written["reconnects"]["cut"] > 0
    for title in (
        "a quiet room",
        "chat flood",
        "gift storm",
        "a third is cut and comes back",
        "finale",
        "counting",
    ):
        assert title in said
    assert "Traceback" not in said
