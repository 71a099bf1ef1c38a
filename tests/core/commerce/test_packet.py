"""Red packets: money is conserved over every order of grabs, refusals of the ledger and restarts."""

from __future__ import annotations

from hashlib import sha256
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.commerce.activity import ActivityRefusal, Requester
from broker.core.commerce.packet import SETTLED_AFTER_MS, RedPacket
from protocol.activities.eligibility import Eligibility
from protocol.activities.packets import OwnPacketShare, PacketState, SplitMode
from protocol.codes import ErrorCode, Role
from protocol.fields import MAX_INT
from protocol.operations.packets import (
    MAX_OPEN_MS,
    CancelledPacket,
    CancelPacket,
    CreatedPacket,
    CreatePacket,
    GrabPacket,
    MyPacketShare,
    MyShare,
)
from protocol.packet_shares import packet_shares
from protocol.primitives import seed_hash
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.examples import examples

SEED = bytes(range(32))
GRAB = GrabPacket("", "p")
CANCEL = CancelPacket("", "p")
MINE = MyPacketShare("", "p")


def packet() -> RedPacket[int]:
    return RedPacket("p", lambda: SEED)


def driver_with(**fields: Any) -> ActivityDriver:
    """Return the driver of a packet that is created and, unless its time comes later, open."""
    driver = ActivityDriver(packet)
    assert isinstance(driver.ask(creation(**fields), platform), CreatedPacket)
    return driver


def creation(**fields: Any) -> CreatePacket:
    return CreatePacket("room", "p", "order", 1000, 5)._replace(**fields)


def names(driver: ActivityDriver) -> list[str]:
    return [event.name for event in driver.events]


def data(driver: ActivityDriver, name: str) -> Any:
    """Return the data of the only event, or report, of a name."""
    sent: list[Any] = [*driver.events, *driver.reports]
    (found,) = [each.data for each in sent if each.name == name]
    return found


def test_a_packet_opens_is_emptied_and_settled() -> None:
    driver = driver_with()
    assert driver.activity.state is PacketState.OPEN
    driver.now_ms += 40
    shares = packet_shares(SplitMode.LUCKY, 1000, 5, 1, 0, SEED)
    for number, cents in enumerate(shares):
        assert driver.ask(GRAB, viewer(f"u{number}")) == OwnPacketShare(number, cents)
    assert names(driver) == ["packets.scheduled", "packets.opened", "packets.emptied"]
    emptied = data(driver, "packets.emptied")
    assert (emptied.name, emptied.cents, emptied.took_ms) == ("U***", max(shares), 40)
    assert data(driver, "packets.opened").seed_hash == seed_hash(SEED).hex()
    assert driver.refusal_of(GRAB, viewer("late")).code is ErrorCode.EMPTY
    driver.pass_time(SETTLED_AFTER_MS - 1)
    assert driver.activity.state is PacketState.DONE
    driver.pass_time(1)
    settled = data(driver, "packets.settled")
    assert settled == (SEED.hex(), 5, 0)
    assert data(driver, "packet.settled") == ("p", "order", 5, 1000, 0, SEED.hex())
    grabbed = [report.data for report in driver.reports if report.name == "packet.grabbed"]
    assert [(each.share, each.user, each.cents) for each in grabbed] == [
        (number, f"u{number}", cents) for number, cents in enumerate(shares)
    ]
    assert driver.activity.removable_at == driver.now_ms
    assert driver.runner.next_due() is None


def test_the_best_of_equal_shares_is_the_first() -> None:
    driver = driver_with(mode=SplitMode.FIXED)
    for user in ("ann", "bob", "cem", "dora", "eve"):
        driver.ask(GRAB, viewer(user))
    assert data(driver, "packets.emptied")[:2] == ("A***", 200)


