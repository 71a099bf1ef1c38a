"""Floods of one user and of many: a typed error or the same answer each, nothing changed, and nothing that grows."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from broker.core.commerce.activity import ActivityRefusal, Requester
from broker.core.commerce.activity_runner import MAX_WAITING, MAX_WAITING_OF_ONE
from broker.core.commerce.kinds import activity_kinds
from broker.core.commerce.lottery import EnterCommand, Lottery
from broker.core.commerce.lottery_config import NewLottery
from broker.core.commerce.packet import RedPacket
from broker.core.commerce.room_activities import AnswerCommand, RecordBatch, RoomActivities, Times
from protocol.activities.eligibility import Eligibility
from protocol.activities.lotteries import LotteryEntry
from protocol.activities.packets import OwnPacketShare
from protocol.codes import ErrorCode
from protocol.lottery.terms import LotteryGrade, LotteryTerms
from protocol.operations.packets import CreatedPacket, CreatePacket, GrabPacket
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.work import calls_of

NOW_MS = 1_790_000_000_000
SEED = bytes(range(32))
ANN = viewer("ann")
GRAB = GrabPacket("", "p")
PACKET = CreatePacket("room", "p", "order", 1000, 5)
ENTRIES = 20_000
GROWTH_BLOCKS = 200
"""Memory blocks that a test may keep for itself; one an entry would be 20,000."""


def open_lottery() -> ActivityDriver:
    driver = ActivityDriver(lambda: Lottery("bag", lambda: SEED), NOW_MS)
    terms = LotteryTerms("bag", "room", NOW_MS + 10, NOW_MS + 60_000, (LotteryGrade("first", 1),), 10, "say it")
    driver.ask(NewLottery(terms, eligibility=Eligibility(keyword="bag")), platform)
    driver.pass_time(10)
    return driver


def open_packet() -> ActivityDriver:
    driver = ActivityDriver(lambda: RedPacket("p", lambda: SEED), NOW_MS)
    assert isinstance(driver.ask(PACKET, platform), CreatedPacket)
    return driver


@pytest.mark.parametrize("said", ["bag", ""], ids=["keyword in a message", "CALL"])
def test_entries_of_one_user_are_one_entry_at_the_same_cost_and_without_memory(said: str) -> None:
    """The state after an entry that is known is the one before it, so a million of them are one of them, repeated."""
    driver = open_lottery()
    first = driver.ask(EnterCommand("bag"), ANN)
    assert isinstance(first, LotteryEntry)
    lottery, before, command = driver.activity, driver.activity.dump(), EnterCommand(said)

    def enter() -> None:
        step = lottery.decide(command, ANN, 0, driver.now_ms)
        assert step.answer == first
        assert step.facts == step.answers == ()

    enter()
    calls, blocks = calls_of(enter), sys.getallocatedblocks()
    for _ in range(ENTRIES):
        enter()
    assert sys.getallocatedblocks() - blocks < GROWTH_BLOCKS
    assert calls_of(enter) == calls
    assert lottery.dump() == before
    assert driver.runner.is_idle


def test_who_waits_for_the_ledger_has_few_entries_under_way() -> None:
    driver = open_lottery()
    tickets = [driver.send(EnterCommand("bag"), ANN) for _ in range(1 + MAX_WAITING_OF_ONE + 1000)]
    refusals = [driver.answers[ticket] for ticket in tickets if ticket in driver.answers]
    assert len(refusals) == 1000
    assert {(refusal.code, refusal.retry_after_ms > 0) for refusal in refusals} == {(ErrorCode.OVERLOADED, True)}
    driver.commit_all()
    entries = {driver.answers[ticket] for ticket in tickets[: 1 + MAX_WAITING_OF_ONE]}
    assert len(entries) == 1
    assert [fact.name for fact in driver.facts].count("entered") == 1


def test_users_who_come_while_the_ledger_is_slow_are_bounded_together() -> None:
    driver = open_packet()
    driver.send(GRAB, ANN)
    tickets = [driver.send(GRAB, Requester(f"u{number}", "", ANN.role)) for number in range(MAX_WAITING + 50)]
    refusals = [driver.answers[ticket] for ticket in tickets if ticket in driver.answers]
    assert {refusal.code for refusal in refusals} == {ErrorCode.OVERLOADED}
    assert len(refusals) == 50
    driver.commit_all()
    shares = [answer for answer in driver.answers.values() if isinstance(answer, OwnPacketShare)]
    assert sum(share.cents for share in shares) == PACKET.total_cents
    assert len(shares) == PACKET.count


def test_grabs_of_one_user_take_one_share_and_those_of_an_empty_packet_none() -> None:
    driver = open_packet()
    share = driver.ask(GRAB, ANN)
    before = driver.activity.dump()
    blocks = sys.getallocatedblocks()
    for _ in range(ENTRIES):
        step = driver.activity.decide(GRAB, ANN, 0, driver.now_ms)
        assert (step.answer, step.facts) == (share, ())
    assert sys.getallocatedblocks() - blocks < GROWTH_BLOCKS
    assert driver.activity.dump() == before
    for number in range(PACKET.count - 1):
        driver.ask(GRAB, viewer(f"u{number}"))
    before = driver.activity.dump()
    for number in range(2000):
        refusal = driver.refusal_of(GRAB, viewer(f"late{number}"))
        assert refusal.code is ErrorCode.EMPTY
    assert driver.activity.dump() == before
    assert driver.ask(GRAB, ANN) == share


def create(activities: RoomActivities[int], request: CreatePacket) -> Any:
    """Create a packet, let the ledger commit it and return the answer."""
    effects = activities.command(("packets", request.id), request, platform, 1, Times(NOW_MS, NOW_MS), creates=True)
    answers = []
    while effects:
        effect = effects.pop(0)
        if isinstance(effect, RecordBatch):
            effects += activities.committed(effect.made.key)
        elif isinstance(effect, AnswerCommand):
            answers.append(effect.answer)
    (answer,) = answers
    return answer


def test_a_room_has_a_hundred_packets_and_refuses_the_next_one() -> None:
    activities: RoomActivities[int] = RoomActivities(activity_kinds(lambda: SEED))
    packets = [PACKET._replace(id=f"p{number}", order_id=f"o{number}") for number in range(100)]
    made = [create(activities, each) for each in packets]
    assert all(isinstance(each, CreatedPacket) for each in made)
    facts, amounts = activities.counts.facts["packets"], activities.amounts()
    for number in range(100, 300):
        refusal = create(activities, PACKET._replace(id=f"p{number}", order_id=f"o{number}"))
        assert isinstance(refusal, ActivityRefusal)
        assert (refusal.code, refusal.field) == (ErrorCode.OUT_OF_STATE, "room")
    assert [create(activities, each) for each in packets] == made
    assert len(activities) == 100
    assert (activities.counts.facts["packets"], activities.amounts()) == (facts, amounts)


def test_packets_that_are_refused_leave_nothing_under_their_ids() -> None:
    activities: RoomActivities[int] = RoomActivities(activity_kinds(lambda: SEED))
    fields: dict[str, Any] = {"total_cents": 4, "expire_at_ms": 1}
    for number in range(1000):
        for field, value in fields.items():
            refusal = create(activities, PACKET._replace(id=f"p{number}", **{field: value}))
            assert isinstance(refusal, ActivityRefusal)
            assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, field)
    assert len(activities) == 0
    assert activities.counts.facts == {}
    assert isinstance(create(activities, PACKET._replace(id="p7")), CreatedPacket)
