"""The independent count: a generated demo must balance, and any single wrong number must be reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.demo.accounting import Accounting, Latency, ReferenceViewer, differences
from protocol.clients.events import (
    Danmaku,
    Gap,
    MessagesMissed,
    PostResult,
    Rejoined,
    RoomEvent,
    State,
    StreamEvent,
    TickAccount,
)
from protocol.codes import Lane, MessageType, Outcome, Role, RoomPhase, Tier
from protocol.messages import Account, Joined
from tests.support.examples import examples

EMPTY = Joined("lobby", 1, 0, Role.VIEWER, RoomPhase.LIVE, Tier.FULL, 100, 0, 0, 0, 0, 0)
TIERS = (Tier.FULL, Tier.FULL, Tier.MEDIUM, Tier.MEDIUM, Tier.LOW, Tier.LOW)


@dataclass
class Run:
    """One generated demo: the broker's accounts, the senders' results, the events of each reference viewer."""

    accounts: list[Account]
    likes: int
    results: list[tuple[str, int, Any, PostResult]]
    received: list[list[RoomEvent]]

    def check(self) -> list[str]:
        accounting = Accounting()
        for record in self.results:
            accounting.record(*record)
        references = []
        for index, (tier, events) in enumerate(zip(TIERS, self.received, strict=True)):
            reference = ReferenceViewer(f"reference {index}", tier, first=index == 0)
            reference.on_joined(EMPTY)
            for event in events:
                reference.on_event(event)
            references.append(reference)
        return differences(self.accounts, self.likes, accounting, references)


def result(outcome: Outcome | None, **fields: Any) -> PostResult:
    return PostResult(outcome, "m", **fields)


ticks = st.tuples(
    st.lists(st.integers(1, 6), max_size=5),  # counts of the entries that the FULL tier shows
    st.integers(0, 4),  # sampled
    st.integers(0, 2),  # expired
    st.integers(0, 5),  # how many of them MEDIUM shows
    st.integers(0, 5),  # how many of those LOW shows
)
combos = st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 5000))
updates = st.tuples(st.lists(st.integers(1, 20), max_size=3), st.integers(0, 5), st.integers(0, 9))


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Generate a consistent demo."""
    run = Run([Account()] * 5, 0, [], [[] for _ in TIERS])
    chat = [0] * 6
    for number, (counts, sampled, expired, medium, low) in enumerate(draw(st.lists(ticks, max_size=6)), 1):
        if not counts and not sampled and not expired:
            continue
        admitted = sum(counts) + sampled + expired
        cuts = {Tier.FULL: counts, Tier.MEDIUM: counts[:medium], Tier.LOW: counts[: min(medium, low)]}
        for tier, events in zip(TIERS, run.received, strict=True):
            shown = cuts[tier]
            merged = sum(shown) - len(shown)
            events += [Danmaku(1, "u", "u", ("x", None), count, (), 0, number) for count in shown]
            rest = admitted - sum(shown) - expired
            account = Account(admitted, len(shown), merged, rest, expired)
            events.append(TickAccount(number, 0, 100, 0, account))
        outcomes = [Outcome.ACCEPTED] * len(counts) + [Outcome.MERGED] * (sum(counts) - len(counts))
        outcomes += [Outcome.SAMPLED_OUT] * sampled + [Outcome.EXPIRED] * expired
        run.results += [("people", MessageType.DANMAKU, ("x", None), result(outcome)) for outcome in outcomes]
        for index, more in enumerate((admitted, len(counts), sum(counts) - len(counts), sampled, expired, 0)):
            chat[index] += more
    offset = 0
    paid = merged_paid = 0
    for orders, price in draw(st.lists(combos, max_size=4)):
        offset += 1
        gift = ("o", "u", "u", "rose", sum(orders), price, "host")
        for events in run.received:
            events.append(StreamEvent(offset, Lane.PAID, MessageType.GIFT, 0, "", "", gift))
        for place, count in enumerate(orders):
            outcome = Outcome.MERGED if place else Outcome.ACCEPTED
            run.results.append(
                ("platform", MessageType.GIFT, ("o", "u", "u", "rose", count, price, ""), result(outcome))
            )
        paid += 1
        merged_paid += len(orders) - 1
    announcements = draw(st.integers(0, 3))
    for _ in range(announcements):
        offset += 1
        for events in run.received:
            events.append(StreamEvent(offset, Lane.CONTROL, MessageType.ANNOUNCEMENT, 0, "h", "h", ("hi",)))
        run.results.append(("host", MessageType.ANNOUNCEMENT, ("hi",), result(Outcome.ACCEPTED, offset=offset)))
    ambient = ambient_shown = 0
    for likes, named, more in draw(st.lists(updates, max_size=4)):
        run.likes += sum(likes)
        joins = tuple((f"u{n}", "") for n in range(named))
        state = State(0, RoomPhase.LIVE, 0, 100, 1, 1, 1, 1, run.likes, (), joins, more)
        for events in run.received:
            events.append(state)
        for count in likes:
            accepted = result(Outcome.ACCEPTED, counted=count)
            run.results.append(("people", MessageType.LIKE, (count + 1,), accepted))
        ambient += len(likes) + named + more
        ambient_shown += bool(likes) + named
    for outcome in (Outcome.LIMITED, Outcome.REJECTED):
        for _ in range(draw(st.integers(0, 2))):
            run.results.append(("flooders", MessageType.DANMAKU, ("x", None), result(outcome)))
    run.accounts[Lane.CONTROL] = Account(announcements, announcements)
    run.accounts[Lane.PAID] = Account(paid + merged_paid, paid, merged_paid)
    run.accounts[Lane.CHAT] = Account(*chat)
    run.accounts[Lane.AMBIENT] = Account(ambient, ambient_shown, ambient - ambient_shown)
    return run


