"""The service desk: one holder a conversation, no second answer, no queue that starves, no lost conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.users.conversations import TooMany
from broker.core.users.desk_hours import WEEK_MINUTES, OfficeHours
from broker.core.users.desk_records import (
    AGEING_MS,
    AgentState,
    DeskAgent,
    DeskConversation,
    DeskState,
    QueuedItem,
    SlaAlarm,
    choose_agent,
    queue_level,
)
from broker.core.users.service_desk import MAX_KEPT_OF_CUSTOMER, MAX_OPEN_OF_CUSTOMER, DeskTimes, ServiceDesk, Stale
from tests.support.examples import examples

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "desk_vectors.json").read_text("utf-8"))
NOW = 1_790_000_000_000
AGENTS = ("amy", "ben", "cho")
CUSTOMERS = ("ann", "bob", "cem", "dan")
SKILLS = ("refund", "size")
skill_sets = st.lists(st.sampled_from(SKILLS), max_size=2, unique=True)


@pytest.mark.parametrize("case", VECTORS["choose"])
def test_an_agent_is_chosen_as_the_vectors_say(case: dict[str, Any]) -> None:
    agents = []
    for id, skills, load, capacity, assigned_seq, is_online in case["agents"]:
        agent = DeskAgent(id, NOW)
        agent.skills, agent.capacity, agent.assigned_seq = frozenset(skills), capacity, assigned_seq
        agent.held = {str(number): None for number in range(load)}
        agent.state, agent.lost_at_ms = AgentState.ONLINE, None if is_online else NOW
        agents.append(agent)
    chosen = choose_agent(agents, case["skills"], case["sticky"])
    assert ("" if chosen is None else chosen.id) == case["agent"]


@pytest.mark.parametrize("case", VECTORS["queue"])
def test_the_next_one_of_a_queue_is_that_of_the_vectors(case: dict[str, Any]) -> None:
    assert case["aging_ms"] == AGEING_MS
    found = min(case["items"], key=lambda item: queue_level(QueuedItem(*item[1:]), case["now"]))
    assert found[0] == case["next"]


def desk_with(*agents: str, capacity: int = 1, times: DeskTimes | None = None) -> ServiceDesk:
    desk = ServiceDesk(times)
    for agent in agents:
        desk.set_agent(agent, SKILLS, capacity, NOW)
        desk.set_state(agent, AgentState.ONLINE)
        desk.set_linked(agent, NOW, is_linked=True)
    return desk


def assign_all(desk: ServiceDesk, now_ms: int) -> list[DeskConversation]:
    found = []
    while (row := desk.assign(now_ms)) is not None:
        desk.apply(row)
        found.append(row)
    return found


def pass_time(desk: ServiceDesk, now_ms: int) -> list[DeskConversation]:
    found = []
    for id in desk.due(now_ms):
        row = desk.on_time(id, now_ms)
        if row is not None:
            desk.apply(row)
            found.append(row)
    return found


class Working(RuleBasedStateMachine):
    """Customers, a bot and three agents. Each decision is written, or is not; the clock only goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = ServiceDesk(DeskTimes(reopen_ms=600_000, sticky_ms=600_000))
        self.now = NOW
        self.number = 0
        self.answered: dict[tuple[str, int], str] = {}
        """Who has answered, by conversation and epoch."""
        self.epochs: dict[str, int] = {}
        self.kept: dict[str, DeskConversation] = {}
        self.tokens: list[tuple[str, str, int]] = []
        """Everything that was ever held: conversation, holder, epoch."""
        for agent in AGENTS:
            self.desk.set_agent(agent, SKILLS, 2, NOW)

    def put(self, row: DeskConversation) -> None:
        before = self.kept.get(row.id)
        if before is not None:
            assert row.epoch >= before.epoch
            assert row.epoch > before.epoch or row.agent == before.agent or row.state is DeskState.CLOSED
        self.desk.apply(row)
        if row.state is DeskState.CLOSED:
            del self.kept[row.id]
            return
        self.kept[row.id] = row
        if row.agent:
            self.tokens.append((row.id, row.agent, row.epoch))

    def settle(self) -> None:
        while (row := self.desk.assign(self.now)) is not None:
            eligible = [
                each
                for each in self.kept.values()
                if each.state is DeskState.QUEUED and choose_agent(self.desk.agents.values(), each.skills) is not None
            ]
            next = min(eligible, key=lambda each: self.level(each))
            assert row.id == next.id
            self.put(row)

    def level(self, row: DeskConversation) -> tuple[int, int]:
        return queue_level(QueuedItem(row.priority, row.queued_at_ms, row.seq), self.now)

    @rule(customer=st.sampled_from(CUSTOMERS), skills=skill_sets, priority=st.integers(0, 2), bot=st.booleans())
    def start(self, customer: str, skills: list[str], priority: int, bot: bool) -> None:
        self.number += 1
        own = [row for row in self.kept.values() if row.customer == customer]
        is_open = [row for row in own if row.state is not DeskState.RESOLVED]
        try:
            row = self.desk.start(
                f"c{self.number}", customer, self.now, skills=skills, priority=priority, bot="bot" if bot else ""
            )
        except TooMany:
            assert len(is_open) >= MAX_OPEN_OF_CUSTOMER or len(own) >= MAX_KEPT_OF_CUSTOMER
            return
        assert len(is_open) < MAX_OPEN_OF_CUSTOMER
        self.put(row)
        self.settle()

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), bot=st.booleans())
    def ask(self, data: st.DataObject, bot: bool) -> None:
        row = self.kept[data.draw(st.sampled_from(sorted(self.kept)))]
        try:
            self.put(self.desk.ask(row.id, self.now, "bot" if bot else ""))
        except TooMany:
            assert row.state is DeskState.RESOLVED
        except Stale:
            assert self.now - row.resolved_at_ms >= self.desk.times.reopen_ms
        self.settle()

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), what=st.sampled_from(["answer", "answer", "hand_over", "transfer", "resolve"]))
    def act(self, data: st.DataObject, what: str) -> None:
        """Somebody acts who holds a conversation, or once held it."""
        id, by, epoch = data.draw(st.sampled_from(self.tokens))
        row = self.kept.get(id)
        holds = row is not None and (row.agent, row.epoch) == (by, epoch)
        try:
            if what == "answer":
                after = self.desk.answer(id, by, epoch, self.now)
                assert self.answered.setdefault((id, epoch), by) == by
                assert after.asked_at_ms == 0
            elif what == "hand_over":
                skills = data.draw(st.none() | skill_sets)
                after = self.desk.hand_over(id, by, epoch, self.now, skills)
            elif what == "transfer":
                after = self.desk.transfer(id, by, epoch, data.draw(st.sampled_from(AGENTS)), self.now)
            else:
                after = self.desk.resolve(id, by, epoch, self.now)
        except Stale:
            assert not holds or what == "transfer"
            return
        assert holds
        self.put(after)
        self.settle()

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), agent=st.sampled_from(AGENTS))
    def take_over(self, data: st.DataObject, agent: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.kept)))
        try:
            self.put(self.desk.take_over(id, agent, self.now))
        except Stale:
            row = self.kept[id]
            is_there = agent in self.desk.agents and self.desk.agents[agent].is_available
            assert not is_there or row.state is DeskState.RESOLVED or row.agent == agent

    @rule(agent=st.sampled_from(AGENTS), state=st.sampled_from(AgentState), is_linked=st.booleans())
    def come_and_go(self, agent: str, state: AgentState, is_linked: bool) -> None:
        if agent in self.desk.agents:
            self.desk.set_state(agent, state)
            self.desk.set_linked(agent, self.now, is_linked=is_linked)
            self.settle()

    @rule(agent=st.sampled_from(AGENTS), skills=skill_sets, capacity=st.integers(0, 3), is_removed=st.booleans())
    def change_agent(self, agent: str, skills: list[str], capacity: int, is_removed: bool) -> None:
        if is_removed:
            self.desk.remove_agent(agent)
        else:
            self.desk.set_agent(agent, skills, capacity, self.now)
        self.settle()

    @rule(seconds=st.sampled_from([0, 1, 3, 30, 60, 600]))
    def wait(self, seconds: int) -> None:
        self.now += seconds * 1000
        for id in self.desk.due(self.now):
            row = self.desk.on_time(id, self.now)
            if row is not None:
                self.put(row)
        assert not self.desk.due(self.now)
        for row in self.kept.values():
            if row.state is DeskState.ASSIGNED:
                agent = self.desk.agents[row.agent]
                assert agent.lost_at_ms is None or self.now - agent.lost_at_ms < 30_000 or self.now == row.held_at_ms
        self.settle()

    @rule()
    def restart(self) -> None:
        """The desk is made again from its records; agents come back without links."""
        before, times = self.desk, self.desk.times
        self.desk = ServiceDesk(times)
        for row in self.kept.values():
            self.desk.apply(row)
        for id, agent in before.agents.items():
            self.desk.set_agent(id, agent.skills, agent.capacity, self.now)
            assert self.desk.agents[id].held.keys() == agent.held.keys()

    @invariant()
    def every_conversation_is_counted_once(self) -> None:
        assert {row.id: row for row in self.desk} == self.kept
        for state in DeskState:
            assert self.desk.count(state) == sum(row.state is state for row in self.kept.values())

    @invariant()
    def the_load_is_the_count_of_what_is_assigned(self) -> None:
        for id, agent in self.desk.agents.items():
            held = {row.id for row in self.kept.values() if row.state is DeskState.ASSIGNED and row.agent == id}
            assert agent.held.keys() == held
            assert agent.load == len(held)

    @invariant()
    def nothing_waits_for_an_agent_who_is_free(self) -> None:
        waiting = [row for row in self.kept.values() if row.state is DeskState.QUEUED]
        assert all(not row.agent for row in waiting)
        if self.desk.assign(self.now) is None:
            assert all(choose_agent(self.desk.agents.values(), row.skills) is None for row in waiting)


