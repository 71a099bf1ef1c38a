"""Questions: how many are in flight and whose, when an endpoint is left alone, and which answers count."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.webhooks.questions import (
    FAILURES_BEFORE_PAUSE,
    MAX_APP_BYTES,
    SHARE,
    TRIAL_EVERY_MS,
    Answer,
    AnswerError,
    MessageAction,
    MessageAnswer,
    QuestionPool,
    QuestionRules,
    Start,
    app_answer,
    connect_answer,
    join_answer,
    message_answer,
)
from protocol.codes import MessageType, Role
from protocol.frames import pack_body


class Pool(RuleBasedStateMachine):
    """A pool against a plain count of what is in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 8
        self.pool = QuestionPool(QuestionRules(self.most, frozenset({Role.HOST})), Random(1))
        self.open: list[str] = []
        self.now_ms = 0
        self.failures = 0

    @rule(who=st.sampled_from("abcdef"), role=st.sampled_from([Role.VIEWER, Role.HOST, None]))
    def start(self, who: str, role: Role | None) -> None:
        start = self.pool.start(who, role, self.now_ms)
        if role is Role.HOST:
            assert start is Start.EXEMPT
        elif self.open.count(who) >= self.most // SHARE:
            assert start is Start.BUSY
        elif len(self.open) >= self.most:
            assert start is Start.FULL
        elif self.failures < FAILURES_BEFORE_PAUSE:
            assert start is Start.ASK
        else:
            assert start in (Start.ASK, Start.PAUSED)
        if start is Start.ASK:
            self.open.append(who)
            assert len(self.open) <= self.most

    @precondition(lambda self: self.open)
    @rule(data=st.data(), is_failure=st.booleans())
    def end(self, data: st.DataObject, is_failure: bool) -> None:
        who = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.pool.end(who, "timeout" if is_failure else "allow", self.now_ms, is_failure=is_failure)
        self.failures = self.failures + 1 if is_failure else 0

    @precondition(lambda self: self.open)
    @rule()
    def cancel(self) -> None:
        self.pool.cancel(self.open.pop())

    @rule(most=st.sampled_from([4, 8, 64]))
    def use_rules(self, most: int) -> None:
        """What is in flight stays, even if it is more than other rules permit."""
        self.most = most
        self.pool.use_rules(QuestionRules(most, frozenset({Role.HOST})))

    @rule(ms=st.integers(0, 2 * TRIAL_EVERY_MS))
    def passes(self, ms: int) -> None:
        self.now_ms += ms

    @invariant()
    def counts(self) -> None:
        assert self.pool.in_flight == len(self.open)

    def teardown(self) -> None:
        """Whatever has happened, an endpoint that answers is asked again after at most a second."""
        while self.open:
            self.pool.cancel(self.open.pop())
        self.now_ms += TRIAL_EVERY_MS
        assert self.pool.start("z", None, self.now_ms) is Start.ASK
        self.pool.end("z", "allow", self.now_ms, is_failure=False)
        for who in "abcd":
            assert self.pool.start(who, None, self.now_ms) is Start.ASK


TestPool = Pool.TestCase


def test_an_endpoint_that_fails_is_tried_once_a_second() -> None:
    pool = QuestionPool(QuestionRules(8), Random(2))
    for _ in range(FAILURES_BEFORE_PAUSE):
        assert pool.start("a", None, 0) is Start.ASK
        pool.end("a", "timeout", 0, is_failure=True)
    asked = 0
    for now_ms in range(1, 60_000, 10):
        start = pool.start("a", None, now_ms)
        if start is Start.ASK:
            asked += 1
            pool.end("a", "timeout", now_ms, is_failure=True)
        else:
            assert start is Start.PAUSED
    assert asked == 59
    assert pool.results["timeout"] == FAILURES_BEFORE_PAUSE + asked
    assert pool.results["paused"] == len(range(1, 60_000, 10)) - asked


