"""The table of events: names, examples, patterns and schemas."""

from __future__ import annotations

import json

import pytest

from protocol.codes import MESSAGE_TYPES, MessageType
from protocol.fields import RECORD_SCHEMAS
from protocol.json_values import as_json
from protocol.webhook_events import EVENTS, EventRow, envelope_schema, topics_of

rows = pytest.mark.parametrize("row", EVENTS, ids=lambda row: row.type)
DURABLE, TICKS = ("gift", "announcement"), ("danmaku", "emote")


def test_names_are_unique_and_no_type_of_a_message() -> None:
    names = [row.type for row in EVENTS]
    assert len(set(names)) == len(names)
    assert {f"message.{MessageType(kind).name.lower()}" for kind in MESSAGE_TYPES}.isdisjoint(names)


@rows
def test_the_example_follows_the_rules(row: EventRow) -> None:
    assert isinstance(row.example, row.data)
    assert row.read(json.loads(json.dumps(as_json(row.example)))) == row.example


@rows
def test_the_schema_has_every_field(row: EventRow) -> None:
    schema = envelope_schema(row)
    assert schema["properties"]["type"]["const"] == row.type
    assert ("room" in schema["required"], "offset" in schema["properties"]) == (row.in_room, row.has_offset)
    assert set(RECORD_SCHEMAS[row.data.__name__]["properties"]) == set(row.data._fields)


@pytest.mark.parametrize(
    ("patterns", "topics"),
    [
        ((), ()),
        (("room.opened",), ("room.opened",)),
        (("direct.*",), ("direct.acked", "direct.expired")),
        (("user.*",), ("user.over_limits", "user.sanctioned")),
        (("user.left", "user.*"), ("user.left", "user.over_limits", "user.sanctioned")),
        (("message.published",), ("message.gift", "message.announcement")),
        (
            ("message.*",),
            (
                "message.gift",
                "message.announcement",
                "message.held",
                "message.reported",
                "message.decided",
                "message.flagged",
            ),
        ),
        (("message.gift",), ("message.gift",)),
        (("message.danmaku", "message.nonsense"), ("message.danmaku",)),
    ],
)
def test_patterns_mean_topics(patterns: tuple[str, ...], topics: tuple[str, ...]) -> None:
    assert topics_of(patterns, DURABLE, TICKS) == set(topics)


def test_a_star_means_all_that_need_not_be_named() -> None:
    found = topics_of(("*",), DURABLE, TICKS)
    assert {row.type for row in EVENTS if row.is_default} - {"message.published"} <= found
    assert found.isdisjoint({"user.joined", "user.left", "message.danmaku", "message.published"})