TestWorking = Working.TestCase
TestWorking.settings = examples(60, steps=30)


def test_a_late_answer_of_an_agent_who_was_slow_is_not_sent() -> None:
    desk = desk_with("amy")
    desk.apply(desk.start("c1", "ann", NOW))
    (first,) = assign_all(desk, NOW)
    assert not pass_time(desk, NOW + 59_999)
    (back,) = pass_time(desk, NOW + 60_000)
    assert (back.state, back.seq, back.queued_at_ms) == (DeskState.QUEUED, first.seq, NOW)
    with pytest.raises(Stale):
        desk.answer("c1", "amy", first.epoch, NOW + 60_000)
    (second,) = assign_all(desk, NOW + 60_000)
    assert desk.first_response_ms(second) is None
    assert desk.first_response_ms(desk.answer("c1", "amy", second.epoch, NOW + 61_000)) == 61_000


def test_conversations_of_a_lost_agent_are_the_first_of_the_queue() -> None:
    desk = desk_with("amy", capacity=2)
    for number in range(3):
        desk.apply(desk.start(f"c{number}", CUSTOMERS[number], NOW + number))
    for row in assign_all(desk, NOW + 3):
        desk.apply(desk.answer(row.id, "amy", row.epoch, NOW + 4))
    desk.set_linked("amy", NOW + 5, is_linked=False)
    assert not pass_time(desk, NOW + 30_004)
    assert [row.id for row in pass_time(desk, NOW + 30_005)] == ["c0", "c1"]
    desk.set_agent("ben", SKILLS, 3, NOW)
    desk.set_state("ben", AgentState.ONLINE)
    desk.set_linked("ben", NOW + 30_006, is_linked=True)
    assert [row.id for row in assign_all(desk, NOW + 30_006)] == ["c0", "c1", "c2"]