def test_a_sample_is_asked_about_and_the_others_are_allowed() -> None:
    pool = QuestionPool(QuestionRules(10_000, sample=0.25), Random(3))
    starts = [pool.start(str(number), Role.VIEWER, 0) for number in range(8000)]
    assert set(starts) == {Start.ASK, Start.EXEMPT}
    assert 1800 < starts.count(Start.ASK) < 2200


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode), st.integers(100, 599))
def test_any_bytes_are_an_answer_or_an_error(body: bytes, status: int) -> None:
    for read in (join_answer, connect_answer, app_answer):
        with suppress(AnswerError):
            read(status, body)
    with suppress(AnswerError):
        message_answer(status, body, MessageType.DANMAKU, ("a", None))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(st.fixed_dictionaries({}, optional={
    "action": json_values | st.sampled_from(["allow", "mask", "block", "hold", "deny"]),
    "text": json_values, "payload": json_values, "reason": json_values, "claims": json_values, "more": json_values,
}))  # fmt: skip
def test_any_json_is_an_answer_that_fits_the_wire_or_an_error(value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    for kind, payload in ((MessageType.DANMAKU, ("a", (1, 2, 0))), (MessageType.EMOTE, ("a",)), (130, {"a": 1})):
        try:
            answer = message_answer(200, body, kind, payload)
        except AnswerError:
            continue
        pack_body((answer.payload, answer.reason))
        assert answer.action == value["action"]
    for read in (join_answer, connect_answer):
        try:
            assert read(200, body).is_allowed is (value["action"] == "allow")
        except AnswerError:
            continue


@given(json_values)
def test_what_an_application_answers_fits_a_result(value: Any) -> None:
    try:
        answer = app_answer(200, json.dumps(value).encode())
    except AnswerError:
        return
    assert len(pack_body((answer,))) <= MAX_APP_BYTES + 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"action":"allow"}', MessageAnswer(MessageAction.ALLOW)),
        (b'{"action":"block","reason":"spam","score":1}', MessageAnswer(MessageAction.BLOCK, reason="spam")),
        (b'{"action":"hold"}', MessageAnswer(MessageAction.HOLD)),
        ('{"action":"mask","text":"你***"}'.encode(), MessageAnswer(MessageAction.MASK, ("你***", (1, 2, 0)))),
    ],
)
def test_answers_about_a_danmaku(body: bytes, expected: MessageAnswer) -> None:
    assert message_answer(200, body, MessageType.DANMAKU, ("a", (1, 2, 0))) == expected


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (500, b"", "status 500"),
        (301, b"", "status 301"),
        (200, b"", "not JSON"),
        (200, b"ok", "not JSON"),
        (200, b"\xff", "not JSON"),
        (200, b"[" * 60_000, "not JSON"),
        (200, b'{"action":"allow","action":"block"}', "not JSON"),
        (200, b'{"action":"block","reason":"\\ud800"}', "not JSON"),
        (200, b'["allow"]', "no object"),
        (200, b"{}", "action is not one of allow, mask, block, hold"),
        (200, b'{"action":true}', "action is not one of"),
        (200, b'{"action":"Allow"}', "action is not one of"),
        (200, b'{"action":"mask"}', "what replaces the payload must be a string"),
        (200, b'{"action":"mask","text":""}', "what replaces the payload"),
        (200, b'{"action":"mask","text":["a"]}', "what replaces the payload"),
        (200, b'{"action":"mask","text":"' + b"x" * 101 + b'"}', "what replaces the payload"),
        (200, b'{"action":"block","reason":7}', "reason must be a string"),
        (200, b'{"action":"block","reason":"' + b"x" * 257 + b'"}', "reason must be a string of 0 to 256"),
    ],
)  # fmt: skip
def test_what_is_no_answer_about_a_danmaku(status: int, body: bytes, why: str) -> None:
    with pytest.raises(AnswerError, match=why):
        message_answer(status, body, MessageType.DANMAKU, ("a", None))


def test_a_message_of_an_own_type_is_masked_by_a_payload() -> None:
    body = b'{"action":"mask","payload":{"a":[1,2]}}'
    assert message_answer(200, body, 130, "x") == MessageAnswer(MessageAction.MASK, {"a": (1, 2)})
    with pytest.raises(AnswerError, match="payload is missing"):
        message_answer(200, b'{"action":"mask","text":"a"}', 130, "x")


def test_no_content_allows_a_join_and_a_message_and_names_no_user() -> None:
    assert join_answer(204, b"") == Answer(True)
    assert message_answer(204, b"", MessageType.DANMAKU, ("a", None)).action is MessageAction.ALLOW
    assert app_answer(204, b"") is None
    with pytest.raises(AnswerError, match="claims"):
        connect_answer(204, b"")


def test_claims_are_an_object_of_who_is_allowed() -> None:
    assert connect_answer(200, b'{"action":"allow","claims":{"sub":"ann"}}') == Answer(True, "", {"sub": "ann"})
    lists = connect_answer(200, b'{"action":"allow","claims":{"rooms":[{"allow":["like"]}]}}')
    assert lists.claims == {"rooms": [{"allow": ["like"]}]}
    assert connect_answer(200, b'{"action":"deny","reason":"banned"}') == Answer(False, "banned")
    for body in (b'{"action":"allow"}', b'{"action":"allow","claims":[]}', b'{"action":"allow","claims":{}}'):
        with pytest.raises(AnswerError, match="claims"):
            connect_answer(200, body)
