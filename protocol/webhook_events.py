"""Events that a broker reports to the platform by webhook: one table, with the record of each event's data.

From it are made the patterns that an endpoint may name, the section ``webhooks`` of OpenAPI and the table of the guide.
Every event is one JSON object: the fields of `ENVELOPE`, and ``data`` with the record below. Events and fields are only
added.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .activities import REPORTS
from .activities.audiences import Audience, audience
from .activities.moderation import SanctionVerb
from .codes import Role
from .fields import (
    Rule,
    any_value,
    array_of,
    boolean,
    display_name,
    integer,
    member_id,
    name_of,
    optional,
    record,
    room_name,
    schema_of,
    text,
    user_id,
    user_id_or_empty,
)
from .webhook_row import EventRow

__all__ = [
    "EVENTS",
    "EVENTS_BY_TYPE",
    "MAX_EVENT_USERS",
    "MAX_FLAGGED_FINDINGS",
    "AuditAnchoredData",
    "BrokerDegradedData",
    "DirectAckedData",
    "DirectExpiredData",
    "EventRow",
    "EventUser",
    "FlaggedFinding",
    "GiftAcceptedData",
    "HighlightAcceptedData",
    "MessageFlaggedData",
    "MessagePublishedData",
    "RoomEndedData",
    "RoomOccupiedData",
    "RoomOpenedData",
    "RoomVacatedData",
    "UserOverLimitsData",
    "UserSanctionedData",
    "UsersChangedData",
    "WebhookTestData",
    "envelope_schema",
    "topics_of",
]

MAX_FLAGGED_FINDINGS = 20
"""Findings in one event."""
MAX_EVENT_USERS = 500
"""Users in one event."""


class RoomOpenedData(NamedTuple):
    """Empty: a room begins a stream, with a new epoch. A room that comes back after an idle time goes on with its
    stream and is not opened again."""


class RoomOccupiedData(NamedTuple):
    """The first member has joined. ``user``: who."""

    user: str


class RoomVacatedData(NamedTuple):
    """No member has been there for five seconds. ``occupied_ms``: how long there had been some."""

    occupied_ms: int


class RoomEndedData(NamedTuple):
    """The stream is over. ``reason``: ``ended`` by staff or the platform, ``unused``: nothing was posted in it, or
    ``idle``: nothing has been for days; ``user``: who ended it, empty where the broker did."""

    reason: str
    user: str = ""


class MessagePublishedData(NamedTuple):
    """A message is published. ``type``: its name; ``payload``: an object for built-in types, any value for others.

    ``count``: equal danmaku that were merged into it; ``item``: its number within the same millisecond;
    ``audience``: the part of the room that it is for, null = all.
    """

    type: str
    user: str
    name: str
    payload: Any
    count: int = 1  # type: ignore[assignment]  # hides tuple.count
    item: int = 0
    audience: Audience | None = None


class FlaggedFinding(NamedTuple):
    """What was found. ``word``: of the list, or the name of a detector; ``list``: empty for a detector."""

    word: str
    list: str
    category: str


class MessageFlaggedData(NamedTuple):
    """Words or detectors have found something in a message. ``type``: its name; ``action``: what became of it: flag,
    mask, shadow, hold or block; ``payload``: as it was posted (any value). At most a hundred a second are reported."""

    type: str
    user: str
    name: str
    action: str
    findings: tuple[FlaggedFinding, ...]
    payload: Any = None


class GiftAcceptedData(NamedTuple):
    """An order is durable. Orders of one combo are published together: ``offset`` is that of their message."""

    order_id: str
    user: str
    name: str
    gift_id: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    price_cents: int
    target: str = ""


class HighlightAcceptedData(NamedTuple):
    """A paid message is durable. ``tier``: from 1; ``until_ms``: how long it is shown."""

    order_id: str
    user: str
    name: str
    text: str
    cents: int
    tier: int
    until_ms: int


class DirectAckedData(NamedTuple):
    """A client has acknowledged every message to ``user`` up to number ``up_to``."""

    user: str
    up_to: int


class DirectExpiredData(NamedTuple):
    """A message was not acknowledged in time. ``batch``: empty where it was sent alone."""

    user: str
    id: int
    batch: str = ""


class EventUser(NamedTuple):
    """A user in a room."""

    user: str
    name: str
    role: Role


class UsersChangedData(NamedTuple):
    """Users who have come, or gone, within about a second."""

    users: tuple[EventUser, ...]


class UserOverLimitsData(NamedTuple):
    """Messages of a user were refused by a limit: ``refused`` of them within ``window_ms``. A sample: of many such
    users not all are reported."""

    user: str
    refused: int
    window_ms: int


class UserSanctionedData(NamedTuple):
    """A moderator or the platform has set or lifted a sanction, or undone that. ``room``: null = every room;
    ``until_ms``: 0 = without an end; ``by``: user or key; ``undone``: what ``action`` has done is undone."""

    action: str
    verb: SanctionVerb
    room: str | None
    user: str
    until_ms: int
    reason: str
    by: str
    shadow: bool = False
    undone: bool = False


class BrokerDegradedData(NamedTuple):
    """Readiness has changed. ``status``: as ``/healthz`` has it, ``ok`` when it is over; ``reason``: in words."""

    status: str
    reason: str = ""


class AuditAnchoredData(NamedTuple):
    """``entry``: number of the last entry of the ledger's chain; ``hash``: its SHA-256, hex."""

    entry: int
    hash: str