def test_a_bot_that_does_not_answer_hands_over_and_is_not_heard_any_more() -> None:
    desk = desk_with("amy")
    asked = desk.start("c1", "ann", NOW, bot="faq")
    desk.apply(asked)
    assert asked.state is DeskState.BOT
    assert not assign_all(desk, NOW)
    desk.apply(desk.answer("c1", "faq", asked.epoch, NOW + 1000))
    assert not pass_time(desk, NOW + 50_000)
    desk.apply(desk.ask("c1", NOW + 50_000))
    assert pass_time(desk, NOW + 53_000)[0].state is DeskState.QUEUED
    with pytest.raises(Stale):
        desk.answer("c1", "faq", asked.epoch, NOW + 53_000)
    (row,) = assign_all(desk, NOW + 53_000)
    # A bot's answer is no first response: that of a human counts from the customer's first message.
    assert desk.first_response_ms(desk.answer("c1", "amy", row.epoch, NOW + 54_000)) == 54_000


def test_the_last_agent_is_preferred_for_a_day_but_not_after_it_did_not_answer() -> None:
    desk = desk_with("amy", "ben", capacity=2)
    desk.apply(desk.start("c1", "ann", NOW))
    (row,) = assign_all(desk, NOW)
    desk.apply(desk.resolve("c1", "amy", row.epoch, NOW))
    desk.apply(desk.start("c2", "bob", NOW))
    assert assign_all(desk, NOW)[0].agent == "ben"
    taken = desk.take_over("c2", "amy", NOW)
    desk.apply(taken)
    desk.apply(desk.ask("c1", NOW + 1))
    assert assign_all(desk, NOW + 1)[0].agent == "amy"  # although ben holds nothing
    desk.apply(desk.resolve("c2", "amy", taken.epoch, NOW + 1))
    pass_time(desk, NOW + 60_001)
    (row,) = assign_all(desk, NOW + 60_001)
    assert (row.id, row.agent) == ("c1", "ben")


