"""Rains: drops fall at the times that the seed gives, and money is conserved over refusals and restarts."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.commerce.packet import SETTLED_AFTER_MS
from broker.core.commerce.rain import (
    ANNOUNCED_MS,
    MAX_LATE_MS,
    MAX_RAIN_SHARES,
    GrabDrop,
    MyDropShare,
    Rain,
    drop_of,
)
from protocol.activities.eligibility import Eligibility
from protocol.activities.packets import OwnPacketShare, SplitMode
from protocol.activities.rains import MAX_SHOWN_DROPS, RainState
from protocol.codes import ErrorCode, Role
from protocol.fields import MAX_INT
from protocol.operations.packets import CancelledPacket, CancelRain, CreatedRain, CreateRain, MyShare
from protocol.packet_shares import Drop, packet_shares, rain_drops
from protocol.primitives import seed_hash
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.examples import examples

SEED = bytes(range(32))
NOW = 1_790_000_000_000
START = NOW + ANNOUNCED_MS
SPAN = 60_000
CANCEL = CancelRain("", "r")


def creation(**fields: Any) -> CreateRain:
    return CreateRain("room", "r", "order", 4002, 4, 5, SPAN)._replace(**fields)


def planned(config: CreateRain, seed: bytes = SEED, start: int = START) -> tuple[Drop, ...]:
    return rain_drops(start, config.span_ms, config.drops, config.jitter_percent, config.total_cents, seed)


def driver_with(**fields: Any) -> ActivityDriver:
    driver = ActivityDriver(lambda: Rain("r", lambda: SEED))
    assert isinstance(driver.ask(creation(**fields), platform), CreatedRain)
    return driver


def until(driver: ActivityDriver, at_ms: int) -> None:
    driver.pass_time(at_ms - driver.now_ms)


def test_a_large_drop_opens_at_its_time_and_is_divided_again_after_a_restart() -> None:
    driver = driver_with(total_cents=4_000_000, count=10_000, jitter_percent=0)
    until(driver, START)
    assert driver.events[-1].name == "rains.drop_opened"
    assert isinstance(driver.ask(GrabDrop(0), viewer("ann")), OwnPacketShare)
    driver.restart()
    assert driver.activity.next_due() <= driver.now_ms + 1
    driver.pass_time(30)
    assert driver.activity.next_due() > driver.now_ms + 1
    assert isinstance(driver.ask(GrabDrop(0), viewer("bob")), OwnPacketShare)


def names(driver: ActivityDriver) -> list[str]:
    return [event.name.removeprefix("rains.") for event in driver.events]


def test_drops_are_announced_open_and_end() -> None:
    driver = driver_with()
    drops = planned(creation())
    first = drops[0]
    until(driver, first.at_ms - ANNOUNCED_MS - 1)
    assert driver.refusal_of(GrabDrop(0), viewer("ann")).code is ErrorCode.UNKNOWN_ACTIVITY
    until(driver, first.at_ms - ANNOUNCED_MS)
    assert driver.events[-1] == ("rains.drop_announced", ("r/0", first.at_ms))
    early = driver.refusal_of(GrabDrop(0), viewer("ann"))
    assert (early.code, early.retry_after_ms) == (ErrorCode.NOT_OPEN, ANNOUNCED_MS)
    until(driver, first.at_ms)
    hash = seed_hash(first.seed).hex()
    assert driver.events[-1] == ("rains.drop_opened", ("r/0", first.cents, 5, hash, first.at_ms + 30_000))
    shares = packet_shares(SplitMode.LUCKY, first.cents, 5, 1, 0, first.seed)
    driver.now_ms += 70
    for number, cents in enumerate(shares):
        assert driver.ask(GrabDrop(0), viewer(f"u{number}")) == OwnPacketShare(number, cents)
    assert driver.events[-1] == ("rains.drop_emptied", ("r/0", "U***", max(shares), 70))
    assert driver.refusal_of(GrabDrop(0), viewer("late")).code is ErrorCode.EMPTY
    assert driver.ask(GrabDrop(0), viewer("u3")) == OwnPacketShare(3, shares[3])
    until(driver, first.at_ms + 70 + SETTLED_AFTER_MS)
    assert driver.events[-1] == ("rains.drop_settled", ("r/0", first.seed.hex(), 5, 0))
    reports = [report.data for report in driver.reports]
    assert [(each.packet, each.order_id, each.share, each.cents) for each in reports] == [
        ("r/0", "order", number, cents) for number, cents in enumerate(shares)
    ]


def test_a_rain_falls_as_its_seed_says() -> None:
    driver = driver_with()
    assert driver.answers[1] == CreatedRain("r", START, seed_hash(SEED).hex())
    driver.pass_time(10 * SPAN)
    opened = [fact.data for fact in driver.facts if fact.name == "opened"]
    assert opened == [(number, drop.at_ms) for number, drop in enumerate(planned(creation()))]
    for name in ("drop_announced", "drop_opened", "drop_expired", "drop_settled"):
        assert names(driver).count(name) == 4
    assert driver.events[-1] == ("rains.settled", (SEED.hex(), 4, 0, 4002))
    (report,) = driver.reports
    assert report == ("rain.settled", ("r", "order", 4, 0, 0, 4002, SEED.hex()))
    assert driver.activity.state is RainState.SETTLED
    assert driver.activity.removable_at is not None
    assert driver.runner.next_due() is None


def test_a_drop_that_is_a_little_late_falls_now_and_an_older_one_is_missed() -> None:
    config = creation(jitter_percent=0)
    drops = planned(config)
    driver = driver_with(jitter_percent=0)
    until(driver, drops[0].at_ms - 1)
    driver.now_ms = drops[1].at_ms + MAX_LATE_MS
    driver.restart()
    driver.commit_all()
    assert driver.now_ms > drops[0].at_ms + MAX_LATE_MS
    assert [fact for fact in driver.facts if fact.name in ("missed", "opened")] == [
        ("missed", (0, driver.now_ms)), ("opened", (1, driver.now_ms)),
    ]  # fmt: skip
    assert driver.refusal_of(GrabDrop(0), viewer("ann")).code is ErrorCode.EMPTY
    taken = driver.ask(GrabDrop(1), viewer("ann")).cents
    driver.pass_time(10 * SPAN)
    (settled,) = [report.data for report in driver.reports if report.name == "rain.settled"]
    assert (settled.fallen, settled.taken, settled.taken_cents) == (3, 1, taken)
    assert settled.returned_cents == 4002 - taken


@pytest.mark.parametrize(("late_ms", "fact"), [(MAX_LATE_MS, "opened"), (MAX_LATE_MS + 1, "missed")])
def test_ten_seconds_is_not_too_late(late_ms: int, fact: str) -> None:
    driver = driver_with(drops=1)
    (drop,) = planned(creation(drops=1))
    driver.now_ms = drop.at_ms + late_ms
    driver.restart()
    driver.commit_all()
    assert [each.name for each in driver.facts[:2]] == ["created", fact]


def test_one_user_takes_of_so_many_drops() -> None:
    driver = driver_with(max_per_user=2, jitter_percent=0, drop_ms=3_600_000)
    until(driver, planned(creation(jitter_percent=0))[3].at_ms)
    assert isinstance(driver.ask(GrabDrop(0), viewer("ann")), OwnPacketShare)
    first = driver.ask(GrabDrop(2), viewer("ann"))
    assert driver.refusal_of(GrabDrop(1), viewer("ann")).code is ErrorCode.ALREADY_HAVE
    assert driver.ask(GrabDrop(2), viewer("ann")) == first
    driver.restart()
    assert driver.refusal_of(GrabDrop(3), viewer("ann")).code is ErrorCode.ALREADY_HAVE
    assert isinstance(driver.ask(GrabDrop(3), viewer("bob")), OwnPacketShare)
    own = driver.activity.own_view("ann")
    assert (own.count, own.cents) == (2, sum(item.cents for item in own.items))
    assert [item.packet for item in own.items] == ["r/0", "r/2"]
    assert driver.activity.own_view("zoe") is None


def test_conditions_are_judged_at_the_grab() -> None:
    driver = driver_with(eligibility=Eligibility(Role.VIP))
    until(driver, planned(creation())[0].at_ms)
    assert driver.refusal_of(GrabDrop(0), viewer("ann")).field == "min_role"
    assert isinstance(driver.ask(GrabDrop(0), viewer("ann", Role.VIP)), OwnPacketShare)


def test_cancelling_a_rain_keeps_what_is_taken() -> None:
    driver = driver_with()
    until(driver, planned(creation())[0].at_ms)
    own = driver.ask(GrabDrop(0), viewer("ann"))
    assert driver.ask(CANCEL, platform) == CancelledPacket(4002 - own.cents)
    assert driver.events[-1] == ("rains.cancelled", (4002 - own.cents,))
    assert driver.ask(GrabDrop(0), viewer("ann")) == own
    assert driver.ask(MyDropShare(0), viewer("ann")) == MyShare(own)
    assert driver.ask(MyDropShare(0), viewer("bob")) == MyShare(None)
    assert driver.refusal_of(GrabDrop(0), viewer("bob")).code is ErrorCode.EMPTY
    assert driver.refusal_of(GrabDrop(3), viewer("bob")).code is ErrorCode.CANCELLED
    assert driver.refusal_of(GrabDrop(4), viewer("bob")).code is ErrorCode.UNKNOWN_ACTIVITY
    assert driver.ask(CANCEL, platform) == CancelledPacket(4002 - own.cents)
    driver.pass_time(10 * SPAN)
    assert names(driver)[-2:] == ["cancelled", "settled"]
    (settled,) = [report.data for report in driver.reports if report.name == "rain.settled"]
    assert settled == ("r", "order", 1, 1, own.cents, 4002 - own.cents, SEED.hex())


def test_the_end_of_the_room_returns_what_is_not_taken() -> None:
    driver = driver_with()
    until(driver, planned(creation())[1].at_ms)
    taken = driver.ask(GrabDrop(1), viewer("ann")).cents
    driver.end()
    (settled,) = [report.data for report in driver.reports if report.name == "rain.settled"]
    assert (settled.fallen, settled.taken_cents, settled.returned_cents) == (2, taken, 4002 - taken)
    driver.check()


def test_creating_with_a_known_id() -> None:
    driver = driver_with()
    first = driver.answers[1]
    driver.restart()
    driver.now_ms += 100
    assert driver.ask(creation(room="other"), platform) == first
    assert driver.refusal_of(creation(drops=5), platform).code is ErrorCode.KEY_REUSED


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": "a/b"}, "id"),
        ({"total_cents": 19}, "total_cents"),
        ({"max_cents": 200}, "total_cents"),
        ({"mode": SplitMode.FIXED}, "drops"),
        ({"mode": SplitMode.FIXED, "total_cents": 4004}, "count"),
        ({"drops": 200, "count": MAX_RAIN_SHARES // 200 + 1, "total_cents": 10**9}, "count"),
        ({"start_at_ms": START - 1}, "start_at_ms"),
        ({"start_at_ms": MAX_INT}, "start_at_ms"),
    ],
)
def test_bad_terms_are_refused(fields: dict[str, Any], field: str) -> None:
    driver = ActivityDriver(lambda: Rain("r", lambda: SEED))
    refusal = driver.refusal_of(creation(**fields), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, field)


@pytest.mark.parametrize("command", [GrabDrop(0), MyDropShare(0), CANCEL])
def test_without_a_rain_every_command_is_refused(command: Any) -> None:
    driver = ActivityDriver(lambda: Rain("r", lambda: SEED))
    assert driver.refusal_of(command, viewer("ann")).code is ErrorCode.UNKNOWN_ACTIVITY


def test_what_members_see_has_no_time_that_is_not_announced() -> None:
    driver = driver_with(drops=20, total_cents=20_000, jitter_percent=0, drop_ms=3_600_000)
    drops = planned(creation(drops=20, total_cents=20_000, jitter_percent=0))
    until(driver, drops[9].at_ms)
    view = driver.activity.view(is_staff=False)
    assert (view.state, view.fallen, view.drops) == (RainState.RUNNING, 10, 20)
    assert [(each.packet, each.is_open) for each in view.shown] == [
        ("r/6", True), ("r/7", True), ("r/8", True), ("r/9", True), ("r/10", False),
    ]  # fmt: skip
    assert len(view.shown) == MAX_SHOWN_DROPS
    shown = repr((view, driver.events, driver.reports, driver.answers))
    assert not any(str(drop.at_ms) in shown for drop in drops[11:])
    assert SEED.hex() not in shown
    driver.ask(CANCEL, platform)
    assert driver.activity.view(is_staff=False).shown == ()
    driver.pass_time(SETTLED_AFTER_MS)
    assert driver.activity.view(is_staff=False) is None


@given(st.text(max_size=68))
def test_the_id_of_a_drop(text: str) -> None:
    found = drop_of(text)
    assert found is None or f"{found[0]}/{found[1]}" == text


@pytest.mark.parametrize(
    ("packet", "drop"),
    [("r/0", ("r", 0)), ("r/12", ("r", 12)), ("r", None), ("r/", None), ("r/01", None), ("r/-1", None), ("r/²", None)],
)
def test_a_drop_is_called_after_its_rain(packet: str, drop: tuple[str, int] | None) -> None:
    assert drop_of(packet) == drop


class RainMachine(RuleBasedStateMachine):
    """Any order of grabs, times, cancelling, commits, refusals and restarts."""

    @initialize(
        drops=st.integers(1, 4),
        shares=st.integers(1, 3),
        jitter=st.integers(0, 100),
        drop_ms=st.integers(1000, 8000),
        most=st.integers(0, 2),
    )
    def begin(self, drops: int, shares: int, jitter: int, drop_ms: int, most: int) -> None:
        numbers = count()
        self.driver = ActivityDriver(lambda: Rain("r", lambda: next(numbers).to_bytes(32, "big")))
        self.creation = creation(
            total_cents=100 * drops * shares + drops - 1, drops=drops, count=shares, span_ms=10_000,
            jitter_percent=jitter, drop_ms=drop_ms, max_per_user=most,
        )  # fmt: skip
        self.asked: dict[int, tuple[str, int]] = {}
        self.driver.send(self.creation, platform)

    @rule(user=st.sampled_from("abcd"), number=st.integers(0, 4))
    def grab(self, user: str, number: int) -> None:
        self.asked[self.driver.send(GrabDrop(number), viewer(user))] = user, number

    @precondition(lambda self: self.driver.now_ms > NOW + 8000)
    @rule()
    def cancel(self) -> None:
        self.driver.send(CANCEL, platform)

    @rule(ms=st.sampled_from([1, 300, 1000, 2500, 4000, 12_000]))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms)

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def commit(self) -> None:
        self.driver.commit()

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def commit_all(self) -> None:
        self.driver.commit_all()

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def refuse(self) -> None:
        self.driver.refuse()

    @rule()
    def restart(self) -> None:
        self.driver.restart()

    @invariant()
    def money_is_conserved(self) -> None:
        self.driver.check()
        grabs = [fact.data for fact in self.driver.facts if fact.name == "grabbed"]
        durable = {(user, number): OwnPacketShare(share, cents) for number, share, cents, user, _ in grabs}
        assert len(durable) == len(grabs), "one share of a drop a user"
        assert len({grab[:2] for grab in grabs}) == len(grabs), "each share once"
        assert sum(grab[2] for grab in grabs) <= self.creation.total_cents
        for user in "abcd":
            taken = sum(grab[3] == user for grab in grabs)
            assert not self.creation.max_per_user or taken <= self.creation.max_per_user
        for ticket, asked in self.asked.items():
            answer = self.driver.answers.get(ticket)
            if isinstance(answer, OwnPacketShare):
                assert durable[asked] == answer, "what a user hears is durable"

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        driver = self.driver
        driver.commit_all()
        driver.pass_time(3_600_000)
        assert len(driver.answers) + len(driver.lost) == driver.asked
        driver.check()
        if not driver.activity.exists:
            return
        grabs = [fact.data for fact in driver.facts if fact.name == "grabbed"]
        (settled,) = [report.data for report in driver.reports if report.name == "rain.settled"]
        assert settled.taken_cents == sum(grab[2] for grab in grabs)
        assert settled.taken_cents + settled.returned_cents == self.creation.total_cents
        seed = bytes.fromhex(settled.seed)
        drops = planned(self.creation, seed, driver.facts[0].data[2])
        for number, drop in enumerate(drops):
            shares = packet_shares(self.creation.mode, drop.cents, self.creation.count, 1, 0, drop.seed)
            taken = [grab[2] for grab in grabs if grab[0] == number]
            assert taken == shares[: len(taken)], "the seed that is published explains every share"
        for name in ("settled", "drop_missed", "drop_opened"):
            numbers = [event.data[0] for event in driver.events if event.name == f"rains.{name}"]
            assert len(set(numbers)) == len(numbers)


RainMachine.TestCase.settings = examples(80, steps=40)
TestRains = RainMachine.TestCase
