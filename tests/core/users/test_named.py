"""Requests that wait to be run, without a user who is erased."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.users.named import users_in, without_user
from protocol.fields import FieldError
from protocol.json_values import as_json
from protocol.operations import OPERATIONS
from protocol.operations.messages import PublishMany, PublishMessage
from protocol.operations.rows import OperationRow
from protocol.operations.sanctions import MuteUser


@pytest.mark.parametrize(
    ("kind", "request_of", "left"),
    [
        (
            PublishMessage,
            {"room": "r", "type": 4, "payload": ["my text"], "as_user": "eve", "name": "Eve"},
            {"room": "r", "type": 4, "payload": None, "as_user": "x", "name": ""},
        ),
        (PublishMessage, ("r", 5, ("o-1", "eve", "Eve", "rose", 1, 100)), ("r", 5, None)),
        (PublishMessage, {"room": "r", "payload": ("hello",), "as_user": "bob"}, None),
        (
            PublishMany,
            {"items": [{"room": "r", "payload": ["1"]}, ["r", 4, ["2"], "", "eve"]]},
            {"items": ({"room": "r", "payload": ["1"]},)},
        ),
        (MuteUser, {"room": "r", "user": "eve", "reason": "rude"}, {"room": "r", "user": "x", "reason": ""}),
        (MuteUser, ("r", "eve", 60, "rude", True), ("r", "x", 60, "", True)),
        (MuteUser, "no request", None),
    ],
)
def test_a_request_loses_an_erased_user_and_what_it_has_of_it(kind: Any, request_of: Any, left: Any) -> None:
    after = without_user(kind, request_of, "eve", "x")
    assert after == (request_of if left is None else left)


def test_users_are_found_by_the_names_of_fields() -> None:
    assert users_in(MuteUser("r", "eve", reason="bob")) == {"eve"}


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_every_field_that_takes_ids_of_users_is_known(row: OperationRow) -> None:
    """A value of a field that a rule of user ids refuses shows that it takes them, alone, in an array, or as keys."""
    fields = as_json(row.example[0])
    for name in row.request._fields:
        if (row.name, name) == ("moderation.audit", "subject"):
            continue  # what the audit has of an erased user can be read
        for wrong, right in ((" ", "ann"), ([" "], ["ann"]), ({" ": {}}, {"ann": {}})):
            try:
                row.read({**fields, name: wrong})
            except FieldError as error:
                if "user id" in str(error):
                    assert "ann" in users_in(row.request(**{**dict.fromkeys(row.request._fields), name: right}))
