"""Flash sales over HTTP and CALL, with a real ledger, over kill -9 and a disk that fails."""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.core.commerce import room_activities
from broker.operations.caller import Caller, OperationError
from broker.operations.deferred import Deferred
from broker.server import Broker
from protocol.activities import BY_KIND, activity_event
from protocol.activities.sales import ClaimState, OwnClaims, SaleState, SaleView
from protocol.codes import ErrorCode, Lane, MessageType, Role
from protocol.messages import Call, Direct, ErrorReply, Event, Join, Joined, Result
from protocol.operations import BY_NAME, Scope
from protocol.operations.sales import ClaimAnswer, ClaimOutcome
from tests.support.api import API, call, client_of, ok, refused
from tests.support.broker import RawLink, joined_link, raw_link, running_broker
from tests.support.durable import disk, durable_broker
from tests.support.faulty_disk import crashed_copy, disk_error
from tests.support.until import until

pytestmark = pytest.mark.integration

ROOM = "lobby"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def sale_fields(**changes: Any) -> dict[str, Any]:
    """Return a sale that is open from now on, without windows."""
    at_ms = now_ms()
    return {
        "room": ROOM, "id": "sale-1", "sku": "mug-1", "stock": 2, "price_cents": 1990, "open_at_ms": at_ms - 1,
        "close_at_ms": at_ms + 600_000, "first_window_ms": 0, "window_ms": 0,
    } | changes  # fmt: skip


def backend(key: str = "") -> Caller:
    scopes = frozenset({Scope.COMMERCE_READ, Scope.COMMERCE_WRITE, Scope.ROOMS_WRITE})
    return Caller("shop", "Shop", "127.0.0.1", lambda room: Role.APP, frozenset({Role.APP}), scopes, key)


def viewer(user: str, key: str = "", role: Role = Role.VIEWER) -> Caller:
    """Return a viewer that has joined."""
    return Caller(
        user, user.title(), user, lambda room: role, frozenset({role}), key=key, joined_at_ms=lambda room: now_ms()
    )


async def ask(broker: Broker, caller: Caller, name: str, **fields: Any) -> Any:
    result, _ = await broker.operations.call(caller, BY_NAME[name], fields)
    return result


async def code_of(broker: Broker, caller: Caller, name: str, **fields: Any) -> ErrorCode:
    """Return the code of a refusal."""
    with pytest.raises(OperationError) as caught:
        await ask(broker, caller, name, **fields)
    return caught.value.code


async def create(broker: Broker, **changes: Any) -> None:
    await ask(broker, backend(), "sales.create", **sale_fields(**changes))
    await until(lambda: view_of(broker).state is not SaleState.SCHEDULED)


async def claim(broker: Broker, user: str, key: str = "r1", **fields: Any) -> Any:
    return await ask(broker, viewer(user, key), "sales.claim", room=ROOM, id="sale-1", **fields)


def view_of(broker: Broker) -> SaleView:
    room = broker.hub.find(ROOM)
    assert room is not None
    activities = room.state.activities.activities
    assert activities is not None
    view: SaleView = activities.find("sales", "sale-1").view(is_staff=False)
    return view


async def call_over(link: RawLink, name: str, *arguments: Any, key: str = "") -> Result | ErrorReply:
    await link.send((Call(BY_NAME[name].number, key, arguments), 0, 7))
    while True:
        frame = await link.next_frame()
        assert frame is not None
        if isinstance(frame.message, Result | ErrorReply):
            return frame.message


# ---- one sale, from the platform's side and a viewer's