@pytest.mark.parametrize(("later_ms", "agent"), [(86_399_999, "amy"), (86_400_000, "ben")])
def test_a_new_conversation_of_a_customer_prefers_the_last_agent_for_a_day(later_ms: int, agent: str) -> None:
    desk = desk_with("amy", "ben", capacity=2)
    desk.apply(desk.start("c1", "ann", NOW))
    (row,) = assign_all(desk, NOW)
    desk.apply(desk.resolve("c1", "amy", row.epoch, NOW))
    desk.apply(desk.start("c2", "ann", NOW + later_ms))
    assert assign_all(desk, NOW + later_ms)[0].agent == agent


def test_a_resolved_conversation_is_rated_opened_again_and_closed() -> None:
    desk = desk_with("amy")
    desk.apply(desk.start("c1", "ann", NOW))
    (row,) = assign_all(desk, NOW)
    with pytest.raises(Stale):
        desk.rate("c1", "ann", 5)
    desk.apply(desk.tag("c1", ["size", "size", "mug"]))
    desk.apply(desk.resolve("c1", "amy", row.epoch, NOW + 1000))
    with pytest.raises(Stale):
        desk.rate("c1", "bob", 5)
    with pytest.raises(ValueError, match="1 to 5"):
        desk.rate("c1", "ann", 6)
    desk.apply(desk.rate("c1", "ann", 4))
    assert [(each.rating, each.tags, each.waited_ms) for each in desk] == [(4, ("mug", "size"), 1000)]
    desk.apply(desk.ask("c1", NOW + 86_400_999))
    (again,) = assign_all(desk, NOW + 86_400_999)
    assert (again.rating, again.human_at_ms) == (0, 0)
    desk.apply(desk.resolve("c1", "amy", again.epoch, NOW + 86_401_000))
    with pytest.raises(Stale):
        desk.ask("c1", NOW + 172_801_000)
    assert pass_time(desk, NOW + 172_801_000)[0].state is DeskState.CLOSED
    assert not len(desk)
    assert not desk.of_customer("ann")


