"""What every engine promises: one suite for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from broker.engine.base import (
    MAX_APPEND_ITEMS,
    Appended,
    EngineFull,
    EngineLinkState,
    EngineUnavailable,
    Fenced,
    Granted,
    Held,
    InboxEntry,
    InboxPushed,
    InboxState,
    KeysKnown,
    KeyWrite,
    KnownKey,
    LinkAdded,
    LogItem,
    Misplaced,
    OutboxItem,
    OwnerRecord,
    RoomCheckpointRecord,
    SharedLink,
    StoredLogItem,
)
from tests.support.engines import MARKER, EngineLab, claim, event, fact, memory_lab
from tests.support.redis_cluster import cluster_lab
from tests.support.redis_server import redis_lab

LABS: dict[str, Callable[[], AbstractAsyncContextManager[EngineLab]]] = {"memory": memory_lab, "redis": redis_lab}
IN_PROCESSES = [pytest.param(name, marks=pytest.mark.integration) for name in ("redis", "cluster")]

HOUR_MS = 3_600_000


@pytest.fixture(params=["memory", *IN_PROCESSES])
def closed_lab(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[EngineLab]:
    if request.param == "cluster":
        return cluster_lab(request.getfixturevalue("cluster"))
    return LABS[request.param]()


@pytest.fixture
async def lab(closed_lab: AbstractAsyncContextManager[EngineLab]) -> AsyncIterator[EngineLab]:
    async with closed_lab as opened:
        yield opened


def key(name: bytes, content: bytes = b"12345678", item: int = -1, ttl_ms: int = HOUR_MS) -> KeyWrite:
    return KeyWrite(name.ljust(16, b"."), content, ttl_ms, 1, b"answer", item)


# ---- nodes


async def test_a_node_keeps_its_lease_by_beats_and_others_see_what_it_says(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    first = await a.born(b"starting")
    second = await b.born(b"")
    assert first.lineage == second.lineage
    assert first.incarnation != second.incarnation
    assert first.lineage_age_ms >= 0
    assert await a.beat(first.incarnation, b"load 3")
    seen = await b.nodes()
    assert [(each.node, each.body) for each in seen] == [("a", b"load 3"), ("b", b"")]
    assert [each.incarnation for each in seen] == [first.incarnation, second.incarnation]


async def test_a_lease_that_lapsed_cannot_be_renewed(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    born = await a.born(b"")
    await lab.expire("a")
    assert await a.nodes() == ()
    assert not await a.beat(born.incarnation, b"")
    assert await a.nodes() == ()
    again = await a.born(b"")
    assert again.incarnation != born.incarnation
    assert again.lineage == born.lineage


async def test_the_older_of_two_processes_with_one_name_is_lost(lab: EngineLab) -> None:
    old, _ = await lab.open("a")
    new, _ = await lab.open("a")
    first = await old.born(b"")
    second = await new.born(b"")
    assert not await old.beat(first.incarnation, b"")
    assert await new.beat(second.incarnation, b"")
    await old.leave(first.incarnation)
    assert [each.incarnation for each in await new.nodes()] == [second.incarnation]
    await new.leave(second.incarnation)
    assert await new.nodes() == ()


async def test_data_that_was_lost_has_another_lineage(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    born = await a.born(b"")
    await lab.flush()
    assert not await a.beat(born.incarnation, b"")
    assert (await a.born(b"")).lineage != born.lineage


# ---- ownership


async def test_a_claim_is_granted_once_for_each_fence_that_was_seen(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    assert await a.owner("room") is None
    granted = await a.claim("room", 0, MARKER)
    assert isinstance(granted, Granted)
    assert (granted.offset, granted.last_fact, granted.is_new) == (1, 0, True)
    owner = OwnerRecord("a", granted.fence, 1, 0, b"", False)
    assert await b.owner("room") == owner
    assert await b.claim("room", 0, MARKER) == Held(owner)
    assert await b.claim("room", granted.fence - 1, MARKER) == Held(owner)
    taken = await b.claim("room", granted.fence, MARKER)
    assert isinstance(taken, Granted)
    assert taken.fence > granted.fence
    assert (taken.offset, taken.is_new) == (2, False)
    log = await a.read_log("room", 0, 0, 10)
    assert log == (
        StoredLogItem(granted.fence, 1, 0, 0, MARKER.kind, MARKER.at_ms, MARKER.body),
        StoredLogItem(taken.fence, 2, 0, 0, MARKER.kind, MARKER.at_ms, MARKER.body),
    )


async def test_a_claim_after_a_loss_is_above_the_floors_of_who_remembers(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    granted = await claim(a, "room")
    await lab.flush()
    again = await a.claim("room", 0, MARKER, floor_fence=granted.fence, floor_offset=57)
    assert isinstance(again, Granted)
    assert again.fence > granted.fence
    assert (again.offset, again.is_new) == (58, True)
    far = granted.fence + HOUR_MS * 1000
    third = await a.claim("room", again.fence, MARKER, floor_fence=far)
    assert isinstance(third, Granted)
    assert third.fence == far + 1


async def test_every_write_of_an_owner_that_was_replaced_is_refused(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    old = await claim(a, "room")
    new = await claim(b, "room")
    owner = OwnerRecord("b", new.fence, 2, 0, b"", False)
    checkpoint = RoomCheckpointRecord(old.fence, 1, 0, b"state")
    assert await a.append("room", old.fence, 2, 0, [event()]) == Fenced(owner)
    assert await a.append("room", new.fence, 2, 0, [event()]) == Fenced(owner), "the fence of another node"
    assert await a.note("room", old.fence, b"mine") == Fenced(owner)
    assert await a.write_checkpoint("room", checkpoint) == Fenced(owner)
    assert await a.remove_outbox("room", old.fence, ["1"]) == Fenced(owner)
    assert await a.release("room", old.fence) == Fenced(owner)
    assert await b.owner("room") == owner
    assert await b.read_checkpoint("room") is None
    assert await a.append("elsewhere", old.fence, 0, 0, [event()]) == Fenced(None)


async def test_a_released_room_keeps_its_fence_and_its_log(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    granted = await claim(a, "room")
    assert await a.note("room", granted.fence, b"for the heir") is None
    assert await a.release("room", granted.fence) is None
    assert await b.owner("room") == OwnerRecord("", granted.fence, 1, 0, b"for the heir", False)
    assert isinstance(await a.append("room", granted.fence, 1, 0, [event()]), Fenced)
    taken = await claim(b, "room")
    assert taken.offset == 2
    assert (await b.owner("room")) == OwnerRecord("b", taken.fence, 2, 0, b"for the heir", False)


async def test_a_room_that_has_ended_begins_anew_and_goes_on_counting(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    granted = await claim(a, "room")
    assert await a.append("room", granted.fence, 1, 0, [fact(), event()], ends=True) == Appended(2, 1)
    owner = await a.owner("room")
    assert owner is not None
    assert owner.has_ended
    again = await a.claim("room", granted.fence, MARKER)
    assert isinstance(again, Granted)
    assert (again.offset, again.last_fact, again.is_new) == (3, 1, True)
    assert [each.offset for each in await a.read_log("room", 0, 0, 10)] == [3]
    assert await a.read_facts("room", 0, 10) == ()
    assert await a.resume("room", granted.fence, 2, 10) is None
    assert await a.append("room", again.fence, 3, 1, [fact()]) == Appended(3, 2)


# ---- logs


async def test_events_and_facts_are_read_back_in_the_order_in_which_they_fold(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    granted = await claim(a, "room")
    items = [fact(b"f1"), event(b"e2"), event(b"e3", lane=2), fact(b"f2"), fact(b"f3"), event(b"e4\x00\xff")]
    assert await a.append("room", granted.fence, 1, 0, items) == Appended(4, 3)
    fence = granted.fence
    assert await a.read_log("room", fence, 1, 10) == (
        StoredLogItem(fence, 2, 0, 0, 3, 1_000, b"e2"),
        StoredLogItem(fence, 3, 0, 2, 3, 1_000, b"e3"),
        StoredLogItem(fence, 4, 0, 0, 3, 1_000, b"e4\x00\xff"),
    )
    assert await a.read_facts("room", 0, 10) == (
        StoredLogItem(fence, 1, 1, None, 1003, 1_000, b"f1"),
        StoredLogItem(fence, 3, 2, None, 1003, 1_000, b"f2"),
        StoredLogItem(fence, 3, 3, None, 1003, 1_000, b"f3"),
    )
    assert [each.fact for each in await a.read_facts("room", 1, 1)] == [2]
    assert [each.offset for each in await a.read_newest("room", 2)] == [3, 4]
    assert [each.offset for each in await a.read_log("room", 0, 0, 2)] == [1, 2]
    assert await a.read_log("nowhere", 0, 0, 2) == ()
    assert await a.read_newest("nowhere", 2) == ()
    assert await a.read_facts("nowhere", 0, 2) == ()


async def test_an_append_that_does_not_go_on_where_the_log_ends_is_refused(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    granted = await claim(a, "room")
    assert await a.append("room", granted.fence, 1, 0, [event(), fact()]) == Appended(2, 1)
    for last_offset, last_fact in ((1, 0), (2, 0), (1, 1), (3, 1), (2, 2)):
        assert await a.append("room", granted.fence, last_offset, last_fact, [event()]) == Misplaced(2, 1)
    assert await a.append("room", granted.fence, 2, 1, [event()]) == Appended(3, 1)


async def test_a_key_is_written_with_the_append_or_refuses_it(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    granted = await claim(a, "room")
    first, second = key(b"1", item=1), key(b"2", content=b"87654321")
    assert await a.append("room", granted.fence, 1, 0, [fact(), event()], (), [first, second]) == Appended(2, 1)
    known = {
        first.digest: KnownKey(b"12345678", 1, 2, granted.fence, b"answer"),
        second.digest: KnownKey(b"87654321", 1, 0, granted.fence, b"answer"),
    }
    again = await a.append("room", granted.fence, 2, 1, [event()], (), [key(b"3"), first._replace(item=0), second])
    assert again == KeysKnown(known)
    assert await a.known_keys("room", [key(b"3").digest, first.digest]) == {first.digest: known[first.digest]}
    assert await a.known_keys("other", [first.digest]) == {}
    assert await a.known_keys("room", []) == {}
    assert (await a.owner("room")) == OwnerRecord("a", granted.fence, 2, 1, b"", False)
    taken = await claim(a, "room")
    assert isinstance(await a.append("room", taken.fence, 3, 1, [event(), event()], (), [first]), KeysKnown)


async def test_a_key_is_known_for_its_own_time(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    granted = await claim(a, "room")
    short, long = key(b"1", ttl_ms=50), key(b"2")
    await a.append("room", granted.fence, 1, 0, [event()], (), [short, long])
    await lab.expire_keys(50)
    assert set(await a.known_keys("room", [short.digest, long.digest])) == {long.digest}
    assert await a.append("room", granted.fence, 2, 0, [event()], (), [short]) == Appended(3, 0)


async def test_an_append_beyond_its_bounds_is_a_bug_of_the_caller(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    granted = await claim(a, "room")
    report = OutboxItem("topic", "endpoint", "line", 1, b"body", 1)
    wrong: list[tuple[list[LogItem], list[OutboxItem], list[KeyWrite]]] = [
        ([], [], [key(b"1")]),
        ([event()] * (MAX_APPEND_ITEMS + 1), [], []),
        ([event()], [], [key(bytes([each])) for each in range(256)] + [key(b"x" * 16)]),
        ([event(b"x" * 200_000)] * 2, [], []),
        ([event(), fact()], [report], []),
        ([event()], [], [key(b"1", item=1)]),
    ]
    for items, outbox, keys in wrong:
        with pytest.raises(ValueError, match=r"append|event"):
            await a.append("room", granted.fence, 1, 0, items, outbox, keys)
    assert await a.append("room", granted.fence, 1, 0, [event(b"x" * 260_000)]) == Appended(2, 0)
    assert await a.append("room", granted.fence, 2, 0, [event()] * MAX_APPEND_ITEMS) == Appended(258, 0)


async def test_a_position_is_resumed_only_where_that_very_event_is_in_the_log(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    old = await claim(a, "room")
    await a.append("room", old.fence, 1, 0, [event(), event()])
    new = await claim(b, "room")
    await b.append("room", new.fence, 4, 0, [event()])
    offsets = [each.offset for each in await a.resume("room", old.fence, 2, 10) or ()]
    assert offsets == [3, 4, 5], "over a takeover"
    assert await a.resume("room", new.fence, 5, 10) == ()
    assert [each.offset for each in await a.resume("room", old.fence, 1, 2) or ()] == [2, 3]
    assert await a.resume("room", new.fence, 3, 10) is None, "written under the older fence"
    assert await a.resume("room", old.fence, 4, 10) is None, "the older owner has not written it"
    assert await a.resume("room", new.fence, 6, 10) is None
    assert await a.resume("nowhere", new.fence, 1, 10) is None


async def test_facts_that_are_removed_leave_the_numbers_of_the_others(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    granted = await claim(a, "room")
    assert await a.append("room", granted.fence, 1, 0, [fact(b"%d" % n) for n in range(1, 6)]) == Appended(1, 5)
    assert await a.remove_facts("room", granted.fence, [2, 5, 9]) is None
    assert [(each.fact, each.body) for each in await a.read_facts("room", 0, 10)] == [(1, b"1"), (3, b"3"), (4, b"4")]
    assert await a.append("room", granted.fence, 1, 5, [fact(b"6")]) == Appended(1, 6)
    assert [each.fact for each in await a.read_facts("room", 3, 10)] == [4, 6]
    fenced = await a.remove_facts("room", granted.fence - 1, [6])
    assert isinstance(fenced, Fenced)
    assert [each.fact for each in await a.read_facts("room", 4, 10)] == [6]


async def test_a_checkpoint_drops_the_facts_that_it_covers(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    granted = await claim(a, "room")
    await a.append("room", granted.fence, 1, 0, [fact(b"1"), event(), fact(b"2"), fact(b"3")])
    assert await a.read_checkpoint("room") is None
    checkpoint = RoomCheckpointRecord(granted.fence, 2, 2, b"state\x00")
    assert await a.write_checkpoint("room", checkpoint) is None
    assert await a.read_checkpoint("room") == checkpoint
    assert [each.body for each in await a.read_facts("room", 0, 10)] == [b"3"]
    assert await a.append("room", granted.fence, 2, 3, [fact()]) == Appended(2, 4)
    await lab.flush()
    assert await a.read_checkpoint("room") is None


async def test_what_a_checkpoint_covers_is_gone_and_who_is_behind_sees_that_numbers_are_missing(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    granted = await claim(a, "log")
    for number in range(6):
        assert await a.append("log", granted.fence, 1, number, [fact(b"%d" % number)]) == Appended(1, number + 1)
    await lab.set_full(True)
    assert await a.write_checkpoint("log", RoomCheckpointRecord(granted.fence, 0, 4, b"")) is None, (
        "it gives memory back"
    )
    await lab.set_full(False)
    assert [each.fact for each in await b.read_facts("log", 1, 10)] == [5, 6]
    taken = await b.claim("log", granted.fence, LogItem(0, 0, 1, b""))
    assert isinstance(taken, Granted)
    assert (taken.last_fact, taken.is_new) == (6, False)
    assert isinstance(await a.write_checkpoint("log", RoomCheckpointRecord(granted.fence, 0, 6, b"")), Fenced)
    assert [each.fact for each in await b.read_facts("log", 0, 10)] == [5, 6]


async def test_after_a_loss_the_owner_is_fenced_by_nobody(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    granted = await claim(a, "room")
    await lab.flush()
    assert await a.append("room", granted.fence, 1, 0, [event()]) == Fenced(None)


# ---- reports


async def test_reports_are_written_with_the_append_and_stay_until_they_are_done(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    granted = await claim(a, "room")
    assert await a.outbox_rooms(10) == ()
    first = OutboxItem("gift", "https://x", "line", 5, b"one", 1)
    second = OutboxItem("note", "https://y", "", 6, b"two\xff")
    assert await a.append("room", granted.fence, 1, 0, [event(), event()], [first, second]) == Appended(3, 0)
    assert await b.outbox_rooms(10) == ("room",)
    rows = await b.read_outbox("room", "", 10)
    assert [row[1:] for row in rows] == [
        ("gift", "https://x", "line", 3, 5, b"one"),
        ("note", "https://y", "", 0, 6, b"two\xff"),
    ]
    assert await b.read_outbox("room", rows[0].id, 10) == (rows[1],)
    assert await b.read_outbox("room", "", 1) == (rows[0],)
    taken = await claim(b, "room")
    assert await b.read_outbox("room", "", 10) == rows
    assert await b.remove_outbox("room", taken.fence, [rows[0].id, rows[0].id]) is None
    assert await b.outbox_rooms(10) == ("room",)
    assert await b.remove_outbox("room", taken.fence, [rows[1].id]) is None
    assert await b.read_outbox("room", "", 10) == ()
    assert await b.outbox_rooms(10) == ()
    await b.append("room", taken.fence, 4, 0, [event()], [first._replace(item=0)])
    assert len(await b.read_outbox("room", rows[1].id, 10)) == 1, "ids go on"


async def test_an_order_is_bound_to_the_first_room_that_names_it(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    assert await a.bind_order(b"order", "one", 40) == "one"
    assert await a.bind_order(b"order", "two", 40) == "one"
    await lab.expire_keys(40)
    assert await a.bind_order(b"order", "two", HOUR_MS) == "two"


# ---- channels


async def test_messages_of_a_room_reach_those_who_subscribe_in_their_order(lab: EngineLab) -> None:
    a, at_a = await lab.open("a")
    b, at_b = await lab.open("b")
    a.subscribe_room("room")
    b.subscribe_room("room")
    b.subscribe_room("other")
    for heard in (at_a, at_b):
        await heard.until_heard("subscribed", "room")
    await at_b.until_heard("subscribed", "other")
    bodies = [b"%d\x00" % number for number in range(200)]
    assert all([a.publish_room("room", body) for body in bodies])
    a.publish_room("other", b"o")
    a.publish_room("nobody", b"n")
    await at_b.until_heard("other", b"o")
    await at_a.until_heard("room", bodies[-1])
    assert at_b.of_room("room") == bodies
    assert at_a.of_room("room") == bodies
    assert at_a.of_room("other") == []
    b.unsubscribe_room("room")
    b.unsubscribe_room("never")
    b.subscribe_room("last")
    await at_b.until_heard("subscribed", "last")
    a.publish_room("room", b"late")
    a.publish_room("last", b"end")
    await at_b.until_heard("last", b"end")
    assert b"late" not in at_b.of_room("room")


async def test_messages_to_a_node_reach_that_node(lab: EngineLab) -> None:
    a, at_a = await lab.open("a")
    _, at_b = await lab.open("b")
    await at_b.until_heard("node subscribed")
    await at_a.until_heard("node subscribed")
    assert a.publish_node("b", b"1")
    assert a.publish_node("a", b"own")
    assert a.publish_node("c", b"nobody")
    assert a.publish_node("b", b"2")
    await at_b.until_heard("node", b"2")
    await at_a.until_heard("node", b"own")
    assert [call for call in at_b.calls if call[0] == "node"] == [("node", b"1"), ("node", b"2")]


async def test_a_link_that_breaks_comes_back_with_its_subscriptions(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, at_b = await lab.open("b")
    b.subscribe_room("room")
    await at_b.until_heard("subscribed", "room")
    await lab.cut(b)
    await at_b.until_heard(EngineLinkState.DOWN)
    assert not b.status.is_up
    await lab.mend(b)
    await at_b.until_heard(EngineLinkState.UP, times=2)
    await at_b.until_heard("subscribed", "room", times=2)
    await at_b.until_heard("node subscribed", times=2)
    assert b.status.is_up
    a.publish_room("room", b"after")
    await at_b.until_heard("room", b"after")
    assert await b.owner("room") is None


# ---- control stream


async def test_every_node_reads_the_control_stream_from_where_it_was(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    assert await a.last_control() == ""
    assert await a.read_control("", 10) == ()
    ids = [await a.post_control(b"%d\xff" % number) for number in range(12)]
    assert len(set(ids)) == 12
    assert await b.last_control() == ids[-1]
    entries = await b.read_control("", 100)
    assert [(each.id, each.body) for each in entries] == [(ids[n], b"%d\xff" % n) for n in range(12)]
    assert await b.read_control(ids[3], 2) == entries[4:6]
    assert await b.read_control(ids[-1], 2) == ()


# ---- users


def direct(body: bytes, expires_at_ms: int = 10_000) -> InboxEntry:
    return InboxEntry(9, 1, expires_at_ms, body)


async def test_an_inbox_numbers_its_messages_and_takes_as_many_as_its_cap(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    assert await a.inbox_state("ann") == InboxState(0, 0, 0, 0)
    assert await a.push_inbox("ann", [direct(b"1"), direct(b"2\x00")], 3, 1_000) == InboxPushed((1, 2))
    assert await b.push_inbox("ann", [direct(b"3"), direct(b"4")], 3, 1_000) == InboxPushed((3,))
    assert await b.push_inbox("ann", [direct(b"4")], 3, 1_000) == InboxPushed(())
    assert await b.read_inbox("ann", 0, 2) == (direct(b"1")._replace(number=1), direct(b"2\x00")._replace(number=2))
    assert [each.number for each in await b.read_inbox("ann", 1, 10)] == [2, 3]
    assert await a.ack_inbox("ann", 2) == 2
    assert await a.ack_inbox("ann", 2) == 0
    assert await a.inbox_state("ann") == InboxState(3, 2, 1, 0)
    assert await a.ack_inbox("ann", 1_000) == 1
    assert await a.inbox_state("ann") == InboxState(3, 3, 0, 0)
    assert await a.push_inbox("ann", [direct(b"4")], 3, 1_000) == InboxPushed((4,))
    assert await a.ack_inbox("bob", 1) == 0
    assert await a.read_inbox("bob", 0, 10) == ()


async def test_messages_that_have_expired_make_room_and_are_counted(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    await a.push_inbox("ann", [direct(b"1", 2_000), direct(b"2", 9_000), direct(b"3", 2_000)], 3, 1_000)
    assert await a.push_inbox("ann", [direct(b"4"), direct(b"5")], 3, 2_000) == InboxPushed((4,))
    assert [each.number for each in await a.read_inbox("ann", 0, 10)] == [2, 3, 4]
    assert await a.inbox_state("ann") == InboxState(4, 0, 3, 1)


async def test_links_of_a_user_are_limited_over_all_nodes(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    live = ["i1", "i2"]
    one, two, three = SharedLink("c1", "i1", 1), SharedLink("c2", "i2", 2), SharedLink("c3", "i1", 3)
    assert await a.add_link("ann", one, live, 2, displace=False) == LinkAdded(True, ())
    assert await b.add_link("ann", two, live, 2, displace=False) == LinkAdded(True, ())
    assert await a.add_link("ann", three, live, 2, displace=False) == LinkAdded(False, ())
    assert await b.links("ann") == (one, two)
    assert await a.add_link("ann", three, live, 2, displace=True) == LinkAdded(True, (one,))
    assert await a.links("ann") == (two, three)
    assert await a.add_link("ann", three, live, 2, displace=False) == LinkAdded(True, ()), "the same one again"
    await a.remove_link("ann", "c2")
    await a.remove_link("ann", "c2")
    assert await a.links("ann") == (three,)
    assert await a.links("bob") == ()


async def test_links_of_incarnations_that_are_gone_do_not_count(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    dead = SharedLink("c1", "gone", 1)
    await a.add_link("ann", dead, ["gone"], 1, displace=False)
    link = SharedLink("c2", "i1", 2)
    assert await a.add_link("ann", link, ["i1"], 1, displace=False) == LinkAdded(True, ())
    assert await a.links("ann") == (link,)


# ---- bounds


async def test_a_full_engine_refuses_what_needs_memory_and_goes_on_with_leases_and_claims(lab: EngineLab) -> None:
    a, _ = await lab.open("a")
    b, _ = await lab.open("b")
    born = await a.born(b"")
    granted = await claim(a, "room")
    await lab.set_full(True)
    with pytest.raises(EngineFull):
        await a.append("room", granted.fence, 1, 0, [event()], (), [key(b"1")])
    with pytest.raises(EngineFull):
        await a.push_inbox("ann", [direct(b"1")], 3, 1_000)
    with pytest.raises(EngineFull):
        await a.post_control(b"x")
    assert issubclass(EngineFull, EngineUnavailable)
    assert await a.beat(born.incarnation, b"")
    taken = await claim(b, "room")
    assert await b.release("room", taken.fence) is None
    await lab.set_full(False)
    again = await claim(a, "room")
    assert again.offset == 3, "nothing of the append was written"
    assert await a.append("room", again.fence, 3, 0, [event()], (), [key(b"1")]) == Appended(4, 0)
