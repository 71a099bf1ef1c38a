"""The flash sale: what holds over any order of commands, commits, refusals and restarts, and its bounds."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.commerce.activity import ActivityRefusal
from broker.core.commerce.activity_runner import MAX_BATCH_FACTS
from broker.core.commerce.sale import MAX_RESTOCKS, Sale
from broker.core.commerce.sale_claims import MAX_CLAIMS_OF_ONE, SaleClaims
from broker.core.commerce.sale_commands import (
    CancelClaimCommand,
    CancelSaleCommand,
    ClaimCommand,
    CloseSaleCommand,
    ConfirmCommand,
    CreateSaleCommand,
    ReleaseCommand,
    RestockCommand,
    SaleConfig,
    SetPriceCommand,
)
from broker.core.commerce.sale_facts import CLAIM_ENDS, RESTART_GRACE_MS
from broker.core.commerce.sale_steps import MAX_SLICE
from broker.core.commerce.sale_window import MAX_TICKETS, PendingClaim, SaleWindow, tie_of
from protocol.activities import BY_EVENT_NAME
from protocol.activities import sales as events
from protocol.activities.eligibility import Eligibility
from protocol.activities.sales import MAX_CENTS, MAX_STOCK, ClaimState, SaleState
from protocol.codes import ErrorCode, Role
from protocol.frames import pack_body
from protocol.json_values import as_json
from protocol.operations.sales import ClaimAnswer, ClaimOutcome, LateConfirm, SaleEnd, SalePrice, SaleStock
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.examples import examples

START_MS = 1_790_000_000_000
SEED = bytes(range(32))
HELD = (ClaimState.WAITING, ClaimState.RESERVED, ClaimState.CONFIRMED)
REPORTS = {row.type: row for row in events.REPORTS}


def config(**changes: Any) -> SaleConfig:
    made = SaleConfig(
        "mug", 3, 1, 1990, START_MS + 1000, START_MS + 61_000, 15_000, 2, 0, 0, LateConfirm.IF_STOCK, Eligibility()
    )
    return made._replace(**changes)


def sale_of(**changes: Any) -> ActivityDriver:
    """Return a driver of a sale that is open."""
    driver = ActivityDriver(lambda: Sale("sale-1", lambda: SEED), START_MS)
    driver.ask(CreateSaleCommand(config(**changes)), platform)
    driver.pass_time(1000)
    assert driver.activity.state is SaleState.OPEN
    return driver


def claim(driver: ActivityDriver, user: str, request: str = "r1", quantity: int = 1, version: int = 0) -> Any:
    return driver.ask(ClaimCommand(request, quantity, version), viewer(user))


class SaleMachine(RuleBasedStateMachine):
    """Any order of commands, commits, refusals and restarts."""

    @initialize(
        stock=st.integers(1, 5),
        per_user=st.integers(1, 3),
        waiting_max=st.integers(0, 3),
        windows=st.sampled_from([(0, 0), (500, 50), (0, 50), (500, 0)]),
        late=st.sampled_from(LateConfirm),
    )
    def begin(self, stock: int, per_user: int, waiting_max: int, windows: tuple[int, int], late: LateConfirm) -> None:
        self.driver = ActivityDriver(lambda: Sale("sale-1", lambda: SEED), START_MS)
        first_ms, window_ms = windows
        self.config = config(
            stock=stock, per_user=per_user, waiting_max=waiting_max, first_window_ms=first_ms, window_ms=window_ms,
            late_confirm=late, reserve_ms=3000, close_at_ms=START_MS + 20_000,
        )  # fmt: skip
        self.driver.ask(CreateSaleCommand(self.config), platform)
        self.claims: dict[int, tuple[str, str, int]] = {}
        self.driver.pass_time(1000)

    @rule(
        user=st.sampled_from("abcde"),
        request=st.sampled_from(["r1", "r2", "r3"]),
        quantity=st.sampled_from([1, 1, 1, 2]),
        version=st.sampled_from([0, 0, 1, 2]),
    )
    def claim(self, user: str, request: str, quantity: int, version: int) -> None:
        ticket = self.driver.send(ClaimCommand(request, quantity, version), viewer(user))
        self.claims[ticket] = user, request, quantity

    @rule(number=st.integers(1, 6), order=st.sampled_from(["o1", "o2", "o3", "o4"]))
    def confirm(self, number: int, order: str) -> None:
        self.driver.send(ConfirmCommand(number, order), platform)

    @rule(number=st.integers(1, 6))
    def cancel(self, number: int) -> None:
        self.driver.send(CancelClaimCommand(number), platform)

    @rule(number=st.integers(1, 6), user=st.sampled_from("abcde"))
    def release(self, number: int, user: str) -> None:
        self.driver.send(ReleaseCommand(number), viewer(user))

    @rule(request=st.sampled_from(["k1", "k2", "k3"]), add=st.integers(-2, 3))
    def restock(self, request: str, add: int) -> None:
        self.driver.send(RestockCommand(request, add), platform)

    @rule(price_cents=st.sampled_from([990, 1990, 2990]))
    def set_price(self, price_cents: int) -> None:
        self.driver.send(SetPriceCommand(price_cents), platform)

    @precondition(lambda self: self.driver.now_ms > START_MS + 6000)
    @rule(command=st.sampled_from([CloseSaleCommand(), CancelSaleCommand()]))
    def end_early(self, command: Any) -> None:
        self.driver.send(command, platform)

    @rule(ms=st.sampled_from([0, 1, 49, 50, 500, 2999, 3000, 5000]))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms)

    @rule()
    def commit(self) -> None:
        self.driver.commit_all()

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def refuse(self) -> None:
        self.driver.refuse()

    @rule()
    def restart(self) -> None:
        self.driver.restart()

    @property
    def folded(self) -> Sale[int]:
        """What is durable."""
        sale = self.driver.folded()
        assert isinstance(sale, Sale)
        return sale

    @invariant()
    def the_state_is_the_fold(self) -> None:
        self.driver.check()

    @invariant()
    def units_are_conserved(self) -> None:
        """Live and durable: what is refused must not have been true meanwhile either."""
        for sale in (self.driver.activity, self.folded):
            view = sale.view()
            assert sum(sale.amounts.values()) == view.stock
            claims = [sale.claims.view(number) for number in range(1, len(sale.claims) + 1)]
            sums: Counter[ClaimState] = Counter()
            held: Counter[str] = Counter()
            for each in claims:
                sums[each.state] += each.quantity
                if each.state in HELD:
                    held[each.user] += each.quantity
            assert view.stock == view.available + view.reserved + view.confirmed
            assert min(view.available, view.reserved, view.confirmed) >= 0
            assert view.reserved == sums[ClaimState.RESERVED]
            assert view.confirmed == sums[ClaimState.CONFIRMED]
            assert view.waiting == sum(each.state is ClaimState.WAITING for each in claims) <= self.config.waiting_max
            assert max(held.values(), default=0) <= self.config.per_user
            orders = [each.order for each in claims if each.order is not None]
            assert len(orders) == len(set(orders)) == sum(each.state is ClaimState.CONFIRMED for each in claims)
            places = [each.place for each in claims if each.place is not None]
            assert places == list(range(1, view.waiting + 1))
            deadlines = [(each.expires_at_ms or 0, each.number) for each in claims if each.state is ClaimState.RESERVED]
            assert sale.claims.first_reserved() == min(deadlines, default=(0, 0))[1]

    @invariant()
    def no_unit_returns_twice(self) -> None:
        returned: Counter[int] = Counter()
        for fact in self.driver.facts:
            if fact.name in CLAIM_ENDS and fact.data[1] == ClaimState.RESERVED:
                returned[fact.data[0]] += 1
            elif fact.name == "claim_confirmed" and fact.data[1] == ClaimState.EXPIRED:
                returned[fact.data[0]] -= 1
        assert set(returned.values()) <= {0, 1}

    @invariant()
    def answers_are_durable_and_the_same_to_every_asker(self) -> None:
        claims = self.folded.claims
        for ticket, (user, request, quantity) in self.claims.items():
            answer = self.driver.answers.get(ticket)
            if isinstance(answer, ClaimAnswer):
                number = claims.find(user, request)
                assert answer == claims.first_answer(number)
                assert answer.quantity == quantity

    @invariant()
    def the_seed_is_public_at_the_end_only(self) -> None:
        ends = [event for event in self.driver.events if SEED.hex() in repr(event.data)]
        assert {event.name for event in ends} <= {"sales.closed", "sales.cancelled"}
        if self.folded.state in (SaleState.SCHEDULED, SaleState.OPEN):
            assert not ends

    @invariant()
    def what_goes_out_has_a_row(self) -> None:
        for event in self.driver.events:
            assert BY_EVENT_NAME[event.name].read(event.data) == event.data
        for message in self.driver.messages:
            assert BY_EVENT_NAME[message.name].read(message.data) == message.data
        for report in self.driver.reports:
            assert REPORTS[report.name].read(report.data) == report.data

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.pass_time(200_000)
        assert len(self.driver.answers) + len(self.driver.lost) == self.driver.asked
        assert self.driver.activity.state in (SaleState.SETTLED, SaleState.CANCELLED)
        assert self.driver.activity.removable_at is not None
        view = self.driver.activity.view()
        assert view.reserved == view.waiting == 0
        self.units_are_conserved()
        self.driver.check()
        names = [event.name for event in self.driver.events]
        assert names.count("sales.opened") <= 1
        assert names.count("sales.settled") + names.count("sales.cancelled") == 1


SaleMachine.TestCase.settings = examples(60, steps=40)
TestSales = SaleMachine.TestCase


# ---- creating


def test_creating_again_with_the_same_content_is_no_error() -> None:
    driver = ActivityDriver(lambda: Sale("sale-1", lambda: SEED), START_MS)
    first = driver.ask(CreateSaleCommand(config()), platform)
    assert driver.ask(CreateSaleCommand(config()), platform) == first
    refusal = driver.refusal_of(CreateSaleCommand(config(stock=4)), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.KEY_REUSED, "id")
    driver.restart()
    assert driver.ask(CreateSaleCommand(config()), platform) == first
    assert first.seed is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"close_at_ms": START_MS + 1000}, "close_at_ms"),
        ({"open_at_ms": START_MS - 9, "close_at_ms": START_MS}, "close_at_ms"),
        ({"stock": MAX_STOCK, "price_cents": MAX_CENTS}, "price_cents"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused_by_name(changes: dict[str, Any], field: str) -> None:
    driver = ActivityDriver(lambda: Sale("sale-1", lambda: SEED), START_MS)
    refusal = driver.refusal_of(CreateSaleCommand(config(**changes)), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, field)
    assert not driver.activity.exists


def test_a_value_beyond_what_is_exact_is_refused_by_the_command_that_would_make_it() -> None:
    driver = sale_of(stock=9000, price_cents=MAX_CENTS)
    refusal = driver.refusal_of(RestockCommand("k1", 8), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "add")
    assert driver.ask(RestockCommand("k1", 7), platform) == SaleStock(9007)
    driver = sale_of(stock=MAX_STOCK)
    assert driver.refusal_of(RestockCommand("k1", 1), platform).field == "add"
    refusal = driver.refusal_of(SetPriceCommand(10**11), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, "price_cents")


def test_commands_for_a_sale_that_does_not_exist() -> None:
    driver = ActivityDriver(lambda: Sale("sale-1", lambda: SEED), START_MS)
    for command in (
        ClaimCommand("r1"),
        ConfirmCommand(1, "o"),
        CloseSaleCommand(),
        CancelSaleCommand(),
        RestockCommand("k", 1),
    ):
        assert driver.refusal_of(command, platform).code is ErrorCode.UNKNOWN_ACTIVITY


# ---- claims


def test_who_does_not_meet_the_conditions_is_refused_with_the_field() -> None:
    driver = sale_of(eligibility=Eligibility(min_role=Role.VIP, keyword="mug", watch_s=60))
    refusal = driver.refusal_of(ClaimCommand("r1", said="mug"), viewer("a", watch_s=60))
    assert (refusal.code, refusal.field) == (ErrorCode.NOT_ELIGIBLE, "min_role")
    refusal = driver.refusal_of(ClaimCommand("r1"), viewer("a", Role.VIP, watch_s=60))
    assert (refusal.code, refusal.field) == (ErrorCode.NOT_ELIGIBLE, "keyword")
    assert driver.refusal_of(ClaimCommand("r1", said="mug"), viewer("a", Role.VIP, watch_s=59)).field == "watch_s"
    answer = driver.ask(ClaimCommand("r1", said=" Mug"), viewer("a", Role.VIP, watch_s=60))
    assert answer.state is ClaimState.RESERVED
    driver.restart()
    assert driver.refusal_of(ClaimCommand("r1"), viewer("b", Role.VIP)).field == "watch_s"


@examples(40)
@given(st.permutations(range(12)), st.binary(min_size=32, max_size=32), st.integers(0, 2**40))
def test_the_order_of_a_window_is_that_of_the_seed_whoever_comes_first(
    order: list[int], seed: bytes, number: int
) -> None:
    window: SaleWindow[int] = SaleWindow(seed, START_MS, 500, 50)
    at_ms = START_MS + 100 if not number else START_MS + 500 + (number - 1) * 50
    for each in order:
        window.add(PendingClaim(f"u{each}", "r1", 1, 0, each), at_ms + each)
    assert window.ends_at == (START_MS + 500 if not number else START_MS + 500 + number * 50)
    users = []
    while window.count:
        users += [pending.user for pending in window.take(5)]
    assert users == sorted(users, key=lambda user: tie_of(seed, number, user))
    assert window.ends_at is None
    assert window.find("u1", "r1") is None


def test_claims_of_one_user_in_a_window_are_decided_in_order_of_arrival() -> None:
    driver = sale_of(first_window_ms=500, window_ms=50, per_user=3, stock=2)
    tickets = [driver.send(ClaimCommand(f"r{number}"), viewer("a")) for number in range(3)]
    driver.pass_time(500)
    assert [driver.answers[ticket].number for ticket in tickets] == [1, 2, 3]
    assert driver.answers[tickets[2]].place == 1


def test_a_window_is_decided_in_slices_and_holds_the_order() -> None:
    driver = sale_of(stock=2000, waiting_max=100, first_window_ms=500, window_ms=50)
    tickets = [driver.send(ClaimCommand("r1"), viewer(f"u{number}")) for number in range(2100)]
    driver.pass_time(500)
    taken = [fact.data for fact in driver.facts if fact.name == "claims_taken"]
    assert all(0 < len(data[3]) <= MAX_SLICE for data in taken)
    users = [row[0] for data in taken for row in data[3]]
    assert users == sorted(users, key=lambda user: tie_of(SEED, 0, user))
    assert [claim.number for claim in sorted(driver.answers[ticket] for ticket in tickets)] == list(range(1, 2101))
    assert driver.activity.view().waiting == 100


def test_every_asker_of_the_same_claim_gets_the_same_answer() -> None:
    driver = sale_of(first_window_ms=500, window_ms=50)
    tickets = [driver.send(ClaimCommand("r1"), viewer("a")) for _ in range(MAX_TICKETS + 1)]
    assert driver.answers[tickets[-1]].code is ErrorCode.OVERLOADED
    driver.pass_time(500)
    answers = {driver.answers[ticket] for ticket in tickets[:-1]}
    assert len(answers) == 1
    assert claim(driver, "a") in answers
    driver.restart()
    assert claim(driver, "a") in answers
    assert driver.refusal_of(ClaimCommand("r1", 2), viewer("a")).code is ErrorCode.KEY_REUSED


def test_a_user_makes_so_many_claims_of_one_sale() -> None:
    driver = sale_of(stock=1, waiting_max=0)
    for number in range(1, MAX_CLAIMS_OF_ONE + 1):
        assert claim(driver, "a", f"r{number}").number == number
        assert driver.ask(ReleaseCommand(number), viewer("a")) == ClaimOutcome(number, ClaimState.RELEASED)
    assert driver.refusal_of(ClaimCommand("one more"), viewer("a")).code is ErrorCode.ALREADY_HAVE
    assert claim(driver, "b").state is ClaimState.RESERVED


# ---- a ledger that refuses


def test_a_refused_window_leaves_nothing_and_its_callers_may_ask_again() -> None:
    driver = sale_of(first_window_ms=500, window_ms=50)
    ticket = driver.send(ClaimCommand("r1"), viewer("a"))
    driver.advance(500)
    driver.refuse()
    assert driver.answers[ticket].code is ErrorCode.OVERLOADED
    assert driver.answers[ticket].retry_after_ms
    assert len(driver.activity.claims) == 0
    again = driver.send(ClaimCommand("r1"), viewer("a"))
    driver.pass_time(150)
    assert driver.answers[again].number == 1


def test_nothing_is_decided_while_the_ledger_does_not_take_what_is_due() -> None:
    driver = sale_of()
    claim(driver, "a")
    driver.advance(15_000)
    driver.refuse()
    confirmed = driver.send(ConfirmCommand(1, "o1"), platform)
    claimed = driver.send(ClaimCommand("r1"), viewer("b"))
    for ticket in (confirmed, claimed):
        assert driver.answers[ticket].code is ErrorCode.OVERLOADED
    driver.pass_time(100)
    assert driver.activity.claims.state(1) is ClaimState.EXPIRED


# ---- restarts


def test_a_restart_leaves_time_to_confirm_and_is_repeated_until_it_is_durable() -> None:
    driver = sale_of()
    claim(driver, "a")
    driver.now_ms += 14_900
    driver.restart()
    driver.refuse()
    driver.pass_time(200)
    assert driver.activity.claims.state(1) is ClaimState.RESERVED
    resumed = next(fact for fact in driver.facts if fact.name == "resumed")
    assert driver.activity.claims.expires_at(1) == resumed.data[0] + RESTART_GRACE_MS
    driver.pass_time(RESTART_GRACE_MS)
    assert driver.activity.claims.state(1) is ClaimState.EXPIRED


def test_a_restart_without_reservations_is_no_fact() -> None:
    driver = sale_of()
    driver.restart()
    assert not driver.is_under_way
    assert "resumed" not in [fact.name for fact in driver.facts]


def test_an_opening_and_closing_that_were_missed_happen_at_once() -> None:
    driver = ActivityDriver(lambda: Sale("sale-1", lambda: SEED), START_MS)
    driver.ask(CreateSaleCommand(config()), platform)
    driver.now_ms += 100_000
    driver.restart()
    driver.commit_all()
    names = [event.name for event in driver.events]
    assert names == ["sales.scheduled", "sales.opened", "sales.closed", "sales.settled"]


# ---- the platform


def test_what_the_platform_hears() -> None:
    driver = sale_of(stock=2, waiting_max=1)
    claim(driver, "a")
    claim(driver, "b")
    claim(driver, "c")
    driver.ask(ConfirmCommand(1, "o1"), platform)
    driver.ask(ReleaseCommand(2), viewer("b"))
    driver.pass_time(15_000)
    claim(driver, "d")
    driver.ask(CancelClaimCommand(4), platform)
    driver.pass_time(60_000)
    heard = [(report.name, getattr(report.data, "number", None)) for report in driver.reports]
    assert heard == [
        ("sale.opened", None),
        ("sale.reserved", 1),
        ("sale.reserved", 2),
        ("sale.sold_out", None),
        ("sale.confirmed", 1),
        ("sale.released", 2),
        ("sale.reserved", 3),
        ("sale.expired", 3),
        ("sale.reserved", 4),
        ("sale.cancelled", 4),
        ("sale.closed", None),
        ("sale.settled", None),
    ]
    assert driver.reports[-1].data.confirmed == 1
    confirmed = next(report.data for report in driver.reports if report.name == "sale.confirmed")
    assert (confirmed.user, confirmed.order, confirmed.price_cents) == ("a", "o1", 1990)


def test_a_repeated_confirmation_and_another_order() -> None:
    driver = sale_of(per_user=2)
    claim(driver, "a")
    claim(driver, "a", "r2")
    outcome = ClaimOutcome(1, ClaimState.CONFIRMED)
    assert driver.ask(ConfirmCommand(1, "o1"), platform) == outcome
    driver.restart()
    driver.commit_all()
    assert driver.ask(ConfirmCommand(1, "o1"), platform) == outcome
    assert driver.refusal_of(ConfirmCommand(1, "o2"), platform).code is ErrorCode.ALREADY_CONFIRMED
    assert driver.refusal_of(ConfirmCommand(2, "o1"), platform).code is ErrorCode.ORDER_USED
    assert driver.refusal_of(CancelClaimCommand(1), platform).code is ErrorCode.ALREADY_CONFIRMED
    assert driver.refusal_of(ReleaseCommand(1), viewer("a")).code is ErrorCode.ALREADY_CONFIRMED
    assert driver.refusal_of(ConfirmCommand(9, "o9"), platform).code is ErrorCode.UNKNOWN_CLAIM


def test_prices_and_ends_are_answered_the_same_again() -> None:
    driver = sale_of()
    assert driver.ask(SetPriceCommand(900), platform) == SalePrice(2, 900)
    assert driver.ask(SetPriceCommand(900), platform) == SalePrice(2, 900)
    refusal = driver.refusal_of(ClaimCommand("r1", 1, 1), viewer("a"))
    assert refusal.code is ErrorCode.PRICE_CHANGED
    assert "900 cents, version 2" in refusal.rule
    closed = driver.ask(CloseSaleCommand(), platform)
    driver.pass_time(10)
    assert closed == driver.ask(CloseSaleCommand(), platform) == SaleEnd(driver.now_ms - 10)
    assert driver.refusal_of(SetPriceCommand(1), platform).code is ErrorCode.CLOSED
    driver = sale_of()
    cancelled = driver.ask(CancelSaleCommand(), platform)
    driver.pass_time(10)
    assert cancelled == driver.ask(CancelSaleCommand(), platform) == SaleEnd(driver.now_ms - 10)


def test_cancelling_a_big_sale_ends_its_claims_in_batches() -> None:
    driver = sale_of(stock=600, first_window_ms=500)
    for number in range(600):
        driver.send(ClaimCommand("r1"), viewer(f"u{number}"))
    driver.pass_time(500)
    before = len(driver.facts)
    driver.send(CancelSaleCommand(), platform)
    driver.commit()
    assert len(driver.facts) - before <= MAX_BATCH_FACTS
    assert driver.activity.removable_at is None
    driver.commit_all()
    assert driver.activity.view().available == 600
    assert len({message.user for message in driver.messages if message.name == "sales.claim_voided"}) == 600
    assert driver.activity.removable_at == driver.now_ms


def test_a_restock_reaches_the_whole_waiting_list_in_order() -> None:
    driver = sale_of(stock=1, waiting_max=700)
    for number in range(701):
        claim(driver, f"u{number}")
    driver.ask(RestockCommand("k1", 650), platform)
    promoted = [fact.data[0] for fact in driver.facts if fact.name == "claim_promoted"]
    assert promoted == list(range(2, 652))
    view = driver.activity.view()
    assert (view.available, view.reserved, view.waiting) == (0, 651, 50)
    assert [event.name for event in driver.events][-3:] == ["sales.sold_out", "sales.restocked", "sales.sold_out"]


def test_restocks_of_one_sale_are_bounded() -> None:
    assert MAX_RESTOCKS >= MAX_STOCK, "a refund of each unit comes back by a restock of its own"


# ---- the end of the room, and what members see


@pytest.mark.parametrize("first_window_ms", [0, 500])
def test_the_end_of_the_room_voids_what_is_not_confirmed(first_window_ms: int) -> None:
    driver = sale_of(stock=2, first_window_ms=first_window_ms)
    tickets = [driver.send(ClaimCommand("r1"), viewer(user)) for user in "abc"]
    driver.commit_all()
    driver.end()
    if first_window_ms:
        assert {driver.answers[ticket].code for ticket in tickets} == {ErrorCode.ROOM_ENDED}
    else:
        assert [message.name for message in driver.messages] == ["sales.claim_voided"] * 3
    assert driver.activity.state is SaleState.CANCELLED
    assert driver.activity.view().available == 2
    assert driver.reports[-1].name == "sale.voided"
    driver.check()
    assert len(driver.answers) == driver.asked


def test_a_settled_sale_is_left_alone_by_the_end_of_the_room() -> None:
    driver = sale_of()
    driver.pass_time(100_000)
    before = list(driver.facts)
    driver.end()
    assert driver.facts == before


def test_what_members_see() -> None:
    driver = sale_of(stock=2, waiting_max=20, per_user=20)
    for number in range(12):
        claim(driver, "a", f"r{number}")
    view = driver.activity.view()
    assert view.seed is None
    assert len(pack_body(as_json(view._replace(seed="ab" * 32)))) <= 512
    assert [each.number for each in driver.activity.own_view("a").claims] == list(range(12, 4, -1))
    assert driver.activity.own_view("a").more
    assert driver.activity.own_view("a").claims[0].place == 10
    assert driver.activity.own_view("b") is None
    assert driver.activity.counter().data == events.SaleCounts(0, 2, 0, 10)
    assert [each.number for each in driver.activity.claims_of("a")] == list(range(12, 0, -1))
    driver.ask(CancelSaleCommand(), platform)
    assert driver.activity.view().seed == SEED.hex()
    assert driver.activity.counter() is None


# ---- memory


def test_a_claim_takes_at_most_250_bytes() -> None:
    count = 40_000
    generator = random.Random(7)
    users = [f"{generator.randrange(10**9):09}" for _ in range(count)]
    tracemalloc.start()
    claims = SaleClaims()
    for user in users:
        # As they come from the ledger: texts of their own.
        claims.add(user[:4] + user[4:], f"r{user[:6]}", 1, 1990, START_MS, 0)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(claims) == count
    assert used / count <= 250


def test_a_refusal_keeps_nothing() -> None:
    driver = sale_of(stock=1, waiting_max=0)
    claim(driver, "a")
    before = driver.activity.dump()
    answers = {claim(driver, f"u{number}").code for number in range(100)}
    assert answers == {ErrorCode.ALL_RESERVED}
    driver.ask(ConfirmCommand(1, "o1"), platform)
    assert {claim(driver, f"u{number}").code for number in range(100)} == {ErrorCode.SOLD_OUT}
    assert isinstance(claim(driver, "a", "r2"), ActivityRefusal)
    assert len(driver.activity.dump()[-1][0]) == len(before[-1][0]) == 1


class MemoryMachine(SaleMachine):
    """What is refused from memory is what a command would have heard."""

    @precondition(lambda self: not self.driver.is_under_way and self.driver.runner.is_idle)
    @rule(user=st.sampled_from("abcdexyz"), quantity=st.integers(1, 4), version=st.integers(0, 3))
    def ask_memory(self, user: str, quantity: int, version: int) -> None:
        refusal = self.driver.activity.refusal_from_memory(user, quantity, version, self.driver.now_ms)
        if refusal is not None:
            ticket = self.driver.send(ClaimCommand("memory", quantity, version), viewer(user))
            assert self.driver.answers[ticket] == refusal


MemoryMachine.TestCase.settings = examples(40, steps=40)
TestMemory = MemoryMachine.TestCase


def test_who_comes_too_late_is_refused_from_memory() -> None:
    driver = sale_of(stock=1, waiting_max=1, per_user=2)
    judge = driver.activity.refusal_from_memory
    assert judge("a", 1, 0, driver.now_ms) is None, "a unit is available"
    claim(driver, "a")
    assert judge("b", 1, 0, driver.now_ms) is None, "a claim may wait"
    claim(driver, "b")
    assert judge("c", 1, 0, driver.now_ms).code is ErrorCode.ALL_RESERVED
    assert judge("a", 1, 0, driver.now_ms) is None, "its request may be known"
    assert judge("c", 3, 0, driver.now_ms) is None, "it asks for more than one may have"
    assert judge("c", 1, 7, driver.now_ms) is None, "it has seen another price"
    assert judge("c", 1, 0, driver.now_ms + 15_000) is None, "a unit is about to return"
    driver.ask(ConfirmCommand(1, "o1"), platform)
    assert judge("c", 1, 0, driver.now_ms).code is ErrorCode.SOLD_OUT
    driver.ask(CloseSaleCommand(), platform)
    assert judge("c", 1, 0, driver.now_ms) is None
