"""The flash sale against histories that state everything each step brings about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from broker.core.commerce.activity import ActivityRefusal, RoomEvent, UserMessage
from broker.core.commerce.sale import Sale
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
from protocol.activities.eligibility import Eligibility
from protocol.activities.sales import ClaimState, SaleState
from protocol.codes import ErrorCode
from protocol.operations.sales import ClaimAnswer, LateConfirm, SalePrice, SaleStock
from tests.support.activities import ActivityDriver, commerce_vectors, platform, viewer

CASES: list[dict[str, Any]] = commerce_vectors("sales")["cases"]
DIRECTS = {
    "sales.claim_confirmed": "CONFIRMED",
    "sales.claim_expired": "EXPIRED",
    "sales.claim_cancelled": "CANCELLED",
    "sales.claim_voided": "SALE_CANCELLED",
    "sales.claim_dismissed": "SOLD_OUT",
}


def config_of(sale: dict[str, Any]) -> SaleConfig:
    return SaleConfig(
        "sku-1",
        sale["stock"],
        sale["per_user"],
        sale["price_cents"],
        sale["open_at_ms"],
        sale["close_at_ms"],
        sale["reserve_ms"],
        sale["waiting_max"],
        sale["first_window_ms"],
        sale["window_ms"],
        LateConfirm[sale["late_confirm"].upper()],
        Eligibility(),
    )


def command_of(step: dict[str, Any]) -> Any:
    match step["do"]:
        case "claim":
            return ClaimCommand(step["request"], step["quantity"], step["price_version"])
        case "release":
            return ReleaseCommand(step["claim"])
        case "confirm":
            return ConfirmCommand(step["claim"], step["order"])
        case "cancel":
            return CancelClaimCommand(step["claim"])
        case "restock":
            return RestockCommand(step["key"], step["add"])
        case "price":
            return SetPriceCommand(step["cents"])
        case "close":
            return CloseSaleCommand()
        case "cancel_sale":
            return CancelSaleCommand()
    raise AssertionError(step)


def answer_of(answer: Any) -> list[Any]:
    """Return the answer of a claim as the histories write it."""
    if isinstance(answer, ActivityRefusal):
        found: list[Any] = [answer.code.name]
        if answer.code is ErrorCode.NOT_OPEN:
            found.append(answer.retry_after_ms)
        elif answer.code is ErrorCode.PRICE_CHANGED:
            words = answer.rule.split()
            found += [int(words[-1]), int(words[3])]
        return found
    assert isinstance(answer, ClaimAnswer)
    if answer.state is ClaimState.WAITING:
        return ["WAITING", answer.number, answer.place]
    return ["RESERVED", answer.number, answer.price_cents, answer.expires_at_ms]


def reply_of(answer: Any) -> list[Any]:
    """Return the answer of any other command."""
    if isinstance(answer, ActivityRefusal):
        return ["reply", answer.code.name]
    if isinstance(answer, SaleStock):
        return ["reply", "OK", answer.stock]
    if isinstance(answer, SalePrice):
        return ["reply", "OK", answer.price_version]
    return ["reply", "OK"]


def direct_of(message: UserMessage) -> list[Any]:
    data = message.data
    if message.name == "sales.claim_reserved":
        return ["direct", message.user, "RESERVED", data.number, data.price_cents, data.expires_at_ms]
    return ["direct", message.user, DIRECTS[message.name], data.number]


def event_of(event: RoomEvent) -> list[Any]:
    kind, data = event.name.removeprefix("sales."), event.data
    values = [] if kind == "sold_out" else list(data)[:2]
    return ["event", "price" if kind == "price_changed" else kind, *values]


def steps_of(case: dict[str, Any], driver: ActivityDriver) -> Iterator[tuple[dict[str, Any], list[list[Any]]]]:
    """Yield each step with what it has brought about."""
    claims: dict[int, tuple[str, str]] = {}
    answered = events = messages = 0
    for step in case["steps"]:
        driver.now_ms = step["at"]
        if step["do"] == "restart":
            driver.restart()
        driver.turn()
        driver.commit_all()
        if step["do"] not in ("advance", "restart"):
            user = step.get("user")
            command = command_of(step)
            if isinstance(command, ClaimCommand):
                claims[driver.asked + 1] = user, step["request"]
            driver.send(command, platform if user is None else viewer(user))
            driver.commit_all()
        found: list[list[Any]] = []
        for ticket, answer in list(driver.answers.items())[answered:]:
            claim = claims.get(ticket)
            found.append(reply_of(answer) if claim is None else ["answer", *claim, *answer_of(answer)])
        found += map(direct_of, driver.messages[messages:])
        found += map(event_of, driver.events[events:])
        answered, events, messages = len(driver.answers), len(driver.events), len(driver.messages)
        yield step, found


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_step_of_the_history(case: dict[str, Any]) -> None:
    seed = bytes.fromhex(case["sale"]["seed"])
    driver = ActivityDriver(lambda: Sale("sale-1", lambda: seed), case["steps"][0]["at"] - 1)
    driver.now_ms = min(driver.now_ms, case["sale"]["open_at_ms"] - 1)
    driver.ask(CreateSaleCommand(config_of(case["sale"])), platform)
    driver.answers.clear()
    assert [event.name for event in driver.events] == ["sales.scheduled"]
    driver.events.clear()
    driver.answers, driver.asked = {}, 0
    for (step, found), expected in zip(steps_of(case, driver), case["expect"], strict=True):
        for kind in ("answer", "reply", "direct", "event"):
            assert [each for each in found if each[0] == kind] == [each for each in expected if each[0] == kind], step
        driver.check()
    assert_ends_as(driver.activity, case["end"])
    assert_ends_as(driver.folded(), case["end"])


def assert_ends_as(sale: Any, end: dict[str, Any]) -> None:
    view = sale.view()
    assert view.state is SaleState[end["state"]]
    for name in ("stock", "available", "reserved", "confirmed", "waiting"):
        assert getattr(view, name) == end[name], name
    claims = [sale.claims.view(number) for number in range(1, len(sale.claims) + 1)]
    assert [
        [claim.number, claim.user, claim.quantity, claim.state.name, claim.price_cents, claim.order or ""]
        for claim in claims
    ] == end["claims"]
