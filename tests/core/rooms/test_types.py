"""Rules of message types: the same judgement on every path."""

from __future__ import annotations

import random
from typing import Any

import hypothesis.strategies as st
from hypothesis import assume, given

from broker.core.limits.rate_limit import Rate
from broker.core.rooms.effects import Reply
from broker.core.rooms.policies import policy_from
from broker.core.rooms.state import RoomRules, RoomState
from broker.core.rooms.types import CustomRule, TypeRules
from protocol.codes import ErrorCode, Lane, MessageType, Outcome, Role
from protocol.frames import pack_body
from protocol.messages import Post
from tests.support.rooms import Person

CUSTOM = {
    200: CustomRule(200, "coupon", Lane.COMMERCE, 20, Rate(1000.0, 1000), frozenset({Role.APP})),
    201: CustomRule(201, "poll", Lane.CONTROL, 4096, Rate(1000.0, 1000), frozenset({Role.HOST})),
    202: CustomRule(202, "vote", Lane.CHAT, 10, Rate(1000.0, 1000), frozenset({Role.APP, Role.VIEWER})),
}
TYPES = TypeRules(CUSTOM)
allows = st.none() | st.frozensets(st.sampled_from(["coupon", "poll", "vote", "announcement"]))
kinds = st.sampled_from([*CUSTOM, 203, MessageType.ANNOUNCEMENT])
texts = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=25)


def refusal_of_post(kind: int, payload: Any, permitted: frozenset[int]) -> ErrorCode | str:
    rules = RoomRules(policy=policy_from("off", {}), custom=CUSTOM)
    room: RoomState[int] = RoomState(rules, epoch=1, rng=random.Random(1), now=0.0)
    for effect in room.post(1, Person("shop", Role.APP, permitted), Post(kind, "", payload), 1.0, 5):
        if isinstance(effect, Reply) and effect.outcome is Outcome.REJECTED:
            return ErrorCode(effect.detail)
    return "sent"


@given(kinds, st.sampled_from(Role), allows, texts)
def test_a_type_is_judged_by_role_token_and_size(
    kind: int, role: Role, allow: frozenset[str] | None, text: str
) -> None:
    code = TYPES.refusal(kind, text, TYPES.permitted(role, allow))
    rule = CUSTOM.get(kind)
    if rule is not None:
        may = role in rule.roles and (allow is None or rule.name in allow)
        is_large = len(pack_body((text,))) - 1 > rule.max_bytes
        assert code == (None if may and not is_large else ErrorCode.PAYLOAD_TOO_LARGE if may else ErrorCode.NOT_ALLOWED)
    elif kind == 203:
        assert code is ErrorCode.UNKNOWN_TYPE


@given(kinds, allows, texts)
def test_post_and_direct_messages_judge_alike(kind: int, allow: frozenset[str] | None, text: str) -> None:
    payload: Any = (text,) if kind == MessageType.ANNOUNCEMENT else text
    assume(text.strip())  # the rules of fields refuse a blank announcement before its type is judged
    permitted = TYPES.permitted(Role.APP, allow)
    assert (TYPES.refusal(kind, payload, permitted) or "sent") == refusal_of_post(kind, payload, permitted)
