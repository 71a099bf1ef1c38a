"""Batches: cut into calls that fit, each user once; filled as a whole, or not at all."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import MessageType
from protocol.connection import Connection
from protocol.direct_batches import TemplateError, fill, parts_of, payload_for, payloads_of
from protocol.errors import LocalProtocolError
from protocol.fields import FieldError
from protocol.frames import MAX_CLIENT_BODY_BYTES, pack_body
from protocol.messages import MAX_DIRECT_BYTES, MAX_RECIPIENTS, Call, Side
from protocol.operations import BY_NAME
from protocol.payloads import AnnouncementPayload
from tests.support.examples import examples
from tests.support.strategies import ids, texts, user_ids

NEWS = MessageType.ANNOUNCEMENT
CARD = 200

values = st.dictionaries(user_ids, st.dictionaries(st.sampled_from(["code", "who"]), texts(0, 60)), max_size=150)


@pytest.mark.parametrize(
    ("batch", "template", "values"),
    [
        ("may\ud83c", "{code}", {"ann": {"code": "1"}}),
        ("may", "{code}\udf39", {"ann": {"code": "1"}}),
        ("may", "{code}", {"ann\ud83c": {"code": "1"}}),
        ("may", "{code}", {"ann": {"code": "\ud83c"}}),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_before_anything_is_sent(
    batch: str, template: str, values: dict[str, dict[str, str]]
) -> None:
    with pytest.raises(LocalProtocolError, match="surrogate"):
        list(parts_of(batch, CARD, template, values))
    filled = fill(template, next(iter(values.values())))
    if "\ud83c" in filled or "\udf39" in filled:
        for kind in (CARD, NEWS):
            with pytest.raises(FieldError):
                payload_for(kind, (template,), next(iter(values.values())))


@examples(60)
@given(ids, values, texts(0, 400), st.none() | st.integers(1, 31_536_000))
def test_the_parts_of_a_batch_fit_and_hold_each_user_once(
    batch: str, values: dict[str, dict[str, str]], template: str, expires_s: int | None
) -> None:
    parts = list(parts_of(batch, CARD, template, values, expires_s))
    found: dict[str, Any] = {}
    for part in parts:
        assert part[:3] == (batch, CARD, template)
        assert part.expires_s == expires_s
        assert part.values is not None
        assert 0 < len(part.values) <= MAX_RECIPIENTS
        call = Call(81, "", part)
        assert len(pack_body(call)) <= MAX_CLIENT_BODY_BYTES
        Connection(Side.CLIENT).check(call)
        BY_NAME["directs.send_many"].read(part)
        assert not found.keys() & part.values.keys()
        found |= part.values
    assert list(found.items()) == list(values.items())


@examples(30)
@given(st.integers(1, 3000), st.integers(0, 30))
def test_parts_are_as_full_as_they_can_be(users: int, width: int) -> None:
    values = {f"u{number}": {"code": "x" * width} for number in range(users)}
    parts = list(parts_of("b", CARD, "{code}", values))
    for part, after in pairwise(parts):
        assert part.values is not None
        assert after.values is not None
        user, own = next(iter(after.values.items()))
        fuller = Call(81, "", part._replace(values={**part.values, user: own}))
        assert len(part.values) == MAX_RECIPIENTS or len(pack_body(fuller)) > MAX_CLIENT_BODY_BYTES - 3


def test_a_user_that_fits_no_frame_is_an_error_and_not_a_loop() -> None:
    with pytest.raises(LocalProtocolError, match="'bob'"):
        list(parts_of("b", CARD, "{code}", {"ann": {"code": "1"}, "bob": {"code": "x" * 4096}}))
    with pytest.raises(LocalProtocolError, match="'ann'"):
        list(parts_of("b", CARD, "x" * 4090, {"ann": {}}))


@examples(40)
@given(values, st.sampled_from(["plain", "{code}", "{who}: {code} {", "{code}{code}"]))
def test_everybody_gets_the_template_with_their_own_values_or_nobody_gets_anything(
    values: dict[str, dict[str, str]], template: str
) -> None:
    try:
        expected = [(user, fill({"text": template}, own)) for user, own in values.items()]
    except TemplateError:
        with pytest.raises(FieldError) as raised:
            payloads_of(CARD, {"text": template}, values)
        place = int(raised.value.field.removeprefix("values[").removesuffix("]"))
        with pytest.raises(TemplateError):
            fill(template, list(values.values())[place])
    else:
        assert payloads_of(CARD, {"text": template}, values) == expected


def test_an_announcement_for_one_user_keeps_the_rules_of_announcements() -> None:
    assert payload_for(NEWS, ("{code}",), {"code": "C-1"}) == AnnouncementPayload("C-1")
    for template, own in ((("{code}",), {"code": "x" * 501}), ("{code}", {"code": "1"}), (("{code}",), {"code": ""})):
        with pytest.raises(FieldError) as raised:
            payloads_of(NEWS, template, {"ann": {"code": "1"} if template == "" else own})
        assert raised.value.field == "template"
        assert "values[0]" in raised.value.rule


@pytest.mark.parametrize("kind", [kind for kind in MessageType if kind is not NEWS] + [99])
def test_no_other_built_in_type_is_for_one_user(kind: int) -> None:
    with pytest.raises(FieldError) as raised:
        payloads_of(kind, ("hi",), {"ann": {}})
    assert raised.value.field == "type"


def test_a_message_is_at_most_so_large_once_it_is_filled() -> None:
    head = len(pack_body(("x" * MAX_DIRECT_BYTES,))) - 1 - MAX_DIRECT_BYTES
    assert payload_for(CARD, "{a}", {"a": "x" * (MAX_DIRECT_BYTES - head)})
    with pytest.raises(FieldError, match="4096 bytes"):
        payload_for(CARD, "{a}", {"a": "x" * (MAX_DIRECT_BYTES - head + 1)})
    with pytest.raises(FieldError, match="4096 bytes"):
        payloads_of(CARD, "{a}" * 600, {"ann": {"a": "x" * 1500}})


def test_an_entry_of_a_map_is_named_by_its_place_and_never_by_its_key() -> None:
    read = BY_NAME["directs.send_many"].read
    with pytest.raises(FieldError) as raised:
        read(("b", 4, ("x",), {"ann": {}, "secret": {"code": 1}}))
    assert raised.value.field == "values[1][0]"
    assert "secret" not in str(raised.value)
