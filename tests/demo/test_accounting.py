"""The second count: a show that is made up here in all its parts must balance, and any single lie must be noticed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
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

EMPTY = Joined("lobby", 1, 0, Role.VIEWER, RoomPhase.LIVE, Tier.FULL, 100, 0, 0, 0, 0, 0)
TIERS = (Tier.FULL, Tier.FULL, Tier.MEDIUM, Tier.MEDIUM, Tier.LOW, Tier.LOW)


@dataclass
class Story:
    """A whole show: what the broker says, what senders were told, what each witness heard."""

    accounts: list[Account]
    likes: int
    notes: list[tuple[str, int, Any, PostResult]]
    heard: list[list[RoomEvent]]

    def check(self) -> list[str]:
        accounting = Accounting()
        for record in self.notes:
            accounting.record(*record)
        references = []
        for index, (tier, events) in enumerate(zip(TIERS, self.heard, strict=True)):
            witness = ReferenceViewer(f"witness {index}", tier, first=index == 0)
            witness.enter(EMPTY)
            for event in events:
                witness.see(event)
            references.append(witness)
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
def stories(draw: st.DrawFn) -> Story:
    """A show that really happened."""
    story = Story([Account()] * 5, 0, [], [[] for _ in TIERS])
    chat = [0] * 6
    for number, (counts, sampled, expired, medium, low) in enumerate(draw(st.lists(ticks, max_size=6)), 1):
        if not counts and not sampled and not expired:
            continue
        admitted = sum(counts) + sampled + expired
        cuts = {Tier.FULL: counts, Tier.MEDIUM: counts[:medium], Tier.LOW: counts[: min(medium, low)]}
        for tier, events in zip(TIERS, story.heard, strict=True):
            shown = cuts[tier]
            merged = sum(shown) - len(shown)
            events += [Danmaku(1, "u", "u", ("x", None), count, (), 0, number) for count in shown]
            rest = admitted - sum(shown) - expired
            account = Account(admitted, len(shown), merged, rest, expired)
            events.append(TickAccount(number, 0, 100, 0, account))
        fates = [Outcome.ACCEPTED] * len(counts) + [Outcome.MERGED] * (sum(counts) - len(counts))
        fates += [Outcome.SAMPLED_OUT] * sampled + [Outcome.EXPIRED] * expired
        story.notes += [("people", MessageType.DANMAKU, ("x", None), result(fate)) for fate in fates]
        for index, more in enumerate((admitted, len(counts), sum(counts) - len(counts), sampled, expired, 0)):
            chat[index] += more
    offset = 0
    paid = merged_paid = 0
    for orders, price in draw(st.lists(combos, max_size=4)):
        offset += 1
        gift = ("o", "u", "u", "rose", sum(orders), price, "host")
        for events in story.heard:
            events.append(StreamEvent(offset, Lane.PAID, MessageType.GIFT, 0, "", "", gift))
        for place, count in enumerate(orders):
            fate = Outcome.MERGED if place else Outcome.ACCEPTED
            story.notes.append(("platform", MessageType.GIFT, ("o", "u", "u", "rose", count, price, ""), result(fate)))
        paid += 1
        merged_paid += len(orders) - 1
    announcements = draw(st.integers(0, 3))
    for _ in range(announcements):
        offset += 1
        for events in story.heard:
            events.append(StreamEvent(offset, Lane.CONTROL, MessageType.ANNOUNCEMENT, 0, "h", "h", ("hi",)))
        story.notes.append(("host", MessageType.ANNOUNCEMENT, ("hi",), result(Outcome.ACCEPTED, offset=offset)))
    ambient = ambient_shown = 0
    for likes, named, more in draw(st.lists(updates, max_size=4)):
        story.likes += sum(likes)
        joins = tuple((f"u{n}", "") for n in range(named))
        state = State(0, RoomPhase.LIVE, 0, 100, 1, 1, 1, 1, story.likes, (), joins, more)
        for events in story.heard:
            events.append(state)
        for count in likes:
            accepted = result(Outcome.ACCEPTED, counted=count)
            story.notes.append(("people", MessageType.LIKE, (count + 1,), accepted))
        ambient += len(likes) + named + more
        ambient_shown += bool(likes) + named
    for outcome in (Outcome.LIMITED, Outcome.REJECTED):
        for _ in range(draw(st.integers(0, 2))):
            story.notes.append(("flooders", MessageType.DANMAKU, ("x", None), result(outcome)))
    story.accounts[Lane.CONTROL] = Account(announcements, announcements)
    story.accounts[Lane.PAID] = Account(paid + merged_paid, paid, merged_paid)
    story.accounts[Lane.CHAT] = Account(*chat)
    story.accounts[Lane.AMBIENT] = Account(ambient, ambient_shown, ambient - ambient_shown)
    return story


few = settings(max_examples=40)


@few
@given(stories())
def test_a_show_that_really_happened_balances(story: Story) -> None:
    assert story.check() == []


@few
@given(stories(), st.sampled_from(Lane), st.sampled_from(Account._fields), st.sampled_from([-1, 1]))
def test_a_single_falsified_number_of_the_broker_is_noticed(story: Story, lane: Lane, name: str, by: int) -> None:
    account = story.accounts[lane]
    story.accounts[lane] = account._replace(**{name: getattr(account, name) + by})
    assert story.check() != []


@few
@given(stories(), st.sampled_from(Lane), st.sampled_from(list(Account._fields[1:5])), st.data())
def test_a_lie_that_adds_up_in_itself_is_noticed(story: Story, lane: Lane, name: str, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from([each for each in Account._fields if each != name]))
    by = -1 if other != "admitted" else 1
    account = story.accounts[lane]
    changed = {name: getattr(account, name) + 1, other: getattr(account, other) + by}
    story.accounts[lane] = account._replace(**changed)
    assert story.check() != []


@few
@given(stories(), st.integers(1, 5))
def test_likes_out_of_nothing_are_noticed(story: Story, more: int) -> None:
    story.likes += more
    assert story.check() != []


@few
@given(stories(), st.data())
def test_an_outcome_that_is_not_what_happened_is_noticed(story: Story, data: st.DataObject) -> None:
    counted = [
        index for index, (*_, told) in enumerate(story.notes) if told.outcome not in (Outcome.LIMITED, Outcome.REJECTED)
    ]
    if not counted:
        return
    index = data.draw(st.sampled_from(counted))
    group, type, payload, told = story.notes[index]
    lies: list[Outcome] = [Outcome.LIMITED, Outcome.REJECTED]
    if type == MessageType.DANMAKU:
        lies += [Outcome.ACCEPTED, Outcome.MERGED, Outcome.SAMPLED_OUT, Outcome.EXPIRED, Outcome.HELD]
        lies.remove(Outcome(told.outcome or 0))
    story.notes[index] = (group, type, payload, told._replace(outcome=data.draw(st.sampled_from(lies))))
    assert story.check() != []


@few
@given(stories(), st.data())
def test_an_outcome_that_was_not_reported_is_noticed(story: Story, data: st.DataObject) -> None:
    counted = [record for record in story.notes if record[3].outcome not in (Outcome.LIMITED, Outcome.REJECTED)]
    if not counted:
        return
    story.notes.remove(data.draw(st.sampled_from(counted)))
    assert story.check() != []


@few
@given(stories(), st.data())
def test_an_event_that_one_witness_did_not_see_is_noticed(story: Story, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(TIERS) - 1))
    events = story.heard[index]
    telling = [
        place
        for place, event in enumerate(events)
        if not isinstance(event, State) or (index == 0 and (event.joins or event.joins_more))
    ]
    if not telling:
        return
    del events[data.draw(st.sampled_from(telling))]
    assert story.check() != []


@few
@given(stories(), st.data())
def test_an_event_that_comes_twice_is_noticed(story: Story, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(TIERS) - 1))
    events = story.heard[index]
    telling = [place for place, event in enumerate(events) if not isinstance(event, State)]
    if not telling:
        return
    place = data.draw(st.sampled_from(telling))
    events.insert(place, events[place])
    assert story.check() != []


@pytest.mark.parametrize(
    "event", [MessagesMissed(3, 0, False), MessagesMissed(0, 1, True), Gap(1, 2), Rejoined(EMPTY, True)]
)
def test_a_witness_that_was_not_there_all_the_time_is_none(event: RoomEvent) -> None:
    story = Story([Account()] * 5, 0, [], [[] for _ in TIERS])
    assert story.check() == []
    story.heard[2].append(event)
    assert story.check() != []


def test_what_waits_at_the_end_is_a_difference() -> None:
    story = Story([Account()] * 5, 0, [], [[] for _ in TIERS])
    story.accounts[Lane.PAID] = Account(1, 0, 0, 0, 0, 1)
    assert any("held" in line for line in story.check())


@few
@given(stories(), st.data())
def test_an_unknown_outcome_widens_the_equations_by_one_and_no_more(story: Story, data: st.DataObject) -> None:
    chat = [
        place for place, record in enumerate(story.notes) if record[1] == MessageType.DANMAKU and record[0] == "people"
    ]
    if len(chat) < 2:
        return
    place = data.draw(st.sampled_from(chat))
    group, type, payload, _ = story.notes[place]
    story.notes[place] = (group, type, payload, result(None))
    assert story.check() == []
    del story.notes[next(each for each in chat if each != place)]
    assert story.check() != []


def test_a_post_that_was_never_sent_is_nobodys_business() -> None:
    accounting = Accounting()
    accounting.record("people", MessageType.DANMAKU, ("x",), result(None, sent=False))
    assert accounting == Accounting()


@few
@given(stories(), stories())
def test_ledgers_add_up_and_survive_the_way_between_processes(one: Story, other: Story) -> None:
    parts = []
    for story in (one, other):
        accounting = Accounting()
        for record in story.notes:
            accounting.record(*record)
        parts.append(accounting)
    whole = Accounting()
    for record in one.notes + other.notes:
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
    noted = sorted(min(60_000, max(0, round(value))) for value in values)
    assert found in noted
    assert sum(each <= found for each in noted) >= share * len(noted)
    assert sum(each < found for each in noted) < share * len(noted)


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
