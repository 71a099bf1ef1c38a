"""Questions to the platform, the part that decides: whether a case is asked about, and what an answer says.

Of the cases of one kind, at most ``max_in_flight`` are asked about at a time, and one user or address may have a
quarter of these. While there is no space, or the endpoint has failed several times in a row, a case has the
configured answer at once: nothing ever waits for a question to begin.

An answer is a JSON object with ``action``; fields that are not known are ignored. What is not of this form, of the
wrong type or too long is no answer, and counts as a failure of the endpoint.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping
from enum import Enum, StrEnum
from random import Random
from typing import Any, NamedTuple

from protocol.codes import MessageType, Role
from protocol.fields import FieldError, any_value, text
from protocol.frames import pack_body
from protocol.json_mode import parse_value
from protocol.payloads import check_payload

__all__ = [
    "FAILURES_BEFORE_PAUSE",
    "MAX_APP_BYTES",
    "TRIAL_EVERY_MS",
    "Answer",
    "AnswerError",
    "MessageAction",
    "MessageAnswer",
    "QuestionPool",
    "QuestionRules",
    "Start",
    "app_answer",
    "connect_answer",
    "join_answer",
    "message_answer",
]

FAILURES_BEFORE_PAUSE = 5
"""Failures in a row after which the endpoint is asked once a second only."""
TRIAL_EVERY_MS = 1000
MAX_APP_BYTES = 4096
"""Packed bytes of what an application answers to a viewer's call."""
SHARE = 4
"""One user or address may have one ``SHARE``-th of the questions in flight."""
_NO_ROLES: frozenset[Role] = frozenset()

_reason = text(0, 256)


class Start(Enum):
    """What becomes of a case at once."""

    ASK = "ask"
    """It is asked about: `QuestionPool.end` must follow."""
    EXEMPT = "exempt"
    """It is allowed: its role is exempt, or it is not in the sample."""
    FULL = "full"
    """All questions that may be in flight are: the configured answer."""
    PAUSED = "paused"
    """The endpoint has failed several times in a row: the configured answer."""
    BUSY = "busy"
    """The user or address has its share of the questions in flight: refused for now."""


class QuestionRules(NamedTuple):
    """Rules of one kind of question."""

    max_in_flight: int
    exempt: frozenset[Role] = _NO_ROLES
    sample: float = 1.0


