"""The table of operations: every request with an answer, declared once.

From it are made the frames CALL and RESULT, the HTTP control API, OpenAPI, the clients, ``roomcast call`` and the
tables of SPEC.md. A handler of each stands in ``broker/operations/<subject>.py``.
"""

from __future__ import annotations

from typing import Any

from . import (
    activities,
    app,
    audiences,
    audit,
    brokers,
    cards,
    conversations,
    coupons,
    desk,
    desk_questions,
    desk_streams,
    dictionaries,
    directs,
    hints,
    hooks,
    keys,
    locks,
    lotteries,
    marketing,
    messages,
    mic,
    orders,
    packets,
    pk,
    polls,
    presence,
    products,
    quizzes,
    rankings,
    reports,
    reviews,
    rooms,
    rtc,
    sales,
    sanctions,
    schedules,
    tokens,
    users,
    words,
)
from .rows import STAFF, KeyUse, OperationRow, RateLimit, Scope

__all__ = [
    "BY_NAME",
    "BY_NUMBER",
    "BY_REQUEST",
    "EDITION",
    "OPERATIONS",
    "STAFF",
    "KeyUse",
    "OperationRow",
    "RateLimit",
    "Scope",
]

EDITION = 1
"""Edition of the table; operations and fields are only added."""

OPERATIONS: tuple[OperationRow, ...] = (
    *rooms.ROWS,
    *messages.ROWS,
    *users.ROWS,
    *tokens.ROWS,
    *brokers.ROWS,
    *directs.ROWS,
    *keys.ROWS,
    *hooks.ROWS,
    *locks.ROWS,
    *app.ROWS,
    *sales.ROWS,
    *packets.ROWS,
    *coupons.ROWS,
    *conversations.ROWS,
    *desk.ROWS,
    *desk_streams.ROWS,
    *desk_questions.ROWS,
    *rankings.ROWS,
    *lotteries.ROWS,
    *mic.ROWS,
    *pk.ROWS,
    *schedules.ROWS,
    *products.ROWS,
    *orders.ROWS,
    *polls.ROWS,
    *rtc.ROWS,
    *presence.ROWS,
    *cards.ROWS,
    *marketing.ROWS,
    *quizzes.ROWS,
    *audiences.ROWS,
    *words.ROWS,
    *reviews.ROWS,
    *audit.ROWS,
    *reports.ROWS,
    *hints.ROWS,
    *sanctions.ROWS,
    *dictionaries.ROWS,
    *activities.ROWS,
)
BY_NAME: dict[str, OperationRow] = {row.name: row for row in OPERATIONS}
BY_REQUEST: dict[type[tuple[Any, ...]], OperationRow] = {row.request: row for row in OPERATIONS}
"""Rows by the record of their request, which no two share."""
BY_NUMBER: dict[int, OperationRow] = {row.number: row for row in OPERATIONS}