async def test_a_sale_from_its_creation_to_its_end(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as shop,
        joined_link(broker, "dev:ann") as (ann, _),
    ):
        view = await ok(shop, "sales.create", **sale_fields())
        assert (view["state"], view["seed"], len(view["seed_hash"])) == ("scheduled", None, 64)
        await until(lambda: view_of(broker).state is SaleState.OPEN)
        found = await call_over(ann, "sales.claim", ROOM, "sale-1", key="r1")
        assert isinstance(found, Result)
        assert isinstance(found.result, ClaimAnswer)
        assert (found.result.number, found.result.state, found.result.price_cents) == (1, ClaimState.RESERVED, 1990)
        again = await call_over(ann, "sales.claim", ROOM, "sale-1", key="r1")
        assert again == found
        another = await call_over(ann, "sales.claim", ROOM, "sale-1", key="r2")
        assert isinstance(another, ErrorReply)
        assert another.code == ErrorCode.ALREADY_HAVE

        claims = await ok(shop, "sales.claims", room=ROOM, id="sale-1", state="reserved")
        assert [(each["number"], each["user"], each["state"]) for each in claims["items"]] == [(1, "ann", "reserved")]
        confirmed = await ok(shop, "sales.confirm", room=ROOM, id="sale-1", number=1, order="order-1")
        assert confirmed == {"number": 1, "state": "confirmed"}
        assert confirmed == await ok(shop, "sales.confirm", room=ROOM, id="sale-1", number=1, order="order-1")
        assert await refused(shop, "sales.confirm", room=ROOM, id="sale-1", number=1, order="order-2") == (
            409, "ALREADY_CONFIRMED", "",
        )  # fmt: skip
        assert await ok(shop, "sales.restock", "k1", room=ROOM, id="sale-1", add=3) == {"stock": 5}
        assert await ok(shop, "sales.restock", "k1", room=ROOM, id="sale-1", add=3) == {"stock": 5}
        assert (await call(shop, "sales.restock", "k1", room=ROOM, id="sale-1", add=4)).json()["code"] == "KEY_REUSED"
        price = await ok(shop, "sales.set_price", room=ROOM, id="sale-1", price_cents=990)
        assert price == {"price_version": 2, "price_cents": 990}
        ended = await ok(shop, "sales.close", room=ROOM, id="sale-1")
        assert ended == await ok(shop, "sales.close", room=ROOM, id="sale-1")
        await until(lambda: view_of(broker).state is SaleState.SETTLED)
        (listed,) = (await ok(shop, "sales.list", room=ROOM))["items"]
        assert (listed["state"], listed["confirmed"], listed["available"]) == ("settled", 1, 4)
        assert len(listed["seed"]) == 64

        names: list[str] = []
        while "sales.settled" not in names or "sales.claim_confirmed" not in names:
            frame = await ann.next_frame()
            assert frame is not None
            if isinstance(frame.message, Event | Direct) and frame.message.type == MessageType.ACTIVITY:
                shown = activity_event(frame.message.payload)
                assert shown is not None
                names.append(shown.name)
                if frame.lane is not Lane.COMMERCE:
                    raise AssertionError(f"{shown.name} is in lane {frame.lane}")
        events = [name for name in names if not name.startswith("sales.claim")]
        assert events[-4:] == ["sales.restocked", "sales.price_changed", "sales.closed", "sales.settled"]


async def test_who_joins_gets_the_sale_and_its_own_claims(directory: Path) -> None:
    async with durable_broker(directory) as broker, raw_link(broker) as ann:
        await create(broker)
        await claim(broker, "ann")
        await ann.login("dev:ann")
        await ann.send((Join(ROOM), 0, 1))
        joined = (await ann.expect(Joined))[1]
        (view,), (own,) = joined.activities, joined.own_activities
        row = BY_KIND["sales"]
        sale = row.read(view.data)
        assert (sale.id, sale.state, sale.reserved, sale.seed) == ("sale-1", SaleState.OPEN, 1, None)
        assert row.read_own is not None
        claims = row.read_own(own.data)
        assert isinstance(claims, OwnClaims)
        assert [(each.number, each.state) for each in claims.claims] == [(1, ClaimState.RESERVED)]


async def test_who_may_claim(directory: Path) -> None:
    async with durable_broker(directory) as broker, raw_link(broker) as bob:
        await create(broker)
        fields = {"room": ROOM, "id": "sale-1"}
        assert await code_of(broker, viewer("g", "r1", Role.GUEST), "sales.claim", **fields) is ErrorCode.NOT_ALLOWED
        assert await code_of(broker, backend("r1"), "sales.claim", **fields) is ErrorCode.NOT_ALLOWED
        assert await code_of(broker, viewer("ann"), "sales.claim", **fields) is ErrorCode.BAD_FIELD
        assert await code_of(broker, viewer("ann", "r" * 65), "sales.claim", **fields) is ErrorCode.BAD_FIELD
        for name, extra in (
            ("sales.confirm", {"number": 1, "order": "o1"}),
            ("sales.set_price", {"price_cents": 1}),
            ("sales.claims", {}),
        ):
            assert await code_of(broker, viewer("host", role=Role.HOST), name, **fields, **extra) is (
                ErrorCode.NOT_ALLOWED
            )
        await bob.login("dev:bob")
        found = await call_over(bob, "sales.claim", ROOM, "sale-1", key="r1")
        assert isinstance(found, ErrorReply)
        assert found.code == ErrorCode.NOT_JOINED
        assert await code_of(broker, viewer("ann", "r1"), "sales.claim", room=ROOM, id="other") is (
            ErrorCode.UNKNOWN_ACTIVITY
        )
        await ask(broker, backend(), "rooms.set_phase", room=ROOM, phase="paused")
        assert await code_of(broker, viewer("ann", "r1"), "sales.claim", **fields) is ErrorCode.ROOM_PAUSED
        assert await ask(broker, viewer("host", role=Role.HOST), "sales.close", **fields)


