"""Pools of coupon codes: one code a user, each code once, over refusals of the ledger and restarts."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.commerce.activity import ActivityRefusal
from broker.core.commerce.coupon_codes import derived_code, shown_code
from broker.core.commerce.coupons import CODES_PER_FACT, CouponPool, Upload
from protocol.activities.coupons import PoolState
from protocol.activities.eligibility import Eligibility
from protocol.codes import ErrorCode, Role
from protocol.operations.coupons import (
    CheckCoupon,
    CheckedCoupon,
    ClaimCoupon,
    ClosedPool,
    ClosePool,
    CouponCode,
    CouponKind,
    CreatedPool,
    CreatePool,
    IssueCoupon,
    IssueCoupons,
    IssuedCoupons,
    MyCoupon,
    MyCouponCode,
    UploadedCodes,
    UserCoupon,
)
from tests.support.activities import ActivityDriver, commerce_vectors, platform, viewer
from tests.support.examples import examples

KEY = bytes(range(32))
CLAIM = ClaimCoupon("", "c")
CLOSE = ClosePool("", "c")
MINE = MyCoupon("", "c")
NOW = 1_790_000_000_000


def creation(**fields: Any) -> CreatePool:
    return CreatePool("room", "c", 3)._replace(**fields)


def issue(user: str) -> IssueCoupon:
    return IssueCoupon("", "c", user)


def issue_many(*users: str) -> IssueCoupons:
    return IssueCoupons("", "c", users)


def check(code: str) -> CheckCoupon:
    return CheckCoupon("", "c", code)


def driver_with(**fields: Any) -> ActivityDriver:
    driver = ActivityDriver(lambda: CouponPool("c", lambda: KEY))
    assert driver.ask(creation(**fields), platform) == CreatedPool("c")
    return driver


def uploaded_pool(*codes: str, **fields: Any) -> ActivityDriver:
    driver = driver_with(kind=CouponKind.UPLOADED, count=100, **fields)
    assert driver.ask(Upload("first", codes), platform) == UploadedCodes(len(codes))
    return driver


def names(driver: ActivityDriver) -> list[str]:
    return [event.name for event in driver.events]


def code(number: int) -> str:
    return shown_code("", derived_code(KEY, "c", number, 0, 15))


@pytest.mark.parametrize("case", commerce_vectors("coupons")["pools"])
def test_vectors_of_pools_so_small_that_codes_collide(case: dict[str, Any]) -> None:
    key = bytes.fromhex(case["key"])
    driver = ActivityDriver(lambda: CouponPool(case["pool"], lambda: key))
    driver.ask(CreatePool("room", case["pool"], case["count"], length=case["length"]), platform)
    expected = [shown_code("", text) for text, _ in case["codes"]]
    half = case["count"] // 2
    many = driver.ask(issue_many(*(f"u{number}" for number in range(half))), platform)
    assert [item.code for item in many.items] == expected[:half]
    assert [driver.ask(issue(f"u{number}"), platform).code for number in range(half, case["count"])] == expected[half:]
    for number, (text, attempt) in enumerate(case["codes"]):
        assert derived_code(key, case["pool"], number, attempt, case["length"]) == text


def test_a_user_gets_one_code_however_often_it_asks() -> None:
    driver = driver_with(template="Your code: {code}", expire_at_ms=NOW + 10_000)
    first = driver.ask(CLAIM, viewer("ann"))
    assert first == CouponCode(code(0), NOW + 10_000)
    assert driver.ask(CLAIM, viewer("ann")) == first
    assert driver.ask(issue("ann"), platform) == first
    assert driver.ask(issue_many("ann", "bob"), platform).items == (
        UserCoupon("ann", code(0)), UserCoupon("bob", code(1)),
    )  # fmt: skip
    driver.restart()
    assert driver.ask(CLAIM, viewer("ann")) == first
    assert driver.ask(MINE, viewer("ann")) == MyCouponCode(first)
    assert driver.ask(MINE, viewer("zoe")) == MyCouponCode(None)
    assert [fact.name for fact in driver.facts] == ["created", "issued", "issued"]
    assert [(each.user, each.name, each.data) for each in driver.messages] == [
        ("ann", "coupons.issued", (code(0), f"Your code: {code(0)}", NOW + 10_000)),
        ("bob", "coupons.issued", (code(1), f"Your code: {code(1)}", NOW + 10_000)),
    ]
    assert [report.data for report in driver.reports] == [("c", 0, "ann", code(0)), ("c", 1, "bob", code(1))]


def test_exhaustion_is_reported_once() -> None:
    driver = driver_with(count=1)
    driver.ask(CLAIM, viewer("ann"))
    assert names(driver) == ["coupons.opened"]
    assert driver.ask(CLAIM, viewer("bob")).code is ErrorCode.EXHAUSTED
    assert driver.events[-1] == ("coupons.exhausted", (1,))
    assert driver.refusal_of(CLAIM, viewer("cem")).code is ErrorCode.EXHAUSTED
    driver.restart()
    assert driver.refusal_of(CLAIM, viewer("cem")).code is ErrorCode.EXHAUSTED
    assert names(driver) == ["coupons.opened", "coupons.exhausted"]
    assert [report.name for report in driver.reports] == ["coupon.issued", "coupon.exhausted"]
    assert isinstance(driver.ask(CLAIM, viewer("ann")), CouponCode)


def test_many_users_get_codes_as_far_as_there_are() -> None:
    driver = driver_with()
    driver.ask(issue("bob"), platform)
    answer = driver.ask(issue_many("ann", "bob", "cem", "dora", "ann"), platform)
    assert answer == IssuedCoupons(
        (UserCoupon("ann", code(1)), UserCoupon("bob", code(0)), UserCoupon("cem", code(2))), ("dora",)
    )
    assert driver.events[-1] == ("coupons.exhausted", (3,))
    assert driver.ask(issue_many("ann", "bob", "cem", "dora"), platform) == answer._replace(items=answer.items)
    assert names(driver).count("coupons.exhausted") == 1


def test_uploaded_codes_are_issued_in_their_order() -> None:
    codes = [f"CODE-{number}" for number in range(2 * CODES_PER_FACT + 1)]
    driver = uploaded_pool(*codes)
    driver.restart()
    issued = driver.ask(issue_many(*(f"u{number}" for number in range(len(codes)))), platform)
    assert [item.code for item in issued.items] == codes
    assert driver.ask(CLAIM, viewer("late")).code is ErrorCode.EXHAUSTED
    assert driver.ask(Upload("second", ("MORE-1", "MORE-2")), platform) == UploadedCodes(len(codes) + 2)
    assert driver.events[-1] == ("coupons.refilled", (2,))
    assert driver.ask(CLAIM, viewer("late")).code == "MORE-1"
    driver.ask(CLAIM, viewer("later"))
    driver.ask(CLAIM, viewer("latest"))
    assert names(driver).count("coupons.exhausted") == 2


def test_an_upload_is_known_by_its_request() -> None:
    driver = uploaded_pool("A", "B")
    driver.ask(Upload("second", ("C",)), platform)
    driver.restart()
    assert driver.ask(Upload("first", ("A", "B")), platform) == UploadedCodes(2)
    assert driver.refusal_of(Upload("first", ("A", "X")), platform).code is ErrorCode.KEY_REUSED
    assert driver.refusal_of(Upload("first", ("AB",)), platform).code is ErrorCode.KEY_REUSED
    assert driver.activity.left == 3


@pytest.mark.parametrize(
    ("codes", "field"),
    [(("C", "D", "C"), "codes[2]"), (("C", "A"), "codes[1]"), (tuple(str(n) for n in range(99)), "codes")],
)
def test_a_chunk_with_a_code_twice_adds_nothing(codes: tuple[str, ...], field: str) -> None:
    driver = uploaded_pool("A", "B")
    refusal = driver.refusal_of(Upload("second", codes), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, field)
    assert driver.activity.left == 2


def test_a_derived_pool_takes_no_codes() -> None:
    assert driver_with().refusal_of(Upload("k", ("A",)), platform).code is ErrorCode.BAD_FIELD


def test_a_code_can_be_checked_as_it_is_typed() -> None:
    driver = driver_with(prefix="NEW")
    shown = driver.ask(CLAIM, viewer("ann")).code
    assert shown.startswith("NEW-")
    for typed in (shown, shown.lower().replace("-", " ")):
        assert driver.ask(check(typed), platform) == CheckedCoupon(shown, "ann", NOW, False)
    unissued = shown_code("NEW", derived_code(KEY, "c", 1, 0, 15))
    for wrong in (unissued, shown[:-1], shown[4:], "", "x" * 100):
        refusal = driver.refusal_of(check(wrong), platform)
        assert (refusal.code, refusal.field) == (ErrorCode.BAD_CODE, "code")


def test_an_uploaded_code_is_checked_as_it_is() -> None:
    driver = uploaded_pool("a-1", "A-1")
    driver.ask(issue("ann"), platform)
    driver.ask(CLOSE, platform)
    assert driver.ask(check(" a-1 "), platform) == CheckedCoupon("a-1", "ann", NOW, True)
    assert driver.ask(check("A-1"), platform) == CheckedCoupon("A-1", None, 0, True)
    assert driver.refusal_of(check("A1"), platform).code is ErrorCode.BAD_CODE


def test_an_expired_pool_gives_known_codes_and_no_new_ones() -> None:
    driver = driver_with(expire_at_ms=NOW + 1000)
    own = driver.ask(CLAIM, viewer("ann"))
    driver.pass_time(999)
    assert not driver.ask(MINE, viewer("ann")).coupon.expired
    driver.pass_time(1)
    assert driver.events[-1] == ("coupons.closed", (True,))
    assert driver.activity.state is PoolState.EXPIRED
    assert driver.activity.removable_at == driver.now_ms
    assert driver.ask(CLAIM, viewer("ann")) == own._replace(expired=True)
    for command in (CLAIM, issue("bob"), issue_many("ann", "bob")):
        assert driver.refusal_of(command, viewer("bob")).code is ErrorCode.CLOSED
    assert driver.ask(issue_many("ann"), platform).items == (UserCoupon("ann", own.code),)


def test_a_pool_is_over_at_its_time_even_before_the_ledger_has_it() -> None:
    driver = driver_with(expire_at_ms=NOW + 1000)
    driver.advance(1000)
    driver.refuse()
    assert driver.ask(CLAIM, viewer("ann")).code is ErrorCode.CLOSED


def test_closing_a_pool() -> None:
    driver = uploaded_pool("A", "B", "C")
    driver.ask(CLAIM, viewer("ann"))
    assert driver.ask(CLOSE, platform) == ClosedPool(1, 2)
    assert driver.events[-1] == ("coupons.closed", (False,))
    assert driver.ask(CLOSE, platform) == ClosedPool(1, 2)
    assert driver.refusal_of(Upload("second", ("D",)), platform).code is ErrorCode.CLOSED
    assert driver.ask(Upload("first", ("A", "B", "C")), platform) == UploadedCodes(3)
    assert driver.ask(CLAIM, viewer("ann")) == CouponCode("A", 0, True)
    assert names(driver) == ["coupons.opened", "coupons.closed"]


def test_a_pool_of_the_platform_is_not_seen_in_the_room() -> None:
    driver = driver_with(claims=False, count=1)
    assert driver.refusal_of(CLAIM, viewer("ann")).code is ErrorCode.NOT_ALLOWED
    assert driver.ask(issue("ann"), platform).code == code(0)
    assert driver.ask(CLAIM, viewer("ann")).code == code(0)
    driver.ask(issue("bob"), platform)
    driver.ask(CLOSE, platform)
    assert driver.events == []
    assert driver.activity.view(is_staff=True) is None
    assert driver.activity.own_view("ann").code == code(0)
    assert [report.name for report in driver.reports] == ["coupon.issued", "coupon.exhausted"]


def test_conditions_are_judged_at_the_claim_and_not_when_the_platform_issues() -> None:
    driver = driver_with(eligibility=Eligibility(Role.VIP, keyword="ten"))
    assert driver.refusal_of(CLAIM, viewer("ann")).field == "min_role"
    assert driver.refusal_of(CLAIM, viewer("ann", Role.VIP)).field == "keyword"
    assert isinstance(driver.ask(CLAIM._replace(keyword="TEN"), viewer("ann", Role.VIP)), CouponCode)
    assert isinstance(driver.ask(issue("bob"), platform), CouponCode)
    assert isinstance(driver.ask(CLAIM, viewer("bob")), CouponCode), "who has a code gets it again"


def test_creating_with_a_known_id() -> None:
    driver = driver_with()
    driver.restart()
    assert driver.ask(creation(room="other"), platform) == CreatedPool("c")
    assert driver.refusal_of(creation(count=4), platform).code is ErrorCode.KEY_REUSED


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"expire_at_ms": NOW}, "expire_at_ms"),
        ({"template": "{user}"}, "template"),
        ({"template": "{code} {code}"}, "template"),
    ],
)
def test_bad_pools_are_refused(fields: dict[str, Any], field: str) -> None:
    driver = ActivityDriver(lambda: CouponPool("c", lambda: KEY))
    refusal = driver.refusal_of(creation(**fields), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, field)


@pytest.mark.parametrize("command", [CLAIM, issue("a"), issue_many("a"), Upload("k", ()), CLOSE, check("x"), MINE])
def test_without_a_pool_every_command_is_refused(command: Any) -> None:
    driver = ActivityDriver(lambda: CouponPool("c", lambda: KEY))
    assert driver.refusal_of(command, viewer("ann")).code is ErrorCode.UNKNOWN_ACTIVITY


def test_what_members_see_has_no_code_and_no_key() -> None:
    driver = driver_with(title="10 off")
    own = driver.ask(CLAIM, viewer("ann"))
    shown = repr((driver.events, driver.activity.view(is_staff=True)))
    assert driver.activity.view(is_staff=False) == ("10 off", False, 0, None)
    assert own.code not in shown
    assert repr(KEY) not in repr((shown, driver.reports, driver.answers, driver.messages))
    assert driver.activity.own_view("ann") == (own.code, False)
    assert driver.activity.own_view("bob") is None
    driver.ask(CLOSE, platform)
    assert driver.activity.view(is_staff=False) is None


class PoolMachine(RuleBasedStateMachine):
    """Any order of claims, issues, uploads, times, commits, refusals and restarts."""

    @initialize(kind=st.sampled_from(CouponKind), size=st.integers(1, 6), lasts=st.sampled_from([0, 3000]))
    def begin(self, kind: CouponKind, size: int, lasts: int) -> None:
        numbers = count()
        self.driver = ActivityDriver(lambda: CouponPool("c", lambda: next(numbers).to_bytes(32, "big")))
        # Codes of two symbols, so that some collide.
        self.creation = creation(kind=kind, count=size, length=2, expire_at_ms=NOW + lasts if lasts else 0)
        self.asked: dict[int, str] = {}
        self.driver.send(self.creation, platform)

    @rule(user=st.sampled_from("abcdefgh"))
    def claim(self, user: str) -> None:
        self.asked[self.driver.send(CLAIM, viewer(user))] = user

    @rule(user=st.sampled_from("abcdefgh"))
    def issue(self, user: str) -> None:
        self.asked[self.driver.send(issue(user), platform)] = user

    @rule(users=st.lists(st.sampled_from("abcdefgh"), max_size=5))
    def issue_many(self, users: list[str]) -> None:
        self.driver.send(issue_many(*users), platform)

    @rule(request=st.sampled_from("xyz"), codes=st.lists(st.sampled_from("ABCDEF"), max_size=3))
    def upload(self, request: str, codes: list[str]) -> None:
        self.driver.send(Upload(request, tuple(codes)), platform)

    @rule(ms=st.sampled_from([1, 300, 1500]))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms)

    @rule()
    def close(self) -> None:
        if self.driver.asked > 15:
            self.driver.send(CLOSE, platform)

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
    def codes_are_conserved(self) -> None:
        driver = self.driver
        driver.check()
        issued = [fact.data for fact in driver.facts if fact.name == "issued"]
        assert [each[0] for each in issued] == list(range(len(issued)))
        durable = {each[1]: each[2] for each in issued}
        assert len(durable) == len(issued), "one code a user"
        assert len(set(durable.values())) == len(issued), "each code once"
        added = [text for fact in driver.facts if fact.name == "codes" for text in fact.data]
        assert len(set(added)) == len(added) <= self.creation.count
        is_derived = self.creation.kind is CouponKind.DERIVED
        assert len(issued) <= (self.creation.count if is_derived else len(added))
        if not is_derived:
            assert [each[2] for each in issued] == added[: len(issued)]
        if driver.activity.exists and not driver.is_under_way:
            assert driver.activity.issued + driver.activity.left == (self.creation.count if is_derived else len(added))
        for ticket, user in self.asked.items():
            answer = driver.answers.get(ticket)
            if isinstance(answer, CouponCode):
                assert durable[user] == answer.code, "what a user hears is durable"
        messages = [(each.user, each.data.code) for each in driver.messages]
        assert messages == list(durable.items()), "each user hears its code once"

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.commit_all()
        self.driver.pass_time(60_000)
        assert len(self.driver.answers) + len(self.driver.lost) == self.driver.asked
        self.codes_are_conserved()
        refused = [each for each in self.driver.answers.values() if isinstance(each, ActivityRefusal)]
        assert all(each.field or each.retry_after_ms for each in refused)


PoolMachine.TestCase.settings = examples(80, steps=40)
TestPools = PoolMachine.TestCase
