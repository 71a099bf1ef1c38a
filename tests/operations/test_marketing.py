"""Marketing reaches nobody who does not want it, on no path, also not what waited; and nobody too often."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.users.marketing import Suppression
from broker.operations.caller import OperationError
from broker.server import Broker
from protocol.activities.audiences import Audience
from protocol.codes import MessageType
from protocol.json_values import as_json
from protocol.messages import Ack, Direct, Event
from protocol.operations import BY_NAME
from protocol.operations.directs import SuppressedBy
from tests.support.broker import RawLink, configuration, joined_link, raw_link, running_broker
from tests.support.clocks import AdjustableClock, advance
from tests.support.directs import login
from tests.support.examples import examples
from tests.support.faulty_disk import quick_directory
from tests.support.operating import operate
from tests.support.until import until

pytestmark = pytest.mark.integration

OFFER, NOTE = 200, 201
TYPES = [
    {"id": OFFER, "name": "offer", "lane": "commerce", "marketing": True, "roles": ["app", "host"], "burst": 100},
    {"id": NOTE, "name": "note", "lane": "commerce"},
]
USERS = ("ann", "bob")


def settings(directory: Path, **privacy: Any) -> dict[str, Any]:
    return {"ledger": {"data_dir": str(directory)}, "types": TYPES, "privacy": privacy}


def suppressed(broker: Broker) -> Counter[Suppression]:
    assert broker.inboxes is not None
    return broker.inboxes.suppressed


async def send(broker: Broker, user: str, text: str = "50 % off", **more: Any) -> Any:
    return await broker.call("directs.send", user=user, type=NOTE, payload={"text": text}, marketing=True, **more)


async def pending(broker: Broker, user: str) -> list[str]:
    page = await operate(broker, "directs.list", user, None, True)
    return [item.payload["text"] for item in page.items if item.state.name == "PENDING"]


async def test_what_waits_is_withdrawn_when_its_user_wants_no_more_marketing(directory: Path) -> None:
    async with running_broker(**settings(directory)) as broker:
        for number in range(1003):
            await send(broker, "ann", f"offer {number}")
        await broker.call("directs.send", user="ann", type=NOTE, payload={"text": "order sent"})
        await send(broker, "bob", "offer")
        await broker.call("users.set_preferences", user="ann", marketing=False)
        assert await pending(broker, "ann") == []
        assert broker.inboxes is not None
        assert broker.inboxes.withdrawn == 1003
        async with login(broker, "ann") as link:
            _, message = await link.expect(Direct)
            assert message.payload == {"text": "order sent"}
        assert await pending(broker, "bob") == ["offer"]
    async with running_broker(**settings(directory)) as broker:
        sent = await send(broker, "ann")
        assert (sent.id, sent.suppressed, sent.why) == (0, True, SuppressedBy.OPTED_OUT)
        again = await broker.call(
            "directs.send_many", batch="may", type=OFFER, template={"text": "offer"}, users=["ann", "bob"]
        )
        assert (again.sent, again.suppressed, again.failed) == (1, 1, 0)
        assert suppressed(broker) == {Suppression.OPTED_OUT: 2}
        await broker.call("users.set_preferences", user="ann", marketing=True)
        assert (await send(broker, "ann")).id > 0


async def test_the_first_answer_to_a_key_is_repeated_whatever_the_user_wants_later(directory: Path) -> None:
    async with running_broker(**settings(directory)) as broker:
        await broker.call("users.set_preferences", user="ann", marketing=False)
        first = await send(broker, "ann", idempotency_key="k")
        await broker.call("users.set_preferences", user="ann", marketing=True)
        again = await send(broker, "ann", idempotency_key="k")
        assert again[:1] + again[2:] == first[:1] + first[2:] == (0, True, SuppressedBy.OPTED_OUT)
        assert await pending(broker, "ann") == []


async def test_nobody_gets_more_marketing_than_the_caps_allow_also_over_a_restart_and_as_time_goes_on(
    directory: Path,
) -> None:
    now_ms = [1_790_000_000_000]
    allowed = settings(directory, marketing_per_hour=2, marketing_per_day=3)

    async def sent(broker: Broker, user: str = "ann") -> str:
        result = await send(broker, user)
        return "sent" if result.id else result.why.name

    async with running_broker(**allowed, wall_ms=lambda: now_ms[0]) as broker:
        assert [await sent(broker) for _ in range(3)] == ["sent", "sent", "FREQUENCY"]
        assert await sent(broker, "bob") == "sent"
        result = await broker.call("directs.send", user="ann", type=NOTE, payload={"text": "order sent"})
        assert result.id == 3, "what is no marketing has no cap"
        assert suppressed(broker) == {Suppression.FREQUENCY: 1}
    now_ms[0] += 30_000
    async with running_broker(**allowed, wall_ms=lambda: now_ms[0]) as broker:
        assert await sent(broker) == "FREQUENCY"
    now_ms[0] += 3_600_000
    async with running_broker(**allowed, wall_ms=lambda: now_ms[0]) as broker:
        assert [await sent(broker) for _ in range(2)] == ["sent", "FREQUENCY"], "the hour is over, the day is not"
        broker.reload(configuration(**settings(directory)))
        assert await sent(broker) == "sent"


async def test_in_quiet_hours_no_marketing_is_sent(directory: Path) -> None:
    noon_ms = 1_790_000_000_000 // 86_400_000 * 86_400_000 + 43_200_000
    quiet = settings(directory, quiet_hours="19:30-08:00", quiet_utc_offset_min=480)
    async with running_broker(**quiet, wall_ms=lambda: noon_ms) as broker:
        assert (await send(broker, "ann")).why is SuppressedBy.QUIET_HOURS
        broker.reload(configuration(**settings(directory, quiet_hours="20:30-08:00", quiet_utc_offset_min=480)))
        assert (await send(broker, "ann")).id > 0


async def test_history_and_webhooks_show_what_a_marketing_message_was_for(directory: Path) -> None:
    async with running_broker(**settings(directory)) as broker:
        await operate(broker, "messages.publish", "live-1", OFFER, {"text": "50 % off"})
        page = await operate(broker, "rooms.history", "live-1")
        assert page.items[-1].audience == Audience(none=("~no-marketing",))
        assert BY_NAME["rooms.history"].read_result(json.loads(json.dumps(as_json(page)))) is not None
        with pytest.raises(OperationError, match="no tag"):
            await operate(
                broker, "messages.publish", "live-1", NOTE, {}, "", None, "", Audience(any=("~no-marketing",))
            )


async def test_who_wants_no_recommendation_gets_no_marketing_that_is_chosen_by_tags(directory: Path) -> None:
    audience = {"none": ["absent"]}
    async with (
        running_broker(**settings(directory)) as broker,
        joined_link(broker, "dev:ann", "live-1") as (ann, _),
        joined_link(broker, "dev:bob", "live-1") as (bob, _),
    ):
        await broker.call("audiences.define", room="live-1", tags=[["absent"]])
        await broker.call("users.set_preferences", user="ann", recommendation=False)
        batch = await broker.call(
            "directs.send_many", batch="b", type=OFFER, template={"text": "chosen"}, cursor=None,
            audience={"room": "live-1", **audience},
        )  # fmt: skip
        assert batch.sent == 1
        await broker.call("coupons.create", room="live-1", id="c", count=9, claims=False, idempotency_key="c")
        issued = await broker.call(
            "coupons.issue_many", room="live-1", id="c", audience=audience, marketing=True, idempotency_key="i"
        )
        assert len(issued.items) == 1
        for kind in (NOTE, OFFER):
            payload = {"text": "chosen"}
            await broker.call(
                "messages.publish", room="live-1", type=kind, payload=payload, audience=audience, marketing=True
            )
        await broker.call("messages.publish", room="live-1", type=OFFER, payload={"text": "for all"})
        for link, expected in ((ann, ["for all"]), (bob, ["chosen", "chosen", "for all"])):
            seen: list[str] = []
            while "for all" not in seen:
                _, event = await link.expect(Event)
                seen += [event.payload["text"]] if event.type in (NOTE, OFFER) else []
            assert seen == expected
        history = await operate(broker, "rooms.history", "live-1")
        assert Audience(none=("absent", "~no-marketing", "~no-recommendation")) in [
            each.audience for each in history.items
        ]


# ---- every path

Step = tuple[str, str, int]
PATHS = (
    "directs.send", "directs.send type", "directs.send_many", "directs.send_many type", "messages.publish",
    "messages.publish type", "messages.publish_many", "messages.broadcast", "coupons.issue_many", "post", "audience",
    "marketing.report", "marketing.report later",
)  # fmt: skip
steps = st.one_of(
    st.tuples(st.sampled_from(PATHS), st.just(""), st.just(0)),
    st.tuples(st.just("prefer"), st.sampled_from(USERS), st.integers(0, 1)),
    st.tuples(st.sampled_from(["join", "leave"]), st.sampled_from(USERS), st.just(0)),
    st.tuples(st.just("restart"), st.just(""), st.just(0)),
)
EVERY_PATH: Sequence[Step] = [
    ("join", "ann", 0), ("join", "bob", 0), ("prefer", "ann", 0), *((path, "", 0) for path in PATHS),
    ("leave", "ann", 0), *((path, "", 0) for path in PATHS), ("restart", "", 0), ("join", "ann", 0), ("join", "bob", 0),
]  # fmt: skip


async def publish(broker: Broker, path: str, host: RawLink, room: int, unique: str) -> None:
    """Send both users an offer on one path. ``room``: number of the host's room."""
    text = {"text": f"offer {unique}"}
    match path:
        case "directs.send":
            for user in USERS:
                await broker.call("directs.send", user=user, type=NOTE, payload=text, marketing=True)
        case "directs.send type":
            for user in USERS:
                await broker.call("directs.send", user=user, type=OFFER, payload=text)
        case "directs.send_many":
            await broker.call(
                "directs.send_many", batch=unique, type=NOTE, template=text, users=list(USERS), marketing=True
            )
        case "directs.send_many type":
            await broker.call("directs.send_many", batch=unique, type=OFFER, template=text, users=list(USERS))
        case "messages.publish":
            await broker.call("messages.publish", room="live-1", type=NOTE, payload=text, marketing=True)
        case "messages.publish type":
            await broker.call("messages.publish", room="live-1", type=OFFER, payload=text)
        case "messages.publish_many":
            item = {"room": "live-1", "type": OFFER, "payload": text}
            await broker.call("messages.publish_many", items=[item, {**item, "type": NOTE, "marketing": True}])
        case "messages.broadcast":
            started = await broker.call("messages.broadcast", pattern="live-*", type=OFFER, payload=text)
            for _ in range(2000):
                if (await broker.call("messages.broadcast_state", id=started.id)).done:
                    break
                await trio.sleep(0.001)
        case "audience":
            audience = {"none": ["absent"]}
            await broker.call("audiences.define", room="live-1", tags=[["absent"]])
            await broker.call(
                "messages.publish", room="live-1", type=NOTE, payload=text, audience=audience, marketing=True
            )
        case "marketing.report" | "marketing.report later":
            rule = f"r{unique}"
            await broker.call(
                "marketing.put_rule", id=rule, trigger=rule, title=text["text"], delay_s=1 if "later" in path else 0
            )
            for user in USERS:
                await broker.call("marketing.report", user=user, trigger=rule)
            if "later" in path:
                assert broker.talk is not None
                advance(1100)
                talk = broker.talk
                await until(lambda: talk.waiting_offers == 0)
        case "coupons.issue_many":
            pool = f"pool-{unique}"
            await broker.call("coupons.create", room="live-1", id=pool, count=9, claims=False, idempotency_key=unique)
            await broker.call(
                "coupons.issue_many",
                room="live-1",
                id=pool,
                users=list(USERS),
                marketing=True,
                idempotency_key=f"i{unique}",
            )
        case "post":
            await host.post(room, int(unique) + 1, OFFER, text)
            await host.expect(Ack)


