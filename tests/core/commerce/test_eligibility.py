"""Conditions of activities: each field is judged, and the refusal names it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, builds, frozensets, integers, none, sampled_from, tuples

from broker.core.commerce.activity import Attributes, Requester
from broker.core.commerce.eligibility import ROOM_PAUSED, eligibility_of_fact, ineligible
from protocol.activities.eligibility import Eligibility, eligibility
from protocol.codes import ErrorCode, Role
from protocol.fields import FieldError
from protocol.frames import pack_body, unpack_body
from tests.support.activities import viewer

CASES: list[tuple[str, dict[str, Any], Requester, Requester]] = [
    ("min_role", {"min_role": Role.VIP}, viewer("a"), viewer("a", Role.VIP)),
    ("tags_any", {"tags_any": ("fans", "vip")}, viewer("a", tags=frozenset({"new"})), viewer("a", tags={"vip", "x"})),
    ("follow", {"follow": True}, viewer("a"), viewer("a", follows=True)),
    ("watch_s", {"watch_s": 60}, viewer("a", watch_s=59), viewer("a", watch_s=60)),
    ("gift_cents", {"gift_cents": 100}, viewer("a", gift_cents=99), viewer("a", gift_cents=100)),
    ("account_age_s", {"account_age_s": 9}, viewer("a", account_age_s=8), viewer("a", account_age_s=9)),
    ("account_age_s", {"account_age_s": 9}, viewer("a"), viewer("a", account_age_s=10)),
]


@pytest.mark.parametrize(("field", "conditions", "refused", "accepted"), CASES)
def test_each_condition_is_judged_and_named(
    field: str, conditions: dict[str, Any], refused: Requester, accepted: Requester
) -> None:
    refusal = ineligible(Eligibility(**conditions), refused)
    assert refusal is not None
    assert (refusal.code, refusal.field) == (ErrorCode.NOT_ELIGIBLE, field)
    assert refusal.rule.startswith("must ")
    assert ineligible(Eligibility(**conditions), accepted) is None


def test_a_keyword_is_compared_without_case_and_outer_space() -> None:
    conditions = Eligibility(keyword="Lucky Bag")
    for said in ("", "lucky", "luckybag"):
        refusal = ineligible(conditions, viewer("a"), said)
        assert refusal is not None
        assert refusal.field == "keyword"
    for said in ("Lucky Bag", " lucky bag "):
        assert ineligible(conditions, viewer("a"), said) is None


def test_in_a_paused_room_nobody_takes_part_anew() -> None:
    assert ineligible(Eligibility(), viewer("a")._replace(is_paused=True)) is ROOM_PAUSED


def test_the_default_lets_every_viewer_take_part_and_no_guest() -> None:
    assert ineligible(Eligibility(), viewer("a")) is None
    refusal = ineligible(Eligibility(), viewer("a", Role.GUEST))
    assert refusal is not None
    assert refusal.field == "min_role"


_TAGS = ("fans", "new", "vip")


@given(
    tuples(sampled_from(_TAGS), integers(0, 3), integers(0, 3)),
    builds(
        Attributes,
        frozensets(sampled_from(_TAGS)),
        booleans(),
        integers(0, 3),
        integers(0, 3),
        none() | integers(0, 3),
    ),
)
def test_who_gains_an_attribute_is_not_refused_for_it(given_: tuple[str, int, int], attributes: Attributes) -> None:
    tag, watch_s, age_s = given_
    conditions = Eligibility(tags_any=(tag,), watch_s=watch_s, account_age_s=age_s)
    requester = Requester("a", "A", Role.VIEWER, attributes=attributes)
    better = attributes._replace(
        tags=attributes.tags | {tag}, watch_s=attributes.watch_s + 3, account_age_s=(attributes.account_age_s or 0) + 3
    )
    assert ineligible(conditions, requester._replace(attributes=better)) is None


def test_conditions_return_from_the_ledger() -> None:
    conditions = Eligibility(Role.VIP, ("fans",), True, 60, "go", 100, 3600)
    stored = unpack_body(pack_body(tuple(conditions)))
    assert eligibility_of_fact(stored) == conditions
    assert type(eligibility_of_fact(stored).min_role) is Role
    assert eligibility({"min_role": "vip", "keyword": "go"}) == Eligibility(Role.VIP, keyword="go")
    with pytest.raises(FieldError) as caught:
        eligibility({"watch_s": -1})
    assert caught.value.field == "watch_s"