few = examples(40)


@few
@given(runs())
def test_a_consistent_demo_balances(run: Run) -> None:
    assert run.check() == []


@few
@given(runs(), st.sampled_from(Lane), st.sampled_from(Account._fields), st.sampled_from([-1, 1]))
def test_a_single_falsified_number_of_the_broker_is_noticed(run: Run, lane: Lane, name: str, by: int) -> None:
    account = run.accounts[lane]
    run.accounts[lane] = account._replace(**{name: getattr(account, name) + by})
    assert run.check() != []


@few
@given(runs(), st.sampled_from(Lane), st.sampled_from(list(Account._fields[1:5])), st.data())
def test_two_wrong_numbers_that_cancel_out_are_noticed(run: Run, lane: Lane, name: str, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from([each for each in Account._fields if each != name]))
    by = -1 if other != "admitted" else 1
    account = run.accounts[lane]
    changed = {name: getattr(account, name) + 1, other: getattr(account, other) + by}
    run.accounts[lane] = account._replace(**changed)
    assert run.check() != []


@few
@given(runs(), st.integers(1, 5))
def test_likes_that_were_never_sent_are_noticed(run: Run, more: int) -> None:
    run.likes += more
    assert run.check() != []


@few
@given(runs(), st.data())
def test_an_outcome_that_is_not_what_happened_is_noticed(run: Run, data: st.DataObject) -> None:
    counted = [
        index
        for index, (*_, sent_result) in enumerate(run.results)
        if sent_result.outcome not in (Outcome.LIMITED, Outcome.REJECTED)
    ]
    if not counted:
        return
    index = data.draw(st.sampled_from(counted))
    group, type, payload, sent_result = run.results[index]
    wrong: list[Outcome] = [Outcome.LIMITED, Outcome.REJECTED]
    if type == MessageType.DANMAKU:
        wrong += [Outcome.ACCEPTED, Outcome.MERGED, Outcome.SAMPLED_OUT, Outcome.EXPIRED, Outcome.HELD]
        wrong.remove(Outcome(sent_result.outcome or 0))
    run.results[index] = (group, type, payload, sent_result._replace(outcome=data.draw(st.sampled_from(wrong))))
    assert run.check() != []


