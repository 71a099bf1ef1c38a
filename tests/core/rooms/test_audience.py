"""Which events a viewer gets by its tags."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from broker.core.rooms.audience import addressed_to, selector
from broker.core.rooms.stream import StoredEvent
from protocol.activities.audiences import Audience
from protocol.codes import Lane, MessageType
from protocol.messages import Event
from protocol.payloads import NotAddressedPayload

TAGS = ("fans", "buyers", "cn")
some_tags = st.lists(st.sampled_from((*TAGS, "unknown")), max_size=3, unique=True).map(tuple)
audiences = st.builds(Audience, some_tags, some_tags, some_tags)


def bits_of(tags: Sequence[str]) -> int:
    return sum(1 << (TAGS.index(tag) if tag in TAGS else 16) for tag in set(tags))


def is_in(audience: Audience, tags: set[str]) -> bool:
    """The sentence of the design, in sets."""
    return (
        (not audience.any or bool(tags & set(audience.any)))
        and set(audience.all) <= tags
        and not tags & set(audience.none)
    )


@given(audiences, st.sets(st.sampled_from(TAGS)))
def test_an_audience_has_those_with_any_all_and_none_of_its_tags(audience: Audience, tags: set[str]) -> None:
    assert selector(audience, bits_of).selects(bits_of(tuple(tags))) == is_in(audience, tags)


@given(st.lists(st.none() | audiences, max_size=6), st.sets(st.sampled_from(TAGS)))
def test_at_every_offset_stands_the_event_or_that_it_is_for_others(
    addressed: list[Audience | None], tags: set[str]
) -> None:
    events = [
        StoredEvent(offset, Lane.COMMERCE, Event(4, 1000 + offset, "host", "Host", (f"text {offset}",)), audience)
        for offset, audience in enumerate(addressed, 1)
    ]
    found = addressed_to(bits_of(tuple(tags)), events, bits_of)
    assert [each.offset for each in found] == [each.offset for each in events]
    for each, before in zip(found, events, strict=True):
        assert (each.lane, each.audience) == (before.lane, None)
        if before.audience is None or is_in(before.audience, tags):
            assert each.event == before.event
        else:
            hidden = Event(MessageType.NOT_ADDRESSED, before.event.at_ms, "", "", NotAddressedPayload())
            assert each.event == hidden