class Viewer:
    """A link of a user in the room, which collects what it is sent."""

    def __init__(self, link: RawLink) -> None:
        self.link = link
        self.seen: list[str] = []

    async def until(self, barrier: str) -> None:
        """Collect until a text has come to the room and to the user."""
        missing: set[type] = {Event, Direct}
        while missing:
            frame = await self.link.next_frame()
            assert frame is not None
            message = frame.message
            if barrier in repr(message):
                missing.discard(type(message))
            elif "offer " in repr(message) or (isinstance(message, Direct) and message.type == MessageType.ACTIVITY):
                self.seen.append(repr(message))


@examples(6)
@example(EVERY_PATH)
@given(st.lists(steps, min_size=3, max_size=10))
def test_an_offer_reaches_those_who_want_marketing_and_nobody_else_on_every_path(history: Sequence[Step]) -> None:
    trio.run(follow, history, clock=AdjustableClock())


async def follow(history: Sequence[Step]) -> None:
    """Do what a history says, and check after each step what the links of both users were sent."""
    wants = dict.fromkeys(USERS, True)
    with quick_directory() as directory:
        runs: list[list[tuple[int, Step]]] = [[]]
        for number, step in enumerate(history):
            if step[0] == "restart":
                runs.append([])
            else:
                runs[-1].append((number, step))
        for run in runs:
            async with running_broker(**settings(directory)) as broker, AsyncExitStack() as stack:
                host = await stack.enter_async_context(raw_link(broker))
                await host.login("dev:host:host")
                room, _ = await host.join("live-1")
                viewers: dict[str, Viewer] = {}
                for number, (what, user, value) in run:
                    if what == "join":
                        if user not in viewers:
                            link = await stack.enter_async_context(raw_link(broker))
                            await link.login(f"dev:{user}")
                            viewers[user] = Viewer(link)
                            _, joined = await link.join("live-1")
                            assert wants[user] or "offer " not in repr(joined), "the snapshot"
                    elif what == "leave":
                        if user in viewers:
                            await viewers.pop(user).link.stream.aclose()
                    elif what == "prefer":
                        await broker.call("users.set_preferences", user=user, marketing=bool(value))
                        wants[user] = bool(value)
                    else:
                        await publish(broker, what, host, room, str(number))
                    await broker.call("messages.publish", room="live-1", type=NOTE, payload={"text": f"bar {number};"})
                    for user, viewer in viewers.items():
                        bar = {"text": f"bar {number};"}
                        await broker.call("directs.send", user=user, type=NOTE, payload=bar)
                        await viewer.until(bar["text"])
                        if not wants[user]:
                            assert viewer.seen == [], (what, user)
                        elif what in PATHS:
                            assert viewer.seen != [], (what, user)
                        viewer.seen.clear()
