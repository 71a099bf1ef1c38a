"""Entries by messages are tried again until the ledger takes them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from broker.core.commerce.activity import ActivityRefusal, Requester
from broker.core.commerce.lottery import EnterCommand
from broker.core.commerce.room_activities import ActivityKey
from broker.rooms.keyword_entries import RETRY_S, KeywordEntries
from protocol.codes import ErrorCode
from tests.support.activities import viewer

KEY = "lotteries", "bag"
LATER = ActivityRefusal(ErrorCode.OVERLOADED, "the ledger cannot take it now", "", 1000)


def test_what_the_ledger_cannot_take_now_is_entered_later_once_a_user() -> None:
    sent: list[str] = []
    answers: list[Any] = [LATER, LATER, ActivityRefusal(ErrorCode.CLOSED, "takes no entries any more"), LATER, "entry"]

    def send(key: ActivityKey, command: EnterCommand, requester: Requester, on_answer: Callable[[Any], None]) -> None:
        assert (key, command.said) == (KEY, "lucky")
        sent.append(requester.user)
        on_answer(answers.pop(0))

    now = [10.0]
    entries = KeywordEntries(send, lambda: now[0])
    for user in ("ann", "ann", "bob"):
        entries.enter(KEY, viewer(user), "lucky")
    assert sent == ["ann", "ann", "bob"]
    assert entries.retry_at == 10 + RETRY_S
    now[0] = entries.retry_at
    entries.retry()
    assert sent[3:] == ["ann"]
    now[0] = entries.retry_at
    entries.retry()
    assert sent[4:] == ["ann"]
    assert entries.retry_at == inf
    entries.retry()
    assert answers == []
