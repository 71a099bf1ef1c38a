"""What rooms report to the platform by webhook.

Facts of the ledger are reported in their own transaction: `recorded`, `opened` and `ended` return the rows that go with
it. What is no fact there (a room is occupied or vacated, danmaku of a tick, users who come and go) is submitted by
itself; where the ledger takes nothing it is dropped and counted.

Users who come, go or exceed limits are collected and reported in batches, with bounds on each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from broker.core.rooms.effects import Flagged, Record
from broker.core.rooms.erasure import Erasure
from broker.core.tenants.names import plain_name, tenant_of
from broker.ledger import OutboxEntry
from broker.webhooks.events import WebhookEvents
from protocol.codes import MessageType, Role, RoomPhase
from protocol.messages import Tick
from protocol.payloads import payload_record
from protocol.webhook_events import (
    MAX_EVENT_USERS,
    MAX_FLAGGED_FINDINGS,
    EventUser,
    FlaggedFinding,
    GiftAcceptedData,
    HighlightAcceptedData,
    MessageFlaggedData,
    MessagePublishedData,
    RoomEndedData,
    RoomOccupiedData,
    RoomOpenedData,
    RoomVacatedData,
    UserOverLimitsData,
    UsersChangedData,
)

__all__ = ["VACATED_AFTER_S", "RoomReporter", "RoomReports"]

VACATED_AFTER_S = 5.0
"""A room whose members all reload their page is not vacated."""
LIMITS_WINDOW_S = 10.0
MAX_LIMITED = 100
"""Users of all rooms that are reported in one window of limits; the others are not."""
MAX_FLAGGED = 100
"""Messages of all rooms in which words were found that are reported in a second; the others are counted."""
ROWS_PER_SUBMISSION = 500


class RoomReports:
    """Reports of all rooms of one broker. ``submit`` takes rows that are no part of another submission."""

    def __init__(
        self,
        events: WebhookEvents,
        submit: Callable[[tuple[OutboxEntry, ...]], bool],
        unix_ms: Callable[[], int],
    ) -> None:
        self._events = events
        self._submit = submit
        self._unix_ms = unix_ms
        self._came: dict[tuple[str, int, str], list[EventUser]] = {}
        """Users who have come or gone, by room, epoch and type of the event; empty where no endpoint asks."""
        self._limited: dict[tuple[str, int, str], int] = {}
        self._limits_due = 0.0
        self._flagged = 0
        """Messages in which words were found, since the last flush."""
        self.flagged_dropped = 0
        """Of them, those that were too many to be reported."""

    # ---- rows that go with a fact

    def recorded(self, room: str, epoch: int, record: Record[Any]) -> tuple[OutboxEntry, ...]:
        """Return what is reported of a room's event, by its room (qualified name); they follow the event's entry."""
        events, event = self._events, record.event
        if not events.is_used:
            return ()
        name = events.type_name(event.type)
        at_ms = event.at_ms
        rows: tuple[OutboxEntry, ...] = ()
        is_message = event.type != MessageType.GIFT or record.weight > 0  # the bare end of a combo is none
        if is_message and events.asks(f"message.{name}"):
            data = MessagePublishedData(name, event.user_id, event.name, payload_record(event.type, event.payload))
            data = data._replace(audience=record.audience)
            rows += events.of_room("message.published", room, epoch, data, at_ms, topic=f"message.{name}")
        if event.type == MessageType.GIFT and events.asks("gift.accepted"):
            for asked in record.asked:
                if asked.gift is not None:
                    rows += events.of_room("gift.accepted", room, epoch, GiftAcceptedData(*asked.gift), at_ms)
        if event.type == MessageType.HIGHLIGHT and events.asks("highlight.accepted"):
            highlight = HighlightAcceptedData(*event.payload[:-1])
            rows += events.of_room("highlight.accepted", room, epoch, highlight, at_ms)
        if event.type == MessageType.ROOM_PHASE and event.payload[0] == RoomPhase.ENDED:
            rows += events.of_room("room.ended", room, epoch, RoomEndedData("ended", event.user_id), at_ms)
        return rows

    def opened(self, room: str, epoch: int, at_ms: int) -> tuple[OutboxEntry, ...]:
        """Return what is reported of a new stream."""
        return self._events.of_room("room.opened", room, epoch, RoomOpenedData(), at_ms)

    def ended_unused(self, room: str, epoch: int, at_ms: int) -> tuple[OutboxEntry, ...]:
        """Return what is reported of a stream that ends because nothing was posted in it."""
        return self._events.of_room("room.ended", room, epoch, RoomEndedData("unused"), at_ms)

    def rows(self, kind: str, room: str, epoch: int, data: Any, at_ms: int) -> tuple[OutboxEntry, ...]:
        """Return the rows of an event of an activity. Any: the table has the type of its data."""
        return self._events.of_room(kind, room, epoch, data, at_ms)

    # ---- reports of their own

    def report(self, kind: str, room: str, epoch: int, data: Any) -> None:
        """Submit an event of a room that is no part of another submission. Any: the table has the type of its data."""
        if self._events.asks(kind):
            self._submit(self._events.of_room(kind, room, epoch, data, self._unix_ms()))

    def flagged(self, room: str, epoch: int, effect: Flagged) -> None:
        """Submit that words or detectors have found something in a message."""
        if not self._events.asks("message.flagged"):
            return
        self._flagged += 1
        if self._flagged > MAX_FLAGGED:
            self.flagged_dropped += 1
            return
        kind, verdict = effect.type, effect.verdict
        findings = [FlaggedFinding(each.word, each.list_name, each.category) for each in verdict.findings]
        data = MessageFlaggedData(
            self._events.type_name(kind), plain_name(effect.user_id), effect.name, verdict.action.name.lower(),
            tuple(findings[:MAX_FLAGGED_FINDINGS]), payload_record(kind, effect.payload),
        )  # fmt: skip
        self.report("message.flagged", room, epoch, data)

    def published(self, room: str, epoch: int, messages: Iterable[tuple[int, MessagePublishedData]]) -> None:
        """Submit messages of a tick, each with its time."""
        rows: list[OutboxEntry] = []
        for at_ms, data in messages:
            topic = f"message.{data.type}"
            rows += self._events.of_room("message.published", room, epoch, data, at_ms, topic=topic)
            if len(rows) >= ROWS_PER_SUBMISSION:
                self._submit(tuple(rows))
                rows.clear()
        if rows:
            self._submit(tuple(rows))

    def changed(self, kind: str, room: str, epoch: int, user: EventUser) -> None:
        """Collect a user who has come or gone."""
        users = self._came.setdefault((room, epoch, kind), [])
        users.append(user)
        if len(users) == MAX_EVENT_USERS:
            del self._came[room, epoch, kind]
            self.report(kind, room, epoch, UsersChangedData(tuple(users)))

    def over_limits(self, room: str, epoch: int, user: str) -> None:
        """Count a message that a limit has refused."""
        key = room, epoch, user
        count = self._limited.get(key)
        if count is not None:
            self._limited[key] = count + 1
        elif len(self._limited) < MAX_LIMITED and self._events.asks("user.over_limits"):
            self._limited[key] = 1

    def erase(self, erasure: Erasure) -> None:
        """Report nothing of a user that is collected and not submitted yet."""
        for (room, _, _), users in self._came.items():
            if tenant_of(room) == erasure.tenant:
                users[:] = [each for each in users if each.user != erasure.user]
        for room, epoch, user in list(self._limited):
            if (tenant_of(room), user) == (erasure.tenant, erasure.user):
                del self._limited[room, epoch, user]

    def flush(self, now: float) -> None:
        """Submit what has been collected. Called about every second."""
        self._flagged = 0
        came, self._came = self._came, {}
        for (room, epoch, kind), users in came.items():
            if users:
                self.report(kind, room, epoch, UsersChangedData(tuple(users)))
        if now >= self._limits_due:
            self._limits_due = now + LIMITS_WINDOW_S
            limited, self._limited = self._limited, {}
            for (room, epoch, user), refused in limited.items():
                data = UserOverLimitsData(user, refused, round(LIMITS_WINDOW_S * 1000))
                self.report("user.over_limits", room, epoch, data)

    def of(self, room: str, epoch: int) -> RoomReporter:
        """Return the reporter of an open room."""
        return RoomReporter(self, self._events, room, epoch, self._unix_ms)


class RoomReporter:
    """Reports of one open room, for its members and messages that are no facts of the ledger."""

    __slots__ = ("_epoch", "_events", "_last_ms", "_messages", "_occupied_at_ms", "_reports", "_room", "_unix_ms")

    def __init__(
        self, reports: RoomReports, events: WebhookEvents, room: str, epoch: int, unix_ms: Callable[[], int]
    ) -> None:
        self._reports = reports
        self._events = events
        self._room = room
        self._epoch = epoch
        self._unix_ms = unix_ms
        self._occupied_at_ms: int | None = None
        self._last_ms = 0
        self._messages = 0
        """Messages of ticks in the millisecond of the last one."""

    @property
    def is_occupied(self) -> bool:
        """Whether it has been reported that there are members."""
        return self._occupied_at_ms is not None

    def entered(self, user: str, name: str, role: Role) -> None:
        """A member has joined."""
        if self._occupied_at_ms is None:
            self._occupied_at_ms = self._unix_ms()
            self._reports.report("room.occupied", self._room, self._epoch, RoomOccupiedData(plain_name(user)))
        if self._events.asks("user.joined"):
            self._changed("user.joined", user, name, role)

    def left(self, user: str, name: str, role: Role) -> None:
        """A member has left."""
        if self._events.asks("user.left"):
            self._changed("user.left", user, name, role)

    def _changed(self, kind: str, user: str, name: str, role: Role) -> None:
        self._reports.changed(kind, self._room, self._epoch, EventUser(plain_name(user), name, role))

    def vacated(self) -> None:
        """No member has been there for `VACATED_AFTER_S`."""
        if self._occupied_at_ms is not None:
            data = RoomVacatedData(max(0, self._unix_ms() - self._occupied_at_ms))
            self._occupied_at_ms = None
            self._reports.report("room.vacated", self._room, self._epoch, data)

    def over_limits(self, user: str) -> None:
        """A message was refused by a limit."""
        self._reports.over_limits(self._room, self._epoch, plain_name(user))

    def flagged(self, effect: Flagged) -> None:
        """Words or detectors have found something in a message."""
        self._reports.flagged(self._room, self._epoch, effect)

    def ticked(self, ticks: Sequence[Tick]) -> None:
        """Danmaku are published; ``ticks``: of each tier, the widest first."""
        if ticks and self._events.asks_for_ticks:
            tick = ticks[0]
            if tick.at_ms != self._last_ms:
                self._last_ms, self._messages = tick.at_ms, 0
            first, self._messages = self._messages, self._messages + len(tick.entries)
            self._reports.published(
                self._room,
                self._epoch,
                (
                    (
                        tick.at_ms,
                        MessagePublishedData(
                            self._events.type_name(entry.type), plain_name(entry.user_id), entry.name,
                            payload_record(entry.type, entry.payload), entry.count, item,
                        ),
                    )
                    for item, entry in enumerate(tick.entries, first)
                ),
            )  # fmt: skip
