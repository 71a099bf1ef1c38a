"""What the metrics say: every counter of every object of a broker is in its row, and rows equal the accounts."""

from __future__ import annotations

import gc
import random
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.effects import Outcomes, Reply
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from broker.core.rooms.totals import RoomReading, RoomTotals
from broker.core.structures.histogram import Histogram
from broker.rooms import hub as hub_module
from broker.telemetry import metrics
from broker.telemetry.metrics import METRICS, Metric, MetricValue, Reading, collect, collect_in_steps, read, render
from protocol.codes import Lane, MessageType, Outcome
from protocol.messages import Ack, Post
from protocol.payloads import DanmakuPayload
from tests.support.broker import joined_link
from tests.support.durable import durable_broker
from tests.support.rooms import Person
from tests.support.until import until

STEP = 1000
LOOKED_INTO = (dict, list, tuple, set, frozenset, types.MethodType, types.CellType)
NOT_OF_THE_BROKER = (types.ModuleType, type, types.CodeType, types.FrameType)
EXPORTED_ELSEWHERE = {
    ("broker.core.net.connection_limits", "ConnectionLimits"): "two of them, with rows of their own",
    ("broker.sessions.session", "Session"): "added to the context's count when it is reported",
    ("broker.ledger.maintenance", "Maintenance"): "of one run, added to the writer's",
}
"""Counters that are not in a row themselves, and why that is right."""
NOT_EXPORTED = {
    "broker.core.rooms.key_changes": "a limit with two keys, which are always the same",
    "broker.http.app": "limits of requests: each refusal is an answer 429",
    "broker.webhooks.questions": "JOINs that are asked again",
}
"""Owners of a limit or of marks whose full table needs no row, and why."""


def reachable(root: Any) -> list[Any]:
    """Every object that a broker holds, and whoever holds a limit or marks is named by it."""
    seen: dict[int, Any] = {}
    todo = [root]
    while todo:
        found = todo.pop()
        if id(found) in seen or isinstance(found, NOT_OF_THE_BROKER):
            continue
        module = type(found).__module__
        if isinstance(found, types.FunctionType):
            todo += found.__closure__ or ()
            continue
        if module in NOT_EXPORTED or not (
            found is root or module.startswith(("broker", "collections", "functools")) or isinstance(found, LOOKED_INTO)
        ):
            continue
        seen[id(found)] = found
        todo += gc.get_referents(found)
    return list(seen.values())


def counters_in(objects: list[Any], source: str) -> Iterator[tuple[Any, str]]:
    """Every object with a number that a source names."""
    module, _, attribute = source.partition(":")
    for each in objects:
        kind = type(each)
        if kind.__module__ == module and (module, kind.__name__) not in EXPORTED_ELSEWHERE and hasattr(each, attribute):
            yield each, attribute