@few
@given(runs(), st.data())
def test_an_outcome_that_was_not_reported_is_noticed(run: Run, data: st.DataObject) -> None:
    counted = [record for record in run.results if record[3].outcome not in (Outcome.LIMITED, Outcome.REJECTED)]
    if not counted:
        return
    run.results.remove(data.draw(st.sampled_from(counted)))
    assert run.check() != []


@few
@given(runs(), st.data())
def test_an_event_that_one_reference_viewer_did_not_receive_is_noticed(run: Run, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(TIERS) - 1))
    events = run.received[index]
    relevant = [
        place
        for place, event in enumerate(events)
        if not isinstance(event, State) or (index == 0 and (event.joins or event.joins_more))
    ]
    if not relevant:
        return
    del events[data.draw(st.sampled_from(relevant))]
    assert run.check() != []


@few
@given(runs(), st.data())
def test_a_repeated_event_is_noticed(run: Run, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(TIERS) - 1))
    events = run.received[index]
    relevant = [place for place, event in enumerate(events) if not isinstance(event, State)]
    if not relevant:
        return
    place = data.draw(st.sampled_from(relevant))
    events.insert(place, events[place])
    assert run.check() != []


@pytest.mark.parametrize(
    "event", [MessagesMissed(3, 0, False), MessagesMissed(0, 1, True), Gap(1, 2), Rejoined(EMPTY, True)]
)
def test_a_reference_viewer_with_a_gap_is_a_difference(event: RoomEvent) -> None:
    run = Run([Account()] * 5, 0, [], [[] for _ in TIERS])
    assert run.check() == []
    run.received[2].append(event)
    assert run.check() != []


def test_a_message_held_at_the_end_is_a_difference() -> None:
    run = Run([Account()] * 5, 0, [], [[] for _ in TIERS])
    run.accounts[Lane.PAID] = Account(1, 0, 0, 0, 0, 1)
    assert any("held" in line for line in run.check())


@few
@given(runs(), st.data())
def test_an_unknown_outcome_widens_the_equations_by_one_and_no_more(run: Run, data: st.DataObject) -> None:
    chat = [
        place for place, record in enumerate(run.results) if record[1] == MessageType.DANMAKU and record[0] == "people"
    ]
    if len(chat) < 2:
        return
    place = data.draw(st.sampled_from(chat))
    group, type, payload, _ = run.results[place]
    run.results[place] = (group, type, payload, result(None))
    assert run.check() == []
    del run.results[next(each for each in chat if each != place)]
    assert run.check() != []


def test_a_post_that_was_never_sent_is_not_counted() -> None:
    accounting = Accounting()
    accounting.record("people", MessageType.DANMAKU, ("x",), result(None, sent=False))
    assert accounting == Accounting()


@few
@given(runs(), runs())
def test_accountings_add_up_and_survive_json(one: Run, other: Run) -> None:
    parts = []
    for run in (one, other):
        accounting = Accounting()
        for record in run.results:
            accounting.record(*record)
        parts.append(accounting)
    whole = Accounting()
    for record in one.results + other.results:
        whole.record(*record)
    assert parts[0] + parts[1] == whole
    assert Accounting.from_json(whole.to_json()) == whole


@few
@given(st.lists(st.floats(-5, 70_000), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    latency = Latency()
    for value in values:
        latency.add(value)
    found = latency.percentile(share)
    assert found is not None
    counted = sorted(min(60_000, max(0, round(value))) for value in values)
    assert found in counted
    assert sum(each <= found for each in counted) >= share * len(counted)
    assert sum(each < found for each in counted) < share * len(counted)


def test_latencies_are_taken_once_and_merged() -> None:
    latency = Latency()
    assert latency.percentile(0.5) is None
    latency.add(3)
    taken = latency.take()
    assert taken == {3: 1}
    assert latency.percentile(0.5) is None
    latency.merge(taken)
    latency.merge({5: 1})
    assert (latency.percentile(0.5), latency.percentile(1.0)) == (3, 5)
