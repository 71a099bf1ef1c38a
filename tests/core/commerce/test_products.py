"""The product list: versions in any order, one explained product, clicks counted exactly."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import integers, lists, permutations, randoms, sampled_from, tuples

from broker.core.commerce.activity import RoomEvent
from broker.core.commerce.products import (
    CLICK_WINDOW_MS,
    CLICKS_OF_A_FACT,
    MAX_ARRANGEMENT_BYTES,
    MAX_VIEW_BYTES,
    MAX_WAITING_CLICKS_OF_ONE,
    REMOVED_CLICKS_MS,
    ArrangeProductsCommand,
    ExplainProductCommand,
    ProductList,
    PutProductCommand,
    RemoveProductCommand,
    ReportClicksCommand,
    StopExplainingCommand,
)
from protocol.activities.products import (
    MAX_CLICKED,
    MAX_LISTED_PRODUCTS,
    MAX_PRODUCTS,
    Explaining,
    Product,
    ProductListed,
    ProductPosition,
    ProductRemoved,
    ProductsArranged,
    products_view,
)
from protocol.codes import ErrorCode, Role
from protocol.frames import pack_body
from protocol.json_values import as_json
from protocol.operations.products import Arrangement, ClicksReported, ExplainingPeriod, ProductVersion
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.examples import examples

IDS = ("a", "b", "～", "😀")
host = viewer("host", Role.HOST)


def product(id: str = "a", version: int = 1, position: int = 0, title: str = "Mug") -> Product:
    return Product(id, version, f"{title} {version}", 100 * version, position)


def arrangement(version: int, **positions: int) -> ArrangeProductsCommand:
    return ArrangeProductsCommand(version, tuple(ProductPosition(id, at) for id, at in positions.items()))


def driver() -> ActivityDriver:
    return ActivityDriver(ProductList)


def listed(activity: ProductList[int]) -> list[Product]:
    return [each.product for each in activity.listing(None, MAX_PRODUCTS, with_clicks=False)]


class Screen:
    """What a viewer makes of events that come to it in any order, twice or not."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[int, Product | None]] = {}
        self.arranged = ProductsArranged(0, ())
        self.explaining = Explaining(None, 0, 0)

    def take(self, event: RoomEvent) -> None:
        data = event.data
        if isinstance(data, ProductListed):
            self._know(data.product.id, data.product.version, data.product)
        elif isinstance(data, ProductRemoved):
            self._know(data.id, data.version, None)
            if data.explaining is not None:
                self._explain(data.explaining)
        elif isinstance(data, ProductsArranged):
            self.arranged = max(self.arranged, data, key=lambda each: each.version)
        else:
            self._explain(data)

    def _know(self, id: str, version: int, product: Product | None) -> None:
        if version > self.known.get(id, (0, None))[0]:
            self.known[id] = version, product

    def _explain(self, explaining: Explaining) -> None:
        self.explaining = max(self.explaining, explaining, key=lambda each: each.number)

    def listed(self) -> list[Product]:
        arranged = dict(self.arranged.positions)
        found = [each for _, each in self.known.values() if each is not None]
        return sorted(found, key=lambda each: (arranged.get(each.id, each.position), each.id.encode()))


