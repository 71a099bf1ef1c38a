"""app.call: a viewer's call to the application, over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from standardwebhooks.webhooks import Webhook

from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.codes import ErrorCode, Role
from protocol.messages import Call, ErrorReply, Result
from protocol.operations import BY_NAME
from tests.support.broker import joined_link, running_broker
from tests.support.questions import SECRET, answering, misbehaving, questions_to
from tests.support.receiver import receiver
from tests.support.until import until

pytestmark = pytest.mark.integration

ROW = BY_NAME["app.call"]


def viewer(user: str = "ann", role: Role = Role.VIEWER, key: str = "") -> Caller:
    return Caller(user, user.title(), "127.0.0.1", lambda room: role, frozenset({role}), key=key)


async def call(broker: Broker, method: Any, body: Any = None, caller: Caller | None = None) -> Any:
    """Return the application's answer to a viewer."""
    result, _ = await broker.operations.call(caller or viewer(), ROW, {"method": method, "body": body})
    return result.body


async def refusal(broker: Broker, method: Any, body: Any = None, caller: Caller | None = None) -> OperationError:
    """Return why a call is refused."""
    with pytest.raises(OperationError) as caught:
        await call(broker, method, body, caller)
    return caught.value


@pytest.mark.parametrize("role", [Role.GUEST, Role.VIEWER, Role.HOST])
async def test_the_application_answers_a_member(role: Role, tmp_path: Path) -> None:
    async with (
        receiver(answering(lambda question: {"you sent": question["data"]["body"]})) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, app={})) as broker,
    ):
        answer = await call(broker, "cart.add", {"sku": ["tea", 1, None, True]}, viewer(role=role))
        assert answer == {"you sent": {"sku": ("tea", 1, None, True)}}
        (request,) = running.requests
        question = Webhook(SECRET).verify(request.body, request.headers)
        assert question["type"] == "ask.app"
        assert question["data"] == {
            "deadline_ms": 3000, "user": "ann", "name": "Ann", "roles": [role.name.lower()], "key": "",
            "method": "cart.add", "body": {"sku": ["tea", 1, None, True]},
        }  # fmt: skip


async def test_an_empty_answer_is_null_and_a_key_has_one_effect(tmp_path: Path) -> None:
    async with (
        receiver() as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, app={})) as broker,
    ):
        for _ in range(3):
            assert await call(broker, "cart.buy", 1, viewer(key="order-1")) is None
        assert [json.loads(request.body)["data"]["key"] for request in running.requests] == ["order-1"]
        assert (await refusal(broker, "cart.buy", 2, viewer(key="order-1"))).code is ErrorCode.KEY_REUSED


async def test_without_an_endpoint_there_is_no_such_operation(tmp_path: Path) -> None:
    async with running_broker() as broker:
        assert (await refusal(broker, "cart.add")).code is ErrorCode.UNKNOWN_OPERATION
    async with (
        receiver() as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, join={})) as broker,
    ):
        assert (await refusal(broker, "cart.add")).code is ErrorCode.UNKNOWN_OPERATION


@pytest.mark.parametrize(
    ("method", "body", "code", "field"),
    [
        ("", None, ErrorCode.BAD_FIELD, "method"),
        ("a b", None, ErrorCode.BAD_FIELD, "method"),
        ("加", None, ErrorCode.BAD_FIELD, "method"),
        ("a\n", None, ErrorCode.BAD_FIELD, "method"),
        ("x" * 65, None, ErrorCode.BAD_FIELD, "method"),
        (7, None, ErrorCode.BAD_FIELD, "method"),
        ("a", "x" * 4095, ErrorCode.PAYLOAD_TOO_LARGE, "body"),
        ("a", float("nan"), ErrorCode.BAD_FIELD, "body"),
        ("a", 2**70, ErrorCode.BAD_FIELD, "body"),
    ],
)
async def test_a_call_that_breaks_a_rule_is_refused_with_the_field(
    method: Any, body: Any, code: ErrorCode, field: str, tmp_path: Path
) -> None:
    async with (
        receiver() as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, app={})) as broker,
    ):
        error = await refusal(broker, method, body)
        assert (error.code, error.field) == (code, field)
        assert await call(broker, "x" * 64, "x" * 4093) is None
        assert len(running.requests) == 1


ANSWERS = {"wrong-types", "array", "unknown-action"}
"""What these say is JSON, so it is an answer."""


@pytest.mark.parametrize("receiver_is", sorted(misbehaving.keys() - ANSWERS))
async def test_an_application_that_fails_is_overloaded(receiver_is: str, tmp_path: Path) -> None:
    async with (
        receiver(misbehaving[receiver_is]) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, app={"deadline_ms": 150})) as broker,
    ):
        error = await refusal(broker, "cart.add")
        assert (error.code, error.retry_after_ms) == (ErrorCode.OVERLOADED, 1000)
        assert broker.questions is not None
        assert broker.questions.in_flight == 0


DEEP = json.loads("[" * 20 + "1" + "]" * 20)


@pytest.mark.parametrize("answer", ["x" * 5000, 2**70, DEEP])
async def test_an_answer_that_does_not_fit_is_none(answer: Any, tmp_path: Path) -> None:
    async with (
        receiver(answering(lambda question: answer)) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, app={})) as broker,
    ):
        assert (await refusal(broker, "cart.add")).code is ErrorCode.OVERLOADED


async def test_a_user_has_a_rate_and_a_share_and_a_call_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async with (
        receiver(misbehaving["hang"]) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, app={"max_in_flight": 4})) as broker,
    ):
        assert broker.questions is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, broker, "a")
            await until(lambda: len(running.requests) == 1)
            assert (await refusal(broker, "b")).code is ErrorCode.RATE_LIMITED
            nursery.cancel_scope.cancel()
        assert broker.questions.in_flight == 0
        running.answer = answering(lambda question: 1)
        refused = []
        for _ in range(ROW.rate.burst + 1):
            try:
                await call(broker, "c", caller=viewer("eve"))
            except OperationError as error:
                refused.append(error.code)
        assert refused == [ErrorCode.RATE_LIMITED]


async def test_a_viewer_calls_over_its_link_and_one_that_ends_leaves_nothing(tmp_path: Path) -> None:
    async with (
        receiver(answering(lambda question: [question["data"]["user"], question["data"]["method"]])) as running,
        running_broker(webhooks=questions_to(running.url, tmp_path, app={"deadline_ms": 1500})) as broker,
    ):
        async with joined_link(broker, "dev:ann") as (link, _):
            await link.send((Call(ROW.number, "", {"method": "cart.get"}), 0, 7))
            frame, answer = await link.expect(Result)
            assert (frame.sequence, answer.operation, answer.result) == (7, ROW.number, (("ann", "cart.get"),))
            running.answer = misbehaving["hang"]
            await link.send((Call(ROW.number, "", ("cart.get", None)), 0, 8))
            await until(lambda: len(running.requests) == 2)
        await until(lambda: len(broker.context.sessions) == 0)
        await until(lambda: broker.questions is not None and broker.questions.in_flight == 0)
        async with joined_link(broker, "dev:bob") as (link, _):
            running.answer = answering(lambda question: 1)
            await link.send((Call(ROW.number, "", ("a b", None)), 0, 1))
            _, error = await link.expect(ErrorReply)
            assert (error.code, error.field) == (ErrorCode.BAD_FIELD, "method")
