"""Systems that are messengers, each with its acceptance check: a real broker, its ledger, real clients."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from protocol.activities import ActivityEvent
from protocol.activities.conversations import MediaReference
from protocol.codes import MediaKind
from tests.support.acceptance import Viewer, audience, eventually, platform
from tests.support.api import call
from tests.support.broker import raw_link, sessions_of
from tests.support.processes import Eager

pytestmark = [pytest.mark.integration, pytest.mark.slow]

UNLIMITED = {"link": {"frames_per_s": 0}}


def of(viewer: Viewer, name: str, conversation: str) -> list[Any]:
    """Return the data of the events of a conversation, in the order of their arrival."""
    events = [each.payload for each in viewer.directs if isinstance(each.payload, ActivityEvent)]
    return [each.data for each in events if (each.name, each.id) == (f"conversations.{name}", conversation)]


def offsets(viewer: Viewer, conversation: str) -> list[int]:
    """Return the offsets of the messages that a device was sent."""
    return [each.offset for each in of(viewer, "message", conversation)]


def card(id: str, status: str, **more: Any) -> dict[str, Any]:
    return {"kind": "payment", "id": id, "status": status, "version": 0, "title": "Payment", **more}


def shown_cards(viewer: Viewer) -> dict[str, list[str]]:
    """Return the states that a client was sent of each card, in the order of their arrival."""
    events = [each.payload for each in viewer.directs if isinstance(each.payload, ActivityEvent)]
    shown: dict[str, list[str]] = {}
    for each in events:
        if each.name == "cards.changed":
            shown.setdefault(each.id, []).append(each.data.status.name)
    return shown


def presence_of(viewer: Viewer, user: str) -> list[bool]:
    """Return the changes of a user's presence that a client was sent."""
    events = [each.payload for each in viewer.directs if isinstance(each.payload, ActivityEvent)]
    return [each.data.online for each in events if (each.name, each.id) == ("presence.changed", user)]


async def test_wechat(directory: Path) -> None:
    """One user on three devices: the position moves with the user, no message is missing and none shown twice."""
    async with (
        platform(directory, **UNLIMITED) as shop,
        audience(shop.broker, ["ann"], reads_directs=True) as (ann,),
        audience(shop.broker, ["bob", "bob"], reads_directs=True) as (phone, web),
    ):
        pair = (await ann.client.call("conversations.open", user="bob")).id
        for number in range(1, 11):
            await ann.client.call("conversations.send", conversation=pair, text=f"第 {number} 条", key=f"m-{number}")
        for device in (phone, web):
            await eventually(lambda device=device: len(set(offsets(device, pair))) == 10)  # type: ignore[misc]
        await phone.client.call("conversations.report_position", conversation=pair, delivered=10, read=6)
        await eventually(lambda: of(web, "position", pair) != [])
        assert (of(web, "position", pair)[-1].read, of(web, "position", pair)[-1].unread) == (6, 4)
        async with audience(shop.broker, ["bob"], reads_directs=True) as (tablet,):
            (row,) = (await tablet.client.call("conversations.list")).items
            assert (row.read, row.unread, row.last) == (6, 4, 10)
            rest = await tablet.client.call("conversations.history", conversation=pair, after=row.read, limit=100)
            assert [each.text for each in rest.items] == [f"第 {number} 条" for number in range(7, 11)]
            await tablet.client.call("conversations.report_position", conversation=pair, delivered=10, read=10)
            await eventually(lambda: all(of(each, "position", pair)[-1].unread == 0 for each in (phone, web)))
        for device in (phone, web):
            shown = offsets(device, pair)
            assert shown == sorted(set(shown)) == list(range(1, 11))


async def test_qq(directory: Path) -> None:
    """A group of five hundred with pictures by reference: references are carried intact, limits of a message hold."""
    members = [f"u{number}" for number in range(500)]
    picture = MediaReference("https://img.example/a.jpg", MediaKind.IMAGE, 123_456, "ab" * 32)
    async with (
        platform(directory, **UNLIMITED) as shop,
        audience(shop.broker, members[:6], reads_directs=True) as online,
    ):
        await shop.call("conversations.create", id="tea", title="Tea", users=members)
        await online[0].client.call("conversations.send", conversation="tea", text="看", media=picture, key="m-1")
        await eventually(lambda: all(offsets(each, "tea") == [1] for each in online[1:]))
        for viewer in online[1:]:
            (message,) = of(viewer, "message", "tea")
            assert message.media == picture
        too_long = {"conversation": "tea", "text": "长" * 501}
        refusal = await call(shop.http, "conversations.send", "m-2", as_user="u1", **too_long)
        assert (refusal.status_code, refusal.json()["field"]) == (400, "text")
        forged = {"conversation": "tea", "text": "看", "media": {**picture._asdict(), "sha256": "x", "kind": "image"}}
        refusal = await call(shop.http, "conversations.send", "m-3", as_user="u1", **forged)
        assert (refusal.status_code, refusal.json()["field"]) == (400, "media.sha256")
        late = await shop.call("conversations.history", conversation="tea")
        assert [each["media"]["sha256"] for each in late["items"]] == ["ab" * 32]


