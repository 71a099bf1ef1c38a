"""The tables of activity events, reports and views."""

from __future__ import annotations

import pytest

from protocol.activities import ACTIVITY_EVENTS, REPORTS, VIEWS, ActivityEventRow, ActivityViewRow
from protocol.json_values import as_json
from protocol.webhook_row import EventRow


@pytest.mark.parametrize("row", ACTIVITY_EVENTS, ids=lambda row: row.name)
def test_examples_of_events_are_read_as_they_were(row: ActivityEventRow) -> None:
    assert isinstance(row.example, row.data)
    assert row.read(as_json(row.example)) == row.example


@pytest.mark.parametrize("row", REPORTS, ids=lambda row: row.type)
def test_examples_of_reports_are_read_as_they_were(row: EventRow) -> None:
    assert isinstance(row.example, row.data)
    assert row.read(as_json(row.example)) == row.example


@pytest.mark.parametrize("row", VIEWS, ids=lambda row: row.kind)
def test_examples_of_views_are_read_as_they_were(row: ActivityViewRow) -> None:
    assert row.read(as_json(row.example)) == row.example
    if row.read_own is not None:
        assert row.read_own(as_json(row.own_example)) == row.own_example


def test_names_are_there_once() -> None:
    for names in ([row.name for row in ACTIVITY_EVENTS], [row.type for row in REPORTS], [row.kind for row in VIEWS]):
        assert len(set(names)) == len(names)