class WebhookTestData(NamedTuple):
    """An event that an operator has asked for (hooks.test)."""

    note: str


_count = integer(0)
_id = text(1, 64)
_users = record(
    UsersChangedData, (array_of(record(EventUser, (member_id, display_name, name_of(Role))), MAX_EVENT_USERS),)
)
_ann = EventUser("ann", "Ann", Role.VIEWER)

EVENTS: tuple[EventRow, ...] = (
    EventRow(
        "room.opened", RoomOpenedData, record(RoomOpenedData, ()), "A room begins a stream.", RoomOpenedData(),
    ),
    EventRow(
        "room.occupied", RoomOccupiedData, record(RoomOccupiedData, (member_id,)),
        "The first member has joined a room.", RoomOccupiedData("ann"),
    ),
    EventRow(
        "room.vacated", RoomVacatedData, record(RoomVacatedData, (_count,)),
        "A room has been without members for five seconds.", RoomVacatedData(3_600_000),
    ),
    EventRow(
        "room.ended", RoomEndedData, record(RoomEndedData, (text(1, 32), user_id_or_empty)),
        "A room's stream is over.", RoomEndedData("ended", "host"), has_offset=True,
    ),
    EventRow(
        "message.published", MessagePublishedData,
        record(
            MessagePublishedData,
            (text(1, 64), user_id_or_empty, display_name, any_value, integer(1), _count, optional(audience)),
        ),
        "A message is published: every durable one; danmaku and emotes where an endpoint names message.danmaku or "
        "message.emote.",
        MessagePublishedData("announcement", "host", "Host", {"text": "we begin"}), has_offset=True,
    ),
    EventRow(
        "message.flagged", MessageFlaggedData,
        record(
            MessageFlaggedData,
            (
                *(text(1, 64), member_id, display_name, text(1, 16)),
                array_of(record(FlaggedFinding, (text(1, 64), text(0, 32), text(0, 32))), MAX_FLAGGED_FINDINGS),
                any_value,
            ),
        ),
        "Words or detectors have found something in a message.",
        MessageFlaggedData(
            "danmaku", "eve", "Eve", "mask", (FlaggedFinding("cheap pills", "ads", "advertising"),),
            {"text": "cheap pills here", "style": None},
        ),
    ),
    EventRow(
        "gift.accepted", GiftAcceptedData,
        record(GiftAcceptedData, (_id, user_id, display_name, _id, integer(1), _count, user_id_or_empty)),
        "An order of a gift is durable.", GiftAcceptedData("o-1", "ann", "Ann", "rose", 2, 100), has_offset=True,
    ),
    EventRow(
        "highlight.accepted", HighlightAcceptedData,
        record(HighlightAcceptedData, (_id, user_id, display_name, text(0, 1000), integer(1), integer(1), _count)),
        "A paid message is durable.",
        HighlightAcceptedData("o-2", "ann", "Ann", "hello", 1_000, 2, 1_790_000_120_000), has_offset=True,
    ),
    EventRow(
        "direct.acked", DirectAckedData, record(DirectAckedData, (user_id, integer(1))),
        "A user's client has acknowledged must-deliver messages.", DirectAckedData("ann", 7), in_room=False,
    ),
    EventRow(
        "direct.expired", DirectExpiredData, record(DirectExpiredData, (user_id, integer(1), text(0, 64))),
        "A must-deliver message was not acknowledged in time.", DirectExpiredData("ann", 8, "sale-1"), in_room=False,
    ),
    EventRow(
        "user.joined", UsersChangedData, _users, "Users have joined a room.", UsersChangedData((_ann,)),
        is_default=False,
    ),
    EventRow(
        "user.left", UsersChangedData, _users, "Users have left a room.", UsersChangedData((_ann,)), is_default=False,
    ),
    EventRow(
        "user.over_limits", UserOverLimitsData, record(UserOverLimitsData, (member_id, integer(1), integer(1))),
        "Messages of a user were refused by a limit.", UserOverLimitsData("eve", 40, 10_000),
    ),
    EventRow(
        "user.sanctioned", UserSanctionedData,
        record(
            UserSanctionedData,
            (
                _id, name_of(SanctionVerb), optional(room_name), user_id, _count, text(0, 256), text(1, 128), boolean,
                boolean,
            ),
        ),
        "A sanction of a user is set, lifted or undone.",
        UserSanctionedData("7c1d9c0a7be2463d", SanctionVerb.MUTE, "live-1", "ann", 1_790_000_600_000, "spam", "mod"),
        in_room=False,
    ),
    EventRow(
        "broker.degraded", BrokerDegradedData, record(BrokerDegradedData, (text(1, 32), text(0, 512))),
        "The broker's readiness has changed. Sent without the ledger, and not repeated for long.",
        BrokerDegradedData("degraded", "disk full"), in_room=False,
    ),
    EventRow(
        "audit.anchored", AuditAnchoredData, record(AuditAnchoredData, (integer(1), text(64, 64))),
        "Where the hash chain of the ledger ends: keep it, and `roomcast audit verify --anchor` compares.",
        AuditAnchoredData(8122, "5f" * 32), in_room=False,
    ),
    EventRow(
        "webhook.test", WebhookTestData, record(WebhookTestData, (text(0, 256),)),
        "A test that an operator has asked for; every endpoint gets it.", WebhookTestData("hello"), in_room=False,
    ),
    *REPORTS,
)  # fmt: skip
EVENTS_BY_TYPE: dict[str, EventRow] = {row.type: row for row in EVENTS}

