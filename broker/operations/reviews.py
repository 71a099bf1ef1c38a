"""Handlers of the operations on the review queue of rooms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.core.moderation.review import REVIEWS_KEY, ReviewQueue
from broker.core.moderation.review_commands import ClaimItems, DecideItems, PutReport
from broker.core.rooms.shown_lately import is_reportable
from broker.core.tenants.names import plain_name, qualify, tenant_of
from broker.operations.activities import command, read_if_there
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import required
from broker.operations.messages import delete_messages
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import events_of, plain_value, room_of
from broker.operations.sanctions import change_sanction
from broker.rooms.room import Room
from protocol.activities.moderation import SanctionKind
from protocol.codes import ErrorCode
from protocol.frames import pack_body
from protocol.operations.reviews import (
    ClaimedItems,
    ClaimReview,
    DecidedItems,
    DecideReview,
    ListReview,
    ReportedMessage,
    ReportMessage,
    ReviewItem,
    ReviewPage,
    Verdict,
)
from protocol.payloads import DeletedPayload

__all__ = ["HANDLERS"]

MAX_PAGE_BYTES = 256 * 1024
"""Of the items of a page, packed: as JSON it is below 1 MiB."""


async def _queue(parts: Parts, caller: Caller, request: ListReview) -> ReviewPage:
    room, after = _position(request.cursor)
    rooms = [] if request.room is None else [room_of(parts, request.room).name]
    required(parts.ledger)
    if request.room is None:
        if not caller.is_backend:
            raise OperationError(ErrorCode.BAD_FIELD, "is required", "room")
        rooms = [name for name in _rooms_with_queue(parts, caller) if plain_name(name) >= room]
    found: list[ReviewItem] = []
    for name in rooms:
        first = after if plain_name(name) == room else 0
        found += await _items(parts, name, request, first, request.limit + 1 - len(found))
        fitting = _fitting(found, request.limit)
        if fitting < len(found):
            last = found[fitting - 1]
            return ReviewPage(tuple(found[:fitting]), f"{plain_name(last.room)} {last.id}")
    return ReviewPage(tuple(found), None)


def _fitting(items: Sequence[ReviewItem], limit: int) -> int:
    """Return how many of the items a page has, one at least."""
    left = MAX_PAGE_BYTES
    for count, item in enumerate(items[:limit]):
        left -= len(pack_body(item))
        if left < 0 and count:
            return count
    return min(limit, len(items))


def _position(cursor: str | None) -> tuple[str, int]:
    """Return the room and the id after which a page begins."""
    room, _, id = (cursor or "").rpartition(" ")
    if cursor is not None and not (room and id.isascii() and id.isdigit() and len(id) < 16):
        raise OperationError(ErrorCode.BAD_FIELD, "is no cursor of this operation", "cursor")
    return room, int(id or 0)


def _rooms_with_queue(parts: Parts, caller: Caller) -> list[str]:
    """Return the rooms of the caller that have a queue, open or not, by name."""
    names = parts.hub.rooms_with_activity(REVIEWS_KEY)
    return sorted(name for name in names if tenant_of(name) == caller.tenant and caller.role_in(name) is not None)


async def _items(parts: Parts, room: str, request: ListReview, after: int, limit: int) -> list[ReviewItem]:
    def read(queue: ReviewQueue[Any]) -> list[ReviewItem]:
        return queue.items(room, request.state, after, limit, parts.hub.trusted.now_ms())

    found: list[ReviewItem] | None = await read_if_there(parts, room, REVIEWS_KEY, read)
    return found or []


async def _claim(parts: Parts, caller: Caller, request: ClaimReview) -> ClaimedItems:
    if not await _has_queue(parts, request.room):
        return ClaimedItems(0, parts.hub.trusted.now_ms() + request.ttl_ms, ())
    claim = ClaimItems(request.items, request.limit, request.ttl_ms)
    found: ClaimedItems = await command(parts, caller, request.room, REVIEWS_KEY, claim)
    return found._replace(items=tuple(each._replace(room=request.room) for each in found.items))


async def _decide(parts: Parts, caller: Caller, request: DecideReview) -> DecidedItems:
    if not request.items and request.user is None:
        raise OperationError(ErrorCode.BAD_FIELD, "must name at least one, or user be given", "items")
    if not await _has_queue(parts, request.room):
        return DecidedItems((), 0)
    user = None if request.user is None else plain_name(request.user)
    decide = DecideItems(request.items, request.verdict, request.reason, user, request.fence)
    if request.verdict is Verdict.BAN:
        authors: set[str] | None = await read_if_there(
            parts, request.room, REVIEWS_KEY, lambda queue: queue.authors(decide)
        )
        for author in sorted(authors or ()):
            user_id = qualify(caller.tenant, author)
            await change_sanction(parts, caller, SanctionKind.BAN, request.room, user_id, request.ban_s, request.reason)
    if request.verdict is not Verdict.APPROVE:
        offsets = await read_if_there(parts, request.room, REVIEWS_KEY, lambda queue: queue.reported_events(decide))
        if offsets:
            deleted = DeletedPayload(offsets, "", 0, request.reason)
            await delete_messages(parts, caller, room_of(parts, request.room), deleted)
    decided: DecidedItems = await command(parts, caller, request.room, REVIEWS_KEY, decide)
    return decided


async def _report(parts: Parts, caller: Caller, request: ReportMessage) -> ReportedMessage:
    required(parts.ledger)
    room = room_of(parts, request.room)
    if room.journal.is_review_full:
        raise OperationError(ErrorCode.RATE_LIMITED, "holds as many messages as its tenant may", "room", 60_000)
    report = await _reported_event(parts, caller, room, request) if request.offset else _reported(room, request)
    if report.user == caller.id:
        raise OperationError(ErrorCode.BAD_FIELD, "is a message of the caller", "user")
    found: ReportedMessage = await command(parts, caller, request.room, REVIEWS_KEY, report, creates=True)
    return found


async def _reported_event(parts: Parts, caller: Caller, room: Room, request: ReportMessage) -> PutReport:
    """Return the report of an event of the stream."""
    offset = request.offset or 0
    if request.user is not None or request.text is not None:
        raise OperationError(ErrorCode.BAD_FIELD, "must not be given together with user or text", "offset")
    found = () if offset > room.state.last_offset else await events_of(parts, room, offset - 1, offset)
    tags = room.state.activities.tags_of(caller.id, caller.tags)
    shown = room.views.addressed_to(tags, found or ())
    if not shown or not is_reportable(shown[0].event.type):
        raise OperationError(ErrorCode.BAD_FIELD, "names no message that is kept and can be reported", "offset")
    event = shown[0].event
    payload = plain_value(event.payload)
    context = room.state.kept.around(event.at_ms)
    return PutReport(event.user_id, event.name, int(event.type), payload, event.at_ms, offset, request.reason, context)


def _reported(room: Room, request: ReportMessage) -> PutReport:
    """Return the report of a danmaku."""
    if request.user is None or request.text is None:
        raise OperationError(ErrorCode.BAD_FIELD, "must be given, or user and text", "offset")
    kept, user = room.state.kept, plain_name(request.user)
    found = kept.lately.find(user, request.text)
    if found is None:
        raise OperationError(ErrorCode.BAD_FIELD, "is no danmaku of this user in the last minute", "text")
    at_ms, entry = found
    name = entry.name if user == entry.user_id else ""
    payload = plain_value(entry.payload)
    return PutReport(user, name, entry.type, payload, at_ms, None, request.reason, kept.around(at_ms))


async def _has_queue(parts: Parts, room: str) -> bool:
    required(parts.ledger)
    return await read_if_there(parts, room, REVIEWS_KEY, lambda queue: True) is not None


HANDLERS: dict[str, Handler] = {
    "moderation.queue": _queue,
    "moderation.claim": _claim,
    "moderation.decide": _decide,
    "moderation.report": _report,
}