def test_asking_again_gives_the_same_share_as_long_as_the_packet_is_known() -> None:
    driver = driver_with()
    first = driver.ask(GRAB, viewer("ann"))
    assert driver.ask(GRAB, viewer("ann")) == first
    driver.restart()
    assert driver.ask(GRAB, viewer("ann")) == first
    driver.ask(CANCEL, platform)
    assert driver.ask(GRAB, viewer("ann")) == first
    driver.pass_time(SETTLED_AFTER_MS)
    assert driver.activity.state is PacketState.SETTLED
    assert driver.ask(GRAB, viewer("ann")) == first
    assert driver.ask(MINE, viewer("ann")) == MyShare(first)
    assert driver.ask(MINE, viewer("bob")) == MyShare(None)
    assert sum(fact.name == "grabbed" for fact in driver.facts) == 1


def test_a_packet_is_open_from_its_time_on_and_until_its_end() -> None:
    start = 1_790_000_000_000
    driver = driver_with(open_at_ms=start + 500, expire_at_ms=start + 900)
    early = driver.refusal_of(GRAB, viewer("ann"))
    assert (early.code, early.retry_after_ms) == (ErrorCode.NOT_OPEN, 500)
    driver.pass_time(499)
    assert driver.refusal_of(GRAB, viewer("ann")).retry_after_ms == 1
    driver.pass_time(1)
    assert names(driver) == ["packets.scheduled", "packets.opened"]
    driver.ask(GRAB, viewer("ann"))
    driver.now_ms += 399
    driver.ask(GRAB, viewer("bob"))
    driver.now_ms += 1
    assert driver.ask(GRAB, viewer("cem")).code is ErrorCode.EMPTY
    expired = data(driver, "packets.expired")
    taken = sum(cents for _, cents, _, _ in (fact.data for fact in driver.facts if fact.name == "grabbed"))
    assert expired == (2, 1000 - taken)


def test_until_the_ledger_has_the_opening_and_the_end_a_grab_waits_or_is_refused() -> None:
    driver = ActivityDriver(packet)
    driver.send(creation(expire_at_ms=driver.now_ms + 1000), platform)
    driver.commit()
    assert driver.is_under_way, "the opening"
    driver.refuse()
    assert driver.ask(GRAB, viewer("ann")).code is ErrorCode.NOT_OPEN
    driver.pass_time(200)
    assert isinstance(driver.ask(GRAB, viewer("ann")), OwnPacketShare)
    driver.advance(800)
    assert driver.is_under_way, "the end"
    driver.refuse()
    assert driver.ask(GRAB, viewer("bob")).code is ErrorCode.EMPTY
    driver.pass_time(200)
    assert names(driver)[-1] == "packets.expired"


def test_cancelling_a_packet_before_it_opens_returns_everything() -> None:
    driver = driver_with(open_at_ms=1_790_000_000_500)
    assert driver.ask(CANCEL, platform) == CancelledPacket(1000)
    assert data(driver, "packets.cancelled") == (1000,)
    assert driver.ask(CANCEL, platform) == CancelledPacket(1000)
    assert driver.refusal_of(GRAB, viewer("ann")).code is ErrorCode.CANCELLED
    driver.pass_time(SETTLED_AFTER_MS)
    assert names(driver) == ["packets.scheduled", "packets.cancelled", "packets.settled"]
    assert data(driver, "packet.settled").returned_cents == 1000
    assert driver.refusal_of(GRAB, viewer("ann")).code is ErrorCode.CANCELLED


def test_cancelling_an_open_packet_keeps_what_is_taken() -> None:
    driver = driver_with()
    taken = driver.ask(GRAB, viewer("ann")).cents
    assert driver.ask(CANCEL, platform) == CancelledPacket(1000 - taken)
    assert names(driver)[-1] == "packets.expired"
    assert driver.refusal_of(GRAB, viewer("bob")).code is ErrorCode.EMPTY
    driver.pass_time(SETTLED_AFTER_MS)
    assert driver.ask(CANCEL, platform) == CancelledPacket(1000 - taken)
    assert data(driver, "packet.settled")[2:5] == (1, taken, 1000 - taken)