def test_alarms_come_once_and_the_time_of_the_customer_does_not_count() -> None:
    desk = desk_with("amy", times=DeskTimes(agent_ms=10**9, first_response_ms=5_000, resolution_ms=20_000))
    desk.apply(desk.start("c1", "ann", NOW))
    (row,) = assign_all(desk, NOW)
    assert [each.alarms for each in pass_time(desk, NOW + 5_000)] == [SlaAlarm.FIRST_RESPONSE]
    assert not pass_time(desk, NOW + 6_000)
    desk.apply(desk.answer("c1", "amy", row.epoch, NOW + 10_000))
    assert not pass_time(desk, NOW + 500_000)
    desk.apply(desk.ask("c1", NOW + 500_000))
    assert not pass_time(desk, NOW + 509_999)
    (late,) = pass_time(desk, NOW + 510_000)
    assert late.alarms == SlaAlarm.FIRST_RESPONSE | SlaAlarm.RESOLUTION


def test_a_question_of_the_night_is_not_late_in_the_morning() -> None:
    night_s = 8 * 3600
    opens = (NOW // 60_000 + night_s // 60 - 4 * 1440) % WEEK_MINUTES
    desk = ServiceDesk(hours=OfficeHours(((opens, opens + 60),)))
    opened_ms = NOW - NOW % 60_000 + night_s * 1000
    assert desk.hours.opens_in_ms(NOW) == opened_ms - NOW
    desk.apply(desk.start("c1", "ann", NOW))
    assert not pass_time(desk, opened_ms + 59_999)
    assert [row.alarms for row in pass_time(desk, opened_ms + 60_000)] == [SlaAlarm.FIRST_RESPONSE]
    desk.set_agent("amy", (), 1, NOW)
    desk.set_state("amy", AgentState.ONLINE)
    desk.set_linked("amy", opened_ms, is_linked=True)
    (row,) = assign_all(desk, opened_ms + 60_000)
    row = desk.answer("c1", "amy", row.epoch, opened_ms + 90_000)
    assert (desk.first_response_ms(row), row.waited_ms) == (90_000, 90_000)


def test_a_transfer_needs_an_agent_with_room_and_a_take_over_none() -> None:
    desk = desk_with("amy", "ben")
    for number in range(2):
        desk.apply(desk.start(f"c{number}", CUSTOMERS[number], NOW))
    first, second = assign_all(desk, NOW)
    assert (first.agent, second.agent) == ("amy", "ben")
    with pytest.raises(Stale):
        desk.transfer("c0", "amy", first.epoch, "ben", NOW)
    desk.apply(desk.resolve("c1", "ben", second.epoch, NOW))
    moved = desk.transfer("c0", "amy", first.epoch, "ben", NOW)
    desk.apply(moved)
    assert (moved.agent, moved.epoch, moved.transfers, moved.seq) == ("ben", first.epoch + 1, 1, first.seq)
    desk.apply(desk.start("c2", "cem", NOW))
    assign_all(desk, NOW)
    desk.apply(desk.take_over("c2", "ben", NOW))
    assert desk.agents["ben"].load == 2


def test_bounds_hold_for_customers_agents_tags_and_the_desk() -> None:
    desk = ServiceDesk(max_kept=4, max_agents=1)
    for number in range(MAX_OPEN_OF_CUSTOMER):
        desk.apply(desk.start(f"c{number}", "ann", NOW))
    with pytest.raises(TooMany, match="of the customer"):
        desk.start("c3", "ann", NOW)
    desk.apply(desk.start("c3", "bob", NOW))
    with pytest.raises(TooMany, match="of the desk"):
        desk.start("c4", "cem", NOW)
    desk.set_agent("amy", (), 1, NOW)
    with pytest.raises(TooMany, match="agents"):
        desk.set_agent("ben", (), 1, NOW)
    with pytest.raises(TooMany, match="tags"):
        desk.tag("c0", map(str, range(17)))


def test_an_erased_customer_leaves_nothing_and_an_erased_agent_gives_back_what_it_held() -> None:
    desk = desk_with("amy", capacity=2)
    for number in range(2):
        desk.apply(desk.start(f"c{number}", CUSTOMERS[number], NOW))
    assign_all(desk, NOW)
    for row in desk.erase("ann"):
        desk.apply(row)
    assert [row.customer for row in desk] == ["bob"]
    assert desk.agents["amy"].load == 1
    assert not desk.erase("amy")
    assert [(row.id, row.state) for row in pass_time(desk, NOW)] == [("c1", DeskState.QUEUED)]