@pytest.mark.integration
async def test_what_any_object_of_a_broker_counts_is_in_its_row(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host"):
        objects = reachable(broker)
        found = 0
        lost = []

        def values(source: str) -> float:
            for room in broker.hub:
                room.reading = None  # the test changes it behind its back
            reading = Reading(broker, broker.hub.totals())
            return sum(sum(each.value for each in read(row, reading)) for row in METRICS if source in row.sources)

        for source in sorted({source for row in METRICS for source in row.sources}):
            for owner, attribute in counters_in(objects, source):
                number = getattr(owner, attribute)
                if not isinstance(number, int | float):
                    continue
                before = values(source)
                setattr(owner, attribute, number + STEP)
                if values(source) - before != STEP:
                    lost.append(f"{source} of a {type(owner).__name__}")
                setattr(owner, attribute, number)
                found += 1
        assert lost == []
        assert found > 60


@pytest.mark.integration
async def test_a_scrape_in_steps_keeps_every_account_balanced(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages come in, a room ends and another is opened between the steps."""
    monkeypatch.setattr(hub_module, "TOTALS_STEP", 1)
    async with durable_broker(directory) as broker, joined_link(broker, "dev:max:host", "live-1") as (host, room):
        for name in ("live-2", "live-3"):
            broker.hub.open(name)
        first, last = broker.hub.find("live-1"), broker.hub.find("live-3")
        assert first is not None
        assert last is not None
        steps = collect_in_steps(broker)
        next(steps)
        for sequence, text in ((1, "one"), (2, "two")):
            await host.post(room, sequence, MessageType.ANNOUNCEMENT, (text,))
            await host.expect(Ack)
        next(steps)
        broker.hub.open("live-4")
        await broker.call("rooms.close", room="live-3")
        await until(lambda: broker.hub.find("live-3") is None)
        found = rest(steps)
        assert accounts_balance(found)
        assert number(found, "roomcast_messages_admitted_total", Lane.CONTROL) == 1.0, "the end of live-3"
        again = collect(broker)
        assert accounts_balance(again)
        assert number(again, "roomcast_messages_admitted_total", Lane.CONTROL) == 3.0


def values_of(found: list[tuple[Metric, list[MetricValue]]], name: str) -> dict[str, float]:
    """The values of a row by its label, of a histogram how many there were."""
    (values,) = (values for metric, values in found if metric.name == name)
    return {each.labels[0][1]: each.value for each in values if each.suffix in ("", "_count")}


@pytest.mark.integration
async def test_refusals_latencies_and_the_largest_rooms_have_rows(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "TOP_ROOMS", 1)
    async with (
        durable_broker(directory) as broker,
        joined_link(broker, "dev:max:host", "live-1") as (host, room),
        joined_link(broker, "dev:ann", "live-1") as (ann, _),
        joined_link(broker, "dev:bob", "live-2"),
    ):
        for sequence in (1, 2):
            await ann.post(room, sequence, MessageType.DANMAKU, ("the same text", None))
            await ann.expect(Ack)
        await host.post(room, 3, MessageType.ANNOUNCEMENT, ("hello",))
        await host.expect(Ack)
        await until(lambda: not broker.fanout.waiting)
        found = collect(broker)
        assert values_of(found, "roomcast_posts_refused_total") == {"duplicate_text": 1.0}
        latency = values_of(found, "roomcast_publish_seconds")
        assert latency["chat"] >= 1.0
        assert latency["control"] == 1.0
        assert latency["paid"] == 0.0
        assert sum(latency.values()) == broker.fanout.sweeps
        ticks = broker.hub.measures
        assert ticks.tick_wait.count >= 1
        assert ticks.tick_cost.count == ticks.tick_interval.count == latency["chat"]
        assert values_of(found, "roomcast_top_room_connections") == {"live-1": 2.0, "(other)": 1.0}


class Accounting(NamedTuple):
    """A few rooms, and what has come into each by the answers that their senders got."""

    rooms: list[RoomState[int]]
    answers: list[Counter[Outcome]]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from("abc"), st.booleans(), st.floats(0.0, 2.0)),
        max_size=60,
    ),
    st.sets(st.integers(0, 2)),
)
def test_sums_equal_the_accounts_and_the_answers(
    posts: list[tuple[int, int, str, bool, float]], ended: set[int]
) -> None:
    """Any posts to three rooms, any of which end: the sums are those of the accounts, and each answer is in them."""
    world = Accounting(
        [
            RoomState(RoomRules(policy=policy_from("roomcast"), custom={}), room, random.Random(1), 0.0)
            for room in range(3)
        ],
        [Counter() for _ in range(3)],
    )
    now = 0.0

    def answer(room: int, effects: Any) -> None:
        for effect in effects:
            if isinstance(effect, Reply) and effect.ticket:
                world.answers[room][effect.outcome] += 1
            elif isinstance(effect, Outcomes):
                world.answers[room].update(outcome for _, outcome in effect.outcomes)

    for room, user, text, ticks, passed in posts:
        now += passed
        state = world.rooms[room]
        answer(room, state.post(1, Person(f"u{user}"), Post(MessageType.DANMAKU, "", DanmakuPayload(text)), now, 0))
        if ticks:
            answer(room, state.tick(now, 0))
    totals = RoomTotals()
    for number, state in enumerate(world.rooms):
        if number in ended:
            totals.add_closed(state.counters)
        else:
            totals.add(f"room-{number}", RoomReading.of(state.counters, None))
    accounts = [state.counters.accounts()[Lane.CHAT] for state in world.rooms]
    chat = totals.accounts[Lane.CHAT]
    assert chat.admitted == sum(each.admitted for each in accounts)
    assert chat.held == sum(each.held for number, each in enumerate(accounts) if number not in ended)
    assert all(lane.admitted == sum(lane[1:]) for lane in totals.accounts)
    answers = sum(world.answers, Counter())
    assert chat.shown == answers[Outcome.ACCEPTED]
    assert chat.merged == answers[Outcome.MERGED]
    held = sum(each.held for each in accounts)
    assert chat.admitted + answers[Outcome.LIMITED] + answers[Outcome.REJECTED] == len(posts)
    assert held == chat.admitted - sum(answers[each] for each in FATES)
    assert totals.events["duplicates"] == answers[Outcome.REJECTED]


FATES = (Outcome.ACCEPTED, Outcome.MERGED, Outcome.SAMPLED_OUT, Outcome.EXPIRED)


def rest(steps: Any) -> list[tuple[Metric, list[MetricValue]]]:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: list[tuple[Metric, list[MetricValue]]] = done.value
            return found


def number(found: list[tuple[Metric, list[MetricValue]]], name: str, lane: Lane) -> float:
    (values,) = (values for metric, values in found if metric.name == name)
    return next(each.value for each in values if each.labels[0][1] == lane.name.lower())


def accounts_balance(found: list[tuple[Metric, list[MetricValue]]]) -> bool:
    parts = ("shown_total", "merged_total", "sampled_total", "expired_total", "held")
    return all(
        number(found, "roomcast_messages_admitted_total", lane)
        == sum(number(found, f"roomcast_messages_{part}", lane) for part in parts)
        for lane in Lane
    )


@given(st.lists(st.integers(-10, 10**7)))
def test_a_histogram_counts_every_value_in_one_bucket(micros: list[int]) -> None:
    histogram = Histogram()
    for each in micros:
        histogram.observe(each / 1e6)
    assert histogram.count == len(micros)
    assert histogram.sum == pytest.approx(sum(micros) / 1e6)
    assert histogram.cumulative() == [
        (bound, sum(each / 1e6 <= bound for each in micros)) for bound in histogram.bounds
    ]


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0)])
def test_bounds_that_do_not_ascend_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must ascend"):
        Histogram(bounds)


def test_the_text_format_of_a_histogram() -> None:
    histogram = Histogram((0.5, 2.0))
    for value in (0.1, 0.5, 1.0, 9.0):
        histogram.observe(value)
    plain = Metric("roomcast_x_seconds", "histogram", "X.", lambda reading: histogram)
    by_lane = plain._replace(name="roomcast_y_seconds", read=lambda reading: {"chat": histogram}, label="lane")
    reading: Any = None
    assert render([(plain, read(plain, reading)), (by_lane, read(by_lane, reading))]) == (
        "# HELP roomcast_x_seconds X.\n"
        "# TYPE roomcast_x_seconds histogram\n"
        'roomcast_x_seconds_bucket{le="0.5"} 2.0\n'
        'roomcast_x_seconds_bucket{le="2.0"} 3.0\n'
        'roomcast_x_seconds_bucket{le="+Inf"} 4.0\n'
        "roomcast_x_seconds_sum 10.6\n"
        "roomcast_x_seconds_count 4.0\n"
        "# HELP roomcast_y_seconds X.\n"
        "# TYPE roomcast_y_seconds histogram\n"
        'roomcast_y_seconds_bucket{lane="chat",le="0.5"} 2.0\n'
        'roomcast_y_seconds_bucket{lane="chat",le="2.0"} 3.0\n'
        'roomcast_y_seconds_bucket{lane="chat",le="+Inf"} 4.0\n'
        'roomcast_y_seconds_sum{lane="chat"} 10.6\n'
        'roomcast_y_seconds_count{lane="chat"} 4.0\n'
    )