def test_the_end_of_the_room_returns_what_is_not_taken() -> None:
    driver = driver_with()
    taken = driver.ask(GRAB, viewer("ann")).cents
    driver.end()
    assert data(driver, "packet.settled")[2:5] == (1, taken, 1000 - taken)
    assert driver.activity.state is PacketState.SETTLED
    driver.check()
    settled = len(driver.facts)
    driver.end()
    assert len(driver.facts) == settled


def test_a_packet_whose_whole_time_passed_in_an_outage_opens_and_ends_in_order() -> None:
    driver = driver_with(open_at_ms=1_790_000_000_500, expire_at_ms=1_790_000_000_900)
    driver.now_ms += 60_000
    driver.restart()
    driver.commit_all()
    assert names(driver) == ["packets.scheduled", "packets.opened", "packets.expired"]
    assert driver.runner.next_due() == driver.now_ms + SETTLED_AFTER_MS, "a new deadline counts from now"


def test_creating_with_a_known_id() -> None:
    driver = driver_with()
    first = driver.answers[1]
    assert driver.ask(creation(room="tenant/room"), platform) == first
    assert driver.refusal_of(creation(total_cents=1001), platform).code is ErrorCode.KEY_REUSED
    driver.restart()
    assert driver.ask(creation(), platform) == first
    assert driver.refusal_of(creation(title="x"), platform).code is ErrorCode.KEY_REUSED
    assert first == CreatedPacket("p", 1_790_000_000_000, 1_790_000_000_000 + MAX_OPEN_MS, seed_hash(SEED).hex())


NOW = 1_790_000_000_000


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"total_cents": 4}, "total_cents"),
        ({"total_cents": 49, "min_cents": 10}, "total_cents"),
        ({"max_cents": 199}, "total_cents"),
        ({"min_cents": 10, "max_cents": 9}, "max_cents"),
        ({"mode": SplitMode.FIXED, "total_cents": 1001}, "count"),
        ({"total_cents": 10**12, "count": 10_000, "max_cents": 10**12}, "max_cents"),
        ({"id": "a/1"}, "id"),
        ({"expire_at_ms": NOW}, "expire_at_ms"),
        ({"open_at_ms": NOW + 10, "expire_at_ms": NOW + 10}, "expire_at_ms"),
        ({"expire_at_ms": NOW + MAX_OPEN_MS + 1}, "expire_at_ms"),
        ({"open_at_ms": MAX_INT}, "open_at_ms"),
    ],
)
def test_bad_terms_are_refused(fields: dict[str, Any], field: str) -> None:
    driver = ActivityDriver(packet)
    refusal = driver.refusal_of(creation(**fields), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, field)
    assert not driver.activity.exists


@pytest.mark.parametrize("command", [GRAB, CANCEL, MINE])
def test_without_a_packet_every_command_is_refused(command: Any) -> None:
    driver = ActivityDriver(packet)
    assert driver.refusal_of(command, viewer("ann")).code is ErrorCode.UNKNOWN_ACTIVITY


def test_conditions_are_judged_at_the_grab() -> None:
    driver = driver_with(eligibility=Eligibility(Role.VIP, keyword="luck"))
    assert driver.refusal_of(GRAB, viewer("ann")).field == "min_role"
    assert driver.refusal_of(GRAB, viewer("ann", Role.VIP)).field == "keyword"
    assert isinstance(driver.ask(GRAB._replace(keyword=" Luck "), viewer("ann", Role.VIP)), OwnPacketShare)
    driver.restart()
    assert driver.refusal_of(GRAB, viewer("bob")).code is ErrorCode.NOT_ELIGIBLE