class QuestionPool:
    """Questions of one kind that are in flight. ``results`` counts the cases by what became of them; it only grows."""

    def __init__(self, rules: QuestionRules, rng: Random) -> None:
        self.use_rules(rules)
        self.results: Counter[str] = Counter()
        self.in_flight = 0
        self._rng = rng
        self._by_asker: dict[Hashable, int] = {}
        self._failures = 0
        """Failures in a row."""
        self._trial_at_ms = 0
        """When the endpoint may be asked again, while it is paused."""

    def use_rules(self, rules: QuestionRules) -> None:
        """Decide by other rules from now on; what is in flight stays, even if it is more than they permit."""
        self.rules = rules
        self._share = max(1, rules.max_in_flight // SHARE)

    @property
    def is_paused(self) -> bool:
        """Whether the endpoint has failed so often that it is asked once a second only."""
        return self._failures >= FAILURES_BEFORE_PAUSE

    def start(self, who: Hashable, role: Role | None, now_ms: int) -> Start:
        """Decide about one case. O(1).

        :param who: user or address whose case it is.
        :param role: in the room; None where it is not known yet.
        """
        rules = self.rules
        if role in rules.exempt or (rules.sample < 1.0 and self._rng.random() >= rules.sample):
            return Start.EXEMPT
        mine = self._by_asker.get(who, 0)
        if mine >= self._share:
            start = Start.BUSY
        elif self.in_flight >= rules.max_in_flight:
            start = Start.FULL
        elif self.is_paused and now_ms < self._trial_at_ms:
            start = Start.PAUSED
        else:
            self._trial_at_ms = now_ms + TRIAL_EVERY_MS
            self.in_flight += 1
            self._by_asker[who] = mine + 1
            return Start.ASK
        self.results[start.value] += 1
        return start

    def end(self, who: Hashable, result: str, now_ms: int, *, is_failure: bool) -> None:
        """Count what became of a case that was asked about. O(1)."""
        self._release(who)
        self.results[result] += 1
        self._failures = self._failures + 1 if is_failure else 0
        if self._failures == FAILURES_BEFORE_PAUSE:
            self._trial_at_ms = now_ms + TRIAL_EVERY_MS

    def cancel(self, who: Hashable) -> None:
        """Take back a case whose question ends without a result: the broker stops."""
        self._release(who)

    def _release(self, who: Hashable) -> None:
        self.in_flight -= 1
        left = self._by_asker.pop(who) - 1
        if left:
            self._by_asker[who] = left


class AnswerError(ValueError):
    """Error of an answer that cannot be used; the text says why, without bytes of the answer."""


class MessageAction(StrEnum):
    """What becomes of a message."""

    ALLOW = "allow"
    MASK = "mask"
    """It is shown with another text."""
    BLOCK = "block"
    HOLD = "hold"
    """It is kept for a review and not shown."""


class MessageAnswer(NamedTuple):
    """Answer about a message. ``payload``: of a masked one, in place of the sender's (Any: by type)."""

    action: MessageAction
    payload: Any = None
    reason: str = ""


class Answer(NamedTuple):
    """Answer about a connection or a JOIN. ``claims``: of a user that the platform knows, as in a token."""

    is_allowed: bool
    reason: str = ""
    claims: Mapping[str, Any] = {}


def join_answer(status: int, body: bytes) -> Answer:
    """Return the answer to ``ask.join``; AnswerError."""
    fields = _fields(status, body)
    action = _action(fields, ("allow", "deny"))
    return Answer(action == "allow", _reason_of(fields))


def connect_answer(status: int, body: bytes) -> Answer:
    """Return the answer to ``ask.connect``, the claims unchecked; AnswerError."""
    fields = _fields(status, body)
    action = _action(fields, ("allow", "deny"))
    claims = fields.get("claims", {})
    if type(claims) is not dict or (action == "allow" and not claims):
        raise AnswerError("claims is no object")
    return Answer(action == "allow", _reason_of(fields), _with_lists(claims))


def message_answer(status: int, body: bytes, kind: int, payload: Any) -> MessageAnswer:
    """Return the answer to ``ask.message`` about a message of type ``kind`` with a ``payload``; AnswerError.

    A danmaku is masked by ``text``, its style stays; a message of the deployment's own type by ``payload``.
    """
    fields = _fields(status, body)
    action = MessageAction(_action(fields, tuple(MessageAction)))
    if action is not MessageAction.MASK:
        return MessageAnswer(action, reason=_reason_of(fields))
    if kind == MessageType.DANMAKU:
        masked: Any = (fields.get("text"), *payload[1:])
    elif "payload" in fields:
        masked = fields["payload"]
    else:
        raise AnswerError("payload is missing")
    try:
        return MessageAnswer(action, check_payload(kind, masked), _reason_of(fields))
    except FieldError as error:
        raise AnswerError(f"what replaces the payload {error.rule}") from None


def app_answer(status: int, body: bytes) -> Any:
    """Return what the application answers to ``ask.app``: any JSON value, None where it is empty; AnswerError."""
    if status == 204:
        return None
    if status != 200:
        raise AnswerError(f"status {status}")
    try:
        value = any_value(_value(body))
    except FieldError as error:
        raise AnswerError(f"the answer {error.rule}") from None
    if len(pack_body((value,))) - 1 > MAX_APP_BYTES:
        raise AnswerError(f"the answer has more than {MAX_APP_BYTES} bytes")
    return value


def _with_lists(value: Any) -> Any:
    """Return a JSON value with lists for its arrays, as claims of a token have them."""
    if type(value) is tuple:
        return [_with_lists(each) for each in value]
    if type(value) is dict:
        return {key: _with_lists(each) for key, each in value.items()}
    return value


def _value(body: bytes) -> Any:
    try:
        value = parse_value(body.decode())
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()  # fails for a lone surrogate, written as an escape
        return value
    except (ValueError, RecursionError):
        raise AnswerError("the answer is not JSON within its caps") from None


def _fields(status: int, body: bytes) -> Mapping[str, Any]:
    if status == 204:
        return {"action": "allow"}
    if status != 200:
        raise AnswerError(f"status {status}")
    value = _value(body)
    if type(value) is not dict:
        raise AnswerError("the answer is no object")
    return value


def _action(fields: Mapping[str, Any], known: tuple[str, ...]) -> str:
    action = fields.get("action")
    if type(action) is not str or action not in known:
        raise AnswerError("action is not one of " + ", ".join(known))
    return action


def _reason_of(fields: Mapping[str, Any]) -> str:
    try:
        return str(_reason(fields.get("reason", "")))
    except FieldError as error:
        raise AnswerError(f"reason {error.rule}") from None