async def test_whatsapp(directory: Path) -> None:
    """Receipts go from sent to delivered to read in order, while the receiver loses its link at every fifth message."""
    async with (
        platform(directory, **UNLIMITED) as shop,
        audience(shop.broker, ["ann", "bob"], reads_directs=True, rng=Eager()) as (ann, bob),
    ):
        pair = (await ann.client.call("conversations.open", user="bob")).id
        for number in range(1, 26):
            await ann.client.call("conversations.send", conversation=pair, text=f"{number}", key=f"m-{number}")
            if number % 5 == 0:
                await shop.call("users.disconnect", user="bob", reconnect=True)
            await eventually(lambda number=number: number in offsets(bob, pair))  # type: ignore[misc]
            await bob.client.call("conversations.report_position", conversation=pair, delivered=number, read=number - 1)
        await bob.client.call("conversations.report_position", conversation=pair, delivered=3, read=25)
        await eventually(lambda: [each.read for each in of(ann, "position", pair)][-1:] == [25])
        steps = [(each.delivered, each.read) for each in of(ann, "position", pair)]
        assert steps == sorted(steps)
        assert all(read <= delivered for delivered, read in steps)
        assert sorted(set(offsets(bob, pair))) == list(range(1, 26))


async def test_wechat_mini_program(directory: Path) -> None:
    """A client that goes to the background and comes back ten times recovers each time; the result of each payment is
    shown once."""
    async with (
        platform(directory, **UNLIMITED) as shop,
        audience(shop.broker, ["ann"], reads_directs=True, rng=Eager()) as (ann,),
    ):
        for number in range(1, 11):
            await shop.call("users.disconnect", user="ann", reconnect=True)
            paid = card(f"p-{number}", "paid", amount_cents=1990)
            assert (await shop.call("cards.send", card=paid, user="ann"))["sent"]
            await eventually(lambda number=number: f"p-{number}" in shown_cards(ann))  # type: ignore[misc]
        assert shown_cards(ann) == {f"p-{number}": ["PAID"] for number in range(1, 11)}


async def test_payment_system(directory: Path) -> None:
    """Callbacks that come three times, late and shuffled, make one event of each result at the client."""
    callbacks = [card(f"p-{number}", status) for number in range(10) for status in ("pending", "paid")] * 3
    random.Random(7).shuffle(callbacks)
    async with (
        platform(directory, **UNLIMITED) as shop,
        audience(shop.broker, ["ann"], reads_directs=True) as (ann,),
    ):
        answers = [await shop.call("cards.send", card=each, user="ann") for each in callbacks]
        sent = sum(answer["sent"] for answer in answers)
        await eventually(lambda: sum(map(len, shown_cards(ann).values())) == sent)
        for id, steps in shown_cards(ann).items():
            assert steps in (["PAID"], ["PENDING", "PAID"]), id
        assert len(shown_cards(ann)) == 10


async def test_icq_msn(directory: Path) -> None:
    """Presence of a watched user: online and offline at a clean change, and offline after a cut within the bound of the
    heartbeat. Short texts arrive."""
    async with (
        platform(directory, **UNLIMITED) as shop,
        audience(shop.broker, ["ann"], reads_directs=True) as (ann,),
    ):
        pair = (await ann.client.call("conversations.open", user="bob")).id
        wrote = await call(shop.http, "conversations.send", "m-0", as_user="bob", conversation=pair, text="hi")
        assert wrote.status_code == 200, wrote.text  # who has only been written to is shown as offline
        (before,) = (await ann.client.call("presence.watch", users=["bob"])).items
        assert not before.online
        async with audience(shop.broker, ["bob"]) as (bob,):
            await eventually(lambda: presence_of(ann, "bob") == [True])
            await bob.client.call("conversations.send", conversation=pair, text="uh-oh", key="m-1")
        await eventually(lambda: presence_of(ann, "bob") == [True, False])
        await eventually(lambda: len(offsets(ann, pair)) == 2)
        assert [each.text for each in of(ann, "message", pair)] == ["hi", "uh-oh"]
        async with raw_link(shop.broker) as cut:
            await cut.login("dev:bob")
            await eventually(lambda: presence_of(ann, "bob") == [True, False, True])
            # Its socket stays open, as after a cut, and it has said nothing for the bound of the heartbeat.
            (silent,) = (each for each in sessions_of(shop.broker) if each.user_id == "bob")
            now = shop.broker.poller.refresh_clock()
            silent.transport.heard_at = now - shop.broker.config.link.heartbeat_cut_s
            silent.on_deadline(now)
            await eventually(lambda: presence_of(ann, "bob") == [True, False, True, False])