def test_what_members_see() -> None:
    driver = driver_with(title="Luck")
    own = driver.ask(GRAB, viewer("ann"))
    view = driver.activity.view(is_staff=False)
    assert (view.title, view.state, view.taken, view.count) == ("Luck", PacketState.OPEN, 1, 5)
    assert driver.activity.own_view("ann") == own
    assert driver.activity.own_view("bob") is None
    assert driver.activity.counter() == ("packets.counted", (1,))
    info = driver.activity.info()
    assert (info.taken_cents, info.order_id) == (own.cents, "order")
    driver.ask(CANCEL, platform)
    driver.pass_time(SETTLED_AFTER_MS)
    assert driver.activity.view(is_staff=False) is None
    assert driver.activity.counter() is None


def test_the_seed_is_secret_until_the_packet_is_settled() -> None:
    driver = driver_with()
    driver.ask(GRAB, viewer("ann"))
    seen = repr((driver.events, driver.reports, driver.answers, driver.activity.view(is_staff=False)))
    assert SEED.hex() not in seen
    assert repr(SEED) not in seen


@given(
    st.permutations(["ann", "bob", "cem", "dora", "eve"]), st.lists(st.integers(0, 4), max_size=10), st.booleans()
)  # fmt: skip
def test_shares_depend_on_the_seed_alone(users: list[str], repeats: list[int], refuses: bool) -> None:
    driver = driver_with()
    shares = packet_shares(SplitMode.LUCKY, 1000, 5, 1, 0, SEED)
    if refuses:
        driver.send(GRAB, viewer("zoe"))
        driver.refuse()
        driver.commit_all()
    for number, user in enumerate(users):
        assert driver.ask(GRAB, viewer(user)) == OwnPacketShare(number, shares[number])
        for repeat in repeats:
            if repeat <= number:
                assert driver.ask(GRAB, viewer(users[repeat])).share == repeat


class PacketMachine(RuleBasedStateMachine):
    """Any order of grabs, times, cancelling, commits, refusals and restarts."""

    @initialize(
        shares=st.integers(1, 6),
        mode=st.sampled_from(SplitMode),
        opens_in=st.integers(0, 500),
        lasts=st.integers(1, 3000),
    )
    def begin(self, shares: int, mode: SplitMode, opens_in: int, lasts: int) -> None:
        numbers = count()
        self.driver = ActivityDriver(lambda: RedPacket("p", lambda: next(numbers).to_bytes(32, "big")))
        now = self.driver.now_ms
        self.creation = creation(
            total_cents=100 * shares, count=shares, mode=mode, open_at_ms=now + opens_in,
            expire_at_ms=now + opens_in + lasts,
        )  # fmt: skip
        self.asked: dict[int, str] = {}
        self.driver.send(self.creation, platform)

    @rule(user=st.sampled_from("abcdefgh"))
    def grab(self, user: str) -> None:
        self.asked[self.driver.send(GRAB, viewer(user))] = user

    @rule()
    def create_again(self) -> None:
        self.driver.send(self.creation, platform)

    @rule()
    def cancel(self) -> None:
        self.driver.send(CANCEL, platform)

    @rule(ms=st.integers(0, 800))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms)

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def commit(self) -> None:
        self.driver.commit()

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
        assert [grab[0] for grab in grabs] == list(range(len(grabs))), "each share once, in order"
        assert len({grab[2] for grab in grabs}) == len(grabs), "one grab a user"
        assert sum(grab[1] for grab in grabs) <= self.creation.total_cents
        if self.driver.activity.exists:
            assert sum(self.driver.activity.amounts.values()) == self.creation.total_cents
        durable = {grab[2]: OwnPacketShare(grab[0], grab[1]) for grab in grabs}
        for ticket, user in self.asked.items():
            answer = self.driver.answers.get(ticket)
            if isinstance(answer, OwnPacketShare):
                assert durable[user] == answer, "what a user hears is durable"
        reported = [report.data for report in self.driver.reports if report.name == "packet.grabbed"]
        assert [(each.share, each.cents, each.user) for each in reported] == [grab[:3] for grab in grabs]

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        driver = self.driver
        driver.commit_all()
        driver.pass_time(60_000)
        assert len(driver.answers) + len(driver.lost) == driver.asked
        driver.check()
        if not driver.activity.exists:
            return
        grabs = [fact.data for fact in driver.facts if fact.name == "grabbed"]
        (settled,) = [report.data for report in driver.reports if report.name == "packet.settled"]
        taken = sum(grab[1] for grab in grabs)
        assert (settled.taken, settled.taken_cents) == (len(grabs), taken)
        assert settled.taken_cents + settled.returned_cents == self.creation.total_cents
        shares = packet_shares(
            self.creation.mode, self.creation.total_cents, self.creation.count, 1, 0, bytes.fromhex(settled.seed)
        )
        assert [grab[1] for grab in grabs] == shares[: len(grabs)], "the seed that is published explains every share"
        assert seed_hash(bytes.fromhex(settled.seed)).hex() == data(driver, "packets.scheduled").seed_hash
        assert names(driver).count("packets.settled") == 1