class ProductsMachine(RuleBasedStateMachine):
    """Any order of updates, clicks, commits, refusals and restarts."""

    @initialize()
    def begin(self) -> None:
        self.driver = driver()
        self.reports: dict[int, ReportClicksCommand] = {}

    @rule(id=sampled_from(IDS), version=integers(1, 8), position=integers(0, 3), title=sampled_from(["Mug", "Pan"]))
    def put(self, id: str, version: int, position: int, title: str) -> None:
        self.driver.send(PutProductCommand(product(id, version, position, title)), platform)

    @rule(id=sampled_from(IDS), version=integers(1, 8))
    def remove(self, id: str, version: int) -> None:
        self.driver.send(RemoveProductCommand(id, version), platform)

    @rule(version=integers(1, 5), positions=lists(tuples(sampled_from(IDS), integers(0, 3)), max_size=4))
    def arrange(self, version: int, positions: list[tuple[str, int]]) -> None:
        self.driver.send(arrangement(version, **dict(positions)), host)

    @rule(id=sampled_from(IDS), request=sampled_from(["", "1", "2"]))
    def explain(self, id: str, request: str) -> None:
        self.driver.send(ExplainProductCommand(id, request), host)

    @rule(request=sampled_from(["", "1", "3"]))
    def stop(self, request: str) -> None:
        self.driver.send(StopExplainingCommand(request), host)

    @rule(user=sampled_from("xyz"), id=sampled_from(IDS), clicks=integers(1, 20), report=integers(0, 6))
    def click(self, user: str, id: str, clicks: int, report: int) -> None:
        command = ReportClicksCommand(id, clicks, report)
        self.reports[self.driver.send(command, viewer(user))] = command

    @rule(ms=integers(0, 1500))
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
    def the_state_is_the_fold(self) -> None:
        self.driver.check()

    @invariant()
    def none_or_a_listed_product_is_explained(self) -> None:
        explained = self.driver.activity.explaining.product
        assert explained is None or explained in [each.id for each in listed(self.driver.activity)]

    @invariant()
    def clicks_are_the_sum_of_accepted_reports(self) -> None:
        assert self.driver.folded().total_clicks == sum(  # type: ignore[attr-defined]
            command.clicks
            for ticket, command in self.reports.items()
            if getattr(self.driver.answers.get(ticket), "counted", False)
        )

    @invariant()
    def numbers_of_explaining_grow(self) -> None:
        numbers = [
            each.number
            for event in self.driver.events
            if (each := event.data if isinstance(event.data, Explaining) else getattr(event.data, "explaining", None))
        ]
        assert numbers == sorted(set(numbers))

    @rule(random=randoms(use_true_random=False))
    def every_viewer_ends_at_the_newest_state(self, random: Random) -> None:
        screen = Screen()
        events = self.driver.events + random.sample(self.driver.events, len(self.driver.events) // 2)
        random.shuffle(events)
        for event in events:
            screen.take(event)
        state: Any = self.driver.folded()
        assert screen.listed() == listed(state)
        assert screen.explaining == state.explaining

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.pass_time(60_000)
        assert len(self.driver.answers) + len(self.driver.lost) == self.driver.asked
        self.driver.end()
        assert self.driver.activity.explaining.product is None
        self.driver.check()


ProductsMachine.TestCase.settings = examples(60, steps=40)
TestProducts = ProductsMachine.TestCase

UPDATES = (
    PutProductCommand(product("a", 1, 5)),
    PutProductCommand(product("a", 4, 1)),
    RemoveProductCommand("a", 3),
    PutProductCommand(product("b", 2)),
    RemoveProductCommand("b", 5),
    PutProductCommand(product("～", 1)),
    PutProductCommand(product("😀", 1)),
    RemoveProductCommand("c", 1),
    PutProductCommand(product("c", 2, 3)),
    arrangement(1, a=9),
    arrangement(2, c=0, a=1),
)


@given(updates=permutations(UPDATES))
def test_updates_in_any_order_end_in_the_same_list(updates: list[Any]) -> None:
    room = driver()
    for update in updates:
        room.ask(update, platform)
    assert [(each.id, each.version) for each in listed(room.activity)] == [("c", 2), ("～", 1), ("😀", 1), ("a", 4)]


# ---- versions, word by word


def test_a_put_with_a_newer_version_is_an_event_and_others_change_nothing() -> None:
    room = driver()
    assert room.ask(PutProductCommand(product(version=3)), platform) == ProductVersion("a", 3, listed=True)
    assert room.events == [RoomEvent("products.put", ProductListed(product(version=3)))]
    assert room.ask(PutProductCommand(product(version=3)), platform) == ProductVersion("a", 3, listed=True)
    assert room.refusal_of(PutProductCommand(product(version=3, title="Pan")), platform).code is ErrorCode.KEY_REUSED
    refusal = room.refusal_of(PutProductCommand(product(version=2)), platform)
    assert refusal.code is ErrorCode.STALE
    assert "version 3" in refusal.rule
    assert len(room.events) == 1
    room.ask(PutProductCommand(product(version=4)), platform)
    assert listed(room.activity) == [product(version=4)]


def test_a_tombstone_keeps_a_late_put_out() -> None:
    room = driver()
    assert room.ask(RemoveProductCommand("a", 3), platform) == ProductVersion("a", 3, listed=False)
    assert room.events == []
    assert room.refusal_of(PutProductCommand(product(version=3)), platform).code is ErrorCode.STALE
    room.ask(PutProductCommand(product(version=4)), platform)
    assert room.refusal_of(RemoveProductCommand("a", 4), platform).code is ErrorCode.STALE
    assert room.ask(RemoveProductCommand("a", 5), platform) == ProductVersion("a", 5, listed=False)
    assert room.events[-1] == RoomEvent("products.removed", ProductRemoved("a", 5))
    assert room.ask(RemoveProductCommand("a", 5), platform) == ProductVersion("a", 5, listed=False)
    assert room.refusal_of(RemoveProductCommand("a", 4), platform).code is ErrorCode.STALE
    room.ask(RemoveProductCommand("a", 9), platform)
    assert room.refusal_of(PutProductCommand(product(version=8)), platform).code is ErrorCode.STALE
    assert len(room.events) == 2


def test_the_arrangement_moves_many_in_one_event() -> None:
    room = driver()
    for id, position in (("a", 1), ("b", 1), ("c", 0)):
        room.ask(PutProductCommand(product(id, 1, position)), platform)
    assert [each.id for each in listed(room.activity)] == ["c", "a", "b"]
    assert room.ask(arrangement(2, b=0, c=5), host) == Arrangement(2)
    assert [each.id for each in listed(room.activity)] == ["b", "a", "c"]
    assert room.ask(arrangement(2, b=0, c=5), host) == Arrangement(2)
    assert room.refusal_of(arrangement(2, b=1), host).code is ErrorCode.KEY_REUSED
    assert room.refusal_of(arrangement(1, b=1), host).code is ErrorCode.STALE
    assert [event.name for event in room.events].count("products.arranged") == 1
    twice = ArrangeProductsCommand(3, (ProductPosition("a", 1), ProductPosition("a", 2)))
    assert room.refusal_of(twice, host).field == "positions"
    many = ArrangeProductsCommand(3, tuple(ProductPosition(f"{n:03}" + "😀" * 61, n) for n in range(MAX_PRODUCTS)))
    assert str(MAX_ARRANGEMENT_BYTES) in room.refusal_of(many, host).rule


# ---- explaining


def test_one_product_is_explained_and_the_log_says_when() -> None:
    room = driver()
    start = room.now_ms
    assert room.refusal_of(ExplainProductCommand("a"), host).code is ErrorCode.UNKNOWN_ACTIVITY
    room.ask(PutProductCommand(product("a")), platform)
    room.ask(PutProductCommand(product("b")), platform)
    assert room.ask(StopExplainingCommand(), host) == Explaining(None, 0, 0)
    assert room.ask(ExplainProductCommand("a"), host) == Explaining("a", 1, start)
    room.pass_time(1000)
    assert room.ask(ExplainProductCommand("a"), host) == Explaining("a", 1, start)
    assert room.ask(ExplainProductCommand("b"), host) == Explaining("b", 2, start + 1000)
    room.pass_time(1000)
    assert room.ask(StopExplainingCommand(), host) == Explaining(None, 3, start + 2000)
    room.pass_time(1000)
    room.ask(ExplainProductCommand("a"), host)
    room.ask(RemoveProductCommand("a", 2), platform)
    stopped = Explaining(None, 5, start + 3000)
    assert room.events[-1] == RoomEvent("products.removed", ProductRemoved("a", 2, stopped))
    assert room.refusal_of(ExplainProductCommand("a"), host).code is ErrorCode.UNKNOWN_ACTIVITY
    room.ask(ExplainProductCommand("b"), host)
    periods = [
        ExplainingPeriod("a", start, start + 1000), ExplainingPeriod("b", start + 1000, start + 2000),
        ExplainingPeriod("a", start + 3000, start + 3000), ExplainingPeriod("b", start + 3000, None),
    ]  # fmt: skip
    assert room.activity.periods(0, 100) == (periods, None)
    first, following = room.activity.periods(0, 3)
    assert first == periods[:3]
    assert room.activity.periods(following, 3) == (periods[3:], None)
    room.pass_time(1000)
    room.end()
    assert room.activity.periods(0, 100)[0][-1] == ExplainingPeriod("b", start + 3000, start + 4000)


def test_the_same_request_gets_the_first_answer_after_a_restart_too() -> None:
    room = driver()
    room.ask(PutProductCommand(product("a")), platform)
    room.ask(PutProductCommand(product("b")), platform)
    first = room.ask(ExplainProductCommand("a", "r1"), host)
    room.ask(ExplainProductCommand("b", "r2"), host)
    room.restart()
    assert room.ask(ExplainProductCommand("a", "r1"), host) == first
    assert room.refusal_of(ExplainProductCommand("b", "r1"), host).code is ErrorCode.KEY_REUSED
    assert room.activity.explaining.product == "b"
    assert room.ask(ExplainProductCommand("a", "r1"), viewer("other", Role.HOST)).number == 3
    assert room.ask(StopExplainingCommand("r1"), host).number == 4


# ---- clicks


def test_reports_of_a_second_are_one_fact_and_answered_with_its_commit() -> None:
    room = driver()
    room.ask(PutProductCommand(product("a")), platform)
    room.ask(PutProductCommand(product("b")), platform)
    tickets = [room.send(ReportClicksCommand("ab"[n % 2], 2, 1), viewer(f"u{n}")) for n in range(10)]
    room.advance(CLICK_WINDOW_MS - 1)
    assert not room.is_under_way
    room.advance(1)
    assert not room.answers.keys() & set(tickets)
    room.commit()
    assert {room.answers[ticket] for ticket in tickets} == {ClicksReported(1, counted=True)}
    assert [fact.data[0] for fact in room.facts if fact.name == "clicked"] == [(("a", 10), ("b", 10))]
    assert [each.clicks for each in room.activity.listing(None, 9, with_clicks=True)] == [10, 10]
    assert [each.clicks for each in room.activity.listing(None, 9, with_clicks=False)] == [None, None]


def test_a_report_is_counted_once() -> None:
    room = driver()
    room.ask(PutProductCommand(product("a")), platform)
    first = [room.send(ReportClicksCommand("a", 3, report), viewer("u")) for report in (5, 5, 4, 6)]
    room.pass_time(CLICK_WINDOW_MS)
    assert [room.answers[ticket] for ticket in first] == [
        ClicksReported(5, counted=True), ClicksReported(5, counted=False), ClicksReported(5, counted=False),
        ClicksReported(6, counted=True),
    ]  # fmt: skip
    assert room.ask(ReportClicksCommand("a", 3, 6), viewer("u")) == ClicksReported(6, counted=False)
    room.restart()
    assert room.ask(ReportClicksCommand("a", 3, 2), viewer("u")) == ClicksReported(6, counted=False)
    assert room.activity.total_clicks == 6


def test_clicks_on_a_removed_product_are_counted_for_a_minute() -> None:
    room = driver()
    assert room.refusal_of(ReportClicksCommand("a", 1, 1), viewer("u")).code is ErrorCode.UNKNOWN_ACTIVITY
    room.ask(PutProductCommand(product("a")), platform)
    room.ask(RemoveProductCommand("a", 2), platform)
    room.pass_time(REMOVED_CLICKS_MS - 1)
    room.send(ReportClicksCommand("a", 1, 1), viewer("u"))
    room.pass_time(1)
    assert room.refusal_of(ReportClicksCommand("a", 1, 2), viewer("u")).code is ErrorCode.UNKNOWN_ACTIVITY
    room.pass_time(CLICK_WINDOW_MS)
    assert room.activity.total_clicks == 1


def test_waiting_reports_are_bounded_and_a_fact_too() -> None:
    room = driver()
    room.ask(PutProductCommand(product("a")), platform)
    for report in range(MAX_WAITING_CLICKS_OF_ONE):
        room.send(ReportClicksCommand("a", 1, report), viewer("bot"))
    assert room.ask(ReportClicksCommand("a", 1, 99), viewer("bot")).code is ErrorCode.OVERLOADED
    for number in range(CLICKS_OF_A_FACT):
        room.send(ReportClicksCommand("a", 1, 1), viewer(f"u{number}"))
    room.pass_time(CLICK_WINDOW_MS)
    counted = [len(fact.data[1]) for fact in room.facts if fact.name == "clicked"]
    assert counted == [CLICKS_OF_A_FACT, MAX_WAITING_CLICKS_OF_ONE]
    assert room.activity.total_clicks == MAX_WAITING_CLICKS_OF_ONE + CLICKS_OF_A_FACT


def test_reports_that_wait_at_the_end_of_the_room_are_refused() -> None:
    room = driver()
    room.ask(PutProductCommand(product("a")), platform)
    ticket = room.send(ReportClicksCommand("a", 4, 1), viewer("u"))
    room.end()
    assert room.answers[ticket].code is ErrorCode.ROOM_ENDED
    assert room.activity.total_clicks == 0


def test_the_counter_has_the_products_with_the_most_clicks() -> None:
    room = driver()
    assert room.activity.counter() is None
    for number in range(MAX_CLICKED + 5):
        room.ask(PutProductCommand(product(f"p{number:02}")), platform)
        room.send(ReportClicksCommand(f"p{number:02}", 1 + number % 20, 1), viewer(f"u{number}"))
    room.pass_time(CLICK_WINDOW_MS)
    counted = room.activity.counter().data
    assert len(counted.products) == MAX_CLICKED
    assert counted.products[0] == ("p19", 20)
    assert counted.total == room.activity.total_clicks == sum(1 + n % 20 for n in range(MAX_CLICKED + 5))


# ---- bounds and views


def test_a_room_has_so_many_products() -> None:
    room = driver()
    for number in range(MAX_PRODUCTS):
        room.send(PutProductCommand(product(f"p{number}")), platform)
    room.commit_all()
    assert room.refusal_of(PutProductCommand(product("one-more")), platform).code is ErrorCode.OUT_OF_STATE
    room.ask(PutProductCommand(product("p0", 2)), platform)
    room.ask(RemoveProductCommand("p0", 3), platform)
    room.ask(PutProductCommand(product("one-more")), platform)
    assert len(listed(room.activity)) == MAX_PRODUCTS


@pytest.mark.parametrize("title", ["Mug", "品" * 100])
def test_the_view_has_the_card_and_the_first_rows(title: str) -> None:
    room = driver()
    for number in range(30):
        room.ask(
            PutProductCommand(Product(f"p{number:02}", 1, title, 5, url=f"https://shop.example/{'u' * 900}")), platform
        )
    room.ask(ExplainProductCommand("p29"), host)
    view = room.activity.view(False)
    assert view.card.id == "p29"
    assert view.card.url is not None
    assert view.more
    assert [row.id for row in view.products] == [f"p{n:02}" for n in range(len(view.products))]
    assert len(view.products) == MAX_LISTED_PRODUCTS if title == "Mug" else 5 < len(view.products)
    assert len(pack_body(as_json(view))) <= MAX_VIEW_BYTES + 100
    assert products_view(as_json(view)) == view


def test_the_list_is_read_in_pages() -> None:
    room = driver()
    for number in range(5):
        room.ask(PutProductCommand(product(f"p{number}", 1, 7 - number)), platform)
    found: list[str] = []
    after: tuple[int, str] | None = None
    while page := room.activity.listing(after, 2, with_clicks=False):
        found += [each.product.id for each in page]
        after = page[-1].product.position, page[-1].product.id
    assert found == ["p4", "p3", "p2", "p1", "p0"]
