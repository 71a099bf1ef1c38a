"""Requests that wait to be run, without a user who is erased."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.users.named import users_in, without_user
from protocol.operations.messages import PublishMany, PublishMessage
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
