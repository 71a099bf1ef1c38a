"""Guests of a real room see masks over its viewers, on every way in; others see them as they are."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.rooms.masking import NameMask
from broker.core.tenants.names import qualify
from broker.server import Broker
from protocol.codes import MessageType, Role, Tier
from protocol.messages import Event, Message, Resume, Resumed, State, Tick
from tests.support.broker import RawLink, raw_link, running_broker
from tests.support.operating import operate

pytestmark = pytest.mark.integration

ANN, BOB = "ann-4711", "bob-0815"
NAMES = (ANN, BOB, ANN.title(), BOB.title(), "Wilhelmina")
MASKED: dict[str, Any] = {"privacy": {"mask_names_for_guests": True}}


def named(message: Message) -> list[str]:
    return [name for name in NAMES if name in repr(message)]


async def seen_until_end(link: RawLink, text: str) -> list[Message]:
    """Return all messages up to the announcement with a text."""
    found: list[Message] = []
    while not found or text not in repr(found[-1]):
        frame = await link.next_frame()
        assert frame is not None
        found.append(frame.message)
    return found


async def live(broker: Broker, ann: RawLink, room: int) -> None:
    """Let something of every kind that names viewers happen."""
    await operate(broker, "messages.delete", "live-1", None, ANN, None, "")
    await ann.post(room, 10, MessageType.DANMAKU, ("hello all",))
    await ann.expect(Tick)
    await ann.post(room, 11, MessageType.LIKE, (3,))
    await operate(
        broker, "messages.publish", "live-1", int(MessageType.GIFT), ("o1", ANN, "Wilhelmina", "rose", 1, 100, BOB)
    )
    await operate(
        broker, "messages.publish", "live-1", int(MessageType.HIGHLIGHT), ("o2", ANN, "Wilhelmina", "hi", 2_000)
    )
    await operate(broker, "messages.pin", "live-1", "pin", None, 4, ["news"], None, ANN, "Wilhelmina")
    await operate(broker, "keys.set", "live-1", "k", 1, None, None, ANN)
    await operate(broker, "messages.publish", "live-1", int(MessageType.ANNOUNCEMENT), ["the end"])


@pytest.mark.parametrize("of_all", [False, True])
async def test_a_tenant_may_have_it_its_own_way(of_all: bool) -> None:
    tenants = [
        {"name": "acme", "mask_names_for_guests": True}, {"name": "globex", "mask_names_for_guests": False},
        {"name": "initech"},
    ]  # fmt: skip
    async with running_broker(privacy={"mask_names_for_guests": of_all}, tenants=tenants) as broker:
        found = {}
        for tenant in ("", "acme", "globex", "initech"):
            await operate(broker, "rooms.open", "live-1", tenant=tenant)
            room = broker.hub.find(qualify(tenant, "live-1"))
            assert room is not None
            found[tenant] = room.views.mask is not None
    assert found == {"": of_all, "acme": True, "globex": False, "initech": of_all}


async def test_a_guest_sees_masks_live_in_the_snapshot_and_after_a_resume_and_a_viewer_does_not() -> None:
    async with (
        running_broker(**MASKED) as broker,
        raw_link(broker) as guest,
        raw_link(broker) as viewer,
        raw_link(broker) as ann,
    ):
        await guest.login()
        _, joined = await guest.join("live-1")
        assert joined.role is Role.GUEST
        await viewer.login(f"dev:{BOB}")
        await viewer.join("live-1")
        await ann.login(f"dev:{ANN}")
        room, _ = await ann.join("live-1")
        await live(broker, ann, room)
        of_guest, of_viewer = await seen_until_end(guest, "the end"), await seen_until_end(viewer, "the end")
        assert [name for message in of_guest for name in named(message) if not _is_staff(message)] == []
        assert {name for message in of_viewer for name in named(message)} >= {ANN, BOB, "Wilhelmina"}
        kinds = {type(message) for message in of_guest}
        assert kinds >= {Event, Tick, State}
        async with raw_link(broker) as late:
            await late.login()
            _, snapshot = await late.join("live-1")
            assert named(snapshot._replace(pinned=(), announcement=None)) == []
            assert [entry.payload[0] for entry in snapshot.recent] == ["hello all"]
            assert snapshot.keys[0].owner == "~" + str(snapshot.keys[0].owner)[1:]
        async with raw_link(broker) as back:
            await back.login()
            await back.send((Resume("live-1", Tier.FULL, joined.epoch, joined.offset), 0, 1))
            _, resumed = await back.expect(Resumed)
            assert named(resumed.snapshot._replace(pinned=(), announcement=None)) == []


def _is_staff(message: Message) -> bool:
    """Whether what is named is the author of a pinned announcement."""
    return isinstance(message, Event) and message.type == MessageType.PINS_CHANGED


async def test_masks_are_made_once_for_all_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Event] = []
    mask = NameMask.event

    def counting(self: NameMask, event: Event) -> Event:
        calls.append(event)
        return mask(self, event)

    monkeypatch.setattr(NameMask, "event", counting)
    async with running_broker(**MASKED) as broker, raw_link(broker) as first, raw_link(broker) as second:
        for link in (first, second):
            await link.login()
            await link.join("live-1")
        calls.clear()
        await operate(
            broker, "messages.publish", "live-1", int(MessageType.GIFT), ("o1", ANN, "Wilhelmina", "rose", 1, 100, "")
        )
        for link in (first, second):
            _, event = await link.expect(Event)
            assert event.payload[2] == "W***"
        assert sum(event.type == MessageType.GIFT for event in calls) == 1