PacketMachine.TestCase.settings = examples(80, steps=40)
TestPackets = PacketMachine.TestCase


def test_ten_thousand_users_on_one_packet_get_its_total() -> None:
    driver = driver_with(total_cents=1_000_000, count=2000)
    driver.pass_time(10)  # a large total is divided in slices
    answers = [driver.ask(GRAB, Requester(f"user {number}", "", Role.VIEWER)) for number in range(2500)]
    shares = [answer for answer in answers if isinstance(answer, OwnPacketShare)]
    assert len(shares) == 2000
    assert sum(share.cents for share in shares) == 1_000_000
    assert all(answer.code is ErrorCode.EMPTY for answer in answers if isinstance(answer, ActivityRefusal))


def test_a_packet_that_opens_later_is_divided_by_then() -> None:
    driver = ActivityDriver(packet)
    opens_ms = driver.now_ms + 1_000
    driver.ask(creation(total_cents=1_000_007, count=10_000, open_at_ms=opens_ms), platform)
    driver.pass_time(30)
    assert driver.activity.next_due() == opens_ms
    driver.pass_time(970)
    assert isinstance(driver.ask(GRAB, viewer("ann")), OwnPacketShare)


def test_a_packet_is_divided_in_slices_after_a_restart() -> None:
    driver = driver_with(total_cents=1_000_007, count=10_000)
    driver.pass_time(50)
    driver.restart()
    assert driver.activity.next_due() <= driver.now_ms + 1
    driver.pass_time(30)
    assert driver.activity.next_due() > driver.now_ms
    assert isinstance(driver.ask(GRAB, viewer("ann")), OwnPacketShare)


@pytest.mark.parametrize(
    ("mode", "slices", "expected"),
    [
        (SplitMode.LUCKY, 20, "83074116965fe9e29de10d8aeee375f8a9825e098871f537c1afe71f30a5d446"),
        (SplitMode.EQUAL, 10, "353a8ba8577ce390cb4d38a451ba9fa01856ef378dbe5b178defe306a993c893"),
    ],
)
def test_ten_thousand_shares_are_divided_in_slices_before_the_packet_opens(
    mode: SplitMode, slices: int, expected: str
) -> None:
    """Each slice is a turn of its own; ``expected``: the hash of all shares, divided at once by an older version."""
    driver = driver_with(mode=mode, total_cents=1_000_007, count=10_000, min_cents=2, max_cents=900)
    for _ in range(slices - 1):
        assert driver.activity.state is PacketState.SCHEDULED
        refusal = driver.ask(GRAB, viewer("ann"))
        assert refusal.code is ErrorCode.NOT_OPEN
        assert refusal.retry_after_ms > 0
        driver.pass_time(1)
    assert driver.activity.state is PacketState.OPEN
    cents = driver.ask(GRAB, viewer("ann")).cents
    shares = packet_shares(mode, 1_000_007, 10_000, 2, 900, SEED)
    assert cents == shares[0]
    assert sha256(str(shares).encode()).hexdigest() == expected