async def test_a_broker_without_a_ledger_has_no_sales() -> None:
    async with running_broker() as broker:
        assert await code_of(broker, backend(), "sales.create", **sale_fields()) is ErrorCode.NOT_KEPT


async def test_three_claims_a_second_of_a_user_and_twenty_of_an_address(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await create(broker, stock=100)
        fields = {"room": ROOM, "id": "sale-1"}
        row = BY_NAME["sales.claim"]
        assert row.address_rate is not None
        assert (row.rate.per_s, row.address_rate.per_s) == (3, 20)
        for number in range(row.rate.burst):
            assert await code_of(broker, viewer("ann", f"r{number}"), "sales.claim", **fields, quantity=2) is (
                ErrorCode.ALREADY_HAVE
            )
        assert await code_of(broker, viewer("ann", "r9"), "sales.claim", **fields) is ErrorCode.RATE_LIMITED
        codes = set()
        for number in range(row.address_rate.burst + 1):
            caller = viewer(f"u{number}", "r1")
            shared = Caller(
                caller.id, caller.name, "10.0.0.1", caller.grants, caller.roles, key="r1",
                joined_at_ms=caller.joined_at_ms,
            )  # fmt: skip
            try:
                await ask(broker, shared, "sales.claim", **fields, quantity=2)
            except OperationError as error:
                codes.add((error.code, error.rule))
        assert (ErrorCode.RATE_LIMITED, "too many calls of this address") in codes


async def test_lists_have_pages(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await create(broker, stock=30, per_user=30)
        for number in range(7):
            await claim(broker, "ann" if number % 2 else f"u{number}", f"r{number}")
        for name, expected in (("sales.claims", [1, 2, 3, 4, 5, 6, 7]), ("sales.mine", [6, 4, 2])):
            found: list[int] = []
            cursor = None
            while not found or cursor is not None:
                caller = backend() if name == "sales.claims" else viewer("ann")
                page = await ask(broker, caller, name, room=ROOM, id="sale-1", limit=2, cursor=cursor)
                found += [each.number for each in page.items]
                cursor = page.next
            assert found == expected
        assert await code_of(broker, backend(), "sales.claims", room=ROOM, id="sale-1", cursor="x") is (
            ErrorCode.BAD_FIELD
        )
        for number in range(2, 6):
            await create(broker, id=f"sale-{number}")
        page = await ask(broker, backend(), "sales.list", room=ROOM, limit=3)
        assert [sale.id for sale in page.items] == ["sale-1", "sale-2", "sale-3"]
        page = await ask(broker, backend(), "sales.list", room=ROOM, limit=3, cursor=page.next)
        assert ([sale.id for sale in page.items], page.next) == (["sale-4", "sale-5"], None)


# ---- many at a time


async def test_a_sale_that_has_left_memory_answers_from_the_ledger(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_activities, "KEPT_AFTER_END_MS", 0)
    fields = sale_fields()
    async with durable_broker(directory) as broker:
        created = await ask(broker, backend(), "sales.create", **fields)
        await until(lambda: view_of(broker).state is not SaleState.SCHEDULED)
        first = await claim(broker, "ann")
        await ask(broker, backend(), "sales.confirm", room=ROOM, id="sale-1", number=1, order="order-1")
        ended = await ask(broker, backend(), "sales.close", room=ROOM, id="sale-1")
        await until(lambda: has_left(broker))
        assert (await ask(broker, backend(), "sales.list", room=ROOM)).items == ()
        assert await claim(broker, "ann") == first
    async with durable_broker(directory) as broker:  # from the checkpoint it leaves memory at once
        (mine,) = (await ask(broker, viewer("ann"), "sales.mine", room=ROOM, id="sale-1")).items
        assert (mine.number, mine.state) == (1, ClaimState.CONFIRMED)
        await until(lambda: has_left(broker))
        assert await code_of(broker, viewer("bob", "r1"), "sales.claim", room=ROOM, id="sale-1") is ErrorCode.CLOSED
        await until(lambda: has_left(broker))
        (one,) = (await ask(broker, backend(), "sales.claims", room=ROOM, id="sale-1")).items
        assert (one.user, one.order) == ("ann", "order-1")
        assert await ask(broker, backend(), "sales.close", room=ROOM, id="sale-1") == ended
        await until(lambda: has_left(broker))
        assert (await ask(broker, backend(), "sales.create", **fields)).seed_hash == created.seed_hash
        other = fields | {"price_cents": 1}
        assert await code_of(broker, backend(), "sales.create", **other) is ErrorCode.KEY_REUSED
        assert await code_of(broker, backend(), "sales.close", room=ROOM, id="sale-2") is ErrorCode.UNKNOWN_ACTIVITY


def has_left(broker: Broker) -> bool:
    """Return whether the sale is in the memory of its room no more."""
    room = broker.hub.find(ROOM)
    assert room is not None
    activities = room.state.activities.activities
    return activities is not None and activities.has_left(("sales", "sale-1"))


async def test_what_is_listed_is_durable(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await create(broker)
        (opened,) = (await ask(broker, backend(), "sales.list", room=ROOM)).items
        assert opened.state is SaleState.OPEN
        disk(broker).fault = disk_error("SQLITE_FULL")
        pages: dict[str, Any] = {}

        async def read(name: str, **fields: Any) -> None:
            pages[name] = (await ask(broker, backend(), name, room=ROOM, **fields)).items

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(read, "sales.list"))
            nursery.start_soon(partial(read, "sales.claims", id="sale-1"))
            waiting = broker.operations.begin(viewer("ann", "r1"), BY_NAME["sales.claim"], (ROOM, "sale-1"))
            assert view_of(broker).available == 2, "the claim is decided and not durable"
            assert isinstance(waiting, Deferred)
            with pytest.raises(OperationError):
                await waiting.wait()
        assert [(sale.available, sale.reserved) for sale in pages["sales.list"]] == [(2, 0)]
        assert pages["sales.claims"] == ()
        disk(broker).fault = None


async def test_claims_of_a_window_wait_without_a_task_and_are_answered_together(directory: Path) -> None:
    async with durable_broker(directory) as broker, joined_link(broker, "dev:ann") as (ann, _):
        await create(broker, stock=10, waiting_max=5, first_window_ms=400, window_ms=50, open_at_ms=now_ms() + 50)
        answers: list[Any] = []
        tasks_before = trio.lowlevel.current_statistics().tasks_living

        async def buy(user: str) -> None:
            try:
                answers.append(await claim(broker, user))
            except OperationError as error:
                answers.append(error.code)

        async with trio.open_nursery() as nursery:
            await ann.send((Call(BY_NAME["sales.claim"].number, "r1", (ROOM, "sale-1")), 0, 7))
            for number in range(40):
                nursery.start_soon(buy, f"u{number}")
            await until(lambda: trio.lowlevel.current_statistics().tasks_living == tasks_before + 40)
        while True:
            frame = await ann.next_frame()
            assert frame is not None
            if isinstance(frame.message, Result | ErrorReply):
                answers.append(frame.message.result if isinstance(frame.message, Result) else frame.message.code)
                break
        taken = [each for each in answers if isinstance(each, ClaimAnswer)]
        assert sorted(each.number for each in taken) == list(range(1, 16))
        assert sorted(each.place for each in taken if each.place is not None) == [1, 2, 3, 4, 5]
        assert [each for each in answers if not isinstance(each, ClaimAnswer)] == [ErrorCode.ALL_RESERVED] * 26


# ---- kill -9, and a disk that fails


async def test_a_reservation_survives_kill_9_with_its_answer(directory: Path) -> None:
    first_place, second_place = directory / "first", directory / "second"
    first_place.mkdir()
    async with durable_broker(first_place) as broker:
        await create(broker, stock=1, waiting_max=1)
        reserved = await claim(broker, "ann")
        waits = await claim(broker, "bob")
        crashed_copy(first_place, second_place)
    async with durable_broker(second_place) as broker:
        await until(lambda: broker.hub.find(ROOM) is not None)
        assert await claim(broker, "ann") == reserved
        assert await claim(broker, "bob") == waits
        assert await code_of(broker, viewer("ann", "r1"), "sales.claim", room=ROOM, id="sale-1", quantity=2) is (
            ErrorCode.KEY_REUSED
        )
        view = view_of(broker)
        assert (view.available, view.reserved, view.waiting) == (0, 1, 1)
        outcome = await ask(broker, backend(), "sales.cancel", room=ROOM, id="sale-1", number=1)
        assert outcome == ClaimOutcome(1, ClaimState.CANCELLED)
        (bobs,) = (await ask(broker, viewer("bob"), "sales.mine", room=ROOM, id="sale-1")).items
        assert bobs.state is ClaimState.RESERVED


async def test_a_claim_that_the_disk_refuses_has_not_happened(directory: Path) -> None:
    async with durable_broker(directory) as broker:
        await create(broker, stock=1)
        disk(broker).fault = disk_error("SQLITE_FULL")
        assert await code_of(broker, viewer("ann", "r1"), "sales.claim", room=ROOM, id="sale-1") is (
            ErrorCode.OVERLOADED
        )
        assert view_of(broker).available == 1
        disk(broker).fault = None

        codes: set[ErrorCode] = set()

        async def buys() -> ClaimAnswer:
            while True:
                try:
                    answer: ClaimAnswer = await claim(broker, "bob")
                    return answer
                except OperationError as error:
                    codes.add(error.code)
                    await trio.sleep(max(0.01, error.retry_after_ms / 1000))

        with trio.fail_after(20):
            assert (await buys()).number == 1
        assert codes <= {ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED}


@pytest.mark.slow
async def test_units_are_conserved_over_crashes_at_any_time(directory: Path) -> None:
    """Ten users want two units each of twenty; the platform refuses some; clients and platform repeat what has no
    answer. The broker is killed between any two calls."""
    generator = random.Random(20261127)
    place = directory / "0"
    place.mkdir()
    wanted = {(f"u{number}", f"r{request}") for number in range(12) for request in range(2)}
    first: dict[tuple[str, str], ClaimAnswer] = {}
    confirmed: dict[int, str] = {}
    cancelled: set[int] = set()
    codes: set[ErrorCode] = set()
    for run in range(6):
        async with durable_broker(place) as broker:
            if not run:
                await create(broker, stock=20, per_user=2, waiting_max=3)
            await until(lambda broker=broker: broker.hub.find(ROOM) is not None)  # type: ignore[misc]
            for _ in range(25):
                user, key = generator.choice(sorted(wanted))
                try:
                    answer = await claim(broker, user, key)
                    assert first.setdefault((user, key), answer) == answer
                except OperationError as error:
                    codes.add(error.code)
                numbers = sorted(answer.number for answer in first.values())
                if numbers and generator.random() < 0.5:
                    number = generator.choice(numbers)
                    try:
                        if number % 5 == 0:
                            await ask(broker, backend(), "sales.cancel", room=ROOM, id="sale-1", number=number)
                            cancelled.add(number)
                        else:
                            order = f"order-{number}"
                            await ask(
                                broker, backend(), "sales.confirm", room=ROOM, id="sale-1", number=number, order=order
                            )
                            confirmed[number] = order
                    except OperationError as error:
                        codes.add(error.code)
                view = view_of(broker)
                assert view.stock == view.available + view.reserved + view.confirmed == 20
                assert view.confirmed == len(confirmed) <= 20
            items = (await ask(broker, backend(), "sales.claims", room=ROOM, id="sale-1")).items
            assert {each.number: each.order for each in items if each.order is not None} == confirmed
            assert {each.number for each in items if each.state is ClaimState.CANCELLED} == cancelled
            crashed_copy(place, directory / str(run + 1))
        place = directory / str(run + 1)
    assert confirmed
    assert cancelled
    assert codes <= {
        ErrorCode.ALREADY_HAVE, ErrorCode.ALL_RESERVED, ErrorCode.SOLD_OUT, ErrorCode.RATE_LIMITED,
        ErrorCode.NOT_RESERVED, ErrorCode.ALREADY_CONFIRMED,
    }  # fmt: skip