ENVELOPE: dict[str, tuple[Rule, str]] = {
    "id": (text(1, 64), "Name of the event, the same on every try: receivers that know it already do nothing."),
    "type": (text(1, 64), "Name of the event's type."),
    "created_at_ms": (integer(0), "When it happened, in Unix milliseconds."),
    "tenant": (text(0, 64), "Whose it is; empty = the default tenant."),
    "room": (text(1, 64), "Name of the room."),
    "epoch": (integer(0), "Which of the room's streams."),
    "offset": (integer(1), "Place in that stream, where the event is a message of it."),
}
"""Fields beside ``data``; the last three for events of rooms."""


def topics_of(patterns: Iterable[str], durable: Iterable[str], others: Iterable[str]) -> frozenset[str]:
    """Return what patterns such as ``*``, ``room.*`` and ``message.danmaku`` ask for: types of events, and
    ``message.TYPE`` for types of messages in place of message.published.

    :param durable: names of the types of messages that are always meant.
    :param others: names of those that must be named: they are published with a tick.
    """
    durable_topics = {f"message.{name}" for name in durable}
    named = {f"message.{name}" for name in others} | durable_topics
    defaults = {row.type for row in EVENTS if row.is_default}
    found = set()
    for pattern in patterns:
        if pattern in named or pattern in EVENTS_BY_TYPE:
            found.add(pattern)
        elif pattern.endswith("*"):
            found |= {name for name in defaults if name.startswith(pattern[:-1])}
    if "message.published" in found:
        found = (found - {"message.published"}) | durable_topics
    return frozenset(found)


def envelope_schema(row: EventRow) -> dict[str, Any]:
    """Return the JSON schema of an event as it is sent. Any: JSON."""
    names = [name for name in ENVELOPE if row.in_room or name not in ("room", "epoch", "offset")]
    properties: dict[str, Any] = {
        name: {**schema_of(ENVELOPE[name][0]), "description": ENVELOPE[name][1]}
        for name in names
        if name != "offset" or row.has_offset
    }
    properties["type"] = {"const": row.type, "description": ENVELOPE["type"][1]}
    properties["data"] = schema_of(row.read)
    required = [name for name in properties if name != "offset"]
    return {"type": "object", "required": required, "properties": properties}
