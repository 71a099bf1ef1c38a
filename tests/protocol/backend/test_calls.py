"""When a call is tried again, and what an answer means; without a network."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.backend import ApiError, BackendError, NoAnswer
from protocol.backend.calls import TRIES, ApiCall
from protocol.fields import FieldError
from protocol.json_values import as_json
from protocol.operations import BY_NAME, OPERATIONS
from protocol.operations.messages import PublishMany, PublishMessage
from protocol.operations.rooms import GetRoom, OpenRoom


def reading() -> ApiCall:
    return ApiCall("rooms.get", GetRoom("live-1"))


def keyed() -> ApiCall:
    return ApiCall("messages.publish", PublishMessage("live-1", 4, ("hi",)))


def changing() -> ApiCall:
    return ApiCall("messages.publish_many", PublishMany((PublishMessage("live-1", 4, ("hi",)),)))


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_a_result_is_the_record_of_the_operation(row: Any) -> None:
    call = ApiCall(row.name, row.example[0])
    assert call.path == "/v1/" + row.name.replace(".", "/")
    assert json.loads(call.body) == json.loads(json.dumps(as_json(row.example[0])))
    answer = json.dumps(as_json(row.example[1]) | {"a_field_of_a_later_edition": 1}).encode()
    result = call.result(200, {}, answer)
    assert type(result) is row.result
    assert as_json(result) == json.loads(json.dumps(as_json(row.example[1])))


def test_a_member_of_an_enumeration_that_is_not_known_stays_what_it_is() -> None:
    row = BY_NAME["users.erase_state"]
    call = ApiCall(row.name, row.example[0])
    answer = as_json(row.example[1])
    for state in ("verifying", 77):
        assert call.result(200, {}, json.dumps(answer | {"state": state}).encode()).state == state
    for wrong in (-1, None, True, [1]):
        with pytest.raises(NoAnswer, match="another version"):
            call.result(200, {}, json.dumps(answer | {"state": wrong}).encode())
    with pytest.raises(FieldError):
        row.read_result(answer | {"state": "verifying"})


def test_a_dry_run_says_so_in_its_path() -> None:
    request = PublishMessage("live-1", 4, ("hi",))
    assert ApiCall("messages.publish", request, dry_run=True).path == "/v1/messages/publish?dry_run=1"


def test_an_operation_that_takes_a_key_gets_one_and_a_given_one_is_used() -> None:
    keys = {keyed().headers["Idempotency-Key"] for _ in range(3)}
    assert len(keys) == 3
    given_key = ApiCall("messages.publish", PublishMessage("live-1", 4, ("hi",)), "order-1")
    assert given_key.headers["Idempotency-Key"] == "order-1"
    assert "Idempotency-Key" not in reading().headers


def test_a_refusal_has_all_that_the_broker_says() -> None:
    body = {"code": "BAD_FIELD", "field": "room", "rule": "is required", "retry_after_ms": 250, "request_id": "r1"}
    with pytest.raises(ApiError, match=r"BAD_FIELD \(400\): room: is required") as refused:
        reading().result(400, {}, json.dumps(body).encode())
    error = refused.value
    assert (error.code, error.status, error.field, error.rule) == ("BAD_FIELD", 400, "room", "is required")
    assert (error.retry_after_ms, error.request_id) == (250, "r1")
    with pytest.raises(ApiError) as refused:
        reading().result(429, {"Retry-After": "7", "X-Request-Id": "r2"}, b"{}")
    assert (refused.value.retry_after_ms, refused.value.request_id) == (7000, "r2")


@given(st.integers(100, 599), st.binary(max_size=60) | st.sampled_from([b"[]", b"{}", b"null", b"[" * 100_000]))
def test_any_answer_is_a_result_or_an_error_of_the_client(status: int, body: bytes) -> None:
    with pytest.raises(BackendError):
        reading().result(status, {}, body)


CASES = {
    "429": ApiError("RATE_LIMITED", 429, "too many"),
    "503": ApiError("OVERLOADED", 503, "not now"),
    "404": ApiError("UNKNOWN_ROOM", 404, "is not open"),
    "500": ApiError("INTERNAL_ERROR", 500, "a defect"),
    "not reached": NoAnswer("refused"),
    "cut off": NoAnswer("read"),
}
AGAIN = {
    "reading": {"429", "503", "not reached", "cut off"},
    "keyed": {"429", "503", "not reached", "cut off"},
    "changing": {"429", "not reached"},
}


@pytest.mark.parametrize("kind", AGAIN)
@pytest.mark.parametrize("case", CASES)
def test_a_call_is_tried_again_only_where_that_changes_nothing_more(kind: str, case: str) -> None:
    call = {"reading": reading, "keyed": keyed, "changing": changing}[kind]()
    wait_s = call.wait_s(CASES[case], was_sent=case != "not reached", left_s=30.0)
    assert (wait_s is not None) is (case in AGAIN[kind])


def test_the_tries_and_their_time_are_bounded_and_the_broker_says_how_long_to_wait() -> None:
    call, waits = keyed(), []
    while (wait_s := call.wait_s(CASES["503"], was_sent=True, left_s=60.0)) is not None:
        waits.append(wait_s)
    assert len(waits) == TRIES - 1
    assert waits == sorted(waits)
    asked = ApiError("RATE_LIMITED", 429, "", retry_after_ms=3000)
    wait_s = keyed().wait_s(asked, was_sent=True, left_s=60.0)
    assert wait_s is not None
    assert 3.0 <= wait_s <= 3.6
    assert keyed().wait_s(asked, was_sent=True, left_s=2.9) is None


def test_values_that_are_no_json_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        ApiCall("messages.publish", PublishMessage("live-1", 4, float("nan")))


def test_the_request_has_the_names_of_enumerations() -> None:
    row = BY_NAME["rooms.set_phase"]
    assert json.loads(ApiCall(row.name, row.example[0]).body)["phase"] == row.example[0].phase.name.lower()
    assert json.loads(ApiCall("rooms.open", OpenRoom("live-1")).body) == as_json(OpenRoom("live-1"))
