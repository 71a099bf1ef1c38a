"""The table of activity events: what rooms say of their sales, packets, polls ..., declared once.

On the wire an activity event is the payload ``[name, id, data]`` of the message types ACTIVITY and ACTIVITY_COUNTER, in
events and in must-deliver messages: ``data`` is an object with the fields of the event's record. Names and fields are
only added; a client ignores those it does not know. Beside it stand the events that the platform gets by webhook
(`REPORTS`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..fields import FieldError
from ..json_values import as_json
from ..messages import ActivityView
from ..payloads import ActivityPayload, payload_record
from . import (
    audiences,
    cards,
    conversations,
    coupons,
    desk,
    highlights,
    lotteries,
    marketing,
    mic,
    moderation,
    orders,
    packets,
    pk,
    polls,
    presence,
    products,
    quizzes,
    rains,
    rankings,
    reviews,
    rtc,
    sales,
    schedules,
)
from .rows import ActivityEventRow, ActivityViewRow, EventRow, Via

__all__ = [
    "ACTIVITY_EVENTS",
    "BY_EVENT_NAME",
    "BY_KIND",
    "REPORTS",
    "ActivityEvent",
    "ActivityEventRow",
    "ActivityViewRow",
    "Via",
    "activity_event",
    "activity_payload",
    "activity_view",
    "received_payload",
]

ACTIVITY_EVENTS: tuple[ActivityEventRow, ...] = (
    *audiences.ROWS,
    *cards.ROWS,
    *conversations.ROWS,
    *desk.ROWS,
    *lotteries.ROWS,
    *marketing.ROWS,
    *mic.ROWS,
    *moderation.ROWS,
    *pk.ROWS,
    *schedules.ROWS,
    *products.ROWS,
    *orders.ROWS,
    *sales.ROWS,
    *packets.ROWS,
    *rains.ROWS,
    *polls.ROWS,
    *presence.ROWS,
    *coupons.ROWS,
    *quizzes.ROWS,
    *rankings.ROWS,
    *reviews.ROWS,
    *rtc.ROWS,
)
REPORTS: tuple[EventRow, ...] = (
    *audiences.REPORTS,
    *conversations.REPORTS,
    *desk.REPORTS,
    *lotteries.REPORTS,
    *mic.REPORTS,
    *pk.REPORTS,
    *schedules.REPORTS,
    *sales.REPORTS,
    *packets.REPORTS,
    *rains.REPORTS,
    *polls.REPORTS,
    *coupons.REPORTS,
    *quizzes.REPORTS,
    *reviews.REPORTS,
    *rtc.REPORTS,
)
VIEWS: tuple[ActivityViewRow, ...] = (
    *audiences.VIEWS,
    *lotteries.VIEWS,
    *mic.VIEWS,
    *moderation.VIEWS,
    *pk.VIEWS,
    *schedules.VIEWS,
    *sales.VIEWS,
    *packets.VIEWS,
    *rains.VIEWS,
    *products.VIEWS,
    *polls.VIEWS,
    *coupons.VIEWS,
    *quizzes.VIEWS,
    *rankings.VIEWS,
    *highlights.VIEWS,
)
BY_KIND: dict[str, ActivityViewRow] = {row.kind: row for row in VIEWS}
BY_EVENT_NAME: dict[str, ActivityEventRow] = {row.name: row for row in ACTIVITY_EVENTS}


class ActivityEvent(NamedTuple):
    """A received activity event. ``data``: its record; an object where this version does not know the event."""

    name: str
    id: str
    data: Any


def activity_payload(name: str, id: str, data: Any) -> tuple[str, str, Any]:
    """Return the payload of an activity event. ``data``: its record."""
    return name, id, as_json(data)


def activity_event(payload: Any) -> ActivityEvent | None:
    """Return a received payload as an event; None where it has not the form of one. Any: it is not checked yet."""
    if not isinstance(payload, tuple) or len(payload) < 3:
        return None
    name, id, data = payload[:3]
    if not isinstance(name, str) or not isinstance(id, str):
        return None
    row = BY_EVENT_NAME.get(name)
    if row is not None:
        try:
            data = row.read(data)
        except FieldError:
            pass  # of a later version
    return ActivityEvent(name, id, data)


def activity_view(view: ActivityView, *, is_own: bool) -> ActivityView:
    """Return a received view with its record as data, where this version knows it."""
    row = BY_KIND.get(view.kind)
    read = None if row is None else row.read_own if is_own else row.read
    if read is None:
        return view
    try:
        return view._replace(data=read(view.data))
    except FieldError:
        return view  # of a later version


def received_payload(message_type: int, payload: Any) -> Any:
    """Return a received payload as the record of its type, as `payload_record`; that of an activity as an event."""
    found = payload_record(message_type, payload)
    return activity_event(found) if isinstance(found, ActivityPayload) else found
